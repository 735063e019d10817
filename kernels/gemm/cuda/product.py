"""The launchers: from arrays with any strides to flat pointers, the right kernel and the number of its blocks."""

import math

from numba import float32, float64, uint16

from ...arrays import address, namespace
from ...launch import element_of
from .epilogue import CODES, activate
from .fragments import BLOCK, SHARED_BYTES
from .simple import TILE, naive, shared
from .tensor_cores import tensor
from .tiles import BLOCK_ROWS, SIDE, registers, vectors

# What the rungs multiply: bfloat16 goes to kernels as its bits.
PLAIN, FOR_TENSOR_CORES = (float32, float64), (float32, uint16)


def operand(x):
    """(flat array, stride of rows, stride of columns) of a 2-D array; copied if neither orientation is contiguous."""
    if x.flags.c_contiguous:
        return x.reshape(-1), x.shape[1], 1
    if x.flags.f_contiguous:
        return x.T.reshape(-1), 1, x.shape[0]
    return namespace(x).ascontiguousarray(x).reshape(-1), x.shape[1], 1


def _element(variant, c, elements):
    """The type of C's numbers, which must be one that the variant multiplies."""
    if (T := element_of(c)) in elements:
        return T
    if elements is PLAIN:
        rule = "must be 'tensor', the one for bfloat16"
    else:
        rule = "takes float32, as TF32, and bfloat16; 'naive', 'shared', 'registers' and 'vectors' take float64"
    raise ValueError(f"matmul: variant is '{variant}' and the arrays are {c.dtype}: {rule}")


def _launch(multiply, blocks, a, b, c, k, bias, activation):
    """Launch a product, and the activation after it where the product does not know it."""
    m, n = c.shape
    flat, some = c.reshape(-1), a[0] if bias is None else bias
    floor = 0.0 if activation == "relu" else -math.inf
    multiply((blocks,), *a, *b, flat, some, m, n, k, bias is not None, floor)
    if activation in ("sigmoid", "tanh"):
        activate(element_of(c))((-(-c.size // 256),), flat, c.size, CODES[activation])


def _simple(make, blocks_of):
    """The launcher of a rung that takes any strides."""

    def launch(a, b, c, bias=None, activation=None):
        T = _element(make.__name__, c, PLAIN)
        _launch(make(T), blocks_of(*c.shape, T), operand(a), operand(b), c, a.shape[1], bias, activation)

    return launch


def _blocks(m, n, T):
    """Blocks of the register tiles."""
    return -(-m // BLOCK_ROWS) * -(-n // (256 // T.bitwidth * SIDE))


gemm_naive = _simple(naive, lambda m, n, T: -(-m * n // 256))
gemm_shared = _simple(shared, lambda m, n, T: -(-m // TILE) * -(-n // TILE))
gemm_registers = _simple(registers, _blocks)


def _in_vectors(x):
    """(flat array, stride, whether it lies by rows) of a 2-D array whose rows, or columns, start on whole 16 bytes."""
    flat, by_row, by_column = operand(x)
    stride = max(by_row, by_column)
    whole = flat.size == 0 or (stride * x.itemsize % 16 == 0 and address(flat) % 16 == 0)
    return (flat, stride, by_column == 1) if whole else None


def gemm_vectors(a, b, c, bias=None, activation=None):
    """The one rung that does not suit every shape."""
    T = _element("vectors", c, PLAIN)
    left, right = _in_vectors(a), _in_vectors(b)
    if left is None or right is None:
        raise ValueError(
            f"matmul: variant is 'vectors', a is {a.shape} and b is {b.shape}: its rows must be whole 16 bytes; "
            "'naive', 'shared' and 'registers' take any"
        )
    multiply = vectors(T, left[2], right[2])
    _launch(multiply, _blocks(*c.shape, T), left[:2], right[:2], c, a.shape[1], bias, activation)


def _made_vectors(x):
    """What `_in_vectors` says, of the array or, where its rows are not whole 16 bytes, of a copy with longer ones."""
    if (found := _in_vectors(x)) is not None:
        return found
    by_rows = x.flags.c_contiguous or not x.flags.f_contiguous
    rows = x if by_rows else x.T
    count, length = rows.shape
    step = 16 // x.itemsize
    longer = namespace(x).zeros((count, -(-length // step) * step), x.dtype)
    longer[:, :length] = rows
    return longer.reshape(-1), longer.shape[1], by_rows


def gemm_tensor(a, b, c, bias=None, activation=None):
    """float32 as TF32, or bfloat16; any shape, since an operand that does not suit is copied."""
    E = _element("tensor", c, FOR_TENSOR_CORES)
    (m, n), k = c.shape, a.shape[1]
    left, right = _made_vectors(a), _made_vectors(b)
    multiply = tensor(E, left[2], not right[2])
    flat = c.reshape(-1)
    whole = n * c.itemsize % 16 == 0 and address(flat) % 16 == 0
    multiply(
        (-(-m // BLOCK) * -(-n // BLOCK),), *left[:2], *right[:2], flat, left[0] if bias is None else bias, m, n, k,
        bias is not None, CODES[activation], whole, shared=SHARED_BYTES,
    )  # fmt: skip


def gemm_rule(a, b):
    """(The variant that `gemm_default` takes for these operands, why); a batch of matrices counts as its rows."""
    if element_of(a) is uint16:
        return "tensor", "the only one for bfloat16"
    rows = [x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) for x in (a, b)]
    if all(_in_vectors(x) is not None for x in rows):
        return "vectors", "the default where the rows of both operands are whole 16 bytes"
    return "registers", "the default where the rows of an operand are not whole 16 bytes"


def gemm_default(a, b, c, bias=None, activation=None):
    """`tensor` for bfloat16; else `vectors` where it suits, else `registers`. TF32 is for those who ask for it."""
    launch = {"tensor": gemm_tensor, "vectors": gemm_vectors, "registers": gemm_registers}[gemm_rule(a, b)[0]]
    launch(a, b, c, bias, activation)
