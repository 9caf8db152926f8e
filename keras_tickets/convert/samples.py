"""Inputs to compare a file with Keras on, when the user gives none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_tickets._util.file_tensor import Array
from keras_tickets._util.signature import Signature
from keras_tickets.backend.keras_private import sublayers

# Dimensions left open (sequence length, image size) get these sizes in turn: small, but
# enough for a few stride-2 layers.
_OPEN_SIZES = (32, 48)

# How many random inputs a file is compared on, and how many real ones at most.
_RANDOM, _REAL = 4, 16

# One sample: an entry per positional argument of the model.
Sample = list[Any]


def comparison_samples(
    signature: Signature,
    vocabulary: int | None,
    given: Any = None,
    data: Sequence[Sample] = (),
) -> dict[str, list[Sample]]:
    """Choose what a file is compared on.

    Args:
        signature: The model's inputs.
        vocabulary: Ids below this are valid; None if there are none.
        given: The user's `samples`, or None.
        data: Real inputs that the user gave for another purpose.

    Returns:
        `"random"` samples and, where there are some, `"real"` ones.

    Raises:
        ValueError: If what the user gave does not fit.
    """
    real = [] if given is None else cut_samples(given, signature, _REAL)
    real = real or list(data[:_REAL])
    random = make_samples(vocabulary, signature, _RANDOM, real)
    return {"random": random, "real": real} if real else {"random": random}


def make_samples(
    vocabulary: int | None,
    signature: Signature,
    count: int,
    real: Sequence[Sample] = (),
) -> list[Sample]:
    """Draw random inputs that fit a signature, the same ones each time.

    Args:
        vocabulary: Ids below this are valid for each embedding that will read them;
            None if none will.
        signature: The inputs.
        count: How many samples.
        real: Real inputs; if there are some, random ones stay within their range, so
            that ids are valid and images have the values of images.

    Returns:
        Samples; where the batch size is open, batches of 1 and 2 alternate.
    """
    rng = np.random.default_rng(0)
    specs = tree.flatten(signature)
    ranges = _ranges(real) or [None] * len(specs)
    return [
        tree.pack_sequence_as(
            signature,
            [
                _draw(rng, spec, index, vocabulary, known)
                for spec, known in zip(specs, ranges, strict=True)
            ],
        )
        for index in range(count)
    ]


# The least and the largest value of an input; None where nothing is known.
Range = tuple[Any, Any] | None


def _ranges(samples: Sequence[Sample]) -> list[Range]:
    columns = zip(*(tree.flatten(sample) for sample in samples), strict=True)
    return [(min(a.min() for a in c), max(a.max() for a in c)) for c in columns]


def cut_samples(
    data: Any, signature: Signature, count: int, what: str = "samples"
) -> list[Sample]:
    """Cut the user's arrays into samples of the batch size that the file takes.

    Args:
        data: Arrays with a leading batch dimension, structured as the model's
            input (a tuple or list of them for a model with several arguments).
        signature: The model's inputs.
        count: How many samples at most.
        what: The argument that the user passed, for errors.

    Returns:
        Samples.

    Raises:
        ValueError: If the structure does not match, or there are too few rows.
    """
    arguments = [data] if len(signature) == 1 else list(data)
    try:
        tree.assert_same_structure(arguments, signature)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`{what}` must be structured as the model's input: {error}"
        ) from error
    specs = tree.flatten(signature)
    arrays = [
        _array(values, spec, what)
        for values, spec in zip(tree.flatten(arguments), specs, strict=True)
    ]
    size = specs[0].shape[0] or 1
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(
            f"`{what}` needs as many rows for each input. Received: "
            f"{[len(array) for array in arrays]}"
        )
    rows = len(arrays[0])
    if rows < size:
        raise ValueError(
            f"`{what}` needs at least {size} row(s), the batch size of the file. "
            f"Received {rows}."
        )
    starts = range(0, min(count * size, rows - size + 1), size)
    return [
        tree.pack_sequence_as(signature, [array[i : i + size] for array in arrays])
        for i in starts
    ]


def _array(values: Any, spec: keras.InputSpec, what: str) -> Array:
    try:
        array = np.asarray(keras.ops.convert_to_numpy(values))
    except Exception:
        array = np.asarray(None)
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise ValueError(
            f"`{what}` for input '{spec.name}' must be an array of numbers, such as "
            f"x_train[:200]. Received: {type(values).__name__}"
        )
    _check_shape(array, spec, what)
    if not np.isfinite(array).all():
        raise ValueError(
            f"`{what}` for input '{spec.name}' holds values that are not finite (NaN "
            "or infinite)."
        )
    return array.astype(spec.dtype)


def _check_shape(array: Array, spec: keras.InputSpec, what: str) -> None:
    wanted = tuple(spec.shape)[1:]
    fits = array.ndim == len(wanted) + 1 and all(
        size in (None, real) for size, real in zip(wanted, array.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"`{what}` for input '{spec.name}' must have the shape "
            f"(rows, {', '.join(map(str, wanted))}). Received: {array.shape}"
        )


def vocabulary_of(model: keras.Model) -> int | None:
    """Return how many ids all embeddings of a model know; None without one."""
    sizes = [
        layer.input_dim
        for layer in sublayers(model)
        if isinstance(layer, keras.layers.Embedding)
    ]
    return min(sizes, default=None)


def _draw(
    rng: np.random.Generator,
    spec: keras.InputSpec,
    index: int,
    vocabulary: int | None,
    known: Range,
) -> Array:
    sizes = tuple(spec.shape)
    open_size = _OPEN_SIZES[index % len(_OPEN_SIZES)]
    shape = [open_size if size is None else size for size in sizes]
    if sizes and sizes[0] is None:
        shape[0] = 1 + index % 2
    if known is not None and spec.dtype != "bool":
        low, high = known
        if "int" in spec.dtype or vocabulary is not None:
            return rng.integers(int(low), int(high) + 1, shape).astype(spec.dtype)
        return rng.uniform(low, high, shape).astype(spec.dtype)
    if "int" in spec.dtype:
        return rng.integers(0, vocabulary or 2, shape).astype(spec.dtype)
    if spec.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if vocabulary is not None:
        # Ids often arrive in a float input, and small whole numbers do no harm
        # to an input that is really a number.
        return rng.integers(0, min(vocabulary, 8), shape).astype(spec.dtype)
    return rng.standard_normal(shape).astype(spec.dtype)
