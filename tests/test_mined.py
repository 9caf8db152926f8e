"""Tickets that are mined: scores, freezes, settling, and what is refused."""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
import pytest
import zoo
from conftest import covering
from keras import layers, ops

import keras_tickets as kt
from keras_tickets.backend import on_host
from keras_tickets.masks.optimizer_slots import innermost
from keras_tickets.pruners.early_bird import distance
from keras_tickets.recipe.schedules import Freezing, Run

MINED = {
    "gem_miner": lambda **kw: kt.GemMiner(
        **{"sparsity": 0.7, "every": 1, "seed": 1} | kw
    ),
    "edge_popup": lambda **kw: kt.EdgePopup(0.7, seed=1, **kw),
    "edge_popup_global": lambda **kw: kt.EdgePopup(0.7, "global", seed=1, **kw),
    "espn": lambda **kw: kt.ESPN(0.7, **{"penalty": 0.05} | kw),
    "str": lambda **kw: kt.STR(0.7, **{"penalty": 0.05} | kw),
}
FROZEN = ("gem_miner", "edge_popup", "edge_popup_global")


def linear(pruner, rate=0.5):
    """A ticket of one linear layer, its data, and plain SGD for everything."""
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, use_bias=False)])
    x, y = rng.normal(size=(8, 5)), rng.normal(size=(8, 3))
    ticket = kt.wrap(model, pruner)
    ticket.compile(keras.optimizers.SGD(rate), "mse", run_eagerly=True)
    return ticket, x.astype("float32"), y.astype("float32")


def gradient(x, y, kernel):
    """Return dL/dW of the mean squared error of `x @ W`."""
    return 2 * x.T @ (x @ kernel - y) / y.size


