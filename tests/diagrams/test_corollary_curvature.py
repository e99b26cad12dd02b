"""Corollary 2: reference values, equality with descent over all training sets, limits, the worst curvature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem, exact
from implicitreg.checks import rate
from implicitreg.diagrams.corollaries import overfitting, worst_curvature
from scipy.linalg import expm
from scipy.special import lambertw

ATOMS = np.array([[1.0, 0], [-2, 1], [1, -1]])
H, C = np.array([[2, 0.7], [0.7, 1]]), ATOMS.T @ ATOMS / 3
REFERENCE = [
    (0.1, 5, 0.0713726764374676, 0.352830258666667), (0.1, 20, 0.310076353362264, 0.799956823032454),
    (0.02, 100, 0.30339702372076, 0.790948217769723), (0.1, None, 0.522442972773999, 1.0448859455482),
]  # fmt: skip


@pytest.mark.parametrize(("eta", "T", "overfit", "gap"), REFERENCE)
def test_both_have_the_reference_values(eta, T, overfit, gap):
    result = overfitting(C, H, eta, T, 3)
    assert result.overfit == pytest.approx(overfit, rel=1e-10)
    assert result.gap == pytest.approx(gap, rel=1e-10)


@pytest.mark.parametrize(
    ("h", "overfit", "gap"),
    [(0.1, 0.00453226762560882, 0.0952078528862911), (1.0, 0.0200957496155752, 0.0633967658726771),
     (10.0, 0.00499973438953866, None)],
)  # fmt: skip
def test_mean_estimation_has_the_reference_values(h, overfit, gap):
    result = overfitting([[1.0]], [[h]], 0.01, 100, 10)
    assert result.overfit == pytest.approx(overfit, rel=1e-10)
    assert gap is None or result.gap == pytest.approx(gap, rel=1e-10)


# --- against gradient descent on every training set ---------------------------------------------------------


def quadratic(H, atoms, p):
    """Losses with one Hessian and gradients `atoms` at the start, which is the test minimum."""
    H = torch.as_tensor(H)

    def loss(s):
        s = torch.as_tensor(s)
        return lambda t: t @ H @ t / 2 + s @ t

    return FiniteProblem([loss(s) for s in atoms], p, np.zeros(len(H)))


@st.composite
def models(draw):
    """H (perhaps with a flat direction), three gradients of mean zero, probabilities, a matrix of step sizes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d = draw(st.integers(1, 3))
    U = np.linalg.qr(rng.normal(size=(d, d)))[0]
    h = rng.uniform(0.1, 2, d)
    h[0] *= draw(st.sampled_from([0, 1]))
    H = U @ np.diag(h) @ U.T
    p = rng.dirichlet([3, 3, 3])
    atoms = rng.normal(size=(3, d))
    atoms -= p @ atoms
    M = rng.normal(size=(d, d)) / 3
    eta = M @ M.T + 0.1 * np.eye(d) if draw(st.booleans()) else 0.7
    return (H + H.T) / 2, atoms, p, eta


