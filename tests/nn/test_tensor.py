"""The tape and the functions on it: values, gradients against differences, and what is left behind (nothing)."""

import gc
import re
import threading
import weakref

import numpy as np
import pytest
from gradients import check_gradients

from handloom import kernels
from handloom.nn import Parameter, Tensor, functions, no_grad

RNG = np.random.default_rng(3)


def draw(*shape, low=None):
    """Standard normal numbers, or numbers from `low` upwards where a function asks for that."""
    return RNG.standard_normal(shape) if low is None else low + RNG.random(shape)


ARITHMETIC = {
    "add": (lambda a, b: a + b, draw(2, 3), draw(2, 3)),
    "add broadcast": (lambda a, b: a + b, draw(4, 2, 3), draw(1, 3)),
    "add number": (lambda a: 2 + a + 1.5, draw(2, 3)),
    "subtract": (lambda a, b: a - b, draw(3), draw(2, 3)),
    "subtract from number": (lambda a: 1 - a, draw(2, 3)),
    "subtract from array": (lambda a: np.ones((2, 3)) - a, draw(3)),
    "multiply": (lambda a, b: a * b, draw(2, 1, 3), draw(4, 1)),
    "multiply with array": (lambda a: np.arange(3.0) * a * np.arange(6.0).reshape(2, 3), draw(2, 3)),
    "divide": (lambda a, b: a / b, draw(2, 3), draw(2, 1, low=1.0)),
    "divide number": (lambda a: 3 / a, draw(2, 3, low=1.0)),
    "power": (lambda a: a**3 + a**-1 + a**0.5, draw(2, 3, low=0.5)),
    "power of tensor": (lambda a, b: a**b, draw(2, 3, low=0.5), draw(3)),
    "power of number": (lambda a: 2**a, draw(2, 3)),
    "square below zero": (lambda a: a**2, draw(2, 3)),
    "negative": (lambda a: -a, draw(2, 3)),
    "absolute": (lambda a: abs(a), draw(2, 3)),
    "exp, log": (lambda a: functions.log(functions.exp(a) + 1), draw(2, 3)),
    "sum": (lambda a: a.sum(), draw(2, 3)),
    "sum axis": (lambda a: a.sum(axis=1), draw(2, 3, 4)),
    "sum axes": (lambda a: a.sum(axis=(0, -1), keepdims=True), draw(2, 3, 4)),
    "mean": (lambda a: a.mean(), draw(2, 3)),
    "mean axis": (lambda a: a.mean(axis=0) * a.mean(axis=1, keepdims=True), draw(2, 3)),
    "reshape": (lambda a: a.reshape(3, -1) * a.reshape((3, 2)) + a.reshape(-1).sum(), draw(2, 3)),
    "transpose": (lambda a: a.transpose(2, 0, 1) * a.transpose((-1, 0, 1)), draw(2, 3, 4)),
    "transpose all": (lambda a: a.T + a.transpose(), draw(2, 3)),
    "slice": (lambda a: a[1:, ::-2] * a[0, 1] + a[..., None, 0].sum(), draw(4, 4)),
    "slice by array": (lambda a: a[np.array([0, 2, 0])], draw(3, 4)),
    "slice by arrays": (lambda a: a[np.array([1, 1, 0]), np.array([0, 0, 3])], draw(3, 4)),
    "slice by mask": (lambda a: a[np.eye(3, dtype=bool)], draw(3, 3)),
    "rows": (lambda a: sum(row.sum() * number for number, row in enumerate(a)), draw(3, 2)),
    "matmul": (lambda a, b: a @ b, draw(2, 3), draw(3, 4)),
    "matmul batches": (lambda a, b: a @ b, draw(5, 2, 3), draw(3, 4)),
    "used twice": (lambda a: a * a + a * a.sum(), draw(2, 3)),
}


@pytest.mark.parametrize("case", ARITHMETIC.values(), ids=ARITHMETIC)
def test_gradients_of_arithmetic(case):
    check_gradients(*case)


