"""Importing the package is cheap and brings in no framework but Keras' own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("tensorflow", "jax", "torch", "onnx", "onnxruntime", "ai_edge_litert")

PROBE = f"""
import sys, time
start = time.perf_counter()
import keras
between = time.perf_counter()
before = {{m for m in {HEAVY} if m in sys.modules}}
import keras_tickets
end = time.perf_counter()
after = {{m for m in {HEAVY} if m in sys.modules}}
print((end - between) / (between - start), *sorted(after - before))
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
    # Beside Keras' own import, since machines differ; the least of three, since other
    # work on a machine only ever adds.
    assert min(share for share, _ in runs) < 0.1
