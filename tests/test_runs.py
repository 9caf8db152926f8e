"""Runs in which pruners go back: what is validated, refused and foretold."""

from __future__ import annotations

import itertools
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tickets as kt
from keras_tickets.backend import on_host
from keras_tickets.pruners import run_checks
from keras_tickets.recipe.schedules import Run

X = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")
Y = X @ np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
DATA = {"batch_size": 4, "verbose": 0, "shuffle": False}


def linear(pruner, optimizer=None, **compiling) -> kt.Ticket:
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, use_bias=False)])
    ticket = kt.wrap(model, pruner)
    compiling = {"jit_compile": False} | compiling
    ticket.compile(optimizer or keras.optimizers.SGD(0.1), "mse", **compiling)
    return ticket


def without_length():
    """Return four batches, which are counted only when there are no more."""
    tf = pytest.importorskip("tensorflow")
    everything = tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True)
    return everything.batch(4)


class Compare(keras.callbacks.Callback):
    """At the end of each epoch, compares `val_loss` with that of the weights then."""

    def __init__(self):
        super().__init__()
        self.gaps = []

    def on_epoch_end(self, epoch, logs=None):
        _ = self.model  # on JAX: bring the variables up to date
        [masked] = self.model.mask_set.masked
        kernel = ops.convert_to_numpy(masked.effective())
        own = ((X @ kernel - Y) ** 2).mean()
        for loss in (m.losses() for m in [masked.auxiliary] if m is not None):
            own += sum(float(keras.ops.convert_to_numpy(one)) for one in loss)
        self.gaps.append(abs(own - logs["val_loss"]) / logs["val_loss"])


@pytest.mark.parametrize(
    "pruner",
    [
        lambda: kt.IMP(0.48, fraction=0.2),
        lambda: kt.ESPN(0.4, penalty=0.9, rewind=True, until=0.5),
    ],
    ids=["imp", "espn"],
)
@pytest.mark.filterwarnings("ignore:Mining ended")
def test_what_is_validated_is_what_callbacks_find(pruner):
    ticket, compare = linear(pruner()), Compare()
    history = ticket.fit(
        X, Y, epochs=8, validation_data=(X, Y), callbacks=[compare], **DATA
    ).history
    assert max(compare.gaps) < 1e-4
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)
    if "round" in history:  # within a round the loss goes down to its end
        steps = zip(
            itertools.pairwise(history["val_loss"]),
            itertools.pairwise(history["round"]),
            strict=True,
        )
        assert all(b < a for (a, b), (r, s) in steps if r == s)


