"""Separable data drawn at random, with ties, copies, zero columns, one example: certificates, loops, identities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg.flow import maxmargin
from scipy.integrate import solve_ivp
from scipy.optimize import linprog
from scipy.special import logsumexp, softmax
from strategies import fractions, orthogonal, separable, vectors

FEW = settings(max_examples=settings().max_examples // 4)
ETAS = st.sampled_from([1 / 64, 1 / 8, 1.0])


def rows(problem):
    X, y = problem
    return y[:, None] * X


@given(separable())
def test_hard_margin_has_its_certificate(problem):
    """Primal and dual feasible with equal values: both are optimal, whatever found them."""
    Z, svm = rows(problem), maxmargin.hard_margin(*problem)
    q = Z @ svm.w
    size = 1 / svm.margin**2
    assert q.min() == pytest.approx(1, abs=1e-9)
    assert (svm.dual >= 0).all()
    np.testing.assert_allclose(Z.T @ svm.dual, svm.w, rtol=0, atol=1e-10 * np.sqrt(size))
    np.testing.assert_allclose([svm.w @ svm.w, svm.dual.sum()], [size, size], rtol=1e-9)
    assert list(svm.support) == list(np.flatnonzero(q <= 1 + 1e-8))
    assert maxmargin.margin(*problem, svm.w) == pytest.approx(svm.margin, rel=1e-9)


@given(separable(), st.data())
def test_no_direction_has_a_larger_margin(problem, data):
    w = data.draw(vectors(problem[0].shape[1]).filter(lambda w: w.any()))
    margin = np.min(rows(problem) @ w) / np.linalg.norm(w)
    assert maxmargin.margin(*problem, w) == pytest.approx(margin, abs=1e-12)
    assert margin <= maxmargin.hard_margin(*problem).margin * (1 + 1e-9)


@given(separable(), st.data())
def test_hard_margin_does_not_see_copies_order_or_later_examples(problem, data):
    """A copy, another order, and a row that is further away in the same direction."""
    X, y = problem
    w = maxmargin.hard_margin(X, y).w
    order = data.draw(st.permutations(range(len(y))))
    more = np.vstack([X[list(order)], X[:1], 2 * X[-1:]]), np.r_[y[list(order)], y[:1], y[-1:]]
    np.testing.assert_allclose(maxmargin.hard_margin(*more).w, w, rtol=0, atol=1e-9 * np.linalg.norm(w))
    np.testing.assert_allclose(maxmargin.hard_margin(X / 1024, y).w, 1024 * w, rtol=1e-9, atol=1e-9)


@given(separable(), st.sampled_from([1 / 64, 1 / 4, 1.0, 16.0]), st.data())
def test_soft_margin_has_its_certificate(problem, C, data):
    """The hinge loss at w against the dual value of multipliers in the box, by linear programming; labels may be
    wrong."""
    X, y = problem
    y = y * data.draw(st.lists(st.sampled_from([1.0, -1.0]), min_size=len(y), max_size=len(y)).map(np.array))
    Z, w = y[:, None] * X, maxmargin.soft_margin(X, y, C)
    found = linprog(-np.ones(len(y)), A_eq=Z.T, b_eq=w, bounds=(0, C))
    assert found.status == 0, "w is no combination of the rows with multipliers in the box"
    primal = w @ w / 2 + C * np.maximum(0, 1 - Z @ w).sum()
    assert primal == pytest.approx(-found.fun - w @ w / 2, abs=1e-7 * (1 + primal))


@given(separable())
def test_hinge_threshold_is_where_the_soft_margin_becomes_the_hard_one(problem):
    svm, C = maxmargin.hard_margin(*problem), maxmargin.hinge_threshold(*problem)
    size = np.linalg.norm(svm.w)
    assert 0 < C <= svm.dual.max() * (1 + 1e-8)
    above, below = (maxmargin.soft_margin(*problem, c) for c in (1.01 * C, 0.9 * C))
    np.testing.assert_allclose(above, svm.w, rtol=0, atol=1e-7 * size)
    assert np.linalg.norm(below - svm.w) > 1e-6 * size


@given(separable(), ETAS, st.sampled_from(["exp", "logistic"]), st.data())
def test_descent_is_the_loop(problem, eta, loss, data):
    w0 = data.draw(vectors(problem[0].shape[1], top=3))
    Z, w = rows(problem), w0
    for _ in range(5):
        slope = np.exp(-Z @ w)
        w = w + eta * Z.T @ (slope if loss == "exp" else slope / (1 + slope))
    found = maxmargin.gradient_descent(*problem, eta, 5, loss, w0)
    np.testing.assert_allclose(found, w, rtol=1e-10, atol=1e-10)


@given(separable(), ETAS, st.data())
def test_normalized_descent_is_the_loop_and_its_loss_falls_by_the_identity(problem, eta, data):
    """psi(w+) - psi(w) = -eta G+ . G - KL(q+ | q), the identity of `normalized_margin_gap_bound`."""
    w0 = data.draw(vectors(problem[0].shape[1], top=3))
    Z, w = rows(problem), w0
    for k in range(4):
        q = softmax(-Z @ w)
        after = w + eta * Z.T @ q
        np.testing.assert_allclose(
            maxmargin.normalized_gradient_descent(*problem, eta, k + 1, w0), after, rtol=1e-11, atol=1e-11
        )
        q1 = softmax(-Z @ after)
        kl = np.sum(q1 * (-Z @ after - logsumexp(-Z @ after) + Z @ w + logsumexp(-Z @ w)))
        fall = logsumexp(-Z @ after) - logsumexp(-Z @ w)
        assert fall == pytest.approx(-eta * (Z.T @ q1) @ (Z.T @ q) - kl, abs=1e-11 * (1 + abs(fall)))
        w = after


@given(separable(), st.data())
def test_momentum_descent_is_the_loop(problem, data):
    w0 = data.draw(vectors(problem[0].shape[1], top=3))
    Z, w, v = rows(problem), w0, np.zeros_like(w0)
    R = np.linalg.norm(Z, axis=1).max()
    for k in range(6):
        g = Z.T @ softmax(-Z @ w)
        v = k / (k + 1) * (v + g)
        w = w + (v + g) / R**2
    np.testing.assert_allclose(maxmargin.momentum_gradient_descent(*problem, 6, w0), w, rtol=1e-10, atol=1e-10)


@given(separable(), st.sampled_from([1, 3, 30, 300]))
def test_the_bounds_of_the_discrete_methods_hold(problem, k):
    n, svm = len(problem[1]), maxmargin.hard_margin(*problem)
    R = np.linalg.norm(problem[0], axis=1).max()
    plain = maxmargin.normalized_gradient_descent(*problem, 1 / R**2, k)
    fast = maxmargin.momentum_gradient_descent(*problem, k)
    lacks = [svm.margin - maxmargin.margin(*problem, w) for w in (plain, fast)]
    rounding = 1e-9 * svm.margin
    assert -rounding <= lacks[0] <= maxmargin.normalized_margin_gap_bound(svm.margin, n, 1 / R**2, k) + rounding
    assert -rounding <= lacks[1] <= maxmargin.momentum_margin_gap_bound(svm.margin, n, R, k) + rounding


@FEW
@given(separable(max_n=4), st.sampled_from([1.0, 4.0, 32.0]))
def test_the_flow_keeps_its_bounds_and_follows_scale_and_copies(problem, log_t):
    """Margin; cX: the time times c², the weights over c; every example twice: the flow at twice the time."""
    X, y = problem
    svm, w = maxmargin.hard_margin(X, y), maxmargin.gradient_flow(X, y, [log_t])[0]
    rounding = 1e-7 * svm.margin
    lacks = svm.margin - maxmargin.margin(X, y, w)
    assert -rounding <= lacks <= maxmargin.margin_gap_bound(svm.margin, len(y), [log_t])[0] + rounding
    scale = 1e-7 / svm.margin
    half = np.log1p(np.expm1(log_t) / 4)
    np.testing.assert_allclose(2 * maxmargin.gradient_flow(2 * X, y, [half])[0], w, rtol=0, atol=scale)
    twice = np.log1p(np.expm1(log_t) / 2)
    copies = maxmargin.gradient_flow(np.vstack([X, X]), np.r_[y, y], [twice])[0]
    np.testing.assert_allclose(copies, w, rtol=0, atol=scale)


def entropy_rate(p):
    p = p[p > 0]
    return -p @ np.log(p) + np.log(p.max())


def least_dual(Z, svm):
    """The largest t for which some dual is at least t at every supporting point, as a share."""
    S = Z[svm.support]
    found = linprog(np.r_[np.zeros(len(S)), -1], np.c_[-np.eye(len(S)), np.ones(len(S))], np.zeros(len(S)),
                    np.c_[S.T, np.zeros(S.shape[1])], svm.w)  # fmt: skip
    assert found.status == 0
    return -found.fun * svm.margin**2


@given(separable())
def test_asymptotics_are_those_of_the_dual_of_largest_entropy(problem):
    """Data on which a supporting point must have the dual 0 are not generic, and are refused."""
    Z, svm = rows(problem), maxmargin.hard_margin(*problem)
    if least_dual(Z, svm) < 1e-9:
        with pytest.raises(ValueError, match="degenerate"):
            maxmargin.asymptotics(*problem)
        return
    far, size, on = maxmargin.asymptotics(*problem), 1 / svm.margin**2, svm.support
    np.testing.assert_allclose(far.w, svm.w, rtol=0, atol=1e-9 * np.sqrt(size))
    np.testing.assert_allclose(Z.T @ far.dual, svm.w, rtol=0, atol=1e-8 * np.sqrt(size))
    assert far.dual.sum() == pytest.approx(size, rel=1e-8)
    np.testing.assert_allclose(np.exp(-Z[on] @ far.offset), far.dual[on], rtol=1e-7)
    assert np.delete(far.dual, on).sum() == 0
    assert far.margin_rate == pytest.approx(svm.margin * entropy_rate(far.dual / size), abs=1e-8 * svm.margin)


@given(fractions(400).filter(lambda x: x > 0))
def test_the_degenerate_flow_solves_its_equation(log_t):
    w1, w2 = maxmargin.degenerate_example([log_t])[0]
    W = np.expm1(w2)
    assert np.log(W) + W == pytest.approx(np.log(np.expm1(log_t)), abs=1e-12 * (1 + log_t))
    assert w1 - w2 == pytest.approx(W, rel=1e-12)


@FEW
@given(separable(max_n=3, max_d=2), st.sampled_from(["exp", "logistic"]), st.data())
def test_the_flow_solves_its_equation(problem, loss, data):
    Z, w0 = rows(problem), data.draw(vectors(problem[0].shape[1], top=3))

    def slope(_, w):
        u = Z @ w
        return Z.T @ (np.exp(-u) if loss == "exp" else 1 / (1 + np.exp(u)))

    times = np.expm1([0.5, 2.0])
    run = solve_ivp(slope, (0, times[-1]), w0, "LSODA", times, rtol=1e-10, atol=1e-11)
    path = maxmargin.gradient_flow(*problem, [0.5, 2.0, 0.0], loss, w0)
    np.testing.assert_allclose(path, [*run.y.T, w0], rtol=1e-7, atol=1e-7)


@FEW
@given(separable(), st.sampled_from([1 / 4, 1.0]), st.data())
def test_margins_follow_rotations_copies_and_units(problem, C, data):
    """Every example twice with C is once with 2C, so the threshold is half; cX: weights over c, C over c²."""
    (X, y), Q = problem, data.draw(orthogonal(problem[0].shape[1]))
    svm, twice = maxmargin.hard_margin(X, y), (np.vstack([X, X]), np.r_[y, y])
    hard, size = maxmargin.hard_margin(X @ Q.T, y), np.linalg.norm(svm.w)
    np.testing.assert_allclose(hard.w, Q @ svm.w, rtol=0, atol=1e-9 * size)
    soft = maxmargin.soft_margin(X, y, 2 * C)
    close = {"rtol": 0, "atol": 1e-8 * (1 + np.linalg.norm(soft))}
    np.testing.assert_allclose(maxmargin.soft_margin(*twice, C), soft, **close)
    np.testing.assert_allclose(maxmargin.soft_margin(X @ Q.T, y, 2 * C), Q @ soft, **close)
    np.testing.assert_allclose(4 * maxmargin.soft_margin(4 * X, y, C / 8), soft, **close)
    threshold = maxmargin.hinge_threshold(X, y)
    assert maxmargin.hinge_threshold(*twice) == pytest.approx(threshold / 2, rel=1e-7)
    assert maxmargin.hinge_threshold(X @ Q.T, y) == pytest.approx(threshold, rel=1e-7)
    assert maxmargin.hinge_threshold(4 * X, y) == pytest.approx(threshold / 16, rel=1e-7)
