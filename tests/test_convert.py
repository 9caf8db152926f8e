"""Export: what is in the file is what was in the model, in each format."""

from __future__ import annotations

import collections
import itertools
import json

import keras
import numpy as np
import pytest
from conftest import covering
from exported import (
    SUFFIXES,
    attention,
    cnn,
    dict_model,
    exported_cnn,
    gru,
    half,
    list_model,
    make_sparse,
    open_size,
    sparse_cnn,
    subclassed,
    values_of,
)
from planted import changed

import keras_tickets as kt
from keras_tickets.convert import exporting, names
from keras_tickets.onnx.file import OnnxFile
from keras_tickets.runtime.formats import FORMATS
from keras_tickets.runtime.interpreters import open_runtime
from keras_tickets.runtime.isolated import isolated
from keras_tickets.tflite import schema
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.sparsity import Levels, decode, encode

pytestmark = [pytest.mark.backend_independent, pytest.mark.lowest]


def kernel_zeros(model):
    weights = [w for w in model.weights if len(w.shape) >= 2 and "bias" not in w.name]
    return sum(int((values_of(w) == 0).sum()) for w in weights)


@pytest.mark.parametrize(
    "suffix", covering(SUFFIXES, quick=SUFFIXES, elsewhere=[".tflite"])
)
def test_the_report_is_measured_on_the_file(suffix):
    content, report = exported_cnn(suffix)
    assert report.bytes == len(content)
    assert report.zeros == kernel_zeros(sparse_cnn())
    assert report.keras_weights - report.keras_nonzeros == report.zeros
    # Scales that were not folded into a kernel count as weights of the file.
    assert report.keras_weights <= report.weights <= 1.02 * report.keras_weights
    assert report.sparsity == report.zeros / report.weights
    assert report.samples == 4
    assert 0 <= report.max_relative_difference <= 1e-5
    assert not any(op.startswith("custom:") for op in report.ops)
    assert json.loads(json.dumps(report.to_dict()))["sparsity"] == report.sparsity
    assert f"{report.bytes:,} bytes" in str(report)


@pytest.mark.parametrize(
    "suffix", covering(SUFFIXES, quick=SUFFIXES, elsewhere=[".tflite"])
)
def test_the_file_holds_the_kernels_bit_by_bit(suffix):
    content, _ = exported_cnn(suffix)
    kernel = values_of(sparse_cnn().layers[-1].kernel)
    stored = [t.values for t in FORMATS[suffix].parse(content).tensors()]
    assert any(
        v.shape in (kernel.shape, kernel.T.shape)
        and (np.array_equal(v, kernel) or np.array_equal(v, kernel.T))
        for v in stored
    )


def test_sparse_tensors_are_stored_without_their_zeros():
    content, report = exported_cnn(".tflite")
    sparse = [t for t in TfliteFile.parse(content).tensors() if t.encoding == "sparse"]
    assert sparse
    assert all(t.stored_bytes < t.dense_bytes for t in sparse)
    assert report.bytes < report.dense_bytes


def test_dense_bytes_is_the_size_without_sparse_encoding(tmp_path):
    _, report = exported_cnn(".tflite")
    dense = kt.export(
        sparse_cnn(), tmp_path / "dense.tflite", sparse=False, verbose=False
    )
    assert dense.dense_bytes == dense.bytes
    # The same but for the longer names that the converter makes up on the way.
    assert 0 <= report.dense_bytes - dense.bytes < 800


def test_batch_is_one_for_phones_and_open_for_servers(tmp_path):
    shapes = {}
    for suffix, rows in ((".tflite", 1), (".onnx", 3)):
        path = tmp_path / f"m{suffix}"
        path.write_bytes(exported_cnn(suffix)[0])
        runtime = open_runtime(path)
        assert runtime.inputs == ["image"]
        image = np.zeros((rows, 12, 12, 3), "float32")
        (output,) = runtime.run({"image": image}).values()
        shapes[suffix] = output.shape
    assert shapes == {".tflite": (1, 5), ".onnx": (3, 5)}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_read_and_written_is_the_same(suffix):
    content, _ = exported_cnn(suffix)
    assert FORMATS[suffix].parse(content).to_bytes() == content


