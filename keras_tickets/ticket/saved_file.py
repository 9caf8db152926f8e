"""The ticket file: masks, start values and how the ticket was drawn, without pickle.

One `.npz`: each mask as `mask_<position>`, a bit for each weight; each start value as
`value_<index>`; what layers save besides weights as `state_<layer>_<number>` and their
files as `asset_<layer>_<number>`; `header`, which is JSON; and the `checksum` of it
all. What NumPy has no dtype for (bfloat16, float8) is stored as its bits.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import math
import os
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from keras_tickets._util.files import check_target, replace
from keras_tickets._util.version import __version__
from keras_tickets.backend.copying import SavedState
from keras_tickets.ticket.architecture import Weight, describe, digest, first_difference
from keras_tickets.ticket.parts import Parts, keys
from keras_tickets.ticket.ticket import Ticket
from keras_tickets.ticket.wrappable import check_wrappable

FORMAT = 1
SUFFIXES = {".npz": "a ticket, such as 'x.ticket.npz'"}


def save_ticket(
    ticket: Ticket, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a ticket: masks, start values and provenance.

    The values are those of `ticket.start`, if it holds any (see
    `keras_tickets.wrap(..., remember=True)`), else what the weights are now; the file
    says which. What layers save besides weights, such as a vocabulary, is in the file.
    The architecture is not: whoever loads it builds the model.

    Args:
        ticket: A ticket that was drawn.
        path: Where to write; ends in `.npz`.
        overwrite: Whether an existing file is replaced.

    Raises:
        ValueError: If the ticket was not drawn, or the suffix is another.
        OSError: If the file cannot be written. An old one is then left whole.

    Example:
    >>> import keras, tempfile, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.Magnitude(sparsity=0.75))
    >>> curve = ticket.draw()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ticket.save_ticket(f"{folder}/dense.ticket.npz")
    ...     again = kt.load_ticket(f"{folder}/dense.ticket.npz", model)
    >>> again.sparsity, again.provenance["pruner"]["class_name"]
    (0.75, 'Magnitude')
    """
    target = check_target(path, SUFFIXES, overwrite)
    if not ticket.drawn:
        raise ValueError(
            f"Ticket {ticket.name!r} was never drawn, so there are no masks to save. "
            "Call ticket.draw() or ticket.fit(...) first."
        )
    parts, weights = Parts.of(ticket), describe(ticket.model)
    header = {
        "format": FORMAT,
        "provenance": _provenance(ticket, parts, weights),
        "weights": [asdict(weight) for weight in weights],
        "kernels": list(parts.masks),
        "shapes": [mask.shape for mask in parts.masks.values()],
        "skipped": parts.skipped,
        "states": [_described(key, state) for key, state in parts.states.items()],
    }
    text = json.dumps(header, default=repr).encode()
    arrays: dict[str, Any] = {"header": np.frombuffer(text, np.uint8)}
    for position, mask in parts.masks.items():
        arrays[f"mask_{position}"] = np.packbits(mask)
    for index, value in enumerate(parts.values):
        arrays[f"value_{index}"] = _bits(value)
    for i, (key, state) in enumerate(parts.states.items()):
        for j, (name, value) in enumerate(state.values.items()):
            arrays[f"state_{i}_{j}"] = _bits(_without_pickle(key, name, value))
        for j, content in enumerate(state.assets.values()):
            arrays[f"asset_{i}_{j}"] = np.frombuffer(content, np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, checksum=_checksum(arrays), **arrays)
    replace(target, buffer.getvalue())


def load_ticket(path: str | os.PathLike[str], model: keras.Model) -> Ticket:
    """Read a ticket file into a model of the same architecture.

    Everything is checked before `model` changes. Layers may be called otherwise than in
    the model that was saved; weights must have the same order, shapes and dtypes, in
    layers of the same classes.

    Args:
        path: What `ticket.save_ticket` wrote.
        model: The built model; its weights become the start values.

    Returns:
        A ticket around `model` with the masks of the file and no pruner. Its
        `provenance` says how it was drawn: pruner and seed, versions, sparsity, time,
        and whether `values` are those of the `"start"` or of the time of saving
        (`"present"`).

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is damaged, of a newer format, or of another architecture.

    Example:

    ```python
    ticket = kt.load_ticket("x.ticket.npz", build_model())
    ticket.compile("adam", "sparse_categorical_crossentropy")
    ticket.fit(x, y, epochs=30)
    ```
    """
    check_wrappable(model)
    if isinstance(model, Ticket):
        raise ValueError(
            f"{model.name!r} is a ticket already. Load the file into the model that it "
            "wraps, kt.load_ticket(path, ticket.model), or into a fresh one."
        )
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no ticket file '{path}'. Expected one that "
            "ticket.save_ticket(path) wrote."
        )
    try:
        weights, parts, provenance = _read(file)
    except _NewerFormatError:
        raise
    except _DAMAGE as error:
        lacks = type(error) is KeyError
        why = f"{error.args[0]} is missing" if lacks else str(error)
        raise ValueError(
            f"'{path}' is damaged or no ticket file: {why}. Expected what "
            "ticket.save_ticket(path) wrote; copy or save it again. The model was not "
            "changed."
        ) from error
    _check_architecture(path, model, weights, provenance)
    _check_states(path, model, parts)
    ticket = parts.join(model)
    ticket.note_weights(again=True)
    ticket.provenance = provenance
    return ticket


