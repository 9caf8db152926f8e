"""What is pruned, how much of it and when: a pruner without its callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_tickets import scores
from keras_tickets._util import arguments
from keras_tickets._util.registry import Configurable
from keras_tickets.kernels import Kernel
from keras_tickets.masks.masked_call import Count, MaskSet
from keras_tickets.recipe import allocation as allocations
from keras_tickets.recipe import schedules, structures
from keras_tickets.recipe.allocation import Group
from keras_tickets.recipe.groups import WeightGroups

ON_COLLAPSE = ("raise", "warn")


class PruningRecipe(Configurable):
    """Score, allocation, structure and schedule, and the budgets that follow.

    The arguments are those of `Pruner`.
    """

    def __init__(
        self,
        sparsity: float,
        score: Any,
        allocation: Any = "global",
        structure: Any = "unstructured",
        schedule: Any = "once",
        on_collapse: str = "raise",
        rounds: int = 1,
    ) -> None:
        super().__init__()  # the callback's, of a pruner
        self.rounds = arguments.whole("rounds", rounds, least=1)
        self.sparsity = arguments.number(
            "sparsity is the fraction of zeros and",
            sparsity,
            "[0, 1)",
            " For 90 % zeros write sparsity=0.9.",
        )
        self.on_collapse = arguments.word("on_collapse", on_collapse, ON_COLLAPSE)
        self.score = scores.get(score)
        self.allocation = allocations.get(allocation)
        self.structure = structures.get(structure)
        self.schedule = schedules.get(schedule)
        self._weight_groups: tuple[tuple[Kernel, ...], list[WeightGroups]] = ((), [])
        if self.schedule.initial > self.sparsity:
            raise ValueError(
                f"The schedule begins at sparsity {self.schedule.initial}, above the "
                f"pruner's {sparsity}. Lower initial=, or raise sparsity=."
            )
        stated = self.schedule.final
        if stated is not None and stated != self.sparsity:
            raise ValueError(
                f"The schedule ends at sparsity {stated}, the pruner at {sparsity}. "
                f"Give both the same: sparsity={stated}."
            )

    def target(self, masks: MaskSet) -> Count:
        """Return the count that the masks must have in the end.

        Exact for single weights; of larger groups as many are kept as fit it.
        """
        total = sum(kernel.size for kernel in masks.kernels)
        return Count(total, self._keep(masks.kernels, self.sparsity))

    def training_flops(self, dense: float, sparse: float, run: schedules.Run) -> float:
        """Return the operations for one sample in one training step, on average.

        Three times those of the forward pass, `E_t[3 f(s_t)]`, with `f` between
        `dense` and `sparse` in proportion to the sparsity that the schedule has
        reached. What a draw itself costs is not counted.

        Args:
            dense: Operations of one dense forward pass.
            sparse: Operations of one forward pass with the kept weights.
            run: How long the model trains.
        """
        points = 1000
        times = [run.length * (i + 0.5) / points for i in range(points)]
        reached = [self.schedule.value(t, self.sparsity, run) for t in times]
        share = sum(reached) / points / self.sparsity if self.sparsity else 0.0
        return 3 * (dense + (sparse - dense) * share)

    def weight_groups(self, kernels: Sequence[Kernel]) -> list[WeightGroups]:
        """Return what is kept together in each kernel; made once for the same ones."""
        known, groups = self._weight_groups
        if known != tuple(kernels):
            groups = [self.structure.on(kernel) for kernel in kernels]
            self._weight_groups = tuple(kernels), groups
        return groups

    def groups(self, kernels: Sequence[Kernel], sparsity: float) -> list[Group]:
        """Return which kernels share which budget at `sparsity`."""
        return self.allocation.groups(kernels, sparsity, self.sparsity)

    def _keep(self, kernels: Sequence[Kernel], sparsity: float) -> int:
        return sum(group.keep for group in self.groups(kernels, sparsity))
