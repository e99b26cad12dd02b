"""Drift in the mean over training sets: closed forms against enumeration, rational numbers, negative controls."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from enumerated import descend
from implicitreg import FiniteProblem, exact
from implicitreg.checks import rate
from implicitreg.gap import training_sets

ETAS = 0.08 / 2.0 ** np.arange(5)
P_MATRIX = np.array([[2.0, 0.5], [0.5, 1.0]])


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
    got = training_sets.drift(roberts_problems[name], float(Fraction(eta)), N=N, K=K, epochs=epochs)
    np.testing.assert_allclose(got, [float(Fraction(v)) for v in value], rtol=1e-13)


def test_drift_of_logistic_regression_has_its_printed_digits(roberts_problems):
    got = training_sets.drift(roberts_problems["R5"], 0.2, N=4, K=2)
    np.testing.assert_allclose(got, [-0.0008007849659510869, -0.002830905639276502], rtol=1e-12)


@pytest.mark.parametrize(("reshuffle", "value"), [(False, 1.1953125), (True, 1.4609375)])
def test_momentum_over_two_epochs_sees_the_reshuffling(roberts_problems, reshuffle, value):
    got = training_sets.drift(roberts_problems["R2"], 1.0, N=2, K=2, epochs=2, momentum=0.5, reshuffle=reshuffle)
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
    drifts = np.array([training_sets.drift(problem, eta, **arguments) for eta in ETAS / 4])
    assert rate(ETAS, np.abs(ends - drifts).max(axis=1)) == pytest.approx(3, abs=0.15)
    assert rate(ETAS, np.abs(ends - 2 * drifts).max(axis=1)) == pytest.approx(2, abs=0.25)
    assert rate(ETAS, np.abs(ends + drifts).max(axis=1)) == pytest.approx(2, abs=0.25)


@pytest.mark.parametrize("K", [2, 3])
def test_preconditioner_enters_the_covariance_and_the_step(problem_b, K):
    off, plain = [], []
    for eta in ETAS:
        d = difference(problem_b, eta / 4 * P_MATRIX, K, K)
        off.append(np.abs(d - training_sets.drift(problem_b, eta / 4 * P_MATRIX, N=K, K=K)).max())
        eye = training_sets.drift(problem_b, eta / 4, N=K, K=K)
        plain.append(np.abs(d - P_MATRIX @ P_MATRIX @ eye).max())  # P also under the derivative only, P∂tr(PΣ)
    assert rate(ETAS, off) == pytest.approx(3, abs=0.15)
    assert rate(ETAS, plain) < 2.3


def test_quadratic_cases_with_K_2_are_exact(roberts_problems):
    two_lines = roberts_problems["R6"]
    got = training_sets.drift(two_lines, 0.1, N=2, K=2, momentum=0.5)
    np.testing.assert_allclose(got, [227 / 320 - 113 / 160, 33 / 160 - 1 / 5], atol=1e-15)
    got = training_sets.drift(two_lines, 0.1 * P_MATRIX, N=2, K=2)
    np.testing.assert_allclose(got, [31 / 64 - 15 / 32, 237 / 1280 - 109 / 640], atol=1e-15)


def test_matrix_step_of_a_multiple_of_the_identity_is_a_number(problem_b):
    got = training_sets.drift(problem_b, 0.1 * np.eye(2), N=6, K=3, epochs=2, momentum=0.3)
    np.testing.assert_allclose(got, training_sets.drift(problem_b, 0.1, N=6, K=3, epochs=2, momentum=0.3), rtol=1e-13)


def test_one_batch_is_gradient_descent_and_constant_covariance_does_not_drift(problem_b):
    assert not training_sets.drift(problem_b, 0.1, N=4, K=1, epochs=3, momentum=0.5).any()
    additive = FiniteProblem([lambda t: (t[0] - 1) ** 2 / 2, lambda t: (t[0] + 2) ** 2 / 2], [0.4, 0.6], [0.7])
    assert not training_sets.drift(additive, 0.1, N=4, K=4).any()
    assert difference(additive, 0.3, 4, 4) == pytest.approx(0, abs=1e-15)


def test_losses_without_curvature_and_with_control_flow():
    linear = FiniteProblem([lambda t: t[0], lambda t: -3 * t[0]], [0.5, 0.5], [0.0])
    assert not training_sets.drift(linear, 0.1, N=2, K=2).any()
    branch = lambda t: 3 * t[0] ** 2 / 2 if t[0] > 0 else t[0] * 0  # noqa: E731
    kinked = FiniteProblem([lambda t: t[0] ** 2 / 2, branch], [0.5, 0.5], [1.0])
    assert training_sets.drift(kinked, 0.1, N=2, K=2)[0] == pytest.approx(0.005)


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
        predicted = training_sets.schedule_drift(problem, etas, batches, N, momentum=momentum)
        off.append(np.abs(gd - sgd - predicted).max())
    assert rate(small, off) == pytest.approx(3, abs=0.15)


def test_pair_sum_of_epochs_is_the_drift(problem_b):
    """One order of two epochs, repeated; and the mean over all second orders."""
    epoch, T = [[0, 1], [2, 3], [4, 5]], 6
    kwargs = {"N": 6, "K": 3, "epochs": 2, "momentum": 0.4}
    got = training_sets.schedule_drift(problem_b, np.full(T, 0.1), epoch + epoch, 6, momentum=0.4)
    np.testing.assert_allclose(got, training_sets.drift(problem_b, 0.1, reshuffle=False, **kwargs), rtol=1e-12)
    second = [[o[:2], o[2:4], o[4:]] for o in itertools.permutations(range(6))]
    weight = np.mean([training_sets.pair_sum(np.full(T, 0.1), epoch + s, 6, momentum=0.4) for s in second])
    repeated = training_sets.pair_sum(np.full(T, 0.1), epoch + epoch, 6, momentum=0.4)
    np.testing.assert_allclose(got * weight / repeated, training_sets.drift(problem_b, 0.1, **kwargs), rtol=1e-10)


def test_with_replacement_has_no_drift_at_second_order(problem_b):
    """The pair weights cancel over all batches of two draws, and of two-subsets; so does the drift, through eta²."""
    draws = list(itertools.product(range(3), repeat=2))
    for pool in (draws, list(itertools.combinations(range(3), 2))):
        sums = [training_sets.pair_sum([0.1] * 3, plan, 3) for plan in itertools.product(pool, repeat=3)]
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
    assert training_sets.modified_coefficient(K, beta) == pytest.approx(W / (2 * sum(a)), rel=1e-13)
    assert training_sets.modified_coefficient(K) == pytest.approx((K - 1) / 4)


@pytest.mark.parametrize(("K", "value"), [(2, 1 / 5), (3, 8 / 17), (4, 39 / 49)])
def test_modified_coefficient_with_momentum_one_half(K, value):
    assert training_sets.modified_coefficient(K, 0.5) == pytest.approx(value, rel=1e-14)


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
    run = training_sets.modified_gd(roberts_problems[name], eta, N=N, K=K, epochs=epochs)
    np.testing.assert_allclose(run.theta, theta, atol=1e-14)
    assert run.test_loss == pytest.approx(test, abs=1e-13)
    assert run.test_loss - run.train_loss == pytest.approx(gap, abs=1e-13)


def test_without_penalty_it_is_the_oracle(problem_b):
    run = training_sets.modified_gd(problem_b, 0.1, N=4, K=2, epochs=2, momentum=0.5, coefficient=0.0)
    oracle = exact.run(problem_b, 0.1, N=4, T=4, B=4, momentum=0.5)
    for field in ("theta", "theta_cov", "test_loss", "train_loss"):
        np.testing.assert_allclose(getattr(run, field), getattr(oracle, field), atol=1e-14)


@pytest.mark.parametrize("covariance", ["population", "sample"])
@pytest.mark.parametrize(("name", "K", "momentum"), [("R3", 2, 0.0), ("R2", 3, 0.0), ("R2", 3, 0.5), ("R4", 2, 0.9)])
def test_only_the_right_coefficient_is_third_order(roberts_problems, covariance, name, K, momentum):
    problem, small = roberts_problems[name], ETAS / 4
    sgd = [exact.run(problem, e, N=K, T=K, momentum=momentum).theta for e in small]
    right = training_sets.modified_coefficient(K, momentum)

    def order(c):
        runs = [
            training_sets.modified_gd(problem, e, N=K, K=K, momentum=momentum, covariance=covariance, coefficient=c)
            for e in small
        ]
        return rate(small, [np.abs(r.theta - s).max() for r, s in zip(runs, sgd, strict=True)])

    assert order(right) == pytest.approx(3, abs=0.15)
    assert all(order(c) < 2.3 for c in (2 * right, -right, 0.0))


def test_modified_gd_with_a_preconditioner(problem_b):
    small = ETAS / 4
    off = [
        np.abs(
            training_sets.modified_gd(problem_b, e * P_MATRIX, N=2, K=2).theta
            - exact.run(problem_b, e * P_MATRIX, N=2, T=2).theta
        ).max()
        for e in small
    ]
    assert rate(small, off) == pytest.approx(3, abs=0.15)


def test_order_table_of_linear_regression(roberts_problems):
    """Errors of the mean for coefficients 0, 1/4, 1/2, −1/4 at eta = 1/10, to the three digits printed."""
    sgd = exact.run(roberts_problems["R3"], 0.1, N=4, T=2, B=2).theta
    off = [
        np.linalg.norm(training_sets.modified_gd(roberts_problems["R3"], 0.1, N=4, K=2, coefficient=c).theta - sgd)
        for c in (0, 0.25, 0.5, -0.25)
    ]
    np.testing.assert_allclose(off, [4.00e-3, 6.68e-4, 3.13e-3, 7.52e-3], rtol=2e-3)


def test_sample_covariance_also_reproduces_the_gap(roberts_problems):
    """GD on the sample penalty has SGD's gap through eta², GD itself does not (kappa3 differs)."""
    problem, small = roberts_problems["R4"], ETAS / 8
    gap = lambda run: run.test_loss - run.train_loss  # noqa: E731
    sgd = [gap(exact.run(problem, e, N=2, T=2)) for e in small]
    sample = [gap(training_sets.modified_gd(problem, e, N=2, K=2, covariance="sample")) for e in small]
    plain = [gap(exact.run(problem, e, N=2, T=2, B=2)) for e in small]
    assert rate(small, np.abs(np.subtract(sample, sgd))) == pytest.approx(3, abs=0.15)
    assert rate(small, np.abs(np.subtract(plain, sgd))) == pytest.approx(2, abs=0.15)


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


