r"""Diagonal linear networks: gradient flow on :math:`\tfrac12\|y - Xw\|^2` when the weights are products.

The models are :math:`w = u^{\circ L} - v^{\circ L}` ("signed") and :math:`w = u^{\circ L}` ("not signed",
:math:`w \ge 0` for ever), elementwise powers, started at :math:`u = v = \alpha\mathbf 1`. The loss is a sum over the
examples, with no 1/n.

With :math:`e = y - Xw` and :math:`\lambda(t) = L^2\alpha^{L-2}\int_0^t e`, flow in u and v is mirror flow in w,

.. math:: \frac{d}{dt}\nabla Q_\alpha(w) = L^2\alpha^{L-2}X^\top e, \qquad \nabla Q_\alpha(w(t)) = X^\top\lambda(t),

for a convex :math:`Q_\alpha` with its minimum, zero, at :math:`w(0)`: see :func:`potential`. So, for every feasible
:math:`w^f`, the divergence :math:`D_{Q_\alpha}(w^f, w(t))` falls at the rate :math:`2L^2\alpha^{L-2}` times the loss.
Hence :math:`\mathrm{loss}(t) \le Q_\alpha(w^f)/(2L^2\alpha^{L-2}t)`, the flow converges whenever a feasible point
exists, and it converges to the minimiser of :math:`Q_\alpha` over :math:`Xw = y`, since
:math:`D(w^f, w(0)) - D(w^f, w(\infty))` is the same for all :math:`w^f`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from implicitreg import _solvers, _validate
from implicitreg._brief import brief
from implicitreg.flow import _dual
from numpy.typing import ArrayLike

__all__ = [
    "DiagonalLimit",
    "Factors",
    "basis_pursuit",
    "gradient_descent",
    "limit",
    "mirror_descent",
    "potential",
    "potential_gradient",
    "recovery_exponent",
    "stochastic_gradient_descent",
    "trajectory",
    "untied_limit",
]

LARGEST_LOG_WEIGHT = 600.0  # e^600: weights beyond overflow on the way
MOST_CALLS = 100_000  # of the velocity of the flow; stiff ones take some ten thousand
STIFF = 2e3  # t times the fastest rate, from which the implicit method is the cheaper one


@dataclass(frozen=True, eq=False)
class DiagonalLimit:
    r"""Where the flow of a diagonal network ends: see :func:`limit`.

    Attributes
    ----------
    w : (d,) array
        The interpolator.
    dual : (n,) array
        :math:`\lambda` with :math:`\nabla Q_\alpha(w) = X^\top\lambda`.
    """

    w: np.ndarray
    dual: np.ndarray
    __repr__ = brief


@dataclass(frozen=True, eq=False)
class Factors:
    r"""The factors of a two-layer network with weights :math:`w = u\circ u - v\circ v`; v = 0 if not signed."""

    u: np.ndarray
    v: np.ndarray
    __repr__ = brief

    @property
    def w(self) -> np.ndarray:
        return self.u**2 - self.v**2


def _log_alpha(alpha: float | None, log_alpha: float | None, depth: int) -> float:
    if (alpha is None) == (log_alpha is None):
        raise ValueError(f"alpha = {alpha!r}, log_alpha = {log_alpha!r}: expected exactly one of them")
    if alpha is not None:
        log_alpha = float(np.log(_validate.number("alpha", alpha, above=0)))
    log_alpha = _validate.number("log_alpha", log_alpha)
    if depth * log_alpha > LARGEST_LOG_WEIGHT:
        raise ValueError(f"log_alpha = {log_alpha:g}: expected at most {LARGEST_LOG_WEIGHT / depth:g} at depth {depth}")
    return log_alpha


def _times(t: ArrayLike) -> np.ndarray:
    t = _validate.vector("t", t)
    if (t < 0).any():
        raise ValueError(f"t[{int(np.argmin(t))}] = {t.min():g}: expected times >= 0")
    return t


def _positive(name: str, value: ArrayLike, size: int) -> np.ndarray:
    c = _validate.vector(name, value, size=size)
    if (c <= 0).any():
        raise ValueError(f"{name}[{int(np.argmin(c))}] = {c.min():g}: expected positive entries")
    return c


def _independent_rows(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An equivalent system of full row rank, in units of one, and T with dual = T (its dual)."""
    n, d = X.shape
    row = _solvers.unit(X, axis=1)
    if n <= d:
        A = X / row[:, None]
        lam = np.linalg.eigvalsh(A @ A.T)
        if lam[0] > 1e-6 * lam[-1]:
            return A, y / row, np.diag(1 / row)
    system = _solvers.equations(X, y)
    if system.off > 1e-12:
        left = float(np.linalg.norm(y - X @ np.linalg.lstsq(X, y, rcond=None)[0]))
        raise ValueError(f"X w = y has no solution: least squares leaves the residual {left:.3g}")
    T = system.U / system.s / row[:, None]
    Q = np.linalg.qr(row[:, None] * system.U / row.max())[0]  # of the range of X, where the dual is
    return system.Vt, system.Vt @ system.x, Q @ (Q.T @ T)


def _size(X: np.ndarray, y: np.ndarray) -> float:
    """The largest weight of the minimum-norm solution, or 1 where that is 0."""
    return float(np.abs(X.T @ scipy.linalg.solve(X @ X.T, y, assume_a="pos")).max()) or 1.0


def _half_lines(X: np.ndarray, M: np.ndarray) -> np.ndarray:
    """The columns of X with a positive weight, and minus those with a negative one."""
    signs = (1, -1)
    return np.hstack([s * X[:, np.isfinite(row)] for s, row in zip(signs, M, strict=False)])


