"""Matrix products: `matmul`, and `dense` (a product with bias and activation in the same pass).

    matmul   C[m, n] = sum over k of A[m, k] B[k, n]
    dense    Y[m, n] = f( sum over k of X[m, k] W[k, n]  +  b[n] )

The text on the whole family: K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication",
ACM TOMS 34 (2008).

Workspace of one product of (M, K) and (K, N), for each variant:

    naive, blocked   none
    packed           B once more, N rounded up to 32, and four rows of A
    simd             one K block of B, in panels: at most 3 KB a column, N rounded up to 32 (16 with float64);
                     and 128 KB of the stack (256 with AVX-512)
    threaded         as simd, or 400 KB of each thread's stack (520 with AVX-512); or where M <= 128 or C has up to
                     256 KB, a copy of C for each 2 KB of a row of A, their number rounded up to an even one, 16 at
                     most; or where M <= 64 A once more, M rounded up to 32; or where N <= 12 B once more, or as many
                     copies of C and one. The shape decides which.

Arrays that are not C-contiguous are copied first, except that products read transposed operands as they are.

On a GPU tensor and warpgroup copy an operand whose rows are not whole 16 bytes, and the gradient of an operand that was
broadcast takes copies of its two factors, spread over the batch. Where C has so few blocks that processors would be
idle, registers, vectors, tensor and warpgroup cut sums of 256 terms or more into parts, which are copies of C (of
float32 where it is bfloat16): together at most 8 MB, 16 with tensor, or 32 with warpgroup.

On a GPU all arrays may also be bfloat16 (of `ml_dtypes`): products are exact, sums, biases and activations in float32,
and each result is rounded once. The tensor cores multiply float32 only when asked to, by variant="tensor", since they
round it to ten bits of mantissa (TF32).
"""

import math
from typing import NamedTuple

import numpy as np

from .. import checks
from ..arrays import contiguous, namespace
from ..dispatch import Variants, backend, device_of

# Activations whose derivative follows from their own output, so that nothing else need be kept for backward.
FUSED_ACTIVATIONS = (None, "relu", "sigmoid", "tanh")

_LADDER = {
    "naive": "cpu:gemm_naive",
    "blocked": "cpu:gemm_blocked",
    "packed": "cpu:gemm_packed",
    "simd": "cpu:gemm_simd",
    "threaded": "cpu:gemm_threaded",
}
_CUDA_LADDER = {
    "naive": "cuda:gemm_naive",
    "shared": "cuda:gemm_shared",
    "registers": "cuda:gemm_registers",
    "vectors": "cuda:gemm_vectors",
    "tensor": "cuda:gemm_tensor",
    "warpgroup": "cuda:gemm_warpgroup",
}
VARIANTS = {
    op: Variants(
        op, __name__, cpu=_LADDER, cuda=_CUDA_LADDER,
        default={"cuda": "cuda:gemm_default"}, rule={"cuda": "cuda:gemm_rule"},
    )
    for op in ("matmul", "dense")
}  # fmt: skip


class MatmulSaved(NamedTuple):
    """What `matmul_backward` needs: both operands, as they were given."""

    a: np.ndarray
    b: np.ndarray
    transpose_a: bool
    transpose_b: bool
    variant: str | None


class DenseSaved(NamedTuple):
    """What `dense_backward` needs: the operands, the output and the activation."""

    x: np.ndarray
    w: np.ndarray
    has_bias: bool
    y: np.ndarray
    activation: str | None
    variant: str | None


