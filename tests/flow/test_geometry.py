"""Tails and geometries: against grids, linear programs' duals, ODE solvers, proven bounds and closed forms."""

import pickle

import mpmath
import numpy as np
import pytest
from implicitreg.flow import geometry as geo
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

INF = np.inf
Z3 = np.array([[1, 0.5, -0.2], [0.4, 1.5, 0.3], [2, -0.3, 1]])
Z4 = np.array([[1, 0.5, 0], [0.4, 1.5, 0.2], [2, 2, -1], [3, 0.1, 1.5]])
TWO = np.array([[1.0, 0.0], [0.0, 2.0]])


def ones(Z):
    return np.ones(len(Z))


def separable(seed, n, d):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, np.sign(X @ rng.normal(size=d))


# --- margins in a norm


def test_margins_of_the_reference_problem_in_three_norms():
    assert geo.margin_direction(Z3, ones(Z3), 1).margin == pytest.approx(13 / 16, rel=1e-9)
    assert geo.margin_direction(Z3, ones(Z3), 2).margin == pytest.approx(1.12479121596104, rel=1e-9)
    assert geo.margin_direction(Z3, ones(Z3), INF).margin == pytest.approx(23 / 15, rel=1e-9)
    w = geo.margin_direction(Z3, ones(Z3), 1).w
    np.testing.assert_allclose(w, [10 / 13, 6 / 13, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [1, 1.3, 2, 3, 6, INF])
@pytest.mark.parametrize("seed", range(4))
def test_margin_direction_beats_every_angle_of_a_grid(seed, p):
    X, y = separable(seed, 7, 2)
    angle = np.linspace(0, 2 * np.pi, 200_001)
    U = np.array([np.cos(angle), np.sin(angle)])
    grid = ((y[:, None] * X) @ U).min(axis=0) / np.linalg.norm(U, p, axis=0)
    best = geo.margin_direction(X, y, p).margin
    # A grid of spacing h misses the maximum of a Lipschitz function by at most about |x| h.
    assert 0 <= best - grid.max() + 1e-12 < 2e-4


@pytest.mark.parametrize("p", [1, 1.1, 1.5, 2, 2.5, 4, INF])
@pytest.mark.parametrize(("n", "d"), [(3, 8), (20, 4)], ids=["wide", "tall"])
def test_margin_direction_carries_a_dual_certificate(n, d, p):
    X, y = separable(17, n, d)
    r = geo.margin_direction(X, y, p)
    dual_p = {1: INF, INF: 1}.get(p) or p / (p - 1)
    assert r.dual.min() >= -1e-12
    assert r.dual.sum() == pytest.approx(1, abs=1e-12)
    assert np.linalg.norm((y[:, None] * X).T @ r.dual, dual_p) == pytest.approx(r.margin, rel=1e-9)
    assert geo.margin(X, y, r.w, p) == pytest.approx(r.margin, rel=1e-12)
    assert (y * (X @ r.w)).min() == pytest.approx(1, rel=1e-9)


def test_margin_is_the_distance_in_the_dual_norm():
    # Nearest point of the line 3 a + 4 b = 0 to (1, 1): l-infinity distance 7/7 = 1, l-1 distance 7/4.
    assert geo.margin([[1.0, 1.0]], [1], [3.0, 4.0], 1) == 1
    assert geo.margin([[1.0, 1.0]], [1], [3.0, 4.0], INF) == 7 / 4


def test_margin_directions_of_different_norms_differ():
    X, y = separable(2, 6, 5)
    best = {p: geo.margin_direction(X, y, p) for p in (1, 2, INF)}
    for p, q in [(1, 2), (2, INF), (INF, 1)]:
        assert geo.margin(X, y, best[q].w, p) < 0.95 * best[p].margin


# --- polynomial tails


def test_polynomial_direction_of_the_reference_problem():
    u = geo.polynomial_direction(TWO, [1, 1], 1)
    np.testing.assert_allclose(u, [0.783269934591958, 0.621681759073169], rtol=1e-12)
    assert geo.margin(TWO, [1, 1], u) == pytest.approx(0.783269934591958, rel=1e-12)
    assert geo.margin_direction(TWO, [1, 1]).margin == pytest.approx(0.894427190999916, rel=1e-12)


@pytest.mark.parametrize("k", [0.5, 1, 2, 5, 50])
def test_ratio_is_two_to_the_k_over_k_plus_two(k):
    u = geo.polynomial_direction(TWO, [1, 1], k)
    assert u[0] / u[1] == pytest.approx(2 ** (k / (k + 2)), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("N", [1, 10, 1000])
def test_imbalance_makes_the_margin_arbitrarily_bad(N, k):
    X = np.vstack([np.tile([1.0, 0.0], (N, 1)), [[0.0, 1.0]]])
    u = geo.polynomial_direction(X, np.ones(N + 1), k)
    assert geo.margin(X, np.ones(N + 1), u) == pytest.approx((1 + N ** (2 / (k + 2))) ** -0.5, rel=1e-12)
    if (N, k) == (1000, 1):
        assert round(u[1], 4) == 0.0995


def test_polynomial_direction_minimises_the_sum_of_powers_on_the_sphere():
    u = geo.polynomial_direction(Z4, ones(Z4), 1)

    def power_sum(b):
        m = Z4 @ np.array([np.cos(b[0]) * np.cos(b[1]), np.sin(b[0]) * np.cos(b[1]), np.sin(b[1])])
        return np.where(m > 0, 1 / np.maximum(m, 1e-9), 1e9).sum()

    grid = min(
        power_sum(b) for b in np.stack(np.meshgrid(np.linspace(0, 2, 81), np.linspace(-1, 1, 81)), -1).reshape(-1, 2)
    )
    fit = minimize(power_sum, [0.7, 0.1], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-15})
    assert (1 / (Z4 @ u)).sum() <= min(grid, fit.fun) + 1e-14
    assert (1 / (Z4 @ u)).sum() == pytest.approx(fit.fun, rel=1e-12)
    np.testing.assert_allclose(u, [0.753275, 0.651075, 0.093154], atol=5e-7)
    assert geo.margin(Z4, ones(Z4), u) == pytest.approx(1.07881, abs=5e-6)


@pytest.mark.parametrize("k", [0.1, 1, 7, 100])
def test_polynomial_direction_is_stationary_to_1e_12(k):
    X, y = separable(8, 30, 6)
    Z = y[:, None] * X
    u = mpmath.matrix(geo.polynomial_direction(X, y, k).tolist())
    with mpmath.workdps(40):
        m = [mpmath.fdot(z, u) for z in Z.tolist()]
        g = [mpmath.fsum(m[i] ** (-k - 1) * Z[i, j] for i in range(30)) for j in range(6)]
        size = mpmath.sqrt(mpmath.fsum(x**2 for x in g))
        # grad F is parallel to u iff u is stationary on the sphere, and F is strictly convex
        assert max(abs(g[j] / size - u[j]) for j in range(6)) < 1e-12 * (1 + k) * 10


def test_polynomial_direction_tends_to_the_maximum_margin():
    svm = geo.margin_direction(Z4, ones(Z4))
    gap = [svm.margin - geo.margin(Z4, ones(Z4), geo.polynomial_direction(Z4, ones(Z4), 10.0**j)) for j in range(2, 7)]
    slope = np.diff(np.log10(gap))
    np.testing.assert_allclose(slope, -1, atol=0.15)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("Z", [TWO, Z4], ids=["plane", "space"])
def test_gradient_flow_of_a_polynomial_tail_goes_where_predicted(Z, k):
    w = geo.polynomial_flow(Z, ones(Z), [0.0, 200.0], k)
    u = geo.polynomial_direction(Z, ones(Z), k)
    # error t^(-1/(k+2)): e^(-28) for k = 5
    np.testing.assert_allclose(w[1] / np.linalg.norm(w[1]), u, atol=1e-8)
    svm = geo.margin_direction(Z, ones(Z))
    assert np.linalg.norm(w[1] / np.linalg.norm(w[1]) - svm.w * svm.margin) > 1e-2  # not the maximum margin


@pytest.mark.parametrize("k", [1, 3])
def test_polynomial_flow_approaches_its_direction_like_a_power_of_time(k):
    s = (k + 2) * np.arange(4.0, 14.0, 2.0)
    w = geo.polynomial_flow(Z4, ones(Z4), s, k, w0=[0.3, -1.0, 2.0])
    error = np.linalg.norm(w / np.linalg.norm(w, axis=1)[:, None] - geo.polynomial_direction(Z4, ones(Z4), k), axis=1)
    slope = np.diff(np.log(error)) / np.diff(s / (k + 2))
    np.testing.assert_allclose(slope, -1, atol=0.15)


def test_polynomial_flow_agrees_with_plain_integration_in_time():
    k, s = 2.0, np.log1p([0.0, 1.0, 20.0])

    def velocity(t, w):
        return np.where(Z4 @ w > 0, k * (1 + np.maximum(Z4 @ w, 0)) ** (-k - 1), k) @ Z4

    plain = solve_ivp(velocity, (0, 20), [-1.0, 0.2, 0.1], t_eval=np.expm1(s), rtol=1e-11, atol=1e-12).y.T
    np.testing.assert_allclose(geo.polynomial_flow(Z4, ones(Z4), s, k, w0=[-1.0, 0.2, 0.1]), plain, atol=1e-8)


# --- steepest descent


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, INF])
def test_steepest_step_maximises_the_linear_gain(p):
    rng = np.random.default_rng(3)
    g, V = rng.normal(size=4), rng.normal(size=(4, 20_000))
    v = geo.steepest_step(g, p)
    assert g @ v == pytest.approx(np.linalg.norm(v, p) ** 2, rel=1e-12)
    gain = (g @ V) / np.linalg.norm(V, p, axis=0)
    assert gain.max() <= g @ v / np.linalg.norm(v, p) + 1e-12
    assert gain.max() > 0.9 * g @ v / np.linalg.norm(v, p)


