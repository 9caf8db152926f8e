"""How often each weight of a model is multiplied for one sample.

A convolution uses its weights at each position of its output, a dense layer once for
each vector, a recurrent one at each time step. The model is run once on shapes alone,
and every call of a layer that owns a kernel is noted: nested, shared and subclassed
models need no rule of their own.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from keras_tickets._util.signature import input_signature
from keras_tickets.backend import keras_private
from keras_tickets.kernels.exclusions import EXCLUSIONS
from keras_tickets.kernels.kernel import Kernel

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Use:
    """What one sample takes of a kernel.

    Args:
        times: How often each weight is multiplied.
        positions: At how many positions its sums come out: as often, but for a
            transposed convolution, which spreads each input over many outputs.
    """

    times: int = 0
    positions: int = 0


@dataclass(frozen=True)
class Call:
    """One call of a layer, for one sample: its first input and first output.

    Args:
        given: Shape of the input; the first axis is what the batch was folded into.
        returned: Shape of the output.
        steps: In how many time steps it is made.
    """

    given: Shape
    returned: Shape
    steps: int = 1


def uses(model: keras.Model, kernels: Sequence[Kernel], given: Any = None) -> list[Use]:
    """Return how often each kernel is used for one sample.

    Args:
        model: A built model.
        kernels: Its kernels, prunable or not.
        given: The signature of its inputs, as for `keras_tickets.export`; by default
            what it was built with.

    Raises:
        ValueError: If the size of an input is not known.
    """
    signature = input_signature(model, given, batch=1)
    inputs = [tree.map_structure(_tensor, argument) for argument in signature]
    calls = _Listener(model).hear(inputs)
    return [_use(kernel, calls[id(kernel.layer)]) for kernel in kernels]


def _tensor(spec: keras.InputSpec) -> keras.KerasTensor:
    if None in spec.shape[1:]:
        raise ValueError(
            f"How much a model computes depends on the size of its inputs, and "
            f"{spec.name!r} has the shape {spec.shape}. Say which size is meant: "
            f"input_signature=[keras.InputSpec(shape=(1, ...), dtype={spec.dtype!r})]."
        )
    shape = tuple(1 if size is None else size for size in spec.shape)
    return keras.KerasTensor(shape, dtype=spec.dtype, name=spec.name)


# -- what the layers are called with ------------------------------------------------


class _Listener:
    """A note of every call of the layers of a model, in one pass on shapes alone."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.layers = keras_private.sublayers(model)
        self.calls: dict[int, list[Call]] = {id(layer): [] for layer in self.layers}
        self.recurrent = [
            layer
            for layer in self.layers
            if isinstance(layer, keras.layers.RNN)
            and isinstance(layer.cell, keras.Layer)  # what is none owns no kernel
        ]
        # By cell, while its layer runs: how many calls were noted before the layer's
        # first step, and `None` after it.
        self.stepping: dict[int, dict[int, int] | None] = {}
        self.batch = 1

    def hear(self, inputs: Sequence[Any]) -> dict[int, list[Call]]:
        """Return the calls of each layer, by the layer's identity."""
        shapes = _shapes(inputs)
        self.batch = shapes[0][0] if shapes else 1
        model, calls, stepping = self.model, self.calls, self.stepping

        class Pass(keras.Operation):
            def call(self, *arguments: Any) -> Any:
                stepping.clear()  # a backend may try more than once
                for noted in calls.values():
                    noted.clear()
                return model(*arguments)

        cells = {id(layer.cell) for layer in self.recurrent}
        with contextlib.ExitStack() as stack:
            for layer in self.layers:
                if layer in self.recurrent:
                    call = self._recurrence(layer)
                elif id(layer) in cells:
                    call = self._step(layer)
                elif layer is not model:
                    call = self._plain(layer)
                else:
                    continue
                stack.enter_context(keras_private.in_place_of(layer, "call", call))
            Pass()(*inputs)
        return calls

    def _plain(self, layer: keras.Layer) -> Callable[..., Any]:
        run = layer.call

        def call(*args: Any, **kwargs: Any) -> Any:
            outputs = run(*args, **kwargs)
            given, returned = _shapes((args, kwargs)), _shapes(outputs)
            if given and returned:
                self._note(layer, given[0], returned[0])
            return outputs

        return call

    def _recurrence(self, layer: keras.layers.RNN) -> Callable[..., Any]:
        """Count what one step of the cell notes as often as there are steps."""
        run, key = self._plain(layer), id(layer.cell)

        def call(*args: Any, **kwargs: Any) -> Any:
            before = self._lengths(layer.cell)
            batch, steps, *features = _shapes((args, kwargs))[0]
            self.stepping[key] = before
            outputs = run(*args, **kwargs)
            if self.stepping.pop(key):  # no step: the backend has a cell of its own
                self._note(layer.cell, (batch, *features), (batch, *features))
            for inner, length in before.items():
                noted = self.calls[inner]
                noted[length:] = [
                    replace(one, steps=one.steps * steps) for one in noted[length:]
                ]
            return outputs

        return call

    def _step(self, cell: keras.Layer) -> Callable[..., Any]:
        """Note the first step only: how often a loop is traced is the backend's."""
        run, key = self._plain(cell), id(cell)

        def call(*args: Any, **kwargs: Any) -> Any:
            first = self.stepping.get(key)
            if first:  # Keras tries stacked cells before the first step
                self._forget(first)
                self.stepping[key] = None
                return run(*args, **kwargs)
            before = self._lengths(cell)
            outputs = run(*args, **kwargs)
            if key in self.stepping:
                self._forget(before)
            return outputs

        return call

    def _forget(self, lengths: Mapping[int, int]) -> None:
        """Drop the calls that were noted since there were as many as `lengths`."""
        for inner, length in lengths.items():
            del self.calls[inner][length:]

    def _lengths(self, layer: keras.Layer) -> dict[int, int]:
        """Return how many calls of `layer`, and of those below, are noted so far."""
        return {id(x): len(self.calls[id(x)]) for x in keras_private.sublayers(layer)}

    def _note(self, layer: keras.Layer, given: Shape, returned: Shape) -> None:
        call = Call(self._of_one_sample(given), self._of_one_sample(returned))
        self.calls[id(layer)].append(call)

    def _of_one_sample(self, shape: Shape) -> Shape:
        """Return `shape` without the batch, of which a fixed one is many samples.

        A model may fold other axes into the batch, windows of an image for example.
        """
        return (max(1, (shape[0] or 1) // self.batch), *shape[1:])


def _shapes(values: Any) -> list[Shape]:
    shapes = (getattr(value, "shape", ()) for value in tree.flatten(values))
    return [tuple(shape) for shape in shapes if len(shape)]


# -- what a call makes of a kernel --------------------------------------------------


def _use(kernel: Kernel, calls: Sequence[Call]) -> Use:
    if not multiplies(kernel):
        return Use()
    return Use(
        sum(_times(kernel, call) * call.steps for call in calls),
        sum(_vectors(kernel.layer, call.returned) * call.steps for call in calls),
    )


def multiplies(kernel: Kernel) -> bool:
    """Return whether a variable takes part in products of a layer with its input."""
    if any(row.matches(kernel) for row in EXCLUSIONS if not row.multiplies):
        return False
    name, trainable = kernel.variable.name, kernel.variable.trainable
    # A layer that is frozen as a whole still multiplies. What does not train in one
    # that does is the layer's state, unless it says that it is a kernel: a vector of
    # SpectralNormalization, the scales of a quantized kernel.
    is_state = not trainable and kernel.layer.trainable and not name.endswith("kernel")
    return not is_state


def _times(kernel: Kernel, call: Call) -> int:
    """Return how often one call of a layer uses each weight of its kernel."""
    layer = kernel.layer
    if re.search("Conv.*Transpose", type(layer).__name__):
        return _vectors(layer, call.given)
    if isinstance(layer, keras.layers.EinsumDense):
        return _einsum(layer, call) // kernel.size
    return _vectors(layer, call.returned)


def _vectors(layer: keras.Layer, shape: Shape) -> int:
    """Return how many vectors of features a tensor of `shape` holds."""
    if isinstance(layer, keras.layers.EinsumDense):
        *_, kernel, returned = re.split(",|->", layer.equation.replace("...", ""))
        names = dict(zip(returned[::-1], shape[::-1], strict=False))
        features = math.prod(n for letter, n in names.items() if letter in kernel)
        return math.prod(shape) // features
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return math.prod((shape[0], *shape[2:]))
    return math.prod(shape[:-1])


def _einsum(layer: keras.layers.EinsumDense, call: Call) -> int:
    """Return the products of an einsum: the sizes of all its letters, multiplied."""
    given, kernel, returned = re.split(",|->", layer.equation)
    sizes: dict[str, int] = {}
    shapes = (call.given, tuple(layer.kernel.shape), call.returned)
    for letters, shape in zip((given, kernel, returned), shapes, strict=True):
        named = letters.replace("...", "")
        sizes.update(zip(named[::-1], shape[::-1], strict=False))
    free = math.prod(call.given[: len(call.given) - len(given.replace("...", ""))])
    return math.prod(sizes.values()) * free
