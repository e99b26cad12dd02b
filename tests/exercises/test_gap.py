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
    "gap-hand": [  # the first order; upside down; one example for N; the skewness forgotten
        first_order,
        lambda h, p, theta, eta, N: -opened(h, p, theta, eta, N),
        lambda h, p, theta, eta, N: opened(h, p, theta, eta, 1) / N,
        lambda h, p, theta, eta, N: opened(h, p, theta, eta, N) + eta**2 * theta**2 * (p @ (h - p @ h) ** 3) / N**2 / 2,
    ],
    "gap-minibatch": [  # a fresh training set; the set alone; upside down; independent draws
        lambda trace, eta, n, N: eta * trace / n,
        lambda trace, eta, n, N: eta * trace / N,
        lambda trace, eta, n, N: eta * (1 / N - 1 / n) * trace,
        lambda trace, eta, n, N: eta * trace * (N - 1) / (n * N),
    ],
    "gap-signal": [  # noise and all; the divisor n; the mean of the squares; the noise not over n
        lambda rows: np.sum(rows.mean(axis=0) ** 2),
        lambda rows: np.sum(rows.mean(axis=0) ** 2) - rows.var(axis=0).sum() / len(rows),
        lambda rows: np.mean(np.sum(rows**2, axis=1)),
        lambda rows: np.sum(rows.mean(axis=0) ** 2) - rows.var(axis=0, ddof=1).sum(),
    ],
    "gap-location": [  # the slope of the first step for all; the last step alone; the end; a square
        lambda trace, eta, N, T: eta * T * trace / N,
        lambda trace, eta, N, T: eta * (1 - eta) ** (T - 1) * trace / N,
        lambda trace, eta, N, T: trace / N,
        lambda trace, eta, N, T: (1 - (1 - eta) ** T) ** 2 * trace / N,
    ],
}
