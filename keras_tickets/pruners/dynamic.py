"""Dynamic sparse training: masks that move while the model trains.

`Dynamic` is the algorithm; RigL, SET and SNFS differ in where weights grow.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from keras_tickets import scores
from keras_tickets._util import arguments
from keras_tickets.backend import on_host
from keras_tickets.kernels import Kernel
from keras_tickets.masks import optimizer_slots
from keras_tickets.masks import regrowth as growths
from keras_tickets.masks.dense_gradient import Capture
from keras_tickets.masks.flag import Flag
from keras_tickets.masks.masked_layer import masked_layers
from keras_tickets.masks.pruner_state import PrunerState
from keras_tickets.masks.regrowth import magnitude
from keras_tickets.pruners.base import Pruner, registry
from keras_tickets.pruners.binding import seed_or_new, state_in
from keras_tickets.pruners.dynamic_checks import check_optimizer, check_run, updates_due
from keras_tickets.recipe import schedules
from keras_tickets.recipe.groups import WeightGroups
from keras_tickets.recipe.selection import exchange, exchange_by_sign
from keras_tickets.recipe.structures import NM, Unstructured
from keras_tickets.ticket.curve import Curve
from keras_tickets.ticket.ticket import Ticket

DROPS = ("magnitude", "sign")


class DynamicState(PrunerState):
    """Masks, dense gradients if growth reads them, and whether masks have settled.

    Args:
        ticket: What owns the variables.
        decay: Of the running average of dense gradients; `None` holds none.

    Attributes:
        settled: Whether the last update was made, so that masks stay.
        slots: What the optimizer keeps for each weight, once the ticket is compiled.
    """

    def __init__(self, ticket: Ticket, decay: float | None) -> None:
        def capture(state: DynamicState, kernel: Kernel, position: int) -> Any:
            return None if decay is None else Capture(ticket, kernel, decay)

        self.settled = Flag(ticket, "settled")
        super().__init__(ticket, capture)
        self.slots: optimizer_slots.Slots | None = None


@registry.register
class Dynamic(Pruner):
    """Draws a random ticket, then drops and grows weights, as many as it drops.

    Every `update_every` steps each kernel with `n` weights drops the `int(f * n)` of
    least magnitude and grows as many where `growth` says; what was just dropped may
    come back. `f` falls from `drop_fraction` to nothing at `until`. A weight that
    grew starts at zero, and its optimizer slots start as they did at first. How many
    weights a kernel has never changes.

    An update follows a weight step and sees the gradients of that step. The last update
    once made, at `until`, later calls of `fit` leave the masks alone; `kt.wrap` the
    ticket again to go on. A kernel that is frozen, since it was wrapped, keeps its mask
    and weights.

    Args:
        sparsity: Fraction of zeros, in [0, 1), from the first step to the last.
        growth: Where weights grow; see `keras_tickets.growth`.
        allocation: How many weights each kernel has.
        structure: What is dropped and grown together.
        update_every: Training steps between two updates.
        drop_fraction: The fraction of each kernel's weights that the first update
            drops.
        until: The fraction of the run after which masks stay.
        decay: How the drop fraction falls: the name of a schedule; `"cosine"`,
            `"constant"`, or `schedules.Polynomial(power=k)` for `(1 - t / until)^k`.
        seed: Integer that fixes the first masks, and random growth.
        on_collapse: `"raise"` or `"warn"` when the first masks let no signal pass.
        drop: `"magnitude"` drops the weights nearest to zero; `"sign"` drops, of the
            positive and of the negative ones, each the fraction nearest to zero.
        update_at_start: Whether the first step is followed by an update, too.
    """

    def __init__(
        self,
        sparsity: float,
        growth: Any,
        allocation: Any = "erk",
        structure: Any = "unstructured",
        update_every: int = 100,
        drop_fraction: float = 0.3,
        until: float = 0.75,
        decay: Any = "cosine",
        seed: int | None = None,
        on_collapse: str = "raise",
        drop: str = "magnitude",
        update_at_start: bool = False,
    ) -> None:
        self.seed = seed_or_new(seed)
        score = scores.Random(self.seed)
        super().__init__(sparsity, score, allocation, structure, "once", on_collapse)
        self.update_every = arguments.whole(
            "update_every counts training steps and", update_every, least=1
        )
        self.drop_fraction = arguments.number("drop_fraction", drop_fraction, "(0, 1]")
        self.until = arguments.number(
            "until is a fraction of the run and", until, "(0, 1]"
        )
        if isinstance(self.structure, NM):
            raise ValueError(
                f"{type(self).__name__} grows weights where they are wanted most, "
                f"which {self.structure.label} would not leave free. Use blocks or "
                "channels, which move as a whole, or draw the pattern with kt.Static "
                "or kt.GradualMagnitude."
            )
        self.drop = arguments.word("drop", drop, DROPS)
        if drop == "sign" and not isinstance(self.structure, Unstructured):
            raise ValueError(
                'drop="sign" goes by the sign of single weights, which '
                f"structure={structure!r} does not drop one by one. Use "
                'drop="magnitude", or structure="unstructured".'
            )
        self.update_at_start = arguments.switch("update_at_start", update_at_start)
        self.growth = growths.get(growth, self.seed)
        self.decay = schedules.get(decay)
        self._slots: optimizer_slots.Slots | None = None

    def fraction(self, progress: float) -> float:
        """Return the fraction of weights dropped at `progress` on the way to `until`.

        Example:
        >>> import keras_tickets as kt
        >>> [round(kt.RigL(0.9).fraction(t), 6) for t in (0, 0.25, 0.5, 0.75, 1)]
        [0.3, 0.256066, 0.15, 0.043934, 0.0]
        """
        return self.decay.curve(progress, self.drop_fraction, 0.0)

    # -- what the ticket and its optimizer must give --------------------------------

    def build(self, ticket: Ticket) -> DynamicState:
        """Return masks, and what holds the dense gradients if `growth` reads them."""
        self.check_ticket(ticket)
        return DynamicState(ticket, self.growth.decay)

    def check_ticket(self, ticket: Ticket) -> None:
        """Raise if there are kernels whose dense gradient the ticket cannot hold."""
        super().check_ticket(ticket)
        inside = masked_layers(ticket.model)
        if inside and self.growth.decay is not None:
            raise ValueError(
                f"{type(self).__name__} needs the dense gradients of all kernels that "
                f"are masked, which a Masked layer ({inside[0].name!r}) does not hold. "
                "Wrap a model without Masked layers, or use kt.SET, which needs none."
            )

    def wrap_optimizer(
        self, ticket: Ticket, optimizer: keras.optimizers.Optimizer, saved: bool = False
    ) -> keras.optimizers.Optimizer:
        """Raise if slots, or dense gradients, cannot be had under `optimizer`."""
        check_optimizer(type(self).__name__, optimizer, self.growth.decay)
        return optimizer

    def on_compile(self, ticket: Ticket) -> None:
        """Note which slots of the optimizer belong to which weight."""
        slots = optimizer_slots.build(ticket.optimizer, ticket.trainable_variables)
        if state := state_in(ticket, DynamicState):
            state.slots = slots

    # -- the callback ----------------------------------------------------------------

    def draw(self, model: keras.Model, verbose: int = 1) -> Curve:
        """Draw the first masks, now; say which kernels will never have a weight."""
        curve = super().draw(model, verbose)
        self._warn_of_empty()
        self._told = frozenset()  # the first `fit` says so, too
        return curve

    def _warn_of_empty(self) -> None:
        masked = self._masks.masked
        empty = [m.kernel.path for m in masked if not on_host(m.mask.value).any()]
        if empty:
            self._tell_once(
                f"{', '.join(empty)} got no weights at sparsity {self.sparsity:g}, and "
                f"{type(self).__name__} holds the number of each kernel, so they will "
                "stay empty. Lower the sparsity, name a sparsity for them in "
                "allocation={...}, or leave them alone with skip=."
            )

    def set_model(self, model: keras.Model) -> None:
        """Find the ticket that `fit` trains."""
        super().set_model(model)
        state = state_in(model, DynamicState)
        if state is None or state.slots is None:
            raise ValueError(
                f"{type(self).__name__} restarts the optimizer's slots of the weights "
                "that grow, which only its own ticket knows. Wrap the model with it: "
                f"ticket = kt.wrap(model, kt.{type(self).__name__}(...)), then compile "
                "and fit the ticket."
            )
        if optimizer_slots.noted(model.optimizer) is not state.slots:
            raise ValueError(
                f"The optimizer of {model.name!r} was changed after compile, so which "
                "of its variables belong to which weight is not known. Compile the "
                "ticket with it: ticket.compile(optimizer, ...)."
            )
        self._state = state
        if self._slots is not state.slots:  # else compiled in an earlier fit
            kernels = [kernel.variable for kernel in self._masks.kernels]
            self._restart = optimizer_slots.Restart(kernels, state.slots)
            self._slots = state.slots

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Begin to count what this `fit` does."""
        self._begun: int | None = None
        self._updates = self._exchanges = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Draw the first masks; say which kernels will never have a weight."""
        self._settled = bool(self._state.settled)
        if not self._settled:
            run = schedules.Run(self.params["epochs"], self.params.get("steps"))
            first = 1 if self.update_at_start else self.update_every
            check_run(first, self.until, run)
        super().on_epoch_begin(epoch, logs)
        if self._begun is None:  # not on_train_begin: a backup is restored after that
            self._begun = self._now
            self._begun_settled = self._settled
            self._warn_of_empty()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Warn when masks that were to move have not."""
        super().on_train_end(logs)
        if self._begun is None or self._begun_settled or self._exchanges:
            return
        due = updates_due(
            self.update_every, self.until, self._run, self._begun, self._now
        )
        due += self.update_at_start and not self._begun and self._now > 0
        if due or not self._begun:  # else resumed after the last update
            warnings.warn(
                f"{type(self).__name__} moved no weight up to step {self._now} of "
                f"{self._run.length}: {self._why_not(due)}, or use kt.Static.",
                stacklevel=2,
            )

    def _why_not(self, due: int) -> str:
        every = f"update_every={self.update_every}"
        plain = isinstance(self.structure, Unstructured)
        if not due:
            return f"training stopped before the first update ({every}). Train longer"
        if not self._updates:
            return (
                f"{due} updates ({every}, until={self.until:g}) fell into these steps, "
                "and steps_per_execution stepped over all of them. Lower it"
            )
        return (
            f"in each of {self._updates} updates int(f * n) was 0 for every kernel of "
            f"n {'weights' if plain else 'groups'} that trains, with f falling from "
            f"drop_fraction={self.drop_fraction:g}. Raise it, lower the sparsity"
        )

    def _advance(self, now: int) -> None:
        before = self._now
        super()._advance(now)
        if self._settled:
            return
        end = self._run.time(self.until, "fraction")
        if now >= end:
            self._synchronize()
            self._state.settled.set()
            self._settled = True
        elif self.update_at_start and not before:
            self._synchronize()
            self._move(now, self.fraction(0.0))  # at the gradients of step 0
        elif now // self.update_every > before // self.update_every:
            self._synchronize()
            self._move(now, self.fraction(now / end))

    def _move(self, step: int, fraction: float) -> None:
        """Drop and grow in every kernel."""
        old = [on_host(masked.mask.value) for masked in self._masks.masked]
        groups = self.weight_groups(self._masks.kernels)
        with ThreadPoolExecutor() as threads:  # NumPy's loops run side by side
            new = list(
                threads.map(
                    lambda index: self._moved(
                        index, old[index], groups[index], step, fraction
                    ),
                    range(len(old)),
                )
            )
        self._updates += 1
        self._exchanges += any(a is not b for a, b in zip(old, new, strict=True))
        self._restart([after & ~before for before, after in zip(old, new, strict=True)])
        for masked, mask in zip(self._masks.masked, new, strict=True):
            masked.mask.assign(mask)
        self._constrained.zero_dead()

    def _moved(
        self,
        index: int,
        mask: np.ndarray,
        groups: WeightGroups,
        step: int,
        fraction: float,
    ) -> np.ndarray:
        """Return the next mask of one kernel; the same one if nothing is to move."""
        masked = self._masks.masked[index]
        if not masked.kernel.variable.trainable:  # frozen since it was wrapped
            return mask
        if fraction * np.count_nonzero(groups.count(mask)) < 1:
            return mask
        size = magnitude(masked.kernel.variable)
        wanted = self.growth.scores(masked, index, step)
        if np.isnan(size.sum() + wanted.sum()):
            raise ValueError(
                f"Weights or gradients of {masked.kernel.path!r} are NaN at step "
                f"{step}, so none can be dropped or grown. Training has diverged: "
                "lower the learning rate, or clip the gradients. No mask was changed."
            )
        if self.drop == "sign":
            negative = on_host(masked.kernel.variable.value) < 0
            signed = np.where(negative, -size, size)
            return exchange_by_sign(signed, wanted, mask, fraction)
        return exchange(size, wanted, mask, fraction, groups)
