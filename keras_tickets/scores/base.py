"""The contract of a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_tickets.prunable import Kernel
from keras_tickets.registry import Configurable, Registry


class Score(Configurable, ABC):
    """Says what each weight is worth; higher is worth keeping."""

    @abstractmethod
    def __call__(self, kernels: Sequence[Kernel]) -> list[np.ndarray]:
        """Return one array of scores for each kernel, in its shape."""


registry = Registry("score", Score)


def values(kernel: Kernel) -> np.ndarray:
    """Return a kernel's stored values, in float32 or better."""
    array = ops.convert_to_numpy(kernel.variable.value)
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)
