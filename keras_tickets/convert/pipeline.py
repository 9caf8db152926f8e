"""`export`: the one way from a model to a file."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from typing import Any

import keras

from keras_tickets import signature as signatures
from keras_tickets.checks import check_model
from keras_tickets.convert import onnx_file, tflite_file
from keras_tickets.convert.child import convert_in_child
from keras_tickets.convert.formats import SUFFIXES
from keras_tickets.convert.litert import to_litert
from keras_tickets.convert.onnx import to_onnx
from keras_tickets.convert.precision import float32_compute
from keras_tickets.convert.report import ExportReport, measure
from keras_tickets.convert.sampling import cut_samples, make_samples
from keras_tickets.convert.stages import stages
from keras_tickets.convert.tensor import Rewriter
from keras_tickets.convert.verify import verify
from keras_tickets.convert.zeros import check_zeros, model_weights
from keras_tickets.extras import require
from keras_tickets.files import check_target, replacing
from keras_tickets.signature import Signature

# How many inputs a file is compared on.
_SAMPLES = 4

_FILES: dict[str, Any] = {".tflite": tflite_file, ".onnx": onnx_file}
_NEEDED = {
    ".tflite": ("ai_edge_litert.interpreter", "ai_edge_litert.schema_py_generated"),
    ".onnx": ("onnx", "onnxruntime"),
}


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    input_signature: Any = None,
    samples: Any = None,
    tolerance: float = 1e-5,
    sparse: bool = True,
    rewrite: Rewriter | None = None,
    overwrite: bool = True,
    verbose: bool = True,
) -> ExportReport:
    """Writes a ticket, or any Keras model, as a `.tflite` or `.onnx` file.

    The model is stripped of its masks and converted; the file is then loaded in its
    own runtime (LiteRT, ONNX Runtime), its outputs are compared with those of Keras
    and its zeros counted again. Only a file that passes is moved into place: after
    any error, `path` is as it was.

    Works on each backend; on JAX and torch the conversion runs in a second process
    on the TensorFlow backend. Mixed-precision models are written in float32.

    Args:
        model: A ticket that was drawn, or a built Keras model.
        path: Where to write. The suffix chooses the format: `.tflite` or `.onnx`.
        input_signature: The inputs of the file, as in `keras.Model.export`: a list
            with one `keras.InputSpec` (or a dict / list of them) per argument of
            the model's `call`. By default what the model was built with; a batch
            size left open becomes 1 in a `.tflite`, as Android expects it, and
            stays open in an `.onnx`.
        samples: Real inputs to compare the file with Keras on, structured as the
            model's input; the first rows are used. By default random ones.
        tolerance: The largest difference to Keras allowed, relative to the largest
            absolute value of the same output.
        sparse: Whether a `.tflite` stores tensors with many zeros without them.
            `.onnx` files are always dense: compression removes their zeros.
        rewrite: Called with each constant tensor of the converted file
            (`name`, `shape`, `dtype`, `values`, `encoding`); returns new values
            of the same shape and dtype, or None to leave it as it is. The
            rewritten file has to pass the same checks.
        overwrite: Whether an existing file is replaced.
        verbose: Whether to show progress and one line about the result.

    Returns:
        An `ExportReport`: sizes, zeros, differences, operators.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model is not built, the ticket was never drawn, a weight
            is not finite, the suffix is unknown or `samples` do not fit.
        OSError: If the folder is missing or cannot be written, or the disk is full.
        RuntimeError: If the model cannot be converted, or the file does not compute
            what the model computes or lost zeros.
        ImportError: If `keras-tickets[export]` is not installed.

    Example:

    ```python
    ticket = kt.wrap(model, kt.GradualMagnitude(sparsity=0.9))
    ticket.compile("adam", "sparse_categorical_crossentropy")
    ticket.fit(x_train, y_train, epochs=3)
    print(kt.export(ticket, "model.tflite", samples=x_test[:4]))
    ```
    """
    check_model(model)
    _check_drawn(model)
    target = check_target(path, SUFFIXES, overwrite)
    for module in _NEEDED[target.suffix]:
        require(module, "export")
    file = _FILES[target.suffix]
    with contextlib.ExitStack() as block:
        begin = block.enter_context(stages(4, verbose))
        begin("removing the masks")
        plain = _strip(model)
        block.enter_context(float32_compute(plain))
        weights = model_weights(plain)
        signature = _signature(plain, input_signature, target)
        inputs = (
            make_samples(plain, signature, _SAMPLES)
            if samples is None
            else cut_samples(samples, signature, _SAMPLES)
        )
        begin("converting")
        content = _convert(plain, target.suffix, signature, sparse)
        if rewrite is not None:
            content = file.rewrite(content, rewrite)
        begin("writing")
        with replacing(target, content) as waiting:
            begin("comparing with Keras")
            written = waiting.read_bytes()
            tensors, ops = file.tensors(written), file.ops(written)
            _check_ops(plain.name, ops)
            comparison = verify(plain, waiting, signature, inputs, tolerance)
            check_zeros(weights, tensors)
            report = measure(
                str(path),
                SUFFIXES[target.suffix],
                written,
                file.dense_bytes(written),
                tensors,
                ops,
                comparison,
                keras_counts=(
                    sum(weight.values.size for weight in weights),
                    sum(weight.values.size - weight.zeros for weight in weights),
                ),
            )
    if verbose:
        print(report.line)
    return report


def _check_drawn(model: keras.Model) -> None:
    """Refuses a ticket that is still the dense model."""
    if not getattr(model, "drawn", True):
        raise ValueError(
            f"The ticket '{model.name}' was never drawn: its masks keep all weights. "
            "Call `ticket.draw()` or `ticket.fit(...)` first; to export the dense "
            "model, pass the model itself."
        )


def _strip(model: keras.Model) -> keras.Model:
    # Imported here, so that reading and benchmarking files needs no ticket.
    from keras_tickets.strip import strip

    return strip(model)


def _signature(model: keras.Model, given: Any, target: pathlib.Path) -> Signature:
    batch = 1 if target.suffix == ".tflite" else None
    return signatures.input_signature(model, given, batch)


def _convert(
    model: keras.Model, suffix: str, signature: Signature, sparse: bool
) -> bytes:
    """Converts to bytes, in this process or in a child."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"model{suffix}")
        if keras.backend.backend() != "tensorflow":
            convert_in_child(model, path, signature, sparse)
        elif suffix == ".tflite":
            to_litert(model, path, signature, sparse)
        else:
            to_onnx(model, path, signature)
        return path.read_bytes()


def _check_ops(name: str, ops: dict[str, int]) -> None:
    custom = [op.removeprefix("custom:") for op in ops if op.startswith("custom:")]
    if custom:
        raise RuntimeError(
            f"The file of '{name}' needs operators that its runtime does not carry: "
            f"{', '.join(custom)}. Replace the layers that use them; no file was "
            "written."
        )
