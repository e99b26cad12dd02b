r"""Other tails, other geometries: where gradient methods go when the loss or the norm changes.

Classification data enter as rows :math:`z_i = y_i x_i` of ``Z`` with labels :math:`y_i = \pm 1`; losses are sums
over the examples, not means. A norm :math:`\|\cdot\|_p` always acts on the weights; gradients are measured in its
dual
:math:`\|\cdot\|_{p'}`, :math:`1/p + 1/p' = 1`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import ParamSpec

import numpy as np
from implicitreg import _solvers
from implicitreg import _validate as check
from implicitreg._brief import brief
from implicitreg.flow._dual import scaled_arcsinh
from implicitreg.flow._svm import HardMargin, hard_margin, signed_rows, unit_rows
from numpy.typing import ArrayLike
from scipy.linalg import null_space
from scipy.special import softmax

__all__ = [
    "Elementwise",
    "NormMargin",
    "Potential",
    "entropy",
    "hypentropy",
    "margin",
    "margin_direction",
    "mirror_descent",
    "mirror_limit",
    "polynomial_direction",
    "polynomial_flow",
    "power",
    "quadratic",
    "steepest_descent",
    "steepest_step",
]

Elementwise = Callable[[np.ndarray], np.ndarray]
_P = ParamSpec("_P")

_MOST_CALLS = 40_000  # of the velocity of a polynomial flow; scaled columns take some ten thousand
_ROUNDING = np.finfo(float).eps


@dataclass(frozen=True, eq=False)
class NormMargin:
    r"""The largest margin in an :math:`\ell_p` geometry; see :func:`margin_direction`.

    Attributes
    ----------
    w : (d,) array
        A minimiser of :math:`\|w\|_p` subject to :math:`Zw \ge 1`; ``margin * w`` has unit :math:`\ell_p` norm.
    margin : float
        :math:`\gamma^*_p = \max_w \min_i z_i\cdot w / \|w\|_p = 1/\|w\|_p`.
    dual : (n,) array
        Probabilities with :math:`\|Z^\top q\|_{p'} = \gamma^*_p`: the certificate that no direction does better.
    """

    w: np.ndarray
    margin: float
    dual: np.ndarray
    __repr__ = brief


@dataclass(frozen=True)
class Potential:
    r"""A separable, strictly convex potential :math:`\psi(w) = \sum_j \psi_j(w_j)`, given by its derivatives.

    Attributes
    ----------
    link : callable
        :math:`\nabla\psi`, elementwise: from weights to dual variables :math:`\theta`.
    inverse_link : callable
        :math:`(\nabla\psi)^{-1}`, elementwise and increasing, defined for every real :math:`\theta`.
    inverse_link_derivative : callable
        The derivative of ``inverse_link``, elementwise and positive.

    Examples
    --------
    The potential :math:`\psi(w) = \sum_j\cosh w_j`:

    >>> cosh = Potential(np.sinh, np.arcsinh, lambda theta: 1 / np.sqrt(1 + theta**2))
    >>> mirror_limit([[1.0, 1.0]], [4.0], cosh, [0.0, 0.0])
    array([2., 2.])
    """

    link: Elementwise
    inverse_link: Elementwise
    inverse_link_derivative: Elementwise
    __repr__ = brief

    def __post_init__(self) -> None:
        for name in ("link", "inverse_link", "inverse_link_derivative"):
            check.function(name, getattr(self, name), 1)


def increasing_times(name: str, value: ArrayLike) -> np.ndarray:
    """``value`` as a vector of non-negative times that do not decrease, or an error that names it."""
    times = check.vector(name, value)
    if times[0] < 0 or (np.diff(times) < 0).any():
        raise ValueError(f"{name} = {times}: expected non-negative times that do not decrease")
    return times


def in_any_order(name: str) -> Callable[[Callable[_P, np.ndarray]], Callable[_P, np.ndarray]]:
    """Of a flow that is followed forwards, which takes increasing times as its argument ``name``, one for any order."""

    def decorate(flow: Callable[_P, np.ndarray]) -> Callable[_P, np.ndarray]:
        signature = inspect.signature(flow)

        @wraps(flow)
        def followed(*args: _P.args, **kwargs: _P.kwargs) -> np.ndarray:
            bound = signature.bind(*args, **kwargs)
            bound.arguments[name], back = np.unique(check.vector(name, bound.arguments[name]), return_inverse=True)
            return flow(*bound.args, **bound.kwargs)[back]

        return followed

    return decorate


def quadratic() -> Potential:
    r"""The Euclidean potential :math:`\psi(w) = \frac12\|w\|^2`: mirror descent is gradient descent.

    Examples
    --------
    >>> mirror_limit([[3.0, 4.0]], [25.0], quadratic(), [0.0, 0.0])
    array([3., 4.])
    """
    return Potential(_same, _same, np.ones_like)


def entropy() -> Potential:
    r"""The entropy :math:`\psi(w) = \sum_j w_j\log w_j - w_j` on :math:`w > 0`; its divergence is Kullback-Leibler.

    Gradient flow of :math:`\frac12\|y - X(u\circ u)\|^2` is its mirror flow, four times as fast.

    Examples
    --------
    >>> mirror_limit([[1.0, 1.0]], [4.0], entropy(), [1.0, 1.0])
    array([2., 2.])
    """
    return Potential(np.log, np.exp, np.exp)


@check.in_range
def hypentropy(alpha: float) -> Potential:
    r"""The potential of the network :math:`w = u\circ u - v\circ v` started at :math:`u = v = \alpha\mathbf 1`.

    .. math:: \nabla\psi(w) = \operatorname{arcsinh}\frac{w}{2\alpha^2}, \qquad
              \nabla^2\psi(w) = \operatorname{diag}\frac{1}{\sqrt{w^2 + 4\alpha^4}}.

    Parameters
    ----------
    alpha : float
        Scale of the initial weights, positive.

    Raises
    ------
    ValueError
        If ``alpha`` is not a positive finite number.

    References
    ----------
    Woodworth, Gunasekar, Lee, Moroshko, Savarese, Golan, Soudry, Srebro, "Kernel and rich regimes in
    overparametrized models", COLT 2020; the potential is the :math:`Q_\alpha` of their Theorem 1; Hegde,
    Foundations of Deep Learning, ch. 7, treats ``u`` alone.

    Examples
    --------
    >>> float(hypentropy(1.0).inverse_link(np.arcsinh(3.0)))
    6.0
    """
    m = 2 * math.log(check.number("alpha", alpha, above=0))  # alpha² may underflow
    return Potential(*(partial(f, m) for f in (_arcsinh, _sinh, _cosh)))


def power(p: float) -> Potential:
    r"""The potential :math:`\psi(w) = \frac1p\sum_j|w_j|^p`; from 0 its limit has least :math:`\ell_p` norm.

    Parameters
    ----------
    p : float
        Exponent, above one.

    Raises
    ------
    ValueError
        If ``p`` is not a finite number above one.

    Examples
    --------
    Least :math:`\ell_4` norm with :math:`w_1 + 8 w_2 = 17`: the weights are in the ratio :math:`8^{1/3}`.

    >>> mirror_limit([[1.0, 8.0]], [17.0], power(4.0), [0.0, 0.0]).round(12)
    array([1., 2.])
    """
    p = check.number("p", p, above=1)
    r = 1 / (p - 1)
    return Potential(partial(_signed_power, p - 1), partial(_signed_power, r), partial(_slope_of_power, r))


def _same(w: np.ndarray) -> np.ndarray:
    return w


def _arcsinh(m: float, w: np.ndarray) -> np.ndarray:
    """arcsinh(w/(2 e^m))."""
    return scaled_arcsinh(w, m)


def _sinh(m: float, theta: np.ndarray) -> np.ndarray:
    a = np.abs(theta)
    return -np.sign(theta) * np.exp(a + m) * np.expm1(-2 * a)


def _cosh(m: float, theta: np.ndarray) -> np.ndarray:
    a = np.abs(theta)
    return np.exp(a + m) * (1 + np.exp(-2 * a))


def _signed_power(r: float, x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.abs(x) ** r


def _slope_of_power(r: float, x: np.ndarray) -> np.ndarray:
    return r * np.maximum(np.abs(x), 1e-100) ** (r - 1)  # for r < 1 infinite at zero


def _order(p: float) -> float:
    """The order of a norm, with infinity allowed."""
    return math.inf if isinstance(p, float) and p == math.inf else check.number("p", p, low=1)


def _dual_order(p: float) -> float:
    """``p'`` with ``1/p + 1/p' = 1``."""
    return math.inf if p == 1 else 1.0 if p == math.inf else p / (p - 1)


def _start(w0: ArrayLike | None, d: int) -> np.ndarray:
    return np.zeros(d) if w0 is None else check.vector("w0", w0, size=d)


def _size(residual: np.ndarray) -> float:
    """Norm, infinite for what is not finite."""
    return _solvers.norm(residual) if np.isfinite(residual).all() else math.inf


def _along(slope: Callable[[float], float], target: float) -> float:
    """An h > 0 with ``|slope(h)| <= target`` of a slope that increases from ``slope(0) < -target``; 0 where none shows.

    What is not finite is too far.
    """
    low, high, h = 0.0, math.inf, 1.0
    for k in range(100):
        s = slope(h)
        if abs(s) <= target:
            return h
        low, high = (h, high) if s < 0 else (low, h)
        if high == math.inf:
            h *= 2.0 ** (k + 1)
        elif low == 0:
            h /= 2.0 ** (k + 1)
        else:
            h = math.sqrt(low) * math.sqrt(high) if high > 4 * low else (low + high) / 2
    return 0.0


def _newton(system: Callable, x: np.ndarray, tol: float) -> tuple[np.ndarray, float]:
    """Root of ``system(x) -> (residual, Jacobian)``, the Jacobian positive definite, and the residual's size.

    Each step halves the slope along it of the convex function that has the residual for its gradient; outside its
    domain ``system`` returns something not finite. Stops below ``tol`` once a step no longer helps, that is, at the
    floor of rounding.
    """
    r, J = system(x)
    best, size = x, _size(r)
    for _ in range(300):
        D = 1 / np.sqrt(np.maximum(np.diag(J), np.finfo(float).tiny))
        step = D * np.linalg.lstsq(D[:, None] * J * D, -D * r, rcond=None)[0]
        h = _along(lambda h, x=x, step=step: _dot(system(x + h * step)[0], step), abs(_dot(r, step)) / 2)
        if h == 0 or not np.isfinite(step).all():
            break
        x = x + h * step
        r, J = system(x)
        if not np.isfinite(J).all():
            break
        stalled = size <= tol and _size(r) > size / 2
        if _size(r) < size:
            best, size = x, _size(r)
        if stalled:
            break
    return best, size


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        product = float(a @ b)
    return product if math.isfinite(product) else math.inf


def _normalised(Z: np.ndarray, w: np.ndarray, dual: np.ndarray, p: float) -> NormMargin:
    with np.errstate(all="ignore"):  # a failed solve is caught by the duality gap
        w, dual = w / (Z @ w).min(), dual / dual.sum()
    return NormMargin(w, 1 / _solvers.norm(w, p), dual)


def _linf_margin(Z: np.ndarray) -> NormMargin:
    """Least ``s`` with ``-s <= w <= s`` and ``Zw >= 1``, by linear programming."""
    n, d = Z.shape
    eye, one = np.eye(d), np.ones((d, 1))
    A = np.block([[-Z, np.zeros((n, 1))], [eye, -one], [-eye, -one]])
    b = np.r_[-np.ones(n), np.zeros(2 * d)]
    lp = _solvers.linear_program("X", np.eye(d + 1)[d], A_ub=A, b_ub=b, free=d)
    return _normalised(Z, lp.x[:d], -lp.ub[:n], math.inf)


def _l1_margin(Z: np.ndarray) -> NormMargin:
    """Least ``sum(a + b)`` with ``Z(a - b) >= 1``, ``a, b >= 0``, by linear programming."""
    n, d = Z.shape
    lp = _solvers.linear_program("X", np.ones(2 * d), A_ub=np.hstack([-Z, Z]), b_ub=-np.ones(n))
    return _normalised(Z, lp.x[:d] - lp.x[d:], -lp.ub, 1)


def _lp_margin(Z: np.ndarray, p: float, svm: HardMargin) -> NormMargin:
    """For 1 < p < inf: the ``v`` of least lp norm with ``Uv >= h``, U with unit rows, from that of p = 2 on."""
    U, norms = unit_rows(Z)
    v, S = svm.w, svm.dual > 0
    for q in 1 + np.geomspace(1, p - 1, 2 + int(2 * abs(math.log(p - 1)))):
        size = np.abs(v).max()
        v, a = _on_active_set(U, 1 / norms / size, q, v / size, S)
        v, S = size * v, a > 0
    return _normalised(Z, v, np.maximum(a, 0) / norms, p)


def _on_active_set(
    U: np.ndarray, h: np.ndarray, p: float, v: np.ndarray, S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The v and multipliers a of ``Uv >= h``, ``U'a = link v``, from a v and a set of rows that are near theirs."""
    S, solve = S.copy(), _least_power if p > 2 else _least_power_by_dual
    for _ in range(3 * len(U)):
        a = np.zeros(len(U))
        v, a[S] = solve(U[S], h[S], p, v)
        short = np.where(S, 0, h - U @ v)
        if a.min() < -1e-12 * a.max():
            S[a.argmin()] = False
        elif short.max() > 1e-12 * (np.abs(U) @ np.abs(v)).max():
            S[short.argmax()] = True
        else:
            break
    return v, a


