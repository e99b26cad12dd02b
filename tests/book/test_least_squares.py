"""The chapter on least squares with random weights: each claim by another method, and each check with its control."""

import re
from functools import cache
from itertools import combinations, permutations, product

import nbformat
import numpy as np
import pytest
import scipy.linalg
from implicitreg import runbook
from implicitreg.checks import CheckFailed, check
from implicitreg.noise import leastsquares, sampling
from implicitreg.noise.leastsquares import LeastSquares

COIN = LeastSquares([[1.0], [1.0]], [1.0, -1.0], [0.5, 0.5])
SMALL = LeastSquares([[1, 0.5], [-0.5, 1], [0.3, -1.2]], [1, 0.2, -0.7], [0.5, 0.3, 0.2])
START, ETA = np.array([0.7, -0.4]), 0.2


# Every path: all draws of examples and of weights


def every_path(w, chance, law=SMALL, steps=2, eta=ETA, start=START):
    """Mean, second moment, and the excess losses at the last iterate and at the average."""
    B, theta, total, p = len(w[0]), start[None], start[None], np.ones(1)
    k = np.array(list(product(range(len(law.x)), repeat=B)))
    chances = np.prod(law.probabilities[k], axis=1)[:, None] * np.asarray(chance)
    for _ in range(steps):
        pull = np.einsum("kbd,sd->skb", law.x[k], theta) - law.y[k]
        theta = theta[:, None, None] - eta * np.einsum("wb,skb,kbd->skwd", np.asarray(w, float), pull, law.x[k])
        total = (total[:, None, None] + theta).reshape(-1, law.x.shape[1])
        p, theta = (p[:, None, None] * chances).ravel(), theta.reshape(-1, law.x.shape[1])
    delta, mean = theta - law.theta_star, total / (steps + 1) - law.theta_star
    excess = [p @ ((v @ law.Sigma) * v).sum(1) / 2 for v in (delta, mean)]
    return p @ delta, (p[:, None] * delta).T @ delta, *excess


def centred(noise, s):
    return 1 / noise.shape[1] + s * (noise - noise.mean(1, keepdims=True))


H = 0.5**0.5
SIGNS = np.array(list(product([-1.0, 1.0], repeat=3)))
SKEW = np.array(list(product([-0.5, 2.0], repeat=3)))  # mean 0 and variance 1 with the chances 0.8, 0.2
LAWS = {  # weights, chances; the first five have q = r = 1
    "one of two": ([(1, 0), (0, 1)], [0.5, 0.5]),
    "a rare shake": ([(0.5, 0.5), (0.5 + H, 0.5 - H), (0.5 - H, 0.5 + H)], [0.5, 0.25, 0.25]),
    "three coins": (centred(SIGNS, 3**-0.5), np.full(8, 1 / 8)),
    "skewed": (centred(SKEW, 3**-0.5), np.prod(np.where(SKEW < 0, 0.8, 0.2), axis=1)),
    "one of three": (np.eye(3), [1 / 3] * 3),
    "free coins": ([(1, 1), (1, 0), (0, 1), (0, 0)], [0.25] * 4),
    "uneven means": ([(0.9, 0.1), (0.5, 0.5)], [0.5, 0.5]),
}


def numbers(name):
    w, p = (np.asarray(v, float) for v in LAWS[name])
    return p @ (w**2).sum(1), p @ w.sum(1) ** 2


@pytest.mark.parametrize("name", LAWS)
def test_two_numbers_are_enough(name):
    m, M, last, averaged = every_path(*LAWS[name])
    q, r = numbers(name)
    exact = leastsquares.run(SMALL, q, r, ETA, 2, START)
    check("ours-two-numbers", measured=M, predicted=exact.moment, atol=1e-13)
    check("ours-two-numbers", measured=m, predicted=exact.mean, atol=1e-13)
    check("wu-quadratic", measured=[last, averaged], predicted=[exact.last_excess, exact.averaged_excess], atol=1e-13)
    check("wu-same-error", measured=averaged, predicted=exact.averaged_excess, atol=1e-13)


