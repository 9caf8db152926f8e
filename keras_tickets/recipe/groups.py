"""The weight groups of one kernel: the weights that a mask keeps or drops as one.

A weight group is a block of some taps, inputs and outputs of the kernel, seen as
matrices of inputs x outputs. Selection sees one score and one size for each group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from keras_tickets.kernels import MatmulView
from keras_tickets.recipe.ranking import tie_order


@dataclass(frozen=True, eq=False)
class WeightGroups:
    """A kernel cut into blocks, aligned at multiples of their shape.

    Where an axis is no multiple of the block, the last block is smaller. The groups are
    arranged in a grid of taps x inputs x outputs; those of a single weight lie as the
    weights do.

    Args:
        view: Which axes of the kernel are taps, inputs and outputs.
        shape: The kernel's shape.
        block_shape: How many taps, inputs and outputs a group has at most.

    Example:
    >>> pairs = WeightGroups(MatmulView((), (0,), (1,)), (4, 1), (1, 2, 1))
    >>> scores = np.array([[4.0], [0], [1], [1]])
    >>> pairs.pool(scores).ravel().tolist()
    [2.0, 1.0]
    >>> pairs.expand(np.array([[[True], [False]]])).ravel().tolist()
    [True, True, False, False]
    """

    view: MatmulView
    shape: tuple[int, ...]
    block_shape: tuple[int, int, int] = (1, 1, 1)

    @classmethod
    def single(cls, shape: Sequence[int]) -> Self:
        """Return groups of one weight each, for a tensor of any shape."""
        return cls(MatmulView((), (), tuple(range(len(shape)))), tuple(shape))

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many weights each group has."""
        if self._unstructured:
            return np.broadcast_to(1, self.shape)
        taps, inputs, outputs = map(np.array, self._lengths)
        return taps[:, None, None] * inputs[:, None] * outputs

    @cached_property
    def distinct_sizes(self) -> list[int]:
        """The sizes that occur, the largest first."""
        products = map(math.prod, itertools.product(*map(set, self._lengths)))
        return sorted(set(products), reverse=True)

    @property
    def capacity(self) -> int:
        """How many weights a mask can keep in the end."""
        return math.prod(self.shape)

    def pool(self, scores: np.ndarray, active: np.ndarray | None = None) -> np.ndarray:
        """Return the mean score of the active weights of each group.

        The mean, not the sum: groups of different sizes compete for a budget of
        weights. Among groups of one size both rank alike.

        Args:
            scores: The score of each weight.
            active: The mask so far; by default nothing is pruned.
        """
        if self._unstructured:
            return scores
        number = self.sizes if active is None else self.count(active)
        counted = scores if active is None else np.where(active, scores, 0)
        # In float64, so that equal scores have equal means whatever the size.
        return self._sum(counted, np.float64) / np.maximum(number, 1)

    def count(self, mask: np.ndarray) -> np.ndarray:
        """Return how many weights of each group a mask keeps.

        For groups of single weights that is `mask` itself.
        """
        return mask if self._unstructured else self._sum(mask, np.int64)

    def expand(self, kept: np.ndarray) -> np.ndarray:
        """Return the mask that keeps the weights of the `kept` groups."""
        if self._unstructured:
            return kept.reshape(self.shape)
        for axis, lengths in enumerate(self._lengths):
            kept = np.repeat(kept, lengths, axis)
        return self.view.fold(kept, self.shape)

    def mandatory(self, scores: np.ndarray, active: np.ndarray) -> np.ndarray | None:
        """Return the active weights that are kept before all others, if some are."""
        return None

    def matches(self, mask: np.ndarray) -> bool:
        """Return whether `mask` keeps or drops each group as one."""
        return np.array_equal(self.expand(self.count(mask) > 0), mask)

    def shuffled(self, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a mask with the same number of groups of each size, elsewhere.

        Example:
        >>> mask, rng = np.arange(6) < 2, np.random.default_rng(0)
        >>> int(WeightGroups.single((6,)).shuffled(mask, rng).sum())
        2
        """
        kept = self.count(mask).ravel() > 0
        sizes = self.sizes.ravel()
        for size in self.distinct_sizes:
            of_size = np.flatnonzero(sizes == size)
            kept[of_size] = rng.permutation(kept[of_size])
        return self.expand(kept.reshape(self.sizes.shape))

    @cached_property
    def _lengths(self) -> list[list[int]]:
        """The lengths of the blocks along taps, inputs and outputs."""
        axes = (self.view.taps, self.view.inputs, self.view.outputs)
        lengths = []
        for own, step in zip(axes, self.block_shape, strict=True):
            whole, rest = divmod(math.prod(self.shape[axis] for axis in own), step)
            lengths.append([step] * whole + [rest] * (rest > 0))
        return lengths

    @cached_property
    def _unstructured(self) -> bool:
        """Whether each weight is a group of its own."""
        return self.block_shape == (1, 1, 1)

    def _sum(self, array: np.ndarray, dtype: type) -> np.ndarray:
        sums = self.view.unfold(array)
        for axis, step in enumerate(self.block_shape):
            if step > 1:
                starts = np.arange(0, sums.shape[axis], step)
                sums = np.add.reduceat(sums, starts, axis, dtype)
        return sums


@dataclass(frozen=True, eq=False)
class Pattern(WeightGroups):
    """Single weights, of which no more than `kept` of each `of` inputs are kept.

    The best `kept` of each row of `of` inputs come before all others, so a budget of
    that many weights keeps exactly these, a larger one all of these and a smaller one
    some.

    Args:
        view: Which axes of the kernel are taps, inputs and outputs.
        shape: The kernel's shape; its inputs are a multiple of `of`.
        block_shape: As it is.
        kept: How many weights of a row are kept.
        of: How many consecutive inputs are a row.
    """

    kept: int = 2
    of: int = 4

    @property
    def capacity(self) -> int:
        """How many weights a mask can keep in the end."""
        return math.prod(self.shape) * self.kept // self.of

    def mandatory(self, scores: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Return the active weights among the best `kept` of each row."""
        values = self._rows(np.where(active, scores, -np.inf))
        order = self._tie_order(values.shape[:-1])
        values = np.take_along_axis(values, order, -1)
        best = np.argsort(-values, axis=-1, kind="stable")[..., : self.kept]
        chosen = np.zeros(values.shape, bool)
        np.put_along_axis(chosen, np.take_along_axis(order, best, -1), True, -1)
        return self._unrow(chosen) & active

    def matches(self, mask: np.ndarray) -> bool:
        """Return whether no row keeps more than `kept`."""
        return int(self._rows(mask).sum(axis=-1).max()) <= self.kept

    def shuffled(self, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a mask whose rows, and weights inside them, changed places."""
        rows = self._rows(mask)
        mixed = rng.permutation(rows.reshape(-1, self.of))
        return self._unrow(rng.permuted(mixed, axis=1).reshape(rows.shape))

    def _tie_order(self, rows: tuple[int, ...]) -> np.ndarray:
        """Return in which order the members of each row are taken if they tie.

        In turn, beginning where the low-discrepancy order says: each member of a row
        is kept equally often. The lowest ranks among few neighbors would not be even,
        and the order of the axes as they are would chime in with the one by which a
        sparser ticket chooses among the kept.
        """
        turned = rows[::-1]
        ranks = tie_order(np.arange(math.prod(turned)), turned).reshape(turned).T
        begin = ((ranks >> np.uint64(32)) * np.uint64(self.of)) >> np.uint64(32)
        return (begin[..., None].astype(int) + np.arange(self.of)) % self.of

    def _rows(self, array: np.ndarray) -> np.ndarray:
        """Return `array` as taps x rows x outputs x members."""
        taps, inputs, outputs = (matrix := self.view.unfold(array)).shape
        rows = matrix.reshape(taps, inputs // self.of, self.of, outputs)
        return np.moveaxis(rows, 2, -1)

    def _unrow(self, rows: np.ndarray) -> np.ndarray:
        taps, number, outputs, size = rows.shape
        matrix = np.moveaxis(rows, -1, 2).reshape(taps, number * size, outputs)
        return self.view.fold(matrix, self.shape)
