"""The oracle against brute force over training sets and batch orders, and against exact rational values."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, exact

# --- brute force --------------------------------------------------------------------------------------------
# Two problems written twice: as torch losses for the package, and as values with gradients by hand for the brute force.

P1 = [0.3, 0.7]
CUBIC = FiniteProblem([lambda t: t[0] ** 2 + t[0] ** 3 / 6 - t[0], lambda t: 0.75 * t[0] ** 2 + t[0]], P1, [0.5])
CUBIC_BY_HAND = [
    lambda t: (t[0] ** 2 + t[0] ** 3 / 6 - t[0], np.array([2 * t[0] + t[0] ** 2 / 2 - 1])),
    lambda t: (0.75 * t[0] ** 2 + t[0], np.array([1.5 * t[0] + 1])),
]

P2 = [0.5, 0.2, 0.3]
XY = [(1.0, 1.0), (2.0, -1.0), (-1.0, 2.0)]
NET = FiniteProblem([lambda t, x=x, y=y: (x * t[0] * t[1] - y) ** 2 / 2 for x, y in XY], P2, [0.75, 0.6])
NET_BY_HAND = [
    lambda t, x=x, y=y: ((x * t[0] * t[1] - y) ** 2 / 2, (x * t[0] * t[1] - y) * x * np.array([t[1], t[0]]))
    for x, y in XY
]

PROBLEMS = {"cubic": (CUBIC, CUBIC_BY_HAND), "net": (NET, NET_BY_HAND)}
MATRIX = [[0.1, 0.03], [0.03, 0.05]]


def schedules(N, T, B, reshuffle):
    """The index batches of T steps, for every choice of one order an epoch, all equally likely."""
    epochs = -(-T * B // N)
    orders = list(itertools.permutations(range(N)))
    for chosen in itertools.product(orders, repeat=epochs) if reshuffle else ([order] * epochs for order in orders):
        points = [n for order in chosen for n in order]
        yield [points[t * B : (t + 1) * B] for t in range(T)]


def with_replacement(N, T, B, reshuffle):
    for points in itertools.product(range(N), repeat=T * B):
        yield [points[t * B : (t + 1) * B] for t in range(T)]


def descend(losses, theta, batches, eta, momentum, dampening):
    velocity = 0
    for t, batch in enumerate(batches):
        gradient = sum(losses[i](theta)[1] for i in batch) / len(batch)
        velocity = momentum * velocity + (1 - dampening * (t > 0)) * gradient
        theta = theta - (eta @ velocity if np.ndim(eta) else eta * velocity)
    return theta


def brute_force(name, eta, N, T, B, momentum=0.0, reshuffle=True, *, schedule=schedules, weighted=True, dampening=0.0):
    """Mean theta, its covariance, and mean test and train loss over all m^N training sets and all batch orders."""
    problem, losses = PROBLEMS[name]
    p, eta = problem.probabilities, np.asarray(eta)
    thetas, weights, tests, trains = [], [], [], []
    for data in itertools.product(range(problem.m), repeat=N):
        plans = list(schedule(N, T, B, reshuffle))
        for plan in plans:
            batches = [[data[n] for n in batch] for batch in plan]
            theta = descend(losses, problem.theta0, batches, eta, momentum, dampening)
            thetas.append(theta)
            weights.append((math.prod(p[list(data)]) if weighted else problem.m**-N) / len(plans))
            tests.append(sum(p_i * loss(theta)[0] for p_i, loss in zip(p, losses, strict=True)))
            trains.append(sum(losses[i](theta)[0] for i in data) / N)
    mean = np.average(thetas, axis=0, weights=weights)
    cov = np.einsum("k,ki,kj->ij", weights, thetas - mean, thetas - mean)
    return exact.ExactRun(mean, cov, float(np.dot(weights, tests)), float(np.dot(weights, trains)))


def distance(a, b):
    pairs = zip(
        (a.theta, a.theta_cov, a.test_loss, a.train_loss),
        (b.theta, b.theta_cov, b.test_loss, b.train_loss),
        strict=True,
    )
    return max(float(np.abs(x - y).max()) for x, y in pairs)


#  problem, eta, N, T, B, momentum, reshuffle
CASES = [
    ("cubic", 0.2, 1, 1, 1, 0.0, True),
    ("cubic", 0.2, 3, 0, 1, 0.0, True),
    ("cubic", 0.2, 3, 2, 1, 0.0, True),  # a partial first epoch
    ("cubic", 0.2, 3, 3, 1, 0.0, True),
    ("cubic", 0.2, 3, 5, 1, 0.0, True),  # a partial second epoch
    ("cubic", 0.2, 3, 5, 1, 0.0, False),
    ("cubic", 0.2, 3, 6, 1, 0.9, True),
    ("cubic", 0.2, 3, 7, 1, 0.9, False),  # a partial third epoch
    ("cubic", 0.2, 2, 6, 1, 0.5, True),  # three epochs
    ("cubic", 0.2, 4, 2, 2, 0.0, True),
    ("cubic", 0.2, 4, 3, 2, 0.5, True),
    ("cubic", 0.2, 4, 4, 2, 0.5, False),
    ("cubic", 0.2, 4, 1, 2, 0.0, True),
    ("cubic", 0.2, 3, 3, 3, 0.9, True),  # gradient descent
    ("cubic", [[0.2]], 3, 4, 1, 0.0, True),
    ("net", 0.1, 2, 3, 1, 0.0, True),
    ("net", 0.1, 2, 4, 1, 0.5, False),
    ("net", 0.1, 2, 4, 2, 0.9, True),
    ("net", 0.1, 3, 4, 1, 0.5, True),
    ("net", MATRIX, 3, 3, 1, 0.0, True),
    ("net", MATRIX, 2, 5, 1, 0.9, True),
    ("net", MATRIX, 4, 2, 2, 0.5, False),
    ("net", MATRIX, 3, 2, 3, 0.5, True),
]


def case_name(case):
    name, eta, N, T, B, momentum, reshuffle = case
    step, order = "scalar" if np.ndim(eta) == 0 else "matrix", "fresh" if reshuffle else "same"
    return f"{name}-{step}-N{N}T{T}B{B}-beta{momentum}-{order}"


@pytest.mark.parametrize(
    ("name", "eta", "N", "T", "B", "momentum", "reshuffle"),
    CASES,
    ids=map(case_name, CASES),
)
def test_run_equals_brute_force(name, eta, N, T, B, momentum, reshuffle):
    result = exact.run(PROBLEMS[name][0], eta, N=N, T=T, B=B, momentum=momentum, reshuffle=reshuffle)
    # at most 4000 terms of size one: rounding below 1e-13
    assert distance(result, brute_force(name, eta, N, T, B, momentum, reshuffle)) < 1e-12


CONTROLS = {
    "every training set counts alike": {"weighted": False},
    "momentum with dampening": {"dampening": 0.5},
    "batches with replacement": {"schedule": with_replacement},
    "the same order in every epoch": {"reshuffle": False},
    "no momentum": {"momentum": 0.0},
    "another batch size": {"B": 2},
}


@pytest.mark.parametrize("change", CONTROLS.values(), ids=CONTROLS.keys())
def test_a_wrong_protocol_is_told_apart(change):
    arguments = {"N": 2, "T": 4, "B": 1, "momentum": 0.5, "reshuffle": True}
    result = exact.run(CUBIC, 0.2, **arguments)
    assert distance(result, brute_force("cubic", 0.2, **arguments)) < 1e-12
    assert distance(result, brute_force("cubic", 0.2, **(arguments | change))) > 1e-6


def test_steps_are_those_of_torch_optim_sgd():
    """One possible training set, so that the average is one run."""
    problem = FiniteProblem([lambda t: (t[0] * t[1] - 1) ** 2 / 2], [1.0], [0.5, 2.5])
    theta = torch.tensor(problem.theta0.copy(), requires_grad=True)
    optimizer = torch.optim.SGD([theta], lr=0.05, momentum=0.8)
    for _ in range(7):
        optimizer.zero_grad()
        problem.losses[0](theta).backward()
        optimizer.step()
    result = exact.run(problem, 0.05, N=3, T=7, momentum=0.8)
    np.testing.assert_allclose(result.theta, theta.detach().numpy(), rtol=1e-14)
    np.testing.assert_array_equal(result.theta_cov, np.zeros((2, 2)))


def test_no_step_returns_the_start():
    result = exact.run(NET, 0.1, N=4, T=0, B=2)
    np.testing.assert_array_equal(result.theta, NET.theta0)
    np.testing.assert_array_equal(result.theta_cov, np.zeros((2, 2)))
    assert result.test_loss == result.train_loss == pytest.approx(NET.loss(NET.theta0), rel=1e-15)


@pytest.mark.parametrize(
    ("N", "T", "B", "reshuffle"), [(3, 5, 1, True), (4, 3, 2, True), (3, 5, 1, False), (5, 3, 5, True)]
)
def test_results_do_not_depend_on_the_size_of_a_block(monkeypatch, N, T, B, reshuffle):
    whole = exact.run(NET, 0.1, N=N, T=T, B=B, reshuffle=reshuffle)
    for block in (1, 50):
        monkeypatch.setattr(exact, "BLOCK", block)
        assert distance(exact.run(NET, 0.1, N=N, T=T, B=B, reshuffle=reshuffle), whole) < 1e-14


@pytest.mark.parametrize(
    ("N", "T", "B", "reshuffle"), [(3, 5, 1, True), (4, 3, 2, True), (3, 5, 1, False), (5, 3, 5, True)]
)
def test_the_probabilities_of_the_paths_sum_to_one(monkeypatch, N, T, B, reshuffle):
    monkeypatch.setattr(exact, "BLOCK", 50)
    walk = exact._Walk(NET, 0.1 * np.eye(2), N, T, B, 0.0, reshuffle)
    assert math.fsum(leaves.weight.sum() for leaves in walk._leaves()) == pytest.approx(1, rel=1e-14)


def test_covariance_of_a_far_start_does_not_cancel():
    """theta_1 = theta0 - eta x with x = 0 or 1: variance eta^2 / 4, whatever theta0."""
    problem = FiniteProblem([lambda t: 0 * t[0], lambda t: t[0]], [0.5, 0.5], [2.0**20])
    assert exact.run(problem, 2.0**-20, N=1, T=1).theta_cov[0, 0] == 2.0**-42


def test_one_step_on_a_thousand_points_has_the_moments_of_a_mean(problem_a):
    """G = 1/2, C = 7/2: the mean of theta_1 is -eta/2 and its variance eta^2 C / N, though most weights underflow."""
    result = exact.run(problem_a, 0.1, N=1000, T=1, B=1000)
    np.testing.assert_allclose(result.theta, [-0.05], rtol=1e-12)
    np.testing.assert_allclose(result.theta_cov, [[0.01 * 3.5 / 1000]], rtol=1e-12)


@pytest.mark.parametrize(("N", "epochs"), [(16, 1), (8, 2)])
def test_the_many_paths_of_a_product_have_the_closed_form(roberts_problems, N, epochs):
    """Each step multiplies theta by 9/10 or 7/10: the mean of theta_T^k is the N-th power of one point's."""
    result = exact.run(roberts_problems["R1"], 0.1, N=N, T=N * epochs)
    mean, square = (((0.9 ** (k * epochs) + 0.7 ** (k * epochs)) / 2) ** N for k in (1, 2))
    assert result.theta[0] == pytest.approx(mean, rel=1e-14)
    assert result.test_loss == pytest.approx(square, rel=1e-14)
    assert result.theta_cov[0, 0] == pytest.approx(square - mean**2, rel=1e-14)