def test_written_buffers_are_aligned():
    """Kernels read weights where they lie in the file, in steps of 16 bytes."""
    content = TfliteFile.parse(exported_cnn(".tflite")[0]).to_bytes()
    start = np.frombuffer(content, np.uint8).ctypes.data
    model = schema.schema().Model.GetRootAs(content)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    data = [b.DataAsNumpy() for b in buffers if b.DataLength()]
    assert data
    assert all((values.ctypes.data - start) % 16 == 0 for values in data)


def test_a_densified_file_computes_the_same_bits(tmp_path):
    content, _ = exported_cnn(".tflite")
    image = np.random.default_rng(0).random((1, 12, 12, 3)).astype("float32")
    outputs = []
    file = TfliteFile.parse(content)
    file.densify()
    for number, data in enumerate((content, file.to_bytes())):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(data)
        outputs += open_runtime(path).run({"image": image}).values()
    np.testing.assert_array_equal(*outputs)
    again = TfliteFile.parse(data)
    assert all(t.encoding == "dense" for t in again.tensors())
    assert "DENSIFY" not in again.ops()


def test_an_export_parses_its_file_once_and_what_it_wrote_once(tmp_path, monkeypatch):
    content, _ = exported_cnn(".tflite")
    calls = collections.Counter()

    def counted(name, function):
        def count(*arguments):
            calls[name] += 1
            return function(*arguments)

        return count

    for name in ("unpack", "pack"):
        monkeypatch.setattr(schema, name, counted(name, getattr(schema, name)))
    monkeypatch.setattr(exporting, "converted", lambda *arguments: content)
    kt.export(sparse_cnn(), tmp_path / "m.tflite", verbose=False)
    # Packed to be written, and with its zeros, to tell its dense size.
    assert calls == {"unpack": 2, "pack": 2}


def test_changes_of_a_copy_leave_the_file():
    content, _ = exported_cnn(".tflite")
    file = TfliteFile.parse(content)
    file.copy().densify()
    assert file.to_bytes() == content


LAYOUTS = {
    "rows of a matrix": Levels((5, 8), (0, 1), (), (), (False, True)),
    "columns first": Levels((5, 8), (1, 0), (), (), (False, True)),
    "all compressed": Levels((3, 4, 5), (0, 1, 2), (), (), (True, True, True)),
    "a kernel": Levels((4, 3, 3, 8), (0, 1, 2, 3), (), (), (False,) * 3 + (True,)),
    "blocks of 1x4": Levels((6, 8), (0, 1, 2), (1,), (4,), (False, True, False)),
    "blocks of 2x2": Levels(
        (6, 8), (0, 1, 2, 3), (0, 1), (2, 2), (False, True, False, False)
    ),
}


@pytest.mark.parametrize("levels", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("sparsity", [0.0, 0.7, 1.0])
def test_sparse_layouts_are_inverted_exactly(levels, sparsity):
    rng = np.random.default_rng(3)
    tensor = rng.normal(size=levels.shape)
    tensor[rng.random(levels.shape) < sparsity] = 0
    indices, values = encode(levels, tensor)
    np.testing.assert_array_equal(decode(levels, indices, values), tensor)
    if not levels.block_map:
        assert values.size == np.count_nonzero(tensor)


def test_blocks_of_four_inputs_are_read_as_litert_stores_them(tmp_path):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(64, 32)).astype("float32")
    kernel *= np.repeat(rng.random((16, 32)) < 0.2, 4, axis=0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    model.layers[0].kernel.assign(kernel)
    report = kt.export(model, tmp_path / "b.tflite", verbose=False)
    tensors = TfliteFile.read(tmp_path / "b.tflite").tensors()
    (stored,) = (t for t in tensors if t.encoding == "sparse 1x4")
    np.testing.assert_array_equal(stored.values, kernel.T)
    # The kernel for such blocks takes them as they are: no DENSIFY in front.
    assert report.ops == {"FULLY_CONNECTED": 1}


def test_a_tensor_can_become_zero_throughout():
    content = changed(
        ".tflite",
        exported_cnn(".tflite")[0],
        lambda t: np.zeros_like(t.values) if t.encoding == "sparse" else None,
    )
    tensors = TfliteFile.parse(content).tensors()
    again = [t for t in tensors if t.encoding == "sparse"]
    assert again
    assert all(t.nonzeros == 0 and t.zeros == t.values.size for t in again)


# Keras 3.13 and 3.14 write no .tflite of a GRU or of a `call` with several arguments.
OLD_LITERT = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15)

