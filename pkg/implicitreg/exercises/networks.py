"""Exercises of the chapter on Gaussian inputs, preconditioning, and real networks."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg._torch import torch
from implicitreg.exercises import Exercise
from implicitreg.gap.gaussian import GaussianLinear
from implicitreg.gap.precondition import low_rank

__all__ = ["EXERCISES"]

Arrays = tuple[Any, ...]


def _decay(eta: float, n: int, N: int, d: int, s: float) -> float:
    law = GaussianLinear(s**2 * np.eye(d), np.zeros(d), 1.0)
    return law.weight_decay(eta, N=N, K=N // n)


def _epoch(rng: np.random.Generator) -> Arrays:
    """A step size, a batch size that divides the number of examples, a dimension and a scale."""
    n = int(rng.integers(1, 6))
    return float(rng.uniform(0.01, 0.2)), n, n * int(rng.integers(2, 9)), int(rng.integers(1, 6)), rng.uniform(0.5, 2)


def _norms(a: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """By forming every gradient."""
    rows = delta[:, :, None] * a[:, None, :]
    return (rows**2).sum((1, 2)) + (delta**2).sum(1)


def _precondition(J: np.ndarray, g: np.ndarray, lam: float) -> np.ndarray:
    return low_rank(torch.from_numpy(J), rank=len(J), lam=lam).apply(torch.from_numpy(g)).numpy()


EXERCISES = {
    "networks-decay": Exercise(
        reference=_decay,
        draw=_epoch,
        hint="the penalty is kappa tr Sigma with kappa = eta/4 (1/n - 1/N); lambda/2 is the weight of |theta|² in it.",
    ),
    "networks-ghost": Exercise(
        reference=_norms,
        draw=lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(4, 2))),
        hint="the gradient in W is an outer product, and the layer has a bias too.",
    ),
    "networks-precondition": Exercise(
        reference=_precondition,
        draw=lambda rng: (rng.normal(size=(5, 12)) + 1, rng.normal(size=12), float(rng.uniform(0.1, 2))),
        hint="centre the rows first, mind 1/(m - 1), and look for an (m, m) system: the Woodbury identity.",
    ),
    "networks-unbiased": Exercise(
        reference=lambda rows: np.mean((rows @ rows.T)[~np.eye(len(rows), dtype=bool)]),
        draw=lambda rng: (rng.normal(size=(5, 3)) + 0.3,),
        hint="what is the mean of g_i . g_j for two different examples, and for one and the same?",
    ),
}