@given(models(), st.integers(0, 6), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_both_are_exact_where_the_hessian_is_constant(model, T, N):
    H, atoms, p, eta = model
    C = (p * atoms.T) @ atoms
    run = exact.run(quadratic(H, atoms, p), eta, N=N, T=T, B=N)
    result = overfitting(C, H, eta, T, N)
    assert result.overfit == pytest.approx(run.test_loss, rel=1e-11, abs=1e-13)
    assert result.gap == pytest.approx(run.test_loss - run.train_loss, rel=1e-11, abs=1e-13)


def exponential(C, H, time, N):
    """The printed form, with exp(−eta T H)."""
    A = np.linalg.solve(H, np.eye(len(H)) - expm(-time * H))
    return np.trace(C @ A @ H @ A) / (2 * N), np.trace(C @ A) / N


def test_printed_exponential_is_not_exact_but_close_for_small_steps():
    run = exact.run(quadratic(H, ATOMS, [1 / 3] * 3), 0.1, N=3, T=5, B=3)
    overfit, gap = exponential(C, H, 0.5, 3)
    assert (overfit, gap) == pytest.approx((0.0650956303818338, 0.339730712725149), rel=1e-10)
    assert abs(overfit / run.test_loss - 1) > 0.08
    assert abs(gap / (run.test_loss - run.train_loss) - 1) > 0.03
    etas = 0.1 / 2 ** np.arange(5)
    off = [overfitting(C, H, eta, round(0.5 / eta), 3).overfit - overfit for eta in etas]
    assert rate(etas, np.abs(off)) == pytest.approx(1, abs=0.15)


def test_curved_losses_have_it_as_leading_order():
    """A test minimum with third derivatives and noisy Hessians: T² tr(CH)/(2N) eta² and T tr(C)/N eta."""
    losses = [lambda t: t[0] + t[0] ** 2 / 2 + t[0] ** 3 / 6, lambda t: -2 * t[0] + t[0] ** 2 + t[0] ** 4 / 8,
              lambda t: t[0] + t[0] ** 2 / 4 + t[0] ** 3 / 3]  # fmt: skip
    problem, etas = FiniteProblem(losses, [1 / 3] * 3, [0.0]), 0.02 / 2 ** np.arange(5)
    runs = [exact.run(problem, eta, N=3, T=4, B=3) for eta in etas]
    says = [overfitting([[2.0]], [[7 / 6]], eta, 4, 3) for eta in etas]
    over = [run.test_loss - say.overfit for run, say in zip(runs, says, strict=True)]
    gap = [run.test_loss - run.train_loss - say.gap for run, say in zip(runs, says, strict=True)]
    assert rate(etas, np.abs(over)) == pytest.approx(3, abs=0.15)
    assert rate(etas, np.abs(gap)) == pytest.approx(2, abs=0.15)


# --- limits -------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_limit_is_that_of_takeuchi_and_of_akaike(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 5))
    A, F = rng.normal(size=(2, d, d))
    H, C = A @ A.T + np.eye(d), F @ F.T
    limit = overfitting(C, H, 1e-3, None, 7)
    assert limit.gap == pytest.approx(np.trace(np.linalg.solve(H, C)) / 7, rel=1e-10)
    assert limit.overfit == pytest.approx(limit.gap / 2, rel=1e-10)
    assert overfitting(H, H, 1e-3, None, 7).gap == pytest.approx(d / 7, rel=1e-10)
    assert overfitting(C, H, 0.01, 10**5, 7).gap == pytest.approx(limit.gap, rel=1e-10)


def test_limit_does_not_depend_on_the_step_matrix():
    matrix, number = overfitting(C, H, [[0.3, 0.1], [0.1, 0.2]], None, 3), overfitting(C, H, 0.1, None, 3)
    assert (matrix.overfit, matrix.gap) == pytest.approx((number.overfit, number.gap), rel=1e-12)


def test_flat_direction_without_noise_has_a_limit():
    result = overfitting(np.diag([1.0, 0]), np.diag([2.0, 0]), 0.1, None, 5)
    assert (result.overfit, result.gap) == pytest.approx((0.05, 0.1))
    assert overfitting(np.eye(2), np.diag([2.0, 0]), 0.1, 50, 5).gap == pytest.approx(
        (50 * 0.1 + (1 - 0.8**50) / 2) / 5
    )


# --- the worst curvature ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("T", "product"), [(10, 1.28094), (20, 1.26893), (100, 1.25897)])
def test_worst_curvature_has_the_reference_values(T, product):
    assert worst_curvature(T, 0.05) * 0.05 * T == pytest.approx(product, abs=5e-6)


@pytest.mark.parametrize("T", [2, 3, 7, 30])
def test_worst_curvature_is_the_largest_on_a_grid(T):
    grid = np.linspace(0.001, 1, 1000) / 0.1
    rise = [overfitting([[1.0]], [[h]], 0.1, T, 1).overfit for h in grid]
    h = worst_curvature(T, 0.1)
    assert abs(grid[int(np.argmax(rise))] - h) <= 0.01
    assert overfitting([[1.0]], [[h]], 0.1, T, 1).overfit >= max(rise)


def test_worst_curvature_tends_to_the_root_of_exp_x_is_1_plus_2x():
    root = -0.5 - float(lambertw(-0.5 * math.exp(-0.5), -1).real)
    assert root == pytest.approx(1.256431208626068, rel=1e-14)
    assert math.exp(root) == pytest.approx(1 + 2 * root, rel=1e-14)
    T, eta = 10**7, 1e-7
    h = worst_curvature(T, eta)
    assert h == pytest.approx(root, rel=1e-6)
    assert overfitting([[1.0]], [[h]], eta, T, 1).overfit == pytest.approx(0.20363218879453684, rel=1e-6)


BAD = {
    "limit, noise on a flat": (lambda: overfitting(C, np.diag([1.0, 0]), 0.1, None, 3), ValueError, "flat direction"),
    "limit of a large step": (lambda: overfitting(C, H, 1.0, None, 3), ValueError, "eta H of eigenvalue 2.36"),
    "overflow": (lambda: overfitting([[1.0]], [[1.0]], 1e9, 100, 3), ValueError, "overflow by step 100"),
    "negative curvature": (lambda: overfitting(C, -H, 0.1, 3, 3), ValueError, "H has the eigenvalue -2.36"),
    "C no covariance": (lambda: overfitting(-C, H, 0.1, 3, 3), ValueError, "C has the eigenvalue"),
    "C of another size": (lambda: overfitting([[1.0]], H, 0.1, 3, 3), ValueError, r"C has shape \(1, 1\)"),
    "H asymmetric": (lambda: overfitting(C, [[1, 1], [0, 1]], 0.1, 3, 3), ValueError, "H changes by"),
    "eta zero": (lambda: overfitting(C, H, 0.0, 3, 3), ValueError, "eta = 0.0"),
    "eta indefinite": (lambda: overfitting(C, H, -np.eye(2), 3, 3), ValueError, "eta has the eigenvalue -1"),
    "eta of another size": (lambda: overfitting(C, H, np.eye(3), 3, 3), ValueError, r"eta has shape \(3, 3\)"),
    "T negative": (lambda: overfitting(C, H, 0.1, -1, 3), ValueError, "T = -1"),
    "T not whole": (lambda: overfitting(C, H, 0.1, 0.5, 3), TypeError, "T = 0.5"),
    "N zero": (lambda: overfitting(C, H, 0.1, 3, 0), ValueError, "N = 0"),
    "one step has no worst": (lambda: worst_curvature(1, 0.1), ValueError, "T = 1: expected an integer >= 2"),
    "worst, eta": (lambda: worst_curvature(5, -0.1), ValueError, "eta = -0.1"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
