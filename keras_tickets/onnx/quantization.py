"""Finds which stored number stands for zero in the integers of an `.onnx` file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_tickets._util.file_tensor import Array
from keras_tickets.onnx.graph import (
    attributes,
    constants,
    graphs,
    model_nodes,
    to_array,
)

# Operator -> which of its inputs are integers that stand for real numbers, and which
# input holds the zero point of each. ONNX Runtime's own operators are among them.
_OPERANDS = {
    "DequantizeLinear": ((0, 2),),
    "QLinearConv": ((0, 2), (3, 5)),
    "QLinearMatMul": ((0, 2), (3, 5)),
    "MatMulInteger": ((0, 2), (1, 3)),
    "ConvInteger": ((0, 2), (1, 3)),
    "QGemm": ((0, 2), (3, 5)),
    "MatMulIntegerToFloat": ((0, 4), (1, 5)),
    "DynamicQuantizeMatMul": ((1, 3),),
    "QAttention": ((1, 7),),
    "DynamicQuantizeLSTM": ((1, 9), (2, 11)),
    "QEmbedLayerNormalization": ((2, 13), (3, 14), (4, 15)),
}

# The axis of one zero point per channel, by operator; the last but for convolutions.
_FIRST_AXIS = ("QLinearConv", "ConvInteger")


@dataclasses.dataclass(frozen=True)
class ZeroPoint:
    """What stands for zero in a tensor.

    Args:
        values: One number, one for each index along an axis, or one for each block.
        axis: The axis.
        block: How many neighbours along the axis share a number; 0 for all of them.
    """

    values: Array
    axis: int
    block: int = 0

    def along(self, shape: tuple[int, ...]) -> int | Array:
        """Return it in a form that broadcasts against values of a shape."""
        points = self.values.astype(np.int64)
        if self.block and points.ndim == len(shape):
            points = np.repeat(points, self.block, axis=self.axis)
            return points.take(range(shape[self.axis]), axis=self.axis)
        if points.size == 1:
            return int(points.reshape(-1)[0])
        if points.ndim != 1 or points.size != shape[self.axis]:
            return 0
        sizes = [1] * len(shape)
        sizes[self.axis] = points.size
        return points.reshape(sizes)


def zero_points(model: Any) -> dict[str, ZeroPoint]:
    """Return the zero points of the integer constants of a model, by their names.

    Args:
        model: A `ModelProto`.
    """
    stored = {
        name: proto
        for graph in graphs(model.graph)
        for name, proto in constants(graph)
        if not hasattr(proto, "indices")
    }
    return {
        name: ZeroPoint(to_array(stored[point]) if point else np.zeros(1), axis, block)
        for name, point, axis, block in _operands(model)
        if name in stored and (not point or point in stored)
    }


def _operands(model: Any) -> Iterator[tuple[str, str, int, int]]:
    """Yield (integers, zero point, axis, block) of each operand of each node."""
    for node in model_nodes(model):
        inputs = list(node.input)
        for value, point in _OPERANDS.get(node.op_type, ()):
            if value < len(inputs):
                given = attributes(node)
                axis = 0 if node.op_type in _FIRST_AXIS else -1
                if node.op_type == "DequantizeLinear":
                    axis = given.get("axis", 1)
                name = inputs[point] if point < len(inputs) else ""
                yield inputs[value], name, axis, given.get("block_size", 0)
