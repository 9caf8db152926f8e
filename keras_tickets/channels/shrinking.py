"""Physical removal of dead channels: a smaller dense model with the same outputs.

`coupling` says which channels are kept or removed together, `layer_rules` what each
kind of layer does to channels, `tracing` runs them through a model, `liveness` decides,
`removal_plan` says what becomes of each layer, and `smaller_model` makes the model.
"""

from __future__ import annotations

import keras

from keras_tickets._util.checks import check_model
from keras_tickets.backend.agreement import ROUNDING, Reference
from keras_tickets.channels.removal_plan import Left, ShrinkPlan, plan
from keras_tickets.channels.smaller_model import smaller
from keras_tickets.masks.stripping import unmasked

__all__ = ["Left", "ShrinkPlan", "shrink", "shrink_plan"]


def shrink(model: keras.Model, verbose: bool = True) -> keras.Model:
    """Return a smaller dense model without the channels that change no output.

    A channel goes if no weight that is left reads it, or if it is constant and what it
    adds fits into the biases of those that read it. Channels that are added are kept or
    removed together; BatchNorm, depthwise kernels, nested and shared layers follow.
    What no rule covers (recurrent layers, attention, grouped convolutions, classes of
    your own) stays as it is, with all it reads: the table says what, and why.

    The outputs are equal up to rounding in inference. Inputs, outputs and the names of
    layers stay; the result is not compiled, and `model` is not changed.

    Args:
        model: A ticket, or a built Functional or Sequential model with zeros in it.
        verbose: Whether to print the table.

    Returns:
        A new model of plain Keras layers, with fewer filters and units.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not built, has no graph of layers, cannot be rebuilt from
            its config, or the smaller model computes something else.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(2)]
    ... )
    >>> kernel = keras.ops.convert_to_numpy(model.layers[0].kernel).copy()
    >>> kernel[:, 1:] = 0
    >>> _ = model.layers[0].kernel.assign(kernel)
    >>> small = kt.shrink(model, verbose=False)
    >>> small.layers[0].units, model.layers[0].units
    (1, 6)
    """
    check_model(model)
    reference = Reference.of(model)
    small, found = shrunk(model)
    reference.check(small, ROUNDING)
    if verbose:
        print(found)
    return small


def shrunk(model: keras.Model) -> tuple[keras.Model, ShrinkPlan]:
    """Return what `shrink` does, and its plan; compared with nothing."""
    found, plain = _plan(model)
    return smaller(plain, found), found


def shrink_plan(model: keras.Model) -> ShrinkPlan:
    """Return what `shrink` would remove and what it would leave, and remove nothing.

    Args:
        model: A ticket, or a built Functional or Sequential model with zeros in it.

    Returns:
        A `ShrinkPlan`: `removed` (channels by layer), `left` (what stays, and why),
        `parameters` before and after. Prints as a table.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not built or has no graph of layers.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6)])
    >>> kt.shrink_plan(model).removed
    {}
    """
    return _plan(model)[0]


def _plan(model: keras.Model) -> tuple[ShrinkPlan, keras.Model]:
    check_model(model)
    plain = unmasked(model)
    return plan(plain), plain
