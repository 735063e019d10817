"""Optimizers against Keras's formulas in NumPy, and the book-keeping around them."""

import re

import numpy as np
import pytest

from handloom import nn
from handloom.nn import Parameter, Tensor, optimizers

RNG = np.random.default_rng(8)
START = RNG.standard_normal((3, 4))
GRADIENTS = RNG.standard_normal((5, 3, 4))


def sgd(learning_rate=0.01, momentum=0.0, nesterov=False):
    w, v = START.copy(), 0
    for g in GRADIENTS:
        v = momentum * v - learning_rate * g
        w += momentum * v - learning_rate * g if nesterov else v
    return w


def rmsprop(learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    w, v, mean, velocity = START.copy(), 0, 0, 0
    for g in GRADIENTS:
        v = rho * v + (1 - rho) * g**2
        mean = rho * mean + (1 - rho) * g
        step = learning_rate * g / np.sqrt(v - (mean**2 if centered else 0) + epsilon)
        velocity = momentum * velocity + step
        w -= velocity
    return w


def adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, weight_decay=0.0):
    w, m, v = START.copy(), 0, 0
    for t, g in enumerate(GRADIENTS, 1):
        w -= learning_rate * weight_decay * w
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        w -= learning_rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon)
    return w


def adamw(weight_decay=0.004, **options):
    return adam(weight_decay=weight_decay, **options)


