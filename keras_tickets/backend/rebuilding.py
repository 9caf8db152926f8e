"""Helpers to rebuild a Keras model layer by layer."""

from __future__ import annotations

from typing import Any

import keras

from keras_tickets._util.layer_traits import has_lora, is_quantized
from keras_tickets.backend import keras_private


class LeftAlone(Exception):  # noqa: N818 - it is no error: the layer just stays as it is
    """Raised for a layer that has to stay as it is; says why."""


def graph_of_layers(model: keras.Model, door: str) -> keras.Function:
    """Return the graph of a model, if its layers can be told from its config.

    Args:
        model: The model.
        door: The function that the user called.

    Raises:
        ValueError: If the model is a class of its own.
    """
    cls = type(model).__name__
    graph = keras_private.graph_of(model)
    if graph is None:
        raise ValueError(
            f"{cls} {model.name!r} has no graph of layers: its `call` cannot be "
            f"looked into, so nothing tells which layers read a channel. {door} "
            "expects a Functional or Sequential model. Write it with keras.Input and "
            "keras.Model(inputs, outputs), or export it as it is."
        )
    if not is_of_keras(type(model)):
        raise ValueError(
            f"{cls} {model.name!r} is a class of its own, so the numbers of its "
            f"channels stand in its code. {door} expects a plain Functional or "
            "Sequential model: pass keras.Model(model.input, model.output)."
        )
    return graph


def input_layer(graph: keras.Function, tensor: Any) -> Any:
    """Return the input layer that gives a tensor of a graph, if one does."""
    found = (
        operation
        for operation in graph.operations
        if isinstance(operation, keras.layers.InputLayer)
    )
    return next((layer for layer in found if layer.output is tensor), None)


def is_of_keras(kind: Any) -> bool:
    """Return whether a class or function is Keras' own: its name tells what it does."""
    return str(kind.__module__).startswith("keras.")


def weights_beside(layer: Any) -> str:
    """Tell which numbers a layer computes with besides its weights; empty if none."""
    if has_lora(layer):
        return "has LoRA weights beside its kernel"
    if is_quantized(layer):
        return "is quantized"
    return ""
