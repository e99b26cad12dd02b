"""Exercises on escape: right answers are right in every form, and the likely mistakes are not."""

import numpy as np
import pytest
from implicitreg.exercises import check
from scipy.optimize import brentq


def rung_price(values, chances, *, log=False, moments=False):
    """The solution of the chapter; each option is a mistake."""
    values, chances = np.asarray(values, float), np.asarray(chances, float)
    if moments:
        mean = chances @ values
        return np.exp(-2 * mean / (chances @ values**2 - mean**2))
    money = lambda s: chances @ np.exp(s * values) - 1  # noqa: E731
    s = 1 / values.max()
    while money(s) <= 0:
        s *= 2
    for _ in range(200):
        s -= money(s) / (chances @ (values * np.exp(s * values)))
    return s if log else np.exp(s)


def exponent(values, chances, eta, b, *, bell=False, mirror=False, scale=None):
    """The solution of the chapter; each option is a mistake."""
    u, p = np.asarray(values, float) * (-1 if mirror else 1), np.asarray(chances, float)
    x = -1 + (np.arange(400) + 0.5) / 400
    s = []
    for m in x**3 - x:
        fair = lambda t, m=m: p @ np.exp(t * (u - m)) - 1  # noqa: E731
        high = 1.0
        while fair(high) <= 0 and high < 1e4:
            high *= 2
        s.append(2 * m / (p @ u**2) if bell else brentq(fair, m / (p @ u**2) / 10, high) if high < 1e4 else np.inf)
    return (b / eta if scale is None else scale(b, eta)) * np.mean(s)


LEAPS = (np.sqrt(21) - 1) / 2
RIGHT = {
    "escape-root": (np.sqrt(13) - 1) / 2,
    "escape-scale": 1 / 4,
    "escape-third": 17 / 125,
    "escape-law": rung_price,
    "escape-exponent": exponent,
}
OTHER_FORMS = [
    ("escape-root", 1.303),
    ("escape-root", np.float32(1.3027756)),
    ("escape-scale", np.array(0.25)),
    ("escape-third", 0.136),
    ("escape-law", lambda v, p: np.float64(rung_price(list(v), list(p)))),
    ("escape-law", lambda v, p: np.exp(brentq(lambda s: p @ np.exp(s * v) - 1, 1e-3, 100))),
    ("escape-exponent", lambda v, p, eta, b: np.array(exponent(v, p, eta, b))),
]
WRONG = {
    "escape-root": [1.0, np.exp(8 / 27), 3.0, np.log((np.sqrt(13) - 1) / 2), -(np.sqrt(13) + 1) / 2],
    "escape-scale": [1 / 8, 1 / 16, 1 / 2, 4],
    "escape-third": [LEAPS**-3, LEAPS**-4, (2 / 5) ** 3, np.exp(-2.25), 7 / 25],
    "escape-law": [
        lambda v, p: 1.0,
        lambda v, p: rung_price(v, p, log=True),
        lambda v, p: rung_price(v, p, moments=True),
        lambda v, p: 1 / rung_price(v, p),
    ],
    "escape-exponent": [
        lambda v, p, eta, b: exponent(v, p, eta, b, bell=True),
        lambda v, p, eta, b: exponent(v, p, eta, b, mirror=True),
        lambda v, p, eta, b: exponent(v, p, eta, b, scale=lambda b, eta: 1 / eta),
        lambda v, p, eta, b: exponent(v, p, eta, b, scale=lambda b, eta: b / eta**2),
    ],
}


@pytest.mark.parametrize(
    ("label", "answer"), OTHER_FORMS, ids=[f"{label}-{k}" for k, (label, _) in enumerate(OTHER_FORMS)]
)
def test_a_right_answer_is_right_in_every_form(label, answer):
    assert check(label, answer)
