"""From scores and budgets to masks: whole granules, exact to the granule.

A budget counts weights. What is kept are the best granules that fit it: never more
weights than the budget, and fewer by less than one granule. Single weights meet it
exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from keras_tickets.recipe.allocation import (
    Group,
    round_shares,
)
from keras_tickets.recipe.groups import Granules
from keras_tickets.recipe.ranking import (
    keep_best,
    tie_order,
)


def select(
    scores: Sequence[np.ndarray],
    groups: Sequence[Group],
    alive: Sequence[np.ndarray],
    granules: Sequence[Granules],
) -> list[np.ndarray]:
    """Turn scores and budgets into masks.

    What is dead stays dead and counts among the zeros, so masks drawn one after the
    other are nested.

    Args:
        scores: One array for each tensor; higher is worth keeping.
        groups: Which tensors share which budget.
        alive: The masks so far.
        granules: What is kept together, for each tensor.

    Returns:
        One mask for each tensor.
    """
    masks: list[np.ndarray] = list(alive)
    for group in groups:
        of = [granules[i] for i in group.members]
        values = [scores[i] for i in group.members]
        living = [alive[i] for i in group.members]
        kept = _in_order(group, values, living, of)
        for i, mask in zip(group.members, kept, strict=True):
            masks[i] = mask
    return masks


def _in_order(
    group: Group,
    scores: Sequence[np.ndarray],
    alive: Sequence[np.ndarray],
    granules: Sequence[Granules],
) -> list[np.ndarray]:
    """Keep the budget of one group; what comes before all others first."""
    first = [
        own.first(score, mask)
        for own, score, mask in zip(granules, scores, alive, strict=True)
    ]
    leading = [mask for mask in first if mask is not None]
    if not leading:
        return _fill(group.keep, group.shares, scores, alive, granules)
    sure = [int(np.count_nonzero(mask)) for mask in leading]
    if group.keep <= sum(sure):
        return _fill(group.keep, group.shares, scores, leading, granules)
    shares = group.shares and tuple(
        max(share - number, 0.0)
        for share, number in zip(group.shares, sure, strict=True)
    )
    others = [mask & ~lead for mask, lead in zip(alive, leading, strict=True)]
    rest = _fill(group.keep - sum(sure), shares, scores, others, granules)
    return [lead | mask for lead, mask in zip(leading, rest, strict=True)]


def _fill(
    keep: int,
    shares: Sequence[float] | None,
    scores: Sequence[np.ndarray],
    alive: Sequence[np.ndarray],
    granules: Sequence[Granules],
) -> list[np.ndarray]:
    """Return masks of the best granules, all together or by shares."""
    values = [
        own.pool(score, mask)
        for own, score, mask in zip(granules, scores, alive, strict=True)
    ]
    sizes = [own.count(mask) for own, mask in zip(granules, alive, strict=True)]
    keep = min(keep, sum(map(_weights, sizes)))
    if shares is None:
        kept = keep_within(values, sizes, keep)
    else:
        kept = _share_out(values, sizes, keep, shares)
    return [_masked(*each) for each in zip(granules, kept, alive, sizes, strict=True)]


def _weights(sizes: np.ndarray) -> int:
    return int(np.count_nonzero(sizes) if sizes.dtype == bool else sizes.sum())


def _masked(
    granules: Granules, kept: np.ndarray, alive: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Return the mask of granules; what is dead in one that is kept stays dead."""
    mask = granules.spread(kept)
    return mask if sizes is alive else mask & alive


