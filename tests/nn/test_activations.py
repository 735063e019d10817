"""Activation functions by name, on tensors and arrays."""

import math
import re

import numpy as np
import pytest

from handloom import kernels
from handloom.nn import activations
from handloom.nn.tensor import Tensor

X = np.array([[-3.0, -0.5, 0.0], [0.25, 1.0, 4.0]])
ERF = np.vectorize(math.erf)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


CASES = [
    ("linear", {}, lambda x: x),
    ("relu", {}, lambda x: np.maximum(x, 0)),
    ("relu", {"negative_slope": 0.1}, lambda x: np.where(x > 0, x, 0.1 * x)),
    ("leaky_relu", {}, lambda x: np.where(x > 0, x, 0.2 * x)),
    ("leaky_relu", {"negative_slope": 0.3}, lambda x: np.where(x > 0, x, 0.3 * x)),
    ("elu", {}, lambda x: np.where(x > 0, x, np.expm1(x))),
    ("elu", {"alpha": 2.0}, lambda x: np.where(x > 0, x, 2 * np.expm1(x))),
    ("gelu", {}, lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2),
    ("gelu", {"approximate": True}, lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2),
    ("silu", {}, lambda x: x / (1 + np.exp(-x))),
    ("swish", {}, lambda x: x / (1 + np.exp(-x))),
    ("softplus", {}, lambda x: np.log1p(np.exp(x))),
    ("sigmoid", {}, lambda x: 1 / (1 + np.exp(-x))),
    ("tanh", {}, np.tanh),
    ("softmax", {}, softmax),
    ("softmax", {"axis": 0}, lambda x: softmax(x, 0)),
    ("log_softmax", {}, lambda x: np.log(softmax(x))),
    ("log_softmax", {"axis": 0}, lambda x: np.log(softmax(x, 0))),
]


@pytest.mark.parametrize(("name", "arguments", "formula"), CASES)
def test_values_on_tensors_and_arrays(name, arguments, formula):
    function = getattr(activations, name)
    for dtype, rtol in ((np.float64, 1e-12), (np.float32, 1e-5)):
        x = X.astype(dtype)
        y = function(Tensor(x), **arguments)
        assert isinstance(y, Tensor)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.data, formula(x), rtol, atol=rtol)
        np.testing.assert_array_equal(np.asarray(function(x, **arguments)), y.data)


@pytest.mark.parametrize(("name", "arguments", "formula"), CASES)
def test_gradients_flow_through(name, arguments, formula):
    x = Tensor(X + 0.01, requires_grad=True)  # off the corner at 0
    weights = np.random.default_rng(0).normal(size=X.shape)
    (getattr(activations, name)(x, **arguments) * weights).sum().backward()
    step = 1e-6
    for index in np.ndindex(X.shape):
        shift = np.zeros_like(X)
        shift[index] = step
        slope = ((formula(x.data + shift) - formula(x.data - shift)) * weights).sum() / (2 * step)
        assert x.grad[index] == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", sorted(activations._BY_NAME))
def test_get_finds_every_name(name):
    activation = activations.get(name)
    assert activation.name == name
    assert name in activations.__all__
    assert activation.fused == (name in kernels.FUSED_ACTIVATIONS)
    assert activations.get(activation) is activation
    assert activations.serialize(activation) == name
    formula = next(formula for case, arguments, formula in CASES if case == name and not arguments)
    np.testing.assert_allclose(np.asarray(activation(X)), formula(X), rtol=1e-12, atol=1e-12)


def test_the_fused_ones_are_those_of_the_kernels():
    assert {name for name in activations._BY_NAME if activations.get(name).fused} == {"relu", "sigmoid", "tanh"}


def test_none_is_linear():
    activation = activations.get(None)
    assert (activation.name, activation.fused) == ("linear", False)
    tensor = Tensor(X)
    assert activation(tensor) is tensor


def test_functions_of_this_module_are_known_by_their_name():
    activation = activations.get(activations.relu)
    assert (activation.name, activation.fused, activations.serialize(activation)) == ("relu", True, "relu")
    assert repr(activation) == "Activation('relu')"


def relu(x):
    return x * 2


def test_functions_of_ones_own_are_called_but_never_fused_or_saved():
    activation = activations.get(relu)
    assert (activation.name, activation.fused) == ("relu", False)
    np.testing.assert_array_equal(activation(Tensor(X)).data, X * 2)
    with pytest.raises(ValueError, match="activation relu: cannot be saved: only handloom's own activations can"):
        activations.serialize(activation)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rleu", "activation: unknown name 'rleu': it must be one of elu, gelu, "),
        ("rleu", "did you mean 'relu'?"),
        (3, "activation: unknown name 3: it must be one of elu, gelu, "),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        activations.get(name)
