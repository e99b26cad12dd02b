"""The chapter on the maximum margin: each claim by an independent method, and each check with its negative control.

A control runs the claim's formula with one thing wrong in it, and the check must fail.
"""

import contextlib
import io

import mpmath
import nbformat
import numpy as np
import pytest
from implicitreg import runbook
from implicitreg.checks import CheckFailed, check, rate
from implicitreg.flow import maxmargin as mm
from scipy.integrate import solve_ivp
from scipy.linalg import null_space
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.datasets import load_breast_cancer

FOUR = np.array([[1.0, 0.5], [0.4, 1.5], [2.0, 2.0], [3.0, 0.1]])
CROWD = np.array([[1.0, 0.0]] * 50 + [[0.0, 1.0]])
PAIR = np.array([[1.0, 0.0], [1.0, 1.0]])
WIDE = np.array([[1.0, 0.0], [3.0, 1.0]])
VALIDATION = np.array([[-1.0, 0.5], [0.3, 0.2], [0.5, -2.0]])
LATE = np.array([1e3, 2e3])


def ones(Z):
    return np.ones(len(Z))


def unit(w):
    return w / np.linalg.norm(w)


def told(Z):
    """The shortest w with Zw >= 1, by a solver that knows nothing of duals."""
    feasible = {"type": "ineq", "fun": lambda w: Z @ w - 1, "jac": lambda w: Z}
    start = mm.normalized_gradient_descent(Z, ones(Z), 0.1, 2000)
    return minimize(lambda w: w @ w / 2, start, jac=lambda w: w, method="SLSQP", constraints=feasible,
                    options={"ftol": 1e-15}).x  # fmt: skip


def late_flow(Z, s, w0, logistic=False):
    """w at t = e^s by Radau in s = log t on the residual w - w* s, from t = 1 on; w* comes from `told`."""
    w_star = told(Z)
    theta = Z @ w_star

    def pull(s, rho):
        m = Z @ rho + theta * s
        g = 1 / (1 + np.exp(-m)) if logistic else np.ones(len(Z))
        return np.exp((1 - theta) * s - Z @ rho) * g, g  # nothing large cancels

    def slope(s, rho):
        return pull(s, rho)[0] @ Z - w_star

    def jacobian(s, rho):
        size, g = pull(s, rho)
        return -(Z.T * size * g) @ Z

    path = solve_ivp(slope, (0, s[-1]), w0, "Radau", s, jac=jacobian, rtol=1e-9, atol=1e-10)
    return path.y.T + np.outer(s, w_star)


def entropies():
    """γ*, H, H_∞ and w~ of the two support vectors of FOUR, which are independent: plain linear algebra."""
    Z = FOUR[:2]
    alpha = np.linalg.solve(Z @ Z.T, np.ones(2))
    gamma = 1 / np.sqrt(alpha.sum())
    p = gamma**2 * alpha
    return gamma, -p @ np.log(p), -np.log(p.max()), np.linalg.solve(Z, -np.log(alpha))


@pytest.mark.parametrize("logistic", [False, True])
def test_direction_of_the_flow_is_that_of_the_shortest_feasible_vector(logistic):
    loss = "logistic" if logistic else "exp"
    claim = "hegde-theorem-1-logistic" if logistic else "hegde-theorem-1"
    w = mm.gradient_flow(FOUR, ones(FOUR), [1e6], loss, w0=[-2.0, 3.0])[0]
    check(claim, measured=unit(w), predicted=unit(told(FOUR)), atol=1e-5)
    check(claim, measured=unit(late_flow(FOUR, [1e5], np.zeros(2), logistic)[0]),
          predicted=unit(mm.hard_margin(FOUR, ones(FOUR)).w), atol=1e-4)  # fmt: skip


def least_point(Z, S):
    """The w of least norm with log L(w) <= -S, from a start three times too far, towards the mean of the points."""
    loss = {"type": "ineq", "fun": lambda w: -S - logsumexp(-Z @ w), "jac": lambda w: softmax(-Z @ w) @ Z}
    mean = Z.mean(axis=0)
    start, options = 3 * (S + np.log(len(Z))) * mean / (Z @ mean).min(), {"ftol": 1e-14, "maxiter": 500}
    return minimize(
        lambda w: w @ w / 2 / S, start, jac=lambda w: w / S, method="SLSQP", constraints=loss, options=options
    ).x


