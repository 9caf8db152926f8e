"""Gradients on TensorFlow: a tape, inside a `tf.function`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf


def value_and_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """See `keras_tickets.backend`."""

    def run(variables: Sequence[Any], *rest: Any) -> Any:
        with tf.GradientTape() as tape:
            for variable in variables:
                tape.watch(variable)
            value, aux = function(variables, *rest)
        gradients = tape.gradient(
            value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return (value, aux), [tf.convert_to_tensor(g) for g in gradients]

    return run


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """See `keras_tickets.backend`."""
    # Without XLA, which has the slower convolutions on a CPU.
    return tf.function(function, autograph=False)


def updating(
    variables: Sequence[keras.Variable], function: Callable[..., Any]
) -> Callable[..., None]:
    """See `keras_tickets.backend`."""

    # Assigned inside, so that no value is copied.
    def run(*rest: Any) -> None:
        values = function(
            [tf.identity(variable.value) for variable in variables], *rest
        )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    return compiled(run)


def settled(tensor: Any) -> Any:
    """Return what NumPy can look at without a copy."""
    # Reading a variable into a tensor first is ten times faster.
    return tf.convert_to_tensor(tensor)


def in_eager(tensor: Any) -> Any:
    """See `keras_tickets.backend`."""
    if tf.is_symbolic_tensor(tensor):
        return None
    with tf.init_scope():
        return tf.convert_to_tensor(tensor)
