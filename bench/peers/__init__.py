"""The peers: how each is called. One that is not installed, or does not know an operation, gives no candidates.

Everyone gets the same numbers, in its own layout, made before anything is timed, and the same cores. METHOD says the
rest in words, for those who read the figures.
"""

from functools import partial
from importlib import import_module
from importlib.util import find_spec

# Where each package's operations and programs are.
OPERATIONS = {"numpy": "numpy_operations", "torch": "torch_operations", "jax": "jax_operations"}
PROGRAMS = {
    "torch": ("torch_programs", "TorchProgram"),
    "jax": ("jax_programs", "JaxProgram"),
    "keras": ("keras_programs", "KerasProgram"),
    "sklearn": ("sklearn_programs", "SklearnProgram"),
}
ONLY = {"sklearn": ("dense",)}  # where a package does not know all of them
NAMES = tuple(dict.fromkeys((*OPERATIONS, *PROGRAMS)))

METHOD = {
    "numpy": "np.matmul into a given output, with the threads of its BLAS set by threadpoolctl.",
    "torch": "eager calls with as many threads by torch.set_num_threads; convolutions and pooling in both memory "
    "formats, contiguous (NCHW) and channels_last (NHWC); gradients by the operators behind autograd for convolutions, "
    "by torch.autograd.grad on a kept graph for the rest; Adam with fused=True.",
    "jax": "one jit for each operation or for the whole training step (flax, optax, donated buffers), and "
    "block_until_ready. XLA takes its threads from the cores that the process may use.",
    "keras": "fit and predict_on_batch as its users call them, on the backend that KERAS_BACKEND names; an epoch runs "
    "from memory.",
    "sklearn": "MLPClassifier.partial_fit with Adam, for the dense program alone, the only one that it knows.",
}


def installed() -> list[str]:
    """The names of the peers that can be imported."""
    return [name for name in NAMES if find_spec(name) is not None]


def of(step) -> dict:
    """What makes candidates for one pass of an operation (case.Pass), by package."""
    return _each("candidates", step)


def of_optimizer(op: str, start, gradient, options: dict) -> dict:
    """Likewise for an optimizer's update from `start`."""
    return _each("optimizer", op, start, gradient, options)


def of_random(op: str, x) -> dict:
    """Likewise for random numbers of x's size, or for the dropout of x."""
    return _each("random", op, x)


def of_program(program: str, weights, batches) -> dict:
    """What makes a peer's program, by package."""
    return {
        name: partial(_program, *place, program, weights, batches)
        for name, place in PROGRAMS.items()
        if program in ONLY.get(name, (program,))
    }


def _each(function, *args):
    return {name: partial(_call, module, function, *args) for name, module in OPERATIONS.items()}


def _call(module, function, *args):
    found = getattr(import_module(f"{__name__}.{module}"), function, None)
    return {} if found is None else found(*args)


def _program(module, name, *args):
    return getattr(import_module(f"{__name__}.{module}"), name)(*args)
