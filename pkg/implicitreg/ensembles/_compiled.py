"""The inner loop of `particles` compiled by numba: the same streams and the same operations, LANES runs at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import factorial

import numpy as np
from implicitreg.ensembles import _streams
from implicitreg.ensembles._streams import HALF, LOW
from numba import njit as _njit
from numba import types
from numba.extending import intrinsic

LANES = 128  # runs that advance together: their states stay in the first cache
WIDEST = 4  # coordinates of theta and of the noise
(_M0, _M1), (_W0, _W1), _ROUNDS = _streams.MULTIPLIERS, _streams.INCREMENTS, _streams.ROUNDS
_u64 = np.uint64
njit = partial(_njit, error_model="numpy")  # x / 0 is what it is in NumPy, and loops with a division stay loops
_ONE, _ROOT_HALF = np.array([1.0, 0.5**0.5]).view(np.uint64)
_ARTANH = tuple(1 / (2 * k + 1) for k in range(12))
_COS = tuple((-1) ** k / factorial(2 * k) for k in range(12))
_SIN = tuple((-1) ** k / factorial(2 * k + 1) for k in range(12))
_LOG_2, _STEP = float(np.log(2.0)), float(np.pi * 2.0**-31)

_GET = {  # the coordinates of lane j, from row i on
    1: njit(lambda s, i, j: (s[i, j],)),
    2: njit(lambda s, i, j: (s[i, j], s[i + 1, j])),
    3: njit(lambda s, i, j: (s[i, j], s[i + 1, j], s[i + 2, j])),
    4: njit(lambda s, i, j: (s[i, j], s[i + 1, j], s[i + 2, j], s[i + 3, j])),
}
_MOVED = {  # theta - eta g
    1: njit(lambda s, e, g: (s[0] - e * g[0],)),
    2: njit(lambda s, e, g: (s[0] - e * g[0], s[1] - e * g[1])),
    3: njit(lambda s, e, g: (s[0] - e * g[0], s[1] - e * g[1], s[2] - e * g[2])),
    4: njit(lambda s, e, g: (s[0] - e * g[0], s[1] - e * g[1], s[2] - e * g[2], s[3] - e * g[3])),
}


@njit
def _sign(w, bit):
    return -1.0 if (w >> _u64(bit)) & _u64(1) else 1.0


_SIGNS = {
    1: njit(lambda w: (_sign(w, 0),)),
    2: njit(lambda w: (_sign(w, 0), _sign(w, 1))),
    3: njit(lambda w: (_sign(w, 0), _sign(w, 1), _sign(w, 2))),
    4: njit(lambda w: (_sign(w, 0), _sign(w, 1), _sign(w, 2), _sign(w, 3))),
}


@njit
def _set(s, i, j, values):
    for n in range(len(values)):
        s[i + n, j] = values[n]


@njit
def _refill(w, key, purpose, block, first):
    """Four words for each lane."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for j in range(w0.size):
        run = first + _u64(j)
        c0, c1, c2, c3 = _u64(block), purpose, run & LOW, run >> HALF
        k0, k1 = key & LOW, key >> HALF
        for _ in range(_ROUNDS):
            p0, p1 = _M0 * c0, _M1 * c2
            c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & LOW, (p0 >> HALF) ^ c3 ^ k1, p0 & LOW
            k0, k1 = (k0 + _W0) & LOW, (k1 + _W1) & LOW
        w0[j], w1[j], w2[j], w3[j] = c0, c1, c2, c3


@intrinsic
def _bits(context, number):
    """The 64 bits of a float."""

    def cast(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.uint64))

    return types.uint64(types.float64), cast


@intrinsic
def _float(context, bits):
    """The float with these 64 bits."""

    def cast(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.uint64), cast


@njit
def _polynomial(q, c):
    """Of degree eleven, by Horner's rule."""
    low = c[0] + q * (c[1] + q * (c[2] + q * (c[3] + q * (c[4] + q * c[5]))))
    return low + (q * q * q) * (q * q * q) * (c[6] + q * (c[7] + q * (c[8] + q * (c[9] + q * (c[10] + q * c[11])))))


@njit
def _minus_log(w):
    """-log((w + 1/2) / 2^32) by the series of artanh, without branches, so that the lanes go in parallel."""
    bits = _bits(np.float64(np.int64(w)) + 0.5)
    exponent = (bits + (_ONE - _ROOT_HALF)) >> _u64(52)
    m = _float(bits - (exponent << _u64(52)) + _ONE)  # from sqrt(1/2) to sqrt(2)
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    series = _polynomial(q, _ARTANH)
    return (1055.0 - np.float64(np.int64(exponent))) * _LOG_2 - 2.0 * s * series  # 1055 = 1023 + 32


@njit
def _cos_sin(v):
    """cos and sin of 2 pi v / 2^32 by their Taylor series within an eighth of a turn of the next axis."""
    quarter = (np.int64(v) + (1 << 29)) >> 30
    r = np.float64(np.int64(v) - (quarter << 30)) * _STEP
    q = r * r
    c, s = _polynomial(q, _COS), r * _polynomial(q, _SIN)
    x, y = (s, c) if quarter & 1 else (c, s)
    return -x if (quarter + 1) & 2 else x, -y if quarter & 2 else y


