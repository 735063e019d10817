"""One step of some units of one row, forward and backward: the gates in vectors."""

from ...jit import jit
from ...simd import fma, lanes, vectors, vload_part, vstore_part
from ...vecmath import vsigmoid, vtanh

# Vectors of units that are computed side by side.
SEVERAL = 2


@jit(inline=True)
def _step(gates, cells, y, inputs, row, t, j, left, steps, size, hidden):
    at_t = row * steps + t
    z, cell = at_t * 4 * hidden + j, (at_t + row) * hidden + j
    i = vsigmoid(vload_part(gates, z, left))
    f = vsigmoid(vload_part(gates, z + hidden, left))
    g = vtanh(vload_part(gates, z + 2 * hidden, left))
    o = vsigmoid(vload_part(gates, z + 3 * hidden, left))
    c = fma(f, vload_part(cells, cell, left), i * g)
    h = o * vtanh(c)
    vstore_part(gates, z, i, left)
    vstore_part(gates, z + hidden, f, left)
    vstore_part(gates, z + 2 * hidden, g, left)
    vstore_part(gates, z + 3 * hidden, o, left)
    vstore_part(cells, cell + hidden, c, left)
    vstore_part(y, at_t * hidden + j, h, left)
    if t + 1 < steps:
        vstore_part(inputs, (at_t + 1) * (size + hidden) + size + j, h, left)


@jit(inline=True)
def step_of_units(gates, cells, y, inputs, row, t, first, end, steps, size, hidden):
    """Turns z_i, z_f, z_c, z_o of the units [first, end) into the gates, in place, and these into c and h."""
    step = lanes(y)
    wide = end - (end - first) % (SEVERAL * step)
    for j in range(first, wide, SEVERAL * step):
        _step(gates, cells, y, inputs, row, t, j, vectors(SEVERAL), steps, size, hidden)
    for j in range(wide, end, step):
        _step(gates, cells, y, inputs, row, t, j, end - j, steps, size, hidden)


@jit(inline=True)
def _step_back(gates, cells, dy, dh, dc, dz, sums, total, row, t, j, left, steps, hidden):
    at_t = row * steps + t
    z, state, cell = at_t * 4 * hidden + j, row * hidden + j, (at_t + row) * hidden + j
    i, f = vload_part(gates, z, left), vload_part(gates, z + hidden, left)
    g, o = vload_part(gates, z + 2 * hidden, left), vload_part(gates, z + 3 * hidden, left)
    tanh_c = vtanh(vload_part(cells, cell + hidden, left))
    dh_t = vload_part(dh, state, left)
    if dy.size > 0:
        dh_t = dh_t + vload_part(dy, at_t * hidden + j, left)
    dc_t = fma(dh_t * o, fma(-tanh_c, tanh_c, 1.0), vload_part(dc, state, left))
    df = dc_t * vload_part(cells, cell, left)
    put(dz, z, sums, total + j, dc_t * g * (i * (1.0 - i)), left)
    put(dz, z + hidden, sums, total + hidden + j, df * (f * (1.0 - f)), left)
    put(dz, z + 2 * hidden, sums, total + 2 * hidden + j, dc_t * i * fma(-g, g, 1.0), left)
    put(dz, z + 3 * hidden, sums, total + 3 * hidden + j, dh_t * tanh_c * (o * (1.0 - o)), left)
    vstore_part(dc, state, dc_t * f, left)


@jit(inline=True)
def step_back_of_units(gates, cells, dy, dh, dc, dz, sums, total, row, t, first, end, steps, hidden):
    """From dh and dc after step t, of the units [first, end): dz, also added to sums[total:], and dc before it."""
    step = lanes(dz)
    wide = end - (end - first) % (SEVERAL * step)
    for j in range(first, wide, SEVERAL * step):
        _step_back(gates, cells, dy, dh, dc, dz, sums, total, row, t, j, vectors(SEVERAL), steps, hidden)
    for j in range(wide, end, step):
        _step_back(gates, cells, dy, dh, dc, dz, sums, total, row, t, j, end - j, steps, hidden)


@jit(inline=True)
def put(dz, index, sums, place, value, count):
    """dz[index:] = value, and sums[place:] += value."""
    vstore_part(dz, index, value, count)
    vstore_part(sums, place, vload_part(sums, place, count) + value, count)
