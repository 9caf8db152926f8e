"""SNIP: connection sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_tickets import backend
from keras_tickets.scores.base import Task, registry
from keras_tickets.scores.loss import Batch, LossScore, total_loss


@registry.register
class SNIP(LossScore):
    """`|theta * dL/dtheta|`, the gradient summed over the data before the absolute.

    It equals `|dL/dm|`, how much the loss changes when the weight's mask does. See
    `keras_tickets.scores.loss.LossScore` for the arguments.

    Reference:
        Lee et al., "SNIP: single-shot network pruning based on connection
        sensitivity", 2019.
    """

    def scores(
        self, task: Task, loss: Callable[..., Any], batches: Sequence[Batch]
    ) -> Callable[[list[Any]], tuple[Any, list[Any]]]:
        """Return `|theta * sum_batches dL/dtheta|`."""
        gradient = backend.compiled(backend.value_and_gradient(total_loss(task, loss)))

        def run(theta: list[Any]) -> tuple[Any, list[Any]]:
            total, summed = accumulate(gradient, theta, batches)
            return total, [ops.abs(t * g) for t, g in zip(theta, summed, strict=True)]

        return run


def accumulate(
    gradient: Callable[..., Any], theta: list[Any], batches: Sequence[Batch]
) -> tuple[Any, list[Any]]:
    """Return loss and gradient, summed over all batches."""
    total, summed = 0.0, [ops.zeros_like(t) for t in theta]
    for batch in batches:
        (value, _), gradients = gradient(theta, batch)
        total = total + value
        summed = [s + g for s, g in zip(summed, gradients, strict=True)]
    return total, summed