@njit
def _normals(w, z):
    for h in range(0, 4, 2):
        for j in range(LANES):
            radius = np.sqrt(2.0 * _minus_log(w[h, j]))
            c, s = _cos_sin(w[h + 1, j])
            z[h, j], z[h + 1, j] = radius * c, radius * s


@lru_cache(maxsize=64)
def _law(kind: str, k: int) -> tuple[Callable, Callable]:
    """``place(s)``, the row and shift of draw s of a block, and ``draw(w, z, place, j, values, limits)`` in lane j."""
    per_word, signs, get = 32 // k, _SIGNS[k], _GET[k]

    @njit
    def rademacher(w, z, place, j, values, limits):
        return signs(w[place[0], j] >> _u64(place[1]))

    @njit
    def gaussian(w, z, place, j, values, limits):
        return get(z, place[0], j)

    @njit
    def atoms(w, z, place, j, values, limits):
        i = 0
        for limit in limits:
            i += w[place[0], j] >= limit
        return get(values, 0, i)

    places = {"rademacher": lambda s: (s // per_word, k * (s % per_word)), "gaussian": lambda s: (s * k, 0),
              "atoms": lambda s: (s, 0)}  # fmt: skip
    return njit(places[kind]), {"rademacher": rademacher, "gaussian": gaussian, "atoms": atoms}[kind]


@njit
def _stay(theta, parameters):
    return theta


@lru_cache(maxsize=64)
def _kernel(gradient: Callable, project: Callable | None, d: int, k: int, kind: str, pull: Callable | None) -> Callable:
    get, moved, (place, draw) = _GET[d], _MOVED[d], _law(kind, k)
    gradient, project = njit(gradient), _stay if project is None else njit(project)
    per_block, gaussian, controlled = _streams.draws_per_block(kind, k), kind == "gaussian", pull is not None
    pull, height = (njit(pull), 3 * d) if controlled else (None, d)

    @njit
    def kernel(start, eps, eta, parameters, c, values, limits, key, purpose, first, at, out, control):
        state = np.empty((height, LANES))  # theta, then eps_1 and eps_2
        w, z = np.empty((4, LANES), np.uint64), np.empty((4, LANES))
        for low in range(0, out.shape[2], LANES):
            for i in range(d):
                state[i] = start[i]
                if controlled:
                    state[d + i], state[2 * d + i] = eps[i], 0.0
            t, width = 0, min(LANES, out.shape[2] - low)
            for stop in range(at.size):
                while t < at[stop]:
                    s = t % per_block
                    if s == 0:
                        _refill(w, key, purpose, t // per_block, first + _u64(low))
                        if gaussian:
                            _normals(w, z)
                    where = place(s)
                    for j in range(LANES):
                        x, theta = draw(w, z, where, j, values, limits), get(state, 0, j)
                        _set(state, 0, j, project(moved(theta, eta, gradient(theta, x, parameters)), parameters))
                        if controlled:
                            one, two = get(state, d, j), get(state, 2 * d, j)
                            pulls = pull(one, two, x, c)
                            _set(state, d, j, moved(one, eta, pulls[0]))
                            _set(state, 2 * d, j, moved(two, eta, pulls[1]))
                    t += 1
                for i in range(d):
                    out[stop, i, low : low + width] = state[i, :width]
                    if controlled:
                        control[stop, i, low : low + width] = state[d + i, :width] + state[2 * d + i, :width]

    return kernel


@lru_cache(maxsize=64)
def brownian(drift: Callable, spread: Callable, d: int) -> Callable:
    """The step of the SDE, as in `particles`, of compiled parts."""
    drift, spread, moved = njit(drift), njit(spread), _MOVED[d]

    def step(theta, w, parameters):
        inner = parameters[:-1]
        return moved(drift(theta, inner), parameters[-1], spread(theta, w, inner))

    return step


def advance(
    landscape, gradient: Callable, eta: float, seed: int, purpose: int, first: int, at: tuple[int, ...],
    eps: np.ndarray, pull: Callable | None, c: tuple[float, ...], out: np.ndarray, control: np.ndarray,
) -> None:  # fmt: skip
    """Fill ``out (S, d, P)`` with the runs first … first + P - 1 at the steps `at`, and ``control`` likewise."""
    noise, d = landscape.noise, len(landscape.start)
    kernel = _kernel(gradient, landscape.project, d, noise.size, noise.kind, pull)
    atoms = noise.kind == "atoms"
    values = np.ascontiguousarray(noise.values.T) if atoms else np.zeros((noise.size, 1))
    limits = _streams.thresholds(noise.probabilities) if atoms else np.zeros(0, np.uint64)
    kernel(np.array(landscape.start), eps, eta, landscape.parameters or (0.0,), c, values, limits,
           np.uint64(seed), np.uint64(purpose), np.uint64(first), np.array(at), out, control)  # fmt: skip
