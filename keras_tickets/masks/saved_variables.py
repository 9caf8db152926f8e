"""What Keras has saved of a layer's own variables, checked before any is assigned.

Keras casts what it loads to the dtype of the variable: of a mask that was stored in
another dtype, every number but zero would be "kept".
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_tickets.backend import keras_private


def check_saved(layer: keras.Layer, store: Any) -> None:
    """Raise unless what is saved fits the variables that `layer` itself holds.

    Args:
        layer: A layer whose variables Keras is about to load, by their number.
        store: What Keras loads them from.

    Raises:
        ValueError: Naming the first that does not; none was assigned.
    """
    variables = keras_private.own_variables(layer)
    saved = set(store.keys())
    if saved != set(map(str, range(len(variables)))):
        names = [variable.name for variable in variables]
        raise ValueError(
            f"{layer.name!r} has {len(variables)} variables of its own ({names}), but "
            f"the file holds {len(saved)}. {_WAY_OUT}"
        )
    for number, variable in enumerate(variables):
        found = _misfit(store, str(number), variable)
        if found:
            raise ValueError(
                f"{variable.name!r} of {layer.name!r} is {variable.dtype} "
                f"{tuple(variable.shape)}, but the file holds {found}. {_WAY_OUT}"
            )


_WAY_OUT = (
    "It was not saved from such a ticket, or is damaged: save it again, or build the "
    "ticket as it was built. Nothing of it was loaded."
)


def _misfit(store: Any, key: str, variable: keras.Variable) -> str | None:
    """Return what is stored, if it cannot be the value of `variable`."""
    shape = keras_private.stored_shape(store, key)
    if shape != tuple(variable.shape):
        return "no array" if shape is None else f"the shape {shape}"
    value = np.asarray(store[key])
    if _kind(str(value.dtype)) != _kind(str(variable.dtype)):
        return str(value.dtype)
    # HDF5 stores booleans in bytes, and bytes hold more.
    if value.dtype == bool and value.view(np.uint8).max(initial=0) > 1:
        return "bytes that are neither 0 nor 1"
    return None


def _kind(dtype: str) -> str:
    """Return what Keras may cast within: numbers of one kind."""
    names = ("bool", "float", "bfloat", "int", "uint")
    found = next((name for name in names if dtype.startswith(name)), dtype)
    return found.removeprefix("b" if found == "bfloat" else "u")
