"""Exercises of the chapter on gradient descent that imitates SGD."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _schedules(rng: np.random.Generator) -> Arrays:
    """Weights of runs that each draw single examples with replacement, with random weights on top."""
    weights = rng.dirichlet(np.ones(int(rng.integers(2, 7))), size=(int(rng.integers(2, 30)), int(rng.integers(2, 6))))
    return (weights,)


def _curvatures(rng: np.random.Generator) -> Arrays:
    k = int(rng.integers(3, 6))
    return rng.uniform(0.5, 3, size=k), rng.dirichlet(np.ones(k)), float(rng.normal()), int(rng.integers(2, 7))


def _regression(rng: np.random.Generator) -> Arrays:
    N, d = int(rng.integers(2, 6)), int(rng.integers(2, 5))
    return rng.normal(size=(N, d)), rng.normal(size=N), rng.normal(size=d), float(rng.uniform(0.05, 0.3))


def _gdc(X: np.ndarray, y: np.ndarray, w: np.ndarray, eta: float) -> np.ndarray:
    """The loss and its penalty are quadratic in w: a step with the matrix of the penalty written out."""
    N = len(y)
    for _ in range(N):
        G = (X @ w - y)[:, None] * X
        H = np.einsum("ni,nj->nij", X, X)
        penalty = np.einsum("nij,nj->i", H - H.mean(0), G - G.mean(0)) / N
        w = w - eta * (G.mean(0) + eta / 2 * penalty)
    return w


def _meeting_point(a: float, b: float) -> float:
    """The first eta at which the two distances agree again."""
    difference = np.polynomial.Polynomial([1, -a]) * np.polynomial.Polynomial([1, -b])
    mean = np.polynomial.Polynomial([1, -(a + b) / 2])
    return float(np.min((difference + mean**2).roots().real))


EXERCISES = {
    "imitating-nearer": Exercise(
        reference=_meeting_point,
        draw=lambda rng: tuple(np.sort(rng.uniform(0.5, 4, size=2))),
        hint="nearer is a matter of distances: which of the two ends changes its sign first?",
    ),
    "imitating-off": Exercise(
        reference=lambda T: sum(0.25 for s in range(T) for t in range(T) if abs(s - t) == 1),
        draw=lambda rng: (int(rng.integers(1, 12)),),
        hint="what is the overlap of two steps that share one of two examples, and which steps are these?",
    ),
    "imitating-overlap": Exercise(
        reference=lambda W: np.mean([w @ w.T for w in W], axis=0),
        draw=_schedules,
        hint="the mean over the runs of a product, which is not the product of means.",
    ),
    "imitating-rare": Exercise(
        reference=lambda h, p, theta, N: -(N - 1) / (2 * N) * np.sum(p * (h - np.sum(p * h)) ** 3) * theta**2,
        draw=_curvatures,
        hint="which of the two sums differs between the schedules, and what is taken off before the third power?",
    ),
    "imitating-gdc": Exercise(
        reference=_gdc,
        draw=_regression,
        hint="N steps; the gradient of |g_n − mean|² has the Hessian of the example in it, and the penalty one eta.",
    ),
}
