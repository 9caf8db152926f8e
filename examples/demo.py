"""A dense network and its 90 % sparse ticket, side by side, down to the files.

    python -m examples.demo --dataset digits

Both start from the same weights and train for the same number of epochs. Both are
exported to LiteRT and ONNX; what the table says was measured on the written files.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib

import keras
import rich.box
import rich.console
import rich.table

import keras_tickets as kt
from benchmarks.record import setting, write
from examples import datasets, networks

NETWORKS = {
    "digits": networks.depthwise_cnn,
    "mnist": networks.depthwise_cnn,
    "cifar10": networks.mobilenet_small,
}
EPOCHS = {"digits": 30, "mnist": 3, "cifar10": 3}


@dataclasses.dataclass
class Row:
    """One file of one network."""

    network: str
    accuracy: float
    export: kt.ExportReport
    latency: kt.BenchmarkReport


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    train, test, provenance = datasets.load(args.dataset, args.download)
    build = NETWORKS[args.dataset]
    shape = train[0].shape[1:]

    keras.utils.set_random_seed(args.seed)
    dense = build(shape)
    start = dense.get_weights()
    print("\nDense network")
    fit(dense, train, args)
    rows = measure("dense", dense, test, args.out)

    sparse = build(shape)
    sparse.set_weights(start)
    ticket = kt.wrap(sparse, kt.GradualMagnitude(args.sparsity, allocation="erk"))
    print("\nSparse ticket, from the same weights")
    fit(ticket, train, args)
    kt.summary(ticket)
    rows += measure("ticket", ticket, test, args.out)

    show(rows, provenance)
    if args.json:
        write(args.json, record(args, rows, provenance))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", choices=datasets.NAMES, default="digits")
    parser.add_argument("--epochs", type=int, help="default: 30 on digits, else 3")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/demo"))
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers here")
    parser.add_argument(
        "--download", action="store_true", help="fetch data that is not there"
    )
    args = parser.parse_args()
    args.epochs = args.epochs or EPOCHS[args.dataset]
    return args


def fit(model: keras.Model, train: datasets.Split, args: argparse.Namespace) -> None:
    keras.utils.set_random_seed(args.seed)
    images, labels = train
    steps = args.epochs * -(-len(images) // 128)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(images, labels, batch_size=128, epochs=args.epochs)


def measure(
    name: str, model: keras.Model, test: datasets.Split, folder: pathlib.Path
) -> list[Row]:
    images, labels = test
    accuracy = model.evaluate(images, labels, batch_size=500, return_dict=True)
    rows = []
    for suffix in (".tflite", ".onnx"):
        path = folder / f"{name}{suffix}"
        report = kt.export(model, path, samples=images[:16], overwrite=True)
        timing = kt.benchmark(path, on="host", runs=500, warmup=50)
        rows.append(Row(name, accuracy["accuracy"], report, timing))
    return rows


def show(rows: list[Row], provenance: str) -> None:
    timing = rows[0].latency
    table = rich.table.Table(
        title="What is in the files",
        caption=f"Accuracy: {provenance}.\n"
        "Zeros: among the weights in the file, depthwise kernels included.\n"
        "Difference: the largest to Keras, relative.\n"
        f"Latency: {timing.runs} runs, {timing.threads} thread, {timing.device}.",
        caption_justify="left",
        box=rich.box.SIMPLE_HEAD,
    )
    for column in ("network", "accuracy", "file"):
        table.add_column(column)
    for column in ("bytes", "gzip", "zeros", "difference", "ms, median", "10 to 90 %"):
        table.add_column(column, justify="right")
    for row in rows:
        export, timing = row.export, row.latency
        table.add_row(
            row.network,
            f"{row.accuracy:.2%}",
            pathlib.Path(export.path).suffix,
            f"{export.bytes:,}",
            f"{export.gzip_bytes:,}",
            f"{export.zeros:,} ({export.sparsity:.1%})",
            f"{export.max_relative_difference:.0e}",
            f"{timing.median_ms:.3f}",
            f"{timing.p10_ms:.3f} to {timing.p90_ms:.3f}",
        )
    console = rich.console.Console()
    console.width = max(console.width, 112)
    console.print(table)


def record(args: argparse.Namespace, rows: list[Row], provenance: str) -> dict:
    chosen = ("dataset", "epochs", "sparsity", "seed")
    return {
        **setting(provenance),
        "parameters": {key: getattr(args, key) for key in chosen},
        "rows": [
            {
                "network": row.network,
                "accuracy": row.accuracy,
                "export": without(row.export.to_dict(), "path"),
                "latency": without(row.latency.to_dict(), "path", "times_ms"),
            }
            for row in rows
        ],
    }


def without(content: dict, *keys: str) -> dict:
    return {key: value for key, value in content.items() if key not in keys}


if __name__ == "__main__":
    main()
