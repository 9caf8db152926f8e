"""Keras model -> `.tflite`, on the TensorFlow backend, by Keras' own route."""

from __future__ import annotations

import os
import pathlib
import re

import keras

from keras_tickets.convert.quiet import quiet
from keras_tickets.extras import require
from keras_tickets.signature import Signature


def to_litert(
    model: keras.Model, path: pathlib.Path, signature: Signature, sparse: bool
) -> None:
    """Converts a plain model with TFLite's built-in operators only.

    Args:
        model: A plain Keras model on the TensorFlow backend.
        path: Where to write; ends with `.tflite`.
        signature: The inputs of the file.
        sparse: Whether tensors with many zeros are stored without them.

    Raises:
        ImportError: If TensorFlow is not installed.
        RuntimeError: If TensorFlow cannot convert the model.
    """
    # Read by TensorFlow's C++ when it is first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        tf = require("tensorflow", "export")
        sparsity = tf.lite.Optimize.EXPERIMENTAL_SPARSITY
        builtins = tf.lite.OpsSet.TFLITE_BUILTINS
        try:
            # Not TFLiteConverter.from_concrete_functions: it leaves the variables
            # of a Keras 3 model unfrozen, and the file answers NaN without an error.
            model.export(
                str(path),
                format="litert",
                verbose=False,
                input_signature=signature,
                optimizations=[sparsity] if sparse else [],
                target_spec={"supported_ops": [builtins]},
            )
        except OSError:
            raise
        except Exception as error:
            raise RuntimeError(_explain(model.name, error)) from error


def _explain(name: str, error: Exception) -> str:
    message = str(error)
    found = re.findall(r"^(?:TF Select|Custom) ops: (.+)$", message, re.MULTILINE)
    if found:
        return (
            f"'{name}' needs operators that TFLite does not have: {', '.join(found)}. "
            "Phones run built-in operators only; replace the layers that use them "
            "(for recurrent layers, a fixed sequence length or `unroll=True` helps)."
        )
    return (
        f"TensorFlow could not convert '{name}' to .tflite. "
        f"{type(error).__name__}: {message.strip()[-1500:]}"
    )
