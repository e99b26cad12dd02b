"""Diagonal networks: limits, potentials, trajectories, finite steps, against independent solvers and printed digits."""

from itertools import pairwise

import numpy as np
import pytest
from implicitreg.flow import diagonal, minnorm
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq, linprog, minimize

X = np.array([[1, 0.5, 2], [0.3, 1, -1]])
y = np.array([1.4, 0.3])
X5 = np.array([[1, 0.2, -0.5, 0.3, 0.7], [0.1, 1, 0.4, -0.6, 0.2], [-0.3, 0.5, 1, 0.2, -0.4]])
W5 = np.array([1.5, 0, -1, 0, 0])
MODELS = [(2, True), (2, False), (3, True), (3, False), (5, True), (5, False)]
model = pytest.mark.parametrize(
    ("depth", "signed"),
    MODELS,
    ids=lambda v: {True: "signed", False: "plain"}.get(v, v) if isinstance(v, bool) else f"L{v}",
)


def random_problem(seed, n=4, d=9, nonnegative=True):
    """Gaussian X and a y that some w >= 0 fits."""
    g = np.random.default_rng(seed)
    X = g.normal(size=(n, d))
    return X, X @ (g.exponential(size=d) if nonnegative else g.normal(size=d))


def raw_flow(X, y, t, u0, v0, depth=2, signed=True, rtol=1e-12):
    """(u, v) at the times t, from the flow of the factors themselves."""
    d = X.shape[1]

    def slope(_, q):
        u, v = q[:d], q[d:]
        g = X.T @ (y - X @ (u**depth - signed * v**depth))
        return np.r_[depth * u ** (depth - 1) * g, -signed * depth * v ** (depth - 1) * g]

    answer = solve_ivp(slope, (0, max(t)), np.r_[u0, v0], "DOP853", t_eval=t, rtol=rtol, atol=1e-15)
    return answer.y[:d].T, answer.y[d:].T


def reference_gradient(value, alpha, depth, signed):
    """The derivative of Q at one weight: the inverse of the activation, by bisection."""
    p = depth / (depth - 2) if depth > 2 else None

    def branch(theta):
        return alpha**2 * np.exp(theta) if depth == 2 else alpha**depth * (1 - theta / p) ** -p

    high = 60.0 if depth == 2 else p * (1 - 1e-12)
    if signed:
        size = brentq(lambda theta: branch(theta) - branch(-theta) - abs(value), 0, high, xtol=1e-15, rtol=1e-14)
        return np.copysign(size, value)
    return brentq(lambda theta: branch(theta) - value, -60.0 if depth == 2 else -1e4, high, xtol=1e-15, rtol=1e-14)


def reference_potential(w, alpha, depth, signed):
    """Q as the integral of its derivative."""

    def primitive(value):
        start = 0.0 if signed else alpha**depth
        knots = start + (value - start) * np.r_[0, np.geomspace(1e-10, 1, 11)]  # the integrand is steep at the start
        inverse = lambda v: reference_gradient(v, alpha, depth, signed)  # noqa: E731
        return sum(quad(inverse, *pair, epsabs=1e-13, epsrel=1e-13)[0] for pair in pairwise(knots))

    return sum(primitive(value) for value in w)


# ---------------------------------------------------------------- printed digits


@pytest.mark.parametrize(
    ("X", "y", "alpha", "signed", "w", "dual"),
    [
        (X, y, 0.1, False, [0.425922024477477, 0.527409904334415, 0.355186511677658],
         [3.01418036152832, 2.45830277953416]),
        (X, y, 0.01, True, [0.399676191618297, 0.544207237364290, 0.364110094849779],
         [6.72078268032622, 5.24152391194611]),
        ([[1, 2]], [2], 0.1, False, [0.0975312451187128, 0.951234377440644], [2.27758769642856]),
        ([[1, 2]], [2], 10, False, [1.92582403567252, 0.0370879821637399], [-3.94981623936514]),
    ],
    ids=["plain", "signed", "toy-small-alpha", "toy-large-alpha"],
)  # fmt: skip
def test_limit_and_dual_have_the_reference_digits(X, y, alpha, signed, w, dual):
    answer = diagonal.limit(X, y, alpha, signed=signed)
    np.testing.assert_allclose(answer.w, w, rtol=0, atol=2e-14)
    np.testing.assert_allclose(answer.dual, dual, rtol=0, atol=2e-13)


def test_limit_of_the_cube_has_the_reference_digits():
    w = diagonal.limit(X, y, 0.1, depth=3, signed=False).w
    np.testing.assert_allclose(w, [0.339330536191651, 0.582828456837343, 0.384627617694839], rtol=0, atol=2e-14)


@pytest.mark.parametrize(("depth", "printed"), [(2, "0.400"), (3, "0.0327"), (4, "2.5e-05")])
def test_weight_off_the_support_vanishes_like_a_power_of_alpha_only_from_depth_three(depth, printed):
    w = diagonal.limit(X, y, 0.01, depth=depth).w
    assert f"{w[0]:.{len(printed) - 2 if depth < 4 else 2}{'f' if depth < 4 else 'g'}}" == printed


def test_off_support_weight_at_depth_four_follows_alpha_to_the_depth():
    nu = np.linalg.solve(X[:, 1:].T, [1.0, 1.0])  # X_S' nu = sgn w_S determines nu
    w = diagonal.limit(X, y, 1e-4, depth=4, signed=False).w
    np.testing.assert_allclose(
        w[0], 1e-16 * (1 - X[:, 0] @ nu) ** -2, rtol=1e-2
    )  # (L/(L-2) = 2), relative error O(alpha^2/slack)


# ---------------------------------------------------------------- the bias, by independent solvers