TOY = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])

BAD = {
    "drift-no-problem": (TypeError, "problem", lambda: training_sets.drift("x", 0.1, N=2, K=2)),
    "drift-eta-negative": (ValueError, "eta", lambda: training_sets.drift(TOY, -0.1, N=2, K=2)),
    "drift-eta-nan": (ValueError, "eta", lambda: training_sets.drift(TOY, np.nan, N=2, K=2)),
    "drift-eta-indefinite": (ValueError, "positive definite", lambda: training_sets.drift(TOY, [[-1.0]], N=2, K=2)),
    "drift-eta-shape": (ValueError, "eta", lambda: training_sets.drift(TOY, np.eye(2), N=2, K=2)),
    "drift-K-no-divisor": (ValueError, "K = 2: expected a divisor of N = 3",
                           lambda: training_sets.drift(TOY, 0.1, N=3, K=2)),
    "drift-K-zero": (ValueError, "K", lambda: training_sets.drift(TOY, 0.1, N=3, K=0)),
    "drift-N-float": (TypeError, "N", lambda: training_sets.drift(TOY, 0.1, N=2.0, K=2)),
    "drift-epochs": (ValueError, "epochs", lambda: training_sets.drift(TOY, 0.1, N=2, K=2, epochs=0)),
    "drift-too-long": (ValueError, "steps", lambda: training_sets.drift(TOY, 0.1, N=2, K=2, epochs=10**9)),
    "drift-momentum": (ValueError, "momentum", lambda: training_sets.drift(TOY, 0.1, N=2, K=2, momentum=1.0)),
    "drift-reshuffle": (TypeError, "reshuffle", lambda: training_sets.drift(TOY, 0.1, N=2, K=2, reshuffle="yes")),
    "pair-empty-batch": (ValueError, "batches\\[1\\]", lambda: training_sets.pair_sum([1, 1], [[0], []], 2)),
    "pair-outside": (ValueError, "the point 2", lambda: training_sets.pair_sum([1, 1], [[0], [2]], 2)),
    "pair-negative": (ValueError, "the point -1", lambda: training_sets.pair_sum([1, 1], [[0], [-1]], 2)),
    "pair-float": (TypeError, "integers", lambda: training_sets.pair_sum([1, 1], [[0], [0.5]], 2)),
    "pair-count": (ValueError, "batches has 1", lambda: training_sets.pair_sum([1, 1], [[0]], 2)),
    "pair-eta-zero": (ValueError, "etas\\[1\\]", lambda: training_sets.pair_sum([1, 0], [[0], [1]], 2)),
    "pair-eta-empty": (ValueError, "etas", lambda: training_sets.pair_sum([], [], 2)),
    "coefficient-K": (ValueError, "K", lambda: training_sets.modified_coefficient(0)),
    "modified-covariance": (ValueError, "covariance",
                            lambda: training_sets.modified_gd(TOY, 0.1, N=2, K=2, covariance="S")),
    "modified-one-point": (ValueError, "N = 1",
                           lambda: training_sets.modified_gd(TOY, 0.1, N=1, K=1, covariance="sample")),
    "modified-too-large": (ValueError, "training sets",
                           lambda: training_sets.modified_gd(TOY, 0.1, N=1000, K=1000, epochs=9)),
    "modified-coefficient": (ValueError, "coefficient",
                             lambda: training_sets.modified_gd(TOY, 0.1, N=2, K=2, coefficient=np.inf)),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    error, words, call = BAD[case]
    with pytest.raises(error, match=words):
        call()
