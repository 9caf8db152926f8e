"""From scores and budgets to masks: whole weight groups, exact to the group.

A budget counts weights. The best weight groups that fit it are kept: never more weights
than the budget, and fewer by less than one group. Single weights meet it exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from keras_tickets.recipe.allocation import Group, round_shares
from keras_tickets.recipe.groups import WeightGroups
from keras_tickets.recipe.ranking import keep_best, tie_order


def select(
    scores: Sequence[np.ndarray],
    groups: Sequence[Group],
    active: Sequence[np.ndarray],
    weight_groups: Sequence[WeightGroups],
) -> list[np.ndarray]:
    """Turn scores and budgets into masks.

    What is pruned stays pruned and counts among the zeros, so masks drawn one after the
    other are nested.

    Args:
        scores: One array for each tensor; the highest are kept.
        groups: Which tensors share which budget.
        active: The masks so far.
        weight_groups: What is kept together, for each tensor.

    Returns:
        One mask for each tensor.
    """
    masks: list[np.ndarray] = list(active)
    for group in groups:
        of = [weight_groups[i] for i in group.members]
        values = [scores[i] for i in group.members]
        so_far = [active[i] for i in group.members]
        kept = _in_order(group, values, so_far, of)
        for i, mask in zip(group.members, kept, strict=True):
            masks[i] = mask
    return masks


def _in_order(
    group: Group,
    scores: Sequence[np.ndarray],
    active: Sequence[np.ndarray],
    weight_groups: Sequence[WeightGroups],
) -> list[np.ndarray]:
    """Keep the budget of one group, its mandatory weights first."""
    mandatory = [
        own.mandatory(score, mask)
        for own, score, mask in zip(weight_groups, scores, active, strict=True)
    ]
    leading = [mask for mask in mandatory if mask is not None]
    if not leading:
        return _fill(group.keep, group.shares, scores, active, weight_groups)
    counts = [int(np.count_nonzero(mask)) for mask in leading]
    if group.keep <= sum(counts):
        return _fill(group.keep, group.shares, scores, leading, weight_groups)
    shares = group.shares and tuple(
        max(share - number, 0.0)
        for share, number in zip(group.shares, counts, strict=True)
    )
    others = [mask & ~lead for mask, lead in zip(active, leading, strict=True)]
    rest = _fill(group.keep - sum(counts), shares, scores, others, weight_groups)
    return [lead | mask for lead, mask in zip(leading, rest, strict=True)]


def _fill(
    keep: int,
    shares: Sequence[float] | None,
    scores: Sequence[np.ndarray],
    active: Sequence[np.ndarray],
    weight_groups: Sequence[WeightGroups],
) -> list[np.ndarray]:
    """Return masks of the best weight groups, all together or by shares."""
    values = [
        own.pool(score, mask)
        for own, score, mask in zip(weight_groups, scores, active, strict=True)
    ]
    sizes = [own.count(mask) for own, mask in zip(weight_groups, active, strict=True)]
    keep = min(keep, sum(map(_weights, sizes)))
    if shares is None:
        kept = keep_within(values, sizes, keep)
    else:
        kept = _share_out(values, sizes, keep, shares)
    return [
        _masked(*each) for each in zip(weight_groups, kept, active, sizes, strict=True)
    ]


def _weights(sizes: np.ndarray) -> int:
    return int(np.count_nonzero(sizes) if sizes.dtype == bool else sizes.sum())


def _masked(
    weight_groups: WeightGroups, kept: np.ndarray, active: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Return the mask of the kept groups; what is pruned in one stays pruned."""
    mask = weight_groups.expand(kept)
    return mask if sizes is active else mask & active


