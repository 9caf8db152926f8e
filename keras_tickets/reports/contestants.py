"""The rivals of a ticket: its masks shuffled, its weights drawn anew, and others.

Each is a ticket of its own around a fresh copy of the model, with as many weights in
each kernel as the ticket has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np
from keras import ops

from keras_tickets import scores
from keras_tickets.backend import keras_private, on_host
from keras_tickets.backend.agreement import Reference
from keras_tickets.backend.copying import copy_state
from keras_tickets.kernels import find_kernels
from keras_tickets.masks.stripping import pair_layers, rebuild
from keras_tickets.pruners.base import pruner_of
from keras_tickets.pruners.drawing import check_finite
from keras_tickets.recipe.allocation import Group
from keras_tickets.recipe.groups import WeightGroups
from keras_tickets.recipe.schedules import Once
from keras_tickets.recipe.selection import select
from keras_tickets.ticket.parts import Parts, values_of
from keras_tickets.ticket.ticket import Ticket


@dataclass(frozen=True)
class Kind:
    """What a contestant is made of: its masks and its weights, as a table says it."""

    masks: str
    weights: str


KINDS = {
    "ticket": Kind("its own", "start"),
    "shuffled": Kind("shuffled", "start"),
    "reinitialised": Kind("its own", "fresh"),
    "random": Kind("random", "fresh"),
    "inverted": Kind("lowest scores", "start"),
    "dense": Kind("none", "start"),
}


class Contestants:
    """Makes the contestants of a challenge.

    Args:
        ticket: The ticket that is challenged; it is only read.

    Attributes:
        parts: Masks and start values of the ticket.
        bare: The same without what only the ticket itself has to tell.
        left_out: Why a contestant cannot be made, by name.

    Raises:
        ValueError: If the model cannot be copied, a copy computes something else, or
            it gets no fresh weights.
    """

    def __init__(self, ticket: Ticket) -> None:
        # What is learned beside the masks ends with the search: it is in no contestant.
        learned = any(m.auxiliary for m in ticket.mask_set.masked)
        reference = Reference.of(ticket.model if learned else ticket)
        self.ticket = ticket
        self.parts = Parts.of(ticket)
        self.bare = replace(self.parts, skipped=(), remembered=False)
        self.left_out: dict[str, str] = {}
        self._check_fresh()
        now = replace(self.bare, values=values_of(ticket.model))
        copy = now.join(fresh(ticket.model, 0))
        reference.check(copy.model if learned else copy)
        try:
            self._inverted = inverted(ticket, self.bare)
        except (ValueError, TypeError, NotImplementedError) as error:
            self.left_out["inverted"] = str(error)

    @property
    def names(self) -> list[str]:
        """The contestants, the ticket first."""
        return [name for name in KINDS if name not in self.left_out]

    def make(self, name: str, seed: int) -> Ticket:
        """Return a contestant, uncompiled; the same for the same seed."""
        model = fresh(self.ticket.model, seed)
        parts = replace(self.bare, masks=self._masks(name, seed))
        if KINDS[name].weights == "fresh":
            parts = replace(parts, values=values_of(model))
        return parts.join(model, f"{self.ticket.name}_{name}")

    def _masks(self, name: str, seed: int) -> Mapping[int, np.ndarray]:
        masks = self.parts.masks
        if name == "inverted":
            return self._inverted
        if name == "dense":
            return {i: np.ones_like(mask) for i, mask in masks.items()}
        if name in ("shuffled", "random"):
            weight_groups = weight_groups_of(self.ticket, self.parts)
            # Apart: a random ticket is not the shuffled one with other weights.
            stream = (seed, list(KINDS).index(name))
            return {
                i: weight_groups[i].shuffled(mask, np.random.default_rng((*stream, i)))
                for i, mask in masks.items()
            }
        return masks

    def _check_fresh(self) -> None:
        """Raise if two seeds give the same kernels."""
        first, second = (
            find_kernels(fresh(self.ticket.model, seed)) for seed in (0, 1)
        )
        same = [
            np.array_equal(
                on_host(first[i].variable.value), on_host(second[i].variable.value)
            )
            for i in self.parts.masks
        ]
        if all(same):
            raise ValueError(
                f"Copies of {self.ticket.model.name!r} get the same weights whatever "
                f"the seed, in {self.ticket.kernels[0].path!r} and all other masked "
                "kernels, so no weights can be drawn anew. Expected initializers that "
                "draw at random; take fixed seeds out of the code that makes its "
                "layers."
            )


def fresh(model: keras.Model, seed: int) -> keras.Model:
    """Return a copy of `model` whose initializers drew from `seed`.

    Not the weights that `set_random_seed(seed)` gives: the model at hand may have been
    made after that call, and a copy with its weights would be no other. What layers
    learned by `adapt` is copied: no initializer draws it.
    """
    derived = np.random.SeedSequence((seed, len(KINDS))).generate_state(1)
    keras.utils.set_random_seed(int(derived[0]))
    copy = rebuild(model, reseed=True)
    pairs = pair_layers(model, copy)
    copy_state(pairs, but={id(layer) for layer, _ in pairs if not _adapts(layer)})
    return copy


def _adapts(layer: keras.Layer) -> bool:
    return hasattr(layer, "adapt")


def weight_groups_of(ticket: Ticket, parts: Parts) -> dict[int, WeightGroups]:
    """Return what the ticket keeps together in each kernel.

    Single weights where its masks were drawn otherwise.
    """
    own: list[WeightGroups] = []
    if pruner := pruner_of(ticket):
        own = pruner.weight_groups(ticket.kernels)
    found = {}
    for i, (position, mask) in enumerate(parts.masks.items()):
        fits = bool(own) and own[i].matches(mask)
        found[position] = own[i] if fits else WeightGroups.single(mask.shape)
    return found


def inverted(ticket: Ticket, parts: Parts) -> dict[int, np.ndarray]:
    """Return masks that keep the lowest scores, as many in each kernel as the ticket.

    As many whole weight groups as fit that number.

    Raises:
        ValueError: If the scores cannot be taken again; it says why.
    """
    worth = scores_again(ticket, parts)
    check_finite(ticket.kernels, worth)
    weight_groups, masks = weight_groups_of(ticket, parts), {}
    for (position, mask), score in zip(parts.masks.items(), worth, strict=True):
        group = Group((0,), int(np.count_nonzero(mask)))
        all_of_it = [np.ones(mask.shape, bool)]
        [masks[position]] = select(
            [-np.asarray(score)], [group], all_of_it, [weight_groups[position]]
        )
    return masks


def scores_again(ticket: Ticket, parts: Parts) -> list[np.ndarray]:
    """Return what each weight is worth at the start, by the ticket's own score."""
    pruner = pruner_of(ticket)
    if pruner is None:
        raise ValueError("The ticket has no pruner that could score its weights again.")
    learned = pruner.learned_scores(ticket)
    if learned is not None:
        return learned
    name = type(pruner).__name__
    if isinstance(pruner.score, scores.Random):
        raise ValueError(f"{name} draws its masks at random.")
    if not (isinstance(pruner.schedule, Once) and pruner.schedule.at == 0):
        raise ValueError(
            f"{name} scored weights that had trained ({pruner.schedule!r}), not those "
            "of the start."
        )
    model = parts.join(fresh(ticket.model, 0)).model
    kernels = tuple(find_kernels(model)[i] for i in parts.masks)
    task = scores.Task(model, kernels, keras_private.compiled_loss(ticket))
    everything = [ops.ones(kernel.shape, dtype="bool") for kernel in kernels]
    scored = pruner.score.prepare(task)(everything)
    return [np.array(on_host(value)) for value in scored.values]
