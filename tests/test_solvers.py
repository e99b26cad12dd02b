"""`implicitreg._solvers`: answers that do not depend on units, certificates that can fail, budgets that end."""

import itertools
import re
from pathlib import Path

import implicitreg
import numpy as np
import pytest
from implicitreg import _solvers
from implicitreg.flow import diagonal, factorization, geometry, maxmargin, minnorm, neuron
from scipy.optimize import OptimizeResult

SCALES = [1e-150, 1e-30, 1e-9, 1e9, 1e30, 1e150]
PROBLEMS = 100


def problems():
    """Random systems of 3 equations in 8 unknowns, and 6 separable points in 3 dimensions."""
    rng = np.random.default_rng(11)
    for _ in range(PROBLEMS):
        X, Z = rng.normal(size=(3, 8)), rng.normal(size=(6, 3))
        Z *= np.sign(Z @ rng.normal(size=3))[:, None]
        yield X, rng.normal(size=3), Z


CASES = list(problems())
ONES = np.ones(6)


def solved(X, y, Z, a, b):
    """What the solvers find for aX, by and for the points aZ, with the units taken out."""
    w = diagonal.basis_pursuit(a * X, b * y)
    margins = [geometry.margin_direction(a * Z, ONES, p) for p in (1, np.inf)]
    svm = maxmargin.hard_margin(a * Z, ONES)
    weights = [w, diagonal.limit(a * X, b * y, 0.3 * (b / a) ** 0.5).w, minnorm.limit(a * X, b * y)]
    return np.concatenate([
        *(v / (b / a) for v in weights), [diagonal.recovery_exponent(a * X, w)], svm.w * a, [svm.margin / a],
        *(m.w * a for m in margins), *(m.dual for m in margins), [m.margin / a for m in margins],
    ])  # fmt: skip


@pytest.fixture(scope="module")
def in_units_of_one():
    return np.array([solved(*case, 1.0, 1.0) for case in CASES])


@pytest.mark.parametrize("scale", SCALES)
def test_a_hundred_problems_have_the_same_answer_in_all_units(scale, in_units_of_one):
    """X and y in units that differ from one another, too."""
    found = np.array([solved(*case, scale, scale**0.5) for case in CASES])
    size = np.maximum(np.abs(in_units_of_one), np.abs(in_units_of_one).max(axis=1, keepdims=True) / 100)
    assert (np.abs(found - in_units_of_one) / size).max() < 1e-8


def test_the_answers_are_those_of_the_definitions(in_units_of_one):
    """Independent of every solver: solutions of the equations, and weak duality on both sides of each margin."""
    for (X, y, Z), row in zip(CASES, in_units_of_one, strict=True):
        np.testing.assert_allclose(X @ row[:8], y, atol=1e-13)
        for p, q in ((1, np.inf), (np.inf, 1)):
            best = geometry.margin_direction(Z, ONES, p)
            attained = (Z @ best.w).min() / np.linalg.norm(best.w, p)
            assert best.dual.min() >= 0
            assert best.dual.sum() == pytest.approx(1, abs=1e-12)
            assert attained == pytest.approx(np.linalg.norm(Z.T @ best.dual, q), rel=1e-10)
            assert best.margin == pytest.approx(attained, rel=1e-12)


# --- rows and columns of different sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize("small", [1e-10, 1e-13, 1e-40])
def test_a_small_equation_is_an_equation(small):
    """The only solution is (1, 0); with the second row dropped (0, 1/2) is as good."""
    w = diagonal.basis_pursuit([[1, 2], [small, 3 * small]], [1, small])
    np.testing.assert_allclose(w, [1, 0], atol=1e-12)
    with pytest.raises(ValueError, match="no solution: least squares leaves the residual"):
        diagonal.basis_pursuit([[1, 2], [small, 2 * small]], [1, 3 * small])


@pytest.mark.parametrize("small", [1e-10, 1e-13])
def test_a_point_near_the_origin_is_a_point(small):
    """Orthogonal points at 1 and s: w = (1, 1/s), of l1 norm 1 + 1/s and largest entry 1/s."""
    Z = np.diag([1.0, small])
    assert geometry.margin_direction(Z, [1, 1], 1).margin == pytest.approx(1 / (1 + 1 / small), rel=1e-12)
    assert geometry.margin_direction(Z, [1, 1], np.inf).margin == pytest.approx(small, rel=1e-12)


