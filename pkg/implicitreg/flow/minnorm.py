r"""Least squares: where gradient methods on :math:`L(w) = \tfrac12\|y - Xw\|^2` go, in closed form.

The loss is a sum over the examples, with no 1/n. With the thin singular value decomposition
:math:`X = U\,\mathrm{diag}(s)\,V^\top`, restricted to the nonzero :math:`s`, and :math:`b = U^\top(y - Xw_0)`, every
method that treats the modes alike is one *filter*: :math:`w = w_0 + V\,[f(s_j)\,b_j]_j`. The limit has :math:`f = 1/s`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from implicitreg import _validate
from numpy.typing import ArrayLike

__all__ = [
    "StepSizes",
    "early_stopping_penalty",
    "gradient_descent",
    "gradient_flow",
    "limit",
    "preconditioned_limit",
    "ridge",
    "step_sizes",
    "stochastic_gradient_descent",
]

GRAM_RATIO = 1 / 25  # a Gram matrix loses cond(X)^2, not cond(X): use one only while cond(X) <= 5
GRAM_RANGE = 1e-140, 1e140  # of the largest entry of X: beyond, squares over- or underflow


@dataclass(frozen=True)
class StepSizes:
    """Step sizes of gradient descent on one design matrix: see :func:`step_sizes`."""

    critical: float
    best: float
    rate: float


@dataclass(frozen=True)
class _Modes:
    """Nonzero singular values s, coefficients b = U'r, and V' as a product of factors that is never multiplied out."""

    s: np.ndarray
    b: np.ndarray
    factors: tuple[np.ndarray, ...]

    def combine(self, f: np.ndarray) -> np.ndarray:
        """V (f b), for one filter f (r,) or one a row (T, r)."""
        a = f * self.b
        for factor in self.factors:
            a = a @ factor
        return a


def _modes(X: np.ndarray, r: np.ndarray) -> _Modes:
    n, d = X.shape
    if not GRAM_RANGE[0] < max(X.max(), -X.min()) < GRAM_RANGE[1]:
        return _modes_by_svd(X, r)
    lam, U = np.linalg.eigh(X @ X.T if n <= d else X.T @ X)
    if lam[0] < GRAM_RATIO * lam[-1]:
        return _modes_by_svd(X, r)
    s = np.sqrt(lam)
    if n <= d:
        return _Modes(s, r @ U, (U.T / s[:, None], X))
    return _Modes(s, (r @ X) @ U / s, (U.T,))


def _modes_by_svd(X: np.ndarray, r: np.ndarray) -> _Modes:
    """The modes of an X with large condition number or deficient rank: QR of the long side, SVD of the triangle."""
    n, d = X.shape
    if n <= d:
        Q, R = np.linalg.qr(X.T)
        U, s, Vt = np.linalg.svd(R.T)
        b, factors = r @ U, (Q.T,)
    else:
        Q, R = np.linalg.qr(X)
        U, s, Vt = np.linalg.svd(R)
        b, factors = (r @ Q) @ U, ()
    keep = s > np.finfo(float).eps * max(n, d) * s[0]
    return _Modes(s[keep], b[keep], (Vt[keep], *factors))


def _problem(X: ArrayLike, y: ArrayLike, w0: ArrayLike | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, y = _validate.data(X, y)
    d = X.shape[1]
    return X, y, np.zeros(d) if w0 is None else _validate.vector("w0", w0, size=d)


@_validate.in_range
def limit(X: ArrayLike, y: ArrayLike, w0: ArrayLike | None = None) -> np.ndarray:
    r"""The point to which gradient flow, and every convergent gradient descent, goes from ``w0``.

    .. math:: w_\infty = (I - X^+X)\,w_0 + X^+y
              = \operatorname{argmin}\{\|w - w_0\| : w \in \operatorname{argmin} L\},
              \qquad L(w) = \tfrac12\|y - Xw\|^2 .

    Any rank, consistent or not. From ``w0 = 0`` it is the least-squares solution of minimum norm, :math:`X^+y`, which
    is the minimum-norm interpolator when ``X w = y`` has a solution.

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    w0 : (d,) array, optional
        Starting point; zero by default.

    Returns
    -------
    (d,) array

    Raises
    ------
    ValueError
        If a shape does not fit, an array is empty, or an entry is not finite.
    TypeError
        If an argument is not numeric.

    Notes
    -----
    Accuracy: for X of full rank and a consistent system, the error is at most :math:`50\,\epsilon\,\mathrm{cond}(X)`
    times the larger of :math:`\|w_\infty\|` and :math:`\|w_0\|`, with :math:`\epsilon` = 2.2e-16 (measured against
    extended precision, up to cond(X) = 1e12 and sizes of 1000; typically it is under 10). For an inconsistent system
    the problem itself is more sensitive: :math:`\epsilon\,\mathrm{cond}(X)^2\,\|y - Xw_\infty\| / \|X\|` comes on top,
    as for every least-squares solver.

    Rank: singular values up to :math:`\epsilon\max(n, d)\,s_{\max}` cannot be told from the rounding of X and count as
    zero. Near that threshold the limit is not a continuous function of X, and no algorithm can decide the rank; an
    omitted mode is one along which the flow moves only after times of order :math:`s^{-2} \ge 10^{25}/s_{\max}^2`
    (for max(n, d) up to 1000).

    The eigenvectors of the smaller Gram matrix are used while its computed eigenvalues span at most a factor 25, that
    is cond(X) <= 5; a QR and a singular value decomposition, which cost about four times as much, otherwise. For n < d
    no (d, d) matrix is formed.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, lemma on the squared error loss (there with ``w0 = 0`` and more
    parameters than examples, these in general position).

    Examples
    --------
    >>> limit([[3.0, 4.0]], [25.0])
    array([3., 4.])
    >>> limit([[3.0, 4.0]], [25.0], w0=[4.0, -3.0])  # w0 in the kernel: it stays
    array([7., 1.])
    """
    X, y, w0 = _problem(X, y, w0)
    modes = _modes(X, y - X @ w0)
    return w0 + modes.combine(1 / modes.s)


@_validate.in_range
def gradient_flow(
    X: ArrayLike, y: ArrayLike, t: Sequence[float] | np.ndarray, w0: ArrayLike | None = None
) -> np.ndarray:
    r"""Gradient flow :math:`\dot w = X^\top(y - Xw)` from ``w0``, exactly, at the times ``t``.

    .. math:: w(t) = w_0 + V\Big[\frac{1 - e^{-t s_j^2}}{s_j}\,b_j\Big]_j
              = w_\infty + e^{-tX^\top X}(w_0 - w_\infty), \qquad b = U^\top(y - Xw_0),

    the flow of :math:`L(w) = \tfrac12\|y - Xw\|^2` (a sum, no 1/n; with the mean loss the clock runs n times slower).

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    t : (T,) sequence
        Finite times >= 0, in any order. For :math:`t = \infty` call :func:`limit`.
    w0 : (d,) array, optional
        Starting point; zero by default.

    Returns
    -------
    (T, d) array
        Row k is :math:`w(t_k)`.

    Raises
    ------
    ValueError
        If a shape does not fit, an array is empty, an entry is not finite, or a time is negative.
    TypeError
        If an argument is not numeric.

    Notes
    -----
    :math:`\|w(t) - w_\infty\| \le e^{-s_{\min}^2 t}\,\|w_0 - w_\infty\|` with the least nonzero singular value. The
    path is a straight segment if and only if the part of :math:`y - Xw_0` in the range of X lies in a single eigenspace
    of :math:`XX^\top`.

    Accuracy and rank as in :func:`limit`, relative to the larger of :math:`\|w(t)\|` and :math:`\|w_0\|`. Singular
    values that count as zero are left out at every time, so that the flow tends to :func:`limit` in floating point too.
    The cost is one Gram matrix, one eigendecomposition of size min(n, d), and one product of T rows with X.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Implicit bias of GD/SGD for linear models".

    Examples
    --------
    >>> t_half = np.log(2) / 25  # the half-life of the only mode, s^2 = 25
    >>> gradient_flow([[3.0, 4.0]], [25.0], [0.0, t_half, 2 * t_half])
    array([[0.  , 0.  ],
           [1.5 , 2.  ],
           [2.25, 3.  ]])
    """
    X, y, w0 = _problem(X, y, w0)
    t = _validate.vector("t", t)
    if (t < 0).any():
        raise ValueError(f"t[{int(np.argmin(t))}] = {t.min():g}: expected times >= 0")
    modes = _modes(X, y - X @ w0)
    with np.errstate(over="ignore"):  # t s^2 = inf is the right argument where it overflows
        x = np.multiply.outer(t, modes.s) * modes.s
    W = modes.combine(-np.expm1(-x) / modes.s)
    W += w0  # in place: a second (T, d) array costs as much as the product at small sizes
    return W


def _power_minus_identity(E: np.ndarray, k: int) -> np.ndarray:
    """(I + E)^k - I by repeated squaring, without the cancellation that I + E would bring for small E."""
    P = np.zeros_like(E)
    for bit in f"{k:b}":
        P = 2 * P + P @ P
        if bit == "1":
            P = P + E + P @ E
    return P


def _heavy_ball_progress(x: np.ndarray, momentum: float, k: int) -> np.ndarray:
    """The fraction 1 - eps_k/eps_0 of each mode that k heavy-ball steps with eta s^2 = x have fitted.

    The error eps and its last change q obey eps' = eps + q', q' = -x eps + momentum q, from q = 0.
    """
    E = np.empty((*x.shape, 2, 2))
    E[..., 0, 0] = E[..., 1, 0] = -x
    E[..., 0, 1] = momentum
    E[..., 1, 1] = momentum - 1
    return -_power_minus_identity(E, k)[..., 0, 0]


@_validate.in_range
def gradient_descent(
    X: ArrayLike, y: ArrayLike, eta: float, k: int, w0: ArrayLike | None = None, momentum: float = 0.0
) -> np.ndarray:
    r"""The weights after ``k`` full-batch steps, in closed form, with or without heavy-ball momentum.

    .. math:: w_{k+1} = w_k + \eta X^\top(y - Xw_k) + \beta(w_k - w_{k-1}), \qquad w_{-1} = w_0 .

    In mode j the error obeys
    :math:`\epsilon_{k+1} = (1 + \beta - \eta s_j^2)\epsilon_k - \beta\epsilon_{k-1}`; without momentum

    .. math:: w_k = w_0 + V\Big[\frac{1 - (1 - \eta s_j^2)^k}{s_j}\,b_j\Big]_j, \qquad b = U^\top(y - Xw_0) .

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    eta : float
        Step size > 0, for the loss :math:`\tfrac12\|y - Xw\|^2` (a sum, no 1/n).
    k : int
        Number of steps >= 0; the cost grows with log k.
    w0 : (d,) array, optional
        Starting point; zero by default.
    momentum : float, optional
        :math:`0 \le \beta < 1`.

    Returns
    -------
    (d,) array

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, or ``eta``, ``k`` or ``momentum`` is out of range.
    TypeError
        If an argument is not numeric, or ``k`` is not an integer.

    Notes
    -----
    The iteration converges from every ``w0`` and for every ``y`` if and only if
    :math:`0 < \eta < 2(1 + \beta)/s_{\max}^2`, and then to :func:`limit`, the same for every such ``eta`` and ``beta``.
    A larger ``eta`` is no error: the formula is still what the iteration does, up to where numbers overflow, which
    is an error. The 2 x 2 recursion of each mode is raised to the power k by repeated squaring, so that double roots
    need no special case.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7 (which treats the flow and leaves finite steps as "extra algebra").
    Polyak, Some methods of speeding up the convergence of iteration methods, 1964 (momentum).

    Examples
    --------
    >>> gradient_descent([[3.0, 4.0]], [25.0], eta=1 / 50, k=2)  # each step halves the error
    array([2.25, 3.  ])
    >>> gradient_descent([[1.0]], [1.0], eta=1.0, k=2, momentum=0.5)  # 0, 1, 1 + momentum
    array([1.5])
    """
    X, y, w0 = _problem(X, y, w0)
    eta = _validate.number("eta", eta, above=0)
    k = _validate.integer("k", k, low=0)
    momentum = _validate.number("momentum", momentum, low=0, below=1)
    modes = _modes(X, y - X @ w0)
    return w0 + modes.combine(_heavy_ball_progress(eta * modes.s * modes.s, momentum, k) / modes.s)


@_validate.in_range
def stochastic_gradient_descent(
    X: ArrayLike, y: ArrayLike, eta: float, indices: Sequence[int] | np.ndarray, w0: ArrayLike | None = None
) -> np.ndarray:
    r"""The path of SGD with batches of one, along a given sequence of examples.

    .. math:: w_{k+1} = w_k + \eta\,(y_i - x_i\cdot w_k)\,x_i, \qquad i = i_k .

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
    w0 : (d,) array, optional
        Starting point; zero by default.

    Returns
    -------
    (T + 1, d) array
        Row 0 is ``w0``, row k the weights after k steps.

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, ``eta <= 0``, or an index is not an example.
    TypeError
        If an argument is not numeric, or the indices are not integers.

    Notes
    -----
    For a consistent system, with :math:`w_\infty` from :func:`limit` and :math:`r = y_i - x_i\cdot w_k`,

    .. math:: \|w_{k+1} - w_\infty\|^2 = \|w_k - w_\infty\|^2 - \eta(2 - \eta\|x_i\|^2)\,r^2 ,

    so that for :math:`0 < \eta < 2/R^2`, :math:`R = \max_i\|x_i\|`, and i uniform, the mean squared distance shrinks by
    at least the factor :math:`1 - \eta(2 - \eta R^2)\,s_{\min}^2/n` a step, :math:`s_{\min}` the least nonzero singular
    value: the same limit as gradient descent. For an inconsistent system a constant step does not converge. The step
    :math:`\eta = 1/\|x_i\|^2` would be Kaczmarz's.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, remark on GD and SGD.
    Strohmer and Vershynin, A randomized Kaczmarz algorithm with exponential convergence, 2009.

    Examples
    --------
    >>> stochastic_gradient_descent([[2.0, 0.0], [0.0, 1.0]], [4.0, 3.0], 0.25, [0, 1])
    array([[0.  , 0.  ],
           [2.  , 0.  ],
           [2.  , 0.75]])
    """
    X, y, w0 = _problem(X, y, w0)
    eta = _validate.number("eta", eta, above=0)
    indices = _validate.indices("indices", indices, size=len(y))
    W = np.empty((len(indices) + 1, len(w0)))
    W[0] = w0
    for k, i in enumerate(indices):
        W[k + 1] = W[k] + eta * (y[i] - X[i] @ W[k]) * X[i]
    return W


def _penalty_matrix(value: ArrayLike, d: int) -> np.ndarray:
    Q = _validate.matrix("penalty", value, rows=d, columns=d)
    asymmetry = float(np.abs(Q - Q.T).max())
    if asymmetry > 1e-12 * float(np.abs(Q).max()):
        raise ValueError(f"penalty differs from its transpose by {asymmetry:.1e}: expected a symmetric matrix")
    return Q


@_validate.in_range
def ridge(X: ArrayLike, y: ArrayLike, penalty: float | np.ndarray, w0: ArrayLike | None = None) -> np.ndarray:
    r"""Ridge regression, with a scalar or a quadratic penalty, around ``w0``.

    .. math:: \operatorname{argmin}_w\ \tfrac12\|y - Xw\|^2 + \tfrac\lambda2\|w - w_0\|^2
              = w_0 + V\Big[\frac{s_j}{s_j^2 + \lambda}\,b_j\Big]_j, \qquad b = U^\top(y - Xw_0),

    or, for a matrix Q in place of :math:`\lambda`,
    :math:`\operatorname{argmin}_w \tfrac12\|y - Xw\|^2 + \tfrac12(w - w_0)^\top Q(w - w_0)
    = w_0 + (X^\top X + Q)^{-1}X^\top(y - Xw_0)`.

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    penalty : float or (d, d) array
        :math:`\lambda > 0`, or a symmetric Q for which :math:`X^\top X + Q` is positive definite.
    w0 : (d,) array, optional
        Centre of the penalty; zero by default.

    Returns
    -------
    (d,) array

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, ``penalty <= 0``, or the matrix is not symmetric or leaves
        :math:`X^\top X + Q` not positive definite.
    TypeError
        If an argument is not numeric.

    Notes
    -----
    One implicit Euler step of size t of gradient flow from ``w0``, :math:`w = w_0 + tX^\top(y - Xw)`, is ridge with
    :math:`\lambda = 1/t`. The Tikhonov form :math:`\tfrac12\|w\|^2 + \mu\|y - Xw\|^2` has :math:`\lambda = 1/(2\mu)`.
    A matrix penalty is solved by Cholesky factorisation, with an error of order
    :math:`\epsilon\,\mathrm{cond}(X^\top X + Q)`.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Classical models, margins, and regularization" (Tikhonov).

    Examples
    --------
    >>> ridge([[3.0, 4.0]], [25.0], 25.0)  # lambda = s^2 halves the interpolator
    array([1.5, 2. ])
    >>> ridge([[1.0, 1.0]], [3.0], np.diag([1.0, 0.5]))  # (1/1, 1/0.5) times the residual 3/(1 + 3)
    array([0.75, 1.5 ])
    """
    X, y, w0 = _problem(X, y, w0)
    r = y - X @ w0
    if _validate.array("penalty", penalty).ndim == 0:
        penalty = _validate.number("penalty", penalty, above=0)
        modes = _modes(X, r)
        return w0 + modes.combine(1 / (modes.s + penalty / modes.s))
    Q = _penalty_matrix(penalty, X.shape[1])
    try:
        factor = scipy.linalg.cho_factor(X.T @ X + Q)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"penalty = {Q}: expected X'X + penalty to be positive definite") from error
    return w0 + scipy.linalg.cho_solve(factor, X.T @ r)


@_validate.in_range
def early_stopping_penalty(X: ArrayLike, t: float) -> np.ndarray:
    r"""The quadratic penalty whose ridge solution *is* gradient flow stopped at time ``t``.

    .. math:: Q_t = C\,(e^{tC} - I)^{-1}, \qquad C = X^\top X, \qquad Q_t = 1/t \text{ on } \ker C,

    and for every y and :math:`w_0`,
    :math:`w(t) = \operatorname{argmin}_w \tfrac12\|y - Xw\|^2 + \tfrac12(w - w_0)^\top Q_t(w - w_0)`.

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    t : float
        Time > 0 of the flow of :math:`\tfrac12\|y - Xw\|^2` (a sum, no 1/n).

    Returns
    -------
    (d, d) array
        Symmetric, with eigenvalues between 0 and 1/t.

    Raises
    ------
    ValueError
        If X is not a non-empty finite matrix, or ``t`` is not positive and finite.
    TypeError
        If an argument is not numeric.

    Notes
    -----
    Proof: on an eigenvector of C with eigenvalue c, :math:`(C + Q_t)^{-1}C` is
    :math:`c/(c + c/(e^{tc} - 1)) = 1 - e^{-tc}`, the filter of the flow. The eigenvalues carry an *absolute* error of
    order :math:`\epsilon/t`: those with tc above 40 are zero to that accuracy, and may come out as a rounding error of
    either sign. :func:`ridge` takes such a matrix, since C + Q is positive definite all the same.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7 (the flow). Ali, Kolter and Tibshirani, A continuous-time view of early
    stopping for least squares, 2019 (the comparison with a scalar penalty 1/t).

    Examples
    --------
    >>> Q = early_stopping_penalty([[1.0, 0.0]], np.log(2))  # 1/(2 - 1) on the mode, 1/log 2 on the kernel
    >>> bool(np.allclose(Q, np.diag([1.0, 1 / np.log(2)])))
    True
    """
    X = _validate.matrix("X", X)
    t = _validate.number("t", t, above=0)
    s, Vt = np.linalg.svd(X, full_matrices=False)[1:]
    with np.errstate(over="ignore"):
        x = np.clip(t * s * s, np.finfo(float).tiny, 1e3)  # x e^-x/(1 - e^-x) is 1 and 0 at these ends
    h = x * np.exp(-x) / -np.expm1(-x)
    Q = np.eye(X.shape[1]) + (Vt.T * (h - 1)) @ Vt
    return (Q + Q.T) / (2 * t)


@_validate.in_range
def preconditioned_limit(X: ArrayLike, y: ArrayLike, D: ArrayLike, w0: ArrayLike | None = None) -> np.ndarray:
    r"""The limit of preconditioned gradient descent :math:`w \leftarrow w + \eta DX^\top(y - Xw)`, D positive definite.

    .. math:: w_\infty = w_0 + DX^\top(XDX^\top)^+(y - Xw_0)
              = \operatorname{argmin}\{(w - w_0)^\top D^{-1}(w - w_0) : w \in \operatorname{argmin}\|y - Xw\|\} .

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.
    y : (n,) array
        Targets.
    D : (d, d) array
        Symmetric positive definite preconditioner, the same at every step.
    w0 : (d,) array, optional
        Starting point; zero by default.

    Returns
    -------
    (d,) array

    Raises
    ------
    ValueError
        If a shape does not fit, an entry is not finite, or D is not symmetric positive definite.
    TypeError
        If an argument is not numeric.

    Notes
    -----
    With :math:`D = GG^\top` and :math:`w = Gv` it is gradient descent on v with the design XG. G is invertible, so the
    least-squares solutions are those of X, consistent or not: D changes neither the loss nor its minimisers, only which
    of them is nearest. Converges for :math:`0 < \eta < 2/\lambda_{\max}(XDX^\top)`. Accuracy as in :func:`limit`, with
    XG for X.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7 (D = I).

    Examples
    --------
    >>> preconditioned_limit([[1.0, 1.0]], [2.0], np.diag([3.0, 1.0]))  # shares in the ratio 3 : 1
    array([1.5, 0.5])
    """
    X, y, w0 = _problem(X, y, w0)
    G = np.linalg.cholesky(_validate.spd("D", D, size=X.shape[1]))
    return w0 + G @ limit(X @ G, y - X @ w0)


@_validate.in_range
def step_sizes(X: ArrayLike) -> StepSizes:
    r"""The critical and the best step size of gradient descent on :math:`\tfrac12\|y - Xw\|^2`.

    .. math:: \eta_{\mathrm{critical}} = \frac2{s_{\max}^2}, \qquad
              \eta_{\mathrm{best}} = \frac2{s_{\max}^2 + s_{\min}^2}, \qquad
              \mathrm{rate} = \frac{\kappa - 1}{\kappa + 1}, \qquad \kappa = \frac{s_{\max}^2}{s_{\min}^2},

    with the largest and the least *nonzero* singular value of X.

    Parameters
    ----------
    X : (n, d) array
        Design matrix, one example a row.

    Returns
    -------
    StepSizes
        ``critical``: gradient descent converges for every y if and only if eta is below it. ``best``: the step of the
        smallest guaranteed factor by which a step shrinks the distance to the limit; ``rate``: that factor.

    Raises
    ------
    ValueError
        If X is not a non-empty finite matrix, or is zero (every step converges).
    TypeError
        If X is not numeric.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7 ("finite but small step sizes").

    Examples
    --------
    >>> step_sizes([[2.0, 0.0], [0.0, 1.0]])
    StepSizes(critical=0.5, best=0.4, rate=0.6)
    """
    X = _validate.matrix("X", X)
    if not X.any():
        raise ValueError("X = 0: expected a nonzero matrix")
    s = _modes(X, np.zeros(len(X))).s
    large, small = float(s.max()) ** 2, float(s.min()) ** 2
    return StepSizes(critical=2 / large, best=2 / (large + small), rate=(large - small) / (large + small))