CASES = {
    "dicts": dict_model,
    "lists": list_model,
    "gru": gru,
    "attention": attention,
    "mixed precision": half,
    "open image size": open_size,
    "subclassed": subclassed,
}
EACH = list(itertools.product(CASES, SUFFIXES))
# On other backends a child converts, which takes seconds, and does what is tested on
# TensorFlow.
IN_CHILD = [("dicts", ".tflite"), ("subclassed", ".onnx")]
# Each format has the order of several inputs and outputs, loops, and an open size.
SLOW = [("lists", ".tflite"), ("attention", ".onnx"), ("mixed precision", ".tflite")]
SLOW += [("open image size", ".onnx"), ("subclassed", ".tflite")]
QUICK = [case for case in EACH if case not in SLOW]


@pytest.mark.parametrize(
    ("case", "suffix"), covering(EACH, QUICK, elsewhere=IN_CHILD, lowest=QUICK)
)
def test_models_of_every_kind_export(case, suffix, tmp_path):
    if OLD_LITERT and (case, suffix) == ("gru", ".tflite"):
        pytest.skip("needs the exporter of Keras 3.15")
    model = make_sparse(CASES[case](), 0.5)
    report = kt.export(model, tmp_path / f"m{suffix}", verbose=False)
    assert report.max_relative_difference <= 1e-5
    assert report.zeros >= kernel_zeros(model)
    assert [p.name for p in tmp_path.iterdir()] == [f"m{suffix}"]


def test_mixed_precision_is_given_back(tmp_path):
    model = make_sparse(half(), 0.5)
    kt.export(model, tmp_path / "m.onnx", verbose=False)
    assert model.layers[1].dtype_policy.name == "mixed_float16"


def test_a_ticket_exports_with_its_masks(tmp_path, capsys):
    ticket = kt.wrap(cnn(), kt.Magnitude(sparsity=0.8))
    ticket.draw()
    images = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype("float32")
    report = kt.export(ticket, tmp_path / "t.tflite", samples=images)
    kept = sum(int(mask.sum()) for mask in ticket.masks.values())
    total = sum(mask.size for mask in ticket.masks.values())
    assert report.zeros >= total - kept
    assert report.samples == 12
    assert {kind: found.samples for kind, found in report.comparisons.items()} == {
        "random": 4,
        "real": 8,
    }
    assert "relative difference to Keras" in capsys.readouterr().out


@pytest.mark.skipif(OLD_LITERT, reason="needs the exporter of Keras 3.15")
def test_several_arguments_need_a_signature(tmp_path):
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, left, right):
            return {"minus": self.dense(left) - right, "plus": left + right}

    model = Two()
    model(np.ones((2, 4), "float32"), np.ones((2, 4), "float32"))
    spec = {"shape": (1, 4), "dtype": "float32"}
    signature = [keras.InputSpec(name=n, **spec) for n in ("left", "right")]
    report = kt.export(
        model, tmp_path / "two.tflite", input_signature=signature, verbose=False
    )
    assert report.max_relative_difference <= 1e-5


