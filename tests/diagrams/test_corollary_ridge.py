"""The gap as a penalty: exact from every start, its slope, its limits; and how well descent on it tunes a ridge."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem, exact
from implicitreg.diagrams.corollaries import gap_penalty, overfitting, tune_ridge

# --- the penalty ----------------------------------------------------------------------------------------------


@st.composite
def models(draw):
    """H >= 0 in a random basis, three gradients of mean zero with their probabilities, a minimum and a start."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d = draw(st.integers(1, 3))
    U = np.linalg.qr(rng.normal(size=(d, d)))[0]
    H = U @ np.diag(rng.uniform(0, 2, d) * draw(st.sampled_from([0, 1]))) @ U.T
    p, atoms = rng.dirichlet([3, 3, 3]), rng.normal(size=(3, d))
    return (H + H.T) / 2, atoms - p @ atoms, p, *rng.normal(size=(2, d))


def ridge_problem(H, atoms, p, minimum, start, lam):
    H, minimum = torch.as_tensor(H), torch.as_tensor(minimum)

    def loss(s):
        s = torch.as_tensor(s)
        return lambda t: (t - minimum) @ H @ (t - minimum) / 2 + lam * t @ t / 2 + s @ t

    return FiniteProblem([loss(s) for s in atoms], p, start)


@given(models(), st.integers(0, 5), st.sampled_from([0.0, 0.3, 2.0]))
@settings(max_examples=30, deadline=None)
def test_penalty_is_the_exact_gap_from_every_start(model, T, lam):
    H, atoms, p, minimum, start = model
    run = exact.run(ridge_problem(H, atoms, p, minimum, start, lam), 0.4, N=3, T=T, B=3)
    penalty = gap_penalty((p * atoms.T) @ atoms, H, lam, 0.4, T, 3)
    assert penalty.value == pytest.approx(run.test_loss - run.train_loss, rel=1e-10, abs=1e-12)


@given(models(), st.sampled_from([0, 1, 7, 300, None]), st.sampled_from([0.05, 1.0]))
@settings(max_examples=30, deadline=None)
def test_slope_is_the_derivative_of_the_value(model, T, lam):
    H, atoms, p, *_ = model
    C, step = (p * atoms.T) @ atoms, 1e-6 * (1 + lam)
    up, down = (gap_penalty(C, H, lam + s, 0.4, T, 3).value for s in (step, -step))
    assert gap_penalty(C, H, lam, 0.4, T, 3).slope == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-8)


def test_limits_are_those_of_takeuchi_and_akaike():
    H, C = np.array([[2, 0.7], [0.7, 1]]), np.array([[2.0, -1], [-1, 2 / 3]])
    assert gap_penalty(C, H, 0, 0.1, None, 5).value == pytest.approx(np.trace(C @ np.linalg.inv(H)) / 5, rel=1e-12)
    assert gap_penalty(H, H, 0, 0.1, None, 5).value == pytest.approx(2 / 5, rel=1e-12)
    settled, limit = gap_penalty(C, H, 0.3, 0.1, 3000, 5), gap_penalty(C, H, 0.3, 0.1, None, 5)
    assert (settled.value, settled.slope) == pytest.approx((limit.value, limit.slope), rel=1e-10)
    assert limit.value == overfitting(C, H + 0.3 * np.eye(2), 0.1, None, 5).gap


def test_printed_exponential_is_the_limit_of_small_steps():
    exponential = 100 * (1 - np.exp(-1.5 * 10)) / (10 * 1.5)
    assert gap_penalty([[100.0]], [[1.0]], 0.5, 1e-4, 10**5, 10).value == pytest.approx(exponential, rel=1e-6)


# --- the descent ------------------------------------------------------------------------------------------------


def looped(C, H, minimum, noise, eta, T, N):
    """Descent on U by automatic differentiation, the powers of the matrix taken literally."""
    C, H, minimum, noise = (torch.as_tensor(a, dtype=torch.float64) for a in (C, H, minimum, noise))
    identity, theta, lam = (
        torch.eye(len(H), dtype=torch.float64),
        torch.zeros(len(H)).double(),
        torch.zeros(()).double(),
    )
    path = [(theta, lam)]
    for _ in range(T):
        theta, lam = theta.clone().requires_grad_(), lam.clone().requires_grad_()
        K = identity - eta * (H + lam * identity)
        gap = torch.trace(C @ sum(torch.linalg.matrix_power(K, t) for t in range(T))) * eta / N
        away = theta - minimum
        U = away @ H @ away / 2 + noise @ theta + lam * theta @ theta / 2 + gap
        slopes = torch.autograd.grad(U, (theta, lam))
        theta, lam = (theta - eta * slopes[0]).detach(), (lam - eta * slopes[1]).detach().clamp(min=0)
        path.append((theta, lam))
    return np.array([theta.numpy() for theta, _ in path]), np.array([float(lam) for _, lam in path])