def _require_solution(B: np.ndarray, y: np.ndarray, found: str, error: Exception) -> None:
    """ValueError, with the residual of least squares, where no w >= 0 solves each equation of B w = y to 1e-9."""
    row = _solvers.unit(B, axis=1)
    A, b = B / row[:, None], y / row
    w = _solvers.nonnegative_least_squares("X, y", A, b)[0]
    if (np.abs(A @ w - b) > 1e-9 * (np.abs(A) @ w + np.abs(b))).any():
        left = _solvers.nonnegative_least_squares("X, y", B, y)[1]
        raise ValueError(f"X w = y has {found} leaves the residual {left:.3g}") from error


def _without_forced_zeros(X: np.ndarray, y: np.ndarray, M: np.ndarray) -> np.ndarray:
    """M with -inf for weights that vanish at every feasible point; raises when there is no feasible point.

    The support comes from one LP: maximise sum s, 0 <= s <= 1, s <= W, over W with B W = tau y, tau >= 1. The units of
    the columns of B and of y do not change it.
    """
    B = _half_lines(X, M)
    n, k = B.shape
    eye, none = np.eye(k), np.zeros((k, k))
    A_eq = np.hstack([np.zeros((n, k)), B / _solvers.unit(B, axis=0), -y[:, None] / _solvers.unit(y)])
    A_ub = np.block([[eye, -eye, np.zeros((k, 1))], [eye, none, np.zeros((k, 1))], [np.zeros(2 * k), -1]])
    try:
        answer = _solvers.linear_program(
            "X, y", np.r_[-np.ones(k), np.zeros(k + 1)],
            A_ub=A_ub, b_ub=np.r_[np.zeros(k), np.ones(k), -1.0], A_eq=A_eq, b_eq=np.zeros(n),
        )  # fmt: skip
    except _solvers.SolverError as error:
        signs = "with the signs that the model keeps (w >= 0 if it is not signed)"
        _require_solution(B, y, f"no solution {signs}: non-negative least squares", error)
        raise
    M = M.copy()
    M.flat[np.flatnonzero(np.isfinite(M.ravel()))[answer.x[:k] < 0.5]] = -np.inf
    return M


def _bias(X: np.ndarray, y: np.ndarray, M: np.ndarray, depth: int, b: np.ndarray | None) -> DiagonalLimit | None:
    """The minimiser for log initial weights M, or None where the dual has no minimum."""
    n, d = X.shape
    alive = np.isfinite(M).any(axis=0)
    w = np.zeros(d)
    if not alive.any() or (not y.any() and len(M) == 2 and (M[0] == M[1]).all()):
        if y.any():
            raise ValueError(f"every weight is zero for ever: the residual stays {np.linalg.norm(y):.3g}")
        return DiagonalLimit(w, np.zeros(n))
    rows, targets, T = _independent_rows(X[:, alive], y)
    if targets.size == 0:  # X = 0 on the weights that live: they stay
        w[alive] = np.array([1, -1])[: len(M)] @ np.exp(M[:, alive])
        return DiagonalLimit(w, np.zeros(n))
    size = _size(rows, targets)
    net = _dual.Network(rows, targets / size, M[:, alive] - np.log(size), depth, None if b is None else b[alive])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        state, values, ok = _dual.follow(net)
        if not ok:
            return None
        w[alive] = _dual.weights(net, state)
    residual, terms = np.abs(net.y - rows @ w[alive]), np.abs(net.y) + np.abs(rows) @ np.abs(w[alive])
    if not (residual.max() <= 1e-12 * values.scale and (residual <= 1e-9 * terms).all()):
        return None
    return DiagonalLimit(size * w, T @ state.dual)


def _limit(X: np.ndarray, y: np.ndarray, M: np.ndarray, depth: int = 2, b: np.ndarray | None = None) -> DiagonalLimit:
    answer = _bias(X, y, M, depth, b)
    if answer is None:
        M = _without_forced_zeros(X, y, M)
        with suppress(ValueError):  # there is a solution: a weight was too small for the linear program to see
            answer = _bias(X, y, M, depth, b)
    if answer is None:
        raise _solvers.SolverError("Newton's method did not converge: expected a w of entries of comparable sizes "
                                   "(rescale the columns of X), and equations that ask for them")  # fmt: skip
    return answer


