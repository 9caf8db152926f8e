"""`verify`: does a file compute on a target what it computes in Keras?"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_tickets import runtime as runners
from keras_tickets._util import signature as signatures
from keras_tickets._util.checks import check_model
from keras_tickets._util.errors import VerificationError
from keras_tickets._util.file_tensor import Array
from keras_tickets._util.files import check_source
from keras_tickets._util.model_file import Port
from keras_tickets._util.signature import Signature
from keras_tickets.backend.random_inputs import Sample, Vocabulary, vocabulary_of
from keras_tickets.convert import equivalence as comparing
from keras_tickets.convert import names as naming
from keras_tickets.convert.comparison import Comparison
from keras_tickets.convert.float32 import computes_in_half, in_float32
from keras_tickets.convert.options import check_tolerance
from keras_tickets.convert.precision import PRECISIONS, Precision
from keras_tickets.convert.samples import comparison_samples
from keras_tickets.convert.tolerances import Expected, judge
from keras_tickets.inspection import Inspection, inspect
from keras_tickets.masks.stripping import strip, wrapped
from keras_tickets.runtime import Runner, sizes
from keras_tickets.runtime.formats import SUFFIXES
from keras_tickets.runtime.interpreters import Runtime
from keras_tickets.runtime.isolated import isolated

# Operators that look values up: what they read are ids, whatever its type.
_LOOKUPS = {"GATHER", "EMBEDDING_LOOKUP", "Gather"}

# Ids below this are valid in each table that is worth having.
_IDS = 2


def verify(
    path: str | os.PathLike[str],
    model: keras.Model | None = None,
    samples: Any = None,
    on: str = "host",
    *,
    input_signature: Any = None,
    tolerance: float | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Comparison:
    """Run a file on a target and compare its outputs with those of Keras.

    A file may be right on one machine and wrong on another: XNNPACK's sparse kernels
    run on ARM and in WebAssembly, and not on x86. `kt.export` compares on this machine.

    Args:
        path: A `.tflite` or `.onnx` file.
        model: The model or ticket that the file was exported from. Without one the file
            is compared with itself in the plain kernels of its runtime on this machine:
            LiteRT's without XNNPACK, ONNX Runtime's without optimization.
        samples: Real inputs, structured as the model's input; without a model, as a
            dict by the file's input names if it has several. Random ones, within the
            range of these, are compared too.
        on: Where to run it: `"host"` is this machine's CPU, `"wasm"` LiteRT.js in Node,
            `"arm64"` the ARM64 runtimes on an emulated processor, `"android"` LiteRT
            on the phone that is attached.
        input_signature: The model's inputs as passed to `kt.export`, where the model
            does not tell.
        tolerance: The largest difference allowed, relative to the largest absolute
            value of the same output; by default that of the file's precision in
            `kt.export`.
        input_shapes: Without a model, the shapes of the file's inputs by their names,
            where it leaves sizes open; by default those of the samples, else those of
            `benchmark`.

    Returns:
        How far the file is from Keras: on the real samples if there are some, else on
        the random ones.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If `on` or the suffix is unknown, the target does not run such
            files, the file is damaged, `tolerance` is no such number, or samples do not
            fit.
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a folder.
        RuntimeError: If the target is not available, or the file cannot be run there,
            computes what is not finite or differs by more than the tolerance.

    Example:

    ```python
    kt.export(ticket, "model.tflite")
    print(kt.verify("model.tflite", ticket, on="wasm").max_rel)
    ```
    """
    file = check_source(path, SUFFIXES)
    runner = runners.get(on)
    if model is not None:
        check_model(model)
        _check_no_shapes(input_shapes)
    runner.check(file)
    found = inspect(file)
    precision = precision_of(found)
    limit = check_tolerance(tolerance, precision)
    try:
        chosen = sizes.Sizes({})
        if model is None:
            chosen = _sizes(file, found, samples, input_shapes)
            compared = _against_plain(
                file, found, samples, runner, precision, limit, chosen.shapes
            )
        else:
            signature = _signature(wrapped(model), input_signature, found)
            compared = _against_keras(
                file, model, signature, samples, runner, precision, limit
            )
    except RuntimeError as error:
        hint = _hint(found, on)
        if tolerance is None and "was expected" in str(error):
            hint = f" {limit:g} is the tolerance of {precision.name} files.{hint}"
        raise VerificationError(f"'{path}' with on='{on}': {error}{hint}") from error
    by_precision = f"tolerance {limit:g}, that of {precision.name} files"
    said = [by_precision if tolerance is None else "", chosen.told]
    result = compared.get("real", compared["random"])
    return dataclasses.replace(result, assumed="\n".join(filter(None, said)))


def _check_no_shapes(input_shapes: Any) -> None:
    if input_shapes is not None:
        raise ValueError(
            "input_shapes= is for a file without its model; of a model pass "
            f"input_signature=. Received: input_shapes={input_shapes!r}"
        )


def _sizes(
    file: pathlib.Path,
    found: Inspection,
    samples: Any,
    given: Mapping[str, Any] | None,
) -> sizes.Sizes:
    """Choose the sizes that a file runs at without its model."""
    sizes.check_numbers(file, found.inputs)
    own = _sample_shapes(found, samples) if given is None else given
    return sizes.choose(file, own)


def precision_of(found: Inspection) -> Precision:
    """Tell in which precision a file was written.

    Args:
        found: The content of the file.

    Returns:
        The least precise that one of its weights is stored in.
    """
    kinds = {tensor.dtype for tensor in found.tensors if tensor.is_weight}
    if "int8" in kinds:
        return PRECISIONS["int8" if "QUANTIZE" in found.ops else "int8-dynamic"]
    return PRECISIONS["float16" if "float16" in kinds else "float32"]


def _against_keras(
    file: pathlib.Path,
    model: keras.Model,
    signature: Signature,
    samples: Any,
    runner: Runner,
    precision: Precision,
    limit: float,
) -> dict[str, Comparison]:
    # A model that computes in half precision is the one whose file is compared with a
    # copy, which computes in float32 as the file does.
    own = wrapped(model)
    given = in_float32(strip(model)) if computes_in_half(own) else model
    chosen = comparison_samples(signature, vocabulary_of(own), samples)
    outputs = comparing.outputs_of(given, chosen)
    compared, _ = comparing.verify(
        outputs, own, file, signature, chosen, precision, limit, runner.open
    )
    return compared


def _against_plain(
    file: pathlib.Path,
    found: Inspection,
    samples: Any,
    runner: Runner,
    precision: Precision,
    limit: float,
    shapes: sizes.Shapes,
) -> dict[str, Comparison]:
    """Compare a file with itself in the plain kernels of its runtime."""
    specs = {
        port.name: keras.InputSpec(
            shape=shapes[port.name], dtype=port.dtype, name=port.name
        )
        for port in found.inputs
    }
    signature = [specs if len(specs) != 1 else next(iter(specs.values()))]
    vocabulary = Vocabulary(_IDS if _LOOKUPS & found.ops.keys() else None)
    chosen = comparison_samples(signature, vocabulary, samples if specs else None)
    if not specs:  # Then each run is the same.
        chosen = {"random": chosen["random"][:1]}
    every = [sample for kind in chosen.values() for sample in kind]
    names = sorted(specs)  # As `tree.flatten` takes a dict.
    outputs = [port.name for port in found.outputs]
    expected = _plainly(file, names, outputs, every)
    received = _run_all(runner.open(file), names, outputs, every)
    counts = {kind: len(own) for kind, own in chosen.items()}
    limits = comparing.limits(counts, precision, limit)
    return judge(expected, received, counts, limits)


def _plainly(
    file: pathlib.Path, names: list[str], outputs: list[str], samples: list[Sample]
) -> Expected:
    """Return what a file computes in the plain kernels of this machine's runtime."""
    try:
        wanted = _run_all(isolated(file, reference=True), names, outputs, samples)
    except RuntimeError as error:
        raise RuntimeError(
            "There is nothing to compare with: the plain kernels of its runtime on "
            f"this machine cannot run it. Pass the model. {error}"
        ) from error
    return Expected(
        who="The same file in plain kernels",
        name=f"'{file.name}' in plain kernels",
        labels=[f"output '{name}'" for name in outputs],
        outputs=wanted,
    )