@pytest.mark.parametrize("p", [1, 2, INF])
def test_steepest_descent_reaches_the_margin_of_its_norm_and_of_no_other(p):
    X, y = separable(2, 6, 5)
    k = 20_000
    w = geo.steepest_descent(X, y, p, 0.5 / np.sqrt(np.arange(1, k + 1)), k)
    ratio = {q: geo.margin(X, y, w, q) / geo.margin_direction(X, y, q).margin for q in (1, 2, INF)}
    assert 0.98 < ratio.pop(p) <= 1 + 1e-12
    assert max(ratio.values()) < 0.95


@pytest.mark.parametrize("p", [1, 2, 3, INF])
def test_margin_of_steepest_descent_obeys_the_proven_bound(p):
    X, y = separable(61, 10, 12)
    best = geo.margin_direction(X, y, p).margin
    R = np.linalg.norm(X, {1: INF, INF: 1}.get(p) or p / (p - 1), axis=1).max()
    eta = 2 / R**2 / np.sqrt(np.arange(1, 20_001))
    gap, bound = [], []
    for k in (2_000, 6_000, 20_000):
        w = geo.steepest_descent(X, y, p, eta[:k], k)
        gap.append(best - geo.margin(X, y, w, p))
        bound.append((R**3 * (eta[:k] ** 2).sum() / 2 + np.log(10) / best) / eta[:k].sum())
    assert (np.array(gap) >= -1e-12).all()
    assert (np.array(gap) <= bound).all()
    assert bound[-1] < best  # the bound says something
    assert gap[2] < gap[1] < gap[0]


