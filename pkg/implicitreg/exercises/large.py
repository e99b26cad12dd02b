"""Exercises of the chapter on large batches."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.noise import sampling
from scipy import stats

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _scale() -> list[float]:
    s2 = sampling.compensation("cov", 5, 50)
    return [s2, stats.norm.cdf(0, loc=1 / 50, scale=np.sqrt(s2 * 49 / 50))]


def _effective() -> float:
    """Off the diagonal, the covariance of SGD is -1/(b n²)."""
    K = sampling.minibatch_covariance(1 / 1000, 7, 100, centred=True, replacement=True)
    return -1 / (7**2 * K[0, 1])


def _moments() -> list[float]:
    """Over all pairs; the coin by its values, the bell by Gauss-Hermite nodes."""
    nodes, chances = np.polynomial.hermite_e.hermegauss(5)
    laws = ((np.array([-0.5, 0.5]), np.full(2, 0.5)), (nodes / 2, chances / chances.sum()))
    pairs = list(combinations([4.0, 0.0, 0.0, 0.0], 2))
    noise = [[p @ ((0.5 + z) * a + (0.5 - z) * c - 1) ** k for z, p in laws for a, c in pairs] for k in (3, 4)]
    return np.mean(np.reshape(noise, (2, 2, 6)), -1).ravel().tolist()


def _sizes(rng: np.random.Generator) -> Arrays:
    b = int(rng.integers(2, 20))
    return b, b + int(rng.integers(1, 200))


def _places(rng: np.random.Generator) -> Arrays:
    n = int(rng.integers(3, 6))
    B = int(rng.integers(2, n))
    half = rng.normal(size=(B, B))
    return n, B, half @ half.T


def _total(n: int, B: int, Sigma: np.ndarray) -> np.ndarray:
    """By the formula: sums of the diagonal and of the rest are all that counts."""
    tau = np.trace(Sigma)
    omega = Sigma.sum() - tau
    I, J = np.eye(n), np.ones((n, n))
    return (n - B) / (B * n * (n - 1)) * (I - J / n) + tau / n * I + omega / (n * (n - 1)) * (J - I)


def _ghosts(rng: np.random.Generator) -> Arrays:
    m, blocks = int(rng.integers(2, 20)), int(rng.integers(2, 9))
    return int(rng.integers(1, m * blocks)), m * blocks, m


def _ghost(b: int, B: int, m: int) -> float:
    return B * np.sqrt(sampling.compensation("cov", b, B, ghost=m))


EXERCISES = {
    "large-scale": Exercise(
        reference=_scale,
        hint="to take off the average changes the variance of a weight. Which variance has one centred entry?",
    ),
    "large-effective": Exercise(
        reference=_effective,
        hint="drawing and shaking both make noise. Compute q and r, and compare with those of SGD.",
    ),
    "large-moments": Exercise(
        reference=_moments,
        hint="the noise depends on the pair and on z. Treat pairs with and without the first example one by one, and "
        "ask which powers of z have the mean zero.",
    ),
    "large-gamma": Exercise(
        reference=lambda b, B: (b - 1) / (B - b),
        draw=_sizes,
        hint="the weights sum to 1, so one of the two numbers is right already. Set the other one to that of SGD; mind "
        "the number of places.",
    ),
    "large-list": Exercise(
        reference=_total,
        draw=_places,
        hint="two sources of randomness, two terms. Test yours with Sigma = 0, then with a Sigma whose places differ.",
    ),
    "large-ghost": Exercise(
        reference=_ghost,
        draw=_ghosts,
        hint="the weights sum to 1 in this case, too; what changes is the variance of a centred entry. Mind the factor "
        "1/B in front of the noise.",
    ),
}