@model
@pytest.mark.parametrize("alpha", [0.05, 0.5, 3.0])
def test_limit_minimises_the_potential_among_interpolators(depth, signed, alpha):
    """Q is convex and the interpolators are a line: no slope along it, with the gradient of Q found by bisection."""
    kernel = np.linalg.svd(X)[2][2]
    w = diagonal.limit(X, y, alpha, depth=depth, signed=signed).w
    np.testing.assert_allclose(X @ w, y, atol=1e-13)
    gradient = np.array([reference_gradient(v, alpha, depth, signed) for v in w])
    assert abs(kernel @ gradient) < 1e-10 * np.abs(gradient).max()
    other = w + 1e-4 * w.min() * kernel  # still an interpolator, and seen
    gradient = np.array([reference_gradient(v, alpha, depth, signed) for v in other])
    assert abs(kernel @ gradient) > 1e-8 * np.abs(gradient).max()


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "plain"])
def test_limit_agrees_with_a_general_convex_solver(signed):
    A, b = random_problem(1)
    alpha = 0.3
    if signed:
        Q = lambda w: (w * np.arcsinh(w / 2 / alpha**2) - np.sqrt(w**2 + 4 * alpha**4)).sum()  # noqa: E731
        dQ = lambda w: np.arcsinh(w / 2 / alpha**2)  # noqa: E731
    else:
        Q = lambda w: (w * np.log(w / alpha**2) - w).sum()  # noqa: E731
        dQ = lambda w: np.log(w / alpha**2)  # noqa: E731
    start = minnorm.limit(A, b) if signed else diagonal.limit(A, b, 2.0, signed=False).w
    answer = minimize(
        Q, start, jac=dQ, method="SLSQP", constraints={"type": "eq", "fun": lambda w: A @ w - b, "jac": lambda w: A},
        bounds=[(None if signed else 1e-12, None)] * 9, options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    np.testing.assert_allclose(diagonal.limit(A, b, alpha, signed=signed).w, answer.x, atol=2e-6)


@model
def test_limit_is_where_the_raw_flow_of_the_factors_ends(depth, signed):
    A, b = random_problem(2, n=3, d=5)
    alpha = 0.7
    u, v = raw_flow(A, b, [200.0], np.full(5, alpha), np.full(5, alpha), depth, signed)
    w = u[0] ** depth - signed * v[0] ** depth
    assert np.abs(A @ w - b).max() < 1e-10  # converged
    np.testing.assert_allclose(diagonal.limit(A, b, alpha, depth=depth, signed=signed).w, w, atol=1e-9)


@model
def test_dual_is_the_normalised_integral_of_the_residual(depth, signed):
    A, b = random_problem(2, n=3, d=5)
    alpha, T = 0.7, 100.0
    t = np.concatenate([[0], np.geomspace(1e-6, T, 4001)])
    u, v = raw_flow(A, b, t, np.full(5, alpha), np.full(5, alpha), depth, signed)
    e = b - (u**depth - signed * v**depth) @ A.T
    s = np.log(t[1:])
    integral = np.trapezoid(e[1:] * t[1:, None], s, axis=0) + t[1] * e[0]
    expected = depth**2 * alpha ** (depth - 2) * integral
    dual = diagonal.limit(A, b, alpha, depth=depth, signed=signed).dual
    np.testing.assert_allclose(dual, expected, atol=3e-5 * np.abs(expected).max())  # the trapezoidal rule, h = 0.005


@model
def test_stationarity_gradient_of_the_potential_is_in_the_row_space(depth, signed):
    A, b = random_problem(3)
    answer = diagonal.limit(A, b, 0.2, depth=depth, signed=signed)
    gradient = diagonal.potential_gradient(answer.w, 0.2, depth=depth, signed=signed)
    np.testing.assert_allclose(gradient, A.T @ answer.dual, rtol=0, atol=1e-8)


def test_control_the_printed_gradient_log_w_over_alpha_squared_is_not_stationary():
    w = diagonal.limit(X, y, 0.1, signed=False).w
    kernel = np.linalg.svd(X)[2][2]
    true, printed = np.log(w / 0.1**2), np.log(w) / 0.1**2
    assert abs(kernel @ true) < 1e-13
    assert abs(kernel @ printed) > 5  # the printed one misses by orders of magnitude


def test_control_a_potential_with_the_wrong_power_of_alpha_has_another_minimiser():
    kernel = np.linalg.svd(X)[2][2]
    w = diagonal.limit(X, y, 0.1).w
    assert abs(kernel @ np.arcsinh(w / (2 * 0.1**2))) < 1e-13
    assert abs(kernel @ np.arcsinh(w / (2 * 0.1))) > 1e-2


# ---------------------------------------------------------------- exact formula, and both ends of alpha


@pytest.mark.parametrize("alpha", [1e-8, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e6])
def test_one_equation_two_unknowns_exact_formula_at_every_alpha(alpha):
    q = 4 / alpha**2 / (1 + np.sqrt(1 + 16 / alpha**2))  # (-1 + sqrt(1 + 16/alpha^2))/4 without cancellation
    w = diagonal.limit([[1, 2]], [2], alpha, signed=False).w
    np.testing.assert_allclose(w, [alpha**2 * q, alpha**2 * q**2], rtol=1e-12)


def test_infinite_alpha_of_the_tied_model_maximises_the_sum_not_the_norm():
    w = diagonal.limit([[1, 2]], [2], 1e6, signed=False).w
    np.testing.assert_allclose(w, [2, 0], atol=1e-11)
    assert np.abs(w - minnorm.limit([[1, 2]], [2])).max() > 0.7


@pytest.mark.parametrize("depth", [3, 4, 6])
def test_infinite_alpha_of_the_power_maximises_the_sum_of_powers_two_over_depth(depth):
    best = minimize(
        lambda a: -(a[0] ** (2 / depth) + ((2 - a[0]) / 2) ** (2 / depth)), [1.0], bounds=[(1e-6, 2 - 1e-6)], tol=1e-14
    ).x[0]
    w = diagonal.limit([[1, 2]], [2], log_alpha=30, depth=depth, signed=False).w
    np.testing.assert_allclose(w, [best, (2 - best) / 2], atol=1e-6)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("alpha", [10.0, 1e3, 1e6])
def test_infinite_alpha_of_the_signed_model_is_the_minimum_norm(depth, alpha):
    error = np.abs(diagonal.limit(X, y, alpha, depth=depth).w - minnorm.limit(X, y)).max()
    assert error < 5 * alpha ** (-2 * depth) + 1e-14  # h is odd: the correction is (w/alpha^L)^2


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "plain"])
@pytest.mark.parametrize("depth", [2, 3, 4, 8])
def test_vanishing_alpha_is_basis_pursuit(depth, signed):
    A, b = random_problem(5, n=6, d=20, nonnegative=not signed)
    w = diagonal.limit(A, b, log_alpha=-1e4, depth=depth, signed=signed).w
    np.testing.assert_allclose(w, diagonal.basis_pursuit(A, b, nonnegative=not signed), atol=1e-11)


