"""Corollary 2: how much gradient descent overfits, and which curvature overfits most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from implicitreg import _validate
from implicitreg.diagrams.corollaries import _spectra
from numpy.typing import ArrayLike
from scipy.optimize import brentq

__all__ = ["Overfitting", "overfitting", "worst_curvature"]


@dataclass(frozen=True)
class Overfitting:
    """Mean rise of the test loss, and mean generalization gap (test minus training loss); see :func:`overfitting`."""

    overfit: float
    gap: float


@_validate.in_range
def overfitting(C: ArrayLike, H: ArrayLike, eta: float | ArrayLike, T: int | None, N: int) -> Overfitting:
    r"""The mean rise of the test loss, and the mean gap, after T steps of gradient descent from a test minimum.

    With the symmetric matrix :math:`A = \big(I - (I - \eta H)^T\big) H^{-1} = \sum_{t<T} (I - \eta H)^t \eta`,

    .. math:: \mathrm{E}\,\ell(\theta_T) - \ell(\theta_*) = \frac{1}{2N} \operatorname{tr}(C A H A), \qquad
              \mathrm{E}\,[\text{test} - \text{train}] = \frac1N \operatorname{tr}(C A),

    for a step size or a matrix of step sizes eta. Exact if all examples have the same constant Hessian H; in general
    the leading order in eta at fixed T, with an error of relative order eta and 1/N at fixed eta T. As
    :math:`T \to \infty` the gap is :math:`\operatorname{tr}(CH^{-1})/N` (Takeuchi's criterion; with C = H, Akaike's
    d/N), and the rise is half of it. The batch loss is a mean over all N examples.

    Parameters
    ----------
    C : array_like (d, d)
        Covariance of one example's gradient at the test minimum, where descent starts.
    H : array_like (d, d)
        Hessian of the population loss, without negative eigenvalues; flat directions are allowed.
    eta : float or array_like (d, d)
        The step size: a positive number or a symmetric positive definite matrix.
    T : int or None
        Steps; None for the limit, which needs :math:`\eta H < 2` and no noise along flat directions.
    N : int
        Training examples.

    Returns
    -------
    Overfitting
        ``overfit`` and ``gap``.

    Raises
    ------
    ValueError
        If a matrix is not symmetric or has a negative eigenvalue, eta, T or N is out of its range, the powers overflow,
        or the limit does not exist.
    TypeError
        If an argument is not of its type.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 2 (confirmed; here with the powers of I − eta H that the printed
    exponential approximates).

    Examples
    --------
    Two steps with eta H = 1/2 reach 3/4 of the way to the training minimum: (3/4)²/2 and 3/4, of C/(H N) = 1:

    >>> overfitting([[8.0]], [[2.0]], 0.25, 2, 4)
    Overfitting(overfit=0.28125, gap=0.75)
    """
    C, h, P = _modes(C, H, eta)
    N = _validate.integer("N", N, low=1)
    c = np.einsum("im,ij,jm->m", P, C, P)
    f = _limit(c, h) if T is None else _reach(h, _validate.integer("T", T, low=0))
    with np.errstate(over="ignore", invalid="ignore"):
        result = Overfitting(float((c * h * f * f).sum() / (2 * N)), float((c * f).sum() / N))
    if not np.isfinite([result.overfit, result.gap]).all():
        raise ValueError(f"eta = {eta}: the powers of I - eta H overflow by step {T}; expected a smaller step")
    return result


@_validate.in_range
def worst_curvature(T: int, eta: float) -> float:
    r"""The curvature h at which T steps of gradient descent overfit most, for a fixed covariance C of the gradient.

    .. math:: h_* = \arg\max_{0 < \eta h \le 1} \frac{\big(1 - (1 - \eta h)^T\big)^2}{h}, \qquad
              \eta T h_* \to 1.2564312086 \quad (T \to \infty),

    the positive root of :math:`e^x = 1 + 2x`; the rise of the test loss is there
    :math:`0.2036321888\; C\,\eta T/N`. In a flatter valley T steps do not reach the training minimum; in a sharper one
    it lies close to the test minimum. The search ends at eta h = 1, beyond which descent overshoots.

    Parameters
    ----------
    T : int
        Steps, at least 2 (after one step the rise grows with h).
    eta : float
        The step size, positive.

    Returns
    -------
    float
        The curvature, in the units of 1/eta.

    Raises
    ------
    ValueError, TypeError
        If T is no integer from 2, or eta no positive number.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 2 and its remark on medium minima (the constant is ours).

    Examples
    --------
    Two steps: (1 − (1 − a)²)²/a = a (2 − a)² is largest at a = eta h = 2/3:

    >>> round(worst_curvature(2, 0.5), 12)
    1.333333333333
    """
    T, eta = _validate.integer("T", T, low=2), _validate.number("eta", eta, above=0)

    def slope(a: float) -> float:  # its sign is that of minus the derivative
        return 1 - (1 - a) ** T - 2 * T * a * (1 - a) ** (T - 1)

    return float(brentq(slope, 0.5 / T, 1.0, xtol=1e-15 / T, rtol=1e-14)) / eta


def _modes(C: ArrayLike, H: ArrayLike, eta: float | ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """C, the eigenvalues h of eta H, and P with P^T H P = diag(h) and P P^T = eta."""
    H = _spectra.symmetric("H", H, rank=2)
    d = len(H)
    scalar = _validate.array("eta", eta).ndim == 0
    step = _validate.number("eta", eta, above=0) * np.eye(d) if scalar else _validate.spd("eta", eta, size=d)
    L = np.linalg.cholesky(step)
    _spectra.eigenbasis(H)  # refuses negative eigenvalues in the caller's units
    within = L.T @ H @ L
    h, U = _spectra.eigenbasis((within + within.T) / 2)
    return _spectra.covariance(C, size=d), h, L @ U


def _reach(h: np.ndarray, T: int) -> np.ndarray:
    """The sum of (1 − h)^t over t < T."""
    return _spectra.power_difference(T, 1 - h)


def _limit(c: np.ndarray, h: np.ndarray) -> np.ndarray:
    """1/h, where there is noise."""
    if h.max() >= 2:
        raise ValueError(f"T = None with eta H of eigenvalue {h.max():g}: expected a step with eta H < 2")
    noisy = c > 1e-12 * c.max()
    if (noisy & (h == 0)).any():
        raise ValueError("T = None with noise along a flat direction of H: expected none, or a finite T")
    return np.divide(1, h, out=np.zeros_like(h), where=h > 0)
