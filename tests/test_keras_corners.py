"""The private corners of Keras that `keras_tickets._keras` stands on."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from keras_tickets import _keras

VERSION = f"Keras {keras.__version__}"


@pytest.fixture
def model():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="inner")
    return keras.Sequential([keras.Input((4,)), inner, layers.Dropout(0.5)])


def test_sublayers_sees_every_layer_once(model):
    names = [layer.name for layer in _keras.sublayers(model)]
    assert len(names) == len(set(names)), VERSION
    assert {"inner", "dense", "dropout"} <= set(names), VERSION


def test_own_variables_are_not_those_of_sublayers(model):
    assert _keras.own_variables(model) == [], VERSION
    dense = model.get_layer("inner").layers[0]
    names = [variable.name for variable in _keras.own_variables(dense)]
    assert names == ["kernel", "bias"], VERSION


def test_training_argument_is_taken_over():
    class Deaf(layers.Layer):
        def call(self, inputs):
            return inputs

    host = layers.Dropout(0.5)
    _keras.take_training_argument_like(host, Deaf())
    assert host._call_has_training_arg is False, VERSION
    assert host._call_has_context_arg["training"] is False, VERSION


def test_a_stateless_scope_collects_losses():
    layer = layers.ActivityRegularization(l2=1.0)
    x = keras.ops.ones((2, 3))
    layer(x)
    with keras.StatelessScope(collect_losses=True) as scope:
        layer(x)
    assert len(_keras.collected_losses(scope)) == 1, VERSION