def test_one_millionth_is_not_yet_basis_pursuit():
    A, b = random_problem(6, n=20, d=100, nonnegative=False)
    bp = diagonal.basis_pursuit(A, b)
    distance = [np.linalg.norm(diagonal.limit(A, b, alpha).w - bp) / np.linalg.norm(bp) for alpha in (1e-6, 1e-100)]
    assert distance[0] > 0.02 > distance[1]


def test_vanishing_alpha_selects_the_entropy_maximiser_among_several_solutions():
    A, b = np.array([[1, 1, 1, 1], [0, 1, 2, 0.5]]), np.array([2, 1.5])  # sum w is fixed: a whole face
    kernel = np.linalg.svd(A)[2][2:]
    w = diagonal.limit(A, b, log_alpha=-1e4, signed=False).w
    np.testing.assert_allclose(kernel @ np.log(w), 0, atol=1e-10)  # stationary for sum w log w
    assert np.abs(kernel @ w ** (2 / 3 - 1)).max() > 1e-3  # and not for the functional of depth 3
    deep = diagonal.limit(A, b, log_alpha=-1e4, signed=False, depth=3).w
    np.testing.assert_allclose(kernel @ deep ** (2 / 3 - 1), 0, atol=1e-6)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "plain"])
@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("log_alpha", [-10.0, -1e2, -1e3, -1e4, -1e6])
@pytest.mark.parametrize("case", ["generic", "sparse"])
def test_residual_at_most_1e_12_however_small_alpha(case, log_alpha, depth, signed):
    A, b = random_problem(8, n=10, d=40, nonnegative=not signed)
    if case == "sparse":
        b = A @ np.r_[1.0, 2.0, 0.5, np.zeros(37)]
    w = diagonal.limit(A, b, log_alpha=log_alpha, depth=depth, signed=signed).w
    assert np.abs(A @ w - b).max() <= 1e-12


def test_cost_is_flat_in_alpha(monkeypatch):
    from implicitreg.flow import _dual

    A, b = random_problem(9, n=20, d=100, nonnegative=False)
    original, count = _dual.newton_direction, []
    monkeypatch.setattr(_dual, "newton_direction", lambda *a: (count.append(1), original(*a))[1])
    steps = []
    for log_alpha in (-14.0, -230.0, -1e4):
        count.clear()
        diagonal.limit(A, b, log_alpha=log_alpha)
        steps.append(len(count))
    assert max(steps) <= 3 * steps[0] <= 120  # plain Newton from zero takes about |log alpha|


def test_alpha_and_log_alpha_mean_the_same():
    a, b = diagonal.limit(X, y, np.exp(-3.0)), diagonal.limit(X, y, log_alpha=-3.0)
    np.testing.assert_allclose(a.w, b.w, rtol=1e-14)


def test_limit_scales_with_the_data():
    """Q of c w at scale sqrt(c) alpha is c times Q of w at alpha."""
    a, b = diagonal.limit(X, y, 0.1), diagonal.limit(7 * X, 7 * 1e6 * y, 0.1 * 1e3)
    np.testing.assert_allclose(b.w, 1e6 * a.w, rtol=1e-12)
    np.testing.assert_allclose(7 * b.dual, a.dual, rtol=1e-12)


# ---------------------------------------------------------------- rank, feasibility


@model
def test_dependent_rows_change_nothing_and_the_dual_stays_in_the_range(depth, signed):
    A, b = np.vstack([X, X[0] + 2 * X[1], 3 * X[1]]), np.r_[y, y[0] + 2 * y[1], 3 * y[1]]
    full, short = (diagonal.limit(*p, 0.2, depth=depth, signed=signed) for p in ((A, b), (X, y)))
    np.testing.assert_allclose(full.w, short.w, atol=1e-13)
    np.testing.assert_allclose(A.T @ full.dual, X.T @ short.dual, atol=1e-11)
    left_kernel = np.linalg.svd(A)[0][:, 2:]
    np.testing.assert_allclose(left_kernel.T @ full.dual, 0, atol=1e-12)


def test_more_rows_than_columns():
    A = np.random.default_rng(4).normal(size=(9, 4))
    np.testing.assert_allclose(diagonal.limit(A, A @ np.ones(4), 0.1).w, np.ones(4), rtol=1e-12)


def test_inconsistent_system_names_the_least_squares_residual():
    with pytest.raises(ValueError, match=r"no solution: least squares leaves the residual 0\.447"):
        diagonal.limit([[1, 2], [2, 4]], [1, 3], 0.1)  # distance of (1, 3) from span (1, 2): 1/sqrt 5


