"""Masks that move: one update by hand, gradients, slots, and what is refused."""

from __future__ import annotations

import hashlib
import math

import keras
import numpy as np
import pytest
import zoo
from conftest import covering
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_tickets as kt
from keras_tickets import growth as growths
from keras_tickets.backend import on_host
from keras_tickets.masks import optimizer_slots
from keras_tickets.recipe.groups import WeightGroups
from keras_tickets.recipe.selection import exchange, exchange_by_sign

BACKEND = keras.backend.backend()


# -- one update ----------------------------------------------------------------------


def by_hand(worth, wanted, alive, number):
    """Return which entries live after an exchange, by plain sorting."""
    order = sorted(np.flatnonzero(alive), key=lambda i: -worth[i])
    kept = set(order[: len(order) - number])
    free = sorted(set(range(len(alive))) - kept, key=lambda i: -wanted[i])
    return kept | set(free[:number])


@given(st.data())
@settings(max_examples=100, deadline=None)
@pytest.mark.backend_independent
def test_exchange_drops_the_least_and_grows_the_most_wanted(data):
    size = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    worth, wanted = rng.permutation(size), rng.permutation(size)
    alive = rng.random(size) < data.draw(st.floats(0, 1))
    fraction = data.draw(st.floats(0, 1))
    number = math.floor(fraction * int(alive.sum()))
    new = exchange(worth, wanted, alive, fraction, WeightGroups.single((size,)))
    assert (new is alive) == (number == 0)
    assert set(np.flatnonzero(new)) == by_hand(worth, wanted, alive, number)


@given(st.integers(0, 2**16), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
@pytest.mark.backend_independent
def test_exchange_holds_the_number_under_ties(seed, size):
    rng = np.random.default_rng(seed)
    worth, wanted = rng.integers(0, 2, (2, size)).astype("float32")
    alive = rng.random(size) < 0.5
    number = int(alive.sum()) // 2
    new = exchange(worth, wanted, alive, 0.5, WeightGroups.single((size,)))
    assert new.sum() == alive.sum()
    kept = new & alive
    assert worth[kept].sum() >= worth[alive].sum() - number


class Spy(keras.callbacks.Callback):
    """Keeps weights, masks, gradients and slots before and after each step's end."""

    def __init__(self, ticket):
        super().__init__()
        self.ticket = ticket
        self.states: list[list[dict]] = []

    def state(self) -> list[dict]:
        _ = self.model
        copy = ops.convert_to_numpy
        return [
            {
                "weight": copy(m.kernel.variable.value),
                "mask": copy(m.mask.value),
                "gradient": m.auxiliary and copy(m.auxiliary.variable.value),
                "slots": [
                    (copy(s.variable.value), np.full(s.variable.shape, s.initial()))
                    for s in self.ticket.pruner_state.slots.of(m.kernel.variable)
                ],
            }
            for m in self.ticket.mask_set.masked
        ]

    def on_train_batch_end(self, batch, logs=None):
        self.states.append(self.state())


class Before(kt.RigL):
    """RigL that keeps what it saw before each update."""

    def _move(self, step, fraction):
        self.seen = Spy.state(self.spy)
        super()._move(step, fraction)
        self.then = Spy.state(self.spy)


def one_update(optimizer, **compiling):
    """Train for two steps, with one update after the first; return before, after."""
    pruner = Before(0.6, "uniform", update_every=1, until=1.0, seed=3)
    ticket = kt.wrap(zoo.build("sequential"), pruner)
    zoo.compile_for("sequential", ticket, optimizer, **compiling)
    pruner.spy = Spy(ticket)
    pruner.spy.set_model(ticket)
    ticket.fit(zoo.images()[:32], zoo.labels()[:32], batch_size=16, verbose=0)
    return pruner.seen, pruner.then, pruner.fraction(0.5)


def make_optimizer(name):
    learning = {"learning_rate": 1e-2}
    return {
        "momentum": lambda: keras.optimizers.SGD(momentum=0.9, **learning),
        "adam": lambda: keras.optimizers.Adam(amsgrad=True, **learning),
        "adamw": lambda: keras.optimizers.AdamW(clipnorm=0.1, **learning),
        "lion": lambda: keras.optimizers.Lion(**learning),
        "rmsprop": lambda: keras.optimizers.RMSprop(**learning),
        "adagrad": lambda: keras.optimizers.Adagrad(**learning),
        "nadam": lambda: keras.optimizers.Nadam(**learning),
        "scaled": lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(**learning), initial_scale=8.0
        ),
    }[name]()


