"""The gap formula: rational reference values, brute force over all training sets, and the order of every remainder."""

import itertools
import math
from fractions import Fraction as F

import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, exact
from implicitreg.checks import rate
from implicitreg.gap import onestep

# --- reference values: rational arithmetic (R5: 50 digits) --------------------------------------------------

#  G, tr Sigma, gradient of tr Sigma, kappa3, tr(H Sigma)
MOMENTS = {
    "R1": (["2"], "1", ["2"], "0", "2"),
    "R2": (["13/24"], "289/288", ["17/8"], "-289/384", "289/128"),
    "R3": (["5/4", "-3/2"], "69/16", ["5/2", "-2"], "1/48", "125/24"),
    "R4": (["1", "9/8"], "2465/576", ["1051/108", "1813/192"], "35281/10368", "621809/41472"),
    "R5": ([0.05972623305846432, -0.4137850666870637], 0.6133003047393487, [-0.1601569931902174, -0.5661811278553003],
           0.1375693779814883, 0.2288300302858854),
    "R6": (["5/4", "5/4"], "25/8", ["5/4", "5/2"], "0", "125/32"),
}  # fmt: skip
SIGMA = {
    "R1": [["1"]],
    "R2": [["289/288"]],
    "R3": [["121/48", "-17/8"], ["-17/8", "43/24"]],
    "R4": [["17/9", "17/8"], ["17/8", "153/64"]],
    "R5": [[0.233527345555839, 0.03761925485787079], [0.03761925485787079, 0.3797729591835098]],
    "R6": [["25/16", "25/16"], ["25/16", "25/16"]],
}
#  model, eta, N, leading, next order
ONE_STEP = [
    ("R1", 0.1, 2, "1/20", "1/25"),
    ("R1", 0.2, 4, "1/20", "3/100"),
    ("R2", 0.1, 3, "289/8640", "7361/230400"),
    ("R3", 0.1, 4, "69/640", "15383/153600"),
    ("R4", 0.05, 3, "493/6912", "18624047/298598400"),
    ("R5", 0.2, 3, 0.04088668698262325, 0.03908289910813989),
]
VARIANCE = [("R1", 4, 2, "103/32"), ("R2", 3, 2, "1479391/2985984")]


def number(text):
    return np.vectorize(lambda x: float(F(x)), otypes=[float])(np.asarray(text, dtype=object))


