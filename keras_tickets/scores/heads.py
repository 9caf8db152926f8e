"""The heads of a model: what makes probabilities of its logits, and which loss asks.

A temperature divides logits. A model may return these, or have made probabilities of
them in a layer, an operation or an activation, last or in a nested model, one or
several. So each place where Keras makes probabilities is watched while the model runs:
it computes what it would return for cooler logits, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import activations, losses, ops, tree

from keras_tickets.backend import keras_private, on_host
from keras_tickets.backend.rebuilding import is_of_keras

Run = Callable[[Any], Any]

ACTIVATIONS = (
    activations.sigmoid,
    activations.hard_sigmoid,
    activations.log_sigmoid,
    activations.softmax,
    activations.log_softmax,
    ops.sigmoid,
    ops.hard_sigmoid,
    ops.log_sigmoid,
    ops.softmax,
    ops.log_softmax,
)
"""What makes probabilities of logits, or their logarithms."""

OPERATIONS = ("Sigmoid", "HardSigmoid", "LogSigmoid", "Softmax", "LogSoftmax")
"""The layers and operations that do the same."""

REARRANGING = (
    *("Activation", "Cast", "Concatenate", "Dropout", "ExpandDims", "Flatten"),
    *("GetItem", "Identity", "Permute", "Reshape", "Squeeze", "Stack", "Transpose"),
)
"""Layers and operations that only move numbers: an `Activation` if it is linear."""

LINEAR = activations.linear

BINARY = (losses.binary_crossentropy, losses.binary_focal_crossentropy)
CATEGORICAL = (
    losses.categorical_crossentropy,
    losses.categorical_focal_crossentropy,
    losses.sparse_categorical_crossentropy,
)
REGRESSION = (
    losses.cosine_similarity,
    losses.huber,
    losses.log_cosh,
    losses.mean_absolute_error,
    losses.mean_absolute_percentage_error,
    losses.mean_squared_error,
    losses.mean_squared_logarithmic_error,
    losses.poisson,
)

LEAST = 1e-18
"""The least probability whose logarithm has a second derivative in float32."""

LEAST_REST = 1e-6
"""How far below one a probability must be, so that float32 tells its odds."""


@dataclass(frozen=True)
class Cooling:
    """How the logits of a model are divided.

    Args:
        name: Who asks, for errors.
        temperature: What divides them.
        regression: Whether outputs under a loss for regression are divided as well.
    """

    name: str
    temperature: float
    regression: bool = True

    def on(
        self, model: keras.Model, run: Run, loss: Any, batches: Sequence[Sequence[Any]]
    ) -> Run:
        """Return `run`, with the logits of each output divided.

        Args:
            model: The model.
            run: Calls it on inputs.
            loss: The loss, which was called with the model's outputs once.
            batches: The data, of which the inputs are looked at.

        Raises:
            ValueError: If an output has probabilities whose logits cannot be told.
        """
        with keras.StatelessScope():  # what the call assigns is thrown away
            outputs, cooler = self._watched(model, run, batches[0][0])
        flat = tree.flatten(outputs)
        owns = keras_private.losses_by_output(loss, outputs)
        ways = [
            self._way(output, own, id(output) in cooler)
            for output, own in zip(flat, owns, strict=True)
        ]
        if any(way in (self._odds, self._shares) for way in ways):
            for x, *_ in batches:
                with keras.StatelessScope():
                    outputs = tree.flatten(run(x))
                self._check(model, outputs, ways)

        def cooled(x: Any) -> Any:
            outputs, cooler = self._watched(model, run, x)
            flat = [
                way(output, cooler.get(id(output), (None, None))[1])
                for way, output in zip(ways, tree.flatten(outputs), strict=True)
            ]
            return tree.pack_sequence_as(outputs, flat)

        return cooled

    def _watched(self, model: keras.Model, run: Run, x: Any) -> tuple[Any, dict]:
        with _watching(model, self.temperature) as cooler:
            return run(x), cooler

    def _way(self, output: Any, own: Any, watched: bool) -> Callable[[Any, Any], Any]:
        """Return what is done to an output, of which `own` is the loss."""
        function = getattr(own, "fn", own)
        if function in REGRESSION and not self.regression:
            return lambda output, cooler: output
        if watched:
            return lambda output, cooler: cooler
        values = on_host(ops.stop_gradient(output))
        if getattr(own, "from_logits", False) or not _in_unit_interval(values):
            return self._divided
        if function in BINARY:
            return self._odds
        if function in CATEGORICAL or _is_distribution(values):
            return self._shares
        return self._divided

    def _divided(self, output: Any, cooler: Any) -> Any:
        return output / self.temperature

    def _shares(self, output: Any, cooler: Any) -> Any:
        logits = ops.log(ops.maximum(output, LEAST))
        return ops.softmax(logits / self.temperature)

    def _odds(self, output: Any, cooler: Any) -> Any:
        kept = ops.clip(output, LEAST, 1 - LEAST_REST)
        return ops.sigmoid((ops.log(kept) - ops.log(1 - kept)) / self.temperature)

    def _check(
        self, model: keras.Model, outputs: Sequence[Any], ways: Sequence[Any]
    ) -> None:
        """Raise if the logits of probabilities cannot be told from these."""
        names = list(getattr(model, "output_names", None) or ())
        for number, (output, way) in enumerate(zip(outputs, ways, strict=True)):
            values = on_host(output)
            tells = (values >= LEAST).all() and (
                way != self._odds or (values <= 1 - LEAST_REST).all()
            )
            if tells or way not in (self._odds, self._shares):
                continue
            which = repr(names[number]) if number < len(names) else f"number {number}"
            raise ValueError(
                f"{self.name} divides logits by its temperature, and output {which} of "
                f"{model.name!r} has probabilities from {values.min():g} to "
                f"{values.max():g}: those next to 0 or 1 do not tell their logits, and "
                "the sigmoid or softmax that makes them is none of the model's "
                "layers. Make it one (keras.layers.Activation), or return logits under "
                "a loss with from_logits=True."
            )


def _in_unit_interval(values: np.ndarray) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _is_distribution(values: np.ndarray) -> bool:
    """Return whether the rows are probabilities that sum to one."""
    return values.shape[-1] > 1 and np.allclose(values.sum(-1), 1, atol=1e-3)


# -- while the model runs -----------------------------------------------------------


@contextlib.contextmanager
def _watching(model: keras.Model, temperature: float) -> Iterator[dict[int, Any]]:
    """Note, while a model runs, what heads return for cooler logits.

    The dict has, by `id` of what was returned, that itself and the other.
    """
    cooler: dict[int, tuple[Any, Any]] = {}
    with contextlib.ExitStack() as stack:
        for operation in _operations(model):
            name, watched = _watched_attribute(operation, temperature, cooler)
            if name:
                stack.enter_context(keras_private.in_place_of(operation, name, watched))
        yield cooler


def _operations(model: keras.Model) -> list[Any]:
    """Return all layers of a model, and the operations of its graphs, each once."""
    layers = keras_private.sublayers(model)
    graphs = [graph for layer in layers if (graph := keras_private.graph_of(layer))]
    found = [*layers, *(op for graph in graphs for op in graph.operations)]
    return list({id(operation): operation for operation in found}.values())


def _watched_attribute(
    operation: Any, temperature: float, cooler: dict[int, tuple[Any, Any]]
) -> tuple[str, Any]:
    """Return the attribute of a layer or operation to replace, and by what."""
    for name in ("activation", "function"):  # the second is that of a Lambda
        run: Any = getattr(operation, name, None)
        if any(run is each for each in ACTIVATIONS):
            return name, _head(run, temperature, cooler)
    kind = type(operation)
    if not is_of_keras(kind):
        return "", None
    if kind.__name__ in OPERATIONS:
        return "call", _head(operation.call, temperature, cooler)
    other = kind.__name__ == "Activation" and operation.activation is not LINEAR
    if kind.__name__ in REARRANGING and not other:
        return "call", _rearranging(operation.call, cooler)
    return "", None


def _head(
    run: Callable[..., Any], temperature: float, cooler: dict[int, tuple[Any, Any]]
) -> Callable[..., Any]:
    def call(logits: Any, *args: Any, **kwargs: Any) -> Any:
        returned = run(logits, *args, **kwargs)
        other = run(logits / temperature, *args, **kwargs)
        cooler[id(returned)] = returned, other  # kept, so that no other has its id
        return returned

    return call


def _rearranging(
    run: Callable[..., Any], cooler: dict[int, tuple[Any, Any]]
) -> Callable[..., Any]:
    def call(given: Any, *args: Any, **kwargs: Any) -> Any:
        returned = run(given, *args, **kwargs)
        if all(id(tensor) in cooler for tensor in tree.flatten(given)):
            other = tree.map_structure(lambda tensor: cooler[id(tensor)][1], given)
            cooler[id(returned)] = returned, run(other, *args, **kwargs)
        return returned

    return call
