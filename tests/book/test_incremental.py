"""The chapter on incremental learning: each claim by an independent method, and each check with its negative control.

A control runs the claim's formula with one thing wrong in it, and the check must fail.
"""

import ast
import contextlib
import io
import re

import nbformat
import numpy as np
import pytest
from implicitreg import runbook
from implicitreg.checks import CheckFailed, check, rate
from implicitreg.flow import diagonal, incremental, minnorm
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq, linprog, minimize, nnls

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
        check("ours-3.6-depth", measured=bisected_threshold(sigma1, depth), predicted=predicted, rtol=1e-7)


def asymptotic(r, s=0.25, f=0.75):
    return ((s / (1 - s)) ** r * (1 - f) / (f * r)) ** (1 / (r - 1))


def test_thresholds_as_the_targets_approach():
    for r in (1.1, 1.05):
        exact = incremental.depth_separation(r, 1.0, 2)
        check("ours-3.6-depth", measured=exact, predicted=asymptotic(r), rtol=1e-8)
    exact = incremental.depth_separation(2.0, 1.0, 2)
    assert abs(asymptotic(2.0) / exact - 1) < 3 * exact
    gaps = 2.0 ** -np.arange(6, 12)
    for depth in (3, 4):
        bars = [incremental.depth_separation(1 + x, 1.0, depth) for x in gaps]
        check("ours-3.6-depth", measured=rate(gaps, bars), predicted=depth / (depth - 2), atol=0.15)
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


def test_first_activation_tends_to_the_largest_inner_product():
    """t_delta/log(1/alpha^2) is in the interval of the proposition, up to the terms of order 1/log."""
    c, R2, delta = np.abs(XG.T @ YG), (XG**2).sum(axis=0).max(), 1e-3
    for log_alpha in (-100.0, -1000.0):
        ratio, slack = time_of_first(log_alpha) / (-2 * log_alpha), 12 / (-2 * log_alpha)
        assert (1 - slack) / (4 * (c.max() + R2 * delta)) <= ratio <= 1 / (4 * (c.max() - R2 * delta))
    alpha = np.exp(-300.0)
    check("ours-3.6-first", measured=time_of_first(-300.0),
          predicted=incremental.first_activation_time(XG, YG, alpha), rtol=0.02)  # fmt: skip


XS = XG * np.where(np.arange(12) == 4, 0.5, 1)
"""The same with the fifth column half as long: now the largest correlation is not the largest inner product."""


@pytest.mark.parametrize("X", [XG, XS], ids=["as drawn", "one column shorter"])
def test_who_is_first_has_the_largest_inner_product(X):
    t = time_of_first(-1000.0, X)
    w = np.abs(diagonal.trajectory(X, YG, [t], log_alpha=-1000.0)[0])
    largest = np.argmax(np.abs(diagonal.limit(X, YG, log_alpha=-1000.0).w))
    inner = np.abs(X.T @ YG)
    assert np.argmax(w) == np.argmax(inner) != largest
    if X is XS:
        assert np.argmax(w) != np.argmax(inner / np.linalg.norm(X, axis=0))
    assert np.sort(w)[-2] < 1e-20


def raw_tied(X, y, t, alpha):
    """The logarithms of w = u² at the times t, from the raw flow of u."""
    slope = lambda _, u: 2 * u * (X.T @ (y - X @ u**2))  # noqa: E731
    run = solve_ivp(slope, (0, t[-1]), np.full(X.shape[1], alpha), "DOP853", t, rtol=1e-11, atol=1e-17)
    return 2 * np.log(run.y.T)


def test_growth_of_the_logarithm_does_not_depend_on_the_weight():
    """log w_j grows at 4 x_j·e at a time at which the weights differ by orders, and the smaller target is first."""
    X, y, h = np.diag([1.0, 2.0]), np.array([2.0, 2.0]), 1e-4
    early, at, late = raw_tied(X, y, [1 - h, 1, 1 + h], 1e-6)
    w = np.exp(at)
    assert w[1] > 1e3 * w[0]
    check("hegde-3.6-rich", measured=(late - early) / (2 * h), predicted=4 * X.T @ (y - X @ w), rtol=1e-6)
    after = np.exp(raw_tied(X, y, [1.0, 2.0], 1e-6)[1])
    assert after[1] > 0.9
    assert after[0] < 0.1


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


