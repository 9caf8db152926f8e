"""Masked training step / dense training step, both in one run.

    KERAS_BACKEND=jax python -m benchmarks.step_time

The dense model and the ticket take turns, epoch by epoch, so that whatever else the
machine does falls on both. The ratio is that of the medians; the spread is that of
the ratios of neighbouring epochs.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import keras
import numpy as np
from keras import layers

import keras_tickets as kt
from benchmarks.record import Record
from examples import networks

REPEATS = 5


def wide_mlp(initializer: Any = "glorot_uniform") -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((512,)),
            *(
                layers.Dense(512, "relu", kernel_initializer=initializer)
                for _ in range(12)
            ),
            layers.Dense(10),
        ],
        name="wide_mlp",
    )


# How to build it, shape of one input, batch size, steps of an epoch.
CASES = {
    "mobilenet_small": (networks.mobilenet_small, (32, 32, 3), 128, 8),
    "conv4": (networks.conv4, (32, 32, 3), 128, 8),
    "wide_mlp": (wide_mlp, (512,), 32, 60),
}


def main() -> None:
    backend = keras.backend.backend()
    record = Record(f"step_time_{backend}", "random numbers: only time is measured")
    for name in CASES:
        result = record.row(lambda name=name: measure(name), network=name)
        print(name, result)


def measure(name: str) -> dict:
    build, shape, batch, steps = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch * steps, *shape)).astype("float32")
    y = rng.integers(0, 10, len(x))
    keras.utils.set_random_seed(0)
    dense = build()
    ticket = kt.wrap(build(), kt.Random(0.9, seed=0))
    models = {"dense": dense, "masked": ticket}
    for model in models.values():
        model.compile(
            "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        model.fit(x, y, batch_size=batch, epochs=2, verbose=0)
    seconds = {key: [] for key in models}
    for _ in range(REPEATS):
        for key, model in models.items():
            seconds[key].append(epoch_time(model, x, y, batch))
    median = {key: statistics.median(values) for key, values in seconds.items()}
    ratios = [m / d for m, d in zip(seconds["masked"], seconds["dense"], strict=True)]
    return {
        "batch": batch,
        "weights": ticket.mask_set.count().total,
        "dense_ms_per_step": round(1000 * median["dense"] / steps, 3),
        "masked_ms_per_step": round(1000 * median["masked"] / steps, 3),
        "ratio_of_medians": round(median["masked"] / median["dense"], 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


class StepClock(keras.callbacks.Callback):
    """Measures from the first batch to the last: not the set-up of an epoch."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.params["steps"] - 1:
            float(logs["loss"])  # waits for the device
            self.seconds = time.perf_counter() - self.start


def epoch_time(model: keras.Model, x, y, batch: int) -> float:
    clock = StepClock()
    model.fit(x, y, batch_size=batch, epochs=1, verbose=0, callbacks=[clock])
    return clock.seconds


if __name__ == "__main__":
    main()