@pytest.mark.parametrize("name", list(LAWS)[1:5])
def test_other_classes_have_the_error_of_sgd(name):
    np.testing.assert_allclose(numbers(name), (1, 1), rtol=1e-13)
    sgd, other = (every_path(*LAWS[key])[2:] for key in ("one of two", name))
    check("wu-same-error", measured=other, predicted=sgd, atol=1e-13)
    check("wu-claim-18", measured=other, predicted=sgd, atol=1e-13)
    fourth = [np.asarray(LAWS[key][1]) @ (np.asarray(LAWS[key][0], float) ** 4).sum(1) for key in ("one of two", name)]
    assert (name == "one of three") == (abs(fourth[0] - fourth[1]) < 1e-9)


def random_pairs(cases=60, seed=2, sign=1):
    rng, found = np.random.default_rng(seed), []
    for _ in range(cases):
        low, up = rng.uniform([0.1, 1], [1, 2]), rng.uniform(0.01, 0.5, 2)
        at = [leastsquares.run(SMALL, *pair, 0.3, 8, START).moment for pair in (low, low + up * [sign, 1])]
        found.append(np.linalg.eigvalsh(at[1] - at[0])[0])
    return min(found)


def test_larger_numbers_mean_larger_errors():
    check("ours-larger-numbers", measured=random_pairs(), above=0.0)


def average_gains(cases=2000, seed=4, sign=1):
    """Least gain of the averaged excess by larger numbers, relative; one parameter, steps also far beyond the limit."""
    rng, least = np.random.default_rng(seed), np.inf
    for _ in range(cases):
        law = LeastSquares(rng.standard_normal((3, 1)), rng.standard_normal(3), rng.dirichlet(np.ones(3)))
        low, up = rng.uniform([0.1, 1], [1, 2]), rng.uniform(0.01, 0.5, 2)
        rest = (rng.uniform(0.05, 2.5), int(rng.integers(1, 25)), rng.standard_normal(1))
        a, b = (leastsquares.run(law, *pair, *rest).averaged_excess for pair in (low, low + up * [sign, 1]))
        least = min(least, (b - a) / a)
    return least


def test_larger_numbers_mean_a_larger_average():
    check("ours-larger-numbers", measured=average_gains(), above=0.0)


def test_shares_of_the_larger_numbers():
    """The proof: the difference of the averages is what each P_j has become, all of it positive semidefinite."""
    eta, T, (q, r), (q2, r2) = 0.7, 6, (0.5, 1.2), (0.8, 1.9)
    zero = LeastSquares(SMALL.x, np.zeros(3), SMALL.probabilities)  # no residuals: the run of the proof
    at = leastsquares.run
    total = 0.0
    for j in range(1, T + 1):
        now = at(SMALL, q, r, eta, j - 1, START)
        M, m, S, p, x = now.moment, now.mean, SMALL.Sigma, SMALL.probabilities, SMALL.x
        scale = ((x @ M) * x).sum(1) + SMALL.residuals**2 - 2 * SMALL.residuals * (x @ m)
        F = (p * scale * x.T) @ x
        P = eta**2 * ((q2 - q) * (F - S @ M @ S) + (r2 - r) * S @ M @ S)
        values, vectors = np.linalg.eigh(P)
        assert values[0] > 0
        for value, v in zip(values, vectors.T, strict=True):
            one = at(zero, q2, r2, eta, T - j, np.sqrt(value) * v)
            total += one.averaged_excess * (T - j + 1) ** 2 / (T + 1) ** 2
    gain = at(SMALL, q2, r2, eta, T, START).averaged_excess - at(SMALL, q, r, eta, T, START).averaged_excess
    check("ours-larger-numbers", measured=gain, predicted=total, rtol=1e-10)


def test_smaller_q_can_mean_a_smaller_average():
    with pytest.raises(CheckFailed):
        check("ours-larger-numbers", measured=average_gains(200, sign=-0.2), above=0.0)


