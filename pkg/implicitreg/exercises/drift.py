"""Exercises of the chapter on the drift and the modified loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.gap import training_sets

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _curvatures(rng: np.random.Generator) -> Arrays:
    K, kinds = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    h, p = rng.uniform(0.2, 3, size=kinds), rng.dirichlet(np.full(kinds, 5.0))
    return h, p, float(rng.normal()), float(rng.uniform(0.01, 0.2)), K * int(rng.integers(1, 5)), K


def _drift(h: np.ndarray, p: np.ndarray, theta: float, eta: float, N: int, K: int) -> float:
    """By the pairs of steps: each contributes eta²/(2N) times the derivative of the variance of the gradient."""
    pairs = training_sets.modified_coefficient(K) * 2 * K
    mean = p @ h
    return eta**2 * pairs / (2 * N) * 2 * theta * (p @ (h - mean) ** 2)


def _weights(rng: np.random.Generator) -> Arrays:
    return (rng.dirichlet(np.ones(int(rng.integers(2, 8))), size=int(rng.integers(2, 8))),)


def _pair_sum(W: np.ndarray) -> float:
    T, N = W.shape
    return sum(1 / N - W[j] @ W[k] for k in range(T) for j in range(k))


def _part_of_an_epoch(rng: np.random.Generator) -> Arrays:
    N = int(rng.integers(3, 20))
    return N, int(rng.integers(0, N + 1))


def _bridge(N: int, M: int) -> float:
    """Sum over pairs of steps of tr Cov(W_j, W_k): 1 - 1/N for one step, -1/N for two."""
    return M * (1 - 1 / N) - M * (M - 1) / N


EXERCISES = {
    "drift-curvatures": Exercise(
        reference=_drift,
        draw=_curvatures,
        hint="the gradient of example i is h_i theta: what is its variance, and the derivative of that in theta?",
    ),
    "drift-schedule": Exercise(
        reference=_pair_sum,
        draw=_weights,
        hint="every pair of steps j < k once; W @ W.T holds their overlaps.",
    ),
    "drift-momentum": Exercise(
        reference=lambda beta: training_sets.modified_coefficient(2, beta),
        draw=lambda rng: (float(rng.uniform(0, 0.99)),),
        hint="the one pair of steps has weight 1; the penalty acts with a_1 + a_2, where a_2 = 1 + beta.",
    ),
    "drift-bridge": Exercise(
        reference=_bridge,
        draw=_part_of_an_epoch,
        hint="after M steps the sum of the weights is 1 on M of the N examples: what is the variance of one entry?",
    ),
}
