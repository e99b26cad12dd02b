"""The landscapes are what their formulas say, and SGD does on them what the source, corrected, predicts."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import diagrams, ensembles, exact
from implicitreg.diagrams import landscapes
from implicitreg.diagrams.landscapes import CubicChi, Gauss, MeanEstimation, RegularizedMean, Screw
from implicitreg.ensembles import particles

CASES = {
    "archimedes": Screw(), "tilted": Screw(1.5, 0.7, 1.3, 0.4, 0.2), "mean": MeanEstimation(1.7, 0.6), "gauss": Gauss(),
    "cubic": CubicChi(), "regularized": RegularizedMean(1.2, 3.0, 2.0, 10, 4.0),
}  # fmt: skip
SCREWS = {"archimedes": Screw(), "general": Screw(0.5, 2.0, 0.8, 0.3), "up": Screw(phi=math.pi / 4)}


def places(landscape, count=5):
    d = landscape.sampled().d
    return np.random.default_rng(d).uniform(0.1, 0.9, (count, d))


def by_autodiff(landscape, thetas, x):
    """Losses and gradients of the example x, from the finite problem."""
    problem = landscape.problem([x, x + 1.0])
    return problem.values(thetas)[:, 0], problem.gradients(thetas)[:, 0]


# --- what they are ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("x", [-1.3, 0.4])
def test_gradients_are_those_of_the_losses(name, x):
    landscape = CASES[name]
    thetas = places(landscape)
    _, g = by_autodiff(landscape, thetas, x)
    np.testing.assert_allclose(landscape.gradients(thetas, np.full(len(thetas), x)), g, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_test_loss_drift_and_covariance_are_means_over_x(name):
    """By a quadrature that is exact for the polynomials of x that occur."""
    landscape, (x, p) = CASES[name], landscapes.hermite(8)
    thetas, sampled = places(landscape), landscape.sampled()
    problem = landscape.problem(x, p)
    g = problem.gradients(thetas)
    G = np.einsum("m,pmd->pd", p, g)
    C = np.einsum("m,pmd,pme->pde", p, g, g) - G[:, :, None] * G[:, None, :]
    np.testing.assert_allclose(landscape.covariance(thetas), C, rtol=1e-11, atol=1e-12)
    if isinstance(landscape, RegularizedMean):
        assert sampled.drift is None  # its projection is no part of an SDE
        return
    np.testing.assert_allclose(landscape.loss(thetas), problem.values(thetas) @ p, rtol=1e-12)
    columns = tuple(thetas.T)
    np.testing.assert_allclose(np.stack(sampled.drift(columns, sampled.parameters), 1), G, rtol=1e-12, atol=1e-12)
    A = np.stack(np.broadcast_arrays(*sampled.spread(columns, (np.ones(len(thetas)),), sampled.parameters)), 1)
    np.testing.assert_allclose(A[:, :, None] * A[:, None, :], C, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("name", "S"), [("gauss", -1.0), ("cubic", -8.0)])
def test_four_atoms_have_the_skewness_of_the_normal_law_and_two_have_no_noise(name, S):
    problem = CASES[name].problem()
    _, g = problem.derivatives(1)
    c = g[:, 0] - problem.probabilities @ g[:, 0]
    assert problem.probabilities @ c**3 == pytest.approx(S, rel=1e-12)
    assert np.ptp(CASES[name].problem([1.0, -1.0]).derivatives(1)[1]) == 0


def test_archimedes_is_the_landscape_of_the_source():
    """½[u² + v² + (u cos z + v sin z)²] + x [u cos(z - π/4) + v sin(z - π/4)]."""
    u, v, z = 0.3, -0.8, 1.1
    source = (u * u + v * v + (u * math.cos(z) + v * math.sin(z)) ** 2) / 2
    noise = u * math.cos(z - math.pi / 4) + v * math.sin(z - math.pi / 4)
    values, _ = by_autodiff(Screw(), np.array([[u, v, z]]), -1.7)
    assert values[0] == pytest.approx(source - 1.7 * noise, rel=1e-14)


def test_the_bottom_of_the_valley_is_level_unless_tilted():
    bottom = np.column_stack([np.zeros(9), np.zeros(9), np.linspace(-4, 4, 9)])
    assert np.array_equal(Screw().loss(bottom), np.zeros(9))
    np.testing.assert_allclose(Screw(tilt=0.5).loss(bottom), bottom[:, 2] / 2)


# --- velocity -----------------------------------------------------------------------------------------------

REFERENCE = [
    (0.1, 1000, 1.77933673469388), (0.05, 1500, 0.643579072532699), (0.02, 3000, 0.201561358655953),
    (0.1, 10, 0.0117183613675143), (0.1, 10**4, 17.8507653061225),
]  # fmt: skip


@pytest.mark.parametrize(("eta", "T", "height"), REFERENCE)
def test_archimedes_has_the_reference_heights(eta, T, height):
    assert Screw().velocity(eta, T) * T == pytest.approx(height, rel=1e-12)


def brute_height(screw, eta, T):
    """The picture date by date: noise at s, carried to t by both axes, and the force along z."""
    H = np.diag([screw.a, screw.b])
    xi = screw.sigma * np.array([math.cos(screw.phi), math.sin(screw.phi)])
    M, z = np.zeros((2, 2)), 0.0
    K = np.eye(2) - eta * H
    for _ in range(T):
        z -= eta * ((screw.a - screw.b) * M[0, 1] + screw.tilt)
        M = K @ M @ K.T + eta**2 * np.outer(xi, xi)
    return z


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.1, 4), st.floats(0.1, 4), st.floats(0, 2), st.floats(-4, 4), st.floats(-1, 1), st.floats(1e-6, 0.999),
    st.integers(1, 60),
)  # fmt: skip
def test_velocity_is_the_sum_over_dates(a, b, sigma, phi, tilt, share, T):
    screw, eta = Screw(a, b, sigma, phi, tilt), share * 2 / max(a, b)
    expected = brute_height(screw, eta, T)
    scale = eta * T * (eta * sigma**2 + abs(tilt))
    assert screw.velocity(eta, T) * T == pytest.approx(expected, rel=1e-10, abs=1e-13 * scale + 1e-300)


def test_velocity_is_accurate_for_tiny_steps():
    """eta T = 1e-4 and less: η³ (a - b) σ² sin φ cos φ T (T - 1)/2, the picture without resummation."""
    for eta, T in ((1e-8, 2), (1e-8, 1000), (1e-6, 90)):
        leading = eta**3 / 2 * math.comb(T, 2)
        assert Screw().velocity(eta, T) * T == pytest.approx(leading, rel=3 * eta * T)
        assert Screw().velocity(eta, T) * T == pytest.approx(brute_height(Screw(), eta, T), rel=1e-9)


def test_velocity_in_the_limit_is_the_discrete_sum_and_to_leading_order_a_sixth():
    eta = 0.1
    assert Screw().velocity(eta) == pytest.approx(eta**2 / 6, rel=1e-14)
    late = Screw().velocity(eta, 2000) * 2000 - Screw().velocity(eta, 1000) * 1000
    assert late / 1000 == pytest.approx(eta**2 / (6 - 4 * eta), rel=1e-12)
    assert abs(late / 1000 / Screw().velocity(eta) - 1) > 0.07


def test_control_variates_find_the_same_heights():
    """Another path to them: the affine recursion of all second moments in three weights."""
    from implicitreg.ensembles import _controls

    for screw in (*SCREWS.values(), Screw(tilt=0.03)):
        sampled = screw.sampled()
        expansion = _controls.expand(sampled.gradient, sampled.parameters, np.zeros(3), 1)
        means = _controls.means(expansion, np.zeros(3), 0.1, (10, 300))
        for row, T in zip(means, (10, 300), strict=True):
            assert row[2] == pytest.approx(screw.velocity(0.1, T) * T, rel=1e-6)


@pytest.mark.parametrize("name", SCREWS)
def test_three_steps_agree_with_every_path_at_leading_order(name):
    """Exact enumeration with x = ±1: the rest vanishes like the next power of eta."""
    screw, rest = SCREWS[name], []
    for eta in (0.04, 0.02):
        z = exact.run(screw.problem(), eta, N=3, T=3).theta[2]
        rest.append(abs(z / (3 * screw.velocity(eta, 3)) - 1))
        assert rest[-1] < 4 * eta
    assert rest[1] < 0.6 * rest[0]


# --- SGD on the screw ----------------------------------------------------------------------------------------


def steady(ensemble, eta):
    """The change of z a step between the two steps kept, over eta², with its standard error."""
    z = (ensemble.thetas - ensemble.controls)[:, :, 2]
    t0, t1 = ensemble.steps
    return ensembles.estimate((z[1] - z[0]) / ((t1 - t0) * eta**2))


def climb(screw, eta=0.1, T=1000, runs=2000, run=particles.sgd, **options):
    return steady(run(screw.sampled(), eta, T, runs, seed=12, at=[200, T], control=True, **options), eta)


@pytest.fixture(scope="module")
def archimedes():
    return climb(Screw())


def test_archimedes_climbs_at_the_discrete_rate(archimedes):
    """The 95 % interval is ± 0.03 % of the rate; it lies within 1 % of 1/(6 - 4 eta) = 0.1786."""
    rate = 1 / (6 - 0.4)
    assert 1.96 * archimedes.se < 0.001 * rate
    assert abs(archimedes.mean / rate - 1) < 0.01


def test_a_sixth_is_rejected(archimedes):
    """Control: the leading order is 6 % off, hundreds of standard errors."""
    assert abs(archimedes.mean - 1 / 6) > 100 * archimedes.se
    assert abs(archimedes.mean / (1 / 6) - 1) > 0.05


def test_the_rest_is_of_higher_order_in_eta(archimedes):
    """Further pictures: the relative distance from the one picture shrinks at least like eta."""
    rest = [abs(archimedes.mean * (6 - 0.4) - 1), abs(climb(Screw(), eta=0.05, T=2000).mean * (6 - 0.2) - 1)]
    assert rest[0] < 0.006
    assert rest[1] < 0.6 * rest[0]


def test_the_law_of_the_noise_hardly_matters_but_its_angle_does(archimedes):
    two_points = steady(
        particles.sgd(Screw().sampled(particles.rademacher()), 0.1, 1000, 1000, seed=3, at=[200, 1000], control=True),
        0.1,
    )
    assert abs(two_points.mean / archimedes.mean - 1) < 0.01
    turned = climb(Screw(phi=math.pi / 4), runs=500)
    assert turned.mean / archimedes.mean == pytest.approx(-1, abs=0.005)
    assert abs(climb(Screw(a=1.0), runs=500).mean) < 0.002  # a round valley
    assert abs(climb(Screw(phi=0.0), runs=500).mean) < 0.002  # noise along an axis


def test_a_general_screw_moves_at_its_velocity_up_to_higher_orders():
    """The relative distance halves with eta; at minus the angle the velocity is minus the same."""
    screw, rest = Screw(0.5, 2.0, 0.8, 0.3), []
    for eta in (0.1, 0.05):
        T = round(50 / eta)
        e = particles.sgd(screw.sampled(), eta, T, 4000, seed=4, control=True).mean()
        rest.append(abs(e.mean[0, 2] / (T * screw.velocity(eta, T)) - 1))
        assert e.se[0, 2] / (T * screw.velocity(eta, T)) < rest[-1] / 8
        assert abs(e.mean[0, 2] / (T * replace(screw, phi=-0.3).velocity(eta, T)) + 1) < 0.04
    assert rest[0] < 0.04
    assert 0.4 < rest[1] / rest[0] < 0.6


@pytest.mark.parametrize(("share", "sign"), [(0.7, 1), (1.3, -1)], ids=["climbs", "sinks"])
def test_a_tilted_screw_climbs_up_to_its_critical_slope(share, sign):
    eta = 0.1
    alpha = share * eta / (6 - 4 * eta)
    rate = climb(Screw(tilt=alpha))
    assert sign * rate.mean > 20 * rate.se
    assert rate.mean == pytest.approx((1 - share) / (6 - 4 * eta), rel=0.03)
    plain = particles.gd(Screw(tilt=alpha).sampled(particles.atoms([0.0])), eta, 100, 2, N=1, seed=0).final[0, 2]
    assert plain == pytest.approx(-100 * eta * alpha)  # without noise it sinks


def test_an_sde_with_the_same_covariance_climbs_too(archimedes):
    """η²/6 for the equation; Euler's scheme of step h adds its own h/(6 η): 1/(6 - 4 h) per η² at leading order."""
    rate = climb(Screw(), runs=500, run=particles.sde, substeps=8)
    assert rate.mean == pytest.approx(1 / (6 - 4 * 0.1 / 8), rel=0.01)
    assert abs(rate.mean - archimedes.mean) > 50 * rate.se  # and not at the rate of SGD
    assert rate.mean > 100 * rate.se  # nor not at all


