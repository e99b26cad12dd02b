"""Exercises of the chapter on least squares."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.flow import minnorm

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _any_rank(rng: np.random.Generator) -> Arrays:
    """Three rows in five dimensions, the third the sum of the others in every other trial."""
    X = rng.normal(size=(3, 5))
    if rng.random() < 0.5:
        X[2] = X[0] + X[1]
    return X, X @ rng.normal(size=5), rng.normal(size=5)


def _wide(rng: np.random.Generator) -> Arrays:
    X = rng.normal(size=(2, 4))
    return X, rng.normal(size=2)


def _with_interpolator(rng: np.random.Generator) -> Arrays:
    X, y = _wide(rng)
    return X, y, minnorm.limit(X, y, rng.normal(size=4))


def _bend(w0: np.ndarray, _: np.ndarray, X: np.ndarray, y: np.ndarray) -> float:
    """The residual's second largest component along the left singular vectors, over the largest; a solution is none."""
    b = np.sort(np.abs(np.linalg.svd(X)[0].T @ (y - X @ w0)))
    return float(b[-2] / b[-1]) if b[-1] > 1e-6 * np.abs(y).max() else np.inf


def _astray(D: np.ndarray, _: np.ndarray, X: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """How far from w the descent from zero ends that D, symmetric and positive definite, preconditions."""
    skew = np.abs(D - D.T).max() / np.abs(D).max(initial=1e-300)
    if np.linalg.eigvalsh((D + D.T) / 2)[0] <= 0:
        return np.inf
    end = D @ X.T @ np.linalg.lstsq(X @ D @ X.T, y, rcond=None)[0]
    return float(max(skew, np.abs(end - w).max() / np.abs(w).max()))


EXERCISES = {
    "minnorm-start": Exercise(
        reference=minnorm.limit,
        draw=_any_rank,
        hint="the part of w0 that no example sees stays where it is; X⁺ is np.linalg.pinv(X).",
    ),
    "minnorm-straight": Exercise(
        reference=lambda X, y: np.zeros(X.shape[1]),
        draw=_wide,
        error=_bend,
        hint="U.T @ (y - X @ w0) must have exactly one entry that is not zero: leave a solution along one direction.",
    ),
    "minnorm-fastest": Exercise(
        reference=lambda X: len(X) * minnorm.step_sizes(X).best,
        draw=lambda rng: _any_rank(rng)[:1],
        hint="make the factors of the strongest and of the weakest direction equal; mind the mean, and the kernel.",
    ),
    "minnorm-penalty": Exercise(
        reference=lambda alpha, n: n * alpha,
        draw=lambda rng: (float(rng.uniform(0.1, 3)), int(rng.integers(2, 50))),
        hint="multiply one objective by a number so that the losses agree, and mind the two halves.",
    ),
    "minnorm-metric": Exercise(
        reference=lambda X, y, w: np.eye(len(w)),
        draw=_with_interpolator,
        error=_astray,
        hint="which vectors does D X.T reach? Find one of them that D can send to w while staying positive definite.",
    ),
}
