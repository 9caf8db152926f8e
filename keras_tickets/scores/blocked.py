"""Why a score is zero everywhere: the layer that lets no gradient through."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree

from keras_tickets import backend
from keras_tickets.backend import keras_private
from keras_tickets.scores.base import Task


def why_all_zero(
    task: Task,
    theta: Sequence[Any],
    loss: Callable[..., Any],
    batch: Sequence[Any],
    name: str,
) -> str:
    """Return the message for a loss that no kernel has any effect on.

    The gradient at the output of each layer tells how far it comes: it is there after
    the layer that blocks and gone before it.
    """
    head = (
        f"All scores of {name} are zero: the loss has no gradient at any of the "
        f"{len(task.kernels)} kernels. "
    )
    graph = keras_private.graph_of(task.model)
    if graph is None:
        return head + "Look for a dead or saturated layer, or a loss without gradient."
    reached = _reached(task, graph, theta, loss, batch)
    if not any(arrives for _, arrives in reached):
        return head + (
            "It is gone already at the outputs: the loss itself is flat there (it may "
            "round or compare), or the outputs are saturated. Use a differentiable "
            "loss, logits with from_logits=True, or rescale the inputs."
        )
    if not any(bool(ops.any(part != 0)) for part in tree.flatten(batch[0])):
        return head + "All inputs are zero. Give the data that fit gets."
    edges = itertools.pairwise([(None, False), *reached])
    blocker = next(
        layer for (_, before), (layer, after) in edges if after and not before
    )
    return head + (
        f"The layer {blocker.name!r} ({type(blocker).__name__}) blocks it: there is a "
        "gradient at its output and none at its input. Its activation is saturated or "
        "dead for this data; rescale the inputs or initialize it anew."
    )


def _reached(
    task: Task, graph: Any, theta: Sequence[Any], loss: Any, batch: Sequence[Any]
) -> list[tuple[Any, bool]]:
    """Return, in running order, each layer and whether a gradient is at its output."""
    x, y, *weight = batch
    layers: list[Any] = []

    def run(nudges: Sequence[Any] | None) -> tuple[Any, Any]:
        layers.clear()
        shapes: list[Any] = []

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = layer(*args, **kwargs)
            first, *rest = tree.flatten(outputs)
            if nudges is not None:
                first = first + nudges[len(layers)]
            layers.append(layer)
            shapes.append(ops.zeros_like(first))
            return tree.pack_sequence_as(outputs, [first, *rest])

        mapping = [
            (kernel.variable, value)
            for kernel, value in zip(task.kernels, theta, strict=True)
        ]
        with keras.StatelessScope(state_mapping=mapping):
            outputs = keras_private.run_graph(graph, tree.flatten(x), call)
            return ops.mean(loss(y, outputs, *weight)), shapes

    _, zeros = run(None)
    _, gradients = backend.value_and_gradient(run)(zeros)
    return [
        (layer, bool(ops.any(gradient != 0)))
        for layer, gradient in zip(layers, gradients, strict=True)
    ]
