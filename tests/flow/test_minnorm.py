"""Least squares: every closed form against a loop, an ODE solver, a matrix exponential, or 60 digits."""

import mpmath
import numpy as np
import pytest
import scipy.linalg
from implicitreg.flow import minnorm
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar

EPS = np.finfo(float).eps
SHAPES = {"wide": (5, 12), "tall": (12, 5), "square": (6, 6)}


def orthonormal(rng, n, m):
    return np.linalg.qr(rng.normal(size=(n, m)))[0]


def with_spectrum(rng, n, d, s):
    return (orthonormal(rng, n, len(s)) * s) @ orthonormal(rng, d, len(s)).T


def make(shape, rank, consistent, start):
    """One problem with singular values in [1/2, 2], or rank 3 of them."""
    rng = np.random.default_rng(7)
    n, d = SHAPES[shape]
    m = min(n, d) if rank == "full" else 3
    X = with_spectrum(rng, n, d, np.geomspace(2, 0.5, m))
    y = X @ rng.normal(size=d)
    if not consistent:
        y = y + rng.normal(size=n)
    return X, y, rng.normal(size=d) if start == "w0" else np.zeros(d)


CASES = [
    pytest.param(shape, rank, consistent, start, id=f"{shape}-{rank}-{'con' if consistent else 'incon'}sistent-{start}")
    for shape in SHAPES
    for rank in ("full", "deficient")
    for consistent in (True, False)
    for start in ("zero", "w0")
    if consistent or shape == "tall" or rank == "deficient"  # full row rank makes every y consistent
]
every_case = pytest.mark.parametrize(("shape", "rank", "consistent", "start"), CASES)


def close(a, b, rtol=1e-12):
    return bool(np.linalg.norm(a - b) <= rtol * max(np.linalg.norm(b), 1e-300))


def gd_loop(X, y, eta, k, w0, momentum=0.0, before=None):
    w, last = w0.copy(), w0.copy() if before is None else before
    for _ in range(k):
        w, last = w + eta * X.T @ (y - X @ w) + momentum * (w - last), w
    return w


def flow_by_expm(X, y, t, w0):
    """The augmented linear system d/dt (w, 1) = [[-X'X, X'y], [0, 0]] (w, 1)."""
    d = X.shape[1]
    A = np.zeros((d + 1, d + 1))
    A[:d, :d], A[:d, d] = -X.T @ X, X.T @ y
    return np.array([(scipy.linalg.expm(s * A) @ np.append(w0, 1.0))[:d] for s in t])


# --- reference values computed once with 40 digits (the heavy ball: in exact fractions)

X_A, Y_A = [[1, 2, 0.5, -1], [0, 1, -1, 2]], [1, 2]
W0_A = [0.5, 0, 0, -0.25]
X_B, Y_B = [[1, 2, 0], [2, 4, 0], [0, 1, 1]], [1, 3, 0.5]

