"""Matrix factorization: smallest trace, lowest rank, and which of them gradient flow finds."""

from itertools import pairwise

import numpy as np
import pytest
from implicitreg.flow import factorization as mf
from scipy.integrate import solve_ivp
from scipy.optimize import linprog


def symmetric(M):
    return (M + np.swapaxes(M, -1, -2)) / 2


def entry(d, i, j):
    A = np.zeros((d, d))
    A[i, j] += 0.5
    A[j, i] += 0.5
    return A


def apply(A, X):
    return np.array([np.trace(a @ X) for a in A])


def sensing(d, m, rank, seed=0):
    """Gaussian measurements of a positive semidefinite matrix of the given rank."""
    g = np.random.default_rng(seed)
    A, U = symmetric(g.normal(size=(m, d, d))), g.normal(size=(d, rank))
    return A, apply(A, U @ U.T)


def loss(A, y, U):
    return 0.5 * np.sum((apply(A, U @ U.T) - y) ** 2)


# Minimum trace


def admm(A, y, rho=1.0, iterations=20000):
    """The naive twin: project on the equations, then on the cone, and add up the difference."""
    d = A.shape[1]
    M = A.reshape(len(A), -1)
    Z = U = np.zeros((d, d))
    for _ in range(iterations):
        X = Z - U - np.eye(d) / rho
        X = X - (np.linalg.pinv(M) @ (M @ X.ravel() - y)).reshape(d, d)
        values, vectors = np.linalg.eigh(X + U)
        Z_new = (vectors * np.maximum(values, 0)) @ vectors.T
        change, Z = np.linalg.norm(Z_new - Z), Z_new
        U = U + X - Z
        if max(np.linalg.norm(X - Z), change) < 1e-12:
            break
    return Z


CASES = {
    "few generic measurements": sensing(6, 4, 3),
    "underdetermined": sensing(8, 14, 1),
    "recovers rank one": sensing(8, 24, 1),
    "only one feasible point": sensing(5, 15, 2),
    "dependent measurements": (np.concatenate([(s := sensing(5, 4, 2))[0], s[0][:1] - 2 * s[0][1:2]]),
                               np.append(s[1], s[1][0] - 2 * s[1][1])),
    "no interior": (np.array([entry(3, 0, 0), entry(3, 1, 2)]), np.array([0.0, 1])),
    "no attained dual": (np.array([entry(3, 0, 0), 2 * entry(3, 0, 1) + entry(3, 1, 1)]), np.array([0.0, 1])),
    "trace alone": (np.eye(3)[None], np.array([2.0])),
    "scaled down": (1e-3 * sensing(5, 6, 2)[0], 1e-6 * sensing(5, 6, 2)[1]),
    "scaled up": (1e3 * sensing(5, 6, 2)[0], 1e6 * sensing(5, 6, 2)[1]),
    "one by one": (np.array([[[2.0]]]), np.array([3.0])),
}  # fmt: skip


@pytest.mark.parametrize(("A", "y"), CASES.values(), ids=CASES.keys())
def test_min_trace_carries_its_own_proof(A, y):
    solution = mf.min_trace(A, y)
    trace = np.trace(solution.X)
    assert np.abs(apply(A, solution.X) - y).max() <= 1e-9 * np.abs(y).max()
    assert np.linalg.eigvalsh(solution.X)[0] >= -1e-9 * trace
    assert np.linalg.eigvalsh(np.eye(A.shape[1]) - np.tensordot(solution.dual, A, 1))[0] >= -1e-9
    assert abs(trace - solution.dual @ y) <= 1e-9 * trace
    assert solution.gap == pytest.approx(trace - solution.dual @ y, abs=1e-9 * trace)


@pytest.mark.parametrize("factor", [1.01, -1.0], ids=["longer", "wrong sign"])
def test_a_wrong_dual_proves_nothing(factor):
    A, y = CASES["underdetermined"]
    solution = mf.min_trace(A, y)
    dual = factor * solution.dual
    feasible = np.linalg.eigvalsh(np.eye(8) - np.tensordot(dual, A, 1))[0] >= -1e-9
    tight = abs(np.trace(solution.X) - dual @ y) <= 1e-9
    assert not (feasible and tight)


