"""Least squares on random data: ranks, copies, zero columns, one example. Each formula against a second method."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from implicitreg.flow import minnorm
from scipy.linalg import expm
from strategies import designs, fractions, orthogonal, spd_matrices, spread, vectors


@st.composite
def problems(draw, consistent=False):
    """X, y, w0; y is often no Xw."""
    X = draw(designs())
    y = X @ draw(vectors(X.shape[1])) if consistent or draw(st.booleans()) else draw(vectors(len(X)))
    return X, y, draw(vectors(X.shape[1]))


TIMES = st.sampled_from([1 / 64, 1 / 4, 1.0, 16.0])


def close(a, b, X):
    """Least squares with a residual is as sensitive as the square of the condition number; entries are at most 2."""
    scale = 1 + np.abs(b).max()
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * scale * spread(X) ** 2)


def pinv_limit(X, y, w0):
    return w0 + np.linalg.pinv(X, rcond=1e-9) @ (y - X @ w0)


@given(problems())
def test_limit_is_the_pseudoinverse_and_solves_the_normal_equations(problem):
    X, y, w0 = problem
    w = minnorm.limit(X, y, w0)
    close(w, pinv_limit(X, y, w0), X)
    close(X.T @ (y - X @ w), np.zeros_like(w), X)
    close(minnorm.limit(X, y, w), w, X)


@given(problems(), TIMES, TIMES)
def test_flow_is_the_exponential_and_a_semigroup(problem, t, s):
    X, y, w0 = problem
    end = pinv_limit(X, y, w0)
    path = minnorm.gradient_flow(X, y, [t + s, 0.0, t], w0)
    for row, time in zip(path, (t + s, 0.0, t), strict=True):
        close(row, end + expm(-time * X.T @ X) @ (w0 - end), X)
    close(minnorm.gradient_flow(X, y, [s], path[2])[0], path[0], X)


@given(problems(), st.sampled_from([1 / 64, 1 / 8, 1.0]), st.integers(0, 12), st.sampled_from([0.0, 0.5, 0.875]))
def test_descent_is_the_loop_even_where_it_diverges(problem, eta, k, momentum):
    X, y, w0 = problem
    before, w, largest = w0, w0, 1.0
    for _ in range(k):
        before, w = w, w + eta * X.T @ (y - X @ w) + momentum * (w - before)
        largest = max(largest, np.abs(w).max())
    found = minnorm.gradient_descent(X, y, eta, k, w0, momentum)
    np.testing.assert_allclose(found, w, rtol=0, atol=1e-12 * largest * spread(X) ** 2)


@given(problems(consistent=True), st.sampled_from([1 / 64, 1 / 8, 1.0]), st.data())
def test_each_step_of_sgd_obeys_pythagoras(problem, eta, data):
    X, y, w0 = problem
    order = data.draw(st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=4))
    path, end = minnorm.stochastic_gradient_descent(X, y, eta, order, w0), pinv_limit(X, y, w0)
    for i, w, after in zip(order, path, path[1:], strict=False):
        r, size = y[i] - X[i] @ w, X[i] @ X[i]
        distance = np.sum((w - end) ** 2)
        expected = distance - eta * (2 - eta * size) * r**2
        assert np.sum((after - end) ** 2) == pytest.approx(expected, abs=1e-11 * (1 + distance + r**2) * spread(X) ** 2)


@given(problems(), st.sampled_from([1 / 64, 1 / 2, 4.0]), st.data())
def test_ridge_solves_its_normal_equations(problem, penalty, data):
    X, y, w0 = problem
    Q = penalty * data.draw(spd_matrices(len(w0)))
    for given_penalty, matrix in ((penalty, penalty * np.eye(len(w0))), (Q, Q)):
        w = minnorm.ridge(X, y, given_penalty, w0)
        np.testing.assert_allclose((X.T @ X + matrix) @ (w - w0), X.T @ (y - X @ w0), rtol=0, atol=1e-10)


@given(problems(), TIMES)
def test_the_flow_stopped_at_t_is_ridge_with_its_penalty(problem, t):
    X, y, w0 = problem
    Q = minnorm.early_stopping_penalty(X, t)
    np.testing.assert_array_equal(Q, Q.T)
    flow = minnorm.gradient_flow(X, y, [t], w0)[0]
    close((X.T @ X + Q) @ (flow - w0), X.T @ (y - X @ w0), X)
    close(minnorm.ridge(X, y, Q, w0), flow, X)


def test_a_penalty_near_rounding_is_symmetric():
    """Nearly all is fitted at t = 16: entries of 1e-14, of which rounding is a thousandth; `ridge` takes it."""
    X = np.array([[2.0, 1.5], [-1.5, 0.0], [1.75, 2.0], [2.25, 3.5]])
    Q = minnorm.early_stopping_penalty(X, 16.0)
    c, V = np.linalg.eigh(X.T @ X)
    np.testing.assert_allclose(Q, (V * (c / np.expm1(16 * c))) @ V.T, rtol=0, atol=1e-16)
    np.testing.assert_array_equal(Q, Q.T)
    np.testing.assert_allclose(minnorm.ridge(X, X @ [1.0, -2.0], Q), [1, -2], rtol=1e-12)


@given(problems(), st.data())
def test_preconditioned_limit_is_the_nearest_in_its_metric(problem, data):
    X, y, w0 = problem
    D = data.draw(spd_matrices(len(w0)))
    w = minnorm.preconditioned_limit(X, y, D, w0)
    G = np.linalg.cholesky(D)
    close(w, w0 + G @ np.linalg.pinv(X @ G, rcond=1e-9) @ (y - X @ w0), X @ G)
    close(X.T @ (y - X @ w), np.zeros_like(w), X @ G)
    close(minnorm.preconditioned_limit(X, y, 4 * D, w0), w, X @ G)


@given(designs())
def test_best_step_balances_the_two_ends_of_the_spectrum(X):
    assume(X.any())
    s2 = np.linalg.eigvalsh(X.T @ X)
    high, low = s2[-1], s2[s2 > 1e-12 * s2[-1]][0]
    sizes = minnorm.step_sizes(X)
    rel = 1e-13 * spread(X) ** 2
    assert sizes.critical * high == pytest.approx(2, rel=1e-12)
    assert sizes.best * high - 1 == pytest.approx(sizes.rate, abs=rel)
    assert 1 - sizes.best * low == pytest.approx(sizes.rate, abs=rel)


@given(designs(), fractions(8), st.data())
def test_the_limit_follows_scale_and_copies(X, shift, data):
    """cX and y: w/c. Twice the same examples: the same limit, and the flow at half the time. Shifted labels add up."""
    y, w0 = data.draw(vectors(len(X))), data.draw(vectors(X.shape[1]))
    w = minnorm.limit(X, y)
    close(minnorm.limit(1024 * X, y) * 1024, w, X)
    twice = np.vstack([X, X]), np.r_[y, y]
    close(minnorm.limit(*twice, w0), minnorm.limit(X, y, w0), X)
    close(minnorm.gradient_flow(*twice, [0.5], w0), minnorm.gradient_flow(X, y, [1.0], w0), X)
    close(minnorm.limit(X, y + shift * X[:, 0]), w + shift * minnorm.limit(X, X[:, 0]), X)


@given(problems(), st.data())
def test_rotations_of_inputs_and_of_equations(problem, data):
    """X Qᵀ: the weights turn. P X and P y: nothing changes."""
    X, y, w0 = problem
    Q, P = data.draw(orthogonal(X.shape[1])), data.draw(orthogonal(len(X)))
    for f in (
        minnorm.limit,
        lambda X, y, w0: minnorm.gradient_flow(X, y, [0.25], w0)[0],
        lambda X, y, w0: minnorm.ridge(X, y, 0.5, w0),
        lambda X, y, w0: minnorm.gradient_descent(X, y, 1 / 64, 5, w0, 0.5),
    ):
        w = f(X, y, w0)
        close(f(X @ Q.T, y, Q @ w0), Q @ w, X)
        close(f(P @ X, P @ y, w0), w, X)


@given(problems(), st.sampled_from([2.0**-40, 2.0**-10, 1.0, 2.0**40]))
def test_ridge_is_the_resolvent_between_the_start_and_the_limit(problem, penalty):
    """w = w0 + (C + lambda)^-1 C (limit - w0): from lambda = 0, the limit, to infinity, the start."""
    X, y, w0 = problem
    s, V = np.linalg.eigh(X.T @ X)
    s = np.where(s > 1e-12 * max(s[-1], 1), s, 0)
    expected = w0 + V @ (s / (s + penalty) * (V.T @ (pinv_limit(X, y, w0) - w0)))
    close(minnorm.ridge(X, y, penalty, w0), expected, X)


@given(problems(), st.sampled_from([1 / 64, 1 / 8]), st.data())
def test_steps_of_sgd_are_the_loop_for_any_labels(problem, eta, data):
    X, y, w = problem
    order = data.draw(st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=4))
    path = minnorm.stochastic_gradient_descent(X, y, eta, order, w)
    np.testing.assert_array_equal(path[0], w)
    for i, after in zip(order, path[1:], strict=True):
        w = w - eta * (X[i] @ w - y[i]) * X[i]
        np.testing.assert_allclose(after, w, rtol=1e-12, atol=1e-12)
