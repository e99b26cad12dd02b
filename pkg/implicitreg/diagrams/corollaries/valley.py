"""Corollary 1: gradient noise moves the mean of SGD to where the curvature along the noise is smaller."""

from __future__ import annotations

import numpy as np
from implicitreg import _validate
from implicitreg.diagrams.corollaries import _spectra
from numpy.typing import ArrayLike

__all__ = ["displacement", "velocity"]


@_validate.in_range
def displacement(C: ArrayLike, H: ArrayLike, J: ArrayLike, eta: float, T: int | None = None) -> np.ndarray:
    r"""The mean displacement of SGD from a minimum, from the one diagram in which two equal dots push a third.

    With :math:`K = I - \eta H`, in the eigenbasis of H (eigenvalues h, multipliers :math:`K_\mu = 1 - \eta h_\mu`),

    .. math:: \mathrm{E}[\theta_T - \theta_*]_\lambda = -\frac{\eta^3}{2} \sum_{\mu\nu} C_{\mu\nu} J_{\mu\nu\lambda}
              \sum_{t<T} K_\lambda^{T-1-t}\, \frac{1 - (K_\mu K_\nu)^t}{1 - K_\mu K_\nu}
              \;\xrightarrow{T\to\infty}\; -\frac{\eta}{2} \sum_{\mu\nu}
              \frac{C_{\mu\nu} J_{\mu\nu\lambda}}{(h_\mu + h_\nu - \eta h_\mu h_\nu)\, h_\lambda} .

    Every step uses a fresh example (one epoch, batches of one) and theta starts *at* the minimum, where the mean
    gradient is zero. The sum over times is exact; the diagram is the leading order. What it leaves out is
    :math:`O(\eta^4)` at a fixed number of steps, and :math:`O(\eta^2)` at a fixed time :math:`\eta T`, or in the limit.

    Parameters
    ----------
    C : array_like (d, d)
        Covariance of one example's gradient at the minimum.
    H, J : array_like (d, d), (d, d, d)
        Second and third derivatives of the population loss there; H without negative eigenvalues, any basis.
    eta : float
        The step size, 0 < eta < 2 / (largest eigenvalue of H).
    T : int, optional
        Steps; None for the limit, which needs H > 0.

    Returns
    -------
    ndarray (d,)
        The mean displacement, in the basis of the arguments.

    Raises
    ------
    ValueError
        If an argument has a wrong shape or is not symmetric, C or H has a negative eigenvalue, eta is out of its range,
        T is negative, or T is None and H has a flat direction: see :func:`velocity`.
    TypeError
        If an argument is not of its type.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 1 (corrected: the printed limit is too small by one factor eta).

    Examples
    --------
    In one dimension the limit is −eta C J / (2 h² (2 − eta h)):

    >>> float(displacement([[4.0]], [[1.0]], [[[3.0]]], 0.5)[0])
    -2.0
    """
    h, U, drive = _minimum(C, H, J)
    eta = _spectra.stable_step(eta, h)
    if T is None:
        _spectra.no_flat(h, "T")
        times = 1 / (_forgetting(h, eta)[:, :, None] * eta * h)
    else:
        K = 1 - eta * h
        times = _spectra.power_difference(_validate.integer("T", T, low=0), np.outer(K, K)[:, :, None], K)
    return U @ (-(eta**3) / 2 * (drive * times).sum((0, 1)))


@_validate.in_range
def velocity(C: ArrayLike, H: ArrayLike, J: ArrayLike, eta: float, *, exact: bool = True) -> np.ndarray:
    r"""The mean displacement of SGD per step along the flat directions of H, once the cloud around them is stationary.

    In the eigenbasis of H, for every :math:`\lambda` with :math:`h_\lambda = 0`,

    .. math:: v_\lambda = -\frac{\eta^2}{2} \sum_{h_\mu + h_\nu > 0}
              \frac{C_{\mu\nu} J_{\mu\nu\lambda}}{h_\mu + h_\nu - \eta h_\mu h_\nu} ,

    and zero along the others, whose displacement has a limit. Along a flat direction the spread of SGD grows without
    end if there is noise along it; pairs of flat directions may therefore not drive:
    :math:`\sum_{h_\mu = h_\nu = 0} C_{\mu\nu} J_{\mu\nu\lambda} = 0` is required. A velocity is a statement about the
    place where C, H and J are taken: it lasts for as long as they stay the same along the valley.

    Parameters
    ----------
    C, H, J, eta
        As for :func:`displacement`.
    exact : bool
        Whether to sum the diagram over steps exactly (as above); otherwise without the term eta h h, the leading order.

    Returns
    -------
    ndarray (d,)
        The velocity per step, in the basis of the arguments; zero if H has no flat direction.

    Raises
    ------
    ValueError, TypeError
        As for :func:`displacement`, and if flat directions drive: the mean then accelerates, and has no velocity.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 1 and section 3.1 (the screw: eta²/6 at leading order).

    Examples
    --------
    The screw of the source, with eta²/(6 − 4 eta) per step:

    >>> J = np.zeros((3, 3, 3))
    >>> for place in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
    ...     J[place] = 1
    >>> C = [[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, 0]]
    >>> v = velocity(C, np.diag([2.0, 1.0, 0.0]), J, 0.5)
    >>> print(v.round(12) + 0.0, 0.5**2 / (6 - 4 * 0.5))
    [0. 0. 0.0625] 0.0625
    """
    exact = _validate.flag("exact", exact)
    h, U, drive = _minimum(C, H, J)
    eta = _spectra.stable_step(eta, h)
    flat = h == 0
    unbounded = np.abs((drive * np.outer(flat, flat)[:, :, None]).sum((0, 1)) * flat)
    if unbounded.max() > 1e-10 * np.abs(drive).max():
        raise ValueError(
            f"C and J drive the flat directions of H by {unbounded.max():g} through noise along them: expected zero"
        )
    rate = _forgetting(h, eta) / eta if exact else h[:, None] + h
    weight = np.divide(1, rate, out=np.zeros_like(rate), where=rate > 0)
    return U @ (-(eta**2) / 2 * flat * np.einsum("mnl,mn->l", drive, weight))


def _minimum(C: ArrayLike, H: ArrayLike, J: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues h, eigenvectors U, and C_mn J_mnl in the eigenbasis."""
    h, U = _spectra.eigenbasis(H)
    C, J = _spectra.covariance(C, size=h.size), _spectra.symmetric("J", J, rank=3, size=h.size)
    return h, U, (U.T @ C @ U)[:, :, None] * np.einsum("ijk,im,jn,kl->mnl", J, U, U, U, optimize=True)


def _forgetting(h: np.ndarray, eta: float) -> np.ndarray:
    """1 − K_m K_n, without the cancellation."""
    return eta * (h[:, None] + h) - eta**2 * np.outer(h, h)
