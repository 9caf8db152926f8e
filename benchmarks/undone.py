"""What each callback of Keras, and each way of loading weights, leaves of a ticket.

    KERAS_BACKEND=tensorflow python -m benchmarks.undone [--folder benchmarks/results]

A tiny network is pruned by each of five pruners, with each callback in its list whose
best epoch is the first one, when the ticket is dense or not yet found; and what the
second epoch ended with is loaded into a finished ticket and into a new one. The outcome
is "on target", or "told" (a warning names what was asked for), or "refused". Anything
else is "silent". `tests/test_last_word.py` runs a part of the table, and fails for a
callback of a newer Keras that has no row here.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import pathlib
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import callbacks, layers

import keras_tickets as kt
from benchmarks.record import RESULTS, Record

SPARSITY, EPOCHS = 0.5, 6
PRUNERS: dict[str, Callable[[], Any]] = {
    "GradualMagnitude": lambda: kt.GradualMagnitude(SPARSITY),
    "RigL": lambda: kt.RigL(SPARSITY, update_every=2, until=0.8, seed=1),
    "GemMiner": lambda: kt.GemMiner(SPARSITY, every=1, until=0.7, seed=1),
    "IMP": lambda: kt.IMP(SPARSITY, fraction=0.3),
    "STR": lambda: kt.STR(SPARSITY, start=-3.0, until=0.5),
}
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 8)).astype("float32"), RNG.integers(0, 4, 16)


class Worse(callbacks.Callback):
    """Logs a value that is best in the first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        logs["worse"] = float(epoch)


class Saves(callbacks.Callback):
    """Saves what an epoch ends with, in every form."""

    def __init__(self, folder: pathlib.Path, epoch: int = 1) -> None:
        super().__init__()
        self.folder, self.epoch = folder, epoch
        self.weights: list[np.ndarray] = []
        self.tree: dict[str, Any] = {}

    def on_epoch_end(self, epoch, logs=None):
        if epoch != self.epoch:
            return
        self.weights = self.model.get_weights()
        self.masks = self.model.mask_set.values()
        with contextlib.suppress(ValueError):  # Keras wants paths that are unique
            self.tree = self.model.get_state_tree(value_format="numpy_array")
        self.model.save(self.folder / "early.keras")
        self.model.save_weights(self.folder / "early.weights.h5")
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            checkpoint = tf.train.Checkpoint(model=self.model)
            self.tree_path = checkpoint.save(str(self.folder / "early"))


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    # A state tree goes by names.
    dense = [layers.Dense(8, name="dense"), layers.Dense(4, name="dense_1")]
    return keras.Sequential([keras.Input((8,)), *dense], name="network")


