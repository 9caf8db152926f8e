"""The best of many: exact counts, deterministic ties, linear time.

Pure NumPy on arrays: the same scores give the same mask on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def keep_best(
    scores: Sequence[np.ndarray],
    budget: int,
    active: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Keep exactly the `budget` highest of all scores together.

    Time is linear in the number of scores: a partition finds the threshold, nothing
    is sorted. Ties at the threshold go by `tie_order`, then by tensor.

    Args:
        scores: One array for each tensor; the highest are kept.
        budget: How many entries to keep over all the tensors.
        active: Boolean arrays; what is `False` there cannot be kept.

    Returns:
        One boolean array for each tensor, `True` = kept.

    Raises:
        ValueError: If `budget` is negative or more than there is to keep.

    Example:
    >>> masks = keep_best([np.array([0.3, 0.1]), np.array([0.2, 0.9, 0.1])], 2)
    >>> [mask.tolist() for mask in masks]
    [[True, False], [False, True, False]]
    """
    flat = [np.ravel(score) for score in scores]
    if active is None:
        active = [np.ones(np.shape(score), bool) for score in scores]
    masks = [np.ravel(mask) for mask in active]
    available = sum(int(np.count_nonzero(mask)) for mask in masks)
    if not 0 <= budget <= available:
        raise ValueError(
            f"Cannot keep {budget} of {available} active entries. Expected a budget "
            f"from 0 to {available}."
        )
    if budget == available:
        kept = [mask.copy() for mask in masks]
    elif budget == 0:
        kept = [np.zeros(mask.shape, bool) for mask in masks]
    else:
        kept = _highest(flat, masks, budget, available, scores)
    return [
        part.reshape(np.shape(score)) for part, score in zip(kept, scores, strict=True)
    ]


def _highest(
    flat: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    budget: int,
    available: int,
    scores: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Return which of the active entries are the `budget` highest."""
    threshold, above, tied = _threshold(flat, masks, budget, available)
    if above + tied == budget:
        return [
            _reaching(values, mask, threshold)
            for values, mask in zip(flat, masks, strict=True)
        ]
    kept = [m & (values > threshold) for values, m in zip(flat, masks, strict=True)]
    ties = [
        np.flatnonzero(m & (values == threshold))
        for values, m in zip(flat, masks, strict=True)
    ]
    ranks = [
        tie_order(positions, np.shape(score))
        for positions, score in zip(ties, scores, strict=True)
    ]
    taken = np.zeros(sum(map(len, ties)), bool)
    taken[_lowest(np.concatenate(ranks), budget - above)] = True
    ends = np.cumsum([len(positions) for positions in ties])[:-1]
    for part, positions, chosen in zip(kept, ties, np.split(taken, ends), strict=True):
        part[positions[chosen]] = True
    return kept


def _reaching(values: np.ndarray, mask: np.ndarray, threshold: float) -> np.ndarray:
    """Return `mask & (values >= threshold)`, in pieces that stay in the cache."""
    kept = np.empty(values.shape, bool)
    for start in range(0, values.size, CHUNK):
        part = slice(start, start + CHUNK)
        np.greater_equal(values[part], threshold, out=kept[part])
        kept[part] &= mask[part]
    return kept


FEW = 2**13  # so many values are partitioned at once
SAMPLE = 2**18
CHUNK = 2**18  # of float32: fits a core's cache


def _threshold(
    flat: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    budget: int,
    available: int,
) -> tuple[float, int, int]:
    """Return the `budget`-th highest active value, how many are above, how many tied.

    The idea of Floyd and Rivest's SELECT: two quantiles of a random sample bracket
    the threshold, one pass counts what is above and gathers the few values between,
    and only these are partitioned. Where the bracket misses, everything is.
    """
    low, high = -np.inf, np.inf
    if available > FEW:
        low, high = _bracket(flat, masks, budget / available)
    above, between = _gather(flat, masks, low, high)
    if above + between.size < budget:
        # Below the bracket, or tied at its end as many zeros are.
        tied = sum(
            int(np.count_nonzero(mask & (values == low)))
            for values, mask in zip(flat, masks, strict=True)
        )
        if budget <= above + between.size + tied:
            return low, above + between.size, tied
    if not above < budget <= above + between.size:
        above, between = _gather(flat, masks, -np.inf, np.inf)
    cut = between.size - (budget - above)
    threshold = np.partition(between, cut)[cut]
    above += int(np.count_nonzero(between > threshold))
    return threshold, above, int(np.count_nonzero(between == threshold))


def _bracket(
    flat: Sequence[np.ndarray], masks: Sequence[np.ndarray], fraction: float
) -> tuple[float, float]:
    """Return two values that the threshold almost certainly lies between."""
    total = sum(values.size for values in flat)
    wanted = min(SAMPLE, max(FEW // 2, total // 64))
    rng = np.random.default_rng(0)
    drawn = []
    for values, mask in zip(flat, masks, strict=True):
        share = math.ceil(wanted * values.size / total)
        positions = rng.integers(values.size, size=share)
        drawn.append(values[positions[mask[positions]]])
    sample = np.sort(np.concatenate(drawn))
    if not sample.size:
        return -np.inf, np.inf
    margin = 6 * math.sqrt(fraction * (1 - fraction) * sample.size) + 8
    middle = (1 - fraction) * sample.size
    low, high = math.floor(middle - margin), math.ceil(middle + margin)
    return (
        float(sample[low]) if low >= 0 else -np.inf,
        float(sample[high]) if high < sample.size else np.inf,
    )


def _gather(
    flat: Sequence[np.ndarray], masks: Sequence[np.ndarray], low: float, high: float
) -> tuple[int, np.ndarray]:
    """Return how many active values exceed `high`, and those above `low` up to it."""
    above, between = 0, []
    for values, mask in zip(flat, masks, strict=True):
        for start in range(0, values.size, CHUNK):
            part = values[start : start + CHUNK]
            allowed = mask[start : start + CHUNK]
            reach, exceed = part > low, part > high
            reach &= allowed
            exceed &= allowed
            above += int(np.count_nonzero(exceed))
            reach ^= exceed
            between.append(part[reach])
    return above, np.concatenate(between)


def _lowest(ranks: np.ndarray, number: int) -> np.ndarray:
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
    of the inverse of the generalized golden ratio. Equal scores are thereby thinned
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
    shape = tuple(shape) or (1,)
    ratio = _golden_ratio(len(shape))
    # Odd, so that the steps along one axis never repeat.
    alphas = [int(2**64 * ratio**-axis) | 1 for axis in range(1, len(shape) + 1)]
    steps = [
        np.arange(size, dtype=np.uint64) * np.uint64(alpha)
        for size, alpha in zip(shape, alphas, strict=True)
    ]
    if 8 * positions.size > math.prod(shape):  # all ranks, without a division
        grid = np.array(2**63, np.uint64)
        for step in steps:
            grid = np.add.outer(grid, step)
        return grid.ravel()[positions]
    index = np.unravel_index(positions, shape)
    ranks = np.full(np.shape(positions), 2**63, np.uint64)
    for step, along in zip(steps, index, strict=True):
        ranks += step[along]
    return ranks


def _golden_ratio(dimensions: int) -> float:
    """Return the root of `x**(d+1) = x + 1`; the golden ratio for one dimension."""
    x = 2.0
    for _ in range(64):
        x = math.pow(1 + x, 1 / (dimensions + 1))
    return x
