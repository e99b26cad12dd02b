"""The chapter on the drift: each claim by an independent method, and each check with its negative control."""

import itertools
import math

import nbformat
import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, exact, gap, records, runbook
from implicitreg.checks import CheckFailed, check, rate
from implicitreg.experiments import drift_slope, tracking
from implicitreg.gap import one_data_set, onestep, penalties, training_sets

ETAS = 0.02 / 2.0 ** np.arange(5)

# A two-weight network, with gradients and Hessians by hand.
XY, P, START = [(1, 1), (2, -1), (-1, 2)], np.array([1 / 2, 1 / 3, 1 / 6]), np.array([3 / 4, 2 / 3])


def loss(i, t):
    x, y = XY[i]
    return (x * t[0] * t[1] - y) ** 2 / 2


def grad(i, t):
    x, y = XY[i]
    return (x * t[0] * t[1] - y) * x * np.array([t[1], t[0]])


def hessian(i, t):
    x, y = XY[i]
    s = x * (2 * x * t[0] * t[1] - y)
    return np.array([[x * x * t[1] ** 2, s], [s, x * x * t[0] ** 2]])


NET = FiniteProblem([lambda t, i=i: loss(i, t) for i in range(3)], P, START)


def descend(eta, plan, momentum=0.0, penalty=lambda t: 0.0, gradient=grad, start=START):
    """A plain loop; `plan` lists the examples of each batch."""
    theta, velocity = np.array(start, dtype=float), 0.0
    for batch in plan:
        g = np.mean([gradient(i, theta) for i in batch], axis=0) + penalty(theta)
        velocity = momentum * velocity + g
        theta = theta - eta * velocity
    return theta


def over_data(N, end):
    """The mean of end(data) over all training sets."""
    sets = itertools.product(range(3), repeat=N)
    return sum(math.prod(P[list(data)]) * np.asarray(end(data)) for data in sets)


def grad_trace(t, law=P):
    g, h = np.array([grad(i, t) for i in range(3)]), np.array([hessian(i, t) for i in range(3)])
    return 2 * np.einsum("i,ijk,ik->j", law, h - np.tensordot(law, h, 1), g - law @ g)


def drifted(eta, N, K, epochs=1, momentum=0.0):
    """<GD − SGD> by brute force; K disjoint batches in the order of drawing, repeated in each epoch."""
    n = N // K

    def end(data):
        batches = [data[k * n : (k + 1) * n] for k in range(K)] * epochs
        return descend(eta, [data] * len(batches), momentum) - descend(eta, batches, momentum)

    return over_data(N, end)


def order(values):
    return rate(ETAS, np.linalg.norm(np.array(values), axis=-1))


def off(prediction, **options):
    """The order of the remainder of a predicted drift, over four octaves."""
    return {"measured": order([drifted(e, **options) - prediction(e) for e in ETAS]), "predicted": 3}


def predicted(factor=1.0, **options):
    return lambda e: factor * training_sets.drift(NET, e, **options)


# --- one data set, two steps ------------------------------------------------------------------------------------

HALVES = [(0, 1), (0, 2)]


def batch(f, members):
    return np.mean([f(i, START) for i in members], axis=0)


def expansion(sign=1.0):
    (gB, gC), hC = (batch(grad, b) for b in HALVES), batch(hessian, HALVES[1])
    ends = [descend(e, HALVES) - START + e * (gB + gC) - sign * e**2 * hC @ gB for e in ETAS]
    return {"measured": order(ends), "predicted": 3}


def halves(sign=1.0):
    """The gradient of |gB − gC|² by differences, in place of its formula."""
    (gB, gC), (hB, hC) = (batch(grad, b) for b in HALVES), (batch(hessian, b) for b in HALVES)

    def square(t):
        return np.sum((grad(1, t) - grad(2, t)) ** 2) / 4  # example 0 is in both halves

    slope = np.array([(square(START + s) - square(START - s)) / 2e-5 for s in 1e-5 * np.eye(2)])
    dg = -1 / 8 * (slope + sign * 4 * (hB @ gC - hC @ gB))
    ends = [descend(e, [sum(HALVES, ())] * 2) - descend(e, HALVES) + e**2 * dg for e in ETAS]
    return {"measured": order(ends), "predicted": 3}