def matmul(a, b, *, transpose_a=False, transpose_b=False, out=None, variant=None):
    """C[..., m, n] = sum over k of op(A)[..., m, k] op(B)[..., k, n], with op(A) = A or A transposed.

    Parameters
    ----------
    a : (..., M, K) float32 | float64 (on a GPU also bfloat16), any strides; (..., K, M) with transpose_a
    b : (..., K, N), dtype as a; (..., N, K) with transpose_b
    out : (..., M, N), C-contiguous and writeable, dtype as a; may not overlap a or b
    variant : a name in VARIANTS["matmul"]["cpu"]: naive, blocked, packed, simd, threaded (the default); on a GPU naive,
        shared, registers, vectors (the default where the rows of both operands are whole 16 bytes, else registers), and
        tensor (for float32 in TF32; the default for bfloat16) and warpgroup (for bfloat16 on an H100 or H200)

    Leading dimensions are batches and broadcast as NumPy's do. Workspace: that of one product, backward of one for each
    gradient. Where an operand was broadcast, its gradient is added up batch by batch, which takes one matrix of it; on
    a GPU it is one product, whose sums run over those batches too.

    Returns
    -------
    c : (..., M, N), dtype as a. K = 0 gives zeros.

    Raises
    ------
    ValueError : shapes that do not fit, a variant that is unknown or does not suit, an `out` that is read-only or may
        share memory with a or b.
    TypeError : dtypes other than float32, float64 and, on a GPU, bfloat16; or mixed.

    Saved for backward: a and b.  Gradients: dA = dC op(B)ᵀ, dB = op(A)ᵀ dC, summed over broadcast dimensions.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.matmul(np.ones((2, 3)), np.ones((3, 1)))
    array([[3.],
           [3.]])
    """
    if type(a) is type(b) is np.ndarray and variant is None:
        c = backend(__name__, "cpu").product_at_once(a, b, c=out, turn_a=transpose_a, turn_b=transpose_b)
        if c is not None:
            return c
    launcher = VARIANTS["matmul"].launcher(device_of("matmul", {"out": out}, a=a, b=b), variant)
    batch, m, n = _matmul_shape(a, b, transpose_a, transpose_b)
    c = _output("matmul", out, (*batch, m, n), a=a, b=b)
    return _products(launcher, batch, _turned(a, transpose_a), _turned(b, transpose_b), c)


def matmul_forward(a, b, *, transpose_a=False, transpose_b=False, variant=None):
    """`matmul`, and what its backward needs."""
    c = matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b, variant=variant)
    return c, MatmulSaved(a, b, transpose_a, transpose_b, variant)


def matmul_backward(dc, saved, needs=None):
    """(dA, dB) from dC (..., M, N); None where `needs`, two bools, says so."""
    a, b, transpose_a, transpose_b, variant = saved
    launcher = VARIANTS["matmul"].launcher(device_of("matmul_backward", dc=dc, a=a, b=b), variant)
    need_a, need_b = checks.wanted("matmul_backward", needs, ("a", "b"))
    batch, m, n = _matmul_shape(a, b, transpose_a, transpose_b)
    checks.floats("matmul_backward", bfloat16_on_gpus=True, a=a, dc=dc)
    checks.shape("matmul_backward", (*batch, m, n), dc=dc)
    da = db = None
    if need_a:  # op(A) = A: dC op(B)ᵀ; op(A) = Aᵀ: op(B) dCᵀ
        factors = (_turned(b, transpose_b), _turned(dc)) if transpose_a else (dc, _turned(b, not transpose_b))
        da = _summed_products(launcher, batch, *factors, a.shape)
    if need_b:  # op(B) = B: op(A)ᵀ dC; op(B) = Bᵀ: dCᵀ op(A)
        factors = (_turned(dc), _turned(a, transpose_a)) if transpose_b else (_turned(a, not transpose_a), dc)
        db = _summed_products(launcher, batch, *factors, b.shape)
    return da, db


