"""The pruners: callbacks that decide the masks, one family per file."""

from __future__ import annotations

from typing import Any

from keras_tickets.pruners.base import (
    Pruner,
    registry,
)
from keras_tickets.pruners.collapse import LayerCollapseError
from keras_tickets.pruners.dynamic import Dynamic
from keras_tickets.pruners.early_bird import EarlyBird
from keras_tickets.pruners.edge_popup import EdgePopup
from keras_tickets.pruners.espn import ESPN
from keras_tickets.pruners.fisher import Fisher
from keras_tickets.pruners.gem_miner import GemMiner
from keras_tickets.pruners.grasp import GraSP
from keras_tickets.pruners.imp import IMP
from keras_tickets.pruners.magnitude import (
    GradualMagnitude,
    Magnitude,
)
from keras_tickets.pruners.mined import Mined
from keras_tickets.pruners.random import (
    Random,
    Static,
)
from keras_tickets.pruners.rigl import RigL
from keras_tickets.pruners.set import SET
from keras_tickets.pruners.snfs import SNFS
from keras_tickets.pruners.snip import SNIP
from keras_tickets.pruners.str import STR
from keras_tickets.pruners.synflow import SynFlow
from keras_tickets.ticket.curve import Curve

__all__ = [
    "ESPN",
    "IMP",
    "SET",
    "SNFS",
    "SNIP",
    "STR",
    "Curve",
    "Dynamic",
    "EarlyBird",
    "EdgePopup",
    "Fisher",
    "GemMiner",
    "GraSP",
    "GradualMagnitude",
    "LayerCollapseError",
    "Magnitude",
    "Mined",
    "Pruner",
    "Random",
    "RigL",
    "Static",
    "SynFlow",
    "get",
]


def get(identifier: Any, **arguments: Any) -> Pruner:
    """Return the pruner that a name, config, class or instance stands for.

    Example:
    >>> get("gradual_magnitude", sparsity=0.8).sparsity
    0.8
    """
    return registry.get(identifier, **arguments)
