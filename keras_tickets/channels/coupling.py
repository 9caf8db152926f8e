"""Which channels of a network live or die together.

A channel keeps its identity from the layer that computes it to the layers that read it:
activations, BatchNorm, pooling and concatenation carry it along, an addition ties those
that it adds. Such a path is a *wire*. A tensor is described by the wire of each of its
channels, and a wire is kept or removed in all tensors at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


class Wires:
    """The wires of a network: made by layers, tied by additions.

    Example:
    >>> wires = Wires()
    >>> first, second = wires.new(2), wires.new(2)
    >>> wires.tie([first, second], by="add")
    >>> wires.pin(second[:1], "an output of the model")
    >>> kept = wires.kept()
    >>> kept[first].tolist()
    [True, False]
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._pins: list[tuple[np.ndarray, str]] = []
        self._ties: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, count: int) -> np.ndarray:
        """Return the numbers of `count` wires that did not exist before."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def pin(self, wires: np.ndarray, why: str) -> None:
        """Keep these wires, whoever reads them."""
        self._pins.append((wires, why))

    def tie(self, tensors: Iterable[np.ndarray], by: str) -> None:
        """Keep or remove the same channels in all of these tensors."""
        first, *others = tensors
        for other in others:
            for a, b in zip(first[first != other], other[first != other], strict=True):
                self._union(int(a), int(b))
                self._ties.setdefault(int(a), by)
                self._ties.setdefault(int(b), by)

    def roots(self) -> np.ndarray:
        """Return by wire the one that stands for all that are tied to it."""
        return np.array([self._find(wire) for wire in range(len(self))], int)

    def kept(self) -> Kept:
        """Return which wires are kept so far: those that are pinned."""
        roots = self.roots()
        ties = {int(roots[wire]): by for wire, by in reversed(self._ties.items())}
        kept = Kept(roots, ties)
        for wires, why in self._pins:
            kept.keep(wires, why)
        return kept

    def _find(self, wire: int) -> int:
        root = wire
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[wire] != root:
            self._parent[wire], wire = root, self._parent[wire]
        return root

    def _union(self, a: int, b: int) -> None:
        a, b = self._find(a), self._find(b)
        self._parent[max(a, b)] = min(a, b)


class Kept:
    """Which wires are kept, and for which reason; grows only.

    Args:
        roots: By wire, the one that stands for all that are tied to it.
        ties: By such a wire, the layer that tied them.
    """

    def __init__(self, roots: np.ndarray, ties: dict[int, str]) -> None:
        self._roots = roots
        self._ties = ties
        self._kept = np.zeros(len(roots), bool)
        self._why: dict[int, str] = {}

    def __getitem__(self, wires: np.ndarray) -> np.ndarray:
        """Return a mask of these wires, True where one is kept."""
        return self._kept[self._roots[wires]]

    def keep(self, wires: np.ndarray, why: str) -> bool:
        """Keep these wires; return whether one of them was not kept before."""
        new = np.unique(self._roots[wires[~self[wires]]])
        self._kept[new] = True
        self._why.update(dict.fromkeys(new.tolist(), why))
        return len(new) > 0

    def why(self, wires: np.ndarray) -> Iterator[str]:
        """Yield for each of these kept wires why it is kept."""
        for root in self._roots[wires].tolist():
            by = self._ties.get(root)
            tie = f", tied to other channels by {by}" if by else ""
            yield self._why[root] + tie