class Watch(keras.callbacks.Callback):
    """Keeps weights, masks and scores at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        ticket = self.model
        self.epochs.append(
            {
                "weights": [np.array(on_host(v.value)) for v in ticket.model.weights],
                "masks": ticket.mask_set.values(),
                "scores": [
                    np.array(on_host(m.auxiliary.variable.value))
                    for m in ticket.mask_set.masked
                ],
                "mining": bool(ticket.pruner_state.searching),
            }
        )


@functools.cache
def watched(name, epochs=6, model="sequential", optimizer="adam", **arguments):
    """Return a trained ticket and what it was like; several tests look at one run."""
    ticket = kt.wrap(zoo.build(model), MINED[name](**arguments))
    zoo.compile_for(model, ticket, keras.optimizers.get(optimizer))
    watch = Watch()
    zoo.train(model, ticket, epochs=epochs, callbacks=[watch])
    return ticket, watch.epochs


# -- the straight-through gradient, in closed form ------------------------------------


@pytest.mark.lowest
def test_scores_follow_the_gradient_straight_through_the_rounding():
    sgd = keras.optimizers.SGD(0.5)
    pruner = kt.GemMiner(
        0.5, 1, 1.0, penalty=0.01, initial="model", optimizer=sgd, seed=0
    )
    ticket, x, y = linear(pruner)
    [masked] = ticket.mask_set.masked
    weight = np.array(on_host(masked.kernel.variable.value))
    first = np.array(on_host(masked.auxiliary.variable.value))
    loss = ticket.fit(x, y, batch_size=8, epochs=2, steps_per_epoch=1, verbose=0)
    after_one = np.clip(
        first
        - 0.5 * (gradient(x, y, weight * (first > 0.5)) * weight + 2 * 0.01 * first),
        0,
        1,
    )
    kernel = weight * (after_one > 0.5)
    # The rate has fallen along the cosine: half of it in the second of two epochs.
    after_two = np.clip(
        after_one - 0.25 * (gradient(x, y, kernel) * weight + 2 * 0.01 * after_one),
        0,
        1,
    )
    np.testing.assert_allclose(
        on_host(masked.auxiliary.variable.value), after_two, atol=1e-6
    )
    np.testing.assert_array_equal(on_host(masked.kernel.variable.value), weight)
    penalty = 0.01 * (first**2).sum()
    error = ((x @ (weight * (first > 0.5)) - y) ** 2).mean()
    assert loss.history["loss"][0] == pytest.approx(error + penalty, rel=1e-5)


def test_popup_scores_follow_the_sign():
    sgd = keras.optimizers.SGD(0.5)
    pruner = kt.EdgePopup(0.6, until=1.0, initial="model", optimizer=sgd, seed=0)
    ticket, x, y = linear(pruner)
    [masked] = ticket.mask_set.masked
    weight = np.array(on_host(masked.kernel.variable.value))
    first = np.array(on_host(masked.auxiliary.variable.value))
    kept = np.abs(first) >= np.sort(np.abs(first).ravel())[-6]
    assert kept.sum() == 6
    ticket.fit(x, y, batch_size=8, epochs=1, verbose=0)
    expected = first - 0.5 * gradient(x, y, weight * kept) * weight * np.sign(first)
    np.testing.assert_allclose(
        on_host(masked.auxiliary.variable.value), expected, atol=1e-6
    )


@pytest.mark.lowest
def test_soft_threshold_in_numbers():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[-0.5], [-0.1], [0.05], [0.3]])
    ticket = kt.wrap(model, kt.STR(0.5, start=-2.0))
    ticket.pruner_state.searching.set()
    [masked] = ticket.mask_set.masked
    np.testing.assert_allclose(
        np.ravel(ops.convert_to_numpy(masked.effective())),
        [-0.3807971, 0, 0, 0.1807971],
        atol=1e-6,
    )


def search_for_an_epoch(ticket, x, y):
    """Train masks and weights together, and do not settle."""
    ticket.pruner_state.searching.set()
    ticket.start.take()
    ticket.pruner.should_stop = lambda *_: False
    ticket.pruner.finalize = lambda *_: None
    ticket.fit(x, y, batch_size=8, epochs=1, verbose=0)


def test_soft_thresholds_train_with_the_weights():
    """What the loss is worth to s: `-sum(dL/dw_eff * sign(w)) * sigmoid'(s)`."""
    ticket, x, y = linear(kt.STR(0.5, penalty=0.01, start=-2.0, until=1.0))
    [masked] = ticket.mask_set.masked
    weight = np.array(on_host(masked.kernel.variable.value))
    search_for_an_epoch(ticket, x, y)
    threshold = 1 / (1 + np.exp(2.0))
    left = np.abs(weight) > threshold
    assert 0 < left.sum() < left.size
    shrunk = np.sign(weight) * np.maximum(np.abs(weight) - threshold, 0)
    slope = gradient(x, y, shrunk) * left
    pull = -(slope * np.sign(weight)).sum() * threshold * (1 - threshold)
    np.testing.assert_allclose(
        on_host(masked.auxiliary.variable.value),
        -2 - 0.5 * (pull + 2 * 0.01 * -2.0),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        on_host(masked.kernel.variable.value), weight - 0.5 * slope, atol=1e-6
    )


def test_soft_masks_train_with_the_weights():
    ticket, x, y = linear(kt.ESPN(0.5, penalty=0.01, until=1.0))
    [masked] = ticket.mask_set.masked
    weight = np.array(on_host(masked.kernel.variable.value))
    search_for_an_epoch(ticket, x, y)
    slope = gradient(x, y, weight)
    np.testing.assert_allclose(
        on_host(masked.kernel.variable.value), weight - 0.5 * slope, atol=1e-6
    )
    np.testing.assert_allclose(
        on_host(masked.auxiliary.variable.value),
        1 - 0.5 * (slope * weight + 0.01),
        atol=1e-6,
    )


# -- mining, settling, training --------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    covering(
        FROZEN,
        quick=("gem_miner", "edge_popup"),
        elsewhere=("gem_miner", "edge_popup"),
        lowest=("gem_miner",),
    ),
)
def test_weights_stay_while_mining_and_scores_afterwards(name):
    ticket, epochs = watched(name)
    mining = [epoch["mining"] for epoch in epochs]
    assert mining == [True, True, False, False, False, False]
    first = epochs[0]["weights"]
    kernels = [i for i, v in enumerate(ticket.model.weights) if len(v.shape) > 1]
    for epoch in epochs[:3]:  # the third settles at its end
        for i in kernels:
            np.testing.assert_array_equal(epoch["weights"][i], first[i])
    assert any((epochs[-1]["weights"][i] != first[i]).any() for i in kernels)
    for old, new in zip(epochs[0]["scores"], epochs[1]["scores"], strict=True):
        assert (old != new).any()
    for old, new in zip(epochs[2]["scores"], epochs[-1]["scores"], strict=True):
        np.testing.assert_array_equal(old, new)
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)
    for masked in ticket.mask_set.masked:
        dropped = ~np.array(on_host(masked.mask.value))
        assert not ops.convert_to_numpy(masked.effective())[dropped].any()
    # What the scores cost is no part of the loss any more.
    plain = ticket.strip()
    zoo.compile_for("sequential", plain)
    data = zoo.images(), zoo.labels()
    loss = ticket.evaluate(*data, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(
        plain.evaluate(*data, verbose=0, return_dict=True)["loss"]
    )


def test_survivors_start_from_signed_constants():
    ticket, _ = watched("gem_miner")
    kernels = {id(k.variable): k for k in ticket.kernels}
    for variable, start in zip(
        ticket.start.variables, ticket.start.values(), strict=True
    ):
        if id(variable) in kernels:
            fan_in = start.size // start.shape[-1]
            np.testing.assert_allclose(np.abs(start), np.sqrt(2 / fan_in), rtol=1e-6)


@pytest.mark.backend_independent
@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("initial", ["signed_constant", "model"])
def test_popups_scale_their_weights_to_what_is_kept(allocation, initial):
    """`sqrt(2 / (k fan_in))` for signed constants; `k` of 24 and 8 weights: 3 in 4."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Dense(2)])
    pruner = kt.EdgePopup(0.25, allocation, initial=initial, scale_fan=True)
    ticket = kt.wrap(model, pruner)
    before = [np.array(on_host(k.variable.value)) for k in ticket.kernels]
    pruner.start_search(ticket)
    for kernel, value in zip(ticket.kernels, before, strict=True):
        if initial == "signed_constant":
            value = np.sign(value) * np.sqrt(2 / kernel.shape[0])
        np.testing.assert_allclose(
            on_host(kernel.variable.value), value / np.sqrt(0.75), rtol=1e-6
        )


