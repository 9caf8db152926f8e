"""What an export did, measured on the written file."""

from __future__ import annotations

import dataclasses
import gzip
from typing import Any

from keras_tickets.convert.tensor import FileTensor
from keras_tickets.convert.verify import Comparison
from keras_tickets.masking import count
from keras_tickets.tables import facts


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """Sizes, zeros and accuracy of an exported file. Prints as a table.

    *Weights* are the file's float constants of rank 2 or more.

    Args:
        path: Where the file is.
        format: `"LiteRT"` or `"ONNX"`.
        bytes: Its size.
        gzip_bytes: Its size compressed, as app stores deliver it.
        dense_bytes: Its size if each tensor were stored with its zeros.
        weights: How many weights the file holds.
        nonzeros: How many of them are not zero.
        keras_weights: Weights of the model by the same rule.
        keras_nonzeros: How many of the model's weights are not zero.
        max_abs_difference: Largest difference to Keras in any output.
        max_relative_difference: The same, relative to the largest Keras value of
            that output.
        samples: How many inputs were compared.
        ops: Operator -> how often it occurs.
    """

    path: str
    format: str
    bytes: int
    gzip_bytes: int
    dense_bytes: int
    weights: int
    nonzeros: int
    keras_weights: int
    keras_nonzeros: int
    max_abs_difference: float
    max_relative_difference: float
    samples: int
    ops: dict[str, int]

    @property
    def zeros(self) -> int:
        """How many weights in the file are zero."""
        return self.weights - self.nonzeros

    @property
    def sparsity(self) -> float:
        """The fraction of the weights in the file that is zero."""
        return self.zeros / self.weights if self.weights else 0.0

    @property
    def line(self) -> str:
        """The result in one line."""
        return (
            f"{self.path}: {self.bytes:,} bytes ({self.dense_bytes:,} dense), "
            f"{self.sparsity:.1%} of {self.weights:,} weights are zero, "
            f"{self.max_relative_difference:.1e} relative difference to Keras"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers, ready for `json.dumps`."""
        return {
            **dataclasses.asdict(self),
            "zeros": self.zeros,
            "sparsity": self.sparsity,
        }

    def __str__(self) -> str:
        """Returns the table."""
        rows = [
            ("file", f"{self.path} ({self.format})"),
            ("size", f"{self.bytes:,} bytes"),
            ("size, gzip", f"{self.gzip_bytes:,} bytes"),
            ("size if stored dense", f"{self.dense_bytes:,} bytes"),
            ("weights in the file", f"{self.weights:,}"),
            ("of these zero", f"{self.zeros:,} ({self.sparsity:.2%})"),
            ("weights in Keras", f"{self.keras_weights:,}"),
            ("of these zero", f"{self.keras_weights - self.keras_nonzeros:,}"),
            (
                "difference to Keras",
                f"{self.max_abs_difference:.2g} absolute, "
                f"{self.max_relative_difference:.2g} relative "
                f"({self.samples} inputs)",
            ),
            ("operators", ", ".join(f"{n} {name}" for name, n in self.ops.items())),
        ]
        return facts(f"Export of {self.format} file", rows)


def measure(
    path: str,
    name: str,
    content: bytes,
    dense_bytes: int,
    tensors: list[FileTensor],
    ops: dict[str, int],
    comparison: Comparison,
    keras_counts: tuple[int, int],
) -> ExportReport:
    """Counts what a file holds.

    Args:
        path: Where the file will be.
        name: The format's name.
        content: The bytes of the file.
        dense_bytes: The size that it would have without sparse tensors.
        tensors: Its constants.
        ops: Its operators.
        comparison: How it compares with the model.
        keras_counts: The model's weights and how many of them are not zero.

    Returns:
        The report.
    """
    weights = count([tensor.values for tensor in tensors if tensor.is_weight])
    return ExportReport(
        path=path,
        format=name,
        bytes=len(content),
        gzip_bytes=len(gzip.compress(content, mtime=0)),
        dense_bytes=dense_bytes,
        weights=weights.total,
        nonzeros=weights.kept,
        keras_weights=keras_counts[0],
        keras_nonzeros=keras_counts[1],
        max_abs_difference=comparison.max_abs,
        max_relative_difference=comparison.max_rel,
        samples=comparison.samples,
        ops=dict(sorted(ops.items())),
    )
