"""The chapter on Archimedes' screw: each claim by an independent method, and each check with its negative control."""

import re
from functools import cache

import nbformat
import numpy as np
import pytest
from implicitreg import diagrams, ensembles, exact, runbook
from implicitreg.checks import CheckFailed, check
from implicitreg.diagrams import corollaries
from implicitreg.diagrams.landscapes import Screw
from implicitreg.ensembles import particles
from scipy.linalg import expm, solve_continuous_lyapunov

SCREWS = [Screw(), Screw(1.5, 0.7, 1.3, 0.4), Screw(0.5, 2.0, 0.8, -1.0)]


# Independent means: the screw in its own axes, written out, and its tensors by hand


def turning(screw, signs, eta):
    """Heights after the rows of signs, by the step in the turning axes: another program than the package's."""
    a, b = screw.a, screw.b
    c, s = screw.sigma * np.cos(screw.phi), screw.sigma * np.sin(screw.phi)
    p, q, z = np.zeros((3, signs.shape[1]))
    for x in signs:
        d = -eta * ((a - b) * p * q + x * (q * c - p * s) + screw.tilt)
        p, q = p - eta * (a * p + x * c), q - eta * (b * q + x * s)
        p, q, z = p * np.cos(d) + q * np.sin(d), q * np.cos(d) - p * np.sin(d), z + d
    return z


def patterns(T):
    return np.stack(np.meshgrid(*[[1.0, -1.0]] * T, indexing="ij")).reshape(T, -1)


def tensors(screw, height=0.0):
    """C, H and J on the floor at a height: those at the origin, turned."""
    a, b, c, s = screw.a, screw.b, np.cos(screw.phi), np.sin(screw.phi)
    C = screw.sigma**2 * np.outer([c, s, 0], [c, s, 0])
    H, J = np.diag([a, b, 0.0]), np.zeros((3, 3, 3))
    for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        J[i, j, k] = a - b
    R = np.array([[np.cos(height), -np.sin(height), 0], [np.sin(height), np.cos(height), 0], [0, 0, 1]])
    return R @ C @ R.T, R @ H @ R.T, np.einsum("ai,bj,ck,ijk->abc", R, R, R, J)


def lyapunov_speed(C, H, J, flat=2):
    """−½ J:V along the flat axis, with the stationary cloud of the others, HV + VH = C."""
    keep = [i for i in range(len(H)) if i != flat]
    V = solve_continuous_lyapunov(H[np.ix_(keep, keep)], C[np.ix_(keep, keep)])
    return -np.sum(J[np.ix_(keep, keep, [flat])][:, :, 0] * V) / 2


def kappa(screw):
    a, b = screw.a, screw.b
    turn = 1 - a / b * np.sin(screw.phi) ** 2 - b / a * np.cos(screw.phi) ** 2
    return screw.sigma**2 * turn / (2 * (a + b))


def one_picture(screw, eta):
    """The geometric sum, per η²."""
    return (
        -(screw.sigma**2)
        / 2
        * np.sin(2 * screw.phi)
        * (screw.a - screw.b)
        / (screw.a + screw.b - eta * screw.a * screw.b)
    )


@cache
def speed(screw, eta, run=particles.sgd, seed=5, runs=2000, **options):
    """Climb per step over η² between the times 20 and 100, with its standard error."""
    t0, t1 = round(20 / eta), round(100 / eta)
    noise = {} if run is particles.sde else {"noise": particles.rademacher()}
    e = run(screw.sampled(**noise), eta, t1, runs, seed=seed, at=(t0, t1), control=True, **options)
    early, late = (e.thetas - e.controls)[:, :, 2]
    return ensembles.estimate((late - early) / ((t1 - t0) * eta**2))


def two_steps(eta=0.1):
    return -(eta**3) / 2 * np.array([s.sigma**2 * np.sin(2 * s.phi) * (s.a - s.b) for s in SCREWS])


def test_two_steps_end_at_one_height():
    for screw, height in zip(SCREWS, two_steps(), strict=True):
        check(
            "ours-screw-two-steps", measured=turning(screw, patterns(2), 0.1), predicted=np.full(4, height), atol=1e-15
        )
        assert exact.run(screw.problem(), 0.1, N=2, T=2).theta[2] == pytest.approx(height, rel=1e-12)