REFERENCES = {
    "A limit": (
        lambda: minnorm.limit(X_A, Y_A, W0_A),
        [0.573825503355705, 0.570469798657718, -0.385906040268456, 0.521812080536913],
    ),
    "A flow at 0.1": (
        lambda: minnorm.gradient_flow(X_A, Y_A, [0.1], W0_A)[0],
        [0.522796399688803, 0.234074465292164, -0.177083466070156, 0.104166932140312],
    ),
    "A flow at 1": (
        lambda: minnorm.gradient_flow(X_A, Y_A, [1.0], W0_A)[0],
        [0.573179972559796, 0.567923071904798, -0.384973140505308, 0.519946281010616],
    ),
    "A gradient descent": (
        lambda: minnorm.gradient_descent(X_A, Y_A, 0.05, 10, W0_A),
        [0.567974353057587, 0.545467673285202, -0.375531790641233, 0.501063581282466],
    ),
    "B limit (rank 2, inconsistent)": (lambda: minnorm.limit(X_B, Y_B), [0.3, 0.55, -0.05]),
    "B flow at 0.2": (
        lambda: minnorm.gradient_flow(X_B, Y_B, [0.2])[0],
        [0.274316292341238, 0.556070325160656, 0.00743774047818102],
    ),
    "B gradient descent": (
        lambda: minnorm.gradient_descent(X_B, Y_B, 0.02, 25),
        [0.283070653548152, 0.556499104476832, -0.00964220261947205],
    ),
    "A ridge": (
        lambda: minnorm.ridge(X_A, Y_A, 0.5),
        [0.171919770773639, 0.664756446991404, -0.234957020057307, 0.469914040114613],
    ),
    "A Tikhonov with mu = 0.7": (
        lambda: minnorm.ridge(X_A, Y_A, 1 / (2 * 0.7)),
        [0.165862220272049, 0.641948222904783, -0.227292672224660, 0.454585344449320],
    ),
    "A heavy ball": (
        lambda: minnorm.gradient_descent(X_A, Y_A, 0.05, 12, momentum=0.6),
        [0.178139521632235, 0.689944728586405, -0.244595924505819, 0.489191849011637],
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_matches_the_reference_values(name):
    compute, expected = REFERENCES[name]
    assert close(compute(), np.array(expected))


# --- the limit


@every_case
def test_limit_matches_lstsq(shape, rank, consistent, start):
    X, y, w0 = make(shape, rank, consistent, start)
    assert close(minnorm.limit(X, y, w0), w0 + np.linalg.lstsq(X, y - X @ w0, rcond=1e-12)[0])


@every_case
def test_limit_is_the_least_squares_solution_nearest_to_w0(shape, rank, consistent, start):
    X, y, w0 = make(shape, rank, consistent, start)
    w = minnorm.limit(X, y, w0)
    kernel = scipy.linalg.null_space(X, rcond=1e-10)
    assert np.linalg.norm(X.T @ (y - X @ w)) < 1e-13 * np.linalg.norm(y)
    assert np.linalg.norm(kernel.T @ (w - w0)) < 1e-13 * np.linalg.norm(w)


def test_limit_with_independent_rows_is_the_kernel_formula():
    X, y, _ = make("wide", "full", True, "zero")
    assert close(minnorm.limit(X, y), X.T @ np.linalg.solve(X @ X.T, y))


def test_a_wrong_sign_of_the_kernel_part_is_seen():
    X, y, w0 = make("wide", "full", True, "w0")
    projection = np.eye(X.shape[1]) - np.linalg.pinv(X) @ X
    assert close(minnorm.limit(X, y, w0), projection @ w0 + np.linalg.pinv(X) @ y)
    assert not close(minnorm.limit(X, y, w0), -projection @ w0 + np.linalg.pinv(X) @ y, 1e-2)
    assert not close(minnorm.limit(X, y, -w0), projection @ w0 + np.linalg.pinv(X) @ y, 1e-2)


@pytest.mark.parametrize("exponent", [-530, -500, 400, 530])
def test_scaling_the_data_scales_the_limit(exponent):
    X, y, _ = make("wide", "full", True, "zero")
    c = 2.0**exponent
    assert close(minnorm.limit(c * X, y) * c, minnorm.limit(X, y))
    assert close(minnorm.gradient_flow(c * X, y, [1e300])[0] * c, minnorm.limit(X, y)) == (exponent > 0)


def test_the_zero_matrix_leaves_w0():
    w0 = np.array([1.0, -2.0, 3.0])
    X, y = np.zeros((2, 3)), [1.0, 2.0]
    np.testing.assert_array_equal(minnorm.limit(X, y, w0), w0)
    np.testing.assert_array_equal(minnorm.gradient_flow(X, y, [0.0, 5.0], w0), [w0, w0])
    np.testing.assert_array_equal(minnorm.gradient_descent(X, y, 0.1, 9, w0), w0)


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_gram_and_svd_give_the_same_modes(shape, monkeypatch):
    X, y, w0 = make(shape, "full", True, "w0")
    t = [0.1, 1.0, 10.0]
    by_gram = minnorm.gradient_flow(X, y, t, w0)
    monkeypatch.setattr(minnorm, "GRAM_RATIO", np.inf)
    by_svd = minnorm.gradient_flow(X, y, t, w0)
    assert not np.array_equal(by_gram, by_svd)  # two routes were taken
    assert close(by_gram, by_svd, 1e-13)


# --- accuracy, against 60 digits on the stored X


def flow_in_60_digits(X, y, w0, times):
    """Rows w(t), then the limit, from the eigenvectors of XX'."""
    with mpmath.workdps(60):
        M = mpmath.matrix(X.tolist())
        c, U = mpmath.eigsy(M * M.T)
        b = U.T * (mpmath.matrix(y.tolist()) - M * mpmath.matrix(w0.tolist()))
        filters = [lambda c, t=float(t): (1 - mpmath.exp(-t * c)) / c for t in times]
        rows = [M.T * (U * mpmath.matrix([f(c[j]) * b[j] for j in range(len(b))])) for f in [*filters, lambda c: 1 / c]]
        return np.array([[float(w0[i] + row[i]) for i in range(len(w0))] for row in rows])


@pytest.mark.parametrize("start", ["zero", "w0"])
@pytest.mark.parametrize("cond", [1.5, 4.9, 5.1, 1e3, 1e6, 1e9, 1e12])
@pytest.mark.parametrize("shape", ["wide", "square"])
def test_flow_and_limit_lose_no_more_than_50_eps_cond(shape, cond, start):
    rng = np.random.default_rng(3)
    n, d = SHAPES[shape]
    X = with_spectrum(rng, n, d, np.geomspace(3, 3 / cond, n))
    y, w0 = rng.normal(size=n), rng.normal(size=d) * (start == "w0")
    times = np.geomspace(1e-3, 10 * cond**2, 12) / 9
    expected = flow_in_60_digits(X, y, w0, times)
    W = np.vstack([minnorm.gradient_flow(X, y, times, w0), minnorm.limit(X, y, w0)])
    size = np.maximum(np.linalg.norm(expected, axis=1), np.linalg.norm(w0))
    assert (np.linalg.norm(W - expected, axis=1) <= 50 * EPS * cond * size).all()


def test_limit_loses_no_more_than_50_eps_cond_where_the_gram_matrix_is_at_its_worst():
    # one small singular value at the edge of the Gram route, and a y that excites only it
    rng = np.random.default_rng(0)
    n, d = 40, 48
    U, V = orthonormal(rng, n, n), orthonormal(rng, d, n)
    s = np.append(np.ones(n - 1), 1 / 4.99)
    X, y = (U * s) @ V.T, U[:, -1].copy()
    with mpmath.workdps(40):
        M = mpmath.matrix(X.tolist())
        expected = M.T * mpmath.lu_solve(M * M.T, mpmath.matrix(y.tolist()))
    assert close(minnorm.limit(X, y), np.array([float(v) for v in expected]), 50 * EPS * 5)


# --- numerical rank


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_singular_values_at_the_rounding_level_count_as_zero(shape):
    rng = np.random.default_rng(5)
    n, d = SHAPES[shape]
    U, V = orthonormal(rng, n, 3), orthonormal(rng, d, 3)
    X = (U * [2.0, 1.0, 1e-17]) @ V.T
    y = rng.normal(size=n)
    expected = V[:, :2] @ ((U[:, :2].T @ y) / [2.0, 1.0])
    assert close(minnorm.limit(X, y), expected)
    assert close(minnorm.gradient_flow(X, y, [1e300])[0], expected)


def test_singular_values_above_the_rounding_level_count():
    X = np.diag([1.0, 1e-13])
    assert close(minnorm.limit(X, [1.0, 1.0]), np.array([1.0, 1e13]))


# --- gradient flow

TIMES = np.array([0.0, 0.03, 0.4, 2.0, 9.0])


@every_case
def test_gradient_flow_matches_the_matrix_exponential(shape, rank, consistent, start):
    X, y, w0 = make(shape, rank, consistent, start)
    W = minnorm.gradient_flow(X, y, TIMES, w0)
    assert W.shape == (len(TIMES), X.shape[1])
    assert close(W, flow_by_expm(X, y, TIMES, w0))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_flow_matches_an_ode_solver(shape):
    X, y, w0 = make(shape, "deficient", False, "w0")
    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14, "t_eval": TIMES}
    solution = solve_ivp(lambda t, w: X.T @ (y - X @ w), (0, TIMES[-1]), w0, **options)
    assert close(minnorm.gradient_flow(X, y, TIMES, w0), solution.y.T, 1e-11)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda X, y, w0: minnorm.gradient_flow(X, y, 2 * TIMES, w0), id="loss without the half"),
        pytest.param(lambda X, y, w0: minnorm.gradient_flow(X, y, TIMES / len(y), w0), id="mean loss"),
        pytest.param(lambda X, y, w0: minnorm.gradient_flow(X, y, TIMES, -w0), id="sign of w0"),
        pytest.param(lambda X, y, w0: minnorm.gradient_flow(X, -y, TIMES, w0), id="sign of the residual"),
    ],
)
def test_a_wrong_flow_is_seen(wrong):
    X, y, w0 = make("tall", "full", False, "w0")
    assert not close(wrong(X, y, w0), flow_by_expm(X, y, TIMES, w0), 1e-2)


