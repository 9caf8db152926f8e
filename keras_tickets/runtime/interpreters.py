"""Files in the runtime they are made for: arrays in by name, arrays out by name.

Also a program of its own, which loads one file and answers requests: a runtime may
crash on a file, and then only this process ends (see `isolated.py`). It knows nothing
but NumPy and the runtime, so that it starts at once, its memory is the runtime's, and
it runs where Keras is not: in the emulated machine of `arm64/emulated_target.py`. Other
programs there get its path, and by it what they share: `ready`, `listen`.
"""

from __future__ import annotations

import abc
import importlib
import json
import os
import pathlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SIGNATURE = "serving_default"

# Arguments of the program: run the reference kernels, not the fast ones; the bytes that
# the file may take.
REFERENCE, MEMORY = "--reference", "--memory="

# Times are told together that were measured within so many seconds: who hears of them
# does not work meanwhile.
_TOLD_EVERY = 0.1

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


class Runtime(abc.ABC):
    """A loaded file.

    Attributes:
        inputs: The names of the inputs, in the file's order.
        outputs: The names of the outputs, in the file's order.
        peak_bytes: The most memory that loading and running took, the runtime's own
            code apart; 0 where nobody tells.
    """

    inputs: list[str]
    outputs: list[str]
    peak_bytes: int = 0

    @abc.abstractmethod
    def run(self, values: Arrays) -> Arrays:
        """Run the file once."""


class LocalRuntime(Runtime):
    """A file that is loaded in this process.

    Args:
        path: The file.
        threads: Threads that the runtime may use; 0 lets it choose.
        reference: Whether its reference kernels run the file, not the fast ones.

    Attributes:
        module: What the runtime is imported as.
    """

    module: str

    @abc.abstractmethod
    def __init__(
        self, path: pathlib.Path, threads: int = 0, reference: bool = False
    ) -> None: ...

    @abc.abstractmethod
    def prepare(self, values: Arrays) -> Callable[[], object]:
        """Take the inputs in, and return what runs the file and does no more."""


class LiteRT(LocalRuntime):
    """A `.tflite` file in LiteRT's interpreter, through its first signature.

    LiteRT's reference kernels are its own, without XNNPACK: slow, and rarely wrong.
    """

    module = "ai_edge_litert.interpreter"

    def __init__(
        self, path: pathlib.Path, threads: int = 0, reference: bool = False
    ) -> None:
        self._path, self._threads, self._reference = path, threads, reference
        interpreter = self._load()
        signatures = interpreter.get_signature_list() or {None: _unsigned(interpreter)}
        key = SIGNATURE if SIGNATURE in signatures else next(iter(signatures))
        runner = interpreter.get_signature_runner
        self._runner = runner(key) if key else _Unsigned(interpreter)
        self._details = self._runner.get_input_details()
        self.inputs = signatures[key]["inputs"]
        self.outputs = signatures[key]["outputs"]

    def run(self, values: Arrays) -> Arrays:
        """Run the file once."""
        result: Arrays = self._runner(**self._typed(values))
        return result

    def prepare(self, values: Arrays) -> Callable[[], object]:
        """Take the inputs in, and return what runs the file and does no more."""
        # A second interpreter: a signature's runner keeps its own from being run by
        # anyone else, and copies inputs and outputs each time.
        interpreter = self._load()
        self._fill(interpreter, values)
        invoke: Callable[[], object] = interpreter.invoke
        return invoke

    def shapes(self, values: Arrays) -> dict[str, list[int]]:
        """Run the file once, and return the shape of each tensor by its number."""
        # Of tensors that it need not keep some have the shape of the file.
        interpreter = self._load(keep=True)
        self._fill(interpreter, values)
        interpreter.invoke()
        details = interpreter.get_tensor_details()
        return {str(entry["index"]): entry["shape"].tolist() for entry in details}

    def _fill(self, interpreter: Any, values: Arrays) -> None:
        """Give an interpreter its inputs, at their sizes."""
        tensors = {self._details[n]["index"]: v for n, v in self._typed(values).items()}
        for index, value in tensors.items():
            interpreter.resize_tensor_input(index, value.shape)
        interpreter.allocate_tensors()
        for index, value in tensors.items():
            interpreter.set_tensor(index, value)

    def _load(self, keep: bool = False) -> Any:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        if self._reference:
            kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            return Interpreter(str(self._path), experimental_op_resolver_type=kernels)
        return Interpreter(
            str(self._path),
            num_threads=self._threads or None,
            experimental_preserve_all_tensors=keep,
        )

    def _typed(self, values: Arrays) -> Arrays:
        return {
            name: np.char.encode(value, "utf-8")
            if value.dtype.kind == "U"
            else value.astype(self._details[name]["dtype"])
            for name, value in values.items()
        }


class _Unsigned:
    """Runs a file that has no signature, by the names of its tensors."""

    def __init__(self, interpreter: Any) -> None:
        interpreter.allocate_tensors()
        self._interpreter = interpreter

    def get_input_details(self) -> dict[str, Any]:
        """Return each input's details, as a signature's runner does."""
        return {entry["name"]: entry for entry in self._interpreter.get_input_details()}

    def __call__(self, **values: Any) -> Arrays:
        """Run the file once."""
        inputs = self.get_input_details()
        for name, entry in inputs.items():
            self._interpreter.resize_tensor_input(entry["index"], values[name].shape)
        self._interpreter.allocate_tensors()
        for name, entry in inputs.items():
            self._interpreter.set_tensor(entry["index"], values[name])
        self._interpreter.invoke()
        outputs = self._interpreter.get_output_details()
        return {o["name"]: self._interpreter.get_tensor(o["index"]) for o in outputs}


