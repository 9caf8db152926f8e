"""`Pruner`: the callback that wires score, allocation, structure and schedule."""

from __future__ import annotations

import math
import warnings
from typing import Any

import keras
import numpy as np

from keras_tickets import scores
from keras_tickets._util.registry import Registry
from keras_tickets.backend import keras_private
from keras_tickets.masks.constrained import ConstrainedKernels
from keras_tickets.masks.denominators import keep_finite, warn_of_nan
from keras_tickets.masks.masked_call import MaskSet, count
from keras_tickets.masks.pruner_state import PrunerState
from keras_tickets.pruners import collapse
from keras_tickets.pruners.binding import masks_in, ticket_in
from keras_tickets.pruners.drawing import begun, draw
from keras_tickets.pruners.pruning_recipe import PruningRecipe
from keras_tickets.pruners.run_checks import warn_of_late_end
from keras_tickets.pruners.structure_checks import check_structure, misfits
from keras_tickets.recipe import schedules
from keras_tickets.ticket.curve import Curve
from keras_tickets.ticket.ticket import Ticket


class Pruner(PruningRecipe, keras.callbacks.Callback):
    """Score, allocation, structure and schedule, run as a callback.

    Bound to a ticket by `keras_tickets.wrap` it runs by itself in `fit`; in a model
    with `Masked` layers, or around a ticket, it is listed as a callback, before any
    callback that saves.
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
    sparsity after each epoch. Where a metric of the model has that name the key is
    `"ticket_sparsity"`, and a warning says so.

    A copy, by `copy` or `pickle`, is a pruner with the same arguments, which no model
    is bound to.
    """

    curve: Curve | None = None
    """How the last draw went."""

    logged: tuple[str, ...] = ("sparsity",)
    """The keys of `logs` that it writes after each epoch."""

    _taken: frozenset[str] = frozenset()
    _told: frozenset[str] = frozenset()

    def __reduce__(self) -> Any:
        """Return how copies are made: from the arguments, without any state."""
        return _made, (type(self), self._given())

    # -- what it asks of a ticket ----------------------------------------------

    check_every_update = False
    """Whether each update is checked for a cut of the signal, not only the last one
    and those that empty a kernel."""

    keeps_initial_weights = False
    """Whether the ticket keeps the values that its weights start from."""

    trains_ticket = True
    """Whether the epoch at hand trains the final ticket, from its beginning: not so
    while a ticket is searched for, or when weights go back at its end."""

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

    def on_target(self, model: keras.Model) -> bool:
        """Return whether the masks of `model` are what was asked for, and stay so.

        Args:
            model: A `Ticket`, or a model with `Masked` layers.
        """
        return self._met(masks_in(model, self))

    def drives(self, ticket: Ticket) -> bool:
        """Return whether it has begun to work on `ticket`, in this process."""
        mine = getattr(self, "_masks", None)
        return mine is not None and mine is ticket.mask_set

    def _met(self, masks: MaskSet) -> bool:
        """Return whether there are as many zeros as asked for, to a weight group."""
        groups = self.weight_groups(masks.kernels)
        largest = max(own.distinct_sizes[0] for own in groups)
        return 0 <= self.target(masks).kept - masks.count().kept < largest

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
            ValueError: If the pruner's schedule draws while the model trains, or a
                kernel was frozen since the ticket was wrapped.
            LayerCollapseError: If no signal would pass from input to output.
        """
        if not isinstance(self.schedule, schedules.Once):
            raise ValueError(
                f"{type(self).__name__} draws its masks while the model trains "
                f"({self.schedule!r}). Call fit, or use a pruner that draws once, such "
                f"as kt.Magnitude(sparsity={self.sparsity})."
            )
        self._bind(model)
        self._check_frozen()
        self._take_start()
        curve = self.update(self._masks, self.sparsity, verbose)
        self._constrained.zero_dead()
        self._tell_once(misfits(self, self._masks))
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

    def _check_frozen(self) -> None:
        """Raise, before anything changes, if weights that do not train would go."""
        if not self._frozen or not self._will_prune():
            return
        raise ValueError(
            f"{', '.join(self._frozen)}: frozen (trainable is False) since the ticket "
            f"was wrapped. {type(self).__name__} would take weights away, or other "
            "weights in their place, and no training could make up for it. Freeze "
            "layers before kt.wrap, which leaves them alone (now: "
            "kt.wrap(ticket.strip(), pruner)), or let them train until the pruner is "
            "done. Nothing was changed."
        )

    def _will_prune(self) -> bool:
        """Return whether weights are still to go."""
        return self._masks.count().kept > self.target(self._masks).kept

    def _bind(self, model: keras.Model) -> None:
        masks = masks_in(model, self)
        before: MaskSet | None = getattr(self, "_masks", None)
        if before is None or before.masked != masks.masked:  # another model
            self._told = self._taken = frozenset()
        self._masks = masks
        self._constrained = ConstrainedKernels(self._masks.masked)
        ticket = ticket_in(model, self)
        self._wrapped = ticket
        self._start = None if ticket is None else ticket.start
        inner = model if ticket is None else ticket.model
        loss = keras_private.compiled_loss(ticket or model)
        auxiliary = tuple(m.auxiliary for m in self._masks.masked)
        self._task = scores.Task(inner, self._masks.kernels, loss, auxiliary)
        check_structure(self, self._masks.kernels)
        trained = {id(variable) for variable in model.trainable_variables}
        kernels = self._masks.kernels
        self._frozen = [k.path for k in kernels if id(k.variable) not in trained]

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
        """Find the masks of the model that `fit` trains, or of a ticket inside it."""
        super().set_model(model)
        # On JAX a look at `self.model` costs; see `_synchronize`.
        self._fitted = model
        self._bind(model)
        keep_finite(getattr(model, "optimizer", None), model.trainable_variables)
        if ticket := ticket_in(model, self):
            ticket.pruner_runs = True
        self._first_epoch = True

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Draw what is due at the start, and what an earlier run left undone."""
        # Not on_train_begin: a backup is restored only after that.
        if self._first_epoch:
            self._check_frozen()
        self._take_start()
        self._run = schedules.Run(self.params["epochs"], self.params.get("steps"))
        self._epoch = epoch
        self._now = epoch * (self._run.steps or 1)
        if self._first_epoch:
            warn_of_late_end(self, self._fitted, self._run)
        self._first_epoch = False
        first = not self._masks.drawn and self.schedule.due(-1, self._now, self._run)
        if first or self.schedule.finished(self._now, self._run):
            self._update()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Update the masks when the schedule says so."""
        self._note_metrics(logs)
        if self._run.steps is not None:
            self._advance(self._epoch * self._run.steps + batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Finish on target at the end of the run; log the measured sparsity."""
        self._advance((epoch + 1) * (self._run.steps or 1))
        if epoch + 1 >= self._run.epochs:
            self._finish()
        self._hold_constraints()
        self._log(logs, "sparsity", self._masks.count().sparsity)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warn when the masks are not what was asked for."""
        if not self._met(self._masks):
            reached, target = self._masks.count(), self.target(self._masks)
            self._tell_once(
                f"{type(self).__name__} missed its target: asked for sparsity "
                f"{self.sparsity:g} ({target.zeros} zeros), the masks have "
                f"{reached.sparsity:.6g} ({reached.zeros} zeros of {reached.total}). "
                "Either training stopped before the schedule ended, or the masks were "
                "sparser before it began."
            )
        self._tell_once(misfits(self, self._masks))
        warn_of_nan(self._masks.kernels)
        self._warn_of_constraints()

    def _hold_constraints(self) -> None:
        """Let kernels meet their constraints as the forward pass sees them."""
        if self._constrained:
            self._synchronize()
            self._constrained.zero_dead()
            if self.trains_ticket:
                self._constrained.project()

    def _warn_of_constraints(self) -> None:
        if not self._constrained or not self.trains_ticket:
            return
        self._hold_constraints()  # averaged weights (use_ema) came after the epoch
        for path, constraint in self._constrained.violated():
            warnings.warn(
                f"The constraint {constraint} of {path!r} does not hold for the kernel "
                "with its zeros: it puts weights where the mask has none. Leave the "
                f"kernel alone (skip={path!r}), or train it without the constraint.",
                stacklevel=3,
            )

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
        self._constrained.zero_dead()

    def _finish(self) -> None:
        if self.schedule.finished(self._now, self._run):
            return
        before = self._masks.count()
        self.update(self._masks, self.sparsity, self._verbose)
        if self._masks.count() == before:  # as in each `fit` after the target is met
            return
        unit = self.schedule.unit
        reached = self._now / self._run.time(1, unit)
        warnings.warn(
            f"The run was shorter than the schedule of {type(self).__name__}: it ended "
            f"at {reached:g} of {self.schedule.end:g} {unit}. The last update went "
            f"from sparsity {before.sparsity:.4g} to {self.sparsity:g} at once. "
            "Train longer, or give the schedule in fractions of the run.",
            stacklevel=2,
        )

    def _tell_once(self, message: str) -> None:
        """Warn, unless there is nothing to say or it was said in an earlier `fit`."""
        if message and message not in self._told:
            self._told |= {message}
            warnings.warn(message, stacklevel=3)

    def _note_metrics(self, logs: dict | None) -> None:
        """Find out which keys of `logs` are metrics of the model."""
        taken = frozenset(self.logged) & frozenset(logs or {})
        if taken <= self._taken:
            return
        self._taken |= taken
        self._tell_once(
            f"The model has metrics called {', '.join(map(repr, sorted(taken)))}, "
            f"which {type(self).__name__} calls what it logs of the masks. Those of "
            "the model keep the name; that of the masks is logged as "
            f"{', '.join(repr(f'ticket_{name}') for name in sorted(taken))}. Rename "
            'the metric, name="...", to have both under their own.'
        )

    def _log(self, logs: dict | None, name: str, value: float) -> None:
        """Write a key of `logged`, beside a metric of the same name."""
        if logs is not None:
            logs[f"ticket_{name}" if name in self._taken else name] = value


registry = Registry("pruner", Pruner)


def _made(cls: type[Pruner], given: dict[str, Any]) -> Pruner:
    return cls(**given)


def pruner_of(ticket: Ticket) -> Pruner | None:
    """Return the pruner that is bound to `ticket`, if one is."""
    return ticket.pruner if isinstance(ticket.pruner, Pruner) else None
