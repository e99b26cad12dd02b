"""Drift on one data set, on random problems: samplers by all their choices, paths by the loop, an equation solved."""

from itertools import combinations, permutations, product
from math import factorial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem
from implicitreg.gap import one_data_set, onestep
from scipy.integrate import solve_ivp
from strategies import by_hand, finite_problems, nodes, taylor, vectors

FEW = settings(max_examples=settings().max_examples // 4)
MOMENTA = st.sampled_from([0.0, 0.5, 0.875])


def shares(batch, N):
    return np.bincount(batch, minlength=N) / len(batch)


@given(st.sampled_from([(2, 1), (2, 2), (3, 3), (4, 2), (4, 4), (4, 1)]), st.sampled_from([1, 2]))
def test_two_numbers_are_variances_over_all_choices(plan, epochs):
    """Weights by listing: the orders of an epoch; the subsets and the lists of one step."""
    N, K = plan
    n = N // K
    spread = lambda V: np.sum(np.mean(V**2, 0) - np.mean(V, 0) ** 2)  # noqa: E731
    orders = np.array([[shares(o[k : k + n], N) for k in range(0, N, n)] for o in permutations(range(N))])
    subsets = spread(np.array([shares(b, N) for b in combinations(range(N), n)]))
    lists = spread(np.array([shares(b, N) for b in product(range(N), repeat=n)]))
    for sampler, D, A in [
        ("gd", 0, 0),
        ("epochs", epochs * sum(spread(orders[:, t]) for t in range(K)), epochs * spread(orders.sum(1))),
        ("subsets", epochs * K * subsets, epochs * K * subsets),
        ("with_replacement", epochs * K * lists, epochs * K * lists),
    ]:
        found = one_data_set.two_numbers(sampler, N=N, K=K, epochs=epochs)
        np.testing.assert_allclose([found.D, found.A], [D, A], rtol=0, atol=1e-12)
        np.testing.assert_allclose([found.drift, found.spread], [(D - A) / 4, A], rtol=0, atol=1e-12)


@FEW
@given(finite_problems(max_dim=1), st.sampled_from([1 / 4, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_fixed_horizon_solves_its_equations(problem, tau, a):
    """One weight, derivatives of the polynomials by hand."""
    m, v = problem.m, 1 / 2
    if m == 1:
        return
    data = FiniteProblem(problem.losses, np.full(m, 1 / m), problem.theta0)

    def derivative(k, theta):
        return np.array([sum(c * theta ** (j - k) / factorial(j - k) for (j,), c in loss.jet.items() if j >= k)
                         for loss in problem.losses])  # fmt: skip

    def slope(_, state):
        theta, shift, C = state
        g, h, third = (derivative(k, theta) for k in (1, 2, 3))
        S, trace = g.var(ddof=1), 2 * np.cov(g, h)[0, 1]
        H = h.mean()
        return [-g.mean(), -H * shift - v / 4 * (1 - a) * trace - a / 2 * third.mean() * C, -2 * H * C + v * S]

    run = solve_ivp(slope, (0, tau), [problem.theta0[0], 0.0, 0.0], "LSODA", rtol=1e-10, atol=1e-12)
    found = one_data_set.fixed_horizon(data, tau, v=v, a=a)
    np.testing.assert_allclose(
        [found.theta[0], found.m[0], found.C[0, 0]], run.y[:, -1], rtol=0, atol=1e-7 * (1 + np.abs(run.y).max())
    )


@FEW
@given(finite_problems(max_examples=3), st.sampled_from([1, 2]))
def test_data_drift_is_the_two_numbers_along_the_slope_of_the_sample_trace(problem, epochs):
    m = problem.m
    if m == 1:
        return
    uniform = FiniteProblem(problem.losses, np.full(m, 1 / m), problem.theta0)
    slope = onestep.moments(uniform).grad_trace * m / (m - 1)
    numbers = one_data_set.two_numbers("epochs", N=m, K=m, epochs=epochs)
    found = one_data_set.data_drift(uniform, 1 / 8, K=m, epochs=epochs)
    np.testing.assert_allclose(found, (numbers.D - numbers.A) / 4 * slope / 64, rtol=1e-10, atol=1e-12)


@FEW
@given(finite_problems(), st.integers(1, 2), st.integers(1, 3), MOMENTA, st.data())
def test_paths_are_the_loop(problem, R, T, momentum, data):
    """Weights of any sign that need not add up to 1."""
    W = np.array(data.draw(vectors(R * T * problem.m, top=4))).reshape(R, T, problem.m)
    found = one_data_set.paths(problem, 1 / 16, W, momentum=momentum)
    for r in range(R):
        theta, v = problem.theta0, np.zeros(problem.d)
        np.testing.assert_allclose(found[r, 0], theta, rtol=0, atol=0)
        for t in range(T):
            at = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
            g = np.array([torch.autograd.grad(loss(at), at)[0].numpy() for loss in problem.losses])
            v = momentum * v + W[r, t] @ g
            theta = theta - v / 16
            np.testing.assert_allclose(found[r, t + 1], theta, rtol=1e-10, atol=1e-11)


# --- quadratic losses: the mean over all choices of a sampler is a polynomial in the step ----------------------


@st.composite
def data_sets(draw, degree=2, max_dim=2, sizes=(2, 3, 4)):
    """Two to four examples of equal weight, often with copies."""
    problem, N = draw(finite_problems(max_dim, 3, degree)), draw(st.sampled_from(sizes))
    losses = [problem.losses[i] for i in draw(st.lists(st.integers(0, problem.m - 1), min_size=N, max_size=N))]
    losses[0] = problem.losses[0]
    losses[-1] = problem.losses[-1]
    return FiniteProblem(losses, np.full(N, 1 / N), problem.theta0)


def epochs_of(N, n):
    """The weights of one epoch, for every order: (R, N / n, N)."""
    orders = {tuple(tuple(sorted(o[k : k + n])) for k in range(0, N, n)) for o in permutations(range(N))}
    return np.array([[shares(b, N) for b in order] for order in sorted(orders)])


def choices(sampler, N, K):
    """The weights of one epoch, (R, K, N), for all that the sampler may do, equally likely."""
    n = N // K
    if sampler == "epochs":
        return epochs_of(N, n)
    batches = combinations(range(N), n) if sampler == "subsets" else product(range(N), repeat=n)
    return np.array(list(product([shares(b, N) for b in batches], repeat=K)))


def ends(problem, eta, weights):
    """SGD on quadratic losses with these weights (R, T, N), derivatives by hand: the last iterates (R, d)."""
    g, h = (by_hand(problem, np.zeros(problem.d), k) for k in (1, 2))
    theta = np.tile(problem.theta0, (len(weights), 1))
    for t in range(weights.shape[1]):
        theta = theta - eta * np.einsum("rm,rmi->ri", weights[:, t], g + np.einsum("mij,rj->rmi", h, theta))
    return theta


DATA_PLANS = st.sampled_from([(2, 1, 2), (2, 2, 1), (2, 2, 2), (3, 3, 1), (4, 2, 1), (4, 1, 1)])  # N, K, epochs


@FEW
@given(st.data(), DATA_PLANS, st.sampled_from(["epochs", "subsets", "with_replacement"]))
def test_both_numbers_are_second_coefficients_over_all_choices(data, plan, sampler):
    """The drift of the mean and the covariance of the end: eta² A S, in which no first order is left."""
    N, K, epochs = plan
    problem, eta = data.draw(data_sets(sizes=[N])), 1 / 8
    once = choices(sampler, N, K)
    every = np.array([np.concatenate(pair) for pair in product(once, repeat=epochs)])
    T, gd, sgd, cov = K * epochs, [], [], []
    for s in nodes(2 * T + 1):
        theta = ends(problem, s, every)
        sgd.append(theta.mean(0))
        gd.append(ends(problem, s, np.full((1, T, N), 1 / N))[0])
        cov.append(np.cov(theta.T, bias=True).ravel() if len(theta) > 1 else np.zeros(problem.d**2))
    drift, spread, size = taylor(np.subtract(gd, sgd), eta), taylor(np.array(cov), eta), 1 + np.abs(sgd).max() ** 2
    found = one_data_set.data_drift(problem, eta, K=K, epochs=epochs, sampler=sampler)
    g = by_hand(problem, problem.theta0, 1)
    S = np.cov(g.T).reshape(problem.d, problem.d)
    A = one_data_set.two_numbers(sampler, N=N, K=K, epochs=epochs).spread
    np.testing.assert_allclose(drift[:2], 0, rtol=0, atol=1e-9 * size)
    np.testing.assert_allclose(found, drift[2], rtol=0, atol=1e-9 * size)
    np.testing.assert_allclose(spread[:2], 0, rtol=0, atol=1e-9 * size)
    np.testing.assert_allclose(eta**2 * A * S.ravel(), spread[2], rtol=0, atol=1e-9 * size)


@FEW
@given(st.data(), DATA_PLANS)
def test_modified_gd_follows_the_mean_over_shuffles_of_every_data_set(data, plan):
    """At the end of every epoch, through eta²; at the third order it may differ."""
    N, K, epochs = plan
    problem, eta, T = data.draw(data_sets(sizes=[N])), 1 / 8, K * epochs
    every = np.array([np.concatenate(pair) for pair in product(epochs_of(N, N // K), repeat=epochs)])
    steps, off = nodes(2 * T + 1), []
    for s in steps:
        path = one_data_set.data_modified_gd(problem, s, K=K, epochs=epochs)
        off.append(np.concatenate([path[t] - ends(problem, s, every[:, :t]).mean(0) for t in range(K, T + 1, K)]))
    np.testing.assert_allclose(taylor(np.array(off), eta)[:3], 0, rtol=0, atol=1e-9 * (1 + np.abs(path).max()))


def test_the_covariance_of_the_law_does_not_follow():
    """With 1/N in place of 1/(N - 1): half the penalty at N = 2, and the second order is missed."""
    problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    steps = nodes(5)
    sgd = (1 - steps) * (1 - 3 * steps)
    right = [one_data_set.data_modified_gd(problem, s, K=2)[-1, 0] for s in steps]
    half = (1 - 2 * steps - steps**2 / 4) ** 2  # the penalty eta theta² / 8
    assert abs(taylor(right - sgd, 1.0)[2]) < 1e-8
    assert abs(taylor(half - sgd, 1.0)[2]) > 0.4


@FEW
@given(st.data(), DATA_PLANS, st.sampled_from([1 / 16, 1 / 4]))
def test_modified_gd_is_the_loop_with_a_sum_over_pairs(data, plan, eta):
    """Quartic losses, derivatives by hand; tr S = sum |g_i - g_j|² / N(N - 1) over pairs: no mean is taken off."""
    N, K, epochs = plan
    problem = data.draw(data_sets(degree=4, sizes=[N]))
    path, theta = one_data_set.data_modified_gd(problem, eta, K=K, epochs=epochs), problem.theta0
    assert len(path) == K * epochs + 1
    for row in path:
        np.testing.assert_allclose(row, theta, rtol=1e-10, atol=1e-11)
        g, h = by_hand(problem, theta, 1), by_hand(problem, theta, 2)
        slope = sum(2 * (h[i] - h[j]) @ (g[i] - g[j]) for i, j in combinations(range(N), 2)) / (N * (N - 1))
        theta = theta - eta * (g.mean(0) + eta / 4 * (K / N - 1 / N) * slope)


# --- a fixed horizon ---------------------------------------------------------------------------------------


@settings(max_examples=settings().max_examples // 5)
@given(data_sets(degree=3, sizes=(2, 3)), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([1 / 4, 1.0]))
def test_fixed_horizon_solves_its_equations_in_several_dimensions(problem, a, v):
    """Cubic losses by hand: the third derivative is a constant that joins the entries of C."""
    d, tau = problem.d, 1 / 4
    g0, h0, third = (by_hand(problem, np.zeros(d), k) for k in (1, 2, 3))

    def slope(_, state):
        theta, m, C = state[:d], state[d : 2 * d], state[2 * d :].reshape(d, d)
        g = g0 + h0 @ theta + np.einsum("nijk,j,k->ni", third, theta, theta) / 2
        h = h0 + third @ theta
        c, H = g - g.mean(0), h.mean(0)
        S = sum(np.outer(x, x) for x in c) / (len(g) - 1)
        trace = 2 * np.einsum("nij,nj->i", h, c) / (len(g) - 1)
        bend = np.einsum("ijk,jk->i", third.mean(0), C)
        return np.r_[-g.mean(0), -H @ m - v / 4 * (1 - a) * trace - a / 2 * bend, (-H @ C - C @ H + v * S).ravel()]

    start = np.r_[problem.theta0, np.zeros(d + d * d)]
    run = solve_ivp(slope, (0, tau), start, "DOP853", [tau / 2, tau], rtol=1e-10, atol=1e-12)
    found = one_data_set.fixed_horizon(problem, [tau / 2, tau], v=v, a=a)
    rows = np.c_[found.theta, found.m, found.C.reshape(2, -1)]
    np.testing.assert_allclose(rows, run.y.T, rtol=0, atol=1e-8 * (1 + np.abs(run.y).max()))


@pytest.mark.parametrize("copy", [lambda f: f, lambda f: lambda t: 3 * f(t) / 3])
def test_copies_have_no_noise_and_are_followed_like_one_example(copy):
    """The mean of three equal numbers is rounded: what is left is no variance."""
    f = lambda t: -1 + t[0] ** 2 / 2 + t[0] ** 3 / 12 - t[0] ** 4 / 96  # noqa: E731
    found = one_data_set.fixed_horizon(FiniteProblem([f, f, copy(f)], [1 / 3] * 3, [-1.0]), 0.5, v=0.5, a=0.5)
    run = solve_ivp(lambda _, t: -(t + t**2 / 4 - t**3 / 24), (0, 0.5), [-1.0], "DOP853", rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(found.theta, run.y[:, -1], rtol=1e-9)
    assert (found.m[0], found.C[0, 0]) == (0, 0)
