"""Maximum margin: the SVM, the flow at astronomically late times, its limits, and what is proved about the speed."""

from itertools import combinations

import mpmath
import numpy as np
import pytest
from implicitreg.flow import maxmargin as mm
from scipy.integrate import solve_ivp
from scipy.optimize import minimize, nnls
from scipy.special import expit
from sklearn.datasets import load_breast_cancer
from sklearn.svm import SVC, LinearSVC

FOUR = np.array([[1.0, 0.5], [0.4, 1.5], [2.0, 2.0], [3.0, 0.1]])
THREE = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 0.3]])  # three support vectors in the plane: dependent
ORTHOGONAL = np.array([[1.0, 0.0], [0.0, 2.0]])
DEGENERATE = np.array([[1.0, 0.0], [1.0, 1.0]])
SPACE = np.array([[1.0, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, -1]])  # degenerate too
SLOW = np.array([[1, 0.5, 0], [0.4, 1.5, 0.2], [2, 2, -1], [3, 0.1, 1.5]])


def ones(Z):
    return np.ones(len(Z))


def draw(seed, n, d, scales=0.0, duplicate=False):
    """Separable by construction when n > d; rows of very different lengths or repeated on request."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-scales, scales, size=(n, 1))
    y = np.sign(X @ rng.normal(size=d)) if n > d else rng.choice([-1.0, 1.0], n)
    if duplicate:
        X[-1], y[-1] = X[0], y[0]
        X[-2], y[-2] = -X[0], -y[0]  # the same z
    return X, y


FAMILIES = {
    "n=1": draw(1, 1, 3),
    "d=1": draw(2, 6, 1),
    "n<d": draw(3, 8, 20),
    "n=d": draw(4, 10, 10),
    "n>d": draw(5, 40, 4),
    "n=60,d=80": draw(6, 60, 80),
    "n=80,d=60": (np.random.default_rng(7).normal(size=(80, 60)), ones(np.zeros(80))),
    "duplicates": draw(8, 12, 5, duplicate=True),
    "duplicates,n=60": draw(9, 60, 90, duplicate=True),
    "row scales 1e±3": draw(10, 12, 4, scales=3.0),
    "row scales 1e±3,n=60": draw(11, 60, 80, scales=3.0),
    "dependent support": (THREE, ones(THREE)),
    "lattice": (np.array([[a, b, 1.0] for a in (-1, 0, 1) for b in (-1, 0, 1)]), np.ones(9)),
}
family = pytest.mark.parametrize(("X", "y"), FAMILIES.values(), ids=FAMILIES)


# --- the hard margin ---


@family
def test_the_hard_margin_satisfies_its_kkt_conditions(X, y):
    svm = mm.hard_margin(X, y)
    Z = y[:, None] * X
    outputs = Z @ svm.w
    rounding = 1e-12 + 1e-15 * np.linalg.norm(Z, axis=1) / svm.margin  # of z_i . w
    assert (outputs >= 1 - rounding).all()
    np.testing.assert_allclose(outputs[svm.support], 1, atol=1e-8)
    assert (np.delete(outputs, svm.support) > 1 + 1e-8).all()
    assert (svm.dual >= 0).all()
    assert not np.delete(svm.dual, svm.support).any()
    np.testing.assert_allclose(svm.dual @ Z, svm.w, atol=1e-11 / svm.margin)
    assert svm.dual.sum() == pytest.approx(svm.margin**-2, rel=1e-11)
    assert svm.margin == pytest.approx(mm.margin(X, y, svm.w), rel=rounding.max())
    assert (np.diff(svm.support) > 0).all()


def by_enumeration(Z):
    """The shortest feasible one among the shortest solutions of Z_S w = 1, over all S."""
    n, d = Z.shape
    candidates = []
    for size in range(1, min(n, d) + 1):
        for S in map(list, combinations(range(n), size)):
            w = np.linalg.pinv(Z[S]) @ np.ones(size)
            if (Z @ w >= 1 - 1e-9).all():
                candidates.append(w)
    return min(candidates, key=np.linalg.norm)


@pytest.mark.parametrize("seed", range(12))
def test_the_hard_margin_is_the_shortest_feasible_vector_over_all_active_sets(seed):
    X, y = draw(100 + seed, 3 + seed % 5, 1 + seed % 3)
    np.testing.assert_allclose(mm.hard_margin(X, y).w, by_enumeration(y[:, None] * X), rtol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(80, 60), (30, 60), (52, 60), (200, 5)])
def test_the_hard_margin_is_exact_to_1e_12_against_50_digits(n, d):
    X, y = draw(20, n, d) if (n, d) != (80, 60) else FAMILIES["n=80,d=60"]
    svm, Z = mm.hard_margin(X, y), y[:, None] * X
    S = np.flatnonzero(svm.dual)
    with mpmath.workdps(50):
        A = mpmath.matrix(Z[S].tolist())
        alpha = mpmath.lu_solve(A * A.T, mpmath.matrix([1] * len(S)))
        w = A.T * alpha
        slack = mpmath.matrix(Z.tolist()) * w
        assert min(alpha) > 0
        assert min(slack) > 1 - mpmath.mpf(10) ** -40  # KKT in 50 digits: this is the optimum
    np.testing.assert_allclose(svm.w, np.array(w.tolist(), float).ravel(), atol=1e-12 / svm.margin, rtol=0)


@family
def test_the_hard_margin_agrees_with_nnls_least_distance_programming(X, y):
    Z = y[:, None] * X
    svm = mm.hard_margin(X, y)
    E = np.vstack([Z.T * svm.margin**-1, np.ones(len(Z))])  # margin 1: well-scaled
    u = nnls(E, np.eye(E.shape[0])[-1], maxiter=10_000)[0]
    w = (E[:-1] @ u) / (1 - u.sum()) / svm.margin
    np.testing.assert_allclose(w, svm.w, atol=1e-8 / svm.margin)


@pytest.mark.parametrize("name", ["n<d", "n=d", "duplicates"])
def test_the_hard_margin_agrees_with_scikit_learn(name):
    X, y = FAMILIES[name]
    svm = mm.hard_margin(X, y)
    # SVC fits an intercept; on {(x, y), (-x, -y)} it vanishes
    kernel = SVC(kernel="linear", C=1e10, tol=1e-10).fit(np.vstack([X, -X]), np.r_[y, -y])
    np.testing.assert_allclose(kernel.coef_[0], svm.w, atol=1e-6 / svm.margin)
    linear = LinearSVC(C=1e6, loss="hinge", fit_intercept=False, tol=1e-10, max_iter=10**6, random_state=0)
    np.testing.assert_allclose(linear.fit(X, y).coef_[0], svm.w, atol=1e-6 / svm.margin)


def test_the_worked_examples_of_the_hard_margin():
    svm = mm.hard_margin(FOUR, ones(FOUR))
    np.testing.assert_allclose(svm.w, [10 / 13, 6 / 13], rtol=1e-14)
    assert svm.margin == pytest.approx(1.11474080342631, rel=1e-14)
    assert svm.support.tolist() == [0, 1]
    np.testing.assert_allclose(svm.dual, [0.745562130177515, 0.0591716, 0, 0], atol=1e-8)
    assert mm.hard_margin(THREE, ones(THREE)).support.tolist() == [0, 1, 2]


def test_the_hard_margin_is_not_the_label_interpolator():
    Z = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    np.testing.assert_allclose(mm.hard_margin(Z, ones(Z)).w, [1, 0.5], rtol=1e-14)
    np.testing.assert_allclose(np.linalg.pinv(Z) @ ones(Z), [1 / 7, 2 / 7], rtol=1e-13)


def test_the_hard_margin_is_the_interpolator_iff_its_coefficients_are_nonnegative():
    found = set()
    for seed in range(40):
        X, y = draw(seed, 3, 5)
        Z = y[:, None] * X
        positive = bool((np.linalg.solve(Z @ Z.T, np.ones(3)) >= 0).all())
        found.add(positive)
        same = np.allclose(mm.hard_margin(X, y).w, np.linalg.pinv(Z) @ np.ones(3), rtol=1e-9)
        assert same == positive
    assert found == {True, False}


@pytest.mark.parametrize("c", [1e-150, 1e-6, 3.0, 1e150])
@pytest.mark.parametrize("name", ["n=60,d=80", "n>d"])
def test_scaling_the_data_scales_the_hard_margin(c, name):
    X, y = FAMILIES[name]
    one, scaled = mm.hard_margin(X, y), mm.hard_margin(c * X, y)
    np.testing.assert_allclose(scaled.w * c, one.w, rtol=1e-11)
    assert scaled.margin == pytest.approx(c * one.margin, rel=1e-12)
    assert scaled.support.tolist() == one.support.tolist()


def test_flipping_a_point_and_its_label_together_changes_nothing():
    X, y = FAMILIES["n>d"]
    s = np.where(np.arange(len(y)) % 3 == 0, -1.0, 1.0)
    np.testing.assert_allclose(mm.hard_margin(s[:, None] * X, s * y).w, mm.hard_margin(X, y).w, rtol=1e-11)


def test_tiny_margins_are_resolved():
    for e in (1e-3, 1e-6, 1e-9):
        svm = mm.hard_margin([[1, e], [-1, e]], [1, 1])
        assert svm.margin == pytest.approx(e, rel=1e-12)


NOT_SEPARABLE = {
    "a zero row": ([[1, 0], [0, 0]], [1, 1]),
    "opposite points": ([[1, 2], [1, 2], [3, 0]], [1, -1, 1]),
    "triangle": ([[1, 0], [-1, 1], [-1, -2]], [1, 1, 1]),
    "n=60,d=5": (np.random.default_rng(0).normal(size=(60, 5)), np.random.default_rng(1).choice([-1, 1], 60)),
    "row scales": (np.array([[1e5], [-1e-5]]), [1, 1]),
    "n=60,d=70": (np.vstack([np.eye(59, 70), -np.eye(59, 70).sum(0)]), np.ones(60)),
}


@pytest.mark.parametrize(("X", "y"), NOT_SEPARABLE.values(), ids=NOT_SEPARABLE)
@pytest.mark.parametrize("function", [mm.hard_margin, mm.asymptotics, lambda X, y: mm.gradient_flow(X, y, [1.0])],
                         ids=["hard_margin", "asymptotics", "gradient_flow"])  # fmt: skip
def test_data_that_is_not_separable_raises_with_a_certificate(function, X, y):
    with pytest.raises(mm.NotSeparable, match="not linearly separable") as caught:
        function(X, y)
    p, Z = caught.value.certificate, np.asarray(y, float)[:, None] * np.asarray(X, float)
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-14)
    assert np.linalg.norm(p @ Z) <= 1e-12 * (p @ np.linalg.norm(Z, axis=1))
    assert isinstance(caught.value, ValueError)


@family
def test_no_direction_beats_the_hard_margin_and_the_angle_is_controlled(X, y):
    svm = mm.hard_margin(X, y)
    U = np.random.default_rng(0).normal(size=(200, X.shape[1]))
    U = np.vstack([U, svm.w * svm.margin + 0.1 * U])
    gamma = mm.margin(X, y, U)
    U = U / np.linalg.norm(U, axis=1)[:, None]
    assert (gamma <= svm.margin * (1 + 1e-12)).all()
    assert (U @ svm.w * svm.margin >= gamma / svm.margin - 1e-12).all()  # u.ŵ >= γ(u)/γ*
    assert (np.sum((U - svm.w * svm.margin) ** 2, axis=1) <= 2 * (1 - gamma / svm.margin) + 1e-12).all()


def test_the_angle_inequality_fails_for_the_square_root_of_the_ratio():
    u = np.array([0.5, 0.4]) / np.hypot(0.5, 0.4)
    w = mm.hard_margin(ORTHOGONAL, [1, 1])
    ratio = mm.margin(ORTHOGONAL, [1, 1], u) / w.margin
    assert ratio <= u @ w.w * w.margin
    bad = np.array([1.0, 0.02]) / np.hypot(1, 0.02)
    assert bad @ w.w * w.margin > mm.margin(ORTHOGONAL, [1, 1], bad) / w.margin > 0
    assert np.sqrt(ratio) > ratio


def test_the_margin_is_the_distance_and_not_2_over_the_norm():
    w = np.array([3.0, 4.0])
    assert mm.margin([[1, 1], [2, 0]], [1, 1], w) == pytest.approx(6 / 5)
    assert mm.margin([[1, 1], [2, 0]], [1, 1], w) != pytest.approx(2 / 5)
    np.testing.assert_allclose(mm.margin([[1, 1], [2, 0]], [1, 1], [w, -w]), [6 / 5, -7 / 5])


# --- the hinge ---


def test_the_soft_margin_is_the_hard_one_from_the_largest_multiplier_on():
    assert mm.hinge_threshold(FOUR, ones(FOUR)) == pytest.approx(0.745562130177515, rel=1e-12)
    np.testing.assert_allclose(mm.soft_margin(FOUR, ones(FOUR), 0.75), [10 / 13, 6 / 13], rtol=1e-12)
    np.testing.assert_allclose(mm.soft_margin(FOUR, ones(FOUR), 0.74), [0.76473, 0.46274], atol=5e-6)


@pytest.mark.parametrize("name", ["n<d", "n>d", "duplicates", "dependent support", "lattice"])
def test_the_hinge_threshold_is_sharp(name):
    X, y = FAMILIES[name]
    svm, C = mm.hard_margin(X, y), mm.hinge_threshold(X, y)
    assert svm.dual.max() * (1 + 1e-9) >= C
    np.testing.assert_allclose(mm.soft_margin(X, y, C * (1 + 1e-9)), svm.w, atol=1e-7 / svm.margin)
    assert np.linalg.norm(mm.soft_margin(X, y, 0.98 * C) - svm.w) * svm.margin > 1e-6


SOFT = [(10, 3, 0.3), (40, 5, 0.02), (60, 20, 1.0), (20, 40, 0.05), (30, 2, 10.0)]


@pytest.mark.parametrize(("n", "d", "C"), SOFT)
def test_the_soft_margin_agrees_with_liblinear_and_with_lbfgs_on_the_dual(n, d, C):
    rng = np.random.default_rng(n)
    X, y = rng.normal(size=(n, d)), rng.choice([-1.0, 1.0], n)
    X[1], y[1] = X[0], y[0]
    w, Z = mm.soft_margin(X, y, C), y[:, None] * X
    linear = LinearSVC(C=C, loss="hinge", fit_intercept=False, tol=1e-8, max_iter=10**6, random_state=0).fit(X, y)
    np.testing.assert_allclose(linear.coef_[0], w, atol=1e-5)

    def negative_dual(a):
        return 0.5 * (a @ Z) @ (a @ Z) - a.sum(), Z @ (a @ Z) - 1

    tight = {"maxiter": 10**4, "ftol": 1e-16, "gtol": 1e-10}
    dual = minimize(negative_dual, np.zeros(n), jac=True, method="L-BFGS-B", bounds=[(0, C)] * n, options=tight)
    primal = 0.5 * w @ w + C * np.maximum(0, 1 - Z @ w).sum()
    assert primal == pytest.approx(-dual.fun, rel=1e-9)  # no duality gap
    wrong = 0.5 * w @ w + C * np.maximum(0, 1 - Z @ w).mean()
    assert abs(wrong + dual.fun) > 1e-3 * primal


# --- gradient flow: exact answers ---

DENSE = np.array([0.0, 1e-9, 0.3, 1.0, 5.0, 50.0, 200.0, 700.0, 1e4, 1e6])


def log_of_1_plus(c, log_t):
    """log(1 + c t) at t = e^log_t - 1, without overflow."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(0, np.log(c) + log_t + np.log(-np.expm1(-log_t)))


