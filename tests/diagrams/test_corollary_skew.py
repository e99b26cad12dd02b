"""The effect of skewed noise: the theorem against exact moments of SGD, its equations integrated, the printed sign."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg.checks import rate
from implicitreg.diagrams.corollaries import skew_diagram, skew_effect
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

# --- exact moments of x' = x − eta (h x + J[x, x]/2 + s), closed above a degree -----------------------------------


def times(p, q):
    """The product of two polynomials in (x, y), coefficients [i, j], without the terms above the degree."""
    n, product = len(p), np.zeros_like(p)
    for i, j in zip(*np.nonzero(p), strict=True):
        product[i:, j:] += p[i, j] * q[: n - i, : n - j]
    return product * (np.add.outer(np.arange(n), np.arange(n)) < n)


def one_step(h, J, atoms, chances, eta, degree):
    """Exponents, and the matrix that takes all moments E x^i y^j to those one step later."""
    exponents = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    matrix = np.zeros((len(exponents),) * 2)
    for s, chance in zip(atoms, chances, strict=True):
        powers = []
        for k in range(2):
            new = np.zeros((degree + 1,) * 2)
            new[0, 0], new[1 - k, k] = -eta * s[k], 1 - eta * h[k]
            new[2, 0], new[1, 1], new[0, 2] = -eta / 2 * J[k, 0, 0], -eta * J[k, 0, 1], -eta / 2 * J[k, 1, 1]
            one = np.zeros_like(new)
            one[0, 0] = 1
            powers.append(list(itertools.accumulate([new] * degree, times, initial=one)))
        for row, (i, j) in zip(matrix, exponents, strict=True):
            row += chance * times(powers[0][i], powers[1][j])[tuple(np.transpose(exponents))]
    return exponents, matrix


def mean_loss(h, J, atoms, chances, eta, T, degree):
    exponents, A = one_step(h, J, atoms, chances, eta, degree)
    if T is None:
        moments = np.r_[1, np.linalg.solve(np.eye(len(A) - 1) - A[1:, 1:], A[1:, 0])]
    else:
        moments = np.linalg.matrix_power(A, T)[:, 0]  # from the minimum, x = 0
    m = dict(zip(exponents, moments, strict=True))
    cubic = J[0, 0, 0] * m[3, 0] + 3 * J[0, 0, 1] * m[2, 1] + 3 * J[0, 1, 1] * m[1, 2] + J[1, 1, 1] * m[0, 3]
    return (h[0] * m[2, 0] + h[1] * m[0, 2]) / 2 + cubic / 6


def measured(h, J, atoms, chances, eta, s=None, degree=10):
    """The part of the mean loss that is odd in the noise, per eta²: SGD minus SGD with mirrored noise, halved."""
    T, atoms = None if s is None else round(s / eta), np.asarray(atoms)
    up, down = (mean_loss(h, J, sign * atoms, chances, eta, T, degree) for sign in (1, -1))
    return (up - down) / 2 / eta**2


LINE = {"h": [1.0, 1.0], "J": np.zeros((2, 2, 2)), "atoms": [(-0.5, 0), (2, 0)], "chances": [0.8, 0.2]}
LINE["J"][0, 0, 0] = 0.3
LINE_S = 0.2 * 8 - 0.8 / 8
PLANE = {
    "h": [1.0, 0.4],
    "J": 0.2 * np.array([[[0.3, -0.5], [-0.5, 0.7]], [[-0.5, 0.7], [0.7, 0.2]]]),
    "atoms": [(2, -1.125), (-1, 0.375), (0, 0.375)],
    "chances": [0.25, 0.5, 0.25],
}


def theory(case, s=None, function=skew_effect):
    S = np.einsum("m,mi,mj,mk->ijk", case["chances"], *[np.asarray(case["atoms"], float)] * 3)
    return function(np.diag(case["h"]), case["J"], S, 1.0, s)


def test_stationary_effect_on_a_line_tends_to_one_36th():
    ratios = [measured(**LINE, eta=eta) / (0.3 * LINE_S) for eta in (0.05, 0.025, 0.0125)]
    np.testing.assert_allclose(ratios, [0.0273, 0.0275, 0.0277], atol=5e-5)
    assert 2 * ratios[2] - ratios[1] == pytest.approx(1 / 36, rel=2e-3)
    assert theory(LINE) == pytest.approx(0.3 * LINE_S / 36, rel=1e-14)


ETAS = 0.02 / 2 ** np.arange(5)


@pytest.mark.parametrize("s", [0.2, 1.0, 3.0, None])
@pytest.mark.parametrize("case", [LINE, PLANE], ids=["line", "plane"])
def test_effect_is_that_of_exact_moments_as_eta_falls(case, s):
    values = np.array([measured(**case, eta=eta, s=s) for eta in ETAS])
    assert rate(ETAS, np.abs(values - theory(case, s))) == pytest.approx(1, abs=0.15)
    assert 2 * values[-1] - values[-2] == pytest.approx(theory(case, s), rel=5e-3)


@pytest.mark.parametrize("case", [LINE, PLANE], ids=["line", "plane"])
def test_printed_diagram_has_the_wrong_sign_at_long_times(case):
    values = np.array([measured(**case, eta=eta) for eta in ETAS])
    printed = theory(case, function=skew_diagram)
    assert (np.sign(values) == -np.sign(printed)).all()
    assert rate(ETAS, np.abs(values - printed)) == pytest.approx(0, abs=0.15)  # it does not converge
    assert theory(case) == pytest.approx(-printed / 2, rel=1e-13)


@pytest.mark.parametrize("case", [LINE, PLANE], ids=["line", "plane"])
def test_printed_diagram_is_right_at_short_times(case):
    short = np.array([0.1, 0.05, 0.025, 0.0125, 0.00625])
    effect, diagram = (np.array([theory(case, s, f) for s in short]) for f in (skew_effect, skew_diagram))
    assert rate(short, np.abs(effect - diagram)) == pytest.approx(2, abs=0.15)
    assert rate(short, np.abs(diagram)) == pytest.approx(1, abs=0.15)


def test_closure_of_the_moments_has_settled():
    for s in (3.0, None):
        values = [measured(**PLANE, eta=0.02, s=s, degree=degree) for degree in (10, 14)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_sign_changes_where_it_should():
    zero = brentq(lambda s: theory(LINE, s), 0.5, 1.5)
    assert zero == pytest.approx(-np.log((1 + np.sqrt(33)) / 16), rel=1e-10)
    assert zero == pytest.approx(0.8639, abs=5e-5)
    early, late = (measured(**LINE, eta=0.004, s=s) for s in (zero - 0.02, zero + 0.02))
    assert early * theory(LINE, 0.1) > 0 > late * theory(LINE, 0.1)


# --- the theorem's equations ----------------------------------------------------------------------------------


def one_dimension(h, s, SJ):
    u = np.exp(-h * s)
    return SJ / (36 * h) * (1 - u) * (1 + u - 8 * u * u)


@pytest.mark.parametrize("s", [1e-6, 0.3, 0.8639, 2.0, 700.0])
def test_one_dimension_has_the_closed_form(s):
    for h, SJ, eta in [(1.0, 1.0, 1.0), (0.3, -2.0, 0.1)]:
        value = skew_effect([[h]], [[[SJ]]], [[[1.0]]], eta, s)
        assert value == pytest.approx(eta**2 * one_dimension(h, s, SJ), rel=1e-8, abs=1e-16)


def symmetrized(x):
    return sum(x.transpose(axes) for axes in itertools.permutations(range(3)))


def integrated(H, J, S, s):
    """M' = −eta² S − (H acting on each index of M), V' = −HV − VH − ½(J:M + transpose), by a solver."""
    d = len(H)

    def slope(_, y):
        M, V = y[: d**3].reshape(d, d, d), y[d**3 :].reshape(d, d)
        decay = sum(np.moveaxis(np.tensordot(H, M, ([1], [k])), 0, k) for k in range(3))
        JM = np.einsum("bcd,acd->ab", J, M)
        return np.r_[(-S - decay).ravel(), (-H @ V - V @ H - (JM + JM.T) / 2).ravel()]

    y = solve_ivp(slope, (0, s), np.zeros(d**3 + d**2), "DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    return np.sum(H * y[d**3 :].reshape(d, d)) / 2 + np.sum(J * y[: d**3].reshape(d, d, d)) / 6


@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 2), (2, 1, 1), (0, 1), (1, 1, 1), (0.5, 0.5, 1), (3, 1e-9)]))
@settings(max_examples=25, deadline=None)
def test_closed_form_solves_the_equations_in_every_basis_and_at_resonances(seed, h):
    """(2, 1, 1), for one, has 2 h_0 = h_0 + h_1 + h_2: V and M decay at the same rate."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.normal(size=(len(h), len(h))))[0]
    H = U @ np.diag(h) @ U.T
    H, J, S = (H + H.T) / 2, *(symmetrized(rng.normal(size=(len(h),) * 3)) for _ in range(2))
    for s in (0.1, 2.0):
        assert skew_effect(H, J, S, 0.5, s) == pytest.approx(integrated(H, J, S, s) / 4, rel=1e-8, abs=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_limit_is_minus_half_of_the_diagram_in_every_dimension(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 5))
    A = rng.normal(size=(d, d))
    H, J, S = A @ A.T + 0.1 * np.eye(d), *(symmetrized(rng.normal(size=(d, d, d))) for _ in range(2))
    limit = skew_effect(H, J, S, 0.1)
    scale = 1e-9 * np.abs(S).max() * np.abs(J).max()
    assert limit == pytest.approx(-skew_diagram(H, J, S, 0.1) / 2, rel=1e-10, abs=scale)
    assert limit == pytest.approx(skew_effect(H, J, S, 0.1, 300.0), rel=1e-9, abs=scale)