def least_norm(Z, S):
    return np.linalg.norm(least_point(Z, S))


def test_least_point_satisfies_the_first_order_conditions():
    """log L is convex: a w on its level set that is parallel to its gradient is the one of least norm."""
    for S in (3.0, 10.0, 100.0, 1000.0):
        w = least_point(FOUR, S)
        assert logsumexp(-FOUR @ w) == pytest.approx(-S, abs=1e-8)
        np.testing.assert_allclose(unit(w), unit(softmax(-FOUR @ w) @ FOUR), atol=1e-7)


def between(x, low, high):
    return {"measured": x, "predicted": np.clip(x, low, high)}


def norm_bounds(S, gamma):
    return np.array(S) / gamma, (np.array(S) + np.log(4)) / gamma


def test_least_norm_of_a_small_loss_lies_within_its_bounds():
    S = [3.0, 10.0, 100.0]
    least = np.array([least_norm(FOUR, s) for s in S])
    check("hegde-2.1", **between(least, *norm_bounds(S, entropies()[0])), atol=1e-6)
    gamma, H, *_ = entropies()
    assert least_norm(FOUR, 1e4) * gamma - 1e4 == pytest.approx(H, abs=1e-2)


def least_loss_in_ball(B):
    ball = {"type": "ineq", "fun": lambda w: B**2 - w @ w}
    return np.exp(minimize(logsumexp_of_minus, [1.0, 2.0, 0.0], method="SLSQP", constraints=ball).fun)


def logsumexp_of_minus(w):
    return logsumexp(-w)


def test_least_loss_in_a_ball_of_orthonormal_points():
    check("hegde-2.1", measured=least_loss_in_ball(5.0), predicted=3 * np.exp(-5 / np.sqrt(3)), atol=1e-6)


def gap_of_crowd(W):
    """Missing margin by hand: γ* = 1/√2, and the margin is the least coordinate over the norm."""
    return 1 / np.sqrt(2) - np.array([w.min() / np.linalg.norm(w) for w in W])


def crowd_flow(t):
    """Closed form: the two coordinates do not talk to each other."""
    return np.column_stack([np.log1p(50 * t), np.log1p(t)])


def crowd_bound(t):
    return np.log(51) / np.sqrt(2) / np.log1p(51 * t / 2)


def below(gap, bound):
    return {"measured": gap, "predicted": np.minimum(gap, bound)}


TIMES = np.geomspace(2.0, 1e12, 80)  # n γ² t >= n - 1 from t = 100/51 on


def test_margin_of_the_flow_obeys_its_bound_step_by_step():
    np.testing.assert_allclose(mm.gradient_flow(CROWD, ones(CROWD), np.log1p(TIMES)), crowd_flow(TIMES), atol=1e-8)
    np.testing.assert_allclose(mm.margin_gap_bound(2**-0.5, 51, np.log1p(TIMES)), crowd_bound(TIMES), rtol=1e-12)
    check("ours-2.2-rate", **below(gap_of_crowd(crowd_flow(TIMES)), crowd_bound(TIMES)), atol=1e-12)
    gamma = entropies()[0]
    w = mm.gradient_flow(FOUR, ones(FOUR), np.log1p(TIMES))
    L, norm = np.exp(-FOUR @ w.T).sum(axis=0), np.linalg.norm(w, axis=1)
    assert ((1 / 4 + gamma**2 * TIMES) * (1 - 1e-6) <= 1 / L).all()  # (ii)
    assert (norm <= np.log(4 / L) / gamma + 1e-8).all()  # (iii)


def crowd_descent(eta, k):
    w, kept = np.zeros(2), []
    for _ in range(k):
        w = w + eta * np.array([50, 1]) * np.exp(-w)
        kept.append(w)
    return np.array(kept)


