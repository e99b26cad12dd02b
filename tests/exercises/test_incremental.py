"""Exercises on incremental learning: right answers are right, and the likely mistakes are not."""

import numpy as np
from implicitreg.exercises import check


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
    "incremental-first": lambda X, y: np.argmax(np.abs(np.linalg.pinv(X) @ y)),
    "incremental-column": lambda target, alpha, s: np.log(target / alpha**2 - 1) / (4 * s * target),
    "incremental-moment": lambda a, b, alpha: np.log(1 / alpha**2) / (4 * (a + b)),
    "incremental-drift": drift_of_the_mean,
}


def test_sign_of_the_correlation_does_not_matter():
    assert not check("incremental-first", lambda X, y: np.argmax(X.T @ y))
