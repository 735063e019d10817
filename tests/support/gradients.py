"""Gradients of the tape against central differences in float64, along one random direction for each input."""

import numpy as np

from handloom.nn import Tensor, no_grad

EPSILON = 1e-6


def check_gradients(function, *arrays, rtol=1e-6):
    """`function` takes and returns tensors (one, or a tuple); every array must be float64."""
    rng = np.random.default_rng(11)
    tensors = [Tensor(array.copy(), requires_grad=True) for array in arrays]
    outputs = function(*tensors)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = [rng.standard_normal(output.shape) for output in outputs]
    total = (outputs[0] * weights[0]).sum()
    for output, weight in zip(outputs[1:], weights[1:]):
        total = total + (output * weight).sum()
    total.backward()

    def value(arrays):
        with no_grad():
            outputs = function(*(Tensor(array) for array in arrays))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return sum(float((output.data * weight).sum()) for output, weight in zip(outputs, weights))

    for index, (tensor, array) in enumerate(zip(tensors, arrays)):
        assert tensor.grad.shape == array.shape
        assert tensor.grad.dtype == array.dtype
        direction = rng.standard_normal(array.shape)
        ahead = [a + EPSILON * direction if i == index else a for i, a in enumerate(arrays)]
        behind = [a - EPSILON * direction if i == index else a for i, a in enumerate(arrays)]
        slope = (value(ahead) - value(behind)) / (2 * EPSILON)
        found = float((tensor.grad * direction).sum())
        np.testing.assert_allclose(found, slope, rtol=rtol, atol=1e-8, err_msg=f"gradient of input {index}")
