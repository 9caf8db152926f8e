"""A network as calls of layers that can be moved, replaced and added.

A `Value` is a tensor, a `Node` is one call of one layer, a `Graph` holds the nodes of a
model in the order in which they run. Rewrites edit graphs; `building.py` makes a model
of one. The layers of a graph are the user's until then, and are never changed: what a
rewrite changes is a new layer.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import tree

from keras_tickets.backend import keras_private
from keras_tickets.backend.rebuilding import input_layer, is_of_keras


class Value:
    """A tensor of a graph.

    Args:
        spec: Its shape and dtype.
        node: What gives it; None for an input.
        number: Which one it is of the model as it was read; None if it was added.
    """

    def __init__(
        self, spec: Any, node: Node | None = None, number: int | None = None
    ) -> None:
        self.spec, self.node, self.number = spec, node, number

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Its shape, the batch in front."""
        return tuple(self.spec.shape)


class Node:
    """One call of a layer, an operation or a nested model.

    Args:
        layer: What is called.
        args: What it is given: values where it takes tensors.
        kwargs: The same, by name.
        path: How the user finds it: nested models in front, with slashes.
        inner: The graph of a nested model.
    """

    def __init__(
        self,
        layer: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        path: str,
        inner: Graph | None = None,
    ) -> None:
        self.layer, self.path, self.inner = layer, path, inner
        self.given: Any = None
        self.read(args, kwargs)

    def read(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Let the layer be called with other arguments."""
        self.args, self.kwargs = tuple(args), kwargs
        self.inputs = values_in((self.args, self.kwargs))

    @property
    def kind(self) -> str:
        """The name of its class, if it is one of Keras."""
        return type(self.layer).__name__ if is_of_keras(type(self.layer)) else ""

    @property
    def input(self) -> Value:
        """The tensor that it reads first."""
        return self.inputs[0]

    @property
    def output(self) -> Value:
        """The tensor that it gives, if it gives one."""
        return self.given

    def call(self, take: Callable[[Value], Any]) -> Any:
        """Return what the layer makes of what stands for its values."""
        return self.layer(*replaced(self.args, take), **replaced(self.kwargs, take))

    def infer(self) -> Any:
        """Return shapes and dtypes of what the layer gives."""
        if self.inner is not None:
            return self.inner.infer([value.spec for value in self.inputs])
        args, kwargs = (replaced(x, _spec) for x in (self.args, self.kwargs))
        return self.layer.compute_output_spec(*args, **kwargs)


class Graph:
    """The calls of one model, and of the models nested in it.

    Args:
        model: The model.
        path: How the user finds it; empty for the outermost.
    """

    def __init__(self, model: keras.Model, path: str = "") -> None:
        self.model, self.path = model, path
        self.inputs: list[Value] = []
        self.input_layers: list[Any] = []
        self.nodes: list[Node] = []
        self.outputs: Any = None

    def scopes(self) -> Iterator[Graph]:
        """Yield this graph and those of nested models, each once."""
        inner = (node.inner for node in self.nodes if node.inner is not None)
        nested = (scope for graph in inner for scope in graph.scopes())
        found = {id(scope): scope for scope in (self, *nested)}
        yield from found.values()

    def every(self) -> Iterator[Node]:
        """Yield all nodes, also of nested models."""
        return itertools.chain.from_iterable(scope.nodes for scope in self.scopes())

    def calls(self) -> Counter[int]:
        """Return how often each layer is called, by its id."""
        return Counter(id(node.layer) for node in self.every())

    # -- who reads what ---------------------------------------------------------------

    def readers(self, value: Value) -> list[Node]:
        """Return the nodes that read a value."""
        return [node for node in self.nodes if any(v is value for v in node.inputs)]

    def is_output(self, value: Value) -> bool:
        """Return whether the model returns a value."""
        return any(v is value for v in values_in(self.outputs))

    def is_read_once(self, value: Value) -> bool:
        """Return whether one node reads a value, and the model does not return it."""
        return len(self.readers(value)) == 1 and not self.is_output(value)

    def next(self, node: Node) -> Node | None:
        """Return what reads the output of a node, if it is one node and no output."""
        alone = self.is_read_once(node.output)
        return self.readers(node.output)[0] if alone else None

    def before(self, node: Node) -> Node | None:
        """Return what gives a node its input, if nothing else reads that."""
        source = node.input.node if len(node.inputs) == 1 else None
        return source if source is not None and self.next(source) is node else None

    # -- edits ------------------------------------------------------------------------

    def put(self, at: Node, layer: Any, *args: Any) -> Value:
        """Add the call of a layer in front of a node; return what it gives."""
        node = self._called(layer, *args)
        self.nodes.insert(self.nodes.index(at), node)
        return node.output

    def put_behind(self, node: Node, layer: Any) -> None:
        """Add the call of a layer on what a node gives, for all who read that."""
        old, readers = node.output, self.readers(node.output)
        added = self._called(layer, old)
        self.nodes.insert(self.nodes.index(node) + 1, added)
        for reader in readers:
            self.move(reader, old, added.output)
        self.outputs = replaced(self.outputs, lambda v: added.output if v is old else v)

    def _called(self, layer: Any, *args: Any) -> Node:
        name = f"{self.path}/{layer.name}" if self.path else layer.name
        node = Node(layer, args, {}, name)
        node.given = Value(node.infer(), node)
        return node

    def change(self, node: Node, layer: Any, *args: Any) -> None:
        """Let a node call another layer, on other values if some are given."""
        same = type(layer) is type(node.layer)
        node.layer = layer
        node.read(args or node.args, node.kwargs if same else {})
        node.output.spec = node.infer()

    def move(self, node: Node, old: Value, new: Value) -> None:
        """Let a node read a value in the place of another."""
        args, kwargs = (
            replaced(nest, lambda v: new if v is old else v)
            for nest in (node.args, node.kwargs)
        )
        node.read(args, kwargs)

    def bypass(self, node: Node) -> None:
        """Take a node out; what reads its output reads its input."""
        if self.is_output(node.output):
            self.change(node, keras.layers.Identity(name=node.layer.name))
            return
        for reader in self.readers(node.output):
            self.move(reader, node.output, node.input)
        self.nodes.remove(node)

    def drop_unread(self) -> None:
        """Take out what nothing reads."""
        for node in reversed(list(self.nodes)):
            given = values_in(node.given)
            if not any(self.readers(v) or self.is_output(v) for v in given):
                self.nodes.remove(node)

    def name(self, wish: str) -> str:
        """Return a name like this one that no layer of the graph has."""
        layers = [node.layer for node in self.nodes]
        taken = {operation.name for operation in (*self.input_layers, *layers)}
        names = (f"{wish}_{i}" if i else wish for i in itertools.count())
        return next(name for name in names if name not in taken)

    # -- runs -------------------------------------------------------------------------

    def run(
        self,
        inputs: Sequence[Any],
        call: Callable[[Node, Callable[[Value], Any]], Any],
    ) -> Any:
        """Return the outputs, with `call(node, take)` at each node.

        Args:
            inputs: What stands for the inputs: arrays, symbolic tensors, anything.
            call: Returns what stands for the outputs of a node; `take` returns what
                stands for a value that it reads.
        """
        held = dict(zip(map(id, self.inputs), inputs, strict=True))

        def take(value: Value) -> Any:
            return held[id(value)]

        for node in self.nodes:
            computed = call(node, take)
            pairs = zip(values_in(node.given), tree.flatten(computed), strict=True)
            held.update({id(value): x for value, x in pairs})
        return replaced(self.outputs, take)

    def infer(
        self, specs: Sequence[Any], one: Callable[[Node], Any] = Node.infer
    ) -> Any:
        """Work out all shapes again for these inputs; return those of the outputs.

        Args:
            specs: Shapes and dtypes of the inputs.
            one: Returns those of what a node gives that is no nested model.
        """
        for value, spec in zip(self.inputs, specs, strict=True):
            value.spec = spec
        for node in self.nodes:
            given = [value.spec for value in node.inputs]
            found = node.inner.infer(given, one) if node.inner else one(node)
            pairs = zip(values_in(node.given), tree.flatten(found), strict=True)
            for value, spec in pairs:
                value.spec = spec
        return replaced(self.outputs, _spec)


def read(model: keras.Model) -> Graph:
    """Return the graph of a Functional or Sequential model of Keras."""
    numbers = itertools.count()
    graphs: dict[int, Graph] = {}

    def scope(model: Any, path: str, specs: Sequence[Any] | None) -> Graph:
        source: Any = keras_private.graph_of(model)
        graph = graphs[id(model)] = Graph(model, path)
        graph.input_layers = [input_layer(source, tensor) for tensor in source.inputs]
        graph.inputs = [
            Value(spec, None, next(numbers)) for spec in specs or source.inputs
        ]

        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            name = f"{path}/{operation.name}" if path else operation.name
            node = Node(operation, args, kwargs, name)
            given = [value.spec for value in node.inputs]
            if opens(operation) and id(operation) in graphs:
                _check_sizes(graphs[id(operation)], given, name)
            elif opens(operation):
                scope(operation, name, given)
            node.inner = graphs.get(id(operation))
            graph.nodes.append(node)
            node.given = tree.map_structure(
                lambda spec: Value(spec, node, next(numbers)), node.infer()
            )
            return node.given

        graph.outputs = keras_private.run_graph(source, graph.inputs, call)
        return graph

    return scope(model, "", None)


def opens(operation: Any) -> bool:
    """Return whether what is called is a model of Keras with layers in a graph."""
    graph = keras_private.graph_of(operation)
    if graph is None or not is_of_keras(type(operation)):
        return False
    return None not in [input_layer(graph, tensor) for tensor in graph.inputs]


def _check_sizes(graph: Graph, specs: Sequence[Any], path: str) -> None:
    """Raise if a nested model is called on inputs of several shapes."""
    before = [value.shape for value in graph.inputs]
    if before != [tuple(spec.shape) for spec in specs]:
        raise ValueError(
            f"The nested model '{path}' is called on inputs of shape {before[0]} and "
            f"of shape {tuple(specs[0].shape)}, and padding depends on the size. "
            "prepare() expects one size for each nested model: call a copy of it "
            "(keras.models.clone_model) for each size."
        )


def packed(model: Any, tensors: Sequence[Any]) -> Any:
    """Return the inputs of a model in the nest in which it takes them."""
    graph: Any = keras_private.graph_of(model)
    return keras.tree.pack_sequence_as(graph.input, list(tensors))


def values_in(structure: Any) -> list[Value]:
    """Return the values in a nest of arguments."""
    return [x for x in tree.flatten(structure) if isinstance(x, Value)]


def replaced(structure: Any, take: Callable[[Value], Any]) -> Any:
    """Return a nest of arguments with something else for each value."""
    return tree.map_structure(
        lambda x: take(x) if isinstance(x, Value) else x, structure
    )


def _spec(value: Value) -> Any:
    return value.spec
