"""The chapter on incremental learning: each claim by an independent method, and each check with its negative control.

A control runs the claim's formula with one thing wrong in it, and the check must fail.
"""

import numpy as np
import pytest
from implicitreg.checks import CheckFailed, check, rate
from implicitreg.flow import diagonal, incremental, minnorm
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq, minimize

DEPTHS = (1, 2, 3, 4)


def time_to(fraction, target, alpha, depth):
    """The raw parameter u, integrated until u^L is the fraction of the target."""

    def slope(_, u):
        return depth * u ** (depth - 1) * (target - u**depth)

    def reached(_, u):
        return u[0] ** depth - fraction * target

    reached.terminal = True
    return solve_ivp(slope, (0, 1e4), [alpha], "DOP853", events=reached, rtol=1e-12, atol=1e-14).t_events[0][0]


def clock(stop, start, target, depth, chain=2):
    """Quadrature of dw / (L^2 w^(2 - 2/L) (w* - w)); chain = 1 forgets that the chain rule acts twice."""
    return quad(lambda q: 1 / (depth**chain * np.exp(q * (1 - 2 / depth)) * (target - np.exp(q))),
                np.log(start), np.log(stop), epsabs=0, epsrel=1e-12, limit=200)[0]  # fmt: skip


@pytest.mark.parametrize("depth", DEPTHS)
def test_waiting_times_by_integration_of_the_raw_parameter(depth):
    for fraction, target, alpha in ((0.5, 2.0, 0.1), (0.9, 0.7, 0.05)):
        predicted = incremental.activation_time(target, alpha, depth, fraction)
        check("hegde-3.6", measured=time_to(fraction, target, alpha, depth), predicted=predicted, rtol=1e-8)


def test_half_times_to_the_known_digits():
    known = {2: 0.661663103090562, 3: 1.55377584637886, 4: 6.22613907230027}
    for depth, value in known.items():
        check("hegde-3.6", measured=incremental.activation_time(2.0, 0.1, depth), predicted=value, rtol=1e-12)


@pytest.mark.parametrize("depth", [3, 4])
def test_waiting_time_of_deep_networks_to_leading_order(depth):
    """T minus its leading term stays bounded while T grows by five orders of magnitude."""
    leading = lambda a: 1 / (depth * (depth - 2) * 2.0 * a ** (depth - 2))  # noqa: E731
    rest = [incremental.activation_time(2.0, a, depth) - leading(a) for a in (1e-2, 1e-3, 1e-4)]
    assert np.ptp(rest) < 0.1
    assert abs(rest[-1]) < 1e-3 * leading(1e-4)
    wait = [incremental.activation_time(2.0, a, 2) - np.log(1 / a**2) / 8 for a in (1e-4, 1e-8, 1e-16)]
    np.testing.assert_allclose(wait, np.log(2) / 8, atol=1e-8)


def test_rise_does_not_depend_on_the_start():
    for depth in DEPTHS:
        rises = [np.diff([incremental.activation_time(2.0, a, depth, f) for f in (0.3, 0.9)]) for a in (0.1, 0.02)]
        check("hegde-3.6", measured=rises[0], predicted=rises[1], rtol=1e-6)


def test_thresholds_to_the_known_digits():
    known = {2.0: "0.018 0.0627 0.0833", 1.2: "2.27e-06 0.00414 0.0108", 1.05: "1.03e-20 0.000118 0.000881"}
    for sigma1, digits in known.items():
        assert " ".join(f"{incremental.depth_separation(sigma1, 1.0, L):.3g}" for L in (2, 3, 4)) == digits


def bisected_threshold(sigma1, depth, chain=2):
    def lead(q):
        return clock(0.25, np.exp(q), 1.0, depth, chain) - clock(0.75 * sigma1, np.exp(q), sigma1, depth)

    return np.exp(brentq(lead, -60, np.log(0.2499), xtol=1e-12))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_thresholds_by_quadrature(depth):
    for sigma1 in (2.0, 1.2):
        predicted = incremental.depth_separation(sigma1, 1.0, depth)
        check("hegde-3.6-depth", measured=bisected_threshold(sigma1, depth), predicted=predicted, rtol=1e-7)