@pytest.mark.backend_independent
def test_masks_only_lose_weights_and_scores_stay_in_the_unit_interval():
    _, epochs = watched("gem_miner", epochs=10, penalty=0.01)
    for epoch in epochs:
        assert all(s.min() >= 0 and s.max() <= 1 for s in epoch["scores"])
    for old, new in itertools.pairwise(epochs):
        for before, after in zip(old["masks"], new["masks"], strict=True):
            assert not (after & ~before).any()


def test_the_highest_scores_are_kept_exactly():
    ticket, epochs = watched("gem_miner")
    kept = np.concatenate([m.ravel() for m in ticket.mask_set.values()])
    score = np.concatenate([s.ravel() for s in epochs[-1]["scores"]])
    assert score[kept].min() >= score[~kept].max()


@pytest.mark.backend_independent
def test_without_revival_what_rounds_to_zero_is_dropped():
    ticket, epochs = watched("gem_miner", sparsity=0.2, revive=False, penalty=0.02)
    for mask, score in zip(ticket.mask_set.values(), epochs[-1]["scores"], strict=True):
        assert not mask[score <= 0.5].any()
    target = ticket.pruner.target(ticket.mask_set)
    assert ticket.mask_set.count().kept < target.kept


@pytest.mark.filterwarnings("ignore:.*rounded every score.*")
def test_an_emptied_network_settles_at_once():
    ticket = kt.wrap(zoo.build("sequential"), MINED["gem_miner"](penalty=10.0))
    zoo.compile_for("sequential", ticket)
    watch = Watch()
    with pytest.warns(UserWarning, match=r"penalty \(10\).*Lower penalty="):
        zoo.train("sequential", ticket, epochs=8, callbacks=[watch])
    assert [epoch["mining"] for epoch in watch.epochs] == [False] * 8
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)


