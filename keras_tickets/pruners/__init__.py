"""The pruners: callbacks that decide the masks, one family per file."""

from __future__ import annotations

import warnings
from typing import Any

from keras_tickets.pruners.base import Pruner, registry
from keras_tickets.pruners.collapse import LayerCollapseError
from keras_tickets.pruners.dynamic import Dynamic
from keras_tickets.pruners.dynamic_variants import SET, SNFS, RigL, Static
from keras_tickets.pruners.early_bird import EarlyBird
from keras_tickets.pruners.imp import IMP
from keras_tickets.pruners.learned.base import LearnedMaskPruner
from keras_tickets.pruners.learned.edge_popup import EdgePopup
from keras_tickets.pruners.learned.espn import ESPN
from keras_tickets.pruners.learned.gem_miner import GemMiner
from keras_tickets.pruners.learned.str import STR
from keras_tickets.pruners.one_shot import GradualMagnitude, Magnitude, Random, SynFlow
from keras_tickets.pruners.with_data import SNIP, Fisher, GraSP
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
    "LearnedMaskPruner",
    "Magnitude",
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


def __getattr__(name: str) -> Any:
    if name == "Mined":
        warnings.warn(
            "keras_tickets.pruners.Mined is now LearnedMaskPruner; the old name goes "
            "with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return LearnedMaskPruner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
