"""1x1 convolutions that skip pixels: a depthwise one skips, and a dense one mixes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_tickets.backend import numbers
from keras_tickets.backend.rebuilding import LeftAlone
from keras_tickets.mobile.preparing.match import (
    Match,
    copy_with,
    is_image,
    last_channels,
    new_layer,
)
from keras_tickets.mobile.preparing.network_graph import Value


def split(match: Match) -> list[Value] | None:
    """Sample every other pixel with the center of a depthwise 3x3, then mix."""
    graph, node, layer = match.graph, match.node, match.node.layer
    if node.kind != "Conv2D" or layer.kernel_size != (1, 1) or layer.strides == (1, 1):
        return None
    if not match.behind or not is_image(node.input) or not last_channels(layer):
        return None
    if layer.strides != (2, 2):
        raise LeftAlone(f"has strides {layer.strides}, and XNNPACK has 1 and 2")
    match.require_exclusive()
    padded = _padded(match)
    tap = _tap(layer, padded, graph.name(f"{layer.name}_sample"))
    sampled = graph.put(node, tap, padded)
    weights = {"kernel": numbers(layer.kernel)}
    if layer.use_bias:
        weights["bias"] = numbers(layer.bias)
    dense = copy_with(layer, sampled.shape, weights, strides=[1, 1])
    graph.change(node, dense, sampled)
    return [node.output]


def sample(match: Match) -> list[Value] | None:
    """Write a pooling of single pixels, as in ResNetV2, as such a depthwise 3x3."""
    node, layer = match.node, match.node.layer
    if node.kind not in ("MaxPooling2D", "AveragePooling2D"):
        return None
    if (layer.pool_size, layer.strides) != ((1, 1), (2, 2)):
        return None
    if not match.behind or not last_channels(layer):
        return None
    match.require_exclusive()
    padded = _padded(match)
    match.graph.change(node, _tap(layer, padded, layer.name), padded)
    return [node.output]


def _padded(match: Match) -> Value:
    """Return what a node reads with zeros of one pixel around it."""
    graph, layer = match.graph, match.node.layer
    name = graph.name(f"{layer.name}_pad")
    pad = keras.layers.ZeroPadding2D(1, name=name, dtype=layer.dtype_policy)
    return graph.put(match.node, pad, match.node.input)


def _tap(layer: Any, padded: Value, name: str) -> Any:
    """Return a depthwise convolution that keeps every other pixel."""
    channels: Any = padded.shape[-1]
    return new_layer(
        keras.layers.DepthwiseConv2D,
        padded.shape,
        {"kernel": center(np.ones(channels))},
        name=name,
        kernel_size=3,
        strides=2,
        use_bias=False,
        trainable=False,
        dtype=layer.dtype_policy,
    )


def center(scale: np.ndarray) -> np.ndarray:
    """Return the kernel of a depthwise 3x3 that multiplies each channel."""
    kernel = np.zeros((3, 3, len(scale), 1), "float32")
    kernel[1, 1, :, 0] = scale
    return kernel