@pytest.mark.parametrize(
    ("optimizer", "formula", "options"),
    [
        (nn.SGD, sgd, {}),
        (nn.SGD, sgd, {"learning_rate": 0.1, "momentum": 0.9}),
        (nn.SGD, sgd, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
        (nn.RMSprop, rmsprop, {}),
        (nn.RMSprop, rmsprop, {"rho": 0.8, "momentum": 0.5, "epsilon": 1e-3}),
        (nn.RMSprop, rmsprop, {"centered": True}),
        (nn.RMSprop, rmsprop, {"centered": True, "momentum": 0.5}),
        (nn.Adam, adam, {}),
        (nn.Adam, adam, {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-2}),
        (nn.AdamW, adamw, {}),
        (nn.AdamW, adamw, {"weight_decay": 0.1, "learning_rate": 0.1}),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_formulas(optimizer, formula, options, dtype):
    w = Parameter(START.astype(dtype))
    array = w.data
    optimizer = optimizer(parameters=[w], **options)
    for gradient in GRADIENTS:
        w.grad = gradient.astype(dtype)
        optimizer.step()
        optimizer.zero_grad()
    assert w.data is array
    assert optimizer.iterations == 5
    rtol = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(w.data, formula(**options), rtol=rtol, atol=rtol)


def stepped(optimizer, gradients):
    """What the optimizer, plain gradient descent of rate 1, adds to parameters of zeros with these gradients."""
    parameters = [Parameter(np.zeros_like(gradient)) for gradient in gradients]
    optimizer.bind(parameters)
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient
    optimizer.step()
    return [-parameter.data for parameter in parameters]


def test_clipping():
    gradients = [np.array([3.0, 4.0]), np.array([0.0, 12.0]), np.array([0.3, 0.4])]
    copies = [gradient.copy() for gradient in gradients]
    steps = stepped(nn.SGD(1.0, clipvalue=3.5), gradients)
    assert [step.tolist() for step in steps] == [[3.0, 3.5], [0.0, 3.5], [0.3, 0.4]]
    steps = stepped(nn.SGD(1.0, clipnorm=1.0), gradients)
    np.testing.assert_allclose(steps, [[0.6, 0.8], [0.0, 1.0], [0.3, 0.4]])
    steps = stepped(nn.SGD(1.0, global_clipnorm=1.3), gradients)
    length = np.sqrt(25 + 144 + 0.25)
    np.testing.assert_allclose(steps, [1.3 / length * gradient for gradient in gradients])
    steps = stepped(nn.SGD(1.0, global_clipnorm=100), gradients)
    np.testing.assert_array_equal(steps, gradients)
    np.testing.assert_array_equal(gradients, copies)


def test_the_learning_rate_may_change_between_steps():
    w = Parameter(np.zeros(1))
    optimizer = nn.SGD(1.0, parameters=[w])
    for rate in (1, 0.25, np.float32(0.5)):
        optimizer.learning_rate = rate
        assert type(optimizer.learning_rate) is float
        w.grad = np.ones(1)
        optimizer.step()
    assert w.data == [-1.75]


def test_parameters_without_gradient_stay_and_keep_their_state():
    a, b = Parameter(np.zeros(1)), Parameter(np.ones(1))
    optimizer = nn.SGD(1.0, momentum=0.5, parameters=[a, b])
    a.grad = np.ones(1)
    optimizer.step()
    optimizer.bind([b, a])
    optimizer.step()
    assert b.data == [1]
    assert a.data == [-2.5]
    assert optimizer.parameters == [b, a]
    optimizer.zero_grad()
    assert a.grad is None


def test_a_loop_of_ones_own():
    x, y = RNG.random((20, 3)), RNG.random((20, 1))
    layer = nn.Dense(1, input_dim=3, dtype="float64")
    layer.build((None, 3))
    optimizer = nn.Adam(0.1, parameters=layer.trainable_weights)
    values = []
    for _ in range(30):
        loss = ((layer(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(loss.item())
    assert values[-1] < values[0] / 2


def test_state():
    w = [Parameter(np.zeros((2, 3), np.float32)), Parameter(np.zeros(4))]
    optimizer = nn.Adam(parameters=w)
    for parameter in w:
        parameter.grad = np.ones_like(parameter.data)
    optimizer.step()
    arrays = optimizer.state_arrays()
    assert {name: array.shape for name, array in arrays.items()} == {
        "iterations": (),
        "0/m": (2, 3),
        "0/v": (2, 3),
        "1/m": (4,),
        "1/v": (4,),
    }
    assert arrays["0/m"].dtype == np.float32
    other = nn.Adam(parameters=w)
    other.load_state_arrays({name: array.copy() for name, array in arrays.items()})
    assert other.iterations == 1
    np.testing.assert_array_equal(other.state_arrays()["1/v"], arrays["1/v"])
    message = "Adam.load_state_arrays: got ['0/m', 'iterations']: names and shapes must be those of 2 bound parameters"
    with pytest.raises(ValueError, match=re.escape(message)):
        other.load_state_arrays({"0/m": arrays["0/m"], "iterations": 3})


@pytest.mark.parametrize(
    "optimizer",
    [
        nn.SGD(0.5, momentum=0.9, nesterov=True),
        nn.RMSprop(rho=0.8, centered=True, clipnorm=1.0),
        nn.Adam(beta_1=0.8, name="mine", global_clipnorm=2.0),
        nn.AdamW(weight_decay=0.1, clipvalue=0.5),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_an_optimizer_comes_back_from_its_configuration(optimizer):
    again = optimizers.get(optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()


def test_names():
    for name in ("adam", "Adam", "ADAM"):
        assert type(optimizers.get(name)) is nn.Adam
    assert type(optimizers.get(nn.RMSprop)) is nn.RMSprop
    assert [optimizers.get(name).name for name in ("sgd", "rmsprop", "adam", "adamw")] == [
        "sgd",
        "rmsprop",
        "adam",
        "adamw",
    ]
    assert optimizers.get("adamw").get_config() == {
        "name": "adamw",
        "learning_rate": 0.001,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-7,
        "weight_decay": 0.004,
    }


def test_an_optimizer_of_ones_own():
    class Signs(nn.Optimizer):
        def update(self, w, g):
            w -= self.learning_rate * np.sign(g)

    assert stepped(Signs(0.5), [np.array([3.0, -2.0])])[0].tolist() == [0.5, -0.5]
    with pytest.raises(ValueError, match="optimizer signs: cannot be saved: only handloom's own optimizers can"):
        optimizers.serialize(Signs(0.5))
    with pytest.raises(NotImplementedError, match=re.escape("Optimizer: define update(self, w, g, *state)")):
        stepped(nn.Optimizer(0.5), [np.ones(1)])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optimizers.get("adma"), ValueError, "optimizer: unknown name 'adma': it must be one of adam, adamw,"),
        (lambda: optimizers.get("adma"), ValueError, "did you mean 'adam'?"),
        (lambda: optimizers.get(3), ValueError, "optimizer: unknown name 3: it must be one of"),
        (lambda: nn.Adam("fast"), TypeError, "Adam: learning_rate must be a number, got 'fast'"),
        (lambda: nn.Adam(beta_1=None), TypeError, "Adam: beta_1 must be a number, got None"),
        (lambda: nn.SGD(clipnorm="1"), TypeError, "SGD: clipnorm must be a number, got '1'"),
        (lambda: nn.SGD(momentum=2), ValueError, "SGD: momentum must lie between 0 and 1, got 2"),
        (
            lambda: nn.SGD(clipnorm=1, clipvalue=1),
            ValueError,
            "SGD: clipnorm and clipvalue exclude each other: give one",
        ),
        (lambda: nn.SGD(parameters=[np.ones(1)]), TypeError, "SGD: parameters must be tensors, got ndarray: pass for"),
        (
            lambda: nn.SGD().step(),
            ValueError,
            "SGD.step: no parameter has a gradient: pass parameters=model.trainable_",
        ),
        (
            lambda: nn.SGD(parameters=[Tensor([1.0], requires_grad=True)]).step(),
            ValueError,
            "SGD.step: no parameter has a gradient: call loss.backward() first",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
