"""Drift on one data set: closed forms against enumeration of all batches, printed digits, negative controls."""

import numpy as np
import pytest
import torch
from enumerated import data_set, descend, weights_of
from implicitreg import FiniteProblem
from implicitreg.checks import rate
from implicitreg.gap import one_data_set
from numpy.polynomial import chebyshev

ETAS = 0.08 / 2.0 ** np.arange(5)


@pytest.mark.parametrize(("sampler", "N", "K", "epochs"), [
    ("epochs", 4, 2, 1), ("epochs", 3, 3, 2), ("subsets", 4, 2, 1), ("subsets", 4, 2, 2),
    ("with_replacement", 3, 3, 1), ("with_replacement", 4, 2, 1),
])  # fmt: skip
def test_two_numbers_by_enumeration(sampler, N, K, epochs):
    W = weights_of(sampler, N, K, epochs)
    got = one_data_set.two_numbers(sampler, N=N, K=K, epochs=epochs)
    assert pytest.approx(W.var(axis=0).sum(), rel=1e-12) == got.D
    assert pytest.approx(W.sum(axis=1).var(axis=0).sum(), abs=1e-12) == got.A


@pytest.mark.parametrize(("sampler", "D", "A"), [
    ("gd", 0, 0), ("epochs", 2, 0), ("with_replacement", 22 / 9, 22 / 9), ("subsets", 2, 2),
])  # fmt: skip
def test_two_numbers_of_twelve_examples(sampler, D, A):
    got = one_data_set.two_numbers(sampler, N=12, K=4, epochs=2)
    assert (pytest.approx(D), pytest.approx(A)) == (got.D, got.A)


@pytest.mark.parametrize("sampler", ["epochs", "subsets", "with_replacement"])
@pytest.mark.parametrize("indices", [[0, 1, 2, 0], [0, 1, 2, 2]], ids=["0120", "0122"])
def test_drift_and_spread_on_every_data_set(problem_b, sampler, indices):
    data, small = data_set(problem_b, indices), ETAS / 4
    W = weights_of(sampler, 4, 2, 1)
    gd = np.full((1, 2, 4), 1 / 4)
    g = data.gradients(data.theta0[None])[0]
    S, numbers = np.cov(g.T), one_data_set.two_numbers(sampler, N=4, K=2)
    off, spread = [], []
    for eta in small:
        ends = one_data_set.paths(data, eta, W)[:, -1]
        d = one_data_set.paths(data, eta, gd)[0, -1] - ends.mean(axis=0)
        off.append(np.abs(d - one_data_set.data_drift(data, eta, K=2, sampler=sampler)).max())
        spread.append(np.abs(np.cov(ends.T, ddof=0) - eta**2 * numbers.spread * S).max())
    assert rate(small, off) == pytest.approx(3, abs=0.15)
    assert rate(small, spread) > 2.8


def test_sample_covariance_needs_N_minus_one(problem_b):
    """With 1/N the prediction is off by (N − 1)/N, and the remainder is of second order again."""
    data, small = data_set(problem_b, [0, 1, 2, 2]), ETAS / 4
    W, off = weights_of("epochs", 4, 2, 1), []
    for eta in small:
        d = one_data_set.paths(data, eta, np.full((1, 2, 4), 1 / 4))[0, -1] - one_data_set.paths(data, eta, W)[
            :, -1
        ].mean(axis=0)
        off.append(np.abs(d - 3 / 4 * one_data_set.data_drift(data, eta, K=2)).max())
    assert rate(small, off) < 2.3


def test_fixed_data_set_series(problem_a):
    """Coefficients of eta²: GD 77/16, without replacement 2429/384, with replacement 77/16."""
    data = FiniteProblem(problem_a.losses, [1 / 3, 1 / 3, 1 / 3], [0.5])
    got = one_data_set.data_drift(data, 1.0, K=3)
    assert got[0] == pytest.approx(77 / 16 - 2429 / 384, rel=1e-13)
    assert one_data_set.data_drift(data, 1.0, K=3, sampler="with_replacement")[0] == 0


def test_fixed_data_set_of_the_bilinear_net_has_its_printed_digits(roberts_problems):
    data = data_set(roberts_problems["R4"], [0, 1, 2, 0])
    sgd = one_data_set.paths(data, 0.05, weights_of("epochs", 4, 2, 1))[:, -1].mean(axis=0)
    gd = one_data_set.paths(data, 0.05, np.full((1, 2, 4), 1 / 4))[0, -1]
    np.testing.assert_allclose(sgd, [2928279551 / 4423680000, 313759609 / 552960000], atol=1e-14)
    np.testing.assert_allclose(gd, [47101716137 / 70778880000, 5050183813 / 8847360000], atol=1e-14)
    modified = one_data_set.data_modified_gd(data, 0.05, K=2)[-1]
    np.testing.assert_allclose(modified, [0.6625198820553138, 0.5680111237946661], atol=1e-14)
    drift = 0.05**2 * 2 / 4 / 4 * np.array([1601 / 144, 2743 / 256])
    np.testing.assert_allclose(one_data_set.data_drift(data, 0.05, K=2), drift, rtol=1e-13)


