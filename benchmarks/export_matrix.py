"""Which networks can be exported, to which file, in which precision; and how well.

    KERAS_BACKEND=tensorflow python -m benchmarks.export_matrix [--only NAME ...]
        [--precision NAME ...] [--again]

Each network of `benchmarks.zoo` is wrapped, pruned to 90 %, and exported to each format
in each precision that the format has; the export itself loads the file and compares it
with Keras, within its default tolerances. BatchNorm statistics are settled on the
inputs first, and these inputs are the samples of the comparison and the data that int8
is calibrated on.

A file is *verified*, or *refused* with the reason that the user is told. Rows are
measured in another process, so that one which crashes or hangs is only a row. The table
in `docs/export_matrix.md` is written anew after each row.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import tempfile
import warnings

import keras_tickets as kt
from benchmarks import export_table, zoo
from benchmarks.noise import calm, settle
from benchmarks.record import Record
from benchmarks.worker import Worker

SPARSITY = 0.9
SAMPLES = 16
# What one row may take; the slowest needs about two minutes.
SECONDS = 900

NUMBERS = (
    "bytes",
    "gzip_bytes",
    "dense_bytes",
    "reference_bytes",
    "weights",
    "sparsity",
    "max_relative_difference",
    "argmax_agreement",
    "tolerance",
)


def ticket_of(name: str) -> kt.Ticket:
    """A network of the zoo, pruned, with statistics of its own inputs."""
    network = zoo.NETWORKS[name]
    ticket = kt.wrap(network.build(), kt.Magnitude(SPARSITY, allocation="erk"))
    ticket.draw()
    calm(ticket)
    settle(ticket, network.inputs(SAMPLES))
    return ticket


# The rows of one network follow each other, in one process if none of them crashes.
_last_ticket = functools.lru_cache(maxsize=1)(ticket_of)


def measure(name: str, suffix: str, precision: str) -> dict:
    """Exports one network to one file.

    Returns:
        The verdict, and the numbers of the report or the reason of the refusal.
    """
    ticket = _last_ticket(name)
    inputs = zoo.NETWORKS[name].inputs(SAMPLES)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # A comparison that proves little is none.
            warnings.filterwarnings("error", ".*computes the same outputs")
            report = kt.export(
                ticket,
                pathlib.Path(folder, f"{name}{suffix}"),
                precision=precision,
                samples=inputs,
                representative_data=inputs if precision == "int8" else None,
                verbose=False,
            )
    except (RuntimeError, ValueError, UserWarning) as error:
        return {"verdict": "refused", "reason": f"{type(error).__name__}: {error}"}
    numbers = report.to_dict()
    return {"verdict": "verified", **{key: numbers[key] for key in NUMBERS}}


def tried(worker: Worker, *row: str) -> dict:
    """Like `measure`, but outlives it: a row that breaks is a row that failed."""
    try:
        return worker(*row)
    except RuntimeError as error:
        return {"verdict": "failed", "reason": str(error)}


def main() -> None:
    """Runs what is not recorded yet, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=zoo.NETWORKS, nargs="+", metavar="NAME")
    precisions = {precision for _, precision in export_table.COLUMNS}
    parser.add_argument("--precision", choices=sorted(precisions), nargs="+")
    parser.add_argument(
        "--again", action="store_true", help="try again what was not verified"
    )
    parser.add_argument("--table", action="store_true", help="write the table only")
    arguments = parser.parse_args()
    record = Record("export_matrix", "made by the script: noise, and random word ids")
    names = arguments.only or list(zoo.NETWORKS)
    if arguments.again:
        record.forget(
            lambda row: (
                row["parameters"]["network"] in names
                and row["results"]["verdict"] != "verified"
            )
        )
    columns = [
        column
        for column in export_table.COLUMNS
        if column[1] in (arguments.precision or precisions)
    ]
    rows = [(name, *column) for name in names for column in columns]
    with Worker(measure, SECONDS) as worker:
        for name, suffix, precision in [] if arguments.table else rows:
            results = record.row(
                functools.partial(tried, worker, name, suffix, precision),
                network=name,
                file=suffix,
                precision=precision,
            )
            print(name, suffix, precision, results, flush=True)
            export_table.write(record.content)
    export_table.write(record.content)


if __name__ == "__main__":
    main()
