"""Does the file compute what the model computes?

Called with a file that is already written, so that what is compared is what the
user gets, in the runtime that will run it.
"""

from __future__ import annotations

import contextlib
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_tickets.convert import names as naming
from keras_tickets.convert.comparison import Comparison, Gap, compare, gap
from keras_tickets.convert.isolated import isolated
from keras_tickets.convert.precision import Precision
from keras_tickets.convert.runtimes import Runtime
from keras_tickets.convert.sampling import Sample
from keras_tickets.convert.tensor import Array
from keras_tickets.signature import Signature, names

# Below this, a difference is rounding noise whatever the size of the outputs.
_NOISE = 1e-7

# Outputs that change by less than this, relative to their size, do not change.
_CONSTANT = 1e-6


def verify(
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    samples: Mapping[str, list[Sample]],
    precision: Precision,
    tolerance: float,
) -> tuple[dict[str, Comparison], int]:
    """Runs a file and its model on the same inputs and compares the outputs.

    Args:
        model: The plain model that the file was made from.
        path: The file.
        signature: The model's inputs.
        samples: `"random"` and, where there are some, `"real"` inputs to compare on.
        precision: The file's precision.
        tolerance: Largest difference allowed, relative to the largest absolute
            Keras value of the same output over all samples of one kind.

    Returns:
        How far the file is from the model, for each kind of samples; and the most
        memory that running it took, in bytes.

    Raises:
        RuntimeError: If the file cannot be run, an output is not finite, has
            another shape, or differs by more than the tolerance.

    Example:

    ```python
    samples = {"random": make_samples(model, signature, count=4)}
    verify(model, path, signature, samples, precision.get("float32", ".tflite"), 1e-5)
    ```
    """
    every = [sample for kind in samples.values() for sample in kind]
    expected = [_keras_outputs(model, sample) for sample in every]
    structure = expected[0]
    flat = [[_numpy(leaf) for leaf in tree.flatten(outputs)] for outputs in expected]
    labels = _labels(model, structure)
    _check_finite("Keras", flat, labels)
    _warn_if_constant(model, flat)
    received, peak = _file_outputs(model, path, signature, every, structure)
    _check_finite(f"The file '{path.suffix}'", received, labels)
    comparisons, start = {}, 0
    for kind, own in samples.items():
        part = slice(start, start + len(own))
        gaps = _gaps(labels, flat[part], received[part])
        # Activations are calibrated on real inputs: noise may leave their range.
        if not (precision.calibrated and kind == "random"):
            _check_gaps(model.name, kind, labels, gaps, tolerance)
        comparisons[kind] = compare(gaps, len(own))
        start += len(own)
    return comparisons, peak


def _gaps(
    labels: list[str], expected: list[list[Array]], received: list[list[Array]]
) -> list[Gap]:
    for wanted, found in zip(expected, received, strict=True):
        for label, values, others in zip(labels, wanted, found, strict=True):
            if values.shape != others.shape:
                raise RuntimeError(
                    f"The exported file computes {label} with shape {others.shape}; "
                    f"Keras computes {values.shape}."
                )
    outputs = zip(zip(*expected, strict=True), zip(*received, strict=True), strict=True)
    return [gap(list(wanted), list(found)) for wanted, found in outputs]


def _check_gaps(
    name: str, kind: str, labels: list[str], gaps: list[Gap], tolerance: float
) -> None:
    for label, found in zip(labels, gaps, strict=True):
        if found.worst > tolerance * found.largest + _NOISE:
            raise RuntimeError(
                f"The exported file does not compute what '{name}' computes: "
                f"{label} differs by {found.worst:.3g} on {kind} inputs (largest Keras "
                f"value {found.largest:.3g}), which is {found.relative:.2g} relative; "
                f"at most {tolerance:g} was expected. No file was written. If the "
                "model is random in inference, or Keras ran on a GPU with reduced "
                "precision, compare on the CPU or pass a larger `tolerance`."
            )