@pytest.mark.parametrize("name", ["espn", "str"])
@pytest.mark.filterwarnings("ignore:Mining ended")
@pytest.mark.lowest
@pytest.mark.filterwarnings("ignore:.*will not find its ticket in this run")
def test_settling_does_not_change_the_network(name):
    """Before training goes on, the settled network is the mined one, masked."""
    ticket = kt.wrap(zoo.build("sequential"), MINED[name](until=1.0))
    zoo.compile_for("sequential", ticket)
    finalize, outputs = ticket.pruner.finalize, []
    x = zoo.images()[:8]

    def spy(_):
        outputs.append(ops.convert_to_numpy(ticket(x)))
        finalize(ticket)

    ticket.pruner.finalize = spy
    zoo.train("sequential", ticket, epochs=2)
    np.testing.assert_allclose(ops.convert_to_numpy(ticket(x)), outputs[0], atol=1e-5)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ticket.strip()(x)), ops.convert_to_numpy(ticket(x))
    )
    for start, variable in zip(
        ticket.start.values(), ticket.model.weights, strict=True
    ):
        np.testing.assert_array_equal(start, on_host(variable.value))


@pytest.mark.parametrize("name", covering(["espn", "str"], quick=["espn"]))
def test_found_early_when_the_budget_is_reached(name):
    strong = {"espn": {"penalty": 5.0}, "str": {"penalty": 1.0, "start": -2.0}}[name]
    ticket, epochs = watched(
        name, epochs=20, until=0.95, optimizer=keras.optimizers.Adam(0.05), **strong
    )
    assert not epochs[-3]["mining"]
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)


@pytest.mark.parametrize(
    "name", covering(["espn", "str"], quick=["str"], elsewhere=["str"])
)
@pytest.mark.filterwarnings("ignore:.*will not find its ticket in this run")
def test_an_early_end_is_told(name):
    ticket = kt.wrap(zoo.build("sequential"), MINED[name](penalty=1e-9))
    zoo.compile_for("sequential", ticket)
    with pytest.warns(UserWarning, match=r"Mining ended before.*of 0\.7.*penalty="):
        zoo.train("sequential", ticket, epochs=2)
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)


@pytest.mark.filterwarnings("ignore:Mining ended")
@pytest.mark.backend_independent
@pytest.mark.filterwarnings("ignore:.*will not find its ticket in this run")
def test_espn_rewinds_to_the_end_of_its_warm_up():
    ticket, epochs = watched("espn", rewind=True, warmup=1, until=1.0, epochs=3)
    assert [epoch["mining"] for epoch in epochs] == [False, True, False]
    for start, then in zip(ticket.start.values(), epochs[0]["weights"], strict=True):
        np.testing.assert_array_equal(start, then)


@pytest.mark.backend_independent
@pytest.mark.slow
def test_phases_by_themselves():
    ticket = kt.wrap(zoo.build("sequential"), MINED["gem_miner"](until=1.0))
    zoo.compile_for("sequential", ticket)
    zoo.train("sequential", ticket, epochs=3)
    start, masks = ticket.start.values(), ticket.mask_set.values()
    for value, variable in zip(start, ticket.start.variables, strict=True):
        if len(variable.shape) > 1:
            np.testing.assert_array_equal(value, on_host(variable.value))
    zoo.compile_for("sequential", ticket, keras.optimizers.SGD(0.1))
    assert isinstance(ticket.optimizer, keras.optimizers.SGD)
    zoo.train("sequential", ticket, epochs=2)
    for before, after in zip(masks, ticket.mask_set.values(), strict=True):
        np.testing.assert_array_equal(before, after)
    changed = [
        (value != on_host(variable.value)).any()
        for value, variable in zip(start, ticket.start.variables, strict=True)
    ]
    assert any(changed)