def test_a_round_goes_on_in_another_fit():
    """Stopped where a round ends, the next fit closes it; the run is the same."""
    whole, parts = (linear(kt.IMP(0.36, fraction=0.2)) for _ in range(2))
    parts.model.set_weights(whole.model.get_weights())
    whole.fit(X, Y, epochs=6, **DATA)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    with pytest.warns(UserWarning, match="missed its target"):
        parts.fit(X, Y, epochs=6, callbacks=[Stop()], **DATA)
    assert parts.sparsity == 0
    parts.fit(X, Y, epochs=6, initial_epoch=2, **DATA)
    for one, two in zip(whole.model.weights, parts.model.weights, strict=True):
        np.testing.assert_array_equal(on_host(one.value), on_host(two.value))


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("pruner", "run", "message"),
    [
        (
            lambda: kt.IMP(0.9),
            {"epochs": 10, "x": without_length},
            r"10 epochs cannot be cut into 12 rounds.*steps_per_epoch.*12 epochs",
        ),
        (
            lambda: kt.IMP(0.9),
            {"epochs": 2, "x": X, "y": Y, "batch_size": 4},
            r"2 epochs of 4 steps cannot be cut into 12 rounds.*train for 3 epochs",
        ),
        (
            lambda: kt.IMP(0.9),
            {"epochs": 8, "initial_epoch": 4, "x": X, "y": Y, "batch_size": 4},
            r"begins with epoch 4 of 8.*6 of the rounds of IMP.*never trained",
        ),
        (
            lambda: kt.EdgePopup(0.5),
            {"epochs": 1, "x": without_length},
            r"EdgePopup searches.*up to 0\.5.*nothing would be left.*steps_per_epoch",
        ),
        (
            lambda: kt.GemMiner(0.5, every=1),
            {"epochs": 8, "initial_epoch": 4, "x": X, "y": Y, "batch_size": 4},
            r"begins with epoch 4 of 8.*the search of GemMiner should be over",
        ),
    ],
    ids=["no_length", "too_short", "imp_midway", "popup", "gem_midway"],
)
def test_runs_that_would_end_untrained_are_refused(pruner, run, message):
    ticket = linear(pruner())
    before = ticket.get_weights()
    x = run.pop("x")
    with pytest.raises(ValueError, match=message):
        ticket.fit(x() if callable(x) else x, verbose=0, shuffle=False, **run)
    for old, new in zip(before, ticket.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.backend_independent
def test_executions_are_no_shorter_than_rounds():
    ticket = linear(kt.IMP(0.9), steps_per_execution=4)
    with pytest.raises(ValueError, match=r"one execution.*lower steps_per_execution"):
        ticket.fit(X, Y, epochs=10, **DATA)


RAN_OUT = pytest.mark.filterwarnings("ignore:Your input ran out of data")


@pytest.mark.backend_independent
@RAN_OUT
def test_rounds_of_unknown_length_end_trained():
    ticket = linear(kt.IMP(0.36, fraction=0.2))
    history = ticket.fit(without_length(), epochs=6, verbose=0, shuffle=False).history
    assert history["round"] == [1, 1, 2, 2, 3, 3]
    trained = np.array(on_host(ticket.kernels[0].variable.value))
    assert (trained != ticket.start.values()[0]).any()


@pytest.mark.backend_independent
@RAN_OUT
def test_data_that_runs_out_ends_the_run():
    batches = ((X[:4], Y[:4]) for _ in range(6))
    ticket = linear(kt.IMP(0.36, fraction=0.2))
    with pytest.raises(ValueError, match=r"Epoch \d had no training step.*repeat\(\)"):
        ticket.fit(batches, steps_per_epoch=2, epochs=6, verbose=0, shuffle=False)
    trained = np.array(on_host(ticket.kernels[0].variable.value))
    assert (trained != ticket.start.values()[0]).any()


@pytest.mark.backend_independent
@RAN_OUT
def test_a_last_drop_after_training_is_told():
    ticket = linear(kt.GradualMagnitude(0.8))
    with pytest.warns(UserWarning, match=r"1 epoch apart.*from sparsity 0 to 0\.8 "):
        ticket.fit(without_length(), epochs=1, verbose=0, shuffle=False)


# -- BatchNorm -------------------------------------------------------------------------


@pytest.mark.backend_independent
@pytest.mark.parametrize("name", ["imp", "espn"])
def test_rounds_too_short_for_moving_statistics(name):
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(3), layers.BatchNormalization(name="norm")]
    )
    pruner = {
        "imp": kt.IMP(0.36, fraction=0.2),
        "espn": kt.ESPN(0.5, penalty=9.0, rewind=True, until=2 / 3),
    }[name]
    ticket = kt.wrap(model, pruner)
    ticket.compile("sgd", "mse", run_eagerly=True)
    pruner.set_params({"epochs": 6, "steps": 4})
    pruner.set_model(ticket)
    pruner.on_train_begin()
    left = 0.99**8
    told = rf"trains 8 steps.*1 Batch.*'norm' \(momentum=0\.99\) will be {left:.0%} "
    with pytest.warns(UserWarning, match=told + r".*299 steps.*momentum to 0\.68"):
        pruner.on_epoch_begin(0)


@pytest.mark.backend_independent
def test_statistics_that_have_time_are_not_spoken_of(recwarn):
    model = keras.Sequential([keras.Input((5,)), layers.BatchNormalization()])
    run_checks.warn_of_statistics("IMP", model, 300, 0)
    run_checks.warn_of_statistics("IMP", model, 100, 200)
    model.layers[0].trainable = False
    run_checks.warn_of_statistics("IMP", model, 1, 0)
    assert not recwarn.list


