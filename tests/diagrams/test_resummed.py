"""Resummed diagrams: re-expanded in the step size, at finite steps, in the limit of many steps, and what is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, exact
from implicitreg.diagrams import Diagram, _values, enumerate_diagrams, resummed_test_loss, resummed_weights
from implicitreg.diagrams import test_loss_series as power_series
from implicitreg.diagrams.resummed import contribution
from implicitreg.ensembles import particles

from rational_engine import LAW_A, LAW_B, series  # isort: skip


def bowl(theta0: float = 0.2, J: float = 0.5) -> FiniteProblem:
    """Reference case D12: skewed pulls in a bowl that is not a parabola."""
    losses = [lambda t, x=x: t[0] ** 2 / 2 + J * t[0] ** 3 / 6 + x * t[0] for x in (-1, -1, 2)]
    return FiniteProblem(losses, [1 / 3] * 3, [theta0])


def quadratic(rng: np.random.Generator, d: int) -> FiniteProblem:
    """One Hessian, random pulls."""
    A = rng.normal(size=(d, d))
    H, pulls = torch.from_numpy(A @ A.T / d + 0.2 * np.eye(d)), torch.from_numpy(rng.normal(size=(4, d)))
    losses = [lambda t, s=s: t @ H @ t / 2 + s @ t for s in pulls]
    return FiniteProblem(losses, rng.dirichlet(np.ones(4) * 3), rng.normal(size=d))


# truncations at 0 to 4 edges, by another program (reference case D11)
AT_FINITE_STEPS = {
    ("A", 2, 0.1): [0, -0.04791666666666667, -0.017252604166666664, -0.019921597704475307, -0.019336897803203232],
    ("A", 3, 0.1): [0, -0.06892361111111112, -0.023871979890046288, -0.030059561179553086, -0.02817267710378578],
    ("A", 4, 0.05): [0, -0.04696090133101853, -0.03039184680773235, -0.03198652153434831, -0.03166963646492753],
    ("A", 3, 0.2): [0, -0.12638888888888888, 0.027208719135802473, -0.011964138231595804, 0.012360626989211303],
    ("B", 3, 0.1): [0.3091156550068587, 0.08519078413976208, 0.13393945624262332, 0.13293041608687511],
}
LAWS = {"A": LAW_A, "B": LAW_B}


@pytest.mark.parametrize("case", AT_FINITE_STEPS, ids=str)
def test_truncations_that_another_program_found(case):
    name, T, eta = case
    expected = AT_FINITE_STEPS[case]
    found = resummed_test_loss(LAWS[name].problem(), eta, T=T, max_edges=len(expected) - 1)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def by_definition(diagram: Diagram, problem: FiniteProblem, eta: float, T: int, N: int | None) -> float:
    """One diagram in one dimension: the sum over all maps of nodes to steps, K^(span − 1) on each edge."""
    d = diagram.edges
    K = 1 - eta * float(np.tensordot(problem.probabilities, problem.derivatives(2)[2], 1)[0, 0])
    total = 0.0
    for times in product(range(T), repeat=d):
        end = [*times, T]
        ordered = all(end[v] < end[parent] for v, parent in enumerate(diagram.parents))
        together = all(len({times[v] for v in part if v < d}) <= 1 for part in diagram.ties)
        if ordered and (together or N is not None):
            total += np.prod([K ** (end[parent] - end[v] - 1) for v, parent in enumerate(diagram.parents)])
    points = 1 if N is None else float(N) ** (len(set(diagram.parts[:d])) - d)
    tensors = _values.Tensors.of(problem, d)
    return (-eta) ** d * total * points * _values.value(diagram, tensors) / diagram.automorphisms


@pytest.mark.parametrize("N", [None, 3])
@pytest.mark.parametrize(
    "diagram", [D for d in range(5) for D in enumerate_diagrams(d, irreducible=True)][::3], ids=str
)
def test_one_diagram_is_the_sum_over_its_steps(diagram, N):
    problem = LAW_A.problem()
    expected = by_definition(diagram, problem, 0.3, 4, N)
    assert contribution(diagram, problem, 0.3, T=4, N=N) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("max_edges", [1, 2, 3, 4])
@pytest.mark.parametrize(("N", "T"), [(None, 2), (None, 3), (2, 3), (3, 2)])
@pytest.mark.parametrize("name", LAWS)
def test_truncations_agree_through_their_order(name, N, T, max_edges):
    problem, etas = LAWS[name].problem(), 0.002 / 2.0 ** np.arange(3)

    def residual(eta):
        run = exact.run(problem, eta, N=N or T, T=T, B=N or 1)
        return run.test_loss - resummed_test_loss(problem, eta, T=T, N=N, max_edges=max_edges)[-1]

    residuals = np.array([residual(eta) for eta in etas])
    if abs(residuals[-1]) > 1e-13:  # above rounding
        np.testing.assert_allclose(residuals[:-1] / residuals[1:], 2 ** (max_edges + 1), rtol=0.1)
    assert abs(residuals[0]) < 3000 * etas[0] ** (max_edges + 1)


def test_moments_cannot_be_resummed():
    # strict embeddings and raw moments on resummed edges: wrong at third order, though right without K
    problem = LAW_A.problem()
    tensors = _values.Tensors.of(problem, 3)
    H = float(np.tensordot(problem.probabilities, problem.derivatives(2)[2], 1)[0, 0])

    def mixture(eta, T=2):
        total = 0.0
        for D in [D for d in range(4) for D in enumerate_diagrams(d, irreducible=True)]:
            d = D.edges
            for times in product(range(T), repeat=d):
                end = [*times, T]
                ordered = all(end[v] < end[parent] for v, parent in enumerate(D.parents))
                steps = [{times[v] for v in part} for part in D.ties[:-1]]
                if ordered and all(len(s) == 1 for s in steps) and len(set().union(*steps)) == len(steps):
                    powers = np.prod([(1 - eta * H) ** (end[p] - end[v] - 1) for v, p in enumerate(D.parents)])
                    total += (-eta) ** d * powers * _values.value(D, tensors, moments=True) / D.automorphisms
        return total

    residuals = [exact.run(problem, eta, N=2, T=2).test_loss - mixture(eta) for eta in (0.004, 0.002, 0.001)]
    np.testing.assert_allclose(np.array(residuals[:-1]) / residuals[1:], 8, rtol=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_two_edges_are_exact_for_one_constant_hessian(seed):
    rng = np.random.default_rng([seed, 3])
    problem = quadratic(rng, 2)
    eta = rng.uniform(0.05, 0.5)
    for T, N in [(3, None), (4, None), (3, 2)]:
        found = resummed_test_loss(problem, eta, T=T, N=N, max_edges=2)[-1]
        assert found == pytest.approx(exact.run(problem, eta, N=N or T, T=T, B=N or 1).test_loss, rel=1e-12)
        theta = resummed_weights(problem, eta, T=T, N=N, max_edges=1)[-1]
        np.testing.assert_allclose(theta, exact.run(problem, eta, N=N or T, T=T, B=N or 1).theta, rtol=1e-11)


def test_a_matrix_step_size_on_a_quadratic():
    problem, metric = quadratic(np.random.default_rng(8), 2), np.array([[0.3, 0.1], [0.1, 0.2]])
    found = resummed_test_loss(problem, metric, T=4, max_edges=2)[-1]
    assert found == pytest.approx(exact.run(problem, metric, N=4, T=4).test_loss, rel=1e-12)
    theta = resummed_weights(problem, metric, T=4, max_edges=1)[-1]
    np.testing.assert_allclose(theta, exact.run(problem, metric, N=4, T=4).theta, rtol=1e-11)


@pytest.mark.parametrize("N", [2, 3])
def test_tied_roots_give_the_training_loss(N):
    problem = quadratic(np.random.default_rng(5), 2)
    tied = [
        contribution(D, problem, 0.3, T=3, N=N) for d in (1, 2) for D in enumerate_diagrams(d, True, root_tied=True)
    ]
    run = exact.run(problem, 0.3, N=N, T=3, B=N)
    assert sum(tied) == pytest.approx(run.train_loss - run.test_loss, rel=1e-12)


# --- Theorem 2 ----------------------------------------------------------------------------------------------------


def test_truncations_settle_while_the_power_series_explodes():
    # another program's truncations at 1, 2, 3 (and 4) edges (reference case D12)
    expected = {
        5: [0.0029627595485667, 0.043283518013108, 0.040566756610881, 0.041571908697156],
        20: [-0.015526204705281, 0.053220574087037, 0.043525920276027, 0.051801718246398],
        160: [-0.019424242104024, 0.053531265031265, 0.041464308073915],
    }
    for T, truncations in expected.items():
        found = resummed_test_loss(bowl(), 0.1, T=T, max_edges=len(truncations))[1:]
        np.testing.assert_allclose(found, truncations, rtol=1e-10)
    limit = resummed_test_loss(bowl(), 0.1, T=None)
    np.testing.assert_allclose(resummed_test_loss(bowl(), 0.1, T=2000), limit, rtol=1e-12)
    series_at = [np.polyval(power_series(bowl(), N=T, T=T)[::-1], 0.1) for T in (20, 160)]
    np.testing.assert_allclose(series_at, [-0.45892367416667, -172.01835886], rtol=1e-10)


def test_more_edges_are_not_always_closer():
    # by simulation, 10^6 runs: .053521 ± .000143 after 160 steps
    _, _, two, three = resummed_test_loss(bowl(), 0.1, T=160)
    assert abs(two - 0.053521) < 0.000143 < abs(three - 0.053521)


@pytest.mark.parametrize(("T", "by_another"), [(5, (0.041552, 0.000094)), (20, (0.051702, 0.000134))])
def test_the_truth_is_where_two_simulations_see_it(T, by_another):
    """Reference case D12: 10^6 runs of another program (mean, 95 %) and 2·10^5 of ours, with index sampling."""
    pulls = particles.Landscape(
        lambda theta, x, p: (theta[0] + 0.25 * theta[0] ** 2 + x[0],),
        [0.2],
        particles.atoms([-1.0, 2.0], [2 / 3, 1 / 3]),
    )
    runs = particles.sgd(pulls, 0.1, T, 200_000, seed=12, progress=False)
    found = runs.mean(lambda theta: theta[..., 0] ** 2 / 2 + theta[..., 0] ** 3 / 12)
    mean, half_width = by_another
    assert abs(found.mean[-1] - mean) < 4 * np.hypot(found.se[-1], half_width / 1.96)
    two, three, four = resummed_test_loss(bowl(), 0.1, T=T, max_edges=4)[2:]
    assert abs(four - found.mean[-1]) < abs(three - found.mean[-1])
    assert abs(two - found.mean[-1]) > 5 * found.se[-1]  # the size would have told two edges from the truth


def test_the_limit_in_closed_form():
    # pulls ± 1, curvature h: the stationary variance is eta/(h(2 − eta h)), and half of it times h is the loss
    h, eta = 1.7, 0.4
    problem = FiniteProblem([lambda t, s=s: h * t[0] ** 2 / 2 + s * t[0] for s in (-1, 1)], [0.5, 0.5], [3.0])
    assert resummed_test_loss(problem, eta, T=None, max_edges=2)[-1] == pytest.approx(
        eta / (2 - eta * h) / 2, rel=1e-12
    )
    np.testing.assert_allclose(resummed_weights(problem, eta, T=None, max_edges=1)[-1], [0], atol=1e-12)


@pytest.mark.parametrize("T", [1, 7, 400])
def test_closed_forms_with_geometric_sums(T):
    problem, eta = LAW_A.problem(), 0.2
    G, H, C, S, J = 1 / 2, 5 / 6, 7 / 2, -5 / 2, 1.0
    K = 1 - eta * H
    expected = {
        "(0-1)(01)": -(G**2) * (1 - K**T) / H,
        "(0-1-2)(02-12)": G**2 * H * ((1 - K**T) / H) ** 2 / 2,
        "(01-2)(02-12)": eta**2 * C * H * (1 - K ** (2 * T)) / (1 - K**2) / 2,
        "(012-3)(03-13-23)": -(eta**3) / 6 * S * J * (1 - K ** (3 * T)) / (1 - K**3),
    }
    for text, number in expected.items():
        assert contribution(Diagram.parse(text), problem, eta, T=T) == pytest.approx(number, rel=1e-11)
    gd = C * H * ((1 - K**T) / H) ** 2 / (2 * 5)
    assert contribution(Diagram.parse("(01-2)(02-12)"), problem, eta, T=T, N=5) == pytest.approx(gd, rel=1e-11)


def test_the_integral_of_remark_1_is_off_by_order_eta():
    # relative to the geometric sum: .069, .0337, .0166 at eta = .1, .05, .025 (h = 1, T = 1/eta)
    problem = FiniteProblem([lambda t, s=s: t[0] ** 2 / 2 + s * t[0] for s in (-1, 1)], [0.5, 0.5], [0.0])
    tied, off = Diagram.parse("(01-2)(02-12)"), []
    for eta in (0.1, 0.05, 0.025):
        T = round(1 / eta)
        integral = eta * (1 - np.exp(-2 * eta * T)) / 4
        off.append(contribution(tied, problem, eta, T=T) / integral - 1)
    assert off[0] > 0.05
    np.testing.assert_allclose(np.array(off[:-1]) / off[1:], 2, rtol=0.1)


def test_long_runs_take_few_multiplications():
    # ten thousand steps of the screw: one diagram, reference case D10
    from math import pi

    def screw(x):
        def loss(t):
            u, v, z = t
            tilted = u * torch.cos(z - pi / 4) + v * torch.sin(z - pi / 4)
            return (u**2 + v**2 + (u * torch.cos(z) + v * torch.sin(z)) ** 2) / 2 + x * tilted

        return loss

    problem = FiniteProblem([screw(-1.0), screw(1.0)], [0.5, 0.5], [0.0, 0.0, 0.0])
    climbs = {(0.1, 1000): 1.77933673469388, (0.05, 1500): 0.643579072532699, (0.02, 3000): 0.201561358655953,
              (0.1, 10): 0.0117183613675143, (0.1, 10**4): 17.8507653061225}  # fmt: skip
    for (eta, T), z in climbs.items():
        assert resummed_weights(problem, eta, T=T)[-1, 2] == pytest.approx(z, rel=1e-10)


# --- bad input --------------------------------------------------------------------------------------------------

SCREW_LIKE = FiniteProblem([lambda t: t[0] ** 2 / 2 + t[1] * t[0] + t[1] * 0.5], [1.0], [0.0, 0.0])
BAD = {
    "too large a step": (lambda: resummed_test_loss(bowl(), 2.0, T=5), ValueError, "eta = 2.0: expected less"),
    "too large a matrix": (lambda: resummed_test_loss(bowl(), [[3.0]], T=5), ValueError, r"eta = \[\[3.0\]\]"),
    "no step": (lambda: resummed_test_loss(bowl(), 0.0, T=5), ValueError, "eta = 0"),
    "negative": (lambda: resummed_weights(bowl(), -0.1, T=5), ValueError, "eta = -0.1"),
    "no limit on a slope": (lambda: resummed_test_loss(SCREW_LIKE, 0.1, T=None), ValueError, "positive definite"),
    "no limit of descent": (lambda: resummed_test_loss(bowl(), 0.1, T=None, N=3), ValueError, "T = None"),
    "five edges": (lambda: resummed_test_loss(bowl(), 0.1, T=5, max_edges=5), ValueError, "max_edges = 5"),
    "negative steps": (lambda: resummed_test_loss(bowl(), 0.1, T=-1), ValueError, "T = -1"),
    "no points": (lambda: resummed_test_loss(bowl(), 0.1, T=1, N=0), ValueError, "N = 0"),
    "no problem": (lambda: resummed_test_loss(None, 0.1, T=1), TypeError, "problem = None: expected a FiniteProblem"),
    "a link": (lambda: contribution(Diagram.parse("(0-1-2)(01-12)"), bowl(), 0.1, T=2), ValueError, "no links"),
    "a tied root": (lambda: contribution(Diagram.parse("(01)(01)"), bowl(), 0.1, T=2), ValueError, "expected N"),
    "no diagram": (lambda: contribution("(0-1)(01)", bowl(), 0.1, T=2), TypeError, "expected a Diagram"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_kinks_are_warned_of():
    kinked = FiniteProblem([lambda t: torch.relu(t[0]) ** 2, lambda t: t[0]], [0.5, 0.5], [1.0])
    with pytest.warns(UserWarning, match="have kinks"):
        resummed_test_loss(kinked, 0.1, T=2)


def test_no_steps():
    np.testing.assert_array_equal(resummed_test_loss(bowl(), 0.1, T=0), [bowl().loss([0.2])] * 4)


def test_rational_re_expansion_of_three_edges():
    """Interpolating the truncation as a polynomial in eta gives the exact coefficients through eta³."""
    problem = LAW_A.problem()
    nodes = (1 + np.cos(np.pi * (np.arange(12) + 0.5) / 12)) / 2 * 0.06
    values = [resummed_test_loss(problem, eta, T=4)[-1] for eta in nodes]
    fit = np.polynomial.Chebyshev.fit(nodes, values, 11, domain=[0, 0.06]).convert(kind=np.polynomial.Polynomial)
    expected = [float(x) for x in series(LAW_A, 4, 4, 1, 3)[0]]
    np.testing.assert_allclose(fit.coef[:4], expected, rtol=1e-6, atol=1e-6)
