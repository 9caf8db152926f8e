"""Export fails early, says why, and leaves the folder as it was."""

from __future__ import annotations

import errno
import functools
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import covering
from exported import SUFFIXES, cnn, exported_cnn, make_sparse, sparse_cnn, values_of
from planted import changed

import keras_tickets as kt
from keras_tickets._util import files
from keras_tickets._util.file_tensor import FileTensor
from keras_tickets.convert import equivalence, exporting
from keras_tickets.convert.zeros import Weight, check_zeros
from keras_tickets.runtime import isolated
from keras_tickets.runtime.formats import FORMATS

pytestmark = pytest.mark.backend_independent

OLD = b"the file of last week"

export = functools.partial(kt.export, overwrite=True)


@pytest.fixture
def no_work(monkeypatch):
    """Any work fails the test: the error has to come before."""
    monkeypatch.setattr(
        exporting, "unmasked", lambda model: pytest.fail("work was done")
    )


@pytest.fixture
def convert_to(monkeypatch):
    """Plants what the converter returns."""
    for suffix in SUFFIXES:  # The good files are made before, by the real one.
        exported_cnn(suffix)

    def plant(content):
        monkeypatch.setattr(exporting, "converted", lambda *arguments: content)

    return plant


@pytest.fixture(params=SUFFIXES)
def target(request, tmp_path):
    """An existing file, which must survive, alone in its folder."""
    path = tmp_path / f"model{request.param}"
    path.write_bytes(OLD)
    yield path
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("model", ValueError, r"expected '\.tflite' \(LiteRT\), '\.onnx' \(ONNX\)"),
        ("model.h5", ValueError, r"path='.*model\.h5'"),
        ("missing/model.onnx", FileNotFoundError, "missing' does not exist"),
        ("file/model.onnx", NotADirectoryError, "file' is not a folder"),
        ("folder.tflite", IsADirectoryError, "existing folder"),
        ("there.onnx", FileExistsError, "overwrite=True"),
    ],
)
def test_bad_paths(path, error, message, tmp_path, no_work):
    (tmp_path / "file").touch()
    (tmp_path / "there.onnx").touch()
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(error, match=message):
        kt.export(sparse_cnn(), tmp_path / path)


def test_a_folder_without_permission(tmp_path, no_work, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(PermissionError, match="no permission to write"):
        export(sparse_cnn(), tmp_path / "m.onnx")


def test_a_read_only_file_is_not_replaced(target, no_work):
    target.chmod(0o444)
    with pytest.raises(PermissionError, match="read-only"):
        export(sparse_cnn(), target)


class OtherPackage(keras.Model):
    """Stands for a model of `tf_keras`, which need not be installed here."""


OtherPackage.__module__ = "tf_keras.src.engine.training"


def never_drawn():
    return kt.wrap(cnn(), kt.Magnitude(sparsity=0.8))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: "model.keras", TypeError, r"Expected .* a ticket.*type str"),
        (OtherPackage, TypeError, "`tf_keras`.*works with Keras 3"),
        (
            lambda: keras.Sequential([keras.layers.Dense(2)], name="raw"),
            ValueError,
            "'raw' is not built",
        ),
        (never_drawn, ValueError, r"never drawn.*ticket\.draw\(\)"),
    ],
)
def test_bad_models(make, error, message, target, no_work):
    with pytest.raises(error, match=message):
        export(make(), target)


def test_weights_that_are_not_finite_are_named(target):
    model = make_sparse(cnn())
    kernel = values_of(model.layers[-1].kernel)
    kernel[0, 0] = np.nan
    model.layers[-1].kernel.assign(kernel)
    with pytest.raises(ValueError, match=r"dense.*/kernel' holds 1 values of 320"):
        export(model, target)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((4, 12, 12, 1)), r"\(rows, 12, 12, 3\). Received: \(4, 12, 12, 1\)"),
        ({"image": np.zeros((4, 12, 12, 3))}, "structured as the model's input"),
        (np.zeros((0, 12, 12, 3)), "at least 1 row"),
    ],
)
def test_samples_that_do_not_fit(samples, message, target):
    with pytest.raises(ValueError, match=message):
        export(sparse_cnn(), target, samples=samples)


def test_a_good_file_replaces_the_old_one(convert_to, tmp_path):
    """The counterpart of the faults below: without a fault, the file is kept."""
    for suffix in SUFFIXES:
        path = tmp_path / f"model{suffix}"
        path.write_bytes(OLD)
        content, _ = exported_cnn(suffix)
        convert_to(content)
        export(sparse_cnn(), path, verbose=False)
        assert path.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == len(SUFFIXES)


