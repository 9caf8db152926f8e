"""Layers with layers inside, dtypes, strategies, histories and copies."""

from __future__ import annotations

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tickets as kt

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = np.arange(8) % 2
TENSORFLOW = keras.backend.backend() == "tensorflow"
JAX = keras.backend.backend() == "jax"

HURRIED = "Mining ended|EarlyBird drew|.* will not find its ticket in this run"
"""What is said of searches of a few steps, which is right and not asked for here."""


def net(dtype="float32"):
    keras.utils.set_random_seed(0)
    dense = [layers.Dense(4, dtype=dtype), layers.Dense(2, dtype=dtype)]
    return keras.Sequential([keras.Input((4,)), *dense])


def compiled(model, pruner, optimizer="sgd", **options):
    ticket = kt.wrap(model, pruner)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ticket.compile(optimizer, loss, run_eagerly=not JAX, jit_compile=False, **options)
    return ticket


def fitted(pruner, epochs=1, model=None, **options):
    ticket = compiled(model or net(), pruner, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", HURRIED)
        fit = ticket.fit(X, Y, batch_size=8, epochs=epochs, verbose=0)
    return ticket, fit.history


# -- layers with layers inside, called in ways of their own ---------------------------

TIMES = keras.Input((3, 4))
INSIDE = {
    "attention": (lambda: layers.MultiHeadAttention(2, 4), (TIMES, TIMES), {}, 4),
    "by name": (
        lambda: layers.MultiHeadAttention(2, 4),
        (),
        {"query": TIMES, "value": TIMES, "use_causal_mask": True},
        4,
    ),
    "grouped": (lambda: layers.GroupQueryAttention(4, 4, 2), (TIMES, TIMES), {}, 4),
    "both ways": (lambda: layers.Bidirectional(layers.LSTM(3)), (TIMES,), {}, 4),
    "cells": (
        lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]),
        (TIMES,),
        {},
        4,
    ),
    "steps": (lambda: layers.TimeDistributed(layers.Dense(3)), (TIMES,), {}, 1),
    "separable": (lambda: layers.SeparableConv1D(4, 3), (TIMES,), {}, 1),
    "model": (lambda: keras.Sequential([layers.Dense(3)]), (TIMES,), {}, 1),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.slow] * (name in ("both ways", "grouped"))
        )
        for name in INSIDE
    ],
)
def test_masked_is_called_as_its_layer_is(name, tmp_path):
    make, given, named, kernels = INSIDE[name]
    masked = kt.Masked(make())
    model = keras.Model(TIMES, masked(*given, **named))
    assert len(masked.mask_set.masked) == kernels
    rng = np.random.default_rng(0)
    masks = [rng.random(mask.shape) < 0.5 for mask in masked.mask_set.values()]
    masked.mask_set.assign(masks)
    x = rng.normal(size=(2, 3, 4)).astype("float32")
    expected = ops.convert_to_numpy(model(x))
    np.testing.assert_array_equal(ops.convert_to_numpy(kt.strip(model)(x)), expected)
    if name in ("attention", "cells"):
        model.save(tmp_path / "m.keras")
        loaded = keras.models.load_model(tmp_path / "m.keras")
        np.testing.assert_array_equal(ops.convert_to_numpy(loaded(x)), expected)


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: kt.Masked(kt.Masked(layers.Dense(2))),
            r"'masked_dense\w*' masks 'den",
        ),
        (
            lambda: kt.Masked(layers.TimeDistributed(kt.Masked(layers.Dense(2)))),
            r"a kernel has one mask",
        ),
        (
            lambda: kt.Masked(layers.SpectralNormalization(layers.Dense(2)))(TIMES),
            r"kernel \(4, 2\): rewritten by SpectralNormalization",
        ),
        (lambda: kt.Masked(Lazy())(TIMES), r"'lazy'.*dense\w* are not built: call it"),
    ],
)
def test_what_masked_refuses(make, message):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*unbuilt state")
        with pytest.raises(ValueError, match=message):
            make()


class Lazy(layers.Layer):
    """Leaves the building of what it holds to the first call."""

    def __init__(self):
        super().__init__(name="lazy")
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


# -- dtypes, strategies, layouts ------------------------------------------------------


@pytest.mark.parametrize(
    ("pruner", "dtype"),
    [
        (lambda: kt.GemMiner(0.5, every=1, until=1.0), "bfloat16"),
        (lambda: kt.ESPN(0.5, until=1.0), "float16"),
        (lambda: kt.STR(0.5, until=1.0), "bfloat16"),
        (
            lambda: kt.SNFS(0.5, update_every=1, drop_fraction=1.0),
            "float64" if TENSORFLOW else "bfloat16",
        ),
    ],
)
def test_learned_masks_in_every_dtype(pruner, dtype):
    ticket, history = fitted(pruner(), 2, net(dtype), optimizer="adam")
    assert ticket.sparsity == 0.5
    assert np.isfinite(history["loss"]).all()


def test_a_penalty_in_half_precision_stays_finite():
    dense = layers.Dense(300, dtype="float16")
    ticket = kt.wrap(keras.Sequential([keras.Input((300,)), dense]), kt.ESPN(0.5))
    ticket.pruner_state.searching.set()
    ticket(np.zeros((1, 300), "float16"))
    penalty = ops.convert_to_numpy(sum(ticket.losses))
    assert penalty == pytest.approx(8e-5 * 300**2, rel=1e-3)


