"""The few corners of Keras that have no public door, all in one place.

Everything here was read in Keras 3.13 to 3.15; `tests/test_keras_corners.py` names
the version that runs and fails when one of these corners moves.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import keras
from keras import ops
from keras.src import backend

_OPTIMIZERS_OF_A_BACKEND = re.compile(r"keras\.src\.backend\.\w+\.optimizers\b")


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """Return `layer` and every layer below it, each once, parents first."""
    return layer._flatten_layers()


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Return the variables that `layer` itself created, not those of its sublayers."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def own_seeds(layer: keras.Layer) -> list[keras.Variable]:
    """Return the states of the seed generators that `layer` itself holds."""
    return [generator.state for generator in layer._seed_generators]


def set_own_trainable(layer: keras.Layer, trainable: bool) -> None:
    """Let a layer train or not, and leave its variables and sublayers as they are."""
    layer._trainable = trainable


def show_to_object_checkpoints(layer: keras.Layer) -> None:
    """Let TensorFlow's object checkpoints find the variables that `layer` created.

    They go by attributes, of which a tuple of variables may be one; Keras' files go by
    the lists that `add_weight` fills.
    """
    layer._created_variables = tuple(own_variables(layer))


def take_arguments_like(host: keras.Layer, inner: keras.Layer) -> None:
    """Let Keras build and call `host`, a wrapper, with the arguments of `inner`.

    Keras reads the signature of `call` to tell tensors from other arguments, and that
    of `build` to tell which of their shapes it wants: of an attention the shapes of
    query, value and key.
    """
    host._call_signature = inner._call_signature
    host.call_signature_parameters = inner.call_signature_parameters
    host.build.__signature__ = inspect.signature(inner.build)
    take_training_argument_like(host, inner)


def take_training_argument_like(host: keras.Layer, inner: keras.Layer) -> None:
    """Let Keras pass `training` to `host` exactly when it would to `inner`.

    A model whose `call` has no `training` argument is run by Keras without one; a
    wrapper around it that does take it would switch its dropout on.
    """
    takes_training = inner._call_has_training_arg
    host._call_has_training_arg = takes_training
    host._call_has_context_arg["training"] = takes_training


def up_to_date(model: keras.Model) -> None:
    """Let the variables of `model` hold their values, also in the middle of `fit`.

    On JAX the training state is elsewhere between two steps; what Keras hands to a
    callback as `self.model` is brought up to date in this way. Within a step, what
    Keras would bring is the state of the step before.
    """
    if keras.backend.backend() == "jax" and not _in_stateless_scope():
        model.jax_state_sync()


def _in_stateless_scope() -> bool:
    scopes = importlib.import_module("keras.src.backend.common.stateless_scope")
    return bool(scopes.in_stateless_scope())


def for_any_backend(config: Any) -> Any:
    """Return a config whose optimizers are those of the backend that runs.

    On torch, Keras writes the name of torch's own class: without torch nothing that
    was compiled there would load.
    """
    if isinstance(config, Mapping):
        config = {name: for_any_backend(value) for name, value in config.items()}
        module = config.get("module")
        if isinstance(module, str) and _OPTIMIZERS_OF_A_BACKEND.match(module):
            config["module"] = "keras.optimizers"
        return config
    if type(config) in (list, tuple):
        return type(config)(for_any_backend(value) for value in config)
    return config


@contextlib.contextmanager
def plain_argmax() -> Iterator[None]:
    """Let argmax and argmin of a graph that is traced be TensorFlow's own.

    Keras tells -0 from 0 by its bits, for which a `.tflite` has no operator. To
    TensorFlow both are equal, and the first one counts. What runs eagerly meanwhile is
    left as it is.
    """
    numpy = importlib.import_module("keras.src.backend.tensorflow.numpy")
    names = ("argmax", "argmin")
    before = {name: getattr(numpy, name) for name in names}
    try:
        for name in names:
            setattr(numpy, name, partial(_plain_argmax, name, before[name]))
        yield
    finally:
        for name in names:
            setattr(numpy, name, before[name])


def _plain_argmax(
    name: str, own: Callable[..., Any], x: Any, axis: Any = None, keepdims: bool = False
) -> Any:
    tf = importlib.import_module("tensorflow")
    if not tf.is_symbolic_tensor(x):
        return own(x, axis=axis, keepdims=keepdims)
    flat = tf.reshape(x, [-1]) if axis is None else x
    found = getattr(tf, name)(flat, axis=axis or 0, output_type="int32")
    if not keepdims:
        return found
    if axis is None:
        return tf.reshape(found, [1] * len(x.shape))
    return tf.expand_dims(found, axis)


def stored_shape(store: Any, key: str) -> tuple[int, ...] | None:
    """Return the shape of what Keras has saved under `key`, before it is read.

    A file may claim any shape, and reading takes as much memory.

    Args:
        store: What `load_own_variables` is given.
        key: The name of a variable in it.

    Returns:
        The shape; `None` if it is no array of this file.
    """
    group = getattr(store, "_h5_entry_group", None)
    if group is None or key not in group:  # in a dict, or in another shard
        return tuple(store[key].shape)
    linked = hasattr(group, "get") and group.get(key, getlink=True)
    if type(linked).__name__ != "HardLink":
        return None
    shape = getattr(group[key], "shape", None)
    return None if shape is None else tuple(shape)


def file_being_saved(model: keras.Model) -> str | None:
    """Return the `.h5` file that Keras is saving `model` to, if it is doing so.

    `keras.saving.save_model` asks a model for nothing before it has opened the file.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "save_model_to_hdf5":
            values = frame.f_locals
            return str(values["filepath"]) if values.get("model") is model else None
        frame = frame.f_back
    return None


