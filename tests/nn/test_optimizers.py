"""Optimizers against Keras's formulas in NumPy, and the book-keeping around them."""

import copy
import pickle
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


def test_an_optimizer_that_has_made_steps_stays_with_its_parameters():
    a, b, c = (Parameter(np.zeros(2)) for _ in range(3))
    optimizer = nn.Adam(parameters=[a])
    optimizer.bind([b])  # no steps yet
    b.grad = np.ones(2)
    optimizer.step()
    state = optimizer.state_arrays()["0/m"].copy()
    message = (
        "Adam.bind: got 2 parameters, and the 1 that it has changed in 1 steps are others: each model needs an "
        "optimizer of its own, compile with a new one"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizer.bind([a, c])
    assert optimizer.parameters == [b]
    optimizer.bind([c, b])
    np.testing.assert_array_equal(optimizer.state_arrays()["1/m"], state)


def test_two_models_do_not_share_an_optimizer():
    x, y, optimizer = RNG.random((8, 3)), RNG.random((8, 1)), nn.Adam()
    one, other = (nn.Sequential([nn.Dense(1, input_dim=3)]) for _ in range(2))
    for model in (one, other):
        model.compile(optimizer, "mse")
    one.fit(x, y, verbose=0)
    before = other.get_weights()
    with pytest.raises(ValueError, match="Adam.bind: .*each model needs an optimizer of its own"):
        other.fit(x, y, verbose=0)
    for old, new in zip(before, other.get_weights()):
        np.testing.assert_array_equal(old, new)
    one.fit(x, y, verbose=0)
    other.compile(nn.Adam(), "mse")
    other.fit(x, y, verbose=0)


OPTIMIZERS = [
    lambda: nn.SGD(0.1),
    lambda: nn.SGD(0.1, momentum=0.9, nesterov=True),
    lambda: nn.RMSprop(0.1, centered=True, momentum=0.5),
    lambda: nn.Adam(0.1),
    lambda: nn.AdamW(0.1, weight_decay=0.1),
]
SHAPES = [(3, 5), (), (8193,), (17,), (4, 2, 2)]


class TestTogether:
    """Small parameters are changed in one launch, which must not show."""

    def steps(self, make, together, dtype="float32", missing=None):
        """The parameters after three steps; `missing` has no gradient in the second."""
        optimizer, rng = make(), np.random.default_rng(1)
        optimizer.elementwise = together
        parameters = [Parameter(rng.standard_normal(shape).astype(dtype)) for shape in SHAPES]
        optimizer.bind(parameters)
        for step in range(3):
            for index, parameter in enumerate(parameters):
                gradient = rng.standard_normal(parameter.shape).astype(dtype)
                parameter.grad = None if step == 1 and index == missing else gradient
            optimizer.step()
        return parameters, optimizer

    @pytest.mark.parametrize("missing", [None, 0, 2])
    @pytest.mark.parametrize("make", OPTIMIZERS)
    def test_the_bits_are_those_of_one_at_a_time(self, make, missing):
        together, optimizer = self.steps(make, True, missing=missing)
        alone, other = self.steps(make, False, missing=missing)
        assert len(optimizer._groups[0].parts) == 4
        assert other._groups == []
        for a, b in zip(together, alone):
            np.testing.assert_array_equal(a.data, b.data)
        states, others = optimizer.state_arrays(), other.state_arrays()
        assert list(states) == list(others)
        for name in states:
            np.testing.assert_array_equal(states[name], others[name])

    def test_dtypes_are_kept_apart(self):
        parameters = [Parameter(np.ones(3, dtype)) for dtype in ("float32", "float64", "float32", "float64", "float32")]
        optimizer = nn.SGD(1.0, parameters=parameters)
        assert [len(group.parts) for group in optimizer._groups] == [3, 2]
        for parameter in parameters:
            parameter.grad = np.ones_like(parameter.data)
        optimizer.step()
        assert [parameter.dtype for parameter in parameters] == ["f4", "f8", "f4", "f8", "f4"]
        assert all(not parameter.data.any() for parameter in parameters)

    def test_a_parameter_whose_array_was_replaced(self):
        parameters = [Parameter(np.zeros(3)) for _ in range(3)]
        optimizer = nn.SGD(1.0, momentum=0.5, parameters=parameters)
        for replaced in (False, True, True):
            if replaced:
                parameters[1].data = parameters[1].data.copy()
            for parameter in parameters:
                parameter.grad = np.ones(3)
            optimizer.step()
        for parameter in parameters:
            assert parameter.data.tolist() == [-4.25] * 3

    def test_binding_again_and_more(self):
        parameters = [Parameter(np.zeros(3)) for _ in range(4)]
        optimizer = nn.SGD(1.0, momentum=0.5, parameters=parameters[:2])
        group = optimizer._groups[0]
        optimizer.bind(parameters[:2])
        assert optimizer._groups[0] is group
        for parameter in parameters:
            parameter.grad = np.ones(3)
        optimizer.step()
        optimizer.bind([*reversed(parameters), parameters[0]])
        optimizer.step()
        assert [parameter.data[0] for parameter in parameters] == [-2.5, -2.5, -1, -1]

    def test_two_optimizers_for_the_same_parameters(self):
        parameters = [Parameter(np.zeros(3)) for _ in range(2)]
        first, second = nn.SGD(1.0, parameters=parameters), nn.SGD(10.0, parameters=parameters)
        for optimizer in (first, second, first):
            for parameter in parameters:
                parameter.grad = np.ones(3)
            optimizer.step()
        assert all(parameter.data.tolist() == [-12] * 3 for parameter in parameters)

    def test_a_gradient_of_another_shape_is_refused_as_ever(self):
        parameters = [Parameter(np.zeros(3)) for _ in range(2)]
        optimizer = nn.SGD(1.0, parameters=parameters)
        parameters[0].grad, parameters[1].grad = np.ones(3), np.ones(1)
        with pytest.raises(ValueError, match="sgd_update"):
            optimizer.step()

    def test_models_can_be_copied(self):
        x, y = RNG.random((20, 3)), RNG.random((20, 1))
        model = nn.Sequential([nn.Dense(4, activation="tanh", input_dim=3), nn.Dense(1)])
        model.compile("adam", "mse")
        model.fit(x, y, verbose=0)
        copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        model.fit(x, y, shuffle=False, verbose=0)
        for other in copies:
            other.fit(x, y, shuffle=False, verbose=0)
            for a, b in zip(model.get_weights(), other.get_weights()):
                np.testing.assert_array_equal(a, b)


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


@pytest.mark.parametrize("frozen", [[0], [0, 1]], ids=["one", "all"])
def test_parameters_that_were_frozen_go_on_where_they_were(frozen):
    """As if the steps in between had not been theirs, and not from zeros."""
    a, b, alone = (Parameter(np.ones(3)) for _ in range(3))
    optimizer, other = nn.SGD(0.1, momentum=0.9), nn.SGD(0.1, momentum=0.9, parameters=[alone])
    for gradient in ([a, b], [a, b], [it for i, it in enumerate((a, b)) if i not in frozen], [a, b]):
        optimizer.bind(gradient)
        for parameter in gradient:
            parameter.grad = np.full(3, 0.5)
        if gradient:
            optimizer.step()
    for _ in range(3):
        alone.grad = np.full(3, 0.5)
        other.step()
    np.testing.assert_array_equal(a.data, alone.data)
    assert [array.shape for array in optimizer.state_arrays([b]).values()] == [(), (3,)]


@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
@pytest.mark.parametrize("limit", [0, -1.0, np.nan])
def test_limits_of_gradients_are_above_zero(clip, limit):
    with pytest.raises(ValueError, match=f"^Adam: {clip} must be above 0, got {limit!r}"):
        nn.Adam(**{clip: limit})
