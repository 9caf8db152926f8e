"""How far a rewritten network is from the one it was, on random inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_tickets.backend.agreement import Reference
from keras_tickets.backend.copying import at_rest
from keras_tickets.backend.random_inputs import (
    Vocabulary,
    make_samples,
    to_tensors,
    vocabulary_of,
)
from keras_tickets.mobile.preparing.network_graph import (
    Graph,
    Node,
    Value,
    packed,
    values_in,
)
from keras_tickets.runtime import inputs, interpreters

Difference = tuple[float, float]


def differences(
    before: Graph, after: Graph, steps: Sequence[Sequence[Value]]
) -> tuple[list[Difference], Difference]:
    """Return what each step changed on its own, and all of them the outputs.

    Behind each step the run goes on with the numbers of the stock network, so that a
    step does not answer for those before it.

    Args:
        before: The network as it was read.
        after: The same one, rewritten.
        steps: For each rewrite, the values that should be as before.

    Returns:
        Largest differences: absolute, and relative to the largest value.
    """
    samples = to_tensors(_samples(before))
    steps = [_of_both(after, values) for values in steps]
    held: dict[int | None, Any] = {}
    wanted = {value.number for values in steps for value in values} - {None}

    def keep(value: Value, x: Any) -> Any:
        if value.number in wanted:
            held[value.number] = x
        return x

    expected = _run(before, samples, keep)
    given = _run(after, samples, lambda value, x: x)
    seen: dict[int, Difference] = {}

    def force(value: Value, x: Any) -> Any:
        if value.number not in held:
            return x
        stock = held[value.number]
        seen[id(value)] = _difference(stock, x)
        same = np.prod(stock.shape) == np.prod(x.shape)
        return ops.reshape(stock, x.shape) if same else x

    if wanted:
        _run(after, samples, force)
    alone = [
        _largest([seen[id(value)] for value in values if id(value) in seen])
        for values in steps
    ]
    pairs = zip(tree.flatten(expected), tree.flatten(given), strict=True)
    return alone, _largest([_difference(a, b) for a, b in pairs])


def _of_both(graph: Graph, values: Sequence[Value]) -> list[Value]:
    """Return where the stock network has values too: these, or what is made of them."""
    found: list[Value] = []
    for value in values:
        if value.number is not None:
            found.append(value)
            continue
        readers = [n for n in graph.every() if any(v is value for v in n.inputs)]
        found += _of_both(graph, [v for n in readers for v in values_in(n.given)])
    return found


def _run(
    graph: Graph, samples: Sequence[Any], visit: Callable[[Value, Any], Any]
) -> Any:
    """Return the outputs; `visit` may replace what a node gives."""

    def call(node: Node, take: Callable[[Value], Any]) -> Any:
        if node.inner is not None:
            given = node.inner.run([take(value) for value in node.inputs], call)
        else:
            given = node.call(take)
        seen = [
            visit(value, x)
            for value, x in zip(values_in(node.given), tree.flatten(given), strict=True)
        ]
        return tree.pack_sequence_as(given, seen)

    with at_rest(graph.model):
        return graph.run(samples, call)


def reference(graph: Graph) -> Reference:
    """Return what a graph computes, with the layers of the user's own model in it."""
    samples = _samples(graph)
    given = _run(graph, to_tensors(samples), lambda value, x: x)
    outputs = tuple(ops.convert_to_numpy(x) for x in tree.flatten(given))
    return Reference(graph.model, [packed(graph.model, samples)], outputs)


def _samples(graph: Graph) -> list[Any]:
    known = vocabulary_of(graph.model)
    return [_sample(value, known) for value in graph.inputs]


def _sample(value: Value, known: Vocabulary) -> Any:
    shape, dtype = inputs.concrete(value.shape), value.spec.dtype
    if dtype != "string":
        return interpreters.values(shape, dtype)
    [[text]] = make_samples(known, [keras.InputSpec(shape=shape, dtype=dtype)], 1)
    return text


def _difference(before: Any, after: Any) -> Difference:
    a, b = (
        ops.convert_to_numpy(ops.cast(x, "float32")).ravel() for x in (before, after)
    )
    if a.size != b.size:
        return float("nan"), float("nan")
    far = float(np.max(np.abs(a - b), initial=0))
    scale = float(np.max(np.abs(a), initial=0))
    return far, far / scale if scale else far


def _largest(found: list[Difference]) -> Difference:
    if not found:
        return float("nan"), float("nan")
    return max(a for a, _ in found), max(b for _, b in found)
