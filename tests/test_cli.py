"""The command `keras-tickets`: what it shows of a file, and how it refuses one."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import tracemalloc

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from exported import SUFFIXES, exported_cnn
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_tickets import __version__
from keras_tickets.cli import main
from keras_tickets.inspection import inspect
from keras_tickets.onnx.decoding import find
from keras_tickets.runtime import formats
from keras_tickets.tflite import schema

pytestmark = [pytest.mark.backend_independent, pytest.mark.lowest]


@pytest.fixture(params=SUFFIXES)
def file(request, tmp_path):
    path = tmp_path / f"model{request.param}"
    path.write_bytes(exported_cnn(request.param)[0])
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_numbers_are_those_of_the_export(file):
    _, report = exported_cnn(file.suffix)
    result = run("inspect", file, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    for key in ("bytes", "gzip_bytes", "dense_bytes", "format", "ops"):
        assert found[key] == getattr(report, key)
    weights = [t for t in found["tensors"] if len(t["shape"]) >= 2]
    assert sum(t["zeros"] for t in weights) == report.zeros
    assert 0 < found["reference_bytes"] <= found["bytes"]


def test_each_tensor_is_listed_the_largest_first(file):
    listed = json.loads(run("inspect", file, "--json").stdout)["tensors"]
    stored = formats.read(file).tensors()
    assert {t["name"] for t in listed} == {t.name for t in stored}
    sizes = [t["dense_bytes"] for t in listed]
    assert sizes == sorted((t.dense_bytes for t in stored), reverse=True)


# Keras 3.13 and 3.14 write a batch size of 1 that may be changed.
OLD_LITERT = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15)


def test_inputs_and_outputs_are_told(file):
    found = json.loads(run("inspect", file, "--json").stdout)
    batch = 1 if file.suffix == ".tflite" and not OLD_LITERT else None
    (image,), (output,) = found["inputs"], found["outputs"]
    assert image == {"name": "image", "shape": [batch, 12, 12, 3], "dtype": "float32"}
    assert (output["shape"], output["dtype"]) == ([batch, 5], "float32")


def test_the_table_names_large_tensors_and_adds_up_all(file):
    tensors = inspect(file).tensors
    shown = run("inspect", file).stdout
    large = [t for t in tensors if t.dense_bytes >= 1024]
    assert large
    assert all(t.name[:12] in shown for t in large)
    assert f"{len(tensors) - len(large)} of less than 1,024 bytes" in shown
    assert f"{sum(t.stored_bytes for t in tensors):,}" in shown
    assert "image" in shown
    assert f"{len(file.read_bytes()):,} bytes" in shown


def test_all_gives_each_tensor_a_row(file):
    tensors = inspect(file).tensors
    shown = run("inspect", file, "--all").stdout
    assert all(shown.count(str(t.shape)) for t in tensors)
    assert all(t.name[:12] in shown for t in tensors)
    assert "of less than" not in shown


def spoiled(content: bytes, how: str) -> bytes:
    return {
        "empty": b"",
        "text": b"What you see is no model.\n" * 20,
        "zeros": bytes(2000),
        "first half": content[: len(content) // 2],
        "first bytes": content[:40],
        "shuffled": content[:8] + content[8:][::-1],
    }[how]


@pytest.mark.parametrize(
    "how", ["empty", "text", "zeros", "first half", "first bytes", "shuffled"]
)
def test_a_damaged_file_is_refused_in_one_line(file, how):
    file.write_bytes(spoiled(file.read_bytes(), how))
    result = run("inspect", file)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert str(file) in line
    assert "cannot be read" in line
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.tflite", "There is no file"),
        ("folder.onnx", "is a folder"),
        ("model.keras", "Expected a file that ends with '.tflite' or '.onnx'"),
    ],
)
def test_a_wrong_path_is_refused_in_one_line(tmp_path, name, message):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "model.keras").touch()
    result = run("inspect", tmp_path / name)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert message in line
    assert name in line


def test_a_file_of_one_format_named_like_the_other_is_refused(tmp_path):
    for suffix, other in zip(SUFFIXES, reversed(SUFFIXES), strict=True):
        path = tmp_path / f"model{other}"
        path.write_bytes(exported_cnn(suffix)[0])
        assert run("inspect", path).exit_code == 1


def damage(content: bytes, fields: list[int], value: int) -> bytes:
    numbers = np.frombuffer(content[: len(content) // 4 * 4], np.uint32).copy()
    numbers[[field % numbers.size for field in fields]] = value
    return numbers.tobytes() + content[len(content) // 4 * 4 :]


@settings(max_examples=60, deadline=None)
@given(
    suffix=st.sampled_from(SUFFIXES),
    fields=st.lists(st.integers(2, 10**5), min_size=1, max_size=6),
    # Sizes that are huge, negative or nothing, and text that is no UTF-8.
    value=st.sampled_from([0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x10000000, 0, 1]),
)
def test_no_damage_escapes_as_a_traceback(tmp_path_factory, suffix, fields, value):
    path = tmp_path_factory.mktemp("damaged") / f"m{suffix}"
    path.write_bytes(damage(exported_cnn(suffix)[0], fields, value))
    for option in ((), ("--json",)):
        result = run("inspect", path, *option)
        assert result.exit_code in (0, 1)
        assert isinstance(result.exception, SystemExit | None)


def test_names_that_are_no_text_are_shown(tmp_path):
    onnx = pytest.importorskip("onnx")
    proto = onnx.numpy_helper.from_array(np.ones((3, 200), "float32"), "ABCD[red]")
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[proto])
    content = onnx.helper.make_model(graph).SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(content.replace(b"ABCD", b"A\x1b\xffD"))
    result = run("inspect", path)
    assert result.exit_code == 0
    assert "A\ufffd\ufffdD[red]" in result.stdout
    assert "\x1b" not in result.stdout


def peak_memory(path) -> int:
    tracemalloc.start()
    try:
        inspect(path)
    except ValueError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def huge_rows(tensor):
    tensor.shape = np.array([2**31 - 1, *tensor.shape[1:]], np.int32)


def huge_rows_throughout(tensor):
    huge_rows(tensor)
    tensor.sparsity.dimMetadata[0].denseSize = 2**31 - 1


def huge_columns(tensor):
    tensor.shape = np.array([*tensor.shape[:-1], 2**31 - 1], np.int32)


def huge_segments(tensor):
    for level in tensor.sparsity.dimMetadata:
        if level.arraySegments is not None:
            segments = np.asarray(level.arraySegments.values).astype(np.int32)
            segments[-1] = 2**31 - 1
            vector = schema.schema().Int32VectorT()
            vector.values = segments
            level.arraySegments = vector
            level.arraySegmentsType = schema.schema().SparseIndexVector.Int32Vector


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (huge_rows, "is stored as one of"),
        (huge_rows_throughout, "would take"),
        (huge_columns, "would take"),
        (huge_segments, "do not fit"),
    ],
)
def test_a_size_that_a_tflite_only_claims_costs_no_memory(tmp_path, claim, message):
    """A few numbers say how large a sparse tensor is; they cost nothing to inflate."""
    path = tmp_path / "m.tflite"
    path.write_bytes(exported_cnn(".tflite")[0])
    good = peak_memory(path)
    model = schema.unpack(path.read_bytes())
    for tensor in model.subgraphs[0].tensors:
        if tensor.sparsity is not None:
            claim(tensor)
    path.write_bytes(schema.pack(model, 10**5))
    with pytest.raises(ValueError, match=message):
        inspect(path)
    assert peak_memory(path) <= 2 * good


def test_a_size_that_an_onnx_only_claims_costs_no_memory(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "m.onnx"
    path.write_bytes(exported_cnn(".onnx")[0])
    good = peak_memory(path)
    model = onnx.load_model_from_string(path.read_bytes())
    (found,) = (found for _, found in find(model.graph) if found)
    sizes = {
        node.input[0] for node in model.graph.node if node.op_type == "ConstantOfShape"
    }
    for proto in model.graph.initializer:
        if proto.name in sizes or onnx.numpy_helper.to_array(proto).tolist() in [
            [*tensor.shape] for tensor in found
        ]:
            size = np.array([2**40], np.int64)
            proto.CopyFrom(onnx.numpy_helper.from_array(size, proto.name))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="would take"):
        inspect(path)
    assert peak_memory(path) <= 2 * good


def with_custom_operator() -> bytes:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])
    node = onnx.helper.make_node("Strange", ["x"], ["y"], domain="my.ops")
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    return onnx.helper.make_model(graph).SerializeToString()


def test_operators_that_are_not_built_in_are_marked(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(with_custom_operator())
    result = run("inspect", path)
    assert result.exit_code == 0
    assert "custom:Strange" in result.stdout
    assert "not built in" in result.stdout
    assert "x (?, 3) float32" in result.stdout


def test_flex_operators_are_marked(tmp_path):
    model = schema.unpack(exported_cnn(".tflite")[0])
    code = model.operatorCodes[0]
    custom = schema.schema().BuiltinOperator.CUSTOM
    code.builtinCode = code.deprecatedBuiltinCode = custom
    code.customCode = b"FlexStrange"
    path = tmp_path / "m.tflite"
    path.write_bytes(schema.pack(model, 10**5))
    result = run("inspect", path)
    assert result.exit_code == 0
    (line,) = (li for li in result.stdout.splitlines() if "not built in" in li)
    assert "custom:FlexStrange" in line


def test_it_runs_without_keras(file, tmp_path):
    """As pip installs it, under any name."""
    script = tmp_path / "any-name"
    script.write_text(
        "import sys\n"
        "from keras_tickets_command import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)\n"
        "    print(sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), "inspect", str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "[]"
    assert f"{len(file.read_bytes()):,} bytes" in done.stdout


@pytest.mark.parametrize("module", ["keras_tickets", "keras_tickets.cli"])
def test_it_runs_as_a_module(monkeypatch, capsys, module):
    monkeypatch.setattr(sys, "argv", ["any name", "--version"])
    # As in a process of its own, which has not imported the module yet.
    monkeypatch.delitem(sys.modules, "keras_tickets.cli")
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module(module, run_name="__main__")
    assert capsys.readouterr().out == f"keras-tickets, version {__version__}\n"


def test_version_and_help():
    assert __version__ in run("--version").stdout
    assert "inspect" in run("--help").stdout
    assert run("inspect").exit_code == 2


def test_setup_says_what_is_missing(monkeypatch, tmp_path, capfd):
    """The scripts are in the package; without npm nothing is left behind."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "ls"):
        (programs / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("KERAS_TICKETS_RUNNERS", str(tmp_path / "labs"))
    result = run("setup", "wasm")
    assert result.exit_code == 1
    assert "lines above" in result.stderr
    assert "no npm on the PATH" in capfd.readouterr().err
    assert not (tmp_path / "labs").exists()
    assert run("setup", "phone").exit_code == 2
