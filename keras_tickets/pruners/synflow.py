"""SynFlow: tickets without data that never lose their last path."""

from __future__ import annotations

from typing import Any

from keras_tickets.pruners.base import (
    Pruner,
    registry,
)


@registry.register
class SynFlow(Pruner):
    """Drops what carries the least synaptic flow, in many rounds; needs no data.

    The flow R is the sum over all paths from input to output of the product of the
    weights' magnitudes. Scoring again after every round, the pruner keeps paths whole
    down to the last one, where one-shot methods empty a layer. Any depth, any
    activation; see `keras_tickets.flow` for what each layer becomes, and for how to
    teach it one of your own. Recurrent layers are refused.

    Draw before training: on a trained model, magnitude knows more.

    Args:
        sparsity: Fraction of the prunable weights that become zero, in [0, 1).
        rounds: How many rounds; what is kept falls by the same factor in each.
        allocation: `"global"`, `"uniform"`, `"er"`, `"erk"` or sparsities by name;
            see `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When; at the beginning of `fit` by default.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.

    Raises:
        keras_tickets.flow.NotLinearError: When drawn, if a layer has no linear form.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential(
    ...     [keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(4)]
    ... )
    >>> ticket = kt.wrap(model, kt.SynFlow(0.9))
    >>> curve = ticket.draw(verbose=0)
    >>> len(curve.sparsity), round(ticket.sparsity, 2)
    (101, 0.9)

    Reference:
        Tanaka et al., "Pruning neural networks without any data by iteratively
        conserving synaptic flow", 2020.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        rounds: int = 100,
        allocation: Any = "global",
        structure: Any = "unstructured",
        schedule: Any = "once",
        on_collapse: str = "raise",
    ) -> None:
        super().__init__(
            sparsity,
            "synflow",
            allocation,
            structure,
            schedule,
            on_collapse,
            rounds,
        )
