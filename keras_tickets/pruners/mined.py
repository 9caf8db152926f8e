"""Pruners that learn which weights to keep while the model trains."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import keras
import numpy as np

from keras_tickets.backend import on_host
from keras_tickets.kernels import Kernel
from keras_tickets.masks.auxiliary import Companion
from keras_tickets.masks.learned_masks import learned
from keras_tickets.masks.masked_layer import masked_layers
from keras_tickets.pruners.base import Pruner
from keras_tickets.ticket.curve import Curve
from keras_tickets.ticket.ticket import Ticket


class Mined(Pruner, ABC):
    """Mines a ticket in the first part of a run, and trains it in the rest.

    While it is mined, companions of the kernels (`masks.learned_masks`) enter the
    forward pass. At `until`, or when `found` says so, the ticket settles: the masks
    are drawn from what was learned, exactly at the sparsity, and the companions have
    no more to say. A later `fit` trains the weights under these masks.

    Subclasses give `companion`, and what they do in `begin`, `found` and `settle`.

    Args:
        sparsity: Fraction of the prunable weights that are zero in the end.
        allocation: How many weights each kernel keeps.
        structure: What is kept together.
        schedule: When masks are drawn while the ticket is mined.
        until: The fraction of the run that mining takes at most, in (0, 1]; with 1
            the run only mines, and another `fit` trains the weights.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.
    """

    flags = ("settled", "mining")
    careful = True
    remembers = True

    def __init__(
        self,
        sparsity: float,
        allocation: Any,
        structure: Any,
        schedule: Any,
        until: float,
        on_collapse: str,
    ) -> None:
        if not 0.0 < until <= 1.0:
            raise ValueError(
                f"until is a fraction of the run, in (0, 1]. Received: {until!r}."
            )
        self.until = until
        super().__init__(
            sparsity, "learned", allocation, structure, schedule, on_collapse
        )

    # -- what subclasses do ----------------------------------------------------------

    @abstractmethod
    def companion(
        self, ticket: Ticket, kernel: Kernel, position: int
    ) -> Companion | None:
        """Return what is learned of `kernel`."""

    def ripe(self, epoch: int) -> bool:
        """Return whether mining may begin with this epoch."""
        return True

    def begin(self, ticket: Ticket) -> None:
        """Prepare the weights, once, before mining begins."""

    def found(self, ticket: Ticket, logs: dict) -> bool:
        """Return whether the ticket settles now, at the end of an epoch of mining."""
        return False

    def settle(self, ticket: Ticket) -> None:
        """Prepare the weights for training, once masks are what they will be."""

    # -- what it asks of a ticket ----------------------------------------------------

    def hold(self, ticket: Ticket) -> None:
        """Raise if there are kernels that the ticket holds no scores for."""
        super().hold(ticket)
        if inside := masked_layers(ticket.model):
            raise ValueError(
                f"{type(self).__name__} learns scores that the ticket holds for each "
                f"kernel, which a Masked layer ({inside[0].name!r}) does not. Wrap a "
                "model without Masked layers."
            )

    def learned_scores(self, ticket: Ticket) -> list[np.ndarray] | None:
        """Return what was learned of each weight, if it was of all kernels."""
        held = learned(ticket.mask_set)
        if len(held) < len(ticket.kernels):
            return None
        return [companion.scores() for companion in held]

    def draw(self, model: keras.Model, verbose: int = 1) -> Curve:
        """Raise: there is nothing to draw from before `fit`."""
        raise ValueError(
            f"{type(self).__name__} learns the masks while the model trains. Compile "
            "the ticket and call fit; until=1.0 only mines, without training weights."
        )

    # -- the callback ----------------------------------------------------------------

    def set_model(self, model: keras.Model) -> None:
        """Find the ticket that `fit` trains."""
        super().set_model(model)
        held = isinstance(model, Ticket) and hasattr(model, "mining")
        if not held or model.start is None:
            raise ValueError(
                f"{type(self).__name__} needs a ticket that holds its scores. Wrap the "
                f"model with it: ticket = kt.wrap(model, kt.{type(self).__name__}(...)"
                "), then compile and fit the ticket."
            )
        self._ticket: Any = model
        self._origin = model.start
        self._settled = bool(on_host(model.settled.value))

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Begin to mine, once and when it is time."""
        self._settled = bool(on_host(self._ticket.settled.value))
        if self._settled:
            return
        super().on_epoch_begin(epoch, logs)
        if self.ripe(epoch) and not on_host(self._ticket.mining.value):
            _ = self.model  # see Pruner._update
            self._check_target()
            self.begin(self._ticket)
            self._origin.take()
            self._ticket.mining.assign(True)
        self._open_gates()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Draw masks when the schedule says so, and settle when mining ends."""
        if not self._settled:
            super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Settle if the ticket is found; at the end of the run it must."""
        logs = {} if logs is None else logs
        if not self._settled:
            _ = self.model
            mining = on_host(self._ticket.mining.value)
            if mining and self.found(self._ticket, logs):
                self._settle()
            super().on_epoch_end(epoch, logs)
        logs["sparsity"] = self._masks.count().sparsity

    def _advance(self, now: int) -> None:
        if self._settled:
            return
        super()._advance(now)
        if now >= self._run.time(self.until, "fraction"):
            self._settle()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warn when the ticket has not settled."""
        if not self._settled:
            warnings.warn(
                f"{type(self).__name__} is not done: training stopped before mining "
                f"ended, at sparsity {self._masks.count().sparsity:.6g} of "
                f"{self.sparsity:g}. Call fit again, with initial_epoch, to go on.",
                stacklevel=2,
            )

    def _remember(self) -> None:
        """Do nothing: the weights start from where mining begins."""

    def _settle(self) -> None:
        _ = self.model  # see Pruner._update
        self.update(self._masks, self.sparsity, self._verbose)
        self.settle(self._ticket)
        self._origin.take()  # what the survivors start from
        self._ticket.mining.assign(False)
        self._ticket.settled.assign(True)
        self._settled = True
        self._open_gates()

    def _open_gates(self) -> None:
        """Let the optimizer move what is to move now."""


def warn_of_early_end(pruner: Any, reached: float, what: str) -> None:
    """Warn that mining ended before `what` had come as far as the sparsity."""
    warnings.warn(
        f"Mining ended before {type(pruner).__name__} had found its ticket: {what} "
        f"had reached sparsity {reached:.4g} of {pruner.sparsity:g}. The rest was "
        f"dropped at once. Mine for longer (until={pruner.until:g}, or more epochs), "
        f"or raise penalty={pruner.penalty:g}.",
        stacklevel=2,
    )