# --- exact values at finite step size: six models -----------------------------------------------------------
# Numbers of all training sets in rational arithmetic (the logistic model: 50 digits). gap = test - train loss.

#  model, eta, N, T, B, momentum; theta, test loss, gap (None where there is none)
FINITE = [
    ("R1", "1/10", 2, 1, 2, 0, None, "129/200", "1/25"),
    ("R1", "1/5", 4, 1, 4, 0, None, "37/100", "3/100"),
    ("R1", "1/10", 2, 2, 1, 0, ["16/25"], "169/400", "13/250"),
    ("R1", "1/10", 2, 2, 2, 0, ["129/200"], "8577/20000", "13/250"),
    ("R1", "1/10", 4, 2, 2, 0, ["16/25"], "16641/40000", "129/5000"),
    ("R1", "1/10", 4, 2, 4, 0, ["257/400"], "134149/320000", "517/20000"),
    ("R2", "1/10", 3, 1, 3, 0, None, "3752913823/358318080000", "5718664357/179159040000"),
    ("R2", "1/10", 3, 3, 1, 0, [0.3674356310763191], -0.002096275223894719, 0.06781589475253552),
    ("R2", "1/10", 3, 3, 3, 0, [0.3777198372880615], 0.00151078790305184, 0.07059026135770066),
    ("R2", "1/10", 4, 2, 2, 0, ["111408461/276480000"], -0.001520208606062179, 0.03966149999128532),
    ("R2", "1/10", 4, 2, 4, 0, ["359142269/884736000"], -0.0004028177991153117, 0.04021066231589084),
    ("R3", "1/10", 4, 1, 4, 0, None, "32479/19200", "15383/153600"),
    ("R3", "1/10", 4, 2, 2, 0, ["21/80", "-67/1200"], "3676049/2560000", "5244493/30720000"),
    ("R3", "1/10", 4, 2, 4, 0, ["17/64", "-7/120"], "177157607/122880000", "20971213/122880000"),
    ("R3", "1/20", 4, 4, 1, 0, ["34321/128000", "-502483/7680000"], "5702980694279/3932160000000",
     "6468532824653/39321600000000"),
    ("R3", "1/20", 4, 4, 4, 0, ["22320527/81920000", "-8418397/122880000"], "117417962306824037/80530636800000000",
     "53001819738041129/322122547200000000"),
    ("R3", "1/20", 2, 4, 1, 0, ["175247/640000", "-8353/120000"], "7276385467967/4915200000000",
     "811146689161/2457600000000"),
    ("R3", "1/20", 2, 4, 2, 0, ["566829/2048000", "-34411/480000"], "186928636548113/125829120000000",
     "20734403667959/62914560000000"),
    ("R4", "1/20", 3, 1, 3, 0, None, "716442353/622080000", "93975199/1492992000"),
    ("R4", "1/20", 2, 2, 1, 0, ["30302047/46080000", "4855507/8640000"], 1.094403889281443, 0.1513743284042518),
    ("R4", "1/20", 2, 2, 2, 0, ["1467926513/2211840000", "157005197/276480000"], 1.10285093217846, 0.1503145397437923),
    ("R5", "1/5", 3, 1, 3, 0, None, 0.7701478028273267, 0.039085772130963),
    ("R5", "1/5", 4, 2, 2, 0, [0.475003385348679, -0.09233952793640647], 0.7450140606224153, 0.05357088132280813),
    ("R5", "1/5", 4, 2, 4, 0, [0.4742153135419854, -0.09516438452306294], 0.745862974419261, 0.05331041245249336),
    ("R6", "1/10", 2, 2, 1, 0.5, ["113/160", "1/5"], None, None),
    ("R6", "1/10", 2, 2, 2, 0.5, ["227/320", "33/160"], None, None),
    ("R6", "1/10", 3, 3, 1, 0.9, ["309/800", "-457/3200"], None, None),
    ("R6", "1/10", 3, 3, 3, 0.9, ["949/2400", "-119/960"], None, None),
    ("R6", [[0.2, 0.05], [0.05, 0.1]], 2, 2, 1, 0, ["15/32", "109/640"], None, None),
    ("R6", [[0.2, 0.05], [0.05, 0.1]], 2, 2, 2, 0, ["31/64", "237/1280"], None, None),
]  # fmt: skip


