r"""Least squares with fresh examples and random weights: exact second moments at every step size, and a bound.

An example is (x, y), the population loss :math:`f(\theta) = \frac12\mathbb E\,(x^\top\theta - y)^2`, its minimum
:math:`f_*` at :math:`\theta_*` (the smallest one, where there are several), and :math:`\epsilon = y - x^\top\theta_*`.
A step draws B fresh examples and weights w, independently,

.. math:: \theta_{t+1} = \theta_t - \eta \sum_{k \le B} w_k\, (x_k^\top\theta_t - y_k)\, x_k, \qquad
          \mathbb E \sum_k w_k = 1 .

All second moments depend on the law of the weights through two numbers only,

.. math:: q = \mathbb E \sum_k w_k^2, \qquad r = \mathbb E \Big(\sum_k w_k\Big)^2 ;

SGD with batches of b has (1/b, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from implicitreg import _solvers, _validate
from implicitreg._brief import brief
from numpy.typing import ArrayLike

__all__ = ["Constants", "LeastSquares", "SecondMoments", "bound", "constants", "run", "run_fixed", "weight_moments"]

_TINY = 1e-12  # directions in which the root of Sigma is smaller, relative to its norm, count as outside its range


@dataclass(frozen=True, eq=False)
class LeastSquares:
    r"""A finite law of examples (x, y).

    Parameters
    ----------
    x : array_like (m, d)
        The inputs, not all zero.
    y : array_like (m,)
        The targets.
    probabilities : array_like (m,)
        Positive, with sum 1.

    Attributes
    ----------
    Sigma : ndarray (d, d)
        :math:`\Sigma = \mathbb E\,xx^\top`.
    theta_star, minimum : ndarray (d,), float
        The minimizer of the population loss (of least norm), and its loss :math:`f_*`.
    residuals : ndarray (m,)
        :math:`\epsilon = y - x^\top\theta_*`; :math:`\mathbb E\,\epsilon x = 0`.

    Raises
    ------
    ValueError, TypeError
        If shapes differ, a number is not finite, the probabilities are none, or every x is zero.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, section 3.

    Examples
    --------
    x = 1 and y = 0 or 4: the minimum is at 2, with the loss 4/2:

    >>> law = LeastSquares([[1.0], [1.0]], [0.0, 4.0], [0.5, 0.5])
    >>> print(law.theta_star, law.minimum)
    [2.] 2.0
    """

    x: ArrayLike
    y: ArrayLike
    probabilities: ArrayLike
    Sigma: np.ndarray = field(init=False, repr=False)
    theta_star: np.ndarray = field(init=False, repr=False)
    residuals: np.ndarray = field(init=False, repr=False)
    __repr__ = brief

    @_validate.in_range
    def __post_init__(self) -> None:
        x = _validate.matrix("x", self.x)
        y = _validate.vector("y", self.y, size=len(x))
        p = _validate.probabilities("probabilities", self.probabilities, size=len(x))
        if not x.any():
            raise ValueError("x = 0 for every example: expected an input that is not zero")
        root = np.sqrt(p)
        theta = np.linalg.lstsq(root[:, None] * x, root * y, rcond=_TINY)[0]
        values = (x, y, p, (p * x.T) @ x, theta, y - x @ theta)
        if not all(np.isfinite(value).all() for value in values):
            sizes = f"{np.abs(x).max():.3g}, {np.abs(y).max():.3g}"
            raise ValueError(f"x, y up to {sizes}: expected numbers with squares that float64 holds")
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def minimum(self) -> float:
        """The smallest population loss."""
        return float(self.probabilities @ self.residuals**2 / 2)

    @_validate.in_range
    def loss(self, theta: ArrayLike) -> float:
        r"""The population loss :math:`\frac12\mathbb E\,(x^\top\theta - y)^2`.

        Examples
        --------
        >>> LeastSquares([[1.0], [1.0]], [0.0, 4.0], [0.5, 0.5]).loss([4.0])
        4.0
        """
        theta = _validate.vector("theta", theta, size=self.x.shape[1])
        return float(self.probabilities @ (self.x @ theta - self.y) ** 2 / 2)


@dataclass(frozen=True, eq=False)
class SecondMoments:
    r"""Moments of :math:`\delta = \theta - \theta_*` after the steps; see :func:`run`.

    Attributes
    ----------
    mean, moment : ndarray (d,), ndarray (d, d)
        :math:`\mathbb E\,\delta` and :math:`\mathbb E\,\delta\delta^\top` at the last step.
    last_excess, averaged_excess : float
        :math:`\mathbb E f - f_*` at the last iterate, and at the average of all iterates, the start included.
    """

    mean: np.ndarray
    moment: np.ndarray
    last_excess: float
    averaged_excess: float
    __repr__ = brief


@dataclass(frozen=True)
class Constants:
    r"""The sharp constants of a law; see :func:`constants`.

    Attributes
    ----------
    R2, sigma2 : float
        The smallest :math:`R^2, \sigma^2` with :math:`\mathbb E\,|x|^2xx^\top \preceq R^2\Sigma` and
        :math:`\mathbb E\,\epsilon^2xx^\top \preceq \sigma^2\Sigma`.
    lam, mu, d : float, float, int
        The largest and the smallest positive eigenvalue of :math:`\Sigma`, and its rank.
    """

    R2: float
    sigma2: float
    lam: float
    mu: float
    d: int

    @_validate.in_range
    def R2_weights(self, q: float, r: float) -> float:
        r""":math:`R^2_{q,r}` with :math:`\mathbb E A^2 \preceq R^2_{q,r}\Sigma` for :math:`A = \sum_k w_kx_kx_k^\top`.

        It is :math:`qR^2 + (r - q)\lambda`, for SGD-b :math:`\frac{R^2}{b} + (1 - \frac1b)\lambda`; and where q > r,
        :math:`qR^2 - (q - r)\mu`.

        Examples
        --------
        >>> constants(LeastSquares([[2.0]], [0.0], [1.0])).R2_weights(0.5, 1)  # |x|² = 4
        4.0
        """
        q, r = _validate.number("q", q, low=0), _validate.number("r", r)
        return q * self.R2 + (r - q) * (self.lam if r >= q else self.mu)


@_validate.in_range
def weight_moments(covariance: ArrayLike) -> tuple[float, float]:
    r"""q and r of B weights of mean 1/B and the given covariance.

    .. math:: q = \frac1B + \operatorname{tr}\Sigma_B, \qquad r = 1 + \mathbf 1^\top\Sigma_B\mathbf 1 .

    Parameters
    ----------
    covariance : array_like (B, B)
        :math:`\Sigma_B`, the covariance of w.

    Returns
    -------
    q, r : float, float

    Raises
    ------
    ValueError, TypeError
        If the matrix is not square, or not finite.

    Examples
    --------
    One of two: w = (1, 0) or (0, 1) is SGD with b = 1:

    >>> weight_moments([[0.25, -0.25], [-0.25, 0.25]])
    (1.0, 1.0)
    """
    V = _validate.matrix("covariance", covariance)
    V = _validate.matrix("covariance", V, rows=V.shape[1])
    return float(1 / len(V) + np.trace(V)), float(1 + V.sum())


@_validate.in_range
def run(law: LeastSquares, q: float, r: float, eta: float, steps: int, theta0: ArrayLike) -> SecondMoments:
    r"""Exact mean, second moment and excess losses after some steps, at any step size.

    With :math:`\delta = \theta - \theta_*`, m its mean and M its second moment,

    .. math::

        m_{t+1} &= (I - \eta\Sigma)\, m_t, \\
        M_{t+1} &= M_t - \eta(\Sigma M_t + M_t\Sigma) + \eta^2\big\{q\,\mathbb E[(x^\top M_tx)\,xx^\top]
                   + (r - q)\,\Sigma M_t\Sigma + q\,\mathbb E[\epsilon^2xx^\top]\big\}
                   - 2\eta^2q\,\mathbb E[\epsilon\,(x^\top m_t)\,xx^\top] .

    Everything depends on the weights through q and r only: Gaussian, two-point and sub-sampled noise of equal (q, r)
    have equal errors. The averaged iterate is :math:`\frac{1}{T+1}\sum_{t=0}^{T}\theta_t` after T steps.

    Parameters
    ----------
    law : LeastSquares
        The examples, of which every step takes fresh ones.
    q, r : float
        :math:`q = \mathbb E\sum_k w_k^2 \ge 0` (0 is gradient descent on the population) and
        :math:`r = \mathbb E(\sum_k w_k)^2 \ge 1`, see :func:`weight_moments`.
    eta : float
        The step size, positive; it multiplies the weighted *mean* gradient.
    steps : int
        How many; 0 gives the start.
    theta0 : array_like (d,)
        The start.

    Returns
    -------
    SecondMoments
        ``mean (d,)`` and ``moment (d, d)`` of :math:`\theta - \theta_*`, ``last_excess`` and ``averaged_excess``.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the moments overflow.
    TypeError
        If an argument is not of its type.

    Notes
    -----
    In print, eq. (3) sums over the batch of SGD, while the weights of eq. (4) have mean 1/B: taken literally, SGD's
    step is b eta. Here batch losses are means in both.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, eqs. (3) and (4), Theorem 1 (corrected: the two
    errors are not just bounded alike, they are equal).

    Examples
    --------
    x = ±1 and y = 0: every step shrinks theta by 1 − eta, whatever the example:

    >>> law = LeastSquares([[1.0], [-1.0]], [0.0, 0.0], [0.5, 0.5])
    >>> print(run(law, 1, 1, 0.5, 2, [4.0]))
    SecondMoments(mean=array([1.]), moment=array([[1.]]), last_excess=0.5, averaged_excess=2.7222222222222223)
    """
    law, q, r, eta, steps, theta0 = _arguments(law, q, r, eta, steps, theta0)
    x, px, Sigma, eps = law.x, law.probabilities[:, None] * law.x, law.Sigma, law.residuals

    def noise(m: np.ndarray, M: np.ndarray) -> np.ndarray:
        scale = ((x @ M) * x).sum(1) + eps**2 - 2 * eps * (x @ m)
        return q * (scale * px.T) @ x + (r - 1 - q) * Sigma @ M @ Sigma

    return _second_moments(Sigma, noise, eta, steps, theta0 - law.theta_star)


@_validate.in_range
def run_fixed(
    x: ArrayLike, y: ArrayLike, covariance: ArrayLike, eta: float, steps: int, theta0: ArrayLike
) -> SecondMoments:
    r"""Exact mean, second moment and excess losses on a *fixed* data set, for any sampling vector.

    The n examples stay the same; step t draws a sampling vector W independently of the past, with mean
    :math:`\frac1n\mathbf 1` and covariance K. With the training loss
    :math:`L = \frac1{2n}\sum_i (x_i^\top\theta - y_i)^2`, its Hessian :math:`H = \frac1n\sum_i x_ix_i^\top`, the least
    minimizer :math:`\theta_*`, :math:`\epsilon_i = y_i - x_i^\top\theta_*` and :math:`\delta = \theta - \theta_*`,

    .. math::

        m_{t+1} &= (I - \eta H)\, m_t, \\
        M_{t+1} &= (I - \eta H)\, M_t\, (I - \eta H) + \eta^2\sum_{ij} K_{ij}\,\mathbb E\,g_ig_j^\top, \\
        \mathbb E\,g_ig_j^\top &= \mathbb E\big[(x_i^\top\delta_t - \epsilon_i)(x_j^\top\delta_t - \epsilon_j)\big]\,
                                x_ix_j^\top .

    The law of W enters through its covariance only: on least squares all kinds of noise of one covariance are one.

    Parameters
    ----------
    x, y : array_like (n, d), (n,)
        The examples.
    covariance : array_like (n, n)
        K, symmetric and positive semidefinite, as from `noise.sampling.covariance`.
    eta, steps, theta0
        As in :func:`run`.

    Returns
    -------
    SecondMoments
        Excesses are those of the training loss.

    Raises
    ------
    ValueError
        If shapes differ, an argument is out of its range, K is no covariance, or the moments overflow.
    TypeError
        If an argument is not of its type.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, section 3 (for fresh examples; this form is ours).

    Examples
    --------
    x = 1 twice and y = ±1, from the minimum 0: SGD with one example steps to ±eta:

    >>> K = [[0.25, -0.25], [-0.25, 0.25]]
    >>> print(run_fixed([[1.0], [1.0]], [1.0, -1.0], K, 0.5, 1, [0.0]))
    SecondMoments(mean=array([0.]), moment=array([[0.25]]), last_excess=0.125, averaged_excess=0.03125)
    """
    x = _validate.matrix("x", x)
    data = LeastSquares(x, y, np.full(len(x), 1 / len(x)))
    K = _covariance(covariance, len(x))
    _, _, _, eta, steps, theta0 = _arguments(data, 0, 1, eta, steps, theta0)

    def noise(m: np.ndarray, M: np.ndarray) -> np.ndarray:
        cross = np.outer(data.residuals, x @ m)
        products = x @ M @ x.T - cross - cross.T + np.outer(data.residuals, data.residuals)
        return x.T @ (K * products) @ x

    return _second_moments(data.Sigma, noise, eta, steps, theta0 - data.theta_star)


def _second_moments(
    Sigma: np.ndarray, noise: Callable[[np.ndarray, np.ndarray], np.ndarray], eta: float, steps: int, delta: np.ndarray
) -> SecondMoments:
    """Moments of steps with mean -eta Sigma delta and, for moments m, M of delta, the covariance eta² noise(m, M)."""
    m = delta
    M = np.outer(m, m)
    A = S = M  # E[δ_t s_tᵀ] and E[s_t s_tᵀ] for s_t = δ_0 + … + δ_t; δ_{t+1} has mean (I − ηΣ)δ_t given the past
    eta = np.float64(eta)  # whose powers overflow to inf
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported by name
        shrink = np.eye(m.size) - eta * Sigma
        for t in range(steps):
            M = shrink @ M @ shrink + eta**2 * noise(m, M)
            m = shrink @ m
            A = shrink @ A + M
            S = S + A + A.T - M
            if not np.isfinite(S).all():
                raise ValueError(f"eta = {eta}: the second moments overflow by step {t + 1}; expected a smaller step")
    last, averaged = (float((Sigma * E).sum() / 2) for E in (M, S / (steps + 1) ** 2))
    return SecondMoments(m, M, last, averaged)


def constants(law: LeastSquares) -> Constants:
    r"""The sharp constants of the theorem: the largest eigenvalues relative to :math:`\Sigma`, on its range.

    Examples
    --------
    x = ±1, of square 1, with the residuals ±1:

    >>> constants(LeastSquares([[1.0], [-1.0], [1.0], [-1.0]], [1.0, 1.0, -1.0, -1.0], [0.25] * 4))
    Constants(R2=1.0, sigma2=1.0, lam=1.0, mu=1.0, d=1)
    """
    _law(law)
    s, basis = _range(law)
    white = law.x @ basis / np.sqrt(s)  # (m, d), of second moment I

    def largest(factor: np.ndarray) -> float:
        return float(np.linalg.eigvalsh((law.probabilities * factor * white.T) @ white)[-1])

    squares = (law.x**2).sum(1)
    return Constants(largest(squares), largest(law.residuals**2), float(s[0]), float(s[-1]), s.size)


@_validate.in_range
def bound(
    law: LeastSquares, q: float, r: float, eta: float, steps: int, theta0: ArrayLike, *, well_specified: bool = False
) -> float:
    r"""An upper bound on the excess loss of the averaged iterate, with explicit constants (Theorem 1′).

    With the sharp constants of :func:`constants`, :math:`R_{q,r}^2 = qR^2 + (r-q)\lambda` (with :math:`\mu` for
    :math:`\lambda` where q > r, weights noisier than a single example), N = steps + 1 iterates in the average, and
    :math:`\delta_0 = \theta_0 - \theta_*` projected on the range of :math:`\Sigma`: for :math:`0 < \eta < 2/R_{q,r}^2`,

    .. math::

        \mathbb E f(\bar\theta) - f_* \le \big(\sqrt{\mathcal B} + \sqrt{\mathcal V}\big)^2, \quad
        \mathcal V = \frac{q\,\sigma^2 d}{(2 - \eta R_{q,r}^2)\,N},

        \mathcal B = \frac{|\delta_0|^2}{2 - \eta R_{q,r}^2}\,
                      \min\Big\{\frac{1}{2\eta N}, \frac{1}{\eta^2\mu N^2}\Big\}.

    Parameters
    ----------
    law, q, r, eta, steps, theta0
        As in :func:`run`.
    well_specified : bool
        Use the smaller bound :math:`\mathcal B + \mathcal V`, which holds if :math:`\mathbb E[\epsilon\,|\,x] = 0`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If an argument is out of its range, :math:`\eta \ge 2/R_{q,r}^2`, or ``well_specified`` is wrong for the law.
    TypeError
        If an argument is not of its type.

    Notes
    -----
    The dimension d (the rank of :math:`\Sigma`) cannot be dropped: with x uniform on the d unit vectors and
    :math:`\epsilon = \pm1`, the excess after 40 d steps grows like d, although :math:`R, \sigma, \lambda \le 1`.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Theorem 1 (corrected: mean over the batch, a
    condition on the step size, constants that know the dimension).

    Examples
    --------
    x = 1 and y = ±1, from the minimum with eta = 1: every iterate but the first is ±1, so the excess is T/(2(T + 1)²):

    >>> law = LeastSquares([[1.0]] * 4, [-1.0, 1.0, -1.0, 1.0], [0.25] * 4)
    >>> print(run(law, 1, 1, 1.0, 3, [0.0]).averaged_excess, bound(law, 1, 1, 1.0, 3, [0.0]))
    0.09375 0.25
    """
    well_specified = _validate.flag("well_specified", well_specified)
    law, q, r, eta, steps, theta0 = _arguments(law, q, r, eta, steps, theta0)
    at, N = constants(law), steps + 1
    R2 = at.R2_weights(q, r)
    if eta * R2 >= 2:
        raise ValueError(f"eta = {eta}: expected less than 2 / R² = {2 / R2:.6g}, with R² = R²_qr")
    square = float((((theta0 - law.theta_star) @ _range(law)[1]) ** 2).sum())
    variance = q * at.sigma2 * at.d / ((2 - eta * R2) * N)
    bias = square / (2 - eta * R2) * min(1 / (2 * eta * N), 1 / (eta * at.mu * eta * N**2))
    if well_specified:
        _check_specification(law)
        return bias + variance
    return (bias**0.5 + variance**0.5) ** 2


def _range(law: LeastSquares) -> tuple[np.ndarray, np.ndarray]:
    """Positive eigenvalues of Sigma, decreasing, and orthonormal eigenvectors as columns."""
    _, s, rows = np.linalg.svd(np.sqrt(law.probabilities)[:, None] * law.x, full_matrices=False)
    keep = s > s[0] * _TINY
    return s[keep] ** 2, rows[keep].T


def _check_specification(law: LeastSquares) -> None:
    inputs, which = np.unique(law.x, axis=0, return_inverse=True)
    means = np.zeros(len(inputs))
    np.add.at(means, which.ravel(), law.probabilities * law.residuals)
    worst = int(np.abs(means).argmax())
    if abs(means[worst]) > 1e-12 * np.abs(law.y).max():
        raise ValueError(f"well_specified = True, but the mean of y - x'θ* at x = {inputs[worst].tolist()} is not 0")


def _covariance(value: ArrayLike, n: int) -> np.ndarray:
    K = _validate.matrix("covariance", value, rows=n, columns=n)
    if np.abs(K - K.T).max() > 1e-12 * np.abs(K).max():
        raise ValueError("covariance differs from its transpose: expected a symmetric matrix")
    if (low := np.linalg.eigvalsh(K)[0]) < -1e-12 * np.abs(K).max() * n:
        raise ValueError(f"covariance has the eigenvalue {low:.3g}: expected a positive semidefinite matrix")
    return K


def _law(law: LeastSquares) -> None:
    if not isinstance(law, LeastSquares):
        raise TypeError(f"law = {law!r}: expected a LeastSquares")


def _arguments(
    law: LeastSquares, q: float, r: float, eta: float, steps: int, theta0: ArrayLike
) -> tuple[LeastSquares, float, float, float, int, np.ndarray]:
    _law(law)
    q = _validate.number("q", q, low=0)
    r = _validate.number("r", r, low=1 - 1e-12)  # 1, as a sum of rounded weights
    eta = _validate.number("eta", eta, above=0)
    theta0 = _validate.vector("theta0", theta0, size=law.x.shape[1])
    most = _solvers.most_steps(law.x.size * theta0.size)
    return law, q, r, eta, _validate.integer("steps", steps, low=0, high=most), theta0
