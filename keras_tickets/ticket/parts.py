"""A ticket taken apart, and put together again around another copy of its model."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_tickets.backend import array_of
from keras_tickets.backend.copying import (
    SavedState,
    load_state,
    saved_state,
    state_variables,
)
from keras_tickets.backend.rebuilding import is_of_keras
from keras_tickets.kernels import Selection, find_kernels, positions
from keras_tickets.masks.masked_layer import masked_layers, without_masks
from keras_tickets.masks.stripping import plain_layers
from keras_tickets.ticket.ticket import Ticket


@dataclass(frozen=True)
class Parts:
    """What a ticket is besides its architecture: masks and start values.

    Args:
        masks: The mask of each kernel, by its position among the kernels of the model,
            in the order of `Ticket.kernels`. Positions outlive paths.
        values: The start values, one array for each weight of the model.
        skipped: Position and reason of the kernels that are left alone.
        remembered: Whether `values` are those from before the draw; if not they are
            what the weights are now.
        states: What layers save besides weights, such as a vocabulary; by `keys`.
    """

    masks: Mapping[int, np.ndarray]
    values: Sequence[np.ndarray]
    skipped: tuple[tuple[int, str], ...] = ()
    remembered: bool = False
    states: Mapping[str, SavedState] = field(default_factory=dict)

    @classmethod
    def of(cls, ticket: Ticket) -> Parts:
        """Take a ticket apart; it is not changed.

        Raises:
            ValueError: If the search for its masks goes on.
        """
        if ticket.unfinished:
            raise ValueError(
                f"{ticket.name!r} is being mined: its masks are at sparsity "
                f"{ticket.sparsity:.4g}, and its scores decide in each step what takes "
                "part. Let the run end, or call fit again with initial_epoch."
            )
        place = positions(ticket.model)
        masks = zip(ticket.kernels, ticket.mask_set.values(), strict=True)
        start = ticket.start
        remembered = start is not None and start.taken
        return cls(
            {place[id(kernel.variable)]: np.array(mask) for kernel, mask in masks},
            start.values() if start and remembered else values_of(ticket.model),
            tuple((place[id(k.variable)], reason) for k, reason in ticket.skipped),
            remembered,
            states_of(ticket.model),
        )

    def join(
        self, model: keras.Model, name: str | None = None, source: str = "the ticket"
    ) -> Ticket:
        """Assign the values to `model` and return a ticket with these masks around it.

        Args:
            model: A model of the same architecture, which is no ticket.
            name: Name of the ticket.
            source: Where the parts come from, for messages.

        Returns:
            A ticket without a pruner; it remembers its start if the parts do.

        Raises:
            ValueError: If a `Masked` layer of `model` holds a kernel without a mask, or
                if a layer cannot load its state; the model is then as it was.
        """
        kernels, place = find_kernels(model), positions(model)
        inside = {
            place[id(kernel.variable)]
            for layer in masked_layers(model)
            for kernel in layer.mask_set.kernels
        }
        for position in sorted(inside - set(self.masks)):
            raise ValueError(
                f"{kernels[position].path!r} of {model.name!r} is inside a Masked "
                f"layer, but {source} does not mask it. Use the layer without Masked."
            )
        own = tuple(kernels[i] for i in sorted(self.masks) if i not in inside)
        skipped = tuple((kernels[i], reason) for i, reason in self.skipped)
        values = list(zip(weights_of(model), self.values, strict=True))
        given = {id(variable): value for variable, value in values}
        layers = keys(model)
        # Keras' own layers load weights of the right shapes, and cannot fail.
        may_fail = {
            key: layer
            for key, layer in layers.items()
            if key in self.states or not is_of_keras(type(layer))
        }
        with _undone_if_it_fails(list(may_fail.values()), source):
            self._load_states(may_fail, given)
            ticket = Ticket(
                model, None, Selection(own, skipped), name, remember=self.remembered
            )
        rest = {key: layer for key, layer in layers.items() if key not in may_fail}
        self._load_states(rest, given)
        for variable, value in values:
            variable.assign(value)
        if ticket.start is not None:
            ticket.start.take()
        ticket.mask_set.assign(
            [self.masks[place[id(kernel.variable)]] for kernel in ticket.kernels]
        )
        return ticket

    def _load_states(
        self, layers: Mapping[str, keras.Layer], values: Mapping[int, Any]
    ) -> None:
        """Let layers that load by methods of their own do so.

        Args:
            layers: The layers, by `keys`.
            values: By `id` of variable, the value that it will have.
        """
        for key, layer in layers.items():
            now = saved_state(layer)
            given = self.states.get(key)
            if now is None:
                continue
            stored = {name: values.get(id(x), x) for name, x in now.values.items()}
            if given is not None:
                load_state(layer, SavedState({**stored, **given.values}, given.assets))
            elif any(id(x) in values for x in now.values.values()):
                load_state(layer, SavedState(stored, now.assets))


@contextlib.contextmanager
def _undone_if_it_fails(layers: Sequence[keras.Layer], source: str) -> Iterator[None]:
    """Give layers that load by methods of their own their state back, on an error.

    Such a method may have loaded a part of it.
    """
    states = [(layer, state) for layer in layers if (state := saved_state(layer))]
    before = [
        (layer, SavedState(dict(map(_copied, state.values.items())), state.assets))
        for layer, state in states
    ]
    variables = [v for layer, _ in before for v in state_variables(layer)]
    values = [array_of(variable) for variable in variables]
    try:
        yield
    except Exception as error:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        for layer, state in before:
            load_state(layer, state)
        if isinstance(error, OSError):
            raise
        names = ", ".join(repr(layer.name) for layer, _ in before)
        raise ValueError(
            f"One of the layers {names} cannot load what {source} holds for it: "
            f"{type(error).__name__}: {error} The model was not changed."
        ) from error


def _copied(item: tuple[str, Any]) -> tuple[str, Any]:
    """Return a value that a layer saves as it is now; a variable as itself."""
    name, value = item
    return name, value if isinstance(value, keras.Variable) else array_of(value)


def keys(model: keras.Model) -> dict[str, keras.Layer]:
    """Return the layers of `model`, by class and number among those of that class.

    Names would not do: Keras numbers them anew in each process.
    """
    counts: Counter[str] = Counter()
    found = {}
    for layer in plain_layers(model):
        name = type(layer).__name__
        found[f"{name}:{counts[name]}"] = layer
        counts[name] += 1
    return found


def states_of(model: keras.Model) -> dict[str, SavedState]:
    """Return what the layers of `model` save besides their weights, by `keys`."""
    weights = {id(variable) for variable in weights_of(model)}
    found = {}
    for key, layer in keys(model).items():
        state = saved_state(layer)
        if state is None:
            continue
        values = {
            name: array_of(value)
            for name, value in state.values.items()
            if id(value) not in weights
        }
        if values or state.assets:
            found[key] = SavedState(values, state.assets)
    return found


def weights_of(model: keras.Model) -> list[keras.Variable]:
    """Return the weights that start values are kept of: all but masks."""
    return without_masks(model, model.weights)


def values_of(model: keras.Model) -> list[np.ndarray]:
    """Return what the weights of `model` are now."""
    return [array_of(variable) for variable in weights_of(model)]
