r"""Separable classification: gradient descent on the exp and logistic losses goes to the maximum margin.

Convention: :math:`z_i=y_ix_i` and :math:`L(w)=\sum_i\ell(z_i\cdot w)`, a sum without 1/n, with
:math:`\ell(m)=e^{-m}` ("exp") or :math:`\log(1+e^{-m})` ("logistic"). Gradient flow is :math:`\dot w=-\nabla
L(w)`; ``log_t`` is :math:`\log(1+t)`, so that :math:`t=e^{\mathtt{log\_t}}-1` may be astronomically late.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from implicitreg import _solvers
from implicitreg import _validate as V
from implicitreg._brief import brief
from implicitreg.flow._svm import (
    HardMargin,
    NotSeparable,
    gram_factor,
    hard_margin,
    hinge_threshold,
    margin,
    signed_rows,
    soft_margin,
    support_frame,
)
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgError
from scipy.special import expit, logsumexp, softmax, wrightomega

__all__ = [
    "LOSSES",
    "Asymptotics", "HardMargin", "NotSeparable", "asymptotics", "degenerate_example", "gradient_descent",
    "gradient_flow", "hard_margin", "hinge_threshold", "margin", "margin_gap_bound", "momentum_gradient_descent",
    "momentum_margin_gap_bound", "normalized_gradient_descent", "normalized_margin_gap_bound", "soft_margin",
]  # fmt: skip

LOSSES = ("exp", "logistic")
_MOST_CALLS = 100_000  # of the velocity by the solver in reserve; 40 000 at most were seen to succeed
_ADVICE = "columns of X of similar size, which make the flow less stiff"


def _start(Z: np.ndarray, w0: ArrayLike | None) -> np.ndarray:
    return np.zeros(Z.shape[1]) if w0 is None else V.vector("w0", w0, size=Z.shape[1])


def _late_times(log_t: ArrayLike) -> np.ndarray:
    log_t = V.vector("log_t", log_t)
    if log_t.min() < 0:
        raise ValueError(f"log_t[{np.argmin(log_t)}] = {log_t.min():g}: expected log(1 + t) >= 0")
    return log_t


def _log_time(log_t: np.ndarray) -> np.ndarray:
    """The logarithm of t itself, -inf at t = 0."""
    with np.errstate(divide="ignore"):
        return log_t + np.log(-np.expm1(-log_t))


# --- gradient flow ------------------------------------------------------------------------------------------------


def _log_slope(loss: str, m: np.ndarray) -> np.ndarray:
    """The logarithm of -loss'(m)."""
    return -m if loss == "exp" else -np.logaddexp(0, m)


