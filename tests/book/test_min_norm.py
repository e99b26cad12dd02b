"""The chapter on least squares: each claim by an independent method, and each check with its negative control.

A control runs the claim's formula with one thing wrong in it, and the check must fail.
"""

import contextlib
import io
import itertools

import nbformat
import numpy as np
import pytest
from implicitreg import runbook
from implicitreg.checks import CheckFailed, check
from implicitreg.flow import minnorm
from scipy.integrate import solve_ivp
from scipy.optimize import LinearConstraint, minimize, minimize_scalar

rng = np.random.default_rng(1)
X, y = rng.normal(size=(6, 12)), rng.normal(size=6)
X2 = np.array([[1.0, 2, 0], [2, 4, 0], [0, 1, 1]])
Y2, W2 = np.array([1.0, 3, 0.5]), np.array([1.0, 0, 2])
TOP = np.linalg.norm(X, 2) ** 2


def modes(X, y, w0):
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    keep = s > 1e-10 * s[0]
    return U[:, keep].T @ (y - X @ w0), s[keep], Vt[keep]


def filtered(X, y, w0, factor, start=1.0, sign=1.0):
    """start·w0 + Σ factor(s_k) (b_k / s_k) v_k, the shape of every formula of the chapter."""
    b, s, Vt = modes(X, y, w0)
    return start * w0 + Vt.T @ (factor(s) * sign * b / s)


def follow(X, y, w0, t, longest=np.inf):
    """The flow at the increasing times t, by a solver that knows nothing of singular values."""
    return solve_ivp(lambda _, w: X.T @ (y - X @ w), (0, t[-1]), w0, "DOP853", t, rtol=1e-12, atol=1e-13,
                     max_step=longest).y.T  # fmt: skip


def integrate(X, y, w0, t):
    return follow(X, y, w0, [t])[-1]


def descend(X, y, eta, k, beta=0.0, D=None):
    D = np.eye(X.shape[1]) if D is None else D
    w = old = np.zeros(X.shape[1])
    for _ in range(k):
        w, old = w + eta * D @ X.T @ (y - X @ w) + beta * (w - old), w
    return w


def told_to_be_small():
    constraint = LinearConstraint(X, y, y)
    options = {"gtol": 1e-12}
    return minimize(lambda w: w @ w / 2, np.zeros(12), jac=lambda w: w, method="trust-constr", constraints=constraint,
                    options=options).x  # fmt: skip


def mean_square(X, eta, delta, k, keep=1.0):
    M = np.outer(delta, delta)
    for _ in range(k):
        noise = sum(np.outer(x, x) * (x @ M @ x) for x in X)
        M = M - eta / len(X) * (X.T @ X @ M + M @ X.T @ X) + keep * eta**2 / len(X) * noise
    return np.trace(M)


def adam_first_step(lr=1e-2):
    import torch

    w = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([w], lr=lr, eps=1e-12)
    (0.5 * ((torch.tensor(y) - torch.tensor(X) @ w) ** 2).sum()).backward()
    adam.step()
    return w.detach().numpy()


def in_kernel(w):
    return w - np.linalg.pinv(X) @ (X @ w)


def test_flow_from_zero_ends_at_the_least_norm():
    check("hegde-lemma-1", measured=minnorm.gradient_flow(X, y, [1e4])[0], predicted=told_to_be_small(), atol=1e-8)


def test_flow_solves_its_differential_equation():
    for t in (0.1, 1.0, 40.0):
        check(
            "ours-1.1-path",
            measured=integrate(X2, Y2, W2, t),
            predicted=minnorm.gradient_flow(X2, Y2, [t], W2)[0],
            atol=1e-9,
        )


def test_limit_is_the_nearest_minimizer():
    w = minnorm.limit(X2, Y2, W2)
    assert np.abs(X2.T @ (Y2 - X2 @ w)).max() < 1e-12
    kernel = np.array([2.0, -1, 1]) / np.sqrt(6)
    assert np.abs(X2 @ kernel).max() < 1e-15
    for c in (-1.0, -1e-3, 1e-3, 1.0):
        assert np.linalg.norm(w + c * kernel - W2) > np.linalg.norm(w - W2)


