"""The kernels of convolution whose machine code is read."""

from handloom.kernels.convolution.cuda import direct, implicit, tiles, winograd


def widest(T):
    return tiles.shapes(T)[0]


def narrowest(T):
    return tiles.shapes(T)[-1]


KERNELS = {
    "convolution-direct": lambda T: direct.convolve(T),
    "convolution-direct-correlate": lambda T: direct.correlate(T),
    "convolution-implicit": lambda T: implicit.convolve(T, *widest(T), True, True),
    "convolution-implicit-ragged": lambda T: implicit.convolve(T, *widest(T), False, False),
    "convolution-implicit-narrow": lambda T: implicit.convolve(T, *narrowest(T), True, True),
    "convolution-implicit-narrow-ragged": lambda T: implicit.convolve(T, *narrowest(T), False, False),
    "convolution-implicit-correlate": lambda T: implicit.correlate(T, *widest(T), True, True),
    "convolution-implicit-correlate-ragged": lambda T: implicit.correlate(T, *widest(T), False, False),
    "convolution-implicit-correlate-narrow": lambda T: implicit.correlate(T, *narrowest(T), True, True),
    "convolution-implicit-correlate-narrow-ragged": lambda T: implicit.correlate(T, *narrowest(T), False, False),
    "convolution-winograd-weights": lambda T: winograd.weights(T),
    "convolution-winograd-patches": lambda T: winograd.patches(T),
    "convolution-winograd-products": lambda T: winograd.products(T),
}
