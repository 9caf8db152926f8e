"""What a file does where it will run."""

from __future__ import annotations

from keras_tickets.mobile.benchmark import BenchmarkReport, benchmark

__all__ = ["BenchmarkReport", "benchmark"]
