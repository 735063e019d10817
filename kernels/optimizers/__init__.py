"""Optimizer updates: `sgd_update`, `rmsprop_update`, `adam_update`, `adamw_update`, in Keras's exact formulas.

Each is one pass over memory that reads the weights w, their gradient g and the state, and writes w and the state in
place. The formulas below go through the elements one by one; √ and / are rounded once, as by the processor's own
instructions. All arrays have the shape of w, in float32 or all in float64. w and the state must be C-contiguous and
writeable; g may have any strides and is copied if it is not C-contiguous, the only memory that is taken. No two arrays
may share memory, which is not checked. Nothing is changed where an error is raised.
"""

from .. import checks
from ..arrays import contiguous, is_contiguous
from ..dispatch import Variants, device_of

# One kernel an operation: each is bound by memory already in its simplest form, so there is no ladder to climb.
_KERNELS = {
    op: Variants(op, __name__, cpu={"vectors": f"cpu:{kernel}"}, cuda={"vectors": f"cuda:{kernel}"})
    for op, kernel in (
        ("sgd_update", "sgd"),
        ("rmsprop_update", "rmsprop"),
        ("adam_update", "adam"),
        ("adamw_update", "adam"),
    )
}


def sgd_update(w, g, velocity=None, *, learning_rate, momentum=0.0, nesterov=False):
    """w -= learning_rate g, or with momentum

        velocity = momentum velocity - learning_rate g
        w += velocity                                        nesterov: w += momentum velocity - learning_rate g

    Parameters
    ----------
    w : any shape, float32 | float64, changed in place
    g : as w
    velocity : as w, changed in place; None (or anything: it is not looked at) where the momentum is 0
    learning_rate, momentum : numbers, 0 <= momentum < 1 or so
    nesterov : look ahead by one step of the velocity

    Returns None.
    Raises ValueError : shapes that differ, w or velocity not contiguous or read-only, momentum without a velocity.
    TypeError : dtypes other than float32 and float64, or mixed.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> w = np.array([1.0, 2.0])
    >>> kernels.sgd_update(w, np.array([1.0, -1.0]), learning_rate=0.5)
    >>> w
    array([0.5, 2.5])
    """
    if not momentum:
        velocity = None
    elif velocity is None:
        raise ValueError(f"sgd_update: momentum is {momentum} and velocity None: momentum needs a velocity like w")
    launcher, flat = _prepare("sgd_update", {"velocity": velocity}, w=w, g=g)
    launcher(*flat, *sgd_numbers(learning_rate, momentum), bool(nesterov))


def rmsprop_update(w, g, v, velocity=None, mean=None, *, learning_rate, rho, momentum, epsilon):
    """The gradient over a running root mean square of itself (T. Tieleman, G. Hinton, lecture 6.5, 2012):

        v = rho v + (1 - rho) g²
        mean = rho mean + (1 - rho) g                         with a mean: "centered", by the variance
        step = learning_rate g / √(v + epsilon)               centered: √(v - mean² + epsilon)
        w -= step                                             with momentum: velocity = momentum velocity + step
                                                                             w -= velocity
    Parameters
    ----------
    w, g, v : as in `sgd_update`; v is the running mean square, from zeros
    velocity : as w; None (or anything: it is not looked at) where the momentum is 0
    mean : as w, the running mean of g; None: not centered

    Returns None.  Raises as `sgd_update`.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> w, v = np.array([1.0]), np.array([0.0])
    >>> kernels.rmsprop_update(w, np.array([4.0]), v, learning_rate=0.25, rho=0.75, momentum=0.0, epsilon=0.0)
    >>> w, v
    (array([0.5]), array([4.]))
    """
    if not momentum:
        velocity = None
    elif velocity is None:
        raise ValueError(f"rmsprop_update: momentum is {momentum} and velocity None: momentum needs a velocity like w")
    launcher, flat = _prepare("rmsprop_update", {"velocity": velocity, "mean": mean}, w=w, g=g, v=v)
    launcher(*flat, *rmsprop_numbers(learning_rate, rho, momentum, epsilon))


