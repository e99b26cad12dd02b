r"""Homogeneous networks under the exponential loss: smoothed margins, conservation laws, alignment, certificates.

A network has signed outputs :math:`q_i(\theta) = y_i f(x_i;\theta)`, homogeneous of degree :math:`\mathcal L`
(``degree``) in all its parameters together; the loss is the sum :math:`L = \sum_i e^{-q_i}` and :math:`\|\theta\|`
is Euclidean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from implicitreg import _solvers
from implicitreg import _validate as check
from implicitreg._brief import brief
from implicitreg.flow._svm import NotSeparable, hard_margin, signed_rows
from implicitreg.flow.geometry import in_any_order, increasing_times
from numpy.typing import ArrayLike
from scipy.special import logsumexp, softmax

__all__ = [
    "KKT",
    "RESOLVED",
    "Alignment",
    "Certificate",
    "DeepLinear",
    "Diagonal",
    "Network",
    "ReLU",
    "alignment",
    "deep_linear_margin",
    "gradient_flow",
    "kkt_residual",
    "layer_imbalance",
    "log_inverse_loss",
    "neuron_imbalance",
    "normalized_margin",
    "relu_margin_bound",
    "smoothed_margin",
    "xor_certificate",
]

RESOLVED = 1e7
"""The largest log(1/L) that :func:`gradient_flow` enters: beyond, rounding in q becomes noise in softmax(-q)."""

_MOST_CALLS = 15_000, 300
"""Of the velocity, a path and a parameter more: paths that get on take a third of it or less (a Jacobian costs one call
a parameter)."""

_MOST_STEPS = 1_000_000
"""Of the method for networks with kinks: minutes."""


@runtime_checkable
class Network(Protocol):
    """What this module needs of a network: :class:`DeepLinear`, :class:`Diagonal` and :class:`ReLU` have it.

    Attributes
    ----------
    degree : int
        Degree of homogeneity.
    size : int
        Number of parameters.
    smooth : bool
        Whether the outputs are differentiable everywhere.
    """

    degree: int
    size: int
    smooth: bool

    def q(self, theta: np.ndarray) -> np.ndarray:
        """Signed outputs, (n,)."""

    def pullback(self, theta: np.ndarray, p: np.ndarray) -> np.ndarray:
        r"""The combination of gradients :math:`\sum_i p_i\nabla q_i(\theta)`, (size,)."""


def _keep(net: Network) -> None:
    """Copies of the data, which nobody changes: X, y and the rows z_i = y_i x_i."""
    X, y = check.data(net.X, net.y)
    for name, value in {"X": X, "y": y, "Z": signed_rows(X, y)}.items():
        value.setflags(write=False)
        object.__setattr__(net, name, value)


def _flat(net: Network, theta: ArrayLike) -> np.ndarray:
    """All parameters of a network in one vector."""
    quick = type(theta) is np.ndarray and theta.dtype == np.float64 and np.isfinite(theta).all()
    theta = theta if quick else check._floats("theta", theta)
    if theta.shape != (net.size,):
        raise ValueError(f"theta has shape {theta.shape}: expected ({net.size},)")
    return theta


@dataclass(frozen=True, eq=False)
class DeepLinear:
    r"""The network :math:`f(x) = W_L\cdots W_1x` with one output.

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and labels -1 or 1.
    hidden : sequence of int
        Widths of the hidden layers, each at least 1; the depth ``L`` is one more than their number.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, a label is not -1 or 1, or a width is below 1.

    Examples
    --------
    >>> net = DeepLinear([[1.0, 2.0]], [-1], hidden=[1])
    >>> net.q(np.array([3.0, 4.0, 2.0]))  # -(3 + 8) * 2
    array([-22.])
    """

    X: ArrayLike
    y: ArrayLike
    hidden: Sequence[int]
    Z: np.ndarray = field(init=False, repr=False)
    smooth = True
    __repr__ = brief

    def __post_init__(self) -> None:
        if check.array("hidden", self.hidden).ndim != 1:
            raise ValueError(f"hidden = {self.hidden!r}: expected a sequence of widths")
        widths = enumerate(check.items("hidden", self.hidden, least=0))
        hidden = tuple(check.integer(f"hidden[{j}]", m, low=1) for j, m in widths)
        object.__setattr__(self, "hidden", hidden)
        _keep(self)

    @property
    def degree(self) -> int:
        """The depth."""
        return len(self.hidden) + 1

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shapes of the layers, the first layer first."""
        widths = [self.Z.shape[1], *self.hidden, 1]
        return list(zip(widths[1:], widths[:-1], strict=True))

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(m * d for m, d in self.shapes)

    def layers(self, theta: np.ndarray) -> list[np.ndarray]:
        """The matrices ``W_1, ..., W_L`` in the flat ``theta``."""
        ends = np.cumsum([m * d for m, d in self.shapes])[:-1]
        return [W.reshape(s) for W, s in zip(np.split(_flat(self, theta), ends), self.shapes, strict=True)]

    @check.in_range
    def end_to_end(self, theta: np.ndarray) -> np.ndarray:
        """The predictor ``w`` with ``f(x) = <w, x>``."""
        w = np.ones(1)
        for W in reversed(self.layers(theta)):
            w = w @ W
        return w

    @check.in_range
    def q(self, theta: np.ndarray) -> np.ndarray:
        """Signed outputs."""
        return self.Z @ self.end_to_end(theta)

    @check.in_range
    def pullback(self, theta: np.ndarray, p: np.ndarray) -> np.ndarray:
        """The combination ``sum_i p_i grad q_i``: outer products of what comes from above and from below."""
        layers = self.layers(theta)
        below = [_weights(self, p) @ self.Z]
        for W in layers[:-1]:
            below.append(W @ below[-1])
        above, grads = np.ones(1), []
        for W, h in zip(reversed(layers), reversed(below), strict=True):
            grads.append(np.outer(above, h).ravel())
            above = above @ W
        return np.concatenate(grads[::-1])


