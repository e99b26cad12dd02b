r"""Cumulants beyond the covariance: what distinguishes kinds of noise whose covariances agree.

For a direction u the noise of the gradient is :math:`\sum_i a_i (W_i - \frac1n)` with :math:`a_i = u^\top g_i`. All its
cumulants here are exact; nothing is sampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from implicitreg import _validate
from implicitreg.noise.sampling import _checked_sizes, _coefficients
from numpy.typing import ArrayLike

__all__ = ["Cumulants", "cumulants", "third_cumulant"]

SMALLEST, LARGEST = 1e-70, 1e70  # of values


MAX_CUBE = 1000  # rows of a tensor of third order: 8 GB


@dataclass(frozen=True)
class Cumulants:
    """The second, third and fourth cumulant; see :func:`cumulants`."""

    second: float
    third: float
    fourth: float

    @property
    def skewness(self) -> float:
        """third / second^(3/2), NaN where there is no noise."""
        return self.third / self.second**1.5 if self.second > 0 else math.nan

    @property
    def excess_kurtosis(self) -> float:
        """fourth / second², NaN where there is no noise."""
        return self.fourth / self.second**2 if self.second > 0 else math.nan


@_validate.in_range_or_infinite
def cumulants(kind: str, values: ArrayLike, b: int, *, B: int | None = None) -> Cumulants:
    r"""Cumulants of the gradient noise in a direction.

    With :math:`p_k = \frac1n\sum_i (a_i - \bar a)^k` and :math:`P_k = \frac1n\sum_i a_i^k`, and :math:`p = b/n`:

    =====================  =====================================  ===========================  =============================
    kind                   second                                 third                        fourth
    =====================  =====================================  ===========================  =============================
    ``sgd``                p₂/b                                   p₃/b²                        (p₄ − 3p₂²)/b³
    without replacement    p₂ (n − b)/(b(n − 1))                  p₃ (n − b)(n − 2b) /         from inclusion probabilities
                                                                  (b²(n − 1)(n − 2))
    ``gaussian_*``         p₂/b (cov), P₂/b (fisher)              0                            0
    ``bernoulli``          P₂ (1 − p)/b                           P₃ (1 − p)(1 − 2p)/b²        P₄ (1 − p)(1 − 6p(1 − p))/b³
    ``binomial``           as ``bernoulli`` with 1/n for p
    ``rademacher``         p₂/b                                   0                            −2p₄/(nb²)
    ``student_t``          p₂/b                                   0                            infinite
    ``sparse_*``           P₂/b (fisher), p₂/b (cov)              0                            3 Var(variance given S)
    =====================  =====================================  ===========================  =============================

    Parameters
    ----------
    kind, b, B
        As in :func:`implicitreg.noise.sampling.draw`.
    values : array_like (n,)
        The examples' gradients in the direction, :math:`u^\top G`.

    Returns
    -------
    Cumulants
        ``second``, ``third``, ``fourth``, and ``skewness`` and ``excess_kurtosis``.

    Raises
    ------
    ValueError, TypeError
        As :func:`implicitreg.noise.sampling.draw`, and if the values are no finite vector.

    References
    ----------
    A sequel to Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, section 2.1.

    Examples
    --------
    One of the examples 1 and 3: a fair coin, which has the excess kurtosis −2:

    >>> at = cumulants("sgd", [1.0, 3.0], 1)
    >>> print(at.second, at.skewness, at.excess_kurtosis)
    1.0 0.0 -2.0
    """  # noqa: E501
    a = _validate.vector("values", values)
    n, b, B = _checked_sizes(kind, a.size, b, B)
    a = _relevant(kind, a)
    size = np.abs(a).max()
    if size and not SMALLEST < size < LARGEST:
        raise ValueError(f"values are of size {size:.3g} (less their mean, where it does not count): expected sizes "
                         f"between {SMALLEST:g} and {LARGEST:g}, whose fourth powers are floats")  # fmt: skip
    alpha, beta = _coefficients(kind, n, b)
    second = alpha * (a @ a) + beta * a.sum() ** 2 / n
    return Cumulants(float(second), float(_third(kind, n, b) * (a**3).sum()), float(_fourth(kind, a, b, B)))


@_validate.in_range
def third_cumulant(kind: str, G: ArrayLike, b: int, *, B: int | None = None) -> np.ndarray:
    r"""The third cumulant of the gradient noise, a symmetric tensor.

    .. math:: \kappa_3 = \mathbb E\big[(GW - g)^{\otimes 3}\big],

    which is :math:`\frac{1}{b^2}\frac1n\sum_i (g_i - g)^{\otimes3}` for ``"sgd"`` and 0 for the symmetric kinds.
    Kinds of equal covariance change the mean loss equally in one step through eta²; at the next order they differ, by
    :math:`-\frac{\eta^3}{6}\nabla^3 L[\kappa_3]`.

    Parameters
    ----------
    G : array_like (d, n)
        The examples' gradients, as columns.
    kind, b, B
        As in :func:`implicitreg.noise.sampling.draw`.

    Returns
    -------
    ndarray (d, d, d)

    Raises
    ------
    ValueError, TypeError
        As :func:`implicitreg.noise.sampling.draw`, and if G is no finite matrix.

    Examples
    --------
    One of the gradients 0, 0, 3 with mean 1: (−1 − 1 + 8)/3:

    >>> print(third_cumulant("sgd", [[0.0, 0.0, 3.0]], 1), third_cumulant("gaussian_cov", [[0.0, 0.0, 3.0]], 1))
    [[[2.]]] [[[0.]]]
    """
    G = _validate.matrix("G", G)
    _validate.integer("the rows of G", len(G), high=MAX_CUBE)
    n, b, B = _checked_sizes(kind, G.shape[1], b, B)
    a = _relevant(kind, G)
    return _third(kind, n, b) * np.einsum("in,jn,kn->ijk", a, a, a, optimize=True)


def _relevant(kind: str, a: np.ndarray) -> np.ndarray:
    """What the noise sees of the values: their deviations from the mean, where the weights always sum to 1."""
    raw = kind in ("gaussian_fisher", "sparse_fisher", "bernoulli", "binomial")
    return a if raw else a - a.mean(-1, keepdims=True)


def _included(n: int, b: int, k: int) -> float:
    """The probability that k given examples are all in a uniform subset of size b."""
    return math.perm(b, k) / math.perm(n, k) if k <= n else 0.0


def _third(kind: str, n: int, b: int) -> float:
    """The third cumulant is this number times the sum of the cubes of the relevant values."""
    if kind == "sgd":
        return 1 / (n * b**2)
    if kind == "sgd_without_replacement":  # sums over different indices of deviations, by power sums
        one, two, three = (_included(n, b, k) for k in (1, 2, 3))
        return (one - 3 * two + 2 * three) / b**3
    if kind in ("bernoulli", "binomial"):
        p = b / n if kind == "bernoulli" else 1 / n
        return (1 - p) * (1 - 2 * p) / (n * b**2)
    return 0.0


def _fourth(kind: str, a: np.ndarray, b: int, B: int | None) -> float:
    n, P2, P4 = a.size, (a**2).sum(), (a**4).sum()
    if kind == "sgd":
        return (P4 / n - 3 * (P2 / n) ** 2) / b**3
    if kind in ("bernoulli", "binomial"):
        p = b / n if kind == "bernoulli" else 1 / n
        return P4 * (1 - p) * (1 - 6 * p * (1 - p)) / (n * b**3)
    if kind == "rademacher":
        return -2 * P4 / (b * n) ** 2
    if kind == "student_t":
        return math.inf if P4 > 0 else 0.0
    if kind == "sgd_without_replacement":
        sums = _subset_sums(a, b)
        return (sums["TTTT"] - 3 * sums["TT"] ** 2) / b**4
    if kind == "sparse_fisher":
        sums = _subset_sums(a, B)
        return 3 * (sums["AA"] - sums["A"] ** 2) / (b * B) ** 2
    if kind == "sparse_cov":
        sums, scale = _subset_sums(a, B), (n - 1) / (b * n * (B - 1))
        mean = sums["A"] - sums["TT"] / B  # of the sum of squares about the mean of S
        square = sums["AA"] - 2 * sums["ATT"] / B + sums["TTTT"] / B**2
        return 3 * scale**2 * (square - mean**2)
    return 0.0


def _subset_sums(a: np.ndarray, B: int) -> dict[str, float]:
    """Means over uniform subsets S of size B of products of A, the sum of a² over S, and T, the sum of a over S.

    Those with T need values that sum to zero. Sums over different indices are written in power sums.
    """
    one, two, three, four = (_included(a.size, B, k) for k in (1, 2, 3, 4))
    P2, P4 = (a**2).sum(), (a**4).sum()
    pairs, triples, quadruples = P2**2 - P4, 2 * P4 - P2**2, 3 * P2**2 - 6 * P4  # a²a'², a²a'a'', aa'a''a'''
    return {
        "A": one * P2,
        "AA": one * P4 + two * pairs,
        "TT": (one - two) * P2,
        "ATT": one * P4 + two * (pairs - 2 * P4) + three * triples,
        "TTTT": one * P4 + two * (3 * pairs - 4 * P4) + 6 * three * triples + four * quadruples,
    }
