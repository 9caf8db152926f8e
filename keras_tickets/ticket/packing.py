"""A ticket's parts as the arrays of its file, and back.

Each mask is `mask_<position>`, a bit for each weight; each start value `value_<index>`;
what layers save besides weights `state_<layer>_<number>`, and their files
`asset_<layer>_<number>`. What NumPy has no dtype for (bfloat16, float8) is stored as
its bits.
"""

from __future__ import annotations

import io
import math
from typing import Any

import keras
import numpy as np

from keras_tickets.backend.copying import SavedState
from keras_tickets.kernels import find_kernels
from keras_tickets.ticket.archive import Archive, checksum, is_compact
from keras_tickets.ticket.header import Header, StateRow, longest_header
from keras_tickets.ticket.parts import Parts


def packed(header: Header, parts: Parts) -> bytes:
    """Return the content of a file.

    Raises:
        ValueError: If a layer saves what such a file cannot hold, or the pruner's
            config is larger than the header may be.
    """
    text = header.to_json()
    most = longest_header(len(header.weights))
    if len(text) > most:
        raise ValueError(
            f"The header of the ticket file would have {len(text):,} bytes, more than "
            f"the {most:,} that are read back; most of it is the config of the pruner. "
            "Give the pruner fewer or shorter arguments."
        )
    arrays: dict[str, Any] = {"header": np.frombuffer(text, np.uint8)}
    for position, mask in parts.masks.items():
        arrays[f"mask_{position}"] = np.packbits(mask)
    for i, value in enumerate(parts.values):
        arrays[f"value_{i}"] = _bits(value)
    states = _states(parts)
    arrays.update(states)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, checksum=checksum(arrays), **arrays)
    if not is_compact(states, buffer.tell()):
        buffer = io.BytesIO()
        np.savez(buffer, checksum=checksum(arrays), **arrays)
    return buffer.getvalue()


def unpacked(archive: Archive, header: Header, model: keras.Model) -> Parts:
    """Return the parts that a file holds for `model`, whose architecture is its own.

    Raises:
        ValueError: If they are not all there, or others than the header says.
    """
    header.check_kernels(find_kernels(model))
    sizes = header.mask_sizes()
    values = {f"value_{i}": weight for i, weight in enumerate(header.weights)}
    states = [name for row in _names(header.states) for name in row]
    archive.check_names(["header", "checksum", *sizes, *values, *states])
    arrays = {"header": archive.read_any("header", longest_header(len(values)))}
    for name, size in sizes.items():
        arrays[name] = archive.read(name, np.dtype(np.uint8), (size,))
    for name, weight in values.items():
        stored = _stored(dtype_of(weight.dtype))
        arrays[name] = archive.read(name, stored, weight.shape)
    arrays.update((name, archive.read_any(name)) for name in states)
    told = archive.read_any("checksum", 1024)
    if told.shape != () or str(told) != checksum(arrays):
        raise ValueError("its checksum is wrong")
    masks = {
        position: _unpacked(arrays[f"mask_{position}"], shape)
        for position, shape in zip(header.kernels, header.shapes, strict=True)
    }
    found = [
        arrays[name].view(dtype_of(weight.dtype)) for name, weight in values.items()
    ]
    remembered = header.provenance["values"] == "start"
    saved = {
        row.layer: _state(row, names, arrays)
        for row, names in zip(header.states, _names(header.states), strict=True)
    }
    return Parts(masks, found, header.skipped, remembered, saved)


def dtype_of(name: str) -> np.dtype:
    """Return the dtype of a name; of those that NumPy lacks, too.

    Raises:
        ValueError: If nothing is called so.
    """
    import ml_dtypes  # Keras depends on it

    known = getattr(ml_dtypes, name, None)
    if isinstance(known, type) and issubclass(known, np.generic):
        return np.dtype(known)
    try:
        return np.dtype(name)
    except (TypeError, SyntaxError) as error:
        raise ValueError(f"{name[:80]!r} is no dtype") from error


def _states(parts: Parts) -> dict[str, np.ndarray]:
    arrays = {}
    for i, (key, state) in enumerate(parts.states.items()):
        for j, (name, value) in enumerate(state.values.items()):
            arrays[f"state_{i}_{j}"] = _bits(_without_pickle(key, name, value))
        for j, content in enumerate(state.assets.values()):
            arrays[f"asset_{i}_{j}"] = np.frombuffer(content, np.uint8)
    return arrays


def _names(rows: tuple[StateRow, ...]) -> list[list[str]]:
    """Return the names of the arrays of each row: values, then files."""
    return [
        [f"state_{i}_{j}" for j in range(len(row.values))]
        + [f"asset_{i}_{j}" for j in range(len(row.assets))]
        for i, row in enumerate(rows)
    ]


def _state(
    row: StateRow, names: list[str], arrays: dict[str, np.ndarray]
) -> SavedState:
    stored = [arrays[name] for name in names]
    values = {
        name: _viewed(array, name, dtype)
        for (name, dtype), array in zip(row.values, stored, strict=False)
    }
    files = stored[len(values) :]
    if any(file.dtype != np.uint8 for file in files):
        raise ValueError(f"a file of {row.layer} is none of bytes")
    contents = (file.tobytes() for file in files)
    return SavedState(values, dict(zip(row.assets, contents, strict=True)))


def _viewed(array: np.ndarray, name: str, dtype: str) -> np.ndarray:
    wanted = dtype_of(dtype)
    if array.dtype != _stored(wanted):
        raise ValueError(f"{name!r} is {array.dtype}, not {wanted}")
    return array.view(wanted)


def _without_pickle(key: str, name: str, value: np.ndarray) -> np.ndarray:
    if value.dtype.hasobject:
        raise ValueError(
            f"A layer of class {key.partition(':')[0]} saves {name!r} as Python "
            f"objects ({value!r}), which a ticket file cannot hold. Expected that "
            "save_own_variables() stores arrays of numbers or text."
        )
    return value


def _bits(value: np.ndarray) -> np.ndarray:
    """Return `value` in a dtype of NumPy's own."""
    return value.view(_stored(value.dtype))


def _stored(dtype: np.dtype) -> np.dtype:
    """Return the dtype that an array is stored in: bits if a package registered its."""
    return np.dtype(f"u{dtype.itemsize}") if dtype.isbuiltin == 2 else dtype


def _unpacked(packed_mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    size = math.prod(shape)
    return np.unpackbits(packed_mask, count=size).astype(bool).reshape(shape)
