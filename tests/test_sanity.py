"""Challenges: what the contestants are, and when a ticket is called a winning one."""

from __future__ import annotations

import math
import random

import keras
import numpy as np
import pytest
import zoo
from conftest import covering
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_tickets as kt
from keras_tickets.kernels import MatmulView, positions
from keras_tickets.recipe.groups import WeightGroups
from keras_tickets.reports.challenging import RIVALS
from keras_tickets.ticket.parts import values_of

MODEL = "functional"
ALL = ("ticket", "shuffled", "reinitialised", "random", "inverted", "dense")


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def drawn(name: str = MODEL, pruner=None, **kwargs) -> kt.Ticket:
    pruner = pruner or kt.Magnitude(0.7, allocation="uniform")
    ticket = kt.wrap(zoo.build(name), pruner, **kwargs)
    zoo.compile_for(name, ticket)
    ticket.draw(verbose=0)
    return ticket


class Seen:
    """Stands for training: keeps what it was given."""

    def __init__(self, ticket, seeds=(0, 1), **kwargs):
        self.tickets: dict = {}
        self.numbers: dict = {}
        self.prefix = f"{ticket.name}_"
        self.result = kt.challenge(ticket, self, seeds=seeds, verbose=0, **kwargs)

    def __call__(self, contestant):
        name = contestant.name.removeprefix(self.prefix)
        assert not contestant.compiled
        assert contestant.drawn
        assert contestant.pruner is None
        self.tickets.setdefault(name, []).append(contestant)
        self.numbers.setdefault(name, []).append((random.random(), np.random.rand()))
        return 0.5

    def masks(self, name, run=0):
        return self.tickets[name][run].mask_set.values()

    def weights(self, name, run=0):
        return values_of(self.tickets[name][run].model)


@pytest.fixture(scope="module")
def seen():
    keras.utils.set_random_seed(0)
    ticket = drawn()
    return ticket, Seen(ticket)


# -- the contestants -----------------------------------------------------------


def test_each_contestant_trains_with_each_seed(seen):
    _, run = seen
    assert tuple(run.result.runs) == ALL
    assert all(len(figures) == 2 for figures in run.result.runs.values())
    first = {name: pairs[0] for name, pairs in run.numbers.items()}
    keras.utils.set_random_seed(0)
    assert set(first.values()) == {(random.random(), np.random.rand())}
    assert all(pairs[0] != pairs[1] for pairs in run.numbers.values())


@pytest.mark.parametrize("run", [0, 1])
def test_masks(seen, run):
    ticket, trained = seen
    own = ticket.mask_set.values()
    assert same(trained.masks("ticket", run), own)
    assert same(trained.masks("reinitialised", run), own)
    assert all(mask.all() for mask in trained.masks("dense", run))
    counts = [mask.sum() for mask in own]
    for name in ("shuffled", "random", "inverted"):
        masks = trained.masks(name, run)
        assert [mask.sum() for mask in masks] == counts
        assert not any(map(np.array_equal, masks, own))
    assert not same(trained.masks("shuffled", run), trained.masks("random", run))


def test_masks_differ_between_seeds(seen):
    _, trained = seen
    for name in ("shuffled", "random"):
        assert not same(trained.masks(name, 0), trained.masks(name, 1))


@pytest.mark.backend_independent
def test_shuffled_masks_overlap_as_chance_does():
    """At 30 % kept, a shuffled mask shares 30 % of it: not the old one, not apart."""
    mask = np.random.default_rng(0).random((100, 100)) < 0.3
    mixed = WeightGroups.single(mask.shape).shuffled(mask, np.random.default_rng(1))
    assert (mask & mixed).sum() / mask.sum() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("run", [0, 1])
def test_weights(seen, run):
    ticket, trained = seen
    start = values_of(ticket.model)
    for name in ("ticket", "shuffled", "inverted", "dense"):
        assert same(trained.weights(name, run), start)
    for name in ("reinitialised", "random"):
        fresh = trained.weights(name, run)
        for value, old in zip(fresh, start, strict=True):
            constant = np.ptp(old) == 0  # biases, scales
            assert np.array_equal(value, old) == constant
            assert value.std() == pytest.approx(old.std(), rel=0.5, abs=1e-6)
    kernel = [trained.weights("random", i)[0] for i in (0, 1)]
    assert not np.array_equal(*kernel)


