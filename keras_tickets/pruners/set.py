"""SET: weights grow anywhere."""

from __future__ import annotations

from typing import Any

from keras_tickets.pruners.base import registry
from keras_tickets.pruners.dynamic import Dynamic


@registry.register
class SET(Dynamic):
    """Sparse Evolutionary Training: drops by magnitude, grows at random.

    Needs no gradient, no memory beyond the masks, and works under every optimizer.

    Args:
        sparsity: Fraction of the prunable weights that are zero, in [0, 1).
        allocation: How many weights each kernel has.
        update_every: Training steps between two updates.
        drop_fraction: The fraction of weights that the first update drops.
        until: The fraction of the run after which masks stay.
        decay: How the drop fraction falls to zero at `until`.
        structure: What is dropped and grown together.
        seed: Integer that fixes the first masks and where weights grow, on every
            backend alike.
        on_collapse: `"raise"` or `"warn"` when the first masks let no signal pass.

    Reference:
        Mocanu et al., "Scalable training of artificial neural networks with adaptive
        sparse connectivity inspired by network science", 2018.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        allocation: Any = "erk",
        update_every: int = 100,
        drop_fraction: float = 0.3,
        until: float = 0.75,
        decay: Any = "cosine",
        structure: Any = "unstructured",
        seed: int | None = None,
        on_collapse: str = "raise",
    ) -> None:
        super().__init__(
            sparsity,
            "random",
            allocation=allocation,
            structure=structure,
            update_every=update_every,
            drop_fraction=drop_fraction,
            until=until,
            decay=decay,
            seed=seed,
            on_collapse=on_collapse,
        )
