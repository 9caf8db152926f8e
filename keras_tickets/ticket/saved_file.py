"""The ticket file: masks, start values and how the ticket was drawn, without pickle.

One `.npz`: the arrays of `packing`; `header`, which is JSON; and the `checksum` of it
all. It may come from anywhere: all is checked, within bounds that follow from the
model, before the model changes.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_tickets._util.files import check_target, replace
from keras_tickets._util.version import __version__
from keras_tickets.backend.copying import SavedState, saved_state
from keras_tickets.ticket.architecture import Weight, describe, digest, first_difference
from keras_tickets.ticket.archive import Archive
from keras_tickets.ticket.header import (
    FORMAT,
    Header,
    NewerFormatError,
    StateRow,
    longest_header,
    parse_header,
)
from keras_tickets.ticket.packing import packed, unpacked
from keras_tickets.ticket.parts import Parts, keys, weights_of
from keras_tickets.ticket.ticket import Ticket
from keras_tickets.ticket.wrappable import check_wrappable

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
    header = Header(
        weights=tuple(weights),
        kernels=tuple(parts.masks),
        shapes=tuple(mask.shape for mask in parts.masks.values()),
        skipped=parts.skipped,
        states=tuple(_row(key, state) for key, state in parts.states.items()),
        provenance=_provenance(ticket, parts, weights),
    )
    replace(target, packed(header, parts))


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
    with _damage_named(path), file.open("rb") as stream:
        archive = Archive(stream)
        header = _header(archive, model)
        _check_architecture(path, model, header)
        _check_states(path, model, header)
        parts = unpacked(archive, header, model)
    ticket = parts.join(model, source=f"'{path}'")
    ticket.note_weights(again=True)
    ticket.provenance = dict(header.provenance)
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


class _RefusedError(ValueError):
    """The file is whole, but the model or this version cannot take it."""


@contextlib.contextmanager
def _damage_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say of whatever is raised in the block that the file is damaged.

    Bytes that are missing, changed or of something else raise anything.
    """
    try:
        yield
    except NewerFormatError as newer:
        raise ValueError(
            f"'{path}' has format {newer}; this version of keras_tickets reads formats "
            f"up to {FORMAT}. Upgrade: pip install -U keras-tickets. The model was not "
            "changed."
        ) from newer
    except (_RefusedError, PermissionError):
        raise
    except Exception as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        why = " ".join(str(error).split())[:300]
        raise ValueError(
            f"'{path}' is damaged or no ticket file: {kind}{why}. Expected what "
            "ticket.save_ticket(path) wrote; copy or save it again. The model was not "
            "changed."
        ) from error


def _header(archive: Archive, model: keras.Model) -> Header:
    most = longest_header(len(weights_of(model)))
    content = archive.read_any("header", most)
    if content.dtype != np.uint8:
        raise ValueError(f"its header is {content.dtype}")
    return parse_header(content.tobytes())


def _check_architecture(
    path: str | os.PathLike[str],
    model: keras.Model,
    header: Header,
) -> None:
    weights, found = header.weights, describe(model)
    different = first_difference(weights, found)
    if different is None:
        return
    expected, here = different
    of_file = f"{expected} ({expected.path})" if expected else "no further weight"
    of_model = f"{here} ({here.path})" if here else "no further weight"
    origin = str(header.provenance.get("model"))[:80]
    raise _RefusedError(
        f"'{path}' is a ticket of another architecture ({origin!r}) "
        f"than {model.name!r}. The first weight that differs: expected {of_file}, "
        f"found {of_model}; {len(weights)} weights expected, {len(found)} found. Build "
        "the model as it was built for the ticket. The model was not changed."
    )


def _check_states(
    path: str | os.PathLike[str], model: keras.Model, header: Header
) -> None:
    layers = keys(model)
    for row in header.states:
        kind, _, number = row.layer.partition(":")
        if not number.isdecimal() or len(number) > 9:
            raise ValueError(f"{row.layer[:80]!r} is no class and number of a layer")
        if row.layer in layers and saved_state(layers[row.layer]) is not None:
            continue
        raise _RefusedError(
            f"'{path}' holds what layer number {int(number) + 1} of class {kind} saves "
            f"besides its weights, and {model.name!r} has no such layer. Build the "
            "model as it was built for the ticket. The model was not changed."
        )


def _row(key: str, state: SavedState) -> StateRow:
    """Return the row of the header for what a layer saves besides weights."""
    values = tuple((name, str(value.dtype)) for name, value in state.values.items())
    return StateRow(key, values, tuple(state.assets))