def test_steepest_descent_in_l2_is_normalised_gradient_descent():
    X, y = separable(2, 10, 3)
    w = np.zeros(3)
    for _ in range(50):
        q = np.exp(-y * (X @ w))
        w = w + 0.1 * (y * q) @ X / q.sum()
    np.testing.assert_allclose(geo.steepest_descent(X, y, 2, 0.1, 50), w, rtol=1e-12)
    half = geo.steepest_descent(X, y, 2, 0.1, 25)
    np.testing.assert_allclose(geo.steepest_descent(X, y, 2, 0.1, 25, w0=half), w, rtol=1e-12)


def test_sign_descent_on_the_squared_loss_has_a_limit_that_depends_on_the_step():
    rng = np.random.default_rng(61)
    X, y = rng.normal(size=(5, 12)) / np.sqrt(12), rng.normal(size=5)
    limits = []
    for eta in (0.02, 0.01, 0.005):
        w = np.zeros(12)
        for _ in range(20_000):
            w = w + eta * geo.steepest_step(X.T @ (y - X @ w), INF)
        np.testing.assert_allclose(X @ w, y, atol=1e-10)
        limits.append(w)
    assert min(np.abs(limits[i] - limits[j]).max() for i, j in [(0, 1), (1, 2), (0, 2)]) > 1e-4


# --- mirror descent

