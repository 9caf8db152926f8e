"""Separable convolutions, which Keras has as one layer: a depthwise one and a 1x1."""

from __future__ import annotations

from typing import Any

import keras

from keras_tickets.backend import numbers
from keras_tickets.backend.rebuilding import LeftAlone
from keras_tickets.mobile.preparing.match import (
    Match,
    is_image,
    last_channels,
    new_layer,
)
from keras_tickets.mobile.preparing.network_graph import Value


def split(match: Match) -> list[Value] | None:
    """Write a separable convolution as the two that it is."""
    graph, node, layer = match.graph, match.node, match.node.layer
    if node.kind != "SeparableConv2D" or not match.behind:
        return None
    if not is_image(node.input) or not last_channels(layer):
        return None
    if layer.depth_multiplier != 1:
        raise LeftAlone(
            f"has a depth multiplier of {layer.depth_multiplier}, and XNNPACK one "
            "output for each channel"
        )
    match.require_exclusive()
    config = layer.get_config()
    depthwise = new_layer(
        keras.layers.DepthwiseConv2D,
        node.input.shape,
        {"kernel": numbers(layer.depthwise_kernel)},
        name=graph.name(f"{layer.name}_depthwise"),
        kernel_size=layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        **_of("depthwise", config, "depthwise"),
        **_shared(config),
    )
    given = graph.put(node, depthwise, node.input)
    weights = {"kernel": numbers(layer.pointwise_kernel)}
    if layer.use_bias:
        weights["bias"] = numbers(layer.bias)
    kept = {k: v for k, v in config.items() if k.startswith(("bias_", "activ"))}
    pointwise = new_layer(
        keras.layers.Conv2D,
        given.shape,
        weights,
        name=layer.name,
        filters=layer.filters,
        kernel_size=1,
        use_bias=layer.use_bias,
        **_of("pointwise", config, "kernel"),
        **kept,
        **_shared(config),
    )
    graph.change(node, pointwise, given)
    return [node.output]


def _of(part: str, config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return how one of the kernels starts and is held, by the names of its layer."""
    kinds = ("initializer", "regularizer", "constraint")
    return {f"{name}_{kind}": config[f"{part}_{kind}"] for kind in kinds}


def _shared(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("trainable", "dtype")}
