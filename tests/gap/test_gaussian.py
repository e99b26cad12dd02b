"""The Gaussian linear model against a quadrature rule that is exact for it, against the oracle, and in its limits."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from implicitreg import FiniteProblem, exact
from implicitreg.gap.gaussian import GaussianLinear, wishart_moments

C = np.array([[1.0, 0.5], [0.5, 4.25]])
TEACHER, THETA, NOISE = np.array([1.0, -0.5]), np.array([0.25, 0.4]), 0.3
NODES = np.array([-np.sqrt(3), 0.0, np.sqrt(3)])  # Gauss-Hermite for N(0, 1): exact to degree 5
WEIGHTS = np.array([1 / 6, 2 / 3, 1 / 6])


def quadrature(C=C, teacher=TEACHER, noise=NOISE, theta=THETA):
    """A finite law with the Gaussian's moments up to degree 5 in each of the d + 1 standard normal variables."""
    root, d = np.linalg.cholesky(C), len(C)
    losses, weights = [], []
    for index in itertools.product(range(3), repeat=d + 1):
        z = NODES[list(index)]
        x = root @ z[:d]
        y = teacher @ x + noise * z[d]
        losses.append(lambda t, x=x, y=y: (sum(t[i] * x[i] for i in range(d)) - y) ** 2 / 2)
        weights.append(WEIGHTS[list(index)].prod())
    return FiniteProblem(losses, weights, theta)


@pytest.fixture(scope="module")
def law():
    return GaussianLinear(C, TEACHER, NOISE)


@pytest.fixture(scope="module")
def finite():
    return quadrature()


def moments(problem, theta):
    g, p = problem.gradients(theta[None])[0], problem.probabilities
    G = p @ g
    return G, (p * (g - G).T) @ (g - G)


@pytest.mark.parametrize("theta", [THETA, TEACHER, np.array([-2.0, 0.7])], ids=["R7", "teacher", "elsewhere"])
def test_gradient_mean_covariance_and_risk_are_those_of_the_quadrature(law, finite, theta):
    G, Sigma = moments(finite, theta)
    np.testing.assert_allclose(law.G(theta), G, atol=1e-12)
    np.testing.assert_allclose(law.Sigma(theta), Sigma, atol=1e-12)
    assert law.risk(theta) == pytest.approx(finite.loss(theta), rel=1e-13)
    assert law.trace(theta) == pytest.approx(np.trace(Sigma), rel=1e-13)


def test_grad_trace_is_the_derivative_of_the_quadratures_trace(law, finite):
    """tr Sigma is a quadratic in theta, so that a central difference of any length is exact."""
    step = np.eye(2) * 0.5
    difference = [
        np.trace(moments(finite, THETA + e)[1]) - np.trace(moments(finite, THETA - e)[1])
        for e in step
    ]  # fmt: skip
    np.testing.assert_allclose(law.grad_trace(THETA), difference, rtol=1e-12)