def _unsigned(interpreter: Any) -> dict[str, list[str]]:
    """Return what stands for the signature of a file that has none."""
    return {
        "inputs": [entry["name"] for entry in interpreter.get_input_details()],
        "outputs": [entry["name"] for entry in interpreter.get_output_details()],
    }


class OnnxRuntime(LocalRuntime):
    """An `.onnx` file in ONNX Runtime on the CPU.

    Its reference kernels run the graph as it stands, not optimized.
    """

    module = "onnxruntime"

    def __init__(
        self, path: pathlib.Path, threads: int = 0, reference: bool = False
    ) -> None:
        self._session = onnx_session(path, threads, optimize=not reference)
        self.inputs = [entry.name for entry in self._session.get_inputs()]
        self.outputs = [entry.name for entry in self._session.get_outputs()]

    def run(self, values: Arrays) -> Arrays:
        """Run the file once."""
        results = self._session.run(None, values)
        return dict(zip(self.outputs, results, strict=True))

    def prepare(self, values: Arrays) -> Callable[[], object]:
        """Take the inputs in, and return what runs the file and does no more."""
        return lambda: self._session.run(None, values)


# Not the package's table of formats: this program runs where the package is not.
_RUNTIMES: dict[str, type[LocalRuntime]] = {".tflite": LiteRT, ".onnx": OnnxRuntime}


def open_runtime(
    path: pathlib.Path, threads: int = 0, reference: bool = False
) -> LocalRuntime:
    """Load a file in its own runtime, chosen by its suffix.

    Args:
        path: The file.
        threads: Threads that the runtime may use; 0 lets it choose.
        reference: Whether reference kernels run it, not the fast ones.

    Returns:
        The loaded file.
    """
    return _RUNTIMES[path.suffix](path, threads, reference)


def onnx_session(path: pathlib.Path, threads: int, optimize: bool = True) -> Any:
    """Open a session of ONNX Runtime on the CPU.

    Args:
        path: The `.onnx` file.
        threads: Threads within an operator; 0 lets the runtime choose.
        optimize: Whether the graph is optimized.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # Errors only.
    if not optimize:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )


def _memory(what: str) -> int:
    """Return this process' memory in bytes, by the kernel's name; 0 if nothing tells.

    Args:
        what: `"VmHWM"` is the most it had, `"VmData"` what it may write to.
    """
    # Not getrusage: its figure begins with the peak of the process that started us.
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = status.read_text().splitlines()
    found = next((line for line in lines if line.startswith(f"{what}:")), "none 0 kB")
    return int(found.split()[1]) * 1024


def _bound(size: int) -> None:
    """Let this process take so many bytes more, where the system can say so."""
    now = _memory("VmData")
    if not now:
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = now + size if most == resource.RLIM_INFINITY else min(now + size, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def ready(path: str) -> Any:
    """Load a `.tflite` file on one thread, with inputs that each layer computes with.

    TFLite skips an int8-dynamic layer whose input is all zeros.

    Args:
        path: The file.

    Returns:
        LiteRT's interpreter.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        drawn = values(detail["shape"], detail["dtype"])
        interpreter.set_tensor(detail["index"], drawn)
    return interpreter


def values(shape: list[int], dtype: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """Draw random numbers; zeros for whole ones, the only ids valid for any table.

    Args:
        shape: The sizes.
        dtype: Any name or type that NumPy knows.

    Returns:
        The array.
    """
    if np.issubdtype(dtype, np.floating):
        return np.random.default_rng(0).random(shape).astype(dtype)
    return np.zeros(shape, dtype)


def listen() -> Iterator[str]:
    """Return the lines of stdin as they come; exit when the parent closes stdin.

    At once, from another thread: the parent may be killed while a run takes minutes.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def hear() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(1)

    threading.Thread(target=hear, daemon=True).start()
    return iter(lines.get, None)


def _serve(path: pathlib.Path, threads: int, reference: bool, memory: int) -> None:
    """Load a file, then do what each line of stdin asks for."""
    questions = listen()
    importlib.import_module(_RUNTIMES[path.suffix].module)
    if memory:
        _bound(memory)
    before = _memory("VmHWM")
    try:
        runtime = open_runtime(path, threads, reference)
        _say(inputs=runtime.inputs, outputs=runtime.outputs)
        for line in questions:
            request = json.loads(line)
            with np.load(request["inputs"]) as arrays:
                values = {name: arrays[key] for name, key in request["names"].items()}
            if "runs" in request:
                _time(runtime.prepare(values), request["runs"])
                continue
            if "shapes" in request and isinstance(runtime, LiteRT):
                _say(shapes=runtime.shapes(values))
                continue
            results = runtime.run(values)
            np.savez(request["outputs"], *[results[name] for name in runtime.outputs])
            _say(peak=_memory("VmHWM") - before)
    except Exception as error:
        _say(error=f"{type(error).__name__}: {error}")


def _time(call: Callable[[], object], runs: int) -> None:
    """Say the times of runs while others go on: some take minutes."""
    seconds: list[float] = []
    told = time.perf_counter()
    for left in reversed(range(runs)):
        start = time.perf_counter()
        call()
        end = time.perf_counter()
        seconds.append(end - start)
        if not left or end - told > _TOLD_EVERY:
            _say(seconds=seconds)
            seconds, told = [], time.perf_counter()


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve(
        pathlib.Path(sys.argv[1]),
        threads=int(sys.argv[2]),
        reference=REFERENCE in sys.argv,
        memory=sum(int(a[len(MEMORY) :]) for a in sys.argv if a.startswith(MEMORY)),
    )
