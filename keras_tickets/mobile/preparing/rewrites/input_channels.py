"""A stem for grey images as one for colours: the weights of two channels are zero."""

from __future__ import annotations

import keras
import numpy as np

from keras_tickets.backend import keras_private, numbers
from keras_tickets.mobile.preparing.match import (
    Site,
    is_image,
    last_channels,
    like,
)
from keras_tickets.mobile.preparing.network_graph import (
    Node,
    Value,
)


def colour(site: Site) -> list[Value] | None:
    """Give a stem of one or two channels three, of which the others do not count."""
    graph, node, layer = site.graph, site.node, site.node.layer
    if node.kind != "Conv2D" or site.behind or not is_image(node.input):
        return None
    channels = node.input.shape[-1]
    if channels not in (1, 2) or layer.strides != (2, 2) or not last_channels(layer):
        return None
    if max(layer.kernel_size) > 3 or layer.groups > 1:
        return None
    site.own()
    kernel = numbers(layer.kernel)
    more = np.zeros((*kernel.shape[:2], 3 - channels, kernel.shape[3]), kernel.dtype)
    weights = {"kernel": np.concatenate([kernel, more], axis=2)}
    if layer.use_bias:
        weights["bias"] = numbers(layer.bias)
    # The padding stays next to the stem, where XNNPACK looks for it.
    pad = graph.before(node)
    at = pad if pad is not None and pad.kind == "ZeroPadding2D" else node
    wide = _widened(site, at, channels)
    if at is not node:
        graph.change(at, at.layer, wide)
        wide = at.output
    graph.change(node, like(layer, wide.shape, weights), wide)
    return [node.output]


def _widened(site: Site, at: Node, channels: int) -> Value:
    """Return what a node reads, its first channel repeated until there are three."""
    graph, layer, value = site.graph, site.node.layer, at.input
    first = value
    if channels == 2:
        cut = keras_private.operation_of(value.spec[..., :1])
        first = graph.put(at, cut, value, (Ellipsis, slice(0, 1)))
    name = graph.name(f"{layer.name}_channels")
    join = keras.layers.Concatenate(name=name, dtype=layer.dtype_policy)
    return graph.put(at, join, [value, *[first] * (3 - channels)])
