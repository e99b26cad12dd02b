"""Exercises of the chapter on one neuron."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg.exercises import Exercise
from implicitreg.flow import neuron
from scipy.integrate import quad
from scipy.optimize import brentq

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _positive(rng: np.random.Generator) -> Arrays:
    """Fewer rows than dimensions, the last the sum of the others in every other trial; labels that exp can give."""
    n = int(rng.integers(3, 6))
    d = n + int(rng.integers(1, 4))
    X = rng.normal(size=(n, d))
    if rng.random() < 0.5:
        X[-1] = X[:-1].sum(0)
    return X, np.exp(0.5 * X @ rng.normal(size=d)), rng.normal(size=d)


def _at_zero_loss(rng: np.random.Generator) -> Arrays:
    n = int(rng.integers(2, 6))
    return rng.normal(size=(n, n + int(rng.integers(1, 4)))), rng.uniform(0.05, 0.95, size=n)


def _hours(w: float) -> float:
    """The time from 0 to w on the slope dw/dt = ψ(1 − ψ)², by quadrature."""
    return quad(lambda s: (1 + np.exp(s)) ** 3 * np.exp(-s), 0, w, epsabs=0, epsrel=1e-12)[0]


def _critical(X: np.ndarray, y: np.ndarray) -> float:
    slope = neuron.sigmoid.derivative(neuron.sigmoid.inverse(y))
    return float(2 / np.linalg.eigvalsh((X * slope[:, None] ** 2).T @ X)[-1])


def _strongest() -> float:
    """The value for c → ∞: follow (1 − w2, u3) to the time when u3 is zero; w3 = 2 w2 − 1 there."""

    rates, V = np.linalg.eigh(np.array([[-1.0, -2.0], [-2.0, -5.0]]))

    def state(t: float) -> np.ndarray:
        return V @ (np.exp(rates * t) * (V.T @ np.ones(2)))

    T = brentq(lambda t: state(t)[1], 0, 2, xtol=1e-15)
    return float(1 - 2 * state(T)[0])


EXERCISES = {
    "neuron-exponential": Exercise(
        reference=lambda X, y, w0: neuron.limit(X, y, np.log, w0),
        draw=_positive,
        hint="which linear system do the zero-loss points solve, and which of them is nearest to w0?",
    ),
    "neuron-saturated": Exercise(
        reference=_hours,
        draw=lambda rng: (float(rng.uniform(0.2, 4)),),
        hint="dt = dw / (ψ (1 − ψ)²); write it with E = exp(w), and mind that the start is w = 0, where E = 1.",
    ),
    "neuron-critical": Exercise(
        reference=_critical,
        draw=_at_zero_loss,
        hint="the Hessian at zero loss weighs each example by its slope squared; for the sigmoid ψ' = ψ (1 − ψ).",
    ),
    "neuron-strongest": Exercise(
        reference=_strongest,
        draw=lambda rng: (),
        hint="for large c the first example is fitted at once: put w1 = 1 and follow 1 − w2 and u3 until u3 = 0.",
    ),
}
