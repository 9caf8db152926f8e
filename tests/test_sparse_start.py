"""Models that come with zeros: the zeros stay, and pruners go on from there."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import keras_tickets as kt
from keras_tickets.backend import on_host
from keras_tickets.recipe import schedules

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
Y = X[:, :3]
TOTAL = 8 * 10 + 10 * 3


def sparse(share: float = 0.5) -> keras.Model:
    """Return a plain model whose least weights, whatever their layer, are zero."""
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(10, "relu"), layers.Dense(3)]
    )
    ticket = kt.wrap(model, kt.Magnitude(share))
    ticket.draw(verbose=0)
    return ticket.strip()


def zeros(model: keras.Model) -> list[np.ndarray]:
    return [on_host(v.value) == 0 for v in model.weights if len(v.shape) > 1]


def fit(ticket: kt.Ticket, epochs: int = 4, **arguments) -> dict[str, list[float]]:
    if not ticket.compiled:
        ticket.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    arguments = {"batch_size": 8, "verbose": 0, "shuffle": False} | arguments
    return ticket.fit(X, Y, epochs=epochs, **arguments).history


def test_zeros_stay_in_training_without_a_pruner(tmp_path):
    model = sparse()
    before = zeros(model)
    ticket = kt.wrap(model, keep_zeros=True, remember=True)
    assert ticket.mask_set.count().zeros == TOTAL // 2
    assert ticket.drawn
    fit(ticket, epochs=2)
    for old, new in zip(before, zeros(ticket.strip()), strict=True):
        np.testing.assert_array_equal(old, new)
    assert zeros(ticket.strip())[0].sum() == before[0].sum()
    # Wrapped without, they do not stay.
    free = kt.wrap(sparse())
    fit(free, epochs=1)
    assert sum(int(z.sum()) for z in zeros(free.strip())) < TOTAL // 4
    # And in each way to save.
    ticket.save(tmp_path / "ticket.keras")
    ticket.save_ticket(tmp_path / "start.ticket.npz")
    for again in (
        keras.models.load_model(tmp_path / "ticket.keras"),
        kt.load_ticket(tmp_path / "start.ticket.npz", sparse()),
        kt.wrap(ticket),
        kt.wrap(ticket.strip(), keep_zeros=True),
    ):
        for one, two in zip(again.mask_set.values(), before, strict=True):
            np.testing.assert_array_equal(one, ~two)
    assert ticket.start is not None
    for start, first in zip(ticket.start.values(), sparse().weights, strict=True):
        assert start.shape == first.shape


@pytest.mark.backend_independent
@pytest.mark.parametrize("allocation", ["erk", "global", "uniform"])
@pytest.mark.parametrize(
    "schedule", ["polynomial", "exponential", "cosine", "constant", "once"]
)
def test_a_gradual_pruner_starts_where_the_model_is(schedule, allocation):
    model = sparse()
    dead = zeros(model)
    pruner = kt.GradualMagnitude(0.8, allocation, schedule=schedule)
    ticket = kt.wrap(model, pruner, keep_zeros=True)
    pruner.set_params({"epochs": 4, "steps": 4})
    pruner.set_model(ticket)
    steps = []
    for epoch in range(4):  # as `fit` calls it
        pruner.on_epoch_begin(epoch)
        for batch in range(4):
            pruner.on_train_batch_end(batch)
            steps.append(ticket.mask_set.count().zeros)
        pruner.on_epoch_end(epoch)
    assert steps[0] >= TOTAL // 2
    assert steps == sorted(steps)
    assert ticket.mask_set.count().zeros == round(0.8 * TOTAL)
    if schedule == "polynomial":  # done at three quarters of 16 steps
        expected = [0.8 - 0.3 * (1 - t / 12) ** 3 for t in (1, 4, 8)]
        assert [steps[t - 1] for t in (1, 4, 8)] == [round(s * TOTAL) for s in expected]
    for mask, zero in zip(ticket.mask_set.values(), dead, strict=True):
        assert not (mask & zero).any()


@pytest.mark.backend_independent
def test_the_ramp_goes_on_in_a_ticket_that_was_saved(tmp_path):
    ticket = kt.wrap(sparse(), kt.GradualMagnitude(0.8), keep_zeros=True)
    ticket.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    ticket.save(tmp_path / "new.keras")
    again = keras.models.load_model(tmp_path / "new.keras")
    assert fit(again)["sparsity"] == fit(ticket)["sparsity"]


@pytest.mark.parametrize(
    "pruner", [kt.Static(0.8), kt.RigL(0.8, update_every=2)], ids=["static", "rigl"]
)
@pytest.mark.backend_independent
def test_what_moves_weights_starts_with_those_of_the_model(pruner):
    model = sparse(0.8)
    dead = zeros(model)
    ticket = kt.wrap(model, pruner, keep_zeros=True)
    counts = [int((~z).sum()) for z in dead]
    history = fit(ticket)
    assert [int(m.sum()) for m in ticket.mask_set.values()] == counts
    assert set(history["sparsity"]) == {ticket.sparsity}
    moved = [
        bool((m & z).any()) for m, z in zip(ticket.mask_set.values(), dead, strict=True)
    ]
    assert any(moved) != isinstance(pruner, kt.Static)


@pytest.mark.backend_independent
def test_masks_and_zeros_add_up():
    """A ticket is wrapped again after kept weights were set to zero, by hand."""
    ticket = kt.wrap(sparse(), keep_zeros=True)
    kernel = ticket.kernels[0].variable
    values = np.array(on_host(kernel.value))
    values[0] = 0
    kernel.assign(values)
    again = kt.wrap(ticket, kt.Magnitude(0.9), keep_zeros=True)
    assert not again.mask_set.values()[0][0].any()
    assert again.initial_sparsity == again.sparsity > 0.5
    again.draw(verbose=0)
    assert again.mask_set.count().zeros == round(0.9 * TOTAL)


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    "pruner", ["imp", "gem_miner", "edge_popup", "espn", "str", "early_bird"]
)
def test_pruners_that_begin_dense_are_refused(pruner):
    with pytest.raises(ValueError, match=r"finds its ticket in a dense.*keep_zeros"):
        kt.wrap(sparse(), pruner, keep_zeros=True)


@pytest.mark.backend_independent
def test_what_is_odd_is_told():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(2)])
    with pytest.warns(UserWarning, match=r"none of the 40 prunable weights.*is zero"):
        kt.wrap(model, keep_zeros=True)
    model.layers[1].kernel.assign(np.zeros((4, 2)))
    with pytest.warns(UserWarning, match=r"All weights of \S+/dense_\d/kernel are"):
        kt.wrap(model, keep_zeros=True)
    with pytest.warns(UserWarning, match=r"55 zeros of 110.*more than the 33 that"):
        kt.wrap(sparse(), kt.GradualMagnitude(0.3), keep_zeros=True)


@pytest.mark.backend_independent
def test_a_schedule_of_the_users_own_begins_there_too():
    class Linear(schedules.Schedule):
        def curve(self, progress, start, stop):
            return start + (stop - start) * progress

    raised = Linear(0.0, 1.0).starting_at(0.5)
    assert raised.value(5, 0.9, schedules.Run(10, None)) == pytest.approx(0.7)
    assert Linear(initial=0.6).starting_at(0.5).initial == 0.6
