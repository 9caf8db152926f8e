"""`BestOnTarget`: the best epoch among those in which the ticket was on target."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import keras

from keras_tickets._util.registry import PACKAGE, Configurable
from keras_tickets.pruners.base import Pruner
from keras_tickets.ticket.ticket import Ticket

SUFFIX = ".weights.h5"


@keras.saving.register_keras_serializable(package=PACKAGE)
class BestOnTarget(Configurable, keras.callbacks.EarlyStopping):
    """Keeps the best epoch among those on target, and restores it after the last one.

    The best epoch of all is often a dense one, from before the pruner was done. That
    is what `EarlyStopping(restore_best_weights=True)` gives back, and what is in the
    file of `ModelCheckpoint(save_best_only=True)`; use this in their place. An epoch
    takes part if it ends with the masks that the pruner was asked for, and has trained
    that ticket from its beginning: no search for masks, and of IMP the last round
    only. If none takes part, nothing is restored.

    Args:
        monitor: What is compared, a key of the logs.
        mode: `"min"`, `"max"`, or `"auto"` to tell by the name of the metric.
        min_delta: The least change that counts as better.
        patience: Training stops after so many epochs on target without a better one;
            by default it runs to its end.
        filepath: A file, ending in `.weights.h5`, in which the best epoch is kept
            instead of in memory; `load_weights` reads it. A run that is killed and
            resumed (`BackupAndRestore`, or `initial_epoch`) goes on from it.
        verbose: 1 says which epoch was restored.
        pruner: The pruner, of a model with `Masked` layers; a ticket knows its own.

    Raises:
        ValueError: If `filepath` does not end in `.weights.h5`; in `fit`, if the model
            is no ticket and no pruner was given.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.GradualMagnitude(0.75))
    >>> ticket.compile("adam", "mse")
    >>> x, y = keras.ops.ones((8, 8)), keras.ops.ones((8, 4))
    >>> best = kt.BestOnTarget("loss")
    >>> history = ticket.fit(x, y, epochs=8, verbose=0, callbacks=[best])
    >>> ticket.sparsity, best.best_epoch
    (0.75, 7)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: str = "auto",
        min_delta: float = 0.0,
        patience: float = math.inf,
        filepath: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        pruner: Pruner | None = None,
    ) -> None:
        super().__init__(
            monitor,
            min_delta=min_delta,
            patience=patience,
            verbose=verbose,
            mode=mode,
            restore_best_weights=filepath is None,
        )
        if filepath is not None and not str(filepath).endswith(SUFFIX):
            raise ValueError(
                f"filepath must end in {SUFFIX!r}, as Keras names files of weights. "
                f"Received: {str(filepath)!r}."
            )
        self.filepath = None if filepath is None else str(filepath)
        self.pruner = pruner
        self._known: tuple[Any, ...] | None = None
        self._in_file = False

    def set_model(self, model: keras.Model) -> None:
        """Find the pruner that says what is on target."""
        if not isinstance(model, Ticket) and self.pruner is None:
            raise ValueError(
                f"BestOnTarget asks the pruner whether {model.name!r} is on target; "
                "only a ticket knows its own. For a model with Masked layers pass it: "
                "kt.BestOnTarget(pruner=pruner)."
            )
        super().set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Begin anew; whether an earlier run goes on, its first epoch tells."""
        # Not here: a backup is restored by a callback that may come later.
        super().on_train_begin(logs)
        self._in_file = False
        self._first = True

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Take up what an earlier run has kept, if this one goes on from it."""
        if self._first and epoch:
            self._take_up(epoch)
        elif self._first:
            self._known = None
        self._first = False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keep the epoch if it is on target and the best so far."""
        value = (logs or {}).get(self.monitor)
        if not self._takes_part() or (value is not None and math.isnan(value)):
            return
        before = self.best
        super().on_epoch_end(epoch, logs)
        if self.best is before:
            return
        self._known = (self.best, epoch, self.best_weights)
        if self.filepath is not None:
            self._write(Path(self.filepath), epoch)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Restore the best epoch on target."""
        super().on_train_end(logs)
        if self._in_file:
            if self.verbose:
                print(f"Restoring epoch {self.best_epoch + 1} from {self.filepath}.")
            self.model.load_weights(self.filepath)

    def _takes_part(self) -> bool:
        model = self.model
        pruner = model.pruner if isinstance(model, Ticket) else self.pruner
        return pruner is None or (pruner.trains_ticket and pruner.on_target(model))

    # -- the file --------------------------------------------------------------------

    def _write(self, path: Path, epoch: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_name("new_" + path.name)
        self.model.save_weights(whole, overwrite=True)
        whole.replace(path)
        note = {"monitor": self.monitor, "epoch": epoch, "value": float(self.best)}
        _beside(path).write_text(json.dumps(note))
        self._in_file = True

    def _take_up(self, epoch: int) -> None:
        if self.filepath is not None:
            self._known = self._read(Path(self.filepath))
            self._in_file = self._known is not None
        if self._known is not None:
            self.best, self.best_epoch, self.best_weights = self._known
            self.wait = max(0, epoch - 1 - self.best_epoch)

    def _read(self, path: Path) -> tuple[Any, ...] | None:
        if not path.exists() or not _beside(path).exists():
            return None
        note = json.loads(_beside(path).read_text())
        if note["monitor"] != self.monitor:
            return None
        return note["value"], note["epoch"], None


def _beside(path: Path) -> Path:
    """Return the file that says of which epoch the weights are."""
    return path.with_name(path.name.removesuffix(SUFFIX) + ".best.json")