def number(value):
    return float(Fraction(value))


@pytest.mark.parametrize(
    ("model", "eta", "N", "T", "B", "momentum", "theta", "test_loss", "gap"),
    FINITE,
    ids=[f"{c[0]}-{'P' if isinstance(c[1], list) else c[1]}-N{c[2]}T{c[3]}B{c[4]}-beta{c[5]}" for c in FINITE],
)
def test_run_has_the_exact_values(roberts_problems, model, eta, N, T, B, momentum, theta, test_loss, gap):
    eta = eta if isinstance(eta, list) else number(eta)
    # the same order in both epochs, as in the rational computation
    result = exact.run(roberts_problems[model], eta, N=N, T=T, B=B, momentum=momentum, reshuffle=False)
    if theta is not None:  # the references have 16 digits
        np.testing.assert_allclose(result.theta, [number(x) for x in theta], rtol=1e-14)
    if test_loss is not None:  # the losses that are summed have size one
        assert result.test_loss == pytest.approx(number(test_loss), rel=0, abs=2e-15)
        assert result.test_loss - result.train_loss == pytest.approx(number(gap), rel=0, abs=4e-15)


def test_two_steps_on_gaussian_inputs_have_the_closed_form():
    """x ~ N(0, C) by a three-point rule, exact for the fourth moments that two steps on two points involve."""
    L, target, noise = np.array([[1, 0], [0.5, 2]]), np.array([1.0, -0.5]), 0.3
    rule = [(-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6)]
    losses, weights = [], []
    for (z1, p1), (z2, p2), (z3, p3) in itertools.product(rule, repeat=3):
        x = L @ [z1, z2]
        y = target @ x + noise * z3
        losses.append(lambda t, x=x, y=y: (t[0] * x[0] + t[1] * x[1] - y) ** 2 / 2)
        weights.append(p1 * p2 * p3)
    problem = FiniteProblem(losses, weights, [1 / 4, 2 / 5])
    sgd, gd = exact.run(problem, 0.05, N=2, T=2), exact.run(problem, 0.05, N=2, T=2, B=2)
    np.testing.assert_allclose(sgd.theta, [4537 / 16000, 2921 / 32000], rtol=1e-13)
    np.testing.assert_allclose(gd.theta, [2267 / 8000, 2113 / 16000], rtol=1e-13)


