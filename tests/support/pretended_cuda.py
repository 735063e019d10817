"""CUDA for CuPy where there is no GPU: the runtime and the driver, made of Python, over the host's memory.

    handloom -> CuPy, the real one -> CUDA as pretended here -> ptx_machine.py, and CuPy's own kernels in NumPy

What handloom asks of CuPy and CuPy of CUDA is then what it is on a GPU: arrays, pools of memory, packed arguments,
streams, captured graphs. What a GPU does with it is not: here everything happens at once and in order.

CuPy's wheels bring CUDA's runtime inside an extension module, whose functions are overwritten, in this process's memory
alone, with jumps to the ones below. The driver is a library that CuPy opens through ctypes. Linux on x86-64.
"""

import ctypes
import glob
import inspect
import mmap
import re
import struct
import traceback
from functools import cache, partial
from importlib.util import find_spec
from itertools import count
from math import prod

import compiled
import numpy as np
import ptx_machine

Int, Word = ctypes.c_int, ctypes.c_size_t  # Word: addresses, sizes and handles
NUMBERS = {
    "bool": "?", "signed char": "b", "unsigned char": "B", "short": "h", "unsigned short": "H", "int": "i",
    "unsigned int": "I", "long long": "q", "unsigned long long": "Q", "float16": "e", "float": "f", "double": "d",
    "bfloat16": "H",  # its bits: it is only copied
}  # fmt: skip

OK, INVALID_VALUE, OUT_OF_MEMORY, NOT_PERMITTED, INVALIDATED, CAPTURED_EVENT, UNKNOWN = 0, 1, 2, 900, 901, 907, 999
TEXTS = {
    INVALID_VALUE: "invalid argument", OUT_OF_MEMORY: "out of memory", UNKNOWN: "see pretended_cuda.problems",
    NOT_PERMITTED: "operation not permitted when stream is capturing", INVALIDATED: "capture was invalidated",
    CAPTURED_EVENT: "operation not permitted on an event last recorded in a capturing stream",
}  # fmt: skip
MEMORY = 1 << 30  # bytes of the GPU
SHARED, MOST_SHARED, SET_SHARED = 48 << 10, 227 << 10, 8  # bytes, and the attribute that a function asks for more with
ATTRIBUTES = {75: 9, 76: 0, 16: 4, 8: SHARED, 97: MOST_SHARED}  # capability 9.0, processors, shared memory

runtime, driver = {}, {}  # functions by name, as C sees them
problems = []  # names of what was called and is not here, and errors of what is
_numbers = count(0x1000, 16)


def _pretend(table, prefix):
    """Decorator: a function of CUDA's, whose annotations are its parameters' types; it returns a status, None for 0."""

    def add(function):
        def called(*args):
            try:
                return function(*args) or OK
            except Exception:
                problems.append(traceback.format_exc())
                return UNKNOWN

        types = inspect.get_annotations(function).values()
        table[prefix + function.__name__] = ctypes.CFUNCTYPE(Int, *types)(called)
        return function

    return add


def put(kind, address, value):
    kind.from_address(address).value = value


# ---------------------------------------------------------------------------------------------------------------------
# Memory: of the host, each allocation full of NaN, and unknown as soon as it is freed

_allocated = {}  # address -> (bytes, the buffer)


