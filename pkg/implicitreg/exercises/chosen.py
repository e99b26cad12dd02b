"""Exercises of the chapter on training with chosen noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from implicitreg.exercises import Exercise, _relative_error
from scipy.stats import ttest_rel

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]
FOUR = np.array([[4.0, 0, 0, 0], [0, 1, -1, 0]])


class _OnlyWeighted:
    """The gradients of the examples in an index; raises, and remembers it, where one of them has no weight."""

    def __init__(self, G: np.ndarray, W: np.ndarray) -> None:
        self.G, self.none, self.misused = G, np.array(W == 0), False

    def __call__(self, index: Any) -> np.ndarray:
        if np.any(self.none[index]):
            self.misused = True
            raise IndexError(f"gradients({index}) asks for an example whose weight is zero")
        return self.G[index]


def _weighted(rng: np.random.Generator) -> Arrays:
    """Parameters, weights of which most are zero, gradients that can be had for the others only, a rate."""
    n, d = int(rng.integers(6, 12)), int(rng.integers(2, 6))
    G, W = rng.normal(size=(n, d)), np.zeros(n)
    used = rng.permutation(n)[: int(rng.integers(2, 5))]
    W[used] = rng.normal(0.3, 1, size=len(used))
    return rng.normal(size=d), W, _OnlyWeighted(G, W), float(rng.uniform(0.05, 0.5))


def _stepped(theta: np.ndarray, W: np.ndarray, gradients: Callable[[Any], np.ndarray], eta: float) -> np.ndarray:
    """One example after the other."""
    moved = np.array(theta, dtype=float)
    for i, weight in enumerate(W):
        if weight != 0:
            moved -= eta * weight * gradients([i])[0]
    return moved


def _asked_or_off(
    answer: np.ndarray, truth: np.ndarray, theta: np.ndarray, W: np.ndarray, gradients: _OnlyWeighted, eta: float
) -> float:
    """The relative error; inf where a forbidden gradient was asked for, even if the answer caught the refusal."""
    return np.inf if gradients.misused else _relative_error(answer, truth)


def _gradients(rng: np.random.Generator) -> Arrays:
    d, n = int(rng.integers(3, 8)), int(rng.integers(2, 7))
    return rng.normal(1, 1, size=(d, n)), int(rng.integers(1, 5)), rng.normal(size=d)


def _isotropic(G: np.ndarray, b: int, e: np.ndarray) -> np.ndarray:
    """The trace from the covariance matrix itself."""
    C = np.atleast_2d(np.cov(G, bias=True)) / b
    return np.sqrt(np.trace(C) / len(C)) * e


def _accuracies(rng: np.random.Generator) -> Arrays:
    splits = rng.normal(80, 3, size=int(rng.integers(4, 9)))
    return splits + rng.normal(size=splits.size), splits + rng.normal(1, 1, size=splits.size)


def _half_width(a: np.ndarray, c: np.ndarray) -> float:
    low, high = ttest_rel(a, c).confidence_interval(0.95)
    return (high - low) / 2


def _turned(phi: float) -> float:
    """By the matrices themselves."""
    Q = np.array([[np.cos(phi), np.sin(phi)], [-np.sin(phi), np.cos(phi)]])
    G = Q @ FOUR
    return float(np.trace(G @ G.T / 4 @ np.diag(np.diag(np.cov(G, bias=True)))))


EXERCISES = {
    "chosen-weaker": Exercise(
        reference=lambda: np.trace(np.cov(FOUR, bias=True)) / np.var(FOUR[1]),
        hint="is the size a mean square or a length, and which of the two directions is meant?",
    ),
    "chosen-step": Exercise(
        reference=_stepped,
        draw=_weighted,
        error=_asked_or_off,
        hint="who has a weight, and of which sign may it be? And is the sum of weighted gradients divided by anything?",
    ),
    "chosen-isotropic": Exercise(
        reference=_isotropic,
        draw=_gradients,
        hint="around which point is the gradients' spread taken, and is the size shared before or after the root?",
    ),
    "chosen-paired": Exercise(
        reference=_half_width,
        draw=_accuracies,
        hint="whose spread decides, that of the methods or that of their difference? And how few splits are there?",
    ),
    "chosen-turned": Exercise(
        reference=_turned,
        draw=lambda rng: (float(rng.uniform(0, 3)),),
        hint="both matrices turn; what is forgotten of C, and before or after the turn?",
    ),
}