@pytest.mark.parametrize("name", ["few generic measurements", "underdetermined", "recovers rank one"])
def test_min_trace_against_admm(name):
    A, y = CASES[name]
    np.testing.assert_allclose(mf.min_trace(A, y).X, admm(A, y), atol=1e-7)  # where ADMM stops


@pytest.mark.parametrize("seed", range(4))
def test_min_trace_of_diagonal_measurements_is_a_linear_program(seed):
    g = np.random.default_rng(seed)
    B = g.normal(size=(3, 7))
    y = B @ (g.random(7) * (g.random(7) < 0.5))
    program = linprog(np.ones(7), A_eq=B, b_eq=y, method="highs")
    solution = mf.min_trace(np.array([np.diag(row) for row in B]), y)
    assert np.trace(solution.X) == pytest.approx(program.fun, abs=1e-9)
    np.testing.assert_allclose(np.diag(solution.X), program.x, atol=1e-8)


def test_min_trace_of_zero_data_is_zero():
    solution = mf.min_trace(np.eye(2)[None], [0.0])
    assert np.abs(solution.X).max() == solution.gap == 0


def test_min_trace_with_every_entry_known_returns_the_matrix():
    M = np.array([[2.0, 1, 0], [1, 3, -1], [0, -1, 1]])
    A = np.array([entry(3, i, j) for i in range(3) for j in range(i, 3)])
    np.testing.assert_allclose(mf.min_trace(A, apply(A, M)).X, M, atol=1e-9)


@pytest.mark.parametrize("R", [1.2, 2, 3, 10])
def test_min_trace_finds_the_smallest_trace_completion(R):
    problem = mf.completion_example(R)
    solution = mf.min_trace(problem.A, problem.y)
    np.testing.assert_allclose(solution.X, problem.min_trace, atol=1e-8 * R)
    np.testing.assert_allclose(solution.dual, [0, 2, 2], atol=1e-8)


def test_rank_beats_trace_on_random_sensing():
    """Fourteen measurements of a rank-one 8×8 matrix: the smallest trace is below the truth's, the flow finds it."""
    g = np.random.default_rng(5)
    u = g.normal(size=8)
    truth = np.outer(u, u) / (u @ u)
    A = symmetric(g.normal(size=(14, 8, 8)))
    solution = mf.min_trace(A, apply(A, truth))
    assert np.trace(solution.X) < 0.99
    X = mf.gradient_flow(A, apply(A, truth), [60.0], 1e-5 * np.eye(8))[0]
    assert np.linalg.norm(X - truth) < 0.02 < 0.1 < np.linalg.norm(solution.X - truth)


# Gradient flow


def test_flow_starts_against_the_numerical_gradient():
    A, y = sensing(4, 5, 2)
    U0 = np.random.default_rng(2).normal(size=(4, 3)) / 2
    h = 1e-3 / np.linalg.norm(A)
    X = mf.gradient_flow(A, y, h * np.arange(5), U0)
    speed = np.tensordot([-25, 48, -36, 16, -3], X, 1) / (12 * h)
    steps = np.eye(12).reshape(12, 4, 3) * 1e-5
    gradient = np.array([(loss(A, y, U0 + s) - loss(A, y, U0 - s)) / 2e-5 for s in steps]).reshape(4, 3)
    expected = -(gradient @ U0.T + U0 @ gradient.T)
    size = np.linalg.norm(expected)
    assert np.linalg.norm(speed - expected) < 1e-6 * size
    assert np.linalg.norm(speed - expected / 2) > 0.4 * size  # the flow without the 2 in 2 A*(e) U


