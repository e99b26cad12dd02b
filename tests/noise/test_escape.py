"""Escape times against the chain's integral equation, and their exponents against integrals and against particles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicitreg.ensembles import particles
from implicitreg.noise.escape import EscapeTimes, exponent, skewness_correction, times
from scipy.integrate import quad
from scipy.optimize import brentq

A = 0.4
WELL = [0.0, -A, 0.0, A]  # f' of A (x⁴/4 − x²/2)


def exponential_quantiles(n=200):
    """n numbers of mean 0 and variance 1, skewed to the right."""
    z = -np.log(1 - (np.arange(n) + 0.5) / n)
    return (z - z.mean()) / z.std()


def skewed(skewness):
    """Two points of mean 0, variance 1 and the given skewness."""
    p = (1 - skewness / math.sqrt(4 + skewness**2)) / 2
    return particles.atoms([math.sqrt((1 - p) / p), -math.sqrt(p / (1 - p))], [p, 1 - p])


LAWS = {
    "gaussian": particles.gaussian(),
    "right": skewed(1.5),
    "left": skewed(-1.5),
    "signs": particles.rademacher(),
}


# Exponents


def test_P8_reference():
    assert exponent(WELL, particles.gaussian(), -1, 0, 0.05) == pytest.approx(4, abs=1e-10)
    square = quad(lambda x: (A * (x**3 - x)) ** 2, -1, 0)[0]
    assert square == pytest.approx(0.01219047619048, abs=1e-10)
    assert skewness_correction(WELL, skewed(2), -1, 0, 0.05) == pytest.approx(0.65015873015873, abs=1e-10)
    z = exponential_quantiles()
    assert exponent(WELL, particles.atoms(z), -1, 0, 0.05) == pytest.approx(4.718, abs=5e-4)
    assert exponent(WELL, particles.atoms(-z), -1, 0, 0.05) == pytest.approx(3.488, abs=5e-4)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("small", [1e-5, 1e-12, 1e-100, 1e-200])
def test_a_small_slope_has_the_exponent_of_gaussian_noise_with_the_skewness_in_first_order(law, small):
    """4 in units of eta and of the slope; what remains is of the second order in it."""
    slope, eta = small * np.array(WELL), small * 0.05
    first = 4 + skewness_correction(slope, LAWS[law], -1, 0, eta)
    assert exponent(slope, LAWS[law], -1, 0, eta) == pytest.approx(first, rel=5 * small**2 + 1e-13)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 1.0, 3.0]))
def test_exponent_is_the_integral_of_the_tilt(seed, sigma):
    """Two to five atoms; the equation solved by another bracket, the integral by adaptive quadrature."""
    r = np.random.default_rng(seed)
    m = int(r.integers(2, 6))
    z, p = r.standard_normal(m), r.dirichlet(np.full(m, 3.0))
    z -= p @ z
    push = sigma * -z.min()
    slope = [0.0, -0.9 * push, 0.0, 0.9 * push]  # at most 0.35 push

    def tilt(x):
        y = float(np.polynomial.polynomial.polyval(x, slope))
        edge = math.log(1 / p[np.argmin(z)]) / (push - y) + 1  # there Λ(s) exceeds s y
        return brentq(lambda s: p @ np.exp(-s * sigma * z - s * y) - 1, 1e-6 * edge, edge, xtol=1e-13) if y > 0 else 0

    expected = quad(tilt, -0.95, -0.05, epsabs=1e-12)[0] / 0.1
    noise = particles.atoms(z, p)
    assert exponent(slope, noise, -0.95, -0.05, 0.1, sigma=sigma) == pytest.approx(expected, rel=1e-6)


def test_the_skewness_correction_is_the_derivative_in_the_skewness():
    """The exponents of skewness ±γ differ by twice the correction; what is left falls like γ² relatively."""
    left, off = 0.1, []
    for gamma in (0.4, 0.2, 0.1):
        both = [exponent([0, -left, 0, left], skewed(g), -1, 0, 0.05) for g in (gamma, -gamma)]
        correction = skewness_correction([0, -left, 0, left], skewed(gamma), -1, 0, 0.05)
        off.append(abs((both[0] - both[1]) / (2 * correction) - 1))
    assert off[0] > off[2] < 0.01
    assert exponent(WELL, skewed(0.5), -1, 0, 0.05) > 4 > exponent(WELL, skewed(-0.5), -1, 0, 0.05)


def test_either_side_and_every_scale():
    """The mirrored valley with mirrored noise has the same exponent; 3f' with 3σ is the chain with 3η."""
    right = exponent(WELL, LAWS["right"], -1, 0, 0.05)
    assert exponent(WELL, LAWS["left"], 1, 0, 0.05) == pytest.approx(right, rel=1e-12)
    assert exponent(np.multiply(3, WELL), LAWS["right"], -1, 0, 0.05 / 3, sigma=3) == pytest.approx(right, rel=1e-12)
    signs = exponent(WELL, particles.rademacher(), -1, 0, 0.05)
    assert exponent(WELL, particles.rademacher(4), -1, 0, 0.2) == pytest.approx(signs, rel=1e-12)
    assert exponent(WELL, particles.gaussian(3), -1, 0, 0.15, sigma=2) == pytest.approx(1, rel=1e-12)