@pytest.mark.parametrize("log_alpha", [-1e4, -5.0, 2.0])
@pytest.mark.parametrize("depth", [2, 3])
def test_infeasible_sign_constraint_names_the_nnls_residual(log_alpha, depth):
    with pytest.raises(ValueError, match=r"w >= 0 .* residual 3"):
        diagonal.limit([[1, 2], [0, 1]], [1, -3], log_alpha=log_alpha, depth=depth, signed=False)
    assert np.isfinite(diagonal.limit([[1, 2], [0, 1]], [1, -3], log_alpha=log_alpha, depth=depth).w).all()


@pytest.mark.parametrize("depth", [2, 3, 8])
def test_weights_that_every_feasible_point_sets_to_zero(depth):
    """w1 + 2 w2 = 0 forces both to zero although the dual then diverges; the rest is the smaller problem."""
    A, b = [[1, 2, 0, 0], [0, 1, 1, 2]], [0, 2]
    w = diagonal.limit(A, b, 0.5, depth=depth, signed=False).w
    np.testing.assert_allclose(w[:2], 0, atol=1e-12)
    np.testing.assert_allclose(w[2:], diagonal.limit([[1, 2]], [2], 0.5, depth=depth, signed=False).w, atol=1e-9)


@pytest.mark.parametrize(
    ("X", "y", "log_alpha", "depth", "w"),
    [
        ([[1, 2]], [2e-200], -1.0, 3, [1.6e-200, 2e-201]),  # alpha is large: maximises the sum of w^(2/3)
        ([[1, 2]], [2e200], -1.0, 2, [0, 1e200]),
        ([[1, -1]], [0], -1e4, 2, [0, 0]),
        ([[1, -1]], [0], 5.0, 2, [np.exp(10), np.exp(10)]),
        ([[1e8, 2e8, 1], [1, 1, 3]], [2e8, 1], -30.0, 2, [0, 1, 0]),
    ],
    ids=["tiny y", "huge y", "zero y, small alpha", "zero y, large alpha", "unequal rows"],
)
def test_extreme_scales(X, y, log_alpha, depth, w):
    scale = max(np.abs(w).max(), 1e-250)
    answer = diagonal.limit(X, y, log_alpha=log_alpha, depth=depth, signed=False).w
    np.testing.assert_allclose(answer / scale, np.array(w) / scale, atol=1e-13)


def test_zero_matrix_leaves_the_weights_where_they_start():
    np.testing.assert_allclose(diagonal.limit(np.zeros((2, 3)), [0, 0], 0.5, signed=False).w, 0.25)
    np.testing.assert_allclose(diagonal.limit(np.zeros((2, 3)), [0, 0], 0.5).w, 0)


# ---------------------------------------------------------------- shape, untied layers


def test_untied_limit_has_the_reference_digits():
    answer = diagonal.untied_limit(X, y, [0.6, 0.2, 0.4], [0.1, -0.3, 0.35])
    np.testing.assert_allclose(answer.w, [1.11754542948932, 0.0847709251268364, 0.120034553973632], atol=2e-14)
    np.testing.assert_allclose(answer.dual, [1.35698252, 2.86623722990075], atol=1e-8)