def test_nothing_happens_in_no_time():
    assert theory(PLANE, 0.0) == 0
    assert theory(PLANE, 0, skew_diagram) == 0


ONE = [[[1.0]]]
BAD = {
    "flat without s": (lambda: skew_effect([[0.0]], ONE, ONE, 0.1), ValueError, r"s = None with H of eigenvalues"),
    "diagram, flat": (lambda: skew_diagram([[0.0]], ONE, ONE, 0.1), ValueError, "s = None"),
    "negative curvature": (lambda: skew_effect([[-1.0]], ONE, ONE, 0.1, 1.0), ValueError, "H has the eigenvalue -1"),
    "S asymmetric": (lambda: skew_effect(np.eye(2), np.zeros((2, 2, 2)), np.arange(8.0).reshape(2, 2, 2), 0.1),
                     ValueError, "S changes by"),
    "J of another size": (lambda: skew_effect(np.eye(2), ONE, ONE, 0.1), ValueError, r"J has shape \(1, 1, 1\)"),
    "eta negative": (lambda: skew_effect([[1.0]], ONE, ONE, -0.1), ValueError, "eta = -0.1"),
    "s negative": (lambda: skew_effect([[1.0]], ONE, ONE, 0.1, -1.0), ValueError, "s = -1.0"),
    "s a word": (lambda: skew_diagram([[1.0]], ONE, ONE, 0.1, "long"), TypeError, "s = 'long'"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