def _keras_outputs(model: keras.Model, sample: Sample) -> Any:
    try:
        return model(*sample, training=False)
    except Exception as error:
        shapes = tree.map_structure(lambda array: array.shape, sample)
        raise RuntimeError(
            f"'{model.name}' cannot run on the inputs chosen to compare it with its "
            f"file, of shapes {shapes}. Pass real ones: `samples=x_test[:4]`; for a "
            "`call` with several arguments also pass `input_signature`. "
            f"{type(error).__name__}: {error}"
        ) from error


def _file_outputs(
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    samples: list[Sample],
    structure: Any,
) -> tuple[list[list[Array]], int]:
    """The file's outputs for each sample, in the order of the model's outputs."""
    with contextlib.ExitStack() as block:
        try:
            runtime = block.enter_context(isolated(path))
        except RuntimeError as error:
            raise RuntimeError(
                f"The converted file cannot be loaded by the {path.suffix} runtime, so "
                f"it was not kept. {error}"
            ) from error
        inputs, outputs = _matched(model, runtime, signature, structure)
        results = [_run(runtime, inputs, outputs, sample) for sample in samples]
        return results, runtime.peak_bytes


def _matched(
    model: keras.Model, runtime: Runtime, signature: Signature, structure: Any
) -> tuple[dict[str, int], dict[str, int]]:
    """Which of the model's inputs and outputs the names in the file stand for."""
    # `[x]` and `x` are the same input here: the list holds call's arguments.
    inputs = naming.match(
        "input", runtime.inputs, naming.aliases(signature, names(signature))
    )
    count = len(tree.flatten(structure))
    own = naming.of_outputs(model)
    known = naming.aliases(structure, [own.get(i) for i in range(count)])
    outputs = naming.match("output", runtime.outputs, known)
    if len(outputs) != count:
        raise RuntimeError(
            f"The model has {count} outputs, the converted file {len(outputs)}: "
            f"{runtime.outputs}."
        )
    return inputs, outputs


def _run(
    runtime: Runtime, inputs: dict[str, int], outputs: dict[str, int], sample: Sample
) -> list[Array]:
    flat = tree.flatten(sample)
    try:
        results = runtime.run({name: flat[i] for name, i in inputs.items()})
    except RuntimeError as error:
        raise RuntimeError(
            f"The converted file was loaded but cannot run, so it was not kept. {error}"
        ) from error
    return [results[name] for name, _ in sorted(outputs.items(), key=lambda x: x[1])]


def _labels(model: keras.Model, structure: Any) -> list[str]:
    leaves = tree.flatten_with_path(structure)
    if len(leaves) == 1:
        return [f"the output of '{model.name}'"]
    return [f"output '{'/'.join(map(str, path))}'" for path, _ in leaves]


def _check_finite(who: str, outputs: list[list[Array]], labels: list[str]) -> None:
    for sample in outputs:
        for label, values in zip(labels, sample, strict=True):
            bad = int(values.size - np.isfinite(values.astype(np.float64)).sum())
            if bad:
                raise RuntimeError(
                    f"{who} computes {bad} values of {values.size} that are not "
                    f"finite (NaN or infinite) in {label}. Nothing was written. If "
                    "the random inputs are to blame, pass real ones: "
                    "`samples=x_test[:4]`."
                )


def _warn_if_constant(model: keras.Model, outputs: list[list[Array]]) -> None:
    """A file that ignores its input would pass too: then the check proves little."""
    if len(outputs) < 2:
        return
    for first, *others in zip(*outputs, strict=True):
        scale = float(np.abs(first.astype(np.float64)).max(initial=0.0))
        changes = [np.abs(o[:1].astype(np.float64) - first[:1]) for o in others]
        if max(float(c.max(initial=0.0)) for c in changes) > _CONSTANT * scale:
            return
    warnings.warn(
        f"'{model.name}' computes the same outputs for {len(outputs)} different "
        "inputs, so comparing its file with it proves little. Either the model "
        "collapsed (too few weights kept), or it needs real inputs: pass "
        "`samples=x_test[:4]`.",
        stacklevel=4,
    )


def _numpy(tensor: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
