"""Exercises of the chapter on overfitting from a test minimum."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.diagrams.corollaries import overfitting, worst_curvature
from implicitreg.exercises import Exercise
from scipy.optimize import brentq

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _valley(rng: np.random.Generator) -> Arrays:
    return *(float(v) for v in rng.uniform(0.2, 3, 3)), int(rng.integers(2, 40))


def _two(h: float, t: float, C: float, N: int) -> list[float]:
    reach = -np.expm1(-h * t) / h
    return [h * reach**2 * C / (2 * N), reach * C / N]


def _race() -> list[float]:
    valleys = np.array([0.1, 1.0, 10.0])
    both = np.array([[_two(h, t, 1.0, 1) for h in valleys] for t in (0.1, 1.0, 100.0)])
    return [float(valleys[k]) for k in both.argmax(1).T.ravel()]


def _power(rng: np.random.Generator) -> Arrays:
    return (float(rng.uniform(-0.9, 0.9)),)


def _gradients(rng: np.random.Generator) -> Arrays:
    n, d = int(rng.integers(4, 9)), int(rng.integers(2, 5))
    g = rng.normal(size=(n, d))
    half = rng.normal(size=(d - 1, d))  # a flat direction
    H, eta = half.T @ half, float(rng.uniform(0.1, 0.6))
    return g - g.mean(0), H / np.linalg.eigvalsh(H).max(), eta, int(rng.integers(2, 12)), int(rng.integers(2, 40))


def _traces(g: np.ndarray, H: np.ndarray, eta: float, T: int, N: int) -> list[float]:
    result = overfitting(g.T @ g / len(g), H, eta, T, N)
    return [result.overfit, result.gap]


def _schedule(rng: np.random.Generator) -> Arrays:
    B, n = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    return float(rng.uniform(0.05, 1)), B * n, B, int(rng.integers(1, 4))


def _epochs(y: float, N: int, B: int, E: int) -> float:
    n = N // B
    powers = (1 - y) ** np.arange(n * E)
    epoch = (powers[:n] ** 2).sum() / B - powers[:n].sum() ** 2 / N
    return y / 2 * (powers.sum() ** 2 / N + epoch * (powers[::n] ** 2).sum())


EXERCISES = {
    "overfitting-two": Exercise(
        reference=_two,
        draw=_valley,
        hint="the gap is reach × C/N, the rise ½ × curvature × reach² × C/N; for small steps Kᵀ is e^(−ht).",
    ),
    "overfitting-race": Exercise(
        reference=_race,
        hint="the rise peaks at h = 1.26/t; the gap has no peak. Six curvatures, the rises first.",
    ),
    "overfitting-two-steps": Exercise(
        reference=lambda: worst_curvature(2, 1.0),
        hint="after two steps the reach is η + η(1 − ηh). The small-step value is not meant.",
    ),
    "overfitting-power": Exercise(
        reference=lambda p: brentq(lambda z: np.expm1(z) / z - 2 / (1 - p), 1e-12, 80, xtol=1e-14),
        draw=_power,
        hint="differentiate the logarithm of zᵖ⁻¹ (1 − e⁻ᶻ)² and set it to zero; p = 0 must give 1.2564.",
    ),
    "overfitting-traces": Exercise(
        reference=_traces,
        draw=_gradients,
        hint="C is the mean of g gᵀ over the n examples; N is another number. The powers of I − ηH, not exponentials.",
    ),
    "overfitting-stop": Exercise(
        reference=lambda h, D, C, N: np.log1p(N * h**2 * D**2 / C) / h,
        draw=_valley,
        hint="the mean of the square: what is left of D, squared, plus the variance of what the pull has done.",
    ),
    "overfitting-epochs": Exercise(
        reference=_epochs,
        draw=_schedule,
        hint="for B = N it must be y/2 (1 + K + …)²/N, for E = 1 the sum of y K^(2s) / (2B) over the epoch.",
    ),
}
