"""Stores the tensors of an `.onnx` file without their zeros, and in float16.

In standard operators that a runtime folds away while it loads the file; see
`encodings.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_tickets._util.extras import require
from keras_tickets._util.file_tensor import Array
from keras_tickets.onnx.decoding import Scattered, find
from keras_tickets.onnx.encodings import (
    LOWEST_OPSET,
    Encoding,
    Names,
    Shared,
    dense_encoding,
    half_encoding,
    scatter_encoding,
)
from keras_tickets.onnx.graph import opset, replace, to_array, uses

# Positions are int32 sums.
_MOST_VALUES = np.iinfo(np.int32).max

_LARGEST_HALF = float(np.finfo(np.float16).max)


def encode(model: Any, half: bool = False, sparse: bool = True) -> None:
    """Store each float32 initializer in the encoding that makes the file smallest.

    A tensor that is a graph's input or output too, or whose data lie outside the
    file, is left as it is. In float32 each value of each tensor is kept.

    Args:
        model: A `ModelProto`; it is changed.
        half: Whether tensors may be stored in float16, rounded, with a `Cast` to
            float32 behind: the model computes in float32 as before.
        sparse: Whether tensors may be stored without their zeros.

    Raises:
        ValueError: If its opset lacks the operators needed, or a number is too large
            for float16.

    Example:

    ```python
    file = OnnxFile.read("dense.onnx")
    encode(file.model)
    pathlib.Path("sparse.onnx").write_bytes(file.to_bytes())
    ```
    """
    if sparse and opset(model) < LOWEST_OPSET:
        raise ValueError(
            f"The .onnx file uses opset {opset(model)}; storing tensors without their "
            f"zeros needs opset {LOWEST_OPSET} or later. Convert with a later opset, "
            "or with `sparse=False`."
        )
    names = Names(model.graph)
    for graph, found in _inner_first(model):
        helpers = set[str]().union(*(tensor.helpers for tensor in found))
        protos = [p for p in _eligible(graph) if p.name not in helpers]
        tensors = [(proto.name, to_array(proto), half) for proto in protos]
        encodings = [f for f in _smallest(tensors, names, sparse) if f.nodes]
        stored = {encoding.name for encoding in encodings}
        replace(
            graph.initializer, (p for p in graph.initializer if p.name not in stored)
        )
        _insert(graph, encodings)


def decode(model: Any) -> None:
    """Store the tensors that `encode` stored without zeros with them again.

    Args:
        model: A `ModelProto`; it is changed. What was in float16 still is.

    Raises:
        ValueError: If a tensor is damaged.
    """
    names = Names(model.graph)
    for graph, found in _inner_first(model):
        _drop(graph, found)
        _insert(
            graph,
            [
                half_encoding(tensor.name, tensor.values(), names)
                if tensor.is_half
                else dense_encoding(tensor.name, tensor.values())
                for tensor in found
            ],
        )


def _inner_first(model: Any) -> list[tuple[Any, list[Scattered]]]:
    # A graph that gets new nodes gets copies of its old ones, bodies included.
    return list(reversed(find(model.graph)))


def _eligible(graph: Any) -> list[Any]:
    """Return the initializers that may be stored in another encoding."""
    tensor_proto = require("onnx", "export").TensorProto
    fixed = {entry.name for entry in (*graph.input, *graph.output)}
    return [
        proto
        for proto in graph.initializer
        if proto.data_type == tensor_proto.FLOAT
        and proto.data_location != tensor_proto.EXTERNAL
        and proto.name not in fixed
        and 0 < math.prod(proto.dims) <= _MOST_VALUES
    ]


def _smallest(
    tensors: list[tuple[str, Array, bool]], names: Names, sparse: bool
) -> list[Encoding]:
    """Return the smallest encoding of each (name, values, may be float16)."""
    shared = Shared(names)
    chosen = []
    for name, values, half in tensors:
        encodings = [dense_encoding(name, values)]
        if half:
            encodings.append(half_encoding(name, values, names))
        if sparse:
            encodings += [
                scatter_encoding(name, values, shared, names, is_half)
                for is_half in sorted({False, half})
            ]
        chosen.append(min(encodings, key=lambda encoding: encoding.bytes))
        if chosen[-1].is_half:
            _check_half(name, values)
    return chosen


def _check_half(name: str, values: Array) -> None:
    sizes = np.abs(np.where(np.isfinite(values), values, 0))
    worst = np.argmax(sizes)
    if sizes.flat[worst] > _LARGEST_HALF:
        raise ValueError(
            f"Tensor '{name}' holds {values.flat[worst]:g}, but the largest number in "
            f"float16 is {_LARGEST_HALF:g}. Store the file in float32, or bring the "
            "weights into range (a scale this large often comes from a BatchNorm "
            "whose variance is next to zero)."
        )


def _insert(graph: Any, encodings: list[Encoding]) -> None:
    """Add encodings to a graph: their nodes before all that may need the tensors."""
    constants = {
        proto.name: proto for encoding in encodings for proto in encoding.constants
    }
    nodes = {node.output[0]: node for own in encodings for node in own.nodes}
    graph.initializer.extend(constants.values())
    replace(graph.node, [*nodes.values(), *graph.node])


def _drop(graph: Any, found: list[Scattered]) -> None:
    """Remove what makes these tensors, save what other nodes need too."""
    made = set[str]().union(*(tensor.made for tensor in found))
    helpers = set[str]().union(*(tensor.helpers for tensor in found))
    gone = {tensor.name for tensor in found}
    results = {entry.name for entry in graph.output}
    while True:
        kept = [node for node in graph.node if not gone.issuperset(node.output)]
        unused = (made | helpers) - results.union(uses(kept))
        if unused <= gone:
            break
        gone |= unused
    replace(graph.node, kept)
    replace(graph.initializer, (p for p in graph.initializer if p.name not in gone))
