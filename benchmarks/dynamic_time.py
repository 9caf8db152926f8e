"""Epoch of RigL / epoch of a static ticket, both in one run; time of one mask update.

    KERAS_BACKEND=jax python -m benchmarks.dynamic_time
    KERAS_BACKEND=jax python -m benchmarks.dynamic_time mobilenet_small

Both tickets take turns, epoch by epoch, each in one long run so that masks go on
moving. The ratio is that of the medians; the spread is that of neighbouring epochs.
"""

from __future__ import annotations

import statistics
import sys
import time

import keras
import numpy as np

import keras_tickets as kt
from benchmarks.record import Record
from benchmarks.step_time import StepClock, wide_mlp
from examples import networks

REPEATS = 5
EVERY = 100


def alive() -> keras.Model:
    """A wide MLP whose signal survives 90 % zeros: He's scale for what is kept."""
    scale = {"scale": 2 / 0.1, "mode": "fan_in", "distribution": "truncated_normal"}
    # A config, so that each layer draws its own numbers.
    return wide_mlp({"class_name": "VarianceScaling", "config": scale})


# How to build it, shape of one input, batch size, steps of an epoch.
CASES = {
    "mobilenet_small": (networks.mobilenet_small, (32, 32, 3), 128, 100),
    "wide_mlp": (wide_mlp, (512,), 32, 400),
    "wide_mlp_alive": (alive, (512,), 32, 400),
}


class Timed(kt.RigL):
    """RigL that notes how long each update takes, the step before it awaited."""

    def _move(self, step, fraction):
        for variable in self._ticket.trainable_variables:
            keras.ops.convert_to_numpy(variable.value)
        started = time.perf_counter()
        super()._move(step, fraction)
        for masked in self._masks.masked:
            keras.ops.convert_to_numpy(masked.kernel.variable.value[:1])
        self.updates.append(time.perf_counter() - started)


class OneEpoch(keras.callbacks.Callback):
    """Leaves a long run after one of its epochs."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def measure(name: str) -> dict:
    """Return the times of one network."""
    build, shape, batch, steps = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch * steps, *shape)).astype("float32")
    y = rng.integers(0, 10, len(x))
    rigl = Timed(0.9, update_every=EVERY, until=1.0, seed=0)
    rigl.updates = []
    keras.utils.set_random_seed(0)
    tickets = {
        "static": kt.wrap(build(), kt.Static(0.9, seed=0)),
        "rigl": kt.wrap(build(), rigl),
    }
    seconds: dict[str, list[float]] = {key: [] for key in tickets}
    for ticket in tickets.values():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ticket.compile("adam", loss)
    for epoch in range(REPEATS + 1):
        for key, ticket in tickets.items():
            clock = StepClock()
            ticket.fit(
                x,
                y,
                batch_size=batch,
                epochs=REPEATS + 2,
                initial_epoch=epoch,
                verbose=0,
                callbacks=[clock, OneEpoch()],
            )
            if epoch:  # the first compiles
                seconds[key].append(clock.seconds)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    ratios = [r / s for r, s in zip(seconds["rigl"], seconds["static"], strict=True)]
    per_epoch = steps // EVERY
    updates = [1000 * t for t in rigl.updates[per_epoch:]]
    return {
        "batch": batch,
        "steps": steps,
        "update_every": EVERY,
        "weights": tickets["rigl"].mask_set.count().total,
        "static_ms_per_step": round(1000 * median["static"] / steps, 3),
        "rigl_ms_per_step": round(1000 * median["rigl"] / steps, 3),
        "ratio_of_medians": round(median["rigl"] / median["static"], 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "update_ms": [round(t, 1) for t in updates],
        "median_update_ms": round(statistics.median(updates), 1),
        "bytes_of_gradients": sum(
            4 * m.kernel.size for m in tickets["rigl"].mask_set.masked
        ),
        "zero_gradients": round(
            float(
                np.mean(
                    [
                        np.mean(kt.growth.magnitude(m.auxiliary.variable) == 0)
                        for m in tickets["rigl"].mask_set.masked
                    ]
                )
            ),
            3,
        ),
    }


def main() -> None:
    """Measure what is not recorded yet."""
    backend = keras.backend.backend()
    record = Record(f"dynamic_time_{backend}", "random numbers: only time is measured")
    for name in sys.argv[1:] or CASES:
        print(name, record.row(lambda name=name: measure(name), network=name))


if __name__ == "__main__":
    main()
