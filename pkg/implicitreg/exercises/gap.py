"""Exercises of the chapter on the gap formula."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _opened(h: np.ndarray, p: np.ndarray, theta: float, eta: float, N: int) -> float:
    """From the moments of h^D: the gap is f(theta (1 - eta h^D)) with f = (<h> - h^D) theta² / 2."""
    mean = p @ h
    second = p @ (h - mean) ** 2 / N
    third = p @ (h - mean) ** 3 / N**2
    return theta**2 * (eta * second - eta**2 / 2 * (2 * mean * second + third))


def _curvatures(rng: np.random.Generator) -> Arrays:
    p = rng.random(int(rng.integers(2, 6))) + 0.1
    eta, N = float(rng.uniform(0.05, 0.3)), int(rng.integers(2, 6))
    return rng.uniform(0.5, 4, p.size), p / p.sum(), float(rng.normal()), eta, N


def _minibatch(rng: np.random.Generator) -> Arrays:
    n = int(rng.integers(1, 5))
    return float(rng.uniform(1, 9)), float(rng.uniform(0.01, 0.3)), n, n * int(rng.integers(2, 6))


def _few_or_many(rng: np.random.Generator) -> Arrays:
    """Gradients in rows; now and then so many, or so long, that nobody has room for a square matrix."""
    n, p = [(int(rng.integers(2, 7)), 3), (1_000_000, 2), (2, 1_000_000)][rng.choice(3, p=[0.6, 0.2, 0.2])]
    return (rng.normal(size=(n, p)) + 0.3,)


def _different_pairs(rows: np.ndarray) -> float:
    total = rows.sum(axis=0)
    return (total @ total - (rows**2).sum()) / (len(rows) * (len(rows) - 1))


EXERCISES = {
    "gap-hand": Exercise(
        reference=_opened,
        draw=_curvatures,
        hint="the losses are quadratic, so the second-order formula is exact; do not forget kappa3, the third central "
        "moment of h.",
    ),
    "gap-minibatch": Exercise(
        reference=lambda trace, eta, n, N: eta * trace * (N - n) / (n * N),
        draw=_minibatch,
        hint="find c(A, B) twice, for the mini-batch with itself and for the training set that contains it.",
    ),
    "gap-signal": Exercise(
        reference=_different_pairs,
        draw=_few_or_many,
        hint="the squared norm of the mean is too large, by the trace of the sample covariance (1/(n − 1)) over n.",
    ),
    "gap-location": Exercise(
        reference=lambda trace, eta, N, T: trace / N * eta * sum((1 - eta) ** t for t in range(T)),
        draw=lambda rng: (
            float(rng.uniform(1, 9)), float(rng.uniform(0.1, 1.5)), int(rng.integers(2, 9)), int(rng.integers(1, 6))),
        hint="theta_T is a mix of the start and the sample mean; only the sample mean is correlated with the data.",
    ),
}  # fmt: skip