TARGETS, LABELS = draw(4, 3), np.array([0, 2, 1, 1])
ONE_HOT = np.eye(3)[LABELS]
PROBABILITIES = np.exp(draw(4, 3)) / np.exp(draw(4, 3)).sum(-1, keepdims=True) / 3
KERNELS = {
    "dense": (functions.dense, draw(2, 3), draw(3, 4), draw(4)),
    "dense without bias": (lambda x, w: functions.dense(x, w, None, activation="tanh"), draw(2, 5, 3), draw(3, 4)),
    "dense relu": (lambda x, w, b: functions.dense(x, w, b, activation="relu"), draw(6, 3), draw(3, 4), draw(4)),
    "conv2d": (
        lambda x, w, b: functions.conv2d(x, w, b, strides=2, padding="same", activation="tanh"),
        draw(2, 5, 4, 3),
        draw(3, 2, 3, 4),
        draw(4),
    ),
    "conv2d without bias": (lambda x, w: functions.conv2d(x, w), draw(1, 4, 5, 2), draw(2, 3, 2, 3)),
    "conv2d_max_pool2d": (
        lambda x, w, b: functions.conv2d_max_pool2d(x, w, b, padding="same", activation="tanh"),
        draw(2, 5, 4, 3),
        draw(3, 2, 3, 4),
        draw(4),
    ),
    "max_pool2d": (lambda x: functions.max_pool2d(x, pool_size=(2, 3)), draw(2, 5, 6, 2)),
    "avg_pool2d": (lambda x: functions.avg_pool2d(x, 3, strides=2, padding="same"), draw(2, 5, 6, 2)),
    "global_max_pool2d": (functions.global_max_pool2d, draw(2, 5, 6, 2)),
    "global_avg_pool2d": (functions.global_avg_pool2d, draw(2, 5, 6, 2)),
    "lstm": (functions.lstm, draw(2, 4, 3), draw(3, 8), draw(2, 8), draw(8), draw(2, 2), draw(2, 2)),
    "lstm without bias and state": (lambda x, w, u: functions.lstm(x, w, u)[0], draw(2, 4, 3), draw(3, 8), draw(2, 8)),
    "lstm last state": (lambda *args: functions.lstm(*args)[1], draw(2, 4, 3), draw(3, 8), draw(2, 8), draw(8)),
    "lstm last cell": (lambda *args: functions.lstm(*args)[2], draw(2, 4, 3), draw(3, 8), draw(2, 8), draw(8)),
    "dropout": (lambda x: functions.dropout(x, 0.4, seed=1, stream=2, step=3), draw(6, 5)),
    "relu": (functions.relu, draw(4, 5)),
    "leaky_relu": (lambda x: functions.leaky_relu(x, negative_slope=0.3), draw(4, 5)),
    "elu": (functions.elu, draw(4, 5)),
    "gelu": (functions.gelu, draw(4, 5)),
    "silu": (functions.silu, draw(4, 5)),
    "softplus": (functions.softplus, draw(4, 5)),
    "sigmoid": (functions.sigmoid, draw(4, 5)),
    "tanh": (functions.tanh, draw(4, 5)),
    "softmax": (functions.softmax, draw(4, 5)),
    "softmax axis": (lambda x: functions.softmax(x, axis=0), draw(4, 5)),
    "log_softmax": (functions.log_softmax, draw(4, 5)),
    "mean_squared_error": (lambda y: functions.mean_squared_error(y, TARGETS), draw(4, 3)),
    "mean_absolute_error": (lambda y: functions.mean_absolute_error(y, TARGETS), draw(4, 3)),
    "binary_cross_entropy": (lambda y: functions.binary_cross_entropy(y, ONE_HOT), PROBABILITIES),
    "sigmoid_cross_entropy": (lambda y: functions.sigmoid_cross_entropy(y, ONE_HOT), draw(4, 3)),
    "categorical_cross_entropy": (lambda y: functions.categorical_cross_entropy(y, ONE_HOT), PROBABILITIES),
    "softmax_cross_entropy": (lambda y: functions.softmax_cross_entropy(y, ONE_HOT), draw(4, 3)),
    "sparse_categorical_cross_entropy": (
        lambda y: functions.sparse_categorical_cross_entropy(y, LABELS),
        PROBABILITIES,
    ),
    "sparse_softmax_cross_entropy": (lambda y: functions.sparse_softmax_cross_entropy(y, LABELS), draw(4, 3)),
}


