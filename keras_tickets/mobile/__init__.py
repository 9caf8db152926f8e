"""What a file does where it will run."""

from __future__ import annotations

from keras_tickets.mobile.benchmark import BenchmarkReport, benchmark
from keras_tickets.mobile.verify import verify

__all__ = ["BenchmarkReport", "benchmark", "verify"]
