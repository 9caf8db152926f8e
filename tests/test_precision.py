"""Precision and sparsity together: zeros stay zeros, and no unsafe file is written."""

from __future__ import annotations

import copy
import functools
import math

import keras
import numpy as np
import pytest
from conftest import covering
from exported import (
    cnn,
    export,
    exported_cnn,
    exported_mlp,
    gru,
    make_sparse,
    mlp,
    sparse_cnn,
    values_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from planted import changed

import keras_tickets as kt
from benchmarks.unguarded import unguarded
from keras_tickets._util.file_tensor import FileTensor
from keras_tickets._util.size_bound import tensor_bound
from keras_tickets.backend.random_inputs import Vocabulary, make_samples
from keras_tickets.convert import names, tflite_encoding
from keras_tickets.convert.comparison import compare, gap
from keras_tickets.convert.samples import cut_samples
from keras_tickets.runtime.isolated import isolated
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.tensor import constants, read

pytestmark = pytest.mark.backend_independent

PRECISIONS = ("float32", "float16", "int8-dynamic", "int8")


def stored_mlp(precision, block):
    """The report and the stored weights of one file, written once for all tests."""
    content, report = exported_mlp(precision, block)
    tensors = TfliteFile.parse(content).tensors()
    return report, [tensor for tensor in tensors if tensor.is_weight]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_zero_stays_at_its_place(precision):
    model = mlp(1)
    report, weights = stored_mlp(precision, 1)
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


@pytest.mark.parametrize(("precision", "block"), ENCODINGS)
def test_dense_layers_are_stored_as_is_safe(precision, block):
    report, weights = stored_mlp(precision, block)
    expected = ENCODINGS[precision, block]
    (wide,) = (t for t in weights if t.shape == (96, 64))
    assert wide.encoding == expected
    unpacked = report.ops.get("DENSIFY", 0)
    assert (unpacked > 0) == (expected == "sparse")
    assert (report.barred != {}) == (expected == "dense")
    assert (report.bytes < report.dense_bytes) == (expected != "dense")


@pytest.mark.parametrize("precision", covering(PRECISIONS[1:], quick=["int8"]))
def test_convolutions_in_each_precision(precision, tmp_path):
    report = export(sparse_cnn(), tmp_path / "m.tflite", precision)
    assert report.max_relative_difference <= report.tolerance
    assert set(report.comparisons) == {"random", "real"}
    assert f"LiteRT, {precision}" in str(report)


def rows_only(constant, readers, precision):
    """Stores everything without zeros, safe or not."""
    return [tflite_encoding.row_encoding(constant)], ""


@pytest.mark.parametrize(
    "precision", covering(["int8-dynamic", "int8"], quick=["int8"])
)
def test_what_is_barred_does_break(precision, tmp_path):
    """The day one of these runs rightly, the bar can go."""
    broken = r"cannot be loaded|cannot run|not compute"
    with unguarded(rows_only), pytest.raises(RuntimeError, match=broken):
        export(mlp(16), tmp_path / "m.tflite", precision)
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_the_runtime_is_not_told_of_do_break(tmp_path, monkeypatch):
    monkeypatch.setattr(tflite_encoding, "mark_readers", lambda model, sparse: None)
    with pytest.raises(RuntimeError):
        export(mlp(4), tmp_path / "m.tflite", "float32")


@pytest.mark.slow
def test_a_tensor_of_few_zeros_stays_dense(tmp_path):
    model = make_sparse(cnn(), 0.1)
    report = export(model, tmp_path / "m.tflite", "float32")
    assert set(report.encodings) == {"dense"}
    assert report.bytes == report.dense_bytes


@pytest.mark.slow
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


@pytest.mark.slow
def test_recurrent_layers_in_int8_are_refused_and_nothing_else_ends(tmp_path):
    ids = np.random.default_rng(0).integers(0, 11, (8, 6)).astype("float32")
    with pytest.raises(RuntimeError, match=r"crashed|could not convert"):
        kt.export(
            gru(), tmp_path / "m.tflite", precision="int8", representative_data=ids
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_calibration_feeds_each_input_its_own_data(tmp_path):
    """Converters order inputs by themselves; swapped ranges ruin the activations."""
    small, large = keras.Input((8,), name="b"), keras.Input((8,), name="a")
    x = layers.Dense(16)(layers.ReLU()(layers.Dense(16)(small)))
    model = keras.Model([small, large], x + layers.Dense(16)(large) / 50)
    rng = np.random.default_rng(0)
    data = [scale * rng.random((64, 8)).astype("float32") for scale in (1, 50)]
    report = kt.export(
        model,
        tmp_path / "m.tflite",
        precision="int8",
        representative_data=data,
        verbose=False,
    )
    assert report.max_relative_difference < 0.05


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_several_outputs_without_names(suffix, tmp_path):
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def build(self, shape):
            self.dense.build(shape)
            self.built = True

        def call(self, x):
            return self.dense(x), x + 1

    model = Two()
    model(np.zeros((2, 4), "float32"))
    report = kt.export(model, tmp_path / f"m{suffix}", verbose=False)
    assert report.max_relative_difference <= 1e-5


def test_rows_have_to_agree():
    specs = [{n: keras.InputSpec(shape=(1, 2), dtype="float32", name=n) for n in "ab"}]
    data = {"a": np.zeros((5, 2)), "b": np.zeros((3, 2))}
    with pytest.raises(ValueError, match=r"as many rows.*\[5, 3\]"):
        cut_samples(data, specs, 4)


def test_all_tensors_of_a_shared_buffer_change_together():
    """Kernels that differ by a scale share one int8 buffer."""
    file = TfliteFile.parse(exported_cnn(".tflite")[0])
    twin, *_ = next(
        tensors
        for tensors, _ in constants(file.model)
        if tensors[0].sparsity is not None
    )
    file.model.subgraphs[0].tensors.append(copy.copy(twin))
    dense = file.copy()
    dense.densify()
    mirror = lambda tensor: tensor.values[..., ::-1]  # noqa: E731
    for content in (dense.to_bytes(), changed(".tflite", file.to_bytes(), mirror)):
        last = TfliteFile.parse(content).model
        found = [t for t in last.subgraphs[0].tensors if t.buffer == twin.buffer]
        first, second = (read(tensor, last.buffers[twin.buffer]) for tensor in found)
        np.testing.assert_array_equal(first.values, second.values)


def padded(body, head):
    """What XNNPACK takes over on ARM: a padded stem of three channels."""
    image = keras.Input((32, 32, 3))
    x = layers.ZeroPadding2D(1)(image)
    x = layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(64, 1, activation="relu")(body(x))
    return keras.Model(image, head(layers.Conv2D(64, 1)(x)))


def dense_head(x):
    return layers.Dense(5)(layers.GlobalAveragePooling2D()(x))


def conv_head(x):
    return layers.Conv2D(5, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))


def branches(x):
    return layers.Concatenate()([layers.Conv2D(8, 1)(x), layers.Conv2D(8, 1)(x)])


def depthwise(x):
    return layers.DepthwiseConv2D(3, padding="same")(x)


def pooling(x):
    return layers.MaxPooling2D(2)(x)


def wide(x):
    return layers.Conv2D(8, 3, padding="same")(x)


LAYOUTS = {
    "depthwise": (depthwise, dense_head, False),
    "no exit": (branches, lambda x: layers.Dense(5)(layers.Flatten()(x)), False),
    "concatenate": (branches, dense_head, True),
    # Right behind the stem, they keep the way in shut: all of it runs dense.
    "max pooling": (pooling, dense_head, False),
    "plain 3x3": (wide, dense_head, False),
    "kept dimensions": (depthwise, conv_head, True),
}


# The rules behind them are held against each graph in `test_diagnose.py`.
@pytest.mark.parametrize("case", covering(LAYOUTS, quick=["concatenate", "plain 3x3"]))
def test_networks_that_go_wrong_on_arm_keep_their_zeros(case, tmp_path):
    """None of it shows on x86, where all of these files are right."""
    body, head, wrong = LAYOUTS[case]
    report = export(make_sparse(padded(body, head)), tmp_path / "m.tflite", "float32")
    assert ("DENSIFY" not in report.ops) == wrong
    assert any("XNNPACK" in reason for reason in report.barred.values()) == wrong


@pytest.mark.slow
def test_embeddings_lose_their_zeros_in_float32_only(tmp_path):
    ids = keras.Input((6,))
    x = layers.Flatten()(layers.Embedding(500, 16)(ids))
    model = make_sparse(keras.Model(ids, layers.Dense(2)(x)), 0.9)
    path = tmp_path / "m.tflite"
    words = np.random.default_rng(0).integers(0, 500, (8, 6)).astype("float32")
    single = kt.export(model, path, samples=words, verbose=False)
    assert single.encodings == {"sparse": 2}
    half = kt.export(
        model, path, precision="float16", samples=words, overwrite=True, verbose=False
    )
    assert any("table" in reason for reason in half.barred.values())


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
        (".tflite", {"sparse": 1}, "`sparse` must be 'auto', True or False"),
        (".tflite", {"precision": ["int8"]}, "must be one of 'float32'"),
        (".tflite", {"opset": 17}, "`opset` is for '.onnx'"),
        (".onnx", {"tolerance": float("nan")}, "a number of at least 0.*nan"),
        (".onnx", {"tolerance": -1}, "a number of at least 0.*-1"),
        (".onnx", {"tolerance": "tight"}, "a number of at least 0.*tight"),
        (".tflite", {"samples": iter([IMAGES])}, "must be an array of numbers.*iter"),
        (".tflite", {"samples": IMAGES * np.nan}, "not finite"),
    ],
)
def test_arguments_that_do_not_go_together(suffix, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        kt.export(sparse_cnn(), tmp_path / f"m{suffix}", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_insisting_on_sparse_names_what_can_not_be(tmp_path):
    with pytest.raises(ValueError, match=r"have to be stored with.*blocks of 16"):
        export(mlp(1), tmp_path / "m.tflite", "int8", sparse=True)
    report = export(mlp(16), tmp_path / "m.tflite", "int8", sparse=True)
    assert report.encodings == {"sparse 1x16": 2}


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_weights_beyond_float16_are_named(suffix, tmp_path):
    model = mlp(1)
    model.layers[1].kernel.assign(values_of(model.layers[1].kernel) * 1e6)
    with pytest.raises(ValueError, match=r"(?s)head.*65504"):
        kt.export(model, tmp_path / f"m{suffix}", precision="float16")
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 400), st.data())
def test_the_reference_counts_the_ways_to_place_the_zeros(size, data):
    kept = data.draw(st.integers(0, size))
    bits = math.log2(math.comb(size, kept)) if size else 0
    assert tensor_bound(kept, size, 2) == pytest.approx(2 * kept + bits / 8, abs=1e-4)


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
    for (sample,) in make_samples(Vocabulary(), spec, 4, real):
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
