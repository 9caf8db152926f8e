"""A network at another input size, with its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_tickets._util.layer_traits import same_padding
from keras_tickets.backend.agreement import ROUNDING
from keras_tickets.mobile.preparing.building import MisfitError, build
from keras_tickets.mobile.preparing.exactness import reference
from keras_tickets.mobile.preparing.match import is_image, last_channels
from keras_tickets.mobile.preparing.network_graph import (
    Graph,
    Node,
    Value,
    read,
    values_in,
)

Size = int | tuple[int, int]
Shape = tuple[int | None, ...]


def resized(model: keras.Model, size: Size) -> keras.Model:
    """Return the network of a model at another input size, with its weights.

    What pads one-sidedly as `same` does at the old size pads as `same` does at the new
    one, and a pooling over the whole image stays one; all else is as it was.

    Args:
        model: A Functional or Sequential model of images with channels last.
        size: Height and width of its images; one number if they are alike.

    Raises:
        ValueError: If it has no images or images of several sizes, or a layer does not
            fit the size.
    """
    graph = read(model)
    shape = _checked(size)
    images = _images(graph)
    old = {id(v): v.shape for scope in graph.scopes() for v in _values(scope)}
    specs = [
        _spec(value, shape) if value in images else value.spec for value in graph.inputs
    ]
    at = f"{shape[0]} x {shape[1]}"
    calls = graph.calls()

    def infer(node: Node) -> Any:
        if calls[id(node.layer)] < 2:
            _fit(graph, node, old)
        try:
            return node.infer()
        except Exception as error:  # what a layer raises of a shape is its own affair
            raise ValueError(_does_not_fit(node, old, at, str(error))) from error

    graph.infer(specs, infer)
    try:
        model = build(graph)
    except MisfitError as found:
        why = f"its {found.variable} has shape {found.has} and would need {found.needs}"
        raise ValueError(_does_not_fit(found.node, old, at, why)) from found
    reference(graph).check(model, ROUNDING)
    return model


def _checked(size: Any) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else size
    right = isinstance(pair, Sequence) and len(pair) == 2
    if not right or not all(type(x) is int and x > 0 for x in pair):
        raise ValueError(
            "size is the height and width of the images in pixels, as one positive "
            f"integer or a pair: size=97 or size=(97, 129). Received: size={size!r}."
        )
    return pair[0], pair[1]


def _images(graph: Graph) -> list[Value]:
    """Return the inputs that are images, if they are of one size and channels last."""
    name = graph.model.name
    found = [value for value in graph.inputs if is_image(value)]
    if not found:
        shapes = ", ".join(str(value.shape) for value in graph.inputs)
        raise ValueError(
            f"'{name}' has no input of images, which have the shape (batch, height, "
            f"width, channels): its inputs are {shapes}. Leave size= out."
        )
    if len({value.shape[1:3] for value in found}) > 1:
        shapes = ", ".join(str(value.shape) for value in found)
        raise ValueError(
            f"'{name}' reads images of several sizes, {shapes}, and size= is that of "
            "all of them. Build the model at the sizes that you want and load its "
            "weights, then prepare it without size=."
        )
    first = [node for node in graph.every() if not last_channels(node.layer)]
    if first:
        raise ValueError(
            f"Layer '{first[0].path}' of '{name}' has its channels first, and size= "
            "moves images with channels last. Build the model with "
            'data_format="channels_last".'
        )
    return found


def _values(graph: Graph) -> list[Value]:
    given = [value for node in graph.nodes for value in values_in(node.given)]
    return [*graph.inputs, *given]


def _spec(value: Value, size: tuple[int, int]) -> Any:
    shape = (value.shape[0], *size, value.shape[3])
    return keras.KerasTensor(shape, value.spec.dtype)


# -- layers whose arguments stand for a size -------------------------------------------


def _fit(graph: Graph, node: Node, old: Mapping[int, Shape]) -> None:
    """Give a node that alone calls its layer the layer for another size."""
    change: dict[str, Any] = {}
    if node.kind == "ZeroPadding2D":
        change = _padding(graph, node, old[id(node.input)])
    elif node.kind in ("AveragePooling2D", "MaxPooling2D"):
        change = _whole(node, old[id(node.input)])
    if change:
        config = {**node.layer.get_config(), **change}
        node.layer = type(node.layer).from_config(config)


def _padding(graph: Graph, node: Node, old: Shape) -> dict[str, Any]:
    """Return the padding of `same` for what pads as it does, and not alike."""
    scope = next(scope for scope in graph.scopes() if node in scope.nodes)
    windows = {_window(reader) for reader in scope.readers(node.output)}
    if len(windows) != 1 or None in windows or scope.is_output(node.output):
        return {}
    kernel, strides = windows.pop()  # type: ignore[misc]
    before, after = (
        list(map(_same, shape[1:3], kernel, strides))
        for shape in (old, node.input.shape)
    )
    pads = [tuple(pad) for pad in node.layer.padding]
    alike = all(front == back for front, back in pads)
    return {} if pads != before or alike else {"padding": after}


def _window(node: Node) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return kernel and strides of what slides over an image and pads nothing."""
    layer: Any = node.layer
    size = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
    if size is None or getattr(layer, "padding", "") != "valid":
        return None
    holes = getattr(layer, "dilation_rate", (1, 1))
    return None if set(holes) != {1} else (tuple(size), tuple(layer.strides))


def _same(size: int | None, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding that `same` means along an axis.

    `keras.applications` pads images of unknown size as it does even ones.
    """
    return same_padding(size or stride * kernel, kernel, stride)


def _whole(node: Node, old: Shape) -> dict[str, Any]:
    """Return the window of a pooling over the whole image."""
    layer = node.layer
    if tuple(layer.pool_size) != old[1:3] or layer.padding != "valid":
        return {}
    new = node.input.shape[1:3]
    return {} if new == old[1:3] else {"pool_size": new, "strides": new}


def _does_not_fit(node: Node, old: Mapping[int, Shape], at: str, why: str) -> str:
    shapes = [(old[id(value)], value.shape) for value in node.inputs]
    moved = next((pair for pair in shapes if pair[0] != pair[1]), shapes[0])
    return (
        f"{type(node.layer).__name__} '{node.path}' does not fit images of {at}: it "
        f"was built on inputs of shape {moved[0]} and would read {moved[1]}; {why}. "
        "Only weights that do not depend on the size can move. End the images in "
        "GlobalAveragePooling2D in place of Flatten, or keep the size: leave size= out."
    )
