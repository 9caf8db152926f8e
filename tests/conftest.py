"""What every test of the suite needs."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

BACKEND = keras.backend.backend()


@pytest.fixture(autouse=True)
def _fresh_session():
    """Give each test the same names and seeds, whatever ran before it."""
    # Without the garbage collector's full run, which costs more than most tests.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