# --- the others ----------------------------------------------------------------------------------------------

MEAN_ESTIMATION = [(0.1, 0.00453226762560882, 0.0952078528862911), (1.0, 0.0200957496155752, 0.0633967658726771),
                   (10.0, 0.00499973438953866, None)]  # fmt: skip


@pytest.mark.parametrize(("H", "overfit", "gap"), MEAN_ESTIMATION)
def test_mean_estimation_overfits_as_corollary_2_says(H, overfit, gap):
    """N = 10, T = 100, eta = 0.01, S = 1; the exponential of Corollary 2 is exact with (1 - eta H)^T."""
    landscape, N = MeanEstimation(H), 10
    e = particles.gd(landscape.sampled(), 0.01, 100, 40_000, N=N, seed=8)
    test = landscape.loss(e.final)
    measured = ensembles.estimate(test)
    formula = (1 - (1 - 0.01 * H) ** 100) ** 2 / (2 * H * N)
    assert formula == pytest.approx(overfit, rel=1e-9)
    assert abs(measured.mean - overfit) < 4 * measured.se
    assert abs(measured.mean - 2 * overfit) > 20 * measured.se
    x = particles.points(landscape.sampled(), 40_000, N=N, seed=8)[:, :, 0]
    train = test + (x.mean(1) * e.final[:, 0])
    between = ensembles.estimate(test - train)
    assert gap is None or abs(between.mean - gap) < 4 * between.se


