"""ONNX tensors without their zeros: each bit, each opset, and only where it pays."""

from __future__ import annotations

import numpy as np
import pytest
from exported import cnn, exported_cnn, gru, make_sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_tickets._util.signature import input_signature
from keras_tickets.convert.to_onnx import check_opset, to_onnx
from keras_tickets.onnx import scatter
from keras_tickets.onnx.deltas import pack, unpack
from keras_tickets.onnx.encodings import LOWEST_OPSET
from keras_tickets.onnx.file import OnnxFile

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT = onnx.TensorProto.FLOAT
LATEST_OPSET = onnx.defs.onnx_opset_version()
# Released with ONNX 1.17, which the lowest ONNX Runtime claimed can run.
RUN_OPSETS = (LOWEST_OPSET, 13, 15, 18, 21)

pytestmark = pytest.mark.backend_independent


def sparse_array(shape, sparsity, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype("float32")
    values[rng.random(shape) < sparsity] = 0
    return values


def info(name, shape=None):
    return helper.make_tensor_value_info(name, FLOAT, shape)


def model_of(graph, opset):
    imports = [helper.make_opsetid("", opset)]
    version = helper.find_min_ir_version_for(imports)
    model = helper.make_model(graph, opset_imports=imports, ir_version=version)
    return model.SerializeToString()


def holding(arrays, opset=15):
    """A file whose output `i` is the tensor `w i`, plus an input that is zero."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", [f"w{i}", "zero"], [f"{i}"])
            for i in range(len(arrays))
        ],
        "g",
        [info("zero", [])],
        [info(f"{i}", array.shape) for i, array in enumerate(arrays)],
        initializer=[numpy_helper.from_array(a, f"w{i}") for i, a in enumerate(arrays)],
    )
    return model_of(graph, opset)


def run(content, feed=None, options=None):
    session = onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"]
    )
    return session.run(
        None, {"zero": np.zeros((), "float32")} if feed is None else feed
    )


def folded_ops(content, path):
    """The operators that are left after ONNX Runtime has loaded a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    )
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return OnnxFile.read(path).ops()


def encode(content, **options):
    file = OnnxFile.parse(content)
    scatter.encode(file.model, **options)
    return file.to_bytes()


def decode(content):
    file = OnnxFile.parse(content)
    scatter.decode(file.model)
    return file.to_bytes()


def bits(array):
    return array.dtype, array.shape, np.ascontiguousarray(array).tobytes()


def tensors_of(content):
    return OnnxFile.parse(content).tensors()


def named(content):
    return {t.name: t for t in tensors_of(content)}


def one(sparsity, shape=(64, 64)):
    return holding([sparse_array(shape, sparsity)])


# --- deltas ---------------------------------------------------------------------------


VALUES = st.sampled_from([0.0, 0.0, 0.0, 1.5, -3.0, 1e-45, np.inf, np.nan])


@given(st.lists(VALUES, min_size=1, max_size=40), st.integers(0, 700))
def test_packing_keeps_each_bit(values, zeros):
    values = np.array([*values, *[0] * zeros, *values[::-1]], np.float32)
    gaps, entries = pack(values)
    assert gaps.shape == entries.shape
    assert bits(unpack(gaps, entries, values.size)) == bits(values)


@pytest.mark.parametrize(
    ("size", "kept", "dtype", "entries"),
    [
        (1, [], np.uint8, 1),
        (900, [], np.uint8, 1),
        (300, [0], np.uint8, 1),
        (300, [255], np.uint8, 1),
        (300, [256], np.uint16, 1),
        (300, [0, 255], np.uint8, 2),
        (300, [0, 1, 2, 3, 4, 5, 261], np.uint8, 8),
        (600, [*range(20), 530, 599], np.uint8, 24),
        (70_000, [65_535], np.uint16, 1),
        (70_000, [65_536], np.uint16, 2),
        (140_000, [139_999], np.uint16, 3),
    ],
)
def test_long_gaps_are_walked_in_steps(size, kept, dtype, entries):
    values = np.zeros(size, "float32")
    values[kept] = 1
    gaps, packed = pack(values)
    assert (gaps.dtype, packed.size) == (dtype, entries)
    np.testing.assert_array_equal(unpack(gaps, packed, size), values)


def test_gaps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 deltas, which add up to 9"):
        unpack(np.array([4, 5]), np.ones(2), 9)


