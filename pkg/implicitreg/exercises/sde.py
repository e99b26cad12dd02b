"""Exercises of the chapter on SGD and SDEs."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.diagrams import corollaries
from implicitreg.exercises import Exercise
from numpy.polynomial import chebyshev, hermite_e

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _one_weight(rng: np.random.Generator) -> Arrays:
    return tuple(
        float(x) for x in (rng.uniform(0.3, 3), rng.uniform(0.3, 3), rng.choice([-1, 1]) * rng.uniform(0.5, 3))
    )


def _curvature(rng: np.random.Generator) -> Arrays:
    return (float(rng.uniform(0.3, 3)),)


def _size(rng: np.random.Generator) -> Arrays:
    return (int(rng.integers(6, 12)),)


def _step(rng: np.random.Generator) -> Arrays:
    return (float(rng.choice([0.2, 0.1, 0.07, 0.05, 0.035, 0.025])),)


def _dip(h: float) -> list[float]:
    H, corner = np.diag([1.0, h]), np.zeros((2, 2, 2))
    corner[0, 0, 0] = corner[1, 1, 1] = 1
    return [corollaries.skew_effect(H, corner, corner, 1.0, s) for s in (None, np.log(2))]


def _skew(v: np.ndarray, _: np.ndarray, k: int) -> float:
    """How far a batch with these weights is from the mean and covariance of one example and no third moment."""
    return float(np.abs([v.sum() - 1, v @ v - 1, (v**3).sum()]).max())


def _first(eta: float) -> int:
    """The first step with SGD above Gaussian steps in the bowl, from the bottom; functions as Chebyshev polynomials."""
    n, reach = 120, 7.5
    w = reach * np.cos(np.pi * (np.arange(n) + 0.5) / n)
    onto = np.linalg.inv(chebyshev.chebvander(w / reach, n - 1))
    rest = w - eta * (w + w**2 / (4 + w**2))
    x, q = hermite_e.hermegauss(8)
    laws = (((-1.0, 2 / 3), (2.0, 1 / 3)), tuple(zip(np.sqrt(2) * x, q / q.sum(), strict=True)))
    moves = [sum(c * chebyshev.chebvander((rest - eta * v) / reach, n - 1) for v, c in law) @ onto for law in laws]
    start = chebyshev.chebvander(np.zeros(1), n - 1) @ onto
    f = [w**2 / 2 + w - 2 * np.arctan(w / 2)] * 2
    for t in range(1, round(4 / eta)):
        f = [move @ g for move, g in zip(moves, f, strict=True)]
        if (start @ (f[0] - f[1]))[0] > 0:
            return t
    raise AssertionError("no turn")


EXERCISES = {
    "sde-mirror": Exercise(
        reference=lambda: 2 / 6,
        hint="how often is the picture counted in two steps, and which letter changes its sign when the pulls do?",
    ),
    "sde-balance": Exercise(
        reference=lambda h, C, S: 3 * C * h**2 / S,
        draw=_one_weight,
        hint="both gaps together at a minimum: in one dimension CHH is C h², and both are proportional to T.",
    ),
    "sde-dip": Exercise(
        reference=_dip,
        draw=_curvature,
        hint="two separate weights: the theorem's sum has two terms. What is q for each of them at these two times?",
    ),
    "sde-weights": Exercise(
        reference=np.ones,
        draw=_size,
        error=_skew,
        hint="print the three sums. Which of them is off, and can it be changed without moving the others?",
    ),
    "sde-first": Exercise(
        reference=_first,
        draw=_step,
        hint="the first T with a positive difference. Do you count from the start, T = 0, and is anything sampled?",
    ),
    "sde-coin": Exercise(
        reference=lambda: [3, 5],
        hint="arrows less dates give the power; for the count, draw all trees with four leaves where things only meet.",
    ),
}
