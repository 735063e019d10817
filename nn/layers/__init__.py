"""Layers, with Keras's names, arguments and defaults."""

from .base import Layer
from .convolution import Conv2D
from .dense import Activation, Dense
from .dropout import Dropout
from .input import Input
from .pooling import (
    AveragePooling2D,
    AvgPool2D,
    GlobalAveragePooling2D,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GlobalMaxPooling2D,
    MaxPool2D,
    MaxPooling2D,
)
from .recurrent import LSTM
from .shaping import Flatten, Reshape

__all__ = [
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
]
