"""Accuracy studies: pruner x sparsity x seed, with everything fixed beforehand.

The learning rate (and what else a study asks) is chosen once, on a part of the
training set that is then trained on as well; the test set is looked at after the last
epoch of a run and never before. A network that collapsed is a row like any other.
"""

from __future__ import annotations

import json
import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

import keras_tickets as kt
from benchmarks.record import RESULTS, Record
from examples import datasets

RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Setting:
    """One network on one data set.

    Args:
        build: Makes the network from the shape of an image.
        samples: How many training images are used, the first ones.
        tested: How many test images, the first ones.
        epochs: Epochs of each run.
        batch: Batch size.
        sparsities: Which sparsities.
    """

    build: Callable[[Sequence[int]], keras.Model]
    samples: int
    tested: int
    epochs: int
    batch: int
    sparsities: tuple[float, ...]


# pruner(sparsity, training data, seed, what was chosen on held-out data)
Maker = Callable[[float, Any, int, Any], kt.pruners.Pruner]


@dataclass(frozen=True)
class Study:
    """What is compared.

    Args:
        name: Of the files of results.
        pruners: What is compared, by name.
        settings: Where, by data set.
        choices: Values of a further hyper-parameter, and
        chooser: the pruner that chooses among them on held-out data.
    """

    name: str
    pruners: Mapping[str, Maker]
    settings: Mapping[str, Setting]
    choices: tuple[Any, ...] = ()
    chooser: str = ""

    def run(self, name: str) -> None:
        """Choose, then run every pruner, sparsity and seed."""
        setting = self.settings[name]
        train, test, provenance = datasets.load(name)
        train = tuple(part[: setting.samples] for part in train)
        test = tuple(part[: setting.tested] for part in test)
        record = Record(f"{self.name}_{name}", provenance)
        rate, choice = self.chosen(record, setting, train)
        common = {"rate": rate, "epochs": setting.epochs, "samples": setting.samples}
        for seed in SEEDS:
            for pruner in ("dense", *self.pruners):
                for sparsity in setting.sparsities if pruner != "dense" else (0.0,):
                    result = record.row(
                        lambda p=pruner, s=sparsity, i=seed: self._one(
                            setting, p, s, i, train, test, rate, choice
                        ),
                        pruner=pruner,
                        sparsity=sparsity,
                        **common,
                        seed=seed,
                    )
                    print(seed, pruner, sparsity, result, flush=True)
        print(self.table(name))

    def chosen(self, record: Record, setting: Setting, train: Any) -> tuple:
        """Return the learning rate and the choice that do best on held-out data."""
        cut = setting.samples * 5 // 6
        kept = tuple(part[:cut] for part in train)
        held_out = tuple(part[cut:] for part in train)

        def best(values: Sequence[Any], pruner: str, sparsity: float, run) -> Any:
            def choose() -> dict:
                scores = {str(value): run(value)["accuracy"] for value in values}
                return {"accuracy_on_held_out_training_data": scores}

            what = f"{pruner}, sparsity {sparsity:g}, of {list(values)}"
            if pruner == "dense":
                what = "learning rate, dense network"
            scores = record.row(choose, what=what)["accuracy_on_held_out_training_data"]
            return max(values, key=lambda value: scores[str(value)])

        def one(pruner: str, sparsity: float, rate: float, choice: Any) -> dict:
            return self._one(
                setting, pruner, sparsity, 100, kept, held_out, rate, choice
            )

        rate = best(RATES, "dense", 0.0, lambda rate: one("dense", 0.0, rate, None))
        if not self.choices:
            return rate, None
        first = setting.sparsities[0]
        return rate, best(
            self.choices,
            self.chooser,
            first,
            lambda choice: one(self.chooser, first, rate, choice),
        )

    def _one(
        self,
        setting: Setting,
        pruner: str,
        sparsity: float,
        seed: int,
        train: Any,
        test: Any,
        rate: float,
        choice: Any,
    ) -> dict:
        """Train once and return what came of it."""
        keras.utils.set_random_seed(seed)
        model = setting.build(train[0].shape[1:])
        if pruner != "dense":
            made = self.pruners[pruner](sparsity, train, seed, choice)
            model = kt.wrap(model, made)
        # Not left to Keras, which decides by model and version. JAX without is eager.
        model.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=keras.backend.backend() == "jax",
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(
                *train, batch_size=setting.batch, epochs=setting.epochs, verbose=0
            )
        result = {"accuracy": model.evaluate(*test, verbose=0)[1]}
        if pruner == "dense":
            return result
        measure = made.curve.measure[-1] if made.curve else math.nan
        return {
            **result,
            "collapsed": any("cuts the signal" in str(w.message) for w in caught),
            "kept": [int(mask.sum()) for mask in model.mask_set.values()],
            "measure": [measure if math.isfinite(measure) else None],
        }

    # -- what came of it ---------------------------------------------------------------

    def _cells(self, name: str) -> dict[tuple[str, float], list[dict]]:
        """Return the results of each pruner and sparsity, over the seeds."""
        rows = json.loads((RESULTS / f"{self.name}_{name}.json").read_text())["rows"]
        found: dict[tuple[str, float], list[dict]] = {}
        for row in rows:
            if "pruner" in row["parameters"]:
                key = (row["parameters"]["pruner"], row["parameters"]["sparsity"])
                found.setdefault(key, []).append(row["results"])
        return found

    def table(self, name: str) -> str:
        """Return the accuracies as a table in Markdown."""
        found = self._cells(name)
        sparsities = sorted({s for p, s in found if p != "dense"})
        dense = [r["accuracy"] for r in found[("dense", 0.0)]]
        lines = [
            f"dense: {_spread(dense)}",
            "",
            "| pruner | " + " | ".join(f"{100 * s:g} %" for s in sparsities) + " |",
            "|---" * (1 + len(sparsities)) + "|",
        ]
        for pruner in self.pruners:
            row = []
            for sparsity in sparsities:
                results = found.get((pruner, sparsity), [])
                dead = sum(r["collapsed"] for r in results)
                text = _spread([r["accuracy"] for r in results])
                more = f", {dead} of {len(results)} collapsed" if dead else ""
                row.append(text + more)
            lines.append(f"| {pruner} | " + " | ".join(row) + " |")
        return "\n".join(lines)

    def plot(self) -> None:
        """Draw accuracy against what is kept, for each data set."""
        from matplotlib.figure import Figure

        names = [
            n for n in self.settings if (RESULTS / f"{self.name}_{n}.json").exists()
        ]
        figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(names)))
        for axes, name in zip(panels, names, strict=True):
            self._panel(axes, name)
        figure.savefig(RESULTS / f"{self.name}.svg", metadata={"Date": None})

    def _panel(self, axes: Any, name: str) -> None:
        found = self._cells(name)
        for pruner in self.pruners:
            sparsities = sorted(s for p, s in found if p == pruner)
            runs = [
                [100 * r["accuracy"] for r in found[(pruner, s)]] for s in sparsities
            ]
            kept = [1 - s for s in sparsities]
            means = [statistics.mean(values) for values in runs]
            low = [m - min(v) for m, v in zip(means, runs, strict=True)]
            high = [max(v) - m for m, v in zip(means, runs, strict=True)]
            axes.errorbar(kept, means, (low, high), label=pruner, capsize=3, marker="o")
        dense = statistics.mean(r["accuracy"] for r in found[("dense", 0.0)])
        axes.axhline(100 * dense, color="black", linewidth=0.8, label="dense")
        axes.set(xscale="log", xlabel="fraction kept", ylabel="test accuracy, %")
        axes.set_title(f"{name}, {self.settings[name].build.__name__}")
        axes.invert_xaxis()
        axes.legend()


def _spread(values: list[float]) -> str:
    """Return mean and sample standard deviation in per cent."""
    if len(values) < 2:
        return ", ".join(f"{100 * v:.2f}" for v in values)
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    return f"{100 * mean:.2f} ± {100 * deviation:.2f}"


def main(study: Study, doc: str) -> None:
    """Run one data set, or plot what there is."""
    import argparse

    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("data", nargs="?", choices=sorted(study.settings))
    parser.add_argument("--plot", action="store_true")
    args = parser.parse_args()
    if args.data:
        study.run(args.data)
    if args.plot:
        study.plot()