def antisymmetric(factor=1.0):
    """The power of N in what the formula leaves of N times the mean square of the antisymmetric term over eta².

    All pairs of batches of n of the three kinds, with multinomial chances; in two dimensions the rest is not zero.
    """
    g, h = np.array([grad(i, START) for i in range(3)]), np.array([hessian(i, START) for i in range(3)])
    G, H = P @ g, np.tensordot(P, h, 1)
    limit = sum(p * np.sum((H @ (a - G) - (b - H) @ G) ** 2) for p, a, b in zip(P, g, h, strict=True))

    def scaled(n):
        batches = []
        for members in itertools.combinations_with_replacement(range(3), n):
            c = np.bincount(members, minlength=3)
            chance = math.factorial(n) / math.prod(map(math.factorial, c)) * math.prod(P**c)
            batches.append((chance, c @ g / n, np.tensordot(c / n, h, 1)))
        pairs = itertools.product(batches, repeat=2)
        return 2 * n * sum(v * w * np.sum((b @ c - d @ a) ** 2) / 4 for (v, a, b), (w, c, d) in pairs)

    sizes = 2 ** np.arange(5)
    return {"measured": rate(sizes, [abs(scaled(n) - factor * limit) for n in sizes]), "predicted": -1}


def test_two_steps_have_their_expansion():
    check("roberts-11", atol=0.15, **expansion())


def test_halves_have_their_difference():
    check("roberts-12", atol=0.15, **halves())


def test_antisymmetric_term_by_enumeration():
    check("ours-antisymmetric-term", atol=0.15, **antisymmetric())


# --- over data sets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"N": 4, "K": 2}, {"N": 3, "K": 3}, {"N": 2, "K": 2, "epochs": 2}], ids=str)
def test_drift_by_brute_force(options):
    claim = "roberts-13" if options == {"N": 4, "K": 2} else "roberts-remark-epoch"
    check(claim, atol=0.15, **off(predicted(**options), **options))


def direction(of=None):
    """Directions of the exact mean of GD minus SGD, of one and of two epochs, and of the derivative of tr Sigma."""
    ends = np.array([drifted(ETAS[-1], N=2, K=2, epochs=E) for E in (1, 2)])
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    return {"measured": unit(ends), "predicted": np.tile(unit(grad_trace(START) if of is None else of), (2, 1))}


def test_drift_points_along_the_derivative():
    check("roberts-1", atol=0.004, **direction())


def fresh(gd=False):
    """The order of the mean of one epoch of SGD (or of GD) minus the path on the population's loss; by brute force."""
    ends = []
    for e in ETAS:
        theta = np.array(START)
        for _ in range(3):
            theta = theta - e * sum(p * grad(i, theta) for i, p in enumerate(P))
        ends.append(over_data(3, lambda d, e=e: descend(e, [d] * 3 if gd else [(i,) for i in d])) - theta)
    return {"measured": order(ends), "predicted": 3}


def test_sgd_follows_the_population_and_gd_does_not():
    check("roberts-key-result", atol=0.15, **fresh())
    biased = over_data(3, lambda d: descend(ETAS[-1], [d] * 3)) - over_data(
        3, lambda d: descend(ETAS[-1], [(i,) for i in d])
    )
    assert biased @ grad_trace(START) > 0  # GD is the one that lags, uphill on the trace


METRIC = np.array([[1.0, 0.3], [0.3, 0.5]])


def preconditioned(claimed=METRIC):
    """GD minus SGD with theta <- theta − eta M g, less eta²/8 times M times the derivative of tr(claimed Sigma)."""
    gradient = lambda i, t: METRIC @ grad(i, t)  # noqa: E731
    g = np.array([grad(i, START) for i in range(3)])
    h = np.array([hessian(i, START) for i in range(3)])
    c = g - P @ g
    slope = 2 * np.einsum("i,ijk,kl,il->j", P, h - np.tensordot(P, h, 1), claimed, c)
    ends = [
        over_data(4, lambda d, e=e: descend(e, [d, d], gradient=gradient)
                  - descend(e, [d[:2], d[2:]], gradient=gradient)) - e**2 / 8 * METRIC @ slope
        for e in ETAS
    ]  # fmt: skip
    return {"measured": order(ends), "predicted": 3}