def _run_all(
    loaded: AbstractContextManager[Runtime],
    names: list[str],
    outputs: list[str],
    samples: list[Sample],
) -> list[list[Array]]:
    """Return the outputs for each sample; `names` is the order within a sample."""
    received = []
    with loaded as runtime:
        for sample in samples:
            values = dict(zip(names, tree.flatten(sample), strict=True))
            results = comparing.run(runtime, values)
            received.append([results[name] for name in outputs])
    return received


def _sample_shapes(found: Inspection, samples: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes in which samples go in, for inputs that leave sizes open."""
    only = len(found.inputs) == 1
    shapes = {}
    for port in found.inputs:
        own = samples if only else (samples or {}).get(port.name)
        shape = np.shape(own) if own is not None else ()
        if len(shape) == len(port.shape) and None in port.shape:
            row = (port.shape[0] or 1, *shape[1:])
            # What does not fit is refused where samples are checked.
            if sizes.fits(port, row):
                shapes[port.name] = row
    return shapes


def _signature(model: keras.Model, given: Any, found: Inspection) -> Signature:
    """Return the model's inputs in the sizes that the file was written for."""
    signature = signatures.input_signature(model, given, None)
    specs = tree.flatten(signature)
    known = naming.aliases(signature, signatures.names(signature))
    ports = {port.name: port for port in found.inputs}
    for name, position in naming.match("input", list(ports), known).items():
        specs[position] = _fitted(specs[position], ports[name], found.path)
    return list(tree.pack_sequence_as(signature, specs))


def _fitted(spec: keras.InputSpec, port: Port, path: str) -> keras.InputSpec:
    wanted, sizes = tuple(spec.shape), port.shape
    fits = len(wanted) == len(sizes) and all(
        None in pair or pair[0] == pair[1] for pair in zip(wanted, sizes, strict=True)
    )
    kinds = [keras.backend.is_float_dtype(dtype) for dtype in (spec.dtype, port.dtype)]
    if not fits or kinds[0] != kinds[1]:
        raise ValueError(
            f"'{path}' takes the input {port}, the model takes {wanted} {spec.dtype}. "
            "Pass the model that the file was exported from; the inputs of a quantized "
            "file have to be float, as `kt.export` writes them."
        )
    shape = tuple(
        size if size is not None else own
        for size, own in zip(sizes, wanted, strict=True)
    )
    return keras.InputSpec(shape=shape, dtype=spec.dtype, name=spec.name)


def _hint(found: Inspection, on: str) -> str:
    """Return what is often wrong with a sparse file that this machine runs rightly."""
    sparse = any(tensor.encoding != "dense" for tensor in found.tensors)
    if on == "host" or not sparse:
        return ""
    return (
        "\nThe file stores tensors without their zeros: where sparse kernels run only "
        "some of a network's layers they may fail or compute wrong numbers. "
        "kt.export(..., sparse=False) avoids them."
    )
