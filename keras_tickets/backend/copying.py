"""Copies of models and layers, with all that Keras' own saving would carry.

A layer is more than its weights: `Normalization` computes with constants that it
derives from them, lookups keep their vocabulary in files of their own (assets), and any
class may save what it likes (`save_own_variables`, `load_own_variables`). A copy is a
fresh model from the config, and then the state of each layer in memory, by the same
methods as Keras saves and loads it. Beyond those it gets what Keras leaves out of a
file: seeds, states of recurrent layers, what was frozen after it was built, and data
among the attributes of the user's own classes.
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import types
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_tickets.backend import array_of, keras_private, sequential
from keras_tickets.backend.attributes import attributes_kept, copy_attributes
from keras_tickets.backend.rebuilding import is_of_keras


class ShapeError(ValueError):
    """Raised for a copy whose weight has another shape than the original.

    Args:
        layer: The original layer.
        variable: The name of the weight.
        has: Its shape in the original.
        needs: Its shape in the copy.
    """

    def __init__(self, layer: keras.Layer, variable: str, has: Any, needs: Any) -> None:
        super().__init__(cannot_copy(layer, f"{variable} has {has}, not {needs}"))
        self.variable, self.has, self.needs = variable, has, needs


def rebuild(source: Any, change: Callable[[Any], Any] = lambda config: config) -> Any:
    """Return a fresh model, layer or operation from the config of one.

    Classes that are in use in `source` need no registration. The state is fresh.

    Args:
        source: The model, layer or operation.
        change: Called with its serialized config; returns the one to build.

    Raises:
        ValueError: If it cannot be built from its config.
    """
    below = keras_private.sublayers(source) if isinstance(source, keras.Layer) else []
    try:
        with _in_use_of([source, *below]):
            return _revived(source, change)
    except _UNREVIVED as error:
        raise ValueError(_why_not(source, below, error)) from error


_UNREVIVED = (TypeError, ValueError, NotImplementedError, AttributeError)
"""What Keras raises of a config that builds nothing."""


def _revived(source: Any, change: Callable[[Any], Any]) -> Any:
    config = change(keras.saving.serialize_keras_object(source))
    config = sequential.built_once(config)
    return keras.saving.deserialize_keras_object(config, safe_mode=False)


def _in_use_of(layers: Sequence[Any]) -> Any:
    """Let Keras find by name, within the block, what is registered nowhere."""
    return keras.saving.custom_object_scope(_in_use(layers) | sequential.CLASSES)


def _in_use(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the classes and functions of the user's that layers hold, by name."""
    values = [x for layer in layers for x in (layer, *vars(layer).values())]
    kinds = [
        x if isinstance(x, types.FunctionType) else type(x)
        for x in values
        if isinstance(x, types.FunctionType) or hasattr(x, "get_config")
    ]
    # Not Keras' own: a layer Add would then also be taken for the operation Add.
    own = {kind for kind in kinds if not is_of_keras(kind)}
    count = Counter(kind.__name__ for kind in own)
    # Two of one name cannot be told apart in a config.
    return {kind.__name__: kind for kind in own if count[kind.__name__] == 1}


def _why_not(source: Any, below: Sequence[keras.Layer], error: Exception) -> str:
    """Say what cannot be built from its config: a layer, where it is one alone."""
    for layer in reversed(below[1:]):
        try:
            with _in_use_of(below):
                _revived(layer, lambda config: config)
        except _UNREVIVED as its_own:
            return cannot_copy(layer, _root(its_own))
    return cannot_copy(source, _root(error))


