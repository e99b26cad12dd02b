"""Matrix sensing on random data: certificates, conserved quantities, the diagonal case; ranks, copies, zeros."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from implicitreg.flow import diagonal
from implicitreg.flow import factorization as mf
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import linprog
from strategies import designs, fractions, orthogonal, spd_matrices, vectors

FEW = settings(max_examples=settings().max_examples // 4)


@st.composite
def symmetric(draw, d):
    M = np.diag(draw(vectors(d, top=4)))
    for i, j in zip(*np.tril_indices(d, -1), strict=True):
        M[i, j] = M[j, i] = draw(fractions(4))
    return M


@st.composite
def sensing(draw, max_d=3):
    """Measurements, one of them possibly twice or zero, of a positive definite matrix.

    Data that only singular matrices fit may be refused: the dual then is attained nowhere.
    """
    d, m = draw(st.integers(1, max_d)), draw(st.integers(1, 3))
    A = np.array([draw(symmetric(d)) for _ in range(m)])
    if m > 1 and draw(st.booleans()):
        A[-1] = draw(st.sampled_from([0.0, 1.0])) * A[0]
    U = draw(designs(3, d))
    U = np.hstack([U, np.zeros((len(U), d - U.shape[1]))])
    X = U.T @ U + np.eye(d) / 4
    return A, np.einsum("mij,ij->m", A, X), X


@given(sensing())
def test_min_trace_has_its_certificate(problem):
    A, y, some = problem
    found = mf.min_trace(A, y)
    size = 1 + np.trace(some)
    np.testing.assert_allclose(np.einsum("mij,ij->m", A, found.X), y, rtol=0, atol=1e-7 * size)
    assert np.linalg.eigvalsh(found.X)[0] >= -1e-7 * size
    assert np.linalg.eigvalsh(np.eye(len(some)) - np.tensordot(found.dual, A, 1))[0] >= -1e-7
    assert np.trace(found.X) == pytest.approx(found.dual @ y, abs=1e-7 * size)
    assert found.gap == pytest.approx(np.trace(found.X) - found.dual @ y, abs=1e-12 * size)
    assert np.trace(found.X) <= np.trace(some) + 1e-7 * size


@FEW
@given(sensing(max_d=2), st.sampled_from([1 / 16, 1 / 4]), st.data())
def test_flow_of_the_factor_and_its_invariances(problem, t, data):
    """A rotation of U changes nothing; measurements in another basis carry the flow there; two halves of a time."""
    A, y, some = problem
    d = len(some)
    U0 = data.draw(designs(d, 3).map(lambda U: np.vstack([U, np.zeros((d - len(U), U.shape[1]))])))
    X = mf.gradient_flow(A, y, [t, 0.0], U0)
    np.testing.assert_allclose(X[1], U0 @ U0.T, rtol=0, atol=1e-12)
    Q = np.linalg.qr(np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 3.0]]))[0]
    r = U0.shape[1]
    turned = mf.gradient_flow(A, y, [t], U0 @ np.linalg.qr(Q[:r, :r])[0])[0]
    size = 1 + np.abs(X[0]).max()
    np.testing.assert_allclose(turned, X[0], rtol=0, atol=1e-7 * size)
    R = np.linalg.qr(Q[:d, :d])[0]
    moved = mf.gradient_flow(R @ A @ R.T, y, [t], R @ U0)[0]
    np.testing.assert_allclose(R.T @ moved @ R, X[0], rtol=0, atol=1e-7 * size)
    assert np.linalg.eigvalsh(X[0])[0] >= -1e-9 * size


@FEW
@given(designs(3, 3, top=4), st.sampled_from([1 / 4, 1.0]), st.sampled_from([1 / 16, 1 / 2]), st.data())
def test_commuting_measurements_are_a_diagonal_network(B, alpha, t, data):
    """A_i = Q diag(B_i) Qᵀ: the path and the limit are those of w = u∘u, in the basis Q."""
    d = B.shape[1]
    y = B @ (np.abs(data.draw(vectors(d))) + 1 / 4)
    Q = np.linalg.qr(np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 3.0]])[:d, :d])[0]
    A = np.einsum("ij,mj,kj->mik", Q, B, Q)
    path = mf.gradient_flow(A, y, [t], alpha * np.eye(d))[0]
    w = diagonal.trajectory(B, y, [t], alpha, signed=False)[0]
    np.testing.assert_allclose(path, (Q * w) @ Q.T, rtol=0, atol=1e-7 * (1 + w.max()))
    w = diagonal.limit(B, y, alpha, signed=False).w
    np.testing.assert_allclose(mf.commuting_limit(A, y, alpha), (Q * w) @ Q.T, rtol=0, atol=1e-7 * (1 + w.max()))


@given(st.integers(1, 64).map(lambda k: 1 + k / 8))
def test_the_completion_example_has_its_two_completions_and_its_exponent(R):
    example = mf.completion_example(R)
    for M in (example.min_trace, example.rank_one):
        np.testing.assert_allclose(np.einsum("mij,ij->m", example.A, M), example.y, rtol=1e-12)
        assert np.linalg.eigvalsh(M)[0] > -1e-12 * R**2
    assert np.trace(example.min_trace) == pytest.approx(4 * R, rel=1e-12)
    assert np.linalg.matrix_rank(example.rank_one) == 1
    second, first = np.linalg.eigvalsh(np.tensordot(example.y, example.A, 1))[-2:]
    assert example.exponent == pytest.approx(1 - second / first, rel=1e-10)
    bound = np.eye(4) - np.tensordot([0.0, 2.0, 2.0], example.A, 1)
    assert np.linalg.eigvalsh(bound)[0] > -1e-12
    assert [0.0, 2.0, 2.0] @ example.y == pytest.approx(4 * R)


@FEW
@given(vectors(4, top=4).map(lambda v: v.reshape(2, 2)), st.sampled_from([1 / 4, 2.0]))
def test_razin_cohen_is_the_flow_of_two_balanced_factors(W0, t):
    assume(abs(np.linalg.det(W0)) > 1 / 32)
    target, seen = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])
    run = mf.razin_cohen([t], W0)
    deep = mf.deep_gradient_flow(mf.balanced_factors(W0, 2), lambda W: seen * (W - target), [t])[0]
    np.testing.assert_allclose(run.W[0], deep, rtol=0, atol=1e-6)
    assert run.log_det[0] == pytest.approx(np.log(abs(np.linalg.det(deep))), abs=1e-5)
    assert np.sign(np.linalg.det(run.W[0])) == np.sign(np.linalg.det(W0))


@given(designs(), st.integers(1, 4))
def test_balanced_factors_multiply_to_the_matrix_and_are_balanced(W, N):
    factors = mf.balanced_factors(W, N)
    product = np.eye(W.shape[1])
    for factor in factors:
        product = factor @ product
    np.testing.assert_allclose(product, W, rtol=0, atol=1e-12)
    for lower, upper in itertools.pairwise(factors):
        np.testing.assert_allclose(upper.T @ upper, lower @ lower.T, rtol=0, atol=1e-12)
    nuclear = np.sum(np.linalg.svd(W, compute_uv=False) ** (2 / N))
    assert sum(np.sum(f**2) for f in factors) == pytest.approx(N * nuclear, abs=1e-11)


@FEW
@given(designs(3, 3, top=4), st.sampled_from([1 / 16, 1 / 2]), st.data())
def test_deep_flow_of_one_factor_is_that_of_the_matrix(W, t, data):
    """With a quadratic loss: an exponential."""
    goal = data.draw(vectors(W.size)).reshape(W.shape)
    found = mf.deep_gradient_flow([W], lambda M: M - goal, [t, 0.0])
    np.testing.assert_allclose(found[0], goal + np.exp(-t) * (W - goal), rtol=0, atol=1e-8 * (1 + np.abs(goal).max()))
    np.testing.assert_allclose(found[1], W, rtol=0, atol=1e-12)


@FEW
@given(designs(2, 2, top=4).filter(lambda W: W.any()), st.integers(2, 3), st.sampled_from([1 / 16, 1 / 4]), st.data())
def test_deep_flow_of_balanced_factors_is_a_flow_of_the_product(W, N, t, data):
    """dW/dt = -sum (WWᵀ)^((j-1)/N) G (WᵀW)^((N-j)/N), integrated by itself."""
    goal = data.draw(vectors(W.size)).reshape(W.shape) / 4

    def slope(_, w):
        M = w.reshape(W.shape)
        P, s, Qt = np.linalg.svd(M, full_matrices=False)
        left = lambda a: (P * s ** (2 * a)) @ P.T if a else np.eye(len(M))  # noqa: E731
        right = lambda a: (Qt.T * s ** (2 * a)) @ Qt if a else np.eye(M.shape[1])  # noqa: E731
        return -sum(left((j - 1) / N) @ (M - goal) @ right((N - j) / N) for j in range(1, N + 1)).ravel()

    run = solve_ivp(slope, (0, t), W.ravel(), "LSODA", rtol=1e-9, atol=1e-11)
    found = mf.deep_gradient_flow(mf.balanced_factors(W, N), lambda M: M - goal, [t])[0]
    np.testing.assert_allclose(found.ravel(), run.y[:, -1], rtol=0, atol=1e-5)


@given(designs(3, 3), st.integers(1, 4), st.data())
def test_singular_values_move_as_the_product_rule_says(W, N, data):
    """u' W' v with W' summed over the factors one by one."""
    s = np.linalg.svd(W, compute_uv=False)
    assume(s[-1] > 1e-3 and (np.diff(s) < -1e-3).all())
    gradient = data.draw(vectors(W.size)).reshape(W.shape)
    factors = mf.balanced_factors(W, N)
    speed = np.zeros_like(W)
    for j in range(N):
        below, above = np.eye(W.shape[1]), np.eye(factors[j].shape[0])
        for f in factors[:j]:
            below = f @ below
        for f in factors[j + 1 :]:
            above = f @ above
        speed -= above @ above.T @ gradient @ below.T @ below
    U, _, Vt = np.linalg.svd(W, full_matrices=False)
    expected = np.einsum("ir,ij,rj->r", U, speed, Vt)
    np.testing.assert_allclose(mf.singular_value_rates(W, gradient, N), expected, rtol=0, atol=1e-8)