def asymptotic(r, s=0.25, f=0.75):
    return ((s / (1 - s)) ** r * (1 - f) / (f * r)) ** (1 / (r - 1))


def test_thresholds_as_the_targets_approach():
    for r in (1.1, 1.05):
        exact = incremental.depth_separation(r, 1.0, 2)
        check("hegde-3.6-depth", measured=exact, predicted=asymptotic(r), rtol=1e-8)
    exact = incremental.depth_separation(2.0, 1.0, 2)
    assert abs(asymptotic(2.0) / exact - 1) < 3 * exact
    gaps = 2.0 ** -np.arange(6, 12)
    for depth in (3, 4):
        bars = [incremental.depth_separation(1 + x, 1.0, depth) for x in gaps]
        check("hegde-3.6-depth", measured=rate(gaps, bars), predicted=depth / (depth - 2), atol=0.15)
    assert incremental.depth_separation(100.0, 1.0, 1) == 0


rng = np.random.default_rng(8)
XG = rng.normal(size=(6, 12)) * rng.uniform(0.5, 2, size=12)
YG = rng.normal(size=6)


def time_of_first(log_alpha, X=XG, y=YG, delta=1e-3):
    """When the l1 norm of the weights is delta, by bisection on the sampled flow."""
    end = -2 * log_alpha / (4 * np.abs(X.T @ y).max()) * 1.3
    t = np.linspace(0, end, 2001)
    size = np.abs(diagonal.trajectory(X, y, t, log_alpha=log_alpha)).sum(axis=1)
    return np.interp(delta, size[: np.argmax(size > delta) + 1], t[: np.argmax(size > delta) + 1])


def test_first_activation_tends_to_the_largest_correlation():
    """t_delta/log(1/alpha^2) is in the interval of the proposition, up to the terms of order 1/log."""
    c, R2, delta = np.abs(XG.T @ YG), (XG**2).sum(axis=0).max(), 1e-3
    for log_alpha in (-100.0, -1000.0):
        ratio, slack = time_of_first(log_alpha) / (-2 * log_alpha), 12 / (-2 * log_alpha)
        assert (1 - slack) / (4 * (c.max() + R2 * delta)) <= ratio <= 1 / (4 * (c.max() - R2 * delta))
    alpha = np.exp(-300.0)
    check("hegde-erratum-20", measured=time_of_first(-300.0),
          predicted=incremental.first_activation_time(XG, YG, alpha), rtol=0.02)  # fmt: skip


def test_who_is_first_is_the_best_correlated_weight():
    t = time_of_first(-1000.0)
    w = np.abs(diagonal.trajectory(XG, YG, [t], log_alpha=-1000.0)[0])
    largest = np.argmax(np.abs(diagonal.limit(XG, YG, log_alpha=-1000.0).w))
    assert np.argmax(w) == np.argmax(np.abs(XG.T @ YG)) != largest
    assert np.sort(w)[-2] < 1e-20


def test_smaller_target_first_with_columns_of_unit_length():
    X = np.linalg.cholesky([[1, 0, 0], [0, 1, 0.9], [0, 0.9, 1.0]]).T
    np.testing.assert_allclose(X.T @ X @ [3, 2, 2], [3, 3.8, 3.8], atol=1e-12)
    t = np.linspace(0, 8, 4001)
    halves = incremental.crossing_times(t, diagonal.trajectory(X, X @ [3, 2, 2], t, 1e-6), [1.5, 1, 1])
    assert halves[1:].max() < halves[0]


def test_two_unit_columns_are_learned_in_the_order_of_magnitude():
    g = np.random.default_rng(0)
    for _ in range(200):
        w, rho = g.normal(size=2), g.uniform(-1, 1)
        c = np.abs(w + rho * w[::-1])
        assert np.argmax(c) == np.argmax(np.abs(w))


