"""Exercises on imitation: right answers are right in several forms, and the likely mistakes are not."""

import numpy as np
import pytest
import torch
from implicitreg.exercises import check


def gdc(X, y, w, eta, weight=0.25, steps=None):
    """The loss and the penalty by automatic differentiation."""
    X, y = torch.tensor(X), torch.tensor(y)
    w = torch.tensor(w)
    for _ in range(steps or len(y)):

        def loss(w):
            r = X @ w - y
            g = r[:, None] * X
            return (r**2).mean() / 2 + weight * eta * ((g - g.mean(0)) ** 2).sum(1).mean()

        w = w - eta * torch.func.grad(loss)(w)
    return w.numpy()


def gdc_by_hand(X, y, w, eta):
    for _ in range(len(y)):
        g = (X @ w - y)[:, None] * X
        away = g - g.mean(axis=0)
        turned = X * (X * away).sum(axis=1, keepdims=True)
        w = w - eta * (g.mean(axis=0) + eta / 2 * turned.mean(axis=0))
    return w


RIGHT = {
    "imitating-nearer": lambda a, b: (a + b - (b - a) / 2**0.5) / ((a + b) ** 2 / 4 + a * b),
    "imitating-off": lambda T: (T - 1) / 2,
    "imitating-overlap": lambda W: np.einsum("rsn,rtn->st", W, W) / len(W),
    "imitating-rare": lambda h, p, theta, N: -(N - 1) / (2 * N) * theta**2 * (p @ (h - p @ h) ** 3),
    "imitating-gdc": gdc_by_hand,
}
WRONG = {
    "imitating-nearer": [
        lambda a, b: 1 / b,
        lambda a, b: 2 / (a + b),
        lambda a, b: (a + b + (b - a) / 2**0.5) / ((a + b) ** 2 / 4 + a * b),
        lambda a, b: (4 - 2**0.5) / 7,
    ],
    "imitating-off": [
        lambda T: T - 1,
        lambda T: (T - 1) / 4,
        lambda T: T / 2,
        lambda T: (T - 1) / 2 + T / 2,
    ],
    "imitating-overlap": [
        lambda W: W.mean(0) @ W.mean(0).T,
        lambda W: np.einsum("rsn,rtn->st", W, W),
        lambda W: np.einsum("rsn,rtn->st", W, W) / len(W) * (1 - np.eye(W.shape[1])),
    ],
    "imitating-rare": [
        lambda h, p, theta, N: (N - 1) / (2 * N) * theta**2 * (p @ (h - p @ h) ** 3),
        lambda h, p, theta, N: -(N - 1) / 2 * theta**2 * (p @ (h - p @ h) ** 3),
        lambda h, p, theta, N: -(2 * N - 1) / (2 * N) * theta**2 * (p @ (h - p @ h) ** 3),
        lambda h, p, theta, N: -(N - 1) / (2 * N) * theta**2 * (p @ h**3),
    ],
    "imitating-gdc": [
        lambda X, y, w, eta: gdc(X, y, w, eta, weight=0.0),
        lambda X, y, w, eta: gdc(X, y, w, eta, weight=0.25 * (len(y) - 1) / len(y)),
        lambda X, y, w, eta: gdc(X, y, w, eta, weight=0.5),
        lambda X, y, w, eta: gdc(X, y, w, eta, steps=1),
    ],
}


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        ("imitating-nearer", lambda a, b: np.array((a + b - ((b - a) ** 2 / 2) ** 0.5) / ((a + b) ** 2 / 4 + a * b))),
        ("imitating-off", lambda T: np.triu(np.tril(np.full((T, T), 0.5), 1), 1).sum()),
        ("imitating-rare", lambda h, p, theta, N: -(N - 1) / N / 2 * theta**2 * sum(p * (h - sum(p * h)) ** 3)),
        ("imitating-overlap", lambda W: np.mean([w @ w.T for w in W], axis=0).tolist()),
        ("imitating-gdc", gdc),
    ],
    ids=["array", "a sum", "the formula", "list", "autograd"],
)
def test_other_forms_of_the_right_answer(label, answer):
    assert check(label, answer)
