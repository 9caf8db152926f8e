"""Stock networks, rewritten so that XNNPACK runs them sparse.

`graph.py` holds a network as calls of layers that can be edited, `table.py` the
rewrites of `rewrites/`, each of which sees a `Site`; `plan.py` applies them,
`measure.py` says what that changes, `obstacles.py` what is left, and `build.py` makes
the model.
"""

from __future__ import annotations

import keras

from keras_tickets.checks import check_model
from keras_tickets.layered import graph_of_layers
from keras_tickets.mobile.prepare import plan as _plan
from keras_tickets.mobile.prepare.build import build
from keras_tickets.mobile.prepare.plan import Obstacle, PreparePlan, Rewritten
from keras_tickets.mobile.prepare.table import INEXACT, Inexact

__all__ = ["Obstacle", "PreparePlan", "Rewritten", "prepare", "prepare_plan"]


def prepare(
    model: keras.Model, *, inexact: Inexact = False, verbose: bool = True
) -> keras.Model:
    """Returns a network that XNNPACK can run sparse, with the weights of a stock one.

    On ARM and in WebAssembly XNNPACK runs sparse 1x1 convolutions only in networks that
    it can run with channels first throughout. `keras.applications` are not of that kind
    as they are built; many become one by rewrites that leave their outputs as they are,
    up to rounding. Prepare a network first, then wrap, prune and export it.

    Names of inputs, outputs and layers stay, also of rewritten ones, and so does what
    is trainable. The result is not compiled, and `model` is not changed.

    Args:
        model: A built Functional or Sequential model.
        inexact: Whether layers may read other pixels, at most half a kernel away. True
            is where there is no exact form: the stem at even sizes. `"faster"` is also
            where the exact form is a 5x5 for a depthwise 3x3 of stride 2. Fine-tune
            behind both.
        verbose: Whether to print the table.

    Returns:
        A new model of plain Keras layers.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is a ticket, is not built, has no graph of layers, or holds a
            layer that cannot be copied from its config; or if `inexact` is another
            word.

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
    found = prepare_plan(model, inexact=inexact)
    if verbose:
        print(found)
    return build(found.graph)


def prepare_plan(model: keras.Model, *, inexact: Inexact = False) -> PreparePlan:
    """Returns what `prepare` would rewrite and what it would leave; changes nothing.

    Args:
        model: A built Functional or Sequential model.
        inexact: As for `prepare`.

    Returns:
        A `PreparePlan`: what is `done`, what is `left` and why, and by how much the
        outputs differ. Prints as a table.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is a ticket, is not built, or has no graph of layers; or if
            `inexact` is another word.

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
    return _plan.plan(model, inexact)
