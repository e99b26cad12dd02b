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
from strategies import Quadratic, designs, quadratics
from torch import nn

FEW = settings(max_examples=settings().max_examples // 2)
QUARTER = settings(max_examples=settings().max_examples // 4)


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


def same(a, b, size=1.0):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-11 * float(size))


@FEW
@given(quadratics(least=3))
def test_the_reference_loop_has_the_sums_over_different_examples(case):
    naive, (g, h), n = gradstats.naive, (case.g, case.h), len(case.g)
    size = (1 + np.abs(g).max() ** 2) * (1 + np.abs(h).max())
    same(naive.per_example(*case.arguments), g, size)
    same(naive.gram(*case.arguments), g @ g.T, size)
    found = naive.moments(*case.arguments)
    same(found.mean, g.mean(0), size)
    same(found.trace, np.mean([np.sum((g[i] - g[j]) ** 2) / 2 for i, j in pairs(n)]), size)
    same(found.sq_norm, np.mean([g[i] @ g[j] for i, j in pairs(n)]), size)
    same(naive.grad_trace(*case.arguments), np.mean([(h[i] - h[j]) @ (g[i] - g[j]) for i, j in pairs(n)], 0), size)
    bent, d = naive.curvature(*case.arguments), lambda i, j: g[i] - g[j]
    triples = list(permutations(range(n), 3))
    same(bent.kappa3, np.mean([d(i, j) @ h[i] @ d(i, k) - d(i, j) @ h[k] @ d(i, j) / 2 for i, j, k in triples]), size)
    same(bent.trace_H_Sigma, np.mean([d(i, j) @ h[k] @ d(i, j) / 2 for i, j, k in triples]), size)
    same(bent.G_grad_trace, np.mean([g[k] @ (h[i] - h[j]) @ d(i, j) for i, j, k in triples]), size)


@QUARTER
@given(quadratics())
def test_slope_of_the_trace_is_a_central_difference(case):
    """Quadratic losses make tr S quadratic: the step 1 is exact."""
    model, *rest = case.arguments

    def trace(move):
        with torch.no_grad():
            model.theta += torch.from_numpy(move)
        value = float(gradstats.moments(model, *rest).trace)
        with torch.no_grad():
            model.theta -= torch.from_numpy(move)
        return value

    slope = [(trace(e) - trace(-e)) / 2 for e in np.eye(case.g.shape[1])]
    same(gradstats.grad_trace(*case.arguments), slope, 1 + (np.abs(case.g).max() + np.abs(case.h).max()) ** 2)


@QUARTER
@given(quadratics(least=3), st.data())
def test_a_loss_that_all_examples_share_leaves_what_is_centred(case, data):
    """kappa3, tr S and its slope do not see it, nor the order; tr(H Sigma) gains the product with its Hessian."""
    model, loss, inputs, _ = case.arguments
    order = torch.tensor(data.draw(st.permutations(range(len(inputs)))))
    more = inputs[order] + 4 * inputs[0]  # the loss is linear in its input
    other, p = (model, loss, more, more), case.g.shape[1]
    size = (1 + 25 * np.abs(case.g).max() ** 2) * (1 + 5 * np.abs(case.h).max())
    a, b = gradstats.curvature(*case.arguments), gradstats.curvature(*other)
    same(b.kappa3, a.kappa3, size)
    same(gradstats.moments(*other).trace, gradstats.moments(*case.arguments).trace, size)
    same(gradstats.grad_trace(*other), gradstats.grad_trace(*case.arguments), size)
    S = np.cov(case.g.T).reshape(p, p)
    same(b.trace_H_Sigma - a.trace_H_Sigma, 4 * np.sum(case.h[0] * S), size)
    slope = gradstats.grad_trace(*case.arguments).numpy()
    same(b.G_grad_trace - a.G_grad_trace, 4 * case.g[0] @ slope, size)


def rows_of(arguments):
    """One backward pass an example, which can be differentiated again; the parameters."""
    model, loss, inputs, targets = arguments
    theta = [p for p in model.parameters() if p.requires_grad]
    losses = [loss(model(x[None]), t[None])[0] for x, t in zip(inputs, targets, strict=True)]
    slopes = [torch.autograd.grad(value, theta, create_graph=True) for value in losses]
    return torch.stack([torch.cat([d.flatten() for d in row]) for row in slopes]), theta


def slope_of(value, theta):
    parts = torch.autograd.grad(value, theta, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


@QUARTER
@given(layered())
def test_second_derivatives_of_layers_are_those_of_plain_autograd(arguments):
    """The slope of the trace through all rows; kappa3 by whole Hessians, and what joins it with that slope."""
    g, theta = rows_of(arguments)
    n, mean = len(g), g.mean(0).detach()
    pull = slope_of(g.var(0).sum(), theta)
    size = 1 + float(g.detach().abs().max()) ** 2
    for verify in (True, False):  # False: no comparison with the loop, which would repair a wrong answer
        same(gradstats.grad_trace(*arguments, verify=verify), pull, 10 * size)
        same(gradstats.moments(*arguments, verify=verify).trace, g.var(0).sum().detach(), size)
        same(gradstats.gram(*arguments, verify=verify), (g @ g.T).detach(), 10 * size)
    if n < 3:
        return
    h = torch.stack([torch.stack([slope_of(entry, theta) for entry in row]) for row in g])
    c = g.detach() - mean
    kappa3 = n / ((n - 1) * (n - 2)) * torch.einsum("ia,iab,ib->", c, h - h.mean(0), c)
    found = gradstats.curvature(*arguments)
    size = size * (1 + float(h.abs().max()))
    same(found.kappa3, kappa3, 10 * size)
    same(found.trace_H_Sigma, torch.einsum("ia,ab,ib->", c, h.mean(0), c) / (n - 1) - kappa3 / n, 10 * size)
    same(found.G_grad_trace, mean @ pull - 2 * kappa3 / n, 10 * size)


@QUARTER
@given(layered(), st.data())
def test_chunks_and_parts_of_the_parameters_add_up(arguments, data):
    """Any chunk; frozen parameters: products of gradients are sums over two parts, the mean is their union."""
    model, _, inputs, _ = arguments
    whole, K, slope = gradstats.moments(*arguments), gradstats.gram(*arguments), gradstats.grad_trace(*arguments)
    size = 1 + float(K.abs().max())
    for chunk in range(1, len(inputs) + 1):
        part = gradstats.moments(*arguments, chunk_size=chunk)
        for a, b in ((part.mean, whole.mean), (part.trace, whole.trace), (part.sq_norm, whole.sq_norm)):
            same(a, b, size)
        same(gradstats.gram(*arguments, chunk_size=chunk), K, size)
        same(gradstats.grad_trace(*arguments, chunk_size=chunk), slope, 10 * size)
    parameters = list(model.parameters())
    chosen = data.draw(st.sets(st.integers(0, len(parameters) - 1), min_size=1))
    if len(chosen) == len(parameters):
        return
    halves = []
    for side in (True, False):
        for k, parameter in enumerate(parameters):
            parameter.requires_grad_((k in chosen) == side)
        halves.append((gradstats.moments(*arguments), gradstats.gram(*arguments)))
    (a, Ka), (b, Kb) = halves
    same(Ka + Kb, K, size)
    same(a.trace + b.trace, whole.trace, size)
    same(a.sq_norm + b.sq_norm, whole.sq_norm, size)
    where = torch.cat([torch.full((q.numel(),), k in chosen) for k, q in enumerate(parameters)])
    same(a.mean, whole.mean[where], size)
    same(b.mean, whole.mean[~where], size)


@st.composite
def convolutions(draw):
    """One layer with stride, padding, dilation and groups, and a linear one; pixels of quarters, often equal images."""
    stride, padding, dilation, groups = (draw(st.integers(low, high)) for low, high in ((1, 2), (0, 1), (1, 2), (1, 2)))
    images = draw(designs(max_n=4, max_d=4).filter(lambda X: len(X) > 1))
    inputs = torch.from_numpy(np.resize(images, (len(images), 2, 4, 4)) + np.arange(16).reshape(4, 4) / 16)
    torch.manual_seed(draw(st.integers(0, 99)))
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    model = nn.Sequential(nn.Conv2d(2, 2, 2, **options), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)).double()
    model(inputs)
    return model, squared_error, inputs, inputs[:, 0, 0, :2]


@QUARTER
@given(convolutions())
def test_convolutions_have_the_derivatives_of_plain_autograd(arguments):
    """Without the comparison with the loop, which would repair them."""
    g, theta = rows_of(arguments)
    size = 1 + float(g.detach().abs().max()) ** 2
    same(gradstats.per_example(*arguments, verify=False), g.detach(), size)
    same(gradstats.gram(*arguments, verify=False), (g @ g.T).detach(), 10 * size)
    found = gradstats.moments(*arguments, verify=False)
    same(found.trace, g.var(0).sum().detach(), 10 * size)
    same(gradstats.grad_trace(*arguments, verify=False), slope_of(g.var(0).sum(), theta), 100 * size)


@QUARTER
@given(layered().filter(lambda case: len(case[2]) == 4))
def test_the_gram_matrix_has_the_moments_of_the_model(arguments):
    found, direct = gradstats.from_gram(gradstats.gram(*arguments)), gradstats.moments(*arguments)
    size = 1 + float(direct.trace) + abs(float(direct.sq_norm))
    same(found.trace, direct.trace, size)
    same(found.sq_norm, direct.sq_norm, size)


def test_dividing_by_n_or_leaving_the_bias_in_is_another_number():
    """Gradients 1, 2, 6 with Hessians equal to them: the plain averages differ from the unbiased ones."""
    g = np.array([1.0, 2.0, 6.0])
    x = torch.from_numpy(np.c_[0 * g, g])
    found = gradstats.curvature(Quadratic(np.ones(1)), lambda outputs, _: outputs, x, x)
    c = g - g.mean()
    third = 3 / 2 * np.sum(c**3)
    assert float(found.kappa3) == pytest.approx(third, rel=1e-12)
    assert float(found.trace_H_Sigma) == pytest.approx(g.mean() * g.var(ddof=1) - third / 3, rel=1e-12)
    assert abs(float(found.trace_H_Sigma) - g.mean() * g.var(ddof=1)) > 1
    assert abs(float(found.kappa3) - np.mean(c**3)) > 1