def test_fresh_weights_are_not_those_that_the_seed_gave_the_model():
    """The model was built after set_random_seed(0), and is challenged with seed 0."""
    trained = Seen(drawn(), seeds=(0,))
    old = values_of(zoo.build(MODEL, seed=0))
    for ours, theirs in zip(trained.weights("reinitialised"), old, strict=True):
        assert np.ptp(theirs) == 0 or not np.isin(ours, theirs).any()


def test_inverted_keeps_the_lowest_scores(seen):
    ticket, trained = seen
    for kernel, mask in zip(ticket.kernels, trained.masks("inverted"), strict=True):
        worth = np.abs(keras.ops.convert_to_numpy(kernel.variable.value))
        assert worth[mask].max() <= worth[~mask].min()


def test_the_ticket_is_left_alone():
    ticket = drawn("nested", remember=True)
    zoo.train("nested", ticket)
    optimizer = ticket.optimizer
    before = [keras.ops.convert_to_numpy(v.value) for v in ticket.variables]

    def train(contestant):
        ours = {id(variable) for variable in ticket.variables}
        assert not ours & {id(variable) for variable in contestant.variables}
        if contestant.name.endswith("ticket"):
            zoo.compile_for("nested", contestant)
            zoo.train("nested", contestant)
        return 1.0

    kt.challenge(ticket, train, seeds=(0,), verbose=0)
    after = [keras.ops.convert_to_numpy(v.value) for v in ticket.variables]
    assert same(before, after)
    assert ticket.optimizer is optimizer
    zoo.train("nested", ticket)


def test_it_starts_from_what_the_ticket_remembers():
    ticket = drawn("nested", remember=True)
    start = values_of(ticket.model)
    zoo.train("nested", ticket)
    trained = Seen(ticket, seeds=(0,))
    assert trained.result.remembered
    assert same(trained.weights("ticket"), start)
    forgetful = drawn("nested")
    zoo.train("nested", forgetful)
    with pytest.warns(UserWarning, match=r"trained after its draw.*remember=True"):
        trained = Seen(forgetful, seeds=(0,))
    assert not trained.result.remembered
    assert same(trained.weights("ticket"), values_of(forgetful.model))


@pytest.mark.parametrize(
    "name",
    covering(
        ["nested", "shared", "transformer", "subclassed"],
        quick=["nested", "subclassed"],
        elsewhere=["subclassed"],
    ),
)
def test_any_model(name):
    ticket = drawn(name, kt.Random(0.5, seed=1))
    zoo.compile_for(name, ticket, **zoo.COMPILED)
    trained = Seen(ticket, seeds=(0,))
    assert same(trained.masks("ticket"), ticket.mask_set.values())
    counts = [mask.sum() for mask in ticket.mask_set.values()]
    assert [mask.sum() for mask in trained.masks("shuffled")] == counts
    for ours, theirs in zip(
        zoo.predict(name, trained.tickets["ticket"][0]),
        zoo.predict(name, ticket),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_masked_layers():
    model = keras.Sequential(
        [keras.Input((6,)), kt.Masked(layers.Dense(4)), layers.Dense(2)]
    )
    ticket = kt.wrap(model, kt.Magnitude(0.5))
    ticket.draw()
    trained = Seen(ticket, seeds=(0,))
    # Contestants are plain copies, and a ticket lists the kernels of `Masked` last.
    place = positions(ticket.model)
    order = np.argsort([place[id(kernel.variable)] for kernel in ticket.kernels])
    assert order.tolist() == [1, 0]
    masks = ticket.mask_set.values()
    assert same(trained.masks("ticket"), [masks[i] for i in order])
    for i, mask in zip(order, trained.masks("inverted"), strict=True):
        kernel = ticket.kernels[i]
        worth = np.abs(keras.ops.convert_to_numpy(kernel.variable.value))
        assert worth[mask].max() <= worth[~mask].min()


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**16))
@settings(max_examples=50, deadline=None)
@pytest.mark.backend_independent
def test_shuffling_keeps_what_is_kept_together(rows, columns, seed):
    rng = np.random.default_rng(seed)
    mask = np.broadcast_to(rng.random(columns) < 0.4, (rows, columns))
    view = MatmulView((), (0,), (1,))
    mixed = WeightGroups(view, mask.shape, (1, rows, 1)).shuffled(mask, rng)
    assert mixed.shape == mask.shape
    assert mixed.sum() == mask.sum()
    assert (mixed == mixed[:1]).all()


