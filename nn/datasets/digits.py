"""Handwritten digits that ship with the package: 1797 images of 8 x 8 pixels.

The data are the UCI "Optical Recognition of Handwritten Digits" test images (E. Alpaydin and C. Kaynak, 1998,
https://doi.org/10.24432/C50P49, licence CC BY 4.0). `digits.txt` beside this file states source, licence and form.
"""

import operator
from pathlib import Path

import numpy as np

__all__ = ["load_data"]

_FILE = Path(__file__).with_name("digits.npz")


def load_data(size: int = 8):
    """Load the digits, split once and for all into 1438 images to train on and 359 to test on.

    Each digit has the same share in both halves, and the images of each half stand in a fixed random order.

    Args:
        size: Height and width of an image. 8 gives the images as they were recorded; a larger number scales them up,
            with bilinear interpolation and rounding to whole grey levels. 28 suits networks made for MNIST.

    Returns:
        `(x_train, y_train), (x_test, y_test)`:
        images `(N, size, size)` uint8, from 0 (paper) to 16 (ink), so divide by 16 where MNIST wants 255;
        labels `(N,)` uint8, from 0 to 9.

    Example:

    >>> (x_train, y_train), (x_test, y_test) = load_data(size=28)
    >>> x_train.shape, x_test.shape, int(x_train.max())
    ((1438, 28, 28), (359, 28, 28), 16)
    """
    try:
        size = operator.index(size)
    except TypeError:
        raise TypeError(f"digits.load_data: size must be an integer, got {size!r}") from None
    if size < 8:
        raise ValueError(f"digits.load_data: size must be at least 8, the size of the recorded images, got {size}")
    with np.load(_FILE, allow_pickle=False) as file:
        images, labels, train, test = (file[name] for name in ("images", "labels", "train", "test"))
    if size > 8:
        images = _scale_up(images, size)
    return (images[train], labels[train]), (images[test], labels[test])


def _scale_up(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear interpolation of (N, 8, 8) to (N, size, size), in whole numbers, so that every machine rounds alike."""
    mix = _interpolation(images.shape[-1], size)
    sums = mix @ images.astype(np.int64) @ mix.T
    whole = (2 * size) ** 2
    return ((sums + whole // 2) // whole).astype(np.uint8)


def _interpolation(old: int, new: int) -> np.ndarray:
    """The (new, old) matrix of interpolation weights along one axis, times 2 * new, which makes them whole.

    Pixels are squares, and both images cover the same area. The middle of new pixel i then lies at
    (i + 1/2) * old / new - 1/2 on the old grid; beyond the outermost middles the edge pixel is repeated.
    """
    place = np.clip((2 * np.arange(new) + 1) * old - new, 0, 2 * new * (old - 1))
    left, part = np.divmod(place, 2 * new)
    weights = np.zeros((new, old), np.int64)
    row = np.arange(new)
    weights[row, left] += 2 * new - part
    weights[row, np.minimum(left + 1, old - 1)] += part
    return weights