def test_gradient_descent_on_quadratics_of_one_curvature_has_the_closed_form():
    """From the test minimum: overfitting tr[C A' H A] / 2N and gap tr[C A] / N, A = (1 - (1 - eta H)^T) / H."""
    H, noise = np.array([[2.0, 0.7], [0.7, 1.0]]), [(1, 0), (-2, 1), (1, -1)]
    losses = [lambda t, s=s: t[0] ** 2 + 0.7 * t[0] * t[1] + t[1] ** 2 / 2 + s[0] * t[0] + s[1] * t[1] for s in noise]
    problem = FiniteProblem(losses, [1 / 3] * 3, [0.0, 0.0])
    C = np.einsum("si,sj->ij", noise, noise) / 3
    values = [(0.1, 5, 0.0713726764374676, 0.352830258666667), (0.1, 20, 0.310076353362264, 0.799956823032454),
              (0.02, 100, 0.30339702372076, 0.790948217769723)]  # fmt: skip
    for eta, T, overfit, gap in values:
        A = (np.eye(2) - np.linalg.matrix_power(np.eye(2) - eta * H, T)) @ np.linalg.inv(H)
        run = exact.run(problem, eta, N=3, T=T, B=3)
        assert run.test_loss == pytest.approx(np.trace(C @ A.T @ H @ A) / 6, rel=1e-13)
        assert run.test_loss == pytest.approx(overfit, rel=1e-13)
        assert run.test_loss - run.train_loss == pytest.approx(np.trace(C @ A) / 3, rel=1e-13)
        assert run.test_loss - run.train_loss == pytest.approx(gap, rel=1e-13)