COSH = geo.Potential(np.sinh, np.arcsinh, lambda theta: 1 / np.sqrt(1 + theta**2))
POTENTIALS = {
    "quadratic": (geo.quadratic(), lambda w: w**2 / 2),
    "entropy": (geo.entropy(), lambda w: w * np.log(w) - w),
    "hypentropy": (geo.hypentropy(0.3), lambda w: w * np.arcsinh(w / 0.18) - np.sqrt(w**2 + 0.18**2)),
    "power 1.5": (geo.power(1.5), lambda w: np.abs(w) ** 1.5 / 1.5),
    "quartic": (geo.power(4.0), lambda w: w**4 / 4),
    "cosh": (COSH, np.cosh),
}


def regression(name):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(3, 7))
    return X, X @ rng.uniform(0.5, 1.5, size=7), rng.uniform(0.5, 1.0, size=7)


@pytest.mark.parametrize("name", POTENTIALS)
def test_mirror_flow_ends_at_the_mirror_limit(name):
    X, y, w0 = regression(name)
    potential, _ = POTENTIALS[name]

    def velocity(t, w):  # in the weights, not in the dual variables
        return potential.inverse_link_derivative(potential.link(w)) * (X.T @ (y - X @ w))

    flow = solve_ivp(velocity, (0, 400), w0, method="LSODA", rtol=1e-11, atol=1e-12).y[:, -1]
    w = geo.mirror_limit(X, y, potential, w0)
    np.testing.assert_allclose(w, flow, atol=1e-7)
    np.testing.assert_allclose(X @ w, y, atol=1e-12)


@pytest.mark.parametrize("name", POTENTIALS)
def test_mirror_limit_minimises_the_bregman_divergence(name):
    X, y, w0 = regression(name)
    potential, psi = POTENTIALS[name]
    w = geo.mirror_limit(X, y, potential, w0)
    K = np.linalg.svd(X)[2][3:].T  # the directions that keep Xw = y

    def divergence(w):
        return (psi(w) - psi(w0) - potential.link(w0) * (w - w0)).sum()

    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-2, 1e-3):
        for v in rng.normal(size=(20, 4)):
            step = size * K @ v / np.linalg.norm(v)
            if name != "entropy" or (w + step > 0).all():
                assert divergence(w + step) > divergence(w)
    assert np.abs(K.T @ (potential.link(w) - potential.link(w0))).max() < 1e-11


@pytest.mark.parametrize("eta", [0.02, 0.04])
@pytest.mark.parametrize("name", ["quadratic", "entropy", "hypentropy", "cosh"])
def test_mirror_descent_ends_at_the_mirror_limit_for_every_stable_step(name, eta):
    X, y, w0 = regression(name)
    potential, _ = POTENTIALS[name]
    w = geo.mirror_descent(X, y, potential, eta, 20_000, w0)
    np.testing.assert_allclose(w, geo.mirror_limit(X, y, potential, w0), atol=1e-12)


def test_quadratic_limit_is_the_projection_of_the_start_for_any_rank():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(4, 2)) @ rng.normal(size=(2, 6))
    y, w0 = X @ rng.normal(size=6), rng.normal(size=6)
    w = geo.mirror_limit(X, y, geo.quadratic(), w0)
    np.testing.assert_allclose(w, w0 + np.linalg.pinv(X) @ (y - X @ w0), atol=1e-13)


def test_entropy_and_hypentropy_limits_are_those_of_the_diagonal_networks():
    X, y = [[1, 0.5, 2], [0.3, 1, -1]], [1.4, 0.3]
    tied = geo.mirror_limit(X, y, geo.entropy(), [0.01] * 3)  # u = v = 0.1
    np.testing.assert_allclose(tied, [0.425922024477477, 0.527409904334415, 0.355186511677658], rtol=1e-9)
    signed = geo.mirror_limit(X, y, geo.hypentropy(0.01), [0.0] * 3)
    np.testing.assert_allclose(signed, [0.399676191618297, 0.544207237364290, 0.364110094849779], rtol=1e-9)


def test_gradient_flow_of_squared_weights_is_the_mirror_flow_of_the_entropy():
    X, y = np.array([[1, 0.5, 2], [0.3, 1, -1]]), np.array([1.4, 0.3])
    u = solve_ivp(lambda t, u: 2 * u * (X.T @ (y - X @ u**2)), (0, 200), [0.1, 0.2, 0.3], rtol=1e-11, atol=1e-13).y[
        :, -1
    ]
    np.testing.assert_allclose(u**2, geo.mirror_limit(X, y, geo.entropy(), [0.01, 0.04, 0.09]), atol=1e-8)
    wrong = geo.mirror_limit(X, y, geo.entropy(), [0.1, 0.2, 0.3])  # u0 in place of u0^2
    assert np.abs(u**2 - wrong).max() > 1e-3