@pytest.mark.skipif(not TENSORFLOW, reason="MirroredStrategy is TensorFlow's")
@pytest.mark.parametrize("pruner", [kt.RigL, kt.SNFS])
def test_dense_gradients_under_a_mirrored_strategy(pruner):
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        ticket = kt.wrap(net(), pruner(0.5, seed=0))
        ticket.draw(verbose=0)
    plain = ticket.strip()
    np.testing.assert_array_equal(plain(X), ticket(X))


@pytest.mark.skipif(not JAX, reason="ModelParallel is JAX's")
def test_layouts_of_kernels_are_those_of_kernels_only():
    mesh = keras.distribution.DeviceMesh((1,), ["model"], ["cpu:0"])
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*kernel.*"] = (None, "model")
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="model")
    )
    try:
        for pruner in (kt.STR(0.5), kt.GemMiner(0.5), kt.RigL(0.5)):
            compiled(net(), pruner)
    finally:
        keras.distribution.set_distribution(before)


# -- what is logged, and when ---------------------------------------------------------


def test_sparsity_between_two_steps():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            zeros = sum(int((w == 0).sum()) for w in ticket.strip().get_weights()[::2])
            seen.append((ticket.sparsity, zeros / 24))

    ticket = compiled(net(), kt.GradualMagnitude(0.5))
    ticket.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[Watch()])
    assert len(seen) == 4
    assert [a for a, _ in seen] == [b for _, b in seen]
    assert seen[-1][0] == 0.5


def with_scales():
    norm = [layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]
    return keras.Sequential([keras.Input((4,)), *norm])


@pytest.mark.parametrize(
    ("pruner", "name", "model"),
    [
        (kt.STR(0.5, until=0.5), "soft_sparsity", net),
        (kt.EarlyBird(0.5), "mask_distance", with_scales),
        (kt.IMP(0.5, fraction=0.5), "round", net),
        (kt.Magnitude(0.5), "sparsity", net),
        pytest.param(
            *(kt.ESPN(0.5, warmup=1), "soft_sparsity", net), marks=pytest.mark.slow
        ),
        pytest.param(
            *(kt.GemMiner(0.5, every=1, until=1.0), "rounded_sparsity", net),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_columns_of_a_history(pruner, name, model):
    def metric(true, predicted):
        return ops.mean(predicted) * 0 + 7

    metric.__name__ = name
    with pytest.warns(UserWarning, match=rf"metrics called '{name}'.*'ticket_{name}'"):
        _, history = fitted(pruner, 3, model(), metrics=[metric])
    assert {len(column) for column in history.values()} == {3}
    assert set(history[name]) == {7}
    assert 7 not in history[f"ticket_{name}"]


def test_a_warning_is_given_once():
    schedule = kt.schedules.Polynomial(end=4, unit="epochs")
    ticket = compiled(net(), kt.GradualMagnitude(0.5, schedule=schedule))
    fit = {"batch_size": 8, "epochs": 1, "verbose": 0}
    with pytest.warns(UserWarning, match=r"it ended at 1 of 4 epochs"):
        ticket.fit(X, Y, **fit)
    sparser = compiled(ticket, kt.GradualMagnitude(0.25))
    with pytest.warns(UserWarning, match=r"missed its target.*0\.25"):
        sparser.fit(X, Y, **fit)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ticket.fit(X, Y, **fit)
        sparser.fit(X, Y, **fit)


# -- copies ---------------------------------------------------------------------------


def test_a_copy_of_a_used_pruner_is_a_new_one():
    pruner = kt.SNIP(0.5, data=(X, Y))
    ticket, _ = fitted(pruner)
    pickled = pickle.loads(pickle.dumps(pruner))
    for again in (copy.copy(pruner), copy.deepcopy(pruner), pickled):
        assert again.get_config() == pruner.get_config()
        assert again.curve is None
        other = compiled(net(), again)
        other.draw(verbose=0)
        assert other.sparsity == ticket.sparsity == 0.5


def test_data_as_lists():
    drawn = []
    for data in ((X, Y), (X.tolist(), Y.tolist()), [(X.tolist(), Y.tolist())]):
        ticket = compiled(net(), kt.SNIP(0.5, data=data))
        ticket.draw(verbose=0)
        drawn.append(ticket.mask_set.values())
    for masks in drawn[1:]:
        for one, other in zip(drawn[0], masks, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.backend_independent
def test_a_deep_copy_calls_each_layer_as_often_as_a_flat_one():
    calls = []

    class Counted(layers.Dense):
        def call(self, inputs):
            calls.append(self.name)
            return super().call(inputs)

    depth = 4
    inner = keras.Sequential([keras.Input((4,)), *(Counted(4) for _ in range(depth))])
    model = keras.Sequential([keras.Input((4,)), inner])
    ticket = kt.wrap(model, kt.Random(0.5, seed=0))
    ticket.draw(verbose=0)
    calls.clear()
    assert [x.name for x in ticket.strip().layers] == [inner.name]
    assert len(calls) == 2 * depth  # no more than to compare the two
