"""`Pruner`: the callback that wires score, allocation, structure and schedule."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_tickets import scores
from keras_tickets._util.registry import (
    Configurable,
    Registry,
)
from keras_tickets.backend import keras_private
from keras_tickets.kernels import Kernel
from keras_tickets.masks.auxiliary import Companion
from keras_tickets.masks.masked_call import (
    Count,
    MaskSet,
    count,
)
from keras_tickets.masks.masked_layer import masked_layers
from keras_tickets.pruners import collapse
from keras_tickets.pruners.drawing import (
    begun,
    draw,
)
from keras_tickets.recipe import allocation as allocations
from keras_tickets.recipe import schedules, structures
from keras_tickets.recipe.allocation import Group
from keras_tickets.recipe.groups import WeightGroups
from keras_tickets.ticket.curve import Curve
from keras_tickets.ticket.ticket import Ticket


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

    def __init__(
        self,
        sparsity: float,
        score: Any,
        allocation: Any = "global",
        structure: Any = "unstructured",
        schedule: Any = "once",
        on_collapse: str = "raise",
        rounds: int = 1,
    ) -> None:
        super().__init__()
        if rounds < 1 or rounds != int(rounds):
            raise ValueError(
                f"rounds must be a whole number of at least 1. Received: {rounds!r}."
            )
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
        self.rounds = int(rounds)
        self.curve: Curve | None = None
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

    # -- what it asks of a ticket ----------------------------------------------

    flags: tuple[str, ...] = ()
    """Boolean scalars, `False` at first, that the ticket holds for the pruner.

    With `"settled"` the masks stay for good once the pruner is done, and a later `fit`
    trains the weights under them.
    """

    careful = False
    """Whether each update is checked for a cut of the signal, not only the last one
    and those that empty a kernel."""

    remembers = False
    """Whether the ticket keeps the values that its weights start from."""

    def hold(self, ticket: Ticket) -> None:
        """Add to `ticket`, which has its masks, the variables that the pruner needs.

        Raises:
            ValueError: If the pruner can not draw a ticket of this model.
        """
        self._check_structure(ticket.kernels)

    def companion(
        self, ticket: Ticket, kernel: Kernel, position: int
    ) -> Companion | None:
        """Return what accompanies `kernel`, at this position among all, if anything."""
        return None

    def accept(
        self, ticket: Ticket, optimizer: keras.optimizers.Optimizer, saved: bool = False
    ) -> keras.optimizers.Optimizer:
        """Return what `ticket` is to be compiled with.

        Args:
            ticket: The ticket.
            optimizer: What the user wants it to be compiled with.
            saved: Whether `optimizer` comes with a saved ticket, accepted before.

        Raises:
            ValueError: If the pruner can not work under `optimizer`.
        """
        return optimizer

    def compiled(self, ticket: Ticket) -> None:
        """Prepare what hangs on the optimizer that `ticket` was just compiled with."""

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
        self._remember()
        curve = self.update(self._masks, self.sparsity, verbose)
        self._warn_of_misfits()
        return curve

    def update(self, masks: MaskSet, sparsity: float, verbose: int = 0) -> Curve:
        """Prune `masks` down to `sparsity`; do nothing if they are as sparse.

        Everything is checked before the first mask changes. How it went is returned,
        and kept as `curve` for those who call `fit`.
        """
        alive = masks.values()
        keep = self._keep(masks.kernels, sparsity)
        if keep >= count(alive).kept:
            self.curve = begun(masks.kernels, alive, self.score)
            return self.curve
        model = self._task.model
        collapse.check_paths(model, masks.kernels, keep, self)
        kept, self.curve = draw(self, self._task, alive, sparsity, verbose)
        checked = self.score.detects_collapse and math.isfinite(self.curve.measure[-1])
        ends = sparsity == self.sparsity or collapse.newly_empty(alive, kept)
        if (ends or self.careful) and not checked:
            collapse.check_flow(model, masks.kernels, alive, kept, self)
        masks.assign(kept)
        return self.curve

    def target(self, masks: MaskSet) -> Count:
        """Return the count that the masks must have in the end.

        Exact for single weights; of larger groups as many are kept as fit it.
        """
        total = sum(kernel.size for kernel in masks.kernels)
        return Count(total, self._keep(masks.kernels, self.sparsity))

    def training_flops(self, dense: float, sparse: float, run: schedules.Run) -> float:
        """Return the operations for one sample in one training step, on average.

        Three times those of the forward pass, `E_t[3 f(s_t)]`, with `f` between
        `dense` and `sparse` in proportion to the sparsity that the schedule has
        reached. What a draw itself costs is not counted.

        Args:
            dense: Operations of one dense forward pass.
            sparse: Operations of one forward pass with the kept weights.
            run: How long the model trains.
        """
        points = 1000
        times = [run.length * (i + 0.5) / points for i in range(points)]
        reached = [self.schedule.value(t, self.sparsity, run) for t in times]
        share = sum(reached) / points / self.sparsity if self.sparsity else 0.0
        return 3 * (dense + (sparse - dense) * share)

    def weight_groups(self, kernels: Sequence[Kernel]) -> list[WeightGroups]:
        """Return what is kept together in each kernel."""
        return [self.structure.on(kernel) for kernel in kernels]

    def _check_structure(self, kernels: Sequence[Kernel]) -> None:
        """Raise if the structure does not fit the kernels, or not the budgets."""
        self.structure.check(kernels)
        capacity = [own.capacity for own in self.weight_groups(kernels)]
        if sum(capacity) == sum(kernel.size for kernel in kernels):
            return
        for group in self.groups(kernels, self.sparsity):
            room = sum(capacity[i] for i in group.members)
            if group.keep <= room:
                continue
            total = sum(kernels[i].size for i in group.members)
            raise ValueError(
                f"{type(self).__name__} is to keep {group.keep} of {total} weights in "
                f"{', '.join(kernels[i].path for i in group.members)}, but "
                f"{self.structure.label} leaves at most {room}. Expected a sparsity of "
                f"at least {1 - room / total:g} there; received {self.sparsity:g}"
                f" with {self.allocation!r}."
            )

    def _warn_of_misfits(self) -> None:
        """Warn of masks that do not hold the structure: drawn before, without it."""
        pairs = zip(
            self._masks.kernels, self._weight_groups, self._masks.values(), strict=True
        )
        misfits = [kernel.path for kernel, own, mask in pairs if not own.matches(mask)]
        if misfits:
            warnings.warn(
                f"{type(self).__name__} keeps weights together as {self.structure!r}, "
                f"but the masks of {', '.join(misfits)} do not: they had lost other "
                "weights before, and what is dead stays dead. Draw from a model "
                "without masks: kt.wrap(ticket.strip(), pruner).",
                stacklevel=3,
            )

    def _check_target(self) -> None:
        """Raise, before a long run, if no path from input to output can be kept."""
        kernels = self._masks.kernels
        keep = self._keep(kernels, self.sparsity)
        collapse.check_paths(self._task.model, kernels, keep, self)

    def groups(self, kernels: Sequence[Kernel], sparsity: float) -> list[Group]:
        """Return which kernels share which budget at `sparsity`."""
        return self.allocation.groups(kernels, sparsity, self.sparsity)

    def _keep(self, kernels: Sequence[Kernel], sparsity: float) -> int:
        return sum(group.keep for group in self.groups(kernels, sparsity))

    def _bind(self, model: keras.Model) -> None:
        self._masks = mask_set(model, self)
        self._start = model.start if isinstance(model, Ticket) else None
        inner = model.model if isinstance(model, Ticket) else model
        loss = keras_private.compiled_loss(model)
        companions = tuple(m.companion for m in self._masks.masked)
        self._task = scores.Task(inner, self._masks.kernels, loss, companions)
        self._check_structure(self._masks.kernels)
        self._weight_groups = self.weight_groups(self._masks.kernels)

    def _remember(self) -> None:
        """Keep the values that the survivors start from, once."""
        if self._start is not None and not self._start.taken:
            _ = self.model  # see _update
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

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Draw what is due at the start, and what an earlier run left undone."""
        # Not on_train_begin: a backup is restored only after that.
        self._remember()
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
        largest = max(own.distinct_sizes[0] for own in self._weight_groups)
        if not 0 <= target.kept - reached.kept < largest:
            warnings.warn(
                f"{type(self).__name__} missed its target: asked for sparsity "
                f"{self.sparsity:g} ({target.zeros} zeros), the masks have "
                f"{reached.sparsity:.6g} ({reached.zeros} zeros of {reached.total}). "
                "Either training stopped before the schedule ended, or the masks were "
                "sparser before it began.",
                stacklevel=2,
            )
        self._warn_of_misfits()

    def _advance(self, now: int) -> None:
        before, self._now = self._now, now
        if self.schedule.due(before, now, self._run):
            self._update()

    def _update(self) -> None:
        # On JAX this property moves the training state into the variables, and a
        # step that follows reads it back. It costs, so it is touched only when due.
        _ = self.model
        sparsity = self.schedule.value(self._now, self.sparsity, self._run)
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
