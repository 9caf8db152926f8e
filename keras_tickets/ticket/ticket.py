"""`Ticket`: a whole Keras model behind masks."""

from __future__ import annotations

import inspect
import json
import warnings
import zlib
from collections.abc import Mapping
from typing import Any, Self

import keras

from keras_tickets._util.registry import PACKAGE, config_read
from keras_tickets.backend import array_of, keras_private
from keras_tickets.kernels import Selection, positions
from keras_tickets.masks.denominators import keep_finite
from keras_tickets.masks.masked_call import MaskedCall
from keras_tickets.masks.masked_layer import masked_layers, without_masks
from keras_tickets.masks.pruner_state import PrunerState
from keras_tickets.masks.saved_variables import check_saved
from keras_tickets.masks.snapshot import Snapshot
from keras_tickets.masks.stripping import strip
from keras_tickets.ticket.bound_pruner import BoundPruner
from keras_tickets.ticket.curve import Curve
from keras_tickets.ticket.keras_formats import (
    check_format,
    check_not_legacy,
    exportable,
)
from keras_tickets.ticket.last_word import LastWord, Watch
from keras_tickets.ticket.saved_config import checked, damaged, selection_in
from keras_tickets.ticket.watched_model import WatchedModel

UNKNOWN = -1
"""The checksum of weights that nobody has seen, unlike any other."""


