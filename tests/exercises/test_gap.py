"""Exercises on the gap formula: right answers are right, and the likely mistakes are not."""

import itertools

import numpy as np


def opened(h, p, theta, eta, N):
    """Over all training sets."""
    total = 0.0
    for D in itertools.product(range(len(h)), repeat=N):
        mean = h[list(D)].mean()
        total += p[list(D)].prod() * (p @ h - mean) / 2 * (theta * (1 - eta * mean)) ** 2
    return total


def signal(rows):
    mean = rows.mean(axis=0)
    return mean @ mean - ((rows - mean) ** 2).sum() / (len(rows) - 1) / len(rows)


def first_order(h, p, theta, eta, N):
    return eta * theta**2 * (p @ h**2 - (p @ h) ** 2) / N


RIGHT = {
    "gap-hand": opened,
    "gap-minibatch": lambda trace, eta, n, N: eta * (1 / n - 1 / N) * trace,
    "gap-signal": signal,
    "gap-location": lambda trace, eta, N, T: (1 - (1 - eta) ** T) * trace / N,
}
WRONG = {
    "gap-hand": first_order,
    "gap-minibatch": lambda trace, eta, n, N: eta * trace / n,
    "gap-signal": lambda rows: np.sum(rows.mean(axis=0) ** 2),
    "gap-location": lambda trace, eta, N, T: eta * T * trace / N if T > 1 else 0.0,
}
