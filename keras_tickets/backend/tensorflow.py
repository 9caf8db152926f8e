"""Gradients on TensorFlow: a tape, inside a `tf.function`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
