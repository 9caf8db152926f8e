"""Files with other values than the model has: faults for the export to find."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_tickets._util.file_tensor import Array, FileTensor
from keras_tickets.onnx import scatter
from keras_tickets.onnx.file import OnnxFile
from keras_tickets.onnx.graph import to_tensor
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.tensor import constants, read, write

Change = Callable[[FileTensor], Array | None]


def changed(suffix: str, content: bytes, change: Change) -> bytes:
    """The file with what `change` makes of each constant; None leaves it."""
    return {".tflite": _tflite, ".onnx": _onnx}[suffix](content, change)


def _tflite(content: bytes, change: Change) -> bytes:
    file = TfliteFile.parse(content)
    for holders, buffer in constants(file.model):
        values = change(read(holders[0], buffer))
        if values is not None:
            write(holders, buffer, np.ascontiguousarray(values))
    return file.to_bytes()


def _onnx(content: bytes, change: Change) -> bytes:
    file = OnnxFile.parse(content)
    scatter.decode(file.model)
    found = {tensor.name: change(tensor) for tensor in file.tensors()}
    for proto in file.model.graph.initializer:
        values = found[proto.name]
        if values is not None:
            proto.CopyFrom(to_tensor(np.ascontiguousarray(values), proto.name))
    return file.to_bytes()