def test_flow_against_an_integration_of_the_matrix_itself():
    A, y = sensing(4, 5, 2, seed=4)
    U0 = 0.3 * np.random.default_rng(3).normal(size=(4, 2))

    def rate(_, x):
        X = x.reshape(4, 4)
        E = np.tensordot(y - apply(A, X), A, 1)
        return 2 * (E @ X + X @ E).ravel()

    times = [0.01, 0.1, 1.0]
    run = solve_ivp(rate, (0, 1), (U0 @ U0.T).ravel(), "LSODA", times, rtol=1e-11, atol=1e-13)
    X = mf.gradient_flow(A, y, times, U0)
    np.testing.assert_allclose(X, run.y.T.reshape(3, 4, 4), atol=1e-7)
    assert np.linalg.matrix_rank(X[-1], tol=1e-10) == 2


def test_flow_keeps_its_order_and_its_start():
    A, y = sensing(3, 2, 1)
    X = mf.gradient_flow(A, y, [0.5, 0.0, 0.5], np.eye(3))
    np.testing.assert_array_equal(X[1], np.eye(3))
    np.testing.assert_array_equal(X[0], X[2])
    np.testing.assert_array_equal(mf.gradient_flow(A, y, [0.0], np.eye(3))[0], np.eye(3))


def completed(R, epsilon):
    problem = mf.completion_example(R)
    T = 3 * (np.log(1 / epsilon) + 20)
    X = mf.gradient_flow(problem.A, problem.y, [T], np.sqrt(epsilon) * np.eye(4))[0]
    assert np.abs(apply(problem.A, X) - problem.y).max() < 1e-7  # it has converged
    return problem, X


@pytest.mark.parametrize(
    ("epsilon", "trace", "to_min_trace", "to_rank_one"),
    [
        pytest.param(1e-1, (8.0135, 5e-5), (0.076, 5e-4), (5.73, 5e-3), id="1e-1"),
        pytest.param(1e-4, (8.677, 5e-4), (3.12, 5e-3), (2.60, 5e-3), id="1e-4"),
        pytest.param(1e-8, (9.806, 5e-4), (5.34, 5e-3), (0.329, 5e-4), id="1e-8"),
        pytest.param(1e-12, (9.9932, 5e-5), (5.65, 5e-3), (1.13e-2, 5e-5), id="1e-12"),
        pytest.param(1e-16, (9.99981, 5e-6), (5.66, 5e-3), (3.1e-4, 5e-6), id="1e-16"),
    ],
)
def test_smaller_initialisation_leaves_the_smallest_trace_for_the_lowest_rank(
    epsilon, trace, to_min_trace, to_rank_one
):
    problem, X = completed(2.0, epsilon)
    assert np.trace(X) == pytest.approx(trace[0], abs=trace[1])
    assert np.linalg.norm(X - problem.min_trace) == pytest.approx(to_min_trace[0], abs=to_min_trace[1])
    assert np.linalg.norm(X - problem.rank_one) == pytest.approx(to_rank_one[0], abs=to_rank_one[1])


@pytest.mark.parametrize(("R", "first"), [(2.0, 2.0**-40), (3.0, 2.0**-72)], ids=["R=2", "R=3"])
def test_distance_to_rank_one_has_the_predicted_exponent_over_four_octaves(R, first):
    epsilons = first * 2.0 ** -np.arange(5)
    runs = [completed(R, epsilon) for epsilon in epsilons]
    distance = [np.linalg.norm(X - problem.rank_one) for problem, X in runs]
    slope = np.polyfit(np.log(epsilons), np.log(distance), 1)[0]
    exponent = runs[0][0].exponent
    assert slope == pytest.approx(exponent, abs=0.01)
    assert abs(slope - (1 - exponent)) > 0.15  # λ2/λ1 instead of 1 − λ2/λ1
    assert abs(slope - 2 * exponent) > 0.15  # ε taken for the size of U0 instead of X0


def test_completion_at_R_three_needs_a_tiny_start():
    _, X = completed(3.0, 1e-32)
    assert np.trace(X) == pytest.approx(19.99996, abs=5e-6)


