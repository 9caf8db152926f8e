"""Series as images of one row: XNNPACK knows no series.

LiteRT writes a layer of one dimension as one of two between reshapes, which end a
sparse network. Here one Reshape in front of the stem makes an image of the series, and
all that follows works on that, up to the pooling. Only a stem that can become XNNPACK's
way in opens a network so; a layer goes on where one in front of it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_tickets.backend import numbers
from keras_tickets.backend.rebuilding import LeftAlone
from keras_tickets.mobile.preparing.match import (
    ALIKE,
    Match,
    copy_with,
    last_channels,
    new_layer,
    norm_weights,
    renamed,
)
from keras_tickets.mobile.preparing.network_graph import Node, Value
from keras_tickets.mobile.preparing.rewrites import pooling
from keras_tickets.mobile.preparing.rewrites.scale_shift import scale_and_shift

# Layers and operators that do the same to an image of one row as to a series.
_ALIKE = (
    *(*ALIKE, "Rescaling", "Flatten"),
    *("Add", "Multiply", "Subtract", "Average", "Maximum", "Minimum"),
)


def to_2d(match: Match) -> list[Value] | None:
    """Let a layer of a series work on an image of one row."""
    graph, node = match.graph, match.node
    if not all(map(_is_series, node.inputs)) or not last_channels(node.layer):
        return None
    if not _opens(match) and not any(map(_row, node.inputs)):
        return None
    counterpart = _counterpart(node)
    if counterpart is None:
        return None
    if counterpart is not _same:
        match.require_exclusive()
    # A padding may become part of what reads it: that has the numbers to compare.
    pads = node.kind == "ZeroPadding1D" and not graph.is_output(node.output)
    counts = graph.readers(node.output) if pads else [node]
    for value in node.inputs:
        graph.move(node, value, _image(match, value))
    layer = counterpart(match)
    if len(node.output.shape) == 3:
        _with_series_behind(match, layer)
    else:
        graph.change(node, layer)
    graph.drop_unread()
    return [counted.output for counted in counts]


def _is_series(value: Value) -> bool:
    return len(value.shape) == 3 and value.shape[-1] is not None


def _opens(match: Match) -> bool:
    """Return whether a node is the stem of a series, or its padding."""
    node = match.node
    stem = match.graph.next(node) if node.kind == "ZeroPadding1D" else node
    if match.behind or stem is None or stem.kind != "Conv1D":
        return False
    layer, channels = stem.layer, stem.input.shape[-1]
    (kernel,), (stride,) = layer.kernel_size, layer.strides
    plain = layer.groups == 1 and layer.dilation_rate == (1,)
    if channels in (1, 2, 3) and kernel in (2, 3) and stride == 2 and plain:
        return True
    if stem is not node:
        return False
    raise LeftAlone(
        f"is the stem of a series of {channels} channels, with a kernel of {kernel} "
        f"and strides of {stride}: a series gets into the sparse part of XNNPACK by a "
        "kernel of 2 or 3 with strides of 2 that reads at most 3 channels"
    )


def _row(value: Value) -> Value | None:
    """Return the image of one row that a series was made of."""
    source = value.node
    if source is None or source.kind != "Reshape":
        return None
    given = source.input
    return given if given.shape[1:] == (1, *value.shape[1:]) else None


def _image(match: Match, value: Value) -> Value:
    """Return a series as an image of one row."""
    if (row := _row(value)) is not None:
        return row
    graph, source = match.graph, value.node
    target = (1, *(-1 if size is None else size for size in value.shape[1:]))
    if source is not None and source.kind == "Reshape" and graph.is_read_once(value):
        reshape = keras.layers.Reshape(
            target, name=source.layer.name, dtype=_policy(source)
        )
        graph.change(source, reshape, source.input)
        return value
    name = graph.name(f"{match.node.layer.name}_image")
    reshape = keras.layers.Reshape(target, name=name, dtype=_policy(match.node))
    return graph.put(match.node, reshape, value)


def _with_series_behind(match: Match, layer: Any) -> None:
    """Let a layer compute an image, and a Reshape make the series of it.

    What goes on with the image will skip the Reshape.
    """
    graph, node, name = match.graph, match.node, layer.name
    target = [-1 if size is None else size for size in node.output.shape[1:]]
    wish = graph.name(f"{name}_series")
    if graph.is_output(node.output):  # the name of an output stays
        layer = renamed(layer, node.input.shape, graph.name(f"{name}_image"))
        wish = name
    graph.change(node, layer)
    graph.put_behind(node, keras.layers.Reshape(target, name=wish, dtype=_policy(node)))


def _policy(node: Node) -> Any:
    return getattr(node.layer, "dtype_policy", None)


# -- what a layer is on an image of one row --------------------------------------------

To2D = Callable[[Match], Any]


def _counterpart(node: Node) -> To2D | None:
    if node.kind in _ALIKE or (
        not isinstance(node.layer, keras.Layer) and scale_and_shift(node) is not None
    ):
        return _same
    alone = len(node.inputs) == 1 or node.kind == "Concatenate"
    of_channels = getattr(node.layer, "axis", -1) in (-1, 2)
    return _COUNTERPARTS.get(node.kind) if alone and of_channels else None


def _same(match: Match) -> Any:
    return match.node.layer


def _convolution(match: Match) -> Any:
    """Return a convolution whose kernel has one row, behind its own padding."""
    graph, node, layer = match.graph, match.node, match.node.layer
    (kernel,), (stride,), (hole,) = (
        layer.kernel_size,
        layer.strides,
        layer.dilation_rate,
    )
    config: dict[str, Any] = {
        "kernel_size": (1, kernel),
        "strides": (stride, stride),
        "dilation_rate": (hole, hole),
    }
    if layer.padding == "causal":
        name = graph.name(f"{layer.name}_causal")
        pad = keras.layers.ZeroPadding2D(
            ((0, 0), ((kernel - 1) * hole, 0)), name=name, dtype=_policy(node)
        )
        graph.move(node, node.input, graph.put(node, pad, node.input))
        config["padding"] = "valid"
    return _layer_2d(match, **config)


def _layer_2d(match: Match, **config: Any) -> Any:
    """Return the layer of two dimensions for one of one dimension, with its weights."""
    layer = match.node.layer
    kind = getattr(keras.layers, type(layer).__name__.replace("1D", "2D"))
    weights = {}
    for name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
        if hasattr(layer, name):
            weights[name] = numbers(getattr(layer, name))[None]
    if getattr(layer, "use_bias", False):
        weights["bias"] = numbers(layer.bias)
    config = {**layer.get_config(), **config}
    return new_layer(kind, match.node.input.shape, weights, **config)


def _pooling(match: Match) -> Any:
    (size,), (stride,) = match.node.layer.pool_size, match.node.layer.strides
    return _layer_2d(match, pool_size=(1, size), strides=(stride, stride))


def _padding(match: Match) -> Any:
    return _layer_2d(match, padding=((0, 0), tuple(match.node.layer.padding)))


def _norm(match: Match) -> Any:
    layer, shape = match.node.layer, match.node.input.shape
    return copy_with(layer, shape, norm_weights(layer), axis=-1)


def _join(match: Match) -> Any:
    config = {**match.node.layer.get_config(), "axis": -1}
    return keras.layers.Concatenate.from_config(config)


_COUNTERPARTS: dict[str, To2D] = {
    "AveragePooling1D": _pooling,
    "BatchNormalization": _norm,
    "Concatenate": _join,
    "Conv1D": _convolution,
    "Dense": lambda match: pooling.convolution(match.node),
    "DepthwiseConv1D": _convolution,
    "GlobalAveragePooling1D": _layer_2d,
    "GlobalMaxPooling1D": _layer_2d,
    "MaxPooling1D": _pooling,
    "SeparableConv1D": _convolution,
    "SpatialDropout1D": _layer_2d,
    "ZeroPadding1D": _padding,
}
