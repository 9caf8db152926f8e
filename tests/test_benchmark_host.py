"""Timing a file on this machine."""

from __future__ import annotations

import json

import numpy as np
import pytest
from exported import SUFFIXES, exported_cnn

import keras_tickets as kt
from keras_tickets.runtime import RUNNERS, Timing

pytestmark = pytest.mark.backend_independent

RUNTIMES = {".tflite": "ai-edge-litert", ".onnx": "onnxruntime"}


@pytest.fixture(params=SUFFIXES)
def file(request, tmp_path):
    path = tmp_path / f"model{request.param}"
    path.write_bytes(exported_cnn(request.param)[0])
    return path


def test_a_file_is_timed_in_its_own_runtime(file):
    report = kt.benchmark(file, runs=5, warmup=1, threads=2, verbose=False)
    assert report.runs == len(report.times_ms) == 5
    assert 0 < report.min_ms <= report.p10_ms <= report.median_ms <= report.p90_ms
    assert report.threads == 2
    assert report.runtime.startswith(RUNTIMES[file.suffix])
    assert report.device
    assert json.loads(json.dumps(report.to_dict()))["median_ms"] == report.median_ms
    assert "threads: 2" in str(report)


def test_statistics(tmp_path, monkeypatch):
    """Against numbers computed by hand; the warm-up is the runner's to leave out."""
    monkeypatch.setattr(
        RUNNERS["host"],
        "time",
        lambda *arguments: Timing(tuple(np.arange(1, 12) / 1000), "r 1", "d"),
    )
    (tmp_path / "m.onnx").touch()
    report = kt.benchmark(tmp_path / "m.onnx", verbose=False)
    found = (report.median_ms, report.p10_ms, report.p90_ms, report.min_ms)
    assert found == pytest.approx((6, 2, 10, 1))


def test_progress_is_shown(tmp_path, capsys):
    path = tmp_path / "m.onnx"
    path.write_bytes(exported_cnn(".onnx")[0])
    kt.benchmark(path, runs=3, warmup=1)
    assert "4/4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on": "moon"}, r"on='moon'. Available: 'host'"),
        ({"runs": 0}, "`runs` must be an integer of at least 1"),
        ({"warmup": -1}, "`warmup`"),
        ({"threads": 1.5}, "threads=1.5"),
    ],
)
def test_bad_arguments(arguments, message, file):
    with pytest.raises(ValueError, match=message):
        kt.benchmark(file, **arguments)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("model.keras", ValueError, r"ends with '\.tflite' or '\.onnx'"),
        ("model.onnx", FileNotFoundError, "kt.export"),
    ],
)
def test_bad_paths(name, error, message, tmp_path):
    with pytest.raises(error, match=message):
        kt.benchmark(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_broken_file_is_reported(suffix, tmp_path):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"not a model")
    with pytest.raises(RuntimeError, match=f"cannot be run by {RUNTIMES[suffix]}"):
        kt.benchmark(path, verbose=False)