def dense(x, w, b=None, *, activation=None, out=None, variant=None):
    """Y[..., n] = f( sum over k of X[..., k] W[k, n]  +  b[n] ), bias and f applied while the tile is in registers.

    Parameters
    ----------
    x : (..., K) float32 | float64 (on a GPU also bfloat16), at least 2-D
    w : (K, N), dtype as x
    b : (N,), dtype as x, or None
    activation : None, "relu", "sigmoid" or "tanh"
    out : (..., N), C-contiguous and writeable, dtype as x; may not overlap the inputs
    variant : as in `matmul`

    Returns y : (..., N).  Raises as `matmul`.  Saved for backward: x, w and y.  Gradients, with dZ = dY f'(Z):
    dX = dZ Wᵀ, dW = Xᵀ dZ, db = the sum of dZ's rows.

    Workspace: that of one product. Backward: that of one for dX and one for dW, dZ (as large as y) where there is an
    activation, and where there is one or a bias 16 rows of dZ. Layers of up to 500,000 multiply-adds and 64 rows take W
    once more instead of the products' workspace.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.dense(np.ones((1, 2)), np.array([[1.0, -1.0], [1.0, -1.0]]), activation="relu")
    array([[2., 0.]])
    """
    if type(x) is type(w) is np.ndarray and variant is None and activation in FUSED_ACTIVATIONS:
        y = backend(__name__, "cpu").product_at_once(x, w, b, activation, out)
        if y is not None:
            return y
    launcher = VARIANTS["dense"].launcher(device_of("dense", {"b": b, "out": out}, x=x, w=w), variant)
    _check_dense(x, w, b, activation)
    y = _output("dense", out, (*x.shape[:-1], w.shape[1]), x=x, w=w, b=b)
    launcher(_as_rows(x), w, _as_rows(y), None if b is None else contiguous(b), activation)
    return y


def dense_forward(x, w, b=None, *, activation=None, variant=None):
    """`dense`, and what its backward needs."""
    y = dense(x, w, b, activation=activation, variant=variant)
    return y, DenseSaved(x, w, b is not None, y, activation, variant)


def dense_backward(dy, saved, needs=None):
    """(dX, dW, db) from dY (..., N); None where `needs`, three bools, says so, and db where there was no bias."""
    x, w, has_bias, y, activation, variant = saved
    device = device_of("dense_backward", dy=dy, x=x)
    launcher = VARIANTS["dense"].launcher(device, variant)
    need_x, need_w, need_b = checks.wanted("dense_backward", needs, ("x", "w", "b"))
    checks.floats("dense_backward", bfloat16_on_gpus=True, x=x, dy=dy)
    checks.shape("dense_backward", y.shape, dy=dy)
    kernels, rows = backend(__name__, device), _as_rows(dy)
    if device == "cpu" and variant in (None, "threaded"):
        found = kernels.dense_backward_at_once(rows, _as_rows(x), w, _as_rows(y), activation, need_x, need_w)
        if found is not None:
            dx, dw, db = found
            return dx if dx is None else dx.reshape(x.shape), dw, db if need_b and has_bias else None
    if activation is not None or (need_b and has_bias):
        rows, db = kernels.dense_epilogue_backward(rows, _as_rows(y), activation)
    dx = dw = None
    xp = namespace(x)
    if need_x:
        dx = xp.empty(x.shape, x.dtype)
        launcher(rows, w.T, _as_rows(dx))
    if need_w:
        dw = xp.empty(w.shape, w.dtype)
        launcher(_as_rows(x).T, rows, dw)
    return dx, dw, db if need_b and has_bias else None


