"""Inputs that fit a model, drawn at random: to compare two things on.

Whatever a model is compared with (a copy of it, a file that was made of it), both
need the same inputs, of the right shapes, with ids and words that the model knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

# What text is made of where a model has no words of its own.
_WORDS = ("a", "b")

# One sample: an entry per positional argument of the model.
Sample = list[Any]


@dataclass(frozen=True)
class Vocabulary:
    """What a model can look up.

    Args:
        ids: Ids below this are valid for each embedding; None without one.
        words: Words that it knows, and some that it does not.
    """

    ids: int | None = None
    words: Sequence[str] = _WORDS


def vocabulary_of(model: keras.Layer) -> Vocabulary:
    """Return what all embeddings and lookups of a model know."""
    layers = sublayers(model)
    tables = [one for one in layers if isinstance(one, keras.layers.Embedding)]
    lookups = (keras.layers.StringLookup, keras.layers.TextVectorization)
    words = [
        str(word)
        for layer in layers
        if isinstance(layer, lookups)
        for word in layer.get_vocabulary()
        if word
    ]
    ids = min((table.input_dim for table in tables), default=None)
    return Vocabulary(ids, (*words, *_WORDS))


def make_samples(
    vocabulary: Vocabulary,
    signature: Signature,
    count: int,
    real: Sequence[Sample] = (),
) -> list[Sample]:
    """Draw random inputs that fit a signature, the same ones each time.

    Args:
        vocabulary: The ids and words that will be looked up.
        signature: The inputs.
        count: How many samples.
        real: Real inputs; if there are some, random ones have their sizes and stay
            within their range, so that ids are valid and images have the values of
            images.

    Returns:
        Samples; where the batch size is open, batches of 1 and 2 alternate.
    """
    rng = np.random.default_rng(0)
    specs = tree.flatten(signature)
    columns = list(zip(*(tree.flatten(sample) for sample in real), strict=True))
    known: list[Any] = [*columns] or [None] * len(specs)
    return [
        tree.pack_sequence_as(
            signature,
            [
                _draw(rng, spec, index, vocabulary, values)
                for spec, values in zip(specs, known, strict=True)
            ],
        )
        for index in range(count)
    ]


def to_tensors(sample: Sample) -> Sample:
    """Return a sample as tensors, text included, as a model takes them."""

    def convert(values: Array) -> Any:
        text = values.dtype.kind == "U"
        return keras.ops.convert_to_tensor(values.tolist() if text else values)

    return list(tree.map_structure(convert, sample))


def _sizes(
    spec: keras.InputSpec, index: int, known: Sequence[Array] | None
) -> list[int]:
    """Return the shape of a sample; sizes that are open are those of real inputs."""
    sizes = tuple(spec.shape)
    given = [_OPEN_SIZES[index % len(_OPEN_SIZES)]] * len(sizes)
    if known:
        given = list(known[index % len(known)].shape)
    shape = [given[axis] if size is None else size for axis, size in enumerate(sizes)]
    if sizes and sizes[0] is None:
        shape[0] = 1 + index % 2
    return shape


def _count(shape: Sequence[int]) -> int:
    """Return how many whole numbers are drawn from, where no table tells.

    An image has all of its values: what goes wrong with bright pixels shall show. Of
    other whole numbers 0 and 1 are the only ones that are valid everywhere.
    """
    return 256 if len(shape) >= 4 else 2


def _draw(
    rng: np.random.Generator,
    spec: keras.InputSpec,
    index: int,
    vocabulary: Vocabulary,
    known: Sequence[Array] | None,
) -> Array:
    shape = _sizes(spec, index, known)
    if spec.dtype == "string":
        words = vocabulary.words if known is None else np.concatenate([*known], None)
        return rng.choice(np.array(words), shape)
    if spec.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    ids = vocabulary.ids
    if known is not None:
        low, high = min(a.min() for a in known), max(a.max() for a in known)
        if "int" in spec.dtype or ids is not None:
            return rng.integers(int(low), int(high) + 1, shape).astype(spec.dtype)
        return rng.uniform(low, high, shape).astype(spec.dtype)
    if "int" in spec.dtype:
        return rng.integers(0, ids or _count(shape), shape).astype(spec.dtype)
    if ids is not None:
        # Ids often arrive in a float input, and small whole numbers do no harm
        # to an input that is really a number.
        return rng.integers(0, min(ids, 8), shape).astype(spec.dtype)
    return rng.standard_normal(shape).astype(spec.dtype)