@_validate.in_range
def limit(
    X: ArrayLike, y: ArrayLike, alpha: float | None = None, *, log_alpha: float | None = None,
    depth: int = 2, signed: bool = True, shape: ArrayLike | None = None,
) -> DiagonalLimit:  # fmt: skip
    r"""The point to which gradient flow of a diagonal network goes, exactly, at every scale of the initial weights.

    .. math:: w_\infty = \operatorname{argmin}\{Q_\alpha(w) : Xw = y\}, \qquad
              \nabla Q_\alpha(w_\infty) = X^\top\lambda, \qquad \lambda = L^2\alpha^{L-2}\int_0^\infty(y - Xw(t))\,dt,

    for the loss :math:`\tfrac12\|y - Xw\|^2` (a sum, no 1/n) and
    :math:`w = u^{\circ L} - v^{\circ L}`, or :math:`w = u^{\circ L}` if not signed; :math:`w \ge 0` is then understood.
    At depth 2, :math:`\lambda = 4\int e` and

    .. math:: w_\infty = 2\alpha^2\sinh(X^\top\lambda) \ \text{(signed)}, \qquad
              w_\infty = \alpha^2\exp(X^\top\lambda) \ \text{(not signed)} ;

    at depth :math:`L \ge 3`, with :math:`p = L/(L-2)` and elementwise powers,

    .. math:: w_\infty = \alpha^L\big[(1 - X^\top\lambda/p)^{-p} - (1 + X^\top\lambda/p)^{-p}\big],

    or the first of the two terms alone.

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    alpha : float
        Scale > 0 of the initial weights.
    log_alpha : float
        Its natural logarithm, instead of ``alpha``; -1e4 costs hardly more than -10.
    depth : int, optional
        Number of layers L >= 2.
    signed : bool, optional
        Whether there is a second, subtracted, branch v.
    shape : (d,) array, optional
        Positive c with :math:`u_0 = v_0 = \alpha c`; ones by default. Then :math:`\alpha^L` above is
        :math:`\alpha^Lc^L`, and, at depth :math:`L \ge 3`, :math:`X^\top\lambda` is :math:`c^{L-2}\circ X^\top\lambda`.

    Returns
    -------
    DiagonalLimit
        ``w`` (d,), ``dual`` (n,).

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, not exactly one of ``alpha`` and ``log_alpha`` is given, alpha
        or an entry of the shape is not positive, alpha^depth overflows, ``depth < 2``, or no w (no w >= 0 if not
        signed) has X w = y; the message then gives the residual that (non-negative) least squares leaves.
    TypeError
        If an argument is not numeric, or ``depth`` is not an integer.
    RuntimeError
        If Newton's method does not converge, as at depth 2 with columns, or with targets, of sizes that differ by very
        much.

    Notes
    -----
    As :math:`\alpha \to 0` the limit tends to a solution of basis pursuit (if there are several, to the one that
    maximises :math:`-\sum|w|\log|w|` at depth 2, :math:`\sum|w|^{2/L}` at depth L), but slowly: at depth 2 the weights
    off the support are at most of order :math:`\alpha^{2s^*}`, :func:`recovery_exponent`, at depth L of order
    :math:`\alpha^L` (proved if not signed, measured if signed; both for a solution with a strict dual certificate). As
    :math:`\alpha \to \infty` it tends to the minimum-norm interpolator if signed; if not, to a maximiser of
    :math:`\sum_jw_j^{2/L}` where that is bounded. A shape c leaves the limit :math:`\alpha \to 0` alone at depth 2, if
    basis pursuit has only one solution; at depth :math:`L \ge 3` that limit minimises :math:`\sum_jc_j^{-(L-2)}|w_j|`.

    Method: damped Newton on the convex dual in n variables, with continuation in alpha. The residual is at most 1e-12
    times the larger of ``|y|`` and ``|X| |w|`` (largest entries, each equation in units of its own), and in each
    equation at most 1e-9 of its terms. For rank-deficient X the dual is the one in the range
    of X, which is the integral. Weights, and the directions of the dual that only they determine, are accurate to
    about 1e-15 times the largest weight: relative accuracy is lost for those that are smaller. At depth
    :math:`L \ge 3` and tiny alpha, where basis pursuit has several solutions (or has up to 1e-8 in relative terms), the
    choice among them is accurate to about 1e-7. If every feasible :math:`w \ge 0` vanishes in some coordinate, the
    integral diverges; the dual is then that of the other coordinates.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Diagonal linear models" (depth 2, not signed; there
    :math:`\nabla Q = \alpha^{-2}\log w` stands for :math:`\log(w/\alpha^2)`). Woodworth, Gunasekar, Lee, Moroshko,
    Savarese, Golan, Soudry and Srebro, Kernel and rich regimes in overparametrized models, COLT 2020 (signed, all
    depths). Azulay et al., On the implicit bias of initialization shape, ICML 2021 (shape).

    Examples
    --------
    For X = [1 2], y = 2 and not signed, :math:`w = (\alpha^2q, \alpha^2q^2)` with
    :math:`q = (-1 + \sqrt{1 + 16/\alpha^2})/4`:

    >>> limit([[1.0, 2.0]], [2.0], np.sqrt(2), signed=False).w  # q = 1/2
    array([1. , 0.5])
    >>> limit([[1.0, 2.0]], [2.0], log_alpha=-1e4).w  # basis pursuit
    array([0., 1.])
    """
    X, y = _validate.data(X, y)
    depth = _validate.integer("depth", depth, low=2)
    log_alpha = _log_alpha(alpha, log_alpha, depth)
    d = X.shape[1]
    c = np.ones(d) if shape is None else _positive("shape", shape, d)
    M = np.tile(depth * (log_alpha + np.log(c)), (2 if _validate.flag("signed", signed) else 1, 1))
    if M.max() > LARGEST_LOG_WEIGHT:
        raise ValueError(f"shape has the entry {c.max():g}: its power {depth} times alpha's overflows")
    if depth == 2:
        return _limit(X, y, M)
    s = _solvers.unit(
        X / _solvers.unit(X, axis=1)[:, None], axis=0
    )  # s w is the limit for X / s, with gaps that close s times as fast
    scaled = _limit(X / s, y, M + np.log(s), depth, s * c ** (depth - 2) * (depth - 2) / depth)
    return DiagonalLimit(scaled.w / s, scaled.dual)


