r"""Escape over a barrier in one dimension, where the kind of the noise matters to leading exponential order.

The chain is :math:`x_{t+1} = x_t - \eta\,(f'(x_t) + \sigma \bar z_t)`; a step takes the mean of b fresh noises z, and
the slope f' is a polynomial. As eta → 0 at fixed b, the logarithm of the mean number of steps until the chain leaves
the valley is, to leading order (Freidlin and Wentzell, for Markov chains),

.. math:: \log\mathbb E\,\tau \simeq \frac b\eta \int_{x_{\min}}^{x_{saddle}} s(x)\,dx, \qquad
          s\, f'(x) = \Lambda(s) = \log\mathbb E\,e^{-s\sigma z}, \quad s \ne 0 .

Gaussian noise has :math:`s = 2f'/\sigma^2` and thus the exponent :math:`2b\,\Delta f/(\eta\sigma^2)`. Other noise of
the same variance has another one; to leading order they agree where the slope is small beside :math:`\sigma`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from implicitreg.ensembles import particles
from implicitreg.ensembles._runs import MAX_UPDATES
from implicitreg.ensembles.particles import Landscape, Noise
from numpy.typing import ArrayLike
from scipy.optimize import brentq

__all__ = ["EscapeTimes", "exponent", "skewness_correction", "times"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)


@dataclass(frozen=True, eq=False)
class EscapeTimes:
    """When each run left; see :func:`times`.

    Attributes
    ----------
    steps : ndarray (R,) of int
        Steps until the exit, or all that were taken.
    escaped : ndarray (R,) of bool
        Whether the run left.
    """

    steps: np.ndarray
    escaped: np.ndarray
    __repr__ = brief

    @property
    def mean(self) -> float:
        """Mean number of steps of an exponential law: all steps taken over the number of exits; inf without exits."""
        return float(self.steps.sum() / self.escaped.sum()) if self.escaped.any() else math.inf

    @property
    def se(self) -> float:
        """Standard error of ``mean``: mean / √exits."""
        return self.mean / math.sqrt(self.escaped.sum()) if self.escaped.any() else math.inf


@_validate.in_range_or_infinite
def exponent(slope: ArrayLike, noise: Noise, start: float, saddle: float, eta: float, *, sigma: float = 1.0) -> float:
    r"""The leading logarithm of the mean number of steps from a minimum over a saddle.

    .. math:: \frac b\eta \int_{start}^{saddle} s(x)\,dx, \qquad s\,f'(x) = \log\mathbb E\,e^{-s\sigma z},

    with s of the sign of f'. It is infinite where the slope exceeds the strongest push that the noise can give.

    Parameters
    ----------
    slope : array_like
        The coefficients of the polynomial f', the constant first.
    noise : particles.Noise
        The law of z: ``particles.gaussian(b)`` or ``rademacher(b)``, of which a step takes the mean of b coordinates,
        or ``atoms(values, probabilities)`` for b = 1, of mean 0.
    start, saddle : float
        A minimum of f, and the saddle on the way out, on either side of it.
    eta : float
        The step size, positive.
    sigma : float
        The factor of the noise, positive.

    Returns
    -------
    float
        The exponent. As eta tends to 0 the logarithm of the mean number of steps, over the exponent, tends to 1 where
        the well is the only valley on its side of the top; deeper valleys beyond it make the wait longer.

    Raises
    ------
    ValueError
        If an argument is out of its range, the way is not uphill, the noise is not centred, or atoms have several
        columns.
    TypeError
        If an argument is not of its type.

    References
    ----------
    A sequel to Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, section 3, where the class of the
    noise is found not to be crucial for a quadratic loss.

    Examples
    --------
    Gaussian noise over a barrier of 1/10 (f' = (2/5)(x³ − x) from −1 to 0) with eta = 1/20: 2 (1/10) / (1/20)

    >>> well = [0.0, -0.4, 0.0, 0.4]
    >>> round(exponent(well, particles.gaussian(), -1.0, 0.0, 0.05), 12)
    4.0
    """
    polynomial, b, z, p, sigma = _arguments(slope, noise, sigma)
    eta = _validate.number("eta", eta, above=0)
    x, weights = _path(polynomial, start, saddle)
    at = polynomial(x)
    s = 2 * at / sigma**2 if z is None else np.array([_tilt(y, sigma * z, p) for y in at])
    return float(b / eta * weights @ s)


@_validate.in_range_or_infinite
def skewness_correction(
    slope: ArrayLike, noise: Noise, start: float, saddle: float, eta: float, *, sigma: float = 1.0
) -> float:
    r"""What the third moment of the noise adds to the exponent of Gaussian noise of the same variance, to first order.

    .. math:: \frac{b}{\eta}\,\frac{4\,\mathbb E z^3}{3\,\sigma^3\,(\mathbb E z^2)^3}
              \int_{start}^{saddle} f'(x)^2\,dx

    Skewness to the right makes the chain slower to escape to the right: a step goes *against* z.

    Parameters, conventions and errors are those of :func:`exponent`.

    Examples
    --------
    The two points 2 and −1/2 have variance 1 and third moment 3/2:

    >>> well, z = [0.0, -0.4, 0.0, 0.4], particles.atoms([2.0, -0.5], [0.2, 0.8])
    >>> print(round(skewness_correction(well, z, -1.0, 0.0, 0.05), 12), round(2 * 8 * 0.4**2 / 105 / 0.05, 12))
    0.487619047619 0.487619047619
    """
    polynomial, b, z, p, sigma = _arguments(slope, noise, sigma)
    eta = _validate.number("eta", eta, above=0)
    x, weights = _path(polynomial, start, saddle)
    skew = 0.0 if z is None else p @ z**3 / (p @ z**2) ** 3
    return float(b / eta * 4 * skew / (3 * sigma**3) * weights @ polynomial(x) ** 2)


def times(
    slope: ArrayLike, noise: Noise, start: float, out: float, eta: float, cap: int, runs: int, *, seed: int,
    sigma: float = 1.0, fast: bool | None = None, progress: bool | None = None,
) -> EscapeTimes:  # fmt: skip
    r"""Exit times of many runs of the chain, from `implicitreg.ensembles.particles`.

    .. math:: x_{t+1} = x_t - \eta\,(f'(x_t) + \sigma\bar z_t), \qquad
              \tau = \min\{t : x_t \text{ is at or beyond } out\}.

    Parameters
    ----------
    slope, noise, start, eta, sigma
        As in :func:`exponent`.
    out : float
        Where a run has left, on either side of the start; best well beyond the saddle.
    cap, runs : int
        The most steps of a run, and the runs.
    seed : int
        From 0 to 2^64 - 1.
    fast, progress : bool, optional
        As in `particles.sgd`.

    Returns
    -------
    EscapeTimes
        ``steps (R,)``, ``escaped (R,)``, ``mean`` and ``se``.

    Raises
    ------
    ValueError, TypeError
        As :func:`exponent`, and if ``out`` is the start or the chain diverges.

    Examples
    --------
    With no slope and z = ±1, two steps of 1 to the right need two times the sign −1:

    >>> t = times([0.0], particles.rademacher(), 0.0, 2.0, 1.0, 2, 4000, seed=0)
    >>> bool((t.steps == 2).all()), bool(abs(t.escaped.mean() - 1 / 4) < 0.03)
    (True, True)
    """
    polynomial, _, _, _, sigma = _arguments(slope, noise, sigma)
    eta = _validate.number("eta", eta, low=float(np.finfo(float).tiny))
    start, out = _validate.number("start", start), _validate.number("out", out)
    if out == start:
        raise ValueError(f"out = {out}: expected a point off the start")
    cap = _validate.integer("cap", cap, low=0, high=MAX_UPDATES)
    numbers = (out, math.copysign(1.0, out - start), 1 / eta, sigma, *polynomial.coef)
    chain = Landscape(_until_out, (start, 0.0), noise, parameters=numbers)
    final = particles.sgd(chain, eta, cap, runs, seed=seed, fast=fast, progress=progress).final
    beyond = (final[:, 0] - out) * numbers[1] >= 0
    return EscapeTimes(np.rint(final[:, 1]).astype(np.int64), beyond)


def _until_out(theta, x, parameters):
    """The chain, which stands still once it is out, and a second coordinate that counts its steps until then."""
    position, slope, noise = theta[0], 0.0, 0.0
    for k in range(len(parameters) - 1, 3, -1):
        slope = slope * position + parameters[k]
    for z in x:
        noise = noise + z
    inside = 1.0 * ((position - parameters[0]) * parameters[1] < 0)
    return inside * (slope + parameters[3] * noise / len(x)), -inside * parameters[2]


def _arguments(
    slope: ArrayLike, noise: Noise, sigma: float
) -> tuple[np.polynomial.Polynomial, int, np.ndarray | None, np.ndarray | None, float]:
    """The slope, b, the atoms of z and their probabilities (None for Gaussian noise), sigma."""
    polynomial = np.polynomial.Polynomial(_validate.vector("slope", slope))
    sigma = _validate.number("sigma", sigma, above=0)
    if not isinstance(noise, Noise):
        raise TypeError(f"noise = {noise!r}: expected gaussian(b), rademacher(b) or atoms(...) of particles")
    if noise.kind == "gaussian":
        return polynomial, noise.size, None, None, sigma
    if noise.kind == "rademacher":
        return polynomial, noise.size, np.array([-1.0, 1.0]), np.full(2, 0.5), sigma
    if noise.size != 1:
        raise ValueError(f"noise has atoms with {noise.size} columns: expected one, a batch of b = 1")
    z, p = noise.values[:, 0], noise.probabilities
    if abs(p @ z) > 1e-10 * np.abs(z).max():
        raise ValueError(f"noise has the mean {p @ z:.3g}: expected 0; a mean belongs to the slope")
    return polynomial, 1, z, p, sigma


def _path(polynomial: np.polynomial.Polynomial, start: float, saddle: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and (signed) weights from start to saddle, on which f rises."""
    start, saddle = _validate.number("start", start), _validate.number("saddle", saddle)
    half = (saddle - start) / 2
    x = start + half * (_NODES + 1)
    downhill = polynomial(x) * half <= 0
    if downhill.any():
        where = float(x[int(np.argmax(downhill))])
        raise ValueError(f"start = {start}, saddle = {saddle}: f does not rise at {where:.3g}; expected a way uphill")
    return x, half * _WEIGHTS


def _tilt(slope: float, z: np.ndarray, p: np.ndarray) -> float:
    """The s with the sign of the slope that solves s slope = log E exp(-s z); infinite where none does."""
    sign = math.copysign(1.0, slope)
    z, slope = z * sign, abs(slope)
    z = z - p @ z  # 0 but for rounding, which a slope may be as small as
    if slope >= -z.min() * (1 - 1e-14):  # or as good as equal, which rounding would turn into a huge number
        return sign * math.inf

    def excess(s: float) -> float:  # increases with s, from -slope at 0, to -min z - slope
        top = -s * z.min()
        if top > 1:
            return (top + math.log(p @ np.exp(-s * z - top))) / s - slope
        rise = -p @ (z * _beyond_linear(-s * z))  # (E exp(-s z) - 1) / s
        return (math.log1p(s * rise) / s if s * rise > 1e-18 else rise) - slope

    high = 2 * slope / (p @ z**2)
    while excess(high) < 0:
        high *= 2
    low = high / 2
    while excess(low) > 0:
        low /= 2
    return sign * float(brentq(excess, low, high, xtol=1e-15 * high, rtol=1e-14))


def _beyond_linear(u: np.ndarray) -> np.ndarray:
    """(exp(u) - 1 - u) / u, from its series where it would cancel."""
    series = u / 2 * (1 + u / 3 * (1 + u / 4 * (1 + u / 5 * (1 + u / 6))))
    small = np.abs(u) < 1e-3
    return np.where(small, series, (np.expm1(u) - u) / np.where(small, 1, u))
