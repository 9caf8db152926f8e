"""Pruners that draw by the weights alone, at once or step by step.

What differs is the score, so that is what a class states.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from keras_tickets import scores
from keras_tickets._util import arguments
from keras_tickets.kernels import Kernel
from keras_tickets.pruners.base import Pruner, registry
from keras_tickets.pruners.binding import seed_or_new
from keras_tickets.recipe.allocation import Group

COUNTS = ("round", "floor")

WHOLE = 1e-6
"""How near to a whole number of weights a product counts as that number."""


class OneShot(Pruner, ABC):
    """Draws by a score that needs no arguments.

    Args:
        sparsity: Fraction of the prunable weights that become zero, in [0, 1).
        allocation: How many weights each kernel keeps.
        structure: What is kept together.
        schedule: When.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.
    """

    @property
    @abstractmethod
    def scored_by(self) -> str:
        """The name of the score."""

    def __init__(
        self,
        sparsity: float = 0.9,
        allocation: Any = "global",
        structure: Any = "unstructured",
        schedule: Any = "once",
        on_collapse: str = "raise",
    ) -> None:
        super().__init__(
            sparsity, self.scored_by, allocation, structure, schedule, on_collapse
        )


@registry.register
class Magnitude(OneShot):
    """Drops the weights of least magnitude, once.

    Use it on a trained model, followed by fine-tuning under the fixed masks; on an
    untrained one it is the weakest of the methods at initialization.

    Args:
        sparsity: Fraction of the prunable weights that become zero, in [0, 1).
        allocation: `"global"`, `"uniform"`, `"er"`, `"erk"` or sparsities by name;
            see `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When; at the beginning of `fit` by default.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.Magnitude(sparsity=0.5))
    >>> curve = ticket.draw()
    >>> ticket.sparsity
    0.5

    Deviations from the paper: it takes the threshold of each layer from the standard
    deviation of its weights, and prunes and trains in turns; here a count is dropped,
    once.

    Reference:
        Han et al., "Learning both weights and connections for efficient neural
        networks", 2015.
    """

    scored_by = "magnitude"


@registry.register
class GradualMagnitude(OneShot):
    """Drops the weights of least magnitude step by step while the model trains.

    The sparsity follows `s_t = s_f (1 - (1 - progress)^3)`: fast while there are
    weights to spare, slow near the end, and done at three quarters of the run, so
    that the rest of it trains the final ticket. A dropped weight stays dropped.

    Args:
        sparsity: Final fraction of the prunable weights that are zero, in [0, 1).
        allocation: `"uniform"` (default, and the paper's: each layer gets the whole
            sparsity), `"erk"` (small layers stay denser, which is kinder to accuracy
            at high sparsities; early layers, where an image network spends its time,
            stay denser too, and the file is slower), `"er"`, `"global"` or sparsities
            by name; see `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When, and how much by then; see `keras_tickets.schedules`.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.

    Example:
    >>> import keras, keras_tickets as kt
    >>> pruner = kt.GradualMagnitude(
    ...     sparsity=0.9, schedule=kt.schedules.Polynomial(begin=0.1, end=0.8)
    ... )
    >>> pruner.schedule.end
    0.8

    Deviations from the authors' code, which became `tensorflow_model_optimization`:

    - It prunes each layer by itself to the same sparsity: `allocation="uniform"`.
    - It takes masks anew from all stored weights, so that a dropped one may come back;
      here it stays dropped.
    - It keeps what is tied at the threshold, and at least one weight of each layer;
      here the count is exact.

    Reference:
        Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning
        for model compression", 2017.
    """

    scored_by = "magnitude"

    def __init__(
        self,
        sparsity: float = 0.9,
        allocation: Any = "uniform",
        structure: Any = "unstructured",
        schedule: Any = "polynomial",
        on_collapse: str = "raise",
    ) -> None:
        super().__init__(sparsity, allocation, structure, schedule, on_collapse)


@registry.register
class Random(Pruner):
    """Draws a random ticket.

    With the densities of `"erk"` this is a strong baseline; a ticket that does no
    better than random at equal layer budgets is luck.

    Args:
        sparsity: Fraction of the prunable weights that become zero, in [0, 1).
        allocation: `"erk"` (default), `"er"`, `"smart_ratio"`, `"uniform"`, `"global"`
            or sparsities by name; see `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When; at the beginning of `fit` by default.
        seed: Integer that fixes the draw, on every backend alike; by default one
            from `keras.utils.set_random_seed`'s generator.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.

    Reference:
        Gale et al., "The state of sparsity in deep neural networks", 2019.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        allocation: Any = "erk",
        structure: Any = "unstructured",
        schedule: Any = "once",
        seed: int | None = None,
        on_collapse: str = "raise",
    ) -> None:
        self.seed = seed_or_new(seed)
        score = scores.Random(self.seed)
        super().__init__(sparsity, score, allocation, structure, schedule, on_collapse)


@registry.register
class SynFlow(Pruner):
    """Drops what carries the least synaptic flow, in many rounds; needs no data.

    The flow R is the sum over all paths from input to output of the product of the
    weights' magnitudes. Scoring again after every round, the pruner keeps paths whole
    down to the last one, where one-shot methods empty a layer. Any depth, any
    activation; see `keras_tickets.flow` for what each layer becomes, and for how to
    teach it one of your own. Recurrent layers are refused.

    Draw before training: on a trained model, magnitude knows more.

    Args:
        sparsity: Fraction of the prunable weights that become zero, in [0, 1).
        rounds: How many rounds; what is kept falls by the same factor in each.
        allocation: `"global"`, `"uniform"`, `"er"`, `"erk"` or sparsities by name;
            see `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When; at the beginning of `fit` by default.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.
        count: How the weights to drop are counted, of `n` at sparsity `s`: `"round"`,
            the nearest whole number to `s n`, as everywhere in this package; or
            `"floor"`, the whole part of it, as the authors' code counts in each round.

    Raises:
        keras_tickets.flow.NotLinearError: When drawn, if a layer has no linear form.
        ValueError: For another `count`.

    Deviations from the authors' code (ganguli-lab/Synaptic-Flow):

    - It drops all scores up to the threshold, which empties layers where the last
      paths are tied. Here the count is exact, and ties are thinned out evenly.
    - A round that would cut the last path is taken back and made in smaller steps.
    - It takes absolute values of all parameters: a running mean would be subtracted, a
      shift added. Here means, shifts and biases are left out, and activations are the
      identity; see `keras_tickets.flow`.
    - With `"floor"`, 0.9 of 10 weights are 9, also where the product is rounded to a
      little less.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential(
    ...     [keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(4)]
    ... )
    >>> ticket = kt.wrap(model, kt.SynFlow(0.9))
    >>> curve = ticket.draw(verbose=0)
    >>> len(curve.sparsity), round(ticket.sparsity, 2)
    (101, 0.9)

    Reference:
        Tanaka et al., "Pruning neural networks without any data by iteratively
        conserving synaptic flow", 2020.
    """

    def __init__(
        self,
        sparsity: float = 0.9,
        rounds: int = 100,
        allocation: Any = "global",
        structure: Any = "unstructured",
        schedule: Any = "once",
        on_collapse: str = "raise",
        count: str = "round",
    ) -> None:
        self.count = arguments.word("count", count, COUNTS)
        super().__init__(
            sparsity,
            "synflow",
            allocation=allocation,
            structure=structure,
            schedule=schedule,
            on_collapse=on_collapse,
            rounds=rounds,
        )

    def groups(self, kernels: Sequence[Kernel], sparsity: float) -> list[Group]:
        """Return the budgets at `sparsity`, counted as `count` says."""
        if self.count == "floor":
            total = sum(kernel.size for kernel in kernels)
            sparsity = math.floor(sparsity * total + WHOLE) / total
        return super().groups(kernels, sparsity)
