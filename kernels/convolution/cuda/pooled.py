"""`conv2d_max_pool2d` on a GPU: the convolution, all of its y, then the pooling."""

from ...arrays import namespace
from ...pooling.cuda import max_vectors
from ..pooled import windows_of
from ..rung import Rung


def separate(conv2d):
    """The rung of a convolution with the maxima behind it."""

    def forward(x, w, b, y, offsets, g, activation):
        full = namespace(x).empty((g.N, g.OH, g.OW, g.F), x.dtype)
        conv2d.forward(x, w, b, full, g, activation)
        max_vectors.forward(full, y, offsets, windows_of(g))

    return Rung(forward, conv2d.data_gradient, conv2d.weight_gradient)