@dataclass(frozen=True, eq=False)
class Diagonal:
    r"""The diagonal network :math:`f(x) = \langle u^{\circ L} - v^{\circ L}, x\rangle`, parameters ``(u, v)``.

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and labels -1 or 1.
    depth : int
        ``L``, at least 1.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, a label is not -1 or 1, or ``depth < 1``.

    Notes
    -----
    :math:`\min\{\|u\|^2+\|v\|^2 : u^{\circ L}-v^{\circ L} = w\} = \sum_j|w_j|^{2/L}` for :math:`L\ge2`, so depth 2
    can reach the margin :math:`\gamma^*_1` in :math:`\ell_1`, and deeper ones seek a quasi-norm with :math:`2/L<1`,
    which is not convex.

    Examples
    --------
    >>> net = Diagonal([[1.0, 1.0]], [1], depth=2)
    >>> net.end_to_end(np.array([3.0, 0.0, 0.0, 2.0]))
    array([ 9., -4.])
    """

    X: ArrayLike
    y: ArrayLike
    depth: int = 2
    Z: np.ndarray = field(init=False, repr=False)
    smooth = True
    __repr__ = brief

    def __post_init__(self) -> None:
        check.integer("depth", self.depth, low=1)
        _keep(self)

    @property
    def degree(self) -> int:
        """The depth."""
        return self.depth

    @property
    def size(self) -> int:
        """Number of parameters."""
        return 2 * self.Z.shape[1]

    @check.in_range
    def end_to_end(self, theta: np.ndarray) -> np.ndarray:
        """The predictor ``w``."""
        u, v = np.split(_flat(self, theta), 2)
        return u**self.depth - v**self.depth

    @check.in_range
    def q(self, theta: np.ndarray) -> np.ndarray:
        """Signed outputs."""
        return self.Z @ self.end_to_end(theta)

    @check.in_range
    def pullback(self, theta: np.ndarray, p: np.ndarray) -> np.ndarray:
        """The combination ``sum_i p_i grad q_i``."""
        theta, c = _flat(self, theta), _weights(self, p) @ self.Z
        return self.depth * theta ** (self.depth - 1) * np.r_[c, -c]


