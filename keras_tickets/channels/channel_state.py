"""What is known of the channels of one tensor, without running the network on data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_tickets.backend import keras_private


@dataclass(frozen=True, eq=False)
class Channels:
    """A tensor, seen by its channels: the last axis, at every position alike.

    Args:
        spec: Its shape and dtype.
        ids: The id of each channel (see `coupling`); none if the last axis has no
            known size.
        constants: The value of each channel that has the same value at all positions,
            for any input of the model; NaN for the others.
    """

    spec: keras.KerasTensor
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    constants: np.ndarray = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.ids)


def unknown(count: int) -> np.ndarray:
    """Return the constants of channels of which none is constant."""
    return np.full(count, np.nan)


def only_finite(constants: np.ndarray) -> np.ndarray:
    """Return constants with what overflowed made unknown: zero times it is no zero."""
    return np.where(np.isfinite(constants), constants, np.nan)


def apply(function: Callable[[Any], Any], constants: np.ndarray) -> np.ndarray:
    """Return what an elementwise function makes of constants."""
    known = ~np.isnan(constants)
    values = function(ops.convert_to_tensor(constants[known], dtype="float32"))
    result = unknown(len(constants))
    result[known] = ops.convert_to_numpy(values)
    return only_finite(result)


def tensors_in(*structure: Any) -> list[Channels]:
    """Return the tensors in a nest of arguments."""
    return [x for x in tree.flatten(structure) if isinstance(x, Channels)]


def specs(structure: Any) -> Any:
    """Return a nest of arguments with Keras' own descriptions of its tensors."""
    return tree.map_structure(
        lambda x: x.spec if isinstance(x, Channels) else x, structure
    )


def below(layer: Any) -> list[keras.Layer]:
    """Return the layers below a layer; an operation has none."""
    return keras_private.sublayers(layer)[1:] if isinstance(layer, keras.Layer) else []