def test_constant_preconditioner_by_brute_force():
    check("roberts-remark-momentum", atol=0.15, **preconditioned())
    with pytest.raises(CheckFailed):  # P in the step, and forgotten in the covariance
        check("roberts-remark-momentum", atol=0.15, **preconditioned(np.eye(2)))


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_momentum_by_brute_force(beta):
    options = {"N": 3, "K": 3, "momentum": beta}
    a = [1, 1 + beta]
    by_hand = lambda e: e**2 * (a[0] * a[0] + 2 * a[0] * a[1]) / 6 * grad_trace(START)  # noqa: E731
    check("roberts-remark-momentum", atol=0.15, **off(by_hand, **options))
    check("roberts-remark-momentum", atol=1e-15, measured=predicted(**options)(0.02), predicted=by_hand(0.02))


def replaced(claimed=0.0):
    """GD minus SGD with replacement on two points, minus a share of the drift without replacement."""
    ends, plans = [], list(itertools.product(range(2), repeat=2))
    for e in ETAS:
        sgd = over_data(2, lambda d, e=e: np.mean([descend(e, [(d[a],), (d[b],)]) for a, b in plans], axis=0))
        ends.append(over_data(2, lambda d, e=e: descend(e, [d, d])) - sgd - claimed * predicted(N=2, K=2)(e))
    return {"measured": order(ends), "predicted": 3}


def test_with_replacement_does_not_drift():
    check("ours-with-replacement", atol=0.15, **replaced())
    plans = itertools.product(itertools.product(range(3), repeat=2), repeat=3)
    assert np.mean([training_sets.pair_sum([1] * 3, plan, 3) for plan in plans]) == pytest.approx(0, abs=1e-14)


def additive(curvatures=(1.0, 1.0)):
    """GD and SGD by brute force for losses h (theta − x)²/2."""
    gradient = lambda i, t: curvatures[i] * (t - (1, -2)[i])  # noqa: E731
    ends = np.zeros(2)
    for data in itertools.product(range(2), repeat=3):
        weight = math.prod((0.4, 0.6)[i] for i in data)
        runs = [descend(0.3, plan, gradient=gradient, start=[0.7])[0] for plan in ([data] * 3, [(i,) for i in data])]
        ends += weight * np.array(runs)
    return {"measured": ends[0], "predicted": ends[1]}


def test_constant_covariance_does_not_drift():
    check("roberts-homogeneous-covariance", atol=1e-12, **additive())


def overlapping(sign=1.0):
    """Drifts of disjoint, fresh-with-replacement and repeated batches, in units of the first; by brute force."""
    e, plans = ETAS[-1], list(itertools.product(range(2), repeat=2))
    end = lambda d, a, b: descend(e, [(d[a],), (d[b],)])  # noqa: E731
    ends = over_data(
        2, lambda d: [descend(e, [d, d]), end(d, 0, 1), np.mean([end(d, *p) for p in plans], 0), end(d, 0, 0)]
    )
    drifts = (ends[0] - ends[1:])[:, 0]
    return {"measured": drifts / drifts[0], "predicted": [1, 0, -sign]}


def test_overlaps_decide():
    check("roberts-abstract-drift", atol=0.02, **overlapping())


def newton(second=1.0, first=1.0, other=False):
    """n times the bias of a batch-estimated Newton step, by enumerating batches of 200 and 400 of two kinds.

    `other`: the preconditioner comes from an independent batch of the same size.
    """
    g, h, p, ridge = np.array([1.0, 0.4]), np.array([1.5, 3.0]), 0.3, 0.2
    w = np.array([p, 1 - p])
    G, H = w @ g, w @ h
    M, dg, dh = 1 / (H + ridge), g - G, h - H

    def scaled(n):
        k = np.arange(n + 1)
        chance = [math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in k]
        gb, hb = (v[1] + k / n * (v[0] - v[1]) for v in (g, h))
        mean = (chance @ (1 / (hb + ridge))) * (chance @ gb) if other else chance @ (gb / (hb + ridge))
        return n * (mean - M * G)

    limit = -first * M * w @ (dh * M * dg) + second * M * w @ (dh * M * dh) * M * G
    return {"measured": 2 * scaled(400) - scaled(200), "predicted": limit}


def test_newton_on_a_batch_is_biased():
    check("ours-batch-newton", rtol=1e-3, **newton())


