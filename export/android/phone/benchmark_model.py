"""Stands for LiteRT's `benchmark_model` on the lab's phone.

It takes those flags of the C++ program that `keras_tickets` gives, and does what is
asked in the real LiteRT for ARM64, emulated. Timed runs are those of `litert-benchmark`
of the same package, which prints in its own format.
"""

import argparse
import pathlib
import sys

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
    # Imported late: under emulation that takes seconds.
    from ai_edge_litert.tools import benchmark_litert_model

    sys.argv[1:] = [
        *(f"--model={flags.graph}", f"--num_runs={flags.num_runs}"),
        *(f"--warmup_runs={flags.warmup_runs}", f"--num_threads={flags.num_threads}"),
    ]
    benchmark_litert_model.main()


main()
