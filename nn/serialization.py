"""Models and weights in files: safetensors, with the configuration as JSON in the metadata.

    weights      one tensor each, under the path that `named_weights` gives it ("dense/kernel")
    optimizer    its state under "optimizer:0/m" and so on; only in files that `save_model` wrote
    metadata     {"handloom": JSON of format, version, kind and, for models, class, config, build shape, compile, and
                 what else the layers keep: random streams, and which of them are frozen}

Files are written beside their final place, brought to the disk and renamed, so that a crash leaves the old file or
the new one and never half of one. Loading checks everything before it changes anything.
"""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from . import devices, losses, metrics, optimizers

__all__ = ["load_model", "load_weights", "save_model", "save_weights"]

_FORMAT = 1
_STATE = "optimizer:"


def save_weights(model, filepath: str | os.PathLike, overwrite: bool = True) -> None:
    """Write the weights of a model, or of a single layer, to a safetensors file.

    Args:
        model: The model or layer.
        filepath: Where to.
        overwrite: Whether a file that is there may be replaced.
    """
    _check_free("save_weights", filepath, overwrite)
    _write("save_weights", filepath, _weights_of("save_weights", model), {"kind": "weights"})


def load_weights(model, filepath: str | os.PathLike) -> None:
    """Read weights back into a model, or a layer, of the same structure.

    Args:
        model: Must be built: its weights say which names and shapes are expected.
        filepath: A file that `save_weights` or `save_model` wrote, or any safetensors file with the same names.
    """
    arrays, _ = _read("load_weights", filepath)
    arrays = {name: array for name, array in arrays.items() if not name.startswith(_STATE)}
    _assign("load_weights", model, arrays, filepath)


def save_model(model, filepath: str | os.PathLike, overwrite: bool = True) -> None:
    """Write a model: its configuration, its weights and, if it is compiled, how, with the optimizer's state.

    Args: see `save_weights`.
    """
    _check_free("save", filepath, overwrite)
    arrays = _weights_of("save", model)
    header = {
        "kind": "model",
        "class_name": type(model).__name__,
        "config": model.get_config(),
        "build_shape": model.build_shape,
        "layers": {path: _state_of(layer) for path, layer in model.named_layers()},
        "compile": None,
    }
    if model.optimizer is not None:
        header["compile"] = {
            "optimizer": _pack(optimizers, model.optimizer),
            "loss": _pack(losses, model.loss),
            "metrics": [_pack(metrics, metric) for metric in model.metrics],
        }
        state = model.optimizer.state_arrays(model.trainable_weights)  # what `load_model` will bind
        arrays.update({_STATE + name: array for name, array in state.items()})
    _write("save", filepath, arrays, header)


def load_model(
    filepath: str | os.PathLike, custom_objects: dict | None = None, compile: bool = True, device: str | None = None
):
    """Make the model that `save_model` wrote, with its weights, ready to predict or to go on training.

    Args:
        filepath: The file.
        custom_objects: Classes and functions of your own that the model uses, by their names.
        compile: Whether to compile it as it was, and give the optimizer its state back.
        device: where the model is made: "cpu", "cuda", "cuda:1" and so on; as for a new layer by default.
    """
    place = devices.device(devices.check_device("load_model", device))
    arrays, header = _read("load_model", filepath)
    if header.get("kind") != "model":
        raise ValueError(
            f"load_model: {filepath} holds weights alone: make the model and call its load_weights, "
            "or write the file with model.save"
        )
    custom_objects = custom_objects or {}
    state = {name.removeprefix(_STATE): arrays.pop(name) for name in list(arrays) if name.startswith(_STATE)}
    with place, _made_from_header(filepath):
        model = _model_from(header, custom_objects)
    _assign("load_model", model, arrays, filepath)
    with place, _made_from_header(filepath):
        if compile and header["compile"]:
            _compile(model, header["compile"], state, custom_objects)
    return model


@contextmanager
def _made_from_header(path):
    """What is missing from a file's header, or of another kind than it should be, is told as a fault of the file."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"load_model: {path} has a header from which no model can be made ({type(error).__name__}: {error}): it is "
            "damaged, or the classes in custom_objects are not those that it was saved with"
        ) from error


def _model_from(header: dict, custom_objects: dict):
    """The model of a file's header, built but with fresh weights."""
    from .models import Sequential

    name = header["class_name"]
    cls = {"Sequential": Sequential, **custom_objects}.get(name)
    if cls is None:
        raise ValueError(
            f"load_model: the class {name} is not handloom's own: pass custom_objects={{{name!r}: {name}}}"
        )
    model = cls.from_config(header["config"], custom_objects)
    if not all(layer.built for layer in model.all_layers()):
        model.build(_as_tuple(header["build_shape"]))
    states = header.get("layers", {})  # files of the first versions have none
    for path, layer in model.named_layers():  # from the outside to the inside: freezing reaches all below
        for name, value in states.get(path, {}).items():
            setattr(layer, layer._kept[name], value)
    return model


def _state_of(layer) -> dict:
    """What a layer keeps beside its configuration and weights, as plain data."""
    return {name: getattr(layer, attribute) for name, attribute in layer._kept.items()}


