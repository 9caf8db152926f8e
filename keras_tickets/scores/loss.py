"""What the scores share that ask a loss on data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_tickets._util import arguments
from keras_tickets.masks.masked_call import other_variables
from keras_tickets.scores import data as datasets
from keras_tickets.scores.base import Score, Scored, Scorer, Task, masked
from keras_tickets.scores.base import weights as weights_of
from keras_tickets.scores.blocked import why_all_zero

Batch = Sequence[Any]


class LossScore(Score):
    """A score from gradients of the loss on some data, the model in inference mode.

    BatchNorm uses its moving statistics, dropout is off, regularization is left out,
    and nothing of the model changes.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)` arrays, or an iterable of such
            batches: a list, a `tf.data.Dataset`, a `PyDataset`. A few examples of
            each class are enough. Read once, kept in memory, not saved with the
            model.
        loss: A Keras loss or its name; by default the one of `compile`.
        batch_size: How many samples of arrays are run at a time; the scores do not
            depend on it.
    """

    measure = "loss"
    unsaved = ("data",)

    def __init__(self, data: Any = None, loss: Any = None, batch_size: int = 128):
        self.data = data
        if loss is not None:
            keras.losses.get(loss)  # an unknown name is told now
        self.loss = loss
        self.batch_size = arguments.whole("batch_size", batch_size, least=1)

    def prepare(self, task: Task) -> Scorer:
        """Check data and loss, and return the scores of this data, compiled once."""
        name = type(self).__name__
        batches = datasets.batches(self.data, self.batch_size, name)
        loss = loss_of(task, self.loss, name)
        datasets.check(task.model, loss, batches, name)
        run = self.scores(task, loss, batches)
        samples = sum(datasets.length(batch) for batch in batches)

        def score(masks: Sequence[Any]) -> Scored:
            theta = masked(weights_of(task.kernels), masks)
            total, values = run(theta)
            if not any(bool(ops.any(value != 0)) for value in values):
                raise ValueError(why_all_zero(task, theta, loss, batches[0], name))
            return Scored(values, float(total) / samples)

        return score

    @abstractmethod
    def scores(
        self, task: Task, loss: Callable[..., Any], batches: Sequence[Batch]
    ) -> Callable[[list[Any]], tuple[Any, list[Any]]]:
        """Return the function from effective kernels to (total loss, scores)."""


def loss_of(task: Task, given: Any, name: str) -> Callable[..., Any]:
    """Return the loss that was given, or else the compiled one."""
    if given is not None:
        return keras.losses.get(given)
    if task.loss is None:
        raise ValueError(
            f"{name} needs a loss. Compile the ticket before drawing, "
            'ticket.compile(optimizer, loss), or name one: loss="sparse_'
            'categorical_crossentropy".'
        )
    return task.loss


def total_loss(
    task: Task, loss: Callable[..., Any], run: Callable[[Any], Any] | None = None
) -> Callable[..., tuple[Any, Any]]:
    """Return `f(theta, batch)`: the loss summed over a batch, and itself again.

    Args:
        task: The model and its kernels.
        loss: The loss, a mean over the samples.
        run: What gives the loss its outputs; the model in inference mode by default.
    """
    run = run or (lambda x: task.model(x, training=False))
    variables = [kernel.variable for kernel in task.kernels]
    others = other_variables(task.model, task.kernels)

    def function(theta: Sequence[Any], batch: Batch) -> tuple[Any, Any]:
        x, y, *weight = batch
        mapping = list(zip(variables, theta, strict=True))
        # Without the others' gradients; and what the call assigns is thrown away.
        mapping += [(v, ops.stop_gradient(v.value)) for v in others]
        with keras.StatelessScope(state_mapping=mapping):
            value = ops.mean(loss(y, run(x), *weight)) * datasets.length(batch)
        return value, ops.stop_gradient(value)

    return function