@given(st.integers(1, 3).flatmap(spd_matrices), st.sampled_from([1 / 8, 1.0]))
def test_before_the_data_are_felt_the_flow_is_exponential(C, alpha):
    """One measurement C of the value b with a tiny start: X = alpha² e^(4tbC) to leading order."""
    t, tiny = 1 / 4, 1e-8 * alpha
    X = mf.gradient_flow([C], [1.0], [t], tiny * np.eye(len(C)))[0]
    np.testing.assert_allclose(X / tiny**2, expm(4 * t * C), rtol=1e-7, atol=1e-8)


@st.composite
def commuting(draw):
    """A_i = Q diag(B_i) Qᵀ and y from a positive spectrum: zeros, copies, dependent ones, equal joint eigenvalues."""
    B = draw(designs(3, 3, top=4))
    Q = draw(orthogonal(B.shape[1]))
    return B, Q, B @ (np.abs(draw(vectors(B.shape[1]))) + 1 / 4), np.einsum("ij,mj,kj->mik", Q, B, Q)


def entropy(X, alpha):
    """tr (X log X - X - X log alpha²), from the spectrum; 0 log 0 = 0."""
    x = np.linalg.eigvalsh(X)
    x = x[x > 1e-13]
    return np.sum(x * np.log(x / alpha**2) - x)