@pytest.mark.parametrize("case", KERNELS.values(), ids=KERNELS)
def test_gradients_of_kernels(case):
    check_gradients(*case)


def test_every_kernel_that_has_a_backward_is_a_function():
    differentiable = {name.removesuffix("_backward") for name in dir(kernels) if name.endswith("_backward")}
    assert differentiable - {"lstm_cell"} == {
        name for name in differentiable if isinstance(getattr(functions, name, None), functions.Function)
    }
    assert {name.split(" ")[0] for name in KERNELS} | {"matmul"} >= differentiable - {"lstm_cell"}


class TestTensor:
    def test_what_it_is_made_of(self):
        array = np.ones((2, 3), np.float32)
        assert Tensor(array).data is array
        assert Tensor(Tensor(array)).data is array
        assert Tensor([[1, 2]]).shape == (1, 2)
        assert Tensor(2.5).shape == Tensor(np.float32(2.5)).shape == ()
        assert isinstance(Tensor(np.float32(2.5)).data, np.ndarray)
        assert Tensor(np.float32(2.5)).dtype == np.float32

    def test_attributes(self):
        tensor = Tensor(np.arange(6.0).reshape(2, 3))
        assert (tensor.shape, tensor.ndim, tensor.size, tensor.dtype, len(tensor)) == ((2, 3), 2, 6, np.float64, 2)
        assert tensor.numpy() is tensor.data
        np.testing.assert_array_equal(np.asarray(tensor), tensor.data)
        assert np.asarray(tensor, np.float32).dtype == np.float32
        assert tensor.sum().item() == float(tensor.sum()) == 15
        assert bool(Tensor(1.0)) is True
        assert not tensor.requires_grad
        assert tensor.grad is None

    def test_repr(self):
        assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.], dtype=float64)"
        assert repr(Parameter([1.0])) == "Parameter([1.], dtype=float64, requires_grad=True)"

    def test_arrays_leave_arithmetic_to_the_tensor(self):
        x = Tensor([1.0, 2.0], requires_grad=True)
        ones = np.ones(2)
        for y in (ones + x, ones - x, ones * x, ones / x, np.float64(2) * x, np.eye(2) @ x[:, None]):
            assert type(y) is Tensor
            assert y.requires_grad
        with pytest.raises(TypeError, match="does not support ufuncs"):
            np.exp(x)

    def test_python_numbers_do_not_change_the_dtype(self):
        x = Tensor(np.ones(3, np.float32), requires_grad=True)
        y = ((x * 2 + 1.0) / 3) ** 2
        assert y.dtype == np.float32
        y.mean().backward()
        assert x.grad.dtype == np.float32

    def test_a_gradient_has_the_dtype_of_its_tensor(self):
        x = Tensor(np.ones(3, np.float32), requires_grad=True)
        y = x * np.arange(3.0)
        assert y.dtype == np.float64
        y.sum().backward()
        assert x.grad.dtype == np.float32
        x.grad = None
        x.astype("float64").sum().backward()
        assert x.grad.dtype == np.float32

    def test_scalars_are_arrays(self):
        x = Tensor(np.float32(3), requires_grad=True)
        y = x * x + x
        assert isinstance(y.data, np.ndarray)
        y.backward()
        assert isinstance(x.grad, np.ndarray)
        assert x.grad == 7

    def test_comparisons_give_arrays(self):
        x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
        other = Tensor([3.0, 2.0, 1.0])
        for found, expected in (
            (x < 2, [True, False, False]),
            (x <= other, [True, True, False]),
            (x > np.float64(1), [False, True, True]),
            (np.full(3, 2.0) > x, [True, False, False]),
            (x >= other, [False, True, True]),
            (x == 2.0, [False, True, False]),
            (x != other, [True, False, True]),
        ):
            assert type(found) is np.ndarray
            assert found.tolist() == expected
        assert {x: "a key"}[x] == "a key"
        (x * (x > 1)).sum().backward()
        assert x.grad.tolist() == [0, 1, 1]

    def test_control_flow_and_texts(self):
        loss = Tensor(np.float32(0.125), requires_grad=True) * 1
        assert "positive" if loss.mean() > 0 else None
        assert f"{loss:.4f} {Tensor(3):d}" == "0.1250 3"
        assert f"{loss}" == str(loss)
        assert int(Tensor(3.7)) == 3
        with pytest.raises(ValueError, match="size"):
            f"{Tensor([1.0, 2.0]):.2f}"

    def test_detach(self):
        x = Tensor([1.0], requires_grad=True)
        y = (x * 2).detach()
        assert not y.requires_grad
        assert (y * x).requires_grad


