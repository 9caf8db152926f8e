"""Where sparse convolutions would make XNNPACK compute something else.

On ARM and in wasm builds XNNPACK runs sparse 1x1 convolutions with channels first. It
takes a network over at a padded 3x3 convolution of stride 2 with three inputs, and
gives it back at a mean over the image. If an operator on the way does not know the
other layout, the network is wrong or does not load there, and right on x86: a
comparison on this machine does not show it. Files of such networks keep their zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_tickets.convert.tflite_schema import op_name

# Operators with which such networks were seen to be right on ARM and in wasm; before
# the entry and behind the exit any other may stand.
_KNOWN = {
    "ADD",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "DEQUANTIZE",
    "ELU",
    "GELU",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOGISTIC",
    "MEAN",
    "MUL",
    "PAD",
    "RELU",
    "RELU6",
    "RESIZE_BILINEAR",
    "TANH",
}

# What gives the network back; without one, XNNPACK leaves the layout alone.
_EXITS = ("MEAN", "SUM", "DEPTH_TO_SPACE")


def why_dense(model: Any) -> str:
    """Tells why convolutions of a file must keep their zeros; empty if they need not.

    Args:
        model: An unpacked, dense `.tflite` file.

    Returns:
        The reason.
    """
    names = [op_name(code) for code in model.operatorCodes]
    for graph in model.subgraphs:
        steps = [(names[op.opcodeIndex], op) for op in graph.operators or []]
        entries = [i for i, _ in enumerate(steps) if _is_entry(model, graph, steps, i)]
        if not entries:
            continue
        inside = steps[entries[0] + 1 :]
        exits = [i for i, (name, _) in enumerate(inside) if name in _EXITS]
        if not exits:
            continue
        last, op = inside[exits[-1]]
        odd = {
            name
            for name, op in inside[: exits[-1]]
            if not _is_known(model, graph, name, op)
        }
        if (
            last == "MEAN"
            and op.builtinOptions.keepDims
            and len(inside) > exits[-1] + 1
        ):
            odd.add("MEAN with kept dimensions")
        if odd:
            return (
                "XNNPACK on ARM and in wasm may not load sparse convolutions beside "
                f"{', '.join(sorted(odd))}, or compute wrong numbers"
            )
    return ""


def _is_entry(model: Any, graph: Any, steps: list[Any], at: int) -> bool:
    """Whether XNNPACK would change the layout at this operator."""
    name, op = steps[at]
    if name != "CONV_2D" or op.builtinOptions.strideH != 2:
        return False
    kernel = graph.tensors[int(op.inputs[1])].shape
    if tuple(kernel[1:]) != (3, 3, 3):
        return False
    before = [n for n, o in steps if int(op.inputs[0]) in o.outputs]
    return before == ["PAD"]


def _is_known(model: Any, graph: Any, name: str, op: Any) -> bool:
    if name not in _KNOWN:
        return False
    if name in ("ADD", "MUL"):
        # With a constant they are a BatchNorm of their own or a scale.
        return all(_is_computed(model, graph, int(index)) for index in op.inputs)
    if name == "CONV_2D":
        kernel = tuple(graph.tensors[int(op.inputs[1])].shape[1:3])
        return kernel == (1, 1) and op.builtinOptions.strideH == 1
    if name == "DEPTHWISE_CONV_2D":
        return tuple(graph.tensors[int(op.inputs[1])].shape[1:3]) in ((3, 3), (5, 5))
    return True


def _is_computed(model: Any, graph: Any, index: int) -> bool:
    data = model.buffers[graph.tensors[index].buffer].data
    return data is None or not np.size(data)
