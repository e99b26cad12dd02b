"""SciPy's solvers behind one door: input in units of its own size, a budget, the status read, the answer proved.

Scales are powers of two, so that scaling rounds nothing. Tolerances are relative, row by row and column by column: a
certificate does not depend on the units of any of them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import numpy as np
from scipy.integrate import ODEintWarning, odeint, solve_ivp
from scipy.optimize import linprog, nnls

PROVED = 1e-11  # residual, infeasibility and gap of a linear program, relative to the right side of each row and column
CANCELS = 1e-2  # times as much of the terms on the left, which may cancel (all of them where the right is 0)
STATIONARY = 1e-9  # gradient of non-negative least squares, relative to the norms that are multiplied in it
LP = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
ROUNDING = 4 * np.finfo(float).eps  # of the largest entry: less is taken for zero where scales are chosen
WORK = 10**10  # steps times the numbers that one of them reads: a minute or two on one core

Velocity = Callable[[float, np.ndarray], np.ndarray]


class SolverError(ArithmeticError, RuntimeError):
    """A solver gives up, or its answer fails the certificate; of a path, the time ``reached`` and the ``state`` there.

    >>> issubclass(SolverError, RuntimeError) and issubclass(SolverError, ArithmeticError)
    True
    """

    def __init__(self, message: str, reached: float = math.nan, state: np.ndarray | None = None) -> None:
        super().__init__(message)
        self.reached, self.state = reached, state


def unit(a: np.ndarray, axis: int | None = None) -> np.ndarray:
    """The largest power of two up to the largest absolute entry; 1 where all entries are zero.

    >>> unit(np.array([[3.0, -20.0], [0.0, 0.0]]), axis=1)
    array([16.,  1.])
    """
    top = np.abs(a).max(axis=axis, initial=0.0)
    return np.where(top > 0, np.ldexp(1.0, np.frexp(top)[1] - 1), 1.0)


def norm(v: np.ndarray, p: float = 2) -> float:
    """The lp norm, whose powers neither overflow nor vanish.

    >>> norm(np.array([3e-200, 4e-200])) == 5e-200, float(np.linalg.norm([3e-200, 4e-200]))
    (True, 0.0)
    """
    size = unit(v) if p <= 2 else np.abs(v).max(initial=0.0) or 1.0
    return float(size * np.linalg.norm(v / size, p))


class Equations(NamedTuple):
    """``A x = y``, each equation in a unit of its own: ``A = row U s Vt``, as wide as the rank.

    ``x`` is the shortest solution, in least squares of these units, and ``off`` the largest residual, relative to the
    terms of its equation.
    """

    row: np.ndarray
    U: np.ndarray
    s: np.ndarray
    Vt: np.ndarray
    x: np.ndarray
    off: float


def equations(A: np.ndarray, y: np.ndarray) -> Equations:
    """The equations ``A x = y``; their rank does not depend on their units.

    >>> np.linalg.matrix_rank(np.diag([1.0, 1e-20])), len(equations(np.diag([1.0, 1e-20]), np.ones(2)).s)
    (np.int64(1), 2)
    """
    row = unit(A, axis=1)
    A, y = A / row[:, None], y / row
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    rank = int((s > max(A.shape) * np.finfo(float).eps * s[0]).sum())
    U, s, Vt = U[:, :rank], s[:rank], Vt[:rank]
    x = np.zeros(A.shape[1])
    for _ in range(3):  # the corrections see small targets beside large ones
        x = x + Vt.T @ (U.T @ (y - A @ x) / s)
    return Equations(row, U, s, Vt, x, _relative(y - A @ x, np.abs(y) + np.abs(A) @ np.abs(x)))


def most_steps(numbers: int) -> int:
    """How many steps of an explicit method, which reads so many numbers in each, are not refused.

    >>> most_steps(10), most_steps(10**6)
    (10000000, 10000)
    """
    return WORK // max(numbers, 1000)


class Infeasible(SolverError):
    """A linear program without a feasible point, to a relative 1e-10."""


class Optimum(NamedTuple):
    """The minimiser, and the multipliers of ``A_ub x <= b_ub`` (not positive) and of ``A_eq x = b_eq``."""

    x: np.ndarray
    ub: np.ndarray
    eq: np.ndarray


def linear_program(
    what: str, c: np.ndarray, *, A_ub: np.ndarray | None = None, b_ub: np.ndarray | None = None,
    A_eq: np.ndarray | None = None, b_eq: np.ndarray | None = None, free: int = 0,
) -> Optimum:  # fmt: skip
    """Minimise ``c x`` subject to ``A_ub x <= b_ub``, ``A_eq x = b_eq`` and ``x >= 0``, but for the first ``free`` x.

    Rows and columns, b and c are scaled, and the answer is returned only if primal and dual prove each other optimal;
    where they do not, other scales are tried.
    ``what`` names the data in the error; where no x is feasible it is `Infeasible`.

    >>> linear_program("A", np.ones(2), A_eq=np.array([[1e-200, 2e-200]]), b_eq=np.array([4e-200])).x
    array([0., 2.])
    """
    parts = [(A, b) for A, b in ((A_ub, b_ub), (A_eq, b_eq)) if A is not None]
    A, b = np.vstack([A for A, _ in parts]), np.concatenate([b for _, b in parts])
    n_ub = 0 if A_ub is None else len(A_ub)
    lower = np.where(np.arange(c.size) < free, -np.inf, 0.0)
    failures = []
    for row, column in _scalings(np.block([[A, b[:, None]], [c, np.zeros(1)]])):
        (row, gamma), (column, beta) = (row[:-1], row[-1]), (column[:-1], column[-1])
        try:
            x, m = _optimum(what, A / row[:, None] / column, b / row / beta, c / column / gamma, n_ub, lower)
        except SolverError as failure:
            failures.append(failure)
        else:
            m = gamma * m / row
            return Optimum(beta * x / column, m[:n_ub], m[n_ub:])
    raise failures[0]


def _optimum(
    what: str, A: np.ndarray, b: np.ndarray, c: np.ndarray, n_ub: int, lower: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The minimiser and the multipliers of a scaled program, which prove each other."""
    free = int((lower < 0).sum())
    bounds = np.column_stack([lower, np.full(c.size, np.inf)])
    answer = linprog(c, A[:n_ub], b[:n_ub], A[n_ub:], b[n_ub:], bounds, method="highs", options=LP)
    if answer.status != 0:
        refuse = Infeasible if "model_status is Infeasible" in answer.message else SolverError
        raise refuse(f"{what}: linear programming found no optimum ({answer.message.strip()})")
    m = np.concatenate([answer.ineqlin.marginals, answer.eqlin.marginals])
    x, m = _polished(A, b, c, n_ub, free, np.maximum(answer.x, lower), m)
    off = _off(A, b, c, n_ub, free, x, m)
    if not off <= PROVED:
        raise SolverError(f"{what}: the optimum that linear programming found is off by {off:.1e}, relatively; "
                          "expected rows and columns of comparable sizes")  # fmt: skip
    return x, m