def compiled(pruner: str, **optimizer: Any) -> kt.Ticket:
    ticket = kt.wrap(network(), PRUNERS[pruner]())
    ticket.compile(
        keras.optimizers.SGD(0.05, **optimizer),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return ticket


def fit(ticket: kt.Ticket, listed: Any) -> None:
    ticket.fit(X, Y, batch_size=8, epochs=EPOCHS, verbose=0, callbacks=listed)


# -- callbacks -----------------------------------------------------------------------

BEST = {"monitor": "worse", "mode": "min"}


def _user(ticket: kt.Ticket) -> callbacks.Callback:
    def fill(logs=None):
        for masked in ticket.mask_set.masked:
            masked.mask.assign(np.ones(masked.kernel.shape, bool))

    return callbacks.LambdaCallback(on_train_end=fill)


def _listed(ticket: kt.Ticket) -> callbacks.CallbackList:
    best = callbacks.EarlyStopping(patience=99, restore_best_weights=True, **BEST)
    steps = len(X) // 8
    return callbacks.CallbackList(
        [Worse(), best],
        add_history=True,
        model=ticket,
        epochs=EPOCHS,
        steps=steps,
        verbose=0,
    )


def _best(ticket: kt.Ticket, folder: pathlib.Path) -> callbacks.Callback:
    path = folder / "best.weights.h5"
    return callbacks.ModelCheckpoint(
        path, save_best_only=True, save_weights_only=True, **BEST
    )


def _board(folder: pathlib.Path) -> callbacks.Callback:
    importlib.import_module("tensorboard")
    return callbacks.TensorBoard(folder)


CALLBACKS: dict[str, Callable[[kt.Ticket, pathlib.Path], Any]] = {
    "BackupAndRestore": lambda t, f: callbacks.BackupAndRestore(f / "backup"),
    "CSVLogger": lambda t, f: callbacks.CSVLogger(f / "log.csv"),
    "Callback": lambda t, f: callbacks.Callback(),
    "CallbackList": lambda t, f: _listed(t),
    "EarlyStopping": lambda t, f: callbacks.EarlyStopping(
        patience=99, restore_best_weights=True, **BEST
    ),
    "History": lambda t, f: callbacks.History(),
    "LambdaCallback": lambda t, f: _user(t),
    "LearningRateScheduler": lambda t, f: callbacks.LearningRateScheduler(
        lambda epoch: 0.01
    ),
    "ModelCheckpoint": _best,
    "OrbaxCheckpoint": lambda t, f: callbacks.OrbaxCheckpoint(
        f / "orbax", save_best_only=True, save_on_background=False, **BEST
    ),
    "ProgbarLogger": lambda t, f: callbacks.ProgbarLogger(),
    "ReduceLROnPlateau": lambda t, f: callbacks.ReduceLROnPlateau(patience=0, **BEST),
    "RemoteMonitor": lambda t, f: callbacks.RemoteMonitor("http://127.0.0.1:9"),
    "SwapEMAWeights": lambda t, f: callbacks.SwapEMAWeights(swap_on_epoch=True),
    "TensorBoard": lambda t, f: _board(f / "board"),
    "TerminateOnNaN": lambda t, f: callbacks.TerminateOnNaN(),
}
"""One of each class that `keras.callbacks` exports."""


def exported() -> list[str]:
    """Return the callbacks that this Keras has."""
    return [name for name in dir(callbacks) if name[0].isupper()]


def outcome(ticket: kt.Ticket, told: list[Any]) -> str:
    said = " ".join(str(warning.message) for warning in told)
    if "asked for sparsity" in said or "was never drawn" in said:
        return "told"
    on_target = abs(ticket.sparsity - SPARSITY) < 0.02 and not ticket.unfinished
    return "on target" if on_target else "silent"


def after_callback(name: str, pruner: str, ticket: kt.Ticket | None = None) -> str:
    """Return what a run with this callback comes to."""
    with (
        warnings.catch_warnings(record=True) as told,
        tempfile.TemporaryDirectory() as folder,
    ):
        warnings.simplefilter("always")
        try:
            if name == "SwapEMAWeights":
                ticket = compiled(pruner, use_ema=True)
            ticket = ticket or compiled(pruner)
        except ValueError as error:
            return f"refused: {str(error).splitlines()[0]}"
        try:
            callback = CALLBACKS[name](ticket, pathlib.Path(folder))
            ready = isinstance(callback, callbacks.CallbackList)
            fit(ticket, callback if ready else [Worse(), callback])
        except ImportError as error:
            return f"not here: {str(error).splitlines()[0]}"
        if name == "ModelCheckpoint":
            ticket.load_weights(callback.filepath)
        return outcome(ticket, told)


# -- ways of loading -----------------------------------------------------------------


def _loaded(ticket: kt.Ticket, saves: Saves) -> kt.Ticket:
    return keras.models.load_model(saves.folder / "early.keras")


def _weights_file(ticket: kt.Ticket, saves: Saves) -> None:
    ticket.load_weights(saves.folder / "early.weights.h5")


def _assigned(ticket: kt.Ticket, saves: Saves) -> None:
    for masked, mask in zip(ticket.mask_set.masked, saves.masks, strict=True):
        masked.mask.assign(mask)


ASSIGNED = "masks assigned"


def _object_checkpoint(ticket: kt.Ticket, saves: Saves) -> None:
    import tensorflow as tf

    tf.train.Checkpoint(model=ticket).restore(saves.tree_path).expect_partial()


LOADS: dict[str, Callable[[kt.Ticket, Saves], Any]] = {
    "load_model": _loaded,
    "load_weights": _weights_file,
    "set_weights": lambda ticket, saves: ticket.set_weights(saves.weights),
    "set_state_tree": lambda ticket, saves: ticket.set_state_tree(saves.tree),
    ASSIGNED: _assigned,
    "tf.train.Checkpoint": _object_checkpoint,
}


def after_loading(way: str, ticket: kt.Ticket, saves: Saves) -> str:
    """Return what a finished ticket, or a new one, comes to."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if way == "set_state_tree" and not saves.tree:
            return "refused: get_state_tree wants paths that are unique"
        ticket = LOADS[way](ticket, saves) or ticket
        ticket.strip()
        return outcome(ticket, told)


# -- the table -----------------------------------------------------------------------


def ways() -> list[str]:
    """Return the ways of loading that this backend has."""
    others = keras.backend.backend() != "tensorflow"
    return [way for way in LOADS if not (others and way == "tf.train.Checkpoint")]


def loaded(record: Record, pruner: str) -> None:
    """Record what each way of loading does to a finished ticket, and to a new one."""
    with tempfile.TemporaryDirectory() as folder:
        saves = Saves(pathlib.Path(folder))
        finished = compiled(pruner)
        fit(finished, [saves])
        last = finished.get_weights()
        for way in ways():
            finished.set_weights(last)
            for kind in ("finished", "new") if way != ASSIGNED else ("finished",):
                ticket = finished if kind == "finished" else compiled(pruner)
                record.row(
                    lambda w=way, t=ticket: {"outcome": after_loading(w, t, saves)},
                    loading=way,
                    into=kind,
                    pruner=pruner,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, default=RESULTS)
    backend = keras.backend.backend()
    record = Record(f"undone_{backend}", "random numbers", parser.parse_args().folder)
    for pruner in PRUNERS:
        for name in exported():
            record.row(
                lambda n=name, p=pruner: {"outcome": after_callback(n, p)},
                callback=name,
                pruner=pruner,
            )
        loaded(record, pruner)
    counts = Counter(
        outcome.partition(":")[0]
        for row in record.content["rows"]
        for outcome in row["results"].values()
    )
    print(dict(counts))


if __name__ == "__main__":
    main()
