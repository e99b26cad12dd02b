"""Series in the step size: against rational enumeration, against the oracle, and the wrong bookkeepings."""

from __future__ import annotations

from fractions import Fraction as Fr
from functools import cache

import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, exact
from implicitreg.diagrams import (
    Diagram,
    corollaries,
    enumerate_diagrams,
    gap_series,
    terms,
    train_loss_series,
    weights_series,
)
from implicitreg.diagrams import test_loss_series as loss_series

from rational_engine import LAW_A, LAW_B, series  # isort: skip

LAWS = {"A": LAW_A, "B": LAW_B}
# N, T, B: fresh examples, then the reference grids, gradient descent, and last epochs that are partial
GRIDS = [(1, 1, 1), (2, 2, 1), (3, 3, 1), (2, 2, 2), (2, 4, 1), (3, 2, 3), (4, 2, 2), (2, 3, 1), (2, 1, 1), (1, 3, 1)]
METRIC = [[Fr(1), Fr(1, 3)], [Fr(1, 3), Fr(1, 2)]]


@cache
def rational(name: str, N: int, T: int, B: int, order: int):
    return series(LAWS[name], N, T, B, order)


def numbers(values):
    return np.array([float(v) for v in values])


@pytest.mark.parametrize(("N", "T", "B"), GRIDS)
@pytest.mark.parametrize("name", LAWS)
def test_losses_and_weights_agree_with_rational_enumeration(name, N, T, B):
    test, train, theta = rational(name, N, T, B, 3)
    problem = LAWS[name].problem()
    np.testing.assert_allclose(loss_series(problem, N=N, T=T, B=B), numbers(test), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(train_loss_series(problem, N=N, T=T, B=B), numbers(train), rtol=1e-10, atol=1e-10)
    gap = numbers(test) - numbers(train)
    np.testing.assert_allclose(gap_series(problem, N=N, T=T, B=B), gap, rtol=1e-10, atol=1e-10)
    weights = np.array([numbers(row) for row in theta]).T
    np.testing.assert_allclose(weights_series(problem, N=N, T=T, B=B, order=3), weights, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("N", "T", "B"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (2, 2, 2), (2, 4, 1), (3, 2, 3)])
def test_fourth_order_by_counting(N, T, B):
    test, train, _ = rational("A", N, T, B, 4)
    problem = LAW_A.problem()
    np.testing.assert_allclose(loss_series(problem, N=N, T=T, B=B, order=4), numbers(test), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        train_loss_series(problem, N=N, T=T, B=B, order=4), numbers(train), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize(("N", "T", "B"), [(1, 1, 1), (2, 2, 1), (2, 1, 2)])
def test_matrix_step_sizes(N, T, B):
    test, train, theta = series(LAW_B, N, T, B, 3, metric=METRIC)
    problem, metric = LAW_B.problem(), np.array([[float(x) for x in row] for row in METRIC])
    np.testing.assert_allclose(loss_series(problem, N=N, T=T, B=B, metric=metric), numbers(test), rtol=1e-10)
    np.testing.assert_allclose(train_loss_series(problem, N=N, T=T, B=B, metric=metric), numbers(train), rtol=1e-10)
    weights = np.array([numbers(row) for row in theta]).T
    np.testing.assert_allclose(weights_series(problem, N=N, T=T, B=B, order=3, metric=metric), weights, rtol=1e-10)


# [eta^0, eta^1, …] of the mean test loss with fresh examples, by another program (reference case D1, D2)
PRINTED = {
    ("A", 1): "0 -1/4 25/16 -23/48 299/288",
    ("A", 2): "0 -1/2 85/24 -833/144 6425/576",
    ("A", 3): "0 -3/4 95/16 -607/36 3235/64",
    ("A", 4): "0 -1 35/4 -2495/72",
    ("B", 1): "144221/466560 -159278821/188956800 298964577101/272097792000 -76106252054713/440798423040000",
    ("B", 2): "144221/466560 -159278821/94478400 1718161097741/408146688000 -1031095120106077/220399211520000",
    ("B", 3): "144221/466560 -159278821/62985600 2539428464179/272097792000 -25785447507552217/1322395269120000",
    ("B", 4): "144221/466560 -159278821/47239200 1120231943539/68024448000 -16733910182761663/330598817280000",
}
# the same for test | train with N, B and epochs E (reference case D3)
PRINTED_GRIDS = {
    ("A", 2, 2, 2): "0 -1/2 37/12 -2881/576 | 0 -4 11/4 -16475/1152",
    ("A", 2, 1, 2): "0 -1 51/4 -3671/72 | 0 -8 161/12 -7495/48",
    ("A", 3, 3, 2): "0 -1/2 163/72 -593/162 | 0 -17/6 139/72 -2707/324",
    ("A", 4, 2, 1): "0 -1/2 25/12 -61/18 | 0 -9/4 7/4 -6679/1152",
    ("A", 3, 1, 2): "0 -3/2 173/8 -9781/72 | 0 -17/2 181/8 -35417/108",
    ("B", 2, 1, 2): "144221/466560 -159278821/47239200 28074889109/1632586752 -1730029395923357/36733201920000 | "
    "144221/466560 -953988071/188956800 423792245843/34012224000 -5921668231430729/110199605760000",
}


@pytest.mark.parametrize("name_and_steps", PRINTED, ids=str)
def test_series_of_fresh_examples_that_another_program_found(name_and_steps):
    name, T = name_and_steps
    expected = numbers(map(Fr, PRINTED[name_and_steps].split()))
    found = loss_series(LAWS[name].problem(), N=T, T=T, order=len(expected) - 1)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", PRINTED_GRIDS, ids=str)
def test_series_of_epochs_and_batches_that_another_program_found(case):
    name, N, B, E = case
    test, train = (numbers(map(Fr, side.split())) for side in PRINTED_GRIDS[case].split("|"))
    problem, steps = LAWS[name].problem(), {"N": N, "T": N * E // B, "B": B}
    np.testing.assert_allclose(loss_series(problem, **steps), test, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(train_loss_series(problem, **steps), train, rtol=1e-10, atol=1e-10)


# --- the two bookkeepings, and the two mixtures ---------------------------------------------------------------


def by_hand(problem: FiniteProblem, edges: int, N: int, T: int, B: int, *, moments: bool, strict: bool) -> float:
    return (-1) ** edges * sum(
        float(D.coefficient(N, T, B, strict=strict)) * D.value(problem, moments=moments)
        for D in enumerate_diagrams(edges)
    )  # fmt: skip


@pytest.mark.parametrize(("N", "T", "B"), [(3, 3, 1), (2, 2, 2), (2, 4, 1), (4, 2, 2)])
@pytest.mark.parametrize("name", LAWS)
def test_moments_with_strict_embeddings_give_the_same_sum(name, N, T, B):
    expected, problem = numbers(rational(name, N, T, B, 3)[0]), LAWS[name].problem()
    for edges in range(4):
        found = by_hand(problem, edges, N, T, B, moments=True, strict=True)
        assert found == pytest.approx(expected[edges], rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(("moments", "strict"), [(True, False), (False, True)])
@pytest.mark.parametrize("name", LAWS)
def test_the_two_mixtures_are_wrong_from_second_order_on(name, moments, strict):
    expected, problem = numbers(rational(name, 3, 3, 1, 3)[0]), LAWS[name].problem()
    mixed = [by_hand(problem, edges, 3, 3, 1, moments=moments, strict=strict) for edges in range(4)]
    np.testing.assert_allclose(mixed[:2], expected[:2], rtol=1e-10, atol=1e-10)
    assert (abs(mixed[2:] - expected[2:]) > 0.01 * abs(expected[2:])).all()


def test_what_the_second_mixture_leaves_out_is_the_diagonal():
    # cumulants with strict embeddings: T/2 of G H G less, for steps that coincide
    problem = LAW_A.problem()
    lost = by_hand(problem, 2, 3, 3, 1, moments=False, strict=False) - by_hand(
        problem, 2, 3, 3, 1, moments=False, strict=True
    )
    assert lost == pytest.approx(3 / 2 * float(Fr(5, 24)), rel=1e-12)


@pytest.mark.parametrize("factor", [-1, 2])
def test_a_wrong_sign_or_factor_of_the_first_order_is_seen(factor):
    # the Proposition prints + T G·G
    expected = numbers(rational("A", 2, 2, 1, 3)[0])
    found = loss_series(LAW_A.problem(), N=2, T=2)
    found[1] *= factor
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


# --- random problems against the oracle at finite step sizes ---------------------------------------------------


def random_problem(rng: np.random.Generator) -> FiniteProblem:
    """Two or three quartic losses in one or two dimensions; every other one with tanh in it."""
    m, d, smooth = rng.integers(2, 4), rng.integers(1, 3), rng.integers(2)

    def loss():
        a, b, c, w = (torch.from_numpy(rng.uniform(-1, 1, d)) for _ in range(4))
        return lambda t: (
            (a @ t) + (b @ t) ** 2 / 2 + (c @ t) ** 3 / 6 + smooth * torch.tanh(w @ t) + ((a - c) @ t) ** 4 / 24
        )

    return FiniteProblem([loss() for _ in range(m)], rng.dirichlet(np.full(m, 5.0)), rng.uniform(-0.5, 0.5, d))


def taylor(values) -> np.ndarray:
    """Four Taylor coefficients by interpolation in 12 Chebyshev points of (0, .06]: good to 1e-7 on these problems."""
    nodes = 0.03 * (1 + np.cos(np.pi * (np.arange(12) + 0.5) / 12))
    fit = np.polynomial.Chebyshev.fit(nodes, [values(eta) for eta in nodes], 11, domain=[0, 0.06])
    return fit.convert(kind=np.polynomial.Polynomial).coef[:4]


@pytest.mark.parametrize("seeds", [range(k, k + 20) for k in range(0, 200, 20)], ids=lambda r: f"{r[0]}-{r[-1]}")
def test_two_hundred_random_problems_against_the_oracle(seeds):
    for seed in seeds:
        rng = np.random.default_rng([seed, 11])
        problem = random_problem(rng)
        N, T, B = GRIDS[rng.integers(len(GRIDS))]
        runs = {}

        def run(eta, problem=problem, runs=runs, N=N, T=T, B=B):
            return runs.setdefault(eta, exact.run(problem, eta, N=N, T=T, B=B))

        test = taylor(lambda eta: run(eta).test_loss)
        gap = taylor(lambda eta: run(eta).test_loss - run(eta).train_loss)
        np.testing.assert_allclose(loss_series(problem, N=N, T=T, B=B), test, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(gap_series(problem, N=N, T=T, B=B), gap, rtol=1e-6, atol=1e-6)
        theta = np.array([taylor(lambda eta, i=i: run(eta).theta[i]) for i in range(problem.d)]).T
        np.testing.assert_allclose(weights_series(problem, N=N, T=T, B=B, order=3), theta, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(("N", "T", "B"), [(3, 3, 1), (2, 2, 2), (2, 4, 1), (4, 2, 2)])
def test_residuals_shrink_with_the_next_power(order, N, T, B):
    problem = LAW_B.problem()
    a = loss_series(problem, N=N, T=T, B=B, order=order)
    etas = 0.004 / 2.0 ** np.arange(3)
    residuals = [exact.run(problem, eta, N=N, T=T, B=B).test_loss - np.polyval(a[::-1], eta) for eta in etas]
    ratios = np.array(residuals[:-1]) / residuals[1:]
    np.testing.assert_allclose(ratios, 2 ** (order + 1), rtol=0.1)


@pytest.mark.parametrize("order", [2, 3])
def test_residuals_with_half_of_a_term_do_not(order):
    # the coefficient T(T−1)/2 in place of T(T−1) in front of GHG, as in a program of the source's author
    problem = LAW_B.problem()
    a = loss_series(problem, N=3, T=3, order=order)
    a[2] -= 3 * Diagram.parse("(0-1-2)(02-12)").value(problem)
    residuals = [
        exact.run(problem, eta, N=3, T=3).test_loss - np.polyval(a[::-1], eta) for eta in (0.004, 0.002, 0.001)
    ]
    ratios = np.array(residuals[:-1]) / residuals[1:]
    np.testing.assert_allclose(ratios, 4, rtol=0.1)


# --- closed forms of the text -----------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 5, 10])
@pytest.mark.parametrize("name", LAWS)
def test_second_order_with_fresh_examples_in_closed_form(name, T):
    problem = LAWS[name].problem()
    GG, GHG = (Diagram.parse(text).value(problem) for text in ("(0-1)(01)", "(0-1-2)(02-12)"))
    CH = Diagram.parse("(01-2)(02-12)").value(problem)
    expected = [problem.loss(problem.theta0), -T * GG, T * (T - 0.5) * GHG + T / 2 * CH]
    np.testing.assert_allclose(loss_series(problem, N=T, T=T, order=2), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("N", "T", "B"), [(4, 8, 2), (6, 6, 3), (5, 10, 1), (10, 10, 10)])
def test_gap_in_closed_form(N, T, B):
    problem = LAW_B.problem()
    _, g, H_x = problem.derivatives(2)
    p = problem.probabilities
    G, H = p @ g, np.tensordot(p, H_x, 1)
    c, h = g - G, H_x - H
    C = (p * c.T) @ c
    GdC = 2 * np.einsum("m,a,mab,mb->", p, G, h, c)
    Q = np.einsum("m,ma,mab,mb->", p, c, h, c)
    pairs = T * (T - 1) / 2
    second = -((pairs + T**2) * GdC / 2 + pairs * np.sum(C * H) + (T**2 / N - T / (2 * B)) * Q) / N
    found = gap_series(problem, N=N, T=T, B=B, order=2)
    np.testing.assert_allclose(found, [0, T / N * np.trace(C), second], rtol=1e-12, atol=1e-14)


def test_terms_add_up_and_carry_their_diagrams():
    problem = LAW_B.problem()
    found = terms(problem, N=4, T=4)
    assert {term.diagram for term in found} == {D for d in range(4) for D in enumerate_diagrams(d, path_condition=True)}
    for order in range(4):
        total = sum(term.total for term in found if term.diagram.edges == order)
        assert total == pytest.approx(loss_series(problem, N=4, T=4)[order], rel=1e-12)
    tied = terms(problem, N=4, T=4, order=1, root_tied=True)
    assert -sum(term.total for term in tied) == pytest.approx(gap_series(problem, N=4, T=4, order=1)[1], rel=1e-12)


def test_no_steps_and_no_order():
    problem = LAW_A.problem()
    np.testing.assert_array_equal(loss_series(problem, N=2, T=0), [0, 0, 0, 0])
    np.testing.assert_array_equal(weights_series(problem, N=2, T=3, order=0), [[0.0]])
    assert loss_series(problem, N=2, T=3, order=0) == problem.loss(problem.theta0)


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [loss_series, train_loss_series, gap_series, weights_series, terms])
def test_bad_input_is_named(function, problem_a, problem_b):
    good = {"N": 2, "T": 2}
    for bad, error, words in [
        ({"N": 3, "B": 2}, ValueError, "B = 2: expected a divisor of N = 3"),
        ({"B": 0}, ValueError, "B = 0"),
        ({"T": -1}, ValueError, "T = -1"),
        ({"N": 2.5}, TypeError, "N = 2.5"),
        ({"order": 5}, ValueError, "order = 5"),
        ({"order": -1}, ValueError, "order = -1"),
        ({"metric": [[1.0]]}, ValueError, "metric"),
        ({"metric": [[1.0, 2.0], [2.0, 1.0]]}, ValueError, "metric"),
    ]:
        with pytest.raises(error, match=words):
            function(problem_b, **{**good, **bad})
    with pytest.raises(TypeError, match="problem = 'A': expected a FiniteProblem"):
        function("A", **good)


def test_kinks_are_warned_of_and_infinite_derivatives_refused():
    kinked = FiniteProblem([lambda t: torch.relu(t[0]) ** 2, lambda t: t[0]], [0.5, 0.5], [1.0])
    with pytest.warns(UserWarning, match=r"have kinks \(ReluBackward0\)"):
        found = loss_series(kinked, N=2, T=2)
    assert np.isfinite(found).all()
    steep = FiniteProblem([lambda t: t[0] ** 2.5], [1.0], [0.0])
    with pytest.raises(ValueError, match=r"losses\[0\] has the derivative of order 3 .*: expected finite numbers"):
        loss_series(steep, N=2, T=2)
    np.testing.assert_array_equal(loss_series(steep, N=2, T=2, order=1), [0, 0])


@pytest.mark.parametrize(
    "formula",
    [
        lambda problem: corollaries.gd_minus_sgd(problem, 2),
        lambda problem: corollaries.epoch_shift(problem, 2, 2),
        lambda problem: corollaries.sgd_series(problem, 2),
        lambda problem: corollaries.ode_series(problem, 2),
        lambda problem: corollaries.sde_series(problem, 2),
    ],
    ids=["gd_minus_sgd", "epoch_shift", "sgd_series", "ode_series", "sde_series"],
)
def test_kinks_are_warned_of_by_every_series(formula):
    kinked = FiniteProblem([lambda t: torch.relu(t[0]) ** 2, lambda t: t[0]], [0.5, 0.5], [1.0])
    with pytest.warns(UserWarning, match=r"have kinks \(ReluBackward0\)") as caught:
        assert np.isfinite(formula(kinked)).all()
    assert caught[0].filename == __file__  # the line that the reader wrote
