"""`Masked`: one layer behind its masks, for models built layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from keras_tickets._util.registry import PACKAGE
from keras_tickets.backend import keras_private
from keras_tickets.kernels import find_kernels, why_not
from keras_tickets.masks.masked_call import MaskedCall, add_masks
from keras_tickets.masks.saved_variables import check_saved


@keras.saving.register_keras_serializable(package=PACKAGE)
class Masked(keras.layers.Wrapper):
    """Wraps one layer so that its kernels can be pruned.

    Use it inside a model of your own, in particular one with its own `train_step`,
    which `keras_tickets.wrap` refuses to take over. A pruner that needs nothing but
    masks then works as a plain callback of that model's `fit`; `keras_tickets.wrap`
    finds `Masked` layers and uses their masks.

    The masks act in the forward pass, so dead weights get no gradient. All kernels
    of the layer are masked that `kt.prunable` would prune by default, or,
    since the layer is named here, that it prunes on request.

    Args:
        layer: The layer to mask.
        name: Defaults to `"masked_" + layer.name`.
        **kwargs: `trainable`, as for any layer.

    Input and output shapes are those of `layer`.

    Raises:
        ValueError: On build, if the layer has no kernel that can be pruned.

    Example:
    >>> import keras
    >>> import keras_tickets as kt
    >>> model = keras.Sequential(
    ...     [keras.Input((8,)), kt.Masked(keras.layers.Dense(4)), keras.layers.Dense(2)]
    ... )
    >>> [mask.shape for mask in model.layers[0].mask_set.values()]
    [(8, 4)]
    """

    def __init__(
        self, layer: keras.Layer, name: str | None = None, **kwargs: Any
    ) -> None:
        # float32 without autocast: the wrapper passes inputs and variables through
        # untouched, the inner layer applies its own dtype policy.
        kwargs.pop("dtype", None)
        super().__init__(
            layer,
            name=name or f"masked_{layer.name}",
            dtype="float32",
            autocast=False,
            **kwargs,
        )
        self.supports_masking = True
        self.bypass = False
        keras_private.take_training_argument_like(self, layer)
        if layer.built:
            self.build()

    def build(self, input_shape: Any = None) -> None:
        """Build the inner layer and the masks."""
        super().build(input_shape)
        kernels = [
            kernel
            for kernel in find_kernels(self.layer)
            if (row := why_not(kernel)) is None or row.on_request
        ]
        preferred = [kernel for kernel in kernels if why_not(kernel) is None]
        if not kernels:
            raise ValueError(
                f"Masked cannot prune layer {self.layer.name!r} of type "
                f"{type(self.layer).__name__}: expected a trainable floating-point "
                "weight of rank two or more. Use the layer without Masked."
            )
        self.mask_set = add_masks(self, preferred or kernels)
        self._masked_call = MaskedCall(self, self.layer, self.mask_set.masked)
        keras_private.show_to_object_checkpoints(self)

    def call(
        self, inputs: Any, *args: Any, training: bool | None = None, **kwargs: Any
    ) -> Any:
        """Run the layer with its effective kernels."""
        if training is not None:
            kwargs["training"] = training
        run = self.layer if self.bypass else self._masked_call
        return run(inputs, *args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Leave Keras masks to the inner layer, which has attached its own."""

    def load_own_variables(self, store: Any) -> None:
        """Load the masks; whatever is no mask of this layer is refused."""
        check_saved(self, store)
        super().load_own_variables(store)


def masked_layers(model: keras.Layer) -> list[Masked]:
    """Return the `Masked` layers in `model`."""
    return [
        layer for layer in keras_private.sublayers(model) if isinstance(layer, Masked)
    ]


def without_masks(
    model: keras.Layer, variables: Iterable[keras.Variable]
) -> list[keras.Variable]:
    """Return `variables` without those that `Masked` layers in `model` add."""
    masks = {
        id(variable)
        for layer in masked_layers(model)
        for variable in keras_private.own_variables(layer)
    }
    return [variable for variable in variables if id(variable) not in masks]
