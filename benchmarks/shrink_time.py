"""A network with half of its channels dead, and the dense one that `kt.shrink` makes.

    KERAS_BACKEND=tensorflow python -m benchmarks.shrink_time
        [--networks resnet20] [--turns 7] [--runs 50] [--folder benchmarks/results]

Weights are random: neither sizes nor times depend on what a network was trained for.
BatchNorm gets random scales and shifts, and its statistics are settled on coloured
noise, so that outputs differ from image to image and a comparison proves something.

Which channels die: those that additions tie (all that meet in the shortcuts of a stage)
are judged together. The score of such a group is the sum, over the kernels that compute
it, of the L1 norm of its column divided by the mean of that kernel's columns. In each
set of layers that are tied the half with the least scores dies: its columns, biases,
and the BatchNorm scales and shifts behind them are set to zero. Outputs of the network
stay. MACs are predicted by `kt.flops` from the zeros, before anything is removed: the
multiplications of weights that neither make nor read a dead channel.

The files of both take turns in each runtime, one thread, so that whatever else the
machine does falls on both. The ratio is that of the medians; the spread is that of the
ratios of the turns.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile

import keras
import numpy as np
from keras import ops

import keras_tickets as kt
from benchmarks.record import RESULTS, Record
from examples import networks
from keras_tickets.backend import keras_private
from keras_tickets.channels import layer_rules
from keras_tickets.channels.edits import Depthwise, Norm
from keras_tickets.channels.mixing_layers import Linear
from keras_tickets.channels.tracing import Trace
from keras_tickets.mobile.comparing import speed_up

CLASSES = 10


def mobilenet_v2() -> keras.Model:
    return keras.applications.MobileNetV2(
        (96, 96, 3), weights=None, classes=CLASSES, classifier_activation=None
    )


def vgg16() -> keras.Model:
    model = keras.applications.VGG16(
        input_shape=(32, 32, 3),
        weights=None,
        classes=CLASSES,
        classifier_activation=None,
    )
    # Keras' initial weights, without BatchNorm, let a signal fade to 1e-6.
    he, small = keras.initializers.HeNormal(0), keras.initializers.RandomNormal(0, 0.1)
    for variable in model.weights:
        initial = he if variable.name == "kernel" else small
        variable.assign(initial(variable.shape))
    return model


NETWORKS = {
    "resnet20": networks.resnet20,
    "mobilenet_v2": mobilenet_v2,
    "vgg16": vgg16,
}


# -- half of the channels die ---------------------------------------------------------


def dead_channels(trace: Trace) -> np.ndarray:
    """Return by channel whether it dies: the lesser half of each coupled set."""
    groups, kept = trace.coupling.groups(), trace.coupling.kept()
    makers = [part for part in trace.parts.values() if isinstance(part, Linear)]
    scores = np.zeros(len(groups))
    sets: dict[tuple[int, ...], np.ndarray] = {}
    for part in makers:
        norms = np.abs(values(part.layer.kernel)).reshape(-1, len(part.outs)).sum(0)
        np.add.at(scores, groups[part.outs], norms / norms.mean())
        if not kept[part.outs].any():
            group = np.unique(groups[part.outs])
            sets[tuple(group)] = group
    dead = np.zeros(len(groups), bool)
    for group in sets.values():
        dead[group[np.argsort(scores[group])][: len(group) // 2]] = True
    return dead[groups]


def kill(trace: Trace, dead: np.ndarray) -> None:
    """Zero the columns, biases, scales and shifts of dead channels."""
    for part in trace.parts.values():
        layer, outs = part.layer, dead[part.outs]
        if isinstance(part, Linear):
            clear(layer.kernel, (..., outs))
        if isinstance(part, Linear | Depthwise) and layer.use_bias:
            clear(layer.bias, outs)
        if isinstance(part, Norm):
            clear(layer.gamma, outs)
            clear(layer.beta, outs)


def kill_readers(trace: Trace, dead: np.ndarray) -> None:
    """Zero the weights that read dead channels; no output changes."""
    for part in trace.parts.values():
        if isinstance(part, Linear | Depthwise):
            clear(part.layer.kernel, (..., dead[part.ins], slice(None)))


def clear(variable: keras.Variable, index) -> None:
    changed = values(variable).copy()
    changed[index] = 0
    variable.assign(changed)


def values(variable: keras.Variable) -> np.ndarray:
    return ops.convert_to_numpy(variable.value)


# -- networks that answer -------------------------------------------------------------


def coloured_noise(shape: tuple[int, ...], number: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    colours = rng.uniform(-1, 1, (number, 1, 1, shape[-1]))
    return (colours + rng.normal(0, 0.3, (number, *shape))).astype("float32")


def settle(model: keras.Model, images: np.ndarray) -> None:
    """Give BatchNorm random scales and shifts, and statistics that fit."""
    rng = np.random.default_rng(0)
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in norms:
        layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
        layer.beta.assign(rng.normal(0, 0.2, layer.beta.shape))
        layer.momentum = 0.5
    for _ in range(20 if norms else 0):
        model(images, training=True)


# -- what is measured -----------------------------------------------------------------


def macs(model: keras.Model) -> int:
    """Return the multiplications of a model by weights that are not zero."""
    return kt.flops(model, verbose=False).sparse_macs


def models(name: str):
    """Return a network with dead channels, the shrunk one, images, and numbers."""
    keras.utils.set_random_seed(0)
    masked = NETWORKS[name]()
    images = coloured_noise(masked.input_shape[1:])
    settle(masked, images)
    dense_macs = macs(masked)
    trace = Trace(keras_private.graph_of(masked), layer_rules.find)
    dead = dead_channels(trace)
    kill(trace, dead)
    small = kt.shrink(masked, verbose=False)
    expected, found = (ops.convert_to_numpy(model(images)) for model in (masked, small))
    kill_readers(trace, dead)
    numbers = {
        "parameters": [masked.count_params(), small.count_params()],
        "macs_dense": dense_macs,
        "macs_predicted": macs(masked),
        "macs_counted": macs(small),
        "largest_output": float(np.abs(expected).max()),
        "spread_of_outputs": float(expected.std(0).max()),
        "largest_difference": float(np.abs(expected - found).max()),
    }
    return masked, small, images, numbers


def measure(name: str, turns: int, runs: int) -> dict:
    masked, small, images, numbers = models(name)
    for suffix in (".onnx", ".tflite"):
        numbers[suffix] = files(masked, small, images, suffix, turns, runs)
    return numbers


def files(masked, small, images, suffix: str, turns: int, runs: int) -> dict:
    """Return what the files of both weigh and take."""
    both = {"dense": masked, "shrunk": small}
    with tempfile.TemporaryDirectory() as folder:
        paths = {key: pathlib.Path(folder, key + suffix) for key in both}
        reports = {
            key: kt.export(
                model,
                paths[key],
                samples=images,
                sparse=False,
                tolerance=1e-4,
                verbose=False,
            )
            for key, model in both.items()
        }
        times = {key: [] for key in both}
        for turn in range(turns):
            # Who goes first alternates: the second finds a warmer machine.
            for key in list(both)[:: 1 if turn % 2 else -1]:
                report = kt.benchmark(paths[key], runs=runs, verbose=False)
                times[key].append(report.median_ms)
    ratios = [d / s for d, s in zip(times["dense"], times["shrunk"], strict=True)]
    median = {key: statistics.median(found) for key, found in times.items()}
    return {
        "bytes": {key: report.bytes for key, report in reports.items()},
        "difference_to_keras": {
            key: report.max_relative_difference for key, report in reports.items()
        },
        "median_ms": {key: round(value, 4) for key, value in median.items()},
        "dense_over_shrunk": round(speed_up(times["dense"], times["shrunk"])[0], 3),
        "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--folder", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    record = Record(
        "shrink_time", "colours under noise, made by the script", args.folder
    )
    for name in args.networks:
        result = record.row(
            lambda name=name: measure(name, args.turns, args.runs),
            network=name,
            turns=args.turns,
            runs=args.runs,
        )
        print(name, result, flush=True)


if __name__ == "__main__":
    main()
