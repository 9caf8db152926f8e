"""What an export did, measured on the written file."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from keras_tickets._util.file_tensor import FileTensor
from keras_tickets._util.files import gzip_size
from keras_tickets._util.model_file import ModelFile
from keras_tickets._util.shown import Shown
from keras_tickets._util.size_bound import size_bound
from keras_tickets._util.tables import facts
from keras_tickets.convert.comparison import Comparison
from keras_tickets.convert.options import Options
from keras_tickets.convert.precision import PRECISIONS
from keras_tickets.convert.tflite_encoding import KeptDense
from keras_tickets.convert.zeros import Weight
from keras_tickets.masks.masked_call import count
from keras_tickets.tflite.file import TfliteFile
from keras_tickets.xnnpack.analysis import analyze
from keras_tickets.xnnpack.diagnosis import is_slower

# How many tensors that are kept dense the table names.
_SHOWN = 4


@dataclasses.dataclass(frozen=True, repr=False)
class ExportReport(Shown):
    """Sizes, zeros and accuracy of an exported file. Prints as a table.

    *Weights* are the file's float constants of rank 2 or more.

    Args:
        path: Where the file is.
        format: `"LiteRT"` or `"ONNX"`.
        precision: `"float32"`, `"float16"`, `"int8-dynamic"` or `"int8"`.
        bytes: Its size.
        gzip_bytes: Its size compressed, as app stores deliver it.
        dense_bytes: Its size if each tensor were stored with its zeros.
        reference_bytes: What its numbers need: non-zero values at the file's
            precision, `log2 C(N, nonzeros)` bits for their places in each weight,
            and the other constants.
        weights: How many weights the file holds.
        nonzeros: How many of them are not zero.
        keras_weights: Weights of the model by the same rule.
        keras_nonzeros: How many of the model's weights are not zero.
        comparisons: How far the file is from Keras on `"random"` and, if there were
            some, on `"real"` inputs.
        tolerance: The largest relative difference that was allowed.
        peak_bytes: The most memory that loading and running the file took on this
            machine, the runtime's own code apart; 0 where that is not known.
        ops: Operator -> how often it occurs.
        encodings: How weights are stored -> how many tensors.
        barred: Tensor -> why it is stored with its zeros, though it would be smaller
            without.
        expected_speed_up: On ARM64 and in wasm, over the same file with all zeros
            stored: an estimate, see `kt.diagnose`. None where nothing runs sparse.
    """

    path: str
    format: str
    precision: str
    bytes: int
    gzip_bytes: int
    dense_bytes: int
    reference_bytes: int
    weights: int
    nonzeros: int
    keras_weights: int
    keras_nonzeros: int
    comparisons: dict[str, Comparison]
    tolerance: float
    peak_bytes: int
    ops: dict[str, int]
    encodings: dict[str, int]
    barred: dict[str, str]
    expected_speed_up: float | None = None

    @property
    def reference_ratio(self) -> float:
        """The size over the reference size."""
        return self.bytes / self.reference_bytes if self.reference_bytes else 0.0

    @property
    def checked(self) -> list[Comparison]:
        """The comparisons that had to be within the tolerance.

        In int8 those on real inputs: noise may leave the range that was calibrated.
        """
        calibrated = PRECISIONS[self.precision].calibrated
        kinds = ["real"] if calibrated else list(self.comparisons)
        return [self.comparisons[kind] for kind in kinds]

    @property
    def max_abs_difference(self) -> float:
        """Largest difference to Keras in any output, of those that are checked."""
        return max(found.max_abs for found in self.checked)

    @property
    def max_relative_difference(self) -> float:
        """The same, relative to the largest Keras value of that output."""
        return max(found.max_rel for found in self.checked)

    @property
    def argmax_agreement(self) -> float | None:
        """The fraction of rows with the same largest value; of real ones, if any."""
        return list(self.comparisons.values())[-1].argmax

    @property
    def samples(self) -> int:
        """How many inputs were compared."""
        return sum(found.samples for found in self.comparisons.values())

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
        told = (
            f"{self.path}: {self.bytes:,} bytes ({self.dense_bytes:,} dense), "
            f"{self.sparsity:.1%} of {self.weights:,} weights are zero, "
            f"{self.max_relative_difference:.1e} relative difference to Keras"
        )
        return told + (f". {self._speed}" if self.is_slower else "")

    @property
    def is_slower(self) -> bool:
        """Whether the zeros are expected to cost time on phones and in browsers."""
        return is_slower(self.expected_speed_up or 1.0)

    @property
    def _speed(self) -> str:
        speed_up = self.expected_speed_up
        if self.is_slower:
            return (
                f"Slower than dense on ARM64 and in wasm: about {speed_up:.2g} x; "
                "kt.diagnose says why, and sparse=False stores the zeros"
            )
        return "" if speed_up is None else f"about {speed_up:.1f} x dense (an estimate)"

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for `json.dumps`."""
        return {
            **dataclasses.asdict(self),
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "reference_ratio": self.reference_ratio,
            "max_abs_difference": self.max_abs_difference,
            "max_relative_difference": self.max_relative_difference,
            "argmax_agreement": self.argmax_agreement,
            "samples": self.samples,
        }

    def __str__(self) -> str:
        """Return the table."""
        rows = [
            ("file", f"{self.path} ({self.format}, {self.precision})"),
            ("size", f"{self.bytes:,} bytes"),
            ("size, gzip", f"{self.gzip_bytes:,} bytes"),
            ("size if stored dense", f"{self.dense_bytes:,} bytes"),
            (
                "reference size",
                f"{self.reference_bytes:,} bytes; the file is "
                f"{self.reference_ratio:.2f} times that",
            ),
            ("weights in the file", f"{self.weights:,}"),
            ("of these zero", f"{self.zeros:,} ({self.sparsity:.2%})"),
            ("weights in Keras", f"{self.keras_weights:,}"),
            ("of these zero", f"{self.keras_weights - self.keras_nonzeros:,}"),
            *(
                (f"difference, {kind} inputs", _difference(found))
                for kind, found in self.comparisons.items()
            ),
            ("relative difference allowed", f"{self.tolerance:g}"),
            ("tensors", _counted(self.encodings)),
            *(
                (f"stored dense: {name}", reason)
                for name, reason in list(self.barred.items())[:_SHOWN]
            ),
            ("operators", _counted(self.ops)),
        ]
        if self._speed:
            rows.append(("on ARM64 and in wasm", self._speed))
        if self.peak_bytes:
            rows.append(("peak memory of a run", f"{self.peak_bytes:,} bytes"))
        return facts(f"Export of {self.format} file", rows)