# --- encode and decode ----------------------------------------------------------------

SHAPES = [
    (3,),
    (700,),
    (40, 30),
    (10, 9, 8),
    (5, 4, 6, 7),
    (2, 3, 4, 5, 6),
    (90, 1, 1, 30),
]
ARRAYS = st.lists(
    st.builds(
        sparse_array,
        st.sampled_from(SHAPES),
        st.sampled_from([0, 0.05, 0.3, 0.8, 0.99, 0.9999, 1]),
        st.integers(0, 2**32 - 1),
    ),
    min_size=4,
    max_size=10,
)


@settings(max_examples=15, deadline=None)
@given(ARRAYS, st.sampled_from(RUN_OPSETS))
def test_the_runtime_sees_each_bit(arrays, opset):
    dense = holding(arrays, opset)
    encoded = encode(dense)
    assert len(encoded) <= len(dense)
    assert list(map(bits, run(encoded))) == list(map(bits, run(dense)))
    stored = named(encoded)
    assert stored.keys() == {f"w{i}" for i in range(len(arrays))}
    for i, array in enumerate(arrays):
        tensor = stored[f"w{i}"]
        assert bits(tensor.values) == bits(array)
        assert tensor.zeros == (array == 0).sum()
    assert OnnxFile.parse(encoded).dense_size() == len(dense)
    assert {t.encoding for t in tensors_of(decode(encoded))} == {"dense"}


@settings(max_examples=15, deadline=None)
@given(ARRAYS, st.sampled_from(RUN_OPSETS), st.booleans())
def test_float16_is_the_rounded_number(arrays, opset, sparse):
    dense = holding(arrays, opset)
    encoded = encode(dense, half=True, sparse=sparse)
    assert len(encoded) <= len(dense)
    for array, output in zip(arrays, run(encoded), strict=True):
        rounded = array.astype("float16").astype("float32")
        # Where a `Cast` costs more than it saves, the tensor is as it was.
        assert bits(output) in (bits(rounded), bits(array))
        if np.count_nonzero(array) > 100:
            assert bits(output) == bits(rounded)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("opset", range(LOWEST_OPSET, LATEST_OPSET + 1))
def test_the_full_checker_passes(opset, half):
    arrays = [sparse_array(shape, 0.9) for shape in SHAPES]
    encoded = encode(holding(arrays, opset), half=half)
    assert OnnxFile.parse(encoded).ops()["ScatterElements"] == len(SHAPES) - 1
    onnx.checker.check_model(encoded, full_check=True)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("opset", RUN_OPSETS)
def test_the_runtime_folds_it_while_it_loads(opset, half, tmp_path):
    arrays = [sparse_array(shape, 0.9) for shape in SHAPES]
    encoded = encode(holding(arrays, opset), half=half)
    assert folded_ops(encoded, tmp_path / "folded.onnx") == {"Add": len(SHAPES)}


# What one tensor of 64 x 64 becomes; five bytes per value against four.
@pytest.mark.parametrize(
    ("sparsity", "encoding"),
    [(0, "dense"), (0.05, "dense"), (0.19, "dense"), (0.3, "scatter"), (1, "scatter")],
)
def test_only_where_it_makes_the_file_smaller(sparsity, encoding):
    dense = one(sparsity)
    encoded = encode(dense)
    (tensor,) = tensors_of(encoded)
    assert tensor.encoding == encoding
    assert (len(encoded) < len(dense)) == (encoding == "scatter")
    assert (encoded == dense) == (encoding == "dense")


def test_the_nodes_own_bytes_count():
    """So small a tensor is not worth six nodes, however sparse it is."""
    (small,) = tensors_of(encode(one(0.9, (8, 8))))
    (large,) = tensors_of(encode(one(0.9, (16, 16))))
    assert (small.encoding, large.encoding) == ("dense", "scatter")


def test_stored_bytes_are_gaps_and_entries():
    array = sparse_array((64, 64), 0.9)
    kept = np.count_nonzero(array)
    for half, size in ((False, 5), (True, 3)):
        (tensor,) = tensors_of(encode(holding([array]), half=half))
        assert tensor.stored_bytes == size * kept
        assert tensor.dtype == "float32"
        assert tensor.encoding == "scatter"


