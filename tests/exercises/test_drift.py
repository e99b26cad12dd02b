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
    "drift-curvatures": lambda h, p, theta, eta, N, K: curvatures(h, p, theta, eta, N, K) / 2,
    "drift-schedule": lambda W: (1 / W.shape[1] - W @ W.T).sum() / 2,  # the diagonal, too
    "drift-momentum": lambda beta: 1 / 4,
    "drift-bridge": lambda N, M: M * (N - 1) / N,  # independent draws
}


def test_the_package_has_the_same_answer():
    assert check("drift-curvatures", by_package)
