"""Runs a file in the runtime it is made for: arrays in by name, arrays out by name.

Also a program of its own, which loads one file and answers requests: a runtime may
crash on a file, and then only this process ends (see `isolated.py`). It knows nothing
but NumPy and the runtime, so that it starts at once and its memory is the runtime's.
"""

from __future__ import annotations

import abc
import json
import pathlib
import sys
from typing import Any

import numpy as np

SIGNATURE = "serving_default"

# An argument of the program: run the plain kernels, not the fast ones.
REFERENCE = "--reference"

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


class Runtime(abc.ABC):
    """A loaded file.

    Attributes:
        inputs: The names of the inputs, in the file's order.
        outputs: The names of the outputs, in the file's order.
    """

    inputs: list[str]
    outputs: list[str]

    @abc.abstractmethod
    def run(self, values: Arrays) -> Arrays:
        """Runs the file once."""


class LiteRT(Runtime):
    """A `.tflite` file in LiteRT's interpreter, through its signature.

    Args:
        path: The file.
        reference: Whether LiteRT's own kernels run it, without XNNPACK.
    """

    def __init__(self, path: pathlib.Path, reference: bool = False) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self._interpreter = Interpreter(
            model_path=str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            if reference
            else OpResolverType.AUTO,
        )
        self._runner = self._interpreter.get_signature_runner(SIGNATURE)
        self._details = self._runner.get_input_details()
        signature = self._interpreter.get_signature_list()[SIGNATURE]
        self.inputs = signature["inputs"]
        self.outputs = signature["outputs"]

    def run(self, values: Arrays) -> Arrays:
        """Runs the file once."""
        typed = {
            name: value.astype(self._details[name]["dtype"])
            for name, value in values.items()
        }
        result: Arrays = self._runner(**typed)
        return result


class OnnxRuntime(Runtime):
    """An `.onnx` file in ONNX Runtime on the CPU.

    Args:
        path: The file.
        reference: Whether its graph runs as it stands, not optimised.
    """

    def __init__(self, path: pathlib.Path, reference: bool = False) -> None:
        self._session = onnx_session(path, threads=0, optimise=not reference)
        self.inputs = [entry.name for entry in self._session.get_inputs()]
        self.outputs = [entry.name for entry in self._session.get_outputs()]

    def run(self, values: Arrays) -> Arrays:
        """Runs the file once."""
        results = self._session.run(None, values)
        return dict(zip(self.outputs, results, strict=True))


def open_runtime(path: pathlib.Path, reference: bool = False) -> Runtime:
    """Loads a file in its own runtime, chosen by its suffix."""
    kind = LiteRT if path.suffix == ".tflite" else OnnxRuntime
    return kind(path, reference)


def onnx_session(path: pathlib.Path, threads: int, optimise: bool = True) -> Any:
    """Opens a session of ONNX Runtime on the CPU.

    Args:
        path: The `.onnx` file.
        threads: Threads within an operator; 0 lets the runtime choose.
        optimise: Whether the graph is optimised.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # Errors only.
    if not optimise:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )


def _peak_memory() -> int:
    """The most memory this process ever held, in bytes; 0 where nothing tells."""
    # Not getrusage: its figure begins with the peak of the process that started us.
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = status.read_text().splitlines()
    peak = next((line for line in lines if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(peak.split()[1]) * 1024


def _serve(path: pathlib.Path, reference: bool) -> None:
    """Loads a file, then runs it on each file of arrays named on a line of stdin."""
    if path.suffix == ".tflite":
        import ai_edge_litert.interpreter  # noqa: F401
    else:
        import onnxruntime  # noqa: F401
    before = _peak_memory()
    try:
        runtime = open_runtime(path, reference)
        _say(inputs=runtime.inputs, outputs=runtime.outputs)
        for line in sys.stdin:
            request = json.loads(line)
            with np.load(request["inputs"]) as arrays:
                values = {name: arrays[key] for name, key in request["names"].items()}
            results = runtime.run(values)
            np.savez(request["outputs"], *[results[name] for name in runtime.outputs])
            _say(peak=_peak_memory() - before)
    except Exception as error:
        _say(error=f"{type(error).__name__}: {error}")


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve(pathlib.Path(sys.argv[1]), reference=REFERENCE in sys.argv)
