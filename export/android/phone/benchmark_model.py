"""Stands for LiteRT's `benchmark_model` on the lab's phone.

It takes those flags of the C++ program that `keras_tickets` gives, and does what is
asked in the real LiteRT for ARM64, emulated. Of timed runs it prints the same line.
"""

import argparse
import pathlib
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def parse(arguments):
    """Reads the flags; those that are not known are named, as the C++ program does."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("graph", "input_layer_shape", "input_layer_value_files"):
        parser.add_argument(f"--{name}", default="")
    for name in ("output_filepath", "dry_run"):
        parser.add_argument(f"--{name}", default="")
    for name in ("num_runs", "warmup_runs", "num_threads"):
        parser.add_argument(f"--{name}", type=int)
    flags, others = parser.parse_known_args(arguments)
    if others:
        print("Unconsumed cmdline flags:", *others)
    return flags


def load(flags):
    """Loads the file, with the inputs that are in files, in the order of the graph."""
    interpreter = Interpreter(flags.graph, num_threads=flags.num_threads)
    details = interpreter.get_input_details()
    if not flags.input_layer_value_files:
        interpreter.allocate_tensors()
        return interpreter
    shapes = flags.input_layer_shape.split(":")
    files = [item.split(":")[1] for item in flags.input_layer_value_files.split(",")]
    for detail, shape in zip(details, shapes, strict=True):
        sizes = [int(size) for size in shape.split(",")]
        interpreter.resize_tensor_input(detail["index"], sizes)
    interpreter.allocate_tensors()
    for detail, file in zip(details, files, strict=True):
        tensor = interpreter.get_tensor(detail["index"])
        content = pathlib.Path(file).read_bytes()
        values = np.frombuffer(content, tensor.dtype).reshape(tensor.shape)
        interpreter.set_tensor(detail["index"], values)
    return interpreter


def save(interpreter, path):
    """Writes all outputs one after the other, in the order of the graph."""
    details = interpreter.get_output_details()
    tensors = [interpreter.get_tensor(detail["index"]) for detail in details]
    path.write_bytes(b"".join(tensor.tobytes() for tensor in tensors))


def timed(interpreter):
    """Returns the microseconds of one run."""
    start = time.perf_counter()
    interpreter.invoke()
    return 1e6 * (time.perf_counter() - start)


def line(times):
    """Returns what the C++ program prints of some runs."""
    if not times:
        return "count=0"
    return (
        f"count={len(times)} first={times[0]:.0f} curr={times[-1]:.0f} "
        f"min={min(times):.0f} max={max(times):.0f} avg={np.mean(times):g} "
        f"std={np.std(times):g}"
    )


def main():
    """Does what the flags ask for."""
    flags = parse(sys.argv[1:])
    interpreter = load(flags)
    if flags.dry_run == "true":
        return
    if flags.output_filepath:
        interpreter.invoke()
        save(interpreter, pathlib.Path(flags.output_filepath))
        return
    for runs in (flags.warmup_runs, flags.num_runs):
        print(line([timed(interpreter) for _ in range(runs)]))


main()
