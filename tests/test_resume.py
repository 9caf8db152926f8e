"""A run that was really killed resumes bit-equal at the epoch boundary."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("killed.py")
PRUNERS = ("gradual", "random", "snfs", "gem_miner", "imp")
if keras.backend.backend() != "tensorflow":  # A process takes longer to compile.
    PRUNERS = ("snfs", "gem_miner")


def run(*arguments) -> int:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    # As users train: compiled with all of XLA's optimisations.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run(
        command, cwd=SCRIPT.parent, env=environment, timeout=600
    ).returncode


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="torch draws dropout from one global generator that no checkpoint holds",
)
def test_killed_and_resumed_is_bit_equal(tmp_path):
    """Only who is killed needs a process of its own; each takes seconds to start."""
    whole, died, resumed = (tmp_path / n for n in ("whole", "died", "resumed"))
    assert run(tmp_path / "a", whole, *PRUNERS) == 0
    for pruner in PRUNERS:
        assert run(tmp_path / "b", died / pruner, pruner, "--die-in-epoch", 3) == 7
    assert list(died.glob("*/*")) == []
    assert run(tmp_path / "b", resumed, *PRUNERS) == 0
    for pruner in PRUNERS:
        assert different(whole / f"{pruner}.npz", resumed / f"{pruner}.npz") == []


def different(first: pathlib.Path, second: pathlib.Path) -> list[str]:
    """The variables that differ."""
    with np.load(first) as one, np.load(second) as other:
        assert one.files == other.files
        return [
            name for name in one.files if not np.array_equal(one[name], other[name])
        ]
