"""Whether two models have the same weights, whatever their layers are called.

Keras numbers the names of layers in the order in which a process makes them, so a model
that is built twice has two sets of paths. What stays is the order of the weights and
the class of the layer that each belongs to.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import keras

from keras_tickets.backend import keras_private
from keras_tickets.kernels import owners
from keras_tickets.ticket.parts import weights_of


@dataclass(frozen=True)
class Weight:
    """What is compared of one weight, and the path that people know it by."""

    layer: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    path: str

    def same(self, other: Weight) -> bool:
        """Return whether two weights differ in their paths only."""
        return astuple(self)[:-1] == astuple(other)[:-1]

    def __str__(self) -> str:
        return f"{self.layer} {self.name} {self.shape} {self.dtype}"


def describe(model: keras.Model) -> list[Weight]:
    """Return a row for each weight of `model`, in its order, masks left out.

    Wiring, activations and strides are no weights and are not seen.
    """
    owner = owners(keras_private.sublayers(model))
    return [
        Weight(
            type(owner.get(id(variable), model)).__name__,
            re.sub(r"_\d+$", "", variable.name),
            tuple(variable.shape),
            str(variable.dtype),
            variable.path,
        )
        for variable in weights_of(model)
    ]


def digest(weights: Sequence[Weight]) -> str:
    """Return the SHA-256 of a description, the paths left out."""
    rows = [astuple(weight)[:-1] for weight in weights]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def first_difference(
    expected: Sequence[Weight], found: Sequence[Weight]
) -> tuple[Weight | None, Weight | None] | None:
    """Return the first weights that differ; `None` stands for one that is missing."""
    for pair in zip(expected, found, strict=False):
        if not pair[0].same(pair[1]):
            return pair
    shorter = min(len(expected), len(found))
    if len(expected) == len(found):
        return None
    return next(iter(expected[shorter:]), None), next(iter(found[shorter:]), None)
