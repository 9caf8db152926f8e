"""A copy of a model is all that the model is, whoever makes the copy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from conftest import covering
from keras import layers, ops

import keras_tickets as kt
from keras_tickets.runtime.isolated import isolated
from keras_tickets.ticket.archive import checksum

pytestmark = pytest.mark.filterwarnings("ignore:.*collapse")
TENSORFLOW = keras.backend.backend() == "tensorflow"
NUMBERS = np.random.default_rng(0).normal(3, 5, (4, 8)).astype("float32")
WORDS = np.array([["red", "blue"], ["blue", "green"], ["red", "red"], ["?", "green"]])


@keras.saving.register_keras_serializable(package="copies")
class Shifted(layers.Layer):
    """Adds a number that is no variable, which it saves and loads itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.shift = np.zeros((), "float32")

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", trainable=False)

    def call(self, inputs):
        return self.scale * inputs + ops.convert_to_tensor(self.shift)

    def save_own_variables(self, store):
        store["shift"] = self.shift
        store["scale"] = self.scale

    def load_own_variables(self, store):
        self.shift = np.array(store["shift"])
        self.scale.assign(store["scale"])


def head(x):
    x = layers.Dense(6, activation="relu", name="first")(x)
    return layers.Dense(3, name="last")(x)


def of_numbers(layer):
    data = keras.Input((8,), name="data")
    return keras.Model(data, head(layer(data)))


def of_words(layer, shape):
    data = keras.Input(shape, dtype="string", name="data")
    known = layers.Embedding(9, 4, name="embedding")(layer(data))
    return keras.Model(data, head(layers.Flatten()(known)))


def normalization(adapted=True):
    layer = layers.Normalization(name="state")
    if adapted:
        layer.adapt(NUMBERS)
    return of_numbers(layer), NUMBERS


def own_state(adapted=True):
    layer = Shifted(name="state")
    model = of_numbers(layer)
    if adapted:
        layer.shift += 2
        layer.scale.assign(3)
    return model, NUMBERS


def nested(adapted=True):
    inner, _ = normalization(adapted)
    data = keras.Input((8,), name="data")
    outer = own_state(adapted)[0].get_layer("state")
    return keras.Model(data, layers.Dense(2, name="top")(inner(outer(data)))), NUMBERS


def string_lookup(adapted=True):
    layer = layers.StringLookup(name="state")
    if adapted:
        layer.adapt(WORDS)
    return of_words(layer, (2,)), WORDS


def text(adapted=True):
    layer = layers.TextVectorization(output_sequence_length=2, name="state")
    sentences = np.array([[" ".join(row)] for row in WORDS])
    if adapted:
        layer.adapt(sentences)
    return of_words(layer, (1,)), sentences


def integer_lookup(adapted=True):
    layer = layers.IntegerLookup(
        max_tokens=8, output_mode="multi_hot", pad_to_max_tokens=True, name="state"
    )
    ids = np.array([[3, 5], [5, 9], [3, 3], [1, 9]])
    if adapted:
        layer.adapt(ids)
    data = keras.Input((2,), dtype="int64", name="data")
    return keras.Model(data, head(layer(data))), ids


def stateful(adapted=True):
    data = keras.Input((5, 3), batch_size=4, name="data")
    layer = layers.GRU(4, stateful=True, name="state")
    model = keras.Model(data, layers.Dense(3)(layer(data)))
    if adapted:
        layer.states[0].assign(np.linspace(-1, 1, 16).reshape(4, 4))
    return model, np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")


def seeds(adapted=True):
    layer = layers.Dropout(0.5, name="state")
    model = of_numbers(layer)
    if adapted:
        layer.seed_generator.state.assign([7, 9])
    return model, NUMBERS


def frozen(adapted=True):
    model, x = normalization(adapted)
    model.get_layer("first").trainable = not adapted
    return model, x


@keras.saving.register_keras_serializable(package="copies")
class Set(layers.Layer):
    """Computes with what neither its config nor its saved state holds."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = 1
        self.array = np.zeros(8, "float32")
        self.nested = {"shift": [0.0]}
        self.function = ops.copy
        self.calls = 0

    def call(self, inputs):
        self.calls += 1
        x = ops.add(self.factor * inputs, self.array) + self.nested["shift"][0]
        return self.function(x)


def attributes(adapted=True):
    layer = Set(name="state")
    model = of_numbers(layer)
    if adapted:
        layer.factor, layer.function = 3, ops.tanh
        layer.array += 2
        layer.nested["shift"][0] = 0.5
    return model, NUMBERS / 10


@keras.saving.register_keras_serializable(package="copies")
class Raw(layers.Layer):
    """Holds what TensorFlow knows and Keras does not."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        import tensorflow as tf

        self.raw = tf.Variable(1.0, trainable=False)
        self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)

    def call(self, inputs):
        found = self.table.lookup(ops.cast([7], "int64"))
        return self.raw * inputs + ops.reshape(found, (1,))


