"""Corollaries 3 and 4: what it does to the mean of theta that examples are used again."""

from __future__ import annotations

import numpy as np
from implicitreg import _validate
from implicitreg.diagrams._values import smooth
from implicitreg.problems import FiniteProblem

__all__ = ["epoch_shift", "gd_minus_sgd"]


@_validate.in_range
def gd_minus_sgd(problem: FiniteProblem, T: int, N: int | None = None) -> np.ndarray:
    r"""Mean theta after T steps of gradient descent on N examples, minus that of SGD on T fresh ones, per eta².

    .. math:: \mathrm{E}[\theta_{GD} - \theta_{SGD}] = \eta^2\, \frac{T(T-1)}{4N}\, \nabla \operatorname{tr} C
              + O(\eta^3), \qquad\text{with } T = N:\quad \eta^2\, \frac{N-1}{4}\, \nabla\operatorname{tr} C .

    SGD takes one example a step and uses none twice; both use the same step size, batch losses are means, and C is the
    covariance of one example's gradient. Relative to descent, SGD moves toward less gradient noise.

    Parameters
    ----------
    problem : FiniteProblem
        The distribution and the start theta0, where the derivatives are taken.
    T : int
        Steps of both methods.
    N : int, optional
        Examples of gradient descent; T by default, as in one epoch of SGD.

    Returns
    -------
    ndarray (d,)
        The coefficient of eta².

    Raises
    ------
    ValueError, TypeError
        If T or N is no positive integer, or ``problem`` is no FiniteProblem.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 3 (corrected: the printed factor (N − 1)/(4N) lacks a factor T = N).

    Examples
    --------
    Curvature 1 or 3: tr C = theta², with gradient 2 at theta = 1. Two steps on N = 2 have the factor 1/4:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> gd_minus_sgd(problem, 2)
    array([0.5])
    """
    p, g, h = _two(problem)
    T = _validate.integer("T", T, low=1)
    N = T if N is None else _validate.integer("N", N, low=1)
    grad_trace = 2 * np.einsum("m,mij,mj->i", p, h, g - p @ g)
    return T * (T - 1) / (4 * N) * grad_trace


@_validate.in_range
def epoch_shift(problem: FiniteProblem, N: int, M: int) -> np.ndarray:
    r"""Mean theta after M epochs at step size :math:`\eta_0/M`, minus that after one at :math:`\eta_0`, per eta0².

    .. math:: \mathrm{E}[\theta_{M\times\eta_0/M} - \theta_{1\times\eta_0}] = \eta_0^2\, \frac{M-1}{4M}\, N\,
              \nabla\, \mathrm{E}_x |\nabla \ell_x|^2 + O(\eta_0^3) .

    SGD with one example a step on N examples; the order of each epoch does not matter here. The gradient is that of the
    whole second moment :math:`|G|^2 + \operatorname{tr} C`: smaller steps also discretize the path of descent less.

    Parameters
    ----------
    problem : FiniteProblem
        The distribution and the start theta0, where the derivatives are taken.
    N, M : int
        Training examples, epochs.

    Returns
    -------
    ndarray (d,)
        The coefficient of eta0².

    Raises
    ------
    ValueError, TypeError
        If N or M is no positive integer, or ``problem`` is no FiniteProblem.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Corollary 4 (corrected: the printed formula keeps the part with C alone, which
    is right where the gradient of \|G\|² vanishes).

    Examples
    --------
    Curvature 1 or 3: the mean of h² theta² is 5 theta², with gradient 10 at theta = 1; N = M = 2 have the factor 1/4:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> epoch_shift(problem, 2, 2)
    array([2.5])
    """
    p, g, h = _two(problem)
    N, M = _validate.integer("N", N, low=1), _validate.integer("M", M, low=1)
    return (M - 1) * N / (4 * M) * 2 * np.einsum("m,mij,mj->i", p, h, g)


def _two(problem: FiniteProblem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, gradients and Hessians at the start."""
    _, g, h = smooth(problem).derivatives(2)
    return problem.probabilities, g, h
