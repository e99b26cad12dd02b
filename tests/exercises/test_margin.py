"""Exercises on the maximum margin: right answers are right, and the likely mistakes are not."""

import numpy as np
from implicitreg.exercises import check
from implicitreg.flow import maxmargin


def rate(a):
    p = a**-2.0 / np.sum(a**-2.0)
    return (np.log(p.max()) - p @ np.log(p)) / np.sqrt(np.sum(a**-2.0))


def shannon_only(a):
    p = a**-2.0 / np.sum(a**-2.0)
    return -p @ np.log(p) / np.sqrt(np.sum(a**-2.0))


def wstar(Z):
    return maxmargin.hard_margin(Z, np.ones(len(Z))).w


RIGHT = {
    "margin-distance": lambda X, y, w: np.min(y * (X @ w)) / np.linalg.norm(w),
    "margin-interpolates": lambda Z: np.all(np.linalg.solve(Z @ Z.T, np.ones(len(Z))) >= 0),
    "margin-rate": rate,
    "margin-wait": lambda margin, n, eps: np.log((n ** (1 / eps) - 1) / (n * margin**2)),
    "margin-slope": lambda V, Z: np.mean(np.maximum(0, -V @ wstar(Z))),
}
WRONG = {
    "margin-distance": lambda X, y, w: 2 / np.linalg.norm(w),
    "margin-interpolates": lambda Z: True,
    "margin-rate": shannon_only,
    "margin-wait": lambda margin, n, eps: np.log(n) / eps,
    "margin-slope": lambda V, Z: np.mean(-V @ wstar(Z)),
}


def test_never_is_no_answer_either():
    assert not check("margin-interpolates", lambda Z: False)


def test_the_distance_is_no_mere_output():
    assert not check("margin-distance", lambda X, y, w: np.min(y * (X @ w)))
