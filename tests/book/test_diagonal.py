"""The chapter on diagonal networks: each claim by an independent method, and each check with its negative control."""

import numpy as np
import pytest
from implicitreg.checks import CheckFailed, check, rate
from implicitreg.flow import diagonal, minnorm
from scipy.integrate import simpson, solve_ivp
from scipy.optimize import linprog, minimize, nnls

X = np.array([[1.0, 0.5, 2.0], [0.3, 1.0, -1.0]])
Y, ALPHA = np.array([1.4, 0.3]), 0.1
Y_NEGATIVE = X @ np.array([0.5, -0.8, 0.2])
X1, Y1 = np.array([[1.0, 2.0]]), np.array([2.0])
KERNEL = np.linalg.svd(X)[2][-1]


def raw_network(y, alpha, T, signed=True, factor=2.0):
    """The end of the flow of the factors themselves."""

    def velocity(_, uv):
        u, v = uv[:3], uv[3:] * signed
        g = X.T @ (y - X @ (u * u - v * v))
        return factor * np.r_[u * g, -v * g]

    ends = solve_ivp(velocity, (0, T), np.full(6, alpha), "LSODA", rtol=1e-11, atol=1e-13).y[:, -1]
    return ends[:3] ** 2 - signed * ends[3:] ** 2


def on_the_line(potential, signed=True):
    """The minimizer of a convex function over the solutions, a line: one-dimensional search."""
    base = minnorm.limit(X, Y)
    bounds = [(-3.0, 3.0)]
    if not signed:
        ends = [linprog([s], A_ub=-KERNEL[:, None], b_ub=base, bounds=[(-9, 9)]).x[0] for s in (1, -1)]
        bounds = [(ends[0] + 1e-9, ends[1] - 1e-9)]
    value = lambda c: potential(base + float(c[0]) * KERNEL)  # noqa: E731
    c = minimize(
        value, [np.mean(bounds)], bounds=bounds, method="Nelder-Mead", options={"xatol": 1e-11, "fatol": 1e-15}
    )
    return base + c.x[0] * KERNEL


def relative_entropy(w, scale=ALPHA**2):
    return np.sum(w * np.log(w / scale) - w)


def hypentropy(w, scale=ALPHA**2):
    return np.sum(w * np.arcsinh(w / (2 * scale)) - np.sqrt(w**2 + 4 * scale**2))


def deep_potential(w, alpha=ALPHA, L=3):
    return np.sum(w - L / 2 * alpha ** (L - 2) * w ** (2 / L))


def tied_path():
    times = np.linspace(0, 3, 2001)
    w = diagonal.trajectory(X, Y, times, ALPHA, signed=False)
    return times, w, Y - w @ X.T


def sparse_problem():
    g = np.random.default_rng(77)
    Xs = g.normal(size=(20, 60)) / np.sqrt(20)
    truth = np.r_[1.0, -0.5, np.zeros(58)]
    return Xs, truth


def off_support(Xs, truth, scales):
    return [np.abs(diagonal.limit(Xs, Xs @ truth, a).w[truth == 0]).sum() for a in scales]


SCALES = np.geomspace(1e-12, 1e-6, 7)
ETAS = 0.04 / 2.0 ** np.arange(5)


def descended(eta):
    return diagonal.gradient_descent(X, Y, eta, int(80 / eta), ALPHA).w


def test_tied_limit_minimizes_relative_entropy():
    w = diagonal.limit(X, Y, ALPHA, signed=False).w
    check("hegde-3.1", measured=raw_network(Y, ALPHA, 200, signed=False), predicted=w, atol=1e-8)
    check("hegde-3.1", measured=on_the_line(relative_entropy, signed=False), predicted=w, atol=1e-6)


def test_signed_limit_minimizes_hypentropy():
    w = diagonal.limit(X, Y, ALPHA).w
    check("hegde-3.2", measured=raw_network(Y, ALPHA, 200), predicted=w, atol=1e-8)
    check("hegde-3.2", measured=on_the_line(hypentropy), predicted=w, atol=1e-6)


def test_divergence_falls_by_eight_times_the_loss():
    times, w, e = tied_path()
    spent = simpson(np.sum(e**2, axis=1) / 2, x=times)
    for end in (diagonal.limit(X, Y, ALPHA, signed=False).w, np.array([0.0, 0.8, 0.5])):  # also on the boundary
        D = [np.sum(np.where(end > 0, end * np.log(np.maximum(end, 1e-300) / v), 0) - end + v) for v in (w[0], w[-1])]
        check("hegde-erratum-15", measured=D[0] - D[1], predicted=8 * spent, rtol=1e-6)


def test_log_weights_are_four_times_the_impulse():
    times, w, e = tied_path()
    impulse = X.T @ simpson(e, x=times, axis=0)
    check("hegde-erratum-17", measured=np.log(w[-1] / ALPHA**2), predicted=4 * impulse, rtol=1e-6)