def test_margin_of_descent_obeys_the_bound_of_the_flow():
    gap, t = gap_of_crowd(crowd_descent(1 / 51, 5000)[199:]), np.arange(200, 5001) / 51
    check("ours-2.2-steps", **below(gap, crowd_bound(t)), atol=1e-12)
    np.testing.assert_allclose(mm.gradient_descent(CROWD, ones(CROWD), 1 / 51, 5000), crowd_descent(1 / 51, 5000)[-1])


def speed(w0):
    """By the independent integrator: the late residual; missing margin and direction x log t, extrapolated."""
    gamma, _, _, _ = entropies()
    W = late_flow(FOUR, LATE, w0)
    gap = LATE * (gamma - np.array([(FOUR @ w).min() / np.linalg.norm(w) for w in W]))
    turn = LATE[:, None] * (W / np.linalg.norm(W, axis=1, keepdims=True) - unit(told(FOUR)))
    return W[1] - LATE[1] * told(FOUR), 2 * gap[1] - gap[0], 2 * turn[1] - turn[0]


def test_residual_and_speed_in_high_precision():
    gamma, H, H_max, offset = entropies()
    for w0 in ([0.0, 0.0], [1.0, -1.0]):
        residual, coefficient, turn = speed(w0)
        check("ours-2.3-residual", measured=residual, predicted=offset, atol=1e-5)
        check("hegde-2.3", measured=coefficient, predicted=gamma * (H - H_max), atol=1e-4)
        goal = unit(told(FOUR))
        check("hegde-2.3", measured=turn, predicted=gamma * (offset - goal @ offset * goal), atol=1e-4)
    late = mm.asymptotics(FOUR, ones(FOUR))
    np.testing.assert_allclose(late.offset, offset, atol=1e-12)
    assert late.margin_rate == pytest.approx(gamma * (H - H_max), rel=1e-12)


def test_norm_minus_log_of_inverse_loss_tends_to_the_entropy():
    gamma, H, *_ = entropies()
    w = mm.gradient_flow(FOUR, ones(FOUR), [1e5])[0]
    assert gamma * np.linalg.norm(w) - -logsumexp(-FOUR @ w) == pytest.approx(H, abs=1e-4)


def test_residual_of_generic_data_does_not_grow():
    rho = late_flow(FOUR, LATE, np.zeros(2)) - np.outer(LATE, told(FOUR))
    check("ours-2.3-residual", measured=rho[1] - rho[0], predicted=np.zeros(2), atol=1e-5)


def residual_norms():
    """Of the four generic points, and of the degenerate pair, which is integrated, too."""
    return [np.linalg.norm(late_flow(Z, LATE, np.zeros(2)) - np.outer(LATE, told(Z)), axis=1) for Z in (FOUR, PAIR)]


def test_residual_is_at_most_of_order_log_log():
    check("hegde-2.3-loglog", measured=residual_norms(), below=np.tile(np.log(LATE), (2, 1)), atol=1e-5)
    check("hegde-2.3-loglog", measured=residual_norms()[1], predicted=np.log(LATE), atol=2e-2)


def lambert(t):
    W = np.array([float(mpmath.lambertw(x).real) for x in t])
    return np.column_stack([W + np.log1p(W), np.log1p(W)])


def in_plain_time(Z, t):
    return solve_ivp(lambda t, w: np.exp(-Z @ w) @ Z, (0, t[-1]), np.zeros(2), "DOP853", t, rtol=1e-11, atol=1e-12).y.T


def test_lambert_solution_of_the_degenerate_pair():
    t = [1.0, 10.0, 500.0]
    check("ours-2.4-lambert", measured=in_plain_time(PAIR, t), predicted=lambert(t), atol=1e-8)
    np.testing.assert_allclose(mm.degenerate_example(np.log1p(t)), lambert(t), rtol=1e-12)


def random_points(seed=44, n=12):
    g = np.random.default_rng(seed)
    X = g.normal(size=(n, 5))
    return X * np.sign(X @ g.normal(size=5))[:, None]