def test_gauss_after_one_step_is_exact():
    """½ e^(η/2) (1 + η)^(-1/2); the SDE of Corollary 5 differs."""
    eta = 0.25
    truth = math.exp(eta / 2) / math.sqrt(1 + eta) / 2
    assert truth == pytest.approx(0.506759393931231, rel=1e-14)
    loss = ensembles.estimate(Gauss().loss(particles.sgd(Gauss().sampled(), eta, 1, 400_000, seed=3).final))
    assert abs(loss.mean - truth) < 4 * loss.se
    assert abs(loss.mean - 0.5) > 20 * loss.se
    diffused = ensembles.estimate(Gauss().loss(particles.sde(Gauss().sampled(), eta, 1, 100_000, seed=3).final))
    assert abs(diffused.mean - truth) > 5 * diffused.se


@pytest.mark.parametrize("name", ["archimedes", "mean", "gauss", "cubic"])
def test_with_atoms_the_particles_agree_with_enumeration(name):
    landscape, eta, T = CASES[name], 0.1, 4
    problem = landscape.problem()
    law = [1.0, -1.0] if problem.m == 2 else landscapes.hermite(4)[0]
    sampled = landscape.sampled(particles.atoms(law, problem.probabilities))
    truth = exact.run(problem, eta, N=T, T=T)
    e = particles.sgd(sampled, eta, T, 100_000, seed=6)
    mean, loss = e.mean(), ensembles.estimate(landscape.loss(e.final))
    assert np.abs((mean.mean[0] - truth.theta) / mean.se[0]).max() < 4
    assert abs(loss.mean - truth.test_loss) < 4 * loss.se


