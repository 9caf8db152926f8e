"""Dynamic sparse training, trained and tested: pruner x sparsity x seed.

    python -m benchmarks.dynamic_tickets mnist
    python -m benchmarks.dynamic_tickets cifar10
    python -m benchmarks.dynamic_tickets --plot

`update_every` is chosen once, for RigL, on held-out training data, and used by all
whose masks move.
"""

from __future__ import annotations

import keras_tickets as kt
from benchmarks.accuracy import Setting, Study, main
from examples import networks

STUDY = Study(
    "dynamic_tickets",
    {
        "static": lambda s, data, seed, every: kt.Static(s, seed=seed),
        "set": lambda s, data, seed, every: kt.SET(s, update_every=every, seed=seed),
        "snfs": lambda s, data, seed, every: kt.SNFS(s, update_every=every, seed=seed),
        "rigl": lambda s, data, seed, every: kt.RigL(s, update_every=every, seed=seed),
        "gradual_magnitude": lambda s, data, seed, every: kt.GradualMagnitude(
            s, allocation="erk"
        ),
    },
    {
        "mnist": Setting(networks.lenet_300_100, 60_000, 10_000, 5, 128, (0.98,)),
        "cifar10": Setting(networks.mobilenet_small, 5_000, 5_000, 8, 64, (0.9, 0.95)),
    },
    choices=(25, 50, 100),
    chooser="rigl",
)

if __name__ == "__main__":
    main(STUDY, __doc__)
