"""JAX's operations, each in one jit; gradients by vjp, where XLA drops what of the forward pass they do not need."""

import numpy as np

from ..case import keeping


def candidates(step) -> dict:
    """One, if the operation is among those below; float64 would have to be turned on for the whole process."""
    import jax

    functions = _functions(jax)
    if step.op not in functions or step.arrays[0].dtype != np.float32:
        return {}
    function = functions[step.op]
    arrays = [jax.numpy.array(array) for array in step.arrays]
    if not step.wrt:
        run = jax.jit(lambda *arrays: function(*arrays, **step.options))
        return {"jax": keeping(lambda: run(*arrays).block_until_ready())}
    dy = jax.numpy.array(step.dy)

    @jax.jit
    def gradients(dy, *arrays):
        def of_wanted(*wanted):
            given = list(arrays)
            for i, array in zip(step.wrt, wanted):
                given[i] = array
            return function(*given, **step.options)

        return jax.vjp(of_wanted, *(arrays[i] for i in step.wrt))[1](dy)

    def read(found):
        return tuple(np.asarray(array) for array in found)

    return {"jax": keeping(lambda: jax.block_until_ready(gradients(dy, *arrays)), read)}


def _functions(jax):
    """Our operations in JAX's words."""
    nn, numpy, lax = jax.nn, jax.numpy, jax.lax

    def matmul(a, b, transpose_a, transpose_b):
        return numpy.matmul(
            numpy.swapaxes(a, -1, -2) if transpose_a else a, numpy.swapaxes(b, -1, -2) if transpose_b else b
        )

    def conv2d(x, w, strides=1, dilation=1, groups=1, padding="VALID"):
        return lax.conv_general_dilated(
            x, w, (strides, strides), padding, rhs_dilation=(dilation, dilation), feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    def max_pool2d(x, pool_size, strides, padding):
        window, steps = (1, pool_size, pool_size, 1), (1, strides, strides, 1)
        return lax.reduce_window(x, -numpy.inf, lax.max, window, steps, padding.upper())

    def conv2d_max_pool2d(x, w, b, padding, activation):
        return max_pool2d(nn.relu(conv2d(x, w, padding=padding.upper()) + b), 2, 2, "valid")

    def avg_pool2d(x, pool_size, strides, padding):
        def sums(x):
            window, steps = (1, pool_size, pool_size, 1), (1, strides, strides, 1)
            return lax.reduce_window(x, 0.0, lax.add, window, steps, padding.upper())

        return sums(x) / (pool_size**2 if padding == "valid" else sums(numpy.ones((1, *x.shape[1:3], 1), x.dtype)))

    def dense(x, w, b, activation):
        return nn.relu(x @ w + b)

    def softmax_cross_entropy(logits, t):
        return -(t * nn.log_softmax(logits)).sum(-1).mean()

    elementwise = {op: getattr(nn, op) for op in ("relu", "sigmoid", "tanh", "silu", "softmax", "log_softmax")}
    own = (matmul, conv2d, conv2d_max_pool2d, max_pool2d, avg_pool2d, dense, softmax_cross_entropy)
    return {
        **elementwise,
        "gelu": lambda x: nn.gelu(x, approximate=False),
        **{function.__name__: function for function in own},
    }
