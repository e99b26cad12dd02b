"""Gaussian inputs with random covariances, teachers and noise: every formula by Gauss-Hermite quadrature."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg.gap import gaussian
from numpy.polynomial.hermite_e import hermegauss
from strategies import orthogonal, spd_matrices, vectors

FEW = settings(max_examples=settings().max_examples // 4)
PLANS = st.sampled_from([(2, 1), (2, 2), (6, 3), (6, 6)])
ETAS = st.sampled_from([1 / 16, 1 / 4])


def normal(dimensions, nodes):
    """Points and weights that integrate polynomials of degree 2 nodes - 1 in each of so many standard normals."""
    x, w = hermegauss(nodes)
    points = np.array(list(product(x, repeat=dimensions)))
    return points, np.prod(list(product(w / w.sum(), repeat=dimensions)), axis=1)


@st.composite
def laws(draw, max_d=2):
    """A law, and a point; the teacher itself and noise 0 among them."""
    d = draw(st.integers(1, max_d))
    law = gaussian.GaussianLinear(
        draw(spd_matrices(d)), draw(vectors(d, top=4)), draw(st.sampled_from([0.0, 0.5, 2.0]))
    )
    return law, draw(st.just(law.theta_star) | vectors(d, top=4))


def gradients(law, theta):
    """Gradients of single examples, their curvatures, their losses, their weights."""
    points, w = normal(law.d + 1, 3)
    x = points[:, :-1] @ np.linalg.cholesky(law.C).T
    r = x @ (theta - law.theta_star) - law.sigma * points[:, -1]
    return r[:, None] * x, np.einsum("ni,nj->nij", x, x), r**2 / 2, w


@given(laws())
def test_moments_are_integrals(case):
    law, theta = case
    g, h, losses, w = gradients(law, theta)
    G = w @ g
    c = g - G
    Sigma = (c * w[:, None]).T @ c
    assert law.risk(theta) == pytest.approx(w @ losses, rel=1e-12, abs=1e-14)
    np.testing.assert_allclose(law.G(theta), G, rtol=0, atol=1e-12)
    np.testing.assert_allclose(law.Sigma(theta), Sigma, rtol=0, atol=1e-11)
    assert law.trace(theta) == pytest.approx(np.trace(Sigma), abs=1e-11)
    slope = 2 * np.einsum("n,nij,nj->i", w, h - np.tensordot(w, h, 1), c)
    np.testing.assert_allclose(law.grad_trace(theta), slope, rtol=0, atol=1e-11)


@given(laws(max_d=3), ETAS, PLANS)
def test_the_ridge_the_drift_and_the_modified_risk_belong_together(case, eta, plan):
    """R + (1/2) uᵀMu up to a constant; the drift is eta K times the slope of the ridge, and that of the penalty."""
    law, theta = case
    N, K = plan
    M, u, kappa = law.ridge(eta, N=N, K=K), theta - law.theta_star, eta * (K - 1) / (4 * N)
    risk = law.risk(theta) + kappa * law.trace(theta)
    assert law.modified_risk(theta, eta, N=N, K=K) == pytest.approx(risk, rel=1e-12, abs=1e-14)
    base = law.modified_risk(law.theta_star, eta, N=N, K=K)
    assert risk - base == pytest.approx(u @ (law.C + M) @ u / 2, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(law.drift(theta, eta, N=N, K=K), eta * K * M @ u, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(M @ u, kappa * law.grad_trace(theta), rtol=1e-10, atol=1e-13)


@given(st.integers(1, 3), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.0, 1.0]), ETAS, PLANS)
def test_weight_decay_is_the_ridge_of_isotropic_inputs(d, s, sigma, eta, plan):
    N, K = plan
    law = gaussian.GaussianLinear(s**2 * np.eye(d), np.zeros(d), sigma)
    np.testing.assert_allclose(
        law.ridge(eta, N=N, K=K), law.weight_decay(eta, N=N, K=K) * np.eye(d), rtol=1e-12, atol=1e-15
    )


@FEW
@given(laws(), ETAS, st.integers(1, 2))
def test_means_of_two_steps_are_integrals(case, eta, N):
    """GD: N examples used twice, without the noise, which has the mean 0 in a linear recursion. SGD: fresh ones."""
    law, theta = case
    points, w = normal(law.d * N, 3)
    x = points.reshape(len(w), N, law.d) @ np.linalg.cholesky(law.C).T
    A = np.einsum("sni,snj->sij", x, x) / N
    step = np.eye(law.d) - eta * A
    u = theta - law.theta_star
    expected = law.theta_star + np.einsum("s,sij,sjk,k->i", w, step, step, u)
    np.testing.assert_allclose(law.gd_mean(theta, eta, N=N), expected, rtol=0, atol=1e-11)
    once = np.tensordot(w, step, 1)
    for k in range(3):
        expected = law.theta_star + np.linalg.matrix_power(once, k) @ u
        np.testing.assert_allclose(law.sgd_mean(theta, eta, steps=k), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("d", "N"), [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)])
def test_wishart_moments_are_integrals(d, N):
    points, w = normal(d * N, 4)
    x = points.reshape(len(w), N, d)
    A = np.einsum("sni,snj->sij", x, x) / N
    power = np.broadcast_to(np.eye(d), A.shape)
    for found in gaussian.wishart_moments(d, N, 3):
        np.testing.assert_allclose(np.tensordot(w, power, 1), found * np.eye(d), rtol=0, atol=1e-10 * found)
        power = power @ A


@given(laws(max_d=3), ETAS, st.sampled_from([2, 4, 6]))
def test_two_batches_drift_by_the_formula_at_every_step(case, eta, N):
    """E A² and C² written with the fourth moment: the difference of the exact means has no further terms."""
    law, theta = case
    C, u = law.C, theta - law.theta_star
    fourth = np.einsum("ij,kl->ijkl", C, C) + np.einsum("ik,jl->ijkl", C, C) + np.einsum("il,jk->ijkl", C, C)
    square = np.einsum("ijjl->il", fourth)  # E |x|² x xᵀ
    expected = eta**2 / N * (square - C @ C) @ u
    np.testing.assert_allclose(law.drift(theta, eta, N=N, K=2), expected, rtol=1e-11, atol=1e-13)
    means = law.gd_mean(theta, eta, N=N) - law.sgd_mean(theta, eta, steps=2)
    np.testing.assert_allclose(means, expected, rtol=0, atol=1e-13 * (1 + np.abs(theta).max()))


@given(laws(max_d=3), ETAS, PLANS, st.data())
def test_a_law_in_other_coordinates_and_units(case, eta, plan, data):
    """A rotation of the inputs turns all vectors. Labels, teacher and weights times c: the losses times c²."""
    law, theta = case
    N, K = plan
    Q, c = data.draw(orthogonal(law.d)), 4.0
    C = Q @ law.C @ Q.T
    turned = gaussian.GaussianLinear((C + C.T) / 2, Q @ law.theta_star, law.sigma)
    scaled = gaussian.GaussianLinear(law.C, c * law.theta_star, c * law.sigma)
    close = {"rtol": 1e-11, "atol": 1e-12}
    for name, options in (("G", {}), ("grad_trace", {}), ("drift", {"eta": eta, "N": N, "K": K}),
                          ("sgd_mean", {"eta": eta, "steps": 3}), ("gd_mean", {"eta": eta, "N": N})):  # fmt: skip
        value = getattr(law, name)(theta, **options)
        np.testing.assert_allclose(getattr(turned, name)(Q @ theta, **options), Q @ value, **close)
        np.testing.assert_allclose(getattr(scaled, name)(c * theta, **options), c * value, **close)
    for name, options in (("risk", {}), ("trace", {}), ("modified_risk", {"eta": eta, "N": N, "K": K})):
        value = getattr(law, name)(theta, **options)
        assert getattr(turned, name)(Q @ theta, **options) == pytest.approx(value, rel=1e-11, abs=1e-12)
        assert getattr(scaled, name)(c * theta, **options) == pytest.approx(c**2 * value, rel=1e-11, abs=1e-12)
    np.testing.assert_allclose(turned.Sigma(Q @ theta), Q @ law.Sigma(theta) @ Q.T, **close)
    np.testing.assert_allclose(turned.ridge(eta, N=N, K=K), Q @ law.ridge(eta, N=N, K=K) @ Q.T, **close)


@given(st.integers(1, 6), st.integers(1, 6))
def test_wishart_moments_know_chi_square_and_the_transpose(d, N):
    """One dimension, one example; and tr (XᵀX)^k = tr (XXᵀ)^k, so that d N^k m_k is symmetric in d and N."""
    k = np.arange(8)
    chi = lambda n: np.cumprod(np.r_[1.0, n + 2 * np.arange(7.0)])  # noqa: E731
    np.testing.assert_allclose(gaussian.wishart_moments(1, N, 7), chi(N) / float(N) ** k, rtol=1e-13)
    np.testing.assert_allclose(gaussian.wishart_moments(d, 1, 7)[1:], (chi(d) / d)[1:], rtol=1e-13)
    m, t = gaussian.wishart_moments(d, N, 7), gaussian.wishart_moments(N, d, 7)
    np.testing.assert_allclose(d * float(N) ** k[1:] * m[1:], N * float(d) ** k[1:] * t[1:], rtol=1e-13)


@given(st.integers(1, 3), st.integers(1, 4), ETAS, st.data())
def test_two_steps_on_isotropic_inputs_are_the_polynomial_of_wishart_moments(d, N, eta, data):
    law, theta = gaussian.GaussianLinear(4 * np.eye(d), np.zeros(d), 0.5), data.draw(vectors(d, top=4))
    _, m1, m2 = gaussian.wishart_moments(d, N, 2)
    expected = (1 - 2 * 4 * eta * m1 + (4 * eta) ** 2 * m2) * theta
    np.testing.assert_allclose(law.gd_mean(theta, eta, N=N), expected, rtol=1e-12, atol=1e-12)
