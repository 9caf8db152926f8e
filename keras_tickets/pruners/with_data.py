"""Pruners that look at data once, before training: SNIP, GraSP and Fisher.

What differs is the score, so that is what a class states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from keras_tickets import scores
from keras_tickets.pruners.base import Pruner, registry
from keras_tickets.scores.loss import LossScore


class WithData(Pruner, ABC):
    """Draws by a score that asks a loss on data; the config leaves the data out.

    Args:
        sparsity: Fraction of the prunable weights that become zero, in [0, 1).
        data: What the score looks at.
        allocation: How many weights each kernel keeps.
        structure: What is kept together.
        schedule: When.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.
        loss: A Keras loss or its name.
        batch_size: How many samples of arrays are run at a time.
        rounds: More than one scores again after each.
    """

    unsaved = ("data",)
    score: LossScore

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
            self.score_of(data=data, loss=loss, batch_size=batch_size),
            allocation=allocation,
            structure=structure,
            schedule=schedule,
            on_collapse=on_collapse,
            rounds=rounds,
        )

    @property
    @abstractmethod
    def scored_by(self) -> type[LossScore]:
        """The class of the score."""

    def score_of(self, **arguments: Any) -> LossScore:
        """Return the score of this data."""
        return self.scored_by(**arguments)

    @property
    def data(self) -> Any:
        """The data that the score asks."""
        return self.score.data

    @property
    def loss(self) -> Any:
        """The loss, or `None` for the one of `compile`."""
        return self.score.loss

    @property
    def batch_size(self) -> int:
        """How many samples of arrays are run at a time."""
        return self.score.batch_size


@registry.register
class SNIP(WithData):
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

    scored_by = scores.SNIP


@registry.register
class GraSP(WithData):
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

    scored_by = scores.GraSP

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
        self.temperature = temperature
        super().__init__(
            sparsity,
            data,
            allocation=allocation,
            structure=structure,
            schedule=schedule,
            on_collapse=on_collapse,
            loss=loss,
            batch_size=batch_size,
            rounds=rounds,
        )

    def score_of(self, **arguments: Any) -> LossScore:
        """Return the score of this data, at the temperature."""
        return super().score_of(temperature=self.temperature, **arguments)


@registry.register
class Fisher(WithData):
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

    scored_by = scores.Fisher
