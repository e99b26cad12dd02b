"""The drift of GD against SGD: closed forms against enumeration, printed rational numbers, and negative controls."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, exact
from implicitreg.checks import rate
from implicitreg.gap import schedules
from numpy.polynomial import chebyshev
from scipy.integrate import solve_ivp

ETAS = 0.08 / 2.0 ** np.arange(5)
P_MATRIX = np.array([[2.0, 0.5], [0.5, 1.0]])


def data_set(problem, indices):
    """The chosen examples as a data set with equal weights."""
    n = len(indices)
    return FiniteProblem([problem.losses[i] for i in indices], np.full(n, 1 / n), problem.theta0)


def descend(problem, etas, batches, momentum=0.0):
    """A plain loop over steps, on example indices."""
    theta, velocity = problem.theta0.copy(), 0.0
    for eta, batch in zip(etas, batches, strict=True):
        velocity = momentum * velocity + problem.gradients(theta[None])[0, list(batch)].mean(axis=0)
        theta = theta - eta * velocity
    return theta


def mean_over_data(problem, etas, batches, N, momentum=0.0):
    """Mean end over all m^N ordered training sets."""
    total = 0.0
    for data in itertools.product(range(problem.m), repeat=N):
        chosen = [[data[i] for i in batch] for batch in batches]
        total = total + math.prod(problem.probabilities[list(data)]) * descend(problem, etas, chosen, momentum)
    return total


def difference(problem, eta, N, K, epochs=1, momentum=0.0, reshuffle=True):
    """<GD − SGD> at finite eta, from the oracle."""
    T = K * epochs
    sgd = exact.run(problem, eta, N=N, T=T, B=N // K, momentum=momentum, reshuffle=reshuffle).theta
    return exact.run(problem, eta, N=N, T=T, B=N, momentum=momentum).theta - sgd


# --- the drift ------------------------------------------------------------------------------------------------

PRINTED = [  # model, N, K, epochs, eta, leading <GD − SGD>
    ("R1", 2, 2, 1, "1/10", ["1/200"]),
    ("R1", 4, 2, 1, "1/10", ["1/400"]),
    ("R2", 3, 3, 1, "1/10", ["17/1600"]),
    ("R2", 4, 2, 1, "1/10", ["17/6400"]),
    ("R3", 4, 2, 1, "1/10", ["1/320", "-1/400"]),
    ("R3", 4, 4, 1, "1/20", ["3/640", "-3/800"]),
    ("R3", 2, 2, 2, "1/20", ["1/320", "-1/400"]),
    ("R4", 2, 2, 1, "1/20", ["1051/172800", "1813/307200"]),
]


@pytest.mark.parametrize(("name", "N", "K", "epochs", "eta", "value"), PRINTED)
def test_drift_has_its_rational_value(roberts_problems, name, N, K, epochs, eta, value):
    got = schedules.drift(roberts_problems[name], float(Fraction(eta)), N=N, K=K, epochs=epochs)
    np.testing.assert_allclose(got, [float(Fraction(v)) for v in value], rtol=1e-13)


def test_drift_of_logistic_regression_has_its_printed_digits(roberts_problems):
    got = schedules.drift(roberts_problems["R5"], 0.2, N=4, K=2)
    np.testing.assert_allclose(got, [-0.0008007849659510869, -0.002830905639276502], rtol=1e-12)


@pytest.mark.parametrize(("reshuffle", "value"), [(False, 1.1953125), (True, 1.4609375)])
def test_momentum_over_two_epochs_sees_the_reshuffling(roberts_problems, reshuffle, value):
    got = schedules.drift(roberts_problems["R2"], 1.0, N=2, K=2, epochs=2, momentum=0.5, reshuffle=reshuffle)
    assert got[0] == pytest.approx(value, rel=1e-13)


CASES = {
    "K2": ("B", {"N": 2, "K": 2}),
    "K3": ("B", {"N": 3, "K": 3}),
    "K4": ("R2", {"N": 4, "K": 4}),
    "batches-of-two": ("R4", {"N": 4, "K": 2}),
    "two-epochs": ("R2", {"N": 2, "K": 2, "epochs": 2}),
    "two-epochs-same-order": ("R2", {"N": 3, "K": 3, "epochs": 2, "reshuffle": False}),
    "momentum-half": ("R2", {"N": 3, "K": 3, "momentum": 0.5}),
    "momentum-0.9": ("B", {"N": 3, "K": 3, "momentum": 0.9}),
    "momentum-two-epochs": ("R2", {"N": 2, "K": 2, "epochs": 2, "momentum": 0.5}),
    "momentum-two-epochs-same-order": ("R2", {"N": 2, "K": 2, "epochs": 2, "momentum": 0.5, "reshuffle": False}),
}


@pytest.mark.parametrize("case", CASES)
def test_remainder_is_of_third_order(roberts_problems, problem_b, case):
    name, arguments = CASES[case]
    problem = problem_b if name == "B" else roberts_problems[name]
    ends = np.array([difference(problem, eta, **arguments) for eta in ETAS / 4])
    drifts = np.array([schedules.drift(problem, eta, **arguments) for eta in ETAS / 4])
    assert rate(ETAS, np.abs(ends - drifts).max(axis=1)) == pytest.approx(3, abs=0.15)
    assert rate(ETAS, np.abs(ends - 2 * drifts).max(axis=1)) == pytest.approx(2, abs=0.25)
    assert rate(ETAS, np.abs(ends + drifts).max(axis=1)) == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize("K", [2, 3])
def test_preconditioner_enters_the_covariance_and_the_step(problem_b, K):
    off, plain = [], []
    for eta in ETAS:
        d = difference(problem_b, eta / 4 * P_MATRIX, K, K)
        off.append(np.abs(d - schedules.drift(problem_b, eta / 4 * P_MATRIX, N=K, K=K)).max())
        eye = schedules.drift(problem_b, eta / 4, N=K, K=K)
        plain.append(np.abs(d - P_MATRIX @ P_MATRIX @ eye).max())  # P also under the derivative only, P∂tr(PΣ)
    assert rate(ETAS, off) == pytest.approx(3, abs=0.15)
    assert rate(ETAS, plain) < 2.3


def test_quadratic_cases_with_K_2_are_exact(roberts_problems):
    two_lines = roberts_problems["R6"]
    got = schedules.drift(two_lines, 0.1, N=2, K=2, momentum=0.5)
    np.testing.assert_allclose(got, [227 / 320 - 113 / 160, 33 / 160 - 1 / 5], atol=1e-15)
    got = schedules.drift(two_lines, 0.1 * P_MATRIX, N=2, K=2)
    np.testing.assert_allclose(got, [31 / 64 - 15 / 32, 237 / 1280 - 109 / 640], atol=1e-15)


def test_matrix_step_of_a_multiple_of_the_identity_is_a_number(problem_b):
    got = schedules.drift(problem_b, 0.1 * np.eye(2), N=6, K=3, epochs=2, momentum=0.3)
    np.testing.assert_allclose(got, schedules.drift(problem_b, 0.1, N=6, K=3, epochs=2, momentum=0.3), rtol=1e-13)


def test_one_batch_is_gradient_descent_and_constant_covariance_does_not_drift(problem_b):
    assert not schedules.drift(problem_b, 0.1, N=4, K=1, epochs=3, momentum=0.5).any()
    additive = FiniteProblem([lambda t: (t[0] - 1) ** 2 / 2, lambda t: (t[0] + 2) ** 2 / 2], [0.4, 0.6], [0.7])
    assert not schedules.drift(additive, 0.1, N=4, K=4).any()
    assert difference(additive, 0.3, 4, 4) == pytest.approx(0, abs=1e-15)


def test_losses_without_curvature_and_with_control_flow():
    linear = FiniteProblem([lambda t: t[0], lambda t: -3 * t[0]], [0.5, 0.5], [0.0])
    assert not schedules.drift(linear, 0.1, N=2, K=2).any()
    branch = lambda t: 3 * t[0] ** 2 / 2 if t[0] > 0 else t[0] * 0  # noqa: E731
    kinked = FiniteProblem([lambda t: t[0] ** 2 / 2, branch], [0.5, 0.5], [1.0])
    assert schedules.drift(kinked, 0.1, N=2, K=2)[0] == pytest.approx(0.005)


# --- any schedule ---------------------------------------------------------------------------------------------

SCHEDULES = {
    "unequal": ([1, 1, 1], [[0], [1, 2], [3]], 4, 0.0),
    "reused": ([1, 1], [[0, 1], [1, 2]], 3, 0.0),
    "same-batch": ([1, 1, 1], [[0], [0], [0]], 2, 0.0),
    "multiplicity": ([1, 1], [[0, 0, 1], [0, 1]], 2, 0.0),
    "falling-steps": ([2, 1, 0.5], [[0], [1], [2]], 3, 0.0),
    "falling-steps-momentum": ([2, 1, 0.5], [[0], [1], [0]], 2, 0.6),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_master_formula_against_all_data_sets(roberts_problems, case):
    steps, batches, N, momentum = SCHEDULES[case]
    problem, off, small = roberts_problems["R2"], [], ETAS / 8
    for eta in small:
        etas = eta * np.array(steps)
        sgd = mean_over_data(problem, etas, batches, N, momentum)
        gd = mean_over_data(problem, etas, [range(N)] * len(etas), N, momentum)
        predicted = schedules.schedule_drift(problem, etas, batches, N, momentum=momentum)
        off.append(np.abs(gd - sgd - predicted).max())
    assert rate(small, off) == pytest.approx(3, abs=0.15)


def test_pair_sum_of_epochs_is_the_drift(problem_b):
    """One order of two epochs, repeated; and the mean over all second orders."""
    epoch, T = [[0, 1], [2, 3], [4, 5]], 6
    kwargs = {"N": 6, "K": 3, "epochs": 2, "momentum": 0.4}
    got = schedules.schedule_drift(problem_b, np.full(T, 0.1), epoch + epoch, 6, momentum=0.4)
    np.testing.assert_allclose(got, schedules.drift(problem_b, 0.1, reshuffle=False, **kwargs), rtol=1e-12)
    second = [[o[:2], o[2:4], o[4:]] for o in itertools.permutations(range(6))]
    weight = np.mean([schedules.pair_sum(np.full(T, 0.1), epoch + s, 6, momentum=0.4) for s in second])
    repeated = schedules.pair_sum(np.full(T, 0.1), epoch + epoch, 6, momentum=0.4)
    np.testing.assert_allclose(got * weight / repeated, schedules.drift(problem_b, 0.1, **kwargs), rtol=1e-10)


def test_with_replacement_has_no_drift_at_second_order(problem_b):
    """The pair weights cancel over all batches of two draws, and of two-subsets; so does the drift, through eta²."""
    draws = list(itertools.product(range(3), repeat=2))
    for pool in (draws, list(itertools.combinations(range(3), 2))):
        sums = [schedules.pair_sum([0.1] * 3, plan, 3) for plan in itertools.product(pool, repeat=3)]
        assert np.mean(sums) == pytest.approx(0, abs=1e-16)
    off, small = [], ETAS / 8
    for eta in small:
        plans = itertools.product([[0], [1]], repeat=2)
        sgd = np.mean([mean_over_data(problem_b, [eta] * 2, plan, 2) for plan in plans], axis=0)
        off.append(np.abs(mean_over_data(problem_b, [eta] * 2, [[0, 1], [0, 1]], 2) - sgd).max())
    assert rate(small, off) == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("K", [1, 2, 3, 4, 7])
def test_modified_coefficient_is_the_double_sum(K, beta):
    a = [(1 - beta**m) / (1 - beta) for m in range(K + 1)]
    W = sum(a[m] * a[l] for m in range(1, K + 1) for l in range(1, K + 1 - m))
    assert schedules.modified_coefficient(K, beta) == pytest.approx(W / (2 * sum(a)), rel=1e-13)
    assert schedules.modified_coefficient(K) == pytest.approx((K - 1) / 4)


@pytest.mark.parametrize(("K", "value"), [(2, 1 / 5), (3, 8 / 17), (4, 39 / 49)])
def test_modified_coefficient_with_momentum_one_half(K, value):
    assert schedules.modified_coefficient(K, 0.5) == pytest.approx(value, rel=1e-14)


# --- the modified loss ----------------------------------------------------------------------------------------

MODIFIED = [  # model, N, K, epochs, eta, mean theta, mean test loss, mean gap
    ("R1", 2, 2, 1, 0.1, [102561 / 160000], 0.4236341375390625, 0.0515189984375),
    ("R1", 4, 2, 1, 0.1, [409921 / 640000], 170652320641 / 409600000000, 263473119 / 10240000000),
    ("R2", 3, 3, 1, 0.1, [0.369615409165296], -0.001094932745856571, 0.06950009980199879),
    ("R2", 4, 2, 1, 0.1, [0.4036181141932949], -0.001222750731764924, 0.04005182001292161),
    ("R3", 4, 2, 1, 0.1, [1344563 / 5120000, -34709 / 614400], 1.436605098797604, 0.1702356189339956),
    ("R3", 4, 4, 1, 0.05, [0.2680268433583324, -0.06610439966794578], 1.450778364570036, 0.1638336019470102),
    ("R3", 2, 2, 2, 0.05, [0.2738059827075076, -0.07008084720397433], 1.480624161146246, 0.3286135487617702),
    ("R4", 2, 2, 1, 0.05, [0.6585428634527486, 0.5629822566067583], 1.094534779340917, 0.1472823194100188),
    ("R5", 4, 2, 1, 0.2, [0.4749196197815772, -0.09257008521879293], 0.7450203794547842, 0.05319449587957254),
]


@pytest.mark.parametrize(("name", "N", "K", "epochs", "eta", "theta", "test", "gap"), MODIFIED)
def test_modified_gd_has_its_printed_digits(roberts_problems, name, N, K, epochs, eta, theta, test, gap):
    run = schedules.modified_gd(roberts_problems[name], eta, N=N, K=K, epochs=epochs)
    np.testing.assert_allclose(run.theta, theta, atol=1e-14)
    assert run.test_loss == pytest.approx(test, abs=1e-13)
    assert run.test_loss - run.train_loss == pytest.approx(gap, abs=1e-13)


def test_without_penalty_it_is_the_oracle(problem_b):
    run = schedules.modified_gd(problem_b, 0.1, N=4, K=2, epochs=2, momentum=0.5, coefficient=0.0)
    oracle = exact.run(problem_b, 0.1, N=4, T=4, B=4, momentum=0.5)
    for field in ("theta", "theta_cov", "test_loss", "train_loss"):
        np.testing.assert_allclose(getattr(run, field), getattr(oracle, field), atol=1e-14)


@pytest.mark.parametrize("covariance", ["population", "sample"])
@pytest.mark.parametrize(("name", "K", "momentum"), [("R3", 2, 0.0), ("R2", 3, 0.0), ("R2", 3, 0.5), ("R4", 2, 0.9)])
def test_only_the_right_coefficient_is_third_order(roberts_problems, covariance, name, K, momentum):
    problem, small = roberts_problems[name], ETAS / 4
    sgd = [exact.run(problem, e, N=K, T=K, momentum=momentum).theta for e in small]
    right = schedules.modified_coefficient(K, momentum)

    def order(c):
        runs = [
            schedules.modified_gd(problem, e, N=K, K=K, momentum=momentum, covariance=covariance, coefficient=c)
            for e in small
        ]
        return rate(small, [np.abs(r.theta - s).max() for r, s in zip(runs, sgd, strict=True)])

    assert order(right) == pytest.approx(3, abs=0.15)
    assert all(order(c) < 2.3 for c in (2 * right, -right, 0.0))


def test_modified_gd_with_a_preconditioner(problem_b):
    small = ETAS / 4
    off = [
        np.abs(
            schedules.modified_gd(problem_b, e * P_MATRIX, N=2, K=2).theta
            - exact.run(problem_b, e * P_MATRIX, N=2, T=2).theta
        ).max()
        for e in small
    ]
    assert rate(small, off) == pytest.approx(3, abs=0.15)


def test_order_table_of_linear_regression(roberts_problems):
    """Errors of the mean for coefficients 0, 1/4, 1/2, −1/4 at eta = 1/10, to the three digits printed."""
    sgd = exact.run(roberts_problems["R3"], 0.1, N=4, T=2, B=2).theta
    off = [
        np.linalg.norm(schedules.modified_gd(roberts_problems["R3"], 0.1, N=4, K=2, coefficient=c).theta - sgd)
        for c in (0, 0.25, 0.5, -0.25)
    ]
    np.testing.assert_allclose(off, [4.00e-3, 6.68e-4, 3.13e-3, 7.52e-3], rtol=2e-3)


def test_sample_covariance_also_reproduces_the_gap(roberts_problems):
    """GD on the sample penalty has SGD's gap through eta², GD itself does not (kappa3 differs)."""
    problem, small = roberts_problems["R4"], ETAS / 8
    gap = lambda run: run.test_loss - run.train_loss  # noqa: E731
    sgd = [gap(exact.run(problem, e, N=2, T=2)) for e in small]
    sample = [gap(schedules.modified_gd(problem, e, N=2, K=2, covariance="sample")) for e in small]
    plain = [gap(exact.run(problem, e, N=2, T=2, B=2)) for e in small]
    assert rate(small, np.abs(np.subtract(sample, sgd))) == pytest.approx(3, abs=0.15)
    assert rate(small, np.abs(np.subtract(plain, sgd))) == pytest.approx(2, abs=0.15)


