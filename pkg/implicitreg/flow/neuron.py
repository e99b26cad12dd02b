r"""One neuron :math:`\psi(\langle w, x\rangle)` with the loss :math:`L(w)=\tfrac12\|y-\psi(Xw)\|^2`, a sum without 1/n.

With a strictly monotone activation gradient flow ends at the zero-loss weights nearest to its start, as in least
squares. With ReLU it does not, and no strictly convex function of the weights says where it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from implicitreg import _solvers, _validate
from implicitreg._brief import brief
from implicitreg._validate import data, number, vector
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit

__all__ = [
    "Activation",
    "Elementwise",
    "ReluExample",
    "contraction_rate",
    "gradient_flow",
    "leaky_relu",
    "limit",
    "relu_example",
    "sigmoid",
    "softplus",
    "tanh",
]

_MOST_CALLS = 100_000  # of the velocity; smooth activations take a few thousand
_ADVICE = "earlier times, or a psi without kinks (the flow may slide along a kink)"
Elementwise = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Activation:
    """An activation with its inverse and its derivative, all vectorised."""

    value: Elementwise
    inverse: Elementwise
    derivative: Elementwise
    __repr__ = brief

    def __post_init__(self) -> None:
        for name in ("value", "inverse", "derivative"):
            _validate.function(name, getattr(self, name), 1)


@dataclass(frozen=True, eq=False)
class ReluExample:
    """Three points on which gradient flow of a ReLU neuron misses the nearest zero-loss weights; see `relu_example`."""

    X: np.ndarray
    y: np.ndarray
    switch_off: float
    w: np.ndarray
    __repr__ = brief


def _sigmoid_slope(u: np.ndarray) -> np.ndarray:
    return expit(u) * expit(-u)


def _tanh_slope(u: np.ndarray) -> np.ndarray:
    return 1 - np.tanh(u) ** 2


def _log_1_exp(u: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, u)


def _log_exp_1(v: np.ndarray) -> np.ndarray:
    return v + np.log(-np.expm1(-v))


def _leaky(slope: float, u: np.ndarray) -> np.ndarray:
    return np.where(u >= 0, u, slope * u)


def _leaky_inverse(slope: float, v: np.ndarray) -> np.ndarray:
    return np.where(v >= 0, v, v / slope)


def _leaky_slope(slope: float, u: np.ndarray) -> np.ndarray:
    return np.where(u >= 0, 1.0, slope)


sigmoid = Activation(expit, logit, _sigmoid_slope)
"""The logistic function 1 / (1 + exp(-u))."""

tanh = Activation(np.tanh, np.arctanh, _tanh_slope)
"""The hyperbolic tangent."""

softplus = Activation(_log_1_exp, _log_exp_1, expit)
"""The smooth ReLU log(1 + exp(u))."""


def leaky_relu(slope: float) -> Activation:
    """Leaky ReLU, ``u`` for ``u >= 0`` and ``slope * u`` below, with the derivative 1 at the kink.

    Parameters
    ----------
    slope : above 0, at most 1.

    Returns
    -------
    Activation

    Raises
    ------
    ValueError
        ``slope`` outside (0, 1]. At zero it is ReLU, which has no inverse: `relu_example`.

    Examples
    --------
    >>> leaky_relu(0.5).inverse(np.array([-1.0, 2.0]))
    array([-2.,  2.])
    """
    slope = number("slope", slope, above=0, high=1)
    return Activation(*(partial(f, slope) for f in (_leaky, _leaky_inverse, _leaky_slope)))


@_validate.in_range
def limit(X: ArrayLike, y: ArrayLike, inverse: Elementwise, w0: ArrayLike | None = None) -> np.ndarray:
    r"""Where gradient flow of one neuron with a strictly monotone activation ends.

    .. math:: w_\infty=w_0+X^+(\psi^{-1}(y)-Xw_0)=\operatorname{argmin}\{\|w-w_0\|:\ \psi(Xw)=y\}.

    Parameters
    ----------
    X : (n, d) inputs, one a row.
    y : (n,) targets in the range of :math:`\psi`.
    inverse : :math:`\psi^{-1}`, vectorised.
    w0 : (d,), zero by default.

    Returns
    -------
    (d,) array.

    Raises
    ------
    ValueError
        Bad shapes; a target at which ``inverse`` is not finite; :math:`\psi^{-1}(y)` not of the form Xw, to 1e-8 (then
        no weights reach zero loss, and the limit, if there is one, is not given by this formula).
    TypeError
        ``inverse`` not callable.

    Notes
    -----
    Proved for :math:`\psi\in C^1` with :math:`\psi'` nowhere zero and locally Lipschitz (which makes the flow unique),
    X of any rank: the flow stays in :math:`w_0+\operatorname{row}(X)`; for every zero-loss :math:`\hat w`, with
    :math:`u=Xw` and :math:`\hat u=X\hat w`,

    .. math:: \tfrac d{dt}\tfrac12\|w-\hat w\|^2
              =-\textstyle\sum_i\psi'(u_i)\,(\psi(u_i)-\psi(\hat u_i))\,(u_i-\hat u_i)\le0 ,

    so u stays in a compact set, there :math:`|\psi'|\ge c>0`, and the distance to :math:`w_\infty` falls at least like
    :math:`e^{-c^2\sigma^2t}` (`contraction_rate`); strict monotonicity makes the zero-loss set
    :math:`\{Xw=\psi^{-1}(y)\}`. The same holds for leaky ReLU, with any choice of :math:`\psi'` at the kink (proved in
    the book's chapter on one neuron). False for weak monotonicity: ReLU (`relu_example`); and for
    :math:`u^3`, whose flow from zero does not move.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, theorem on single neurons (there without strictness, the start at zero,
    or the range of y), ascribed there to Vardi, Shamir, Implicit regularization in ReLU networks with the square loss,
    2021.

    Examples
    --------
    >>> limit([[3.0, 4.0]], [25.0**3], np.cbrt).round(9)
    array([3., 4.])
    """
    _, _, w0, step = _problem(X, y, inverse, w0)
    return w0 + step


@_validate.in_range_or_infinite
def contraction_rate(
    X: ArrayLike, y: ArrayLike, inverse: Elementwise, derivative: Elementwise, w0: ArrayLike | None = None
) -> float:
    r"""A rate r with :math:`\|w(t)-w_\infty\|\le e^{-rt}\|w_0-w_\infty\|` along gradient flow.

    .. math:: r=c^2\sigma^2,\qquad c=\min\big\{|\psi'(u)|:\ |u-\psi^{-1}(y_i)|\le\|x_i\|\,\|w_0-w_\infty\|
              \text{for some } i\big\},

    with :math:`\sigma` the least nonzero singular value of X.

    Parameters
    ----------
    X, y, inverse, w0 : as in `limit`.
    derivative : :math:`\psi'`, vectorised. Its modulus must have its minimum over an interval at one of the ends, as
        when it is monotone or rises and then falls: sigmoid, tanh, softplus, arctan, leaky ReLU.

    Returns
    -------
    float, infinite when X = 0 and nothing moves.

    Raises
    ------
    ValueError, TypeError
        As `limit`; a derivative of another shape or not finite.

    Notes
    -----
    Proved: by contraction :math:`|u_i-\hat u_i|\le\|x_i\|\,\|w_0-w_\infty\|`, so the mean value theorem gives
    :math:`\psi'(u_i)(\psi(u_i)-\psi(\hat u_i))(u_i-\hat u_i)\ge c^2(u_i-\hat u_i)^2`, and
    :math:`\|X(w-w_\infty)\|\ge\sigma\|w-w_\infty\|` on the row space. The loss falls at twice this rate, up to a
    constant. It is a bound: the flow is often much faster.

    Examples
    --------
    For the identity it is the rate of least squares.

    >>> contraction_rate([[3.0, 4.0]], [25.0], lambda v: v, np.ones_like)
    25.0
    """
    X, v, _, step = _problem(X, y, inverse, w0)
    reach = np.linalg.norm(X, axis=1) * np.linalg.norm(step)
    slopes = vector("derivative", _apply("derivative", derivative, np.concatenate([v - reach, v + reach])))
    s = np.linalg.svd(X, compute_uv=False)
    if s[0] == 0:
        return np.inf
    return float(np.min(slopes**2) * s[s > _cutoff(X) * s[0]].min() ** 2)


@_validate.in_range
def gradient_flow(
    X: ArrayLike, y: ArrayLike, t: ArrayLike, activation: Elementwise, derivative: Elementwise,
    w0: ArrayLike | None = None,
) -> np.ndarray:  # fmt: skip
    r"""Gradient flow of the squared loss of one neuron.

    .. math:: \dot w=X^\top[\psi'(Xw)\circ(y-\psi(Xw))],\qquad L(w)=\tfrac12\|y-\psi(Xw)\|^2 .

    Parameters
    ----------
    X : (n, d) inputs, one a row.
    y : (n,) targets; they need not be attainable.
    t : (k,) times, none negative, in any order.
    activation, derivative : :math:`\psi` and :math:`\psi'`, vectorised; at a kink the value of ``derivative`` counts.
    w0 : (d,), zero by default.

    Returns
    -------
    (k, d) array, the weights at the times ``t``.

    Raises
    ------
    ValueError
        Bad shapes, negative times, functions that change the shape or return what is not finite at ``w0``.
    TypeError
        ``activation`` or ``derivative`` not callable.
    RuntimeError
        The solver gets stuck, or needs more than 100 000 evaluations (smooth activations take a few thousand). Where
        the derivative jumps, as for leaky ReLU, the two sides may both push towards the kink, and the flow slides along
        it, as a differential inclusion; round the kink off to follow it.

    Notes
    -----
    Integrated in coordinates of the row space of X, so that the part of ``w0`` orthogonal to it is kept exactly; LSODA,
    or backward differences where it gets stuck at a kink, rtol 1e-11; the long plateaus of saturated activations are
    followed, too. The absolute tolerance is 1e-13 of Xw, or
    of the larger of Xw and the residual at the start where these are below one.

    Examples
    --------
    The identity: :math:`w=y(1-e^{-t})`.

    >>> w = gradient_flow([[1.0]], [2.0], [0.5], lambda u: u, np.ones_like)[0, 0]
    >>> round(float(w - 2 * (1 - np.exp(-0.5))), 9) + 0.0
    0.0
    """
    X, y = data(X, y)
    w0 = _start(w0, X)
    offset = X @ w0
    value, _ = (vector(name, _apply(name, function, offset), size=len(y))
                for name, function in (("activation", activation), ("derivative", derivative)))  # fmt: skip
    _, s, Vt = np.linalg.svd(X, full_matrices=False)
    Vt, unit = Vt[s > _cutoff(X) * s[0]], _solvers.unit(X)
    Z = X @ Vt.T / unit

    def rate(_: float, c: np.ndarray) -> np.ndarray:
        u = Z @ c + offset
        return unit * (unit * (Z.T @ (derivative(u) * (y - activation(u)))))

    size = max(np.abs(offset).max(), np.abs(y - value).max()) or 1.0
    return w0 + _trajectory(rate, np.zeros(len(Vt)), t, 1e-13 * min(size, 1.0)) @ Vt / unit


@_validate.in_range
def relu_example(c: float) -> ReluExample:
    r"""Three points on which the limit of a ReLU neuron is not a function of its zero-loss set.

    Rows :math:`x_1=(c,0,0),\ x_2=(0,1,0),\ x_3=(1,-2,1)`, targets :math:`(c,1,0)`, :math:`w_0=0`, :math:`\psi'(0)=1`.

    Parameters
    ----------
    c : above :math:`\sqrt2`; below it, row 3 is never active and the limit is (1, 1, 0).

    Returns
    -------
    ReluExample
        ``X`` (3, 3), ``y`` (3,), ``switch_off``, the time T at which row 3 falls silent, and the limit ``w`` (3,).

    Raises
    ------
    ValueError
        ``c`` at most :math:`\sqrt2`.

    Notes
    -----
    Proved: the zero-loss set :math:`\{w_1=w_2=1,\ w_3\le1\}` does not depend on c; its point of least norm is
    (1, 1, 0). At first all rows are active, because :math:`\dot u_3=c^2-2>0` at the start, and the flow is linear,
    :math:`\dot w=X^\top(y-Xw)`. Then :math:`u_3`, a sum of three exponentials, has at most two zeros: t = 0 and T;
    before T, :math:`\dot w_3=-u_3<0`. From then on :math:`u_3<0`: at T, :math:`w_1\le1` and
    :math:`w_2=(w_1+w_3)/2<1`, and :math:`\dot u_3=c^2(1-w_1)-2(1-w_2)`, once negative, stays so, as its first term
    decays faster. Hence :math:`w=(1,1,w_3(T))`, exactly, with :math:`w_3(T)<0` depending on c: no function of w with a
    unique minimiser on that set, the same for every c, can describe the limit. What remains true: the distance to every
    zero-loss point falls, so the limit is at most twice as long as the shortest of them.

    References
    ----------
    Vardi, Shamir, Implicit regularization in ReLU networks with the square loss, 2021 (they prove that no explicit
    function of the parameters characterizes where a single ReLU neuron ends).

    Examples
    --------
    >>> [round(float(relu_example(c).w[2]), 8) for c in (2, 3)]
    [-0.02796331, -0.06993204]
    """
    c = number("c", c, above=np.sqrt(2))
    X, y = np.array([[c, 0, 0], [0, 1, 0], [1, -2, 1]]), np.array([c, 1.0, 0])
    mu, V = np.linalg.eigh(X.T @ X)
    modes = V.T @ (X.T @ y)

    def mean_speed(t: float) -> np.ndarray:
        """``w(t)/t`` while every row is active, with its limit at t = 0: it has no zero there to mislead the root."""
        return V @ (modes * (-np.expm1(-mu * t) / (mu * t) if t > 0 else 1.0))

    T = brentq(lambda t: X[2] @ mean_speed(t), 0.0, 1.0, xtol=1e-15, rtol=1e-14)
    return ReluExample(X, y, float(T), np.array([1, 1, T * mean_speed(T)[2]]))


def _cutoff(X: np.ndarray) -> float:
    return max(X.shape) * np.finfo(float).eps


def _start(w0: ArrayLike | None, X: np.ndarray) -> np.ndarray:
    return np.zeros(X.shape[1]) if w0 is None else vector("w0", w0, size=X.shape[1])


def _apply(name: str, function: Elementwise, u: np.ndarray) -> np.ndarray:
    if not callable(function):
        raise TypeError(f"{name} = {function!r}: expected a vectorised function")
    _validate.function(name, function, 1)
    with np.errstate(all="ignore"):
        v = _validate.array(f"{name}(u)", function(u))
    if v.dtype.kind not in "biuf":
        raise TypeError(f"{name} gives the dtype {v.dtype}: expected a vectorised function of real numbers")
    if v.shape != u.shape:
        raise ValueError(f"{name} maps shape {u.shape} to {v.shape}: expected a vectorised function")
    return v


def _problem(
    X: ArrayLike, y: ArrayLike, inverse: Elementwise, w0: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``X, psi^{-1}(y), w0`` and ``w_inf − w0``."""
    X, y = data(X, y)
    w0 = _start(w0, X)
    v = _apply("inverse", inverse, y)
    if not np.isfinite(v).all():
        i = int(np.argmin(np.isfinite(v)))
        raise ValueError(f"y[{i}] = {y[i]:g}, where inverse gives {v[i]}: expected targets in the range of psi")
    step = _solvers.equations(X, v - X @ w0).x
    terms = np.abs(v) + np.abs(X) @ (np.abs(w0) + np.abs(step))
    off = float((np.abs(X @ (w0 + step) - v) / np.where(terms > 0, terms, 1)).max())
    if off > 1e-8:
        raise ValueError(f"inverse(y) is off by {off:.1e} from every Xw, relatively: expected y = psi(Xw) for some w")
    return X, v, w0, step


def _trajectory(rate: Callable, start: np.ndarray, t: ArrayLike, atol: float) -> np.ndarray:
    """The solution at the times ``t``, one state a row."""
    t = vector("t", t)
    if (t < 0).any():
        raise ValueError(f"t[{int(np.argmin(t))}] = {t.min():g}: expected no negative times")
    what = f"t = {t.max():g}"
    options = {"rtol": 1e-11, "atol": atol, "advice": _ADVICE}
    try:
        return _solvers.integrate(what, rate, start, t, method="LSODA", most=_MOST_CALLS // 5, **options)
    except _solvers.SolverError:  # LSODA may get stuck where the derivative jumps although the flow goes on
        return _solvers.integrate(what, rate, start, t, method="BDF", most=_MOST_CALLS, **options)
