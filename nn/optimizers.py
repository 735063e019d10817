"""Optimizers: how parameters follow their gradients, with Keras's names, defaults and formulas.

The formulas are in `kernels.optimizers`, one fused pass per parameter; here is the book-keeping around them.
"""

from __future__ import annotations

import inspect
from numbers import Real

import numpy as np

from .. import kernels
from ..kernels.graphs import GraphRecording
from ..kernels.optimizers import adam_numbers, rmsprop_numbers, sgd_numbers
from ..kernels.recording import Launches, Recording
from .devices import beside
from .tensor import Tensor
from .utils import did_you_mean

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "get", "serialize"]


class Optimizer:
    """Base of all. `compile` binds the model's parameters; a loop of one's own passes them as `parameters`.

    A subclass sets `state_names`, the arrays that it keeps for each parameter, and defines `update(w, g, *state)`,
    which changes `w` and the state in place. Where its formula takes each element by itself it sets `elementwise`, and
    small parameters are then changed together: see `_Group`.

    Args:
        learning_rate: may be set at any time; every step reads it.
        parameters: the parameters to change.
        clipnorm: longest that the gradient of one parameter may be; longer ones are scaled down.
        clipvalue: largest absolute value of a gradient; what is beyond is cut off.
        global_clipnorm: longest that all gradients together may be.
        name: for the reader.

    Example:

    >>> from handloom import nn
    >>> w = nn.Parameter([1.0, 2.0])
    >>> optimizer = nn.SGD(learning_rate=0.1, parameters=[w])
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> optimizer.zero_grad()
    >>> w.data
    array([0.8, 1.6])
    """

    state_names = ()
    elementwise = False

    def __init__(
        self, learning_rate, *, parameters=None, clipnorm=None, clipvalue=None, global_clipnorm=None, name=None
    ):
        self.name = name or type(self).__name__.lower()
        self.learning_rate = learning_rate
        self.iterations = 0
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        self._clips = {key: self._limit(key, value) for key, value in clips.items() if value is not None}
        if len(self._clips) > 1:
            raise ValueError(f"{type(self).__name__}: {' and '.join(self._clips)} exclude each other: give one of them")
        self._bound = []  # (parameter, its state arrays): all of them, either alone or in a group
        self._idle = []  # the same of those that it had before: frozen ones may come back
        self._alone, self._groups = [], []
        if parameters is not None:
            self.bind(parameters)

    def _number(self, name, value):
        """`value` as a Python float: of one type, or the kernels would be compiled for each."""
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{type(self).__name__}: {name} must be a number, got {value!r}")
        return float(value)

    def _limit(self, name, value):
        limit = self._number(name, value)
        if not limit > 0:
            raise ValueError(f"{type(self).__name__}: {name} must be above 0, got {value!r}: leave it out for no limit")
        return limit

    @property
    def learning_rate(self):
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self._learning_rate = self._number("learning_rate", value)

    @property
    def parameters(self):
        return [parameter for parameter, _ in self._bound]

    def bind(self, parameters):
        """Takes charge of these parameters; one that it ever had goes on with its state.

        After the first step at least one must be known already: the count of steps belongs to those that it was
        counted for, and an optimizer that changed from model to model would also lose their states.
        """
        parameters = list(parameters)
        for parameter in parameters:
            if not isinstance(parameter, Tensor):
                raise TypeError(
                    f"{type(self).__name__}: parameters must be tensors, got {type(parameter).__name__}: pass for "
                    "example model.trainable_weights"
                )
        same = [id(parameter) for parameter in parameters] == [id(parameter) for parameter in self.parameters]
        if same and all(group.whole() for group in self._groups) and self._states_follow():
            return
        before = self._idle + self._bound
        known = {id(parameter): state for parameter, state in before}
        bound = {id(parameter): parameter for parameter in parameters}
        if self.iterations and known and bound and known.keys().isdisjoint(bound):
            raise ValueError(
                f"{type(self).__name__}.bind: got {len(bound)} parameters, and the {len(known)} that it has changed in "
                f"{self.iterations} steps are others: each model needs an optimizer of its own, compile with a new one"
            )
        left = [entry for entry in before if self.iterations and id(entry[0]) not in bound]
        self._idle = [(parameter, tuple(array.copy() for array in state)) for parameter, state in left]
        self._bound = [(parameter, self._state_of(parameter, known.get(key))) for key, parameter in bound.items()]
        if self.elementwise:
            self._groups, self._bound = _grouped(self._bound, len(self.state_names))
        together = {id(parameter) for group in self._groups for parameter, _ in group.bound}
        self._alone = [entry for entry in self._bound if id(entry[0]) not in together]

    def _state_of(self, parameter, known):
        """Its state, where the parameter now is; zeros for one that has none yet."""
        if known is None:
            return tuple(np.zeros_like(parameter.data) for _ in self.state_names)
        return tuple(beside(array, parameter.data) for array in known)

    def _states_follow(self):
        return all(beside(array, parameter.data) is array for parameter, state in self._bound for array in state)

    def step(self):
        """Changes every bound parameter that has a gradient."""
        if self._clips:
            self._clip()
        self.iterations += 1
        if not self._update_all():
            self.iterations -= 1
            raise ValueError(
                f"{type(self).__name__}.step: no parameter has a gradient: "
                + ("call loss.backward() first" if self._bound else "pass parameters=model.trainable_weights")
            )

    def _update_all(self):
        """An update for each group, and for each parameter in none; whether there was one."""
        changed = self._update_each(self._alone)
        for group in self._groups:
            if group.gather_gradients():
                self.update(group.w, group.g, *group.state)
                changed = True
            elif self._update_each(group.bound):
                changed = True
        return changed

    def _update_each(self, bound):
        """One update for each parameter that has a gradient; whether there was one."""
        changed = False
        for parameter, state in bound:
            grad = parameter.grad
            if grad is not None:
                self.update(parameter.data, grad, *state)
                changed = True
        return changed

    def record_step(self, gradients=None):
        """`step`, as a recording for `replay_step`; None where a step is more than launches with numbers.

        gradients : the recording that computes them, after which this one is always replayed. One on the CPU takes each
        parameter alone, whose gradient it may compute itself; one on a GPU what was gathered there.
        """
        if self._clips or self.numbers is None or any(weight.grad is None for weight in self.parameters):
            return None
        on_gpu = isinstance(gradients, GraphRecording)
        if on_gpu and not all(group.has_gathered() for group in self._groups):
            return None
        self.iterations += 1
        with Launches() if on_gpu else Recording(after=gradients) as recording:
            if on_gpu:
                self._update_all()
            else:
                self._update_each(self._bound)
        return recording

    def replay_step(self, recording):
        """The same on the gradients that now lie in the recorded ones' memory, with today's numbers."""
        self.iterations += 1
        recording.replay(*self.numbers())

    def gather(self):
        """Lets the gradients that a step would copy together lie there already; those that are clipped first do not."""
        for group in self._groups if not self._clips else ():
            if group.gather_gradients():
                for parameter, _, g in group.parts:
                    parameter.grad = g

    def zero_grad(self):
        """Forgets all gradients, so that the next `backward()` starts from nothing."""
        for parameter, _ in self._bound:
            parameter.grad = None

    def update(self, w, g, *state):
        raise NotImplementedError(f"{type(self).__name__}: define update(self, w, g, *state)")

    # What the kernel of `update` computes with in a step, where it does nothing but call that.
    numbers = None

    def settings(self):
        """All that a recorded step depends on beside the numbers: what was exchanged makes another step."""
        return [value for name, value in vars(self).items() if name not in ("iterations", "_learning_rate")]

    def _clip(self):
        """Replaces gradients by shorter ones; they may be shared, so none is changed in place."""
        (kind, limit), *_ = self._clips.items()
        graded = [parameter for parameter, _ in self._bound if parameter.grad is not None]
        if kind == "clipvalue":
            for parameter in graded:
                parameter.grad = parameter.grad.clip(-limit, limit)
            return
        squares = [(parameter.grad * parameter.grad).sum() for parameter in graded]
        if kind == "global_clipnorm":
            squares = [sum(squares)] * len(graded)
        for parameter, square in zip(graded, squares):  # no number is looked at: the host would wait for a GPU
            share = limit / np.maximum(square**0.5, limit)
            parameter.grad = parameter.grad * share.astype(parameter.dtype)

    def __getstate__(self):
        """For copies and pickles, in which parts of a long array come out as arrays of their own."""
        return {**vars(self), "_groups": [], "_alone": self._bound}

    # What `save` keeps.

    def get_config(self):
        """The arguments that make the same optimizer again."""
        return {"name": self.name, "learning_rate": self.learning_rate, **self._clips}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def state_arrays(self, parameters=None):
        """The state by name, `3/m` for the array `m` of the fourth parameter, and the count of steps.

        parameters : those of which it is wanted, by default the bound ones; zeros where one has none yet. None has one
        before any was bound.
        """
        arrays = {"iterations": np.array(self.iterations, np.int64)}
        states = {id(parameter): state for parameter, state in self._idle + self._bound}
        for index, parameter in enumerate(self.parameters if parameters is None or not states else parameters):
            state = self._state_of(parameter, states.get(id(parameter)))
            arrays.update({f"{index}/{name}": array for name, array in zip(self.state_names, state)})
        return arrays

    def load_state_arrays(self, arrays):
        """Copies arrays, as `state_arrays` returns them, into the state of the bound parameters."""
        own = self.state_arrays()
        shapes = {name: array.shape for name, array in own.items()}
        if shapes != {name: np.shape(array) for name, array in arrays.items()}:
            raise ValueError(
                f"{type(self).__name__}.load_state_arrays: got {sorted(arrays)}: names and shapes must be those of "
                f"{len(self._bound)} bound parameters, {shapes}"
            )
        for name, array in own.items():
            array[...] = beside(arrays[name], array)
        self.iterations = int(arrays["iterations"])


