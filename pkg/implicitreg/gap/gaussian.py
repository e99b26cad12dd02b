r"""Linear regression with Gaussian inputs: the gap, the drift and the modified loss of part II in closed form.

Inputs :math:`x \sim \mathcal N(0, C)`, labels :math:`y = \theta^*\!\cdot x + \sigma\varepsilon` with an independent
standard normal :math:`\varepsilon`, loss :math:`\ell = \tfrac12(\theta\cdot x - y)^2`, :math:`u = \theta - \theta^*`.
Batch losses are means; :math:`\Sigma` is the covariance of one example's gradient; N is the size of the whole training
set and K the number of batches in an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from numpy.typing import ArrayLike

__all__ = ["GaussianLinear", "wishart_moments"]

ISOTROPIC = 1e-12  # C counts as a multiple of the identity up to this relative deviation


@dataclass(frozen=True, eq=False)
class GaussianLinear:
    r"""The law of one example: :math:`x \sim \mathcal N(0, C)`, :math:`y = \theta^*\!\cdot x + \sigma\varepsilon`.

    Parameters
    ----------
    C : array_like (d, d)
        Covariance of the inputs, symmetric positive definite.
    theta_star : array_like (d,)
        The teacher.
    sigma : float
        Standard deviation of the label noise, at least 0.

    Raises
    ------
    ValueError
        If C is not symmetric positive definite, a shape does not fit, a number is not finite, or sigma is negative.
    TypeError
        If an argument is not numeric.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, section 4: "for a linear model with quadratic loss
    and Gaussian input data".

    Examples
    --------
    One input of unit variance, no label noise, u = 1: tr Sigma = E x^4 - (E x^2)^2 = 2.

    >>> GaussianLinear([[1.0]], [0.0], 0.0).trace([1.0])
    2.0
    """

    C: ArrayLike
    theta_star: ArrayLike
    sigma: float
    __repr__ = brief

    def __post_init__(self) -> None:
        theta_star = _validate.vector("theta_star", self.theta_star).copy()
        C = _validate.spd("C", self.C, size=theta_star.size).copy()
        for array in (theta_star, C):
            array.setflags(write=False)
        object.__setattr__(self, "C", C)
        object.__setattr__(self, "theta_star", theta_star)
        object.__setattr__(self, "sigma", _validate.number("sigma", self.sigma, low=0))

    @property
    def d(self) -> int:
        """Dimension of theta."""
        return self.theta_star.size

    @_validate.in_range
    def risk(self, theta: ArrayLike) -> float:
        r"""The population loss :math:`R = \tfrac12(u^\top Cu + \sigma^2)`.

        Parameters
        ----------
        theta : array_like (d,)

        Raises
        ------
        ValueError
            If theta is not a finite vector of length d.

        Examples
        --------
        >>> GaussianLinear([[1.0]], [0.0], 2.0).risk([1.0])
        2.5
        """
        return float(self._residual_variance(self._u(theta)) / 2)

    def G(self, theta: ArrayLike) -> np.ndarray:
        r"""The gradient of the population loss, :math:`G = Cu`, shape (d,).

        Parameters
        ----------
        theta : array_like (d,)

        Raises
        ------
        ValueError
            If theta is not a finite vector of length d.

        Examples
        --------
        >>> GaussianLinear([[2.0, 0.0], [0.0, 1.0]], [1.0, 1.0], 0.0).G([2.0, 1.0])
        array([2., 0.])
        """
        return self.C @ self._u(theta)

    @_validate.in_range
    def Sigma(self, theta: ArrayLike) -> np.ndarray:
        r"""Covariance of one example's gradient, :math:`\Sigma = (u^\top Cu + \sigma^2)\,C + Cuu^\top C`, shape (d, d).

        Parameters
        ----------
        theta : array_like (d,)

        Raises
        ------
        ValueError
            If theta is not a finite vector of length d.

        Examples
        --------
        At the teacher only the label noise is left:

        >>> GaussianLinear([[2.0, 0.0], [0.0, 1.0]], [0.0, 0.0], 3.0).Sigma([0.0, 0.0])
        array([[18.,  0.],
               [ 0.,  9.]])
        """
        u = self._u(theta)
        return self._residual_variance(u) * self.C + np.outer(self.C @ u, self.C @ u)

    @_validate.in_range
    def trace(self, theta: ArrayLike) -> float:
        r"""The trace :math:`\mathrm{tr}\,\Sigma = (u^\top Cu + \sigma^2)\,\mathrm{tr}\,C + u^\top C^2u`.

        Parameters
        ----------
        theta : array_like (d,)

        Raises
        ------
        ValueError
            If theta is not a finite vector of length d.

        Examples
        --------
        For :math:`C = s^2I` it is :math:`(d + 1)s^4|u|^2 + d\sigma^2s^2`, here 4 + 3:

        >>> GaussianLinear(np.eye(3), np.zeros(3), 1.0).trace([1.0, 0.0, 0.0])
        7.0
        """
        u = self._u(theta)
        return float(self._residual_variance(u) * np.trace(self.C) + np.sum((self.C @ u) ** 2))

    @_validate.in_range
    def grad_trace(self, theta: ArrayLike) -> np.ndarray:
        r"""The gradient :math:`\partial\,\mathrm{tr}\,\Sigma = 2(\mathrm{tr}\,C\,I + C)\,Cu`, shape (d,).

        Parameters
        ----------
        theta : array_like (d,)

        Raises
        ------
        ValueError
            If theta is not a finite vector of length d.

        Examples
        --------
        >>> GaussianLinear(np.eye(3), np.zeros(3), 1.0).grad_trace([1.0, 0.0, 0.0])
        array([8., 0., 0.])
        """
        G = self.G(theta)
        return 2 * (np.trace(self.C) * G + self.C @ G)

    @_validate.in_range
    def ridge(self, eta: float, *, N: int, K: int) -> np.ndarray:
        r"""The matrix M with which an epoch's drift acts as a ridge :math:`\tfrac12u^\top Mu` *centred at the teacher*.

        .. math:: M = 2\kappa\,(\mathrm{tr}\,C\,I + C)\,C, \qquad \kappa = \frac{\eta(K - 1)}{4N}
                  = \frac\eta4\Big(\frac1n - \frac1N\Big), \quad n = N/K .

        Parameters
        ----------
        eta : float
            Step size, positive.
        N, K : int
            Size of the training set; batches in an epoch, a divisor of N.

        Returns
        -------
        (d, d) array

        Raises
        ------
        ValueError
            If eta is not positive, or K does not divide N.

        Notes
        -----
        M is positive definite for K > 1 and commutes with C: the modified risk has the same minimizer as the risk,
        :math:`\theta^*`, and contracts towards it faster.

        References
        ----------
        Roberts, SGD Implicitly Regularizes Generalization Error, section 3, the modified loss for K = 2.

        Examples
        --------
        >>> GaussianLinear([[1.0]], [5.0], 0.0).ridge(0.5, N=2, K=2)  # kappa = 1/16, tr C + C = 2
        array([[0.25]])
        """
        return 2 * self._kappa(eta, N, K) * (np.trace(self.C) * self.C + self.C @ self.C)

    @_validate.in_range
    def modified_risk(self, theta: ArrayLike, eta: float, *, N: int, K: int) -> float:
        r"""The risk that gradient descent must follow to imitate an epoch of SGD, in the mean and through eta².

        .. math:: \tilde R = R + \frac{\eta(K - 1)}{4N}\,\mathrm{tr}\,\Sigma
                  = \tfrac12u^\top(C + M)\,u + \sigma^2(\tfrac12 + \kappa\,\mathrm{tr}\,C) ,

        with M and :math:`\kappa` of :meth:`ridge`.

        Parameters
        ----------
        theta : array_like (d,)
        eta : float
            Step size, positive.
        N, K : int
            Size of the training set; batches in an epoch, a divisor of N.

        Raises
        ------
        ValueError
            If theta is not a finite vector of length d, eta is not positive, or K does not divide N.

        References
        ----------
        Roberts, SGD Implicitly Regularizes Generalization Error, section 3, below eq. (13) for K = 2.

        Examples
        --------
        >>> GaussianLinear([[1.0]], [0.0], 0.0).modified_risk([1.0], 0.5, N=2, K=2)  # 1/2 + 2/16
        0.625
        """
        return self.risk(theta) + self._kappa(eta, N, K) * self.trace(theta)

    @_validate.in_range
    def drift(self, theta: ArrayLike, eta: float, *, N: int, K: int) -> np.ndarray:
        r"""Leading order of <GD - SGD> after an epoch: :math:`\frac{\eta^2K(K-1)}{4N}\,\partial\mathrm{tr}\Sigma`.

        Parameters
        ----------
        theta : array_like (d,)
            The common start, independent of the data.
        eta : float
            Step size, positive.
        N, K : int
            Size of the training set; batches in an epoch, a divisor of N.

        Returns
        -------
        (d,) array

        Raises
        ------
        ValueError
            If theta is not a finite vector of length d, eta is not positive, or K does not divide N.

        References
        ----------
        Roberts, SGD Implicitly Regularizes Generalization Error, eq. (13), there for K = 2.

        Examples
        --------
        For K = 2 it is exact, at every eta:

        >>> law = GaussianLinear([[1.0, 0.5], [0.5, 4.25]], [1.0, -0.5], 0.3)
        >>> exact = law.gd_mean([0.25, 0.4], 0.05, N=2) - law.sgd_mean([0.25, 0.4], 0.05, steps=2)
        >>> bool(np.allclose(law.drift([0.25, 0.4], 0.05, N=2, K=2), exact, rtol=1e-12, atol=0))
        True
        """
        kappa = self._kappa(eta, N, K)
        return float(eta) * K * kappa * self.grad_trace(theta)

    @_validate.in_range
    def sgd_mean(self, theta: ArrayLike, eta: float, *, steps: int) -> np.ndarray:
        r"""Exact mean of SGD after some steps on fresh batches, :math:`\theta^* + (I - \eta C)^k u`, for every eta.

        The batches are disjoint, so that each is independent of the iterate it meets; their sizes do not matter.

        Parameters
        ----------
        theta : array_like (d,)
            The start, independent of the data.
        eta : float
            Step size, positive.
        steps : int
            k, at least 0 and at most the number of batches in an epoch.

        Returns
        -------
        (d,) array

        Raises
        ------
        ValueError
            If theta is not a finite vector of length d, eta is not positive, or steps is negative.

        References
        ----------
        Roberts, SGD Implicitly Regularizes Generalization Error, eq. (10), in the mean over data sets.

        Examples
        --------
        >>> GaussianLinear([[1.0]], [0.0], 0.0).sgd_mean([1.0], 0.5, steps=2)
        array([0.25])
        """
        u, eta = self._u(theta), _validate.number("eta", eta, above=0)
        contraction = np.eye(self.d) - eta * self.C
        return self.theta_star + np.linalg.matrix_power(contraction, _validate.integer("steps", steps, low=0)) @ u

    @_validate.in_range
    def gd_mean(self, theta: ArrayLike, eta: float, *, N: int) -> np.ndarray:
        r"""Exact mean of *two* steps of gradient descent on N examples, for every eta.

        .. math:: \langle\theta_2^{GD}\rangle = \theta^* + (I - \eta C)^2u
                  + \frac{\eta^2}{N}\,(C^2 + \mathrm{tr}\,C\;C)\,u .

        Parameters
        ----------
        theta : array_like (d,)
            The start, independent of the data.
        eta : float
            Step size, positive.
        N : int
            Size of the training set, at least 1.

        Returns
        -------
        (d,) array

        Raises
        ------
        ValueError
            If theta is not a finite vector of length d, eta is not positive, or N < 1.

        References
        ----------
        Roberts, SGD Implicitly Regularizes Generalization Error, section 3.

        Examples
        --------
        In one dimension with N = 1, E (1 - eta x²)² = 1 - 2 eta + 3 eta²:

        >>> GaussianLinear([[1.0]], [0.0], 0.0).gd_mean([1.0], 0.5, N=1)
        array([0.75])
        """
        N, eta = _validate.integer("N", N, low=1), _validate.number("eta", eta, above=0)
        return self.sgd_mean(theta, eta, steps=2) + eta**2 / (2 * N) * self.grad_trace(theta)

    @_validate.in_range
    def weight_decay(self, eta: float, *, N: int, K: int) -> float:
        r"""The lambda for which the drift is that of weight decay :math:`\tfrac\lambda2|\theta|^2`, if there is one.

        .. math:: \lambda = \frac{\eta(K - 1)(d + 1)s^4}{2N} \qquad\text{for } \theta^* = 0,\; C = s^2I,

        and in no other case: in general the drift is a ridge centred at the teacher, see :meth:`ridge`.

        Parameters
        ----------
        eta : float
            Step size, positive.
        N, K : int
            Size of the training set; batches in an epoch, a divisor of N.

        Raises
        ------
        ValueError
            If the teacher is not 0, or C not a multiple of the identity (to a relative 1e-12), or eta is not positive,
            or K does not divide N.

        References
        ----------
        Roberts, SGD Implicitly Regularizes Generalization Error, section 4: "can behave like L2 regularization".

        Examples
        --------
        >>> GaussianLinear(np.eye(3), np.zeros(3), 1.0).weight_decay(0.1, N=4, K=2)  # 0.1 * 1 * 4 / 8
        0.05
        """
        if self.theta_star.any():
            raise ValueError(
                f"theta_star = {self.theta_star.tolist()}: expected 0. The drift is a ridge centred at the teacher, "
                f"(theta - theta*)' M (theta - theta*) / 2 with M = ridge(...), and no weight decay"
            )
        s2 = np.trace(self.C) / self.d
        if np.abs(self.C - s2 * np.eye(self.d)).max() > ISOTROPIC * s2:
            raise ValueError(
                "C is not a multiple of the identity: expected s² I. The drift is the ridge theta' M theta / 2 with "
                "M = ridge(...), which decays some directions faster than others"
            )
        return float(2 * self._kappa(eta, N, K) * (self.d + 1) * s2**2)

    def _u(self, theta: ArrayLike) -> np.ndarray:
        return _validate.vector("theta", theta, size=self.d) - self.theta_star

    def _residual_variance(self, u: np.ndarray) -> float:
        return u @ self.C @ u + self.sigma**2

    @staticmethod
    def _kappa(eta: float, N: int, K: int) -> float:
        """eta (K - 1) / 4N, the weight of tr Sigma in the modified loss."""
        eta = _validate.number("eta", eta, above=0)
        N = _validate.integer("N", N, low=1)
        K = _validate.integer("K", K, low=1, high=N)
        if N % K:
            raise ValueError(f"K = {K}: expected a divisor of N = {N}")
        return eta * (K - 1) / (4 * N)


@_validate.in_range
def wishart_moments(d: int, N: int, order: int) -> np.ndarray:
    r"""Mean powers of a sample second moment: :math:`\mathrm E A^k = m_kI` for :math:`A = \frac1N\sum x_ix_i^\top`.

    The N inputs are independent standard normal in d dimensions; for :math:`C = s^2I` multiply :math:`m_k` by
    :math:`s^{2k}`. The mean of any number of gradient descent steps is the mean of a polynomial in A, so that these
    numbers give it exactly, at every step size.

    Parameters
    ----------
    d, N : int
        Dimension and number of examples, at least 1.
    order : int
        The largest k, from 0 to 12.

    Returns
    -------
    (order + 1,) array
        :math:`m_0, \dots, m_{order}`, exact rational numbers rounded once.

    Raises
    ------
    ValueError
        If d or N is below 1, or order outside 0..12.

    Notes
    -----
    Gaussian integration by parts in :math:`\mathrm{tr}\,W^k = \sum_{ai} X_{ai}(XW^{k-1})_{ai}`, :math:`W = X^\top X`,
    gives for a product T of traces :math:`\mathrm{tr}\,W^{k_i}`

    .. math:: \mathrm E\,\mathrm{tr}W^k\,T = (N + k - 1)\,\mathrm E\,\mathrm{tr}W^{k-1}T
              + \sum_{l=1}^{k-1}\mathrm E\,\mathrm{tr}W^l\,\mathrm{tr}W^{k-1-l}\,T
              + \sum_i 2k_i\,\mathrm E\,\mathrm{tr}W^{k+k_i-1}\,T_{\setminus i} .

    Examples
    --------
    In one dimension these are the moments of chi-square: 1, 1, 3 for N = 1; in general m_2 = 1 + (d + 1)/N:

    >>> wishart_moments(1, 1, 2), wishart_moments(20, 40, 2)
    (array([1., 1., 3.]), array([1.   , 1.   , 1.525]))
    """
    d, N = _validate.integer("d", d, low=1), _validate.integer("N", N, low=1)
    order = _validate.integer("order", order, low=0, high=12)

    @cache
    def mean(powers: tuple[int, ...]) -> int:
        """E of a product of traces of W^k, over the k in powers (descending)."""
        if not powers or powers[0] == 0:
            return d ** len(powers)
        k, rest = powers[0], powers[1:]
        total = (N + k - 1) * mean(_sorted(rest, k - 1))
        total += sum(mean(_sorted(rest, l, k - 1 - l)) for l in range(1, k))
        return total + sum(
            2 * j * mean(_sorted(rest[:i] + rest[i + 1 :], k + j - 1)) for i, j in enumerate(rest) if j
        )  # fmt: skip

    return np.array([float(Fraction(mean((k,)), d * N**k)) for k in range(order + 1)])


def _sorted(powers: tuple[int, ...], *more: int) -> tuple[int, ...]:
    return tuple(sorted(powers + more, reverse=True))