def test_times_may_come_in_any_order():
    X, y, w0 = make("wide", "full", True, "w0")
    forwards = minnorm.gradient_flow(X, y, TIMES, w0)
    assert close(minnorm.gradient_flow(X, y, TIMES[::-1], w0), forwards[::-1], 1e-14)


@every_case
def test_flow_ends_at_the_limit(shape, rank, consistent, start):
    X, y, w0 = make(shape, rank, consistent, start)
    for t in (1e3, 1e30, 1e308):
        assert close(minnorm.gradient_flow(X, y, [t], w0)[0], minnorm.limit(X, y, w0), 1e-13)


def test_distance_to_the_limit_shrinks_at_least_like_the_slowest_mode():
    X, y, w0 = make("wide", "deficient", False, "w0")
    w = minnorm.limit(X, y, w0)
    distance = np.linalg.norm(minnorm.gradient_flow(X, y, TIMES, w0) - w, axis=1)
    slowest, fastest = 0.5**2, 2.0**2
    assert (distance <= np.exp(-slowest * TIMES) * distance[0] * (1 + 1e-12)).all()
    assert not (distance <= np.exp(-fastest * TIMES) * distance[0] * (1 + 1e-12)).all()


def bend(W):
    """Second over first singular value of the displacements: 0 for a straight path."""
    s = np.linalg.svd(W - W[0], compute_uv=False)
    return s[1] / s[0]


@pytest.mark.parametrize(
    ("b", "straight"),
    [
        pytest.param([1.0, -2.0, 0.0, 0.0], True, id="one eigenspace of dimension two"),
        pytest.param([0.0, 0.0, 1.0, 0.0], True, id="one eigenvector"),
        pytest.param([0.0, 0.0, 1.0, 3.0], True, id="one eigenvector and an unreachable part"),
        pytest.param([1.0, 0.0, 1.0, 0.0], False, id="two eigenspaces"),
    ],
)
def test_path_is_straight_iff_the_reachable_residual_lies_in_one_eigenspace(b, straight):
    rng = np.random.default_rng(1)
    U, V = orthonormal(rng, 6, 4), orthonormal(rng, 9, 3)
    X, w0 = (U[:, :3] * [2.0, 2.0, 1.0]) @ V.T, rng.normal(size=9)
    W = minnorm.gradient_flow(X, X @ w0 + U @ b, np.linspace(0, 4, 30), w0)
    assert bend(W) < 1e-13 if straight else bend(W) > 0.05


# --- gradient descent and momentum


@every_case
@pytest.mark.parametrize("momentum", [0.0, 0.6])
@pytest.mark.parametrize("k", [0, 1, 2, 37])
def test_gradient_descent_matches_the_loop(shape, rank, consistent, start, momentum, k):
    X, y, w0 = make(shape, rank, consistent, start)
    closed = minnorm.gradient_descent(X, y, 0.2, k, w0, momentum)
    assert np.linalg.norm(closed - gd_loop(X, y, 0.2, k, w0, momentum)) < 1e-12 * (
        np.linalg.norm(y) + np.linalg.norm(w0)
    )


