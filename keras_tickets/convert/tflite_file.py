"""Reads and rewrites the constants of a `.tflite` file."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from keras_tickets.convert.tensor import Array, FileTensor, Rewriter, rewritten
from keras_tickets.convert.tflite_schema import op_name, pack, schema, unpack
from keras_tickets.convert.tflite_sparsity import Index, Levels, decode, encode

# TFLite's type names -> NumPy's. Types without a NumPy equivalent of whole bytes
# (strings, resources, 4-bit integers) are no weights we could count: left out.
_DTYPES: dict[str, Any] = {
    "FLOAT16": np.float16,
    "FLOAT32": np.float32,
    "FLOAT64": np.float64,
    "BFLOAT16": ml_dtypes.bfloat16,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
}

# The integers that a sparse index may be stored in, smallest first.
_INDEX_TYPES: dict[str, Any] = {
    "Uint8Vector": np.uint8,
    "Uint16Vector": np.uint16,
    "Int32Vector": np.int32,
}


def tensors(content: bytes) -> list[FileTensor]:
    """Lists the constants of a `.tflite` file, each stored buffer once.

    Args:
        content: The bytes of the file.

    Returns:
        The constant tensors, sparse ones decoded.

    Raises:
        ValueError: If the bytes are no `.tflite` file.
        ImportError: If `ai_edge_litert` is not installed.

    Example:

    ```python
    for tensor in tensors(pathlib.Path("model.tflite").read_bytes()):
        print(tensor.name, tensor.shape, tensor.nonzeros, tensor.encoding)
    ```
    """
    model = unpack(content)
    return [_read(tensor, buffer) for tensor, buffer in _constants(model)]


def ops(content: bytes) -> dict[str, int]:
    """Counts the operators of a `.tflite` file, those of all its subgraphs.

    Args:
        content: The bytes of the file.

    Returns:
        Operator name -> how often; operators outside TFLite's built-in set have
        the prefix `custom:` (TensorFlow's own are `custom:Flex...`).
    """
    model = unpack(content)
    names = [op_name(code) for code in model.operatorCodes]
    return dict(
        collections.Counter(
            names[operator.opcodeIndex]
            for graph in model.subgraphs
            for operator in graph.operators or []
        )
    )


def rewrite(content: bytes, rewriter: Rewriter) -> bytes:
    """Rewrites a `.tflite` file tensor by tensor.

    Args:
        content: The bytes of the file.
        rewriter: Called with each constant tensor; returns new values of the same
            shape and dtype, or None. They are stored in the tensor's encoding.

    Returns:
        The bytes of the new file.

    Raises:
        ValueError: If the bytes are no `.tflite` file, or new values do not fit.
    """
    model = unpack(content)
    for tensor, buffer in _constants(model):
        values = rewritten(_read(tensor, buffer), rewriter)
        if values is not None:
            _write(tensor, buffer, values)
    return pack(model, len(content))


def densify(content: bytes) -> bytes:
    """Stores each sparse tensor of a `.tflite` file with its zeros.

    The operators that unpack a sparse tensor (`DENSIFY`) go, and what read their
    output reads the tensor itself.

    Args:
        content: The bytes of the file.

    Returns:
        The bytes of a file that computes the same.

    Raises:
        ValueError: If the bytes are no `.tflite` file.
    """
    model = unpack(content)
    for tensor, buffer in _constants(model):
        if tensor.sparsity is not None:
            values = _read(tensor, buffer).values
            tensor.sparsity = None
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    for graph in model.subgraphs:
        _drop_unpacking(graph, model.operatorCodes)
    return pack(model, len(content))


def dense_bytes(content: bytes) -> int:
    """The size of a `.tflite` file if each tensor were stored with its zeros."""
    if all(tensor.encoding == "dense" for tensor in tensors(content)):
        return len(content)
    return len(densify(content))


def _drop_unpacking(graph: Any, codes: list[Any]) -> None:
    unpacking = [
        op for op in graph.operators if op_name(codes[op.opcodeIndex]) == "DENSIFY"
    ]
    source = {int(op.outputs[0]): int(op.inputs[0]) for op in unpacking}
    graph.operators = [op for op in graph.operators if op not in unpacking]
    for op in graph.operators:
        if op.inputs is not None:
            op.inputs = np.array([source.get(int(i), i) for i in op.inputs], np.int32)
    for index in source:
        # Taking a tensor out would renumber all others; a blank one costs nothing.
        graph.tensors[index] = schema().TensorT(name="", shape=[])


def _constants(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yields (tensor, buffer) of each constant, once if tensors share a buffer."""
    readable = _readable_types()
    seen: set[int] = set()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            buffer = model.buffers[tensor.buffer]
            if buffer.offset > 1:
                raise ValueError(
                    "This .tflite file keeps its weights outside the flatbuffer (it "
                    "is larger than 2 GB); such files cannot be read here."
                )
            empty = buffer.data is None or len(buffer.data) == 0
            # A sparse tensor that is zero throughout stores no value at all.
            variable = empty and tensor.sparsity is None
            known = not empty and tensor.buffer in seen
            if variable or known or tensor.type not in readable:
                continue
            seen.add(tensor.buffer)
            yield tensor, buffer


def _readable_types() -> dict[int, Any]:
    types = vars(schema().TensorType)
    return {types[name]: dtype for name, dtype in _DTYPES.items() if name in types}


def _read(tensor: Any, buffer: Any) -> FileTensor:
    data = np.asarray([] if buffer.data is None else buffer.data, np.uint8)
    values = data.view(_readable_types()[tensor.type])
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    stored = data.nbytes
    if tensor.sparsity is None:
        values = values.reshape(shape)
    else:
        levels, indices = _sparsity(tensor, shape)
        stored += sum(part.nbytes for index in indices if index for part in index)
        values = decode(levels, indices, values)
    encoding = "dense" if tensor.sparsity is None else "sparse"
    name = (tensor.name or b"").decode("utf-8", "replace")
    return FileTensor(name, values, encoding, stored)


def _write(tensor: Any, buffer: Any, values: Array) -> None:
    if tensor.sparsity is not None:
        levels, _ = _sparsity(tensor, values.shape)
        indices, values = encode(levels, values)
        for metadata, index in zip(tensor.sparsity.dimMetadata, indices, strict=True):
            if index is not None:
                _write_index(metadata, index)
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)


