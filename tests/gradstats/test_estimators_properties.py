"""Estimators from products of gradients: U-statistics by listing, on random rows with copies, zeros and few columns."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import gradstats
from strategies import designs, vectors

FEW = settings(max_examples=settings().max_examples // 2)
ROWS = designs(max_n=6, max_d=3).filter(lambda g: len(g) >= 4)


def mean(kernel, n, k):
    """Over all lists of k different examples."""
    return np.mean([kernel(*chosen) for chosen in permutations(range(n), k)])


@FEW
@given(ROWS)
def test_from_gram_lists_different_examples(g):
    """Each kernel has the moment as its mean over independent gradients, and no example stands twice."""
    n, K, found = len(g), g @ g.T, gradstats.from_gram(g @ g.T)
    d = lambda i, j: g[i] - g[j]  # noqa: E731
    size = (1 + np.abs(g).max() ** 2 * g.shape[1]) ** 2
    expected = {
        "sq_norm": mean(lambda i, j: K[i, j], n, 2),
        "trace": mean(lambda i, j: d(i, j) @ d(i, j) / 2, n, 2),
        "G4": mean(lambda i, j, k, m: K[i, j] * K[k, m], n, 4),
        "G_Sigma_G": mean(lambda i, j, k, m: K[i, j] * K[i, k] - K[i, j] * K[k, m], n, 4),
        "trace_Sigma2": mean(lambda i, j, k, m: (d(i, j) @ d(k, m)) ** 2 / 4, n, 4),
    }
    for name, value in expected.items():
        assert float(getattr(found, name)) == pytest.approx(value, abs=1e-11 * size), name
    if expected["trace_Sigma2"] > 1e-6 * size:
        assert float(found.r_eff) == pytest.approx(expected["trace"] ** 2 / expected["trace_Sigma2"], rel=1e-8)


@FEW
@given(ROWS, st.data())
def test_from_gram_does_not_see_order_rotation_or_where_the_kernel_is_taken(g, data):
    order = list(data.draw(st.permutations(range(len(g)))))
    Q = np.linalg.qr(np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 3.0]])[: g.shape[1], : g.shape[1]])[0]
    size = (1 + np.abs(g).max() ** 2 * g.shape[1]) ** 2
    rows = g[order] @ Q
    a, b = gradstats.from_gram(g @ g.T), gradstats.from_gram(torch.from_numpy(rows @ rows.T))
    for name in ("sq_norm", "trace", "trace_Sigma2", "G_Sigma_G", "G4"):
        assert float(getattr(b, name)) == pytest.approx(float(getattr(a, name)), abs=1e-11 * size), name


@FEW
@given(ROWS, st.data())
def test_a_common_vector_leaves_the_covariance_alone(g, data):
    far = g + 64 * data.draw(vectors(g.shape[1]))
    a, b = (gradstats.from_gram(rows @ rows.T) for rows in (g, far))
    size = 1e-10 * (1 + np.abs(far).max() ** 2)
    assert float(b.trace) == pytest.approx(float(a.trace), abs=size)
    assert float(b.trace_Sigma2) == pytest.approx(float(a.trace_Sigma2), abs=size * (1 + abs(float(a.trace))))


@FEW
@given(designs(max_n=6, max_d=3).filter(lambda g: len(g) in (2, 4, 6)))
def test_two_halves_average_to_the_trace_over_all_halves(g):
    """Given the rows, over their orders: the mean is tr S exactly."""
    n, values = len(g), []
    for order in permutations(range(n)):
        b, c = g[list(order[: n // 2])].mean(0), g[list(order[n // 2 :])].mean(0)
        values.append(float(gradstats.two_halves(torch.from_numpy(b), torch.from_numpy(c), n)))
        assert values[-1] == pytest.approx(n / 4 * np.sum((b - c) ** 2), rel=1e-12, abs=1e-14)
    assert np.mean(values) == pytest.approx(g.var(0, ddof=1).sum(), abs=1e-11 * (1 + np.abs(g).max() ** 2))
