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
# Bytes of y that will have left the caches before anyone reads it.
STREAM = 1 << 23


# Of each panel: its group's place among x's channels, its own in packed, its place among y's channels, how many columns
# of it exist, where it starts in w.
PANEL = 5
X, PACKED, Y, COLUMNS, START = range(PANEL)


class Axis(NamedTuple):
    """One axis of a convolution."""

    inputs: np.ndarray  # for each output cell: where its window starts
    outputs: np.ndarray  # where its result goes
    taps: list  # (tap, its distance from the window's start), by distance
    inside: range  # the input cells that are not padding


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
    """The tables of one product."""

    pixels: np.ndarray
    places: np.ndarray
    runs: np.ndarray
    length: int
    spans: np.ndarray  # for a tile from pixel p on, first and end of the runs, and of each run; empty: all
    panels: np.ndarray  # PANEL numbers for each panel of filters
    shares: int  # the panels are cut into so many chunks, where there are few pixels
    stream: bool  # y is larger than the caches, made of whole vectors, and its sums are short
    lead: int  # while a tile is computed, what is new of x for the next is fetched: from its first pixel + lead on,
    pace: int  # so many numbers further for every product
    x_image: int
    y_image: int
    images: int
    image_pixels: int
    sheets: int
    blocks: int


class Packing(NamedTuple):
    """How w becomes panels: row k of tap t, column i of a panel is w[start + taps[t] + k * deep + i * across]."""

    panels: np.ndarray
    taps: np.ndarray
    depth: int  # rows of a tap
    deep: int
    across: int
    beside: int  # so many panels, from the first on, are neighbouring columns of w


class Correlation(NamedTuple):
    """The tables of a weight gradient: dw[k, f] = sum over pixels p of x[pixels[p] + taps[k]] dz[p, f]."""

    pixels: np.ndarray
    taps: np.ndarray
    depth: int  # how many taps there are; the table is longer
    height: int  # taps of a tile
    packs: bool  # x and dz are copied into panels before the tiles read them
    panels: np.ndarray  # of the same form as a product's
    filters: int
    x_image: int
    images: int
    image_pixels: int
    sheets: int
    blocks: int
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
    """(vectors a tile, Product, Packing) for each width of tile that y needs."""
    sizes = (g.H, g.W), (g.OH, g.OW), (g.KH, g.KW), g.strides, g.dilation, g.padding
    axes = [
        Axis(
            np.arange(out) * stride, np.arange(out), [(tap, tap * step) for tap in range(window)],
            range(before, before + size),
        )
        for size, out, window, stride, step, (before, _) in zip(*sizes)
    ]  # fmt: skip
    return _products(g, itemsize, axes, _padded_input(g), Side(g.OH, g.OW, g.F), across=1, deep=g.F)


@lru_cache(maxsize=128)
def window_products(g, itemsize):
    """The same where the maxima of 2 x 2 pixels are stored: pixels by windows, places of windows. What is left out of
    the windows is left out of y."""
    high, wide = g.OH // 2, g.OW // 2
    x = _padded_input(g)
    axes = [
        Axis(np.arange(2 * out) * stride, np.arange(out), [(tap, tap * step) for tap in range(window)], range(size))
        for out, window, stride, step, size in zip((high, wide), (g.KH, g.KW), g.strides, g.dilation, x)
    ]
    return _products(g, itemsize, axes, x, Side(high, wide, g.F), across=1, deep=g.F, windows=True)


@lru_cache(maxsize=128)
def data_products(g, itemsize):
    """The same for dx: the products of all phases. Filters and channels change their roles."""
    (top, bottom), (left, right) = padding_of_dz(g)
    dz, dx = Side(g.OH + top + bottom, g.OW + left + right, g.F), Side(g.H, g.W, g.C)
    sizes = (g.H, g.W), (g.KH, g.KW), (g.OH, g.OW), (top, left), g.strides, g.dilation, g.padding
    found = []
    for phase in np.ndindex(*g.strides):
        axes = [_phase(residue, *sizes_of_axis) for residue, *sizes_of_axis in zip(phase, *sizes)]
        if all(axis.outputs.size for axis in axes):
            found += _products(g, itemsize, axes, dz, dx, across=g.F, deep=1)
    return found