def test_newton_on_another_batch_keeps_the_bias_of_the_inverse():
    check("ours-newton-other-batch", rtol=1e-3, **newton(first=0.0, other=True))


# --- the modified loss ------------------------------------------------------------------------------------------


def modified(c=0.25):
    """GD on l + c <delta epsilon> with the penalty's gradient by hand, against SGD; N = 2, K = 2."""
    ends = []
    for e in ETAS:
        push = lambda t, e=e: c * e / 2 * grad_trace(t)  # noqa: E731
        ends.append(
            over_data(2, lambda d, e=e, push=push: descend(e, [d, d], penalty=push) - descend(e, [d[:1], d[1:]]))
        )
    return {"measured": order(ends), "predicted": 3}


def test_modified_loss_by_brute_force():
    check("roberts-modified-loss", atol=0.15, **modified())
    by_hand = over_data(2, lambda d: descend(0.1, [d, d], penalty=lambda t: 0.25 * 0.1 / 2 * grad_trace(t)))
    got = training_sets.modified_gd(NET, 0.1, N=2, K=2).theta
    check("roberts-modified-loss", atol=1e-14, measured=got, predicted=by_hand)


def gap_difference(sign=1.0):
    """(gap of GD − gap of SGD)/eta² at the smallest eta by brute force, and −kappa3/4; N = 2, K = 2."""
    e = ETAS[-1]

    def gap(data, plan):
        t = descend(e, plan)
        return sum(p * loss(i, t) for i, p in enumerate(P)) - np.mean([loss(i, t) for i in data])

    measured = over_data(2, lambda d: gap(d, [d, d]) - gap(d, [d[:1], d[1:]])) / e**2
    g, h = np.array([grad(i, START) for i in range(3)]), np.array([hessian(i, START) for i in range(3)])
    g, h = g - P @ g, h - np.tensordot(P, h, 1)
    return {"measured": measured, "predicted": -sign * np.einsum("i,ij,ijk,ik->", P, g, h, g) / 4}


def test_gap_difference_has_the_sign_of_kappa3():
    check("roberts-abstract-regularizes", rtol=0.05, **gap_difference())
    after = onestep.gap_after(NET, 1.0, N=2, K=2)
    check(
        "roberts-abstract-regularizes",
        rtol=1e-9,
        measured=after.gd - after.sgd,
        predicted=gap_difference()["predicted"],
    )


# --- one data set -----------------------------------------------------------------------------------------------

DATA = (0, 1, 2, 0)
SET = FiniteProblem([NET.losses[i] for i in DATA], [1 / 4] * 4, START)
SHUFFLES = [[o[:2], o[2:]] for o in itertools.permutations(DATA)]
SUBSETS = list(itertools.product(itertools.combinations(DATA, 2), repeat=2))
DRAWS = list(itertools.product(itertools.product(DATA, repeat=2), repeat=2))
PLANS = {"epochs": SHUFFLES, "subsets": SUBSETS, "with_replacement": DRAWS}


def three_penalties(ddof=1):
    """Smith − Barrett–Dherin over all shuffles, and tr S by its pairs."""
    g = np.array([grad(i, START) for i in DATA])
    of = lambda b: np.mean([grad(i, START) for i in b], axis=0)  # noqa: E731
    smith = np.mean([penalties.smith_penalty([of(b) for b in plan], 0.1) for plan in SHUFFLES])
    trace = sum(np.sum((a - b) ** 2) for a, b in itertools.combinations(g, 2)) / (4 * (4 - ddof))
    return {
        "measured": smith - penalties.barrett_dherin_penalty(g, 0.1),
        "predicted": 0.1 / 4 * (1 / 2 - 1 / 4) * trace,
    }


def test_penalties_differ_by_the_trace():
    check("ours-smith-minus-barrett", atol=1e-14, **three_penalties())
    g = [grad(i, START) for i in DATA]
    check(
        "ours-smith-minus-barrett",
        atol=1e-14,
        measured=penalties.roberts_penalty(g, 0.1, batch_size=2),
        predicted=three_penalties()["predicted"],
    )


