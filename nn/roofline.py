"""What the layers of a model cost beside the limits of this machine, and which kernels they call: two tables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import NamedTuple

import numpy as np

from .. import kernels
from ..kernels.arrays import address
from ..kernels.dispatch import device_of
from ..kernels.threads import THREADS_PAY
from . import functions
from .calls import Listener, calls_of, example, unchanged, within
from .devices import on_cpu, place_input
from .tensor import Tensor

# Each layer is timed in so many rounds, in turn with the others; in each for about so many seconds.
ROUNDS, STRETCH = 5, 0.03
MOST_CALLS = 100  # a layer's, in a round


class Cost(NamedTuple):
    """One layer in one direction; the columns are explained at `Model.roofline`."""

    layer: str
    kind: str
    way: str  # "forward" or "backward"
    flops: int
    bytes: int
    milliseconds: float
    limit: str  # "multiply-adds", or the level that sets the bandwidth: "L1", "L2", "L3", "memory"
    share: float

    @property
    def intensity(self) -> float:
        """FLOP a byte."""
        return self.flops / self.bytes


class Use(NamedTuple):
    """One kernel that a layer calls."""

    layer: str
    kind: str
    kernel: str
    device: str
    variant: str  # "" for what is no kernel
    why: str
    threads: bool | None  # whether any kernel of the layer had work enough for them; None where that is not known


class _Printable:
    """Prints as its table."""

    def __str__(self):
        return self.text()

    __repr__ = __str__

    def text(self, width: int | None = None) -> str:
        """The table, so many characters wide; by default as wide as the terminal."""
        from rich.console import Console

        console = Console(width=width, force_terminal=False, color_system=None, highlight=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())


@dataclass(frozen=True, repr=False)
class Roofline(_Printable):
    """What `Model.roofline` found: a `Cost` for each layer and direction, and the limits that it was held against."""

    model: str
    input_shape: tuple
    rows: list[Cost]
    limits: dict  # as `kernels.limits.measure` gives them
    threads: int
    itemsize: int  # bytes of a number

    @property
    def peak(self) -> float:
        """GFLOP/s."""
        return self.limits["multiply-adds, GFLOP/s"][self.threads] * 4 / self.itemsize

    def __rich__(self):
        shape, peak = f"input {self.input_shape}", f"{self.threads} threads: {self.peak:,.0f} GFLOP/s"
        levels = {level: by[self.threads] for level, by in self.limits["copy, GB/s"].items()}
        copies = ", ".join(f"{level} {speed:,.0f} GB/s" for level, speed in levels.items())
        table = _table(f'Roofline of "{self.model}", {shape}', f"Limits, {peak}; {copies}")
        for header in ("Layer (type)", "Pass", "FLOP", "Bytes", "FLOP/B", "ms", "Limit", "Share"):
            words = header in ("Layer (type)", "Pass", "Limit")
            table.add_column(header, justify="left" if words else "right", overflow="fold")
        for row in self.rows:
            first = f"{row.layer} ({row.kind})" if row.way == "forward" else ""
            figures = _short(row.flops), _short(row.bytes), f"{row.intensity:.3g}", f"{row.milliseconds:.3f}"
            table.add_row(first, row.way, *figures, row.limit, f"{row.share:.0%}")
        table.add_section()
        flops, milliseconds = (sum(getattr(row, name) for row in self.rows) for name in ("flops", "milliseconds"))
        table.add_row("all", "", _short(flops), "", "", f"{milliseconds:.3f}", "", "")
        return table

    def plot(self, path: str | os.PathLike) -> None:
        """Draw the roofline to an image file: the limits as lines, a point for each row that has FLOP.

        Needs the `plot` extra. Nothing of matplotlib's global state is touched.

        Args:
            path: Where to; its ending chooses the format, ".png" for a PNG.
        """
        points = [row for row in self.rows if row.flops]
        if not points:
            raise ValueError(f"Roofline.plot: no layer of {self.model!r} counts FLOP: there is nothing to draw")
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Roofline.plot: drawing needs matplotlib: pip install 'handloom[plot]'"
            ) from error
        figure = Figure(figsize=(9, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        ends = np.array([0.5 * min(row.intensity for row in points), 4 * max(row.intensity for row in points)])
        self._draw_limits(axes, ends)
        layers = list(dict.fromkeys(row.layer for row in points))
        for row in points:
            rate, marker = row.flops / row.milliseconds * 1e-6, "o" if row.way == "forward" else "v"
            color, label = f"C{layers.index(row.layer) % 10}", f"{row.layer}, {row.way}"
            axes.loglog(row.intensity, rate, color=color, marker=marker, linestyle="", label=label)
        axes.set_title(f"{self.model}, input {self.input_shape}, {self.threads} threads")
        axes.set_xlabel("FLOP / byte")
        axes.set_ylabel("GFLOP/s")
        axes.grid(alpha=0.3, which="both")
        figure.legend(loc="outside right upper")
        figure.savefig(path, dpi=120)

    def _draw_limits(self, axes, ends):
        """The peak, and one line for the bandwidth of each level, up to where it meets the peak."""
        for level, by in self.limits["copy, GB/s"].items():
            ridge = self.peak / by[self.threads]
            x = np.array([min(ends[0], ridge / 2), ridge])
            axes.loglog(x, x * by[self.threads], color="gray", linewidth=1)
            start = x[0], x[0] * by[self.threads]
            axes.annotate(f"  {level}", start, color="gray", va="top")  # below the line, which rises
        axes.axhline(self.peak, color="gray", linewidth=1)
        axes.annotate("multiply-adds", (ends[1], self.peak), color="gray", va="bottom", ha="right")


@dataclass(frozen=True, repr=False)
class Kernels(_Printable):
    """What `Model.kernels` found: a `Use` for each kernel of each layer."""

    model: str
    input_shape: tuple
    rows: list[Use]

    def __rich__(self):
        note = f"Threads pay from {THREADS_PAY:,} operations of a kernel on, on a CPU"
        known = self.input_shape[0] is not None
        note += "; does any of the layer's reach that?" if known else ": kernels(batch=32) says which layers reach that"
        table = _table(f'Kernels of "{self.model}", input {self.input_shape}', note)
        for header in ("Layer (type)", "Kernel", "Device", "Variant", "Why", *(["Threads"] if known else [])):
            table.add_column(header, overflow="fold")
        before = None
        for row in self.rows:
            layer, threads = f"{row.layer} ({row.kind})", {True: "yes", False: "no", None: ""}[row.threads]
            again = layer == before
            cells = "" if again else layer, row.kernel, row.device, row.variant, row.why
            table.add_row(*cells, *(["" if again else threads] if known else []))
            before = layer
        return table


def roofline(model, batch, input_shape):
    """See `Model.roofline`."""
    from numba import get_num_threads

    from ..kernels import limits

    x = example("roofline", model, batch, input_shape)
    elsewhere = next((layer for layer in model.all_layers() if not on_cpu(layer)), None)
    if elsewhere is not None:
        raise ValueError(
            f"roofline: {elsewhere.name!r} is on {elsewhere.device}: limits are measured on CPUs alone, move the model "
            "with its to('cpu')"
        )
    threads = get_num_threads()
    with unchanged(model, x):
        calls = [call for call in calls_of(model, x) if not call.is_view]
        work = [_work(call) for call in calls]
        seconds = _measure([call.alone() for call in calls])
    found, rows = limits.measure(threads), []
    itemsize = max((call.outputs[0].data.itemsize for call in calls), default=4)
    for call, passes, times in zip(calls, work, seconds):
        for (way, flops, moved), second in zip(passes, times):
            least, limit = limits.attainable(found, threads, flops, moved, itemsize)
            rows.append(Cost(*call.names, way, flops, moved, second * 1e3, limit, least / second))
    return Roofline(model.name, x.shape, rows, found, threads, itemsize)


def kernels_of(model, batch, input_shape):
    """See `Model.kernels`."""
    x = example("kernels", model, 1 if batch is None else batch, input_shape)
    rows = []
    with unchanged(model, x), Listener() as listener:
        x = Tensor(place_input(model, x), requires_grad=True)  # so that all is on the tape
        for call in calls_of(model, x, listener.launches):
            rows += [_use(call, node, batch) for node in call.operations() or [None]]
    return Kernels(model.name, (batch, *x.shape[1:]), rows)


# ---------------------------------------------------------------------------------------------------------------------
# Costs


def _work(call):
    """(way, FLOP, bytes) forward and, where anything wants a gradient, backward."""
    inputs, outputs, weights = call.inputs, call.outputs, call.layer.weights
    shape = call.args[0].shape if isinstance(call.args[0], Tensor) else tuple(x.shape for x in call.args[0])
    moved = _bytes(tensor.data for tensor in (*inputs, *weights, *outputs))
    passes = [("forward", call.layer.flops(shape), moved)]
    if outputs[0].requires_grad:
        wanted = [[tensor.data for tensor in tensors if tensor.requires_grad] for tensors in (inputs, weights)]
        saved = [array for node in call.operations() for array in within(_needed(node.saved), np.ndarray)]
        moved = outputs[0].data.nbytes + _bytes(saved) + _bytes(wanted[0]) + _bytes(wanted[1])
        passes.append(("backward", call.layer.backward_flops(shape, tuple(map(bool, wanted))), moved))
    return passes


def _needed(saved):
    """What backward reads of what forward saved: of an output without an activation nothing but its shape."""
    return saved._replace(y=None) if getattr(saved, "activation", saved) is None else saved


def _bytes(arrays):
    """Of all arrays together; those that start at the same place are one."""
    sizes = {}
    for array in arrays:
        sizes[address(array)] = max(array.nbytes, sizes.get(address(array), 0))
    return sum(sizes.values())


def _measure(calls):
    """The median seconds of each call, forward and, where anything wants a gradient, backward."""
    rng = np.random.default_rng(1)
    gradients = [rng.standard_normal(call.outputs[0].shape).astype(call.outputs[0].dtype) for call in calls]
    for call, dy in zip(calls, gradients):
        _timed(call, dy)  # compiles
    counts = [max(1, min(MOST_CALLS, int(STRETCH / sum(_timed(call, dy))))) for call, dy in zip(calls, gradients)]
    samples = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, dy, count, found in zip(calls, gradients, counts, samples):
            found.extend(_timed(call, dy) for _ in range(count))
    return [np.median(found, axis=0).tolist() for found in samples]


def _timed(call, dy):
    """Seconds of a forward and, where anything wants a gradient, a backward pass."""
    begin = perf_counter()
    y = call.repeat()
    middle = perf_counter()
    if not y.requires_grad:
        return (middle - begin,)
    y.backward(dy)
    end = perf_counter()
    for tensor in (*call.inputs, *call.layer.weights):
        tensor.grad = None  # the next pass is not to add to it
    return middle - begin, end - middle


# ---------------------------------------------------------------------------------------------------------------------
# Kernels


@cache
def _operation_names():
    """The names of all functions on tensors, by the way back that their nodes hold."""
    found = {f.backward: f.name for f in vars(functions).values() if isinstance(f, functions.Function)}
    return found | {functions._lstm_backward: "lstm"}


def _use(call, node, batch):
    """The row of one operation of a call; of a call without any where `node` is None."""
    layer, threads = call.layer, None
    name = "none" if node is None else _operation_names().get(node.backward, node.backward.__name__)
    if name not in kernels.__all__:
        why = "the output is the input" if node is None else "no kernel: an operator of the arrays"
        return Use(*call.names, name, layer.device, "", why, threads)
    if batch is not None and on_cpu(layer):
        threads = call.parallel
    # A global pooling is one with a single window.
    variants = kernels.VARIANTS.get(name.removeprefix("global_"))
    if variants is None:
        return Use(*call.names, name, layer.device, "", "it has no variants", threads)
    arrays = [x.data for x in within(node.inputs, Tensor)][:2]
    chosen = variants.chosen(device_of(name, x=arrays[0]), getattr(node.saved, "variant", None), *arrays)
    return Use(*call.names, name, layer.device, *chosen, threads)


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def _table(title, caption):
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", title_style="bold",
        box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip


def _short(number):
    """1,234,567 -> "1.2M"."""
    from rich.filesize import pick_unit_and_suffix

    unit, suffix = pick_unit_and_suffix(number, ["", "k", "M", "G", "T"], 1000)
    return f"{number / unit:.{0 if unit == 1 else 1}f}{suffix}"
