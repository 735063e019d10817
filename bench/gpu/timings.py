"""What is timed on a GPU: kernels beside their peers, which compute in the same mathematical mode, and whole steps.

A case is a function of `draw(shape, dtype)`, which makes arrays on the device; it gives a Timing. Results are compared
before anything is timed and again after. float32 means float32: TF32 is off for all peers, except in the rows named so.
Arrays that are read or written once are more than twice as large as any GPU's L2 cache (50 MB on an H100).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np

from ... import kernels
from ...nn import devices
from ..measure import agree
from . import contract, peers
from .worker import row

BIG = 2**25  # numbers: 134 MB of float32
COPIED = 2**28  # bytes
MATMULS = (1024, 2048, 4096)
# M, N, K of few results from long sums: a dense layer of the CNN with 32 rows, and the weights' gradient of an LSTM.
LONG_SUMS = ((32, 128, 5408), (164, 256, 1600))
# Distinct layers of a ResNet-50, batch 32: (height = width, channels, filters, window, strides)
CONVOLUTIONS = (
    (224, 3, 64, 7, 2), (56, 64, 64, 1, 1), (56, 64, 64, 3, 1), (56, 128, 128, 3, 2), (56, 64, 256, 1, 1),
    (56, 256, 512, 1, 2), (28, 512, 128, 1, 1), (28, 128, 128, 3, 1), (28, 256, 256, 3, 2), (14, 256, 1024, 1, 1),
    (14, 256, 256, 3, 1), (7, 512, 512, 3, 1), (7, 2048, 512, 1, 1),
)  # fmt: skip
IMAGES = 32
# Tasks that measure the GPU itself.
LIMITS = ("copy", "peak", "launch")
DIRECTIONS = ("forward", "data gradient", "weight gradient")
LSTMS = ((32, 50, 100, 64), (64, 100, 256, 512))  # N, T, I, H


@dataclass
class Timing:
    """One case: calls by the name of the variant, and what they cost."""

    ours: dict[str, Callable]
    # Called where there is a GPU: {name: (call, what makes a NumPy array of its result)}
    peers: Callable[[], dict] = dict
    mode: str = "float32"
    flops: int = 0
    bytes: int = 0
    tolerance: float = 1e-4
    # Where calling again would not give the same: {name: NumPy array} of all that are compared.
    results: Callable[[dict], dict] | None = None
    left_out: list = field(default_factory=list)


def cases(quick) -> dict[str, Callable]:
    """Functions of `draw` that make a Timing, by name."""
    found = {"launch of an empty kernel": launch}
    sizes = MATMULS[:1] if quick else MATMULS
    found |= {f"matmul {size}^3": partial(matmul, (size, size, size)) for size in sizes}
    found |= {"matmul {}x{}x{}".format(*sizes): partial(matmul, sizes) for sizes in LONG_SUMS}
    found |= {f"matmul {size}^3 TF32": partial(matmul_tf32, size) for size in sizes[-1:]}
    if contract.takes_bfloat16():
        found |= {f"matmul {size}^3 bfloat16": partial(matmul_bf16, size) for size in sizes[-1:]}
    found |= {"max_pool2d": max_pool, "avg_pool2d": avg_pool, "relu": relu, "softmax": softmax}
    found |= {"softmax_cross_entropy": cross_entropy, "adam_update": adam}
    for sizes in LSTMS[:1] if quick else LSTMS:
        name = "lstm {}x{}x{} -> {}".format(*sizes)
        found |= {name: partial(lstm, sizes), f"{name}, with gradients": partial(lstm_training, sizes)}
    for layer in CONVOLUTIONS[:3] if quick else CONVOLUTIONS:
        size, channels, filters, window, strides = layer
        name = f"conv2d {IMAGES}x{size}x{size}x{channels} -> {filters}, {window}x{window} / {strides}"
        found |= {f"{name}, {way}": partial(convolution, layer, way, None) for way in DIRECTIONS}
        found |= {f"{name}, {way}, TF32": partial(convolution, layer, way, "tensor") for way in DIRECTIONS}
        if (window, strides) == (3, 1):
            found |= {
                f"{name}, {way}, winograd": partial(convolution, layer, way, "winograd") for way in DIRECTIONS[:2]
            }
    return found


def launch(draw):
    from .limits import nothing

    x = draw((1,))
    return Timing({"default": lambda: nothing((1,), x)}, lambda: peers.empty_kernel(x), results=lambda calls: {})


def variants(op, call) -> dict[str, Callable]:
    """The rungs that compute in float32."""
    return {name: partial(call, variant=name) for name in kernels.VARIANTS[op]["cuda"] if name not in contract.NARROW}


def matmul(sizes, draw):
    m, n, k = sizes
    a, b = draw((m, k)), draw((k, n))
    ours = variants("matmul", partial(kernels.matmul, a, b))
    return Timing(ours, lambda: peers.products(a, b), flops=2 * m * n * k, bytes=4 * (m * k + k * n + m * n))


def matmul_tf32(size, draw):
    a, b = draw((size, size)), draw((size, size))
    ours = {"tensor": partial(kernels.matmul, a, b, variant="tensor")}
    work = {"flops": 2 * size**3, "bytes": 3 * a.nbytes}
    return Timing(ours, lambda: peers.products_in_tf32(a, b), "TF32", tolerance=4e-3, **work)


def matmul_bf16(size, draw):
    import ml_dtypes

    from ...kernels.gemm.cuda.warpgroups import ONLY
    from ...kernels.launch import architecture_of

    a, b = (draw((size, size), ml_dtypes.bfloat16) for _ in range(2))
    names = ("tensor", "warpgroup") if architecture_of(a) in (None, ONLY) else ("tensor",)
    ours = {name: partial(kernels.matmul, a, b, variant=name) for name in names}
    work = {"flops": 2 * size**3, "bytes": 3 * a.nbytes}
    return Timing(ours, lambda: peers.products(a, b), "bfloat16", tolerance=2.0**-7, **work)


def convolution(layer, direction, variant, draw):
    size, channels, filters, window, strides = layer
    edge = window // 2
    out = (size + 2 * edge - window) // strides + 1
    x, w = draw((IMAGES, size, size, channels)), draw((window, window, channels, filters))
    dy = draw((IMAGES, out, out, filters))
    options = {"strides": strides, "padding": ((edge, edge), (edge, edge)), "variant": variant}
    if direction == "forward":
        ours = partial(kernels.conv2d, x, w, **options)
    else:
        _, saved = kernels.conv2d_forward(x, w, **options)
        which = DIRECTIONS.index(direction) - 1
        needs = (which == 0, which == 1, False)
        ours = lambda: kernels.conv2d_backward(dy, saved, needs)[which]  # noqa: E731
    work = {"flops": 2 * dy.size * window * window * channels, "bytes": x.nbytes + w.nbytes + dy.nbytes}
    calls, sizes = {variant or "default": ours}, (direction, x, w, dy, strides, edge)
    if variant == "tensor":
        return Timing(calls, lambda: peers.convolution_in_tf32(*sizes), "TF32", tolerance=4e-3, **work)
    return Timing(calls, lambda: peers.convolution(*sizes), **work)


def max_pool(draw):
    return _pool("max_pool2d", draw)


def avg_pool(draw):
    return _pool("avg_pool2d", draw)


def _pool(op, draw):
    x = draw((IMAGES, 113, 113, 64))
    ours = variants(op, partial(getattr(kernels, op), x, 3, strides=2))
    outputs = IMAGES * 56 * 56 * 64
    return Timing(ours, lambda: peers.pooling(op, x), flops=9 * outputs, bytes=4 * (x.size + outputs))


def relu(draw):
    x = draw((BIG,))
    return Timing({"default": partial(kernels.relu, x)}, lambda: peers.relu(x), flops=BIG, bytes=8 * BIG)


def softmax(draw):
    x = draw((BIG // 1024, 1024))
    ours = variants("softmax", partial(kernels.softmax, x))
    return Timing(ours, lambda: peers.softmax(x), flops=5 * BIG, bytes=8 * BIG)


def cross_entropy(draw):
    x, t = draw((BIG // 1024, 1024)), draw((BIG // 1024, 1024))
    t = kernels.softmax(t)
    ours = {"default": partial(kernels.softmax_cross_entropy, x, t)}
    return Timing(ours, lambda: peers.cross_entropy(x, t), flops=5 * BIG, bytes=8 * BIG)


def adam(draw):
    options = {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    start, g, w = (draw((BIG,)) for _ in range(3))
    g += 2  # away from zero, where it matters that Keras and torch add epsilon in different places
    m, v = start * 0, start * 0

    def update():
        kernels.adam_update(w, g, m, v, step=1, **options)

    def results(calls):
        """Of one step from the same start, for each."""
        m[...], v[...], w[...] = 0, 0, start
        update()
        return {"default": devices.to_host(w), **peers.adam_results(start, g)} if len(calls) > 1 else {}

    work = {"flops": 12 * BIG, "bytes": 28 * BIG}
    return Timing({"default": update}, lambda: peers.adam(start, g), results=results, **work)


def lstm(sizes, draw):
    x, w, u, b = _lstm_arrays(sizes, draw)
    ours = variants("lstm", lambda variant: kernels.lstm(x, w, u, b, variant=variant)[0])
    return Timing(ours, lambda: peers.lstm(x, w, u, b), tolerance=1e-3, **_lstm_work(sizes))


def lstm_training(sizes, draw):
    n, steps, _, hidden = sizes
    x, w, u, b = _lstm_arrays(sizes, draw)
    dy = draw((n, steps, hidden))

    def gradients(variant):
        _, saved = kernels.lstm_forward(x, w, u, b, variant=variant)
        return kernels.lstm_backward(dy, saved)[0]

    ours = variants("lstm", gradients)
    return Timing(ours, lambda: peers.lstm(x, w, u, b, dy), tolerance=1e-3, **_lstm_work(sizes, 3))


def _lstm_arrays(sizes, draw):
    n, steps, inputs, hidden = sizes
    w, u = draw((inputs, 4 * hidden)), draw((hidden, 4 * hidden))
    w *= np.float32(inputs**-0.5)
    u *= np.float32(hidden**-0.5)
    return draw((n, steps, inputs)), w, u, draw((4 * hidden,))


def _lstm_work(sizes, passes=1):
    n, steps, inputs, hidden = sizes
    weights = (inputs + hidden) * 4 * hidden
    return {
        "flops": passes * 2 * n * steps * weights,
        "bytes": passes * 4 * (n * steps * (inputs + hidden) + weights),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


def tasks(quick) -> list:
    """What says most comes first, and the many rows of convolutions last."""
    from . import limits
    from .steps import step_row

    found = [(name, partial(measured, name, make)) for name, make in cases(quick).items()]
    first = [task for task in found if task[0].startswith(("launch", "matmul"))]
    steps = [(f"step of {name}", lambda name=name: [step_row(name, quick)]) for name in ("dense", "cnn", "lstm")]
    rest = [task for task in found if task not in first]
    return [("copy", lambda: [copy_row()]), ("peak", limits.peaks), *first, *steps, *rest]


def draw(shape, dtype=np.float32):
    """Numbers between -1 and 1, on the device."""
    seed = draw.seed = draw.seed + 1
    return devices.place(np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype), "cuda:0")


draw.seed = 0


@cache
def copy_speed() -> float:
    """Bytes a second that a copy on the device reads and writes, both counted."""
    import cupy

    from .clock import FROM_IDLE, seconds_of

    a, b = cupy.zeros(COPIED, np.uint8), cupy.empty(COPIED, np.uint8)
    runtime, kind = cupy.cuda.runtime, cupy.cuda.runtime.memcpyDeviceToDevice
    stream = cupy.cuda.get_current_stream().ptr
    copy = {"copy": lambda: runtime.memcpyAsync(b.data.ptr, a.data.ptr, COPIED, kind, stream)}
    times = seconds_of(copy, warm=FROM_IDLE)
    return 2 * COPIED / times["copy"].p50


def copy_row():
    speed = copy_speed()
    return row("copy of 268 MB", "ok", variant="cudaMemcpy", mode="bytes", us=2e6 * COPIED / speed, gbs=speed / 1e9)


def measured(name, make) -> list[dict]:
    """The rows of one case, one for each of our variants."""
    import cupy

    from .clock import seconds_of

    try:
        timing = make(draw)
        candidates, readers = _candidates(timing)
        results = timing.results or (lambda calls: {name: readers[name](call()) for name, call in calls.items()})
        wrong = _disagreement(results(candidates), timing.tolerance)
        if wrong:
            return [row(name, "wrong", f"before timing: {wrong}")]
        samples = seconds_of(candidates)
        wrong = _disagreement(results(candidates), timing.tolerance)
        if wrong:
            return [row(name, "wrong", f"after timing: {wrong}")]
        return [_row(name, variant, timing, samples) for variant in timing.ours]
    finally:
        timing = candidates = readers = results = None
        peers.free()
        cupy.get_default_memory_pool().free_all_blocks()


def _disagreement(results, tolerance):
    return agree(results, tolerance) if results else None


def _candidates(timing):
    """(Calls by name, ours first; how to read their results.) A peer that fails is left out, aloud."""
    candidates = dict(timing.ours)
    readers = dict.fromkeys(candidates, devices.to_host)
    for name, (call, read) in timing.peers().items():
        try:
            call()
        except Exception as error:
            timing.left_out.append(f"{name} is left out: {error}")
            continue
        candidates[name], readers[name] = call, read
    return candidates, readers


def _row(name, variant, timing, samples):
    ours = samples[variant].p50
    others = {peer: sample.p50 for peer, sample in samples.items() if peer not in timing.ours}
    figures = {
        "variant": variant,
        "mode": timing.mode,
        "us": ours * 1e6,
        "p20_p80": [samples[variant].p20 * 1e6, samples[variant].p80 * 1e6],
        "peers_us": {peer: seconds * 1e6 for peer, seconds in others.items()},
        "share_of_peer": {peer: seconds / ours for peer, seconds in others.items()},
    }
    if timing.flops:
        figures["gflops"] = timing.flops / ours / 1e9
    if timing.bytes:
        figures["gbs"] = timing.bytes / ours / 1e9
        figures["share_of_copy"] = timing.bytes / ours / copy_speed()
    return row(name, "ok", "; ".join([*timing.left_out, *peers.missing()]), **figures)
