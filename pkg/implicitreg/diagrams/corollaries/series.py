r"""Corollary 5: the mean test loss of SGD and of its two limits in continuous time, through eta³.

Indices are those of derivatives at theta0: :math:`G, H, J` of the population loss, :math:`C` the covariance and
:math:`S` the third central moment of one example's gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from implicitreg import _validate
from implicitreg.diagrams._values import smooth
from implicitreg.problems import FiniteProblem

__all__ = ["ode_series", "sde_series", "sgd_series"]


@dataclass(frozen=True)
class _Contractions:
    """The scalars of the three series; ``G_dC_H`` is G^l (d_l C_mn) H_mn."""

    loss: float
    GG: float
    GHG: float
    CH: float
    GHHG: float
    JGGG: float
    JCG: float
    CHH: float
    G_dC_H: float
    SJ: float


@_validate.in_range
def sgd_series(problem: FiniteProblem, T: int) -> np.ndarray:
    r"""Taylor coefficients in eta of the mean test loss of SGD after T steps on T fresh examples, one a step.

    .. math::

        \mathrm{E}\,\ell(\theta_T) = \ell &- \eta T\, G^2 + \eta^2 \Big[T(T - \tfrac12)\, GHG + \tfrac T2\, CH\Big]
        - \eta^3 \Big[\tfrac{T(T-1)(2T-1)}{3}\, GHHG + \tfrac{T(4T^2-3T+1)}{12}\, JGGG \\
        &+ \tfrac{T(3T-1)}{4}\, JCG + \tfrac{T(T-1)}{2} \big(CHH + \tfrac12 G^\lambda(\partial_\lambda C)H\big)
        + \tfrac T6\, SJ\Big] + O(\eta^4),

    with all indices contracted: :math:`JCG = J_{\mu\nu\lambda}C_{\mu\nu}G_\lambda`,
    :math:`CHH = C_{\mu\nu}H_{\mu\lambda}H_{\lambda\nu}`.

    Parameters
    ----------
    problem : FiniteProblem
        The distribution and the start theta0, where the derivatives are taken.
    T : int
        Steps, and examples.

    Returns
    -------
    ndarray (4,)
        Coefficients of 1, eta, eta², eta³.

    Raises
    ------
    ValueError, TypeError
        If T is no integer from 0, or ``problem`` is no FiniteProblem, or a derivative is not finite.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Theorem 1 and Corollary 5.

    Examples
    --------
    Curvature 1 or 3 from theta = 1: a step multiplies the loss by the mean 1 − 4 eta + 5 eta² of (1 − eta h)²:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> sgd_series(problem, 1)
    array([ 1., -4.,  5.,  0.])
    """
    at, T = _contractions(problem), _validate.integer("T", T, low=0)
    third = T * (T - 1) * (2 * T - 1) / 3 * at.GHHG + T * (4 * T**2 - 3 * T + 1) / 12 * at.JGGG
    third += T * (3 * T - 1) / 4 * at.JCG + T * (T - 1) / 2 * (at.CHH + at.G_dC_H / 2) + T / 6 * at.SJ
    return np.array([at.loss, -T * at.GG, T * (T - 0.5) * at.GHG + T / 2 * at.CH, 0 - third])


@_validate.in_range
def ode_series(problem: FiniteProblem, T: int) -> np.ndarray:
    r"""Taylor coefficients in eta of the test loss of gradient flow :math:`\theta' = -\nabla\ell` at time eta T.

    .. math:: \ell(\theta(\eta T)) = \ell - \eta T\, G^2 + \eta^2 T^2\, GHG
              - \eta^3 T^3 \Big[\tfrac23\, GHHG + \tfrac13\, JGGG\Big] + O(\eta^4) .

    Parameters, result, errors and notation are those of :func:`sgd_series`. SGD differs from it at eta² by
    :math:`\tfrac T2 (C_{\mu\nu} - G_\mu G_\nu) H_{\mu\nu}`.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 5 (corrected: the printed difference SGD − ODE lacks −(T/2) GHG).

    Examples
    --------
    Mean curvature 2 from theta = 1: the loss is exp(−4 eta T):

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> print(ode_series(problem, 3), 12**2 / 2, 12**3 / 6)
    [ 1. -12. 72. -288.] 72.0 288.0
    """
    at, T = _contractions(problem), _validate.integer("T", T, low=0)
    return np.array([at.loss, -T * at.GG, T**2 * at.GHG, 0 - T**3 * (2 * at.GHHG + at.JGGG) / 3])


@_validate.in_range
def sde_series(problem: FiniteProblem, T: int) -> np.ndarray:
    r"""Taylor coefficients in eta of the mean test loss of the stochastic differential equation of SGD at time eta T.

    The Itô equation :math:`d\theta = -\nabla\ell\, ds + \sqrt{\eta\, C(\theta)}\, dW` has the mean and covariance of
    SGD's steps. Its generator is :math:`-G\cdot\nabla + \tfrac\eta2 C:\nabla\nabla`, so that

    .. math:: \mathrm{E}\,\ell = \ell_{ODE} + \eta^2\, \tfrac T2\, CH
              - \eta^3\, \tfrac{T^2}{2} \Big[CHH + \tfrac12 G^\lambda(\partial_\lambda C)H + \tfrac32\, JCG\Big]
              + O(\eta^4),

    where :math:`\ell_{ODE}` is the series of :func:`ode_series`.

    Parameters, result, errors and notation are those of :func:`sgd_series`. SGD differs from it at eta² by
    :math:`-\tfrac T2\, GHG`, which is zero at a test minimum; there, at eta³, by
    :math:`\tfrac T2\, CHH - \tfrac T6\, SJ`.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 5 (corrected: the equation has the term (T/2) CH just as SGD has, and
    at eta³ the skewness is not the only difference).

    Examples
    --------
    Curvature 1 or 3 from theta = 1: C = theta², H = 2, and d(theta²)/ds = −4 theta² + eta theta² in the mean, so that
    the loss is exp((eta − 4) eta T):

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> print(sde_series(problem, 3), 12**2 / 2 + 3, -(12**3) / 6 - 12 * 3)
    [ 1. -12. 75. -324.] 75.0 -324.0
    """
    at, T = _contractions(problem), _validate.integer("T", T, low=0)
    ito = at.CHH + at.G_dC_H / 2 + 3 / 2 * at.JCG
    return ode_series(problem, T) + np.array([0, 0, T / 2 * at.CH, -(T**2) / 2 * ito])


def _contractions(problem: FiniteProblem) -> _Contractions:
    values, g, h, j = smooth(problem).derivatives(3)
    p = problem.probabilities
    G, H, J = (np.tensordot(p, x, 1) for x in (g, h, j))
    c = g - G
    C, HG = np.einsum("m,mi,mj->ij", p, c, c), H @ G
    G_dC = 2 * np.einsum("m,mki,mj,k->ij", p, h, c, G)  # not symmetric; contracted with H, which is
    S = np.einsum("m,mi,mj,mk->ijk", p, c, c, c)
    JG = J @ G
    sums = (p @ values, G @ G, G @ HG, (C * H).sum(), HG @ HG, G @ JG @ G)
    return _Contractions(*map(float, (*sums, (C * JG).sum(), (C * (H @ H)).sum(), (G_dC * H).sum(), (S * J).sum())))