def raw(adapted=True):
    layer = Raw(name="state")
    model = of_numbers(layer)
    if adapted:
        layer.raw.assign(3.0)
        layer.table.insert(ops.cast([7], "int64"), ops.cast([2], "float32"))
    return model, NUMBERS


MODELS = (normalization, own_state, nested, stateful, seeds, frozen, attributes)
MODELS += (integer_lookup, string_lookup, text, raw) if TENSORFLOW else ()


def outputs(model, x):
    """Return what a model gives in inference, whose state it leaves as it was."""
    rnn = [s for layer in model._flatten_layers() for s in _states(layer)]
    before = [ops.convert_to_numpy(state).copy() for state in rnn]
    given = ops.convert_to_numpy(model(_tensor(x), training=False))
    for state, value in zip(rnn, before, strict=True):
        state.assign(value)
    return given


def _states(layer):
    return layer.states if isinstance(layer, layers.GRU) else []


def _tensor(x):
    return ops.convert_to_tensor(x.tolist() if x.dtype.kind == "U" else x)


def ticket_of(model):
    ticket = kt.wrap(model, kt.Magnitude(0.5, on_collapse="warn"))
    ticket.draw(verbose=0)
    return ticket


def strip(make, folder):
    model, _ = make()
    ticket = ticket_of(model)
    return ticket, ticket.strip()


def shrink(make, folder):
    model, _ = make()
    ticket = ticket_of(model)
    return ticket, kt.shrink(ticket, verbose=False)


def prepare(make, folder):
    model, _ = make()
    return model, kt.mobile.prepare(model, verbose=False)


def contestant(name):
    def made(make, folder):
        model, _ = make()
        seen = {}

        def train(ticket):
            seen[ticket.name.rpartition("_")[2]] = ticket
            return 0.0

        ticket = ticket_of(model)
        kt.challenge(ticket, train, seeds=(0, 1), verbose=0)
        return model if name == "dense" else ticket, seen[name]

    made.__name__ = name
    return made


def load_ticket(make, folder):
    ticket = ticket_of(make()[0])
    ticket.save_ticket(folder / "x.ticket.npz")
    return ticket, kt.load_ticket(folder / "x.ticket.npz", make(adapted=False)[0])


# What a run begins with anew: seeds, and states of recurrent layers. A ticket file
# holds what Keras' own saving carries.
LEFT_OUT = {
    "dense": (stateful, seeds, raw),
    "load_ticket": (stateful, seeds, attributes, raw),
}
ALIKE = [
    (operation, make)
    for operation in (strip, shrink, prepare, contestant("dense"), load_ticket)
    for make in MODELS
    if make not in LEFT_OUT.get(operation.__name__, ())
] + [(contestant("ticket"), normalization)]
# One function copies: each state through one operation, each operation with states of
# several kinds. Keras' own saving and loading, which a ticket file does, with all.
HARDEST = (nested, own_state, *((string_lookup,) if TENSORFLOW else ()))
COVERING = [
    (operation, make)
    for operation, make in ALIKE
    if operation in (strip, load_ticket) or make in HARDEST
] + ALIKE[-1:]


@pytest.mark.parametrize(
    ("operation", "make"),
    covering(ALIKE, quick=COVERING, elsewhere=COVERING),
    ids=lambda function: function.__name__,
)
def test_a_copy_computes_what_the_model_does(operation, make, tmp_path):
    model, copy = operation(make, tmp_path)
    x = make()[1]
    np.testing.assert_allclose(outputs(copy, x), outputs(model, x), atol=1e-5)


@pytest.mark.parametrize("operation", [strip, shrink, prepare])
def test_a_copy_has_seeds_and_what_is_frozen(operation, tmp_path):
    _, copy = operation(seeds, tmp_path)
    state = copy.get_layer("state").seed_generator.state
    assert ops.convert_to_numpy(state).tolist() == [7, 9]
    _, copy = operation(frozen, tmp_path)
    assert not copy.get_layer("first").trainable_variables
    assert copy.get_layer("last").trainable_variables


@pytest.mark.backend_independent
def test_fresh_weights_keep_what_was_adapted(tmp_path):
    ticket, other = contestant("reinitialised")(nested, tmp_path)
    assert other.model.get_layer("state").shift == 2
    theirs, mine = (
        model.layers[2].get_layer("state") for model in (ticket.model, other.model)
    )
    np.testing.assert_allclose(*(ops.convert_to_numpy(x.mean) for x in (mine, theirs)))
    kernel = [model.get_layer("top").kernel for model in (ticket.model, other.model)]
    assert not np.array_equal(*map(ops.convert_to_numpy, kernel))