def dates(screw, eta, T):
    """The sum over all dates of the two tied dots, one by one."""
    K, kick = 1 - eta * np.array([screw.a, screw.b]), screw.sigma * np.array([np.cos(screw.phi), np.sin(screw.phi)])
    return sum(-(eta**3) * (screw.a - screw.b) * np.prod(kick * K ** (t - s - 1)) for t in range(T) for s in range(t))


def test_sum_over_dates():
    for screw in SCREWS:
        for T in (2, 3, 40):
            check("ours-screw-sum", measured=dates(screw, 0.1, T), predicted=T * screw.velocity(0.1, T), rtol=1e-12)
    three = turning(Screw(), patterns(3), 1e-3).mean()
    check("ours-screw-sum", measured=three / 1e-9, predicted=dates(Screw(), 1e-3, 3) / 1e-9, rtol=1e-5)


def test_long_runs_climb_faster_than_two_steps():
    for eta in (1e-3, 1e-4):
        late = turning(Screw(), patterns(2), eta).mean() / 2
        check("tenka-2.7-amplifying", measured=eta**2 * lyapunov_speed(*tensors(Screw())) / late * eta, predicted=2 / 3,
              rtol=1e-3)  # fmt: skip


def test_velocity_is_the_lyapunov_cloud_on_the_slope():
    for screw in SCREWS:
        v = corollaries.velocity(*tensors(screw, 0.7), 0.1, exact=False)[2] / 0.01
        check("ours-cloud", measured=lyapunov_speed(*tensors(screw)), predicted=v, atol=1e-9)
        check("tenka-2.7-sustained", measured=v, predicted=one_picture(screw, 0), atol=1e-9)


def fixed_time(C, H, J, tau):
    """V and m at a time by quadrature of the exact exponentials, in the eigenbasis of H."""
    s = np.linspace(0, tau, 4001)
    h, U = np.linalg.eigh(H)
    rate = h[:, None] + h
    spread = np.where(rate > 0, -np.expm1(-np.multiply.outer(s, rate)) / np.where(rate > 0, rate, 1), s[:, None, None])
    V = np.einsum("im,smn,jn->sij", U, spread * (U.T @ C @ U), U)
    push = -np.einsum("ijk,sij->sk", J, V) / 2
    back = np.stack([expm(-H * (tau - t)) @ f for t, f in zip(s[::40], push[::40], strict=True)])
    return V[-1], np.trapezoid(back, s[::40], axis=0)


def test_mean_and_cloud_at_a_fixed_time():
    """SGD on the screw at τ = 2, two step sizes: the distance from ηm and ηV shrinks faster than η."""
    V, m = fixed_time(*tensors(Screw()), 2.0)
    off = []
    for eta in (0.04, 0.01):
        e = particles.sgd(Screw().sampled(particles.rademacher()), eta, round(2 / eta), 40_000, seed=6, control=True)
        mean, y = e.mean(), e.final
        check("ours-cloud", measured=mean.mean[0, 2] / eta, predicted=m[2], atol=0.6 * eta + 4 * mean.se[0, 2] / eta)
        off.append(np.abs(y.T @ y / len(y) / eta - V).max())
    assert off[0] < 0.06
    assert off[1] < 0.03


@cache
def bowl(eta, J=0.5, seed=3):
    cubic = particles.Landscape(lambda w, x, p: (w[0] + p[0] * w[0] ** 2 / 2 + x[0],), [0.0],
                                particles.rademacher(), parameters=(J,))  # fmt: skip
    return particles.sgd(cubic, eta, round(12 / eta), 40_000, seed=seed, control=True)


def test_shift_against_a_restoring_force():
    """E θ from the runs, and from E θ² by E L' = 0: both near −η/8."""
    e = bowl(0.02)
    shift, square = e.mean().mean[0, 0] / 0.02, np.mean(e.final**2) / 0.02
    check("tenka-corollary-1", measured=shift, predicted=-0.125, atol=0.006)
    check("tenka-corollary-1", measured=-square / 4, predicted=shift, atol=0.006)


def test_the_bowl_is_never_left():
    """Both steps of size up to 1/2 lead from [−2, 2√2 − 2] into itself; there L is convex, L'' = 1 + θ/2."""
    low, high = -2.0, 2 * 2**0.5 - 2
    theta = np.linspace(low, high, 2001)
    for eta in (0.01, 0.1, 0.5):
        for x in (-1, 1):
            new = theta - eta * (theta + theta**2 / 4 + x)
            assert new.min() >= low - 1e-12
            assert new.max() <= high + 1e-12
    assert (1 + theta / 2).min() >= 0
    assert high < 0.83


