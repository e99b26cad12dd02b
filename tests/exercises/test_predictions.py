"""Exercises on predictions for networks: right answers are right, and the likely mistakes are not."""

from itertools import product

import numpy as np
import pytest
import torch
from implicitreg.exercises import check


def chain(xs, theta):
    p = 1 / (1 + np.exp(xs @ theta))
    return np.mean(p[:, None] ** 2 * (xs @ xs.T) ** 2 * (p * (1 - p))[None, :])


def averaged_first(xs, theta):
    p = 1 / (1 + np.exp(xs @ theta))
    G = -(p[:, None] * xs).mean(0)
    return np.mean(p * (1 - p) * (xs @ G) ** 2)


def own_hessian(xs, theta):
    p = 1 / (1 + np.exp(xs @ theta))
    return np.mean(p**3 * (1 - p) * (xs**2).sum(1) ** 2)


RIGHT = {
    "predictions-slope": lambda r: [r**2, r**3, r**4, r**2],
    "predictions-share": lambda T: 1 / (8 * T - 3),
    "predictions-runs": lambda k: 4000 * k**2,
    "predictions-chain": chain,
    "predictions-bias": lambda b: 8 + 6 / b,
}
WRONG = {
    "predictions-slope": [
        lambda r: [r, r**2, r**3, r**2],
        lambda r: [4, 8, 16, 4],
        lambda r: [r**2, r**3, r**4, r**4],
        lambda r: [r**2, r**3, r**4, r**3],
    ],
    "predictions-share": [lambda T: 1 / 13, lambda T: 5 / (8 * T - 3), lambda T: 1 / (8 * T - 4), lambda T: 1 / T],
    "predictions-runs": [lambda k: 4000 * k, lambda k: 4000 * np.sqrt(k), lambda k: k**2],
    "predictions-chain": [averaged_first, own_hessian, lambda xs, theta: len(xs) * chain(xs, theta)],
    "predictions-bias": [lambda b: 8, lambda b: 8 + 2 / b, lambda b: 8 + 6 / b**2, lambda b: 14 / b],
}


def by_torch(xs, theta):
    """Derivatives along vectors, as on the chapter's page."""
    X = torch.from_numpy(xs)
    loss = lambda t: torch.nn.functional.softplus(-X @ t).mean()  # noqa: E731
    start = torch.from_numpy(theta)
    g = -torch.sigmoid(-X @ start)[:, None] * X
    return torch.stack([v @ torch.func.jvp(torch.func.grad(loss), (start,), (v,))[1] for v in g]).mean().numpy()


def enumerated(b):
    """The estimate's mean over all batches; for large batches the formula."""
    if b > 10:
        return 8 + 6 / b
    return np.mean([np.mean(batch) ** 3 for batch in product((1, 3), repeat=b)])


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        ("predictions-chain", by_torch),
        ("predictions-bias", enumerated),
        ("predictions-slope", lambda r: np.array([r, r**2, r**3, r]) * r),
        ("predictions-slope", lambda r: (r * r, r**3, (r * r) ** 2, r * r)),
        ("predictions-share", lambda T: (T / 2 * 2) / (T * (T - 1) * 8 + T / 2 * 10)),
    ],
    ids=["products", "all batches", "array", "tuple", "as counted"],
)
def test_other_right_answers(label, answer):
    assert check(label, answer)
