"""Exercises on matrix factorization: right answers are right, and the likely mistakes are not."""

import numpy as np
from implicitreg.exercises import check


def split(W):
    P, s, Rt = np.linalg.svd(W, full_matrices=False)
    return np.vstack([P * np.sqrt(s), Rt.T * np.sqrt(s)])


def lopsided(W):
    P, s, Rt = np.linalg.svd(W, full_matrices=False)
    return np.vstack([P * s, Rt.T])


def needed(R, eps, D, goal):
    return eps * (goal / D) ** ((1 + np.sqrt(1 + 4 * R**2)) / 2)


RIGHT = {
    "factorization-entry": lambda y, alpha: np.sqrt(y**2 + alpha**4),
    "factorization-certificate": lambda a, b: 2 * np.sign([a, b]),
    "factorization-split": split,
    "factorization-needed": needed,
}
WRONG = {
    "factorization-entry": [  # alpha for its square; the rank-one end; the start added; the value 1 of the text
        lambda y, alpha: np.sqrt(y**2 + alpha**2),
        lambda y, alpha: y,
        lambda y, alpha: y + alpha**2,
        lambda y, alpha: np.sqrt(1 + alpha**4),
    ],
    "factorization-certificate": [  # signs forgotten; half; the values themselves; minus
        lambda a, b: np.array([2.0, 2.0]),
        lambda a, b: np.sign([a, b]),
        lambda a, b: np.array([2 * a, 2 * b]),
        lambda a, b: -2 * np.sign([a, b]),
    ],
    "factorization-split": [  # all on one side; too small; one sign lost; the factors squared
        lopsided,
        lambda W: split(W) / 2,
        lambda W: np.abs(split(W)),
        lambda W: np.vstack([split(W)[: len(W)], -split(W)[len(W) :]]),
    ],
    "factorization-needed": [  # the power upside down; nothing at all; nearly; another root; the start forgotten
        lambda R, eps, D, goal: eps * (goal / D) ** (2 / (1 + np.sqrt(1 + 4 * R**2))),
        lambda R, eps, D, goal: 0.0,
        lambda R, eps, D, goal: 1.0005 * needed(R, eps, D, goal),
        lambda R, eps, D, goal: eps * (goal / D) ** ((1 + np.sqrt(1 + 4 * R**2)) / 2 + 1e-3),
        lambda R, eps, D, goal: eps * (goal / D) ** ((1 + np.sqrt(1 + R**2)) / 2),
        lambda R, eps, D, goal: needed(R, 1.0, D, goal),
        lambda R, eps, D, goal: 0.0 if eps <= 1e-3 else needed(R, eps, D, goal),
    ],
}


def test_rotated_factors_are_as_cheap():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn = lambda Z: Z @ rotation if Z.shape[1] == 3 else Z  # noqa: E731
    assert check("factorization-split", lambda W: turn(split(W)))
