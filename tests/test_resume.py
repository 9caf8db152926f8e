"""A run that was really killed resumes bit-equal at the epoch boundary."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("killed.py")


def run(*arguments) -> int:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=SCRIPT.parent, timeout=240).returncode


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="torch draws dropout from one global generator that no checkpoint holds",
)
@pytest.mark.parametrize("pruner", ["gradual", "random", "snfs", "gem_miner", "imp"])
def test_killed_and_resumed_is_bit_equal(pruner, tmp_path):
    assert run(tmp_path / "a", tmp_path / "whole.npz", pruner) == 0
    assert run(tmp_path / "b", tmp_path / "never.npz", pruner, "--die-in-epoch", 3) == 7
    assert not (tmp_path / "never.npz").exists()
    assert run(tmp_path / "b", tmp_path / "resumed.npz", pruner) == 0
    with (
        np.load(tmp_path / "whole.npz") as whole,
        np.load(tmp_path / "resumed.npz") as resumed,
    ):
        assert whole.files == resumed.files
        different = [
            name
            for name in whole.files
            if not np.array_equal(whole[name], resumed[name])
        ]
    assert different == []
