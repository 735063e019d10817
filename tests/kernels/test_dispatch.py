"""Which device and which kernel a call gets, and what is said where there is none."""

import re

import numpy as np
import pytest
from harness import Elsewhere

from handloom import kernels
from handloom.kernels import dispatch
from handloom.kernels.dispatch import Variants, device_of

HERE, THERE = np.ones(2), Elsewhere(np.ones(2))


def test_arrays_say_where_they_live():
    assert device_of("add", {"b": None}, a=HERE) == device_of("add", {"b": HERE}, a=HERE) == "cpu"
    assert device_of("add", a=HERE.view(type("Labelled", (np.ndarray,), {})), b=HERE) == "cpu"
    assert device_of("add", {"a": None}, b=THERE) == device_of("add", {"a": THERE}) == "cuda"


@pytest.mark.parametrize(
    "arrays, text",
    [
        (
            {"a": HERE, "b": THERE},
            'add: a is a NumPy array and b a CuPy array: move one, for example with nn.to_device(b, "cpu")',
        ),
        (
            {"a": THERE, "c": THERE, "d": HERE, "e": HERE},
            'add: d is a NumPy array and a a CuPy array: move one, for example with nn.to_device(a, "cpu")',
        ),
        ({"a": HERE, "b": (1.0,)}, "add: b is a tuple: must be a NumPy or a CuPy array, np.asarray makes one"),
        ({"a": HERE, "b": None}, "add: b is None: must be a NumPy or a CuPy array, np.asarray makes one"),
        ({"a": THERE, "b": 1.0}, "add: b is a float: must be a NumPy or a CuPy array, np.asarray makes one"),
    ],
)
def test_arrays_that_are_apart_or_none_are_refused(arrays, text):
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        device_of("add", {"more": None}, **arrays)


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda x: kernels.matmul(x, None), "matmul: b"),
        (lambda x: kernels.matmul_backward(None, kernels.matmul_forward(x, x)[1]), "matmul_backward: dc"),
        (lambda x: kernels.dense(None, x), "dense: x"),
        (lambda x: kernels.dense_backward(None, kernels.dense_forward(x, x)[1]), "dense_backward: dy"),
        (lambda x: kernels.conv2d(x, None), "conv2d: w"),
        (lambda x: kernels.max_pool2d(None), "max_pool2d: x"),
        (lambda x: kernels.relu(None), "relu: x"),
        (lambda x: kernels.softmax(None), "softmax: x"),
        (lambda x: kernels.mean_squared_error(x, None), "mean_squared_error: t"),
        (lambda x: kernels.lstm(x, x, None), "lstm: u"),
        (lambda x: kernels.dropout(None, 0.5, seed=1), "dropout: x"),
        (lambda x: kernels.sgd_update(None, x, learning_rate=1), "sgd_update: w"),
        (
            lambda x: kernels.rmsprop_update(x, x, None, learning_rate=1, rho=0, momentum=0, epsilon=0),
            "rmsprop_update: v",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_operations_name_an_array_that_is_none(call, name):
    with pytest.raises(TypeError, match=f"^{name} is None: must be a NumPy or a CuPy array"):
        call(np.ones((2, 2)))


LADDER = Variants("add", "os", cpu={"naive": "path:dirname", "simd": "path:basename"})


def test_the_last_variant_is_the_default():
    assert LADDER.launcher("cpu", None) is LADDER.launcher("cpu", "simd")
    assert LADDER.launcher("cpu", "naive")("a/b") == "a"
    assert list(LADDER) == ["cpu"] and list(LADDER["cpu"]) == ["naive", "simd"]


@pytest.mark.parametrize(
    "device, variant, error, text",
    [
        ("cuda", None, TypeError, "add: no kernel for cuda arrays: there are kernels for cpu"),
        ("cuda", "simd", TypeError, "add: no kernel for cuda arrays: there are kernels for cpu"),
        ("cpu", "fast", ValueError, "add: variant is 'fast': must be one of 'naive', 'simd'"),
    ],
)
def test_a_kernel_that_there_is_not(device, variant, error, text):
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        LADDER.launcher(device, variant)


def test_kernels_for_a_gpu_without_numba_cuda_say_what_to_install(monkeypatch):
    ladder = Variants("add", "os", cpu={"simd": "path:dirname"}, cuda={"tile": "path:basename"})
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    assert ladder.launcher("cpu", None)("a/b") == "a"
    with pytest.raises(ImportError, match=r"^add: CuPy arrays need Numba-CUDA, which is not installed: pip install"):
        ladder.launcher("cuda", None)
    monkeypatch.setattr(dispatch, "find_spec", lambda name: name)
    assert ladder.launcher("cuda", None)("a/b") == "b"


class TestChosen:
    """Which variant a call takes, and why."""

    def test_the_default_and_what_is_asked_for(self):
        assert LADDER.chosen("cpu") == ("simd", "the default: the last rung of the ladder")
        assert LADDER.chosen("cpu", "naive") == ("naive", "asked for")
        assert Variants("add", "os", cpu={"simd": "path:basename"}).chosen("cpu") == ("simd", "the only one")

    def test_a_rule_is_asked_of_the_operands(self):
        ladder = Variants("add", "os", cpu={"a": "path:dirname", "b": "path:basename"}, rule={"cpu": "path:split"})
        assert ladder.chosen("cpu", None, "b/of these") == ("b", "of these")
        assert ladder.chosen("cpu", "a", "b/of these") == ("a", "asked for")

    def test_what_there_is_not(self):
        with pytest.raises(ValueError, match="^add: variant is 'fast': must be one of 'naive', 'simd'$"):
            LADDER.chosen("cpu", "fast")
        with pytest.raises(TypeError, match="^add: no kernel for cuda arrays: there are kernels for cpu$"):
            LADDER.chosen("cuda")

    @pytest.mark.parametrize("op", kernels.VARIANTS)
    def test_every_operation_tells(self, op):
        name, why = kernels.VARIANTS[op].chosen("cpu")
        assert kernels.VARIANTS[op].launcher("cpu", name) is kernels.VARIANTS[op].launcher("cpu", None)
        assert why in ("the only one", "the default: the last rung of the ladder")