def test_untied_limit_is_stationary_for_its_potential_and_is_where_the_flow_ends():
    u0, v0 = np.array([0.6, 0.2, 0.4]), np.array([0.1, -0.3, 0.35])
    w = diagonal.untied_limit(X, y, u0, v0).w
    beta = np.abs(u0**2 - v0**2) / 4
    gradient = np.arcsinh(w / (2 * beta)) - np.arcsinh(u0 * v0 / (2 * beta))
    assert abs(np.linalg.svd(X)[2][2] @ gradient) < 1e-12

    def slope(_, q):
        g = X.T @ (y - X @ (q[:3] * q[3:]))
        return np.r_[q[3:] * g, q[:3] * g]

    q = solve_ivp(slope, (0, 2000), np.r_[u0, v0], "DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    np.testing.assert_allclose(q[:3] * q[3:], w, atol=1e-8)
    np.testing.assert_allclose(q[:3] ** 2 - q[3:] ** 2, u0**2 - v0**2, atol=1e-9)


def test_tied_initialisation_freezes_signs_and_a_small_imbalance_frees_them():
    b = X @ [0.5, -0.8, 0.2]
    with pytest.raises(ValueError, match=r"residual 0\.5"):  # loss 0.144 = 0.5 * 0.537^2
        diagonal.untied_limit(X, b, [0.3] * 3, [0.3] * 3)
    np.testing.assert_allclose(X @ diagonal.untied_limit(X, b, [0.3] * 3, [0.29] * 3).w, b, atol=1e-13)


def test_untied_with_equal_layers_is_the_tied_model():
    w = diagonal.untied_limit(X, y, [0.1] * 3, [0.1] * 3).w
    np.testing.assert_allclose(w, diagonal.limit(X, y, 0.1, signed=False).w, rtol=1e-12)


def test_shape_selects_another_solution_at_depth_three_however_small_alpha():
    """min sum w_j/c_j subject to 1 w1 + 1.2 w2 + 2 w3 = 2: with c3 = 1/4, the best ratio X_j c_j is the second."""
    for log_alpha in (-20.0, -1e4):
        plain = diagonal.limit([[1, 1.2, 2]], [2], log_alpha=log_alpha, depth=3).w
        shaped = diagonal.limit([[1, 1.2, 2]], [2], log_alpha=log_alpha, depth=3, shape=[1, 1, 0.25]).w
        np.testing.assert_allclose(plain, [0, 0, 1], atol=1e-15)
        np.testing.assert_allclose(shaped, [0, 5 / 3, 0], atol=1e-15)


def test_columns_and_shape_of_very_different_sizes():
    """min sum w_j/c_j subject to x w = 1, at depth three: x_1 c_1 = 2 x_2 c_2, so that w = (1/x_1, 0)."""
    x = np.array([1e-20, 1e20])
    c = np.array([2, 1]) / x / 2e20
    found = diagonal.limit(x[None], [1.0], log_alpha=-200.0, depth=3, signed=False, shape=c)
    np.testing.assert_allclose(found.w, [1e20, 0], rtol=1e-12)
    np.testing.assert_allclose(found.dual * c * x / 3, [1, 1 / 2], rtol=1e-12)  # the gap that closes, and the other


def test_shape_is_forgotten_at_depth_two_at_a_logarithmic_rate():
    distance = [diagonal.limit([[1, 1.2, 2]], [2], log_alpha=a, shape=[1, 1, 0.25]).w[2] - 1 for a in (-3.0, -300.0)]
    assert distance[0] < -0.1
    assert abs(distance[1]) < 1e-15


@pytest.mark.parametrize("depth", [2, 3])
def test_large_alpha_with_a_shape_is_weighted_least_norm(depth):
    c = np.array([1.0, 2.0, 0.5])
    D = c ** (2 * depth - 2)  # kernel of w = u^L - v^L at u = v = alpha c; at depth 2 the weights 1/c^2
    expected = D * (X.T @ np.linalg.solve((X * D) @ X.T, y))
    np.testing.assert_allclose(diagonal.limit(X, y, 1e4, depth=depth, shape=c).w, expected, atol=1e-10)


@model
def test_limit_with_a_shape_is_where_the_raw_flow_ends(depth, signed):
    c = np.array([1.0, 1.5, 0.6])
    u, v = raw_flow(X, y, [60.0], 0.8 * c, 0.8 * c, depth, signed)
    w = u[0] ** depth - signed * v[0] ** depth
    np.testing.assert_allclose(diagonal.limit(X, y, 0.8, depth=depth, signed=signed, shape=c).w, w, atol=1e-9)


# ---------------------------------------------------------------- potentials


@model
@pytest.mark.parametrize("alpha", [0.05, 0.6, 2.0])
def test_potential_is_the_integral_of_the_inverse_activation(depth, signed, alpha):
    w = [0.3, 1.7]
    expected = reference_potential(w, alpha, depth, signed)
    np.testing.assert_allclose(diagonal.potential(w, alpha, depth=depth, signed=signed), expected, rtol=1e-8)


@model
@pytest.mark.parametrize("alpha", [0.05, 0.6, 2.0])
def test_potential_gradient_is_its_derivative(depth, signed, alpha):
    w, step = np.array([0.3, 1.7]), 1e-3 * np.eye(2)
    Q = lambda v: diagonal.potential(v, alpha, depth=depth, signed=signed)  # noqa: E731
    slope = [(Q(w - 2 * e) - 8 * Q(w - e) + 8 * Q(w + e) - Q(w + 2 * e)) / 12e-3 for e in step]
    gradient = diagonal.potential_gradient(w, alpha, depth=depth, signed=signed)
    np.testing.assert_allclose(gradient, slope, rtol=1e-6, atol=1e-8)


@model
def test_potential_is_zero_at_the_start_and_even_where_signed(depth, signed):
    start = np.zeros(3) if signed else np.full(3, 0.3**depth)
    assert diagonal.potential(start, 0.3, depth=depth, signed=signed) == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(diagonal.potential_gradient(start, 0.3, depth=depth, signed=signed), 0, atol=1e-14)
    if signed:
        assert diagonal.potential([-2, 1], 0.3, depth=depth) == diagonal.potential([2, -1], 0.3, depth=depth)


def test_potential_at_vanishing_alpha_is_the_l1_norm_times_log_plus_entropy():
    w, m = np.array([1.5, -0.2]), -2e4
    expected = np.abs(w).sum() * -m + (np.abs(w) * np.log(np.abs(w)) - np.abs(w)).sum()
    np.testing.assert_allclose(diagonal.potential(w, log_alpha=-1e4), expected, rtol=1e-15)
    np.testing.assert_allclose(diagonal.potential(w, log_alpha=-1e4, depth=3), 3 * np.abs(w).sum(), rtol=1e-14)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_potential_at_large_alpha_is_the_squared_norm(depth):
    """w ~ 2 alpha^L theta near zero, so that Q ~ |w|^2/(4 alpha^L)."""
    w = np.array([1.5, -0.2])
    np.testing.assert_allclose(diagonal.potential(w, 1e5, depth=depth), (w @ w) / (4 * 1e5**depth), rtol=1e-9)


def test_vanishing_alpha_bound_on_the_excess_norm():
    """|w_alpha|_1 - |w*|_1 <= (h(w*) + d)/log(1/alpha^2), h = sum w log w - w, not signed."""
    A, b = random_problem(12, n=4, d=12)
    star = diagonal.basis_pursuit(A, b, nonnegative=True)
    h = sum(v * np.log(v) - v for v in star[star > 0])
    for alpha in (1e-1, 1e-2, 1e-4, 1e-8):
        excess = diagonal.limit(A, b, alpha, signed=False).w.sum() - star.sum()
        assert -1e-12 < excess <= (h + 12) / np.log(1 / alpha**2)


# ---------------------------------------------------------------- the flow


@model
def test_trajectory_is_the_raw_flow_of_the_factors(depth, signed):
    t = np.array([3.0, 0.0, 0.4, 1.1, 20.0])
    u, v = raw_flow(X, y, np.sort(t), np.full(3, 0.3), np.full(3, 0.3), depth, signed)
    expected = (u**depth - signed * v**depth)[np.argsort(np.argsort(t))]
    W = diagonal.trajectory(X, y, t, 0.3, depth=depth, signed=signed)
    np.testing.assert_allclose(W, expected, atol=2e-8)


def test_control_a_clock_twice_as_fast_is_seen():
    u, v = raw_flow(X, y, [0.4], np.full(3, 0.3), np.full(3, 0.3))
    assert np.abs(diagonal.trajectory(X, y, [0.8], 0.3) - (u**2 - v**2)).max() > 1e-2


@model
def test_trajectory_ends_at_the_limit(depth, signed):
    W = diagonal.trajectory(X, y, [1e4], 0.3, depth=depth, signed=signed)
    np.testing.assert_allclose(W[0], diagonal.limit(X, y, 0.3, depth=depth, signed=signed).w, atol=1e-8)


@model
def test_bregman_divergence_falls_at_the_rate_of_the_loss(depth, signed):
    """dD(w_f, w(t))/dt = -2 L^2 alpha^(L-2) loss (-8 loss at depth 2) for every interpolator; loss <= D/(rate t)."""
    alpha, h = 0.3, 1e-3
    rate = 2 * depth**2 * alpha ** (depth - 2)
    kernel = np.linalg.svd(X)[2][2]
    fits = [np.array([0, 0.8, 0.5]), np.array([0, 0.8, 0.5]) + 0.1 * kernel * np.sign(kernel[0])]
    t = np.array([0.5, 1.5, 4.0])
    at = [diagonal.trajectory(X, y, t + s * h, alpha, depth=depth, signed=signed) for s in (-2, -1, 0, 1, 2)]
    loss = 0.5 * ((y - at[2] @ X.T) ** 2).sum(axis=1)
    options = {"depth": depth, "signed": signed}
    Q = lambda w: diagonal.potential(w, alpha, **options)  # noqa: E731
    for f in fits:
        D = np.array(
            [[Q(f) - Q(w) - diagonal.potential_gradient(w, alpha, **options) @ (f - w) for w in W] for W in at]
        )
        slope = (D[0] - 8 * D[1] + 8 * D[3] - D[4]) / (12 * h)
        np.testing.assert_allclose(slope, -rate * loss, rtol=1e-4, atol=1e-6)
        assert (np.abs(slope + rate / 2 * loss) > 1e-3).any()  # half the rate would be seen
        assert (loss <= Q(f) / (rate * t)).all()


def test_conservation_u_times_v_is_exact():
    """At depth 2, u^2 and v^2 are the roots of s^2 -+ w s - alpha^4 = 0: w determines them, and X' lambda its log."""
    alpha = 0.2
    t = np.array([0.3, 1.0, 5.0])
    W = diagonal.trajectory(X, y, t, alpha)
    u, v = raw_flow(X, y, t, np.full(3, alpha), np.full(3, alpha))
    np.testing.assert_allclose(u * v, alpha**2, rtol=1e-9)
    z = np.arcsinh(W / (2 * alpha**2))  # = X' lambda, exactly in the row space
    np.testing.assert_allclose(np.linalg.svd(X)[2][2] @ z.T, 0, atol=1e-13)


@pytest.mark.parametrize("log_alpha", [-1e4, -230.0, 7.0])
def test_trajectory_at_extreme_alpha_is_finite_and_ends_near_an_interpolator(log_alpha):
    t = [max(3.0, -20 * log_alpha)]
    W = diagonal.trajectory(X, y, t, log_alpha=log_alpha)
    np.testing.assert_allclose(W @ X.T, [y], atol=1e-2)


# ---------------------------------------------------------------- basis pursuit and the recovery exponent


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_basis_pursuit_has_a_dual_certificate_of_the_same_value(scale):
    A, b = random_problem(13, n=6, d=20, nonnegative=False)
    w = diagonal.basis_pursuit(A, scale * b)
    dual = linprog(-b, A_ub=np.vstack([A.T, -A.T]), b_ub=np.ones(40), bounds=(None, None))
    np.testing.assert_allclose(A @ w, scale * b, rtol=1e-11, atol=1e-12 * scale)
    np.testing.assert_allclose(np.abs(w).sum(), -dual.fun * scale, rtol=1e-11)


def test_basis_pursuit_nonnegative():
    assert (diagonal.basis_pursuit(X, y, nonnegative=True) >= 0).all()
    np.testing.assert_allclose(diagonal.basis_pursuit(X, y, nonnegative=True), [0, 0.8, 0.5], atol=1e-14)
    np.testing.assert_array_equal(diagonal.basis_pursuit(X, [0, 0]), np.zeros(3))
    with pytest.raises(ValueError, match="no solution w >= 0"):
        diagonal.basis_pursuit([[1, 2]], [-1], nonnegative=True)
    with pytest.raises(ValueError, match=r"no solution: least squares leaves the residual 0\.447"):
        diagonal.basis_pursuit([[1, 2], [2, 4]], [1, 3])


def test_recovery_exponent_has_the_reference_digits():
    assert diagonal.recovery_exponent(X5, W5) == pytest.approx(0.343387470998, abs=1e-11)


def test_weights_off_the_support_have_the_reference_digits():
    off = [np.abs(diagonal.limit(X5, X5 @ W5, a).w[[1, 3, 4]]).sum() for a in (1e-6, 1e-8, 1e-10, 1e-12)]
    printed = [1.66735936e-04, 6.97488000e-06, 2.93246813e-07, 1.23644563e-08]
    np.testing.assert_allclose(off, printed, rtol=3e-8)  # y = X w* itself is rounded by 1e-16
    np.testing.assert_allclose(np.diff(np.log10(off)) / -4, [0.34462, 0.34408, 0.34376], atol=1e-5)


def one_sided_exponent(A, w):
    """The LP of the model u^2: max_j x_j nu instead of max_j |x_j nu|."""
    n, S = len(A), w != 0
    off = A[:, ~S].T
    answer = linprog(
        np.r_[np.zeros(n), 1], A_ub=np.hstack([off, -np.ones((len(off), 1))]), b_ub=np.zeros(len(off)),
        A_eq=np.hstack([A[:, S].T, np.zeros((S.sum(), 1))]), b_eq=np.sign(w[S]), bounds=(None, None),
    )  # fmt: skip
    return 1 - answer.fun


def test_rate_off_the_support_over_more_than_four_octaves_is_twice_the_exponent():
    g = np.random.default_rng(17)
    A = g.normal(size=(12, 30))
    w = np.zeros(30)
    w[[3, 11, 20]] = [2.0, 1.0, 1.5]
    s, one_sided = diagonal.recovery_exponent(A, w), one_sided_exponent(A, w)
    assert 0.05 < s < one_sided - 0.1  # the two models differ on these data
    alphas = 1e-6 * 2.0 ** -np.arange(0, 13, 3)
    for signed, exponent in ((True, s), (False, one_sided)):
        off = [np.abs(diagonal.limit(A, A @ w, a, signed=signed).w[w == 0]).sum() for a in alphas]
        slope = np.polyfit(np.log(alphas), np.log(off), 1)[0]
        assert abs(slope - 2 * exponent) < 0.15
        other = one_sided if signed else s
        assert abs(slope - 2 * other) > 0.15  # control: the other LP


def test_recovery_exponent_bounds_the_weights_off_the_support():
    s = diagonal.recovery_exponent(X5, W5)
    for alpha in (1e-2, 1e-4, 1e-8):
        assert np.abs(diagonal.limit(X5, X5 @ W5, alpha).w[[1, 3, 4]]).sum() < 5 * alpha ** (2 * s)


def test_recovery_exponent_edge_cases():
    assert diagonal.recovery_exponent(np.eye(2), [1.0, -1.0]) == 1.0
    assert diagonal.recovery_exponent(X, np.zeros(3)) == 1.0
    assert diagonal.recovery_exponent([[2.0, 1.0]], [0.0, 1.0]) == pytest.approx(-1.0)  # not l1-minimal
    with pytest.raises(ValueError, match="no nu"):
        diagonal.recovery_exponent([[1.0, 1.0]], [1.0, -1.0])


# ---------------------------------------------------------------- finite steps


def test_descent_and_mirror_descent_have_the_reference_digits():
    gd, md = diagonal.gradient_descent(X, y, 0.01, 100, 0.1), diagonal.mirror_descent(X, y, 0.01, 100, 0.1)
    np.testing.assert_allclose(gd.w, [0.275532664483628, 0.242436088901457, 0.417905933615982], atol=1e-13)
    np.testing.assert_allclose(md.w, [0.276563840533665, 0.246484600607685, 0.417648373751371], atol=1e-13)
    np.testing.assert_allclose(
        gd.u * gd.v / 0.01, [0.965526134197090, 0.973547135986854, 0.929428106006044], atol=1e-13
    )
    np.testing.assert_allclose(md.u * md.v, 0.01, rtol=1e-13)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "plain"])