@pytest.mark.parametrize(
    "loop",
    [
        pytest.param(lambda X, y, w0: gd_loop(X, y, 0.2, 9, w0, 0.6, before=np.zeros_like(w0)), id="w_-1 = 0"),
        pytest.param(lambda X, y, w0: gd_loop(X, y, 0.2 * 0.4, 9, w0, 0.6), id="step damped by 1 - beta"),
        pytest.param(lambda X, y, w0: gd_loop(X, y, 0.2, 9, w0, -0.6), id="sign of beta"),
        pytest.param(lambda X, y, w0: gd_loop(X, y, 0.2, 8, w0, 0.6), id="one step short"),
        pytest.param(lambda X, y, w0: gd_loop(X, y, 0.2 / len(y), 9, w0, 0.6), id="mean loss"),
    ],
)
def test_a_wrong_descent_is_seen(loop):
    X, y, w0 = make("tall", "full", False, "w0")
    assert not close(minnorm.gradient_descent(X, y, 0.2, 9, w0, 0.6), loop(X, y, w0), 1e-3)


@pytest.mark.parametrize("k", [5, 60])
def test_momentum_at_a_double_root_matches_the_loop(k):
    beta = 0.25
    eta = (1 - np.sqrt(beta)) ** 2  # the roots of z^2 - (1 + beta - eta) z + beta coincide, s = 1
    X, y, w0 = np.eye(2), np.array([1.0, -3.0]), np.array([0.5, 0.5])
    assert close(minnorm.gradient_descent(X, y, eta, k, w0, beta), gd_loop(X, y, eta, k, w0, beta), 1e-14)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("x", "k"), [(1e-12, 10**6), (1e-9, 10**9), (0.3, 7), (1.7, 50)])
def test_progress_of_a_mode_is_accurate_for_tiny_steps_and_many_of_them(x, k, momentum):
    with mpmath.workdps(60):
        b, e = mpmath.mpf(momentum), mpmath.mpf(x)
        power = mpmath.matrix([[1 - e, b], [-e, b]]) ** k
        expected = float(1 - power[0, 0])
        scalar = float(1 - (1 - e) ** k)
    measured = minnorm.gradient_descent([[1.0]], [1.0], x, k, momentum=momentum)[0]
    assert measured == pytest.approx(expected, rel=1e-13)
    assert (measured == pytest.approx(scalar, rel=1e-13)) == (momentum == 0)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.9, 0.99])
def test_every_step_below_the_critical_one_has_the_same_limit(fraction, momentum):
    X, y, w0 = make("wide", "deficient", False, "w0")
    eta = fraction * (1 + momentum) * minnorm.step_sizes(X).critical
    w = minnorm.gradient_descent(X, y, eta, 10**6, w0, momentum)
    assert close(w, minnorm.limit(X, y, w0))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_step_above_the_critical_one_diverges(momentum):
    X, y, w0 = make("wide", "deficient", False, "w0")
    eta = 1.01 * (1 + momentum) * minnorm.step_sizes(X).critical
    assert np.linalg.norm(minnorm.gradient_descent(X, y, eta, 5000, w0, momentum)) > 1e6


def test_divergence_needs_a_residual_in_the_top_mode():
    X, eta = np.diag([2.0, 1.0]), 0.6  # critical: 0.5
    assert close(minnorm.gradient_descent(X, [0.0, 1.0], eta, 1000), np.array([0.0, 1.0]))
    assert minnorm.gradient_descent(X, [1.0, 1.0], eta, 100)[0] < -1e10


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9])
def test_momentum_is_stable_iff_eta_s2_is_below_2_plus_2_beta(beta):
    boundary = 2 * (1 + beta)

    def error(eta):
        return abs(1 - minnorm.gradient_descent([[1.0]], [1.0], eta, 1000, momentum=beta)[0])

    assert error(0.99 * boundary) < 1e-8
    assert error(1.01 * boundary) > 1e6
    assert 0.1 < error(boundary) < 100  # the root -1 neither grows nor decays


@pytest.mark.parametrize("x", [1.95, 2.5], ids=["above 1 + beta", "above 2"])
def test_a_boundary_without_the_factor_two_or_without_beta_is_wrong(x):
    assert abs(1 - minnorm.gradient_descent([[1.0]], [1.0], x, 1000, momentum=0.9)[0]) < 1e-8


def test_best_step_has_the_smallest_worst_factor():
    rng = np.random.default_rng(2)
    s = np.array([2.0, 1.3, 0.5])
    sizes = minnorm.step_sizes(with_spectrum(rng, 5, 9, s))
    assert sizes.critical == pytest.approx(2 / 4, rel=1e-13)
    found = minimize_scalar(lambda eta: np.abs(1 - eta * s**2).max(), bounds=(0, 1), options={"xatol": 1e-12})
    assert sizes.best == pytest.approx(found.x, rel=1e-7)  # golden section at a kink
    assert sizes.rate == pytest.approx(found.fun, rel=1e-7)


def test_rate_is_the_contraction_of_the_worst_start():
    X = np.diag([2.0, 0.5])
    sizes = minnorm.step_sizes(X)
    w = gd_loop(X, np.zeros(2), sizes.best, 10, np.ones(2))
    assert np.linalg.norm(w) / np.sqrt(2) == pytest.approx(sizes.rate**10, rel=1e-12)


def test_step_sizes_of_one_mode_reach_the_limit_in_one_step():
    X = [[3.0, 4.0]]
    sizes = minnorm.step_sizes(X)
    assert sizes.rate == 0
    assert close(minnorm.gradient_descent(X, [25.0], sizes.best, 1), np.array([3.0, 4.0]))


