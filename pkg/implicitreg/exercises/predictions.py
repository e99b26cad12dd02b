"""Exercises of the chapter on predictions for networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.diagrams import predictions
from implicitreg.exercises import Exercise

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]
FLAT_AND_STEEP = predictions.Scalars(1, 4, 8, 10, 16, 0, 0, 20, 20, 0, 5, 10, 14)
"""Losses θ²/2 and 3θ²/2, equally likely, at 1."""


def _share(T: int) -> float:
    """From the coefficients with the noise and without it."""
    s = FLAT_AND_STEEP
    still = predictions.Scalars(*(s.values * 0 + [1, 4, 8, 8, 16, 0, 0, 16, 16, 0, 4, 8, 8]))
    with_ties, without = (predictions.test_loss_coefficients(k, N=T, T=T).values[2] for k in (s, still))
    return (with_ties - without) / with_ties


def _chain(xs: np.ndarray, theta: np.ndarray) -> float:
    """Row by row."""
    p = 1 / (1 + np.exp(xs @ theta))
    return float(np.mean([np.mean(p * (1 - p) * (xs @ (q * x)) ** 2) for q, x in zip(p, xs, strict=True)]))


def _rows(rng: np.random.Generator) -> Arrays:
    n, p = int(rng.integers(2, 7)), 300_000
    return rng.normal(size=(n, p)) / 100, rng.normal(size=p) / 100


EXERCISES = {
    "predictions-slope": Exercise(
        reference=lambda r: np.array([r**2, r**3, r**4, r**2]),
        draw=lambda rng: (float(rng.uniform(1.5, 5)),),
        hint="which power of eta is the first one that the prediction does not have right?",
    ),
    "predictions-share": Exercise(
        reference=_share,
        draw=lambda rng: (int(rng.integers(2, 40)),),
        hint="a tie adds tr CH to what the untied picture has already; how often does it occur, and in which whole?",
    ),
    "predictions-runs": Exercise(
        reference=lambda k: 4000 * k**2,
        draw=lambda rng: (float(rng.uniform(2, 50)),),
        hint="how does the width of an interval depend on the number of runs?",
    ),
    "predictions-chain": Exercise(
        reference=_chain,
        draw=_rows,
        trials=5,
        hint="average last; and H is a mean, too, over examples that need not be the one that pushes.",
    ),
    "predictions-bias": Exercise(
        reference=lambda b: 8 + 3 * 2 / b,
        draw=lambda rng: (int(rng.integers(1, 20)),),
        hint="here it is the mean of the cube of a mean: which of its three factors can hold the same example?",
    ),
}
