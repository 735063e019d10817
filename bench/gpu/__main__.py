"""gpu-check from a checkout: `python bench/gpu`, whether or not handloom is installed."""

import sys
from pathlib import Path


def mount() -> None:
    """Makes the folders of the checkout that this file lies in importable under one name, as an installation would.

    And under no other: sys.path has this file's folder at first, and in between the checkout, whose `kernels` or
    `tests` would hide other packages of these names.
    """
    root = Path(__file__).resolve().parents[2]
    sys.path[0] = str(root)
    import handloom

    del sys.path[0]
    if str(root) not in handloom.__path__:
        handloom.__path__.append(str(root))


if __name__ == "__main__":
    if not __package__:
        mount()
    from handloom.bench.gpu.command import main

    sys.exit(main())
