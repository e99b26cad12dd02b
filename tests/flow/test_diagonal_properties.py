"""Diagonal networks on random data, with ties, copies, zero columns, dependent rows, one example."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from implicitreg.flow import diagonal
from scipy.integrate import solve_ivp
from scipy.optimize import linprog
from strategies import designs, fractions, spread, vectors

FEW = settings(max_examples=settings().max_examples // 4)
ALPHAS = st.sampled_from([1 / 64, 1 / 4, 1.0, 4.0])
DEPTHS = st.sampled_from([2, 3, 4])


@st.composite
def problems(draw, signed=None):
    """(X, y, signed) with y = Xw; w > 0 without the second branch."""
    X, signed = draw(designs()), draw(st.booleans()) if signed is None else signed
    w = draw(vectors(X.shape[1]))
    return X, X @ (w if signed else np.abs(w) + 1 / 4), signed


def in_rows(X, v):
    """How far v is from a combination of the rows."""
    return np.abs(v - np.linalg.pinv(X, rcond=1e-9) @ (X @ v)).max()


@given(problems(), ALPHAS, DEPTHS)
def test_limit_fits_and_has_its_gradient_in_the_row_space(problem, alpha, depth):
    """The conditions of the convex problem, which suffice."""
    X, y, signed = problem
    found = diagonal.limit(X, y, alpha, depth=depth, signed=signed)
    np.testing.assert_allclose(X @ found.w, y, rtol=0, atol=1e-9 * (1 + np.abs(found.w).max()))
    z = X.T @ found.dual
    if depth == 2:
        expected = alpha**2 * (2 * np.sinh(z) if signed else np.exp(z))
    else:
        p = depth / (depth - 2)
        expected = alpha**depth * ((1 - z / p) ** -p - signed * (1 + z / p) ** -p)
    np.testing.assert_allclose(found.w, expected, rtol=1e-7, atol=1e-9)
    if signed or (found.w > 1e-9).all():
        gradient = diagonal.potential_gradient(found.w, alpha, depth=depth, signed=signed)
        np.testing.assert_allclose(gradient, z, rtol=1e-6, atol=1e-6 * (1 + np.abs(z).max()))


@given(problems(), ALPHAS, DEPTHS, st.data())
def test_limit_has_the_least_potential_among_the_solutions(problem, alpha, depth, data):
    X, y, signed = problem
    w = diagonal.limit(X, y, alpha, depth=depth, signed=signed).w
    w = w if signed else w.clip(0)
    along = data.draw(vectors(len(w)))
    other = w + along - np.linalg.pinv(X, rcond=1e-9) @ (X @ along)
    assume(signed or (other >= 0).all())
    value, least = (diagonal.potential(v, alpha, depth=depth, signed=signed) for v in (other, w))
    assert value >= least - 1e-8 * (1 + abs(value))


@given(problems(signed=True), ALPHAS)
def test_untied_limit_from_one_empty_layer_is_the_signed_one(problem, alpha):
    X, y, _ = problem
    untied = diagonal.untied_limit(X, y, np.full(X.shape[1], 2 * alpha), np.zeros(X.shape[1]))
    signed = diagonal.limit(X, y, alpha).w
    np.testing.assert_allclose(untied.w, signed, rtol=0, atol=1e-8 * (1 + np.abs(signed).max()))


@given(problems(signed=True), st.data())
def test_untied_limit_fits_with_its_formula(problem, data):
    X, y, _ = problem
    u0, v0 = data.draw(vectors(X.shape[1])), data.draw(vectors(X.shape[1]))
    assume((np.abs(u0) != np.abs(v0)).all())  # a balanced coordinate cannot change its sign
    found = diagonal.untied_limit(X, y, u0, v0)
    z = X.T @ found.dual
    expected = (u0 + v0) ** 2 / 4 * np.exp(z) - (u0 - v0) ** 2 / 4 * np.exp(-z)
    np.testing.assert_allclose(found.w, expected, rtol=1e-8, atol=1e-9 * (1 + np.abs(found.w).max()))
    np.testing.assert_allclose(X @ found.w, y, rtol=0, atol=1e-8 * (1 + np.abs(found.w).max()))


NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)


@given(st.integers(1, 3).flatmap(vectors), ALPHAS, DEPTHS, st.booleans())
def test_the_potential_is_the_integral_of_its_gradient(w, alpha, depth, signed):
    """From the start, 0 or alpha^L, in a variable in which nothing is steep: asinh(w / alpha^L), or log w."""
    w = w if signed else np.abs(w) + 1 / 4
    scale = alpha**depth
    a, b = (0.0, np.arcsinh(w / scale)) if signed else (np.log(scale), np.log(w))
    s = (a + b)[:, None] / 2 + (b - a)[:, None] / 2 * NODES
    at, slope = (scale * np.sinh(s), scale * np.cosh(s)) if signed else (np.exp(s), np.exp(s))
    gradient = diagonal.potential_gradient(at.ravel(), alpha, depth=depth, signed=signed).reshape(at.shape)
    area = np.sum((b - a) / 2 * np.sum(gradient * slope * WEIGHTS, axis=1))
    found = diagonal.potential(w, alpha, depth=depth, signed=signed)
    assert found == pytest.approx(area, rel=1e-8, abs=1e-10 * scale)


@FEW
@given(problems(), st.sampled_from([1 / 4, 1.0]), DEPTHS, st.sampled_from([1 / 16, 1 / 2]))
def test_trajectory_is_the_flow_of_the_factors(problem, alpha, depth, t):
    X, y, signed = problem
    d = X.shape[1]

    def slope(_, uv):
        u, v = uv[:d], uv[d:]
        g = X.T @ (y - X @ (u**depth - signed * v**depth))
        return depth * np.r_[u ** (depth - 1) * g, -signed * v ** (depth - 1) * g]

    run = solve_ivp(slope, (0, t), np.full(2 * d, alpha), "DOP853", rtol=1e-11, atol=1e-13)
    expected = run.y[:d, -1] ** depth - signed * run.y[d:, -1] ** depth
    path = diagonal.trajectory(X, y, [t, 0.0], alpha, depth=depth, signed=signed)
    np.testing.assert_allclose(path[0], expected, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(path[1], 0 if signed else alpha**depth, rtol=1e-12)


@FEW
@given(problems(), ALPHAS, st.sampled_from([1 / 16, 1.0, 16.0]))
def test_on_the_way_the_gradient_of_the_potential_is_in_the_row_space(problem, alpha, t):
    X, y, signed = problem
    w = diagonal.trajectory(X, y, [t], alpha, signed=signed)[0]
    z = diagonal.potential_gradient(w, alpha, signed=signed)
    assert in_rows(X, z) < 1e-7 * (1 + np.abs(z).max()) * spread(X)


@given(problems())
def test_basis_pursuit_has_its_certificate(problem):
    """The dual: the largest nu·y with |x_j·nu| <= 1, from above only without the second branch."""
    X, y, signed = problem
    w = diagonal.basis_pursuit(X, y, nonnegative=not signed)
    np.testing.assert_allclose(X @ w, y, rtol=0, atol=1e-8)
    assert signed or (w >= 0).all()
    A = np.vstack([X.T, -X.T]) if signed else X.T
    dual = linprog(-y, A_ub=A, b_ub=np.ones(len(A)), bounds=(None, None))
    assert dual.status in (0, 3)
    assert np.abs(w).sum() == pytest.approx(-dual.fun, abs=1e-7)


@given(designs(), st.data())
def test_recovery_exponent_is_its_linear_program_and_does_not_see_other_equations(X, data):
    w = data.draw(vectors(X.shape[1], top=2))
    S = w != 0
    assume(S.any())
    n, off = len(X), X[:, ~S]
    constraints = np.vstack([np.c_[off.T, -np.ones(off.shape[1])], np.c_[-off.T, -np.ones(off.shape[1])]])
    found = linprog(np.r_[np.zeros(n), 1], constraints, np.zeros(len(constraints)), np.c_[X[:, S].T, np.zeros(S.sum())],
                    np.sign(w[S]), bounds=[(None, None)] * n + [(0, None)])  # fmt: skip
    if found.status == 2:
        with pytest.raises(ValueError, match="no"):
            diagonal.recovery_exponent(X, w)
        return
    mix = np.eye(n) + np.triu(np.ones((n, n)), 1) / 2
    assert diagonal.recovery_exponent(X, w) == pytest.approx(1 - found.fun, abs=1e-7)
    assert diagonal.recovery_exponent(mix @ X, 4 * w) == pytest.approx(1 - found.fun, abs=1e-7)


STEPS = st.tuples(st.sampled_from([1 / 64, 1 / 32]), st.integers(0, 5), st.sampled_from([1 / 4, 1.0]))


@given(problems(), STEPS)
def test_descent_is_the_loop_and_shrinks_the_product_of_the_factors(problem, steps):
    X, y, signed = problem
    eta, k, alpha = steps
    u, product = np.full(X.shape[1], alpha), np.full(X.shape[1], alpha**2)
    v = u * signed
    for _ in range(k):
        g = X.T @ (y - X @ (u * u - v * v))
        u, v, product = u + 2 * eta * u * g, v - 2 * eta * v * g, product * (1 - 4 * eta**2 * g**2)
    found = diagonal.gradient_descent(X, y, eta, k, alpha, signed)
    np.testing.assert_allclose([found.u, found.v], [u, v], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.u * found.v, product * signed, rtol=1e-9, atol=1e-12)


@given(problems(), STEPS)
def test_mirror_descent_steps_in_the_gradient_of_the_potential(problem, steps):
    X, y, signed = problem
    eta, k, alpha = steps
    z = np.zeros(X.shape[1])
    for _ in range(k):
        w = alpha**2 * (np.exp(z) - signed * np.exp(-z))
        z = z + 4 * eta * X.T @ (y - X @ w)
    assume(np.abs(z).max() < 30)
    found = diagonal.mirror_descent(X, y, eta, k, alpha, signed)
    np.testing.assert_allclose(found.w, alpha**2 * (np.exp(z) - signed * np.exp(-z)), rtol=1e-8, atol=1e-10)
    if signed:
        np.testing.assert_allclose(found.u * found.v, alpha**2, rtol=1e-12)


@given(problems(), STEPS, st.data())
def test_stochastic_descent_is_the_loop(problem, steps, data):
    X, y, signed = problem
    eta, _, alpha = steps
    order = data.draw(st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=5))
    u = np.full(X.shape[1], alpha)
    v = u * signed
    for i in order:
        r = y[i] - X[i] @ (u * u - v * v)
        u, v = u * (1 + 2 * eta * r * X[i]), v * (1 - 2 * eta * r * X[i])
    found = diagonal.stochastic_gradient_descent(X, y, eta, order, alpha, signed)
    np.testing.assert_allclose([found.u, found.v], [u, v], rtol=1e-9, atol=1e-12)


@given(problems(), ALPHAS, fractions(8).filter(lambda c: c > 0))
def test_the_limit_does_not_see_copies_and_follows_scale(problem, alpha, c):
    """Every example twice; all columns times c and the weights over c: alpha over the root of c."""
    X, y, signed = problem
    w = diagonal.limit(X, y, alpha, signed=signed).w
    twice = diagonal.limit(np.vstack([X, X]), np.r_[y, y], alpha, signed=signed).w
    np.testing.assert_allclose(twice, w, rtol=0, atol=1e-8 * (1 + np.abs(w).max()))
    scaled = diagonal.limit(c * X, y, alpha / np.sqrt(c), signed=signed).w
    np.testing.assert_allclose(c * scaled, w, rtol=0, atol=1e-8 * (1 + np.abs(w).max()))


@given(problems(), ALPHAS, DEPTHS, st.data())
def test_limit_from_weights_of_any_shape_has_its_formula(problem, alpha, depth, data):
    """u = v = alpha c: alpha^L c^L and c^(L - 2) in the formula. A constant c is another alpha; alpha may be a log."""
    X, y, signed = problem
    c = np.abs(data.draw(vectors(X.shape[1], top=4))) / 2 + 1 / 2
    found = diagonal.limit(X, y, alpha, depth=depth, signed=signed, shape=c)
    size = 1 + np.abs(found.w).max()
    np.testing.assert_allclose(X @ found.w, y, rtol=0, atol=1e-9 * size)
    z = c ** (depth - 2) * (X.T @ found.dual)
    if depth == 2:
        expected = (alpha * c) ** 2 * (2 * np.sinh(z) if signed else np.exp(z))
    else:
        p = depth / (depth - 2)
        expected = (alpha * c) ** depth * ((1 - z / p) ** -p - signed * (1 + z / p) ** -p)
    np.testing.assert_allclose(found.w, expected, rtol=1e-7, atol=1e-9)
    plain = diagonal.limit(X, y, alpha, depth=depth, signed=signed).w
    close = {"rtol": 0, "atol": 1e-8 * (1 + np.abs(plain).max())}
    half = diagonal.limit(X, y, 2 * alpha, depth=depth, signed=signed, shape=np.full(X.shape[1], 0.5)).w
    np.testing.assert_allclose(half, plain, **close)
    logarithm = diagonal.limit(X, y, log_alpha=np.log(alpha), depth=depth, signed=signed).w
    np.testing.assert_allclose(logarithm, plain, **close)


@given(problems(), st.sampled_from([-1e2, -1e4]))
def test_the_norm_of_the_limit_exceeds_the_least_one_by_its_bound(problem, log_alpha):
    """Both minimise: (|w| - |w*|) log 1/alpha² <= sum (|w*| log |w*| - |w*|) + d, in the norm of basis pursuit."""
    X, y, signed = problem
    least = np.abs(diagonal.basis_pursuit(X, y, nonnegative=not signed))
    w, kept = diagonal.limit(X, y, log_alpha=log_alpha, signed=signed).w, least[least > 0]
    slack = (np.sum(kept * np.log(kept) - kept) + len(w)) / (-2 * log_alpha)
    size = 1 + least.sum()
    assert least.sum() - 1e-8 * size <= np.abs(w).sum() <= least.sum() + slack + 1e-8 * size


@given(problems(signed=True), st.sampled_from([64.0, 1024.0]))
def test_from_large_weights_the_signed_limit_is_the_shortest_one(problem, alpha):
    """asinh s - s = O(s³) with s = w / 2 alpha²: off by |w|³/alpha⁴ and the condition number."""
    X, y, _ = problem
    shortest = np.linalg.pinv(X, rcond=1e-9) @ y
    w = diagonal.limit(X, y, alpha).w
    off = len(w) * np.abs(w).max(initial=0) ** 3 / alpha**4
    np.testing.assert_allclose(w, shortest, rtol=0, atol=off + 1e-9 * (1 + np.abs(w).max()))


@FEW
@given(problems(signed=True), st.data())
def test_layers_may_change_places_and_signs_and_columns_too(problem, data):
    X, y, _ = problem
    d = X.shape[1]
    u0, v0 = data.draw(vectors(d)), data.draw(vectors(d))
    assume((np.abs(u0) != np.abs(v0)).all())
    w = diagonal.untied_limit(X, y, u0, v0).w
    close = {"rtol": 0, "atol": 1e-8 * (1 + np.abs(w).max())}
    signs = np.array(data.draw(st.lists(st.sampled_from([1.0, -1.0]), min_size=d, max_size=d)))
    order = list(data.draw(st.permutations(range(d))))
    np.testing.assert_allclose(diagonal.untied_limit(X, y, v0, u0).w, w, **close)
    np.testing.assert_allclose(diagonal.untied_limit(X, y, signs * u0, signs * v0).w, w, **close)
    np.testing.assert_allclose(signs * diagonal.untied_limit(X * signs, y, signs * u0, v0).w, w, **close)
    np.testing.assert_allclose(diagonal.untied_limit(X[:, order], y, u0[order], v0[order]).w, w[order], **close)
