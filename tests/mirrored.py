"""Trains a ticket on two virtual devices and on one; prints how the masks differ."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
import zoo

import keras_tickets as kt

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def masks(strategy, pruner) -> list[np.ndarray]:
    with strategy.scope():
        ticket = kt.wrap(zoo.build("shared"), pruner())
        zoo.compile_for("shared", ticket, keras.optimizers.SGD(0.05), **zoo.COMPILED)
    zoo.train("shared", ticket, epochs=2)
    assert ticket.mask_set.count() == ticket.pruner.target(ticket.mask_set)
    return ticket.mask_set.values()


# One of each: TensorFlow keeps the shapes of a strategy's reductions for the next one.
both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
alone = tf.distribute.OneDeviceStrategy("CPU:0")
for pruner in (
    lambda: kt.GradualMagnitude(0.8),
    lambda: kt.RigL(0.8, update_every=2, seed=1),
    lambda: kt.SNFS(0.8, update_every=2, seed=1),
    lambda: kt.GemMiner(0.8, every=1, until=1.0, seed=1),
    lambda: kt.IMP(0.5, fraction=0.5),
):
    two, one = masks(both, pruner), masks(alone, pruner)
    print("differing", sum(int((a != b).sum()) for a, b in zip(one, two, strict=True)))