@_validate.in_range
def untied_limit(X: ArrayLike, y: ArrayLike, u0: ArrayLike, v0: ArrayLike) -> DiagonalLimit:
    r"""The point to which gradient flow of the two-layer network :math:`w = u\circ v` goes from ``u0`` and ``v0``.

    .. math:: w_\infty = p\circ e^{X^\top\lambda} - q\circ e^{-X^\top\lambda}, \qquad p = \frac{(u_0 + v_0)^2}4,
              \quad q = \frac{(u_0 - v_0)^2}4, \qquad \lambda = 2\int_0^\infty(y - Xw(t))\,dt .

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    u0, v0 : (d,) arrays
        Initial weights of the two layers, of any sign.

    Returns
    -------
    DiagonalLimit
        ``w`` (d,), ``dual`` (n,): here *twice* the integral of the residual.

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, or no w with the signs that the start allows has X w = y: where
        :math:`u_0 = v_0`, w stays >= 0, where :math:`u_0 = -v_0`, w stays <= 0.
    TypeError
        If an argument is not numeric.
    RuntimeError
        If Newton's method does not converge, as for starts, columns or targets of very different sizes.

    Notes
    -----
    :math:`u + v` grows as :math:`e^{z}`, :math:`u - v` as :math:`e^{-z}`, :math:`z = X^\top\int e`, and w is a quarter
    of the difference of their squares; :math:`u^2 - v^2` is conserved. The limit minimises, over Xw = y and with
    :math:`\beta = |u_0^2 - v_0^2|/4`,
    :math:`\sum_jw_j\operatorname{arcsinh}\frac{w_j}{2\beta_j} - \sqrt{w_j^2 + 4\beta_j^2}
    - w_j\operatorname{arcsinh}\frac{u_{0j}v_{0j}}{2\beta_j}`. A balanced start (:math:`\beta = 0`) freezes signs, so
    that tying the layers is a loss of generality.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Diagonal linear models" (there tied). Azulay et al., On the implicit
    bias of initialization shape, ICML 2021.

    Examples
    --------
    >>> untied_limit([[1.0, 1.0]], [4.0], [1.0, 1.0], [1.0, 1.0]).w  # balanced and symmetric
    array([2., 2.])
    >>> untied_limit([[1.0]], [-4.0], [1.0], [0.0]).w  # unbalanced: the sign may change
    array([-4.])
    """
    X, y = _validate.data(X, y)
    u0, v0 = (_validate.vector(name, value, size=X.shape[1]) for name, value in (("u0", u0), ("v0", v0)))
    with np.errstate(divide="ignore"):
        M = 2 * np.log(np.abs([u0 + v0, u0 - v0]) / 2)
    if M.max() > LARGEST_LOG_WEIGHT:
        raise ValueError(f"u0, v0 have an entry {max(np.abs(u0).max(), np.abs(v0).max()):g}: its square overflows")
    return _limit(X, y, M)


def _log_cosh(t: np.ndarray) -> np.ndarray:
    return np.where(t < 1, np.log1p(np.sinh(np.minimum(t, 1)) ** 2) / 2, t + np.log1p(np.exp(-2 * t)) - np.log(2))


def _log_sinh(t: np.ndarray) -> np.ndarray:
    return t + np.log(-np.expm1(-2 * t)) - np.log(2)


def _deep_angle(w: np.ndarray, m: float, p: float) -> np.ndarray:
    """t > 0 with 2 sinh(p t) cosh(t)^p = w e^-m, w > 0: 1 -+ tanh t are then the gaps of the two branches.

    In log t the logarithm of the left side is convex and increasing: Newton's method from above descends to the root.
    """
    target = np.log(w) - m
    above = (np.maximum(target, 0) + p * np.log(2) + 0.2) / (2 * p)
    log_t = np.minimum(target - np.log(2 * p), np.log(np.maximum(1 / p, above)))
    for _ in range(60):
        t = np.exp(log_t)
        excess = np.log(2) + _log_sinh(p * t) + p * _log_cosh(t) - target
        log_t -= excess / (p * t * (1 / np.tanh(p * t) + np.tanh(t)))
        if np.abs(excess).max() < 1e-14 * (1 + np.abs(target).max()):
            break
    return np.exp(log_t)


def _deep_signed_potential(w: np.ndarray, m: float, depth: int) -> float:
    """w theta - psi*(theta) + psi*(0), with theta = p tanh t and psi* = (L/2) e^m [2 cosh((p-1)t) cosh(t)^(p-1)]."""
    p = depth / (depth - 2)
    w = np.abs(w[w != 0])
    if w.size == 0:
        return 0.0
    t = _deep_angle(w, m, p)
    A = _log_cosh((p - 1) * t) + (p - 1) * _log_cosh(t)
    B = _log_sinh(p * t) + p * _log_cosh(t)
    share = np.where(A < 1, np.expm1(np.minimum(A, 1)) * np.exp(-B), np.exp(A - B) - np.exp(-B))
    return float((w * (p * np.tanh(t) - depth / 2 * share)).sum())


def _potential_arguments(
    w: ArrayLike, alpha: float | None, log_alpha: float | None, depth: int, signed: bool
) -> tuple[np.ndarray, float]:
    w = _validate.vector("w", w)
    depth = _validate.integer("depth", depth, low=2)
    if not _validate.flag("signed", signed) and (w < 0).any():
        raise ValueError(f"w[{int(np.argmin(w))}] = {w.min():g}: expected entries >= 0, as the model is not signed")
    return w, depth * _log_alpha(alpha, log_alpha, depth)