def test_what_is_not_finite_survives():
    array = np.zeros((30, 30), "float32")
    array[3, :4] = [np.inf, -np.inf, np.nan, 1e-45]
    encoded = encode(holding([array]))
    (tensor,) = tensors_of(encoded)
    assert tensor.encoding == "scatter"
    assert bits(tensor.values) == bits(array)
    half = run(encode(holding([array]), half=True))[0]
    assert bits(half[3, :3]) == bits(array[3, :3])


def test_negative_zeros_are_zeros():
    """Else a kernel that a negative scale was folded into would stay dense."""
    array = sparse_array((40, 40), 0.9)
    (tensor,) = tensors_of(encode(holding([-array])))
    assert tensor.stored_bytes == 5 * np.count_nonzero(array)
    np.testing.assert_array_equal(tensor.values, -array)


# --- float16 --------------------------------------------------------------------------


def test_float16_overflow_is_refused_by_name():
    array = sparse_array((40, 40), 0.5)
    array[2, 3] = -70_000
    for sparse in (True, False):
        with pytest.raises(ValueError, match=r"'w0' holds -70000.*65504"):
            encode(holding([array]), half=True, sparse=sparse)


def test_what_stays_float32_may_be_large():
    """Masks of attention hold the lowest float32, in a tensor of one value."""
    lowest = np.full((1, 1), np.finfo("float32").min)
    weight = sparse_array((40, 40), 0)
    encoded = encode(holding([lowest, weight]), half=True)
    found, _ = run(encoded)
    assert bits(found) == bits(lowest)
    assert sorted(t.dtype for t in tensors_of(encoded)) == [
        "float16",
        "float32",
    ]


# --- graphs ---------------------------------------------------------------------------


def looping():
    """y = x, then three times y = (y + outer) * inner, and a branch with a body."""
    outer, inner = sparse_array((40, 30), 0.9, 1), sparse_array((40, 30), 0.8, 2)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["y", "outer"], ["sum"]),
            helper.make_node("Mul", ["sum", "inner"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            info("y", [40, 30]),
        ],
        [
            helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            info("next", [40, 30]),
        ],
        initializer=[numpy_helper.from_array(inner, "inner")],
    )
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["looped", "outer"], [name])],
            name,
            [],
            [info(name, [40, 30])],
        )
        for name, op in (("then", "Sub"), ("else", "Add"))
    }
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["three", "", "x"], ["looped"], body=body),
            helper.make_node("If", ["yes"], ["result"], **branches),
        ],
        "g",
        [info("x", [40, 30]), helper.make_tensor_value_info("yes", 9, [])],
        [info("result", [40, 30])],
        initializer=[
            numpy_helper.from_array(outer, "outer"),
            numpy_helper.from_array(np.array(3, np.int64), "three"),
        ],
    )
    return model_of(graph, 15), {"outer": outer, "inner": inner}


@pytest.mark.parametrize("yes", [True, False])
def test_bodies_of_loops_and_branches(yes, tmp_path):
    dense, weights = looping()
    encoded = encode(dense)
    onnx.checker.check_model(encoded, full_check=True)
    feed = {"x": sparse_array((40, 30), 0), "yes": np.array(yes)}
    assert list(map(bits, run(encoded, feed))) == list(map(bits, run(dense, feed)))
    stored = named(encoded)
    for name, values in weights.items():
        assert stored[name].encoding == "scatter"
        assert bits(stored[name].values) == bits(values)
    assert "ScatterElements" not in folded_ops(encoded, tmp_path / "folded.onnx")
    assert OnnxFile.parse(encoded).dense_size() == len(dense)


def test_inputs_and_outputs_of_the_graph_are_left_alone():
    arrays = [sparse_array((40, 40), 0.9, seed) for seed in range(3)]
    model = onnx.load_model_from_string(holding(arrays))
    model.graph.input.append(info("w0", [40, 40]))
    model.graph.output.append(info("w1", [40, 40]))
    encoded = encode(model.SerializeToString())
    assert [named(encoded)[f"w{i}"].encoding for i in range(3)] == [
        "dense",
        "dense",
        "scatter",
    ]
    assert bits(run(encoded)[-1]) == bits(arrays[1])
    other = sparse_array((40, 40), 0.2)
    given_by_caller = run(encoded, {"zero": np.zeros((), "float32"), "w0": other})
    assert bits(given_by_caller[0]) == bits(other)