def mirror(tensor):
    return tensor.values[..., ::-1] if tensor.is_weight else None


def poison(tensor):
    return np.full_like(tensor.values, np.nan) if tensor.is_weight else None


def fill(tensor):
    """So small that no output shows it."""
    tiny = np.asarray(1e-30, tensor.values.dtype)
    return (
        np.where(tensor.values == 0, tiny, tensor.values) if tensor.is_weight else None
    )


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (mirror, r"what 'cnn' computes.*at most 1e-05.*No file was written"),
        (poison, "not finite"),
        (fill, "Zeros were lost.*zeros in the model"),
    ],
)
def test_a_wrong_file_is_not_kept(fault, message, target, convert_to):
    content, _ = exported_cnn(target.suffix)
    convert_to(changed(target.suffix, content, fault))
    with pytest.raises(RuntimeError, match=message):
        export(sparse_cnn(), target)


def test_a_file_that_is_none_is_not_kept(target, convert_to):
    convert_to(b"nothing that any runtime would load")
    with pytest.raises(ValueError, match=r"Not an? \.(tflite|onnx) file"):
        export(sparse_cnn(), target)


def test_swapped_inputs_are_noticed(tmp_path, convert_to):
    """Two inputs of one shape: only their names tell them apart."""
    onnx = pytest.importorskip("onnx")
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info

    def file(left, right):
        names = [(name, [None, 3]) for name in ("a", "b")]
        graph = onnx.helper.make_graph(
            [make("Sub", [left, right], ["y"])],
            "g",
            [value(name, onnx.TensorProto.FLOAT, shape) for name, shape in names],
            [value("y", onnx.TensorProto.FLOAT, [None, 3])],
        )
        opset = onnx.helper.make_opsetid("", 15)
        model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
        return model.SerializeToString()

    b, a = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    model = keras.Model([b, a], keras.layers.Subtract()([b, a]))
    convert_to(file("b", "a"))
    export(model, tmp_path / "m.onnx", verbose=False)
    convert_to(file("a", "b"))
    with pytest.raises(RuntimeError, match="does not compute"):
        export(model, tmp_path / "m.onnx", verbose=False)


def test_operators_outside_the_standard_set_are_named(target, convert_to, monkeypatch):
    convert_to(exported_cnn(target.suffix)[0])
    kind = FORMATS[target.suffix]
    monkeypatch.setattr(kind, "foreign", lambda file: {"FlexErf": "cnn/dense/Erf"})
    with pytest.raises(RuntimeError, match=r"does not carry: FlexErf \(in layer 'd"):
        export(sparse_cnn(), target)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk(call, target, convert_to, monkeypatch):
    convert_to(exported_cnn(target.suffix)[0])

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(files, "open", full, raising=False)
    with pytest.raises(OSError, match=r"disk is full.*needs [0-9,]+ bytes") as caught:
        export(sparse_cnn(), target)
    assert caught.value.errno == errno.ENOSPC


_KILLED = """
import os, pathlib, signal, sys
from keras_tickets._util import files
os.{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.replace(pathlib.Path(sys.argv[1]), b"new" * 1000)
"""


