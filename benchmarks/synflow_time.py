"""Times 100 rounds of SynFlow on ResNet-50 beside the textbook in eager torch.

    python -m benchmarks.synflow_time [--repeats 3] [--rounds 100] [--size 224]

Both draw from the same initial weights, each in a process of its own, in turns. The
textbook is the published algorithm, restated: masks multiplied in, absolute values
taken and signs restored in every round, `backward`, cloned scores, one concatenation
of them, `kthvalue`, and a mask written by `where`. In float32 R = 1e65 overflows there,
so each block's output is divided by its largest entry, which is safe because all paths
pass it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

SPARSITY = 0.99
ROLES = ("keras_tickets", "textbook")


def ours(folder: pathlib.Path, rounds: int, size: int) -> dict:
    """Draw with this package; time and memory beyond the model's own."""
    import numpy as np

    import keras_tickets as kt

    model = _model(size)
    ticket = kt.wrap(model, kt.SynFlow(SPARSITY, rounds=rounds))
    own = _resident()
    started = time.perf_counter()
    curve = ticket.draw(verbose=0)
    seconds = time.perf_counter() - started
    np.savez(folder / "keras_tickets.npz", **_masks(ticket))
    parameters = 4 * model.count_params()
    return {
        "seconds": seconds,
        "gradient": sum(curve.score_seconds),
        "first_gradient": curve.score_seconds[0],
        "selection": sum(curve.select_seconds),
        "log10_R": curve.measure[-1],
        "peak_beyond_model_over_parameters": (_peak() - own) / parameters,
    }


def _model(size: int):
    import keras

    keras.utils.set_random_seed(0)
    return keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))


def _masks(ticket) -> dict:
    return {
        kernel.layer.name: mask
        for kernel, mask in zip(ticket.kernels, ticket.mask_set.values(), strict=True)
    }


def _resident() -> int:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def textbook(folder: pathlib.Path, rounds: int, size: int) -> dict:
    """Draw as the published code does, in eager torch."""
    import numpy as np
    import torch

    stored = np.load(folder / "weights.npz")
    weights = {name: torch.tensor(stored[name]) for name in stored.files}
    weights = {
        name: w.permute(3, 2, 0, 1) if w.ndim == 4 else w.T
        for name, w in weights.items()
    }
    weights = {n: w.contiguous().requires_grad_() for n, w in weights.items()}
    masks = {name: torch.ones_like(w) for name, w in weights.items()}
    ones = torch.ones(1, 3, size, size)
    spent = {"gradient": 0.0, "selection": 0.0}
    started = time.perf_counter()
    for round_ in range(rounds):
        begun = time.perf_counter()
        with torch.no_grad():
            signs = {name: torch.sign(w) for name, w in weights.items()}
            for w in weights.values():
                w.abs_()
        total = _resnet50(ones, {n: w * masks[n] for n, w in weights.items()}).sum()
        total.backward()
        with torch.no_grad():
            scores = {n: torch.clone(w.grad * w).abs_() for n, w in weights.items()}
            for name, w in weights.items():
                w.grad.zero_()
                w.mul_(signs[name])
        scored = time.perf_counter()
        with torch.no_grad():
            flat = torch.cat([torch.flatten(s) for s in scores.values()])
            keep = (1 - SPARSITY) ** ((round_ + 1) / rounds)
            k = round((1 - keep) * flat.numel())
            threshold = torch.kthvalue(flat, k).values
            zero, one = torch.tensor([0.0]), torch.tensor([1.0])
            for name, mask in masks.items():
                mask.copy_(torch.where(scores[name] <= threshold, zero, one))
        spent["gradient"] += scored - begun
        spent["selection"] += time.perf_counter() - scored
    seconds = time.perf_counter() - started
    back = {
        name: (m.permute(2, 3, 1, 0) if m.ndim == 4 else m.T).numpy() > 0
        for name, m in masks.items()
    }
    np.savez(folder / "textbook.npz", **back)
    return {"seconds": seconds, **spent}