# --- one data set ---------------------------------------------------------------------------------------------


def weights_of(sampler, N, K, epochs):
    """All equally likely weights (R, T, N) of a sampler."""
    n = N // K
    unit = np.eye(N)
    shuffles = np.array([unit[list(o)].reshape(K, n, N).mean(axis=1) for o in itertools.permutations(range(N))])
    if sampler == "epochs":
        return np.array([np.concatenate(c) for c in itertools.product(shuffles, repeat=epochs)])
    choose = itertools.combinations if sampler == "subsets" else lambda r, n: itertools.product(r, repeat=n)
    steps = [unit[list(c)].mean(axis=0) for c in choose(range(N), n)]
    return np.array(list(itertools.product(steps, repeat=K * epochs)))


@pytest.mark.parametrize(("sampler", "N", "K", "epochs"), [
    ("epochs", 4, 2, 1), ("epochs", 3, 3, 2), ("subsets", 4, 2, 1), ("subsets", 4, 2, 2),
    ("with_replacement", 3, 3, 1), ("with_replacement", 4, 2, 1),
])  # fmt: skip
def test_two_numbers_by_enumeration(sampler, N, K, epochs):
    W = weights_of(sampler, N, K, epochs)
    got = schedules.two_numbers(sampler, N=N, K=K, epochs=epochs)
    assert pytest.approx(W.var(axis=0).sum(), rel=1e-12) == got.D
    assert pytest.approx(W.sum(axis=1).var(axis=0).sum(), abs=1e-12) == got.A