def test_names_that_are_taken_are_avoided():
    model = onnx.load_model_from_string(one(0.9))
    helper_names = {
        "gaps",
        "entries",
        "axis",
        "size",
        "flat",
        "steps",
        "shape",
        "zeros",
    }
    for name in helper_names:
        model.graph.initializer.append(numpy_helper.from_array(np.ones(3), name))
    encoded = encode(model.SerializeToString())
    onnx.checker.check_model(encoded, full_check=True)
    assert named(encoded).keys() == {"w0", *helper_names}


def test_encoding_twice_changes_nothing():
    once = encode(holding([sparse_array((40, 40), 0.9), sparse_array((500,), 0.99)]))
    assert encode(once) == once


def test_an_opset_without_the_operators_is_refused():
    dense = holding([sparse_array((40, 40), 0.9)], LOWEST_OPSET - 1)
    with pytest.raises(ValueError, match=r"opset 10; .* needs opset 11"):
        encode(dense)
    assert run(encode(dense, half=True, sparse=False))


# --- reading files that other tools changed -------------------------------------------


def renamed(model):
    """New names for all values but inputs and outputs; names for all nodes."""
    graph = model.graph
    kept = {"", *(e.name for e in (*graph.input, *graph.output))}
    for i, node in enumerate(graph.node):
        node.name = f"node_{i}"
        for names in (node.input, node.output):
            names[:] = [name if name in kept else f"r_{name}" for name in names]
    for proto in graph.initializer:
        proto.name = f"r_{proto.name}"


def with_constant_nodes(model):
    graph = model.graph
    made = [
        helper.make_node("Constant", [], [proto.name], value=proto)
        for proto in graph.initializer
    ]
    rest = list(graph.node)
    del graph.initializer[:]
    del graph.node[:]
    graph.node.extend([*made, *rest])


def with_explicit_defaults(model):
    for node in model.graph.node:
        if node.op_type == "ScatterElements":
            node.attribute.append(helper.make_attribute("axis", 0))
        if node.op_type == "ConstantOfShape":
            zero = numpy_helper.from_array(np.zeros(1, "float32"))
            node.attribute.append(helper.make_attribute("value", zero))
        if node.op_type == "CumSum":
            node.attribute.append(helper.make_attribute("exclusive", 0))


TOOLS = [renamed, with_constant_nodes, with_explicit_defaults]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("tool", TOOLS)
def test_files_that_other_tools_changed_are_read(tool, half):
    arrays = [sparse_array((40, 30), 0.9, 1), sparse_array((600,), 0.95, 2)]
    dense = holding(arrays)
    model = onnx.load_model_from_string(encode(dense, half=half))
    tool(model)
    changed = model.SerializeToString()
    onnx.checker.check_model(changed, full_check=True)
    tensors = [t for t in tensors_of(changed) if t.encoding == "scatter"]
    expected = [a.astype("float16").astype("float32") if half else a for a in arrays]
    assert list(map(bits, run(changed))) == list(map(bits, expected))
    assert [bits(t.values) for t in tensors] == list(map(bits, expected))
    assert len(tensors_of(changed)) == len(arrays)
    assert {t.encoding for t in tensors_of(decode(changed))} == {"dense"}
    assert list(map(bits, run(decode(changed)))) == list(map(bits, expected))


def set_attribute(op, name, value):
    def tool(model):
        for node in model.graph.node:
            if node.op_type == op:
                node.attribute.append(helper.make_attribute(name, value))

    return tool


def gaps_from_outside(model):
    (gaps,) = (p for p in model.graph.initializer if p.name == "gaps")
    model.graph.input.append(
        helper.make_tensor_value_info("gaps", gaps.data_type, gaps.dims)
    )


ONES = numpy_helper.from_array(np.ones(1, "float32"))


@pytest.mark.parametrize(
    "tool",
    [
        set_attribute("CumSum", "reverse", 1),
        set_attribute("CumSum", "exclusive", 1),
        set_attribute("ConstantOfShape", "value", ONES),
        set_attribute("ScatterElements", "reduction", "add"),
        gaps_from_outside,
    ],
)
def test_other_uses_of_the_operators_are_no_tensors(tool):
    model = onnx.load_model_from_string(encode(one(0.9)))
    tool(model)
    tensors = tensors_of(model.SerializeToString())
    assert {t.encoding for t in tensors} == {"dense"}
    assert len(tensors) == 5


