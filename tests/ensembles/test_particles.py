"""A run is a function of (seed, run); ensembles agree with exact expectations; control variates leave no bias."""

import itertools

import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, ensembles, exact
from implicitreg.ensembles import _controls, _runs, _streams, particles
from scipy import stats

START, CENTER = (0.3, 0.3), (0.0, 0.0)


def valley(theta, x, parameters):
    """x + y²/2 + xi_1, y (1 + x) + (1 + 0.3 x) xi_2: two weights, noise that depends on them."""
    a, b = theta
    return a + 0.5 * b * b + x[0], b * (1 + a) + (1 + parameters[0] * a) * x[1]


SIGNS = np.array(list(itertools.product([1.0, -1.0], repeat=2)))
LAWS = {"rademacher": particles.rademacher(2), "gaussian": particles.gaussian(2), "atoms": particles.atoms(SIGNS)}


def landscape(law="rademacher"):
    return particles.Landscape(valley, START, LAWS[law], parameters=(0.3,))


def line(noise):
    """θ²/2 + xθ from 1."""
    return particles.Landscape(lambda theta, x, p: (theta[0] + x[0],), [1.0], noise)


@pytest.fixture
def compiled():
    pytest.importorskip("numba")


# --- streams ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rounds", "number", "expected"),
    [
        (7, 0, "5f6fb709 0d893f64 4f121f81 4f730a48"),
        (7, 2**32 - 1, "5207ddc2 45165e59 4d8ee751 8c52f662"),
        (10, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (10, 2**32 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ],
)
def test_words_are_those_of_philox(monkeypatch, rounds, number, expected):
    """The known answers of its authors, for counters and keys of zeros and of ones."""
    monkeypatch.setattr(_streams, "ROUNDS", rounds)
    runs = np.array([number << 32 | number], dtype=np.uint64)
    words = _streams.words(number << 32 | number, number, number, runs)
    assert " ".join(f"{int(w[0]):08x}" for w in words) == expected


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("control", [False, CENTER], ids=["plain", "control"])
def test_a_run_does_not_depend_on_the_other_runs_or_on_blocks(monkeypatch, law, control):
    options = {"seed": 3, "control": control, "at": [0, 5, 40], "fast": False}
    many = particles.sgd(landscape(law), 0.1, 40, 1000, **options)
    few = particles.sgd(landscape(law), 0.1, 40, 13, first=70, **options)
    monkeypatch.setattr(_runs, "BLOCK", 37)
    blocks = particles.sgd(landscape(law), 0.1, 40, 1000, **options)
    for name in ("thetas", "controls") if control else ("thetas",):
        everything = getattr(many, name)
        np.testing.assert_allclose(getattr(few, name), everything[:, 70:83], rtol=0, atol=1e-14)
        np.testing.assert_allclose(getattr(blocks, name), everything, rtol=0, atol=1e-14)


@pytest.mark.parametrize("N", [4, 6])
@pytest.mark.parametrize("B", [1, 2])
def test_a_run_with_a_training_set_does_not_depend_on_the_others(monkeypatch, N, B):
    many = particles.sgd(landscape(), 0.1, 9, 300, seed=3, N=N, B=B)
    few = particles.sgd(landscape(), 0.1, 9, 7, seed=3, N=N, B=B, first=100)
    assert np.array_equal(few.thetas, many.thetas[:, 100:107])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("control", [False, CENTER], ids=["plain", "control"])
def test_compiled_runs_are_the_same(compiled, law, control):
    options = {"seed": 2**63 + 5, "control": control, "at": [0, 1, 70], "first": 2**33}
    slow = particles.sgd(landscape(law), 0.1, 70, 300, fast=False, **options)
    fast = particles.sgd(landscape(law), 0.1, 70, 300, fast=True, **options)
    tolerance = 1e-14 if law == "gaussian" else 0
    np.testing.assert_allclose(fast.thetas, slow.thetas, rtol=0, atol=tolerance)
    if control:
        np.testing.assert_allclose(fast.controls, slow.controls, rtol=0, atol=tolerance)


def chi_square(means, se):
    return float((((means - means.mean()) / se) ** 2).sum())


def ensemble_means(keys, runs=2000):
    """Means of x and their standard errors, one a pair (seed, first run)."""
    options = {"T": 60, "runs": runs, "fast": False}
    estimates = [particles.sgd(landscape(), 0.05, seed=seed, first=first, **options).mean() for seed, first in keys]
    return np.array([[e.mean[0, 0], e.se[0, 0]] for e in estimates]).T


def test_means_of_disjoint_seeds_scatter_as_their_standard_errors_say():
    """Neighbouring seeds, where a careless key would let streams overlap; 99.8 % range of chi squared."""
    means, se = ensemble_means([(seed, 0) for seed in range(40)])
    low, high = stats.chi2.ppf([0.001, 0.999], 39)
    assert low < chi_square(means, se) < high


def test_overlapping_streams_are_seen():
    """Control: ensembles that share most of their runs agree better than independent ones can."""
    means, se = ensemble_means([(0, 25 * s) for s in range(40)])
    assert chi_square(means, se) < stats.chi2.ppf(0.001, 39)


@pytest.mark.parametrize("law", LAWS)
def test_neighbouring_runs_and_coordinates_are_not_correlated(law):
    R = 100_000
    theta = particles.sgd(landscape(law), 0.1, 20, R, seed=11, fast=False).final
    centred = (theta - theta.mean(0)) / theta.std(0)
    for lag in (1, 2, 64, 128):
        correlations = centred[:-lag].T @ centred[lag:] / R**0.5
        assert np.abs(correlations).max() < 4
    x = particles.points(landscape(law), R // 10, N=8, seed=11).reshape(R // 10, 16)
    off = np.corrcoef(x.T)[~np.eye(16, dtype=bool)] * (R // 10) ** 0.5
    assert np.abs(off).max() < 4.5


def test_seeds_and_uses_have_different_streams():
    x = [particles.points(landscape("gaussian"), 2000, N=2, seed=seed).ravel() for seed in (0, 1, 2**32, 2**63)]
    assert np.abs(np.corrcoef(x) - np.eye(4)).max() < 4 / 8000**0.5
    still = particles.Landscape(lambda t, x, p: (x[0],), [0.0], LAWS["gaussian"],
                                lambda t, p: (0.0 * t[0],), lambda t, w, p: (w[0],), sources=2)  # fmt: skip
    a, b = (
        particles.sgd(still, 1.0, 1, 4000, seed=0).final,
        particles.sde(still, 1.0, 1, 4000, seed=0, substeps=1).final,
    )
    assert abs(np.corrcoef(a.T, b.T)[0, 1]) < 4 / 4000**0.5


# --- laws ---------------------------------------------------------------------------------------------------

MOMENTS = {  # of order 1, 2, 3, 4
    "gaussian": (particles.gaussian(), (0, 1, 0, 3)),
    "wide gaussian": (particles.gaussian(6), (0, 1, 0, 3)),
    "rademacher": (particles.rademacher(3), (0, 1, 0, 1)),
    "atoms": (particles.atoms([2.0, -1.0, 0.5], [0.2, 0.3, 0.5]), (0.35, 1.225, 1.3625, 3.53125)),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_laws_have_their_moments(name):
    noise, moments = MOMENTS[name]
    flat = particles.Landscape(lambda t, x, p: (x[0],), [0.0], noise)
    x = particles.points(flat, 10_000, N=20, seed=1)
    for order, moment in enumerate(moments, start=1):
        for coordinate in range(noise.size):
            e = ensembles.estimate((x[:, :, coordinate] ** order).mean(1))
            assert abs(e.mean - moment) < 4 * e.se + 1e-9


def test_normal_numbers_are_normal():
    x = particles.points(line(particles.gaussian()), 20_000, N=5, seed=4).ravel()
    assert stats.kstest(x, "norm").pvalue > 0.001
    assert stats.kstest(x * 1.02, "norm").pvalue < 0.001


# --- against exact expectations ------------------------------------------------------------------------------


def finite_valley():
    def loss(first, second):
        return lambda t: (
            t[0] ** 2 / 2 + t[0] * t[1] ** 2 / 2 + t[1] ** 2 / 2 + first * t[0] + second * t[1] * (1 + t[0])
        )

    return FiniteProblem([loss(*x) for x in SIGNS[:3]], [0.5, 0.3, 0.2], START)


def written_valley():
    def gradient(theta, x, p):
        a, b = theta
        return a + b * b / 2 + x[0] + x[1] * b, b + a * b + x[1] * (1 + a)

    return particles.Landscape(gradient, START, particles.atoms(SIGNS[:3], [0.5, 0.3, 0.2]))


SCHEDULES = {
    "fresh": ({}, {"N": 4, "B": 1}), "one epoch": ({"N": 4, "B": 1}, {"N": 4, "B": 1}),
    "three epochs": ({"N": 2, "B": 1}, {"N": 2, "B": 1}), "batches": ({"N": 4, "B": 2}, {"N": 4, "B": 2}),
    "full batch": ({"N": 3, "B": 3}, {"N": 3, "B": 3}),
}  # fmt: skip
STEPS = {"three epochs": 6, "full batch": 5, "batches": 5}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_means_agree_with_the_exact_expectation(schedule):
    ours, theirs = SCHEDULES[schedule]
    T = STEPS.get(schedule, 4)
    problem = finite_valley()
    e = particles.sgd(written_valley(), 0.2, T, 40_000, seed=5, **ours)
    truth = exact.run(problem, 0.2, T=T, **theirs)
    mean = e.mean()
    assert np.abs((mean.mean[0] - truth.theta) / mean.se[0]).max() < 4
    loss = ensembles.estimate(problem.values(e.final) @ problem.probabilities)
    assert abs(loss.mean - truth.test_loss) < 4 * loss.se


def test_the_training_set_of_a_run_gives_its_training_loss():
    problem, N = finite_valley(), 3
    e = particles.gd(written_valley(), 0.2, 5, 40_000, N=N, seed=5)
    x = particles.points(written_valley(), 40_000, N=N, seed=5)
    index = (x[:, :, None] == SIGNS[:3]).all(-1).argmax(-1)
    values = np.take_along_axis(problem.values(e.final), index, axis=1).mean(1)
    train = ensembles.estimate(values)
    truth = exact.run(problem, 0.2, N=N, B=N, T=5)
    assert abs(train.mean - truth.train_loss) < 4 * train.se
    assert abs(train.mean - truth.test_loss) > 10 * train.se


def test_the_schedule_matters_and_is_seen():
    """Control: the exact mean of another schedule is many standard errors away."""
    e = particles.gd(written_valley(), 0.2, 5, 40_000, N=3, seed=5).mean()
    wrong = exact.run(finite_valley(), 0.2, N=5, B=1, T=5)
    assert np.abs((e.mean[0] - wrong.theta) / e.se[0]).max() > 5


def test_a_finite_problem_runs_as_it_stands(problem_b):
    e = particles.sgd(particles.finite(problem_b), 0.1, 3, 20_000, seed=2).mean()
    assert np.abs((e.mean[0] - exact.run(problem_b, 0.1, N=3, T=3).theta) / e.se[0]).max() < 4


def test_of_a_finite_problem_the_spread_is_a_factor_of_the_covariance(problem_b):
    finite, theta = particles.finite(problem_b), np.array([[0.2, 0.7]])
    A = np.array([finite.spread(tuple(theta.T), tuple(e[:, None]), ()) for e in np.eye(3)])[:, :, 0]
    _, g = problem_b.derivatives(1, theta[0])
    c = g - problem_b.probabilities @ g
    np.testing.assert_allclose(A.T @ A, (problem_b.probabilities * c.T) @ c, atol=1e-14)
    drift = np.array(finite.drift(tuple(theta.T), ()))[:, 0]
    np.testing.assert_allclose(drift, problem_b.probabilities @ g, atol=1e-14)


# --- control variates ----------------------------------------------------------------------------------------


def every_path(T):
    """theta_T and the control of all paths of signs, by the plain definition of the two processes."""
    eta, rows = 0.1, []
    for path in itertools.product(SIGNS, repeat=T):
        theta, one, two = (np.array(v) for v in (START, START, (0.0, 0.0)))
        for x in path:
            pull = np.array([0.5 * one[1] ** 2, one[0] * one[1] + 0.3 * x[1] * one[0]])
            theta = theta - eta * np.array(valley(theta, x, (0.3,)))
            one, two = one - eta * (one + x), two - eta * (two + pull)
        rows.append((theta, one + two))
    return np.array(rows)


def test_the_expansion_is_that_of_the_mean_and_of_what_is_linear_in_the_noise():
    """g = ½ - ½ x² e^(-h) has mean (1 - e^(-h))/2; of the valley all coefficients are known."""
    e = _controls.expand(lambda t, x, p: ((1 - x[0] * x[0] * np.exp(-t[0])) / 2,), (), np.zeros(1), 1)
    np.testing.assert_allclose([e.G[0], e.H[0, 0], e.J[0, 0, 0]], [0, 0.5, -0.5], atol=1e-6)
    e = _controls.expand(valley, (0.3,), np.zeros(2), 2)
    assert np.array_equal(e.H, np.eye(2))
    assert np.array_equal(e.A, np.eye(2))
    assert np.array_equal(e.J, [[[0, 0], [0, 1]], [[0, 1], [1, 0]]])
    np.testing.assert_allclose(e.B, [[[0, 0], [0, 0]], [[0, 0], [0.3, 0]]], atol=1e-6)


@pytest.mark.parametrize("T", [1, 2, 5])
def test_the_mean_of_the_control_is_its_mean_over_all_paths(T):
    expansion = _controls.expand(valley, (0.3,), np.zeros(2), 2)
    ours = _controls.means(expansion, np.array(START), 0.1, (T,))[0]
    np.testing.assert_allclose(ours, every_path(T)[:, 1].mean(0), rtol=0, atol=1e-8)
    without = np.array([(1 - 0.1) ** T * s for s in START])  # the linear part alone
    assert T == 1 or np.abs(ours - without).max() > 1e-3


def test_the_control_of_a_run_is_the_process_of_its_noise():
    T = 5
    e = particles.sgd(landscape(), 0.1, T, 1000, seed=9, control=CENTER)
    paths = every_path(T)
    mean = paths[:, 1].mean(0)
    for theta, control in zip(e.final[:50], e.controls[0, :50], strict=True):
        row = paths[np.abs(paths[:, 0] - theta).max(1).argmin()]
        np.testing.assert_allclose(theta, row[0], atol=1e-14)
        np.testing.assert_allclose(control, row[1] - mean, atol=1e-7)


def test_means_hold_whatever_the_coefficients():
    """Random coefficients, G and A of every kind: the recursion against all paths of one sign, in two dimensions."""
    rng = np.random.default_rng(0)
    shapes = ((2,), (2,), (2, 2), (2, 2, 2), (2, 1), (2, 1, 2))
    center, G, H, J, A, B = (rng.standard_normal(shape) for shape in shapes)
    e = _controls.Expansion(center, G, H, (J + J.swapaxes(1, 2)) / 2, A, B)
    f, c = _controls.pull(e)
    start, eta, T, totals = np.array([0.4, -0.2]), 0.3, 6, []
    for path in itertools.product([1.0, -1.0], repeat=T):
        one, two = start - center, np.zeros(2)
        for x in path:
            first, second = f(tuple(one), tuple(two), (x,), c)
            one, two = one - eta * np.array(first), two - eta * np.array(second)
        totals.append(one + two)
    np.testing.assert_allclose(_controls.means(e, start, eta, (0, T))[1], np.mean(totals, 0), rtol=1e-12)


@pytest.mark.parametrize(("eta", "gain"), [(0.1, 1e3), (0.05, 5e3), (0.02, 2e4)])
def test_control_variates_cut_the_variance_a_thousandfold(eta, gain):
    e = particles.sgd(landscape(), eta, int(4 / eta), 5000, seed=1, control=CENTER)
    raw, controlled = e.thetas[0, :, 0].var(), (e.thetas - e.controls)[0, :, 0].var()
    assert raw / controlled > gain


def test_control_variates_do_not_move_the_mean():
    """Controlled from few runs against plain from many others."""
    few = particles.sgd(landscape(), 0.1, 40, 5000, seed=1, control=CENTER).mean()
    many = particles.sgd(landscape(), 0.1, 40, 200_000, seed=2).mean()
    assert np.abs((few.mean - many.mean) / np.hypot(few.se, many.se)).max() < 4
    assert (few.se < many.se / 2).all()


# --- the SDE -------------------------------------------------------------------------------------------------


def geometric():
    """dθ = -θ ds + sqrt(eta) σ θ dW: E θ² = exp((η σ² - 2) s)."""
    return particles.Landscape(lambda t, x, p: (t[0] * (1 + p[0] * x[0]),), [1.0], particles.gaussian(),
                               lambda t, p: (t[0],), lambda t, w, p: (p[0] * t[0] * w[0],),
                               parameters=(0.5,))  # fmt: skip


@pytest.mark.parametrize("fast", [False, True])
def test_the_sde_has_the_moments_of_ito(request, fast):
    if fast:
        request.getfixturevalue("compiled")
    eta, T, substeps = 0.5, 4, 64
    e = particles.sde(geometric(), eta, T, 40_000, seed=1, substeps=substeps, fast=fast)
    h = eta / substeps
    second = ensembles.estimate(e.final[:, 0] ** 2)
    scheme = ((1 - h) ** 2 + h * eta / 4) ** (T * substeps)
    assert abs(second.mean - scheme) < 4 * second.se
    assert abs(scheme / np.exp((eta / 4 - 2) * eta * T) - 1) < 2 * h
    wrong = np.exp((1 / 4 - 2) * eta * T)  # C without its factor eta
    assert abs(second.mean - wrong) > 10 * second.se


def test_with_one_substep_it_is_sgd_with_normal_noise():
    sde = particles.sde(geometric(), 0.3, 3, 40_000, seed=1, substeps=1).final[:, 0] ** 2
    a, b = ensembles.estimate(sde), (0.7**2 + 0.3**2 / 4) ** 3
    assert abs(a.mean - b) < 4 * a.se


def test_compiled_sdes_are_the_same(compiled):
    a, b = (particles.sde(geometric(), 0.3, 3, 200, seed=1, at=[1, 3], fast=fast) for fast in (False, True))
    np.testing.assert_allclose(a.thetas, b.thetas, rtol=1e-13)
    assert a.steps == b.steps == (1, 3)


# --- arguments -----------------------------------------------------------------------------------------------


def test_steps_kept_are_those_of_shorter_runs():
    e = particles.sgd(landscape(), 0.1, 30, 50, seed=1, at=[0, 10, 30])
    assert np.array_equal(e.thetas[1], particles.sgd(landscape(), 0.1, 10, 50, seed=1).final)
    assert np.array_equal(e.thetas[0], np.tile(START, (50, 1)))
    assert e.mean(lambda thetas: thetas[..., 0] ** 2).mean.shape == (3,)


def test_estimates_of_arrays_are_arrays_and_of_tensors_tensors():
    draws = np.random.default_rng(0).standard_normal((10, 3))
    ours, theirs = ensembles.estimate(draws), ensembles.estimate(torch.from_numpy(draws))
    assert isinstance(ours.mean, np.ndarray)
    assert isinstance(theirs.mean, torch.Tensor)
    np.testing.assert_allclose(ours.se, theirs.se.numpy(), rtol=1e-14)


def test_progress_is_shown_when_asked_for(capfd):
    particles.sgd(landscape(), 0.1, 2, 10, seed=0)
    assert capfd.readouterr().err == ""
    particles.sgd(landscape(), 0.1, 2, 10, seed=0, progress=True)
    assert "10/10" in capfd.readouterr().err


def test_divergence_is_named():
    with pytest.raises(ValueError, match=r"eta = 30: run 5 has diverged by step 400: expected a smaller step"):
        particles.sgd(landscape(), 30.0, 400, 10, seed=0, first=5)
    with pytest.raises(ValueError, match="diverged"):
        particles.gd(landscape(), 30.0, 400, 10, seed=0, N=2)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"landscape": 3}, TypeError, "landscape = 3: expected a Landscape"),
        ({"eta": 0.0}, ValueError, "eta = 0.0"), ({"T": -1}, ValueError, "T = -1"),
        ({"runs": 0}, ValueError, "runs = 0"),
        ({"seed": -1}, ValueError, "seed = -1"), ({"seed": 1.5}, TypeError, "seed = 1.5"),
        ({"at": [3, 2]}, ValueError, r"at = \[3, 2\]: expected increasing steps"), ({"at": []}, ValueError, "at ="),
        ({"at": [6]}, ValueError, "at = 6"), ({"first": -1}, ValueError, "first = -1"),
        ({"N": 4, "B": 3}, ValueError, "B = 3: expected a divisor of N = 4"), ({"B": 2}, ValueError, "B = 2 without N"),
        ({"N": 4, "control": True}, ValueError, "control = True with N = 4"),
        ({"control": [0.0]}, ValueError, "control has shape"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_bad_arguments(change, error, words):
    arguments = {"landscape": landscape(), "eta": 0.1, "T": 5, "runs": 10, "seed": 0} | change
    with pytest.raises(error, match=words):
        particles.sgd(arguments.pop("landscape"), arguments.pop("eta"), arguments.pop("T"), arguments.pop("runs"),
                      **arguments)  # fmt: skip


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: particles.rademacher(5), "size = 5"),
        (lambda: particles.atoms([1.0, 2.0], [0.5]), "p.*has shape"),
        (lambda: particles.atoms([1.0, 2.0], [0.5, 0.6]), "sums to"),
        (lambda: particles.Landscape(valley, [0.1, 0.2, 0.3], LAWS["gaussian"], parameters=(0.3,)), "too many values"),
        (lambda: particles.Landscape(lambda t, x, p: t + t, [0.0], particles.gaussian()), "gradient returns 2 coord"),
        (lambda: particles.sgd(line(particles.atoms([1.0, 2.0])), 0.1, 2, 5, seed=0, control=True), "expected mean 0"),
        (lambda: particles.sde(landscape(), 0.1, 2, 5, seed=0), "landscape has no drift and spread"),
        (lambda: particles.sde(geometric(), 0.1, 2, 5, seed=0, substeps=0), "substeps = 0"),
        (lambda: particles.sgd(line(particles.gaussian(5)), 0.1, 2, 5, seed=0, fast=True), "fast = True"),
        (lambda: particles.sgd(line(particles.gaussian()), 0.1, 2, 5, seed=0).mean(lambda t: t[0]), "observable"),
    ],
)
def test_bad_laws_and_landscapes(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_is_no_law_or_function_is_a_type_error():
    with pytest.raises(TypeError, match="noise = 'normal'"):
        particles.Landscape(valley, START, "normal")
    with pytest.raises(TypeError, match="gradient = 3"):
        particles.Landscape(3, START, LAWS["gaussian"])
    with pytest.raises(TypeError, match="problem = 3"):
        particles.finite(3)
