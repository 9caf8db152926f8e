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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from keras_tickets import _keras
from keras_tickets.prunable import Kernel
from keras_tickets.signature import input_signature

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call of a layer: the shapes of its first input and first output.

    Args:
        given: Shape of the input, with the batch first.
        returned: Shape of the output.
        steps: How many time steps a recurrent layer makes of it.
    """

    given: Shape
    returned: Shape
    steps: int = 1


def uses(model: keras.Model, kernels: Sequence[Kernel], given: Any = None) -> list[int]:
    """Return how often each weight of each kernel is used for one sample.

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
    calls = _calls(model, inputs)
    return [
        sum(_positions(kernel, call) * call.steps for call in calls[id(kernel.layer)])
        for kernel in kernels
    ]


def _tensor(spec: keras.InputSpec) -> keras.KerasTensor:
    if None in spec.shape:
        raise ValueError(
            f"How much a model computes depends on the size of its inputs, and "
            f"{spec.name!r} has the shape {spec.shape}. Say which size is meant: "
            f"input_signature=[keras.InputSpec(shape=(1, ...), dtype={spec.dtype!r})]."
        )
    return keras.KerasTensor(spec.shape, dtype=spec.dtype, name=spec.name)


def _calls(model: keras.Model, inputs: Sequence[Any]) -> dict[int, list[Call]]:
    """Return the calls of each layer in one pass, by the layer's identity."""
    layers = _keras.sublayers(model)
    calls: dict[int, list[Call]] = {id(layer): [] for layer in layers}
    # Cells may run inside a loop of the backend, or fused in one kernel: it is the
    # recurrent layer around them that tells.
    cells = {
        id(inner): layer
        for layer in layers
        if isinstance(layer, keras.layers.RNN)
        for inner in _keras.sublayers(layer)[1:]
    }

    def note(layer: keras.Layer, call: Call) -> None:
        for key in [id(layer), *(k for k, outer in cells.items() if outer is layer)]:
            calls[key].append(call)

    class Pass(keras.Operation):
        def call(self, *arguments: Any) -> Any:
            for noted in calls.values():
                noted.clear()  # a backend may try more than once
            return model(*arguments)

    with contextlib.ExitStack() as stack:
        for layer in layers:
            if layer is not model and id(layer) not in cells:
                stack.enter_context(_listening(layer, note))
        Pass()(*inputs)
    return calls


@contextlib.contextmanager
def _listening(
    layer: keras.Layer, note: Callable[[keras.Layer, Call], None]
) -> Iterator[None]:
    """Tell `note` of each call of `layer`."""
    run = layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = run(*args, **kwargs)
        given, returned = _shapes((args, kwargs)), _shapes(outputs)
        if given and returned:
            steps = given[0][1] if isinstance(layer, keras.layers.RNN) else 1
            note(layer, Call(given[0], returned[0], steps))
        return outputs

    layer.call = call
    try:
        yield
    finally:
        del layer.call


def _shapes(values: Any) -> list[Shape]:
    shapes = (getattr(value, "shape", ()) for value in tree.flatten(values))
    return [tuple(shape) for shape in shapes if len(shape)]


def _positions(kernel: Kernel, call: Call) -> int:
    """Return how often one call of a layer uses each weight of its kernel."""
    layer, kind = kernel.layer, type(kernel.layer).__name__
    if re.search("Embedding", kind) or re.search("bias$", kernel.variable.name):
        return 0  # looked up or added, not multiplied
    if re.search("Conv.*Transpose", kind):
        return _spatial(layer, call.given)
    if re.search(r"Conv\d?D?", kind):
        return _spatial(layer, call.returned)
    if isinstance(layer, keras.layers.EinsumDense):
        return _einsum(layer, call) // kernel.size
    if re.search("Cell$", kind):
        return 1
    return math.prod(call.returned[1:-1])


def _spatial(layer: keras.Layer, shape: Shape) -> int:
    """Return the number of positions in feature maps of `shape`."""
    return math.prod(spatial_sizes(layer, shape))


def spatial_sizes(layer: keras.Layer, shape: Shape) -> Shape:
    """Return the sizes of the axes that a window moves along."""
    rank = getattr(layer, "rank", len(shape) - 2)
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return shape[-1 - rank : -1] if last else shape[-rank:]


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