def _root(error: BaseException) -> str:
    """Return what was raised first; Keras adds whole configs on the way up."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).partition(" Full object config:")[0]


def pair(
    sources: Sequence[keras.Layer],
    targets: Sequence[keras.Layer],
    but: Collection[int] = (),
) -> list[tuple[keras.Layer, keras.Layer]]:
    """Return which layer is a copy of which.

    Args:
        sources: A model and all layers below it, parents first.
        targets: The same of the copy.
        but: The `id` of each layer whose copy has variables of other shapes.

    Raises:
        ShapeError: If a weight of a copy has another shape.
        ValueError: If the copy has other layers, or one of them other variables.
    """
    if len(sources) != len(targets):
        why = f"the copy has {len(targets)} layers, the original {len(sources)}"
        raise ValueError(cannot_copy(sources[0], why))
    pairs = list(zip(sources, targets, strict=True))
    for source, target in pairs:
        if type(source) is not type(target):
            why = f"the copy of its layer {source.name!r} is a {type(target).__name__}"
            raise ValueError(cannot_copy(sources[0], why))
        if id(source) not in but:
            pair_variables(source, target)
    return pairs


def copy_state(
    pairs: Iterable[tuple[keras.Layer, keras.Layer]],
    but: Collection[int] = (),
    instead: Mapping[int, Callable[[], Any]] = MappingProxyType({}),
) -> None:
    """Give copies of layers the state of the layers.

    Args:
        pairs: A layer and its copy, for each layer; parents first.
        but: The `id` of each layer whose copy has another state.
        instead: By `id` of variable, what gives another value for its copy.
    """
    for source, target in pairs:
        keras_private.set_own_trainable(target, source.trainable)
        copy_attributes(source, target, _fresh(source, target))
        if id(source) in but:
            continue
        variables = pair_variables(source, target)
        load_state(target, saved_state(source))
        for mine, theirs in variables:
            value = instead[id(mine)]() if id(mine) in instead else mine
            theirs.assign(array_of(value))
            theirs.trainable = mine.trainable


def _fresh(source: keras.Layer, target: keras.Layer) -> keras.Layer | None:
    """Return a copy from the config alone, where that of another size tells nothing."""
    if is_of_keras(type(source)):
        return None
    same = source.get_build_config() == target.get_build_config()
    return None if same else rebuild(source)


def pair_variables(
    source: keras.Layer, target: keras.Layer
) -> list[tuple[keras.Variable, keras.Variable]]:
    """Return which variable of a layer's own is a copy of which.

    Raises:
        ShapeError: If two have different shapes.
        ValueError: If the copy has more or fewer.
    """
    mine, theirs = state_variables(source), state_variables(target)
    for variable, copy in zip(mine, theirs, strict=False):
        if variable.shape != copy.shape:
            raise ShapeError(source, variable.name, variable.shape, copy.shape)
    if len(mine) != len(theirs):
        why = f"the copy has {len(theirs)} variables, the original {len(mine)}"
        raise ValueError(cannot_copy(source, why))
    return list(zip(mine, theirs, strict=True))


def state_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Return the variables of a layer's own: weights, seeds, states of a recurrence."""
    own = [*keras_private.own_variables(layer), *keras_private.own_seeds(layer)]
    return [*own, *recurrent_states(layer)]


def recurrent_states(layer: keras.Layer) -> list[keras.Variable]:
    """Return what a stateful recurrent layer keeps from one batch to the next."""
    states = getattr(layer, "states", ()) if getattr(layer, "stateful", False) else ()
    return [x for x in keras.tree.flatten(states) if isinstance(x, keras.Variable)]


@contextlib.contextmanager
def at_rest(model: keras.Layer) -> Iterator[None]:
    """Let recurrent layers begin anew within the block, and undo what it changes.

    A model that only computes may change, too: states of recurrent layers move on, and
    a class may count its calls, in a variable or in an attribute. Afterwards all but
    its trainable weights are as before.

    Args:
        model: The model, or a layer.
    """
    layers = keras_private.sublayers(model)
    held = [v for layer in layers for v in state_variables(layer) if not v.trainable]
    before = [array_of(variable) for variable in held]
    begin_anew(model)
    try:
        with attributes_kept(layers):
            yield
    finally:
        for variable, value in zip(held, before, strict=True):
            if not np.array_equal(array_of(variable), value, equal_nan=True):
                variable.assign(value)


def begin_anew(model: keras.Layer) -> None:
    """Let recurrent layers forget what they saw."""
    for layer in keras_private.sublayers(model):
        for state in recurrent_states(layer):
            state.assign(ops.zeros_like(state.value))


# -- what layers save by methods of their own ------------------------------------------


@dataclass(frozen=True)
class SavedState:
    """What a layer saves by methods of its own.

    Args:
        values: What it stores, by name; variables as they are.
        assets: The content of its files, by their path in its folder.
    """

    values: Mapping[str, Any]
    assets: Mapping[str, bytes]


def saved_state(layer: keras.Layer) -> SavedState | None:
    """Return what a layer saves; `None` if it saves as any layer does."""
    values: dict[str, Any] = {}
    assets: dict[str, bytes] = {}
    if not _saves(layer):
        return None
    layer.save_own_variables(values)
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as name:
            layer.save_assets(name)
            folder = pathlib.Path(name)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            assets = {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
    return SavedState(values, assets)


def load_state(layer: keras.Layer, state: SavedState | None) -> None:
    """Let a layer load what another one saved by methods of its own."""
    if state is None:
        return
    values = {name: array_of(value) for name, value in state.values.items()}
    layer.load_own_variables(values)
    if hasattr(layer, "load_assets"):
        with tempfile.TemporaryDirectory() as name:
            for path, content in state.assets.items():
                file = pathlib.Path(name, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            layer.load_assets(name)


def _saves(layer: keras.Layer) -> bool:
    methods = ("save_own_variables", "load_own_variables")
    own = any(getattr(type(layer), m) is not getattr(keras.Layer, m) for m in methods)
    return own or hasattr(layer, "save_assets")


def cannot_copy(source: Any, why: str, path: str = "") -> str:
    """Return what to say of a model, layer or operation that cannot be copied."""
    kind = type(source)
    if is_of_keras(kind) and not isinstance(source, keras.Model):
        way_out = (
            "The class is Keras' own, and what model.save() writes of it may not load "
            "either: take it out of the model, or give it other arguments."
        )
    else:
        way_out = (
            "Expected that get_config() returns every argument of the constructor, and "
            "that what is built from it has the same layers and variables. Add "
            "get_config() (and build()) to the class, as model.save() needs it too."
        )
    return (
        f"{kind.__name__} {path or source.name!r} cannot be copied from its config: "
        f"{why}. {way_out}"
    )