SLOTS = {"momentum": 1, "adam": 3, "lion": 1, "adagrad": 1, "scaled": 2}


@pytest.mark.parametrize(
    "name",
    covering(
        ["momentum", "adam", "adamw", "lion", "rmsprop", "adagrad", "nadam", "scaled"],
        quick=["momentum", "adam", "lion", "adagrad", "scaled"],
        elsewhere=["momentum", "adam", "scaled"],
        lowest=["adam", "scaled"],
    ),
)
def test_one_update(name):
    compiling = zoo.COMPILED if name in ("adam", "scaled") else {}
    before, after, fraction = one_update(make_optimizer(name), **compiling)
    pairs = list(zip(before, after, strict=True))
    assert any((old["mask"] != new["mask"]).any() for old, new in pairs)
    for old, new in pairs:
        number = int(fraction * old["mask"].sum())
        expected = by_hand(
            np.abs(old["weight"]).ravel(),
            np.abs(old["gradient"]).ravel(),
            old["mask"].ravel(),
            number,
        )
        assert set(np.flatnonzero(new["mask"])) == expected
        grown = new["mask"] & ~old["mask"]
        assert not new["weight"][grown].any()
        np.testing.assert_array_equal(new["weight"][~grown], old["weight"][~grown])
        assert len(new["slots"]) == SLOTS.get(name, len(new["slots"])) > 0
        for (slot, initial), (then, _) in zip(new["slots"], old["slots"], strict=True):
            np.testing.assert_array_equal(slot[grown], initial[grown])
            np.testing.assert_array_equal(slot[~grown], then[~grown])


def by_sign(weights, wanted, alive, fraction):
    """Return which entries live when each sign drops its own, by plain sorting."""
    kept = set()
    for sign in (1, -1):
        own = [i for i in np.flatnonzero(alive) if sign * weights[i] > 0]
        own.sort(key=lambda i: -sign * weights[i])
        kept |= set(own[: len(own) - int(fraction * len(own))])
    free = sorted(set(range(len(alive))) - kept, key=lambda i: -wanted[i])
    return kept | set(free[: int(alive.sum()) - len(kept)])


@pytest.mark.backend_independent
@given(st.integers(0, 2**16), st.integers(1, 30), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_each_sign_drops_its_own(seed, size, fraction):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=size) * rng.integers(0, 2, size)
    wanted, alive = rng.permutation(size), rng.random(size) < 0.6
    new = exchange_by_sign(weights, wanted, alive, fraction)
    assert set(np.flatnonzero(new)) == by_sign(weights, wanted, alive, fraction)
    assert new.sum() == alive.sum()


@pytest.mark.backend_independent
@pytest.mark.parametrize("drop", ["magnitude", "sign"])
def test_an_update_at_the_start(drop):
    """After the first step, by all of `drop_fraction`; and then none for long."""

    class Seen(kt.SET):
        moves = ()

        def _move(self, step, fraction):
            before = [(on_host(m.kernel.variable.value) + 0, m) for m in masks()]
            old = [on_host(m.mask.value) + 0 > 0 for m in masks()]
            super()._move(step, fraction)
            self.moves += ((step, fraction, before, old),)

    def masks():
        return ticket.mask_set.masked

    pruner = Seen(0.5, drop_fraction=0.4, seed=1, drop=drop, update_at_start=True)
    ticket, x, y, _ = linear(pruner, optimizer=keras.optimizers.SGD(0.1))
    ticket.fit(x, y, batch_size=2, epochs=2, verbose=0)
    [(step, fraction, before, old)] = pruner.moves
    assert (step, fraction) == (1, 0.4)
    for index, ((weights, masked), alive) in enumerate(zip(before, old, strict=True)):
        wanted = pruner.growth.scores(masked, index, step).ravel()
        weights, alive = weights.ravel(), alive.ravel()
        if drop == "sign":
            expected = by_sign(weights, wanted, alive, 0.4)
        else:
            expected = by_hand(np.abs(weights), wanted, alive, int(0.4 * alive.sum()))
        assert set(np.flatnonzero(on_host(masked.mask.value))) == expected


