"""Tickets drawn at initialisation, trained and tested: pruner x sparsity x seed.

    python -m benchmarks.init_tickets mnist
    python -m benchmarks.init_tickets cifar10
    python -m benchmarks.init_tickets --plot

The learning rate is chosen once, for the dense network, on a part of the training set
that is then trained on as well; the test set is looked at after the last epoch of a
run and never before. A network that collapsed is a row like any other.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import warnings

import keras
import numpy as np

import keras_tickets as kt
from benchmarks.record import RESULTS, Record
from examples import datasets, networks

RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)
PER_CLASS = 10

PRUNERS = {
    "synflow": lambda s, data, seed: kt.SynFlow(s, on_collapse="warn"),
    "snip": lambda s, data, seed: kt.SNIP(s, data, on_collapse="warn"),
    "grasp": lambda s, data, seed: kt.GraSP(s, data, on_collapse="warn"),
    "magnitude": lambda s, data, seed: kt.Magnitude(s, on_collapse="warn"),
    "random_erk": lambda s, data, seed: kt.Random(s, seed=seed, on_collapse="warn"),
}

# Network, training samples, epochs, batch size, sparsities.
SETTINGS = {
    "mnist": (networks.lenet_300_100, 60_000, 5, 128, (0.9, 0.98, 0.995)),
    "cifar10": (networks.conv4, 3_000, 2, 32, (0.98,)),
}

TESTED = {"mnist": 10_000, "cifar10": 2_500}
"""How many of the test images are looked at, the first ones."""


def main() -> None:
    """Run one data set, or plot what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", choices=sorted(SETTINGS))
    parser.add_argument("--plot", action="store_true")
    args = parser.parse_args()
    if args.data:
        run(args.data)
    if args.plot:
        plot()


def run(name: str) -> None:
    """Choose the rate, then run every pruner, sparsity and seed."""
    build, samples, epochs, batch, sparsities = SETTINGS[name]
    (x, y), test, provenance = datasets.load(name)
    x, y = x[:samples], y[:samples]
    test = tuple(part[: TESTED[name]] for part in test)
    record = Record(f"init_tickets_{name}", provenance)
    shape = x.shape[1:]

    def trained(ticket, train, rate):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # Not left to Keras, which decides by model and version.
        ticket.compile(
            keras.optimizers.Adam(rate), loss, metrics=["accuracy"], jit_compile=False
        )
        ticket.fit(*train, batch_size=batch, epochs=epochs, verbose=0)
        return ticket

    def choose() -> dict:
        cut = samples * 5 // 6
        scores = {}
        for rate in RATES:
            keras.utils.set_random_seed(100)
            model = trained(build(shape), (x[:cut], y[:cut]), rate)
            scores[str(rate)] = model.evaluate(x[cut:], y[cut:], verbose=0)[1]
        return {"accuracy_on_held_out_training_data": scores}

    chosen = record.row(choose, what="learning rate, dense network")
    scores = chosen["accuracy_on_held_out_training_data"]
    rate = float(max(scores, key=scores.get))

    def one(pruner: str | None, sparsity: float, seed: int) -> dict:
        keras.utils.set_random_seed(seed)
        model = build(shape)
        if pruner is None:
            final = trained(model, (x, y), rate).evaluate(*test, verbose=0)[1]
            return {"accuracy": final}
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ticket = kt.wrap(model, PRUNERS[pruner](sparsity, few(x, y), seed))
        ticket.compile("sgd", loss)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            curve = ticket.draw(verbose=0)
        collapsed = any("cuts the signal" in str(w.message) for w in caught)
        final = trained(ticket, (x, y), rate).evaluate(*test, verbose=0)[1]
        kept = [int(mask.sum()) for mask in ticket.mask_set.values()]
        return {
            "accuracy": final,
            "collapsed": collapsed,
            "kept": kept,
            "measure": [m if math.isfinite(m) else None for m in curve.measure[-1:]],
        }

    for seed in SEEDS:
        common = {"rate": rate, "epochs": epochs, "samples": samples, "seed": seed}
        record.row(
            lambda s=seed: one(None, 0.0, s), pruner="dense", sparsity=0.0, **common
        )
        for pruner in PRUNERS:
            for sparsity in sparsities:
                result = record.row(
                    lambda p=pruner, s=sparsity, seed=seed: one(p, s, seed),
                    pruner=pruner,
                    sparsity=sparsity,
                    **common,
                )
                print(seed, pruner, sparsity, result, flush=True)
    print(table(name))


def few(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `PER_CLASS` samples of each class."""
    first = [np.flatnonzero(y == label)[:PER_CLASS] for label in np.unique(y)]
    return x[np.concatenate(first)], y[np.concatenate(first)]


def cells(name: str) -> dict[tuple[str, float], list[dict]]:
    """Return the results of each pruner and sparsity, over the seeds."""
    rows = json.loads((RESULTS / f"init_tickets_{name}.json").read_text())["rows"]
    found: dict[tuple[str, float], list[dict]] = {}
    for row in rows:
        if "pruner" in row["parameters"]:
            key = (row["parameters"]["pruner"], row["parameters"]["sparsity"])
            found.setdefault(key, []).append(row["results"])
    return found


def table(name: str) -> str:
    """Return the accuracies as a table in Markdown."""
    found = cells(name)
    sparsities = sorted({s for p, s in found if p != "dense"})
    dense = [r["accuracy"] for r in found[("dense", 0.0)]]
    lines = [
        f"dense: {_spread(dense)}",
        "",
        "| pruner | " + " | ".join(f"{100 * s:g} %" for s in sparsities) + " |",
        "|---" * (1 + len(sparsities)) + "|",
    ]
    for pruner in PRUNERS:
        row = []
        for sparsity in sparsities:
            results = found.get((pruner, sparsity), [])
            dead = sum(r["collapsed"] for r in results)
            text = _spread([r["accuracy"] for r in results])
            row.append(text + (f", {dead} of {len(results)} collapsed" if dead else ""))
        lines.append(f"| {pruner} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    """Return mean and sample standard deviation in per cent."""
    if len(values) < 2:
        return ", ".join(f"{100 * v:.2f}" for v in values)
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    return f"{100 * mean:.2f} ± {100 * deviation:.2f}"


def plot() -> None:
    """Draw accuracy against what is kept, for each data set."""
    from matplotlib.figure import Figure

    names = [n for n in SETTINGS if (RESULTS / f"init_tickets_{n}.json").exists()]
    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(names)))
    for axes, name in zip(panels, names, strict=True):
        found = cells(name)
        for pruner in PRUNERS:
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
        axes.set_title(f"{name}, {SETTINGS[name][0].__name__}")
        axes.invert_xaxis()
        axes.legend()
    figure.savefig(RESULTS / "init_tickets.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
