"""Regrowth: where new weights grow after others were dropped.

For pruners whose masks move while the model trains. A growth scores every position;
where the score is highest, and nothing is kept, a weight grows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import keras
import numpy as np

from keras_tickets._util import arguments
from keras_tickets._util.registry import Configurable, Registry, spelling
from keras_tickets.backend import on_host
from keras_tickets.masks.masked_call import MaskedKernel


def magnitude(variable: keras.Variable) -> np.ndarray:
    """Return the absolute values of a variable, in float32 or better."""
    value = on_host(variable.value)
    if value.dtype.itemsize < 4:
        value = value.astype(np.float32)
    return np.abs(value)


class Growth(Configurable, ABC):
    """Says where weights grow."""

    decay: float | None = None
    """Of the running average of dense gradients that it reads; `None` reads none."""

    @abstractmethod
    def scores(self, masked: MaskedKernel, index: int, step: int) -> np.ndarray:
        """Return how much each position deserves a weight; higher grows first.

        Args:
            masked: The kernel with its mask and its gradient.
            index: The kernel's place in the model.
            step: The training step at which it grows.
        """


registry = Registry("growth", Growth)


@registry.register
class Gradient(Growth):
    """`|dL/dw|` of the step that was just taken: where the loss falls fastest.

    Reference:
        Evci et al., "Rigging the Lottery: Making All Tickets Winners", 2020.
    """

    decay = 0.0

    def scores(self, masked: MaskedKernel, index: int, step: int) -> np.ndarray:
        """Return the magnitude of the dense gradient."""
        if masked.auxiliary is None:
            raise ValueError(
                f"The ticket holds no dense gradient of {masked.kernel.path!r}. Bind "
                "the pruner that reads it to the ticket: kt.wrap(model, pruner)."
            )
        return magnitude(masked.auxiliary.variable)


@registry.register
class Momentum(Gradient):
    """The magnitude of a running average of the dense gradients.

    Args:
        decay: `m = decay * m + (1 - decay) * gradient` in each step.

    Reference:
        Dettmers and Zettlemoyer, "Sparse networks from scratch: faster training
        without losing performance", 2019.
    """

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = arguments.number("decay", decay, "[0, 1)")


@registry.register
class Random(Growth):
    """Anywhere, with equal chances; the same places on every backend.

    Args:
        seed: Fixes the places, together with the step and the kernel.

    Reference:
        Mocanu et al., "Scalable training of artificial neural networks with adaptive
        sparse connectivity inspired by network science", 2018.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = arguments.seed(seed)

    def scores(self, masked: MaskedKernel, index: int, step: int) -> np.ndarray:
        """Return uniform noise."""
        rng = np.random.default_rng([self.seed, step, index])
        return rng.random(masked.kernel.shape, dtype=np.float32)


def get(identifier: object, seed: int = 0) -> Growth:
    """Return the growth that a name, config, class or instance stands for.

    Args:
        identifier: What the user wrote.
        seed: Of a growth at random that is given without one, by name or as a class.
    """
    at_random = identifier is Random or (
        isinstance(identifier, str) and spelling(identifier) == "random"
    )
    return registry.get(identifier, **({"seed": seed} if at_random else {}))