@keras.saving.register_keras_serializable(package=PACKAGE)
class Ticket(WatchedModel):
    """A Keras model whose kernels are masked, and the pruner that draws the masks.

    Made by `keras_tickets.wrap`. A ticket is a `keras.Model`: compile it, fit it,
    save it, load it. Its `fit` runs the bound pruner by itself, first among the
    callbacks. The wrapped model is not changed: its own layers and variables train,
    and `strip` gives it back with the zeros baked in.

    All state (masks, whether they were drawn, copies of the random seeds, what the
    pruner needs beside them) is held in Keras variables, so any checkpoint resumes
    bit-equal at an epoch boundary.

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
        pruner_runs: Whether the pruner is called while the ticket trains, as far as is
            known.
        pruner_state: What the ticket holds for the pruner, the masks among it.
        kernels: The kernels that are masked, in the model's order; those of `Masked`
            layers last.
        own_kernels: Those of them that the ticket masks itself.
        initial_sparsity: The sparsity that pruning goes on from, if the model came with
            zeros that are kept.
        drawn_from: A checksum of the weights that the draw began with, if it is known.
        skipped: Pairs of (kernel, reason) for the weights that are left alone.
    """

    def __init__(
        self,
        model: keras.Model,
        pruner: BoundPruner | None,
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
        self.own_kernels = selection.kernels
        inside = [layer.mask_set.kernels for layer in masked_layers(model)]
        self.kernels = self.own_kernels + tuple(k for some in inside for k in some)
        keras_private.take_training_argument_like(self, model)
        self.pruner_state = PrunerState(self) if pruner is None else pruner.build(self)
        # A Masked layer masks its own kernel, inside the wrapped model's call.
        self._masked_call = MaskedCall(
            self, model, self.pruner_state.own.masked, self.pruner_state.seeds
        )
        self.start: Snapshot | None = None
        if remember or (pruner is not None and pruner.keeps_initial_weights):
            self.start = Snapshot(self, without_masks(model, model.weights))
            if pruner is None:  # no draw will begin
                self.start.take()
        keras_private.show_to_object_checkpoints(self)
        self.pruner_runs = pruner is None
        self._provenance = "null"  # as text: Keras tracks the dicts of a layer
        self._watch = Watch(self._standing, self._whose)
        self.drawn_from: int | None = None
        self.initial_sparsity = 0.0
        self.built = True

    def call(
        self, inputs: Any, *args: Any, training: bool | None = None, **kwargs: Any
    ) -> Any:
        """Run the wrapped model with its effective kernels."""
        if training is not None:
            kwargs["training"] = training
        if isinstance(training, bool | int) and training:
            self._say_if_never_pruned()
        return self._masked_call(inputs, *args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Train on one batch; the arguments are `Model.train_on_batch`'s.

        It runs no callbacks, so the pruner neither: see the page on training loops.
        """
        self._say_if_never_pruned()  # a model may not be told that it is training
        return super().train_on_batch(*args, **kwargs)

    def _say_if_never_pruned(self) -> None:
        """Warn, once, if the ticket trains undrawn and its pruner is not called."""
        if self.pruner_runs or self.mask_set.known_drawn():
            return
        self.pruner_runs = True
        name = type(self.pruner).__name__
        warnings.warn(
            f"Ticket {self.name!r} is trained, but never pruned: only its own fit runs "
            f"its pruner, {name}; train_on_batch, a loop of your own and a model "
            "around the ticket do not. If the pruner draws once, call ticket.draw() "
            "first. Else pass ticket.pruner to the callbacks of the model that is "
            "fitted, or call it in your loop: keras.callbacks.CallbackList("
            "[ticket.pruner], model=ticket, epochs=..., steps=...), then its "
            "on_epoch_begin, on_train_batch_end and so on, as docs/loops.md shows.",
            stacklevel=3,
        )

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Leave Keras masks to the wrapped model, which has attached its own."""

    @property
    def output_names(self) -> list[str]:
        """The wrapped model's output names, for losses given by name."""
        return self.model.output_names

    @property
    def provenance(self) -> dict[str, Any] | None:
        """How the ticket was drawn, if it comes from a ticket file."""
        return json.loads(self._provenance)

    @provenance.setter
    def provenance(self, origin: dict[str, Any] | None) -> None:
        self._provenance = json.dumps(origin)

    @property
    def trained(self) -> bool:
        """Whether its weights are known to have changed since the draw began."""
        if (self.provenance or {}).get("trained"):
            return True
        optimizer = getattr(self, "optimizer", None)  # not before it is compiled
        stepped = bool(optimizer and array_of(optimizer.iterations) > 0)
        noted = self.drawn_from
        return stepped or (noted is not None and noted != self._checksum())

    def note_weights(self, again: bool = False) -> None:
        """Note which weights the ticket begins with, before its draw.

        Args:
            again: Whether it begins anew, as one that was read from a file does.
        """
        if again or (self.drawn_from is None and not self.drawn):
            self.drawn_from = self._checksum()

    def found_zeros(self, sparsity: float) -> None:
        """Note that the masks are zeros which the weights came with."""
        self.initial_sparsity = sparsity
        self.drawn_from = UNKNOWN

    def _checksum(self) -> int:
        total = 0
        for kernel in self.kernels:
            total = zlib.crc32(array_of(kernel.variable).tobytes(), total)
        return total

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
        curve = self.pruner.draw(self, verbose)
        self._watch.note()
        return curve

    def strip(self) -> keras.Model:
        """Return the plain model with zeros baked in; see `keras_tickets.strip`."""
        return strip(self)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save the whole ticket as `.keras`; the arguments are `Model.save`'s.

        Raises:
            ValueError: For Keras' older format, `.h5`; nothing is written.
        """
        check_format(self.name, filepath)
        self._masked_call.refresh()
        self.warn_if_undone()
        super().save(filepath, *args, **kwargs)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Export the plain model by Keras' own means; `kt.export` checks what it wrote.

        The arguments are `Model.export`'s.

        Raises:
            ValueError: If the ticket was never drawn, or its inputs are not known.
        """
        plain, signature = exportable(self, input_signature)
        plain.export(filepath, format, verbose, signature, **kwargs)

    def load_own_variables(self, store: Any) -> None:
        """Load masks and all that is beside them; what cannot be theirs is refused."""
        check_saved(self, store)
        super().load_own_variables(store)
        _ = self.drawn  # seen now, as a step that JAX traces cannot look

    def save_ticket(self, path: Any, *, overwrite: bool = False) -> None:
        """Write the ticket to a file; see `ticket.saved_file.save_ticket`."""
        self.warn_if_undone()
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
            optimizer = self.pruner.wrap_optimizer(self, optimizer, saved=saved)
        keep_finite(optimizer, self.trainable_variables)
        super().compile(optimizer, *args, **kwargs)
        if self.optimizer is not None and self.pruner is not None:
            self.pruner.on_compile(self)

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compile as `get_compile_config()` says; Keras calls it on loading."""
        with config_read("compiled ticket", config):
            config = keras_private.for_any_backend(config)
        arguments = keras.saving.deserialize_keras_object(config)
        with config_read("compiled ticket", config):
            self._compile(**arguments, saved=True)
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
        self.pruner_runs = True
        bound = inspect.signature(super().fit).bind(*args, **kwargs)
        if self.pruner is None:
            return super().fit(*bound.args, **bound.kwargs)
        listed, last_word = self._with_pruner(bound.arguments.get("callbacks"))
        bound.arguments["callbacks"] = listed
        with self._watch.fitting():
            history = super().fit(*bound.args, **bound.kwargs)
        self._watch.after_fit(last_word, history)
        return history

    def _with_pruner(self, callbacks: Any) -> tuple[Any, LastWord]:
        """Return the callbacks, the pruner first, and what notes what it leaves."""
        ready = isinstance(callbacks, keras.callbacks.CallbackList)
        given = callbacks.callbacks if ready else keras.tree.flatten(callbacks or [])
        others = [c for c in given if c is not self.pruner]
        last_word = LastWord(self._standing, others)
        listed = [self.pruner, last_word, *others]
        if not ready:
            return listed, last_word
        # Not inserted into the list at hand: whether its callbacks run
        # asynchronously was decided when it was made.
        params = callbacks.params
        return keras.callbacks.CallbackList(listed, model=self, **params), last_word

    def get_config(self) -> dict[str, Any]:
        """Return the wrapped model, the pruner and which kernels are masked."""
        check_not_legacy(self)
        order = positions(self.model)
        own = [id(kernel.variable) for kernel in self.own_kernels]
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
            "drawn_from": self.drawn_from,
            "initial_sparsity": self.initial_sparsity,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Self:
        """Rebuild a ticket from `get_config()`.

        Raises:
            ValueError: If it is no config of a ticket, or names kernels that its model
                does not have.
        """
        config, revive = checked(config), keras.saving.deserialize_keras_object
        try:
            model, pruner = (
                revive(keras_private.for_any_backend(part), custom_objects)
                for part in (config["model"], config["pruner"])
            )
        except RecursionError as error:
            raise ValueError(damaged("it is nested too deep")) from error
        if not isinstance(model, keras.Model):
            raise ValueError(damaged(f"its model is {model!r}"))
        if pruner is not None and not isinstance(pruner, BoundPruner):
            raise ValueError(damaged(f"its pruner is {pruner!r}"))
        selection = selection_in(config, model)
        ticket = cls(model, pruner, selection, config["name"], config["remember"])
        ticket.provenance = config["provenance"]
        ticket.drawn_from = config["drawn_from"]
        ticket.initial_sparsity = config["initial_sparsity"]
        return ticket
