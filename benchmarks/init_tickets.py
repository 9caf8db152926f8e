"""Tickets drawn at initialisation, trained and tested: pruner x sparsity x seed.

python -m benchmarks.init_tickets mnist
python -m benchmarks.init_tickets cifar10
python -m benchmarks.init_tickets --plot
"""

from __future__ import annotations

from typing import Any

import numpy as np

import keras_tickets as kt
from benchmarks.accuracy import Setting, Study, main
from examples import networks

PER_CLASS = 10


def few(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `PER_CLASS` samples of each class."""
    x, y = data
    first = [np.flatnonzero(y == label)[:PER_CLASS] for label in np.unique(y)]
    return x[np.concatenate(first)], y[np.concatenate(first)]


STUDY = Study(
    "init_tickets",
    {
        "synflow": lambda s, data, seed, _: kt.SynFlow(s, on_collapse="warn"),
        "snip": lambda s, data, seed, _: kt.SNIP(s, few(data), on_collapse="warn"),
        "grasp": lambda s, data, seed, _: kt.GraSP(s, few(data), on_collapse="warn"),
        "magnitude": lambda s, data, seed, _: kt.Magnitude(s, on_collapse="warn"),
        "random_erk": lambda s, data, seed, _: kt.Random(
            s, seed=seed, on_collapse="warn"
        ),
    },
    {
        "mnist": Setting(
            networks.lenet_300_100, 60_000, 10_000, 5, 128, (0.9, 0.98, 0.995)
        ),
        "cifar10": Setting(networks.conv4, 3_000, 2_500, 2, 32, (0.98,)),
    },
)

if __name__ == "__main__":
    main(STUDY, __doc__)
