"""Exercises of the chapter on matrix factorization."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.flow import factorization as mf

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _two_entries(rng: np.random.Generator) -> Arrays:
    """Values of both signs, never small."""
    return tuple(float(v) for v in rng.uniform(0.5, 3, size=2) * rng.choice([-1, 1], size=2))


def _rectangle(rng: np.random.Generator) -> Arrays:
    return (rng.normal(size=(4, 3) if rng.random() < 0.5 else (2, 5)),)


def _certificate(a: float, b: float) -> np.ndarray:
    A = np.zeros((2, 4, 4))
    A[0, 0, 1] = A[0, 1, 0] = A[1, 2, 3] = A[1, 3, 2] = 0.5
    return mf.min_trace(A, [a, b]).dual


def _stacked(W: np.ndarray) -> np.ndarray:
    W1, W2 = mf.balanced_factors(W, 2)
    return np.vstack([W2, W1.T])


def _misfit(Z: np.ndarray, reference: np.ndarray, W: np.ndarray) -> float:
    """By how much Z misses W, or is larger than the least size: any rotation of the reference will do."""
    off = np.abs(Z[: len(W)] @ Z[len(W) :].T - W).max() / np.abs(W).max()
    return float(max(off, np.sum(Z**2) / np.sum(reference**2) - 1))


def _power_law(rng: np.random.Generator) -> Arrays:
    R, D, goal = rng.uniform([1.1, 0.05, 1e-4], [4, 0.5, 1e-2])
    return float(R), 10.0 ** -rng.integers(2, 9), float(D), float(goal)


def _needed(R: float, eps: float, D: float, goal: float) -> float:
    return eps * (goal / D) ** (1 / mf.completion_example(R).exponent)


EXERCISES = {
    "factorization-entry": Exercise(
        reference=lambda y, alpha: np.sqrt(y**2 + alpha**4),
        draw=lambda rng: (float(rng.uniform(0.3, 3)), float(rng.uniform(0.3, 1.5))),
        hint="the determinant never moves; what is it at the start, and what is z at the end?",
    ),
    "factorization-certificate": Exercise(
        reference=_certificate,
        draw=_two_entries,
        tolerance=1e-7,
        hint="bound X11 + X22 below by X12, with the sign of a; then read off the multiplier.",
    ),
    "factorization-split": Exercise(
        reference=_stacked,
        draw=_rectangle,
        error=_misfit,
        hint="take the singular value decomposition and give each factor the same share of every singular value.",
    ),
    "factorization-needed": Exercise(
        reference=_needed,
        draw=_power_law,
        hint="distances go like the power 1/(2 lambda) of the start: solve goal/D = (start/eps)^(1/(2 lambda)).",
    ),
}
