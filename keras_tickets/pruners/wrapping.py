"""`wrap`: from a Keras model and a pruner to the ticket that binds them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import keras

from keras_tickets import pruners
from keras_tickets.kernels import UNREACHED, Filter, Selection, choose_kernels
from keras_tickets.masks.masked_layer import masked_layers
from keras_tickets.pruners.base import Pruner
from keras_tickets.pruners.sparse_start import check_sparse_start, hold_zeros
from keras_tickets.ticket.ticket import Ticket
from keras_tickets.ticket.wrappable import check_wrappable


def wrap(
    model: keras.Model,
    pruner: Any = None,
    *,
    only: Filter | Iterable[Filter] | None = None,
    skip: Filter | Iterable[Filter] | None = None,
    name: str | None = None,
    remember: bool = False,
    keep_zeros: bool = False,
) -> Ticket:
    """Wrap a built Keras model so that its weights can be pruned.

    Takes any model: Sequential, Functional, nested, with shared layers, with several
    inputs and outputs, subclassed; any convolution, dense, recurrent or einsum
    kernel. The model itself is not changed, copied or renamed.

    The ticket is compiled by itself: a model that was compiled before keeps its own
    optimizer, which the ticket does not use. Wrapping a ticket again gives a new
    ticket around the same model, with another pruner, whose masks start as the old
    ones. `Masked` layers inside the model keep their masks, which the ticket's
    pruner then draws.

    Args:
        model: The model to wrap; built, and trained or not.
        pruner: A pruner, its string name or its config. Without one the masks stay
            as they are.
        only: Prune nothing but these kernels: a regular expression searched in the
            display path, a path or layer name, a layer, a variable, a function of a
            `Kernel`, `kt.mobile.eligible`, or a list of these. See
            `keras_tickets.prunable`.
        skip: Leave these kernels alone; the same forms.
        name: Name of the ticket.
        remember: Whether the ticket keeps, as `ticket.start`, the values that all
            weights of the model have when the draw begins (without a pruner: now). A
            second copy of the weights; ticket files and `keras_tickets.challenge`
            start from it. Pruners that need it have it without asking.
        keep_zeros: Whether weights that are exactly zero now stay zero, to go on from a
            sparse model: one that was stripped, loaded from a file, or pruned with
            another library. A pruner begins with these masks. One that drops weights
            step by step ramps from the present sparsity; `RigL` and its kin move the
            weights, each kernel keeping as many as it has. Learned masks and `IMP`
            begin with a dense model, and are refused.

    Returns:
        A `Ticket`.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model is not built, has methods of its own that train or
            predict, has nothing to prune, if a filter cannot be met, or if the pruner
            cannot go on from zeros that are to be kept.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, "magnitude")
    >>> ticket.sparsity
    0.0

    Train on a sparse model, its zeros held:

    >>> _ = model.layers[0].kernel.assign(keras.ops.eye(8, 4))
    >>> kt.wrap(model, keep_zeros=True).sparsity
    0.875
    """
    check_wrappable(model)
    pruner = None if pruner is None else pruners.get(pruner)
    if keep_zeros:
        check_sparse_start(pruner)
    if isinstance(model, Ticket):
        ticket = _wrap_again(model, pruner, only, skip, name, remember)
    else:
        held = [k for layer in masked_layers(model) for k in layer.mask_set.kernels]
        selection = choose_kernels(model, _asked(only, pruner), skip, held)
        _warn_of_unreached(selection)
        ticket = Ticket(model, pruner, selection, name=name, remember=remember)
    if keep_zeros:
        hold_zeros(ticket)
    return ticket


def _asked(only: Any, pruner: Pruner | None) -> Any:
    """Return filters as they are for a pruner, where they depend on one."""
    if isinstance(only, list | tuple | set | frozenset):
        return [_asked(item, pruner) for item in only]
    own = pruner is not None and hasattr(only, "of_pruner")
    return only.of_pruner(pruner) if own else only


def _warn_of_unreached(selection: Selection) -> None:
    """Warn of weights that look as if they were pruned with the rest, and are not."""
    left = [k for k, reason in selection.skipped if reason == UNREACHED.reason]
    if left:
        layers = {f"{k.layer.name!r} ({type(k.layer).__name__})": None for k in left}
        warnings.warn(
            f"{sum(k.size for k in left)} weights are not pruned and stay dense: Keras "
            f"lists them, but {', '.join(layers)} computes with them where masks do "
            "not reach. Build these layers in Keras to prune them, or say that they "
            "are to stay as they are: skip=the layer.",
            stacklevel=3,
        )


def _wrap_again(
    ticket: Ticket,
    pruner: Pruner | None,
    only: Any,
    skip: Any,
    name: str | None,
    remember: bool,
) -> Ticket:
    """Return a new ticket around the same model with the same masks."""
    if only is not None or skip is not None:
        raise ValueError(
            f"{ticket.name!r} is a ticket already, so which kernels it masks is "
            f"settled. Received: only={only!r}, skip={skip!r}. Drop the filters, or "
            "wrap the plain model: kt.wrap(ticket.strip(), pruner, only=...)."
        )
    remember = remember or ticket.start is not None
    again = Ticket(
        ticket.model,
        pruner,
        Selection(ticket.own_kernels, ticket.skipped),
        name,
        remember,
    )
    again.mask_set.assign_from(ticket.mask_set)
    again.note_masks()
    again.provenance = ticket.provenance
    again.drawn_from = ticket.drawn_from
    if again.start is not None and ticket.start is not None and ticket.start.taken:
        again.start.put(ticket.start.values())
    return again
