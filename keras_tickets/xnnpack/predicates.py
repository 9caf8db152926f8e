"""Predicates on a step, which the table of rules asks."""

from __future__ import annotations

from collections.abc import Callable

from keras_tickets.tflite.graph import Graph
from keras_tickets.xnnpack.partition import Step


def window(graph: Graph, step: Step) -> tuple[int, int]:
    """Return the height and width of a convolution's kernel."""
    height, width = graph.values[step.inputs[1]].shape[1:3]
    return (height, width)


def is_pointwise(graph: Graph, step: Step) -> bool:
    """Return whether a step multiplies channels pixel by pixel: what can run sparse."""
    if step.op == "FULLY_CONNECTED":
        return graph.is_constant(step.inputs[1])
    return step.op == "CONV_2D" and window(graph, step) == (1, 1)


def named(*names: str) -> Callable[[Graph, Step], bool]:
    """Return a predicate: whether a step is one of these operators."""
    return lambda graph, step: step.op in names


def is_3x3(graph: Graph, step: Step) -> bool:
    """Return whether a step is a convolution of 3x3 pixels."""
    return step.op == "CONV_2D" and window(graph, step) == (3, 3)


def strides(graph: Graph, step: Step) -> tuple[int, int]:
    """Return how far a window moves down and to the right."""
    return (step.node.options.strideH, step.node.options.strideW)


def undilated(graph: Graph, step: Step) -> bool:
    """Return whether the pixels of a window lie side by side."""
    options = step.node.options
    return bool(options.dilationHFactor == 1 and options.dilationWFactor == 1)


def ungrouped(graph: Graph, step: Step) -> bool:
    """Return whether each output of a convolution reads all channels."""
    channels = graph.values[step.inputs[0]].shape[-1]
    return bool(graph.values[step.inputs[1]].shape[-1] == channels)


def padded(graph: Graph, step: Step) -> bool:
    """Return whether a depthwise kernel has half its size of zeros on each side."""
    half = window(graph, step)[0] // 2
    return step.padding == (half,) * 4


def of_rank_4(graph: Graph, step: Step) -> bool:
    """Return whether all that a step reads are images."""
    return all(i >= 0 and graph.values[i].rank == 4 for i in step.inputs)


def known_vector(graph: Graph, step: Step) -> bool:
    """Return whether constants of a sum or product are such that XNNPACK takes them.

    It looks at the first operand's shape in place of the second's.
    """
    first, second = step.inputs
    wide = sum(size != 1 for size in graph.values[first].shape) > 1
    return not (wide and (graph.is_constant(first) or graph.is_constant(second)))


def reads_image(graph: Graph, step: Step) -> bool:
    """Return whether what a step reads first is an image."""
    return step.inputs[0] >= 0 and graph.values[step.inputs[0]].rank == 4


def is_clamp(graph: Graph, step: Step) -> bool:
    """Return whether a step is the maximum or minimum of an image and one number.

    XNNPACK makes a clamp of it, a function of each number.
    """
    if step.op not in ("MAXIMUM", "MINIMUM"):
        return False
    image, bound = step.inputs
    known = graph.is_constant(bound) and not graph.is_constant(image)
    return known and graph.constant(bound).values.size == 1


def more_than_a_pixel(graph: Graph, step: Step) -> bool:
    """Return whether an image has more than one row and more than one column."""
    return all(size > 1 for size in graph.values[step.inputs[0]].shape[1:3])


def never(graph: Graph, step: Step) -> bool:
    """Return False: a need that nothing meets."""
    return False
