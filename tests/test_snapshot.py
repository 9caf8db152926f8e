"""What a ticket remembers: the weights that its survivors start from."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import zoo
from conftest import covering
from keras import layers

import keras_tickets as kt
from keras_tickets.masks.snapshot import Snapshot, array_of
from keras_tickets.ticket.parts import values_of

pytestmark = pytest.mark.lowest

MODEL = "functional"  # it has a BatchNorm, biases and kernels


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def remembering(pruner=None, model: str = MODEL, **kwargs) -> kt.Ticket:
    ticket = kt.wrap(zoo.build(model), pruner, remember=True, **kwargs)
    zoo.compile_for(model, ticket)
    return ticket


# -- the snapshot itself -------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "first", "second"),
    [
        ("float32", [0.1, -np.inf], [1, 2]),
        ("float16", [0.1, 65504], [1, 2]),
        ("bfloat16", [0.1, 3e38], [1, 2]),
        ("int32", [2**31 - 1, -5], [1, 2]),
        ("int8", [-128, 127], [1, 2]),
        ("uint32", [2**32 - 1, 7], [1, 2]),
        ("bool", [True, False], [False, True]),
    ],
)
def test_take_and_restore(dtype, first, second):
    # torch insists that what trains is floating-point.
    weight = keras.Variable(np.array(first), trainable="float" in dtype, dtype=dtype)
    before = array_of(weight)
    snapshot = Snapshot(keras.layers.Layer(), [weight])
    snapshot.take()
    weight.assign(np.array(second))
    assert snapshot.taken
    [held] = snapshot.values()
    assert held.dtype == before.dtype
    np.testing.assert_array_equal(held, before)
    snapshot.restore()
    np.testing.assert_array_equal(array_of(weight), before)
    weight.assign(np.array(second))  # what was restored is a copy too
    np.testing.assert_array_equal(snapshot.values()[0], before)


def test_nothing_to_restore():
    weight = keras.Variable([1.0, 2.0])
    snapshot = Snapshot(keras.layers.Layer(name="host"), [weight], "early")
    assert not snapshot.taken
    with pytest.raises(RuntimeError, match=r"'early' of 'host' .* take\(\)"):
        snapshot.restore()
    np.testing.assert_array_equal(array_of(weight), [1.0, 2.0])


# -- a ticket's start ----------------------------------------------------------


def test_a_ticket_remembers_nothing_unless_asked():
    ticket = kt.wrap(zoo.build(MODEL), kt.Magnitude(0.5))
    assert ticket.start is None
    asked = kt.wrap(zoo.build(MODEL), kt.Magnitude(0.5), remember=True)
    weights = len(asked.model.weights)
    assert len(asked.weights) == len(ticket.weights) + weights + 1
    assert not asked.start.taken


DRAWING = {
    "once": lambda: kt.Magnitude(0.5),
    "late": lambda: kt.Magnitude(0.5, schedule=kt.schedules.Once(at=1.0)),
    "gradual": lambda: kt.GradualMagnitude(0.5),
    "dynamic": lambda: kt.RigL(0.5, update_every=2),
}


@pytest.mark.parametrize(
    "name",
    covering(DRAWING, quick=["once", "late", "dynamic"], elsewhere=["once", "dynamic"]),
)
def test_fit_remembers_all_weights_from_before_it(name):
    """Kernels, biases, scales and statistics; and a second fit changes nothing."""
    ticket = remembering(DRAWING[name]())
    before = values_of(ticket.model)
    zoo.train(MODEL, ticket, epochs=2)
    assert ticket.start.taken
    assert same(ticket.start.values(), before)
    after = values_of(ticket.model)
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    zoo.train(MODEL, ticket)
    assert same(ticket.start.values(), before)
    ticket.start.restore()
    assert same(values_of(ticket.model), before)


def test_draw_remembers():
    ticket = remembering(kt.Magnitude(0.5))
    before = values_of(ticket.model)
    ticket.draw()
    zoo.train(MODEL, ticket)
    assert same(ticket.start.values(), before)


def test_without_a_pruner_it_remembers_at_once():
    ticket = remembering()
    before = values_of(ticket.model)
    zoo.train(MODEL, ticket)
    assert same(ticket.start.values(), before)


def test_a_late_draw_of_a_ticket_that_remembers_its_initialisation():
    """The lottery: train dense, draw by magnitude, start from the initialisation."""
    dense = remembering()
    before = values_of(dense.model)
    zoo.train(MODEL, dense)
    ticket = kt.wrap(dense, kt.Magnitude(0.5))
    ticket.draw()
    assert same(ticket.start.values(), before)


def test_a_pruner_may_ask_for_it():
    class Rewinds(kt.Magnitude):
        keeps_initial_weights = True

    ticket = kt.wrap(zoo.build(MODEL), Rewinds(0.5))
    assert ticket.start is not None
    assert not kt.wrap(ticket, kt.Random(0.6)).start.taken


def test_masked_layers_keep_their_masks_out_of_it():
    model = keras.Sequential(
        [keras.Input((6,)), kt.Masked(layers.Dense(4)), layers.Dense(2)]
    )
    ticket = kt.wrap(model, kt.Magnitude(0.5), remember=True)
    ticket.draw()
    assert [v.dtype.name for v in ticket.start.values()] == ["float32"] * 4


def test_saved_and_loaded(tmp_path):
    ticket = remembering(kt.Magnitude(0.5))
    before = values_of(ticket.model)
    zoo.train(MODEL, ticket)
    ticket.save(tmp_path / "ticket.keras")
    custom = {"Noted": zoo.Noted}
    loaded = keras.models.load_model(tmp_path / "ticket.keras", custom_objects=custom)
    assert loaded.start.taken
    assert same(loaded.start.values(), before)
    ticket.save_weights(tmp_path / "ticket.weights.h5")
    other = kt.wrap(zoo.build(MODEL, seed=1), kt.Magnitude(0.5), remember=True)
    other.load_weights(tmp_path / "ticket.weights.h5")
    assert same(other.start.values(), before)


def test_a_config_of_before_does_not_say():
    config = kt.wrap(zoo.build("sequential"), kt.Magnitude(0.5)).get_config()
    del config["remember"]
    assert kt.Ticket.from_config(config).start is None
