"""Support vector machines without intercept, exactly: hard margin, hinge, and the certificate of non-separability.

Everything public here is reached as ``implicitreg.flow.maxmargin.NAME``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from implicitreg import _solvers
from implicitreg import _validate as V
from implicitreg._brief import brief
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgError, cho_factor, cho_solve

SUPPORT_TOLERANCE = 1e-8  # i is a support vector when z_i . w <= 1 + this
_VANISHES = 1e-12  # a convex combination of unit vectors this short counts as zero
_KKT = 1e-11  # largest relative KKT residual that is returned rather than raised


class NotSeparable(ValueError):
    r"""No :math:`w` has :math:`y_i\langle w,x_i\rangle>0` for every :math:`i`.

    Attributes
    ----------
    certificate : ndarray (n,)
        :math:`p\ge0` with :math:`\sum_ip_i=1` and :math:`\sum_ip_iy_ix_i=0` (to rounding). Such a :math:`p`
        is a proof: :math:`0=w\cdot\sum_ip_iy_ix_i=\sum_ip_iy_i\langle w,x_i\rangle` for every :math:`w`.
    """

    def __init__(self, certificate: np.ndarray) -> None:
        self.certificate = certificate
        points = ", ".join(map(str, np.flatnonzero(certificate)[:8]))
        super().__init__(
            "X, y is not linearly separable: a convex combination of the y_i x_i (i = "
            f"{points}{', ...' if np.count_nonzero(certificate) > 8 else ''}; see .certificate) vanishes; "
            "expected a w with y_i <w, x_i> > 0 for every i"
        )


@dataclass(frozen=True, eq=False)
class HardMargin:
    """The hard-margin solution: ``w (d,)``, ``margin = 1/|w|``, ``support`` (sorted indices), ``dual (n,)``."""

    w: np.ndarray
    margin: float
    support: np.ndarray
    dual: np.ndarray
    __repr__ = brief


def signed_rows(X: ArrayLike, y: ArrayLike) -> np.ndarray:
    """The rows ``z_i = y_i x_i``, after checking that every label is +1 or -1."""
    X, y = V.data(X, y)
    wrong = np.flatnonzero(np.abs(y) != 1)
    if wrong.size:
        raise ValueError(f"y[{wrong[0]}] = {y[wrong[0]]:g}: expected labels +1 or -1")
    return y[:, None] * X


@V.in_range
def margin(X: ArrayLike, y: ArrayLike, w: ArrayLike) -> float | np.ndarray:
    r"""The margin of a classifier, the signed distance of the worst point to its hyperplane.

    .. math:: \gamma(w)=\min_i\frac{y_i\langle w,x_i\rangle}{\|w\|}

    It is positive iff :math:`w` classifies every point correctly, and does not depend on the length of
    :math:`w`. (The number :math:`2/\|w\|` is the width of the slab :math:`|\langle w,x\rangle|<1`, and twice
    the margin only when :math:`\min_iy_i\langle w,x_i\rangle=1`.)

    Parameters
    ----------
    X : array (n, d)
    y : array (n,)
        Labels, +1 or -1.
    w : array (d,) or (len, d)
        One classifier, or one a row.

    Returns
    -------
    float or ndarray (len,)

    Raises
    ------
    ValueError
        If ``w`` (or one of its rows) is zero, or on malformed input.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Classical models, margins, and regularization".

    Examples
    --------
    >>> margin([[3.0, 4.0]], [-1], [-6.0, -8.0])
    5.0
    """
    Z = signed_rows(X, y)
    w = V._floats("w", w)
    rows = V.matrix("w", np.atleast_2d(w), columns=Z.shape[1])
    size = np.linalg.norm(rows, axis=1)
    if not size.all():
        raise ValueError("w = 0 has no margin: expected a nonzero vector")
    gamma = (rows @ Z.T).min(axis=1) / size
    return gamma if w.ndim == 2 else float(gamma[0])


# --- the hard margin: min |v|^2/2 subject to U v >= h, unit rows in U, 0 < h <= 1 ---------------------------------


def gram_factor(K: np.ndarray, least: float = 1e-8) -> tuple[np.ndarray, bool]:
    """Cholesky factor of a Gram matrix; LinAlgError when a row is within sqrt(least) of the span of earlier ones."""
    factor = cho_factor(K, lower=True, check_finite=False)
    if np.diag(factor[0]).min() ** 2 < least * np.diag(K).max():
        raise LinAlgError("dependent rows")
    return factor


@dataclass
class _GramSolver:
    """Solves (U U')_SS b = h_S with K = U U', and keeps the factor of the last S."""

    K: np.ndarray
    h: np.ndarray
    factor: tuple[np.ndarray, bool] | None = None

    def __call__(self, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """b, and all the slacks."""
        self.factor = gram_factor(self.K if S.all() else self.K[np.ix_(S, S)])
        beta = np.zeros(len(S))
        beta[S] = b = cho_solve(self.factor, self.h[S], check_finite=False)
        return b, self.K @ beta - self.h


def _lstsq_solve(U: np.ndarray, h: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same without squaring the condition: the shortest v with U_S v = h_S, then the shortest b with U_S' b = v."""
    v, b = _shortest(U[S], h[S])
    return b, U @ v - h


def _active_set(
    h: np.ndarray, S: np.ndarray, solve: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> np.ndarray | None:
    """Primal-dual active set from S; None when a set repeats or its rows are dependent."""
    seen = set()
    while S.any() and S.tobytes() not in seen:
        seen.add(S.tobytes())
        try:
            b, slack = solve(S)
        except LinAlgError:
            return None
        S_next = slack < -1e-12 * np.sqrt(abs(h[S] @ b))  # h b = |v|²
        S_next[S] = b > 0
        if (S_next == S).all():
            return S
        S = S_next
    return None


def _lawson_hanson(U: np.ndarray, h: np.ndarray) -> np.ndarray:
    r"""The active set from NNLS, or NotSeparable (Lawson & Hanson, ch. 23: least distance programming).

    :math:`\min_{u\ge0}\|U^\top u\|^2/c^2+(h\cdot u-1)^2` has its :math:`u` on the ray of the multipliers. The
    weight :math:`c` follows the margin down, so that neither term drowns the other.
    """
    d = U.shape[1]
    c, rho = 1.0, 0.0
    while rho < c / 4:
        c = rho or c
        u = _solvers.nonnegative_least_squares("X", np.vstack([U.T / c, h]), np.eye(d + 1)[d])[0]
        length = float(np.linalg.norm(U.T @ u))
        if length <= _VANISHES * u.sum():
            raise NotSeparable(u)
        rho = length / float(h @ u)
    return u > 0


def _shortest(U: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shortest v with U v = h, and the shortest b with U' b = v."""
    v = np.linalg.lstsq(U, h, rcond=None)[0]
    return v, np.linalg.lstsq(U.T, v, rcond=None)[0]


def _shortest_by_gram(U: np.ndarray, h: np.ndarray, factor: tuple[np.ndarray, bool]) -> tuple[np.ndarray, np.ndarray]:
    """The same for well-conditioned rows: two corrections make the error cond(U) eps instead of its square."""
    b = cho_solve(factor, h)
    for _ in range(2):
        b += cho_solve(factor, h - U @ (U.T @ b))
    return U.T @ b, b


def _least_distance(U: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Argmin and multipliers of |v|²/2 subject to U v >= h."""
    n, d = U.shape
    beta = np.zeros(n)
    if 50 <= n <= d:
        solve = _GramSolver(U @ U.T, h)
        S = _active_set(h, np.ones(n, dtype=bool), solve)
        if S is not None:
            v, beta[S] = _shortest_by_gram(U if S.all() else U[S], h[S], solve.factor)
            return v, beta
    S = _active_set(h, _lawson_hanson(U, h), lambda S: _lstsq_solve(U, h, S))
    if S is None:
        raise ArithmeticError("the active set of the hard-margin problem does not settle: X, y is too ill-conditioned")
    v, beta[S] = _shortest(U[S], h[S])
    return v, beta


def _verify(U: np.ndarray, h: np.ndarray, v: np.ndarray, beta: np.ndarray) -> None:
    """The KKT conditions, relative to |v|; they are sufficient because the problem is convex."""
    slack = U @ v - h
    length = float(np.linalg.norm(v))
    primal = max(-slack.min(), np.abs(slack[beta > 0]).max()) / length
    dual = max(np.linalg.norm(v - U.T @ beta), -beta.min()) / (length + beta.sum())
    if max(primal, dual) > _KKT:
        raise ArithmeticError(f"KKT residuals {primal:.1e} (primal), {dual:.1e} (dual) of the hard-margin solution: "
                              "X, y is too ill-conditioned")  # fmt: skip


def unit_rows(Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows divided by their norms, and the norms (no overflow on the way)."""
    scale = max(float(Z.max()), -float(Z.min())) or 1.0
    U = Z / scale
    norms = np.linalg.norm(U, axis=1)
    if not norms.all():
        raise NotSeparable(np.eye(len(Z))[np.argmin(norms)])
    U /= norms[:, None]
    return U, scale * norms


@V.in_range
def hard_margin(X: ArrayLike, y: ArrayLike) -> HardMargin:
    r"""The hard-margin support vector machine without intercept, to rounding.

    .. math:: w^*=\operatorname{argmin}\{\tfrac12\|w\|^2:\ y_i\langle w,x_i\rangle\ge1\ \forall i\},\qquad
              \gamma^*=\max_{\|w\|=1}\min_iy_i\langle w,x_i\rangle=1/\|w^*\|

    Parameters
    ----------
    X : array (n, d)
    y : array (n,)
        Labels, +1 or -1.

    Returns
    -------
    HardMargin
        ``w (d,)``; ``margin``, :math:`\gamma^*`; ``support``, the sorted :math:`i` with :math:`y_i\langle
        w^*,x_i\rangle\le1+10^{-8}`; ``dual (n,)``, multipliers :math:`\alpha\ge0`, zero off the support, with
        :math:`w^*=\sum_i\alpha_iy_ix_i` and :math:`\sum_i\alpha_i=\gamma^{*-2}`. Where the support vectors
        are dependent there are many such :math:`\alpha`, and this is one of them.

    Raises
    ------
    NotSeparable
        A ``ValueError`` whose ``certificate`` is a convex combination of the :math:`y_ix_i` that vanishes.
        Data whose rows, scaled to length one, leave a combination shorter than 1e-12 count as not separable.
    ArithmeticError
        If the KKT conditions fail by more than 1e-11 relative (data too ill-conditioned for float64).
    ValueError, TypeError
        On malformed input.

    Notes
    -----
    Primal-dual active set on the Gram matrix when :math:`50\le n\le d`; else, or when that meets dependent
    rows or repeats a set, Lawson and Hanson's least-distance programming by NNLS, re-solved on the set it
    finds. In both cases the equations are solved with an error of order
    :math:`\mathrm{cond}(Z_S)\,\varepsilon` and the KKT conditions are verified.

    The optimum is the label interpolator :math:`Z^+\mathbf 1` (rows :math:`z_i=y_ix_i` of full row rank) iff
    :math:`(ZZ^\top)^{-1}\mathbf 1\ge0`, not in general.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, the theorem on the exp loss and the SVM problem before it.
    Lawson and Hanson, Solving Least Squares Problems (1974), ch. 23.
    Hintermüller, Ito and Kunisch, The primal-dual active set strategy as a semismooth Newton method (2002).

    Examples
    --------
    Two orthogonal points at distances 1 and 2: :math:`w^*=(1,1/2)`, :math:`\gamma^*=2/\sqrt5`.

    >>> svm = hard_margin([[1.0, 0.0], [0.0, -2.0], [3.0, 3.0]], [1, -1, 1])
    >>> svm.support, svm.dual
    (array([0, 1]), array([1.  , 0.25, 0.  ]))
    >>> svm.w
    array([1. , 0.5])
    """
    Z = signed_rows(X, y)
    U, norms = unit_rows(Z)
    least = float(norms.min())
    h = least / norms
    try:
        v, beta = _least_distance(U, h)
    except NotSeparable as error:
        p = error.certificate / (norms / least)
        raise NotSeparable(p / p.sum()) from None
    _verify(U, h, v, beta)
    beta = np.maximum(beta, 0)
    support = np.flatnonzero((U @ v <= h * (1 + SUPPORT_TOLERANCE)) | (beta > 0))
    w = v / least
    return HardMargin(w, float(1 / np.linalg.norm(w)), support, beta / norms / least)


def support_frame(Z: np.ndarray, svm: HardMargin) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""The equation of the duals, free of scale: ``B' p = b`` for ``p = margin² alpha`` (which sums to one).

    The rows of ``B (s, r)`` are the z_i / margin of the support in the orthonormal rows of ``basis (r, d)``
    of their span, and b is the unit vector w*/|w*| there. Rounding beside the length of a row, and in b, is zero.
    """
    U, norms = unit_rows(Z[svm.support])
    left, sigma, basis = np.linalg.svd(U, full_matrices=False)
    r = int((sigma > sigma[0] * max(U.shape) * np.finfo(float).eps).sum())
    B, basis = left[:, :r] * sigma[:r], basis[:r]
    b = basis @ (svm.w * svm.margin)
    return _without_rounding(B) * (norms / svm.margin)[:, None], _without_rounding(b), basis


def _without_rounding(a: np.ndarray) -> np.ndarray:
    """Entries of unit vectors, those of the size of rounding set to zero."""
    return np.where(np.abs(a) > a.shape[0] * np.finfo(float).eps, a, 0.0)


# --- the hinge ----------------------------------------------------------------------------------------------------


@V.in_range
def hinge_threshold(X: ArrayLike, y: ArrayLike) -> float:
    r"""The smallest :math:`C` at which the soft margin is the hard margin.

    .. math:: C^*=\min\{\max_i\alpha_i:\ \alpha\ \text{a dual optimum of the hard-margin problem}\}

    The dual of the hinge problem is the hard-margin dual with the box :math:`0\le\alpha_i\le C`, so
    :math:`w_C=w^*` iff some optimal :math:`\alpha` fits in the box: the hinge is an *exact* penalty, with no
    :math:`C\to\infty`.

    Parameters
    ----------
    X : array (n, d)
    y : array (n,)
        Labels, +1 or -1; separable.

    Returns
    -------
    float

    Raises
    ------
    NotSeparable, ArithmeticError, ValueError, TypeError
        As `hard_margin`.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "soft-margin SVM".

    Examples
    --------
    Two copies of one point at distance 2 share the multiplier 1/4.

    >>> round(hinge_threshold([[2.0, 0.0], [2.0, 0.0]], [1, 1]), 14)
    0.125
    """
    svm = hard_margin(X, y)
    B, b, _ = support_frame(signed_rows(X, y), svm)
    s = len(B)
    largest = np.eye(s + 1)[s]  # minimise tau subject to p_i <= tau
    below = np.hstack([np.eye(s), -np.ones((s, 1))])
    p = _solvers.linear_program("X", largest, A_ub=below, b_ub=np.zeros(s), A_eq=np.column_stack([B.T, 0 * b]), b_eq=b)
    return float(p.x[s] / svm.margin**2)


def _longest_step(a: np.ndarray, p: np.ndarray, box: np.ndarray) -> tuple[float, int]:
    """The largest t with 0 <= a + t p <= box, and the coordinate that stops it."""
    room = np.full(len(p), np.inf)
    room[p > 0] = (box - a)[p > 0] / p[p > 0]
    room[p < 0] = -a[p < 0] / p[p < 0]
    i = int(np.argmin(room))
    return float(max(room[i], 0.0)), i


def _face_direction(U: np.ndarray, g: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, float]:
    """The step to the maximum over the free coordinates, of gradient g, or a direction that rises for ever."""
    q = np.linalg.lstsq(U, g, rcond=None)[0]
    flat = g - U @ q  # in the kernel of U', where the dual is linear with slope |flat|²
    if np.linalg.norm(flat) > np.linalg.norm(noise):
        return flat, np.inf
    return np.linalg.lstsq(U.T, q, rcond=None)[0], 1.0


def _box_dual(U: np.ndarray, h: np.ndarray, box: np.ndarray) -> np.ndarray:
    """U' a of the argmax of h a - |U' a|²/2 over 0 <= a <= box, unit rows in U, by an active-set method from a = 0."""
    n = len(U)
    a, free = np.zeros(n), np.zeros(n, dtype=bool)

    def gradient() -> tuple[np.ndarray, np.ndarray]:
        """It, and what rounding may leave of it where it vanishes."""
        v = U.T @ a
        return h - U @ v, 1e-11 * (h + np.linalg.norm(v)) + 4 * np.finfo(float).eps * a.sum()

    for _ in range(100 * n):
        g, noise = gradient()
        if free.any():
            p, full = _face_direction(U[free], g[free], noise[free])
            t, i = _longest_step(a[free], p, box[free])
            a[free] = np.clip(a[free] + min(t, full) * p, 0, box[free])
            if t < full:
                stopped = np.flatnonzero(free)[i]
                a[stopped], free[stopped] = (box[stopped] if p[i] > 0 else 0.0), False
                continue
            g, noise = gradient()
        gain = np.where(free, 0, np.where(a > 0, -g, g))
        if (gain <= noise).all():
            v = U.T @ a  # in which large terms may cancel; the free rows say what is left of them
            return v + np.linalg.lstsq(U[free], (h - U @ v)[free], rcond=None)[0] if free.any() else v
        free[np.argmax(gain / noise)] = True
    raise ArithmeticError("the active set of the soft-margin problem does not settle: X, y is too ill-conditioned")


@V.in_range
def soft_margin(X: ArrayLike, y: ArrayLike, C: float) -> np.ndarray:
    r"""The soft-margin support vector machine without intercept (hinge loss, summed), exactly.

    .. math:: w_C=\operatorname{argmin}_w\ \tfrac12\|w\|^2+C\sum_i\max(0,1-y_i\langle w,x_i\rangle)

    An active-set method on the dual :math:`\max_{0\le\alpha\le
    C}\sum_i\alpha_i-\frac12\|\sum_i\alpha_iy_ix_i\|^2`, meant for a few hundred points. The data need not be
    separable.

    Parameters
    ----------
    X : array (n, d)
    y : array (n,)
        Labels, +1 or -1.
    C : float
        Weight of the summed loss, positive. From `hinge_threshold` on, the solution is the hard margin.

    Returns
    -------
    ndarray (d,)

    Raises
    ------
    ValueError, TypeError
        On malformed input.
    ArithmeticError
        If the active set does not settle (data too ill-conditioned for float64).

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "soft-margin SVM".

    Examples
    --------
    One point at distance 2: the dual is :math:`\min(C,1/4)`.

    >>> soft_margin([[2.0, 0.0]], [1], C=0.125)
    array([0.25, 0.  ])
    >>> soft_margin([[2.0, 0.0]], [1], C=10.0)
    array([0.5, 0. ])
    """
    Z = signed_rows(X, y)
    C = V.number("C", C, above=0)
    Z = Z[Z.any(axis=1)]  # the loss of a point at the origin is constant
    if not Z.size:
        return np.zeros(Z.shape[1])
    U, norms = unit_rows(Z)
    unit = min(C * norms.max(), 1 / norms.min())  # of w
    with np.errstate(over="ignore"):  # a box without an end
        h, box = 1 / norms / unit, C * norms / unit
    return unit * _box_dual(U, h, box)
