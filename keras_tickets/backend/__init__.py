"""Gradients and compilation on the Keras backend at hand.

Verbs that compose, so that everything else is written once, in `keras.ops`:

- `value_and_gradient(function)`: of `function(variables, *rest) -> (scalar, aux)`, the
  function that returns `(scalar, aux), gradients`. Apply it twice for a second
  derivative.
- `compiled(function)`: the same function, compiled where the backend compiles.
- `updating(variables, function)`: new values for variables, computed and assigned.
- `on_host(tensor)`: a tensor as an array to look at, without a copy where memory is
  shared.
- `in_eager(variable)`: likewise of a variable, in the midst of a trace.
- `array_of(tensor)`: a tensor as an array of its own, to keep or to assign.
- `numbers(variable)`: a weight as an array in float32 or better, to compute with.

`function` takes and returns tensors and (nested) lists of tensors only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np


def _backend() -> ModuleType:
    name = keras.backend.backend()
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise NotImplementedError(
            f"Gradients are taken on tensorflow, jax and torch. The Keras backend here "
            f"is {name!r}. Set KERAS_BACKEND to one of the three, or use a pruner that "
            'needs no gradient, such as kt.Magnitude or kt.Random(allocation="erk").'
        ) from error


def value_and_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that gives `(scalar, aux), gradients`.

    Gradients are with respect to each tensor of the list that is the first argument;
    what the scalar does not depend on has gradient zero.
    """
    return _backend().value_and_gradient(function)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, compiled once for each shape of its arguments."""
    return _backend().compiled(function)


def updating(
    variables: Sequence[keras.Variable], function: Callable[..., Any]
) -> Callable[..., None]:
    """Return what assigns `function(values, *rest)` to `variables`, compiled.

    Called with `rest`; `values` are those that the variables have then.
    """
    own = getattr(_backend(), "updating", None)
    return (own or _updating)(variables, function)


def _updating(
    variables: Sequence[keras.Variable], function: Callable[..., Any]
) -> Callable[..., None]:
    compute = compiled(function)

    def run(*rest: Any) -> None:
        values = compute([variable.value for variable in variables], *rest)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    return run


def on_host(tensor: Any) -> np.ndarray:
    """Return a tensor, or a variable's value, as a read-only array, once computed.

    On a CPU it is a view, where `keras.ops.convert_to_numpy` copies.
    """
    if isinstance(tensor, np.ndarray):
        return tensor
    try:
        look = _backend().settled
    except NotImplementedError:
        look = keras.ops.convert_to_numpy
    return np.asarray(look(tensor))


def in_eager(variable: keras.Variable) -> np.ndarray | None:
    """Return a variable's value while a function is traced.

    `None` where there is none: JAX hands the values over to what it traces.
    """
    try:
        look = _backend().in_eager
    except NotImplementedError:
        return None
    value = look(variable.value)
    return None if value is None else np.asarray(value)


def array_of(tensor: Any) -> np.ndarray:
    """Return a variable or a tensor as an array of its own.

    What is assigned to another variable goes through such an array: JAX donates
    buffers, and two variables must not share one.
    """
    value = tensor.value if isinstance(tensor, keras.Variable) else tensor
    if keras.ops.is_tensor(value):
        value = keras.ops.convert_to_numpy(value)
    return np.array(value)


def numbers(variable: keras.Variable) -> np.ndarray:
    """Return the values of a weight, in float32 or better."""
    precise = str(variable.dtype) == "float64"
    value = variable.value if precise else keras.ops.cast(variable.value, "float32")
    return keras.ops.convert_to_numpy(value)
