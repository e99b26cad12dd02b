"""Exact second moments against every path, against sampling and the formula with all two-time terms; the bound."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicitreg.noise import leastsquares
from implicitreg.noise.leastsquares import LeastSquares, bound, constants, run, run_fixed, weight_moments
from implicitreg.noise.sampling import compensation, covariance
from noise import laws

X, Y, CHANCES = [(1, 0.5), (-0.5, 1), (0.3, -1.2)], [1, 0.2, -0.7], [0.5, 0.3, 0.2]
THETA0, ETA = [0.7, -0.4], 0.2


@pytest.fixture(scope="module")
def law():
    return LeastSquares(X, Y, CHANCES)


@st.composite
def random_laws(draw):
    """A law of up to five examples in one or two dimensions, q and r as weights have them, a stable step, a start."""
    d, m = draw(st.integers(1, 2)), draw(st.integers(1, 5))
    r = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.1, 1.0, 4.0]))
    law = LeastSquares(r.standard_normal((m, d)), scale * r.standard_normal(m), r.dirichlet(np.ones(m)))
    q = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]))
    total = draw(st.sampled_from([1.0, 1.3, 2.0]))
    eta = draw(st.sampled_from([0.1, 0.5, 1.0, 1.9])) / constants(law).R2_weights(q, total)
    return law, q, total, eta, draw(st.integers(0, 40)), r.standard_normal(d)


# Every path

WEIGHTS = {  # B examples and the law of their weights: values (m, B), probabilities (m,)
    "sgd": (2, lambda: (np.full((1, 2), 1 / 2), np.ones(1))),
    "subsample": (3, lambda: laws.counts(3, 2, replacement=False)),
    "gaussian": (3, lambda: centred(laws.HERMITE)),
    "rademacher": (3, lambda: centred(laws.SIGNS)),
    "fisher": (3, lambda: noisy(laws.SIGNS)),
    "bernoulli": (3, lambda: laws.independent(3, 2, 1, 2 / 3)),
    "uncompensated": (2, lambda: centred(laws.SIGNS, B=2, s2=2.5)),
}
EXPECTED = {"fisher": (1 / 2, 7 / 6), "bernoulli": (1 / 2, 7 / 6), "uncompensated": (3, 1)}


def centred(atoms, B=3, s2=None):
    eps, p = laws.product(atoms, B)
    return 1 / B + math.sqrt(s2 or compensation("cov", 2, B)) * (eps - eps.mean(1, keepdims=True)), p


def noisy(atoms):
    eps, p = laws.product(atoms, 3)
    return 1 / 3 + math.sqrt(compensation("fisher", 2, 3)) * eps, p


def every_step(B, w, p):
    """The maps θ → Kθ + c of one step for all batches and weights, and their probabilities."""
    x, y = np.array(X), np.array(Y)
    K, c, chance = [], [], []
    for batch in itertools.product(range(3), repeat=B):
        xb, yb = x[list(batch)], y[list(batch)]
        K.append(np.eye(2) - ETA * np.einsum("wk,ki,kj->wij", w, xb, xb))
        c.append(ETA * np.einsum("wk,k,ki->wi", w, yb, xb))
        chance.append(p * np.prod(np.array(CHANCES)[list(batch)]))
    return np.concatenate(K), np.concatenate(c), np.concatenate(chance)


def all_paths(law, steps, K, c, p):
    """m, M, and the losses of the last and of the averaged iterate, from all paths of a few steps."""
    theta, total, chance = np.array([THETA0]), np.array([THETA0]), np.ones(1)
    for _ in range(steps):
        theta = np.einsum("aij,pj->pai", K, theta) + c
        total = (total[:, None] + theta).reshape(-1, 2)
        theta, chance = theta.reshape(-1, 2), np.outer(chance, p).ravel()
    delta = theta - law.theta_star
    losses = [
        (chance * ((t @ law.x.T - law.y) ** 2 @ law.probabilities)).sum() / 2 for t in (theta, total / (steps + 1))
    ]
    return chance @ delta, (chance * delta.T) @ delta, losses[0] - law.minimum, losses[1] - law.minimum


@pytest.mark.parametrize("kind", WEIGHTS)
def test_recursion_is_the_mean_over_every_path(law, kind):
    B, weights = WEIGHTS[kind]
    w, p = weights()
    q, r = p @ (w**2).sum(1), p @ w.sum(1) ** 2
    np.testing.assert_allclose((q, r), EXPECTED.get(kind, (1 / 2, 1)), rtol=1e-14)
    np.testing.assert_allclose(weight_moments(laws.moments(w, p)[1]), (q, r), rtol=1e-14)
    K, c, chance = every_step(B, w, p)
    steps = 3 if len(K) < 80 else 2
    m, M, last, averaged = all_paths(law, steps, K, c, chance)
    exact = run(law, q, r, ETA, steps, THETA0)
    np.testing.assert_allclose(exact.mean, m, rtol=0, atol=1e-13)
    np.testing.assert_allclose(exact.moment, M, rtol=0, atol=1e-13)
    np.testing.assert_allclose([exact.last_excess, exact.averaged_excess], [last, averaged], rtol=0, atol=1e-13)
    wrong = run(law, q, r + 1 / 6, ETA, steps, THETA0)
    assert abs(wrong.averaged_excess - averaged) > 1e-4


@pytest.mark.parametrize(
    "kind", ["sgd", "sgd_without_replacement", "gaussian_cov", "gaussian_fisher", "bernoulli", "sparse_cov"]
)
def test_on_a_fixed_data_set_the_recursion_is_the_mean_over_every_path(kind):
    data, x, y = LeastSquares(X, Y, [1 / 3] * 3), np.array(X), np.array(Y)
    W, p = laws.law(kind, 3, 2, 2)
    K = np.eye(2) - ETA * np.einsum("wk,ki,kj->wij", W, x, x)
    found = run_fixed(X, Y, covariance(kind, 3, 2, B=2), ETA, 2, THETA0)
    m, M, last, averaged = all_paths(data, 2, K, ETA * W @ (y[:, None] * x), p)
    np.testing.assert_allclose(found.mean, m, rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.moment, M, rtol=0, atol=1e-13)
    np.testing.assert_allclose([found.last_excess, found.averaged_excess], [last, averaged], rtol=0, atol=1e-13)
    wrong = run_fixed(X, Y, covariance(kind, 3, 1, B=2), ETA, 2, THETA0)
    assert abs(wrong.averaged_excess - averaged) > 1e-4


@given(random_laws(), st.integers(1, 4))
def test_sgd_with_replacement_takes_fresh_examples_of_the_data_set(case, b):
    law, _, _, _, steps, theta0 = case
    data = LeastSquares(law.x, law.y, np.full(len(law.x), 1 / len(law.x)))
    eta = 1 / constants(data).R2_weights(1 / b, 1)
    fresh = run(data, 1 / b, 1, eta, steps, theta0)
    fixed = run_fixed(law.x, law.y, covariance("sgd", len(law.x), b), eta, steps, theta0)
    scale = np.abs(fresh.moment).max() + ((theta0 - data.theta_star) ** 2).sum()
    np.testing.assert_allclose(fixed.moment, fresh.moment, rtol=0, atol=1e-11 * scale)
    assert fixed.averaged_excess == pytest.approx(fresh.averaged_excess, rel=1e-9, abs=1e-13 * scale)


@pytest.mark.parametrize(
    ("K", "words"),
    [
        (np.eye(2), r"covariance has shape \(2, 2\): expected"),
        ([[1, 1, 0], [0, 1, 0], [0, 0, 1]], "expected a symmetric"),
        (-np.eye(3), "expected a positive semidefinite"),
    ],
)
def test_what_is_no_covariance_is_named(K, words):
    with pytest.raises(ValueError, match=words):
        run_fixed(X, Y, K, ETA, 2, THETA0)


@given(random_laws())
def test_averaged_excess_is_the_sum_over_all_two_time_terms(case):
    """Formula (A): E δ_j δ_iᵀ = (I − ηΣ)^(j−i) M_i, summed over all pairs."""
    law, q, r, eta, steps, theta0 = case
    shrink = np.eye(theta0.size) - eta * law.Sigma
    total = 0.0
    for i in range(steps + 1):
        powers = [np.linalg.matrix_power(shrink, k) for k in range(1, steps - i + 1)]
        series = np.eye(theta0.size) + 2 * sum(powers, np.zeros_like(shrink))
        total += np.trace(law.Sigma @ series @ run(law, q, r, eta, i, theta0).moment)
    assert run(law, q, r, eta, steps, theta0).averaged_excess == pytest.approx(
        total / 2 / (steps + 1) ** 2, rel=1e-10, abs=1e-14
    )


@given(random_laws())
def test_moments_are_possible(case):
    law, q, r, eta, steps, theta0 = case
    at = run(law, q, r, eta, steps, theta0)
    scale = np.abs(at.moment).max() + ((theta0 - law.theta_star) ** 2).sum()  # what rounding is relative to
    np.testing.assert_allclose(at.moment, at.moment.T, atol=1e-12 * scale)
    assert np.linalg.eigvalsh(at.moment - np.outer(at.mean, at.mean))[0] > -1e-10 * scale
    assert law.minimum <= law.loss(theta0) + 1e-12
    start = run(law, q, r, eta, 0, theta0)
    assert start.last_excess == start.averaged_excess == pytest.approx(law.loss(theta0) - law.minimum, abs=1e-10)


# Sampling


@pytest.mark.parametrize("kind", ["sgd", "gaussian", "rademacher", "fisher"])
def test_monte_carlo_has_the_excess_of_q_and_r(kind):
    """Four dimensions, batches of 3 for 24 steps; large batches of 12 with compensated noise."""
    rng, b, B, runs, steps = np.random.default_rng(3), 3, 12, 40_000, 24
    x, y = rng.standard_normal((20, 4)), rng.standard_normal(20)
    law, theta0 = LeastSquares(x, y, np.full(20, 1 / 20)), np.full(4, 0.5)
    q, r = 1 / b, 1 + (1 / b - 1 / B if kind == "fisher" else 0)
    eta, size = 1 / constants(law).R2_weights(q, r), b if kind == "sgd" else B
    theta = np.tile(theta0, (runs, 1))
    total = theta.copy()
    for _ in range(steps):
        w = sampled_weights(kind, rng, runs, b, size)
        W = np.zeros((runs, 20))
        np.add.at(W, (np.arange(runs)[:, None], rng.integers(20, size=(runs, size))), w)
        theta = theta - eta * (W * (theta @ x.T - y)) @ x
        total += theta
    exact = run(law, q, r, eta, steps, theta0)
    for t, excess in ((theta, exact.last_excess), (total / (steps + 1), exact.averaged_excess)):
        losses = ((t @ x.T - y) ** 2).mean(1) / 2 - law.minimum
        se = losses.std(ddof=1) / math.sqrt(runs)
        assert abs(losses.mean() - excess) < 4 * se
        assert abs(losses.mean() - run(law, 1 / B, 1, eta, steps, theta0).last_excess) > 10 * se


def sampled_weights(kind, rng, runs, b, B):
    if kind == "sgd":
        return np.full((runs, b), 1 / b)
    eps = rng.choice([-1.0, 1.0], (runs, B)) if kind == "rademacher" else rng.standard_normal((runs, B))
    if kind != "fisher":
        eps -= eps.mean(1, keepdims=True)
    return 1 / B + math.sqrt(compensation("fisher" if kind == "fisher" else "cov", b, B)) * eps


# the reference case

P4 = {
    1: ([0.0077918170314, -0.0177242026392, 0.24433286915619], 0.08891866393009, 0.19510299200228, 0.29007920471643),
    7 / 6: ([0.00790982567459, -0.01778957195471, 0.24991464831664], 0.09094172742267, 0.19611278280049,
            0.29401561499682),
}  # fmt: skip


@pytest.mark.parametrize("r", P4)
def test_P4_reference(law, r):
    M, last, averaged, largest = P4[r]
    at = run(law, 1 / 2, r, ETA, 5, THETA0)
    np.testing.assert_allclose(law.theta_star, [0.69138084236716, 0.64325573129554], rtol=0, atol=1e-10)
    np.testing.assert_allclose(at.mean, [0.02128333320478, -0.48375171749007], rtol=0, atol=1e-10)
    np.testing.assert_allclose(at.moment[np.triu_indices(2)], M, rtol=0, atol=1e-10)
    values = [at.last_excess, at.averaged_excess, bound(law, 1 / 2, r, ETA, 5, THETA0)]
    np.testing.assert_allclose(values, [last, averaged, largest], rtol=0, atol=1e-10)


def test_P4_constants(law):
    at = constants(law)
    R2, sigma2, lam = 1.37449973342811, 0.01340628200900, 0.71921178142899
    np.testing.assert_allclose([at.R2, at.sigma2, at.lam], [R2, sigma2, lam], rtol=0, atol=1e-10)
    np.testing.assert_allclose(at.R2_weights(1 / 2, 1), 1.04685575742855, rtol=0, atol=1e-10)
    np.testing.assert_allclose(at.R2_weights(1 / 2, 7 / 6), 1.16672438766672, rtol=0, atol=1e-10)


# The theorem


@given(random_laws())
def test_bound_holds(case):
    law, q, r, eta, steps, theta0 = case
    assert (
        run(law, q, r, eta, steps, theta0).averaged_excess <= bound(law, q, r, eta, steps, theta0) * (1 + 1e-9) + 1e-13
    )


@given(random_laws())
def test_bound_of_a_well_specified_law_is_the_sum(case):
    """Every x twice, with y = x'θ* ± s: then E[ε|x] = 0, and the smaller bound holds."""
    law, q, r, eta, steps, theta0 = case
    fit = law.x @ law.theta_star
    twice = np.concatenate([fit + 1.5, fit - 1.5])
    both = LeastSquares(np.tile(law.x, (2, 1)), twice, np.tile(law.probabilities, 2) / 2)
    small, large = (bound(both, q, r, eta, steps, theta0, well_specified=w) for w in (True, False))
    assert run(both, q, r, eta, steps, theta0).averaged_excess <= small * (1 + 1e-9) + 1e-13
    assert small <= large * (1 + 1e-12)