# --- SGD


def test_sgd_matches_the_plain_recursion():
    X, y, w0 = make("tall", "full", False, "w0")
    indices = np.random.default_rng(4).integers(0, len(y), 50)
    W = minnorm.stochastic_gradient_descent(X, y, 0.3, indices, w0)
    w = w0
    for k, i in enumerate(indices):
        gradient = np.array([-(y[i] - sum(X[i, j] * w[j] for j in range(len(w)))) * X[i, m] for m in range(len(w))])
        w = w - 0.3 * gradient
        assert close(W[k + 1], w, 1e-13)


def sgd_problem():
    X, y, w0 = make("wide", "full", True, "w0")
    R2 = (X**2).sum(axis=1).max()
    indices = np.random.default_rng(6).integers(0, len(y), 3000)
    return X, y, w0, R2, indices


def test_sgd_on_a_consistent_system_goes_to_the_same_limit():
    X, y, w0, R2, indices = sgd_problem()
    W = minnorm.stochastic_gradient_descent(X, y, 1 / R2, indices, w0)
    assert close(W[-1], minnorm.limit(X, y, w0), 1e-11)


def test_sgd_on_an_inconsistent_system_does_not_converge():
    X, y, w0 = make("tall", "full", False, "w0")
    indices = np.random.default_rng(6).integers(0, len(y), 4000)
    W = minnorm.stochastic_gradient_descent(X, y, 0.2, indices, w0)
    distance = np.linalg.norm(W - minnorm.limit(X, y, w0), axis=1)
    assert distance[2000:].max() > 0.1
    assert np.abs(np.diff(W[2000:], axis=0)).max() > 0.1


@pytest.mark.parametrize(("factor", "holds"), [(2, True), (1, False)], ids=["2 - eta |x|^2", "1 - eta |x|^2"])
def test_sgd_contraction_identity(factor, holds):
    X, y, w0, R2, indices = sgd_problem()
    eta, indices = 1.3 / R2, indices[:40]
    W = minnorm.stochastic_gradient_descent(X, y, eta, indices, w0)
    square = ((W - minnorm.limit(X, y, w0)) ** 2).sum(axis=1)
    r = y[indices] - (X[indices] * W[:-1]).sum(axis=1)
    drop = eta * (factor - eta * (X[indices] ** 2).sum(axis=1)) * r**2
    assert (np.abs(square[:-1] - square[1:] - drop).max() < 1e-12 * square[0]) == holds


def mean_shrinkage(X, y, eta, w, target):
    """E|w_{k+1} - target|^2 / |w - target|^2 over a uniform example, by enumeration."""
    steps = [minnorm.stochastic_gradient_descent(X, y, eta, [i], w)[1] for i in range(len(y))]
    return np.mean([((v - target) ** 2).sum() for v in steps]) / ((w - target) ** 2).sum()


def test_sgd_mean_rate_bound():
    X, y, w0, R2, indices = sgd_problem()
    eta, n, target = 0.8 / R2, len(y), minnorm.limit(X, y, w0)
    smallest = np.linalg.svd(X, compute_uv=False)[-1] ** 2
    path = minnorm.stochastic_gradient_descent(X, y, eta, indices[:60], w0)
    shrinkage = [mean_shrinkage(X, y, eta, w, target) for w in path]
    assert max(shrinkage) <= 1 - eta * (2 - eta * R2) * smallest / n
    assert max(shrinkage) > 1 - eta * (2 - eta * R2) * smallest  # the 1/n is needed


def test_sgd_mean_rate_bound_is_attained_by_orthogonal_rows_of_one_length():
    X, n, eta, w0 = 2.0 * np.eye(3, 5), 3, 0.1, np.ones(5)
    target = minnorm.limit(X, np.zeros(3), w0)
    shrinkage = mean_shrinkage(X, np.zeros(3), eta, w0, target)
    assert shrinkage == pytest.approx(1 - eta * (2 - eta * 4) * 4 / n, rel=1e-14)


# --- ridge and early stopping


@every_case
@pytest.mark.parametrize("penalty", [1e-3, 0.7, 50.0])
def test_ridge_matches_the_augmented_least_squares_problem(shape, rank, consistent, start, penalty):
    X, y, w0 = make(shape, rank, consistent, start)
    root = np.sqrt(penalty) * np.eye(X.shape[1])
    expected = np.linalg.lstsq(np.vstack([X, root]), np.concatenate([y, root @ w0]), rcond=None)[0]
    assert close(minnorm.ridge(X, y, penalty, w0), expected)
    assert close(minnorm.ridge(X, y, penalty * np.eye(X.shape[1]), w0), expected, 1e-11)


def test_ridge_with_a_matrix_is_stationary():
    X, y, w0 = make("wide", "deficient", False, "w0")
    G = np.random.default_rng(8).normal(size=(12, 12))
    Q = G @ G.T + np.eye(12)
    w = minnorm.ridge(X, y, Q, w0)
    assert np.linalg.norm(X.T @ (X @ w - y) + Q @ (w - w0)) < 1e-12 * np.linalg.norm(X.T @ y)


def test_a_semidefinite_penalty_is_enough_where_the_data_determine_the_rest():
    w = minnorm.ridge([[1.0, 0.0]], [1.0], np.diag([0.0, 1.0]))
    assert close(w, np.array([1.0, 0.0]))


