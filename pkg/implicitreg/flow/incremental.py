r"""Incremental learning and early stopping in diagonal networks: the closed forms.

For orthonormal inputs every coordinate is a problem of its own. With the target :math:`w^* > 0`, L layers and the
weight :math:`w = u^L`, gradient flow of :math:`\tfrac12(w^* - w)^2` in u from :math:`u = \alpha` is

.. math:: \dot w = L^2w^{2 - 2/L}(w^* - w), \qquad w(0) = \alpha^L .

A weight stays near zero for a time of order :math:`\log(1/\alpha)/w^*` (L = 2) or :math:`1/(w^*\alpha^{L-2})`
(:math:`L \ge 3`), and then rises to its target within a time that hardly depends on alpha. In general the rate is
set by the inner product of the weight's column with the residual, not by the weight's own target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from implicitreg import _validate
from numpy.typing import ArrayLike
from scipy.optimize import brentq

__all__ = [
    "activation_time",
    "crossing_times",
    "depth_separation",
    "first_activation_time",
    "thresholding_time",
    "toy_path",
]

DEEPEST = 4  # the primitive of 1/(w^(2 - 2/L) (w* - w)) is written out up to here


def _clock(log_odds: np.ndarray | float, target: float, depth: int) -> np.ndarray:
    """A primitive of dt/dw at the weight w with the given log w/(w* - w): differences of it are times."""
    log_odds = np.asarray(log_odds, dtype=float)
    log_share, log_rest = -np.logaddexp(0, -log_odds), -np.logaddexp(0, log_odds)  # of w/w* and 1 - w/w*
    if depth == 1:
        return -log_rest
    if depth == 2:
        return log_odds / (4 * target)
    x = np.exp(log_share / depth * (depth - 2))  # (w/w*)^(1 - 2/L)
    if depth == 4:
        return (-1 / x + (2 * np.log1p(x) - log_rest) / 2) / (8 * target**1.5)
    log_cubic = np.log(x * x + x + 1)
    log_linear = log_rest - log_cubic  # 1 - x^3 = (1 - x)(1 + x + x^2)
    bracket = -1 / x - log_linear / 3 + log_cubic / 6 - np.arctan((2 * x + 1) / np.sqrt(3)) / np.sqrt(3)
    return bracket / (3 * target ** (4 / 3))


def _start(target: float, alpha: float, depth: int) -> tuple[float, float, int, float]:
    depth = _validate.integer("depth", depth, low=1, high=DEEPEST)
    target = _validate.number("target", target, above=0)
    alpha = _validate.number("alpha", alpha, above=0)
    log_share = depth * np.log(alpha) - np.log(target)
    if log_share >= 0:
        raise ValueError(f"alpha = {alpha:g}: expected alpha^{depth} below the target {target:g}")
    return target, alpha, depth, _log_odds(log_share)


def _log_odds(log_share: float) -> float:
    return float(log_share - np.log(-np.expm1(log_share)))


@_validate.in_range
def activation_time(target: float, alpha: float, depth: int = 2, fraction: float = 0.5) -> float:
    r"""The time at which a lone weight of a network of depth 1 to 4 reaches a fraction of its target.

    With :math:`w(0) = \alpha^L` and the fraction f:

    .. math:: T = \log\frac{w^* - \alpha}{w^*(1 - f)} \ (L = 1), \qquad
              T = \frac1{4w^*}\Big[\log\frac f{1 - f} + \log\Big(\frac{w^*}{\alpha^2} - 1\Big)\Big] \ (L = 2),

    and :math:`T = F(fw^*) - F(\alpha^L)` for :math:`L = 3, 4`, where, with :math:`x = w^{1/3}`, :math:`b = w^{*1/3}`,

    .. math:: F_3 = \frac1{3b^3}\Big[-\frac1x - \frac{\log(b - x)}{3b} + \frac{\log(x^2 + bx + b^2)}{6b}
              - \frac1{\sqrt3b}\arctan\frac{2x + b}{\sqrt3b}\Big], \qquad
              F_4 = \frac18\Big[-\frac1{w^*\sqrt w} + \frac{\operatorname{artanh}\sqrt{w/w^*}}{w^{*3/2}}\Big] .

    Parameters
    ----------
    target : float
        :math:`w^* > 0`.
    alpha : float
        Scale > 0 of the initial weights, :math:`\alpha^L < w^*`.
    depth : int, optional
        Number of layers L, 1 to 4.
    fraction : float, optional
        :math:`0 < f < 1`, at least :math:`\alpha^L/w^*`.

    Returns
    -------
    float
        Time of the flow of :math:`\tfrac12(w^* - w)^2`.

    Raises
    ------
    ValueError
        If an argument is out of range, or the weight starts above the fraction.
    TypeError
        If an argument is not a number, or ``depth`` is not an integer.

    Notes
    -----
    As :math:`\alpha \to 0`, :math:`T \sim \log(1/\alpha^2)/(4w^*)` at depth 2 and
    :math:`T \sim 1/(L(L-2)w^*\alpha^{L-2})` at depth :math:`L \ge 3`: the ratio of the times of two targets is the
    inverse ratio of the targets, while the duration of the rise stays bounded. At depth 1, T does not depend on
    :math:`w^*` in this limit.

    References
    ----------
    Gissin, Shalev-Shwartz and Daniely, The implicit bias of depth: how incremental learning drives generalization,
    2020; Hegde, Foundations of Deep Learning, ch. 7 (cites it).

    Examples
    --------
    >>> round(float(np.exp(4 * activation_time(1.0, 0.5))), 12)  # odds from 1/3 to 1 on a logistic curve
    3.0
    """
    target, alpha, depth, start = _start(target, alpha, depth)
    fraction = _validate.number("fraction", fraction, above=0, below=1)
    stop = _log_odds(np.log(fraction))
    if stop < start:
        raise ValueError(f"fraction = {fraction:g}: expected at least alpha^{depth}/target, where the weight starts")
    return float(_clock(stop, target, depth) - _clock(start, target, depth))


@_validate.in_range
def toy_path(t: Sequence[float] | np.ndarray, target: float, alpha: float, depth: int = 2) -> np.ndarray:
    r"""A lone weight of a network of depth 1 to 4, in closed form, at the times ``t``.

    .. math:: w = w^* - (w^* - \alpha)e^{-t} \ (L = 1), \qquad
              w = \frac{w^*\alpha^2e^{4w^*t}}{w^* + \alpha^2(e^{4w^*t} - 1)} \ (L = 2),

    and the inverse of the function F of :func:`activation_time` for L = 3, 4.

    Parameters
    ----------
    t : (T,) sequence
        Times >= 0 of the flow of :math:`\tfrac12(w^* - w)^2`.
    target : float
        :math:`w^* > 0`.
    alpha : float
        Scale > 0 of the initial weights, :math:`\alpha^L < w^*`.
    depth : int, optional
        Number of layers L, 1 to 4.

    Returns
    -------
    (T,) array

    Raises
    ------
    ValueError
        If an argument is out of range or a time negative.
    TypeError
        If an argument is not numeric, or ``depth`` is not an integer.

    References
    ----------
    Gissin, Shalev-Shwartz and Daniely, The implicit bias of depth: how incremental learning drives generalization,
    2020.

    Examples
    --------
    >>> toy_path([0.0, np.log(3) / 4], 1.0, 0.5).round(12)
    array([0.25, 0.5 ])
    """
    t = _validate.vector("t", t)
    if (t < 0).any():
        raise ValueError(f"t[{int(np.argmin(t))}] = {t.min():g}: expected times >= 0")
    target, alpha, depth, start = _start(target, alpha, depth)
    if depth == 1:
        return target - (target - alpha) * np.exp(-t)
    return target / (1 + np.exp(-np.minimum(_odds_after(t, target, depth, start), 700)))


def _odds_after(t: np.ndarray, target: float, depth: int, start: float) -> np.ndarray:
    """log w/(w* - w) at the times t, L >= 2; it grows at the rate L^2 w^(1 - 2/L) w*, at most L^2 w*^(2 - 2/L)."""
    if depth == 2:
        return start + 4 * target * t
    origin, fastest = _clock(start, target, depth), depth**2 * target ** (2 - 2 / depth)
    return np.array(
        [
            brentq(
                lambda o, s=s: float(_clock(o, target, depth) - origin) - s, start, start + fastest * s + 1, xtol=1e-14
            )
            for s in t
        ]
    )


@_validate.in_range
def depth_separation(
    sigma1: float, sigma2: float, depth: int, learned: float = 0.75, unlearned: float = 0.25
) -> float:  # fmt: skip
    r"""The largest initial weight from which two modes are learned one after the other.

    The supremum of the :math:`\sigma_0`, the same w(0) for both, such that the mode with the target :math:`\sigma_1`
    reaches the fraction ``learned`` before that with the target :math:`\sigma_2 < \sigma_1` reaches ``unlearned``. As
    :math:`r = \sigma_1/\sigma_2 \to 1` it vanishes, at depth 2 exponentially fast in :math:`1/(r-1)`:

    .. math:: \sigma_0 \approx \Big[\Big(\frac{s\sigma_2}{1 - s}\Big)^r\frac{1 - f}{f\sigma_1}\Big]^{1/(r-1)},
              \qquad f = \text{learned}, \quad s = \text{unlearned} .

    Parameters
    ----------
    sigma1, sigma2 : float
        Targets, :math:`\sigma_1 > \sigma_2 > 0`.
    depth : int
        Number of layers L, 1 to 4.
    learned, unlearned : float, optional
        Fractions, ``0 < unlearned <= learned < 1``.

    Returns
    -------
    float
        The threshold; 0 where there is none, as always at depth 1.

    Raises
    ------
    ValueError
        If an argument is out of range.
    TypeError
        If an argument is not a number, or ``depth`` is not an integer.

    Notes
    -----
    The root of the exact difference of the two :func:`activation_time`; the formula above drops :math:`\sigma_0` beside
    the targets. At depth 1 both modes rise at the same rate: from :math:`\sigma_0 = 0` the times are
    :math:`\log\frac1{1 - f} \ge \log\frac1{1 - s}` whatever the targets. A threshold below the smallest normal number,
    2e-308, comes back as 0.

    References
    ----------
    Gissin, Shalev-Shwartz and Daniely, The implicit bias of depth: how incremental learning drives generalization,
    2020.

    Examples
    --------
    >>> [f"{depth_separation(2.0, 1.0, depth):.3g}" for depth in (1, 2, 3, 4)]
    ['0', '0.018', '0.0627', '0.0833']
    """
    depth = _validate.integer("depth", depth, low=1, high=DEEPEST)
    sigma2 = _validate.number("sigma2", sigma2, above=0)
    sigma1 = _validate.number("sigma1", sigma1, above=sigma2)
    learned = _validate.number("learned", learned, above=0, below=1)
    unlearned = _validate.number("unlearned", unlearned, above=0, high=learned)

    def lead(log_start: float) -> float:
        times = (
            _clock(_log_odds(np.log(fraction)), sigma, depth)
            - _clock(_log_odds(log_start - np.log(sigma)), sigma, depth)
            for sigma, fraction in ((sigma2, unlearned), (sigma1, learned))
        )
        return float(np.subtract(*times))

    least, most = np.log(np.finfo(float).tiny), np.log(unlearned * sigma2)
    if depth == 1 or lead(least) <= 0:
        return 0.0
    return float(np.exp(brentq(lead, least, most, xtol=1e-14)))


def first_activation_time(X: ArrayLike, y: ArrayLike, alpha: float) -> float:
    r"""When the first weight of a signed two-layer network leaves the neighbourhood of zero, for small alpha.

    .. math:: T_1 \simeq \frac{\log(1/\alpha^2)}{4\max_j|x_j\cdot y|},

    :math:`x_j` the columns of X: while :math:`w \approx 0`, :math:`X^\top\lambda = 4tX^\top y`, and :math:`w_j` is of
    order one when this reaches :math:`\log(1/\alpha^2)`.

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    alpha : float
        Scale of the initial weights, 0 < alpha < 1.

    Returns
    -------
    float
        Time of the flow of :math:`\tfrac12\|y - Xw\|^2` (a sum, no 1/n); infinite if :math:`X^\top y = 0`.

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, or alpha is not between 0 and 1.
    TypeError
        If an argument is not numeric.

    Notes
    -----
    The weight that wins is the one whose column has the largest inner product with y in absolute value. Neither the
    target nor the correlation (the cosine, which forgets the length of the column) decides; all three agree for
    orthogonal columns of equal norm. The relative error is of order :math:`1/\log(1/\alpha)`.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7 ("rich-get-richer", and the order of magnitude, approximately). Berthier,
    Incremental learning in diagonal linear networks, 2023; Pesme and Flammarion, Saddle-to-saddle dynamics in diagonal
    linear networks, 2023 (the whole sequence).

    Examples
    --------
    >>> round(first_activation_time([[1.0, 0.0], [0.0, 1.0]], [1.0, -2.0], np.exp(-4)), 12)  # 8/(4 * 2)
    1.0
    """
    X, y = _validate.data(X, y)
    alpha = _validate.number("alpha", alpha, above=0, below=1)
    with np.errstate(over="ignore", invalid="ignore"):
        rate = float(np.abs(X.T @ y).max())
    if not np.isfinite(rate):
        raise ValueError(f"X, y up to {np.abs(X).max():.3g}, {np.abs(y).max():.3g}: float64 does not hold X'y")
    return -2 * float(np.log(alpha)) / (4 * rate) if rate > 0 else float("inf")


def crossing_times(t: Sequence[float] | np.ndarray, path: ArrayLike, level: ArrayLike) -> np.ndarray:
    r"""When each weight of a sampled path first reaches a level in absolute value, by linear interpolation.

    Parameters
    ----------
    t : (T,) sequence
        Increasing times.
    path : (T, d) array
        Weights at these times, as :func:`implicitreg.flow.diagonal.trajectory` returns them.
    level : (d,) array
        Positive levels, for instance half of the final absolute values.

    Returns
    -------
    (d,) array
        Times; infinite where the level is never reached, ``t[0]`` where it is exceeded from the start.

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, the times do not increase, or a level is not positive.
    TypeError
        If an argument is not numeric.

    Examples
    --------
    >>> crossing_times([0.0, 1.0, 2.0], [[0.0, 0.0], [1.0, 0.0], [4.0, -1.0]], [2.5, 0.5])
    array([1.5, 1.5])
    """
    t = _validate.vector("t", t)
    if (np.diff(t) <= 0).any():
        raise ValueError(f"t = {t}: expected increasing times")
    W = np.abs(_validate.matrix("path", path, rows=t.size))
    level = _validate.vector("level", level, size=W.shape[1])
    if (level <= 0).any():
        raise ValueError(f"level[{int(np.argmin(level))}] = {level.min():g}: expected positive levels")
    reached = level <= W
    times = np.full(level.size, np.inf)
    for j in np.flatnonzero(reached.any(axis=0)):
        k = int(np.argmax(reached[:, j]))
        times[j] = t[0] if k == 0 else np.interp(level[j], W[k - 1 : k + 1, j], t[k - 1 : k + 1])
    return times


def thresholding_time(tau: float, alpha: float, depth: int = 2) -> float:
    r"""When to stop a signed network so that, for orthonormal columns, it thresholds :math:`\theta = X^\top y` at tau.

    .. math:: t = \frac{\log(1/\alpha^2)}{4\tau} \ (L = 2), \qquad t = \frac1{L(L-2)\tau\alpha^{L-2}} \ (L \ge 3) .

    Parameters
    ----------
    tau : float
        Threshold > 0.
    alpha : float
        Scale of the initial weights, 0 < alpha < 1.
    depth : int, optional
        Number of layers L >= 2.

    Returns
    -------
    float
        Time of the flow of :math:`\tfrac12\|y - Xw\|^2` (a sum, no 1/n); infinite where float64 overflows.

    Raises
    ------
    ValueError
        If an argument is out of range.
    TypeError
        If an argument is not a number, or ``depth`` is not an integer.

    Notes
    -----
    At depth 2 and for :math:`X^\top X = I`, with :math:`w` at this time,

    .. math:: |\theta_j| \le \tau &\Rightarrow |w_j| \le \alpha^{2(1 - |\theta_j|/\tau)}, \\
              |\theta_j| > \max(\tau, \alpha^2) &\Rightarrow
              |w_j - \theta_j| \le \theta_j^2\alpha^{2(|\theta_j|/\tau - 1)} + \alpha^2 :

    hard thresholding, up to a band of relative width :math:`1/\log(1/\alpha)` about tau, and no shrinkage. Proof: let
    :math:`\theta_j > 0`. Then :math:`0 \le w_j \le \theta_j`, so the argument in :math:`w_j = 2\alpha^2\sinh` is at
    most :math:`4\theta_jt`; and :math:`u_j^2` is above the logistic solution of :math:`\dot w = 4w(\theta_j - w)`,
    since :math:`w_j \le u_j^2`, while :math:`v_j^2 \le \alpha^2`.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, remark on noise and early stopping. Li, Nguyen, Hegde and Wong, Implicit
    sparse regularization: the impact of depth and early stopping, 2021.

    Examples
    --------
    >>> round(thresholding_time(0.5, np.exp(-3)), 12)  # 6/(4 * 0.5)
    3.0
    >>> round(thresholding_time(0.5, 0.1, depth=3), 12)  # 1/(3 * 0.5 * 0.1)
    6.666666666667
    """
    tau = _validate.number("tau", tau, above=0)
    alpha = _validate.number("alpha", alpha, above=0, below=1)
    depth = _validate.integer("depth", depth, low=2)
    if depth == 2:
        return -2 * float(np.log(alpha)) / (4 * tau)
    with np.errstate(over="ignore"):  # infinite where it overflows
        return float(np.exp((2 - depth) * np.log(alpha) - math.log(depth * (depth - 2)) - np.log(tau)))
