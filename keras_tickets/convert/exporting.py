"""`export`: the one way from a model to a file."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import tempfile
from typing import Any

import keras

from keras_tickets._util import signature as signatures
from keras_tickets._util.checks import check_model
from keras_tickets._util.extras import require
from keras_tickets._util.file_tensor import Rewriter
from keras_tickets._util.files import (
    check_target,
    replace,
)
from keras_tickets._util.progress import stages
from keras_tickets._util.signature import Signature
from keras_tickets.backend.copying import at_rest
from keras_tickets.convert import names
from keras_tickets.convert.comparison import Comparison
from keras_tickets.convert.converter_process import convert_in_child
from keras_tickets.convert.equivalence import verify
from keras_tickets.convert.float32 import float32_compute
from keras_tickets.convert.options import (
    Options,
    check_options,
)
from keras_tickets.convert.precision import (
    PRECISIONS,
    check_range,
)
from keras_tickets.convert.report import (
    ExportReport,
    measure,
)
from keras_tickets.convert.samples import (
    Sample,
    comparison_samples,
    cut_samples,
    vocabulary_of,
)
from keras_tickets.convert.tflite_encoding import (
    Barred,
    sparsify,
)
from keras_tickets.convert.to_onnx import to_onnx
from keras_tickets.convert.to_tflite import to_litert
from keras_tickets.convert.zeros import (
    check_zeros,
    model_weights,
)
from keras_tickets.onnx.scatter import encode
from keras_tickets.runtime.formats import (
    FILES,
    SUFFIXES,
)

# How many inputs show the range of activations at most.
_CALIBRATION = 500

_NEEDED = {
    ".tflite": ("ai_edge_litert.interpreter", "ai_edge_litert.schema_py_generated"),
    ".onnx": ("onnx", "onnxruntime"),
}


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    precision: str = "float32",
    sparse: bool | str = "auto",
    representative_data: Any = None,
    shrink: bool = False,
    input_signature: Any = None,
    opset: int | None = None,
    samples: Any = None,
    tolerance: float | None = None,
    rewrite: Rewriter | None = None,
    overwrite: bool = False,
    verbose: bool = True,
) -> ExportReport:
    """Writes a ticket, or any Keras model, as a `.tflite` or `.onnx` file.

    The model is stripped of its masks and converted; each tensor is stored without its
    zeros where that is smaller and safe. The file is then loaded in its own runtime
    (LiteRT, ONNX Runtime), in a process of its own, its outputs are compared with those
    of Keras and its zeros counted again. Only a file that passes is moved into place:
    after any error, `path` is as it was.

    Works on each backend; on JAX and torch the conversion runs in a second process
    on the TensorFlow backend. Mixed-precision models are converted from float32.

    Args:
        model: A ticket that was drawn, or a built Keras model.
        path: Where to write. The suffix chooses the format: `.tflite` or `.onnx`.
        precision: `"float32"`; `"float16"` weights, float32 computation; and in a
            `.tflite` `"int8-dynamic"` weights, or `"int8"` weights and activations.
            Inputs and outputs stay float32.
        sparse: `"auto"` stores a tensor without its zeros where that makes the file
            smaller and the runtime computes rightly with it. `True` raises if the
            latter bars a tensor. `False` stores all zeros.
        representative_data: For `precision="int8"`: some hundred real inputs,
            structured as `samples`, that show the range of the activations.
        shrink: Whether channels that compute nothing are removed first, as
            `kt.shrink` does; the file is then smaller and faster in each runtime.
        input_signature: The inputs of the file, as in `keras.Model.export`: a list
            with one `keras.InputSpec` (or a dict / list of them) per argument of
            the model's `call`. By default what the model was built with; a batch
            size left open becomes 1 in a `.tflite`, as Android expects it, and
            stays open in an `.onnx`.
        opset: The operator set of an `.onnx`; by default tf2onnx's own.
        samples: Real inputs to compare the file with Keras on, structured as the
            model's input; the first rows are used, beside random ones of the same
            range. By default random ones, and rows of `representative_data`.
        tolerance: The largest difference to Keras allowed, relative to the largest
            absolute value of the same output. By default 1e-5 in float32, 1e-2 in
            float16, 0.1 and 0.2 in int8 (there, on real inputs only).
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
        ValueError: If an argument does not fit the format or the precision, the model
            is not built, the ticket was never drawn, a weight is not finite in the
            file's precision, or samples do not fit.
        OSError: If the folder is missing or cannot be written, the file exists, or the
            disk is full.
        RuntimeError: If the model cannot be converted, or the file kills its runtime,
            does not compute what the model computes, or lost zeros.
        ImportError: If `keras-tickets[export]` is not installed.

    Example:

    ```python
    ticket = kt.wrap(model, kt.GradualMagnitude(sparsity=0.9))
    ticket.compile("adam", "sparse_categorical_crossentropy")
    ticket.fit(x_train, y_train, epochs=3)
    print(kt.export(ticket, "model.tflite", precision="float16", samples=x_test[:16]))
    ```
    """
    check_model(model)
    _check_drawn(model)
    target = check_target(path, SUFFIXES, overwrite)
    options = check_options(
        target.suffix, precision, sparse, representative_data, opset, tolerance
    )
    for module in _NEEDED[target.suffix]:
        require(module, "export")
    with stages(4, verbose) as begin, contextlib.ExitStack() as block:
        begin("removing the masks")
        block.enter_context(at_rest(model))
        whole = _strip(model)
        plain = _shrink(whole) if shrink else whole
        for part in (model, whole, plain):
            block.enter_context(float32_compute(part))
        weights = model_weights(plain)
        signature = _signature(plain, input_signature, target)
        data = _cut(representative_data, signature, _CALIBRATION, "representative_data")
        inputs = comparison_samples(signature, vocabulary_of(plain), samples, data)
        begin("converting")
        content = _convert(plain, signature, options, data)
        content, barred = _encode(content, options)
        if rewrite is not None:
            content = FILES[target.suffix].rewrite(content, rewrite)
        begin("comparing with Keras")
        _check_ops(plain, FILES[target.suffix].foreign(content))
        tensors = FILES[target.suffix].tensors(content)
        check_range(tensors, functools.partial(names.layer_of, plain))
        # With what the user handed in, before anything was copied or removed from it.
        comparisons, peak = _verify(whole, content, signature, inputs, options, model)
        check_zeros(weights, tensors)
        begin("writing")
        replace(target, content)
    report = measure(
        str(path), content, tensors, weights, options, comparisons, peak, barred
    )
    if verbose:
        print(report.line)
    return report


def draft(model: keras.Model, precision: str = "float32") -> bytes:
    """Converts a plain model to a `.tflite` that is looked at, and never run.

    As `export` does, but nothing is compared, and what would be calibrated is so on
    random inputs.

    Args:
        model: A plain Keras model.
        precision: The name of the precision.

    Returns:
        The bytes of the file.
    """
    with float32_compute(model):
        signature = signatures.input_signature(model, None, 1)
        inputs = comparison_samples(signature, vocabulary_of(model))["random"]
        calibrated = PRECISIONS[precision].calibrated
        data = inputs if calibrated else None
        options = check_options(".tflite", precision, "auto", data, None, None)
        content = _convert(model, signature, options, inputs if calibrated else [])
    return _encode(content, options)[0]


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
    from keras_tickets.masks.stripping import strip

    return strip(model)


def _shrink(model: keras.Model) -> keras.Model:
    from keras_tickets.channels.shrinking import shrink

    return shrink(model, verbose=False)


def _signature(model: keras.Model, given: Any, target: pathlib.Path) -> Signature:
    batch = 1 if target.suffix == ".tflite" else None
    return signatures.input_signature(model, given, batch)


def _cut(data: Any, signature: Signature, count: int, what: str) -> list[Sample]:
    return [] if data is None else cut_samples(data, signature, count, what)


def _convert(
    model: keras.Model, signature: Signature, options: Options, data: list[Sample]
) -> bytes:
    """Converts to bytes, in this process or in a child; zeros are stored."""
    precision, opset = options.precision.name, options.opset
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"model{options.suffix}")
        # TensorFlow's calibration is known to crash (on recurrent layers): not here.
        if keras.backend.backend() != "tensorflow" or options.precision.calibrated:
            convert_in_child(model, path, signature, precision, opset, data)
        elif options.suffix == ".tflite":
            to_litert(model, path, signature, precision, data)
        else:
            to_onnx(model, path, signature, opset)
        content = path.read_bytes()
    return bytes(FILES[options.suffix].name_outputs(content, names.of_outputs(model)))


def _encode(content: bytes, options: Options) -> tuple[bytes, list[Barred]]:
    """Leaves the zeros out where that is smaller and safe."""
    if options.suffix == ".onnx":
        half = options.precision.name == "float16"
        return encode(content, half=half, sparse=bool(options.sparse)), []
    if not options.sparse:
        return content, []
    content, barred = sparsify(content, options.precision.name)
    if options.sparse is True and barred:
        first = barred[0]
        raise ValueError(
            f"sparse=True, but {len(barred)} tensor(s) have to be stored with their "
            f"zeros, such as '{first.name}': {first.reason}. Use sparse='auto' to "
            "store only the others without zeros, or another precision. No file was "
            "written."
        )
    return content, barred


def _verify(
    model: keras.Model,
    content: bytes,
    signature: Signature,
    inputs: dict[str, list[Sample]],
    options: Options,
    reference: keras.Model,
) -> tuple[dict[str, Comparison], int]:
    """Runs the file away from its target: who is killed here leaves nothing there."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"model{options.suffix}")
        path.write_bytes(content)
        try:
            return verify(
                model,
                path,
                signature,
                inputs,
                options.precision,
                options.tolerance,
                reference=reference,
            )
        except RuntimeError as error:
            raise RuntimeError(f"{error} No file was written.") from error


def _check_ops(model: keras.Model, foreign: dict[str, str]) -> None:
    if foreign:
        found = [
            f"{op} (in layer '{names.layer_of(model, scope)}')" if scope else op
            for op, scope in foreign.items()
        ]
        raise RuntimeError(
            f"The file of '{model.name}' needs operators that its runtime does not "
            f"carry: {', '.join(found)}. Replace the layers that use them; no file was "
            "written."
        )