@pytest.mark.parametrize("ratio", [1.0, 3.0, 40.0])
def test_path_is_straight_iff_one_singular_value_is_active(ratio):
    V = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 2)))[0]
    s = np.array([np.sqrt(ratio), 1.0])
    a = follow(np.diag(s) @ V.T, s, np.zeros(3), np.geomspace(1e-3, 30, 200), longest=0.5 / ratio) @ V
    check("ours-1.1-straight", measured=1 - a[:, 0], predicted=(1 - a[:, 1]) ** ratio, atol=1e-9)
    steps = np.diff(a, axis=0, prepend=np.zeros((1, 2)))
    turn = np.ptp(np.arctan2(steps[:20, 1], steps[:20, 0]))
    assert (turn < 1e-6) == (ratio == 1.0)
    length = np.linalg.norm(steps, axis=1).sum()
    assert (length < np.sqrt(2) + 1e-9) == (ratio == 1.0)


def another_solution():
    return np.r_[np.linalg.solve(X[:, :6], y), np.zeros(6)]


def foot():
    """The foot of the perpendicular from the origin to the solutions, from one of them and the kernel."""
    kernel = np.linalg.svd(X)[2][6:]
    some = another_solution()
    assert np.abs(X @ some - y).max() < 1e-12
    return some - kernel.T @ (kernel @ some)


def test_flow_from_zero_ends_at_the_foot_of_the_perpendicular():
    check("hegde-1.1-shortest-path", measured=integrate(X, y, np.zeros(12), 200), predicted=foot(), atol=1e-8)


@pytest.mark.parametrize("fraction", [0.3, 0.7, 0.98])
def test_descent_in_closed_form_is_the_loop(fraction):
    eta = fraction * 2 / TOP
    check(
        "ours-1.2-closed-form",
        measured=descend(X, y, eta, 7),
        predicted=minnorm.gradient_descent(X, y, eta, 7),
        atol=1e-12,
    )


@pytest.mark.parametrize("fraction", [0.3, 0.7, 0.98])
def test_every_convergent_step_has_the_same_limit(fraction):
    check(
        "hegde-1.2",
        measured=descend(X, y, fraction * 2 / TOP, 5000),
        predicted=np.linalg.pinv(X) @ y,
        atol=1e-12,
    )
    assert np.linalg.norm(descend(X, y, 1.01 * 2 / TOP, 5000)) > 1e10


def test_heavy_ball_in_closed_form_is_the_loop():
    eta, beta = 1.9 * 1.6 / TOP, 0.6
    predicted = minnorm.gradient_descent(X, y, eta, 9, momentum=beta)
    check("ours-1.3-momentum", measured=descend(X, y, eta, 9, beta), predicted=predicted, atol=1e-12)


def test_heavy_ball_has_the_same_limit():
    for share in (0.5, 0.95):
        w = descend(X, y, share * 2 * 1.6 / TOP, 2000, beta=0.6)
        check("ours-1.3-momentum", measured=w, predicted=np.linalg.pinv(X) @ y, atol=1e-12)
    assert np.linalg.norm(descend(X, y, 1.01 * 2 * 1.6 / TOP, 5000, beta=0.6)) > 1e10


def test_sgd_contracts_on_every_step():
    order = np.random.default_rng(2).integers(6, size=500)
    eta = 1.9 / (X**2).sum(1).max()
    w, goal = minnorm.stochastic_gradient_descent(X, y, eta, order), minnorm.limit(X, y)
    left = np.diff(((w - goal) ** 2).sum(1))
    r = np.array([y[i] - X[i] @ v for i, v in zip(order, w, strict=False)])
    np.testing.assert_allclose(left, -eta * (2 - eta * (X[order] ** 2).sum(1)) * r**2, atol=1e-13)
    assert left.max() <= 1e-15


