"""Exercises on least squares: right answers are right, and the likely mistakes are not."""

import numpy as np
import pytest
from implicitreg.exercises import grade
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
    "minnorm-start": [  # the start forgotten; twice; added; only its visible part
        lambda X, y, w0: np.linalg.pinv(X) @ y,
        lambda X, y, w0: w0 + np.linalg.pinv(X) @ (y - 2 * X @ w0),
        lambda X, y, w0: w0 + np.linalg.pinv(X) @ y,
        lambda X, y, w0: np.linalg.pinv(X) @ (y + X @ w0),
    ],
    "minnorm-straight": [  # the origin; a solution; beside one, in the kernel or in any direction; beside the origin
        lambda X, y: np.zeros(X.shape[1]),
        lambda X, y: minnorm.limit(X, y),
        lambda X, y: minnorm.limit(X, y) + np.linalg.svd(X)[2][-1],
        lambda X, y: minnorm.limit(X, y) + np.ones(X.shape[1]),
        lambda X, y: np.linalg.svd(X)[2][0],
        *(lambda X, y, far=far: far * np.linalg.svd(X)[2][0] for far in (1e8, 1e12, 1e16, 1e200)),  # for any y
        lambda X, y: minnorm.limit(X, y) + 1e-9 * np.ones(X.shape[1]),
    ],
    "minnorm-fastest": [  # the sum; the edge of stability; the smallest singular value, 0 or not; the mean of the two
        lambda X: minnorm.step_sizes(X).best,
        lambda X: 2 * len(X) / np.linalg.norm(X, 2) ** 2,
        lambda X: 2 * len(X) / sum(s**2 for s in np.linalg.svd(X)[1][[0, -1]]),
        lambda X: len(X) / np.linalg.norm(X, 2) ** 2,
        lambda X: len(X) * minnorm.step_sizes(X).best / 2,
    ],
    "minnorm-penalty": [  # the halves; the mean; both; upside down
        lambda alpha, n: 2 * n * alpha,
        lambda alpha, n: alpha,
        lambda alpha, n: n * alpha / 2,
        lambda alpha, n: alpha / n,
    ],
    "minnorm-metric": [  # none; of rank one; a shape on the diagonal; not symmetric
        lambda X, y, w: np.eye(len(w)),
        lambda X, y, w: np.outer(w, w),
        lambda X, y, w: np.diag(np.abs(w)),
        lambda X, y, w: np.eye(len(w)) + np.outer(w - X.T @ y, X.T @ y) / ((X.T @ y) @ (X.T @ y)),
    ],
}


@pytest.mark.parametrize("far", [1e-7, 1e-5, 1.0, 1e5])
@pytest.mark.parametrize("k", [0, 1])
def test_a_start_beside_a_solution_is_straight_at_any_distance(far, k):
    def beside(X, y):
        return np.linalg.pinv(X) @ y + far * np.linalg.svd(X)[2][k]

    assert grade("minnorm-straight", beside).right
