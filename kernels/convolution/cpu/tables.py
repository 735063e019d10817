"""Index tables with which one kernel computes every convolution, and one its weight gradient.

A convolution is a matrix product whose left operand, the matrix of patches, is never written down. A table says where
each of its rows starts in the image, another where the row of the result goes:

    y[places[p] + f]  =  sum over runs r and l < length of   x[pixels[p] + runs[r] + l]  packed[r * length + l, f]

      pixels   output pixel p looks at the window that starts here      x   . . . . . . .
      runs     stretches of neighbouring numbers in the window:             . o o o . . .   <- runs[0], length 3 C
               in a row of the image, (kw, c) is contiguous                 . o o o . . .   <- runs[1]
               (one run a tap where dilation or groups leave gaps)          . o o o . . .   <- runs[2]

The gradient of the data is the same sum with dz for x: cell h of dx received from output pixel oh by tap kh where
h + top = oh * SH + kh * DH. For stride 1 that is a convolution of dz with the window turned. A larger stride splits
the cells of dx by h modulo SH (and w modulo SW) into phases; each is such a convolution, with those taps that hit it.

The tables cover a sheet: one image, or several where images are so small that a register tile would not be filled.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ...simd import TILE_COLUMNS, TILE_ROWS, VECTOR_BYTES

# Below so many pixels, several images make one sheet.
SHEET = 128
# Chunks to aim for, so that any number of threads gets about the same; and bytes that a chunk's inputs should stay
# within, half of a second-level cache.
CHUNKS, CACHE = 32, 1 << 19


class Axis(NamedTuple):
    """One axis of a convolution."""

    inputs: np.ndarray  # for each output cell: where its window starts
    outputs: np.ndarray  # where its result goes
    taps: list  # (tap, its distance from the window's start), by distance
    inside: tuple  # first and end of the input cells that are not padding


class Side(NamedTuple):
    """One of the two images of a convolution: height, width and channels, zeros around it included."""

    height: int
    width: int
    channels: int

    @property
    def size(self):
        return self.height * self.width * self.channels


class Sheets(NamedTuple):
    """How the pixels are cut into pieces of work: sheets of whole images, each in `blocks` blocks."""

    images: int
    pixels: int  # of one image
    sheets: int
    blocks: int


class Product(NamedTuple):
    """The tables of one product. `panels` holds PANEL numbers for each panel of filters, see `_panels`."""

    pixels: np.ndarray
    places: np.ndarray
    runs: np.ndarray
    length: int
    spans: np.ndarray  # for a tile from pixel p on: first and end of the runs that it needs; empty: all
    panels: np.ndarray
    shares: int  # the panels are cut into so many chunks, where there are few pixels
    # How a panel is packed: weights of tap t and channel k for its column i are w[start + taps[t] + k deep + i across].
    taps: np.ndarray
    depth: int
    deep: int
    across: int
    x_image: int
    y_image: int
    images: int
    image_pixels: int
    sheets: int
    blocks: int


PANEL = 5  # offset in x (of the group's channels), in packed, in y; columns; start in w


class Correlation(NamedTuple):
    """The tables of a weight gradient: dw[k, f] = sum over pixels p of x[pixels[p] + taps[k]] dz[p, f]."""

    pixels: np.ndarray
    taps: np.ndarray
    depth: int  # how many taps there are; the table is longer
    height: int  # taps of a tile
    panels: np.ndarray  # of the same form as a product's
    filters: int
    x_image: int
    images: int
    image_pixels: int
    sheets: int
    blocks: int
    block_pixels: int  # at most
    parts: int  # partial sums over the pixels, each in chunks of its own
    shares: int  # chunks that a part's tiles are split into


def padding_of_dz(g):
    """Zeros around dz, ((top, bottom), (left, right)), for which every cell of dx has whole windows."""
    axes = zip((g.H, g.W), (g.KH, g.KW), (g.OH, g.OW), g.strides, g.dilation, g.padding)
    sides = []
    for size, window, out, stride, step, (before, _) in axes:
        first, last = before - (window - 1) * step, before + size - 1
        # Output cells that do not exist: those from first / stride (rounded up) to 0, from `out` to last / stride.
        sides.append((max(0, -first // stride), max(0, last // stride - (out - 1))))
    return tuple(sides)


@lru_cache(maxsize=128)
def forward_products(g, itemsize):
    """(vectors a tile, Product) for each width of tile that y needs."""
    axes = [
        Axis(np.arange(out) * stride, np.arange(out), [(tap, tap * step) for tap in range(window)], (0, size))
        for out, window, stride, step, size in zip((g.OH, g.OW), (g.KH, g.KW), g.strides, g.dilation, (g.H, g.W))
    ]
    (top, bottom), (left, right) = g.padding
    x = Side(g.H + top + bottom, g.W + left + right, g.C)
    return _products(g, itemsize, axes, x, Side(g.OH, g.OW, g.F), 1)


@lru_cache(maxsize=128)
def data_products(g, itemsize):
    """The same for dx: the products of all phases."""
    (top, bottom), (left, right) = sides = padding_of_dz(g)
    dz, dx = Side(g.OH + top + bottom, g.OW + left + right, g.F), Side(g.H, g.W, g.C)
    found = []
    for phase in np.ndindex(*g.strides):
        axes = []
        for axis, residue in enumerate(phase):
            stride, step, window = g.strides[axis], g.dilation[axis], (g.KH, g.KW)[axis]
            origin = residue + g.padding[axis][0]
            outputs = np.arange(residue, (g.H, g.W)[axis], stride)
            hits = [tap for tap in reversed(range(window)) if (origin - tap * step) % stride == 0]
            taps = [(tap, (origin - tap * step) // stride) for tap in hits]
            before = sides[axis][0]
            inside = before, before + (g.OH, g.OW)[axis]
            axes.append(Axis(np.arange(len(outputs)) + before, outputs, taps, inside))
        if all(axis.outputs.size for axis in axes):
            found += _products(g, itemsize, axes, dz, dx, 0)
    return found


def _products(g, itemsize, axes, x, y, forward):
    high, wide = axes
    contiguous = g.groups == 1 and all(b[1] - a[1] == 1 for a, b in zip(wide.taps, wide.taps[1:]))
    pixels = (high.inputs[:, None] * x.width + wide.inputs) * x.channels
    places = (high.outputs[:, None] * y.width + wide.outputs) * y.channels
    depth = x.channels // g.groups
    starts = wide.taps[:1] if contiguous else wide.taps
    runs = [(h * x.width + w) * x.channels for _, h in high.taps for _, w in starts]
    taps = [(kh * g.KW + kw) * (g.C // g.groups) * g.F for kh, _ in high.taps for kw, _ in wide.taps]
    images = [side.size for side in (x, y)]
    found = []
    for columns in range(TILE_COLUMNS, 0, -1):
        panels = _panels(g, itemsize, columns, len(taps) * depth, forward)
        if not panels:
            continue
        grid = _sheets(g.N, pixels.size, sum(images) * itemsize, CHUNKS)
        shares = min(len(panels), -(-CHUNKS // (2 * grid.sheets * grid.blocks)))
        found.append((columns, Product(
            _whole_sheet(pixels, images[0], grid), _whole_sheet(places, images[1], grid),
            np.array(runs, np.int64), depth * (len(wide.taps) if contiguous else 1),
            _spans(high, len(starts), pixels.shape[1], grid) if not forward else np.empty(0, np.int64),
            np.array(panels, np.int64).reshape(-1), shares,
            np.array(taps, np.int64), depth, g.F if forward else 1, 1 if forward else g.F, *images, *grid,
        )))  # fmt: skip
    return found


def _panels(g, itemsize, columns, depth, forward):
    """Panels of `columns` vectors of filters (forward) or channels; the last ones of a group take the width they need.

    Each is (offset in x, offset in packed, offset in y, columns that exist, start in w).
    """
    lanes = VECTOR_BYTES // itemsize
    inputs, outputs = (g.C, g.F) if forward else (g.F, g.C)
    inputs, outputs = inputs // g.groups, outputs // g.groups
    panels = []
    for group in range(g.groups):
        for first in range(0, outputs, TILE_COLUMNS * lanes):
            count = min(TILE_COLUMNS * lanes, outputs - first)
            if -(-count // lanes) == columns:
                start = group * outputs + first if forward else first * g.F + group * inputs
                packed = len(panels) * depth * columns * lanes
                panels.append((group * inputs, packed, group * outputs + first, count, start))
    return panels


def _sheets(images, pixels, image_bytes, chunks):
    """Cut the pixels into about `chunks` blocks that stay in the cache; each has at least two tiles.

    (A sheet's last tile moves back so that it ends at the last pixel; it must meet no other chunk's pixels.)
    """
    sheets = max(1, min(images, images * pixels // SHEET))
    wanted = max(-(-chunks // sheets), -(-images * image_bytes // (sheets * CACHE)))
    return Sheets(images, pixels, sheets, max(1, min(wanted, images // sheets * pixels // (2 * TILE_ROWS))))


def _whole_sheet(offsets, image_size, grid):
    """The offsets of one image's pixels for all images of a sheet, and at least as many as a tile has rows."""
    images = -(-grid.images // grid.sheets)
    table = (np.arange(images)[:, None] * image_size + offsets.reshape(-1)).reshape(-1)
    return np.pad(table, (0, max(0, TILE_ROWS - table.size)), mode="edge").astype(np.int64)


def _spans(axis, runs_a_tap, width, grid):
    """For a tile from pixel p on: the runs that meet rows of dz for any of its pixels; the others see padding alone."""
    rows = axis.inputs[:, None] + np.array([offset for _, offset in axis.taps], np.int64)
    hit = (axis.inside[0] <= rows) & (rows < axis.inside[1])
    # Rows without any hit: from the last tap to the first, which is no run.
    numbers = np.arange(len(axis.taps))
    first = np.where(hit, numbers, len(axis.taps)).min(axis=1, initial=len(axis.taps))
    end = np.where(hit, numbers + 1, 0).max(axis=1, initial=0)
    spans = []
    for limits, extreme in ((first, np.min), (end, np.max)):
        image = np.repeat(limits * runs_a_tap, width)
        sheet = np.tile(image, -(-grid.images // grid.sheets))
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(sheet, (0, TILE_ROWS), mode="edge"), TILE_ROWS)
        spans.append(extreme(windows, axis=1))
    return np.stack(spans, axis=1).reshape(-1).astype(np.int64)


# Numbers in all partial sums of dw together, at most.
PARTIAL = 1 << 19


@lru_cache(maxsize=128)
def correlations(g, itemsize):
    """(vectors a tile, Correlation) for each width of tile that dw needs."""
    (top, bottom), (left, right) = g.padding
    x = Side(g.H + top + bottom, g.W + left + right, g.C)
    pixels = (np.arange(g.OH)[:, None] * g.strides[0] * x.width + np.arange(g.OW) * g.strides[1]) * g.C
    high, wide = np.arange(g.KH) * g.dilation[0] * x.width, np.arange(g.KW) * g.dilation[1]
    taps = ((high[:, None] + wide)[:, :, None] * g.C + np.arange(g.C // g.groups)).reshape(-1)
    parts = max(1, min(CHUNKS // 2, PARTIAL // (taps.size * g.F)))
    image_bytes = (x.size + g.OH * g.OW * g.F) * itemsize
    grid = _sheets(g.N, pixels.size, image_bytes, parts)
    # Fewer, larger blocks: every block costs each tile of dw one trip to memory and back.
    grid = grid._replace(blocks=max(1, min(grid.blocks, g.N * pixels.size // (grid.sheets * SHEET))))
    parts = min(parts, grid.sheets * grid.blocks)
    block_pixels = -(-(-(-g.N // grid.sheets) * pixels.size) // grid.blocks)
    height = _height(taps.size)
    table = np.pad(taps, (0, -taps.size % height)).astype(np.int64)
    found = []
    for columns in range(TILE_COLUMNS, 0, -1):
        panels = _panels(g, itemsize, columns, 0, 1)
        if panels:
            tiles = len(panels) * (table.size // height)
            found.append((columns, Correlation(
                _whole_sheet(pixels, x.size, grid), table, taps.size, height, np.array(panels, np.int64).reshape(-1),
                g.F, x.size, *grid, block_pixels, parts, min(tiles, -(-CHUNKS // (2 * parts))),
            )))  # fmt: skip
    return found


def _height(taps):
    """Taps of a tile: as many as registers allow, or fewer where that many would compute a sixteenth too much."""
    tiles = -(-taps // TILE_ROWS)
    snug = max(-(-taps // tiles), TILE_ROWS // 2)
    return snug if tiles * (TILE_ROWS - snug) * 16 > taps else TILE_ROWS
