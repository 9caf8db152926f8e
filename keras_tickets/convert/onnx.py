"""Keras model -> `.onnx`, on the TensorFlow backend, by Keras' own route."""

from __future__ import annotations

import os
import pathlib

import keras

from keras_tickets.convert.quiet import quiet
from keras_tickets.extras import require
from keras_tickets.signature import Signature


def to_onnx(
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    opset: int | None = None,
) -> None:
    """Converts a plain model through `tf2onnx`.

    Args:
        model: A plain Keras model on the TensorFlow backend.
        path: Where to write; ends with `.onnx`.
        signature: The inputs of the file.
        opset: The operator set; by default tf2onnx's own.

    Raises:
        ImportError: If TensorFlow, ONNX or tf2onnx is not installed.
        RuntimeError: If the model cannot be converted.
    """
    # Read by TensorFlow's C++ when it is first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        for module in ("tensorflow", "onnx", "tf2onnx"):
            require(module, "export")
        try:
            model.export(
                str(path),
                format="onnx",
                verbose=False,
                input_signature=signature,
                opset_version=opset,
            )
        except OSError:
            raise
        except Exception as error:
            raise RuntimeError(
                f"tf2onnx could not convert '{model.name}' to .onnx. "
                f"{type(error).__name__}: {str(error).strip()[-1500:]}"
            ) from error