def test_shift_has_the_reference_values():
    """Two weights: the limit of an exact hierarchy of moments, at two step sizes continued to zero."""
    J = np.zeros((2, 2, 2))
    J[0, 0, 0], J[1, 1, 1] = 0.3, 0.2
    for i, j, k in ((0, 0, 1), (0, 1, 0), (1, 0, 0)):
        J[i, j, k], J[1 - i, 1 - j, 1 - k] = -0.5, 0.7
    C, H = np.array([[1.5, -0.75], [-0.75, 0.421875]]), np.diag([1.0, 2.0])
    coarse, fine = (
        np.array([-0.002799333943, 0.001791614209]) / 0.01,
        np.array([-0.00138572288476, 0.000887762090248]) / 0.005,
    )
    limit = 2 * fine - coarse
    check("tenka-corollary-1", measured=corollaries.displacement(C, H, J, 1e-7) / 1e-7, predicted=limit, atol=2e-4)


def test_gaussian_blur_adds_half_the_trace():
    """Gauss and Hermite's nodes, exact for polynomials."""
    x, w = np.polynomial.hermite_e.hermegauss(8)
    a, b = np.meshgrid(x, x)
    weight, eps = np.outer(w, w) / (2 * np.pi), 1e-3
    p, q = eps**0.5 * 2**0.5 * a, eps**0.5 * (0.6 / 2**0.5 * a + (1 - 0.18) ** 0.5 * b)
    gain = np.sum(weight * (p**2 + p * q + q**2 + p**4 / 4))
    check("tenka-2.7-smoothing", measured=gain / eps, predicted=3.6, atol=0.01)


def test_speed_to_two_orders():
    for screw in (Screw(), Screw(1.5, 0.7, 1.3, 0.4)):
        rest = [speed(screw, eta).mean / one_picture(screw, eta) - 1 for eta in (0.1, 0.05)]
        slope = 2 * rest[1] / 0.05 - rest[0] / 0.1
        check("ours-screw-never-stops", measured=slope, predicted=kappa(screw), atol=0.008)
        limit = 2 * speed(screw, 0.05).mean - speed(screw, 0.1).mean
        check("tenka-archimedes-sixth", measured=limit, predicted=one_picture(screw, 0), rtol=0.01)


def test_sgd_is_faster_than_a_sixth():
    s = speed(Screw(), 0.1)
    assert (s.mean - 1 / 6) > 100 * s.se
    check("tenka-archimedes-agrees", measured=6 * s.mean - 1, above=0.05, below=0.08)


def climbs(screw=None, run=particles.sgd):
    """Heights at steps 500, 1000, 1500 with η = 0.2."""
    e = run(
        (screw or Screw()).sampled(particles.rademacher()), 0.2, 1500, 1500, seed=8, at=(500, 1000, 1500), control=True
    )
    return (e.thetas - e.controls)[:, :, 2]


def test_the_climb_does_not_end():
    z = climbs()
    first, second = ensembles.estimate(z[1] - z[0]), ensembles.estimate(z[2] - z[1])
    check(
        "tenka-archimedes-eternal",
        measured=second.mean - first.mean,
        predicted=0,
        sigmas=4,
        se=np.hypot(first.se, second.se),
    )
    check("tenka-figure-3-travels", measured=second.mean / second.se, above=100)
    check("tenka-figure-3-not-pathology", measured=z[2].mean() / (2 * np.pi), above=1)


def test_two_weights_with_autograd():
    import torch

    for seed in range(5):
        a, b, x, y = torch.tensor(np.random.default_rng(seed).normal(size=4))
        w = torch.stack([a, b]).requires_grad_()
        (slope,) = torch.autograd.grad((w[0] * w[1] * x - y) ** 2 / 2, w)
        new, g = (w - 0.3 * slope).detach(), (a * b * x - y) * x
        check(
            "ours-two-weights",
            measured=new[0] ** 2 - new[1] ** 2,
            predicted=(1 - 0.09 * g**2) * (a**2 - b**2),
            atol=1e-12,
        )


def hyperbola(a, b):
    """C/E g², H, J of ½(ab − k)² at a point of ab = k."""
    g = np.array([b, a])
    J = np.zeros((2, 2, 2))
    J[0, 0, 1] = J[0, 1, 0] = J[1, 0, 0] = 2 * b
    J[1, 1, 0] = J[1, 0, 1] = J[0, 1, 1] = 2 * a
    return np.outer(g, g), np.outer(g, g), J