@pytest.mark.parametrize("p", [1.2, 1.5, 3.0, 4.0])
def test_power_limit_from_zero_has_least_norm(p):
    X, y, _ = regression("")
    w = geo.mirror_limit(X, y, geo.power(p), np.zeros(7))
    nu = np.linalg.lstsq(X.T, np.sign(w) * np.abs(w) ** (p - 1), rcond=None)[0]
    dual = y @ nu / np.linalg.norm(X.T @ nu, p / (p - 1))  # weak duality: every nu bounds the least norm below
    assert np.linalg.norm(w, p) == pytest.approx(dual, rel=1e-12)


# --- bad input

NOT_SEPARABLE = ([[1.0], [1.0]], [1, -1])
BAD = {
    "labels": (lambda: geo.margin_direction(TWO, [1, 2]), ValueError, "y"),
    "nan": (lambda: geo.margin_direction([[np.nan, 1]], [1]), ValueError, "X"),
    "text": (lambda: geo.margin_direction([["a"]], [1]), TypeError, "X"),
    "empty": (lambda: geo.margin_direction(np.zeros((0, 2)), []), ValueError, "X"),
    "order below one": (lambda: geo.margin_direction(TWO, [1, 1], 0.5), ValueError, "p = 0.5"),
    "order nan": (lambda: geo.margin_direction(TWO, [1, 1], np.nan), ValueError, "p"),
    "not separable": (lambda: geo.margin_direction(*NOT_SEPARABLE), ValueError, "separable"),
    "not separable, tail": (lambda: geo.polynomial_direction(*NOT_SEPARABLE, 1), ValueError, "separable"),
    "zero weights": (lambda: geo.margin(TWO, [1, 1], [0, 0]), ValueError, "w"),
    "weights of another size": (lambda: geo.margin(TWO, [1, 1], [1, 0, 0]), ValueError, "w"),
    "exponent zero": (lambda: geo.polynomial_direction(TWO, [1, 1], 0), ValueError, "k = 0"),
    "negative time": (lambda: geo.polynomial_flow(TWO, [1, 1], [-1.0], 1), ValueError, "log_t"),
    "overflowing time": (lambda: geo.polynomial_flow(TWO, [1, 1], [2200.0], 1), ValueError, "2200"),
    "start": (lambda: geo.polynomial_flow(TWO, [1, 1], [1.0], 1, [1.0]), ValueError, "w0"),
    "step of a matrix": (lambda: geo.steepest_step(TWO, 2), ValueError, "g"),
    "negative step": (lambda: geo.steepest_descent(TWO, [1, 1], 2, -0.1, 3), ValueError, "eta = -0.1"),
    "one step not positive": (lambda: geo.steepest_descent(TWO, [1, 1], 2, [1, 0, 1], 3), ValueError, r"eta\[1\]"),
    "steps of another number": (lambda: geo.steepest_descent(TWO, [1, 1], 2, [1, 1], 3), ValueError, "eta"),
    "negative count": (lambda: geo.steepest_descent(TWO, [1, 1], 2, 0.1, -1), ValueError, "k = -1"),
    "float count": (lambda: geo.steepest_descent(TWO, [1, 1], 2, 0.1, 2.5), TypeError, "k = 2.5"),
    "outside the domain": (lambda: geo.mirror_limit(TWO, [1, 1], geo.entropy(), [1, -1]), ValueError, "w0"),
    "on the boundary": (lambda: geo.mirror_limit(TWO, [1, 1], geo.entropy(), [1, 0]), ValueError, "w0"),
    "inconsistent": (lambda: geo.mirror_limit([[1.0], [1.0]], [1, 2], geo.quadratic(), [0]), ValueError, "y"),
    "infeasible": (lambda: geo.mirror_limit([[1.0, 1.0]], [-1], geo.entropy(), [1, 1]), ValueError, "domain"),
    "diverging": (lambda: geo.mirror_descent(TWO, [1, 1], geo.quadratic(), 9.0, 999, [0, 0]), ValueError, "eta"),
    "alpha": (lambda: geo.hypentropy(0.0), ValueError, "alpha"),
    "power one": (lambda: geo.power(1.0), ValueError, "p"),
}