def test_a_gentle_slope_makes_all_noise_of_one_variance_alike():
    """Ratios to the Gaussian exponent tend to 1 as the slope does to 0; at A = 0.4 they are 1.16, 0.90 and 1.01."""
    for name, steep, power in (("right", 1.163, 1), ("left", 0.903, 1), ("signs", 1.011, 2)):
        ratios = []
        for a in (0.4, 0.04, 0.004):
            slope = [0, -a, 0, a]
            ratios.append(exponent(slope, LAWS[name], -1, 0, 0.05) / exponent(slope, LAWS["gaussian"], -1, 0, 0.05))
        assert ratios[0] == pytest.approx(steep, abs=1e-3)
        assert (ratios[1] - 1) / (ratios[2] - 1) == pytest.approx(10**power, rel=0.05)


def test_noise_too_weak_for_the_slope_never_escapes():
    """Signs push by 1 at most; the slope reaches 2/√27 times A."""
    steep = np.multiply(math.sqrt(27) / 2 / A * 1.05, WELL)
    assert exponent(steep, particles.rademacher(), -1, 0, 0.05) == math.inf
    assert exponent(np.multiply(0.9, steep), particles.rademacher(), -1, 0, 0.05) < math.inf
    assert exponent(steep, particles.gaussian(), -1, 0, 0.05) < math.inf
    t = times(steep, particles.rademacher(), -1.0, 0.5, 0.05, 2000, 50, seed=0)
    assert not t.escaped.any()
    assert t.mean == t.se == math.inf


# Particles


def mean_exit(eta, out, b=1, start=-1.0, nodes=300):
    """The mean exit time for Gaussian noise: τ = 1 + Kτ, the kernel at Gauss-Legendre nodes."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    half = (out + 2.5) / 2
    x, w, sd = half * (x + 1) - 2.5, w * half, eta / math.sqrt(b)

    def kernel(a):
        there = a - eta * A * (a**3 - a)
        return np.exp(-((x - there[:, None]) ** 2) / (2 * sd**2)) / (sd * math.sqrt(2 * math.pi)) * w

    tau = np.linalg.solve(np.eye(nodes) - kernel(x), np.ones(nodes))
    return 1 + (kernel(np.array([start])) @ tau)[0]


@pytest.mark.parametrize(("eta", "b"), [(0.1, 1), (0.3, 4)])
def test_mean_exit_time_is_that_of_the_integral_equation(eta, b):
    t = times(WELL, particles.gaussian(b), -1.0, 0.5, eta, 4000, 4000, seed=2)
    assert abs(t.mean - mean_exit(eta, 0.5, b)) < 4 * t.se
    assert abs(t.mean - mean_exit(1.1 * eta, 0.5, b)) > 4 * t.se


@pytest.mark.parametrize("name", LAWS)
def test_times_grow_with_the_exponent_of_their_own_law(name):
    """From eta = 1/10 to 1/16, log(eta τ) grows by the exponent's difference, skewed noise's not by the Gaussian's."""
    fast, slow = (times(WELL, LAWS[name], -1.0, 0.5, eta, 20_000, 3000, seed=4) for eta in (1 / 10, 1 / 16))
    grown = math.log(slow.mean / 16) - math.log(fast.mean / 10)
    se = math.hypot(slow.se / slow.mean, fast.se / fast.mean)
    own, gaussian = (
        exponent(WELL, noise, -1, 0, 1 / 16) - exponent(WELL, noise, -1, 0, 1 / 10)
        for noise in (LAWS[name], LAWS["gaussian"])
    )
    assert abs(grown - own) < 4 * se
    if name in ("right", "left"):
        assert abs(grown - gaussian) > 4 * se