def factor_flow(theta, t, alpha, depth=2):
    """u^L - v^L for orthonormal columns, one coordinate at a time, in the logarithms of u and v."""

    def slope(_, q):
        p, m = np.exp(depth * q)
        rise = depth * np.exp((depth - 2) * q) * (theta - p + m)
        return [rise[0], -rise[1]]

    u, v = np.exp(solve_ivp(slope, (0, t), [np.log(alpha)] * 2, "LSODA", rtol=1e-11, atol=1e-11).y[:, -1])
    return u**depth - v**depth


THETA = np.array([-1.7, 1.2, 0.9, 0.6, 0.45, -0.2, 0.05, 0.0])


def bounds(tau, alpha):
    size = np.abs(THETA)
    return alpha ** (2 * (1 - size / tau)), THETA**2 * alpha ** (2 * (size / tau - 1)) + alpha**2


@pytest.mark.parametrize("alpha", [0.3, 1e-2, 1e-6])
def test_stopping_thresholds_within_the_bounds(alpha):
    for tau in (0.3, 0.7, 1.4):
        w = np.array([factor_flow(th, incremental.thresholding_time(tau, alpha), alpha) for th in THETA])
        below, above = bounds(tau, alpha)
        assert (np.abs(w) <= below * (1 + 1e-7)).all()
        assert (np.abs(w - THETA) <= above * (1 + 1e-7)).all()


def test_depth_sharpens_the_threshold():
    for depth in (3, 4):
        tau, alpha = 0.7, 0.05
        t = incremental.thresholding_time(tau, alpha, depth)
        for th in THETA[np.abs(THETA) < tau]:
            bound = alpha**depth * (1 - abs(th) / tau) ** (-depth / (depth - 2))
            assert abs(factor_flow(th, t, alpha, depth)) <= bound * (1 + 1e-7)


def gaussian():
    g = np.random.default_rng(21)
    X, truth = g.normal(size=(100, 400)) / np.sqrt(100), np.r_[1, -1, 1, -1, 1, np.zeros(395)]
    return X, X @ truth + 0.5 * g.normal(size=100) / np.sqrt(100), truth


def test_gaussian_experiment_to_the_known_digits():
    X, y, truth = gaussian()
    oracle = np.r_[np.linalg.solve(X[:, :5].T @ X[:, :5], X[:, :5].T @ y), np.zeros(395)]
    error = lambda w: np.linalg.norm(w - truth, axis=-1)  # noqa: E731
    assert f"{error(oracle):.4f}" == "0.1151"
    assert f"{error(minnorm.limit(X, y)):.3f}" == "1.917"
    assert f"{error(diagonal.basis_pursuit(X, y)):.3f}" == "0.480"
    t = np.geomspace(8, 20, 20)
    check("hegde-3.8", measured=error(diagonal.trajectory(X, y, t, 1e-6)).min(), predicted=error(oracle), rtol=0.01)


def sparse_problem():
    g = np.random.default_rng(11)
    X = g.normal(size=(20, 60))
    return X, X[:, :3].sum(axis=1), 0.1


def sgd(eta, seed=0, time=120, tilt=False):
    """Factors after SGD and, for the tilt, the sum of 2 (artanh s - s)."""
    X, y, alpha = sparse_problem()
    u = v = np.full(60, alpha)
    rho = np.zeros(60)
    for i in np.random.default_rng(seed).integers(20, size=int(time / eta)):
        s = 2 * eta * (y[i] - X[i] @ (u * u - v * v)) * X[i]
        u, v = u * (1 + s), v * (1 - s)
        if tilt:
            rho += 2 * (np.arctanh(s) - s)
    return u, v, rho


def tilted_minimizer(a, rho):
    """The minimum of the tilted potential over the solutions, from its convex dual, by a general optimizer."""
    X, y, _ = sparse_problem()

    def dual(nu):
        z = X.T @ nu + rho
        w = 2 * a**2 * np.sinh(z)
        return 2 * a**2 @ (np.cosh(z) - 1) - y @ nu, X @ w - y

    nu = minimize(dual, np.zeros(20), jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 2000}).x
    return 2 * a**2 * np.sinh(X.T @ nu + rho)