def test_one_implicit_euler_step_is_ridge_with_one_over_t():
    X, y, w0 = make("tall", "full", False, "w0")
    t = 0.7
    step = np.linalg.solve(np.eye(5) + t * X.T @ X, w0 + t * X.T @ y)  # w = w0 + t X'(y - X w)
    assert close(minnorm.ridge(X, y, 1 / t, w0), step)
    assert not close(minnorm.ridge(X, y, t, w0), step, 1e-2)


def test_tikhonov_is_ridge_with_one_over_two_mu():
    X, y, _ = make("wide", "full", True, "zero")
    mu = 0.3
    w = minnorm.ridge(X, y, 1 / (2 * mu))

    def gradient(w):  # of |w|^2/2 + mu |y - Xw|^2
        return w - 2 * mu * X.T @ (y - X @ w)

    assert np.linalg.norm(gradient(w)) < 1e-13 * np.linalg.norm(w)
    assert np.linalg.norm(gradient(minnorm.ridge(X, y, 1 / mu))) > 0.1 * np.linalg.norm(w)


@every_case
@pytest.mark.parametrize("t", [1e-3, 0.5, 4.0, 500.0])
def test_stopping_at_t_is_ridge_with_the_early_stopping_penalty(shape, rank, consistent, start, t):
    X, y, w0 = make(shape, rank, consistent, start)
    stopped = minnorm.gradient_flow(X, y, [t], w0)[0]
    assert close(minnorm.ridge(X, y, minnorm.early_stopping_penalty(X, t), w0), stopped)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_penalty_of_another_time_is_seen(factor):
    X, y, _ = make("wide", "full", True, "zero")
    stopped = minnorm.gradient_flow(X, y, [0.5])[0]
    assert not close(minnorm.ridge(X, y, minnorm.early_stopping_penalty(X, 0.5 * factor)), stopped, 1e-2)
    assert not close(minnorm.ridge(X, y, 1 / 0.5), stopped, 1e-2)  # the scalar 1/t is only near


def test_early_stopping_penalty_matches_the_matrix_exponential():
    X, _, _ = make("tall", "full", True, "zero")
    C, t = X.T @ X, 0.8
    expected = C @ np.linalg.inv(scipy.linalg.expm(t * C) - np.eye(5))
    assert close(minnorm.early_stopping_penalty(X, t), expected)
    wrong_sign = C @ np.linalg.inv(scipy.linalg.expm(t * C) + np.eye(5))
    assert not close(minnorm.early_stopping_penalty(X, t), wrong_sign, 1e-2)


@pytest.mark.parametrize("t", [1e-12, 1.0, 1e12])
def test_early_stopping_penalty_is_one_over_t_on_the_kernel_and_less_elsewhere(t):
    X, _, _ = make("wide", "deficient", True, "zero")
    Q = minnorm.early_stopping_penalty(X, t)
    kernel = scipy.linalg.null_space(X, rcond=1e-10)
    assert close(Q @ kernel, kernel / t)
    values = t * np.linalg.eigvalsh(Q)
    assert (values > -1e-14).all()
    assert (values < 1 + 1e-14).all()


@pytest.mark.parametrize("t", [1e-12, 0.3, 1e306])
def test_early_stopping_penalty_has_no_overflow_at_either_end(t):
    exact_zero_and_huge_ratio = np.diag([0.0, 1e-6, 30.0])
    with mpmath.workdps(40):
        expected = [1 / t, *(float(c / mpmath.expm1(t * c)) for c in (mpmath.mpf(1e-6) ** 2, mpmath.mpf(900)))]
    assert close(minnorm.early_stopping_penalty(exact_zero_and_huge_ratio, t), np.diag(expected), 1e-14)


def filters(x):
    """1 - e^-x and x/(1 + x), as the package computes them: one mode with s = 1, stopped at t = x."""
    return minnorm.gradient_flow([[1.0]], [1.0], [x])[0, 0], minnorm.ridge([[1.0]], [1.0], 1 / x)[0]


def test_flow_fits_more_than_ridge_but_at_most_1_298426_times():
    x = np.geomspace(1e-6, 1e6, 400)
    flow, ridge = np.array([filters(v) for v in x]).T
    assert (flow >= ridge * (1 - 1e-15)).all()
    assert (flow <= 1.298426 * ridge).all()
    assert not (flow <= 1.298 * ridge).all()
    worst = minimize_scalar(lambda v: -np.divide(*filters(v)), bounds=(0.1, 10), options={"xatol": 1e-10})
    assert worst.x == pytest.approx(1.793282, abs=1e-6)
    assert -worst.fun == pytest.approx(1.298426, abs=1e-6)
    assert worst.fun**2 == pytest.approx(1.685909, abs=1e-6)


def test_flow_and_ridge_filters_differ_by_at_most_0_2036():
    worst = minimize_scalar(lambda v: -np.subtract(*filters(v)), bounds=(0.1, 10), options={"xatol": 1e-10})
    assert worst.x == pytest.approx(2.512862, abs=1e-6)
    assert -worst.fun == pytest.approx(0.203632189, abs=1e-9)


@pytest.mark.parametrize(("s", "coincide"), [([2.0, 2.0], True), ([2.0, 1.0], False)], ids=["one value", "two values"])
def test_flow_meets_the_ridge_curve_iff_one_singular_value_is_active(s, coincide):
    rng = np.random.default_rng(9)
    X, y = with_spectrum(rng, 2, 6, s), np.array([1.0, 0.5])
    stopped = minnorm.gradient_flow(X, y, [0.4])[0]
    nearest = minimize_scalar(
        lambda u: np.linalg.norm(minnorm.ridge(X, y, np.exp(u)) - stopped), bounds=(-8, 8), options={"xatol": 1e-13}
    )
    assert nearest.fun < 1e-7 if coincide else nearest.fun > 1e-3
    if coincide:
        assert close(minnorm.ridge(X, y, 4 / np.expm1(0.4 * 4)), stopped)