@given(random_laws())
def test_constants_are_sharp(case):
    """R² Σ − E|x|²xxᵀ is positive semidefinite with a zero direction; σ² likewise."""
    law = case[0]
    at, p = constants(law), law.probabilities
    for c, factor in ((at.R2, (law.x**2).sum(1)), (at.sigma2, law.residuals**2)):
        slack = c * law.Sigma - (p * factor * law.x.T) @ law.x
        scale = np.abs(c * law.Sigma).max() + 1e-12
        eigenvalues = np.linalg.eigvalsh(slack) / scale
        assert eigenvalues[0] > -1e-9
        assert np.abs(eigenvalues).min() < 1e-9


def test_without_a_condition_on_the_step_there_is_no_bound():
    """Just above 2/R² the second moment of x = ±1, y = 0 grows; below, the bound holds. The source has no condition."""
    law = LeastSquares([[1.0], [3.0]], [0.0, 0.0], [0.9, 0.1])
    largest = 2 / constants(law).R2_weights(1, 1)
    sharp = 2 * law.Sigma[0, 0] / 9.0  # E(1 − ηx²)² = 1 at η = 2 E x² / E x⁴, and E x⁴ = 9
    assert largest == pytest.approx(sharp, rel=1e-12)
    assert run(law, 1, 1, 1.01 * sharp, 2000, [1.0]).averaged_excess > 1
    assert bound(law, 1, 1, 0.99 * sharp, 2000, [1.0]) < 1
    with pytest.raises(ValueError, match=r"eta = .*: expected less than 2 / R² = 0.4"):
        bound(law, 1, 1, 1.01 * sharp, 2000, [1.0])


