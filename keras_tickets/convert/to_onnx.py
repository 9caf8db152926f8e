"""Keras model -> `.onnx`, on the TensorFlow backend, by Keras' own route."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import tree

from keras_tickets._util.errors import ConversionError
from keras_tickets._util.extras import require
from keras_tickets._util.quiet import quiet
from keras_tickets._util.signature import Signature, names
from keras_tickets.backend.keras_private import plain_argmax, sublayers
from keras_tickets.onnx.encodings import LOWEST_OPSET
from keras_tickets.onnx.file import OnnxFile
from keras_tickets.onnx.fixes import repair
from keras_tickets.onnx.graph import to_tensor


def check_opset(opset: int | None) -> None:
    """Refuse an opset that the installed tf2onnx does not write.

    Args:
        opset: The version of the ONNX operators; None is tf2onnx's own choice.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is too early or too late.
        ImportError: If tf2onnx is not installed.
    """
    if opset is None:
        return
    if isinstance(opset, bool) or not isinstance(opset, int):
        raise TypeError(
            f"`opset` must be an integer or None, received {opset!r} "
            f"({type(opset).__name__})."
        )
    with quiet(), _same_environment():
        tf2onnx = require("tf2onnx", "export")
        latest = max(require("tf2onnx.constants", "export").OPSET_TO_IR_VERSION)
    if not LOWEST_OPSET <= opset <= latest:
        raise ValueError(
            f"`opset` must be {LOWEST_OPSET} to {latest}, received {opset}: earlier "
            "opsets lack operators that store tensors without their zeros, and "
            f"tf2onnx {tf2onnx.__version__} writes no later ones. None takes its "
            "default."
        )


def to_onnx(
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    opset: int | None = None,
) -> None:
    """Convert a plain model through `tf2onnx`.

    Args:
        model: A plain Keras model on the TensorFlow backend.
        path: Where to write; ends with `.onnx`.
        signature: The inputs of the file.
        opset: The version of the ONNX operators; None is tf2onnx's own choice.

    Raises:
        ImportError: If TensorFlow, ONNX or tf2onnx is not installed.
        TypeError: If `opset` is no integer.
        ValueError: If tf2onnx does not write this opset.
        RuntimeError: If the model cannot be converted.
    """
    check_opset(opset)
    with quiet(), _same_environment():
        for module in ("tensorflow", "onnx", "tf2onnx.convert"):
            require(module, "export")
        try:
            inference = _Inference(model)
            with _plain_constants(model), _inlined(), plain_argmax():
                inference.export(
                    str(path),
                    format="onnx",
                    verbose=False,
                    input_signature=signature,
                    opset_version=opset,
                )
                file = OnnxFile.read(path)
                _store_captured(file, inference, signature)
            repair(file.model)
            path.write_bytes(file.to_bytes())
        except OSError:
            raise
        except Exception as error:
            raise ConversionError(
                f"tf2onnx could not convert '{model.name}' to .onnx. "
                f"{type(error).__name__}: {str(error).strip()[-1500:]}"
            ) from error


class _Inference(keras.Model):
    """A model that is always in inference.

    Keras converts to ONNX with no word on that, and layers that augment images then
    take it for training.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name=model.name)
        self.model = model
        self.built = True

    def call(self, inputs: Any, *others: Any) -> Any:
        return self.model(inputs, *others, training=False)


def _store_captured(file: OnnxFile, model: keras.Model, signature: Signature) -> None:
    """Store the tensors that a model computes with, and that are none of its weights.

    tf2onnx makes inputs of them: constants of `keras.ops` in a Functional model, or
    whatever else `call` finds. They come last, in the order of the graph.
    """
    graph = file.model.graph
    inputs = list(graph.input)
    if {entry.name for entry in inputs} <= set(names(signature)):
        return  # none of them, and nothing to trace the model once more for
    tf = require("tensorflow", "export")
    specs = tree.map_structure(
        lambda spec: tf.TensorSpec(spec.shape, spec.dtype), signature
    )
    traced = tf.function(model, autograph=False).get_concrete_function(*specs)
    held = [own for own, _ in traced.graph.captures if own.dtype != tf.resource]
    for value, entry in zip(held, inputs[len(inputs) - len(held) :], strict=True):
        graph.initializer.append(to_tensor(value.numpy(), entry.name))
        graph.input.remove(entry)


@contextlib.contextmanager
def _same_environment() -> Iterator[None]:
    """Take back the variable that tf2onnx sets when it is imported."""
    name = "TF_CPP_MIN_LOG_LEVEL"
    before = os.environ.get(name)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _inlined() -> Iterator[None]:
    """Leave no function in the graph: tf2onnx does not look into compiled ones.

    Keras compiles a grouped convolution as a function of its own.
    """
    config = require("tensorflow", "export").config
    before = config.functions_run_eagerly()
    try:
        config.run_functions_eagerly(True)
        yield
    finally:
        config.run_functions_eagerly(before)


@contextlib.contextmanager
def _plain_constants(model: keras.Model) -> Iterator[None]:
    """Turn tensors that layers hold into arrays within the block.

    An adapted `Normalization` holds its mean as a tensor that is no variable. Keras
    leaves such ones out of the graph, and tf2onnx makes inputs of the file of them.
    """
    tensors = [
        (layer, name, value)
        for layer in sublayers(model)
        for name, value in vars(layer).items()
        if keras.ops.is_tensor(value) and not isinstance(value, keras.KerasTensor)
    ]
    try:
        for layer, name, value in tensors:
            setattr(layer, name, keras.ops.convert_to_numpy(value))
        yield
    finally:
        for layer, name, value in tensors:
            setattr(layer, name, value)
