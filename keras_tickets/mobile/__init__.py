"""What a file does where it will run."""

from __future__ import annotations

from keras_tickets.mobile.benchmark import BenchmarkReport, benchmark
from keras_tickets.mobile.diagnose import diagnose
from keras_tickets.mobile.eligible import Eligible, eligible, structure
from keras_tickets.mobile.probe import SparseKernel, SparsePath, sparse_path
from keras_tickets.mobile.verify import verify

__all__ = [
    "BenchmarkReport",
    "Eligible",
    "SparseKernel",
    "SparsePath",
    "benchmark",
    "diagnose",
    "eligible",
    "sparse_path",
    "structure",
    "verify",
]
