"""Precision and sparsity together: zeros stay zeros, and no unsafe file is written."""

from __future__ import annotations

import functools
import math
import pathlib
import tempfile

import keras
import numpy as np
import pytest
from exported import cnn, exported_cnn, gru, make_sparse, sparse_cnn, values_of
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_tickets as kt
from keras_tickets.convert import names, tflite_encode, tflite_file
from keras_tickets.convert.comparison import compare, gap
from keras_tickets.convert.isolated import isolated
from keras_tickets.convert.reference import reference_bytes
from keras_tickets.convert.sampling import make_samples
from keras_tickets.convert.tensor import FileTensor

converts_here = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the conversion is the child's, tested on TensorFlow",
)

PRECISIONS = ("float32", "float16", "int8-dynamic", "int8")


def inputs(shape, rows=24):
    return np.random.default_rng(1).random((rows, *shape)).astype("float32")


def mlp(block: int) -> keras.Model:
    """Dense layers with nine tenths of their blocks of `block` inputs zero."""
    rng = np.random.default_rng(block)
    model = keras.Sequential(
        [
            keras.Input((64,), name="x"),
            layers.Dense(96, activation="relu", name="wide"),
            layers.Dense(32, name="head"),
        ],
        name="mlp",
    )
    for layer in model.layers:
        rows, columns = layer.kernel.shape
        kept = rng.random((rows // block, columns)) < 0.1
        kernel = rng.choice([-1, 1], (rows, columns)) * (0.5 + rng.random())
        layer.kernel.assign(kernel * np.repeat(kept, block, axis=0))
    return model


def export(model, path, precision, **arguments):
    data = inputs(model.inputs[0].shape[1:])
    if precision == "int8":
        arguments["representative_data"] = data
    arguments = {"samples": data, "verbose": False, "overwrite": True, **arguments}
    return kt.export(model, path, precision=precision, **arguments)


@functools.cache
def exported_mlp(precision, block):
    """The report and the stored weights of one file, written once for all tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "m.tflite")
        report = export(mlp(block), path, precision)
        tensors = tflite_file.tensors(path.read_bytes())
    return report, [tensor for tensor in tensors if tensor.is_weight]


@converts_here
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_zero_stays_at_its_place(precision):
    model = mlp(1)
    report, weights = exported_mlp(precision, 1)
    for layer in model.layers:
        kernel = values_of(layer.kernel).T
        (tensor,) = (t for t in weights if t.shape == kernel.shape)
        np.testing.assert_array_equal(tensor.values == tensor.zero, kernel == 0)
        assert tensor.zero == 0
    assert report.zeros == sum(
        int((values_of(w) == 0).sum()) for w in model.weights[::2]
    )
    assert report.max_relative_difference <= report.tolerance


# What each precision makes of dense layers, by the inputs that live or die together.
ENCODINGS = {
    ("float32", 1): "sparse",
    ("float32", 4): "sparse 1x4",
    ("float16", 1): "sparse",
    ("float16", 4): "sparse",
    ("int8-dynamic", 1): "dense",
    ("int8", 1): "dense",
    ("int8", 16): "sparse 1x16",
}


@converts_here
@pytest.mark.parametrize(("precision", "block"), ENCODINGS)
def test_dense_layers_are_stored_as_is_safe(precision, block):
    report, weights = exported_mlp(precision, block)
    expected = ENCODINGS[precision, block]
    (wide,) = (t for t in weights if t.shape == (96, 64))
    assert wide.encoding == expected
    unpacked = report.ops.get("DENSIFY", 0)
    assert (unpacked > 0) == (expected == "sparse")
    assert (report.barred != {}) == (expected == "dense")
    assert (report.bytes < report.dense_bytes) == (expected != "dense")


@converts_here
@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_convolutions_in_each_precision(precision, tmp_path):
    report = export(sparse_cnn(), tmp_path / "m.tflite", precision)
    assert report.max_relative_difference <= report.tolerance
    assert set(report.comparisons) == {"random", "real"}
    assert f"LiteRT, {precision}" in str(report)


def force(monkeypatch):
    """Stores everything without zeros, safe or not."""
    monkeypatch.setattr(
        tflite_encode,
        "_ways",
        lambda constant, readers, precision: ([tflite_encode._rows(constant)], ""),
    )


@converts_here
@pytest.mark.parametrize("precision", ["int8-dynamic", "int8"])
def test_what_is_barred_does_break(precision, tmp_path, monkeypatch):
    """The day one of these runs rightly, the bar can go."""
    force(monkeypatch)
    with pytest.raises(RuntimeError, match=r"cannot be loaded|cannot run|not compute"):
        export(mlp(16), tmp_path / "m.tflite", precision)
    assert list(tmp_path.iterdir()) == []


@converts_here
def test_blocks_that_the_runtime_is_not_told_of_do_break(tmp_path, monkeypatch):
    monkeypatch.setattr(tflite_encode, "_mark_readers", lambda model, sparse: None)
    with pytest.raises(RuntimeError):
        export(mlp(4), tmp_path / "m.tflite", "float32")


@converts_here
def test_a_tensor_of_few_zeros_stays_dense(tmp_path):
    model = make_sparse(cnn(), 0.1)
    report = export(model, tmp_path / "m.tflite", "float32")
    assert set(report.encodings) == {"dense"}
    assert report.bytes == report.dense_bytes


@converts_here
def test_equal_kernels_share_one_sparse_buffer(tmp_path):
    x = keras.Input((64,))
    twins = [layers.Dense(64) for _ in range(2)]
    model = keras.Model(x, twins[1](keras.ops.tanh(twins[0](x))))
    kernel = values_of(mlp(1).layers[0].kernel)[:, :64]
    for twin in twins:
        twin.kernel.assign(kernel)
    report = export(model, tmp_path / "m.tflite", "float32")
    assert report.encodings == {"sparse": 1}
    assert report.ops["DENSIFY"] == 1 == report.ops["FULLY_CONNECTED"] - 1


@converts_here
def test_recurrent_layers_in_int8_are_refused_and_nothing_else_ends(tmp_path):
    ids = np.random.default_rng(0).integers(0, 11, (8, 6)).astype("float32")
    with pytest.raises(RuntimeError, match=r"crashed|could not convert"):
        kt.export(
            gru(), tmp_path / "m.tflite", precision="int8", representative_data=ids
        )
    assert list(tmp_path.iterdir()) == []


IMAGES = np.zeros((4, 12, 12, 3), "float32")


@pytest.mark.parametrize(
    ("suffix", "arguments", "message"),
    [
        (".tflite", {"precision": "half"}, "must be one of 'float32'.*'half'"),
        (".onnx", {"precision": "int8"}, "Use precision='float16', or a path"),
        (".onnx", {"precision": "int8-dynamic"}, "Use precision='float16'"),
        (".tflite", {"precision": "int8"}, "representative_data=x_train"),
        (
            ".tflite",
            {"precision": "float16", "representative_data": IMAGES},
            "for precision='int8' only",
        ),
        (
            ".tflite",
            {"precision": "int8", "representative_data": IMAGES[..., :1]},
            r"`representative_data` for input 'image' must have the shape \(rows, 12",
        ),
        (".tflite", {"precision": "int8-dynamic", "sparse": True}, "sparse='auto'"),
        (".tflite", {"sparse": "yes"}, "`sparse` must be 'auto', True or False"),
        (".tflite", {"opset": 17}, "`opset` is for '.onnx'"),
    ],
)
def test_arguments_that_do_not_go_together(suffix, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        kt.export(sparse_cnn(), tmp_path / f"m{suffix}", **arguments)
    assert list(tmp_path.iterdir()) == []


@converts_here
def test_insisting_on_sparse_names_what_can_not_be(tmp_path):
    with pytest.raises(ValueError, match=r"have to be stored with.*blocks of 16"):
        export(mlp(1), tmp_path / "m.tflite", "int8", sparse=True)
    report = export(mlp(16), tmp_path / "m.tflite", "int8", sparse=True)
    assert report.encodings == {"sparse 1x16": 2}


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_weights_beyond_float16_are_named(suffix, tmp_path):
    model = mlp(1)
    model.layers[1].kernel.assign(values_of(model.layers[1].kernel) * 1e6)
    with pytest.raises(ValueError, match=r"head/kernel.*float16 ends at 65504"):
        kt.export(model, tmp_path / f"m{suffix}", precision="float16")
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 400), st.data())
def test_the_reference_counts_the_ways_to_place_the_zeros(size, data):
    kept = data.draw(st.integers(0, size))
    bits = math.log2(math.comb(size, kept)) if size else 0
    assert reference_bytes(kept, size, 2) == pytest.approx(
        2 * kept + bits / 8, abs=1e-4
    )


def test_zero_is_what_the_tensor_says():
    tensor = FileTensor("t", np.array([[3, 3, 5]], "int8"), "dense", 3, 3, True)
    assert (tensor.zeros, tensor.nonzeros, tensor.is_weight) == (2, 1, True)
    plain = FileTensor("t", np.array([[3, 3, 5]], "int8"), "dense", 3)
    assert not plain.is_weight


def test_differences_are_told_from_all_sides():
    expected = [np.array([[1.0, 2.0], [4.0, 3.0]]), np.array([[0.0, 1.0]])]
    received = [np.array([[1.0, 2.5], [3.0, 3.5]]), np.array([[0.0, 1.0]])]
    found = gap(expected, received)
    assert (found.worst, found.largest, found.relative) == (1.0, 4.0, 0.25)
    assert (found.rows, found.agreeing) == (3, 2)
    both = compare([found, gap([np.zeros(2)], [np.ones(2)])], samples=2)
    assert both.max_abs == 1.0
    assert both.mean_abs == pytest.approx((0.5 + 1 + 0.5 + 2) / 8)
    assert both.argmax == pytest.approx(2 / 3)
    assert compare([gap([np.zeros(2)], [np.zeros(2)])], 1).argmax is None


@given(st.floats(-1e3, 1e3), st.floats(0, 1e3))
@settings(max_examples=20)
def test_random_inputs_stay_within_the_range_of_real_ones(low, width):
    spec = [keras.InputSpec(shape=(1, 5), dtype="float32")]
    real = [[np.array([[low]], "float32")], [np.array([[low + width]], "float32")]]
    least, most = real[0][0].item(), real[1][0].item()
    for (sample,) in make_samples(None, spec, 4, real):
        slack = 1e-5 * max(1.0, abs(least), abs(most))
        assert least - slack <= sample.min() <= sample.max() <= most + slack


@functools.cache
def tiny():
    return keras.Sequential([keras.Input((5,)), layers.Dense(1)])


@pytest.mark.parametrize(
    ("scope", "layer"),
    [
        ("mlp_1/wide_1/MatMul", "wide"),
        ("mlp/head/BiasAdd", "head"),
        ("StatefulPartitionedCall", "StatefulPartitionedCall"),
    ],
)
def test_operators_are_traced_to_layers(scope, layer):
    assert names.layer_of(mlp(1), scope) == layer


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_outputs_have_the_names_of_the_model(suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(exported_cnn(suffix)[0])
    with isolated(path) as runtime:
        assert runtime.inputs == ["image"]
        assert runtime.outputs == sparse_cnn().output_names
        image = np.zeros((1, 12, 12, 3), "float32")
        assert [v.shape for v in runtime.run({"image": image}).values()] == [(1, 5)]
        assert runtime.peak_bytes > 0
