"""From a masked model to the plain Keras model with the zeros baked in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import ops

from keras_tickets._util.registry import PACKAGE
from keras_tickets.backend import keras_private
from keras_tickets.masks.masked_call import MaskedKernel
from keras_tickets.masks.masked_layer import (
    masked_layers,
    without_masks,
)


def strip(model: keras.Model) -> keras.Model:
    """Return the plain model behind a ticket, with its zeros baked in.

    The result is an uncompiled copy: it has the architecture the user wrote, no
    masks and no trace of this package, and computes bit for bit what the ticket
    computes in inference (on TensorFlow up to rounding where kernels are bfloat16).
    The ticket itself is not changed and may go on training.

    Args:
        model: A `Ticket`, a model with `Masked` layers, or any other model.

    Returns:
        A new model, or `model` itself when it is plain already.

    Raises:
        ValueError: If the model can not be rebuilt from its config.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.Magnitude(sparsity=0.75))
    >>> curve = ticket.draw()
    >>> plain = kt.strip(ticket)
    >>> int((keras.ops.convert_to_numpy(plain.layers[0].kernel) == 0).sum())
    24
    """
    inner, masked = _inner_and_masks(model)
    if not masked:
        return inner
    copy = rebuild(inner)
    effective = {id(m.kernel.variable): m.effective for m in masked}
    for source, target in _pairs(inner, copy):
        value = effective.get(id(source), lambda source=source: source.value)()
        # Through NumPy: JAX donates buffers, and two variables must not share one.
        target.assign(ops.convert_to_numpy(value))
    for layer in masked_layers(copy):
        layer.bypass = True
    return copy


def rebuild(
    model: keras.Model,
    reseed: bool = False,
    change: Callable[[Any], Any] = lambda config: config,
    more: int = 0,
) -> keras.Model:
    """Return a fresh model from `model`'s config, without its `Masked` wrappers.

    Classes that are in use in `model` need no registration. The weights are fresh;
    with `reseed` also those whose initialiser was given a seed.

    Args:
        model: The model.
        reseed: Whether initialisers draw a new seed.
        change: Called with the model's serialised config; returns the one to build.
        more: How many variables that change adds.
    """
    # Not Keras' own: a layer Add would then also be taken for the operation Add.
    kinds = {type(layer) for layer in keras_private.sublayers(model)}
    classes = {c.__name__: c for c in kinds if not c.__module__.startswith("keras.")}
    try:
        config = _plain_config(keras.saving.serialize_keras_object(model))
        config = change(_unseeded(config) if reseed else config)
        with keras.saving.custom_object_scope(classes):
            copy = keras.saving.deserialize_keras_object(config, safe_mode=False)
        built = copy.built
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        raise ValueError(_cannot_rebuild(model, str(error))) from error
    if not built or len(_weights(copy)) != len(_weights(model)) + more:
        raise ValueError(
            _cannot_rebuild(
                model,
                f"the rebuilt model has {len(_weights(copy))} variables, the original "
                f"{len(_weights(model))}",
            )
        )
    return copy


def _inner_and_masks(model: keras.Model) -> tuple[keras.Model, list[MaskedKernel]]:
    """Return the model to copy and every mask that acts in it."""
    inner = getattr(model, "model", None) if hasattr(model, "mask_set") else model
    masked = list(model.mask_set.masked) if hasattr(model, "mask_set") else []
    for layer in masked_layers(inner):
        masked.extend(layer.mask_set.masked)
    return inner, list({id(m.mask): m for m in masked}.values())


def _weights(model: keras.Layer) -> list[keras.Variable]:
    """Return the variables of `model` in its order, without masks."""
    return without_masks(model, model.variables)


def _pairs(
    source: keras.Model, target: keras.Model
) -> Iterable[tuple[keras.Variable, keras.Variable]]:
    return zip(_weights(source), _weights(target), strict=True)


def _plain_config(config: Any) -> Any:
    """Return a model's config with `Masked` replaced by the layer it holds."""
    if isinstance(config, list | tuple):
        return type(config)(_plain_config(item) for item in config)
    if not isinstance(config, dict):
        return config
    if config.get("registered_name") == f"{PACKAGE}>Masked":
        # The graph refers to a layer by the outer entry's name and inbound nodes.
        graph = {k: config[k] for k in ("name", "inbound_nodes") if k in config}
        config = {**config["config"]["layer"], **graph}
    return {key: _plain_config(value) for key, value in config.items()}


def _unseeded(config: Any) -> Any:
    """Return a model's config whose initialisers take a seed from the generator."""
    if isinstance(config, list | tuple):
        return type(config)(_unseeded(item) for item in config)
    if not isinstance(config, dict):
        return config
    config = {key: _unseeded(value) for key, value in config.items()}
    for key, value in config.items():
        if not key.endswith("initializer") or not isinstance(value, dict):
            continue
        arguments = value.get("config") or {}
        if "seed" in arguments:
            config[key] = {**value, "config": {**arguments, "seed": None}}
    return config


def _cannot_rebuild(model: keras.Model, why: str) -> str:
    return (
        f"{type(model).__name__} {model.name!r} can not be copied from its config: "
        f"{why}. strip() and export() expect that get_config() returns every argument "
        "of the constructor and that a model built from it has the same variables. "
        "Add get_config() (and build()) to the class, as model.save() needs it too."
    )
