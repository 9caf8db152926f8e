"""Does the file compute what the model computes?

Called with a file that is already written, so that what is compared is what the
user gets, in the runtime that will run it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import warnings
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_tickets.convert import names as naming
from keras_tickets.convert.quiet import quiet
from keras_tickets.convert.runtimes import Runtime, open_runtime
from keras_tickets.convert.sampling import Sample
from keras_tickets.convert.tensor import Array
from keras_tickets.signature import Signature, names

# Below this, a difference is rounding noise whatever the size of the outputs.
_NOISE = 1e-7

# Outputs that change by less than this, relative to their size, do not change.
_CONSTANT = 1e-6


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How far a file is from its model.

    Args:
        max_abs: Largest difference of any output.
        max_rel: The same, relative to the largest Keras value of that output.
        samples: How many inputs were compared.
    """

    max_abs: float
    max_rel: float
    samples: int


def verify(
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    samples: list[Sample],
    tolerance: float,
) -> Comparison:
    """Runs a file and its model on the same inputs and compares the outputs.

    Args:
        model: The plain model that the file was made from.
        path: The file.
        signature: The model's inputs.
        samples: The inputs to compare on.
        tolerance: Largest difference allowed, relative to the largest absolute
            Keras value of the same output over all samples.

    Returns:
        The differences found.

    Raises:
        RuntimeError: If the file cannot be run, an output is not finite, has
            another shape, or differs by more than the tolerance.

    Example:

    ```python
    samples = make_samples(model, signature, count=4)
    verify(model, path, signature, samples, tolerance=1e-5).max_rel
    ```
    """
    expected = [_keras_outputs(model, sample) for sample in samples]
    structure = expected[0]
    flat = [[_numpy(leaf) for leaf in tree.flatten(outputs)] for outputs in expected]
    labels = _labels(model, structure)
    _check_finite("Keras", flat, labels)
    _warn_if_constant(model, flat)
    received = _file_outputs(path, signature, samples, structure)
    _check_finite(f"The file '{path.suffix}'", received, labels)
    worst_abs = worst_rel = 0.0
    for i, label in enumerate(labels):
        difference, largest = _difference(
            label, [(f[i], r[i]) for f, r in zip(flat, received, strict=True)]
        )
        relative = difference / largest if largest else difference
        worst_abs, worst_rel = max(worst_abs, difference), max(worst_rel, relative)
        if difference > tolerance * largest + _NOISE:
            raise RuntimeError(
                f"The exported file does not compute what '{model.name}' computes: "
                f"{label} differs by {difference:.3g} (largest Keras value "
                f"{largest:.3g}), which is {relative:.2g} relative; at most "
                f"{tolerance:g} was expected. No file was written. If the model is "
                "random in inference, or Keras ran on a GPU with reduced precision, "
                "compare on the CPU or pass a larger `tolerance`."
            )
    return Comparison(worst_abs, worst_rel, len(samples))


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
    path: pathlib.Path, signature: Signature, samples: list[Sample], structure: Any
) -> list[list[Array]]:
    """The file's outputs for each sample, in the order of the model's outputs."""
    try:
        with quiet():
            runtime = open_runtime(path)
    except ImportError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"The converted file cannot be loaded by the {path.suffix} runtime, so it "
            f"was not kept. {type(error).__name__}: {error}"
        ) from error
    # `[x]` and `x` are the same input here: the list holds call's arguments.
    inputs = naming.match(
        "input", runtime.inputs, naming.aliases(signature, names(signature))
    )
    count = len(tree.flatten(structure))
    outputs = naming.match(
        "output", runtime.outputs, naming.aliases(structure, [None] * count)
    )
    if len(outputs) != count:
        raise RuntimeError(
            f"The model has {count} outputs, the converted file {len(outputs)}: "
            f"{runtime.outputs}."
        )
    with quiet():
        return [_run(runtime, inputs, outputs, sample) for sample in samples]


def _run(
    runtime: Runtime, inputs: dict[str, int], outputs: dict[str, int], sample: Sample
) -> list[Array]:
    flat = tree.flatten(sample)
    try:
        results = runtime.run({name: flat[i] for name, i in inputs.items()})
    except Exception as error:
        raise RuntimeError(
            "The converted file was loaded but cannot run, so it was not kept. "
            f"{type(error).__name__}: {error}"
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


def _difference(label: str, pairs: list[tuple[Array, Array]]) -> tuple[float, float]:
    """The largest difference, and the largest expected value, over all samples."""
    difference = largest = 0.0
    for expected, received in pairs:
        if expected.shape != received.shape:
            raise RuntimeError(
                f"The exported file computes {label} with shape {received.shape}; "
                f"Keras computes {expected.shape}."
            )
        if not expected.size:
            continue
        expected = expected.astype(np.float64)
        gap = np.abs(expected - received.astype(np.float64)).max()
        difference = max(difference, float(gap))
        largest = max(largest, float(np.abs(expected).max()))
    return difference, largest


def _numpy(tensor: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
