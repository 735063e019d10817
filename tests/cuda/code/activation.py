"""The kernels of the activations whose machine code is read; relu and leaky_relu, which hardly compute, in
test_code_activation.py."""

from handloom.kernels.activation.cuda import elementwise, softmax
from handloom.kernels.teams import team_of

FUNCTIONS = ("elu", "sigmoid", "tanh", "softplus", "silu", "gelu", "gelu_tanh")


# Rows for a few lanes, for a warp, a block, and a block that comes again.
LENGTHS = {"short": 10, "row": 1000, "long": 4096, "chunks": 50257}


def width(T):
    return 128 // T.bitwidth


def team(length, T):
    return team_of(length, width(T) if length % 4 == 0 else 1, T.bitwidth // 8)


KERNELS = {
    **{
        f"activation-{name}": lambda T, name=name: elementwise.apply(getattr(elementwise, f"_{name}"), T, width(T))
        for name in FUNCTIONS
    },
    **{
        f"activation-{name}-backward": lambda T, name=name: elementwise.apply_slope(
            getattr(elementwise, f"_{name}_slope"), T, width(T)
        )
        for name in FUNCTIONS
    },
    "activation-gelu-misaligned": lambda T: elementwise.apply(elementwise._gelu, T, 1),
    **{
        f"{op}-{rung}": lambda T, op=op, make=make: make(op, T)
        for op in softmax.RESULTS
        for rung, make in (
            ("three-pass", softmax.three_pass),
            ("online", softmax.online),
            ("thread-per-row-backward", softmax.thread_per_row_backward),
        )
    },
    **{
        f"{op}-{rung}": lambda T, op=op, make=make: make(op, T, width(T))
        for op in softmax.RESULTS
        for rung, make in (
            ("warp-per-row", softmax.warp_per_row),
            ("warp-per-row-backward", softmax.warp_per_row_backward),
        )
    },
    "softmax-warp-per-row-ragged": lambda T: softmax.warp_per_row("softmax", T, 1),
    **{
        f"{op}-registers{suffix}-{kind}": lambda T, op=op, make=make, length=length: make(op, T, team(length, T))
        for op in softmax.RESULTS
        for suffix, make in (("", softmax.registers), ("-backward", softmax.registers_backward))
        for kind, length in LENGTHS.items()
    },
}