@pytest.mark.parametrize(("sampler", "D", "A"), [
    ("gd", 0, 0), ("epochs", 2, 0), ("with_replacement", 22 / 9, 22 / 9), ("subsets", 2, 2),
])  # fmt: skip
def test_two_numbers_of_twelve_examples(sampler, D, A):
    got = schedules.two_numbers(sampler, N=12, K=4, epochs=2)
    assert (pytest.approx(D), pytest.approx(A)) == (got.D, got.A)


@pytest.mark.parametrize("sampler", ["epochs", "subsets", "with_replacement"])
@pytest.mark.parametrize("indices", [[0, 1, 2, 0], [0, 1, 2, 2]], ids=["0120", "0122"])
def test_drift_and_spread_on_every_data_set(problem_b, sampler, indices):
    data, small = data_set(problem_b, indices), ETAS / 4
    W = weights_of(sampler, 4, 2, 1)
    gd = np.full((1, 2, 4), 1 / 4)
    g = data.gradients(data.theta0[None])[0]
    S, numbers = np.cov(g.T), schedules.two_numbers(sampler, N=4, K=2)
    off, spread = [], []
    for eta in small:
        ends = schedules.paths(data, eta, W)[:, -1]
        d = schedules.paths(data, eta, gd)[0, -1] - ends.mean(axis=0)
        off.append(np.abs(d - schedules.data_drift(data, eta, K=2, sampler=sampler)).max())
        spread.append(np.abs(np.cov(ends.T, ddof=0) - eta**2 * numbers.spread * S).max())
    assert rate(small, off) == pytest.approx(3, abs=0.15)
    assert rate(small, spread) > 2.8