def test_mean_square_is_the_average_over_all_index_sequences():
    X3, y3, eta = X[:3], y[:3], 0.04
    goal = minnorm.limit(X3, y3)
    ends = [minnorm.stochastic_gradient_descent(X3, y3, eta, s)[-1] for s in itertools.product(range(3), repeat=4)]
    exact = np.mean([(w - goal) @ (w - goal) for w in ends])
    assert mean_square(X3, eta, -goal, 4) == pytest.approx(exact, rel=1e-12)
    s = np.linalg.svd(X3)[1]
    bound = (1 - eta * (2 - eta * (X3**2).sum(1).max()) * s[-1] ** 2 / 3) ** 4 * goal @ goal
    assert exact <= bound


def test_preconditioner_chooses_its_own_norm():
    D = np.diag(np.linspace(0.2, 3.0, 12))
    predicted = minnorm.preconditioned_limit(X, y, D)
    check(
        "ours-1.4-preconditioned",
        measured=descend(X, y, 1 / np.linalg.norm(X @ D @ X.T, 2), 5000, D=D),
        predicted=predicted,
        atol=1e-9,
    )


def test_adam_leaves_the_row_space():
    predicted = 1e-2 * in_kernel(np.sign(X.T @ y))
    check("ours-1.3-adam", measured=in_kernel(adam_first_step()), predicted=predicted, atol=1e-9)


def test_stopping_early_is_a_penalty():
    Q = minnorm.early_stopping_penalty(X, 0.15)
    measured = minimize(lambda w: ((y - X @ w) ** 2).sum() / 2 + w @ Q @ w / 2, np.zeros(12),
                        jac=lambda w: -X.T @ (y - X @ w) + Q @ w, method="BFGS", options={"gtol": 1e-11}).x  # fmt: skip
    check("ours-1.5-penalty", measured=measured, predicted=minnorm.gradient_flow(X, y, [0.15])[0], atol=1e-8)


def flow_filter(x):
    return -np.expm1(-x)


def ridge_filter(x):
    return x / (1 + x)


def optimum(f):
    return minimize_scalar(lambda x: -f(x), bounds=(0.1, 10), method="bounded", options={"xatol": 1e-10})


def test_filters_of_flow_and_ridge():
    x = np.geomspace(1e-4, 1e3, 10_000)
    ratio = optimum(lambda x: flow_filter(x) / ridge_filter(x))
    gap = optimum(lambda x: flow_filter(x) - ridge_filter(x))
    assert (ridge_filter(x) < flow_filter(x)).all()
    assert (flow_filter(x) <= -ratio.fun * ridge_filter(x) + 1e-15).all()
    assert 1.2984 < -ratio.fun < 1.2985
    assert 0.2036 < -gap.fun < 0.2037
    check("ours-1.5-filters", measured=[np.exp(ratio.x), np.exp(gap.x)],
          predicted=[1 + ratio.x + ratio.x**2, (1 + gap.x) ** 2], rtol=1e-6)  # fmt: skip
    assert 1 - flow_filter(10) < 5e-5 < 0.09 < 1 - ridge_filter(10)  # as an exercise says
    w = minnorm.ridge(X, y, 1 / 0.15)
    np.testing.assert_allclose(w, filtered(X, y, np.zeros(12), lambda s: ridge_filter(0.15 * s**2)), atol=1e-13)


def minimize_tikhonov(mu):
    return minimize(lambda w: w @ w / 2 + mu * ((y - X @ w) ** 2).sum(), np.zeros(12),
                    jac=lambda w: w - 2 * mu * X.T @ (y - X @ w), method="BFGS", options={"gtol": 1e-11}).x  # fmt: skip


def test_tikhonov_is_ridge_with_one_over_two_mu():
    mus = (0.07, 0.7, 7.0)
    W = np.array([minimize_tikhonov(mu) for mu in mus])
    check("hegde-1.5-tikhonov", measured=W, predicted=[minnorm.ridge(X, y, 1 / (2 * mu)) for mu in mus], atol=1e-7)
    assert (np.diff(np.linalg.norm(W, axis=1)) > 0.01).all()
    assert (np.diff(np.linalg.norm(y - W @ X.T, axis=1)) < -0.01).all()


