"""Two replicas draw the masks that one device draws."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import keras
import pytest


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="MirroredStrategy is TensorFlow's"
)
def test_mirrored_strategy_draws_the_same_masks():
    script = pathlib.Path(__file__).with_name("mirrored.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("differing 0\n") == 5
