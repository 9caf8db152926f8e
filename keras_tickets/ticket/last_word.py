"""Whether what a user has in hand is what the pruner has left.

The pruner runs first among the callbacks, so each of the others may put other weights
and masks back: `EarlyStopping(restore_best_weights=True)` does so after the last
epoch. What the pruner left is noted right behind it, and compared when `fit` is over.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from keras_tickets.masks.masked_call import Count


@dataclass(frozen=True)
class Standing:
    """How far a ticket has come.

    Args:
        count: Of its masks.
        on_target: Whether they are what the pruner was asked for.
        begun: Whether masks were drawn, or the search for them has begun.
        searching: Whether the search goes on.
        driven: Whether the pruner works on it in this process.
        trained: Whether the epoch at hand has trained the ticket from its beginning;
            not so if it searched, or ends with other weights than it trained.
    """

    count: Count
    on_target: bool
    begun: bool
    searching: bool
    driven: bool
    trained: bool

    def __str__(self) -> str:
        state = ", and its search goes on" if self.searching else ""
        return f"sparsity {self.count.sparsity:.4g}{state}"

    def undone_by(self, now: Standing) -> bool:
        """Return whether a ticket that stood like this is off target by now."""
        moved = (now.count, now.searching) != (self.count, self.searching)
        return moved and not now.on_target


class LastWord(keras.callbacks.Callback):
    """Notes what the pruner leaves; listed right behind it.

    Args:
        look: Returns how far the ticket has come.
        others: The callbacks behind it.

    Attributes:
        epochs: How far it had come at the end of each epoch.
        said: How far it had come at the end of the run, if there was one.
    """

    def __init__(
        self,
        look: Callable[[], Standing],
        others: Sequence[keras.callbacks.Callback],
    ) -> None:
        super().__init__()
        self._look = look
        self._others = tuple(others)
        self.epochs: dict[int, Standing] = {}
        self.said: Standing | None = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Note what the epoch ends with."""
        self.epochs[epoch] = self._look()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Note what the run ends with."""
        self.said = self._look()

    def remarks(self, history: keras.callbacks.History) -> Iterable[str]:
        """Yield what the other callbacks have undone, or saved too early."""
        now = self._look()
        if self.said is not None and self.said.undone_by(now):
            yield (
                f"the pruner had left {self.said}, but now the ticket has {now}. "
                f"{self._cause(now)}"
            )
        for callback in self._others:
            if isinstance(callback, keras.callbacks.EarlyStopping):
                yield from self._untrained(callback, now)
            elif getattr(callback, "save_best_only", False):
                yield from self._saved_early(callback, history)

    def _cause(self, now: Standing) -> str:
        for callback in reversed(self._others):
            epoch = _restored(callback)
            if epoch in self.epochs and self.epochs[epoch].count == now.count:
                return (
                    "EarlyStopping(restore_best_weights=True) put back the best "
                    f"epoch of all, which was epoch {epoch + 1}"
                )
        behind = ", ".join(type(callback).__name__ for callback in self._others)
        return f"A callback behind the pruner changed the masks ({behind or 'none'})"

    def _untrained(self, callback: Any, now: Standing) -> Iterable[str]:
        epoch = _restored(callback)
        if epoch not in self.epochs or not now.on_target:
            return
        if not self.epochs[epoch].trained:
            yield (
                "EarlyStopping(restore_best_weights=True) put back epoch "
                f"{epoch + 1}, in which the ticket was still looked for: its weights "
                "are not those that the epoch was measured with"
            )

    def _saved_early(
        self, callback: Any, history: keras.callbacks.History
    ) -> Iterable[str]:
        values = history.history.get(callback.monitor, [])
        best = [i for i, value in enumerate(values) if value == callback.best]
        # `History` has a row for each epoch; a monitor that came late, fewer values.
        if not best or len(values) != len(history.epoch):
            return
        epoch = history.epoch[best[0]]
        then = self.epochs.get(epoch)
        if then and not (then.on_target and then.trained):
            where = getattr(callback, "filepath", getattr(callback, "directory", ""))
            yield (
                f"{type(callback).__name__}(save_best_only=True) has in {str(where)!r} "
                f"the best epoch of all, which was epoch {epoch + 1}, at {then}"
            )


def _restored(callback: keras.callbacks.Callback) -> int | None:
    """Return the epoch whose weights `callback` has put back, if it has."""
    if not isinstance(callback, keras.callbacks.EarlyStopping):
        return None
    if not callback.restore_best_weights or callback.best_weights is None:
        return None
    return int(callback.best_epoch)


AFTER_FIT = (
    "In its place use kt.BestOnTarget(monitor=...), which keeps the best epoch among "
    "those on target; or call fit again, to prune what came back."
)
AFTER_LOADING = (
    "Load a state on target, such as kt.BestOnTarget(filepath=...) keeps, or call fit, "
    "with initial_epoch if the run goes on from there, before the ticket is used."
)


class Watch:
    """Tells when other weights and masks were loaded than the pruner has left.

    Args:
        look: Returns how far the ticket has come.
        whose: Returns the names of ticket and pruner, and what was asked for.
    """

    def __init__(
        self, look: Callable[[], Standing], whose: Callable[[], str | None]
    ) -> None:
        self._look = look
        self._whose = whose
        self._fitting = False
        self._last = look()

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Look away while a run lasts: it may go on from what is loaded."""
        self._fitting = True
        try:
            yield
        finally:
            self._fitting = False

    def note(self) -> None:
        """Note how far the ticket has come, as its pruner has left it."""
        self._last = self._look()

    def after_loading(self) -> None:
        """Warn if a ticket that was on target is no more; of another, when it is used.

        A run may go on from what was loaded.
        """
        if self._fitting:
            return
        if _done(self._last):
            self.check()
        elif _done(now := self._look()):
            self._last = now

    def after_fit(self, last_word: LastWord, history: keras.callbacks.History) -> None:
        """Warn of what callbacks have undone, or saved too early."""
        for remark in last_word.remarks(history):
            self._warn(remark, AFTER_FIT)
        self.note()

    def check(self) -> None:
        """Warn, once, if other masks than the pruner's are there, and off target."""
        if self._fitting:
            return
        last, self._last = self._last, self._look()
        now = self._last
        if now == last or now.on_target:
            return
        if _done(last) or (now.begun and not now.driven):
            remark = f"other weights and masks were loaded or assigned, with {now}"
            self._warn(remark, AFTER_LOADING)

    def _warn(self, remark: str, way_out: str) -> None:
        if whose := self._whose():
            warnings.warn(f"{whose}: {remark}. {way_out}", stacklevel=4)


def _done(standing: Standing) -> bool:
    return standing.on_target and standing.begun
