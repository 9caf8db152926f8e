"""The same weights on TensorFlow, JAX, torch and in float64: the same ticket?

    python -m benchmarks.synflow_backends [--rounds 100] [--size 64]

ResNet-50, each backend in a process of its own, from one file of initial weights. The
reference is float64 on TensorFlow. For each backend: the Jaccard index of its kept
set with the reference's, and how far the scores of the entries that differ are from
the threshold, relative to it.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

SPARSITIES = (0.9, 0.99, 0.999)
BACKENDS = ("float64", "tensorflow", "jax", "torch")


def draw(folder: pathlib.Path, name: str, rounds: int, size: int) -> None:
    """Draw at each sparsity and write the masks; the reference its scores, too."""
    import keras

    import keras_tickets as kt

    if name == "float64":
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
    kernels = kt.prunable.find_kernels(model)
    weights = folder / "weights.npz"
    if name == "float64":
        stored = {str(i): np.float32(k.variable) for i, k in enumerate(kernels)}
        np.savez(weights, **stored)
    loaded = np.load(weights)
    for i, kernel in enumerate(kernels):
        kernel.variable.assign(loaded[str(i)])
    for sparsity in SPARSITIES:
        ticket = kt.wrap(model, kt.SynFlow(sparsity, rounds=rounds))
        before = last_but_one(ticket, rounds) if name == "float64" else []
        ticket.draw(verbose=0)
        masks = ticket.mask_set.values()
        np.savez(
            folder / f"{name}_{sparsity}.npz",
            **{f"mask{i}": mask for i, mask in enumerate(masks)},
            **{f"score{i}": score for i, score in enumerate(before)},
        )


def last_but_one(ticket, rounds: int) -> list[np.ndarray]:
    """Return the scores that the last round selects by."""
    from keras import ops

    import keras_tickets as kt

    pruner = ticket.pruner
    early = 1 - (1 - pruner.sparsity) ** ((rounds - 1) / rounds)
    twin = kt.wrap(ticket.model, kt.SynFlow(early, rounds=rounds - 1))
    twin.draw(verbose=0)
    task = kt.scores.Task(ticket.model, twin.kernels)
    score = pruner.score.prepare(task)
    values = score([ops.convert_to_tensor(m) for m in twin.mask_set.values()]).values
    return [ops.convert_to_numpy(value) for value in values]


def compare(folder: pathlib.Path, name: str, sparsity: float) -> dict:
    """Return how a backend's ticket differs from the reference."""
    reference = np.load(folder / f"float64_{sparsity}.npz")
    other = np.load(folder / f"{name}_{sparsity}.npz")
    count = sum(key.startswith("mask") for key in other.files)
    both = either = 0
    differing, kept = [], []
    for i in range(count):
        a, b, score = reference[f"mask{i}"], other[f"mask{i}"], reference[f"score{i}"]
        both += int((a & b).sum())
        either += int((a | b).sum())
        differing.append(score[a ^ b])
        kept.append(score[a])
    threshold = min(float(s.min()) for s in kept if s.size)
    off = np.abs(np.concatenate(differing) / threshold - 1)
    return {
        "jaccard": both / either,
        "differing": int(off.size),
        "kept": int(sum(map(np.size, kept))),
        "largest_distance_to_threshold": float(off.max()) if off.size else 0.0,
    }


def main() -> None:
    """Run every backend and write the comparison down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--role", choices=BACKENDS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        draw(args.folder, args.role, args.rounds, args.size)
        return
    from benchmarks.record import Record

    record = Record("synflow_backends", data="none: the input is all ones")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for backend in BACKENDS:
            options = [f"--rounds={args.rounds}", f"--size={args.size}"]
            command = [sys.executable, "-m", "benchmarks.synflow_backends", *options]
            keras_backend = "tensorflow" if backend == "float64" else backend
            subprocess.run(
                [*command, f"--role={backend}", f"--folder={folder}"],
                check=True,
                env={**os.environ, "KERAS_BACKEND": keras_backend},
            )
        for sparsity in SPARSITIES:
            for backend in BACKENDS[1:]:
                result = record.row(
                    lambda b=backend, s=sparsity: compare(folder, b, s),
                    against=backend,
                    sparsity=sparsity,
                    rounds=args.rounds,
                    size=args.size,
                )
                print(sparsity, backend, result)


if __name__ == "__main__":
    main()
