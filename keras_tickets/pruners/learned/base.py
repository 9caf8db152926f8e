"""Pruners that learn which weights to keep while the model trains."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_tickets._util import arguments
from keras_tickets.backend import keras_private
from keras_tickets.kernels import Kernel
from keras_tickets.masks.auxiliary import AuxiliaryVariable
from keras_tickets.masks.denominators import warn_of_nan
from keras_tickets.masks.flag import Flag
from keras_tickets.masks.learned_masks import learned
from keras_tickets.masks.masked_call import MaskSet
from keras_tickets.masks.masked_layer import masked_layers
from keras_tickets.masks.optimizer_slots import innermost
from keras_tickets.masks.pruner_state import PrunerState
from keras_tickets.pruners.base import Pruner
from keras_tickets.pruners.binding import masks_in, state_in
from keras_tickets.pruners.run_checks import (
    check_data,
    check_time_left,
    refuse_to_begin,
)
from keras_tickets.recipe.schedules import Once, Run
from keras_tickets.ticket.curve import Curve
from keras_tickets.ticket.ticket import Ticket


class SearchState(PrunerState):
    """Masks, what is learned of each kernel, and how far the search has come.

    Args:
        ticket: What owns the variables.
        auxiliary: Returns, of this state, a kernel and its position, what is learned
            of the kernel.

    Attributes:
        settled: Whether the ticket was found, so that masks stay.
        searching: Whether what is learned enters the forward pass.
    """

    def __init__(
        self,
        ticket: Ticket,
        auxiliary: Callable[[Any, Kernel, int], AuxiliaryVariable | None],
    ) -> None:
        self.settled = Flag(ticket, "settled")
        self.searching = Flag(ticket, "searching")
        super().__init__(ticket, auxiliary)

    @property
    def unfinished(self) -> bool:
        """Whether the search goes on, so that the masks are not those of the end."""
        return bool(self.searching)


class LearnedMaskPruner(Pruner, ABC):
    """Searches for a ticket in the first part of a run, and trains it in the rest.

    While it searches, auxiliary variables of the kernels (`masks.learned_masks`) enter
    the forward pass. At `until`, or when `should_stop` says so, the ticket settles: the
    masks are drawn from what was learned, exactly at the sparsity, and the auxiliary
    variables have no more to say. A later `fit` trains the weights under these masks.

    Subclasses give `auxiliary`, and what they do in `start_search`, `should_stop` and
    `finalize`.

    Args:
        sparsity: Fraction of the prunable weights that are zero in the end.
        allocation: How many weights each kernel keeps.
        structure: What is kept together.
        schedule: When masks are drawn during the search; once, at its end, by default.
        until: The fraction of the run that the search takes at most, in (0, 1]; with 1
            the run only searches, and another `fit` trains the weights.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.
    """

    state_kind: type[SearchState] = SearchState
    """What its tickets hold."""

    check_every_update = True
    keeps_initial_weights = True
    starts_sparse = False

    def __init__(
        self,
        sparsity: float,
        allocation: Any = "global",
        structure: Any = "unstructured",
        schedule: Any = None,
        until: float = 0.5,
        on_collapse: str = "raise",
    ) -> None:
        self.until = arguments.number(
            "until is a fraction of the run and", until, "(0, 1]"
        )
        super().__init__(
            sparsity,
            "learned",
            allocation=allocation,
            structure=structure,
            schedule=Once(until) if schedule is None else schedule,
            on_collapse=on_collapse,
        )

    # -- what subclasses do ----------------------------------------------------------

    @abstractmethod
    def auxiliary(
        self, state: SearchState, kernel: Kernel, position: int
    ) -> AuxiliaryVariable | None:
        """Return what is learned of `kernel`, at this position among all."""

    def warmup_done(self, epoch: int) -> bool:
        """Return whether the search may begin with this epoch."""
        return True

    def start_search(self, ticket: Ticket) -> None:
        """Prepare the weights, once, before the search begins."""

    def observe(self, ticket: Ticket, logs: dict) -> None:
        """Look at what an epoch of search has found, at its end."""

    def should_stop(self, ticket: Ticket, logs: dict) -> bool:
        """Return whether the ticket settles, after an epoch of search.

        Asked again where a run is resumed: it may depend on nothing but variables.
        """
        return False

    @property
    def settles_apart(self) -> bool:
        """Whether settling makes another network of what was searched.

        Then it waits for the next epoch to begin: what is validated at the end of an
        epoch, and what other callbacks save there, is what was trained in it.
        """
        return False

    @property
    def starts_untrained(self) -> bool:
        """Whether the weights have not trained when the ticket settles."""
        return False

    def finalize(self, ticket: Ticket) -> None:
        """Prepare the weights for training, once masks are what they will be."""

    # -- what it asks of a ticket ----------------------------------------------------

    def build(self, ticket: Ticket) -> SearchState:
        """Return masks, and what is learned of each kernel."""
        self.check_ticket(ticket)
        return SearchState(ticket, self.auxiliary)

    def check_ticket(self, ticket: Ticket) -> None:
        """Raise if there are kernels that the ticket holds no scores for."""
        super().check_ticket(ticket)
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
        return [mask.scores() for mask in held]

    def on_target(self, model: keras.Model) -> bool:
        """Return whether the ticket has settled, with as many zeros as asked for."""
        state = state_in(model, self.state_kind)
        settled = state is not None and state.settled and not state.searching
        return bool(settled) and self._met(masks_in(model, self))

    def _met(self, masks: MaskSet) -> bool:
        """Return whether there are no fewer zeros than asked for; maybe more."""
        return masks.count().kept <= self.target(masks).kept

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
        state = state_in(model, self.state_kind)
        if state is None or model.start is None:
            raise ValueError(
                f"{type(self).__name__} needs a ticket that holds its scores. Wrap the "
                f"model with it: ticket = kt.wrap(model, kt.{type(self).__name__}(...)"
                "), then compile and fit the ticket."
            )
        self._ticket, self._state, self._origin = model, state, model.start
        self._settled = bool(state.settled)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Begin to look at what this `fit` does."""
        self._checked = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the search, once and when it is time; settle if that has waited."""
        self._settled = self.trains_ticket = bool(self._state.settled)
        if self._settled:
            return
        if not self._checked:
            self._check_run(epoch)
            self._checked = True
        super().on_epoch_begin(epoch, logs)
        if self._state.searching:
            if self.settles_apart and self._is_over(self._now):
                self._settle()
                self.trains_ticket = self._settled
        elif self.warmup_done(epoch):
            self._synchronize()
            self._check_target()
            self.start_search(self._ticket)
            self._origin.take()
            self._state.searching.set()
        self._set_phase()
        self._seen = 0

    def _check_run(self, epoch: int) -> None:
        """Raise, before anything changes, if the run cannot do what was asked for."""
        run = Run(self.params["epochs"], self.params.get("steps"))
        name = type(self).__name__
        check_time_left(name, self.until, self._ticket, run, self.starts_untrained)
        if self._state.searching:
            return
        if epoch >= run.epochs * self.until:
            refuse_to_begin(name, "the search", epoch, run)
        if run.steps is not None:
            self.check_pace(run, epoch)

    def check_pace(self, run: Run, epoch: int) -> None:
        """Warn if the search, from `epoch` on, cannot come as far as the sparsity."""

    def _is_over(self, now: int) -> bool:
        """Return whether the search has had its time, or has found its ticket."""
        late = now >= self._run.time(self.until, "fraction")
        return late or self.should_stop(self._ticket, {})

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Draw masks when the schedule says so, and settle when the search ends."""
        self._seen = batch + 1
        if self._settled:
            self._note_metrics(logs)
        else:
            super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Settle if the ticket is found; at the end of the run it must."""
        logs = {} if logs is None else logs
        seen = {key: logs[key] for key in logs if key not in self.logged}
        if not self._settled:
            self._synchronize()
            check_data(type(self).__name__, epoch, self._seen)
            if self._state.searching:
                self.observe(self._ticket, seen)
                found = self.should_stop(self._ticket, seen)
                if found and not self._waits((epoch + 1) * (self._run.steps or 1)):
                    self._settle()
            super().on_epoch_end(epoch, logs)
        self._hold_constraints()
        # Each epoch, though the search is over: columns of a history have one length.
        own = {name: seen.pop(name, self._without_search()) for name in self.logged}
        own["sparsity"] = self._masks.count().sparsity
        logs.update(seen)
        for name, value in own.items():
            self._log(logs, name, value)

    def _advance(self, now: int) -> None:
        if self._settled:
            return
        late = now >= self._run.time(self.until, "fraction")
        if late and self._waits(now):
            self._now = now
            return
        super()._advance(now)
        if late:
            self._settle()

    def _waits(self, now: int) -> bool:
        """Return whether settling waits for the next epoch, at the end of this one."""
        next_one = (self._epoch + 1) * (self._run.steps or 1)
        return self.settles_apart and next_one <= now < self._run.length

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warn when the ticket has not settled."""
        if not self._settled:
            warnings.warn(
                f"{type(self).__name__} is not done: training stopped before mining "
                f"ended, at sparsity {self._masks.count().sparsity:.6g} of "
                f"{self.sparsity:g}. Call fit again, with initial_epoch, to go on.",
                stacklevel=2,
            )
        warn_of_nan(self._masks.kernels)
        self._warn_of_constraints()

    def _will_prune(self) -> bool:
        """Return whether masks and weights are still to be found."""
        return not self._settled

    def _without_search(self) -> float:
        """Return what is logged of the search while there is none."""
        return self._masks.count().sparsity

    def _take_start(self) -> None:
        """Do nothing: the weights start from where the search begins."""

    def _settle(self) -> None:
        self._synchronize()
        self.update(self._masks, self.sparsity, self._verbose)
        self.finalize(self._ticket)
        self._constrained.zero_dead()
        self._origin.take()  # what the survivors start from
        self._state.searching.set(False)
        self._state.settled.set()
        self._settled = True
        self._set_phase()

    def _set_phase(self) -> None:
        """Let the optimizer move what is to move now."""


