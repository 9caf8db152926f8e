"""Fisher: second-order sensitivity from first-order gradients."""

from __future__ import annotations

from typing import Any

from keras_tickets import scores
from keras_tickets.pruners.base import (
    Pruner,
    registry,
)
from keras_tickets.pruners.with_data import WithData


@registry.register
class Fisher(WithData, Pruner):
    """Drops the weights without which the loss would rise least, to second order.

    One backward pass for each sample: give it hundreds of samples, not thousands.

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
        rounds: More than one scores again after each.

    Raises:
        ValueError: As `keras_tickets.SNIP`.

    Example:
    >>> import keras, numpy as np, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x, y = np.eye(8, dtype="float32"), np.arange(8) % 4
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> ticket = kt.wrap(model, kt.Fisher(0.5, data=(x, y), loss=loss))
    >>> curve = ticket.draw()
    >>> ticket.sparsity
    0.5

    Reference:
        Theis et al., "Faster gaze prediction with dense networks and Fisher pruning",
        2018 (there for channels).
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
            scores.Fisher(data, loss, batch_size),
            allocation,
            structure,
            schedule,
            on_collapse,
            rounds,
        )
