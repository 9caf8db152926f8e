"""GraSP: what a weight means for the gradient flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops, tree

from keras_tickets import backend
from keras_tickets._util import arguments
from keras_tickets.scores.base import Task, registry
from keras_tickets.scores.data import ends_in_sigmoid, is_distribution
from keras_tickets.scores.loss import Batch, LossScore, total_loss
from keras_tickets.scores.snip import accumulate


@registry.register
class GraSP(LossScore):
    """`theta * H g`: how much the squared gradient falls when the weight goes.

    With `g = dL/dtheta` at the whole data and `H` its derivative, both of the loss at
    `logits / temperature`. The paper removes the weights with the highest
    `-theta * H g`, so the highest `theta * H g` are kept.

    A model that ends in a softmax or a sigmoid gives probabilities; their logits are
    taken, divided, and turned into probabilities again.

    Args:
        data: See `keras_tickets.scores.loss.LossScore`.
        temperature: Divides the logits.
        loss: See there.
        batch_size: See there.

    Reference:
        Wang et al., "Picking winning tickets before training by preserving gradient
        flow", 2020.
    """

    def __init__(
        self,
        data: Any = None,
        temperature: float = 200.0,
        loss: Any = None,
        batch_size: int = 128,
    ) -> None:
        super().__init__(data, loss, batch_size)
        self.temperature = arguments.number(
            "temperature", temperature, "(0, inf)", " The paper uses 200."
        )

    def scores(
        self, task: Task, loss: Callable[..., Any], batches: Sequence[Batch]
    ) -> Callable[[list[Any]], tuple[Any, list[Any]]]:
        """Return `theta * sum_batches H g` with `g` of all batches."""
        cool = cooled(task, batches[0], self.temperature)
        gradient = backend.value_and_gradient(total_loss(task, loss, cool))

        def alignment(theta: Any, batch: Batch, g: Any) -> tuple[Any, Any]:
            """Return `<dL/dtheta, g>`, whose derivative is `H g`."""
            (value, _), here = gradient(theta, batch)
            dot = sum(ops.sum(a * b) for a, b in zip(here, g, strict=True))
            return dot, ops.stop_gradient(value)

        first = backend.compiled(gradient)
        second = backend.compiled(backend.value_and_gradient(alignment))

        def run(theta: list[Any]) -> tuple[Any, list[Any]]:
            total, g = accumulate(first, theta, batches)
            _, hg = accumulate(lambda t, batch: second(t, batch, g), theta, batches)
            return total, [t * h for t, h in zip(theta, hg, strict=True)]

        return run


def cooled(task: Task, batch: Batch, temperature: float) -> Callable[[Any], Any]:
    """Return the function that divides the logits of outputs by `temperature`."""
    outputs = task.model(batch[0], training=False)
    sigmoid = ends_in_sigmoid(task.model)
    shares = tree.map_structure(is_distribution, outputs)

    def cool(output: Any, is_share: bool) -> Any:
        tiny = 1e-30
        if is_share:
            return ops.softmax(ops.log(output + tiny) / temperature)
        if sigmoid:
            odds = ops.log(output + tiny) - ops.log(1 - output + tiny)
            return ops.sigmoid(odds / temperature)
        return output / temperature

    return lambda outputs: tree.map_structure(cool, outputs, shares)
