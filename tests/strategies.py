"""Random problems, schedules and matrices for property tests.

All numbers are multiples of a power of 1/2 and shrink towards zero, so that the smallest failing case can be read and
typed in. `Smooth` prints itself with its coefficients.
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
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