def keep_within(
    scores: Sequence[np.ndarray], sizes: Sequence[np.ndarray], budget: int
) -> list[np.ndarray]:
    """Keep the best entries whose sizes together do not exceed `budget`.

    The longest first part, in the order of the scores, that fits: an entry that is
    kept is never worth less than one that is dropped. Ties go by `tie_order`, then by
    tensor. Linear in time where all sizes are equal, else it takes a sort.

    Args:
        scores: One array for each tensor; higher is worth keeping.
        sizes: How much of the budget each entry takes; those of size zero are dropped.
        budget: What may be taken in all.

    Returns:
        One boolean array for each tensor, `True` = kept.

    Example:
    >>> [kept] = keep_within([np.array([0.5, 0.9, 0.7])], [np.array([1, 4, 4])], 6)
    >>> kept.tolist()
    [False, True, False]
    """
    size = _common(sizes)
    if size is not None:
        living = [np.asarray(own, bool) for own in sizes]
        number = min(budget // size, sum(map(_weights, living)))
        return keep_best(scores, number, living)
    flat = np.concatenate([np.ravel(own) for own in sizes])
    values = np.concatenate([np.ravel(score) for score in scores])
    ranks = np.concatenate(
        [tie_order(np.arange(score.size), score.shape) for score in scores]
    )
    order = np.lexsort((ranks, -values))  # stable: then by tensor
    order = order[flat[order] > 0]
    kept = np.zeros(flat.size, bool)
    kept[order[np.cumsum(flat[order]) <= budget]] = True
    parts = np.split(kept, np.cumsum([score.size for score in scores])[:-1])
    return [
        part.reshape(score.shape) for part, score in zip(parts, scores, strict=True)
    ]


def _common(sizes: Sequence[np.ndarray]) -> int | None:
    """Return the size that all living entries have, or `None` if they differ."""
    if all(own.dtype == bool for own in sizes):
        return 1
    largest = max((int(own.max(initial=0)) for own in sizes), default=0) or 1
    equal = all(((own == largest) | (own == 0)).all() for own in sizes)
    return largest if equal else None


def _share_out(
    scores: Sequence[np.ndarray],
    sizes: Sequence[np.ndarray],
    keep: int,
    shares: Sequence[float],
) -> list[np.ndarray]:
    """Keep in each tensor what its share holds: by largest remainder, in granules.

    Each tensor gets the granules that fit its share. What is left goes, a granule
    each, to those that miss the largest part of one, while it lasts.
    """
    budgets = round_shares(shares, keep, [_weights(own) for own in sizes])
    fields = list(zip(scores, sizes, strict=True))
    kept = [
        keep_within([score], [own], budget)[0]
        for (score, own), budget in zip(fields, budgets, strict=True)
    ]
    if _common(sizes) == 1:
        return kept
    used = [int(own[one].sum()) for one, own in zip(kept, sizes, strict=True)]
    largest = [max(int(own.max(initial=0)), 1) for own in sizes]
    missing = [(budgets[i] - used[i]) / largest[i] for i in range(len(kept))]
    left = keep - sum(used)
    for i in np.argsort(-np.array(missing), kind="stable"):
        score, own = fields[i]
        room = used[i] + min(largest[i], left)
        [kept[i]] = keep_within([score], [own], room)
        left -= int(own[kept[i]].sum()) - used[i]
    return kept


def exchange(
    worth: np.ndarray,
    wanted: np.ndarray,
    alive: np.ndarray,
    fraction: float,
    granules: Granules,
) -> np.ndarray:
    """Drop the least worthy of the living granules and grow as many elsewhere.

    What was just dropped is among the places where something may grow. Granules
    change places with those of their own size, so the number of weights stays; one
    that lives in part, from a mask drawn otherwise, stays as it is.

    Args:
        worth: What each living weight is worth; the lowest are dropped.
        wanted: Where to grow; the highest of what was not kept are chosen.
        alive: The mask so far.
        fraction: How much of the living granules of each size to exchange, rounded
            down.
        granules: What is dropped and grown together.

    Returns:
        A mask with as many weights as before; `alive` itself if nothing moves.

    Example:
    >>> worth, wanted = np.array([3.0, 1, 2, 0, 0]), np.array([9.0, 1, 9, 7, 8])
    >>> alive = np.array([True, True, True, False, False])
    >>> exchange(worth, wanted, alive, 1 / 3, Granules.single((5,))).tolist()
    [True, False, True, False, True]
    """
    sizes, living = granules.sizes, granules.count(alive)
    least, most = granules.pool(worth), granules.pool(wanted)
    stays, grows = living > 0, np.zeros(living.shape, bool)
    for size in granules.kinds:
        alike = sizes == size
        held = alike & (living == size)
        total = int(np.count_nonzero(held))
        number = math.floor(fraction * total)
        if not number:
            continue
        [kept] = keep_best([least], total - number, [held])
        stays &= kept | ~held
        free = alike & ~stays & ((living == 0) | held)
        [grown] = keep_best([most], number, [free])
        grows |= grown
    if not grows.any():
        return alive
    return (granules.spread(stays) & alive) | granules.spread(grows)