def descents(Z, k, momentum):
    """Missing margin after 1 ... k steps of the naive loop, γ*, and R²."""
    R2, gamma = (Z**2).sum(axis=1).max(), 1 / np.linalg.norm(told(Z))
    w, v, gaps = np.zeros(Z.shape[1]), np.zeros(Z.shape[1]), []
    for j in range(k):
        q = np.exp(-Z @ w + (Z @ w).min())
        g = q / q.sum() @ Z
        v = j / (j + 1) * (v + g) if momentum else 0 * v
        w = w + (v + g) / R2
        gaps.append(gamma - (Z @ w).min() / np.linalg.norm(w))
    return np.array(gaps), gamma, R2


def bound_of(steps, n, gamma, R2, momentum):
    return 4 * R2 * np.log(n) / (gamma * steps * (steps + 3)) if momentum else R2 * np.log(n) / (gamma * steps)


@pytest.mark.parametrize("Z", [random_points(), random_points(7), CROWD, FOUR], ids=["a", "b", "crowd", "four"])
def test_normalized_descent_obeys_its_bound(Z):
    gap, gamma, R2 = descents(Z, 500, momentum=False)
    steps = np.arange(1, 501)
    check("ours-2.5-normalized", **below(gap, bound_of(steps, len(Z), gamma, R2, False)), atol=1e-7)
    assert mm.normalized_margin_gap_bound(gamma, len(Z), 1 / R2, 500) == pytest.approx(
        bound_of(500, len(Z), gamma, R2, False), rel=1e-12
    )


@pytest.mark.parametrize("Z", [random_points(), random_points(7), CROWD, FOUR], ids=["a", "b", "crowd", "four"])
def test_momentum_obeys_its_bound(Z):
    gap, gamma, R2 = descents(Z, 500, momentum=True)
    steps = np.arange(1, 501)
    check("ours-2.5-momentum", **below(gap, bound_of(steps, len(Z), gamma, R2, True)), atol=1e-7)
    assert mm.momentum_margin_gap_bound(gamma, len(Z), np.sqrt(R2), 500) == pytest.approx(
        bound_of(500, len(Z), gamma, R2, True), rel=1e-12
    )


def exponents(Z=None, k=20_000):
    """Of the missing margin from step 1000 on: gradient descent, normalized, momentum."""
    Z = random_points() if Z is None else Z
    late = np.unique(np.geomspace(1000, k, 30).astype(int))
    eta, gamma = 1 / (len(Z) * (Z**2).sum(axis=1).max()), 1 / np.linalg.norm(told(Z))
    W = mm.gradient_descent(Z, ones(Z), eta, late.tolist())
    plain = gamma - (W @ Z.T).min(axis=1) / np.linalg.norm(W, axis=1)
    gaps = plain, *(descents(Z, k, momentum)[0][late - 1] for momentum in (False, True))
    return np.array([rate(late, gap) for gap in gaps])


def test_exponents_of_the_fast_methods():
    plain, normalized, momentum = exponents()
    assert -0.3 < plain < -0.1  # and its size falls, like that of 1/log t
    for claim, slope, other in (("normalized", normalized, plain), ("momentum", momentum, normalized)):
        predicted = {"normalized": -1, "momentum": -2}[claim]
        check(f"ours-2.5-{claim}", measured=slope, predicted=predicted, atol=0.15)
        with pytest.raises(CheckFailed):  # the slower method, at the tolerance of the chapter
            check(f"ours-2.5-{claim}", measured=other, predicted=predicted, atol=0.15)


def validation_slope():
    W = late_flow(FOUR, LATE, np.zeros(2), logistic=True)
    return np.diff(np.logaddexp(0, -W @ VALIDATION.T).mean(axis=1))[0] / 1e3


def test_validation_loss_grows_at_the_slope_of_the_wrong_side():
    predicted = np.maximum(0, -VALIDATION @ told(FOUR)).mean()
    assert (VALIDATION @ told(FOUR) > 0).any()
    check("ours-2.6-validation", measured=validation_slope(), predicted=predicted, atol=1e-5)


X2, W2 = np.array([[1.0, 1.0], [2.0, 0.0]]), np.array([3.0, 4.0])


def right(w):
    return np.sum(np.sign(X2 @ w) == 1)