@pytest.mark.parametrize("alpha", [1e-2, 1e-5])
def test_stopped_between_noise_and_signal_it_knows_the_support(alpha):
    """The corollary's bound, with the raw factors; and at the end all of the noise is there."""
    g, tau, eps = np.random.default_rng(4), 0.6, 0.2
    truth = np.r_[2.0, -1.5, 1.3, np.zeros(5)]
    theta = truth + np.clip(0.2 * g.normal(size=8), -(1 - eps) * tau, (1 - eps) * tau)
    assert np.abs(theta[:3]).min() >= (1 + eps) * tau
    w = np.array([factor_flow(th, incremental.thresholding_time(tau, alpha), alpha) for th in theta])
    known = theta * (truth != 0)
    bound = max(1, (theta**2).max()) * alpha ** (2 * eps) + alpha**2
    assert np.abs(w - known).max() <= bound
    end = np.array([factor_flow(th, 1e5, alpha) for th in theta])
    np.testing.assert_allclose(end, theta, atol=1e-6)
    assert np.linalg.norm(end - truth) > np.linalg.norm(known - truth)


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
    check("ours-3.9-effective", measured=u**2 - v**2, predicted=tilted_minimizer(a, rho), atol=1e-6)
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


def far_descent(X, y, eta, log_alpha):
    """Gradient descent of the signed network in log u and log v; the two weights of the norm, from their sums."""
    p = q = np.full(X.shape[1], float(log_alpha))
    plus = minus = np.zeros(X.shape[1])
    for _ in range(100_000):
        w = np.exp(2 * p) - np.exp(2 * q)
        e = y - X @ w
        if np.abs(e).max() < 1e-9:
            return w, 1 - plus / log_alpha, 1 - minus / log_alpha
        s = 2 * eta * X.T @ e
        a, b = np.log1p(s), np.log1p(-s)
        p, q, plus, minus = p + a, q + b, plus + (s - a), minus - (s + b)
    raise AssertionError("not there yet")


def weighted(X, y, plus, minus):
    """The least of the weighted norm over the solutions, and where it is."""
    lp = linprog(np.r_[plus, minus], A_eq=np.hstack([X, -X]), b_eq=y)
    return lp.fun, lp.x[: X.shape[1]] - lp.x[X.shape[1] :]


TWO_ROWS = np.array([[1, 0.5, 2], [0.3, 1, -1]]), np.array([1.4, 0.3])


def test_the_loop_in_logarithms_is_gradient_descent():
    X, y = TWO_ROWS
    w = far_descent(X, y, 0.08, np.log(0.1))[0]
    np.testing.assert_allclose(w, diagonal.gradient_descent(X, y, 0.08, 500, 0.1).w, atol=1e-8)


def test_small_starts_at_a_fixed_step_minimize_a_weighted_norm():
    """The excess over the least of the weighted norm falls like 1/log(1/alpha), and two steps have two vertices."""
    for seed in range(6):
        g = np.random.default_rng(seed)
        X, y = g.normal(size=(2, 4)), g.normal(size=2)
        eta = 0.4 / (2 * np.abs(X.T @ y).max())
        for log_alpha in (-30, -100):
            w, plus, minus = far_descent(X, y, eta, log_alpha)
            assert min(plus.min(), minus.min()) >= 1
            size = plus @ np.maximum(w, 0) + minus @ np.maximum(-w, 0)
            assert -1e-7 <= size / weighted(X, y, plus, minus)[0] - 1 < 2 / -log_alpha
    X, y = TWO_ROWS
    for eta, vertex in ((0.08, [1.25, 0, 0.075]), (0.05, [0, 0.8, 0.5])):
        w, plus, minus = far_descent(X, y, eta, -1000)
        check("ours-3.9-small-start", measured=w, predicted=weighted(X, y, plus, minus)[1], atol=0.01)
        check("ours-3.9-small-start", measured=w, predicted=vertex, atol=0.01)


def without_tilt():
    """The weights from the effective scale alone: their means."""
    X, y = TWO_ROWS
    w, plus, minus = far_descent(X, y, 0.05, -1000)
    return pair(w, weighted(X, y, (plus + minus) / 2, (plus + minus) / 2)[1])


def at_the_end():
    """Not stopped: the error of the limit against that of the oracle."""
    X, y, truth = gaussian()
    known = np.r_[np.linalg.lstsq(X[:, :5], y, rcond=None)[0], np.zeros(395)]
    error = lambda w: np.linalg.norm(w - truth)  # noqa: E731
    return pair(error(diagonal.limit(X, y, 1e-6).w), error(known))


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def best_correlated():
    return np.argmax(np.abs(XS.T @ YG) / np.linalg.norm(XS, axis=0))