def _room(size):
    buffer = ctypes.create_string_buffer(b"\xff" * (size + 512), size + 512)
    address = -(-ctypes.addressof(buffer) // 512) * 512
    return address, (size, buffer)


def array_at(address, dtype):
    """What lies in memory from there to the end of its allocation."""
    for start, (size, _) in _allocated.items():
        if start <= address < start + size:
            length = (start + size - address) // dtype.itemsize
            return np.frombuffer((ctypes.c_char * (length * dtype.itemsize)).from_address(address), dtype)
    return np.empty(0, dtype)


@_pretend(runtime, "cuda")
def Malloc(where: Word, size: Word):
    if size + sum(size for size, _ in _allocated.values()) > MEMORY:
        return OUT_OF_MEMORY
    address, room = _room(size)
    _allocated[address] = room
    put(Word, where, address)
    return OK


@_pretend(runtime, "cuda")
def Free(address: Word):
    _allocated.pop(address, None)


@_pretend(runtime, "cuda")
def HostAlloc(where: Word, size: Word, flags: Int):
    address, _page_locked[address] = _room(size)
    put(Word, where, address)


@_pretend(runtime, "cuda")
def FreeHost(address: Word):
    _page_locked.pop(address, None)


_page_locked = {}


@_pretend(runtime, "cuda")
def MemGetInfo(free: Word, total: Word):
    put(Word, free, MEMORY - sum(size for size, _ in _allocated.values()))
    put(Word, total, MEMORY)


@_pretend(runtime, "cuda")
def PointerGetAttributes(where: Word, address: Word):
    known = bool(len(array_at(address, np.dtype(np.uint8))))
    for offset, kind, value in ((0, Int, 2 * known), (4, Int, 0), (8, Word, address), (16, Word, address)):
        put(kind, where + offset, value)


@_pretend(runtime, "cuda")
def MemcpyAsync(to: Word, source: Word, size: Word, kind: Int, stream: Word):
    return _do(stream, lambda: ctypes.memmove(to, source, size) and OK)


@_pretend(runtime, "cuda")
def MemsetAsync(to: Word, value: Int, size: Word, stream: Word):
    return _do(stream, lambda: ctypes.memset(to, value, size) and OK)


# ---------------------------------------------------------------------------------------------------------------------
# Streams, graphs, events

_captured = {}  # stream -> what was captured so far, None after what is not permitted
_recorded = {}  # event -> the stream that was being captured when it was last recorded
_graphs = {}


def _do(stream, operation):
    """Now, or when the graph is launched that is being captured from this stream."""
    if stream not in _captured:
        return operation()
    if _captured[stream] is not None:
        _captured[stream].append(operation)
    return OK if _captured[stream] is not None else INVALIDATED


@_pretend(runtime, "cuda")
def StreamCreateWithPriority(where: Word, flags: Int, priority: Int):
    put(Word, where, next(_numbers))


@_pretend(runtime, "cuda")
def StreamCreateWithFlags(where: Word, flags: Int):  # CuPy 13
    put(Word, where, next(_numbers))


@_pretend(runtime, "cuda")
def StreamDestroy(stream: Word):
    return OK


@_pretend(runtime, "cuda")
def StreamSynchronize(stream: Word):
    return _invalidate({stream} & _captured.keys())


def _invalidate(streams):
    """What was captured from them is lost, where the host asks how far a GPU is that has begun nothing."""
    _captured.update(dict.fromkeys(streams))
    return NOT_PERMITTED if streams else OK


@_pretend(runtime, "cuda")
def StreamWaitEvent(stream: Word, event: Word, flags: Int):
    return OK


@_pretend(runtime, "cuda")
def StreamIsCapturing(stream: Word, where: Word):
    put(Int, where, 0 if stream not in _captured else 2 if _captured[stream] is None else 1)


@_pretend(runtime, "cuda")
def StreamBeginCapture(stream: Word, mode: Int):
    if stream == 0 or stream in _captured:
        return NOT_PERMITTED
    _captured[stream] = []
    return OK


@_pretend(runtime, "cuda")
def StreamEndCapture(stream: Word, where: Word):
    graph = next(_numbers)
    _graphs[graph] = _captured.pop(stream)
    put(Word, where, graph if _graphs[graph] is not None else 0)
    return OK if _graphs[graph] is not None else INVALIDATED


@_pretend(runtime, "cuda")
def GraphInstantiate(where: Word, graph: Word, flags: Word):
    executable = next(_numbers)
    _graphs[executable] = _graphs[graph]
    put(Word, where, executable)


@_pretend(runtime, "cuda")
def GraphLaunch(executable: Word, stream: Word):
    for operation in _graphs[executable]:
        if status := _do(stream, operation):
            return status
    return OK


@_pretend(runtime, "cuda")
def GraphDestroy(graph: Word):
    _graphs.pop(graph, None)


@_pretend(runtime, "cuda")
def GraphExecDestroy(executable: Word):
    _graphs.pop(executable, None)


@_pretend(runtime, "cuda")
def EventCreateWithFlags(where: Word, flags: Int):
    put(Word, where, next(_numbers))


@_pretend(runtime, "cuda")
def EventRecord(event: Word, stream: Word):
    _recorded.pop(event, None)
    if stream in _captured:
        _recorded[event] = stream


@_pretend(runtime, "cuda")
def EventSynchronize(event: Word):
    if event not in _recorded:
        return OK
    _invalidate({_recorded[event]} & _captured.keys())
    return CAPTURED_EVENT


runtime["cudaEventQuery"] = runtime["cudaEventSynchronize"]


@_pretend(runtime, "cuda")
def EventElapsedTime(where: Word, begin: Word, end: Word):
    """Always a second: time is what there is none of here."""
    put(ctypes.c_float, where, 1000)


@_pretend(runtime, "cuda")
def EventDestroy(event: Word):
    _recorded.pop(event, None)


# ---------------------------------------------------------------------------------------------------------------------
# The device, and errors


@_pretend(runtime, "cuda")
def GetDeviceCount(where: Word):
    put(Int, where, 1)


@_pretend(runtime, "cuda")
def GetDevice(where: Word):
    put(Int, where, 0)


@_pretend(runtime, "cuda")
def SetDevice(device: Int):
    return OK


@_pretend(runtime, "cuda")
def DeviceSynchronize():
    return _invalidate(set(_captured))


@_pretend(runtime, "cuda")
def DeviceGetAttribute(where: Word, attribute: Int, device: Int):
    put(Int, where, ATTRIBUTES.get(attribute, 1))


@_pretend(runtime, "cuda")
def RuntimeGetVersion(where: Word):
    put(Int, where, 12090)


@_pretend(runtime, "cuda")
def GetLastError():
    return OK


_texts = {}


def _text(status):
    buffer = _texts.setdefault(status, ctypes.create_string_buffer(TEXTS.get(status, f"error {status}").encode()))
    return ctypes.addressof(buffer)


runtime["cudaGetErrorName"] = runtime["cudaGetErrorString"] = ctypes.CFUNCTYPE(Word, Int)(_text)


@_pretend(driver, "cu")
def GetErrorString(status: Int, where: Word):
    put(Word, where, _text(status))


driver["cuGetErrorName"] = driver["cuGetErrorString"]


# ---------------------------------------------------------------------------------------------------------------------
# Modules: a name of one of handloom's kernels, or the source of one of CuPy's

OURS, THEIRS = b"handloom ", b"CuPy "
_kernels = {}  # handloom's, by name
_modules, _functions, _shared = {}, {}, {}


def cubin_of(kernel, arch):
    """What stands for a kernel's machine code."""
    name = f"{kernel.function.__name__}{len(_kernels)}"
    _kernels[name] = kernel
    return OURS + f"{name} .text.{name} \0".encode()


@_pretend(driver, "cu")
def ModuleLoadData(where: Word, image: Word):
    module = next(_numbers)
    _modules[module] = ctypes.string_at(image)
    put(Word, where, module)


@_pretend(driver, "cu")
def ModuleUnload(module: Word):
    _modules.pop(module)


@_pretend(driver, "cu")
def ModuleGetFunction(where: Word, module: Word, name: Word):
    function = next(_numbers)
    _functions[function] = _modules[module], ctypes.string_at(name).decode()
    put(Word, where, function)


@_pretend(driver, "cu")
def FuncSetAttribute(function: Word, attribute: Int, value: Int):
    if attribute != SET_SHARED or value > MOST_SHARED:
        return INVALID_VALUE
    _shared[function] = value
    return OK


@_pretend(driver, "cu")
def LaunchKernel(
    function: Word, x: Int, y: Int, z: Int, block_x: Int, block_y: Int, block_z: Int,
    shared: Int, stream: Word, arguments: Word, extra: Word,
):  # fmt: skip
    image, name = _functions[function]
    block = block_x, block_y, block_z
    if not 0 < prod(block) <= 1024 or 0 in (x, y, z) or max(y, z) > 65535 or shared > _shared.get(function, SHARED):
        return INVALID_VALUE
    if image.startswith(OURS):
        run = _ours(_kernels[name], (x, y, z), block, shared, arguments)
    else:
        run = _theirs(image[len(THEIRS) :].decode(), name, arguments)
    return _do(stream, run)


def _ours(kernel, grid, block, shared, arguments):
    """A call of the kernel. Arguments are what lies at the addresses, as many bytes as it reads."""
    program = compiled.program_of(kernel)
    given = []
    for i, dtype in enumerate(program.parameters.values()):
        given.append(np.frombuffer(ctypes.string_at(Word.from_address(arguments + 8 * i).value, dtype.itemsize), dtype))

    def run():
        memory = ptx_machine.Memory([array_at(start, np.dtype(np.uint8)) for start in _allocated])
        ptx_machine.run(program, memory, [numbers[0] for numbers in given], grid, block, shared)
        return OK

    return run


def _theirs(source, name, arguments):
    """What a kernel of CuPy's computes, by its name: an operation on numbers, or one that makes one of many."""
    parameters = re.search(rf"{name}\((.*?)\)\s*{{", source, re.DOTALL)[1]
    parameters = re.findall(r"(?:^|, )(?:const )?(CArray<(.+?), (\d+).*?>|CIndexer<.*?>|[a-z ]+) \w+", parameters)
    given = []  # functions that give an array or a number
    for i, (kind, element, ndim) in enumerate(parameters):
        address = Word.from_address(arguments + 8 * i).value
        if element:
            ndim = int(ndim)
            start, _, *layout = struct.unpack(f"{2 + 2 * ndim}q", ctypes.string_at(address, 16 + 16 * ndim))
            given.append(partial(_strided, start, NUMBERS[element], layout[:ndim], layout[ndim:]))
        elif kind in NUMBERS:
            dtype = np.dtype(NUMBERS[kind])
            given.append(np.frombuffer(ctypes.string_at(address, dtype.itemsize), dtype)[0].copy)
    operation, reduces = name.removeprefix("cupy_").partition("__")[0], "_block_stride" in source
    compute = {"copy": np.copy, "fill": np.copy, "take": _taken}.get(operation) or getattr(np, operation)

    def run():
        *operands, out = (give() for give in (given[:-1] if reduces else given))
        if reduces:
            result = compute(operands[0].reshape(-1, out.size), 0).reshape(out.shape)
        elif compute is _taken:
            result = _taken(*operands, out.size).reshape(out.shape)
        else:
            result = compute(*operands)
        out[...] = result
        return OK

    return run


def _strided(start, dtype, shape, strides):
    room = array_at(start, np.dtype(dtype))
    if 0 not in shape and sum((n - 1) * step for n, step in zip(shape, strides)) >= room.nbytes:
        raise IndexError(f"{shape} numbers from {start:#x} on are not, or no more, in one allocation")
    return np.lib.stride_tricks.as_strided(room, shape, strides)


def _taken(a, rows, before, chosen, behind, length, size):
    """`cupy_take`: a is (before, length, behind), and of its rows so many are chosen."""
    i = np.arange(size)
    return a.reshape(-1)[(rows.reshape(-1) % length + i // (chosen * behind) * length) * behind + i % behind]


# ---------------------------------------------------------------------------------------------------------------------
# Putting it in place


class _Driver:
    """`libcuda.so.1`, as ctypes shows a library."""

    def __getattr__(self, name):
        return driver.setdefault(name, _not_pretended(name))


def _not_pretended(name):
    def called():
        problems.append(f"{name} is not pretended")
        return UNKNOWN

    return ctypes.CFUNCTYPE(Int)(called)


@cache
def import_cupy():
    """CuPy, which takes this machine for one with a GPU from now on, until the process ends."""
    import cupy
    from cupy.cuda import compiler, function

    (folder,) = find_spec("cupy_backends").submodule_search_locations
    (file,) = glob.glob(f"{folder}/cuda/api/runtime.*.so")
    _divert(file)
    library = ctypes.CDLL

    class Library(library):
        def __new__(cls, name=None, *args, **options):
            return _Driver() if name and "libcuda.so" in str(name) else super().__new__(cls)

    def compiled(source, *args, **options):
        module = function.Module()
        module.load(THEIRS + source.encode())
        return module

    ctypes.CDLL = Library  # CuPy opens the driver when it first needs it
    compiler._compile_module_with_cache = compiled
    # Its plain reductions, which _theirs can read, and none from libraries that bring a CUDA of their own.
    cupy._core.set_reduction_accelerators([])
    cupy._core.set_routine_accelerators([])
    return cupy


def _divert(file):
    """Lets the functions of CUDA's runtime in this extension module jump to those above."""
    ctypes.CDLL(file)
    with open("/proc/self/maps") as maps:
        base = next(int(line.split("-")[0], 16) for line in maps if file in line)
    places = {name: base + offset for name, offset in _symbols(file) if re.match(r"cuda[A-Z]", name)}
    start = min(places.values()) // mmap.PAGESIZE * mmap.PAGESIZE
    writable = ctypes.CDLL(None).mprotect
    assert writable(ctypes.c_void_p(start), Word(max(places.values()) + 64 - start), 7) == 0
    for name, place in places.items():
        target = runtime.setdefault(name, _not_pretended(name))
        jump = b"\x48\xb8" + struct.pack("<Q", ctypes.cast(target, ctypes.c_void_p).value) + b"\xff\xe0"
        ctypes.memmove(place, jump, len(jump))


def _symbols(file):
    """(Name, offset) of all symbols of an ELF file, also of those that no other file sees."""
    with open(file, "rb") as stream:
        content = stream.read()
    start, size, number = *struct.unpack_from("<40xQ10xH", content), struct.unpack_from("<60xH", content)[0]
    sections = [struct.unpack_from("<IIQQQQIIQQ", content, start + i * size) for i in range(number)]
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind == 2:  # SHT_SYMTAB
            for at in range(offset, offset + length, 24):
                name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", content, at)
                name = sections[link][4] + name
                yield content[name : content.index(b"\0", name)].decode(), value