def doubled(ticket):
    """Train, as far as a challenge can tell: change each kernel."""
    for kernel in ticket.kernels:
        kernel.variable.assign(2 * kernel.variable.value)


def saved(ticket, path):
    doubled(ticket)
    ticket.optimizer.build(ticket.trainable_variables)
    ticket.save(path / "ticket.keras")
    return keras.models.load_model(path / "ticket.keras")


def written(ticket, path):
    doubled(ticket)
    ticket.save_ticket(path / "x.ticket.npz")
    return kt.load_ticket(path / "x.ticket.npz", zoo.build("sequential"))


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    "road",
    [
        lambda ticket, path: doubled(ticket) or ticket,
        lambda ticket, path: doubled(ticket) or kt.wrap(ticket, kt.Magnitude(0.9)),
        lambda ticket, path: kt.wrap(ticket.strip(), keep_zeros=True),
        saved,
        written,
    ],
    ids=["own_loop", "wrapped_again", "stripped", "saved", "ticket_file"],
)
def test_a_trained_ticket_is_no_winner(road, tmp_path):
    """Whichever way it has come: its rivals have not trained."""
    ticket = road(drawn("sequential", kt.Random(0.8, seed=0)), tmp_path)

    def train(contestant):
        return contestant.name.endswith("_ticket")

    with pytest.warns(UserWarning, match="cannot win"):
        verdict = kt.challenge(ticket, train, seeds=(0, 1), verbose=0)
    assert verdict.is_ticket is verdict.matches_dense is None
    assert "unknown: the ticket was trained after its draw" in str(verdict)


@pytest.mark.backend_independent
def test_a_ticket_that_has_not_trained_may_win(tmp_path):
    ticket = drawn("sequential", kt.Random(0.8, seed=0))
    ticket.save_ticket(tmp_path / "x.ticket.npz")
    again = kt.load_ticket(tmp_path / "x.ticket.npz", zoo.build("sequential"))
    assert not ticket.trained
    assert not again.trained
    doubled(again)
    assert again.trained


# -- who is left out -----------------------------------------------------------


def few():
    return zoo.images()[:12], zoo.labels()[:12]


@pytest.mark.parametrize(
    ("pruner", "reason"),
    [
        (lambda: kt.Random(0.5, seed=1), "Random draws its masks at random"),
        (lambda: kt.Static(0.5, seed=1), "Static draws its masks at random"),
        (lambda: kt.SNIP(0.5, few()), None),
        (lambda: kt.SynFlow(0.5, rounds=3), None),
        (
            lambda: kt.Magnitude(0.5, schedule=kt.schedules.Once(at=0.5)),
            "Magnitude scored weights that had trained",
        ),
    ],
)
def test_inverted_scores(pruner, reason):
    trained = Seen(drawn("sequential", pruner()), seeds=(0,))
    assert ("inverted" in trained.result.runs) == (reason is None)
    if reason is not None:
        assert reason in trained.result.left_out["inverted"]
        assert f"inverted left out: {reason}" in str(trained.result)


