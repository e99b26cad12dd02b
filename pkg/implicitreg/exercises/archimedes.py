"""Exercises of the chapter on Archimedes' screw."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise

__all__ = ["EXERCISES"]


def _screw(rng: np.random.Generator) -> tuple[Any, ...]:
    a, b = rng.uniform(0.5, 3, size=2)
    return float(rng.uniform(0.02, 0.2)), float(a), float(b), float(rng.uniform(-1.4, 1.4))


def _bowl(rng: np.random.Generator) -> tuple[Any, ...]:
    h, J, C = rng.uniform(0.5, 2, size=3)
    return float(rng.uniform(0.01, 0.2)), float(h), float(J), float(C)


EXERCISES = {
    "archimedes-two": Exercise(
        reference=lambda eta, a, b, phi: -(eta**3) * (a - b) * np.cos(phi) * np.sin(phi),
        draw=_screw,
        hint="where is a copy, in p and q, after its first step, and which slope along z does it meet there?",
    ),
    "archimedes-bowl": Exercise(
        reference=lambda eta, h, J, C: -eta * C * J / (4 * h**2),
        draw=_bowl,
        hint="the mean slope is h E[θ] + (J/2) E[θ²]; how large is E[θ²] once noise and pull balance?",
    ),
    "archimedes-speed": Exercise(
        reference=lambda: 0.05**2 * (1 - 0.05 / 24) / (6 - 4 * 0.05),
        tolerance=0.01,
        hint="per step, not divided by eta²; is your interval narrower than one percent, and is the start-up left out?",
    ),
}
