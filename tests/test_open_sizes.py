"""Files that leave sizes open: who chooses them, and that reports say so."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from exported import exported_cnn
from onnx import TensorProto, helper, numpy_helper
from places import available

import keras_tickets as kt
from keras_tickets._util import process
from keras_tickets.cli import main
from keras_tickets.runtime import sizes
from keras_tickets.runtime.isolated import isolated
from keras_tickets.runtime.sizes import choose
from keras_tickets.tflite.schema import pack, unpack

pytestmark = pytest.mark.backend_independent

FLOAT, INT, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def onnx_file(folder, inputs, nodes=None, output=None, constants=()):
    """Write a model of these inputs, name -> (type, sizes); the first is copied."""
    ports = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, (kind, shape) in inputs.items()
    ]
    kind = next((kind for kind, _ in inputs.values()), FLOAT)
    nodes = nodes or [helper.make_node("Identity", [next(iter(inputs))], ["y"])]
    outputs = [helper.make_tensor_value_info("y", kind, output)]
    tensors = [numpy_helper.from_array(values, name) for name, values in constants]
    graph = helper.make_graph(nodes, "g", ports, outputs, tensors)
    path = folder / "m.onnx"
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[opset]), path)
    return path


def tflite_file(folder, signature, stored=None, prefix=b""):
    """Write a convolutional network whose image has open sizes."""
    model = unpack(exported_cnn(".tflite")[0])
    graph = model.subgraphs[0]
    image = graph.tensors[graph.inputs[0]]
    image.shapeSignature = np.array(signature, np.int32)
    if stored:
        image.shape = np.array(stored, np.int32)
    for tensor in graph.tensors if prefix else ():
        tensor.name = prefix + (tensor.name or b"")
    path = folder / "m.tflite"
    path.write_bytes(pack(model, 10_000))
    return path


# What is chosen


@pytest.mark.parametrize(
    ("inputs", "needed", "chosen"),
    [
        ({"x": (FLOAT, ["batch", 3, 8, 8])}, {}, {"x": (1, 3, 8, 8)}),
        ({"x": (FLOAT, [-1, 3, 8, 8])}, {}, {"x": (1, 3, 8, 8)}),
        ({"x": (FLOAT, ["n", 3, "h", "w"])}, {}, {"x": (1, 3, 224, 224)}),
        ({"x": (FLOAT, ["n", 3, "h", "w"])}, {"x": 320}, {"x": (1, 3, 320, 320)}),
        ({"x": (FLOAT, [None, "c", "h", "w"])}, {}, {"x": (1, 3, 224, 224)}),
        ({"x": (FLOAT, ["height", "width", 3])}, {}, {"x": (224, 224, 3)}),
        ({"x": (INT, ["batch", "seq"])}, {}, {"x": (1, 128)}),
        ({"x": (FLOAT, ["samples"])}, {"x": 16000}, {"x": (16000,)}),
        ({"x": (FLOAT, [None, None, 40])}, {"x": 512}, {"x": (1, 512, 40)}),
        (
            {"x": (FLOAT, ["batch", "n_samples"]), "state": (FLOAT, [2, "batch", 8])},
            {"x": 512},
            {"x": (1, 512), "state": (2, 1, 8)},
        ),
        (
            {"ids": (INT, ["batch", "seq"]), "mask": (INT, ["batch", "seq"])},
            {},
            {"ids": (1, 128), "mask": (1, 128)},
        ),
    ],
)
def test_sizes_are_chosen(tmp_path, monkeypatch, inputs, needed, chosen):
    """`needed` is the only size at which an input is accepted."""

    def attempt(path, interface, shapes):
        if any(size not in shapes[name] for name, size in needed.items()):
            raise RuntimeError("no")

    monkeypatch.setattr(sizes, "_attempt", attempt)
    found = choose(onnx_file(tmp_path, inputs))
    assert found.shapes == chosen
    assert all(f"runs at {shape}" in found.told for shape in chosen.values())


def test_a_file_of_fixed_sizes_needs_no_words(tmp_path):
    path = onnx_file(tmp_path, {"x": (FLOAT, [2, 3])})
    assert choose(path) == sizes.Sizes({"x": (2, 3)}, "")


def test_sizes_that_the_file_stores_are_taken(tmp_path):
    path = tflite_file(tmp_path, [-1, -1, -1, 3], [1, 12, 14, 3])
    found = choose(path)
    assert found.shapes == {"image": (1, 12, 14, 3)}
    assert "as the file notes it" in found.told


def test_operators_and_outputs_decide(tmp_path):
    """Only 256 runs, and comes out as the file says."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("Identity", ["flat"], ["y"]),
    ]
    constants = [("shape", np.array([1, -1]))]
    inputs = {"x": (FLOAT, ["batch", 1, "h", "w"])}
    path = onnx_file(tmp_path, inputs, nodes, [1, 256 * 256], constants)
    report = kt.benchmark(path, runs=1, warmup=0, verbose=False)
    assert "x (?, 1, ?, ?) float32 runs at (1, 1, 256, 256), the first" in str(report)


