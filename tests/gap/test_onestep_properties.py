"""One step on random problems: the coefficients of the exact gap, by interpolation in the step and in 1/N."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem, exact
from implicitreg.gap import onestep
from strategies import Moved, changed, designs, finite_problems, fractions, nodes, orthogonal, taylor, vectors

FEW = settings(max_examples=settings().max_examples // 4)
PROBLEMS = finite_problems()
QUADRATIC = finite_problems(degree=2)


def gap(problem, eta, N, T=1, B=None):
    run = exact.run(problem, eta, N=N, T=T, B=B or N)
    return run.test_loss - run.train_loss


def naive(problem, theta):
    """Gradients and Hessians in rows, one loss at a time; the weights."""
    at = torch.tensor(theta, dtype=torch.float64)
    g = [torch.func.grad(loss)(at) for loss in problem.losses]
    h = [torch.func.jacfwd(torch.func.jacrev(loss))(at) for loss in problem.losses]
    return torch.stack(g).numpy(), torch.stack(h).numpy(), problem.probabilities


@FEW
@given(finite_problems(ridges=True), st.data())
def test_moments_are_sums_over_pairs_of_examples(problem, data):
    """Sigma = 1/2 sum p_i p_j (g_i - g_j)(g_i - g_j)ᵀ, and so on: no mean is taken off. Copies add their weights."""
    theta = np.array(data.draw(st.lists(st.integers(-4, 4), min_size=problem.d, max_size=problem.d))) / 4
    at = onestep.moments(problem, theta)
    g, h, p = naive(problem, theta)
    pairs = [(p[i] * p[j] / 2, g[i] - g[j], h[i] - h[j]) for i, j in product(range(problem.m), repeat=2)]
    Sigma = sum(w * np.outer(a, a) for w, a, _ in pairs)
    np.testing.assert_allclose(at.G, p @ g, rtol=0, atol=1e-12)
    np.testing.assert_allclose(at.H, np.tensordot(p, h, 1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(at.Sigma, Sigma, rtol=0, atol=1e-11)
    assert at.trace == pytest.approx(np.trace(Sigma), abs=1e-11)
    np.testing.assert_allclose(at.grad_trace, 2 * sum(w * b @ a for w, a, b in pairs), rtol=0, atol=1e-11)
    assert at.trace_H_Sigma == pytest.approx(np.trace(at.H @ Sigma), abs=1e-11)
    triples = [
        (p[i] * p[j] * p[k], g[i] - g[j], h[i] - h[k], i, j, k) for i, j, k in product(range(problem.m), repeat=3)
    ]
    kappa3 = sum(w * a @ b @ (g[i] - np.tensordot(p, g, 1)) for w, a, b, i, j, k in triples)
    assert at.kappa3 == pytest.approx(kappa3, abs=1e-10)
    twice = FiniteProblem([*problem.losses, *problem.losses], np.r_[p, p] / 2, problem.theta0)
    assert onestep.moments(twice, theta).kappa3 == pytest.approx(at.kappa3, abs=1e-11)


BATCHES = st.lists(st.integers(0, 3), min_size=1, max_size=3)


@given(BATCHES, BATCHES)
def test_batch_covariance_is_that_of_enumerated_values(A, B):
    """Examples are coins; indices may stand several times. Given the data, over all their orders."""
    draws = np.array(list(product([-1.0, 1.0], repeat=4)))
    a, b = draws[:, A].mean(1), draws[:, B].mean(1)
    assert onestep.batch_covariance(A, B) == pytest.approx(np.mean(a * b), abs=1e-14)
    shares = [np.bincount(batch, minlength=4) / len(batch) for batch in (A, B)]
    assert onestep.batch_covariance(A, B, N=4) == pytest.approx(shares[0] @ shares[1] - 1 / 4, abs=1e-14)


@FEW
@given(PROBLEMS, st.integers(1, 3))
def test_one_step_has_the_first_coefficients_of_the_exact_gap(problem, N):
    eta = 1 / 8
    terms = taylor([gap(problem, step, N) for step in nodes(6)], eta)
    found = onestep.one_step(problem, eta, N)
    scale = 1 + np.abs(terms).max()
    assert found.leading == pytest.approx(terms[1], abs=1e-10 * scale)
    assert found.next_order - found.leading == pytest.approx(terms[2], abs=1e-9 * scale)


@FEW
@given(PROBLEMS, st.sampled_from([1 / 16, 1 / 4]))
def test_all_orders_is_the_coefficient_of_one_over_N(problem, eta):
    """The exact mean gap of a polynomial loss of degree 4 is a polynomial in 1/N of degree 4."""
    sizes = np.arange(1, 6)
    gaps = [gap(problem, eta, int(N)) for N in sizes]
    powers = (1.0 / sizes)[:, None] ** np.arange(1, 6)
    leading = np.linalg.solve(powers, gaps)[0]
    found = onestep.all_orders(problem, eta, 10)
    assert 10 * found == pytest.approx(leading, abs=1e-9 * (1 + np.abs(gaps).max()))
    assert onestep.many_steps(problem, eta, 10, 1) == pytest.approx(found, abs=1e-13 * (1 + abs(found)))
    assert onestep.many_steps(problem, eta, 10, 0) == 0


@FEW
@given(finite_problems(max_dim=1, max_examples=2, degree=2), st.sampled_from([1 / 16, 1 / 4]))
def test_many_steps_is_the_coefficient_of_one_over_N(problem, eta):
    """Two steps on quadratic losses: a polynomial in 1/N of degree 5."""
    sizes = np.arange(1, 8)
    gaps = [gap(problem, eta, int(N), T=2) for N in sizes]
    powers = (1.0 / sizes)[:, None] ** np.arange(1, 8)
    leading = np.linalg.solve(powers, gaps)[0]
    assert 10 * onestep.many_steps(problem, eta, 10, 2) == pytest.approx(leading, abs=1e-7 * (1 + np.abs(gaps).max()))


@FEW
@given(QUADRATIC, st.sampled_from([(2, 1), (2, 2), (3, 3), (4, 2)]))
def test_gap_after_has_the_first_coefficients_of_both_methods(problem, schedule):
    """Steps on quadratic losses are polynomials in eta of degree 2K: small steps, and a fit of that degree."""
    N, K = schedule
    eta, steps = 1 / 8, nodes(2 * K + 2)
    runs = {B: [exact.run(problem, step, N=N, T=K, B=B) for step in steps] for B in (N // K, N)}
    after = onestep.gap_after(problem, eta, N=N, K=K)
    for B, gap_, test in ((N // K, after.sgd, after.test_sgd), (N, after.gd, after.test_gd)):
        gaps = taylor([r.test_loss - r.train_loss for r in runs[B]], eta)
        tests = taylor([r.test_loss for r in runs[B]], eta)
        assert gap_ == pytest.approx(gaps[:3].sum(), abs=1e-8 * (1 + np.abs(gaps).max()))
        assert test == pytest.approx(tests[:3].sum(), abs=1e-8 * (1 + np.abs(tests).max()))


@FEW
@given(PROBLEMS, st.integers(1, 3), st.integers(1, 2))
def test_variance_is_that_over_all_training_and_test_sets(problem, N, M):
    g, _, p = naive(problem, problem.theta0)
    sets = {k: [(np.prod(p[list(D)]), g[list(D)].mean(0)) for D in product(range(problem.m), repeat=k)] for k in (N, M)}
    train, test = sets[N], sets[M]
    table = np.array([[w * v, gD @ (gD - gA)] for w, gD in train for v, gA in test])
    mean = table[:, 0] @ table[:, 1]
    expected = table[:, 0] @ (table[:, 1] - mean) ** 2
    assert onestep.variance(problem, N, M) == pytest.approx(expected, abs=1e-10 * (1 + expected))
    sharp = np.array([[w, gD @ (gD - p @ g)] for w, gD in train])
    expected = sharp[:, 0] @ (sharp[:, 1] - sharp[:, 0] @ sharp[:, 1]) ** 2
    assert onestep.variance(problem, N, np.inf) == pytest.approx(expected, abs=1e-10 * (1 + expected))


@FEW
@given(PROBLEMS, PROBLEMS, st.integers(1, 3))
def test_divergence_is_the_first_order_over_all_training_sets(train, other, N):
    if train.d != other.d:
        other = train
    test = FiniteProblem(other.losses, other.probabilities, train.theta0)
    g, _, p = naive(train, train.theta0)
    away, _, q = naive(test, train.theta0)
    sets = [(np.prod(p[list(D)]), g[list(D)].mean(0)) for D in product(range(train.m), repeat=N)]
    expected = sum(w * gD @ (gD - q @ away) for w, gD in sets)
    assert onestep.divergence(train, test, 1 / 4, N) == pytest.approx(expected / 4, abs=1e-11 * (1 + abs(expected)))


@FEW
@given(finite_problems(ridges=True), st.sampled_from([1 / 16, 1 / 4]), st.integers(1, 4))
def test_many_steps_is_the_sum_of_its_ordered_products(problem, eta, T):
    """Term by term along the path, with the Hessians multiplied in their order; derivatives one loss at a time."""
    p, theta, path = problem.probabilities, problem.theta0, []
    for _ in range(T + 1):
        path.append(naive(problem, theta)[:2])
        theta = theta - eta * p @ path[-1][0]
    last, total = path[-1][0], 0.0
    for t in range(T):
        carry = np.eye(problem.d)
        for s in range(t + 1, T):
            carry = (np.eye(problem.d) - eta * np.tensordot(p, path[s][1], 1)) @ carry
        moved = path[t][0] @ carry.T
        total += p @ (last * moved).sum(1) - (p @ last) @ (p @ moved)
    found = onestep.many_steps(problem, eta, 10, T)
    assert found == pytest.approx(eta / 10 * total, rel=1e-10, abs=1e-11)


def test_hessians_in_the_other_order_are_another_formula():
    """Cubic losses of two parameters: the Hessians along the path do not commute."""
    losses = [lambda t: t[0] ** 2 * t[1] + t[0] * t[1] ** 2 - t[1], lambda t: t[0] ** 2 * t[1] + t[0] + t[1] ** 2]
    problem, eta = FiniteProblem(losses, [0.25, 0.75], [0.5, -0.75]), 1 / 4
    p, theta, path = problem.probabilities, problem.theta0, []
    for _ in range(4):
        path.append(naive(problem, theta)[:2])
        theta = theta - eta * p @ path[-1][0]
    steps = [np.eye(2) - eta * np.tensordot(p, h, 1) for _, h in path]
    cov = lambda a, b: p @ (a * b).sum(1) - (p @ a) @ (p @ b)  # noqa: E731
    last = path[3][0]
    rest = cov(last, path[1][0] @ steps[2].T) + cov(last, path[2][0])
    right, wrong = (eta * (rest + cov(last, path[0][0] @ M.T)) for M in (steps[2] @ steps[1], steps[1] @ steps[2]))
    assert onestep.many_steps(problem, eta, 1, 3) == pytest.approx(right, rel=1e-12)
    assert abs(right - wrong) > 1e-6


def everything(problem, eta, scale=1.0):
    """The numbers of this module, in units of the loss; eta carries one over the loss."""
    after = onestep.gap_after(problem, eta, N=4, K=2)
    step = onestep.one_step(problem, eta, 3)
    gaps = [step.leading, step.next_order, onestep.all_orders(problem, eta, 3), onestep.many_steps(problem, eta, 3, 2)]
    gaps += [onestep.divergence(problem, problem, eta, 3), after.sgd, after.gd, after.test_sgd, after.test_gd]
    at = onestep.moments(problem)
    squares = [onestep.variance(problem, 2, 3) / scale**4, at.trace / scale**2, at.kappa3 / scale**3]
    return np.array([*np.array(gaps) / scale, *squares, at.trace_H_Sigma / scale**3])


@FEW
@given(finite_problems(ridges=True), st.data())
def test_order_split_examples_rotations_and_units_do_not_matter(problem, data):
    """And the divergence of a law from itself is the first order of one step."""
    d, p, eta = problem.d, problem.probabilities, 1 / 8
    truth = everything(problem, eta)
    assert truth[4] == pytest.approx(truth[0], rel=1e-12, abs=1e-14)
    losses, weights = [*problem.losses, problem.losses[0]], np.r_[p[0] / 4, p[1:], 3 * p[0] / 4]
    order = list(data.draw(st.permutations(range(len(losses)))))
    Q, b = data.draw(orthogonal(d)), np.array(data.draw(st.lists(fractions(4), min_size=d, max_size=d)))
    others = [
        (changed(problem, [losses[i] for i in order], weights[order]), eta, 1.0),
        (changed(problem, [Moved(f, Q, b) for f in problem.losses], theta0=Q.T @ (problem.theta0 - b)), eta, 1.0),
        (changed(problem, [lambda t, f=f: 4 * f(t) for f in problem.losses]), eta / 4, 4.0),
    ]
    for other, step, scale in others:
        found = everything(other, step, scale)
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-11 * (1 + np.abs(truth).max()))


def test_a_stretch_matters_where_the_step_stays():
    problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
    stretched = changed(problem, [Moved(f, np.array([[2.0]]), np.zeros(1)) for f in problem.losses], theta0=[0.5])
    assert abs(everything(stretched, 1 / 8) - everything(problem, 1 / 8))[0] > 1e-2


@FEW
@given(PROBLEMS, st.data())
def test_slope_of_the_trace_is_the_slope_of_the_trace(problem, data):
    """The trace is a polynomial of degree 6 on every line; its derivative by interpolation."""
    line = data.draw(vectors(problem.d, top=4))
    values = np.array([onestep.moments(problem, problem.theta0 + s * line).trace for s in nodes(7)])
    slope = taylor(values, 1.0)[1]
    assert onestep.moments(problem).grad_trace @ line == pytest.approx(slope, abs=1e-8 * (1 + np.abs(values).max()))


@given(BATCHES, BATCHES, designs(4, 3).filter(lambda X: len(X) == 4))
def test_batch_covariance_of_a_data_set_is_that_over_its_orders(A, B, X):
    orders = [X[list(order)] for order in permutations(range(4))]
    a, b = (np.array([x[batch].mean(0) for x in orders]) for batch in (A, B))
    found = onestep.batch_covariance(A, B, N=4) * np.atleast_2d(np.cov(X.T))
    np.testing.assert_allclose((a - a.mean(0)).T @ (b - b.mean(0)) / 24, found, rtol=0, atol=1e-13)
