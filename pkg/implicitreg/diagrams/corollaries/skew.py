"""What skewed gradient noise does to the test loss of SGD near a minimum, for short times and for long ones."""

from __future__ import annotations

import numpy as np
from implicitreg import _validate
from implicitreg.diagrams.corollaries import _spectra
from numpy.typing import ArrayLike

__all__ = ["skew_diagram", "skew_effect"]


@_validate.in_range
def skew_effect(H: ArrayLike, J: ArrayLike, S: ArrayLike, eta: float, s: float | None = None) -> float:
    r"""The part of the mean test loss that is linear in the third moment S of the noise, at time s = eta T.

    SGD starts at the minimum. In the eigenbasis of H, with :math:`\sigma_{abc} = h_a + h_b + h_c`, the third moments
    of :math:`\theta_T - \theta_*` are :math:`M_{abc}(s) = -\eta^2 S_{abc}\,(1 - e^{-\sigma_{abc}s})/\sigma_{abc}`. The
    curvature's change J turns them into second moments, :math:`V' = -HV - VH - \tfrac12\big(J{:}M + (J{:}M)^\top\big)`,
    :math:`V(0) = 0`, and

    .. math:: \mathrm{E}\,\ell\,\big|_S = \tfrac12 \sum_a h_a V_{aa}(s) + \tfrac16 \sum_{abc} J_{abc} M_{abc}(s)
              + O(\eta^3) \;\xrightarrow{s\to\infty}\;
              +\frac{\eta^2}{12} \sum_{abc} \frac{S_{abc} J_{abc}}{\sigma_{abc}} .

    In one dimension, with :math:`u = e^{-hs}`, this is :math:`\eta^2 SJ\,(1-u)(1+u-8u^2)/(36h)`: first
    :math:`-\eta^2 s\,SJ/6`, which is the diagram of :func:`skew_diagram`, then zero at hs = 0.8639, and in the limit
    *minus one half* of that diagram, in every dimension.

    Parameters
    ----------
    H, J : array_like (d, d), (d, d, d)
        Second and third derivatives of the population loss at the minimum; H without negative eigenvalues.
    S : array_like (d, d, d)
        Third central moment of one example's gradient there.
    eta : float
        The step size, positive; one fresh example a step.
    s : float, optional
        The time eta T; None for the limit, which needs H > 0.

    Returns
    -------
    float
        The leading order, eta² times a function of s.

    Raises
    ------
    ValueError
        If a tensor has a wrong shape or is not symmetric, H has a negative eigenvalue, eta or s is out of its range, or
        s is None and H has a flat direction.
    TypeError
        If an argument is not of its type.

    Notes
    -----
    At a fixed number of steps the term −(T/6) eta³ S J of Corollary 5 is right. As a statement about long times the
    single diagram has the wrong sign: a second one, where the skewed cloud is pushed by J before the loss is taken, is
    of the same order and larger.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 5 (the diagram); the theorem and its proof are ours.

    Examples
    --------
    >>> print(skew_effect([[1.0]], [[[6.0]]], [[[6.0]]], 0.5), 0.5**2 * 36 / 36)
    0.25 0.25
    """
    h, SJ, eta, s = _arguments(H, J, S, eta, s)
    sigma, twice = h[:, None, None] + h[:, None] + h, 2 * h[:, None, None]
    if s is None:
        return float(eta**2 / 12 * (SJ / sigma).sum())
    cloud = s**2 * _spectra.exponential_difference(-twice * s, -sigma * s)  # V_aa = eta² sum_cd SJ_acd cloud_acd
    return float(eta**2 * (SJ * (h[:, None, None] * cloud / 2 - _settling(sigma, s) / 6)).sum())


@_validate.in_range
def skew_diagram(H: ArrayLike, J: ArrayLike, S: ArrayLike, eta: float, s: float | None = None) -> float:
    r"""The single diagram of three equal dots below the root, which the source takes for the effect of skewness.

    .. math:: -\frac{\eta^2}{6} \sum_{abc} S_{abc} J_{abc}\, \frac{1 - e^{-(h_a+h_b+h_c)s}}{h_a + h_b + h_c} .

    Parameters, result and errors are those of :func:`skew_effect`, which adds the other diagram of the same order.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 5 (the diagram alone).

    Examples
    --------
    >>> print(skew_diagram([[1.0]], [[[6.0]]], [[[6.0]]], 0.5), -(0.5**2) * 36 / 18)
    -0.5 -0.5
    """
    h, SJ, eta, s = _arguments(H, J, S, eta, s)
    sigma = h[:, None, None] + h[:, None] + h
    return float(-(eta**2) / 6 * (SJ / sigma if s is None else SJ * _settling(sigma, s)).sum())


def _arguments(
    H: ArrayLike, J: ArrayLike, S: ArrayLike, eta: float, s: float | None
) -> tuple[np.ndarray, np.ndarray, float, float | None]:
    """Eigenvalues h, the products S_abc J_abc in the eigenbasis, eta and s."""
    h, U = _spectra.eigenbasis(H)
    tensors = (_spectra.symmetric(name, x, rank=3, size=h.size) for name, x in (("J", J), ("S", S)))
    J, S = (np.einsum("ijk,ia,jb,kc->abc", x, U, U, U, optimize=True) for x in tensors)
    eta = _validate.number("eta", eta, above=0)
    if s is None:
        _spectra.no_flat(h, "s")
    return h, S * J, eta, None if s is None else _validate.number("s", s, low=0)


def _settling(sigma: np.ndarray, s: float) -> np.ndarray:
    """(1 − exp(−sigma s)) / sigma, which is s for sigma = 0."""
    return -np.expm1(-sigma * s) / np.where(sigma > 0, sigma, 1) + s * (sigma == 0)