@pytest.mark.parametrize(
    ("call", "old"),
    covering([("fsync", None), ("replace", b"old")], quick=[("replace", b"old")]),
)
def test_a_killed_process_leaves_no_part_of_a_file(call, old, tmp_path):
    path = tmp_path / "m.tflite"
    if old:
        path.write_bytes(old)
    command = [sys.executable, "-c", _KILLED.format(call=call), str(path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert (path.read_bytes() if path.exists() else None) == old


@pytest.mark.parametrize("moment", ["keras_outputs", "isolated"])
def test_ctrl_c(moment, target, convert_to, monkeypatch):
    convert_to(exported_cnn(target.suffix)[0])

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(equivalence, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(sparse_cnn(), target)


def test_a_model_whose_outputs_never_change_is_reported(tmp_path, convert_to):
    onnx_model, _ = exported_cnn(".onnx")
    model = cnn()
    for variable in model.trainable_variables:
        variable.assign(np.zeros(variable.shape, "float32"))
    zeros = changed(
        ".onnx", onnx_model, lambda t: np.zeros_like(t.values) if t.is_real else None
    )
    convert_to(zeros)
    with pytest.warns(UserWarning, match="same outputs for 4 different inputs"):
        export(model, tmp_path / "m.onnx", verbose=False)


def constant(values):
    return FileTensor("t", np.asarray(values, "float32"), "dense", 0)


def weight(values):
    return Weight("w", np.asarray(values, "float32"))


SPARSE, TRANSPOSED, DENSER = [[0, 1, 0]], [[0], [0], [4]], [[0, 1, 2]]


@pytest.mark.parametrize(
    ("weights", "constants", "lost"),
    [
        ([SPARSE], [TRANSPOSED], False),
        ([SPARSE], [DENSER], True),
        ([SPARSE], [DENSER, TRANSPOSED], False),
        ([SPARSE, [[0, 5, 6]]], [SPARSE, DENSER], False),
        ([SPARSE, [[0, 5, 0]]], [SPARSE, DENSER], True),
        # Equal weights are stored once.
        ([SPARSE, SPARSE], [SPARSE], False),
        # A weight that is zero throughout is computed away.
        ([SPARSE, [[0, 0, 0]]], [SPARSE], False),
        # Two weights joined to one constant.
        ([SPARSE, [[0, 3]]], [[[0, 1, 0, 0, 3]]], False),
        ([SPARSE, [[0, 3]]], [[[0, 1, 0, 2, 3]]], True),
    ],
)
def test_zeros_are_found_again(weights, constants, lost):
    arguments = [weight(w) for w in weights], [constant(c) for c in constants]
    if not lost:
        check_zeros(*arguments)
        return
    with pytest.raises(RuntimeError, match="Zeros were lost"):
        check_zeros(*arguments)


class NotImportable(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2


@pytest.mark.backend_independent(False)
@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="needs a child")
def test_classes_that_the_child_cannot_import_are_named(target):
    NotImportable.__module__ = "__main__"
    inputs = keras.Input((4,))
    model = keras.Model(inputs, NotImportable()(inputs), name="mine")
    with pytest.raises(
        RuntimeError, match="NotImportable \\(from __main__\\)"
    ) as caught:
        export(model, target)
    assert "register_keras_serializable" in str(caught.value)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="uses TensorFlow")
def test_layers_beyond_the_built_in_operators_are_named(target):
    import tensorflow as tf

    class Gamma(keras.layers.Layer):
        def call(self, inputs):
            return tf.math.igamma(inputs, inputs)

    inner = keras.Sequential([keras.Input((4,)), Gamma(name="odd")], name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inner(keras.layers.Dense(4)(inputs)), name="model")
    with pytest.raises(RuntimeError, match=r"Igamma \(in layer 'inner/odd'\)"):
        export(model, target, samples=np.ones((4, 4)))


def test_a_missing_package_names_the_extra(target, monkeypatch):
    needed = ("a_package_that_is_not_there",)
    monkeypatch.setattr(FORMATS[target.suffix], "needed", needed)
    with pytest.raises(ImportError, match=r'pip install "keras-tickets\[export\]"'):
        export(sparse_cnn(), target)


def test_while_it_is_checked_nothing_lies_beside_the_target(convert_to, tmp_path):
    """So that whoever is killed there leaves no half file behind."""
    seen = []
    content, _ = exported_cnn(".onnx")
    convert_to(content)
    real = equivalence.isolated

    def spy(path: pathlib.Path):
        seen.append((path.name, path.read_bytes(), list(tmp_path.iterdir())))
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(equivalence, "isolated", spy)
        export(sparse_cnn(), tmp_path / "m.onnx", verbose=False)
    ((name, checked, beside),) = seen
    assert (name, beside) == ("model.onnx", [])
    assert checked == (tmp_path / "m.onnx").read_bytes()


DIES = "import os\nos.kill(os.getpid(), 11)"
RUNTIMES = {
    "loaded": DIES,
    "run": """print('{"inputs": ["image"], "outputs": ["dense"]}', flush=True)
input()
"""
    + DIES,
}


@pytest.mark.parametrize("moment", RUNTIMES)
def test_a_file_that_kills_its_runtime_is_not_kept(
    moment, target, convert_to, monkeypatch, tmp_path_factory
):
    """A segmentation fault is an error of the file's, and ends nothing else."""
    convert_to(exported_cnn(target.suffix)[0])
    program = tmp_path_factory.mktemp("runtime") / "runtime.py"
    program.write_text(RUNTIMES[moment])
    monkeypatch.setattr(isolated.interpreters, "__file__", str(program))
    with pytest.raises(RuntimeError, match=f"crashed .SIGSEGV. when .* {moment}"):
        export(sparse_cnn(), target)
