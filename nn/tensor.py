"""Tensors and the tape: `y.backward()` walks back from `y` over the operations that made it.

There is no global tape. A tensor that an operation made points at a `Node`, the node points at the operation's
inputs, and nothing points forward:

    x ── Node(dense) ── h ── Node(softmax) ── y        y._node.inputs == (h,), h._node.inputs == (x, w, b)

So a graph lives as long as the tensor at its end, never contains a reference cycle, and belongs to whichever thread
holds it. `backward()` takes it apart as it goes: each node drops what it saved as soon as its gradients are known.
"""

from __future__ import annotations

import operator
import threading
from bisect import insort
from contextlib import ContextDecorator

import numpy as np

from .devices import beside, check_device, default_device, device_of, explain_mixture, place, to_host


class _Mode(threading.local):
    recording = True


_mode = _Mode()


class no_grad(ContextDecorator):
    """Inside, operations record nothing: `with no_grad(): ...`, or `@no_grad()`; for this thread alone.

    >>> from handloom.nn import Tensor, no_grad
    >>> w = Tensor([1.0, 2.0], requires_grad=True)
    >>> with no_grad():
    ...     (w * 3).requires_grad
    False
    """

    def __init__(self):
        self._before = []

    def __enter__(self):
        self._before.append(_mode.recording)
        _mode.recording = False
        return self

    def __exit__(self, *error):
        _mode.recording = self._before.pop()
        return False


class Node:
    """One recorded operation: how to go back through it, and from which tensors it came.

    `depth` is one more than that of the deepest node among its inputs. Going back from the deepest node to the
    shallowest visits every node after all that was made from its outputs.
    """

    __slots__ = ("backward", "saved", "inputs", "needs", "depth", "grad", "outputs")

    def __init__(self, backward, saved, inputs, needs, depth):
        self.backward = backward  # (grad, saved, needs) -> one gradient, or None, for each input
        self.saved = saved
        self.inputs = inputs
        self.needs = needs
        self.depth = depth
        self.grad = None  # what has arrived from above; a list where the operation has several `outputs`


def added(a, b):
    """`a + b` in a new array: gradients may be shared between tensors and are never added to in place."""
    return (a + b)[...]  # [...] because NumPy turns a sum of 0-d arrays into a scalar


