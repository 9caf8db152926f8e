"""From a graph to a Keras model of its own, with the weights of the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_tickets.backend import copying, keras_private
from keras_tickets.mobile.preparing.network_graph import Graph, Node, Value, packed


class MisfitError(ValueError):
    """Raised for a layer whose weights do not fit the shapes of a graph.

    Args:
        node: A call of the layer.
        variable: The name of the weight.
        has: Its shape.
        needs: The shape that it would have to be of.
    """

    def __init__(self, node: Node, variable: str, has: Any, needs: Any) -> None:
        super().__init__(f"'{node.path}': {variable} has {has}, and needs {needs}")
        self.node, self.variable, self.has, self.needs = node, variable, has, needs


def build(graph: Graph) -> keras.Model:
    """Return a new model that computes what a graph says.

    Raises:
        ValueError: If a layer cannot be copied from its config.
    """
    return Builder().model(graph)


class Builder:
    """Copies each layer once, however often it is called."""

    def __init__(self) -> None:
        self._copies: dict[int, Any] = {}
        self._filled: set[int] = set()

    def model(self, graph: Graph) -> keras.Model:
        """Return the model of a graph."""
        doors = [
            _door(layer, value)
            for layer, value in zip(graph.input_layers, graph.inputs, strict=True)
        ]
        source = graph.model
        if (chain := self._chain(graph)) is not None:
            model: Any = keras.Sequential([*doors, *chain], name=source.name)
            self._fill(graph)
        else:
            tensors = [door.output for door in doors]
            outputs = graph.run(tensors, self._call)
            model = keras.Model(packed(source, tensors), outputs, name=source.name)
        keras_private.set_own_trainable(model, source.trainable)
        return model

    def _call(self, node: Node, take: Callable[[Value], Any]) -> Any:
        copy = self._copy(node)
        called = Node(copy, node.args, node.kwargs, node.path)
        made = called.call(take)
        self._weights(node)
        return made

    def _chain(self, graph: Graph) -> list[Any] | None:
        """Return the layers of a graph that is a Sequential model and can stay one."""
        if not isinstance(graph.model, keras.Sequential) or len(graph.inputs) != 1:
            return None
        last = graph.inputs[0]
        for node in graph.nodes:
            given = [x for x in (*node.args, *node.kwargs.values()) if x is not None]
            if not isinstance(node.layer, keras.Layer) or given != [last]:
                return None
            last = node.output
        layers = [id(node.layer) for node in graph.nodes]
        if graph.outputs is not last or len({*layers}) < len(layers):
            return None
        return [self._copy(node) for node in graph.nodes]

    def _fill(self, graph: Graph) -> None:
        for node in graph.nodes:
            self._weights(node)

    def _copy(self, node: Node) -> Any:
        if id(node.layer) not in self._copies:
            made = self.model(node.inner) if node.inner else _copy(node)
            self._copies[id(node.layer)] = made
        return self._copies[id(node.layer)]

    def _weights(self, node: Node) -> None:
        """Give the copy of a layer its state, once it is built."""
        if id(node.layer) in self._filled or node.inner:
            return
        self._filled.add(id(node.layer))
        copy = self._copies[id(node.layer)]
        try:
            copying.copy_state(copying.pair(_below(node.layer), _below(copy)))
        except copying.ShapeError as found:
            raise MisfitError(node, found.variable, found.has, found.needs) from found


def _door(layer: Any, value: Value) -> Any:
    config = {**layer.get_config(), "batch_shape": value.shape}
    return keras.layers.InputLayer.from_config(config)


def _copy(node: Node) -> Any:
    """Return a fresh layer or operation, to be built when it is called."""

    def unbuilt(config: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in config.items() if key != "build_config"}

    return copying.rebuild(node.layer, unbuilt)


def _below(layer: Any) -> list[keras.Layer]:
    return keras_private.sublayers(layer) if isinstance(layer, keras.Layer) else []
