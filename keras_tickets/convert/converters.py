"""Which converter writes a file: its suffix chooses, here and in the child process."""

from __future__ import annotations

import pathlib

import keras

from keras_tickets._util.signature import Signature
from keras_tickets.backend.random_inputs import Sample
from keras_tickets.convert.to_onnx import to_onnx
from keras_tickets.convert.to_tflite import to_litert
from keras_tickets.tflite.file import TfliteFile


def write(
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    precision: str,
    opset: int | None,
    data: list[Sample],
) -> None:
    """Convert a plain model on the TensorFlow backend; zeros are stored.

    Args:
        model: A plain Keras model.
        path: Where to write; the suffix chooses the format.
        signature: The inputs of the file.
        precision: The name of the precision of a `.tflite`.
        opset: The operator set of an `.onnx`.
        data: Inputs that show the range of the activations.

    Raises:
        RuntimeError: If the model cannot be converted.
    """
    if path.suffix == TfliteFile.suffix:
        to_litert(model, path, signature, precision, data)
    else:
        to_onnx(model, path, signature, opset)
