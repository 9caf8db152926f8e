"""What a step writes into weights besides gradients: layers and optimizers that do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tickets as kt
from keras_tickets.backend import on_host
from keras_tickets.masks.denominators import keep_finite

TORCH = keras.backend.backend() == "torch"


class Clipped(layers.Layer):
    """Clips its kernel when it trains."""

    def __init__(self, units=5, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(shape[-1], self.units), name="kernel", regularizer="l2"
        )

    def call(self, inputs, training=None):
        if training:
            self.kernel.assign(ops.clip(self.kernel, -0.2, 0.2))
        return ops.matmul(inputs, self.kernel)


class Centered(Clipped):
    """Scales its outputs, and a kernel whose columns it centers, in any call."""

    def call(self, inputs, training=None):
        kernel = self.kernel - ops.mean(self.kernel, axis=0)
        self.kernel.assign(kernel)
        return ops.matmul(inputs, self.kernel)


class Conditional(Clipped):
    """Normalizes its kernel in a branch."""

    def call(self, inputs, training=None):
        def divide():
            self.kernel.assign(self.kernel / 2)
            return 1.0

        if training and keras.backend.backend() != "jax":
            ops.cond(ops.max(self.kernel) > 0.1, divide, lambda: 0.0)
        return ops.matmul(inputs, self.kernel)


def spectral():
    return layers.SpectralNormalization(layers.Dense(5))


def data():
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    return x, np.arange(32) % 3


def network(layer):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((6,)), layer(), layers.ReLU(), layers.Dense(3)]
    )


def trained(model, eagerly=True):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    how = {"run_eagerly": eagerly, "jit_compile": False}
    model.compile(keras.optimizers.SGD(0.5), loss, **how)
    fit = model.fit(*data(), epochs=2, batch_size=16, shuffle=False, verbose=0)
    return fit.history["loss"]


@pytest.mark.parametrize("layer", [spectral, Clipped, Centered, Conditional])
def test_a_layer_that_assigns_its_weights_trains_as_in_its_model(layer):
    plain, wrapped = network(layer), network(layer)
    eagerly = layer is not Conditional  # a branch is one where the step is traced
    losses = [trained(model, eagerly) for model in (plain, kt.wrap(wrapped))]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    for ours, theirs in zip(wrapped.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.backend_independent
def test_an_assignment_leaves_dead_weights_as_they_are():
    model = network(Centered)
    ticket = kt.wrap(model, kt.Random(0.5, seed=0), only="kernel")
    ticket.draw(verbose=0)
    [mask, _] = ticket.mask_set.values()
    before = on_host(model.layers[0].kernel.value).copy()
    ticket(data()[0])
    after = on_host(model.layers[0].kernel.value)
    np.testing.assert_array_equal(after[~mask], before[~mask])
    seen = np.where(mask, before, 0)
    expected = seen - seen.mean(axis=0)
    np.testing.assert_allclose(after[mask], expected[mask], rtol=1e-5, atol=1e-7)


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    "pruner", [kt.EdgePopup(0.5), kt.STR(0.5, penalty=20.0), kt.RigL(0.5)]
)
def test_learned_masks_refuse_a_layer_that_assigns(pruner):
    ticket = kt.wrap(network(Clipped), pruner)
    if isinstance(pruner, kt.RigL):  # which masks, and no more
        ticket.draw(verbose=0)
        ticket(data()[0], training=True)
        return
    with pytest.raises(ValueError, match=r"'clipped' assigns its weight .*skip="):
        trained(ticket)


# -- optimizers ---------------------------------------------------------------------


def dead_gradients():
    """Return gradients of kernels with dead rows and columns, and without live ones."""
    some = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    some[2] = some[..., 3] = some[:, 1] = 0
    return [some, np.zeros_like(some)]


def own(argument):
    """Return the optimizers of Keras that take `argument`, with it nothing."""
    several = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
    kinds = [k for k in vars(keras.optimizers).values() if isinstance(k, type)]
    single = [k for k in kinds if issubclass(k, keras.optimizers.Optimizer)]
    made = [k for k in single if k.__name__ not in several]
    return [k(**{argument: 0.0}) for k in made if argument in k().get_config()]


@pytest.mark.backend_independent
@pytest.mark.filterwarnings("ignore:.*makes NaN of the weights")
def test_no_optimizer_of_keras_makes_nan_of_dead_weights():
    names = ("epsilon", "epsilon_1", "initial_accumulator_value")
    optimizers = [keras.optimizers.Adafactor(0.01), *(o for a in names for o in own(a))]
    assert len(optimizers) >= 13
    gradients = [ops.convert_to_tensor(g) for g in dead_gradients()]
    for optimizer in optimizers:
        weights = [keras.Variable(np.ones(g.shape, "float32")) for g in gradients]
        keep_finite(optimizer, weights)
        optimizer.build(weights)
        optimizer.apply(gradients, weights)
        for weight in weights:
            assert np.isfinite(on_host(weight.value)).all(), optimizer.name


def test_adafactor_trains_a_sparse_ticket():
    x, y = data()
    ticket = kt.wrap(network(lambda: layers.Dense(8)), kt.Magnitude(0.8))
    with pytest.warns(UserWarning, match=r"Adafactor with epsilon_1=1e-30.*1e-15"):
        ticket.compile("adafactor", "mse", run_eagerly=True)
    ticket.fit(x, np.eye(3)[y], verbose=0)
    for weights in ticket.model.get_weights():
        assert np.isfinite(weights).all()


@pytest.mark.backend_independent
def test_optimizers_are_found_wherever_they_are():
    weights = [keras.Variable(np.ones((2, 2), "float32"))]
    inner = keras.optimizers.Adafactor(0.01)
    with pytest.warns(UserWarning, match="Adafactor"):
        keep_finite(keras.optimizers.LossScaleOptimizer(inner), weights)
    assert inner.epsilon_1 == 1e-15
    model = keras.Sequential([keras.Input((6,)), kt.Masked(layers.Dense(3))])
    model.compile("adafactor", "mse", jit_compile=False)
    with pytest.warns(UserWarning, match="Adafactor"):
        kt.Random(0.5, seed=0).set_model(model)
    half = [keras.Variable(np.ones((2, 2)), dtype="float16")]
    with pytest.raises(ValueError, match="float16 has no number"):
        keep_finite(keras.optimizers.Adafactor(), half)


class Dividing(keras.optimizers.SGD):
    """Divides by the gradient's size, whatever it is."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, 0.01 * gradient / ops.sqrt(ops.square(gradient)))


@pytest.mark.backend_independent
def test_nan_behind_the_masks_is_told():
    x, y = data()
    ticket = kt.wrap(network(lambda: layers.Dense(8)), kt.Magnitude(0.5))
    ticket.compile(Dividing(), "mse", run_eagerly=True)
    with pytest.warns(
        UserWarning, match=r"Weights of .*kernel.* are NaN after training"
    ):
        ticket.fit(x, np.eye(3)[y], verbose=0)
