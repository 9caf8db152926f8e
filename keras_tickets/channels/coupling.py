"""Which channels of a network are coupled: kept or removed together.

A channel has the same id from the layer that computes it to the layers that read it:
activations, BatchNorm, pooling and concatenation carry it along, an addition couples
those that it adds. A tensor is described by the ids of its channels, and coupled
channels are kept or removed in all tensors at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


class Coupling:
    """The channels of a network: made by layers, coupled by additions.

    Example:
    >>> coupling = Coupling()
    >>> first, second = coupling.new(2), coupling.new(2)
    >>> coupling.couple([first, second], by="add")
    >>> coupling.keep(second[:1], "an output of the model")
    >>> kept = coupling.kept()
    >>> kept[first].tolist()
    [True, False]
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._keep: list[tuple[np.ndarray, str]] = []
        self._coupled_by: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, count: int) -> np.ndarray:
        """Return the ids of `count` channels that did not exist before."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def keep(self, ids: np.ndarray, why: str) -> None:
        """Keep these channels, whoever reads them."""
        self._keep.append((ids, why))

    def couple(self, tensors: Iterable[np.ndarray], by: str) -> None:
        """Keep or remove the same channels in all of these tensors."""
        first, *others = tensors
        for other in others:
            for a, b in zip(first[first != other], other[first != other], strict=True):
                self._union(int(a), int(b))
                self._coupled_by.setdefault(int(a), by)
                self._coupled_by.setdefault(int(b), by)

    def groups(self) -> np.ndarray:
        """Return by id the group of coupled channels: the least id among them."""
        return np.array([self._find(each) for each in range(len(self))], int)

    def kept(self) -> Kept:
        """Return which channels are kept so far, whoever reads them."""
        groups = self.groups()
        by = {int(groups[i]): by for i, by in reversed(self._coupled_by.items())}
        kept = Kept(groups, by)
        for ids, why in self._keep:
            kept.keep(ids, why)
        return kept

    def _find(self, each: int) -> int:
        root = each
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[each] != root:
            self._parent[each], each = root, self._parent[each]
        return root

    def _union(self, a: int, b: int) -> None:
        a, b = self._find(a), self._find(b)
        self._parent[max(a, b)] = min(a, b)


class Kept:
    """Which channels are kept, and for which reason; grows only.

    Args:
        groups: By id, the group of coupled channels that it belongs to.
        coupled_by: By group, the layer that coupled it.
    """

    def __init__(self, groups: np.ndarray, coupled_by: dict[int, str]) -> None:
        self._groups = groups
        self._coupled_by = coupled_by
        self._kept = np.zeros(len(groups), bool)
        self._why: dict[int, str] = {}

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        """Return a mask of these channels, True where one is kept."""
        return self._kept[self._groups[ids]]

    def keep(self, ids: np.ndarray, why: str) -> bool:
        """Keep these channels; return whether one of them was not kept before."""
        new = np.unique(self._groups[ids[~self[ids]]])
        self._kept[new] = True
        self._why.update(dict.fromkeys(new.tolist(), why))
        return len(new) > 0

    def why(self, ids: np.ndarray) -> Iterator[str]:
        """Yield for each of these kept channels why it is kept."""
        for group in self._groups[ids].tolist():
            by = self._coupled_by.get(group)
            coupled = f", coupled to other channels by {by}" if by else ""
            yield self._why[group] + coupled