class _Group:
    """Small parameters whose arrays, and states, are parts of long ones, so that one launch changes them all.

        w      | kernel ........... | bias . | kernel ...... | bias . |      the parameters' `data` are these parts
        g      | copies of the gradients, in the same places          |
        state  | ...                                                  |

    A launch costs microseconds however little it does, and copying a small gradient a fraction of one.
    """

    LARGEST = 8192  # elements; from here the copy costs what the launch did
    LINE = 16  # parts begin at multiples of this, so that none begins in the middle of another's vector

    def __init__(self, bound, states):
        starts = [0]
        for parameter, _ in bound:
            starts.append(starts[-1] - parameter.size // -self.LINE * self.LINE)
        like = bound[0][0].data
        self.w, self.g, *self.state = (np.zeros_like(like, shape=starts[-1]) for _ in range(2 + states))
        self.bound, self.parts = [], []
        for (parameter, state), start in zip(bound, starts):
            w, g, *parts = (
                array[start : start + parameter.size].reshape(parameter.shape)
                for array in (self.w, self.g, *self.state)
            )
            w[...] = parameter.data
            for part, array in zip(parts, state):
                part[...] = array
            parameter.data = w
            self.bound.append((parameter, tuple(parts)))
            self.parts.append((parameter, w, g))

    def whole(self):
        """Whether the parameters still are its parts: none was moved, or given another array."""
        return all(parameter.data is w for parameter, w, _ in self.parts)

    def has_gathered(self):
        """Whether all gradients lie in their places."""
        return all(parameter.grad is g for parameter, _, g in self.parts)

    def gather_gradients(self):
        """Copies the gradients together, as far as they are not; False where that is not possible, and each parameter
        has to go alone."""
        for parameter, w, g in self.parts:
            grad = parameter.grad
            if grad is None or parameter.data is not w or grad.shape != g.shape or grad.dtype != g.dtype:
                return False
            if grad is not g:
                g[...] = grad
        return True


def _grouped(bound, states):
    """The groups, one for each dtype, and all parameters in their order with the state that they now have."""
    kinds = {}
    for entry in bound:
        if entry[0].size <= _Group.LARGEST:
            kinds.setdefault((entry[0].dtype, entry[0].device), []).append(entry)
    groups = [_Group(entries, states) for entries in kinds.values() if len(entries) > 1]
    moved = {id(parameter): (parameter, state) for group in groups for parameter, state in group.bound}
    return groups, [moved.get(id(entry[0]), entry) for entry in bound]


class SGD(Optimizer):
    """Gradient descent, with momentum and Nesterov's look ahead (Sutskever et al., 2013)."""

    elementwise = True

    def __init__(self, learning_rate=0.01, momentum=0.0, nesterov=False, **options):
        self.momentum = self._number("momentum", momentum)
        self.nesterov = bool(nesterov)
        self.state_names = ("velocity",) if self.momentum else ()
        super().__init__(learning_rate, **options)
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"SGD: momentum must lie between 0 and 1, got {momentum}")

    def update(self, w, g, velocity=None):
        kernels.sgd_update(
            w, g, velocity, learning_rate=self._learning_rate, momentum=self.momentum, nesterov=self.nesterov
        )

    def numbers(self):
        return sgd_numbers(self._learning_rate, self.momentum)

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class RMSprop(Optimizer):
    """Steps divided by a running root mean square of the gradient (Hinton, lecture 6e, 2012)."""

    elementwise = True

    def __init__(self, learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False, **options):
        self.rho = self._number("rho", rho)
        self.momentum = self._number("momentum", momentum)
        self.epsilon = self._number("epsilon", epsilon)
        self.centered = bool(centered)
        self.state_names = ("v", *(["velocity"] if self.momentum else []), *(["mean"] if self.centered else []))
        super().__init__(learning_rate, **options)

    def update(self, w, g, *state):
        kernels.rmsprop_update(
            w,
            g,
            **dict(zip(self.state_names, state)),
            learning_rate=self._learning_rate,
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
        )

    def numbers(self):
        return rmsprop_numbers(self._learning_rate, self.rho, self.momentum, self.epsilon)

    def get_config(self):
        return {
            **super().get_config(),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }


