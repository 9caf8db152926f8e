"""Times a file on this machine's CPU, in the runtime that the suffix names."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_tickets.convert.quiet import quiet
from keras_tickets.convert.runtimes import onnx_session
from keras_tickets.extras import require
from keras_tickets.mobile.runners.timing import Timing

# Dimensions that the file leaves open, the batch size apart, get this size.
_OPEN_SIZE = 32


def run(
    path: pathlib.Path,
    runs: int,
    warmup: int,
    threads: int,
    progress: Callable[[int], None],
) -> Timing:
    """Times single runs at batch size 1.

    Args:
        path: A `.tflite` or `.onnx` file.
        runs: How many runs are timed.
        warmup: How many runs before are not.
        threads: Threads that the runtime may use.
        progress: Called after each run, outside of the timed part.

    Returns:
        The times.

    Raises:
        RuntimeError: If the file cannot be loaded or run.
    """
    load, package = _LOADERS[path.suffix]
    try:
        with quiet():
            call = load(path, threads)
        seconds = []
        for index in range(warmup + runs):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
            progress(index + 1)
    except ImportError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"'{path}' cannot be run by {package}. {type(error).__name__}: {error}"
        ) from error
    version = importlib.metadata.version(package)
    return Timing(tuple(seconds[warmup:]), f"{package} {version}", _device())


def _litert(path: pathlib.Path, threads: int) -> Callable[[], Any]:
    interpreter = require("ai_edge_litert.interpreter", "export").Interpreter(
        model_path=str(path), num_threads=threads
    )
    details = interpreter.get_input_details()
    for detail in details:
        shape = _concrete(detail["shape_signature"])
        interpreter.resize_tensor_input(detail["index"], shape)
    interpreter.allocate_tensors()
    for detail in details:
        values = _values(_concrete(detail["shape_signature"]), detail["dtype"])
        interpreter.set_tensor(detail["index"], values)
    call: Callable[[], Any] = interpreter.invoke
    return call


def _onnx(path: pathlib.Path, threads: int) -> Callable[[], Any]:
    session = onnx_session(path, threads)
    values = {
        entry.name: _values(_concrete(entry.shape), _onnx_dtype(entry.type))
        for entry in session.get_inputs()
    }
    return lambda: session.run(None, values)


_LOADERS = {
    ".tflite": (_litert, "ai-edge-litert"),
    ".onnx": (_onnx, "onnxruntime"),
}


def _concrete(shape: Any) -> list[int]:
    """Gives open dimensions (-1 or a name) a size; an open batch size is 1."""
    sizes = [size if isinstance(size, (int, np.integer)) else -1 for size in shape]
    return [
        int(size) if size > 0 else (1 if axis == 0 else _OPEN_SIZE)
        for axis, size in enumerate(sizes)
    ]


def _values(shape: list[int], dtype: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """Random numbers; zeros for whole ones, the only ids valid for any table."""
    if np.issubdtype(dtype, np.floating):
        return np.random.default_rng(0).random(shape).astype(dtype)
    return np.zeros(shape, dtype)


def _onnx_dtype(name: str) -> Any:
    """'tensor(float)' -> np.float32."""
    kind = name.removeprefix("tensor(").removesuffix(")")
    return np.dtype(
        {"float": "float32", "double": "float64", "float16": "float16"}.get(kind, kind)
    )


def _device() -> str:
    """The CPU's name where Linux tells it, and how many cores this process has."""
    name = platform.processor() or platform.machine()
    cpu = pathlib.Path("/proc/cpuinfo")
    if cpu.exists():
        lines = cpu.read_text().splitlines()
        models = (line for line in lines if line.startswith("model name"))
        name = next(models, f":{name}").split(":", 1)[1].strip()
    cores = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count()
    )
    return f"{name}, {platform.machine()}, {cores} cores"