def test_gradient_of_the_potential():
    end = diagonal.limit(X, Y, ALPHA, signed=False)
    numeric = [(relative_entropy(end.w + h) - relative_entropy(end.w - h)) / 2e-6 for h in 1e-6 * np.eye(3)]
    check("hegde-erratum-16", measured=numeric, predicted=X.T @ end.dual, atol=1e-7)


def test_small_starts_end_at_basis_pursuit():
    w = diagonal.limit(X1, Y1, log_alpha=-5000.0, signed=False).w
    check("hegde-theorem-2", measured=w, predicted=[0.0, 1.0], atol=1e-9)
    Xs, truth = sparse_problem()
    lp = linprog(np.ones(120), A_eq=np.hstack([Xs, -Xs]), b_eq=Xs @ truth, bounds=(0, None)).x
    w = diagonal.limit(Xs, Xs @ truth, log_alpha=-500.0).w
    check("hegde-theorem-2", measured=w, predicted=lp[:60] - lp[60:], atol=1e-9)


def test_excess_norm_is_below_its_bound():
    Xs, truth = sparse_problem()
    for alpha in (0.3, 1e-2, 1e-4):
        w = diagonal.limit(Xs, Xs @ truth, alpha).w
        h = np.sum(np.abs(truth[:2]) * np.log(np.abs(truth[:2])) - np.abs(truth[:2]))
        assert np.abs(w).sum() - 1.5 <= (h + 60 + 180 * alpha**2) / np.log(1 / alpha**2)


@pytest.mark.parametrize("alpha", [0.9, 0.1, 1e-3])
def test_potential_is_the_norm_plus_the_entropy(alpha):
    w = np.random.default_rng(0).normal(size=(50, 3))
    w[0, 0] = 0
    a = np.abs(w)
    h = np.sum(np.where(a > 0, a * np.log(np.maximum(a, 1e-300)), 0) - a, axis=1)
    rest = [diagonal.potential(v, alpha) for v in w] - a.sum(1) * np.log(1 / alpha**2) - h
    assert (rest >= -1e-12).all()
    assert (rest <= 9 * alpha**2).all()


def test_ties_go_to_the_greatest_entropy():
    tie = np.array([[1.0, 1.0, 0.5]])
    w = diagonal.limit(tie, [1.0], log_alpha=-200.0, signed=False).w
    check("hegde-3.3-entropy", measured=w, predicted=[0.5, 0.5, 0.0], atol=1e-9)


def test_rate_is_twice_the_recovery_exponent():
    Xs, truth = sparse_problem()
    s = diagonal.recovery_exponent(Xs, truth)
    assert 0.05 < s < 0.9
    check("hegde-3.3-rate", measured=rate(SCALES, off_support(Xs, truth, SCALES)), predicted=2 * s, atol=0.15)


def test_large_signed_starts_end_at_the_least_norm():
    w = diagonal.limit(X, Y, 300.0).w
    check("hegde-3.3-kernel", measured=w, predicted=np.linalg.pinv(X) @ Y, atol=1e-7)


def test_large_tied_starts_end_at_the_largest_sum():
    best = linprog(-np.ones(2), A_eq=X1, b_eq=Y1, bounds=(0, None)).x
    check("hegde-erratum-18", measured=diagonal.limit(X1, Y1, 1e6, signed=False).w, predicted=best, atol=1e-5)


def test_tied_layers_stall_at_nonnegative_least_squares():
    w = raw_network(Y_NEGATIVE, ALPHA, 3000, signed=False)
    loss, bound = 0.5 * np.sum((Y_NEGATIVE - X @ w) ** 2), 0.5 * nnls(X, Y_NEGATIVE)[1] ** 2
    assert bound > 0.1
    check("hegde-erratum-14", measured=loss, predicted=bound, atol=1e-6)
    untied = diagonal.untied_limit(X, Y_NEGATIVE, np.full(3, 0.30), np.full(3, 0.29)).w
    assert np.abs(X @ untied - Y_NEGATIVE).max() < 1e-10


def test_deep_limit_minimizes_its_potential():
    w = diagonal.limit(X, Y, ALPHA, depth=3, signed=False).w
    check("hegde-3.4", measured=on_the_line(deep_potential, signed=False), predicted=w, atol=1e-6)
    scales = np.geomspace(1e-4, 1e-2, 6)
    Xs, truth = sparse_problem()
    truth = np.abs(truth)
    excess = [diagonal.limit(Xs, Xs @ truth, a, depth=3, signed=False).w.sum() - truth.sum() for a in scales]
    assert (np.array(excess) <= 1.5 * scales * 10).all()


def test_shape_of_the_start_matters_from_depth_three_on():
    x, c = np.array([[1.0, 1.2, 2.0]]), np.array([1.0, 1.0, 0.25])
    w = diagonal.limit(x, [2.0], 1e-5, depth=3, signed=False, shape=c).w
    lp = linprog(1 / c, A_eq=x, b_eq=[2.0], bounds=(0, None)).x
    check("hegde-erratum-19", measured=w, predicted=lp, atol=1e-6)
    shallow = diagonal.limit(x, [2.0], log_alpha=-500.0, depth=2, signed=False, shape=c).w
    np.testing.assert_allclose(shallow, [0, 0, 1], atol=1e-9)