def test_one_point_grows_like_log_1_plus_z2_t():
    z = np.array([3.0, -4.0])
    w = mm.gradient_flow([-z], [-1], DENSE)
    np.testing.assert_allclose(w @ z, log_of_1_plus(25.0, DENSE), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(w @ [4.0, 3.0], 0, atol=1e-9)


def test_one_point_logistic_solves_m_plus_exp_m_equals_1_plus_z2_t():
    log_t = np.array([0.1, 1.0, 10.0, 30.0])
    m = mm.gradient_flow([[2.0]], [1], log_t, loss="logistic") @ [2.0]
    np.testing.assert_allclose(m + np.exp(m), 1 + 4 * np.expm1(log_t), rtol=1e-8)


def test_orthogonal_data_decouple():
    w = mm.gradient_flow(ORTHOGONAL, [1, 1], DENSE)
    np.testing.assert_allclose(w[:, 0], DENSE, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(w[:, 1], log_of_1_plus(4.0, DENSE) / 2, rtol=1e-10, atol=1e-10)
    gamma = mm.margin(ORTHOGONAL, [1, 1], mm.gradient_flow(ORTHOGONAL, [1, 1], [5, 50, 200]))
    np.testing.assert_allclose(gamma, [0.842989132286884, 0.889440689038126, 0.893185544605727], rtol=1e-10)


def test_reference_weights_of_the_exp_loss():
    w = mm.gradient_flow(FOUR, ones(FOUR), [15, 1, 5])  # any order
    expected = [[11.00912071592, 8.661583961427], [1.347644211389, 1.129583266189], [3.809861068666, 3.465466733336]]
    np.testing.assert_allclose(w, expected, rtol=1e-9)


def test_reference_weights_of_the_logistic_loss():
    w = mm.gradient_flow(FOUR[:2], [1, 1], [1, 5, 15], loss="logistic")
    expected = [[0.7541375085099, 0.9815950006872], [3.627392914576, 3.611277321090], [10.97518199049, 8.712323473709]]
    np.testing.assert_allclose(w, expected, rtol=1e-9)


def in_plain_time(X, y, log_t, loss, w0):
    Z = y[:, None] * X
    slope = {"exp": lambda m: np.exp(-m), "logistic": lambda m: expit(-m)}[loss]
    with np.errstate(over="ignore"):  # in rejected trial steps
        path = solve_ivp(lambda t, w: slope(Z @ w) @ Z, (0, np.expm1(log_t[-1])), w0, "DOP853", np.expm1(log_t),
                         rtol=1e-12, atol=1e-13)  # fmt: skip
    return path.y.T


@pytest.mark.parametrize("loss", ["exp", "logistic"])
@pytest.mark.parametrize("name", ["n=1", "n<d", "n=d", "n>d", "duplicates", "dependent support", "n=60,d=80"])
def test_the_flow_agrees_with_an_explicit_method_in_plain_time(name, loss):
    X, y = FAMILIES[name]
    log_t, w0 = np.array([0.0, 0.5, 2.0, 4.0]), 0.2 * np.random.default_rng(1).normal(size=X.shape[1])
    w = mm.gradient_flow(X, y, log_t, loss, w0)
    np.testing.assert_allclose(w, in_plain_time(X, y, log_t, loss, w0), atol=1e-8)


@pytest.mark.parametrize("name", ["n<d", "duplicates,n=60", "n=60,d=80"])
def test_the_flow_stays_in_w0_plus_the_span_of_the_data(name):
    X, y = FAMILIES[name]
    w0 = np.random.default_rng(2).normal(size=X.shape[1])
    moved = mm.gradient_flow(X, y, [1, 30, 300], w0=w0) - w0
    np.testing.assert_allclose(moved @ (np.eye(X.shape[1]) - np.linalg.pinv(X) @ X), 0, atol=1e-9)


@pytest.mark.parametrize("loss", ["exp", "logistic"])
@pytest.mark.parametrize("c", [1e-4, 1e4])
def test_scaling_the_data_scales_time_by_the_square(c, loss):
    X, y = FAMILIES["n>d"]
    log_t = np.array([2.0, 40.0, 300.0])
    scaled = mm.gradient_flow(c * X, y, log_of_1_plus(c**-2, log_t), loss)
    svm = mm.hard_margin(X, y)
    np.testing.assert_allclose(c * scaled, mm.gradient_flow(X, y, log_t, loss), atol=1e-8 / svm.margin)


def test_a_start_that_classifies_badly_does_not_overflow():
    # one point, exp loss: e^m = e^m0 + t
    log_t = np.array([0.0, 1.0, 50.0, 1e4])
    for m0 in (-1e4, -800.0, -30.0, 30.0, 800.0):
        w = mm.gradient_flow([[1.0]], [1], log_t, w0=[m0])[:, 0]
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(w, np.logaddexp(m0, log_t + np.log(-np.expm1(-log_t))), rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("e", [1e-2, 1e-5, 1e-8])
def test_the_flow_of_a_tiny_margin(e):
    log_t = np.array([1.0, 20.0, 40.0, 500.0])
    w = mm.gradient_flow([[1, e], [-1, e]], [1, 1], log_t)  # w1 = 0, e w2 = log(1 + 2 e² t)
    np.testing.assert_allclose(w[:, 1] * e, log_of_1_plus(2 * e**2, log_t), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(w[:, 0] * e, 0, atol=1e-9)


# --- degenerate data ---


def test_lambert_w_solves_the_degenerate_example():
    log_t = np.array([0.5, 1.0, 10.0, 200.0, 1e4, 1e8])
    w = mm.degenerate_example(log_t)
    with mpmath.workdps(40):
        W = np.array([float(mpmath.lambertw(mpmath.expm1(s))) for s in log_t[:-1]])  # 1e8: below
    np.testing.assert_allclose(w[:-1], np.column_stack([W + np.log1p(W), np.log1p(W)]), rtol=1e-14)
    W = np.expm1(w[-1, 1])
    assert W + np.log(W) == pytest.approx(1e8, rel=1e-13)
    np.testing.assert_array_equal(mm.degenerate_example([0.0]), [[0, 0]])
    expected = [[1.36331831647774, 0.579023356693321], [10.1187267172755, 2.18934693878043],
                [200.005122216931, 5.27672795464024]]  # fmt: skip
    np.testing.assert_allclose(mm.degenerate_example([1, 10, 200]), expected, rtol=1e-14)


def test_the_flow_follows_the_degenerate_closed_form_to_t_equal_e_to_the_million():
    np.testing.assert_allclose(
        mm.gradient_flow(DEGENERATE, [1, 1], DENSE), mm.degenerate_example(DENSE), rtol=1e-9, atol=1e-8
    )


def test_the_residual_of_degenerate_data_grows_like_loglog_and_of_generic_data_not_at_all():
    s = np.array([1e3, 1e4, 1e6])
    rho = mm.gradient_flow(DEGENERATE, [1, 1], s) - s[:, None] * [1, 0]
    np.testing.assert_allclose(np.diff(rho[:, 1]), np.diff(np.log(s)), rtol=0.02)
    rho = mm.gradient_flow(FOUR, ones(FOUR), s) - s[:, None] * mm.hard_margin(FOUR, ones(FOUR)).w
    np.testing.assert_allclose(np.diff(rho, axis=0), 0, atol=1e-8)


@pytest.mark.parametrize("Z", [DEGENERATE, SPACE], ids=["plane", "space"])
def test_degenerate_data_has_no_asymptotics_and_says_so(Z):
    with pytest.raises(ValueError, match="degenerate: no dual multiplier is positive on the whole support"):
        mm.asymptotics(Z, ones(Z))


# --- asymptotics ---


def test_reference_asymptotics_of_four_points():
    late = mm.asymptotics(FOUR, ones(FOUR))
    np.testing.assert_allclose(late.dual, [0.745562130177515, 0.0591715976331361, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(late.offset, [-0.748639691543939, 2.08451299903107], rtol=1e-12)
    assert late.margin_rate == pytest.approx(0.207677589855116, rel=1e-12)
    assert late.dual.sum() == pytest.approx(0.804733727810651, rel=1e-12)


def test_reference_asymptotics_of_dependent_support_vectors():
    late = mm.asymptotics(THREE, ones(THREE))
    np.testing.assert_allclose(late.dual, [0.290945530209051, 0.387432208574105, 0.321622261216844], rtol=1e-12)
    np.testing.assert_allclose(late.offset, [1.09141680092609, 0.143202409817374], rtol=1e-12)
    assert late.margin_rate == pytest.approx(0.143202409817374, rel=1e-12)


GENERIC = {k: FAMILIES[k] for k in ("n=1", "n<d", "n=d", "n=60,d=80", "duplicates", "dependent support", "lattice")}
generic = pytest.mark.parametrize(("X", "y"), GENERIC.values(), ids=GENERIC)


@generic
def test_the_dual_of_the_asymptotics_is_the_one_of_largest_entropy(X, y):
    late, svm = mm.asymptotics(X, y), mm.hard_margin(X, y)
    Z = y[:, None] * X
    np.testing.assert_allclose(late.dual @ Z, late.w, atol=1e-11 / late.margin)
    S = svm.support
    np.testing.assert_allclose(late.dual[S], np.exp(-Z[S] @ late.offset), rtol=1e-10)
    np.testing.assert_allclose(late.offset @ (np.eye(Z.shape[1]) - np.linalg.pinv(Z[S]) @ Z[S]), 0, atol=1e-10)
    kernel = np.linalg.svd(Z[S].T)[2][np.linalg.matrix_rank(Z[S]) :]  # other duals: alpha + kernel combinations
    for direction in kernel:
        for step in (1e-3, -1e-3):
            other = late.dual[S] + step * late.dual[S].min() * direction
            assert -(other @ np.log(other)) < -(late.dual[S] @ np.log(late.dual[S]))


@pytest.mark.parametrize("loss", ["exp", "logistic"])
@generic
def test_the_residual_tends_to_the_offset_whatever_the_start_and_the_loss(X, y, loss):
    late = mm.asymptotics(X, y)
    S = mm.hard_margin(X, y).support
    P = np.linalg.pinv(X[S]) @ X[S]
    w0 = np.random.default_rng(3).normal(size=X.shape[1])
    w = mm.gradient_flow(X, y, [1e4], loss, w0)[0]
    np.testing.assert_allclose(P @ (w - late.w * 1e4), late.offset, atol=1e-8 * (1 + np.linalg.norm(late.w)))


def test_a_small_multiplier_makes_the_convergence_slow():
    late = mm.asymptotics(SLOW, ones(SLOW))
    s = np.array([10, 20, 50, 100, 200])
    S = mm.hard_margin(SLOW, ones(SLOW)).support
    P = np.linalg.pinv(SLOW[S]) @ SLOW[S]
    distance = np.linalg.norm((mm.gradient_flow(SLOW, ones(SLOW), s) - s[:, None] * late.w) @ P - late.offset, axis=1)
    np.testing.assert_allclose(distance, [0.64, 0.25, 2e-2, 6e-4, 3e-7], rtol=0.3)
    Z = SLOW[S]
    rate = np.linalg.eigvalsh((Z.T * late.dual[S]) @ Z)
    rate = rate[rate > 1e-12].min()
    assert -np.log(distance[4] / distance[3]) / 100 == pytest.approx(rate, rel=0.02)


@generic
def test_t_times_the_loss_tends_to_the_inverse_square_of_the_margin(X, y):
    late, s = mm.asymptotics(X, y), 2e4
    m = y * (X @ mm.gradient_flow(X, y, [s])[0])
    tL = np.exp(s - m).sum()
    assert tL == pytest.approx(late.margin**-2, rel=1e-8)
    assert len(y) == 1 or abs(tL / len(y) - late.margin**-2) > 1e-3 * tL  # a mean instead of the sum


@generic
def test_the_margin_gap_times_log_t_tends_to_the_entropy_difference(X, y):
    late = mm.asymptotics(X, y)
    s = np.array([1e4, 2e4])
    gap = late.margin - mm.margin(X, y, mm.gradient_flow(X, y, s))
    a, b = gap * s
    limit = 2 * b - a  # the next term is O(1/log t)
    p = late.dual[late.dual > 0] * late.margin**2
    tolerance = 1e-5 * late.margin
    assert limit == pytest.approx(late.margin_rate, abs=tolerance)
    if len(p) > 1:
        H, H_max = -(p @ np.log(p)), -np.log(p.max())
        for wrong in (late.margin * H, late.margin * (H + H_max), -late.margin_rate, late.margin_rate / late.margin**2):
            assert abs(limit - wrong) > 10 * tolerance or abs(wrong - late.margin_rate) < 1e-9


def test_the_margin_gap_is_o_of_1_over_log_t_iff_the_multipliers_are_equal():
    assert mm.asymptotics(np.eye(3), np.ones(3)).margin_rate == pytest.approx(0, abs=1e-14)
    assert mm.asymptotics(ORTHOGONAL, [1, 1]).margin_rate == pytest.approx(0.247988, abs=5e-7)
    s = np.array([20, 100, 400])
    gap = 2 / np.sqrt(5) - mm.margin(ORTHOGONAL, [1, 1], mm.gradient_flow(ORTHOGONAL, [1, 1], s))
    np.testing.assert_allclose(gap * s, [0.25119, 0.24867, 0.24816], atol=1e-5)


def test_scaling_the_data_scales_the_asymptotics():
    X, y = FAMILIES["n<d"]
    one, c = mm.asymptotics(X, y), 100.0
    scaled = mm.asymptotics(c * X, y)
    np.testing.assert_allclose(scaled.dual * c**2, one.dual, rtol=1e-10)
    # w_c(t) = w(c² t)/c moves the offset along w*
    np.testing.assert_allclose(c * scaled.offset, one.offset + 2 * np.log(c) * one.w, rtol=1e-10)
    assert scaled.margin_rate == pytest.approx(c * one.margin_rate, rel=1e-10)


def test_a_misclassified_validation_point_loses_like_its_output_times_log_t():
    late = mm.asymptotics(FOUR, ones(FOUR))
    v = np.array([-1.0, 0.5])
    m = mm.gradient_flow(FOUR, ones(FOUR), [1000, 2000]) @ v
    assert v @ late.w < 0
    assert (m[1] - m[0]) / 1000 == pytest.approx(v @ late.w, rel=1e-6)


# --- speed ---

TIMES = np.r_[np.linspace(0.5, 20, 40), 50, 200, 1000]


@family
def test_the_margin_gap_of_the_flow_stays_below_its_bound(X, y):
    svm = mm.hard_margin(X, y)
    gap = svm.margin - mm.margin(X, y, mm.gradient_flow(X, y, TIMES))
    bound = mm.margin_gap_bound(svm.margin, len(y), TIMES)
    assert (gap >= -1e-9 * svm.margin).all()
    assert (gap <= bound + 1e-9 * svm.margin).all()


def test_without_log_n_the_bound_fails():
    Z = np.array([[1.0, 0.0]] * 50 + [[0.0, 1.0]])
    svm = mm.hard_margin(Z, ones(Z))
    gap = svm.margin - mm.margin(Z, ones(Z), mm.gradient_flow(Z, ones(Z), TIMES))
    bound = mm.margin_gap_bound(svm.margin, 51, TIMES)
    assert (gap <= bound).all()
    late = np.isfinite(bound)
    assert (gap[late] > bound[late] / np.log(51)).any()


def test_the_bound_is_claimed_from_the_time_at_which_the_loss_is_surely_at_most_1():
    early, late = np.log1p(1.99), np.log1p(2.01)  # n γ² t = n - 1 at t = 2
    np.testing.assert_array_equal(np.isfinite(mm.margin_gap_bound(0.5, 2, [0.0, early, late])), [False, False, True])
    np.testing.assert_array_equal(mm.margin_gap_bound(0.5, 1, [0.0, 1.0]), [np.inf, 0])


@family
def test_the_loss_decays_and_the_norm_grows_as_proved(X, y):
    svm, n = mm.hard_margin(X, y), len(y)
    w = mm.gradient_flow(X, y, TIMES[:40])
    L = np.exp(-y * (w @ X.T)).sum(axis=1)
    t, R = np.expm1(TIMES[:40]), np.linalg.norm(X, axis=1).max()
    assert ((1 + 1e-7) / (1 / n + svm.margin**2 * t) >= L).all()
    assert ((1 - 1e-7) / (1 / n + R**2 * t) <= L).all()
    norm = np.linalg.norm(w, axis=1)
    assert (norm * svm.margin >= np.log(1 / L) - 1e-9).all()  # ‖w‖ >= log(1/L)/γ*
    assert (norm * svm.margin <= np.log(n / L) + 1e-9).all()


def test_the_norm_bound_fails_with_the_margin_on_the_other_side():
    w = mm.gradient_flow(FOUR, ones(FOUR), [20.0])[0]
    L, gamma = np.exp(-FOUR @ w).sum(), mm.hard_margin(FOUR, ones(FOUR)).margin
    assert np.log(1 / L) / gamma <= np.linalg.norm(w) < np.log(1 / L) * gamma


def test_reference_weights_of_normalized_descent():
    w = mm.normalized_gradient_descent(FOUR, ones(FOUR), 0.1, 50)
    np.testing.assert_allclose(w, [4.63982024310543, 4.15134944447455], rtol=1e-13)
    assert mm.margin(FOUR, ones(FOUR), w) == pytest.approx(1.07864116120779, rel=1e-13)


def softmax_loop(Z, q):
    weights = [mpmath.exp(-sum(a * b for a, b in zip(z, q, strict=True))) for z in Z]
    return [sum(p * z[j] for p, z in zip(weights, Z, strict=True)) / sum(weights) for j in range(len(q))]


def test_descents_agree_with_naive_loops():
    Z, y = FOUR.tolist(), ones(FOUR)
    w, u, v, m, R2 = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], 9.01
    for k in range(20):
        w = [a + 0.03 * sum(mpmath.exp(-z[0] * w[0] - z[1] * w[1]) * z[j] for z in Z) for j, a in enumerate(w)]
        u = [a + 0.03 * b for a, b in zip(u, softmax_loop(Z, u), strict=True)]
        g = softmax_loop(Z, m)
        v = [k / (k + 1) * (a + b) for a, b in zip(v, g, strict=True)]
        m = [a + (b + c) / R2 for a, b, c in zip(m, v, g, strict=True)]
    np.testing.assert_allclose(mm.gradient_descent(FOUR, y, 0.03, 20), np.array(w, float), rtol=1e-12)
    np.testing.assert_allclose(mm.normalized_gradient_descent(FOUR, y, 0.03, 20), np.array(u, float), rtol=1e-12)
    np.testing.assert_allclose(mm.momentum_gradient_descent(FOUR, y, 20), np.array(m, float), rtol=1e-12)


def test_several_steps_at_once_are_the_same_as_one_by_one():
    for run in (lambda k: mm.gradient_descent(FOUR, ones(FOUR), 0.01, k, "logistic", [1.0, -1.0]),
                lambda k: mm.normalized_gradient_descent(FOUR, ones(FOUR), 0.1, k, [1.0, -1.0]),
                lambda k: mm.momentum_gradient_descent(FOUR, ones(FOUR), k, [1.0, -1.0])):  # fmt: skip
        np.testing.assert_array_equal(run([7, 0, 3]), [run(7), run(0), run(3)])
        np.testing.assert_array_equal(run(0), [1, -1])


@pytest.mark.parametrize("loss", ["exp", "logistic"])
def test_gradient_descent_tends_to_the_flow_as_the_step_goes_to_zero(loss):
    w = mm.gradient_flow(FOUR, ones(FOUR), [np.log1p(2.0)], loss)[0]
    error = [
        np.linalg.norm(mm.gradient_descent(FOUR, ones(FOUR), 2 / k, k, loss) - w) for k in (400, 800, 1600, 3200, 6400)
    ]
    slope = np.polyfit(np.log([400, 800, 1600, 3200, 6400]), np.log(error), 1)[0]
    assert slope == pytest.approx(-1, abs=0.15)


@family
def test_the_margin_gaps_of_normalized_and_momentum_descent_stay_below_their_bounds(X, y):
    svm, n = mm.hard_margin(X, y), len(y)
    R = np.linalg.norm(X, axis=1).max()
    k = [1, 2, 3, 5, 10, 30, 100, 300]
    for eta in (1 / R**2, 0.3 / R**2):
        gap = svm.margin - mm.margin(X, y, mm.normalized_gradient_descent(X, y, eta, k))
        assert (gap <= mm.normalized_margin_gap_bound(svm.margin, n, eta, k) + 1e-9 * svm.margin).all()
    gap = svm.margin - mm.margin(X, y, mm.momentum_gradient_descent(X, y, k))
    assert (gap <= mm.momentum_margin_gap_bound(svm.margin, n, R, k) + 1e-9 * svm.margin).all()


def test_the_bounds_of_descent_fail_without_log_n():
    Z = np.array([[1.0, 0.0]] * 2000 + [[0.0, 1.0]])
    svm, k = mm.hard_margin(Z, ones(Z)), np.arange(1, 60).tolist()
    gap = svm.margin - mm.margin(Z, ones(Z), mm.normalized_gradient_descent(Z, ones(Z), 1.0, k))
    bound = mm.normalized_margin_gap_bound(svm.margin, 2001, 1.0, k)
    assert (gap <= bound).all()
    assert (gap > bound / np.log(2001)).any()
    gap = svm.margin - mm.margin(Z, ones(Z), mm.momentum_gradient_descent(Z, ones(Z), k))
    bound = mm.momentum_margin_gap_bound(svm.margin, 2001, 1.0, k)
    assert (gap <= bound).all()
    assert (gap > bound / np.log(2001)).any()


def test_the_margin_gaps_fall_like_1_over_k_and_1_over_k_squared():
    X, y = draw(40, 30, 5)
    svm, k = mm.hard_margin(X, y), [1000, 2000, 4000, 8000, 16000]
    eta = 1 / (X**2).sum(axis=1).max()

    def slope(w):
        return np.polyfit(np.log(k), np.log(svm.margin - mm.margin(X, y, w)), 1)[0]

    assert slope(mm.normalized_gradient_descent(X, y, eta, k)) == pytest.approx(-1, abs=0.15)
    assert slope(mm.momentum_gradient_descent(X, y, k)) == pytest.approx(-2, abs=0.15)


# --- bad input ---

X0, Y0 = [[1.0, 0.0], [0.0, 1.0]], [1, 1]
FUNCTIONS = {
    "margin": lambda X, y: mm.margin(X, y, [1.0, 1.0]),
    "hard_margin": mm.hard_margin,
    "hinge_threshold": mm.hinge_threshold,
    "soft_margin": lambda X, y: mm.soft_margin(X, y, 1.0),
    "gradient_flow": lambda X, y: mm.gradient_flow(X, y, [1.0]),
    "asymptotics": mm.asymptotics,
    "gradient_descent": lambda X, y: mm.gradient_descent(X, y, 0.1, 1),
    "normalized_gradient_descent": lambda X, y: mm.normalized_gradient_descent(X, y, 0.1, 1),
    "momentum_gradient_descent": lambda X, y: mm.momentum_gradient_descent(X, y, 1),
}
BAD_DATA = {
    "NaN": ([[1.0, np.nan], [0.0, 1.0]], Y0, r"X\[0, 1\] = nan"),
    "empty": ([], [], r"X has shape \(0,\)"),
    "X a vector": ([1.0, 2.0], Y0, r"X has shape \(2,\)"),
    "lengths": (X0, [1], r"y has shape \(1,\): expected \(2,\)"),
    "label 0": (X0, [1, 0], r"y\[1\] = 0: expected labels \+1 or -1"),
    "label 2": (X0, [2, -1], r"y\[0\] = 2: expected labels"),
    "infinite label": (X0, [1, np.inf], r"y\[1\] = inf"),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(("X", "y", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_refused(function, X, y, message):
    with pytest.raises(ValueError, match=message):
        function(X, y)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_words_are_refused(function):
    with pytest.raises(TypeError, match="y has dtype"):
        function(X0, ["a", "b"])


BAD = {
    "w = 0": (lambda: mm.margin(X0, Y0, [0.0, 0.0]), "w = 0 has no margin"),
    "w too long": (lambda: mm.margin(X0, Y0, [1.0, 0.0, 0.0]), "w has shape"),
    "C = 0": (lambda: mm.soft_margin(X0, Y0, 0.0), "C = 0.0"),
    "C = nan": (lambda: mm.soft_margin(X0, Y0, np.nan), "C = nan"),
    "log_t < 0": (lambda: mm.gradient_flow(X0, Y0, [1.0, -1.0]), r"log_t\[1\] = -1"),
    "log_t scalar": (lambda: mm.gradient_flow(X0, Y0, 1.0), "log_t has shape"),
    "log_t = inf": (lambda: mm.gradient_flow(X0, Y0, [np.inf]), r"log_t\[0\] = inf"),
    "loss": (lambda: mm.gradient_flow(X0, Y0, [1.0], loss="hinge"), "loss = 'hinge'"),
    "w0": (lambda: mm.gradient_flow(X0, Y0, [1.0], w0=[0.0]), r"w0 has shape \(1,\)"),
    "degenerate log_t": (lambda: mm.degenerate_example([-0.1]), r"log_t\[0\] = -0.1"),
    "eta < 0": (lambda: mm.gradient_descent(X0, Y0, -0.1, 1), "eta = -0.1"),
    "eta = 0": (lambda: mm.normalized_gradient_descent(X0, Y0, 0.0, 1), "eta = 0.0"),
    "k < 0": (lambda: mm.momentum_gradient_descent(X0, Y0, -1), "k = -1"),
    "k empty": (lambda: mm.gradient_descent(X0, Y0, 0.1, []), "k has shape"),
    "descent loss": (lambda: mm.gradient_descent(X0, Y0, 0.1, 1, loss="hinge"), "loss = 'hinge'"),
    "eta too large": (
        lambda: mm.gradient_descent([[1, -10.0], [0, 1]], Y0, 1e3, 9),
        "eta = 1000: the exp loss overflows",
    ),
    "X = 0": (lambda: mm.momentum_gradient_descent([[0.0]], [1], 1), "X = 0"),
    "margin <= 0": (lambda: mm.margin_gap_bound(0.0, 3, [1.0]), "margin = 0.0"),
    "n = 0": (lambda: mm.margin_gap_bound(1.0, 0, [1.0]), "n = 0"),
    "bound log_t": (lambda: mm.margin_gap_bound(1.0, 2, [-1.0]), "log_t"),
    "bound k = 0": (lambda: mm.normalized_margin_gap_bound(1.0, 2, 0.1, 0), "k = 0"),
    "bound eta": (lambda: mm.normalized_margin_gap_bound(1.0, 2, -0.1, 1), "eta = -0.1"),
    "radius": (lambda: mm.momentum_margin_gap_bound(1.0, 2, 0.0, 1), "radius = 0.0"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("k", [1.5, "3", True, None, [1.0]], ids=repr)
def test_a_number_of_steps_is_an_integer(k):
    with pytest.raises(TypeError, match="expected an integer"):
        mm.gradient_descent(X0, Y0, 0.1, k)


def test_a_flow_that_is_too_stiff_ends_in_an_error(monkeypatch):
    """Raw measurements in columns of very different size, for which only the solver in reserve is left."""
    cancer = load_breast_cancer()
    monkeypatch.setattr(mm, "_MOST_CALLS", 1_000)
    with pytest.raises(ArithmeticError, match=r"1,000 evaluations .* expected columns of X of similar size"):
        mm.gradient_flow(cancer.data, np.where(cancer.target == 1, 1.0, -1.0), [100.0])


# --- points of different sizes --------------------------------------------------------------------------------------


def test_soft_margin_of_a_far_and_a_near_point():
    """At C = 1 the near point pays in full, its dual is 1; the far one is beyond its margin on the other side."""
    w = mm.soft_margin([[-400, -600], [-1e-3, -3e-3]], [1, 1], 1.0)
    np.testing.assert_allclose(w, [-1e-3, -3e-3], rtol=1e-13)


@pytest.mark.parametrize("size", [1e-150, 1e-8, 1e8, 1e150])
def test_soft_margin_on_an_axis_of_any_size(size):
    """One point at distance s: min(C s, 1/s) at C = 1/(2 s²) is half of 1/s; a point at the origin does not matter."""
    w = mm.soft_margin([[size, 0], [0, 0]], [1, -1], 0.5 / size / size)
    np.testing.assert_allclose(w, [0.5 / size, 0], rtol=1e-13)


def test_soft_margin_minimises_its_objective_at_points_of_all_sizes():
    """The objective is convex: no point near the answer, nor farther off, is lower."""
    rng = np.random.default_rng(5)
    for _ in range(60):
        n, d = rng.integers(1, 8), rng.integers(1, 5)
        Z, C = rng.integers(-3, 4, (n, d)) * 10.0 ** rng.uniform(-6, 6, (n, 1)), 10.0 ** rng.uniform(-3, 3)
        w = mm.soft_margin(Z, np.ones(n), C)
        around = w + np.array([[1e-6], [1e-3], [1.0]])[:, None] * np.linalg.norm(w) * rng.normal(size=(20, d))
        value, *others = [v @ v / 2 + C * np.maximum(0, 1 - Z @ v).sum() for v in (w, *around.reshape(-1, d))]
        assert min(others) >= value * (1 - 1e-10) - 1e-14 * C
