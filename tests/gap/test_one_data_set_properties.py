"""Drift on one data set, on random problems: samplers by all their choices, paths by the loop, an equation solved."""

from itertools import combinations, permutations, product
from math import factorial

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem
from implicitreg.gap import one_data_set, onestep
from scipy.integrate import solve_ivp
from strategies import finite_problems, vectors

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