def sampled_square_error(at=40, runs=400):
    eta = 1 / (X**2).sum(1).max()
    picks = np.random.default_rng(2).integers(6, size=(runs, at))
    ends = np.stack([minnorm.stochastic_gradient_descent(X, y, eta, p)[-1] for p in picks])
    square = ((ends - minnorm.limit(X, y)) ** 2).sum(1)
    return eta, square.mean(), square.std(ddof=1) / np.sqrt(runs)


def sgd_control():
    eta, mean, se = sampled_square_error()
    return {"measured": mean, "predicted": mean_square(X, eta, minnorm.limit(X, y), 40, keep=0), "sigmas": 4, "se": se}


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def diagonal_network(eta, k):
    """Gradient descent on a model that is linear in u * u, not in u."""
    x, u = np.array([1.0, 2.0, 0.5]), np.full(3, 0.3)
    for _ in range(k):
        u = u + 2 * eta * u * x * (1 - x @ (u * u))
    assert abs(1 - x @ (u * u)) < 1e-12
    return u * u


def scaled_axes():
    return np.diag(np.linspace(0.2, 3.0, 12))


def bent_path():
    """Both coordinates at t = 0.1 of a flow that ends at (1, 1)."""
    return integrate(np.diag([3.0, 1.0]), np.array([3.0, 1.0]), np.zeros(2), 0.1)


Z = np.zeros(12)
GD = 0.7 * 2 / TOP
CONTROLS = {
    # the residual with the wrong sign
    "hegde-lemma-1": lambda: pair(filtered(X, y, Z, np.ones_like, sign=-1), told_to_be_small()),
    # the exponent without its square
    "ours-1.1-path": lambda: pair(integrate(X2, Y2, W2, 0.5), filtered(X2, Y2, W2, lambda s: -np.expm1(-0.5 * s))),
    # the start forgotten
    "ours-1.1-any-start": lambda: pair(integrate(X2, Y2, W2, 40.0), filtered(X2, Y2, 0 * W2, np.ones_like)),
    # a straight line for two singular values
    "ours-1.1-straight": lambda: pair(bent_path()[0], bent_path()[1]),
    # a start that is not the origin
    "hegde-1.1-shortest-path": lambda: pair(integrate(X, y, np.linspace(-1, 1, 12), 200), foot()),
    # one step too many
    "ours-1.2-closed-form": lambda: pair(descend(X, y, GD, 7), filtered(X, y, Z, lambda s: 1 - (1 - GD * s**2) ** 8)),
    # a model that is not linear: there the limit depends on the step
    "hegde-1.2": lambda: pair(diagonal_network(0.05, 5000), diagonal_network(0.002, 50_000)),
    # momentum dropped
    "ours-1.3-momentum": lambda: pair(descend(X, y, GD, 9, 0.6), minnorm.gradient_descent(X, y, GD, 9)),
    # the term of order eta² dropped
    "hegde-1.3-sgd": sgd_control,
    # D inverted
    "ours-1.4-preconditioned": lambda: pair(
        descend(X, y, 1 / (3 * TOP), 5000, D=scaled_axes()),
        minnorm.preconditioned_limit(X, y, np.linalg.inv(scaled_axes())),
    ),
    # the gradient instead of its sign
    "ours-1.3-adam": lambda: pair(in_kernel(adam_first_step()), 1e-2 * in_kernel(X.T @ y)),
    # plain ridge, with lambda = 1/t
    "ours-1.5-penalty": lambda: pair(minnorm.gradient_flow(X, y, [0.15])[0], minnorm.ridge(X, y, 1 / 0.15)),
    # the ridge filter with lambda = t in place of 1/t
    "ours-1.5-filters": lambda: pair(
        np.exp(optimum(lambda x: flow_filter(x) / ridge_filter(1 / x)).x),
        (lambda x: 1 + x + x**2)(optimum(lambda x: flow_filter(x) / ridge_filter(x)).x),
    ),
    # lambda = 1/mu, the half forgotten
    "hegde-1.5-tikhonov": lambda: pair(minimize_tikhonov(0.7), minnorm.ridge(X, y, 1 / 0.7)),
}


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    arguments = CONTROLS[claim]()
    with pytest.raises(CheckFailed):
        check(claim, **({} if "sigmas" in arguments else {"atol": 1e-4}), **arguments)


