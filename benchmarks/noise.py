"""Images of coloured noise, and BatchNorm statistics that are settled on them.

The outputs of an untrained network with BatchNorm are the same for every image until
its statistics are settled: comparing a file with Keras on those would prove nothing.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_tickets.backend.keras_private import sublayers


def coloured_noise(shape: tuple[int, ...], number: int = 16, seed: int = 0):
    """Noise around a colour of its own for each image (or clip, or series)."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(-1, 1, (number, *(1 for _ in shape[:-1]), shape[-1]))
    return (colours + rng.normal(0, 0.3, (number, *shape))).astype("float32")


def settle(model: keras.Model, inputs: Any) -> None:
    """Gives the BatchNorm layers of a model or ticket the statistics of `inputs`."""
    norms = batch_norms(model)
    momentum = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    if norms:
        model(inputs, training=True)
    for layer, before in zip(norms, momentum, strict=True):
        layer.momentum = before


def calm(model: keras.Model) -> None:
    """Moves BatchNorm offsets from 0 to 1, where fewer signals end at a ReLU.

    With offsets of zero a deep random network is chaotic, as no trained one is: its
    layers amplify rounding, so that float16 weights change the outputs of MobileNet by
    3 %. With offsets of one it is 0.3 %.
    """
    for layer in batch_norms(model):
        if layer.center:
            layer.beta.assign(keras.ops.ones(layer.beta.shape))


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [
        layer
        for layer in sublayers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
