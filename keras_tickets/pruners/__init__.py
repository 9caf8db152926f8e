"""The pruners: callbacks that decide the masks, one family per file."""

from __future__ import annotations

from typing import Any

from keras_tickets.pruners.base import LayerCollapseError, Pruner, registry
from keras_tickets.pruners.magnitude import GradualMagnitude, Magnitude
from keras_tickets.pruners.random import Random

__all__ = [
    "GradualMagnitude",
    "LayerCollapseError",
    "Magnitude",
    "Pruner",
    "Random",
    "get",
]


def get(identifier: Any, **arguments: Any) -> Pruner:
    """Return the pruner that a name, config, class or instance stands for.

    Example:
    >>> get("gradual_magnitude", sparsity=0.8).sparsity
    0.8
    """
    return registry.get(identifier, **arguments)
