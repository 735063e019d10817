"""Kernels that try the instructions of kernels/ptx, most with one warp."""

from numba import cuda, float32, int32, uint16, uint32

from handloom.kernels.launch import kernel, pointer
from handloom.kernels.ptx import (
    as_float,
    copy_async,
    copy_async_commit,
    copy_async_wait,
    fence_async,
    from_bf16,
    larger,
    ldmatrix_x4,
    ldmatrix_x4_transposed,
    load,
    load4,
    mma_bf16,
    mma_tf32,
    store,
    store2,
    store4,
    to_bf16,
    to_tf32,
    wgmma_bf16,
    wgmma_commit,
    wgmma_fence,
    wgmma_wait,
)
from handloom.kernels.quotients import quotient

P = pointer(float32)


@kernel(threads=32)
def copy(x: P, y: P, bytes_of_last: int32):
    """y = x through shared memory, 16 bytes a lane; of the last lane's, the first bytes alone, and zeros."""
    shared = cuda.shared.array(128, float32, alignment=16)
    lane = cuda.threadIdx.x
    count = int32(16)
    if lane == 31:
        count = bytes_of_last
    copy_async(shared, lane * 4, x, lane * 4, count)
    copy_async_commit()
    copy_async_wait(0)
    cuda.syncthreads()
    store4(y, lane * 4, load4(shared, lane * 4))


@kernel(threads=32)
def round(x: P, tf32: P, bf16: P):
    """x rounded to TF32 and to bfloat16."""
    i = cuda.grid(1)
    store(tf32, i, as_float(to_tf32(load(x, i))))
    store(bf16, i, from_bf16(to_bf16(load(x, i))))


@kernel(threads=32)
def take_larger(x: P, y: P, z: P):
    """z is the larger one of x and y."""
    i = cuda.grid(1)
    store(z, i, larger(load(x, i), load(y, i)))


@kernel(threads=32)
def multiply_tf32(a: P, b: P, c: P):
    """C (16, 8) += A (16, 8) B (8, 8), each number of a fragment from its place in memory."""
    lane = cuda.threadIdx.x
    row, col = lane // 4, lane % 4
    left = (
        to_tf32(load(a, row * 8 + col)), to_tf32(load(a, (row + 8) * 8 + col)),
        to_tf32(load(a, row * 8 + col + 4)), to_tf32(load(a, (row + 8) * 8 + col + 4)),
    )  # fmt: skip
    right = to_tf32(load(b, col * 8 + row)), to_tf32(load(b, (col + 4) * 8 + row))
    at, below = row * 8 + col * 2, (row + 8) * 8 + col * 2
    total = mma_tf32(left, right, (load(c, at), load(c, at + 1), load(c, below), load(c, below + 1)))
    store2(c, at, (total[0], total[1]))
    store2(c, below, (total[2], total[3]))


@kernel(threads=32)
def multiply_bf16(a: pointer(uint16), b: pointer(uint16), c: P):
    """C (16, 8) = A (16, 16) B (16, 8) of bfloat16 bits, the fragments by ldmatrix, of which B fills two of four."""
    left = cuda.shared.array(256, uint16, alignment=16)
    right = cuda.shared.array(256, uint16, alignment=16)
    lane = cuda.threadIdx.x
    for i in range(8):
        store(left, lane * 8 + i, load(a, lane * 8 + i))
        store(right, lane * 8 + i, uint16(0))
    cuda.syncthreads()
    for i in range(4):
        k, n = (lane * 4 + i) // 8, (lane * 4 + i) % 8
        store(right, k * 16 + n, load(b, lane * 4 + i))
    cuda.syncthreads()
    # Lane l names row l % 16 of the left or the right half of the columns.
    place = lane % 16 * 16 + lane // 16 * 8
    four = ldmatrix_x4_transposed(right, place)
    zero = float32(0)
    total = mma_bf16(ldmatrix_x4(left, place), (four[0], four[1]), (zero, zero, zero, zero))
    at, below = lane // 4 * 8 + lane % 4 * 2, (lane // 4 + 8) * 8 + lane % 4 * 2
    store(c, at, total[0])
    store(c, at + 1, total[1])
    store(c, below, total[2])
    store(c, below + 1, total[3])


def multiply_warpgroups(a_along, b_along):
    """C (128, 256) = A (128, 64) B (64, 256) of bfloat16 bits, by two warpgroups: of A, numbers that are neighbours in
    memory are of one row (`along`) or of one term, of B of one column or of one term."""

    @cuda.jit(device=True, forceinline=True)
    def place(tile, outer, term, along):
        """Where number (outer, term) lies in a tile of rows of 64 numbers."""
        row, number = (outer, term) if along else (outer // 64 * 64 + term, outer % 64)
        return tile + row * 64 + (number // 8 ^ row % 8) * 8 + number % 8

    @kernel(threads=256, only="sm_90a")
    def multiply(a: pointer(uint16), b: pointer(uint16), c: P):
        tiles = cuda.shared.array(384 * 64, uint16, alignment=1024)
        acc = cuda.local.array(128, float32)
        thread = int32(cuda.threadIdx.x)
        lane, row0 = thread % 32, thread // 32 * 16
        for i in range(thread, 128 * 64, 256):
            store(tiles, place(0, i // 64, i % 64, a_along), load(a, i))
        for i in range(thread, 64 * 256, 256):
            store(tiles, place(128 * 64, i % 256, i // 256, b_along), load(b, i))
        fence_async()
        cuda.syncthreads()
        for t in range(128):
            acc[t] = float32(0)
        wgmma_fence()
        for step in range(4):
            left = thread // 128 * 4096 + step * (16 if a_along else 16 * 64)
            wgmma_bf16(acc, tiles, left, 128 * 64 + step * (16 if b_along else 16 * 64), a_along, b_along)
        wgmma_commit()
        wgmma_wait(0)
        for t in range(32):
            at = (row0 + lane // 4) * 256 + t * 8 + lane % 4 * 2
            store2(c, at, (acc[4 * t], acc[4 * t + 1]))
            store2(c, at + 8 * 256, (acc[4 * t + 2], acc[4 * t + 3]))

    return multiply


@kernel(threads=256)
def divide(n: pointer(int32), factors: pointer(uint32), shifts: pointer(uint32), q: pointer(int32), size: int32):
    """q = n // d, by the reciprocals of d."""
    i = cuda.grid(1)
    if i < size:
        store(q, i, quotient(load(n, i), load(factors, i), load(shifts, i)))
