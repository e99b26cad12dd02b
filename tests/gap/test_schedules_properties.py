"""Schedules, samplers and penalties on random problems: by enumeration of orders, by loops, by the two numbers."""

from itertools import combinations, permutations, product
from math import factorial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem
from implicitreg.gap import onestep, schedules
from scipy.integrate import solve_ivp
from strategies import designs, finite_problems, vectors

FEW = settings(max_examples=settings().max_examples // 4)
MOMENTA = st.sampled_from([0.0, 0.5, 0.875])
PLANS = st.sampled_from([(2, 1), (2, 2), (3, 3), (4, 2), (4, 4)])


@st.composite
def plans(draw):
    """Step sizes and batches; an index may stand several times."""
    T = draw(st.integers(1, 4))
    etas = np.array(draw(st.lists(st.integers(1, 8), min_size=T, max_size=T))) / 8
    return etas, [draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)) for _ in range(T)]


def shares(batch, N):
    return np.bincount(batch, minlength=N) / len(batch)


@given(plans(), MOMENTA)
def test_pair_sum_is_what_a_linear_recursion_leaves(plan, momentum):
    """The steps' effects by running heavy ball on unit pushes: a_{t,s} is where a push of step s has led by step t."""
    etas, batches = plan
    T, N = len(etas), 4

    def reach(s, t):
        v, moved = 0.0, 0.0
        for r in range(t):
            v = momentum * v + (r == s)
            moved += etas[r] * v
        return moved

    W = np.array([shares(b, N) for b in batches])
    expected = sum(reach(k, T) * reach(j, k) * (1 / N - W[j] @ W[k]) for k in range(T) for j in range(k))
    assert schedules.pair_sum(etas, batches, N, momentum=momentum) == pytest.approx(expected, rel=1e-11, abs=1e-13)


@FEW
@given(finite_problems(), plans(), MOMENTA)
def test_schedule_drift_is_the_pair_sum_along_the_slope_of_the_trace(problem, plan, momentum):
    at = onestep.moments(problem)
    expected = at.grad_trace / 2 * schedules.pair_sum(*plan, 4, momentum=momentum)
    found = schedules.schedule_drift(problem, *plan, 4, momentum=momentum)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


@FEW
@given(finite_problems(), PLANS, st.sampled_from([1, 2]), MOMENTA, st.booleans())
def test_drift_is_the_mean_of_the_drifts_of_all_orders(problem, plan, epochs, momentum, reshuffle):
    N, K = plan
    eta, n = 1 / 8, N // K
    orders = [[order[k : k + n] for k in range(0, N, n)] for order in permutations(range(N))]
    later = orders if reshuffle and epochs == 2 else orders[:1]  # by symmetry the first epoch may have one order
    runs = [orders[0] + order if epochs == 2 else order for order in later]
    mean = np.mean([schedules.pair_sum([eta] * (K * epochs), run, N, momentum=momentum) for run in runs])
    found = schedules.drift(problem, eta, N=N, K=K, epochs=epochs, momentum=momentum, reshuffle=reshuffle)
    np.testing.assert_allclose(found, onestep.moments(problem).grad_trace / 2 * mean, rtol=1e-10, atol=1e-12)


@given(st.integers(1, 12), MOMENTA)
def test_modified_coefficient_makes_the_two_sums_agree(K, momentum):
    a = np.cumsum(momentum ** np.arange(K))
    W = sum(a[m] * a[k] for m, k in product(range(K), repeat=2) if m + k + 2 <= K)
    assert schedules.modified_coefficient(K, momentum) == pytest.approx(W / (2 * a.sum()), rel=1e-12)


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
        found = schedules.two_numbers(sampler, N=N, K=K, epochs=epochs)
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
    found = schedules.fixed_horizon(data, tau, v=v, a=a)
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
    numbers = schedules.two_numbers("epochs", N=m, K=m, epochs=epochs)
    found = schedules.data_drift(uniform, 1 / 8, K=m, epochs=epochs)
    np.testing.assert_allclose(found, (numbers.D - numbers.A) / 4 * slope / 64, rtol=1e-10, atol=1e-12)


@FEW
@given(finite_problems(), st.integers(1, 2), st.integers(1, 3), MOMENTA, st.data())
def test_paths_are_the_loop(problem, R, T, momentum, data):
    """Weights of any sign that need not add up to 1."""
    W = np.array(data.draw(vectors(R * T * problem.m, top=4))).reshape(R, T, problem.m)
    found = schedules.paths(problem, 1 / 16, W, momentum=momentum)
    for r in range(R):
        theta, v = problem.theta0, np.zeros(problem.d)
        np.testing.assert_allclose(found[r, 0], theta, rtol=0, atol=0)
        for t in range(T):
            at = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
            g = np.array([torch.autograd.grad(loss(at), at)[0].numpy() for loss in problem.losses])
            v = momentum * v + W[r, t] @ g
            theta = theta - v / 16
            np.testing.assert_allclose(found[r, t + 1], theta, rtol=1e-10, atol=1e-11)


@given(designs(max_n=4, max_d=3).filter(lambda g: len(g) > 1), st.sampled_from([1 / 8, 1.0]), st.data())
def test_the_penalty_of_gd_is_the_mean_of_smiths_less_that_of_barrett_and_dherin(g, eta, data):
    N = len(g)
    n = data.draw(st.sampled_from([k for k in range(1, N + 1) if N % k == 0]))
    means = np.array([[g[list(o[k : k + n])].mean(0) for k in range(0, N, n)] for o in permutations(range(N))])
    smith = [schedules.smith_penalty(batch_means, eta) for batch_means in means]
    np.testing.assert_allclose(smith, eta / 4 * (means**2).sum(2).mean(1), rtol=1e-11, atol=1e-14)
    whole = schedules.barrett_dherin_penalty(g, eta)
    assert whole == pytest.approx(eta / 4 * np.sum(g.mean(0) ** 2), rel=1e-11, abs=1e-14)
    found = schedules.roberts_penalty(g, eta, batch_size=n)
    assert found == pytest.approx(np.mean(smith) - whole, rel=1e-10, abs=1e-12)
