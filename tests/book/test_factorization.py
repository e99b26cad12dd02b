"""The chapter on matrix factorization: each claim by an independent method, and each check with its negative control.

A control runs the claim's formula with one thing wrong in it, and the check must fail.
"""

import nbformat
import numpy as np
import pytest
from implicitreg import runbook
from implicitreg.checks import CheckFailed, check, rate
from implicitreg.flow import factorization as mf
from scipy.integrate import solve_ivp
from scipy.linalg import fractional_matrix_power
from scipy.optimize import LinearConstraint, minimize

B, Y = np.array([[1, 0.5, 0.2], [0.3, 1, 2]]), np.array([2.5, 1.6])
Q = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
COMMUTING = np.array([(Q * row) @ Q.T for row in B])
R = 2.0
LAMBDA = (1 + np.sqrt(1 + 4 * R**2)) / 4


def commuting_flow(alpha):
    return mf.gradient_flow(COMMUTING, Y, [80.0], alpha * np.eye(3))[0]


def told_its_entropy(alpha, measurements=B, sign=1.0):
    """Minimize tr(X log X − X) + sign·log(1/α²) tr X over the spectra that fit, by a general-purpose optimizer."""
    c = sign * np.log(1 / alpha**2)
    objective = lambda w: np.sum(w * np.log(w) - w) + c * w.sum()  # noqa: E731
    run = minimize(objective, np.full(3, 0.7), jac=lambda w: np.log(w) + c, hess=lambda w: np.diag(1 / w),
                   method="trust-constr", constraints=LinearConstraint(measurements, Y, Y), bounds=[(1e-9, None)] * 3,
                   options={"gtol": 1e-11, "xtol": 1e-14, "maxiter": 3000, "barrier_tol": 1e-12})  # fmt: skip
    return (Q * run.x) @ Q.T


def test_commuting_flow_minimizes_its_entropy():
    for alpha in (0.1, 0.5):
        check("ours-factor-commuting", measured=commuting_flow(alpha), predicted=told_its_entropy(alpha), atol=1e-5)


def test_commuting_flow_beats_every_other_feasible_matrix():
    """Also those that are not diagonal in the common basis."""
    alpha = 0.3
    X = commuting_flow(alpha)

    def objective(X):
        w = np.linalg.eigvalsh(X)
        return np.sum(w * np.log(w / alpha**2) - w)

    F, g = COMMUTING.reshape(2, 9), np.random.default_rng(1)
    for size in (1e-3, 1e-2, 5e-2):
        D = g.normal(size=(3, 3))
        D = ((D + D.T) / 2).ravel()
        D = (D - np.linalg.pinv(F) @ (F @ D)).reshape(3, 3)
        D *= size / np.linalg.norm(D)
        assert min(objective(X + D), objective(X - D)) > objective(X)


@pytest.mark.parametrize("alpha", [0.3, 1e-2, 1e-4, 1e-10])
def test_trace_tends_to_the_least_within_the_bound(alpha):
    z = np.array([2.412371134021, 0, 0.438144329897])  # the linear program min Σw, Bw = y, w ≥ 0
    np.testing.assert_allclose(B @ z, Y, atol=1e-11)
    h = np.sum(z[z > 0] * np.log(z[z > 0])) - z.sum()
    excess = np.trace(mf.commuting_limit(COMMUTING, Y, alpha)) - z.sum()
    assert -1e-9 < excess <= (h + 3) / np.log(1 / alpha**2)


# Two factors


MASK = np.array([[1.0, 0], [1, 1], [0, 1]])
M = np.array([[2.0, 0], [1, -1], [0, 3]])
U0, V0 = np.random.default_rng(3).normal(size=(3, 4)), np.eye(2, 4)


def lift(half=0.5):
    places = np.argwhere(MASK)
    A = np.zeros((len(places), 5, 5))
    for A_i, (i, j) in zip(A, places, strict=True):
        A_i[i, 3 + j] = A_i[3 + j, i] = half
    return A


def two_factors(t):
    return mf.deep_gradient_flow([V0.T, U0], lambda W: MASK * (W - M), [t])[0]


def stacked(t, half=0.5, scale=1.0):
    """half = 1 forgets the ½ of the lift: then the measurements are 2W, and y is scaled along."""
    return mf.gradient_flow(lift(half), scale * M[MASK > 0], [t], np.vstack([U0, V0]))[0][:3, 3:]


