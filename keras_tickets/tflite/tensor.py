"""One constant of an unpacked `.tflite` file: found, read, written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from keras_tickets._util.file_tensor import Array, FileTensor
from keras_tickets.tflite.schema import schema
from keras_tickets.tflite.sparsity import Index, Levels, decode, encode

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


def constants(model: Any) -> Iterator[tuple[list[Any], Any]]:
    """Yield (tensors, buffer) of each constant; equal constants share one buffer."""
    readable = _readable_types()
    holders: dict[int, list[Any]] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            buffer = model.buffers[tensor.buffer]
            if buffer.offset > 1:
                raise ValueError(
                    "This .tflite file keeps its weights outside the flatbuffer (it "
                    "is larger than 2 GB); such files cannot be read here."
                )
            empty = buffer.data is None or len(buffer.data) == 0
            # A sparse tensor that is zero throughout stores no value at all, and many
            # tensors of no value share the buffer 0.
            if tensor.type not in readable or (empty and tensor.sparsity is None):
                continue
            key = -len(holders) - 1 if empty else tensor.buffer
            holders.setdefault(key, []).append(tensor)
    for tensors in holders.values():
        yield tensors, model.buffers[tensors[0].buffer]


def _readable_types() -> dict[int, Any]:
    types = vars(schema().TensorType)
    return {types[name]: dtype for name, dtype in _DTYPES.items() if name in types}


def read(tensor: Any, buffer: Any) -> FileTensor:
    """Return a constant with its values decoded."""
    data = np.asarray([] if buffer.data is None else buffer.data, np.uint8)
    values = data.view(_readable_types()[tensor.type])
    shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
    stored, encoding = data.nbytes, "dense"
    if tensor.sparsity is None:
        values = values.reshape(shape)
    else:
        levels, indices = _sparsity(tensor, shape)
        stored += index_bytes(indices)
        values = decode(levels, indices, values)
        encoding = levels.name
    zero, quantized = _zero_point(tensor)
    return FileTensor(
        name_of(tensor), values, encoding, stored, zero=zero, quantized=quantized
    )


def name_of(tensor: Any) -> str:
    """Return the name of a tensor as text."""
    name = tensor.name or b""
    # Bytes in what was read, text in what was added since.
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _zero_point(tensor: Any) -> tuple[int, bool]:
    """Return the stored number that stands for zero, and whether it is quantized."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None:
        return 0, False
    points = np.asarray(
        [] if quantization.zeroPoint is None else quantization.zeroPoint
    )
    # Channels may have zero points of their own; those of weights are all 0.
    return int(points[0]) if points.size else 0, True


def write(tensors: list[Any], buffer: Any, values: Array) -> None:
    """Store new values of a constant in its encoding."""
    if tensors[0].sparsity is None:
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        return
    levels, _ = _sparsity(tensors[0], values.shape)
    make_sparse(tensors, buffer, levels, *encode(levels, values))


def make_dense(tensors: list[Any], buffer: Any) -> None:
    """Store a sparse constant with its zeros."""
    values = read(tensors[0], buffer).values
    for tensor in tensors:
        tensor.sparsity = None
    write(tensors, buffer, values)


def make_sparse(
    tensors: list[Any],
    buffer: Any,
    levels: Levels,
    indices: list[Index | None],
    values: Array,
) -> None:
    """Store a constant in a layout.

    Args:
        tensors: The tensors that share it.
        buffer: Their buffer.
        levels: The layout.
        indices: The first of what `encode` returned.
        values: The second.
    """
    for tensor in tensors:
        tensor.sparsity = _layout(levels, indices)
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)


def _layout(levels: Levels, indices: list[Index | None]) -> Any:
    classes = schema()
    sparsity = classes.SparsityParametersT()
    sparsity.traversalOrder = np.array(levels.order, np.int32)
    if levels.block_map:
        sparsity.blockMap = np.array(levels.block_map, np.int32)
    sparsity.dimMetadata = []
    for extent, index in zip(levels.extents, indices, strict=True):
        metadata = classes.DimensionMetadataT()
        if index is None:
            metadata.format = classes.DimensionType.DENSE
            metadata.denseSize = extent
        else:
            metadata.format = classes.DimensionType.SPARSE_CSR
            _write_index(metadata, index)
        sparsity.dimMetadata.append(metadata)
    return sparsity


def _sparsity(tensor: Any, shape: tuple[int, ...]) -> tuple[Levels, list[Index | None]]:
    """Return the layout of a sparse tensor and the index of each of its levels."""
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
    for level, extent, index in zip(metadata, levels.extents, indices, strict=True):
        if index is None and level.denseSize != extent:
            raise ValueError(
                f"A sparse tensor of shape {shape} has a dimension of {extent} that is "
                f"stored as one of {level.denseSize}."
            )
    return levels, indices


def index_bytes(indices: list[Index | None]) -> int:
    """Return the bytes that an index takes in the smallest integers that hold it."""
    return sum(
        part.size * _index_type(part)[1]().itemsize
        for index in indices
        if index
        for part in index
    )


def _write_index(metadata: Any, index: Index) -> None:
    """Store a CSR level in the smallest integers, as TFLite's converter does."""
    segments, indices = index
    metadata.arraySegmentsType, metadata.arraySegments = _index_vector(segments)
    metadata.arrayIndicesType, metadata.arrayIndices = _index_vector(indices)


def _index_vector(values: Array) -> tuple[int, Any]:
    classes = schema()
    name, dtype = _index_type(values)
    vector = getattr(classes, f"{name}T")()
    vector.values = values.astype(dtype)
    return getattr(classes.SparseIndexVector, name), vector


def _index_type(values: Array) -> tuple[str, Any]:
    largest = int(values.max(initial=0))
    return next(
        (name, dtype)
        for name, dtype in _INDEX_TYPES.items()
        if largest <= np.iinfo(dtype).max
    )