GRID = np.stack(np.meshgrid(range(-2, 3), range(-2, 3)), axis=-1).reshape(-1, 2)  # some of it orthogonal to an example


def test_zero_separates_nothing():
    for w in GRID:
        check("hegde-erratum-1", measured=right(w), predicted=np.sum(X2 @ w > 0), atol=0.5)
    assert any(right(w) != np.sum(X2 @ w >= 0) for w in GRID if w.any())


def distance():
    plane = null_space(W2[None])
    return np.linalg.norm(X2 - X2 @ plane @ plane.T, axis=1).min()


def test_margin_is_the_distance_to_the_nearest_point_of_the_hyperplane():
    check("hegde-erratum-2", measured=distance(), predicted=mm.margin(X2, [1, 1], W2), atol=1e-12)


def penalized(Z, C):
    """argmin |w|²/2 + C Σ exp(-z.w)."""
    return minimize(lambda w: w @ w / 2 + C * np.exp(-Z @ w).sum(), 0.5 * told(Z), method="BFGS",
                    jac=lambda w: w - C * np.exp(-Z @ w) @ Z, options={"gtol": 1e-9}).x  # fmt: skip


def hinge(C, Z=FOUR):
    """The hinge problem with slack variables, as a quadratic program for SLSQP."""
    constraints = [
        {"type": "ineq", "fun": lambda x: Z @ x[:2] - 1 + x[2:]},
        {"type": "ineq", "fun": lambda x: x[2:]},
    ]
    start = np.r_[told(Z), np.zeros(len(Z))]
    return minimize(lambda x: x[:2] @ x[:2] / 2 + C * x[2:].sum(), start, method="SLSQP", constraints=constraints,
                    options={"ftol": 1e-14, "maxiter": 500}).x[:2]  # fmt: skip


def test_hinge_is_exact_from_the_largest_multiplier_on():
    C = np.linalg.solve(FOUR[:2] @ FOUR[:2].T, np.ones(2)).max()
    assert mm.hinge_threshold(FOUR, ones(FOUR)) == pytest.approx(C, rel=1e-10)
    check("ours-2.1-hinge", measured=hinge(1.001 * C), predicted=told(FOUR), atol=1e-6)
    assert np.linalg.norm(hinge(0.98 * C) - told(FOUR)) > 1e-3


def test_only_the_hinge_ignores_examples_beyond_one():
    """Two of the four points lie beyond 1, at every minimizer here: without them the hinge has the same one."""
    for C in (0.5, 0.7):
        assert (FOUR[2:] @ hinge(C) > 1).all()
        check("hegde-erratum-3", measured=hinge(C), predicted=hinge(C, FOUR[:2]), atol=1e-6)
        assert np.linalg.norm(penalized(FOUR, C) - penalized(FOUR[:2], C)) > 1e-2


def gaps_on_the_path(C):
    W = np.array([penalized(FOUR, c) for c in C])
    return entropies()[0] - (W @ FOUR.T).min(axis=1) / np.linalg.norm(W, axis=1)


def test_exponential_penalty_is_never_exact():
    gamma, C = entropies()[0], (1.0, 10.0, 1e3)
    bound = [gamma * np.log(4) / float(mpmath.lambertw(c * gamma**2).real) for c in C]
    check("ours-2.4-path", measured=gaps_on_the_path(C), below=bound, above=1e-3)


def by_newton(C):
    """argmin |w|²/2 + C Σ exp(-z.w) at astronomical C, for the two support vectors of FOUR."""
    w = told(FOUR) * float(mpmath.lambertw(C).real)
    for _ in range(200):
        pull = C * np.exp(-FOUR @ w)
        step = np.linalg.solve(np.eye(2) + (FOUR.T * pull) @ FOUR, pull @ FOUR - w)
        w = w + step / max(1.0, np.abs(FOUR @ step).max())
    return w - told(FOUR) * float(mpmath.lambertw(C).real)


def test_the_regularization_path_has_the_residual_of_the_flow():
    offset = entropies()[3]
    error = [np.linalg.norm(by_newton(C) - offset) for C in (1e75, 1e150, 1e300)]
    assert error[2] < 0.05
    np.testing.assert_allclose(np.array(error[:2]) / error[1:], 2, rtol=0.1)  # the next term is of order 1/log C


