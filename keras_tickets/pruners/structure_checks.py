"""Whether masks, budgets and the structure of a pruner go together."""

from __future__ import annotations

from collections.abc import Sequence

from keras_tickets.kernels import Kernel
from keras_tickets.masks.masked_call import MaskSet
from keras_tickets.pruners.pruning_recipe import PruningRecipe


def check_structure(pruner: PruningRecipe, kernels: Sequence[Kernel]) -> None:
    """Raise if the structure does not fit the kernels, or not the budgets.

    Raises:
        ValueError: Naming the kernels.
    """
    pruner.structure.check(kernels)
    capacity = [groups.capacity for groups in pruner.weight_groups(kernels)]
    if sum(capacity) == sum(kernel.size for kernel in kernels):
        return
    for group in pruner.groups(kernels, pruner.sparsity):
        room = sum(capacity[i] for i in group.members)
        if group.keep <= room:
            continue
        total = sum(kernels[i].size for i in group.members)
        raise ValueError(
            f"{type(pruner).__name__} is to keep {group.keep} of {total} weights in "
            f"{', '.join(kernels[i].path for i in group.members)}, but "
            f"{pruner.structure.label} leaves at most {room}. Expected a sparsity of "
            f"at least {1 - room / total:g} there; received {pruner.sparsity:g}"
            f" with {pruner.allocation!r}."
        )


def misfits(pruner: PruningRecipe, masks: MaskSet) -> str:
    """Tell of masks that do not hold the structure: drawn before, without it."""
    pairs = zip(
        masks.kernels,
        pruner.weight_groups(masks.kernels),
        masks.values(),
        strict=True,
    )
    paths = [kernel.path for kernel, groups, mask in pairs if not groups.matches(mask)]
    if not paths:
        return ""
    return (
        f"{type(pruner).__name__} keeps weights together as {pruner.structure!r}, "
        f"but the masks of {', '.join(paths)} do not: they had lost other "
        "weights before, and what is dead stays dead. Draw from a model "
        "without masks: kt.wrap(ticket.strip(), pruner)."
    )
