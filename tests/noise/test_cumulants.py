"""Cumulants of the gradient noise against every atom of the law, and what they do to a step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicitreg import FiniteProblem
from implicitreg.noise.cumulants import Cumulants, cumulants, third_cumulant
from implicitreg.noise.sampling import KINDS, draw
from noise import laws

FINITE = [kind for kind in KINDS if kind != "student_t"]
P3 = [1.3, -0.7, 2.1, 0.4, -1.9, 0.55, 3.2]


@st.composite
def cases(draw):
    kind, n = draw(st.sampled_from(FINITE)), draw(st.integers(2, 6))
    b = draw(st.integers(1, {"sgd": 4, "binomial": 2}.get(kind, n)))
    B = draw(st.integers(2, n))
    return kind, n, b, B, draw(st.integers(0, 2**32 - 1))


@given(cases())
def test_cumulants_are_those_of_the_atoms(case):
    kind, n, b, B, seed = case
    a = np.random.default_rng(seed).exponential(size=n) - 0.3
    W, p = laws.law(kind, n, b, B)
    c = cumulants(kind, a, b, B=B)
    np.testing.assert_allclose([c.second, c.third, c.fourth], laws.cumulants(W @ a, p), rtol=1e-9, atol=1e-12)


@given(cases())
def test_third_tensor_is_that_of_the_atoms(case):
    kind, n, b, B, seed = case
    G = np.random.default_rng(seed).exponential(size=(2, n)) - 0.3
    W, p = laws.law(kind, n, b, B)
    v = (W - 1 / n) @ G.T
    np.testing.assert_allclose(
        third_cumulant(kind, G, b, B=B), np.einsum("m,mi,mj,mk->ijk", p, v, v, v), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sgd", (0.82867346938776, -0.04499341906276, -0.28623197747068)),
        ("sgd_without_replacement", (0.55244897959184, -0.01102109184870, -0.70652162703518)),
        ("bernoulli", (0.56877551020408, 0.11253543930912, -0.61657284539405)),
        ("sparse_fisher", (0.99535714285714, 0, 0.46943672303968)),
    ],
)
def test_P3_reference(kind, expected):
    c = cumulants(kind, P3, 3, B=4)
    np.testing.assert_allclose([c.second, c.skewness, c.excess_kurtosis], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", FINITE)
def test_cumulants_are_those_of_draws(kind):
    if kind == "gd":
        return
    rng = np.random.default_rng(5)
    v = draw(kind, 7, 3, B=4, rng=rng, size=200_000) @ P3 - np.mean(P3)
    c = cumulants(kind, P3, 3, B=4)
    samples, expected = np.stack([v**2, v**3, v**4]), [c.second, c.third, c.fourth + 3 * c.second**2]
    se = samples.std(1, ddof=1) / math.sqrt(v.size)
    assert np.abs((samples.mean(1) - expected) / se).max() < 4


def test_students_fourth_moment_is_infinite_and_its_covariance_is_not():
    c = cumulants("student_t", P3, 3)
    assert c.second == pytest.approx(cumulants("gaussian_cov", P3, 3).second, rel=1e-14)
    assert (c.third, c.fourth) == (0, math.inf)
    assert cumulants("student_t", [1.0, 1.0], 3) == Cumulants(0, 0, 0)


def test_a_kind_enters_the_mean_loss_of_a_step_at_third_order():
    """ℓ_i = a_i θ + θ³/3: SGD less Rademacher is −η³ κ₃/3 at every η, although their covariances agree."""
    a, b, n = np.array([2.0, -1.0, 0.5, 0.3]), 2, 4
    losses = [lambda t, a=a: a * t[0] + t[0] ** 3 / 3 for a in a]
    L = FiniteProblem(losses, np.full(n, 1 / n), [0.7])
    kappa3 = third_cumulant("sgd", a[None], b)[0, 0, 0]
    for eta in (0.01, 0.1, 0.5, 1.0):
        means = []
        for kind in ("sgd", "rademacher"):
            W, p = laws.law(kind, n, b)
            theta = 0.7 - eta * (W @ a + W.sum(1) * 0.7**2)
            means.append(sum(chance * L.loss(np.array([t])) for chance, t in zip(p, theta, strict=True)))
        assert means[0] - means[1] == pytest.approx(-(eta**3) * kappa3 / 3, rel=1e-9, abs=1e-14)
        assert abs(means[0] - means[1]) > 1e-9  # were the kind not to matter, this would be 0


def test_the_printed_sign_flips_the_third_cumulant():
    """θ − η g + η G V in place of −η G V: the mean and the covariance agree, the algorithm is another."""
    W, p = laws.law("sgd", 4, 1)
    a = np.array([3.0, 0.0, 0.0, 1.0])
    right, printed = laws.cumulants(W @ a, p), laws.cumulants((2 / 4 - W) @ a, p)
    assert right[0] == pytest.approx(printed[0], rel=1e-14)
    assert right[1] == pytest.approx(-printed[1], rel=1e-14)
    assert cumulants("sgd", a, 1).third == pytest.approx(right[1], rel=1e-13)
    assert abs(right[1]) > 0.5


def test_gaussian_gradient_noise_does_not_need_gaussian_weights():
    """Components of V in the kernel of G are free: V = (z + r, z − r), r = ±1, seen by G = (1, 1) and by (1, 0)."""
    z, p = laws.product(laws.HERMITE, 1)
    V = np.concatenate([np.hstack([z + r, z - r]) for r in (1, -1)])
    p = np.tile(p, 2) / 2
    np.testing.assert_allclose(laws.cumulants(V @ [1, 1], p), [4, 0, 0], atol=1e-12)
    assert laws.cumulants(V @ [1, 0], p)[2] == pytest.approx(-2, rel=1e-12)


def test_no_noise_has_no_shape():
    c = cumulants("gd", P3, 3)
    assert (c.second, c.third, c.fourth) == (0, 0, 0)
    assert math.isnan(c.skewness)
    assert math.isnan(c.excess_kurtosis)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cumulants("sgd", [], 1), r"values has shape \(0,\)"),
        (lambda: cumulants("sgd", [1.0, math.nan], 1), r"values\[1\] = nan"),
        (lambda: cumulants("bernoulli", [1.0, 2.0], 3), "b = 3"),
        (lambda: cumulants("sparse_fisher", [1.0, 2.0], 1), "B = None"),
        (lambda: third_cumulant("sgd", [1.0, 2.0], 1), r"G has shape \(2,\)"),
        (lambda: third_cumulant("x", [[1.0, 2.0]], 1), "kind = 'x'"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_shapes_have_no_units(scale):
    a = np.array([1.0, 2, 4, 7, -3])
    at, scaled = cumulants("sgd", a, 2), cumulants("sgd", scale * a, 2)
    assert scaled.excess_kurtosis == pytest.approx(at.excess_kurtosis, rel=1e-12)
    assert scaled.skewness == pytest.approx(at.skewness, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-80, 1e80])
def test_values_whose_fourth_powers_are_no_floats_are_refused(scale):
    with pytest.raises(ValueError, match=r"values are of size"):
        cumulants("sgd", scale * np.array([1.0, 2, 4]), 2)