def test_a_polynomial_flow_that_takes_too_long_says_so():
    """Columns of the sizes 1 and 1e-3 to 4000, as in the raw cancer data."""
    rng = np.random.default_rng(0)
    X = rng.lognormal(0, 0.3, size=(200, 20)) * np.geomspace(1e-3, 4e3, 20)
    with pytest.raises(ArithmeticError, match="scale the columns"):
        geo.polynomial_flow(X, np.sign(X[:, 0] - np.median(X[:, 0])), [60.0], 2.0)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case):
    call, error, match = BAD[case]
    with pytest.raises(error, match=match):
        call()


def test_times_of_a_polynomial_flow_may_stand_in_any_order():
    X, y = [[1.0, 0.5], [0.2, 1.0]], [1, 1]
    forwards = geo.polynomial_flow(X, y, [0.0, 1.0, 2.0], k=1)
    again = geo.polynomial_flow(X, y, log_t=[2.0, 0.0, 1.0, 2.0], k=1)
    np.testing.assert_array_equal(again, forwards[[2, 0, 1, 2]])


@pytest.mark.parametrize("p", [1, 2, np.inf])
@pytest.mark.parametrize("n", [3, 5, 7, 10, 11])
def test_steepest_descent_does_not_follow_rounding(n, p):
    """Balanced classes and an intercept, whose gradient is zero, but not as it is computed."""
    x = np.linspace(0.1, 1, n)
    Z, y = np.c_[np.r_[x, -x], np.ones(2 * n)], np.r_[np.ones(n), -np.ones(n)]
    np.testing.assert_allclose(geo.steepest_descent(Z, y, p, 1.0, 1), [x.mean(), 0], atol=1e-15)
    assert geo.steepest_descent(Z, y, p, 1.0, 30)[1] == pytest.approx(0, abs=1e-13)


