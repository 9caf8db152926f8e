"""A slice of the export matrix, and the page that is made of all of it."""

from __future__ import annotations

import json
import os
import time

import keras
import pytest
from conftest import covering

import keras_tickets as kt
from benchmarks import export_matrix, export_table, zoo
from benchmarks.record import RESULTS
from benchmarks.worker import Worker

pytestmark = pytest.mark.backend_independent

# Each network in one format; the record has both, and `test_convert.py` has more.
SLICE = {
    "transformer": ".tflite",
    "text_gru": ".onnx",
    "audio_conv1d": ".tflite",
    "unet": ".onnx",
    "multi_input": ".tflite",
    "multi_output": ".onnx",
    "nested": ".tflite",
    "shared": ".onnx",
    "subclassed": ".tflite",
}


QUICK = ("text_gru", "audio_conv1d", "multi_input", "multi_output", "subclassed")


@pytest.mark.parametrize(
    ("name", "suffix"),
    covering(SLICE.items(), quick=[(name, SLICE[name]) for name in QUICK]),
)
def test_networks_are_verified(name, suffix):
    results = export_matrix.measure(name, suffix, "float32")
    assert results["verdict"] == "verified", results["reason"]
    assert results["max_relative_difference"] <= 1e-5


@pytest.mark.parametrize("name", SLICE)
def test_networks_are_what_they_say(name):
    network = zoo.NETWORKS[name]
    model, again = network.build(), network.build()
    inputs = network.inputs(3)
    one, other = model(inputs), again(inputs)
    for first, second in zip(
        keras.tree.flatten(one), keras.tree.flatten(other), strict=True
    ):
        values = keras.ops.convert_to_numpy(first)
        assert (values == keras.ops.convert_to_numpy(second)).all()
        assert len(values) == 3
        assert values.std(axis=0).max() > 1e-4  # The inputs are told apart.
    assert kt.wrap(model, kt.Magnitude(0.9)).kernels


def row(network, suffix, precision, **results):
    return {
        "parameters": {"network": network, "file": suffix, "precision": precision},
        "seconds": 1.5,
        "results": results,
    }


def test_the_page_tells_verdicts_reasons_and_numbers():
    numbers = {
        "bytes": 1234,
        "gzip_bytes": 999,
        "dense_bytes": 5678,
        "sparsity": 0.875,
        "max_relative_difference": 3e-7,
    }
    page = export_table.render(
        {
            "command": "python -m benchmarks.export_matrix",
            "date": "2026-01-02T03:04:05",
            "versions": {"keras": "3.15.1"},
            "rows": [
                row("a", ".tflite", "float32", verdict="verified", **numbers),
                row("a", ".onnx", "float16", verdict="refused", reason="two\nlines"),
                row("b", ".onnx", "float16", verdict="failed", reason="it crashed"),
            ],
        }
    )
    assert "keras 3.15.1. Date: 2026-01-02." in page
    assert "| a | verified | not run | not run | not run | not run | refused |" in page
    assert "1 of 2 | 0 of 2" in page
    assert "- **a .onnx float16**, refused: two lines" in page
    assert "- **b .onnx float16**, failed: it crashed" in page
    assert "| a | .tflite | float32 | 1,234 | 999 | 5,678 | 87.5% | 3.0e-07 |" in page


def test_the_page_in_the_documentation_is_the_record():
    content = json.loads((RESULTS / "export_matrix.json").read_text())
    assert export_table.PAGE.read_text() == export_table.render(content)


@pytest.mark.parametrize(
    ("function", "argument", "seconds", "reason"),
    [
        (os._exit, 3, 60, "the process crashed (exit status 3)"),
        (time.sleep, 60, 1, "it took longer than 1 seconds"),
        (int, "no number", 60, "ValueError: invalid literal for int"),
    ],
)
def test_a_row_that_breaks_is_only_a_row(function, argument, seconds, reason):
    with Worker(function, seconds) as worker:
        results = export_matrix.tried(worker, argument)
    assert results["verdict"] == "failed"
    assert results["reason"].startswith(reason)


def test_a_worker_goes_on_after_a_crash():
    with Worker(eval, seconds=60) as worker:
        assert worker("6 * 7") == 42
        with pytest.raises(RuntimeError, match="SIGABRT"):
            worker("__import__('os').abort()")
        assert worker("6 * 7") == 42
