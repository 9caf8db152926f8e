"""What reads the mean of an image: pixels of 1x1, or vectors.

XNNPACK leaves the layout with channels first where a mean gives vectors, and stays in
it where a mean of 1x1 pixels is read by 1x1 convolutions. So a head reads vectors, and
a squeeze-and-excite block, which multiplies an image in the end, pixels. The weights of
a 1x1 convolution and of a dense layer are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_tickets.backend import numbers
from keras_tickets.mobile.preparing.match import (
    ALIKE,
    Match,
    copy_with,
    is_image,
    last_channels,
    new_layer,
    norm_weights,
    renamed,
)
from keras_tickets.mobile.preparing.network_graph import Graph, Node, Value
from keras_tickets.mobile.preparing.rewrites.scale_shift import scale_and_shift


def mean(match: Match) -> list[Value] | None:
    """Write a pooling over the whole image as a global one."""
    node, layer = match.node, match.node.layer
    if node.kind != "AveragePooling2D" or not last_channels(layer):
        return None
    whole = node.input.shape[1:3]
    single = tuple(node.output.shape[1:3]) == (1, 1)
    if not single or tuple(layer.pool_size) != whole or layer.padding != "valid":
        return None
    pool = keras.layers.GlobalAveragePooling2D(
        keepdims=True, name=layer.name, dtype=layer.dtype_policy
    )
    match.graph.change(node, pool)
    return [node.output]


def head(match: Match) -> list[Value] | None:
    """Let a head read vectors: 1x1 convolutions become dense layers."""
    graph, node = match.graph, match.node
    if not _is_mean(node, keepdims=True) or not match.behind:
        return None
    chain, last = _chain(graph, node, "Conv2D")
    given = chain[-1].output if chain else node.output
    flat = last is not None and (
        last.kind == "Flatten"
        or (last.kind == "Reshape" and len(last.output.shape) == 2)
        or (last.kind == "GlobalAveragePooling2D" and not last.layer.keepdims)
    )
    if not flat and not _is_only_output(graph, given):
        return None
    match.require_exclusive(*chain)
    graph.change(node, pool_with(node.layer, keepdims=False))
    for step in chain:
        _convert(graph, step, _dense)
    if last is not None:
        if last.kind == "GlobalAveragePooling2D":
            return _without(graph, last)
        graph.change(last, last.layer)
        return [last.output]
    return _as_pixel(graph, chain[-1] if chain else node)


def squeeze(match: Match) -> list[Value] | None:
    """Let a squeeze-and-excite block read pixels: dense layers become convolutions."""
    graph, node = match.graph, match.node
    if not _is_mean(node, keepdims=False) or not match.behind:
        return None
    chain, last = _chain(graph, node, "Dense")
    if last is None or last.kind != "Reshape" or not _is_pixel(last.output):
        return None
    if graph.is_output(last.output):
        return None
    match.require_exclusive(*chain)
    graph.change(node, pool_with(node.layer, keepdims=True))
    for step in chain:
        _convert(graph, step, convolution)
    given = last.input
    for reader in graph.readers(last.output):
        graph.move(reader, last.output, given)
    graph.drop_unread()
    return [reader.output for reader in graph.readers(given)]


def _is_mean(node: Node, keepdims: bool) -> bool:
    return (
        node.kind == "GlobalAveragePooling2D"
        and last_channels(node.layer)
        and bool(node.layer.keepdims) is keepdims
    )


def _is_pixel(value: Value) -> bool:
    return is_image(value) and tuple(value.shape[1:3]) == (1, 1)


def _is_only_output(graph: Graph, value: Value) -> bool:
    return graph.is_output(value) and not graph.readers(value)


def _chain(graph: Graph, start: Node, mixing: str) -> tuple[list[Node], Node | None]:
    """Return what follows a mean one by one, and what ends it."""
    chain: list[Node] = []
    node = graph.next(start)
    while node is not None and _continues(node, mixing):
        chain.append(node)
        node = graph.next(node)
    return chain, node


def _continues(node: Node, mixing: str) -> bool:
    layer = node.layer
    if len(node.inputs) != 1:
        return False
    if node.kind == "Conv2D":
        alone = layer.kernel_size == (1, 1) and layer.groups == 1
        return mixing == "Conv2D" and alone and last_channels(layer)
    if node.kind in ("Dense", "BatchNormalization"):
        rank = len(node.input.shape)
        return node.kind == "Dense" or layer.axis in (-1, rank - 1)
    if node.kind == "Softmax":
        return layer.axis == -1
    # A Normalization is built for the rank that it was given first.
    scales = node.kind != "Normalization" and scale_and_shift(node) is not None
    return node.kind in ALIKE or scales


def pool_with(layer: Any, keepdims: bool) -> Any:
    """Return a pooling like this one, with or without pixels."""
    return type(layer).from_config({**layer.get_config(), "keepdims": keepdims})


def _convert(graph: Graph, node: Node, mixing: Callable[[Node], Any]) -> None:
    """Let a node work on the rank that it is given now."""
    layer = node.layer
    if node.kind in ("Conv2D", "Dense"):
        layer = mixing(node)
    elif node.kind == "BatchNormalization":
        layer = copy_with(layer, node.input.shape, norm_weights(layer), axis=-1)
    graph.change(node, layer)


def _dense(node: Node) -> Any:
    kernel = numbers(node.layer.kernel)
    kernel = kernel.reshape(-1, kernel.shape[-1])
    return _counterpart(node, keras.layers.Dense(kernel.shape[-1]), kernel)


def convolution(node: Node) -> Any:
    """Return a dense layer as a 1x1 convolution."""
    kernel = numbers(node.layer.kernel)
    return _counterpart(
        node, keras.layers.Conv2D(kernel.shape[-1], 1), kernel[None, None]
    )


def _counterpart(node: Node, example: Any, kernel: np.ndarray) -> Any:
    """Return a layer like an example with what it shares with that of a node."""
    layer, config = node.layer, example.get_config()
    sizes = ("units", "filters", "kernel_size", "strides", "padding")
    theirs = {k: v for k, v in layer.get_config().items() if k in config}
    config |= {k: v for k, v in theirs.items() if k not in sizes}
    weights = {"kernel": kernel}
    if layer.use_bias:
        weights["bias"] = numbers(layer.bias)
    return new_layer(type(example), node.input.shape, weights, **config)


def _without(graph: Graph, pool: Node) -> list[Value]:
    """Take a mean of one pixel out."""
    readers = graph.readers(pool.output)
    kept = graph.is_output(pool.output)
    graph.bypass(pool)
    return [pool.output] if kept else [reader.output for reader in readers]


def _as_pixel(graph: Graph, last: Node) -> list[Value]:
    """Return vectors as the pixels that they were, under the name that they had."""
    layer, name = last.layer, last.layer.name
    channels = last.output.shape[-1]
    inner = renamed(layer, last.input.shape, graph.name(f"{name}_vector"))
    given = graph.put(last, inner, *last.args)
    policy = getattr(layer, "dtype_policy", None)
    reshape = keras.layers.Reshape((1, 1, channels), name=name, dtype=policy)
    graph.change(last, reshape, given)
    return [last.output]