# --- preconditioning


def preconditioner(d):
    G = np.random.default_rng(10).normal(size=(d, d))
    return G @ G.T / d + np.diag(np.linspace(0.5, 2, d))


@every_case
def test_preconditioned_limit_is_where_the_iteration_goes(shape, rank, consistent, start):
    X, y, w0 = make(shape, rank, consistent, start)
    D = preconditioner(X.shape[1])
    eta, w = 1 / np.linalg.eigvalsh(X @ D @ X.T)[-1], w0
    for _ in range(4000):
        w = w + eta * D @ X.T @ (y - X @ w)
    assert close(minnorm.preconditioned_limit(X, y, D, w0), w, 1e-11)


@every_case
def test_preconditioned_limit_minimises_the_inverse_norm_among_least_squares_solutions(shape, rank, consistent, start):
    X, y, w0 = make(shape, rank, consistent, start)
    D = preconditioner(X.shape[1])
    w = minnorm.preconditioned_limit(X, y, D, w0)
    kernel = scipy.linalg.null_space(X, rcond=1e-10)
    assert np.linalg.norm(X.T @ (y - X @ w)) < 1e-12 * np.linalg.norm(y)  # unweighted: D does not change the loss
    assert np.linalg.norm(kernel.T @ np.linalg.solve(D, w - w0)) < 1e-12 * np.linalg.norm(w)


def test_preconditioned_limit_with_independent_rows_is_the_kernel_formula():
    X, y, _ = make("wide", "full", True, "zero")
    D = preconditioner(12)
    expected = D @ X.T @ np.linalg.solve(X @ D @ X.T, y)
    assert close(minnorm.preconditioned_limit(X, y, D), expected)
    assert not close(minnorm.preconditioned_limit(X, y, np.linalg.inv(D)), expected, 1e-2)
    assert not close(minnorm.limit(X, y), expected, 1e-2)
    assert close(minnorm.preconditioned_limit(X, y, 3 * np.eye(12)), minnorm.limit(X, y))


# --- bad input

X2, Y2 = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]]), np.array([1.0, 2.0])
NAN, INF = float("nan"), float("inf")

TAKES_X = {
    "limit": lambda X, y, w0: minnorm.limit(X, y, w0),
    "gradient_flow": lambda X, y, w0: minnorm.gradient_flow(X, y, [1.0], w0),
    "gradient_descent": lambda X, y, w0: minnorm.gradient_descent(X, y, 0.1, 3, w0),
    "stochastic_gradient_descent": lambda X, y, w0: minnorm.stochastic_gradient_descent(X, y, 0.1, [0], w0),
    "ridge": lambda X, y, w0: minnorm.ridge(X, y, 1.0, w0),
    "preconditioned_limit": lambda X, y, w0: minnorm.preconditioned_limit(X, y, np.eye(3), w0),
}
BAD_DATA = {
    "X vector": ([1.0, 2.0], Y2, None, ValueError, "X has shape"),
    "X empty": (np.zeros((0, 3)), Y2, None, ValueError, "X has shape"),
    "X ragged": ([[1.0, 2.0], [3.0]], Y2, None, ValueError, "X is ragged"),
    "X nan": ([[1.0, NAN, 0.0], [0.0, 1.0, 1.0]], Y2, None, ValueError, r"X\[0, 1\] = nan"),
    "X text": ([["a", "b", "c"]], [1.0], None, TypeError, "X has dtype"),
    "X complex": (X2 + 1j, Y2, None, TypeError, "X has dtype"),
    "y short": (X2, [1.0], None, ValueError, "y has shape"),
    "y column": (X2, Y2[:, None], None, ValueError, "y has shape"),
    "y inf": (X2, [1.0, INF], None, ValueError, r"y\[1\] = inf"),
    "w0 short": (X2, Y2, [1.0, 2.0], ValueError, "w0 has shape"),
    "w0 nan": (X2, Y2, [1.0, NAN, 0.0], ValueError, r"w0\[1\] = nan"),
    "w0 text": (X2, Y2, ["a", "b", "c"], TypeError, "w0 has dtype"),
}


@pytest.mark.parametrize("bad", BAD_DATA)
@pytest.mark.parametrize("function", TAKES_X)
def test_bad_data_is_refused(function, bad):
    X, y, w0, error, message = BAD_DATA[bad]
    with pytest.raises(error, match=message):
        TAKES_X[function](X, y, w0)


