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
        drop: str = "magnitude",
        update_at_start: bool = False,
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
            drop=drop,
            update_at_start=update_at_start,
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
        drop: `"magnitude"`, or `"sign"`; see `SET`.
        update_at_start: Whether the first step is followed by an update, too, by its
            gradients and with all of `drop_fraction`: the authors' code begins at
            step 0.

    Raises:
        ValueError: On `compile`, with gradient accumulation or `use_ema`, under which
            dense gradients cannot be had; on `fit`, if no update would fall into the
            run.

    Deviations from the authors' code (google-research/rigl):

    - There an update takes the place of a weight step, and its minibatch is not
      counted; here it follows the weight step, whose gradients it sees.
    - There magnitudes get noise of 1e-5 before they are ranked, so that an inactive
      weight may be kept; here ties are broken by a fixed order, only active ones stay.
    - The first masks come from NumPy, by the package's own count of each layer.

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
    """Sparse Evolutionary Training: drops the least, grows at random.

    The defaults are those of the comparison in the paper of RigL. As Mocanu et al. have
    it: `drop="sign"`, `decay="constant"`, `until=1.0`, and an `update_every` of the
    steps of one epoch. Needs no gradient, no memory beyond the masks, and works under
    every optimizer.

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
        drop: `"magnitude"` drops the weights nearest to zero, as in the paper of RigL;
            `"sign"` drops the fraction of the positive weights that is smallest and
            the fraction of the negative ones that is largest, as Mocanu et al. do.
        update_at_start: Whether the first step is followed by an update, too, with all
            of `drop_fraction`.

    Deviations from the authors' code (dcmocanu/sparse-evolutionary-artificial-neural-
    networks) with `drop="sign"`:

    - It drops its fraction of each sign rounded by positions in a sorted list, and
      ties with the last; here each is rounded down, and the count is exact. As there,
      active weights that are exactly zero are dropped.
    - It rewires at the end of each epoch and keeps the optimizer's state; here the
      slots of what grew start anew.
    - What grew starts at zero, as in its masked implementation.

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
        update_at_start: Whether the first step is followed by an update, too, with all
            of `drop_fraction`.

    Raises:
        ValueError: On `compile`, with gradient accumulation, `use_ema` or loss
            scaling, under which no such average can be had.

    Deviations from the authors' method: the number of weights of each kernel stays, as
    in the code of RigL, where the original moves weights to the layers of largest mean
    momentum; and the drop fraction falls along a cosine.

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
        update_at_start: bool = False,
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
            update_at_start=update_at_start,
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
