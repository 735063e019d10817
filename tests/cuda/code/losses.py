"""The kernels of the losses whose machine code is read; those on integers in test_code_losses.py."""

from handloom.kernels.losses.cuda import elements, parts, rows
from handloom.kernels.teams import team_of

# Rows for a few lanes, for a warp, and for a block that comes again.
LENGTHS = {"short": 10, "row": 1000, "chunks": 50257}


def width(T):
    return 128 // T.bitwidth


def team(length, T):
    return team_of(length, width(T) if length % 4 == 0 else 1, T.bitwidth // 8)


ELEMENTS = ("squared", "absolute", "binary", "logistic")
ROWS = {
    "softmax": (rows.softmax_loss, rows.softmax_loss_backward),
    "probability": (rows.probability_loss, rows.probability_loss_backward),
}

KERNELS = {
    "losses-add-up": parts.add_up,
    **{
        f"losses-{name}": lambda T, name=name: elements.mean(getattr(elements, f"_{name}"), T, width(T))
        for name in ELEMENTS
    },
    **{
        f"losses-{name}-backward": lambda T, name=name: elements.mean_backward(
            getattr(elements, f"_{name}_slope"), T, width(T)
        )
        for name in ELEMENTS
    },
    "losses-binary-misaligned": lambda T: elements.mean(elements._binary, T, 1),
    **{
        f"losses-{name}{suffix}-{kind}-{size}": lambda T, make=make, labelled=labelled, length=length: make(
            labelled, T, team(length, T)
        )
        for name, makes in ROWS.items()
        for suffix, make in zip(("", "-backward"), makes)
        for kind, labelled in (("given", False), ("label", True))
        for size, length in LENGTHS.items()
    },
}
