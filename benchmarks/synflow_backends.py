"""Draws SynFlow tickets from the same weights on every backend and compares them.

    python -m benchmarks.synflow_backends [--networks lenet_300_100 resnet20 ...]

The reference computes in float64 (on TensorFlow); TensorFlow, JAX and torch in
float32. Each runs in a process of its own, from one file of initial weights. Two
things are compared with the reference:

- a whole draw of 100 rounds at 90, 99 and 99.9 %;
- one round: the scores under the reference's masks at 90 %, 99 % selected from them.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

SPARSITIES = (0.9, 0.99, 0.999)
ROUNDS = 100
NETWORKS = ("lenet_300_100", "resnet20", "conv4", "VGG16", "ResNet50")
SIZE = {"VGG16": 32, "ResNet50": 64}
ROLES = ("float64", "tensorflow", "jax", "torch")


def build(network: str):
    """Return a network with fresh weights."""
    import keras

    from examples import networks

    keras.utils.set_random_seed(0)
    if network not in SIZE:
        return getattr(networks, network)()
    shape = (SIZE[network], SIZE[network], 3)
    return getattr(keras.applications, network)(weights=None, input_shape=shape)


def draw(network: str, role: str, folder: pathlib.Path) -> None:
    """Draw all the tickets of one backend and write them down."""
    import keras
    import numpy as np

    import keras_tickets as kt

    if role == "float64":
        keras.config.set_floatx("float64")
    model = build(network)
    weights = folder / "weights.npz"
    if not weights.exists():
        np.savez(weights, *[w.astype("float32") for w in model.get_weights()])
    with np.load(weights) as stored:
        model.set_weights([stored[name] for name in stored.files])

    def ticket(sparsity: float, rounds: int = ROUNDS):
        return kt.wrap(model, kt.SynFlow(sparsity, rounds=rounds))

    def flat(drawn) -> np.ndarray:
        return np.concatenate([np.ravel(mask) for mask in drawn.mask_set.values()])

    found = {}
    for sparsity in SPARSITIES:
        drawn = ticket(sparsity)
        drawn.draw(verbose=0)
        found[f"{sparsity}"] = flat(drawn)
    start = folder / "start.npy"
    if role == "float64":
        np.save(start, found["0.9"])
    once = ticket(0.99, rounds=1)
    sizes = [kernel.size for kernel in once.kernels]
    parts = np.split(np.load(start), np.cumsum(sizes)[:-1])
    masks = [p.reshape(k.shape) for p, k in zip(parts, once.kernels, strict=True)]
    once.mask_set.assign(masks)
    scores = _scores(once)
    np.save(folder / f"{role}_scores.npy", scores)
    once.draw(verbose=0)
    found["one round"] = flat(once)
    np.savez(folder / f"{role}.npz", **found)


def _scores(ticket):
    """Return all scores under the masks at hand, one after the other."""
    import numpy as np
    from keras import ops

    from keras_tickets import scores

    task = scores.Task(ticket.model, ticket.kernels)
    score = scores.get("synflow").prepare(task)
    scored = score([ops.convert_to_tensor(m) for m in ticket.mask_set.values()])
    return np.concatenate([np.ravel(ops.convert_to_numpy(v)) for v in scored.values])


def compare(folder: pathlib.Path, role: str) -> dict:
    """Return how far a backend's tickets are from the reference's."""
    import numpy as np

    exact, ours = np.load(folder / "float64.npz"), np.load(folder / f"{role}.npz")
    result = {}
    for key in exact.files:
        a, b = exact[key], ours[key]
        result[key] = {
            "jaccard": float((a & b).sum() / (a | b).sum()),
            "differ": int((a ^ b).sum()),
            "kept": int(b.sum()),
        }
    scores = np.load(folder / "float64_scores.npy")
    threshold = scores[exact["one round"]].min()
    differ = exact["one round"] ^ ours["one round"]
    off = np.abs(scores[differ] / threshold - 1)
    result["one round"]["furthest_from_threshold"] = float(off.max(initial=0))
    # Scores are right up to a power of two.
    theirs = np.load(folder / f"{role}_scores.npy").astype("float64")
    alive = scores > 0
    ratio = theirs[alive] / scores[alive]
    error = np.abs(ratio / np.median(ratio) - 1)
    result["score_error"] = {
        "median": float(np.median(error)),
        "largest": float(error.max()),
    }
    return result


def main() -> None:
    """Run the processes, record the comparison, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        draw(args.networks[0], args.role, args.folder)
        return
    from benchmarks.record import Record

    record = Record("synflow_backends", data="none: the input is all ones")
    print("| network | backend | 90 % | 99 % | 99.9 % | one round |")
    print("|---|---|---|---|---|---|")
    for network in args.networks:
        results = record.row(
            lambda network=network: measure(network), network=network, rounds=ROUNDS
        )
        for role, found in results.items():
            keys = [*map(str, SPARSITIES), "one round"]
            cells = [f"{found[key]['jaccard']:.7g}" for key in keys]
            print(f"| {network} | {role} | {' | '.join(cells)} |", flush=True)


def measure(network: str) -> dict:
    """Return the comparison of each backend with the reference."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for role in ROLES:
            backend = "tensorflow" if role == "float64" else role
            command = ["-m", "benchmarks.synflow_backends", "--networks", network]
            subprocess.run(
                [sys.executable, *command, f"--role={role}", f"--folder={name}"],
                check=True,
                env={
                    **os.environ,
                    "KERAS_BACKEND": backend,
                    "TF_CPP_MIN_LOG_LEVEL": "3",
                },
            )
        return {role: compare(folder, role) for role in ROLES[1:]}


if __name__ == "__main__":
    main()
