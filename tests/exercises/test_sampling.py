"""Exercises on sampling noise: right answers are right in every form, and the likely mistakes are not."""

import math

import numpy as np
import pytest
from implicitreg.exercises import check
from scipy import stats


def weights(eps, b, *, power=0.5, less=1, centre=True, mean=True):
    """The answer of the solution; each option is a mistake."""
    n = eps.shape[1]
    scale = ((n - b) / (n - less)) ** power / math.sqrt(b * n)
    return mean / n + scale * (eps - centre * eps.mean(1, keepdims=True))


def by_cholesky(eps, b):
    """Another root: n - 1 numbers suffice."""
    n = eps.shape[1]
    L = np.linalg.cholesky((np.eye(n) - 1 / n)[1:, 1:] * (n - b) / (n - 1) / (b * n))
    rest = 1 / n + eps[:, 1:] @ L.T
    return np.hstack([1 - rest.sum(1, keepdims=True), rest])


def noise(G, kappa, c, *, less=True, total=True, outer=1.0):
    g = G.sum(1) if total else G.mean(1)
    return (kappa - less * c) * G @ G.T + outer * c * np.outer(g, g)


def chances(G, power=1.0, centre=False):
    lengths = np.linalg.norm(G - centre * G.mean(1, keepdims=True), axis=0) ** power
    return lengths / lengths.sum()


RIGHT = {
    "sampling-three": (1 / 6, 1 / 18),
    "sampling-negative": stats.norm.cdf(-np.sqrt(10 / 299)),
    "sampling-bell": weights,
    "sampling-many": noise,
    "sampling-nobody": (1 / 16, 6 / 16, 1),
    "sampling-chances": chances,
}
OTHER_FORMS = [
    ("sampling-three", [1 / 6, 1 / 18]),
    ("sampling-three", np.array([1 / 6, 1 / 18])),
    ("sampling-negative", 0.4274),
    ("sampling-negative", stats.norm.cdf(-np.sqrt(10 / 300))),
    ("sampling-bell", lambda eps, b: weights(eps, b).tolist()),
    ("sampling-bell", lambda eps, b: weights(-eps, b)),
    ("sampling-bell", lambda eps, b: by_cholesky(eps, b) if b < eps.shape[1] else weights(eps, b)),
    ("sampling-many", lambda G, kappa, c: np.asarray(noise(G, kappa, c)).tolist()),
    ("sampling-many", lambda G, kappa, c: kappa * G @ G.T + c * (np.outer(G.sum(1), G.sum(1)) - G @ G.T)),
    ("sampling-nobody", [0.0625, 0.375, 1.0]),
    ("sampling-chances", lambda G: list(chances(G))),
]
WRONG = {
    "sampling-three": [(1 / 18, 1 / 6), (1 / 6, 1 / 24), (1 / 6, 1 / 6), (1 / 2, 1 / 6), (1 / 6, 0), (1, 1 / 3)],
    "sampling-negative": [0.0, 0.5, stats.norm.cdf(-np.sqrt(10)), stats.norm.cdf(-10 / 300), stats.norm.cdf(-2)],
    "sampling-bell": [
        lambda eps, b: weights(eps, b, power=1.0),
        lambda eps, b: weights(eps, b, power=0.0),
        lambda eps, b: weights(eps, b, less=0),
        lambda eps, b: weights(eps, b, centre=False),
        lambda eps, b: weights(eps, b, mean=False),
        lambda eps, b: weights(np.abs(eps), b),
        lambda eps, b: weights(eps**2, b),
        lambda eps, b: weights(np.sign(eps), b),
        lambda eps, b: weights(np.floor(eps), b),
        lambda eps, b: weights(1.0 * (eps > 0), b),
        lambda eps, b: (
            weights(eps.T, b).T if eps.shape[0] == eps.shape[1] else weights(eps - eps.mean(0), b, centre=False)
        ),
    ],
    "sampling-many": [
        lambda G, kappa, c: noise(G, kappa, c, less=False),
        lambda G, kappa, c: noise(G, kappa, c, total=False),
        lambda G, kappa, c: noise(G, kappa, c, outer=0.0),
        lambda G, kappa, c: noise(G, kappa, c) / G.shape[1],
    ],
    "sampling-nobody": [
        (math.exp(-2), 3 / 8, 1),
        (0, 3 / 8, 1),
        (1 / 16, 1, 1),
        (1 / 16, 3 / 8, 1.5),
        (1 / 4, 1 / 2, 1),
    ],
    "sampling-chances": [
        lambda G: chances(G, power=0.0),
        lambda G: chances(G, power=2.0),
        lambda G: chances(G, centre=True),
        lambda G: np.linalg.norm(G, axis=0),
    ],
}


@pytest.mark.parametrize(
    ("label", "answer"), OTHER_FORMS, ids=[f"{label}-{k}" for k, (label, _) in enumerate(OTHER_FORMS)]
)
def test_a_right_answer_is_right_in_every_form(label, answer):
    assert check(label, answer)


def test_an_n_by_n_matrix_is_out_of_reach(capsys):
    def dense(G, kappa, c):
        n = G.shape[1]
        return G @ ((kappa - c) * np.eye(n) + c * np.ones((n, n))) @ G.T

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "eye", lambda n: (_ for _ in ()).throw(MemoryError(f"{n} by {n}")))
        assert not check("sampling-many", dense)
    assert "MemoryError" in capsys.readouterr().out
