"""Every check compares with what the user handed in, before anything was copied."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tickets as kt
from keras_tickets import backend
from keras_tickets.backend import copying
from keras_tickets.convert import float32
from keras_tickets.ticket import parts

pytestmark = pytest.mark.filterwarnings("ignore:.*collapse")
NUMBERS = np.random.default_rng(0).normal(3, 5, (4, 8)).astype("float32")


def model_with(layer):
    data = keras.Input((8,), name="data")
    x = layers.Dense(6, activation="relu")(layer(data))
    return keras.Model(data, layers.Dense(3)(x))


def normalized():
    layer = layers.Normalization()
    layer.adapt(NUMBERS)
    return model_with(layer)


def ticket_of(model):
    ticket = kt.wrap(model, kt.Magnitude(0.5, on_collapse="warn"))
    ticket.draw(verbose=0)
    return ticket


def strip(model, folder):
    ticket_of(model).strip()


def shrink(model, folder):
    kt.shrink(ticket_of(model), verbose=False)


def prepare(model, folder):
    kt.mobile.prepare(model, verbose=False)


def challenge(model, folder):
    kt.challenge(ticket_of(model), lambda ticket: 0.0, seeds=(0, 1), verbose=0)


def in_float32(model, folder):
    for layer in model.layers:
        layer.dtype_policy = "mixed_bfloat16"
    float32.in_float32(model)


def export(model, folder):
    kt.export(ticket_of(model), folder / "x.tflite", verbose=False)


@pytest.fixture
def fault(monkeypatch):
    """What is copied arrives as zeros."""
    for module in (copying, parts):
        monkeypatch.setattr(module, "array_of", lambda x: 0 * backend.array_of(x))


@pytest.mark.parametrize(
    "operation", [strip, shrink, prepare, in_float32, challenge, export]
)
def test_a_fault_in_the_copying_is_caught(operation, tmp_path, fault):
    with pytest.raises((ValueError, RuntimeError), match="differs"):
        operation(normalized(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_verify_makes_no_copy(tmp_path, request):
    ticket, path = ticket_of(normalized()), tmp_path / "x.tflite"
    kt.export(ticket, path, samples=NUMBERS, verbose=False)
    request.getfixturevalue("fault")
    assert kt.verify(path, ticket, NUMBERS).max_rel < 1e-5


@keras.saving.register_keras_serializable(package="copy_checks")
class Secret(layers.Layer):
    """Has a number where no copy can find it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.box = type("Box", (), {"factor": 1})()

    def call(self, inputs):
        return inputs * self.box.factor


@pytest.mark.parametrize("operation", [strip, shrink, prepare, challenge])
def test_what_no_copy_can_hold_is_refused(operation, tmp_path):
    layer = Secret(name="state")
    model = model_with(layer)
    layer.box.factor = 3
    with pytest.raises(ValueError, match=r"differs .* own: 'state' \(Secret\)"):
        operation(model, tmp_path)


def test_a_file_is_compared_with_what_the_user_handed_in(tmp_path):
    layer = Secret()
    ticket = ticket_of(model_with(layer))
    layer.box.factor = 3
    with pytest.raises(RuntimeError, match="does not compute what"):
        kt.export(ticket, tmp_path / "x.tflite", verbose=False)
    assert not list(tmp_path.iterdir())


@keras.saving.register_keras_serializable(package="copy_checks")
class Noisy(layers.Layer):
    """Is random in inference."""

    def call(self, inputs):
        noise = np.random.default_rng().normal(size=8).astype("float32")
        return inputs + ops.convert_to_tensor(noise)


def test_a_model_that_is_random_in_inference_can_be_copied():
    ticket = ticket_of(model_with(Noisy()))
    assert type(ticket.strip().layers[1]) is Noisy
    assert type(kt.shrink(ticket, verbose=False).layers[1]) is Noisy


class Counter(layers.Layer):
    """Counts its calls."""

    calls = 0

    def call(self, inputs):
        self.calls += 1
        return inputs


def test_a_model_that_is_run_to_be_compared_stays_as_it_was():
    layer = Counter()
    ticket = ticket_of(model_with(layer))
    layer.calls = 7
    assert kt.strip(ticket).layers[1].calls == 7
    assert layer.calls == 7


def halved(x):
    return x / 2


@keras.saving.register_keras_serializable(package="copy_checks")
class Lossy(layers.Layer):
    """Forgets in its config which activation it was given."""

    def __init__(self, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def call(self, inputs):
        return self.activation(inputs)


def test_functions_of_the_user_reach_a_copy():
    data = keras.Input((8,))
    x = layers.Dense(8, activation=halved)(layers.Lambda(halved)(data))
    ticket = ticket_of(keras.Model(data, layers.Dense(3)(Lossy("relu")(x))))
    x = ops.convert_to_tensor(NUMBERS)
    given = [ops.convert_to_numpy(model(x)) for model in (ticket, ticket.strip())]
    np.testing.assert_allclose(*given, atol=1e-6)