@_validate.in_range
def potential(
    w: ArrayLike, alpha: float | None = None, *, log_alpha: float | None = None, depth: int = 2, signed: bool = True
) -> float:
    r"""The function :math:`Q_\alpha` that the flow of a diagonal network minimises among the interpolators.

    At depth 2, for the signed model and for :math:`w = u\circ u`,

    .. math:: Q_\alpha(w) = \sum_jw_j\operatorname{arcsinh}\frac{w_j}{2\alpha^2} - \sqrt{w_j^2 + 4\alpha^4} + 2\alpha^2,
              \qquad Q_\alpha(w) = \sum_jw_j\log\frac{w_j}{\alpha^2} - w_j + \alpha^2 ;

    at depth :math:`L \ge 3` for :math:`w = u^{\circ L}`, with :math:`p = L/(L-2)`,

    .. math:: Q_\alpha(w) = \sum_jp\big(w_j - \tfrac L2\alpha^{L-2}w_j^{2/L}\big) + \tfrac L2\alpha^L,

    and for the signed model the integral from 0 of :math:`\theta(w)`, the solution of
    :math:`w = \alpha^L[(1 - \theta/p)^{-p} - (1 + \theta/p)^{-p}]`.

    Parameters
    ----------
    w : (d,) array
        Weights; >= 0 if not signed.
    alpha, log_alpha : float
        Scale > 0 of the initial weights, or its natural logarithm: exactly one of the two.
    depth : int, optional
        Number of layers L >= 2.
    signed : bool, optional
        Whether there is a second, subtracted, branch v.

    Returns
    -------
    float
        :math:`Q_\alpha(w) \ge 0`, zero at the start only: the Bregman divergence from w to :math:`w(0)`.

    Raises
    ------
    ValueError
        If w is not a finite vector or negative where it may not be, not exactly one of ``alpha`` and ``log_alpha`` is
        given, alpha is not positive, or ``depth < 2``.
    TypeError
        If an argument is not numeric, or ``depth`` is not an integer.

    Notes
    -----
    The normalisation is that of :func:`potential_gradient` :math:`= X^\top\lambda`, with the :math:`\lambda` of
    :func:`limit`: it is continuous in L, and :math:`Q_\alpha \to p\|w\|_1` as :math:`\alpha \to 0` at depth
    :math:`L \ge 3`, against :math:`Q_\alpha \approx \log(1/\alpha^2)\|w\|_1` at depth 2.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Diagonal linear models" (:math:`\sum w\log\frac w{\alpha^2} - w`).
    Woodworth et al., Kernel and rich regimes in overparametrized models, COLT 2020, Theorems 1 and 3.

    Examples
    --------
    >>> potential([np.e], 1.0, signed=False)  # e log e - e + 1
    1.0
    >>> round(potential([2.0], 1e-100, depth=4, signed=False), 12)  # p = 2
    4.0
    """
    w, m = _potential_arguments(w, alpha, log_alpha, depth, signed)
    if signed and depth > 2:
        return _deep_signed_potential(w, m, depth)
    if signed:
        a = np.abs(_dual.scaled_arcsinh(w, m))
        return float((np.abs(w) * (a - np.tanh(a / 2))).sum())
    if depth == 2:
        positive = w[w > 0]
        return float((positive * (np.log(positive) - m - 1)).sum() + w.size * np.exp(m))
    power = np.exp(m * (1 - 2 / depth)) * w ** (2 / depth)
    return float(depth / (depth - 2) * (w - depth / 2 * power).sum() + w.size * depth / 2 * np.exp(m))


@_validate.in_range
def potential_gradient(
    w: ArrayLike, alpha: float | None = None, *, log_alpha: float | None = None, depth: int = 2, signed: bool = True
) -> np.ndarray:
    r"""The gradient of :func:`potential`: :math:`X^\top\lambda` at the limit of the flow.

    .. math:: \operatorname{arcsinh}\frac{w}{2\alpha^2}, \qquad \log\frac w{\alpha^2}, \qquad
              p\big(1 - (\alpha^L/w)^{1/p}\big)

    for the signed model of depth 2, for :math:`u\circ u`, and for :math:`u^{\circ L}`, :math:`L \ge 3`,
    :math:`p = L/(L-2)`.

    Parameters
    ----------
    w : (d,) array
        Weights; >= 0 if not signed, where the derivative at 0 is -inf.
    alpha, log_alpha, depth, signed
        As in :func:`potential`.

    Returns
    -------
    (d,) array

    Raises
    ------
    ValueError, TypeError
        As :func:`potential`.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, prints :math:`\nabla Q(w) = \frac1{\alpha^2}\log w`; its integral there,
    :math:`\sum w\log\frac w{\alpha^2} - w`, is right, and has the gradient :math:`\log(w/\alpha^2)`.

    Examples
    --------
    >>> potential_gradient([np.e], 1.0, signed=False)
    array([1.])
    """
    w, m = _potential_arguments(w, alpha, log_alpha, depth, signed)
    p = depth / (depth - 2) if depth > 2 else np.inf
    if signed and depth == 2:
        return _dual.scaled_arcsinh(w, m)
    if signed:
        theta = np.zeros_like(w)
        if w.any():
            theta[w != 0] = p * np.tanh(_deep_angle(np.abs(w[w != 0]), m, p))
        return np.copysign(theta, w)
    with np.errstate(divide="ignore", over="ignore"):
        theta = np.log(w) - m
        return theta if depth == 2 else -p * np.expm1(-theta / p)


def _two_layer_path(
    what: str, X: np.ndarray, y: np.ndarray, M: np.ndarray, t: np.ndarray, size: float
) -> np.ndarray:  # fmt: skip
    """The flow of lambda, lambda' = 4 (y - X w), in n variables; the entries of X are of order one."""
    net = _dual.Network(X, y, M)
    origin = net.start(0.0)

    def at(dual: np.ndarray) -> tuple[_dual.State, np.ndarray]:
        state = net.move(origin, dual, X.T @ dual, 1.0)
        return state, net.combine(state, state.edge)

    def jacobian(_: float, dual: np.ndarray) -> np.ndarray:
        h = np.exp(at(dual)[0].edge).sum(axis=0)
        return -4 * (X * h) @ X.T

    # errors of lambda are relative errors of w, or of w/alpha^2 while w is much smaller than alpha^2
    initial = np.exp(M.max())
    atol = 1e-10 * (np.exp(min(0.0, np.log(size) - M.max())) if size > 0 else 1.0)
    path = _integrate(
        what, lambda _, dual: 4 * (y - X @ at(dual)[1]), jacobian, np.zeros(len(y)), t, atol, 4 * (size + initial), X
    )
    return np.array([at(dual)[1] for dual in path])


