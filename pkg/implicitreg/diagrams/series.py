r"""Mean losses and weights after T steps of SGD as power series in the step size.

The mean is over training sets of N independent examples and over batch orders, as in :mod:`implicitreg.exact`, and the
coefficient of :math:`\eta^d` is a sum over the diagrams with d edges:

.. math:: \langle L(\theta_T)\rangle = \sum_D (-\eta)^{d(D)}\, c_D(N, T, B)\, \mathrm{value}(D).

**Two bookkeepings.** Here tied nodes contribute joint cumulants, and different parts of a diagram may hold the same
example. One may also use raw moments and let different parts hold different examples: the sum of all diagrams of one
order is the same. The two other pairs are wrong from :math:`\eta^2` on: cumulants leave out what coincidences carry,
and moments then count it twice. Only the first one can be resummed (:mod:`implicitreg.diagrams.resummed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from implicitreg import _validate
from implicitreg.diagrams import _counts, _values
from implicitreg.diagrams.diagram import Diagram, enumerate_diagrams
from implicitreg.problems import FiniteProblem
from numpy.typing import ArrayLike

__all__ = ["MAX_ORDER", "Term", "gap_series", "terms", "test_loss_series", "train_loss_series", "weights_series"]

MAX_ORDER = 4


@dataclass(frozen=True)
class Term:
    """A diagram with its coefficient :math:`c_D` and value; ``total`` is what it adds to the coefficient of eta^d."""

    diagram: Diagram
    coefficient: Fraction
    value: float

    @property
    def total(self) -> float:
        """:math:`(-1)^d c_D\\,\\mathrm{value}(D)`."""
        return (-1) ** self.diagram.edges * float(self.coefficient) * self.value


@_validate.in_range
def test_loss_series(
    problem: FiniteProblem, *, N: int, T: int, B: int = 1, order: int = 3, metric: ArrayLike | None = None
) -> np.ndarray:
    r"""Taylor coefficients in the step size of the mean test loss after T steps.

    .. math:: \langle L(\theta_T)\rangle = \sum_{k \le \mathrm{order}} a_k \eta^k + O(\eta^{\mathrm{order}+1}), \qquad
              a_k = (-1)^k \sum_{D \text{ with } k \text{ edges}} c_D\, \mathrm{value}(D)

    with joint cumulants, and all embeddings of diagrams whose root is not tied. Batch losses are means.

    Parameters
    ----------
    problem : FiniteProblem
        The m smooth losses, their probabilities, and the start ``theta0 (d,)``.
    N, T, B : int
        Training points, steps, batch size. The batches of every epoch of N/B steps partition the points in a fresh
        random order; the last epoch may be partial. ``B=N`` is gradient descent, ``N=T, B=1`` a fresh example a step.
    order : int
        The highest power of the step size, 0 to ``MAX_ORDER`` = 4.
    metric : array_like (d, d), optional
        A symmetric positive definite M: steps are :math:`\eta M`, and the series is in the number eta.

    Returns
    -------
    ndarray (order + 1,)
        The coefficients :math:`a_0, a_1, \dots`, exact up to rounding. With polynomial losses the mean loss
        is a polynomial in eta; in general the series is asymptotic: it says nothing about one large eta.

    Raises
    ------
    ValueError
        If B does not divide N, a number is out of range, the metric is not positive definite, or a derivative at the
        start is not finite.
    TypeError
        If an argument is not of its type.

    Warns
    -----
    UserWarning
        If the losses have kinks (``relu``, ``abs``, …): the series then holds only as long as no iterate crosses one.

    References
    ----------
    Tenka, SGD at Small Learning Rates, Theorem 1, and (corrected) the Proposition, whose sign is wrong as printed.

    Examples
    --------
    Curvature 1 or 3 with equal probability, from 1. In two steps with fresh examples theta is multiplied twice
    by 1 − eta h, whose square has the mean 1 − 4 eta + 5 eta²:

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> test_loss_series(problem, N=2, T=2, order=4)
    array([  1.,  -8.,  26., -40.,  25.])
    """
    tensors, (N, T, B), order = _checked(problem, N, T, B, order, metric)
    return np.array([_sum(tensors, k, N, T, B, root_tied=False) for k in range(order + 1)])


test_loss_series.__test__ = False  # its name would make pytest take it for a test


@_validate.in_range
def train_loss_series(
    problem: FiniteProblem, *, N: int, T: int, B: int = 1, order: int = 3, metric: ArrayLike | None = None
) -> np.ndarray:
    """Taylor coefficients of the mean training loss after T steps: the test loss less the gap.

    The training loss is that of the N points that were trained on. Arguments, result and errors are those of
    :func:`test_loss_series`.

    Examples
    --------
    Pulls ±1 in a bowl, one point, one step from the minimum to ±eta: the training loss is eta²/2 − eta.

    >>> from implicitreg import FiniteProblem
    >>> pulls = FiniteProblem([lambda t: t[0] ** 2 / 2 + t[0], lambda t: t[0] ** 2 / 2 - t[0]], [0.5, 0.5], [0.0])
    >>> train_loss_series(pulls, N=1, T=1, order=2)
    array([ 0. , -1. ,  0.5])
    """
    tensors, (N, T, B), order = _checked(problem, N, T, B, order, metric)
    both = [[_sum(tensors, k, N, T, B, tied) for tied in (False, True)] for k in range(order + 1)]
    return np.sum(both, axis=1)


@_validate.in_range
def gap_series(
    problem: FiniteProblem, *, N: int, T: int, B: int = 1, order: int = 3, metric: ArrayLike | None = None
) -> np.ndarray:
    r"""Taylor coefficients of the mean generalization gap, test loss minus training loss, after T steps.

    .. math:: \langle L_{test} - L_{train}\rangle = -\sum_{D \text{ with a tied root}} (-\eta)^d c_D\,\mathrm{value}(D)
              = \frac{\eta T}{N}\operatorname{tr} C + O(\eta^2).

    The root holds one of the N points with weight 1/N, and enters the joint cumulant of its part. Arguments, result and
    errors are those of :func:`test_loss_series`.

    References
    ----------
    Tenka, SGD at Small Learning Rates, section 2, in the form with cumulants: nothing is subtracted for the root.

    Examples
    --------
    Pulls ±1 in a bowl: after one step on one point the test loss is eta²/2 and the training loss eta²/2 − eta.

    >>> from implicitreg import FiniteProblem
    >>> pulls = FiniteProblem([lambda t: t[0] ** 2 / 2 + t[0], lambda t: t[0] ** 2 / 2 - t[0]], [0.5, 0.5], [0.0])
    >>> gap_series(pulls, N=1, T=1, order=2)
    array([0., 1., 0.])
    """
    tensors, (N, T, B), order = _checked(problem, N, T, B, order, metric)
    return np.array([0.0 - _sum(tensors, k, N, T, B, root_tied=True) for k in range(order + 1)])


@_validate.in_range
def weights_series(
    problem: FiniteProblem, *, N: int, T: int, B: int = 1, order: int = 2, metric: ArrayLike | None = None
) -> np.ndarray:
    r"""Taylor coefficients of the mean weights after T steps.

    .. math:: \langle\theta_T\rangle = \theta_0 - \eta T G
              + \eta^2\Big[\tbinom T2 HG + \frac T4\Big(\frac TN - \frac1B\Big)\nabla\operatorname{tr}C\Big] + O(\eta^3)

    for whole epochs. The observable is a coordinate of theta, whose only derivative is a unit vector: the diagrams are
    those whose root has one edge, and the unit vector stands at the root.

    Parameters
    ----------
    problem, N, T, B, order, metric
        As in :func:`test_loss_series`.

    Returns
    -------
    ndarray (order + 1, d)
        Row 0 is ``theta0``.

    Raises
    ------
    ValueError, TypeError
        As in :func:`test_loss_series`.

    Examples
    --------
    Curvature 1 or 3 with equal probability, from 1: gradient descent on two points multiplies twice by one minus eta
    times the mean curvature of the two, 2 ± 0 or 1, so that the last coefficient is 4 + 1/2.

    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> weights_series(problem, N=2, T=2, B=2)[:, 0]
    array([ 1. , -4. ,  4.5])
    """
    tensors, (N, T, B), order = _checked(problem, N, T, B, order, metric)
    rows = [problem.theta0.copy()]
    for k in range(1, order + 1):
        chosen = [D for D in enumerate_diagrams(k) if D.degree(k) == 1]
        weighted = [float(D.coefficient(N, T, B)) * _values.root_vector(D, tensors) for D in chosen]
        rows.append((-1) ** k * np.sum(weighted, axis=0))
    return np.array(rows)


@_validate.in_range
def terms(
    problem: FiniteProblem, *, N: int, T: int, B: int = 1, order: int = 3, metric: ArrayLike | None = None,
    root_tied: bool = False,
) -> list[Term]:  # fmt: skip
    """The terms of :func:`test_loss_series`, one a diagram, without those that have no embedding.

    With ``root_tied`` those that make up training loss minus test loss. Arguments and errors are otherwise those of
    :func:`test_loss_series`.

    Examples
    --------
    >>> from implicitreg import FiniteProblem
    >>> problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    >>> for term in terms(problem, N=2, T=2, order=2)[1:]:
    ...     print(term.diagram, term.coefficient, term.value, term.total)
    (0-1)(01) 2 4.0 -8.0
    (0-1-2)(01-12) 1 8.0 8.0
    (01-2)(02-12) 1 2.0 2.0
    (0-1-2)(02-12) 2 8.0 16.0
    """
    tensors, (N, T, B), order = _checked(problem, N, T, B, order, metric)
    return [term for k in range(order + 1) for term in _terms(tensors, k, N, T, B, root_tied)]


def _checked(
    problem: FiniteProblem, N: int, T: int, B: int, order: int, metric: ArrayLike | None
) -> tuple[_values.Tensors, tuple[int, int, int], int]:
    times = _counts.schedule(N, T, B)
    order = _validate.integer("order", order, low=0, high=MAX_ORDER)
    return _values.Tensors.of(problem, order, metric), times, order


def _terms(tensors: _values.Tensors, edges: int, N: int, T: int, B: int, root_tied: bool) -> list[Term]:
    counted = ((D, D.coefficient(N, T, B)) for D in enumerate_diagrams(edges, root_tied=root_tied))
    return [Term(D, c, _values.value(D, tensors)) for D, c in counted if c]


def _sum(tensors: _values.Tensors, edges: int, N: int, T: int, B: int, root_tied: bool) -> float:
    return sum((term.total for term in _terms(tensors, edges, N, T, B, root_tied)), start=0.0)
