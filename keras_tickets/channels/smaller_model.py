"""From a plan to the smaller model, through the configs of the layers."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_tickets.backend import keras_private
from keras_tickets.channels.removal_plan import (
    Change,
    ShrinkPlan,
)
from keras_tickets.masks.stripping import rebuild


def smaller(model: keras.Model, plan: ShrinkPlan) -> keras.Model:
    """Return a new model with the changes of a plan; `model` stays as it is."""
    copy = rebuild(
        model,
        change=lambda config: _changed(config, keras_private.graph_of(model), plan),
        more=sum("use_bias" in change.config for change in plan.changes.values()),
    )
    layers = keras_private.sublayers(model)
    pairs = zip(layers, keras_private.sublayers(copy), strict=True)
    changed = [(a, b, plan.changes[id(a)]) for a, b in pairs if id(a) in plan.changes]
    for _, target, change in changed:
        for attribute, value in change.weights.items():
            getattr(target, attribute).assign(value)
    rest = zip(
        _without(model, [source for source, *_ in changed]),
        _without(copy, [target for _, target, _ in changed]),
        strict=True,
    )
    for source, target in rest:
        # Through NumPy: JAX donates buffers, and two variables must not share one.
        target.assign(ops.convert_to_numpy(source.value))
    return copy


def _without(model: keras.Model, layers: list[keras.Layer]) -> list[keras.Variable]:
    """Return the variables of a model that do not belong to some of its layers."""
    theirs = {id(variable) for layer in layers for variable in layer.variables}
    return [variable for variable in model.variables if id(variable) not in theirs]


def _changed(config: Any, graph: Any, plan: ShrinkPlan) -> Any:
    """Return the config of a model with the changes of its layers."""
    operations = {operation.name: operation for operation in graph.operations}
    layers = [
        _changed_layer(entry, operations[entry["config"]["name"]], plan)
        for entry in config["config"]["layers"]
    ]
    inner = {**config["config"], "layers": layers}
    inner.pop("build_input_shape", None)
    return {**_fresh(config), "config": inner}


def _changed_layer(
    entry: dict[str, Any], operation: Any, plan: ShrinkPlan
) -> dict[str, Any]:
    """Return the config of a layer, an operation or a nested model with its changes."""
    if id(operation) in plan.fixed:
        return entry
    if (graph := keras_private.graph_of(operation)) is not None:
        return _changed(entry, graph, plan)
    change = plan.changes.get(id(operation), Change({}, {}))
    return {**_fresh(entry), "config": {**entry["config"], **change.config}}


def _fresh(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a config that is built when it is called, whatever it was built with."""
    stale = ("build_config", "compile_config")
    return {key: value for key, value in entry.items() if key not in stale}
