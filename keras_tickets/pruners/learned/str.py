"""STR: soft thresholds that are trained, one for each kernel."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_tickets._util import arguments
from keras_tickets.kernels import Kernel
from keras_tickets.masks.learned_masks import SoftThreshold, learned
from keras_tickets.masks.masked_call import count
from keras_tickets.masks.regrowth import magnitude
from keras_tickets.pruners.base import registry
from keras_tickets.pruners.learned.base import (
    LearnedMaskPruner,
    SearchState,
    warn_of_early_end,
    warn_of_pace,
    without_decay,
)
from keras_tickets.pruners.learned.pace import Pace
from keras_tickets.recipe.schedules import Run
from keras_tickets.recipe.structures import Unstructured
from keras_tickets.ticket.ticket import Ticket

HEADWIND = 10
"""How much stronger than alone a penalty has to be, as the loss pulls thresholds down:
in trials of some hundred steps."""


@registry.register
class STR(LearnedMaskPruner):
    """Soft Threshold Reparameterization: kernels learn how sparse they are.

    The forward pass uses `sign(w) * relu(|w| - sigmoid(s))` with one trainable s for
    each kernel, which starts where the threshold is next to nothing and which its
    decay pulls up. At the end of the first epoch that leaves no more weights than the
    budget, those furthest above their threshold are kept, exactly, and train on.
    In the paper the sparsity follows from decay and start alone; here it is met.

    Args:
        sparsity: Fraction of the prunable weights that are zero in the end, in [0, 1).
        penalty: The decay of s: `penalty * s^2` is added to the loss, so the weight
            decay of the paper is twice the penalty. That of the optimizer spares s,
            which would decay by both. For short runs the default is too small: `fit`
            says so first, with one that will do.
        start: What s is at first; a threshold of 0.0025 by default.
        until: The fraction of the run in which the sparsity must be reached.
        structure: `"unstructured"`: a threshold weighs each weight by itself.
        on_collapse: `"raise"` or `"warn"` when the ticket lets no signal pass.

    Example:
    >>> import keras_tickets as kt
    >>> kt.STR(0.9, start=-5.0).start
    -5.0

    Reference:
        Kusupati et al., "Soft threshold weight reparameterization for learnable
        sparsity", 2020.
    """

    logged = ("sparsity", "soft_sparsity")

    def __init__(
        self,
        sparsity: float = 0.9,
        penalty: float = 1e-4,
        start: float = -6.0,
        until: float = 0.75,
        structure: Any = "unstructured",
        on_collapse: str = "raise",
    ) -> None:
        super().__init__(
            sparsity, structure=structure, until=until, on_collapse=on_collapse
        )
        if not isinstance(self.structure, Unstructured):
            raise ValueError(
                "STR's threshold weighs each weight by itself, so within a group that "
                "is kept some weights would start at zero. Received: structure="
                f"{structure!r}. For structured tickets use kt.GradualMagnitude or "
                "kt.ESPN."
            )
        self.penalty = arguments.number("penalty", penalty, "[0, inf)")
        self.start = arguments.number("start", start, "(-inf, inf)")

    def wrap_optimizer(
        self, ticket: Ticket, optimizer: keras.optimizers.Optimizer, saved: bool = False
    ) -> keras.optimizers.Optimizer:
        """Return the optimizer, its weight decay kept off the thresholds."""
        return without_decay(ticket, optimizer)

    def check_pace(self, run: Run, epoch: int) -> None:
        """Warn if thresholds cannot rise as far as the sparsity, with what would do."""
        steps = (self.until * run.epochs - epoch) * (run.steps or 1)
        pace = Pace.of(self._ticket.optimizer, steps)
        last = self._after(pace)
        sizes = [magnitude(k.variable).ravel() for k in self._masks.kernels]
        weights = np.concatenate(sizes)
        reached = float(np.mean(weights <= _sigmoid(last)))
        if reached >= self.sparsity or not pace.length:
            return
        needed = float(np.quantile(weights, self.sparsity))
        warn_of_pace(
            self,
            f"in {steps:g} steps at this learning rate, the thresholds rise from "
            f"{_sigmoid(self.start):.2g} to about {_sigmoid(last):.2g}, and "
            f"{self.sparsity:.0%} of the weights lie, as they are now, below "
            f"{needed:.2g}",
            reached,
            self._ways(pace, needed),
        )

    def _after(self, pace: Pace) -> float:
        """Return what s is after the search, if only its penalty moves it."""
        if pace.proportional:  # SGD decays it by the same factor in each step
            return self.start * math.exp(-2 * self.penalty * pace.length)
        return math.copysign(max(abs(self.start) - pace.length, 0), self.start)

    def _ways(self, pace: Pace, needed: float) -> str:
        """Return how thresholds would come to `needed`."""
        if needed >= 0.5:
            return (
                "The penalty pulls a threshold to 0.5 at most: use kt.ESPN or "
                "kt.GradualMagnitude, which do not depend on the size of the weights."
            )
        goal = math.log(needed / (1 - needed))
        if pace.proportional and self.start < goal:
            penalty = HEADWIND * math.log(self.start / goal) / (2 * pace.length)
            return (
                f"Raise penalty={self.penalty:g} to about {penalty:.2g}, or train for "
                "longer."
            )
        return (
            "Compile with SGD, as the paper does: its steps grow with the penalty. Or "
            f"begin nearer, with start={goal:.3g}, and raise penalty={self.penalty:g}, "
            f"or train for longer: from {self.start:g} the search needs "
            f"{pace.longer(goal - self.start)} steps or more."
        )

    def auxiliary(
        self, state: SearchState, kernel: Kernel, position: int
    ) -> SoftThreshold:
        """Return the threshold."""
        return SoftThreshold(state, kernel, np.array(self.start), self.penalty)

    def should_stop(self, ticket: Ticket, logs: dict) -> bool:
        """Return whether the thresholds leave no more weights than the budget."""
        left = count(_left(ticket))
        logs["soft_sparsity"] = left.sparsity
        return left.kept <= self.target(ticket.mask_set).kept

    def finalize(self, ticket: Ticket) -> None:
        """Let the weights start as the threshold has left them."""
        left = count(_left(ticket))
        if left.kept > self.target(ticket.mask_set).kept:
            warn_of_early_end(self, left.sparsity, "the thresholds")
        for masked in ticket.mask_set.masked:
            masked.kernel.variable.assign(masked.effective())


def _sigmoid(s: float) -> float:
    return 1 / (1 + math.exp(-s)) if s > -700 else 0.0


def _left(ticket: Ticket) -> list[np.ndarray]:
    return [mask.scores() > 0 for mask in learned(ticket.mask_set)]
