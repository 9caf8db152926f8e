"""Reads and rewrites the constants of an `.onnx` file."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_tickets.convert.tensor import Array, FileTensor, Rewriter, rewritten
from keras_tickets.extras import require

# The operator sets that every ONNX runtime carries.
_STANDARD_DOMAINS = ("", "ai.onnx")


def tensors(content: bytes) -> list[FileTensor]:
    """Lists the constants of an `.onnx` file: initializers and `Constant` nodes.

    Args:
        content: The bytes of the file.

    Returns:
        The constant tensors, sparse ones decoded.

    Raises:
        ValueError: If the bytes are no `.onnx` file.
        ImportError: If `onnx` is not installed.

    Example:

    ```python
    for tensor in tensors(pathlib.Path("model.onnx").read_bytes()):
        print(tensor.name, tensor.shape, tensor.nonzeros, tensor.encoding)
    ```
    """
    return [_read(name, proto) for name, proto in _constants(_load(content).graph)]


def ops(content: bytes) -> dict[str, int]:
    """Counts the operators of an `.onnx` file, those of its subgraphs too.

    Args:
        content: The bytes of the file.

    Returns:
        Operator name -> how often; operators outside the standard set have the
        prefix `custom:`, as have names that the standard set does not define.
    """
    model = _load(content)
    return dict(collections.Counter(_op_name(node) for node in _nodes(model.graph)))


def rewrite(content: bytes, rewriter: Rewriter) -> bytes:
    """Rewrites an `.onnx` file tensor by tensor.

    Args:
        content: The bytes of the file.
        rewriter: Called with each constant tensor; returns new values of the same
            shape and dtype, or None. They are stored in the tensor's encoding.

    Returns:
        The bytes of the new file.

    Raises:
        ValueError: If the bytes are no `.onnx` file, or new values do not fit.
    """
    model = _load(content)
    for name, proto in _constants(model.graph):
        values = rewritten(_read(name, proto), rewriter)
        if values is not None:
            _write(name, proto, values)
    return bytes(model.SerializeToString())


def name_outputs(content: bytes, names: list[str | None]) -> bytes:
    """Gives the outputs of an `.onnx` file the names of the model's.

    Args:
        content: The bytes of the file.
        names: The names, in the model's order. Only outputs that the converter
            numbered (`output_0`, `Identity_1:0`) take one.

    Returns:
        The bytes of the new file.
    """
    model = _load(content)
    graph = model.graph
    taken = {name for node in _nodes(graph) for name in (*node.input, *node.output)}
    numbered = re.compile(r"(?:output|Identity)(?:_(\d+))?(?::0)?")
    new = {}
    for output in graph.output:
        if found := numbered.fullmatch(output.name):
            name = names[int(found[1] or 0)]
            if name and name not in taken:
                new[output.name] = name
    for value in (*graph.output, *graph.value_info):
        value.name = new.get(value.name, value.name)
    for node in _nodes(graph):
        for ends in (node.input, node.output):
            ends[:] = [new.get(name, name) for name in ends]
    return bytes(model.SerializeToString())


def dense_bytes(content: bytes) -> int:
    """The size of an `.onnx` file if each tensor were stored with its zeros."""
    saved = sum(t.dense_bytes - t.stored_bytes for t in tensors(content))
    return len(content) + saved


def _load(content: bytes) -> Any:
    onnx = require("onnx", "export")
    decode_error = require("google.protobuf.message", "export").DecodeError
    try:
        model = onnx.load_model_from_string(content)
    except decode_error as error:
        raise ValueError(f"Not an .onnx file: {error}") from error
    if not model.ir_version:
        raise ValueError("Not an .onnx file: it declares no version of ONNX.")
    return model


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of the bodies of its loops and branches."""
    for node in graph.node:
        yield node
        for body in _bodies(node):
            yield from _nodes(body)


def _bodies(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _constants(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, TensorProto or SparseTensorProto) of each constant.

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
        for body in _bodies(node):
            yield from _constants(body)


def _is_sparse(proto: Any) -> bool:
    return hasattr(proto, "indices")


def _read(name: str, proto: Any) -> FileTensor:
    to_array = require("onnx.numpy_helper", "export").to_array
    if not _is_sparse(proto):
        values = np.asarray(to_array(proto))
        return FileTensor(name, values, "dense", values.nbytes)
    stored, indices = to_array(proto.values), to_array(proto.indices)
    shape = tuple(proto.dims)
    values = np.zeros(shape, stored.dtype)
    # ONNX allows one linear index per value, or one row of coordinates.
    linear = indices if indices.ndim == 1 else np.ravel_multi_index(indices.T, shape)
    values.reshape(-1)[linear] = stored
    return FileTensor(name, values, "sparse", stored.nbytes + indices.nbytes)


def _write(name: str, proto: Any, values: Array) -> None:
    from_array = require("onnx.numpy_helper", "export").from_array
    if not _is_sparse(proto):
        proto.CopyFrom(from_array(values, name))
        return
    linear = np.flatnonzero(values)
    proto.values.CopyFrom(from_array(values.reshape(-1)[linear], name))
    proto.indices.CopyFrom(from_array(linear.astype(np.int64), proto.indices.name))


def _op_name(node: Any) -> str:
    standard = node.domain in _STANDARD_DOMAINS
    if standard and require("onnx.defs", "export").has(node.op_type):
        return str(node.op_type)
    return f"custom:{node.op_type}"
