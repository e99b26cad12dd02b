r"""Matrix factorization: which interpolating matrix does gradient flow choose, small trace or low rank?

Throughout :math:`\langle A, B\rangle=\operatorname{tr}(A^\top B)`, :math:`\mathcal A(X)_i=\langle A_i, X\rangle`,
:math:`A^*(\nu)=\sum_i\nu_iA_i`, :math:`e=y-\mathcal A(X)`, and the loss is :math:`\tfrac12\|e\|^2`, a sum without 1/m.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from implicitreg import _solvers
from implicitreg._brief import brief
from implicitreg._validate import _floats, function, in_range, integer, items, matrix, number, vector
from implicitreg.flow import diagonal
from numpy.typing import ArrayLike

__all__ = [
    "Completion",
    "MinTrace",
    "RazinCohen",
    "balanced_factors",
    "commuting_limit",
    "completion_example",
    "deep_gradient_flow",
    "gradient_flow",
    "min_trace",
    "razin_cohen",
    "singular_value_rates",
]

_FEASIBLE = 1e-9  # residual, gap and eigenvalue tolerance of `min_trace`, with |A_i| and |y| scaled to one
_HUGE = 1e8  # a dual value that no attainable trace exceeds, in the same scale
_MOST_CALLS = 100_000  # of the velocity of a flow; a few thousand are usual
_MOST_NUMBERS = 10**8  # in the factors of `balanced_factors`


@dataclass(frozen=True, eq=False)
class MinTrace:
    """A minimum-trace interpolant with its certificate.

    Attributes
    ----------
    X : (d, d) the positive semidefinite solution.
    dual : (m,) multipliers with ``I − A*(dual) ⪰ 0``: no feasible matrix has a trace below ``dual · y``.
    gap : ``tr X − dual · y``, zero up to rounding.
    """

    X: np.ndarray
    dual: np.ndarray
    gap: float
    __repr__ = brief


@dataclass(frozen=True, eq=False)
class Completion:
    """A completion problem whose smallest-trace and lowest-rank solutions differ; see `completion_example`."""

    A: np.ndarray
    y: np.ndarray
    min_trace: np.ndarray
    rank_one: np.ndarray
    exponent: float
    __repr__ = brief


@dataclass(frozen=True, eq=False)
class RazinCohen:
    """The products ``W`` (len(t), 2, 2) and ``log_det`` (len(t),), the logarithms of their absolute determinants."""

    W: np.ndarray
    log_det: np.ndarray
    __repr__ = brief


@in_range
def min_trace(A: ArrayLike, y: ArrayLike) -> MinTrace:
    r"""The positive semidefinite matrix of smallest trace that fits the measurements, with a dual certificate.

    .. math:: \min\{\operatorname{tr}X:\ X\succeq0,\ \langle A_i,X\rangle=y_i\}
              =\sup\{\nu\cdot y:\ I-A^*(\nu)\succeq0\}.

    The trace of a positive semidefinite matrix is its nuclear norm.

    Parameters
    ----------
    A : (m, d, d) symmetric measurement matrices, linearly dependent ones allowed.
    y : (m,) measurements.

    Returns
    -------
    MinTrace
        ``X`` (d, d), ``dual`` (m,), ``gap``. Residual and gap are below 1e-9 in the scale where the measurements are
        orthonormal and the data have norm one; mostly they are at rounding. Where the minimiser is not unique, one of
        them; where no dual attains the supremum, one that comes within the gap.

    Raises
    ------
    ValueError
        Bad shapes, asymmetric ``A``, no symmetric solution of the equations, or no positive semidefinite one (also
        where its trace would exceed 1e8 in the scale above). Feasible data are refused where 1e-9 cannot be reached:
        rarely, when no positive definite matrix fits and near-optimal duals are very long.

    Notes
    -----
    Proved: weak duality, :math:`\operatorname{tr}X-\nu\cdot y=\langle I-A^*(\nu),X\rangle\ge0`, so that a gap of zero
    proves both sides optimal whatever produced them. The dual is strictly feasible at :math:`\nu=0`; hence, if the
    data are feasible, the minimum is attained and the two values agree. Method: infeasible-start interior point
    (predictor and corrector), then Newton steps on :math:`\mathcal A(X)=y,\ XS+SX=0,\ S=I-A^*(\nu)`.

    References
    ----------
    Helmberg, Rendl, Vanderbei, Wolkowicz, An interior-point method for semidefinite programming, 1996.
    Alizadeh, Haeberly, Overton, Primal-dual interior-point methods for semidefinite programming, 1998.

    Examples
    --------
    One entry off the diagonal is known, :math:`X_{12}=3`: the smallest trace is 6.

    >>> min_trace([[[0, 0.5], [0.5, 0]]], [3.0]).X.round(9)
    array([[3., 3.],
           [3., 3.]])
    """
    A, y = _measurements(A, y)
    T, Q, b = _orthonormal(A, y)
    scale = float(np.linalg.norm(b))
    if scale == 0:
        return MinTrace(np.zeros(A.shape[1:]), np.zeros(len(y)), 0.0)
    X, nu = _interior_point(Q, b / scale)
    X, nu = _polish(Q, b / scale, X, nu)
    error = _error(Q, b / scale, X, nu)
    if error > _FEASIBLE:
        raise ValueError(
            f"y admits no X ⪰ 0 with <A_i, X> = y_i, or only at the very edge of the cone: "
            f"the best one found is off by {error:.1e}, relatively"
        )
    X, dual = scale * X, T @ nu
    return MinTrace(X, dual, float(np.trace(X) - dual @ y))


@in_range
def gradient_flow(A: ArrayLike, y: ArrayLike, t: ArrayLike, U0: ArrayLike) -> np.ndarray:
    r"""Gradient flow of matrix sensing through a factor: :math:`X=UU^\top`, :math:`\dot U=-\nabla F(U)`.

    .. math:: F(U)=\tfrac12\sum_i(\langle A_i,UU^\top\rangle-y_i)^2,\qquad
              \dot U=2A^*(e)\,U,\qquad \dot X=2\,(A^*(e)X+XA^*(e)).

    Parameters
    ----------
    A : (m, d, d) symmetric.
    y : (m,).
    t : (k,) times, none negative, in any order.
    U0 : (d, r) the factor at time zero. From ``U0 = 0`` nothing moves.

    Returns
    -------
    (k, d, d) array, ``X`` at the times ``t``; positive semidefinite and of rank at most r by construction.

    Raises
    ------
    ValueError
        Bad shapes, asymmetric ``A``, negative times.
    RuntimeError
        The flow cannot be followed to the last time in 100 000 evaluations: late times of a large start are stiff.

    Notes
    -----
    Integrated as :math:`U=GU_0`, :math:`\dot G=2A^*(e)G`, :math:`G(0)=I` (Dormand–Prince 8(5,3), rtol 1e-10, atol 1e-9
    on G), so that the tolerance follows the size of ``U0``: initialisations of 1e-16 need no further care.

    References
    ----------
    Gunasekar et al., Implicit regularization in matrix factorization, 2017, eq. (3). Hegde, Foundations of Deep
    Learning, ch. 7, remark on two-layer dense nets.

    Examples
    --------
    One entry, :math:`\dot x=4x(1-x)`: a logistic curve.

    >>> x = gradient_flow([[[1.0]]], [1.0], [0.5], [[0.1]])[0, 0, 0]
    >>> round(float(x - 0.01 * np.exp(2) / (0.99 + 0.01 * np.exp(2))), 9) + 0.0
    0.0
    """
    A, y = _measurements(A, y)
    d = A.shape[1]
    U0 = matrix("U0", U0)
    if len(U0) != d:
        raise ValueError(f"U0 has shape {U0.shape}: expected {d} rows, as A has shape {A.shape}")
    X0 = U0 @ U0.T

    def rate(_: float, g: np.ndarray) -> np.ndarray:
        G = g.reshape(d, d)
        e = y - np.tensordot(A, G @ X0 @ G.T, 2)
        return 2 * (np.tensordot(e, A, 1) @ G).ravel()

    U = _trajectory(rate, np.eye(d).ravel(), t, atol=1e-9).reshape(-1, d, d) @ U0
    return U @ U.transpose(0, 2, 1)


@in_range
def commuting_limit(A: ArrayLike, y: ArrayLike, alpha: float) -> np.ndarray:
    r"""Where the flow from :math:`X(0)=\alpha^2I` ends when the measurement matrices commute.

    .. math:: \bar X_\alpha=\operatorname{argmin}\{\operatorname{tr}(X\log X-X-X\log\alpha^2):\
              X\succeq0,\ \langle A_i,X\rangle=y_i\}.

    Parameters
    ----------
    A : (m, d, d) symmetric and pairwise commuting.
    y : (m,).
    alpha : positive; the flow starts from any :math:`U_0` with :math:`U_0U_0^\top=\alpha^2I`.

    Returns
    -------
    (d, d) array.

    Raises
    ------
    ValueError
        Bad shapes, matrices that do not commute, ``alpha`` not positive, no positive semidefinite solution.
    RuntimeError
        A linear program has no proved optimum, as for equations of very different sizes.

    Notes
    -----
    Proved: with :math:`A_i=Q\operatorname{diag}(B_i)Q^\top` the flow stays diagonal in the basis ``Q``, and its
    spectrum obeys :math:`\dot w=4w\circ B^\top e`, the diagonal network :math:`w=u\circ u` with design B; so it
    converges, and the limit is `diagonal.limit`. Pinching to that basis keeps trace, measurements and positivity and
    does not increase :math:`\operatorname{tr}X\log X`, so nothing is lost. As :math:`\alpha\to0` the limit has the
    smallest trace and, among those, the largest von Neumann entropy. Without commutation this fails:
    `completion_example`.

    References
    ----------
    Gunasekar et al., Implicit regularization in matrix factorization, 2017, theorem 1 (which assumes the limits).

    Examples
    --------
    The trace alone is known: the limit stays a multiple of the identity.

    >>> commuting_limit([np.eye(2)], [3.0], alpha=0.1).round(9)
    array([[1.5, 0. ],
           [0. , 1.5]])
    """
    A, y = _measurements(A, y)
    alpha = number("alpha", alpha, above=0)
    Q, B = _joint_spectrum(A)
    try:
        w = diagonal.limit(B, y, alpha, signed=False).w
    except ValueError as error:
        raise ValueError(f"y admits no X ⪰ 0 with <A_i, X> = y_i: on the joint spectrum, {error}") from error
    return (Q * w) @ Q.T


@in_range
def completion_example(R: float) -> Completion:
    r"""A 4×4 completion problem on which gradient flow leaves the smallest trace for the lowest rank.

    Observed are :math:`X_{13}=1,\ X_{14}=X_{23}=R`. The smallest trace is :math:`4R`; the rank-one completion
    :math:`pp^\top,\ p=(1,R,1,R)`, has :math:`2+2R^2>4R`.

    Parameters
    ----------
    R : above 1.

    Returns
    -------
    Completion
        ``A`` (3, 4, 4), the symmetrised unit matrices; ``y`` (3,); ``min_trace`` and ``rank_one`` (4, 4); ``exponent``,
        :math:`1-\lambda_2/\lambda_1` with :math:`\lambda_{1,2}=(\sqrt{1+4R^2}\pm1)/4` the positive eigenvalues of
        :math:`A^*(y)`.

    Raises
    ------
    ValueError
        ``R`` not above 1 (at 1 the two solutions coincide).

    Notes
    -----
    Proved: :math:`X_{11}+X_{44}\ge2|X_{14}|` and :math:`X_{22}+X_{33}\ge2|X_{23}|` give :math:`\operatorname{tr}X\ge4R`
    (the dual is (0, 2, 2)); equality puts (1,0,0,−1) and (0,1,−1,0) in the kernel, so the minimiser is unique.
    Proved in the book's chapter on factorization: the flow from :math:`X(0)=\epsilon I` tends to the rank-one
    completion as :math:`\epsilon\to0`, at distance :math:`\epsilon^{1-\lambda_2/\lambda_1+o(1)}`. The reason: near zero
    :math:`X=\epsilon e^{4tA^*(y)}`, so the second mode has size :math:`\epsilon^{1-\lambda_2/\lambda_1}` when the
    first reaches one.

    References
    ----------
    Li, Luo, Lyu, Towards resolving the implicit bias of gradient descent for matrix factorization: greedy
    low-rank learning, 2021.

    Examples
    --------
    >>> problem = completion_example(2)
    >>> [float(np.trace(M)) for M in (problem.min_trace, problem.rank_one)]
    [8.0, 10.0]
    """
    R = number("R", R, above=1)
    A = np.zeros((3, 4, 4))
    for i, (row, column) in enumerate([(0, 2), (0, 3), (1, 2)]):
        A[i, row, column] = A[i, column, row] = 0.5
    p = np.array([1, R, 1, R])
    root = np.sqrt(1 + 4 * R**2)
    smallest = np.array([[R, 1, 1, R], [1, R, R, 1], [1, R, R, 1], [R, 1, 1, R]])
    return Completion(A, np.array([1, R, R]), smallest, np.outer(p, p), 1 - (root - 1) / (root + 1))


@in_range
def razin_cohen(t: ArrayLike, W0: ArrayLike) -> RazinCohen:
    r"""Completing a 2×2 matrix from :math:`w_{12}=w_{21}=1,\ w_{22}=0` by flow on two exactly balanced factors.

    .. math:: W=UV^\top,\quad L=\tfrac12\big[(w_{12}-1)^2+(w_{21}-1)^2+w_{22}^2\big],\quad
              \dot U=eV,\quad \dot V=e^\top U,\quad e=-\nabla L(W).

    Parameters
    ----------
    t : (k,) times, none negative, in any order.
    W0 : (2, 2) invertible, the product at time zero of factors with :math:`U^\top U=V^\top V`. For balanced factors
        the flow of W depends on W alone; :math:`U=V=aI` is :math:`W_0=a^2I`.

    Returns
    -------
    RazinCohen
        ``W`` (k, 2, 2), and ``log_det`` (k,), the natural logarithm of :math:`|\det W|`. The sign of the determinant is
        that of ``W0``. The entries of W soon cannot tell the determinant from zero; ``log_det`` still can.

    Raises
    ------
    ValueError
        Bad shapes, negative times, a singular ``W0``.
    RuntimeError
        The flow cannot be followed to the last time in 100 000 evaluations.

    Notes
    -----
    Proved: :math:`U^\top U-V^\top V` is conserved, so :math:`V=OU` with O orthogonal, :math:`W=UU^\top O^\top`,

    .. math:: \dot U=eOU,\qquad \dot O=e^\top-OeO,\qquad \tfrac d{dt}\log|\det W|=2\operatorname{tr}(eO):

    the determinant keeps its sign. If it is positive, then :math:`w_{11}w_{22}>w_{12}w_{21}`, and along any sequence
    with :math:`L\to0`, :math:`|w_{11}|>w_{12}w_{21}/|w_{22}|\to\infty`: every norm diverges, although the completion
    with :math:`w_{11}=0` has the nuclear norm 2, the least.

    Measured: :math:`L\to0`, and from a positive determinant :math:`w_{11}\simeq(6t)^{1/3}`,
    :math:`L\simeq1/(2w_{11}^2)`. From a negative one W converges to a completion, of determinant −1, whose
    :math:`w_{11}` depends on the start; it tends to zero with :math:`a` for :math:`W_0=a^2` times a reflection.
    Heuristic for the rate: :math:`W\approx pp^\top,\ p=(a,b)`, obeys
    :math:`\dot a=(1-ab)b,\ \dot b=(1-ab)a-b^3`; on the slow manifold :math:`b\approx1/a,\ 1-ab\approx a^{-4}`, so
    :math:`\dot a=a^{-5}`. Then :math:`\log\det W\simeq-2\int w_{22}\simeq-(9/2)^{1/3}t^{2/3}`.

    Exact balance is a thin and unstable set. An imbalance grows while the determinant decays, until W crosses det = 0
    and converges to a finite completion: from U = V = 0.3 I with one factor disturbed by 1e-10 before t = 200, and by
    rounding alone (measured) before t = 400; from small random factors gradient descent ends at finite completions, of
    nearly the least nuclear norm in the median, whatever the sign of the determinant. Use `deep_gradient_flow` for
    factors that are not balanced. This function integrates U, the angle of O, and log det (LSODA, rtol 1e-11, atol
    1e-12): it enforces exact balance, and no rounding can carry W over det = 0.

    References
    ----------
    Razin, Cohen, Implicit regularization in deep learning may not be explainable by norms, 2020, theorem 1.

    Examples
    --------
    >>> run = razin_cohen([1e4], np.eye(2))
    >>> round(float(run.W[0, 0, 0] / 6e4 ** (1 / 3)), 2)
    1.0
    """
    W0 = matrix("W0", W0, rows=2, columns=2)
    P, sigma, Qt = np.linalg.svd(W0)
    if sigma[1] <= 2 * np.finfo(float).eps * sigma[0]:
        raise ValueError(f"W0 = {W0.tolist()} is singular: expected an invertible matrix")
    O0 = Qt.T @ P.T

    def rotated(phi: float) -> np.ndarray:
        return np.array([[np.cos(phi), -np.sin(phi)], [np.sin(phi), np.cos(phi)]]) @ O0

    def product(state: np.ndarray) -> np.ndarray:
        U = state[:4].reshape(2, 2)
        return U @ U.T @ rotated(state[4]).T

    def rate(_: float, state: np.ndarray) -> np.ndarray:
        e = np.array([[0.0, 1], [1, 0]]) - product(state)
        e[0, 0] = 0
        eO, Oe = e @ rotated(state[4]), rotated(state[4]) @ e
        return np.concatenate([(eO @ state[:4].reshape(2, 2)).ravel(), [Oe[0, 1] - Oe[1, 0], 2 * np.trace(eO)]])

    start = np.concatenate([(P * np.sqrt(sigma)).ravel(), [0, np.log(sigma).sum()]])
    states = _trajectory(rate, start, t, method="LSODA", rtol=1e-11, atol=1e-12)
    return RazinCohen(np.array([product(state) for state in states]), states[:, 5])


@in_range
def balanced_factors(W: ArrayLike, N: int) -> list[np.ndarray]:
    r"""Factors :math:`W=W_N\cdots W_1` with :math:`W_{j+1}^\top W_{j+1}=W_jW_j^\top`.

    From :math:`W=U\operatorname{diag}(\sigma)V^\top`: :math:`W_1=\operatorname{diag}(\sigma^{1/N})V^\top`,
    :math:`W_N=U\operatorname{diag}(\sigma^{1/N})`, and :math:`\operatorname{diag}(\sigma^{1/N})` between them.

    Parameters
    ----------
    W : (p, q).
    N : at least 1, the depth; at most a million (fewer where W has more than ten rows and columns).

    Returns
    -------
    List of N arrays, ``[W_1, …, W_N]``, of inner width min(p, q).

    Raises
    ------
    ValueError, TypeError
        ``W`` not a matrix of finite numbers, ``N`` not an integer in its range.

    References
    ----------
    Arora, Cohen, Hu, Luo, Implicit regularization in deep matrix factorization, 2019.

    Examples
    --------
    >>> [M.item() for M in balanced_factors([[8.0]], 3)]
    [2.0, 2.0, 2.0]
    """
    W = matrix("W", W)
    N = integer("N", N, low=1, high=_MOST_NUMBERS // max(min(W.shape) ** 2, 100))
    if N == 1:
        return [W]
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
    root = sigma ** (1 / N)
    return [root[:, None] * Vt, *(np.diag(root) for _ in range(N - 2)), U * root]


@in_range
def deep_gradient_flow(
    factors: Sequence[ArrayLike], gradient: Callable[[np.ndarray], np.ndarray], t: ArrayLike
) -> np.ndarray:
    r"""Gradient flow of :math:`\ell(W_N\cdots W_1)` on all the factors.

    .. math:: \dot W_j=-(W_N\cdots W_{j+1})^\top\,\nabla\ell(W)\,(W_{j-1}\cdots W_1)^\top .

    Parameters
    ----------
    factors : ``[W_1, …, W_N]`` at time zero, of matching shapes.
    gradient : :math:`W\mapsto\nabla\ell(W)`, a matrix of the shape of the product.
    t : (k,) times, none negative, in any order.

    Returns
    -------
    (k, p, q) array, the product at the times ``t``.

    Raises
    ------
    ValueError
        No factors, shapes that do not chain, negative times, a gradient of another shape.
    RuntimeError
        The flow cannot be followed to the last time in 100 000 evaluations.

    Notes
    -----
    Proved: :math:`W_{j+1}^\top W_{j+1}-W_jW_j^\top` is conserved. Dormand–Prince 8(5,3), rtol 1e-10 and atol 1e-10
    times the size of the smallest factor: its norm or, where that is more, what it gains before the velocities change.

    Examples
    --------
    Two scalar factors from 1/2 with gradient w − 1: :math:`\dot w=2w(1-w)`.

    >>> w = deep_gradient_flow([[[0.5]], [[0.5]]], lambda W: W - 1, [1.0])[0, 0, 0]
    >>> round(float(w - 1 / (1 + 3 * np.exp(-2))), 9) + 0.0
    0.0
    """
    factors, gradient = _chain(factors), function("gradient", gradient, 1)
    q = factors[0].shape[1]
    W0 = _product(factors, q)
    matrix("gradient(W)", gradient(W0), rows=W0.shape[0], columns=W0.shape[1])
    cuts = np.cumsum([M.size for M in factors])[:-1]

    def unpack(state: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(M.shape) for part, M in zip(np.split(state, cuts), factors, strict=True)]

    def rate(_: float, state: np.ndarray) -> np.ndarray:
        Ws = unpack(state)
        G = gradient(_product(Ws, q))
        parts = [_product(Ws[j + 1 :], len(M)).T @ G @ _product(Ws[:j], q).T for j, M in enumerate(Ws)]
        return -np.concatenate([part.ravel() for part in parts])

    start, t = np.concatenate([M.ravel() for M in factors]), vector("t", t)
    slopes = unpack(rate(0.0, start))
    tau = _while_straight(rate, start, max(float(t.max()), 0.0))
    size = min(max(_solvers.norm(M), tau * _solvers.norm(slope)) for M, slope in zip(factors, slopes, strict=True))
    states = _trajectory(rate, start, t, atol=max(1e-10 * size, 1e-300))
    return np.array([_product(unpack(state), q) for state in states])


@in_range
def singular_value_rates(W: ArrayLike, gradient: ArrayLike, N: int) -> np.ndarray:
    r"""How fast each singular value of a balanced product of N factors moves under gradient flow.

    .. math:: \dot\sigma_r=-N\,(\sigma_r^2)^{1-1/N}\,\langle\nabla\ell(W),u_rv_r^\top\rangle .

    Parameters
    ----------
    W : (p, q), the product; its singular values should be distinct, else the :math:`u_rv_r^\top` are not defined.
    gradient : (p, q), :math:`\nabla\ell(W)`.
    N : at least 1, the number of factors.

    Returns
    -------
    (min(p, q),) array, in the order of decreasing singular values.

    Raises
    ------
    ValueError, TypeError
        Bad shapes, ``N`` not a positive integer.

    Notes
    -----
    Proved for balanced factors: :math:`\dot W=-\sum_{j=1}^N(WW^\top)^{(j-1)/N}\,\nabla\ell(W)\,(W^\top W)^{(N-j)/N}`,
    and :math:`\dot\sigma_r=u_r^\top\dot Wv_r`; all N terms contribute the same. From two factors on, the larger a
    singular value, the faster it moves; at N = 1 the law is that of gradient flow on W itself.

    References
    ----------
    Arora, Cohen, Hu, Luo, Implicit regularization in deep matrix factorization, 2019, theorem 3.

    Examples
    --------
    >>> singular_value_rates(np.diag([4.0, 1.0]), -np.eye(2), 2)
    array([8., 2.])
    """
    W, N = matrix("W", W), integer("N", N, low=1)
    gradient = matrix("gradient", gradient, rows=W.shape[0], columns=W.shape[1])
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
    return -N * (sigma**2) ** (1 - 1 / N) * np.einsum("ir,ij,rj->r", U, gradient, Vt)


def _measurements(A: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    A = _floats("A", A)
    if A.ndim != 3 or A.shape[1] != A.shape[2] or 0 in A.shape:
        raise ValueError(f"A has shape {A.shape}: expected (m, d, d), none of them zero")
    asymmetry = np.abs(A - A.transpose(0, 2, 1)).max(axis=(1, 2))
    worst = int(np.argmax(asymmetry))
    if asymmetry[worst] > 1e-12 * np.abs(A[worst]).max():
        raise ValueError(
            f"A[{worst}] differs from its transpose by {asymmetry[worst]:.1e}: expected a symmetric matrix"
        )
    return A, vector("y", y, size=len(A))


def _trajectory(rate: Callable, start: np.ndarray, t: ArrayLike, **options: object) -> np.ndarray:
    """The solution at the times ``t``, one state a row."""
    t = vector("t", t)
    if (t < 0).any():
        raise ValueError(f"t[{int(np.argmin(t))}] = {t.min():g}: expected no negative times")
    advice = "earlier times, or a smaller start (the flow may be stiff, or blow up)"
    options = {"method": "DOP853", "rtol": 1e-10} | options
    return _solvers.integrate(f"t = {t.max():g}", rate, start, t, most=_MOST_CALLS, advice=advice, **options)


def _while_straight(rate: Callable, start: np.ndarray, last: float) -> float:
    """The time, at most ``last``, in which the velocity changes by its own size."""
    h, v = 1e-6 * last, rate(0.0, start)
    bend = _solvers.norm(rate(h, start + h * v) - v)
    return min(last, h * _solvers.norm(v) / bend) if bend > 0 else last


def _joint_spectrum(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``Q`` and ``B`` with ``A_i = Q diag(B_i) Q^T``: a generic combination has the common eigenvectors."""
    size = np.maximum(np.linalg.norm(A, axis=(1, 2)), np.finfo(float).tiny)
    unit = A / size[:, None, None]
    commutators = np.linalg.norm(unit[:, None] @ unit - unit @ unit[:, None], axis=(2, 3))
    i, j = np.unravel_index(np.argmax(commutators), commutators.shape)
    if commutators[i, j] > 1e-10:
        raise ValueError(
            f"A[{min(i, j)}] and A[{max(i, j)}] do not commute (relative commutator {commutators[i, j]:.1e}): "
            "expected pairwise commuting matrices"
        )
    _, Q = np.linalg.eigh(np.tensordot(np.random.default_rng(0).normal(size=len(A)), unit, 1))
    return Q, np.einsum("jk,ijl,lk->ik", Q, A, Q)