def keep_within(
    scores: Sequence[np.ndarray], sizes: Sequence[np.ndarray], budget: int
) -> list[np.ndarray]:
    """Keep the best entries whose sizes together do not exceed `budget`.

    The longest first part, in the order of the scores, that fits: no entry that is kept
    has a lower score than one that is dropped. Ties go by `tie_order`, then by tensor.
    Linear in time where all sizes are equal, else it takes a sort.

    Args:
        scores: One array for each tensor; the highest are kept.
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
        entries = [np.asarray(own, bool) for own in sizes]
        number = min(budget // size, sum(map(_weights, entries)))
        return keep_best(scores, number, entries)
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
    """Return the size of all entries that are not empty; `None` if they differ."""
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
    """Keep in each tensor what its share holds: by largest remainder, in groups.

    Each tensor gets the weight groups that fit its share. What is left goes, a group
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
    scores: np.ndarray,
    grow_scores: np.ndarray,
    active: np.ndarray,
    fraction: float,
    weight_groups: WeightGroups,
) -> np.ndarray:
    """Drop the active weight groups of lowest score and grow as many elsewhere.

    What was just dropped is among the places where something may grow. Groups change
    places with those of their own size, so the number of weights stays; one that is
    active in part, from a mask drawn otherwise, stays as it is.

    Args:
        scores: The score of each active weight; the lowest are dropped.
        grow_scores: Where to grow; the highest of what was not kept are chosen.
        active: The mask so far.
        fraction: How much of the active groups of each size to exchange, rounded down.
        weight_groups: What is dropped and grown together.

    Returns:
        A mask with as many weights as before; `active` itself if nothing moves.

    Example:
    >>> scores, grow = np.array([3.0, 1, 2, 0, 0]), np.array([9.0, 1, 9, 7, 8])
    >>> active = np.array([True, True, True, False, False])
    >>> exchange(scores, grow, active, 1 / 3, WeightGroups.single((5,))).tolist()
    [True, False, True, False, True]
    """
    sizes, counts = weight_groups.sizes, weight_groups.count(active)
    least, most = weight_groups.pool(scores), weight_groups.pool(grow_scores)
    stays, grows = counts > 0, np.zeros(counts.shape, bool)
    for size in weight_groups.distinct_sizes:
        of_size = sizes == size
        whole = of_size & (counts == size)
        total = int(np.count_nonzero(whole))
        number = math.floor(fraction * total)
        if not number:
            continue
        [kept] = keep_best([least], total - number, [whole])
        stays &= kept | ~whole
        free = of_size & ~stays & ((counts == 0) | whole)
        [grown] = keep_best([most], number, [free])
        grows |= grown
    if not grows.any():
        return active
    return (weight_groups.expand(stays) & active) | weight_groups.expand(grows)


def exchange_by_sign(
    weights: np.ndarray, grow_scores: np.ndarray, active: np.ndarray, fraction: float
) -> np.ndarray:
    """Drop the smallest positive and largest negative weights, and grow as many.

    The signs have counts of their own, and a weight that is zero has none: it is
    dropped. What was just dropped is among the places where something may grow.

    Args:
        weights: The weights.
        grow_scores: Where to grow; the highest of what was not kept are chosen.
        active: The mask so far.
        fraction: How much of the weights of each sign to drop, rounded down.

    Returns:
        A mask with as many weights as before; `active` itself if nothing moves.

    Example:
    >>> weights = np.array([3.0, 1, 2, 0, -1, -5, 0])
    >>> active, grow = weights != 0, np.array([0.0, 0, 0, 9, 0, 0, 8])
    >>> exchange_by_sign(weights, grow, active, 0.5).tolist()
    [True, False, True, True, False, True, True]
    """
    stays = np.zeros(active.shape, bool)
    for of_sign in (active & (weights > 0), active & (weights < 0)):
        total = int(np.count_nonzero(of_sign))
        number = total - math.floor(fraction * total)
        [kept] = keep_best([np.abs(weights)], number, [of_sign])
        stays |= kept
    number = int(np.count_nonzero(active)) - int(np.count_nonzero(stays))
    if not number:
        return active
    [grown] = keep_best([grow_scores], number, [~stays])
    return stays | grown
