"""STR: soft thresholds that are trained, one for each kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_tickets._util import arguments
from keras_tickets.kernels import Kernel
from keras_tickets.masks.learned_masks import SoftThreshold, learned
from keras_tickets.masks.masked_call import count
from keras_tickets.pruners.base import registry
from keras_tickets.pruners.learned.base import (
    LearnedMaskPruner,
    SearchState,
    warn_of_early_end,
)
from keras_tickets.recipe.structures import Unstructured
from keras_tickets.ticket.ticket import Ticket


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
        penalty: The decay of s: `penalty * s^2` is added to the loss.
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


def _left(ticket: Ticket) -> list[np.ndarray]:
    return [mask.scores() > 0 for mask in learned(ticket.mask_set)]