def test_completion_example_has_its_reference_values():
    problem = mf.completion_example(2)
    assert np.trace(problem.min_trace) == 8
    assert np.trace(problem.rank_one) == 10
    assert problem.exponent == pytest.approx(0.390388203202208, rel=1e-12)
    top = np.linalg.eigvalsh(np.tensordot(problem.y, problem.A, 1))[::-1]
    np.testing.assert_allclose(top[:2], [1.28077640640442, 0.780776406404415], rtol=1e-12)
    for M, rank in ((problem.min_trace, 2), (problem.rank_one, 1)):
        np.testing.assert_allclose(apply(problem.A, M), problem.y, rtol=1e-15)
        assert np.linalg.matrix_rank(M) == rank
        assert np.linalg.eigvalsh(M)[0] > -1e-12


# Commuting measurements


B22, Y22 = np.array([[1, 0.5, 0.2], [0.3, 1, 2]]), np.array([2.5, 1.6])


def commuting(seed=7, B=B22):
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(B.shape[1],) * 2))[0]
    return Q, np.array([(Q * row) @ Q.T for row in B])


def test_commuting_reference_problem_has_its_printed_digits():
    Q, A = commuting()
    X = mf.commuting_limit(A, Y22, 0.1)
    spectrum = [2.25034483178128, 0.392913782930396, 0.265991383767610]
    np.testing.assert_allclose(Q.T @ X @ Q, np.diag(spectrum), atol=1e-9)
    assert np.trace(X) == pytest.approx(2.90924999847929, rel=1e-9)


@pytest.mark.parametrize("alpha", [1.0, 0.1, 1e-3])
def test_commuting_flow_ends_at_the_limit(alpha):
    _, A = commuting()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    X = mf.gradient_flow(A, Y22, [80.0], alpha * rotation)[0]
    np.testing.assert_allclose(X, mf.commuting_limit(A, Y22, alpha), atol=1e-7)
    taken_for_alpha_squared = mf.commuting_limit(A, Y22, np.sqrt(alpha))
    assert alpha == 1 or np.linalg.norm(X - taken_for_alpha_squared) > 1e-2


def test_commuting_limit_minimises_the_entropy_among_all_feasible_matrices():
    _, A = commuting()
    alpha = 0.1
    X = mf.commuting_limit(A, Y22, alpha)

    def objective(X):
        w = np.linalg.eigvalsh(X)
        return np.sum(w * np.log(w / alpha**2) - w)

    M, g = A.reshape(2, 9), np.random.default_rng(0)
    for _ in range(50):
        D = symmetric(g.normal(size=(3, 3))).ravel()
        D = (D - np.linalg.pinv(M) @ (M @ D)).reshape(3, 3)
        D *= 0.05 / np.linalg.norm(D)
        assert objective(X + D) > objective(X) < objective(X - D)


def test_commuting_limit_tends_to_the_smallest_trace():
    Q, A = commuting()
    smallest = mf.min_trace(A, Y22).X
    spectrum = [2.412371134021, 0, 0.438144329897]
    np.testing.assert_allclose(np.diag(Q.T @ smallest @ Q), spectrum, atol=1e-9)  # off the diagonal it is not unique
    limits = [Q.T @ mf.commuting_limit(A, Y22, alpha) @ Q for alpha in (1e-2, 1e-6, 1e-20)]
    distance = [np.linalg.norm(X - np.diag(spectrum)) for X in limits]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 1e-3


def test_commuting_limit_accepts_repeated_joint_eigenvalues():
    _, A = commuting(B=np.array([[1.0, 1, 2, 2]]))
    X = mf.commuting_limit(A, [3.0], 0.1)
    np.testing.assert_allclose(X, mf.gradient_flow(A, [3.0], [50.0], 0.1 * np.eye(4))[0], atol=1e-7)


def test_without_commutation_the_reduction_is_refused():
    problem = mf.completion_example(2)
    with pytest.raises(ValueError, match="do not commute"):
        mf.commuting_limit(problem.A, problem.y, 0.1)


