"""Plain loops over steps, and all the choices of a sampler."""

import itertools

import numpy as np
from implicitreg import FiniteProblem


def data_set(problem, indices):
    """The chosen examples as a data set with equal weights."""
    n = len(indices)
    return FiniteProblem([problem.losses[i] for i in indices], np.full(n, 1 / n), problem.theta0)


def descend(problem, etas, batches, momentum=0.0):
    """A plain loop over steps, on example indices."""
    theta, velocity = problem.theta0.copy(), 0.0
    for eta, batch in zip(etas, batches, strict=True):
        velocity = momentum * velocity + problem.gradients(theta[None])[0, list(batch)].mean(axis=0)
        theta = theta - eta * velocity
    return theta


def weights_of(sampler, N, K, epochs):
    """All equally likely weights (R, T, N) of a sampler."""
    n = N // K
    unit = np.eye(N)
    shuffles = np.array([unit[list(o)].reshape(K, n, N).mean(axis=1) for o in itertools.permutations(range(N))])
    if sampler == "epochs":
        return np.array([np.concatenate(c) for c in itertools.product(shuffles, repeat=epochs)])
    choose = itertools.combinations if sampler == "subsets" else lambda r, n: itertools.product(r, repeat=n)
    steps = [unit[list(c)].mean(axis=0) for c in choose(range(N), n)]
    return np.array(list(itertools.product(steps, repeat=K * epochs)))
