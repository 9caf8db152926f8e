"""Which variables of a model can be pruned, and why the others cannot.

A prunable weight is a trainable floating-point variable of rank two or more that no row
of `EXCLUSIONS` names. The names here are those of `kt.prunable`.
"""

from __future__ import annotations

from keras_tickets.kernels.discovery import find_kernels, owners, positions
from keras_tickets.kernels.exclusions import (
    EXCLUSIONS,
    UNREACHED,
    Exclusion,
    why_not,
)
from keras_tickets.kernels.filters import Filter, ModelFilter, Selection, choose_kernels
from keras_tickets.kernels.kernel import Kernel, MatmulView, matmul_view

__all__ = [
    "EXCLUSIONS",
    "UNREACHED",
    "Exclusion",
    "Filter",
    "Kernel",
    "MatmulView",
    "ModelFilter",
    "Selection",
    "choose_kernels",
    "find_kernels",
    "matmul_view",
    "owners",
    "positions",
    "why_not",
]
