"""How far an optimizer can move what is learned within a search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras

from keras_tickets.masks.optimizer_slots import innermost

ARRIVAL = 0.75
"""The part of the search after which a recommended penalty has done its work."""


@dataclass(frozen=True)
class Pace:
    """How far an optimizer moves a variable in a number of steps.

    Args:
        steps: How many.
        length: The sum of the learning rates, for SGD with what its momentum adds: how
            far a gradient of one moves the variable.
        proportional: Whether a larger gradient moves it further, as with SGD. Others
            divide by the size of the gradient: they move it by `length` at most.
    """

    steps: float
    length: float
    proportional: bool

    @classmethod
    def of(cls, optimizer: keras.optimizers.Optimizer, steps: float) -> Pace:
        """Return the pace of `optimizer`, as it is configured."""
        inner = innermost(optimizer)
        length = _mean_rate(inner.get_config()["learning_rate"], steps) * steps
        if isinstance(inner, keras.optimizers.SGD):
            return cls(steps, length / max(1 - inner.momentum, 1e-3), True)
        return cls(steps, length, False)

    def longer(self, distance: float) -> int:
        """Return how many steps it takes to move by `distance`, at the same rate."""
        return math.ceil(self.steps * distance / self.length) if self.length else 0


def _mean_rate(rate: Any, steps: float) -> float:
    """Return the mean of a learning rate, or of its schedule, over the first steps."""
    if not isinstance(rate, dict):
        return float(rate)
    schedule = keras.optimizers.schedules.deserialize(rate)
    points = [int((i + 0.5) * steps / 100) for i in range(100)]
    return math.fsum(float(schedule(point)) for point in points) / len(points)
