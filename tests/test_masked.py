"""`Masked`: one layer behind its masks, alone, in a model, and under a ticket."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import zoo
from keras import layers, ops

import keras_tickets as kt
from keras_tickets.kernels import find_kernels

pytestmark = pytest.mark.lowest


def masked_net() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            kt.Masked(layers.Conv2D(6, 3, kernel_regularizer="l2")),
            layers.BatchNormalization(),
            layers.Flatten(),
            kt.Masked(layers.Dense(zoo.CLASSES)),
        ]
    )


def test_masked_layers_train_with_a_listed_pruner():
    model = masked_net()
    zoo.compile_for("sequential", model)
    zoo.train("sequential", model, callbacks=[kt.Random(0.75, seed=0)])
    masks = [m for i in (0, 3) for m in model.layers[i].mask_set.values()]
    zeros = sum(int((~m).sum()) for m in masks)
    assert zeros == round(0.75 * sum(m.size for m in masks))
    plain = kt.strip(model)
    assert not any(isinstance(layer, kt.Masked) for layer in plain.layers)
    np.testing.assert_array_equal(
        plain.predict(zoo.images(), verbose=0), model.predict(zoo.images(), verbose=0)
    )


def test_wrap_uses_the_masks_of_masked_layers(tmp_path):
    ticket = kt.wrap(masked_net(), kt.Magnitude(0.5))
    assert len(ticket.kernels) == 2
    ticket.draw()
    layer = ticket.model.layers[0]
    np.testing.assert_array_equal(
        layer.mask_set.values()[0], next(iter(ticket.masks.values()))
    )
    assert not any(isinstance(x, kt.Masked) for x in ticket.strip().layers)
    ticket.save(tmp_path / "t.keras")
    loaded = keras.models.load_model(tmp_path / "t.keras")
    assert loaded.sparsity == ticket.sparsity


def test_masked_inside_a_model_that_trains_itself():
    model = zoo.TrainsItself(kt.Masked(layers.Dense(zoo.CLASSES)))
    model.build((None, 8, 8, 3))
    with pytest.raises(ValueError, match=r"own train_step.*kt\.Masked"):
        kt.wrap(model, "random")
    zoo.compile_for("sequential", model)
    zoo.train("sequential", model, callbacks=[kt.Random(0.9, seed=0)])
    plain = kt.strip(model)
    np.testing.assert_array_equal(
        plain.predict(zoo.images(), verbose=0), model.predict(zoo.images(), verbose=0)
    )
    kernels = [k.variable.numpy() for k in find_kernels(plain)]
    assert (kernels[0] == 0).mean() == pytest.approx(0.9, abs=1e-3)


def test_masked_equals_the_layer_while_nothing_is_dead():
    keras.utils.set_random_seed(0)
    dense = layers.Dense(5)
    dense.build((None, 7))
    x = np.random.default_rng(0).normal(size=(3, 7)).astype("float32")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(kt.Masked(dense)(x)), ops.convert_to_numpy(dense(x))
    )


def test_masked_refuses_a_layer_without_weights():
    with pytest.raises(ValueError, match=r"Masked cannot prune layer 'flatten'"):
        kt.Masked(layers.Flatten()).build((None, 3, 3))