def test_sample_covariance_needs_N_minus_one(problem_b):
    """With 1/N the prediction is off by (N − 1)/N, and the remainder is of second order again."""
    data, small = data_set(problem_b, [0, 1, 2, 2]), ETAS / 4
    W, off = weights_of("epochs", 4, 2, 1), []
    for eta in small:
        d = schedules.paths(data, eta, np.full((1, 2, 4), 1 / 4))[0, -1] - schedules.paths(data, eta, W)[:, -1].mean(
            axis=0
        )
        off.append(np.abs(d - 3 / 4 * schedules.data_drift(data, eta, K=2)).max())
    assert rate(small, off) < 2.3


def test_fixed_data_set_series(problem_a):
    """Coefficients of eta²: GD 77/16, without replacement 2429/384, with replacement 77/16."""
    data = FiniteProblem(problem_a.losses, [1 / 3, 1 / 3, 1 / 3], [0.5])
    got = schedules.data_drift(data, 1.0, K=3)
    assert got[0] == pytest.approx(77 / 16 - 2429 / 384, rel=1e-13)
    assert schedules.data_drift(data, 1.0, K=3, sampler="with_replacement")[0] == 0


def test_fixed_data_set_of_the_bilinear_net_has_its_printed_digits(roberts_problems):
    data = data_set(roberts_problems["R4"], [0, 1, 2, 0])
    sgd = schedules.paths(data, 0.05, weights_of("epochs", 4, 2, 1))[:, -1].mean(axis=0)
    gd = schedules.paths(data, 0.05, np.full((1, 2, 4), 1 / 4))[0, -1]
    np.testing.assert_allclose(sgd, [2928279551 / 4423680000, 313759609 / 552960000], atol=1e-14)
    np.testing.assert_allclose(gd, [47101716137 / 70778880000, 5050183813 / 8847360000], atol=1e-14)
    modified = schedules.data_modified_gd(data, 0.05, K=2)[-1]
    np.testing.assert_allclose(modified, [0.6625198820553138, 0.5680111237946661], atol=1e-14)
    drift = 0.05**2 * 2 / 4 / 4 * np.array([1601 / 144, 2743 / 256])
    np.testing.assert_allclose(schedules.data_drift(data, 0.05, K=2), drift, rtol=1e-13)