def test_steepest_descent_does_not_depend_on_the_order_of_the_examples():
    """Coordinates that tie, in exact arithmetic: the first of them moves, however the sums are rounded."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(12, 1)) + 2
    Z = np.hstack([x, x[::-1], -x])
    paths = [
        geo.steepest_descent(Z[order], np.ones(12), 1, 0.1, 1) for order in (rng.permutation(12) for _ in range(20))
    ]
    np.testing.assert_allclose(paths, np.tile([0.1 * x.mean(), 0, 0], (20, 1)), rtol=1e-14)


def test_a_gradient_above_rounding_is_followed():
    """Control: a difference of 1e-12 between two classes is data, not noise."""
    step = geo.steepest_descent([[1.0, 1.0], [1.0, -1.0 + 1e-12]], [1, 1], np.inf, 1.0, 1)
    np.testing.assert_allclose(step, [1, 1], rtol=1e-11)


# --- limits in all units, and from starts at the edge ---------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-200, 1e-80, 1e80, 1e200])
def test_mirror_limits_are_those_in_other_units(size):
    """w -> size w; of powers from zero, by hand: w_j is x_j^(1/(p-1)) over the sum of x_j^(p/(p-1))."""
    start = np.full(2, size)
    near = geo.mirror_limit([[1, 2]], [size], geo.entropy(), start)
    np.testing.assert_allclose(near / size, [1 / 2, 1 / 4], rtol=1e-10)
    near = geo.mirror_limit([[1, 2]], [size], geo.power(1.5), np.zeros(2))
    np.testing.assert_allclose(near / size, [1 / 9, 4 / 9], rtol=1e-10)
    if 1e-100 < size < 1e100:  # for its link is the square: 1 + x nu, nu = -24/49
        near = geo.mirror_limit([[1 / size, 2 / size]], [1.0], geo.power(3), start)
        np.testing.assert_allclose(near / size, [5 / 7, 1 / 7], rtol=1e-10)


@pytest.mark.parametrize("alpha", [1e-20, 1e-150, 1e-300])
def test_mirror_limits_from_next_to_nothing(alpha):
    """w = alpha (q, q²) with alpha (q + 2 q²) = 1, and w = alpha² (e^z - e^-z), z = (1, 2) nu."""
    np.testing.assert_allclose(
        geo.mirror_limit([[1, 2]], [1], geo.entropy(), [alpha, alpha]),
        [np.sqrt(alpha / 2), 1 / 2 - np.sqrt(alpha / 2) / 2], rtol=1e-9,
    )  # fmt: skip
    w = geo.mirror_limit([[1, 2]], [1], geo.hypentropy(alpha), [0, 0])
    np.testing.assert_allclose(w, [alpha / np.sqrt(2), 1 / 2], rtol=1e-9)


# --- margins of points of all sizes, in norms of all orders ---------------------------------------------------------


@pytest.mark.parametrize("p", [1, 1.05, 1.5, 2, 3, 7, 30, 1000.0, np.inf])
@pytest.mark.parametrize("sizes", [(1, 1), (1e-4, 1e3), (1e8, 1e-8)])
def test_orthogonal_points_of_all_sizes_have_their_margins(p, sizes):
    """The constraints decouple: w_i = 1/a_i."""
    found = geo.margin_direction(np.diag(sizes), [1, 1], p)
    np.testing.assert_allclose(found.w, 1 / np.array(sizes), rtol=1e-7)
    top = max(found.w)
    assert found.margin == pytest.approx(1 / (top * np.linalg.norm(found.w / top, p)), rel=1e-9)


@pytest.mark.parametrize("p", [1.02, 1.2, 4, 10, 100, 1000.0])
def test_margins_of_small_integers_have_a_certificate(p):
    """Weak duality on both sides, found in float64 and checked in 50 digits."""
    rng = np.random.default_rng(8)
    for _ in range(4):
        Z = rng.integers(-3, 4, (6, 9)) * 1.0
        found = geo.margin_direction(Z, np.ones(6), p)
        with mpmath.workdps(50):
            w, q = (mpmath.matrix(v.tolist()) for v in (found.w, found.dual))
            lower = min(mpmath.matrix(Z.tolist()) * w) / precise_norm(w, mpmath.mpf(p))
            upper = precise_norm(mpmath.matrix(Z.T.tolist()) * q, p / (mpmath.mpf(p) - 1)) / mpmath.fsum(q)
            assert found.dual.min() >= 0
            assert abs(upper / lower - 1) < 2e-8
            assert abs(found.margin / lower - 1) < 2e-8


def precise_norm(v, p):
    return mpmath.fsum(abs(x) ** p for x in v) ** (1 / p)


@pytest.mark.parametrize(
    ("X", "y", "p", "w"),
    [
        ([[1, 1e-9], [-1, 1e-9]], [1, 1], 1, [0, 1e9]),
        ([[1, 1e-9], [-1, 1e-9]], [1, 1], 1.5, [0, 1e9]),
        ([[1, 0.5], [0.2, 1]], [1, 1], 1e9, [5 / 6, 5 / 6]),
        ([[-7.6e6, -3.5e-5], [6.8e6, -7.2e-5]], [-1, -1], np.inf, [3.7e-5 / 785.2, 14.4e6 / 785.2]),
    ],
)
def test_margins_whose_dual_cancels(X, y, p, w):
    """Both constraints are tight, and w solves two equations (for p = 1e9, 5/6 is the larger norm of one of them)."""
    np.testing.assert_allclose(geo.margin_direction(X, y, p).w, w, rtol=1e-6, atol=1e-6)


def test_a_far_and_a_near_point_have_their_margin():
    """-w against (-2.9e-4, 9e-5) and (100, -1100): the near one alone is tight, w = lambda |theta|^2, theta its row."""
    found = geo.margin_direction([[-2.9e-4, 9e-5], [100, -1100]], [-1, -1], 1.5)
    near = np.array([2.9e-4, -9e-5])
    Z = np.array([near, [-100.0, 1100.0]])
    assert (Z @ found.w).min() == pytest.approx(1, rel=1e-9)
    both = np.linalg.solve(Z, np.ones(2))
    np.testing.assert_allclose(found.w, both, rtol=1e-6)


@pytest.mark.parametrize("potential", [geo.quadratic(), geo.entropy(), geo.hypentropy(0.3), geo.power(3.0)])
def test_a_potential_can_be_sent_to_another_process(potential):
    there, x = pickle.loads(pickle.dumps(potential)), np.array([0.5, 2.0])
    for name in ("link", "inverse_link", "inverse_link_derivative"):
        assert np.array_equal(getattr(there, name)(x), getattr(potential, name)(x))
    assert "lambda" not in repr(potential)
    assert "partial" not in repr(potential)
