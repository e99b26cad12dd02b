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


def _layer(rng: np.random.Generator) -> Arrays:
    """Inputs and output gradients; now and then so long that nobody has room for a gradient."""
    n, d, k = (2, 300_000, 300_000) if rng.random() < 0.2 else rng.integers(1, 6, size=3)
    return rng.normal(size=(n, d)), rng.normal(size=(n, k))


def _norms(a: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Of outer products, with the bias as one more input of 1."""
    a = np.column_stack([a, np.ones(len(a))])
    return np.einsum("ik,ik->i", delta, delta) * np.einsum("id,id->i", a, a)


def _short_or_long(rng: np.random.Generator) -> Arrays:
    """Gradients in rows, one more, and a ridge; now and then so long that nobody has room for a covariance matrix."""
    m, p = int(rng.integers(2, 7)), 300_000 if rng.random() < 0.15 else 12
    return rng.normal(size=(m, p)) + 1, rng.normal(size=p), float(rng.uniform(0.1, 2))


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
        draw=_layer,
        hint="the gradient in W is an outer product, and the layer has a bias too.",
    ),
    "networks-precondition": Exercise(
        reference=_precondition,
        draw=_short_or_long,
        hint="centre the rows first, mind 1/(m - 1), and look for an (m, m) system: the Woodbury identity.",
    ),
    "networks-unbiased": Exercise(
        reference=lambda rows: np.mean((rows @ rows.T)[~np.eye(len(rows), dtype=bool)]),
        draw=lambda rng: (rng.normal(size=rng.integers(2, 8, size=2)) + 0.3,),
        hint="what is the mean of g_i . g_j for two different examples, and for one and the same?",
    ),
}
