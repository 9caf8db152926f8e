"""What version 0.1.0 saved still loads: tickets, weights and ticket files.

`released/make.py` made the files, with that version.
"""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
from released.make import BACKEND, FOLDER, ONCE, PRUNERS, data, network

import keras_tickets as kt

SAVED = sorted(FOLDER.glob("*.keras"))
RESUMED = [path for path in SAVED if path.stem.split("_")[-1] == BACKEND]
MADE = PRUNERS | ONCE


def name_of(path: pathlib.Path) -> str:
    return path.stem.rpartition("_")[0]


def check_masks(ticket: kt.Ticket, expected: list[np.ndarray]) -> None:
    """By position: Keras gives a Sequential that is loaded shorter paths."""
    for mask, saved in zip(ticket.masks.values(), expected, strict=True):
        np.testing.assert_array_equal(mask, saved)


def check(ticket: kt.Ticket, path: pathlib.Path) -> None:
    """The ticket has the masks, and computes the outputs, that were saved beside it."""
    with np.load(path.with_suffix(".npz")) as saved:
        expected = dict(saved)
    outputs = expected.pop("outputs")
    check_masks(ticket, list(expected.values()))
    found = keras.ops.convert_to_numpy(ticket(data()[0], training=False))
    np.testing.assert_allclose(found, outputs, atol=2e-6)


def test_nothing_is_missing():
    assert len(SAVED) == len(ONCE) + 3 * len(PRUNERS)


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_a_ticket_loads(path):
    ticket = keras.models.load_model(path)
    check(ticket, path)
    made = MADE[name_of(path)]()
    assert type(ticket.pruner) is type(made)
    for name, value in made.get_config().items():
        if name != "optimizer":  # which Keras numbers
            assert ticket.pruner.get_config()[name] == value


@pytest.mark.parametrize("path", RESUMED, ids=lambda path: path.stem)
def test_weights_load_into_a_new_ticket(path):
    ticket = kt.wrap(network(), MADE[name_of(path)](), remember=True)
    ticket.compile("adam", "sparse_categorical_crossentropy")
    ticket.optimizer.build(ticket.trainable_variables)
    ticket.load_weights(path.with_suffix(".weights.h5"))
    check(ticket, path)


@pytest.mark.filterwarnings("ignore:.*other weights and masks were loaded")
@pytest.mark.parametrize("name", ["gradual_magnitude", "rigl", "synflow"])
def test_a_ticket_file_loads(name):
    path = FOLDER / f"{name}_tensorflow.keras"
    model = keras.models.load_model(path).strip()
    ticket = kt.load_ticket(path.with_suffix(".ticket.npz"), model)
    with np.load(path.with_suffix(".npz")) as saved:
        check_masks(ticket, [saved[name] for name in saved.files[1:]])


@pytest.mark.parametrize(
    "path",
    [path for path in RESUMED if name_of(path) in PRUNERS],
    ids=lambda path: path.stem,
)
@pytest.mark.filterwarnings("ignore:IMP trains .* steps after it goes back")
def test_a_killed_run_goes_on(path):
    """From the third of six epochs to the sparsity that was asked for."""
    ticket = keras.models.load_model(path)
    ticket.jit_compile = False
    x, y = data()
    ticket.fit(x, y, batch_size=8, initial_epoch=3, epochs=6, verbose=0)
    assert not ticket.unfinished
    assert ticket.sparsity == pytest.approx(0.75, abs=0.01)
