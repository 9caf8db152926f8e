"""Runs a file in the runtime it is made for: arrays in by name, arrays out by name."""

from __future__ import annotations

import abc
import pathlib
from typing import Any

from keras_tickets.convert.tensor import Array
from keras_tickets.extras import require

SIGNATURE = "serving_default"


class Runtime(abc.ABC):
    """A loaded file.

    Attributes:
        inputs: The names of the inputs, in the file's order.
        outputs: The names of the outputs, in the file's order.
    """

    inputs: list[str]
    outputs: list[str]

    @abc.abstractmethod
    def run(self, values: dict[str, Array]) -> dict[str, Array]:
        """Runs the file once."""


class LiteRT(Runtime):
    """A `.tflite` file in LiteRT's interpreter, through its signature."""

    def __init__(self, path: pathlib.Path) -> None:
        """Loads `path`."""
        interpreter = require("ai_edge_litert.interpreter", "export")
        self._interpreter = interpreter.Interpreter(model_path=str(path))
        self._runner = self._interpreter.get_signature_runner(SIGNATURE)
        self._details = self._runner.get_input_details()
        signature = self._interpreter.get_signature_list()[SIGNATURE]
        self.inputs = signature["inputs"]
        self.outputs = signature["outputs"]

    def run(self, values: dict[str, Array]) -> dict[str, Array]:
        """Runs the file once."""
        typed = {
            name: value.astype(self._details[name]["dtype"])
            for name, value in values.items()
        }
        result: dict[str, Array] = self._runner(**typed)
        return result


class OnnxRuntime(Runtime):
    """An `.onnx` file in ONNX Runtime on the CPU."""

    def __init__(self, path: pathlib.Path) -> None:
        """Loads `path`."""
        self._session = onnx_session(path, threads=0)
        self.inputs = [entry.name for entry in self._session.get_inputs()]
        self.outputs = [entry.name for entry in self._session.get_outputs()]

    def run(self, values: dict[str, Array]) -> dict[str, Array]:
        """Runs the file once."""
        results = self._session.run(None, values)
        return dict(zip(self.outputs, results, strict=True))


def open_runtime(path: pathlib.Path) -> Runtime:
    """Loads a file in its own runtime, chosen by its suffix."""
    return LiteRT(path) if path.suffix == ".tflite" else OnnxRuntime(path)


def onnx_session(path: pathlib.Path, threads: int) -> Any:
    """Opens a session of ONNX Runtime on the CPU.

    Args:
        path: The `.onnx` file.
        threads: Threads within an operator; 0 lets the runtime choose.
    """
    onnxruntime = require("onnxruntime", "export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # Errors only.
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