def _as_rows(x):
    """x with one axis for all but the last, which may be of length 0."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _matmul_shape(a, b, transpose_a, transpose_b):
    """Check the operands; the batch shape, M and N."""
    checks.floats("matmul", bfloat16_on_gpus=True, a=a, b=b)
    if a.ndim < 2 or b.ndim < 2:
        raise ValueError(
            f"matmul: a is {a.shape} and b is {b.shape}: must have at least 2 dimensions (..., M, K), (..., K, N)"
        )
    m, k = a.shape[:-3:-1] if transpose_a else a.shape[-2:]
    rows, n = b.shape[:-3:-1] if transpose_b else b.shape[-2:]
    if k != rows:
        i, j = 0 if transpose_a else 1, 1 if transpose_b else 0
        raise ValueError(
            f"matmul: a is {a.shape} and b is {b.shape}: a.shape[{i - 2}] must equal b.shape[{j - 2}] ({k} != {rows})"
        )
    if a.ndim == 2 and b.ndim == 2:
        return (), m, n
    try:
        return np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, n
    except ValueError:
        raise ValueError(
            f"matmul: a is {a.shape} and b is {b.shape}: "
            f"the batch dimensions {a.shape[:-2]} and {b.shape[:-2]} must broadcast"
        ) from None


def _check_dense(x, w, b, activation):
    checks.floats("dense", bfloat16_on_gpus=True, x=x, w=w, b=b)
    checks.rank("dense", 2, "(K, N)", w=w)
    if x.ndim < 2 or x.shape[-1] != w.shape[0]:
        raise ValueError(f"dense: x is {x.shape} and w is {w.shape}: x must be (..., {w.shape[0]}), at least 2-D")
    if b is not None and b.shape != (w.shape[1],):
        raise ValueError(f"dense: b is {b.shape} and w is {w.shape}: b must be ({w.shape[1]},)")
    checks.choice("dense", "activation", activation, FUSED_ACTIVATIONS)


def _output(op, out, shape, **inputs):
    """The array that was given for the result, if it suits, or a new one beside the first input."""
    first = next(iter(inputs.values()))
    xp, dtype = namespace(first), first.dtype
    if out is None:
        return xp.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(f"{op}: out is {out.shape} {out.dtype}: must be a C-contiguous {shape} array of {dtype}")
    if not getattr(out.flags, "writeable", True):  # CuPy's arrays always are, and do not say so
        raise ValueError(f"{op}: out is read-only: the result is written to it, pass an array that is writeable")
    for name, array in inputs.items():
        if array is not None and xp.may_share_memory(out, array):
            raise ValueError(f"{op}: out may share memory with {name}: pass an array of its own, or None for a new one")
    return out


def _turned(x, turn=True):
    return x.swapaxes(-1, -2) if turn else x


def _products(launcher, batch, a, b, c):
    """C = A B, matrix by matrix of the batch, to which the operands are broadcast."""
    if not batch:
        launcher(a, b, c)
        return c
    if (stack := getattr(launcher, "stack", None)) is not None and stack(a, b, c):
        return c
    a, b = (namespace(x).broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))
    for index in np.ndindex(batch):
        launcher(a[index], b[index], c[index])
    return c


def _summed_products(launcher, batch, a, b, shape):
    """The same, added up over the dimensions of the batch that are missing or 1 in `shape`."""
    xp = namespace(a)
    if shape[:-2] == batch:
        return _products(launcher, batch, a, b, xp.empty(shape, a.dtype))
    if xp is not np:
        return _long_products(launcher, batch, a, b, xp.empty(shape, a.dtype))
    total, product = xp.zeros(shape, a.dtype), xp.empty(shape[-2:], a.dtype)
    a, b = (xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))
    missing = len(batch) + 2 - len(shape)
    for index in np.ndindex(batch):
        launcher(a[index], b[index], product)
        total[tuple(i % n for i, n in zip(index[missing:], shape))] += product
    return total


def _long_products(launcher, batch, a, b, c):
    """The same as one product for each matrix of C: what is added up lies side by side along K."""
    xp, front = namespace(a), (1,) * (len(batch) + 2 - c.ndim)
    sizes = (*front, *c.shape[:-2])
    kept = tuple(i for i, n in enumerate(batch) if sizes[i] == n)
    added = tuple(i for i, n in enumerate(batch) if sizes[i] != n)
    last = len(batch)
    shape = tuple(batch[i] for i in kept)
    k = a.shape[-1] * math.prod(batch[i] for i in added)
    a, b = (xp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))
    a = a.transpose(*kept, last, *added, last + 1).reshape(*shape, c.shape[-2], k)
    b = b.transpose(*kept, *added, last, last + 1).reshape(*shape, k, c.shape[-1])
    _products(launcher, shape, a, b, c.reshape(*shape, *c.shape[-2:]))
    return c