def test_weights_noisier_than_one_example_need_the_smallest_eigenvalue():
    """q > r: with λ in place of μ in R² the condition on the step would admit steps that diverge."""
    law = LeastSquares([[1.0, 0.0], [0.0, math.sqrt(5.0)]], [0.0, 0.0], [0.9, 0.1])
    q, r, at = 10.0, 1.0, constants(law)
    with_lambda = q * at.R2 + (r - q) * at.lam
    assert with_lambda < at.R2_weights(q, r) == pytest.approx(q * 5 - 9 * 0.5, rel=1e-12)
    eta, N = 1.99 / with_lambda, 3001
    bias_with_lambda = 1 / (2 - 1.99) * min(1 / (2 * eta * N), 1 / (eta**2 * at.mu * N**2))
    assert run(law, q, r, eta, N - 1, [0.0, 1.0]).averaged_excess > 1000 * bias_with_lambda
    with pytest.raises(ValueError, match="expected less than"):
        bound(law, q, r, eta, 3000, [0.0, 1.0])


def test_the_constants_must_know_the_dimension():
    """x uniform on the unit vectors, ε = ±1: R = σ = 1, the start at the minimum, and the error grows with d."""
    expected = {1: 0.467, 2: 1.079, 4: 2.301, 8: 4.746, 16: 9.635}
    for d, value in expected.items():
        x, y = np.repeat(np.eye(d), 2, axis=0), np.tile([1.0, -1.0], d)
        law, steps = LeastSquares(x, y, np.full(2 * d, 1 / (2 * d))), 40 * d
        at = constants(law)
        assert (at.R2, at.sigma2, at.d) == (pytest.approx(1), pytest.approx(1), d)
        assert (steps + 1) * run(law, 1, 1, 0.5, steps, np.zeros(d)).averaged_excess == pytest.approx(value, abs=6e-4)