def test_hard_margin_interpolates_iff_the_coefficients_are_nonnegative():
    check("hegde-2.1-interpolator", measured=told(WIDE), predicted=[1.0, 0.0], atol=1e-7)
    found = set()
    for seed in range(20):
        Z = np.random.default_rng(seed).normal(size=(3, 5))
        nonnegative = bool((np.linalg.solve(Z @ Z.T, np.ones(3)) >= 0).all())
        interpolator = np.linalg.pinv(Z) @ np.ones(3)
        assert np.allclose(mm.hard_margin(Z, ones(Z)).w, interpolator, atol=1e-8) == nonnegative
        found.add(nonnegative)
    assert found == {True, False}


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def least_on(S):
    return np.array([least_norm(FOUR, s) for s in S])


def crowd_control(descent):
    gap = gap_of_crowd(crowd_descent(1 / 51, 2000)[199:] if descent else crowd_flow(TIMES))
    t = np.arange(200, 2001) / 51 if descent else TIMES
    return below(gap, crowd_bound(t) / np.log(51))


def crowd_of_steps(momentum):
    """Many copies: the bound without its log n."""
    Z = np.array([[1.0, 0.0]] * 2000 + [[0.0, 1.0]])
    gap, gamma, R2 = descents(Z, 60, momentum)
    steps = np.arange(1, 61)
    return below(gap, bound_of(steps, 2001, gamma, R2, momentum) / np.log(2001))


def interpolates(logistic):
    w = late_flow(WIDE, [1e5], np.zeros(2), logistic)[0]
    return pair(unit(w), unit(np.linalg.pinv(WIDE) @ np.ones(2)))


def shannon_only():
    gamma, H, _, _ = entropies()
    return pair(speed([0.0, 0.0])[1], gamma * H)


CONTROLS = {
    # equations in place of inequalities
    "hegde-theorem-1": lambda: interpolates(logistic=False),
    "hegde-theorem-1-logistic": lambda: interpolates(logistic=True),
    # the margin on the wrong side
    "hegde-2.1": lambda: between(least_on([10.0, 100.0]), *norm_bounds([10.0, 100.0], 1 / entropies()[0])),
    # log n dropped
    "ours-2.2-rate": lambda: crowd_control(descent=False),
    "ours-2.2-steps": lambda: crowd_control(descent=True),
    # the min-entropy forgotten
    "hegde-2.3": shannon_only,
    # a residual that stays bounded, on degenerate data
    "hegde-2.3-loglog": lambda: {"measured": residual_norms()[1], "below": np.log(LATE[0])},
    # generic formula on degenerate data: the residual does grow
    "ours-2.3-residual": lambda: pair(
        np.diff(mm.degenerate_example(LATE) - np.outer(LATE, [1, 0]), axis=0)[0], np.zeros(2)
    ),
    # the logarithm in place of Lambert's function
    "ours-2.4-lambert": lambda: pair(in_plain_time(PAIR, [10.0, 500.0])[:, 1], np.log1p(np.log([10.0, 500.0]))),
    # log n dropped
    "ours-2.5-normalized": lambda: crowd_of_steps(momentum=False),
    "ours-2.5-momentum": lambda: crowd_of_steps(momentum=True),
    # points on the right side counted, with their sign
    "ours-2.6-validation": lambda: pair(validation_slope(), (-VALIDATION @ told(FOUR)).mean()),
    # >= in place of >
    "hegde-erratum-1": lambda: pair(
        [right(w) for w in GRID if w.any()], [np.sum(X2 @ w >= 0) for w in GRID if w.any()]
    ),
    # 2/|w|
    "hegde-erratum-2": lambda: pair(distance(), 2 / np.linalg.norm(W2)),
    # the exponential loss in place of the hinge
    "hegde-erratum-3": lambda: pair(penalized(FOUR, 0.7), penalized(FOUR[:2], 0.7)),
    "ours-2.1-hinge": lambda: pair(penalized(FOUR, 0.75), told(FOUR)),
    # an exact penalty
    "ours-2.4-path": lambda: {"measured": gaps_on_the_path([10.0, 1e3]), "below": 0.0},
    # equations in place of inequalities
    "hegde-2.1-interpolator": lambda: pair(told(WIDE), np.linalg.pinv(WIDE) @ np.ones(2)),
}


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    with pytest.raises(CheckFailed):
        check(claim, atol=1e-4, **CONTROLS[claim]())


