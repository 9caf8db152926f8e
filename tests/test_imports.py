"""Importing the package is cheap and brings in no framework but Keras' own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import keras_tickets as kt

pytestmark = pytest.mark.lowest

HEAVY = (
    *("tensorflow", "jax", "torch", "onnx", "onnxruntime", "ai_edge_litert"),
    # Our own, for files: they load at first use.
    *("keras_tickets.mobile", "keras_tickets.convert.exporting"),
)

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
    # With compiled files, as after an installation: Keras' own have them.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    out = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout.split()
    return float(out[0]), out[1:]


def test_all_public_names_are_there_at_once_or_at_first_use():
    assert set(kt.__all__) <= set(dir(kt))
    assert all(getattr(kt, name) is not None for name in kt.__all__)
    assert kt.benchmark is kt.mobile.benchmark
    with pytest.raises(AttributeError, match="'keras_tickets' has no attribute 'sohw'"):
        _ = kt.sohw


@pytest.mark.any_backend
def test_the_name_of_a_script_changes_nothing(tmp_path):
    """Nor does it matter what else is imported, such as the command."""
    script = tmp_path / "keras-tickets.py"
    script.write_text(
        "import keras_tickets_command\nimport keras_tickets as kt\nprint(kt.wrap)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "function wrap" in done.stdout


@pytest.mark.slow
def test_import_is_cheap_and_brings_no_framework_beyond_keras_own():
    # Beside Keras' own import, since machines differ; one of three is enough, since
    # other work on a machine only ever adds.
    for _ in range(3):
        share, brought = probe()
        assert brought == []
        if share < 0.1:
            break
    assert share < 0.1
