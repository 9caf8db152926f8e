"""Search with frozen weights: only scores move."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_tickets._util import arguments
from keras_tickets.backend import on_host
from keras_tickets.masks import optimizer_slots
from keras_tickets.masks.learned_masks import learned
from keras_tickets.masks.two_phase_optimizer import TwoPhaseOptimizer
from keras_tickets.pruners.binding import seed_or_new, state_in
from keras_tickets.pruners.learned.base import LearnedMaskPruner, SearchState
from keras_tickets.recipe.schedules import Cosine
from keras_tickets.ticket.ticket import Ticket

INITIAL = ("signed_constant", "model")


class Supermask(LearnedMaskPruner):
    """Searches with frozen weights: only scores move, by an optimizer of their own.

    The optimizer of `compile` moves the weights once the ticket has settled; its
    steps, schedules and slots begin there.

    Args:
        sparsity: Fraction of the prunable weights that are zero in the end.
        allocation: How many weights each kernel keeps.
        structure: What is kept together.
        schedule: When masks are drawn during the search; once, at its end, by default.
        until: The fraction of the run that the search takes.
        initial: `"signed_constant"` gives each weight the same magnitude
            `sqrt(2 / fan_in)`, its sign kept; `"model"` leaves the weights as they are.
        optimizer: What moves the scores. A learning rate that is a number falls along
            a cosine to zero at the end of the search.
        seed: Integer that fixes the scores at the beginning, or `None` for a new one.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.
    """

    def __init__(
        self,
        sparsity: float,
        allocation: Any = "global",
        structure: Any = "unstructured",
        schedule: Any = None,
        until: float = 0.5,
        initial: str = "signed_constant",
        optimizer: Any = None,
        seed: int | None = None,
        on_collapse: str = "raise",
    ) -> None:
        self.initial = arguments.word("initial", initial, INITIAL)
        super().__init__(
            sparsity,
            allocation=allocation,
            structure=structure,
            schedule=schedule,
            until=until,
            on_collapse=on_collapse,
        )
        if optimizer is None:
            optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        self.optimizer = keras.optimizers.get(optimizer)
        self.seed = seed_or_new(seed)

    @property
    def starts_untrained(self) -> bool:
        """Whether the weights have not trained when the ticket settles."""
        return True

    def wrap_optimizer(
        self, ticket: Ticket, optimizer: keras.optimizers.Optimizer, saved: bool = False
    ) -> keras.optimizers.Optimizer:
        """Return an optimizer that moves scores first, and then weights."""
        inner = optimizer_slots.innermost(optimizer)
        if inner.use_ema:
            raise ValueError(
                f"{type(self).__name__} trains two sets of variables one after the "
                "other, and use_ema=True averages over both phases. Compile without it."
            )
        if saved and not isinstance(inner, TwoPhaseOptimizer):
            return optimizer  # the ticket was compiled anew after it had settled
        state = state_in(ticket, SearchState)
        if not saved and state and state.settled:
            return optimizer
        return optimizer_slots.replaced(
            optimizer, lambda inner: self._with_scores(ticket, inner)
        )

    def _with_scores(
        self, ticket: Ticket, weights: keras.optimizers.Optimizer
    ) -> TwoPhaseOptimizer:
        if isinstance(weights, TwoPhaseOptimizer):
            weights = weights.weights
        # A copy, since its learning rate falls.
        own = type(self.optimizer).from_config(self.optimizer.get_config())
        scores = [mask.variable for mask in learned(ticket.mask_set)]
        return TwoPhaseOptimizer(own, weights, scores)

    def start_search(self, ticket: Ticket) -> None:
        """Give the weights one magnitude, if that is wanted."""
        if self.initial == "signed_constant":
            for kernel in ticket.kernels:
                view = kernel.view
                fan_in = kernel.extent(view.inputs) * kernel.extent(view.taps)
                signs = np.where(on_host(kernel.variable.value) < 0, -1.0, 1.0)
                kernel.variable.assign(signs * np.sqrt(2 / fan_in))

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Let the learning rate of the scores fall."""
        super().on_epoch_begin(epoch, logs)
        rate = self.optimizer.get_config()["learning_rate"]
        if not self._settled and isinstance(rate, float):
            progress = epoch / (self._run.epochs * self.until)
            self._two_phases.scores.learning_rate = Cosine().curve(progress, rate, 0.0)

    @property
    def _two_phases(self) -> TwoPhaseOptimizer:
        inner = optimizer_slots.innermost(self._ticket.optimizer)
        if not isinstance(inner, TwoPhaseOptimizer):
            raise ValueError(
                f"The optimizer of {self._ticket.name!r} was changed after compile and "
                f"does not move the scores of {type(self).__name__}. Compile the "
                "ticket again."
            )
        return inner

    def _set_phase(self) -> None:
        self._two_phases.searching.assign(self._state.searching.value)
