"""One step on random problems: the coefficients of the exact gap, by interpolation in the step and in 1/N."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem, exact
from implicitreg.gap import onestep
from strategies import finite_problems, nodes, taylor

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
@given(QUADRATIC, st.sampled_from([(2, 2), (3, 3)]))
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