def test_a_tensor_that_is_also_used_flat_keeps_its_nodes():
    model = onnx.load_model_from_string(encode(one(0.9)))
    (flat,) = (n for n in model.graph.node if n.op_type == "ScatterElements")
    model.graph.node.append(helper.make_node("Identity", [flat.output[0]], ["also"]))
    model.graph.output.append(info("also", [64 * 64]))
    content = model.SerializeToString()
    (tensor,) = tensors_of(content)[-1:]
    assert (tensor.shape, tensor.encoding) == ((64 * 64,), "scatter")
    assert list(map(bits, run(decode(content)))) == list(map(bits, run(content)))


def test_a_damaged_tensor_is_named():
    model = onnx.load_model_from_string(encode(one(0.9)))
    (size,) = (p for p in model.graph.initializer if p.name == "size")
    size.CopyFrom(numpy_helper.from_array(np.array([8 * 8], np.int64), "size"))
    (shape,) = (p for p in model.graph.initializer if p.name == "shape")
    shape.CopyFrom(numpy_helper.from_array(np.array([8, 8], np.int64), "shape"))
    with pytest.raises(ValueError, match=r"Tensor 'w0' is damaged: .* array of 64"):
        tensors_of(model.SerializeToString())


def test_gaps_that_two_tensors_share_are_not_mixed_up():
    """Tools that store equal constants once make such files."""
    array = sparse_array((40, 40), 0.9)
    model = onnx.load_model_from_string(encode(holding([array, 3 * array])))
    for node in model.graph.node:
        node.input[:] = ["gaps" if n == "gaps_1" else n for n in node.input]
    (unused,) = (p for p in model.graph.initializer if p.name == "gaps_1")
    model.graph.initializer.remove(unused)
    shared = model.SerializeToString()
    assert [bits(a) for a in run(decode(shared))] == [bits(array), bits(3 * array)]


# --- the files of Keras models --------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_the_file_of_a_model(half, tmp_path):
    dense = decode(exported_cnn(".onnx")[0])
    encoded = encode(dense, half=half)
    onnx.checker.check_model(encoded, full_check=True)
    assert len(encoded) < len(dense)
    image = {"image": np.random.default_rng(0).random((3, 12, 12, 3), "float32")}
    expected, received = run(dense, image)[0], run(encoded, image)[0]
    if half:
        np.testing.assert_allclose(received, expected, rtol=0.02, atol=1e-4)
    else:
        assert bits(received) == bits(expected)
        before, after = named(dense), named(encoded)
        assert before.keys() == after.keys()
        assert all(bits(before[n].values) == bits(after[n].values) for n in before)
        assert OnnxFile.parse(encoded).dense_size() == len(dense)
    ops = folded_ops(encoded, tmp_path / "folded.onnx")
    assert ops.keys().isdisjoint({"ScatterElements", "CumSum", "ConstantOfShape"})


@pytest.mark.parametrize(("build", "opset"), [(cnn, 11), (cnn, 18), (gru, 13)])
def test_the_opset_is_chosen(build, opset, tmp_path):
    model = make_sparse(build(), 0.9)
    path = tmp_path / "m.onnx"
    to_onnx(model, path, input_signature(model, None, None), opset)
    dense = path.read_bytes()
    encoded = encode(dense)
    for content in (dense, encoded):
        (entry,) = (
            e for e in onnx.load_model_from_string(content).opset_import if not e.domain
        )
        assert entry.version == opset
    onnx.checker.check_model(encoded, full_check=True)
    session = onnxruntime.InferenceSession(dense, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    feed = {entry.name: np.ones([d or 2 for d in model.input_shape], "float32")}
    assert list(map(bits, run(encoded, feed))) == list(map(bits, run(dense, feed)))


@pytest.mark.parametrize(
    ("opset", "error", "message"),
    [
        (10, ValueError, "must be 11 to .* received 10"),
        (99, ValueError, "must be 11 to .* received 99"),
        ("15", TypeError, r"received '15' \(str\)"),
        (True, TypeError, "received True"),
    ],
)
def test_opsets_that_cannot_be_written_are_refused(opset, error, message):
    with pytest.raises(error, match=message):
        check_opset(opset)


@pytest.mark.parametrize("opset", [None, 11, 15, 18])
def test_opsets_that_can_be_written(opset):
    check_opset(opset)