def test_regularized_mean_estimation_keeps_its_penalty_nonnegative():
    """With a far minimum decay hurts, and lambda stays at zero; near zero it helps, and lambda grows."""
    for mu, low, high in ((30.0, 0.0, 0.2), (0.0, 1.0, np.inf)):
        landscape = RegularizedMean(H=1.0, S=10.0, mu=mu, N=10, tau=5.0)
        e = particles.gd(landscape.sampled(), 0.01, 500, 2000, N=10, seed=1)
        penalty = e.final[:, 1]
        assert (penalty >= 0).all()
        assert low <= np.median(penalty) <= high


def test_without_the_projection_the_penalty_turns_negative():
    """Control."""
    sampled = RegularizedMean(H=1.0, S=10.0, mu=30.0, N=10, tau=5.0).sampled()
    free = particles.gd(replace(sampled, project=None), 0.01, 60, 100, N=10, seed=1)
    assert (free.final[:, 1] < 0).any()


def test_compiled_landscapes_run_the_same():
    pytest.importorskip("numba")
    for name in ("tilted", "gauss", "regularized"):
        sampled = CASES[name].sampled()
        slow, fast = (particles.sgd(sampled, 0.05, 30, 200, seed=1, fast=fast).final for fast in (False, True))
        np.testing.assert_allclose(fast, slow, rtol=1e-10, atol=1e-12)


# --- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Screw(a=0.0), "a = 0.0"), (lambda: Screw(b=-1.0), "b = -1.0"),
        (lambda: Screw(sigma=-1.0), "sigma = -1"),
        (lambda: Screw(phi=math.nan), "phi = nan"), (lambda: Screw().velocity(1.0), "eta = 1.0"),
        (lambda: Screw().velocity(0.0), "eta = 0.0"), (lambda: Screw().velocity(0.1, 0), "T = 0"),
        (lambda: MeanEstimation(-1.0), "H = -1.0"), (lambda: RegularizedMean(0.0, 1.0, 1.0, 5, 1.0), "H = 0.0"),
        (lambda: RegularizedMean(1.0, 1.0, 1.0, 0, 1.0), "N = 0"),
        (lambda: Screw().loss([[1.0, 2.0]]), "thetas has shape"),
        (lambda: Screw().problem([1.0, 2.0], [0.5, 0.6]), "probabilities sums to"),
        (lambda: landscapes.hermite(0), "m = 0"),
    ],
)  # fmt: skip
def test_bad_parameters(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_is_not_a_number_is_a_type_error():
    with pytest.raises(TypeError, match="a = 'two'"):
        Screw(a="two")
    with pytest.raises(TypeError, match=r"T = 1\.5"):
        Screw().velocity(0.1, 1.5)


def test_landscapes_are_reached_from_the_part():
    assert diagrams.landscapes.Screw is Screw
    assert isinstance(Screw().problem().losses[0](torch.zeros(3, dtype=torch.float64)), torch.Tensor)