@pytest.mark.parametrize(
    "stop", covering([1, 4], quick=[1, 4], elsewhere=[1], lowest=[1])
)
def test_saved_and_loaded_goes_on_where_it_was(stop, tmp_path):
    """In either phase, with both optimizers' state."""
    keras.utils.set_random_seed(0)
    ticket = kt.wrap(zoo.build("sequential"), MINED["gem_miner"]())
    zoo.compile_for("sequential", ticket, **zoo.COMPILED)
    x, y = zoo.images(), zoo.labels()
    run = {"epochs": 6, "batch_size": 16, "verbose": 0, "shuffle": False}

    class Save(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch + 1 == stop:
                self.model.save(tmp_path / "ticket.keras")

    ticket.fit(x, y, callbacks=[Save()], **run)
    again = keras.models.load_model(tmp_path / "ticket.keras")
    again.fit(x, y, initial_epoch=stop, **run)
    for one, two in zip(ticket.weights, again.weights, strict=True):
        np.testing.assert_array_equal(on_host(one.value), on_host(two.value))


# -- two phases -----------------------------------------------------------------------


@pytest.mark.lowest
def test_a_closed_gate_moves_nothing():
    ticket, x, y = linear(kt.GemMiner(0.5, 1, 0.5, seed=0), rate=0.5)
    split = innermost(ticket.optimizer)
    ticket.fit(x, y, epochs=4, batch_size=4, verbose=0)
    iterations = [
        int(on_host(o.iterations.value)) for o in (split.scores, split.weights)
    ]
    assert iterations == [4, 4]  # of 8 steps
    assert int(on_host(split.iterations.value)) == 8


def test_callbacks_change_the_learning_rate_of_the_weights():
    ticket, x, y = linear(kt.GemMiner(0.5, 1, 0.5, seed=0))
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.25)
    ticket.fit(x, y, epochs=4, verbose=0, callbacks=[schedule])
    split = innermost(ticket.optimizer)
    assert float(on_host(split.weights.learning_rate.value)) == 0.25
    assert float(on_host(split.scores.learning_rate.value)) < 0.1


@pytest.mark.parametrize(
    "scaled",
    covering([False, True], quick=[True], elsewhere=[True], lowest=[True]),
)
def test_loss_scaling_around_two_optimizers(scaled):
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)
    ticket = kt.wrap(zoo.build("sequential"), MINED["gem_miner"]())
    zoo.compile_for("sequential", ticket, optimizer)
    zoo.train("sequential", ticket, epochs=4)
    assert isinstance(ticket.optimizer, keras.optimizers.LossScaleOptimizer) == scaled
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)


@pytest.mark.backend_independent
def test_a_ticket_that_is_being_mined_is_not_saved_or_challenged(tmp_path):
    ticket = kt.wrap(zoo.build("sequential"), MINED["gem_miner"]())
    zoo.compile_for("sequential", ticket)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    with pytest.warns(UserWarning, match="GemMiner is not done"):
        zoo.train("sequential", ticket, epochs=6, callbacks=[Stop()])
    assert "being mined" in kt.summary(ticket, print_fn=None)
    with pytest.raises(ValueError, match="is being mined"):
        ticket.save_ticket(tmp_path / "early.ticket.npz")
    with pytest.raises(ValueError, match="is being mined"):
        kt.challenge(ticket, lambda one: 0.0)
    zoo.train("sequential", ticket, epochs=6, initial_epoch=2)
    ticket.save_ticket(tmp_path / "mined.ticket.npz")
    again = kt.load_ticket(tmp_path / "mined.ticket.npz", zoo.build("sequential"))
    for mask, saved in zip(
        ticket.mask_set.values(), again.mask_set.values(), strict=True
    ):
        np.testing.assert_array_equal(mask, saved)
    for value, start in zip(ticket.start.values(), again.model.weights, strict=True):
        np.testing.assert_array_equal(value, on_host(start.value))


# -- schedules -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "published", "ours"),
    [(0.0372, 9977, 9982), (0.0144, 3861, 3864), (0.0059, 1580, 1583)],
)
@pytest.mark.backend_independent
def test_freezing_follows_the_published_recursion(kept, published, ours):
    """ResNet-20, 150 epochs, period 5; the last freeze takes the remainder."""
    total, number = 268_336, 29
    run, freezing = Run(150, None), Freezing(5, 1.0)
    begin, end = freezing.span(run)
    times = [begin + 5 * i for i in range(1, number + 1)]
    assert (times[0], times[-1], end) == (6, 146, 146)
    rate = 1 - kept ** (1 / number)
    alive, counts = total, []
    for time in times:
        alive -= int(np.ceil(rate * alive))
        counts.append(total - round(total * freezing.value(time, 1 - kept, run)))
        assert 0 <= counts[-1] - alive <= number
        assert freezing.due(time - 1, time, run)
        assert not freezing.due(time, time + 4, run)
    assert (alive, counts[-1]) == (published, ours)


@pytest.mark.backend_independent
def test_rounds_keep_four_fifths():
    pruner = kt.IMP(0.9)
    run, n = Run(24, 10), 100_000
    assert (pruner.pruned, pruner.schedule.number) == (11, 11)
    kept = [
        n - round(n * pruner.schedule.value(20 * i, 0.9, run)) for i in range(1, 12)
    ]
    assert kept == [round(n * 0.8**i) for i in range(1, 11)] + [10_000]


