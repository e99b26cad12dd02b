"""Exercises on diagonal networks: right answers are right, and the likely mistakes are not."""

import numpy as np
import pytest
from implicitreg.exercises import check
from implicitreg.flow import diagonal


def tied(y, alpha):
    q = (np.sqrt(1 + 8 * y / alpha**2) - 1) / 4
    return alpha**2 * np.array([q, q * q])


def favour(x, i):
    c = 1 / x
    c[i] *= 2
    return c


def end(X, y, alpha):
    multiplier = np.zeros(len(y))
    for _ in range(200):
        z = X.T @ multiplier
        slope = (X * 2 * alpha**2 * np.cosh(z)) @ X.T
        step = np.linalg.solve(slope, y - X @ (2 * alpha**2 * np.sinh(z)))
        multiplier = multiplier + step / max(1, np.abs(X.T @ step).max())
    return 2 * alpha**2 * np.sinh(X.T @ multiplier)


RIGHT = {
    "diagonal-end": end,
    "diagonal-toy": tied,
    "diagonal-gradient": lambda w, alpha: np.arcsinh(w / (2 * alpha**2)),
    "diagonal-winner": favour,
}
WRONG = {
    "diagonal-end": lambda X, y, alpha: end(X, y, np.sqrt(2) * alpha),
    "diagonal-toy": lambda y, alpha: tied(y, np.sqrt(alpha)),
    "diagonal-gradient": lambda w, alpha: np.arcsinh(w / alpha**2),
    "diagonal-winner": lambda x, i: 1 / favour(x, i),
}


@pytest.mark.parametrize(
    "answer",
    [
        lambda X, y, alpha: np.linalg.pinv(X) @ y,
        lambda X, y, alpha: diagonal.basis_pursuit(X, y),
        lambda X, y, alpha: end(X, y, alpha) * (1 + 1e-6),
    ],
    ids=["least norm", "least l1 norm", "almost"],
)
def test_ends_of_other_geometries_are_refused(answer):
    assert not check("diagonal-end", answer)


def test_a_shape_must_be_positive():
    assert not check("diagonal-winner", lambda x, i: np.zeros_like(x))