@pytest.mark.parametrize(
    ("eta", "N", "T", "B", "test_loss", "train_loss"),
    [
        (0.1, 2, 2, 1, -0.019387889571985659, None),
        (0.1, 3, 3, 1, -0.028278500893347304, None),
        (0.05, 4, 4, 1, -0.03169130789201826, None),
        (0.2, 3, 3, 1, 0.02019540590417037, None),
        (0.1, 2, 3, 2, -0.022171642456037349, -0.59019253487510714),
    ],
)
def test_quartic_problem_has_the_exact_values(problem_a, eta, N, T, B, test_loss, train_loss):
    result = exact.run(problem_a, eta, N=N, T=T, B=B)
    assert result.test_loss == pytest.approx(test_loss, rel=0, abs=2e-15)
    assert train_loss is None or result.train_loss == pytest.approx(train_loss, rel=0, abs=2e-15)


def test_planar_quartic_problem_has_the_exact_value(problem_b):
    assert exact.run(problem_b, 0.1, N=3, T=3).test_loss == pytest.approx(0.13405660019956758, rel=0, abs=2e-15)


# --- exact Taylor coefficients in eta -----------------------------------------------------------------------

RADIUS, POINTS = 1 / 40, 12
# Interpolation of degree n = 11 on (0, r]: its own error is below 1e-13 for coefficients that grow by 8 an order. The
# coefficient of x^k in the Chebyshev polynomial of [0, r] is close to (4 n^2 / r)^k / (2k)!, which multiplies rounding.
TOLERANCES = [2e-15 + 5e-16 * (4 * (POINTS - 1) ** 2 / RADIUS) ** k / math.factorial(2 * k) for k in range(5)]


def taylor(f, order=3, radius=RADIUS, points=POINTS):
    """Taylor coefficients at eta = 0 of f, which takes eta > 0: (order + 1, ...), from Chebyshev points."""
    x = (1 - np.cos(np.pi * (np.arange(points) + 0.5) / points)) / 2
    values = np.array([np.atleast_1d(f(radius * t)) for t in x])
    fits = [np.polynomial.Chebyshev.fit(x, column, points - 1, domain=[0, 1]) for column in values.T]
    coefficients = np.array([fit.convert(kind=np.polynomial.Polynomial).coef[: order + 1] for fit in fits]).T
    return coefficients / radius ** np.arange(order + 1)[:, None]


def assert_series(measured, expected):
    """Each column of expected is a list of rationals, the first coefficients of one quantity."""
    for column, series in zip(measured.T, expected, strict=True):
        for k, value in enumerate(series):
            assert column[k] == pytest.approx(number(value), rel=TOLERANCES[k], abs=TOLERANCES[k]), f"order {k}"


def test_taylor_recovers_a_known_series():
    measured = taylor(lambda eta: math.exp(8 * eta), order=4)
    assert_series(measured, [[Fraction(8**k, math.factorial(k)) for k in range(5)]])


#  steps on as many points, one a step
SERIES_A = {
    1: ["0", "-1/4", "25/16", "-23/48", "299/288"],
    2: ["0", "-1/2", "85/24", "-833/144", "6425/576"],
    3: ["0", "-3/4", "95/16", "-607/36", "3235/64"],
    4: ["0", "-1", "35/4", "-2495/72"],
}
SERIES_B = {
    1: ["144221/466560", "-159278821/188956800", "298964577101/272097792000", "-76106252054713/440798423040000"],
    2: ["144221/466560", "-159278821/94478400", "1718161097741/408146688000", "-1031095120106077/220399211520000"],
    3: ["144221/466560", "-159278821/62985600", "2539428464179/272097792000", "-25785447507552217/1322395269120000"],
    4: ["144221/466560", "-159278821/47239200", "1120231943539/68024448000", "-16733910182761663/330598817280000"],
}


@pytest.mark.parametrize(("name", "T"), [(name, T) for name in "ab" for T in (1, 2, 3, 4)])
def test_test_loss_of_one_pass_has_the_exact_series(request, name, T):
    problem, series = request.getfixturevalue(f"problem_{name}"), {"a": SERIES_A, "b": SERIES_B}[name][T]
    assert_series(taylor(lambda eta: exact.run(problem, eta, N=T, T=T).test_loss, order=4), [series])


