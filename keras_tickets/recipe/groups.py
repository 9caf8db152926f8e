"""The granules of one kernel: the weights that a mask keeps or drops as one.

A granule spans some taps, inputs and outputs of the kernel, seen as matrices of
inputs x outputs. Selection sees one score and one size for each granule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from keras_tickets.kernels.prunable import MatmulView
from keras_tickets.recipe.ranking import tie_order


@dataclass(frozen=True, eq=False)
class Granules:
    """A kernel cut into blocks, aligned at multiples of their span.

    Where an axis is no multiple of the span, the last block is smaller. Granules are
    arranged in a grid of taps x inputs x outputs; those of a single weight lie as the
    weights do.

    Args:
        view: Which axes of the kernel are taps, inputs and outputs.
        shape: The kernel's shape.
        span: How many taps, inputs and outputs a granule has at most.

    Example:
    >>> pairs = Granules(MatmulView((), (0,), (1,)), (4, 1), (1, 2, 1))
    >>> scores, alive = np.array([[4.0], [0], [1], [1]]), np.ones((4, 1), bool)
    >>> pairs.pool(scores, alive).ravel().tolist()
    [2.0, 1.0]
    >>> pairs.spread(np.array([[[True], [False]]])).ravel().tolist()
    [True, True, False, False]
    """

    view: MatmulView
    shape: tuple[int, ...]
    span: tuple[int, int, int] = (1, 1, 1)

    @classmethod
    def single(cls, shape: Sequence[int]) -> Self:
        """Return granules of one weight each, for a tensor of any shape."""
        return cls(MatmulView((), (), tuple(range(len(shape)))), tuple(shape))

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many weights each granule has."""
        if self._apart:
            return np.broadcast_to(1, self.shape)
        taps, inputs, outputs = map(np.array, self._lengths)
        return taps[:, None, None] * inputs[:, None] * outputs

    @cached_property
    def kinds(self) -> list[int]:
        """The sizes that occur, the largest first."""
        products = map(math.prod, itertools.product(*map(set, self._lengths)))
        return sorted(set(products), reverse=True)

    @property
    def capacity(self) -> int:
        """How many weights a mask can keep in the end."""
        return math.prod(self.shape)

    def pool(self, scores: np.ndarray, alive: np.ndarray | None = None) -> np.ndarray:
        """Return the mean score of the weights of each granule that live.

        The mean, not the sum: granules of different sizes compete for a budget of
        weights. Among granules of one size both rank alike.

        Args:
            scores: What each weight is worth.
            alive: The mask so far; by default all live.
        """
        if self._apart:
            return scores
        number = self.sizes if alive is None else self.count(alive)
        living = scores if alive is None else np.where(alive, scores, 0)
        # In float64, so that equal scores have equal means whatever the size.
        return self._sum(living, np.float64) / np.maximum(number, 1)

    def count(self, mask: np.ndarray) -> np.ndarray:
        """Return how many weights of each granule are kept; `mask` itself if apart."""
        return mask if self._apart else self._sum(mask, np.int64)

    def spread(self, kept: np.ndarray) -> np.ndarray:
        """Return the mask in which the `kept` granules survive."""
        if self._apart:
            return kept.reshape(self.shape)
        for axis, lengths in enumerate(self._lengths):
            kept = np.repeat(kept, lengths, axis)
        return self.view.fold(kept, self.shape)

    def first(self, scores: np.ndarray, alive: np.ndarray) -> np.ndarray | None:
        """Return which living granules come before all others, if some do."""
        return None

    def fits(self, mask: np.ndarray) -> bool:
        """Return whether each granule is kept or dropped as one."""
        return np.array_equal(self.spread(self.count(mask) > 0), mask)

    def shuffled(self, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a mask with the same number of granules of each size, elsewhere.

        Example:
        >>> mask = np.arange(6) < 2
        >>> int(Granules.single((6,)).shuffled(mask, np.random.default_rng(0)).sum())
        2
        """
        kept = self.count(mask).ravel() > 0
        sizes = self.sizes.ravel()
        for size in self.kinds:
            alike = np.flatnonzero(sizes == size)
            kept[alike] = rng.permutation(kept[alike])
        return self.spread(kept.reshape(self.sizes.shape))

    @cached_property
    def _lengths(self) -> list[list[int]]:
        """The lengths of the granules along taps, inputs and outputs."""
        axes = (self.view.taps, self.view.inputs, self.view.outputs)
        lengths = []
        for own, step in zip(axes, self.span, strict=True):
            whole, rest = divmod(math.prod(self.shape[axis] for axis in own), step)
            lengths.append([step] * whole + [rest] * (rest > 0))
        return lengths

    @cached_property
    def _apart(self) -> bool:
        """Whether each weight is a granule."""
        return self.span == (1, 1, 1)

    def _sum(self, array: np.ndarray, dtype: type) -> np.ndarray:
        sums = self.view.unfold(array)
        for axis, step in enumerate(self.span):
            if step > 1:
                starts = np.arange(0, sums.shape[axis], step)
                sums = np.add.reduceat(sums, starts, axis, dtype)
        return sums


@dataclass(frozen=True, eq=False)
class Pattern(Granules):
    """Single weights, of which no more than `kept` of each `of` inputs survive.

    The best `kept` of each group come before all others, so a budget of that many
    weights keeps exactly these, a larger one all of these and a smaller one some.

    Args:
        view: Which axes of the kernel are taps, inputs and outputs.
        shape: The kernel's shape; its inputs are a multiple of `of`.
        span: As it is.
        kept: How many weights of a group survive.
        of: How many consecutive inputs are a group.
    """

    kept: int = 2
    of: int = 4

    @property
    def capacity(self) -> int:
        """How many weights a mask can keep in the end."""
        return math.prod(self.shape) * self.kept // self.of

    def first(self, scores: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Return the living among the best `kept` of each group."""
        values = self._groups(np.where(alive, scores, -np.inf))
        order = self._tie_order(values.shape[:-1])
        values = np.take_along_axis(values, order, -1)
        best = np.argsort(-values, axis=-1, kind="stable")[..., : self.kept]
        chosen = np.zeros(values.shape, bool)
        np.put_along_axis(chosen, np.take_along_axis(order, best, -1), True, -1)
        return self._ungroup(chosen) & alive

    def fits(self, mask: np.ndarray) -> bool:
        """Return whether no group keeps more than it may."""
        return int(self._groups(mask).sum(axis=-1).max()) <= self.kept

    def shuffled(self, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a mask whose groups, and weights inside them, changed places."""
        groups = self._groups(mask)
        mixed = rng.permutation(groups.reshape(-1, self.of))
        return self._ungroup(rng.permuted(mixed, axis=1).reshape(groups.shape))

    def _tie_order(self, groups: tuple[int, ...]) -> np.ndarray:
        """Return in which order the members of each group are taken if they tie.

        In turn, beginning where the low-discrepancy order says: each member of a group
        is kept equally often. The lowest ranks among few neighbours would not be even,
        and the order of the axes as they are would chime in with the one by which a
        sparser ticket chooses among the kept.
        """
        turned = groups[::-1]
        ranks = tie_order(np.arange(math.prod(turned)), turned).reshape(turned).T
        begin = ((ranks >> np.uint64(32)) * np.uint64(self.of)) >> np.uint64(32)
        return (begin[..., None].astype(int) + np.arange(self.of)) % self.of

    def _groups(self, array: np.ndarray) -> np.ndarray:
        """Return `array` as taps x groups x outputs x members."""
        taps, inputs, outputs = (matrix := self.view.unfold(array)).shape
        groups = matrix.reshape(taps, inputs // self.of, self.of, outputs)
        return np.moveaxis(groups, 2, -1)

    def _ungroup(self, groups: np.ndarray) -> np.ndarray:
        taps, number, outputs, size = groups.shape
        matrix = np.moveaxis(groups, -1, 2).reshape(taps, number * size, outputs)
        return self.view.fold(matrix, self.shape)
