"""Layer collapse: a draw that lets no signal pass from input to output.

Decided by cutting the flow, not by looking for empty tensors: an empty shortcut
beside a live branch is no collapse, and a network can be dead without one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_tickets import backend
from keras_tickets.backend import keras_private
from keras_tickets.flow import Network, NotLinearError
from keras_tickets.kernels import Kernel
from keras_tickets.masks.masked_call import count
from keras_tickets.pruners.pruning_recipe import PruningRecipe
from keras_tickets.scores.base import masked, weights


class LayerCollapseError(ValueError):
    """A draw would let no signal pass from input to output."""


def newly_empty(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> list[int]:
    """Return the tensors that lose their last weight."""
    return [
        i
        for i, (old, new) in enumerate(zip(before, after, strict=True))
        if old.any() and not new.any()
    ]


def check_flow(
    model: keras.Model,
    kernels: Sequence[Kernel],
    before: Sequence[np.ndarray],
    kept: Sequence[np.ndarray],
    pruner: PruningRecipe,
) -> None:
    """Raise or warn, as the pruner says, if `kept` lets no signal pass.

    Raises:
        LayerCollapseError: Naming the layers where the signal ends.
    """
    try:
        ends = _where_it_ends(model, kernels, kept)
    except NotLinearError:
        # A recurrent model, say. An empty tensor is the best sign there is.
        ends = [kernels[i].path for i in newly_empty(before, kept)]
    if not ends:
        return
    size = {kernel.path: kernel.size for kernel in kernels}
    left = dict(zip(size, (int(mask.sum()) for mask in kept), strict=True))
    where = ", ".join(
        f"{path} (keeps {left[path]} of {size[path]} weights)" if path in size else path
        for path in ends
    )
    counted = count(kept)
    message = (
        f"{type(pruner).__name__} at sparsity {counted.sparsity:g} keeps "
        f"{counted.kept} of {counted.total} weights and cuts the signal: nothing "
        f"passes {where}. Expected a path from the input to each output. Lower the "
        'sparsity, share the budget out with allocation="erk", use kt.SynFlow, which '
        "keeps paths, or leave a layer alone with skip=."
    )
    if pruner.on_collapse == "raise":
        raise LayerCollapseError(message + ' on_collapse="warn" draws it all the same.')
    warnings.warn(message, stacklevel=2)


def why_dead(
    model: keras.Model, kernels: Sequence[Kernel], masks: Sequence[np.ndarray]
) -> str:
    """Return the message for a model through which nothing flows at the outset."""
    kept = [ops.convert_to_tensor(mask) for mask in masks]
    abs_weights = [ops.abs(weight) for weight in masked(weights(kernels), kept)]
    ends = _dead_ends(Network(model, kernels), abs_weights)
    return (
        f"No signal passes {model.name!r} before anything is pruned: it ends in "
        f"{', '.join(ends)}, whose weights are all zero or meet no signal. Expected a "
        "model with random or trained weights."
    )


def _where_it_ends(
    model: keras.Model, kernels: Sequence[Kernel], kept: Sequence[np.ndarray]
) -> list[str]:
    """Return the kernels (or layers without) at which a cut signal ends."""
    network = Network(model, kernels, strict=False)
    abs_weights = [
        ops.cast(ops.convert_to_tensor(mask), kernel.variable.dtype)
        for kernel, mask in zip(kernels, kept, strict=True)
    ]
    if all(float(ops.max(out.value)) > 0 for out in network.outputs(abs_weights)):
        return []
    return _dead_ends(network, abs_weights)


def _dead_ends(network: Network, abs_weights: Sequence[Any]) -> list[str]:
    ended = [
        p.layer for p in network.trace(abs_weights) if p.signal_in and not p.signal_out
    ]
    return [path for layer in ended for path in _paths(layer, network.kernels)]


def _paths(layer: Any, kernels: Sequence[Kernel]) -> list[str]:
    below = keras_private.sublayers(layer) if isinstance(layer, keras.Layer) else []
    own = [kernel.path for kernel in kernels if kernel.layer in below]
    return own or [layer.name]


def check_paths(
    model: keras.Model, kernels: Sequence[Kernel], keep: int, pruner: PruningRecipe
) -> None:
    """Raise if `keep` weights are fewer than any path needs: a group per kernel.

    Raises:
        LayerCollapseError: With the length of the shortest path.
    """
    least = min(own.distinct_sizes[-1] for own in pruner.weight_groups(kernels))
    if keep >= len(kernels) * least or pruner.on_collapse == "warn":
        return
    try:
        needed = shortest_path(model, kernels)
    except NotLinearError:
        return
    if keep < needed * least:
        total = sum(kernel.size for kernel in kernels)
        raise LayerCollapseError(
            f"{type(pruner).__name__} is to keep {keep} of {total} weights, but each "
            f"path from input to output passes at least {needed} of the "
            f"{len(kernels)} prunable kernels and needs "
            f"{'a weight' if least == 1 else f'{least} weights'} in each. Expected a "
            f"sparsity of at most {1 - needed * least / total:.6g}; received "
            f"{pruner.sparsity:g}."
        )


def shortest_path(model: keras.Model, kernels: Sequence[Kernel]) -> int:
    """Return how many of `kernels` every path from input to output passes at least.

    R is a polynomial in the strength t of all kernels, each path giving t to the power
    of its length. For t near zero the shortest paths are all of R, and Euler's
    `sum(theta * dR/dtheta) = degree * R` gives their length.
    """
    network = Network(model, kernels)
    tiny = [
        ops.full(kernel.shape, 1e-6 / kernel.size, dtype=kernel.variable.dtype)
        for kernel in kernels
    ]
    (total, _), gradients = backend.compiled(backend.value_and_gradient(network))(tiny)
    flows = (float(ops.sum(t * s)) for t, s in zip(tiny, gradients, strict=True))
    return math.ceil(sum(flows) / float(total) - 1e-3) if float(total) else 0
