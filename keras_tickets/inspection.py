"""What an exported file holds, read from the file alone: no Keras, no model."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from keras_tickets._util.damage import reading
from keras_tickets._util.file_tensor import FileTensor
from keras_tickets._util.files import check_source, gzip_size
from keras_tickets._util.model_file import Port, printable
from keras_tickets._util.shown import Shown
from keras_tickets._util.size_bound import size_bound
from keras_tickets._util.tables import facts, table
from keras_tickets.runtime import formats
from keras_tickets.runtime.formats import SUFFIXES

# Below this many bytes a tensor (a bias, a scale, a shape) gets no row of its own.
_SMALL = 1024


@dataclasses.dataclass(frozen=True, repr=False)
class Inspection(Shown):
    """The content of a `.tflite` or `.onnx` file.

    Args:
        path: The file.
        format: `"LiteRT"` or `"ONNX"`.
        bytes: Its size.
        gzip_bytes: Its size compressed, as app stores deliver it.
        dense_bytes: Its size if each tensor were stored with its zeros.
        reference_bytes: What its constants need at least, by the formula of
            `size_bound.py`.
        tensors: Its constants, the largest first.
        ops: Operator -> how often it occurs; `custom:` stands before those that the
            runtime of the format does not carry.
        inputs: What goes in.
        outputs: What comes out.
        beside: The names of other files that hold a part of it; all sizes count them.
        signatures: The names of the file's entries. The first is what `inputs` and
            `outputs` belong to, and what is verified and timed.
    """

    path: str
    format: str
    bytes: int
    gzip_bytes: int
    dense_bytes: int
    reference_bytes: int
    tensors: tuple[FileTensor, ...]
    ops: dict[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    beside: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()

    @property
    def custom_ops(self) -> list[str]:
        """The operators that the format's own runtime does not carry."""
        return [op for op in self.ops if op.startswith("custom:")]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the values, ready for `json.dumps`."""
        return {
            **{
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(self)
            },
            "tensors": [_numbers(tensor) for tensor in self.tensors],
            "inputs": [dataclasses.asdict(port) for port in self.inputs],
            "outputs": [dataclasses.asdict(port) for port in self.outputs],
        }

    def __str__(self) -> str:
        """Return the table."""
        return self.table()

    def table(self, everything: bool = False) -> str:
        """Return the content as text.

        Args:
            everything: Whether tensors of less than 1 kB get a row each.
        """
        shown = [t for t in self.tensors if everything or t.dense_bytes >= _SMALL]
        return f"{_tensor_table(shown, self.tensors)}\n\n{self._facts()}"

    def _facts(self) -> str:
        ratio = self.bytes / self.reference_bytes if self.reference_bytes else 0
        rows = [
            ("file", self.path),
            ("size", f"{self.bytes:,} bytes"),
            ("size, gzip", f"{self.gzip_bytes:,} bytes"),
            ("size if stored dense", f"{self.dense_bytes:,} bytes"),
            (
                "reference size",
                f"{self.reference_bytes:,} bytes; the file is {ratio:.2f} times that",
            ),
            ("inputs", "\n".join(map(str, self.inputs))),
            ("outputs", "\n".join(map(str, self.outputs))),
            ("operators", ", ".join(f"{n} {name}" for name, n in self.ops.items())),
        ]
        if self.beside:
            rows.insert(1, ("and beside it", ", ".join(self.beside)))
        if len(self.signatures) > 1:
            first, *others = self.signatures
            rows.append(("signature", f"{first}; not looked at: {', '.join(others)}"))
        if self.custom_ops:
            rows.append(("not built in", ", ".join(self.custom_ops)))
        return facts(f"{self.format} file", rows)


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Read a `.tflite` or `.onnx` file.

    Args:
        path: The file. It need not be written by this package.

    Returns:
        What it holds.

    Raises:
        ValueError: If the suffix is unknown, or the file is damaged or of another
            kind than its suffix says.
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a folder.
        ImportError: If `keras-tickets[export]` is not installed.

    Example:

    ```python
    kt.export(ticket, "model.tflite")
    print(inspect("model.tflite").table())
    ```
    """
    found = check_source(path, SUFFIXES)
    with reading(f"'{path}' cannot be read as {found.suffix}"):
        file = formats.read(found)
        tensors = [_named(tensor) for tensor in file.tensors()]
        interface = file.interface()
        contents = [file.content, *(path.read_bytes() for path in file.beside)]
        return Inspection(
            path=str(path),
            format=file.format,
            bytes=sum(map(len, contents)),
            gzip_bytes=sum(map(gzip_size, contents)),
            dense_bytes=file.dense_size(),
            reference_bytes=size_bound(tensors),
            tensors=tuple(sorted(tensors, key=_size, reverse=True)),
            ops=dict(sorted(file.ops().items())),
            inputs=interface.inputs,
            outputs=interface.outputs,
            beside=tuple(path.name for path in file.beside),
            signatures=interface.signatures,
        )


def _named(tensor: FileTensor) -> FileTensor:
    return dataclasses.replace(tensor, name=printable(tensor.name))


def _size(tensor: FileTensor) -> int:
    return tensor.dense_bytes


def _sparsity(tensors: list[FileTensor]) -> float:
    size = sum(tensor.values.size for tensor in tensors)
    return sum(tensor.zeros for tensor in tensors) / size if size else 0.0


def _numbers(tensor: FileTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "encoding": tensor.encoding,
        "zeros": tensor.zeros,
        "sparsity": _sparsity([tensor]),
        "stored_bytes": tensor.stored_bytes,
        "dense_bytes": tensor.dense_bytes,
    }


def _tensor_table(shown: list[FileTensor], every: tuple[FileTensor, ...]) -> str:
    named = {id(tensor) for tensor in shown}
    small = [tensor for tensor in every if id(tensor) not in named]
    weights = [tensor for tensor in every if tensor.is_weight]
    sums = [
        (f"{len(small)} of less than {_SMALL:,} bytes", small),
        (f"{len(weights)} weights", weights),
        (f"{len(every)} tensors", list(every)),
    ]
    return table(
        "",
        (
            *("tensor", "shape", "dtype", "encoding"),
            *(">sparsity", ">stored bytes", ">dense bytes"),
        ),
        [(t.name, str(t.shape), t.dtype, t.encoding, *_columns([t])) for t in shown],
        [
            [
                (what, "", "", "", *_columns(tensors))
                for what, tensors in sums
                if tensors is not small or small
            ]
        ],
    )


def _columns(tensors: list[FileTensor]) -> tuple[str, str, str]:
    return (
        f"{100 * _sparsity(tensors):.2f} %",
        f"{sum(tensor.stored_bytes for tensor in tensors):,}",
        f"{sum(tensor.dense_bytes for tensor in tensors):,}",
    )
