"""Exercises on least squares: right answers are right, and the likely mistakes are not."""

import numpy as np
from implicitreg.exercises import check
from implicitreg.flow import minnorm


def straight(X, y):
    return np.linalg.pinv(X) @ y + np.linalg.svd(X)[2][0]


def metric(X, y, w):
    z = X.T @ y
    return np.outer(w, w) / (w @ z) + np.eye(len(w)) - np.outer(z, z) / (z @ z)


RIGHT = {
    "minnorm-start": lambda X, y, w0: w0 + np.linalg.pinv(X) @ (y - X @ w0),
    "minnorm-straight": straight,
    "minnorm-fastest": lambda X: 2 * len(X) / sum(s**2 for s in np.linalg.svd(X)[1][[0, np.linalg.matrix_rank(X) - 1]]),
    "minnorm-penalty": lambda alpha, n: n * alpha,
    "minnorm-metric": metric,
}
WRONG = {
    "minnorm-start": lambda X, y, w0: np.linalg.pinv(X) @ y,
    "minnorm-straight": lambda X, y: np.zeros(X.shape[1]),
    "minnorm-fastest": lambda X: minnorm.step_sizes(X).best,
    "minnorm-penalty": lambda alpha, n: 2 * n * alpha,
    "minnorm-metric": lambda X, y, w: np.eye(len(w)),
}


def test_a_solution_is_no_start_of_a_straight_path():
    assert not check("minnorm-straight", lambda X, y: minnorm.limit(X, y))
