"""Images of coloured noise, and BatchNorm statistics that are settled on them.

The outputs of an untrained network with BatchNorm are the same for every image until
its statistics are settled: comparing a file with Keras on those would prove nothing.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_tickets._keras import sublayers


def coloured_noise(shape: tuple[int, ...], number: int = 16, seed: int = 0):
    """Noise around a colour of its own for each image (or clip, or series)."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(-1, 1, (number, *(1 for _ in shape[:-1]), shape[-1]))
    return (colours + rng.normal(0, 0.3, (number, *shape))).astype("float32")


def settle(model: keras.Model, inputs: Any) -> None:
    """Moves the BatchNorm statistics of a model, or a ticket, to those of `inputs`."""
    norms = [
        layer
        for layer in sublayers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momentum = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.5
    for _ in range(20 if norms else 0):
        model(inputs, training=True)
    for layer, before in zip(norms, momentum, strict=True):
        layer.momentum = before
