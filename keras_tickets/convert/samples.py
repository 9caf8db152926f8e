"""Inputs to compare a file with Keras on, when the user gives none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_tickets._util.file_tensor import Array
from keras_tickets._util.signature import Signature
from keras_tickets.backend.random_inputs import Sample, Vocabulary, make_samples

# How many random inputs a file is compared on, and how many real ones at most.
_RANDOM, _REAL = 4, 16


def comparison_samples(
    signature: Signature,
    vocabulary: Vocabulary,
    given: Any = None,
    data: Sequence[Sample] = (),
) -> dict[str, list[Sample]]:
    """Choose what a file is compared on.

    Args:
        signature: The model's inputs.
        vocabulary: The ids and words that the model knows.
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
    specs = tree.flatten(signature)
    arguments = [data] if len(signature) == 1 else list(data)
    # Keras takes an array for a list of one input, and a list of one for an array.
    alone = len(specs) == len(tree.flatten(arguments)) == 1
    if not alone or isinstance(data, Mapping):
        try:
            tree.assert_same_structure(arguments, signature)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"`{what}` must be structured as the model's input: {error}"
            ) from error
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
    if spec.dtype == "string":
        return _text(values, spec, what)
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


def _text(values: Any, spec: keras.InputSpec, what: str) -> Array:
    array = np.asarray(getattr(values, "numpy", lambda: values)())
    if array.dtype.kind == "S" or isinstance(next(array.flat, None), bytes):
        array = np.char.decode(array.astype(bytes), "utf-8")
    if not all(isinstance(value, str) for value in array.flat):
        raise ValueError(
            f"`{what}` for input '{spec.name}' must be an array of text, such as "
            f"x_train[:200]. Received: {type(values).__name__}"
        )
    _check_shape(array, spec, what)
    return array.astype(str)


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