class TestBackward:
    def test_gradients_add_up_until_zero_grad(self):
        x = Tensor([1.0, 2.0], requires_grad=True)
        (x * x).sum().backward()
        first = x.grad
        (x * 3).sum().backward()
        np.testing.assert_array_equal(x.grad, [5, 7])
        np.testing.assert_array_equal(first, [2, 4])
        x.zero_grad()
        assert x.grad is None

    def test_shared_gradients_are_not_added_to_in_place(self):
        a, b = Tensor([1.0], requires_grad=True), Tensor([1.0], requires_grad=True)
        (a + b).sum().backward()
        (a * 2).sum().backward()
        assert (a.grad, b.grad) == ([3.0], [1.0])

    def test_the_gradient_passed_in_is_not_changed(self):
        x, grad = Tensor([1.0, 1.0], requires_grad=True), np.array([1.0, 2.0])
        x.backward(grad)
        (x * 2).backward(grad)
        (x * 2).backward(Tensor(grad))
        (x * 2).backward([1.0, 2.0])
        np.testing.assert_array_equal(grad, [1, 2])
        np.testing.assert_array_equal(x.grad, [7, 14])

    def test_a_diamond_runs_each_node_once(self):
        calls = []

        def backward(dy, saved, needs):
            calls.append(dy.copy())
            return (dy * 2,)

        double = functions.Function("double", 1, (lambda x: x * 2, lambda x: (x * 2, None), backward))
        x = Tensor([1.0], requires_grad=True)
        y = double(x)
        late = (y * 3 + 0) + 0
        (y + late + y).sum().backward()
        np.testing.assert_array_equal(calls, [[5.0]])
        np.testing.assert_array_equal(x.grad, [10.0])

    def test_branches_that_do_not_reach_the_result(self):
        x = Tensor([2.0], requires_grad=True)
        y = x * 3
        unused = y * 100
        (y * y).sum().backward()
        np.testing.assert_array_equal(x.grad, [36.0])
        assert unused.data == 600

    def test_only_what_is_needed_is_computed(self):
        asked = []

        def backward(dy, saved, needs):
            asked.append(needs)
            return tuple(dy if need else None for need in needs)

        pair = functions.Function("pair", 3, (None, lambda a, b, c: (a + b, None), backward))
        a, b = Tensor([1.0]), Tensor([1.0], requires_grad=True)
        pair(a, b, None).sum().backward()
        assert asked == [(False, True, False)]
        assert a.grad is None

    def test_several_outputs(self):
        arrays = draw(2, 4, 3), draw(3, 8), draw(2, 8)
        x, w, u = (Tensor(array, requires_grad=True) for array in arrays)
        y, h, c = functions.lstm(x, w, u)
        (y.sum() + (h * h).sum() + c.mean()).backward()
        together, x.grad = x.grad, None
        for loss in (lambda y, h, c: y.sum(), lambda y, h, c: (h * h).sum(), lambda y, h, c: c.mean()):
            loss(*functions.lstm(x, w, u)).backward()
        np.testing.assert_allclose(x.grad, together, rtol=1e-12)

    def test_deep_graphs(self):
        x = Tensor([1.0], requires_grad=True)
        y = x
        for _ in range(20_000):
            y = y + 1
        y.sum().backward()
        assert x.grad == [1.0]
        del y  # nor does letting go of a deep graph recurse
        y = x
        for _ in range(20_000):
            y = y + 1
        del y

    def test_errors(self):
        x = Tensor([1.0, 2.0], requires_grad=True)
        with pytest.raises(ValueError, match=re.escape("backward: the tensor has shape (2,): only a scalar starts by")):
            (x * 2).backward()
        with pytest.raises(ValueError, match="backward: this tensor was made from nothing that requires a gradient: "):
            Tensor([1.0]).backward()
        with pytest.raises(ValueError, match=re.escape("backward: grad is (3,) and the tensor (2,): they must be")):
            (x * 2).backward(np.ones(3))
        loss = (x * 2).sum()
        loss.backward()
        with pytest.raises(ValueError, match="backward: a part of this graph was freed by an earlier backward"):
            loss.backward()