# The coin


def guesses(kind, runs=40_000, steps=30, seed=3, slope=lambda u: u):
    rng, theta = np.random.default_rng(seed), np.zeros(runs)
    for _ in range(steps):
        y, z = rng.choice([-1.0, 1.0], (runs, 2)), rng.standard_normal((runs, 2)) / 2
        w = {"one": np.eye(2)[rng.integers(0, 2, runs)], "mirrored": 0.5 + z[:, :1] * [1, -1], "free": 0.5 + z}[kind]
        theta = theta - 0.5 * (w * slope(theta[:, None] - y)).sum(1)
    return theta


def mean_square(kind):
    theta = guesses(kind)
    return np.mean(theta**2), np.std(theta**2) / len(theta) ** 0.5


def absolute_excess(kind):
    """Mean excess of |θ − y|, whose mean over the coin is max(1, |θ|)."""
    theta = guesses(kind, slope=np.sign)
    return np.mean(np.abs(theta[:, None] - [-1, 1])) - 1


@pytest.mark.parametrize(("kind", "truth"), [("one", 1 / 3), ("mirrored", 1 / 3), ("free", 2 / 5)])
def test_coin_in_the_long_run(kind, truth):
    value, se = mean_square(kind)
    check("wu-intuition", measured=value, predicted=truth, sigmas=4, se=se, wrong=11 / 15 - truth)


def test_coin_by_hand():
    for q, r in ((1, 1), (1, 1.5), (0.5, 1)):
        settled = leastsquares.run(COIN, q, r, 0.5, 80, [0.3]).moment[0, 0]
        assert settled == pytest.approx(q / (4 - r), rel=1e-12)


def test_another_loss_sees_the_class():
    assert absolute_excess("one") == pytest.approx(0, abs=1e-12)  # it never leaves [-1, 1]
    assert absolute_excess("mirrored") > 0.03


def test_the_least_absolute_guess_depends_on_its_start():
    """From 0 one of two stays in [-1, 1]; from 0.3 it leaves."""
    theta, coins = np.full(20_000, 0.3), np.random.default_rng(6).choice([-1.0, 1.0], (30, 20_000))
    for y in coins:
        theta = theta - 0.5 * np.sign(theta - y)
    assert np.maximum(np.abs(theta) - 1, 0).mean() > 0.04


def test_weights_that_look():
    """The nearer of two coins: |θ| becomes (|θ| + 1)/2 with chance 3/4, (1 - |θ|)/2 otherwise; the excess is 5/18."""
    paths = np.array([0.0])
    chances = np.ones(1)
    for _ in range(14):
        paths = np.r_[(paths + 1) / 2, np.abs(1 - paths) / 2]
        chances = np.r_[0.75 * chances, 0.25 * chances]
    assert chances @ paths**2 / 2 == pytest.approx(5 / 18, abs=1e-3)
    rng, theta = np.random.default_rng(7), np.zeros(40_000)
    for _ in range(30):
        y = rng.choice([-1.0, 1.0], (40_000, 2))
        nearer = np.take_along_axis(y, np.abs(theta[:, None] - y).argmin(1)[:, None], 1)[:, 0]
        theta = theta - 0.5 * (theta - nearer)
    assert np.mean(theta**2) / 2 == pytest.approx(5 / 18, abs=4 * np.std(theta**2) / 2 / 200)


def test_two_separate_independences_are_not_enough():
    """The first coin if it is like a fair sign of θ, else the second: independent of the coins, and of the past."""
    rng, theta = np.random.default_rng(8), np.zeros(40_000)
    for _ in range(30):
        y = rng.choice([-1.0, 1.0], (40_000, 2))
        sign = np.where(theta == 0, rng.choice([-1.0, 1.0], 40_000), np.sign(theta))
        theta = theta - 0.5 * (theta - np.where(y[:, 0] == sign, y[:, 0], y[:, 1]))
    assert np.mean(theta**2) > 0.5  # jointly independent weights give 1/3