def test_where_nothing_runs_the_argument_is_named(tmp_path, monkeypatch):
    def attempt(path, interface, shapes):
        raise RuntimeError("Too small.")

    monkeypatch.setattr(sizes, "_attempt", attempt)
    path = onnx_file(tmp_path, {"x": (FLOAT, ["n", "t"])})
    with pytest.raises(RuntimeError, match=r"none of 9 .*\{'x': \(1, 128\)\}.*small"):
        choose(path)


# What is passed


def test_passed_sizes_are_taken_everywhere(tmp_path):
    path = tflite_file(tmp_path, [-1, -1, -1, 3])
    given = {"image": (1, 24, 24, 3)}
    small, large = (
        kt.diagnose(path, input_shapes={"image": (1, size, size, 3)})
        for size in (12, 24)
    )
    assert "runs at (1, 24, 24, 3), as passed" in str(large)
    convolutions = [
        next(layer.multiplications for layer in found.layers if "CONV" in layer.op)
        for found in (small, large)
    ]
    assert convolutions == [convolutions[0], 4 * convolutions[0]]
    compared = kt.verify(path, input_shapes=given)
    assert "(1, 24, 24, 3), as passed" in compared.assumed
    assert "that of float32 files" in compared.assumed
    result = CliRunner().invoke(
        main,
        [
            *("benchmark", str(path), "--shape", "image=1,24,24,3", "--json"),
            *("--turns", "1", "--runs", "1", "--warmup", "0"),
        ],
    )
    assert "(1, 24, 24, 3), as passed" in str(json.loads(result.stdout)["assumed"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y": (1, 4)}, r"names 'y', which is .*x \(\?, 4\) float32"),
        ({"x": (1, 5)}, r"takes the input x \(\?, 4\) float32.*\(1, 5\)"),
        ({"x": (4,)}, r"takes the input x .*\(4,\)"),
        ({"x": "1,4"}, r"sizes of all its axes.*Received: '1,4'"),
        ({"x": (0, 4)}, r"Received: \(0, 4\)"),
    ],
)
def test_wrong_sizes_are_refused(tmp_path, given, message):
    path = onnx_file(tmp_path, {"x": (FLOAT, ["batch", 4])})
    for run in (kt.benchmark, kt.verify, kt.mobile.compare):
        files = [path] if run is kt.mobile.compare else path
        with pytest.raises(ValueError, match=message if "y" not in given else "'y'"):
            run(files, input_shapes=given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image", "--shape is INPUT=SIZES"),
        ("=1,2", "--shape is INPUT=SIZES"),
        ("image=1,x", "--shape is INPUT=SIZES"),
        ("image=1,9,9,3", "m.tflite' takes the input image (?, 12, 12, 3)"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(tmp_path, text, message):
    path = tflite_file(tmp_path, [-1, 12, 12, 3])
    result = CliRunner().invoke(main, ["diagnose", str(path), "--shape", text])
    assert result.exit_code
    assert message in result.stderr
    assert "damaged" not in result.stderr


@pytest.mark.lab
def test_open_batches_run_where_no_size_is_changed(tmp_path):
    path = tflite_file(tmp_path, [-1, 12, 12, 3])
    images = np.random.default_rng(0).random((2, 12, 12, 3)).astype("float32")
    with available("wasm", ".tflite").open(path) as there, isolated(path) as here:
        for batch in (images[:1], images):
            (ours,) = there.run({"image": batch}).values()
            (expected,) = here.run({"image": batch}).values()
            assert ours.shape == expected.shape == (len(batch), 5)
            np.testing.assert_allclose(ours, expected, atol=1e-5)


# A process of its own


def test_a_file_is_timed_in_a_process_that_is_bounded(tmp_path, monkeypatch):
    started = []
    popen = process.subprocess.Popen
    monkeypatch.setattr(
        process.subprocess,
        "Popen",
        lambda *args, **options: started.append(args) or popen(*args, **options),
    )
    nodes = [
        helper.make_node("Mul", ["x", "n"], ["shape"]),
        helper.make_node("Add", ["shape", "n"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["y"], to=INT),
    ]
    constants = [("n", np.array([2**32]))]
    path = onnx_file(tmp_path, {"x": (INT, [1])}, nodes, [], constants)
    with pytest.raises(RuntimeError, match=r"may take 4\.0 GiB.*KERAS_TICKETS_MEMORY"):
        kt.benchmark(path, runs=1, warmup=0, verbose=False)
    assert started


# Without a model


def test_a_file_without_inputs_is_verified(tmp_path):
    nodes = [helper.make_node("Exp", ["c"], ["y"])]
    constants = [("c", np.ones((2, 2), "float32"))]
    path = onnx_file(tmp_path, {}, nodes, [2, 2], constants)
    assert kt.verify(path).samples == 1


def test_strings_are_refused_by_name(tmp_path):
    path = onnx_file(tmp_path, {"words": (STRING, ["batch"])})
    for run in (kt.verify, kt.benchmark):
        with pytest.raises(RuntimeError, match=r"words .* takes no numbers"):
            run(path)


def test_samples_decide_on_open_sizes(tmp_path):
    path = onnx_file(tmp_path, {"x": (FLOAT, ["batch", "t", 2])})
    compared = kt.verify(path, samples=np.ones((3, 7, 2)) * [[[1]], [[2]], [[3]]])
    assert "(1, 7, 2)" in compared.assumed
    assert compared.samples == 3


def test_without_a_signature_sizes_are_changed(tmp_path):
    path = tflite_file(tmp_path, [-1, -1, -1, 3])
    model = unpack(path.read_bytes())
    model.signatureDefs = None
    path.write_bytes(pack(model, 10_000))
    (name,) = sizes.names(path)
    compared = kt.verify(path, input_shapes={name: (1, 24, 24, 3)})
    assert compared.max_rel < 1e-5


# Diagnosis


def test_what_tfmot_did_not_strip_is_named(tmp_path):
    path = tflite_file(tmp_path, [1, 12, 12, 3], prefix=b"prune_low_magnitude_")
    assert "strip_pruning(model) before you convert" in str(kt.diagnose(path))
    plain = tflite_file(tmp_path, [1, 12, 12, 3])
    assert kt.diagnose(plain).origin == ""


def test_of_an_onnx_what_helps_is_told(tmp_path):
    path = onnx_file(tmp_path, {"x": (FLOAT, [1, 4])})
    with pytest.raises(ValueError, match=r"none of these runs sparse.*model\.tflite"):
        kt.diagnose(path)
    result = CliRunner().invoke(main, ["diagnose", str(path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "export the model as .tflite" in result.stderr
