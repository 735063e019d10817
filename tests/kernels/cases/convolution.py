"""Cases for conv2d."""

import dataclasses

import workspaces
from harness import Case
from workspaces import rounded

from handloom import kernels
from handloom.kernels.convolution.cpu import few, grouped, turned, winograd
from handloom.kernels.convolution.cpu.direct import is_product
from handloom.kernels.convolution.cpu.tables import padding_of_dz
from handloom.kernels.simd import TILE_COLUMNS, VECTOR_BYTES

FAST = ("im2col", "direct", "threaded")


def with_zeros(n, height, width, channels, padding):
    """Numbers in images with zeros around them; none where there are no zeros to make room for."""
    (top, bottom), (left, right) = padding
    return n * (height + top + bottom) * (width + left + right) * channels if top + bottom + left + right else 0


def by_im2col(g, itemsize):
    """Numbers for y, dx and dw; the matrix, which they have in common, apart."""
    pixels, depth, filters, taps = g.OH * g.OW, g.C // g.groups, g.F // g.groups, g.KH * g.KW
    rows = min(g.N, max(1, (1 << 19) // (pixels * taps * depth))) * pixels
    shapes = (rows, filters, taps * depth), (rows, taps * depth, filters), (taps * depth, filters, rows)
    products = [workspaces.product("threaded", *shape, itemsize) // itemsize for shape in shapes]
    parts = rows * filters + taps * depth * filters if g.groups > 1 else 0
    x = with_zeros(g.N, g.H, g.W, g.C, g.padding)
    y, dx, dw = (part + product for part, product in zip((x + parts, x + parts, x + taps * depth * g.F), products))
    return y, dx, dw, rows * taps * depth


def by_tiles(g, itemsize):
    """Numbers for y, dx and dw."""
    depth, filters, taps, vector = g.C // g.groups, g.F // g.groups, g.KH * g.KW, 64 // itemsize
    x, dz = with_zeros(g.N, g.H, g.W, g.C, g.padding), with_zeros(g.N, g.OH, g.OW, g.F, padding_of_dz(g))
    return (
        x + taps * depth * g.groups * rounded(filters, vector),
        dz + taps * filters * g.groups * rounded(depth, vector),
        x + min(16 * taps * depth * g.F, 1 << 20),
    )


def by_points(depth, outputs, itemsize):
    """Numbers for a pass in the rung "winograd"."""
    return 36 * (depth + 1) * rounded(outputs, TILE_COLUMNS * VECTOR_BYTES // itemsize)


def stated(variant, g, itemsize):
    """Numbers forward and backward that the docstring of conv2d names, without dz and its rows."""
    if variant == "naive":
        x = with_zeros(g.N, g.H, g.W, g.C, g.padding)
        return x, x + (x or g.N * g.H * g.W * g.C)
    y, dx, dw, matrix = by_im2col(g, itemsize)
    if variant == "im2col":
        return y + matrix, dx + dw + matrix
    y, dx, dw = by_tiles(g, itemsize)
    if variant != "direct" and is_product(g):
        dw = workspaces.product("threaded", g.C, g.F, g.N * g.OH * g.OW, itemsize) // itemsize
    elif variant != "direct" and turned.suits(g, itemsize):
        dw += g.KH * g.KW * g.C * g.F
    if variant == "winograd" and winograd.suits(g, g.N, g.OH, g.OW, g.C, g.F, itemsize):
        y = by_points(g.C, g.F, itemsize)
    if variant == "winograd" and winograd.suits(g, g.N, g.H, g.W, g.F, g.C, itemsize):
        dx = by_points(g.F, g.C, itemsize)
    elif variant in ("threaded", "winograd") and few.suits(g, itemsize):
        dx = with_zeros(g.N, g.H, g.W, g.C, g.padding) + rounded(g.KH * g.KW * g.C, 14) * g.F
    return y, dx + dw


def conv(id, x_shape, w_shape, bias=True, variants=None, **options):
    def make(rng, dtype):
        return {
            "x": rng.uniform(-1, 1, x_shape).astype(dtype),
            "w": rng.uniform(-1, 1, w_shape).astype(dtype),
            "b": rng.uniform(-1, 1, w_shape[3:]).astype(dtype) if bias else None,
        }

    def workspace(variant, x, w, b):
        y, saved = kernels.conv2d_forward(x, w, b, **options)
        forward, backward = stated(variant, saved.geometry, x.itemsize)
        dz = y.size if saved.activation else 0
        sums = 16 * y.shape[3] if bias or saved.activation else 0
        return forward * x.itemsize, (backward + dz + sums) * x.itemsize

    kernel_h, kernel_w, depth, filters = w_shape
    images, height, width, _ = x_shape
    length = max(kernel_h * kernel_w * max(depth, filters), images * height * width)
    return Case(
        "conv2d", id, make, options, wrt=("x", "w", "b"), length=length, variants=variants, workspace=workspace,
        spreads=("winograd",),
    )  # fmt: skip


def pooled(id, *shapes, **options):
    """The same convolution with the maximum over 2 x 2 pixels of its result."""
    case = conv(id, *shapes, variants=("separate", "direct", "winograd"), **options)
    options = case.options

    def workspace(variant, x, w, b):
        g = kernels.conv2d_forward(x, w, b, **options)[1].geometry
        z, sums = g.N * g.OH * g.OW * g.F, 16 * g.F
        forward, backward = stated("winograd", g, x.itemsize)
        tiles, _ = stated("threaded", g, x.itemsize)
        taken = z * x.itemsize + y_size(g) if alone(variant, g, x.itemsize, options) else 0
        dm = y_size(g) if options.get("activation") else 0
        return max(forward, tiles) * x.itemsize + taken, (backward + z + dm + sums) * x.itemsize

    return dataclasses.replace(case, op="conv2d_max_pool2d", workspace=workspace, spreads=("separate", "winograd"))


def y_size(g):
    return g.N * (g.OH // 2) * (g.OW // 2) * g.F


def alone(variant, g, itemsize, options):
    """Whether the convolution and the pooling are done one after the other."""
    return variant == "separate" or grouped.suits(g, itemsize) or options.get("activation") in ("sigmoid", "tanh")


CASES = [
    # Output pixels below, at and above the height of the tile (14 or 6), in one row and over several.
    conv("one-number", (1, 1, 1, 1), (1, 1, 1, 1)),
    conv("one-pixel", (1, 3, 3, 2), (3, 3, 2, 5)),
    conv("one-pixel-many-images", (9, 2, 2, 3), (2, 2, 3, 4)),
    conv("few-pixels", (7, 4, 5, 3), (2, 3, 3, 6)),
    conv("row-below-the-tile", (2, 5, 15, 2), (3, 3, 2, 3)),
    conv("row-at-the-tile", (2, 4, 16, 1), (3, 3, 1, 4)),
    conv("row-above-the-tile", (1, 5, 19, 2), (2, 4, 2, 3)),
    # Filters and channels around one and two vectors (16 and 32, or 8 and 16, or 4 and 8).
    *(
        conv(f"{channels}-channels-{filters}-filters", (2, 6, 7, channels), (3, 3, channels, filters), variants=FAST)
        for channels, filters in [(1, 32), (32, 1), (15, 17), (17, 33), (33, 48), (64, 31)]
    ),
    # dw transposed: tiles of filters that are moved back, several parts of the pixels, and shares of the window.
    conv("few-filters", (2, 33, 20, 64), (3, 3, 64, 24), variants=FAST),
    conv("few-filters-apart", (3, 12, 11, 64), (3, 2, 64, 19), strides=(2, 1), dilation=(1, 3), variants=FAST),
    conv("one-panel-of-channels", (1, 20, 30, 32), (2, 3, 32, 70), padding="same", variants=FAST),
    conv("half-a-panel-over", (2, 9, 10, 48), (3, 3, 48, 20), variants=FAST),
    conv("one-group-of-eight", (2, 6, 7, 8), (3, 3, 8, 8), variants=FAST),
    conv("one-panel-of-channels-in-double", (9, 5, 6, 16), (3, 3, 16, 33), padding="same", strides=2, variants=FAST),
    conv("row-of-several-panels", (1, 3, 70, 2), (2, 3, 2, 5), variants=FAST),
    conv("same", (2, 6, 7, 3), (3, 3, 3, 4), padding="same"),
    conv("same-even-window", (2, 5, 6, 2), (2, 4, 2, 3), padding="same", activation="relu"),
    conv("same-strides", (2, 7, 8, 3), (3, 3, 3, 4), padding="same", strides=2),
    conv("sided-padding", (2, 5, 4, 2), (3, 2, 2, 3), padding=((2, 0), (1, 3))),
    conv("padding-beyond-the-window", (1, 3, 3, 2), (2, 2, 2, 2), padding=((4, 3), (0, 5))),
    conv("strides", (2, 9, 8, 3), (3, 2, 3, 4), strides=(2, 3)),
    conv("strides-leave-cells-out", (1, 8, 9, 2), (1, 2, 2, 3), strides=(3, 4)),
    conv("strides-1x1", (2, 7, 7, 5), (1, 1, 5, 6), strides=2),
    conv("plain-1x1", (2, 19, 14, 37), (1, 1, 37, 18), activation="relu"),
    conv("dilation", (2, 8, 9, 3), (3, 2, 3, 4), dilation=(2, 3)),
    conv("dilation-and-strides", (2, 12, 11, 2), (3, 3, 2, 3), dilation=(2, 3), strides=(3, 2), padding="same"),
    conv("groups", (2, 5, 6, 6), (3, 3, 2, 9), groups=3),
    conv("groups-wide", (2, 6, 6, 40), (2, 2, 20, 66), groups=2, variants=FAST),
    # Tiles of dw, seven of 14 rows (AVX-512) or three of 6, are for each group's two channels as many as a tile's rows.
    conv("groups-in-seven-tiles", (2, 13, 19, 4), (7, 7, 2, 16), groups=2, padding="same", variants=FAST),
    conv("groups-in-three-tiles", (8, 12, 12, 4), (3, 3, 2, 16), groups=2, padding="same", variants=FAST),
    conv("groups-in-vectors", (2, 3, 5, 8), (3, 2, 4, 8), groups=2, padding=((2, 0), (1, 2)), activation="relu"),
    conv("many-pixels-and-filters", (1, 23, 14, 1), (2, 2, 1, 33), strides=(1, 2)),
    conv("depthwise", (2, 7, 6, 5), (3, 3, 1, 10), groups=5, padding="same", strides=2, activation="tanh"),
    conv("depthwise-alone", (2, 7, 6, 35), (3, 3, 1, 35), groups=35, activation="relu"),
    conv("depthwise-strides", (2, 8, 9, 17), (2, 3, 1, 17), groups=17, strides=(2, 3), padding="same", bias=False),
    conv("depthwise-dilation", (1, 9, 13, 5), (3, 2, 1, 5), groups=5, dilation=(2, 3), activation="tanh"),
    conv("depthwise-beyond", (2, 3, 2, 4), (2, 2, 1, 4), groups=4, padding=((4, 3), (0, 5)), activation="sigmoid"),
    # Narrow groups: several in a vector, images below and above the width from which y is made row by row (32), tiles
    # of four pixels that end before and after the last one, channels around two vectors.
    conv(
        "groups-of-one-wide", (1, 7, 37, 20), (3, 3, 1, 20), groups=20, padding="same", activation="relu", variants=FAST
    ),
    conv("groups-of-one-deep", (2, 5, 33, 130), (1, 7, 1, 130), groups=130, padding="same", variants=FAST),
    conv("groups-of-one-pairs", (1, 3, 34, 5), (2, 2, 1, 5), groups=5, padding=((1, 0), (0, 3)), variants=FAST),
    conv("groups-of-one-fives", (1, 4, 34, 17), (2, 5, 1, 17), groups=17, padding="same", variants=FAST),
    conv("groups-of-one-fives-narrow", (2, 6, 7, 9), (3, 5, 1, 9), groups=9, padding="same", variants=FAST),
    conv("groups-of-one-high", (2, 6, 7, 9), (4, 3, 1, 9), groups=9, padding="same", variants=FAST),
    conv("groups-of-one-strides", (2, 9, 35, 18), (5, 5, 1, 18), groups=18, padding="same", strides=2, variants=FAST),
    conv("groups-of-two", (2, 9, 11, 34), (3, 3, 2, 34), groups=17, padding="same", strides=(1, 2), variants=FAST),
    conv(
        "groups-of-two-wide", (1, 9, 34, 6), (3, 2, 2, 6), groups=3, padding=((3, 0), (0, 2)), dilation=2, variants=FAST
    ),
    conv("groups-of-four", (2, 7, 9, 20), (5, 5, 4, 20), groups=5, padding="same", activation="tanh", variants=FAST),
    conv(
        "groups-of-four-wide",
        (1, 11, 38, 12),
        (3, 3, 4, 12),
        groups=3,
        padding=((0, 1), (2, 1)),
        strides=2,
        variants=FAST,
    ),
    conv(
        "groups-of-eight",
        (2, 6, 7, 24),
        (3, 3, 8, 24),
        groups=3,
        padding="same",
        strides=(2, 3),
        dilation=(3, 2),
        variants=FAST,
    ),
    conv(
        "groups-of-eight-wide",
        (1, 5, 40, 16),
        (3, 3, 8, 16),
        groups=2,
        padding="same",
        activation="sigmoid",
        variants=FAST,
    ),
    conv("groups-in-boxes", (1, 31, 30, 9), (3, 3, 1, 9), groups=9, padding="same", variants=FAST),
    conv("groups-under-wide-padding", (1, 3, 36, 4), (2, 2, 1, 4), groups=4, padding=((4, 3), (0, 5)), variants=FAST),
    conv("relu", (2, 6, 9, 2), (3, 3, 2, 5), activation="relu"),
    conv("sigmoid", (2, 6, 6, 3), (3, 3, 3, 4), activation="sigmoid"),
    conv("tanh-no-bias", (2, 6, 6, 3), (3, 3, 3, 4), bias=False, activation="tanh"),
    conv("sigmoid-over-blocks", (1, 33, 30, 3), (3, 3, 3, 35), activation="sigmoid", variants=FAST),
    # A dx of few channels in two bands of rows, whose border windows reach over.
    conv("bands", (2, 33, 19, 3), (3, 3, 3, 5), padding="same", strides=(1, 2), variants=FAST),
    conv("bands-dilated", (1, 41, 12, 2), (3, 2, 2, 7), dilation=(2, 3), strides=(2, 1), variants=FAST),
    # The first two layers of a digit classifier, and a panel that needs several shares.
    conv("digits", (8, 28, 28, 1), (3, 3, 1, 32), activation="relu", variants=FAST),
    conv("digits-second", (4, 13, 13, 32), (3, 3, 32, 64), activation="relu", variants=FAST),
    conv("beyond-tiles-of-128", (1, 2, 4, 68), (1, 2, 68, 132), variants=FAST),
    # Panels of dz that fill their place, and filters beside them that have a narrower tile.
    conv("panels-and-a-rest", (1, 18, 17, 3), (3, 3, 3, 264), bias=False, variants=("threaded",)),
    # Layers that the rung "winograd" computes its own way (a test says that it does).
    conv("points", (2, 33, 34, 17), (3, 3, 17, 20), padding="same", activation="relu", variants=("winograd",)),
    conv("points-valid", (1, 40, 35, 33), (3, 3, 33, 40), variants=("winograd",)),
    conv("points-sided", (3, 28, 27, 32), (3, 3, 32, 24), bias=False, padding=((0, 2), (3, 1)), variants=("winograd",)),
    # On a GPU too.
    conv("points-wide", (2, 27, 30, 96), (3, 3, 96, 100), padding="same", variants=("winograd",)),
    conv("points-dilated", (2, 30, 33, 32), (3, 3, 32, 24), padding="same", dilation=(2, 1), variants=("winograd",)),
    conv("deep", (1, 6, 6, 200), (3, 3, 200, 96), padding="same", bias=False, variants=FAST),
    # One window; windows below, at and above a tile; an odd row, an odd column; blocks of windows, panels with a rest.
    pooled("one-window", (1, 3, 4, 2), (2, 2, 2, 3)),
    pooled("windows-below-the-tile", (3, 5, 4, 2), (2, 2, 2, 5), activation="relu"),
    pooled("odd-row", (2, 8, 19, 3), (2, 2, 3, 17), padding="same"),
    pooled("odd-column", (1, 11, 16, 3), (3, 2, 3, 33), padding=((2, 0), (1, 1)), activation="relu"),
    pooled("strides-and-dilation", (2, 17, 14, 2), (3, 2, 2, 5), strides=(2, 1), dilation=(1, 2), bias=False),
    pooled("groups", (2, 9, 11, 6), (3, 3, 2, 9), groups=3, padding="same", activation="relu"),
    pooled("alone", (1, 8, 8, 3), (3, 3, 3, 4), activation="sigmoid"),
    pooled("narrow-groups", (1, 9, 10, 8), (3, 3, 4, 8), groups=2, padding="same"),
    pooled("depthwise", (1, 9, 8, 5), (3, 3, 1, 5), groups=5, activation="relu"),
    pooled("digits", (8, 28, 28, 1), (3, 3, 1, 32), activation="relu"),
    pooled("points", (2, 35, 33, 17), (3, 3, 17, 20), padding="same", activation="relu"),
    pooled("points-sided", (3, 28, 27, 32), (3, 3, 32, 24), bias=False, padding=((0, 2), (3, 1))),
]

# On a GPU: which of these run in the simulator.
SIMULATED = {
    "one-window",
    "odd-column",
    "same-strides",
    "dilation-and-strides",
    "groups-in-vectors",
    "many-pixels-and-filters",
}
CASES = [dataclasses.replace(case, simulate=True) if case.id in SIMULATED else case for case in CASES]