def test_a_sum_over_the_batch_is_a_step_of_b_eta(law):
    """Eq. (3) taken literally: SGD that sums its batch of 2 has not the errors of MSGD with mean weights 1/B."""
    mean = run(law, 1 / 2, 1, ETA, 5, THETA0)
    K, c, p = every_step(2, np.ones((1, 2)), np.ones(1))
    literal = all_paths(law, 3, K, c, p)
    assert abs(literal[2] - run(law, 1 / 2, 1, ETA, 3, THETA0).last_excess) > 0.05
    assert literal[2] == pytest.approx(run(law, 1 / 2, 1, 2 * ETA, 3, THETA0).last_excess, rel=1e-12)
    assert mean.last_excess < bound(law, 1 / 2, 1, ETA, 5, THETA0)


def test_directions_that_no_example_sees_stay_and_cost_nothing():
    law = LeastSquares([[1.0, 0.0], [2.0, 0.0]], [1.0, 1.0], [0.5, 0.5])
    a, b = (run(law, 0.5, 1, 0.3, 10, [0.0, z]) for z in (0.0, 7.0))
    assert b.mean[1] == 7
    assert a.averaged_excess == pytest.approx(b.averaged_excess, rel=1e-13)
    assert bound(law, 0.5, 1, 0.3, 10, [0.0, 7.0]) == pytest.approx(bound(law, 0.5, 1, 0.3, 10, [0.0, 0.0]), rel=1e-12)
    assert constants(law).d == 1


