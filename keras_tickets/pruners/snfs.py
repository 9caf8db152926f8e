"""SNFS: weights grow where the gradient has been large for some time."""

from __future__ import annotations

from typing import Any

from keras_tickets.masks.regrowth import Momentum
from keras_tickets.pruners.base import registry
from keras_tickets.pruners.dynamic import Dynamic
from keras_tickets.recipe.schedules import Run


@registry.register
class SNFS(Dynamic):
    """Sparse Networks From Scratch: grows by a running average of dense gradients.

    As `RigL`, but the gradient is averaged over steps, which takes a dense gradient
    in every one of them. The number of weights in each kernel stays; the original
    also moves weights between layers.

    Args:
        sparsity: Fraction of the prunable weights that are zero, in [0, 1).
        allocation: How many weights each kernel has.
        update_every: Training steps between two updates.
        drop_fraction: The fraction of weights that the first update drops.
        until: The fraction of the run after which masks stay.
        decay: How the drop fraction falls to zero at `until`.
        momentum: Decay of the average: `m = momentum m + (1 - momentum) dL/dw`.
        structure: What is dropped and grown together.
        seed: Integer that fixes the first masks.
        on_collapse: `"raise"` or `"warn"` when the first masks let no signal pass.

    Raises:
        ValueError: On `compile`, with gradient accumulation, `use_ema` or loss
            scaling, under which no such average can be had.

    Reference:
        Dettmers and Zettlemoyer, "Sparse networks from scratch: faster training
        without losing performance", 2019; as compared by Evci et al., 2020.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        allocation: Any = "erk",
        update_every: int = 100,
        drop_fraction: float = 0.3,
        until: float = 0.75,
        decay: Any = "cosine",
        momentum: float = 0.9,
        structure: Any = "unstructured",
        seed: int | None = None,
        on_collapse: str = "raise",
    ) -> None:
        self.momentum = momentum
        super().__init__(
            sparsity,
            Momentum(momentum),
            allocation=allocation,
            structure=structure,
            update_every=update_every,
            drop_fraction=drop_fraction,
            until=until,
            decay=decay,
            seed=seed,
            on_collapse=on_collapse,
        )

    def training_flops(self, dense: float, sparse: float, run: Run) -> float:
        """Return `2 f_S + f_D`: a dense gradient in every step."""
        return 2 * sparse + dense
