"""The magnitude of a weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_tickets.backend import numbers
from keras_tickets.kernels import Kernel
from keras_tickets.scores.base import StaticScore, registry


@registry.register
class Magnitude(StaticScore):
    """`|w|`: the larger a weight, the higher its score.

    Reference:
        Janowsky, "Pruning versus clipping in neural networks", 1989.
    """

    def __call__(self, kernels: Sequence[Kernel]) -> list[np.ndarray]:
        """Return the absolute values."""
        return [np.abs(numbers(kernel.variable)) for kernel in kernels]
