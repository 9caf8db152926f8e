"""What preparing a model would do, what it would leave, and how exact that is."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_tickets._util.shown import Shown
from keras_tickets._util.tables import table
from keras_tickets.backend.rebuilding import LeftAlone
from keras_tickets.convert import names
from keras_tickets.convert.exporting import draft
from keras_tickets.mobile.preparing.building import build
from keras_tickets.mobile.preparing.exactness import Difference, differences
from keras_tickets.mobile.preparing.match import Match, behind_convolutions
from keras_tickets.mobile.preparing.network_graph import Graph, Value, read
from keras_tickets.mobile.preparing.rewrites import REWRITES, Inexact, Rewrite
from keras_tickets.tflite import graph as tflite
from keras_tickets.xnnpack.obstacles import is_pointwise, obstacles, sparse_form

_NO_CONVOLUTION = (
    "has no 1x1 convolutions, which are what XNNPACK runs sparse between a 3x3 "
    "convolution of stride 2 and a global mean; dense layers need no rewrite: they run "
    "sparse as they are, in the blocks of kt.mobile.structure()"
)


@dataclass(frozen=True)
class Rewritten:
    """A rewrite that was done, of one layer.

    Args:
        layer: The layer, nested models in front.
        rewrite: The name of the rewrite.
        exact: Whether the outputs stay, up to rounding.
        difference: Largest difference that it makes where its outputs are read.
        relative: The same, over the largest value there; NaN if the sizes differ.
    """

    layer: str
    rewrite: str
    exact: bool
    difference: float
    relative: float


@dataclass(frozen=True)
class Obstacle:
    """A layer that keeps 1x1 convolutions from running sparse.

    Args:
        layer: The layer, nested models in front.
        reason: Why a rewrite was not possible, where one was tried; else what XNNPACK
            does not take.
    """

    layer: str
    reason: str


@dataclass(frozen=True, repr=False)
class PreparePlan(Shown):
    """What preparing a model does, and what it leaves. Prints as a table.

    Args:
        name: The name of the model.
        done: What is rewritten.
        difference: Largest difference of an output on random inputs.
        relative: The same, over the largest output.
        graph: The rewritten network.
        refused: By layer, why a rewrite was not done.
    """

    name: str
    done: tuple[Rewritten, ...]
    difference: float
    relative: float
    graph: Graph = field(repr=False)
    refused: Mapping[str, str] = field(repr=False)

    @functools.cached_property
    def left(self) -> tuple[Obstacle, ...]:
        """What stands in the way and stays. While there is one, convolutions run dense.

        The rewritten network is converted for it, when it is first asked for. For
        dense layers see `kt.diagnose`.

        Raises:
            ImportError: If `keras-tickets[export]` is not installed.
        """
        return _left(self.graph, self.refused)

    @property
    def exact(self) -> bool:
        """Whether all that is rewritten is exact."""
        return all(step.exact for step in self.done)

    @property
    def ready(self) -> bool:
        """Whether nothing stands in the way of sparse kernels; see `left`."""
        return not self.left

    def __str__(self) -> str:
        """Return the table."""
        return _table(self)


def plan(model: keras.Model, inexact: Inexact) -> PreparePlan:
    """Return the plan for a Functional or Sequential model of Keras."""
    graph = read(model)
    done, refused = _rewrite(graph, inexact)
    values = [given for _, _, given in done]
    alone, whole = differences(read(model), graph, values)
    return PreparePlan(
        name=model.name,
        done=tuple(_row(*step, found) for step, found in zip(done, alone, strict=True)),
        difference=whole[0],
        relative=whole[1],
        graph=graph,
        refused=refused,
    )


# -- what is rewritten -----------------------------------------------------------------

Step = tuple[Rewrite, str, list[Value]]


def _rewrite(graph: Graph, inexact: Inexact) -> tuple[list[Step], dict[str, str]]:
    """Rewrite a graph; return the steps, and by path why some were not taken."""
    done: list[Step] = []
    refused: dict[str, str] = {}
    for rewrite in REWRITES:
        if rewrite.allowed(inexact):
            done += _everywhere(graph, rewrite, refused)
    return done, refused


def _everywhere(graph: Graph, rewrite: Rewrite, refused: dict[str, str]) -> list[Step]:
    done: list[Step] = []
    behind, calls = behind_convolutions(graph), graph.calls()
    for scope in list(graph.scopes()):
        for node in list(scope.nodes):
            if node not in scope.nodes or node.inner is not None:
                continue
            path = node.path
            match = Match(scope, node, id(node) in behind, calls)
            try:
                values = rewrite.apply(match)
            except LeftAlone as reason:
                refused.setdefault(path, str(reason))
                continue
            if values is not None:
                refused.pop(path, None)
                done.append((rewrite, path, values))
                if not rewrite.exact:
                    graph.infer([value.spec for value in graph.inputs])
    return done


def _row(rewrite: Rewrite, path: str, _: Any, found: Difference) -> Rewritten:
    return Rewritten(path, rewrite.name, rewrite.exact, *found)


# -- what is left ----------------------------------------------------------------------


def _left(graph: Graph, refused: Mapping[str, str]) -> tuple[Obstacle, ...]:
    """Return what keeps the 1x1 convolutions of a rewritten network dense.

    Args:
        graph: The rewritten network.
        refused: By layer, why a rewrite was not done: what the user can mend.
    """
    try:
        model = build(graph)
        file = sparse_form(draft(model))
    except (RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())[:300]
        return (Obstacle(graph.model.name, f"cannot be converted: {why}"),)
    found = {
        _layer_of(model, part, one.node, refused): f"{one.reason} ({one.node.op})"
        for part in file
        for one in obstacles(part)
    }
    if not any(is_pointwise(part, node) for part in file for node in part.nodes):
        found[model.name] = _NO_CONVOLUTION
    if not found:
        return ()
    found |= refused
    order = dict.fromkeys([*(node.path for node in graph.every()), *found])
    return tuple(Obstacle(path, found[path]) for path in order if path in found)


def _layer_of(
    model: keras.Model, part: tflite.Graph, node: tflite.Node, refused: Collection[str]
) -> str:
    """Return the layer of an operator; for `keras.ops`, the name of the function.

    Of layers that became one operator, the one that was not rewritten.
    """
    merged = part.values[node.outputs[0]].name.split(";")
    layers = []
    for scope in (part.scope(node), *merged):
        layer = names.layer_of(model, scope)
        layers.append(layer.rpartition("/")[2] if layer == scope else layer)
    return next((layer for layer in layers if layer in refused), layers[0])


# -- as a table ------------------------------------------------------------------------


def _table(plan: PreparePlan) -> str:
    try:
        left = {one.layer: one.reason for one in plan.left}
        verdict = (
            "what is left keeps its convolutions dense"
            if left
            else "nothing keeps it from sparse kernels"
        )
    except ImportError:
        left = dict(plan.refused)
        verdict = "install keras-tickets[export] to know what will run sparse"
    layers: dict[str, list[str]] = {}
    for layer, reason in left.items():
        layers.setdefault(reason, []).append(layer)
    return table(
        f"{plan.name}: {_what_changed(plan)}; {verdict}",
        ("layer", "rewrite", "exact", ">difference", "not rewritten because"),
        [
            (step.layer, step.rewrite, _yes(step.exact), _difference(step), "")
            for step in plan.done
        ],
        [[(", ".join(same), "", "", "", why) for why, same in layers.items()]],
    )


def _what_changed(plan: PreparePlan) -> str:
    if not plan.done:
        return "nothing to rewrite"
    return f"{len(plan.done)} rewritten, outputs differ by {plan.relative:.1g} of them"


def _yes(exact: bool) -> str:
    return "yes" if exact else "no"


def _difference(step: Rewritten) -> str:
    return f"{step.relative:.1g}" if step.relative == step.relative else "other size"