def on_every_data_set(ddof=1):
    """The worst order over several data sets of GD on the sample penalty against all shuffles."""
    law = lambda d: np.bincount(d, minlength=3) / 4  # noqa: E731
    orders = []
    for data in [(0, 1, 2, 0), (1, 1, 2, 2), (0, 0, 0, 1)]:
        ends = []
        for e in ETAS:
            push = lambda t, e=e, data=data: e / 4 / 4 * 4 / (4 - ddof) * grad_trace(t, law(data))  # noqa: E731
            sgd = np.mean([descend(e, [o[:2], o[2:]]) for o in itertools.permutations(data)], axis=0)
            ends.append(descend(e, [data] * 2, penalty=push) - sgd)
        orders.append(order(ends))
    return {"measured": orders, "predicted": [3, 3, 3]}


def test_modified_gd_on_every_data_set():
    check("roberts-remark-larger-batches", atol=0.15, **on_every_data_set())
    push = lambda t: 0.1 / 4 / 4 * 4 / 3 * grad_trace(t, np.array([2, 1, 1]) / 4)  # noqa: E731
    got = one_data_set.data_modified_gd(SET, 0.1, K=2)[-1]
    check("roberts-remark-larger-batches", atol=1e-14, measured=got, predicted=descend(0.1, [DATA] * 2, penalty=push))


def trained_start(law=None):
    """The order of GD − shuffles − drift from a point that GD has reached on the same data; N = 4, K = 2."""
    start = descend(0.05, [DATA] * 30)
    slope = 4 / 3 * grad_trace(start, np.array([2, 1, 1]) / 4) if law is None else grad_trace(start, law)
    ends = [
        descend(e, [DATA] * 2, start=start)
        - np.mean([descend(e, plan, start=start) for plan in SHUFFLES], axis=0) - e**2 / 8 * slope
        for e in ETAS
    ]  # fmt: skip
    return {"measured": order(ends), "predicted": 3}


def test_drift_from_a_start_trained_on_the_data():
    check("roberts-remark-not-falsified", atol=0.15, **trained_start())


def sampled(sampler, numbers):
    """Order of the drift's remainder, and covariance / eta² in units of S, given (D, A)."""
    S = np.cov(np.array([grad(i, START) for i in DATA]).T)
    trace_slope = 4 / 3 * grad_trace(START, np.array([2, 1, 1]) / 4)
    off = []
    for e in ETAS:
        ends = np.array([descend(e, plan) for plan in PLANS[sampler]])
        off.append(descend(e, [DATA] * 2) - ends.mean(axis=0) - e**2 / 4 * (numbers[0] - numbers[1]) * trace_slope)
    spread = np.trace(np.cov(ends.T, ddof=0)) / e**2 / np.trace(S)
    return {"measured": order(off), "predicted": 3}, {"measured": spread, "predicted": numbers[1]}


@pytest.mark.parametrize("sampler", PLANS)
def test_samplers_have_their_drift_and_spread(sampler):
    numbers = one_data_set.two_numbers(sampler, N=4, K=2)
    drift, spread = sampled(sampler, (numbers.D, numbers.A))
    check("ours-sampler-drift", atol=0.15, **drift)
    check("ours-sampler-spread", atol=0.02, **spread)


# --- a fixed training time --------------------------------------------------------------------------------------

SLOPES = [lambda x: 1 + x + 0.9 * x**2 + x**3, lambda x: -1.2 + 1.6 * x - 1.2 * x**2 + 1.2 * x**3]
PAIR = FiniteProblem(
    [lambda t: t[0] + t[0] ** 2 / 2 + 0.3 * t[0] ** 3 + t[0] ** 4 / 4,
     lambda t: -1.2 * t[0] + 0.8 * t[0] ** 2 - 0.4 * t[0] ** 3 + 0.3 * t[0] ** 4], [0.5, 0.5], [0.9])  # fmt: skip


def shifted(a, used=None, tau=0.64):
    """(mean − GD)/eta by listing all orders of 10 and 20 steps, extrapolated to eta = 0; against m for `used`."""
    epoch = {0.0: [(0, 1), (1, 0)], 1.0: list(itertools.product((0, 1), repeat=2)), 2.0: [(0, 0), (1, 1)]}[a]
    shifts = []
    for epochs in (5, 10):
        eta = tau / (2 * epochs)
        x, gd = np.array([0.9]), 0.9
        for _ in range(epochs):  # every path, as many as len(epoch)^epochs
            ends = [x - eta * SLOPES[i](x) for i, _ in epoch]
            x = np.concatenate([y - eta * SLOPES[j](y) for y, (_, j) in zip(ends, epoch, strict=True)])
            for _ in range(2):
                gd -= eta * (SLOPES[0](gd) + SLOPES[1](gd)) / 2
        shifts.append((x.mean() - gd) / eta)
    m = one_data_set.fixed_horizon(PAIR, tau, v=0.5, a=a if used is None else used).m[0]
    return {"measured": 2 * shifts[1] - shifts[0], "predicted": m}