def _deep_path(
    what: str, X: np.ndarray, y: np.ndarray, M: np.ndarray, t: np.ndarray, size: float, L: int
) -> np.ndarray:  # fmt: skip
    """The flow of q = (log u, log v): q' = +-L exp((L - 2) q) X'e; X'lambda would lose digits near its bounds."""
    d = X.shape[1]
    signs = np.repeat([1.0, -1.0], d)[: M.size]
    A = np.tile(X, len(M)) * signs

    def slope(_: float, q: np.ndarray) -> np.ndarray:
        return L * np.exp((L - 2) * q) * (A.T @ (y - A @ np.exp(L * q)))

    def jacobian(_: float, q: np.ndarray) -> np.ndarray:
        J = -(L * np.exp((L - 2) * q))[:, None] * (A.T @ (A * (L * np.exp(L * q))))
        return J + np.diag((L - 2) * slope(0.0, q))

    rate = L**2 * (size + np.exp(M.max())) ** (2 - 2 / L)
    Q = _integrate(what, slope, jacobian, M.ravel() / L, t, 1e-11, rate, X)
    return (np.exp(L * Q) * signs).reshape(len(t), -1, d).sum(axis=1)


def _integrate(what, slope, jacobian, start, t, atol, rate, X) -> np.ndarray:
    stiff = t.max() * rate * np.linalg.norm(X, 2) ** 2 > STIFF
    method = {"method": "Radau", "jac": jacobian} if stiff else {"method": "DOP853"}
    advice = "earlier times; the limit is that of diagonal.limit"
    with np.errstate(over="ignore", invalid="ignore"):
        return _solvers.integrate(
            what, slope, start, t, rtol=3e-14, atol=atol, most=MOST_CALLS, advice=advice, **method
        )  # fmt: skip


@_validate.in_range
def trajectory(
    X: ArrayLike, y: ArrayLike, t: Sequence[float] | np.ndarray, alpha: float | None = None, *,
    log_alpha: float | None = None, depth: int = 2, signed: bool = True,
) -> np.ndarray:  # fmt: skip
    r"""The weights :math:`w(t)` of a diagonal network under gradient flow from :math:`u = v = \alpha\mathbf 1`.

    .. math:: \dot u = Lu^{L-1}\circ X^\top e, \quad \dot v = -Lv^{L-1}\circ X^\top e, \qquad e = y - Xw,

    the flow of :math:`\tfrac12\|y - Xw\|^2` (a sum, no 1/n).

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets; X w = y need not have a solution.
    t : (T,) sequence
        Times >= 0, in any order. For :math:`t = \infty` call :func:`limit`: the last phase can be very slow.
    alpha, log_alpha : float
        Scale > 0 of the initial weights, or its natural logarithm: exactly one of the two.
    depth : int, optional
        Number of layers L >= 2.
    signed : bool, optional
        Whether there is a second, subtracted, branch v.

    Returns
    -------
    (T, d) array
        Row k is :math:`w(t_k)`.

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, a time is negative, not exactly one of ``alpha`` and
        ``log_alpha`` is given, alpha is not positive, or ``depth < 2``.
    TypeError
        If an argument is not numeric, or ``depth`` is not an integer.
    RuntimeError
        If the flow cannot be followed to the last time in 100 000 evaluations of its velocity.

    Notes
    -----
    At depth 2, w is an explicit function of :math:`\lambda = 4\int_0^te`, which follows the gradient flow of a convex
    function of n variables,
    :math:`\dot\lambda = 4(y - Xw(\lambda))`: the conserved quantity :math:`u_jv_j = \alpha^2` is exact, whatever the
    error of the integration. At depth :math:`L \ge 3` the logarithms of u and v are integrated. Dormand and Prince's
    method of order 8, or Radau's of order 5 where the flow is stiff; relative error of w about 1e-8 or better.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Diagonal linear models".

    Examples
    --------
    With X = [1], not signed, the flow is logistic, :math:`\dot w = 4w(y - w)`:

    >>> trajectory([[1.0]], [1.0], [0.0, np.log(3) / 4], 0.5, signed=False).round(8)
    array([[0.25],
           [0.5 ]])
    """
    X, y = _validate.data(X, y)
    t = _times(t)
    depth = _validate.integer("depth", depth, low=2)
    m = depth * _log_alpha(alpha, log_alpha, depth)
    a, b = _solvers.unit(X), _solvers.unit(y)
    signs = 2 if _validate.flag("signed", signed) else 1
    M = np.full((signs, X.shape[1]), m - np.log(b) + np.log(a))  # of w in units of b/a
    X, y, clock = X / a, y / b, t * a * b * (b / a) ** (1 - 2 / depth)
    size = float(np.abs(np.linalg.lstsq(X, y)[0]).max())
    if depth == 2:
        return b / a * _two_layer_path(f"t = {t.max():g}", X, y, M, clock, size)
    return b / a * _deep_path(f"t = {t.max():g}", X, y, M, clock, size, depth)


