"""The machine that executes PTX, on programs of a few lines: what it computes, and what it does not let pass."""

import operator

import numpy as np
import ptx_machine
import pytest

START = """
.version 8.8
.target sm_90a
.visible .entry k(
	.param .u64 k_x,
	.param .u64 k_y
)
.maxntid 1024, 1, 1
{
	.reg .pred 	%p<9>;
	.reg .b16 	%rs<9>;
	.reg .b32 	%r<9>;
	.reg .f32 	%f<9>;
	.reg .f64 	%fd<9>;
	.reg .b64 	%rd<9>;
	.shared .align 16 .b8 room[256];
	ld.param.u64 	%rd1, [k_x];
	ld.param.u64 	%rd2, [k_y];
	mov.u32 	%r1, %tid.x;
	mov.u32 	%r2, %ctaid.x;
	mov.u32 	%r3, %ntid.x;
	mad.lo.s32 	%r4, %r2, %r3, %r1;
"""


def run(body, x, y, grid=1, block=None, shared=0):
    """y, after a launch with one thread for each of its elements: %r1 is a thread's number in its block, %r4 in all,
    %rd1 and %rd2 are where x and y begin."""
    program = ptx_machine.parse(START + body + "\tret;\n}\n")
    given = x.ctypes.data, y.ctypes.data
    ptx_machine.run(program, ptx_machine.Memory([x, y]), given, (grid,), (block or len(y) // grid,), shared)
    return y


# Of the registers that hold a type.
LETTERS = {
    "f32": "f",
    "f64": "fd",
    **{f"{kind}{size}": name for kind in "bsu" for size, name in ((32, "r"), (64, "rd"))},
}


def at(pointer, size):
    """Lets %rd3 point to a thread's element."""
    return f"\tmul.wide.u32 \t%rd3, %r4, {size};\n\tadd.s64 \t%rd3, {pointer}, %rd3;\n"


def computed(line, kinds, *columns):
    """What an instruction makes of columns of numbers, `kinds` being the types of its result and of its operands."""
    operands = [f"%{LETTERS[kind]}{8 - i}" for i, kind in enumerate(kinds)]
    y = np.zeros(len(columns[0]), ptx_machine.DTYPES[kinds[0]])
    x = np.zeros((len(y), len(columns)), np.uint64)
    body = at("%rd1", 8 * len(columns))
    for i, (kind, column) in enumerate(zip(kinds[1:], columns)):
        numbers = np.asarray(column, ptx_machine.DTYPES[kind])
        x[:, i] = numbers.view(f"u{numbers.itemsize}")
        body += f"\tld.global.{kind} \t{operands[i + 1]}, [%rd3+{8 * i}];\n"
    body += f"\t{line.format(*operands)};\n"
    return run(body + at("%rd2", y.itemsize) + f"\tst.global.{kinds[0]} \t[%rd3], {operands[0]};\n", x, y)


INTEGERS = [0, 1, -1, 5, -5, 7, -7, 2**31 - 1, -(2**31), 1000003]
PAIRS = [(a, b) for a in INTEGERS for b in INTEGERS]
NAN, INF = np.nan, np.inf


def wrapped(exact, kind):
    bits = int(kind[1:])
    low = exact % (1 << bits)
    return low - (1 << bits) if kind[0] == "s" and low >> (bits - 1) else low


INTEGER_OPERATIONS = {
    "add": operator.add, "sub": operator.sub, "mul.lo": operator.mul, "mul.wide": operator.mul, "min": min, "max": max,
    "div": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
    "rem": lambda a, b: abs(a) % abs(b) * (-1 if a < 0 else 1),
}  # fmt: skip


@pytest.mark.parametrize(
    "name, kind",
    [
        (name, kind)
        for name in (*INTEGER_OPERATIONS, "mul.hi")
        for kind in ("s32", "u32", "s64", "u64")
        if (name, kind[1:]) != ("mul.wide", "64")  # there is none
    ],
)
def test_integers_wrap_around_and_are_divided_towards_zero(name, kind):
    pairs = [(wrapped(a, kind), wrapped(b, kind)) for a, b in PAIRS if b or name not in ("div", "rem")]
    exact = INTEGER_OPERATIONS.get(name, lambda a, b: a * b >> int(kind[1:]))
    to = f"{kind[0]}64" if name == "mul.wide" else kind
    found = computed(f"{name}.{kind} {{}}, {{}}, {{}}", (to, kind, kind), *zip(*pairs))
    assert found.tolist() == [wrapped(exact(a, b), to) for a, b in pairs]


@pytest.mark.parametrize(
    "line, kinds, columns, expected",
    [
        ("shl.b32 {}, {}, {}", ("b32", "b32", "u32"), ([3] * 4, [0, 31, 32, 99]), [3, 2**31, 0, 0]),
        ("shr.u32 {}, {}, {}", ("u32", "u32", "u32"), ([2**31] * 3, [31, 32, 99]), [1, 0, 0]),
        ("shr.s64 {}, {}, {}", ("s64", "s64", "u32"), ([-8, -8, 8, 8], [1, 99, 1, 99]), [-4, -1, 4, 0]),
        ("bfi.b64 {}, {}, {}, 32, 32", ("b64", "b64", "b64"), ([5], [2**40 + 7]), [5 * 2**32 + 7]),
        ("not.b32 {}, {}", ("b32", "b32"), ([0, 5],), [2**32 - 1, 2**32 - 6]),
        ("cvt.s64.s32 {}, {}", ("s64", "s32"), ([-3, 3],), [-3, 3]),
        ("cvt.u64.u32 {}, {}", ("u64", "u32"), ([2**32 - 3],), [2**32 - 3]),
        ("cvt.u32.u64 {}, {}", ("u32", "u64"), ([2**40 + 3],), [3]),
        ("cvt.rn.f32.s32 {}, {}", ("f32", "s32"), ([-3, 2**24 + 1],), [-3, 2**24]),
        ("cvt.rzi.s32.f32 {}, {}", ("s32", "f32"), ([-2.7, 2.7, 1e30, -1e30, NAN],), [-2, 2, 2**31 - 1, -(2**31), 0]),
        ("cvt.rni.f32.f32 {}, {}", ("f32", "f32"), ([0.5, 1.5, -2.5],), [0, 2, -2]),
        ("cvt.rzi.f32.f32 {}, {}", ("f32", "f32"), ([0.9, -1.9],), [0, -1]),
        ("cvt.sat.f32.f32 {}, {}", ("f32", "f32"), ([-1, 0.3, 7, NAN, INF],), [0, np.float32(0.3), 1, 0, 1]),
        ("cvt.rn.f32.f64 {}, {}", ("f32", "f64"), ([1 + 2**-24, 1 + 2**-23],), [1, 1 + 2**-23]),
        ("min.f32 {}, {}, {}", ("f32",) * 3, ([1, NAN, 2], [2, 2, NAN]), [1, 2, 2]),
        ("sqrt.rn.f64 {}, {}", ("f64",) * 2, ([2, 9, -1],), [2**0.5, 3, NAN]),
        ("div.rn.f32 {}, {}, {}", ("f32",) * 3, ([1, -1, 0], [3, 0, 0]), [np.float32(1) / np.float32(3), -INF, NAN]),
        # (1 + 2^-12)^2 - 1 - 2^-11 = 2^-24, which a product that is rounded first loses
        ("fma.rn.f32 {}, {}, {}, {}", ("f32",) * 4, ([1 + 2**-12], [1 + 2**-12], [-1 - 2**-11]), [2**-24]),
        ("fma.rn.f64 {}, {}, {}, {}", ("f64",) * 4, ([1 + 2**-30], [1 + 2**-30], [-1 - 2**-29]), [2**-60]),
        ("fma.rm.f32 {}, {}, {}, {}", ("f32",) * 4, ([1, -1], [1, 1], [2**-30, -(2**-30)]), [1, -1 - 2**-23]),
        ("add.rz.f32 {}, {}, {}", ("f32",) * 3, ([1, -1], [2**-24 + 2**-25, -(2**-24) - 2**-25]), [1, -1]),
        ("ex2.approx.ftz.f32 {}, {}", ("f32",) * 2, ([3, -1, -140, -INF, NAN],), [8, 0.5, 0, 0, NAN]),
        ("ex2.approx.f32 {}, {}", ("f32",) * 2, ([-140],), [2**-140]),
        ("rcp.approx.ftz.f64 {}, {}", ("f64",) * 2, ([4, 0, -0.0, INF],), [0.25, INF, -INF, 0]),
        ("selp.f32 {}, {}, {}, 1", ("f32",) * 3, ([1], [2]), [1]),
    ],
    ids=lambda value: value.split(" ")[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_instructions_do_what_the_manual_says(line, kinds, columns, expected):
    found = computed(line, kinds, *columns)
    np.testing.assert_array_equal(found, np.asarray(expected, found.dtype))


@pytest.mark.parametrize(
    "name", ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"]
)
def test_comparisons_with_nan(name):
    pairs = [(a, b) for a in (1.0, 2.0, NAN) for b in (1.0, 2.0, NAN)]
    line = f"setp.{name}.f32 %p1, {{1}}, {{2}};\n\tselp.u32 {{0}}, 1, 0, %p1"
    found = computed(line, ("u32", "f32", "f32"), *zip(*pairs))
    for got, (a, b) in zip(found, pairs):
        unordered = a != a or b != b
        if name in ("num", "nan"):
            assert got == (unordered == (name == "nan"))
        elif unordered:
            assert got == name.endswith("u")
        else:
            assert got == getattr(operator, name.removesuffix("u"))(a, b)


STORE = at("%rd2", 4) + "\tst.global.u32 \t[%rd3], %r8;\n"
NOTHING = np.zeros(4, np.uint32)


def test_registers_of_half_the_size():
    body = """
	mov.b64 	%rd4, {%r4, %r3};
	{ .reg .b32 %temp; mov.b64 	{%temp, %r5}, %rd4; }
	{
	.reg .b32 %temp;
	mov.b64 	{%r6, %temp}, %rd4;
	}
	mov.b32 	{%rs1, %rs2}, %r5;
	mov.b32 	%r7, {%rs2, %rs1};
	add.s32 	%r8, %r7, %r6;
"""
    np.testing.assert_array_equal(run(body + STORE, NOTHING, np.zeros(6, np.uint32)), (6 << 16) + np.arange(6))


@pytest.mark.parametrize(
    "mode, by, limits",
    [("bfly", 16, 31), ("bfly", 1, 31), ("down", 3, 31), ("up", 3, 0), ("idx", 5, 31), ("idx", 2, 0x181F),
     ("down", 2, 0x1C1F)],
)  # fmt: skip
def test_shuffles(mode, by, limits):
    """Within a warp, or, where `limits` says so, within shares of it; who is out of range keeps its own."""
    y = run(
        f"\tshfl.sync.{mode}.b32 \t%r8|%p1, %r4, {by}, {limits}, -1;\n{STORE}", NOTHING, np.zeros(128, np.uint32), 2
    )
    width = 32 - (limits >> 8)
    for thread, got in enumerate(y):
        lane, start = thread % width, thread - thread % width
        other = {"bfly": lane ^ by, "down": lane + by, "up": lane - by, "idx": by}[mode]
        assert got == (start + other if 0 <= other < width else thread)


def test_threads_part_and_meet_again():
    """Each goes round as often as its number says, some leave early; then all of a warp exchange something."""
    body = """
	mov.u32 	%r8, 0;
	mov.u32 	%r5, %r1;
$L__top:
	setp.eq.s32 	%p1, %r5, 0;
	@%p1 bra 	$L__out;
	add.s32 	%r8, %r8, %r5;
	sub.s32 	%r5, %r5, 1;
	bra.uni 	$L__top;
$L__out:
	setp.ge.u32 	%p2, %r1, 48;
	@%p2 ret;
	bar.sync 	0;
	shfl.sync.bfly.b32 	%r8, %r8, 1, 31, -1;
"""
    y = run(body + STORE, NOTHING, np.full(128, 7, np.uint32), 2)
    there = (np.arange(64) ^ 1) * ((np.arange(64) ^ 1) + 1) // 2
    np.testing.assert_array_equal(y.reshape(2, 64)[:, :48], np.tile(there[:48], (2, 1)))
    assert (y.reshape(2, 64)[:, 48:] == 7).all()


def test_a_barrier_stands_between_writing_and_reading():
    body = """
	mov.u32 	%r5, room;
	shl.b32 	%r6, %r1, 2;
	add.s32 	%r5, %r5, %r6;
	setp.lt.u32 	%p1, %r1, 32;
	@%p1 bra 	$L__wait;
	st.shared.u32 	[%r5], %r4;
$L__wait:
	bar.sync 	0;
	@!%p1 bra 	$L__end;
	ld.shared.u32 	%r8, [%r5+128];
$L__end:
"""
    y = run(body + STORE, NOTHING, np.zeros(128, np.uint32), 2)
    np.testing.assert_array_equal(y.reshape(2, 64)[:, :32], np.arange(128).reshape(2, 64)[:, 32:])


ALONE = """
	setp.ne.s32 	%p1, %r1, 0;
	@%p1 bra 	$L__other;
	{first};
	bra.uni 	$L__end;
$L__other:
	{second};
$L__end:
"""


@pytest.mark.parametrize(
    "first, second", [("bar.sync 0", "bar.sync 0"), ("bar.warp.sync -1", "shfl.sync.up.b32 %r5, %r4, 1, 0, -1")]
)
def test_threads_that_wait_for_each_other_in_two_places(first, second):
    with pytest.raises(RuntimeError, match="wait for others for ever"):
        run(ALONE.format(first=first, second=second), NOTHING, np.zeros(64, np.uint32))


def test_a_shuffle_from_a_thread_that_has_left():
    body = "\tsetp.eq.s32 \t%p1, %r1, 1;\n\t@%p1 ret;\n\tshfl.sync.bfly.b32 \t%r8, %r4, 1, 31, -1;\n"
    with pytest.raises(RuntimeError, match="reads a lane that is not there"):
        run(body, NOTHING, np.zeros(32, np.uint32))
    with pytest.raises(RuntimeError, match="reads a lane that is not there"):  # nor ever was
        run("\tshfl.sync.down.b32 \t%r8, %r4, 1, 31, -1;\n", NOTHING, np.zeros(31, np.uint32))


@pytest.mark.parametrize("offset", [-4, 16, 2, 64])
def test_accesses_are_held_to_the_arrays(offset):
    """There is memory on both sides of x, as on a GPU."""
    x = np.zeros(32, np.uint32)[8:12]
    body = f"\tadd.s64 \t%rd1, %rd1, {offset};\n\tld.global.u32 \t%r8, [%rd1];\n"
    with pytest.raises(IndexError, match="1 x uint32 at 0x.*: not a multiple of 4, or not in"):
        run(body, x, np.zeros(1, np.uint32))


@pytest.mark.parametrize("load", ["ld.shared.u32 %r8, [%r5+260]", "ld.shared.v4.u32 {%r5, %r6, %r7, %r8}, [%r5+8]"])
def test_accesses_are_held_to_shared_memory(load):
    body = "\tmov.u32 \t%r5, room;\n\t{};\n"
    with pytest.raises(IndexError, match="of 256 bytes of shared memory"):
        run(body.format(load), NOTHING, np.zeros(1, np.uint32))
    if "260" in load:
        run(body.format(load), NOTHING, np.zeros(1, np.uint32), shared=16)


def test_chunks_of_an_array_that_begins_between_them():
    memory = np.arange(12, dtype=np.uint32)
    memory = memory[-memory.ctypes.data // 4 % 4 :][:8]
    body = "\tadd.s64 \t%rd1, %rd1, 12;\n\tld.global.v4.u32 \t{%r5, %r6, %r7, %r8}, [%rd1];\n"
    y = run(body + STORE, memory[1:], np.zeros(1, np.uint32))
    assert y[0] == memory[7]


def test_a_copy_arrives_when_it_is_waited_for():
    """Two groups: the first is there when one may be under way, and of the second the first bytes alone, then zeros."""
    body = """
	mov.u32 	%r5, room;
	cp.async.cg.shared.global 	[%r5], [%rd1], 16, 16;
	cp.async.commit_group;
	add.s32 	%r6, %r5, 16;
	mov.u32 	%r7, 8;
	cp.async.cg.shared.global 	[%r6], [%rd1], 16, %r7;
	cp.async.commit_group;
	cp.async.wait_group 	{};
	ld.shared.v4.u32 	{{%r5, %r6, %r7, %r8}}, [room{}];
	st.global.v4.u32 	[%rd2], {{%r5, %r6, %r7, %r8}};
"""
    x, late = np.arange(1, 5, dtype=np.uint32), [2**32 - 1] * 4
    for waited, offset, expected in ((2, "", late), (1, "", [1, 2, 3, 4]), (1, "+16", late), (0, "+16", [1, 2, 0, 0])):
        assert run(body.format(waited, offset), x, np.zeros(4, np.uint32), block=1).tolist() == expected


@pytest.mark.parametrize(
    "line", ["sin.approx.f32 %f1, %f2", "add.sat.s32 %r5, %r6, %r7", "atom.global.add.u32 %r5, [%rd1], 1"]
)
def test_what_is_not_written_here_is_an_error(line):
    with pytest.raises(NotImplementedError, match=f"^{line.split()[0]}: what it does is not written here"):
        run(f"\t{line};\n", NOTHING, np.zeros(1, np.uint32))
    with pytest.raises(AssertionError, match=".local"):
        ptx_machine.parse(START + "\t.local .align 4 .b8 depot[16];\n}")