class Noted(layers.Layer):
    """Saves something that is no variable."""

    note = np.array("a note")

    def call(self, inputs):
        return inputs

    def save_own_variables(self, store):
        store["note"] = self.note

    def load_own_variables(self, store):
        self.note = np.array(store["note"])


def test_a_state_that_a_ticket_file_cannot_hold_is_refused(tmp_path):
    layer, path = Noted(), tmp_path / "x.ticket.npz"
    ticket = ticket_of(of_numbers(layer))
    ticket.save_ticket(path)
    with pytest.raises(ValueError, match=r"layer number 1 of class Noted saves"):
        kt.load_ticket(path, of_numbers(layers.Identity()))
    layer.note = np.array({})
    with pytest.raises(ValueError, match=r"class Noted saves 'note' as Python objects"):
        ticket.save_ticket(path, overwrite=True)


@pytest.mark.skipif(not TENSORFLOW, reason="lookups are TensorFlow's")
def test_a_damaged_file_writes_nowhere_else(tmp_path):
    ticket, path = ticket_of(string_lookup()[0]), tmp_path / "x.ticket.npz"
    ticket.save_ticket(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    header = arrays["header"].tobytes().replace(b"vocabulary.txt", b"../../word.txt")
    arrays["header"] = np.frombuffer(header, np.uint8)
    arrays["checksum"] = checksum(arrays)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"damaged.*no path inside a folder"):
        kt.load_ticket(path, string_lookup(adapted=False)[0])


@pytest.mark.parametrize(
    "make",
    covering(
        [normalization, own_state, nested],
        quick=[own_state, nested],
        elsewhere=[own_state],
    ),
    ids=lambda function: function.__name__,
)
def test_a_file_computes_what_the_ticket_does(make, tmp_path):
    model, x = make()
    ticket = ticket_of(model)
    path = tmp_path / "x.tflite"
    kt.export(ticket, path, samples=x, verbose=False)
    with isolated(path) as file:
        [given] = file.run({"data": x[:1]}).values()
    np.testing.assert_allclose(given, outputs(ticket, x)[:1], atol=1e-4)


@pytest.mark.parametrize(
    "wrapped", covering([False, True], quick=[True], elsewhere=[True])
)
def test_an_export_leaves_the_states_of_layers_as_they_were(wrapped, tmp_path):
    model, x = stateful()
    states = [ops.convert_to_numpy(s) for s in model.get_layer("state").states]
    given = ticket_of(model) if wrapped else model
    kt.export(given, tmp_path / "x.tflite", samples=x, verbose=False)
    after = [ops.convert_to_numpy(s) for s in model.get_layer("state").states]
    np.testing.assert_array_equal(after, states)
    # A file begins anew, whatever the model saw last.
    with isolated(tmp_path / "x.tflite") as file:
        [received] = file.run({"data": x}).values()
    model.get_layer("state").reset_state()
    np.testing.assert_allclose(received, outputs(given, x), atol=1e-5)


@pytest.mark.backend_independent
def test_a_plan_leaves_the_states_of_layers_as_they_were():
    model, _ = stateful()
    states = [ops.convert_to_numpy(s) for s in model.get_layer("state").states]
    assert kt.mobile.prepare_plan(model).difference == 0
    after = [ops.convert_to_numpy(s) for s in model.get_layer("state").states]
    np.testing.assert_array_equal(after, states)


def test_a_stateful_layer_is_no_onnx_and_stays_as_it_was(tmp_path):
    model, _ = stateful()
    before = ops.convert_to_numpy(model.get_layer("state").states[0])
    with pytest.raises(ValueError, match=r"'state': stateful=True\), and an '\.onnx'"):
        kt.export(ticket_of(model), tmp_path / "x.onnx", verbose=False)
    after = ops.convert_to_numpy(model.get_layer("state").states[0])
    np.testing.assert_array_equal(after, before)


@pytest.mark.skipif(not TENSORFLOW, reason="lookups are TensorFlow's")
def test_a_file_reads_text_as_the_ticket_does(tmp_path):
    model, x = string_lookup()
    ticket, path = ticket_of(model), tmp_path / "x.tflite"
    report = kt.export(ticket, path, samples=np.char.add(x, "é"), verbose=False)
    assert report.max_relative_difference < 1e-5
    assert kt.verify(path, ticket, x).max_rel < 1e-5
