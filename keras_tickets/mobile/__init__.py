"""What a file does on the machine that it will run on."""

from __future__ import annotations

from keras_tickets.mobile.benchmarking import BenchmarkReport, benchmark
from keras_tickets.mobile.comparing import ComparisonTable, compare
from keras_tickets.mobile.diagnosing import diagnose
from keras_tickets.mobile.eligibility import Eligible, eligible, structure
from keras_tickets.mobile.instruction_counting import InstructionCount, instructions
from keras_tickets.mobile.preparing import PreparePlan, prepare, prepare_plan
from keras_tickets.mobile.sparse_kernels import SparseKernel, SparsePath, sparse_path
from keras_tickets.mobile.verifying import verify

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