@pytest.mark.backend_independent
def test_scores_without_their_data_are_left_out(tmp_path):
    """A ticket that was saved and loaded has no data to score on."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ticket = kt.wrap(zoo.build("sequential"), kt.SNIP(0.5, few(), loss=loss))
    ticket.draw()
    ticket.save(tmp_path / "ticket.keras")
    loaded = keras.models.load_model(tmp_path / "ticket.keras")
    assert "SNIP has no data" in Seen(loaded, seeds=(0,)).result.left_out["inverted"]


@pytest.mark.backend_independent
def test_a_ticket_without_a_pruner():
    ticket = kt.wrap(drawn("sequential"))
    assert "no pruner" in Seen(ticket, seeds=(0,)).result.left_out["inverted"]


def test_learned_scores_are_inverted():
    class Learned(kt.Random):
        def learned_scores(self, ticket):
            return [np.arange(k.size).reshape(k.shape) for k in ticket.kernels]

    trained = Seen(drawn("sequential", Learned(0.75, seed=1)), seeds=(0,))
    for mask in trained.masks("inverted"):
        assert mask.ravel()[: mask.sum()].all()


@pytest.mark.parametrize("seed", [3, keras.random.SeedGenerator(3)])
def test_initialisers_with_a_seed_draw_anew(seed):
    initial = keras.initializers.HeNormal(seed=seed)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, kernel_initializer=initial)]
    )
    ticket = kt.wrap(model, kt.Magnitude(0.5))
    ticket.draw()
    trained = Seen(ticket)
    weights = [trained.weights("random", run)[0] for run in (0, 1)]
    weights.append(values_of(model)[0])
    assert len({value.tobytes() for value in weights}) == 3


class Stubborn(keras.Model):
    """Its code, not its config, says what it starts from."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = layers.Dense(
            4, kernel_initializer=keras.initializers.HeNormal(seed=3)
        )

    def build(self, input_shape):
        self.head.build(input_shape)
        self.built = True

    def call(self, inputs):
        return self.head(inputs)


def test_a_model_without_fresh_weights_is_refused():
    model = Stubborn(name="stubborn")
    model.build((None, 6))
    ticket = kt.wrap(model, kt.Magnitude(0.5))
    ticket.draw()
    with pytest.raises(ValueError, match=r"'stubborn' get the same .*stubborn/dense"):
        kt.challenge(ticket, lambda contestant: 1.0, verbose=0)


# -- what is refused -----------------------------------------------------------


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1, 2)])
@pytest.mark.backend_independent
def test_seeds(seeds):
    with pytest.raises(ValueError, match="different non-negative integers"):
        kt.challenge(drawn("sequential"), lambda _: 1.0, seeds=seeds)


@pytest.mark.backend_independent
def test_bad_arguments():
    with pytest.raises(TypeError, match="expects a Ticket"):
        kt.challenge(zoo.build("sequential"), lambda _: 1.0)
    with pytest.raises(ValueError, match="was never drawn"):
        kt.challenge(kt.wrap(zoo.build("sequential"), "random"), lambda _: 1.0)
    with pytest.raises(TypeError, match="train must be a function"):
        kt.challenge(drawn("sequential"), 0.9)
    with pytest.raises(TypeError, match=r"'ticket' with seed 4.*one number"):
        kt.challenge(drawn("sequential"), lambda _: {}, seeds=(4,), verbose=0)


# -- the verdict ---------------------------------------------------------------

GOOD = [0.90, 0.91, 0.92]
BAD = [0.80, 0.81, 0.82]


def result(seeds=3, **runs) -> kt.Challenge:
    """Return a challenge that the ticket wins, but for `runs`."""
    runs = dict.fromkeys(ALL, BAD) | {"ticket": GOOD, "dense": GOOD} | runs
    runs = {name: figures[:seeds] for name, figures in runs.items()}
    return kt.Challenge("x", 0.9, tuple(range(seeds)), runs)


@pytest.mark.backend_independent
def test_mean_and_spread():
    one = result()
    assert one.mean["ticket"] == pytest.approx(0.91)
    assert one.spread["ticket"] == pytest.approx(0.01)
    wide = result(random=[0.7, 0.8, 0.9])
    assert wide.pooled("random") == pytest.approx(math.sqrt((0.01**2 + 0.1**2) / 2))
    assert wide.lead("random") == pytest.approx(0.11)


