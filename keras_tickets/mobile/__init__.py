"""What a file does where it will run."""

from __future__ import annotations

from keras_tickets.mobile.benchmark import BenchmarkReport, benchmark
from keras_tickets.mobile.compare import compare
from keras_tickets.mobile.comparison_table import ComparisonTable
from keras_tickets.mobile.diagnose import diagnose
from keras_tickets.mobile.eligible import Eligible, eligible, structure
from keras_tickets.mobile.instructions import InstructionCount, instructions
from keras_tickets.mobile.prepare import PreparePlan, prepare, prepare_plan
from keras_tickets.mobile.probe import SparseKernel, SparsePath, sparse_path
from keras_tickets.mobile.verify import verify

__all__ = [
    "BenchmarkReport",
    "ComparisonTable",
    "Eligible",
    "InstructionCount",
    "PreparePlan",
    "SparseKernel",
    "SparsePath",
    "benchmark",
    "compare",
    "diagnose",
    "eligible",
    "instructions",
    "prepare",
    "prepare_plan",
    "sparse_path",
    "structure",
    "verify",
]
