"""`Ticket`: a whole Keras model behind masks, and `wrap`, which makes one."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
from keras import ops

from keras_tickets._util.checks import check_model
from keras_tickets._util.registry import PACKAGE
from keras_tickets.backend import array_of, keras_private, on_host
from keras_tickets.kernels import (
    Filter,
    Kernel,
    Selection,
    choose_kernels,
    positions,
)
from keras_tickets.kernels import find_kernels as all_kernels
from keras_tickets.masks.masked_call import (
    MaskedCall,
    MaskSet,
    add_masks,
)
from keras_tickets.masks.masked_layer import (
    masked_layers,
    without_masks,
)
from keras_tickets.masks.optimizer_slots import Slots
from keras_tickets.masks.snapshot import Snapshot
from keras_tickets.masks.stripping import strip

if TYPE_CHECKING:
    from keras_tickets.pruners.base import Pruner
    from keras_tickets.pruners.drawing import Curve


@keras.saving.register_keras_serializable(package=PACKAGE)
class Ticket(keras.Model):
    """A Keras model whose kernels are masked, and the pruner that draws the masks.

    Made by `keras_tickets.wrap`. A ticket is a `keras.Model`: compile it, fit it,
    save it, load it. Its `fit` runs the bound pruner by itself, first among the
    callbacks. The wrapped model is not changed: its own layers and variables train,
    and `strip` gives it back with the zeros baked in.

    All state (masks, whether they were drawn, copies of the random seeds) is held in
    Keras variables, so any checkpoint resumes bit-equal at an epoch boundary.

    Args:
        model: The built model to wrap.
        pruner: The pruner bound to `fit` and `draw`, or `None` for fixed masks.
        selection: Which kernels are masked; found by `wrap`.
        name: Defaults to `"ticket_" + model.name`.
        remember: Whether to keep the values that the weights start from.

    Attributes:
        model: The wrapped model.
        pruner: The bound pruner.
        start: The values that the weights start from, a `Snapshot`, or `None` if the
            ticket does not remember them.
        slots: What the optimizer keeps for each weight, for a pruner that needs it.
        rewind: The optimizer's state to go back to, for a pruner that does.
        skipped: Pairs of (kernel, reason) for the weights that are left alone.
    """

    def __init__(
        self,
        model: keras.Model,
        pruner: Pruner | None,
        selection: Selection,
        name: str | None = None,
        remember: bool = False,
    ) -> None:
        # float32 without autocast: inputs and variables pass through untouched and
        # the wrapped model applies its own dtype policy.
        super().__init__(
            name=name or f"ticket_{model.name}", dtype="float32", autocast=False
        )
        self.model = model
        self.pruner = pruner
        self.skipped = selection.skipped
        keras_private.take_training_argument_like(self, model)
        if pruner is None:
            own = add_masks(self, selection.kernels)
        else:
            for flag in pruner.flags:
                setattr(self, flag, self._add_flag(flag))
            own = add_masks(self, selection.kernels, pruner.companion)
        inside = [layer.mask_set for layer in masked_layers(model)]
        self.mask_set = MaskSet(
            [m for part in (own, *inside) for m in part.masked],
            [flag for part in (own, *inside) for flag in part.flags],
        )
        # A Masked layer masks its own kernel, inside the wrapped model's call.
        self._masked_call = MaskedCall(
            self, model, own.masked, stand_ins=self._hold_seeds(model)
        )
        if pruner is not None:
            pruner.hold(self)
        self.start: Snapshot | None = None
        if remember or (pruner is not None and pruner.remembers):
            self.start = Snapshot(self, without_masks(model, model.weights))
            if pruner is None:  # no draw will begin
                self.start.take()
        self._provenance = "null"  # as text: Keras tracks the dicts of a layer
        self.slots: Slots | None = None
        self.rewind: Snapshot | None = None
        self.built = True

    def _hold_seeds(self, model: keras.Model) -> dict[int, keras.Variable]:
        """Hold the seeds as weights: Keras leaves seed states out of a checkpoint."""
        weights = {id(variable) for variable in model.weights}
        copies = {}
        for variable in model.variables:
            if id(variable) not in weights:
                copies[id(variable)] = self.add_weight(
                    shape=variable.shape,
                    initializer="zeros",
                    dtype=variable.dtype,
                    trainable=False,
                    name=f"{variable.name}_copy",
                )
                # Through NumPy: JAX donates buffers, and two variables must not
                # share one.
                copies[id(variable)].assign(ops.convert_to_numpy(variable.value))
        return copies

    def _add_flag(self, name: str) -> keras.Variable:
        return self.add_weight(
            shape=(), initializer="zeros", dtype="bool", trainable=False, name=name
        )

    def call(
        self, inputs: Any, *args: Any, training: bool | None = None, **kwargs: Any
    ) -> Any:
        """Run the wrapped model with its effective kernels."""
        if training is not None:
            kwargs["training"] = training
        return self._masked_call(inputs, *args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Leave Keras masks to the wrapped model, which has attached its own."""

    @property
    def output_names(self) -> list[str]:
        """The wrapped model's output names, for losses given by name."""
        return self.model.output_names

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels that are masked, in the model's order."""
        return self.mask_set.kernels

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """The masks by display path, `True` = kept."""
        paths = [kernel.path for kernel in self.kernels]
        return dict(zip(paths, self.mask_set.values(), strict=True))

    @property
    def sparsity(self) -> float:
        """The fraction of the prunable weights that are zero."""
        return self.mask_set.count().sparsity

    @property
    def drawn(self) -> bool:
        """Whether a pruner has chosen the masks."""
        return self.mask_set.drawn

    @property
    def unfinished(self) -> bool:
        """Whether it is being mined, so that its masks are not those of the end."""
        mining = getattr(self, "mining", None)
        return mining is not None and bool(on_host(mining.value))

    @property
    def provenance(self) -> dict[str, Any] | None:
        """How the ticket was drawn, if it comes from a ticket file."""
        return json.loads(self._provenance)

    @provenance.setter
    def provenance(self, origin: dict[str, Any] | None) -> None:
        self._provenance = json.dumps(origin)

    def draw(self, verbose: int = 1) -> Curve:
        """Draw the ticket now, before any training.

        Args:
            verbose: 0 for silence, 1 for a progress bar over the rounds of a pruner
                that has several, 2 for a line each.

        Returns:
            How the draw went, round by round: sparsity, the density of each kernel,
            and the score's measure. `curve.plot("curve.png")` shows it.

        Raises:
            ValueError: If the ticket has no pruner, or one that draws its masks
                while the model trains.
        """
        if self.pruner is None:
            raise ValueError(
                f"Ticket {self.name!r} has no pruner to draw with. Expected one from "
                "kt.wrap(model, pruner)."
            )
        return self.pruner.draw(self, verbose)

    def strip(self) -> keras.Model:
        """Return the plain model with zeros baked in; see `keras_tickets.strip`."""
        return strip(self)

    def save_ticket(self, path: Any, *, overwrite: bool = False) -> None:
        """Write the ticket to a file; see `ticket.saved_file.save_ticket`."""
        from keras_tickets.ticket.saved_file import save_ticket

        save_ticket(self, path, overwrite=overwrite)

    def compile(self, optimizer: Any = "rmsprop", *args: Any, **kwargs: Any) -> None:
        """Configure the ticket for training; the arguments are `Model.compile`'s.

        A model with the `mixed_float16` policy gets loss scaling, as it would
        unwrapped.
        """
        self._compile(keras.optimizers.get(optimizer), *args, **kwargs)

    def _compile(
        self, optimizer: Any, *args: Any, saved: bool = False, **kwargs: Any
    ) -> None:
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        wants = self.model.dtype_policy.name == "mixed_float16"
        if wants and kwargs.get("auto_scale_loss", True) and optimizer and not scaled:
            # Keras looks at the policy of the model that compiles: the ticket's own
            # is float32.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        if optimizer and self.pruner is not None:
            optimizer = self.pruner.accept(self, optimizer, saved)
        super().compile(optimizer, *args, **kwargs)
        if self.optimizer is not None and self.pruner is not None:
            self.pruner.compiled(self)

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compile as `get_compile_config()` says; Keras calls it on loading."""
        self._compile(**keras.saving.deserialize_keras_object(config), saved=True)
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train, with the bound pruner first among the callbacks.

        The arguments are `Model.fit`'s. Listing the bound pruner yourself is allowed
        and changes nothing: it runs once, and first, so that a checkpoint written at
        the end of an epoch holds that epoch's masks.
        """
        if not self.compiled:
            own = " is, but its own optimizer is not the ticket's" * self.model.compiled
            raise ValueError(
                f"{self.name!r} is not compiled; {self.model.name!r}"
                f"{own or ' is not either'}. Compile the ticket: "
                'ticket.compile("adam", loss, metrics=[...]).'
            )
        bound = inspect.signature(super().fit).bind(*args, **kwargs)
        bound.arguments["callbacks"] = self._with_pruner(
            bound.arguments.get("callbacks")
        )
        return super().fit(*bound.args, **bound.kwargs)

    def _with_pruner(self, callbacks: Any) -> Any:
        if self.pruner is None:
            return callbacks
        ready = isinstance(callbacks, keras.callbacks.CallbackList)
        given = callbacks.callbacks if ready else keras.tree.flatten(callbacks or [])
        listed = [self.pruner, *(c for c in given if c is not self.pruner)]
        if not ready:
            return listed
        # Not inserted into the list at hand: whether its callbacks run
        # asynchronously was decided when it was made.
        return keras.callbacks.CallbackList(listed, model=self, **callbacks.params)

    def get_config(self) -> dict[str, Any]:
        """Return the wrapped model, the pruner and which kernels are masked."""
        order = positions(self.model)
        own = [id(m.kernel.variable) for m in self._masked_call.masked]
        return {
            "name": self.name,
            "model": keras.saving.serialize_keras_object(self.model),
            "pruner": keras.saving.serialize_keras_object(self.pruner),
            # Positions, not paths: a subclassed model names its layers anew.
            "kernels": [order[key] for key in own],
            "skipped": [
                (order[id(kernel.variable)], reason) for kernel, reason in self.skipped
            ],
            "remember": self.start is not None,
            "provenance": self.provenance,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Self:
        """Rebuild a ticket from `get_config()`."""
        revive = keras.saving.deserialize_keras_object
        model = revive(config["model"], custom_objects=custom_objects)
        pruner = revive(config["pruner"], custom_objects=custom_objects)
        found = all_kernels(model)
        selection = Selection(
            tuple(found[i] for i in config["kernels"]),
            tuple((found[i], reason) for i, reason in config["skipped"]),
        )
        # Tickets saved by version 0.1 say neither.
        remember = config.get("remember", False)
        ticket = cls(model, pruner, selection, config["name"], remember)
        ticket.provenance = config.get("provenance")
        return ticket


def wrap(
    model: keras.Model,
    pruner: Any = None,
    *,
    only: Filter | Iterable[Filter] | None = None,
    skip: Filter | Iterable[Filter] | None = None,
    name: str | None = None,
    remember: bool = False,
) -> Ticket:
    """Wrap a built Keras model so that its weights can be pruned.

    Takes any model: Sequential, Functional, nested, with shared layers, with several
    inputs and outputs, subclassed; any convolution, dense, recurrent or einsum
    kernel. The model itself is not changed, copied or renamed.

    The ticket is compiled by itself: a model that was compiled before keeps its own
    optimizer, which the ticket does not use. Wrapping a ticket again gives a new
    ticket around the same model, with another pruner, whose masks start as the old
    ones. `Masked` layers inside the model keep their masks, which the ticket's
    pruner then draws.

    Args:
        model: The model to wrap; built, and trained or not.
        pruner: A pruner, its string name or its config. Without one the masks stay
            as they are.
        only: Prune nothing but these kernels: a regular expression searched in the
            display path, a path or layer name, a layer, a variable, a function of a
            `Kernel`, `kt.mobile.eligible`, or a list of these. See
            `kt.prunable`.
        skip: Leave these kernels alone; the same forms.
        name: Name of the ticket.
        remember: Whether the ticket keeps, as `ticket.start`, the values that all
            weights of the model have when the draw begins (without a pruner: now). A
            second copy of the weights; ticket files and `keras_tickets.challenge`
            start from it. Pruners that need it have it without asking.

    Returns:
        A `Ticket`.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model is not built, trains itself, has nothing to prune, or
            if a filter can not be met.

    Example:
    >>> import keras, keras_tickets as kt
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> ticket = kt.wrap(model, "magnitude")
    >>> ticket.sparsity
    0.0
    """
    from keras_tickets import pruners

    refuse(model)
    pruner = None if pruner is None else pruners.get(pruner)
    if isinstance(model, Ticket):
        return _wrap_again(model, pruner, only, skip, name, remember)
    held = [k for layer in masked_layers(model) for k in layer.mask_set.kernels]
    selection = choose_kernels(model, only, skip, held)
    return Ticket(model, pruner, selection, name=name, remember=remember)


def _wrap_again(
    ticket: Ticket,
    pruner: Pruner | None,
    only: Any,
    skip: Any,
    name: str | None,
    remember: bool,
) -> Ticket:
    """Return a new ticket around the same model with the same masks."""
    if only is not None or skip is not None:
        raise ValueError(
            f"{ticket.name!r} is a ticket already, so which kernels it masks is "
            f"settled. Received: only={only!r}, skip={skip!r}. Drop the filters, or "
            "wrap the plain model: kt.wrap(ticket.strip(), pruner, only=...)."
        )
    own = tuple(m.kernel for m in ticket._masked_call.masked)
    remember = remember or ticket.start is not None
    again = Ticket(ticket.model, pruner, Selection(own, ticket.skipped), name, remember)
    for new, old in zip(again.mask_set.masked, ticket.mask_set.masked, strict=True):
        new.mask.assign(array_of(old.mask))
    for new, old in zip(again.mask_set.flags, ticket.mask_set.flags, strict=True):
        new.assign(array_of(old))
    again.provenance = ticket.provenance
    if again.start is not None and ticket.start is not None and ticket.start.taken:
        again.start.put(ticket.start.values())
    return again


OWN_TRAINING = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
)
"""The methods of `keras.Model` through which a model trains itself."""


def refuse(model: Any) -> None:
    """Raise if `model` is not one that a ticket can stand in for."""
    check_model(model)
    if isinstance(model, Ticket):
        return
    inside = [
        layer for layer in keras_private.sublayers(model) if isinstance(layer, Ticket)
    ]
    if inside:
        raise ValueError(
            f"{model.name!r} contains the ticket {inside[0].name!r}. Expected a model "
            "without tickets inside: build it around ticket.strip() and wrap the "
            "whole."
        )
    own = [
        method
        for method in OWN_TRAINING
        if getattr(type(model), method) is not getattr(keras.Model, method)
    ]
    if own:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} has its own {', '.join(own)}, "
            "which a ticket would not run: it would silently train as something else. "
            "Instead put kt.Masked around the layers to prune inside the model and "
            "pass the pruner to its fit as a callback."
        )