def test_two_factors_are_one_stacked_factor():
    check("ours-factor-lift", measured=two_factors(0.7), predicted=stacked(0.7), atol=1e-7)


def test_two_factors_conserve_their_difference():
    E = lambda U, V: MASK * (M - U @ V.T)  # noqa: E731

    def velocity(_, s):
        U, V = s[:12].reshape(3, 4), s[12:].reshape(2, 4)
        return np.concatenate([(E(U, V) @ V).ravel(), (E(U, V).T @ U).ravel()])

    s = solve_ivp(velocity, (0, 3), np.r_[U0.ravel(), V0.ravel()], "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    U, V = s[:12].reshape(3, 4), s[12:].reshape(2, 4)
    np.testing.assert_allclose(U.T @ U - V.T @ V, U0.T @ U0 - V0.T @ V0, atol=1e-9)
    assert np.abs(U.T @ U - U0.T @ U0).max() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_least_trace_of_the_lift_is_twice_the_nuclear_norm(seed):
    """Every entry of W is known, the diagonal blocks are free: a semidefinite program against singular values."""
    W = np.random.default_rng(seed).normal(size=(3, 2))
    A = np.zeros((6, 5, 5))
    for A_i, (i, j) in zip(A, np.ndindex(3, 2), strict=True):
        A_i[i, 3 + j] = A_i[3 + j, i] = 0.5
    least = np.trace(mf.min_trace(A, W.ravel()).X)
    assert least == pytest.approx(2 * np.linalg.svd(W)[1].sum(), rel=1e-8)


# The least trace


def sensing(seed=0, d=6, m=8, rank=2):
    g = np.random.default_rng(seed)
    A, u = g.normal(size=(m, d, d)), g.normal(size=(d, rank))
    A = (A + A.transpose(0, 2, 1)) / 2
    return A, np.tensordot(A, u @ u.T, 2)


def alternate(A, y, rounds=4000, threshold=1.0):
    F, Z, D = A.reshape(len(A), -1), np.zeros(A.shape[1:]), np.zeros(A.shape[1:])
    back = np.linalg.pinv(F)
    for _ in range(rounds):
        X = Z - D - threshold * np.eye(len(D))
        X = X - (back @ (F @ X.ravel() - y)).reshape(X.shape)
        values, V = np.linalg.eigh(X + D)
        Z = (V * np.maximum(values, 0)) @ V.T
        D = D + X - Z
    return Z


@pytest.mark.parametrize("seed", range(3))
def test_least_trace_against_alternating_projections(seed):
    A, y = sensing(seed)
    check(
        "ours-factor-certificate",
        measured=np.trace(mf.min_trace(A, y).X),
        predicted=np.trace(alternate(A, y)),
        rtol=1e-6,
    )


def test_gap_is_an_inner_product():
    A, y = sensing()
    g = np.random.default_rng(4)
    S = np.linalg.eigvalsh(np.tensordot(nu := g.normal(size=8), A, 1))
    nu = nu / S[-1]  # feasible: I − A*(ν) ⪰ 0
    X = mf.gradient_flow(A, y, [60.0], np.eye(6))[0]
    gap = np.trace(X) - nu @ y
    assert gap == pytest.approx(np.vdot(np.eye(6) - np.tensordot(nu, A, 1), X), abs=1e-6)
    assert gap > 0
    assert nu @ y <= mf.min_trace(A, y).dual @ y + 1e-9


# The 4 × 4 problem


def ended(eps, R=R):
    p = mf.completion_example(R)
    return mf.gradient_flow(p.A, p.y, [3 * (np.log(1 / eps) + 20)], np.sqrt(eps) * np.eye(4))[0]


def number(eps, R=R, factor=2.0):
    """κ(∞) from the four scalar equations; factor = 2 is the true coefficient of its rate."""

    def velocity(_, s):
        a, b, c, k = *s[:3], np.exp(s[3])
        e1, e2 = 1 - (a - k * c) / 2, R - b * (1 + k) / 2
        return 2 * (e1 * a + e2 * b), e1 * b + e2 * (a + c), 2 * e2 * b, -factor * e1

    T = 3 * (np.log(1 / eps) + 20)
    return np.exp(solve_ivp(velocity, (0, T), [eps, 0, eps, 0], "DOP853", rtol=1e-11, atol=1e-11 * eps).y[3, -1])


def curve(k, eps, R=R):
    b = 2 * R / (1 + k)
    c = (np.sqrt(1 + k * b**2 + eps**2) - 1) / k
    plus, minus = np.array([[2 + k * c, b], [b, c]]), k * np.array([[c, -b], [-b, 2 + k * c]])
    return np.block([[plus + minus, plus - minus], [plus - minus, plus + minus]]) / 2


@pytest.mark.parametrize("R", [1.2, 2.0, 3.0])
def test_one_number_decides_the_completion(R):
    for eps in (1e-1, 1e-4, 1e-8):
        check("ours-factor-rank", measured=ended(eps, R), predicted=curve(number(eps, R), eps, R), atol=1e-6)


def test_number_is_the_determinant_at_every_time():
    """X₋ = ε² X₊⁻¹ along the whole path, not only at its end."""
    eps, p = 0.2, mf.completion_example(R)
    X = mf.gradient_flow(p.A, p.y, [0.1, 0.5, 1.0, 3.0], np.sqrt(eps) * np.eye(4))
    P, S = X[:, :2, :2], X[:, :2, 2:]
    np.testing.assert_allclose(X[:, 2:, 2:], P, atol=1e-9)
    np.testing.assert_allclose(P - S, eps**2 * np.linalg.inv(P + S), atol=1e-8)


@pytest.mark.parametrize("R", [1.5, 2.0])
def test_distance_to_rank_one_has_its_exponent(R):
    eps = 10.0 ** -np.arange(12, 21, 2)
    rank_one = mf.completion_example(R).rank_one
    distance = [np.linalg.norm(ended(e, R) - rank_one) for e in eps]
    exponent = 2 / (1 + np.sqrt(1 + 4 * R**2))
    check("ours-factor-rank", measured=rate(eps, distance), predicted=exponent, atol=0.005, wrong=1 - exponent)


@pytest.mark.parametrize("R", [1.1, 2.0, 5.0])
def test_two_completions(R):
    p = mf.completion_example(R)
    assert np.trace(mf.min_trace(p.A, p.y).X) == pytest.approx(4 * R, rel=1e-8)
    np.testing.assert_allclose(curve((R - 1) / (R + 1), 0.0, R), p.min_trace, atol=1e-12)
    np.testing.assert_allclose(curve(1e-12, 0.0, R), p.rank_one, atol=1e-3)
    assert np.trace(p.rank_one) == pytest.approx(2 + 2 * R**2)
    assert 2 + 2 * R**2 > 4 * R


def test_landing_matrix_is_the_derivative_of_the_residual():
    """Step 3 of the theorem: ė = −K e at the rank-one completion, K with positive trace and determinant 2."""
    K = np.array([[2, 2 * R], [R, 1 + R**2]])
    assert np.linalg.det(K) == pytest.approx(2)
    assert np.linalg.eigvals(K).real.min() > 0
    a, b, c, h = 2.0, 2 * R, 2 * R**2, 1e-6

    def residual(a, b, k, c):
        return np.array([1 - (a - k * c) / 2, R - b * (1 + k) / 2])

    for e1, e2 in ((1.0, 0.0), (0.0, 1.0)):
        moved = residual(a + h * 2 * (e1 * a + e2 * b), b + h * (e1 * b + e2 * (a + c)), 0.0, c + h * 2 * e2 * b)
        np.testing.assert_allclose((moved - residual(a, b, 0.0, c)) / h, -K @ [e1, e2], atol=1e-6)


def test_eigenvalues_at_the_origin():
    p = mf.completion_example(R)
    top = np.linalg.eigvalsh(np.tensordot(p.y, p.A, 1))
    E0 = np.linalg.eigvalsh([[1, R], [R, 0]])
    assert top[-1] == pytest.approx(LAMBDA)
    np.testing.assert_allclose(np.sort(np.r_[E0, -E0]) / 2, top, atol=1e-12)
    assert E0.sum() == pytest.approx(1)


# The 2 × 2 problem


def velocity(_, s):
    U, V = s.reshape(2, 2, 2)
    E = np.array([[0.0, 1], [1, 0]]) - U @ V.T
    E[0, 0] = 0
    return np.concatenate([(E @ V).ravel(), (E.T @ U).ravel()])


def both_factors(U, V, t):
    run = solve_ivp(velocity, (0, t[-1]), np.r_[U.ravel(), V.ravel()], "DOP853", t, rtol=1e-12, atol=1e-14)
    return np.array([s[:4].reshape(2, 2) @ s[4:].reshape(2, 2).T for s in run.y.T])


LATE = np.array([1e4, 1e5, 1e6])


def free_entry():
    return mf.razin_cohen(LATE, 0.09 * np.eye(2)).W[:, 0, 0]


def test_free_entry_grows_like_the_cube_root_of_six_t():
    check("ours-factor-sign", measured=free_entry(), predicted=(6 * LATE) ** (1 / 3), rtol=0.005)
    W = both_factors(0.3 * np.eye(2), 0.3 * np.eye(2), [5.0, 40.0])
    np.testing.assert_allclose(mf.razin_cohen([5, 40], 0.09 * np.eye(2)).W, W, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_determinant_keeps_its_sign_from_balanced_factors_only(seed):
    g = np.random.default_rng(seed)
    U = g.normal(size=(2, 2))
    O = np.linalg.qr(g.normal(size=(2, 2)))[0]
    det = np.linalg.det(both_factors(U, O @ U, np.linspace(0, 20, 50)))
    assert (np.sign(det) == np.sign(det[0])).all()
    W = both_factors(np.array([[1, 0.2], [0.5, -1]]), np.array([[0.3, 1], [0.5, 0.1]]), [0.0, 100.0])
    assert np.linalg.det(W[0]) > 0 > np.linalg.det(W[1])


def least_free_entry(W):
    root = np.sqrt((W[:, 0, 1] - 1) ** 2 + (W[:, 1, 0] - 1) ** 2 + W[:, 1, 1] ** 2)
    return np.where(root < 1, (1 - root) ** 2 / root, 0)


@pytest.mark.parametrize("seed", range(4))
def test_bound_on_the_free_entry(seed):
    W0 = np.random.default_rng(seed).normal(size=(2, 2))
    W0[0] *= np.sign(np.linalg.det(W0))
    W = mf.razin_cohen(np.geomspace(1e-2, 1e4, 60), W0).W
    assert (np.abs(W[:, 0, 0]) > least_free_entry(W)).all()
    assert least_free_entry(W)[-1] > 10
    assert (np.linalg.svd(W, compute_uv=False).sum(axis=1) >= np.abs(W[:, 0, 0])).all()
    minus = mf.razin_cohen([100.0], 0.09 * np.diag([1.0, -1])).W
    assert np.abs(minus[0, 0, 0]) < least_free_entry(minus)[0]  # the determinant is needed


def fit(W):
    return ((W[:, 0, 1] - 1) ** 2 + (W[:, 1, 0] - 1) ** 2 + W[:, 1, 1] ** 2) / 2


def disturbed(size, seed=1, t=200.0):
    noise = np.random.default_rng(seed).normal(size=(2, 2))
    return both_factors(0.3 * np.eye(2) + size * noise, 0.3 * np.eye(2), [t])


@pytest.mark.parametrize("size", [1e-10, 1e-6, 1e-3])
def test_the_least_imbalance_ends_at_a_completion(size):
    W = disturbed(size)
    check("ours-factor-imbalance", measured=np.linalg.det(W[0]), predicted=-1.0, atol=1e-3)
    check("ours-factor-imbalance", measured=fit(W)[0], below=1e-10)
    assert abs(W[0, 0, 0]) < 10


def test_flow_of_all_factors_crosses_too():
    noise = np.random.default_rng(1).normal(size=(2, 2))
    gradient = lambda W: np.where([[0, 1], [1, 1]], W - [[0, 1], [1, 0]], 0)  # noqa: E731
    W = mf.deep_gradient_flow([0.3 * np.eye(2), 0.3 * np.eye(2) + 1e-4 * noise], gradient, [0.0, 200.0])
    assert np.linalg.det(W[0]) > 0
    check("ours-factor-imbalance", measured=np.linalg.det(W[1]), predicted=-1.0, atol=1e-3)


def test_imbalance_catches_up_after_a_power_of_its_logarithm():
    """(6t)^(2/3) at the change of sign grows, to leading order, like 2 log 1/δ."""
    crossed, sizes = [], np.array([1e-4, 1e-6, 1e-8, 1e-10])
    noise, t = np.random.default_rng(1).normal(size=(2, 2)), np.linspace(1, 120, 1200)
    for size in sizes:
        det = np.linalg.det(both_factors(0.3 * np.eye(2) + size * noise, 0.3 * np.eye(2), t))
        crossed.append(t[np.argmax(det < 0)])
    slopes = np.diff((6 * np.array(crossed)) ** (2 / 3)) / np.diff(2 * np.log(1 / sizes))
    assert (np.diff(slopes) > 0).all()
    assert (slopes > 0.7).all()
    assert (slopes < 1.1).all()


@pytest.mark.parametrize("seed", range(3))
def test_rounding_is_imbalance_enough(seed):
    """Balanced as well as double precision allows, V = O U with a random rotation O."""
    g = np.random.default_rng(seed)
    U, angle = g.normal(size=(2, 2)), g.uniform(0, 2 * np.pi)
    O = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    W = both_factors(U, O @ U, [0.0, 1.0, 400.0])
    assert np.linalg.det(W[1]) > 0
    check("ours-factor-imbalance", measured=np.linalg.det(W[-1]), predicted=-1.0, atol=1e-3)


def descended(scale, seed, starts=20, steps=5000, eta=0.1):
    """Plain gradient descent on Gaussian factors, many starts at once; the products and their first determinants."""
    U, V = scale * np.random.default_rng(seed).normal(size=(2, starts, 2, 2))
    det = np.linalg.det(U @ V.mT)
    for _ in range(steps):
        E = np.array([[0.0, 1], [1, 0]]) - U @ V.mT
        E[:, 0, 0] = 0
        U, V = U + eta * E @ V, V + eta * E.mT @ U
    return U @ V.mT, det


@pytest.mark.parametrize("scale", [0.3, 0.1, 0.01, 0.001])
def test_small_random_starts_end_at_completions(scale):
    W, det = descended(scale, seed=7)
    assert 4 <= (det > 0).sum() <= 16
    check("ours-factor-imbalance", measured=fit(W).max(), below=1e-10)
    check("ours-factor-imbalance", measured=np.abs(W[:, 0, 0]).max(), below=5.0)
    assert np.median(np.linalg.svd(W)[1].sum(axis=1)) < 2.2


# Deep products


def deep_problem():
    g = np.random.default_rng(0)
    M, H, W = g.normal(size=(3, 4)), g.uniform(0.5, 1.5, size=(3, 4)), g.normal(size=(3, 4))
    return (lambda W: H**2 * (W - M)), W


def deep_rates(N, h=2e-4):
    gradient, W = deep_problem()
    path = mf.deep_gradient_flow(mf.balanced_factors(W, N), gradient, h * np.arange(5))
    return np.array([-25, 48, -36, 16, -3]) / 12 @ np.linalg.svd(path)[1] / h


def law(N, factor=None, exponent=None):
    gradient, W = deep_problem()
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    factor, exponent = N if factor is None else factor, 2 - 2 / N if exponent is None else exponent
    return -factor * s**exponent * np.diag(U.T @ gradient(W) @ Vt.T)


@pytest.mark.parametrize("N", [1, 2, 3, 4])
def test_singular_values_of_a_deep_product_move_by_the_law(N):
    check("ours-factor-deep", measured=deep_rates(N), predicted=law(N), atol=1e-5)
    gradient, W = deep_problem()
    np.testing.assert_allclose(mf.singular_value_rates(W, gradient(W), N), law(N), atol=1e-12)


def test_partial_products_of_balanced_factors_are_powers():
    """Wide inner layers, turned by rotations that keep the balance."""
    g = np.random.default_rng(5)
    W = g.normal(size=(3, 3))
    W1, W2, W3 = mf.balanced_factors(W, 3)
    O1, O2 = (np.linalg.qr(g.normal(size=(3, 3)))[0] for _ in range(2))
    W1, W2, W3 = O1 @ W1, O2 @ W2 @ O1.T, W3 @ O2.T
    np.testing.assert_allclose(W3.T @ W3, W2 @ W2.T, atol=1e-12)
    power = fractional_matrix_power(W @ W.T, 2 / 3)
    np.testing.assert_allclose(W3 @ W2 @ (W3 @ W2).T, power, atol=1e-10)
    np.testing.assert_allclose((W2 @ W1).T @ (W2 @ W1), fractional_matrix_power(W.T @ W, 2 / 3), atol=1e-10)


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


CONTROLS = {  # each with the loosest tolerance that the chapter and the tests allow its claim
    # the penalty on the trace with the wrong sign
    "ours-factor-commuting": ({"atol": 1e-5}, lambda: pair(commuting_flow(0.1), told_its_entropy(0.1, sign=-1.0))),
    # the lift without its ½, measurements scaled along: four times as fast
    "ours-factor-lift": ({"atol": 1e-7}, lambda: pair(two_factors(0.3), stacked(0.3, half=1.0, scale=2.0))),
    # κ at half its rate
    "ours-factor-rank": ({"atol": 1e-6}, lambda: pair(ended(1e-4), curve(number(1e-4, factor=1.0), 1e-4))),
    # not balanced, by 1e-4: no norm diverges
    "ours-factor-sign": (
        {"rtol": 0.005},
        lambda: pair(disturbed(1e-4, t=1000.0)[:, 0, 0], [6000 ** (1 / 3)]),
    ),
    # exact balance
    "ours-factor-imbalance": ({"atol": 1e-3}, lambda: pair(np.linalg.det(disturbed(0.0)), [-1.0])),
    # the exponent 2 − 1/N
    "ours-factor-deep": ({"atol": 1e-5}, lambda: pair(deep_rates(3), law(3, exponent=2 - 1 / 3))),
    # multipliers that break I − A*(ν) ⪰ 0 prove nothing: their ν · y is above the least trace
    "ours-factor-certificate": (
        {"rtol": 1e-6},
        lambda: {
            "measured": 1.05 * mf.min_trace(*sensing()).dual @ sensing()[1],
            "below": np.trace(alternate(*sensing())),
        },
    ),
}


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    tolerance, wrong = CONTROLS[claim]
    with pytest.raises(CheckFailed):
        check(claim, **tolerance, **wrong())


def test_wrong_exponent_is_noticed():
    """κ at half its rate, at the tolerance of the exponent."""
    eps = 10.0 ** -np.arange(12, 21, 2)
    rank_one = mf.completion_example(R).rank_one
    distance = [np.linalg.norm(curve(number(e, factor=1.0), e) - rank_one) for e in eps]
    with pytest.raises(CheckFailed):
        check("ours-factor-rank", measured=rate(eps, distance), predicted=1 / (2 * LAMBDA), atol=0.005)


# Try your own


def own(known, y, d, alpha=1e-3):
    """The cell of the reader's own data, run with other data; what it computes."""
    path = runbook.BOOK / "1-flow" / "06_factorization.ipynb"
    (cell,) = [c.source for c in nbformat.read(path, 4).cells if "A_own = " in c.source]
    first, rest = cell.split("\n", 1)
    assert first.startswith("known, y_own, d, alpha = ")
    space = {"np": np, "mf": mf, "known": known, "y_own": np.array(y), "d": d, "alpha": alpha}
    exec(rest, space)
    return space


@pytest.mark.parametrize(
    ("known", "y", "d"),
    [
        ([(0, 0), (0, 1), (1, 2)], [1.0, 2.0, 1.0], 3),
        ([(0, 2), (0, 3), (1, 2)], [1.0, 2.0, 2.0], 4),
        ([(0, 0), (2, 2)], [1.0, 3.0], 3),
        ([(0, 1), (2, 3)], [1.0, -2.0], 4),
    ],
)
def test_try_your_own_trace_is_at_least_the_least(known, y, d):
    run = own(known, y, d)
    residual = np.linalg.norm(run["y_own"] - np.tensordot(run["A_own"], run["X"], 2))
    assert residual < 1e-6
    assert np.trace(run["X"]) >= np.trace(run["best"].X) - 1e-6


def test_try_your_own_commuting_traces_agree_for_small_starts():
    excess = []
    for alpha in (0.3, 1e-2, 1e-5):
        run = own([(0, 0), (2, 2)], [1.0, 3.0], 3, alpha)
        excess.append(np.trace(run["X"]) - np.trace(run["best"].X))
    assert excess[0] > 0.05
    assert np.abs(excess[-1]) < 1e-8


def test_try_your_own_leaves_the_origin_when_it_says():
    """At half of the stated time the residual is what it was, at three times the time it is gone."""
    known, y, alpha = [(0, 1), (2, 3)], [1.0, 2.0], 1e-6
    run = own(known, y, 4, alpha)
    top = np.linalg.eigvalsh(np.tensordot(run["y_own"], run["A_own"], 1))[-1]
    T = np.log(1 / alpha**2) / (4 * top)
    X = mf.gradient_flow(run["A_own"], run["y_own"], [T / 2, 3 * T], alpha * np.eye(4))
    residual = np.linalg.norm(run["y_own"] - np.tensordot(X, run["A_own"], ((1, 2), (1, 2))), axis=1)
    assert residual[0] > 0.99 * np.linalg.norm(y)
    assert residual[1] < 1e-3


def test_try_your_own_says_that_nothing_fits():
    with pytest.raises(ValueError, match="y admits no X ⪰ 0"):
        own([(0, 0), (0, 1)], [-1.0, 2.0], 3)
