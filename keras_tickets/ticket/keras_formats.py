"""The formats of Keras' own that a ticket can be saved in and exported to."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

import keras

from keras_tickets._util.signature import Signature, input_signature
from keras_tickets.backend import keras_private

LEGACY = (".h5", ".hdf5")


def check_format(name: str, filepath: Any) -> None:
    """Refuse Keras' legacy format, in which a ticket could not be read back.

    Args:
        name: The name of the ticket.
        filepath: Where it is to be saved.

    Raises:
        ValueError: For an `.h5` or `.hdf5` file.
    """
    if str(filepath).endswith(LEGACY):
        raise ValueError(
            f"The ticket {name!r} cannot be saved as '{filepath}': Keras' older format "
            "holds neither its masks in their places nor its pruner. Save the ticket "
            f"with ticket.save('{pathlib.Path(filepath).stem}.keras'), its weights "
            "with ticket.save_weights('x.weights.h5'), or the plain model with "
            f"ticket.strip().save('{pathlib.Path(filepath).name}')."
        )


def check_not_legacy(model: keras.Model) -> None:
    """Refuse the legacy format where Keras has opened the file before it asks.

    `keras.saving.save_model` empties the file first; nothing half written stays there.

    Raises:
        ValueError: If `model` is being saved in the legacy format.
    """
    file = keras_private.file_being_saved(model)
    if file is None:
        return
    with contextlib.suppress(OSError):  # some systems keep what is open
        pathlib.Path(file).unlink(missing_ok=True)
    check_format(model.name, file if file.endswith(LEGACY) else "x.h5")


def exportable(ticket: Any, signature: Any) -> tuple[keras.Model, Signature]:
    """Return the plain model to export in place of a ticket, and its inputs.

    Args:
        ticket: The ticket.
        signature: The inputs that were asked for, or None.

    Raises:
        ValueError: If the ticket was never drawn, or its inputs are not known.
    """
    if not ticket.drawn:
        raise ValueError(
            f"The ticket {ticket.name!r} was never drawn: its masks keep all weights. "
            "Call ticket.draw() or ticket.fit(...) first; to export the dense model, "
            "use ticket.model.export."
        )
    if signature is None:
        signature = input_signature(ticket.model, None, None)
    return ticket.strip(), signature