@_validate.in_range
def basis_pursuit(X: ArrayLike, y: ArrayLike, nonnegative: bool = False) -> np.ndarray:
    r"""An interpolator of least :math:`\ell_1` norm, by linear programming.

    .. math:: \min\|w\|_1 \quad\text{subject to}\quad Xw = y \ (\text{and } w \ge 0) .

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    nonnegative : bool, optional
        Whether to ask for :math:`w \ge 0`.

    Returns
    -------
    (d,) array

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, or there is no feasible w.
    TypeError
        If an argument is not numeric.
    RuntimeError
        If the linear program has no proved optimum, as with rows or columns of sizes that differ by very much.

    Notes
    -----
    Where the solution is not unique, this is *some* vertex of the optimal face; the limit of the network as
    :math:`\alpha \to 0` is, at depth 2, the point of that face with the greatest entropy :math:`-\sum|w|\log|w|`, in
    its relative interior.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, theorem on diagonal networks (:math:`w \ge 0`). Chen, Donoho and
    Saunders, Atomic decomposition by basis pursuit, 1998.

    Examples
    --------
    >>> basis_pursuit([[1.0, 2.0]], [2.0])
    array([0., 1.])
    """
    X, y = _validate.data(X, y)
    nonnegative = _validate.flag("nonnegative", nonnegative)
    d = X.shape[1]
    A = X if nonnegative else np.hstack([X, -X])
    try:
        w = _solvers.linear_program("X, y", np.ones(A.shape[1]), A_eq=A, b_eq=y).x
    except _solvers.SolverError as error:
        _require_solution(A, y, f"no solution{' w >= 0' if nonnegative else ''}: least squares", error)
        raise
    return w if nonnegative else w[:d] - w[d:]


@_validate.in_range
def recovery_exponent(X: ArrayLike, w: ArrayLike) -> float:
    r"""The exponent with which a signed two-layer network empties the coordinates off the support of ``w``.

    .. math:: s^* = 1 - \min\{\|X_{S^c}^\top\nu\|_\infty : X_S^\top\nu = \operatorname{sgn}w_S\}, \qquad
              \sum_{j\notin S}|w_{\infty,j}| = O(\alpha^{2s^*}),

    S the support of w, :math:`y = Xw`, and :math:`w_\infty` the :func:`limit` at depth 2, signed.

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    w : (d,) array
        The solution of basis pursuit whose recovery is in question; exact zeros mark its complement.

    Returns
    -------
    float
        :math:`s^* \le 1`. Positive, with independent columns :math:`X_S`: w is the only solution of basis pursuit, and
        the rate holds. Negative: w is not a solution.

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, or no :math:`\nu` has
        :math:`X_S^\top\nu = \operatorname{sgn}w_S` (then w is not a solution of basis pursuit).
    TypeError
        If an argument is not numeric.
    RuntimeError
        If the linear program has no proved optimum, as with columns of sizes that differ by very much.

    Notes
    -----
    Proof of the bound: for any :math:`\lambda` with :math:`X_S^\top\lambda = \operatorname{arcsinh}(w_S/2\alpha^2)`,
    weak duality bounds :math:`D_Q(w, w_\infty) = Q(w) - Q(w_\infty)` by
    :math:`\sum_{j\notin S}2\alpha^2(\cosh(x_j\cdot\lambda) - 1)`, and :math:`D_Q(0, w_j) \ge |w_j| - 2\alpha^2`. Take
    :math:`\lambda \approx \nu\log(1/\alpha^2)`. For :math:`w = u\circ u` the norm becomes the one-sided
    :math:`\max_jx_j\cdot\nu`, and the exponent can only grow. With a support that is everything, or nothing to
    bound, :math:`s^* = 1`.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, theorem on diagonal networks (which states no rate). The dual
    certificate is that of Fuchs, On sparse representations in arbitrary redundant bases, 2004.

    Examples
    --------
    >>> recovery_exponent([[1.0, 2.0]], [0.0, 1.0])  # nu = 1/2, |x_1 nu| = 1/2
    0.5
    """
    X = _validate.matrix("X", X)
    w = _validate.vector("w", w, size=X.shape[1])
    n, S = len(X), w != 0
    off = X[:, ~S].T
    ones = np.ones((len(off), 1))
    try:
        answer = _solvers.linear_program(
            "X, w", np.r_[np.zeros(n), 1.0],
            A_ub=np.block([[off, -ones], [-off, -ones]]), b_ub=np.zeros(2 * len(off)),
            A_eq=np.hstack([X[:, S].T, np.zeros((S.sum(), 1))]), b_eq=np.sign(w[S]), free=n,
        )  # fmt: skip
    except _solvers.Infeasible as error:
        found = "w has a support S and signs for which no nu has X_S' nu = sgn w_S: no l1-minimal w"
        raise ValueError(found) from error
    return 1.0 - float(answer.x[n])


def _descent_arguments(
    X: ArrayLike, y: ArrayLike, eta: float, alpha: float, signed: bool
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]:
    X, y = _validate.data(X, y)
    eta = _validate.number("eta", eta, above=0)
    alpha = _validate.number("alpha", alpha, above=0)
    u = np.full(X.shape[1], alpha)
    return X, y, eta, u, u if _validate.flag("signed", signed) else np.zeros_like(u)


def _finite(factors: Factors, eta: float) -> Factors:
    if not (np.isfinite(factors.u).all() and np.isfinite(factors.v).all()):
        raise ValueError(f"eta = {eta:g}: the iteration overflows, expected a smaller step")
    return factors


