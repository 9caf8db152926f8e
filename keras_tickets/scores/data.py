"""The data that a score asks: a few labelled batches, checked before use."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Number
from typing import Any

import keras
import numpy as np
from keras import ops, tree

MOST_BATCHES = 10_000


def batches(data: Any, batch_size: int, name: str) -> list[list[Any]]:
    """Return all batches of `data` as lists `[x, y]` or `[x, y, weight]` of tensors.

    Args:
        data: A tuple of arrays (or dicts of arrays), or an iterable of such tuples.
        batch_size: How arrays are cut.
        name: Who asks, for errors.
    """
    if data is None:
        raise ValueError(
            f"{name} has no data to draw with. Expected data=(x, y) or an iterable of "
            "such batches. Data is not saved with a model: give a loaded ticket its "
            f"pruner anew, kt.wrap(ticket, kt.{name}(..., data=...))."
        )
    cut = _cut(data, batch_size, name) if isinstance(data, tuple) else _read(data, name)
    tensors = [tree.map_structure(ops.convert_to_tensor, list(b)) for b in cut]
    if not tensors:
        raise ValueError(f"The data of {name} is empty. Expected at least one sample.")
    return tensors


def length(batch: Sequence[Any]) -> int:
    """Return how many samples a batch has."""
    return int(tree.flatten(batch)[0].shape[0])


def _cut(data: tuple, batch_size: int, name: str) -> list[tuple]:
    _check_pair(data, name)
    parts = tree.map_structure(np.asarray, tuple(_arrays(part) for part in data))
    sizes = {len(part) for part in tree.flatten(parts)}
    if len(sizes) > 1:
        raise ValueError(
            f"The arrays that {name} was given differ in length: {sorted(sizes)}. "
            "Expected one label for each sample."
        )
    starts = range(0, sizes.pop(), batch_size)
    return [
        tree.map_structure(lambda part, i=i: part[i : i + batch_size], parts)
        for i in starts
    ]


def _read(data: Any, name: str) -> list[tuple]:
    if isinstance(data, keras.utils.PyDataset):
        data = [data[i] for i in range(data.num_batches)]
    if isinstance(data, str) or not isinstance(data, Iterable):
        _check_pair(data, name)
    read = list(itertools.islice(data, MOST_BATCHES + 1))
    if len(read) > MOST_BATCHES:
        raise ValueError(
            f"The data of {name} did not end after {MOST_BATCHES:,} batches. Take a "
            "few: data=dataset.take(10)."
        )
    for batch in read:
        _check_pair(batch, name)
    return [tuple(_arrays(part) for part in batch) for batch in read]


def _arrays(part: Any) -> Any:
    """Return inputs or labels with lists of numbers in them made arrays."""
    if isinstance(part, Mapping):
        return {key: _arrays(value) for key, value in part.items()}
    if not isinstance(part, list | tuple):
        return part
    if not all(isinstance(leaf, Number | str) for leaf in tree.flatten(part)):
        return type(part)(map(_arrays, part)) if type(part) in (list, tuple) else part
    array = np.asarray(part)
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array


def _check_pair(batch: Any, name: str) -> None:
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise ValueError(
            f"{name} needs samples with labels: data=(x, y) or (x, y, sample_weight), "
            "a tuple, or an iterable of such batches. "
            f"Received: {type(batch).__name__}"
            + (f" of {len(batch)}." if isinstance(batch, tuple | list) else ".")
        )


def check(
    model: keras.Model,
    loss: Callable[..., Any],
    all_batches: Sequence[Sequence[Any]],
    name: str,
) -> None:
    """Raise unless model and loss take the data.

    Raises:
        ValueError: For wrong shapes and for labels that the outputs do not have.
    """
    for batch in all_batches:
        _check_inputs(model, batch[0], name)
    x, y, *weight = all_batches[0]
    outputs = model(x, training=False)
    pairs = list(zip(tree.flatten(y), tree.flatten(outputs), strict=False))
    for target, output in pairs:
        _check_shape(target, output, name)
    for batch in all_batches:
        for target, (_, output) in zip(tree.flatten(batch[1]), pairs, strict=False):
            _check_labels(target, output, name)
    loss(y, outputs, *weight)  # builds what the loss needs, before it is compiled


def _check_inputs(model: keras.Model, x: Any, name: str) -> None:
    expected = [tuple(i.shape) for i in getattr(model, "inputs", None) or []]
    received = [tuple(part.shape) for part in tree.flatten(x)]
    if expected and not (
        len(expected) == len(received) and all(map(_fits, expected, received))
    ):
        raise ValueError(
            f"The data of {name} has inputs of shape {received}, {model.name!r} takes "
            f"{expected} (None: any size). Prepare the data as for fit."
        )


def _fits(expected: tuple, received: tuple) -> bool:
    return len(expected) == len(received) and all(
        e is None or e == r for e, r in zip(expected, received, strict=True)
    )


def _check_shape(target: Any, output: Any, name: str) -> None:
    same_rank = len(target.shape) == len(output.shape)
    if same_rank and target.shape[-1] not in (1, output.shape[-1]):
        raise ValueError(
            f"The data of {name} has labels of shape {tuple(target.shape)}, the model "
            f"puts out {tuple(output.shape)}. Expected one-hot labels of "
            f"{output.shape[-1]} classes, or integers."
        )


def _check_labels(target: Any, output: Any, name: str) -> None:
    classes = output.shape[-1]
    integers = "int" in keras.backend.standardize_dtype(target.dtype)
    one_hot = len(target.shape) == len(output.shape) and target.shape[-1] != 1
    if not integers or one_hot or classes == 1:
        return
    least, most = int(ops.min(target)), int(ops.max(target))
    if least < 0 or most >= classes:
        raise ValueError(
            f"The data of {name} has labels from {least} to {most}, the model puts out "
            f"{classes} classes: expected labels from 0 to {classes - 1}."
        )