# Completing a 2×2 matrix


def completion_loss(W):
    return 0.5 * ((W[:, 0, 1] - 1) ** 2 + (W[:, 1, 0] - 1) ** 2 + W[:, 1, 1] ** 2)


def completion_gradient(W):
    G = W - np.array([[0.0, 1], [1, 0]])
    G[0, 0] = 0
    return G


def test_completion_reference_values():
    run = mf.razin_cohen([1e4, 1e5, 1e6], 0.09 * np.eye(2))
    np.testing.assert_allclose(run.W[:, 0, 0], [39.02351, 84.28455, 181.68467], atol=1e-5)


def test_symmetric_completion_is_matrix_sensing_at_half_the_time():
    A = np.array([np.sqrt(2) * entry(2, 0, 1), entry(2, 1, 1)])
    t = np.array([0.5, 3.0, 20.0])
    X = mf.gradient_flow(A, [np.sqrt(2), 0], t / 2, 0.3 * np.eye(2))
    np.testing.assert_allclose(mf.razin_cohen(t, 0.09 * np.eye(2)).W, X, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_completion_against_the_flow_of_its_two_factors(seed):
    W0, t = np.random.default_rng(seed).normal(size=(2, 2)), [0.0, 1, 5]
    run, W = mf.razin_cohen(t, W0), mf.deep_gradient_flow(mf.balanced_factors(W0, 2), completion_gradient, t)
    np.testing.assert_allclose(run.W, W, atol=1e-8)
    np.testing.assert_allclose(run.log_det, np.log(np.abs(np.linalg.det(W))), atol=1e-6)


def test_norm_grows_like_the_cube_root_of_6t_over_four_octaves():
    t = 2.0 ** np.arange(16, 21)
    run = mf.razin_cohen(t, 0.25 * np.eye(2))
    w, law = run.W[:, 0, 0], (6 * t) ** (1 / 3)
    assert np.polyfit(np.log(t), np.log(w), 1)[0] == pytest.approx(1 / 3, abs=2e-3)
    np.testing.assert_allclose(w, law, rtol=3e-3)
    assert np.abs(w / (3 * t) ** (1 / 3) - 1).min() > 0.2  # the time of the other normalisation
    np.testing.assert_allclose(completion_loss(run.W) * 2 * w**2, 1, atol=2e-2)
    np.testing.assert_allclose(run.log_det / (4.5 ** (1 / 3) * t ** (2 / 3)), -1, atol=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_positive_determinant_forces_the_free_entry_to_infinity(seed):
    W0 = np.random.default_rng(seed).normal(size=(2, 2))
    W0[0] *= np.sign(np.linalg.det(W0))
    W = mf.razin_cohen([1e2, 1e3, 1e4], W0).W
    assert (np.linalg.det(W) > -1e-12).all()
    bound = W[:, 0, 1] * W[:, 1, 0] / np.abs(W[:, 1, 1])
    np.testing.assert_array_less(bound * (1 - 1e-9), np.abs(W[:, 0, 0]))
    nuclear = np.linalg.svd(W, compute_uv=False).sum(axis=1)
    assert nuclear[0] > 2  # the least nuclear norm of a completion
    assert np.diff(nuclear).min() > 8


def test_unbalanced_factors_cross_determinant_zero():
    U0, V0 = np.array([[1, 0.2], [0.5, -1]]), np.array([[0.3, 1], [0.5, 0.1]])
    assert np.abs(U0.T @ U0 - V0.T @ V0).max() > 0.5
    W = mf.deep_gradient_flow([V0.T, U0], completion_gradient, [0, 10, 100])
    assert np.linalg.det(W[0]) > 0.5
    assert np.linalg.det(W[2]) == pytest.approx(-1, abs=1e-6)
    assert completion_loss(W)[2] < 1e-12


def test_negative_determinant_converges_to_a_point_that_depends_on_the_start():
    ends = []
    for a in (1.0, 0.3, 0.1, 0.01):  # U = aI, V = a diag(1, −1)
        run = mf.razin_cohen([300, 1000], a**2 * np.diag([1.0, -1]))
        assert completion_loss(run.W).max() < 1e-15
        np.testing.assert_allclose(run.log_det, 0, atol=1e-9)
        np.testing.assert_allclose(run.W[0], run.W[1], atol=1e-9)
        ends.append(run.W[1, 0, 0])
    np.testing.assert_allclose(ends, [1.136, 0.171, 0.027, 0.0004], atol=6e-4)  # not 0, but to 0 with a
    run = mf.razin_cohen([300.0], 1e-4 * np.diag([1.0, -0.09]))
    assert run.W[0, 0, 0] == pytest.approx(0.848, abs=1e-3)  # nor to 0 for every shape of a small start


# Deep factorization


def quadratic(seed=0, p=3, q=4):
    """ℓ(W) = ½‖H ∘ (W − M)‖²; its gradient, a start, and a path parameter."""
    g = np.random.default_rng(seed)
    M, H, W = g.normal(size=(p, q)), g.uniform(0.5, 1.5, size=(p, q)), g.normal(size=(p, q))
    return (lambda W: H**2 * (W - M)), W


@pytest.mark.parametrize("N", [1, 2, 3, 4])
def test_balanced_factors_multiply_to_W_and_are_balanced(N):
    _, W = quadratic()
    factors = mf.balanced_factors(W, N)
    assert len(factors) == N
    product = factors[0]
    for lower, upper in pairwise(factors):
        np.testing.assert_allclose(upper.T @ upper, lower @ lower.T, atol=1e-13)
        product = upper @ product
    np.testing.assert_allclose(product, W, atol=1e-13)


def measured_rates(factors, gradient, h=2e-3):
    """dσ/dt at time zero, from the singular values of the product along its flow, by a one-sided fourth-order rule."""
    W = mf.deep_gradient_flow(factors, gradient, h * np.arange(5))
    return np.array([-25, 48, -36, 16, -3]) @ np.linalg.svd(W, compute_uv=False) / (12 * h)


@pytest.mark.parametrize("N", [1, 2, 3, 4])
def test_singular_values_move_by_the_law(N):
    gradient, W = quadratic()
    rates = mf.singular_value_rates(W, gradient(W), N)
    measured = measured_rates(mf.balanced_factors(W, N), gradient, h=2e-4)
    np.testing.assert_allclose(measured, rates, atol=1e-6)  # rtol 1e-10 of the flow over h
    sigma = np.linalg.svd(W, compute_uv=False)
    if N > 1:
        assert np.abs(measured - rates / N).max() > 0.1  # without the factor N
    if N > 2:
        assert np.abs(measured - rates * sigma ** (2 / N - 1)).max() > 0.1  # the exponent of two factors


def test_law_fails_from_unbalanced_factors():
    gradient, W = quadratic()
    W1, W2 = mf.balanced_factors(W, 2)
    rates = mf.singular_value_rates(W, gradient(W), 2)
    measured = measured_rates([3 * W1, W2 / 3], gradient, h=1e-4)
    assert np.abs(measured - rates).max() > 1


def test_singular_values_follow_the_law_along_the_whole_path():
    """With gradient W − M and M, W(0) in one singular basis the law closes: σ' = N σ^(2 − 2/N) (m − σ)."""
    g = np.random.default_rng(4)
    U, V = np.linalg.qr(g.normal(size=(3, 3)))[0], np.linalg.qr(g.normal(size=(3, 3)))[0]
    m, s0, N = np.array([3.0, 2.0, 1.0]), np.array([0.3, 0.2, 0.1]), 3
    M = (U * m) @ V.T
    run = solve_ivp(lambda _, s: N * s ** (2 - 2 / N) * (m - s), (0, 3), s0, "LSODA", [1, 3], rtol=1e-11, atol=1e-12)
    W = mf.deep_gradient_flow(mf.balanced_factors((U * s0) @ V.T, N), lambda W: W - M, [1.0, 3.0])
    np.testing.assert_allclose(np.linalg.svd(W, compute_uv=False), run.y.T, atol=1e-8)


def test_deep_flow_against_the_numerical_gradient():
    gradient, _ = quadratic(seed=1, p=2, q=3)
    g = np.random.default_rng(2)
    factors = [g.normal(size=shape) / 2 for shape in ((4, 3), (2, 4), (2, 2))]
    gradient_M = gradient(np.zeros((2, 3)))
    H2 = gradient(np.ones((2, 3))) - gradient_M

    def value(state):
        a, b, c = np.split(state, [12, 20])
        W = c.reshape(2, 2) @ b.reshape(2, 4) @ a.reshape(4, 3)
        return 0.5 * np.sum(H2 * W**2) + np.sum(gradient_M * W)

    state, h = np.concatenate([M.ravel() for M in factors]), 1e-5
    slope = np.array([(value(state + h * e) - value(state - h * e)) / (2 * h) for e in np.eye(24)])
    step = 1e-3
    values = [np.sum(gradient(W) ** 2 / H2) / 2 for W in mf.deep_gradient_flow(factors, gradient, step * np.arange(5))]
    decrease = np.array([-25, 48, -36, 16, -3]) @ values / (12 * step)
    assert decrease == pytest.approx(-slope @ slope, rel=1e-6)  # dℓ/dt = −|∇ℓ|² over all the factors


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_one_factor_from_zero_is_an_exponential(unit):
    t = np.array([1 / 16, 0.0, 40.0])
    W = mf.deep_gradient_flow([[[0.0]]], lambda W: W - unit / 4, t)[:, 0, 0]
    np.testing.assert_allclose(W, -unit / 4 * np.expm1(-t), rtol=1e-9)


@pytest.mark.parametrize("small", [0.0, 1e-200])
def test_one_of_two_factors_from_zero_is_a_hyperbolic_sine(small):
    """With the constant gradient -1: a' = b and b' = a, from 0 and 1."""
    t = [1 / 16, 1.0, 3.0]
    W = mf.deep_gradient_flow([[[small]], [[1.0]]], lambda W: -np.ones((1, 1)), t)[:, 0, 0]
    np.testing.assert_allclose(W, np.sinh(2 * np.array(t)) / 2, rtol=1e-9)


@pytest.mark.parametrize("small", [1e-100, 1e-8])
def test_factors_that_are_all_small_grow_by_the_right_factor(small):
    t = np.array([1.0, 5.0])
    W = mf.deep_gradient_flow([[[small]], [[small]]], lambda W: -np.ones((1, 1)), t)[:, 0, 0]
    np.testing.assert_allclose(W / small**2, np.exp(2 * t), rtol=1e-8)


def test_two_factors_at_zero_stay():
    np.testing.assert_array_equal(mf.deep_gradient_flow([[[0.0]], [[0.0]]], lambda W: W - 1, [1.0]), [[[0.0]]])


# Bad input


A1, Y1, I2 = [[[1.0, 0.0], [0.0, 1.0]]], [1.0], np.eye(2)
OFF = [entry(2, 0, 0), entry(2, 1, 1), entry(2, 0, 1)]

INFEASIBLE = {
    "negative trace": (A1, [-1.0]),
    "entry beyond Cauchy–Schwarz": (OFF, [1.0, 1.0, 1.001]),
    "entry beyond it by very little": (OFF, [1.0, 1.0, 1 + 1e-6]),
    "negative diagonal": (OFF, [1.0, -1.0, 0.0]),
    "in the closure only": ([entry(3, 0, 0), entry(3, 0, 1)], [0.0, 1.0]),
    "inconsistent equations": ([I2, 2 * I2], [1.0, 3.0]),
    "zero measurement of one": ([0 * I2], [1.0]),
}


@pytest.mark.parametrize(("A", "y"), INFEASIBLE.values(), ids=INFEASIBLE.keys())
def test_min_trace_of_infeasible_data_raises(A, y):
    with pytest.raises(ValueError, match=r"^y (admits|is off)"):
        mf.min_trace(A, y)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(lambda: mf.min_trace([[1.0]], Y1), ValueError, "A has shape", id="flat A"),
        pytest.param(lambda: mf.min_trace(np.ones((1, 2, 3)), Y1), ValueError, "A has shape", id="A not square"),
        pytest.param(lambda: mf.min_trace(np.ones((0, 2, 2)), []), ValueError, "A has shape", id="no A"),
        pytest.param(lambda: mf.min_trace([[[0, 1.0], [0, 0]]], Y1), ValueError, r"A\[0\] differs", id="A asymmetric"),
        pytest.param(lambda: mf.min_trace([[[np.nan]]], Y1), ValueError, r"A\[0, 0, 0\] = nan", id="A nan"),
        pytest.param(lambda: mf.min_trace("abc", Y1), TypeError, "A has dtype", id="A text"),
        pytest.param(lambda: mf.min_trace([[[1.0]], [[1.0, 2.0]]], Y1), ValueError, "A is ragged", id="A ragged"),
        pytest.param(lambda: mf.min_trace(A1, [1.0, 2.0]), ValueError, "y has shape", id="long y"),
        pytest.param(lambda: mf.gradient_flow(A1, Y1, [-1.0], I2), ValueError, r"t\[0\] = -1", id="negative time"),
        pytest.param(lambda: mf.gradient_flow(A1, Y1, [], I2), ValueError, "t has shape", id="no times"),
        pytest.param(lambda: mf.gradient_flow(A1, Y1, [1.0], np.eye(3)), ValueError, "U0 has shape", id="U0 too tall"),
        pytest.param(lambda: mf.gradient_flow(A1, Y1, [1.0], [1.0, 2.0]), ValueError, "U0 has shape", id="U0 flat"),
        pytest.param(lambda: mf.commuting_limit(A1, Y1, 0.0), ValueError, "alpha = 0.0", id="alpha zero"),
        pytest.param(lambda: mf.commuting_limit(A1, Y1, "a"), TypeError, "alpha = 'a'", id="alpha text"),
        pytest.param(lambda: mf.commuting_limit(A1, [-1.0], 0.1), ValueError, "y admits no", id="no spectrum"),
        pytest.param(lambda: mf.completion_example(1.0), ValueError, "R = 1.0", id="R one"),
        pytest.param(lambda: mf.razin_cohen([1.0], np.eye(3)), ValueError, "W0 has shape", id="W0 3×3"),
        pytest.param(lambda: mf.razin_cohen([1.0], np.ones((2, 2))), ValueError, "is singular", id="W0 singular"),
        pytest.param(lambda: mf.razin_cohen([np.inf], I2), ValueError, r"t\[0\] = inf", id="infinite time"),
        pytest.param(lambda: mf.balanced_factors(I2, 0), ValueError, "N = 0", id="no layers"),
        pytest.param(lambda: mf.balanced_factors(I2, 2.0), TypeError, "N = 2.0", id="N a float"),
        pytest.param(lambda: mf.balanced_factors([1.0], 2), ValueError, "W has shape", id="W flat"),
        pytest.param(
            lambda: mf.singular_value_rates(I2, np.eye(3), 2), ValueError, "gradient has", id="gradient shape"
        ),
        pytest.param(
            lambda: mf.deep_gradient_flow([], np.copy, [1.0]), ValueError, "factors is empty", id="no factors"
        ),
        pytest.param(
            lambda: mf.deep_gradient_flow([I2, np.eye(3)], np.copy, [1.0]), ValueError, r"factors\[1\]", id="chain"
        ),
        pytest.param(
            lambda: mf.deep_gradient_flow([I2], np.sum, [1.0]), ValueError, r"gradient\(W\)", id="gradient a number"
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