def adam_update(w, g, m, v, *, step, learning_rate, beta_1, beta_2, epsilon):
    """The running mean of the gradient over the root of its running square (D. Kingma, J. Ba, ICLR 2015):

        m += (1 - beta_1) (g - m)
        v += (1 - beta_2) (g² - v)
        w -= alpha m / (√v + epsilon)             alpha = learning_rate √(1 - beta_2^step) / (1 - beta_1^step)

    (the paper's second form: its epsilon is not corrected for the first steps).

    Parameters
    ----------
    w, g : as in `sgd_update`
    m, v : as w, changed in place; zeros before the first step
    step : 1, 2, 3 ...: which step this is
    learning_rate, epsilon : numbers
    beta_1, beta_2 : from 0 to below 1

    Returns None.  Raises as `sgd_update`; ValueError for a step or a beta outside the range.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> w, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> options = {"learning_rate": 0.5, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 0.0}
    >>> kernels.adam_update(w, np.array([3.0]), m, v, step=1, **options)
    >>> w.round(6)
    array([0.5])
    """
    numbers = adam_numbers(step, learning_rate, beta_1, beta_2, epsilon)
    launcher, flat = _prepare("adam_update", {}, w=w, g=g, m=m, v=v)
    launcher(*flat, *numbers)


def adamw_update(w, g, m, v, *, step, learning_rate, beta_1, beta_2, epsilon, weight_decay):
    """`adam_update` after w -= learning_rate weight_decay w (I. Loshchilov, F. Hutter, ICLR 2019).

    >>> import numpy as np
    >>> from handloom import kernels
    >>> w, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> options = {"learning_rate": 0.5, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1.0, "weight_decay": 0.5}
    >>> kernels.adamw_update(w, np.zeros(1), m, v, step=1, **options)
    >>> w
    array([0.75])
    """
    numbers = adam_numbers(step, learning_rate, beta_1, beta_2, epsilon, weight_decay, op="adamw_update")
    launcher, flat = _prepare("adamw_update", {}, w=w, g=g, m=m, v=v)
    launcher(*flat, *numbers)


# The numbers that kernels compute with, from those that users give: a recorded update is played back with others.


def sgd_numbers(learning_rate, momentum):
    return float(learning_rate), float(momentum)


def rmsprop_numbers(learning_rate, rho, momentum, epsilon):
    return float(learning_rate), float(rho), 1.0 - rho, float(momentum), float(epsilon)


def adam_numbers(step, learning_rate, beta_1, beta_2, epsilon, weight_decay=0.0, op="adam_update"):
    """The first is the learning rate, corrected for running means that started from zero."""
    if not 0 <= beta_1 < 1 or not 0 <= beta_2 < 1:
        raise ValueError(f"{op}: beta_1 is {beta_1} and beta_2 {beta_2}: both must be at least 0 and below 1")
    if not step >= 1:
        raise ValueError(f"{op}: step is {step}: steps count from 1")
    rate = float(learning_rate)
    alpha = rate * (1.0 - beta_2**step) ** 0.5 / (1.0 - beta_1**step)
    return alpha, 1.0 - beta_1, 1.0 - beta_2, float(epsilon), rate * weight_decay


def _prepare(op, optional, /, **arrays):
    """The launcher, and all arrays (on the CPU in one dimension), those that may be None last, once they are known to
    fit. Small networks spend their time here, so what is right passes quickly, and only what is not is looked at
    closely."""
    device = device_of(op, optional, **arrays)
    arrays.update(optional)
    launcher = _KERNELS[op].launcher(device, None)
    on_cpu, w, g = device == "cpu", arrays["w"], arrays["g"]
    dtype, shape = w.dtype, w.shape
    if dtype not in checks.FLOATS:
        _refuse(op, arrays)
    flat = []
    for array in arrays.values():
        if array is None:
            flat.append(None)
            continue
        if array.dtype != dtype or array.shape != shape:
            _refuse(op, arrays)
        if not (array.flags.carray if on_cpu else is_contiguous(array)):  # CuPy's arrays are always writeable
            if array is not g:
                _refuse(op, arrays)
            array = contiguous(array)
        flat.append(array.reshape(-1) if on_cpu and array.ndim != 1 else array)
    return launcher, flat


def _refuse(op, arrays):
    """Say what is wrong with the arrays."""
    checks.floats(op, **arrays)
    checks.shape(op, arrays["w"].shape, **arrays)
    for name, array in arrays.items():
        if array is None or name == "g":
            continue
        if not array.flags.c_contiguous:
            raise ValueError(
                f"{op}: {name} has strides {array.strides}: it is changed in place and must be C-contiguous, "
                f"np.ascontiguousarray({name}) makes a copy that is"
            )
        if not getattr(array.flags, "writeable", True):
            raise ValueError(f"{op}: {name} is read-only: it is changed in place, pass {name}.copy()")