def sliding(a, b):
    v = corollaries.velocity(*hyperbola(a, b), 1e-3, exact=False)
    return 2e6 * (a * v[0] - b * v[1])


def test_two_weights_slide_as_the_corollary_says():
    for a, b in ((2.0, 0.3), (1.0, -1.7)):
        check("tenka-figure-1-left", measured=sliding(a, b), predicted=-(a**2 - b**2), rtol=1e-6)
        check("ours-two-weights", measured=sliding(a, b), predicted=-(a**2 - b**2), rtol=1e-6)


@cache
def two_slogans(first=2.0, second=-1.0, seed=9, eta=0.02):
    """Mean height in the valley ½(e^{first z} p² + 4 e^{second z} q²) at η²T = 0.8, over η²T/4, by normal noise."""
    p, q, z = np.zeros((3, 3000))
    rng = np.random.default_rng(seed)
    for _ in range(round(0.8 / eta**2)):
        x, y = rng.normal(size=(2, 3000))
        A, B = np.exp(first * z), 4 * np.exp(second * z)
        p, q, z = p - eta * (A * p + x), q - eta * (B * q + y), z - eta / 2 * (first * A * p**2 + second * B * q**2)
    return z.mean() / 0.2


def disagreement():
    J = np.zeros((3, 3, 3))
    for i, slope in ((0, 2.0), (1, -4.0)):
        J[i, i, 2] = J[i, 2, i] = J[2, i, i] = slope
    return np.diag([1.0, 1.0, 0.0]), np.diag([1.0, 4.0, 0.0]), J


def test_sgd_sinks_where_the_noise_weighted_curvature_says_up():
    check("tenka-2.7-flat", measured=two_slogans(), predicted=-1, atol=0.2)


def test_speed_is_not_minus_c_grad_h():
    C, H, J = disagreement()
    check("tenka-2.7-lhopital", measured=lyapunov_speed(C, H, J), predicted=-0.25, atol=1e-12)
    check("tenka-conclusion-smoothed", measured=corollaries.velocity(C, H, J, 0.1, exact=False)[2] / 0.01,
          predicted=lyapunov_speed(C, H, J), atol=1e-3)  # fmt: skip
    assert -np.sum(C * J[:, :, 2]) / 2 == 1.0


def test_even_noise_descends_log_det():
    """Random curvature across two axes of a valley, constant even noise."""
    rng = np.random.default_rng(4)
    B, D = rng.normal(size=(2, 2, 2))
    H2, slope = B @ B.T + np.eye(2), D + D.T
    H, J, C = np.zeros((3, 3)), np.zeros((3, 3, 3)), np.diag([1.0, 1.0, 0.0])
    H[:2, :2] = H2
    J[:2, :2, 2] = slope
    J[:2, 2, :2] = slope
    J[2, :2, :2] = slope
    log_det = (np.linalg.slogdet(H2 + 1e-5 * slope)[1] - np.linalg.slogdet(H2 - 1e-5 * slope)[1]) / 2e-5
    assert corollaries.velocity(C, H, J, 0.1, exact=False)[2] / 0.01 == pytest.approx(-log_det / 4, rel=1e-7)


def ring(screw=None):
    return [lyapunov_speed(*tensors(screw or Screw(), h)) for h in (0, 1.5, 3, 4.5)]


def test_push_round_the_ring():
    for claim in ("tenka-archimedes-no-loss", "tenka-2.7-curl", "tenka-conclusion-evolves"):
        check(claim, measured=np.mean(ring()), predicted=1 / 6, atol=1e-6)
    check("tenka-1.1-symmetry", measured=ring(), predicted=[1 / 6] * 4, atol=1e-6)


def test_on_the_axis_a_tilted_loss_does_as_well():
    """Gradient descent on L − ηz/6, from near the floor."""
    eta = 0.1
    still = particles.gd(Screw(tilt=-eta / 6).sampled(particles.atoms([0.0])), eta, 400, 2, N=1, seed=0).final[0]
    assert still[2] == pytest.approx(400 * eta**2 / 6, rel=1e-12)


def test_curvatures_and_noise_are_the_same_at_all_heights():
    for z in (0.0, 1.5, 40.0):
        C, H, _ = tensors(Screw(), z)
        found = Screw().covariance([0.0, 0.0, z])
        assert np.abs(found - C).max() < 1e-12
        measured = [np.trace(found), np.linalg.eigvalsh(H)[-1], np.trace(found @ H)]
        check("tenka-figure-3-bounded", measured=measured, predicted=[1, 2, 1.5], atol=1e-9)


