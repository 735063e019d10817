"""Compute kernels: plain functions over plain arrays.

Every operation is here under its own name, with `_forward` and `_backward` beside it where it can be differentiated:

    from handloom import kernels
    y = kernels.conv2d(x, w, b, strides=2, padding="same")
    y, saved = kernels.conv2d_forward(x, w, b)
    dx, dw, db = kernels.conv2d_backward(dy, saved)

`VARIANTS` lists each operation's ladder. Importing this compiles nothing.
"""

from .activation import (
    elu,
    elu_backward,
    elu_forward,
    gelu,
    gelu_backward,
    gelu_forward,
    leaky_relu,
    leaky_relu_backward,
    leaky_relu_forward,
    log_softmax,
    log_softmax_backward,
    log_softmax_forward,
    relu,
    relu_backward,
    relu_forward,
    sigmoid,
    sigmoid_backward,
    sigmoid_forward,
    silu,
    silu_backward,
    silu_forward,
    softmax,
    softmax_backward,
    softmax_forward,
    softplus,
    softplus_backward,
    softplus_forward,
    tanh,
    tanh_backward,
    tanh_forward,
)
from .convolution import VARIANTS as _convolution
from .convolution import conv2d, conv2d_backward, conv2d_forward
from .gemm import (
    FUSED_ACTIVATIONS,
    dense,
    dense_backward,
    dense_forward,
    matmul,
    matmul_backward,
    matmul_forward,
)
from .gemm import VARIANTS as _gemm
from .optimizers import (
    adam_update,
    adamw_update,
    rmsprop_update,
    sgd_update,
)
from .pooling import VARIANTS as _pooling
from .pooling import (
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool2d_forward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    global_avg_pool2d_forward,
    global_max_pool2d,
    global_max_pool2d_backward,
    global_max_pool2d_forward,
    max_pool2d,
    max_pool2d_backward,
    max_pool2d_forward,
)
from .randomness import (
    dropout,
    dropout_backward,
    dropout_forward,
    normal,
    permutation,
    truncated_normal,
    uniform,
)
from .recurrent import VARIANTS as _recurrent
from .recurrent import lstm, lstm_backward, lstm_cell, lstm_cell_backward, lstm_cell_forward, lstm_forward

VARIANTS = {**_convolution, **_gemm, **_pooling, **_recurrent}

__all__ = [
    "FUSED_ACTIVATIONS",
    "VARIANTS",
    "adam_update",
    "adamw_update",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "conv2d",
    "conv2d_backward",
    "conv2d_forward",
    "dense",
    "dense_backward",
    "dense_forward",
    "dropout",
    "dropout_backward",
    "dropout_forward",
    "elu",
    "elu_backward",
    "elu_forward",
    "gelu",
    "gelu_backward",
    "gelu_forward",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "global_avg_pool2d_forward",
    "global_max_pool2d",
    "global_max_pool2d_backward",
    "global_max_pool2d_forward",
    "leaky_relu",
    "leaky_relu_backward",
    "leaky_relu_forward",
    "log_softmax",
    "log_softmax_backward",
    "log_softmax_forward",
    "lstm",
    "lstm_backward",
    "lstm_cell",
    "lstm_cell_backward",
    "lstm_cell_forward",
    "lstm_forward",
    "matmul",
    "matmul_backward",
    "matmul_forward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "normal",
    "permutation",
    "relu",
    "relu_backward",
    "relu_forward",
    "rmsprop_update",
    "sgd_update",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_forward",
    "silu",
    "silu_backward",
    "silu_forward",
    "softmax",
    "softmax_backward",
    "softmax_forward",
    "softplus",
    "softplus_backward",
    "softplus_forward",
    "tanh",
    "tanh_backward",
    "tanh_forward",
    "truncated_normal",
    "uniform",
]
