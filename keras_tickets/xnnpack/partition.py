"""Which operators LiteRT hands to XNNPACK, and what they become there.

What is not handed over cuts a graph into partitions, and XNNPACK decides about each by
itself. In a partition, an operator is a *step*: a zero padding has become part of the
convolution behind it, and a dense layer is a reshape and a product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from keras_tickets.tflite.graph import UNPACKING, Graph, Node
from keras_tickets.tflite.schema import schema

UNARY = frozenset(
    [
        "ABS",
        "CEIL",
        "COS",
        "DEQUANTIZE",
        "ELU",
        "EXP",
        "FLOOR",
        "GELU",
        "HARD_SWISH",
        "LEAKY_RELU",
        "LOG",
        "LOGISTIC",
        "NEG",
        "QUANTIZE",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "ROUND",
        "RSQRT",
        "SIN",
        "SQRT",
        "SQUARE",
        "TANH",
    ]
)
BINARY = frozenset(
    ["ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "PRELU", "SQUARED_DIFFERENCE", "SUB"]
)
_OTHERS = frozenset(
    [
        "AVERAGE_POOL_2D",
        "BATCH_MATMUL",
        "CONCATENATION",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "DEPTH_TO_SPACE",
        "EXPAND_DIMS",
        "FULLY_CONNECTED",
        "MAX_POOL_2D",
        "MEAN",
        "PAD",
        "REDUCE_MAX",
        "REDUCE_MIN",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "SLICE",
        "SOFTMAX",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "STRIDED_SLICE",
        "SUM",
        "TRANSPOSE",
        "TRANSPOSE_CONV",
    ]
)

# A dense layer of this version reads sparse weights, in a kernel of TFLite's own.
SPARSE_DENSE = 8

Sides = tuple[int, int, int, int]
"""Top, right, bottom, left."""


@dataclasses.dataclass
class Step:
    """What XNNPACK makes of an operator.

    Args:
        op: TFLite's name of the operator.
        node: The operator.
        inputs: The values that it reads, constants too.
        outputs: The values that it computes.
        padding: Of a convolution: the zeros around the image; `None` if they are found
            when it runs ("same" with strides).
    """

    op: str
    node: Node
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    padding: Sides | None = (0, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Partition:
    """Steps that XNNPACK runs together.

    Args:
        graph: The graph that they are of.
        steps: The steps, in their order.
        outer: The values that enter or leave.
        leaving: Those that leave.
        hint: Whether LiteRT tells XNNPACK that there are sparse weights.
    """

    graph: Graph
    steps: list[Step]
    outer: frozenset[int]
    leaving: frozenset[int]
    hint: bool


def partitions(graph: Graph) -> list[Partition]:
    """Return what LiteRT hands to XNNPACK, as it cuts it."""
    return [_partition(graph, nodes) for nodes in _cut(graph)]


def _cut(graph: Graph) -> list[list[Node]]:
    """Group nodes as TFLite does: as many of one kind as do not wait for others."""
    waiting = [node for node in graph.nodes if not _is_unpacking(graph, node)]
    computed = {value for node in waiting for value in node.outputs}
    taken = {node.index: _is_taken(graph, node) for node in waiting}
    groups = []
    while waiting:
        group: list[Node] = []
        grew = True
        while grew:
            grew = False
            for node in list(waiting):
                alike = not group or taken[node.index] == taken[group[0].index]
                if alike and not computed.intersection(node.inputs):
                    group.append(node)
                    waiting.remove(node)
                    computed.difference_update(node.outputs)
                    grew = True
        if not group:
            raise ValueError("The nodes of this .tflite file wait for each other.")
        if taken[group[0].index]:
            groups.append(sorted(group, key=lambda node: node.index))
    return groups


def _is_unpacking(graph: Graph, node: Node) -> bool:
    return node.op in UNPACKING and graph.is_constant(node.outputs[0])


def _is_taken(graph: Graph, node: Node) -> bool:
    """Return whether XNNPACK runs this operator."""
    if node.op not in UNARY | BINARY | _OTHERS:
        return False
    if node.op == "FULLY_CONNECTED" and node.version == SPARSE_DENSE:
        return False
    if node.op in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        if len(node.inputs) < 3 or node.inputs[2] < 0:
            return False
        if not graph.is_constant(node.inputs[1]):
            return False
    if node.op in ("MEAN", "SUM", "PAD") and not graph.is_constant(node.inputs[1]):
        return False
    values = [graph.values[i] for i in (node.inputs[-1 if node.op == "SPLIT" else 0],)]
    values += [graph.values[i] for i in node.outputs]
    return all(value.is_float or value.quantized for value in values)


def _partition(graph: Graph, nodes: list[Node]) -> Partition:
    within = {node.index for node in nodes}
    made = {value for node in nodes for value in node.outputs}
    read = {i for node in nodes for i in node.inputs if i >= 0}
    elsewhere = {
        i for node in graph.nodes if node.index not in within for i in node.inputs
    }
    leaving = frozenset(made & (elsewhere | set(graph.outputs)))
    entering = {i for i in read - made if not graph.is_constant(i)}
    return Partition(
        graph,
        _fuse_padding(graph, list(_steps(graph, nodes)), leaving),
        leaving | frozenset(entering),
        leaving,
        hint=any(graph.is_unpacked(i) for i in read),
    )


def _steps(graph: Graph, nodes: list[Node]) -> Iterator[Step]:
    for number, node in enumerate(nodes):
        inputs = tuple(i for i in node.inputs if i >= 0)
        if node.op == "FULLY_CONNECTED" and not node.options.keepNumDims:
            reshaped = -1 - number  # A value that the file does not name.
            yield Step("RESHAPE", node, inputs[:1], (reshaped,))
            yield Step(node.op, node, (reshaped, *inputs[1:]), node.outputs)
        elif node.op == "MUL" and inputs[0] == inputs[1]:
            yield Step("SQUARE", node, inputs[:1], node.outputs)
        else:
            yield Step(node.op, node, inputs, node.outputs, _padding(graph, node))


def _padding(graph: Graph, node: Node) -> Sides | None:
    """Return the zeros around an image, without those of a padding in front."""
    if node.op not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return (0, 0, 0, 0)
    options = node.options
    if options.padding == schema().Padding.VALID:
        return (0, 0, 0, 0)
    if options.strideH != 1 or options.strideW != 1:
        return None
    height, width = graph.values[node.inputs[1]].shape[1:3]
    rows = (height - 1) * options.dilationHFactor
    columns = (width - 1) * options.dilationWFactor
    return (rows // 2, columns - columns // 2, rows - rows // 2, columns // 2)


def _fuse_padding(
    graph: Graph, steps: list[Step], leaving: frozenset[int]
) -> list[Step]:
    """Make a zero padding part of the one convolution that reads it."""
    kept = []
    for step in steps:
        readers = [other for other in steps if step.outputs[0] in other.inputs]
        alone = len(readers) == 1 and step.outputs[0] not in leaving
        sides = _around(graph, step) if step.op == "PAD" and alone else None
        reader = readers[0] if alone else None
        if sides is None or reader is None or not _takes_padding(reader):
            kept.append(step)
            continue
        own = reader.padding or (0, 0, 0, 0)
        reader.padding = _four(a + b for a, b in zip(own, sides, strict=True))
        reader.inputs = (step.inputs[0], *reader.inputs[1:])
    return kept


def _takes_padding(step: Step) -> bool:
    convolves = step.op in ("CONV_2D", "DEPTHWISE_CONV_2D")
    return convolves and step.padding is not None


def _around(graph: Graph, step: Step) -> Sides | None:
    """Return the rows and columns that a padding adds; `None` if it adds others."""
    amounts = graph.constant(step.inputs[1]).values
    if amounts.shape != (4, 2) or amounts[[0, 3]].any():
        return None
    (top, bottom), (left, right) = amounts[1:3].tolist()
    return (top, right, bottom, left)


def _four(numbers: Any) -> Sides:
    top, right, bottom, left = numbers
    return (top, right, bottom, left)
