"""What each rung of a ladder on a CPU is: its source, its one idea, and the gain over the rung above to be expected.

`gain(lanes, threads)` is arithmetic alone, with `lanes` numbers in a vector and so many threads, and is not fitted to
what was measured: what the idea brings if nothing else stands in the way. docs/ladders/ shows it beside the measured
gain. Far below it, something else has become the limit; far above it, more held the rung above up than the idea names.
A core of today can add to a sum every 4 cycles, and could start 8 multiply-adds of vectors in these, with as many loads
or half as many stores.
"""

from collections.abc import Callable
from typing import NamedTuple


class Rung(NamedTuple):
    """`source` is a file below kernels/ and the function in it that has the loops; `holds` says of a case, by its name,
    whether the gain is to be expected there."""

    source: str
    idea: str
    why: str = ""  # the arithmetic in words; with {lanes} and {threads}
    gain: Callable[[int, int], float] | None = None
    holds: Callable[[str], bool] = lambda case: True


def _one_channel(case):
    return "x1-3x3-" in case


def _by_polynomials(case):
    """Whether convolutions of that case take fewer multiplications: in no gradient of weights, nor with one channel."""
    return not _one_channel(case) and "weight-gradient" not in case


_POOLING = "a vector of channels, which lie side by side in memory, instead of one; rows of y over several threads"
_FUSED = "rows of the batch share one register tile in each step: no sum waits for another, gates are vectors"
_WAITS = "a sum waits 4 cycles for each number; tiles start 2 x {lanes} multiply-adds a cycle, on {threads} threads"

RUNGS = {
    "matmul": {
        "naive": Rung("gemm/cpu/naive.py:multiply_naive", "the definition: a dot product for each number of C"),
        "blocked": Rung(
            "gemm/cpu/naive.py:multiply_blocked",
            "blocks that stay in the caches, and innermost a row of B, whose products enter sums of their own",
            "a sum waits 4 cycles for the number before; along a row none waits: 4 cycles become 1",
            lambda lanes, threads: 4,
        ),
        "packed": Rung(
            "gemm/cpu/naive.py:multiply_packed",
            "operands copied in the order of reading, and each number of B used for 4 rows of C while in a register",
            "2 loads and a store for a multiply-add become 5 loads for 4: 3 / 1.25",
            lambda lanes, threads: 3 / 1.25,
        ),
        "simd": Rung(
            "gemm/cpu/product.py:multiply_panels",
            "a register tile of vectors instead of 4 numbers",
            "{lanes} numbers in a vector instead of 1",
            lambda lanes, threads: lanes,
        ),
        "threaded": Rung(
            "gemm/cpu/product.py:gemm_threaded",
            "tiles shared out over threads",
            "{threads} threads instead of 1",
            lambda lanes, threads: threads,
        ),
    },
    "conv2d": {
        "naive": Rung("convolution/cpu/naive.py:convolve", "the definition: a sum over a window for each number"),
        "im2col": Rung(
            "convolution/cpu/im2col.py:gather_patches",
            "every window copied into a row of a matrix: the fastest matrix product does the rest",
            _WAITS,
            lambda lanes, threads: 4 * 2 * lanes * threads,
        ),
        "direct": Rung(
            "convolution/cpu/direct.py:product",
            "the same product without that matrix: tables say where the tile's rows lie in x",
            "with 2 x {lanes} filters, copying a number takes as long as multiplying it, so half is saved; but on 1 "
            "thread, where the product had {threads}",
            lambda lanes, threads: 2 / threads,
        ),
        "threaded": Rung(
            "convolution/cpu/direct.py:_threaded_forward",
            "tiles shared out over threads",
            "{threads} threads instead of 1",
            lambda lanes, threads: threads,
        ),
        "winograd": Rung(
            "convolution/cpu/winograd.py:products",
            "a tile of 4 x 4 pixels as a product of polynomials, where that pays: fewer multiplications",
            "36 products for 16 pixels instead of 16 x 9",
            lambda lanes, threads: 16 * 9 / 36,
            _by_polynomials,
        ),
    },
    "conv2d_max_pool2d": {
        "separate": Rung(
            "convolution/cpu/pooled.py:_separate", "the convolution, all of its y, then the maximum over 2 x 2 pixels"
        ),
        "direct": Rung(
            "convolution/cpu/pooled.py:product",
            "pixels window by window in the register tiles: y is reduced in the first-level cache",
            "with one channel, for 4 numbers of y 4 x 9 multiply-adds, 5 stores and 4 loads, 25 cycles, become 4 x 9 "
            "and 1 store, 19; with more, the convolution above takes fewer multiplications and this does not",
            lambda lanes, threads: (4 * 9 / 2 + 5 + 4 / 2) / (4 * 9 / 2 + 1),
            _one_channel,
        ),
        "winograd": Rung(
            "convolution/cpu/winograd.py:pool_products",
            "a tile of 4 x 4 pixels holds 4 windows: fewer multiplications, where that pays",
            "36 products for 16 pixels instead of 16 x 9",
            lambda lanes, threads: 16 * 9 / 36,
            _by_polynomials,
        ),
    },
    "max_pool2d": {
        "naive": Rung("pooling/cpu/naive.py:max_forward_naive", "the definition: a loop over a window for each number"),
        "simd": Rung(
            "pooling/cpu/forward.py:largest", _POOLING,
            "{lanes} numbers in a vector instead of 1, on {threads} threads",
            lambda lanes, threads: lanes * threads,
        ),
    },
    "avg_pool2d": {
        "naive": Rung("pooling/cpu/naive.py:avg_forward_naive", "the definition: a loop over a window for each number"),
        "simd": Rung(
            "pooling/cpu/forward.py:mean", _POOLING,
            "{lanes} numbers in a vector instead of 1, on {threads} threads",
            lambda lanes, threads: lanes * threads,
        ),
    },
    "lstm": {
        "steps": Rung(
            "recurrent/cpu/steps.py:forward_in_steps", "the definition: a dot product for each gate, row and step"
        ),
        "fused": Rung(
            "recurrent/cpu/fused.py:kernels_of", _FUSED, _WAITS, lambda lanes, threads: 4 * 2 * lanes * threads
        ),
    },
    "softmax": {
        "naive": Rung(
            "activation/cpu/softmax.py:softmax_row_by_row", "the definition: maximum, exponentials, sum, quotient"
        ),
        "simd": Rung(
            "activation/cpu/softmax.py:softmax_rows",
            "vectors, and a polynomial for the exponential instead of a call of the library",
            "about as many instructions for {lanes} exponentials as the library takes for 1",
            lambda lanes, threads: lanes,
        ),
        "threaded": Rung(
            "activation/cpu/softmax.py:_over_rows",
            "rows shared out over threads",
            "{threads} threads instead of 1",
            lambda lanes, threads: threads,
        ),
    },
}  # fmt: skip
