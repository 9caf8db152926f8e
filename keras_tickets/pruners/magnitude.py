"""Pruning by magnitude: at once, or gradually while the model trains."""

from __future__ import annotations

from typing import Any

from keras_tickets.pruners.base import (
    Pruner,
    registry,
)


@registry.register
class Magnitude(Pruner):
    """Drops the weights of least magnitude, once.

    Use it on a trained model, followed by fine-tuning under the fixed masks; on an
    untrained one it is the weakest of the methods at initialisation.

    Args:
        sparsity: Fraction of the prunable weights that become zero, in [0, 1).
        allocation: `"global"`, `"uniform"`, `"er"`, `"erk"` or sparsities by name;
            see `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When; at the beginning of `fit` by default.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.Magnitude(sparsity=0.5))
    >>> curve = ticket.draw()
    >>> ticket.sparsity
    0.5

    Reference:
        Han et al., "Learning both weights and connections for efficient neural
        networks", 2015.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        allocation: Any = "global",
        structure: Any = "unstructured",
        schedule: Any = "once",
        on_collapse: str = "raise",
    ) -> None:
        super().__init__(
            sparsity, "magnitude", allocation, structure, schedule, on_collapse
        )


@registry.register
class GradualMagnitude(Pruner):
    """Drops the weights of least magnitude step by step while the model trains.

    The sparsity follows `s_t = s_f (1 - (1 - progress)^3)`: fast while there are
    weights to spare, slow near the end, and done at three quarters of the run, so
    that the rest of it trains the final ticket. A dropped weight stays dropped.

    Args:
        sparsity: Final fraction of the prunable weights that are zero, in [0, 1).
        allocation: `"erk"` (default: small layers stay denser, none is emptied),
            `"uniform"` (the paper's), `"er"`, `"global"` or sparsities by name; see
            `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When, and how much by then; see `keras_tickets.schedules`.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.

    Example:
    >>> import keras, keras_tickets as kt
    >>> pruner = kt.GradualMagnitude(
    ...     sparsity=0.9, schedule=kt.schedules.Polynomial(begin=0.1, end=0.8)
    ... )
    >>> pruner.schedule.end
    0.8

    Reference:
        Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning
        for model compression", 2017.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        allocation: Any = "erk",
        structure: Any = "unstructured",
        schedule: Any = "polynomial",
        on_collapse: str = "raise",
    ) -> None:
        super().__init__(
            sparsity, "magnitude", allocation, structure, schedule, on_collapse
        )
