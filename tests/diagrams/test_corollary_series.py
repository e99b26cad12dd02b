"""Corollary 5: reference polynomials in T, the oracle, the generators of both equations in fractions, controls."""

from fractions import Fraction as F

import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem, exact
from implicitreg.checks import rate
from implicitreg.diagrams.corollaries import ode_series, sde_series, sgd_series

x, y = sp.symbols("x y")
R = sp.Rational
THIRD = [R(1, 3)] * 3
#  losses, probabilities, variables, start
LAWS = {
    "A": ([x + x**2 / 2 + x**3 / 6, -2 * x + x**2 + x**4 / 8, R(5, 2) * x - x**2 / 4 + x**3 / 3 + x**4 / 24], THIRD,
          (x,), (0,)),
    "A at its minimum": ([x + x**2 / 2 + x**3 / 6, -2 * x + x**2 + x**4 / 8, x + x**2 / 4 + x**3 / 3], THIRD,
                         (x,), (0,)),
    "B": ([x - y + x**2 / 2 + x * y / 3 + y**2 / 4 + x**2 * y / 2 - y**3 / 6 + x**2 * y**2 / 5,
           -x + 2 * y + x**2 - x * y / 2 + 3 * y**2 / 2 + x**3 / 3 - x * y**2 / 4 + x**4 / 24 + x * y**3 / 6,
           3 * x / 2 + y / 2 - x**2 / 2 + x * y + y**2 / 2 + x * y**2 - x**2 * y / 3 + y**4 / 12],
          [R(1, 2), R(1, 3), R(1, 6)], (x, y), (R(1, 2), R(-1, 3))),
}  # fmt: skip


def problem(name):
    losses, p, variables, start = LAWS[name]

    def numeric(loss):
        f = sp.lambdify(variables, loss)
        return lambda t: f(*t)

    p = np.array(p, float)
    return FiniteProblem([numeric(loss) for loss in losses], p / p.sum(), [float(a) for a in start])


REFERENCE = {
    ("A", sgd_series): lambda T: [0, -T / 4, 5 * T * (2 * T + 13) / 48, -T * (136 * T**2 + 1677 * T - 1399) / 864],
    ("A", ode_series): lambda T: [0, -T / 4, 5 * T**2 / 24, -17 * T**3 / 108],
    ("A", sde_series): lambda T: [0, -T / 4, 5 * T * (T + 7) / 24, -T**2 * (68 * T + 927) / 432],
    ("A at its minimum", sgd_series): lambda T: [0, 0, 7 * T / 6, -T * (49 * T - 61) / 36],
    ("A at its minimum", sde_series): lambda T: [0, 0, 7 * T / 6, -49 * T**2 / 36],
    ("A at its minimum", ode_series): lambda T: [0, 0, 0, 0],
}  # fmt: skip


@pytest.mark.parametrize(("name", "series"), REFERENCE, ids=lambda v: getattr(v, "__name__", v))
@pytest.mark.parametrize("T", [0, 1, 2, 5, 40])
def test_series_are_the_reference_polynomials_in_T(name, series, T):
    expected = [float(c) for c in REFERENCE[name, series](F(T))]
    np.testing.assert_allclose(series(problem(name), T), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("T", "second", "third"),
    [(1, F(298964577101, 272097792000), F(-76106252054713, 440798423040000)),
     (2, F(1718161097741, 408146688000), F(-1031095120106077, 220399211520000)),
     (3, F(2539428464179, 272097792000), F(-25785447507552217, 1322395269120000)),
     (4, F(1120231943539, 68024448000), F(-16733910182761663, 330598817280000))],
)  # fmt: skip
def test_sgd_in_two_dimensions_has_the_values_of_enumeration(T, second, third):
    expected = [144221 / 466560, -T * 159278821 / 188956800, float(second), float(third)]
    np.testing.assert_allclose(sgd_series(problem("B"), T), expected, rtol=1e-10)


# --- independent derivations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("T", [1, 2, 4])
def test_sgd_misses_the_oracle_by_eta_to_the_fourth(name, T):
    p, etas = problem(name), 0.01 / 2 ** np.arange(5)
    series = np.polynomial.Polynomial(sgd_series(p, T))
    off = [exact.run(p, eta, N=T, T=T).test_loss - series(eta) for eta in etas]
    assert rate(etas, np.abs(off)) == pytest.approx(4, abs=0.15)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_sgd_has_the_coefficients_of_the_oracle_for_random_quartics(seed, T):
    rng = np.random.default_rng(seed)
    a, b, c, f = (torch.as_tensor(rng.uniform(-1, 1, (2,) + (2,) * k)) for k in (1, 2, 3, 1))
    losses = [
        lambda t, i=i: a[i] @ t + t @ b[i] @ t / 2 + torch.einsum("ijk,i,j,k", c[i], t, t, t) / 6 + f[i] @ t**4 / 24
        for i in range(2)
    ]
    p = rng.uniform(0.2, 0.8)
    random = FiniteProblem(losses, [p, 1 - p], rng.uniform(-1, 1, 2))
    etas = 0.005 * np.arange(1, 10)
    values = [random.loss(random.theta0), *(exact.run(random, eta, N=T, T=T).test_loss for eta in etas)]
    coefficients = np.polynomial.Polynomial.fit([0, *etas], values, 9).convert().coef[:4]
    np.testing.assert_allclose(sgd_series(random, T), coefficients, rtol=1e-5, atol=1e-5)


