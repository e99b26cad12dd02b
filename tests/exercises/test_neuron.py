"""Exercises on one neuron: right answers are right, and the likely mistakes are not."""

import numpy as np
import pytest
from implicitreg.exercises import neuron
from implicitreg.flow.neuron import relu_example


def hours(w):
    E = np.exp(w)
    return E**2 / 2 + 3 * E + 3 * w - 1 / E - 5 / 2


RIGHT = {
    "neuron-exponential": lambda X, y, w0: w0 + np.linalg.pinv(X) @ (np.log(y) - X @ w0),
    "neuron-saturated": hours,
    "neuron-critical": lambda X, y: 2 / np.linalg.norm((y * (1 - y))[:, None] * X, 2) ** 2,
    "neuron-strongest": lambda: 1 - 2 * np.sqrt(2) * (1 + np.sqrt(2)) ** (-3 / np.sqrt(8)),
}
WRONG = {
    "neuron-exponential": [  # the start forgotten; the labels as they are; psi for its inverse; half-way
        lambda X, y, w0: np.linalg.pinv(X) @ np.log(y),
        lambda X, y, w0: w0 + np.linalg.pinv(X) @ (y - X @ w0),
        lambda X, y, w0: w0 + np.linalg.pinv(X) @ (np.exp(y) - X @ w0),
        lambda X, y, w0: w0 + np.linalg.pinv(X) @ np.log(y),
    ],
    "neuron-saturated": [  # the constant of integration forgotten; the leading term; a logistic loss; the slope once
        lambda w: hours(w) + 5 / 2,
        lambda w: np.exp(2 * w) / 2,
        lambda w: np.exp(w) + w - 1,
        lambda w: np.expm1(w) + 2 * w - np.expm1(-w),
    ],
    "neuron-critical": [  # safe from everywhere; the slope once; half; the sum of all
        lambda X, y: 32 / np.linalg.norm(X, 2) ** 2,
        lambda X, y: 2 / np.linalg.eigvalsh((X * (y * (1 - y))[:, None]).T @ X)[-1],
        lambda X, y: 1 / np.linalg.norm((y * (1 - y))[:, None] * X, 2) ** 2,
        lambda X, y: 2 / np.linalg.norm((y * (1 - y))[:, None] * X) ** 2,
        lambda X, y: 2 / np.linalg.norm(X, 2) ** 2,
    ],
    "neuron-strongest": [  # the shortest zero-loss point; its mirror; other exponents
        lambda: 0.0,
        lambda: 2 * np.sqrt(2) * (1 + np.sqrt(2)) ** (-3 / np.sqrt(8)) - 1,
        lambda: 1 - np.sqrt(2) * (1 + np.sqrt(2)) ** (-3 / np.sqrt(8)),
        lambda: 1 - 2 * np.sqrt(2) * (1 + np.sqrt(2)) ** (3 / np.sqrt(8)),
    ],
}


def test_strongest_push_is_the_limit_of_the_three_points():
    assert relu_example(1e4).w[2] == pytest.approx(neuron._strongest(), abs=1e-7)  # it is approached like 1/c²
