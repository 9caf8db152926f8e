"""What is kept together: the granule that a mask keeps or drops as one.

A structure pools the scores of a tensor into one score for each granule and spreads
the chosen granules back over the tensor. Selection sees granules only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from keras_tickets.registry import Configurable, Registry


class Structure(Configurable, ABC):
    """How the weights of a tensor are grouped."""

    @abstractmethod
    def pool(self, weights: np.ndarray) -> np.ndarray:
        """Return one score (or one flag) for each granule of `weights`."""

    @abstractmethod
    def spread(self, kept: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the mask of `shape` in which the `kept` granules survive."""


_registry = Registry("structure", Structure)


@_registry.register
class Unstructured(Structure):
    """Every weight for itself.

    Example:
    >>> Unstructured().pool(np.array([0.1, 0.7])).tolist()
    [0.1, 0.7]
    """

    def pool(self, weights: np.ndarray) -> np.ndarray:
        """Return the scores themselves."""
        return weights

    def spread(self, kept: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return `kept` in `shape`."""
        return kept.reshape(shape)


def get(identifier: Any) -> Structure:
    """Return the structure that a name, config, class or instance stands for."""
    return _registry.get(identifier)
