"""Fisher information: what the loss would rise by without the weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras import ops, tree

from keras_tickets import backend
from keras_tickets.scores.base import Task, registry
from keras_tickets.scores.data import length
from keras_tickets.scores.loss import Batch, LossScore, total_loss


@registry.register
class Fisher(LossScore):
    """`theta^2 E[g^2] / 2` with the gradient `g` of each sample by itself.

    The diagonal empirical Fisher information stands for the Hessian in a Taylor
    expansion of the loss. One backward pass for each sample: give it hundreds of
    samples, not thousands. See `keras_tickets.scores.loss.LossScore` for the
    arguments.

    Reference:
        Theis et al., "Faster gaze prediction with dense networks and Fisher pruning",
        2018 (there for channels).
    """

    def scores(
        self, task: Task, loss: Callable[..., Any], batches: Sequence[Batch]
    ) -> Callable[[list[Any]], tuple[Any, list[Any]]]:
        """Return `theta^2 * mean_samples g^2 / 2`."""
        gradient = backend.value_and_gradient(total_loss(task, loss))

        @backend.compiled
        def add(theta: list[Any], sums: list[Any], sample: Batch) -> tuple:
            (value, _), g = gradient(theta, sample)
            return value, [s + ops.square(d) for s, d in zip(sums, g, strict=True)]

        def run(theta: list[Any]) -> tuple[Any, list[Any]]:
            total, sums, samples = 0.0, [ops.zeros_like(t) for t in theta], 0
            for sample in _one_by_one(batches):
                value, sums = add(theta, sums, sample)
                total, samples = total + value, samples + 1
            return total, [
                0.5 * ops.square(t) * s / samples
                for t, s in zip(theta, sums, strict=True)
            ]

        return run


def _one_by_one(batches: Sequence[Batch]) -> Iterator[Batch]:
    for batch in batches:
        for i in range(length(batch)):
            yield tree.map_structure(lambda part, i=i: part[i : i + 1], batch)
