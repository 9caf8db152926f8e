"""How many weights each tensor keeps.

An allocation splits the kernels into groups. The weights of one group compete for a
budget that is exact: `total - round(sparsity * total)`. Inside a group the budget is
either pooled, so that scores compare across tensors, or shared out in proportion.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_tickets._util import arguments
from keras_tickets._util.patterns import check_pattern, search
from keras_tickets._util.registry import Configurable, Registry
from keras_tickets.kernels import Kernel


@dataclass(frozen=True)
class Group:
    """Kernels that share one exact budget.

    Args:
        members: Indices of the kernels.
        keep: How many weights the group keeps.
        shares: How many weights each member would keep before rounding, or `None`
            when the scores of all members compete with each other.
    """

    members: tuple[int, ...]
    keep: int
    shares: tuple[float, ...] | None = None


def budget(total: int, sparsity: float) -> int:
    """Return how many of `total` weights are kept: the count rule of the package.

    Example:
    >>> budget(10, 0.9)
    1
    """
    return total - round(sparsity * total)


class Allocation(Configurable, ABC):
    """How a sparsity is shared out among the tensors of a model."""

    @abstractmethod
    def groups(
        self, kernels: Sequence[Kernel], sparsity: float, final: float
    ) -> list[Group]:
        """Return the groups of `kernels` and their budgets.

        Args:
            kernels: The prunable kernels.
            sparsity: The sparsity wanted now.
            final: The sparsity at the end of the schedule.
        """


class Proportional(Allocation):
    """One group whose budget is shared in proportion to a density per tensor."""

    @abstractmethod
    def densities(self, kernels: Sequence[Kernel], sparsity: float) -> np.ndarray:
        """Return the fraction of each kernel that is kept, before rounding."""

    def groups(
        self, kernels: Sequence[Kernel], sparsity: float, final: float
    ) -> list[Group]:
        """Return one group with the shares that follow from `densities`."""
        sizes = np.array([kernel.size for kernel in kernels])
        shares = self.densities(kernels, sparsity) * sizes
        keep = budget(int(sizes.sum()), sparsity)
        return [Group(tuple(range(len(kernels))), keep, tuple(shares.tolist()))]


_registry = Registry(
    "allocation",
    Allocation,
    adapt=lambda value: Explicit(value) if isinstance(value, Mapping) else None,
)


@_registry.register
class Global(Allocation):
    """All weights of the network compete; the scores decide the densities."""

    def groups(
        self, kernels: Sequence[Kernel], sparsity: float, final: float
    ) -> list[Group]:
        """Return one pooled group."""
        total = sum(kernel.size for kernel in kernels)
        return [Group(tuple(range(len(kernels))), budget(total, sparsity))]


@_registry.register
class Uniform(Proportional):
    """Every tensor keeps the same fraction."""

    def densities(self, kernels: Sequence[Kernel], sparsity: float) -> np.ndarray:
        """Return `1 - sparsity` for each kernel."""
        return np.full(len(kernels), 1.0 - sparsity)


@_registry.register
class ER(Proportional):
    r"""Erdos-Renyi: density proportional to `(n_in + n_out) / (n_in * n_out)`.

    Wide tensors become sparser than narrow ones; the taps of a convolution do not
    count. A tensor whose density would pass one is kept dense and the rest scaled to
    hold the total.

    Reference:
        Mocanu et al., "Scalable training of artificial neural networks with adaptive
        sparse connectivity inspired by network science", 2018.
    """

    def densities(self, kernels: Sequence[Kernel], sparsity: float) -> np.ndarray:
        """Return `eps * (n_in + n_out) / (n_in * n_out)`, at most one."""
        return _scale_to_total(kernels, sparsity, _er)


@_registry.register
class ERK(Proportional):
    r"""Erdos-Renyi-Kernel: ER whose sum and product run over the taps as well.

    `density = eps * (n_in + n_out + k_h + k_w) / (n_in * n_out * k_h * k_w)`, with
    `eps` such that the total holds; a tensor whose density would pass one is dense.

    Reference:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners", 2020.

    Example:
    >>> import keras
    >>> from keras_tickets.kernels import find_kernels
    >>> lenet = keras.Sequential(
    ...     [keras.Input((784,)), *map(keras.layers.Dense, (300, 100, 10))]
    ... )
    >>> ERK().densities(find_kernels(lenet), 0.9).round(6).tolist()
    [0.079568, 0.230189, 1.0]
    """

    def densities(self, kernels: Sequence[Kernel], sparsity: float) -> np.ndarray:
        """Return `eps * (n_in + n_out + taps) / size`, at most one."""
        return _scale_to_total(kernels, sparsity, _erk)


def _er(kernel: Kernel) -> float:
    inputs, outputs = _fans(kernel)
    return (inputs + outputs) / (inputs * outputs)


def _erk(kernel: Kernel) -> float:
    taps = sum(kernel.shape[axis] for axis in kernel.view.taps)
    return (sum(_fans(kernel)) + taps) / kernel.size


def _fans(kernel: Kernel) -> tuple[int, int]:
    return kernel.extent(kernel.view.inputs), kernel.extent(kernel.view.outputs)


def _scale_to_total(
    kernels: Sequence[Kernel], sparsity: float, raw: Callable[[Kernel], float]
) -> np.ndarray:
    """Return `min(1, eps * raw)` with `eps` such that the densities hit the total."""
    sizes = np.array([kernel.size for kernel in kernels], float)
    weights = np.array([raw(kernel) for kernel in kernels])
    keep = (1.0 - sparsity) * sizes.sum()
    dense = np.zeros(len(kernels), bool)
    while not dense.all():
        rest = keep - sizes[dense].sum()
        eps = rest / (weights * sizes)[~dense].sum()
        overfull = ~dense & (eps * weights > 1.0)
        if not overfull.any():
            return np.where(dense, 1.0, eps * weights)
        dense |= overfull
    return np.ones(len(kernels))


@_registry.register
class SmartRatio(Proportional):
    """Density that falls with depth: `k^2 + k` for the `k`-th layer from the end.

    The densities of a random ticket that does as well as tickets drawn by a score. The
    classifier, the last kernel of the model if it has no window (dense, einsum, 1x1
    convolution), keeps 30 %. Layers are scaled to hold the total; what a full
    layer cannot take goes to the next, at last to the classifier.

    Args:
        form: `"resnet"` as above, or `"vgg"`, where the density of the `l`-th layer
            from the input is divided by `l^2` besides, as the paper has it for VGG.

    Raises:
        ValueError: For another form; or if the classifier's 30 % are more than the
            network may keep.

    Deviations from the authors' code (JingtongSu/sanity-checking-pruning):

    - It chooses the form by the architecture, and keeps 30 % of all dense layers, of
      which its networks have one; here only the last kernel is the classifier.
    - It rounds each layer down, and what a full layer cannot take down to a whole
      number, and never gives it to the classifier; here the total is exact.

    Reference:
        Su et al., "Sanity-checking pruning methods: Random tickets can win the
        jackpot", 2020.

    Example:
    >>> import keras
    >>> from keras_tickets.kernels import find_kernels
    >>> lenet = keras.Sequential(
    ...     [keras.Input((784,)), *map(keras.layers.Dense, (300, 100, 10))]
    ... )
    >>> SmartRatio().densities(find_kernels(lenet), 0.9).round(4).tolist()
    [0.1052, 0.0526, 0.3]
    """

    CLASSIFIER = 0.3
    FORMS = ("resnet", "vgg")

    def __init__(self, form: str = "resnet") -> None:
        self.form = arguments.word("form", form, self.FORMS)

    def densities(self, kernels: Sequence[Kernel], sparsity: float) -> np.ndarray:
        """Return the densities by depth, filled up from the first layer on."""
        sizes = np.array([kernel.size for kernel in kernels], float)
        keep = (1.0 - sparsity) * sizes.sum()
        left = np.arange(len(kernels), 0, -1.0)
        ratios = left**2 + left
        if self.form == "vgg":
            ratios /= np.arange(1.0, len(kernels) + 1) ** 2
        shares = np.zeros(len(kernels))
        last = kernels[-1]
        if len(kernels) > 1 and last.extent(last.view.taps) == 1:
            ratios[-1] = 0.0
            shares[-1] = self.CLASSIFIER * last.size
        if shares[-1] >= keep:
            raise ValueError(self._too_few(last, keep, sparsity))
        shares += (keep - shares[-1]) * ratios * sizes / (ratios * sizes).sum()
        for i in range(len(kernels) - 1):
            surplus = max(0.0, shares[i] - sizes[i])
            shares[i] -= surplus
            shares[i + 1] += surplus
        return shares / sizes

    def _too_few(self, last: Kernel, keep: float, sparsity: float) -> str:
        return (
            f"SmartRatio keeps {self.CLASSIFIER:.0%} of the classifier {last.path!r}, "
            f"{self.CLASSIFIER * last.size:g} of {last.size} weights, but sparsity "
            f"{sparsity:g} leaves {keep:g} for the whole network. Lower the sparsity, "
            'or use allocation="erk".'
        )


@_registry.register
class Explicit(Allocation):
    """Sparsities by name; the rest of the model is allocated by another rule.

    Args:
        sparsities: Maps a regular expression, searched in the display paths, to the
            final sparsity of each tensor that it finds; the first match wins. While
            a schedule is under way each is scaled by the schedule's progress.
        rest: Allocation of the tensors that no expression finds.

    A plain dict stands for `Explicit(dict)` wherever an allocation is accepted:
    `kt.Magnitude(0.9, allocation={"stem": 0.0, "head": 0.5})`.
    """

    def __init__(self, sparsities: Mapping[str, float], rest: Any = "uniform") -> None:
        if not isinstance(sparsities, Mapping):
            raise ValueError(
                'sparsities maps parts of paths to sparsities, such as {"head": 0.5}. '
                f"Received: {sparsities!r}."
            )
        for pattern in sparsities:
            check_pattern(pattern, "A name in sparsities")
        self.sparsities = {
            pattern: arguments.number(
                f"In sparsities that of {pattern!r}", sparsity, "[0, 1)"
            )
            for pattern, sparsity in sparsities.items()
        }
        self.rest = get(rest)

    def groups(
        self, kernels: Sequence[Kernel], sparsity: float, final: float
    ) -> list[Group]:
        """Return a group for each named tensor and those of the rest."""
        self._check_patterns(kernels)
        named = {i: self._named(kernel) for i, kernel in enumerate(kernels)}
        progress = sparsity / final if final else 1.0
        groups = [
            Group((i,), budget(kernels[i].size, own * progress))
            for i, own in named.items()
            if own is not None
        ]
        others = [i for i, own in named.items() if own is None]
        if others:
            rest = self.rest.groups([kernels[i] for i in others], sparsity, final)
            groups += [
                Group(tuple(others[i] for i in group.members), group.keep, group.shares)
                for group in rest
            ]
        return groups

    def _check_patterns(self, kernels: Sequence[Kernel]) -> None:
        paths = [kernel.path for kernel in kernels]
        for pattern in self.sparsities:
            if not any(search(pattern, path) for path in paths):
                raise ValueError(
                    f"The allocation names {pattern!r}, which is found in none of the "
                    f"paths of the prunable weights. Expected a part of one of {paths}."
                )

    def _named(self, kernel: Kernel) -> float | None:
        found = (
            sparsity
            for pattern, sparsity in self.sparsities.items()
            if search(pattern, kernel.path)
        )
        return next(found, None)


def round_shares(
    shares: Sequence[float], total: int, capacity: Sequence[int]
) -> list[int]:
    """Round `shares` to integers that sum to `total`, none above its capacity.

    By largest remainder: everyone gets the whole part, and what is left goes one by
    one to the largest fractional parts. What a full tensor cannot take goes on to
    the others.

    Raises:
        ValueError: If the capacities hold less than `total`.

    Example:
    >>> round_shares([1.5, 2.2, 0.3], 4, [9, 9, 9])
    [2, 2, 0]
    """
    limit = np.asarray(capacity)
    if total > limit.sum():
        raise ValueError(
            f"Cannot keep {total} weights where only {limit.sum()} may be kept."
        )
    wanted = np.asarray(shares, float)
    given = np.minimum(np.floor(wanted).astype(int), limit)
    while missing := total - int(given.sum()):
        step = 1 if missing > 0 else -1
        room = given < limit if step > 0 else given > 0
        urgency = np.where(room, step * (wanted - given), -np.inf)
        chosen = np.argsort(-urgency, kind="stable")[: min(abs(missing), room.sum())]
        each = abs(missing) // len(chosen)
        given[chosen] = np.clip(given[chosen] + step * each, 0, limit[chosen])
    return given.tolist()


def get(identifier: Any) -> Allocation:
    """Return the allocation that a name, dict, config or instance stands for."""
    return _registry.get(identifier)
