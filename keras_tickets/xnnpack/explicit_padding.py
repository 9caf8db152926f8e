"""Writes the zeros around an image as an operator, where XNNPACK asks for that.

The converter turns explicit zeros in front of a strided convolution into "same" padding
where that adds as many on each side, as with odd image sizes. XNNPACK runs "same" with
strides in NHWC (pixel by pixel) only. A `PAD` in front means the same; XNNPACK makes it
part of the convolution, and it costs nothing.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from keras_tickets._util.layer_traits import same_padding
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.graph import Graph, Node
from keras_tickets.tflite.schema import operator_code, schema
from keras_tickets.tflite.tensor import name_of
from keras_tickets.xnnpack.prediction import Execution, predict


def pad_explicitly(file: TfliteFile) -> TfliteFile:
    """Write "same" padding as `PAD` if more of a file can run sparse then.

    Args:
        file: A `.tflite` file; it is not changed.

    Returns:
        A file that computes the same; `file` itself if it would not help.
    """
    padded = file.copy()
    if not write_padding(padded):
        return file
    return padded if _sparse_nodes(padded) > _sparse_nodes(file) else file


def _sparse_nodes(file: TfliteFile) -> int:
    return sum(
        found.runs is Execution.SPARSE
        for graph in file.graphs()
        for found in predict(graph, assume_sparse=True)
    )


def write_padding(file: TfliteFile) -> bool:
    """Write out what can be written out, in place; return whether something was."""
    changed = False
    for view, graph in zip(file.graphs(), file.model.subgraphs, strict=True):
        for node, op in zip(view.nodes, list(graph.operators or []), strict=True):
            if (size := _half(view, node)) and _is_of_one_size(graph, op):
                _insert(file.model, graph, op, size)
                changed = True
    return changed


def _half(graph: Graph, node: Node) -> int:
    """Return how many zeros "same" adds on each side; 0 if not as many on each."""
    if node.op not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return 0
    options = node.options
    strides = {options.strideH, options.strideW}
    dilations = {options.dilationHFactor, options.dilationWFactor}
    if options.padding != schema().Padding.SAME or strides != {2} or dilations != {1}:
        return 0
    windows = graph.values[node.inputs[1]].shape[1:3]
    sizes = graph.values[node.inputs[0]].shape[1:3]
    added = {
        same_padding(size, window, 2)
        for size, window in zip(sizes, windows, strict=True)
    }
    (before, after), *others = added
    equal = before == after and not others and set(windows) == {2 * before + 1}
    return before if equal else 0


def _is_of_one_size(graph: Any, op: Any) -> bool:
    """Return whether an image has as many rows and columns in each run."""
    signature = graph.tensors[int(op.inputs[0])].shapeSignature
    return signature is None or not len(signature) or min(signature[1:3]) >= 0


def _insert(model: Any, graph: Any, op: Any, size: int) -> None:
    """Put a PAD in front of an operator."""
    classes = schema()
    image = graph.tensors[int(op.inputs[0])]
    amounts = np.array([[0, 0], [size, size], [size, size], [0, 0]], np.int32)
    buffer = classes.BufferT()
    buffer.data = np.frombuffer(amounts.tobytes(), np.uint8)
    model.buffers.append(buffer)
    table = classes.TensorT()
    table.name, table.shape = f"{name_of(image)}/paddings", np.array([4, 2], np.int32)
    table.type, table.buffer = classes.TensorType.INT32, len(model.buffers) - 1
    padded = classes.TensorT()
    padded.name, padded.type = f"{name_of(image)}/padded", image.type
    padded.shape = np.asarray(image.shape, np.int32) + amounts.sum(1).astype(np.int32)
    padded.quantization = image.quantization
    graph.tensors += [table, padded]
    pad = classes.OperatorT()
    pad.opcodeIndex = operator_code(model, "PAD", version=1)
    last = len(graph.tensors) - 1
    pad.inputs = np.array([int(op.inputs[0]), last - 1], np.int32)
    pad.outputs = np.array([last], np.int32)
    pad.builtinOptionsType = classes.BuiltinOptions.PadOptions
    pad.builtinOptions = classes.PadOptionsT()
    at = next(i for i, other in enumerate(graph.operators) if other is op)
    graph.operators.insert(at, pad)
    op.inputs = np.array([last, *itertools.islice(op.inputs, 1, None)], np.int32)
    op.builtinOptions.padding = classes.Padding.VALID
