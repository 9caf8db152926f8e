"""Booleans that every checkpoint carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import keras

from keras_tickets.backend import in_eager, on_host


class Owner(Protocol):
    """What can own a variable: a layer."""

    add_weight: Callable[..., keras.Variable]


class Flag:
    """A Boolean in a variable of a layer, `False` at first.

    Args:
        host: The layer that owns the variable.
        name: The variable's name.

    Example:
    >>> import keras
    >>> flag = Flag(keras.layers.Layer(), "drawn")
    >>> flag.set()
    >>> bool(flag)
    True
    """

    def __init__(self, host: Owner, name: str) -> None:
        self._seen = False
        self.variable = host.add_weight(
            shape=(), initializer="zeros", dtype="bool", trainable=False, name=name
        )

    def __bool__(self) -> bool:
        self._seen = bool(on_host(self.variable.value))
        return self._seen

    def known(self) -> bool:
        """Return the value while a step is traced too: on JAX, as it was last seen."""
        value = in_eager(self.variable)
        return self._seen if value is None else bool(value)

    @property
    def value(self) -> Any:
        """The tensor, for a step that is compiled."""
        return self.variable.value

    def set(self, value: bool = True) -> None:
        """Assign `value`."""
        self._seen = value
        self.variable.assign(value)
