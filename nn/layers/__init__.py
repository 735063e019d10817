"""Layers, with Keras's names, arguments and defaults."""

from .base import Layer
from .convolution import Conv2D
from .dense import Activation, Dense
from .dropout import Dropout
from .input import Input
from .pooling import AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D
from .recurrent import LSTM
from .shaping import Flatten, Reshape

__all__ = [
    "LSTM",
    "Activation",
    "AveragePooling2D",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "Input",
    "Layer",
    "MaxPooling2D",
    "Reshape",
]