def _provenance(ticket: Ticket, parts: Parts, weights: list[Weight]) -> dict[str, Any]:
    """Return how the ticket came about; a ticket from a file keeps its origin."""
    drawn = ticket.provenance or {}
    pruner = drawn.get("pruner")
    if ticket.pruner is not None:
        pruner = keras.saving.serialize_keras_object(ticket.pruner)
    remembered = parts.remembered and drawn.get("values", "start") == "start"
    count, backend = ticket.mask_set.count(), keras.backend.backend()
    return {
        "name": ticket.name,
        "model": ticket.model.name,
        "pruner": pruner,
        "values": "start" if remembered else "present",
        "trained": ticket.trained and not remembered,
        "sparsity": count.sparsity,
        "weights": count.total,
        "kept": count.kept,
        "architecture": digest(weights),
        "versions": {
            "keras_tickets": __version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            backend: getattr(sys.modules.get(backend), "__version__", "unknown"),
        },
        "backend": backend,
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


class _NewerFormatError(ValueError):
    """The file is whole, but this version does not know its format."""


_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
)
"""What reading raises where bytes are missing, changed, or of something else."""


def _read(file: pathlib.Path) -> tuple[list[Weight], Parts, dict[str, Any]]:
    """Return what is in a file: a description of the model, the parts, the origin."""
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["header"].tobytes())
    if header["format"] > FORMAT:
        raise _NewerFormatError(
            f"'{file}' has format {header['format']}; this version of keras_tickets "
            f"reads formats up to {FORMAT}. Upgrade: pip install -U keras-tickets. The "
            "model was not changed."
        )
    if str(arrays["checksum"]) != _checksum(arrays):
        raise ValueError("its checksum is wrong")
    weights = [
        Weight(**{**row, "shape": tuple(row["shape"])}) for row in header["weights"]
    ]
    return weights, _parts(header, arrays, weights), dict(header["provenance"])


def _check_architecture(
    path: str | os.PathLike[str],
    model: keras.Model,
    weights: list[Weight],
    provenance: Mapping[str, Any],
) -> None:
    found = describe(model)
    different = first_difference(weights, found)
    if different is None:
        return
    expected, here = different
    of_file = f"{expected} ({expected.path})" if expected else "no further weight"
    of_model = f"{here} ({here.path})" if here else "no further weight"
    raise ValueError(
        f"'{path}' is a ticket of another architecture ({provenance.get('model')!r}) "
        f"than {model.name!r}. The first weight that differs: expected {of_file}, "
        f"found {of_model}; {len(weights)} weights expected, {len(found)} found. Build "
        "the model as it was built for the ticket. The model was not changed."
    )


def _check_states(
    path: str | os.PathLike[str], model: keras.Model, parts: Parts
) -> None:
    missing = sorted(set(parts.states) - set(keys(model)))
    if missing:
        kind, _, number = missing[0].partition(":")
        raise ValueError(
            f"'{path}' holds what layer number {int(number) + 1} of class {kind} saves "
            f"besides its weights, and {model.name!r} has no such layer. Build the "
            "model as it was built for the ticket. The model was not changed."
        )


def _parts(
    header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], weights: list[Weight]
) -> Parts:
    masks = {}
    for position, shape in zip(header["kernels"], header["shapes"], strict=True):
        packed, size = arrays[f"mask_{position}"], math.prod(shape)
        if packed.size != math.ceil(size / 8):
            raise ValueError(f"mask_{position} has {packed.size} bytes")
        masks[position] = np.unpackbits(packed, count=size).astype(bool).reshape(shape)
    values = [
        _from_bits(arrays[f"value_{i}"], weight) for i, weight in enumerate(weights)
    ]
    skipped = tuple((position, reason) for position, reason in header["skipped"])
    # Files of version 0.1 hold no states.
    states = {
        row["layer"]: _state(i, row, arrays)
        for i, row in enumerate(header.get("states", []))
    }
    remembered = header["provenance"]["values"] == "start"
    return Parts(masks, values, skipped, remembered, states)


def _described(key: str, state: SavedState) -> dict[str, Any]:
    """Return the row of the header for what a layer saves besides weights."""
    values = [(name, str(value.dtype)) for name, value in state.values.items()]
    return {"layer": key, "values": values, "assets": list(state.assets)}


def _state(
    number: int, row: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> SavedState:
    values = {
        name: _viewed(arrays[f"state_{number}_{j}"], dtype)
        for j, (name, dtype) in enumerate(row["values"])
    }
    for path in row["assets"]:
        parts = pathlib.PureWindowsPath(path)  # knows the separators of all systems
        if parts.anchor or ".." in parts.parts:
            raise ValueError(f"{path!r} is no path inside a folder")
    assets = {
        path: arrays[f"asset_{number}_{j}"].tobytes()
        for j, path in enumerate(row["assets"])
    }
    return SavedState(values, assets)


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
    return value.view(f"u{value.dtype.itemsize}") if _foreign(value.dtype) else value


def _foreign(dtype: np.dtype) -> bool:
    """Return whether another package registered a dtype with NumPy."""
    return dtype.isbuiltin == 2


def _from_bits(stored: np.ndarray, weight: Weight) -> np.ndarray:
    value = _viewed(stored, weight.dtype)
    if value.shape != weight.shape or str(value.dtype) != weight.dtype:
        raise ValueError(f"the values of {weight.path} are {value.dtype} {value.shape}")
    return value


def _viewed(stored: np.ndarray, name: str) -> np.ndarray:
    """Return an array in its dtype, of which it holds the bits if NumPy has none."""
    try:
        dtype = np.dtype(name)
    except TypeError:
        import ml_dtypes  # Keras depends on it

        dtype = np.dtype(getattr(ml_dtypes, name))
    return stored.view(dtype) if _foreign(dtype) else stored


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all arrays but the checksum itself."""
    total = hashlib.sha256()
    for name in sorted(set(arrays) - {"checksum"}):
        array = arrays[name]
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