def _resnet50(x, w):
    """Return the outputs of `keras.applications.ResNet50` at its initial statistics."""
    from torch.nn import functional

    def conv(x, name, stride=1, padding=0):
        # BatchNorm at its first statistics; its epsilon is Keras's.
        y = functional.conv2d(x, w[name], stride=stride, padding=padding)
        zero, one = y.new_zeros(y.shape[1]), y.new_ones(y.shape[1])
        return functional.batch_norm(y, zero, one, one, zero, eps=1.001e-5)

    x = functional.relu(conv(x, "conv1_conv", 2, 3))
    x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
    for stage, blocks in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        for block in range(1, blocks + 1):
            name = f"conv{stage}_block{block}"
            stride = 2 if block == 1 and stage > 2 else 1
            shortcut = conv(x, f"{name}_0_conv", stride) if block == 1 else x
            y = functional.relu(conv(x, f"{name}_1_conv", stride))
            y = functional.relu(conv(y, f"{name}_2_conv", padding=1))
            x = functional.relu(conv(y, f"{name}_3_conv") + shortcut)
            x = x / x.detach().max()
    return functional.linear(x.mean((2, 3)), w["predictions"])


def jaccard(folder: pathlib.Path) -> float:
    """Return the Jaccard index of the two sets of kept weights."""
    import numpy as np

    first, second = (np.load(folder / f"{role}.npz") for role in ROLES)
    both = sum(int((first[n] & second[n]).sum()) for n in first.files)
    either = sum(int((first[n] | second[n]).sum()) for n in first.files)
    return both / either


def save_weights(folder: pathlib.Path, size: int) -> None:
    """Write the initial weights for the textbook."""
    import numpy as np

    from keras_tickets.kernels import find_kernels

    kernels = find_kernels(_model(size))
    np.savez(
        folder / "weights.npz",
        **{k.layer.name: np.asarray(k.variable.value) for k in kernels},
    )


def main() -> None:
    """Run both in turns and write down the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--name", default="synflow_time")
    parser.add_argument("--role", choices=("weights", *ROLES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role == "weights":
        save_weights(args.folder, args.size)
    elif args.role:
        run = {"keras_tickets": ours, "textbook": textbook}[args.role]
        result = run(args.folder, args.rounds, args.size)
        (args.folder / "result.json").write_text(json.dumps(result))
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Run the processes and record the rows."""
    from benchmarks.record import Record

    record = Record(args.name, data="none: the input is all ones")
    parameters = {"rounds": args.rounds, "size": args.size, "sparsity": SPARSITY}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)

        def child(role: str) -> dict:
            options = [f"--{key}={getattr(args, key)}" for key in ("rounds", "size")]
            command = ["-m", "benchmarks.synflow_time", *options]
            subprocess.run(
                [sys.executable, *command, f"--role={role}", f"--folder={folder}"],
                check=True,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            result = folder / "result.json"
            return json.loads(result.read_text()) if result.exists() else {}

        def pair() -> dict:
            ran = {role: child(role) for role in ROLES}
            mine, theirs = (ran[role] for role in ROLES)
            ratios = {
                key: theirs[key] / mine[key]
                for key in ("seconds", "gradient", "selection")
            }
            print(json.dumps({"ratios": ratios, **ran}, indent=1), flush=True)
            return {**ran, "textbook_over_ours": ratios, "jaccard": jaccard(folder)}

        child("weights")
        rows = [
            record.row(pair, repeat=repeat, **parameters)
            for repeat in range(args.repeats)
        ]
    for key in ("seconds", "gradient", "selection"):
        values = [row["textbook_over_ours"][key] for row in rows]
        print(
            f"{key}: {statistics.median(values):.2f} ({min(values):.2f} to "
            f"{max(values):.2f}) times the speed of the textbook"
        )


if __name__ == "__main__":
    main()
