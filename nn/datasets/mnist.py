"""MNIST: 70 000 handwritten digits of 28 x 28 pixels, downloaded once, checked and kept.

Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits". The file is `mnist.npz` as Keras
distributes it; the data are under CC BY-SA 3.0.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

__all__ = ["load_data"]

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"


def load_data(path: str | os.PathLike = "mnist.npz"):
    """Load MNIST; the first call downloads 11 MB (needs the `data` extra), later ones read the kept file.

    Args:
        path: Name of the file inside the data folder, or an absolute path. The folder is `$HANDLOOM_DATA_DIR`, by
            default `~/.cache/handloom/datasets` (or the same below `$XDG_CACHE_HOME`).

    Returns:
        `(x_train, y_train), (x_test, y_test)`: images `(60000, 28, 28)` and `(10000, 28, 28)` uint8, from 0 (paper)
        to 255 (ink); labels `(60000,)` and `(10000,)` uint8, from 0 to 9.

    Raises:
        ModuleNotFoundError: The file is not there yet and `pooch` is not installed.
        ConnectionError: The download failed. Nothing is left behind.
        ValueError: The file, downloaded or already there, does not have the SHA-256 of MNIST.
        OSError: The data folder cannot be written.
    """
    file = _data_folder() / Path(path).expanduser()
    if not file.exists():
        _download(file)
    elif _sha256(file) != SHA256:
        raise ValueError(
            f"mnist.load_data: {file} is there but is not MNIST (SHA-256 {_sha256(file)}, expected {SHA256}): "
            "delete it, or name another path"
        )
    with np.load(file, allow_pickle=False) as arrays:
        return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])


def _data_folder() -> Path:
    """Where downloaded data sets are kept."""
    named = os.environ.get("HANDLOOM_DATA_DIR")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "handloom" / "datasets"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(file: Path) -> None:
    """Fetch into a temporary file beside `file`, check it, rename it; on any failure the temporary file goes."""
    try:
        import pooch
        import requests
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"mnist.load_data: downloading needs {error.name}: pip install 'handloom[data]', "
            f"or copy {URL} to {file} yourself"
        ) from error
    try:
        pooch.retrieve(URL, known_hash=f"sha256:{SHA256}", fname=file.name, path=file.parent)
    except requests.RequestException as error:
        raise ConnectionError(
            f"mnist.load_data: could not download {URL} ({type(error).__name__}): check the network and try again, "
            f"or copy the file from another machine to {file}; handloom.nn.datasets.digits needs no network"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"mnist.load_data: what {URL} sent is not MNIST (its SHA-256 is not {SHA256}) and was deleted: "
            "try again later; a proxy or sign-in page in between is the usual cause"
        ) from error
    except OSError as error:
        raise OSError(
            f"mnist.load_data: could not write to {file.parent} ({error.strerror or error}): "
            "set HANDLOOM_DATA_DIR to a folder that you may write to"
        ) from error