@pytest.mark.parametrize("K", [2, 4])
def test_modified_gd_follows_the_mean_over_shuffles_of_every_data_set(problem_b, K):
    small = ETAS / 8
    for indices in ([0, 1, 2, 0], [1, 1, 2, 2]):
        data = data_set(problem_b, indices)
        W = weights_of("epochs", 4, K, 1)
        off = [
            np.abs(schedules.data_modified_gd(data, e, K=K)[-1] - schedules.paths(data, e, W)[:, -1].mean(axis=0)).max()
            for e in small
        ]
        assert rate(small, off) == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("K", [2, 4])
def test_penalties_differ_by_the_trace(problem_b, K):
    g = data_set(problem_b, [0, 1, 2, 0]).gradients(problem_b.theta0[None])[0]
    batches = weights_of("epochs", 4, K, 1) @ g
    smith = np.mean([schedules.smith_penalty(b, 0.3) for b in batches])
    flow = schedules.barrett_dherin_penalty(g, 0.3)
    assert smith - flow == pytest.approx(schedules.roberts_penalty(g, 0.3, batch_size=4 // K), rel=1e-13)
    assert schedules.roberts_penalty(g, 0.3, batch_size=4) == 0
    biased = 0.3 / 4 * (K / 4 - 1 / 4) * np.trace(np.cov(g.T, ddof=0))
    assert abs(smith - flow - biased) > 0.1 * (smith - flow)


@pytest.mark.parametrize("K", [2, 4])
def test_flow_on_smiths_loss_follows_the_mean_over_shuffles(problem_b, K):
    """Flow for time K eta on the mean over shuffles of Smith's loss; without the penalty only through eta."""
    data, small = data_set(problem_b, [0, 1, 2, 0]), ETAS / 8
    W = weights_of("epochs", 4, K, 1)
    first = np.unique(W.reshape(-1, K * 4).round(12), axis=0).reshape(-1, K, 4)

    def slope(theta, eta, step=1e-5):
        def loss(t):
            g = data.gradients(t[None])[0]
            return data.loss(t) + np.mean([schedules.smith_penalty(w @ g, eta) for w in first])

        return np.array([(loss(theta + h) - loss(theta - h)) / (2 * step) for h in step * np.eye(2)])

    off = []
    for eta in small[:1].tolist() + small[4:].tolist():
        flow = solve_ivp(lambda _, t, e=eta: -slope(t, e), (0, K * eta), data.theta0, rtol=1e-9, atol=1e-12).y[:, -1]
        off.append(np.abs(flow - schedules.paths(data, eta, W)[:, -1].mean(axis=0)).max())
    assert off[0] / off[1] == pytest.approx(16**3, rel=0.35)


def test_weighted_paths_are_the_plain_loop(problem_b):
    batches = [[0], [1, 2], [2, 2, 0]]
    W = np.array([[np.bincount(b, minlength=3) / len(b) for b in batches]])
    got = schedules.paths(problem_b, 0.1, W, momentum=0.7)
    assert got.shape == (1, 4, 2)
    np.testing.assert_allclose(got[0, -1], descend(problem_b, [0.1] * 3, batches, 0.7), atol=1e-15)


# --- a fixed training time ------------------------------------------------------------------------------------


def test_several_times_are_several_runs(problem_b):
    data = data_set(problem_b, [0, 1, 2])
    rows = schedules.fixed_horizon(data, [0.2, 0.5], v=0.3, a=0.7)
    for k, tau in enumerate((0.2, 0.5)):
        one = schedules.fixed_horizon(data, tau, v=0.3, a=0.7)
        for field in ("theta", "m", "C"):
            np.testing.assert_allclose(getattr(rows, field)[k], getattr(one, field), atol=1e-9)


POWERS = [[1.0, 0.5, 0.3, 0.25], [-1.2, 0.8, -0.4, 0.3]]


@pytest.fixture(scope="module")
def quartics():
    losses = [lambda t, c=c: sum(a * t[0] ** (k + 1) for k, a in enumerate(c)) for c in POWERS]
    return FiniteProblem(losses, [0.5, 0.5], [0.9])


@pytest.mark.parametrize(("tau", "a", "m"), [
    (1.6, 0, -0.081792063160), (1.6, 1, -0.157413991978), (1.6, 2, -0.233035920796),
    (6.4, 0, 0.057201099153), (6.4, 1, -0.037875169164), (6.4, 2, -0.132951437480),
])  # fmt: skip
def test_fixed_horizon_has_its_printed_digits(quartics, tau, a, m):
    assert schedules.fixed_horizon(quartics, tau, v=0.5, a=a).m[0] == pytest.approx(m, abs=1e-9)


def exact_means(eta, epochs):
    """Exact mean ends for b = 1 and two examples, by backward recursion of θ → E[end | θ] in Chebyshev polynomials."""
    step = [lambda x, c=c: x - eta * sum((k + 1) * a * x**k for k, a in enumerate(c)) for c in POWERS]
    low, high = -0.7, 1.0
    nodes = chebyshev.chebpts1(60)
    x = (high - low) / 2 * (nodes + 1) + low
    plans = {"epochs": [(0, 1), (1, 0)], "with": [(0, 0), (0, 1), (1, 0), (1, 1)], "twice": [(0, 0), (1, 1)]}
    ends = {}
    for name, orders in plans.items():
        values = x
        for _ in range(epochs):
            c = chebyshev.chebfit(nodes, values, 59)
            after = [step[second](step[first](x)) for first, second in orders]
            values = np.mean([chebyshev.chebval((y - low) / (high - low) * 2 - 1, c) for y in after], axis=0)
        ends[name] = chebyshev.chebval((0.9 - low) / (high - low) * 2 - 1, chebyshev.chebfit(nodes, values, 59))
    theta = 0.9
    for _ in range(2 * epochs):
        theta = (step[0](theta) + step[1](theta)) / 2
    return ends, theta


def test_exact_means_have_their_printed_digits():
    ends, gd = exact_means(0.02, 40)
    printed = [0.151772216779, 0.150330731187, 0.148851016942, 0.153469015132]
    np.testing.assert_allclose([ends["epochs"], ends["with"], ends["twice"], gd], printed, atol=2e-12)


@pytest.mark.parametrize(("plan", "a"), [("epochs", 0.0), ("with", 1.0), ("twice", 2.0)])
def test_fixed_horizon_is_the_limit_of_exact_means(quartics, plan, a):
    """(E theta_T − theta_GD)/eta at eta and eta/2, extrapolated: the error is of second order."""
    tau, m = 1.6, schedules.fixed_horizon(quartics, 1.6, v=0.5, a=a).m[0]
    shift = []
    for eta in (0.02, 0.01):
        ends, gd = exact_means(eta, round(tau / eta / 2))
        shift.append((ends[plan] - gd) / eta)
    assert abs(shift[1] - m) < 0.6 * abs(shift[0] - m)
    assert 2 * shift[1] - shift[0] == pytest.approx(m, rel=2e-3)


def test_fixed_horizon_in_two_dimensions_against_small_steps(problem_b):
    """Enumerated one-step recursions: after tau = eta T with T = 6 of two examples, compare with the ODE by scaling."""
    data = data_set(problem_b, [0, 1])
    small, off = [0.02, 0.01], []
    for eta in small:
        W = weights_of("with_replacement", 2, 2, 4)
        shift = (
            schedules.paths(data, eta, W)[:, -1].mean(axis=0)
            - schedules.paths(data, eta, np.full((1, 8, 2), 0.5))[0, -1]
        )
        discrete = -(eta**3) * 8 * 7 / 4 * 0.5 * third_derivative(data)
        off.append(np.abs(shift - discrete).max())
        assert np.abs(shift - discrete).max() < 0.3 * np.abs(shift).max()
        horizon = schedules.fixed_horizon(data, 8 * eta, v=0.5, a=1.0)
        assert np.abs(eta * horizon.m - shift).max() < 0.4 * np.abs(shift).max()
    assert off[0] / off[1] == pytest.approx(16, rel=0.35)


def third_derivative(data, step=1e-3):
    """The gradient of tr(H S) with S fixed, by differences of gradients."""
    g = data.gradients(data.theta0[None])[0]
    S, eye = np.cov(g.T), step * np.eye(2)
    mean = lambda t: data.gradients(t[None])[0].mean(axis=0)  # noqa: E731
    hessian = lambda t: np.array([(mean(t + e) - mean(t - e)) / (2 * step) for e in eye])  # noqa: E731
    return np.array([np.sum(S * (hessian(data.theta0 + e) - hessian(data.theta0 - e))) / (2 * step) for e in eye])


# --- what is not covered --------------------------------------------------------------------------------------


def test_preconditioner_estimated_on_the_batch_differs_at_first_order():
    """⟨P_B g_B⟩ − PG tends to [−P⟨δh P δg⟩ + P⟨δh P δh⟩PG]/n for P = 1/(h + λ): no power of eta to wait for."""
    g, h, p, ridge = np.array([1.0, -0.4]), np.array([1.0, 3.0]), 0.3, 0.2
    G, H = p * g[0] + (1 - p) * g[1], p * h[0] + (1 - p) * h[1]
    P, dg, dh = 1 / (H + ridge), g - G, h - H
    w = np.array([p, 1 - p])
    predicted = -P * np.sum(w * dh * P * dg) + P * np.sum(w * dh * P * dh) * P * G
    scaled = []
    for n in (50, 400):
        k = np.arange(n + 1)
        log = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k]
        chance = np.exp(log + k * np.log(p) + (n - k) * np.log(1 - p))
        gB, hB = (k * v[0] / n + (n - k) * v[1] / n for v in (g, h))
        scaled.append(n * (chance @ (gB / (hB + ridge)) - P * G))
    assert abs(scaled[1] - predicted) < 0.2 * abs(scaled[0] - predicted)
    assert scaled[1] == pytest.approx(predicted, rel=0.01)


# --- torch models ---------------------------------------------------------------------------------------------


def small_model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    inputs, targets = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0])
    return model, torch.nn.CrossEntropyLoss(reduction="none"), inputs, targets


