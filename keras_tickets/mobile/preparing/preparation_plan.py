"""What preparing a model would do, what it would leave, and how exact that is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras

from keras_tickets.backend.rebuilding import LeftAlone
from keras_tickets.mobile.preparing.exactness import (
    Difference,
    differences,
)
from keras_tickets.mobile.preparing.match import (
    Site,
    behind_convolutions,
)
from keras_tickets.mobile.preparing.network_graph import (
    Graph,
    Value,
    read,
)
from keras_tickets.mobile.preparing.obstacles import obstacles
from keras_tickets.mobile.preparing.rewrite_table import (
    REWRITES,
    Inexact,
    Rewrite,
)


@dataclass(frozen=True)
class Rewritten:
    """A rewrite that was done in one place.

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
    """A layer that XNNPACK does not take with channels first.

    Args:
        layer: The layer, nested models in front.
        reason: Why, and why it stays.
    """

    layer: str
    reason: str


@dataclass(frozen=True)
class PreparePlan:
    """What preparing a model does, and what it leaves. Prints as a table.

    Args:
        name: The name of the model.
        done: What is rewritten.
        left: What stands in the way and stays. While there is one, convolutions run
            dense; of dense layers `kt.diagnose` tells.
        difference: Largest difference of an output on random inputs.
        relative: The same, over the largest output.
        graph: The rewritten network.
    """

    name: str
    done: tuple[Rewritten, ...]
    left: tuple[Obstacle, ...]
    difference: float
    relative: float
    graph: Graph = field(repr=False)

    @property
    def exact(self) -> bool:
        """Whether all that is rewritten is exact."""
        return all(step.exact for step in self.done)

    @property
    def ready(self) -> bool:
        """Whether nothing stands in the way of sparse kernels."""
        return not self.left

    def __str__(self) -> str:
        """Returns the table."""
        from keras_tickets.mobile.preparing.plan_report import table

        return table(self)


def plan(model: keras.Model, inexact: Inexact) -> PreparePlan:
    """Returns the plan for a Functional or Sequential model of Keras."""
    graph = read(model)
    done, reasons = _rewrite(graph, inexact)
    values = [given for _, _, given in done]
    alone, whole = differences(read(model), graph, values)
    return PreparePlan(
        name=model.name,
        done=tuple(_row(*step, found) for step, found in zip(done, alone, strict=True)),
        left=tuple(Obstacle(*row) for row in obstacles(graph, reasons).items()),
        difference=whole[0],
        relative=whole[1],
        graph=graph,
    )


Step = tuple[Rewrite, str, list[Value]]


def _rewrite(graph: Graph, inexact: Inexact) -> tuple[list[Step], dict[str, str]]:
    """Rewrites a graph; returns the steps, and by path why some were not taken."""
    done: list[Step] = []
    reasons: dict[str, str] = {}
    for rewrite in REWRITES:
        if rewrite.allowed(inexact):
            done += _everywhere(graph, rewrite, reasons)
    return done, reasons


def _everywhere(graph: Graph, rewrite: Rewrite, reasons: dict[str, str]) -> list[Step]:
    done: list[Step] = []
    behind, calls = behind_convolutions(graph), graph.calls()
    for scope in list(graph.scopes()):
        for node in list(scope.nodes):
            if node not in scope.nodes or node.inner is not None:
                continue
            path = node.path
            site = Site(scope, node, id(node) in behind, calls)
            try:
                values = rewrite.apply(site)
            except LeftAlone as reason:
                reasons.setdefault(path, str(reason))
                continue
            if values is not None:
                reasons.pop(path, None)
                done.append((rewrite, path, values))
                if not rewrite.exact:
                    graph.infer([value.spec for value in graph.inputs])
    return done


def _row(rewrite: Rewrite, path: str, _: Any, found: Difference) -> Rewritten:
    return Rewritten(path, rewrite.name, rewrite.exact, *found)
