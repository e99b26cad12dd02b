"""The chapter on diagonal networks: each claim by an independent method, and each check with its negative control."""

import re

import nbformat
import numpy as np
import pytest
from implicitreg import runbook
from implicitreg.checks import CheckFailed, check, rate
from implicitreg.flow import diagonal, minnorm
from scipy.integrate import simpson, solve_ivp
from scipy.optimize import linprog, minimize, nnls

X = np.array([[1.0, 0.5, 2.0], [0.3, 1.0, -1.0]])
Y, ALPHA = np.array([1.4, 0.3]), 0.1
Y_NEGATIVE = X @ np.array([0.5, -0.8, 0.2])
X1, Y1 = np.array([[1.0, 2.0]]), np.array([2.0])
KERNEL = np.linalg.svd(X)[2][-1]
DICE = np.array([[1.0, 1, 1], [0, 1, 2]])
JAYNES = np.array([1, Q_DICE := (13**0.5 - 1) / 6, Q_DICE**2]) / (1 + Q_DICE + Q_DICE**2)
UNEVEN = np.array([1.0, 1.0, 0.25])


def velocity_of(y, signed=True, factor=2.0):
    """The flow of the factors; 2 is what the chain rule gives for a square."""

    def velocity(_, uv):
        u, v = uv[:3], uv[3:] * signed
        g = X.T @ (y - X @ (u * u - v * v))
        return factor * np.r_[u * g, -v * g]

    return velocity


def raw_network(y, alpha, T, signed=True):
    """The end of the flow of the factors themselves."""
    ends = solve_ivp(velocity_of(y, signed), (0, T), np.full(6, alpha), "LSODA", rtol=1e-11, atol=1e-13).y[:, -1]
    return ends[:3] ** 2 - signed * ends[3:] ** 2


def both_layers(y, u, v, T=300):
    """The end of the flow of u and v, w = u ∘ v, tied or not."""

    def velocity(_, uv):
        g = X.T @ (y - X @ (uv[:3] * uv[3:]))
        return np.r_[uv[3:] * g, uv[:3] * g]

    uv = solve_ivp(velocity, (0, T), np.r_[u, v], "LSODA", rtol=1e-11, atol=1e-13).y[:, -1]
    return uv[:3] * uv[3:]


def deep_network(x, y, start, T, L=3):
    """The end of the flow of u, w = u^L."""
    velocity = lambda _, u: L * u ** (L - 1) * (x.T @ (y - x @ u**L))  # noqa: E731
    return solve_ivp(velocity, (0, T), start, "LSODA", rtol=1e-11, atol=1e-13).y[:, -1] ** L


def on_the_line(potential, signed=True, y=Y):
    """The minimizer of a convex function over the solutions, a line: one-dimensional search."""
    base = minnorm.limit(X, y)
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


def raw_path(signed=False, factor=2.0):
    """w and e on the way, and the end, of the raw factors, whose equations know no potential and no 4 or 8."""
    times = np.linspace(0, 3, 2001)
    uv = solve_ivp(velocity_of(Y, signed, factor), (0, 200), np.full(6, ALPHA), "LSODA", [*times, 200],
                   rtol=1e-12, atol=1e-14).y  # fmt: skip
    w = (uv[:3] ** 2 - signed * uv[3:] ** 2).T
    return times, w[:-1], Y - w[:-1] @ X.T, w[-1]


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
    check("ours-signed-limit", measured=raw_network(Y, ALPHA, 200), predicted=w, atol=1e-8)
    check("ours-signed-limit", measured=on_the_line(hypentropy), predicted=w, atol=1e-6)


def divergence(a, b):
    return np.sum(np.where(a > 0, a * np.log(np.maximum(a, 1e-300) / b), 0) - a + b)


def test_divergence_falls_by_eight_times_the_loss():
    times, w, e, limit = raw_path()
    spent = simpson(np.sum(e**2, axis=1) / 2, x=times)
    for end in (limit, np.array([0.0, 0.8, 0.5])):  # also on the boundary
        fall = divergence(end, w[0]) - divergence(end, w[-1])
        check("ours-tied-divergence", measured=fall, predicted=8 * spent, rtol=1e-6)


