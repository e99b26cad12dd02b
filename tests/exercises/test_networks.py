"""Exercises on real networks: right answers are right, and the likely mistakes are not."""

import numpy as np


def slow(J, g, lam):
    J = J - J.mean(axis=0)
    K = J @ J.T + (len(J) - 1) * lam * np.eye(len(J))
    return g - J.T @ np.linalg.solve(K, J @ g)


def slow_uncentred(J, g, lam):
    return g - J.T @ np.linalg.solve(J @ J.T + (len(J) - 1) * lam * np.eye(len(J)), J @ g)


RIGHT = {
    "networks-decay": lambda eta, n, N, d, s: eta / 2 * (1 / n - 1 / N) * (d + 1) * s**4,
    "networks-ghost": lambda a, delta: (delta**2).sum(1) * ((a**2).sum(1) + 1),
    "networks-precondition": slow,
    "networks-unbiased": lambda rows: (rows.mean(0) ** 2).sum() - rows.var(0, ddof=1).sum() / len(rows),
}
WRONG = {
    "networks-decay": [
        lambda eta, n, N, d, s: eta / 4 * (1 / n - 1 / N) * (d + 1) * s**4,
        lambda eta, n, N, d, s: eta / 2 * (1 / n - 1 / N) * d * s**4,
        lambda eta, n, N, d, s: eta / 2 * (1 / n - 1 / N) * (d + 1) * s**2,
        lambda eta, n, N, d, s: eta / 2 / n * (d + 1) * s**4,
    ],
    "networks-ghost": [
        lambda a, delta: (delta**2).sum(1) * (a**2).sum(1),
        lambda a, delta: np.sqrt((delta**2).sum(1) * ((a**2).sum(1) + 1)),
        lambda a, delta: (delta**2).sum(1) + (a**2).sum(1) + 1,
        lambda a, delta: (delta.sum(1) * a.sum(1)) ** 2 + (delta**2).sum(1),
    ],
    "networks-precondition": [
        slow_uncentred,
        lambda J, g, lam: g - slow(J, g, lam),
        lambda J, g, lam: slow(J, g, lam * len(J) / (len(J) - 1)),
    ],
    "networks-unbiased": [
        lambda rows: (rows.mean(0) ** 2).sum(),
        lambda rows: (rows.mean(0) ** 2).sum() - rows.var(0).sum() / len(rows),
        lambda rows: (rows.mean(0) ** 2).sum() - rows.var(0, ddof=1).sum(),
        lambda rows: np.mean(rows @ rows.T),
    ],
}