def test_one_step_is_a_polynomial_of_degree_four_with_the_exact_coefficients(problem_a):
    measured = taylor(lambda eta: exact.run(problem_a, eta, N=1, T=1).test_loss, order=4, radius=1, points=5)
    np.testing.assert_allclose(measured[:, 0], [number(x) for x in SERIES_A[1]], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(
    ("T", "series"),
    [
        (1, ["144221/466560", "-1671573853/2267481600", "768905887793/1224440064000",
             "-136720278491437/1190155742208000"]),
        (2, ["144221/466560", "-1671573853/1133740800", "12732989618441/3673320192000",
             "-122086877747233639/23803114844160000"]),
    ],
)  # fmt: skip
def test_test_loss_with_a_matrix_step_has_the_exact_series(problem_b, T, series):
    metric = np.array([[1, 1 / 3], [1 / 3, 1 / 2]])
    assert_series(taylor(lambda eta: exact.run(problem_b, eta * metric, N=T, T=T).test_loss), [series])


#  problem, N, B, epochs: test series, train series
EPOCHS = [
    ("a", 2, 2, 2, ["0", "-1/2", "37/12", "-2881/576"], ["0", "-4", "11/4", "-16475/1152"]),
    ("a", 2, 1, 2, ["0", "-1", "51/4", "-3671/72"], ["0", "-8", "161/12", "-7495/48"]),
    ("a", 3, 3, 2, ["0", "-1/2", "163/72", "-593/162"], ["0", "-17/6", "139/72", "-2707/324"]),
    ("a", 4, 2, 1, ["0", "-1/2", "25/12", "-61/18"], ["0", "-9/4", "7/4", "-6679/1152"]),
    ("a", 3, 1, 2, ["0", "-3/2", "173/8", "-9781/72"], ["0", "-17/2", "181/8", "-35417/108"]),
    ("b", 2, 2, 2, ["144221/466560", "-159278821/94478400", "516454575901/136048896000",
                    "-140298070521857/39182082048000"],
     ["144221/466560", "-953988071/377913600", "45728603063/18139852800", "-6181434753348799/1763193692160000"]),
    ("b", 2, 1, 2, ["144221/466560", "-159278821/47239200", "28074889109/1632586752",
                    "-1730029395923357/36733201920000"],
     ["144221/466560", "-953988071/188956800", "423792245843/34012224000", "-5921668231430729/110199605760000"]),
    ("b", 3, 3, 2, ["144221/466560", "-159278821/94478400", "481180945007/136048896000",
                    "-125523654006394351/35704672266240000"],
     ["144221/466560", "-1272545713/566870400", "3236097075917/1224440064000",
      "-40011012115535609/11901557422080000"]),
    ("b", 4, 2, 1, ["144221/466560", "-159278821/94478400", "1475031073699/408146688000",
                    "-597369663644887/146932807680000"],
     ["144221/466560", "-106073557/50388480", "190080070163/65303470080", "-13721455729697413/3526387384320000"]),
    ("b", 3, 1, 2, ["144221/466560", "-159278821/31492800", "5151895871501/136048896000",
                    "-234719256837973847/1322395269120000"],
     ["144221/466560", "-1272545713/188956800", "12469423943081/408146688000",
      "-3067092567491677/16325867520000"]),
]  # fmt: skip


EPOCHS = [(*case, True) for case in EPOCHS] + [(*case, False) for case in EPOCHS if case[2] < case[1] and case[3] > 1]


@pytest.mark.parametrize(
    ("name", "N", "B", "epochs", "test", "train", "reshuffle"),
    EPOCHS,
    ids=[f"{c[0]}-N{c[1]}B{c[2]}E{c[3]}-{'fresh' if c[-1] else 'same'}" for c in EPOCHS],
)
def test_losses_over_batches_and_epochs_have_the_exact_series(request, name, N, B, epochs, test, train, reshuffle):
    """Through the third order it does not matter whether later epochs repeat the first one's order."""
    problem, T = request.getfixturevalue(f"problem_{name}"), epochs * N // B

    def losses(eta):
        result = exact.run(problem, eta, N=N, T=T, B=B, reshuffle=reshuffle)
        return result.test_loss, result.train_loss

    assert_series(taylor(losses), [test, train])


@pytest.mark.parametrize(
    ("name", "N", "B", "series"),
    [
        ("a", 2, 1, [["0", "-1", "5/12"]]),
        ("a", 2, 2, [["0", "-1", "-1/2"]]),
        ("a", 3, 1, [["0", "-3/2", "5/4"]]),
        ("a", 3, 3, [["0", "-3/2", "-7/12"]]),
        ("b", 2, 1, [["1/2", "-17591/9720", "2582533/2332800"], ["-1/3", "3019/9720", "-73271/2624400"]]),
        ("b", 2, 2, [["1/2", "-17591/9720", "1676777/2332800"], ["-1/3", "3019/9720", "3913439/10497600"]]),
        ("b", 3, 1, [["1/2", "-17591/6480", "2582533/777600"], ["-1/3", "3019/6480", "-73271/874800"]]),
        ("b", 3, 3, [["1/2", "-17591/6480", "5936087/2332800"], ["-1/3", "3019/6480", "3766897/5248800"]]),
    ],
)
def test_mean_parameters_after_N_steps_have_the_exact_series(request, name, N, B, series):
    problem = request.getfixturevalue(f"problem_{name}")
    assert_series(taylor(lambda eta: exact.run(problem, eta, N=N, T=N, B=B).theta, order=2), series)


@pytest.mark.parametrize(
    ("name", "N", "series"),
    [
        ("a", 2, ["0", "-1/2", "37/12"]),
        ("a", 3, ["0", "-3/4", "241/48"]),
        ("b", 2, ["144221/466560", "-159278821/94478400", "516454575901/136048896000"]),
        ("b", 3, ["144221/466560", "-159278821/62985600", "1388619182477/163258675200"]),
    ],
)
def test_gradient_descent_has_the_exact_series(request, name, N, series):
    problem = request.getfixturevalue(f"problem_{name}")
    assert_series(taylor(lambda eta: exact.run(problem, eta, N=N, T=N, B=N).test_loss, order=2), [series])


@pytest.mark.parametrize(
    ("name", "N", "M", "shift"),
    [
        ("a", 2, 2, ["-17/24"]),
        ("a", 3, 2, ["-17/16"]),
        ("a", 2, 3, ["-17/18"]),
        ("b", 2, 2, ["85669/518400", "451109/1166400"]),
        ("b", 3, 2, ["85669/345600", "451109/777600"]),
        ("b", 2, 3, ["85669/388800", "451109/874800"]),
    ],
)
@pytest.mark.parametrize("reshuffle", [True, False], ids=["fresh", "same"])
def test_M_epochs_of_steps_eta_over_M_shift_the_mean_parameters(request, name, N, M, shift, reshuffle):
    problem = request.getfixturevalue(f"problem_{name}")

    def difference(eta):
        many = exact.run(problem, eta / M, N=N, T=N * M, reshuffle=reshuffle)
        return many.theta - exact.run(problem, eta, N=N, T=N).theta

    assert_series(taylor(difference, order=2), [[0, 0, x] for x in shift])


@pytest.mark.parametrize(("reshuffle", "expected"), [(False, "1.1953125"), (True, "1.4609375")], ids=["same", "fresh"])
def test_drift_with_momentum_depends_on_the_order_of_the_second_epoch(roberts_problems, reshuffle, expected):
    problem, arguments = roberts_problems["R2"], {"N": 2, "T": 4, "momentum": 0.5}

    def drift(eta):
        sgd = exact.run(problem, eta, **arguments, reshuffle=reshuffle)
        return exact.run(problem, eta, **arguments, B=2).theta - sgd.theta

    assert_series(taylor(drift, order=2), [[0, 0, expected]])


@pytest.mark.parametrize(("N", "T", "B"), [(2, 2, 1), (2, 2, 2), (3, 3, 1), (2, 4, 1), (4, 2, 2), (4, 4, 2)])
def test_gap_has_the_closed_form_through_the_second_order(problem_a, N, T, B):
    """tr C T/N - {[T(T-1)/2 + T^2] G.grad tr C / 2 + T(T-1)/2 CH + [T^2/N - T/2B] Q} / N, with Q = 2/3 here."""
    drift, CH, Q = Fraction(-11, 12), Fraction(35, 12), Fraction(2, 3)
    pairs = Fraction(T * (T - 1), 2)
    second = -((pairs + T * T) * drift + pairs * CH + (Fraction(T * T, N) - Fraction(T, 2 * B)) * Q) / N

    def gap(eta):
        result = exact.run(problem_a, eta, N=N, T=T, B=B)
        return result.test_loss - result.train_loss

    assert_series(taylor(gap, order=2), [[0, Fraction(7 * T, 2 * N), second]])


@pytest.mark.parametrize("T", [1, 2, 3, 4])
def test_test_loss_from_a_test_minimum_has_the_exact_series(T):
    losses = [
        lambda t: t[0] + t[0] ** 2 / 2 + t[0] ** 3 / 6,
        lambda t: -2 * t[0] + t[0] ** 2 + t[0] ** 4 / 8,
        lambda t: t[0] + t[0] ** 2 / 4 + t[0] ** 3 / 3,
    ]
    problem = FiniteProblem(losses, [1 / 3] * 3, [0.0])
    series = [0, 0, Fraction(7 * T, 6), Fraction(-T * (49 * T - 61), 36)]
    assert_series(taylor(lambda eta: exact.run(problem, eta, N=T, T=T).test_loss), [series])


# --- what is refused ----------------------------------------------------------------------------------------


def count_by_walking(m, N, B, T, reshuffle):
    """Paths as distinct sequences of batch multisets, from every training set and order."""
    paths = set()
    for data in itertools.product(range(m), repeat=N):
        for plan in schedules(N, T, B, reshuffle):
            paths.add(tuple(tuple(sorted(data[n] for n in batch)) for batch in plan))
    return len(paths)


@pytest.mark.parametrize(
    ("m", "N", "B", "T", "reshuffle"),
    [(2, 3, 1, 2, True), (2, 3, 1, 3, True), (2, 3, 1, 5, True), (2, 3, 1, 6, True), (3, 2, 1, 5, True),
     (2, 4, 2, 3, True), (2, 4, 2, 4, True), (3, 4, 2, 3, False), (2, 3, 1, 5, False), (3, 3, 3, 1, True)],
)  # fmt: skip
def test_refusal_states_the_number_of_paths(monkeypatch, m, N, B, T, reshuffle):
    problem = FiniteProblem([lambda t, h=h: h * t[0] ** 2 for h in range(m)], [1 / m] * m, [1.0])
    paths = count_by_walking(m, N, B, T, reshuffle)
    monkeypatch.setattr(exact, "MAX_UPDATES", paths * 10 * m)
    exact.run(problem, 0.1, N=N, T=T, B=B, reshuffle=reshuffle)
    monkeypatch.setattr(exact, "MAX_UPDATES", paths * 10 * m - 1)
    with pytest.raises(ValueError, match=f"make {paths:,} paths"):
        exact.run(problem, 0.1, N=N, T=T, B=B, reshuffle=reshuffle)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"N": 20, "T": 20}, r"make 3,486,784,401 paths: expected at most 4,166,666 .*Reduce N, T"),
        ({"N": 20, "T": 40}, r"make more than 10\^15 paths"),
        ({"N": 20, "T": 21}, r"make at least [\d,]{13} paths"),
        ({"N": 200, "T": 3, "B": 100}, r"make at least [\d,]{11} paths"),
        ({"N": 10, "T": 20}, r"make at least [\d,]+ paths"),
        ({"N": 1000, "T": 2000}, r"make more than 10\^15 paths"),
        ({"N": 4, "T": 4000}, r"make more than 10\^15 paths"),
    ],
)
def test_runs_of_hours_are_refused_at_once(problem_a, arguments, count):
    with pytest.raises(ValueError, match=count):
        exact.run(problem_a, 0.1, **arguments)