@pytest.mark.parametrize(
    ("file_names", "known", "expected"),
    [
        (["a", "b"], [["b"], ["a"]], {"a": 1, "b": 0}),
        (["a", "b"], [["x", "b"], ["y", "a"]], {"a": 1, "b": 0}),
        (
            ["output_0", "output_10", "output_2"],
            [[], [], []],
            {"output_0": 0, "output_2": 1, "output_10": 2},
        ),
        (["Identity:0", "Identity_1:0"], [["y"], ["x"]], {"Identity:0": 0}),
        (["b"], [["a"], ["b"]], {"b": 1}),
    ],
)
def test_tensors_are_matched_by_name(file_names, known, expected):
    assert expected.items() <= names.match("output", file_names, known).items()


def test_names_that_match_nothing_are_refused():
    with pytest.raises(RuntimeError, match="cannot be matched"):
        names.match("input", ["c"], [["a"], ["b"]])


@pytest.mark.parametrize("linear", [True, False])
def test_sparse_initializers_of_onnx_are_read(linear):
    onnx = pytest.importorskip("onnx")
    dense = np.array([[0, 5, 0], [7, 0, 8]], "float32")
    where = np.flatnonzero(dense) if linear else np.argwhere(dense)
    sparse = onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(dense[dense != 0], "w"),
        onnx.numpy_helper.from_array(where.astype(np.int64), "w_indices"),
        dense.shape,
    )
    node = onnx.helper.make_node(
        "Constant", [], ["c"], value=onnx.numpy_helper.from_array(dense, "t")
    )
    graph = onnx.helper.make_graph([node], "g", [], [], sparse_initializer=[sparse])
    content = onnx.helper.make_model(graph).SerializeToString()
    first, second = OnnxFile.parse(content).tensors()
    assert (first.name, first.encoding, second.name) == ("w", "sparse", "c")
    np.testing.assert_array_equal(first.values, dense)
    np.testing.assert_array_equal(second.values, dense)


@pytest.mark.backend_independent(False)
@pytest.mark.parametrize("suffix", covering(SUFFIXES, quick=[".onnx"]))
def test_dead_channels_are_removed_first_when_asked(suffix, tmp_path):
    model = cnn()
    kernel = values_of(model.layers[1].kernel)
    kernel[..., ::2] = 0
    model.layers[1].kernel.assign(kernel)
    reports = [
        kt.export(model, tmp_path / f"{shrink}{suffix}", shrink=shrink, verbose=False)
        for shrink in (False, True)
    ]
    whole, small = (report.keras_weights for report in reports)
    # Half of the 8 filters of 3x3x3, of what the depthwise and the 1x1 kernel read.
    assert whole - small == 4 * (27 + 9 + 64)
    assert reports[1].max_relative_difference <= 1e-5


def grouped():
    return keras.Sequential(
        [keras.Input((6, 6, 4)), keras.layers.Conv2D(8, 3, groups=2)]
    )


def adapted():
    mean = keras.layers.Normalization(mean=[0.5, 2.0, 1.0], variance=[2.0, 1.0, 4.0])
    return keras.Sequential([keras.Input((3,)), mean, keras.layers.Dense(4)])


def exact_gelu():
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, activation="gelu")]
    )


def zeros_around_a_pool():
    """The largest of nine is a zero of the border wherever the nine are negative."""
    model = keras.Sequential(
        [
            keras.Input((7, 7, 3)),
            keras.layers.Conv2D(4, 1),
            keras.layers.ZeroPadding2D(1),
            keras.layers.MaxPooling2D(3, 2),
        ]
    )
    model.layers[0].bias.assign([-9.0] * 4)
    return model


@pytest.mark.parametrize("build", [grouped, adapted, exact_gelu, zeros_around_a_pool])
def test_what_converters_leave_undone(build, tmp_path):
    """A function, an input of its own, an operator that is none."""
    report = kt.export(build(), tmp_path / "m.onnx", verbose=False)
    assert report.max_relative_difference <= 1e-5
    with isolated(tmp_path / "m.onnx") as runtime:
        assert len(runtime.inputs) == 1
