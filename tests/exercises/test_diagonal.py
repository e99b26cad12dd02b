"""Exercises on diagonal networks: right answers are right, and the likely mistakes are not."""

import numpy as np
from implicitreg.exercises import diagonal as exercises
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
    "diagonal-end": [  # another start; the least norm; the least l1 norm
        lambda X, y, alpha: end(X, y, np.sqrt(2) * alpha),
        lambda X, y, alpha: np.linalg.pinv(X) @ y,
        lambda X, y, alpha: diagonal.basis_pursuit(X, y),
    ],
    "diagonal-toy": [  # alpha for its square; the least norm; the least l1 norm; the weights u for their squares
        lambda y, alpha: tied(y, np.sqrt(alpha)),
        lambda y, alpha: y * np.array([0.2, 0.4]),
        lambda y, alpha: np.array([0.0, y / 2]),
        lambda y, alpha: np.sqrt(tied(y, alpha)),
    ],
    "diagonal-gradient": [  # a factor; the limit of a small start; of a large one
        lambda w, alpha: np.arcsinh(w / alpha**2),
        lambda w, alpha: np.sign(w) * np.log(np.abs(w) / alpha**2),
        lambda w, alpha: w / (2 * alpha**2),
        lambda w, alpha: np.arcsinh(w / (2 * alpha)),
    ],
    "diagonal-winner": [  # upside down; one taste for all x, strong or weak; the lengths the wrong way; a tie; no shape
        lambda x, i: 1 / favour(x, i),
        lambda x, i: np.where(np.arange(len(x)) == i, 1, 0.1),
        lambda x, i: np.where(np.arange(len(x)) == i, 1, 1e-4),
        *(
            lambda x, i, far=far: np.where(np.arange(len(x)) == i, far, 1)
            for far in (1e101, 1e110, 1e150, 1e200, 1e308)
        ),
        lambda x, i: np.where(np.arange(len(x)) == i, 1e308, 1e-300),
        lambda x, i: np.where(np.arange(len(x)) == i, 2, 1) * x,
        lambda x, i: 1 / x,
        lambda x, i: np.zeros_like(x),
        lambda x, i: (np.arange(len(x)) == i) * 1.0,
    ],
}


def test_the_judge_of_the_race_agrees_with_the_limit_from_a_tiny_start():
    rng, found = np.random.default_rng(0), []
    for _ in range(30):
        x, c, i = rng.uniform(0.2, 5, size=3), rng.uniform(0.2, 1, size=3), int(rng.integers(3))
        share = x * diagonal.limit(x[None], [1.0], log_alpha=-200.0, depth=3, signed=False, shape=c).w
        found.append(share[i] > 1 - 1e-6)
        assert (exercises._lost(c, None, x, i) == 0) == found[-1]
    assert 5 < sum(found) < 25