# Which weights share them


def shares(B, b):
    """Lists of equally likely weights, by definition, with their two numbers."""
    subsets = np.array([np.isin(np.arange(B), s) / b for s in combinations(range(B), b)])
    yield subsets, 1 / b, 1
    signs = np.array(list(product([-1.0, 1.0], repeat=B)))
    yield centred(signs, np.sqrt((B - b) / (b * B * (B - 1)))), 1 / b, 1
    yield 1 / B + np.sqrt((B - b) / (b * B**2)) * signs, 1 / b, 1 + 1 / b - 1 / B


@pytest.mark.parametrize(("B", "b"), [(2, 1), (4, 2), (6, 1), (6, 5)])
def test_the_table_of_weights(B, b):
    for w, q, r in shares(B, b):
        direct = [(w**2).sum(1).mean(), (w.sum(1) ** 2).mean()]
        check("ours-weight-numbers", measured=direct, predicted=[q, r], atol=1e-13)
        found = leastsquares.weight_moments(np.cov(w.T, bias=True))
        check("ours-weight-numbers", measured=found, predicted=direct, atol=1e-13)
    tossed = np.array(list(product([0, 1 / b], repeat=B)))
    chance = np.prod(np.where(tossed > 0, b / B, 1 - b / B), axis=1)
    assert chance @ (tossed**2).sum(1) == pytest.approx(1 / b)
    assert chance @ tossed.sum(1) ** 2 == pytest.approx(1 + 1 / b - 1 / B)


def test_the_printed_covariance_is_that_of_a_choice():
    subsets = next(shares(6, 2))[0]
    printed = (6 - 2) / (2 * 6 * 5) * (np.eye(6) - 1 / 6)
    np.testing.assert_allclose(np.cov(subsets.T, bias=True), printed, atol=1e-15)


# The bound


def bound_by_hand(law, q, r, eta, T, start, dims=None):
    """The formula of the chapter, from its own constants."""
    root = np.sqrt(law.probabilities)[:, None] * law.x
    values, vectors = np.linalg.eigh(root.T @ root)
    keep = values > 1e-10 * values[-1]
    white = law.x @ vectors[:, keep] / np.sqrt(values[keep])
    largest = lambda f: np.linalg.eigvalsh((law.probabilities * f * white.T) @ white)[-1]  # noqa: E731
    R2 = q * largest((law.x**2).sum(1)) + (r - q) * values[-1]
    rest, d = 2 - eta * R2, keep.sum() if dims is None else dims
    away = vectors[:, keep].T @ (start - law.theta_star)
    a = away @ away / (2 * eta * rest * (T + 1))
    return (a**0.5 + (q * largest(law.residuals**2) * d / (rest * (T + 1))) ** 0.5) ** 2, R2


def random_problems(cases=120, seed=5):
    rng = np.random.default_rng(seed)
    for _ in range(cases):
        d, m = rng.integers(1, 4), rng.integers(2, 6)
        law = LeastSquares(rng.standard_normal((m, d)), rng.standard_normal(m), rng.dirichlet(np.ones(m)))
        q, r, start = rng.uniform(0.1, 1), rng.uniform(1, 2), rng.standard_normal(d)
        R2 = bound_by_hand(law, q, r, 0.0001, 1, start)[1]
        yield law, q, r, rng.uniform(0.1, 1.9) / R2, int(rng.integers(1, 60)), start


def test_the_bound_holds_and_the_package_has_it():
    for case in random_problems():
        error, limit = leastsquares.run(*case).averaged_excess, bound_by_hand(*case)[0]
        check("wu-claim-16", measured=error / limit, below=1.0)
        assert leastsquares.bound(*case) <= limit * (1 + 1e-10)


