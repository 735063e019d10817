"""The limits of a GPU, measured: multiply-adds, tensor cores, copies, launches. (Not yet run on a GPU.)

    multiply-adds   sixteen sums in a thread's registers, 256 threads a block, enough blocks to fill every processor
    tensor cores    eight 16 x 8 sums in a warp's registers: TF32, and bfloat16; as `mma` has them, which on an H100 is
                    63 percent of what Hopper's own instructions reach (arXiv 2402.13499)
    copy            cudaMemcpy on the device, of more than the L2 cache holds; read and written bytes
    launch          an empty kernel, launched over and over

The first two read a pair of numbers and write a sum each, so that nothing can be left out; whatever lies between them
is arithmetic. Figures are medians between CUDA's events (clock.py).
"""

from functools import partial

from numba import cuda, float32, int32, uint32

from ...kernels.launch import kernel, pointer
from ...kernels.ptx import load, mma_bf16, mma_tf32, store, to_bf16, to_tf32
from .worker import row

THREADS = 256
BLOCKS = 8  # for each processor
SUMS, TILES = 16, 8
NUMBERS = 4 * TILES  # of a thread: four of each tile
ROUNDS = 4096


@kernel(threads=THREADS, blocks=4)
def multiply_add(x: pointer(float32), y: pointer(float32), rounds: int32):
    """A thread: sixteen sums, each multiplied by x[0] and increased by x[1], `rounds` times over."""
    i = cuda.grid(1)
    a, b = load(x, 0), load(x, 1)
    sums = cuda.local.array(SUMS, float32)
    for k in range(SUMS):
        sums[k] = a + float32(k)
    for _ in range(rounds):
        for k in range(SUMS):
            sums[k] = sums[k] * a + b
    total = float32(0)
    for k in range(SUMS):
        total += sums[k]
    store(y, i, total)


@kernel(threads=32)
def nothing(x: pointer(float32)):
    """No thread does anything. (It is not in timings.py, where it is timed: what that file imports changes often.)"""


def _tensor(multiply, narrow, name):
    @kernel(threads=THREADS, blocks=4)
    def multiply_tiles(x: pointer(float32), y: pointer(float32), rounds: int32):
        """A warp: eight tiles of 16 x 8, to each of which a product of constant matrices is added, `rounds` times."""
        i = cuda.grid(1)
        a, b = uint32(narrow(load(x, 0))), uint32(narrow(load(x, 1)))
        sums = cuda.local.array(NUMBERS, float32)
        for k in range(NUMBERS):
            sums[k] = float32(k)
        for _ in range(rounds):
            for k in range(0, NUMBERS, 4):
                s = multiply((a, a, a, a), (b, b), (sums[k], sums[k + 1], sums[k + 2], sums[k + 3]))
                sums[k], sums[k + 1], sums[k + 2], sums[k + 3] = s[0], s[1], s[2], s[3]
        total = float32(0)
        for k in range(NUMBERS):
            total += sums[k]
        store(y, i, total)

    multiply_tiles.function.__qualname__ = name
    return multiply_tiles


@cuda.jit(device=True, forceinline=True)
def _pair(x):
    """Twice the same bfloat16 in 32 bits."""
    return uint32(to_bf16(x)) * uint32(0x10001)


multiply_tf32 = _tensor(mma_tf32, to_tf32, "multiply_tf32")
multiply_bf16 = _tensor(mma_bf16, _pair, "multiply_bf16")

# Operations of one round, in a thread.
FLOPS = {"float32": 2 * SUMS, "TF32": TILES * 2 * 16 * 8 * 8 // 32, "bfloat16": TILES * 2 * 16 * 8 * 16 // 32}
KERNELS = {"float32": multiply_add, "TF32": multiply_tf32, "bfloat16": multiply_bf16}


def peaks() -> list[dict]:
    """A row for each kind of arithmetic."""
    import cupy

    from .clock import FROM_IDLE, seconds_of

    blocks = BLOCKS * cupy.cuda.Device().attributes["MultiProcessorCount"]
    x, y = cupy.full(2, 0.5, cupy.float32), cupy.empty(blocks * THREADS, cupy.float32)
    calls = {name: partial(run, (blocks,), x, y, ROUNDS) for name, run in KERNELS.items()}
    done = {name: FLOPS[name] * ROUNDS * blocks * THREADS for name in calls}
    return [
        row(f"peak of {name}", "ok", variant="loop", mode=name, us=one.p50 * 1e6, gflops=done[name] / one.p50 / 1e9)
        for name, one in seconds_of(calls, warm=FROM_IDLE).items()
    ]
