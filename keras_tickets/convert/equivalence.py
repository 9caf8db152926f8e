"""Does the file compute what the model computes?

Called with a file that is already written, so that what is compared is what the
user gets, in the runtime that will run it.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_tickets._util.file_tensor import Array
from keras_tickets._util.signature import Signature, names
from keras_tickets.backend.copying import at_rest
from keras_tickets.backend.random_inputs import Sample, to_tensors
from keras_tickets.convert import names as naming
from keras_tickets.convert.comparison import Comparison
from keras_tickets.convert.precision import Precision
from keras_tickets.convert.tolerances import Expected, judge
from keras_tickets.runtime.interpreters import Runtime
from keras_tickets.runtime.isolated import isolated

# What loads a file, to run it within a block.
Loader = Callable[[pathlib.Path], contextlib.AbstractContextManager[Runtime]]


def outputs_of(model: keras.Model, samples: Mapping[str, list[Sample]]) -> list[Any]:
    """Return what a model computes in inference, structured as it gives it.

    Args:
        model: What the user handed in. It is left as it was: recurrent layers begin
            anew, and are set back.
        samples: The inputs of each kind.

    Raises:
        RuntimeError: If it cannot run on a sample.
    """
    with at_rest(model):
        return [keras_outputs(model, one) for kind in samples.values() for one in kind]


def verify(
    outputs: list[Any],
    model: keras.Model,
    path: pathlib.Path,
    signature: Signature,
    samples: Mapping[str, list[Sample]],
    precision: Precision,
    tolerance: float,
    load: Loader | None = None,
) -> tuple[dict[str, Comparison], int]:
    """Run a file on the inputs that a model was run on, and compare the outputs.

    Args:
        outputs: What the user's model gave: `outputs_of(model, samples)`.
        model: The plain model that the file was made from, for the names of its inputs
            and outputs.
        path: The file.
        signature: The model's inputs.
        samples: `"random"` and, where there are some, `"real"` inputs to compare on.
        precision: The file's precision.
        tolerance: Largest difference allowed, relative to the largest absolute
            Keras value of the same output over all samples of one kind.
        load: Where it runs; None is its own runtime, on this machine.

    Returns:
        How far the file is from the model, for each kind of samples; and the most
        memory that running it took, in bytes.

    Raises:
        RuntimeError: If the file cannot be run, an output is not finite, has
            another shape, or differs by more than the tolerance.

    Example:

    ```python
    samples = {"random": make_samples(vocabulary_of(model), signature, 4)}
    outputs = outputs_of(model, samples)
    wanted = precision.get("float32", ".tflite")
    verify(outputs, model, path, signature, samples, wanted, 1e-5)
    ```
    """
    every = [sample for kind in samples.values() for sample in kind]
    structure = outputs[0]
    expected = Expected(
        who="Keras",
        name=f"'{model.name}'",
        labels=_labels(model, structure),
        outputs=[[_numpy(leaf) for leaf in tree.flatten(own)] for own in outputs],
    )
    received, peak = _file_outputs(
        model, path, signature, every, structure, load or isolated
    )
    counts = {kind: len(own) for kind, own in samples.items()}
    return judge(expected, received, counts, limits(counts, precision, tolerance)), peak


def limits(
    kinds: Mapping[str, int], precision: Precision, tolerance: float
) -> dict[str, float]:
    """Say on which kinds of samples a file has to agree.

    Args:
        kinds: The kinds of samples.
        precision: The file's precision.
        tolerance: The largest relative difference allowed.

    Returns:
        Kind -> tolerance. Activations are calibrated on real inputs, and noise may
        leave their range: there it is not checked.
    """
    unchecked = "random" if precision.calibrated else ""
    return {kind: tolerance for kind in kinds if kind != unchecked}


def keras_outputs(model: keras.Model, sample: Sample) -> Any:
    """Return the outputs of a model, as it structures them.

    Raises:
        RuntimeError: If it cannot run on the sample.
    """
    try:
        return model(*to_tensors(sample), training=False)
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
    load: Loader,
) -> tuple[list[list[Array]], int]:
    """Return the file's outputs for each sample, in the model's order."""
    with contextlib.ExitStack() as block:
        try:
            runtime = block.enter_context(load(path))
        except RuntimeError as error:
            raise RuntimeError(
                f"The file cannot be loaded by its {path.suffix} runtime. {error}"
            ) from error
        inputs, outputs = _matched(model, runtime, signature, structure)
        results = [_run(runtime, inputs, outputs, sample) for sample in samples]
        return results, runtime.peak_bytes


def _matched(
    model: keras.Model, runtime: Runtime, signature: Signature, structure: Any
) -> tuple[dict[str, int], dict[str, int]]:
    """Return which inputs and outputs of the model the names in the file stand for."""
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
            f"The model has {count} outputs, the file {len(outputs)}: "
            f"{runtime.outputs}."
        )
    return inputs, outputs


def run(runtime: Runtime, values: dict[str, Array]) -> dict[str, Array]:
    """Run a loaded file once.

    Args:
        runtime: The file.
        values: Its inputs by name.

    Returns:
        Its outputs by name.

    Raises:
        RuntimeError: If it cannot run.
    """
    try:
        return runtime.run(values)
    except RuntimeError as error:
        raise RuntimeError(f"The file was loaded but cannot run. {error}") from error


def _run(
    runtime: Runtime, inputs: dict[str, int], outputs: dict[str, int], sample: Sample
) -> list[Array]:
    flat = tree.flatten(sample)
    results = run(runtime, {name: flat[i] for name, i in inputs.items()})
    return [results[name] for name, _ in sorted(outputs.items(), key=lambda x: x[1])]


def _labels(model: keras.Model, structure: Any) -> list[str]:
    leaves = tree.flatten_with_path(structure)
    if len(leaves) == 1:
        return [f"the output of '{model.name}'"]
    return [f"output '{'/'.join(map(str, path))}'" for path, _ in leaves]


def _numpy(tensor: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
