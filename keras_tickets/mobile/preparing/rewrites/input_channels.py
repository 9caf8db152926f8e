"""A stem of one or two input channels as one of three: the added weights are zero."""

from __future__ import annotations

import keras
import numpy as np

from keras_tickets.backend import keras_private, numbers
from keras_tickets.mobile.preparing.match import (
    Match,
    copy_with,
    is_image,
    last_channels,
)
from keras_tickets.mobile.preparing.network_graph import Node, Value


def widen(match: Match) -> list[Value] | None:
    """Give a stem of one or two channels three, of which the others do not count."""
    graph, node, layer = match.graph, match.node, match.node.layer
    if node.kind != "Conv2D" or match.behind or not is_image(node.input):
        return None
    channels = node.input.shape[-1]
    if channels not in (1, 2) or layer.strides != (2, 2) or not last_channels(layer):
        return None
    if max(layer.kernel_size) > 3 or layer.groups > 1:
        return None
    match.require_exclusive()
    kernel = numbers(layer.kernel)
    more = np.zeros((*kernel.shape[:2], 3 - channels, kernel.shape[3]), kernel.dtype)
    weights = {"kernel": np.concatenate([kernel, more], axis=2)}
    if layer.use_bias:
        weights["bias"] = numbers(layer.bias)
    # The padding stays next to the stem, where XNNPACK looks for it.
    pad = graph.before(node)
    at = pad if pad is not None and pad.kind == "ZeroPadding2D" else node
    wide = _widened(match, at, channels)
    if at is not node:
        graph.change(at, at.layer, wide)
        wide = at.output
    graph.change(node, copy_with(layer, wide.shape, weights), wide)
    return [node.output]


def _widened(match: Match, at: Node, channels: int) -> Value:
    """Return what a node reads, its first channel repeated until there are three."""
    graph, layer, value = match.graph, match.node.layer, at.input
    first = value
    if channels == 2:
        cut = keras_private.operation_of(value.spec[..., :1])
        first = graph.put(at, cut, value, (Ellipsis, slice(0, 1)))
    name = graph.name(f"{layer.name}_channels")
    join = keras.layers.Concatenate(name=name, dtype=layer.dtype_policy)
    return graph.put(at, join, [value, *[first] * (3 - channels)])