class Tensor:
    """An array that remembers how it was made.

    `data` is the array itself (NumPy on the CPU, CuPy on a GPU), `grad` the array that `backward()` left here (None
    before), and gradients add up until `zero_grad()`. Arithmetic (`+ - * / ** @`), `sum`, `mean`, `reshape`,
    `transpose` and slices work as on arrays and are differentiable; comparisons work and give plain arrays.
    `np.asarray(tensor)` is `tensor.numpy()`: the data itself on the CPU, a copy of it from a GPU.

    >>> from handloom.nn import Tensor
    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4., 6.])
    """

    __slots__ = ("data", "grad", "requires_grad", "logits", "_node", "_index", "__weakref__")
    __array_ufunc__ = None  # array + tensor asks the tensor, instead of looping over it

    def __init__(self, data, requires_grad=False):
        if isinstance(data, Tensor):
            data = data.data
        elif not hasattr(data, "strides"):  # a number, a list: anything that is no array yet
            data = place(np.asarray(data), default_device())
        self.data = data if data.ndim else data[...]  # [...] makes a NumPy scalar a 0-d array
        self.grad = None
        self.requires_grad = requires_grad
        self.logits = None  # of a softmax or sigmoid: (its name, the tensor it was made from)
        self._node = None
        self._index = None

    @property
    def shape(self):
        return self.data.shape

    @property
    def dtype(self):
        return self.data.dtype

    @property
    def ndim(self):
        return self.data.ndim

    @property
    def size(self):
        return self.data.size

    @property
    def device(self):
        """The name of the device that the data is on."""
        return device_of(self.data)

    @property
    def T(self):
        return functions.transpose(self)

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return (self[row] for row in range(len(self.data)))

    def __repr__(self):
        data, rest = self.numpy(), ", requires_grad=True" if self.requires_grad else ""
        if type(self.data) is not np.ndarray:
            rest += f", device={self.device!r}"
        return f"{type(self).__name__}({np.array2string(data, separator=', ')}, dtype={data.dtype}{rest})"

    def __array__(self, dtype=None, copy=None):
        data = to_host(self.data)
        if copy is False and data is not self.data:
            raise ValueError(
                f"__array__: the tensor is on {self.device}: NumPy can only have a copy of it, leave copy=False out"
            )
        return np.array(data, dtype=dtype, copy=copy)

    def __float__(self):
        return float(self.data)

    def __int__(self):
        return int(self.data)

    def __bool__(self):
        return bool(self.data)

    def __format__(self, spec):
        """`f"{loss:.4f}"` for a tensor with one value; without a format, as `str`."""
        return format(self.data.item(), spec) if spec else str(self)

    def numpy(self):
        """The data as a NumPy array: itself where it is one, a copy from a GPU."""
        return np.asarray(to_host(self.data))

    def item(self):
        """The one value of a tensor of size 1, as a Python number."""
        return self.data.item()

    def detach(self):
        """The same data, cut off from the graph."""
        return Tensor(self.data)

    def to(self, device):
        """This tensor on a device: itself where it is there already, else a copy that gradients find back from."""
        name, origin = check_device("to", device), self.device
        if name == origin:
            return self
        node = None
        if self.requires_grad and _mode.recording:
            depth = 0 if self._node is None else self._node.depth + 1
            node = Node(_move_back, origin, (self,), (True,), depth)
        return made_by(place(self.data, name), node)

    def zero_grad(self):
        self.grad = None

    def backward(self, grad=None):
        """Adds d(self)/d(leaf) to `leaf.grad` for every leaf that requires it, and frees the graph.

        `grad` is the gradient of whatever follows with respect to this tensor; a scalar needs none.
        """
        if not self.requires_grad:
            raise ValueError(
                "backward: this tensor was made from nothing that requires a gradient: create inputs with "
                "requires_grad=True, and leave no_grad() first"
            )
        if grad is None:
            if self.data.size != 1:
                raise ValueError(
                    f"backward: the tensor has shape {self.shape}: only a scalar starts by itself, reduce it "
                    "(for example .sum() or .mean()) or pass grad="
                )
            grad = self.data.copy()
            grad.fill(1)
        else:
            grad = beside(_data_of(grad), self.data).astype(self.dtype, copy=False)
            if grad.shape != self.shape:
                raise ValueError(f"backward: grad is {grad.shape} and the tensor {self.shape}: they must be equal")
        if self._node is None:
            self.grad = grad if self.grad is None else added(self.grad, grad)
        else:
            _walk(self._node, self._index, grad)

    # Comparisons give arrays of booleans: they have no gradient.

    def __lt__(self, other):
        return _compared(operator.lt, self, other)

    def __le__(self, other):
        return _compared(operator.le, self, other)

    def __gt__(self, other):
        return _compared(operator.gt, self, other)

    def __ge__(self, other):
        return _compared(operator.ge, self, other)

    def __eq__(self, other):
        return _compared(operator.eq, self, other)

    def __ne__(self, other):
        return _compared(operator.ne, self, other)

    __hash__ = object.__hash__  # by identity, so that tensors can be keys

    # Arithmetic: the pairs of forward and backward are in functions.py.

    def __add__(self, other):
        return functions.add(self, other)

    __radd__ = __add__

    def __sub__(self, other):
        return functions.subtract(self, other)

    def __rsub__(self, other):
        return functions.subtract(other, self)

    def __mul__(self, other):
        return functions.multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other):
        return functions.divide(self, other)

    def __rtruediv__(self, other):
        return functions.divide(other, self)

    def __pow__(self, exponent):
        return functions.power(self, exponent)

    def __rpow__(self, base):
        return functions.power(base, self)

    def __neg__(self):
        return functions.negative(self)

    def __abs__(self):
        return functions.absolute(self)

    def __matmul__(self, other):
        return functions.matmul(self, other)

    def __rmatmul__(self, other):
        return functions.matmul(other, self)

    def __getitem__(self, index):
        return functions.getitem(self, index)

    def sum(self, axis=None, keepdims=False):
        return functions.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis=None, keepdims=False):
        return functions.mean(self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape):
        return functions.reshape(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def transpose(self, *axes):
        return functions.transpose(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes)

    def astype(self, dtype):
        return functions.cast(self, dtype)


def _data_of(x):
    return x.data if isinstance(x, Tensor) else x


def _compared(compare, a, b):
    a, b = a.data, _data_of(b)
    try:
        return compare(a, b)
    except TypeError:
        explain_mixture(compare.__name__, a, b)
        raise


def _move_back(grad, origin, needs):
    return (place(grad, origin),)


class Parameter(Tensor):
    """A tensor that an optimizer changes: a leaf with a name.

    `trainable=False` keeps it out of every optimizer's reach; a layer that is switched off with `layer.trainable`
    changes `requires_grad` alone, and so finds its way back.
    """

    __slots__ = ("name", "trainable")

    def __init__(self, data, name=None, trainable=True):
        super().__init__(data, requires_grad=trainable)
        self.name = name
        self.trainable = trainable

    def assign(self, value):
        """Copies `value` into the parameter's own array, wherever that and the value are."""
        value = beside(_data_of(value), self.data)
        if value.shape != self.data.shape:
            raise ValueError(f"assign: {self.name} is {self.shape} and the value {value.shape}: they must be equal")
        self.data[...] = value

    def move(self, device):
        """Takes the parameter, and the gradient that it may have, to the device of this full name."""
        self.data = place(self.data, device)
        self.grad = None if self.grad is None else place(self.grad, device)


_new = object.__new__


def made_by(data, node, index=None):
    """The tensor that `node` made; the quick way round `Tensor.__init__`, for arrays known to be arrays."""
    tensor = _new(Tensor)
    tensor.data = data
    tensor.grad = tensor.logits = None
    tensor.requires_grad = node is not None
    tensor._node = node
    tensor._index = index
    return tensor


_depth = operator.attrgetter("depth")


def _walk(root, index, grad):
    """Sends `grad` back from output `index` of `root`: each node runs once, when all that it receives has arrived."""
    _receive(root, index, grad)
    waiting = [root]  # by depth, the deepest last
    while waiting:
        node = waiting.pop()
        inputs = node.inputs
        if inputs is None:
            raise ValueError(
                "backward: a part of this graph was freed by an earlier backward(): add the losses and go back once, "
                "or compute the forward pass again"
            )
        gradients = node.backward(node.grad, node.saved, node.needs)
        node.inputs = node.saved = node.grad = None
        for tensor, needed, gradient in zip(inputs, node.needs, gradients):
            if not needed:
                continue
            source = tensor._node
            if source is None:
                tensor.grad = gradient if tensor.grad is None else added(tensor.grad, gradient)
            elif _receive(source, tensor._index, gradient):
                insort(waiting, source, key=_depth)


def _receive(node, index, grad):
    """Adds the gradient of an output to what the node has; True if it is the first."""
    first = node.grad is None
    if index is None:
        node.grad = grad if first else added(node.grad, grad)
        return first
    if first:
        node.grad = [None] * node.outputs
    node.grad[index] = grad if node.grad[index] is None else added(node.grad[index], grad)
    return first


from . import functions  # noqa: E402  (functions needs the classes above)
