"""Drift in the mean over training sets, on random problems and schedules: each formula by its other definition."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem, exact
from implicitreg.gap import onestep, training_sets
from strategies import by_hand, changed, finite_problems, fractions, nodes, schedules, spd_matrices, taylor

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
    assert training_sets.pair_sum(etas, batches, N, momentum=momentum) == pytest.approx(expected, rel=1e-11, abs=1e-13)


@FEW
@given(finite_problems(), plans(), MOMENTA)
def test_schedule_drift_is_the_pair_sum_along_the_slope_of_the_trace(problem, plan, momentum):
    at = onestep.moments(problem)
    expected = at.grad_trace / 2 * training_sets.pair_sum(*plan, 4, momentum=momentum)
    found = training_sets.schedule_drift(problem, *plan, 4, momentum=momentum)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


@FEW
@given(finite_problems(), PLANS, st.sampled_from([1, 2]), MOMENTA, st.booleans())
def test_drift_is_the_mean_of_the_drifts_of_all_orders(problem, plan, epochs, momentum, reshuffle):
    N, K = plan
    eta, n = 1 / 8, N // K
    orders = [[order[k : k + n] for k in range(0, N, n)] for order in permutations(range(N))]
    later = orders if reshuffle and epochs == 2 else orders[:1]  # by symmetry the first epoch may have one order
    runs = [orders[0] + order if epochs == 2 else order for order in later]
    mean = np.mean([training_sets.pair_sum([eta] * (K * epochs), run, N, momentum=momentum) for run in runs])
    found = training_sets.drift(problem, eta, N=N, K=K, epochs=epochs, momentum=momentum, reshuffle=reshuffle)
    np.testing.assert_allclose(found, onestep.moments(problem).grad_trace / 2 * mean, rtol=1e-10, atol=1e-12)


@given(st.integers(1, 12), MOMENTA)
def test_modified_coefficient_makes_the_two_sums_agree(K, momentum):
    a = np.cumsum(momentum ** np.arange(K))
    W = sum(a[m] * a[k] for m, k in product(range(K), repeat=2) if m + k + 2 <= K)
    assert training_sets.modified_coefficient(K, momentum) == pytest.approx(W / (2 * a.sum()), rel=1e-12)


# --- the oracle: steps on quadratic losses are polynomials in the step, and the coefficients are read off ------

QUADRATIC = finite_problems(degree=2)
COVARIANCES = st.sampled_from(["population", "sample"])


@FEW
@given(QUADRATIC, schedules(4, 4, whole_epochs=True), MOMENTA, st.booleans(), st.data())
def test_drift_is_the_second_coefficient_of_the_exact_means(problem, schedule, momentum, reshuffle, data):
    """With a matrix for the step. Every order below and the difference of the two methods: no formula is used."""
    N, T, B = schedule
    M, eta = data.draw(spd_matrices(problem.d)), 1 / 8
    steps, options = nodes(T + 1), {"momentum": momentum, "reshuffle": reshuffle}
    sgd, gd = ([exact.run(problem, s * M, N=N, T=T, B=b, **options).theta for s in steps] for b in (B, N))
    terms, K = taylor(np.subtract(gd, sgd), eta), N // B
    size = 1 + np.abs(gd).max()
    found = training_sets.drift(problem, eta * M, N=N, K=K, epochs=T // K, **options)
    np.testing.assert_allclose(terms[:2], 0, rtol=0, atol=1e-9 * size)
    np.testing.assert_allclose(found, terms[2] if T > 1 else 0 * found, rtol=0, atol=1e-8 * size)


@FEW
@given(QUADRATIC, plans(), MOMENTA)
def test_schedule_drift_is_the_second_coefficient_over_all_training_sets(problem, plan, momentum):
    """Four points; the steps s eta_t, of which the mean difference is a polynomial in s."""
    etas, batches = plan
    zero = np.zeros(problem.d)
    g, h, p, T = by_hand(problem, zero, 1), by_hand(problem, zero, 2), problem.probabilities, len(etas)
    sets = np.array(list(product(range(problem.m), repeat=4)))
    chance = p[sets].prod(1)

    def end(s, weights):
        """Heavy ball with these weights of the four points in each step, for all sets at once."""
        theta, v = np.tile(problem.theta0, (len(sets), 1)), 0.0
        for eta, w in zip(etas, weights, strict=True):
            slopes = g[sets] + np.einsum("snij,sj->sni", h[sets], theta)
            v = momentum * v + np.einsum("n,sni->si", w, slopes)
            theta = theta - s * eta * v
        return chance @ theta

    W = [shares(b, 4) for b in batches]
    ends = np.array([[end(s, np.full((T, 4), 1 / 4)), end(s, W)] for s in nodes(T + 1)])
    second = taylor(ends[:, 0] - ends[:, 1], 1 / 8)[2] if T > 1 else 0 * zero
    found = training_sets.schedule_drift(problem, etas, batches, 4, momentum=momentum)
    np.testing.assert_allclose(found / 64, second, rtol=0, atol=1e-9 * (1 + np.abs(ends).max()))


@FEW
@given(QUADRATIC, st.sampled_from([(2, 2), (4, 2), (3, 3)]), MOMENTA, COVARIANCES, st.data())
def test_modified_gd_follows_the_mean_of_an_epoch_through_the_second_order(problem, plan, momentum, covariance, data):
    (N, K), eta = plan, 1 / 8
    M, steps = data.draw(spd_matrices(problem.d)), nodes(2 * K + 1)
    sgd = [exact.run(problem, s * M, N=N, T=K, B=N // K, momentum=momentum).theta for s in steps]
    run = [training_sets.modified_gd(problem, s * M, N=N, K=K, momentum=momentum, covariance=covariance) for s in steps]
    terms = taylor([r.theta for r in run] - np.array(sgd), eta)
    np.testing.assert_allclose(terms[:3], 0, rtol=0, atol=1e-8 * (1 + np.abs(sgd).max()))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_no_other_coefficient_follows(momentum):
    """K/4, half the coefficient, none: each misses at the second order. So does that of another momentum."""
    problem = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.25, 0.75], [1.0])
    right = training_sets.modified_coefficient(3, momentum)
    other = training_sets.modified_coefficient(3, 0.5 - momentum)
    sgd = [exact.run(problem, s, N=3, T=3, B=1, momentum=momentum).theta for s in nodes(7)]

    def missed(c):
        run = [training_sets.modified_gd(problem, s, N=3, K=3, momentum=momentum, coefficient=c) for s in nodes(7)]
        return np.abs(taylor([r.theta for r in run] - np.array(sgd), 1.0)[2])

    assert missed(right) < 1e-7
    assert min(missed(c) for c in (3 / 4, right / 2, 0.0, other)) > 1e-2


def lags(momentum, K):
    return [sum(momentum**j for j in range(m)) for m in range(K + 1)]


@given(finite_problems(), st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 3)]), MOMENTA, st.booleans(), st.data())
def test_modified_gd_is_the_loop_over_every_training_set(problem, plan, momentum, sample, data):
    """Derivatives of the polynomials by hand; tr(M S) as a sum over pairs of points, or of examples of the law."""
    (N, K), p = plan, problem.probabilities
    sample = sample and N > 1
    epochs, coefficient = data.draw(st.sampled_from([1, 2])), data.draw(st.none() | fractions(4))
    M, a, T = data.draw(spd_matrices(problem.d)) / 8, lags(momentum, K), K * epochs
    W = sum(a[m] * a[k] for m, k in product(range(1, K + 1), repeat=2) if m + k <= K)
    c = W / (2 * sum(a)) if coefficient is None else coefficient
    rows, chances = [], []
    for points in product(range(problem.m), repeat=N):
        theta, v = problem.theta0, 0.0
        some = list(points)
        for _ in range(T):
            g, h = by_hand(problem, theta, 1), by_hand(problem, theta, 2)
            if sample:
                pairs = [(1 / (N * (N - 1)), i, j) for k, i in enumerate(some) for l, j in enumerate(some) if k != l]
            else:
                pairs = [(p[i] * p[j], i, j) for i, j in product(range(problem.m), repeat=2)]
            slope = sum(w * (h[i] - h[j]) @ M @ (g[i] - g[j]) for w, i, j in pairs)
            v = momentum * v + g[some].mean(0) + c / N * slope
            theta = theta - M @ v
        values = by_hand(problem, theta, 0)
        rows.append(np.r_[theta, p @ values, values[some].mean()])
        chances.append(p[some].prod())
    rows, chances = np.array(rows), np.array(chances)
    mean = chances @ rows
    away = rows[:, :-2] - mean[:-2]
    options = {"momentum": momentum, "covariance": "sample" if sample else "population", "coefficient": coefficient}
    found = training_sets.modified_gd(problem, M, N=N, K=K, epochs=epochs, **options)
    close = {"rtol": 1e-10, "atol": 1e-10}  # a few steps of order one, some thousand roundings
    np.testing.assert_allclose(np.r_[found.theta, found.test_loss, found.train_loss], mean, **close)
    np.testing.assert_allclose(found.theta_cov, (chances[:, None] * away).T @ away, **close)


@FEW
@given(finite_problems(ridges=True), st.sampled_from([(2, 1), (3, 3), (4, 2)]), MOMENTA, st.data())
def test_without_the_penalty_it_is_gradient_descent_and_an_example_may_be_split(problem, plan, momentum, data):
    N, K = plan
    plain = training_sets.modified_gd(problem, 1 / 8, N=N, K=K, momentum=momentum, coefficient=0)
    gd = exact.run(problem, 1 / 8, N=N, T=K, B=N, momentum=momentum)
    run = training_sets.modified_gd(problem, 1 / 8, N=N, K=K, momentum=momentum)
    p, order = problem.probabilities, data.draw(st.permutations(range(problem.m + 1)))
    losses, shares_ = [*problem.losses, problem.losses[0]], np.r_[p[0] / 4, p[1:], 3 * p[0] / 4]
    other = changed(problem, [losses[i] for i in order], shares_[list(order)])
    split = training_sets.modified_gd(other, 1 / 8, N=N, K=K, momentum=momentum)
    for a, b in ((plain, gd), (split, run)):
        for name in ("theta", "theta_cov", "test_loss", "train_loss"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-11, atol=1e-11)
