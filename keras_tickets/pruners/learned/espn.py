"""ESPN: soft masks trained together with the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_tickets._util import arguments
from keras_tickets.backend import on_host
from keras_tickets.kernels import Kernel
from keras_tickets.masks.learned_masks import Soft, learned
from keras_tickets.masks.masked_call import Count
from keras_tickets.masks.snapshot import Snapshot
from keras_tickets.pruners.base import registry
from keras_tickets.pruners.binding import state_in
from keras_tickets.pruners.learned.base import (
    LearnedMaskPruner,
    SearchState,
    warn_of_early_end,
    warn_of_pace,
    without_decay,
)
from keras_tickets.pruners.learned.pace import ARRIVAL, Pace
from keras_tickets.pruners.run_checks import warn_of_statistics
from keras_tickets.recipe.schedules import Run
from keras_tickets.ticket.ticket import Ticket

ACTIVE = 1e-2  # of a soft mask; the l1 penalty never makes it exactly zero


class ESPNState(SearchState):
    """What a search holds, and what the optimizer goes back to.

    Args:
        ticket: What owns the variables.
        auxiliary: Returns the soft mask of a kernel.

    Attributes:
        rewind: The state of the optimizer before the search, once the ticket is
            compiled; held by the optimizer.
    """

    def __init__(
        self, ticket: Ticket, auxiliary: Callable[[Any, Kernel, int], Soft]
    ) -> None:
        super().__init__(ticket, auxiliary)
        self.rewind: Snapshot | None = None


@registry.register
class ESPN(LearnedMaskPruner):
    """Extremely sparse networks: an l1 penalty on a soft mask of every weight.

    Each weight is multiplied by an entry c of a mask that starts at one; weights and
    mask train together, with `penalty * sum |c|` added to the loss. At the end of the
    first epoch that leaves no more entries above 0.01 than the budget, the highest
    `|c|` of all are kept, and the weights train on: from `w * c`, or rewound, with the
    state and the step count of the optimizer. Weight decay of the optimizer spares the
    soft masks. In the paper the search has none at all.

    Args:
        sparsity: Fraction of the prunable weights that are zero in the end, in [0, 1).
        penalty: Weight of the l1 norm of the soft masks (the paper's alpha). For short
            runs the paper's is too small: `fit` says so first, with one that will do.
        until: The fraction of the run in which the ticket must be found.
        rewind: Whether the weights go back to where they were before the search.
        warmup: Epochs of dense training before the search, to which is rewound.
        allocation: `"global"` (the paper's) or how many weights each kernel keeps.
        structure: What is kept together.
        on_collapse: `"raise"` or `"warn"` when the ticket lets no signal pass.

    Example:
    >>> import keras_tickets as kt
    >>> kt.ESPN(0.99, penalty=1e-4, rewind=True, warmup=1).rewind
    True

    Reference:
        Cho et al., "ESPN: Extremely Sparse Pruned Networks", 2020.
    """

    logged = ("sparsity", "soft_sparsity")

    def __init__(
        self,
        sparsity: float = 0.95,
        penalty: float = 8e-5,
        until: float = 0.5,
        rewind: bool = False,
        warmup: float = 0,
        allocation: Any = "global",
        structure: Any = "unstructured",
        on_collapse: str = "raise",
    ) -> None:
        super().__init__(
            sparsity,
            allocation=allocation,
            structure=structure,
            until=until,
            on_collapse=on_collapse,
        )
        self.penalty = arguments.number("penalty", penalty, "[0, inf)")
        self.rewind = arguments.switch("rewind", rewind)
        self.warmup = arguments.number("warmup", warmup, "[0, inf)")

    @property
    def settles_apart(self) -> bool:
        """Whether the ticket goes back, and is no longer what was searched."""
        return self.rewind

    @property
    def starts_untrained(self) -> bool:
        """Whether the ticket goes back to weights from before the search."""
        return self.rewind

    def build(self, ticket: Ticket) -> ESPNState:
        """Return masks, soft masks, and what the optimizer goes back to."""
        self.check_ticket(ticket)
        return ESPNState(ticket, self.auxiliary)

    def wrap_optimizer(
        self, ticket: Ticket, optimizer: keras.optimizers.Optimizer, saved: bool = False
    ) -> keras.optimizers.Optimizer:
        """Return the optimizer, its weight decay kept off the soft masks."""
        return without_decay(ticket, optimizer)

    def on_compile(self, ticket: Ticket) -> None:
        """Let the optimizer hold copies of its own state, to go back to."""
        state = state_in(ticket, ESPNState)
        if self.rewind and state is not None:
            state.rewind = Snapshot.of_optimizer(
                ticket.optimizer, ticket.trainable_variables, "rewind"
            )

    def check_pace(self, run: Run, epoch: int) -> None:
        """Warn if soft masks cannot fall from one to nothing, with what would do."""
        begin = max(self.warmup, epoch)
        if self.rewind:
            left = (1 - self.until) * run.length
            warn_of_statistics(
                "ESPN", self._ticket.model, left, begin * (run.steps or 1)
            )
        steps = (self.until * run.epochs - begin) * (run.steps or 1)
        if steps <= 0:  # refused as the search begins
            return
        pace = Pace.of(self._ticket.optimizer, steps)
        fall = pace.length * (self.penalty if pace.proportional else 1)
        if fall >= 1 - ACTIVE or not fall:  # nothing is learned on purpose
            return
        ways = (
            f"Raise penalty={self.penalty:g} to {1 / (ARRIVAL * pace.length):.2g}, "
            if pace.proportional
            else ""
        )
        warn_of_pace(
            self,
            f"in {steps:g} steps at this learning rate, no soft mask can fall below "
            f"{1 - fall:.3g}",
            0.0,
            f"{ways or 'Raise the learning rate, '}or train for longer: the search "
            f"needs {pace.longer(pace.length / fall)} steps or more.",
        )

    def start_search(self, ticket: Ticket) -> None:
        """Note what the optimizer goes back to."""
        if self.rewind:
            self._rewind.take()

    @property
    def _rewind(self) -> Snapshot:
        state = state_in(self._ticket, ESPNState)
        if state is None or state.rewind is None:
            raise ValueError(
                "ESPN goes back to the state of the optimizer, which it notes when the "
                "ticket is compiled. Compile the ticket again."
            )
        return state.rewind

    def auxiliary(self, state: SearchState, kernel: Kernel, position: int) -> Soft:
        """Return a soft mask of ones."""
        return Soft(state, kernel, np.ones(kernel.shape), self.penalty, "l1")

    def warmup_done(self, epoch: int) -> bool:
        """Return whether the warm-up is over."""
        available = self.until * self._run.epochs
        if self.warmup >= available:
            raise ValueError(
                f"warmup={self.warmup:g} epochs leave nothing of the {available:g} "
                f"epochs (until={self.until:g} of {self._run.epochs}) in which ESPN is "
                "to find its ticket. Lower warmup=, raise until=, or train for more "
                "epochs."
            )
        return epoch >= self.warmup

    def should_stop(self, ticket: Ticket, logs: dict) -> bool:
        """Return whether no more entries are active than the budget has places."""
        active = _active(ticket)
        logs["soft_sparsity"] = active.sparsity
        return active.kept <= self.target(ticket.mask_set).kept

    def finalize(self, ticket: Ticket) -> None:
        """Let the weights start from `w * c`, or from where they were."""
        active = _active(ticket)
        if active.kept > self.target(ticket.mask_set).kept:
            warn_of_early_end(self, active.sparsity, "the soft masks")
        if self.rewind:
            self._origin.restore()
            self._rewind.restore()
            return
        for masked in ticket.mask_set.masked:
            masked.kernel.variable.assign(masked.effective())


def _active(ticket: Ticket) -> Count:
    # Signed, as in the published code: a mask that turned negative was dropped.
    values = [on_host(soft.variable.value) for soft in learned(ticket.mask_set)]
    kept = sum(int(np.count_nonzero(value > ACTIVE)) for value in values)
    return Count(sum(value.size for value in values), kept)
