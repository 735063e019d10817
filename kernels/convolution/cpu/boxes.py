"""Convolutions in narrow groups, in the rung "threaded": all passes box by box (grouped.py says when).

The pixels are cut into boxes, and for each block of two vectors of channels the part of x that a box needs is copied to
the thread's stack, with the zeros around the image. There it stays in the first-level cache while windows overlap, and
no load has to look for borders. (In x itself the pixels are C numbers apart; where that is a multiple of 128 or so, the
cache could keep few of them at once.) While a block is computed, the next one is fetched.

The gradient of the data is the same with dz for x. With strides it falls into phases: the cells of dx whose row and
column leave the same rest are a convolution of dz with those taps that reach them. They have their box in common.
"""

import functools
from typing import NamedTuple

import numpy as np

from ... import simd
from ...gemm.cpu import RELU, activate
from ...jit import jit
from ...simd import (
    at,
    expect,
    lanes,
    stack_array,
    tile_add,
    tile_fill_rows,
    tile_groups,
    tile_groups_along,
    tile_groups_at,
    tile_relu,
    tile_store,
    tile_zeros,
    vfill,
    viewed,
    vload,
    vload_part,
    vstore,
)
from ...threads import threaded

# A tile of y: pixels of a row x vectors of channels.
PIXELS, VECTORS = 4, 2
# Neighbouring taps of a row that are taken together, at most: their weights stay in registers, of which AVX2 has half.
# (On one thread of an Intel Xeon, windows of 3 took 0.84 times as long so, those of 5 and 7 0.73; tiles of 6 or 8
# pixels, or of one vector, were slower.)
RUN = 5 if simd.TILE_ROWS < 12 else 7
# Taps of a tile of dw, by the width of a group: with the operands their sums fit into 16 registers.
TAPS = {1: 9, 2: 5, 4: 3, 8: 1, 16: 1}
# Bytes of the stack: for a box, most of a first-level cache, and for a block's weights.
BOX, WEIGHTS = 24 << 10, 32 << 10


class Boxes(NamedTuple):
    """How the pixels are cut into boxes. Pairs are (along the height, along the width)."""

    inputs: tuple  # of an image of x (of dz, where dx is computed)
    outputs: tuple
    channels: int
    images: int
    count: tuple  # of boxes in an image
    cells: tuple  # outputs of a box, of each phase
    step: tuple  # from one output to the next: in the box,
    stretch: tuple  # and in the image of outputs
    origin: tuple  # where the first box starts in the image of inputs
    size: tuple  # of a box
    phases: np.ndarray  # PHASE numbers for each: rest, rest, its first tap and their end
    taps: np.ndarray  # the taps of w, phase after phase
    offsets: np.ndarray  # of each: how far it is from the start of the box; more of them, for a whole tile of dw
    run: int  # so many taps that follow each other are neighbours in a row


PHASE = 4


@jit(inline=True)
def corner(spot, plan):
    """Image, and row and column of its first output in each phase, of a box."""
    image, spot = spot // (plan.count[0] * plan.count[1]), spot % (plan.count[0] * plan.count[1])
    return image, spot // plan.count[1] * plan.cells[0], spot % plan.count[1] * plan.cells[1]


@jit(inline=True)
def to_next(spot, plan, size, step):
    """How far the next box is in an image of this size, if its outputs are `step` cells apart there."""
    (image, row, col), (next_image, next_row, next_col) = corner(spot, plan), corner(spot + 1, plan)
    rows = (next_image - image) * size[0] + (next_row - row) * step[0]
    return (rows * size[1] + (next_col - col) * step[1]) * plan.channels


@jit(inline=True)
def fill_box(x, image, row0, col0, c, count, plan, box, ahead):
    """box[h, w, :] = x[image, h, w, c:c + count], zeros beyond the image; the same `ahead` numbers on is fetched."""
    corner_h, corner_w = plan.origin[0] + row0 * plan.step[0], plan.origin[1] + col0 * plan.step[1]
    step, (height, width) = lanes(x), plan.inputs
    block, zeros, target = VECTORS * step, vfill(x, 0.0), 0
    begin, end = min(max(0, -corner_w), plan.size[1]), max(0, min(plan.size[1], width - corner_w))
    for h in range(plan.size[0]):
        row = corner_h + h
        first, last = (begin, end) if 0 <= row < height else (plan.size[1], plan.size[1])
        source = ((image * height + row) * width + corner_w + first) * plan.channels + c
        for w in range(plan.size[1]):
            if w < first or w >= last:
                for v in range(0, block, step):
                    vstore(box, target + v, zeros)
            elif count >= block:
                for v in range(0, block, step):
                    vstore(box, target + v, vload(x, source + v))
                expect(x, source + ahead)
                source += plan.channels
            else:
                for v in range(0, block, step):
                    vstore(box, target + v, vload_part(x, source + v, max(0, count - v)))
                source += plan.channels
            target += block


