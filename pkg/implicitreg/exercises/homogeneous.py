"""Exercises of the chapter on homogeneous networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.flow import homogeneous as hom

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _network(rng: np.random.Generator) -> Arrays:
    """Parameters, output and gradient of a linear network of one to four layers, or of a diagonal one."""
    X = rng.normal(size=(1, 3))
    depth = int(rng.integers(1, 5))
    net = hom.DeepLinear(X, [1], [2] * (depth - 1)) if rng.random() < 0.7 else hom.Diagonal(X, [1], depth)
    theta = rng.normal(size=net.size)
    return theta, float(net.q(theta)[0]), net.pullback(theta, np.ones(1))


def _on_the_hyperbola(rng: np.random.Generator) -> Arrays:
    return (*rng.uniform(0.2, 2.0, size=2), float(np.exp(-rng.uniform(1, 9))))


def _share(a: float, b: float, loss: float) -> float:
    """Go to the point of the hyperbola through (a, b) whose product is log(1/loss), and measure there."""
    square = (a**2 - b**2) / 2 + np.hypot((a**2 - b**2) / 2, np.log(loss))
    w = np.array([np.sqrt(square), -np.log(loss) / np.sqrt(square)])
    return 2 * hom.normalized_margin(hom.DeepLinear([[1.0]], [1], [1]), w)


def _predictor(rng: np.random.Generator) -> Arrays:
    return rng.normal(size=int(rng.integers(2, 7))), int(rng.integers(1, 5))


def _excess(answer: np.ndarray, _: np.ndarray, w: np.ndarray, width: int) -> float:
    """How far the predictor is from w, and the squared norm from 2|w|, which is the least possible."""
    net = hom.DeepLinear(np.eye(w.size), np.ones(w.size), [width])
    size = np.linalg.norm(w)
    return float(max(np.linalg.norm(net.end_to_end(answer) - w) / size, abs(answer @ answer / (2 * size) - 1)))


def _race(rng: np.random.Generator) -> Arrays:
    """Wide enough that neither u nor z decides alone, for any depth."""
    d = int(rng.integers(2, 12))
    return np.exp(rng.uniform(-1.5, 1.5, size=d)), np.exp(rng.uniform(-3, 3, size=d)), int(rng.integers(2, 7))


def _first_to_blow_up(u: np.ndarray, z: np.ndarray, m: int) -> int:
    """For m = 2 the largest rate; else the least B at which u_j^(2-m) - m (m-2) z_j B vanishes."""
    return int(np.argmax(z)) if m == 2 else int(np.argmin(u ** (2.0 - m) / z))


EXERCISES = {
    "homogeneous-degree": Exercise(
        reference=lambda theta, q, g: np.dot(theta, g) / q,
        draw=_network,
        hint="Euler's identity relates the gradient, the parameters and the output.",
    ),
    "homogeneous-share": Exercise(
        reference=_share,
        draw=_on_the_hyperbola,
        hint="one example: the output is log(1/loss). Use what is conserved, and divide by the largest margin.",
    ),
    "homogeneous-balance": Exercise(
        reference=lambda w, width: np.zeros(width * (len(w) + 1)),
        draw=_predictor,
        error=_excess,
        hint="both layers of rank one, of the same norm, and aligned; which norm must they have?",
    ),
    "homogeneous-winner": Exercise(
        reference=_first_to_blow_up,
        draw=_race,
        trials=200,
        hint="find the time at which each coordinate would become infinite, if the others did not get there first.",
    ),
}