def _phase(residue, size, window, out, before_dz, stride, step, padding):
    """Along one axis: the cells of dx that are `residue` modulo the stride, and the taps that hit them."""
    outputs = np.arange(residue, size, stride)
    # Cell h of dx met tap `tap` at output (h + before - tap * step) / stride, where that is whole.
    distances = [(tap, residue + padding[0] - tap * step) for tap in reversed(range(window))]
    taps = [(tap, distance // stride) for tap, distance in distances if distance % stride == 0]
    return Axis(np.arange(outputs.size) + before_dz, outputs, taps, range(before_dz, before_dz + out))


def _products(g, itemsize, axes, x, y, across, deep, windows=False):
    """The products that take x to y; column i and row k of a panel are `across` and `deep` apart in w."""
    high, wide = axes
    contiguous = g.groups == 1 and all(after[1] - tap[1] == 1 for tap, after in zip(wide.taps, wide.taps[1:]))
    starts = wide.taps[:1] if contiguous else wide.taps
    depth = x.channels // g.groups
    runs = [(h * x.width + w) * x.channels for _, h in high.taps for _, w in starts]
    length = depth * (len(wide.taps) if contiguous else 1)
    taps = [(kh * g.KW + kw) * (g.C // g.groups) * g.F for kh, _ in high.taps for kw, _ in wide.taps]
    rows, columns = _limits(*axes, len(starts), depth if contiguous else 0, length)
    order = _by_windows(len(rows), len(columns)) if windows else _by_columns(len(rows), columns)
    limits = np.concatenate([np.repeat(rows, len(columns), axis=0), np.tile(columns, (len(rows), 1))], axis=1)[order]
    pixels = ((high.inputs[:, None] * x.width + wide.inputs) * x.channels).reshape(-1)[order]
    places = ((high.outputs[:, None] * y.width + wide.outputs) * y.channels).reshape(-1)
    if not windows:
        places = places[order]
    widest = TILE_COLUMNS * VECTOR_BYTES // itemsize
    most = g.groups * -(-(y.channels // g.groups) // widest)
    taken = min(x.size, pixels.size * len(taps) * depth * g.groups)  # by windows, which strides may keep apart
    grid, together = cut(g.N, pixels.size, 2 * taken * itemsize, most, taken, len(taps) * depth * y.channels)
    step = int(wide.inputs[1] - wide.inputs[0]) if wide.inputs.size > 1 else 1
    pace = -(-TILE_ROWS * step * x.channels // max(1, len(taps) * depth))
    found = []
    for columns in range(TILE_COLUMNS, 0, -1):
        panels = _panels(g, x, y, columns, columns * VECTOR_BYTES // itemsize, len(taps) * depth, across)
        if panels.size:
            shares = -(-(panels.size // PANEL) // together)
            product = Product(
                _whole_sheet(pixels, x.size, grid), _whole_sheet(places, y.size, grid),
                np.array(runs, np.int64), length, _spans(limits, grid), panels, shares,
                _streams(g, y, len(taps) * depth, itemsize), runs[-1] if runs else 0, pace, x.size, y.size, *grid,
            )  # fmt: skip
            taps = np.array(taps, np.int64)
            beside = _beside(panels, across, columns * VECTOR_BYTES // itemsize)
            found.append((columns, product, Packing(panels, taps, depth, deep, across, beside)))
    return found


def _beside(panels, across, width):
    if across != 1:
        return 0
    table = panels.reshape(-1, PANEL)
    is_next = table[:, START] == table[0, START] + np.arange(len(table)) * width
    return int(np.minimum.accumulate(is_next & (table[:, COLUMNS] == width)).sum())


def _limits(high, wide, runs_a_tap, run_step, length):
    """For each row of pixels, first and end of the runs; for each column, first and end of the numbers in a run.

    Taps that meet padding alone need not be multiplied. Along the height they are whole runs. Along the width they are
    the start or the end of every run.
    """
    rows, columns = _inside(high) * runs_a_tap, _inside(wide) * run_step
    if run_step == 0:
        columns[:] = 0, length
    return rows, columns


def _by_columns(height, columns):
    """The order in which pixels fill the tiles: those with the same taps along the width follow each other.

    Those of the left border come first, row after row, then all that have every tap, then those of the right border.
    """
    order = np.lexsort((-columns[:, 1], -columns[:, 0]))
    cuts = 1 + np.flatnonzero(np.diff(columns[order], axis=0).any(axis=1))
    same = [(np.arange(height)[:, None] * len(columns) + part).reshape(-1) for part in np.split(order, cuts)]
    return np.concatenate(same)


def _by_windows(height, width):
    """The order for maximum pooling: the four pixels of each window follow each other."""
    return np.arange(height * width).reshape(height // 2, 2, width // 2, 2).swapaxes(1, 2).reshape(-1)


def _inside(axis):
    """For each output cell of an axis: first and end of the taps that meet no padding; the first after all, if none."""
    cells = axis.inputs[:, None] + np.array([distance for _, distance in axis.taps], np.int64)
    inside = (axis.inside.start <= cells) & (cells < axis.inside.stop)
    count = len(axis.taps)
    first = np.where(inside, np.arange(count), count).min(axis=1, initial=count)
    end = np.where(inside, np.arange(count) + 1, 0).max(axis=1, initial=0)
    return np.stack([first, end], axis=1)


def _streams(g, y, length, itemsize):
    """Whether y is stored past the caches: longer sums leave time to store it the usual way."""
    whole = y.channels // g.groups * itemsize % VECTOR_BYTES == 0
    return whole and length <= 256 and g.N * y.size * itemsize >= STREAM


def _padded_input(g):
    (top, bottom), (left, right) = g.padding
    return Side(g.H + top + bottom, g.W + left + right, g.C)


def _panels(g, x, y, columns, width, depth, across):
    """Panels of y's channels, `width` numbers wide; the last one of a group may need fewer columns of vectors."""
    inputs, outputs, widest = x.channels // g.groups, y.channels // g.groups, width // columns * TILE_COLUMNS
    panels = []
    for group in range(g.groups):
        for first in range(0, outputs, widest):
            count = min(widest, outputs - first)
            if width - width // columns < count <= width:
                start = group * (g.F // g.groups) + first * across
                panels += group * inputs, len(panels) // PANEL * depth * width, group * outputs + first, count, start
    return np.array(panels, np.int64)


def _sheets(images, pixels, image_bytes, chunks):
    """Cut the pixels into about `chunks` blocks that stay in the cache; each has at least two tiles.

    (A sheet's last tile moves back so that it ends at the last pixel; it must meet no other chunk's pixels.)
    """
    sheets = max(1, min(images, images * pixels // SHEET))
    wanted = max(-(-chunks // sheets), -(-images * image_bytes // (sheets * CACHE)))
    return Sheets(images, pixels, sheets, max(1, min(wanted, images // sheets * pixels // (2 * TILE_ROWS))))


def cut(images, pixels, image_bytes, panels, x_size, w_size):
    """How a product is cut into CHUNKS or more: the sheets and blocks of its pixels, and how many panels a chunk takes.

    Every block of pixels reads all weights, every share of the panels all of x. Of the cuts with chunks enough and even
    shares, and blocks that stay in the cache, this is the one that reads least. So many pixels are cut into many blocks
    that take all panels, and a few that meet many weights (7 x 7 x 512) are one block, whose panels are shared out.
    """
    grid, best = _sheets(images, pixels, image_bytes, 1), None
    most = max(1, images // grid.sheets * pixels // (2 * TILE_ROWS))
    for together in range(1, panels + 1):
        shares = -(-panels // together)
        if 8 * shares * together > 9 * panels:  # some shares have less to do, and threads would wait for the others
            continue
        blocks = max(grid.blocks, min(most, -(-CHUNKS // (grid.sheets * shares))))
        missing = max(0, CHUNKS - grid.sheets * blocks * shares)
        read = grid.sheets * blocks * w_size + shares * images * x_size
        if best is None or (missing, read) < best[0]:
            best = (missing, read), grid._replace(blocks=blocks), together
    return best[1:]


def _whole_sheet(offsets, image_size, grid):
    """The offsets of one image's pixels for all images of a sheet; the last one again for a tile that starts beyond."""
    images = -(-grid.images // grid.sheets)
    table = (np.arange(images)[:, None] * image_size + offsets.reshape(-1)).reshape(-1)
    return np.pad(table, (0, TILE_ROWS), mode="edge").astype(np.int64)


def _spans(limits, grid):
    """The limits of a tile from pixel p on, so that they hold for each of its pixels; empty where all are the same."""
    if (limits == limits[0]).all():
        return np.empty(0, np.int64)
    sheet = np.tile(limits, (-(-grid.images // grid.sheets), 1))
    tiles = np.lib.stride_tricks.sliding_window_view(
        np.pad(sheet, ((0, TILE_ROWS), (0, 0)), mode="edge"), TILE_ROWS, axis=0
    )
    extremes = [(np.max if which % 2 else np.min)(tiles[:, which], axis=1) for which in range(4)]
    return np.stack(extremes, axis=1).reshape(-1).astype(np.int64)


# Numbers in all partial sums of dw together, at most.
PARTIAL = 1 << 20
# Up to so many tiles over each other read x and dz where they are.
FEW = 2
# Heights of the tiles of dw: 14, 13 for 64 taps and 9 for a 3 x 3 window on one channel; or 6, 5, 4.
HEIGHTS = TILE_ROWS, TILE_ROWS - 1, TILE_ROWS * 2 // 3


@lru_cache(maxsize=128)
def window_offsets(g):
    """Where the numbers of a window lie in the padded input, from its first on: (kh, kw, c) as one index."""
    high, wide = np.arange(g.KH) * g.dilation[0] * _padded_input(g).width, np.arange(g.KW) * g.dilation[1]
    return ((high[:, None] + wide)[:, :, None] * g.C + np.arange(g.C // g.groups)).reshape(-1).astype(np.int64)


@lru_cache(maxsize=128)
def window_rows(g):
    """In which row of the padded input each of them lies, from its window's first on."""
    return np.repeat(np.arange(g.KH) * g.dilation[0], g.KW * (g.C // g.groups)).astype(np.int64)


@lru_cache(maxsize=128)
def correlations(g, itemsize, windows=False):
    """(vectors a tile, Correlation) for each width of tile that dw needs.

    windows : the pixels of windows of 2 x 2, one after the other.
    """
    high, wide = (g.OH // 2 * 2, g.OW // 2 * 2) if windows else (g.OH, g.OW)
    x, y = _padded_input(g), Side(high, wide, g.F)
    pixels = (np.arange(high)[:, None] * g.strides[0] * x.width + np.arange(wide) * g.strides[1]) * g.C
    if windows:
        pixels = pixels.reshape(-1)[_by_windows(high, wide)]
    taps = window_offsets(g)
    parts = max(1, min(CHUNKS // 2, PARTIAL // (taps.size * g.F)))
    grid = _sheets(g.N, pixels.size, (x.size + y.size) * itemsize, parts)
    # Fewer, larger blocks: every block costs each tile of dw one trip to memory and back.
    grid = grid._replace(blocks=max(1, min(grid.blocks, g.N * pixels.size // (grid.sheets * SHEET))))
    # Parts of the same size.
    units = grid.sheets * grid.blocks
    parts = max(count for count in range(1, min(parts, units) + 1) if units % count == 0)
    height = tile_height(taps.size)
    table = np.pad(taps, (0, -taps.size % height)).astype(np.int64)
    found = []
    for columns in range(TILE_COLUMNS, 0, -1):
        panels = _panels(g, x, y, columns, columns * VECTOR_BYTES // itemsize, taps.size, 1)
        if panels.size:
            tall, width = table.size // height, columns * VECTOR_BYTES // itemsize
            tiles = panels.size // PANEL * tall
            packs = tall > FEW or bool((panels.reshape(-1, PANEL)[:, COLUMNS] < width).any())
            found.append((columns, Correlation(
                _whole_sheet(pixels, x.size, grid), table, taps.size, height, packs, panels, g.F,
                x.size, *grid, parts, min(tiles, -(-CHUNKS // (2 * parts))),
            )))  # fmt: skip
    return found


def tile_height(taps):
    """Taps of a tile: as many as registers allow, or of two lower heights the one that saves more than a sixteenth."""
    computed = {height: -(-taps // height) * height for height in HEIGHTS}
    best = min(HEIGHTS, key=computed.get)
    return best if 16 * (computed[TILE_ROWS] - computed[best]) > taps else TILE_ROWS