@given(commuting(), st.sampled_from([1 / 64, 1 / 4, 1.0, 4.0]), st.data())
def test_commuting_limit_fits_and_no_other_matrix_has_less_entropy(problem, alpha, data):
    """The conditions: log X - log alpha² I is a combination of the A_i. Competitors need not commute with them."""
    _, _, y, A = problem
    d = A.shape[1]
    X = mf.commuting_limit(A, y, alpha)
    size = 1 + np.abs(X).max()
    np.testing.assert_allclose(np.einsum("mij,ij->m", A, X), y, rtol=0, atol=1e-9 * size)
    np.testing.assert_allclose(X, X.T, rtol=0, atol=1e-13 * size)
    values, V = np.linalg.eigh(X)
    assert values[0] > 0
    rows = A.reshape(len(A), -1)
    tilt = ((V * np.log(values / alpha**2)) @ V.T).ravel()
    left = tilt - np.linalg.pinv(rows, rcond=1e-9) @ (rows @ tilt)
    np.testing.assert_allclose(left, 0, rtol=0, atol=1e-6 * (1 + np.abs(tilt).max()) * (1 + 1e-6 / values[0]))
    along = np.array(data.draw(vectors(d * d, top=4))).reshape(d, d)
    along = (along + along.T).ravel()
    other = X + (along - np.linalg.pinv(rows, rcond=1e-9) @ (rows @ along)).reshape(d, d) / 16
    other = (other + other.T) / 2
    assume(np.linalg.eigvalsh(other)[0] >= 0)
    assert entropy(other, alpha) >= entropy(X, alpha) - 1e-9 * size * (1 + abs(np.log(alpha)))


@given(commuting(), st.sampled_from([1 / 4, 1.0]), st.data())
def test_commuting_limit_follows_rotations_mixtures_and_units(problem, alpha, data):
    """Equations may be mixed; measurements times c leave it; labels and alpha² times c multiply it."""
    _, _, y, A = problem
    X = mf.commuting_limit(A, y, alpha)
    close = {"rtol": 0, "atol": 1e-8 * (1 + np.abs(X).max())}
    R, mix = data.draw(orthogonal(A.shape[1])), np.eye(len(y)) + np.triu(np.ones((len(y),) * 2), 1) / 2
    np.testing.assert_allclose(R.T @ mf.commuting_limit(R @ A @ R.T, y, alpha) @ R, X, **close)
    np.testing.assert_allclose(mf.commuting_limit(np.tensordot(mix, A, 1), mix @ y, alpha), X, **close)
    np.testing.assert_allclose(mf.commuting_limit(4 * A, 4 * y, alpha), X, **close)
    np.testing.assert_allclose(mf.commuting_limit(A, 4 * y, 2 * alpha) / 4, X, **close)
    twice = mf.commuting_limit(np.concatenate([A, A]), np.r_[y, y], alpha)
    np.testing.assert_allclose(twice, X, **close)