@pytest.mark.parametrize("K", [2, 4])
def test_modified_gd_follows_the_mean_over_shuffles_of_every_data_set(problem_b, K):
    small = ETAS / 8
    for indices in ([0, 1, 2, 0], [1, 1, 2, 2]):
        data = data_set(problem_b, indices)
        W = weights_of("epochs", 4, K, 1)
        off = [
            np.abs(
                one_data_set.data_modified_gd(data, e, K=K)[-1] - one_data_set.paths(data, e, W)[:, -1].mean(axis=0)
            ).max()
            for e in small
        ]
        assert rate(small, off) == pytest.approx(3, abs=0.15)


def test_weighted_paths_are_the_plain_loop(problem_b):
    batches = [[0], [1, 2], [2, 2, 0]]
    W = np.array([[np.bincount(b, minlength=3) / len(b) for b in batches]])
    got = one_data_set.paths(problem_b, 0.1, W, momentum=0.7)
    assert got.shape == (1, 4, 2)
    np.testing.assert_allclose(got[0, -1], descend(problem_b, [0.1] * 3, batches, 0.7), atol=1e-15)


def test_several_times_are_several_runs(problem_b):
    data = data_set(problem_b, [0, 1, 2])
    rows = one_data_set.fixed_horizon(data, [0.2, 0.5], v=0.3, a=0.7)
    for k, tau in enumerate((0.2, 0.5)):
        one = one_data_set.fixed_horizon(data, tau, v=0.3, a=0.7)
        for field in ("theta", "m", "C"):
            np.testing.assert_allclose(getattr(rows, field)[k], getattr(one, field), atol=1e-9)


POWERS = [[1.0, 0.5, 0.3, 0.25], [-1.2, 0.8, -0.4, 0.3]]


@pytest.fixture(scope="module")
def quartics():
    losses = [lambda t, c=c: sum(a * t[0] ** (k + 1) for k, a in enumerate(c)) for c in POWERS]
    return FiniteProblem(losses, [0.5, 0.5], [0.9])


@pytest.mark.parametrize(("tau", "a", "m"), [
    (1.6, 0, -0.081792063160), (1.6, 1, -0.157413991978), (1.6, 2, -0.233035920796),
    (6.4, 0, 0.057201099153), (6.4, 1, -0.037875169164), (6.4, 2, -0.132951437480),
])  # fmt: skip
def test_fixed_horizon_has_its_printed_digits(quartics, tau, a, m):
    assert one_data_set.fixed_horizon(quartics, tau, v=0.5, a=a).m[0] == pytest.approx(m, abs=1e-9)


def exact_means(eta, epochs):
    """Exact mean ends for b = 1 and two examples, by backward recursion of θ → E[end | θ] in Chebyshev polynomials."""
    step = [lambda x, c=c: x - eta * sum((k + 1) * a * x**k for k, a in enumerate(c)) for c in POWERS]
    low, high = -0.7, 1.0
    nodes = chebyshev.chebpts1(60)
    x = (high - low) / 2 * (nodes + 1) + low
    plans = {"epochs": [(0, 1), (1, 0)], "with": [(0, 0), (0, 1), (1, 0), (1, 1)], "twice": [(0, 0), (1, 1)]}
    ends = {}
    for name, orders in plans.items():
        values = x
        for _ in range(epochs):
            c = chebyshev.chebfit(nodes, values, 59)
            after = [step[second](step[first](x)) for first, second in orders]
            values = np.mean([chebyshev.chebval((y - low) / (high - low) * 2 - 1, c) for y in after], axis=0)
        ends[name] = chebyshev.chebval((0.9 - low) / (high - low) * 2 - 1, chebyshev.chebfit(nodes, values, 59))
    theta = 0.9
    for _ in range(2 * epochs):
        theta = (step[0](theta) + step[1](theta)) / 2
    return ends, theta


def test_exact_means_have_their_printed_digits():
    ends, gd = exact_means(0.02, 40)
    printed = [0.151772216779, 0.150330731187, 0.148851016942, 0.153469015132]
    np.testing.assert_allclose([ends["epochs"], ends["with"], ends["twice"], gd], printed, atol=2e-12)


@pytest.mark.parametrize(("plan", "a"), [("epochs", 0.0), ("with", 1.0), ("twice", 2.0)])
def test_fixed_horizon_is_the_limit_of_exact_means(quartics, plan, a):
    """(E theta_T − theta_GD)/eta at eta and eta/2, extrapolated: the error is of second order."""
    tau, m = 1.6, one_data_set.fixed_horizon(quartics, 1.6, v=0.5, a=a).m[0]
    shift = []
    for eta in (0.02, 0.01):
        ends, gd = exact_means(eta, round(tau / eta / 2))
        shift.append((ends[plan] - gd) / eta)
    assert abs(shift[1] - m) < 0.6 * abs(shift[0] - m)
    assert 2 * shift[1] - shift[0] == pytest.approx(m, rel=2e-3)


