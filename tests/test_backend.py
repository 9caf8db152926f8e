"""Gradients of the backend at hand, once and twice."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from keras_tickets import backend

pytestmark = pytest.mark.lowest


def cubes(variables, scale):
    total = sum(ops.sum(ops.power(v, 3)) for v in variables) * scale
    return total, scale


def numbers(values):
    return [ops.convert_to_numpy(value) for value in values]


@pytest.mark.parametrize("wrapped", [lambda f: f, backend.compiled])
def test_value_and_gradient(wrapped):
    run = wrapped(backend.value_and_gradient(cubes))
    x = [ops.convert_to_tensor([1.0, 2.0]), ops.convert_to_tensor([[3.0]])]
    (value, aux), gradients = run(x, ops.convert_to_tensor(2.0))
    assert (float(value), float(aux)) == (72.0, 2.0)
    np.testing.assert_allclose(numbers(gradients)[0], [6.0, 24.0])
    np.testing.assert_allclose(numbers(gradients)[1], [[54.0]])


def test_it_composes_to_a_second_derivative():
    once = backend.value_and_gradient(cubes)

    def alignment(variables, scale):
        (value, _), gradients = once(variables, scale)
        return sum(ops.sum(g) for g in gradients), value

    run = backend.compiled(backend.value_and_gradient(alignment))
    x = [ops.convert_to_tensor([1.0, 2.0])]
    (value, _), second = run(x, ops.convert_to_tensor(1.0))
    assert float(value) == 15.0
    np.testing.assert_allclose(numbers(second)[0], [6.0, 12.0])


@pytest.mark.parametrize("depends", [[True, False], [False, False]])
def test_what_the_scalar_does_not_depend_on_has_gradient_zero(depends):
    def function(variables):
        used = [ops.sum(v) for v, d in zip(variables, depends, strict=True) if d]
        return sum(used, start=ops.convert_to_tensor(1.0)), ops.convert_to_tensor(0.0)

    x = [ops.ones((2,)), ops.ones((3,))]
    _, gradients = backend.value_and_gradient(function)(x)
    for gradient, d in zip(numbers(gradients), depends, strict=True):
        np.testing.assert_array_equal(gradient, np.full(gradient.shape, float(d)))


def test_other_backends_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(NotImplementedError, match=r"'openvino'.*KERAS_BACKEND.*Random"):
        backend.compiled(cubes)


def test_on_host_reads_arrays_tensors_and_variables():
    values = np.arange(6, dtype="float32").reshape(2, 3)
    variable = keras.Variable(values)
    for held in (
        values,
        ops.convert_to_tensor(values),
        variable.value,
        ops.abs(values),
    ):
        np.testing.assert_array_equal(backend.on_host(held), values)


def test_what_was_read_does_not_change_with_the_variable():
    variable = keras.Variable(np.ones((4, 4), "float32"))
    before = backend.on_host(variable.value).copy()
    seen = backend.on_host(variable.value)
    variable.assign(np.zeros((4, 4), "float32"))
    if keras.backend.backend() != "torch":  # which assigns in place
        np.testing.assert_array_equal(seen, before)
    np.testing.assert_array_equal(backend.on_host(variable.value), 0)


def test_on_host_reads_bfloat16():
    tensor = ops.cast(ops.convert_to_tensor([1.5, -2.0]), "bfloat16")
    read = backend.on_host(tensor).astype("float32")
    np.testing.assert_array_equal(read, [1.5, -2.0])


def test_other_backends_are_read_by_keras(monkeypatch):
    tensor = ops.ones((3,))
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    np.testing.assert_array_equal(backend.on_host(tensor), 1)


def test_updating_reads_the_values_of_the_moment():
    variables = [keras.Variable(np.ones(3, "float32")), keras.Variable(2.0)]
    double = backend.updating(variables, lambda values, by: [v * by for v in values])
    for expected in (2, 4):
        double(ops.convert_to_tensor(2.0))
        np.testing.assert_array_equal(backend.on_host(variables[0].value), expected)
    variables[1].assign(1.0)
    double(ops.convert_to_tensor(3.0))
    assert float(backend.on_host(variables[1].value)) == 3.0
