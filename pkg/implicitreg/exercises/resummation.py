"""Exercises of the chapter on resummation."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _bowl(rng: np.random.Generator) -> Arrays:
    h = float(rng.uniform(0.3, 2))
    return float(rng.uniform(0.2, 1.8)) / h, h, float(rng.uniform(0.5, 3))


def _matrix(rng: np.random.Generator) -> Arrays:
    """Five directions: one flat, two very soft, upwards and downwards, whose powers of K are still under way at T."""
    U = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    T = int(10 ** rng.uniform(6, 7))
    h = np.array([0.0, 7 / T, -5 / T, rng.uniform(0.3, 1), rng.uniform(1, 2)])
    root = rng.normal(size=(5, 5)) / 2
    return T, float(rng.uniform(0.05, 0.15)), (U * h) @ U.T, U[:, 3:] @ rng.normal(size=2), root @ root.T


def _three(T: int, eta: float, H: np.ndarray, G: np.ndarray, C: np.ndarray) -> float:
    h, U = np.linalg.eigh(H)
    U, h = U[:, abs(h) > 1e-9], h[abs(h) > 1e-9]
    g, c, K = U.T @ G, np.diag(U.T @ C @ U), 1 - eta * h
    pushed = g * (1 - K**T) / h
    return float(-g @ pushed + h @ pushed**2 / 2 + eta**2 / 2 * np.sum(c * h * (1 - K ** (2 * T)) / (1 - K**2)))


EXERCISES = {
    "resummation-ways": Exercise(
        reference=lambda: 2**7,
        hint="which steps does the arrow pass? Each of them has a bystander or has none.",
    ),
    "resummation-floor": Exercise(
        reference=lambda eta, h, C: eta * C / (2 * (2 - eta * h)),
        draw=_bowl,
        hint="one picture; a geometric series, not an integral.",
    ),
    "resummation-left": Exercise(
        reference=lambda: [5, 1],
        hint="which dots stand for G? And what does a tied dot with an arrow in stand for?",
    ),
    "resummation-moments": Exercise(
        reference=lambda: -56,
        hint="two free pushes have two dates only, and one of the two passes a step.",
    ),
    "resummation-next": Exercise(
        reference=lambda: 8,
        hint="how many tied dots, in how many groups? Then draw the trees whose free dots have two arrows in.",
    ),
    "resummation-three": Exercise(
        reference=_three,
        draw=_matrix,
        hint="which fractions have 0 below the bar, and what are they multiplied by?",
    ),
}