def test_log_weights_are_four_times_the_impulse():
    times, w, e, _ = raw_path()
    impulse = X.T @ simpson(e, x=times, axis=0)
    check("hegde-3.1-constants", measured=np.log(w[-1] / ALPHA**2), predicted=4 * impulse, rtol=1e-6)


def test_gradient_of_the_potential():
    """At the end of the raw factors: finite differences of the printed Q, against the dual of the convex problem."""
    end, dual = raw_path()[-1], diagonal.limit(X, Y, ALPHA, signed=False).dual
    numeric = [(relative_entropy(end + h) - relative_entropy(end - h)) / 2e-6 for h in 1e-6 * np.eye(3)]
    check("hegde-erratum-16", measured=numeric, predicted=X.T @ dual, atol=1e-7)


def test_flow_of_the_factors_is_mirror_flow():
    times, w, e, _ = raw_path(signed=True)
    impulse = X.T @ simpson(e, x=times, axis=0)
    check("hegde-3.7-mirror", measured=np.arcsinh(w[-1] / (2 * ALPHA**2)), predicted=4 * impulse, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_every_scale_has_its_limit(alpha):
    q = (np.sqrt(1 + 16 / alpha**2) - 1) / 4
    by_hand = alpha**2 * np.array([q, q * q])
    check("hegde-3.3-scale", measured=diagonal.limit(X1, Y1, alpha, signed=False).w, predicted=by_hand, atol=1e-9)
    velocity = lambda _, u: 2 * u * (X1.T @ (Y1 - X1 @ (u * u)))  # noqa: E731
    end = solve_ivp(velocity, (0, 60), np.full(2, alpha), "LSODA", rtol=1e-11, atol=1e-13).y[:, -1] ** 2
    check("hegde-3.3-scale", measured=end, predicted=by_hand, atol=1e-8)


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


@pytest.mark.parametrize("signed", [True, False])
def test_ties_go_to_the_greatest_entropy(signed):
    """Distributions on 0, 1, 2 with mean 1/2: the one of greatest entropy is that of an unfair die."""
    w = diagonal.limit(DICE, [1.0, 0.5], log_alpha=-200.0, signed=signed).w
    check("ours-ties", measured=w, predicted=JAYNES, atol=1e-9)


def test_rate_is_twice_the_recovery_exponent():
    Xs, truth = sparse_problem()
    s = diagonal.recovery_exponent(Xs, truth)
    assert 0.05 < s < 0.9
    check("ours-recovery-rate", measured=rate(SCALES, off_support(Xs, truth, SCALES)), predicted=2 * s, atol=0.15)


def test_large_signed_starts_end_at_the_least_norm():
    w = diagonal.limit(X, Y, 300.0).w
    check("ours-signed-kernel", measured=w, predicted=np.linalg.pinv(X) @ Y, atol=1e-7)


def test_large_tied_starts_end_at_the_largest_sum():
    best = linprog(-np.ones(2), A_eq=X1, b_eq=Y1, bounds=(0, None)).x
    check("hegde-erratum-18", measured=diagonal.limit(X1, Y1, 1e6, signed=False).w, predicted=best, atol=1e-5)


def test_tied_layers_stall_at_nonnegative_least_squares():
    w = raw_network(Y_NEGATIVE, ALPHA, 3000, signed=False)
    loss, bound = 0.5 * np.sum((Y_NEGATIVE - X @ w) ** 2), 0.5 * nnls(X, Y_NEGATIVE)[1] ** 2
    assert bound > 0.1
    check("hegde-3.1-sign", measured=loss, predicted=bound, atol=1e-6)


def untied_potential(u0, v0):
    beta = np.abs(u0**2 - v0**2) / 4
    tilt = np.arcsinh(u0 * v0 / (2 * beta))
    return lambda w: np.sum(w * np.arcsinh(w / (2 * beta)) - np.sqrt(w**2 + 4 * beta**2) - w * tilt)


def test_untied_layers_end_at_their_minimizer():
    for u0, v0, y in (
        (np.full(3, 0.30), np.full(3, 0.29), Y_NEGATIVE),
        (np.array([0.6, 0.2, 0.4]), np.array([0.1, -0.3, 0.35]), Y),
    ):
        end, limit = both_layers(y, u0, v0), diagonal.untied_limit(X, y, u0, v0).w
        check("hegde-3.1-tying", measured=end, predicted=limit, atol=1e-8)
        check("hegde-3.1-tying", measured=on_the_line(untied_potential(u0, v0), y=y), predicted=limit, atol=1e-6)


def test_small_untied_starts_end_at_the_least_norm_of_all():
    lp = linprog(np.ones(6), A_eq=np.hstack([X, -X]), b_eq=Y_NEGATIVE, bounds=(0, None)).x
    w = diagonal.limit(X, Y_NEGATIVE, log_alpha=-200.0).w
    check("hegde-3.1-tying", measured=w, predicted=lp[:3] - lp[3:], atol=1e-9)
    assert w.min() < -0.1


def test_deep_limit_minimizes_its_potential():
    w = diagonal.limit(X, Y, ALPHA, depth=3, signed=False).w
    check("hegde-3.4", measured=deep_network(X, Y, np.full(3, ALPHA), 400), predicted=w, atol=1e-8)
    check("hegde-3.4", measured=on_the_line(deep_potential, signed=False), predicted=w, atol=1e-6)
    scales = np.geomspace(1e-4, 1e-2, 6)
    Xs, truth = sparse_problem()
    truth = np.abs(truth)
    excess = [diagonal.limit(Xs, Xs @ truth, a, depth=3, signed=False).w.sum() - truth.sum() for a in scales]
    assert (np.array(excess) <= 1.5 * scales * 10).all()


def powers(depth, signed):
    Xs = np.random.default_rng(5).normal(size=(40, 200)) / np.sqrt(40)
    truth = np.r_[np.full(5, 0.4), np.zeros(195)]
    small = np.geomspace(1e-4, 1e-2, 8) if depth == 3 else np.geomspace(1e-3, 2e-2, 8)
    return rate(small, [np.linalg.norm(diagonal.limit(Xs, Xs @ truth, a, depth=depth, signed=signed).w - truth)
                        for a in small])  # fmt: skip


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("depth", [3, 4])
def test_distance_at_depth_is_a_power_of_the_scale(depth, signed):
    check("ours-depth-power", measured=powers(depth, signed), predicted=depth, atol=0.1, wrong=depth - 2)


@pytest.mark.parametrize("depth", [3, 4])
def test_bound_on_the_weights_off_the_support(depth):
    """The inequality of the proof, with the λ that it chooses."""
    Xs, truth = sparse_problem()
    truth = np.abs(truth)
    S = truth > 0
    A_ub, A_eq = np.hstack([Xs[:, ~S].T, -np.ones((58, 1))]), np.hstack([Xs[:, S].T, np.zeros((2, 1))])
    certificate = linprog(np.r_[np.zeros(20), 1], A_ub, np.zeros(58), A_eq, np.ones(2), bounds=(None, None))
    for alpha in (1e-2, 1e-3):
        gradient = 1 - alpha ** (depth - 2) * truth[S] ** (2 / depth - 1)
        dual = certificate.x[:20] + np.linalg.pinv(Xs[:, S].T) @ (gradient - 1)
        bound = alpha**2 * np.sum((1 - Xs[:, ~S].T @ dual) ** (-2 / (depth - 2)))
        w = diagonal.limit(Xs, Xs @ truth, alpha, depth=depth, signed=False).w[~S]
        assert 0.1 * bound < np.sum(w ** (2 / depth)) <= bound


def test_shape_of_the_start_matters_from_depth_three_on():
    x, c = np.array([[1.0, 1.2, 2.0]]), UNEVEN
    w = diagonal.limit(x, [2.0], 1e-5, depth=3, signed=False, shape=c).w
    lp = linprog(1 / c, A_eq=x, b_eq=[2.0], bounds=(0, None)).x
    check("hegde-3.5-shape", measured=w, predicted=lp, atol=1e-6)
    check("hegde-3.5-shape", measured=deep_network(x, [2.0], 1e-3 * c, 4e4), predicted=lp, atol=1e-6)
    shallow = diagonal.limit(x, [2.0], log_alpha=-500.0, depth=2, signed=False, shape=c).w
    np.testing.assert_allclose(shallow, [0, 0, 1], atol=1e-9)


def test_gradient_descent_errs_by_order_eta():
    goal = diagonal.limit(X, Y, ALPHA).w
    errors = [np.linalg.norm(descended(eta) - goal) for eta in ETAS]
    check("ours-diagonal-steps", measured=rate(ETAS, errors), predicted=1.0, atol=0.15)


@pytest.mark.parametrize("eta", [0.04, 0.01])
def test_mirror_descent_has_the_limit_of_the_flow(eta):
    w = diagonal.mirror_descent(X, Y, eta, int(80 / eta), ALPHA).w
    check("ours-mirror-steps", measured=w, predicted=diagonal.limit(X, Y, ALPHA).w, atol=1e-10)


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def drifted():
    """The flow without the 2 of the chain rule, in which neither 4 nor 8 is right."""
    return raw_path(factor=1.0)


def fallen():
    times, w, e, end = drifted()
    return pair(divergence(end, w[0]) - divergence(end, w[-1]), 8 * simpson(np.sum(e**2, axis=1) / 2, x=times))


def impulse(signed=False):
    times, w, e, _ = raw_path(signed, factor=1.0)
    mirrored = np.arcsinh(w[-1] / (2 * ALPHA**2)) if signed else np.log(w[-1] / ALPHA**2)
    return pair(mirrored, 4 * X.T @ simpson(e, x=times, axis=0))


def wrong_rate():
    """The exponent with the one-sided certificate's complement: s* in place of 2 s*."""
    Xs, truth = sparse_problem()
    return pair(rate(SCALES, off_support(Xs, truth, SCALES)), diagonal.recovery_exponent(Xs, truth))


def from_its_own_scale(eta):
    """The limit of the flow from the scales that the steps have left: with them the first-order error is gone."""
    end = diagonal.gradient_descent(X, Y, eta, int(80 / eta), ALPHA)
    return np.linalg.norm(end.w - diagonal.limit(X, Y, 1.0, shape=np.sqrt(end.u * end.v)).w)


CONTROLS = {  # each with the loosest tolerance that the chapter and the tests allow its claim
    # a positive sum as the objective, without the entropy: a vertex
    "hegde-theorem-2": (1e-9, lambda: pair(
        diagonal.limit(X1, Y1, log_alpha=-5000.0, signed=False).w,
        linprog([-1, -1], A_eq=X1, b_eq=Y1, bounds=(0, None)).x,
    )),
    # alpha in place of alpha²
    "hegde-3.1": (1e-6, lambda: pair(
        raw_network(Y, ALPHA, 200, signed=False), on_the_line(lambda w: relative_entropy(w, ALPHA), signed=False)
    )),
    "ours-signed-limit": (1e-6, lambda: pair(raw_network(Y, ALPHA, 200), on_the_line(lambda w: hypentropy(w, ALPHA)))),
    # tied after all
    "hegde-3.1-tying": (1e-6, lambda: pair(
        raw_network(Y_NEGATIVE, 0.30, 3000, signed=False),
        diagonal.untied_limit(X, Y_NEGATIVE, np.full(3, 0.30), np.full(3, 0.29)).w,
    )),
    # signs not frozen
    "hegde-3.1-sign": (1e-6, lambda: pair(
        0.5 * np.sum((Y_NEGATIVE - X @ raw_network(Y_NEGATIVE, ALPHA, 3000, signed=True)) ** 2),
        0.5 * nnls(X, Y_NEGATIVE)[1] ** 2,
    )),
    "ours-tied-divergence": (1e-6, fallen),
    # the gradient as printed
    "hegde-erratum-16": (1e-7, lambda: pair(
        np.log(raw_path()[-1]) / ALPHA**2, X.T @ diagonal.limit(X, Y, ALPHA, signed=False).dual
    )),
    "hegde-3.1-constants": (1e-6, impulse),
    # the same limit at every scale, the sparse one
    "hegde-3.3-scale": (1e-8, lambda: pair(
        diagonal.limit(X1, Y1, 0.1, signed=False).w, linprog([1, 1], A_eq=X1, b_eq=Y1, bounds=(0, None)).x
    )),
    "ours-recovery-rate": (0.15, wrong_rate),
    # the least Euclidean norm among them
    "ours-ties": (1e-9, lambda: pair(
        diagonal.limit(DICE, [1.0, 0.5], log_alpha=-200.0, signed=False).w, np.linalg.pinv(DICE) @ [1.0, 0.5]
    )),
    # the tied network in place of the signed one
    "ours-signed-kernel": (1e-7, lambda: pair(
        diagonal.limit(X, Y, 300.0, signed=False).w, np.linalg.pinv(X) @ Y
    )),
    # the least norm, as printed
    "hegde-erratum-18": (1e-5, lambda: pair(diagonal.limit(X1, Y1, 1e6, signed=False).w, minnorm.limit(X1, Y1))),
    # weights c in place of 1/c
    "hegde-3.5-shape": (1e-6, lambda: pair(
        deep_network(np.array([[1.0, 1.2, 2.0]]), [2.0], 1e-3 * UNEVEN, 4e4),
        linprog(UNEVEN, A_eq=[[1.0, 1.2, 2.0]], b_eq=[2.0], bounds=(0, None)).x,
    )),
    # the power L - 1 of alpha
    "hegde-3.4": (1e-6, lambda: pair(
        deep_network(X, Y, np.full(3, ALPHA), 400), on_the_line(lambda w: deep_potential(w, ALPHA**2), signed=False)
    )),
    # two layers, whose power is 2 s*
    "ours-depth-power": (0.1, lambda: pair(rate(SCALES, off_support(*sparse_problem(), SCALES)), 2.0)),
    # the shrinking of u v taken into account
    "ours-diagonal-steps": (0.15, lambda: pair(rate(ETAS, [from_its_own_scale(eta) for eta in ETAS]), 1.0)),
    "hegde-3.7-mirror": (1e-6, lambda: impulse(signed=True)),
    # gradient descent, which does not keep the potential
    "ours-mirror-steps": (1e-10, lambda: pair(descended(0.04), diagonal.limit(X, Y, ALPHA).w)),
}  # fmt: skip
RELATIVE = {"ours-tied-divergence", "hegde-3.1-constants", "hegde-3.7-mirror"}


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    tolerance, wrong = CONTROLS[claim]
    with pytest.raises(CheckFailed):
        check(claim, **{"rtol" if claim in RELATIVE else "atol": tolerance}, **wrong())


# Try your own


def own(**changes):
    """The cell of the reader's own data, run with some lines changed."""
    path = runbook.BOOK / "1-flow" / "04_diagonal.ipynb"
    (cell,) = [c.source for c in nbformat.read(path, 4).cells if "X_own = " in c.source]
    for name, value in changes.items():
        cell, n = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", cell)
        assert n == 1, name
    cell = cell.replace("(3.0, 0.0, -3.0, -30.0)", "scales")
    space = {"np": np, "diagonal": diagonal, "minnorm": minnorm, "scales": (3.0, 0.0, -3.0, -30.0)}
    return cell, space


@pytest.mark.parametrize("scales", [(3.0, 0.0, -3.0, -30.0), (-1000.0,)])
def test_try_your_own_fits(scales):
    for changes in ({}, {"X_own": "np.array([[1.0, -2.0, 0.5]])", "y_own": "np.array([-3.0])"}):
        cell, space = own(**changes)
        exec(cell, space | {"scales": scales}, result := {})
        assert result["residual"] < 1e-12


def test_try_your_own_says_what_does_not_fit():
    cell, space = own(X_own="np.array([[1.0, 2.0], [2.0, 4.0]])", y_own="np.array([1.0, 3.0])")
    with pytest.raises(ValueError, match=r"no solution: least squares leaves the residual 0\.447"):
        exec(cell, space)
    cell, space = own(X_own="np.array([[1.0, 2.0]])", y_own="np.array([-1.0])")
    exec(cell, dict(space))
    with pytest.raises(ValueError, match=r"w >= 0 if it is not signed.*leaves the residual 1"):
        exec(cell.replace("log_alpha=log_alpha)", "log_alpha=log_alpha, signed=False)"), space)