def collected_losses(scope: keras.StatelessScope) -> Sequence:
    """Return the losses that `add_loss` collected inside a stateless scope."""
    return tuple(scope.losses)


def graph_of(operation: Any) -> keras.Function | None:
    """Return the graph of a Functional or Sequential model, or `None`."""
    if isinstance(operation, keras.Sequential):
        return operation._functional
    return operation if isinstance(operation, keras.Function) else None


def operation_of(tensor: keras.KerasTensor) -> Any:
    """Return the operation that gave a symbolic tensor."""
    return tensor._keras_history.operation


@contextlib.contextmanager
def unique_names(layer: keras.Layer) -> Iterator[None]:
    """Give the sublayers of `layer` names that differ, which a graph insists on."""
    below = sublayers(layer)[1:]
    names = [sublayer.name for sublayer in below]
    for number, sublayer in enumerate(below):
        vars(sublayer)["name"] = f"{sublayer.name}_{number}"
    try:
        yield
    finally:
        for sublayer, name in zip(below, names, strict=True):
            vars(sublayer)["name"] = name


@contextlib.contextmanager
def in_place_of(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Let `holder` have another attribute within the block.

    A method, or a function that a layer calls. Layers track what is set on them, and
    torch keeps some attributes elsewhere, so this one is laid over the others.
    """
    own = vars(holder)
    missing = object()
    before = own.get(name, missing)
    own[name] = value
    try:
        yield
    finally:
        del own[name]
        if before is not missing:
            own[name] = before


_MOMENTS = threading.RLock()


@contextlib.contextmanager
def twice_differentiable() -> Iterator[None]:
    """Let mean and variance have second derivatives within the block.

    TensorFlow's leave out a term of the gradient that is zero, but whose derivative is
    not (`stop_gradient` of the mean); all layers that normalize compute with them.
    """
    # Of two threads that overlap, each would put back what it found.
    with _MOMENTS, in_place_of(backend.nn, "moments", _moments):
        yield


def _moments(
    x: Any, axes: Any, keepdims: bool = False, synchronized: bool = False
) -> tuple[Any, Any]:
    """Return mean and variance over `axes`, as Keras' own in one process."""
    axes = tuple(axes)
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    mean = ops.mean(wide, axes, keepdims=True)
    variance = ops.mean(ops.square(wide - mean), axes, keepdims=keepdims)
    mean = mean if keepdims else ops.squeeze(mean, axes)
    return ops.cast(mean, x.dtype), ops.cast(variance, x.dtype)


def run_graph(
    graph: keras.Function, inputs: Sequence[Any], call: Callable[..., Any]
) -> Any:
    """Return the outputs of `graph` with `call(operation, *args)` at each node.

    The values may be any objects, not only tensors.
    """
    return graph._run_through_graph(
        inputs, operation_fn=lambda operation: partial(call, operation)
    )


def compiled_loss(model: keras.Model) -> Callable[..., Any] | None:
    """Return the loss that `compile` was given, as a function of targets and outputs.

    Without the regularization losses that `compute_loss` adds.
    """
    return model._compile_loss


def losses_by_output(loss: Any, outputs: Any) -> list[Any]:
    """Return the loss of each output, in the order of `keras.tree.flatten`.

    Args:
        loss: A loss that was called with these outputs once: that of `compile`, or one
            for all of them.
        outputs: What the model put out.

    Returns:
        Losses or functions; `None` for an output that has none.
    """
    number = len(keras.tree.flatten(outputs))
    by_path = getattr(loss, "_flat_losses", None)
    if by_path is None:
        return [loss] * number
    places = keras.tree.pack_sequence_as(
        loss._y_pred_build_structure, list(range(number))
    )
    found: list[Any] = [None] * number
    for path, own, *_ in by_path:
        place = places
        for step in path:
            place = place[step]
        for index in keras.tree.flatten(place):
            found[index] = own
    return found


def exclude_from_weight_decay(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> None:
    """Exclude `variables` from weight decay, beside what is excluded already.

    Keras' public method of this name forgets what was excluded before, and refuses
    once the optimizer is built.
    """
    excluded = set(getattr(optimizer, "_exclude_from_weight_decay", ()))
    added = {optimizer._var_key(variable) for variable in variables}
    optimizer._exclude_from_weight_decay = excluded | added
    optimizer._exclude_from_weight_decay_cache = {}