class TestNoGrad:
    def test_records_nothing(self):
        x = Tensor([1.0], requires_grad=True)
        with no_grad():
            assert not (x * 2).requires_grad
            with no_grad():
                pass
            assert not (x * 2).requires_grad
        assert (x * 2).requires_grad

    def test_ends_with_an_error(self):
        x = Tensor([1.0], requires_grad=True)
        with pytest.raises(KeyError), no_grad():
            raise KeyError
        assert (x * 2).requires_grad

    def test_as_decorator(self):
        @no_grad()
        def double(x):
            return x * 2

        x = Tensor([1.0], requires_grad=True)
        assert not double(x).requires_grad
        assert (x * 2).requires_grad

    def test_belongs_to_its_thread(self):
        x = Tensor([1.0], requires_grad=True)
        seen = {}
        inside, leave = threading.Event(), threading.Event()

        def other():
            with no_grad():
                inside.set()
                leave.wait(10)
                seen["other"] = (x * 2).requires_grad

        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(10)
        seen["here"] = (x * 2).requires_grad
        leave.set()
        thread.join()
        assert seen == {"here": True, "other": False}


def test_threads_have_graphs_of_their_own():
    w = draw(5, 5)
    results = {}

    def work(number):
        x = Tensor(w * number, requires_grad=True)
        for _ in range(50):
            x.zero_grad()
            functions.tanh(x @ x).sum().backward()
        results[number] = x.grad

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, grad in results.items():
        x = Tensor(w * number, requires_grad=True)
        functions.tanh(x @ x).sum().backward()
        np.testing.assert_array_equal(grad, x.grad)


class TestMemory:
    """With the collector off, only reference counts free anything: what still goes away was in no cycle."""

    @pytest.fixture(autouse=True)
    def no_collector(self):
        gc.collect()
        gc.disable()
        yield
        gc.enable()

    def graph(self):
        w = Parameter(draw(3, 3), name="w")
        h = functions.dense(Tensor(draw(4, 3)), w, None, activation="relu")
        y = functions.softmax(h @ w)
        states = functions.lstm(y.reshape(2, 2, 3), Tensor(draw(3, 8)), Tensor(draw(2, 8)))
        loss = (states[0] ** 2).mean() + states[2].sum() + functions.softmax_cross_entropy(y.logits[1], ONE_HOT)
        return w, loss, [weakref.ref(thing) for thing in (h, y, y.logits[1], h.data, y.data, states[0])]

    def test_a_graph_that_nobody_went_back_through(self):
        w, loss, inside = self.graph()
        assert any(ref() is not None for ref in inside)
        del loss
        assert [ref() for ref in inside if ref() is not None] == []

    def test_backward_frees_the_graph_although_the_loss_lives(self):
        w, loss, inside = self.graph()
        loss.backward()
        assert [ref() for ref in inside if ref() is not None] == []
        assert w.grad is not None

    def test_tensors_that_are_kept_hold_nothing_else(self):
        x = Tensor(draw(3), requires_grad=True)
        first = x * 2
        second = first * 3
        inside = weakref.ref(first.data)
        second.sum().backward()
        del first
        assert inside() is None
        assert second.data is not None


def test_gradients_of_powers_at_zero():
    a, b = Tensor([0.0, 0.0, 0.0, 2.0], requires_grad=True), Tensor([0.0, 1.0, 3.0, 0.0], requires_grad=True)
    (a**b).sum().backward()
    np.testing.assert_array_equal(a.grad, [0, 1, 0, 0])
    np.testing.assert_allclose(b.grad, [0, 0, 0, np.log(2)])
    a.grad = None
    (a**0).sum().backward()
    np.testing.assert_array_equal(a.grad, 0)
