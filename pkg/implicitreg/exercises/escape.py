"""Exercises of the chapter on where the class of the noise matters."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.ensembles import particles
from implicitreg.exercises import Exercise
from implicitreg.noise import escape

__all__ = ["EXERCISES"]

WELL = [0.0, -1.0, 0.0, 1.0]
"""The slope x³ − x of the double well."""


def _price(values: np.ndarray, chances: np.ndarray) -> float:
    """The exponent of a climb of one unit on a constant slope, exponentiated."""
    mean = chances @ values
    return float(np.exp(escape.exponent([-mean], particles.atoms(mean - values, chances), 0.0, 1.0, 1.0)))


def _law(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Steps with a negative mean and at least one upward."""
    m = int(rng.integers(2, 6))
    values, chances = rng.normal(size=m), rng.dirichlet(np.full(m, 3.0))
    values -= chances @ values + rng.uniform(0.02, 0.4) * values.std()
    if values.max() <= 0.1:
        values[np.argmax(values)] += 0.2 - values.max()
        values -= max(0.0, chances @ values + 0.05)
    return values, chances


def _pushes(rng: np.random.Generator) -> tuple[Any, ...]:
    """Pushes of mean 0 and variance about 1, strong enough for the double well."""
    skew = rng.uniform(-2.0, 2.0)
    p = (1 - skew / np.sqrt(4 + skew**2)) / 2
    values = np.array([np.sqrt((1 - p) / p), 0.0, -np.sqrt(p / (1 - p))])
    chances = np.array([0.7 * p, 0.3, 0.7 * (1 - p)])
    return values, chances, float(rng.uniform(0.05, 0.5)), int(rng.integers(2, 9))


def _exponent(values: np.ndarray, chances: np.ndarray, eta: float, b: int) -> float:
    return escape.exponent(WELL, particles.atoms(-values, chances), -1.0, 0.0, eta / b)


def _rungs(h: int) -> float:
    """The chance of h rungs for the urn +2, 0, 0, 0, −1 (five times), from its linear equations."""
    depth = 400
    size = h + depth
    move, above = np.zeros((size, size)), np.zeros(size)
    for step, chance in ((2, 1 / 9), (0, 3 / 9), (-1, 5 / 9)):
        for i in range(size):
            if i + step >= size:
                above[i] += chance
            elif i + step >= 0:
                move[i, i + step] += chance
    return float(np.linalg.solve(np.eye(size) - move, above)[depth])


EXERCISES = {
    "escape-root": Exercise(
        reference=lambda: _price(np.array([2.0, -1.0]), np.array([0.25, 0.75])),
        tolerance=2e-3,
        hint="First: a price is above 1, and mean and variance do not suffice. Then: write down when the mean of "
        "rho to the power of the ball is 1, and divide by (rho - 1).",
    ),
    "escape-scale": Exercise(
        reference=lambda: 2 / 8,
        hint="First: nothing has to be solved for s(x). Then: look in which combination b and eta stand before the "
        "integral.",
    ),
    "escape-third": Exercise(
        reference=lambda: _rungs(3),
        tolerance=2e-3,
        hint="First: a walk need not stop at every rung on its way up, so that chances do not multiply. Then: write "
        "the chance with h rungs to go by what the first ball can be; with no rung to go, or fewer, it is 1.",
    ),
    "escape-law": Exercise(
        reference=_price,
        draw=_law,
        tolerance=1e-6,
        hint="First: is it the root above 1, and rho rather than its logarithm? Then: the whole law enters, not only "
        "mean and variance; bracket the root away from 1.",
    ),
    "escape-exponent": Exercise(
        reference=_exponent,
        draw=_pushes,
        tolerance=2e-3,
        trials=8,
        hint="First: compare with 2 b times the height of the barrier over eta and the variance; you should be near it "
        "and not on it. Then: the sign of the pushes, and how b and eta enter.",
    ),
}
