"""What a ticket asks of its pruner."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import keras

from keras_tickets.masks.pruner_state import PrunerState
from keras_tickets.ticket.curve import Curve


@runtime_checkable
class BoundPruner(Protocol):
    """What a ticket asks of the pruner that is bound to it."""

    sparsity: float
    """What is asked for."""

    keeps_initial_weights: bool
    """Whether the ticket keeps the values that its weights start from."""

    trains_ticket: bool
    """Whether the epoch at hand trains the final ticket, from its beginning."""

    def on_target(self, model: keras.Model) -> bool:
        """Return whether the masks are what was asked for, and stay so."""

    def drives(self, ticket: Any) -> bool:
        """Return whether it has begun to work on `ticket`, in this process."""

    def build(self, ticket: Any) -> PrunerState:
        """Return what `ticket` holds for the pruner; called once, when it is made."""

    def wrap_optimizer(self, ticket: Any, optimizer: Any, saved: bool) -> Any:
        """Return what `ticket` is to be compiled with in place of `optimizer`."""

    def on_compile(self, ticket: Any) -> None:
        """Prepare what depends on the optimizer that `ticket` was compiled with."""

    def draw(self, model: keras.Model, verbose: int) -> Curve:
        """Choose the masks of `model` now."""
