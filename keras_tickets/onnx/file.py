"""Reads and rewrites the constants of an `.onnx` file."""

from __future__ import annotations

import collections
import itertools
import re
from typing import Any

import numpy as np

from keras_tickets._util.damage import check_claim
from keras_tickets._util.extras import require
from keras_tickets._util.file_tensor import (
    Array,
    FileTensor,
    Rewriter,
    rewritten,
)
from keras_tickets.onnx.decoding import (
    Scattered,
    find,
)
from keras_tickets.onnx.graph import (
    STANDARD_DOMAINS,
    constants,
    graphs,
    load,
    nodes,
    to_array,
    to_tensor,
)
from keras_tickets.onnx.scatter import (
    decode,
    store,
)


def tensors(content: bytes) -> list[FileTensor]:
    """Lists the constants of an `.onnx` file: initializers and `Constant` nodes.

    A tensor that operators put together from its gaps and entries (see `onnx_scatter`)
    is listed as one, under its own name.

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
    graph = load(content).graph
    stored, scattered = _stored(graph)
    return [_read(*entry) for entry in stored] + [_decode(t) for t in scattered]


def ops(content: bytes) -> dict[str, int]:
    """Counts the operators of an `.onnx` file, those of its subgraphs too.

    Args:
        content: The bytes of the file.

    Returns:
        Operator name -> how often; operators outside the standard set have the
        prefix `custom:`, as have names that the standard set does not define.
    """
    graph = load(content).graph
    return dict(collections.Counter(_op_name(node) for node in nodes(graph)))


def foreign(content: bytes) -> dict[str, str]:
    """The operators of an `.onnx` file that the standard does not define.

    Args:
        content: The bytes of the file.

    Returns:
        Operator -> the name of a node that is one; converters make it of the layer's.
    """
    return {
        node.op_type: node.name
        for node in nodes(load(content).graph)
        if _op_name(node).startswith("custom:")
    }


def rewrite(content: bytes, rewriter: Rewriter) -> bytes:
    """Rewrites an `.onnx` file tensor by tensor.

    Args:
        content: The bytes of the file.
        rewriter: Called with each constant tensor; returns new values of the same
            shape and dtype, or None. They are stored in the tensor's encoding; those
            of a scattered tensor with their zeros where that takes less.

    Returns:
        The bytes of the new file.

    Raises:
        ValueError: If the bytes are no `.onnx` file, or new values do not fit.
    """
    model = load(content)
    stored, _ = _stored(model.graph)
    for name, proto in stored:
        values = rewritten(_read(name, proto), rewriter)
        if values is not None:
            _write(name, proto, values)
    store(model, lambda tensor: rewritten(_decode(tensor), rewriter))
    return bytes(model.SerializeToString())


def name_outputs(content: bytes, names: dict[int, str]) -> bytes:
    """Gives the outputs of an `.onnx` file the names of the model's.

    Args:
        content: The bytes of the file.
        names: The names, by position in the model's order. Only outputs that the
            converter numbered (`output_0`, `Identity_1:0`) take one.

    Returns:
        The bytes of the new file.
    """
    model = load(content)
    graph = model.graph
    taken = {name for node in nodes(graph) for name in (*node.input, *node.output)}
    numbered = re.compile(r"(?:output|Identity)(?:_(\d+))?(?::0)?")
    new = {}
    for output in graph.output:
        if found := numbered.fullmatch(output.name):
            name = names.get(int(found[1] or 0))
            if name and name not in taken:
                new[output.name] = name
    for value in (*graph.output, *graph.value_info):
        value.name = new.get(value.name, value.name)
    for node in nodes(graph):
        for ends in (node.input, node.output):
            ends[:] = [new.get(name, name) for name in ends]
    return bytes(model.SerializeToString())


def dense_bytes(content: bytes) -> int:
    """The size of an `.onnx` file if each tensor were stored with its zeros."""
    decoded = decode(content)
    saved = sum(t.dense_bytes - t.stored_bytes for t in tensors(decoded))
    return len(decoded) + saved


def _stored(graph: Any) -> tuple[list[tuple[str, Any]], list[Scattered]]:
    """The constants that are tensors as they stand, and the scattered tensors."""
    scattered = [tensor for _, found in find(graph) for tensor in found]
    helpers = set[str]().union(*(tensor.helpers for tensor in scattered))
    inner = itertools.chain.from_iterable(map(constants, graphs(graph)))
    return [entry for entry in inner if entry[0] not in helpers], scattered


def _decode(tensor: Scattered) -> FileTensor:
    values = tensor.values()
    return FileTensor(
        tensor.name,
        values,
        "scatter",
        tensor.stored_bytes,
        itemsize=tensor.itemsize,
    )


def _is_sparse(proto: Any) -> bool:
    return hasattr(proto, "indices")


def _read(name: str, proto: Any) -> FileTensor:
    if not _is_sparse(proto):
        values = to_array(proto)
        return FileTensor(name, values, "dense", values.nbytes)
    stored, indices = to_array(proto.values), to_array(proto.indices)
    shape = tuple(proto.dims)
    check_claim(shape, stored.itemsize, stored.nbytes + indices.nbytes)
    values = np.zeros(shape, stored.dtype)
    # ONNX allows one linear index per value, or one row of coordinates.
    linear = indices if indices.ndim == 1 else np.ravel_multi_index(indices.T, shape)
    values.reshape(-1)[linear] = stored
    return FileTensor(name, values, "sparse", stored.nbytes + indices.nbytes)


def _write(name: str, proto: Any, values: Array) -> None:
    if not _is_sparse(proto):
        proto.CopyFrom(to_tensor(values, name))
        return
    linear = np.flatnonzero(values)
    proto.values.CopyFrom(to_tensor(values.reshape(-1)[linear], name))
    proto.indices.CopyFrom(to_tensor(linear.astype(np.int64), proto.indices.name))


def _op_name(node: Any) -> str:
    standard = node.domain in STANDARD_DOMAINS
    if standard and require("onnx.defs", "export").has(node.op_type):
        return str(node.op_type)
    return f"custom:{node.op_type}"
