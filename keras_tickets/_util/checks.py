"""Checks shared by all public functions that take a model."""

from __future__ import annotations

from typing import Any

import keras


def check_model(model: Any) -> None:
    """Raise unless `model` is a built Keras 3 model.

    Raises:
        TypeError: If it is something else, a model of `tf_keras` among them.
        ValueError: If it is not built.
    """
    if any(cls.__module__.startswith("tf_keras") for cls in type(model).__mro__):
        raise TypeError(
            f"{type(model).__name__} comes from the package `tf_keras` (Keras 2); this "
            "package works with Keras 3. Build the model with `import keras` (and "
            "without TF_USE_LEGACY_KERAS), or save it with model.save('m.h5') and load "
            "that with keras.models.load_model."
        )
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected a keras.Model or a ticket. Received: {model!r} of type "
            f"{type(model).__name__}. For a single layer use kt.Masked(layer)."
        )
    if not model.built:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} is not built, so it has no weights "
            "yet. Give it a keras.Input, call model.build(input_shape), or call it "
            "once on data."
        )
