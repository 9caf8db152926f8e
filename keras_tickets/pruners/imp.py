"""IMP: iterative magnitude pruning with rewinding, in one `fit`."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_tickets._util import arguments
from keras_tickets.masks.flag import Flag
from keras_tickets.masks.pruner_state import PrunerState
from keras_tickets.masks.snapshot import Snapshot
from keras_tickets.pruners.base import Pruner, registry
from keras_tickets.pruners.binding import state_in
from keras_tickets.pruners.run_checks import (
    check_data,
    check_rounds,
    refuse_to_begin,
    warn_of_statistics,
)
from keras_tickets.recipe.schedules import Rounds, Run
from keras_tickets.ticket.ticket import Ticket

REWINDS = ("weights", "learning_rate")


class IMPState(PrunerState):
    """Masks, whether the last round trains, and the optimizer's state to go back to.

    Args:
        ticket: What owns the variables.

    Attributes:
        settled: Whether all rounds but the last are over, so that masks stay.
        rewind: What the optimizer goes back to, once the ticket is compiled; held by
            the optimizer.
    """

    def __init__(self, ticket: Ticket) -> None:
        self.settled = Flag(ticket, "settled")
        super().__init__(ticket)
        self.rewind: Snapshot | None = None


@registry.register
class IMP(Pruner):
    """Trains, drops the weights of least magnitude, goes back, and trains again.

    A run of E epochs is cut into rounds of equal length. At the end of each but the
    last, `fraction` of the weights that are left are dropped (the last time, what
    remains to the sparsity), weights and BatchNorm go back to what they were at
    `rewind_to`, and so does the optimizer, with its schedule. The last round trains
    the ticket.

    Learning rates should be a Keras `LearningRateSchedule`, which starts again with
    the optimizer's step count; callbacks that set it by epoch do not.

    Args:
        sparsity: Fraction of the prunable weights that are zero in the end, in (0, 1).
        fraction: What part of the weights left each round drops.
        rewind_to: The time to go back to: 0 for the initial values, or a little later
            for large networks.
        unit: What `rewind_to` is given in: `"epochs"`, `"steps"` or `"fraction"` of
            the run.
        rewind: `"weights"` with the optimizer, or only the `"learning_rate"` (the
            optimizer's state; weights train on).
        allocation: `"global"` (the paper's for deep networks) or how many weights each
            kernel keeps.
        structure: What is kept together.
        on_collapse: `"raise"` or `"warn"` when a round lets no signal pass.

    Attributes:
        pruned: How many times is pruned; one more round trains the ticket.

    Example:
    >>> import keras_tickets as kt
    >>> kt.IMP(sparsity=0.9, fraction=0.2).pruned
    11

    Reference:
        Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis",
        2020; Renda et al., "Comparing rewinding and fine-tuning in neural network
        pruning", 2020.
    """

    logged = ("sparsity", "round")
    check_every_update = True
    keeps_initial_weights = True
    starts_sparse = False

    def __init__(
        self,
        sparsity: float = 0.9,
        fraction: float = 0.2,
        rewind_to: float = 0,
        unit: str = "epochs",
        rewind: str = "weights",
        allocation: Any = "global",
        structure: Any = "unstructured",
        on_collapse: str = "raise",
    ) -> None:
        fraction = arguments.number("fraction", fraction, "(0, 1)")
        rewind_to = arguments.number("rewind_to", rewind_to, "[0, inf)")
        sparsity = arguments.number(
            "sparsity is the fraction of zeros in the end, and IMP needs something to "
            "drop: it",
            sparsity,
            "(0, 1)",
        )
        # A hair less: 1 - 0.8 ** 3 is three rounds, not four.
        exact = math.log1p(-sparsity) / math.log1p(-fraction)
        self.pruned = math.ceil(exact - 1e-9)
        self._rounds = Rounds(self.pruned, fraction, rewind_to, unit)
        super().__init__(
            sparsity, "magnitude", allocation, structure, self._rounds, on_collapse
        )
        self.fraction = fraction
        self.rewind_to = rewind_to
        self.unit = unit
        self.rewind = arguments.word("rewind", rewind, REWINDS)

    def build(self, ticket: Ticket) -> IMPState:
        """Return masks, and whether they are those of the end."""
        self.check_ticket(ticket)
        return IMPState(ticket)

    def on_compile(self, ticket: Ticket) -> None:
        """Let the optimizer hold copies of its own state."""
        if state := state_in(ticket, IMPState):
            state.rewind = Snapshot.of_optimizer(
                ticket.optimizer, ticket.trainable_variables, "rewind"
            )

    def set_model(self, model: keras.Model) -> None:
        """Find the ticket that `fit` trains."""
        super().set_model(model)
        state = state_in(model, IMPState)
        if state is None or state.rewind is None or self._start is None:
            raise ValueError(
                "IMP goes back to weights and optimizer state that its own ticket "
                "holds. Wrap the model with it: ticket = kt.wrap(model, kt.IMP(...)), "
                "then compile and fit the ticket."
            )
        self._ticket, self._state = model, state
        self._origin, self._optimizer = self._start, state.rewind

    def _will_prune(self) -> bool:
        """Return whether weights are still to go, or to go back."""
        return not self._state.settled or super()._will_prune()

    def _take_start(self) -> None:
        """Do nothing: `_advance` notes the state at `rewind_to`."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Begin to count what this `fit` does."""
        self._ended: bool | None = None
        self._checked = False
        self._seen = self._trained = 0
        self._went_back = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """End the round that ended with the last epoch; note the state to go back to.

        Not at the end of that epoch: what is validated there, and what other callbacks
        save, are the weights that were trained, not those that are gone back to.
        """
        self._settled = self.trains_ticket = bool(self._state.settled)
        self._noted = self._origin.taken
        if not self._settled:
            self._check_run(epoch)
        if not self._noted:
            self._check_target()
        ended = not self._settled and self._ended_before(epoch)
        self._seen = 0
        super().on_epoch_begin(epoch, logs)
        if ended:
            self._end_round()
            self.trains_ticket = self._settled
        self._note()
        self._ended = False
        over = self._rounds.over(self._now, self._run)
        self._round = 1 + (self.pruned if self._settled else over)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """End a round that ends within an epoch."""
        self._seen = batch + 1
        self._note_metrics(logs)
        steps = self._run.steps
        if steps is not None and batch + 1 < steps:
            super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Log the round that the epoch belonged to."""
        self._trained += self._seen
        if not self._settled:
            self._synchronize()
            check_data("IMP", epoch, self._seen)
        super().on_epoch_end(epoch, logs)
        self._log(logs, "round", self._round)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warn of a ticket that is not what was asked for, or cannot be judged yet."""
        super().on_train_end(logs)
        if self._went_back and self._run.steps is None:
            warn_of_statistics("IMP", self._ticket.model, self._trained, 0)

    def _check_run(self, epoch: int) -> None:
        """Raise or warn, before anything changes, if rounds cannot be what they are."""
        if self._checked:
            return
        run = Run(self.params["epochs"], self.params.get("steps"))
        begin, end = self._rounds.span(run)
        check_rounds(self.pruned + 1, begin, self._ticket, run)
        over = self._rounds.over(epoch * (run.steps or 1), run)
        if over and not self._noted:
            refuse_to_begin("IMP", f"{over} of the rounds", epoch, run)
        if run.steps is not None and self.rewind == "weights":
            warn_of_statistics("IMP", self._ticket.model, run.length - end, begin)
        self._checked = True

    def _ended_before(self, epoch: int) -> bool:
        """Return whether a round ended with the last epoch and is to be closed."""
        if self._ended is not None:
            return self._ended
        # The first epoch of this fit: an earlier one may have stopped in between.
        run = Run(self.params["epochs"], self.params.get("steps"))
        now = epoch * (run.steps or 1)
        if not self._noted or not self._rounds.due(now - 1, now, run):
            return False
        due = self._rounds.value(now, self.sparsity, run)
        return self._masks.count().kept > self._keep(self._masks.kernels, due)

    def _advance(self, now: int) -> None:
        before, self._now = self._now, now
        if self._settled:
            return
        self._note()
        if not self._rounds.due(before, now, self._run):
            return
        if now < (self._epoch + 1) * (self._run.steps or 1):
            self._end_round()
        else:
            self._ended = True  # and closed as the next epoch begins

    def _end_round(self) -> None:
        """Drop weights, go back, and stay there if that was the last time."""
        self._update()
        self._go_back()
        if self._rounds.finished(self._now, self._run):
            self._state.settled.set()
            self._settled = True

    def _note(self) -> None:
        """Note the state to go back to, once it is there."""
        if self._noted or self._now < self.schedule.span(self._run)[0]:
            return
        self._synchronize()
        self._origin.take()
        self._optimizer.take()
        self._noted = True

    def _go_back(self) -> None:
        self._trained = -self._seen
        self._went_back = self.rewind == "weights"
        if self.rewind == "weights":
            self._origin.restore()
        self._optimizer.restore()
        self._constrained.zero_dead()
