"""The names there at once; they tell Keras all classes that a saved model may name."""

from __future__ import annotations

from collections.abc import Mapping

from keras_tickets import flow, pruners, scores
from keras_tickets import kernels as prunable
from keras_tickets.channels.shrinking import ShrinkPlan, shrink, shrink_plan
from keras_tickets.masks import regrowth as growth
from keras_tickets.masks.masked_layer import Masked
from keras_tickets.masks.stripping import strip
from keras_tickets.moved import keep_old_paths
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
    presets,
)
from keras_tickets.pruners.best_epoch import BestOnTarget
from keras_tickets.pruners.wrapping import wrap
from keras_tickets.recipe import allocation, schedules
from keras_tickets.recipe import structures as structure
from keras_tickets.reports.challenging import Challenge, challenge
from keras_tickets.reports.cost import Cost, flops
from keras_tickets.reports.summarizing import COLUMNS, summary
from keras_tickets.ticket.saved_file import load_ticket
from keras_tickets.ticket.ticket import Ticket

__all__ = [
    "ESPN",
    "IMP",
    "SET",
    "SNFS",
    "SNIP",
    "STR",
    "BestOnTarget",
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


def _sparse_kernels(ticket: Ticket) -> Mapping[str, str]:
    # Imported here: what knows files loads at first use.
    from keras_tickets.mobile.probe_model import sparse_kernels

    return sparse_kernels(ticket)


COLUMNS["mobile"] = _sparse_kernels
keep_old_paths()