BAD_SETTINGS = {
    "t negative": (lambda: minnorm.gradient_flow(X2, Y2, [1.0, -2.0]), ValueError, r"t\[1\] = -2: expected times >= 0"),
    "t inf": (lambda: minnorm.gradient_flow(X2, Y2, [INF]), ValueError, r"t\[0\] = inf"),
    "t scalar": (lambda: minnorm.gradient_flow(X2, Y2, 1.0), ValueError, "t has shape"),
    "t empty": (lambda: minnorm.gradient_flow(X2, Y2, []), ValueError, "t has shape"),
    "t text": (lambda: minnorm.gradient_flow(X2, Y2, ["now"]), TypeError, "t has dtype"),
    "eta zero": (lambda: minnorm.gradient_descent(X2, Y2, 0.0, 1), ValueError, "eta = 0.0"),
    "eta nan": (lambda: minnorm.gradient_descent(X2, Y2, NAN, 1), ValueError, "eta = nan"),
    "eta text": (lambda: minnorm.gradient_descent(X2, Y2, "0.1", 1), TypeError, "eta = '0.1'"),
    "k negative": (lambda: minnorm.gradient_descent(X2, Y2, 0.1, -1), ValueError, "k = -1"),
    "k fraction": (lambda: minnorm.gradient_descent(X2, Y2, 0.1, 1.5), TypeError, "k = 1.5"),
    "momentum one": (lambda: minnorm.gradient_descent(X2, Y2, 0.1, 1, momentum=1.0), ValueError, "momentum = 1.0"),
    "momentum < 0": (lambda: minnorm.gradient_descent(X2, Y2, 0.1, 1, momentum=-0.1), ValueError, "momentum = -0.1"),
    "sgd eta": (lambda: minnorm.stochastic_gradient_descent(X2, Y2, -0.1, [0]), ValueError, "eta = -0.1"),
    "index high": (lambda: minnorm.stochastic_gradient_descent(X2, Y2, 0.1, [0, 2]), ValueError, r"indices\[1\] = 2"),
    "index negative": (
        lambda: minnorm.stochastic_gradient_descent(X2, Y2, 0.1, [-1]),
        ValueError,
        r"indices\[0\] = -1",
    ),
    "indices float": (lambda: minnorm.stochastic_gradient_descent(X2, Y2, 0.1, [0.0]), TypeError, "indices has dtype"),
    "indices bool": (lambda: minnorm.stochastic_gradient_descent(X2, Y2, 0.1, [True]), TypeError, "indices has dtype"),
    "indices empty": (lambda: minnorm.stochastic_gradient_descent(X2, Y2, 0.1, []), ValueError, "indices has shape"),
    "indices scalar": (lambda: minnorm.stochastic_gradient_descent(X2, Y2, 0.1, 0), ValueError, "indices has shape"),
    "indices ragged": (lambda: minnorm.stochastic_gradient_descent(X2, Y2, 0.1, [[0], [0, 1]]), ValueError, "indices"),
    "penalty zero": (lambda: minnorm.ridge(X2, Y2, 0.0), ValueError, "penalty = 0.0"),
    "penalty nan": (lambda: minnorm.ridge(X2, Y2, NAN), ValueError, "penalty = nan"),
    "penalty text": (lambda: minnorm.ridge(X2, Y2, "l2"), TypeError, "penalty = 'l2'"),
    "penalty shape": (lambda: minnorm.ridge(X2, Y2, np.eye(2)), ValueError, "penalty has shape"),
    "penalty vector": (lambda: minnorm.ridge(X2, Y2, np.ones(3)), ValueError, "penalty has shape"),
    "penalty ragged": (lambda: minnorm.ridge(X2, Y2, [[1.0], [1.0, 2.0]]), ValueError, "penalty is ragged"),
    "penalty skew": (lambda: minnorm.ridge(X2, Y2, np.triu(np.ones((3, 3)))), ValueError, "symmetric"),
    "penalty singular": (lambda: minnorm.ridge([[1.0, 0.0]], [1.0], np.diag([1.0, 0.0])), ValueError, "definite"),
    "penalty negative": (lambda: minnorm.ridge(X2, Y2, -9 * np.eye(3)), ValueError, "positive definite"),
    "stopping t zero": (lambda: minnorm.early_stopping_penalty(X2, 0.0), ValueError, "t = 0.0"),
    "stopping t inf": (lambda: minnorm.early_stopping_penalty(X2, INF), ValueError, "t = inf"),
    "stopping t list": (lambda: minnorm.early_stopping_penalty(X2, [1.0]), TypeError, "t = "),
    "stopping X": (lambda: minnorm.early_stopping_penalty([1.0], 1.0), ValueError, "X has shape"),
    "D shape": (lambda: minnorm.preconditioned_limit(X2, Y2, np.eye(2)), ValueError, "D has shape"),
    "D indefinite": (lambda: minnorm.preconditioned_limit(X2, Y2, np.diag([1.0, 1.0, -1.0])), ValueError, "D has"),
    "D skew": (lambda: minnorm.preconditioned_limit(X2, Y2, np.triu(np.ones((3, 3)))), ValueError, "D differs"),
    "step_sizes X": (lambda: minnorm.step_sizes([1.0, 2.0]), ValueError, "X has shape"),
    "step_sizes nan": (lambda: minnorm.step_sizes([[NAN]]), ValueError, "X"),
    "step_sizes zero": (lambda: minnorm.step_sizes(np.zeros((2, 3))), ValueError, "X = 0"),
}


@pytest.mark.parametrize("bad", BAD_SETTINGS)
def test_bad_settings_are_refused(bad):
    call, error, message = BAD_SETTINGS[bad]
    with pytest.raises(error, match=message):
        call()


def test_the_arguments_are_left_as_they_were():
    X, y, w0 = make("wide", "full", True, "w0")
    before = X.copy(), y.copy(), w0.copy()
    minnorm.gradient_flow(X, y, [1.0], w0)[:] = 0
    minnorm.limit(np.zeros_like(X), y, w0)[:] = 0
    minnorm.stochastic_gradient_descent(X, y, 0.1, [0], w0)[:] = 0
    for now, then in zip((X, y, w0), before, strict=True):
        np.testing.assert_array_equal(now, then)
