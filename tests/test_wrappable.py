"""Which models and layers a ticket can stand in for; the others are named."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import keras_tickets as kt
from keras_tickets.ticket.wrappable import OWN_TRAINING

BACKEND = keras.backend.backend()


class Plain(keras.Model):
    """A model of its own that trains as Keras does."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)
        self.dense.build((None, 8))
        self.built = True

    def call(self, inputs):
        return self.dense(inputs)

    def summary(self, **kwargs):
        return super().summary(**kwargs)


@pytest.mark.backend_independent
@pytest.mark.parametrize("method", OWN_TRAINING)
def test_a_model_with_a_method_of_its_own_is_refused_by_its_name(method):
    assert hasattr(keras.Model, method) or method == "stateless_compute_loss"
    found = getattr(keras.Model, method, None)
    if isinstance(found, property):
        mine = property(lambda self: found.fget(self))
    else:

        def mine(self, *args, **kwargs):
            return found(self, *args, **kwargs)

    model = type("Own", (Plain,), {method: mine})()
    with pytest.raises(ValueError, match=rf"own {method}, .*kt\.Masked"):
        kt.wrap(model)
    if not isinstance(found, property):
        model = Plain()
        setattr(model, method, lambda *args, **kwargs: None)
        with pytest.raises(ValueError, match=rf"own {method}, "):
            kt.wrap(model)


@pytest.mark.backend_independent
def test_models_of_classes_that_train_as_keras_does_are_taken():
    child = type("Child", (Plain,), {"extra": lambda self: 0})
    named = type("Named", (keras.Sequential,), {})
    sequential = named([keras.Input((8,)), layers.Dense(3)])
    functional = type("Mine", (keras.Model,), {})(sequential.inputs, sequential.outputs)
    for model in (child(), sequential, functional):
        assert len(kt.wrap(model).kernels) == 1


def wrapper():
    import torch

    module = torch.nn.Linear(8, 16)
    return layers.TorchModuleWrapper(module, output_shape=(None, 16), name="foreign")


def saved_model(folder):
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(16)])
    inner.export(folder, verbose=False)
    return layers.TFSMLayer(str(folder), name="foreign")


@pytest.mark.skipif(BACKEND == "jax", reason="neither layer computes on JAX")
def test_weights_that_masks_do_not_reach_are_named_and_not_counted(tmp_path):
    layer = wrapper() if BACKEND == "torch" else saved_model(tmp_path / "saved")
    data = keras.Input((8,))
    model = keras.Model(data, layers.Dense(3)(layer(data)))
    with pytest.warns(UserWarning, match=r"weights are not pruned.*'foreign' \(T"):
        ticket = kt.wrap(model, kt.Magnitude(0.5))
    assert [kernel.shape for kernel in ticket.kernels] == [(16, 3)]
    kt.wrap(model, kt.Magnitude(0.5), skip=layer)  # said by the user
    with pytest.raises(ValueError, match="TorchModuleWrapper or a TFSMLayer"):
        kt.wrap(model, only=layer.name)
    with pytest.raises(ValueError, match=r"Nothing to prune.*\n.*TorchModuleWrapper"):
        kt.wrap(model, only=lambda kernel: kernel.size == 128)


@pytest.mark.skipif(BACKEND != "jax", reason="a layer of JAX")
def test_masks_reach_the_weights_of_a_jax_layer():
    kernel = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")

    def product(params, inputs):
        return inputs @ params["kernel"]

    layer = layers.JaxLayer(product, params={"kernel": kernel})
    model = keras.Sequential([keras.Input((8,)), layer])
    ticket = kt.wrap(model, kt.Magnitude(0.5))
    ticket.draw(verbose=0)
    [mask] = ticket.mask_set.values()
    x = np.ones((2, 8), "float32")
    expected = x @ np.where(mask, kernel, 0)
    np.testing.assert_allclose(ticket.predict(x, verbose=0), expected, rtol=1e-5)
