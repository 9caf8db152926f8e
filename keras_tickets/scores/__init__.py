"""What a weight is worth: one score per file."""

from __future__ import annotations

from typing import Any

from keras_tickets.scores.base import Score, registry
from keras_tickets.scores.magnitude import Magnitude
from keras_tickets.scores.random import Random

__all__ = ["Magnitude", "Random", "Score", "get"]


def get(identifier: Any, **arguments: Any) -> Score:
    """Return the score that a name, config, class or instance stands for."""
    return registry.get(identifier, **arguments)
