"""`Pruner`: the callback that wires score, allocation, structure and schedule."""

from __future__ import annotations

import math
import random
import warnings
from typing import TypeVar

import keras
import numpy as np

from keras_tickets import scores
from keras_tickets._util.registry import Registry
from keras_tickets.backend import keras_private
from keras_tickets.masks.masked_call import MaskSet, count
from keras_tickets.masks.masked_layer import masked_layers
from keras_tickets.masks.pruner_state import PrunerState
from keras_tickets.pruners import collapse
from keras_tickets.pruners.drawing import begun, draw
from keras_tickets.pruners.pruning_recipe import PruningRecipe
from keras_tickets.pruners.run_checks import warn_of_late_end
from keras_tickets.pruners.structure_checks import check_structure, warn_of_misfits
from keras_tickets.recipe import schedules
from keras_tickets.ticket.curve import Curve
from keras_tickets.ticket.ticket import Ticket

S = TypeVar("S", bound=PrunerState)


class Pruner(PruningRecipe, keras.callbacks.Callback):
    """Score, allocation, structure and schedule, run as a callback.

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
        structure: What is kept together; see `keras_tickets.structure`. Of groups of
            several weights as many are kept as fit the budget, so there may be more
            zeros than asked for, by less than one group.
        schedule: When, and how much by then; see `keras_tickets.schedules`.
        on_collapse: `"raise"` or `"warn"` when no signal would pass any more.
        rounds: In how many rounds a draw is made, each scoring anew what is left;
            what is kept falls by the same factor in each.

    The keys `logs["sparsity"]` and `history.history["sparsity"]` hold the measured
    sparsity after each epoch.
    """

    curve: Curve | None = None
    """How the last draw went."""

    # -- what it asks of a ticket ----------------------------------------------

    check_every_update = False
    """Whether each update is checked for a cut of the signal, not only the last one
    and those that empty a kernel."""

    keeps_initial_weights = False
    """Whether the ticket keeps the values that its weights start from."""

    starts_sparse = True
    """Whether it can go on from a model with zeros that are kept."""

    def build(self, ticket: Ticket) -> PrunerState:
        """Return what `ticket` holds for the pruner; called once, when it is made.

        Raises:
            ValueError: If the pruner cannot draw a ticket of this model.
        """
        self.check_ticket(ticket)
        return PrunerState(ticket)

    def check_ticket(self, ticket: Ticket) -> None:
        """Raise if the pruner cannot draw `ticket`, whose masks are not made yet."""
        check_structure(self, ticket.kernels)

    def wrap_optimizer(
        self, ticket: Ticket, optimizer: keras.optimizers.Optimizer, saved: bool = False
    ) -> keras.optimizers.Optimizer:
        """Return what `ticket` is to be compiled with.

        Args:
            ticket: The ticket.
            optimizer: What the user wants it to be compiled with.
            saved: Whether `optimizer` comes with a saved ticket, wrapped before.

        Raises:
            ValueError: If the pruner cannot work under `optimizer`.
        """
        return optimizer

    def on_compile(self, ticket: Ticket) -> None:
        """Prepare what depends on the optimizer that `ticket` is compiled with."""

    def learned_scores(self, ticket: Ticket) -> list[np.ndarray] | None:
        """Return what each weight turned out to be worth, if the ticket learned it.

        One array for each of `ticket.kernels`, for `keras_tickets.challenge`; `None`
        if the scores are those of `score`.
        """
        return None

    # -- drawing ---------------------------------------------------------------

    def draw(self, model: keras.Model, verbose: int = 1) -> Curve:
        """Choose the masks of `model` at the final sparsity, now.

        Args:
            model: A `Ticket`, or a model with `Masked` layers.
            verbose: 0 for silence, 1 for a progress bar over the rounds, 2 for a line
                each.

        Returns:
            The sparsity, the densities and the score's measure after each round.

        Raises:
            ValueError: If the pruner's schedule draws while the model trains.
            LayerCollapseError: If no signal would pass from input to output.
        """
        if not isinstance(self.schedule, schedules.Once):
            raise ValueError(
                f"{type(self).__name__} draws its masks while the model trains "
                f"({self.schedule!r}). Call fit, or use a pruner that draws once, such "
                f"as kt.Magnitude(sparsity={self.sparsity})."
            )
        self._bind(model)
        self._take_start()
        curve = self.update(self._masks, self.sparsity, verbose)
        warn_of_misfits(self, self._masks)
        return curve

    def update(self, masks: MaskSet, sparsity: float, verbose: int = 0) -> Curve:
        """Prune `masks` down to `sparsity`; do nothing if they are as sparse.

        Everything is checked before the first mask changes. How it went is returned,
        and kept as `curve` for those who call `fit`.
        """
        before = masks.values()
        keep = self._keep(masks.kernels, sparsity)
        if keep >= count(before).kept:
            self.curve = begun(masks.kernels, before, self.score)
            return self.curve
        model = self._task.model
        collapse.check_paths(model, masks.kernels, keep, self)
        kept, self.curve = draw(self, self._task, before, sparsity, verbose)
        checked = self.score.detects_collapse and math.isfinite(self.curve.measure[-1])
        ends = sparsity == self.sparsity or collapse.newly_empty(before, kept)
        if (ends or self.check_every_update) and not checked:
            collapse.check_flow(model, masks.kernels, before, kept, self)
        masks.assign(kept)
        return self.curve

    def _check_target(self) -> None:
        """Raise, before a long run, if no path from input to output can be kept."""
        kernels = self._masks.kernels
        keep = self._keep(kernels, self.sparsity)
        collapse.check_paths(self._task.model, kernels, keep, self)

    def _bind(self, model: keras.Model) -> None:
        self._masks = masks_in(model, self)
        self._wrapped = model if isinstance(model, Ticket) else None
        self._start = model.start if isinstance(model, Ticket) else None
        inner = model.model if isinstance(model, Ticket) else model
        loss = keras_private.compiled_loss(model)
        auxiliary = tuple(m.auxiliary for m in self._masks.masked)
        self._task = scores.Task(inner, self._masks.kernels, loss, auxiliary)
        check_structure(self, self._masks.kernels)

    def _synchronize(self) -> None:
        """Bring the variables up to date before they are read or changed in `fit`.

        On JAX this property moves the training state into the variables, and a step
        that follows reads it back. It costs, so it is touched only when an update is
        due.
        """
        _ = self.model

    def _take_start(self) -> None:
        """Keep the values that the survivors start from, or note them, once."""
        if self._start is None and self._wrapped is not None:
            self._wrapped.note_weights()
        if self._start is not None and not self._start.taken:
            self._synchronize()
            self._start.take()

    @property
    def _verbose(self) -> int:
        verbose = self.params.get("verbose", 0)
        return 1 if verbose == "auto" else int(verbose)

    # -- the callback ----------------------------------------------------------

    def set_model(self, model: keras.Model) -> None:
        """Find the masks of the model that `fit` trains."""
        super().set_model(model)
        self._bind(model)
        self._looked = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Draw what is due at the start, and what an earlier run left undone."""
        # Not on_train_begin: a backup is restored only after that.
        self._take_start()
        self._run = schedules.Run(self.params["epochs"], self.params.get("steps"))
        self._epoch = epoch
        self._now = epoch * (self._run.steps or 1)
        if not self._looked:
            warn_of_late_end(self, self.model, self._run)
            self._looked = True
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
        groups = self.weight_groups(self._masks.kernels)
        largest = max(own.distinct_sizes[0] for own in groups)
        if not 0 <= target.kept - reached.kept < largest:
            warnings.warn(
                f"{type(self).__name__} missed its target: asked for sparsity "
                f"{self.sparsity:g} ({target.zeros} zeros), the masks have "
                f"{reached.sparsity:.6g} ({reached.zeros} zeros of {reached.total}). "
                "Either training stopped before the schedule ended, or the masks were "
                "sparser before it began.",
                stacklevel=2,
            )
        warn_of_misfits(self, self._masks)

    def _advance(self, now: int) -> None:
        before, self._now = self._now, now
        if self.schedule.due(before, now, self._run):
            self._update()

    def _update(self) -> None:
        self._synchronize()
        schedule = self.schedule
        if self._wrapped is not None:
            schedule = schedule.starting_at(self._wrapped.initial_sparsity)
        sparsity = schedule.value(self._now, self.sparsity, self._run)
        self.update(self._masks, sparsity, self._verbose)

    def _finish(self) -> None:
        if self.schedule.finished(self._now, self._run):
            return
        before = self._masks.count().sparsity
        self.update(self._masks, self.sparsity, self._verbose)
        warnings.warn(
            f"The run was shorter than the schedule of {type(self).__name__}: it ended "
            f"at {self._now} of {self.schedule.end:g} {self.schedule.unit}. The last "
            f"update went from sparsity {before:.4g} to {self.sparsity:g} at once. "
            "Train longer, or give the schedule in fractions of the run.",
            stacklevel=2,
        )


registry = Registry("pruner", Pruner)


def masks_in(model: keras.Model, pruner: Pruner) -> MaskSet:
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
    return MaskSet.joined([layer.mask_set for layer in layers])


def pruner_of(ticket: Ticket) -> Pruner | None:
    """Return the pruner that is bound to `ticket`, if one is."""
    return ticket.pruner if isinstance(ticket.pruner, Pruner) else None


def state_in(model: keras.Model, kind: type[S]) -> S | None:
    """Return the state of `kind` that a ticket holds, or `None` if it holds another."""
    state = model.pruner_state if isinstance(model, Ticket) else None
    return state if isinstance(state, kind) else None


def seed_or_new(seed: int | None) -> int:
    """Return `seed`, or a new one from `keras.utils.set_random_seed`'s generator."""
    return random.randrange(2**31) if seed is None else seed
