"""SNIP: one look at the data before training."""

from __future__ import annotations

from typing import Any

from keras_tickets import scores
from keras_tickets.pruners.base import (
    Pruner,
    registry,
)
from keras_tickets.pruners.with_data import WithData


@registry.register
class SNIP(WithData, Pruner):
    """Drops the weights that the loss on some data is least sensitive to.

    Args:
        sparsity: Fraction of the prunable weights that become zero, in [0, 1).
        data: `(x, y)` or `(x, y, sample_weight)` arrays, or an iterable of batches of
            these; ten samples of each class are usual. It is not saved with the model.
        allocation: `"global"`, `"uniform"`, `"er"`, `"erk"` or sparsities by name;
            see `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When; at the beginning of `fit` by default.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.
        loss: A Keras loss or its name; by default the one that the ticket is compiled
            with.
        batch_size: How many samples of arrays are run at a time.
        rounds: More than one scores again after each: iterative SNIP.

    Raises:
        ValueError: When drawn, for data or a loss that do not fit the model, or if all
            gradients are zero, naming the layer that blocks them.

    Example:
    >>> import keras, numpy as np, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x, y = np.eye(8, dtype="float32"), np.arange(8) % 4
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> ticket = kt.wrap(model, kt.SNIP(0.5, data=(x, y), loss=loss))
    >>> curve = ticket.draw()
    >>> ticket.sparsity
    0.5

    Reference:
        Lee et al., "SNIP: single-shot network pruning based on connection
        sensitivity", 2019. Rounds: de Jorge et al., "Progressive skeletonization",
        2021.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        data: Any = None,
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
            scores.SNIP(data, loss, batch_size),
            allocation,
            structure,
            schedule,
            on_collapse,
            rounds,
        )
