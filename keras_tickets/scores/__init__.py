"""The scores of weights: one score per file."""

from __future__ import annotations

from typing import Any

from keras_tickets.scores.base import Score, Scored, StaticScore, Task, registry
from keras_tickets.scores.fisher import Fisher
from keras_tickets.scores.grasp import GraSP
from keras_tickets.scores.learned import Learned
from keras_tickets.scores.magnitude import Magnitude
from keras_tickets.scores.random import Random
from keras_tickets.scores.snip import SNIP
from keras_tickets.scores.synflow import SynFlow

__all__ = [
    "SNIP",
    "Fisher",
    "GraSP",
    "Learned",
    "Magnitude",
    "Random",
    "Score",
    "Scored",
    "StaticScore",
    "SynFlow",
    "Task",
    "get",
]


def get(identifier: Any, **arguments: Any) -> Score:
    """Return the score that a name, config, class or instance stands for."""
    return registry.get(identifier, **arguments)