def naive_modified_loss(model, loss, inputs, targets, eta, n):
    """By the definition, one example at a time, with a graph."""
    N, parameters = len(inputs), list(model.parameters())
    losses = [loss(model(x[None]), y[None])[0] for x, y in zip(inputs, targets, strict=True)]
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(each, parameters, create_graph=True)]) for each in losses
    ]
    centred = torch.stack(rows) - torch.stack(rows).mean(0)
    return sum(losses) / N + eta / 4 * (1 / n - 1 / N) * (centred**2).sum() / (N - 1)


def test_modified_gradient_of_a_network_is_the_gradient_of_the_modified_loss():
    model, loss, inputs, targets = small_model()
    value = naive_modified_loss(model, loss, inputs, targets, 0.5, 2)
    got = schedules.modified_loss(model, loss, inputs, targets, eta=0.5, batch_size=2)
    assert got.item() == pytest.approx(value.item(), rel=1e-13)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])
    got = schedules.modified_gradient(model, loss, inputs, targets, eta=0.5, batch_size=2)
    torch.testing.assert_close(got, gradient, rtol=1e-12, atol=1e-13)


def test_network_and_finite_problem_agree():
    """One weight, two examples: the torch gradient is the step of data_modified_gd."""
    data = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [0.7])
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(model.weight, 0.7)
    h = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    loss = lambda w, h: (h * w**2 / 2).squeeze(1)  # noqa: E731
    g = schedules.modified_gradient(model, loss, torch.ones_like(h), h, eta=0.2, batch_size=1)
    assert 0.7 - 0.2 * g.item() == pytest.approx(schedules.data_modified_gd(data, 0.2, K=2)[1, 0], rel=1e-13)


