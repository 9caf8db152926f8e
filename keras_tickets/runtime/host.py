"""Runs a file on this machine's CPU, in the runtime that the suffix names."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from keras_tickets._util.extras import require
from keras_tickets._util.quiet import quiet
from keras_tickets.runtime.inputs import (
    concrete,
    values,
)
from keras_tickets.runtime.interpreters import (
    Runtime,
    onnx_session,
)
from keras_tickets.runtime.isolated import isolated
from keras_tickets.runtime.target import (
    Runner,
    Runs,
    Timing,
)


class Host(Runner):
    """This machine's CPU: LiteRT's interpreter, ONNX Runtime."""

    name = "host"
    suffixes = (".tflite", ".onnx")

    def missing(self, suffix: str) -> str | None:
        """Say whether the runtime's package is not installed."""
        _, package, module = _LOADERS[suffix]
        if importlib.util.find_spec(module):
            return None
        return (
            f"It needs `{package}`. Install it with: "
            'pip install "keras-tickets[export]"'
        )

    def open(self, path: pathlib.Path) -> AbstractContextManager[Runtime]:
        """Load a file in a process of its own, which it may crash."""
        return isolated(path)

    def time(self, path: pathlib.Path, runs: Runs) -> Timing:
        """Time single runs, in this process."""
        load, package, _ = _LOADERS[path.suffix]
        try:
            with quiet():
                call = load(path, runs.threads)
            seconds = []
            for index in range(runs.total):
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
                runs.progress(index + 1)
        except Exception as error:
            raise RuntimeError(
                f"'{path}' cannot be run by {package}. {type(error).__name__}: {error}"
            ) from error
        version = importlib.metadata.version(package)
        return Timing(tuple(seconds[runs.warmup :]), f"{package} {version}", device())


def _litert(path: pathlib.Path, threads: int) -> Callable[[], Any]:
    interpreter = require("ai_edge_litert.interpreter", "export").Interpreter(
        model_path=str(path), num_threads=threads
    )
    details = interpreter.get_input_details()
    for detail in details:
        shape = concrete(detail["shape_signature"])
        interpreter.resize_tensor_input(detail["index"], shape)
    interpreter.allocate_tensors()
    for detail in details:
        shape = concrete(detail["shape_signature"])
        interpreter.set_tensor(detail["index"], values(shape, detail["dtype"]))
    call: Callable[[], Any] = interpreter.invoke
    return call


def _onnx(path: pathlib.Path, threads: int) -> Callable[[], Any]:
    session = onnx_session(path, threads)
    inputs = {
        entry.name: values(concrete(entry.shape), _onnx_dtype(entry.type))
        for entry in session.get_inputs()
    }
    return lambda: session.run(None, inputs)


_LOADERS = {
    ".tflite": (_litert, "ai-edge-litert", "ai_edge_litert"),
    ".onnx": (_onnx, "onnxruntime", "onnxruntime"),
}


def _onnx_dtype(name: str) -> Any:
    """'tensor(float)' -> np.float32."""
    kind = name.removeprefix("tensor(").removesuffix(")")
    return np.dtype(
        {"float": "float32", "double": "float64", "float16": "float16"}.get(kind, kind)
    )


def device() -> str:
    """Return the name of this machine's CPU, and the number of its usable cores."""
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