def own(**data):
    """The lines that the cell of "Try your own" prints for these data."""
    (cell,) = [c.source for c in nbformat.read(runbook.BOOK / "1-flow" / "02_max_margin.ipynb", 4).cells
               if c.cell_type == "code" and "X_own = " in c.source]  # fmt: skip
    lines = [line for line in cell.splitlines() if line.split(" = ")[0] not in data]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec("\n".join(lines), {"np": np, "maxmargin": mm, **data})
    return out.getvalue().splitlines()


def columns(lines):
    """Ratio of the margins, missing margin x log t, and length of the residual, at the times of the cell."""
    rows = [line.split() for line in lines if line.startswith("log(1+t)")]
    return np.array([[float(r[r.index(word) + 1]) for word in ("ratio", "t", "residual")] for r in rows]).T


def limit_in(lines):
    (limit,) = [float(line.split(":")[1]) for line in lines if line.startswith("limit")]
    return limit


@pytest.mark.parametrize("seed", range(3))
def test_try_your_own_settles(seed):
    Z = random_points(seed, n=9)
    lines = own(X_own=Z, y_own=ones(Z))
    ratio, missing, residual = columns(lines)
    assert ratio[-1] > 0.99
    assert missing[-1] == pytest.approx(limit_in(lines), rel=0.05, abs=1e-3)
    assert residual[-1] == pytest.approx(residual[-2], rel=0.02)


def test_try_your_own_degenerate():
    lines = own(X_own=PAIR, y_own=ones(PAIR))
    assert any("degenerate" in line for line in lines)
    assert (np.diff(columns(lines)[2]) > 1).all()


def test_try_your_own_not_separable():
    Z = np.array([[1.0, 0], [-1, 0], [0, 1]])
    with pytest.raises(mm.NotSeparable) as error:
        own(X_own=Z, y_own=ones(Z))
    p = error.value.certificate
    np.testing.assert_allclose(p @ Z, 0, atol=1e-12)
    assert p.min() >= 0
    assert p.sum() == pytest.approx(1)


def test_try_your_own_a_small_multiplier_needs_long():
    """A point that is hardly needed: its multiplier is 1e-3 of the other, and the flow notices late."""
    Z = np.array([[1.0, -1e-3], [1, 1]])
    alpha = mm.hard_margin(Z, ones(Z)).dual
    assert 0 < alpha[1] / alpha[0] < 2e-3
    lines = own(X_own=Z, y_own=ones(Z))
    limit = limit_in(lines)
    assert columns(lines)[1, -1] > 2 * limit
    w = mm.gradient_flow(Z, ones(Z), [1e6])[0]
    svm = mm.hard_margin(Z, ones(Z))
    assert (svm.margin - mm.margin(Z, ones(Z), w)) * 1e6 == pytest.approx(limit, rel=0.01)


def test_try_your_own_too_stiff(monkeypatch):
    """Raw columns from 1e-3 to 1e3: the solver says what helps. (With a fiftieth of its patience.)"""
    cancer = load_breast_cancer()
    X, y = cancer.data, np.where(cancer.target == 1, 1.0, -1.0)
    monkeypatch.setattr(mm, "_MOST_CALLS", 2_000)
    with pytest.raises(ArithmeticError, match="similar size"):
        own(X_own=X, y_own=y)


@pytest.mark.parametrize(
    ("X_own", "y_own", "name"),
    [([[1.0, np.nan]], [1.0], "X"), ([[1.0, 2.0]], [0.5], "y"), ([1.0, 2.0], [1.0, 1.0], "X")],
    ids=["nan", "label", "flat"],
)
def test_try_your_own_says_what_is_wrong(X_own, y_own, name):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        own(X_own=np.array(X_own), y_own=np.array(y_own))