@given(commuting(), st.sampled_from([2.0**-40, 2.0**-160, 2.0**-400]))
def test_the_trace_of_the_limit_exceeds_the_least_one_by_its_bound(problem, alpha):
    """Both minimise: (tr X - tr X*) log 1/alpha² <= sum (w* log w* - w*) + d, with the least trace by linear
    programming on the joint spectrum; `min_trace` reaches it among all matrices."""
    B, _, y, A = problem
    found = linprog(np.ones(B.shape[1]), A_eq=B, b_eq=y, bounds=(0, None))
    assert found.status == 0
    X, w = mf.commuting_limit(A, y, alpha), found.x[found.x > 0]
    slack = (np.sum(w * np.log(w) - w) + B.shape[1]) / np.log(1 / alpha**2)
    size = 1 + found.fun
    assert found.fun - 1e-8 * size <= np.trace(X) <= found.fun + slack + 1e-8 * size
    assert np.trace(mf.min_trace(A, y).X) == pytest.approx(found.fun, abs=1e-7 * size)


def test_the_limit_of_a_start_of_order_one_is_not_the_least_trace():
    """x + 2y = 2: from alpha = 1 the trace is that of (r, r²) with r + 2r² = 2; the least one is 1."""
    A, r = [np.diag([1.0, 2.0])], (np.sqrt(17) - 1) / 4
    np.testing.assert_allclose(np.diag(mf.commuting_limit(A, [2.0], 1.0)), [r, r**2], rtol=1e-10)
    assert np.trace(mf.min_trace(A, [2.0]).X) == pytest.approx(1, abs=1e-8)
    assert r + r**2 > 1.3


@FEW
@given(sensing(), st.data())
def test_min_trace_follows_rotations_mixtures_and_units(problem, data):
    A, y, some = problem
    least, size = np.trace(mf.min_trace(A, y).X), 1 + np.trace(some)
    R, mix = data.draw(orthogonal(len(some))), np.eye(len(y)) + np.triu(np.ones((len(y),) * 2), 1) / 2
    for B, b, scale in ((R @ A @ R.T, y, 1), (np.tensordot(mix, A, 1), mix @ y, 1), (A, 4 * y, 4), (4 * A, y, 1 / 4)):
        assert np.trace(mf.min_trace((B + B.transpose(0, 2, 1)) / 2, b).X) == pytest.approx(
            scale * least, abs=4e-7 * size
        )


@FEW
@given(commuting(), st.sampled_from([1 / 4, 1.0]))
def test_the_flow_arrives_at_the_commuting_limit(problem, alpha):
    """The distance to the limit, in its Bregman divergence, falls; by the slowest rate at the end it is closed."""
    _, _, y, A = problem
    X = mf.commuting_limit(A, y, alpha)
    rows = A.reshape(len(A), -1)
    s = np.linalg.svd(rows, compute_uv=False)
    s = s[s > 1e-9 * s[0]]
    rate = 4 * s[-1] ** 2 * np.linalg.eigvalsh(X)[0] if s.size else 1.0
    assume(s.size == 0 or rate > 0.5)
    path = mf.gradient_flow(A, y, [0.0, 2.0, 20.0 / rate + 2], alpha * np.eye(A.shape[1]))
    np.testing.assert_allclose(path[-1], X, rtol=0, atol=1e-6 * (1 + np.abs(X).max()))
    x = np.trace(X) + entropy(X, 1.0)

    def divergence(Z):
        values, V = np.linalg.eigh(Z)
        return x - np.sum(X * ((V * np.log(values)) @ V.T)) + np.trace(Z) - np.trace(X)

    far = [divergence(Z) for Z in path]
    assert far == sorted(far, reverse=True) or max(far) < 1e-9 * (1 + np.abs(X).max())


@FEW
@given(sensing(max_d=2), st.sampled_from([1 / 16, 1 / 4]), st.data())
def test_two_transposed_factors_are_the_symmetric_one_at_half_the_time(problem, t, data):
    """W = U Uᵀ with both factors free: dU = A*(e) U, half the speed of the tied one."""
    A, y, some = problem
    d = len(some)
    U0 = data.draw(designs(d, 2).map(lambda U: np.vstack([U, np.zeros((d - len(U), U.shape[1]))])))
    slope = lambda W: -np.tensordot(y - np.tensordot(A, W, 2), A, 1)  # noqa: E731
    deep = mf.deep_gradient_flow([U0.T, U0], slope, [2 * t])[0]
    X = mf.gradient_flow(A, y, [t], U0)[0]
    np.testing.assert_allclose(deep, X, rtol=0, atol=1e-6 * (1 + np.abs(X).max()))
