"""Exercises on resummation: right answers are right, and the likely mistakes are not."""

import itertools

import numpy as np
import pytest
from implicitreg.exercises import check


def change(T, eta, H, G, C, kept=lambda h: abs(h) > 1e-9):
    h, U = np.linalg.eigh(H)
    U, h = U[:, kept(h)], h[kept(h)]
    g, c = U.T @ G, np.diag(U.T @ C @ U)
    K = 1 - eta * h
    pushed = g * (1 - K**T) / h
    noise = c * h * (1 - K ** (2 * T)) / (1 - K**2)
    return -g @ pushed + h @ pushed**2 / 2 + eta**2 / 2 * noise.sum()


def by_the_limit(T, eta, H, G, C):
    """T taken for infinity: the soft direction is still under way."""
    h, U = np.linalg.eigh(H)
    U, h = U[:, h > 1e-9], h[h > 1e-9]
    g, c = U.T @ G, np.diag(U.T @ C @ U)
    return -g @ (g / h) / 2 + eta / 2 * np.sum(c / (2 - eta * h))


def by_doubling(T, eta, H, G, C):
    """The same sums over the steps by halving T: no eigenvectors."""
    if T == 0:
        return np.eye(len(G)), np.zeros(len(G)), np.zeros_like(H)
    P, moved, noise = by_doubling(T // 2, eta, H, G, C)
    P, moved, noise = P @ P, moved + P @ moved, noise + P @ noise @ P
    if T % 2:
        K = np.eye(len(G)) - eta * H
        P, moved, noise = K @ P, G + K @ moved, C + K @ noise @ K
    return P, moved, noise


def change_by_doubling(T, eta, H, G, C):
    _, moved, noise = by_doubling(T, eta, H, G, C)
    return -eta * G @ moved + eta**2 / 2 * (moved @ H @ moved + np.trace(H @ noise))


RIGHT = {
    "resummation-ways": 128,
    "resummation-floor": lambda eta, h, C: eta * C / (2 * (2 - eta * h)),
    "resummation-left": [5, 1],
    "resummation-moments": -56,
    "resummation-next": 8,
    "resummation-three": change,
}
WRONG = {
    "resummation-ways": [64, 7, 127, 120, 256],
    "resummation-floor": [
        lambda eta, h, C: eta * C / 4,
        lambda eta, h, C: eta * C / (2 - eta * h),
        lambda eta, h, C: eta * C / (2 * h * (2 - eta * h)),
        lambda eta, h, C: eta * C * h / (2 * (2 - eta * h)),
    ],
    "resummation-left": [[4, 1], [6, 1], [5, 0], [5, 2], [3, 1], [1, 5]],
    "resummation-next": [1, 2, 4, 6, 7],
    "resummation-moments": [-40, -36, -24, 56, -72],
    "resummation-three": [
        by_the_limit,
        lambda T, eta, H, G, C: change(T, eta, H, G, 0 * C),
        lambda T, eta, H, G, C: change(T, eta, H, G, T * C),
        lambda T, eta, H, G, C: change(T, eta, H + 1e-6 * np.eye(5), G, C),
        lambda T, eta, H, G, C: change(T, eta, H, G, C, kept=lambda h: h > 1e-9),  # downwards: lost
    ],
}


@pytest.mark.parametrize("answer", [128.0, 2**7, np.float32(128), np.int64(128)])
def test_ways_in_several_forms(answer):
    assert check("resummation-ways", answer)


@pytest.mark.parametrize("answer", [(5, 1), np.array([5.0, 1.0]), [5.0, 1]])
def test_counts_in_several_forms(answer):
    assert check("resummation-left", answer)


@pytest.mark.parametrize("answer", [-56.0, np.float32(-56)])
def test_the_coefficient_in_several_forms(answer):
    assert check("resummation-moments", answer)


def grown(d):
    """Trees with d arrows in which a free dot, but for the beginnings, has two arrows in, the square two or three."""
    for parents in itertools.product(*[range(v + 1, d + 1) for v in range(d)]):
        arrows = [parents.count(v) for v in range(d + 1)]
        if all(n in (0, 2) for n in arrows[:d]) and arrows[d] in (2, 3):
            yield parents


def splits(items):
    if not items:
        yield []
        return
    for rest in splits(items[1:]):
        yield [[items[0]], *rest]
        for i, group in enumerate(rest):
            yield [*rest[:i], [items[0], *group], *rest[i + 1 :]]


def shape(parents, group, names):
    below = lambda v: "".join(sorted(f"({below(w)})" for w, p in enumerate(parents) if p == v)) or str(names[group[v]])  # noqa: E731
    return below(len(parents))


def test_the_next_size_counted_one_by_one():
    found = set()
    for d in range(2, 7):
        for parents in grown(d):
            begins = [v for v in range(d) if v not in parents]
            for groups in splits(begins):
                if min(map(len, groups)) > 1 and len(begins) - len(groups) == 2:
                    group = {v: i for i, g in enumerate(groups) for v in g}
                    found.add(min(shape(parents, group, n) for n in itertools.permutations(range(len(groups)))))
    assert len(found) == 8


def test_a_floor_by_other_formulas():
    assert check("resummation-floor", lambda eta, h, C: eta**2 * C * h / 2 / (1 - (1 - eta * h) ** 2))
    assert check("resummation-floor", lambda eta, h, C: [eta * C / (4 - 2 * eta * h)][0])


def test_a_million_steps_by_doubling():
    assert check("resummation-three", change_by_doubling)
