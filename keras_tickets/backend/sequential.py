"""Sequential models from their configs, in a time that grows with their layers.

`keras.Sequential.from_config` adds layer by layer and builds the model anew with each:
500 layers are called 125,000 times. The constructor builds once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

_NAME = "keras_tickets>built_once"


class _BuiltOnce:
    """What a config names in place of `keras.Sequential`."""

    @staticmethod
    def from_config(config: Any, custom_objects: Any = None) -> keras.Sequential:
        """Return the model that `keras.Sequential.from_config` would."""
        revive = keras.saving.deserialize_keras_object
        layers = [revive(layer, custom_objects) for layer in config["layers"]]
        model = keras.Sequential(layers, name=config["name"])
        if not model.built and config.get("build_input_shape"):
            model.build(config["build_input_shape"])
        return model


CLASSES = {_NAME: _BuiltOnce}
"""What `keras.saving.custom_object_scope` has to know of a config of `built_once`."""


def built_once(config: Any) -> Any:
    """Return the config of a model with Sequential ones in it built at once."""
    if isinstance(config, Mapping):
        config = {key: built_once(value) for key, value in config.items()}
        its_own = str(config.get("module")).partition(".")[0] == "keras"
        if its_own and config.get("class_name") == "Sequential":
            config["registered_name"] = _NAME
        return config
    if type(config) in (list, tuple):
        return type(config)(built_once(value) for value in config)
    return config