def halves_of_two():
    t = np.linspace(0, 8, 8001)
    return incremental.crossing_times(t, np.exp(raw_tied(np.diag([1.0, 2.0]), np.array([2.0, 2.0]), t, 1e-6)), [1, 0.5])


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
    "ours-3.6-depth": lambda: pair(incremental.depth_separation(2.0, 1.0, 2), asymptotic(2.0, s=0.75, f=0.25)),
    # the order of the magnitudes: half-times from the targets alone
    "hegde-3.6-rich": lambda: pair(halves_of_two(), [np.log(w / 1e-12 - 1) / (4 * w) for w in (2.0, 1.0)]),
    # the largest correlation, which forgets the length of the column, instead of the largest inner product
    "ours-3.6-first": lambda: pair(time_of_first(-300.0, XS), 600 / (4 * np.abs(XS.T @ YG)[best_correlated()])),
    "hegde-3.8": at_the_end,
    # log(1/alpha) in place of log(1/alpha²) in the time to stop
    "ours-3.8-stop": lambda: pair(stopped(0.5), hard()),
    "ours-3.9-effective": sgd_control,
    "ours-3.9-small-start": without_tilt,
}  # fmt: skip


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    arguments = CONTROLS[claim]()
    with pytest.raises(CheckFailed):
        check(claim, rtol=0.02, **arguments)


def test_the_control_of_early_stopping_passes_with_the_right_time():
    check("ours-3.8-stop", measured=stopped(), predicted=hard(), rtol=0.02)


# --- the reader's own data


def own(**changes):
    """What the cell of "Try your own" finds, lines changed: jumps with the weights after them, half-times."""
    cells = [c.source for c in nbformat.read(runbook.BOOK / "1-flow" / "05_incremental.ipynb", 4).cells]
    (source,) = [c for c in cells if "X_own = " in c]
    for name, value in changes.items():
        source, n = re.subn(rf"(?m)^{name} = .*?(?=  #|$)", lambda m, n=name, v=value: f"{n} = {v}", source)
        assert n == 1, name
    space = {"np": np, "diagonal": diagonal, "incremental": incremental, "nnls": nnls}
    (stairs,) = [c for c in cells if "def staircase(" in c]
    exec(stairs, space)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(source, space)
    *jumps, last = out.getvalue().splitlines()
    steps = [(float(line.split()[2]), {j: float(v) for j, v in ast.literal_eval(line.split(" to ")[1]).items()})
             for line in jumps]  # fmt: skip
    return steps, ast.literal_eval(last.split(": ", 1)[1].replace("inf", "1e999")), space


def test_try_your_own_half_times_come_near_the_jumps_like_one_over_k():
    away = []
    for k in (20, 40, 80, 160):
        steps, halves, _ = own(**{"k, end": f"{k}, 0.8"})
        rise = {j: next(at for at, up in steps if j in up) for j in halves}
        away.append(max(abs(halves[j] - rise[j]) for j in halves))
    assert (np.array(away) * [20, 40, 80, 160] < 0.3).all()


def test_try_your_own_nothing_happens_without_an_inner_product():
    steps, halves, _ = own(X_own="np.eye(3)[:, :2]", y_own="np.array([0.0, 0.0, 1.0])")
    assert (steps, halves) == ([], {})


def test_try_your_own_beyond_the_last_jump():
    steps, halves, space = own(**{"k, end": "40, 20.0"})
    X, y, up = space["X_own"], space["y_own"], steps[-1][1]
    signs = np.sign(list(up.values()))
    fit = nnls(X[:, list(up)] * signs, y)[0] * signs
    np.testing.assert_allclose(list(up.values()), fit, atol=6e-3)
    np.testing.assert_allclose(space["W"][-1, list(up)], fit, atol=6e-3)
    assert set(halves) <= set(up)


def test_try_your_own_a_weight_that_falls_back_has_no_half_time():
    """26 is up between the third and the fourth jump, and gone at the end."""
    steps, halves, _ = own()
    assert 26 in steps[2][1]
    assert 26 not in steps[3][1]
    assert 26 not in halves


def test_try_your_own_bad_data_are_named():
    with pytest.raises(ValueError, match="y"):
        own(y_own="np.ones(5)")
    with pytest.raises(ValueError, match="X"):
        own(X_own="np.full((12, 30), np.nan)", y_own="np.ones(12)")