@pytest.mark.parametrize("N", [2, 4])
@pytest.mark.parametrize("eta", [0.05, 0.4])
def test_two_step_means_are_exact_at_every_step_size(law, finite, N, eta):
    sgd, gd = (exact.run(finite, eta, N=N, T=2, B=B).theta for B in (N // 2, N))
    np.testing.assert_allclose(law.sgd_mean(THETA, eta, steps=2), sgd, atol=1e-12)
    np.testing.assert_allclose(law.gd_mean(THETA, eta, N=N), gd, atol=1e-12)
    np.testing.assert_allclose(law.drift(THETA, eta, N=N, K=2), gd - sgd, atol=1e-12)
    assert np.abs(law.gd_mean(THETA, eta, N=2 * N) - gd).max() > 1e-4  # N of one batch in place of the set's


def test_the_reference_numbers(law):
    """R7: rational numbers from an independent calculation."""
    close = {"rtol": 1e-12, "atol": 0}
    np.testing.assert_allclose(law.G(THETA), [-3 / 10, 69 / 20], **close)
    np.testing.assert_allclose(law.trace(THETA), 11979 / 400, **close)
    np.testing.assert_allclose(law.grad_trace(THETA), [-3 / 10, 261 / 4], **close)
    np.testing.assert_allclose(law.risk(THETA), 171 / 100, **close)
    np.testing.assert_allclose(law.modified_risk(THETA, 1 / 20, N=2, K=2), 121419 / 64000, **close)
    np.testing.assert_allclose(law.sgd_mean(THETA, 1 / 20, steps=2), [4537 / 16000, 2921 / 32000], **close)
    np.testing.assert_allclose(law.gd_mean(THETA, 1 / 20, N=2), [2267 / 8000, 2113 / 16000], **close)


def chi_square_moments(k, N):
    """E A^j for A = mean of N squares of standard normals (d = 1): products of (N + 2i)/N."""
    out = [Fraction(1)]
    for j in range(k):
        out.append(out[-1] * Fraction(N + 2 * j, N))
    return out


@pytest.mark.parametrize("K", [2, 3, 4])
def test_drift_of_K_batches_is_the_leading_order_of_the_chi_square_moments(K):
    """In one dimension E (1 - eta A)^K follows from the moments of chi-square; the remainder is of third order."""
    law, N, off = GaussianLinear([[1.0]], [0.5], 0.7), 12, []
    etas = [2.0**-k for k in range(5, 10)]
    for eta in etas:
        power = sum(
            Fraction(int(np.prod(range(K - j + 1, K + 1), initial=1)), int(np.prod(range(1, j + 1), initial=1)))
            * (-Fraction(eta)) ** j * m
            for j, m in enumerate(chi_square_moments(K, N))
        )  # fmt: skip
        gd_minus_sgd = float(power - (1 - Fraction(eta)) ** K) * 1.5
        off.append(abs(gd_minus_sgd - law.drift([2.0], eta, N=N, K=K)[0]))
    if K == 2:
        assert max(off) < 1e-15
    else:
        slope = np.polyfit(np.log(etas), np.log(off), 1)[0]
        assert slope == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize(("N", "K"), [(4, 2), (12, 3), (40, 10)])
def test_modified_risk_is_the_risk_plus_a_ridge_centred_at_the_teacher(law, N, K):
    u, M = THETA - TEACHER, law.ridge(0.1, N=N, K=K)
    at_teacher = law.modified_risk(TEACHER, 0.1, N=N, K=K)
    penalty = law.modified_risk(THETA, 0.1, N=N, K=K) - law.risk(THETA) - (at_teacher - law.risk(TEACHER))
    assert penalty == pytest.approx(u @ M @ u / 2, rel=1e-12)
    assert np.linalg.eigvalsh(M)[0] > 0


def test_the_teacher_stays_the_minimizer_of_the_modified_risk(law):
    rng = np.random.default_rng(0)
    lowest = law.modified_risk(TEACHER, 0.3, N=8, K=4)
    assert all(law.modified_risk(TEACHER + rng.normal(size=2), 0.3, N=8, K=4) > lowest for _ in range(100))
    np.testing.assert_array_equal(law.drift(TEACHER, 0.3, N=8, K=4), [0, 0])


@pytest.mark.parametrize(("d", "s2"), [(1, 1.0), (3, 0.5), (20, 2.0)])
def test_pure_noise_labels_and_isotropic_inputs_give_weight_decay(d, s2):
    law = GaussianLinear(s2 * np.eye(d), np.zeros(d), 1.3)
    decay = law.weight_decay(0.1, N=40, K=10)
    np.testing.assert_allclose(law.ridge(0.1, N=40, K=10), decay * np.eye(d), rtol=1e-12, atol=1e-15)
    assert decay == pytest.approx(0.1 * 9 * (d + 1) * s2**2 / 80, rel=1e-13)


@pytest.mark.parametrize(
    ("C", "teacher", "message"),
    [(np.eye(2), [0.0, 1.0], "centred at the teacher"), (np.diag([1.0, 1.1]), [0.0, 0.0], "multiple of the identity")],
    ids=["teacher", "anisotropic"],
)
def test_anything_else_is_no_weight_decay(C, teacher, message):
    law = GaussianLinear(C, teacher, 1.0)
    with pytest.raises(ValueError, match=message):
        law.weight_decay(0.1, N=4, K=2)
    M = law.ridge(0.1, N=4, K=2)
    isotropic = np.allclose(M, M[0, 0] * np.eye(2))
    assert not (isotropic and not np.any(teacher))


def test_one_batch_has_no_drift(law):
    np.testing.assert_array_equal(law.drift(THETA, 0.1, N=5, K=1), [0, 0])
    assert law.modified_risk(THETA, 0.1, N=5, K=1) == law.risk(THETA)


def test_the_law_cannot_be_changed(law):
    with pytest.raises(ValueError, match="read-only"):
        law.C[0, 0] = 2.0


@pytest.mark.parametrize("N", [1, 2, 7])
def test_wishart_moments_in_one_dimension_are_those_of_chi_square(N):
    np.testing.assert_allclose(wishart_moments(1, N, 10), [float(m) for m in chi_square_moments(10, N)], rtol=1e-14)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_wishart_moments_of_one_example_are_those_of_its_length(d):
    """A = x x': A^k = |x|^(2k-2) x x', and |x|² is chi-square with d degrees of freedom."""
    lengths = [1.0, *(np.prod([d + 2 * i for i in range(k)]) / d for k in range(1, 9))]
    np.testing.assert_allclose(wishart_moments(d, 1, 8), lengths, rtol=1e-14)


def test_wishart_moments_see_the_same_eigenvalues_from_both_sides():
    """X'X and XX' have the same nonzero eigenvalues: d N^k m_k(d, N) = N d^k m_k(N, d)."""
    d, N, k = 3, 8, np.arange(1, 9)
    np.testing.assert_allclose(
        d * float(N) ** k * wishart_moments(d, N, 8)[1:], N * float(d) ** k * wishart_moments(N, d, 8)[1:], rtol=1e-13
    )


def test_wishart_moments_by_sampling():
    X = np.random.default_rng(0).normal(size=(20000, 4, 3))
    traces = (np.linalg.svd(X, compute_uv=False)[..., None] ** (2 * np.arange(1, 6)) / 4.0 ** np.arange(1, 6)).sum(
        1
    ) / 3
    off = (traces.mean(0) - wishart_moments(3, 4, 5)[1:]) / (traces.std(0, ddof=1) / np.sqrt(len(X)))
    assert np.abs(off).max() < 4


def test_two_steps_follow_from_the_wishart_moments():
    law, eta = GaussianLinear(2.0 * np.eye(5), np.ones(5), 1.0), 0.1
    factor = np.polynomial.Polynomial([1, -2.0 * eta]) ** 2
    mean = 1 - (factor.coef @ wishart_moments(5, 6, 2))
    np.testing.assert_allclose(law.gd_mean(np.zeros(5), eta, N=6), np.full(5, mean), rtol=1e-13)


good = GaussianLinear(np.eye(2), np.zeros(2), 1.0)
BAD = {
    "C not symmetric": lambda: GaussianLinear([[1.0, 0.0], [0.5, 1.0]], [0, 0], 1.0),
    "C singular": lambda: GaussianLinear(np.zeros((2, 2)), [0, 0], 1.0),
    "C of another size": lambda: GaussianLinear(np.eye(3), [0, 0], 1.0),
    "C empty": lambda: GaussianLinear(np.zeros((0, 0)), [], 1.0),
    "teacher NaN": lambda: GaussianLinear(np.eye(2), [0, np.nan], 1.0),
    "sigma negative": lambda: GaussianLinear(np.eye(2), [0, 0], -1.0),
    "theta of another size": lambda: good.risk([1.0]),
    "theta infinite": lambda: good.trace([1.0, np.inf]),
    "eta zero": lambda: good.drift([1.0, 1.0], 0.0, N=4, K=2),
    "eta negative": lambda: good.gd_mean([1.0, 1.0], -0.1, N=4),
    "eta NaN": lambda: good.ridge(np.nan, N=4, K=2),
    "K no divisor": lambda: good.ridge(0.1, N=4, K=3),
    "K too large": lambda: good.modified_risk([1.0, 1.0], 0.1, N=4, K=8),
    "N zero": lambda: good.weight_decay(0.1, N=0, K=1),
    "order too large": lambda: wishart_moments(2, 2, 13),
    "d zero": lambda: wishart_moments(0, 2, 2),
    "steps negative": lambda: good.sgd_mean([1.0, 1.0], 0.1, steps=-1),
}


@pytest.mark.parametrize("call", BAD.values(), ids=BAD)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()


@pytest.mark.parametrize(
    "call",
    [lambda: GaussianLinear(np.eye(2), ["a", "b"], 1.0), lambda: good.drift([1.0, 1.0], 0.1, N=4.0, K=2),
     lambda: good.sgd_mean([1.0, 1.0], "0.1", steps=2)],
    ids=["text", "N a float", "eta text"],
)  # fmt: skip
def test_what_is_not_numeric_is_a_type_error(call):
    with pytest.raises(TypeError, match="expected"):
        call()
