"""RigL: weights grow where the gradient of the loss is largest."""

from __future__ import annotations

from typing import Any

from keras_tickets.pruners.base import registry
from keras_tickets.pruners.dynamic import Dynamic
from keras_tickets.recipe.schedules import Run


@registry.register
class RigL(Dynamic):
    """Trains sparse from the first step; grows where the dense gradient is largest.

    Every `update_every` steps, in each kernel, the weights of least magnitude are
    dropped and as many grow where `|dL/dw|` of the last step is largest. The gradient
    comes out of the training step itself and costs memory for one more copy of the
    kernels, no second pass over the data.

    Args:
        sparsity: Fraction of the prunable weights that are zero, in [0, 1), from the
            first step to the last.
        allocation: `"erk"` (default; the paper's best), `"er"`, `"uniform"` or
            sparsities by name; see `keras_tickets.allocation`.
        update_every: Training steps between two updates (the paper's delta T).
        drop_fraction: The fraction of each kernel's weights that the first update
            drops (the paper's alpha).
        until: The fraction of the run after which masks stay.
        decay: How the drop fraction falls to zero at `until`: `"cosine"`,
            `"constant"`, or a schedule such as `kt.schedules.Polynomial(power=3)`.
        structure: What is dropped and grown together.
        seed: Integer that fixes the first masks; by default one from
            `keras.utils.set_random_seed`'s generator.
        on_collapse: `"raise"` or `"warn"` when the first masks let no signal pass.

    Raises:
        ValueError: On `compile`, with gradient accumulation or `use_ema`, under which
            dense gradients can not be had; on `fit`, if no update would fall into the
            run.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.RigL(sparsity=0.5, update_every=2))
    >>> ticket.compile("adam", "mse")
    >>> history = ticket.fit(
    ...     keras.ops.ones((8, 8)), keras.ops.ones((8, 4)), batch_size=1, verbose=0
    ... )
    >>> ticket.sparsity
    0.5

    Reference:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners", 2020.
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
            "gradient",
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
        """Return `(3 f_S dT + 2 f_S + f_D) / (dT + 1)`: a dense gradient at times."""
        steps = self.update_every
        return (3 * sparse * steps + 2 * sparse + dense) / (steps + 1)