class Adam(Optimizer):
    """Steps along a running mean of the gradient, divided by its root mean square (Kingma and Ba, 2015)."""

    state_names = ("m", "v")
    elementwise = True

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, **options):
        self.beta_1 = self._number("beta_1", beta_1)
        self.beta_2 = self._number("beta_2", beta_2)
        self.epsilon = self._number("epsilon", epsilon)
        super().__init__(learning_rate, **options)

    def rates(self):
        """What a step takes beside the arrays."""
        return {
            "step": self.iterations,
            "learning_rate": self._learning_rate,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }

    def update(self, w, g, m, v):
        kernels.adam_update(w, g, m, v, **self.rates())

    def numbers(self):
        return adam_numbers(**self.rates())

    def get_config(self):
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


class AdamW(Adam):
    """Adam, with the weights themselves decaying at every step (Loshchilov and Hutter, 2019)."""

    def __init__(self, learning_rate=0.001, weight_decay=0.004, beta_1=0.9, beta_2=0.999, epsilon=1e-7, **options):
        self.weight_decay = self._number("weight_decay", weight_decay)
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **options)

    def rates(self):
        return {**super().rates(), "weight_decay": self.weight_decay}

    def update(self, w, g, m, v):
        kernels.adamw_update(w, g, m, v, **self.rates())

    def get_config(self):
        return {**super().get_config(), "weight_decay": self.weight_decay}


_BY_NAME = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}


def get(identifier):
    """The optimizer for a name (in any case), a `serialize` dict, a class or an instance.

    >>> get("Adam").learning_rate
    0.001
    """
    if isinstance(identifier, Optimizer):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Optimizer):
        return identifier()
    if isinstance(identifier, dict) and identifier.keys() == {"class_name", "config"}:
        return _lookup(identifier["class_name"]).from_config(identifier["config"])
    return _lookup(identifier)()


def _lookup(name):
    cls = _BY_NAME.get(name.lower()) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(did_you_mean("optimizer", name, _BY_NAME))
    return cls


def serialize(optimizer):
    """The optimizer as plain data, which `get` turns back into one, without its state."""
    if _BY_NAME.get(type(optimizer).__name__.lower()) is not type(optimizer):
        raise ValueError(f"optimizer {optimizer.name}: cannot be saved: only handloom's own optimizers can")
    return {"class_name": type(optimizer).__name__, "config": optimizer.get_config()}
