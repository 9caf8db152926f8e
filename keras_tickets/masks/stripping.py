"""From a masked model to the plain Keras model with the zeros baked in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras

from keras_tickets._util.registry import PACKAGE
from keras_tickets.backend import copying, keras_private
from keras_tickets.backend.agreement import Reference
from keras_tickets.masks.masked_call import MaskedKernel
from keras_tickets.masks.masked_layer import Masked, masked_layers
from keras_tickets.masks.wrapped_layers import check_as_wrapped


def strip(model: keras.Model) -> keras.Model:
    """Return the plain model behind a ticket, with its zeros baked in.

    The result is an uncompiled copy: it has the architecture the user wrote, no
    masks and no trace of this package, and computes bit for bit what the ticket
    computes in inference (on TensorFlow up to rounding where kernels are bfloat16).
    The ticket itself is not changed and may go on training.

    The copy has all that Keras' own saving carries, seeds, states of recurrent layers,
    what is frozen, and what was set on layers of your own classes later: numbers, text,
    arrays, plain functions. It is run beside the ticket, on random inputs in inference.

    Args:
        model: A `Ticket`, a model with tickets or `Masked` layers in it, or any other.

    Returns:
        A new model, or `model` itself when it is plain already. With a warning it is
        dense, if masks were never drawn.

    Raises:
        ValueError: If the model cannot be rebuilt from its config, the copy does not
            compute what the ticket computes, or a layer was quantized or got LoRA
            weights after it was masked.

    Warns:
        UserWarning: If the masks of a ticket were on target when its pruner was done,
            and are no more, as other weights were loaded since.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, kt.Magnitude(sparsity=0.75))
    >>> curve = ticket.draw()
    >>> plain = kt.strip(ticket)
    >>> int((keras.ops.convert_to_numpy(plain.layers[0].kernel) == 0).sum())
    24
    """
    if not _inner_and_masks(model)[1]:
        return unmasked(model)
    reference = Reference.of(model)
    copy = unmasked(model)
    reference.check(copy)
    return copy


def unmasked(model: keras.Model) -> keras.Model:
    """Return what `strip` does, for those who compare it with the model themselves."""
    inner, masked = _inner_and_masks(model)
    if not masked:
        return inner
    check_as_wrapped([m.kernel for m in masked])
    asked = [layer for layer in never_drawn(model) if getattr(layer, "pruner", True)]
    if asked:
        warnings.warn(f"{why_dense(asked)} What is returned is dense.", stacklevel=2)
    if hasattr(model, "warn_if_undone"):  # a ticket
        model.warn_if_undone()
    copy = rebuild(inner)
    effective = {id(m.kernel.variable): m.effective for m in masked}
    copying.copy_state(pair_layers(inner, copy), instead=effective)
    for layer in masked_layers(copy):  # of a class that makes them itself
        layer.bypass = True
    return copy


def never_drawn(model: keras.Layer) -> list[keras.Layer]:
    """Return the tickets and `Masked` layers in `model` whose masks keep all weights.

    Of a ticket with such layers inside, the ticket alone.
    """
    found, inside = [], set()
    for layer in keras_private.sublayers(model):
        if id(layer) in inside or not _is_masked(layer) or layer.mask_set.drawn:
            continue
        found.append(layer)
        inside |= {id(below) for below in keras_private.sublayers(layer)}
    return found


def why_dense(undrawn: Sequence[keras.Layer]) -> str:
    """Say that masks were not drawn, and how they are."""
    names = ", ".join(f"{type(layer).__name__} {layer.name!r}" for layer in undrawn)
    how = (
        "Call ticket.draw() or ticket.fit(...) first"
        if hasattr(undrawn[0], "pruner")
        else "Pass a pruner to the callbacks of the model's fit first"
    )
    return f"{names} was never drawn: the masks keep all weights. {how}."


def wrapped(model: keras.Model) -> keras.Model:
    """Return the model that a ticket wraps; any other model itself."""
    return model.model if hasattr(model, "mask_set") else model


def rebuild(
    model: keras.Model,
    reseed: bool = False,
    change: Callable[[Any], Any] = lambda config: config,
) -> keras.Model:
    """Return a fresh model from `model`'s config, without its `Masked` wrappers.

    Args:
        model: The model.
        reseed: Whether initializers draw a new seed, even those that were given one.
        change: Called with the model's serialized config; returns the one to build.

    Raises:
        ValueError: If the model cannot be built from its config.
    """

    def changed(config: Any) -> Any:
        config = _plain_config(config)
        return change(_unseeded(config) if reseed else config)

    copy = copying.rebuild(model, changed)
    if not copy.built:
        raise ValueError(copying.cannot_copy(model, "the copy is not built"))
    return copy


def pair_layers(
    model: keras.Model, copy: keras.Model, but: Collection[int] = ()
) -> list[tuple[keras.Layer, keras.Layer]]:
    """Return which layer of a rebuilt model is a copy of which; no `Masked` among them.

    Args:
        model: The model.
        copy: What `rebuild` made of it.
        but: The `id` of each layer whose copy has variables of other shapes.

    Raises:
        ValueError: If the copy has other layers, or one of them other variables.
    """
    return copying.pair(plain_layers(model), plain_layers(copy), but)


def plain_layers(model: keras.Model) -> list[keras.Layer]:
    """Return `model` and every layer below it, parents first, without what masks."""
    return [layer for layer in keras_private.sublayers(model) if not _is_masked(layer)]


def _is_masked(layer: keras.Layer) -> bool:
    """Return whether a layer is a ticket or a `Masked`."""
    return isinstance(layer, Masked) or hasattr(layer, "mask_set")


def _inner_and_masks(model: keras.Model) -> tuple[keras.Model, list[MaskedKernel]]:
    """Return the model to copy and every mask that acts in it."""
    keras_private.up_to_date(model)  # it may be called in the middle of `fit`
    inner = wrapped(model)
    holders = [layer for layer in keras_private.sublayers(model) if _is_masked(layer)]
    masked = [m for layer in holders for m in layer.mask_set.masked]
    return inner, list({id(m.mask): m for m in masked}.values())


_HELD = {f"{PACKAGE}>Masked": "layer", f"{PACKAGE}>Ticket": "model"}
"""Where the config of each class that masks has what it masks."""


def _plain_config(config: Any) -> Any:
    """Return a model's config with `Masked` and tickets replaced by what they hold."""
    if isinstance(config, list | tuple):
        return type(config)(_plain_config(item) for item in config)
    if not isinstance(config, dict):
        return config
    held = _HELD.get(str(config.get("registered_name")))
    if held is not None:
        # The graph refers to a layer by the outer entry's name and inbound nodes.
        graph = {k: config[k] for k in ("name", "inbound_nodes") if k in config}
        config = {**config["config"][held], **graph}
    return {key: _plain_config(value) for key, value in config.items()}


def _unseeded(config: Any) -> Any:
    """Return a model's config whose initializers take a seed from the generator."""
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
