"""The names there at once; they tell Keras all classes that a saved model may name."""

from __future__ import annotations

from keras_tickets import (
    allocation,
    flow,
    growth,
    presets,
    prunable,
    pruners,
    schedules,
    scores,
    structure,
)
from keras_tickets.accounting import Cost, flops
from keras_tickets.masked import Masked
from keras_tickets.pruners import (
    ESPN,
    IMP,
    SET,
    SNFS,
    SNIP,
    STR,
    EarlyBird,
    EdgePopup,
    Fisher,
    GemMiner,
    GradualMagnitude,
    GraSP,
    LayerCollapseError,
    Magnitude,
    Random,
    RigL,
    Static,
    SynFlow,
)
from keras_tickets.report import summary
from keras_tickets.sanity import Challenge, challenge
from keras_tickets.shrink import ShrinkPlan, shrink, shrink_plan
from keras_tickets.strip import strip
from keras_tickets.ticket import Ticket, wrap
from keras_tickets.ticket_file import load_ticket

__all__ = [
    "ESPN",
    "IMP",
    "SET",
    "SNFS",
    "SNIP",
    "STR",
    "Challenge",
    "Cost",
    "EarlyBird",
    "EdgePopup",
    "Fisher",
    "GemMiner",
    "GraSP",
    "GradualMagnitude",
    "LayerCollapseError",
    "Magnitude",
    "Masked",
    "Random",
    "RigL",
    "ShrinkPlan",
    "Static",
    "SynFlow",
    "Ticket",
    "allocation",
    "challenge",
    "flops",
    "flow",
    "growth",
    "load_ticket",
    "presets",
    "prunable",
    "pruners",
    "schedules",
    "scores",
    "shrink",
    "shrink_plan",
    "strip",
    "structure",
    "summary",
    "wrap",
]
