"""Exercises on SGD and SDEs: right answers in several forms are right, and the likely mistakes are not."""

from fractions import Fraction

import numpy as np
import pytest
from implicitreg.exercises import check
from implicitreg.exercises.sde import _first


def dip(h):
    one = lambda h, q: (1 - q) * (1 + q - 8 * q * q) / (36 * h)  # noqa: E731
    return [one(1, 0) + one(h, 0), one(1, 0.5) + one(h, 0.5**h)]


def symmetric(k):
    def weights(c):
        u = np.r_[np.zeros(k - 2), c, -1.0]
        u = u - u.mean()
        return 1 / k + np.sqrt((1 - 1 / k) / (u @ u)) * u

    low, high = 0.0, 2.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (weights(middle) ** 3).sum() < 0 else (low, middle)
    return weights(low)


RIGHT = {
    "sde-mirror": 1 / 3,
    "sde-balance": lambda h, C, S: 3 * C * h**2 / S,
    "sde-dip": dip,
    "sde-weights": symmetric,
    "sde-first": _first,
    "sde-coin": [3, 5],
}
WRONG = {
    "sde-mirror": [-1 / 3, 1 / 6, 0, 2 / 3],  # not mirrored; one step; the central limit theorem; twice
    "sde-balance": [
        lambda h, C, S: C * h**2 / S,
        lambda h, C, S: -3 * C * h**2 / S,
        lambda h, C, S: 3 * C * h / S,
        lambda h, C, S: 3 * C * h**2,
    ],
    "sde-dip": [  # the wrong order; the printed picture at long times; the same q for both; no curvature below
        lambda h: dip(h)[::-1],
        lambda h: [-2 * x for x in dip(h)],
        lambda h: [dip(h)[0], 2 * dip(1)[1]],
        lambda h: [(1 + h) / 36, dip(h)[1]],
    ],
    "sde-weights": [  # plain means; of length 1; SGD; two sums of three
        lambda k: np.full(k, 1 / k),
        lambda k: np.full(k, k**-0.5),
        lambda k: np.r_[1.0, np.zeros(k - 1)],
        lambda k: np.r_[0.5, 0.5, 0.5, -0.5, np.zeros(k - 4)],
    ],
    "sde-first": [  # the limit's turn; one early; one for all; near it
        lambda eta: int(np.ceil(0.8639 / eta)),
        lambda eta: _first(eta) - 1,
        lambda eta: 19,
        lambda eta: round(0.95 / eta),
    ],
    "sde-coin": [[2, 5], [3, 4], [3, 2], [4, 5]],
}


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        ("sde-mirror", float(Fraction(1, 3))),
        ("sde-balance", lambda h, C, S: np.array(3 * C * h * h / S)),
        ("sde-dip", lambda h: np.array(dip(h))),
        ("sde-dip", lambda h: tuple(dip(h))),
        ("sde-weights", lambda k: list(symmetric(k))),
        ("sde-weights", lambda k: symmetric(k)[::-1]),
        ("sde-weights", lambda k: np.r_[symmetric(6), np.zeros(k - 6)]),
        ("sde-first", lambda eta: float(_first(eta))),
        ("sde-coin", np.array([3.0, 5.0])),
        ("sde-coin", (3, 5)),
    ],
)
def test_right_answers_in_other_forms(label, answer):
    assert check(label, answer)


def test_the_turn_at_one_twentieth():
    assert _first(0.05) == 19
