"""The gap of Corollary 2 as a penalty: smooth in a ridge coefficient, so that descent can tune it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from implicitreg.diagrams.corollaries import _spectra
from implicitreg.diagrams.corollaries.curvature import overfitting
from numpy.typing import ArrayLike

__all__ = ["GapPenalty", "RidgePath", "gap_penalty", "tune_ridge"]

MAX_NUMBERS = 1_000_000  # steps times parameters of `tune_ridge`: some minutes for one parameter


@dataclass(frozen=True)
class GapPenalty:
    """The mean gap, and its derivative in the ridge coefficient; see :func:`gap_penalty`."""

    value: float
    slope: float


@dataclass(frozen=True, eq=False)
class RidgePath:
    """``theta (T + 1, d)`` and ``lam (T + 1,)`` along one descent; see :func:`tune_ridge`."""

    theta: np.ndarray
    lam: np.ndarray
    __repr__ = brief


@_validate.in_range
def gap_penalty(C: ArrayLike, H: ArrayLike, lam: float, eta: float, T: int | None, N: int) -> GapPenalty:
    r"""The mean gap after T steps of gradient descent with the ridge term :math:`\tfrac\lambda2|\theta|^2`.

    .. math:: R(\lambda) = \frac1N \operatorname{tr}\Big[C\, \frac{I - (I - \eta(H + \lambda))^T}{H + \lambda}\Big],
              \qquad R'(\lambda) = -\frac{\eta^2}{N} \operatorname{tr}\Big[C \sum_{t<T} t\,
              (I - \eta (H + \lambda))^{t-1}\Big] .

    If all examples have the Hessian H, this is exact from every start: the gap is the mean of minus noise times theta,
    and theta responds to the noise through :math:`H + \lambda` alone. At T = None and lambda = 0 it is Takeuchi's
    :math:`\operatorname{tr}(CH^{-1})/N`, and Akaike's d/N if C = H. It may be differentiated in whatever C and H depend
    on; here the derivative in lambda is given. The source has :math:`e^{-\eta T(H + \lambda)}` for the power, its limit
    for small steps.

    Parameters
    ----------
    C, H : array_like (d, d)
        Covariance of one example's gradient, Hessian of the loss without the ridge term (no negative eigenvalue).
    lam : float
        The ridge coefficient, at least 0.
    eta : float
        The step size, positive.
    T : int or None
        Steps; None for the limit, which needs :math:`\eta (H + \lambda) < 2` and no noise where H + lambda is zero.
    N : int
        Training examples.

    Returns
    -------
    GapPenalty
        ``value`` and ``slope``.

    Raises
    ------
    ValueError, TypeError
        As for :func:`~implicitreg.diagrams.corollaries.curvature.overfitting`, and if lam is negative.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 2 and the section on Takeuchi's criterion.

    Examples
    --------
    In the limit C/(N (h + lambda)), with the slope −C/(N (h + lambda)²):

    >>> gap_penalty([[4.0]], [[1.0]], 1.0, 0.25, None, 2)
    GapPenalty(value=1.0, slope=-0.5)
    """
    lam, eta = _validate.number("lam", lam, low=0), _validate.number("eta", eta, above=0)
    c, h, _ = _spectrum(C, H)
    value = overfitting(C, np.asarray(H) + lam * np.eye(h.size), eta, T, N).gap
    slope = _slope(c, h + lam, eta, T, N)
    if not np.isfinite(slope):
        raise ValueError(f"eta = {eta:g}: the powers of I - eta H overflow by step {T}; expected a smaller step")
    return GapPenalty(value, slope)


@_validate.in_range
def tune_ridge(
    C: ArrayLike, H: ArrayLike, minimum: ArrayLike, noise: ArrayLike, eta: float, T: int, N: int
) -> RidgePath:
    r"""Gradient descent on theta *and* on a ridge coefficient, with the gap as penalty.

    One training set: its loss is that of the population plus noise, and descent is on

    .. math:: U(\theta, \lambda) = \tfrac12 (\theta - \theta_*)^\top H (\theta - \theta_*) + \xi\cdot\theta
              + \tfrac\lambda2 |\theta|^2 + R(\lambda),

    with :math:`R` of :func:`gap_penalty` at horizon T, from theta = 0 and lambda = 0, both with step eta, lambda kept
    at least 0.

    Parameters
    ----------
    C, H : array_like (d, d)
        Covariance of one example's gradient, Hessian of every example.
    minimum : array_like (d,)
        The test minimum :math:`\theta_*`.
    noise : array_like (d,)
        :math:`\xi`, the mean over the N training examples of gradient minus mean gradient; its covariance is C/N.
    eta : float
        The step size, positive.
    T, N : int
        Steps, training examples.

    Returns
    -------
    RidgePath
        ``theta (T + 1, d)`` and ``lam (T + 1,)``.

    Raises
    ------
    ValueError
        If an argument has a wrong shape or is out of its range, a matrix is not symmetric or has a negative eigenvalue,
        or the descent overflows.
    TypeError
        If an argument is not of its type.

    Notes
    -----
    What this descent selects is a threshold rather than the best lambda. In one dimension with theta settled, the slope
    in lambda is :math:`\big[\tfrac12 (h\theta_* - \xi)^2 - C/N\big]/(h + \lambda)^2` for large T: its sign does not
    depend on lambda, so that lambda goes to 0 or grows for as long as descent lasts, as Akaike's criterion keeps a
    parameter or drops it. Where the data say little (h small against C/N) growing is right, and the test loss comes
    close to the best that a constant lambda reaches; where they say more, no ridge at all may be the better choice.

    References
    ----------
    Tenka, SGD at Small Learning Rates, the section on Takeuchi's criterion (regularized mean estimation).

    Examples
    --------
    Without noise there is nothing to tune: descent to 3, and lambda stays at 0:

    >>> path = tune_ridge([[0.0]], [[1.0]], [3.0], [0.0], 0.5, 60, 10)
    >>> print(path.theta[-1], path.lam[-1])
    [3.] 0.0
    """
    c, h, U = _spectrum(C, H)
    eta = _validate.number("eta", eta, above=0)
    T, N = _validate.integer("T", T, low=0, high=MAX_NUMBERS // h.size), _validate.integer("N", N, low=1)
    force = h * (U.T @ _validate.vector("minimum", minimum, size=h.size))
    force -= U.T @ _validate.vector("noise", noise, size=h.size)
    theta, lam = np.zeros((T + 1, h.size)), np.zeros(T + 1)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported by name
        for t in range(T):
            theta[t + 1] = theta[t] - eta * ((h + lam[t]) * theta[t] - force)
            slope = theta[t] @ theta[t] / 2 + _slope(c, h + lam[t], eta, T, N)
            lam[t + 1] = np.maximum(lam[t] - eta * slope, 0)
            if not np.isfinite([*theta[t + 1], lam[t + 1]]).all():
                raise ValueError(f"eta = {eta:g}: the descent overflows by step {t + 1}; expected a smaller step")
    return RidgePath(theta @ U.T, lam)


def _spectrum(C: ArrayLike, H: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The diagonal of C in the eigenbasis of H, the eigenvalues, the eigenvectors."""
    h, U = _spectra.eigenbasis(H)
    return np.einsum("im,ij,jm->m", U, _spectra.covariance(C, size=h.size), U), h, U


def _slope(c: np.ndarray, h: np.ndarray, eta: float, T: int | None, N: int) -> float:
    """The derivative of the gap in a shift of all eigenvalues h of the Hessian."""
    if T is None:
        terms = np.divide(c, h * h, out=np.zeros_like(h), where=h > 0)
    else:
        terms = eta**2 * c * _spectra.power_difference(T, 1 - eta * h, 1 - eta * h)
    return -float(terms.sum()) / N
