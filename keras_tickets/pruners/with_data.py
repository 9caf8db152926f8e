"""Pruners that look at data once, before training: SNIP, GraSP and Fisher.

What differs is the score, so that is what a class states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from keras_tickets import scores
from keras_tickets.pruners.base import Pruner, registry
from keras_tickets.recipe.structures import Channel
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

    Deviations from the authors' code (namhoonlee/snip-public), as we read it:

    - It takes one batch of training data, with BatchNorm in training mode. Here all of
      `data` is summed, and BatchNorm uses its moving statistics.
    - It initializes the weights anew, scaled to the variance, before it scores. Here
      they stay as they are.

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
        temperature: Divides the logits, so that the loss is nearly linear in them;
            also behind a sigmoid or softmax, in any head.
        allocation: `"global"`, `"uniform"`, `"er"`, `"erk"` or sparsities by name;
            see `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When; at the beginning of `fit` by default.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.
        loss: A Keras loss or its name; by default the one that the ticket is compiled
            with.
        batch_size: How many samples of arrays are run at a time.
        rounds: More than one scores again after each.
        batch_statistics: Whether BatchNorm uses the statistics of each batch while it
            is scored, as the authors' code has it, or its moving ones (the default).
            Dropout is off, and the moving statistics stay as they are.
        cool_regression: Whether outputs under a loss for regression (mean squared or
            absolute error, Huber and their like) are divided by the temperature, too.
            The paper has cross-entropy only; with `False` such a loss is asked at the
            outputs as they are.

    Raises:
        ValueError: As `keras_tickets.SNIP`; for a temperature that is not positive; or,
            when drawn, for a head with probabilities next to 0 or 1 whose logits
            cannot be told.

    Deviations from the authors' code (alecwangcq/GraSP):

    - It scores with the model in training mode: `batch_statistics=True`. It takes the
      data in two halves of 25 samples of each class, drawn without replacement from
      the loader; here each batch of `data` is one, so give it as such.
    - It initializes dense layers anew (Xavier) for the scoring, not for the training
      that follows. Here the weights are scored that will be trained.
    - It removes all scores above a threshold of which `int(n * sparsity)` are at or
      above it, so ties and the threshold itself stay; here the count is exact.

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
        batch_statistics: bool = False,
        cool_regression: bool = True,
    ) -> None:
        self.temperature = temperature
        self.batch_statistics = batch_statistics
        self.cool_regression = cool_regression
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
        return super().score_of(
            temperature=self.temperature,
            batch_statistics=self.batch_statistics,
            cool_regression=self.cool_regression,
            **arguments,
        )


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
        channel_sum: Whether a weight has the score of its output channel,
            `mean_n (sum_w theta_w g_nw)^2 / 2` over the weights of the channel, as the
            paper has it, and not its own. Needs `structure="channel"`.
        cost: The paper's beta: what the loss may rise by for each multiplication less
            that a sample takes. The scores fall by `cost` times the multiplications
            that go with the weight, or with its channel.

    Raises:
        ValueError: As `keras_tickets.SNIP`; for `channel_sum` with another structure;
            for a `cost` that is negative, or of a model whose input size is not known.

    Deviations from the paper:

    - It removes one feature map at a time while the network trains, and sums the
      scores of the batches in between; here a draw removes all, or some in each of
      `rounds`.
    - Its sum runs over the activations of a feature map times their gradients. For a
      channel without a bias, followed by ReLU, that is the sum over the channel's
      weights; a bias or shift is left out here.
    - It weighs the loss against the cost by `L + beta C`, and removes what lowers it
      most: so is our reading. The cost counted here is that of the kernel itself, not
      what the layers that follow save; beta is yours to choose.
    - Between kernels the scores of channels compare as they are, whatever their size,
      while the budget counts weights.

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
        channel_sum: bool = False,
        cost: float = 0.0,
    ) -> None:
        self.channel_sum = channel_sum
        self.cost = cost
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
        if channel_sum and not isinstance(self.structure, Channel):
            raise ValueError(
                "channel_sum gives all weights of an output channel one score, so they "
                f"stay or go together. Received: structure={structure!r}. Use "
                'structure="channel".'
            )

    def score_of(self, **arguments: Any) -> LossScore:
        """Return the score of this data, of channels or weights, less their cost."""
        return super().score_of(
            channel_sum=self.channel_sum, cost=self.cost, **arguments
        )