def test_steps_are_counted_until_the_exit():
    """A slope of −1 without noise to speak of: from 0 to 1 in steps of 1/4 is four steps."""
    t = times([-1.0], particles.gaussian(), 0.0, 0.99, 0.25, 10, 20, seed=0, sigma=1e-9)
    assert (t.steps == 4).all()
    assert t.escaped.all()
    left = times([1.0], particles.gaussian(), 0.0, -0.99, 0.25, 3, 20, seed=0, sigma=1e-9)
    assert (left.steps == 3).all()
    assert not left.escaped.any()


def test_censored_mean_of_an_exponential_law():
    tau = np.random.default_rng(0).geometric(1 / 500, 20_000)
    t = EscapeTimes(np.minimum(tau, 300), tau <= 300)
    assert abs(t.mean - 500) < 4 * t.se
    assert abs(np.minimum(tau, 300).mean() - 500) > 100  # the plain mean of what was seen


BAD = {
    "downhill": (lambda: exponent(WELL, LAWS["signs"], -1, 0.5, 0.1), "f does not rise at "),
    "mean": (lambda: exponent(WELL, particles.atoms([1.0, 2.0]), -1, 0, 0.1), "noise has the mean 1.5: expected 0"),
    "columns": (lambda: exponent(WELL, particles.atoms(np.eye(2)), -1, 0, 0.1), "noise has atoms with 2 columns"),
    "eta": (lambda: exponent(WELL, LAWS["signs"], -1, 0, 0.0), "eta = 0.0: expected a finite number > 0"),
    "sigma": (lambda: exponent(WELL, LAWS["signs"], -1, 0, 0.1, sigma=0), "sigma = 0"),
    "slope": (lambda: skewness_correction([], LAWS["signs"], -1, 0, 0.1), r"slope has shape \(0,\)"),
    "out": (
        lambda: times(WELL, LAWS["signs"], 1.0, 1.0, 0.1, 5, 5, seed=0),
        "out = 1.0: expected a point off the start",
    ),
    "runs": (lambda: times(WELL, LAWS["signs"], -1.0, 1.0, 0.1, 5, 0, seed=0), "runs = 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        call()


def test_noise_is_a_law_of_particles():
    with pytest.raises(TypeError, match=r"noise = 'gaussian': expected gaussian\(b\)"):
        exponent(WELL, "gaussian", -1, 0, 0.1)


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.7, 1.1])
def test_a_slope_as_strong_as_the_strongest_push_is_never_climbed(sigma):
    """f' = 3 sigma and pushes of at most 3 sigma, products that round differently."""
    z = particles.atoms([-3.0, 1.0], [0.25, 0.75])
    assert exponent([3 * sigma], z, 0.0, 1.0, 1.0, sigma=sigma) == np.inf
    assert exponent([0.1 * 3 * sigma / 0.1], z, 0.0, 1.0, 1.0, sigma=sigma) == np.inf
    assert np.isfinite(exponent([3 * sigma * (1 - 1e-9)], z, 0.0, 1.0, 1.0, sigma=sigma))
