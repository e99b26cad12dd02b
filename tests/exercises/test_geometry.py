"""Exercises on tails and geometries: right answers are right, and the likely mistakes are not."""

import numpy as np

RIGHT = {
    "geometry-ratio": lambda a, k: a ** (k / (k + 2)),
    "geometry-enough": lambda n, rho: np.log(n) / np.log(1 / rho),
    "geometry-attack": lambda X, y, w: np.min(y * (X @ w)) / np.abs(w).sum(),
    "geometry-link": lambda w0, s: 1 / (1 / w0 - s),
}
WRONG = {
    "geometry-ratio": [  # the largest margin; upside down; one power less; as if the tail were a penalty
        lambda a, k: a,
        lambda a, k: a ** (-k / (k + 2)),
        lambda a, k: a ** (k / (k + 1)),
        lambda a, k: a ** (1 / k),
    ],
    "geometry-enough": [  # upside down; a whole number; the share of the other side; without the logarithm of n
        lambda n, rho: np.log(1 / rho) / np.log(n),
        lambda n, rho: np.ceil(np.log(n) / np.log(1 / rho)),
        lambda n, rho: np.log(n) / (1 - rho),
        lambda n, rho: 1 / np.log(1 / rho),
    ],
    "geometry-attack": [  # the norm itself, not its dual; the Euclidean distance; the output; the mean example
        lambda X, y, w: np.min(y * (X @ w)) / np.abs(w).max(),
        lambda X, y, w: np.min(y * (X @ w)) / np.linalg.norm(w),
        lambda X, y, w: np.min(y * (X @ w)),
        lambda X, y, w: np.mean(y * (X @ w)) / np.abs(w).sum(),
    ],
    "geometry-link": [  # the entropy; plain descent; the other sign; half the speed
        lambda w0, s: w0 * np.exp(s),
        lambda w0, s: w0 + s,
        lambda w0, s: w0 / (1 + s * w0),
        lambda w0, s: w0 / (1 - s * w0 / 2),
    ],
}
