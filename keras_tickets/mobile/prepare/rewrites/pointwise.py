"""1x1 convolutions that skip pixels: a depthwise one skips, and a dense one mixes."""

from __future__ import annotations

import keras
import numpy as np

from keras_tickets.layered import LeftAlone, numbers
from keras_tickets.mobile.prepare.graph import Value
from keras_tickets.mobile.prepare.site import Site, is_image, last_channels, like, made


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
    channels, policy = layer.kernel.shape[2], layer.dtype_policy
    pad = keras.layers.ZeroPadding2D(
        1, name=graph.name(f"{layer.name}_pad"), dtype=policy
    )
    padded = graph.put(node, pad, node.input)
    sample = made(
        keras.layers.DepthwiseConv2D,
        padded.shape,
        {"kernel": centre(np.ones(channels))},
        name=graph.name(f"{layer.name}_sample"),
        kernel_size=3,
        strides=2,
        use_bias=False,
        trainable=False,
        dtype=policy,
    )
    sampled = graph.put(node, sample, padded)
    weights = {"kernel": numbers(layer.kernel)}
    if layer.use_bias:
        weights["bias"] = numbers(layer.bias)
    dense = like(layer, sampled.shape, weights, strides=[1, 1])
    graph.change(node, dense, sampled)
    return [node.output]


def centre(scale: np.ndarray) -> np.ndarray:
    """Return the kernel of a depthwise 3x3 that multiplies each channel."""
    kernel = np.zeros((3, 3, len(scale), 1), "float32")
    kernel[1, 1, :, 0] = scale
    return kernel