def test_limit_of_mirror_descent_is_exact_and_that_of_descent_is_off_by_order_eta(signed):
    exact = diagonal.limit(X, y, 0.3, signed=signed).w
    eta = np.array([0.04, 0.02, 0.01, 0.005, 0.0025])
    error = {
        f: np.array([np.abs(f(X, y, h, int(80 / h), 0.3, signed).w - exact).max() for h in eta])
        for f in (diagonal.gradient_descent, diagonal.mirror_descent)
    }
    assert error[diagonal.mirror_descent].max() < 1e-11
    slope = np.polyfit(np.log(eta), np.log(error[diagonal.gradient_descent]), 1)[0]
    assert abs(slope - 1) < 0.15  # four octaves


def test_mirror_descent_steps_the_gradient_of_the_potential_by_four_eta():
    a, b = (diagonal.mirror_descent(X, y, 0.02, k, 0.3).w for k in (7, 8))
    step = diagonal.potential_gradient(b, 0.3) - diagonal.potential_gradient(a, 0.3)
    np.testing.assert_allclose(step, 4 * 0.02 * X.T @ (y - X @ a), atol=1e-13)


def test_sgd_on_one_example_at_a_time_is_the_naive_loop():
    order, u, v = [1, 0, 0, 1, 1], np.full(3, 0.4), np.full(3, 0.4)
    for i in order:
        r = y[i] - sum(X[i, j] * (u[j] ** 2 - v[j] ** 2) for j in range(3))
        u, v = (
            [u[j] + 2 * 0.05 * r * X[i, j] * u[j] for j in range(3)],
            [v[j] - 2 * 0.05 * r * X[i, j] * v[j] for j in range(3)],
        )
    np.testing.assert_allclose(
        diagonal.stochastic_gradient_descent(X, y, 0.05, order, 0.4).w, np.square(u) - np.square(v), atol=1e-15
    )


