"""What works on files leaves the user's process as it was, and its other threads alone.

Faults are timed by `keras.Model.export`, the public function that each conversion
calls in the middle of its work.
"""

from __future__ import annotations

import gzip
import logging
import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from exported import SUFFIXES, exported_cnn, half
from keras import layers

import keras_tickets as kt
from keras_tickets.inspection import inspect

resource = pytest.importorskip("resource")
tf = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.backend_independent

LOGGERS = ("", "absl", "tensorflow", "tf2onnx")


def state() -> dict[str, object]:
    stderr = os.fstat(2)
    return {
        "eager": tf.config.functions_run_eagerly(),
        "stderr": (stderr.st_dev, stderr.st_ino),
        "levels": [logging.getLogger(name).level for name in LOGGERS],
        "memory": resource.getrlimit(resource.RLIMIT_AS),
        "warnings": list(warnings.filters),
    }


def policies(model: keras.Model) -> list[str]:
    return [layer.dtype_policy.name for layer in model.layers]


def tiny() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), layers.Dense(2)])


@pytest.fixture(autouse=True)
def _unspoiled():
    """What one test found spoiled is no matter of the next one."""
    tf.config.run_functions_eagerly(False)
    memory = resource.getrlimit(resource.RLIMIT_AS)
    yield
    tf.config.run_functions_eagerly(False)
    resource.setrlimit(resource.RLIMIT_AS, memory)


class Overlap:
    """Of two threads, lets the first end while the second is in the middle."""

    def __init__(self):
        self._first = None
        self._both_begun, self._first_ended = threading.Barrier(2), threading.Event()

    def middle(self, *_):
        first = self._first = self._first or threading.get_ident()
        try:
            self._both_begun.wait(timeout=0.5)
        except threading.BrokenBarrierError:
            return  # They come one after the other.
        if threading.get_ident() != first:
            self._first_ended.wait(timeout=20)

    def run(self, function, arguments):
        def ended(argument):
            function(argument)
            self._first_ended.set()

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(ended, arguments))


@pytest.fixture
def during(monkeypatch):
    """Calls a function in the middle of each conversion."""
    export = keras.Model.export

    def set_action(action):
        def paused(model, path, *args, **kwargs):
            action(path)
            return export(model, path, *args, **kwargs)

        monkeypatch.setattr(keras.Model, "export", paused)

    return set_action


@pytest.mark.parametrize("suffixes", [SUFFIXES, (".onnx", ".onnx")])
def test_two_exports_at_once_leave_nothing_behind(tmp_path, during, suffixes):
    models = [tiny(), tiny()]

    def export(number):
        path = tmp_path / f"{number}{suffixes[number]}"
        kt.export(models[number], path, verbose=False)

    overlap = Overlap()
    during(overlap.middle)
    before = state()
    overlap.run(export, range(2))
    assert state() == before


def test_two_inspections_at_once_leave_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    path.write_bytes(exported_cnn(".tflite")[0])
    overlap, compress = Overlap(), gzip.compress

    def paused(*args, **kwargs):
        overlap.middle()
        return compress(*args, **kwargs)

    monkeypatch.setattr(gzip, "compress", paused)
    before = state()
    overlap.run(inspect, [path, path])
    assert state() == before


def interrupt(function):
    """A function that does its work and is interrupted then, the first time."""
    calls = []

    def interrupted(*args, **kwargs):
        function(*args, **kwargs)
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt

    return interrupted


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (keras.Model, "export"),
        (logging.Logger, "setLevel"),
        (tf.config, "run_functions_eagerly"),
        (warnings, "simplefilter"),
    ],
)
def test_an_interrupted_export_leaves_nothing_behind(
    tmp_path, monkeypatch, suffix, owner, name
):
    model = half()
    for logger in LOGGERS:
        monkeypatch.setattr(logging.getLogger(logger), "level", logging.INFO)
    before, own = state(), policies(model)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupt(getattr(owner, name)))
        try:
            kt.export(model, tmp_path / f"m{suffix}", verbose=False)
        except KeyboardInterrupt:
            assert not list(tmp_path.iterdir())
    assert state() == before
    assert policies(model) == own


def test_importing_a_converter_sets_no_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    monkeypatch.delitem(sys.modules, "tf2onnx.convert", raising=False)
    kt.export(tiny(), tmp_path / "m.onnx", verbose=False)
    assert "tf2onnx.convert" in sys.modules
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_threads_go_on_as_before(tmp_path, during, capfd, suffix):
    model, image = half(), np.ones((2, 10, 10, 3), "float32")
    expected, own = np.asarray(model(image)), policies(model)
    seen = []

    def use(path):
        seen.append((np.asarray(model(image)), policies(model)))
        os.write(2, b"still here\n")

    def meanwhile(path):
        thread = threading.Thread(target=use, args=[path])
        thread.start()
        thread.join()

    during(meanwhile)
    kt.export(model, tmp_path / f"m{suffix}", verbose=False)
    ((outputs, found),) = seen
    assert found == own
    np.testing.assert_array_equal(outputs, expected)
    assert "still here" in capfd.readouterr().err
