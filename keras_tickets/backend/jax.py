"""Gradients on JAX: `jax.value_and_grad`, under `jax.jit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def value_and_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """See `keras_tickets.backend`."""
    return jax.value_and_grad(function, has_aux=True)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """See `keras_tickets.backend`."""
    return jax.jit(function)


def settled(tensor: Any) -> Any:
    """Return what NumPy can look at without a copy."""
    return tensor


def in_eager(tensor: Any) -> Any:
    """See `keras_tickets.backend`."""
    return None if isinstance(tensor, jax.core.Tracer) else tensor
