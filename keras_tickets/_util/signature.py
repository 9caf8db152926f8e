"""What goes into a model: names, shapes and dtypes of its inputs.

A signature is a list with one entry per positional argument of the model's `call`;
an entry is a `keras.InputSpec` or a dict / list of them.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

Signature = list[Any]


def input_signature(model: keras.Model, given: Any, batch: int | None) -> Signature:
    """Find the signature of a model.

    Args:
        model: A built model.
        given: What the user asked for: as in `keras.Model.export`, or None.
        batch: The batch size for dimensions that the model leaves open.

    Returns:
        The signature.

    Raises:
        ValueError: If the model does not tell what it was built with.
    """
    if given is not None:
        given = list(given) if isinstance(given, (list, tuple)) else [given]
        return [tree.map_structure(_spec, argument) for argument in given]
    if isinstance(model, keras.Sequential):
        arguments = list(model.inputs)
    elif getattr(model, "inputs", None):
        arguments = [model.input]
    else:
        arguments = [_built_with(model)]
    return [
        tree.map_structure(lambda x: _with_batch(_spec(x), batch), argument)
        for argument in arguments
    ]


def names(signature: Signature) -> list[str | None]:
    """Return the inputs' own names, in the order of `keras.tree.flatten`."""
    return [spec.name for spec in tree.flatten(signature)]


def to_json(structure: Any) -> Any:
    """Turn a signature into what `json` can write."""
    if isinstance(structure, keras.InputSpec):
        return {
            "InputSpec": {
                "shape": list(structure.shape),
                "dtype": structure.dtype,
                "name": structure.name,
            }
        }
    if isinstance(structure, dict):
        return {"dict": {key: to_json(value) for key, value in structure.items()}}
    return {"list": [to_json(value) for value in structure]}


def from_json(structure: Any) -> Any:
    """Turn what `to_json` wrote back into a signature."""
    ((kind, content),) = structure.items()
    if kind == "InputSpec":
        return keras.InputSpec(**{**content, "shape": tuple(content["shape"])})
    if kind == "dict":
        return {key: from_json(value) for key, value in content.items()}
    return [from_json(value) for value in content]


def _spec(tensor: Any) -> keras.InputSpec:
    """Return a tensor, `KerasTensor` or any framework's spec as a `keras.InputSpec`."""
    return keras.InputSpec(
        shape=tuple(tensor.shape),
        dtype=keras.backend.standardize_dtype(tensor.dtype),
        name=getattr(tensor, "name", None),
    )


def _with_batch(spec: keras.InputSpec, batch: int | None) -> keras.InputSpec:
    shape = tuple(spec.shape)
    if shape and shape[0] is None:
        shape = (batch, *shape[1:])
    return keras.InputSpec(shape=shape, dtype=spec.dtype, name=spec.name)


def _built_with(model: keras.Model) -> Any:
    """Return what a subclassed model was first called with; its batch size is open."""
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise ValueError(
            f"The inputs of '{model.name}' are not known. Call the model on data once, "
            "or pass `input_signature=[keras.InputSpec(shape=..., dtype=...)]`, with "
            "one entry per argument of its `call`."
        )

    def convert(shape: Any, name: str | None) -> Any:
        if isinstance(shape, dict):
            return {key: convert(value, key) for key, value in shape.items()}
        if all(size is None or isinstance(size, int) for size in shape):
            # Keras records shapes only; call arguments arrive in its float type.
            return keras.InputSpec(
                shape=(None, *shape[1:]), dtype=keras.config.floatx(), name=name
            )
        return [convert(value, None) for value in shape]

    return convert(shapes, None)
