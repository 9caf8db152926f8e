"""Dynamic pruners by where their weights grow, and the one whose masks never move."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from keras_tickets._util import arguments
from keras_tickets.masks.regrowth import Momentum
from keras_tickets.pruners.base import registry
from keras_tickets.pruners.dynamic import Dynamic
from keras_tickets.pruners.one_shot import Random
from keras_tickets.recipe.schedules import Run


class DynamicVariant(Dynamic, ABC):
    """Grows where its class says; the arguments are those of `Dynamic`."""

    @property
    @abstractmethod
    def grows_by(self) -> Any:
        """Where weights grow; see `keras_tickets.growth`."""

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
            self.grows_by,
            allocation=allocation,
            structure=structure,
            update_every=update_every,
            drop_fraction=drop_fraction,
            until=until,
            decay=decay,
            seed=seed,
            on_collapse=on_collapse,
        )


@registry.register
class RigL(DynamicVariant):
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
            dense gradients cannot be had; on `fit`, if no update would fall into the
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

    grows_by = "gradient"

    def training_flops(self, dense: float, sparse: float, run: Run) -> float:
        """Return `(3 f_S dT + 2 f_S + f_D) / (dT + 1)`: a dense gradient at times."""
        steps = self.update_every
        return (3 * sparse * steps + 2 * sparse + dense) / (steps + 1)


@registry.register
class SET(DynamicVariant):
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

    grows_by = "random"


@registry.register
class SNFS(DynamicVariant):
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
        self.momentum = arguments.number("momentum", momentum, "[0, 1)")
        super().__init__(
            sparsity,
            allocation=allocation,
            update_every=update_every,
            drop_fraction=drop_fraction,
            until=until,
            decay=decay,
            structure=structure,
            seed=seed,
            on_collapse=on_collapse,
        )

    @property
    def grows_by(self) -> Momentum:
        """A running average of dense gradients."""
        return Momentum(self.momentum)

    def training_flops(self, dense: float, sparse: float, run: Run) -> float:
        """Return `2 f_S + f_D`: a dense gradient in every step."""
        return 2 * sparse + dense


@registry.register
class Static(Random):
    """Static sparse training: a random ticket that trains and never moves.

    The baseline of `RigL` and `SET`, under the name that it has there. The arguments
    are those of `Random`.

    Reference:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners", 2020.
    """