BAD = {
    "problem is no problem": (TypeError, "problem", {"problem": 3}),
    "zero eta": (ValueError, "eta = 0", {"eta": 0}),
    "negative eta": (ValueError, "eta = -0.1", {"eta": -0.1}),
    "NaN eta": (ValueError, "eta = nan", {"eta": math.nan}),
    "infinite eta": (ValueError, "eta = inf", {"eta": math.inf}),
    "text eta": (TypeError, "eta = 'fast'", {"eta": "fast"}),
    "vector eta": (ValueError, r"eta has shape \(2,\)", {"eta": [0.1, 0.1]}),
    "matrix eta of the wrong size": (ValueError, r"eta has shape \(1, 1\)", {"eta": [[0.1]]}),
    "asymmetric eta": (ValueError, "symmetric", {"eta": [[1, 0.5], [0, 1]]}),
    "indefinite eta": (ValueError, "positive definite", {"eta": [[1, 2], [2, 1]]}),
    "singular eta": (ValueError, "positive definite", {"eta": [[1, 0], [0, 0]]}),
    "no points": (ValueError, "N = 0", {"N": 0}),
    "too many points": (ValueError, "N = 1001", {"N": 1001}),
    "fractional N": (TypeError, "N = 2.0", {"N": 2.0}),
    "negative T": (ValueError, "T = -1", {"T": -1}),
    "boolean T": (TypeError, "T = True", {"T": True}),
    "empty batches": (ValueError, "B = 0", {"B": 0}),
    "batch beyond N": (ValueError, "B = 5", {"B": 5}),
    "batches that do not divide N": (ValueError, "B = 3: expected a divisor of N = 4", {"B": 3}),
    "negative momentum": (ValueError, "momentum = -0.1", {"momentum": -0.1}),
    "momentum one": (ValueError, "momentum = 1", {"momentum": 1.0}),
    "text reshuffle": (TypeError, "reshuffle = 'no'", {"reshuffle": "no"}),
    "divergence": (ValueError, r"eta = .*overflow by step \d+", {"eta": 1e60, "T": 8}),
}


@pytest.mark.parametrize(("error", "message", "change"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused_by_name(error, message, change):
    arguments = {"problem": NET, "eta": 0.1, "N": 4, "T": 2, "B": 2} | change
    with pytest.raises(error, match=message):
        exact.run(arguments.pop("problem"), arguments.pop("eta"), **arguments)


def test_a_walk_of_one_path_may_be_too_long(problem_a):
    with pytest.raises(ValueError, match=r"T = 10000000: expected"):
        exact.run(problem_a, 0.1, N=1, T=10**7)
