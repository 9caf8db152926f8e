"""Is what Gem-Miner finds a ticket? Mined once for each sparsity, then challenged.

    KERAS_BACKEND=jax python -m benchmarks.mined_challenge

Rates and penalty are those that `benchmarks.mined_tickets mnist` chose; mining takes as
many epochs as there, and so does training each contestant.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

import keras_tickets as kt
from benchmarks.accuracy import SEEDS
from benchmarks.mined_tickets import STUDY, gem_miner
from benchmarks.record import Record
from examples import datasets
from keras_tickets.ticket.parts import Parts


def main() -> None:
    """Measure what is not recorded yet."""
    setting = STUDY.settings["mnist"]
    train, test, provenance = datasets.load("mnist")
    train = tuple(part[: setting.samples] for part in train)
    epochs = setting.epochs // 2
    chosen = Record("mined_tickets_mnist", provenance)
    rate, penalty = STUDY.chosen(chosen, setting, train)

    def fit(model: keras.Model) -> float:
        _compile(model, rate)
        model.fit(*train, batch_size=setting.batch, epochs=epochs, verbose=0)
        return model.evaluate(*test, verbose=0)[1]

    def mine(sparsity: float) -> kt.Ticket:
        keras.utils.set_random_seed(0)
        pruner = gem_miner(sparsity, train, 0, penalty)
        pruner = pruner.from_config({**pruner.get_config(), "until": 1.0})
        ticket = kt.wrap(setting.build(train[0].shape[1:]), pruner)
        _compile(ticket, rate)
        ticket.fit(*train, batch_size=setting.batch, epochs=epochs, verbose=0)
        return ticket

    def challenged(sparsity: float) -> dict:
        ticket = mine(sparsity)
        mined = ticket.evaluate(*test, verbose=0)[1]
        result = kt.challenge(ticket, fit, seeds=SEEDS, verbose=0)
        print(result, flush=True)
        return {
            "untrained": mined,
            "kept": [int(mask.sum()) for mask in ticket.mask_set.values()],
            "runs": {name: list(runs) for name, runs in result.runs.items()},
            "left_out": dict(result.left_out),
            "verdict": result.verdict,
        }

    def same_inputs(sparsity: float) -> dict:
        """Train masks shuffled so that each input keeps its number of weights."""
        parts = Parts.of(mine(sparsity))
        runs = []
        for seed in SEEDS:
            keras.utils.set_random_seed(seed)
            rng = np.random.default_rng(seed)
            masks = {i: rng.permuted(m, axis=1) for i, m in parts.masks.items()}
            model = setting.build(train[0].shape[1:])
            runs.append(fit(replace(parts, masks=masks).join(model)))
        return {"runs": runs}

    record = Record("mined_challenge", provenance)
    for sparsity in setting.sparsities:
        common = {"sparsity": sparsity, "epochs": epochs}
        record.row(lambda s=sparsity: challenged(s), **common)
        shuffled = "shuffled, each input keeps its number of weights"
        print(record.row(lambda s=sparsity: same_inputs(s), what=shuffled, **common))


def _compile(model: Any, rate: float) -> None:
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )


if __name__ == "__main__":
    main()
