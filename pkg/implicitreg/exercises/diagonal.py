"""Exercises of the chapter on diagonal networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.flow import diagonal

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _toy(rng: np.random.Generator) -> Arrays:
    return float(rng.uniform(0.5, 3)), float(10 ** rng.uniform(-2, 1))


def _weights(rng: np.random.Generator) -> Arrays:
    return rng.normal(size=int(rng.integers(2, 7))), float(10 ** rng.uniform(-2, 0))


def _race(rng: np.random.Generator) -> Arrays:
    """Entries of similar or of very different size: no fixed preference suits both."""
    d, reach = int(rng.integers(3, 7)), 150 if rng.random() < 0.7 else 5
    return 10 ** rng.uniform(-reach, reach, size=d), int(rng.integers(d))


def _problem(rng: np.random.Generator) -> Arrays:
    n = int(rng.integers(1, 4))
    return rng.normal(size=(n, n + int(rng.integers(1, 4)))), rng.normal(size=n), float(10 ** rng.uniform(-1.5, 0))


def _lost(c: np.ndarray, _: np.ndarray, x: np.ndarray, i: int) -> float:
    """0 if coordinate i grows first: 1/u_j = 1/(alpha c_j) - 3 x_j ∫ e dt, so the largest c_j x_j wins.

    Entries of c whose ratio is 100 orders of magnitude above that of the entries of x are no answer to this x.
    """
    if not (c > 0).all():
        return np.inf
    speed, reach = c * x, [np.ptp(np.log10(v)) for v in (c, x)]
    return 0.0 if speed[i] > (1 + 1e-9) * np.delete(speed, i).max() and reach[0] < reach[1] + 100 else np.inf


EXERCISES = {
    "diagonal-toy": Exercise(
        reference=lambda y, alpha: diagonal.limit([[1.0, 2.0]], [y], alpha, signed=False).w,
        draw=_toy,
        hint="log w2 moves twice as fast as log w1: one unknown q, one quadratic equation.",
    ),
    "diagonal-gradient": Exercise(
        reference=lambda w, alpha: diagonal.potential_gradient(w, alpha),
        draw=_weights,
        hint="it is ζ, where w = 2 alpha² sinh(ζ).",
    ),
    "diagonal-end": Exercise(
        reference=lambda X, y, alpha: diagonal.limit(X, y, alpha).w,
        draw=_problem,
        hint="is X @ w = y, and is arcsinh(w / (2 alpha²)) a combination of the rows of X?",
    ),
    "diagonal-winner": Exercise(
        reference=lambda x, i: np.ones(len(x)),
        draw=_race,
        error=_lost,
        trials=40,
        hint="the limit has the least sum of w_j / c_j with x·w = y: which coordinate is then the cheapest?",
    ),
}