def test_beyond_the_step_limit_the_error_grows():
    """Free bells on the coin: the limit is 2/r = 4/3; one of two still settles."""
    far = [leastsquares.run(COIN, 1, r, 1.4, 200, [0.0]).last_excess for r in (1.5, 1.0)]
    assert far[0] > 1e6
    assert far[1] < 2
    with pytest.raises(ValueError, match="expected less than"):
        leastsquares.bound(COIN, 1, 1.5, 1.4, 200, [0.0])


def coins(d, p=None):
    p = np.full(d, 1 / d) if p is None else np.asarray(p)
    return LeastSquares(np.tile(np.eye(d), (2, 1)), np.repeat([1.0, -1.0], d), np.tile(p, 2) / 2)


def long_run(d, p=None, T=30_000):
    return (T + 1) * leastsquares.run(coins(d, p), 1, 1, 0.5, T, np.zeros(d)).averaged_excess


@pytest.mark.parametrize(("d", "p"), [(1, None), (2, [0.5, 0.5]), (4, [0.5, 0.3, 0.1, 0.1]), (5, [0.5] + [0.125] * 4)])
def test_the_dimension_enters_whatever_the_chances(d, p):
    check("ours-dimension", measured=long_run(d, p), predicted=(4 * d - 1) / 6, rtol=3e-3)
    if d > 1:
        at = leastsquares.constants(coins(d, p))
        np.testing.assert_allclose([at.R2, at.sigma2, at.lam], [1, 1, 0.5], atol=1e-12)


def gain(q, T=400):
    return leastsquares.run(coins(8), q, 1, 0.5, T, np.zeros(8)).averaged_excess


def test_the_large_batch_pays_for_its_examples():
    check("wu-claim-17", measured=gain(1 / 2) / gain(1 / 32), above=15.0)
    T, b, eta = 20_000, 4, 0.05
    error = leastsquares.run(coins(8), 1 / b, 1, eta, T, np.zeros(8)).averaged_excess
    check("wu-claim-17", measured=error * b * T, predicted=8 / 2, rtol=0.05)  # σ²d/2 over the number of examples


# A fixed data set


def two_steps(W, p):
    even = LeastSquares(SMALL.x, SMALL.y, [1 / 3] * 3)
    theta, chance = START[None], np.ones(1)
    for _ in range(2):
        pull = theta @ even.x.T - even.y
        theta = (theta[:, None] - ETA * np.einsum("wn,sn,nd->swd", W, pull, even.x)).reshape(-1, 2)
        chance = np.outer(chance, p).ravel()
    delta = theta - even.theta_star
    return (chance[:, None] * delta).T @ delta


def fixed(K):
    return leastsquares.run_fixed(SMALL.x, SMALL.y, K, ETA, 2, START).moment


SUBSETS = np.array(sorted(set(permutations([0.5, 0.5, 0.0]))))


@pytest.mark.parametrize("W", [SUBSETS, 2 / 3 - SUBSETS], ids=["subsets", "mirrored"])
def test_on_fixed_data_the_covariance_is_enough(W):
    K = sampling.covariance("sgd_without_replacement", 3, 2)
    np.testing.assert_allclose(np.cov(W.T, bias=True), K, atol=1e-15)
    check("ours-fixed-data", measured=two_steps(W, np.full(3, 1 / 3)), predicted=fixed(K), atol=1e-14)


# Diabetes


@cache
def patients():
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    return LeastSquares(np.c_[np.ones(442), x / x.std(0)], (y - y.mean()) / y.std(), np.full(442, 1 / 442))


