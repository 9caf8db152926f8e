"""What storing an `.onnx` file without its zeros saves, and what it costs.

    KERAS_BACKEND=tensorflow python -m benchmarks.onnx_size

`keras.applications.MobileNet(alpha=1)` at 96 x 96, random weights, pruned by magnitude;
the BatchNorm statistics are settled as in `mobilenet_size`. Each ticket is converted
once, to a dense float32 file; the other files are made from that one. Dense and encoded
files take turns, in alternating order, so that whatever else the machine does falls on
both. A ratio is the median of those of the same turn; its spread is theirs.

The reference size is that of the non-zero values at the file's precision, plus
log2 C(N, nonzeros) bits for their positions, plus what else the file holds, dense.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_tickets as kt
from benchmarks.mobilenet_size import SHAPE
from benchmarks.noise import coloured_noise, settle
from benchmarks.record import Record
from keras_tickets._util.file_tensor import Array
from keras_tickets._util.files import gzip_size
from keras_tickets._util.signature import input_signature
from keras_tickets._util.size_bound import size_bound
from keras_tickets.convert.to_onnx import to_onnx
from keras_tickets.mobile.comparing import speed_up
from keras_tickets.onnx import scatter
from keras_tickets.onnx.file import OnnxFile
from keras_tickets.runtime.interpreters import onnx_session

LOADS, RUNS = 31, 101

# Without Keras, which no app loads.
FIRST_LOAD = """
import sys, time
import onnxruntime
start = time.perf_counter()
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(1000 * (time.perf_counter() - start))
"""

# (sparsity, classes): how many classes the head has hardly matters to the ratios.
CASES = ((0.8, 10), (0.9, 10), (0.95, 10), (0.9, 1000))


def main() -> None:
    record = Record(
        "onnx_size", "colours under noise, made by the script: only sizes count"
    )
    for sparsity, classes in CASES:
        parameters = {"sparsity": sparsity, "classes": classes}
        print(record.row(lambda p=parameters: measure(**p), **parameters))


def measure(sparsity: float, classes: int) -> dict[str, Any]:
    images = coloured_noise(SHAPE)
    ticket = make_ticket(sparsity, classes, images)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        dense = convert(ticket, folder)
        contents = {
            "dense": dense,
            "float32": encode(dense),
            "dense_float16": encode(dense, half=True, sparse=False),
            "float16": encode(dense, half=True),
        }
        paths = {key: folder / f"{key}.onnx" for key in contents}
        for key, content in contents.items():
            paths[key].write_bytes(content)
        nonzeros = {n: t.nonzeros for n, t in weights(dense).items()}
        lost = {n: t.zeros for n, t in weights(contents["float32"]).items()}
        zeros = {n: t.zeros for n, t in weights(dense).items()}
        return {
            "zeros_in_file": sum(zeros.values()),
            "weights": sum(nonzeros.values()) + sum(zeros.values()),
            "zeros_kept": lost == zeros,
            "files": {key: sizes(c, dense) for key, c in contents.items()},
            "identical_outputs": same_bits(paths, images),
            "first_load": {
                key: in_turns(paths["dense"], paths[key], first_load, LOADS)
                for key in ("float32", "float16")
            },
            "cold_load": {
                key: in_turns(paths["dense"], paths[key], cold_load, LOADS)
                for key in ("float32", "float16")
            },
            "load_again": {
                key: in_turns(paths["dense"], paths[key], timed(load), LOADS)
                for key in ("float32", "float16")
            },
            "run": {
                key: in_turns(paths["dense"], paths[key], timed(runner(images)), RUNS)
                for key in ("float32", "float16")
            },
        }


def make_ticket(sparsity: float, classes: int, images: Array) -> kt.Ticket:
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(
        input_shape=SHAPE, alpha=1.0, weights=None, classes=classes
    )
    ticket = kt.wrap(model, kt.Magnitude(sparsity, allocation="erk"))
    ticket.draw()
    settle(ticket, images)
    return ticket


def convert(ticket: kt.Ticket, folder: pathlib.Path) -> bytes:
    plain = ticket.strip()
    path = folder / "converted.onnx"
    to_onnx(plain, path, input_signature(plain, None, None))
    return path.read_bytes()


def encode(content: bytes, **options: bool) -> bytes:
    file = OnnxFile.parse(content)
    scatter.encode(file.model, **options)
    return file.to_bytes()


def weights(content: bytes) -> dict[str, Any]:
    return {t.name: t for t in OnnxFile.parse(content).tensors() if t.is_weight}


def sizes(content: bytes, dense: bytes) -> dict[str, Any]:
    file = OnnxFile.parse(content)
    reference = size_bound(file.tensors())
    return {
        "bytes": len(content),
        "gzip_bytes": gzip_size(content),
        "ratio_to_dense": round(len(content) / len(dense), 4),
        "reference_bytes": reference,
        "ratio_to_reference": round(len(content) / reference, 4),
        "nodes": sum(file.ops().values()),
        "scattered": sum(t.encoding == "scatter" for t in file.tensors()),
    }


def same_bits(paths: dict[str, pathlib.Path], images: Array) -> dict[str, Any]:
    """Compares with the dense files, image by image and as one batch."""
    batches = [images, *(images[i : i + 1] for i in range(len(images)))]
    outputs = {
        key: [runner(images)(path, batch) for batch in batches]
        for key, path in paths.items()
    }

    def equal(left: str, right: str) -> bool:
        return all(map(np.array_equal, outputs[left], outputs[right]))

    return {
        "float32": equal("dense", "float32"),
        "float16_to_dense_float16": equal("dense_float16", "float16"),
        "float16_difference": max(
            float(np.abs(a - b).max())
            for a, b in zip(outputs["dense"], outputs["float16"], strict=True)
        ),
    }


def load(path: pathlib.Path) -> Any:
    return onnx_session(path, threads=0)


def first_load(path: pathlib.Path) -> float:
    """Milliseconds of the first load in a new process, as in an app that starts."""
    command = [sys.executable, "-c", FIRST_LOAD, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def cold_load(path: pathlib.Path) -> float:
    """The same where the file is not in memory yet, as after an installation."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return first_load(path)


