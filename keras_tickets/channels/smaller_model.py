"""From a plan to the smaller model, through the configs of the layers."""

from __future__ import annotations

from typing import Any

import keras

from keras_tickets.backend import keras_private
from keras_tickets.backend.copying import copy_state
from keras_tickets.channels.removal_plan import Change, ShrinkPlan
from keras_tickets.masks.stripping import pair_layers, rebuild


def smaller(model: keras.Model, plan: ShrinkPlan) -> keras.Model:
    """Return a new model with the changes of a plan; `model` stays as it is."""
    graph = keras_private.graph_of(model)
    copy = rebuild(model, change=lambda config: _changed(config, graph, plan))
    new = {key for key, change in plan.changes.items() if change.weights}
    pairs = pair_layers(model, copy, but=new)
    copy_state(pairs, but=new)
    for source, target in pairs:
        if id(source) in new:
            for attribute, value in plan.changes[id(source)].weights.items():
                getattr(target, attribute).assign(value)
    return copy


def _changed(config: Any, graph: Any, plan: ShrinkPlan) -> Any:
    """Return the config of a model with the changes of its layers."""
    # In the same order; a class of the user's own may leave its name out.
    entries = zip(config["config"]["layers"], graph.operations, strict=True)
    layers = [_changed_layer(entry, operation, plan) for entry, operation in entries]
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