def test_sgd_ends_at_a_sparser_interpolator_than_descent_in_order_of_the_step():
    g = np.random.default_rng(5)
    A = g.normal(size=(20, 60))
    star = np.r_[1.0, 1.0, 1.0, np.zeros(57)]
    flow = diagonal.limit(A, A @ star, 0.1)
    mean = []
    for eta in (0.008, 0.024):
        ends = []
        for seed in range(3):
            order = np.random.default_rng(seed).integers(20, size=20000)
            factors = diagonal.stochastic_gradient_descent(A, A @ star, eta, order, 0.1)
            assert np.abs(A @ (factors.w - star)).max() < 1e-3
            assert (factors.u * factors.v <= 0.01 * (1 + 1e-9)).all()  # the effective alpha shrinks
            ends.append([np.abs(factors.w).sum(), np.linalg.norm(factors.w - star)])
        mean.append(np.mean(ends, axis=0))
    assert (np.array([np.abs(flow.w).sum(), np.linalg.norm(flow.w - star)]) > mean[0]).all()
    assert (mean[0] > mean[1]).all()


# ---------------------------------------------------------------- misuse


BAD = {
    "no alpha": ((X, y), {}, ValueError, "exactly one"),
    "both alphas": ((X, y, 0.1), {"log_alpha": -1.0}, ValueError, "exactly one"),
    "alpha zero": ((X, y, 0.0), {}, ValueError, "alpha = 0.0"),
    "alpha negative": ((X, y, -1.0), {}, ValueError, "alpha = -1.0"),
    "alpha nan": ((X, y, np.nan), {}, ValueError, "alpha = nan"),
    "alpha infinite": ((X, y, np.inf), {}, ValueError, "alpha = inf"),
    "alpha text": ((X, y, "small"), {}, TypeError, "alpha"),
    "log alpha infinite": ((X, y), {"log_alpha": -np.inf}, ValueError, "log_alpha"),
    "log alpha overflows": ((X, y), {"log_alpha": 400.0}, ValueError, "log_alpha = 400"),
    "depth one": ((X, y, 0.1), {"depth": 1}, ValueError, "depth = 1"),
    "depth fractional": ((X, y, 0.1), {"depth": 2.5}, TypeError, "depth = 2.5"),
    "signed text": ((X, y, 0.1), {"signed": "yes"}, TypeError, "signed = 'yes'"),
    "nan in X": (([[1, np.nan]], [1], 0.1), {}, ValueError, "X"),
    "empty X": ((np.zeros((0, 2)), [], 0.1), {}, ValueError, "X has shape"),
    "flat X": (([1, 2], [1], 0.1), {}, ValueError, "X has shape"),
    "long y": ((X, [1, 2, 3], 0.1), {}, ValueError, "y has shape"),
    "complex y": ((X, [1j, 2], 0.1), {}, TypeError, "y"),
}
BAD_LIMIT = {
    "shape zero": ((X, y, 0.1), {"shape": [1, 0, 1]}, ValueError, r"shape\[1\] = 0"),
    "shape short": ((X, y, 0.1), {"shape": [1, 1]}, ValueError, "shape has shape"),
    "shape overflows": ((X, y, 0.1), {"shape": [1, 1, 1e200]}, ValueError, "shape"),
}