def along(screw, lift=1e-5):
    """Slope of tr(C(0) H(z)) at z = 0, and of tr H(z)."""
    C, (Hp, Hm) = tensors(screw)[0], (tensors(screw, z)[1] for z in (lift, -lift))
    return [np.sum(C * (Hp - Hm)) / (2 * lift), np.trace(Hp - Hm) / (2 * lift)]


def test_a_neighbour_is_flatter_only_from_here():
    check("tenka-archimedes-neighbour", measured=along(Screw()), predicted=[-1, 0], atol=1e-9)


def curl(moving):
    """The component along the floor of the curl of C ∇H, or of ∇ tr(CH) with the moving part of C: by hand.

    On the floor dC has the parts C_uz and C_vz only, with ∂(C_uz, C_vz)/∂(u, v) = A (−s, c) and A = (c, s).
    """
    c, s, j = np.cos(-np.pi / 4), np.sin(-np.pi / 4), 1.0
    dC = {"uz": (-c * s, c * c), "vz": (-s * s, c * s)}  # derivatives by u and v
    dH = {"uz": (0.0, j), "vz": (j, 0.0)}
    twist = sum(2 * (dC[k][0] * dH[k][1] - dC[k][1] * dH[k][0]) for k in dC)
    return twist - moving * twist


def test_curl_of_c_grad_h():
    check("tenka-2.7-total-derivative", measured=[curl(0), curl(1)], predicted=[2, 0], atol=1e-3)


def test_screws_move_unless_they_are_special():
    rng = np.random.default_rng(10)
    some = [Screw(*v) for v in rng.uniform([0.3, 0.3, 0.3, -1.5], [3, 3, 2, 1.5], (100, 4))]
    check("tenka-archimedes-typical", measured=min(abs(lyapunov_speed(*tensors(s))) for s in some), above=1e-9)
    assert lyapunov_speed(*tensors(Screw(a=1.0))) == 0
    assert abs(lyapunov_speed(*tensors(Screw(phi=0.0)))) < 1e-15


OFF = [0.3, 0.4, 0.0]


def noise_at(theta):
    """The variance of x's gradient, from the gradients of the examples ±1."""
    g = Screw().gradients(np.array([theta, theta]), np.array([1.0, -1.0]))
    return np.outer(g[0] - g[1], g[0] - g[1]) / 4


def test_noise_has_no_part_along_the_floor_on_the_floor():
    measured = [noise_at([0.0, 0.0, 1.0])[2, 2], noise_at(OFF)[2, 2]]
    check("tenka-archimedes-footnote-2", measured=measured, predicted=[0, 0.245], atol=1e-12)


def test_noise_is_larger_off_the_floor():
    measured = [np.trace(noise_at([0.0, 0.0, 1.0])), np.trace(noise_at(OFF))]
    check("tenka-1.1-footnote", measured=measured, predicted=[1, 1.245], atol=1e-12)


def without_steps():
    """The speed of the SDE over η² at η = 0.1: a parabola in 1/n through 2, 4 and 8 substeps, continued to 0."""
    found = {n: speed(Screw(), 0.1, particles.sde, seed=20 + n, runs=600, substeps=n) for n in (2, 4, 8)}
    weights = {2: 1 / 3, 4: -2, 8: 8 / 3}
    limit = sum(weights[n] * s.mean for n, s in found.items())
    return limit, np.hypot.reduce([weights[n] * s.se for n, s in found.items()])


def test_finer_steps_sink_as_far_as_the_corollary_says():
    """Per η²T/4 at half the step: what is missing from −1 is of order η."""
    assert two_slogans() > -0.97
    assert two_slogans(eta=0.01) < two_slogans() - 0.01


def test_the_sde_climbs():
    limit, se = without_steps()
    check("ours-screw-sde", measured=limit, predicted=(1 - 0.1 / 24) / 6, sigmas=4, se=se)


def test_a_solver_with_n_substeps_is_sgd_with_finer_steps():
    """Steps η/n with noise √n times as large: the theorem then has 4η/n for 4η, and κη as before."""
    for n in (2, 4):
        s = speed(Screw(), 0.1, particles.sde, runs=600, substeps=n)
        check("ours-screw-sde", measured=s.mean, predicted=(1 - 0.1 / 24) / (6 - 0.4 / n), rtol=2e-3)


