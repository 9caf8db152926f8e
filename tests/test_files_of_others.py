"""Files that other tools wrote: read as they are meant, never looked for elsewhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_tickets.inspection import inspect

pytestmark = pytest.mark.backend_independent

FLOAT = TensorProto.FLOAT


def onnx_model(nodes, constants, functions=(), domains=("",)):
    """Return a model from x (1, 4) to y, which reads the constants by their names."""
    ports = [helper.make_tensor_value_info(name, FLOAT, [1, 4]) for name in "xy"]
    tensors = [numpy_helper.from_array(values, name) for name, values in constants]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    return helper.make_model(
        graph,
        ir_version=10,
        functions=list(functions),
        opset_imports=[helper.make_opsetid(name, 21) for name in domains],
    )


def node(op, *inputs, **given):
    return helper.make_node(op, inputs, ["y"], **given)


# What lies beside the file


def external(folder, values, location="model.onnx.data"):
    """Write a model whose weights are said to be in another file."""
    folder.mkdir(exist_ok=True)
    model = onnx_model([node("MatMul", "x", "W")], [("W", values)])
    path = folder / "model.onnx"
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    if location != "model.onnx.data":
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer[0].external_data[0].value = location
        path.write_bytes(model.SerializeToString())
    return path


def test_weights_are_read_beside_the_file(tmp_path, monkeypatch):
    path = external(tmp_path / "mine", np.ones((4, 4), "float32"))
    other = external(tmp_path / "other", np.zeros((4, 4), "float32"))
    monkeypatch.chdir(other.parent)
    found = inspect(path)
    assert found.tensors[0].zeros == 0
    assert found.beside == ("model.onnx.data",)
    both = path.stat().st_size + path.with_name("model.onnx.data").stat().st_size
    assert found.bytes == both


@pytest.mark.parametrize("location", ["../secret", "{root}/secret", "link", ""])
def test_weights_are_not_read_out_of_the_folder(tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(64))
    location = location.format(root=tmp_path)
    path = external(tmp_path / "mine", np.ones((4, 4), "float32"), location)
    (path.parent / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="not in the folder"):
        inspect(path)


def test_missing_and_short_files_are_named(tmp_path):
    path = external(tmp_path / "mine", np.ones((4, 4), "float32"))
    beside = path.with_name("model.onnx.data")
    beside.write_bytes(bytes(10))
    with pytest.raises(ValueError, match=r"takes 64 bytes .* which has 10"):
        inspect(path)
    beside.unlink()
    with pytest.raises(FileNotFoundError, match=r"'W' is in another file"):
        inspect(path)


# Quantized numbers

CODES = np.array([[3, 5, 5, 0], [5, 5, 1, 0]], "uint8")
TALL = np.tile(CODES, (2, 1))


@pytest.mark.parametrize(
    ("op", "inputs", "given", "points", "zeros"),
    [
        ("DequantizeLinear", "W s p", {}, 5, 8),
        ("DequantizeLinear", "W s", {}, 5, 4),
        ("DequantizeLinear", "W s p", {"axis": 1}, [3, 5, 1, 0], 12),
        ("DequantizeLinear", "W s p", {"axis": 0}, [5, 0, 3, 1], 5),
        ("MatMulInteger", "x W q p", {}, 5, 8),
        ("MatMulInteger", "x W q p", {}, [3, 5, 1, 0], 12),
        ("QLinearConv", "x s q W s p s q", {}, [5, 0, 3, 1], 5),
        ("DynamicQuantizeMatMul", "x W s p", {"domain": "com.microsoft"}, 5, 8),
    ],
)
def test_zeros_are_counted_at_the_zero_point(
    tmp_path, op, inputs, given, points, zeros
):
    constants = [
        ("W", TALL),
        ("s", np.array(0.5, "float32")),
        ("q", np.array(7, "uint8")),
        ("p", np.array(points, "uint8")),
    ]
    path = tmp_path / "m.onnx"
    model = onnx_model([node(op, *inputs.split(), **given)], constants)
    path.write_bytes(model.SerializeToString())
    weight = next(t for t in inspect(path).tensors if t.name == "W")
    assert weight.zeros == zeros
    assert weight.is_weight


def test_zero_points_of_blocks(tmp_path):
    points = np.array([[5, 5, 1, 0], [3, 0, 5, 0]], "uint8")
    constants = [("W", TALL), ("s", np.ones((2, 4), "float32")), ("p", points)]
    given = {"axis": 0, "block_size": 2}
    model = onnx_model([node("DequantizeLinear", *"Wsp", **given)], constants)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    weight = next(t for t in inspect(path).tensors if t.name == "W")
    assert weight.zeros == np.sum(np.repeat(points, 2, axis=0) == TALL)


# Operators


def test_operators_of_the_runtime_and_of_the_file_are_not_custom(tmp_path):
    weight = ("W", np.ones((4, 4), "float32"))
    inner = [helper.make_node("Relu", ["a"], ["b"])]
    own = helper.make_function(
        "theirs", "Twice", ["a"], ["b"], inner, [helper.make_opsetid("", 21)]
    )
    nodes = [
        helper.make_node("FusedMatMul", ["x", "W"], ["a"], domain="com.microsoft"),
        helper.make_node("Twice", ["a"], ["b"], domain="theirs"),
        helper.make_node("Strange", ["b"], ["y"], domain="theirs"),
    ]
    model = onnx_model(nodes, [weight], [own], ("", "com.microsoft", "theirs"))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    found = inspect(path)
    assert found.custom_ops == ["custom:Strange"]
    assert found.ops["Relu"] == found.ops["Twice"] == found.ops["FusedMatMul"] == 1


def tflite_model(*ops, signatures=()):
    """Return a file that runs custom operators one after the other on four numbers."""
    from keras_tickets.tflite import schema

    classes = schema.schema()
    made = classes.ModelT()
    made.version, made.buffers = 3, [classes.BufferT()]
    graph = classes.SubGraphT()
    graph.tensors, graph.operators, made.operatorCodes = [], [], []
    for index in range(len(ops) + 1):
        tensor = classes.TensorT()
        tensor.name, tensor.shape, tensor.buffer = f"t{index}", [1, 4], 0
        graph.tensors.append(tensor)
    for index, name in enumerate(ops):
        code, operator = classes.OperatorCodeT(), classes.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = classes.BuiltinOperator.CUSTOM
        code.customCode = name
        operator.opcodeIndex = index
        operator.inputs, operator.outputs = [index], [index + 1]
        made.operatorCodes.append(code)
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [len(ops)]
    made.subgraphs = [graph]
    made.signatureDefs = [signature(classes, name) for name in signatures]
    return schema.pack(made, 1000)


def signature(classes, name):
    found, entry = classes.SignatureDefT(), classes.TensorMapT()
    entry.name, entry.tensorIndex = f"of_{name}", 0
    found.signatureKey, found.subgraphIndex = name, 0
    found.inputs, found.outputs = [entry], []
    return found


def test_custom_operators_that_litert_carries(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(tflite_model("Convolution2DTransposeBias", "Mfcc", "Strange"))
    assert inspect(path).custom_ops == ["custom:Strange"]


@pytest.mark.parametrize("order", [("train", "serving_default"), ("b", "a")])
def test_the_signature_that_is_shown_is_named(tmp_path, order):
    path = tmp_path / "m.tflite"
    path.write_bytes(tflite_model("Mfcc", signatures=order))
    found = inspect(path)
    first = "serving_default" if "serving_default" in order else "b"
    assert found.inputs[0].name == f"of_{first}"
    assert found.signatures[0] == first
    other = next(name for name in order if name != first)
    assert f"{first}; not looked at: {other}" in found.table()


def test_equal_scales_are_written_once():
    from keras_tickets.tflite import schema

    classes = schema.schema()
    scales = np.linspace(1, 2, 256, dtype="float32")

    def packed(count):
        model = schema.unpack(tflite_model(*["Mfcc"] * 6))
        for tensor in model.subgraphs[0].tensors[:count]:
            tensor.quantization = classes.QuantizationParametersT()
            tensor.quantization.scale = scales.copy()
            tensor.quantization.zeroPoint = np.zeros(256, "int64")
        return schema.pack(model, 1000)

    one, six = packed(1), packed(6)
    assert len(six) - len(one) < scales.nbytes
    for tensor in schema.unpack(six).subgraphs[0].tensors[:6]:
        np.testing.assert_array_equal(tensor.quantization.scale, scales)
        assert not np.any(tensor.quantization.zeroPoint)
