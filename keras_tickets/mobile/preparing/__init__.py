"""Stock networks, rewritten so that XNNPACK runs them sparse.

`network_graph.py` holds a network as calls of layers that can be edited, `rewrites/`
what is tried on each of them, as a `Match`; `preparation_plan.py` applies the rewrites
and finds what is left, `exactness.py` says what they change, and `building.py` makes
the model; `resizing.py` moves it to another size beforehand.
"""

from __future__ import annotations

import keras

from keras_tickets._util.checks import check_model
from keras_tickets.backend.agreement import ROUNDING
from keras_tickets.backend.rebuilding import graph_of_layers
from keras_tickets.mobile.preparing import preparation_plan as _plan
from keras_tickets.mobile.preparing.building import build
from keras_tickets.mobile.preparing.exactness import reference
from keras_tickets.mobile.preparing.preparation_plan import (
    Obstacle,
    PreparePlan,
    Rewritten,
)
from keras_tickets.mobile.preparing.resizing import resized
from keras_tickets.mobile.preparing.rewrites import INEXACT, Inexact

__all__ = ["Obstacle", "PreparePlan", "Rewritten", "prepare", "prepare_plan"]


def prepare(
    model: keras.Model,
    *,
    size: int | tuple[int, int] | None = None,
    inexact: Inexact = False,
    verbose: bool = True,
) -> keras.Model:
    """Return a network that XNNPACK can run sparse, with the weights of a stock one.

    On ARM and in WebAssembly XNNPACK runs sparse 1x1 convolutions only in networks that
    it can run with channels first throughout. `keras.applications` are not of that kind
    as they are built; many become one by rewrites that leave their outputs as they are,
    up to rounding. Prepare a network first, then wrap, prune and export it.

    Names of inputs, outputs and layers stay, also of rewritten ones, and so does what
    is trainable. The result is not compiled, and `model` is not changed.

    Args:
        model: A built Functional or Sequential model.
        size: Height and width of images to build the network for first, as a pair or
            one number; by default those that it has. Where padding has no exact form
            at one size it may have one at another: most networks of 224 pixels have
            one at 225. See `prepare_plan` for what that means.
        inexact: Whether layers may read other pixels, at most half a kernel away. True
            is where there is no exact form: the stem at even sizes. `"faster"` is also
            where the exact form is a 5x5 for a depthwise 3x3 of stride 2. Fine-tune
            behind both.
        verbose: Whether to print the table. For what is left, the rewritten network is
            converted: that takes seconds, and `keras-tickets[export]`.

    Returns:
        A new model of plain Keras layers.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is a ticket, is not built, has no graph of layers, or holds a
            layer that cannot be copied from its config, or whose weights do not fit
            the `size`; or if `inexact` is another word.

    Example:
    >>> import keras, keras_tickets as kt
    >>> image = keras.Input((9, 9, 3))
    >>> x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(image)
    >>> x = keras.layers.Conv2D(8, 1)(x)
    >>> model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    >>> prepared = kt.mobile.prepare(model, verbose=False)
    >>> [layer.name for layer in prepared.layers][:3][1:]
    ['stem_pad', 'stem']
    """
    found = prepare_plan(model, size=size, inexact=inexact)
    prepared = build(found.graph)
    reference(found.graph).check(prepared, ROUNDING)
    if verbose:
        print(found)
    return prepared


def prepare_plan(
    model: keras.Model,
    *,
    size: int | tuple[int, int] | None = None,
    inexact: Inexact = False,
) -> PreparePlan:
    """Return what `prepare` would rewrite and what it would leave; change nothing.

    With a `size` the network is built anew for images of that size, with its weights,
    before anything is rewritten. Differences are then those between the network at that
    size and the rewritten one: what the size itself changes shows in its accuracy only.
    Its padding goes with the size: what pads as `same` does at the old size, with less
    in front than behind, pads as `same` does at the new one. So do the networks of
    `keras.applications` built there, but for MobileNet: that pads by 0 and 1 at any
    size, so at 97 its layers are one pixel smaller than those moved from 96 (at 95
    they are the same). Padding that is alike at both sides stays. A pooling over the
    whole image pools the whole of the new one.

    Args:
        model: A built Functional or Sequential model.
        size: As for `prepare`: of all inputs that are images; they must be of one size.
        inexact: As for `prepare`.

    Returns:
        A `PreparePlan`: what is `done`, what is `left` and why, and by how much the
        outputs differ. Prints as a table. What is left is found in a converted copy,
        when it is first asked for.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is a ticket, is not built, or has no graph of layers; if it
            has no images to give a `size`, images of several sizes, or a layer whose
            weights depend on the size; or if `inexact` is another word.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, name="d")])
    >>> kt.mobile.prepare_plan(model).ready
    False
    """
    if not isinstance(inexact, bool) and inexact not in INEXACT:
        raise ValueError(
            f"inexact={inexact!r} is unknown. Pass False for exact rewrites alone, "
            'True for others where there is no exact one, or "faster" for others where '
            "they run faster, too."
        )
    check_model(model)
    if hasattr(model, "mask_set"):
        raise ValueError(
            f"{model.name!r} is a ticket, whose masks belong to the kernels that it "
            "was wrapped with. prepare() expects a plain model. Prepare it first and "
            "wrap the result: kt.wrap(kt.mobile.prepare(model), pruner). A ticket that "
            "is trained can be prepared as kt.mobile.prepare(kt.strip(ticket)): its "
            "zeros stay zeros."
        )
    graph_of_layers(model, "prepare()")
    if size is not None:
        model = resized(model, size)
    return _plan.plan(model, inexact)
