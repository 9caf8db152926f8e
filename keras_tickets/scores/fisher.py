"""Fisher information: what the loss would rise by without the weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras import ops, tree

from keras_tickets import backend
from keras_tickets._util import arguments
from keras_tickets.kernels import Kernel
from keras_tickets.kernels.usage import uses
from keras_tickets.scores.base import Task, registry
from keras_tickets.scores.data import length
from keras_tickets.scores.loss import Batch, LossScore, total_loss


@registry.register
class Fisher(LossScore):
    """`theta^2 E[g^2] / 2` with the gradient `g` of each sample by itself.

    The diagonal empirical Fisher information stands for the Hessian in a Taylor
    expansion of the loss. One backward pass for each sample: give it hundreds of
    samples, not thousands.

    Args:
        data: See `keras_tickets.scores.loss.LossScore`.
        loss: See there.
        batch_size: See there.
        channel_sum: Whether each weight has the score of its output channel instead,
            `E[(sum theta g)^2] / 2` over the weights of the channel.
        cost: How much a score falls for each multiplication that a sample takes of the
            weight, or of its channel.

    Raises:
        ValueError: For a negative cost; when prepared, if there is a cost and the size
            of the model's inputs is not known.

    Reference:
        Theis et al., "Faster gaze prediction with dense networks and Fisher pruning",
        2018 (there for channels).
    """

    def __init__(
        self,
        data: Any = None,
        loss: Any = None,
        batch_size: int = 128,
        channel_sum: bool = False,
        cost: float = 0.0,
    ) -> None:
        super().__init__(data, loss, batch_size)
        self.channel_sum = arguments.switch("channel_sum", channel_sum)
        self.cost = arguments.number(
            "cost is what the loss may rise by for a multiplication less and",
            cost,
            "[0, inf)",
        )

    def scores(
        self, task: Task, loss: Callable[..., Any], batches: Sequence[Batch]
    ) -> Callable[[list[Any]], tuple[Any, list[Any]]]:
        """Return `mean_samples (theta g)^2 / 2`, summed first if so, less the cost."""
        gradient = backend.value_and_gradient(total_loss(task, loss))
        pools = [_pool(kernel) if self.channel_sum else None for kernel in task.kernels]
        costs = self._costs(task, batches[0])

        def terms(theta: list[Any], g: list[Any]) -> list[Any]:
            """Return what one sample adds: `g^2`, or the square of a channel's sum."""
            return [
                ops.square(d)
                if axes is None
                else ops.square(ops.sum(t * d, axes, keepdims=True)) + ops.zeros_like(t)
                for t, d, axes in zip(theta, g, pools, strict=True)
            ]

        @backend.compiled
        def add(theta: list[Any], sums: list[Any], sample: Batch) -> tuple:
            (value, _), g = gradient(theta, sample)
            added = terms(theta, g)
            return value, [s + a for s, a in zip(sums, added, strict=True)]

        def run(theta: list[Any]) -> tuple[Any, list[Any]]:
            total, sums, samples = 0.0, [ops.zeros_like(t) for t in theta], 0
            for sample in _one_by_one(batches):
                value, sums = add(theta, sums, sample)
                total, samples = total + value, samples + 1
            factors = [1.0 if self.channel_sum else ops.square(t) for t in theta]
            values = [0.5 * f * s / samples for f, s in zip(factors, sums, strict=True)]
            if costs is None or not any(bool(ops.any(v != 0)) for v in values):
                return total, values  # all zero is an error, whatever the cost
            return total, [v - cost for v, cost in zip(values, costs, strict=True)]

        return run

    def _costs(self, task: Task, batch: Batch) -> list[float] | None:
        """Return what the scores of each kernel fall by, if they do."""
        if not self.cost:
            return None
        given = [tree.map_structure(lambda part: part[:1], batch[0])]
        together = [
            kernel.size // kernel.extent(kernel.view.outputs) if self.channel_sum else 1
            for kernel in task.kernels
        ]
        return [
            self.cost * use.times * number
            for use, number in zip(
                uses(task.model, task.kernels, given), together, strict=True
            )
        ]


def _pool(kernel: Kernel) -> tuple[int, ...]:
    """Return the axes of a kernel over which an output channel is summed."""
    return (*kernel.view.taps, *kernel.view.inputs)


def _one_by_one(batches: Sequence[Batch]) -> Iterator[Batch]:
    for batch in batches:
        for i in range(length(batch)):
            yield tree.map_structure(lambda part, i=i: part[i : i + 1], batch)
