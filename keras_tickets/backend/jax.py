"""Gradients on JAX: `jax.value_and_grad`, under `jax.jit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras


def value_and_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """See `keras_tickets.backend`."""
    return jax.value_and_grad(function, has_aux=True)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """See `keras_tickets.backend`."""
    return jax.jit(function)


def updating(
    variables: Sequence[keras.Variable], function: Callable[..., Any]
) -> Callable[..., None]:
    """See `keras_tickets.backend`."""
    compute = compiled(function)

    def run(*rest: Any) -> None:
        values = compute([variable.value for variable in variables], *rest)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    return run


def settled(tensor: Any) -> Any:
    """Return what NumPy can look at without a copy."""
    return tensor
