"""Exercises on matrix factorization: right answers are right, and the likely mistakes are not."""

import numpy as np
from implicitreg.exercises import check


def split(W):
    P, s, Rt = np.linalg.svd(W, full_matrices=False)
    return np.vstack([P * np.sqrt(s), Rt.T * np.sqrt(s)])


def lopsided(W):
    P, s, Rt = np.linalg.svd(W, full_matrices=False)
    return np.vstack([P * s, Rt.T])


RIGHT = {
    "factorization-entry": lambda y, alpha: np.sqrt(y**2 + alpha**4),
    "factorization-certificate": lambda a, b: 2 * np.sign([a, b]),
    "factorization-split": split,
    "factorization-needed": lambda R, eps, D, goal: eps * (goal / D) ** ((1 + np.sqrt(1 + 4 * R**2)) / 2),
}
WRONG = {
    "factorization-entry": lambda y, alpha: np.sqrt(y**2 + alpha**2),
    "factorization-certificate": lambda a, b: np.array([2.0, 2.0]),
    "factorization-split": lopsided,
    "factorization-needed": lambda R, eps, D, goal: eps * (goal / D) ** (2 / (1 + np.sqrt(1 + 4 * R**2))),
}


def test_rotated_factors_are_as_cheap():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn = lambda Z: Z @ rotation if Z.shape[1] == 3 else Z  # noqa: E731
    assert check("factorization-split", lambda W: turn(split(W)))


def test_small_factors_must_still_fit():
    assert not check("factorization-split", lambda W: split(W) / 2)
