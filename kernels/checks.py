"""Argument checks that every contract shares, and the error texts they raise.

One form: operation, what came, the rule, the way out. `ValueError` for values and shapes, `TypeError` for types and
dtypes. The checks run before anything is computed or launched.
"""

import numpy as np

from .dispatch import device_of

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def floats(op: str, *, bfloat16_on_gpus=False, **arrays) -> None:
    """All arrays (None is skipped) are float32, or all are float64; or, where that is allowed, all are bfloat16."""
    first = first_name = None
    for name, array in arrays.items():
        if array is None:
            continue
        dtype = array.dtype
        if dtype is first:  # NumPy has one object for each of its own dtypes
            continue
        if dtype not in FLOATS and not (bfloat16_on_gpus and _is_bfloat16_on_a_gpu(op, array)):
            also = ", on a GPU also bfloat16" if bfloat16_on_gpus else ""
            raise TypeError(
                f"{op}: {name} is {dtype}: must be float32 or float64{also}, for example {name}.astype('float32')"
            )
        if first is not None and dtype != first:
            raise TypeError(
                f"{op}: {first_name} is {first} and {name} is {dtype}: dtypes must be the same, for example "
                f"{name}.astype('{first}')"
            )
        first, first_name = dtype, name


def _is_bfloat16_on_a_gpu(op, array):
    return array.dtype.name == "bfloat16" and device_of(op, array=array) == "cuda"


def rank(op: str, ndim: int, layout: str, **arrays) -> None:
    """All arrays have `ndim` dimensions, which the text names, for example "(N, H, W, C)"."""
    for name, array in arrays.items():
        if array is not None and array.ndim != ndim:
            raise ValueError(f"{op}: {name} is {array.shape}: must have {ndim} dimensions {layout}")


def shape(op: str, expected: tuple, **arrays) -> None:
    """All arrays have exactly this shape."""
    for name, array in arrays.items():
        if array is not None and array.shape != expected:
            raise ValueError(f"{op}: {name} is {array.shape}: must be {expected}")


def positive(op: str, **numbers) -> None:
    """All numbers are integers of at least one."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{op}: {name} must be a positive integer, got {number!r}")


def pair(op: str, name: str, value) -> tuple[int, int]:
    """A positive integer or two of them, as two."""
    two = value if isinstance(value, tuple | list) else (value, value)
    if len(two) != 2:
        raise ValueError(f"{op}: {name} must be a positive integer or two of them, got {value!r}")
    for number in two:
        positive(op, **{name: number})
    return int(two[0]), int(two[1])


def two(op: str, name: str, value) -> tuple[int, int]:
    """`pair`, but the common forms at once and without a look at their values, which a cached function checks later."""
    if type(value) is int:
        return value, value
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int:
        return value
    return pair(op, name, value)


def not_empty(op: str, **arrays) -> None:
    """No array has zero elements."""
    for name, array in arrays.items():
        if array is not None and array.size == 0:
            raise ValueError(f"{op}: {name} is {array.shape}: must not be empty")


def choice(op: str, name: str, value, options) -> None:
    """The value is one of the options."""
    if value not in options:
        raise ValueError(f"{op}: {name} is {value!r}: must be one of {', '.join(map(repr, options))}")


def wanted(op: str, needs, names: tuple) -> tuple:
    """`needs` as a tuple of bools, one for each name; None means all."""
    if needs is None:
        return (True,) * len(names)
    if not isinstance(needs, tuple | list):
        raise TypeError(f"{op}: needs must be a tuple of bools, one for each of {', '.join(names)}, got {needs!r}")
    if len(needs) != len(names):
        raise ValueError(f"{op}: needs has {len(needs)} entries: must have one bool for each of {', '.join(names)}")
    return needs
