"""Stores the constants of a `.tflite` file without their zeros, or with them again.

TFLite's converter does this for every tensor of more than some 30 % zeros. Here each
tensor is decided by itself: stored without zeros where that makes the file smaller, and
only in ways that the runtime was seen to load and to compute rightly.

A sparse constant is unpacked by a `DENSIFY` operator when the file is loaded; the
sparse kernel of `FULLY_CONNECTED` takes blocks along the input axis as they are.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_tickets._util.file_tensor import (
    Array,
    FileTensor,
)
from keras_tickets.tflite.schema import (
    op_name,
    operator_code,
    pack,
    schema,
    unpack,
)
from keras_tickets.tflite.sparsity import (
    Index,
    Levels,
    encode,
)
from keras_tickets.tflite.tensor import (
    constants,
    index_bytes,
    make_dense,
    make_sparse,
    name_of,
    read,
)
from keras_tickets.xnnpack.explicit_padding import pad_explicitly
from keras_tickets.xnnpack.partition import SPARSE_DENSE
from keras_tickets.xnnpack.prediction import why_dense
from keras_tickets.xnnpack.support import (
    DENSE_BLOCKS,
    READERS,
    refusal,
)

# Bytes of a DENSIFY operator, of the tensor it writes and of the sparsity's own tables;
# measured on files, names apart.
_OVERHEAD = 250

# Blocks are for tickets of blocks: below this fraction of non-zero values, the kernel
# that reads them is slower than the dense one.
_FILLED = 0.75


@dataclasses.dataclass(frozen=True)
class Barred:
    """A constant that is stored with its zeros though it would be smaller without.

    Args:
        name: The tensor's name.
        reason: Why.
    """

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class _Way:
    """One way to store a constant: its layout, and whether DENSIFY unpacks it."""

    levels: Levels
    unpacked: bool


def sparsify(content: bytes, precision: str) -> tuple[bytes, list[Barred]]:
    """Stores constants without their zeros where that makes the file smaller.

    Args:
        content: The bytes of a dense `.tflite` file.
        precision: The name of its precision.

    Returns:
        The bytes of a file that computes the same, and what had to stay as it was.

    Raises:
        ValueError: If the bytes are no `.tflite` file.
    """
    content = pad_explicitly(content)
    model, barred = _encoded(content, precision, reason="")
    if reason := why_dense(model):
        model, barred = _encoded(content, precision, reason)
    return pack(model, len(content)), barred


def _encoded(content: bytes, precision: str, reason: str) -> tuple[Any, list[Barred]]:
    """A file without zeros; with those that DENSIFY would add, if there is a reason."""
    model = unpack(content)
    readers = _readers(model)
    barred = []
    for tensors, buffer in list(constants(model)):
        constant = read(tensors[0], buffer)
        if tensors[0].sparsity is not None or not constant.is_weight:
            continue
        reading = [reader for tensor in tensors for reader in readers[id(tensor)]]
        ways, why = _ways(constant, reading, precision)
        if reason and any(way.unpacked for way in ways):
            ways, why = [way for way in ways if not way.unpacked], reason
        stored = _smallest(constant, ways)
        if stored is not None:
            way, indices, values = stored
            make_sparse(tensors, buffer, way.levels, indices, values)
            if way.unpacked:
                _unpack_first(model, {id(tensor) for tensor in tensors})
            else:
                _mark_readers(model, {id(tensor) for tensor in tensors})
        elif why and _smallest(constant, [_rows(constant)]) is not None:
            barred.append(Barred(constant.name, why))
    return model, barred


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
    for tensors, buffer in constants(model):
        if tensors[0].sparsity is not None:
            make_dense(tensors, buffer)
    for graph in model.subgraphs:
        _drop_unpacking(graph, model.operatorCodes)
    return pack(model, len(content))


# Which operator reads a tensor: its name, and at which input.
Reader = tuple[str, int]


def _readers(model: Any) -> dict[int, list[Reader]]:
    """What reads each tensor, by the tensor's `id`.

    A float16 constant is read by a DEQUANTIZE: what counts is who reads that one.
    """
    names = [op_name(code) for code in model.operatorCodes]
    found: dict[int, list[Reader]] = collections.defaultdict(list)
    for graph in model.subgraphs:
        direct: dict[int, list[tuple[Any, Reader]]] = collections.defaultdict(list)
        for op in graph.operators or []:
            for position, index in enumerate(_indices(op.inputs)):
                direct[index].append((op, (names[op.opcodeIndex], position)))
        for index in _indices(graph.outputs):
            direct[index].append((None, ("an output of the graph", 0)))
        for index, tensor in enumerate(graph.tensors):
            for op, reader in direct[index]:
                if reader[0] == "DEQUANTIZE":
                    behind = direct[int(op.outputs[0])]
                    found[id(tensor)] += [through for _, through in behind]
                else:
                    found[id(tensor)].append(reader)
    return found


def _indices(vector: Any) -> Iterator[int]:
    return (int(index) for index in ([] if vector is None else vector))


def _ways(
    constant: FileTensor, readers: list[Reader], precision: str
) -> tuple[list[_Way], str]:
    """How a constant may be stored without zeros; if not at all, why."""
    if not readers:
        return [], "nothing reads it"
    ways, reason = [], ""
    for way in (_rows(constant), *_blocks(constant, readers)):
        found = {
            refusal(
                name if READERS.get(name) == at else f"input {at} of {name}",
                constant.dtype,
                whole=precision == "int8",
                in_blocks=not way.unpacked,
            )
            for name, at in readers
        }
        if found == {""}:
            ways.append(way)
        reason = reason or max(found)
    return ways, reason


def _rows(constant: FileTensor) -> _Way:
    """The last axis is a list of what is not zero, all others are dense."""
    rank = len(constant.shape)
    compressed = (*[False] * (rank - 1), True)
    levels = Levels(constant.shape, tuple(range(rank)), (), (), compressed)
    return _Way(levels, unpacked=True)


def _blocks(constant: FileTensor, readers: list[Reader]) -> list[_Way]:
    """Blocks along the inputs, for the sparse kernel that reads them as they are."""
    size = DENSE_BLOCKS.get(constant.dtype)
    dense_layers = {name for name, _ in readers} == {"FULLY_CONNECTED"}
    fits = size and len(constant.shape) == 2 and constant.shape[1] % size == 0
    if not size or not dense_layers or not fits:
        return []
    levels = Levels(constant.shape, (0, 1, 2), (1,), (size,), (False, True, False))
    return [_Way(levels, unpacked=False)]


def _smallest(
    constant: FileTensor, ways: list[_Way]
) -> tuple[_Way, list[Index | None], Array] | None:
    """The way that takes the least bytes; None if that is the dense one."""
    best, least = None, constant.dense_bytes
    for way in ways:
        indices, values = encode(way.levels, constant.values)
        if constant.nonzeros < _FILLED * values.size:
            continue
        size = values.nbytes + index_bytes(indices) + _OVERHEAD
        size += len(constant.name) if way.unpacked else 0
        if size < least:
            best, least = (way, indices, values), size
    return best


def _unpack_first(model: Any, sparse: set[int]) -> None:
    """Puts a DENSIFY between a sparse constant and all that reads it."""
    for graph in model.subgraphs:
        for index, tensor in enumerate(list(graph.tensors)):
            if id(tensor) in sparse:
                _insert_unpacking(model, graph, index)


def _insert_unpacking(model: Any, graph: Any, source: int) -> None:
    classes = schema()
    tensor = graph.tensors[source]
    dense = classes.TensorT()
    dense.name = f"{name_of(tensor)}/dense"
    dense.shape, dense.type = tensor.shape, tensor.type
    dense.quantization, dense.hasRank = tensor.quantization, tensor.hasRank
    graph.tensors.append(dense)
    target = len(graph.tensors) - 1
    readers = [op for op in graph.operators if source in _indices(op.inputs)]
    if not readers:
        return
    for op in readers:
        op.inputs = np.where(np.asarray(op.inputs) == source, target, op.inputs)
    unpacking = classes.OperatorT()
    unpacking.opcodeIndex = operator_code(model, "DENSIFY", version=1)
    unpacking.inputs = np.array([source], np.int32)
    unpacking.outputs = np.array([target], np.int32)
    unpacking.builtinOptionsType = classes.BuiltinOptions.DensifyOptions
    unpacking.builtinOptions = classes.DensifyOptionsT()
    first = next(i for i, op in enumerate(graph.operators) if op is readers[0])
    graph.operators.insert(first, unpacking)


def _mark_readers(model: Any, sparse: set[int]) -> None:
    """Tells the runtime that a FULLY_CONNECTED reads sparse weights.

    By its version: XNNPACK leaves exactly this one alone, and would read the stored
    values of any other as dense weights, beyond their end.
    """
    code = operator_code(model, "FULLY_CONNECTED", SPARSE_DENSE)
    for graph in model.subgraphs:
        for op in graph.operators:
            if any(
                id(graph.tensors[i]) in sparse for i in _indices(op.inputs) if i >= 0
            ):
                op.opcodeIndex = code


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
