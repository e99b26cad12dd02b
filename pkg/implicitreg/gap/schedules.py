r"""How the mean path of SGD differs from that of gradient descent: batch schedules, epochs, momentum, modified losses.

Training points are independent draws from a problem's distribution, batch losses are means, N is the size of the
whole training set and n = N/K that of a batch. Two runs are compared at the same step size and number of steps. All
differences are GD − SGD: gradient descent uses its data again in every step, and that is what drifts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from implicitreg._torch import torch
from implicitreg.exact import ExactRun, _multinomial, _multisets, _pascal, _step_matrix
from implicitreg.problems import FiniteProblem, _batched
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "MAX_STEPS",
    "MAX_UPDATES",
    "SAMPLERS",
    "FixedHorizon",
    "TwoNumbers",
    "barrett_dherin_penalty",
    "data_drift",
    "data_modified_gd",
    "drift",
    "fixed_horizon",
    "modified_coefficient",
    "modified_gd",
    "modified_gradient",
    "modified_loss",
    "pair_sum",
    "paths",
    "roberts_penalty",
    "schedule_drift",
    "smith_penalty",
    "two_numbers",
]

MAX_UPDATES = 2_000_000  # training sets times steps in modified_gd: about a minute on one core
MAX_STEPS = 10_000_000  # the sums over steps stay below a second
MAX_GRADIENTS = 200_000  # steps times losses of `data_modified_gd`, two passes of torch each: minutes
MAX_VELOCITIES = 10_000  # evaluations of `fixed_horizon`, some ten passes of torch each: up to a minute

SAMPLERS = ("gd", "epochs", "subsets", "with_replacement")


# --- expectations over training sets --------------------------------------------------------------------------


def drift(
    problem: FiniteProblem, eta: float | ArrayLike, *, N: int, K: int, epochs: int = 1, momentum: float = 0.0,
    reshuffle: bool = True,
) -> np.ndarray:  # fmt: skip
    r"""Mean of GD minus mean of SGD after whole epochs of K disjoint batches, to leading order.

    .. math:: \langle\theta^{GD} - \theta^{SGD}\rangle = \frac{\eta^2 W}{2N}\,\partial\,\mathrm{tr}\,\Sigma + O(\eta^3),
              \qquad W = E\,\frac{K(K-1)}2 \ \text{without momentum},

    over training sets and batch orders, both from ``problem.theta0`` with the same number of steps EK. For K = 2 and
    one epoch it is :math:`-\eta\langle\delta g\rangle` with :math:`\langle\delta g\rangle = -\frac12\partial\langle
    \delta\epsilon\rangle`, where :math:`\langle\delta\epsilon\rangle = \eta\,\mathrm{tr}\,\Sigma/N`.

    Parameters
    ----------
    problem : FiniteProblem
        The law of the examples; derivatives are taken at ``theta0 (d,)``.
    eta : float or array_like (d, d)
        The step size, or a symmetric positive definite matrix M (a constant preconditioner times the step size): then
        :math:`\eta^2\partial\,\mathrm{tr}\,\Sigma` is replaced by :math:`M\,\partial\,\mathrm{tr}(M\Sigma)`.
    N, K : int
        Training points and batches an epoch; K divides N, and batches have n = N/K points.
    epochs : int
        E, the number of epochs.
    momentum : float
        The heavy-ball coefficient of ``torch.optim.SGD``, 0 <= beta < 1, from velocity zero.
    reshuffle : bool
        Whether every epoch draws a fresh order. Without momentum it makes no difference at this order; with momentum
        and more than one epoch it does.

    Returns
    -------
    ndarray (d,)
        The term of order :math:`\eta^2`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type, or K does not divide N.

    Notes
    -----
    With :math:`a_m = (1-\beta^m)/(1-\beta)`, W is the sum over pairs of steps j < k of :math:`a_{T-k}\,a_{k-j}` times
    1 - N times the mean overlap of their batches: 1 within an epoch, 0 between reshuffled epochs, and :math:`1 - K`
    (the same batch) or 1 between repeated ones. A preconditioner *estimated on the batch* is not covered: it makes the
    means differ already at order :math:`\eta`.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, eq. (13) and section 4.

    Examples
    --------
    Curvature 1 or 3, from theta = 1: the derivative of tr Σ = θ² is 2, so that for K = N = 2 the drift is η²/2. This is
    exact here, as two SGD steps on different points multiply by (1 − 2η)² on average, and two GD steps by
    (1 − 2η)² + η²/2:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> print(round(drift(problem, 0.1, N=2, K=2)[0], 15))
    0.005
    """
    problem, metric = _problem(problem), _metric(problem, eta)
    N, K = _split(N, K)
    T = K * _validate.integer("epochs", epochs, low=1)
    if T > MAX_STEPS:
        raise ValueError(f"epochs = {epochs} of K = {K} steps: expected at most {MAX_STEPS:,} steps")
    W = _epoch_weight(K, T, _momentum(momentum), _flag("reshuffle", reshuffle))
    return W / (2 * N) * _grad_trace(problem, metric)[0] @ metric


def schedule_drift(
    problem: FiniteProblem, etas: ArrayLike, batches: Sequence[ArrayLike], N: int, *, momentum: float = 0.0
) -> np.ndarray:
    r"""Mean of GD minus mean of SGD for any schedule of batches and step sizes, to leading order.

    .. math:: \langle\theta^{GD}_T - \theta^{SGD}_T\rangle = \tfrac12\,\partial\,\mathrm{tr}\,\Sigma
              \sum_{j<k}\eta_j\eta_k\Big(\frac1N - \frac{|B_j\cap B_k|}{|B_j||B_k|}\Big) + O(\eta^3),

    over training sets, for a fixed schedule; for a random one take the mean. GD uses all N points with the same
    :math:`\eta_k`.

    Parameters
    ----------
    problem : FiniteProblem
        The law of the examples; derivatives are taken at ``theta0 (d,)``.
    etas, batches, N, momentum
        As in :func:`pair_sum`, which gives the sum.

    Returns
    -------
    ndarray (d,)
        The term of second order in the step sizes.

    Raises
    ------
    ValueError, TypeError
        As :func:`pair_sum`.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, eqs. (11)-(13), for any schedule.

    Examples
    --------
    Using the same half of the data twice drifts the other way, by as much as K = 2 disjoint halves:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> for second in ([1], [0]):
    ...     print(schedule_drift(problem, [0.1, 0.1], [[0], second], 2).round(12))
    [0.005]
    [-0.005]
    """
    problem = _problem(problem)
    return pair_sum(etas, batches, N, momentum=momentum) / 2 * _grad_trace(problem, np.eye(problem.d))[0]


def pair_sum(etas: ArrayLike, batches: Sequence[ArrayLike], N: int, *, momentum: float = 0.0) -> float:
    r"""The sum over pairs of steps that multiplies :math:`\frac12\,\partial\,\mathrm{tr}\,\Sigma` in the drift.

    .. math:: \sum_{j<k} a_{T,k}\,a_{k,j}\Big(\frac1N - \sum_i W_j^i W_k^i\Big), \qquad
              a_{t,s} = \sum_{r=s}^{t-1}\eta_r\beta^{r-s},

    where :math:`W_k^i` is the share of point i in batch k, so that a point drawn twice counts twice; for sets the sum
    is :math:`|B_j\cap B_k|/(|B_j||B_k|)`. Without momentum :math:`a_{T,k}a_{k,j} = \eta_j\eta_k`.

    Parameters
    ----------
    etas : array_like (T,)
        Positive step sizes.
    batches : sequence of T sequences of int
        The points of each batch, from 0 to N − 1, with repetitions where a point is used more than once.
    N : int
        Size of the training set.
    momentum : float
        The heavy-ball coefficient, 0 <= beta < 1; the velocity is updated as in ``torch.optim.SGD``.

    Raises
    ------
    ValueError
        If a batch is empty or names a point that does not exist, if the numbers of steps and batches differ, or a
        number is out of its range.
    TypeError
        If an argument is not of its type.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, eq. (5) for the overlaps.

    Examples
    --------
    Three disjoint batches, of sizes 1, 2 and 1: three pairs, each 1/4.

    >>> pair_sum([1, 1, 1], [[0], [1, 2], [3]], 4)
    0.75
    """
    etas = _validate.vector("etas", etas)
    if etas.min() <= 0:
        raise ValueError(f"etas[{int(etas.argmin())}] = {etas.min():g}: expected positive step sizes")
    W = _shares(batches, _validate.integer("N", N, low=1))
    if len(W) != etas.size:
        raise ValueError(f"batches has {len(W)} batches: expected {etas.size}, one for each of etas")
    a = _influence(etas, _momentum(momentum))
    return float(np.sum(a[-1][:, None] * a[:-1] * (1 / N - W @ W.T)))


def modified_coefficient(K: int, momentum: float = 0.0) -> float:
    r"""The c for which K GD steps on :math:`\ell + c\,\langle\delta\epsilon\rangle` follow the mean of one SGD epoch.

    .. math:: c = \frac{W}{2\sum_{m=1}^K a_m}, \quad W = \sum_{m+l\le K} a_m a_l, \quad a_m = \frac{1-\beta^m}{1-\beta};
              \qquad c = \frac{K-1}4 \ \text{for}\ \beta = 0,

    with :math:`\langle\delta\epsilon\rangle = \eta\,\mathrm{tr}\,\Sigma/N`, K batches without replacement, and both
    runs with the same momentum from velocity zero. The means then agree through :math:`\eta^2`.

    Parameters
    ----------
    K : int
        Batches an epoch.
    momentum : float
        The heavy-ball coefficient, 0 <= beta < 1.

    Raises
    ------
    ValueError, TypeError
        If K is not a positive integer or the momentum not in [0, 1).

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, below eq. (13): K = 2, no momentum.

    Examples
    --------
    >>> modified_coefficient(2)
    0.25
    >>> print(round(modified_coefficient(3, 0.5) * 17, 12))
    8.0
    """
    K = _validate.integer("K", K, low=1, high=MAX_STEPS)
    beta = _momentum(momentum)
    return float(_epoch_weight(K, K, beta, True) / (2 * _lag_weights(beta, K)[1:].sum()))


def modified_gd(
    problem: FiniteProblem, eta: float | ArrayLike, *, N: int, K: int, epochs: int = 1, momentum: float = 0.0,
    covariance: str = "population", coefficient: float | None = None,
) -> ExactRun:  # fmt: skip
    r"""GD on the modified loss, in expectation over all training sets, at finite step size.

    EK steps of gradient descent on

    .. math:: \ell_D(\theta) + c\,\frac\eta N\,\mathrm{tr}\,\Sigma(\theta),

    averaged over every training set D of N independent examples by enumeration.

    Parameters
    ----------
    problem, eta, N, K, epochs, momentum
        As in :func:`drift`; for a matrix M the penalty is :math:`c\,\mathrm{tr}(M\Sigma)/N`.
    covariance : {"population", "sample"}
        Σ of the law, or the sample covariance S of each training set with 1/(N − 1).
    coefficient : float, optional
        c; by default ``modified_coefficient(K, momentum)``, that is (K − 1)/4 without momentum.

    Returns
    -------
    ExactRun
        ``theta``, ``theta_cov``, ``test_loss`` and ``train_loss`` as from ``exact.run``; the losses without the
        penalty.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type, or the training sets times steps exceed ``MAX_UPDATES``.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, below eq. (13).

    Examples
    --------
    Curvature 1 or 3: tr Σ = θ², so that with K = N = 2 the penalty is ηθ²/8 and a step multiplies by 1 − η(h + η/4). At
    η = 1/10 the mean of two such steps is (1 − 8/40 − 1/400)² + 1/200:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> theta = modified_gd(problem, 0.1, N=2, K=2).theta[0]
    >>> print(round(theta, 12), round((1 - 8 / 40 - 1 / 400) ** 2 + 1 / 200, 12))
    0.64100625 0.64100625
    """
    problem, metric = _problem(problem), _metric(problem, eta)
    N, K = _split(N, K)
    sample = _validate.choice("covariance", covariance, ("population", "sample")) == "sample"
    c = modified_coefficient(K, momentum) if coefficient is None else _validate.number("coefficient", coefficient)
    T = K * _validate.integer("epochs", epochs, low=1)
    if sample and N == 1:
        raise ValueError("N = 1: expected at least two points for a sample covariance")
    counts = _training_sets(problem, N, T)
    shares = counts / N
    law, scale = (shares, N / (N - 1)) if sample else (problem.probabilities, 1.0)

    def gradient(_: int, thetas: np.ndarray) -> np.ndarray:
        return _mix(shares, problem.gradients(thetas)) + c / N * scale * _grad_trace(problem, metric, thetas, law)

    start = np.repeat(problem.theta0[None], len(counts), axis=0)
    ends = list(_descend(metric, gradient, start, T, _momentum(momentum)))[-1]
    return _averages(problem, ends, shares, _multinomial(counts, problem.probabilities, _pascal(N)))


# --- one fixed data set -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoNumbers:
    r"""What a sampler does at order :math:`\eta^2`: ``D`` injected step by step, ``A`` left at the end.

    ``drift`` = (D − A)/4 is the coefficient of :math:`\eta^2\,\partial\,\mathrm{tr}\,S` in GD minus the sampler's mean,
    ``spread`` = A that of :math:`\eta^2 S` in its covariance.
    """

    D: float
    A: float

    @property
    def drift(self) -> float:
        return (self.D - self.A) / 4

    @property
    def spread(self) -> float:
        return self.A


def two_numbers(sampler: str, *, N: int, K: int, epochs: int = 1) -> TwoNumbers:
    r"""The two numbers of a sampler on a fixed data set: what it injects and what it keeps.

    Step t uses the weights :math:`W_t` on the N examples, with mean 1/N and sum one. For T = EK steps

    .. math:: D = \sum_t\mathrm{tr}\,\mathrm{Var}\,W_t, \qquad A = \mathrm{tr}\,\mathrm{Var}\sum_tW_t, \qquad
              \theta^{GD}_T - \mathrm E\,\theta_T = \tfrac{\eta^2}4(D - A)\,\partial\,\mathrm{tr}\,S + O(\eta^3), \qquad
              \mathrm{Cov}\,\theta_T = \eta^2A\,S + O(\eta^3).

    Parameters
    ----------
    sampler : {"gd", "epochs", "subsets", "with_replacement"}
        All data; K disjoint batches of n = N/K an epoch in random order (reshuffled or not); an independent n-subset in
        every step; n independent draws in every step.
    N, K, epochs : int
        Examples, steps an epoch (a divisor of N), epochs E.

    Returns
    -------
    TwoNumbers
        D and A: (0, 0); (T(1/n − 1/N), 0); D = A = T(1/n − 1/N); D = A = T(N − 1)/(Nn).

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type.

    Notes
    -----
    S is the sample covariance with 1/(N − 1). The expectation is over the sampler only; the statement holds for every
    data set, with constant step size and no momentum.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, eqs. (12) and (13), for a fixed data set.

    Examples
    --------
    >>> two_numbers("epochs", N=12, K=4, epochs=2)
    TwoNumbers(D=2.0, A=0.0)
    >>> two_numbers("subsets", N=12, K=4, epochs=2).drift
    0.0
    """
    _validate.choice("sampler", sampler, SAMPLERS)
    N, K = _split(N, K)
    T = K * _validate.integer("epochs", epochs, low=1)
    if sampler == "gd":
        return TwoNumbers(0.0, 0.0)
    D = T * (N - 1) * K / N**2 if sampler == "with_replacement" else T * (K - 1) / N
    return TwoNumbers(D, 0.0 if sampler == "epochs" else D)


def data_drift(problem: FiniteProblem, eta: float, *, K: int, epochs: int = 1, sampler: str = "epochs") -> np.ndarray:
    r"""GD minus the mean of a sampler on one fixed data set, to leading order.

    .. math:: \theta^{GD}_T - \mathrm E\,\theta_T = \tfrac{\eta^2}4(D - A)\,\partial\,\mathrm{tr}\,S + O(\eta^3), \qquad
              S = \tfrac1{N-1}\textstyle\sum_i(g_i - \bar g)(g_i - \bar g)^\top .

    Parameters
    ----------
    problem : FiniteProblem
        The data set: its m examples, with equal probabilities, are the N training points.
    eta : float
        The step size.
    K, epochs, sampler
        As in :func:`two_numbers`.

    Returns
    -------
    ndarray (d,)
        The term of order :math:`\eta^2`; for ``"epochs"`` :math:`\frac{\eta^2K(K-1)E}{4N}\,\partial\,\mathrm{tr}\,S`.

    Raises
    ------
    ValueError, TypeError
        If the probabilities are not equal, there is only one example, or as in :func:`two_numbers`.

    References
    ----------
    Smith, Dherin, Barrett, De, On the Origin of Implicit Regularization in Stochastic Gradient
    Descent (2021): the order average of one epoch.

    Examples
    --------
    Curvatures 1 and 3 as the data: S = 2θ², twice the population variance, so that the drift is twice that of
    :func:`drift` with N = 2:

    >>> from implicitreg import FiniteProblem
    >>> data = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> print(data_drift(data, 0.1, K=2).round(15))
    [0.01]
    """
    problem = _data_set(problem)
    eta = _validate.number("eta", eta, above=0)
    numbers = two_numbers(sampler, N=problem.m, K=K, epochs=epochs)
    return eta**2 * numbers.drift * _grad_sample_trace(problem, problem.theta0)


def data_modified_gd(problem: FiniteProblem, eta: float, *, K: int, epochs: int = 1) -> np.ndarray:
    r"""GD on the modified loss of one fixed data set: the path of the mean over shuffles through :math:`\eta^2`.

    .. math:: \theta_{t+1} = \theta_t
              - \eta\,\partial\Big[L_D + \frac\eta4\Big(\frac1n - \frac1N\Big)\mathrm{tr}\,S_D\Big](\theta_t).

    Parameters
    ----------
    problem, eta, K, epochs
        As in :func:`data_drift`; n = N/K.

    Returns
    -------
    ndarray (EK + 1, d)
        All iterates, the start included. At whole epochs the mean over shuffles of SGD agrees with it through
        :math:`\eta^2`, for every data set.

    Raises
    ------
    ValueError, TypeError
        As :func:`data_drift`, and if steps times examples exceed ``MAX_GRADIENTS``.

    References
    ----------
    The difference of the penalties of S. L. Smith et al. (2021) and D. G. T. Barrett and B. Dherin (2021), which is the
    modified loss of Roberts below eq. (13) with the sample covariance.

    Examples
    --------
    >>> from implicitreg import FiniteProblem
    >>> data = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> path = data_modified_gd(data, 0.1, K=2)          # the penalty is ηθ²/4: each step multiplies by 0.8 − 0.005
    >>> print(path[:, 0].round(12))
    [1.       0.795    0.632025]
    """
    problem = _data_set(problem)
    eta = _validate.number("eta", eta, above=0)
    N, K = _split(problem.m, K)
    T = K * _validate.integer("epochs", epochs, low=1, high=MAX_GRADIENTS // (K * N))

    def gradient(_: int, thetas: np.ndarray) -> np.ndarray:
        penalty = eta / 4 * (K - 1) / N * _grad_sample_trace(problem, thetas[0])
        return problem.gradients(thetas).mean(axis=1) + penalty

    start = problem.theta0[None]
    return np.concatenate([start, *_descend(eta * np.eye(problem.d), gradient, start, T, 0.0)])


def paths(problem: FiniteProblem, eta: float | ArrayLike, weights: ArrayLike, *, momentum: float = 0.0) -> np.ndarray:
    r"""SGD with prescribed weights: every sampler is a law of W, and this follows it.

    .. math:: v_{t+1} = \beta v_t + \sum_i W_t^i\,\nabla\ell_i(\theta_t), \qquad
              \theta_{t+1} = \theta_t - \eta v_{t+1} .

    Parameters
    ----------
    problem : FiniteProblem
        Its m losses and the start; the probabilities play no role.
    eta : float or array_like (d, d)
        As in :func:`drift`.
    weights : array_like (R, T, m)
        For each of R runs and T steps the weights of the examples: 1/m everywhere is GD on the m examples; a batch of n
        of them has 1/n on its members.
    momentum : float
        The heavy-ball coefficient, 0 <= beta < 1.

    Returns
    -------
    ndarray (R, T + 1, d)
        The iterates, the start included.

    Raises
    ------
    ValueError, TypeError
        If a shape or a number is not as described.

    Examples
    --------
    Curvatures 1 and 3, one after the other, in both orders: (1 − 0.1)(1 − 0.3) = 0.63.

    >>> from implicitreg import FiniteProblem
    >>> data = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> print(paths(data, 0.1, [[[1, 0], [0, 1]], [[0, 1], [1, 0]]])[:, -1].round(12).ravel())
    [0.63 0.63]
    """
    problem, metric = _problem(problem), _metric(problem, eta)
    W = _validate._floats("weights", weights)
    if W.ndim != 3 or 0 in W.shape or W.shape[2] != problem.m:
        raise ValueError(f"weights has shape {W.shape}: expected (runs, steps, {problem.m})")
    start = np.repeat(problem.theta0[None], len(W), axis=0)
    gradient = lambda t, thetas: _mix(W[:, t], problem.gradients(thetas))  # noqa: E731
    return np.stack([start, *_descend(metric, gradient, start, W.shape[1], _momentum(momentum))], axis=1)


@dataclass(frozen=True, eq=False)
class FixedHorizon:
    """Gradient flow ``theta (d,)``, shift ``m (d,)`` and spread ``C (d, d)``; with several times one row a time."""

    theta: np.ndarray
    m: np.ndarray
    C: np.ndarray
    __repr__ = brief


def fixed_horizon(problem: FiniteProblem, tau: float | ArrayLike, *, v: float, a: float) -> FixedHorizon:
    r"""How far a sampler's mean is from GD after training for a fixed time: drift, diffusion, and what diffusion bends.

    On one data set, with :math:`T = \tau/\eta` steps and :math:`\eta\to0`,

    .. math:: \mathrm E\,\theta_T - \theta^{GD}_T = \eta\,m(\tau) + O(\eta^2), \qquad
              \mathrm{Cov}\,\theta_T = \eta\,a\,C(\tau) + O(\eta^2),

    along gradient flow :math:`\dot\theta = -\partial L`, with :math:`m(0) = C(0) = 0` and

    .. math:: \dot m = -Hm - \tfrac v4(1 - a)\,\partial\,\mathrm{tr}\,S - \tfrac a2\,\nabla^3L : C, \qquad
              \dot C = -HC - CH + vS .

    Parameters
    ----------
    problem : FiniteProblem
        The data set: its m examples, with equal probabilities, are the N training points.
    tau : float or array_like (k,)
        Training time :math:`\eta T`, positive, or several, increasing.
    v : float
        Noise of one step, tr Var W: 1/n − 1/N for batches and subsets of size n, (N − 1)/(Nn) with replacement.
    a : float
        What is left of it after an epoch, A/D, at least 0: 0 without replacement, 1 for independent steps, K for one
        batch used K times.

    Returns
    -------
    FixedHorizon
        ``theta``, ``m`` and ``C`` at time tau, to a relative 1e-10 or so; with several times each has one row a time.
        The sign is sampler − GD, and C belongs to a = 1.

    Raises
    ------
    ValueError, TypeError
        If the probabilities are not equal, there is only one example, or a number is out of its range.
    RuntimeError
        If the flow cannot be followed to the last time in ``MAX_VELOCITIES`` evaluations, as where it blows up.

    Notes
    -----
    m is affine in a: sampling with replacement has no drift in an epoch at order :math:`\eta^2`, and over a training
    run a shift of the same order as that of sampling without. Proved under bounded derivatives, for a fixed number K
    of steps an epoch, and exchangeable examples.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, section 3: batches that do not overlap, the term of a = 0.
    Li, Tai, E, Stochastic Modified Equations and Dynamics of Stochastic Gradient Algorithms I (2019): the
    passage from local to global errors.

    Examples
    --------
    Quadratics of curvature 1 and 3 have no third derivative, so that only the drift is left. From θ = 1,
    L = θ², H = 2, ∂trS = 4θ = 4e^(−2t), and m' = −2m − (v/4) 4e^(−2t) gives m = −v t e^(−2t):

    >>> from implicitreg import FiniteProblem
    >>> data = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> m = fixed_horizon(data, 0.5, v=0.5, a=0.0).m[0]
    >>> print(round(m, 9), round(-0.5 * 0.5 * np.exp(-1), 9))
    -0.09196986 -0.09196986
    """
    from implicitreg import _solvers

    problem, d = _data_set(problem), problem.d
    times = _times(tau)
    v, a = _validate.number("v", v, low=0), _validate.number("a", a, low=0)

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        theta, m, C = state[:d], state[d : 2 * d], state[2 * d :].reshape(d, d)
        G, H, S, grad_trace, bend = _jet(problem, theta, C)
        dm = -H @ m - v / 4 * (1 - a) * grad_trace - a / 2 * bend
        return np.concatenate([-G, dm, (-H @ C - C @ H + v * S).ravel()])

    y = _solvers.integrate(
        f"tau = {times[-1]:g}", velocity, np.concatenate([problem.theta0, np.zeros(d + d * d)]), times,
        method="DOP853", rtol=1e-11, atol=1e-13 * _sizes(problem, times[-1], v, a), most=MAX_VELOCITIES,
        advice="earlier times (the flow may blow up or be stiff)",
    )  # fmt: skip
    ends = FixedHorizon(y[:, :d], y[:, d : 2 * d], y[:, 2 * d :].reshape(-1, d, d))
    return ends if np.ndim(tau) else FixedHorizon(ends.theta[0], ends.m[0], ends.C[0])


# --- penalties and models ---------------------------------------------------------------------------------------


def smith_penalty(gradients: ArrayLike, eta: float) -> float:
    r"""What gradient flow must add to follow the mean of a shuffled epoch: :math:`\frac\eta{4K}\sum_k|\partial L_k|^2`.

    Parameters
    ----------
    gradients : array_like (K, d)
        The gradients of the mean losses of the K equal batches of one epoch.
    eta : float
        The step size, positive.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type.

    References
    ----------
    Smith, Dherin, Barrett, De, On the Origin of Implicit Regularization in Stochastic Gradient
    Descent (2021).

    Examples
    --------
    >>> smith_penalty([[3.0, 4.0], [0.0, 1.0]], 0.4)     # 0.4 (25 + 1) / 8
    1.3
    """
    g = _validate.matrix("gradients", gradients)
    return _validate.number("eta", eta, above=0) / 4 * float(np.mean(np.sum(g**2, axis=1)))


def barrett_dherin_penalty(gradients: ArrayLike, eta: float) -> float:
    r"""What gradient flow must add to follow GD: :math:`\frac\eta4|\partial L|^2`.

    Parameters
    ----------
    gradients : array_like (K, d)
        The gradients of the mean losses of K equal batches, or of the single examples; L is their mean.
    eta : float
        The step size, positive.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type.

    References
    ----------
    Barrett and Dherin, Implicit Gradient Regularization (2021).

    Examples
    --------
    >>> barrett_dherin_penalty([[3.0, 3.0], [0.0, 1.0]], 0.4)      # 0.1 (1.5² + 2²)
    0.625
    """
    g = _validate.matrix("gradients", gradients)
    return _validate.number("eta", eta, above=0) / 4 * float(np.sum(g.mean(axis=0) ** 2))


def roberts_penalty(gradients: ArrayLike, eta: float, *, batch_size: int) -> float:
    r"""What GD must add to follow the mean of a shuffled epoch: :math:`\frac\eta4(\frac1n - \frac1N)\,\mathrm{tr}\,S`.

    Over the shuffles it is exactly the mean of Smith's penalty minus Barrett and Dherin's.

    Parameters
    ----------
    gradients : array_like (N, d)
        The gradients of the N examples, N >= 2; S has 1/(N − 1).
    eta : float
        The step size, positive.
    batch_size : int
        n, a divisor of N.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or not of its type.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, below eq. (13), for K batches and a fixed data set.

    Examples
    --------
    Batches of one have no order to average over, so it is the difference of the two other penalties:

    >>> g = [[3.0, 3.0], [0.0, 1.0]]
    >>> difference = smith_penalty(g, 0.4) - barrett_dherin_penalty(g, 0.4)
    >>> print(round(roberts_penalty(g, 0.4, batch_size=1), 12), round(difference, 12))
    0.325 0.325
    """
    g = _validate.matrix("gradients", gradients)
    strength = _strength(eta, len(g), batch_size)
    return strength * float(np.sum((g - g.mean(axis=0)) ** 2)) / (len(g) - 1)


def modified_gradient(
    model: nn.Module, loss: Callable[..., torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor, *,
    eta: float, batch_size: int, verify: bool | Literal["full"] = True,
) -> torch.Tensor:  # fmt: skip
    r"""Gradient of the modified loss of a torch model on its whole training set.

    .. math:: \bar g + \frac\eta4\Big(\frac1n - \frac1N\Big)\,\partial\,\mathrm{tr}\,S .

    Full-batch steps of size :math:`\eta` along it follow, through :math:`\eta^2` and in the mean over shuffles, epochs
    of SGD with batches of n without replacement and the same :math:`\eta`.

    Parameters
    ----------
    model, loss, inputs, targets
        As for ``gradstats.moments``: ``loss(outputs, targets)`` gives one loss an example, ``(N,)``, and the examples
        do not interact (no batch normalization in training mode).
    eta : float
        The step size of both runs, positive.
    batch_size : int
        n, a divisor of N.
    verify : bool or "full"
        How far to look for examples that interact, as in ``gradstats.moments``; False for all steps of a run but the
        first.

    Returns
    -------
    Tensor (p,)
        Flat, in the order of ``model.parameters()``, detached.

    Raises
    ------
    ValueError, TypeError
        If eta or batch_size is out of its range, or as from ``gradstats``.

    References
    ----------
    Roberts, SGD Implicitly Regularizes Generalization Error, below eq. (13), for K batches and a fixed data set.

    Examples
    --------
    One weight w, losses h w²/2 with h = 1 and 3: the gradient is 2w, and tr S = 2w² adds 4w/2 · η/4.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> h = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> loss = lambda w, h: (h * w**2 / 2).squeeze(1)
    >>> print(modified_gradient(model, loss, torch.ones_like(h), h, eta=0.1, batch_size=1).numpy().round(12))
    [2.05]
    """
    from implicitreg import gradstats

    m = gradstats.moments(model, loss, inputs, targets, verify=verify)
    strength = _strength(eta, m.n, batch_size)
    return m.mean + strength * gradstats.grad_trace(model, loss, inputs, targets, verify=verify)


def modified_loss(
    model: nn.Module, loss: Callable[..., torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor, *,
    eta: float, batch_size: int, verify: bool | Literal["full"] = True,
) -> torch.Tensor:  # fmt: skip
    r"""The modified loss of a torch model, :math:`L_D + \frac\eta4(\frac1n - \frac1N)\,\mathrm{tr}\,S_D`: a 0-d tensor.

    Parameters, errors and source are those of :func:`modified_gradient`, which is its gradient.

    Examples
    --------
    The example of :func:`modified_gradient`: the mean loss is 1, tr S = 2, and the penalty is 0.1/4 · 1/2 · 2.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> h = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    >>> loss = lambda w, h: (h * w**2 / 2).squeeze(1)
    >>> print(round(float(modified_loss(model, loss, torch.ones_like(h), h, eta=0.1, batch_size=1)), 12))
    1.025
    """
    from implicitreg import gradstats

    m = gradstats.moments(model, loss, inputs, targets, verify=verify)
    strength = _strength(eta, m.n, batch_size)
    with torch.no_grad():
        return loss(model(inputs.clone()), targets).mean() + strength * m.trace


# --- weights of pairs of steps ----------------------------------------------------------------------------------


def _lag_weights(beta: float, T: int) -> np.ndarray:
    """a_m = (1 − beta^m)/(1 − beta) for m = 0 ... T, without cancellation."""
    return np.concatenate([[0.0], np.cumsum(beta ** np.arange(T, dtype=float))])


def _epoch_weight(K: int, T: int, beta: float, reshuffle: bool) -> float:
    """The sum over pairs j < k of a_{T−k} a_{k−j} N (1/N − mean overlap), for epochs of K disjoint batches."""
    a, k = _lag_weights(beta, T), np.arange(T)
    reach = np.cumsum(a)  # the sum of a_1 ... a_r
    partners = reach[k % K]  # the earlier steps of the same epoch: overlap 0
    if not reshuffle:  # those of earlier epochs: overlap 0 but for the same batch, where it is K/N
        partners = reach[k] - K * np.cumsum(a[::K])[k // K]
    return float(np.sum(a[T - k] * partners))


def _influence(etas: np.ndarray, beta: float) -> np.ndarray:
    """a[t, s]: how much of −g_s is in theta_t, (T + 1, T); zero for s >= t."""
    T = etas.size
    lag = np.arange(T)[:, None] - np.arange(T)
    kernel = np.where(lag >= 0, beta ** np.maximum(lag, 0).astype(float), 0.0)
    return np.concatenate([np.zeros((1, T)), np.cumsum(etas[:, None] * kernel, axis=0)])


def _shares(batches: Sequence[ArrayLike], N: int) -> np.ndarray:
    """The share in every batch, (T, …), of every point that is in one."""
    rows = []
    for k, batch in enumerate(batches):
        points = _validate.array(f"batches[{k}]", batch)
        if points.ndim != 1 or points.size == 0:
            raise ValueError(f"batches[{k}] has shape {points.shape}: expected a non-empty list of points")
        if points.dtype.kind not in "iu":
            raise TypeError(f"batches[{k}] has dtype {points.dtype}: expected integers")
        if points.min() < 0 or points.max() >= N:
            outside = points[(points < 0) | (points >= N)][0]
            raise ValueError(f"batches[{k}] names the point {outside}: expected 0 to {N - 1}")
        rows.append(points)
    used, places = np.unique(np.concatenate(rows), return_inverse=True) if rows else (np.zeros(0), [])
    W = np.zeros((len(rows), used.size))
    np.add.at(W, (np.repeat(np.arange(len(rows)), [r.size for r in rows]), places), 1.0)
    return W / W.sum(axis=1, keepdims=True)


# --- derivatives ------------------------------------------------------------------------------------------------


def _grad_trace(
    problem: FiniteProblem, metric: np.ndarray, thetas: np.ndarray | None = None, law: np.ndarray | None = None
) -> np.ndarray:
    """The gradient of tr(M Cov g) at every row of thetas (P, d), for the law (m,) or one law a row (P, m)."""
    thetas = problem.theta0[None] if thetas is None else thetas
    p = torch.tensor(np.broadcast_to(problem.probabilities if law is None else law, (len(thetas), problem.m)))
    x = torch.tensor(thetas, requires_grad=True)
    with torch.enable_grad():
        c = _per_example(problem, x)
        c = c - (p[..., None] * c).sum(1, keepdim=True)
        trace = (p[..., None] * c * (c @ torch.tensor(metric))).sum() + 0 * x.sum()
    return torch.autograd.grad(trace, x)[0].numpy()


def _per_example(problem: FiniteProblem, x: torch.Tensor) -> torch.Tensor:
    """The gradients of all examples at every row of x, (P, m, d), that can be differentiated again."""
    totals = [_batched(loss, x).sum() + 0 * x.sum() for loss in problem.losses]  # a constant has a gradient, too
    return torch.stack([torch.autograd.grad(t, x, create_graph=True)[0] for t in totals], 1)


def _grad_sample_trace(problem: FiniteProblem, theta: np.ndarray) -> np.ndarray:
    """The gradient of tr S of a data set, with 1/(N − 1)."""
    return problem.m / (problem.m - 1) * _grad_trace(problem, np.eye(problem.d), theta[None])[0]


def _sizes(problem: FiniteProblem, tau: float, v: float, a: float) -> np.ndarray:
    """The sizes that theta, m and C reach in the time tau or 1/|H|, if that is shorter, each for all its entries."""
    theta, d = problem.theta0, problem.d
    G, H, S, grad_trace, _ = _jet(problem, theta, np.zeros((d, d)))
    clock = min(tau, 1 / np.abs(H).max()) if H.any() else tau
    bend = _jet(problem, theta, clock * v * S)[-1]
    parts = (theta if theta.any() else clock * G, clock * (v * np.abs(grad_trace) + a * np.abs(bend)), clock * v * S)
    return np.concatenate([np.full(n, np.abs(part).max() or 1.0) for n, part in zip((d, d, d * d), parts, strict=True)])


def _jet(problem: FiniteProblem, theta: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, ...]:
    """G, H, S, the gradient of tr S, and the third derivative of L contracted with C, of a data set."""
    x = torch.tensor(theta[None], requires_grad=True)
    with torch.enable_grad():
        values = [loss(x[0]) + 0 * x.sum() for loss in problem.losses]  # one theta: no need to batch
        g = torch.stack([torch.autograd.grad(value, x, create_graph=True)[0][0] for value in values])
        c = g - g.mean(0)
        S = c.T @ c / (problem.m - 1)
        H = torch.stack([torch.autograd.grad(row + 0 * x.sum(), x, create_graph=True)[0][0] for row in g.mean(0)])
        pairs = (torch.trace(S), (H * torch.tensor(C)).sum())
        grad_trace, bend = (torch.autograd.grad(s + 0 * x.sum(), x, retain_graph=True)[0][0] for s in pairs)
    return tuple(t.detach().numpy() for t in (g.mean(0), H, S, grad_trace, bend))


# --- runs -------------------------------------------------------------------------------------------------------


def _mix(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    return np.einsum("rm,rmd->rd", weights, gradients)


def _descend(
    metric: np.ndarray, gradient: Callable[[int, np.ndarray], np.ndarray], thetas: np.ndarray, T: int, beta: float
) -> Iterator[np.ndarray]:
    """The iterates 1 ... T of heavy ball from velocity zero, for many runs (P, d) at once."""
    velocity = np.zeros_like(thetas)
    for t in range(T):
        velocity = beta * velocity + gradient(t, thetas)
        thetas = thetas - velocity @ metric
        yield thetas


def _training_sets(problem: FiniteProblem, N: int, T: int) -> np.ndarray:
    sets = math.comb(N + problem.m - 1, N)
    if sets * T > MAX_UPDATES:
        raise ValueError(
            f"N = {N} with {problem.m} losses: {sets:,} training sets times {T} steps exceed {MAX_UPDATES:,}"
        )
    return _multisets(problem.m, N)


def _averages(problem: FiniteProblem, thetas: np.ndarray, shares: np.ndarray, chance: np.ndarray) -> ExactRun:
    chance = chance / chance.sum()
    mean = thetas[0] + chance @ (thetas - thetas[0])
    values = problem.values(thetas)
    covariance = (chance[:, None] * (thetas - mean)).T @ (thetas - mean)
    test, train = chance @ (values @ problem.probabilities), chance @ (shares * values).sum(axis=1)
    return ExactRun(mean, covariance, float(test), float(train))


# --- validation -------------------------------------------------------------------------------------------------


def _problem(problem: Any) -> FiniteProblem:
    if not isinstance(problem, FiniteProblem):
        raise TypeError(f"problem = {problem!r}: expected a FiniteProblem")
    return problem


def _data_set(problem: Any) -> FiniteProblem:
    p = _problem(problem).probabilities
    if p.size < 2:
        raise ValueError("problem has one example: expected at least two, for a sample covariance")
    if np.ptp(p) > 1e-12:
        raise ValueError(f"problem has probabilities from {p.min():g} to {p.max():g}: expected a data set, all equal")
    return problem


def _metric(problem: FiniteProblem, eta: Any) -> np.ndarray:
    return _step_matrix(eta, problem.d)


def _split(N: int, K: int) -> tuple[int, int]:
    N = _validate.integer("N", N, low=1)
    K = _validate.integer("K", K, low=1, high=N)
    if N % K:
        raise ValueError(f"K = {K}: expected a divisor of N = {N}")
    return N, K


def _strength(eta: float, N: int, n: int) -> float:
    """(eta/4)(1/n − 1/N)."""
    eta = _validate.number("eta", eta, above=0)
    if N < 2:
        raise ValueError(f"{N} example: expected at least two, for a sample covariance")
    n = _validate.integer("batch_size", n, low=1, high=N)
    if N % n:
        raise ValueError(f"batch_size = {n}: expected a divisor of the {N} examples")
    return eta / 4 * (N - n) / (n * N)


def _times(tau: float | ArrayLike) -> np.ndarray:
    if np.ndim(tau) == 0:
        return np.array([_validate.number("tau", tau, above=0)])
    times = _validate.vector("tau", tau)
    if times[0] <= 0 or (np.diff(times) <= 0).any():
        raise ValueError(f"tau = {times.tolist()}: expected increasing positive times")
    return times


def _momentum(momentum: float) -> float:
    return _validate.number("momentum", momentum, low=0, below=1)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} = {value!r}: expected True or False")
    return bool(value)