def _difference(found: Comparison) -> str:
    agreement = "" if found.argmax is None else f", {found.argmax:.1%} same argmax"
    return (
        f"{found.max_abs:.2g} absolute, {found.max_rel:.2g} relative, mean "
        f"{found.mean_abs:.2g}{agreement} ({found.samples} inputs)"
    )


def _counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in numbers.items())


def measure(
    path: str,
    file: ModelFile,
    tensors: list[FileTensor],
    weights: list[Weight],
    options: Options,
    comparisons: dict[str, Comparison],
    peak_bytes: int,
    kept_dense: list[KeptDense],
) -> ExportReport:
    """Count what a file holds.

    Args:
        path: Where the file is.
        file: The file, as it is written.
        tensors: Its constants.
        weights: The weights of the model that it was made from.
        options: How it was written.
        comparisons: How it compares with the model.
        peak_bytes: The memory of a run.
        kept_dense: What is stored with its zeros, and why.

    Returns:
        The report.
    """
    stored = [tensor for tensor in tensors if tensor.is_weight]
    encodings = collections.Counter(tensor.encoding for tensor in stored)
    counted = count([tensor.values != tensor.zero for tensor in stored])
    return ExportReport(
        path=path,
        format=file.format,
        precision=options.precision.name,
        bytes=len(file.content),
        gzip_bytes=gzip_size(file.content),
        dense_bytes=file.dense_size(),
        reference_bytes=size_bound(tensors),
        weights=counted.total,
        nonzeros=counted.kept,
        keras_weights=sum(weight.values.size for weight in weights),
        keras_nonzeros=sum(weight.values.size - weight.zeros for weight in weights),
        comparisons=comparisons,
        tolerance=options.tolerance,
        peak_bytes=peak_bytes,
        ops=dict(sorted(file.ops().items())),
        encodings=dict(sorted(encodings.items())),
        barred={entry.name: entry.reason for entry in kept_dense},
        expected_speed_up=_expected_speed_up(file),
    )


def _expected_speed_up(file: ModelFile) -> float | None:
    if not isinstance(file, TfliteFile):
        return None
    found = analyze(file, "")
    return found.expected_speed_up if found.kernels else None
