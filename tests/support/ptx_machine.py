"""A machine that executes PTX: what the compiler made of a CUDA kernel, on the host's memory, without a GPU.

    run(parse(text), memory, arguments, grid, block, shared)

Numba's simulator runs a kernel's Python, with twins of the instructions that Numba has no name for. Here runs what a
GPU is given: Numba's code, LLVM's and libdevice's, with the instructions themselves. (Only the last step is missing,
from PTX to the GPU's own code.) Each instruction does what NVIDIA's "Parallel Thread Execution ISA" says of it; one
that is not listed below is an error, and so is

- an access outside the arrays that there are, or not on a multiple of its size;
- a barrier or an operation of a warp that some of its threads never reach, or that reads a lane which is not there.

What is copied or multiplied asynchronously arrives when it is waited for, no sooner. Registers and shared memory begin
as NaN.

The threads of a few blocks go through the program together, each instruction once for all that are at it, those that
are behind first. Numbers are NumPy's: an array a register, with a number for each thread.
"""

import ctypes
import re
from dataclasses import dataclass, field
from functools import cache
from math import prod

import numpy as np
from numba import vectorize
from numba.extending import intrinsic

WARP, WARPGROUP = 32, 128
LANES = 8192  # how many threads go together, where a block has no more
DTYPES = {
    "pred": "?", "b8": "u1", "b16": "u2", "b32": "u4", "b64": "u8", "u8": "u1", "u16": "u2", "u32": "u4", "u64": "u8",
    "s8": "i1", "s16": "i2", "s32": "i4", "s64": "i8", "f32": "f4", "f64": "f8",
}  # fmt: skip
DTYPES = {name: np.dtype(dtype) for name, dtype in DTYPES.items()}
U32, U64, F32, F64 = (DTYPES[name] for name in ("u32", "u64", "f32", "f64"))


def run(program, memory, arguments, grid, block, shared=0, tally=None):
    """Launch a kernel: arguments are numbers, and addresses of arrays in memory. `tally`, a Counter, is told how many
    warps began each operation."""
    grid, block = ((*extent, 1, 1)[:3] for extent in (grid, block))
    together = max(1, LANES // prod(block))
    given = [np.asarray(a).astype(dtype) for a, dtype in zip(arguments, program.parameters.values(), strict=True)]
    with np.errstate(all="ignore"):
        for first in range(0, prod(grid), together):
            blocks = np.arange(first, min(first + together, prod(grid)))
            Machine(program, memory, given, blocks, grid, block, shared, tally).run()


# ---------------------------------------------------------------------------------------------------------------------
# The text of a program


@dataclass
class Program:
    """One kernel."""

    parameters: dict = field(default_factory=dict)  # name -> dtype
    registers: dict = field(default_factory=dict)  # name, without its number -> dtype
    shared: dict = field(default_factory=dict)  # array in shared memory -> its first byte
    size: int = 0  # bytes of shared memory
    instructions: list = field(default_factory=list)  # (guard, negated, operation, operands)
    labels: dict = field(default_factory=dict)  # -> number of the instruction that follows


def parse(text: str) -> Program:
    """A program as NVIDIA's compilers write it: one kernel."""
    program, unsized = Program(), []
    assert text.count(".entry") == 1 and ".func" not in text, "one kernel, and no functions"
    for line in re.sub(r"//.*", "", text).replace(";", "\n").splitlines():
        line = re.sub(r"^\s*\{(?=\s*(\.reg.*)?$)|(?<=\s)\}\s*$|^\}", "", line).strip()
        if found := re.match(r"\.param \.(\w+) (\w+)", line):
            program.parameters[found[2]] = DTYPES[found[1]]
        elif found := re.match(r"\.reg \.(\w+)\s+(.*)", line):
            for name in found[2].split(","):
                program.registers[re.sub(r"<\d+>", "", name.strip())] = DTYPES[found[1]]
        elif found := re.match(r"(?:\.extern )?\.shared \.align (\d+) \.b8 (\w+)\[(\d*)\]", line):
            if found[3]:
                alignment = int(found[1])
                program.shared[found[2]] = -(-program.size // alignment) * alignment
                program.size = program.shared[found[2]] + int(found[3])
            else:
                unsized.append(found[2])
        elif found := re.match(r"(\$\w+):$", line):
            program.labels[found[1]] = len(program.instructions)
        elif found := re.match(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)(?:\s+(.*))?$", line):
            program.instructions.append((found[2], bool(found[1]), found[3], _operands(found[4] or "")))
        else:
            assert re.match(r"$|[()]+$|\.(version|target|address_size|visible|maxntid|minnctapersm|pragma)\b", line), (
                line
            )
    program.size = -(-program.size // 16) * 16
    program.shared.update(dict.fromkeys(unsized, program.size))
    return program


def _operands(text):
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^]]*\]|[^,])+", text)]


