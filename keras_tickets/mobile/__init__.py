"""What a file does where it will run."""

from __future__ import annotations

from keras_tickets.mobile.benchmark import BenchmarkReport, benchmark
from keras_tickets.mobile.prepare import PreparePlan, prepare, prepare_plan
from keras_tickets.mobile.probe import SparseKernel, SparsePath, sparse_path
from keras_tickets.mobile.verify import verify

__all__ = [
    "BenchmarkReport",
    "PreparePlan",
    "SparseKernel",
    "SparsePath",
    "benchmark",
    "prepare",
    "prepare_plan",
    "sparse_path",
    "verify",
]
