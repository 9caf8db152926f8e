"""What becomes of each layer when the dead channels go, and why some stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_tickets._util.checks import check_model
from keras_tickets._util.shown import Shown
from keras_tickets._util.tables import table
from keras_tickets.backend.rebuilding import graph_of_layers
from keras_tickets.channels import layer_rules
from keras_tickets.channels.coupling import Kept
from keras_tickets.channels.edits import Part
from keras_tickets.channels.liveness import live_channels
from keras_tickets.channels.mixing_layers import Linear
from keras_tickets.channels.tracing import Trace


@dataclass(frozen=True)
class Left:
    """Something that stays as it is.

    Args:
        layer: The layer.
        channels: How many dead channels of it stay; zero for a layer that no rule
            covers, which keeps everything it reads.
        reason: Why.
    """

    layer: str
    channels: int
    reason: str


@dataclass(frozen=True)
class Change:
    """What becomes of one layer.

    Args:
        config: What changes in its config.
        weights: The new value of each of its weights, by attribute.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]


@dataclass(frozen=True, repr=False)
class ShrinkPlan(Shown):
    """What shrinking a model removes and what it leaves. Prints as a table.

    Args:
        name: The name of the model.
        channels: By layer that makes channels, how many it has.
        removed: By layer, which of them go: their numbers, ascending.
        left: What stays, with the reason.
        parameters: How many the model has, and how many it will have.
        changes: By `id` of layer, what changes.
        fixed: The `id` of each layer whose config is not touched.
    """

    name: str
    channels: Mapping[str, int]
    removed: Mapping[str, np.ndarray]
    left: tuple[Left, ...]
    parameters: tuple[int, int]
    changes: Mapping[int, Change] = field(repr=False)
    fixed: frozenset[int] = field(repr=False)

    def __str__(self) -> str:
        """Return the table."""
        return _table(self)


def plan(model: keras.Model) -> ShrinkPlan:
    """Return what shrinking a plain model would remove and what it would leave.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not built, or has no graph of layers.
    """
    check_model(model)
    trace = Trace(graph_of_layers(model, "shrink()"), layer_rules.find)
    kept = live_channels(trace)
    changes = {
        key: Change(part.config(kept), part.weights(kept))
        for key, part in trace.parts.items()
    }
    makers = [part for part in trace.parts.values() if isinstance(part, Linear)]
    gone = {part.name: np.flatnonzero(~kept[part.outs]) for part in makers}
    before = model.count_params()
    growth = sum(_growth(part, changes[key]) for key, part in trace.parts.items())
    return ShrinkPlan(
        name=model.name,
        channels={part.name: len(part.outs) for part in makers},
        removed={name: channels for name, channels in gone.items() if len(channels)},
        left=(*_dead_but_kept(trace, makers, kept), *_left(trace)),
        parameters=(before, before + growth),
        changes=changes,
        fixed=frozenset(trace.fixed),
    )


def _growth(part: Part, change: Change) -> int:
    """Return by how many parameters a layer grows."""
    after = sum(value.size for value in change.weights.values())
    return after - part.layer.count_params() if change.weights else 0


def _dead_but_kept(trace: Trace, makers: list[Linear], kept: Kept) -> list[Left]:
    """Return the channels that are constant somewhere, and stay."""
    dead = np.zeros(len(trace.coupling), bool)
    for _, x in trace.tensors:
        dead[x.ids[~np.isnan(x.constants)]] = True
    rows = []
    for part in makers:
        stay = part.outs[dead[part.outs] & kept[part.outs]]
        reasons = Counter(kept.why(stay))
        rows += [Left(part.name, count, why) for why, count in reasons.items()]
    return rows


def _left(trace: Trace) -> list[Left]:
    return [Left(name, 0, why) for name, why in trace.left.items()]


# -- as a table ------------------------------------------------------------------------


def _table(plan: ShrinkPlan) -> str:
    before, after = plan.parameters
    share = f"{after / before:.3f} of " if before else ""
    counts = {
        name: (count, count - len(plan.removed.get(name, ())))
        for name, count in plan.channels.items()
    }
    return table(
        f"{plan.name}: {after:,} parameters, {share}{before:,}",
        ("layer", ">channels", ">kept", "not removed because"),
        [
            (name, f"{count:,}", f"{kept:,}", _reasons(plan, name))
            for name, (count, kept) in counts.items()
        ],
        [
            [
                (left.layer, "", "all", f"it {left.reason}")
                for left in plan.left
                if not left.channels
            ]
        ],
    )


def _reasons(plan: ShrinkPlan, name: str) -> str:
    rows = (left for left in plan.left if left.layer == name and left.channels)
    return "; ".join(f"{row.channels:,} dead: {row.reason}" for row in rows)
