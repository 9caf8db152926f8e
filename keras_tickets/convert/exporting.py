"""`export`: the one way from a model to a file.

Check, convert, open, predict (XNNPACK), encode, compare, write, report: each once.
"""

from __future__ import annotations

import functools
import os
import pathlib
import tempfile
from typing import Any

import keras

from keras_tickets._util import signature as signatures
from keras_tickets._util.checks import check_model
from keras_tickets._util.errors import ConversionError, VerificationError
from keras_tickets._util.extras import require
from keras_tickets._util.files import check_target, replace
from keras_tickets._util.model_file import ModelFile
from keras_tickets._util.progress import stages
from keras_tickets._util.signature import Signature
from keras_tickets.backend.copying import at_rest, recurrent_states
from keras_tickets.backend.keras_private import sublayers
from keras_tickets.backend.random_inputs import Sample, vocabulary_of
from keras_tickets.backend.rebuilding import is_of_keras
from keras_tickets.channels.shrinking import shrunk
from keras_tickets.convert import converters, names
from keras_tickets.convert.comparison import Comparison
from keras_tickets.convert.converter_process import convert_in_child
from keras_tickets.convert.equivalence import outputs_of, verify
from keras_tickets.convert.float32 import in_float32
from keras_tickets.convert.options import Options, check_options
from keras_tickets.convert.precision import PRECISIONS, check_range
from keras_tickets.convert.report import ExportReport, measure
from keras_tickets.convert.samples import comparison_samples, cut_samples
from keras_tickets.convert.tflite_encoding import KeptDense, sparsify
from keras_tickets.convert.zeros import check_zeros, model_weights
from keras_tickets.masks.stripping import never_drawn, unmasked, why_dense, wrapped
from keras_tickets.onnx import scatter
from keras_tickets.onnx.file import OnnxFile
from keras_tickets.runtime.formats import FORMATS, SUFFIXES
from keras_tickets.tflite.file import TfliteFile

