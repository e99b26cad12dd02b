r"""The limit of a diagonal network by Newton's method on its convex dual, for initial weights of any size.

Each of the d coordinates has one weight W (kept as a row k = 0) or two, of which the second enters with a minus sign
(k = 1). With :math:`z = X^\top\lambda` and logarithms M of the initial weights,

    depth 2:    W = exp(M +- z)
    depth L:    W = exp(M) g^-p,    g = 1 -+ b z,    p = L/(L - 2),

in units of the size of the solution, and the limit is where X w(lambda) = y: the minimum of the convex function
sum(psi) - y . lambda of n variables, with the conjugates psi, psi' = W.

Initial weights of size e^-20000 leave no digit of M + z, or of 1 - b z, on the support. The exponents (depth 2) and the
gaps g (depth L) are therefore variables of their own, moved by the same steps as lambda but never recomputed from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.linalg

EPS = np.finfo(float).eps
SETTLED = 1e-9  # a full Newton step that changes every weight by less leaves a relative error of its square
FOLLOWED = 0.5  # the same on the way to the target
FLOOR = 1e-13  # residual, relative to |X||w|, from which a stalled iteration is at the rounding floor
SCREEN = 1e-14  # coordinates whose curvature is less, relative to the largest, are left out of the Hessian
ILL_CONDITIONED = 1e-4  # pivot of the Cholesky factor, below which H = A'A has lost too many digits of A
GROWTH = 4.0  # a step lets no weight outgrow the largest one by more than e^GROWTH
CROWDED = 18.0  # depth L: gaps of e^-18 keep 8 digits beside the rounding of gaps of order 1
NEGLIGIBLE = 70.0  # depth L: gaps e^-70 of the largest are zero to double precision
ITERATIONS = 300


class State(NamedTuple):
    """A dual point. ``edge`` (k, d): the exponents of the weights (depth 2) or the gaps g (depth L)."""

    shift: float  # added to M: the distance to go on the path in log alpha
    dual: np.ndarray
    z: np.ndarray
    edge: np.ndarray


class Values(NamedTuple):
    """Weights w (d,), their derivative h = dw/dz (d,), the sum of conjugates psi, the residual, and its scale."""

    w: np.ndarray
    h: np.ndarray
    psi: float
    residual: np.ndarray
    scale: float


@dataclass(frozen=True)
class Network:
    """``M`` (k, d): log initial weights, -inf for none. ``b`` (d,): the slopes of the gaps, None at depth 2."""

    X: np.ndarray
    y: np.ndarray
    M: np.ndarray
    depth: int = 2
    b: np.ndarray | None = None

    @property
    def power(self) -> float:
        return self.depth / (self.depth - 2)

    @cached_property
    def largest(self) -> tuple[float, float]:
        """The largest entries of X and y."""
        return float(np.abs(self.X).max()), float(np.abs(self.y).max())

    @cached_property
    def signs(self) -> np.ndarray:
        return np.array([[1.0], [-1.0]])[: len(self.M)]

    def start(self, shift: float) -> State:
        n, d = self.X.shape
        edge = self.M + shift if self.b is None else np.ones_like(self.M)
        return State(shift, np.zeros(n), np.zeros(d), edge)

    def move(self, state: State, p: np.ndarray, dz: np.ndarray, step: float, shift: float = 0.0) -> State:
        dz = step * dz
        edge = state.edge + self.signs * dz + shift if self.b is None else state.edge - self.signs * (self.b * dz)
        return State(state.shift + shift, state.dual + step * p, state.z + dz, edge)

    def exponents(self, state: State) -> np.ndarray:
        if self.b is None:
            return state.edge
        unit = np.exp((self.M + state.shift) / self.power)  # so that the logarithm is of order 1 where W is
        return -self.power * np.log(state.edge / unit)

    def combine(self, state: State, E: np.ndarray) -> np.ndarray:
        """w from the exponents: their sum with signs, or 2 e^mean sinh where the two nearly cancel."""
        W = np.exp(E)
        if len(W) == 1:
            return W[0]
        w = W[0] - W[1]
        if self.b is None:
            near = np.abs(E[0] - E[1]) < 2
            delta = state.z[near] + (self.M[0] - self.M[1])[near] / 2
        else:
            near = np.abs(self.b * state.z) < 0.5
            delta = self.power * np.arctanh((self.b * state.z)[near])
        w[near] = 2 * np.exp(E[:, near].mean(axis=0)) * np.sinh(delta)
        return w

    def values(self, state: State) -> Values:
        E = self.exponents(state)
        W, w = np.exp(E), self.combine(state, E)
        if self.b is None:
            h, psi = W.sum(axis=0), W.sum()
        else:
            h = self.power * self.b * (W / state.edge).sum(axis=0)
            psi = (W * state.edge / self.b).sum() * (self.depth - 2) / 2
        X_max, y_max = self.largest
        return Values(w, h, float(psi), self.y - self.X @ w, y_max + X_max * float(np.abs(w).max()))

    def largest_step(self, state: State, dz: np.ndarray) -> float:
        """At most 1; keeps the gaps open, and the exponents at most GROWTH above their maximum."""
        rise = self.signs * dz
        if self.b is None:
            room = state.edge.max() + GROWTH - state.edge
        else:
            rise, room = rise * self.b, 0.9 * state.edge
        rises = rise > 0
        return min(1.0, float((room[rises] / rise[rises]).min(initial=np.inf)))

    def change(self, state: State, dz: np.ndarray) -> float:
        """The largest relative change of a weight, to first order."""
        if self.b is None:
            return float(np.abs(dz).max())
        return float((self.power * np.abs(self.b * dz) / state.edge).max())


def newton_direction(XT: np.ndarray, values: Values, depth: int) -> np.ndarray:
    """H p = r with H = X diag(h) X', from the columns that count, with the rows scaled to a unit diagonal.

    At depth 2 an ill-conditioned H, as sparse solutions have, is solved to full relative accuracy. Beyond, a step p
    leaves an error EPS |p| in gaps that may be much smaller: a shift by rounding holds what H hardly sees.
    """
    kept = values.h > SCREEN * values.h.max()
    A = XT[kept]
    A *= np.sqrt(values.h[kept])[:, None]
    H = A.T @ A
    D = 1 / np.sqrt(np.maximum(np.diag(H), np.finfo(float).tiny))
    H *= D[:, None] * D
    shift = 0.0 if depth == 2 else 10 * EPS * len(H)
    try:
        factor = scipy.linalg.cho_factor(H + shift * np.eye(len(H)), check_finite=False)
        if depth > 2 or np.diag(factor[0]).min() > ILL_CONDITIONED:
            return D * scipy.linalg.cho_solve(factor, D * values.residual, check_finite=False)
    except np.linalg.LinAlgError:
        pass
    return D * graded_solve(A * D, D * values.residual)


def graded_solve(A: np.ndarray, r: np.ndarray) -> np.ndarray:
    """A'A p = r where the rows of A differ in size by many orders of magnitude: p in the directions that A resolves.

    Householder QR with column pivoting, and with the rows in order of size, is accurate row by row (Cox and Higham).
    """
    order = np.argsort(-np.abs(A).max(axis=1))
    R, pivots = scipy.linalg.qr(A[order], mode="r", pivoting=True, check_finite=False)
    size = np.abs(np.diag(R))
    k = int((size > np.sqrt(SCREEN) * size[0]).sum())
    R, pivots = R[:k, :k], pivots[:k]
    p = np.zeros(len(r))
    p[pivots] = scipy.linalg.solve_triangular(R, scipy.linalg.solve_triangular(R, r[pivots], trans="T"))
    return p


def line_search(
    net: Network, state: State, values: Values, p: np.ndarray, dz: np.ndarray
) -> tuple[State, Values, float]:
    """The first of the halved steps that decreases the dual function as Armijo asks, up to rounding."""
    step = net.largest_step(state, dz)
    slope, yp = float(values.residual @ p), float(net.y @ p)
    while True:
        new = net.move(state, p, dz, step)
        at = net.values(new)
        slack = 8 * EPS * (abs(at.psi) + abs(values.psi) + abs(step * yp))
        if at.psi - values.psi - step * yp <= -1e-4 * step * slope + slack or step < 1e-12:
            return new, at, step
        step /= 2


def newton(net: Network, XT: np.ndarray, state: State, settled: float) -> tuple[State, Values, bool]:
    """Damped Newton steps until all weights have settled, or the residual stalls at its rounding floor."""
    values, last = net.values(state), np.inf
    for _ in range(ITERATIONS):
        size = float(np.abs(values.residual).max())
        if size == 0 or last / 2 < size <= FLOOR * values.scale:
            return state, values, True
        if not 0 < values.h.max() < np.inf:  # every weight underflows, or one overflows: no minimum
            break
        last = size
        p = newton_direction(XT, values, net.depth)
        dz = XT @ p
        if not np.isfinite(dz).all():
            break
        change = net.change(state, dz)
        state, values, step = line_search(net, state, values, p, dz)
        if step == 1.0 and change < settled:
            return state, values, True
    return state, values, False


def affine_ratio(net: Network, before: float, now: float, shift: float) -> float:
    """How much farther: the dual point is asymptotically affine in log alpha (depth 2), else in alpha^(L - 2)."""
    if net.b is None:
        return (shift - now) / (now - before)
    return float(np.expm1((shift - now) / net.power) / -np.expm1((before - now) / net.power))


def extrapolate(net: Network, before: State | None, now: State, shift: float) -> State:
    """The secant through two points of the path, or the same dual point where there is only one."""
    if before is None:
        still = np.zeros_like(now.dual)
        return net.move(now, still, np.zeros_like(now.z), 0.0, shift - now.shift)
    ratio = affine_ratio(net, before.shift, now.shift, shift)
    dual, z, edge = (new + ratio * (new - old) for old, new in zip(before[1:], now[1:], strict=True))
    return State(shift, dual, z, np.where(now.edge == before.edge, now.edge, edge))  # -inf stays


def admissible(net: Network, now: State, guess: State) -> bool:
    if net.b is not None:
        return bool((guess.edge > 0.05 * np.exp((guess.shift - now.shift) / net.power) * now.edge).all())
    return bool(guess.edge.max() <= now.edge.max() + 5 * GROWTH)


def travelled(net: Network, shift: float) -> float:
    """Depth L: the logarithm of the factor by which the gaps on the support have closed."""
    return (-float(net.M.max()) - shift) / net.power


def crowded(net: Network, now: State) -> bool:
    """Whether more gaps close together than there are equations: rounding would drown their ratios in the end."""
    if net.b is None or travelled(net, now.shift) < CROWDED:
        return False
    E = net.exponents(now).max(axis=0)
    return int((E.max() - E < 7).sum()) > len(net.y)


def follow(net: Network) -> tuple[State, Values, bool]:
    """The minimum of the dual: from initial weights of the size of the solution, one, to those asked for."""
    XT = np.ascontiguousarray(net.X.T)
    start = -float(net.M.max())
    if start <= 0 and len(net.M) == 2:  # large weights of both signs: nearly quadratic, no path needed
        start = 0.0
    end = 0.0 if net.b is None else max(0.0, start - NEGLIGIBLE * net.power)
    now, values, ok = newton(net, XT, net.start(start), SETTLED if start == end else FOLLOWED)
    before, stride = None, 2.0
    while ok and now.shift != end and stride > 1e-6:
        if crowded(net, now):
            end = now.shift
            now, values, ok = newton(net, XT, now, SETTLED)
            break
        guess = extrapolate(net, before, now, now.shift + np.clip(end - now.shift, -stride, stride))
        if before is not None and not admissible(net, now, guess):
            stride = abs(guess.shift - now.shift) / 2
            continue
        before = now
        now, values, ok = newton(net, XT, guess, SETTLED if guess.shift == end else FOLLOWED)
        stride = min(2 * stride, np.inf if net.b is None else 5 * net.power)
    return now, values, ok and now.shift == end


def weights(net: Network, state: State) -> np.ndarray:
    """w at the target, where the path ended at ``state``: gaps that vanish by then close in step with alpha^(L-2)."""
    if state.shift == 0 or travelled(net, state.shift) < NEGLIGIBLE - 1:
        return net.combine(state, net.exponents(state))
    vanish = state.edge < np.exp(-NEGLIGIBLE / 2)
    return net.signs[:, 0] @ np.exp(net.exponents(state) - np.where(vanish, 0, state.shift))


def scaled_arcsinh(w: np.ndarray, m: float) -> np.ndarray:
    """arcsinh(w / 2e^m), also where e^m underflows."""
    with np.errstate(divide="ignore"):
        ell = np.log(np.abs(w)) - np.log(2) - m
    large = np.maximum(ell, 0)
    a = np.where(ell > 0, large + np.log1p(np.sqrt(1 + np.exp(-2 * large))), np.arcsinh(np.exp(np.minimum(ell, 0))))
    return np.copysign(a, w)
