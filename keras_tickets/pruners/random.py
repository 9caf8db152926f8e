"""Random tickets, the baseline of all others."""

from __future__ import annotations

import random
from typing import Any

from keras_tickets import scores
from keras_tickets.pruners.base import (
    Pruner,
    registry,
)


def seed_or_new(seed: int | None) -> int:
    """Return `seed`, or a new one from `keras.utils.set_random_seed`'s generator."""
    return random.randrange(2**31) if seed is None else seed


@registry.register
class Random(Pruner):
    """Draws a random ticket.

    With the densities of `"erk"` this is a strong baseline; a ticket that does no
    better than random at equal layer budgets is luck.

    Args:
        sparsity: Fraction of the prunable weights that become zero, in [0, 1).
        allocation: `"erk"` (default), `"er"`, `"smart_ratio"`, `"uniform"`, `"global"`
            or sparsities by name; see `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When; at the beginning of `fit` by default.
        seed: Integer that fixes the draw, on every backend alike; by default one
            from `keras.utils.set_random_seed`'s generator.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.

    Reference:
        Gale et al., "The state of sparsity in deep neural networks", 2019.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        allocation: Any = "erk",
        structure: Any = "unstructured",
        schedule: Any = "once",
        seed: int | None = None,
        on_collapse: str = "raise",
    ) -> None:
        self.seed = seed_or_new(seed)
        score = scores.Random(self.seed)
        super().__init__(sparsity, score, allocation, structure, schedule, on_collapse)


@registry.register
class Static(Random):
    """Static sparse training: a random ticket that trains and never moves.

    The baseline of `RigL` and `SET`, under the name that it has there. The arguments
    are those of `Random`.

    Reference:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners", 2020.
    """
