"""What the three modules of drift share: checked arguments, derivatives of all examples, descents of many runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from implicitreg import _validate
from implicitreg._torch import torch
from implicitreg.exact import _step_matrix
from implicitreg.problems import FiniteProblem, _batched


def _grad_trace(
    problem: FiniteProblem, metric: np.ndarray, thetas: np.ndarray | None = None, law: np.ndarray | None = None
) -> np.ndarray:
    """The gradient of tr(M Cov g) at every row of thetas (P, d), for the law (m,) or one law a row (P, m)."""
    thetas = problem.theta0[None] if thetas is None else thetas
    p = torch.tensor(np.broadcast_to(problem.probabilities if law is None else law, (len(thetas), problem.m)))
    x = torch.tensor(thetas, requires_grad=True)
    with torch.enable_grad():
        c = _per_example(problem, x)
        c = c - (p[..., None] * c).sum(1, keepdim=True)
        trace = (p[..., None] * c * (c @ torch.tensor(metric))).sum() + 0 * x.sum()
    return torch.autograd.grad(trace, x)[0].numpy()


def _per_example(problem: FiniteProblem, x: torch.Tensor) -> torch.Tensor:
    """The gradients of all examples at every row of x, (P, m, d), that can be differentiated again."""
    totals = [_batched(loss, x).sum() + 0 * x.sum() for loss in problem.losses]  # a constant has a gradient, too
    return torch.stack([torch.autograd.grad(t, x, create_graph=True)[0] for t in totals], 1)


def _mix(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    return np.einsum("rm,rmd->rd", weights, gradients)


def _descend(
    metric: np.ndarray, gradient: Callable[[int, np.ndarray], np.ndarray], thetas: np.ndarray, T: int, beta: float
) -> Iterator[np.ndarray]:
    """The iterates 1 ... T of heavy ball from velocity zero, for many runs (P, d) at once."""
    velocity = np.zeros_like(thetas)
    for t in range(T):
        velocity = beta * velocity + gradient(t, thetas)
        thetas = thetas - velocity @ metric
        if not np.isfinite(thetas).all():
            size = np.abs(metric).max()
            raise ValueError(f"eta of {size:g}: the iterates overflow by step {t + 1}; expected a smaller step")
        yield thetas


def _problem(problem: Any) -> FiniteProblem:
    if not isinstance(problem, FiniteProblem):
        raise TypeError(f"problem = {problem!r}: expected a FiniteProblem")
    return problem


def _metric(problem: FiniteProblem, eta: Any) -> np.ndarray:
    return _step_matrix(eta, problem.d)


def _split(N: int, K: int) -> tuple[int, int]:
    N = _validate.integer("N", N, low=1)
    K = _validate.integer("K", K, low=1, high=N)
    if N % K:
        raise ValueError(f"K = {K}: expected a divisor of N = {N}")
    return N, K


def _momentum(momentum: float) -> float:
    return _validate.number("momentum", momentum, low=0, below=1)
