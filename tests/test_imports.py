"""Importing the package is cheap and brings in no framework but Keras' own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("tensorflow", "jax", "torch", "onnx", "onnxruntime", "ai_edge_litert")

PROBE = f"""
import sys, time
import keras
before = {{m for m in {HEAVY} if m in sys.modules}}
start = time.perf_counter()
import keras_tickets
seconds = time.perf_counter() - start
after = {{m for m in {HEAVY} if m in sys.modules}}
print(seconds, *sorted(after - before))
"""


def probe() -> tuple[float, list[str]]:
    out = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    ).stdout.split()
    return float(out[0]), out[1:]


@pytest.mark.slow
def test_import_is_cheap_and_brings_no_framework_beyond_keras_own():
    runs = [probe() for _ in range(3)]
    assert all(brought == [] for _, brought in runs)
    # The least of three: a busy machine only ever adds.
    assert min(seconds for seconds, _ in runs) < 0.1
