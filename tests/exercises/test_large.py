"""Exercises on large batches: right answers are right in every form, and the likely mistakes are not."""

from itertools import combinations, permutations

import numpy as np
import pytest
from implicitreg.exercises import check
from scipy import stats


def total(n, B, Sigma, *, draws=permutations, inner=True, outer=True, mean=True):
    """The listing of the solution; each option is a mistake."""
    found = np.zeros((n, n))
    rows = list(draws(range(n), B))
    for draw in rows:
        put = np.zeros((n, B))
        put[list(draw), range(B)] = 1
        expected = put.sum(1) / B
        found += (inner * put @ Sigma @ put.T + outer * np.outer(expected, expected)) / len(rows)
    return found - mean / n**2


def ghost_scale(b, B, m):
    return np.sqrt((B - b) / b * m / (m - 1))


NEGATIVE = stats.norm.cdf(-1 / 3)
RIGHT = {
    "large-scale": (9 / 2450, NEGATIVE),
    "large-effective": 1000 / 109,
    "large-moments": (6, 6, 21, 37),
    "large-gamma": lambda b, B: (b - 1) / (B - b),
    "large-list": total,
    "large-ghost": ghost_scale,
}
OTHER_FORMS = [
    ("large-scale", np.array([9 / 2450, NEGATIVE])),
    ("large-scale", [45 / (5 * 50 * 49), 1 - stats.norm.cdf(1 / 3)]),
    ("large-effective", 1 / (1 / 100 + 99 / 1000)),
    ("large-moments", [6.0, 6.0, 21.0, 37.0]),
    ("large-moments", np.array([6, 6, 21, 37])),
    ("large-gamma", lambda b, B: np.float64((b - 1) / (B - b))),
    ("large-gamma", lambda b, B: (1 - 1 / b) / (B / b - 1)),
    ("large-list", lambda n, B, Sigma: total(n, B, Sigma).tolist()),
    ("large-ghost", lambda b, B, m: ((B / b - 1) / (1 - 1 / m)) ** 0.5),
]
WRONG = {
    "large-scale": [
        (1 / 250, NEGATIVE),  # no noise from drawing
        (45 / (5 * 50**2), NEGATIVE),  # the scale of uncentred noise
        (9 / 2450, 0.5),
        (9 / 2450, 0.0),
        (9 / 2450, stats.norm.cdf(-0.02 / np.sqrt(9 / 2450))),  # the variance before centring
    ],
    "large-effective": [10, 5, 100, 100 / 11],
    "large-moments": [(6, 0, 21, 37), (6, 6.5, 21, 37), (6, 6, 21, 21), (6, 6, 21, 27), (6, 6, 21, 36.5)],
    "large-gamma": [
        lambda b, B: (B - b) / (b - 1),
        lambda b, B: b / B,
        lambda b, B: (b - 1) / (B - b) / B,
        lambda b, B: b - 1,  # the number of places forgotten
    ],
    "large-list": [
        lambda n, B, Sigma: total(n, B, Sigma, draws=combinations),
        lambda n, B, Sigma: total(n, B, Sigma, outer=False, mean=False),
        lambda n, B, Sigma: total(n, B, Sigma, inner=False),
        lambda n, B, Sigma: total(n, B, Sigma, mean=False),
    ],
    "large-ghost": [
        lambda b, B, m: np.sqrt((B - b) / b),  # the average's own noise forgotten
        lambda b, B, m: np.sqrt(B * (B - b) / (b * (B - 1))),  # centred over the batch
        lambda b, B, m: ghost_scale(b, B, m) / B,
        lambda b, B, m: ghost_scale(b, B, m) ** 2,
    ],
}


@pytest.mark.parametrize(
    ("label", "answer"), OTHER_FORMS, ids=[f"{label}-{k}" for k, (label, _) in enumerate(OTHER_FORMS)]
)
def test_a_right_answer_is_right_in_every_form(label, answer):
    assert check(label, answer)


def test_the_scale_of_the_source_s_setting():
    """b = 100, B = 1000, ghosts of 100."""
    np.testing.assert_allclose(ghost_scale(100, 1000, 100), 3.01511344577764, rtol=1e-14)


def test_weights_that_are_never_negative_have_the_two_numbers_of_small_batches():
    rng = np.random.default_rng(0)
    w = rng.dirichlet(np.full(30, RIGHT["large-gamma"](4, 30)), size=200_000)
    squares = (w**2).sum(1)
    assert abs(w.sum(1) - 1).max() < 1e-12
    assert abs(squares.mean() - 1 / 4) < 4 * squares.std() / 200_000**0.5


def test_moments_by_drawing():
    rng = np.random.default_rng(1)
    first = np.array([4.0, 0, 0, 0])[rng.permuted(np.tile(np.arange(4), (400_000, 1)), axis=1)[:, :2]]
    for z, third, fourth in (
        (rng.choice([-0.5, 0.5], 400_000), *RIGHT["large-moments"][::2]),
        (rng.standard_normal(400_000) / 2, *RIGHT["large-moments"][1::2]),
    ):
        noise = (0.5 + z) * first[:, 0] + (0.5 - z) * first[:, 1] - 1
        for power, moment in ((3, third), (4, fourth)):
            assert abs((noise**power).mean() - moment) < 4 * (noise**power).std() / 400_000**0.5
