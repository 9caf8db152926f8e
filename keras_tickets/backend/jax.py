"""Gradients on JAX: `jax.value_and_grad`, under `jax.jit`."""

from __future__ import annotations

import jax


def value_and_gradient(function):
    """See `keras_tickets.backend`."""
    return jax.value_and_grad(function, has_aux=True)


def compiled(function):
    """See `keras_tickets.backend`."""
    return jax.jit(function)