# -- what a search can reach -----------------------------------------------------------


def foretold(pruner, optimizer) -> list[str]:
    ticket = linear(pruner, optimizer)
    pruner.set_params({"epochs": 10, "steps": 40})
    pruner.set_model(ticket)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        pruner.check_pace(Run(10, 40), 0)
    return [str(w.message) for w in caught if w.category is UserWarning]


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("pruner", "optimizer", "words"),
    [
        (
            lambda: kt.ESPN(0.9),
            lambda: keras.optimizers.SGD(0.1, momentum=0.9),
            [
                "200 steps",
                "below 0.984",
                "sparsity 0 of 0.9",
                "8e-05 to 0.0067",
                "12500",
            ],
        ),
        (
            lambda: kt.ESPN(0.9),
            lambda: keras.optimizers.Adam(1e-3),
            ["below 0.8", "Raise the learning rate", "1000 steps"],
        ),
        (
            lambda: kt.ESPN(0.9, warmup=2),
            lambda: keras.optimizers.SGD(0.1),
            ["in 120 steps"],
        ),
        (
            lambda: kt.STR(0.5),
            lambda: keras.optimizers.SGD(0.1),
            ["in 300 steps", "from 0.0025 to about 0.0026", "Raise penalty=0.0001 to"],
        ),
        (
            lambda: kt.STR(0.5),
            lambda: keras.optimizers.Adam(1e-3),
            ["from 0.0025 to about 0.0033", "start=", "SGD, as the paper does"],
        ),
        (lambda: kt.ESPN(0.9, penalty=0.0067), lambda: "sgd", None),
        (
            lambda: kt.ESPN(0.9, penalty=0.0067),
            lambda: keras.optimizers.SGD(0.1, momentum=0.9),
            [],
        ),
        (lambda: kt.ESPN(0.9), lambda: keras.optimizers.Adam(0.01), []),
        (
            lambda: kt.STR(0.5, penalty=0.05),
            lambda: keras.optimizers.SGD(0.1, momentum=0.9),
            [],
        ),
        (
            lambda: kt.ESPN(0.9),
            lambda: keras.optimizers.SGD(
                keras.optimizers.schedules.CosineDecay(0.2, 200), momentum=0.9
            ),
            ["below 0.984"],
        ),
    ],
)
def test_what_a_search_will_reach_is_told_first(pruner, optimizer, words):
    told = foretold(pruner(), optimizer())
    if words == []:
        assert told == []
        return
    [text] = told
    for word in words or ["will not find its ticket in this run"]:
        assert word in text


def test_weight_decay_spares_what_is_learned():
    for pruner in (kt.ESPN(0.5), kt.STR(0.5)):
        optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["nothing_of_this_name"])
        ticket = linear(pruner, optimizer)
        [masked] = ticket.mask_set.masked
        kernel, learned = masked.kernel.variable, masked.auxiliary.variable
        before = np.array(on_host(kernel.value)), np.array(on_host(learned.value))
        grads = [ops.zeros_like(v.value) for v in ticket.trainable_variables]
        ticket.optimizer.apply(grads, ticket.trainable_variables)
        np.testing.assert_allclose(on_host(kernel.value), 0.95 * before[0], rtol=1e-6)
        np.testing.assert_array_equal(on_host(learned.value), before[1])


def test_espn_goes_back_with_the_optimizer():
    pruner = kt.ESPN(0.4, penalty=3.0, rewind=True, warmup=1, until=0.5)
    ticket = linear(pruner, keras.optimizers.SGD(0.1, momentum=0.9))
    iterations = []

    class Note(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            _ = self.model
            iterations.append(int(on_host(ticket.optimizer.iterations.value)))

    history = ticket.fit(X, Y, epochs=6, callbacks=[Note()], **DATA).history
    assert history["sparsity"] == pytest.approx([0, 0, *[0.4] * 4])
    searched, settled = 1, 2  # found after one epoch of search, and one of warm-up
    assert iterations[1] == iterations[settled] == 4
    assert iterations[-1] == 4 * (6 - searched) - 4