def test_descent_is_that_of_automatic_differentiation():
    arguments = [[4.0, -1], [-1, 2]], [[1.0, 0.3], [0.3, 0.5]], [3.0, -5], [0.3, 0.2], 0.1, 40, 3
    path, (theta, lam) = tune_ridge(*arguments), looped(*arguments)
    assert path.theta.shape == (41, 2)
    np.testing.assert_allclose(path.theta, theta, atol=1e-12)
    np.testing.assert_allclose(path.lam, lam, atol=1e-12)
    assert lam[0] == 0
    assert 0 < lam[-1] < lam.max()  # it rises while theta is small, and falls


# Mean estimation: C = 100, N = 10, minimum 10, eta = 0.01, T = 1000, as in the source's code.
C, N, MU, ETA, T = 100.0, 10, 10.0, 0.01, 1000
NODES = np.linspace(-5, 5, 41)  # the trapezoidal rule for a normal variable; the threshold makes lambda jump
WEIGHTS = np.exp(-(NODES**2) / 2)


def tuned(h):
    """Expected test loss, over normal noise, of descent on theta and lambda."""
    paths = [tune_ridge([[C]], [[h]], [MU], [z * np.sqrt(C / N)], ETA, T, N) for z in NODES]
    losses = [h * (path.theta[-1, 0] - MU) ** 2 / 2 for path in paths]
    return WEIGHTS @ losses / WEIGHTS.sum()


def constant(h, lam):
    """Expected test loss of T steps with a constant ridge: bias and variance."""
    reach = (1 - (1 - ETA * (h + lam)) ** T) / (h + lam)
    return h / 2 * ((reach * h * MU - MU) ** 2 + reach**2 * C / N)


def best(h):
    return constant(h, np.r_[0, np.geomspace(1e-4, 90, 4000)]).min()


def test_best_constant_ridge_is_C_over_N_h_mu_squared():
    lams = np.geomspace(1e-4, 90, 4000)
    assert lams[int(np.argmin(constant(0.1, lams)))] == pytest.approx(C / (N * 0.1 * MU**2), rel=0.01)


@pytest.mark.parametrize(("h", "excess"), [(0.03, 0.07), (0.1, 0.07)])
def test_where_the_data_say_little_descent_comes_close_to_the_best_ridge(h, excess):
    assert best(h) < tuned(h) == pytest.approx((1 + excess) * best(h), rel=0.02)
    assert constant(h, 0) > 4 * tuned(h)


@pytest.mark.parametrize(("h", "worse"), [(0.3, 1.05), (1.0, 1.19)])
def test_where_they_say_more_no_ridge_at_all_is_better(h, worse):
    """A control of the source's advice: tuned by descent, the test loss is above that of lambda = 0."""
    assert tuned(h) == pytest.approx(worse * constant(h, 0), rel=0.03)
    assert best(h) < constant(h, 0)


@pytest.mark.parametrize("h", [0.5, 1.0, 3.0])  # below, the step in lambda overshoots
@pytest.mark.parametrize("share", [0.8, 1.25])
def test_long_descent_decides_by_a_threshold_that_does_not_depend_on_lambda(h, share):
    """Half of the squared gradient at zero, above C/N or below: lambda falls to about 0, or grows without end."""
    force = np.sqrt(2 * C / N * share)
    lam = tune_ridge([[C]], [[h]], [MU], [h * MU - force], ETA, 5000, N).lam
    if share > 1:
        assert lam[-1000:].max() < lam.max() / 10
    else:
        assert lam[-1] > 2
        assert (np.diff(lam[-1000:]) > 0).all()


BAD = {
    "lam negative": (lambda: gap_penalty([[1.0]], [[1.0]], -1.0, 0.1, 3, 2), ValueError, "lam = -1.0"),
    "eta a matrix": (lambda: gap_penalty([[1.0]], [[1.0]], 1.0, [[0.1]], 3, 2), TypeError, "eta"),
    "negative curvature": (lambda: gap_penalty([[1.0]], [[-1.0]], 2.0, 0.1, 3, 2), ValueError, "H has the eigenvalue"),
    "no limit": (lambda: gap_penalty([[1.0]], [[0.0]], 0.0, 0.1, None, 2), ValueError, "flat direction"),
    "overflow": (lambda: gap_penalty([[1.0]], [[1.0]], 1.0, 1e9, 99, 2), ValueError, "overflow by step 99"),
    "minimum, size": (lambda: tune_ridge([[1.0]], [[1.0]], [1, 2], [0], 0.1, 3, 2), ValueError, "minimum has"),
    "noise a number": (lambda: tune_ridge([[1.0]], [[1.0]], [1], 0.0, 0.1, 3, 2), ValueError, "noise has shape"),
    "no number of steps": (lambda: tune_ridge([[1.0]], [[1.0]], [1], [0], 0.1, None, 2), TypeError, "T = None"),
    "large step": (lambda: tune_ridge([[1.0]], [[1.0]], [1], [1], 50.0, 200, 2), ValueError, "overflows by step"),
    "N zero": (lambda: tune_ridge([[1.0]], [[1.0]], [1], [0], 0.1, 3, 0), ValueError, "N = 0"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