@cache
def train_patients(kind, seed, runs=800, steps=30, b=4, B=32):
    rng, law, theta = np.random.default_rng(seed), patients(), np.zeros((runs, 11))
    eta, total = 1 / leastsquares.constants(law).R2_weights(1 / b, 1), np.zeros((runs, 11))
    for _ in range(steps):
        size = b if kind == "sgd" else B
        noise = {"bell": rng.standard_normal, "free": rng.standard_normal}.get(
            kind, lambda shape: rng.choice([-1.0, 1.0], shape)
        )((runs, size))
        w = centred(noise, np.sqrt((B - b) / (b * B * (B - 1)))) if kind in ("bell", "coins") else 1 / size + 0 * noise
        w = 1 / B + np.sqrt((B - b) / (b * B**2)) * noise if kind == "free" else w
        who = rng.integers(0, 442, (runs, size))
        pull = w * (np.einsum("rkd,rd->rk", law.x[who], theta) - law.y[who])
        theta = theta - eta * np.einsum("rk,rkd->rd", pull, law.x[who])
        total += theta
    errors = []
    for v in (theta, total / (steps + 1)):
        delta = v - law.theta_star
        errors.append(((delta @ law.Sigma) * delta).sum(1) / 2)
    at = lambda q, r: leastsquares.run(law, q, r, eta, steps, np.zeros(11))  # noqa: E731
    return np.array(errors), at(1 / b, 1 + (kind == "free") * (1 / b - 1 / B)), at(1 / B, 1)


@pytest.mark.parametrize("kind", ["sgd", "bell", "coins", "free"])
def test_diabetes_on_fresh_seeds(kind):
    errors, right, plain = train_patients(kind, 100)
    check("ours-diabetes-weights", measured=errors.mean(1), se=errors.std(1) / errors.shape[1] ** 0.5, sigmas=4,
          predicted=[right.last_excess, right.averaged_excess],
          wrong=[plain.last_excess, plain.averaged_excess])  # fmt: skip


# What the source printed

FLAT = LeastSquares([[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0]], [1.0, 1.0, 0.5], [0.5, 0.25, 0.25])


def printed_minimizer(law):
    return np.linalg.pinv(law.Sigma) @ (law.probabilities * law.y @ law.x)


@pytest.mark.parametrize("law", [SMALL, FLAT], ids=["full rank", "inputs on a line"])
def test_the_printed_minimizer(law):
    theta = printed_minimizer(law)
    check("wu-minimizer", measured=law.theta_star, predicted=theta, atol=1e-12)
    rng = np.random.default_rng(0)
    assert all(law.loss(theta + 0.1 * rng.standard_normal(2)) >= law.loss(theta) - 1e-14 for _ in range(50))
    residuals = law.y - law.x @ theta
    check("wu-residual", measured=(law.probabilities * residuals) @ law.x, predicted=[0, 0], atol=1e-12)


def well_specified(noise=0.3):
    return LeastSquares(np.tile(SMALL.x, (2, 1)), np.r_[SMALL.x @ START + noise, SMALL.x @ START - noise],
                        np.tile(SMALL.probabilities, 2) / 2)  # fmt: skip


def test_when_the_assumptions_hold():
    for law in (SMALL, FLAT, well_specified()):
        at = leastsquares.constants(law)
        check("wu-remark-assumptions", measured=[at.R2, at.sigma2], rtol=1e-12,
              below=[(law.x**2).sum(1).max(), (law.residuals**2).max()])  # fmt: skip
    check("wu-remark-assumptions", measured=leastsquares.constants(well_specified()).sigma2, predicted=0.09, atol=1e-12)


def literal(steps=3):
    """(3) to the letter for the coin: two gradients added, the step ½."""
    guesses = [(1.0, 0.0)]
    for _ in range(steps):
        guesses = [(p / 4, v - 0.5 * (2 * v - s)) for p, v in guesses for s in (-2, 0, 0, 2)]
    return sum(p * v**2 for p, v in guesses)


def mean_batch(eta, steps=3):
    return leastsquares.run(COIN, 0.5, 1, eta, steps, [0.0]).moment[0, 0]


def test_equation_3_to_the_letter():
    check("wu-claim-15", measured=literal(), predicted=mean_batch(1.0), atol=1e-12, wrong=mean_batch(0.5))


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def as_if(name, r):
    """The exact formulas with another r."""
    q, _ = numbers(name)
    return leastsquares.run(SMALL, q, r, ETA, 2, START)