@dataclass(frozen=True, eq=False)
class ReLU:
    r"""The network :math:`f(x) = \sum_k a_k\max(\langle w_k, x\rangle, 0)`, parameters ``(W, a)``, ``W`` by rows.

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and labels -1 or 1.
    width : int
        Number of neurons, at least 1.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, a label is not -1 or 1, or ``width < 1``.

    Notes
    -----
    At a kink, that is where rounding cannot tell the input of the activation from zero, its derivative is taken as 0:
    one element of Clarke's subdifferential, not always that of least norm, which is the one that gradient flow follows.

    Examples
    --------
    >>> net = ReLU([[1.0, 0.0], [-1.0, 0.0]], [1, 1], width=1)
    >>> net.q(np.array([2.0, 5.0, 3.0]))
    array([6., 0.])
    """

    X: ArrayLike
    y: ArrayLike
    width: int
    Z: np.ndarray = field(init=False, repr=False)
    degree = 2
    smooth = False
    __repr__ = brief

    def __post_init__(self) -> None:
        check.integer("width", self.width, low=1)
        _keep(self)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.width * (self.X.shape[1] + 1)

    def layers(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``W`` (width, d) and ``a`` (width,)."""
        theta = _flat(self, theta)
        return theta[: -self.width].reshape(self.width, -1), theta[-self.width :]

    @check.in_range
    def q(self, theta: np.ndarray) -> np.ndarray:
        """Signed outputs."""
        W, a = self.layers(theta)
        return self.y * (np.maximum(self.X @ W.T, 0) @ a)

    @check.in_range
    def pullback(self, theta: np.ndarray, p: np.ndarray) -> np.ndarray:
        """The combination ``sum_i p_i grad q_i``."""
        W, a = self.layers(theta)
        h, c = self.X @ W.T, _weights(self, p) * self.y
        on = h > self.X.shape[1] * np.finfo(float).eps * (np.abs(self.X) @ np.abs(W).T)
        return np.r_[(a[:, None] * ((on * c[:, None]).T @ self.X)).ravel(), c @ np.maximum(h, 0)]


def _weights(net: Network, p: ArrayLike) -> np.ndarray:
    """One weight an example."""
    quick = type(p) is np.ndarray and p.dtype == np.float64 and p.shape == net.y.shape
    return p if quick and np.isfinite(p).all() else check.vector("p", p, size=len(net.y))


def _parameters(net: Network, theta: ArrayLike, name: str = "theta") -> np.ndarray:
    check.instance("net", net, Network)
    theta = check.vector(name, theta, size=net.size)
    if not theta.any():
        raise ValueError(f"{name} is zero: expected parameters that are not all zero")
    return theta


@check.in_range
def log_inverse_loss(net: Network, theta: ArrayLike) -> float:
    r"""The quantity :math:`\log(1/L) = -\log\sum_ie^{-q_i(\theta)}`, without overflow.

    Parameters
    ----------
    net : Network
    theta : (size,) array
        Parameters, not all zero.

    Returns
    -------
    float
        At most :math:`\min_iq_i`, at least :math:`\min_iq_i-\log n`.

    Raises
    ------
    ValueError
        If ``theta`` is zero, not finite or of another size.

    Examples
    --------
    >>> log_inverse_loss(Diagonal([[1.0]], [1]), [100.0, 0.0])
    10000.0
    """
    theta = _parameters(net, theta)
    return -float(logsumexp(-net.q(theta)))


@check.in_range
def smoothed_margin(net: Network, theta: ArrayLike) -> float:
    r"""The smoothed margin, which gradient flow never decreases.

    .. math:: \tilde\gamma = \frac{\log(1/L)}{\|\theta\|^{\mathcal L}},\qquad L = \sum_ie^{-q_i(\theta)},\qquad
              \tilde\gamma\le\bar\gamma\le\tilde\gamma+\frac{\log n}{\|\theta\|^{\mathcal L}},

    with :math:`\bar\gamma` the :func:`normalized_margin`.

    Parameters
    ----------
    net : Network
    theta : (size,) array
        Parameters, not all zero.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If ``theta`` is zero, not finite or of another size.

    Notes
    -----
    **Theorem.** Along gradient flow, from the moment when :math:`L<1`, it is non-decreasing. *Proof* (smooth case).
    With :math:`\nu = \sum_iq_ie^{-q_i}`, Euler's identity gives
    :math:`\langle\theta,\dot\theta\rangle = \mathcal L\nu`, and :math:`\nu\ge L\log\frac1L` because every
    :math:`q_i\ge\log\frac1L`. So

    .. math:: \frac{d}{dt}\log\tilde\gamma = \frac{\|\dot\theta\|^2}{L\log(1/L)}-\frac{\mathcal L^2\nu}{\|\theta\|^2}
              \ge\frac1\nu\Big(\|\dot\theta\|^2-\langle\tfrac{\theta}{\|\theta\|},\dot\theta\rangle^2\Big)\ge0 .

    Before that moment it can decrease. That limit points are along Karush-Kuhn-Tucker points of
    :math:`\min\frac12\|\theta\|^2,\ q_i\ge1` is cited (Lyu and Li 2020), as is the convergence of the direction (Ji
    and Telgarsky 2020).

    References
    ----------
    Lyu, Li, "Gradient descent maximizes the margin of homogeneous neural networks", ICLR 2020; Ji, Telgarsky,
    "Directional convergence and alignment in deep learning", NeurIPS 2020; Hegde, Foundations of Deep Learning, ch.
    7, "Multiple layers" (left open there).

    Examples
    --------
    One example x = 1 and depth 2: :math:`\log(1/L) = u^2 - v^2`.

    >>> round(smoothed_margin(Diagonal([[1.0]], [1]), [2.0, 1.0]), 12)
    0.6
    """
    theta = _parameters(net, theta)
    return log_inverse_loss(net, theta) / float(np.linalg.norm(theta)) ** net.degree


@check.in_range
def normalized_margin(net: Network, theta: ArrayLike) -> float:
    r"""The margin :math:`\bar\gamma = \min_iq_i(\theta)/\|\theta\|^{\mathcal L}`, a function of the direction.

    Parameters
    ----------
    net : Network
    theta : (size,) array
        Parameters, not all zero.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If ``theta`` is zero, not finite or of another size.

    Examples
    --------
    >>> normalized_margin(Diagonal([[1.0]], [1]), [20.0, 10.0])
    0.6
    """
    theta = _parameters(net, theta)
    return float(net.q(theta).min() / np.linalg.norm(theta) ** net.degree)


@in_any_order("tau")
@check.in_range
def gradient_flow(net: Network, theta0: ArrayLike, tau: ArrayLike, h: float | None = None) -> np.ndarray:
    r"""The path of gradient flow on :math:`L = \sum_ie^{-q_i}`, in a time that reaches tiny losses.

    .. math:: \frac{d\theta}{d\tau} = \|\theta\|\frac{g}{\|g\|},\qquad g = \sum_ip_i\nabla q_i,\qquad
              p = \operatorname{softmax}(-q).

    Parameters
    ----------
    net : Network
    theta0 : (size,) array
        Parameters at :math:`\tau = 0`, not all zero.
    tau : (m,) array
        Times, non-negative, in any order.
    h : float, optional
        Largest step of the classical Runge-Kutta method of order 4, for networks with kinks (at which adaptive
        methods stall): 1e-3 by default there, stable while ``h log(1/L)`` is about 1 or less. Smooth networks use
        backward differences with relative tolerance 1e-11 unless ``h`` is given.

    Returns
    -------
    (m, size) array
        Parameters at these times.

    Raises
    ------
    ValueError
        If ``theta0`` is zero, not finite or of another size, ``tau`` is negative, ``h <= 0`` or so small that it takes
        more than a million steps, ``theta0`` is a critical point, or ``tau`` leads beyond
        :math:`\log(1/L) = 10^7`, which is soon: like :math:`e^{\mathcal L\tau}`.
    NotSeparable
        A ``ValueError``, if the path of a network that is linear in ``x`` runs into a critical point because its data
        are not separable through the origin.
    ArithmeticError
        If the path cannot be followed to ``tau``: it runs into a critical point, or the adaptive steps become ever
        smaller, often from :math:`\log(1/L)` of some :math:`10^3` to :math:`10^5` on, where the outputs are large and
        only their differences count (the number of calls is limited, so that this takes seconds). The message names
        the time, and :math:`\log(1/L)` there.

    Notes
    -----
    As :math:`g = -\nabla L/L` this is gradient flow with :math:`dt = \|\theta\|\,d\tau/(\|g\|L)`: the same path,
    hence the same conserved quantities, and :math:`\|\theta\|` grows at most like :math:`e^\tau`. Flow in the time
    of :math:`\theta' = g` blows up in finite time when the degree is 3 or more.

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Multiple layers" (left open there).

    Examples
    --------
    One example, depth 1, ``u = v = 0.5``: the flow moves along (1, -1) and the margin tends to :math:`\sqrt2`.

    >>> net = Diagonal([[1.0]], [1], depth=1)
    >>> path = gradient_flow(net, [0.5, 0.5], [0.0, 13.0])
    >>> round(normalized_margin(net, path[-1]), 9), round(2**0.5, 9)
    (1.414213562, 1.414213562)
    """
    theta0, tau = _parameters(net, theta0, "theta0"), increasing_times("tau", tau)
    h = None if h is None else check.number("h", h, above=0)
    base, each = _MOST_CALLS

    def velocity(s: float, theta: np.ndarray) -> np.ndarray:
        q = net.q(theta)
        if q.min() > RESOLVED:
            raise ValueError(f"tau[{tau.size - 1}] = {tau[-1]:g}: past log(1/L) = {RESOLVED:g}; expected less")
        g = net.pullback(theta, softmax(-q))
        size = np.linalg.norm(g)
        if not 0 < size < np.inf:
            raise _stuck(net, tau, s, theta)
        return np.linalg.norm(theta) / size * g

    if not net.pullback(theta0, softmax(-net.q(theta0))).any():
        raise ValueError(f"theta0 = {theta0}: the gradient vanishes; expected no critical point")
    if not net.smooth or h is not None:
        return _rk4(velocity, theta0, tau, h or 1e-3)
    most, atol = base + each * net.size, 1e-13 * _solvers.norm(theta0)
    try:
        return _solvers.integrate(
            "tau", velocity, theta0, tau, method="BDF", rtol=1e-11, atol=atol, most=most, advice="less"
        )
    except _solvers.SolverError as error:
        raise _stuck(net, tau, error.reached, error.state) from error


def _stuck(net: Network, tau: np.ndarray, s: float, theta: np.ndarray) -> Exception:
    """What to raise where the path cannot be followed beyond the time s."""
    with np.errstate(all="ignore"):
        ell = -float(logsumexp(-net.q(theta)))
    if not ell > 0 and isinstance(net, DeepLinear | Diagonal):
        try:
            hard_margin(net.Z, np.ones(len(net.Z)))
        except NotSeparable as error:
            return error
    i = min(int(np.searchsorted(tau, s, side="right")), tau.size - 1)
    why = "the steps become too small" if ell > 0 else "near a critical point"
    return ArithmeticError(
        f"tau[{i}] = {tau[i]:g}: the path cannot be followed beyond {s:.4g}, where log(1/L) = {ell:.3g} ({why}); "
        "expected less"
    )


def _rk4(velocity, theta: np.ndarray, tau: np.ndarray, h: float) -> np.ndarray:
    if tau[-1] > _MOST_STEPS * h:
        raise ValueError(f"h = {h:g}: expected at least tau / {_MOST_STEPS:,} = {tau[-1] / _MOST_STEPS:g}")
    path, t = [], 0.0
    for span in np.diff(tau, prepend=0.0):
        steps = int(np.ceil(span / h))
        for _ in range(steps):
            s = span / steps
            k1 = velocity(t, theta)
            k2 = velocity(t, theta + s / 2 * k1)
            k3 = velocity(t, theta + s / 2 * k2)
            k4 = velocity(t, theta + s * k3)
            theta, t = theta + s / 6 * (k1 + 2 * k2 + 2 * k3 + k4), t + s
        path.append(theta)
    return np.array(path)


def _layers(layers: Sequence[ArrayLike]) -> list[np.ndarray]:
    """Matrices that can be multiplied, ``W_1`` first."""
    matrices = [check.matrix(f"layers[{j}]", W) for j, W in enumerate(check.items("layers", layers))]
    for j in range(1, len(matrices)):
        check.matrix(f"layers[{j}]", matrices[j], columns=matrices[j - 1].shape[0])
    return matrices


def layer_imbalance(layers: Sequence[ArrayLike]) -> list[np.ndarray]:
    r"""The matrices :math:`W_{j+1}^\top W_{j+1}-W_jW_j^\top`, which gradient flow of a linear network conserves.

    Parameters
    ----------
    layers : sequence of matrices
        :math:`W_1,\dots,W_L`, the first layer first.

    Returns
    -------
    list of L - 1 matrices

    Raises
    ------
    ValueError
        If there is no layer or consecutive shapes do not fit.

    Notes
    -----
    *Proof.* The loss depends on the product alone, so :math:`\nabla_jL\,W_j^\top = W_{j+1}^\top\nabla_{j+1}L`, and
    both :math:`W_{j+1}^\top W_{j+1}` and :math:`W_jW_j^\top` change at the rate minus this matrix minus its
    transpose. ∎ True of any loss of the product, the squared loss included.

    References
    ----------
    Arora, Cohen, Hazan, "On the optimization of deep networks", ICML 2018; Hegde, Foundations of Deep Learning, ch.
    7, "Multiple layers" (left open there).

    Examples
    --------
    >>> layer_imbalance([[[3.0, 4.0]], [[5.0]]])
    [array([[0.]])]
    """
    matrices = _layers(layers)
    return [V.T @ V - W @ W.T for W, V in pairwise(matrices)]


@check.in_range
def neuron_imbalance(W: ArrayLike, a: ArrayLike) -> np.ndarray:
    r"""The differences :math:`\|w_k\|^2-a_k^2`, which gradient flow of a two-layer (leaky) ReLU network conserves.

    Parameters
    ----------
    W : (m, d) array
        Incoming weights, one neuron a row.
    a : (m,) array
        Outgoing weights.

    Returns
    -------
    (m,) array

    Raises
    ------
    ValueError
        If shapes disagree or an entry is not finite.

    Notes
    -----
    *Proof.* The output does not change when :math:`w_k` is multiplied and :math:`a_k` divided by the same
    :math:`c>0`; hence :math:`\langle w_k,\nabla_{w_k}L\rangle = a_k\,\partial_{a_k}L`. ∎

    References
    ----------
    Du, Hu, Lee, "Algorithmic regularization in learning deep homogeneous models", NeurIPS 2018; Hegde, Foundations
    of Deep Learning, ch. 7, "Multiple layers" (left open there).

    Examples
    --------
    >>> neuron_imbalance([[3.0, 4.0], [1.0, 0.0]], [5.0, 2.0])
    array([ 0., -3.])
    """
    W = check.matrix("W", W)
    return (W**2).sum(axis=1) - check.vector("a", a, size=W.shape[0]) ** 2


@dataclass(frozen=True, eq=False)
class Alignment:
    """How close a deep linear network is to its aligned limit; see :func:`alignment`.

    Attributes
    ----------
    rank_ratio : (L,) array
        Second over first singular value of each layer; 0 for a layer with one row or column, and in the limit.
    overlap : (L - 1,) array
        Between the top left singular vector of a layer and the top right one of the next; 1 in the limit.
    norms : (L,) array
        Frobenius norms; equal in the limit up to a vanishing fraction.
    """

    rank_ratio: np.ndarray
    overlap: np.ndarray
    norms: np.ndarray
    __repr__ = brief


def alignment(layers: Sequence[ArrayLike]) -> Alignment:
    r"""Rank and alignment of the layers of a linear network.

    Parameters
    ----------
    layers : sequence of matrices
        :math:`W_1,\dots,W_L`, the first layer first, none zero.

    Returns
    -------
    Alignment

    Raises
    ------
    ValueError
        If there is no layer, consecutive shapes do not fit, or a layer is zero.

    Notes
    -----
    That every layer tends to rank one and aligns with the next under gradient flow on separable data is due to Ji
    and Telgarsky (2019); the book's chapter on homogeneous networks proves it for the exponential loss.

    References
    ----------
    Ji, Telgarsky, "Gradient descent aligns the layers of deep linear networks", ICLR 2019.

    Examples
    --------
    >>> alignment([[[1.0, 0.0], [0.0, 0.5]], [[2.0, 0.0]]])
    Alignment(rank_ratio=array([0.5, 0. ]), overlap=array([1.]), norms=array([1.11803399, 2.        ]))
    """
    matrices = _layers(layers)
    for j, W in enumerate(matrices):
        if not W.any():
            raise ValueError(f"layers[{j}] is zero: expected a matrix that is not")
    svds = [np.linalg.svd(W, full_matrices=False) for W in matrices]
    ratio = np.array([s[1] / s[0] if s.size > 1 else 0.0 for _, s, _ in svds])
    overlap = np.array([abs(U[:, 0] @ Vt[0]) for (U, _, _), (_, _, Vt) in pairwise(svds)])
    return Alignment(ratio, overlap, np.array([np.linalg.norm(W) for W in matrices]))


@check.in_range
def deep_linear_margin(X: ArrayLike, y: ArrayLike, depth: int) -> float:
    r"""The largest normalised margin of a linear network of this depth: :math:`\gamma^*_2\,L^{-L/2}`.

    Parameters
    ----------
    X, y : (n, d) and (n,) arrays
        Inputs and labels -1 or 1, linearly separable through the origin.
    depth : int
        ``L``, at least 1.

    Returns
    -------
    float
        :math:`\max_\theta\min_iq_i(\theta)/\|\theta\|^L`, for any hidden widths.

    Raises
    ------
    ValueError
        If shapes disagree, an entry is not finite, a label is not -1 or 1, ``depth < 1`` or the data are not
        separable.

    Notes
    -----
    *Proof.* :math:`\|W_L\cdots W_1\|\le\prod_j\|W_j\|_F\le\big(\frac1L\sum_j\|W_j\|_F^2\big)^{L/2}`, with equality
    for aligned rank-one layers of equal norms; so :math:`\min\|\theta\|^2 = L\|w\|^{2/L}` for a given predictor
    ``w``. ∎

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Multiple layers" (left open there).

    Examples
    --------
    >>> round(deep_linear_margin([[3.0, 4.0]], [1], depth=2), 12)
    2.5
    """
    depth = check.integer("depth", depth, low=1)
    return hard_margin(X, y).margin * depth ** (-depth / 2)


@dataclass(frozen=True, eq=False)
class KKT:
    r"""How far a direction is from a Karush-Kuhn-Tucker point; see :func:`kkt_residual`.

    Attributes
    ----------
    stationarity : float
        :math:`\|\theta-\sum_i\lambda_i\nabla q_i(\theta)\|/\|\theta\|` at the scale :math:`\min_iq_i = 1`.
    slackness : float
        :math:`\sum_i\lambda_i(q_i-1)/\|\theta\|^2` at this scale.
    dual : (n,) array
        The multipliers :math:`\lambda\ge0`.
    """

    stationarity: float
    slackness: float
    dual: np.ndarray
    __repr__ = brief


@check.in_range
def kkt_residual(net: Network, theta: ArrayLike) -> KKT:
    r"""Distance of the direction of ``theta`` from the optimality conditions of the largest margin.

    The problem is :math:`\min\frac12\|\theta\|^2` subject to :math:`q_i(\theta)\ge1`; its conditions are

    .. math:: \theta = \sum_i\lambda_i\nabla q_i(\theta),\qquad\lambda\ge0,\qquad\lambda_i(q_i(\theta)-1) = 0 .

    Parameters
    ----------
    net : Network
    theta : (size,) array
        Parameters that classify every example correctly; only their direction matters.

    Returns
    -------
    KKT
        With the multipliers that minimise the sum of squares of the relative violations of the first and the last
        condition, :math:`\|\theta-\sum_i\lambda_i\nabla q_i\|/\|\theta\|` and
        :math:`\lambda_i(q_i-1)/\|\theta\|^2`, by non-negative least squares. No residual depends on the units of X.

    Raises
    ------
    ValueError
        If ``theta`` is zero, not finite, of another size, or misclassifies an example.

    Notes
    -----
    Both residuals vanish at the limit points of gradient flow (cited, Lyu and Li 2020); they also vanish at points
    that are not of largest margin. For a network with kinks one subgradient is used, so a residual can stay
    positive at a point that satisfies the conditions with another.

    References
    ----------
    Lyu, Li, "Gradient descent maximizes the margin of homogeneous neural networks", ICLR 2020.

    Examples
    --------
    >>> kkt = kkt_residual(Diagonal([[1.0, 0.0], [0.0, 2.0]], [1, 1], depth=1), [2.0, 1.0, -2.0, -1.0])
    >>> kkt.stationarity < 1e-15, kkt.slackness < 1e-15
    (True, True)
    """
    theta = _parameters(net, theta)
    smallest = net.q(theta).min()
    if smallest <= 0:
        raise ValueError(
            f"theta has min_i q_i = {smallest:g}: expected parameters that classify every example correctly"
        )
    theta = theta / smallest ** (1 / net.degree)
    slack = net.q(theta) - 1
    J = np.array([net.pullback(theta, e) for e in np.eye(slack.size)])
    size = _solvers.norm(theta)
    A = np.vstack([size * J.T, np.diag(slack)])  # of the multipliers divided by |theta|²
    share, _ = _solvers.nonnegative_least_squares("theta", A, np.r_[theta / size, np.zeros(slack.size)])
    stationarity = _solvers.norm(theta / size - size * (share @ J))
    return KKT(stationarity, float(share @ slack), share * size**2)


@check.in_range
def relu_margin_bound(X: ArrayLike, y: ArrayLike, p: ArrayLike) -> float:
    r"""An upper bound, from any weights ``p``, on the margin of every two-layer ReLU network on the plane.

    .. math:: \max_\theta\frac{\min_iq_i(\theta)}{\|\theta\|^2}\le\frac12\max_{\|w\|=1}
              \Big|\sum_ip_iy_i\max(\langle w, x_i\rangle, 0)\Big| .

    Parameters
    ----------
    X, y : (n, 2) and (n,) arrays
        Inputs in the plane and labels -1 or 1.
    p : (n,) array
        Non-negative weights that sum to one.

    Returns
    -------
    float
        The right side, exactly: between the directions orthogonal to an input the sum is a sinusoid of the angle.

    Raises
    ------
    ValueError
        If shapes disagree, inputs are not in the plane, an entry is not finite, a label is not -1 or 1, or ``p`` is
        not a probability vector.

    Notes
    -----
    *Proof.* With ``M`` the maximum,
    :math:`\min_iq_i\le\sum_ip_iq_i = \sum_ka_k\sum_ip_iy_i\max(\langle w_k,x_i\rangle,0)` and
    the last sum is at most :math:`M\sum_k|a_k|\|w_k\|\le\frac M2\|\theta\|^2`. ∎

    References
    ----------
    The dual of the variation-norm margin: Chizat, Bach, "Implicit bias of gradient descent for wide two-layer neural
    networks trained with the logistic loss", COLT 2020.

    Examples
    --------
    A single input of length 5: one neuron along it attains the bound 5/2.

    >>> relu_margin_bound([[3.0, 4.0]], [1], [1.0])
    2.5
    """
    signed_rows(X, y)
    X = check.matrix("X", X, columns=2)
    p = check.vector("p", p, size=X.shape[0])
    if (p < 0).any() or abs(p.sum() - 1) > 1e-12:
        raise ValueError(f"p = {p}: expected non-negative weights that sum to 1")
    c = p * np.asarray(y, dtype=float)
    normal = np.arctan2(X[:, 1], X[:, 0]) + np.pi / 2
    kinks = np.unique(np.r_[normal, normal + np.pi] % (2 * np.pi))
    middle = (kinks + np.diff(kinks, append=kinks[0] + 2 * np.pi) / 2)[:, None]
    active = np.hstack([np.cos(middle), np.sin(middle)]) @ X.T > 0
    peaks = (active * c) @ X  # on each arc the sum is <peak, w>: its maximum is at the peak or at a kink
    angles = np.r_[kinks, np.arctan2(peaks[:, 1], peaks[:, 0]), np.arctan2(-peaks[:, 1], -peaks[:, 0])]
    w = np.column_stack([np.cos(angles), np.sin(angles)])
    return float(np.abs(np.maximum(w @ X.T, 0) @ c).max() / 2)


@dataclass(frozen=True, eq=False)
class Certificate:
    """Parameters of a network and an upper bound on the margin of every network that they meet.

    Attributes
    ----------
    net : ReLU
        The network, with its data.
    theta : (size,) array
        Its parameters.
    primal : float
        Their normalised margin.
    dual : float
        The upper bound on all margins; equal to ``primal`` up to rounding when the network is optimal.
    """

    net: ReLU
    theta: np.ndarray
    primal: float
    dual: float
    __repr__ = brief


def xor_certificate() -> Certificate:
    r"""The largest margin of a two-layer ReLU network on XOR is :math:`\sqrt2/8`, for every width from four.

    The inputs are :math:`(\pm1,\pm1)`, the label is the product of the coordinates. Primal: four neurons of unit
    weights along the diagonals, each with its label as outgoing weight. Dual: :func:`relu_margin_bound` with equal
    weights :math:`p=\frac14`.

    Returns
    -------
    Certificate

    Notes
    -----
    *Proof.* Each input activates only the neuron along it: :math:`q_i = \sqrt2`, :math:`\|\theta\|^2 = 8`. At the
    angle :math:`\varphi` the dual function is
    :math:`\frac14\big(|\cos\varphi+\sin\varphi|-|\cos\varphi-\sin\varphi|\big)`, at most :math:`\frac{\sqrt2}4` in
    size. ∎

    References
    ----------
    Hegde, Foundations of Deep Learning, ch. 7, "Multiple layers" (left open there).

    Examples
    --------
    >>> xor = xor_certificate()
    >>> round(xor.primal, 12), round(xor.dual, 12), round(2**0.5 / 8, 12)
    (0.176776695297, 0.176776695297, 0.176776695297)
    """
    X = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
    y = np.array([1.0, 1.0, -1.0, -1.0])
    net = ReLU(X, y, width=4)
    theta = np.r_[(X / np.sqrt(2)).ravel(), y]
    return Certificate(net, theta, normalized_margin(net, theta), relu_margin_bound(X, y, np.full(4, 0.25)))
