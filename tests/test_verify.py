"""Comparing a file that exists with a model, or with itself."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from exported import (
    dict_model,
    exported_cnn,
    exported_mlp,
    inputs,
    make_sparse,
    mlp,
    sparse_cnn,
)
from keras import layers

import keras_tickets as kt
from keras_tickets.convert.tolerances import Expected, judge
from keras_tickets.inspection import inspect
from keras_tickets.mobile.verifying import precision_of
from keras_tickets.tflite.schema import pack, unpack

pytestmark = pytest.mark.backend_independent

IMAGES = np.random.default_rng(1).random((20, 12, 12, 3)).astype("float32")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(exported_cnn(".tflite")[0])
    return path


def other_weights() -> keras.Model:
    model = keras.models.clone_model(sparse_cnn())
    return make_sparse(model, sparsity=0.1)


def other_size() -> keras.Model:
    image = keras.Input((16, 16, 3), name="image")
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(image)))


def other_kind() -> keras.Model:
    ids = keras.Input((12, 12, 3), name="image", dtype="int32")
    return keras.Model(ids, layers.Flatten()(ids))


def two_outputs() -> keras.Model:
    image = keras.Input((12, 12, 3), name="image")
    x = layers.GlobalAveragePooling2D()(image)
    return keras.Model(image, [layers.Dense(5)(x), layers.Dense(5)(x)])


@pytest.mark.backend_independent(False)
@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (other_weights, RuntimeError, r"on='host': .*does not compute what 'cnn'"),
        (other_size, ValueError, r"takes the input image \(1, 12, 12, 3\).*16, 16"),
        (other_kind, ValueError, r"image .*float32, the model takes .* int32"),
        (two_outputs, RuntimeError, "model has 2 outputs, the file 1"),
        (lambda: "cnn", TypeError, "'cnn' of type str"),
    ],
)
def test_another_model_is_found_out(model, error, message, file):
    with pytest.raises(error, match=message):
        kt.verify(file, model())


def test_a_ticket_is_compared_as_it_was_exported(file):
    ticket = kt.wrap(sparse_cnn_copy())
    assert kt.verify(file, ticket).max_rel < 1e-5


def sparse_cnn_copy() -> keras.Model:
    model = keras.models.clone_model(sparse_cnn())
    model.set_weights(sparse_cnn().get_weights())
    return model


@pytest.mark.parametrize("model", [None, sparse_cnn])
def test_real_samples_are_what_is_reported(model, file):
    compared = kt.verify(file, model and model(), samples=IMAGES)
    assert compared.samples == 16
    assert 0 < compared.max_rel < 1e-5


@pytest.mark.parametrize("model", [None, sparse_cnn])
def test_samples_of_another_shape_are_refused(model, file):
    with pytest.raises(ValueError, match=r"'image' must have the shape \(rows, 12"):
        kt.verify(file, model and model(), samples=IMAGES[:, :5])


@pytest.mark.parametrize(
    ("scale", "error", "passes"),
    [
        (1.0, 1e-6, True),
        (1.0, 1e-4, False),
        (1e-3, 5e-8, True),  # Rounding of the numbers before.
        (1e-8, 5e-12, True),
        (1e-8, 5e-11, False),
        (1e-8, 1e-8, False),  # What a file of zeros would be off by.
        (0.0, 5e-8, True),
        (0.0, 1e-6, False),
    ],
)
def test_small_outputs_are_compared_too(scale, error, passes):
    wanted = [[scale * np.array([[1.0, 0.5]])], [scale * np.array([[0.5, 1.0]])]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Nothing but zeros proves little.
        expected = Expected("Keras", "'cnn'", ["scores"], wanted)
    received = [[values + error] for (values,) in wanted]
    check = nullcontext() if passes else pytest.raises(RuntimeError, match="differs by")
    with check:
        judge(expected, received, {"random": 2}, {"random": 1e-5})


def test_the_tolerance_is_the_callers(file):
    with pytest.raises(ValueError, match=r"at least 0\. Received: -1"):
        kt.verify(file, tolerance=-1)
    with pytest.raises(RuntimeError, match="at most 1e-12 was expected"):
        kt.verify(file, sparse_cnn(), tolerance=1e-12)
    worse = sparse_cnn_copy()
    for weight in worse.trainable_variables:
        weight.assign(weight * 1.001)
    with pytest.raises(RuntimeError, match="at most 1e-05 was expected") as caught:
        kt.verify(file, worse)
    # What is said of sparse kernels elsewhere is no help here.
    assert "sparse=False" not in str(caught.value)
    assert kt.verify(file, worse, tolerance=0.1).max_rel > 1e-5


def test_several_inputs_are_given_by_name(tmp_path):
    model = make_sparse(dict_model())
    path = tmp_path / "m.onnx"
    kt.export(model, path, verbose=False)
    samples = {
        "zeta": IMAGES[:3, 0, 0:8, 0],
        "alpha": IMAGES[:3, 0, 0:8, 1],
        "mid": np.array([[6, 5, 4, 3], [0, 1, 2, 3], [6, 6, 6, 6]]),
    }
    assert kt.verify(path, model, samples=samples).max_rel < 1e-5
    assert kt.verify(path, samples=samples).max_rel < 1e-5


def test_a_file_without_a_signature_is_run_by_its_tensors_names(file):
    content = unpack(file.read_bytes())
    content.signatureDefs = None
    file.write_bytes(pack(content, size=file.stat().st_size))
    assert kt.verify(file).max_rel < 1e-5
    assert kt.verify(file, sparse_cnn()).max_rel < 1e-5


@pytest.mark.parametrize("precision", ["float32", "float16", "int8-dynamic", "int8"])
def test_the_precision_is_read_from_the_file(precision, tmp_path):
    path = tmp_path / "m.tflite"
    # LiteRT's converter leaves kernels of less than 1,024 weights in float32.
    path.write_bytes(exported_mlp(precision, 1)[0])
    assert precision_of(inspect(path)).name == precision
    assert kt.verify(path, mlp(1), samples=inputs((64,))).samples == 16


def test_outputs_without_axes_are_compared():
    """Such as a loss: one number."""
    numbers = [[np.array(number)] for number in (1.0, 2.0)]
    expected = Expected("Keras", "'loss'", ["its output"], numbers)
    judge(expected, numbers, {"random": 2}, {"random": 1e-6})
    with pytest.warns(UserWarning, match="computes the same outputs for 2 different"):
        Expected("Keras", "'loss'", ["its output"], numbers[:1] * 2)


def test_a_warning_names_the_line_that_called(tmp_path):
    image = keras.Input((4,))
    model = keras.Model(image, layers.Dense(2, kernel_initializer="zeros")(image))
    path = tmp_path / "constant.tflite"
    with pytest.warns(UserWarning, match="computes the same outputs"):
        kt.export(model, path, verbose=False)
    for given in (None, model):
        with pytest.warns(UserWarning, match="computes the same outputs") as told:
            kt.verify(path, given)
        (ours,) = [w for w in told if "computes the same outputs" in str(w.message)]
        assert ours.filename == __file__
