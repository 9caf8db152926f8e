"""Which variables of an optimizer belong to which weight: its slots.

A weight that grows anew must not inherit the momentum of the one that was dropped.
Keras creates slots through one public method, `add_variable_from_reference`. Noted
down while the optimizer is built, it tells of each weight its slots and their initial
values: exactly, where names are not unique and paths not either.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_tickets import backend


@dataclass(frozen=True, eq=False)
class Slot:
    """A variable that an optimizer keeps for one weight.

    Args:
        variable: The slot, in the shape of the weight.
        initializer: What it starts as.
    """

    variable: keras.Variable
    initializer: Any

    def initial(self) -> float:
        """Return the value that every entry of the slot started with."""
        value = keras.initializers.get(self.initializer)((), self.variable.dtype)
        return float(value)


class Slots:
    """The slots of all weights of a model, by the weight's identity.

    Args:
        weights: What the optimizer that keeps them was built for.
    """

    def __init__(self, weights: Sequence[keras.Variable]) -> None:
        self._weights = tuple(weights)
        self._slots: dict[int, list[Slot]] = {}

    def belong_to(self, weights: Sequence[keras.Variable]) -> bool:
        """Return whether the optimizer was built for exactly these weights."""
        return [id(w) for w in self._weights] == [id(w) for w in weights]

    def note(self, weight: keras.Variable, slot: Slot) -> None:
        """Add a slot of `weight`."""
        self._slots.setdefault(id(weight), []).append(slot)

    def of(self, weight: keras.Variable) -> list[Slot]:
        """Return the slots of `weight` that have its shape.

        Slots of another shape, such as the rows and columns of Adafactor, belong to
        no single entry of the weight.
        """
        slots = self._slots.get(id(weight), [])
        return [s for s in slots if tuple(s.variable.shape) == tuple(weight.shape)]

    def holds(self, variable: keras.Variable) -> bool:
        """Return whether `variable` is a slot that was noted."""
        return any(s.variable is variable for row in self._slots.values() for s in row)


_noted: weakref.WeakKeyDictionary[Any, Slots] = weakref.WeakKeyDictionary()


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the optimizer that moves the weights."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


def split_up(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return whether it hands the weights to several optimizers."""
    several = getattr(keras.optimizers, "MultiOptimizer", None)
    return several is not None and isinstance(innermost(optimizer), several)


def noted(optimizer: keras.optimizers.Optimizer) -> Slots | None:
    """Return the slots of `optimizer`, if `build` built it."""
    return _noted.get(innermost(optimizer))


def replaced(
    optimizer: keras.optimizers.Optimizer,
    replacement: Callable[[keras.optimizers.Optimizer], keras.optimizers.Optimizer],
) -> keras.optimizers.Optimizer:
    """Return `optimizer` with another one in place of the innermost."""
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return replacement(optimizer)
    return keras.optimizers.LossScaleOptimizer(
        replaced(optimizer.inner_optimizer, replacement),
        initial_scale=optimizer.initial_scale,
        dynamic_growth_steps=optimizer.dynamic_growth_steps,
    )


def build(
    optimizer: keras.optimizers.Optimizer, weights: Sequence[keras.Variable]
) -> Slots:
    """Build `optimizer` for `weights` and return its slots.

    Raises:
        ValueError: If it was built before, elsewhere or for other weights: its slots
            cannot be told apart any more, or are not those of `weights`.

    Warns:
        UserWarning: If it keeps variables that belong to no weight it tells of.
    """
    inner = innermost(optimizer)
    slots = _noted.get(inner)
    if slots is not None and slots.belong_to(weights):
        return slots
    if inner.built:
        raise ValueError(
            f"The optimizer {inner.name!r} was built before, for other variables than "
            f"the {len(weights)} that this ticket trains, so grown weights could not "
            "start clean. Pass a fresh optimizer to compile."
        )
    slots = Slots(weights)
    create = inner.add_variable_from_reference

    def noting(
        reference_variable: keras.Variable,
        name: str | None = None,
        initializer: Any = "zeros",
    ) -> keras.Variable:
        slot = create(reference_variable, name=name, initializer=initializer)
        slots.note(reference_variable, Slot(slot, initializer))
        return slot

    inner.add_variable_from_reference = noting
    try:
        optimizer.build(weights)
    finally:
        del inner.add_variable_from_reference
    _noted[inner] = slots
    _warn_of_strangers(inner, slots)
    return slots


class Restart:
    """Lets entries of weights begin anew, with their slots, in one compiled call.

    Args:
        weights: The weights.
        slots: Their slots.
    """

    def __init__(self, weights: Sequence[keras.Variable], slots: Slots) -> None:
        self._rows = [
            (index, variable, initial)
            for index, weight in enumerate(weights)
            for variable, initial in (
                (weight, 0.0),
                *((slot.variable, slot.initial()) for slot in slots.of(weight)),
            )
        ]
        variables = [variable for _, variable, _ in self._rows]
        self._update = backend.updating(variables, self._begun_anew)

    def _begun_anew(self, values: Sequence[Any], where: Sequence[Any]) -> list[Any]:
        return [
            ops.where(where[index], ops.cast(initial, value.dtype), value)
            for (index, _, initial), value in zip(self._rows, values, strict=True)
        ]

    def __call__(self, where: Sequence[np.ndarray]) -> None:
        """Set each weight to zero, and its slots as they began, where `where` says."""
        self._update([ops.convert_to_tensor(mask) for mask in where])


def _warn_of_strangers(optimizer: keras.optimizers.Optimizer, slots: Slots) -> None:
    strangers = [
        variable.path
        for variable in optimizer.variables
        if len(variable.shape) and not slots.holds(variable)
    ]
    if strangers:
        warnings.warn(
            f"{type(optimizer).__name__} keeps variables that it did not create with "
            f"add_variable_from_reference: {', '.join(strangers)}. Which weights they "
            "belong to is not known, so they are not reset where a weight grows anew. "
            "Create them with add_variable_from_reference or add_optimizer_variables.",
            stacklevel=4,
        )
