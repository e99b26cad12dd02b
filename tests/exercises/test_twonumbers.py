"""Exercises on two numbers: right answers are right in every form, and the likely mistakes are not."""

import numpy as np
import pytest
from implicitreg.exercises import check


def second_moment(x, p, s2, q, r, eta, M, steps, *, fourth=None, swap=False, two=2.0, cross=None):
    """The solution; each option is a mistake."""
    a, quartic = p @ x**2, p @ x**4
    quartic = a**2 if fourth == "square" else quartic
    if swap:
        q, r = r, q
    for _ in range(steps):
        F = quartic * M + s2 * a
        M = M - two * eta * a * M + eta**2 * (q * F + ((r - q) if cross is None else cross(q, r)) * a**2 * M)
    return M


def make(noise, b, *, ddof=1, centre=True, scale=None):
    B = noise.shape[1]
    s = np.sqrt((B - b) / (b * B * (B - ddof))) if scale is None else scale(b, B)
    return 1 / B + s * (noise - (noise.mean(1, keepdims=True) if centre else 0))


def chosen(noise, b):
    """b of the B with the largest noise: another law with these numbers."""
    order = noise + 1e-9 * np.random.default_rng(0).random(noise.shape)
    return (order >= np.sort(order, axis=1)[:, -b][:, None]) / b


RIGHT = {
    "twonumbers-coin": (1 / 6, 1 / 12),
    "twonumbers-size": (2 / 3, 1, 1 / 2, 5 / 4),
    "twonumbers-step": 4 / 3,
    "twonumbers-recursion": second_moment,
    "twonumbers-weights": make,
    "twonumbers-fourth": (1 / 16, 1 / 8, 11 / 64),
}
OTHER_FORMS = [
    ("twonumbers-coin", [1 / 6, 1 / 12]),
    ("twonumbers-coin", np.array([1.0, 0.5]) / 6),
    ("twonumbers-size", np.array([2 / 3, 1.0, 0.5, 1.25])),
    ("twonumbers-step", np.float64(4 / 3)),
    ("twonumbers-recursion", lambda *a: np.float64(second_moment(*a))),
    ("twonumbers-weights", lambda noise, b: make(-noise, b)),
    ("twonumbers-weights", chosen),
    ("twonumbers-fourth", np.array([4, 8, 11]) / 64),
]
WRONG = {
    "twonumbers-coin": [(1 / 3, 1 / 6), (1 / 6, 1 / 6), (1 / 6, 1 / 24), (1 / 12, 1 / 24), (1 / 12, 1 / 6)],
    "twonumbers-size": [(1 / 2, 1, 1 / 2, 1), (1 / 2, 1, 1 / 2, 5 / 4), (2 / 3, 1, 1 / 2, 1), (2 / 3, 1, 1 / 4, 5 / 4)],
    "twonumbers-step": [2, 1, 3 / 2, 2 / 3, 4],
    "twonumbers-recursion": [
        lambda *a: second_moment(*a, fourth="square"),
        lambda *a: second_moment(*a, swap=True),
        lambda *a: second_moment(*a, two=1.0),
        lambda *a: second_moment(*a, cross=lambda q, r: r),
        lambda *a: second_moment(*a, cross=lambda q, r: 0.0),
    ],
    "twonumbers-weights": [
        lambda noise, b: make(noise, b, ddof=0),
        lambda noise, b: make(noise, b, centre=False),
        lambda noise, b: make(noise, b, scale=lambda b, B: 1 / np.sqrt(b * B)),
        lambda noise, b: make(noise, b, scale=lambda b, B: np.sqrt((B - b) / (b * B**2))),
        lambda noise, b: np.full(noise.shape, 1 / noise.shape[1]),
        lambda noise, b: np.eye(noise.shape[1])[np.zeros(len(noise), int)],
    ],
    "twonumbers-fourth": [(1 / 16, 1 / 16, 1 / 16), (1 / 16, 3 / 16, 11 / 64), (1, 2, 11 / 4), (1 / 16, 1 / 8, 3 / 16)],
}


@pytest.mark.parametrize(
    ("label", "answer"), OTHER_FORMS, ids=[f"{label}-{k}" for k, (label, _) in enumerate(OTHER_FORMS)]
)
def test_a_right_answer_is_right_in_every_form(label, answer):
    assert check(label, answer)


def test_the_solution_normalizing_every_row_is_right_too():
    def fixed_length(noise, b):
        centred = noise - noise.mean(1, keepdims=True)
        length = np.sqrt((centred**2).sum(1, keepdims=True))
        B = noise.shape[1]
        return 1 / B + np.sqrt(1 / b - 1 / B) * centred / length

    rng = np.random.default_rng(0)
    w = fixed_length(rng.standard_normal((1000, 5)), 2)
    np.testing.assert_allclose([(w**2).sum(1), w.sum(1)], [np.full(1000, 0.5), np.ones(1000)], atol=1e-12)
