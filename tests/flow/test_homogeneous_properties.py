"""Homogeneous networks on random data: degree, gradients, margins, what is conserved; zeros, copies, one example."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from implicitreg.flow import homogeneous as hom
from implicitreg.flow import maxmargin
from scipy.integrate import solve_ivp
from scipy.special import softmax
from strategies import designs, fractions, separable, vectors

FEW = settings(max_examples=settings().max_examples // 4)


@st.composite
def networks(draw):
    """A network of each kind on data with labels of both signs, its parameters, and its outputs in torch."""
    X = draw(designs(max_n=3, max_d=3))
    y = np.array(draw(st.lists(st.sampled_from([1.0, -1.0]), min_size=len(X), max_size=len(X))))
    kind, d = draw(st.sampled_from(["linear", "diagonal", "relu"])), X.shape[1]
    if kind == "linear":
        hidden = draw(st.lists(st.integers(1, 3), max_size=2))
        net, degree = hom.DeepLinear(X, y, hidden), len(hidden) + 1
    elif kind == "diagonal":
        degree = draw(st.integers(1, 4))
        net = hom.Diagonal(X, y, degree)
    else:
        width = draw(st.integers(1, 3))
        net, degree = hom.ReLU(X, y, width), 2
    theta = draw(vectors(net.size, top=6).filter(lambda theta: theta.any()))

    def outputs(parameters):
        """Signed outputs, written once more."""
        inputs, labels = torch.from_numpy(X), torch.from_numpy(y)
        if kind == "linear":
            sizes = [d, *hidden, 1]
            out, at = inputs.T, 0
            for a, b in itertools.pairwise(sizes):
                out, at = parameters[at : at + a * b].reshape(b, a) @ out, at + a * b
            return labels * out[0]
        if kind == "diagonal":
            return labels * (inputs @ (parameters[:d] ** degree - parameters[d:] ** degree))
        W, a = parameters[: width * d].reshape(width, d), parameters[width * d :]
        return labels * (torch.relu(inputs @ W.T) @ a)

    return net, degree, theta, outputs


@given(networks(), fractions(12).filter(lambda c: c > 0))
def test_outputs_are_homogeneous_and_obey_euler(problem, c):
    net, degree, theta, outputs = problem
    q = net.q(theta)
    np.testing.assert_allclose(q, outputs(torch.from_numpy(theta)).numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(net.q(c * theta), c**degree * q, rtol=1e-12, atol=1e-12)
    assert (net.degree, net.size) == (degree, len(theta))
    for i, unit in enumerate(np.eye(len(q))):
        assert theta @ net.pullback(theta, unit) == pytest.approx(degree * q[i], rel=1e-11, abs=1e-11)


@given(networks(), st.data())
def test_pullback_is_automatic_differentiation(problem, data):
    net, _, theta, outputs = problem
    p = data.draw(vectors(len(net.q(theta))))
    at = torch.from_numpy(theta).requires_grad_()
    (outputs(at) @ torch.from_numpy(p)).backward()
    np.testing.assert_allclose(net.pullback(theta, p), at.grad.numpy(), rtol=1e-11, atol=1e-11)


@given(networks())
def test_margins_enclose_each_other(problem):
    net, degree, theta, _ = problem
    q, n, size = net.q(theta), len(net.q(theta)), np.linalg.norm(theta) ** degree
    found = hom.log_inverse_loss(net, theta)
    assert found == pytest.approx(-np.log(np.exp(-q).sum()), rel=1e-10, abs=1e-10)
    smooth, margin = hom.smoothed_margin(net, theta), hom.normalized_margin(net, theta)
    assert smooth == pytest.approx(found / size, rel=1e-10, abs=1e-12)
    assert margin == pytest.approx(q.min() / size, rel=1e-10, abs=1e-12)
    slack = 1e-12 * (1 + abs(margin))
    assert smooth - slack <= margin <= smooth + np.log(n) / size + slack
    assert hom.normalized_margin(net, 4 * theta) == pytest.approx(margin, rel=1e-10, abs=1e-12)


@FEW
@given(separable(max_n=3, max_d=2), st.lists(st.integers(1, 2), max_size=2), st.data())
def test_flow_of_linear_networks_conserves_the_imbalance_and_does_not_lose_margin(problem, hidden, data):
    net = hom.DeepLinear(*problem, hidden)
    theta = data.draw(vectors(net.size, top=6).filter(lambda theta: theta.any()))
    p = softmax(-net.q(theta))
    assume(np.linalg.norm(net.pullback(theta, p)) > 1e-3)
    path = hom.gradient_flow(net, theta, [0.0, 0.1, 0.3])
    np.testing.assert_allclose(path[0], theta, rtol=1e-12, atol=1e-12)
    values = [hom.log_inverse_loss(net, w) for w in path]
    assert values == sorted(values)
    before, after = (hom.layer_imbalance(net.layers(w)) for w in path[[0, -1]])
    for a, b, (lower, upper) in zip(
        before, after, zip(net.layers(theta), net.layers(theta)[1:], strict=False), strict=True
    ):
        np.testing.assert_allclose(a, upper.T @ upper - lower @ lower.T, rtol=0, atol=1e-12)
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-6 * np.sum(path[-1] ** 2))
    if values[0] > 0:
        margins = [hom.smoothed_margin(net, w) for w in path]
        assert all(b >= a - 1e-8 for a, b in itertools.pairwise(margins))


@FEW
@given(separable(max_n=3, max_d=2), st.data())
def test_flow_of_relu_networks_conserves_the_imbalance_of_each_neuron(problem, data):
    net = hom.ReLU(*problem, 2)
    theta = data.draw(vectors(net.size, top=6))
    assume(np.linalg.norm(net.pullback(theta, softmax(-net.q(theta)))) > 1e-3)
    try:
        path = hom.gradient_flow(net, theta, [0.0, 0.2])
    except ArithmeticError:  # all neurons fall silent on the way, and the path ends
        reject()
    before, after = (hom.neuron_imbalance(*net.layers(w)) for w in path)
    W, a = net.layers(theta)
    np.testing.assert_allclose(before, (W**2).sum(1) - a**2, rtol=0, atol=1e-12)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.sum(path[-1] ** 2))


@given(separable(), st.integers(1, 4))
def test_the_largest_margin_of_a_linear_network_is_reached_and_satisfies_the_conditions(problem, depth):
    """Layers of rank one and of one norm along the hard-margin direction; no other parameters have more."""
    X, y = problem
    svm = maxmargin.hard_margin(X, y)
    found = hom.deep_linear_margin(X, y, depth)
    assert found == pytest.approx(svm.margin * depth ** (-depth / 2), rel=1e-8)
    net = hom.DeepLinear(X, y, [1] * (depth - 1))
    theta = np.r_[svm.w * svm.margin, np.ones(depth - 1)]
    assert hom.normalized_margin(net, theta) == pytest.approx(found, rel=1e-8)
    kkt = hom.kkt_residual(net, 3 * theta)
    assert max(np.abs(kkt.stationarity).max(), np.abs(kkt.slackness).max()) < 1e-6
    assert (np.asarray(kkt.dual) >= 0).all()


@given(separable(), st.integers(1, 3), st.data())
def test_no_linear_network_has_a_larger_margin(problem, depth, data):
    net = hom.DeepLinear(*problem, [2] * (depth - 1))
    theta = data.draw(vectors(net.size).filter(lambda theta: theta.any()))
    assert hom.normalized_margin(net, theta) <= hom.deep_linear_margin(*problem, depth) * (1 + 1e-9)


@given(designs(max_n=4, max_d=3), st.data())
def test_alignment_of_layers_of_rank_one_along_each_other_is_complete(X, data):
    """And is that of the singular vectors in general."""
    v = data.draw(vectors(X.shape[1]).filter(lambda v: v.any()))
    u = data.draw(vectors(len(X)).filter(lambda u: u.any()))
    layers = [np.outer(u, v), np.outer(data.draw(vectors(2).filter(lambda a: a.any())), u)]
    found = hom.alignment(layers)
    np.testing.assert_allclose(found.rank_ratio, 0, atol=1e-12)
    np.testing.assert_allclose(found.overlap, 1, rtol=1e-12)
    np.testing.assert_allclose(found.norms, [np.linalg.norm(W) for W in layers], rtol=1e-12)


@given(st.integers(1, 4), st.data())
def test_the_bound_on_the_plane_bounds_every_network(n, data):
    """The right side by a fine grid of angles and the kinks, and the margin of a random network below it."""
    X = data.draw(st.lists(vectors(2), min_size=n, max_size=n).map(np.array))
    assume((np.abs(X).sum(1) > 0).all())
    y = np.array(data.draw(st.lists(st.sampled_from([1.0, -1.0]), min_size=n, max_size=n)))
    p = np.array(data.draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)), dtype=float)
    p /= p.sum()
    found = hom.relu_margin_bound(X, y, p)
    kinks = np.arctan2(X[:, 1], X[:, 0])
    angles = np.r_[np.linspace(0, 2 * np.pi, 4001), kinks - np.pi / 2, kinks + np.pi / 2]
    sums = (p * y) @ np.maximum(X @ [np.cos(angles), np.sin(angles)], 0)
    size = p @ np.linalg.norm(X, axis=1)
    assert np.abs(sums).max() / 2 == pytest.approx(found, abs=1e-5 * size)
    assert found >= np.abs(sums).max() / 2 - 1e-12 * size
    net = hom.ReLU(X, y, 2)
    theta = data.draw(vectors(net.size).filter(lambda theta: theta.any()))
    assert hom.normalized_margin(net, theta) <= found + 1e-12 * size


@FEW
@given(separable(max_n=3, max_d=2), st.sampled_from(["linear", "diagonal"]), st.integers(1, 3), st.data())
def test_the_flow_solves_its_equation(problem, kind, depth, data):
    """d theta / d tau = |theta| g / |g|, the gradient by torch."""
    X, y = problem
    net = hom.DeepLinear(X, y, [2] * (depth - 1)) if kind == "linear" else hom.Diagonal(X, y, depth)
    theta = data.draw(vectors(net.size, top=6).filter(lambda theta: theta.any()))
    inputs, labels, d = torch.from_numpy(X), torch.from_numpy(y), X.shape[1]

    def loss(at):
        if kind == "diagonal":
            q = inputs @ (at[:d] ** depth - at[d:] ** depth)
        else:
            out, used = inputs.T, 0
            for a, b in itertools.pairwise([d, *[2] * (depth - 1), 1]):
                out, used = at[used : used + a * b].reshape(b, a) @ out, used + a * b
            q = out[0]
        return torch.exp(-labels * q).sum()

    def gradient(theta):
        at = torch.from_numpy(theta.copy()).requires_grad_()
        return -torch.autograd.grad(loss(at), at)[0].numpy()

    assume(np.linalg.norm(gradient(theta)) > 1e-2)
    speed = lambda _, w: np.linalg.norm(w) * gradient(w) / np.linalg.norm(gradient(w))  # noqa: E731
    run = solve_ivp(speed, (0, 0.25), theta, "DOP853", rtol=1e-9, atol=1e-10)
    assume(all(np.linalg.norm(gradient(w)) > 1e-3 for w in run.y.T))  # near a saddle the direction is not defined
    found = hom.gradient_flow(net, theta, [0.25, 0.0])
    np.testing.assert_allclose(found, [run.y[:, -1], theta], rtol=0, atol=1e-6 * np.linalg.norm(theta))


@st.composite
def right(draw):
    """A network with parameters that have every label: examples with the output 0 are left out."""
    X, kind = draw(designs(max_n=3, max_d=3)), draw(st.sampled_from([0, 1, 2]))
    make = [
        lambda X, y: hom.DeepLinear(X, y, [2]), lambda X, y: hom.Diagonal(X, y, 3), lambda X, y: hom.ReLU(X, y, 2)
    ][kind]  # fmt: skip
    net = make(X, np.ones(len(X)))
    theta = draw(vectors(net.size, top=6))
    assume(theta.any())
    out = net.q(theta)
    keep = np.abs(out) > 1e-3
    assume(keep.any())
    return make(X[keep], np.sign(out[keep])), net.degree, theta


@given(right())
def test_residuals_are_those_of_the_multipliers_which_are_the_best(problem):
    """Least squares over multipliers that are not negative: no slope leads on. The scale of theta is none."""
    net, degree, theta = problem
    q = net.q(theta)
    kkt, other = hom.kkt_residual(net, theta), hom.kkt_residual(net, 4 * theta)
    at = theta / q.min() ** (1 / degree)
    J, slack, size = np.array([net.pullback(at, e) for e in np.eye(len(q))]), net.q(at) - 1, np.linalg.norm(at)
    off = at - kkt.dual @ J
    assert (kkt.dual >= 0).all()
    assert kkt.stationarity == pytest.approx(np.linalg.norm(off) / size, abs=1e-9)
    assert kkt.slackness == pytest.approx(kkt.dual @ slack / size**2, abs=1e-9)
    slope = slack**2 * kkt.dual / size**4 - J @ off / size**2
    scale = 1 + np.abs(J).max() ** 2 + np.abs(slack).max() ** 2
    assert slope.min() > -1e-9 * scale
    np.testing.assert_allclose(slope * kkt.dual, 0, rtol=0, atol=1e-8 * scale * (1 + kkt.dual.max()))
    assert other.stationarity == pytest.approx(kkt.stationarity, abs=1e-7)


@given(designs(max_n=3, max_d=3), st.integers(1, 3), st.data())
def test_alignment_is_that_of_the_eigenvectors_of_gram_matrices(first, width, data):
    second = data.draw(vectors(width * len(first))).reshape(width, -1)
    assume(first.any() and second.any())
    found = hom.alignment([first, second])
    values, left = np.linalg.eigh(first @ first.T)
    others, right = np.linalg.eigh(second.T @ second)
    np.testing.assert_allclose(found.norms, [np.sqrt(values.sum()), np.sqrt(others.sum())], rtol=1e-12)
    for k, (W, spectrum) in enumerate([(first, values), (second, others)]):
        ratio = np.sqrt(max(spectrum[-2], 0) / spectrum[-1]) if min(W.shape) > 1 else 0
        assert found.rank_ratio[k] == pytest.approx(ratio, abs=1e-7)
    simple = all(len(s) == 1 or s[-1] - s[-2] > 1e-3 * s[-1] for s in (values, others))
    if simple:
        assert found.overlap[0] == pytest.approx(abs(left[:, -1] @ right[:, -1]), abs=1e-9)
