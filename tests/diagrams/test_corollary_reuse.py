"""Corollaries 3 and 4: reference values, the oracle's second order in eta, and the printed factors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem, exact
from implicitreg.diagrams.corollaries import epoch_shift, gd_minus_sgd

GRAD_TRACE = {"a": [-11 / 3], "b": [-226439 / 145800, 4206523 / 2624400]}
SHIFT = {
    ("a", 2, 2): [-17 / 24], ("a", 3, 2): [-17 / 16], ("a", 2, 3): [-17 / 18],
    ("b", 2, 2): [85669 / 518400, 451109 / 1166400], ("b", 3, 2): [85669 / 345600, 451109 / 777600],
    ("b", 2, 3): [85669 / 388800, 451109 / 874800],
}  # fmt: skip
CASES = ["a", "b"]


@pytest.fixture
def problems(problem_a, problem_b):
    return {"a": problem_a, "b": problem_b}


def second_order(difference, scale=0.004):
    """The coefficient of eta² of a smooth vector function that vanishes to first order, by interpolation."""
    eta = scale * np.arange(1, 8)
    columns = np.transpose([difference(e) / e**2 for e in eta])
    return np.array([np.polynomial.Polynomial.fit(eta, column, 6)(0) for column in columns])


def gd_and_sgd(problem, T, N):
    return lambda eta: exact.run(problem, eta, N=N, T=T, B=N).theta - exact.run(problem, eta, N=T, T=T, B=1).theta


def epochs(problem, N, M):
    return lambda eta: exact.run(problem, eta / M, N=N, T=N * M).theta - exact.run(problem, eta, N=N, T=N).theta


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("N", [1, 2, 3, 10])
def test_gd_minus_sgd_has_the_reference_values(problems, name, N):
    np.testing.assert_allclose(gd_minus_sgd(problems[name], N), (N - 1) / 4 * np.array(GRAD_TRACE[name]), rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("T", "N"), [(2, 2), (3, 3), (4, 4), (3, 2), (2, 4), (4, 1)])
def test_gd_minus_sgd_is_the_second_order_of_both(problems, name, T, N):
    np.testing.assert_allclose(
        second_order(gd_and_sgd(problems[name], T, N)), gd_minus_sgd(problems[name], T, N), rtol=1e-6
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("N", [2, 3])
def test_printed_factor_of_corollary_3_is_too_small_by_N(problems, name, N):
    printed = (N - 1) / (4 * N) * np.array(GRAD_TRACE[name])
    measured = second_order(gd_and_sgd(problems[name], N, N))
    np.testing.assert_allclose(measured / printed, N, rtol=1e-6)


@pytest.mark.parametrize(("name", "N", "M"), SHIFT)
def test_epoch_shift_has_the_reference_values(problems, name, N, M):
    np.testing.assert_allclose(epoch_shift(problems[name], N, M), SHIFT[name, N, M], rtol=1e-12)


@pytest.mark.parametrize(("name", "N", "M"), [*SHIFT, ("a", 1, 4), ("b", 3, 1), ("a", 4, 2)])
def test_epoch_shift_is_the_second_order_of_both(problems, name, N, M):
    shift = epoch_shift(problems[name], N, M)
    np.testing.assert_allclose(second_order(epochs(problems[name], N, M)), shift, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("name", "N", "M"), SHIFT)
def test_printed_corollary_4_misses_the_gradient_of_the_squared_mean(problems, name, N, M):
    printed = (M - 1) * N / (4 * M) * np.array(GRAD_TRACE[name])  # with C alone
    measured = second_order(epochs(problems[name], N, M))
    assert (np.abs(measured - printed) > 0.01 * np.abs(measured)).all()  # ten thousand times the tolerance below
    p, (_, g, h) = problems[name].probabilities, problems[name].derivatives(2)
    missing = (M - 1) * N / (4 * M) * 2 * np.tensordot(p, h, 1) @ (p @ g)
    np.testing.assert_allclose(measured - printed, missing, rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(2, 2), (3, 2), (2, 3)]))
@settings(max_examples=8, deadline=None)
def test_both_hold_for_random_cubics(seed, sizes):
    rng, (N, M) = np.random.default_rng(seed), sizes
    a, b, c = (torch.as_tensor(rng.uniform(-1, 1, (3,) + (2,) * k)) for k in (1, 2, 3))
    losses = [
        lambda t, i=i: a[i] @ t + t @ b[i] @ t / 2 + torch.einsum("ijk,i,j,k", c[i], t, t, t) / 6 for i in range(3)
    ]
    problem = FiniteProblem(losses, rng.dirichlet([2, 2, 2]), rng.uniform(-1, 1, 2))
    shift, far = epoch_shift(problem, N, M), gd_minus_sgd(problem, M, N)
    np.testing.assert_allclose(second_order(epochs(problem, N, M)), shift, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(second_order(gd_and_sgd(problem, M, N)), far, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_the_moments_are_those_of_finite_differences(problems, name):
    problem, step = problems[name], 1e-5
    for row, (trace, square) in enumerate(zip(gd_minus_sgd(problem, 4, 3), epoch_shift(problem, 2, 2), strict=True)):
        shift = step * np.eye(problem.d)[row]
        moments = []
        for g in problem.gradients([problem.theta0 + shift, problem.theta0 - shift]):
            whole, mean = problem.probabilities @ (g * g).sum(1), problem.probabilities @ g
            moments.append((whole - mean @ mean, whole))
        slope = np.subtract(*moments) / (2 * step)
        assert (trace, square / slope[1]) == pytest.approx((slope[0], 0.25), rel=1e-7)


BAD = {
    "no problem": (lambda p: gd_minus_sgd(None, 2), TypeError, "problem = None: expected a FiniteProblem"),
    "T zero": (lambda p: gd_minus_sgd(p, 0), ValueError, "T = 0"),
    "N zero": (lambda p: gd_minus_sgd(p, 2, 0), ValueError, "N = 0"),
    "no problem for epochs": (lambda p: epoch_shift([1.0], 2, 2), TypeError, "problem"),
    "N not whole": (lambda p: epoch_shift(p, 2.0, 2), TypeError, "N = 2.0"),
    "M zero": (lambda p: epoch_shift(p, 2, 0), ValueError, "M = 0"),
}


@pytest.mark.parametrize(("call", "error", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(problem_a, call, error, words):
    with pytest.raises(error, match=words):
        call(problem_a)
