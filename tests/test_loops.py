"""A ticket that trains without its pruner says so, and how the pruner is called."""

from __future__ import annotations

import pathlib
import re
from functools import partial

import keras
import numpy as np
import pytest
from keras import layers

import keras_tickets as kt
from keras_tickets.backend import keras_private

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "loops.md"
NEVER = "trained, but never pruned"


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 8)).astype("float32")
    return x, (x @ rng.normal(size=(8, 3))).argmax(1)


def network():
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )


def compiled(model, eagerly=True):
    """Compile a model; a step of a few units takes longer to trace than to run."""
    how = {"run_eagerly": eagerly, "jit_compile": False}
    model.compile("sgd", "sparse_categorical_crossentropy", **how)
    return model


def distiller(student):
    return keras.distillation.Distiller(
        network(), student, keras.distillation.LogitsDistillation()
    )


class Around(keras.Model):
    """A model with a `train_step` of its own, around another."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.built = True

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)

    def train_step(self, *args):
        return super().train_step(*args)


def sequential(inner):
    return keras.Sequential([keras.Input((8,)), inner, layers.Activation("linear")])


class Deaf(keras.Model):
    """Its `call` takes no `training`."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, activation="softmax")
        self.dense.build((None, 8))
        self.built = True

    def call(self, inputs):
        return self.dense(inputs)


def test_the_recipes_of_the_page_prune():
    text = PAGE.read_text().replace('entropy")', 'entropy", run_eagerly=True)')
    kinds = rf"```python(?:| {keras.backend.backend()})\n(.*?)```"
    blocks = re.findall(kinds, text, re.DOTALL)
    assert len(blocks) == 3
    x, y = data()
    model, trained = network(), kt.wrap(network(), kt.Magnitude(0.5))
    trained.draw(verbose=0)
    names = {"keras": keras, "kt": kt, "model": model, "ticket": trained, "x": x}
    names |= {"y": y}
    shared, others = blocks[:2], blocks[2:]
    for block in shared:
        exec(compile(block, "loops.md", "exec"), names)
    assert (
        np.concatenate([w.ravel() for w in names["small"].get_weights()]) == 0
    ).any()
    for name in ("student", "ticket"):
        assert names[name].sparsity == pytest.approx(0.8, abs=0.01)
    for block in others:  # the same loop, another step
        names["ticket"] = compiled(kt.wrap(network(), kt.GradualMagnitude(0.8)))
        before = names["ticket"].model.get_weights()
        exec(compile(block, "loops.md", "exec"), names)
        assert names["ticket"].sparsity == pytest.approx(0.8, abs=0.01)
        after = names["ticket"].model.get_weights()
        assert all((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "around",
    [None, distiller, Around, sequential],
    ids=lambda a: getattr(a, "__name__", a),
)
def test_a_ticket_that_trains_without_its_pruner_says_so(around):
    x, y = data()
    ticket = kt.wrap(network(), kt.GradualMagnitude(0.8))
    model = ticket if around is None else around(ticket)
    compiled(model, eagerly=around is not sequential)
    train = model.train_on_batch if around is None else partial(model.fit, verbose=0)
    with pytest.warns(UserWarning, match=NEVER) as caught:
        train(x, y)
    train(x, y)
    told = [str(w.message) for w in caught if NEVER in str(w.message)]
    assert len(told) == 1
    assert "ticket.pruner" in told[0]


@pytest.mark.backend_independent
@pytest.mark.parametrize("around", [distiller, Around, sequential])
def test_the_pruner_works_as_a_callback_of_a_model_around_its_ticket(around):
    x, y = data()
    ticket = kt.wrap(network(), kt.GradualMagnitude(0.8))
    outer = compiled(around(ticket))
    outer.fit(x, y, epochs=2, verbose=0, callbacks=[ticket.pruner])
    assert ticket.sparsity == pytest.approx(0.8, abs=0.01)


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    "pruner", [kt.RigL(0.8), kt.SET(0.8), kt.GemMiner(0.8), kt.STR(0.8), kt.IMP(0.8)]
)
def test_a_pruner_that_needs_its_own_optimizer_refuses_another_models(pruner):
    x, y = data()
    ticket = kt.wrap(network(), pruner)
    outer = compiled(sequential(ticket))
    with pytest.raises(ValueError, match=r"compile and fit the ticket"):
        outer.fit(x, y, verbose=0, callbacks=[ticket.pruner])


@pytest.mark.backend_independent
def test_two_tickets_in_one_model_have_a_pruner_each():
    first, second = (kt.wrap(network(), kt.GradualMagnitude(s)) for s in (0.5, 0.8))
    x, y = data()
    inputs = keras.Input((8,))
    outer = keras.Model(inputs, layers.Average()([first(inputs), second(inputs)]))
    with pytest.raises(ValueError, match="several tickets in"):
        compiled(outer).fit(x, y, verbose=0, callbacks=[kt.GradualMagnitude(0.5)])
    compiled(outer).fit(x, y, verbose=0, callbacks=[first.pruner, second.pruner])
    found = [ticket.sparsity for ticket in (first, second)]
    assert found == pytest.approx([0.5, 0.8], abs=0.01)
    plain = kt.strip(outer)
    assert not any(
        isinstance(layer, kt.Ticket) for layer in keras_private.sublayers(plain)
    )
    np.testing.assert_array_equal(
        plain.predict(x, verbose=0), outer.predict(x, verbose=0)
    )


@pytest.mark.backend_independent
def test_what_is_drawn_or_driven_says_nothing(tmp_path):
    x, y = data()
    ticket = compiled(kt.wrap(network(), kt.Magnitude(0.5)))
    ticket.draw(verbose=0)
    ticket.train_on_batch(x, y)
    ticket.save(tmp_path / "t.keras")
    loaded = keras.models.load_model(tmp_path / "t.keras")
    compiled(loaded, eagerly=False).train_on_batch(x, y)
    compiled(kt.wrap(network())).train_on_batch(x, y)
    ticket = compiled(kt.wrap(network(), kt.GradualMagnitude(0.5)))
    keras.callbacks.CallbackList([ticket.pruner], model=ticket, epochs=1, steps=1)
    ticket.train_on_batch(x, y)


@pytest.mark.backend_independent
def test_a_model_that_is_not_told_of_training():
    x, y = data()
    with pytest.warns(UserWarning, match=NEVER):
        compiled(kt.wrap(Deaf(), kt.Magnitude(0.5))).train_on_batch(x, y)


@pytest.mark.backend_independent
def test_what_was_never_drawn_is_not_passed_on_as_pruned(tmp_path):
    ticket = kt.wrap(network(), kt.Magnitude(0.5))
    masked = keras.Sequential([keras.Input((8,)), kt.Masked(layers.Dense(3))])
    for model, name in (
        (ticket, "Ticket"),
        (masked, "Masked"),
        (sequential(ticket), "T"),
    ):
        with pytest.warns(UserWarning, match=f"{name}.* was never drawn.*is dense"):
            kt.strip(model)
        with pytest.raises(ValueError, match="was never drawn"):
            kt.export(model, tmp_path / "m.tflite")
    kt.strip(kt.wrap(network()))  # nothing was asked for
