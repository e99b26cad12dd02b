"""The oracle and the derivatives on random problems: brute force in plain Python, and what must not matter.

Every property has a control on a fixed problem: the tempting mistake fails the same assertion.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem, exact
from strategies import (
    Moved,
    Smooth,
    changed,
    derivative,
    finite_problems,
    fractions,
    schedules,
    spd_matrices,
    triangular,
)  # fmt: skip

ETAS = st.sampled_from([1 / 16, 1 / 32, 1 / 8])
OPTIONS = st.fixed_dictionaries({"momentum": st.sampled_from([0.0, 0.5]), "reshuffle": st.booleans()})
# one parameter, two losses, away from every symmetry
FIXED = FiniteProblem(
    [Smooth({(0,): 0.5, (1,): 1.0, (2,): 0.5, (3,): 1.0}), Smooth({(0,): 0.0, (1,): -0.75, (2,): 1.0, (3,): 0.25})],
    [0.25, 0.75], [0.5],
)  # fmt: skip


# --- brute force: Python floats, derivatives of monomials by hand, every training set and every order ---------


def epochs(N, B):
    """The ordered partitions of N points into batches of B, equally likely."""
    orders = itertools.permutations(range(N))
    return sorted({tuple(tuple(sorted(o[k : k + B])) for k in range(0, N, B)) for o in orders})


def plans(N, T, B, reshuffle):
    """The batches of T steps, for every choice of the orders."""
    count, every = -(-T * B // N), epochs(N, B)
    for chosen in itertools.product(every, repeat=count) if reshuffle else ([epoch] * count for epoch in every):
        yield [batch for epoch in chosen for batch in epoch][:T]


def descend(problem, examples, metric, plan, momentum):
    theta, velocity = problem.theta0.tolist(), [0.0] * problem.d
    for batch in plan:
        for j in range(problem.d):
            g = sum(derivative(problem.losses[examples[n]], theta, j) for n in batch) / len(batch)
            velocity[j] = momentum * velocity[j] + g
        theta = [
            t - sum(e * v for e, v in zip(row, velocity, strict=True)) for t, row in zip(theta, metric, strict=True)
        ]
    return theta


def brute_force(problem, metric, N, T, B, momentum=0.0, reshuffle=True, weight=math.prod):
    """Mean and covariance of theta, mean test and training loss."""
    p, rows, orders = problem.probabilities.tolist(), [], list(plans(N, T, B, reshuffle))
    for examples in itertools.product(range(problem.m), repeat=N):
        for plan in orders:
            theta = descend(problem, examples, metric, plan, momentum)
            values = [derivative(loss, theta) for loss in problem.losses]
            test = sum(a * b for a, b in zip(p, values, strict=True))
            rows.append(
                (weight(p[i] for i in examples) / len(orders), theta, test, sum(values[i] for i in examples) / N)
            )
    w, thetas, tests, trains = (np.array(column) for column in zip(*rows, strict=True))
    mean = w @ thetas
    return exact.ExactRun(mean, (w[:, None] * (thetas - mean)).T @ (thetas - mean), float(w @ tests), float(w @ trains))


def numbers(result):
    return np.concatenate(
        [result.theta, result.theta_cov.ravel(), [result.test_loss, result.train_loss]], dtype=np.float64
    )


def distance(a, b):
    """Relative to the largest number, or to 1."""
    a, b = numbers(a), numbers(b)
    return np.abs(a - b).max() / max(1.0, np.abs(a).max())


CLOSE = 1e-12  # gradients are at most 10 or so and steps at most 1: a few thousand roundings, hardly amplified


# whole and partial epochs, one and several; batches of 1, of N, and between
BRUTE = [(1, 4, 1), (2, 3, 1), (2, 4, 1), (2, 4, 2), (3, 2, 1), (3, 3, 1), (3, 4, 1), (3, 4, 3), (4, 2, 2), (4, 3, 2)]


@pytest.mark.parametrize(("N", "T", "B"), BRUTE)
@settings(max_examples=settings().max_examples // 4)
@given(finite_problems(), ETAS, OPTIONS, st.data())
def test_run_equals_brute_force(N, T, B, problem, eta, options, data):
    metric = eta * data.draw(spd_matrices(problem.d))
    found = exact.run(problem, metric, N=N, T=T, B=B, **options)
    assert distance(found, brute_force(problem, metric, N, T, B, **options)) < CLOSE


@pytest.mark.parametrize(
    "wrong",
    [{"weight": lambda p: 0.5 ** len(list(p))}, {"reshuffle": False}, {"momentum": 0.0}],
    ids=["equal weights", "one order", "no momentum"],
)
def test_brute_force_tells_other_protocols_apart(wrong):
    right = {"momentum": 0.5, "reshuffle": True}
    found = exact.run(FIXED, 1 / 8, N=2, T=4, B=1, **right)
    assert distance(found, brute_force(FIXED, [[1 / 8]], 2, 4, 1, **right)) < CLOSE
    assert distance(found, brute_force(FIXED, [[1 / 8]], 2, 4, 1, **(right | wrong))) > 1e-6


# --- what must not matter -----------------------------------------------------------------------------------

PROBLEMS = finite_problems(ridges=True)
SCHEDULES = schedules(4, 4)


def run(problem, eta, schedule, **options):
    N, T, B = schedule
    return exact.run(problem, eta, N=N, T=T, B=B, **options)


@given(PROBLEMS, SCHEDULES, ETAS, OPTIONS, st.data())
def test_the_order_of_the_examples_does_not_matter(problem, schedule, eta, options, data):
    order = data.draw(st.permutations(range(problem.m)))
    other = changed(problem, [problem.losses[i] for i in order], problem.probabilities[list(order)])
    assert distance(run(other, eta, schedule, **options), run(problem, eta, schedule, **options)) < CLOSE


def test_the_order_of_the_probabilities_matters():
    other = changed(FIXED, FIXED.losses[::-1], FIXED.probabilities)
    assert distance(run(other, 1 / 8, (2, 2, 1)), run(FIXED, 1 / 8, (2, 2, 1))) > 1e-3


def split(problem, i, share=0.5):
    """Example i twice, with shares of its probability."""
    p = problem.probabilities
    return changed(
        problem, [*problem.losses, problem.losses[i]], [*p[:i], share * p[i], *p[i + 1 :], (1 - share) * p[i]]
    )


@given(PROBLEMS, schedules(3, 4), ETAS, OPTIONS, st.data())
def test_an_example_may_be_split_in_two(problem, schedule, eta, options, data):
    other = split(problem, data.draw(st.integers(0, problem.m - 1)), data.draw(st.sampled_from([0.5, 0.25])))
    assert distance(run(other, eta, schedule, **options), run(problem, eta, schedule, **options)) < CLOSE


def test_an_example_counted_twice_matters():
    other = changed(FIXED, [*FIXED.losses, FIXED.losses[0]], np.array([0.25, 0.75, 0.25]) / 1.25)
    assert distance(run(other, 1 / 8, (2, 2, 1)), run(FIXED, 1 / 8, (2, 2, 1))) > 1e-3


def moved_run(problem, A, b, metric, schedule, **options):
    """Run in the coordinates phi, told in theta."""
    phi0 = np.linalg.solve(A, problem.theta0 - b)
    other = changed(problem, [Moved(loss, A, b) for loss in problem.losses], theta0=phi0)
    r = run(other, metric, schedule, **options)
    return exact.ExactRun(A @ r.theta + b, A @ r.theta_cov @ A.T, r.test_loss, r.train_loss)


def pulled_back(metric, A):
    """A⁻¹ eta A⁻ᵀ: the matrix of the same steps in phi."""
    inverse = np.linalg.inv(A)
    M = inverse @ metric @ inverse.T
    return (M + M.T) / 2


@given(PROBLEMS, SCHEDULES, ETAS, OPTIONS, st.data())
def test_coordinates_do_not_matter_if_eta_moves_with_them(problem, schedule, eta, options, data):
    d = problem.d
    A, b = data.draw(triangular(d)), np.array(data.draw(st.lists(fractions(4), min_size=d, max_size=d)))
    metric = eta * data.draw(spd_matrices(d))
    found = moved_run(problem, A, b, pulled_back(metric, A), schedule, **options)
    assert distance(found, run(problem, metric, schedule, **options)) < CLOSE


def test_coordinates_matter_if_eta_moves_the_wrong_way_or_stays():
    A, b, metric = np.array([[0.5]]), np.array([0.25]), np.array([[1 / 8]])
    truth = run(FIXED, metric, (2, 2, 1))
    assert distance(moved_run(FIXED, A, b, pulled_back(metric, A), (2, 2, 1)), truth) < CLOSE
    for wrong in (metric, A @ metric @ A.T):
        assert distance(moved_run(FIXED, A, b, wrong, (2, 2, 1)), truth) > 1e-3


@given(PROBLEMS, SCHEDULES, ETAS, OPTIONS, st.data())
def test_constants_shift_both_losses_by_their_mean(problem, schedule, eta, options, data):
    c = data.draw(st.lists(fractions(4), min_size=problem.m, max_size=problem.m))
    other = changed(problem, [lambda t, f=f, c=c: f(t) + c for f, c in zip(problem.losses, c, strict=True)])
    a, b, shift = (
        run(problem, eta, schedule, **options),
        run(other, eta, schedule, **options),
        c @ problem.probabilities,
    )
    assert distance(b, exact.ExactRun(a.theta, a.theta_cov, a.test_loss + shift, a.train_loss + shift)) < CLOSE


@given(PROBLEMS, SCHEDULES, ETAS, OPTIONS)
def test_scale_of_the_loss_is_scale_of_the_step(problem, schedule, eta, options):
    other = changed(problem, [lambda t, f=f: 4 * f(t) for f in problem.losses])
    a, b = run(problem, eta, schedule, **options), run(other, eta / 4, schedule, **options)
    assert distance(exact.ExactRun(b.theta, b.theta_cov, b.test_loss / 4, b.train_loss / 4), a) < CLOSE


def test_scale_matters_where_the_step_stays():
    other = changed(FIXED, [lambda t, f=f: 4 * f(t) for f in FIXED.losses])
    assert np.abs(run(other, 1 / 8, (2, 2, 1)).theta - run(FIXED, 1 / 8, (2, 2, 1)).theta).max() > 1e-2


# --- derivatives --------------------------------------------------------------------------------------------


@given(finite_problems(max_dim=3, max_examples=2))
def test_derivatives_of_polynomials_are_those_by_hand(problem):
    found = problem.derivatives(4)
    for k, tensors in enumerate(found):
        for loss, tensor in zip(problem.losses, tensors, strict=True):
            for axes in itertools.product(range(problem.d), repeat=k):
                assert tensor[axes] == pytest.approx(derivative(loss, problem.theta0.tolist(), *axes), abs=1e-12)


@given(finite_problems(max_examples=2, ridges=True))
def test_derivatives_are_those_of_forward_mode(problem):
    theta = torch.from_numpy(problem.theta0.copy())
    for k, tensors in enumerate(problem.derivatives(3)):
        for loss, tensor in zip(problem.losses, tensors, strict=True):
            f = loss
            for _ in range(k):
                f = torch.func.jacfwd(f)
            np.testing.assert_allclose(tensor, f(theta), rtol=0, atol=1e-12)


@given(PROBLEMS, st.data())
def test_gradients_and_values_in_rows_are_those_one_at_a_time(problem, data):
    row = st.lists(fractions(4), min_size=problem.d, max_size=problem.d)
    thetas = np.array(data.draw(st.lists(row, min_size=1, max_size=3)))
    singly = [problem.derivatives(1, theta) for theta in thetas]
    np.testing.assert_allclose(problem.values(thetas), [s[0] for s in singly], rtol=0, atol=1e-13)
    np.testing.assert_allclose(problem.gradients(thetas), [s[1] for s in singly], rtol=0, atol=1e-13)
