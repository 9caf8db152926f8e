"""A scale and a shift of each channel, where no convolution stands in front.

XNNPACK multiplies images with channels first by images only, not by vectors. Behind a
linear convolution the converter folds a BatchNormalization away. Elsewhere the
convolutions that read it take it, if they pad nothing but zeros that stay zeros; or it
becomes a depthwise 3x3 of which only the center is not zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_tickets.backend import numbers, on_host
from keras_tickets.mobile.preparing.match import (
    Match,
    copy_with,
    is_image,
    last_channels,
    new_layer,
)
from keras_tickets.mobile.preparing.network_graph import Node, Value
from keras_tickets.mobile.preparing.rewrites.kernel_padding import geometry
from keras_tickets.mobile.preparing.rewrites.pointwise import center

Pair = tuple[Any, Any]


def fold(match: Match) -> list[Value] | None:
    """Let the convolutions behind take scale and shift, or a depthwise 3x3."""
    graph, node = match.graph, match.node
    found = scale_and_shift(node)
    if found is None or not match.behind or not is_image(node.output):
        return None
    if node.kind == "BatchNormalization" and match.linear_source(node.input):
        return None  # the converter does it
    match.require_exclusive()
    channels: Any = node.output.shape[-1]
    scale, shift = (np.broadcast_to(x, (channels,)) for x in found)
    readers = graph.readers(node.output)
    alone = not graph.is_output(node.output)
    if alone and readers and all(_takes(match, reader, shift) for reader in readers):
        for reader in readers:
            scaled(match, reader, scale, shift)
        graph.bypass(node)
        return [reader.output for reader in readers]
    layer, shape = node.layer, node.input.shape
    depthwise = new_layer(
        keras.layers.DepthwiseConv2D,
        shape,
        {"kernel": center(scale), "bias": shift},
        name=layer.name,
        kernel_size=3,
        padding="same",
        trainable=getattr(layer, "trainable", True),
        dtype=getattr(layer, "dtype_policy", None),
    )
    graph.change(node, depthwise, node.input)
    return [node.output]


def scale_and_shift(node: Node) -> Pair | None:
    """Return by what a node multiplies each channel, and what it adds then."""
    if node.kind == "BatchNormalization":
        return _of_batch_norm(node)
    if node.kind == "Rescaling":
        return np.asarray(node.layer.scale), np.asarray(node.layer.offset)
    if node.kind == "Normalization":
        return _of_normalization(node)
    return _of_operator(node)


def _of_batch_norm(node: Node) -> Pair | None:
    layer, rank = node.layer, len(node.input.shape)
    if layer.axis not in (-1, rank - 1):
        return None
    scale = 1 / np.sqrt(numbers(layer.moving_variance) + layer.epsilon)
    scale = scale * (numbers(layer.gamma) if layer.scale else 1)
    shift = -numbers(layer.moving_mean) * scale
    return scale, shift + (numbers(layer.beta) if layer.center else 0)


def _of_normalization(node: Node) -> Pair | None:
    layer, rank = node.layer, len(node.input.shape)
    if tuple(layer.axis) not in ((-1,), (rank - 1,), ()):
        return None
    mean = on_host(layer.mean).ravel()
    deviation = np.maximum(
        np.sqrt(on_host(layer.variance).ravel()),
        keras.config.epsilon(),
    )
    if layer.invert:
        return deviation, mean
    return 1 / deviation, -mean / deviation


# What an operator does with a number, as scale and shift; the number may stand first
# where the first two are the same.
_OPERATORS: dict[str, Callable[[float], Pair]] = {
    "Add": lambda x: (1.0, x),
    "Subtract": lambda x: (1.0, -x),
    "Multiply": lambda x: (x, 0.0),
    "Divide": lambda x: (1 / x, 0.0),
    "TrueDivide": lambda x: (1 / x, 0.0),
}


def _of_operator(node: Node) -> Pair | None:
    if isinstance(node.layer, keras.Layer) or node.kind not in _OPERATORS:
        return None
    if len(node.args) != 2 or len(node.inputs) != 1:
        return None
    first, second = node.args
    turned = not isinstance(first, Value)
    number = first if turned else second
    if not isinstance(number, int | float) or (
        turned and node.kind not in ("Add", "Multiply")
    ):
        return None
    if number == 0 and node.kind in ("Divide", "TrueDivide"):
        return None
    return _OPERATORS[node.kind](float(number))


# -- into the layers that read it -----------------------------------------------------


def _takes(match: Match, reader: Node, shift: np.ndarray) -> bool:
    """Return whether a reader can compute what is scaled and shifted for it."""
    if reader.kind not in ("Conv2D", "DepthwiseConv2D", "Dense"):
        return False
    if not match.is_exclusive(reader) or not last_channels(reader.layer):
        return False
    if reader.kind == "Dense" or not shift.any():
        return True
    return not any(axis.before or axis.after for axis in geometry(reader)[1])


def scaled(
    match: Match, reader: Node, scale: np.ndarray, shift: np.ndarray | float = 0.0
) -> None:
    """Let a layer read x where it read x * scale + shift."""
    layer, kernel = reader.layer, numbers(reader.layer.kernel)
    groups = getattr(layer, "groups", 1)
    channels: Any = reader.input.shape[-1]
    whole = np.broadcast_to(scale, (channels,))
    added = np.broadcast_to(shift, whole.shape)
    if reader.kind == "DepthwiseConv2D":
        new = kernel * whole[:, None]
        more = (kernel.sum((0, 1)) * added[:, None]).ravel()
    else:
        taps = kernel.reshape(-1, *kernel.shape[-2:]).sum(0)
        outs = np.repeat(np.arange(groups), kernel.shape[-1] // groups)
        parts = whole.reshape(groups, -1)[outs].T
        new = kernel * parts
        more = (taps * added.reshape(groups, -1)[outs].T).sum(0)
    weights = {"kernel": new}
    if layer.use_bias or more.any():
        weights["bias"] = more + (numbers(layer.bias) if layer.use_bias else 0)
    biased = copy_with(layer, reader.input.shape, weights, use_bias="bias" in weights)
    match.graph.change(reader, biased)
