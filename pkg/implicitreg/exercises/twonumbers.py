"""Exercises of the chapter on least squares with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.noise import leastsquares

__all__ = ["EXERCISES"]

_COIN = ([[1.0], [1.0]], [1.0, -1.0], [0.5, 0.5])


def _both() -> list[float]:
    """Long after the start: 60 halvings and more."""
    end = leastsquares.run(leastsquares.LeastSquares(*_COIN), 0.5, 1, 0.5, 60, [0.0])
    return [end.moment[0, 0], end.last_excess]


def _numbers(weights: list[list[float]]) -> list[float]:
    """q and r of equally likely lists of weights."""
    return [float(np.mean([sum(v**2 for v in w) for w in weights])), float(np.mean([sum(w) ** 2 for w in weights]))]


def _problem(rng: np.random.Generator) -> tuple[Any, ...]:
    q, r = rng.uniform(0.1, 1.0), rng.uniform(1.0, 1.5)
    k = int(rng.integers(2, 6))
    x, p = rng.uniform(-2.0, 2.0, k), rng.dirichlet(np.ones(k))
    return x, p, rng.uniform(0.5, 2.0), q, r, rng.uniform(0.05, 0.2), rng.uniform(0.5, 2.0), int(rng.integers(1, 12))


def _second_moment(
    x: np.ndarray, p: np.ndarray, s2: float, q: float, r: float, eta: float, M: float, steps: int
) -> float:
    """By the package: every x with two labels."""
    label = np.sqrt(s2)
    law = leastsquares.LeastSquares(
        np.tile(x, 2)[:, None], np.repeat([label, -label], len(x)), np.tile(p / p.sum(), 2) / 2
    )
    return float(leastsquares.run(law, q, r, eta, steps, [np.sqrt(M)]).moment[0, 0])


def _noise(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    B = int(rng.integers(3, 9))
    shape, kind = (100_000, B), rng.integers(3)
    values = (rng.standard_normal(shape), rng.choice([-1.0, 1.0], shape), rng.exponential(size=shape) - 1)[kind]
    return values, int(rng.integers(1, B))


def _off(weights: np.ndarray, _: np.ndarray, noise: np.ndarray, b: int) -> float:
    """By how much the sums differ from 1; inf where the means are not 1/B, or the squares do not add up to 1/b in the
    mean, within five standard errors."""
    squares, root, B = (weights**2).sum(1), np.sqrt(len(weights)), noise.shape[1]
    near = lambda values, truth: np.abs(values.mean(0) - truth) < 5 * values.std(0) / root + 1e-9  # noqa: E731
    return float(np.abs(weights.sum(1) - 1).max()) if near(weights, 1 / B).all() and near(squares, 1 / b) else np.inf


EXERCISES = {
    "twonumbers-coin": Exercise(
        reference=_both,
        hint="one of the two numbers q and r is not that of the three ways in the text. Look at what the squares of "
        "the weights add up to, and at how the excess loss is made of the mean square.",
    ),
    "twonumbers-size": Exercise(
        reference=lambda: _numbers([[1.0], [1 / 3] * 3]) + _numbers([[0.5], [0.5] * 3]),
        hint="the mean of a square is not the square of a mean. Add up the weights of each of the two batches first, "
        "and their squares, then take means.",
    ),
    "twonumbers-step": Exercise(
        reference=lambda: 2 / 1.5,
        hint="the sum of the weights matters here, not their squares. Look at the factor in front of the old mean "
        "square, for a general step size.",
    ),
    "twonumbers-recursion": Exercise(
        reference=_second_moment,
        draw=_problem,
        hint="a factor of the eta² term is mistaken. Look at which moment of x belongs to one example, and which to "
        "two different ones.",
    ),
    "twonumbers-weights": Exercise(
        reference=lambda noise, b: np.empty(noise.shape),
        draw=_noise,
        error=_off,
        trials=6,
        hint="check the three conditions one by one: sums, means, mean of the squares. A number less the mean of its "
        "row has no longer the variance 1.",
    ),
    "twonumbers-fourth": Exercise(
        reference=lambda: [_fourth(kind) for kind in ("one", "mirrored", "free")],
        hint="the two coins agree in half of the cases, and then the weights act together. Treat the two cases apart, "
        "and mind the factor of the step.",
    ),
}


def _fourth(kind: str) -> float:
    """By Gauss-Hermite nodes, which are exact for these polynomials."""
    z, chance = np.polynomial.hermite_e.hermegauss(5)
    chance = chance / chance.sum()
    if kind == "one":
        weights = [(1.0, 0.0, 0.5), (0.0, 1.0, 0.5)]
    elif kind == "mirrored":
        weights = [(0.5 + u / 2, 0.5 - u / 2, c) for u, c in zip(z, chance, strict=True)]
    else:
        weights = [
            (0.5 + u / 2, 0.5 + v / 2, c * k)
            for u, c in zip(z, chance, strict=True)
            for v, k in zip(z, chance, strict=True)
        ]
    return float(sum(c * ((a + s * b) / 2) ** 4 / 2 for a, b, c in weights for s in (-1, 1)))
