"""Exercises of the chapter on least squares."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.flow import minnorm

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _any_rank(rng: np.random.Generator) -> Arrays:
    """Fewer rows than dimensions, the last the sum of the others in every other trial."""
    n = int(rng.integers(3, 6))
    d = n + int(rng.integers(1, 4))
    X = rng.normal(size=(n, d))
    if rng.random() < 0.5:
        X[-1] = X[:-1].sum(0)
    return X, X @ rng.normal(size=d), rng.normal(size=d)


def _wide(rng: np.random.Generator) -> Arrays:
    return rng.normal(size=(2, int(rng.integers(3, 7)))), rng.normal(size=2)


def _with_interpolator(rng: np.random.Generator) -> Arrays:
    n = int(rng.integers(2, 5))
    X, y = rng.normal(size=(n, n + int(rng.integers(1, 4)))), rng.normal(size=n)
    return X, y, minnorm.limit(X, y, rng.normal(size=X.shape[1]))


def _bend(w0: np.ndarray, _: np.ndarray, X: np.ndarray, y: np.ndarray) -> float:
    """The residual's second largest component along the left singular vectors, less the rounding of y, over the
    largest or the length of y, whichever is less: far from all solutions, both may be large. A solution is none."""
    b, size = np.sort(np.abs(np.linalg.svd(X)[0].T @ (y - X @ w0))), np.linalg.norm(y)
    return float(max(b[-2] - 1e-13 * size, 0) / min(b[-1], size)) if b[-1] > 1e-10 * size else np.inf


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
