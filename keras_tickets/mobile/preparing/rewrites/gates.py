"""Hard sigmoids, whose number 1/6 XNNPACK cannot multiply an image by.

relu6(x + 3) / 6 is what squeeze-and-excite blocks are gated by in MobileNetV3. The 3
goes into the bias of what computes x, and the 1/6 into the kernels that read the
product. x times its own hard sigmoid is one operator, hard swish.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np

from keras_tickets.backend import numbers
from keras_tickets.backend.rebuilding import LeftAlone
from keras_tickets.mobile.preparing.match import (
    TRANSPARENT,
    Match,
    copy_with,
    is_image,
    is_linear,
    norm_weights,
)
from keras_tickets.mobile.preparing.network_graph import Node, Value
from keras_tickets.mobile.preparing.rewrites.scale_shift import scale_and_shift, scaled


@dataclass(frozen=True)
class Gate:
    """A hard sigmoid.

    Args:
        source: What it is taken of.
        last: The node that gives it.
    """

    source: Value
    last: Node


def open_gate(match: Match) -> list[Value] | None:
    """Write a product with a hard sigmoid as one with a ReLU6, or as a hard swish."""
    node = match.node
    if node.kind != "Multiply" or len(node.inputs) != 2 or not match.behind:
        return None
    if not all(map(is_image, node.inputs)):
        return None
    if node.inputs[0] is node.inputs[1]:
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        if (gate := hard_sigmoid(match, other)) is not None:
            if gate.source is value:
                return _hard_swish(match, value)
            return _fold(match, gate)
    return None


def _hard_swish(match: Match, value: Value) -> list[Value]:
    graph, node = match.graph, match.node
    policy = getattr(node.layer, "dtype_policy", None)
    swish = keras.layers.Activation("hard_swish", name=node.layer.name, dtype=policy)
    graph.change(node, swish, value)
    graph.drop_unread()
    return [node.output]


def _fold(match: Match, gate: Gate) -> list[Value]:
    graph = match.graph
    readers = _linear_readers(match)
    source = gate.source.node
    fused = source is gate.last
    if source is None or not (
        fused or is_linear(source) or source.kind == "BatchNormalization"
    ):
        raise LeftAlone(
            "multiplies by a hard sigmoid of what no linear convolution computes"
        )
    if not fused and not graph.is_read_once(gate.source):
        raise LeftAlone("multiplies by a hard sigmoid of what others read too")
    match.require_exclusive(source)
    _add_three(match, source)
    if not fused:
        relu = keras.layers.ReLU(6.0, name=graph.name(f"{match.node.layer.name}_relu6"))
        given = graph.put(gate.last, relu, source.output)
        graph.move(match.node, gate.last.output, given)
        graph.drop_unread()
    for reader in readers:
        scaled(match, reader, np.asarray(1 / 6))
    return [reader.output for reader in readers]


def _add_three(match: Match, node: Node) -> None:
    """Let a layer give x + 3; one with a hard sigmoid, ReLU6 of that."""
    layer = node.layer
    if node.kind == "BatchNormalization":
        weights = norm_weights(layer)
        weights["beta"] = weights.get("beta", 0 * weights["moving_mean"]) + 3
        match.graph.change(
            node, copy_with(layer, node.input.shape, weights, center=True)
        )
        return
    bias = numbers(layer.bias) if layer.use_bias else np.zeros(layer.kernel.shape[-1])
    weights = {"kernel": numbers(layer.kernel), "bias": bias + 3}
    config = {} if is_linear(node) else {"activation": "relu6"}
    new = copy_with(layer, node.input.shape, weights, use_bias=True, **config)
    match.graph.change(node, new)


def _linear_readers(match: Match) -> list[Node]:
    """Return the layers that take a factor of what a product gives."""
    found, open_values = [], [match.node.output]
    for value in open_values:
        if match.graph.is_output(value):
            raise LeftAlone("multiplies by a hard sigmoid for an output of the model")
        for reader in match.graph.readers(value):
            if reader.kind in (*TRANSPARENT, "ZeroPadding2D", "GlobalAveragePooling2D"):
                open_values.append(reader.output)
            elif reader.kind in ("Conv2D", "DepthwiseConv2D", "Dense"):
                match.require_exclusive(reader)
                found.append(reader)
            else:
                raise LeftAlone(
                    f"multiplies by a hard sigmoid, and '{reader.path}' reads the "
                    "product: only a convolution or dense layer can take the factor 1/6"
                )
    return found


# -- what a hard sigmoid looks like ----------------------------------------------------


def hard_sigmoid(match: Match, value: Value) -> Gate | None:
    """Return the hard sigmoid that gives a value, if one node reads it and no user."""
    node = value.node
    if node is None or not match.graph.is_read_once(value):
        return None
    if node.kind == "HardSigmoid" or _activation(node) == "hard_sigmoid":
        fused = node.kind in ("Conv2D", "DepthwiseConv2D")
        return Gate(value if fused else node.input, node)
    scale = scale_and_shift(node)
    if scale is None or not _is(scale, 1 / 6, 0):
        return None
    relu = match.graph.before(node)
    if relu is None or not _is_relu6(relu):
        return None
    add = match.graph.before(relu)
    shift = scale_and_shift(add) if add is not None else None
    if add is None or shift is None or not _is(shift, 1, 3):
        return None
    return Gate(add.input, node)


def _is(pair: tuple, scale: float, shift: float) -> bool:
    return all(
        getattr(x, "size", 1) == 1 and math.isclose(float(x), y, rel_tol=1e-6)
        for x, y in zip(pair, (scale, shift), strict=True)
    )


def _is_relu6(node: Node) -> bool:
    layer = node.layer
    if node.kind == "ReLU":
        return (layer.max_value, layer.negative_slope, layer.threshold) == (6, 0, 0)
    return node.kind == "Relu6" or _activation(node) == "relu6"


def _activation(node: Node) -> str:
    if node.kind not in ("Activation", "Conv2D", "DepthwiseConv2D"):
        return ""
    return getattr(node.layer.activation, "__name__", "")
