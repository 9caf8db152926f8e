"""Gradients on TensorFlow: a tape, inside a `tf.function`."""

from __future__ import annotations

import tensorflow as tf


def value_and_gradient(function):
    """See `keras_tickets.backend`."""

    def run(variables, *rest):
        with tf.GradientTape() as tape:
            for variable in variables:
                tape.watch(variable)
            value, aux = function(variables, *rest)
        gradients = tape.gradient(
            value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return (value, aux), [tf.convert_to_tensor(g) for g in gradients]

    return run


def compiled(function):
    """See `keras_tickets.backend`."""
    # Without XLA, which has the slower convolutions on a CPU.
    return tf.function(function, autograph=False)