def _compile(model, packed: dict, state: dict, custom_objects: dict) -> None:
    """Compile the model as the saved one was, and give the optimizer its state back."""
    model.compile(
        optimizer=_unpack("optimizer", packed["optimizer"], custom_objects),
        loss=_unpack("loss", packed["loss"], custom_objects),
        metrics=[_unpack("metric", metric, custom_objects) for metric in packed["metrics"]],
    )
    if len(state) > 1:  # more than the count of steps: it had parameters
        model.optimizer.bind(model.trainable_weights)
    model.optimizer.load_state_arrays(state)


def _pack(module, thing) -> dict:
    """An optimizer, loss or metric as plain data; one of the user's own under its name."""
    try:
        return module.serialize(thing)
    except ValueError:
        return {"custom": getattr(getattr(thing, "function", None), "__name__", None) or type(thing).__name__}


def _unpack(kind: str, packed: dict, custom_objects: dict):
    """What `compile` takes for a packed optimizer, loss or metric: the plain data, or the user's own object."""
    if "custom" not in packed:
        return packed
    name = packed["custom"]
    if name not in custom_objects:
        raise ValueError(
            f"load_model: the {kind} {name} is not handloom's own: "
            f"pass custom_objects={{{name!r}: {name}}}, or compile=False"
        )
    return custom_objects[name]


def _as_tuple(shape):
    """JSON knows lists alone; shapes are tuples, also inside tuples."""
    return tuple(map(_as_tuple, shape)) if isinstance(shape, list) else shape


def _weights_of(operation: str, model) -> dict[str, np.ndarray]:
    weights = dict(model.named_weights())
    if not weights and not model.built:
        raise ValueError(
            f"{operation}: {model.name!r} has no weights yet: call it once, or give its first layer an input_shape"
        )
    return {name: weight.numpy() for name, weight in weights.items()}


def _assign(operation: str, model, arrays: dict, path) -> None:
    """Copy the arrays into the model's weights, after checking that every one fits."""
    expected = dict(model.named_weights())
    if not expected and arrays and not model.built:
        raise ValueError(
            f"{operation}: {model.name!r} has no weights yet: call it once, or give its first layer an input_shape"
        )
    if expected.keys() != arrays.keys():
        lacking = [name for name in expected if name not in arrays]
        surplus = [name for name in arrays if name not in expected]
        differences = [f"{what} {_some(names)}" for what, names in (("no", lacking), ("also", surplus)) if names]
        raise ValueError(
            f"{operation}: {path} does not fit {model.name!r}: it has {' and '.join(differences)}: "
            "names and number of layers must be those of the saved model"
        )
    for name, weight in expected.items():
        if arrays[name].shape != weight.shape:
            raise ValueError(
                f"{operation}: {path} does not fit {model.name!r}: {name} is {arrays[name].shape} in the file and "
                f"{weight.shape} in the model: they must be equal"
            )
        if arrays[name].dtype.kind != "f":
            raise TypeError(f"{operation}: {path}: {name} holds {arrays[name].dtype}: weights must be floating-point")
    for name, weight in expected.items():
        weight.assign(arrays[name])


def _some(names: list[str]) -> str:
    """A list of names that stays readable."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _check_free(operation: str, path, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{operation}: {path} exists: choose another filepath, or pass overwrite=True")


def _write(operation: str, path, arrays: dict[str, np.ndarray], header: dict) -> None:
    """Write beside the path, bring it to the disk, rename; on any failure what was there before stays."""
    from safetensors.numpy import save_file

    from .. import __version__

    header = {"format": _FORMAT, "version": __version__, **header}
    try:
        text = json.dumps(header, default=_plain)
    except TypeError as error:
        raise TypeError(
            f"{operation}: the configuration cannot be saved ({error}): get_config must return numbers, texts, lists "
            "and dicts alone"
        ) from error
    arrays = {name: np.asarray(devices.to_host(array), order="C") for name, array in arrays.items()}
    target = Path(os.path.realpath(path))  # a link stays a link
    temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # as the user's umask wants it; safetensors has its own idea
        save_file(arrays, temporary, metadata={"handloom": text})
        temporary.chmod(mode)
        _bring_to_disk(temporary)
        os.replace(temporary, target)
    except Exception as error:
        raise OSError(f"{operation}: could not write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    _bring_to_disk(target.parent)


def _plain(value):
    """What JSON takes for a number of NumPy's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _bring_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(operation: str, path) -> tuple[dict[str, np.ndarray], dict]:
    """All arrays of a file, and handloom's part of its metadata."""
    from safetensors import SafetensorError, safe_open

    from .. import __version__

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{operation}: {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("handloom", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{operation}: {path} is not a whole safetensors file: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("format", _FORMAT), int):
        raise ValueError(
            f"{operation}: {path} has damaged metadata: 'handloom' must be a JSON object with an integer 'format', "
            f"got {str(header)[:60]}"
        )
    if header.get("format", _FORMAT) > _FORMAT:
        raise ValueError(
            f"{operation}: {path} was written by handloom {header.get('version')}, in format {header['format']}; "
            f"this is {__version__}, which reads formats up to {_FORMAT}: upgrade handloom"
        )
    return arrays, header