def timed(work: Callable[[pathlib.Path], Any]) -> Callable[[pathlib.Path], float]:
    def milliseconds(path: pathlib.Path) -> float:
        start = time.perf_counter()
        work(path)
        return 1000 * (time.perf_counter() - start)

    return milliseconds


def runner(images: Array) -> Callable[..., Array]:
    """Returns a function that runs a file; sessions stay open."""
    sessions: dict[pathlib.Path, Any] = {}

    def run(path: pathlib.Path, batch: Array = images[:1]) -> Array:
        if path not in sessions:
            sessions[path] = load(path)
        session = sessions[path]
        return session.run(None, {session.get_inputs()[0].name: batch})[0]

    return run


def in_turns(
    dense: pathlib.Path,
    other: pathlib.Path,
    measured: Callable[[pathlib.Path], float],
    turns: int,
) -> dict[str, Any]:
    """Compares the milliseconds of two files."""
    times: dict[pathlib.Path, list[float]] = {dense: [], other: []}
    for path in times:
        measured(path)  # The first time, files are not in the memory yet.
    for turn in range(turns):
        for path in (dense, other) if turn % 2 else (other, dense):
            times[path].append(measured(path))
    median = {path: statistics.median(values) for path, values in times.items()}
    percentiles = (50, 10, 90, 0, 100)
    ratio, low, high, least, most = (
        round(x, 3) for x in speed_up(times[other], times[dense], percentiles)
    )
    return {
        "turns": turns,
        "dense_ms": round(median[dense], 3),
        "other_ms": round(median[other], 3),
        "ratio": ratio,
        "ratio_of_least": round(min(times[other]) / min(times[dense]), 3),
        "ratio_10_to_90": [low, high],
        "ratio_spread": [least, most],
    }


if __name__ == "__main__":
    main()