def test_what_was_just_dropped_may_come_back_as_it_was():
    """A kernel that is full can only regrow what it drops."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    ticket = kt.wrap(model, kt.RigL(0.0, update_every=1, until=1.0))
    ticket.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    plain.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    x, y = np.ones((8, 6), "float32"), np.ones((8, 4), "float32")
    for each in (ticket, plain):
        each.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(
        on_host(model.layers[0].kernel.value), on_host(plain.layers[0].kernel.value)
    )


# -- the captured gradient -----------------------------------------------------------


def linear(pruner, **compiling):
    """Return a ticket on two linear layers, its data, its dense gradients by hand."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6)), rng.normal(size=(8, 4))
    dense = [layers.Dense(units, use_bias=False) for units in (5, 4)]
    ticket = kt.wrap(keras.Sequential([keras.Input((6,)), *dense]), pruner)
    ticket.compile(loss="mse", **{"run_eagerly": True} | compiling)
    ticket.draw()

    def gradients():
        first, second = (on_host(m.effective()) for m in ticket.mask_set.masked)
        error = 2 * (x @ first @ second - y) / y.size
        return [x.T @ error @ second.T, (x @ first).T @ error]

    return ticket, x.astype("float32"), y.astype("float32"), gradients


def captured(ticket):
    return [on_host(m.auxiliary.variable.value) for m in ticket.mask_set.masked]


@pytest.mark.parametrize(
    ("optimizer", "factor"),
    [
        (lambda: keras.optimizers.SGD(0.1), 1),
        (lambda: keras.optimizers.SGD(0.1, clipnorm=1e-3), 1),
        (lambda: keras.optimizers.Adam(0.1, global_clipnorm=1e-3), 1),
        (
            lambda: keras.optimizers.LossScaleOptimizer(
                keras.optimizers.SGD(0.1), initial_scale=8.0
            ),
            8,
        ),
    ],
)
@pytest.mark.lowest
def test_the_capture_is_the_dense_gradient_of_each_step(optimizer, factor):
    compiling = zoo.COMPILED if factor > 1 else {}
    pruner = kt.RigL(0.5, seed=1)
    ticket, x, y, gradients = linear(pruner, optimizer=optimizer(), **compiling)
    for _ in range(3):
        expected = gradients()
        ticket.train_on_batch(x, y)
        for held, one in zip(captured(ticket), expected, strict=True):
            np.testing.assert_allclose(held, factor * one, rtol=1e-4, atol=1e-6)


@pytest.mark.lowest
def test_the_momentum_is_the_running_average_of_dense_gradients():
    ticket, x, y, gradients = linear(
        kt.SNFS(0.5, momentum=0.75, seed=1), optimizer=keras.optimizers.SGD(0.1)
    )
    average = [0.0, 0.0]
    for _ in range(5):
        pairs = zip(average, gradients(), strict=True)
        average = [0.75 * before + 0.25 * now for before, now in pairs]
        ticket.train_on_batch(x, y)
        for held, one in zip(captured(ticket), average, strict=True):
            np.testing.assert_allclose(held, one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("pruner", "share"), [(kt.RigL(0.0), 1.0), (kt.SNFS(0.0, momentum=0.75), 0.25)]
)
def test_a_gradient_that_overflowed_once_is_forgotten(pruner, share):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, use_bias=False)])
    ticket = kt.wrap(model, pruner)
    ticket.compile(keras.optimizers.SGD(0.1, clipvalue=1.0), "mse")
    x, y = np.ones((1, 4), "float32"), np.ones((1, 3), "float32")
    with pytest.warns(UserWarning, match="trained, but never pruned"):
        ticket.train_on_batch(3e38 * x, y)
    assert not np.isfinite(captured(ticket)[0]).any()
    [masked] = ticket.mask_set.masked
    error = 2 * (x @ on_host(masked.effective()) - y) / y.size
    ticket.train_on_batch(x, y)
    assert np.isfinite(on_host(masked.kernel.variable.value)).all()
    np.testing.assert_allclose(captured(ticket)[0], share * x.T @ error, rtol=1e-4)