@pytest.mark.parametrize("a", [0.0, 1.0, 2.0])
def test_fixed_horizon_against_exact_means(a):
    check("ours-fixed-horizon", atol=0.004, **shifted(a))


# --- digits -----------------------------------------------------------------------------------------------------


def recorded_drift(eta=0):
    """Slopes of the record, at the smallest learning rate or at another one."""
    results = records.load("drift_slope")["results"].values()
    return {
        "measured": [r["plain_slope"][eta] for r in results], "predicted": 1.0,
        "se": [r["plain_slope_se"][eta] for r in results], "sigmas": 4,
    }  # fmt: skip


def test_record_of_the_drift():
    check("ours-drift-on-digits", **recorded_drift())
    cell = {"K": 2, "n": 4, "data_sets": 1000, "etas": [0.005], "steps": 0}
    live = drift_slope.measure("live", drift_slope.SETTINGS | {"cells": {"live": cell}, "chunk": 50})
    check(
        "ours-drift-on-digits",
        measured=live["plain_slope"],
        se=live["plain_slope_se"],
        predicted=[1.0],
        sigmas=4,
        wrong=[0.5],
    )


def recorded_tracking(sampler="without"):
    """The slope of a sampler's mean on the modified path at the end of the record."""
    series = records.load("tracking")["results"]["eta=0.02"]["series"][sampler]
    return {"measured": series["slope"][-1], "predicted": 1.0, "atol": 0.05}


def test_record_of_the_tracking():
    check("ours-tracking-on-digits", **recorded_tracking())
    settings = tracking.SETTINGS | {"examples": 32, "batch": 8, "runs": 32, "groups": 8, "epochs": {"eta=0.02": [3]}}
    live = tracking.measure("eta=0.02", settings, "cpu")["series"]["without"]
    check("ours-tracking-on-digits", measured=live["slope"][-1], predicted=1.0, atol=0.2, wrong=0.5)


CONTROLS = {
    # the sign of the second order
    "roberts-11": lambda: expansion(sign=-1.0),
    # the sign of the antisymmetric term
    "roberts-12": lambda: halves(sign=-1.0),
    # batches of N in place of N/2
    "ours-antisymmetric-term": lambda: antisymmetric(0.5),
    # the direction of the gradient
    "roberts-1": lambda: direction(of=P @ np.array([grad(i, START) for i in range(3)])),
    # gradient descent in the place of SGD
    "roberts-key-result": lambda: fresh(gd=True),
    # the covariance of the law, where that of the data belongs
    "roberts-remark-not-falsified": lambda: trained_start(law=P),
    # its own batch
    "ours-newton-other-batch": lambda: newton(first=0.0),
    # the size of a batch in place of N
    "roberts-13": lambda: off(predicted(factor=2.0, N=4, K=2), N=4, K=2),
    # the coefficient of two batches for three
    "roberts-remark-epoch": lambda: off(predicted(factor=1 / 3, N=3, K=3), N=3, K=3),
    # the drift of disjoint batches
    "ours-with-replacement": lambda: replaced(claimed=1.0),
    # curvatures that differ: the covariance varies
    "roberts-homogeneous-covariance": lambda: additive(curvatures=(1.0, 2.0)),
    # a repeated batch with the drift of disjoint ones
    "roberts-abstract-drift": lambda: overlapping(sign=-1.0),
    # no momentum in the formula
    "roberts-remark-momentum": lambda: off(predicted(N=3, K=3), N=3, K=3, momentum=0.5),
    # without the second term
    "ours-batch-newton": lambda: newton(second=0.0),
    # 1/2 in place of 1/4
    "roberts-modified-loss": lambda: modified(c=0.5),
    # the sign of kappa3
    "roberts-abstract-regularizes": lambda: gap_difference(sign=-1.0),
    # 1/N in place of 1/(N − 1)
    "ours-smith-minus-barrett": lambda: three_penalties(ddof=0),
    "roberts-remark-larger-batches": lambda: on_every_data_set(ddof=0),
    # what independent steps keep, for epochs
    "ours-sampler-drift": lambda: sampled("epochs", (0.5, 0.5))[0],
    "ours-sampler-spread": lambda: sampled("epochs", (0.5, 0.5))[1],
    # no drift, no diffusion
    "ours-fixed-horizon": lambda: shifted(1.0, used=0.0),
    # the largest learning rates, where the slope is another
    "ours-drift-on-digits": lambda: recorded_drift(eta=-1),
    # sampling with replacement, which the penalty does not follow
    "ours-tracking-on-digits": lambda: recorded_tracking("with"),
}
ORDERS = {
    "roberts-key-result", "roberts-remark-not-falsified", "ours-antisymmetric-term", "roberts-11",
    "roberts-12", "roberts-13", "roberts-remark-epoch", "ours-with-replacement", "ours-sampler-drift",
    "roberts-remark-momentum", "roberts-modified-loss", "roberts-remark-larger-batches",
}  # fmt: skip


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    arguments = {"atol": 0.15 if claim in ORDERS else 0.004} | CONTROLS[claim]()
    if "sigmas" in arguments:
        del arguments["atol"]
    with pytest.raises(CheckFailed):
        check(claim, **arguments)


