"""Which BatchNorm scales the output channels of which kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_tickets.backend import keras_private
from keras_tickets.kernels import Kernel


def scales(model: keras.Model, kernels: Sequence[Kernel]) -> dict[int, keras.Variable]:
    """Return gamma by the `id` of each kernel whose outputs a BatchNorm scales.

    Only where nothing lies between the two, one kernel and one BatchNorm each: then a
    small gamma makes a channel of the kernel small, and no other. Models without a
    graph of layers (subclassed ones) have none.
    """
    feeds: list[tuple[Any, Any]] = []
    for layer in keras_private.sublayers(model):
        if (graph := keras_private.graph_of(layer)) is not None:
            feeds += [f for f in _feeds(graph) if f not in feeds]
    owned: dict[int, list[Kernel]] = {}
    for kernel in kernels:
        owned.setdefault(id(kernel.layer), []).append(kernel)
    found = {}
    for source, norm in feeds:
        alone = (
            sum(source is s for s, _ in feeds) == 1 == sum(norm is n for _, n in feeds)
        )
        own = owned.get(id(source), [])
        scaled = isinstance(norm, keras.layers.BatchNormalization) and norm.scale
        if alone and scaled and len(own) == 1 and _last_axis(own[0], norm):
            found[id(own[0].variable)] = norm.gamma
    return found


def _feeds(graph: keras.Function) -> list[tuple[Any, Any]]:
    """Return pairs of operations of which the first feeds the second."""
    feeds: list[tuple[Any, Any]] = []

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        sources = keras.tree.flatten((args, kwargs))
        feeds.extend((source, operation) for source in sources if source is not None)
        outputs = getattr(operation, "output", operation)
        return keras.tree.map_structure(lambda _: operation, outputs)

    keras_private.run_graph(graph, [None for _ in graph.inputs], call)
    return feeds


def _last_axis(kernel: Kernel, norm: Any) -> bool:
    """Return whether `norm` scales the axis of the kernel that is its output."""
    return (
        kernel.view.outputs == (len(kernel.shape) - 1,)
        and tuple(norm.gamma.shape) == kernel.shape[-1:]
    )