class Stop(keras.callbacks.Callback):
    """Ends training after the first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.parametrize(
    "pruner", [kt.RigL, pytest.param(kt.SNFS, marks=pytest.mark.backend_independent)]
)
@pytest.mark.filterwarnings("ignore:.*stopped before the first update")
def test_weights_train_as_without_a_capture(pruner):
    """Bit-equal to a static ticket until the first update, in the second epoch."""

    weights = []
    for one in (kt.Static(0.5, seed=5), pruner(0.5, update_every=7, seed=5)):
        ticket = kt.wrap(zoo.build("functional"), one)
        zoo.compile_for("functional", ticket)
        zoo.train("functional", ticket, epochs=3, callbacks=[Stop()])
        weights.append(ticket.model.get_weights())
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


# -- the whole run -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    covering(
        # The steps of a recurrent layer are a loop, which JAX and TensorFlow trace by
        # themselves.
        ["transformer", "recurrent", "shared", "subclassed"],
        quick=["recurrent", "shared", "subclassed"],
        elsewhere=["recurrent", "subclassed"],
        lowest=["recurrent"],
    ),
)
def test_any_model(name):
    ticket = kt.wrap(zoo.build(name), kt.RigL(0.5, update_every=1, seed=2))
    zoo.compile_for(name, ticket, **zoo.COMPILED)
    ticket.draw()
    before = ticket.mask_set.values()
    zoo.train(name, ticket)
    after = ticket.mask_set.values()
    assert [m.sum() for m in before] == [m.sum() for m in after]
    # A kernel that is full has nowhere else to grow.
    assert all(a.all() or (a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.skipif(BACKEND == "torch", reason="slow, and the same code")
def test_mixed_precision_scales_the_loss_and_masks_move():
    with zoo.dtype_policy("mixed_float16"):
        model = zoo.build("nested")
    ticket = kt.wrap(model, kt.RigL(0.5, update_every=1, seed=2))
    zoo.compile_for("nested", ticket)
    assert isinstance(ticket.optimizer, keras.optimizers.LossScaleOptimizer)
    ticket.draw()
    before = ticket.mask_set.values()
    zoo.train("nested", ticket, epochs=2)
    after = ticket.mask_set.values()
    assert [m.sum() for m in before] == [m.sum() for m in after]
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_a_ticket_wrapped_again_goes_on_moving():
    ticket = kt.wrap(zoo.build("sequential"), kt.Static(0.8, seed=1))
    ticket.draw()
    start = ticket.mask_set.values()
    again = kt.wrap(ticket, kt.RigL(0.8, update_every=1))
    assert all(map(np.array_equal, start, again.mask_set.values()))
    zoo.compile_for("sequential", again)
    zoo.train("sequential", again)
    assert not all(map(np.array_equal, start, again.mask_set.values()))


@pytest.mark.lowest
def test_saved_and_loaded_goes_on(tmp_path):
    ticket = kt.wrap(zoo.build("nested"), kt.RigL(0.8, update_every=1, seed=1))
    zoo.compile_for("nested", ticket)
    zoo.train("nested", ticket)
    ticket.save(tmp_path / "ticket.keras")
    loaded = keras.models.load_model(tmp_path / "ticket.keras")
    assert loaded.pruner_state.settled
    first = zoo.train("nested", ticket)
    np.testing.assert_array_equal(first, zoo.train("nested", loaded))


@pytest.mark.parametrize(
    "pruner",
    covering([kt.RigL, kt.SNFS, kt.SET], quick=[kt.RigL, kt.SNFS], elsewhere=[kt.SNFS]),
)
def test_saved_half_way_and_loaded_goes_on(pruner, tmp_path):
    ticket = kt.wrap(zoo.build("nested"), pruner(0.8, update_every=3, seed=1))
    zoo.compile_for("nested", ticket, **zoo.COMPILED)
    zoo.train("nested", ticket, epochs=4, callbacks=[Stop()])
    ticket.save(tmp_path / "ticket.keras")
    loaded = keras.models.load_model(tmp_path / "ticket.keras")
    assert not loaded.pruner_state.settled
    before = ticket.mask_set.values()
    for one in (ticket, loaded):
        zoo.train("nested", one, epochs=4, initial_epoch=1)
    after = ticket.mask_set.values()
    assert not all(map(np.array_equal, before, after))
    assert all(map(np.array_equal, after, loaded.mask_set.values()))
    pairs = zip(ticket.model.get_weights(), loaded.model.get_weights(), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.parametrize(
    "pruner", covering([kt.RigL, kt.SET], quick=[kt.RigL], elsewhere=[kt.RigL])
)
def test_a_layer_frozen_since_it_was_wrapped_stays(pruner):
    ticket = kt.wrap(zoo.build("sequential"), pruner(0.5, update_every=1))
    ticket.draw()
    ticket.model.layers[0].trainable = False
    zoo.compile_for("sequential", ticket)
    kernels = [kernel.variable for kernel in ticket.kernels]

    def state():
        weights = [np.array(on_host(v.value)) for v in kernels]
        return list(zip(ticket.mask_set.values(), weights, strict=True))

    before = state()
    zoo.train("sequential", ticket)
    (frozen, moving), after = zip(before, state(), strict=True), state()
    assert all(map(np.array_equal, *frozen))
    assert not any(map(np.array_equal, *moving))
    assert after[0][0].any()


def test_bfloat16():
    with zoo.dtype_policy("bfloat16"):
        model = zoo.build("sequential")
    ticket = kt.wrap(model, kt.RigL(0.5, update_every=1, seed=2))
    zoo.compile_for("sequential", ticket)
    ticket.draw()
    before = ticket.mask_set.values()
    zoo.train("sequential", ticket)
    after = ticket.mask_set.values()
    assert [m.sum() for m in before] == [m.sum() for m in after]
    assert not any(map(np.array_equal, before, after))


# -- when, and what each update reads ------------------------------------------------


class Timed(kt.RigL):
    """RigL that notes its updates, and how often it reaches for its model."""

    updates: list[tuple[int, float]]
    reached = 0

    @property
    def model(self):
        self.reached += 1
        return super().model

    def _move(self, step, fraction):
        before = self._masks.values()
        super()._move(step, fraction)
        assert not all(map(np.array_equal, before, self._masks.values()))
        self.updates.append((step, fraction))


def timed(steps, **arguments):
    """Train for `steps` steps in two epochs; return the pruner."""
    pruner = Timed(0.5, seed=1, **{"until": 1.0, **arguments.pop("pruner")})
    pruner.updates = []
    ticket = kt.wrap(keras.Sequential([keras.Input((6,)), layers.Dense(200)]), pruner)
    ticket.compile("sgd", "mse", **arguments)
    ticket.draw()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(steps // 2, 6)), rng.normal(size=(steps // 2, 200))
    ticket.fit(x, y, batch_size=1, epochs=2, verbose=0)
    return pruner


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution there")
@pytest.mark.lowest
def test_updates_that_fall_between_two_looks():
    pruner = timed(24, pruner={"update_every": 4}, steps_per_execution=3)
    assert [step for step, _ in pruner.updates] == [6, 9, 12, 18, 21]


@pytest.mark.backend_independent
def test_the_drop_fraction_falls_to_zero_at_until():
    updates = timed(40, pruner={"update_every": 3, "until": 0.5}).updates
    assert [step for step, _ in updates] == [3, 6, 9, 12, 15, 18]
    expected = [0.15 * (1 + np.cos(np.pi * step / 20)) for step, _ in updates]
    np.testing.assert_allclose([fraction for _, fraction in updates], expected)


def test_the_training_state_is_read_only_when_masks_move():
    """On JAX it costs a copy of all variables, out of the step and in again."""
    pruner = timed(40, pruner={"update_every": 8})
    assert len(pruner.updates) == 4
    # Once for each update, at the end of the run, and as each of two epochs begins.
    assert pruner.reached == 4 + 1 + 2


def test_random_growth_is_new_for_each_step_and_kernel():
    [masked] = kt.wrap(zoo.build("shared"), only="twice").mask_set.masked
    growth = growths.Random(3)
    places = [
        growths.Random(seed).scores(masked, index, step)
        for seed, index, step in [(3, 0, 1), (3, 0, 2), (3, 1, 1), (4, 0, 1)]
    ]
    for i, one in enumerate(places):
        for other in places[:i]:
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.5
    np.testing.assert_array_equal(places[0], growth.scores(masked, 0, 1))


def test_set_grows_in_the_same_places_on_every_backend():
    ticket = kt.wrap(zoo.build("shared"), kt.SET(0.5, update_every=1, seed=7))
    zoo.compile_for("shared", ticket, keras.optimizers.SGD(0.0))
    rng = np.random.default_rng(0)
    for kernel in ticket.kernels:
        kernel.variable.assign(rng.normal(size=kernel.shape).astype("float32"))
    zoo.train("shared", ticket)
    digest = hashlib.sha256(b"".join(m.tobytes() for m in ticket.mask_set.values()))
    assert digest.hexdigest()[:16] == "43b3983f962ce2c6"


@pytest.mark.backend_independent
def test_the_seed_fixes_random_growth_by_name():
    seeds = [kt.pruners.Dynamic(0.5, "random", seed=s).growth.seed for s in (3, 4)]
    assert seeds == [3, 4]
    assert kt.SET(0.5, seed=5).growth.seed == 5
    free = kt.SET(0.5)
    assert free.growth.seed == free.seed
    given = kt.pruners.Dynamic(0.5, growths.Random(9), seed=3)
    assert type(given).from_config(given.get_config()).growth.seed == 9


@pytest.mark.backend_independent
def test_drop_fractions():
    at = [0, 0.25, 0.5, 0.75, 1]
    constant = kt.RigL(0.9, drop_fraction=0.2, decay="constant")
    assert [constant.fraction(t) for t in at] == [0.2] * 5
    cubic = kt.RigL(0.9, decay=kt.schedules.Polynomial(power=3))
    np.testing.assert_allclose(
        [cubic.fraction(t) for t in at], [0.3 * (1 - t) ** 3 for t in at]
    )


# -- what is refused, and what is said -----------------------------------------------


@pytest.mark.parametrize(
    ("pruner", "optimizer", "message"),
    [
        (kt.RigL, {"gradient_accumulation_steps": 4}, "gradient_accumulation_steps=4"),
        (kt.RigL, {"use_ema": True}, "use_ema"),
        (kt.SNFS, {"loss_scale_factor": 8.0}, "loss_scale_factor=8 would multiply"),
    ],
)
def test_optimizers_that_hide_the_gradient(pruner, optimizer, message):
    ticket = kt.wrap(zoo.build("sequential"), pruner(0.5))
    with pytest.raises(ValueError, match=rf"{pruner.__name__}.*{message}.*kt\.SET"):
        zoo.compile_for("sequential", ticket, keras.optimizers.SGD(0.1, **optimizer))
    assert not ticket.compiled
    free = kt.wrap(zoo.build("sequential"), kt.SET(0.5, update_every=1))
    zoo.compile_for("sequential", free, keras.optimizers.SGD(0.1, **optimizer))
    zoo.train("sequential", free)


def test_an_average_under_a_scale_that_changes():
    ticket = kt.wrap(zoo.build("sequential"), kt.SNFS(0.5))
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=r"SNFS.*factor that changes.*kt\.RigL"):
        zoo.compile_for("sequential", ticket, scaled)


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has none"
)
@pytest.mark.parametrize("pruner", [kt.RigL, kt.SET])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.lowest
def test_several_optimizers(pruner, scaled):
    ticket = kt.wrap(zoo.build("sequential"), pruner(0.5))
    inside = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1, use_ema=True))
    several = keras.optimizers.MultiOptimizer(inside)
    if scaled:
        several = keras.optimizers.LossScaleOptimizer(several)
    with pytest.raises(ValueError, match=rf"{pruner.__name__}.*MultiOptimizer.* one"):
        zoo.compile_for("sequential", ticket, several)
    assert not ticket.compiled


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution there")
def test_updates_that_were_all_stepped_over():
    ticket = kt.wrap(zoo.build("sequential"), kt.SET(0.5, update_every=2))
    zoo.compile_for("sequential", ticket, steps_per_execution=10)
    x, y = zoo.images()[:20], zoo.labels()[:20]
    with pytest.warns(
        UserWarning, match=r"SET moved no weight up to step 10 of 10: 3 "
    ):
        ticket.fit(x, y, batch_size=2, verbose=0)


def test_updates_too_small_to_move_a_weight():
    pruner = kt.RigL(0.9, "uniform", update_every=1, drop_fraction=0.01, seed=1)
    ticket = kt.wrap(zoo.build("sequential"), pruner)
    zoo.compile_for("sequential", ticket)
    with pytest.warns(UserWarning, match=r"step 4 of 4: in each of 2 updates int\(f"):
        zoo.train("sequential", ticket)
    zoo.train("sequential", ticket)  # settled: nothing was to move


def test_training_that_stopped_before_the_first_update():
    ticket = kt.wrap(zoo.build("sequential"), kt.SET(0.5, update_every=5))
    zoo.compile_for("sequential", ticket)
    with pytest.warns(UserWarning, match=r"4 of 12: .*before the first .*_every=5"):
        zoo.train("sequential", ticket, epochs=3, callbacks=[Stop()])
    zoo.train("sequential", ticket, epochs=3, initial_epoch=1)


def test_updates_beyond_the_end_of_the_run():
    ticket = kt.wrap(zoo.build("sequential"), kt.RigL(0.5, update_every=100))
    zoo.compile_for("sequential", ticket)
    with pytest.raises(ValueError, match=r"update_every=100 .* first 3 steps .*Static"):
        zoo.train("sequential", ticket)
    assert not ticket.drawn


def test_a_model_compiled_before_it_was_wrapped():
    model = zoo.build("sequential")
    zoo.compile_for("sequential", model)
    ticket = kt.wrap(model, kt.RigL(0.5))
    with pytest.raises(ValueError, match=r"is not compiled; .* Compile the ticket"):
        zoo.train("sequential", ticket)


def test_training_that_diverged_is_named():
    ticket = kt.wrap(zoo.build("sequential"), kt.RigL(0.5, update_every=1))
    zoo.compile_for("sequential", ticket, keras.optimizers.SGD(0.1))
    kernel = ticket.kernels[-1]
    value = np.full(kernel.shape, np.nan, "float32")
    ticket.draw()
    kernel.variable.assign(value)
    with pytest.raises(ValueError, match=r"NaN at step 1.*diverged"):
        zoo.train("sequential", ticket)


def test_a_plain_model_and_masked_layers_are_sent_to_wrap():
    model = keras.Sequential([keras.Input((6,)), kt.Masked(layers.Dense(4))])
    model.compile("adam", "mse")
    x, y = np.ones((8, 6)), np.ones((8, 4))
    with pytest.raises(ValueError, match=r"kt\.wrap\(model, kt\.SET"):
        model.fit(x, y, callbacks=[kt.SET(0.5)], verbose=0)
    with pytest.raises(ValueError, match=r"'masked_dense.*kt\.SET"):
        kt.wrap(model, kt.RigL(0.5))
    ticket = kt.wrap(model, kt.SET(0.5, update_every=1))
    ticket.compile("adam", "mse")
    ticket.fit(x, y, batch_size=2, verbose=0)
    assert ticket.sparsity == 0.5


def test_an_optimizer_that_was_built_before():
    optimizer = keras.optimizers.Adam()
    optimizer.build([keras.Variable(np.ones(3))])
    ticket = kt.wrap(zoo.build("sequential"), kt.SET(0.5))
    with pytest.raises(ValueError, match="fresh optimizer"):
        zoo.compile_for("sequential", ticket, optimizer)


def test_compiled_twice_with_one_optimizer():
    ticket = kt.wrap(zoo.build("sequential"), kt.SET(0.5, update_every=1))
    optimizer = keras.optimizers.Adam()
    zoo.compile_for("sequential", ticket, optimizer)
    slots = ticket.pruner_state.slots
    zoo.compile_for("sequential", ticket, optimizer)
    assert ticket.pruner_state.slots is slots
    zoo.train("sequential", ticket)


def test_one_optimizer_for_two_tickets():
    optimizer = keras.optimizers.Adam()
    first, second = (
        kt.wrap(zoo.build("sequential"), kt.SET(0.5, update_every=1)) for _ in range(2)
    )
    zoo.compile_for("sequential", first, optimizer)
    with pytest.raises(ValueError, match="fresh optimizer"):
        zoo.compile_for("sequential", second, optimizer)
    zoo.train("sequential", first)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.lowest
def test_an_optimizer_put_in_after_compile(scaled):
    ticket = kt.wrap(zoo.build("sequential"), kt.SET(0.5, update_every=1))
    zoo.compile_for("sequential", ticket)
    optimizer = keras.optimizers.Adam()
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    ticket.optimizer = optimizer
    with pytest.raises(ValueError, match=r"'ticket_.*changed after compile.*compile\("):
        zoo.train("sequential", ticket)
    assert not ticket.drawn


class Stranger(keras.optimizers.SGD):
    """Keeps a variable for each weight without saying for which."""

    def build(self, variables):
        super().build(variables)
        self.mine = [
            self.add_variable(v.shape, name=f"mine_{i}")
            for i, v in enumerate(variables)
        ]


@pytest.mark.lowest
def test_slots_of_an_unknown_kind_are_named():
    ticket = kt.wrap(zoo.build("sequential"), kt.SET(0.5))
    with pytest.warns(UserWarning, match=r"Stranger keeps .*mine_0.*mine_1"):
        zoo.compile_for("sequential", ticket, Stranger(0.1))


def test_an_empty_layer_is_named():
    inputs = keras.Input((6,))
    x = layers.Dense(6, name="wide")(inputs)
    short = layers.Dense(6, name="short")(inputs)
    model = keras.Model(inputs, layers.Add()([x, short]))
    sparsities = {"wide": 0.5, "short": 0.99}
    pruner = kt.RigL(0.5, allocation=sparsities, update_every=1)
    ticket = kt.wrap(model, pruner)
    with pytest.warns(UserWarning, match="short/kernel got no weights"):
        ticket.draw()
    for _ in range(2):
        ticket.compile("adam", "mse")
        with pytest.warns(UserWarning, match="short/kernel got no weights"):
            ticket.fit(np.ones((8, 6)), np.ones((8, 6)), batch_size=2, verbose=0)
        ticket = kt.wrap(ticket, kt.RigL(0.75, update_every=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"update_every": 0}, "update_every"),
        ({"update_every": 2.5}, "update_every"),
        ({"drop_fraction": 0.0}, "drop_fraction"),
        ({"until": 1.5}, "until"),
        ({"drop": "least"}, r"drop must be one of.*'least'"),
        ({"drop": "sign", "structure": "channel"}, "one by one.*unstructured"),
    ],
)
@pytest.mark.backend_independent
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        kt.RigL(0.5, **arguments)


@pytest.mark.lowest
def test_adafactor_names_its_rows_and_columns():
    weight = keras.Variable(np.ones((200, 200)))
    with pytest.warns(UserWarning, match="Adafactor keeps"):
        slots = optimizer_slots.build(keras.optimizers.Adafactor(), [weight])
    assert [slot.variable.shape for slot in slots.of(weight)] == [(200, 200)]
