"""Exercises on incremental learning: right answers are right, and the likely mistakes are not."""

import numpy as np


def drift(X, y, w, eta):
    s = 2 * eta * (y - X @ w)[:, None] * X
    return np.log(1 - s**2).mean(axis=0)


def drift_of_the_mean(X, y, w, eta):
    return np.log(1 - (2 * eta * X.T @ (y - X @ w) / len(y)) ** 2)


RIGHT = {
    "incremental-first": lambda X, y: np.argmax(np.abs(X.T @ y)),
    "incremental-column": lambda target, alpha, s: np.log(target / alpha**2 - 1) / (4 * s**2 * target),
    "incremental-moment": lambda a, b, alpha: np.log(1 / alpha**2) / (2 * (a + b)),
    "incremental-drift": drift,
}
WRONG = {
    "incremental-first": [  # the solution's; signed; correlation; signs of y; lengths; all positive; the first
        lambda X, y: np.argmax(np.abs(np.linalg.pinv(X) @ y)),
        lambda X, y: np.argmax(X.T @ y),
        lambda X, y: np.argmax(np.abs(X.T @ y) / np.linalg.norm(X, axis=0)),
        lambda X, y: np.argmax(np.abs(X.T @ np.sign(y))),
        lambda X, y: np.argmax(np.linalg.norm(X, axis=0)),
        lambda X, y: np.argmax(np.abs(X).T @ np.abs(y)),
        lambda X, y: 0,
    ],
    "incremental-column": [  # s for its square; no s; the signed network's 2; half of alpha squared
        lambda target, alpha, s: np.log(target / alpha**2 - 1) / (4 * s * target),
        lambda target, alpha, s: np.log(target / alpha**2 - 1) / (4 * target),
        lambda target, alpha, s: np.log(target / alpha**2 - 1) / (2 * s**2 * target),
        lambda target, alpha, s: np.log(target / alpha**2) / (4 * s**2 * target),
    ],
    "incremental-moment": [  # twice too early; the geometric mean; at the noise; at the signal
        lambda a, b, alpha: np.log(1 / alpha**2) / (4 * (a + b)),
        lambda a, b, alpha: np.log(1 / alpha**2) / (4 * np.sqrt(a * b)),
        lambda a, b, alpha: np.log(1 / alpha**2) / (4 * a),
        lambda a, b, alpha: np.log(1 / alpha**2) / (4 * b),
    ],
    "incremental-drift": [  # the mean first; the first order; u alone; without the 2 of the gradient
        drift_of_the_mean,
        lambda X, y, w, eta: -((2 * eta * (y - X @ w)[:, None] * X) ** 2).mean(axis=0),
        lambda X, y, w, eta: np.log(1 + 2 * eta * (y - X @ w)[:, None] * X).mean(axis=0),
        lambda X, y, w, eta: drift(X, y, w, eta / 2),
    ],
}
