"""Exercises on the maximum margin: right answers are right, and the likely mistakes are not."""

import numpy as np
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
    "margin-distance": [  # of the canonical separator; the output; no sign; the labels forgotten; the mean
        lambda X, y, w: 2 / np.linalg.norm(w),
        lambda X, y, w: np.min(y * (X @ w)),
        lambda X, y, w: np.min(np.abs(X @ w)) / np.linalg.norm(w),
        lambda X, y, w: np.min(X @ w) / np.linalg.norm(w),
        lambda X, y, w: np.mean(y * (X @ w)) / np.linalg.norm(w),
    ],
    "margin-interpolates": [  # always; never; equal lengths; no angle above a right one; the sum of the multipliers
        lambda Z: True,
        lambda Z: False,
        lambda Z: np.isclose(np.linalg.norm(Z[0]), np.linalg.norm(Z[1])),
        lambda Z: np.all(Z @ Z.T >= 0),
        lambda Z: np.sum(np.linalg.solve(Z @ Z.T, np.ones(len(Z)))) >= 0,
        lambda Z: np.all(Z @ Z.sum(0) >= 0),
        lambda Z: np.all(np.linalg.inv(Z @ Z.T) >= 0),
        lambda Z: np.linalg.solve(Z @ Z.T, np.ones(len(Z)))[0] >= 0,
    ],
    "margin-rate": [  # Shannon's entropy alone; the other alone; without the margin; the margin's square
        shannon_only,
        lambda a: -np.log(np.max(a**-2.0 / np.sum(a**-2.0))) / np.sqrt(np.sum(a**-2.0)),
        lambda a: rate(a) * np.sqrt(np.sum(a**-2.0)),
        lambda a: rate(a) / np.sqrt(np.sum(a**-2.0)),
        lambda a: -rate(a),
    ],
    "margin-wait": [  # the leading term; the time for its logarithm; the margin unsquared; without n
        lambda margin, n, eps: np.log(n) / eps,
        lambda margin, n, eps: (n ** (1 / eps) - 1) / (n * margin**2),
        lambda margin, n, eps: np.log((n ** (1 / eps) - 1) / (n * margin)),
        lambda margin, n, eps: np.log((n ** (1 / eps) - 1) / margin**2),
    ],
    "margin-slope": [  # the right side, too; the mean over the wrong side only; the worst point; the direction
        lambda V, Z: np.mean(-V @ wstar(Z)),
        lambda V, Z: -(V @ wstar(Z))[V @ wstar(Z) < 0].sum() / max(1, np.sum(V @ wstar(Z) < 0)),
        lambda V, Z: np.max(np.maximum(0, -V @ wstar(Z))),
        lambda V, Z: np.mean(np.maximum(0, -V @ wstar(Z))) / np.linalg.norm(wstar(Z)),
        lambda V, Z: 0.0,
    ],
}
