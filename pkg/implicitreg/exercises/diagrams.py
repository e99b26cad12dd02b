"""Exercises of the chapter on diagrams."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from numpy.polynomial import Polynomial

__all__ = ["EXERCISES"]


def _run(rng: np.random.Generator) -> tuple[Any, ...]:
    T = int(rng.integers(1, 5))
    return rng.integers(-3, 4, size=T).astype(float), int(rng.integers(0, 2 * T + 1))


def _pictures(run: np.ndarray, arrows: int) -> list[float]:
    """Their number by counting pairs of sets of steps, and their sum by multiplying out."""
    T = len(run)
    one, pairs = comb(T, arrows), comb(2 * T, arrows) - 2 * comb(T, arrows)
    twins = comb(T, arrows // 2) if arrows % 2 == 0 else 0
    weight = Polynomial([1.0])
    for h in run:
        weight = weight * Polynomial([1.0, -h])
    loss = np.r_[(weight**2).coef, np.zeros(2 * T + 1)]
    return [one + (pairs + twins) / 2 if arrows else 1.0, loss[arrows]]


def _fresh(T: int) -> float:
    """The coefficient of eta² in the mean loss for curvatures 1 and 3, by enumeration of the number of steep steps."""
    runs = [Polynomial([1, -1]) ** (T - k) * Polynomial([1, -3]) ** k for k in range(T + 1)]
    return float(sum(comb(T, k) / 2**T * (run**2).coef[2] for k, run in enumerate(runs)))


def _order(slopes: list[tuple[float, float]]) -> float:
    """The coefficient of eta² of the weight after steps on losses with the slopes h θ + c, from 0."""
    theta, eta = Polynomial([0.0]), Polynomial([0.0, 1.0])
    for h, c in slopes:
        theta = theta - eta * (h * theta + c)
    return float(theta.coef[2])


EXERCISES = {
    "diagrams-three": Exercise(
        reference=lambda: _pictures(np.array([1.0, 3.0, 1.0]), 2),
        hint="both dots may have the same date, and one push may go through a later step.",
    ),
    "diagrams-times": Exercise(
        reference=lambda: [10 * 9.5, 5.0, _fresh(5)],
        hint="two grids have the value GᵀHG; look at their diagonals. For flat and steep GᵀHG = 8 and tr CH = 2.",
    ),
    "diagrams-order": Exercise(
        reference=lambda: [_order([(1, 2), (3, -2)]), _order([(3, -2), (1, 2)])],
        hint="the second step looks at the place where the first has left you.",
    ),
    "diagrams-pictures": Exercise(
        reference=_pictures,
        draw=_run,
        hint="a branch is a nonempty set of steps; the square takes at most two, and two equal ones cost 1/2. "
        "The empty picture counts, too.",
    ),
    "diagrams-reuse": Exercise(
        reference=lambda: 6 * (1.0**2 + 3.0**2) / 2,
        hint="with one example every grid is full as far as time allows, the fourth one, too.",
    ),
}