def _chain(factors: Sequence[ArrayLike]) -> list[np.ndarray]:
    chain = [matrix(f"factors[{j}]", M) for j, M in enumerate(items("factors", factors))]
    for j, (inner, outer) in enumerate(pairwise(chain)):
        if outer.shape[1] != inner.shape[0]:
            raise ValueError(f"factors[{j + 1}] has shape {outer.shape}: expected {inner.shape[0]} columns")
    return chain


def _product(factors: Sequence[np.ndarray], width: int) -> np.ndarray:
    """``W_N ⋯ W_1`` for inputs of size ``width``; no factors are the identity."""
    W = np.eye(width)
    for M in factors:
        W = M @ W
    return W


# What follows solves the semidefinite program; Q holds orthonormal measurements, |b| = 1, and S = I − Q*(nu).


def _orthonormal(A: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``T, Q, b``: <A_i, X> = y_i means <Q_k, X> = b_k, and T turns the dual of these into that of those."""
    system = _solvers.equations(A.reshape(len(y), -1), y)
    if system.off > _FEASIBLE:
        raise ValueError(f"y is off by {system.off:.1e} from every <A_i, X>, relatively: expected consistent equations")
    Q = _symmetric(system.Vt.reshape(-1, *A.shape[1:]))
    return system.U / system.s / system.row[:, None], Q, system.Vt @ system.x


def _symmetric(M: np.ndarray) -> np.ndarray:
    return (M + np.swapaxes(M, -1, -2)) / 2


def _slack(Q: np.ndarray, nu: np.ndarray) -> np.ndarray:
    return np.eye(Q.shape[1]) - np.tensordot(nu, Q, 1)


def _error(Q: np.ndarray, b: np.ndarray, X: np.ndarray, nu: np.ndarray) -> float:
    """The largest violation: of the equations, of equal values, of X ⪰ 0, of S ⪰ 0."""
    residual = np.linalg.norm(np.tensordot(Q, X, 2) - b)
    lowest = min(np.linalg.eigvalsh(X)[0], np.linalg.eigvalsh(_slack(Q, nu))[0])
    return float(max(residual, abs(np.trace(X) - nu @ b), -lowest))


def _interior_point(Q: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best iterate (X, nu) of Mehrotra's predictor and corrector along the HKM direction."""
    eye = np.eye(Q.shape[1])
    X, nu = eye, np.zeros(len(b))
    lowest, best = np.inf, (X, nu)
    for _ in range(80):
        error = _error(Q, b, X, nu)
        if error < lowest:
            lowest, best = error, (X, nu)
        top = np.linalg.eigvalsh(np.tensordot(nu, Q, 1))[-1] + 1e-14 * np.linalg.norm(nu)  # with its rounding
        least_trace = nu @ b / max(1, top)  # of any X that fits
        if least_trace > _HUGE:
            raise ValueError(f"y admits no X ⪰ 0 with <A_i, X> = y_i of a relative trace below {least_trace:.0e}")
        if lowest < 1e-12:
            break
        try:
            X, nu = _step(Q, b, X, nu)
        except np.linalg.LinAlgError:  # X or S has lost definiteness to rounding
            break
    return best


def _step(Q: np.ndarray, b: np.ndarray, X: np.ndarray, nu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    S, eye = _slack(Q, nu), np.eye(len(X))
    dX, _, dS = _direction(Q, b, X, S, 0 * eye)
    affine = np.vdot(X + _reach(X, dX) * dX, S + _reach(S, dS) * dS)
    centre = (affine / np.vdot(X, S)) ** 2 * np.vdot(X, S) / len(X)
    dX, dnu, dS = _direction(Q, b, X, S, centre * eye - dX @ dS)
    return X + _reach(X, dX) * dX, nu + _reach(S, dS) * dnu


def _direction(
    Q: np.ndarray, b: np.ndarray, X: np.ndarray, S: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``dX, dnu, dS`` that meet the equations and, to first order, ``XS = target``."""
    inverse = np.linalg.inv(S)
    schur = _symmetric(np.tensordot(X @ Q @ inverse, Q, ((1, 2), (1, 2))))
    dnu = np.linalg.solve(schur, b - np.tensordot(Q, _symmetric(target @ inverse), 2))
    dS = -np.tensordot(dnu, Q, 1)
    return _symmetric((target - X @ dS) @ inverse) - X, dnu, dS


def _reach(M: np.ndarray, dM: np.ndarray) -> float:
    """A step at most one that goes at most 95 % of the way to the boundary of the cone."""
    L = np.linalg.cholesky(M)
    lowest = np.linalg.eigvalsh(_symmetric(np.linalg.solve(L, np.linalg.solve(L, dM).T)))[0]
    return min(1.0, -0.95 / lowest) if lowest < 0 else 1.0


def _polish(Q: np.ndarray, b: np.ndarray, X: np.ndarray, nu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best iterate of Newton on the equations and ``XS + SX = 0``: it squares the error in the regular case."""
    m, d = len(Q), Q.shape[1]
    rows, columns = np.triu_indices(d)
    basis = _symmetric(np.eye(d * d).reshape(d, d, d, d)[rows, columns])
    T = (basis / np.linalg.norm(basis, axis=(1, 2), keepdims=True)).reshape(len(rows), -1)
    eye = np.eye(d)
    iterates = [(_error(Q, b, X, nu), X, nu)]
    while len(iterates) < 3 or (len(iterates) < 100 and iterates[-1][0] < iterates[-3][0]):  # one step may fail
        S = _slack(Q, nu)
        K = T @ (np.kron(S, eye) + np.kron(eye, S)) @ T.T
        C = T @ (X @ Q + Q @ X).reshape(m, -1).T
        J = np.block([[K, -C], [Q.reshape(m, -1) @ T.T, np.zeros((m, m))]])
        wanted = np.concatenate([-T @ (X @ S + S @ X).ravel(), b - np.tensordot(Q, X, 2)])
        move = np.linalg.lstsq(J, wanted, rcond=1e-12)[0]
        X, nu = X + (move[: len(T)] @ T).reshape(d, d), nu + move[len(T) :]
        iterates.append((_error(Q, b, X, nu), X, nu))
    return min(iterates, key=lambda iterate: iterate[0])[1:]