def diabetes_without_the_added_noise():
    errors, _, plain = train_patients("bell", 100)
    return {**pair(errors.mean(1), [plain.last_excess, plain.averaged_excess]), "se": errors.std(1) / 800**0.5}


CONTROLS = {  # each with the loosest tolerance that the chapter and the tests allow its claim
    # free weights taken for centred ones
    "ours-two-numbers": ("atol", 1e-3, lambda: pair(every_path(*LAWS["free coins"])[1], as_if("free coins", 1).moment)),
    "wu-same-error": ("atol", 1e-4, lambda: pair(
        every_path(*LAWS["free coins"])[3], every_path(*LAWS["one of two"])[3]
    )),
    "wu-quadratic": ("atol", 1e-4, lambda: pair(
        every_path(*LAWS["free coins"])[3], as_if("free coins", 1).averaged_excess
    )),
    # the larger r with the smaller q
    "ours-larger-numbers": (None, None, lambda: {"measured": random_pairs(sign=-0.2), "above": 0.0}),
    # the 1/B forgotten
    "ours-weight-numbers": ("atol", 1e-3, lambda: pair(np.trace(np.cov(next(shares(4, 2))[0].T, bias=True)), 1 / 2)),
    # a bound that does not know d
    "wu-claim-16": (None, None, lambda: {
        "measured": long_run(5, T=2000) / 2001, "below": bound_by_hand(coins(5), 1, 1, 0.5, 2000, np.zeros(5), 1)[0]
    }),
    # the added noise taken for noise that a batch of B averages out
    "wu-claim-17": (None, None, lambda: {"measured": gain(1 / 32) / gain(1 / 32), "above": 15.0}),
    # no d
    "ours-dimension": ("rtol", 0.1, lambda: pair(long_run(5), (4 * 1 - 1) / 6)),
    # the covariance of another sampler
    "ours-fixed-data": ("atol", 1e-3, lambda: pair(
        two_steps(SUBSETS, np.full(3, 1 / 3)), fixed(sampling.covariance("sgd", 3, 2))
    )),
    "ours-diabetes-weights": ("sigmas", 4, diabetes_without_the_added_noise),
    # r taken for 1
    "wu-intuition": ("sigmas", 4, lambda: {
        "measured": mean_square("free")[0], "predicted": 1 / 3, "se": mean_square("free")[1]
    }),
    # another loss
    "wu-claim-18": ("atol", 0.01, lambda: pair(absolute_excess("mirrored"), absolute_excess("one"))),
    # chances forgotten
    "wu-minimizer": ("atol", 1e-3, lambda: pair(FLAT.theta_star, np.linalg.pinv(FLAT.x) @ FLAT.y)),
    "wu-residual": ("atol", 1e-3, lambda: pair(FLAT.residuals @ FLAT.x, [0, 0])),
    # σ for σ²
    "wu-remark-assumptions": ("atol", 1e-3, lambda: pair(leastsquares.constants(well_specified()).sigma2, 0.3)),
    # as printed
    "wu-claim-15": ("atol", 1e-3, lambda: pair(literal(), mean_batch(0.5))),
}  # fmt: skip


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    kind, tolerance, wrong = CONTROLS[claim]
    with pytest.raises(CheckFailed):
        check(claim, **({kind: tolerance} if kind else {}), **wrong())


# Exercises, and Try your own


@pytest.mark.parametrize(("r", "settled"), [(1.0, 3 / 5), (1.5, 6 / 7)])
def test_momentum_settles_where_the_solution_says(r, settled):
    M = c = U = 0.0
    for _ in range(400):
        U_new = U / 4 + c + r * M + 1
        c_new = c / 2 + M - U_new / 2
        M, c, U = M - (c / 2 + M) + U_new / 4, c_new, U_new
    assert pytest.approx(settled, rel=1e-9) == M
    rng, runs = np.random.default_rng(1), 40_000
    theta, u = np.zeros(runs), np.zeros(runs)
    for _ in range(60):
        y, z = rng.choice([-1.0, 1.0], (runs, 2)), rng.standard_normal((runs, 2)) / 2
        w = 0.5 + (z if r > 1 else z[:, :1] * [1, -1])
        u = u / 2 + (w * (theta[:, None] - y)).sum(1)
        theta = theta - u / 2
    assert abs(np.mean(theta**2) - settled) < 4 * np.std(theta**2) / runs**0.5