def same(value, text, tolerance=1e-12):
    np.testing.assert_allclose(value, number(text), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", MOMENTS)
def test_moments_have_the_reference_values(roberts_problems, name):
    at = onestep.moments(roberts_problems[name])
    for value, text in zip((at.G, at.trace, at.grad_trace, at.kappa3, at.trace_H_Sigma), MOMENTS[name], strict=True):
        same(value, text)
    same(at.Sigma, SIGMA[name])


@pytest.mark.parametrize(("name", "eta", "N", "leading", "total"), ONE_STEP)
def test_one_step_has_the_reference_values(roberts_problems, name, eta, N, leading, total):
    gap = onestep.one_step(roberts_problems[name], eta, N)
    same(gap.leading, leading)
    same(gap.next_order, total)


@pytest.mark.parametrize(("name", "N", "M", "value"), VARIANCE)
def test_variance_has_the_reference_values(roberts_problems, name, N, M, value):
    same(onestep.variance(roberts_problems[name], N, M), value)


# --- the same problems by hand, in fractions ----------------------------------------------------------------


def quadratic(a):
    return lambda t: ([a * t[0]], [[a]])


def mixture(t):
    x = t[0]
    return [([x**3 - 1], [[3 * x**2]]), ([x**2 + 2 * x], [[2 * x + 2]])]


def line(a, b, y):
    return lambda t: ([(a * t[0] + b * t[1] - y) * c for c in (a, b)], [[a * a, a * b], [a * b, b * b]])


def net(a, y):
    def derivatives(t):
        u, v = t
        r = a * u * v - y
        cross = a * a * u * v + a * r
        return [a * v * r, a * u * r], [[a * a * v * v, cross], [cross, a * a * u * u]]

    return derivatives


BY_HAND = {
    "R1": ([F(1, 2)] * 2, [F(1)], [quadratic(1), quadratic(3)]),
    "R2": ([F(1, 3), F(2, 3)], [F(1, 2)], [lambda t: mixture(t)[0], lambda t: mixture(t)[1]]),
    "R3": ([F(1, 4), F(1, 4), F(1, 2)], [F(1, 2), F(-1, 3)], [line(1, 0, 1), line(1, 2, 0), line(-1, 1, 2)]),
    "R4": ([F(1, 2), F(1, 3), F(1, 6)], [F(3, 4), F(2, 3)], [net(1, 1), net(2, -1), net(-1, 2)]),
}


def derivatives(name):
    """Probabilities, gradients and Hessians at the start, as arrays of fractions."""
    p, theta, examples = BY_HAND[name]
    g, h = zip(*(example(theta) for example in examples), strict=True)
    return np.array(p), np.array(g, dtype=object) + F(0), np.array(h, dtype=object) + F(0)


def data_sets(p, N):
    """Every ordered training set with its probability."""
    for D in itertools.product(range(len(p)), repeat=N):
        yield math.prod(p[i] for i in D), list(D)


def mean(rows):
    return sum(rows) / F(len(rows))


@pytest.mark.parametrize("name", BY_HAND)
def test_moments_are_those_of_a_loop_over_examples(roberts_problems, name):
    p, g, h = derivatives(name)
    G, H = sum(p[:, None] * g), sum(p[:, None, None] * h)
    Sigma = sum(q * np.outer(a, a) for q, a in zip(p, g, strict=True)) - np.outer(G, G)
    at = onestep.moments(roberts_problems[name])
    pairs = zip(p, g - G, h - H, strict=True)
    kappa3 = sum(q * (c @ k @ c) for q, c, k in pairs)
    for value, truth in ((at.G, G), (at.H, H), (at.Sigma, Sigma), (at.kappa3, kappa3)):
        same(value, truth)
    same(at.trace_H_Sigma, np.trace(H @ Sigma))


@pytest.mark.parametrize("name", BY_HAND)
def test_grad_trace_is_the_derivative_of_the_trace(roberts_problems, name):
    problem = roberts_problems[name]
    step = 2.0**-14  # central differences: error of order step² and rounding / step
    for k, unit in enumerate(np.eye(problem.d)):
        up, down = (onestep.moments(problem, problem.theta0 + s * step * unit).trace for s in (1, -1))
        assert (up - down) / (2 * step) == pytest.approx(onestep.moments(problem).grad_trace[k], rel=1e-6)


def coefficients(name, N, K=1):
    """Coefficients of eta and eta² in the mean gap, SGD and GD, from all training sets: each step to second order."""
    p, g, h = derivatives(name)
    G, H, n = sum(p[:, None] * g), sum(p[:, None, None] * h), N // K
    first, sgd, gd = F(0), F(0), F(0)
    for chance, D in data_sets(p, N):
        gs, hs = ([mean([x[i] for i in D[k * n : (k + 1) * n]]) for k in range(K)] for x in (g, h))
        gD, hD = mean(gs), mean(hs)
        bend = K * K * gD @ (H - hD) @ gD / 2
        path = sum((hs[k] @ gs[j] for j, k in itertools.combinations(range(K), 2)), 0 * G)
        again = math.comb(K, 2) * hD @ gD
        first += chance * K * gD @ (gD - G)
        sgd += chance * ((G - gD) @ path + bend)
        gd += chance * ((G - gD) @ again + bend)
    return float(first), float(sgd), float(gd)


@pytest.mark.parametrize(("name", "N"), [("R1", 2), ("R2", 3), ("R2", 5), ("R3", 4), ("R4", 3)])
def test_one_step_is_the_mean_over_all_training_sets(roberts_problems, name, N):
    first, second, _ = coefficients(name, N)
    gap = onestep.one_step(roberts_problems[name], 0.25, N)
    assert gap.leading == pytest.approx(first / 4, rel=1e-13)
    assert gap.next_order == pytest.approx(first / 4 + second / 16, rel=1e-13)


@pytest.mark.parametrize(
    ("name", "N", "K"), [("R1", 2, 2), ("R2", 4, 2), ("R2", 6, 3), ("R3", 4, 4), ("R4", 4, 2), ("R4", 5, 5)]
)
def test_gap_after_an_epoch_is_the_mean_over_all_training_sets(roberts_problems, name, N, K):
    first, sgd, gd = coefficients(name, N, K)
    after = onestep.gap_after(roberts_problems[name], 0.25, N=N, K=K)
    assert after.sgd == pytest.approx(first / 4 + sgd / 16, rel=1e-12)
    assert after.gd == pytest.approx(first / 4 + gd / 16, rel=1e-12)


def test_gap_after_one_step_is_one_step(roberts_problems):
    for name, problem in roberts_problems.items():
        after, step = onestep.gap_after(problem, 0.3, N=6, K=1), onestep.one_step(problem, 0.3, 6)
        assert after.sgd == after.gd == pytest.approx(step.next_order, rel=1e-13), name


# --- against the oracle at finite step size: the order of the remainder -------------------------------------

ETAS = 2.0 ** -np.arange(6, 11)  # third-order remainders stay above 1e-12, rounding below 1e-15
ORDER_ONE = [("R2", 3), ("R3", 4), ("R4", 3), ("R5", 3)]


def gap(problem, eta, N, T=1, B=None):
    result = exact.run(problem, eta, N=N, T=T, B=B or N)
    return result.test_loss - result.train_loss


def remainder_order(truth, formula):
    return rate(ETAS, [abs(truth(eta) - formula(eta)) for eta in ETAS])


@pytest.mark.parametrize(("name", "N"), ORDER_ONE)
def test_remainders_of_one_step_are_of_second_and_third_order(roberts_problems, name, N):
    problem = roberts_problems[name]
    truth = lambda eta: gap(problem, eta, N)  # noqa: E731
    assert remainder_order(truth, lambda e: onestep.one_step(problem, e, N).leading) == pytest.approx(2, abs=0.15)
    if name != "R3":  # quadratic losses: no third order
        assert remainder_order(truth, lambda e: onestep.one_step(problem, e, N).next_order) == pytest.approx(
            3, abs=0.15
        )


@pytest.mark.parametrize("wrong", ["no kappa3", "twice the slope", "half the noise"])
def test_a_wrong_second_order_is_noticed(roberts_problems, wrong):
    problem, N = roberts_problems["R4"], 3
    at = onestep.moments(problem)
    slope, noise = at.G @ at.grad_trace / (2 * N), at.kappa3 / (2 * N**2)
    second = {"no kappa3": slope, "twice the slope": 2 * slope + noise, "half the noise": slope + noise / 2}[wrong]
    formula = lambda eta: eta * at.trace / N - eta**2 * second  # noqa: E731
    assert remainder_order(lambda eta: gap(problem, eta, N), formula) < 2.15  # third order would be 3


@pytest.mark.parametrize(("name", "N", "K"), [("R2", 4, 2), ("R2", 3, 3), ("R3", 4, 4), ("R4", 4, 2), ("R5", 3, 3)])
def test_remainders_after_an_epoch_are_of_third_order(roberts_problems, name, N, K):
    problem = roberts_problems[name]
    after = lambda field: lambda eta: getattr(onestep.gap_after(problem, eta, N=N, K=K), field)  # noqa: E731
    for field, B in (("sgd", N // K), ("gd", N)):
        truth = lambda eta, B=B: gap(problem, eta, N, K, B)  # noqa: E731
        test = lambda eta, B=B: exact.run(problem, eta, N=N, T=K, B=B).test_loss  # noqa: E731
        assert remainder_order(truth, after(field)) == pytest.approx(3, abs=0.15)
        assert remainder_order(test, after(f"test_{field}")) == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("name", ["R2", "R4", "R5"])
def test_gaps_differ_by_kappa3_over_N_squared_alone(roberts_problems, name):
    problem, N, K = roberts_problems[name], 4, 2
    difference = lambda eta: gap(problem, eta, N, K) - gap(problem, eta, N, K, N // K)  # noqa: E731
    kappa3 = onestep.moments(problem).kappa3
    assert remainder_order(difference, lambda eta: -(eta**2) * kappa3 / N**2) == pytest.approx(3, abs=0.15)
    assert remainder_order(difference, lambda eta: eta**2 * kappa3 / N**2) == pytest.approx(2, abs=0.15)


# --- all step sizes, to leading order in 1/N ----------------------------------------------------------------


def multisets(m, N):
    if m == 1:
        return [(N,)]
    return [(k, *rest) for k in range(N + 1) for rest in multisets(m - 1, N - k)]


def enumerate_gap(problem, eta, N, T):
    """Gradient descent on every multiset with its multinomial weight, by plain loops of updates."""
    counts = np.array(multisets(problem.m, N))
    logs = [math.lgamma(N + 1) - sum(math.lgamma(k + 1) for k in row) for row in counts]
    weights = np.exp(logs + counts @ np.log(problem.probabilities))
    thetas, share = np.tile(problem.theta0, (len(counts), 1)), counts / N
    for _ in range(T):
        thetas = thetas - eta * np.einsum("cm,cmd->cd", share, problem.gradients(thetas))
    values = problem.values(thetas)
    return float(weights @ (values @ problem.probabilities - (values * share).sum(1)))


SIZES = 2 ** np.arange(4, 9)
MANY = [("R2", 0.5, 1), ("R4", 0.5, 1), ("R5", 0.5, 1), ("R2", 0.2, 4), ("R3", 0.2, 4), ("R4", 0.1, 3), ("R5", 1.0, 3)]


def test_enumeration_agrees_with_the_oracle(roberts_problems):
    assert enumerate_gap(roberts_problems["R4"], 0.1, 6, 3) == pytest.approx(gap(roberts_problems["R4"], 0.1, 6, 3))


@pytest.mark.parametrize(("name", "eta", "T"), MANY)
def test_remainder_of_many_steps_is_of_order_one_over_N_squared(roberts_problems, name, eta, T):
    problem, sizes = roberts_problems[name], SIZES if roberts_problems[name].m == 2 else SIZES[:5]
    off = [abs(enumerate_gap(problem, eta, N, T) - onestep.many_steps(problem, eta, int(N), T)) for N in sizes]
    assert rate(sizes, off) == pytest.approx(-2, abs=0.15)


def test_adding_up_the_one_step_formula_is_wrong_at_leading_order(roberts_problems):
    problem, eta, T, theta, added = roberts_problems["R2"], 0.2, 4, roberts_problems["R2"].theta0, 0.0
    for _ in range(T):
        at = onestep.moments(problem, theta)
        added, theta = added + eta * at.trace, theta - eta * at.G
    # orientation values at N = 4096: 0.2824 exactly, 0.610 for the sum
    assert onestep.many_steps(problem, eta, 1, T) == pytest.approx(0.282363, abs=5e-7)
    assert added == pytest.approx(0.610, abs=5e-4)
    assert 4096 * enumerate_gap(problem, eta, 4096, T) == pytest.approx(0.282423, abs=5e-7)


def test_all_orders_is_many_steps_with_one_step(roberts_problems, problem_b):
    for problem in (*roberts_problems.values(), problem_b):
        one, many = onestep.all_orders(problem, 0.7, 9), onestep.many_steps(problem, 0.7, 9, 1)
        assert one == pytest.approx(many, rel=1e-13)
        assert onestep.many_steps(problem, 0.7, 9, 0) == 0


def test_all_orders_begins_like_the_expansion_without_kappa3(roberts_problems):
    problem = roberts_problems["R5"]
    at = onestep.moments(problem)
    series = lambda eta: eta * at.trace - eta**2 / 2 * (at.G @ at.grad_trace)  # noqa: E731
    assert remainder_order(lambda eta: onestep.all_orders(problem, eta, 1), series) == pytest.approx(3, abs=0.15)


# --- two batches, self-averaging, divergence ----------------------------------------------------------------

BATCHES = [
    ([0, 1], [2, 3], F(0)),
    ([0, 1, 2], [0, 1, 2], F(1, 3)),
    ([0], [0, 1, 2, 3], F(1, 4)),
    ([0, 1], [1, 2, 3], F(1, 6)),
    ([0, 0, 1], [0, 1, 1, 2], F(4, 12)),
    ([3, 3], [3, 3, 3], F(1)),
]


@pytest.mark.parametrize(("A", "B", "value"), BATCHES)
def test_covariance_of_two_batches_is_that_of_all_draws(roberts_problems, A, B, value):
    p, g, _ = derivatives("R3")
    G = sum(p[:, None] * g)
    total = sum(
        chance * np.outer(mean([g[D[a]] for a in A]) - G, mean([g[D[b]] for b in B]) - G)
        for chance, D in data_sets(p, 4)
    )
    assert onestep.batch_covariance(A, B) == pytest.approx(float(value), rel=1e-15)
    np.testing.assert_allclose(
        total.astype(float), float(value) * onestep.moments(roberts_problems["R3"]).Sigma, atol=1e-14
    )


@pytest.mark.parametrize(("A", "B", "value"), BATCHES)
def test_given_the_training_set_the_order_correlates_disjoint_batches(A, B, value):
    rows = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 1.0], [-1.0, 0.5]])
    S, centred = np.cov(rows.T), rows - rows.mean(0)
    orders = [centred[list(order)] for order in itertools.permutations(range(4))]
    total = np.mean([np.outer(r[A].mean(0), r[B].mean(0)) for r in orders], axis=0)
    assert onestep.batch_covariance(A, B, N=4) == pytest.approx(float(value - F(1, 4)), abs=1e-15)
    np.testing.assert_allclose(total, onestep.batch_covariance(A, B, N=4) * S, atol=1e-14)


def variance_by_hand(name, N, M):
    """Over all training sets and all test sets, in fractions."""
    p, g, _ = derivatives(name)
    first, second = F(0), F(0)
    for chance, D in data_sets(p, N):
        for other, A in data_sets(p, M):
            x = mean([g[i] for i in D]) @ (mean([g[i] for i in D]) - mean([g[i] for i in A]))
            first, second = first + chance * other * x, second + chance * other * x * x
    return float(second - first**2)


@pytest.mark.parametrize(("name", "N", "M"), [("R1", 4, 2), ("R2", 3, 2), ("R3", 2, 2), ("R4", 3, 1), ("R4", 1, 3)])
def test_variance_is_that_over_all_training_and_test_sets(roberts_problems, name, N, M):
    assert onestep.variance(roberts_problems[name], N, M) == pytest.approx(variance_by_hand(name, N, M), rel=1e-12)


def test_variance_with_the_population_as_test_set_is_the_limit(roberts_problems):
    limit = onestep.variance(roberts_problems["R4"], 3, math.inf)
    assert onestep.variance(roberts_problems["R4"], 3, 10**12) == pytest.approx(limit, rel=1e-11)


def test_variance_without_its_third_and_fourth_moments_is_noticed(roberts_problems):
    at, N = onestep.moments(roberts_problems["R4"]), 3
    short = at.G @ at.Sigma @ at.G / N + 2 * (at.Sigma**2).sum() / N**2
    assert abs(short - onestep.variance(roberts_problems["R4"], N, math.inf)) > 0.1


def two_laws(roberts_problems):
    train = roberts_problems["R4"]
    return train, FiniteProblem(train.losses, [1 / 6, 1 / 6, 2 / 3], train.theta0)


def test_divergence_is_first_order_with_our_sign_and_not_the_printed_one(roberts_problems):
    train, test = two_laws(roberts_problems)
    N = 3

    start = np.array([train.theta0])
    g, before = train.gradients(start)[0], train.values(start)[0]

    def change(eta):
        total = 0.0
        for D in itertools.product(range(3), repeat=N):
            moved = train.values(start - eta * g[list(D)].mean(0))[0] - before
            total += math.prod(train.probabilities[list(D)]) * (moved @ test.probabilities - moved[list(D)].mean())
        return total

    at, other = onestep.moments(train), onestep.moments(test)
    printed = lambda eta: eta * (at.trace / N + at.G @ (other.G - at.G))  # noqa: E731
    assert remainder_order(change, lambda eta: onestep.divergence(train, test, eta, N)) == pytest.approx(2, abs=0.15)
    assert remainder_order(change, printed) == pytest.approx(1, abs=0.15)


def test_no_divergence_is_the_leading_order(roberts_problems):
    problem = roberts_problems["R5"]
    same(onestep.divergence(problem, problem, 0.2, 7), onestep.one_step(problem, 0.2, 7).leading)


# --- losses of every kind, bad input ------------------------------------------------------------------------


def kinked(t):
    if t[0] > 0:
        return t[0] ** 3
    return -t[0]


def test_losses_may_have_control_flow_and_vanishing_derivatives():
    problem = FiniteProblem([kinked, lambda t: 2 * t[0], lambda t: t.sum() * 0 + 1.0], [0.5, 0.25, 0.25], [1.0])
    with torch.no_grad():
        at, there = onestep.moments(problem), onestep.moments(problem, [-1.0])
    assert (at.G[0], at.H[0, 0], there.G[0], there.H[0, 0]) == (2.0, 3.0, 0.0, 0.0)
    assert at.trace == pytest.approx(0.5 * 9 + 0.25 * 4 - 4)
    assert at.grad_trace[0] == pytest.approx(
        2 * 0.5 * (6 - 3) * (3 - 2) + 2 * 0.25 * (-3) * (0 - 2) + 2 * 0.25 * (-3) * 0
    )


def test_the_start_is_not_changed(roberts_problems):
    problem = roberts_problems["R3"]
    before = problem.theta0.copy()
    onestep.many_steps(problem, 0.1, 3, 5)
    np.testing.assert_array_equal(problem.theta0, before)


BAD = {
    "problem": (lambda p: onestep.moments("R1"), TypeError, "FiniteProblem"),
    "theta of another size": (lambda p: onestep.moments(p, [1.0, 2.0]), ValueError, "theta"),
    "theta not finite": (lambda p: onestep.moments(p, [math.nan]), ValueError, "theta"),
    "eta zero": (lambda p: onestep.one_step(p, 0.0, 2), ValueError, "eta"),
    "eta negative": (lambda p: onestep.gap_after(p, -0.1, N=2, K=2), ValueError, "eta"),
    "eta NaN": (lambda p: onestep.all_orders(p, math.nan, 2), ValueError, "eta"),
    "eta a matrix": (lambda p: onestep.one_step(p, [[0.1]], 2), TypeError, "eta"),
    "N zero": (lambda p: onestep.one_step(p, 0.1, 0), ValueError, "N = 0"),
    "N not whole": (lambda p: onestep.many_steps(p, 0.1, 2.5, 1), TypeError, "N = 2.5"),
    "T negative": (lambda p: onestep.many_steps(p, 0.1, 2, -1), ValueError, "T = -1"),
    "the path overflows": (lambda p: onestep.many_steps(p, 1e200, 2, 3), ValueError, "overflows"),
    "K no divisor": (lambda p: onestep.gap_after(p, 0.1, N=4, K=3), ValueError, "divisor of N = 4"),
    "K above N": (lambda p: onestep.gap_after(p, 0.1, N=4, K=5), ValueError, "K = 5"),
    "M zero": (lambda p: onestep.variance(p, 2, 0), ValueError, "M = 0"),
    "M not whole": (lambda p: onestep.variance(p, 2, 1.5), TypeError, "M = 1.5"),
    "M minus infinity": (lambda p: onestep.variance(p, 2, -math.inf), TypeError, "M = -inf"),
    "another start": (
        lambda p: onestep.divergence(p, FiniteProblem(p.losses, p.probabilities, [2.0]), 0.1, 2), ValueError, "theta0"),
    "test not a problem": (lambda p: onestep.divergence(p, None, 0.1, 2), TypeError, "test"),
    "one step overflows": (lambda p: onestep.one_step(p, 1e200, 2), ValueError, "overflows"),
    "epoch overflows": (lambda p: onestep.gap_after(p, 1e200, N=2, K=2), ValueError, "overflows"),
    "empty batch": (lambda p: onestep.batch_covariance([], [1]), ValueError, "A has shape"),
    "index negative": (lambda p: onestep.batch_covariance([0], [-1]), ValueError, "B holds"),
    "index beyond N": (lambda p: onestep.batch_covariance([0], [4], N=4), ValueError, "indices from 0 to 3"),
    "index not whole": (lambda p: onestep.batch_covariance([0.5], [1]), TypeError, "A has dtype"),
    "index matrix": (lambda p: onestep.batch_covariance([[0]], [1]), ValueError, "A has shape"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(roberts_problems, call, error, words):
    with pytest.raises(error, match=words):
        call(roberts_problems["R1"])


def test_a_hessian_that_is_not_finite_is_named():
    problem = FiniteProblem([lambda t: (t[0] ** 2) ** 0.75], [1.0], [1.0])
    with pytest.raises(ValueError, match=r"losses\[0\] has the"):
        onestep.moments(problem, [0.0])


def test_results_are_plain_numbers(roberts_problems):
    after = onestep.gap_after(roberts_problems["R3"], 0.1, N=4, K=2)
    at = onestep.moments(roberts_problems["R3"])
    values = [after.sgd, after.gd, after.test_sgd, after.test_gd, at.trace, at.kappa3, at.trace_H_Sigma]
    values += vars(onestep.one_step(roberts_problems["R3"], 0.1, 4)).values()
    assert {type(v) for v in values} == {float}
