"""Exercises of the chapter on tails and geometries."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.flow import geometry

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _far(rng: np.random.Generator) -> Arrays:
    return float(rng.uniform(1.5, 6)), float(rng.uniform(0.5, 6))


def _limit_ratio(a: float, k: float) -> float:
    u = geometry.polynomial_direction([[1.0, 0.0], [0.0, a]], [1, 1], k)
    return u[0] / u[1]


def _wish(rng: np.random.Generator) -> Arrays:
    return int(rng.integers(5, 5000)), float(rng.uniform(0.3, 0.95))


def _separated(rng: np.random.Generator) -> Arrays:
    n, d = int(rng.integers(3, 9)), int(rng.integers(2, 7))
    X, w = rng.normal(size=(n, d)), rng.normal(size=d)
    return X, np.sign(X @ w), w


def _pulled(rng: np.random.Generator) -> Arrays:
    w0 = float(rng.uniform(0.2, 2))
    return w0, float(rng.uniform(-2, 0.9)) / w0


EXERCISES = {
    "geometry-ratio": Exercise(
        reference=_limit_ratio,
        draw=_far,
        hint="minimize u1^-k + (a u2)^-k on the circle: set the two derivatives in proportion to u1 and u2.",
    ),
    "geometry-enough": Exercise(
        reference=lambda n, rho: np.log(n) / -np.log(rho),
        draw=_wish,
        hint="the corollary promises the share n^(-1/k); solve for k, which need not be a whole number.",
    ),
    "geometry-attack": Exercise(
        reference=lambda X, y, w: geometry.margin(X, y, w, p=1),
        draw=_separated,
        hint="changes of every coordinate are measured in l-infinity; the margin belongs to the dual of that norm.",
    ),
    "geometry-link": Exercise(
        reference=lambda w0, s: w0 / (1 - s * w0),
        draw=_pulled,
        hint="write the derivative of w in terms of w and (X'e)_j, and separate the variables.",
    ),
}
