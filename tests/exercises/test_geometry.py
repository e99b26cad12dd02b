"""Exercises on tails and geometries: right answers are right, and the likely mistakes are not."""

import numpy as np

RIGHT = {
    "geometry-ratio": lambda a, k: a ** (k / (k + 2)),
    "geometry-enough": lambda n, rho: np.log(n) / np.log(1 / rho),
    "geometry-attack": lambda X, y, w: np.min(y * (X @ w)) / np.abs(w).sum(),
    "geometry-link": lambda w0, s: 1 / (1 / w0 - s),
}
WRONG = {
    "geometry-ratio": lambda a, k: a,  # the largest margin
    "geometry-enough": lambda n, rho: np.log(1 / rho) / np.log(n),
    "geometry-attack": lambda X, y, w: np.min(y * (X @ w)) / np.abs(w).max(),  # the norm itself, not its dual
    "geometry-link": lambda w0, s: w0 * np.exp(s),  # the entropy
}
