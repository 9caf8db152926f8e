"""Finds one's way in an `.onnx` file: its graphs, nodes, constants and names."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_tickets._util.extras import require
from keras_tickets._util.file_tensor import Array

# The operator sets that every ONNX runtime carries.
STANDARD_DOMAINS = ("", "ai.onnx")

# Those that ONNX Runtime carries beside them: for trees and the like, and its own,
# which its optimizer and its quantizer write.
RUNTIME_DOMAINS = ("ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")


def load(content: bytes) -> Any:
    """Parse the bytes of an `.onnx` file into a `ModelProto`.

    Raises:
        ValueError: If the bytes are no `.onnx` file.
        ImportError: If `onnx` is not installed.
    """
    onnx = require("onnx", "export")
    decode_error = require("google.protobuf.message", "export").DecodeError
    try:
        model = onnx.load_model_from_string(content)
    except decode_error as error:
        raise ValueError(f"Not an .onnx file: {error}") from error
    if not model.ir_version:
        raise ValueError("Not an .onnx file: it declares no version of ONNX.")
    return model


def opset(model: Any) -> int:
    """Return the version of the standard operators of a model; 0 if it has none."""
    versions = {
        entry.version
        for entry in model.opset_import
        if entry.domain in STANDARD_DOMAINS
    }
    return max(versions, default=0)


def graphs(graph: Any) -> Iterator[Any]:
    """Return a graph and the bodies of its loops and branches, at any depth."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def nodes(graph: Any) -> Iterator[Any]:
    """Return the nodes of a graph and of the bodies of its loops and branches."""
    return itertools.chain.from_iterable(inner.node for inner in graphs(graph))


def model_nodes(model: Any) -> Iterator[Any]:
    """Return the nodes of a model, those of its own functions included."""
    yield from nodes(model.graph)
    for function in model.functions:
        yield from nodes(function)


def bodies(node: Any) -> Iterator[Any]:
    """Return the graphs that a loop or a branch runs."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def uses(nodes: Iterable[Any]) -> Iterator[str]:
    """Return the names that nodes read, those that their bodies read included."""
    for node in nodes:
        yield from node.input
        for body in bodies(node):
            yield from uses(body.node)
            yield from (entry.name for entry in body.output)


def is_standard(node: Any, op_type: str) -> bool:
    """Return whether a node is the standard operator of that name."""
    return node.op_type == op_type and node.domain in STANDARD_DOMAINS


def attributes(node: Any) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    get = require("onnx.helper", "export").get_attribute_value
    return {attribute.name: get(attribute) for attribute in node.attribute}


def constants(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, TensorProto or SparseTensorProto) of each constant of one graph.

    `Constant` nodes that hold a bare number or list have rank 0 or 1: no weights.
    """
    for proto in graph.initializer:
        yield proto.name, proto
    for proto in graph.sparse_initializer:
        yield proto.values.name, proto
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t
                elif attribute.name == "sparse_value":
                    yield node.output[0], attribute.sparse_tensor


def all_tensors(model: Any) -> Iterator[Any]:
    """Return every `TensorProto` of a model, wherever it is held."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in model_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor.values
                yield attribute.sparse_tensor.indices
            yield from attribute.tensors


def replace(field: Any, messages: Iterable[Any]) -> None:
    """Give a repeated field of a message new content."""
    kept = list(messages)
    del field[:]
    field.extend(kept)


def names(graph: Any) -> set[str]:
    """Return all names of values in a graph and in its bodies."""
    found: set[str] = set()
    for inner in graphs(graph):
        found.update(entry.name for entry in (*inner.input, *inner.output))
        found.update(name for name, _ in constants(inner))
        for node in inner.node:
            found.update(node.input, node.output)
    return found


def is_external(proto: Any) -> bool:
    """Return whether the values of a `TensorProto` are in another file."""
    return bool(proto.data_location == require("onnx", "export").TensorProto.EXTERNAL)


def to_array(proto: Any) -> Array:
    """Return the values of a `TensorProto`.

    Raises:
        ValueError: If they are in another file; see `external_data.py`. The library
            would look for it in the current directory.
    """
    if is_external(proto):
        raise ValueError(f"The values of tensor '{proto.name}' are in another file.")
    return np.asarray(require("onnx.numpy_helper", "export").to_array(proto))


def to_tensor(values: Array, name: str) -> Any:
    """Return a `TensorProto` of these values."""
    return require("onnx.numpy_helper", "export").from_array(values, name)


def type_number(name: str) -> int:
    """Return the number that ONNX has for a type such as `"FLOAT16"`."""
    return int(require("onnx", "export").TensorProto.DataType.Value(name))