def gradient_descent(
    X: ArrayLike, y: ArrayLike, eta: float, k: int, alpha: float, signed: bool = True
) -> Factors:  # fmt: skip
    r"""The two-layer network after ``k`` steps of full-batch gradient descent from :math:`u = v = \alpha\mathbf 1`.

    .. math:: u \leftarrow u\circ(1 + 2\eta g), \qquad v \leftarrow v\circ(1 - 2\eta g), \qquad g = X^\top(y - Xw) .

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    eta : float
        Step size > 0, for the loss :math:`\tfrac12\|y - Xw\|^2` (a sum, no 1/n).
    k : int
        Number of steps >= 0, at most 10 million (fewer for X of more than 1000 entries).
    alpha : float
        Scale > 0 of the initial weights.
    signed : bool, optional
        Whether there is a second, subtracted, branch v; without it v = 0.

    Returns
    -------
    Factors
        ``u`` and ``v`` (d,), and their ``w``.

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, an argument is out of range, or the iteration overflows.
    TypeError
        If an argument is not numeric, or ``k`` is not an integer.

    Notes
    -----
    :math:`u\circ v = \alpha^2\prod(1 - 4\eta^2g_k^2)` is not conserved: the effective alpha shrinks, and at fixed
    alpha the limit differs from the minimiser of :math:`Q_\alpha` by a term of order eta (measured). The term is not
    uniform in alpha: as :math:`\alpha \to 0` with eta fixed the limit need not be that of basis pursuit.
    :func:`mirror_descent` has no such error.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7 (the flow; what it says of finite steps is said of least squares).

    Examples
    --------
    >>> gradient_descent([[1.0]], [1.0], 0.25, 1, 1.0, signed=False).w  # w = y is a fixed point
    array([1.])
    >>> gradient_descent([[1.0]], [1.0], 0.25, 1, 1.0).w  # 1.5^2 - 0.5^2
    array([2.])
    """
    X, y, eta, u, v = _descent_arguments(X, y, eta, alpha, signed)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_validate.integer("k", k, low=0, high=_solvers.most_steps(X.size))):
            g = X.T @ (y - X @ (u * u - v * v))
            u, v = u * (1 + 2 * eta * g), v * (1 - 2 * eta * g)
    return _finite(Factors(u, v), eta)


def mirror_descent(
    X: ArrayLike, y: ArrayLike, eta: float, k: int, alpha: float, signed: bool = True
) -> Factors:  # fmt: skip
    r"""The two-layer network after ``k`` steps of mirror descent with the potential :math:`Q_\alpha`, step 4 eta.

    .. math:: \nabla Q_\alpha(w_{k+1}) = \nabla Q_\alpha(w_k) + 4\eta g, \qquad
              u^2 \leftarrow u^2\circ e^{4\eta g}, \quad v^2 \leftarrow v^2\circ e^{-4\eta g}, \qquad
              g = X^\top(y - Xw),

    which is the exponentiated gradient method EG±, and EG if not signed.

    Parameters
    ----------
    X, y, eta, k, alpha, signed
        As in :func:`gradient_descent`, whose flow this discretises too.

    Returns
    -------
    Factors
        ``u`` and ``v`` (d,), and their ``w``. If signed, :math:`u\circ v = \alpha^2` for ever.

    Raises
    ------
    ValueError, TypeError
        As :func:`gradient_descent`.

    Notes
    -----
    :math:`\nabla Q_\alpha(w_k)` stays in the row space of X, so that any limit is *exactly* that of the flow,
    :func:`limit`, whatever eta.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, remark on mirror descent. Kivinen and Warmuth, Exponentiated gradient
    versus gradient descent for linear predictors, 1997. Gunasekar, Woodworth and Srebro, Mirrorless mirror descent,
    2021.

    Examples
    --------
    >>> w = mirror_descent([[1.0]], [2.0], np.log(2) / 4, 1, 1.0, signed=False).w  # 1 to 2 in one step
    >>> bool(np.allclose(w, 2, atol=1e-14))
    True
    """
    X, y, eta, u, v = _descent_arguments(X, y, eta, alpha, signed)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_validate.integer("k", k, low=0, high=_solvers.most_steps(X.size))):
            rise = np.exp(2 * eta * (X.T @ (y - X @ (u * u - v * v))))
            u, v = u * rise, v / rise
    return _finite(Factors(u, v), eta)


def stochastic_gradient_descent(
    X: ArrayLike, y: ArrayLike, eta: float, indices: Sequence[int] | np.ndarray, alpha: float, signed: bool = True
) -> Factors:
    r"""The two-layer network after SGD with batches of one, along a given sequence of examples.

    .. math:: u \leftarrow u\circ(1 + 2\eta rx_i), \qquad v \leftarrow v\circ(1 - 2\eta rx_i), \qquad
              r = y_i - x_i\cdot w, \quad i = i_k .

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    eta : float
        Step size > 0, for the loss :math:`\tfrac12(y_i - x_i\cdot w)^2` of one example (not multiplied by n).
    indices : (T,) sequence of int
        The examples visited, each in 0 … n − 1; draw them with a seeded generator.
    alpha : float
        Scale > 0 of the initial weights.
    signed : bool, optional
        Whether there is a second, subtracted, branch v; without it v = 0.

    Returns
    -------
    Factors
        ``u`` and ``v`` (d,) after the last step, and their ``w``.

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, an argument is out of range, an index is not an example, or the
        iteration overflows.
    TypeError
        If an argument is not numeric, or the indices are not integers.

    Notes
    -----
    Unlike for linear models, the limit is not that of gradient descent: every step multiplies :math:`u_jv_j` by
    :math:`1 - 4\eta^2r^2x_{ij}^2`, and r does not vanish with the mean gradient, so the noise lowers the effective
    alpha and the limit is sparser.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, remark that nothing is special about stochasticity (true for linear
    models). Pesme, Pillaud-Vivien and Flammarion, Implicit bias of SGD for diagonal linear networks, 2021.

    Examples
    --------
    >>> stochastic_gradient_descent([[1.0]], [1.0], 0.25, [0], 1.0).w  # one example: gradient descent
    array([2.])
    """
    X, y, eta, u, v = _descent_arguments(X, y, eta, alpha, signed)
    with np.errstate(over="ignore", invalid="ignore"):
        for i in _validate.indices("indices", indices, size=len(y)):
            step = 2 * eta * (y[i] - X[i] @ (u * u - v * v)) * X[i]
            u, v = u * (1 + step), v * (1 - step)
    return _finite(Factors(u, v), eta)