def test_dependent_equations_have_the_solution_of_the_independent_ones():
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(4, 9)), rng.normal(size=4)
    T = rng.normal(size=(7, 4))
    np.testing.assert_allclose(diagonal.basis_pursuit(T @ X, T @ y), diagonal.basis_pursuit(X, y), atol=1e-10)


EQUATIONS, SOLUTION = np.array([[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]]), np.array([1.0, 0.0, 2.0])
HALVES, PLANES = np.array([0.5, 2.0, 1.0]), [np.diag([1.0, 2.0, -1.0]), np.diag([0.0, 1.0, 1.0])]

LIMITS = {
    "limit": lambda A, y: diagonal.limit(A, y, 0.1).w,
    "limit, not signed": lambda A, y: diagonal.limit(A, y, 0.1, signed=False).w,
    "limit, depth 3": lambda A, y: diagonal.limit(A, y, 0.1, depth=3).w,
    "untied limit": lambda A, y: diagonal.untied_limit(A, y, np.ones(3), HALVES).w,
    "least distance": lambda A, y: geometry.mirror_limit(A, y, geometry.quadratic(), HALVES),
    "entropy": lambda A, y: geometry.mirror_limit(A, y, geometry.entropy(), HALVES),
    "basis pursuit": diagonal.basis_pursuit,
    "commuting": lambda A, y: factorization.commuting_limit([np.diag(a) for a in A], y, 0.1),
    "least trace": lambda A, y: factorization.min_trace([np.diag(a) for a in A], y).X,
    "neuron": lambda A, y: neuron.limit(A, y, lambda v: v, HALVES),
}


@pytest.mark.parametrize("sizes", [(1e8, 1e-8), (1e-150, 1e100)])
@pytest.mark.parametrize("name", LIMITS)
def test_what_depends_on_the_solutions_only_does_not_depend_on_the_sizes_of_the_equations(name, sizes):
    S, limit = np.array(sizes), LIMITS[name]
    expected = limit(EQUATIONS, EQUATIONS @ SOLUTION)
    found = limit(EQUATIONS * S[:, None], S * (EQUATIONS @ SOLUTION))
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_duals_belong_to_the_equations_as_given():
    """X' dual is arcsinh(w / 2 alpha²); the least trace is the value of its dual; dependent rows: in range."""
    S, y = np.array([1e8, 1e-8]), EQUATIONS @ SOLUTION
    found = diagonal.limit(EQUATIONS * S[:, None], S * y, 0.1)
    np.testing.assert_allclose(EQUATIONS.T @ (S * found.dual), np.arcsinh(found.w / 0.02), atol=1e-10)
    least = factorization.min_trace([np.diag([1e8, 0]), [[0, 1e-8], [1e-8, 0]]], [1e8, 0.6e-8])
    np.testing.assert_allclose(least.X, [[1, 0.3], [0.3, 0.09]], atol=1e-9)
    assert least.dual @ [1e8, 0.6e-8] == pytest.approx(1.09, abs=1e-9)
    X = np.array([[1.0, 2.0, 3.0], [1e3, 2e3, 3e3], [0.0, 1.0, 1.0]])
    dual = diagonal.limit(X, X @ SOLUTION, 0.1).dual
    assert abs(dual @ [1e3, -1, 0]) < 1e-12 * np.linalg.norm(dual) * 1e3


@pytest.mark.parametrize("name", LIMITS)
def test_an_equation_of_any_size_is_refused_where_it_contradicts_another(name):
    """Large and small rows, and large and small targets."""
    rows = np.array([[1.0, 1.0, 1.0], [1e-13, 1e-13, 1e-13]])
    with pytest.raises(ValueError, match=r"no solution|has a solution|consistent|no X|off by"):
        LIMITS[name](rows, [1, 2e-13])
    with pytest.raises(ValueError, match=r"no solution|has a solution|consistent|no X|off by"):
        LIMITS[name](np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), [1e13, 1, 2])


