"""From scores and budgets to masks: exact counts, deterministic ties, linear time.

Pure NumPy on arrays: the same scores give the same mask on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from keras_tickets.allocation import Group, round_shares
from keras_tickets.structure import Structure


def keep_best(
    scores: Sequence[np.ndarray],
    budget: int,
    alive: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Keep exactly the `budget` highest of all scores together.

    Time is linear in the number of scores: a partition finds the threshold, nothing
    is sorted. Ties at the threshold go by `tie_order`, then by tensor.

    Args:
        scores: One array for each tensor; higher is worth keeping.
        budget: How many entries to keep over all the tensors.
        alive: Boolean arrays; what is `False` there can not be kept.

    Returns:
        One boolean array for each tensor, `True` = kept.

    Raises:
        ValueError: If `budget` is negative or more than there is to keep.

    Example:
    >>> masks = keep_best([np.array([0.3, 0.1]), np.array([0.2, 0.9, 0.1])], 2)
    >>> [mask.tolist() for mask in masks]
    [[True, False], [False, True, False]]
    """
    flat = np.concatenate([np.ravel(score) for score in scores])
    living = np.ones(flat.shape, bool)
    if alive is not None:
        living = np.concatenate([np.ravel(mask) for mask in alive])
    available = int(np.count_nonzero(living))
    if not 0 <= budget <= available:
        raise ValueError(
            f"Can not keep {budget} of {available} living entries. Expected a budget "
            f"from 0 to {available}."
        )
    kept = living.copy()
    if budget < available:
        kept = _highest(flat, living, budget, scores)
    ends = np.cumsum([np.size(score) for score in scores])[:-1]
    parts = np.split(kept, ends)
    return [
        part.reshape(score.shape) for part, score in zip(parts, scores, strict=True)
    ]


def _highest(
    flat: np.ndarray, living: np.ndarray, budget: int, scores: Sequence[np.ndarray]
) -> np.ndarray:
    """Return which of the living entries are the `budget` highest."""
    if budget == 0:
        return np.zeros(flat.shape, bool)
    values = flat[living]
    cut = values.size - budget
    threshold = np.partition(values, cut)[cut]
    kept = living & (flat > threshold)
    ties = np.flatnonzero(living & (flat == threshold))
    missing = budget - int(np.count_nonzero(kept))
    kept[ties[_first(_tie_ranks(ties, scores), missing)]] = True
    return kept


def _tie_ranks(ties: np.ndarray, scores: Sequence[np.ndarray]) -> np.ndarray:
    """Return the `tie_order` of flat positions in the concatenation of `scores`."""
    ends = np.cumsum([score.size for score in scores])
    bounds = np.searchsorted(ties, ends)
    ranks = [
        tie_order(part - (end - score.size), score.shape)
        for part, end, score in zip(
            np.split(ties, bounds[:-1]), ends, scores, strict=True
        )
    ]
    return np.concatenate(ranks)


def _first(ranks: np.ndarray, number: int) -> np.ndarray:
    """Return the indices of the `number` lowest ranks, equal ranks by position."""
    if number == ranks.size:
        return np.arange(ranks.size)
    if number == 0:
        return np.arange(0)
    threshold = np.partition(ranks, number - 1)[number - 1]
    below = np.flatnonzero(ranks < threshold)
    equal = np.flatnonzero(ranks == threshold)
    return np.concatenate([below, equal[: number - below.size]])


def tie_order(positions: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Rank positions inside a tensor so that any first part is evenly spread.

    A Kronecker sequence over the tensor's own axes: the fractional part of
    `1/2 + sum_d index_d * alpha_d` in 64-bit fixed point, with `alpha_d` the powers
    of the inverse of the generalised golden ratio. Equal scores are thereby thinned
    out at the same rate in every tensor, channel and filter tap. By plain index, ties
    would empty whole tensors and keep the corners of the filters.

    Args:
        positions: Flat indices into a tensor of `shape`.
        shape: The tensor's shape.

    Returns:
        A `uint64` rank for each position; lower is kept first.

    Reference:
        Roberts, "The Unreasonable Effectiveness of Quasirandom Sequences", 2018.
    """
    index = np.unravel_index(positions, tuple(shape) or (1,))
    ratio = _golden_ratio(len(index))
    ranks = np.full(np.shape(positions), 2**63, np.uint64)
    for axis, along in enumerate(index, start=1):
        # Odd, so that the steps along one axis never repeat.
        alpha = np.uint64(int(2**64 * ratio**-axis) | 1)
        ranks += along.astype(np.uint64) * alpha
    return ranks


def _golden_ratio(dimensions: int) -> float:
    """Return the root of `x**(d+1) = x + 1`; the golden ratio for one dimension."""
    x = 2.0
    for _ in range(64):
        x = math.pow(1 + x, 1 / (dimensions + 1))
    return x


def select(
    scores: Sequence[np.ndarray],
    groups: Sequence[Group],
    alive: Sequence[np.ndarray],
    structure: Structure,
) -> list[np.ndarray]:
    """Turn scores and budgets into masks.

    What is dead stays dead and counts among the zeros, so masks drawn one after the
    other are nested.

    Args:
        scores: One array for each tensor; higher is worth keeping.
        groups: Which tensors share which budget.
        alive: The masks so far.
        structure: What is kept together.

    Returns:
        One mask for each tensor.
    """
    pooled = [structure.pool(score) for score in scores]
    living = [structure.pool(mask) for mask in alive]
    masks: list[np.ndarray] = list(alive)
    for group in groups:
        values = [pooled[i] for i in group.members]
        room = [living[i] for i in group.members]
        for i, kept in zip(group.members, _fill(group, values, room), strict=True):
            masks[i] = structure.spread(kept, scores[i].shape)
    return masks


def _fill(
    group: Group, scores: Sequence[np.ndarray], alive: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Keep the budget of one group, pooled or shared out."""
    room = [int(np.count_nonzero(mask)) for mask in alive]
    keep = min(group.keep, sum(room))
    if group.shares is None:
        return keep_best(scores, keep, alive)
    budgets = round_shares(group.shares, keep, room)
    return [
        keep_best([score], budget, [mask])[0]
        for score, budget, mask in zip(scores, budgets, alive, strict=True)
    ]
