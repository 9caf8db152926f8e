"""Make the tickets of this folder, as version 0.1.0 saved them.

They were made once, by that version; `test_released.py` loads them for good. To make
those of another version, run this with it, on each backend:

    KERAS_BACKEND=jax python -m tests.released.make
"""

from __future__ import annotations

import pathlib

import keras
import numpy as np
from keras import layers

import keras_tickets as kt

FOLDER = pathlib.Path(__file__).parent
BACKEND = keras.backend.backend()

# On each backend those whose state hangs on the backend or on the optimizer; the others
# once.
PRUNERS = {
    "rigl": lambda: kt.RigL(0.75, update_every=2, seed=1),
    "gem_miner": lambda: kt.GemMiner(0.75, every=1, seed=1),
    "imp": lambda: kt.IMP(0.75, fraction=0.5, rewind_to=1),
}
ONCE = {
    "gradual_magnitude": lambda: kt.GradualMagnitude(0.75, allocation="erk"),
    "snfs": lambda: kt.SNFS(0.75, update_every=2, seed=1),
    "str": lambda: kt.STR(0.75),
    "espn": lambda: kt.ESPN(0.75),
    "edge_popup": lambda: kt.EdgePopup(0.75, seed=1),
    "early_bird": lambda: kt.EarlyBird(0.5),
    "synflow": lambda: kt.SynFlow(0.75, rounds=3),
}


def network() -> keras.Model:
    """A convolution, a normalisation and two dense layers."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(8, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flat"),
            layers.Dropout(0.1, seed=5, name="drop"),
            layers.Dense(6, name="hidden"),
            layers.Dense(3, activation="softmax", name="head"),
        ],
        name="network",
    )


def data() -> tuple[np.ndarray, np.ndarray]:
    """Thirty-two images and their classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 6, 6, 2)).astype("float32"), rng.integers(0, 3, 32)


class Stop(keras.callbacks.Callback):
    """Ends a run of six epochs after the third."""

    def on_epoch_end(self, epoch, logs=None):
        """Stop where a killed run would be taken up again."""
        self.model.stop_training = epoch == 2


def save(name: str, pruner: kt.pruners.Pruner) -> None:
    """Train half of the way; keep the ticket, its weights and what it computes."""
    keras.utils.set_random_seed(0)
    x, y = data()
    ticket = kt.wrap(network(), pruner, remember=True)
    ticket.compile("adam", "sparse_categorical_crossentropy")
    ticket.fit(x, y, batch_size=8, epochs=6, verbose=0, callbacks=[Stop()])
    start = FOLDER / f"{name}_{BACKEND}"
    ticket.save(f"{start}.keras")
    ticket.save_weights(f"{start}.weights.h5")
    outputs = np.asarray(keras.ops.convert_to_numpy(ticket(x, training=False)))
    np.savez_compressed(f"{start}.npz", outputs=outputs, **ticket.masks)
    if name in ("gradual_magnitude", "synflow", "rigl"):
        ticket.save_ticket(f"{start}.ticket.npz", overwrite=True)


if __name__ == "__main__":
    chosen = PRUNERS | (ONCE if BACKEND == "tensorflow" else {})
    for name, pruner in chosen.items():
        save(name, pruner())
        print(name)
