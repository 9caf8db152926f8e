"""`Pruner`: the callback that wires score, allocation, structure and schedule."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_tickets import allocation as allocations
from keras_tickets import schedules, scores
from keras_tickets import structure as structures
from keras_tickets.masked import masked_layers
from keras_tickets.masking import Count, MaskSet, count
from keras_tickets.prunable import Kernel
from keras_tickets.registry import Configurable, Registry
from keras_tickets.selection import select
from keras_tickets.ticket import Ticket


class LayerCollapseError(ValueError):
    """A draw would leave a layer without a single weight."""


class Pruner(Configurable, keras.callbacks.Callback):
    """A sentence of four words: score, allocation, structure, schedule.

    Bound to a ticket by `keras_tickets.wrap` it runs by itself in `fit`; in a model
    with `Masked` layers it is listed as a callback, before any callback that saves.
    It holds no state: masks, and whether they were drawn, live in the model's
    variables, and the time follows from epoch and batch. A mask update takes place
    after the weight step; what it changes is seen by the next step, without
    compiling again.

    Masks only ever lose weights. So a pruner that is done leaves the masks alone in
    every later `fit`, and one that starts on a sparser ticket than its own target
    does nothing and says so.

    Args:
        sparsity: Final fraction of zeros, in [0, 1).
        score: What a weight is worth; see `keras_tickets.scores`.
        allocation: How many weights each tensor keeps; see
            `keras_tickets.allocation`.
        structure: What is kept together; see `keras_tickets.structure`.
        schedule: When, and how much by then; see `keras_tickets.schedules`.
        on_collapse: `"raise"` or `"warn"` when a layer would lose all its weights.

    The keys `logs["sparsity"]` and `history.history["sparsity"]` hold the measured
    sparsity after each epoch.
    """

    def __init__(
        self,
        sparsity: float,
        score: Any,
        allocation: Any = "global",
        structure: Any = "unstructured",
        schedule: Any = "once",
        on_collapse: str = "raise",
    ) -> None:
        super().__init__()
        if not 0.0 <= sparsity < 1.0:
            raise ValueError(
                f"sparsity is the fraction of zeros and must lie in [0, 1). Received: "
                f"{sparsity!r}. For 90 % zeros write sparsity=0.9."
            )
        if on_collapse not in ("raise", "warn"):
            raise ValueError(
                f'on_collapse must be "raise" or "warn". Received: {on_collapse!r}.'
            )
        self.sparsity = sparsity
        self.score = scores.get(score)
        self.allocation = allocations.get(allocation)
        self.structure = structures.get(structure)
        self.schedule = schedules.get(schedule)
        self.on_collapse = on_collapse
        if self.schedule.initial > sparsity:
            raise ValueError(
                f"The schedule begins at sparsity {self.schedule.initial}, above the "
                f"pruner's {sparsity}. Lower initial=, or raise sparsity=."
            )
        stated = self.schedule.final
        if stated is not None and stated != sparsity:
            raise ValueError(
                f"The schedule ends at sparsity {stated}, the pruner at {sparsity}. "
                f"Give both the same: sparsity={stated}."
            )

    # -- drawing ---------------------------------------------------------------

    def draw(self, model: keras.Model) -> None:
        """Choose the masks of `model` at the final sparsity, now.

        Args:
            model: A `Ticket`, or a model with `Masked` layers.

        Raises:
            ValueError: If the pruner's schedule draws while the model trains.
            LayerCollapseError: If a layer would lose all its weights.
        """
        if not isinstance(self.schedule, schedules.Once):
            raise ValueError(
                f"{type(self).__name__} draws its masks while the model trains "
                f"({self.schedule!r}). Call fit, or use a pruner that draws once, such "
                f"as kt.Magnitude(sparsity={self.sparsity})."
            )
        self.update(mask_set(model, self), self.sparsity)

    def update(self, masks: MaskSet, sparsity: float) -> None:
        """Prune `masks` down to `sparsity`; do nothing if they are as sparse.

        Everything is checked before the first mask changes.
        """
        alive = masks.values()
        groups = self.allocation.groups(masks.kernels, sparsity, self.sparsity)
        if sum(group.keep for group in groups) >= count(alive).kept:
            return
        values = self.score(masks.kernels)
        _check_finite(masks.kernels, values)
        kept = select(values, groups, alive, self.structure)
        self._check_collapse(masks.kernels, alive, kept, sparsity)
        masks.assign(kept)

    def target(self, masks: MaskSet) -> Count:
        """Return the exact count that the masks must have in the end."""
        groups = self.allocation.groups(masks.kernels, self.sparsity, self.sparsity)
        total = sum(kernel.size for kernel in masks.kernels)
        return Count(total, sum(group.keep for group in groups))

    def _check_collapse(
        self,
        kernels: Sequence[Kernel],
        alive: Sequence[np.ndarray],
        kept: Sequence[np.ndarray],
        sparsity: float,
    ) -> None:
        emptied = [
            f"{kernel.path} ({kernel.size} weights)"
            for kernel, before, after in zip(kernels, alive, kept, strict=True)
            if before.any() and not after.any()
        ]
        if not emptied:
            return
        message = (
            f"{type(self).__name__} at sparsity {sparsity:g} keeps {count(kept).kept} "
            f"of {count(kept).total} weights and would leave none in "
            f"{', '.join(emptied)}. Expected every layer to keep at least one. Lower "
            'the sparsity, share the budget out with allocation="erk", or leave the '
            "layer alone with skip=."
        )
        if self.on_collapse == "raise":
            raise LayerCollapseError(
                message + ' on_collapse="warn" draws it all the same.'
            )
        warnings.warn(message, stacklevel=2)

    # -- the callback ----------------------------------------------------------

    def set_model(self, model: keras.Model) -> None:
        """Find the masks of the model that `fit` trains."""
        super().set_model(model)
        self._masks = mask_set(model, self)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Draw what is due at the start, and what an earlier run left undone."""
        # Not on_train_begin: a backup is restored only after that.
        self._run = schedules.Run(self.params["epochs"], self.params.get("steps"))
        self._epoch = epoch
        self._now = epoch * (self._run.steps or 1)
        first = not self._masks.drawn and self.schedule.due(-1, self._now, self._run)
        if first or self.schedule.finished(self._now, self._run):
            self._update()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Update the masks when the schedule says so."""
        if self._run.steps is not None:
            self._advance(self._epoch * self._run.steps + batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Finish on target at the end of the run; log the measured sparsity."""
        self._advance((epoch + 1) * (self._run.steps or 1))
        if epoch + 1 >= self._run.epochs:
            self._finish()
        if logs is not None:
            logs["sparsity"] = self._masks.count().sparsity

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warn when the masks are not what was asked for."""
        reached, target = self._masks.count(), self.target(self._masks)
        if reached != target:
            warnings.warn(
                f"{type(self).__name__} missed its target: asked for sparsity "
                f"{self.sparsity:g} ({target.zeros} zeros), the masks have "
                f"{reached.sparsity:.6g} ({reached.zeros} zeros of {reached.total}). "
                "Either training stopped before the schedule ended, or the masks were "
                "sparser before it began.",
                stacklevel=2,
            )

    def _advance(self, now: int) -> None:
        before, self._now = self._now, now
        if self.schedule.due(before, now, self._run):
            self._update()

    def _update(self) -> None:
        # On JAX this property moves the training state into the variables, and a
        # step that follows reads it back. It costs, so it is touched only when due.
        _ = self.model
        self.update(
            self._masks, self.schedule.value(self._now, self.sparsity, self._run)
        )

    def _finish(self) -> None:
        if self.schedule.finished(self._now, self._run):
            return
        before = self._masks.count().sparsity
        self.update(self._masks, self.sparsity)
        warnings.warn(
            f"The run was shorter than the schedule of {type(self).__name__}: it ended "
            f"at {self._now} of {self.schedule.end:g} {self.schedule.unit}. The last "
            f"update went from sparsity {before:.4g} to {self.sparsity:g} at once. "
            "Train longer, or give the schedule in fractions of the run.",
            stacklevel=2,
        )


registry = Registry("pruner", Pruner)


def mask_set(model: keras.Model, pruner: Pruner) -> MaskSet:
    """Return the masks in `model`: the ticket's, or those of its `Masked` layers.

    Raises:
        ValueError: If there are none.
    """
    if isinstance(model, Ticket):
        return model.mask_set
    layers = masked_layers(model)
    if not layers:
        raise ValueError(
            f"{type(pruner).__name__} found no masks in {type(model).__name__} "
            f"{model.name!r}. Expected a ticket: wrap the model first, ticket = "
            "kt.wrap(model, pruner), and fit the ticket."
        )
    return MaskSet(
        [m for layer in layers for m in layer.mask_set.masked],
        [flag for layer in layers for flag in layer.mask_set.flags],
    )


def _check_finite(kernels: Sequence[Kernel], values: Sequence[np.ndarray]) -> None:
    for kernel, value in zip(kernels, values, strict=True):
        bad = value.size - int(np.count_nonzero(np.isfinite(value)))
        if bad:
            raise ValueError(
                f"{bad} of {kernel.size} scores of {kernel.path!r} are NaN or "
                "infinite, so its weights can not be ranked. Look for diverged or "
                "damaged weights in that layer; no mask was changed."
            )