# --- try your own -----------------------------------------------------------------------------------------------


def try_your_own(capsys, **changed):
    """Run the cell under Try your own with some of its names changed; the errors that it printed."""
    cells = nbformat.read(runbook.BOOK / "2-gap" / "02_drift.ipynb", 4).cells
    (code,) = [c.source for c in cells if c.cell_type == "code" and c.source.startswith("own = ")]
    names = {"FiniteProblem": FiniteProblem, "torch": torch, "exact": exact, "gap": gap, **changed}
    head, rest = code.split("N, K = 3, 3\n", 1)
    if "own" not in changed:
        exec(head, names)
    names.setdefault("N", 3), names.setdefault("K", 3)
    exec(rest.replace("(0.1, 0.05, 0.025)", str(changed.get("etas", (0.1, 0.05, 0.025)))), names)
    return np.array([float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()])


def test_try_your_own_falls_by_eight(capsys):
    quartic = FiniteProblem([lambda t: (t[0] - 1) ** 4 / 4 + t[1] ** 2, lambda t: torch.cosh(t[0] + t[1])],
                            [0.3, 0.7], [0.2, 0.1])  # fmt: skip
    for changed in ({}, {"N": 4, "K": 2}, {"own": quartic}):
        errors = try_your_own(capsys, etas=(0.02, 0.01, 0.005), **changed)
        assert np.all((errors[:-1] / errors[1:] > 6.5) & (errors[:-1] / errors[1:] < 9.5))
    errors = try_your_own(capsys)
    assert np.all((errors[:-1] / errors[1:] > 6) & (errors[:-1] / errors[1:] < 9.5))


def test_try_your_own_falls_by_four_without_a_second_derivative(capsys):
    bent = [lambda t: t[0] * torch.abs(t[0]) + t[0], lambda t: (t[0] - 1) ** 2, lambda t: t[0] ** 2 / 2 - t[0]]
    own = FiniteProblem(bent, [0.5, 0.25, 0.25], [0.0])
    errors = try_your_own(capsys, own=own, etas=(0.02, 0.01, 0.005))
    assert np.all((errors[:-1] / errors[1:] > 3.5) & (errors[:-1] / errors[1:] < 4.7))


def test_try_your_own_at_large_steps_and_with_many_paths(capsys):
    errors = try_your_own(capsys, etas=(1.2, 0.6, 0.3))
    assert not np.all((errors[:-1] / errors[1:] > 6) & (errors[:-1] / errors[1:] < 9.5))
    with pytest.raises(ValueError, match="overflow"):
        try_your_own(capsys, etas=(4.0,))
    with pytest.raises(ValueError, match=r"\d[\d,]{6,}"):
        try_your_own(capsys, N=16, K=16)
    with pytest.raises(ValueError, match="divisor"):
        try_your_own(capsys, N=4, K=3)