@pytest.mark.backend_independent
def test_mask_distance():
    a, b = (np.array(list(bits)) for bits in ("1100101101", "1001101101"))
    assert distance(a, b) == distance(b, a) == 0.2
    assert distance(a, a) == 0


# -- IMP -------------------------------------------------------------------------------


def imp(optimizer, epochs=6, **arguments):
    keras.utils.set_random_seed(1)
    ticket = kt.wrap(
        zoo.build("sequential"), kt.IMP(0.36, **{"fraction": 0.2} | arguments)
    )
    zoo.compile_for("sequential", ticket, optimizer)
    states = []

    class Rounds(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:  # what the last one has left, the end of its round included
                self.look()

        def on_train_end(self, logs=None):
            self.look()

        def look(self):
            _ = self.model
            states.append(
                (
                    [np.array(on_host(v.value)) for v in ticket.model.weights],
                    ticket.mask_set.values(),
                    [
                        np.array(on_host(v.value))
                        for v in ticket.pruner_state.rewind.variables
                    ],
                )
            )

    history = ticket.fit(
        zoo.images(),
        zoo.labels(),
        batch_size=16,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[Rounds()],
    )
    return ticket, states, history.history


@pytest.mark.lowest
def test_imp_goes_back_to_the_initial_state():
    decay = keras.optimizers.schedules.CosineDecay(1e-2, 8)
    ticket, states, history = imp(keras.optimizers.Adam(decay))
    assert history["round"] == [1, 1, 2, 2, 3, 3]
    for end_of_round in (1, 3):
        weights, _, optimizer = states[end_of_round]
        for value, start in zip(weights, ticket.start.values(), strict=True):
            np.testing.assert_array_equal(value, start)
        for value, start in zip(
            optimizer, ticket.pruner_state.rewind.values(), strict=True
        ):
            np.testing.assert_array_equal(value, start)
    total = ticket.mask_set.count().total
    kept = [sum(int(m.sum()) for m in states[i][1]) for i in (0, 1, 3)]
    assert kept == [total, round(0.8 * total), total - round(0.36 * total)]
    for before, after in zip(states[1][1], states[3][1], strict=True):
        assert not (after & ~before).any()
    # The last round trains, and stays where it is.
    assert any(
        (a != b).any()
        for a, b in zip(states[-1][0], ticket.start.values(), strict=True)
    )


def test_imp_rounds_without_pruning_repeat_each_other():
    """With nothing dropped, each round is the first one over again, bit by bit."""

    class Nothing(kt.IMP):
        def update(self, masks, sparsity, verbose=0):
            return None

    keras.utils.set_random_seed(1)
    ticket = kt.wrap(zoo.build("sequential"), Nothing(0.36, fraction=0.2))
    decay = keras.optimizers.schedules.CosineDecay(1e-2, 8)
    zoo.compile_for("sequential", ticket, keras.optimizers.Adam(decay))
    with pytest.warns(UserWarning, match="missed its target"):
        history = ticket.fit(
            zoo.images(),
            zoo.labels(),
            batch_size=16,
            epochs=6,
            shuffle=False,
            verbose=0,
        ).history["loss"]
    assert history[:2] == history[2:4] == history[4:]


@pytest.mark.backend_independent
def test_imp_rewinds_to_a_later_step():
    ticket, states, _ = imp(keras.optimizers.SGD(0.05), rewind_to=1, epochs=7)
    # One epoch, then rounds of two.
    for value, start in zip(states[0][0], ticket.start.values(), strict=True):
        np.testing.assert_array_equal(value, start)
    for value, start in zip(states[2][0], ticket.start.values(), strict=True):
        np.testing.assert_array_equal(value, start)


@pytest.mark.backend_independent
@pytest.mark.slow
def test_imp_rewinds_the_learning_rate_alone():
    ticket, states, _ = imp(keras.optimizers.Adam(0.01), rewind="learning_rate")
    weights, _, optimizer = states[1]
    assert any(
        (a != b).any() for a, b in zip(weights, ticket.start.values(), strict=True)
    )
    for value, start in zip(
        optimizer, ticket.pruner_state.rewind.values(), strict=True
    ):
        np.testing.assert_array_equal(value, start)


@pytest.mark.backend_independent
@pytest.mark.slow
def test_a_finished_imp_is_left_alone():
    ticket, _, _ = imp(keras.optimizers.Adam(0.01))
    masks = ticket.mask_set.values()
    before = [np.array(on_host(v.value)) for v in ticket.model.weights]
    zoo.train("sequential", ticket, epochs=6)
    for old, new in zip(masks, ticket.mask_set.values(), strict=True):
        np.testing.assert_array_equal(old, new)
    starts = zip(before, ticket.model.weights, strict=True)
    assert any((old != on_host(new.value)).any() for old, new in starts)


# -- Early-Bird ------------------------------------------------------------------------


def bird(**arguments):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, use_bias=False, name="first"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(6, 3, name="second"),
            layers.BatchNormalization(scale=False),
            layers.ReLU(),
            layers.Conv2D(16, 1, name="third"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(zoo.CLASSES),
        ]
    )
    ticket = kt.wrap(model, kt.EarlyBird(0.5, **arguments))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ticket.compile(keras.optimizers.SGD(0.01), loss)
    return ticket


