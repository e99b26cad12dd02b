"""Statistics of gradients on random data and models: equal examples, zeros, one column, two examples.

The gradients and Hessians are those of quadratic losses, written down; networks are compared with single examples.
"""

import itertools
from itertools import permutations

import numpy as np
import pytest
import torch
from gradstats_cases import cross_entropy, squared_error
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import gradstats
from strategies import designs, quadratics
from torch import nn

FEW = settings(max_examples=settings().max_examples // 2)


def pairs(n):
    return list(permutations(range(n), 2))


@given(quadratics())
def test_moments_are_means_over_pairs_of_different_examples(case):
    """tr S = mean |g_i - g_j|² / 2 and the squared norm = mean g_i·g_j: nothing is subtracted."""
    arguments, g = case.arguments, case.g
    found = gradstats.moments(*arguments)
    size = 1 + np.abs(g).max() ** 2
    np.testing.assert_allclose(found.mean.numpy(), g.mean(0), rtol=0, atol=1e-12 * size)
    trace = np.mean([np.sum((g[i] - g[j]) ** 2) / 2 for i, j in pairs(len(g))])
    assert float(found.trace) == pytest.approx(trace, abs=1e-11 * size)
    assert float(found.sq_norm) == pytest.approx(np.mean([g[i] @ g[j] for i, j in pairs(len(g))]), abs=1e-11 * size)
    assert found.n == len(g)


@given(quadratics(least=1))
def test_rows_and_products_are_those_written_down(case):
    arguments, g = case.arguments, case.g
    size = 1 + np.abs(g).max() ** 2
    np.testing.assert_allclose(gradstats.per_example(*arguments).numpy(), g, rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(gradstats.gram(*arguments).numpy(), g @ g.T, rtol=0, atol=1e-11 * size)


@given(quadratics())
def test_slope_of_the_trace_is_a_mean_over_pairs(case):
    arguments, g, h = case.arguments, case.g, case.h
    expected = np.mean([(h[i] - h[j]) @ (g[i] - g[j]) for i, j in pairs(len(g))], axis=0)
    size = 1 + np.abs(g).max() * np.abs(h).max()
    np.testing.assert_allclose(gradstats.grad_trace(*arguments).numpy(), expected, rtol=0, atol=1e-11 * size)


@FEW
@given(quadratics(least=3))
def test_curvature_is_a_mean_over_triples_of_different_examples(case):
    """U-statistics: each kernel has the moment as its mean, and uses an example once."""
    arguments, g, h = case.arguments, case.g, case.h
    found = gradstats.curvature(*arguments)
    triples = list(permutations(range(len(g)), 3))
    d = lambda i, j: g[i] - g[j]  # noqa: E731
    kappa3 = np.mean([d(i, j) @ h[i] @ d(i, k) - d(i, j) @ h[k] @ d(i, j) / 2 for i, j, k in triples])
    trace = np.mean([d(i, j) @ h[k] @ d(i, j) / 2 for i, j, k in triples])
    slope = np.mean([g[k] @ (h[i] - h[j]) @ d(i, j) for i, j, k in triples])
    size = (1 + np.abs(g).max() ** 2) * (1 + np.abs(h).max())
    assert float(found.trace_H_Sigma) == pytest.approx(trace, abs=1e-10 * size)
    assert float(found.G_grad_trace) == pytest.approx(slope, abs=1e-10 * size)
    assert float(found.kappa3) == pytest.approx(kappa3, abs=1e-10 * size)


@st.composite
def layered(draw):
    """Inputs of quarters, possibly equal or zero, through up to two linear layers with and without bias."""
    X = draw(designs(max_n=4, max_d=3).filter(lambda X: len(X) > 1))
    sizes = [X.shape[1], *draw(st.lists(st.integers(1, 3), max_size=1)), 2]
    bias, logits = draw(st.booleans()), draw(st.booleans())
    torch.manual_seed(draw(st.integers(0, 99)))
    layers = [nn.Linear(a, b, bias=bias, dtype=torch.float64) for a, b in itertools.pairwise(sizes)]
    model = nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())][:-1])
    labels = torch.tensor(draw(st.lists(st.integers(0, 1), min_size=len(X), max_size=len(X))))
    targets = labels if logits else nn.functional.one_hot(labels, 2).double()
    return model, cross_entropy if logits else squared_error, torch.from_numpy(X), targets


@FEW
@given(layered())
def test_linear_layers_have_the_gradients_of_single_examples(arguments):
    """One backward pass an example, in plain autograd."""
    model, loss, inputs, targets = arguments
    rows = []
    for x, t in zip(inputs, targets, strict=True):
        slopes = torch.autograd.grad(loss(model(x[None]), t[None])[0], list(model.parameters()))
        rows.append(torch.cat([d.flatten() for d in slopes]))
    g = torch.stack(rows)
    size = 1 + float(g.abs().max()) ** 2
    np.testing.assert_allclose(gradstats.per_example(*arguments), g, rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(gradstats.gram(*arguments), g @ g.T, rtol=0, atol=1e-12 * size)
    found = gradstats.moments(*arguments)
    np.testing.assert_allclose(found.mean, g.mean(0), rtol=0, atol=1e-12 * size)
    assert float(found.trace) == pytest.approx(float(g.var(0).sum()), abs=1e-12 * size)


@FEW
@given(layered())
def test_statistics_follow_copies_order_and_scale_of_the_loss(arguments):
    """Twice the examples: the mean stays, sums of squares double. c times the loss: c, c² and c³."""
    model, loss, inputs, targets = arguments
    n = len(inputs)
    once = gradstats.moments(*arguments)
    twice = gradstats.moments(model, loss, torch.cat([inputs, inputs.flip(0)]), torch.cat([targets, targets.flip(0)]))
    np.testing.assert_allclose(twice.mean, once.mean, rtol=0, atol=1e-12)
    assert float(twice.trace) * (2 * n - 1) == pytest.approx(2 * (n - 1) * float(once.trace), abs=1e-11)
    scaled = model, lambda *a: 4 * loss(*a), inputs, targets
    assert float(gradstats.moments(*scaled).trace) == pytest.approx(16 * float(once.trace), abs=1e-10)
    slope, four = gradstats.grad_trace(*arguments), gradstats.grad_trace(*scaled)
    np.testing.assert_allclose(four, 16 * slope, rtol=0, atol=1e-10)