def test_gradient_descent_errs_by_order_eta():
    goal = diagonal.limit(X, Y, ALPHA).w
    errors = [np.linalg.norm(descended(eta) - goal) for eta in ETAS]
    check("hegde-3.7", measured=rate(ETAS, errors), predicted=1.0, atol=0.15)


@pytest.mark.parametrize("eta", [0.04, 0.01])
def test_mirror_descent_has_the_limit_of_the_flow(eta):
    w = diagonal.mirror_descent(X, Y, eta, int(80 / eta), ALPHA).w
    check("hegde-3.7-mirror", measured=w, predicted=diagonal.limit(X, Y, ALPHA).w, atol=1e-10)


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def fallen(factor):
    times, w, e = tied_path()
    end = diagonal.limit(X, Y, ALPHA, signed=False).w
    return pair(relative_entropy(end, w[0]) - relative_entropy(end, w[-1]) + (w[0] - w[-1]).sum(),
                factor * simpson(np.sum(e**2, axis=1) / 2, x=times))  # fmt: skip


def impulse(factor):
    times, w, e = tied_path()
    return pair(np.log(w[-1] / ALPHA**2), factor * X.T @ simpson(e, x=times, axis=0))


def wrong_rate():
    """The exponent with the one-sided certificate's complement: s* in place of 2 s*."""
    Xs, truth = sparse_problem()
    return pair(rate(SCALES, off_support(Xs, truth, SCALES)), diagonal.recovery_exponent(Xs, truth))


TIE, UNEVEN = np.array([[1.0, 1.0, 0.5]]), np.array([1.0, 1.0, 0.25])
CONTROLS = {
    # a positive sum as the objective, without the entropy: a vertex
    "hegde-theorem-2": lambda: pair(
        diagonal.limit(X1, Y1, log_alpha=-5000.0, signed=False).w,
        linprog([-1, -1], A_eq=X1, b_eq=Y1, bounds=(0, None)).x,
    ),
    # alpha in place of alpha²
    "hegde-3.1": lambda: pair(
        raw_network(Y, ALPHA, 200, signed=False), on_the_line(lambda w: relative_entropy(w, ALPHA), signed=False)
    ),
    "hegde-3.2": lambda: pair(raw_network(Y, ALPHA, 200), on_the_line(lambda w: hypentropy(w, ALPHA))),
    # signs not frozen: ordinary least squares
    "hegde-erratum-14": lambda: pair(
        0.5 * np.sum((Y_NEGATIVE - X @ raw_network(Y_NEGATIVE, ALPHA, 3000, signed=False)) ** 2),
        0.5 * np.sum((Y_NEGATIVE - X @ minnorm.limit(X, Y_NEGATIVE)) ** 2),
    ),
    # four times the loss
    "hegde-erratum-15": lambda: fallen(4),
    # the gradient as printed
    "hegde-erratum-16": lambda: pair(
        np.log(diagonal.limit(X, Y, ALPHA, signed=False).w) / ALPHA**2,
        X.T @ diagonal.limit(X, Y, ALPHA, signed=False).dual,
    ),
    # twice the impulse
    "hegde-erratum-17": lambda: impulse(2),
    "hegde-3.3-rate": wrong_rate,
    # a vertex of the optimal face
    "hegde-3.3-entropy": lambda: pair(
        diagonal.limit(TIE, [1.0], log_alpha=-200.0, signed=False).w, diagonal.basis_pursuit(TIE, [1.0])
    ),
    # the tied network in place of the signed one
    "hegde-3.3-kernel": lambda: pair(diagonal.limit(X, Y, 300.0, signed=False).w, np.linalg.pinv(X) @ Y),
    # the least norm, as printed
    "hegde-erratum-18": lambda: pair(diagonal.limit(X1, Y1, 1e6, signed=False).w, minnorm.limit(X1, Y1)),
    # weights c in place of 1/c
    "hegde-erratum-19": lambda: pair(
        diagonal.limit([[1.0, 1.2, 2.0]], [2.0], 1e-5, depth=3, signed=False, shape=UNEVEN).w,
        linprog(UNEVEN, A_eq=[[1.0, 1.2, 2.0]], b_eq=[2.0], bounds=(0, None)).x,
    ),
    # the power L - 1 of alpha
    "hegde-3.4": lambda: pair(
        on_the_line(lambda w: deep_potential(w, ALPHA**2), signed=False),
        diagonal.limit(X, Y, ALPHA, depth=3, signed=False).w,
    ),
    # no error at all
    "hegde-3.7": lambda: pair(descended(0.04), diagonal.limit(X, Y, ALPHA).w),
    # the step of the factors in the exponent, 2 eta
    "hegde-3.7-mirror": lambda: pair(
        diagonal.mirror_descent(X, Y, 0.02, 20, ALPHA).w, diagonal.mirror_descent(X, Y, 0.04, 20, ALPHA).w
    ),
}


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    with pytest.raises(CheckFailed):
        check(claim, atol=0.15 if claim.endswith("rate") else 1e-4, **CONTROLS[claim]())