@pytest.mark.parametrize(
    ("runs", "is_ticket", "matches", "words"),
    [
        ({}, True, True, ["a winning ticket", "matches the dense"]),
        ({"dense": [0.95, 0.96, 0.97]}, True, False, ["winning", "falls short of"]),
        ({"dense": BAD}, True, True, ["winning", "matches"]),
        ({"shuffled": GOOD}, False, True, ["no winning ticket: shuffled does as well"]),
        ({"random": GOOD, "dense": [1, 1, 1]}, False, False, ["random", "short of"]),
        (
            {"reinitialised": GOOD, "random": [1.0, 1.0, 1.0]},
            False,
            True,
            ["reinitialised and random do as well"],
        ),
        # Ahead, but by less than the runs differ.
        ({"shuffled": [0.6, 0.9, 1.1]}, False, True, ["shuffled does as well"]),
        ({"random": [0.7, 0.8, 0.9]}, True, True, ["winning"]),
        # Deterministic training has no spread: any lead counts, none does not.
        ({"ticket": [1, 1, 1]} | {r: [0.9] * 3 for r in RIVALS}, True, True, ["winn"]),
        (
            {"ticket": [1, 1, 1]} | {r: [1] * 3 for r in RIVALS},
            False,
            True,
            ["no winn"],
        ),
        # Low scores may do well, which is no business of the verdict.
        ({"inverted": [1, 1, 1]}, True, True, ["a winning ticket"]),
        ({"random": [0.8, math.nan, 0.8]}, None, None, ["unknown", "random are not"]),
        ({"seeds": 1}, None, None, ["unknown: one seed has no spread"]),
    ],
)
@pytest.mark.backend_independent
def test_verdict(runs, is_ticket, matches, words):
    one = result(**runs)
    assert one.is_ticket is is_ticket
    assert one.matches_dense is matches
    for word in words:
        assert word in one.verdict


@pytest.mark.backend_independent
def test_table():
    text = str(result(random=[0.85, 0.86, 0.87]))
    assert "x: sparsity 0.9, seeds (0, 1, 2)" in text
    for row in (
        r"ticket          its own         start      0.9100 ± 0.0100",
        r"random          random          fresh      0.8600 ± 0.0100",
        r"inverted        lowest scores   start",
    ):
        assert (
            row.split()
            == next(
                line
                for line in text.splitlines()
                if line.split()[:1] == row.split()[:1]
            ).split()[: len(row.split())]
        )
    assert "+0.0500" in text
    assert text.splitlines()[-1].startswith("Verdict: a winning ticket")
    assert max(map(len, text.splitlines()[:-1])) <= 88
    alone = str(result(seeds=1))
    assert "0.9000 ± ?" in alone
    assert "unknown" in alone


# -- the whole of it -----------------------------------------------------------


@pytest.mark.backend_independent
def test_training_finds_the_ticket_that_the_data_was_made_of():
    """Labels come from a sparse linear map, and the mask is its support."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 32)).astype("float32")
    truth = np.zeros((32, 1), "float32")
    truth[:4] = rng.normal(size=(4, 1)) + 2
    y = x @ truth
    model = keras.Sequential([keras.Input((32,)), layers.Dense(1, use_bias=False)])
    ticket = kt.wrap(model, kt.Random(0.875, seed=1))
    ticket.mask_set.assign([truth != 0])

    def train(contestant):
        contestant.compile(keras.optimizers.SGD(0.1), "mse")
        history = contestant.fit(x, y, batch_size=64, epochs=2, verbose=0)
        return -history.history["loss"][-1]

    verdicts = kt.challenge(ticket, train, seeds=(0, 1), verbose=0)
    assert verdicts.lead("shuffled") > 1
    assert verdicts.lead("random") > 1
    # A convex problem: where it starts does not matter.
    assert verdicts.is_ticket is False
    assert "reinitialised does as well" in verdicts.verdict


@pytest.mark.backend_independent
def test_progress_is_shown(capsys):
    kt.challenge(drawn("sequential"), lambda _: 0.5, seeds=(0, 1), verbose=1)
    shown = capsys.readouterr().out
    assert "12/12" in shown
    assert "random: 0.5" in shown
