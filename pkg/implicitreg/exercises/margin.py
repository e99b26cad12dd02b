"""Exercises of the chapter on separable data."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.flow import maxmargin

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _signed(Z: np.ndarray) -> Arrays:
    """Rows that are already multiplied by their labels, as data."""
    return Z, np.ones(len(Z))


def _classifier(rng: np.random.Generator) -> Arrays:
    n, d = int(rng.integers(3, 9)), int(rng.integers(2, 6))
    return rng.normal(size=(n, d)), rng.choice([-1.0, 1.0], size=n), rng.normal(size=d)


def _independent(rng: np.random.Generator) -> Arrays:
    """Up to five rows of different lengths at all angles; about every other time all of them support."""
    n = int(rng.integers(2, 6))
    return (rng.normal(size=(n, n + 3)) * np.exp(rng.uniform(-0.7, 0.7, size=(n, 1))),)


def _interpolates(Z: np.ndarray) -> bool:
    return bool(np.abs(Z @ maxmargin.hard_margin(*_signed(Z)).w - 1).max() < 1e-9)


def _train_and_validation(rng: np.random.Generator) -> Arrays:
    d = int(rng.integers(4, 8))
    return rng.normal(size=(int(rng.integers(4, 9)), d)), rng.normal(size=(int(rng.integers(2, d)), d))


def _slope(V: np.ndarray, Z: np.ndarray) -> float:
    return float(np.maximum(0, -V @ maxmargin.hard_margin(*_signed(Z)).w).mean())


def _wait(margin: float, n: int, eps: float) -> float:
    log_n = np.log(n)
    return float(log_n / eps + np.log1p(-np.exp(-log_n / eps)) - log_n - 2 * np.log(margin))


EXERCISES = {
    "margin-distance": Exercise(
        reference=lambda X, y, w: maxmargin.margin(X, y, w),
        draw=_classifier,
        hint="the signed distance of the worst example from the hyperplane; it must not change when w is doubled.",
    ),
    "margin-interpolates": Exercise(
        reference=_interpolates,
        draw=_independent,
        trials=80,
        hint="write the interpolator as a combination of the rows; what must be true of its coefficients?",
    ),
    "margin-rate": Exercise(
        reference=lambda a: maxmargin.asymptotics(*_signed(np.diag(a))).margin_rate,
        draw=lambda rng: (rng.uniform(0.5, 2.0, size=int(rng.integers(2, 7))),),
        hint="the dual is 1/a_i²; divide it by its sum, and mind the min-entropy and the factor of the margin.",
    ),
    "margin-wait": Exercise(
        reference=_wait,
        draw=lambda rng: (float(rng.uniform(0.1, 1)), int(rng.integers(5, 50)), float(rng.uniform(0.1, 0.9))),
        hint="set log n / log(1 + n margin² t) equal to eps and solve for t; the answer is its logarithm.",
    ),
    "margin-slope": Exercise(
        reference=_slope,
        draw=_train_and_validation,
        hint="only validation points on the wrong side of w* count, each with |z . w*|; the mean is over all points.",
    ),
}
