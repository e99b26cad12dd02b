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
from strategies import designs, fractions, spd_matrices, vectors

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
