"""Bytes of workspace as the docstrings state them, where several families take the same."""


def rounded(n: int, step: int) -> int:
    """n, rounded up to a multiple of `step`."""
    return -(-n // step) * step


def product(variant: str, m: int, n: int, k: int, itemsize: int) -> int:
    """Of one product of (M, K) and (K, N), as the text of `handloom.kernels.gemm` says."""
    if variant in ("naive", "blocked"):
        return 0
    if variant == "packed":
        return (rounded(n, 32) + 4) * k * itemsize
    block = rounded(n, 128 // itemsize) * min(k * itemsize, 3072)
    if variant == "simd":
        return block
    cut = k * itemsize >= 4096 and (m <= 112 or m * n * itemsize <= 1 << 18)
    parts = min(16, rounded(k * itemsize, 4096) // 2048) * m * n * itemsize if cut else 0
    turned = rounded(m, 32) * k * itemsize if m <= 64 else 0
    thin = max(n * k, (min(16, k * itemsize // 2048) + 1) * m * n) * itemsize if n <= 12 else 0
    return max(block, parts, turned, thin)