def test_critical_slope():
    """Still at η/(6 − 4η) to two orders: what is left is of the order η² of the speed."""
    for share, sign in ((0.9, 1), (1.2, -1)):
        s = speed(Screw(tilt=share * 0.1 / 6), 0.1)
        claim = {"above": 0} if sign > 0 else {"below": 0}
        check("tenka-1.1-ascent" if sign > 0 else "ours-screw-tilt", measured=s.mean, sigmas=4, se=s.se, **claim)
    for eta in (0.1, 0.05):
        assert abs(speed(Screw(tilt=eta / (6 - 4 * eta)), eta).mean) < 0.05 * eta**2
    assert speed(Screw(tilt=0.1 / 6), 0.1).mean == pytest.approx(0.012, abs=5e-4)


def full_batches(T):
    """Mean height of descent on two examples, over the four training sets, in the turning axes."""
    return turning(Screw(), np.tile(patterns(2).mean(0), (T, 1)), 0.1)


def test_full_batches_climb_half_as_far_and_stop():
    check("ours-screw-full-batch", measured=full_batches(2).mean(), predicted=0.1**3 / 4, atol=1e-15)
    np.testing.assert_allclose(full_batches(600), full_batches(500), atol=1e-9)
    assert full_batches(500).max() > 0.001


def test_the_picture_is_the_first_that_moves_the_mean():
    """At a start with G = 0 the weights' pictures with up to three arrows are this one alone."""
    found = diagrams.resummed_weights(Screw().problem(), 0.1, T=50)[:, 2]
    assert np.abs(found[:3]).max() < 1e-15
    assert found[3] == pytest.approx(50 * Screw().velocity(0.1, 50), rel=1e-9)


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