def test_weights_of_no_square_are_gradient_descent_on_the_population(law):
    at = run(law, 0, 1, ETA, 5, THETA0)
    np.testing.assert_allclose(at.moment, np.outer(at.mean, at.mean), atol=1e-15)
    assert at.last_excess == pytest.approx(law.loss(law.theta_star + at.mean) - law.minimum, abs=1e-14)


# Bad input

good = LeastSquares(X, Y, CHANCES)
BAD = {
    "y": (lambda: LeastSquares(X, [1.0], CHANCES), r"y has shape \(1,\): expected \(3,\)"),
    "p": (lambda: LeastSquares(X, Y, [0.5, 0.3, 0.3]), "probabilities sums to 1.1"),
    "x": (lambda: LeastSquares([[0.0]], [1.0], [1.0]), "x = 0 for every example"),
    "nan": (lambda: LeastSquares([[math.nan]], [1.0], [1.0]), r"x\[0, 0\] = nan"),
    "q": (lambda: run(good, -0.1, 1, 0.1, 1, THETA0), "q = -0.1: expected a finite number >= 0"),
    "r": (lambda: run(good, 0.5, 0.9, 0.1, 1, THETA0), "r = 0.9: expected a finite number >= 1"),
    "eta": (lambda: run(good, 0.5, 1, 0.0, 1, THETA0), "eta = 0.0: expected a finite number > 0"),
    "steps": (lambda: run(good, 0.5, 1, 0.1, -1, THETA0), "steps = -1: expected an integer >= 0"),
    "theta0": (lambda: run(good, 0.5, 1, 0.1, 1, [1.0]), r"theta0 has shape \(1,\): expected \(2,\)"),
    "overflow": (lambda: run(good, 0.5, 1, 1e3, 1000, THETA0), "eta = 1000.0: the second moments overflow by step"),
    "well": (lambda: bound(good, 0.5, 1, 0.1, 1, THETA0, well_specified=True), "the mean of y - x'θ. at x = "),
    "square": (lambda: weight_moments([[1.0, 2.0]]), r"covariance has shape \(1, 2\): expected \(2, 2\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        call()


def test_what_is_of_another_type_is_named():
    for function in (run, bound):
        with pytest.raises(TypeError, match=r"law = 3: expected a LeastSquares"):
            function(3, 0.5, 1, 0.1, 1, THETA0)
    with pytest.raises(TypeError, match=r"law = 3"):
        constants(3)
    with pytest.raises(TypeError, match=r"steps = 1.0: expected an integer"):
        run(good, 0.5, 1, 0.1, 1.0, THETA0)
    with pytest.raises(ValueError, match="read-only"):
        good.Sigma[0, 0] = 1.0
    assert leastsquares.SecondMoments.__name__ == "SecondMoments"


@pytest.mark.parametrize("eta", [1e155, 1e200, 1e308])
def test_a_step_whose_square_is_no_number_is_refused_by_name(eta):
    law = LeastSquares([[1.0], [2.0]], [1.0, 0.0], [0.5, 0.5])
    for call in (
        lambda: run(law, 1, 1, eta, 3, [0.0]),
        lambda: run_fixed(law.x, law.y, covariance("sgd", 2, 1), eta, 3, [0.0]),
    ):
        with pytest.raises(ValueError, match=r"eta = 1e\+\d+: the second moments overflow by step 1"):
            call()


def test_the_bound_for_tiny_inputs_and_a_step_whose_square_is_no_number():
    """In units of 2^-510 for x the step has units of 2^1020."""
    unit = 2.0**-510
    law, tiny = (LeastSquares([[u], [2 * u]], [0.0, 0.0], [0.5, 0.5]) for u in (1.0, unit))
    assert bound(tiny, 1, 1, 0.25 / unit**2, 5, [1 / unit]) == pytest.approx(bound(law, 1, 1, 0.25, 5, [1.0]))
