"""Keras model -> `.tflite`, on the TensorFlow backend, by Keras' own route."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import tree

from keras_tickets._util.errors import ConversionError
from keras_tickets._util.extras import require
from keras_tickets._util.quiet import quiet
from keras_tickets._util.signature import Signature, names
from keras_tickets.backend.keras_private import plain_argmax
from keras_tickets.backend.random_inputs import Sample
from keras_tickets.convert import names as naming
from keras_tickets.runtime.interpreters import SIGNATURE


def to_litert(
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    precision: str,
    data: list[Sample],
) -> None:
    """Convert a plain model with TFLite's built-in operators only, without sparsity.

    Args:
        model: A plain Keras model on the TensorFlow backend.
        path: Where to write; ends with `.tflite`.
        signature: The inputs of the file.
        precision: The name of the precision of the file.
        data: Inputs that show the range of the activations; for `"int8"` only.

    Raises:
        ImportError: If TensorFlow is not installed.
        RuntimeError: If TensorFlow cannot convert the model.
    """
    with quiet():
        tf = require("tensorflow", "export")
        options = _options(tf, precision)
        try:
            if data:
                options["representative_dataset"] = _feed(
                    tf, model, path, signature, data
                )
            _convert(model, path, signature, options)
        except OSError:
            raise
        except Exception as error:
            raise ConversionError(_explain(model, error)) from error


def _convert(
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    options: dict[str, Any],
) -> None:
    # Not TFLiteConverter.from_concrete_functions: it leaves the variables of a Keras 3
    # model unfrozen, and the file answers NaN without an error.
    with plain_argmax():
        model.export(
            str(path),
            format="litert",
            verbose=False,
            input_signature=signature,
            **options,
        )


def _options(tf: Any, precision: str) -> dict[str, Any]:
    """Return what the converter is told; inputs and outputs stay float32 always."""
    target: dict[str, Any] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    if precision == "float32":
        return {"target_spec": target}
    if precision == "float16":
        target["supported_types"] = [tf.float16]
    return {"target_spec": target, "optimizations": [tf.lite.Optimize.DEFAULT]}


def _feed(
    tf: Any,
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    data: list[Sample],
) -> Callable[[], Iterator[Any]]:
    """Return what calibration reads: one input as is, several by the file's names."""
    rows = [tree.flatten(sample) for sample in data]
    if len(rows[0]) == 1:
        return lambda: iter(rows)
    # Which name is which input, only a file tells. In a list, calibration takes inputs
    # in an order of its own.
    _convert(model, path, signature, _options(tf, "float32"))
    interpreter = require("ai_edge_litert.interpreter", "export")
    signatures = interpreter.Interpreter(str(path)).get_signature_list()
    file_names = signatures[SIGNATURE]["inputs"]
    found = naming.match(
        "input", file_names, naming.aliases(signature, names(signature))
    )
    return lambda: ({name: row[i] for name, i in found.items()} for row in rows)


def _explain(model: keras.Model, error: Exception) -> str:
    message = str(error)
    missing = re.findall(
        r"'tf\.(\w+)' op is neither a custom op nor a flex op", message
    )
    if missing:
        scopes = dict(re.findall(r'fused\["(\w+):", "([^"@]+)@', message))
        found = [
            f"{op} (in layer '{naming.layer_of(model, scopes[op])}')"
            if op in scopes
            else op
            for op in dict.fromkeys(missing)
        ]
        return (
            f"'{model.name}' needs operators that TFLite does not have: "
            f"{', '.join(found)}. Phones run built-in operators only; replace the "
            "layers that use them (for recurrent layers, a fixed sequence length or "
            "`unroll=True` helps)."
        )
    return (
        f"TensorFlow could not convert '{model.name}' to .tflite. "
        f"{type(error).__name__}: {message.strip()[-1500:]}"
    )
