"""A `.tflite` file in memory."""

from __future__ import annotations

import collections
import copy
import re
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from keras_tickets._util.file_tensor import FileTensor
from keras_tickets._util.model_file import Interface, ModelFile
from keras_tickets.tflite import interface, schema, unpacking
from keras_tickets.tflite.graph import Graph
from keras_tickets.tflite.interface import OrderedInterface, by_name, by_order
from keras_tickets.tflite.tensor import constants, read


class TfliteFile(ModelFile):
    """A `.tflite` file: the objects of TFLite's schema.

    Args:
        model: The file as a `ModelT`; whoever changes it changes the file.
        content: The bytes that it was read from.

    Example:

    ```python
    for tensor in TfliteFile.read("model.tflite").tensors():
        print(tensor.name, tensor.shape, tensor.nonzeros, tensor.encoding)
    ```
    """

    suffix = ".tflite"
    format = "LiteRT"
    package = "ai-edge-litert"
    module = "ai_edge_litert"
    needed = ("ai_edge_litert.interpreter", "ai_edge_litert.schema_py_generated")
    batch_size = 1  # As Android expects it.

    def __init__(self, model: Any, content: bytes) -> None:
        self.model, self.content = model, content

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a file."""
        return cls(schema.unpack(content), content)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file, with all changes."""
        return schema.pack(self.model, len(self.content))

    def copy(self) -> Self:
        """Return a copy to try changes on; it shares the stored values."""
        # Nothing writes into the values of a buffer: it gets new ones.
        stored = {id(buffer.data): buffer.data for buffer in self.model.buffers}
        return type(self)(copy.deepcopy(self.model, stored), self.content)

    def graphs(self) -> list[Graph]:
        """Return the subgraphs as nodes and values, as they are now."""
        return [Graph(self.model, own) for own in self.model.subgraphs]

    def interface(self) -> Interface:
        """Return the inputs and the outputs by the names of the first signature."""
        return by_name(self.model)

    def notes(self) -> dict[str, tuple[int | str, ...]]:
        """Tell the sizes that are stored for open axes; 1 is only a place holder."""
        stored = interface.stored_shapes(self.model)
        return {
            name: tuple(size if size > 1 else "" for size in shape)
            for name, shape in stored.items()
        }

    def stores(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Return whether its tensors are stored at these shapes of its inputs."""
        return interface.stored_shapes(self.model) == {**shapes}

    def fix(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Store its inputs for these shapes, and leave no size open."""
        interface.fix(self.model, shapes)

    def resize(self, shapes: Mapping[int, list[int]]) -> None:
        """Store tensors of the graph that is run, by their numbers, in these shapes."""
        for number, tensor in enumerate(self.model.subgraphs[0].tensors):
            if number in shapes:
                tensor.shape = np.array(shapes[number], np.int32)

    def ordered_interface(self) -> OrderedInterface:
        """Return the inputs and the outputs in the order of the graph."""
        return by_order(self.model)

    def tensors(self) -> list[FileTensor]:
        """Return the constants, each stored buffer once, sparse ones decoded."""
        return [read(holders[0], buffer) for holders, buffer in constants(self.model)]

    def ops(self) -> dict[str, int]:
        """Count the operators; TensorFlow's own are `custom:Flex...`."""
        names = [schema.op_name(code) for code in self.model.operatorCodes]
        return dict(
            collections.Counter(
                names[operator.opcodeIndex]
                for own in self.model.subgraphs
                for operator in own.operators or []
            )
        )

    def foreign(self) -> dict[str, str]:
        """Return the operators that are not built into the runtime."""
        return {
            name.removeprefix("custom:"): ""
            for name in self.ops()
            if name.startswith("custom:")
        }

    def name_outputs(self, names: dict[int, str]) -> None:
        """Give the outputs of the signatures the names that they have in the model."""
        for signature in self.model.signatureDefs or []:
            for output in signature.outputs:
                numbered = re.fullmatch(rb"output_(\d+)", output.name)
                if numbered and (name := names.get(int(numbered[1]))):
                    output.name = name.encode()

    def densify(self) -> None:
        """Store each sparse tensor with its zeros; the file computes the same."""
        unpacking.densify(self.model)

    def dense_size(self) -> int:
        """Return the size of the file as read, had each tensor kept its zeros."""
        if all(holders[0].sparsity is None for holders, _ in constants(self.model)):
            return len(self.content)
        dense = self.copy()
        dense.densify()
        return len(dense.to_bytes())
