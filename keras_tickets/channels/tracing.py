"""One pass through a network on channels alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np
from keras import tree

from keras_tickets.backend import keras_private
from keras_tickets.backend.rebuilding import LeftAlone, input_layer, is_of_keras
from keras_tickets.channels.channel_state import (
    Channels,
    below,
    specs,
    tensors_in,
    unknown,
)
from keras_tickets.channels.coupling import Coupling
from keras_tickets.channels.edits import NestedInput, Part

P = TypeVar("P", bound=Part)


class Trace:
    """What one pass through a model finds.

    Args:
        graph: The graph of a plain Functional or Sequential model.
        rule_of: Returns the rule of a layer or operation: `layer_rules.find`.

    Attributes:
        coupling: The channels, which are coupled, and which are kept.
        parts: By `id` of layer, what changes with its channels.
        tensors: What every layer gave, in order.
        left: By name of layer, why it is left alone with all that it reads.
        fixed: The `id` of each of these, and of the layers below them.
    """

    def __init__(
        self, graph: keras.Function, rule_of: Callable[[Any], Callable[..., Any]]
    ) -> None:
        self._rule_of = rule_of
        self.coupling = Coupling()
        self.parts: dict[int, Part] = {}
        self.tensors: list[tuple[str, Channels]] = []
        self.left: dict[str, str] = {}
        self.fixed: set[int] = set()
        self._scope: tuple[str, ...] = ()
        inputs = [self._new(tensor, "an input of the model") for tensor in graph.inputs]
        outputs = keras_private.run_graph(graph, inputs, self.call)
        for output in tensors_in(outputs):
            self.coupling.keep(output.ids, "an output of the model")

    def name(self, operation: Any) -> str:
        """Return how the user finds a layer: nested models in front."""
        return "/".join((*self._scope, operation.name))

    def call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Pass channels through a layer, an operation or a nested model."""
        try:
            self._check(operation, args, kwargs)
            if (graph := keras_private.graph_of(operation)) is not None:
                return self._nested(operation, graph, *args)
            return self._rule_of(operation)(self, operation, *args)
        except LeftAlone as reason:
            return self._leave(operation, args, kwargs, str(reason))

    def part(
        self,
        kind: Callable[[Any, str, Channels, np.ndarray], P],
        layer: Any,
        x: Channels,
        outs: np.ndarray | int,
    ) -> P:
        """Return the part of a layer; at a further call, couple the inputs of both.

        Args:
            kind: Which kind of part.
            layer: The layer.
            x: Its input at this call.
            outs: The channels of its output, or how many new ones it makes.
        """
        if id(layer) not in self.parts:
            ids = self.coupling.new(outs) if isinstance(outs, int) else outs
            self.parts[id(layer)] = kind(layer, self.name(layer), x, ids)
        else:
            part = self.parts[id(layer)]
            if len(part.ins) != len(x):
                raise LeftAlone("is called on inputs of several sizes")
            self.coupling.couple([part.ins, x.ids], by=f"two calls of '{part.name}'")
            part.merge_call(x)
        return self.parts[id(layer)]  # type: ignore[return-value]

    def output(
        self, operation: Any, *args: Any, ids: np.ndarray, constants: np.ndarray
    ) -> Channels:
        """Return what an operation gives, by channel."""
        spec = operation.compute_output_spec(*specs(args))
        made = Channels(spec, ids, constants)
        self.tensors.append((self.name(operation), made))
        return made

    def _check(self, operation: Any, args: Any, kwargs: Any) -> None:
        """Raise if an operation is called in a way that no rule covers."""
        given = tensors_in(args)
        if id(operation) in self.fixed:
            raise LeftAlone("is used elsewhere in a place that is left alone")
        if not all(map(len, given)):
            raise LeftAlone("is given a tensor whose last axis has no known size")
        if any(value not in (None, False) for value in kwargs.values()):
            raise LeftAlone(f"is called with {', '.join(kwargs)}")
        first = getattr(operation, "data_format", None) == "channels_first"
        if first and any(len(x.spec.shape) > 2 for x in given):
            raise LeftAlone("has its channels first")

    def _nested(self, model: Any, graph: keras.Function, *args: Any) -> Any:
        """Pass channels through the layers of a nested model."""
        given = tree.flatten(args)
        inputs = [input_layer(graph, tensor) for tensor in graph.inputs]
        if not is_of_keras(type(model)):
            raise LeftAlone(f"is a class of its own, {type(model).__name__}")
        named = isinstance(args[0], dict) != isinstance(graph.input, dict)
        if named or len(given) != len(inputs) or None in inputs:
            raise LeftAlone("is a nested model that is called in a way of its own")
        self._scope = (*self._scope, model.name)
        try:
            for layer, x in zip(inputs, given, strict=True):
                self.part(NestedInput, layer, x, x.ids)
            return keras_private.run_graph(graph, given, self.call)
        finally:
            self._scope = self._scope[:-1]

    def _leave(self, operation: Any, args: Any, kwargs: Any, reason: str) -> Any:
        """Keep all that goes into and comes out of an operation."""
        name = self.name(operation)
        self.left[name] = reason
        for x in tensors_in(args, kwargs):
            self.coupling.keep(x.ids, f"read by '{name}', which {reason}")
        for layer in (operation, *below(operation)):
            self.fixed.add(id(layer))
            if (part := self.parts.get(id(layer))) is not None:
                why = f"part of '{name}', which {reason}"
                self.coupling.keep(part.ins, why)
                self.coupling.keep(part.outs, why)
        made = operation.compute_output_spec(*specs(args), **specs(kwargs))
        return tree.map_structure(lambda spec: self._new(spec, f"made by {name}"), made)

    def _new(self, spec: keras.KerasTensor, why: str) -> Channels:
        """Return a tensor that keeps all of its channels."""
        if len(spec.shape) < 2 or spec.shape[-1] is None:
            return Channels(spec)
        count = spec.shape[-1]
        made = Channels(spec, self.coupling.new(count), unknown(count))
        self.coupling.keep(made.ids, why)
        return made
