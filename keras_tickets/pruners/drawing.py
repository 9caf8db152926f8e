"""One draw: score, select, and again, down to the target."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_tickets.backend import on_host
from keras_tickets.kernels import Kernel
from keras_tickets.masks.masked_call import count
from keras_tickets.pruners import collapse
from keras_tickets.pruners.pruning_recipe import PruningRecipe
from keras_tickets.recipe.allocation import budget
from keras_tickets.recipe.groups import WeightGroups
from keras_tickets.recipe.selection import select
from keras_tickets.scores.base import Score, Scored, Scorer, Task
from keras_tickets.ticket.curve import Curve


def begun(
    kernels: Sequence[Kernel],
    masks: Sequence[np.ndarray],
    score: Score,
    measure: float = float("nan"),
) -> Curve:
    """Return the curve of a draw that has done nothing yet."""
    curve = Curve([kernel.path for kernel in kernels], score.measure)
    curve.add(masks, measure)
    return curve


def draw(
    pruner: PruningRecipe,
    task: Task,
    initial: Sequence[np.ndarray],
    sparsity: float,
    verbose: int = 0,
) -> tuple[list[np.ndarray], Curve]:
    """Return the masks at `sparsity`, and how they came about.

    A round that would cut the flow is taken back and made in two halves, down to
    single weights: tied scores on the last paths then cannot cut them all at once. A
    group without which nothing flows stays, and the next one goes: of groups of
    different sizes the last of a kernel need not carry the most for each weight.
    """
    weight_groups = pruner.weight_groups(task.kernels)
    vital = [np.zeros(mask.shape, bool) for mask in initial]
    rounds = pruner.rounds
    score = pruner.score.prepare(task)
    bar = keras.utils.Progbar(
        rounds, verbose=verbose if rounds > 1 else 0, unit_name="round"
    )
    masks, (scored, seconds) = list(initial), _timed(score, initial)
    check_finite(task.kernels, scored.values)
    if scored.collapsed:
        raise ValueError(collapse.why_dead(task.model, task.kernels, masks))
    curve = begun(task.kernels, masks, pruner.score, scored.measure)
    here, total = count(initial).sparsity, count(initial).total
    due = _targets(here, sparsity, rounds)[::-1]
    while due:
        started = time.perf_counter()
        groups = pruner.groups(task.kernels, due[-1])
        arrays = _with_vital([on_host(value) for value in scored.values], vital)
        kept = select(arrays, groups, masks, weight_groups)
        curve.score_seconds.append(seconds)
        curve.select_seconds.append(time.perf_counter() - started)
        scored, arrays = Scored([]), []  # free them, before there are others
        if len(due) > 1 or pruner.score.detects_collapse:
            scored, seconds = _timed(score, kept)
            between = _half_way(here, due[-1], total)
            if scored.collapsed and (
                between is not None or _spare(vital, masks, kept, weight_groups)
            ):
                due += [] if between is None else [between]
                scored, seconds = _timed(score, masks)
                continue
        here, masks = due.pop(), kept
        curve.add(masks, scored.measure)
        bar.update(min(len(curve.sparsity) - 1, rounds), _shown(curve))
    return masks, curve


def _with_vital(
    scores: list[np.ndarray], vital: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return the scores, infinite where nothing flows without."""
    return [
        np.where(spared, np.inf, score) if spared.any() else score
        for score, spared in zip(scores, vital, strict=True)
    ]


def _spare(
    vital: Sequence[np.ndarray],
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    weight_groups: Sequence[WeightGroups],
) -> bool:
    """Note what a cut has dropped as vital; return whether that is news.

    Single weights are not spared: the least of them carries all flow only where each
    kernel has no other, and then there is none to drop in its stead.
    """
    news = False
    for spared, old, new, own in zip(vital, before, after, weight_groups, strict=True):
        dropped = old & ~new & ~spared
        if own.distinct_sizes[0] > 1 and dropped.any():
            spared |= dropped
            news = True
    return news


def _targets(here: float, sparsity: float, rounds: int) -> list[float]:
    """Return the sparsity after each round: what is kept falls by one factor."""
    first, last = 1 - here, 1 - sparsity
    ratios = [(last / first) ** (i / rounds) for i in range(1, rounds)]
    return [*(1 - first * ratio for ratio in ratios), sparsity]


def _half_way(here: float, there: float, total: int) -> float | None:
    """Return the sparsity half-way between two, if a weight lies between them."""
    before, after = budget(total, here), budget(total, there)
    middle = (before + after) // 2
    return 1 - middle / total if after < middle < before else None


def _timed(score: Scorer, masks: Sequence[np.ndarray]) -> tuple[Scored, float]:
    started = time.perf_counter()
    scored = score([ops.convert_to_tensor(mask) for mask in masks])
    on_host(scored.values[-1][..., :1])  # one computation made them all: wait for it
    return scored, time.perf_counter() - started


def _shown(curve: Curve) -> list[tuple[str, float]]:
    shown = [("sparsity", curve.sparsity[-1])]
    if not np.isnan(curve.measure[-1]):
        shown.append((curve.measured, curve.measure[-1]))
    return shown


def check_finite(kernels: Sequence[Kernel], values: Sequence[Any]) -> None:
    """Raise if a score is not a number."""
    for kernel, value in zip(kernels, values, strict=True):
        finite = np.isfinite(on_host(value))
        if bad := finite.size - int(np.count_nonzero(finite)):
            raise ValueError(
                f"{bad} of {kernel.size} scores of {kernel.path!r} are NaN or "
                "infinite, so its weights cannot be ranked. Look for diverged or "
                "damaged weights in that layer; no mask was changed."
            )
