"""1x1 convolutions that skip pixels: a depthwise one skips, and a dense one mixes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_tickets.backend import numbers
from keras_tickets.backend.rebuilding import LeftAlone
from keras_tickets.mobile.preparing.match import (
    Site,
    is_image,
    last_channels,
    like,
    made,
)
from keras_tickets.mobile.preparing.network_graph import Value


def split(site: Site) -> list[Value] | None:
    """Sample every other pixel with the centre of a depthwise 3x3, then mix."""
    graph, node, layer = site.graph, site.node, site.node.layer
    if node.kind != "Conv2D" or layer.kernel_size != (1, 1) or layer.strides == (1, 1):
        return None
    if not site.behind or not is_image(node.input) or not last_channels(layer):
        return None
    if layer.strides != (2, 2):
        raise LeftAlone(f"has strides {layer.strides}, and XNNPACK has 1 and 2")
    site.own()
    padded = _padded(site)
    tap = _tap(layer, padded, graph.name(f"{layer.name}_sample"))
    sampled = graph.put(node, tap, padded)
    weights = {"kernel": numbers(layer.kernel)}
    if layer.use_bias:
        weights["bias"] = numbers(layer.bias)
    dense = like(layer, sampled.shape, weights, strides=[1, 1])
    graph.change(node, dense, sampled)
    return [node.output]


def sample(site: Site) -> list[Value] | None:
    """Write a pooling of single pixels, as in ResNetV2, as such a depthwise 3x3."""
    node, layer = site.node, site.node.layer
    if node.kind not in ("MaxPooling2D", "AveragePooling2D"):
        return None
    if (layer.pool_size, layer.strides) != ((1, 1), (2, 2)):
        return None
    if not site.behind or not last_channels(layer):
        return None
    site.own()
    padded = _padded(site)
    site.graph.change(node, _tap(layer, padded, layer.name), padded)
    return [node.output]


def _padded(site: Site) -> Value:
    """Return what a node reads with zeros of one pixel around it."""
    graph, layer = site.graph, site.node.layer
    name = graph.name(f"{layer.name}_pad")
    pad = keras.layers.ZeroPadding2D(1, name=name, dtype=layer.dtype_policy)
    return graph.put(site.node, pad, site.node.input)


def _tap(layer: Any, padded: Value, name: str) -> Any:
    """Return a depthwise convolution that keeps every other pixel."""
    channels: Any = padded.shape[-1]
    return made(
        keras.layers.DepthwiseConv2D,
        padded.shape,
        {"kernel": centre(np.ones(channels))},
        name=name,
        kernel_size=3,
        strides=2,
        use_bias=False,
        trainable=False,
        dtype=layer.dtype_policy,
    )


def centre(scale: np.ndarray) -> np.ndarray:
    """Return the kernel of a depthwise 3x3 that multiplies each channel."""
    kernel = np.zeros((3, 3, len(scale), 1), "float32")
    kernel[1, 1, :, 0] = scale
    return kernel
