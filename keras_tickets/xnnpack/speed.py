"""How much faster a file may become: an estimate from what other files took.

Each operator is weighed by its multiplications, and each that runs sparse by what such
an operator took of its dense time at that sparsity. That leaves memory, other operators
and the processor out, so it is no more than an expectation: `kt.benchmark` measures.
"""

from __future__ import annotations

import math

import numpy as np

from keras_tickets.tflite.graph import Graph, Node

BASIS = (
    "multiplications, weighed by what sparse ones took in LiteRT.js (convolutions, one "
    "thread) and in LiteRT on x86 (dense layers); not measured on this file"
)

# Fraction of weights kept -> time of a sparse kernel over that of the dense one.
# Convolutions: MobileNetV1 of 96 x 96 pixels, 94 % of whose multiplications are in 1x1
# convolutions, ran 1.35, 1.9, 3.35 and 5.1 times as fast at 70, 80, 90 and 95 %.
# Dense layers: 784-1024-1024-512-10 in blocks of 1x4, 0.75 and 2.05 times at 80, 90 %.
# Nothing faster than what was seen is expected of sparser ones.
_TIMES = {
    "convolution": ((0.05, 0.1, 0.2, 0.3), (0.145, 0.254, 0.496, 0.724)),
    "f32 1x4": ((0.1, 0.2), (0.488, 1.33)),
}


def relative_time(kind: str, kept: float) -> float:
    """Return the time of an operator in a sparse kernel over its dense time.

    Args:
        kind: `"convolution"`, or the name of a kernel for dense layers.
        kept: The fraction of its weights that are not zero.

    Returns:
        The ratio; 1 for kernels without a measurement.

    Example:
    >>> relative_time("convolution", kept=0.1)
    0.254
    """
    if kind not in _TIMES:
        return 1.0
    places, times = _TIMES[kind]
    if kept > places[-1]:  # In proportion: each weight that is kept costs the same.
        return times[-1] * kept / places[-1]
    return float(np.interp(kept, places, times))


def multiplications(graph: Graph, node: Node) -> int:
    """Return how many products an operator computes; 0 for those without weights."""
    result = math.prod(graph.values[node.outputs[0]].shape)
    if node.op == "BATCH_MATMUL":
        return result * graph.values[node.inputs[0]].shape[-2 if _turned(node) else -1]
    if node.op == "TRANSPOSE_CONV":  # Each pixel that it reads meets the whole kernel.
        kernel, image = (graph.values[i].shape for i in node.inputs[1:3])
        return math.prod(image) * math.prod(kernel[:3])
    if node.op not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    # Outputs are the first axis of a kernel; of a depthwise one the last.
    shape = graph.values[node.inputs[1]].shape
    outputs = shape[-1] if node.op == "DEPTHWISE_CONV_2D" else shape[0]
    return result * math.prod(shape) // max(outputs, 1)


def _turned(node: Node) -> bool:
    """Return whether a product of matrices transposes the first of them."""
    return bool(node.options.adjX)
