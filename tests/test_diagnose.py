"""What runs sparse on a phone: the table of rules, held against what ran on ARM64.

All graphs of `benchmarks.mobile_zoo` are run by `benchmarks.mobile_graphs`, which ends
with an error where one of them is not as predicted; here is a slice of them. What needs
the emulated machine is skipped without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import covering
from kept import kept
from keras import layers
from places import available

import keras_tickets as kt
from benchmarks import mobile_graphs, mobile_zoo
from benchmarks.unguarded import unguarded
from keras_tickets.cli import main
from keras_tickets.convert.to_tflite import to_litert
from keras_tickets.mobile import probe_model
from keras_tickets.tflite import schema
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.tflite.graph import Node
from keras_tickets.xnnpack import prediction as judging
from keras_tickets.xnnpack import speed, support
from keras_tickets.xnnpack.analysis import analyze
from keras_tickets.xnnpack.explicit_padding import pad_explicitly
from keras_tickets.xnnpack.layout import Layout

pytestmark = pytest.mark.backend_independent


@kept
def stored(name: str, guarded: bool = True) -> bytes:
    """A graph of the zoo as a file; without the guard with the zeros left out."""
    graph = mobile_zoo.GRAPHS[name]
    plain = mobile_graphs.ticket_of(graph).strip()
    with contextlib.nullcontext() if guarded else unguarded():
        return probe_model.draft(plain, graph.precision).to_bytes()


def told(name: str, guarded: bool = True):
    return analyze(TfliteFile.parse(stored(name, guarded)), name)


# Graph, what runs in which kernel, and a word of why the others do not.
PREDICTED = [
    ("plain", {"f32 32x1": 2}, "1x4"),
    ("odd size", {"f32 32x1": 2}, "1x4"),
    ("gate", {"f32 32x1": 4}, "1x4"),
    ("depth to space", {"f32 32x1": 4}, ""),
    ("clamps", {"f32 32x1": 2}, "1x4"),
    ("dilated 1x1", {"f32 32x1": 3}, "1x4"),
    ("blocks of 4", {"f32 32x4": 2}, "1x4"),
    ("float16", {"f32 32x1": 2}, "no sparse kernel for dense layers of float16"),
    ("mlp 1x4", {"f32 1x4": 3}, ""),
    ("50 %", {}, "more than two thirds"),
    ("grey stem", {}, "other than 3 channels"),
    ("stem without strides", {}, "without strides of 2"),
    ("flatten head", {}, "nothing behind it pools"),
    ("subtract", {}, "SUB"),
    ("max pooling", {}, "MAX_POOL_2D reads its output"),
    ("concatenate", {}, "CONCATENATION reads its output"),
    ("pooling, convolution", {}, "keepdims"),
]


QUICK = ("plain", "gate", "blocks of 4", "float16", "mlp 1x4", "50 %")
QUICK += ("flatten head", "max pooling", "pooling, convolution")


@pytest.mark.parametrize(
    ("name", "kernels", "reason"),
    covering(PREDICTED, quick=[row for row in PREDICTED if row[0] in QUICK]),
)
def test_what_runs_sparse_is_predicted(name, kernels, reason):
    found = told(name)
    assert found.kernels == kernels
    assert not found.breaks
    assert reason in " ".join(layer.reason for layer in found.layers)
    dense = [la for la in found.layers if la.candidate and la.runs != "sparse"]
    assert all(layer.reason for layer in dense)
    assert ("Nothing runs sparse" in found.verdict) == (not kernels)


BREAKING = ["concatenate", "max pooling", "strided 1x1", "pooling, convolution"]


@pytest.mark.parametrize(
    "name", covering(BREAKING, quick=["max pooling", "pooling, convolution"])
)
def test_what_breaks_is_told_and_never_written(name):
    assert told(name, guarded=False).breaks
    assert "fails or computes wrong" in told(name, guarded=False).verdict
    assert all(layer.encoding == "dense" for layer in told(name).layers)


# As small as they come: each takes the emulated machine twice. More of them are in
# `test_probe.py`, and all in the benchmark.
RUN = ["gate", "mlp 1x4", "subtract"]


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_the_prediction_is_what_runs_on_arm64(name, tmp_path):
    available("arm64", ".tflite")
    path = tmp_path / "graph.tflite"
    path.write_bytes(stored(name))
    assert mobile_graphs.counted("arm64", path) == kt.diagnose(path).kernels
    ticket = mobile_graphs.ticket_of(mobile_zoo.GRAPHS[name])
    kt.verify(path, ticket, on="arm64")


@pytest.mark.lab
@pytest.mark.slow
def test_what_is_said_to_break_breaks_on_arm64(tmp_path):
    available("arm64", ".tflite")
    path = tmp_path / "graph.tflite"
    path.write_bytes(stored("max pooling", guarded=False))
    ticket = mobile_graphs.ticket_of(mobile_zoo.GRAPHS["max pooling"])
    with pytest.raises(RuntimeError, match="does not compute what"):
        kt.verify(path, ticket, on="arm64")


def test_blocks_are_chosen_as_xnnpack_does():
    full = np.ones((8, 3))
    assert judging.blocks_of(full) == 4
    ninety = np.repeat(np.random.default_rng(0).random((4, 50)) < 0.2, 2, 0)
    assert judging.blocks_of(ninety) == 2
    assert judging.blocks_of(np.eye(8)) == 1
    assert judging.blocks_of(np.zeros((8, 8))) == 4


def test_the_threshold_is_two_thirds_exactly():
    """XNNPACK asks for more than two thirds of the zeros of a cluster."""
    (graph,) = TfliteFile.parse(stored("plain")).graphs()
    (partition,) = judging.partitions(graph)
    cluster = next(c for c in Layout(partition).clusters.values() if c.weights)
    share = judging.Fraction(cluster.zeros, cluster.weights)
    assert any(
        c.switched for c in Layout(partition, share * 99 / 100).clusters.values()
    )
    assert not any(c.switched for c in Layout(partition, share).clusters.values())


def test_zeros_around_an_odd_image_are_written_out(tmp_path):
    """The converter makes them "same" padding, which XNNPACK runs dense."""
    plain = mobile_graphs.ticket_of(mobile_zoo.GRAPHS["odd size"]).strip()
    signature = [keras.InputSpec(shape=(1, 33, 33, 3), dtype="float32", name="image")]
    path = tmp_path / "m.tflite"
    to_litert(plain, path, signature, "float32", [])
    file = TfliteFile.read(path)
    assert "PAD" not in file.ops()
    padded = pad_explicitly(file)
    assert padded.ops()["PAD"] == 1
    path.write_bytes(padded.to_bytes())
    kt.verify(path, plain, on="host")
    assert pad_explicitly(padded) is padded


def test_images_of_an_open_size_keep_their_padding(tmp_path):
    """Which zeros "same" adds is known when the file runs, and not before."""
    image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 1)(x))
    plain = keras.Model(image, x)
    signature = [keras.InputSpec(shape=(1, None, None, 3), dtype="float32")]
    path = tmp_path / "m.tflite"
    to_litert(plain, path, signature, "float32", [])
    file = TfliteFile.read(path)
    assert pad_explicitly(file) is file


def test_the_estimate_is_between_what_was_measured():
    assert speed.relative_time("convolution", 0.1) == 0.254
    assert speed.relative_time("convolution", 0.0) == 0.145
    assert speed.relative_time("convolution", 1.0) > 2
    assert speed.relative_time("int8 1x16", 0.1) == 1.0


@pytest.mark.parametrize(
    ("op", "shapes", "products"),
    [
        ("TRANSPOSE_CONV", [(4,), (5, 3, 3, 7), (1, 6, 6, 7), (1, 12, 12, 5)], 11340),
        ("BATCH_MATMUL", [(1, 2, 9, 4), (1, 2, 9, 5), (1, 2, 4, 5)], 360),
    ],
)
def test_products_are_counted(op, shapes, products):
    *inputs, output = range(len(shapes))
    values = [types.SimpleNamespace(shape=shape) for shape in shapes]
    options = types.SimpleNamespace(adjX=True)
    node = Node(0, op, 1, tuple(inputs), (output,), options)
    graph = types.SimpleNamespace(values=values)
    assert speed.multiplications(graph, node) == products


def small() -> keras.Model:
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2)(layers.ZeroPadding2D(1)(image))
    x = layers.Conv2D(16, 1, activation="relu", name="mix")(x)
    x = layers.Dense(32, name="head")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(3, name="last")(x), name="small")


def test_a_model_is_diagnosed_before_training_and_left_alone():
    model = small()
    before = [np.array(value) for value in model.get_weights()]
    found = kt.diagnose(model)
    assert found.kernels == {"f32 32x1": 1}
    assert {"mix", "head", "last"} < {layer.name for layer in found.layers}
    assert "90%" in found.assumed
    assert kt.diagnose(model, sparsity=0.5).kernels == {}
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    json.dumps(found.to_dict())


def test_a_ticket_is_diagnosed_with_its_masks():
    ticket = kt.wrap(small(), kt.Magnitude(0.4, allocation="uniform"))
    assert "40%" in kt.diagnose(ticket).assumed
    ticket.draw(verbose=0)
    found = kt.diagnose(ticket)
    assert (found.assumed, found.kernels) == ("", {})
    assert found.clusters[0].sparsity == pytest.approx(0.4, abs=0.01)
    with pytest.raises(ValueError, match=r"are drawn.*sparsity=0\.9"):
        kt.diagnose(ticket, sparsity=0.9)
    plain = ticket.strip()
    assert kt.diagnose(plain).kernels == {}
    assert kt.diagnose(plain, sparsity=0.9).kernels == {"f32 32x1": 1}


def test_of_a_file_nothing_is_assumed(tmp_path):
    for name, value in (("sparsity", 0.5), ("precision", "int8")):
        with pytest.raises(ValueError, match=rf"m\.tflite' is a file.*{name}="):
            kt.diagnose(tmp_path / "m.tflite", **{name: value})


def test_what_is_eligible_runs_sparse():
    structure = kt.mobile.structure()
    pruner = kt.Magnitude(0.9, allocation="uniform", structure=structure)
    ticket = kt.wrap(small(), pruner, only=kt.mobile.eligible)
    assert [kernel.layer.name for kernel in ticket.kernels] == ["mix", "head", "last"]
    ticket.draw(verbose=0)
    assert kt.diagnose(ticket).kernels == {"f32 1x4": 2, "f32 32x1": 1}
    table = kt.summary(ticket, mobile=True, print_fn=None)
    assert table.count("yes, f32") == 3


def test_what_is_eligible_depends_on_what_the_pruner_cuts():
    """Single zeros run sparse in 1x1 convolutions, and nowhere else."""
    ticket = kt.wrap(small(), kt.Magnitude(0.9), only=[kt.mobile.eligible])
    assert [kernel.layer.name for kernel in ticket.kernels] == ["mix"]
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64), layers.Dense(10)])
    with pytest.raises(ValueError, match=r"structure=kt\.mobile\.structure\(\)"):
        kt.wrap(model, kt.Magnitude(0.9), only=kt.mobile.eligible)


def test_nothing_eligible_is_told_with_the_reason():
    image = keras.Input((8, 8, 3))
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(image))
    with pytest.raises(ValueError, match="Nothing of 'plain' would run faster"):
        kt.wrap(
            keras.Model(image, x, name="plain"), "magnitude", only=kt.mobile.eligible
        )


def test_small_weights_of_int8_are_no_zeros():
    """Else nothing would tell which kernel of the model a kernel of the file is."""
    units = [layers.Dense(64, name="first"), layers.Dense(32, name="second")]
    model = keras.Sequential([keras.Input((64,)), *units])
    pruner = kt.Magnitude(0.9, structure=kt.mobile.structure(precision="int8"))
    ticket = kt.wrap(model, pruner, only=kt.mobile.Eligible("int8"))
    assert [kernel.layer.name for kernel in ticket.kernels] == ["first", "second"]


def test_random_zeros_that_cut_a_signal_are_not_warned_of():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1), layers.Dense(1)])
    assert kt.diagnose(model, sparsity=0.99).layers


def test_eligible_tells_if_no_kernel_has_blocks():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)], name="odd")
    pruner = kt.Magnitude(0.9, structure=kt.mobile.structure())
    with pytest.raises(ValueError, match=r"'odd' can be cut .* multiples of 4"):
        kt.wrap(model, pruner, only=kt.mobile.eligible)


def test_eligible_asks_for_the_model():
    with pytest.raises(TypeError, match=r"only=kt\.mobile\.eligible"):
        kt.mobile.eligible(None)
    with pytest.raises(TypeError, match=r"only=kt\.mobile\.Eligible\('int8'\)"):
        kt.mobile.Eligible("int8")(None)
    with pytest.raises(ValueError, match="precision='float16'"):
        kt.mobile.Eligible("float16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"place": "ios"}, "place must be one of"),
        ({"precision": "float16"}, "float32 and int8 only"),
        ({"outputs": 3}, "outputs must be 1"),
        ({"place": "wasm", "outputs": 2}, "place='wasm'"),
    ],
)
def test_structures_that_no_kernel_reads_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kt.mobile.structure(**arguments)


def test_a_structure_for_each_kind_is_saved_and_found_again():
    words = kt.mobile.structure("arm64", "int8", outputs=4)
    again = kt.structure.get(keras.saving.serialize_keras_object(words))
    assert repr(again) == repr(words)
    assert words.label == "dense 1x16, 1x1 4x1"
    with pytest.raises(ValueError, match="no multiple of 4"):
        kt.wrap(
            keras.Sequential([keras.Input((6,)), layers.Dense(4)]),
            kt.Magnitude(structure=kt.mobile.structure()),
        )


def test_bad_input(tmp_path):
    with pytest.raises(FileNotFoundError):
        kt.diagnose(tmp_path / "none.tflite")
    with pytest.raises(ValueError, match=r"ends with '\.tflite'\. "):
        kt.diagnose(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="none of these runs sparse on a phone"):
        kt.diagnose(tmp_path / "m.onnx")
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        kt.diagnose(3)
    with pytest.raises(ValueError, match=r"sparsity=0\.9"):
        kt.diagnose(small(), sparsity=90)
    with pytest.raises(ValueError, match=r"sparsity=0\.9"):
        kt.diagnose(small(), sparsity="0.9")
    with pytest.raises(ValueError, match="precision must be one of"):
        kt.diagnose(small(), precision="int4")


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(stored("plain")[:700])
    with pytest.raises(ValueError, match=r"cannot be read as \.tflite"):
        kt.diagnose(path)


def test_operators_of_tensorflow_are_named():
    file = TfliteFile.parse(stored("plain"))
    codes = file.model.operatorCodes
    code = next(c for c in codes if schema.op_name(c) == "MEAN")
    code.builtinCode = code.deprecatedBuiltinCode = 32
    code.customCode = "FlexMean"
    found = analyze(TfliteFile.parse(file.to_bytes()), "m")
    assert found.foreign == ("FlexMean",)
    assert "FlexMean" in found.verdict


def test_the_command(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(stored("plain"))
    said = CliRunner().invoke(main, ["diagnose", str(path)])
    assert said.exit_code == 0
    assert "2 of 3 1x1 convolutions and dense layers run sparse" in " ".join(
        said.output.split()
    )
    said = CliRunner().invoke(main, ["diagnose", str(path), "--json"])
    assert json.loads(said.output)["kernels"] == {"f32 32x1": 2}
    assert CliRunner().invoke(main, ["diagnose", "none.tflite"]).exit_code == 2
    path.write_bytes(b"nothing")
    assert CliRunner().invoke(main, ["diagnose", str(path)]).exit_code == 1


def test_the_rules_need_no_keras():
    code = (
        "import sys, keras_tickets_command; keras_tickets_command.running = True;"
        "import keras_tickets.xnnpack.analysis; print('keras' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("op", "dtype", "integers", "in_blocks", "refused"),
    [
        ("CONV_2D", "float32", False, False, False),
        ("CONV_2D", "float16", False, False, False),
        ("CONV_2D", "int8", True, False, False),
        ("CONV_2D", "int8", False, False, True),
        ("DEPTHWISE_CONV_2D", "int8", True, False, True),
        ("FULLY_CONNECTED", "float32", False, True, False),
        ("FULLY_CONNECTED", "float16", False, True, True),
        ("FULLY_CONNECTED", "int8", True, True, False),
        ("FULLY_CONNECTED", "int8", False, True, True),
        ("FULLY_CONNECTED", "int8", True, False, True),
        ("GATHER", "float16", False, False, True),
        ("MUL", "float32", False, False, True),
    ],
)
def test_what_may_be_stored_without_zeros(op, dtype, integers, in_blocks, refused):
    assert bool(support.refusal(op, dtype, integers, in_blocks)) == refused


@pytest.mark.parametrize(
    ("zeros", "verdict"),
    [(0.5, "Slower than dense: about 0.8"), (0.9, "Expected: about 3.9 x dense")],
)
def test_a_file_that_will_be_slower_says_so_first(zeros, verdict):
    found = told("plain")
    layers = tuple(
        dataclasses.replace(layer, zeros=round(zeros * layer.weights))
        for layer in found.layers
        if layer.runs == "sparse"
    )
    found = dataclasses.replace(found, layers=layers)
    assert verdict in found.verdict
    assert found.verdict.startswith("Slower") == found.is_slower == (zeros < 0.6)


def test_a_ticket_is_judged_by_the_allocation_of_its_pruner():
    ticket = kt.wrap(small(), kt.Magnitude(0.8, allocation="erk"))
    found = kt.diagnose(ticket)
    sparsities = [layer.sparsity for layer in found.layers if layer.candidate]
    ticket.draw(verbose=0)
    drawn = [layer.sparsity for layer in kt.diagnose(ticket).layers if layer.candidate]
    np.testing.assert_allclose(sparsities, drawn, atol=0.01)
    assert max(sparsities) > min(sparsities) + 0.05
