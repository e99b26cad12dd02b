r"""Drift on one data set: two numbers of a sampler, modified descent, exact paths, and the mean at a fixed horizon.

The training set is fixed, S is its sample covariance with 1/(N − 1), and only the batches are random. All differences
are GD − SGD, at the same step size and number of steps; batch losses are means, of n = N/K points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from implicitreg import _validate
from implicitreg._brief import brief
from implicitreg._torch import torch
from implicitreg.gap._descents import _descend, _grad_trace, _metric, _mix, _momentum, _problem, _split
from implicitreg.problems import FiniteProblem
from numpy.typing import ArrayLike

__all__ = [
    "SAMPLERS",
    "FixedHorizon",
    "TwoNumbers",
    "data_drift",
    "data_modified_gd",
    "fixed_horizon",
    "paths",
    "two_numbers",
]

MAX_GRADIENTS = 200_000  # steps times losses of `data_modified_gd`, two passes of torch each: minutes
MAX_VELOCITIES = 10_000  # evaluations of `fixed_horizon`, some ten passes of torch each: up to a minute

SAMPLERS = ("gd", "epochs", "subsets", "with_replacement")


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


@_validate.in_range
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


@_validate.in_range
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
    :func:`implicitreg.gap.training_sets.drift` with N = 2:

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


@_validate.in_range
def paths(problem: FiniteProblem, eta: float | ArrayLike, weights: ArrayLike, *, momentum: float = 0.0) -> np.ndarray:
    r"""SGD with prescribed weights: every sampler is a law of W, and this follows it.

    .. math:: v_{t+1} = \beta v_t + \sum_i W_t^i\,\nabla\ell_i(\theta_t), \qquad
              \theta_{t+1} = \theta_t - \eta v_{t+1} .

    Parameters
    ----------
    problem : FiniteProblem
        Its m losses and the start; the probabilities play no role.
    eta : float or array_like (d, d)
        As in :func:`implicitreg.gap.training_sets.drift`.
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
    return ends if _validate.array("tau", tau).ndim else FixedHorizon(ends.theta[0], ends.m[0], ends.C[0])


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
        c = _beyond_rounding(g - g.mean(0), g)
        S = c.T @ c / (problem.m - 1)
        H = torch.stack([torch.autograd.grad(row + 0 * x.sum(), x, create_graph=True)[0][0] for row in g.mean(0)])
        pairs = (torch.trace(S), (H * torch.tensor(C)).sum())
        grad_trace, bend = (torch.autograd.grad(s + 0 * x.sum(), x, retain_graph=True)[0][0] for s in pairs)
    return tuple(t.detach().numpy() for t in (_beyond_rounding(g.mean(0), g), H, S, grad_trace, bend))


def _beyond_rounding(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """x, a sum of gradients g (m, d), with 0 for entries that rounding cannot tell from it: no solver follows these."""
    return torch.where(x.abs() > len(g) * torch.finfo(g.dtype).eps * g.abs().amax(0), x, 0)


def _data_set(problem: Any) -> FiniteProblem:
    p = _problem(problem).probabilities
    if p.size < 2:
        raise ValueError("problem has one example: expected at least two, for a sample covariance")
    if np.ptp(p) > 1e-12:
        raise ValueError(f"problem has probabilities from {p.min():g} to {p.max():g}: expected a data set, all equal")
    return problem


def _times(tau: float | ArrayLike) -> np.ndarray:
    if _validate.array("tau", tau).ndim == 0:
        return np.array([_validate.number("tau", tau, above=0)])
    times = _validate.vector("tau", tau)
    if times[0] <= 0 or (np.diff(times) <= 0).any():
        raise ValueError(f"tau = {times.tolist()}: expected increasing positive times")
    return times