@pytest.mark.parametrize(
    ("X", "y"), [([[1, 1, 0], [0, 1e-10, 1e-10]], [1, -2e-10]), ([[1, 0, 0], [0, 1, 1]], [1e13, -2])]
)
def test_a_small_equation_keeps_weights_from_being_positive(X, y):
    with pytest.raises(ValueError, match="no solution with the signs"):
        diagonal.limit(X, y, 0.1, signed=False)
    with pytest.raises(ValueError, match="no solution w >= 0"):
        diagonal.basis_pursuit(X, y, nonnegative=True)


# --- small integers, of which the eyes see the answer but rounding leaves entries of 1e-17 --------------------------


def dual_vertices(Z):
    """The vertices of the duals ``p >= 0``, ``Z' p = w*``, by trying every set of independent rows; and w*."""
    svm = maxmargin.hard_margin(Z, np.ones(len(Z)))
    assert (Z @ svm.w).min() == pytest.approx(1, abs=1e-12)
    assert svm.dual.min() >= 0
    np.testing.assert_allclose(Z.T @ svm.dual, svm.w, atol=1e-12)
    vertices = []
    for size in range(1, np.linalg.matrix_rank(Z) + 1):
        for rows in map(list, itertools.combinations(np.flatnonzero(Z @ svm.w < 1 + 1e-9), size)):
            p, _, rank, _ = np.linalg.lstsq(Z[rows].T, svm.w, rcond=None)
            if rank == size and p.min() > 1e-9 and np.allclose(Z[rows].T @ p, svm.w, atol=1e-9):
                vertices.append(np.bincount(rows, p, len(Z)))
    return np.array(vertices), svm