# --- bad input ------------------------------------------------------------------------------------------------

TOY = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
LAW = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.4, 0.6], [1.0])
ONE = FiniteProblem([lambda t: t[0] ** 2 / 2], [1.0], [1.0])
MODEL = small_model()
s = schedules
BAD = {
    "drift-no-problem": (TypeError, "problem", lambda: s.drift("x", 0.1, N=2, K=2)),
    "drift-eta-negative": (ValueError, "eta", lambda: s.drift(TOY, -0.1, N=2, K=2)),
    "drift-eta-nan": (ValueError, "eta", lambda: s.drift(TOY, np.nan, N=2, K=2)),
    "drift-eta-indefinite": (ValueError, "positive definite", lambda: s.drift(TOY, [[-1.0]], N=2, K=2)),
    "drift-eta-shape": (ValueError, "eta", lambda: s.drift(TOY, np.eye(2), N=2, K=2)),
    "drift-K-no-divisor": (ValueError, "K = 2: expected a divisor of N = 3", lambda: s.drift(TOY, 0.1, N=3, K=2)),
    "drift-K-zero": (ValueError, "K", lambda: s.drift(TOY, 0.1, N=3, K=0)),
    "drift-N-float": (TypeError, "N", lambda: s.drift(TOY, 0.1, N=2.0, K=2)),
    "drift-epochs": (ValueError, "epochs", lambda: s.drift(TOY, 0.1, N=2, K=2, epochs=0)),
    "drift-too-long": (ValueError, "steps", lambda: s.drift(TOY, 0.1, N=2, K=2, epochs=10**9)),
    "drift-momentum": (ValueError, "momentum", lambda: s.drift(TOY, 0.1, N=2, K=2, momentum=1.0)),
    "drift-reshuffle": (TypeError, "reshuffle", lambda: s.drift(TOY, 0.1, N=2, K=2, reshuffle="yes")),
    "pair-empty-batch": (ValueError, "batches\\[1\\]", lambda: s.pair_sum([1, 1], [[0], []], 2)),
    "pair-outside": (ValueError, "the point 2", lambda: s.pair_sum([1, 1], [[0], [2]], 2)),
    "pair-negative": (ValueError, "the point -1", lambda: s.pair_sum([1, 1], [[0], [-1]], 2)),
    "pair-float": (TypeError, "integers", lambda: s.pair_sum([1, 1], [[0], [0.5]], 2)),
    "pair-count": (ValueError, "batches has 1", lambda: s.pair_sum([1, 1], [[0]], 2)),
    "pair-eta-zero": (ValueError, "etas\\[1\\]", lambda: s.pair_sum([1, 0], [[0], [1]], 2)),
    "pair-eta-empty": (ValueError, "etas", lambda: s.pair_sum([], [], 2)),
    "coefficient-K": (ValueError, "K", lambda: s.modified_coefficient(0)),
    "modified-covariance": (ValueError, "covariance", lambda: s.modified_gd(TOY, 0.1, N=2, K=2, covariance="S")),
    "modified-one-point": (ValueError, "N = 1", lambda: s.modified_gd(TOY, 0.1, N=1, K=1, covariance="sample")),
    "modified-too-large": (ValueError, "training sets", lambda: s.modified_gd(TOY, 0.1, N=1000, K=1000, epochs=9)),
    "modified-coefficient": (ValueError, "coefficient", lambda: s.modified_gd(TOY, 0.1, N=2, K=2, coefficient=np.inf)),
    "sampler": (ValueError, "sampler", lambda: s.two_numbers("sgd", N=2, K=2)),
    "data-unequal": (ValueError, "probabilities", lambda: s.data_drift(LAW, 0.1, K=2)),
    "data-one-example": (ValueError, "one example", lambda: s.data_modified_gd(ONE, 0.1, K=1)),
    "data-eta-matrix": (TypeError, "eta", lambda: s.data_drift(TOY, [[0.1]], K=2)),
    "data-K": (ValueError, "K", lambda: s.data_modified_gd(TOY, 0.1, K=3)),
    "paths-shape": (ValueError, "weights has shape", lambda: s.paths(TOY, 0.1, [[0.5, 0.5]])),
    "paths-nan": (ValueError, "weights", lambda: s.paths(TOY, 0.1, [[[0.5, np.nan]]])),
    "horizon-tau": (ValueError, "tau", lambda: s.fixed_horizon(TOY, 0.0, v=0.5, a=1.0)),
    "horizon-times": (ValueError, "increasing", lambda: s.fixed_horizon(TOY, [1.0, 0.5], v=0.5, a=1.0)),
    "horizon-v": (ValueError, "v = -1", lambda: s.fixed_horizon(TOY, 1.0, v=-1, a=1.0)),
    "horizon-a": (ValueError, "a = -1", lambda: s.fixed_horizon(TOY, 1.0, v=0.5, a=-1)),
    "smith-nan": (ValueError, "gradients", lambda: s.smith_penalty([[np.nan]], 0.1)),
    "barrett-empty": (ValueError, "gradients", lambda: s.barrett_dherin_penalty(np.zeros((0, 2)), 0.1)),
    "roberts-one": (ValueError, "at least two", lambda: s.roberts_penalty([[1.0]], 0.1, batch_size=1)),
    "roberts-batch": (ValueError, "batch_size = 2", lambda: s.roberts_penalty(np.ones((3, 1)), 0.1, batch_size=2)),
    "model-eta": (ValueError, "eta", lambda: s.modified_gradient(*MODEL, eta=0, batch_size=2)),
    "model-batch": (ValueError, "batch_size", lambda: s.modified_loss(*MODEL, eta=0.1, batch_size=4)),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    error, words, call = BAD[case]
    with pytest.raises(error, match=words):
        call()


def in_units(c, unit):
    """Losses in units of c, of weights in units of ``unit``."""
    losses = [lambda t, k=k: c * ((t[0] / unit - k) ** 2 / 2 + torch.sin(k * t[0] / unit)) for k in (1, 3)]
    return FiniteProblem(losses, [0.5, 0.5], [0.5 * unit])


@pytest.mark.parametrize(("c", "unit"), [(1e-12, 1e3), (1e12, 1e-9)])
def test_fixed_horizon_has_no_units(c, unit):
    """In these units the time is of the order of unit²/c, m of c/unit and C of c."""
    one = schedules.fixed_horizon(in_units(1.0, 1.0), 0.3, v=0.5, a=0.5)
    other = schedules.fixed_horizon(in_units(c, unit), 0.3 * unit**2 / c, v=0.5, a=0.5)
    for found, expected in ((other.theta / unit, one.theta), (other.m * unit / c, one.m), (other.C / c, one.C)):
        np.testing.assert_allclose(found, expected, rtol=1e-8)
