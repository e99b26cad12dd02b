"""Lone weights and their times with random targets and starts: inverses, slopes, roots, ties."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from implicitreg.flow import diagonal, incremental
from scipy.integrate import quad
from strategies import designs, fractions, vectors

DEPTHS = st.integers(1, 4)
POSITIVE = fractions(12).filter(lambda x: x > 0)
ALPHAS = st.sampled_from([2.0**-k for k in (1, 2, 4, 8)])


@st.composite
def lone(draw):
    """Depth, target, scale of the start below the target, a fraction above the start."""
    depth, target, alpha = draw(DEPTHS), draw(POSITIVE), draw(ALPHAS)
    fraction = draw(st.sampled_from([1 / 8, 1 / 2, 7 / 8]))
    assume(alpha**depth < 0.9 * fraction * target)
    return depth, target, alpha, fraction


@given(lone())
def test_activation_time_is_the_integral_of_one_over_the_speed(problem):
    """dw/dt = L² w^(2 - 2/L) (w* - w), one branch, from alpha^L."""
    depth, target, alpha, fraction = problem
    slowness = lambda s: np.exp(s) / (depth**2 * np.exp(s * (2 - 2 / depth)) * (target - np.exp(s)))  # noqa: E731
    expected = quad(slowness, depth * np.log(alpha), np.log(fraction * target), epsabs=0, epsrel=1e-11, limit=200)[0]
    assert incremental.activation_time(target, alpha, depth, fraction) == pytest.approx(expected, rel=1e-8)


@given(lone())
def test_the_path_is_at_the_fraction_at_that_time(problem):
    depth, target, alpha, fraction = problem
    T = incremental.activation_time(target, alpha, depth, fraction)
    path = incremental.toy_path([T, 0.0], target, alpha, depth)
    np.testing.assert_allclose(path, [fraction * target, alpha**depth], rtol=1e-8)


@given(st.integers(2, 4), POSITIVE, POSITIVE)
def test_depth_separation_is_where_the_two_times_meet(depth, a, b):
    """From there the larger target reaches three quarters when the smaller reaches one; earlier from below it."""
    assume(a > 1.05 * b)
    start = incremental.depth_separation(a, b, depth)
    assume(start > 1e-200)
    time = lambda target, w, f: incremental.activation_time(target, w ** (1 / depth), depth, f)  # noqa: E731
    assert time(a, start, 0.75) == pytest.approx(time(b, start, 0.25), rel=1e-6)
    assert time(a, start / 2, 0.75) < time(b, start / 2, 0.25)


@given(POSITIVE, POSITIVE)
def test_at_depth_one_no_start_separates(a, b):
    assume(a > b)
    assert incremental.depth_separation(a, b, 1) == 0


@given(designs(), ALPHAS, st.data())
def test_first_activation_time_is_that_of_the_largest_inner_product(X, alpha, data):
    y = data.draw(vectors(len(X)))
    largest = max(abs(X[:, j] @ y) for j in range(X.shape[1]))
    expected = np.log(1 / alpha**2) / (4 * largest) if largest else np.inf
    assert incremental.first_activation_time(X, y, alpha) == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 5).flatmap(vectors), st.integers(1, 3), st.data())
def test_crossing_times_are_the_first_on_the_broken_line(values, d, data):
    """By going along the pieces; levels that are met at a corner, from the start, and never."""
    t = np.cumsum(np.r_[0.0, [data.draw(POSITIVE) for _ in values[1:]]])
    path = np.array([values, *[data.draw(vectors(len(values))) for _ in range(d - 1)]]).T
    level = np.array([data.draw(POSITIVE) for _ in range(d)])

    def first(w, c):
        w = np.abs(w)
        if w[0] >= c:
            return t[0]
        for k in range(1, len(w)):
            if w[k] >= c:
                return t[k - 1] + (t[k] - t[k - 1]) * (c - w[k - 1]) / (w[k] - w[k - 1])
        return np.inf

    expected = [first(w, c) for w, c in zip(path.T, level, strict=True)]
    np.testing.assert_allclose(incremental.crossing_times(t, path, level), expected, rtol=1e-12)


@given(vectors(4), st.sampled_from([1 / 4, 1 / 2, 1.0]), st.sampled_from([1 / 4, 1 / 16, 1 / 256]))
def test_stopping_thresholds_with_the_stated_bounds(theta, tau, alpha):
    """Orthonormal columns; entries at the threshold, equal ones, zeros."""
    t = incremental.thresholding_time(tau, alpha)
    assert t == pytest.approx(np.log(1 / alpha**2) / (4 * tau), rel=1e-12)
    w = diagonal.trajectory(np.eye(4), theta, [t], alpha)[0]
    size = np.abs(theta)
    slack = 1 + 1e-6
    assert (np.abs(w) <= alpha ** (2 * (1 - size / tau)) * slack)[size <= tau].all()
    kept = size > max(tau, alpha**2)
    bound = theta**2 * alpha ** (2 * (size / tau - 1)) + alpha**2
    assert (np.abs(w - theta) <= bound * slack + 1e-7)[kept].all()


@given(POSITIVE, ALPHAS, st.integers(3, 6))
def test_deep_thresholding_time(tau, alpha, depth):
    expected = 1 / (depth * (depth - 2) * tau * alpha ** (depth - 2))
    assert incremental.thresholding_time(tau, alpha, depth) == pytest.approx(expected, rel=1e-12)


@given(lone(), st.sampled_from([1 / 16, 1 / 2, 4.0]))
def test_the_lone_path_is_that_of_the_network_with_one_weight(problem, t):
    depth, target, alpha, _ = problem
    assume(depth > 1)
    path = diagonal.trajectory([[1.0]], [target], [t], alpha, depth=depth, signed=False)[0]
    np.testing.assert_allclose(incremental.toy_path([t], target, alpha, depth), path, rtol=1e-7)
