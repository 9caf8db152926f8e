"""A scope in which variables have other values, and assignments go through at once.

In Keras' own scope a variable that was assigned reads as the tensor that it was given,
and has the gradient of how that came about. In a model on TensorFlow and torch it does
not: what is read after an assignment is the variable. A layer that normalizes or clips
its weights in `call` would train otherwise, and on torch the variable, written after
the call, would be another than the one that the gradients were recorded for. So each
assignment is made outside of the scope, where it means what it means to the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import keras


@dataclass(frozen=True, eq=False)
class Stored:
    """Where the value of a variable comes from, and where an assigned one goes.

    Args:
        variable: The variable that a layer reads and assigns.
        read: Returns the value that the layer sees.
        assign: Stores what the layer assigns.
    """

    variable: keras.Variable
    read: Callable[[], Any]
    assign: Callable[[Any], Any]

    @classmethod
    def by(cls, target: keras.Variable, variable: keras.Variable) -> Self:
        """Let `target` stand for `variable`, which may be itself."""
        return cls(variable, lambda: target.value, target.assign)


class PassingScope(keras.StatelessScope):
    """Runs a layer with the values of `stored`; collects the losses of `add_loss`.

    Args:
        stored: One for each variable that the layer may read or assign.
    """

    def __init__(self, stored: Sequence[Stored]) -> None:
        values = [(each.variable, each.read()) for each in stored]
        super().__init__(state_mapping=values, collect_losses=True)
        self._stored = {id(each.variable): each for each in stored}
        self._assigned: set[int] = set()
        self._entered = False

    def __enter__(self) -> Self:
        """Let variables read as `stored` says."""
        super().__enter__()
        self._entered = True
        return self

    def __exit__(self, *args: Any, **kwargs: Any) -> None:
        """Let variables read as they did."""
        self._entered = False
        super().__exit__(*args, **kwargs)

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        """Assign outside of the scope; Keras calls it for each assignment inside."""
        variable, value = update
        stored = self._stored.get(id(variable))
        if stored is None:  # made while the layer runs
            super().add_update(update)
            return
        with self._left():
            stored.assign(value)
        self._assigned.add(id(variable))

    def get_current_value(self, variable: keras.Variable) -> Any:
        """Return what the layer reads: after an assignment, the variable anew.

        Not kept as a tensor, which in a branch or a loop would be one of that branch.
        """
        if id(variable) not in self._assigned:
            return super().get_current_value(variable)
        with self._left():
            return self._stored[id(variable)].read()

    @contextlib.contextmanager
    def _left(self) -> Iterator[None]:
        """Go back to the scope around this one, if it is not left already."""
        if not self._entered:
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()
