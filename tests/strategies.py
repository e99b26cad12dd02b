"""Random problems, schedules and matrices for property tests.

All numbers are multiples of a power of 1/2 and shrink towards zero, so that the smallest failing case can be read and
typed in. `Smooth` prints itself with its coefficients. Beside the strategies stand what several tests do with a drawn
problem: derivatives by hand, other coordinates, and the coefficients of a polynomial in the step.
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st
from implicitreg import FiniteProblem

RIDGES = {"tanh": torch.tanh, "softplus": torch.nn.functional.softplus}


@dataclass(frozen=True)
class Smooth:
    """The loss Σ_α jet[α] θ^α / α! + Σ a f(w·θ + b), so that ``jet`` holds the derivatives of the polynomial at 0.

    ``jet`` has one entry an exponent α = (α_1, …, α_d); ``ridges`` are (name of f, a, w, b).
    """

    jet: dict[tuple[int, ...], float]
    ridges: tuple[tuple[str, float, tuple[float, ...], float], ...] = ()

    def __post_init__(self):
        size = 1 + max(max(alpha) for alpha in self.jet)
        table = torch.zeros([size] * len(next(iter(self.jet))), dtype=torch.float64)
        for alpha, value in self.jet.items():
            table[alpha] = value / math.prod(map(math.factorial, alpha))
        object.__setattr__(self, "table", table)

    def __call__(self, theta):
        powers = [torch.ones_like(theta)]
        for _ in range(len(self.table) - 1):
            powers.append(powers[-1] * theta)
        powers, value = torch.stack(powers), self.table
        for j in range(len(theta)):
            value = torch.tensordot(powers[:, j], value, dims=1)
        for name, a, w, b in self.ridges:
            value = value + a * RIDGES[name](theta @ torch.tensor(w, dtype=torch.float64) + b)
        return value


def derivative(loss: Smooth, theta, *axes: int) -> float:
    """Of the polynomial: lower an exponent for each axis; jet / alpha! makes falling factorials."""
    total = 0.0
    for alpha, value in loss.jet.items():
        left = [a - axes.count(j) for j, a in enumerate(alpha)]
        if min(left) >= 0:
            total += value * math.prod(t**a / math.factorial(a) for t, a in zip(theta, left, strict=True))
    return total


def by_hand(problem: FiniteProblem, theta, order: int) -> np.ndarray:
    """The derivatives of that order of all (polynomial) losses, (m, d, …, d)."""
    shape = [problem.d] * order
    rows = [[derivative(loss, theta, *axes) for axes in np.ndindex(*shape)] for loss in problem.losses]
    return np.array(rows).reshape(problem.m, *shape)


class Moved:
    """The loss in coordinates phi with theta = A phi + b."""

    def __init__(self, loss, A, b):
        self.loss, self.A, self.b = loss, torch.from_numpy(A), torch.from_numpy(b)

    def __call__(self, phi):
        return self.loss(self.A @ phi + self.b)


def changed(problem, losses=None, probabilities=None, theta0=None) -> FiniteProblem:
    return FiniteProblem(
        losses or problem.losses,
        problem.probabilities if probabilities is None else probabilities,
        problem.theta0 if theta0 is None else theta0,
    )


def nodes(n: int) -> np.ndarray:
    """Steps at which to evaluate a polynomial of degree n - 1."""
    return (np.cos(np.pi * (np.arange(n) + 0.5) / n) + 1.1) / 16


def taylor(values, eta: float) -> np.ndarray:
    """The terms c_k eta^k of a polynomial, one a row, from its values at so many `nodes`."""
    return np.linalg.solve(np.vander(nodes(len(values)) / eta, increasing=True), values)


def fractions(top: int, over: int = 4):
    """Multiples of 1/over from -top/over to top/over; simplest first."""
    return st.integers(-top, top).map(lambda k: k / over)


def exponents(d: int, degree: int) -> list[tuple[int, ...]]:
    return [alpha for alpha in product(range(degree + 1), repeat=d) if sum(alpha) <= degree]


@st.composite
def losses(draw, d: int, degree: int = 4, ridges: bool = False):
    """A polynomial of d variables whose derivatives at 0 are at most 1; with ``ridges`` up to two more terms."""
    monomials = exponents(d, degree)
    values = draw(st.lists(fractions(4), min_size=len(monomials), max_size=len(monomials)))
    ridge = st.tuples(st.sampled_from(sorted(RIDGES)), fractions(4), st.tuples(*[fractions(8)] * d), fractions(4))
    extra = draw(st.lists(ridge, max_size=2)) if ridges else []
    return Smooth(dict(zip(monomials, values, strict=True)), tuple(extra))


def probabilities(m: int):
    """m weights, none below 1 / (4m - 3)."""
    return st.lists(st.integers(1, 4), min_size=m, max_size=m).map(lambda w: [k / sum(w) for k in w])


@st.composite
def finite_problems(draw, max_dim: int = 2, max_examples: int = 3, degree: int = 4, ridges: bool = False):
    """Up to ``max_examples`` polynomial losses, with ``ridges`` also of tanh and softplus; |theta0| is at most 1 in
    every coordinate."""
    d, m = draw(st.sampled_from(list(product(range(1, max_dim + 1), range(1, max_examples + 1)))))
    parts = draw(st.lists(losses(d, degree, ridges), min_size=m, max_size=m))
    theta0 = draw(st.lists(fractions(4), min_size=d, max_size=d))
    return FiniteProblem(parts, draw(probabilities(m)), theta0)


def schedules(max_N: int, max_T: int, whole_epochs: bool = False):
    """(N, T, B) with B a divisor of N and 1 <= T <= max_T; with ``whole_epochs`` T is a multiple of N / B."""
    sizes = [(N, B) for N in range(1, max_N + 1) for B in range(1, N + 1) if N % B == 0]
    every = [(N, T, B) for N, B in sizes for T in range(1, max_T + 1) if not (whole_epochs and T % (N // B))]
    return st.sampled_from(every)


@st.composite
def triangular(draw, d: int):
    """Lower triangular and well conditioned: 1/2 to 1 on the diagonal, at most 1/2 below it."""
    L = np.diag(draw(st.lists(st.sampled_from([1.0, 0.75, 0.5]), min_size=d, max_size=d)))
    for i, j in zip(*np.tril_indices(d, -1), strict=True):
        L[i, j] = draw(fractions(2))
    return L


def spd_matrices(d: int):
    """Symmetric positive definite: L Lᵀ, exactly."""
    return triangular(d).map(lambda L: L @ L.T)


def orthogonal(d: int):
    """A permutation of the axes, and up to two reflections."""

    def turn(drawn):
        Q = np.eye(d)[list(drawn[0])]
        for v in drawn[1]:
            Q = Q - 2 * np.outer(v, v @ Q) / (v @ v)
        return Q

    mirrors = st.lists(vectors(d, top=4).filter(lambda v: v.any()), max_size=2)
    return st.tuples(st.permutations(range(d)), mirrors).map(turn)


# --- data, with the cases that break rules: ties, copies, zero columns, ranks, one example ---------------------


@st.composite
def designs(draw, max_n: int = 4, max_d: int = 4, top: int = 8):
    """A matrix of quarters, often with a zero column, two equal columns or rows, a dependent row, or rank one."""
    n, d = draw(st.integers(1, max_n)), draw(st.integers(1, max_d))
    X = np.array(draw(st.lists(fractions(top), min_size=n * d, max_size=n * d))).reshape(n, d)
    defect = draw(st.sampled_from(["none", "zero column", "equal columns", "equal rows", "sum of rows", "rank one"]))
    if defect == "zero column":
        X[:, -1] = 0
    elif defect == "equal columns":
        X[:, -1] = X[:, 0]
    elif defect == "equal rows":
        X[-1] = X[0]
    elif defect == "sum of rows":
        X[-1] = X[:-1].sum(0)
    elif defect == "rank one":
        X = np.outer(X[:, 0], X[0])
    return X


def vectors(size: int, top: int = 8):
    """Quarters."""
    return st.lists(fractions(top), min_size=size, max_size=size).map(np.array)


class Quadratic(torch.nn.Module):
    """theta -> g·theta + thetaᵀ h theta / 2 at a point, where an input is (g, h)."""

    def __init__(self, theta):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.from_numpy(theta))

    def forward(self, x):
        p = len(self.theta)
        h = x[:, p:].view(-1, p, p)
        return x[:, :p] @ self.theta + torch.einsum("a,nab,b->n", self.theta, h, self.theta) / 2


@dataclass(frozen=True)
class Written:
    """Model, loss, inputs and targets; and the losses (n,), gradients (n, p) and Hessians (n, p, p) of the examples."""

    arguments: tuple
    losses: np.ndarray
    g: np.ndarray
    h: np.ndarray


@st.composite
def quadratics(draw, least: int = 2):
    """Quadratic losses of ``least`` to five examples: often with equal ones, or zeros."""
    b = draw(designs(max_n=5, max_d=3).filter(lambda b: len(b) >= least))
    n, p = b.shape
    half = np.array(draw(st.lists(fractions(4), min_size=n * p * p, max_size=n * p * p))).reshape(n, p, p)
    if (b[0] == b[-1]).all() and draw(st.booleans()):
        half[-1] = half[0]
    h, theta = half + half.transpose(0, 2, 1), draw(vectors(p, top=4))
    inputs = torch.from_numpy(np.concatenate([b, h.reshape(n, -1)], axis=1))
    losses = b @ theta + (h @ theta) @ theta / 2
    return Written((Quadratic(theta), lambda outputs, _: outputs, inputs, inputs), losses, b + h @ theta, h)


@st.composite
def separable(draw, max_n: int = 5, max_d: int = 3):
    """(X, y) with y x·w > 0 for some w: rows of quarters, some equal, some on a ray, their labels given by w."""
    X = draw(designs(max_n, max_d))
    w = draw(vectors(X.shape[1], top=3).filter(lambda w: w.any()))
    X = X[X @ w != 0]
    assume(len(X) > 0)
    return X, np.sign(X @ w)


def spread(X: np.ndarray) -> float:
    """The largest singular value over the least that is not 0; the rank is exact for quarters of this size."""
    s = np.linalg.svd(X, compute_uv=False)
    s = s[s > 1e-9 * s[0]]
    return float(s[0] / s[-1]) if s.size else 1.0
