"""What a pruner works on in the model that `fit` trains."""

from __future__ import annotations

import random
from typing import TypeVar

import keras

from keras_tickets._util import arguments
from keras_tickets.backend import keras_private
from keras_tickets.masks.masked_call import MaskSet
from keras_tickets.masks.masked_layer import masked_layers
from keras_tickets.masks.pruner_state import PrunerState
from keras_tickets.ticket.ticket import Ticket

S = TypeVar("S", bound=PrunerState)


def ticket_in(model: keras.Model, pruner: keras.callbacks.Callback) -> Ticket | None:
    """Return the ticket that `pruner` works on: `model`, or the one inside it, if any.

    Raises:
        ValueError: If there are several, and `pruner` is bound to none or to all.
    """
    if isinstance(model, Ticket):
        return model
    inside = [one for one in keras_private.sublayers(model) if isinstance(one, Ticket)]
    bound = [ticket for ticket in inside if ticket.pruner is pruner]
    candidates = bound or inside
    if len(candidates) > 1:
        names = ", ".join(repr(ticket.name) for ticket in candidates)
        raise ValueError(
            f"{type(pruner).__name__} found several tickets in {model.name!r}: "
            f"{names}. Expected that each has a pruner of its own, from kt.wrap, "
            "and that all are listed: callbacks=[first.pruner, second.pruner]."
        )
    return candidates[0] if candidates else None


def masks_in(model: keras.Model, pruner: keras.callbacks.Callback) -> MaskSet:
    """Return the masks in `model`: a ticket's, or those of its `Masked` layers.

    Raises:
        ValueError: If there are none.
    """
    if ticket := ticket_in(model, pruner):
        return ticket.mask_set
    layers = masked_layers(model)
    if not layers:
        raise ValueError(
            f"{type(pruner).__name__} found no masks in {type(model).__name__} "
            f"{model.name!r}. Expected a ticket: wrap the model first, ticket = "
            "kt.wrap(model, pruner), and fit the ticket."
        )
    return MaskSet.joined([layer.mask_set for layer in layers])


def state_in(model: keras.Model, kind: type[S]) -> S | None:
    """Return the state of `kind` that a ticket holds, or `None` if it holds another."""
    state = model.pruner_state if isinstance(model, Ticket) else None
    return state if isinstance(state, kind) else None


def seed_or_new(seed: int | None) -> int:
    """Return `seed`, or a new one from `keras.utils.set_random_seed`'s generator."""
    return random.randrange(2**31) if seed is None else arguments.seed(seed)
