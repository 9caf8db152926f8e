"""What a ticket holds for its pruner, in variables that every checkpoint carries.

The variables are weights of the ticket itself, in the order in which they are made:
that is their place in Keras' files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import keras

from keras_tickets.backend import array_of
from keras_tickets.kernels import Kernel
from keras_tickets.masks.auxiliary import AuxiliaryVariable
from keras_tickets.masks.masked_call import MaskSet, add_masks
from keras_tickets.masks.masked_layer import masked_layers


class Holder(Protocol):
    """What a state is held by: a ticket, whose masks are not made yet."""

    model: keras.Model
    own_kernels: tuple[Kernel, ...]
    add_weight: Callable[..., keras.Variable]


class PrunerState:
    """The masks of a ticket, and the seeds, which Keras leaves out of a checkpoint.

    A pruner that needs more derives a state of its own, with all that a run needs to
    be resumed in variables of the ticket.

    Args:
        ticket: What owns the variables.
        auxiliary: Returns, of this state, a kernel and its position, the auxiliary
            variable of the kernel, if it has one.

    Attributes:
        ticket: What owns the variables.
        own: The masks that the ticket owns.
        masks: All masks, those of `Masked` layers inside the model included.
        seeds: The copies of seeds, by the `id` of the variable that they stand for.
    """

    def __init__(
        self,
        ticket: Holder,
        auxiliary: Callable[[Any, Kernel, int], AuxiliaryVariable | None] | None = None,
    ) -> None:
        self.ticket = ticket
        self.own = add_masks(
            ticket, ticket.own_kernels, partial(auxiliary, self) if auxiliary else None
        )
        inside = [layer.mask_set for layer in masked_layers(ticket.model)]
        self.masks = MaskSet.joined([self.own, *inside])
        self.seeds = _copies_of_seeds(ticket)

    @property
    def unfinished(self) -> bool:
        """Whether the masks are not those of the end, as a search goes on."""
        return False


def _copies_of_seeds(ticket: Holder) -> dict[int, keras.Variable]:
    weights = {id(variable) for variable in ticket.model.weights}
    copies = {}
    for variable in ticket.model.variables:
        if id(variable) not in weights:
            copies[id(variable)] = ticket.add_weight(
                shape=variable.shape,
                initializer="zeros",
                dtype=variable.dtype,
                trainable=False,
                name=f"{variable.name}_copy",
            )
            copies[id(variable)].assign(array_of(variable))
    return copies