def own(**changes):
    path = runbook.BOOK / "4-noise" / "02_least_squares.ipynb"
    (cell,) = [c.source for c in nbformat.read(path, 4).cells if "own_weights" in c.source and c.cell_type == "code"]
    for old, new in changes.values():
        assert cell.count(old) >= 1, old
        cell = cell.replace(old, new)
    return cell, {"np": np, "leastsquares": leastsquares}


def own_numbers(capsys, **changes):
    cell, space = own(**changes)
    exec(cell, space)
    return (float(v) for v in re.findall(r"[\d.]+", capsys.readouterr().out.splitlines()[-1]))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"a": ("rng.exponential(1 / 3, (size, 3))", "1 / 3 + rng.choice([-0.4, 0.4], (size, 3))")},
        {"a": ("rng.exponential(1 / 3, (size, 3))", "np.eye(3)[rng.integers(0, 3, size)]")},
        {"a": ("[0, 2, 1]", "[5, -2, 0]"), "b": ("[0.5, 0.25, 0.25]", "[0.2, 0.2, 0.6]")},
        {
            "a": ("[[1, 0], [1, 1], [1, 3]], [0, 2, 1]", "[[1, 0, 1], [1, 1, 0], [1, 2, 2], [0, 1, -1]], [0, 2, 1, 3]"),
            "b": ("[0.5, 0.25, 0.25]", "[0.4, 0.2, 0.2, 0.2]"),
            "c": ("rng.exponential(1 / 3, (size, 3))", "rng.exponential(1 / 2, (size, 2))"),
        },
    ],
    ids=["as it stands", "coins", "one example", "other examples", "four examples, two weights, three parameters"],
)
def test_try_your_own_agrees(changes, capsys):
    predicted, measured, se = own_numbers(capsys, **changes)
    assert abs(predicted - measured) < 4 * se + 1e-4


def test_try_your_own_with_another_sum_disagrees(capsys):
    predicted, measured, se = own_numbers(capsys, a=("1 / 3, (size, 3)", "0.2, (size, 3)"))
    assert abs(predicted - measured) > 8 * se


@pytest.mark.parametrize(("eta", "agrees"), [(0.1, True), (0.15, True), (0.3, False)])
def test_try_your_own_needs_a_step_well_below_its_limit(eta, agrees, capsys):
    """The limit by hand: q = 2/3 and r = 4/3, and E|x|²xxᵀ ⪯ R² Σ."""
    cell, space = own(a=("eta_own, size, g = 0.15", f"eta_own, size, g = {eta}"))
    exec(cell, space)
    (_, limit), (predicted, measured, se) = (
        [float(v) for v in re.findall(r"[\d.]+", line)] for line in capsys.readouterr().out.splitlines()
    )
    x, p = np.array([[1, 0], [1, 1], [1, 3]]), np.array([0.5, 0.25, 0.25])
    Sigma, fourth = (x.T * p) @ x, (x.T * p * (x**2).sum(1)) @ x
    R2, largest = scipy.linalg.eigh(fourth, Sigma)[0][-1], np.linalg.eigvalsh(Sigma)[-1]
    assert abs(limit - 2 / (2 / 3 * R2 + 2 / 3 * largest)) < 0.006
    assert (abs(predicted - measured) < 4 * se + 1e-4) == agrees
    assert agrees == (eta < 0.7 * limit)
    assert agrees or measured < predicted


def test_try_your_own_says_when_the_step_is_too_long():
    cell, space = own(a=("eta_own, size, g = 0.15", "eta_own, size, g = 1e20"))
    with pytest.raises(ValueError, match="overflow"):
        exec(cell, space)
