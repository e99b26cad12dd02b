r"""Control variates: processes that run along with SGD on the same noise, and whose means are known exactly.

About a centre c, with :math:`\varepsilon = \theta - c` and noise x of mean 0 and covariance I, the gradient is

.. math:: g(\theta, x) = G + H\varepsilon + \tfrac12 J[\varepsilon, \varepsilon]
          + (A + B\varepsilon)\, x + \dots

The first process keeps the affine part, the second is the next term of the Volterra series of :math:`\varepsilon`:

.. math:: \varepsilon_1' = \varepsilon_1 - \eta\,(G + H\varepsilon_1 + A x), \qquad
          \varepsilon_2' = \varepsilon_2 - \eta\,(H\varepsilon_2 + \tfrac12 J[\varepsilon_1, \varepsilon_1]
          + (B\varepsilon_1)\, x).

Their means obey a linear recursion *whatever* the coefficients are, so that coefficients from finite differences leave
no bias; inaccurate ones only take a little from the gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

STEP = 1e-3  # of the differences
DIGITS = 7  # decimals that coefficients keep, after division by the largest: zeros and ones come out as such


@dataclass(frozen=True, eq=False)
class Expansion:
    """The coefficients: ``center, G (d,)``, ``H (d, d)``, ``J (d, d, d)``, ``A (d, k)``, ``B (d, k, d)``."""

    center: np.ndarray
    G: np.ndarray
    H: np.ndarray
    J: np.ndarray
    A: np.ndarray
    B: np.ndarray


def expand(gradient: Callable, parameters: tuple, center: np.ndarray, size: int) -> Expansion:
    """The expansion by central differences; mean and linear part in x from x = 0 and ±e_k, exact for quadratics."""
    d, basis = center.size, np.eye(size)

    def at(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.array([float(g) for g in gradient(tuple(theta), tuple(x), parameters)])

    def mean(theta: np.ndarray) -> np.ndarray:
        center = at(theta, np.zeros(size))
        return center + sum((at(theta, e) + at(theta, -e)) / 2 - center for e in basis)

    def noise(theta: np.ndarray) -> np.ndarray:
        return np.stack([(at(theta, e) - at(theta, -e)) / 2 for e in basis], 1)

    def first(f: Callable, theta: np.ndarray) -> np.ndarray:
        return np.stack([(f(theta + e) - f(theta - e)) / (2 * STEP) for e in STEP * np.eye(d)], -1)

    J = first(lambda theta: first(mean, theta), center)
    parts = (mean(center), first(mean, center), (J + J.swapaxes(1, 2)) / 2, noise(center), first(noise, center))
    unit = 2.0 ** np.ceil(np.log2(max(np.abs(part).max() for part in parts) or 1.0))
    return Expansion(center, *(unit * np.round(part / unit, DIGITS) for part in parts))


def means(e: Expansion, start: np.ndarray, eta: float, at: tuple[int, ...]) -> np.ndarray:
    """The mean of eps_1 + eps_2 at the given steps, ``(S, d)``: powers of one affine map."""
    d = start.size
    P, m1, M, m2 = np.zeros((2 * d + d * d + 1,) * 2), *_places(d)
    K, G = np.eye(d) - eta * e.H, e.G[:, None]
    P[0, 0] = 1
    P[m1, 0], P[m1, m1] = -eta * e.G, K
    P[M, 0] = eta**2 * (G @ G.T + e.A @ e.A.T).ravel()
    P[M, m1], P[M, M] = -eta * (np.kron(K, G) + np.kron(G, K)), np.kron(K, K)
    P[m2, M], P[m2, m2] = -eta / 2 * e.J.reshape(d, d * d), K
    eps = start - e.center
    state, done, rows = np.concatenate([[1.0], eps, np.outer(eps, eps).ravel(), np.zeros(d)]), 0, []
    for t in at:
        state, done = np.linalg.matrix_power(P, t - done) @ state, t
        rows.append(state[m1] + state[m2])
    return np.array(rows)


def _places(d: int) -> tuple[slice, slice, slice]:
    """Where the mean and second moments of eps_1 and the mean of eps_2 stand; a constant 1 comes first."""
    return slice(1, 1 + d), slice(1 + d, 1 + d + d * d), slice(1 + d + d * d, 1 + 2 * d + d * d)


def pull(e: Expansion) -> tuple[Callable, tuple[float, ...]]:
    """``f(a, b, x, c)``, what both processes move by at eps_1 = a, eps_2 = b, and its coefficients c."""
    d, k = e.A.shape
    terms: list[tuple[int, float, str]] = []  # row, coefficient, monomial; the rows of eps_2 follow those of eps_1
    for i in range(d):
        terms.append((i, e.G[i], ""))
        terms += [(i, e.H[i, j], f"a{j}") for j in range(d)]
        terms += [(i, e.A[i, n], f"x{n}") for n in range(k)]
        terms += [(d + i, e.H[i, j], f"b{j}") for j in range(d)]
        terms += [(d + i, e.J[i, j, l] / (1 + (j == l)), f"a{j} * a{l}") for j in range(d) for l in range(j, d)]
        terms += [(d + i, e.B[i, n, j], f"x{n} * a{j}") for n in range(k) for j in range(d)]
    terms = [term for term in terms if term[1] != 0]
    f = _written(d, k, tuple((row, monomial, bool(value == 1)) for row, value, monomial in terms))
    return f, tuple(float(value) for _, value, _ in terms) or (0.0,)


@lru_cache(maxsize=64)
def _written(d: int, k: int, terms: tuple[tuple[int, str, bool], ...]) -> Callable:
    """The sum of the terms as a function without loops, written once for a pattern of coefficients 0, 1 and others."""
    rows = [["0.0 * a0"] for _ in range(2 * d)]
    for n, (row, monomial, one) in enumerate(terms):
        factors = [] if one and monomial else [f"c[{n}]"]
        rows[row].append(" * ".join([*factors, monomial] if monomial else factors))
    sums = [" + ".join(row[1:] or row) for row in rows]
    names = ["".join(f"{letter}{i}, " for i in range(n)) for letter, n in (("a", d), ("b", d), ("x", k))]
    source = "def pull(a, b, x, c):\n"
    source += "".join(f"    {left}= {letter}\n" for left, letter in zip(names, "abx", strict=True))
    source += f"    return ({', '.join(sums[:d])},), ({', '.join(sums[d:])},)\n"
    namespace: dict[str, Callable] = {}
    exec(source, namespace)
    return namespace["pull"]