def test_fixed_horizon_in_two_dimensions_against_small_steps(problem_b):
    """Enumerated one-step recursions: after tau = eta T with T = 6 of two examples, compare with the ODE by scaling."""
    data = data_set(problem_b, [0, 1])
    small, off = [0.02, 0.01], []
    for eta in small:
        W = weights_of("with_replacement", 2, 2, 4)
        shift = (
            one_data_set.paths(data, eta, W)[:, -1].mean(axis=0)
            - one_data_set.paths(data, eta, np.full((1, 8, 2), 0.5))[0, -1]
        )
        discrete = -(eta**3) * 8 * 7 / 4 * 0.5 * third_derivative(data)
        off.append(np.abs(shift - discrete).max())
        assert np.abs(shift - discrete).max() < 0.3 * np.abs(shift).max()
        horizon = one_data_set.fixed_horizon(data, 8 * eta, v=0.5, a=1.0)
        assert np.abs(eta * horizon.m - shift).max() < 0.4 * np.abs(shift).max()
    assert off[0] / off[1] == pytest.approx(16, rel=0.35)


def third_derivative(data, step=1e-3):
    """The gradient of tr(H S) with S fixed, by differences of gradients."""
    g = data.gradients(data.theta0[None])[0]
    S, eye = np.cov(g.T), step * np.eye(2)
    mean = lambda t: data.gradients(t[None])[0].mean(axis=0)  # noqa: E731
    hessian = lambda t: np.array([(mean(t + e) - mean(t - e)) / (2 * step) for e in eye])  # noqa: E731
    return np.array([np.sum(S * (hessian(data.theta0 + e) - hessian(data.theta0 - e))) / (2 * step) for e in eye])


TOY = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])

LAW = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.4, 0.6], [1.0])

ONE = FiniteProblem([lambda t: t[0] ** 2 / 2], [1.0], [1.0])

BAD = {
    "sampler": (ValueError, "sampler", lambda: one_data_set.two_numbers("sgd", N=2, K=2)),
    "data-unequal": (ValueError, "probabilities", lambda: one_data_set.data_drift(LAW, 0.1, K=2)),
    "data-one-example": (ValueError, "one example", lambda: one_data_set.data_modified_gd(ONE, 0.1, K=1)),
    "data-eta-matrix": (TypeError, "eta", lambda: one_data_set.data_drift(TOY, [[0.1]], K=2)),
    "data-K": (ValueError, "K", lambda: one_data_set.data_modified_gd(TOY, 0.1, K=3)),
    "paths-shape": (ValueError, "weights has shape", lambda: one_data_set.paths(TOY, 0.1, [[0.5, 0.5]])),
    "paths-nan": (ValueError, "weights", lambda: one_data_set.paths(TOY, 0.1, [[[0.5, np.nan]]])),
    "horizon-tau": (ValueError, "tau", lambda: one_data_set.fixed_horizon(TOY, 0.0, v=0.5, a=1.0)),
    "horizon-times": (ValueError, "increasing", lambda: one_data_set.fixed_horizon(TOY, [1.0, 0.5], v=0.5, a=1.0)),
    "horizon-v": (ValueError, "v = -1", lambda: one_data_set.fixed_horizon(TOY, 1.0, v=-1, a=1.0)),
    "horizon-a": (ValueError, "a = -1", lambda: one_data_set.fixed_horizon(TOY, 1.0, v=0.5, a=-1)),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    error, words, call = BAD[case]
    with pytest.raises(error, match=words):
        call()


def in_units(c, unit):
    """Losses in units of c, of weights in units of ``unit``."""
    losses = [lambda t, k=k: c * ((t[0] / unit - k) ** 2 / 2 + torch.sin(k * t[0] / unit)) for k in (1, 3)]
    return FiniteProblem(losses, [0.5, 0.5], [0.5 * unit])


@pytest.mark.parametrize(("c", "unit"), [(1e-12, 1e3), (1e12, 1e-9)])
def test_fixed_horizon_has_no_units(c, unit):
    """In these units the time is of the order of unit²/c, m of c/unit and C of c."""
    one = one_data_set.fixed_horizon(in_units(1.0, 1.0), 0.3, v=0.5, a=0.5)
    other = one_data_set.fixed_horizon(in_units(c, unit), 0.3 * unit**2 / c, v=0.5, a=0.5)
    for found, expected in ((other.theta / unit, one.theta), (other.m * unit / c, one.m), (other.C / c, one.C)):
        np.testing.assert_allclose(found, expected, rtol=1e-8)
