"""Gem-Miner: scores of frozen weights, rounded in the forward pass."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from keras_tickets._util import arguments
from keras_tickets.kernels import Kernel
from keras_tickets.masks.learned_masks import PENALTIES, Rounded, UnitInterval, learned
from keras_tickets.masks.masked_call import MaskSet, count
from keras_tickets.pruners.base import registry
from keras_tickets.pruners.learned.base import SearchState
from keras_tickets.pruners.learned.supermask import Supermask
from keras_tickets.recipe.schedules import Freezing
from keras_tickets.recipe.structures import Unstructured
from keras_tickets.ticket.ticket import Ticket


@registry.register
class GemMiner(Supermask):
    """Mines a ticket at initialization, then trains its weights from there.

    While mining, the weights are frozen and each has a score p in [0, 1] that decides
    by rounding whether it takes part: `w_eff = w * 1[p > 0.5]`. Scores follow the
    gradient straight through the rounding, and a penalty on p pulls them down. Every
    few epochs the lowest scores are frozen at zero, on a schedule that ends at the
    sparsity. Then the weights train from their initial values under the mask.

    Args:
        sparsity: Fraction of the prunable weights that are zero in the end, in [0, 1).
        every: Epochs from one freeze to the next (the paper's T).
        until: The fraction of the run that is mining; 1.0 only mines.
        penalty: Weight of the regularisation of the scores (the paper's lambda).
        norm: `"l2"` (the sum of squares) or `"l1"`.
        revive: Whether weights whose score rounds to zero, but were never frozen,
            live on in the ticket. Without, it may be sparser than `sparsity`.
        initial: `"signed_constant"` (the paper's) gives each weight the magnitude
            `sqrt(2 / fan_in)`; `"model"` leaves its own initialization.
        optimizer: What moves the scores; SGD with rate 0.1 and momentum 0.9 by
            default. The rate falls along a cosine while mining.
        allocation: `"global"` (the paper's) or how many weights each kernel keeps.
        structure: What is kept together.
        seed: Integer that fixes the first scores, on every backend alike.
        on_collapse: `"raise"` or `"warn"` when a freeze lets no signal pass.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.GemMiner(sparsity=0.75, every=1))
    >>> ticket.compile("adam", "mse")
    >>> x, y = keras.ops.ones((8, 8)), keras.ops.ones((8, 4))
    >>> history = ticket.fit(x, y, epochs=4, verbose=0)  # mines two, trains two
    >>> ticket.sparsity
    0.75

    Deviations from the authors' code (ksreenivasan/pruning_is_enough):

    - It drops all scores up to a threshold, which may be many more where the penalty
      has made them zero; here the count is exact, and a freeze drops what is missing to
      the schedule instead of the same rate, rounded up.
    - Scores are projected onto [0, 1] after each step, there before the next one.
    - Its networks have no biases, and BatchNorm without scale and shift: see
      `keras_tickets.presets`. Here a model keeps what it has, and trains it with the
      weights.

    Reference:
        Sreenivasan et al., "Rare Gems: Finding Lottery Tickets at Initialization",
        2022.
    """

    logged = ("sparsity", "rounded_sparsity")

    def __init__(
        self,
        sparsity: float = 0.98,
        every: float = 5,
        until: float = 0.5,
        penalty: float = 1e-4,
        norm: str = "l2",
        revive: bool = True,
        initial: str = "signed_constant",
        optimizer: Any = None,
        allocation: Any = "global",
        structure: Any = "unstructured",
        seed: int | None = None,
        on_collapse: str = "raise",
    ) -> None:
        self.norm = arguments.word("norm", norm, [*PENALTIES])
        self.revive = arguments.switch("revive", revive)
        super().__init__(
            sparsity,
            allocation=allocation,
            structure=structure,
            schedule=Freezing(every, until),
            until=until,
            initial=initial,
            optimizer=optimizer,
            seed=seed,
            on_collapse=on_collapse,
        )
        if not revive and not isinstance(self.structure, Unstructured):
            raise ValueError(
                "revive=False drops each weight whose score rounds to zero, also out "
                f"of what structure={structure!r} keeps together. Use revive=True, or "
                'structure="unstructured".'
            )
        self.every = arguments.number("every", every, "(0, inf)")
        self.penalty = arguments.number("penalty", penalty, "[0, inf)")

    def auxiliary(self, state: SearchState, kernel: Kernel, position: int) -> Rounded:
        """Return scores that are uniform in [0, 1] at first."""
        first = np.random.default_rng((self.seed, position)).random(kernel.shape)
        return Rounded(
            state, kernel, first, self.penalty, self.norm, constraint=UnitInterval()
        )

    def should_stop(self, ticket: Ticket, logs: dict) -> bool:
        """Return whether the penalty has rounded everything away: then settle."""
        rounded = count(self._rounded(ticket.mask_set))
        logs["rounded_sparsity"] = rounded.sparsity
        if not rounded.kept:
            warnings.warn(
                f"The penalty ({self.penalty:g}) of GemMiner has rounded every score "
                f"to zero, at sparsity {self._masks.count().sparsity:.4g} of "
                f"{self.sparsity:g}. The highest scores are kept, the ticket settles "
                "now, and the rest of the run trains its weights. Lower penalty=.",
                stacklevel=2,
            )
        return not rounded.kept

    def finalize(self, ticket: Ticket) -> None:
        """Without `revive`, drop what rounds to zero."""
        if not self.revive:
            ticket.mask_set.assign(self._rounded(ticket.mask_set))

    def _rounded(self, masks: MaskSet) -> list[np.ndarray]:
        return [
            mask & (learned_mask.scores() > 0.5)
            for mask, learned_mask in zip(masks.values(), learned(masks), strict=True)
        ]
