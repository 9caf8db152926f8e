"""What a layer of the user's own class holds beside its variables.

Keras saves what `get_config` returns and what `save_own_variables` stores. A class may
hold more: a number that was set after the layer was made, an array, a counter, a plain
function, a variable or a table of TensorFlow's that Keras does not track. Keras' own
classes hold nothing that their config and their saved state leave out.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_tickets.backend.rebuilding import is_of_keras

_PLAIN = (bool, int, float, complex, str, bytes, np.generic, type(None))
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)


def copy_attributes(
    source: keras.Layer, target: keras.Layer, fresh: keras.Layer | None = None
) -> None:
    """Give the copy of a layer what was set on the layer after it was made.

    Args:
        source: The layer.
        target: Its copy.
        fresh: What the config of `source` alone gives; by default `target`. What
            differs from it was set later.
    """
    if is_of_keras(type(source)):
        return
    made = vars(target if fresh is None else fresh)
    for name, value in _held(source).items():
        copy = vars(target).get(name)
        if value is copy:
            continue
        if _is_variable(value) and _is_variable(copy):
            copy.assign(value.numpy())
        elif _is_table(value) and _is_table(copy):
            copy.remove(copy.export()[0])
            copy.insert(*value.export())
        elif _is_data(value) and (name not in made or not _same(value, made[name])):
            setattr(target, name, _copied(value))


@contextlib.contextmanager
def attributes_kept(layers: Sequence[keras.Layer]) -> Iterator[None]:
    """Undo what calls of layers within the block change in their attributes."""
    own = [layer for layer in layers if not is_of_keras(type(layer))]
    before = [
        (layer, name, x, _kept(x)) for layer in own for name, x in _held(layer).items()
    ]
    try:
        yield
    finally:
        for layer, name, value, kept in before:
            if _is_variable(value):
                value.assign(kept)
            elif kept is not None and not _same(vars(layer).get(name), kept):
                setattr(layer, name, kept)


def _held(layer: keras.Layer) -> dict[str, Any]:
    """Return the attributes that the class of a layer or its user made."""
    keras_own = _attributes_of_keras(isinstance(layer, keras.Model))
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in keras_own and not isinstance(value, keras.Variable)
    }


@functools.cache
def _attributes_of_keras(model: bool) -> frozenset[str]:
    return frozenset(vars(keras.Model() if model else keras.layers.Layer()))


def _kept(value: Any) -> Any:
    """Return what a value can be compared with later and set back to."""
    if _is_variable(value):
        return value.numpy()
    return _copied(value) if _is_data(value) else None


def _is_data(value: Any) -> bool:
    """Return whether a value is data: it refers to nothing of the layer's own."""
    if isinstance(value, (*_PLAIN, np.ndarray)):
        return True
    if isinstance(value, _FUNCTIONS):
        return getattr(value, "__closure__", None) is None
    if isinstance(value, Mapping):
        return all(map(_is_data, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_data, value))
    return _is_tensor(value)


def _is_tensor(value: Any) -> bool:
    symbolic = isinstance(value, keras.KerasTensor | keras.Variable)
    return not symbolic and not _is_variable(value) and keras.ops.is_tensor(value)


def _is_variable(value: Any) -> bool:
    """Return whether a value is a variable of TensorFlow's that Keras does not know."""
    return type(value).__name__.endswith("ResourceVariable") and hasattr(
        value, "assign"
    )


def _is_table(value: Any) -> bool:
    """Return whether a value is a table of TensorFlow's that can change."""
    return all(hasattr(value, method) for method in ("export", "insert", "remove"))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_same(a, b) for a, b in pairs)
    if isinstance(one, np.ndarray) or _is_tensor(one):
        return (isinstance(other, np.ndarray) or _is_tensor(other)) and _equal(
            one, other
        )
    return bool(type(one) is type(other) and (one == other or one != one))


def _equal(one: Any, other: Any) -> bool:
    a, b = (np.asarray(keras.ops.convert_to_numpy(x)) for x in (one, other))
    if a.shape != b.shape:
        return False
    if a.dtype != b.dtype:  # a copy that computes in another precision
        numbers = "U" not in a.dtype.kind + b.dtype.kind
        return numbers and np.allclose(a.astype(float), b.astype(float), rtol=1e-2)
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_copied, value))
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return kind(map(_copied, value))
    if isinstance(value, np.ndarray):
        return value.copy()
    return keras.ops.copy(value) if _is_tensor(value) else value
