"""What a rewrite is tried on, and what it may do there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_tickets._util import layer_traits
from keras_tickets.backend import numbers
from keras_tickets.backend.rebuilding import LeftAlone, weights_beside
from keras_tickets.mobile.preparing.network_graph import Graph, Node, Value

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D")

# Nothing in inference.
TRANSPARENT = layer_traits.IDENTITY

# Layers and operators that do the same to a number wherever it stands.
ALIKE = (
    *("Activation", *layer_traits.ELEMENTWISE),
    *(name for name in TRANSPARENT if name not in layer_traits.SPATIAL_DROPOUT),
)


class Match:
    """A node of a graph, seen by a rewrite.

    Args:
        graph: The graph of the node.
        node: The node.
        behind: Whether a convolution computes what the node reads.
        calls: By `id` of layer, how often it is called in the whole model.
    """

    def __init__(
        self, graph: Graph, node: Node, behind: bool, calls: Mapping[int, int]
    ) -> None:
        self.graph, self.node, self.behind = graph, node, behind
        self._calls = calls

    def require_exclusive(self, *nodes: Node) -> None:
        """Raise unless each of these layers is plain and is called only here."""
        for node in nodes or (self.node,):
            name = f"'{node.path}' " if node is not self.node else ""
            if (count := self._calls.get(id(node.layer), 1)) > 1:
                raise LeftAlone(f"{name}is shared by {count} calls")
            if reason := weights_beside(node.layer):
                raise LeftAlone(name + reason)

    def is_exclusive(self, node: Node) -> bool:
        """Return whether a layer is plain and is called only here."""
        return self._calls.get(id(node.layer), 1) == 1 and not weights_beside(
            node.layer
        )

    def linear_source(self, value: Value) -> Node | None:
        """Return the linear convolution whose output only leads to this value."""
        node = value.node
        while node is not None and self.graph.next(node) is not None:
            if node.kind not in TRANSPARENT:
                return node if is_linear(node) else None
            node = node.input.node
        return None


def is_linear(node: Node) -> bool:
    """Return whether a node is a convolution without an activation."""
    return (
        node.kind in CONVOLUTIONS
        and node.layer.activation is keras.activations.linear
        and not weights_beside(node.layer)
    )


def is_image(value: Value) -> bool:
    """Return whether a value has two axes of pixels, and then channels."""
    return len(value.shape) == 4


def last_channels(layer: Any) -> bool:
    """Return whether a layer takes the last axis for the channels."""
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def behind_convolutions(graph: Graph) -> set[int]:
    """Return the `id` of each node that reads what a convolution computed."""
    found: set[int] = set()

    def call(node: Node, take: Callable[[Value], bool]) -> Any:
        given = [take(value) for value in node.inputs]
        if any(given):
            found.add(id(node))
        if node.inner is not None:
            return node.inner.run(given, call)
        mixed = any(given) or "Conv" in node.kind
        return keras.tree.map_structure(lambda _: mixed, node.given)

    graph.run([False for _ in graph.inputs], call)
    return found


# -- new layers ---------------------------------------------------------------------


def new_layer(
    kind: type, shape: tuple[int | None, ...], weights: Mapping[str, Any], **config: Any
) -> Any:
    """Return a built layer with these weights, by attribute."""
    layer = kind.from_config(config)  # type: ignore[attr-defined]
    layer.build(shape)
    for attribute, value in weights.items():
        getattr(layer, attribute).assign(np.asarray(value))
    return layer


def copy_with(
    layer: Any, shape: tuple[int | None, ...], weights: Mapping[str, Any], **config: Any
) -> Any:
    """Return a layer like this one, but for its weights and a part of its config."""
    return new_layer(type(layer), shape, weights, **{**layer.get_config(), **config})


def renamed(layer: Any, shape: tuple[int | None, ...], name: str) -> Any:
    """Return a layer like this one under another name."""
    weights = {v.name: numbers(v) for v in getattr(layer, "weights", ())}
    config = {**layer.get_config(), "name": name}
    if not weights:
        return type(layer).from_config(config)
    return new_layer(type(layer), shape, weights, **config)


def norm_weights(layer: Any) -> dict[str, np.ndarray]:
    """Return the weights of a BatchNormalization, by attribute."""
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    held = {name: getattr(layer, name, None) for name in names}
    return {name: numbers(v) for name, v in held.items() if v is not None}