@dataclass(frozen=True, eq=False)
class _LateFlow:
    r"""The flow in :math:`\lambda=\log(t+1/c)` and :math:`x`, with :math:`Zw=m_0+Bx`.

    :math:`dx/d\lambda=` ``pull`` :math:`(a)`, :math:`a_i=R^2e^\lambda(-\ell'(m_i))`. A leg follows the
    residual :math:`\xi=x-\lambda\,`rate, where :math:`\lambda-m_i` is formed as
    :math:`(1-\theta_i)\lambda-m_{0i}-(B\xi)_i` with :math:`\theta=B\,`rate, so that nothing large cancels on
    the support, where :math:`\theta_i=1`.
    """

    loss: str
    m0: np.ndarray
    B: np.ndarray
    pull: Callable[[np.ndarray], np.ndarray]
    log_R2: float
    size: float  # the scale of x, for the absolute tolerance

    def _pushes(self, lam: float, xi: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, float | np.ndarray]:
        """The a_i and the -d log a_i / d m_i."""
        shift = self.m0 + self.B @ xi
        log_a = self.log_R2 + (1 - theta) * lam - shift
        curvature = 1.0
        if self.loss == "logistic":
            m = theta * lam + shift
            log_a, curvature = log_a - np.logaddexp(0, -m), expit(m)
        return np.exp(np.minimum(log_a, 200.0)), curvature  # the ceiling is met by rejected trial steps only

    def leg(self, start: float, x: np.ndarray, lam: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """The residuals xi at the increasing times lam >= start, where the unknowns are x."""
        theta = self.B @ rate

        def slope(tau: float, xi: np.ndarray) -> np.ndarray:
            return self.pull(self._pushes(start + tau, xi, theta)[0]) - rate

        def jacobian(tau: float, xi: np.ndarray) -> np.ndarray:
            a, curvature = self._pushes(start + tau, xi, theta)
            return self.pull(-(a * curvature)[:, None] * self.B)

        tau = np.unique(np.r_[0.0, lam - start])
        path = _integrate(slope, jacobian, x - start * rate, tau, 1e-12 * max(1.0, self.size))
        return path[np.searchsorted(tau, lam - start)]


def _integrate(
    slope: Callable[[float, np.ndarray], np.ndarray], jacobian: Callable[[float, np.ndarray], np.ndarray],
    x: np.ndarray, tau: np.ndarray, atol: float,
) -> np.ndarray:  # fmt: skip
    """The solution at the increasing times tau, the first of them the start: LSODA, or Radau where that gives up."""
    if tau.size == 1:
        return x[None]
    path = _solvers.lsoda(slope, jacobian, x, tau, rtol=1e-11, atol=atol)
    if path is not None:
        return path
    return _solvers.integrate("the flow in log t", slope, x, tau, jac=jacobian, method="Radau", rtol=1e-10, atol=atol,
                              most=_MOST_CALLS, advice=_ADVICE)  # fmt: skip


@V.in_range
def gradient_flow(
    X: ArrayLike, y: ArrayLike, log_t: ArrayLike, loss: str = "exp", w0: ArrayLike | None = None
) -> np.ndarray:
    r"""Gradient flow on the exp or the logistic loss, at times up to :math:`e^{10^6}` and beyond.

    .. math:: \dot w=\sum_i-\ell'(z_i\cdot w)\,z_i,\qquad z_i=y_ix_i,\qquad L(w)=\sum_i\ell(z_i\cdot w)

    (a sum, no 1/n), evaluated at :math:`t=e^{\mathtt{log\_t}}-1`.

    Parameters
    ----------
    X : array (n, d)
    y : array (n,)
        Labels, +1 or -1; linearly separable.
    log_t : array (len,)
        The values of :math:`\log(1+t)\ge0`, in any order.
    loss : {"exp", "logistic"}
    w0 : array (d,), optional
        Start; zero by default. It may classify badly: nothing overflows.

    Returns
    -------
    ndarray (len, d)
        With an error of the order of 1e-9 of :math:`\|w^*\|`, the scale on which :math:`w` moves (or better).

    Raises
    ------
    NotSeparable
        The flow of data that no :math:`w` separates has no maximum-margin direction; it is refused, with the
        certificate.
    ArithmeticError
        If the hard margin cannot be verified, or the integration fails or takes too long, as with columns of very
        different size.
    ValueError, TypeError
        On malformed input.

    Notes
    -----
    The variable is :math:`\lambda=\log(t+1/c)` with :math:`c=R^2\sum_i-\ell'(z_i\cdot w_0)`,
    :math:`R=\max\|z_i\|`: :math:`dw/d\lambda=(t+1/c)\sum_i-\ell'z_i` starts with length at most :math:`1/R`
    whatever :math:`w_0`, and tends to the constant :math:`w^*`. Once :math:`t\gg\gamma^{*-2}` the residual
    :math:`w-\lambda w^*` is integrated instead of :math:`w`. The unknowns are the :math:`n` coefficients of
    the :math:`z_i` where these are well-conditioned, else :math:`\min(n,d)` orthonormal coordinates of the
    space they span; the solver is LSODA, with Radau in reserve.

    For the exp loss from :math:`w_0=0` see `margin_gap_bound`; for the late behaviour of both losses,
    `asymptotics`.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, theorem on the exp loss.
    Soudry, Hoffer, Nacson, Gunasekar and Srebro, The Implicit Bias of Gradient Descent on Separable Data
    (2018).

    Examples
    --------
    One point at distance 1 obeys :math:`e^{w}=1+t`.

    >>> np.allclose(gradient_flow([[1.0]], [1], [0.0, 1.0, 10000.0]), [[0.0], [1.0], [10000.0]], rtol=1e-9)
    True
    """
    Z = signed_rows(X, y)
    log_t = _late_times(log_t)
    V.choice("loss", loss, LOSSES)
    w0 = _start(Z, w0)
    svm = hard_margin(X, y)
    R = float(np.linalg.norm(Z, axis=1).max())
    log_c = 2 * np.log(R) + logsumexp(_log_slope(loss, Z @ w0))
    lam, where = np.unique(np.logaddexp(-log_c, _log_time(log_t)), return_inverse=True)
    switch = np.logaddexp(-log_c, 10 - 2 * np.log(svm.margin))
    early, late = _two_legs(*_coordinates(Z, w0, svm, loss, R), -log_c, switch, lam)
    w = w0 + np.vstack([early, late + lam[len(early) :, None] * svm.w])
    return w[where]


def _coordinates(
    Z: np.ndarray, w0: np.ndarray, svm: HardMargin, loss: str, R: float
) -> tuple[_LateFlow, np.ndarray, np.ndarray]:
    """The flow in coordinates x, the matrix that lifts x to w - w0, and the final rate of x.

    The coefficients of the z_i / R when these are well-conditioned (one product with the Gram matrix a step),
    else orthonormal coordinates of their span.
    """
    U, m0, log_R2 = Z / R, Z @ w0, 2 * np.log(R)
    n, d = U.shape
    if n <= d:
        try:
            K = U @ U.T
            gram_factor(K, least=0.05)
        except LinAlgError:
            pass
        else:
            rate = R**2 * svm.dual
            return _LateFlow(loss, m0, K, lambda a: a, log_R2, float(rate.max())), U / R, rate
    Q = np.linalg.qr(U.T)[0].T if n < d else np.eye(d)
    A = U @ Q.T
    return _LateFlow(loss, m0, A, lambda a: A.T @ a, log_R2, R / svm.margin), Q / R, R * (Q @ svm.w)


def _two_legs(
    flow: _LateFlow, lift: np.ndarray, rate: np.ndarray, start: float, switch: float, lam: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What x lifts to at the increasing times lam: all of it until the switch, the residual x - lam rate after it."""
    early, late = lam[lam < switch], lam[lam >= switch]
    still = np.zeros(len(rate))
    first = flow.leg(start, still, np.r_[early, [switch] * bool(late.size)], still)
    xi = flow.leg(switch, first[-1], late, rate) if late.size else first[:0]
    return first[: early.size] @ lift, xi @ lift


# --- where it goes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Asymptotics:
    """Where the flow goes: ``w (d,)``, ``margin``, ``dual (n,)``, ``offset (d,)``, ``margin_rate``."""

    w: np.ndarray
    margin: float
    dual: np.ndarray
    offset: np.ndarray
    margin_rate: float
    __repr__ = brief


def _smallest_weight(B: np.ndarray, b: np.ndarray) -> float:
    """The largest tau such that some p >= tau solves B' p = b."""
    s, r = B.shape
    if s == r:  # independent support vectors: one p only
        return float(np.linalg.solve(B.T, b).min())
    A = np.column_stack([B.T, B.sum(axis=0)])  # of p - tau >= 0 and tau >= 0
    return float(_solvers.linear_program("X", -np.eye(s + 1)[s], A_eq=A, b_eq=b).x[s])


def _max_entropy(B: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The minimiser q of sum(exp(-B q)) + b q, and p = exp(-B q), which solves B' p = b.

    Newton's step, cut to change no exponent by more than 1: as e^u - 1 - u <= (e - 2) u² there, it decreases
    the function.
    """
    q = b * np.log(len(B))  # p = 1/s, since B b = 1
    for _ in range(300):
        p = np.exp(-B @ q)
        step = np.linalg.solve((B.T * p) @ B, B.T @ p - b)
        change = float(np.abs(B @ step).max())
        q = q + step / max(1.0, change)
        if change < 1e-13:
            break
    p = np.exp(-B @ q)
    residual = float(np.abs(B.T @ p - b).max())
    if residual > 1e-11 * max(1.0, float(np.abs(B).max())):
        raise ArithmeticError(f"the max-entropy dual leaves a residual of {residual:.1e}: X, y is too ill-conditioned")
    return q, p


@V.in_range
def asymptotics(X: ArrayLike, y: ArrayLike) -> Asymptotics:
    r"""How gradient flow on the exp or the logistic loss goes to infinity, for generic data.

    .. math:: w(t)=w^*\log t+\rho(t),\qquad P_S\rho(t)\to\tilde w,\qquad
              (\gamma^*-\gamma(w(t)))\log t\to\gamma^*\,[H(p)-H_\infty(p)]

    where :math:`S` is the support, :math:`P_S` the projection on the span of its :math:`z_i=y_ix_i`, and
    :math:`\tilde w` the minimiser in that span of :math:`\Phi(v)=\sum_{i\in S}e^{-z_i\cdot v}+w^*\cdot v`.
    The :math:`\alpha_i=e^{-z_i\cdot\tilde w}` are the hard-margin dual of largest entropy;
    :math:`p=\gamma^{*2}\alpha` sums to one; :math:`H(p)=-\sum p_i\log p_i` and :math:`H_\infty(p)=-\log\max
    p_i`.

    Parameters
    ----------
    X : array (n, d)
    y : array (n,)
        Labels, +1 or -1; separable.

    Returns
    -------
    Asymptotics
        ``w (d,)``, :math:`w^*`; ``margin``, :math:`\gamma^*`; ``dual (n,)``, :math:`\alpha`, zero off the
        support; ``offset (d,)``, :math:`\tilde w`; ``margin_rate``, the last limit above. None depends on the
        start, nor on whether the loss is exp or logistic (sums, no 1/n).

    Raises
    ------
    ValueError
        If the data is degenerate: no dual is positive on the whole support (to 1e-9 of its sum). Then
        :math:`\rho` has no limit; `degenerate_example` shows a :math:`\log\log t`.
    NotSeparable, ArithmeticError, ValueError, TypeError
        As `hard_margin`.

    Notes
    -----
    Proof. Put :math:`r=w-w^*\log t-\tilde w`, :math:`\theta_i=z_i\cdot w^*`. For the exp loss :math:`\dot
    r=\frac1t\sum_S\alpha_i(e^{-z_i\cdot r}-1)z_i+\sum_{i\notin S}t^{-\theta_i}e^{-z_i\cdot(\tilde w+r)}z_i`.
    Since :math:`(e^{-u}-1)u\le0` and :math:`ue^{-u}\le1/e`, :math:`\frac{d}{dt}\frac12\|r\|^2\le\sum_{i\notin
    S}t^{-\theta_i} e^{-z_i\cdot\tilde w-1}`, which is integrable as :math:`\theta_i>1`: :math:`r` is bounded.
    In the time :math:`\log t` the first sum is minus the gradient of a convex function of :math:`r` that is
    least exactly where :math:`P_Sr=0`, and the second dies exponentially: :math:`P_Sr\to0`. The logistic loss
    adds terms :math:`O(t^{-2})`. The limit of the margin follows by expanding :math:`\min_Sz_i\cdot w/\|w\|`
    with :math:`\min_Sz_i\cdot\tilde w=-\log\max\alpha` and :math:`w^*\cdot\tilde
    w=-\sum\alpha_i\log\alpha_i`. Also :math:`t\,L(w(t))\to\sum\alpha_i=\gamma^{*-2}`.

    :math:`P_S\rho` converges like :math:`t^{-\kappa}`, :math:`\kappa=\min(\lambda,\theta_{\min}-1)` with
    :math:`\lambda` the least nonzero eigenvalue of :math:`\sum_S\alpha_iz_iz_i^\top` (logistic: at most
    :math:`t^{-1}`), slow when a multiplier is small. Gradient descent with a small step :math:`\eta` has
    :math:`t=\eta k` (Soudry et al., cited).

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, theorem on the exp loss, :math:`w(t)\to w^*\log t+O(\log\log
    t)`.
    Soudry, Hoffer, Nacson, Gunasekar and Srebro, The Implicit Bias of Gradient Descent on Separable Data
    (2018), Theorem 9.

    Examples
    --------
    Orthogonal points at distances 1 and 2: :math:`\alpha=(1,1/4)`, :math:`\tilde w=(0,\log2)`, for
    :math:`w_2=\frac12\log(1+4t)`.

    >>> late = asymptotics([[1.0, 0.0], [0.0, 2.0]], [1, 1])
    >>> np.allclose(late.offset, [0, np.log(2)], atol=1e-13)
    True
    """
    svm = hard_margin(X, y)
    B, b, basis = support_frame(signed_rows(X, y), svm)
    if _smallest_weight(B, b) <= 1e-9:
        raise ValueError(
            "X, y is degenerate: no dual multiplier is positive on the whole support "
            f"{svm.support.tolist()}, so w(t) - w* log t has no limit; expected data without such a coincidence"
        )
    q, p = _max_entropy(B, b)
    dual = np.zeros(len(svm.dual))
    dual[svm.support] = p / svm.margin**2
    offset = q @ basis / svm.margin + 2 * np.log(svm.margin) * svm.w
    rate = svm.margin * (np.log(p.max()) - p @ np.log(p))
    return Asymptotics(svm.w, svm.margin, dual, offset, float(rate))


def degenerate_example(log_t: ArrayLike) -> np.ndarray:
    r"""The flow of the exp loss on :math:`z_1=(1,0)`, :math:`z_2=(1,1)` from 0, in closed form.

    .. math:: w_1=W(t)+\log(1+W(t)),\qquad w_2=\log(1+W(t)),\qquad W(t)e^{W(t)}=t

    Here :math:`w^*=(1,0)` has both points on the margin but the dual :math:`(1,0)`, and :math:`w_2=\log\log
    t+o(1)`. Proof: :math:`dw_1/dw_2=1+e^{w_2}` gives :math:`w_1=w_2+e^{w_2}-1`; with :math:`u=e^{w_2}`,
    :math:`\dot w_2=e^{-w_1-w_2}` reads :math:`dt=u\,e^{u-1}du`, so :math:`t=(u-1)e^{u-1}`.

    Parameters
    ----------
    log_t : array (len,)
        The values of :math:`\log(1+t)\ge0`; no overflow, since :math:`W` is the Wright function of
        :math:`\log t`.

    Returns
    -------
    ndarray (len, 2)

    Raises
    ------
    ValueError, TypeError
        On malformed input.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, theorem on the exp loss, :math:`w(t)\to w^*\log t+O(\log\log
    t)`.

    Examples
    --------
    At :math:`t=e`, :math:`W=1`: :math:`w=(1+\log2,\log2)`.

    >>> np.allclose(degenerate_example([np.log(1 + np.e)]), [[1 + np.log(2), np.log(2)]], rtol=1e-14)
    True
    """
    W = wrightomega(_log_time(_late_times(log_t)))
    return np.column_stack([W + np.log1p(W), np.log1p(W)])


# --- how fast: what is proved -------------------------------------------------------------------------------------


def _setting(margin: float, n: int) -> tuple[float, float]:
    return V.number("margin", margin, above=0), float(np.log(V.integer("n", n, low=1)))


def margin_gap_bound(margin: float, n: int, log_t: ArrayLike) -> np.ndarray:
    r"""An upper bound on the margin that gradient flow on the exp loss from 0 still lacks.

    .. math:: 0\le\gamma^*-\gamma(w(t))\le\gamma^*\frac{\log n}{\log(1+n\gamma^{*2}t)}\qquad\text{once}\quad
              n\gamma^{*2}t\ge n-1

    Proof. Let :math:`G=-\nabla L=\sum e^{-z_i\cdot w}z_i`. (i) :math:`\|G\|\ge
    G\cdot\gamma^*w^*\ge\gamma^*L`. (ii) :math:`\dot L=-\|G\|^2\le-\gamma^{*2}L^2`, so
    :math:`1/L\ge1/n+\gamma^{*2}t`. (iii) :math:`\|w\|\le\int\|G\|= \int-\dot L/\|G\|\le\log(n/L)/\gamma^*`.
    (iv) :math:`e^{-z_i\cdot w}\le L`, so :math:`\min z_i\cdot w\ge\log(1/L)`. Divide (iv) by (iii),
    :math:`\gamma(w)\ge\gamma^*(1-\log n/\log(n/L))` where :math:`L\le1`, which (ii) ensures at the times
    above.

    The angle to the maximum margin follows: a unit :math:`u` has
    :math:`u\cdot\gamma^*w^*\ge\gamma(u)/\gamma^*`, so
    :math:`\|w/\|w\|-\gamma^*w^*\|^2\le2\,(\gamma^*-\gamma(w))/\gamma^*`.

    Parameters
    ----------
    margin : float
        :math:`\gamma^*>0`, as ``hard_margin(X, y).margin``.
    n : int
        Number of points.
    log_t : array (len,)
        The values of :math:`\log(1+t)\ge0`.

    Returns
    -------
    ndarray (len,)
        Infinite at the early times where nothing is claimed.

    Raises
    ------
    ValueError, TypeError
        On malformed input.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, theorem on the exp loss and the remark on the rate
    :math:`1/\log t`.
    Ji and Telgarsky, Risk and parameter convergence of logistic regression (2018).

    Examples
    --------
    Margin 1, two points: at :math:`1+2t=4` the bound is :math:`\log2/\log4`.

    >>> margin_gap_bound(1.0, 2, [np.log(2.5)]).round(12)
    array([0.5])
    """
    margin, log_n = _setting(margin, n)
    grown = np.logaddexp(0, log_n + 2 * np.log(margin) + _log_time(_late_times(log_t)))
    proved = (grown >= log_n) & (grown > 0)
    return np.divide(margin * log_n, grown, out=np.full(len(grown), np.inf), where=proved)


def _steps(k: ArrayLike, low: int, high: int | None = None) -> list[int]:
    if np.ndim(k) > 1 or np.size(k) == 0:
        raise ValueError(f"k has shape {np.shape(k)}: expected an integer or a non-empty sequence of integers")
    return [V.integer("k", j, low=low, high=high) for j in ([k] if np.ndim(k) == 0 else list(k))]


@V.in_range
def normalized_margin_gap_bound(margin: float, n: int, eta: float, k: ArrayLike) -> float | np.ndarray:
    r"""An upper bound on the margin that `normalized_gradient_descent` from 0 lacks after k steps.

    .. math:: \gamma^*-\gamma(w_k)\le\frac{\log n}{\eta\,\gamma^*k},\qquad\eta\le1/R^2,\ R=\max\|x_i\|

    Proof. Let :math:`\psi=\log L`, :math:`q_k` the softmax of :math:`-Zw_k`, :math:`G_k=Z^\top
    q_k=-\nabla\psi(w_k)`. The identity :math:`\psi(w_{k+1})-\psi(w_k)=-\eta\langle
    G_{k+1},G_k\rangle-\mathrm{KL}(q_{k+1}\|q_k)`, Pinsker's
    :math:`\mathrm{KL}\ge\frac12\|q_{k+1}-q_k\|_1^2\ge\frac1{2R^2}\|G_{k+1}-G_k\|^2` and :math:`1/R^2\ge\eta`
    give :math:`\psi(w_k)-\psi(w_{k+1})\ge\frac\eta2(\|G_k\|^2+\|G_{k+1}\|^2)\ge\eta\gamma^*\|G_k\|`, the last
    because :math:`\|G_k\|^2\ge2\gamma^*\|G_k\|-\gamma^{*2}` and :math:`\|G_{k+1}\|\ge\gamma^*`. The sum is
    :math:`-\psi(w_k)\ge\gamma^*\|w_k\|-\log n`; divide by :math:`\|w_k\|\ge
    w_k\cdot\gamma^*w^*\ge\eta\gamma^*k`.

    Parameters
    ----------
    margin : float
        :math:`\gamma^*>0`.
    n : int
        Number of points.
    eta : float
        Step, positive; the bound is proved for :math:`\eta\le1/R^2`.
    k : int or sequence of int
        Steps taken, at least 1.

    Returns
    -------
    float or ndarray (len,)

    Raises
    ------
    ValueError, TypeError
        On malformed input.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7 (remark on the rate). The rate 1/k: Ji and Telgarsky,
    Characterizing the implicit bias via a primal-dual analysis (2021).

    Examples
    --------
    >>> float(normalized_margin_gap_bound(1.0, 1, 0.5, 7))
    0.0
    """
    margin, log_n = _setting(margin, n)
    bound = log_n / (V.number("eta", eta, above=0) * margin * np.array(_steps(k, 1), dtype=float))
    return bound if np.ndim(k) else float(bound[0])


@V.in_range
def momentum_margin_gap_bound(margin: float, n: int, radius: float, k: ArrayLike) -> float | np.ndarray:
    r"""An upper bound on the margin that `momentum_gradient_descent` from 0 lacks after k steps.

    .. math:: \gamma^*-\gamma(w_k)\le\frac{4R^2\log n}{\gamma^*\,k(k+3)},\qquad R=\max\|x_i\|

    Proof, for :math:`R=1` (the method and the bound scale). With :math:`\lambda_j=2/(j+2)`, :math:`G_j=Z^\top
    q_j` and the averages :math:`M_{j+1}=N_j+\lambda_j(G_{j+1}-G_j)`,
    :math:`N_j=(1-\lambda_j)M_j+\lambda_jG_j`, the method is :math:`w_{j+1}=w_j+N_j/\lambda_j` (its velocity
    is :math:`v_j=\frac j2M_j`). As in `normalized_margin_gap_bound`,
    :math:`\psi(w_j)-\psi(w_{j+1})\ge\frac1{\lambda_j}\langle G_{j+1},N_j\rangle+\frac12\|G_{j+1}-G_j\|^2`,
    and eliminating :math:`G` this is
    :math:`\frac1{2\lambda_j^2}(\|M_{j+1}\|^2+\|N_j\|^2-2(1-\lambda_j)\langle N_j,M_j\rangle)
    \ge\frac1{2\lambda_j^2}(\|M_{j+1}\|^2-(1-\lambda_j)\|M_j\|^2)+\frac1{2\lambda_j}\|N_j\|^2`. All these
    vectors are convex combinations of the :math:`z_i`, of length :math:`\ge\gamma^*`. Sum over :math:`j<k`
    with :math:`(1-\lambda_j)/\lambda_j^2=\lambda_{j-1}^{-2}-\frac14` and
    :math:`\|N_j\|^2\ge2\gamma^*\|N_j\|-\gamma^{*2}`: the terms in :math:`\gamma^{*2}` cancel exactly, which
    leaves :math:`-\psi(w_k)\ge\gamma^*\|w_k\|-\log n`; divide by
    :math:`\|w_k\|\ge\gamma^*\sum_{j<k}1/\lambda_j=\gamma^*k(k+3)/4`.

    Parameters
    ----------
    margin : float
        :math:`\gamma^*>0`.
    n : int
        Number of points.
    radius : float
        :math:`R>0`, the largest :math:`\|x_i\|`.
    k : int or sequence of int
        Steps taken, at least 1.

    Returns
    -------
    float or ndarray (len,)

    Raises
    ------
    ValueError, TypeError
        On malformed input.

    References
    ----------
    The method and a rate of 1/k² up to logarithms: Ji, Srebro and Telgarsky, Fast Margin Maximization via Dual
    Acceleration (2021).

    Examples
    --------
    >>> momentum_margin_gap_bound(np.log(2), 2, 1.0, 1)
    1.0
    """
    margin, log_n = _setting(margin, n)
    j = np.array(_steps(k, 1), dtype=float)
    bound = 4 * V.number("radius", radius, above=0) ** 2 * log_n / (margin * j * (j + 3))
    return bound if np.ndim(k) else float(bound[0])


# --- descent ------------------------------------------------------------------------------------------------------


def _iterates(Z: np.ndarray, w: np.ndarray, k: ArrayLike, step: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """``w_k`` for one k or, a row each, for several, where ``w_{j+1} = step(j, w_j)`` reads Z."""
    wanted = _steps(k, 0, _solvers.most_steps(Z.size))
    kept, last = set(wanted), max(wanted)
    path = {0: w}
    for j in range(last):
        w = step(j, w)
        if j + 1 in kept:
            path[j + 1] = w
    return np.array([path[j] for j in wanted]) if np.ndim(k) else path[last].copy()


@V.in_range
def gradient_descent(
    X: ArrayLike, y: ArrayLike, eta: float, k: ArrayLike, loss: str = "exp", w0: ArrayLike | None = None
) -> np.ndarray:
    r"""Gradient descent on the summed exp or logistic loss.

    .. math:: w_{k+1}=w_k+\eta\sum_i-\ell'(z_i\cdot w_k)\,z_i,\qquad z_i=y_ix_i

    Parameters
    ----------
    X : array (n, d)
    y : array (n,)
        Labels, +1 or -1; the data need not be separable.
    eta : float
        Step, positive. The losses are sums: a step for a mean loss is n times this one.
    k : int or sequence of int
        Number of steps, or several; at most 10 million (fewer for X of more than 1000 entries).
    loss : {"exp", "logistic"}
    w0 : array (d,), optional
        Start; zero by default.

    Returns
    -------
    ndarray (d,) or (len, d)
        The weights after k steps, one row for each of several k.

    Raises
    ------
    ValueError
        If the exp loss overflows (eta too large), or on malformed input.
    TypeError
        On what is not numeric.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Implicit bias of GD/SGD for linear models".

    Examples
    --------
    The first step from zero is :math:`\eta\sum_iz_i`.

    >>> gradient_descent([[1.0, 0.0], [0.0, 2.0]], [1, 1], 0.25, 1)
    array([0.25, 0.5 ])
    """
    Z = signed_rows(X, y)
    eta = V.number("eta", eta, above=0)
    V.choice("loss", loss, LOSSES)

    def step(j: int, w: np.ndarray) -> np.ndarray:
        m = Z @ w
        if loss == "exp" and m.min() < -700:
            raise ValueError(f"eta = {eta:g}: the exp loss overflows after {j} steps; expected a smaller step")
        return w + eta * (Z.T @ np.exp(_log_slope(loss, m)))

    return _iterates(Z, _start(Z, w0), k, step)


@V.in_range
def normalized_gradient_descent(
    X: ArrayLike, y: ArrayLike, eta: float, k: ArrayLike, w0: ArrayLike | None = None
) -> np.ndarray:
    r"""Gradient descent on the exp loss with its gradient divided by the loss, which is descent on :math:`\log L`.

    .. math:: w_{k+1}=w_k-\eta\,\frac{\nabla L(w_k)}{L(w_k)}=w_k+\eta\sum_iq_iz_i,\qquad q=\mathrm{softmax}(-Zw_k)

    The loss cancels: whether it is a sum or a mean does not matter, and nothing overflows. For the margin
    after k steps see `normalized_margin_gap_bound`.

    Parameters
    ----------
    X : array (n, d)
    y : array (n,)
        Labels, +1 or -1; the data need not be separable.
    eta : float
        Step, positive.
    k : int or sequence of int
        Number of steps, or several; at most 10 million (fewer for X of more than 1000 entries).
    w0 : array (d,), optional
        Start; zero by default.

    Returns
    -------
    ndarray (d,) or (len, d)

    Raises
    ------
    ValueError, TypeError
        On malformed input.

    References
    ----------
    Nacson, Lee, Gunasekar, Savarese, Srebro and Soudry, Convergence of Gradient Descent on Separable Data
    (2019).

    Examples
    --------
    With one point every step is :math:`\eta z`.

    >>> normalized_gradient_descent([[1.0, 2.0]], [1], 0.5, 4)
    array([2., 4.])
    """
    Z = signed_rows(X, y)
    eta = V.number("eta", eta, above=0)
    return _iterates(Z, _start(Z, w0), k, lambda j, w: w + eta * (softmax(-(Z @ w)) @ Z))


@V.in_range
def momentum_gradient_descent(X: ArrayLike, y: ArrayLike, k: ArrayLike, w0: ArrayLike | None = None) -> np.ndarray:
    r"""Normalised gradient descent on the exp loss with momentum: Nesterov's acceleration of the dual problem.

    .. math:: v_k=\frac{k}{k+1}\,(v_{k-1}+g_k),\qquad w_{k+1}=w_k+\frac1{R^2}(v_k+g_k),\qquad
              g_k=-\frac{\nabla L(w_k)}{L(w_k)}=\sum_iq_iz_i

    with :math:`q=\mathrm{softmax}(-Zw_k)`, :math:`v_{-1}=0` and :math:`R=\max\|x_i\|`. For the margin after k
    steps see `momentum_margin_gap_bound`: it lacks :math:`O(1/k^2)`, against :math:`O(1/k)` without momentum.

    Parameters
    ----------
    X : array (n, d)
    y : array (n,)
        Labels, +1 or -1; the data need not be separable.
    k : int or sequence of int
        Number of steps, or several; at most 10 million (fewer for X of more than 1000 entries).
    w0 : array (d,), optional
        Start; zero by default.

    Returns
    -------
    ndarray (d,) or (len, d)

    Raises
    ------
    ValueError, TypeError
        On malformed input.

    References
    ----------
    Ji, Srebro and Telgarsky, Fast Margin Maximization via Dual Acceleration (2021), Algorithm 1.

    Examples
    --------
    With one point the steps grow like :math:`(k+2)/2`: after three of them :math:`1+\frac32+2=\frac92`.

    >>> momentum_gradient_descent([[1.0]], [1], 3)
    array([4.5])
    """
    Z = signed_rows(X, y)
    R2 = float((Z**2).sum(axis=1).max())
    if R2 == 0:
        raise ValueError("X = 0: expected a nonzero row")
    v = np.zeros(Z.shape[1])

    def step(j: int, w: np.ndarray) -> np.ndarray:
        nonlocal v
        g = softmax(-(Z @ w)) @ Z
        v = j / (j + 1) * (v + g)
        return w + (v + g) / R2

    return _iterates(Z, _start(Z, w0), k, step)