def _sparsity(tensor: Any, shape: tuple[int, ...]) -> tuple[Levels, list[Index | None]]:
    """The layout of a sparse tensor and the index of each of its levels."""
    compressed = schema().DimensionType.SPARSE_CSR
    sparsity = tensor.sparsity
    metadata = sparsity.dimMetadata
    order = tuple(int(axis) for axis in sparsity.traversalOrder)
    level_of = {axis: level for level, axis in enumerate(order)}
    blocks = () if sparsity.blockMap is None else tuple(map(int, sparsity.blockMap))
    levels = Levels(
        shape=shape,
        order=order,
        block_map=blocks,
        block_sizes=tuple(
            int(metadata[level_of[len(shape) + i]].denseSize)
            for i in range(len(blocks))
        ),
        compressed=tuple(level.format == compressed for level in metadata),
    )
    indices: list[Index | None] = [
        (np.asarray(level.arraySegments.values), np.asarray(level.arrayIndices.values))
        if level.format == compressed
        else None
        for level in metadata
    ]
    return levels, indices


def _write_index(metadata: Any, index: Index) -> None:
    """Stores a CSR level in the smallest integers, as TFLite's converter does."""
    segments, indices = index
    metadata.arraySegmentsType, metadata.arraySegments = _index_vector(segments)
    metadata.arrayIndicesType, metadata.arrayIndices = _index_vector(indices)


def _index_vector(values: Array) -> tuple[int, Any]:
    classes = schema()
    largest = int(values.max(initial=0))
    name, dtype = next(
        (name, dtype)
        for name, dtype in _INDEX_TYPES.items()
        if largest <= np.iinfo(dtype).max
    )
    vector = getattr(classes, f"{name}T")()
    vector.values = values.astype(dtype)
    return getattr(classes.SparseIndexVector, name), vector
