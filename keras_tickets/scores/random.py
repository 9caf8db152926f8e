"""Scores drawn at random: the baseline that every other score must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_tickets._util import arguments
from keras_tickets.kernels import Kernel
from keras_tickets.scores.base import StaticScore, registry


@registry.register
class Random(StaticScore):
    """Independent uniform numbers, the same for the same seed on every backend.

    They come from NumPy and depend on nothing but the seed, the position of the
    tensor in the model and its shape. Asked again, the score repeats itself, so that
    masks drawn one after the other are nested.

    Args:
        seed: Any non-negative integer.
    """

    def __init__(self, seed: int) -> None:
        self.seed = arguments.seed(seed)

    def __call__(self, kernels: Sequence[Kernel]) -> list[np.ndarray]:
        """Return uniform numbers in [0, 1)."""
        return [
            np.random.default_rng((self.seed, position)).random(kernel.shape)
            for position, kernel in enumerate(kernels)
        ]
