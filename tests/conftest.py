"""What every test of the suite needs."""

from __future__ import annotations

import gc
import os
import pathlib
from collections.abc import Collection, Iterable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Many tests compile the same small training step; JAX needs to be told to keep it. Read
# by JAX when Keras imports it.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# XLA compiles each `fit`, for TensorFlow too. For the few steps of a test, optimising
# takes longer than running.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

import hypothesis
import keras
import pytest

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

BACKEND = keras.backend.backend()


def covering(
    table: Iterable, quick: Collection, elsewhere: Collection = (), lowest=()
) -> list:
    """Each case of a table; `make test` runs those that are `quick`, the rest are slow.

    On JAX and torch runs what is in `elsewhere`, on the lowest versions what is in
    `lowest`. To be chosen so that each value is met once, and each pair that matters.
    """
    table = list(table)
    for chosen in (quick, elsewhere, lowest):
        assert all(case in table for case in chosen), chosen
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=[
                pytest.mark.backend_independent(case not in elsewhere),
                *[pytest.mark.slow] * (case not in quick),
                *[pytest.mark.lowest] * (case in lowest),
            ],
        )
        for case in table
    ]


def runs_here(item: pytest.Item) -> bool:
    """Whether a test shows on this backend what no other backend shows."""
    mark = item.get_closest_marker("backend_independent")
    independent = mark is not None and mark.args != (False,)
    # So are the examples in docstrings: what is more than a few numbers has its test.
    independent = independent or isinstance(item, pytest.DoctestItem)
    return BACKEND == "tensorflow" or not independent


def pytest_configure(config):
    """Do not look for examples where none of them runs: that takes seconds."""
    if BACKEND != "tensorflow":
        config.option.doctestmodules = False


def pytest_collection_modifyitems(config, items):
    """Leave out what runs on TensorFlow, unless `-m` asks for it."""
    if "backend_independent" in config.option.markexpr:
        return
    config.hook.pytest_deselected(items=[item for item in items if not runs_here(item)])
    items[:] = filter(runs_here, items)


def pytest_collection_finish():
    """Spare the garbage collector the frameworks.

    Each full run of it looks at a million objects that stay, and Keras' export and
    `clear_session` ask for one: of a small conversion that was half of the time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_session():
    """Give each test the same names and seeds, whatever ran before it."""
    # Without the garbage collector's full run, which costs more than most tests.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture
def arm64_lab():
    """Skip the test, or fail it, where the emulated machine was not built."""
    from places import available

    available("arm64", ".tflite")
