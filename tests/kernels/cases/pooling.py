"""Cases for pooling. Channels straddle a vector; windows overlap, touch, leave gaps and reach over the border."""

import dataclasses

from harness import Case

from handloom import kernels


def images(shape, levels=None):
    """Uniform numbers; with `levels`, whole numbers below it, so that windows hold several equal maxima."""

    def make(rng, dtype):
        x = rng.uniform(-1, 1, shape) if levels is None else rng.integers(0, levels, shape)
        return {"x": x.astype(dtype)}

    return make


def case(op, id, make, options, length, smooth=True):
    def workspace(variant, x):
        return (getattr(kernels, f"{op}_forward")(x, **options)[1].offsets.nbytes if "max" in op else 0), 0

    return Case(op, id, make, options, wrt=("x",), length=length, smooth=smooth, workspace=workspace)


def pool(kind, id, shape, *, levels=None, **options):
    return case(f"{kind}_pool2d", id, images(shape, levels), options, 9 if kind == "avg" else 1, levels is None)


def whole(kind, shape):
    length = shape[1] * shape[2] if kind == "avg" else 1
    return case(f"global_{kind}_pool2d", "x".join(map(str, shape)), images(shape), {}, length)


CASES = [
    *(pool(kind, f"{c}-channels", (2, 6, 8, c)) for kind in ("max", "avg") for c in (1, 3, 8, 16, 33)),
    *(
        made
        for kind in ("max", "avg")
        for made in [
            pool(kind, "left-over-cells", (2, 7, 5, 5)),
            pool(kind, "chunks", (3, 40, 40, 17)),
            pool(kind, "overlap", (2, 9, 11, 17), pool_size=3, strides=2),
            pool(kind, "overlap-in-one-axis", (2, 7, 6, 4), pool_size=(3, 2), strides=(1, 2)),
            pool(kind, "gaps", (2, 9, 10, 4), pool_size=2, strides=(3, 4)),
            pool(kind, "same", (2, 7, 6, 18), pool_size=(3, 2), padding="same"),
            pool(kind, "same-overlap", (2, 8, 7, 4), pool_size=3, strides=2, padding="same"),
            pool(kind, "same-gaps", (2, 7, 9, 4), pool_size=2, strides=3, padding="same"),
            pool(kind, "same-every-cell", (1, 5, 6, 3), pool_size=[3, 4], strides=[1, 1], padding="same"),
            pool(kind, "same-larger-than-image", (2, 3, 2, 4), pool_size=7, strides=1, padding="same"),
            pool(kind, "whole-image", (2, 3, 5, 6), pool_size=(3, 5)),
            pool(kind, "one-cell", (2, 3, 5, 6), pool_size=1),
            pool(kind, "no-images", (0, 4, 4, 3)),
            pool(kind, "no-channels", (2, 4, 4, 0)),
        ]
    ),
    # Few channels: the lanes of a vector run along the row, over whole windows and over borders.
    *(
        made
        for kind in ("max", "avg")
        for made in [
            *(pool(kind, f"narrow-{c}", (2, 5, 13, c), pool_size=3, strides=1, padding="same") for c in (1, 3, 5)),
            pool(kind, "narrow-one-column", (3, 6, 1, 3), pool_size=3, strides=1, padding="same"),
            pool(kind, "narrow-wide-window", (2, 6, 9, 1), pool_size=5, strides=2, padding="same"),
            pool(kind, "narrow-gaps", (2, 7, 40, 1), pool_size=2, strides=(3, 11)),
            pool(kind, "narrow-many-rows", (2, 170, 33, 1), pool_size=3, strides=2),
            pool(kind, "narrow-long-row", (1, 4, 4200, 1), pool_size=(2, 3), strides=2, padding="same"),
            pool(kind, "whole-vectors", (2, 9, 11, 32), pool_size=3, strides=2, padding="same"),
        ]
    ),
    pool("max", "ties", (2, 8, 8, 20), levels=2, pool_size=3, strides=2, padding="same"),
    pool("max", "large-window", (1, 20, 18, 3), pool_size=17, strides=1),
    *(whole(kind, shape) for kind in ("max", "avg") for shape in [(1, 1, 1, 1), (3, 7, 5, 21), (1, 257, 256, 1)]),
]

# On a GPU: vectors of channels and single ones, windows over the borders, and such as a block shares.
CASES += [
    *(
        pool(kind, "shared-window", (1, 7, 9, 36), pool_size=(6, 7), strides=(4, 5), padding="same")
        for kind in ("max", "avg")
    ),
    pool("max", "wide-offsets", (1, 17, 18, 4), levels=40, pool_size=17, strides=1),
    *(pool(kind, "cells-in-halves", (1, 3, 5, 64), pool_size=3, strides=2, padding="same") for kind in ("max", "avg")),
]
SIMULATED = {"left-over-cells", "overlap-in-one-axis", "same", "no-channels", "ties", "shared-window", "wide-offsets"}
SIMULATED |= {"cells-in-halves"}
CASES = [dataclasses.replace(case, simulate=case.id in SIMULATED | {"3x7x5x21"}) for case in CASES]
