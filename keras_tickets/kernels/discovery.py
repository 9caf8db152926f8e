"""The kernels of a model, found by variable.

Never by a list of layer classes, so that the weights of a layer that this package has
not heard of are found like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import keras

from keras_tickets.backend import keras_private
from keras_tickets.kernels.kernel import Kernel


def find_kernels(model: keras.Layer) -> list[Kernel]:
    """Return every variable of rank two or more, by owner, each once.

    Args:
        model: A built layer or model.
    """
    layers = keras_private.sublayers(model)
    trainable = {id(variable) for variable in model.trainable_variables}
    spectral = {
        id(layer.layer)
        for layer in layers
        if isinstance(layer, keras.layers.SpectralNormalization)
    }
    owner = owners(layers)
    found: dict[int, Kernel] = {}
    taken: Counter[str] = Counter()
    for layer in layers:
        for variable in keras_private.own_variables(layer):
            key = id(variable)
            is_mask = variable.dtype == "bool"
            if key in found or is_mask or len(variable.shape) < 2:
                continue
            if owner[key] is not layer:
                continue
            taken[variable.path] += 1
            copies = taken[variable.path]
            found[id(variable)] = Kernel(
                variable,
                layer,
                variable.path if copies == 1 else f"{variable.path}#{copies}",
                id(variable) in trainable,
                id(layer) in spectral,
            )
    return list(found.values())


def positions(model: keras.Layer) -> dict[int, int]:
    """Return where each kernel stands in `find_kernels(model)`, by `id` of variable.

    Positions, unlike paths, are those of the same model in another process too.
    """
    return {id(k.variable): i for i, k in enumerate(find_kernels(model))}


def owners(layers: Sequence[keras.Layer]) -> dict[int, keras.Layer]:
    """Return the layer of each variable, by `id`: the innermost that holds it.

    A wrapper may keep its inner layer's kernel under a name of its own.
    """
    owner: dict[int, keras.Layer] = {}
    for layer in layers:
        for variable in keras_private.own_variables(layer):
            outer = owner.setdefault(id(variable), layer)
            if any(inner is layer for inner in keras_private.sublayers(outer)[1:]):
                owner[id(variable)] = layer
    return owner
