"""Exercises on diagonal networks: right answers are right, and the likely mistakes are not."""

import numpy as np
from implicitreg.exercises import check


def tied(y, alpha):
    q = (np.sqrt(1 + 8 * y / alpha**2) - 1) / 4
    return alpha**2 * np.array([q, q * q])


def favour(x, i):
    c = 1 / x
    c[i] *= 2
    return c


RIGHT = {
    "diagonal-toy": tied,
    "diagonal-gradient": lambda w, alpha: np.arcsinh(w / (2 * alpha**2)),
    "diagonal-winner": favour,
}
WRONG = {
    "diagonal-toy": lambda y, alpha: tied(y, np.sqrt(alpha)),
    "diagonal-gradient": lambda w, alpha: np.arcsinh(w / alpha**2),
    "diagonal-winner": lambda x, i: 1 / favour(x, i),
}


def test_a_shape_must_be_positive():
    assert not check("diagonal-winner", lambda x, i: np.zeros_like(x))
