"""Importing the package is cheap and brings in no framework but Keras' own."""

from __future__ import annotations

import subprocess
import sys

import pytest

import keras_tickets as kt

pytestmark = pytest.mark.lowest

# Rooms of our own that are for files: they load at first use.
LATER = ("keras_tickets.mobile", "keras_tickets.convert.exporting")

CONVERTERS = {"tensorflow", "onnx", "onnxruntime", "ai_edge_litert", "tf2onnx"}

PROBE = """
import sys
import keras
before = set(sys.modules)
import keras_tickets
new = set(sys.modules) - before
# An old path is a name that loads nothing.
print(*sorted(name for name in new if sys.modules[name].__spec__))
import keras_tickets.convert, keras_tickets.mobile
print(*sorted(set(sys.modules) - before))
"""


def test_all_public_names_are_there_at_once_or_at_first_use():
    assert set(kt.__all__) <= set(dir(kt))
    assert all(getattr(kt, name) is not None for name in kt.__all__)
    assert kt.benchmark is kt.mobile.benchmark
    with pytest.raises(AttributeError, match="'keras_tickets' has no attribute 'sohw'"):
        _ = kt.sohw


@pytest.mark.backend_independent
@pytest.mark.slow
def test_the_name_of_a_script_changes_nothing(tmp_path):
    """Nor does it matter what else is imported, such as the command."""
    script = tmp_path / "keras-tickets.py"
    script.write_text(
        "import keras_tickets_command\nimport keras_tickets as kt\nprint(kt.wrap)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "function wrap" in done.stdout


def test_import_is_cheap_and_brings_no_package_beyond_keras_own():
    """Counted in modules: what time they take is the machine's business."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    )
    at_once, with_the_rooms = done.stdout.splitlines()
    brought = set(at_once.split())
    packages = {name.partition(".")[0] for name in brought}
    assert packages - sys.stdlib_module_names == {"keras_tickets"}
    assert not brought.intersection(LATER)
    assert len(brought) <= 140  # of our own 113
    assert not CONVERTERS.intersection(with_the_rooms.split())