def by_generator(name, T, noise):
    """sum_k (eta T)^k L^k l / k!, with L f = −G·df + noise (eta/2) C:ddf, in rational arithmetic at the start."""
    losses, p, variables, start = LAWS[name]
    eta = sp.Symbol("eta")
    l = sum(q * loss for q, loss in zip(p, losses, strict=True))
    grads = [[sp.diff(loss, v) for v in variables] for loss in losses]
    G = [sp.diff(l, v) for v in variables]

    def C(i, j):
        return sum(q * g[i] * g[j] for q, g in zip(p, grads, strict=True)) - G[i] * G[j]

    def L(f):
        drift = -sum(G[i] * sp.diff(f, v) for i, v in enumerate(variables))
        spread = sum(C(i, j) * sp.diff(f, v, w) for i, v in enumerate(variables) for j, w in enumerate(variables))
        return sp.expand(drift + noise * eta / 2 * spread)

    total, term = 0, sp.expand(l)
    for k in range(4):
        total += (eta * T) ** k / sp.factorial(k) * term
        term = L(term) if k < 3 else term
    at = sp.Poly(sp.expand(total.subs(dict(zip(variables, start, strict=True)))), eta)
    return [float(at.coeff_monomial(eta**k)) for k in range(4)]


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(("series", "noise"), [(ode_series, 0), (sde_series, 1)], ids=["ode", "sde"])
def test_both_equations_follow_from_their_generators(name, series, noise):
    np.testing.assert_allclose(series(problem(name), 3), by_generator(name, 3, noise), rtol=1e-10, atol=1e-12)


def test_gauss_landscape_has_the_series_of_its_closed_form():
    """(h + x² exp(−h))/2 with normal x from h = 0: a step gives exp(eta/2)/(2 sqrt(1 + eta)). 8 nodes suffice."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    losses = [lambda t, a=a: (t[0] + a * a * torch.exp(-t[0])) / 2 for a in nodes]
    eta = sp.Symbol("eta")
    series = sp.series(sp.exp(eta / 2) / (2 * sp.sqrt(1 + eta)), eta, 0, 4).removeO()
    expected = [float(series.coeff(eta, k)) for k in range(4)]
    np.testing.assert_allclose(
        sgd_series(FiniteProblem(losses, weights / weights.sum(), [0.0]), 1), expected, atol=1e-12
    )
    assert expected == pytest.approx([1 / 2, 0, 1 / 8, -1 / 12])


# --- the differences, and the printed ones ----------------------------------------------------------------------


def tensors(p):
    _, g, h, j = p.derivatives(3)
    w = p.probabilities
    c = g - w @ g
    return (w @ g, np.tensordot(w, h, 1), np.tensordot(w, j, 1), (w * c.T) @ c,
            np.einsum("m,mi,mj,mk->ijk", w, c, c, c))  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("T", [1, 3])
def test_differences_at_second_order(name, T):
    p = problem(name)
    G, H, _, C, _ = tensors(p)
    sgd, ode, sde = (series(p, T) for series in (sgd_series, ode_series, sde_series))
    assert sgd[2] - ode[2] == pytest.approx(T / 2 * ((C - np.outer(G, G)) * H).sum(), rel=1e-10)
    assert sgd[2] - sde[2] == pytest.approx(-T / 2 * G @ H @ G, rel=1e-10, abs=1e-12)
    printed = T / 2 * (C * H).sum()  # said of SGD − ODE and of SGD − SDE
    assert sgd[2] - sde[2] != pytest.approx(printed, rel=0.1)
    if G.any():
        assert sgd[2] - ode[2] != pytest.approx(printed, rel=0.01)


@pytest.mark.parametrize("T", [1, 3, 10])
def test_skewness_is_not_the_only_difference_from_the_equation_at_third_order(T):
    p = problem("A at its minimum")
    _, H, J, C, S = tensors(p)
    difference = sgd_series(p, T)[3] - sde_series(p, T)[3]
    skew = -T / 6 * (S * J).sum()
    assert difference == pytest.approx(T / 2 * (C * (H @ H)).sum() + skew, rel=1e-10)
    assert difference != pytest.approx(skew, rel=0.5)


@pytest.mark.parametrize("T", [1, 2, 5])
def test_third_order_difference_away_from_the_minimum(T):
    p = problem("B")
    G, H, J, C, _ = tensors(p)
    step = 1e-5
    along = [tensors(FiniteProblem(p.losses, p.probabilities, p.theta0 + s * step * G))[3] for s in (1, -1)]
    G_dC = (along[0] - along[1]) / (2 * step)
    says = (T**2 - T / 3) * G @ H @ H @ G + (T**2 / 4 - T / 12) * np.einsum("ijk,i,j,k", J, G, G, G)
    says += T / 4 * np.einsum("ijk,ij,k", J, C, G) + T / 2 * (C * (H @ H) + G_dC * H / 2).sum()
    says -= T / 6 * (tensors(p)[4] * J).sum()
    assert sgd_series(p, T)[3] - sde_series(p, T)[3] == pytest.approx(says, rel=1e-8)


BAD = {
    "no problem": (lambda p: sgd_series("A", 2), TypeError, "problem = 'A'"),
    "T negative": (lambda p: sgd_series(p, -1), ValueError, "T = -1"),
    "T not whole": (lambda p: ode_series(p, 1.5), TypeError, "T = 1.5"),
    "T true": (lambda p: sde_series(p, True), TypeError, "T = True"),
}


@pytest.mark.parametrize(("call", "error", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(problem("A"))


def test_a_third_derivative_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="derivative of order 3"):
        sgd_series(FiniteProblem([lambda t: t[0] ** 2.5], [1.0], [0.0]), 2)