@jit(inline=True)
def pack_weights(w, taps, width, channels, c, weights):
    """weights[t, k, :] = w[taps[t], k, c:...], a block of channels, zeros beyond them."""
    block = VECTORS * lanes(w)
    for t in range(taps.size):
        for k in range(width):
            source, target = (at(taps, t) * width + k) * channels + c, (t * width + k) * block
            for v in range(0, block, lanes(w)):
                vstore(weights, target + v, vload_part(w, source + v, max(0, channels - c - v)))


@functools.cache
def convolution(width, run):
    """The kernel of y, or of dx, for groups of `width` channels, and of taps that come in runs of neighbours."""

    @jit(inner=True, name=f"{__name__}.convolve_box-{width}-{run}")
    def convolve_box(chunk, x, w, bias, y, plan, part, activation):
        """One chunk: one box, for `part` channels."""
        parts = (plan.channels + part - 1) // part
        spot, c0 = chunk // parts, chunk % parts * part
        image, row0, col0 = corner(spot, plan)
        next_x, next_y = to_next(spot, plan, plan.inputs, plan.step), to_next(spot, plan, plan.outputs, plan.stretch)
        box = viewed(stack_array(np.uint8, BOX), y)
        weights = viewed(stack_array(np.uint8, WEIGHTS), y)
        block, channels, phases, offsets = VECTORS * lanes(y), plan.channels, plan.phases, plan.offsets
        (height, wide), (across, along) = plan.outputs, plan.stretch
        pixel, stretch = plan.step[1] * block, along * channels
        for c in range(c0, min(c0 + part, channels), block):
            count = channels - c
            ahead = block if count > block else next_y - c
            fill_box(x, image, row0, col0, c, count, plan, box, block if count > block else next_x - c)
            pack_weights(w, plan.taps, width, channels, c, weights)
            for p in range(0, phases.size, PHASE):
                rest_h, rest_w, first, end = at(phases, p), at(phases, p + 1), at(phases, p + 2), at(phases, p + 3)
                rows = min(plan.cells[0], (height - rest_h + across - 1) // across - row0)
                cols = min(plan.cells[1], (wide - rest_w + along - 1) // along - col0)
                for row in range(rows):
                    oh, ow = (row0 + row) * across + rest_h, col0 * along + rest_w
                    target = ((image * height + oh) * wide + ow) * channels + c
                    source = row * plan.step[0] * plan.size[1] * block
                    for col in range(0, cols, PIXELS):
                        col = max(0, min(col, cols - PIXELS))
                        acc = tile_zeros(y, PIXELS, VECTORS)
                        if bias.size > 0:
                            tile_fill_rows(acc, bias, c, count)
                        for t in range(first, end, run):
                            start = source + col * pixel + at(offsets, t)
                            tile_groups(acc, width, run, box, start, pixel, weights, t * width * block)
                        for i in range(PIXELS):
                            expect(y, target + (col + i) * stretch + ahead)
                        if activation == RELU:
                            tile_relu(acc)
                        tile_store(acc, y, target + col * stretch, stretch, cols - col, count)
                    if activation > RELU:
                        for col in range(cols):
                            activate(y, target + col * stretch, min(block, count), activation)

    return threaded(convolve_box)


@functools.cache
def correlation(width, height, run):
    """The kernel of dw for groups of `width` channels, in tiles of `height` taps, which come in runs of neighbours."""
    tall, alike = height * width, run > 1 and height % run == 0

    @jit(inner=True, name=f"{__name__}.correlate_box-{width}-{run}")
    def correlate_box(chunk, x, dz, partial, plan, part, sums):
        """One chunk: `part` channels, summed over a share of the boxes."""
        share, c0 = chunk % sums, chunk // sums * part
        box = viewed(stack_array(np.uint8, BOX), dz)
        boxes = plan.images * plan.count[0] * plan.count[1]
        first, end = share * boxes // sums, (share + 1) * boxes // sums
        block, channels, depth = VECTORS * lanes(dz), plan.channels, plan.taps.size * width
        offsets, pixel = plan.offsets, plan.step[1] * VECTORS * lanes(dz)
        for unit in range(first, end):
            image, row0, col0 = corner(unit, plan)
            next_x, next_z = to_next(unit, plan, plan.inputs, plan.step), to_next(unit, plan, plan.outputs, (1, 1))
            rows, cols = min(plan.cells[0], plan.outputs[0] - row0), min(plan.cells[1], plan.outputs[1] - col0)
            for c in range(c0, min(c0 + part, channels), block):
                last = c + block >= min(c0 + part, channels)
                ahead = next_z + c0 - c if last else block
                fill_box(x, image, row0, col0, c, channels - c, plan, box, next_x + c0 - c if last else block)
                for v in range(0, min(block, channels - c), lanes(dz)):
                    count = channels - c - v
                    for t in range(0, plan.taps.size, height):
                        acc = tile_zeros(dz, tall, 1)
                        for row in range(rows):
                            x0 = v + row * plan.step[0] * plan.size[1] * block
                            z0 = ((image * plan.outputs[0] + row0 + row) * plan.outputs[1] + col0) * channels + c + v
                            together = cols // PIXELS * PIXELS if alike else 0
                            for _ in range(0, together, PIXELS):
                                tile_groups_along(
                                    acc, run, PIXELS, box, x0, pixel, offsets, t, dz, z0, channels, count
                                )  # fmt: skip
                                for _ in range(PIXELS):
                                    expect(dz, z0 + ahead)
                                    z0 += channels
                                x0 += PIXELS * pixel
                            for _ in range(together, cols):
                                tile_groups_at(acc, width, box, x0, offsets, t, dz, z0, count)
                                expect(dz, z0 + ahead)
                                x0 += pixel
                                z0 += channels
                        target = (share * depth + t * width) * channels + c + v
                        valid = min(tall, depth - t * width)
                        if unit > first:
                            tile_add(acc, partial, target, channels, valid, count)
                        tile_store(acc, partial, target, channels, valid, count)

    return threaded(correlate_box)


def block_of(itemsize):
    """Channels of a block."""
    return VECTORS * simd.VECTOR_BYTES // itemsize


def run_of(axis, step, g):
    """How many taps of a row are neighbours, of those that read one number more with each output; 1: none are used so.

    axis : along the width, the phases: (rest, [(tap, how far it is from the first input)]).
    """
    (_, taps), *others = axis
    if g.groups < g.C or others or step[1] > 1 or len(taps) > RUN:
        return 1
    return len(taps) if [distance - taps[0][1] for _, distance in taps] == list(range(len(taps))) else 1


def taps_of(rest, window, stride, step, padding):
    """Along one axis, for the cells rest, rest + stride ... of dx: the taps that reach them, and from which cell of dz,
    counted from the one with the number of theirs."""
    distances = [(tap, rest + padding[0] - tap * step) for tap in reversed(range(window))]
    return [(tap, distance // stride) for tap, distance in distances if distance % stride == 0]


@functools.lru_cache(maxsize=128)
def forward_boxes(g, itemsize):
    axes = [
        [(0, [(tap, tap * step - before) for tap in range(window)])]
        for window, step, (before, _) in zip((g.KH, g.KW), g.dilation, g.padding)
    ]
    return _boxes(g, itemsize, (g.H, g.W), (g.OH, g.OW), (g.OH, g.OW), g.strides, (1, 1), axes)


@functools.lru_cache(maxsize=128)
def data_boxes(g, itemsize):
    axes = [
        [(rest, taps_of(rest, *sizes)) for rest in range(sizes[1])]
        for sizes in zip((g.KH, g.KW), g.strides, g.dilation, g.padding)
    ]
    cells = tuple(-(-size // stride) for size, stride in zip((g.H, g.W), g.strides))
    return _boxes(g, itemsize, (g.OH, g.OW), (g.H, g.W), cells, (1, 1), g.strides, axes)


def _boxes(g, itemsize, inputs, outputs, cells, step, stretch, axes):
    """The boxes; None where even one with the smallest tile finds no room.

    axes : for both, the phases: (rest, [(tap, its distance from the first input)]).
    """
    block = block_of(itemsize)
    distances = [[distance for _, taps in axis for _, distance in taps] for axis in axes]
    origin, last = (tuple(end(axis, default=0) for axis in distances) for end in (min, max))

    def size_of(rows, cols):
        sizes = zip((rows, max(cols, PIXELS)), step, origin, last)
        return tuple((size - 1) * each + end - start + 1 for size, each, start, end in sizes)

    def fits(rows, cols):
        height, width = size_of(rows, cols)
        return height * width * block * itemsize <= BOX

    rows, cols = cells
    while not fits(rows, cols) and (rows > 1 or cols > PIXELS):
        if cols >= 2 * rows or rows == 1:
            cols = -(-cols // 2)
        else:
            rows = -(-rows // 2)
    if not fits(rows, cols):
        return None
    # Boxes of about the same size.
    count = -(-cells[0] // rows), -(-cells[1] // cols)
    rows, cols = -(-cells[0] // count[0]), -(-cells[1] // count[1])
    size, phases, order, offsets = size_of(rows, cols), [], [], []
    for rest_h, high in axes[0]:
        for rest_w, wide in axes[1]:
            phases += rest_h, rest_w, len(order), len(order) + len(high) * len(wide)
            order += [kh * g.KW + kw for kh, _ in high for kw, _ in wide]
            offsets += [((h - origin[0]) * size[1] + w - origin[1]) * block for _, h in high for _, w in wide]
    tables = phases, order, [*offsets, *[0] * (TAPS[g.C // g.groups] - 1)]
    return Boxes(
        inputs, outputs, g.C, g.N, count, (rows, cols), step, stretch, origin, size,
        *(np.array(table, np.int64) for table in tables), run_of(axes[1], step, g),
    )  # fmt: skip
