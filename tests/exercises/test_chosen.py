"""Exercises on chosen noise: right answers are right in several forms, and the likely mistakes are not."""

import numpy as np
import pytest
from implicitreg.exercises import check, grade
from implicitreg.exercises.chosen import _weighted
from scipy.stats import norm
from scipy.stats import t as student


def step(theta, W, gradients, eta):
    index = np.flatnonzero(W)
    return theta - eta * W[index] @ gradients(index)


def isotropic(G, b, e):
    return np.sqrt(G.var(axis=1).sum() / b / len(G)) * e


def half_width(a, c, spread=None, quantile=None, root=True):
    d = np.asarray(a) - np.asarray(c)
    spread = d.std(ddof=1) if spread is None else spread
    return (quantile or student.ppf(0.975, len(d) - 1)) * spread / (len(d) ** 0.5 if root else 1)


def turned(phi, C=(3, 0.5), F=(4, 0.5)):
    c, s = np.cos(phi) ** 2, np.sin(phi) ** 2
    return (C[0] * c + C[1] * s) * (F[0] * c + F[1] * s) + (C[0] * s + C[1] * c) * (F[0] * s + F[1] * c)


RIGHT = {
    "chosen-weaker": 7,
    "chosen-step": step,
    "chosen-isotropic": isotropic,
    "chosen-paired": half_width,
    "chosen-turned": turned,
}
WRONG = {
    "chosen-weaker": [7 / 6, 3.5, 100, 14, 49],
    "chosen-step": [
        lambda theta, W, gradients, eta: step(theta, W * (W > 0), gradients, eta),
        lambda theta, W, gradients, eta: step(theta, W / np.count_nonzero(W), gradients, eta),
        lambda theta, W, gradients, eta: step(theta, W, gradients, -eta),
        lambda theta, W, gradients, eta: theta - eta * gradients(np.flatnonzero(W)).mean(0),
    ],
    "chosen-isotropic": [
        lambda G, b, e: np.sqrt((G**2).mean(1).sum() / b / len(G)) * e,
        lambda G, b, e: np.sqrt(G.var(axis=1).sum() / b) / len(G) * e,
        lambda G, b, e: np.sqrt(G.var(axis=1, ddof=1).sum() / b / len(G)) * e,
        lambda G, b, e: G.var(axis=1).sum() / b / len(G) * e,
        lambda G, b, e: np.sqrt(G.var(axis=1) / b) * e,
    ],
    "chosen-paired": [
        lambda a, c: half_width(a, c, spread=np.hypot(np.std(a, ddof=1), np.std(c, ddof=1))),
        lambda a, c: half_width(a, c, quantile=norm.ppf(0.975)),
        lambda a, c: half_width(a, c, root=False),
        lambda a, c: half_width(a, c, spread=np.std(np.subtract(a, c))),
        lambda a, c: 2 * half_width(a, c),
    ],
    "chosen-turned": [
        lambda phi: 12.25,
        lambda phi: turned(phi, F=(3, 0.5)),
        lambda phi: 7.875,
        lambda phi: (
            4 * (3 * np.cos(phi) ** 2 + np.sin(phi) ** 2 / 2) + (3 * np.sin(phi) ** 2 + np.cos(phi) ** 2 / 2) / 2
        ),
    ],
}


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        ("chosen-weaker", np.float32(7)),
        ("chosen-weaker", np.array(3.5) / 0.5),
        ("chosen-step", lambda theta, W, gradients, eta: step(theta, W, gradients, eta).tolist()),
        ("chosen-step", lambda theta, W, gradients, eta: theta - eta * np.einsum(
            "i,ij->j", W[W != 0], gradients(W != 0))),
        ("chosen-isotropic", lambda G, b, e: (np.trace(np.cov(G, bias=True)) / (b * len(G))) ** 0.5 * e),
        ("chosen-isotropic", lambda G, b, e: list(isotropic(G, b, e))),
        ("chosen-turned", lambda phi: 7.875 + 4.375 * np.cos(2 * phi) ** 2),
    ],
    ids=["float32", "array", "list", "mask", "the covariance", "a list", "double angle"],
)  # fmt: skip
def test_other_forms_of_the_right_answer(label, answer):
    assert check(label, answer)


@pytest.mark.parametrize("ask", [lambda W: slice(None), lambda W: np.arange(len(W)), lambda W: W == 0, lambda W: -1])
def test_a_gradient_without_weight_is_refused(ask):
    _, W, gradients, _ = _weighted(np.random.default_rng(0))
    assert W[-1] == 0
    with pytest.raises(IndexError, match="asks for an example whose weight is zero"):
        gradients(ask(W))


def everyone(theta, W, gradients, eta):
    return theta - eta * np.nansum(W[:, None] * gradients(slice(None)), 0)


def catching(theta, W, gradients, eta):
    moved = theta.copy()
    for i, weight in enumerate(W):
        try:
            moved -= eta * weight * gradients(i)
        except IndexError:
            continue
    return moved


def test_asking_for_everyone_is_not_right_even_where_the_refusal_is_caught():
    assert grade("chosen-step", everyone).says.startswith("your function raised IndexError: gradients(slice(None")
    assert grade("chosen-step", catching).says.startswith("not yet. Hint: who has a weight")
