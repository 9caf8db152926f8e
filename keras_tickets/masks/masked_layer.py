"""`Masked`: one layer behind its masks, for models built layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from keras_tickets._util.registry import PACKAGE
from keras_tickets.backend import keras_private
from keras_tickets.kernels import Kernel, find_kernels, why_not
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

    Input and output shapes are those of `layer`, and it is called as `layer` is: an
    attention with query, value and key, a recurrent layer with its initial state.

    Raises:
        ValueError: If the layer is masked already, or a layer inside it; on build, if
            it has no kernel that can be pruned.

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
        self._check_unmasked()
        keras_private.take_arguments_like(self, layer)
        if layer.built:
            self.build()

    def build(self, *shapes: Any, **named: Any) -> None:
        """Build the inner layer and the masks; the arguments are those of its `build`.

        None are needed if it is built.
        """
        if not self.layer.built:
            self.layer.build(*shapes, **named)
            self.layer.built = True
        self._check_unmasked()  # a layer may make those inside it only now
        self.mask_set = add_masks(self, self._kernels())
        self._masked_call = MaskedCall(self, self.layer, self.mask_set.masked)
        keras_private.show_to_object_checkpoints(self)

    def _check_unmasked(self) -> None:
        for layer in masked_layers(self.layer):
            if layer is not self:
                raise ValueError(
                    f"Masked cannot wrap {self.layer.name!r}: {layer.name!r} masks "
                    f"{layer.layer.name!r} there already, and a kernel has one mask. "
                    "Use it as it is, or wrap a layer without Masked inside."
                )

    def _kernels(self) -> list[Kernel]:
        """Return what is masked: what is pruned by default, or else on request."""
        why = {kernel: why_not(kernel) for kernel in find_kernels(self.layer)}
        preferred = [kernel for kernel, row in why.items() if row is None]
        kernels = preferred or [k for k, row in why.items() if row and row.on_request]
        if kernels:
            return kernels
        reasons = "".join(
            f"\n  {k.path} {k.shape}: {row.reason}" for k, row in why.items() if row
        )
        unbuilt = [x.name for x in keras_private.sublayers(self.layer) if not x.built]
        raise ValueError(
            f"Masked cannot prune layer {self.layer.name!r} of type "
            f"{type(self.layer).__name__}: expected a trainable floating-point "
            "weight of rank two or more. "
            + (f"What it has is left alone:{reasons}\n" if reasons else "")
            + (
                f"Its layers {', '.join(unbuilt)} are not built: call it on data once "
                "before, or give its class a build() that builds them."
                if unbuilt
                else "Use the layer without Masked."
            )
        )

    def call(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Run the layer with its effective kernels."""
        if training is not None:
            kwargs["training"] = training
        run = self.layer if self.bypass else self._masked_call
        return run(*args, **kwargs)

    def get_build_config(self) -> dict[str, Any] | None:
        """Return what the inner layer was built with."""
        return self.layer.get_build_config()

    def build_from_config(self, config: Any) -> None:
        """Build the inner layer from `get_build_config()`, and the masks."""
        if config and not self.layer.built:
            self.layer.build_from_config(config)
        self.build()

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
