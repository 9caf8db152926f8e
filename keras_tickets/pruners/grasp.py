"""GraSP: tickets that keep the gradient flowing."""

from __future__ import annotations

from typing import Any

from keras_tickets import scores
from keras_tickets.pruners.base import (
    Pruner,
    registry,
)
from keras_tickets.pruners.with_data import WithData


@registry.register
class GraSP(WithData, Pruner):
    """Drops the weights whose removal hurts the gradient flow least.

    Args:
        sparsity: Fraction of the prunable weights that become zero, in [0, 1).
        data: `(x, y)` or `(x, y, sample_weight)` arrays, or an iterable of batches of
            these; ten samples of each class are usual. It is not saved with the model.
        temperature: Divides the logits, so that the loss is nearly linear in them.
        allocation: `"global"`, `"uniform"`, `"er"`, `"erk"` or sparsities by name;
            see `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When; at the beginning of `fit` by default.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.
        loss: A Keras loss or its name; by default the one that the ticket is compiled
            with.
        batch_size: How many samples of arrays are run at a time.
        rounds: More than one scores again after each.

    Raises:
        ValueError: As `keras_tickets.SNIP`; or for a temperature that is not positive.

    Example:
    >>> import keras, numpy as np, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x, y = np.eye(8, dtype="float32"), np.arange(8) % 4
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> ticket = kt.wrap(model, kt.GraSP(0.5, data=(x, y), loss=loss))
    >>> curve = ticket.draw()
    >>> ticket.sparsity
    0.5

    Reference:
        Wang et al., "Picking winning tickets before training by preserving gradient
        flow", 2020.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        data: Any = None,
        temperature: float = 200.0,
        allocation: Any = "global",
        structure: Any = "unstructured",
        schedule: Any = "once",
        on_collapse: str = "raise",
        loss: Any = None,
        batch_size: int = 128,
        rounds: int = 1,
    ) -> None:
        super().__init__(
            sparsity,
            scores.GraSP(data, temperature, loss, batch_size),
            allocation,
            structure,
            schedule,
            on_collapse,
            rounds,
        )
        self.temperature = temperature
