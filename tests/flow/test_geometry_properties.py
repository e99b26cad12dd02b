"""Tails and geometries on random data, with ties, copies, zero columns, one example."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from implicitreg.flow import diagonal, geometry, minnorm
from scipy.integrate import solve_ivp
from scipy.special import softmax
from strategies import designs, fractions, orthogonal, separable, vectors

FEW = settings(max_examples=settings().max_examples // 4)
NORMS = st.sampled_from([1, 1.5, 2, 3, np.inf])


def dual(p):
    return np.inf if p == 1 else 1 if p == np.inf else p / (p - 1)


def norm(v, p):
    return np.linalg.norm(v, p)


@given(st.integers(1, 5).flatmap(vectors), NORMS)
def test_steepest_step_has_the_length_of_the_gradient_and_turns_no_other_way(g, p):
    """g·v = |g|²_p' = |v|²_p, with entries that are 0 and ties of the largest."""
    v = geometry.steepest_step(g, p)
    size = norm(g, dual(p)) ** 2
    assert g @ v == pytest.approx(size, rel=1e-12)
    assert norm(v, p) ** 2 == pytest.approx(size, rel=1e-12)


@given(separable(), NORMS, st.data())
def test_margin_is_the_distance_in_the_dual_norm(problem, p, data):
    """A step of that length against the steepest direction takes the worst example to the hyperplane."""
    X, y = problem
    w = data.draw(vectors(X.shape[1]).filter(lambda w: w.any()))
    found = geometry.margin(X, y, w, p)
    assert found == pytest.approx(np.min(y * (X @ w)) / norm(w, p), rel=1e-12, abs=1e-14)
    i = np.argmin(y * (X @ w))
    v = geometry.steepest_step(w, dual(p))  # |v| in p' is |w| in p, and w·v = |w|²
    moved = X[i] - y[i] * found * v / norm(w, p)
    assert moved @ w == pytest.approx(0, abs=1e-12 * (1 + norm(w, 2) * norm(X[i], 2)))


@given(separable(), NORMS, st.data())
def test_margin_direction_has_its_certificate(problem, p, data):
    X, y = problem
    found, Z = geometry.margin_direction(X, y, p), y[:, None] * X
    assert np.min(Z @ found.w) == pytest.approx(1, abs=1e-7)
    assert norm(found.w, p) == pytest.approx(1 / found.margin, rel=1e-7)
    assert (found.dual >= 0).all()
    assert found.dual.sum() == pytest.approx(1, abs=1e-9)
    assert norm(Z.T @ found.dual, dual(p)) == pytest.approx(found.margin, rel=1e-6)
    w = data.draw(vectors(X.shape[1]).filter(lambda w: w.any()))
    assert geometry.margin(X, y, w, p) <= found.margin * (1 + 1e-7)


@given(separable(), st.sampled_from([0.5, 1.0, 3.0, 20.0]))
def test_polynomial_direction_is_stationary_on_the_sphere(problem, k):
    """u is a positive multiple of sum (z·u)^(-k-1) z; the problem is convex."""
    X, y = problem
    Z, u = y[:, None] * X, geometry.polynomial_direction(X, y, k)
    q = Z @ u
    pull = Z.T @ (q.min() / q) ** (k + 1)
    assert norm(u, 2) == pytest.approx(1, abs=1e-12)
    assert (q > 0).all()
    np.testing.assert_allclose(pull / norm(pull, 2), u, rtol=0, atol=1e-8)


@given(separable(), st.sampled_from([0.5, 1.0, 3.0]))
def test_polynomial_direction_does_not_see_scale_and_joins_copies(problem, k):
    """c copies of an example are one example that is nearer, by the root c^(1/k)."""
    X, y = problem
    u = geometry.polynomial_direction(X, y, k)
    np.testing.assert_allclose(geometry.polynomial_direction(64 * X, y, k), u, rtol=0, atol=1e-9)
    copies = geometry.polynomial_direction(np.vstack([X, X[:1], X[:1]]), np.r_[y, y[:1], y[:1]], k)
    nearer = geometry.polynomial_direction(np.vstack([X[:1] / 3 ** (1 / k), X[1:]]), y, k)
    np.testing.assert_allclose(copies, nearer, rtol=0, atol=1e-8)


@FEW
@given(separable(max_n=3, max_d=2), st.sampled_from([1.0, 3.0]), st.data())
def test_polynomial_flow_is_the_flow_of_its_loss(problem, k, data):
    X, y = problem
    Z, w0 = y[:, None] * X, data.draw(vectors(X.shape[1], top=3))

    def slope(_, w):
        u = Z @ w
        return k * Z.T @ np.maximum(1 + np.maximum(u, 0), 1) ** (-k - 1)

    run = solve_ivp(slope, (0, np.expm1(2.0)), w0, "LSODA", [np.expm1(1.0), np.expm1(2.0)], rtol=1e-9, atol=1e-10)
    path = geometry.polynomial_flow(X, y, [1.0, 2.0], k, w0)
    np.testing.assert_allclose(path, run.y.T, rtol=1e-6, atol=1e-6)


@given(separable(), NORMS, st.integers(0, 4), st.data())
def test_steepest_descent_is_the_loop(problem, p, k, data):
    """For p = 1 and infinity where rounding decides nothing: no entry of the gradient is near another one, or 0."""
    X, y = problem
    w0 = data.draw(vectors(X.shape[1], top=3))
    Z, w = y[:, None] * X, w0
    etas = [1 / (4 * (j + 1)) for j in range(k)]
    for eta in etas:
        g = Z.T @ softmax(-Z @ w)
        assume(p not in (1, np.inf) or np.diff(np.sort(np.abs(np.r_[g, 0]))).min() > 1e-6)
        w = w + eta * geometry.steepest_step(g, p)
    found = geometry.steepest_descent(X, y, p, etas, k, w0) if k else w0
    np.testing.assert_allclose(found, w, rtol=0, atol=1e-10)