def _least_power_by_dual(A: np.ndarray, b: np.ndarray, p: float, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The v of least lp norm with ``A v = b`` and its multipliers, by these, from a v that is near."""
    potential = power(p)
    nu = np.linalg.lstsq(A.T, potential.link(v), rcond=None)[0]
    nu, _ = _newton(_interpolation(A, b, potential), nu, 1e-13)
    return potential.inverse_link(A.T @ nu), nu


def _least_power(A: np.ndarray, b: np.ndarray, p: float, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same in the solutions themselves, in which powers above two are smooth."""
    link, N = power(p).link, null_space(A)
    v = v + np.linalg.lstsq(A, b - A @ v, rcond=None)[0]

    def system(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w = v + N @ t
        with np.errstate(all="ignore"):
            return N.T @ link(w), (N.T * ((p - 1) * np.abs(w) ** (p - 2))) @ N

    v = v + N @ _newton(system, np.zeros(N.shape[1]), 1e-13)[0]
    return v, np.linalg.lstsq(A.T, link(v), rcond=None)[0]


def _interpolation(
    A: np.ndarray, b: np.ndarray, potential: Potential, theta0: float | np.ndarray = 0.0, unit: float = 1.0
) -> Callable:
    """Residual of ``A w = b`` at ``w = g(theta0 + A' nu)`` and its Jacobian ``A diag(g') A'``, functions of ``nu``."""

    def system(nu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theta = theta0 + A.T @ nu
        with np.errstate(all="ignore"):
            w, slope = potential.inverse_link(theta) / unit, potential.inverse_link_derivative(theta) / unit
            return A @ w - b / unit, (A * slope) @ A.T

    return system


@check.in_range
def margin(X: ArrayLike, y: ArrayLike, w: ArrayLike, p: float = 2) -> float:
    r"""The normalised margin :math:`\gamma_p(w) = \min_i y_i\langle w, x_i\rangle / \|w\|_p`.

    The norm is the one on the weights. The distance from :math:`x_i` to the hyperplane
    :math:`\langle w, x\rangle = 0` in the *dual* norm :math:`\|\cdot\|_{p'}` is
    :math:`|\langle w, x_i\rangle|/\|w\|_p`.

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and labels -1 or 1.
    w : (d,) array
        Weights, not zero.
    p : float
        Order of the norm, from 1 to infinity.

    Returns
    -------
    float
        Negative when an example is misclassified.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, a label is not -1 or 1, ``w`` is zero or ``p < 1``.

    Examples
    --------
    >>> margin([[1.0, 0.0], [0.0, -2.0]], [1, -1], [2.0, 1.0], p=1)
    0.6666666666666666
    """
    Z, p = signed_rows(X, y), _order(p)
    w = check.vector("w", w, size=Z.shape[1])
    if not w.any():
        raise ValueError(f"w = {w}: expected weights that are not all zero")
    return float((Z @ w).min() / _solvers.norm(w, p))


@check.in_range
def margin_direction(X: ArrayLike, y: ArrayLike, p: float = 2) -> NormMargin:
    r"""The direction of largest margin in an :math:`\ell_p` geometry, with a certificate.

    .. math:: \gamma^*_p = \max_{w\neq0}\min_i\frac{z_i\cdot w}{\|w\|_p} = \min_{q\in\Delta}\|Z^\top q\|_{p'},
              \qquad w = \operatorname{argmin}\{\|w\|_p : Zw\ge1\}.

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and labels -1 or 1, linearly separable through the origin.
    p : float
        Order of the norm *on the weights*, from 1 to infinity. :math:`p = 1` and :math:`p = \infty` are linear
        programs,
        :math:`p = 2` is :func:`implicitreg.flow.maxmargin.hard_margin`; another ``p`` is reached from there by an
        active set that is followed in ``p``.

    Returns
    -------
    NormMargin
        ``w`` (unique for 1 < p < inf, else a vertex), ``margin``, ``dual``.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, a label is not -1 or 1, ``p < 1``, or the data are not separable.
    RuntimeError
        If the two sides of the duality differ by more than a relative 1e-8 and the rounding of their terms, or a linear
        program has no proved optimum: for ``p`` within about 1/1000 of 1 on some data, or for columns of very different
        sizes.

    Notes
    -----
    *Proof of the duality.* For any ``w`` and :math:`q\in\Delta`,
    :math:`\min_i z_i\cdot w\le q^\top Zw\le\|Z^\top q\|_{p'}\|w\|_p`; equality at a saddle point is von Neumann's
    theorem on the ball :math:`\|w\|_p\le1` and the simplex.

    References
    ----------
    Gunasekar, Lee, Soudry, Srebro, "Characterizing implicit bias in terms of optimization geometry", ICML 2018;
    cited in Hegde, Foundations of Deep Learning, ch. 7.

    Examples
    --------
    Orthogonal examples :math:`a_i e_i`: the constraints decouple and :math:`w_i = 1/a_i` for every norm.

    >>> [round(margin_direction([[1.0, 0.0], [0.0, 2.0]], [1, 1], p).margin, 12) for p in (1, 2, np.inf)]
    [0.666666666667, 0.894427191, 1.0]
    """
    Z, p = signed_rows(X, y), _order(p)
    svm = hard_margin(X, y)  # also says when the data are not separable
    if p == 2:
        return NormMargin(svm.w, svm.margin, svm.dual / svm.dual.sum())
    result = _linf_margin(Z) if p == math.inf else _l1_margin(Z) if p == 1 else _lp_margin(Z, p, svm)
    bound, attained = _solvers.norm(Z.T @ result.dual, _dual_order(p)), (Z @ result.w).min() * result.margin
    rounding = 4 * _ROUNDING * len(Z) * _solvers.norm(np.abs(Z).T @ result.dual, _dual_order(p))  # which may cancel
    within = 1e-8 * result.margin + rounding
    if not (abs(bound - result.margin) <= within >= abs(attained - result.margin) and result.dual.min() >= 0):
        found = f"margin {result.margin:.9g} found, attained {attained:.9g}, bound from the dual {bound:.9g}"
        raise _solvers.SolverError(f"p = {p!r}: {found}")
    return result


@check.in_range
def polynomial_direction(X: ArrayLike, y: ArrayLike, k: float) -> np.ndarray:
    r"""Where gradient flow goes when the loss has the tail :math:`\ell(u)\sim u^{-k}`.

    .. math:: u_k = \operatorname{argmin}\Big\{\sum_i (z_i\cdot u)^{-k} : \|u\| = 1,\ Zu > 0\Big\}.

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and labels -1 or 1, linearly separable through the origin. Repeated examples count: the limit, unlike
        the maximum margin, depends on multiplicities.
    k : float
        Exponent of the tail, positive.

    Returns
    -------
    (d,) array
        The unit vector :math:`u_k`; :math:`u_k\to w^*/\|w^*\|`, the maximum margin direction, as :math:`k\to\infty`.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, a label is not -1 or 1, ``k <= 0`` or the data are not separable.

    Notes
    -----
    Computed as the minimiser of the strongly convex

    .. math:: G(w) = \tfrac1k\log\sum_i(z_i\cdot w)^{-k} + \tfrac12\|w\|^2 .

    *Proof.* The sum of powers is log-convex, because :math:`-k\log(z_i\cdot w)` is convex and log-sum-exp is convex
    and increasing; on a ray :math:`w = ru`, :math:`G = G_0(u) - \log r + r^2/2` is least at :math:`r = 1`. So the
    minimiser of ``G`` exists, is unique, has norm one and minimises the sum on the sphere.
    That gradient flow has this limit is proved in :func:`polynomial_flow` for the loss used there; for every convex,
    strictly decreasing loss the flow follows the regularization path (Ji, Dudík, Schapire, Telgarsky, COLT 2020,
    cited).

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Implicit bias of GD/SGD for linear models", last paragraph.

    Examples
    --------
    Examples (1, 0) and (0, 2): the components are in the ratio :math:`2^{k/(k+2)}`, for the maximum margin 2.

    >>> u = polynomial_direction([[1.0, 0.0], [0.0, 2.0]], [1, 1], k=1)
    >>> float(round(u[0] / u[1], 12)), round(2 ** (1 / 3), 12)
    (1.259921049895, 1.259921049895)
    """
    Z, k = signed_rows(X, y), check.number("k", k, above=0)
    w = hard_margin(X, y).w

    def system(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and Hessian of G; infinite outside the cone Zw > 0."""
        m = Z @ w
        if (m <= 0).any():
            return np.full(w.size, np.inf), np.eye(w.size)
        A, q = Z / m[:, None], softmax(-k * np.log(m))
        a = q @ A
        return w - a, np.eye(w.size) + (k + 1) * (A.T * q) @ A - k * np.outer(a, a)

    u, _ = _newton(system, w / np.linalg.norm(w), 1e-13)
    return u / np.linalg.norm(u)


@check.in_range
@in_any_order("log_t")
def polynomial_flow(X: ArrayLike, y: ArrayLike, log_t: ArrayLike, k: float, w0: ArrayLike | None = None) -> np.ndarray:
    r"""Gradient flow of a loss with a polynomial tail, to times like :math:`e^{200}`.

    .. math:: \dot w = -\nabla\sum_i\ell(z_i\cdot w),\qquad \ell(u) = (1+u)^{-k}\ (u\ge0),\quad \ell(u) = 1-ku\ (u<0).

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and labels -1 or 1.
    log_t : (m,) array
        Values of :math:`s = \log(1+t)\ge0`, in any order.
    k : float
        Exponent of the tail, positive.
    w0 : (d,) array, optional
        Weights at :math:`t = 0`, by default zero.

    Returns
    -------
    (m, d) array
        The weights at these times; they grow like :math:`t^{1/(k+2)}`.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, a label is not -1 or 1, ``k <= 0``, ``log_t`` is
        negative, or is so large that the weights overflow (beyond about ``700 (k + 2)``).
    ArithmeticError
        If 40 000 evaluations of the velocity do not reach the last time, as with columns of very different size or
        data that are not separable.

    Notes
    -----
    With :math:`s = \log(1+t)`, :math:`\sigma = s/(k+2)`, :math:`w = e^\sigma v` the equation is

    .. math:: v' = -\frac{v}{k+2} + k\sum_i\big(e^{-\sigma} + (z_i\cdot v)_+\big)^{-k-1}z_i = -\nabla\Phi_s(v),

    in which nothing overflows; it is integrated with the largest entry of X for the unit. *Limit, proved for separable
    data and any start.* :math:`\Phi_s` is :math:`1/(k+2)`-strongly convex, and so is its limit
    :math:`\Phi = \|v\|^2/(2(k+2)) + \sum_i(z_i\cdot v)^{-k}`; at the
    minimiser :math:`v^*` of the latter :math:`\nabla\Phi_s(v^*) = O(e^{-\sigma})`, whence
    :math:`\frac{d}{ds}\|v-v^*\|\le-\frac{1}{k+2}\|v-v^*\| + O(e^{-s/(k+2)})` and
    :math:`\|v-v^*\| = O(s\,t^{-1/(k+2)})`. As the sum is homogeneous, :math:`v^*` has the direction of
    :func:`polynomial_direction`. Exponential tails approach their limit like :math:`1/\log t`; polynomial ones, like
    a power of ``t``.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Implicit bias of GD/SGD for linear models", last paragraph, on other
    losses. For exponential tails the limit direction is always the same; for polynomial ones it changes.

    Examples
    --------
    One example ``x = 1`` with ``k = 1``: :math:`(1+w)^3 = 1 + 3t`.

    >>> w = polynomial_flow([[1.0]], [1], [0.0, np.log(22.0)], k=1)
    >>> w.round(6).ravel(), round(64 ** (1 / 3) - 1, 6)
    (array([0., 3.]), 3.0)
    """
    Z, k = signed_rows(X, y), check.number("k", k, above=0)
    log_t, w0, R = increasing_times("log_t", log_t), _start(w0, Z.shape[1]), _solvers.unit(Z)
    Z = Z / R
    with np.errstate(divide="ignore"):
        times = np.logaddexp(0, 2 * np.log(R) + log_t + np.log(-np.expm1(-log_t)))  # log(1 + R² t)
    if times[-1] > 700 * (k + 2):
        most = 700 * (k + 2) - 2 * np.log(R)
        raise ValueError(f"log_t[{times.size - 1}] = {log_t[-1]:g}: expected at most 700 (k + 2) - 2 log R = {most:g}, "
                         "R the size of X")  # fmt: skip

    def velocity(s: float, v: np.ndarray) -> np.ndarray:
        m = np.exp(-s / (k + 2)) + np.maximum(Z @ v, 0)
        return -v / (k + 2) + k * m ** (-k - 1) @ Z

    def jacobian(s: float, v: np.ndarray) -> np.ndarray:
        m, on = np.exp(-s / (k + 2)) + np.maximum(Z @ v, 0), Z @ v > 0
        return -np.eye(v.size) / (k + 2) - k * (k + 1) * (Z.T * (on * m ** (-k - 2))) @ Z

    v = _solvers.integrate(
        f"log_t = {log_t[-1]:g}", velocity, R * w0, times, jac=jacobian, method="Radau", rtol=1e-10, atol=1e-13,
        most=_MOST_CALLS, advice="separable X, y with columns of one size (scale the columns), or earlier times",
    )  # fmt: skip
    return np.exp(times / (k + 2))[:, None] * v / R


@check.in_range
def steepest_step(g: ArrayLike, p: float) -> np.ndarray:
    r"""The direction of steepest ascent in :math:`\ell_p`, with the length of the gradient.

    .. math:: \|g\|_{p'}\ \operatorname{argmax}_{\|v\|_p\le1}\ g\cdot v
              = \operatorname{argmax}_v\ g\cdot v - \tfrac12\|v\|_p^2 .

    Parameters
    ----------
    g : (d,) array
        A gradient.
    p : float
        Order of the norm on the weights, from 1 to infinity: 1 moves the coordinate with the largest entry (the
        first of them on a tie), 2 is ``g``, infinity is :math:`\|g\|_1\operatorname{sign} g`.

    Returns
    -------
    (d,) array
        A vector ``v`` with :math:`g\cdot v = \|g\|_{p'}^2 = \|v\|_p^2`.

    Raises
    ------
    ValueError
        If ``g`` is not a finite vector or ``p < 1``.

    Examples
    --------
    >>> [steepest_step([3.0, -4.0], p).tolist() for p in (1, 2, np.inf)]
    [[0.0, -4.0], [3.0, -4.0], [7.0, -7.0]]
    """
    g = check.vector("g", g)
    return _steepest(g, _order(p), np.zeros_like(g))


def _steepest(g: np.ndarray, p: float, noise: np.ndarray) -> np.ndarray:
    """The step for a gradient known up to ``noise``: what is smaller is zero, and entries that it cannot tell tie."""
    g = np.where(np.abs(g) > noise, g, 0.0)
    if p == 1:
        top = np.abs(g).argmax()
        j = (np.abs(g) + noise >= np.abs(g[top]) - noise[top]).argmax()
        return np.where(np.arange(g.size) == j, g, 0)
    size = _solvers.norm(g, _dual_order(p))
    if p == math.inf or size == 0:
        return size * np.sign(g)
    return size * np.sign(g) * (np.abs(g) / size) ** (_dual_order(p) - 1)


@check.in_range
def steepest_descent(
    X: ArrayLike, y: ArrayLike, p: float, eta: float | ArrayLike, k: int, w0: ArrayLike | None = None
) -> np.ndarray:
    r"""Normalised steepest descent in :math:`\ell_p` on the exponential loss.

    .. math:: w_{j+1} = w_j + \eta_j\,\mathrm{step}_p\Big(\sum_i q_i z_i\Big),\qquad
              q = \operatorname{softmax}(-Zw_j),\qquad \sum_i q_iz_i = -\nabla\log L(w_j),

    with ``step`` from :func:`steepest_step` and :math:`L = \sum_i e^{-z_i\cdot w}`. An entry of the gradient that
    rounding cannot tell from zero is zero, and two that it cannot tell apart tie.

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and labels -1 or 1.
    p : float
        Order of the norm on the weights, from 1 to infinity: 1 is coordinate descent (AdaBoost's direction),
        infinity sign descent.
    eta : float or (k,) array
        Step size, positive, or one for each step.
    k : int
        Number of steps, at least 0 and at most 10 million (fewer for X of more than 1000 entries).
    w0 : (d,) array, optional
        Initial weights, by default zero.

    Returns
    -------
    (d,) array
        :math:`w_k`.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, a label is not -1 or 1, ``p < 1``, a step is not positive or ``k``
        is out of its range.

    Notes
    -----
    *Margin, proved.* :math:`\psi = \log L` satisfies :math:`v^\top\nabla^2\psi\,v\le R^2\|v\|_p^2`,
    :math:`R = \max_i\|z_i\|_{p'}`, and :math:`g_j = \|\nabla\psi(w_j)\|_{p'}\ge\gamma^*_p`. So
    :math:`\psi(w_{j+1})\le\psi(w_j)-\eta_jg_j^2(1-\eta_jR^2/2)`, while :math:`\|w_k\|_p\le\sum_j\eta_jg_j` and
    :math:`\min_iz_i\cdot w\ge-\psi`. From :math:`w_0 = 0` and with :math:`\eta_jR^2\le2` therefore

    .. math:: \gamma^*_p-\gamma_p(w_k)\le\frac{\frac12R^3\sum_j\eta_j^2+\frac1{\gamma^*_p}\log n}{\sum_j\eta_j}

    whenever the right side is below :math:`\gamma^*_p`. Steps :math:`\eta_j\propto1/\sqrt j` reach the largest
    :math:`\ell_p` margin. The flow version is
    :math:`\gamma_p(t)\ge\gamma^*_p\log(1/L)/\log(n/L)`. For the *squared* loss there is no such characterisation:
    the limit of sign descent depends on the step. With a constant step the margin need not tend to the largest.

    References
    ----------
    Gunasekar, Lee, Soudry, Srebro, "Characterizing implicit bias in terms of optimization geometry", ICML 2018;
    cited in Hegde, Foundations of Deep Learning, ch. 7.

    Examples
    --------
    One example (3, 4), steps of 1: in :math:`\ell_1` only the larger coordinate moves, in :math:`\ell_\infty` both
    do.

    >>> [steepest_descent([[3.0, 4.0]], [1], p, 1.0, 2).tolist() for p in (1, 2, np.inf)]
    [[0.0, 8.0], [6.0, 8.0], [14.0, 14.0]]
    """
    Z, p = signed_rows(X, y), _order(p)
    k = check.integer("k", k, low=0, high=_solvers.most_steps(Z.size))
    (n, d), size, w = Z.shape, np.abs(Z), _start(w0, Z.shape[1])
    for step in _steps(eta, k):
        q = softmax(-Z @ w)
        noise = _ROUNDING * (n + d * (size @ np.abs(w)).max()) * (q @ size)  # of the sum and of the exponents
        w = w + step * _steepest(q @ Z, p, noise)
    return w


def _steps(eta: float | ArrayLike, k: int) -> np.ndarray:
    """One step size a step."""
    if check.array("eta", eta).ndim == 0:
        return np.full(k, check.number("eta", eta, above=0))
    steps = check.vector("eta", eta, size=k)
    if (steps <= 0).any():
        raise ValueError(f"eta[{steps.argmin()}] = {steps.min():g}: expected positive step sizes")
    return steps


def _start_in_domain(w0: ArrayLike, d: int, potential: Potential) -> np.ndarray:
    """``theta0``, the link of ``w0``."""
    check.instance("potential", potential, Potential)
    w0 = check.vector("w0", w0, size=d)
    with np.errstate(all="ignore"):
        theta0 = potential.link(w0)
        back = potential.inverse_link(theta0)
    if not (np.isfinite(theta0).all() and np.allclose(back, w0, rtol=1e-6, atol=1e-12 * np.abs(w0).max())):
        raise ValueError(f"w0 = {w0}: expected a point inside the domain of the potential")
    return theta0


def mirror_descent(X: ArrayLike, y: ArrayLike, potential: Potential, eta: float, k: int, w0: ArrayLike) -> np.ndarray:
    r"""Mirror descent on the squared loss :math:`L = \frac12\|y-Xw\|^2` (a sum, no :math:`1/n`).

    .. math:: \nabla\psi(w_{j+1}) = \nabla\psi(w_j) + \eta X^\top(y-Xw_j).

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and targets.
    potential : Potential
        The geometry; :func:`quadratic` gives gradient descent.
    eta : float
        Step size, positive.
    k : int
        Number of steps, at least 0 and at most 10 million (fewer for X of more than 1000 entries).
    w0 : (d,) array
        Initial weights, inside the domain of the potential.

    Returns
    -------
    (d,) array
        :math:`w_k`. The dual iterates stay in :math:`\nabla\psi(w_0) + \mathrm{row}(X)`, so the limit, when it
        interpolates, is :func:`mirror_limit` for every stable step.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, ``eta <= 0``, ``k`` is out of its range, ``w0`` is outside the
        domain, or the iterates overflow because ``eta`` is too large.

    References
    ----------
    Gunasekar, Lee, Soudry, Srebro, ICML 2018, Theorem 1; Hegde, Foundations of Deep Learning, ch. 7, third remark on
    diagonal models.

    Examples
    --------
    >>> mirror_descent([[3.0, 4.0]], [25.0], quadratic(), 0.04, 1, [0.0, 0.0])
    array([3., 4.])
    """
    X, y = check.data(X, y)
    eta = check.number("eta", eta, above=0)
    k = check.integer("k", k, low=0, high=_solvers.most_steps(X.size))
    theta = _start_in_domain(w0, X.shape[1], potential)
    with np.errstate(all="ignore"):
        for _ in range(k):
            theta = theta + eta * X.T @ (y - X @ potential.inverse_link(theta))
        w = potential.inverse_link(theta)
    if not np.isfinite(w).all():
        raise ValueError(f"eta = {eta:g}: the iterates overflow within {k} steps; expected a smaller step")
    return w


@check.in_range
def mirror_limit(X: ArrayLike, y: ArrayLike, potential: Potential, w0: ArrayLike) -> np.ndarray:
    r"""Where mirror descent and mirror flow go: the interpolator nearest to the start in Bregman divergence.

    .. math:: w_\infty = \operatorname{argmin}_{Xw=y} D_\psi(w, w_0),\qquad
              D_\psi(a, b) = \psi(a)-\psi(b)-\nabla\psi(b)\cdot(a-b).

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and targets with a solution of :math:`Xw = y` inside the domain of the potential; any rank.
    potential : Potential
        Separable and strictly convex, for example :func:`quadratic`, :func:`entropy`, :func:`hypentropy`,
        :func:`power`.
    w0 : (d,) array
        Initial weights, inside the domain of the potential.

    Returns
    -------
    (d,) array

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, ``w0`` is outside the domain, :math:`Xw=y` has no solution, or
        none inside the domain was found.

    Notes
    -----
    *Proof.* :math:`\frac{d}{dt}\nabla\psi(w) = X^\top(y-Xw)` keeps :math:`\nabla\psi(w)-\nabla\psi(w_0)` in
    :math:`\mathrm{row}(X)`, and so does each step of mirror descent, with momentum or mini-batches. A point with
    :math:`Xw=y` and :math:`\nabla\psi(w) = \nabla\psi(w_0)+X^\top\nu` satisfies the Karush-Kuhn-Tucker conditions of
    the problem above, which suffice because it is convex, and the solution is unique because it is strictly so.
    Computed by Newton's method on the dual, :math:`X(\nabla\psi)^{-1}(\nabla\psi(w_0)+X^\top\nu) = y`.

    References
    ----------
    Gunasekar, Lee, Soudry, Srebro, ICML 2018, Theorem 1; Hegde, Foundations of Deep Learning, ch. 7, third remark on
    diagonal models.

    Examples
    --------
    Kullback-Leibler projection on :math:`w_1 + w_2 = 3` rescales the start:

    >>> mirror_limit([[1.0, 1.0]], [3.0], entropy(), [0.1, 0.2])
    array([1., 2.])
    """
    X, y = check.data(X, y)
    theta0 = _start_in_domain(w0, X.shape[1], potential)
    rows = _solvers.equations(X, y)
    if rows.off > 1e-9:
        raise ValueError(f"y = {y}: expected targets for which Xw = y has a solution")
    A, b = rows.Vt, rows.Vt @ rows.x
    r0 = A @ potential.inverse_link(theta0) - b
    unit = _solvers.norm(b) + _solvers.norm(r0)
    if unit == 0 or not r0.any():
        return potential.inverse_link(theta0)
    system = _interpolation(A, b, potential, theta0, unit)
    # The Jacobian may vanish or blow up at the start (powers, exponentials): begin on the steepest ray.
    ray = -_dual_distance(potential, theta0, A.T @ b) * r0 / _solvers.norm(r0)
    first = _dot(r0 / unit, ray)
    nu, size = _newton(system, _along(lambda h: _dot(system(h * ray)[0], ray), abs(first) / 2) * ray, 1e-14)
    if size > 1e-9:
        raise ValueError(f"y = {y}: found no solution of Xw = y in the domain of the potential (Newton's method leaves "
                         f"{size:.1e}, relatively): expected one, and a w0 not too near the boundary")  # fmt: skip
    return potential.inverse_link(theta0 + A.T @ nu)


def _dual_distance(potential: Potential, theta0: np.ndarray, w: np.ndarray) -> float:
    """How far the dual variables are from those of weights of the size of ``w``; 1 where nothing says so."""
    with np.errstate(all="ignore"):
        away = np.abs(potential.link(np.abs(w)) - theta0)
    return float(away.max(where=np.isfinite(away), initial=0.0)) or 1.0
