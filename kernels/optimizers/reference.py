"""Optimizer updates in plain NumPy: what the kernels are checked against.

Each returns the new values of w and of the state that is in use, in the order of the arguments.
"""

import numpy as np


def sgd_update(w, g, velocity=None, *, learning_rate, momentum=0.0, nesterov=False):
    if momentum == 0:
        return (w - learning_rate * g,)
    velocity = momentum * velocity - learning_rate * g
    return w + (momentum * velocity - learning_rate * g if nesterov else velocity), velocity


def rmsprop_update(w, g, v, velocity=None, mean=None, *, learning_rate, rho, momentum, epsilon):
    v = rho * v + (1 - rho) * g**2
    variance = v
    if mean is not None:
        mean = rho * mean + (1 - rho) * g
        variance = v - mean**2
    step = learning_rate * g / np.sqrt(variance + epsilon)
    if momentum:
        velocity = step = momentum * velocity + step
    return tuple(array for array in (w - step, v, velocity, mean) if array is not None)


def adam_update(w, g, m, v, *, step, learning_rate, beta_1, beta_2, epsilon):
    m = m + (1 - beta_1) * (g - m)
    v = v + (1 - beta_2) * (g**2 - v)
    alpha = learning_rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    return w - alpha * m / (np.sqrt(v) + epsilon), m, v


def adamw_update(w, g, m, v, *, weight_decay, learning_rate, **options):
    return adam_update(w - learning_rate * weight_decay * w, g, m, v, learning_rate=learning_rate, **options)
