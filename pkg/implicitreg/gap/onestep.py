r"""What a gradient step does to the generalization gap, in the mean over training sets.

The problem is a finite distribution of losses :math:`\ell` with gradients :math:`g` and Hessians :math:`h`; angle
brackets are its means, :math:`L = \langle\ell\rangle`, :math:`G = \langle g\rangle`, :math:`H = \langle h\rangle`, and
:math:`\Sigma = \langle gg^\top\rangle - GG^\top` is the covariance of *one* example's gradient. A training set is N
independent draws, batch losses are means, and the gap is the test loss L minus the training loss. The start theta0 does
not depend on the training set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from implicitreg.problems import FiniteProblem
from numpy.typing import ArrayLike

__all__ = [
    "GapAfter",
    "Moments",
    "OneStepGap",
    "all_orders",
    "batch_covariance",
    "divergence",
    "gap_after",
    "many_steps",
    "moments",
    "one_step",
    "variance",
]

MAX_GRADIENTS = 200_000  # steps times losses of `many_steps`: some minutes


@dataclass(frozen=True, eq=False)
class Moments:
    r"""Moments of the gradient and the Hessian of one example; see :func:`moments`.

    Attributes
    ----------
    G, H, Sigma : ndarray (d,), (d, d), (d, d)
        Mean gradient, mean Hessian, covariance of the gradient.
    trace, grad_trace : float, ndarray (d,)
        :math:`\operatorname{tr}\Sigma` and its gradient in theta, :math:`2\langle (h-H)(g-G)\rangle`.
    kappa3 : float
        :math:`\langle (g-G)^\top (h-H)\, (g-G)\rangle`.
    trace_H_Sigma : float
        :math:`\operatorname{tr}(H\Sigma)`.
    """

    G: np.ndarray
    H: np.ndarray
    Sigma: np.ndarray
    trace: float
    grad_trace: np.ndarray
    kappa3: float
    trace_H_Sigma: float
    __repr__ = brief


@dataclass(frozen=True)
class OneStepGap:
    """The mean change of the gap in one step: first order in eta, and the total through eta²; see :func:`one_step`."""

    leading: float
    next_order: float


@dataclass(frozen=True)
class GapAfter:
    """Mean gaps (``sgd``, ``gd``) and mean test losses (``test_sgd``, ``test_gd``); see :func:`gap_after`."""

    sgd: float
    gd: float
    test_sgd: float
    test_gd: float


@_validate.in_range
def moments(problem: FiniteProblem, theta: ArrayLike | None = None) -> Moments:
    r"""Mean gradient and Hessian, gradient covariance, and the third moment that the formulas of this module need.

    .. math:: \partial \operatorname{tr}\Sigma = 2 \langle (h - H)(g - G) \rangle, \qquad
              \kappa_3 = \langle (g - G)^\top (h - H)\, (g - G) \rangle .

    Exact up to rounding: derivatives by automatic differentiation, means as finite sums over the m examples.

    Parameters
    ----------
    problem : FiniteProblem
        The m losses and their probabilities.
    theta : array_like (d,), optional
        Where; by default at ``problem.theta0``.

    Returns
    -------
    Moments
        ``G (d,)``, ``H (d, d)``, ``Sigma (d, d)``, ``trace``, ``grad_trace (d,)``, ``kappa3``, ``trace_H_Sigma``.

    Raises
    ------
    ValueError
        If theta has another shape than ``(d,)``, or a gradient or Hessian there is not finite.
    TypeError
        If ``problem`` is no FiniteProblem, or theta is not numeric.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, eq. (4).

    Examples
    --------
    Curvature h = 1 or 3 with equal probability: at theta the gradient is h theta, so tr Sigma = theta²:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> at = moments(problem, [3.0])
    >>> print(at.trace, at.grad_trace)
    9.0 [6.]
    """
    problem = _problem("problem", problem)
    theta = problem.theta0 if theta is None else _validate.vector("theta", theta, size=problem.d)
    p = problem.probabilities
    _, g, h = problem.derivatives(2, theta)
    G, H = p @ g, np.tensordot(p, h, 1)
    c = g - G
    hc = np.einsum("mij,mj->mi", h - H, c)
    Sigma = (p * c.T) @ c
    return Moments(
        G, H, Sigma, float(p @ (c * c).sum(1)), 2 * p @ hc, float(p @ (c * hc).sum(1)), float((H * Sigma).sum())
    )


def batch_covariance(A: ArrayLike, B: ArrayLike, *, N: int | None = None) -> float:
    r"""The number c in :math:`\operatorname{Cov}(g^A, g^B) = c\,\Sigma` for the mean gradients of two batches.

    .. math:: c = \sum_a \frac{m_A(a)\, m_B(a)}{|A|\,|B|}, \qquad\text{without repetitions}\quad
              c = \frac{|A \cap B|}{|A|\,|B|},

    where :math:`m_A(a)` counts how often the batch A holds the index a. Different indices are independent examples,
    even when their values agree.

    Parameters
    ----------
    A, B : array_like of int, one-dimensional
        Indices of examples, not negative, in any order; an index may stand several times.
    N : int, optional
        Without it, the examples are independent draws and the covariance is over the draws. With it, the indices
        0 ... N − 1 are a *fixed* training set in uniformly random order, the covariance is over the order, and the
        number returned is that of the sample covariance S (with 1/(N − 1)): c − 1/N. Disjoint batches have −1/N then.

    Returns
    -------
    float
        c, or c − 1/N.

    Raises
    ------
    ValueError
        If a batch is empty, an index is negative or at least N, or N < 2.
    TypeError
        If the indices or N are no integers.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, eq. (5).

    Examples
    --------
    >>> batch_covariance([0, 1], [1, 2, 3, 4])
    0.125
    >>> batch_covariance([0, 1], [2, 3], N=4)
    -0.25
    """
    limit = None if N is None else _validate.integer("N", N, low=2)
    A, B = _indices("A", A, limit), _indices("B", B, limit)
    size = 1 + max(A.max(), B.max())
    overlap = int(np.bincount(A, minlength=size) @ np.bincount(B, minlength=size))
    return overlap / (A.size * B.size) - (0.0 if limit is None else 1 / limit)


@_validate.in_range
def one_step(problem: FiniteProblem, eta: float, N: int) -> OneStepGap:
    r"""The mean change of the gap in one step of gradient descent on N fresh examples.

    .. math:: \langle\delta\epsilon\rangle = \frac{\eta \operatorname{tr}\Sigma}{N}
              - \frac{\eta^2}{2N}\, G\cdot\partial\operatorname{tr}\Sigma - \frac{\eta^2}{2N^2}\,\kappa_3 + O(\eta^3).

    Parameters
    ----------
    problem : FiniteProblem
        The distribution, and the start theta0, which is the same for every training set.
    eta : float
        The step size, positive; it multiplies the gradient of the mean loss.
    N : int
        The number of training examples.

    Returns
    -------
    OneStepGap
        ``leading``, the first term, and ``next_order``, the sum of the three.

    Raises
    ------
    ValueError, TypeError
        If eta is not a positive number, or so large that the result overflows, N is not a positive integer, or
        ``problem`` is no FiniteProblem.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, eq. (9), which is ``leading``.

    Examples
    --------
    Curvature 1 or 3: after a step on two examples the gap is eta/2 − eta², with no further terms:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> print(one_step(problem, 0.1, 2))
    OneStepGap(leading=0.05, next_order=0.04)
    """
    problem, eta, N = _arguments(problem, eta, N)
    at = moments(problem)
    leading = eta * at.trace / N
    second = float(at.G @ at.grad_trace) + at.kappa3 / N
    return OneStepGap(leading, _finite(eta, leading - eta * eta / (2 * N) * second))


@_validate.in_range
def all_orders(problem: FiniteProblem, eta: float, N: int) -> float:
    r"""The mean change of the gap in one step of any size, to leading order in 1/N.

    .. math:: \langle\delta\epsilon\rangle = \frac{\eta}{N}
              \operatorname{tr}\operatorname{Cov}\big[g(\theta - \eta G),\, g(\theta)\big] + O(N^{-2}) .

    Parameters, conventions and errors are those of :func:`one_step`; this is :func:`many_steps` with T = 1.

    Notes
    -----
    The expansion of ``one_step`` in eta is the Taylor series of this formula plus terms of order 1/N².

    References
    ----------
    A sequel to Roberts, SGD Implicitly Regularizes Generalization Error, eq. (9), which is its first order.

    Examples
    --------
    Curvature 1 or 3: the step shrinks the mean to 1 − 2 eta, and both gradients with it:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> print(all_orders(problem, 0.25, 100), 0.25 / 100 * (1 - 2 * 0.25))
    0.00125 0.00125
    """
    problem, eta, N = _arguments(problem, eta, N)
    p, here = problem.probabilities, problem.gradients(problem.theta0[None])[0]
    there = problem.gradients((problem.theta0 - eta * p @ here)[None])[0]
    return float(eta / N * p @ ((there - p @ there) * (here - p @ here)).sum(1))


@_validate.in_range
def many_steps(problem: FiniteProblem, eta: float, N: int, T: int) -> float:
    r"""The mean gap after T steps of gradient descent on one training set of N, to leading order in 1/N, for any eta.

    .. math:: \langle\epsilon_T\rangle = \frac{\eta}{N} \sum_{t<T} \operatorname{tr}\operatorname{Cov}\Big[
              g(\bar\theta_T),\; (I - \eta H_{T-1}) \cdots (I - \eta H_{t+1})\, g(\bar\theta_t)\Big] + O(N^{-2})

    along the path of gradient descent on the population,
    :math:`\bar\theta_{t+1} = \bar\theta_t - \eta G(\bar\theta_t)`, with :math:`H_s = H(\bar\theta_s)`.

    Parameters
    ----------
    problem : FiniteProblem
        The distribution, and the start theta0, which is the same for every training set.
    eta : float
        The step size, positive.
    N : int
        Training examples.
    T : int
        Steps on all of them (0 gives no gap).

    Returns
    -------
    float
        The mean gap (that of the start is zero in the mean).

    Raises
    ------
    ValueError
        If eta, N or T is out of its range (T times the number of losses is at most ``MAX_GRADIENTS``), or the path
        overflows.
    TypeError
        If an argument is not of its type.

    Notes
    -----
    Adding up :math:`\eta\operatorname{tr}\Sigma(\bar\theta_t)/N` over the steps is *not* this formula: from the second
    step on, theta depends on the training set, and earlier deviations are forgotten at the rate
    :math:`I - \eta H`.

    References
    ----------
    A sequel to Roberts, SGD Implicitly Regularizes Generalization Error, eq. (9).

    Examples
    --------
    Curvature 1 or 3: all T terms are alike, (1 − 2 eta)^(2T − 1):

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> print(many_steps(problem, 0.25, 100, 3), 0.25 / 100 * 3 * 0.5**5)
    0.000234375 0.000234375
    """
    problem, eta, N = _arguments(problem, eta, N)
    T = _validate.integer("T", T, low=0, high=MAX_GRADIENTS // problem.m)
    p, theta = problem.probabilities, problem.theta0
    spread = np.zeros((problem.m, problem.d))  # what each example adds to the deviation, in units of -eta/N
    for t in range(T):
        _, g, h = problem.derivatives(2, theta)
        G, H = p @ g, np.tensordot(p, h, 1)
        spread = spread - eta * spread @ H + (g - G)
        theta = _step(theta, eta, G, t + 1)
    g = problem.gradients(theta[None])[0]
    return float(eta / N * p @ (spread * (g - p @ g)).sum(1))


@_validate.in_range
def gap_after(problem: FiniteProblem, eta: float, *, N: int, K: int) -> GapAfter:
    r"""Mean gap and test loss after K steps of SGD and of gradient descent, through eta².

    SGD takes one epoch: K disjoint batches of N/K examples each. Gradient descent takes K steps on all N, with the same
    step size. With :math:`c = G\cdot\partial\operatorname{tr}\Sigma`,

    .. math::

        \langle\epsilon\rangle_{SGD} &= \frac{\eta K\operatorname{tr}\Sigma}{N}
            - \frac{\eta^2}{N}\Big\{\tbinom K2\big[\operatorname{tr}(H\Sigma) + \tfrac12 c\big]
            + \tfrac{K^2}{2} c\Big\} - \frac{\eta^2 K^2}{2N^2}\,\kappa_3 + O(\eta^3), \\
        \langle\epsilon\rangle_{GD} &= \langle\epsilon\rangle_{SGD} - \frac{\eta^2}{N^2}\tbinom K2\,\kappa_3
            + O(\eta^3), \\
        \langle L\rangle_{SGD} &= L - \eta K |G|^2 + \eta^2\tbinom K2\, G^\top HG
            + \frac{\eta^2K^2}{2}\Big[G^\top HG + \frac{\operatorname{tr}(H\Sigma)}{N}\Big] + O(\eta^3), \\
        \langle L\rangle_{GD} &= \langle L\rangle_{SGD} + \frac{\eta^2 K(K-1)}{4N}\, c + O(\eta^3) .

    Parameters
    ----------
    problem : FiniteProblem
        The distribution, and the start theta0, which is the same for every training set.
    eta : float
        The step size, positive.
    N : int
        Training examples.
    K : int
        Batches of an epoch, a divisor of N; steps of either method.

    Returns
    -------
    GapAfter
        ``sgd`` and ``gd``, the mean gaps; ``test_sgd`` and ``test_gd``, the mean test losses (not their changes).

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type, K does not divide N, or the result overflows.

    Notes
    -----
    The two gaps differ only at order 1/N², with the sign of :math:`-\kappa_3`: at this order SGD's gap may be the
    larger one.

    References
    ----------
    A sequel to Roberts, SGD Implicitly Regularizes Generalization Error, section 3.

    Examples
    --------
    Curvature 1 or 3 at theta = 1, two steps on N = 2: here kappa3 = 0, so the gaps agree, eta − 6 eta² + O(eta³):

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> after = gap_after(problem, 0.01, N=2, K=2)
    >>> print(round(after.sgd, 12), round(after.gd, 12), round(after.test_gd - after.test_sgd, 12))
    0.0094 0.0094 0.0001
    """
    problem, eta, N = _arguments(problem, eta, N)
    K = _validate.integer("K", K, low=1, high=N)
    if N % K:
        raise ValueError(f"K = {K}: expected a divisor of N = {N}")
    at, pairs = moments(problem), math.comb(K, 2)
    c, GHG = at.G @ at.grad_trace, at.G @ at.H @ at.G
    second = pairs * (at.trace_H_Sigma + c / 2) + K**2 / 2 * (c + at.kappa3 / N)
    sgd = eta * K * at.trace / N - eta * eta / N * second
    test = -eta * K * at.G @ at.G + eta * eta * (pairs * GHG + K**2 / 2 * (GHG + at.trace_H_Sigma / N))
    test += problem.loss(problem.theta0)
    gd, test_gd = sgd - eta * eta * pairs * at.kappa3 / N**2, test + eta * eta * pairs * c / (2 * N)
    return GapAfter(*(_finite(eta, float(x)) for x in (sgd, gd, test, test_gd)))


@_validate.in_range
def variance(problem: FiniteProblem, N: int, M: float) -> float:
    r"""Variance of the change of the gap in one step over training and test sets, divided by eta², as eta → 0.

    With N training and M test examples, all independent, :math:`\delta\epsilon/\eta \to g^D\cdot(g^D - g^A)` and

    .. math:: \frac{\operatorname{Var}\delta\epsilon}{\eta^2} = G^\top\Sigma G\Big(\frac1N + \frac1M\Big)
              + \frac{2t_3 + 2\operatorname{tr}\Sigma^2}{N^2} + \frac{\operatorname{tr}\Sigma^2}{NM}
              + \frac{\mu_4 - (\operatorname{tr}\Sigma)^2 - 2\operatorname{tr}\Sigma^2}{N^3},

    exactly, where :math:`t_3 = G\cdot\langle (g-G)\,|g-G|^2\rangle` and :math:`\mu_4 = \langle |g-G|^4\rangle`.

    Parameters
    ----------
    problem : FiniteProblem
        The distribution, and the start theta0.
    N : int
        Training examples.
    M : int or math.inf
        Test examples; ``math.inf`` when the test loss is that of the population.

    Returns
    -------
    float
        The variance per eta².

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, section 4, asks whether the gap self-averages.

    Examples
    --------
    One training and one test example with gradients 1 or 3: g (g − g') is 0, 0, −2 or 6, of variance 9:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> variance(problem, 1, 1)
    9.0
    """
    problem, N = _problem("problem", problem), _validate.integer("N", N, low=1)
    M = M if isinstance(M, float) and M > 0 and math.isinf(M) else _validate.integer("M", M, low=1)
    p, g = problem.probabilities, problem.gradients(problem.theta0[None])[0]
    G = p @ g
    c = g - G
    Sigma, square = (p * c.T) @ c, (c * c).sum(1)
    signal, trace, trace2 = G @ Sigma @ G, p @ square, (Sigma**2).sum()
    t3, mu4 = G @ (p * square @ c), p @ square**2
    total = signal * (1 / N + 1 / M) + 2 * (t3 + trace2) / N**2 + trace2 / (N * M)
    return float(total + (mu4 - trace**2 - 2 * trace2) / N**3)


@_validate.in_range
def divergence(train: FiniteProblem, test: FiniteProblem, eta: float, N: int) -> float:
    r"""The mean change of the gap in one step, to first order in eta, when training and test distributions differ.

    .. math:: \langle\delta\epsilon\rangle = \frac{\eta\operatorname{tr}\Sigma_{train}}{N}
              + \eta\, G_{train}\cdot(G_{train} - G_{test}) + O(\eta^2)

    Parameters
    ----------
    train, test : FiniteProblem
        Two distributions with the same start theta0. The N training examples are fresh draws from the first.
    eta : float
        The step size, positive.
    N : int
        Training examples.

    Returns
    -------
    float
        The sum of the two terms.

    Raises
    ------
    ValueError, TypeError
        If the starts differ, or an argument is out of its range or not of its type.

    Notes
    -----
    The paper prints the second term with the opposite sign. The moments are those of the *training distribution*. If
    :math:`g^D` is measured on the actual training set, then :math:`\eta\, g^D\cdot(g^D - G_{test})` is the whole
    answer, and adding :math:`\operatorname{tr}\Sigma/N` counts it twice.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, section 4, with its sign corrected.

    Examples
    --------
    One training example with gradient 2, and gradient 1 in the test: a step eta lowers the losses by 4 eta and 2 eta:

    >>> from implicitreg import FiniteProblem
    >>> train, test = (FiniteProblem([lambda t, a=a: a * t[0]], [1.0], [0.0]) for a in (2, 1))
    >>> divergence(train, test, 0.5, 1)
    1.0
    """
    train, eta, N = _arguments(train, eta, N, "train")
    test = _problem("test", test)
    if not np.array_equal(train.theta0, test.theta0):
        raise ValueError(f"test.theta0 = {test.theta0.tolist()}: expected that of train, {train.theta0.tolist()}")
    at, other = moments(train), moments(test)
    return float(eta * (at.trace / N + at.G @ (at.G - other.G)))


def _problem(name: str, value: FiniteProblem) -> FiniteProblem:
    if not isinstance(value, FiniteProblem):
        raise TypeError(f"{name} = {value!r}: expected a FiniteProblem")
    return value


def _arguments(problem: FiniteProblem, eta: float, N: int, name: str = "problem") -> tuple[FiniteProblem, float, int]:
    eta = _validate.number("eta", eta, above=0)
    return _problem(name, problem), eta, _validate.integer("N", N, low=1)


def _indices(name: str, value: ArrayLike, N: int | None) -> np.ndarray:
    indices = _validate.array(name, value)
    if indices.ndim != 1 or indices.size == 0:
        raise ValueError(f"{name} has shape {indices.shape}: expected a non-empty one-dimensional array of indices")
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {indices.dtype}: expected integers")
    if indices.min() < 0 or (N is not None and indices.max() >= N):
        wanted = "indices >= 0" if N is None else f"indices from 0 to {N - 1}"
        raise ValueError(f"{name} holds {indices.min()} and {indices.max()}: expected {wanted}")
    return indices.astype(np.int64)


def _finite(eta: float, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"eta = {eta}: the expansion overflows; expected a smaller step")
    return value


def _step(theta: np.ndarray, eta: float, G: np.ndarray, t: int) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported by name
        theta = theta - eta * G
    if not np.isfinite(theta).all():
        raise ValueError(f"eta = {eta}: the population's path overflows by step {t}; expected a smaller step")
    return theta