# How many inputs show the range of activations at most.
_CALIBRATION = 500


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
    overwrite: bool = False,
    verbose: bool = True,
) -> ExportReport:
    """Write a ticket, or any Keras model, as a `.tflite` or `.onnx` file.

    The arguments are checked, the model is stripped of its masks and converted, and the
    converted file is opened. XNNPACK's choice of kernels is predicted, and each tensor
    encoded without its zeros where that is smaller and safe. The file is then loaded in
    its own runtime (LiteRT, ONNX Runtime), in a process of its own, its outputs are
    compared with those of Keras and its zeros counted again. Only a file that passes is
    written, and reported: after any error, `path` is as it was.

    Works on each backend; on JAX and torch the conversion runs in a second process
    on the TensorFlow backend, which is started once and kept for the next export.
    Of a mixed-precision model, a copy that computes in float32 is converted. Neither
    the model nor the process is changed; on TensorFlow, exports of several threads wait
    for each other, the functions of other threads run eagerly while an `.onnx` is
    converted, and stderr shows what TensorFlow's C++ writes unless the environment sets
    `TF_CPP_MIN_LOG_LEVEL=3` before it is imported.

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
        overwrite: Whether an existing file is replaced.
        verbose: Whether to show progress and one line about the result.

    Returns:
        An `ExportReport`: sizes, zeros, differences, operators.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If an argument does not fit the format or the precision, the model
            is not built, the ticket was never drawn, a weight is not finite in the
            file's precision, samples do not fit, or an `.onnx` would have to keep the
            states of a layer.
        OSError: If the folder is missing or cannot be written, the file exists, or the
            disk is full.
        ConversionError: If the model cannot be converted; a `RuntimeError`.
        VerificationError: If the file kills its runtime, does not compute what the
            model computes, or lost zeros; a `RuntimeError`.
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
    _check_stateless(model, target.suffix)
    for module in FORMATS[target.suffix].needed:
        require(module, "export")
    # A model that is plain already is converted itself: its recurrences begin anew.
    with stages(4, verbose) as begin, at_rest(model):
        begin("removing the masks")
        own = wrapped(model)
        signature = _signature(own, input_signature, target)
        data = _cut(representative_data, signature, _CALIBRATION, "representative_data")
        inputs = comparison_samples(signature, vocabulary_of(own), samples, data)
        # Of what the user handed in, before anything is made of it.
        outputs = outputs_of(model, inputs)
        stripped = unmasked(model)
        whole = in_float32(stripped)
        if whole is not stripped:  # it computes in half precision, its file does not
            outputs = outputs_of(whole, inputs)
        plain = shrunk(whole)[0] if shrink else whole
        weights = model_weights(plain)
        begin("converting")
        file = _convert(plain, signature, options, data)
        file, kept_dense = _encode(file, options)
        content = file.to_bytes()
        begin("comparing with Keras")
        # Read again: what is checked and reported is what lies in the file.
        written = type(file).parse(content)
        _check_ops(plain, written.foreign())
        tensors = written.tensors()
        try:
            comparisons, peak = _verify(
                outputs, whole, content, signature, inputs, options
            )
        except RuntimeError:
            # Where it is right, what was cut off (such as the -1e9 of a mask) is none
            # of the weights that count.
            check_range(tensors, functools.partial(names.layer_of, plain))
            raise
        check_zeros(weights, tensors)
        begin("writing")
        replace(target, content)
    report = measure(
        str(path), written, tensors, weights, options, comparisons, peak, kept_dense
    )
    if verbose:
        print(report.line)
    return report


def draft(model: keras.Model, precision: str = "float32") -> TfliteFile:
    """Convert a plain model to a `.tflite` that is looked at, and never run.

    As `export` does, but nothing is compared, and what would be calibrated is so on
    random inputs.

    Args:
        model: A plain Keras model.
        precision: The name of the precision.

    Returns:
        The file.
    """
    plain = in_float32(model)
    signature = signatures.input_signature(plain, None, TfliteFile.batch_size)
    inputs = comparison_samples(signature, vocabulary_of(plain))["random"]
    calibrated = PRECISIONS[precision].calibrated
    data = inputs if calibrated else None
    options = check_options(TfliteFile.suffix, precision, "auto", data, None, None)
    content = converted(plain, signature, options, inputs if calibrated else [])
    return sparsify(TfliteFile.parse(content), precision)[0]


def _check_drawn(model: keras.Model) -> None:
    """Refuse a ticket, or a model with masks in it, that is still the dense model."""
    if undrawn := never_drawn(model):
        raise ValueError(
            f"{why_dense(undrawn)} To export the dense model, pass the model itself, "
            "or what kt.strip returns."
        )


def _check_stateless(model: keras.Model, suffix: str) -> None:
    """Refuse layers that go on where the last batch ended, where a file cannot."""
    names = [f"'{one.name}'" for one in sublayers(model) if recurrent_states(one)]
    if names and suffix == OnnxFile.suffix:
        raise ValueError(
            f"Layers of '{model.name}' go on with the states that the last batch left "
            f"({', '.join(names)}: stateful=True), and an '.onnx' file keeps nothing "
            "from one call to the next. Export a '.tflite', which does, or build the "
            "model with stateful=False and the same weights. No file was written."
        )


def _signature(model: keras.Model, given: Any, target: pathlib.Path) -> Signature:
    batch = FORMATS[target.suffix].batch_size
    return signatures.input_signature(model, given, batch)


def _cut(data: Any, signature: Signature, count: int, what: str) -> list[Sample]:
    return [] if data is None else cut_samples(data, signature, count, what)


def _convert(
    model: keras.Model, signature: Signature, options: Options, data: list[Sample]
) -> ModelFile:
    """Convert a model and open the file; zeros are stored."""
    content = converted(model, signature, options, data)
    file = FORMATS[options.suffix].parse(content)
    file.name_outputs(names.of_outputs(model))
    return file


def converted(
    model: keras.Model, signature: Signature, options: Options, data: list[Sample]
) -> bytes:
    """Return what the converter writes, in this process or in a child."""
    precision, opset = options.precision.name, options.opset
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"model{options.suffix}")
        # TensorFlow's calibration is known to crash (on recurrent layers): not here.
        if keras.backend.backend() != "tensorflow" or options.precision.calibrated:
            convert_in_child(model, path, signature, precision, opset, data)
        else:
            converters.write(model, path, signature, precision, opset, data)
        return path.read_bytes()


def _encode(file: ModelFile, options: Options) -> tuple[ModelFile, list[KeptDense]]:
    """Leave the zeros out where that is smaller and safe."""
    if isinstance(file, OnnxFile):
        half = options.precision.name == "float16"
        scatter.encode(file.model, half=half, sparse=bool(options.sparse))
        return file, []
    if isinstance(file, TfliteFile) and options.sparse:
        return _sparsify(file, options)
    return file, []


def _sparsify(file: TfliteFile, options: Options) -> tuple[TfliteFile, list[KeptDense]]:
    file, kept_dense = sparsify(file, options.precision.name)
    if options.sparse is True and kept_dense:
        first = kept_dense[0]
        raise ValueError(
            f"sparse=True, but {len(kept_dense)} tensor(s) have to be stored with "
            f"their zeros, such as '{first.name}': {first.reason}. Use sparse='auto' "
            "to store only the others without zeros, or another precision. No file was "
            "written."
        )
    return file, kept_dense


def _verify(
    outputs: list[Any],
    model: keras.Model,
    content: bytes,
    signature: Signature,
    inputs: dict[str, list[Sample]],
    options: Options,
) -> tuple[dict[str, Comparison], int]:
    """Run the file away from its target: who is killed here leaves nothing there."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f"model{options.suffix}")
        path.write_bytes(content)
        try:
            return verify(
                outputs,
                model,
                path,
                signature,
                inputs,
                options.precision,
                options.tolerance,
            )
        except RuntimeError as error:
            hint = _lost_on_the_way(model)
            raise VerificationError(f"{error}{hint} No file was written.") from error


def _lost_on_the_way(model: keras.Model) -> str:
    """Say what the other process may lack; empty where the model is converted here."""
    own = {type(one).__name__ for one in sublayers(model) if not is_of_keras(type(one))}
    if keras.backend.backend() == "tensorflow" or not own:
        return ""
    return (
        " The model went into the converting process by model.save(), which keeps what "
        f"get_config() and save_own_variables() of {', '.join(sorted(own))} give, and "
        "no attribute that was set later."
    )


def _check_ops(model: keras.Model, foreign: dict[str, str]) -> None:
    if foreign:
        found = [
            f"{op} (in layer '{names.layer_of(model, scope)}')" if scope else op
            for op, scope in foreign.items()
        ]
        raise ConversionError(
            f"The file of '{model.name}' needs operators that its runtime does not "
            f"carry: {', '.join(found)}. Replace the layers that use them; no file was "
            "written."
        )
