"""Mined tickets, trained and tested: pruner x sparsity x seed, and challenged.

    KERAS_BACKEND=jax python -m benchmarks.mined_tickets mnist
    python -m benchmarks.mined_tickets --plot

All runs have the same number of epochs in all: Gem-Miner mines in half of them, IMP
cuts them into rounds that drop half of the weights each, the others draw first. The
penalty of Gem-Miner is chosen once, on held-out training data.
"""

from __future__ import annotations

from typing import Any

import keras

import keras_tickets as kt
from benchmarks.accuracy import Setting, Study, main
from benchmarks.init_tickets import few
from examples import networks


def gem_miner(s: float, data: Any, seed: int, penalty: float) -> kt.GemMiner:
    """Return a miner that freezes twice in each epoch."""
    adam = keras.optimizers.Adam(0.01)
    return kt.GemMiner(s, every=0.5, penalty=penalty, optimizer=adam, seed=seed)


STUDY = Study(
    "mined_tickets",
    {
        "gem_miner": gem_miner,
        "imp": lambda s, data, seed, _: kt.IMP(s, fraction=0.5),
        "synflow": lambda s, data, seed, _: kt.SynFlow(s),
        "snip": lambda s, data, seed, _: kt.SNIP(s, few(data)),
        "random_erk": lambda s, data, seed, _: kt.Random(s, seed=seed),
    },
    {
        "mnist": Setting(
            networks.lenet_300_100_norm,
            10_000,
            10_000,
            20,
            128,
            (0.95, 0.98, 0.986),
        ),
    },
    choices=(3e-6, 1e-5, 3e-5, 1e-4),
    chooser="gem_miner",
)

if __name__ == "__main__":
    main(STUDY, __doc__)
