"""Stores the constants of a `.tflite` file without their zeros, where that is safe.

TFLite's converter does this for every tensor of more than some 30 % zeros. Here each
tensor is decided by itself: stored without zeros where that makes the file smaller, and
only in encodings that the runtime was seen to load and to compute rightly.

A sparse constant is unpacked by a `DENSIFY` operator when the file is loaded; the
sparse kernel of `FULLY_CONNECTED` takes blocks along the input axis as they are.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

from keras_tickets._util.file_tensor import Array, FileTensor
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.schema import op_name, operator_code
from keras_tickets.tflite.sparsity import Index, Levels, encode
from keras_tickets.tflite.tensor import constants, index_bytes, make_sparse, read
from keras_tickets.tflite.unpacking import unpack_first
from keras_tickets.xnnpack.explicit_padding import pad_explicitly
from keras_tickets.xnnpack.partition import SPARSE_DENSE
from keras_tickets.xnnpack.prediction import why_dense
from keras_tickets.xnnpack.support import DENSE_BLOCKS, READERS, refusal

# Bytes of a DENSIFY operator, of the tensor it writes and of the sparsity's own tables;
# measured on files, names apart.
_OVERHEAD = 250

# Blocks are for tickets of blocks: below this fraction of non-zero values, the kernel
# that reads them is slower than the dense one.
_FILLED = 0.75


@dataclasses.dataclass(frozen=True)
class KeptDense:
    """A constant that is stored with its zeros though it would be smaller without.

    Args:
        name: The tensor's name.
        reason: Why.
    """

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Encoding:
    """One way to store a constant without its zeros.

    Args:
        levels: The layout of what is stored.
        unpacked: Whether DENSIFY unpacks it when the file is loaded.
    """

    levels: Levels
    unpacked: bool


def sparsify(file: TfliteFile, precision: str) -> tuple[TfliteFile, list[KeptDense]]:
    """Store constants without their zeros where that makes a file smaller.

    Args:
        file: A `.tflite` file; it is not changed.
        precision: The name of its precision.

    Returns:
        A file that computes the same, and what had to stay as it was.
    """
    file = pad_explicitly(file)
    encoded, kept = _encoded(file, precision, reason="")
    if reason := why_dense(encoded):
        encoded, kept = _encoded(file, precision, reason)
    return encoded, kept


def _encoded(
    file: TfliteFile, precision: str, reason: str
) -> tuple[TfliteFile, list[KeptDense]]:
    """Encode a copy; what DENSIFY would unpack stays dense if there is a reason."""
    encoded = file.copy()
    model = encoded.model
    readers = _readers(model)
    kept = []
    for tensors, buffer in list(constants(model)):
        constant = read(tensors[0], buffer)
        if tensors[0].sparsity is not None or not constant.is_weight:
            continue
        reading = [reader for tensor in tensors for reader in readers[id(tensor)]]
        choices, why = safe_encodings(constant, reading, precision)
        if reason and any(choice.unpacked for choice in choices):
            choices, why = [c for c in choices if not c.unpacked], reason
        stored = _smallest(constant, choices)
        if stored is not None:
            encoding, indices, values = stored
            make_sparse(tensors, buffer, encoding.levels, indices, values)
            if encoding.unpacked:
                unpack_first(model, {id(tensor) for tensor in tensors})
            else:
                mark_readers(model, {id(tensor) for tensor in tensors})
        elif why and _smallest(constant, [row_encoding(constant)]) is not None:
            kept.append(KeptDense(constant.name, why))
    return encoded, kept


# Which operator reads a tensor: its name, and at which input.
Reader = tuple[str, int]


def _readers(model: Any) -> dict[int, list[Reader]]:
    """Return what reads each tensor, by the tensor's `id`.

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


def safe_encodings(
    constant: FileTensor, readers: list[Reader], precision: str
) -> tuple[list[Encoding], str]:
    """Find how a constant may be stored without its zeros.

    Args:
        constant: The constant.
        readers: Which operators read it.
        precision: The name of the file's precision.

    Returns:
        The encodings that the runtime computes rightly with; if there are none, why.
    """
    if not readers:
        return [], "nothing reads it"
    safe, reason = [], ""
    for encoding in (row_encoding(constant), *block_encodings(constant, readers)):
        found = {
            refusal(
                name if READERS.get(name) == at else f"input {at} of {name}",
                constant.dtype,
                integers=precision == "int8",
                in_blocks=not encoding.unpacked,
            )
            for name, at in readers
        }
        if found == {""}:
            safe.append(encoding)
        reason = reason or max(found)
    return safe, reason


def row_encoding(constant: FileTensor) -> Encoding:
    """Return the encoding that lists what is not zero along the last axis."""
    rank = len(constant.shape)
    compressed = (*[False] * (rank - 1), True)
    levels = Levels(constant.shape, tuple(range(rank)), (), (), compressed)
    return Encoding(levels, unpacked=True)


def block_encodings(constant: FileTensor, readers: list[Reader]) -> list[Encoding]:
    """Return the blocks along the inputs that a sparse kernel reads, if one does."""
    size = DENSE_BLOCKS.get(constant.dtype)
    dense_layers = {name for name, _ in readers} == {"FULLY_CONNECTED"}
    fits = size and len(constant.shape) == 2 and constant.shape[1] % size == 0
    if not size or not dense_layers or not fits:
        return []
    levels = Levels(constant.shape, (0, 1, 2), (1,), (size,), (False, True, False))
    return [Encoding(levels, unpacked=False)]


def _smallest(
    constant: FileTensor, choices: list[Encoding]
) -> tuple[Encoding, list[Index | None], Array] | None:
    """Return what takes the least bytes; None if that is the dense tensor."""
    best, least = None, constant.dense_bytes
    for encoding in choices:
        indices, values = encode(encoding.levels, constant.values)
        if constant.nonzeros < _FILLED * values.size:
            continue
        size = values.nbytes + index_bytes(indices) + _OVERHEAD
        size += len(constant.name) if encoding.unpacked else 0
        if size < least:
            best, least = (encoding, indices, values), size
    return best


def mark_readers(model: Any, sparse: set[int]) -> None:
    """Tell the runtime that a FULLY_CONNECTED reads sparse weights.

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
