"""The rungs "direct" and "threaded": a register tile straight on the images; tables.py says where its rows lie.

Why it is faster than im2col: the matrix of patches is neither written nor read. Each number of x is read from the
first-level cache as often as windows overlap there, and the tile gives 28 multiply-adds for 16 loads.

A tile is ROWS neighbouring pixels x one panel of filters; `threaded` runs the chunks of tiles over threads, `direct`
one after another.
"""

import numpy as np

from ... import simd
from ...gemm.cpu import CODES, NONE, RELU, activate, pack_panel
from ...jit import jit
from ...simd import (
    at,
    lanes,
    tile_add,
    tile_fill_rows,
    tile_outer_at,
    tile_outer_at_part,
    tile_relu,
    tile_store,
    tile_store_at,
    tile_zeros,
    vload_part,
    vstore_part,
)
from ...threads import threaded
from ...workspace import scratch
from .rung import Rung, pad, pad_input
from .tables import PANEL, correlations, data_products, forward_products, padding_of_dz

ROWS = simd.TILE_ROWS
X, PACKED, Y, COLUMNS, START = range(PANEL)


# ---------------------------------------------------------------------------------------------------------------------
# Forward and the gradient of the data


def make_product(columns):
    """The kernel of y = act(patches packed + bias), and the one that packs, for panels of `columns` vectors."""

    @jit(inner=True, name=f"{__name__}.tile-{columns}")
    def tile(x, x0, pixels, p0, runs, length, packed, w0, bias, f0, valid, y, y0, places, rows, activation):
        """`rows` of ROWS pixels x `valid` filters.

            per number of a run:  one row of the panel, `columns` vectors:    w0       w1
            pixels[p0]      + runs[r] + l  -> broadcast x[...] ->  acc[0, :] += x w0, x w1
            pixels[p0 + 1]  + runs[r] + l  -> broadcast x[...] ->  acc[1, :] += x w0, x w1
            ...
        """
        acc = tile_zeros(y, ROWS, columns)
        if bias.size > 0:
            tile_fill_rows(acc, bias, f0, valid)
        for r in range(runs.size):
            start = x0 + at(runs, r)
            for l in range(length):
                tile_outer_at(acc, x, start + l, pixels, p0, packed, w0)
                w0 += columns * lanes(y)
        if activation == RELU:
            tile_relu(acc)
        tile_store_at(acc, y, y0, places, p0, rows, valid)
        if activation > RELU:
            for i in range(rows):
                activate(y, y0 + at(places, p0 + i), valid, activation)

    @jit(inner=True, name=f"{__name__}.multiply-{columns}")
    def multiply(chunk, x, packed, bias, y, plan, activation):
        """One chunk: one block of a sheet's tiles, for one share of the panels.

        Chunks that follow each other have their panels in common. A panel stays in the second-level cache while the
        block's pixels stream past it. The block's last tile is moved back where it would leave the sheet.
        """
        spots = plan.sheets * plan.blocks
        share, spot = chunk // spots, chunk % spots
        sheet, block = spot // plan.blocks, spot % plan.blocks
        image = sheet * plan.images // plan.sheets
        count = ((sheet + 1) * plan.images // plan.sheets - image) * plan.image_pixels
        tiles = (count + ROWS - 1) // ROWS
        panels = plan.panels.size // PANEL // plan.shares
        for number in range(share * panels, (share + 1) * panels):
            panel = number * PANEL
            x0 = image * plan.x_image + at(plan.panels, panel + X)
            y0 = image * plan.y_image + at(plan.panels, panel + Y)
            for t in range(block * tiles // plan.blocks, (block + 1) * tiles // plan.blocks):
                p0 = max(0, min(t * ROWS, count - ROWS))
                tile(
                    x, x0, plan.pixels, p0, plan.runs, plan.length,
                    packed, at(plan.panels, panel + PACKED), bias, at(plan.panels, panel + Y),
                    at(plan.panels, panel + COLUMNS), y, y0, plan.places, min(ROWS, count), activation,
                )  # fmt: skip

    @jit(inner=True, name=f"{__name__}.pack-{columns}")
    def pack(number, w, packed, plan):
        """One chunk: one panel, tap by tap."""
        panel, width = number * PANEL, columns * lanes(w)
        for tap in range(plan.taps.size):
            pack_panel(
                w, at(plan.panels, panel + START) + at(plan.taps, tap), plan.across, plan.deep,
                at(plan.panels, panel + COLUMNS), plan.depth, width,
                packed, at(plan.panels, panel + PACKED) + tap * plan.depth * width,
            )  # fmt: skip

    return threaded(multiply), threaded(pack)


_PRODUCTS = {columns: make_product(columns) for columns in range(1, simd.TILE_COLUMNS + 1)}
_NO_BIAS = {np.dtype(dtype): np.empty(0, dtype) for dtype in (np.float32, np.float64)}


def _multiply(run, products, x, w, bias, y, activation):
    """Pack the weights and multiply, for every width of tile and every phase; `run` runs a kernel's chunks."""
    for columns, plan in products:
        multiply, pack = _PRODUCTS[columns]
        panels, depth = plan.panels.size // PANEL, plan.taps.size * plan.depth
        width = columns * simd.VECTOR_BYTES // w.itemsize
        packed = scratch("convolution.packed", panels * depth * width, w.dtype)
        run(pack, panels, packed.size, w, packed, plan)
        work = 2 * plan.images * plan.image_pixels * panels * width * depth
        run(multiply, plan.shares * plan.sheets * plan.blocks, work, x, packed, bias, y, plan, activation)


def _forward(run, x, w, b, y, g, activation):
    flat, _, _ = pad_input(x, g)
    bias = _NO_BIAS[x.dtype] if b is None else b
    _multiply(run, forward_products(g, x.itemsize), flat, w.reshape(-1), bias, y.reshape(-1), CODES[activation])


def _data_gradient(run, dz, w, dx, g):
    rows, (left, right) = padding_of_dz(g)
    flat = pad(dz, g.N, g.OH, g.OW * g.F, (rows, (left * g.F, right * g.F)))
    products = data_products(g, dz.itemsize)
    _multiply(run, products, flat, w.reshape(-1), _NO_BIAS[dz.dtype], dx.reshape(-1), NONE)


# ---------------------------------------------------------------------------------------------------------------------
# The gradient of the weights


def make_correlation(columns):
    """The kernel of partial sums of dw, for panels of `columns` vectors of filters."""

    @jit(inner=True, name=f"{__name__}.correlation_tile-{columns}")
    def tile(x, x0, pixels, p0, p1, taps, k0, dz, dz0, filters, valid, dw, dw0, rows, keep):
        """`rows` of ROWS taps x `valid` filters, summed over pixels p0 to p1; `keep`: added to what dw holds."""
        acc = tile_zeros(dw, ROWS, columns)
        if not simd.FREE_MASKS and valid == columns * lanes(dw):
            for p in range(p0, p1):
                tile_outer_at(acc, x, x0 + at(pixels, p), taps, k0, dz, dz0 + p * filters)
        else:
            for p in range(p0, p1):
                tile_outer_at_part(acc, x, x0 + at(pixels, p), taps, k0, dz, dz0 + p * filters, valid)
        if keep:
            tile_add(acc, dw, dw0, filters, rows, valid)
        tile_store(acc, dw, dw0, filters, rows, valid)

    @jit(inner=True, name=f"{__name__}.correlate-{columns}")
    def correlate(chunk, x, dz, dw, plan):
        """One chunk: one share of dw's tiles, summed over one part of the pixels.

        Block by block, so that x and dz stay in the cache while all tiles of the share read them.
        """
        share, part = chunk // plan.parts, chunk % plan.parts
        height = (plan.depth + ROWS - 1) // ROWS
        tiles = plan.panels.size // PANEL * height
        units = plan.sheets * plan.blocks
        first = part * units // plan.parts
        for unit in range(first, (part + 1) * units // plan.parts):
            sheet, block = unit // plan.blocks, unit % plan.blocks
            image = sheet * plan.images // plan.sheets
            count = ((sheet + 1) * plan.images // plan.sheets - image) * plan.image_pixels
            p0, p1 = block * count // plan.blocks, (block + 1) * count // plan.blocks
            for t in range(share * tiles // plan.shares, (share + 1) * tiles // plan.shares):
                panel, k0 = t // height * PANEL, t % height * ROWS
                f0 = at(plan.panels, panel + Y)
                tile(
                    x, image * plan.x_image + at(plan.panels, panel + X), plan.pixels, p0, p1, plan.taps, k0,
                    dz, image * plan.image_pixels * plan.filters + f0, plan.filters, at(plan.panels, panel + COLUMNS),
                    dw, (part * plan.depth + k0) * plan.filters + f0, min(ROWS, plan.depth - k0), unit > first,
                )  # fmt: skip

    return threaded(correlate)


@jit(inner=True)
def add_parts(chunk, chunks, partial, parts, dw):
    """One chunk: a share of dw's numbers, dw = partial[0] + partial[1] + ..., in this order."""
    step = lanes(dw)
    end = (chunk + 1) * dw.size // chunks
    for j in range(chunk * dw.size // chunks, end, step):
        total = vload_part(partial, j, end - j)
        for part in range(1, parts):
            total = total + vload_part(partial, part * dw.size + j, end - j)
        vstore_part(dw, j, total, end - j)


_CORRELATIONS = {columns: make_correlation(columns) for columns in range(1, simd.TILE_COLUMNS + 1)}
_add_parts = threaded(add_parts)


def _weight_gradient(run, x, dz, dw, g):
    flat, _, _ = pad_input(x, g)
    dz, total = dz.reshape(-1), dw.reshape(-1)
    plans = correlations(g, x.itemsize)
    parts = plans[0][1].parts
    partial = total if parts == 1 else scratch("convolution.partial", parts * total.size, x.dtype)
    for columns, plan in plans:
        width = columns * simd.VECTOR_BYTES // x.itemsize
        work = 2 * plan.images * plan.image_pixels * plan.panels.size // PANEL * width * plan.depth
        run(_CORRELATIONS[columns], plan.parts * plan.shares, work, flat, dz, partial, plan)
    if parts > 1:
        run(_add_parts, 8, partial.size, 8, partial, parts, total)


# ---------------------------------------------------------------------------------------------------------------------
# The rungs


def _over_threads(launch, chunks, work, *args):
    launch(chunks, work, *args)


def _one_after_another(launch, chunks, work, *args):
    launch.in_turn(chunks, *args)


def _rung(run):
    return Rung(
        lambda *args: _forward(run, *args),
        lambda *args: _data_gradient(run, *args),
        lambda *args: _weight_gradient(run, *args),
    )


conv2d_direct, conv2d_threaded = _rung(_one_after_another), _rung(_over_threads)