@pytest.mark.lowest
def test_early_bird_drops_whole_channels_of_least_scale():
    ticket = bird(distance=0.5)
    gammas = [ticket.model.layers[i].gamma for i in (1, 7)]
    rng = np.random.default_rng(0)
    for gamma in gammas:
        gamma.assign(rng.permutation(gamma.shape[0]) + 1.0)
    history = ticket.fit(zoo.images(), zoo.labels(), epochs=20, verbose=0).history
    assert len(history["mask_distance"]) == 20
    assert [s > 0 for s in history["sparsity"]] == [False] * 5 + [True] * 15
    first, second, third, head = ticket.mask_set.values()
    assert second.all()
    assert head.all()
    for mask in (first, third):
        channels = mask.reshape(-1, mask.shape[-1])
        assert (channels.all(0) | ~channels.any(0)).all()
    dropped = 1 - (first.sum() + third.sum()) / (first.size + third.size)
    assert abs(dropped - 0.5) <= 27 / (first.size + third.size)
    scales = np.abs(on_host(gammas[0].value))
    kept = first.reshape(-1, first.shape[-1]).all(0)
    assert scales[kept].min() > scales[~kept].max()


@pytest.mark.backend_independent
@pytest.mark.slow
def test_early_bird_says_when_it_was_late():
    ticket = bird()
    with pytest.warns(UserWarning, match=r"before the last 5 masks agreed"):
        ticket.fit(zoo.images(), zoo.labels(), epochs=4, verbose=0)
    assert ticket.sparsity > 0


# -- bad input -------------------------------------------------------------------------


@pytest.fixture
def preset(monkeypatch):
    """A preset for any small network."""
    toy = kt.presets.Architecture("toy", (1, 9), (1, 10**6))
    monkeypatch.setitem(kt.presets.ARCHITECTURES, "resnet20", toy)
    return kt.presets.get("resnet20", 0.8)


@pytest.mark.backend_independent
def test_presets_without_scale_and_shift(preset):
    inner = keras.Sequential([keras.Input((5,)), layers.BatchNormalization()])
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5), inner])
    norm = inner.layers[0]
    norm.moving_mean.assign([1.0, 2, 3, 4, 5])
    ticket = preset.wrap(model, affine=False)
    own = ticket.model.layers[1].layers[0]
    assert (own.scale, own.center) == (False, False)
    assert (norm.scale, norm.center) == (True, True)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(ticket(x), model(x))
    assert ticket.kernels[0].variable is not model.layers[0].kernel
    assert preset.wrap(model).model is model
    norm.gamma.assign([1.0, 2, 1, 1, 1])
    with pytest.raises(ValueError, match=rf"{norm.name!r}.*scale other than one"):
        preset.wrap(model, affine=False)


@pytest.mark.backend_independent
def test_presets_with_norms_made_in_code_are_refused(preset):
    class Block(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.norm = layers.BatchNormalization(name="inside")

        def build(self, shape):
            self.norm.build(shape)

        def call(self, x):
            return self.norm(x)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(5), Block()])
    with pytest.raises(ValueError, match=r"'inside'.*made in code"):
        preset.wrap(model, affine=False)


