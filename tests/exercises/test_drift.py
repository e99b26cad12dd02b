"""Exercises on the drift: right answers are right, and the likely mistakes are not."""

import numpy as np
from implicitreg import FiniteProblem, gap
from implicitreg.exercises import check


def curvatures(h, p, theta, eta, N, K):
    return eta**2 * K * (K - 1) / (4 * N) * 2 * theta * (p @ h**2 - (p @ h) ** 2)


def by_package(h, p, theta, eta, N, K):
    losses = [lambda t, c=c: c * t[0] ** 2 / 2 for c in h]
    return gap.drift(FiniteProblem(losses, p, [theta]), eta, N=N, K=K)[0]


def pair_sum(W):
    return np.triu(1 / W.shape[1] - W @ W.T, k=1).sum()


RIGHT = {
    "drift-curvatures": curvatures,
    "drift-schedule": pair_sum,
    "drift-momentum": lambda beta: 1 / (2 * (2 + beta)),
    "drift-bridge": lambda N, M: M * (N - M) / N,
}
WRONG = {
    "drift-curvatures": [  # half; K for K - 1; the second moment for the variance; the other sign
        lambda h, p, theta, eta, N, K: curvatures(h, p, theta, eta, N, K) / 2,
        lambda h, p, theta, eta, N, K: curvatures(h, p, theta, eta, N, K) * K / (K - 1),
        lambda h, p, theta, eta, N, K: eta**2 * K * (K - 1) / (2 * N) * theta * (p @ h**2),
        lambda h, p, theta, eta, N, K: -curvatures(h, p, theta, eta, N, K),
    ],
    "drift-schedule": [  # the diagonal, too; every pair twice; the other sign; the sum without 1/N
        lambda W: (1 / W.shape[1] - W @ W.T).sum() / 2,
        lambda W: 2 * pair_sum(W),
        lambda W: -pair_sum(W),
        lambda W: np.triu(W @ W.T, k=1).sum(),
    ],
    "drift-momentum": [  # as without momentum; one step of weight 1; two of 1 + beta; the long run
        lambda beta: 1 / 4,
        lambda beta: 1 / (2 * (1 + beta)),
        lambda beta: 1 / (4 * (1 + beta)),
        lambda beta: (1 - beta) / 4,
    ],
    "drift-bridge": [  # independent draws; a share for a number; the whole epoch; the divisor N - 1
        lambda N, M: M * (N - 1) / N,
        lambda N, M: M * (N - M) / N**2,
        lambda N, M: 0.0,
        lambda N, M: M * (N - M) / (N - 1),
    ],
}


def test_the_package_has_the_same_answer():
    assert check("drift-curvatures", by_package)