UP = Screw(phi=np.pi / 4)
CONTROLS = {  # each with the loosest tolerance that the chapter and the tests allow its claim
    "ours-screw-two-steps": ({"atol": 1e-15}, lambda: pair(turning(UP, patterns(2), 0.1), np.full(4, two_steps()[0]))),
    # every pair of steps alike, nothing forgotten
    "ours-screw-sum": ({"rtol": 1e-5}, lambda: pair(dates(Screw(), 1e-3, 3) / 1e-9, 3 / 2)),
    # both counted per run
    "tenka-2.7-amplifying": ({"rtol": 1e-3}, lambda: pair(
        lyapunov_speed(*tensors(Screw())) * 1e-4 / turning(Screw(), patterns(2), 1e-4).mean() * 1e-8, 2 / 3)),
    # C in place of the cloud
    "ours-cloud": ({"atol": 0.06}, lambda: pair(
        -np.sum(tensors(Screw())[0] * tensors(Screw())[2][:, :, 2]) / 2, lyapunov_speed(*tensors(Screw())))),
    # the printed power of η
    "tenka-corollary-1": ({"atol": 0.006}, lambda: pair(bowl(0.02).mean().mean[0, 0] / 0.02, -0.125 * 0.02)),
    # without the half
    "tenka-2.7-smoothing": ({"atol": 0.1}, lambda: pair(3.6, 2 * 3.6)),
    "ours-screw-never-stops": ({"atol": 0.008}, lambda: pair(
        2 * (speed(Screw(), 0.05).mean / one_picture(Screw(), 0.05) - 1) / 0.05
        - (speed(Screw(), 0.1).mean / one_picture(Screw(), 0.1) - 1) / 0.1, -kappa(Screw()))),
    # curvatures not added, but each alone: 1/(2a)
    "tenka-archimedes-sixth": ({"rtol": 0.01}, lambda: pair(speed(Screw(), 0.05).mean, 1 / 8)),
    "tenka-archimedes-agrees": ({}, lambda: {
        "measured": speed(Screw(), 0.1).mean / one_picture(Screw(), 0.1) - 1, "above": 0.05, "below": 0.08}),
    # full batches, which stop: against the same steps
    "tenka-archimedes-eternal": ({"atol": 0.1}, lambda: pair(np.ptp(climbs().mean(1)), 0)),
    "tenka-figure-3-travels": ({}, lambda: {"measured": climbs(UP)[2].mean(), "above": 0}),
    "tenka-figure-3-not-pathology": ({}, lambda: {"measured": climbs(Screw(a=1.0))[2].mean() / 6.28, "above": 1}),
    # η g² in place of η² g²
    "ours-two-weights": ({"rtol": 0.08}, lambda: pair(sliding(2.0, 0.3) * 1e-3, -(4 - 0.09))),
    "tenka-figure-1-left": ({"rtol": 1e-6}, lambda: pair(sliding(2.0, 0.3), 4 - 0.09)),
    # a valley in which both slogans agree
    "tenka-2.7-flat": ({"atol": 0.2}, lambda: pair(two_slogans(-2.0, -1.0), -1)),
    "tenka-2.7-lhopital": ({"atol": 1e-12}, lambda: pair(
        -np.sum(disagreement()[0] * disagreement()[2][:, :, 2]) / 2, -0.25)),
    "tenka-conclusion-smoothed": ({"atol": 1e-3}, lambda: pair(
        -np.sum(disagreement()[0] * disagreement()[2][:, :, 2]) / 2, lyapunov_speed(*disagreement()))),
    # the noise turned to the other side
    "tenka-archimedes-neighbour": ({"atol": 1e-9}, lambda: pair(along(UP), [-1, 0])),
    # the solver's steps left in
    "ours-screw-sde": ({"sigmas": 4}, lambda: pair(
        speed(Screw(), 0.1, particles.sde, runs=600, substeps=2).mean, (1 - 0.1 / 24) / 6)
        | {"se": speed(Screw(), 0.1, particles.sde, runs=600, substeps=2).se}),
    # C does not move
    "tenka-2.7-total-derivative": ({"atol": 1e-3}, lambda: pair([curl(0), curl(0)], [2, 0])),
    # round valleys
    "tenka-archimedes-no-loss": ({"atol": 1e-6}, lambda: pair(np.mean(ring(Screw(a=1.0))), 1 / 6)),
    "tenka-2.7-curl": ({"atol": 1e-6}, lambda: pair(np.mean(ring(Screw(phi=0.0))), 1 / 6)),
    "tenka-conclusion-evolves": ({"atol": 1e-6}, lambda: pair(np.mean(ring(UP)), 1 / 6)),
    "tenka-1.1-symmetry": ({"atol": 1e-6}, lambda: pair(ring(UP), [1 / 6] * 4)),
    "tenka-figure-3-bounded": ({"atol": 1e-5}, lambda: pair([np.trace(Screw().covariance(OFF)), 2], [1, 2])),
    # steeper than the critical slope, and less steep
    "tenka-1.1-ascent": ({}, lambda: {"measured": speed(Screw(tilt=1.2 * 0.1 / 6), 0.1).mean, "above": 0}),
    "ours-screw-tilt": ({}, lambda: {"measured": speed(Screw(tilt=0.9 * 0.1 / 6), 0.1).mean, "below": 0}),
    "ours-screw-full-batch": ({"atol": 1e-15}, lambda: pair(turning(Screw(), patterns(2), 0.1).mean(), 0.1**3 / 4)),
    "tenka-archimedes-typical": ({}, lambda: {
        "measured": abs(lyapunov_speed(*tensors(Screw(phi=0.0)))), "above": 1e-9}),
    "tenka-2.7-sustained": ({"atol": 0.005}, lambda: pair(
        corollaries.velocity(*tensors(UP), 0.1, exact=False)[2] / 0.01, 1 / 6)),
    "tenka-archimedes-footnote-2": ({"atol": 1e-12}, lambda: pair([0, noise_at(OFF)[2, 2]], [0, 0])),
    "tenka-1.1-footnote": ({"atol": 1e-12}, lambda: pair(np.trace(noise_at(OFF)), 1)),
}  # fmt: skip


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    tolerance, wrong = CONTROLS[claim]
    with pytest.raises(CheckFailed):
        check(claim, **tolerance, **wrong())


# Try your own


def own(numbers):
    """The cell of the reader's own screw, run with other numbers."""
    path = runbook.BOOK / "3-diagrams" / "03_archimedes.ipynb"
    (cell,) = [c.source for c in nbformat.read(path, 4).cells if "a_own, b_own" in c.source]
    cell, n = re.subn(r"(?m)^(a_own, .*) = .*$", rf"\1 = {numbers}", cell)
    assert n == 1
    space = {"np": np, "Screw": Screw, "particles": particles}
    exec(cell, space)
    return space