def _scalings(M: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Units of the rows and columns, one choice after another: by all entries, by the largest ones, none."""
    yield _scales(M)
    row = unit(M, axis=1)
    yield row, unit(M / row[:, None], axis=0)
    yield np.ones(len(M)), np.ones(M.shape[1])


def _scales(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Powers of two for rows and columns by which M becomes, in the geometric mean of each one's entries, 1.

    Curtis and Reid's least squares of logarithms, by coordinate descent. A coefficient that is rounding beside the
    largest ones of both its row and its column, those of the last row and column apart, has no say.
    """
    size = np.abs(M)
    there, A = size > 0, size[:-1, :-1]
    top = np.minimum(A.max(axis=1, keepdims=True), A.max(axis=0))
    there[:-1, :-1] = A / np.where(top > 0, top, 1) > ROUNDING
    log = np.log2(size, where=there, out=np.zeros_like(M))
    rows, columns = np.zeros(len(M)), np.zeros(M.shape[1])
    for _ in range(50):
        before = columns
        rows = ((log - columns) * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
        columns = ((log - rows[:, None]) * there).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
        if np.abs(columns - before).max() < 0.5:
            break
    return np.exp2(np.rint(rows)), np.exp2(np.rint(columns))


def _polished(
    A: np.ndarray, b: np.ndarray, c: np.ndarray, n_ub: int, free: int, x: np.ndarray, m: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The vertex of the rows with multipliers and of the x that are not 0: HiGHS stops at errors of 1e-10."""
    rows, columns = np.arange(len(b)) >= n_ub, np.arange(len(c)) < free
    rows, columns = rows | (m < 0), columns | (x > 0)
    B = A[np.ix_(rows, columns)]
    x, m = x.copy(), m.copy()
    x[columns] += np.linalg.lstsq(B, (b - A @ x)[rows], rcond=None)[0]
    m[rows] += np.linalg.lstsq(B.T, (c - A.T @ m)[columns], rcond=None)[0]
    x[free:], m[:n_ub] = np.maximum(x[free:], 0), np.minimum(m[:n_ub], 0)
    return x, m


def _off(A: np.ndarray, b: np.ndarray, c: np.ndarray, n_ub: int, free: int, x: np.ndarray, m: np.ndarray) -> float:
    """The largest relative violation: of the constraints, of the dual ones, of the signs, of equal values."""
    residual, reduced = A @ x - b, A.T @ m - c
    residual[:n_ub] = np.maximum(residual[:n_ub], 0)
    reduced[free:] = np.maximum(reduced[free:], 0)
    size, cost = _terms(b, A, x), _terms(c, A.T, m)
    value = abs(c @ x - b @ m) / max(np.abs(c) @ np.abs(x) + np.abs(b) @ np.abs(m), np.finfo(float).tiny)
    signs = m[:n_ub].max(initial=0.0) / max(np.abs(m).max(), np.finfo(float).tiny)
    return max(_relative(residual, size), _relative(reduced, cost), float(signs), float(value))


def _terms(right: np.ndarray, A: np.ndarray, v: np.ndarray) -> np.ndarray:
    """What an error in ``A v = right`` is measured against; beside 0, rounding of the largest term is no error."""
    size, v = np.abs(A), np.abs(v)
    right, left = np.abs(right), size @ v
    rounding = ROUNDING / PROVED * size.max(axis=1, initial=0.0) * v.max(initial=0.0)
    return np.where(right > 0, right + CANCELS * left, np.maximum(left, rounding))


def _relative(error: np.ndarray, size: np.ndarray) -> float:
    return float(np.divide(np.abs(error), size, out=np.zeros_like(size), where=size > 0).max(initial=0.0))


def nonnegative_least_squares(what: str, A: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """The ``x >= 0`` of least ``|A x - b|``, and this length; its Karush-Kuhn-Tucker conditions are verified.

    >>> nonnegative_least_squares("A", 1e-200 * np.eye(2), np.array([3e-200, -4e-200]))
    (array([3., 0.]), 4e-200)
    """
    column, beta = unit(A, axis=0), unit(b)
    A, b = A / column, b / beta
    try:
        x = nnls(A, b, maxiter=30 * sum(A.shape))[0]
    except RuntimeError as error:
        raise SolverError(f"{what}: non-negative least squares does not end ({error})") from error
    residual = b - A @ x
    pull = A.T @ residual
    size = np.linalg.norm(A, axis=0) * (np.linalg.norm(np.abs(A) @ x) + np.linalg.norm(b))
    off = _relative(np.where(x > 0, pull, np.maximum(pull, 0)), size)
    if not off <= STATIONARY:
        raise SolverError(f"{what}: non-negative least squares is off by {off:.1e}, relatively: too ill-conditioned")
    return beta * x / column, float(beta * np.linalg.norm(residual))


def integrate(
    what: str, velocity: Velocity, start: np.ndarray, times: np.ndarray, *, most: int, advice: str, **options: object
) -> np.ndarray:  # fmt: skip
    """The solution from ``start`` at time 0, ``(len(times), len(start))``, by `scipy.integrate.solve_ivp`.

    The times are not negative, in any order. Beyond ``most`` evaluations of the velocity, or where the solver gives up,
    SolverError names ``what`` was asked for, says how far the flow came and what is expected, the ``advice``.

    >>> t = np.array([np.log(2), 0.0])
    >>> integrate("t", lambda t, x: -x, np.ones(1), t, most=1000, advice="less", rtol=1e-9, atol=0).round(8)
    array([[0.5],
           [1. ]])
    """
    when, back = np.unique(times, return_inverse=True)
    last = float(when[-1])
    if last == 0 or start.size == 0:
        return np.tile(start, (len(times), 1))
    calls, reached = count(1), [0.0, start]

    def counted(t: float, state: np.ndarray) -> np.ndarray:
        if next(calls) > most:
            raise SolverError(f"{what}: {most:,} evaluations of the flow reached {t:.3g} of {last:.3g}; "
                              f"expected {advice}", *reached)  # fmt: skip
        reached[:] = t, state
        return velocity(t, state)

    answer = solve_ivp(counted, (0.0, last), start, t_eval=when, **options)
    if not answer.success:
        raise SolverError(f"{what}: the flow could not be followed beyond {reached[0]:.3g} of {last:.3g} "
                          f"({answer.message.strip()}); expected {advice}", *reached)  # fmt: skip
    return answer.y.T[back]


def lsoda(
    velocity: Velocity, jac: Velocity, start: np.ndarray, times: np.ndarray, *, rtol: float, atol: float
) -> np.ndarray | None:
    """The solution at increasing times, the first of them the start's, or None where LSODA gives up.

    Five thousand steps between two times are its limit.

    >>> lsoda(lambda t, x: -x, lambda t, x: -np.eye(1), np.ones(1), np.array([0.0, np.log(2)]), rtol=1e-9, atol=0)
    array([[1. ],
           [0.5]])
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ODEintWarning)
        path, info = odeint(velocity, start, times, Dfun=jac, tfirst=True, full_output=True, rtol=rtol, atol=atol,
                            mxstep=5000)  # fmt: skip
    return path if info["message"] == "Integration successful." else None