def test_limit_of_sgd_is_that_of_the_effective_scale():
    u, v, rho = sgd(0.03, time=400, tilt=True)
    a = np.sqrt(u * v)
    check("hegde-3.9", measured=u**2 - v**2, predicted=tilted_minimizer(a, rho), atol=1e-6)
    untilted = tilted_minimizer(a, 0 * rho)
    X, y, alpha = sparse_problem()
    np.testing.assert_allclose(untilted, diagonal.limit(X, y, 1.0, shape=a).w, atol=1e-6)
    flow = diagonal.limit(X, y, alpha).w
    assert np.linalg.norm(u**2 - v**2 - untilted) < 0.2 * np.linalg.norm(u**2 - v**2 - flow)


def test_the_package_and_the_loop_agree():
    X, y, alpha = sparse_problem()
    order = np.random.default_rng(0).integers(20, size=int(10 / 0.02))
    w = diagonal.stochastic_gradient_descent(X, y, 0.02, order, alpha).w
    u, v, _ = sgd(0.02, time=10)
    np.testing.assert_allclose(u**2 - v**2, w, atol=1e-10)


def test_tilt_obeys_its_bound():
    s = np.random.default_rng(1).uniform(-0.99, 0.99, size=10_000)
    assert (np.abs(np.arctanh(s) - s) <= np.abs(s) ** 3 / (3 * (1 - s**2))).all()


def test_sgd_shrinks_the_scale_more_than_gradient_descent():
    """The mean of log(1 - s²) over the examples against the log at the mean step, at random points."""
    g = np.random.default_rng(2)
    for _ in range(100):
        X, r = g.normal(size=(7, 5)), g.normal(size=7)
        eta = 0.45 / np.abs(r[:, None] * X).max()
        s = 2 * eta * r[:, None] * X
        sgd_, gd = np.log(1 - s**2).mean(axis=0), np.log(1 - s.mean(axis=0) ** 2)
        assert (sgd_ <= gd).all()
        assert (sgd_ <= -4 * eta**2 / 7 * (r**2 @ X**2)).all()
    same = np.full((7, 5), 0.3)
    np.testing.assert_allclose(np.log(1 - same**2).mean(axis=0), np.log(1 - same.mean(axis=0) ** 2))


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def sgd_control():
    """The scale of the start kept, as if u v were conserved."""
    u, v, rho = sgd(0.03)
    return pair(u**2 - v**2, tilted_minimizer(np.full(60, 0.1), rho))


def stopped(factor=1.0):
    alpha, tau = 1e-6, 0.7
    return np.array([factor_flow(th, factor * np.log(1 / alpha**2) / (4 * tau), alpha) for th in THETA])


def hard(tau=0.7):
    return THETA * (np.abs(THETA) > tau)


CONTROLS = {
    # L in place of L²
    "hegde-3.6": lambda: pair([time_to(0.5, 2.0, 0.1, L) for L in (2, 3)],
                              [clock(1.0, 0.1**L, 2.0, L, chain=1) for L in (2, 3)]),
    # s and f exchanged in the formula for two layers
    "hegde-3.6-depth": lambda: pair(incremental.depth_separation(2.0, 1.0, 2), asymptotic(2.0, s=0.75, f=0.25)),
    # the largest weight of the solution instead of the largest correlation
    "hegde-erratum-20": lambda: pair(time_of_first(-300.0),
                                     600 / (4 * np.abs(diagonal.limit(XG, YG, log_alpha=-300.0).w).max())),
    # log(1/alpha) in place of log(1/alpha²) in the time to stop
    "hegde-3.8": lambda: pair(stopped(0.5), hard()),
    "hegde-3.9": sgd_control,
}  # fmt: skip


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    arguments = CONTROLS[claim]()
    with pytest.raises(CheckFailed):
        check(claim, rtol=0.02, **arguments)


def test_the_control_of_early_stopping_passes_with_the_right_time():
    check("hegde-3.8", measured=stopped(), predicted=hard(), rtol=0.02)
