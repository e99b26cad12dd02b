"""Exercises of the chapter on sampling noise."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.noise import sampling
from scipy import stats

FOUR = np.array([[4.0, 0, 0, 0], [0, 1, -1, 0]])


def _across(kind: str, b: int) -> float:
    return float(sampling.gradient_covariance(kind, FOUR, b)[1, 1])


def _bell(rng: np.random.Generator) -> tuple[Any, ...]:
    """No noise in the first row, and then one unit of it at each example: what the answer does to any noise."""
    n = int(rng.integers(3, 9))
    return np.vstack([np.zeros(n), np.eye(n)]), int(rng.integers(2, n + 1))


def _weights(eps: np.ndarray, b: int) -> np.ndarray:
    """Centred noise through the root of the exact covariance, found by its eigenvectors."""
    n = eps.shape[1]
    values, vectors = np.linalg.eigh(sampling.covariance("sgd_without_replacement", n, b))
    return 1 / n + eps @ (vectors * np.sqrt(values.clip(0))) @ vectors.T


def _many(rng: np.random.Generator) -> tuple[Any, ...]:
    d, n = int(rng.integers(1, 4)), 1_000_000
    return rng.standard_normal((d, n)) + 0.02, float(rng.uniform(1, 2) / n), float(rng.uniform(0.1, 0.5) / n)


def _noise(G: np.ndarray, kappa: float, c: float) -> np.ndarray:
    """The disagreement and the sum, as in the theorem."""
    n, g = G.shape[1], G.mean(1)
    centred = G - g[:, None]
    return (kappa - c) * centred @ centred.T + n * (kappa + (n - 1) * c) * np.outer(g, g)


def _nobody() -> list[float]:
    """All sixteen ways to say yes or no; given two, all pairs."""
    yes = np.array([[k >> i & 1 for i in range(4)] for k in range(16)])
    steps = [FOUR[0, list(pair)].mean() for pair in combinations(range(4), 2)]
    return [float(np.mean(yes.sum(1) == 0)), float(np.mean(yes.sum(1) == 2)), float(np.var(steps))]


def _gradients(rng: np.random.Generator) -> tuple[Any, ...]:
    return (rng.standard_normal((3, int(rng.integers(2, 7)))) * rng.uniform(0.2, 3.0),)


def _same_bell(answer: np.ndarray, truth: np.ndarray, *_: Any) -> bool:
    """Any root of the covariance will do: compare the weights without noise, their sums, and the covariance."""
    K = lambda W: (W[1:] - W[0]).T @ (W[1:] - W[0])  # noqa: E731
    pairs = [(answer[0], truth[0]), (answer.sum(1), truth.sum(1)), (K(answer), K(truth))]
    return bool(np.isfinite(answer).all() and all(np.abs(a - t).max() <= 1e-8 for a, t in pairs))


def _share(answer: np.ndarray, truth: np.ndarray, *_: Any) -> bool:
    return bool(np.isfinite(answer).all() and abs(answer - truth) <= 1e-3)


EXERCISES = {
    "sampling-three": Exercise(
        reference=lambda: [_across("sgd", 3), _across("sgd_without_replacement", 3)],
        hint="what does one draw have, and what remains of it in the mean of three? For different examples there is "
        "a factor more; it is 1 at b = 1 and 0 at b = n.",
    ),
    "sampling-negative": Exercise(
        reference=lambda: float(stats.norm.cdf(-np.sqrt(10 / 299))),
        judge=_share,
        hint="compare the mean of one weight with its own standard deviation. It is one weight that is asked for, not "
        "the sum of all.",
    ),
    "sampling-bell": Exercise(
        reference=_weights,
        draw=_bell,
        judge=_same_bell,
        hint="do the weights sum to 1, and is each 1/n in the mean? Then look at the factor between the two schemes: "
        "is it one for variances or for weights?",
    ),
    "sampling-many": Exercise(
        reference=_noise,
        draw=_many,
        hint="which part of the matrix is a multiple of I, and is it kappa alone? Then what does the vector of ones do "
        "to G: a sum or a mean?",
    ),
    "sampling-nobody": Exercise(
        reference=_nobody,
        hint="the coins are four and independent: count their sixteen outcomes. Then ask which batches are left when "
        "the number of those that say yes is known.",
    ),
    "sampling-chances": Exercise(
        reference=lambda G: np.linalg.norm(G, axis=0) / np.linalg.norm(G, axis=0).sum(),
        draw=_gradients,
        hint="chances sum to 1, and the weight of a rare example is large. Write down the mean square of the step, and "
        "find the chances for which it is least.",
    ),
}
