"""Layers, training and the autograd tape, with Keras's names.

The modules mirror Keras's (`handloom.nn.layers`, `.models`, `.optimizers` ...), and the names that one uses most are
here flat: `nn.Dense`, `nn.Sequential`, `nn.Adam`, `nn.Tensor`.
"""

from importlib import import_module as _import_module

_MODULES = (
    "activations",
    "callbacks",
    "datasets",
    "functions",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "utils",
)
_NAMES = {
    "callbacks": ("Callback", "EarlyStopping", "History", "LearningRateScheduler", "ModelCheckpoint"),
    "devices": ("device", "list_devices", "to_device"),
    "layers": (
        "LSTM",
        "Activation",
        "AveragePooling2D",
        "AvgPool2D",
        "Conv2D",
        "Dense",
        "Dropout",
        "Flatten",
        "GlobalAveragePooling2D",
        "GlobalAvgPool2D",
        "GlobalMaxPool2D",
        "GlobalMaxPooling2D",
        "Input",
        "Layer",
        "MaxPool2D",
        "MaxPooling2D",
        "Reshape",
    ),
    "losses": (
        "BinaryCrossentropy",
        "CategoricalCrossentropy",
        "Loss",
        "MeanAbsoluteError",
        "MeanSquaredError",
        "SparseCategoricalCrossentropy",
    ),
    "models": ("Model", "Sequential", "load_model"),
    "optimizers": ("SGD", "Adam", "AdamW", "Optimizer", "RMSprop"),
    "tensor": ("Parameter", "Tensor", "no_grad"),
    "utils": ("set_random_seed", "to_categorical"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_MODULES, *_HOME])


def __getattr__(name):
    """Modules are imported when they are first named; what was found stays, so that this runs once for each name."""
    if name in _MODULES:
        found = _import_module(f"{__name__}.{name}")
    elif name in _HOME:
        found = getattr(_import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__():
    return __all__