@pytest.mark.parametrize(
    "numbers",
    [
        "3.0, 0.5, -30.0, 0.05",
        "1.0, 2.0, 70.0, 0.1",
        "2.0, 1.0, 45.0, 0.1",
        "1.0, 1.2, -5.0, 0.1",
        # the longest and the widest that the text allows
        "2.84, 0.527, 80.0, 0.0527",
        "0.4, 2.0, 5.0, 0.04",
        "0.3, 1.5, -45.0, 0.03",
        "4.0, 0.6, -52.0, 0.05",
        "0.3, 0.2, -20.0, 0.02",
    ],
)
def test_try_your_own_agrees_to_one_percent(numbers):
    space = own(numbers)
    least, largest = sorted([space["a_own"], space["b_own"]])
    assert space["eta_own"] <= 0.1 * least + 1e-12
    assert space["eta_own"] * largest <= 0.2
    assert abs(space["kappa"] * space["eta_own"]) <= 0.05
    assert space["measured"] == pytest.approx(space["predicted"], rel=0.01)


def test_try_your_own_fails_in_long_valleys():
    space = own("2.0, 0.02, -45.0, 0.1")
    assert space["measured"] > 0 > space["predicted"]


@pytest.mark.parametrize("numbers", ["2.0, 1.0, 0.0, 0.1", "2.0, 2.0, -45.0, 0.1"])
def test_try_your_own_is_zero_along_an_axis_and_in_a_round_valley(numbers):
    space = own(numbers)
    assert abs(space["predicted"]) < 1e-15
    assert abs(space["measured"]) <= 2 * space["error"] + 1e-9


def test_the_bound_on_kappa():
    rng = np.random.default_rng(11)
    for a, b, phi in rng.uniform([0.05, 0.05, -1.6], [4, 4, 1.6], (500, 3)):
        assert abs(kappa(Screw(a, b, 1.0, phi))) < 1 / (2 * min(a, b))


def test_copies_stay_in_the_tube():
    for eta in (0.1, 0.4, 2 / 3):
        x = np.random.default_rng(12).choice([-1.0, 1.0], (300, 200))
        p, q = np.zeros((2, 200))
        for s in x:
            d = -eta * (p * q + s * (q + p) * 2**-0.5)
            p, q = p - eta * (2 * p + s * 2**-0.5), q - eta * (q - s * 2**-0.5)
            p, q = p * np.cos(d) + q * np.sin(d), q * np.cos(d) - p * np.sin(d)
            assert np.hypot(p, q).max() <= 1 + 1e-12


def test_the_valley_of_two_slogans_keeps_its_runs_in_a_box():
    """At τ = 1, against coins that push up or down as far as they can, and against random ones."""
    rng, eta = np.random.default_rng(13), 0.002
    for coins in ((1, 0), (0, 1), (1, 1), None):
        p, q, z = np.zeros((3, 50))
        for _ in range(500):
            x, y = rng.choice([-1.0, 1.0], (2, 50)) if coins is None else -np.reshape(coins, (2, 1))
            A, B = np.exp(2 * z), 4 * np.exp(-z)
            p, q, z = p - eta * (A * p + x), q - eta * (B * q + y), z - eta * (A * p**2 - B * q**2 / 2)
            assert max(np.abs(p).max(), np.abs(q).max()) <= 1
            assert np.abs(z).max() <= 3


def test_two_weights_stay_in_a_disc():
    a, b, s, d, eta = np.random.default_rng(14).normal(size=(5, 10_000))
    g, eta = (a * b * s - d) * s, np.abs(eta)
    gained = (a - eta * g * b) ** 2 + (b - eta * g * a) ** 2 - a**2 - b**2
    assert (gained <= eta * d**2 + eta**2 * g**2 * (a**2 + b**2) + 1e-9).all()


def test_the_spread_that_the_solution_names():
    """Exercise "measure it": the spread of the climb over copies, and its answer."""
    x = np.random.default_rng(0).choice([-1, 1], (2000, 1000))
    climbed = turning(Screw(), x, 0.05) - turning(Screw(), x[:200], 0.05)
    assert climbed.std() == pytest.approx(0.065, abs=0.005)
    assert climbed.mean() == pytest.approx(0.77, abs=0.01)
    assert climbed.mean() / 1800 == pytest.approx(0.05**2 * (1 - 0.05 / 24) / (6 - 4 * 0.05), rel=0.01)


def test_try_your_own_says_that_a_step_is_too_large():
    with pytest.raises(ValueError, match="eta"):
        own("2.0, 1.0, -45.0, 1.0")
