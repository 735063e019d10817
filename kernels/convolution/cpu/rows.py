"""Convolutions in narrow groups of wide images, in the rung "threaded": y and dx row by row (grouped.py says the rest).

A tile is PIXELS neighbours in a row x one block of channels, straight on the image. Its blocks are done one after
another, and so y is written from its start to its end, while the next rows of x and y are fetched. (Block after block,
as boxes.py goes, it would be written in pieces of a cache line, which took half as long again.) Where x and y together
are larger than the caches, y goes past them: 8 images of 56 x 56 x 64 with padding took 1.14 ms instead of 1.35. Only
tiles at a border look where the image ends; narrow images have too many of these.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from ...gemm.cpu import RELU, activate
from ...jit import jit
from ...simd import (
    VECTOR_BYTES,
    any_lane,
    at,
    expect,
    lanes,
    stack_array,
    tile_fill_rows,
    tile_groups,
    tile_groups_inside,
    tile_relu,
    tile_store,
    tile_stream,
    tile_zeros,
    vabs,
    vfill,
    viewed,
    vload_part,
    vstore,
)
from ...threads import threaded
from .boxes import PIXELS, VECTORS, WEIGHTS, block_of, run_of, taps_of

BLOCK_BYTES = VECTORS * VECTOR_BYTES
# Bytes of a pixel's channels in a part, at most: with those of some rows and the weights they stay in the first cache.
PART = 512
# Chunks to aim for, so that any number of threads gets about the same.
CHUNKS = 32


class Rows(NamedTuple):
    """How y, or dx, is cut into rows. Pairs are (along the height, along the width)."""

    inputs: tuple  # of an image of x (of dz, where dx is computed)
    outputs: tuple
    channels: int
    part: int  # channels of a chunk
    shares: int
    lines: int  # rows of all images, in each phase
    rows: int  # of one image
    step: tuple  # from one output to the next: in the image of inputs,
    stretch: tuple  # and in the image of outputs
    phases: np.ndarray  # PHASE numbers for each
    taps: np.ndarray  # the taps of w, phase after phase
    down: np.ndarray  # for each of them: how far it is from the first input of a row,
    along: np.ndarray  # a column,
    offsets: np.ndarray  # and in numbers
    run: int  # so many taps that follow each other are neighbours in a row
    gradient: bool  # of dx: nothing is beside dz; beside x are zeros, and zeros times NaN are NaN


# Of a phase: rest, rest, its first tap and their end, least and largest `down`, `along`, the largest offset.
PHASE = 9


@jit(inline=True)
def pack_weights(w, taps, width, c0, c1, channels, weights):
    """weights[c // block, t, k, :] = w[taps[t], k, c:...], zeros beyond the channels. Returns if all are finite."""
    block, target = VECTORS * lanes(w), 0
    none = vfill(w, 0.0)
    strange = none != none
    for c in range(c0, c1, block):
        for t in range(taps.size):
            for k in range(width):
                source = (at(taps, t) * width + k) * channels + c
                for v in range(0, block, lanes(w)):
                    part = vload_part(w, source + v, max(0, channels - c - v))
                    strange = strange | ~(vabs(part) < math.inf)
                    vstore(weights, target, part)
                    target += lanes(w)
    return not any_lane(strange)


@functools.cache
def convolution_of_rows(width, run):
    """The kernel of y, or of dx, for groups of `width` channels, and of taps that come in runs of neighbours."""

    @jit(inner=True, name=f"{__name__}.convolve_rows-{width}-{run}")
    def convolve_rows(chunk, x, w, bias, y, plan, activation, stream):
        """One chunk: a share of the rows, for one part of the channels."""
        share, c0 = chunk % plan.shares, chunk // plan.shares * plan.part
        weights = viewed(stack_array(np.uint8, WEIGHTS), y)
        zeros = viewed(stack_array(np.uint8, BLOCK_BYTES), y)
        block, channels, phases, offsets = VECTORS * lanes(y), plan.channels, plan.phases, plan.offsets
        c1, depth = min(c0 + plan.part, channels), plan.taps.size * width * block
        for i in range(0, block, lanes(y)):
            vstore(zeros, i, vfill(y, 0.0))
        finite = pack_weights(w, plan.taps, width, c0, c1, channels, weights)
        skip = plan.gradient or finite  # taps above and below the image
        (height, wide), (down, along), down_taps, along_taps = plan.inputs, plan.step, plan.down, plan.along
        pixel, stretch, reach = along * channels, plan.stretch[1] * channels, (PIXELS - 1) * along
        for line in range(share * plan.lines // plan.shares, (share + 1) * plan.lines // plan.shares):
            image, row = line // plan.rows, line % plan.rows * down
            for p in range(0, phases.size, PHASE):
                oh, rest = line % plan.rows * plan.stretch[0] + at(phases, p), at(phases, p + 1)
                if oh >= plan.outputs[0]:
                    continue
                first, end = at(phases, p + 2), at(phases, p + 3)
                high = row + at(phases, p + 4) >= 0 and row + at(phases, p + 5) < height
                if skip and not high:
                    while first < end and not 0 <= row + at(down_taps, first) < height:
                        first += 1
                    while first < end and not 0 <= row + at(down_taps, end - 1) < height:
                        end -= 1
                    high = True
                start = ((image * plan.outputs[0] + oh) * plan.outputs[1] + rest) * channels
                cols = (plan.outputs[1] - rest + plan.stretch[1] - 1) // plan.stretch[1]
                for tile in range(0, cols, PIXELS):
                    ow = max(0, min(tile, cols - PIXELS))
                    col = ow * along
                    corner, target = ((image * height + row) * wide + col) * channels, start + ow * stretch
                    whole = high and col + at(phases, p + 6) >= 0 and col + at(phases, p + 7) + reach < wide
                    # Where channels are missing in a block, it reads those of the next pixel: is there one?
                    room = x.size - corner - at(phases, p + 8) - (PIXELS - 1) * pixel - block
                    ahead = at(phases, p + 8) + wide * down * channels
                    for c in range(c0, c1, block):
                        tap = (c - c0) // block * depth + first * width * block
                        acc = tile_zeros(y, PIXELS, VECTORS)
                        if bias.size > 0:
                            tile_fill_rows(acc, bias, c, channels - c)
                        if whole and c <= room:
                            for t in range(first, end, run):
                                tile_groups(acc, width, run, x, corner + c + at(offsets, t), pixel, weights, tap)
                                tap += run * width * block
                        else:
                            count = block if c <= room else channels - c
                            for t in range(first, end):
                                there = wide if 0 <= row + at(down_taps, t) < height else 0
                                tile_groups_inside(
                                    acc, width, x, corner + c + at(offsets, t), pixel, weights, tap,
                                    col + at(along_taps, t), along, there, count, zeros,
                                )  # fmt: skip
                                tap += width * block
                        if down == along == 1:  # what is new in the next row of tiles
                            for i in range(PIXELS):
                                expect(x, corner + c + ahead + i * channels)
                        else:
                            for r in range(down):
                                for i in range(PIXELS * along):
                                    expect(x, corner + c + ahead + (i - r * wide) * channels)
                        if activation == RELU:
                            tile_relu(acc)
                        if stream:
                            tile_stream(acc, y, target + c, stretch, cols - ow)
                            continue
                        tile_store(acc, y, target + c, stretch, cols - ow, channels - c)
                        for i in range(PIXELS):
                            expect(y, target + c + plan.outputs[1] * channels + i * stretch)
                if activation > RELU:
                    for i in range(cols):
                        activate(y, start + i * stretch + c0, c1 - c0, activation)

    return threaded(convolve_rows)


@functools.lru_cache(maxsize=128)
def forward_rows(g, itemsize):
    axes = [
        [(0, [(tap, tap * step - before) for tap in range(window)])]
        for window, step, (before, _) in zip((g.KH, g.KW), g.dilation, g.padding)
    ]
    return _rows(g, itemsize, (g.H, g.W), (g.OH, g.OW), g.OH, g.strides, (1, 1), axes, False)


@functools.lru_cache(maxsize=128)
def data_rows(g, itemsize):
    axes = [
        [(rest, taps_of(rest, *sizes)) for rest in range(sizes[1])]
        for sizes in zip((g.KH, g.KW), g.strides, g.dilation, g.padding)
    ]
    return _rows(g, itemsize, (g.OH, g.OW), (g.H, g.W), -(-g.H // g.strides[0]), (1, 1), g.strides, axes, True)


def _rows(g, itemsize, inputs, outputs, rows, step, stretch, axes, gradient):
    """axes : for both, the phases: (rest, [(tap, how far it is from the first input)])."""
    phases, taps = [], []
    for rest_h, high in axes[0]:
        for rest_w, wide in axes[1]:
            own = [(kh * g.KW + kw, h, w, (h * inputs[1] + w) * g.C) for kh, h in high for kw, w in wide]
            limits = [end([tap[axis] for tap in own], default=0) for axis in (1, 2) for end in (min, max)]
            phases += rest_h, rest_w, len(taps), len(taps) + len(own), *limits, max((tap[3] for tap in own), default=0)
            taps += own
    block = block_of(itemsize)
    blocks, weights = -(-g.C // block), len(taps) * (g.C // g.groups) * block * itemsize
    part = min(blocks, max(1, min(PART // (block * itemsize), WEIGHTS // max(1, weights))))
    parts = -(-blocks // part)
    part = -(-blocks // parts)
    lines = g.N * rows
    return Rows(
        inputs, outputs, g.C, part * block, min(lines, -(-CHUNKS // parts)), lines, rows, step, stretch,
        np.array(phases, np.int64), *np.array(taps, np.int64).reshape(-1, 4).T.copy(),
        run_of(axes[1], step, g), gradient,
    )  # fmt: skip
