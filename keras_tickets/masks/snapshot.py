"""Copies of variables that a checkpoint keeps: what a run may go back to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Self

import keras
import numpy as np

from keras_tickets.backend import array_of, on_host


class Snapshot:
    """Copies of some variables, held by a layer or an optimizer.

    The copies, and whether they were taken, are variables themselves, so a run that is
    killed and resumed has them again.

    Args:
        host: The layer or optimizer that holds the copies; they do not train.
        variables: What is copied.
        name: Told in error messages, and part of the copies' names.

    Attributes:
        variables: What is copied.

    Example:
    >>> import keras
    >>> host, weight = keras.layers.Layer(), keras.Variable([1.0, 2.0])
    >>> snapshot = Snapshot(host, [weight])
    >>> snapshot.take()
    >>> _ = weight.assign([3.0, 4.0])
    >>> snapshot.restore()
    >>> keras.ops.convert_to_numpy(weight).tolist()
    [1.0, 2.0]
    """

    def __init__(
        self,
        host: keras.Layer | keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        name: str = "start",
    ) -> None:
        self.variables = tuple(variables)
        self._whose = f"Snapshot {name!r} of {host.name!r}"
        if isinstance(host, keras.Layer):
            add = partial(host.add_weight, initializer="zeros", trainable=False)
        else:
            add = partial(host.add_variable, initializer="zeros")
        self._copies = [
            add(v.shape, dtype=v.dtype, name=f"{v.name}_{name}") for v in self.variables
        ]
        self._taken = add((), dtype="bool", name=f"{name}_taken")

    @classmethod
    def of_optimizer(
        cls,
        optimizer: keras.optimizers.Optimizer,
        trained: Sequence[keras.Variable],
        name: str,
    ) -> Self:
        """Return a snapshot of all state of `optimizer`, held by itself.

        Args:
            optimizer: The optimizer; it is built, if that was not done.
            trained: What it moves.
            name: Part of the copies' names.
        """
        if not optimizer.built:
            optimizer.build(trained)
        return cls(optimizer, optimizer.variables, name)

    @property
    def taken(self) -> bool:
        """Whether the copies hold anything."""
        return bool(on_host(self._taken.value))

    def take(self) -> None:
        """Copy the values that the variables have now."""
        self.put(array_of(variable) for variable in self.variables)

    def put(self, values: Iterable[np.ndarray]) -> None:
        """Hold `values`, one for each variable, as if they had been taken."""
        for copy, value in zip(self._copies, values, strict=True):
            copy.assign(value)
        self._taken.assign(True)

    def restore(self) -> None:
        """Assign the copies back to the variables.

        Raises:
            RuntimeError: If nothing was taken yet.
        """
        if not self.taken:
            raise RuntimeError(
                f"{self._whose} holds nothing to restore: expected take() to be called "
                f"first. None of its {len(self.variables)} variables was changed."
            )
        for variable, value in zip(self.variables, self.values(), strict=True):
            variable.assign(value)

    def values(self) -> list[np.ndarray]:
        """Return the copies as arrays; zeros if none were taken."""
        return [array_of(copy) for copy in self._copies]