def least_largest(vertices):
    """The least largest entry of a mean of the vertices: a matrix game, by trying every basis of its program."""
    k, n = vertices.shape
    best = vertices.max(axis=1).min()
    for size in range(2, min(k, n) + 1):
        for on in map(list, itertools.combinations(range(k), size)):
            for tied in map(list, itertools.combinations(range(n), size)):
                A = np.block([[vertices[on][:, tied].T, -np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
                if abs(np.linalg.det(A)) > 1e-9:
                    mean = np.linalg.solve(A, np.eye(size + 1)[size])[:size]
                    if mean.min() >= -1e-12:
                        best = min(best, (mean @ vertices[on]).max())
    return best


def small_classifications():
    """Every multiset of up to four points of signs, in one to three dimensions, that a w separates."""
    for d, n in itertools.product((1, 2, 3), (1, 2, 3, 4)):
        for points in itertools.combinations_with_replacement(itertools.product([-1.0, 1.0], repeat=d), n):
            Z = np.array(points)
            if not any((p == -q).all() for p, q in itertools.combinations(Z, 2)):
                yield Z


def test_every_small_classification_of_signs():
    seen = 0
    for Z in small_classifications():
        try:
            vertices, svm = dual_vertices(Z)
        except maxmargin.NotSeparable as no:
            np.testing.assert_allclose(no.certificate @ Z, 0, atol=1e-12)
            continue
        seen += 1
        ones = np.ones(len(Z))
        assert maxmargin.hinge_threshold(Z, ones) == pytest.approx(least_largest(vertices), rel=1e-10)
        if (vertices[:, svm.support].max(axis=0) > 0).all():
            late = maxmargin.asymptotics(Z, ones)
            p = late.dual * late.margin**2
            np.testing.assert_allclose(late.dual @ Z, svm.w, atol=1e-11)
            tangent = vertices - vertices[0]  # the entropy is largest: its gradient sees none of these
            on = svm.support
            np.testing.assert_allclose(tangent[:, on] @ np.log(p[on]), 0, atol=1e-9)
            assert late.margin_rate == pytest.approx(late.margin * (np.log(p.max()) - p[on] @ np.log(p[on])), abs=1e-11)
        else:
            with pytest.raises(ValueError, match="degenerate"):
                maxmargin.asymptotics(Z, ones)
    assert seen > 100


def test_thresholds_of_points_that_share_a_margin():
    ones = np.ones(4)
    assert maxmargin.hinge_threshold([[-1, -1], [-1, -1], [-1, -1], [-1, 1]], ones) == pytest.approx(0.5, rel=1e-12)
    assert maxmargin.hinge_threshold([[1, 1, 0], [1, 0, 1], [1, 0, 0]], ones[:3]) == pytest.approx(1, rel=1e-12)
    late = maxmargin.asymptotics([[1, 1], [1, 1], [1, -1], [1, 1]], ones)
    assert late.margin_rate == pytest.approx(np.log(3) / 2, rel=1e-12)  # p = (1/6, 1/6, 1/2, 1/6), margin 1


INTEGERS = {
    "signs": lambda rng, shape: rng.choice([-1.0, 1.0], shape),
    "0 and 1": lambda rng, shape: rng.integers(0, 2, shape) * 1.0,
    "-3 to 3": lambda rng, shape: rng.integers(-3, 4, shape) * 1.0,
}


@pytest.mark.parametrize("kind", INTEGERS)
def test_programs_of_random_small_integers_are_solved(kind):
    """None is refused, and each value lies between those that feasible points and weak duality give."""
    rng, draw = np.random.default_rng(31), INTEGERS[kind]
    for _ in range(40):
        X = draw(rng, (rng.integers(1, 6), rng.integers(4, 9)))
        sparse = rng.integers(-1, 2, X.shape[1]) * 1.0
        w = diagonal.basis_pursuit(X, X @ sparse)
        np.testing.assert_allclose(X @ w, X @ sparse, atol=1e-9)
        assert np.abs(w).sum() <= np.abs(sparse).sum() + 1e-9
        if w.any():
            w = np.where(np.abs(w) > 1e-9, w, 0)
            assert diagonal.recovery_exponent(X, w) >= -1e-9  # as w is a solution, and 1 at most
            assert diagonal.recovery_exponent(X, w) <= 1
        y = np.where(X @ np.ones(X.shape[1]) >= 0, 1.0, -1.0)
        try:
            svm = maxmargin.hard_margin(X, y)
        except maxmargin.NotSeparable:
            continue
        C = maxmargin.hinge_threshold(X, y)
        assert svm.dual.sum() / len(svm.support) - 1e-9 <= C <= svm.dual.max() + 1e-9
        np.testing.assert_allclose(maxmargin.soft_margin(X, y, C * (1 + 1e-9)), svm.w, atol=1e-7)
        assert np.abs(maxmargin.soft_margin(X, y, 0.99 * C) - svm.w).max() > 1e-9


# --- certificates that can fail -------------------------------------------------------------------------------------

A, B, C = np.array([[1.0, 2.0, 0.5], [0.0, 1.0, 1.0]]), np.array([1.0, 0.5]), np.ones(3)


def spoil(monkeypatch, **changes):
    """The solver's answer with some of its parts moved."""
    honest = _solvers.linprog

    def linprog(*args, **kwargs):
        answer = honest(*args, **kwargs)
        for part, change in changes.items():
            if part == "marginals":
                answer.eqlin.marginals = answer.eqlin.marginals + change
            else:
                answer[part] = answer[part] + change
        return answer

    monkeypatch.setattr(_solvers, "linprog", linprog)


def test_the_honest_answer_passes_its_certificate():
    x, _, m = _solvers.linear_program("A", C, A_eq=A, b_eq=B)
    np.testing.assert_allclose(x, [0, 0.5, 0], atol=1e-15)
    assert m @ B == pytest.approx(C @ x, rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [{"x": 1e-6}, {"x": np.array([0.75, -0.5, 0.5])}, {"marginals": np.array([10.0, -20.0])}],
    ids=["off the vertex", "feasible, not optimal", "dual infeasible"],
)
def test_a_wrong_answer_of_the_linear_program_is_refused(changes, monkeypatch):
    spoil(monkeypatch, **changes)
    with pytest.raises(_solvers.SolverError, match=r"A: the optimum .* off by"):
        _solvers.linear_program("A", C, A_eq=A, b_eq=B)


def test_errors_within_the_tolerance_of_the_solver_are_mended(monkeypatch):
    """HiGHS stops at 1e-10; the vertex that it names is solved for again."""
    spoil(monkeypatch, x=np.array([0, -1e-10, 0]), marginals=1e-10)
    x, _, m = _solvers.linear_program("A", C, A_eq=A, b_eq=B)
    np.testing.assert_allclose(x, [0, 0.5, 0], atol=1e-15)
    assert m @ B == pytest.approx(0.5, rel=1e-14)


@pytest.mark.parametrize("status", [1, 2, 3, 4])
def test_a_solver_that_gives_up_is_reported(status, monkeypatch):
    gave_up = OptimizeResult(status=status, message="gave up", x=None)
    monkeypatch.setattr(_solvers, "linprog", lambda *args, **kwargs: gave_up)
    with pytest.raises(_solvers.SolverError, match=r"X, y: linear programming found no optimum \(gave up\)") as stop:
        diagonal.basis_pursuit([[1.0, 2.0]], [1.0])
    assert not isinstance(stop.value, _solvers.Infeasible)


@pytest.mark.parametrize("wrong", [[0.5, 0.0], [1.0, 0.5], [1.0 + 1e-6, 0.0]])
def test_a_wrong_answer_of_nonnegative_least_squares_is_refused(wrong, monkeypatch):
    """The right one is (2, 0), which the solver sees in units of 2."""
    monkeypatch.setattr(_solvers, "nnls", lambda *args, **kwargs: (np.array(wrong), 0.0))
    with pytest.raises(_solvers.SolverError, match="G: non-negative least squares is off"):
        _solvers.nonnegative_least_squares("G", np.eye(2), np.array([2.0, -1.0]))


def test_a_margin_above_its_bound_is_refused(monkeypatch):
    """A gap of either sign: the bound of the dual may be too low, too."""
    honest = geometry._l1_margin

    def wrong(Z):
        found = honest(Z)
        return geometry.NormMargin(found.w, 2 * found.margin, found.dual)

    monkeypatch.setattr(geometry, "_l1_margin", wrong)
    with pytest.raises(RuntimeError, match=r"margin 2 found, .* bound from the dual 1$"):
        geometry.margin_direction([[1.0]], [1], 1)


# --- budgets --------------------------------------------------------------------------------------------------------


def test_a_flow_beyond_its_budget_says_how_far_it_came():
    with pytest.raises(
        _solvers.SolverError, match=r"t = 1e\+06: 1,000 evaluations .* of 1e\+06; expected less"
    ) as stop:
        _solvers.integrate("t = 1e+06", lambda t, x: -x, np.ones(1), np.array([1e6]), advice="less", most=1000)
    assert 1 < stop.value.reached < 1e6
    assert abs(stop.value.state[0]) < 1


def test_a_flow_that_blows_up_says_where():
    """x' = x², x(0) = 1 is 1/(1 - t)."""
    with pytest.raises(_solvers.SolverError, match=r"could not be followed beyond 1 of 2 .*; expected less"):
        _solvers.integrate("t = 2", lambda t, x: x**2, np.ones(1), np.array([2.0]), most=10**5, advice="less")


def test_times_come_back_in_the_order_given():
    path = _solvers.integrate(
        "t", lambda t, x: -x, np.ones(2), np.array([1.0, 0.0, 1.0]), most=999, advice="", rtol=1e-10, atol=0
    )
    np.testing.assert_allclose(path, np.exp([[-1, -1], [0, 0], [-1, -1]]), rtol=1e-8)


def test_every_solver_of_scipy_is_behind_the_door():
    """No module of the package but `_solvers` names one."""
    root = Path(implicitreg.__file__).parent
    names = re.compile(r"\b(linprog|nnls|lsq_linear|minimize|milp|quad_vec|solve_ivp|odeint|solve_bvp)\(")
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if names.search(path.read_text("utf-8"))}
    assert found == {"_solvers.py"}


def test_an_infeasible_program_is_believed_only_with_a_residual(monkeypatch):
    """HiGHS calls a system infeasible that has a solution: no sentence about its least squares."""
    no = OptimizeResult(status=2, message="model_status is Infeasible", x=None)
    monkeypatch.setattr(_solvers, "linprog", lambda *args, **kwargs: no)
    with pytest.raises(_solvers.Infeasible, match="X, y: linear programming found no optimum"):
        diagonal.basis_pursuit([[1.0, 2.0]], [1.0])