def test_scores_without_a_wrapper_that_holds_them():
    pruner = kt.pruners.Pruner(0.5, "learned")
    ticket = kt.wrap(zoo.build("sequential"), pruner)
    with pytest.raises(ValueError, match=r"holds none.*kt\.wrap\(model, kt\.GemMiner"):
        ticket.draw()


def test_mined_on_masked_layers_is_refused():
    dense = kt.Masked(layers.Dense(4, name="inner"))
    model = keras.Sequential([keras.Input((8,)), dense])
    with pytest.raises(ValueError, match=r"GemMiner.*masked_inner.*without Masked"):
        kt.wrap(model, kt.GemMiner(0.5))
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"kt\.wrap\(model, kt\.GemMiner"):
        model.fit(
            np.ones((8, 8)), np.ones((8, 4)), callbacks=[kt.GemMiner()], verbose=0
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kt.GemMiner(0.5, until=0), r"until.*\(0, 1\]"),
        (lambda: kt.GemMiner(0.5, every=0), r"every must be positive"),
        (lambda: kt.GemMiner(0.5, norm="l3"), r"norm must be one of \['l1', 'l2'\]"),
        (lambda: kt.GemMiner(0.5, initial="ones"), r"signed_constant"),
        (lambda: kt.IMP(0.0), r"\(0, 1\)"),
        (lambda: kt.IMP(0.5, fraction=1.0), r"fraction must lie in \(0, 1\)"),
        (lambda: kt.IMP(0.5, rewind="masks"), r"rewind must be one of"),
        (lambda: kt.EarlyBird(0.5, window=1), r"at least 2"),
        (lambda: kt.EarlyBird(0.5, distance=1.0), r"distance must lie in"),
        (lambda: kt.presets.get("resnet56", 0.9), r"no preset for 'resnet56'"),
        (lambda: kt.presets.get("vgg16", 0.9), r"Nothing was published.*0\.995"),
        (
            lambda: kt.presets.get("resnet20", 0.9856).wrap(zoo.build("sequential")),
            r"for ResNet-20, with 20 to 22 prunable kernels.*has \d+ of",
        ),
        (lambda: kt.wrap(zoo.build("sequential"), "gem_miner").draw(), r"call fit"),
        (
            lambda: kt.wrap(zoo.build("sequential"), "early_bird"),
            r"none with a scale comes straight",
        ),
    ],
)
@pytest.mark.backend_independent
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("pruner", "epochs", "message"),
    [
        (lambda: kt.GemMiner(0.5, every=5), 4, r"Mining takes 2 of 4 epochs.*every="),
        (lambda: kt.IMP(0.5, rewind_to=3), 3, r"not before the end.*3 epochs of 4"),
        (lambda: kt.IMP(0.5, rewind_to=99, unit="steps"), 3, r"99 steps"),
        (lambda: kt.GemMiner(0.999, every=1), 4, r"at least \d"),
        (lambda: kt.IMP(0.999), 100, r"at least \d"),
        (lambda: kt.ESPN(0.5, warmup=2), 4, r"warmup=2 epochs leave nothing of the 2"),
    ],
)
@pytest.mark.backend_independent
def test_bad_runs(pruner, epochs, message):
    ticket = kt.wrap(zoo.build("sequential"), pruner())
    zoo.compile_for("sequential", ticket)
    before = [np.array(on_host(v.value)) for v in ticket.model.weights]
    with pytest.raises(ValueError, match=message):
        zoo.train("sequential", ticket, epochs=epochs)
    for old, new in zip(before, ticket.model.weights, strict=True):
        np.testing.assert_array_equal(old, on_host(new.value))


@pytest.mark.lowest
def test_moving_averages_of_two_phases_are_refused():
    ticket = kt.wrap(zoo.build("sequential"), "gem_miner")
    with pytest.raises(ValueError, match=r"use_ema=True averages over both phases"):
        ticket.compile(keras.optimizers.Adam(use_ema=True), "mse")


@pytest.mark.backend_independent
def test_the_old_name_of_the_base_class_warns():
    with pytest.warns(DeprecationWarning, match="LearnedMaskPruner"):
        assert kt.pruners.Mined is kt.pruners.LearnedMaskPruner