@pytest.mark.parametrize("case", [*BAD, *BAD_LIMIT])
def test_limit_refuses(case):
    args, options, error, match = {**BAD, **BAD_LIMIT}[case]
    with pytest.raises(error, match=match):
        diagonal.limit(*args, **options)


@pytest.mark.parametrize("case", BAD)
def test_trajectory_refuses(case):
    (A, b, *rest), options, error, match = BAD[case]
    with pytest.raises(error, match=match):
        diagonal.trajectory(A, b, [1.0], *rest, **options)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: diagonal.trajectory(X, y, [-1.0], 0.1), ValueError, r"t\[0\] = -1"),
        (lambda: diagonal.trajectory(X, y, [], 0.1), ValueError, "t has shape"),
        (lambda: diagonal.untied_limit(X, y, [1, 1], [1, 1, 1]), ValueError, "u0"),
        (lambda: diagonal.untied_limit(X, y, [1, 1, 1], [1, np.inf, 1]), ValueError, "v0"),
        (lambda: diagonal.untied_limit(X, y, [1e200, 1, 1], [1, 1, 1]), ValueError, "u0, v0"),
        (lambda: diagonal.untied_limit(X, y, [0, 0, 0], [0, 0, 0]), ValueError, "every weight is zero"),
        (lambda: diagonal.potential([], 0.1), ValueError, "w has shape"),
        (lambda: diagonal.potential([-1.0], 0.1, signed=False), ValueError, r"w\[0\] = -1"),
        (lambda: diagonal.potential([1.0], 0.1, log_alpha=0.0), ValueError, "exactly one"),
        (lambda: diagonal.potential_gradient([np.nan], 0.1), ValueError, "w"),
        (lambda: diagonal.potential_gradient([1.0], 0.1, depth=1), ValueError, "depth"),
        (lambda: diagonal.basis_pursuit(X, [1.0]), ValueError, "y has shape"),
        (lambda: diagonal.basis_pursuit(X, y, nonnegative=1), TypeError, "nonnegative"),
        (lambda: diagonal.recovery_exponent(X, [1.0]), ValueError, "w has shape"),
        (lambda: diagonal.gradient_descent(X, y, 0.0, 1, 0.1), ValueError, "eta = 0.0"),
        (lambda: diagonal.gradient_descent(X, y, 0.1, -1, 0.1), ValueError, "k = -1"),
        (lambda: diagonal.gradient_descent(X, y, 0.1, 1.5, 0.1), TypeError, "k = 1.5"),
        (lambda: diagonal.gradient_descent(X, y, 0.1, 1, 0.0), ValueError, "alpha = 0.0"),
        (lambda: diagonal.gradient_descent(X, y, 10.0, 50, 1.0), ValueError, "eta = 10: the iteration overflows"),
        (lambda: diagonal.mirror_descent(X, y, np.nan, 1, 0.1), ValueError, "eta = nan"),
        (lambda: diagonal.mirror_descent(X, y, 0.1, 1, 0.1, signed=None), TypeError, "signed"),
        (lambda: diagonal.stochastic_gradient_descent(X, y, 0.1, [2], 0.1), ValueError, r"indices\[0\] = 2"),
        (lambda: diagonal.stochastic_gradient_descent(X, y, 0.1, [0.5], 0.1), TypeError, "indices"),
    ],
    ids=[
        "negative time", "no times", "short u0", "infinite v0", "u0 overflows", "all zero", "empty w", "negative w",
        "both alphas", "nan w", "depth one", "short y", "integer flag", "short w", "eta zero", "negative k",
        "fractional k", "alpha zero", "divergence", "eta nan", "signed none", "index range", "index type",
    ],
)  # fmt: skip
def test_other_functions_refuse(call, error, match):
    with pytest.raises(error, match=match):
        call()