def _parts(operand):
    """The registers of a vector, or the one."""
    return [part.strip() for part in operand.strip("{}").split(",")]


def _constant(text, dtype):
    if found := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", text):
        return U32.type(int(found[1], 16)).view(F32) if found[1] else U64.type(int(found[2], 16)).view(F64)
    number = int(text.removesuffix("U"), 0)
    if dtype.kind == "b":
        return np.bool_(number)
    return np.dtype(f"u{dtype.itemsize}").type(number & (1 << 8 * dtype.itemsize) - 1).view(dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Memory


class Memory:
    """Arrays of the host, by their addresses."""

    def __init__(self, arrays):
        self.spans = sorted({(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays if a.nbytes})
        self.starts, self.ends = (np.array(side, np.int64) for side in (zip(*self.spans) if self.spans else ((), ())))
        self.views = {}

    def load(self, addresses, dtype, count):
        """(Lanes, count): what lies at addresses, and right behind each."""
        found = np.empty((len(addresses), count), dtype)
        for lanes, view, rows in self._places(addresses, dtype, count):
            found[lanes] = view[rows]
        return found

    def store(self, addresses, values):
        for lanes, view, rows in self._places(addresses, values.dtype, values.shape[1]):
            view[rows] = values[lanes]

    def _places(self, addresses, dtype, count):
        size = dtype.itemsize * count
        spans = np.searchsorted(self.starts, addresses, "right") - 1
        bad = (spans < 0) | (addresses % size != 0)
        bad |= addresses + size > self.ends[spans] if len(self.ends) else True
        if bad.any():
            address, known = int(addresses[bad][0]), [f"{start:#x} to {end:#x}" for start, end in self.spans]
            raise IndexError(f"{count} x {dtype} at {address:#x}: not a multiple of {size}, or not in {known}")
        for span in np.unique(spans):
            lanes = _lanes(spans == span)
            view, start = self._view(span, dtype, count)
            yield lanes, view, (addresses[lanes] - start) // size

    def _view(self, span, dtype, count):
        key = span, dtype, count
        if key not in self.views:
            # It begins on a multiple of 16, as do all chunks: what lies there beside the array is never touched.
            start, end = self.spans[span][0] // 16 * 16, -(-self.spans[span][1] // 16) * 16
            content = np.frombuffer((ctypes.c_char * (end - start)).from_address(start), dtype)
            self.views[key] = content.reshape(-1, count), start
        return self.views[key]


def _lanes(chosen):
    """For which threads: a slice where it is all of them, which needs no copies."""
    return slice(None) if chosen.all() else np.flatnonzero(chosen)


# ---------------------------------------------------------------------------------------------------------------------
# The machine


class Machine:
    """Some blocks of a launch, and where each of their threads is."""

    def __init__(self, program, memory, arguments, blocks, grid, block, shared, tally):
        self.program, self.memory, self.tally = program, memory, tally
        self.arguments = dict(zip(program.parameters, arguments))
        self.threads = threads = prod(block)
        self.count = threads * len(blocks)
        self.block, thread = np.divmod(np.arange(self.count), threads)
        self.lane = thread % WARP
        self.warp = np.arange(self.count) - self.lane  # its first thread
        self.warp_end = np.minimum(self.warp + WARP, (self.block + 1) * threads)
        self.special = {"%laneid": self.lane, "%dynamic_smem_size": np.full(self.count, shared)}
        for name, where, extent in (("tid", thread, block), ("ctaid", blocks[self.block], grid)):
            x, y, _ = extent
            self.special |= {f"%{name}.x": where % x, f"%{name}.y": where // x % y, f"%{name}.z": where // (x * y)}
            self.special |= {f"%n{name}.{axis}": np.full(self.count, n) for axis, n in zip("xyz", extent)}
        self.registers = {}
        self.shared = np.full((len(blocks), -(-(program.size + shared) // 16) * 16), 255, np.uint8)
        self.warpgroup = np.arange(self.count) - thread % WARPGROUP
        self.copies, self.groups = [], np.zeros(self.count, np.int64)
        self.products, self.product_groups = [], np.zeros(self.count, np.int64)
        # Who has put something into shared memory that products of warpgroups may not see, and who may begin them.
        self.unseen, self.fenced = np.zeros(self.count, bool), np.zeros(self.count, bool)
        self.next = np.zeros(self.count, np.int64)  # which instruction

    def run(self):
        steps = [self._step(place, *what) for place, what in enumerate(self.program.instructions)]
        if self.tally is not None:
            steps = [self._counted(what[2], step) for what, step in zip(self.program.instructions, steps)]
        together = [what[2].startswith(TOGETHER) for what in self.program.instructions]
        # Where those who come along look who else is there.
        halts = {len(steps), *self.program.labels.values(), *np.flatnonzero(together).tolist()}
        while (self.next < len(steps)).any():
            place, lanes = self._ready(together)
            while not steps[place](lanes):
                place += 1
                if place in halts:
                    self.next[lanes] = place
                    break

    def _ready(self, together):
        """(place, threads): the first place at which some can go on. At an operation of warps or blocks those can, all
        of whose warp or block are there or at the end."""
        end = len(together)
        for place in np.unique(self.next[self.next < end]).tolist():
            there = self.next == place
            if together[place]:
                operation = self.program.instructions[place][2]
                block, warpgroup = operation.startswith(OF_BLOCKS), operation.startswith(OF_WARPGROUPS)
                group = self.block * self.threads if block else self.warpgroup if warpgroup else self.warp
                elsewhere = ~there & (self.next != end)
                there &= np.bincount(group, elsewhere, self.count)[group] == 0
            if there.any():
                return place, _lanes(there)
        raise RuntimeError(f"threads wait for others for ever, at {self.program.instructions[place][2]}")

    def _step(self, place, guard, negated, operation, operands):
        """What does an instruction for some threads, and says whether it has set where they are next."""
        condition = self.register(guard) if guard else None
        if operation in ("bra", "bra.uni", "ret"):
            target = len(self.program.instructions) if operation == "ret" else self.program.labels[operands[0]]

            def jump(lanes):
                chosen = condition[lanes] != negated if guard else np.True_
                if chosen.any():
                    self.next[lanes] = target if chosen.all() else np.where(chosen, target, place + 1)
                return chosen.any()

            return jump
        make, modes = _written(operation)
        act = make(self, operands, *modes)
        if not guard:
            return act
        assert not operation.startswith(TOGETHER), f"{operation} on a condition"

        def act_where(lanes):
            chosen = condition[lanes] != negated
            if chosen.any():
                act(lanes if chosen.all() else np.arange(self.count)[lanes][chosen])

        return act_where

    def _counted(self, operation, step):
        warps = np.unique(self.warp)

        def counted(lanes):
            self.tally[operation] += len(warps if isinstance(lanes, slice) else np.unique(self.warp[lanes]))
            return step(lanes)

        return counted

    # What an operand is

    def register(self, name):
        if name not in self.registers:
            kinds = self.program.registers
            dtype = kinds.get(name) or kinds[re.match(r"%[a-z]+", name)[0]]
            self.registers[name] = np.full(self.count * dtype.itemsize, 255 * (dtype.kind != "b"), np.uint8).view(dtype)
        return self.registers[name]

    def source(self, text, dtype):
        """What gives its numbers for some threads."""
        if not text.startswith("%"):
            shared = self.program.shared
            constant = dtype.type(shared[text]) if text in shared else _constant(text, dtype)
            return lambda lanes: constant
        numbers = self.special[text].astype(dtype) if text in self.special else self.register(text)
        if dtype.itemsize < numbers.itemsize:  # the lower part
            numbers = numbers.view(f"u{dtype.itemsize}")[:: numbers.itemsize // dtype.itemsize]
        numbers = numbers.view(dtype)
        return lambda lanes: numbers[lanes]

    def target(self, text, dtype):
        """What sets its numbers for some threads: extended, where the register is wider."""
        numbers = self.register(text)
        assert dtype.itemsize == numbers.itemsize or dtype.kind in "iu" and dtype.itemsize < numbers.itemsize
        numbers = numbers.view(np.dtype(f"{dtype.kind}{numbers.itemsize}") if dtype.kind != "b" else dtype)

        def put(lanes, values):
            numbers[lanes] = values

        return put

    def address(self, text):
        """What gives the addresses that [base + offset] stands for."""
        base, _, offset = text.strip("[]").partition("+")
        give, offset = self.source(base, U64 if self._wide(base) else U32), int(offset or 0)
        return lambda lanes: np.broadcast_to(np.asarray(give(lanes)).astype(np.int64) + offset, self.next[lanes].shape)

    def _wide(self, base):
        return base.startswith("%") and self.register(base).itemsize == 8

    def shared_rows(self, addresses, dtype, count):
        """(Blocks, chunks, count): shared memory in chunks, and which of them are at addresses."""
        size, room = dtype.itemsize * count, self.shared.shape[1]
        bad = (addresses < 0) | (addresses + size > room) | (addresses % size != 0)
        if bad.any():
            where = addresses[bad][0]
            raise IndexError(f"{count} x {dtype} at {where} of {room} bytes of shared memory, or no multiple of {size}")
        return self.shared.view(dtype).reshape(len(self.shared), -1, count), addresses // size


# ---------------------------------------------------------------------------------------------------------------------
# What operations do

OPERATIONS = []  # (pattern of the name, what makes the action of the operands)
OF_BLOCKS, OF_WARPGROUPS = ("bar.sync",), ("wgmma",)
TOGETHER = (*OF_BLOCKS, *OF_WARPGROUPS, "bar.warp", "shfl", "ldmatrix", "mma")
INT, FLOAT, BITS, KIND = r"([us](?:8|16|32|64))", r"(f32|f64)", r"(b\d+|pred)", r"([busf]\d+|pred)"


@cache
def _written(operation):
    """(make, groups) of the pattern that an operation has."""
    for pattern, make in OPERATIONS:
        if found := re.fullmatch(pattern, operation):
            return make, found.groups()
    raise NotImplementedError(f"{operation}: what it does is not written here")


def operation(pattern):
    """Decorator: make(machine, operands, *groups of the pattern) -> action(lanes)."""

    def add(make):
        OPERATIONS.append((pattern, make))
        return make

    return add


@intrinsic
def _fma(typingctx, a, b, c):
    return a(a, a, a), lambda context, builder, signature, args: builder.fma(*args)


@vectorize(["f4(f4,f4,f4)", "f8(f8,f8,f8)"])
def fma(a, b, c):
    """a b + c, rounded once."""
    return _fma(a, b, c)


def _quotient(a, b):
    """Towards zero."""
    assert np.all(b != 0), "a division of integers by zero"
    quotient = a // b
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(quotient.dtype)


def _down(exact):
    """float32, rounded towards minus infinity."""
    near = exact.astype(F32)
    return np.where(near > exact, np.nextafter(near, F32.type(-np.inf)), near)


def _towards_zero(exact):
    near = exact.astype(F32)
    return np.where(np.abs(near) > np.abs(exact), np.nextafter(near, F32.type(0)), near)


def _flushed(x):
    """Zero for what is too small for a normal float32."""
    return np.where(np.abs(x) < np.finfo(F32).tiny, np.copysign(F32.type(0), x), x)


def _upper_word(x):
    return (x.view(U64) >> U64.type(32) << U64.type(32)).view(F64)


# Of operands of one type, a number of that type. (Sums and products of float32 are exact in float64, or nearly: what
# they lose there is 29 bits below what counts.)
for pattern, compute in (
    (rf"cvta\.to\.global\.{INT}", np.copy),
    (rf"add\.{INT}", np.add),
    (rf"sub\.{INT}", np.subtract),
    (rf"mul\.lo\.{INT}", np.multiply),
    (rf"mad\.lo\.{INT}", lambda a, b, c: a * b + c),
    (rf"div\.{INT}", _quotient),
    (rf"rem\.{INT}", lambda a, b: a - _quotient(a, b) * b),
    (rf"neg\.{INT}", np.negative),
    (rf"abs\.{INT}", np.abs),
    (rf"min\.{INT}", np.minimum),
    (rf"max\.{INT}", np.maximum),
    (rf"and\.{BITS}", np.bitwise_and),
    (rf"or\.{BITS}", np.bitwise_or),
    (rf"xor\.{BITS}", np.bitwise_xor),
    (rf"not\.{BITS}", np.invert),
    (rf"add(?:\.rn)?\.{FLOAT}", np.add),
    (rf"sub(?:\.rn)?\.{FLOAT}", np.subtract),
    (rf"mul(?:\.rn)?\.{FLOAT}", np.multiply),
    (rf"div\.rn\.{FLOAT}", np.divide),
    (rf"fma\.rn\.{FLOAT}", fma),
    (rf"rcp\.rn\.{FLOAT}", np.reciprocal),
    (rf"sqrt\.rn\.{FLOAT}", np.sqrt),
    (rf"neg\.{FLOAT}", np.negative),
    (rf"abs\.{FLOAT}", np.abs),
    (rf"copysign\.{FLOAT}", lambda sign, a: np.copysign(a, sign)),
    (rf"min\.{FLOAT}", np.fmin),
    (rf"max\.{FLOAT}", np.fmax),
    (r"fma\.rm\.(f32)", lambda a, b, c: _down(np.float64(a) * b + c)),
    (r"add\.rz\.(f32)", lambda a, b: _towards_zero(np.float64(a) + b)),
    (r"ex2\.approx\.(f32)", lambda a: np.exp2(np.float64(a)).astype(F32)),
    (r"ex2\.approx\.ftz\.(f32)", lambda a: _flushed(np.exp2(np.float64(_flushed(a))).astype(F32))),
    (r"rcp\.approx\.ftz\.(f32)", lambda a: _flushed(np.reciprocal(_flushed(a)))),
    (r"rcp\.approx\.ftz\.(f64)", lambda a: _upper_word(np.reciprocal(a))),
):

    @operation(pattern)
    def make(machine, operands, kind, compute=compute):
        dtype = DTYPES[kind]
        put, give = machine.target(operands[0], dtype), [machine.source(text, dtype) for text in operands[1:]]
        return lambda lanes: put(lanes, compute(*(g(lanes) for g in give)))


@operation(rf"mov\.{KIND}")
def move(machine, operands, kind):
    """Also of several registers to one that has room for all, the first lowest, and of one to several."""
    (to, source), dtype = map(_parts, operands), DTYPES[kind]
    part = np.dtype(f"u{dtype.itemsize // max(len(to), len(source))}") if len(to) + len(source) > 2 else dtype
    put, give = [machine.target(text, part) for text in to], [machine.source(text, part) for text in source]
    if len(source) > 1:
        (put,) = (machine.target(text, dtype) for text in to)
        return lambda lanes: put(lanes, np.column_stack([g(lanes) for g in give]).view(dtype)[:, 0])
    if len(to) > 1:
        (give,) = (machine.source(text, dtype) for text in source)

        def unpack(lanes):
            for one, values in zip(put, np.array(give(lanes)).view(part).reshape(-1, len(to)).T):
                one(lanes, values)

        return unpack
    return lambda lanes: put[0](lanes, give[0](lanes))


@operation(rf"(mul|mad)\.wide\.{INT}")
def multiply_wide(machine, operands, name, kind):
    dtype = DTYPES[kind]
    wide = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
    put, a, b = machine.target(operands[0], wide), *(machine.source(text, dtype) for text in operands[1:3])
    c = machine.source(operands[3] if name == "mad" else "0", wide)
    return lambda lanes: put(lanes, np.multiply(a(lanes), b(lanes), dtype=wide) + c(lanes))


@operation(rf"mul\.hi\.{INT}")
def multiply_high(machine, operands, kind):
    dtype = DTYPES[kind]
    put, a, b = machine.target(operands[0], dtype), *(machine.source(text, dtype) for text in operands[1:])

    def act(lanes):
        exact = np.asarray(a(lanes)).astype(object) * np.asarray(b(lanes)).astype(object)
        put(lanes, (exact >> 8 * dtype.itemsize).astype(dtype))

    return act


@operation(r"(shl|shr)\.([bus]\d+)")
def shift(machine, operands, name, kind):
    """By more than there are bits: by all, which leaves none but signs."""
    dtype, bits = DTYPES[kind], 8 * DTYPES[kind].itemsize
    put, give, amount = (
        machine.target(operands[0], dtype), machine.source(operands[1], dtype), machine.source(operands[2], U32),
    )  # fmt: skip

    def act(lanes):
        by, a = amount(lanes), give(lanes)
        compute = np.left_shift if name == "shl" else np.right_shift
        shifted = compute(a, np.minimum(by, bits - 1).astype(dtype))
        put(lanes, shifted if dtype.kind == "i" else np.where(by < bits, shifted, dtype.type(0)))

    return act


@operation(r"bfi\.(b32|b64)")
def insert_bits(machine, operands, kind):
    dtype, (position, length) = DTYPES[kind], map(int, operands[3:])
    put, a, b = machine.target(operands[0], dtype), *(machine.source(text, dtype) for text in operands[1:3])
    place, mask = dtype.type(position), dtype.type(((1 << length) - 1) << position)
    return lambda lanes: put(lanes, (b(lanes) & ~mask) | (a(lanes) << place & mask))


COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


@operation(rf"setp\.(eq|ne|lt|le|gt|ge|num|nan)(u?)\.{KIND}")
def compare(machine, operands, name, unordered, kind):
    """With NaN: false, or, where the name ends in u, true."""
    dtype = DTYPES[kind]
    put, a, b = machine.target(operands[0], DTYPES["pred"]), *(machine.source(text, dtype) for text in operands[1:])

    def act(lanes):
        x, y = a(lanes), b(lanes)
        nan = np.isnan(x) | np.isnan(y) if dtype.kind == "f" else False
        if name in COMPARISONS:
            put(lanes, COMPARISONS[name](x, y) & ~np.bool_(nan) | nan & bool(unordered))
        else:
            put(lanes, nan == (name == "nan"))

    return act


@operation(rf"selp\.{KIND}")
def select(machine, operands, kind):
    put, a, b = machine.target(operands[0], DTYPES[kind]), *(machine.source(o, DTYPES[kind]) for o in operands[1:3])
    condition = machine.source(operands[3], DTYPES["pred"])
    return lambda lanes: put(lanes, np.where(condition(lanes), a(lanes), b(lanes)))


def _in_range(x, dtype):
    """Floats that are whole as integers: the nearest there is, and 0 for NaN."""
    limits = np.iinfo(dtype)
    inside = np.where((x > limits.min) & (x < limits.max), x, 0).astype(dtype)
    return np.where(x >= limits.max, limits.max, np.where(x <= limits.min, limits.min, inside))


def _tf32(x):
    """The bits of x with ten bits of mantissa: of two that are as near, the larger."""
    bits = x.view(U32)
    return np.where(
        np.isfinite(x), bits + U32.type(1 << 12) & U32.type(0xFFFFE000), bits | np.isnan(x) * U32.type(1 << 22)
    )


def _bf16(x):
    """The upper half of x's bits: of two that are as near, the even one."""
    bits = x.view(U32)
    rounded = bits + U32.type(0x7FFF) + (bits >> U32.type(16) & U32.type(1)) >> U32.type(16)
    return np.where(np.isnan(x), 0x7FFF, rounded).astype(np.uint16)


ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
for pattern, compute in (
    (rf"cvt()\.{INT}\.{INT}", lambda mode, x, dtype: x.astype(dtype)),
    (rf"cvt\.(rn)\.{FLOAT}\.{INT}", lambda mode, x, dtype: x.astype(dtype)),
    (r"cvt()\.(f64)\.(f32)", lambda mode, x, dtype: x.astype(dtype)),
    (r"cvt\.(rn)\.(f32)\.(f64)", lambda mode, x, dtype: x.astype(dtype)),
    (r"cvt\.(sat)\.(f32)\.(f32)", lambda mode, x, dtype: np.where(np.isnan(x), F32.type(0), np.clip(x, 0, 1))),
    (r"cvt\.(r[nzmp]i)\.(f32)\.(f32)", lambda mode, x, dtype: ROUND[mode](x)),
    (r"cvt\.(r[nzmp]i)\.(f64)\.(f64)", lambda mode, x, dtype: ROUND[mode](x)),
    (rf"cvt\.(r[nzmp]i)\.{INT}\.{FLOAT}", lambda mode, x, dtype: _in_range(ROUND[mode](x), dtype)),
    (r"cvt\.(rna)\.(tf32)\.(f32)", lambda mode, x, dtype: _tf32(x)),
    (r"cvt\.(rn)\.(bf16)\.(f32)", lambda mode, x, dtype: _bf16(x)),
):

    @operation(pattern)
    def convert(machine, operands, mode, to, source, compute=compute):
        dtype = DTYPES[{"tf32": "b32", "bf16": "b16"}.get(to, to)]
        put, give = machine.target(operands[0], dtype), machine.source(operands[1], DTYPES[source])
        return lambda lanes: put(lanes, compute(mode, np.asarray(give(lanes)), dtype))


# Memory


@operation(rf"ld\.param\.{KIND}")
def load_parameter(machine, operands, kind):
    put = machine.target(operands[0], DTYPES[kind])
    number = machine.arguments[operands[1].strip("[]")].view(DTYPES[kind])
    return lambda lanes: put(lanes, number)


@operation(rf"ld\.(global|shared)(?:\.nc)?(?:\.v[24])?\.{KIND}")
def load(machine, operands, space, kind):
    dtype = DTYPES[kind]
    put, where = [machine.target(text, dtype) for text in _parts(operands[0])], machine.address(operands[1])

    def act(lanes):
        addresses = where(lanes)
        if space == "global":
            found = machine.memory.load(addresses, dtype, len(put))
        else:
            rows, chunks = machine.shared_rows(addresses, dtype, len(put))
            found = rows[machine.block[lanes], chunks]
        for one, values in zip(put, found.T):
            one(lanes, values)

    return act


@operation(rf"st\.(global|shared)(?:\.v[24])?\.{KIND}")
def store(machine, operands, space, kind):
    dtype = DTYPES[kind]
    where, give = machine.address(operands[0]), [machine.source(text, dtype) for text in _parts(operands[1])]

    def act(lanes):
        addresses = where(lanes)
        values = np.column_stack([np.broadcast_to(g(lanes), addresses.shape) for g in give])
        if space == "global":
            machine.memory.store(addresses, values)
        else:
            rows, chunks = machine.shared_rows(addresses, dtype, len(give))
            rows[machine.block[lanes], chunks] = values

    return act


@operation(r"cp\.async\.cg\.shared\.global")
def copy_async(machine, operands):
    to, source, count = machine.address(operands[0]), machine.address(operands[1]), machine.source(operands[3], U32)
    assert operands[2] == "16"

    def act(lanes):
        targets, addresses = to(lanes), source(lanes)
        counts = np.broadcast_to(count(lanes), targets.shape)
        assert np.all(counts <= 16) and np.all(counts % 4 == 0) and np.all(addresses % 16 == 0)
        words = np.zeros((len(targets), 4), U32)
        for word in range(4):
            if (read := counts > 4 * word).any():
                words[read, word] = machine.memory.load(addresses[read] + 4 * word, U32, 1)[:, 0]
        threads = np.arange(machine.count)[lanes]
        machine.copies.append((threads, targets, words, machine.groups[threads]))

    return act


@operation(r"cp\.async\.commit_group")
def commit(machine, operands):
    def act(lanes):
        machine.groups[lanes] += 1

    return act


@operation(r"cp\.async\.wait_group")
def wait(machine, operands):
    def act(lanes):
        done, left = np.full(machine.count, -1), []
        done[lanes] = machine.groups[lanes] - int(operands[0])  # groups before this one
        for copy in machine.copies:
            arrived = copy[3] < done[copy[0]]
            threads, targets, words, _ = (part[arrived] for part in copy)
            rows, chunks = machine.shared_rows(targets, U32, 4)
            rows[machine.block[threads], chunks] = words
            machine.unseen[threads] = True
            if not arrived.all():
                left.append(tuple(part[~arrived] for part in copy))
        machine.copies = left

    return act


# What threads do together


@operation(r"bar\.sync")
def barrier(machine, operands):
    assert operands == ["0"], "one barrier a block"
    return lambda lanes: None


def _all_lanes(machine, text):
    """What checks that a mask names a whole warp."""
    give = machine.source(text, U32)

    def check(lanes):
        assert np.all(give(lanes) == 0xFFFFFFFF), "an operation of a part of a warp"

    return check


@operation(r"bar\.warp\.sync")
def barrier_of_warp(machine, operands):
    return _all_lanes(machine, operands[0])


@operation(r"shfl\.sync\.(up|down|bfly|idx)\.b32")
def shuffle(machine, operands, mode):
    to, _, valid = operands[0].partition("|")
    put, put_valid = machine.target(to, U32), machine.target(valid, DTYPES["pred"]) if valid else None
    numbers = machine.source(operands[1], U32)
    amount, limits, check = *(machine.source(text, U32) for text in operands[2:4]), _all_lanes(machine, operands[4])

    def act(lanes):
        check(lanes)
        lane, by = machine.lane[lanes], np.asarray(amount(lanes)).astype(np.int64)
        clamp, segment = np.asarray(limits(lanes)) & 31, np.asarray(limits(lanes)) >> 8 & 31
        last, first = lane & segment | clamp & ~segment & 31, lane & segment
        other = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": first | by & ~segment & 31}[mode]
        good = other >= last if mode == "up" else other <= last
        threads = machine.warp[lanes] + np.where(good, other, lane)
        here = np.zeros(machine.count, bool)
        here[lanes] = True
        if np.any(threads >= machine.warp_end[lanes]) or not here[threads].all():
            raise RuntimeError("a shuffle reads a lane that is not there")
        put(lanes, np.broadcast_to(numbers(slice(None)), here.shape)[threads])
        if valid:
            put_valid(lanes, good)

    return act


def _warps(machine, lanes):
    """(Warps, 32): the threads, of whole warps."""
    threads = np.arange(machine.count)[lanes].reshape(-1, WARP)
    assert np.all(threads == threads[:, :1] + np.arange(WARP)), "an operation of a part of a warp"
    return threads


@operation(r"ldmatrix\.sync\.aligned\.m8n8\.x4(\.trans)?\.shared\.b16")
def load_matrices(machine, operands, transposed):
    """Of matrix m, lane 8 m + r names row r; of each, lane l gets two neighbours of row l // 4, or of column l // 4."""
    put, where = [machine.target(text, U32) for text in _parts(operands[0])], machine.address(operands[1])

    def act(lanes):
        warps = len(_warps(machine, lanes))
        rows, chunks = machine.shared_rows(where(lanes), np.dtype(np.uint16), 8)
        matrices = rows[machine.block[lanes], chunks].reshape(warps, 4, 8, 8)
        if transposed:
            matrices = matrices.swapaxes(2, 3)
        pairs = np.ascontiguousarray(matrices).view(U32).reshape(warps, 4, WARP)
        for matrix, one in enumerate(put):
            one(lanes, pairs[:, matrix].reshape(-1))

    return act


# Where the numbers of fragments stand: lane l has those of row l // 4 and of the columns that l % 4 names.
ROW, COLUMN = np.arange(WARP) // 4, np.arange(WARP) % 4


@operation(r"mma\.sync\.aligned\.m16n8k(8|16)\.row\.col\.f32\.(tf32|bf16)\.\2\.f32")
def multiply_matrices(machine, operands, depth, kind):
    dtype = U32 if kind == "tf32" else np.dtype(np.uint16)
    put = [machine.target(text, F32) for text in _parts(operands[0])]
    a, b = ([machine.source(text, U32) for text in _parts(operands[i])] for i in (1, 2))
    c, depth = [machine.source(text, F32) for text in _parts(operands[3])], int(depth)
    assert (kind, depth) in (("tf32", 8), ("bf16", 16)) and [len(part) for part in (put, a, b, c)] == [4, 4, 2, 4]
    each = 4 // dtype.itemsize  # numbers of a register, which are neighbours along the depth
    columns = COLUMN[:, None] * each + np.arange(each)

    def numbers(give, lanes, warps):
        bits = np.ascontiguousarray(give(lanes)).reshape(warps, WARP, 1).view(dtype).astype(U32)
        return (bits & U32.type(0xFFFFE000) if each == 1 else bits << U32.type(16)).view(F32).astype(F64)

    def act(lanes):
        warps = len(_warps(machine, lanes))
        left, right = np.empty((warps, 16, depth)), np.empty((warps, depth, 8))
        for i, give in enumerate(a):
            left[:, ROW[:, None] + i % 2 * 8, columns + i // 2 * depth // 2] = numbers(give, lanes, warps)
        for i, give in enumerate(b):
            right[:, columns + i * depth // 2, ROW[:, None]] = numbers(give, lanes, warps)
        product = left @ right
        for i, (give, one) in enumerate(zip(c, put)):
            total = product[:, ROW + i // 2 * 8, COLUMN * 2 + i % 2].reshape(-1) + give(lanes)
            one(lanes, total.astype(F32))

    return act


# Products of warpgroups: 64 x 16 by 16 x 256 numbers in shared memory, of which descriptors tell the layout.


@operation(r"fence\.proxy\.async\.shared::cta")
def let_products_see(machine, operands):
    def act(lanes):
        machine.unseen[lanes] = False

    return act


@operation(r"wgmma\.fence\.sync\.aligned")
def fence_products(machine, operands):
    def act(lanes):
        machine.fenced[lanes] = True

    return act


@operation(r"wgmma\.commit_group\.sync\.aligned")
def commit_products(machine, operands):
    def act(lanes):
        machine.fenced[lanes] = False
        machine.product_groups[lanes] += 1

    return act


def _addresses(descriptor, rows, turned):
    """(Rows, 16): where in shared memory the numbers of an operand lie. `turned`: terms are 128 bytes apart, else rows.

    Of the pieces of eight rows (terms) of 128 bytes each, `stride` is from one to the next, and `lead` from one to that
    of the next 64 rows where these run along the 128 bytes. Of an address so found, bits 4 to 6 are exchanged (xor)
    with bits 7 to 9.
    """
    start, lead, stride = ((descriptor >> bit & 0x3FFF) << 4 for bit in (0, 16, 32))
    assert descriptor >> 62 == 1 and descriptor >> 46 & 0xFFFF == 0, "swizzled in 128 bytes, from a multiple of 1024"
    row, term = np.indices((rows, 16))
    if turned:
        address = start + row // 64 * lead + term // 8 * stride + term % 8 * 128 + row % 64 * 2
    else:
        address = start + row // 8 * stride + row % 8 * 128 + term * 2
    return address ^ (address >> 7 & 7) << 4


@operation(r"wgmma\.mma_async\.sync\.aligned\.m64n256k16\.f32\.bf16\.bf16")
def multiply_warpgroup(machine, operands):
    """Thread t has, of rows t // 32 * 16 + t % 32 // 4 and eight further, two columns of each eight: from t % 4 * 2."""
    sums, descriptors = _parts(operands[0]), [machine.source(text, U64) for text in operands[1:3]]
    put, give = [machine.target(text, F32) for text in sums], [machine.source(text, F32) for text in sums]
    adds, (*signs, turn_a, turn_b) = machine.source(operands[3], DTYPES["pred"]), map(int, operands[4:])
    assert len(sums) == 128 and signs == [1, 1]

    def act(lanes):
        threads = np.arange(machine.count)[lanes].reshape(-1, WARPGROUP)
        assert np.all(threads == threads[:, :1] + np.arange(WARPGROUP)), "a product of a part of a warpgroup"
        assert np.all(adds(lanes)) and machine.fenced[lanes].all()
        assert not machine.unseen[np.isin(machine.block, machine.block[lanes])].any(), "what products do not see"
        for group in threads:
            both = [int(np.unique(np.broadcast_to(of(group), WARPGROUP)).item()) for of in descriptors]
            where = [_addresses(one, rows, turned) for one, rows, turned in zip(both, (64, 256), (turn_a, turn_b))]
            machine.products.append((group, machine.product_groups[group], where, put, give))

    return act


@operation(r"wgmma\.wait_group\.sync\.aligned")
def wait_for_products(machine, operands):
    def act(lanes):
        done, left = np.full(machine.count, -1), []
        done[lanes] = machine.product_groups[lanes] - int(operands[0])
        for product in machine.products:
            threads, number, where, put, give = product
            if not np.all(number < done[threads]):
                left.append(product)
                continue
            memory = machine.shared[machine.block[threads[0]]].view(np.uint16)
            a, b = ((memory[at // 2].astype(U32) << U32.type(16)).view(F32).astype(F64) for at in where)
            found, t = a @ b.T, np.arange(WARPGROUP)
            for i, (one, of) in enumerate(zip(put, give)):
                row, column = t // 32 * 16 + t % 32 // 4 + i // 2 % 2 * 8, i // 4 * 8 + t % 4 * 2 + i % 2
                one(threads, (found[row, column] + of(threads)).astype(F32))
        machine.products = left

    return act
