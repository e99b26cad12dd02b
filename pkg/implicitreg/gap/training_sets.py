r"""Drift in the mean over training sets: SGD's end against that of gradient descent, and a descent that follows it.

Training points are independent draws from a problem's distribution, batch losses are means, N is the size of the
whole training set and n = N/K that of a batch. Two runs are compared at the same step size and number of steps. All
differences are GD − SGD: gradient descent uses its data again in every step, and that is what drifts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from implicitreg import _validate
from implicitreg.exact import ExactRun, _multinomial, _multisets, _pascal
from implicitreg.gap._descents import _descend, _grad_trace, _metric, _mix, _momentum, _problem, _split
from implicitreg.problems import FiniteProblem
from numpy.typing import ArrayLike

__all__ = ["MAX_STEPS", "MAX_UPDATES", "drift", "modified_coefficient", "modified_gd", "pair_sum", "schedule_drift"]

MAX_UPDATES = 2_000_000  # training sets times steps in modified_gd: about a minute on one core
MAX_STEPS = 10_000_000  # the sums over steps stay below a second


@_validate.in_range
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
    W = _epoch_weight(K, T, _momentum(momentum), _validate.flag("reshuffle", reshuffle))
    return W / (2 * N) * _grad_trace(problem, metric)[0] @ metric


@_validate.in_range
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


@_validate.in_range
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


@_validate.in_range
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
    for k, batch in enumerate(_validate.items("batches", batches)):
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
