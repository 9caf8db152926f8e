"""GraSP: what a weight means for the gradient flow."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_tickets import backend
from keras_tickets._util import arguments
from keras_tickets.backend import keras_private
from keras_tickets.scores.base import Task, registry
from keras_tickets.scores.heads import Cooling
from keras_tickets.scores.loss import Batch, LossScore, total_loss
from keras_tickets.scores.snip import accumulate


@registry.register
class GraSP(LossScore):
    """`theta * H g`: how much the squared gradient falls when the weight goes.

    With `g = dL/dtheta` at the whole data and `H` its derivative, both of the loss at
    `logits / temperature`. The paper removes the weights with the highest
    `-theta * H g`, so the highest `theta * H g` are kept.

    Where a model makes probabilities of its logits (a sigmoid or softmax as activation,
    layer or operation, in whichever of its heads, nested or not), the logits are
    divided before. Probabilities that are made elsewhere, in the code of a subclassed
    model, are turned into logits and back, under a loss that says that it takes
    probabilities.

    Args:
        data: See `keras_tickets.scores.loss.LossScore`.
        temperature: Divides the logits.
        loss: See there.
        batch_size: See there; with `batch_statistics` the scores depend on it.
        batch_statistics: Whether BatchNorm uses the statistics of each batch, as in
            training; dropout stays off, and the moving statistics as they are.
        cool_regression: Whether outputs under a loss for regression (mean squared
            error and its like) are divided by the temperature as well.

    Raises:
        ValueError: When prepared, if an output has probabilities next to 0 or 1 that
            do not tell their logits.

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
        batch_statistics: bool = False,
        cool_regression: bool = True,
    ) -> None:
        super().__init__(data, loss, batch_size)
        self.temperature = arguments.number(
            "temperature", temperature, "(0, inf)", " The paper uses 200."
        )
        self.batch_statistics = arguments.switch("batch_statistics", batch_statistics)
        self.cool_regression = arguments.switch("cool_regression", cool_regression)

    def scores(
        self, task: Task, loss: Callable[..., Any], batches: Sequence[Batch]
    ) -> Callable[[list[Any]], tuple[Any, list[Any]]]:
        """Return `theta * sum_batches H g` with `g` of all batches."""
        run = functools.partial(_run, task.model, self.batch_statistics)
        cooling = Cooling(type(self).__name__, self.temperature, self.cool_regression)
        cooled = cooling.on(task.model, run, loss, batches)
        gradient = backend.value_and_gradient(total_loss(task, loss, cooled))

        def alignment(theta: Any, batch: Batch, g: Any) -> tuple[Any, Any]:
            """Return `<dL/dtheta, g>`, whose derivative is `H g`."""
            (value, _), here = gradient(theta, batch)
            dot = sum(ops.sum(a * b) for a, b in zip(here, g, strict=True))
            return dot, ops.stop_gradient(value)

        first = backend.compiled(gradient)
        second = backend.compiled(backend.value_and_gradient(alignment))

        def run_all(theta: list[Any]) -> tuple[Any, list[Any]]:
            total, g = accumulate(first, theta, batches)
            _, hg = accumulate(lambda t, batch: second(t, batch, g), theta, batches)
            return total, [t * h for t, h in zip(theta, hg, strict=True)]

        return run_all


def _run(model: keras.Model, batch_statistics: bool, x: Any) -> Any:
    """Return the outputs of `model`; BatchNorm as in training if that is wanted."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(keras_private.twice_differentiable())
        for layer in keras_private.sublayers(model) if batch_statistics else ():
            if isinstance(layer, keras.layers.BatchNormalization):
                trains = functools.partial(_in_training, layer.call)
                stack.enter_context(keras_private.in_place_of(layer, "call", trains))
        return model(x, training=False)


def _in_training(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return run(*args, **{**kwargs, "training": True})
