"""TensorFlow's object checkpoints carry a ticket whole, as Keras' own files do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from conftest import covering
from keras import layers

import keras_tickets as kt
from keras_tickets.masks.snapshot import array_of

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's checkpoints", allow_module_level=True)

import tensorflow as tf

PRUNERS = {
    "gradual": lambda: kt.GradualMagnitude(0.8),
    "rigl": lambda: kt.RigL(0.5, update_every=2, until=1.0, seed=1),
    "gem_miner": lambda: kt.GemMiner(0.5, every=1, until=0.7, seed=1),
    "imp": lambda: kt.IMP(0.5, fraction=0.3, rewind_to=1),
}
EPOCHS, STOPPED = 6, 3  # GemMiner still searches then, IMP is within a round
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 8)).astype("float32"), RNG.integers(0, 4, 32)
pytestmark = pytest.mark.filterwarnings("ignore:.*(is not done|missed its target)")


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == STOPPED


def network(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12),
            layers.BatchNormalization(),
            layers.Dropout(0.2, seed=5),
            layers.Dense(4),
        ]
    )


def compiled(name: str, seed: int = 0) -> kt.Ticket:
    ticket = kt.wrap(network(seed), PRUNERS[name]())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ticket.compile(keras.optimizers.Adam(0.01), loss)
    if not ticket.optimizer.built:
        ticket.optimizer.build(ticket.trainable_variables)
    return ticket


def fit(ticket: kt.Ticket, **kwargs) -> kt.Ticket:
    ticket.fit(X, Y, batch_size=8, epochs=EPOCHS, shuffle=False, verbose=0, **kwargs)
    return ticket


def different(first: kt.Ticket, second: kt.Ticket) -> list[str]:
    """The variables that differ, those of the optimizer included."""
    pairs = zip(
        (*first.variables, *first.optimizer.variables),
        (*second.variables, *second.optimizer.variables),
        strict=True,
    )
    return [a.path for a, b in pairs if not np.array_equal(array_of(a), array_of(b))]


@pytest.mark.filterwarnings("ignore:IMP trains .* too few for the moving statistics")
@pytest.mark.parametrize("name", covering(PRUNERS, quick=["gem_miner"]))
def test_a_run_goes_on_where_it_stopped(name, tmp_path):
    stopped = fit(compiled(name), callbacks=[Stop()])
    assert stopped.unfinished == (name == "gem_miner")
    path = tf.train.Checkpoint(model=stopped).save(tmp_path / "stopped")
    resumed = compiled(name, seed=1)
    assert different(stopped, resumed)
    tf.train.Checkpoint(model=resumed).restore(path).assert_consumed()
    assert different(stopped, resumed) == []
    fit(resumed, initial_epoch=STOPPED)
    assert different(fit(compiled(name)), resumed) == []


def test_a_checkpoint_without_masks_is_told_of(tmp_path):
    ticket = compiled("gradual")
    weights = tf.train.Checkpoint(model=ticket.model, optimizer=ticket.optimizer)
    path = tf.train.Checkpoint(model=weights).save(tmp_path / "weights")
    status = tf.train.Checkpoint(model=ticket).restore(path)
    with pytest.raises(AssertionError, match="mask"):
        status.assert_consumed()


def test_masked_layers(tmp_path):
    def masked() -> keras.Model:
        dense = kt.Masked(layers.Dense(4))
        return keras.Sequential([keras.Input((8,)), dense])

    model, other = masked(), masked()
    model.compile("adam", "mse")
    model.fit(X, X[:, :4], verbose=0, callbacks=[kt.Random(0.5, seed=0)])
    path = tf.train.Checkpoint(model=model.layers[0]).save(tmp_path / "masked")
    tf.train.Checkpoint(model=other.layers[0]).restore(path).assert_consumed()
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    assert other.layers[0].mask_set.drawn
