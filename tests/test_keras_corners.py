"""The private corners of Keras that `keras_tickets.backend.keras_private` stands on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from keras_tickets.backend import keras_private

pytestmark = pytest.mark.lowest

VERSION = f"Keras {keras.__version__}"


@pytest.fixture
def model():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="inner")
    return keras.Sequential([keras.Input((4,)), inner, layers.Dropout(0.5)])


def test_sublayers_sees_every_layer_once(model):
    names = [layer.name for layer in keras_private.sublayers(model)]
    assert len(names) == len(set(names)), VERSION
    assert {"inner", "dense", "dropout"} <= set(names), VERSION


def test_own_variables_are_not_those_of_sublayers(model):
    assert keras_private.own_variables(model) == [], VERSION
    dense = model.get_layer("inner").layers[0]
    names = [variable.name for variable in keras_private.own_variables(dense)]
    assert names == ["kernel", "bias"], VERSION


def test_training_argument_is_taken_over():
    class Deaf(layers.Layer):
        def call(self, inputs):
            return inputs

    host = layers.Dropout(0.5)
    keras_private.take_training_argument_like(host, Deaf())
    assert host._call_has_training_arg is False, VERSION
    assert host._call_has_context_arg["training"] is False, VERSION


def test_arguments_are_taken_over():
    class Host(layers.Layer):
        def build(self, *shapes, **named):
            self.shapes = named

        def call(self, *args, **kwargs):
            return args[0] if args else kwargs["query"]

    host, data = Host(), keras.Input((5, 4))
    keras_private.take_arguments_like(host, layers.MultiHeadAttention(2, 3))
    host(query=data, value=data)
    assert host.shapes == dict.fromkeys(["query_shape", "value_shape"], data.shape), (
        VERSION
    )


def test_variables_are_brought_up_to_date(model):
    keras_private.up_to_date(model)  # outside of fit there is nothing to do
    if keras.backend.backend() == "jax":
        assert callable(model.jax_state_sync), VERSION


def test_a_config_of_torch_names_optimizers_of_any_backend():
    optimizer = keras.saving.serialize_keras_object(keras.optimizers.SGD(0.5))
    module = "keras.src.backend.torch.optimizers.torch_sgd"
    config = {"inner": [(optimizer | {"module": module},)], "module": "theirs"}
    found = keras_private.for_any_backend(config)["inner"][0][0]
    revived = keras.saving.deserialize_keras_object(found)
    assert isinstance(revived, keras.optimizers.SGD), VERSION
    assert revived.get_config()["learning_rate"] == 0.5, VERSION
    assert config["inner"][0][0]["module"] == module


def test_the_shape_of_a_saved_variable_is_known_before_it_is_read(tmp_path):
    shapes, path = [], tmp_path / "x.weights.h5"

    class Watched(layers.Dense):
        def load_own_variables(self, store):
            shapes.extend(keras_private.stored_shape(store, key) for key in "01")
            assert store._h5_entry_group, VERSION
            super().load_own_variables(store)

    model = keras.Sequential([keras.Input((4,)), Watched(3)])
    model.save_weights(path)
    model.load_weights(path)
    assert shapes == [(4, 3), (3,)], VERSION


def test_the_legacy_format_asks_for_the_config_after_it_has_opened_a_file(tmp_path):
    files = []

    class Watched(keras.Sequential):
        def get_config(self):
            files.append(keras_private.file_being_saved(self))
            return super().get_config()

    path = str(tmp_path / "x.h5")
    model = Watched([keras.Input((4,)), layers.Dense(3)])
    keras.saving.save_model(model, path)
    keras.saving.save_model(keras.Sequential([keras.Input((4,)), model]), path)
    model.get_config()
    assert files == [path, None, None], VERSION


def test_a_stateless_scope_collects_losses():
    layer = layers.ActivityRegularization(l2=1.0)
    x = keras.ops.ones((2, 3))
    layer(x)
    with keras.StatelessScope(collect_losses=True) as scope:
        layer(x)
    assert len(keras_private.collected_losses(scope)) == 1, VERSION


def test_the_graph_of_functional_and_sequential_models(model):
    assert keras_private.graph_of(model) is not None, VERSION
    assert keras_private.graph_of(model.layers[0]) is not None, VERSION
    assert keras_private.graph_of(layers.Dense(3)) is None, VERSION


def test_a_graph_runs_on_any_objects(model):
    graph = keras_private.graph_of(model)
    seen = []

    def call(layer, *args, **kwargs):
        seen.append(layer.name)
        return f"{args[0]}/{layer.name}"

    assert keras_private.run_graph(graph, [""], call) == "/" + "/".join(seen), VERSION
    assert seen == [layer.name for layer in model.layers], VERSION


def test_names_can_be_made_unique_for_a_while():
    class Twins(layers.Layer):
        def __init__(self):
            super().__init__()
            self.twins = [layers.Dense(2, name="same") for _ in range(2)]

    twins = Twins()
    with keras_private.unique_names(twins):
        names = [layer.name for layer in twins.twins]
        assert len(set(names)) == 2, VERSION
    assert [layer.name for layer in twins.twins] == ["same", "same"], VERSION


def test_the_compiled_loss_is_without_regularisation():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    assert keras_private.compiled_loss(model) is None, VERSION
    model.compile("sgd", "mse")
    x = keras.ops.ones((2, 1))
    assert float(keras_private.compiled_loss(model)(x, 3 * x)) == 4.0, VERSION


def test_seeds_are_those_of_the_layer_itself(model):
    assert keras_private.own_seeds(model) == [], VERSION
    drop = model.layers[1]
    assert keras_private.own_seeds(drop) == [drop.seed_generator.state], VERSION


def test_a_layer_is_frozen_alone(model):
    keras_private.set_own_trainable(model, False)
    assert not model.trainable, VERSION
    assert model.layers[0].trainable, VERSION
    assert not model.trainable_variables, VERSION


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX")
def test_a_step_does_not_begin_with_the_state_before_the_last():
    """Two steps with a look at the variables within them train as two without."""

    class Looks(keras.Model):
        def __init__(self, looks):
            super().__init__()
            self.dense, self.looks = layers.Dense(2), looks

        def call(self, x):
            if self.looks:
                keras_private.up_to_date(self)
            return self.dense(x)

    kernels = []
    for looks in (False, True):
        keras.utils.set_random_seed(0)
        model = Looks(looks)
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
        for _ in range(3):
            model.train_on_batch(np.ones((4, 3)), np.ones((4, 2)))
        kernels.append(keras.ops.convert_to_numpy(model.dense.kernel))
    np.testing.assert_allclose(*kernels, err_msg=VERSION)


def test_a_method_is_replaced_and_comes_back():
    layer = layers.Dense(2, layers.Softmax())
    x = keras.ops.ones((1, 3))
    before = keras.ops.convert_to_numpy(layer(x))
    with keras_private.in_place_of(layer, "call", lambda inputs: inputs + 1):
        assert layer(x).shape == (1, 3), VERSION
    with keras_private.in_place_of(layer, "activation", lambda z: z - z):
        assert not keras.ops.any(layer(x)), VERSION
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x)), before)
    assert isinstance(layer.activation, layers.Softmax)


@pytest.mark.parametrize("named", [False, True])
def test_the_loss_of_each_output(named):
    x = keras.Input((3,))
    a, b, c = (layers.Dense(1, name=name)(x) for name in "bca")
    asked = {"a": keras.losses.Huber(), "b": "mse"}
    model = keras.Model(x, {"b": a, "c": b, "a": c} if named else [a, b, c])
    model.compile("sgd", asked | {"c": None} if named else ["mse", None, asked["a"]])
    loss = keras_private.compiled_loss(model)
    outputs = model(keras.ops.ones((2, 3)))
    loss(keras.tree.map_structure(keras.ops.zeros_like, outputs), outputs)
    found = keras_private.losses_by_output(loss, outputs)
    of = keras.tree.pack_sequence_as(outputs, found)
    mse, none, huber = (of[k] for k in ("bca" if named else range(3)))
    assert (none, huber) == (None, asked["a"]), VERSION
    assert mse.fn is keras.losses.mean_squared_error, VERSION
    assert keras_private.losses_by_output("any", outputs) == ["any"] * 3


@pytest.mark.parametrize("axes", [[0], [1, -1]])
def test_mean_and_variance_that_differentiate_twice_are_the_same(axes):
    x = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    for keepdims in (False, True):
        own = keras.ops.moments(x, axes, keepdims)
        with keras_private.twice_differentiable():
            ours = keras.ops.moments(x, axes, keepdims)
        for one, other in zip(own, ours, strict=True):
            np.testing.assert_allclose(
                keras.ops.convert_to_numpy(other),
                keras.ops.convert_to_numpy(one),
                atol=1e-6,
                err_msg=VERSION,
            )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow")
@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("options", [{}, {"axis": 1}, {"axis": -1, "keepdims": True}])
def test_argmax_is_tensorflows_in_a_graph_only(name, options):
    import tensorflow as tf

    x = keras.random.normal((2, 3, 4), seed=1)
    own = getattr(keras.ops, name)
    expected = own(x, **options)
    with keras_private.plain_argmax():
        traced = tf.function(lambda x: own(x, **options)).get_concrete_function(x)
        assert (own(keras.ops.array([0.0, -0.0])) == 0) == (name == "argmax")
    operators = {operation.type for operation in traced.graph.get_operations()}
    assert "BitwiseAnd" not in operators, VERSION
    np.testing.assert_array_equal(traced(x), expected)
    assert traced(x).shape == expected.shape
