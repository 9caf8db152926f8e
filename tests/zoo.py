"""Small models of every kind that a ticket must stand in for, with data for each."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers, ops

BATCH, SAMPLES, CLASSES = 16, 64, 4


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SAMPLES, 8, 8, 3)).astype("float32")


def tokens() -> np.ndarray:
    ids = np.random.default_rng(1).integers(1, 20, size=(SAMPLES, 6))
    ids[:, 4:] = 0
    return ids.astype("int32")


def labels() -> np.ndarray:
    return np.random.default_rng(2).integers(0, CLASSES, SAMPLES).astype("int32")


class Noted(layers.Layer):
    """Adds a loss of its own in `call`."""

    def call(self, inputs):
        self.add_loss(0.01 * ops.mean(ops.square(inputs)))
        return inputs


class Blocks(keras.Model):
    """Subclassed: layers in a list, two of them with the same name."""

    def __init__(self, units: int = 12, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.blocks = [layers.Dense(units, name="same") for _ in range(2)]
        self.drop = layers.Dropout(0.1, seed=5)
        self.flat = layers.Flatten()
        self.head = layers.Dense(CLASSES, name="head")

    def build(self, input_shape):
        width = int(np.prod(input_shape[1:]))
        for block in self.blocks:
            block.build((None, width))
            width = self.units
        self.head.build((None, width))
        self.built = True

    def call(self, inputs, training=None):
        x = self.flat(inputs)
        for block in self.blocks:
            x = ops.relu(block(x))
        return self.head(self.drop(x, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Deaf(keras.Model):
    """Subclassed: its `call` takes no `training`, so Keras never tells it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flat = layers.Flatten()
        self.drop = layers.Dropout(0.5, seed=9)
        self.head = layers.Dense(CLASSES)

    def build(self, input_shape):
        self.head.build((None, int(np.prod(input_shape[1:]))))
        self.built = True

    def call(self, inputs):
        return self.head(self.drop(self.flat(inputs)))


class TrainsItself(keras.Model):
    """A model with a `train_step` of its own, around a masked layer."""

    def __init__(self, dense: layers.Layer, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense
        self.flat = layers.Flatten()

    def build(self, input_shape):
        if not self.dense.built:
            self.dense.build((None, int(np.prod(input_shape[1:]))))
        self.built = True

    def call(self, inputs):
        return self.dense(self.flat(inputs))

    def train_step(self, *args):
        return super().train_step(*args)

    def get_config(self):
        dense = keras.saving.serialize_keras_object(self.dense)
        return {**super().get_config(), "dense": dense}

    @classmethod
    def from_config(cls, config):
        dense = keras.saving.deserialize_keras_object(config.pop("dense"))
        return cls(dense, **config)


def sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )


def functional() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", kernel_regularizer="l2")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.Conv2D(12, 1, activity_regularizer="l1")(x)
    x = layers.Dropout(0.2, seed=3)(x)
    x = Noted()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def nested() -> keras.Model:
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(6, 3), layers.BatchNormalization()],
        name="stem",
    )
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.ReLU()(inner(inputs)))
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def shared() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    dense = layers.Dense(12, activation="relu", name="twice")
    x = layers.Dense(12)(layers.Flatten()(inputs))
    return keras.Model(inputs, layers.Dense(CLASSES)(dense(dense(x))))


def frozen() -> keras.Model:
    model = sequential()
    model.layers[0].trainable = False
    return model


def several() -> keras.Model:
    first = keras.Input((8, 8, 3), name="picture")
    second = keras.Input((3,), name="meta")
    x = layers.Dense(12)(layers.Flatten()(first))
    x = layers.Concatenate()([x, layers.Dense(5)(second)])
    return keras.Model(
        {"picture": first, "meta": second},
        {
            "kind": layers.Dense(CLASSES, name="kind")(x),
            "size": layers.Dense(1, name="size")(x),
        },
    )


def transformer() -> keras.Model:
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True)(inputs)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    x = layers.LayerNormalization()(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def recurrent() -> keras.Model:
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True)(inputs)
    x = layers.GRU(6, return_sequences=True)(x)
    x = layers.Bidirectional(layers.LSTM(5))(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def subclassed() -> keras.Model:
    model = Blocks()
    model.build((None, 8, 8, 3))
    return model


def deaf() -> keras.Model:
    model = Deaf()
    model.build((None, 8, 8, 3))
    return model


BUILDERS = {
    builder.__name__: builder
    for builder in (
        sequential,
        functional,
        nested,
        shared,
        frozen,
        several,
        transformer,
        recurrent,
        subclassed,
        deaf,
    )
}


def build(name: str, seed: int = 0) -> keras.Model:
    """Build a model of the zoo, with the same weights every time."""
    keras.utils.set_random_seed(seed)
    return BUILDERS[name]()


SPREADS = ("moving_variance", "variance")


def randomise(
    model: keras.Model, seed: int = 0, positive: Sequence[str] = (*SPREADS, "gamma")
) -> keras.Model:
    """Give every weight a random value, statistics and biases too."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.name == "count":
            continue
        fan_in = max(1, int(np.prod(variable.shape[:-1])))
        value = rng.normal(size=variable.shape) / np.sqrt(fan_in)
        if variable.name in positive:
            value = rng.uniform(0.5, 2, variable.shape)
        variable.assign(value)
    return model


@contextlib.contextmanager
def dtype_policy(policy: str):
    """What is built within the block has this dtype policy."""
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def inputs_of(name: str):
    if name in ("transformer", "recurrent"):
        return tokens()
    if name == "several":
        meta = np.random.default_rng(3).normal(size=(SAMPLES, 3)).astype("float32")
        return {"picture": images(), "meta": meta}
    return images()


COMPILED = {"run_eagerly": False}  # as users train


def compile_for(name: str, model: keras.Model, optimizer="adam", **kwargs) -> None:
    """Compile a model for its data.

    On JAX a step takes longer to compile than a test runs it, unless it holds a loop.
    What compiling may change there is shown by tests that pass `**COMPILED`.
    """
    told = kwargs.keys() & {"run_eagerly", "jit_compile", "steps_per_execution"}
    if keras.backend.backend() == "jax" and name != "recurrent" and not told:
        kwargs["run_eagerly"] = True
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if name == "several":
        loss = {"kind": loss, "size": "mse"}
    model.compile(optimizer, loss, **kwargs)


def targets_of(name: str):
    if name == "several":
        return {"kind": labels(), "size": labels()[:, None].astype("float32")}
    return labels()


class Losses(keras.callbacks.Callback):
    """Keeps the running loss after every step."""

    def __init__(self):
        super().__init__()
        self.values: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(float(logs["loss"]))


def train(name: str, model: keras.Model, epochs: int = 1, **kwargs) -> np.ndarray:
    """Fit a compiled model on its data; return the running loss of each step."""
    losses = Losses()
    kwargs["callbacks"] = [*kwargs.get("callbacks", []), losses]
    model.fit(
        inputs_of(name),
        targets_of(name),
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        **kwargs,
    )
    return np.array(losses.values)


def predict(name: str, model: keras.Model) -> list[np.ndarray]:
    return keras.tree.flatten(model.predict(inputs_of(name), verbose=0))
