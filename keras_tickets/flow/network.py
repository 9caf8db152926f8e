"""The linearized network: what SynFlow measures, and what shows a layer collapse.

All weights have their absolute values, the input is all ones, activations are the
identity (`keras_tickets.flow.rules`). The output then is a sum over all paths from
input to output of the product of the weights along the path.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops, tree

from keras_tickets._util.layer_traits import is_added
from keras_tickets._util.signature import input_signature
from keras_tickets.backend import keras_private
from keras_tickets.flow import rules
from keras_tickets.flow.rules import NotLinearError, signals_in
from keras_tickets.flow.signal import Signal, align, power_of_two, rescale
from keras_tickets.kernels import Kernel
from keras_tickets.masks.masked_call import other_variables

UNKNOWN_SIZE = 64
"""The size of an input axis that the model leaves open."""


@dataclass(frozen=True)
class LayerTrace:
    """What happened to the signal in one layer.

    Args:
        layer: The layer or operation.
        signal_in: Whether a signal that is not zero came in.
        signal_out: Whether one went out.
    """

    layer: Any
    signal_in: bool
    signal_out: bool


class Network:
    """The linearized network of a model.

    Args:
        model: A built model: Functional, Sequential, nested, or subclassed with a
            `call` that uses layers and `keras.ops`.
        kernels: The kernels whose absolute values are given at each call.
        strict: Whether a product of signals is zero as soon as one factor is, as for
            SynFlow. A network still works with less: what a sigmoid gates, or softmax
            attends to, passes also when the gate has no weights left.

    Raises:
        NotLinearError: At a call, when a layer has no rule and is not linear as it
            is.
    """

    def __init__(
        self, model: keras.Model, kernels: Sequence[Kernel], strict: bool = True
    ) -> None:
        self.model = model
        self.kernels = tuple(kernels)
        self.strict = strict
        # Once, not in every pass: there are hundreds of them in a deep network.
        self.fixed = [
            (v, ops.stop_gradient(_positive(v)))
            for v in other_variables(model, kernels)
            if "float" in str(v.dtype)
        ]
        self._unverified = False
        self._observe: Callable[[Any, list, list], None] | None = None

    def __call__(self, abs_weights: Sequence[Any]) -> tuple[Any, Any]:
        """Return R, the sum of all outputs, as `(value, exponent)` of a signal.

        Args:
            abs_weights: The absolute effective value of each kernel, `|w| * mask`.
        """
        outputs = self.outputs(abs_weights)
        values, exponent = align([rescale(output) for output in outputs])
        return sum(ops.sum(value) for value in values), exponent

    def outputs(self, abs_weights: Sequence[Any]) -> list[Signal]:
        """Return the signal at each output of the model."""
        given = [
            (kernel.variable, value)
            for kernel, value in zip(self.kernels, abs_weights, strict=True)
        ]
        # What a scope maps takes the dtype of its variable.
        dtype = self.kernels[0].variable.dtype
        inputs = tree.map_structure(lambda spec: _ones(spec, dtype), self._inputs())
        with keras.StatelessScope(state_mapping=given + self.fixed):
            return signals_in(self.run(self.model, *inputs))

    def _inputs(self) -> list[Any]:
        try:
            return input_signature(self.model, None, batch=1)
        except ValueError as error:
            raise NotLinearError(
                f"The inputs of {self.model.name!r} are not known, so no signal can "
                "be sent through it. Call the model on data once before wrapping it."
            ) from error

    # -- walking -------------------------------------------------------------------

    def run(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what a layer, model or operation makes of signals."""
        arriving = signals_in(args, kwargs)
        if not arriving:
            return operation(*args, **kwargs)
        graph = keras_private.graph_of(operation)
        if graph is not None:
            inputs = tree.flatten(args)
            return keras_private.run_graph(graph, inputs, self._step)
        return self._step(operation, *args, **kwargs)

    def _step(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("training", None)  # never
        arriving = signals_in(args, kwargs)
        apply = self._how(operation, arriving)
        try:
            results = apply(*args, **kwargs)
        except NotLinearError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise NotLinearError(_no_rule(operation, why)) from error
        if self._observe is not None:
            self._observe(operation, arriving, signals_in(results))
        return results

    def _how(self, operation: Any, arriving: list[Signal]) -> Callable[..., Any]:
        """Return the function that stands for an operation."""
        if keras_private.graph_of(operation) is not None or not arriving:
            return functools.partial(self.run, operation)
        rule = rules.find(operation)
        if rule is not None:
            return functools.partial(rule, self, operation)
        several = len(arriving) > 1
        if rules.is_homogeneous(operation) and not several:
            return functools.partial(self._as_it_is, operation, arriving[0])
        if isinstance(operation, keras.Layer) and (
            several or len(keras_private.sublayers(operation)) > 1
        ):
            return functools.partial(self._expand, operation)
        if several:
            raise NotLinearError(_no_rule(operation, "it takes several signals"))
        return functools.partial(self._as_it_is, operation, arriving[0])

    def _as_it_is(self, operation: Any, x: Signal, *args: Any, **kwargs: Any) -> Any:
        results = rules.as_it_is(operation, x, args, kwargs)
        if not rules.is_homogeneous(operation):
            self._unverified = True
            if self._observe is not None:
                _check_homogeneous(operation, x, args, kwargs, results)
        return results

    def _expand(self, layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        """Run a layer made of layers and `keras.ops`, one by one."""
        found = signals_in(args, kwargs)
        placeholders = [
            keras.Input(batch_shape=tuple(s.value.shape), name=f"signal_{i}")
            for i, s in enumerate(found)
        ]
        swap = {id(s): p for s, p in zip(found, placeholders, strict=True)}
        args, kwargs = tree.map_structure(lambda x: swap.get(id(x), x), (args, kwargs))
        if "training" in inspect.signature(layer.call).parameters:
            kwargs["training"] = False
        try:
            with keras_private.unique_names(layer):
                graph = keras.Function(placeholders, layer.call(*args, **kwargs))
        except Exception as error:
            raise NotLinearError(
                _no_rule(layer, f"its call cannot be followed ({error})")
            ) from error
        return keras_private.run_graph(graph, found, self._step)

    # -- looking -------------------------------------------------------------------

    def trace(self, abs_weights: Sequence[Any]) -> list[LayerTrace]:
        """Return, layer by layer, where a signal arrived and where one left.

        Raises:
            NotLinearError: If a layer without a rule turns out not to be linear.
        """
        seen: list[LayerTrace] = []

        def observe(layer: Any, arriving: list[Signal], leaving: list[Signal]) -> None:
            seen.append(LayerTrace(layer, _is_nonzero(arriving), _is_nonzero(leaving)))

        self._observe = observe
        try:
            self.outputs(abs_weights)
        finally:
            self._observe = None
        return seen

    def verify_homogeneous(self, abs_weights: Sequence[Any]) -> None:
        """Raise if a layer that ran without a rule is not linear; do it once.

        Raises:
            NotLinearError: Naming the layer.
        """
        if self._unverified:
            self.trace([ops.abs(value) for value in abs_weights])
            self._unverified = False


def _positive(variable: keras.Variable) -> Any:
    """Return a weight's absolute value; a bias is left out."""
    if is_added(variable.name):
        return ops.zeros_like(variable.value)
    return ops.abs(variable.value)


def _ones(spec: Any, dtype: str) -> Signal:
    shape = tuple(UNKNOWN_SIZE if size is None else size for size in spec.shape)
    return Signal(ops.ones(shape, dtype), ops.zeros((), dtype))


def _is_nonzero(signals: Sequence[Signal]) -> bool:
    values = [ops.stop_gradient(signal.value) for signal in signals]
    return any(float(ops.max(value)) > 0 for value in values)


def _check_homogeneous(
    operation: Any, x: Signal, args: Any, kwargs: Any, results: Any
) -> None:
    """Raise unless doubling the input doubles what comes out, and that is positive."""
    double = x.of(2 * x.value)
    swap = lambda a: double if a is x else a  # noqa: E731
    args, kwargs = tree.map_structure(swap, (args, kwargs))
    doubled = signals_in(rules.as_it_is(operation, double, args, kwargs))
    for one, two in zip(signals_in(results), doubled, strict=True):
        scale = power_of_two(two.exponent - one.exponent)
        difference = ops.max(ops.abs(two.value * scale - 2 * one.value))
        largest = float(ops.max(ops.abs(one.value)))
        if float(difference) > 1e-4 * largest or float(ops.min(one.value)) < 0:
            raise NotLinearError(
                _no_rule(operation, "f(2x) is not 2 f(x), or f(x) is negative")
            )


def _no_rule(operation: Any, why: str) -> str:
    kind = type(operation).__name__
    return (
        f"{kind} {operation.name!r} has no linear form that this package knows: {why}. "
        f"Give it one with @kt.flow.rule({kind}) (see keras_tickets.flow), or use a "
        "pruner that needs none, such as kt.SNIP or kt.Magnitude."
    )