POTENTIALS = {
    "quadratic": (geometry.quadratic(), lambda w: w),
    "hypentropy": (geometry.hypentropy(0.5), lambda w: np.arcsinh(2 * w)),
    "power": (geometry.power(1.5), lambda w: np.sign(w) * np.abs(w) ** 0.5),
    "entropy": (geometry.entropy(), np.log),
    "cosh": (geometry.Potential(np.sinh, np.arcsinh, lambda z: 1 / np.sqrt(1 + z**2)), np.sinh),
}


@st.composite
def regressions(draw):
    """X, y = Xw, a start; positive weights for the entropy."""
    kind, X = draw(st.sampled_from(sorted(POTENTIALS))), draw(designs())
    w, w0 = draw(vectors(X.shape[1])), draw(vectors(X.shape[1]))
    if kind == "entropy":
        w, w0 = np.abs(w) + 1 / 4, np.abs(w0) + 1 / 4
    return kind, X, X @ w, w0


@given(regressions())
def test_mirror_limit_fits_and_has_its_link_in_the_row_space(problem):
    """The conditions of the nearest interpolator in Bregman divergence, which suffice."""
    kind, X, y, w0 = problem
    potential, link = POTENTIALS[kind]
    w = geometry.mirror_limit(X, y, potential, w0)
    np.testing.assert_allclose(X @ w, y, rtol=0, atol=1e-8 * (1 + np.abs(w).max()))
    moved = link(w) - link(w0)
    assert np.abs(moved - np.linalg.pinv(X, rcond=1e-9) @ (X @ moved)).max() < 1e-6 * (1 + np.abs(moved).max())


@given(designs(), st.data())
def test_mirror_limits_that_other_modules_know(X, data):
    y = X @ data.draw(vectors(X.shape[1]))
    w0 = data.draw(vectors(X.shape[1]))
    euclid = geometry.mirror_limit(X, y, geometry.quadratic(), w0)
    np.testing.assert_allclose(euclid, minnorm.limit(X, y, w0), rtol=0, atol=1e-8 * (1 + np.abs(euclid).max()))
    signed = geometry.mirror_limit(X, y, geometry.hypentropy(0.5), np.zeros(X.shape[1]))
    np.testing.assert_allclose(signed, diagonal.limit(X, y, 0.5).w, rtol=0, atol=1e-8 * (1 + np.abs(signed).max()))


@given(regressions(), st.integers(0, 4))
def test_mirror_descent_is_the_loop_in_the_dual_variable(problem, k):
    kind, X, y, w0 = problem
    potential, link = POTENTIALS[kind]
    theta, eta = link(w0), 1 / 256
    for _ in range(k):
        theta = theta + eta * X.T @ (y - X @ potential.inverse_link(theta))
    found = geometry.mirror_descent(X, y, potential, eta, k, w0)
    np.testing.assert_allclose(link(found), theta, rtol=0, atol=1e-9 * (1 + np.abs(theta).max()))


@given(st.sampled_from(sorted(POTENTIALS)), st.lists(fractions(12), min_size=1, max_size=4).map(np.array))
def test_a_potential_inverts_its_link_with_the_derivative_it_states(kind, z):
    potential, link = POTENTIALS[kind]
    w = potential.inverse_link(z)
    np.testing.assert_allclose(link(w), z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(potential.link(w), z, rtol=1e-12, atol=1e-12)
    h, f = 1e-3, potential.inverse_link
    z = z[np.abs(z) > 0] if kind == "power" else z  # its third derivative jumps at 0
    slope = (8 * (f(z + h) - f(z - h)) - f(z + 2 * h) + f(z - 2 * h)) / (12 * h)
    np.testing.assert_allclose(potential.inverse_link_derivative(z), slope, rtol=1e-9, atol=1e-10)


@FEW
@given(separable(), NORMS, st.sampled_from([1.0, 3.0]), st.data())
def test_geometries_keep_the_symmetries_of_their_ball(problem, p, k, data):
    """Signs and order of the coordinates for every norm; rotations for the Euclidean one; units of the inputs."""
    (X, y), d = problem, problem[0].shape[1]
    order = list(data.draw(st.permutations(range(d))))
    signs = np.array(data.draw(st.lists(st.sampled_from([1.0, -1.0]), min_size=d, max_size=d)))
    S, Q = np.diag(signs)[order], data.draw(orthogonal(d))
    found = geometry.margin_direction(X, y, p).margin
    assert geometry.margin_direction(X @ S.T, y, p).margin == pytest.approx(found, rel=1e-6)
    assert geometry.margin_direction(4 * X, y, p).margin == pytest.approx(4 * found, rel=1e-6)
    u = geometry.polynomial_direction(X, y, k)
    np.testing.assert_allclose(geometry.polynomial_direction(X @ Q.T, y, k), Q @ u, rtol=0, atol=1e-8)
    if p == 2:
        assert geometry.margin_direction(X @ Q.T, y, p).margin == pytest.approx(found, rel=1e-6)


def test_a_rotation_changes_the_other_margins():
    """One example (1, 1): the margin is 1 for |w|_1, and root 2 after an eighth of a turn."""
    X, turned = np.array([[1.0, 1.0]]), np.array([[2**0.5, 0.0]])
    assert geometry.margin_direction(X, [1.0], 1).margin == pytest.approx(1, rel=1e-9)
    assert geometry.margin_direction(turned, [1.0], 1).margin == pytest.approx(2**0.5, rel=1e-9)
