"""handloom: hand-written compute kernels for deep learning, and a Keras-shaped layer API on top of them.

The rooms are imported when they are first named, so `import handloom` costs nothing:

    import handloom as hl
    hl.nn.Dense(10)            # layers, optimizers, training
    hl.kernels.matmul(a, b)    # plain functions over plain arrays
"""

from importlib import import_module as _import_module

_ROOMS = ("kernels", "nn", "bench", "examples")

__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str):
    if name in _ROOMS:
        return _import_module(f"{__name__}.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("handloom")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
