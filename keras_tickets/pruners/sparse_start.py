"""Tickets that go on from a model with zeros: the zeros become the first masks."""

from __future__ import annotations

import warnings

from keras_tickets.backend import array_of
from keras_tickets.masks.masked_call import count
from keras_tickets.pruners.base import Pruner
from keras_tickets.ticket.ticket import Ticket


def check_sparse_start(pruner: Pruner | None) -> None:
    """Raise if `pruner` cannot go on from a sparse model."""
    if pruner is None or pruner.starts_sparse:
        return
    raise ValueError(
        f"{type(pruner).__name__} finds its ticket in a dense model, by rounds or "
        "scores in which each weight takes part, so it cannot go on from one with "
        "zeros (keep_zeros=True). Fine-tune without a pruner, go on with "
        "kt.GradualMagnitude, kt.Magnitude or kt.RigL, or leave keep_zeros out."
    )


def hold_zeros(ticket: Ticket) -> None:
    """Mask the zeros of the kernels of `ticket`, beside what is masked already.

    What is odd about them is told: none at all, a kernel without any weight, or fewer
    weights than the pruner of the ticket would leave.
    """
    masks = [
        mask & (array_of(kernel.variable) != 0)
        for mask, kernel in zip(ticket.mask_set.values(), ticket.kernels, strict=True)
    ]
    held, pruner = count(masks), ticket.pruner
    empty = [
        k.path for k, mask in zip(ticket.kernels, masks, strict=True) if not mask.any()
    ]
    if not held.zeros:
        _warn(
            f"keep_zeros=True, but none of the {held.total} prunable weights of "
            f"{ticket.model.name!r} is zero: there is nothing to keep. Were the sparse "
            "weights loaded? Tickets and training keep a weight only where it is "
            "exactly zero."
        )
    if empty:
        _warn(
            f"All weights of {', '.join(empty)} are zero, and with keep_zeros=True "
            "they will stay so. If that was not meant, such as in a new layer whose "
            "kernel starts at zero, leave it alone: kt.wrap(..., skip=[...])."
        )
    if isinstance(pruner, Pruner):
        target = pruner.target(ticket.mask_set)
        if held.kept < target.kept:
            _warn(
                f"{ticket.model.name!r} has {held.zeros} zeros of {held.total} "
                f"(sparsity {held.sparsity:.6g}), more than the {target.zeros} that "
                f"{type(pruner).__name__} asks for (sparsity={pruner.sparsity:g}). It "
                "will drop nothing. Raise its sparsity to drop more, or wrap without "
                "a pruner to train on."
            )
    ticket.mask_set.assign(masks)
    ticket.found_zeros(held.sparsity)
    ticket.note_masks()


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)