def without_decay(
    ticket: Ticket, optimizer: keras.optimizers.Optimizer
) -> keras.optimizers.Optimizer:
    """Return `optimizer`, its weight decay kept off what is learned of the kernels.

    What is learned has a penalty of its own, and would decay twice.
    """
    learned_variables = [mask.variable for mask in learned(ticket.mask_set)]
    keras_private.exclude_from_weight_decay(innermost(optimizer), learned_variables)
    return optimizer


def warn_of_pace(pruner: Any, what: str, reached: float, ways: str) -> None:
    """Warn, before a search, that it will not come as far as the sparsity."""
    warnings.warn(
        f"{type(pruner).__name__} will not find its ticket in this run: by its end, "
        f"until={pruner.until:g}, {what}, so it would reach sparsity "
        f"{reached:.2g} of {pruner.sparsity:g}, and the rest would be dropped at once. "
        f"{ways}",
        stacklevel=3,
    )


def warn_of_early_end(pruner: Any, reached: float, what: str) -> None:
    """Warn that mining ended before `what` had come as far as the sparsity."""
    warnings.warn(
        f"Mining ended before {type(pruner).__name__} had found its ticket: {what} "
        f"had reached sparsity {reached:.4g} of {pruner.sparsity:g}. The rest was "
        f"dropped at once. Mine for longer (until={pruner.until:g}, or more epochs), "
        f"or raise penalty={pruner.penalty:g}.",
        stacklevel=2,
    )
