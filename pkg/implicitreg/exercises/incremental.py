"""Exercises of the chapter on incremental learning."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.flow import incremental

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _data(rng: np.random.Generator) -> Arrays:
    """Columns of different lengths, so that the largest, the best correlated and the first weight differ."""
    n, d = rng.integers(2, 9, size=2)
    X = rng.normal(size=(n, d)) * rng.uniform(0.3, 3, size=d)
    return X, rng.normal(size=n)


def _column(rng: np.random.Generator) -> Arrays:
    return float(rng.uniform(0.5, 3)), float(rng.uniform(1e-4, 1e-1)), float(rng.uniform(0.3, 3))


def _gap(rng: np.random.Generator) -> Arrays:
    a = float(rng.uniform(0.1, 1))
    return a, a + float(rng.uniform(0.1, 1)), float(rng.uniform(1e-6, 1e-2))


def _step(rng: np.random.Generator) -> Arrays:
    X, y = _data(rng)
    w = rng.normal(size=X.shape[1])
    return X, y, w, 0.2 / np.abs((y - X @ w)[:, None] * X).max()


def _drift(X: np.ndarray, y: np.ndarray, w: np.ndarray, eta: float) -> np.ndarray:
    """The mean over the examples, one by one."""
    steps = [2 * eta * (y[i] - X[i] @ w) * X[i] for i in range(len(y))]
    return np.mean([np.log1p(s) + np.log1p(-s) for s in steps], axis=0)


EXERCISES = {
    "incremental-first": Exercise(
        reference=lambda X, y: int(np.argmax(np.abs(X.T @ y))),
        draw=_data,
        trials=200,
        hint="while all weights are tiny the residual is y: which 4 x·e is largest, for either sign? Lengths count.",
    ),
    "incremental-column": Exercise(
        reference=lambda target, alpha, s: incremental.activation_time(target, alpha) / s**2,
        draw=_column,
        hint="write down dw/dt once more with x = s and y = s w*: by which factor does time run faster?",
    ),
    "incremental-moment": Exercise(
        reference=lambda a, b, alpha: incremental.thresholding_time((a + b) / 2, alpha),
        draw=_gap,
        hint="set 1 - a/tau equal to b/tau - 1, solve for tau, and translate tau into a time.",
    ),
    "incremental-drift": Exercise(
        reference=_drift,
        draw=_step,
        hint="one step multiplies u v by 1 - s², s = 2 eta r_i x_i: take the logarithm, then the mean over i.",
    ),
}