def own(**data):
    """What the cell of "Try your own" prints for these data, as a dictionary."""
    (cell,) = [c.source for c in nbformat.read(runbook.BOOK / "1-flow" / "01_min_norm.ipynb", 4).cells
               if c.cell_type == "code" and "X_own = " in c.source]  # fmt: skip
    lines = [line for line in cell.splitlines() if line.split(" = ")[0] not in data]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec("\n".join(lines), {"np": np, "minnorm": minnorm, **data})
    return dict(line.split(": ", 1) for line in out.getvalue().splitlines())


def distance_of(out):
    return float(out["distance"].split()[0])


@pytest.mark.parametrize("cond", [1e0, 1e3, 1e6])
def test_try_your_own_distance_is_the_condition_number_in_rounding_units(cond):
    g = np.random.default_rng(3)
    U, V = np.linalg.qr(g.normal(size=(5, 5)))[0], np.linalg.qr(g.normal(size=(8, 5)))[0]
    A = U @ np.diag(np.geomspace(1, 1 / cond, 5)) @ V.T
    out = own(X_own=A, y_own=A @ g.normal(size=8), start=g.normal(size=8))
    assert distance_of(out) < 100 * 2.2e-16 * cond
    assert float(out["residual"]) < 1e-13
    assert float(out["slowest direction, 1/σ²"]) == pytest.approx(cond**2, rel=1e-2)


def test_try_your_own_equal_rows_with_two_labels():
    out = own(X_own=np.array([[1.0, 2, 3], [1, 2, 3]]), y_own=np.array([1.0, 2.0]), start=np.zeros(3))
    assert float(out["residual"]) == pytest.approx(0.5**0.5, abs=0.05)
    assert distance_of(out) < 1e-14


def test_try_your_own_almost_equal_rows():
    rows = np.array([[1.0, 2, 3], [1, 2, 3 + 1e-6]])
    out = own(X_own=rows, y_own=np.array([1.0, 2.0]), start=np.zeros(3))
    assert float(out["residual"]) < 1e-8
    assert float(out["slowest direction, 1/σ²"]) > 1e11
    rows[1, 2] = np.nextafter(3, 4)
    assert float(own(X_own=rows, y_own=np.array([1.0, 2.0]), start=np.zeros(3))["residual"]) > 0.5


def test_try_your_own_nothing_to_learn():
    out = own(X_own=np.zeros((2, 3)), y_own=np.array([1.0, 2.0]), start=np.array([1.0, 2, 3]))
    assert out["limit"] == "[1. 2. 3.]"
    assert distance_of(out) == 0
    assert "none" in out["slowest direction, 1/σ²"]
    assert distance_of(own(X_own=np.eye(3), y_own=np.zeros(3), start=np.zeros(3))) == 0


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"X_own": np.array([[1.0, np.nan, 2]])}, "X"),
        ({"X_own": np.ones(3)}, "X"),
        ({"y_own": np.ones(3)}, "y"),
        ({"y_own": np.array([1.0, np.inf])}, "y"),
        ({"start": np.zeros(2)}, "w0"),
    ],
    ids=["nan", "flat", "long", "inf", "start"],
)
def test_try_your_own_says_what_is_wrong(data, name):
    good = {"X_own": np.array([[1.0, 2, 3], [1, 2, 2.5]]), "y_own": np.array([1.0, 2.0]), "start": np.zeros(3)}
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        own(**{**good, **data})
