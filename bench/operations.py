"""Single operations against NumPy (OpenBLAS) and torch (oneDNN), which get the same numbers in their own layout."""

from dataclasses import dataclass, field

import numpy as np

from ..kernels import conv2d, conv2d_backward, conv2d_forward, matmul
from .timing import agree, interleave

# (images, height = width, channels, filters, kernel)
CONVOLUTIONS = (
    (32, 28, 1, 32, 3),
    (32, 30, 32, 64, 3),
    (8, 58, 64, 64, 3),
    (8, 30, 128, 128, 3),
    (4, 16, 256, 256, 3),
    (4, 56, 64, 256, 1),
    (4, 34, 192, 64, 5),
)
MATMULS = (512, 1024, 2048)


@dataclass
class Row:
    """One case: microseconds of each candidate, ours first, and the ratio against the best peer."""

    group: str
    case: str
    microseconds: dict = field(default_factory=dict)
    spread: dict = field(default_factory=dict)
    gflops: float | None = None
    wrong: str | None = None

    @property
    def ratio(self) -> float | None:
        ours, *peers = self.microseconds.values()
        return min(peers) / ours if peers else None


def measure(group: str, case: str, candidates: dict, results, *, tolerance: float, flops: float = 0.0, **timing) -> Row:
    """Compare, time, compare again. `results()` gives each candidate's current output."""
    row = Row(group, case)
    for call in candidates.values():
        call()
    row.wrong = agree(results(), tolerance)
    if row.wrong:
        return row
    for name, sample in interleave(candidates, **timing).items():
        row.microseconds[name] = sample.p50 * 1e6
        row.spread[name] = (sample.p20 * 1e6, sample.p80 * 1e6)
    row.wrong = agree(results(), tolerance)
    if flops:
        row.gflops = flops / next(iter(row.microseconds.values())) / 1e3
    return row


def matmul_rows(quick: bool):
    """Square float32 products: a @ b into a given output."""
    rng = np.random.default_rng(0)
    for size in MATMULS[:1] if quick else MATMULS:
        a, b = (rng.uniform(-1, 1, (size, size)).astype(np.float32) for _ in range(2))
        ours, theirs = np.empty_like(a), np.empty_like(a)
        candidates = {
            "handloom": lambda a=a, b=b, ours=ours: matmul(a, b, out=ours),
            "numpy": lambda a=a, b=b, theirs=theirs: np.matmul(a, b, out=theirs),
        }
        yield measure(
            "matmul", f"{size}^3", candidates, lambda ours=ours, theirs=theirs: {"handloom": ours, "numpy": theirs},
            tolerance=1e-4, flops=2 * size**3,
        )  # fmt: skip


def convolution_rows(quick: bool):
    """Forward, data gradient and weight gradient; torch in both of its layouts."""
    from .peers import torch_convolution

    rng = np.random.default_rng(0)
    for n, size, c, f, k in CONVOLUTIONS[:1] if quick else CONVOLUTIONS:
        x = rng.uniform(-1, 1, (n, size, size, c)).astype(np.float32)
        w = rng.uniform(-1, 1, (k, k, c, f)).astype(np.float32)
        out = size - k + 1
        dy = rng.uniform(-1, 1, (n, out, out, f)).astype(np.float32)
        _, saved = conv2d_forward(x, w)
        ours = {
            "forward": lambda x=x, w=w: conv2d(x, w),
            "data gradient": lambda dy=dy, saved=saved: conv2d_backward(dy, saved, (True, False, False))[0],
            "weight gradient": lambda dy=dy, saved=saved: conv2d_backward(dy, saved, (False, True, False))[1],
        }
        for direction, call in ours.items():
            kept = {}

            def keep(name, call, kept=kept):
                def run():
                    kept[name] = call()

                return run

            peers = torch_convolution.candidates(direction, x, w, dy)
            candidates = {"handloom": keep("handloom", call)}
            candidates |= {name: keep(name, peer.call) for name, peer in peers.items()}

            def results(kept=kept, peers=peers):
                return {name: peers[name].nhwc(kept[name]) if name in peers else kept[name] for name in kept}

            yield measure(
                f"convolution, {direction}", f"{n}x{size}x{size}x{c} -> {f}, {k}x{k}", candidates, results,
                tolerance=1e-4, flops=2 * n * out * out * f * k * k * c,
            )  # fmt: skip
