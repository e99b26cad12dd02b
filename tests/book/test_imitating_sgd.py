"""The chapter on imitating SGD: each claim by an independent method, and each check with its negative control.

The independent method is a power series by hand: losses a θ + h θ²/2 + J θ³/6 of one weight, every training set, every
order, and series in the step size that are cut behind the second power.
"""

import re
from functools import cache
from itertools import combinations, permutations, product

import nbformat
import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, ensembles, exact, experiments, records, runbook
from implicitreg.checks import CheckFailed, check
from implicitreg.diagrams import corollaries, gap_series, test_loss_series, weights_series
from implicitreg.experiments import imitation

KINDS, CHANCES, START = ((1.0, 2.0, 0.5), (-2.0, 0.5, 1.5), (0.5, 3.0, -1.0)), (0.5, 0.3, 0.2), 0.4
TOY = FiniteProblem(
    [lambda t, c=c: c[0] * t[0] + c[1] * t[0] ** 2 / 2 + c[2] * t[0] ** 3 / 6 for c in KINDS], CHANCES, [START]
)


class Series:
    """A polynomial in η, cut behind η²."""

    def __init__(self, *c):
        self.coef = (*map(float, c), 0.0, 0.0)[:3]

    def __add__(self, other):
        return Series(*(a + b for a, b in zip(self.coef, as_series(other).coef, strict=True)))

    def __mul__(self, other):
        (a0, a1, a2), (b0, b1, b2) = self.coef, as_series(other).coef
        return Series(a0 * b0, a0 * b1 + a1 * b0, a0 * b2 + a1 * b1 + a2 * b0)

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other):
        return self + other * -1.0

    def __truediv__(self, number):
        return self * (1 / number)


def as_series(x):
    return x if isinstance(x, Series) else Series(x)


ETA = Series(0, 1)


def loss(c, t):
    return t * (c[0] + t * (c[1] / 2 + t * (c[2] / 6)))


def slope(c, t):
    return c[0] + t * (c[1] + t * (c[2] / 2))


def bend(c, t):
    return c[1] + t * c[2]


def run(data, weights, step=ETA):
    """θ after steps with these weights, as a series in η."""
    t = Series(START)
    for row in weights:
        t = t - step * sum(w * slope(c, t) for w, c in zip(row.tolist(), data, strict=True) if w)
    return t


def imitator(data, factor=1.0, steps=None):
    """GDC: descent on the mean loss plus factor · η/(4N) Σ (g_n − mean)²."""
    t, N = Series(START), len(data)
    for _ in range(steps or N):
        g = [slope(c, t) for c in data]
        mean = sum(g) / N
        extra = sum(bend(c, t) * (gn - mean) for c, gn in zip(data, g, strict=True)) / (2 * N)
        t = t - ETA * (mean + factor * ETA * extra)
    return t


def over_sets(N, f):
    """The mean of f(data) over all training sets of N."""
    return sum(
        np.prod([CHANCES[i] for i in idx]) * np.asarray(f([KINDS[i] for i in idx]))
        for idx in product(range(3), repeat=N)
    )


def test_loss_of(t):
    return sum(p * loss(c, t) for p, c in zip(CHANCES, KINDS, strict=True))


test_loss_of.__test__ = False


def effects(weights):
    """Mean coefficients of the end, the test loss and the gap, (3, 3), by enumeration."""

    def one(data):
        t = run(data, weights)
        test = test_loss_of(t)
        return [t.coef, test.coef, (test - sum(loss(c, t) for c in data) / len(data)).coef]

    return over_sets(weights.shape[1], one)


def moments():
    g = np.array([slope(c, Series(START)).coef[0] for c in KINDS])
    h = np.array([bend(c, Series(START)).coef[0] for c in KINDS])
    p = np.array(CHANCES)
    G, H = p @ g, p @ h
    return {"G": G, "H": H, "C": p @ (g - G) ** 2, "dC": 2 * p @ ((h - H) * (g - G)), "d2": 2 * p @ (h * g),
            "k3": p @ ((h - H) * (g - G) ** 2)}  # fmt: skip


M = moments()


def single(N, order=None):
    return np.eye(N)[list(order or range(N))]


def full(N, T):
    return np.full((T, N), 1 / N)


UNEVEN = np.random.default_rng(3).dirichlet(np.ones(3), size=4)
SCHEDULES = {
    "one epoch": single(3), "descent": full(3, 3), "one twice": single(3, (0, 0, 2, 1)), "uneven": UNEVEN,
    "two epochs": np.vstack([single(2), single(2, (1, 0))]),
}  # fmt: skip
SAME = pytest.mark.parametrize("W", SCHEDULES.values(), ids=SCHEDULES)


def sums(W):
    Q = W @ W.T
    return Q.sum() - np.trace(Q), Q.sum()


def predicted(W, end=None, cost=None, kappa=None):
    """The three sums; a control replaces one of them."""
    T, N = W.shape
    off, total = sums(W)
    pairs = T * (T - 1) / 2
    end, cost, kappa = (x if x is not None else d for x, d in ((end, off), (cost, total), (kappa, (off + total) / 2)))
    theta = pairs * M["H"] * M["G"] + end / 4 * M["dC"]
    test = T * (T - 0.5) * M["G"] ** 2 * M["H"] + end / 4 * M["G"] * M["dC"] + cost / 2 * M["C"] * M["H"]
    gap = -((pairs + T**2) * M["G"] * M["dC"] / 2 + pairs * M["C"] * M["H"] + kappa * M["k3"]) / N
    return theta, test, gap


@SAME
def test_three_sums_by_enumeration(W):
    measured = effects(W)[:, 2]
    for claim, m, p in zip(("ours-sum-end", "ours-sum-loss", "ours-sum-gap"), measured, predicted(W), strict=True):
        check(claim, measured=m, predicted=p, atol=1e-12)


@SAME
def test_first_order_of_the_gap(W):
    check("tenka-gap-rate", measured=effects(W)[2, 1], predicted=len(W) / W.shape[1] * M["C"], atol=1e-12)


def test_the_gap_where_steep_is_rare():
    """Curvature 1 or 3, three to one: descent's gap minus SGD's is −3/16 η², by the oracle."""
    rare = FiniteProblem([lambda t, h=h: h * t[0] ** 2 / 2 for h in (1, 3)], [0.75, 0.25], [1.0])
    gap = lambda e, B: (r := exact.run(rare, e, N=2, T=2, B=B)).test_loss - r.train_loss  # noqa: E731
    apart = [(gap(e, 2) - gap(e, 1)) / e**2 for e in (1e-3, 5e-4)]
    check("ours-sum-gap", measured=2 * apart[1] - apart[0], predicted=-3 / 16, rtol=1e-3)
    assert np.isclose(gap_series(rare, N=2, T=2, B=2, order=2)[2] - gap_series(rare, N=2, T=2, order=2)[2], -3 / 16)


def test_a_single_order_in_the_plane():
    """Bowls that do not commute: the two orders differ by η² times a commutator; GDC is nearer to their mean."""
    one, other, eye = np.diag([1.0, 3.0]), np.array([[2.0, 1], [1, 2]]), np.eye(2)
    mean, scatter = (one + other) / 2, ((one - other) / 2) @ ((one - other) / 2)
    distances = []
    for e in (0.01, 0.005):
        ends = np.array([(eye - e * a) @ (eye - e * b) @ np.ones(2) for a, b in ((one, other), (other, one))])
        gdc = np.linalg.matrix_power(eye - e * (mean + e / 2 * scatter), 2) @ np.ones(2)
        distances.append([np.abs(ends[0] - ends[1]).max(), np.abs(ends.mean(0) - gdc).max()])
    single, both = np.log2(np.array(distances[0]) / distances[1])
    check("tenka-emulate", measured=single, predicted=2, atol=0.1)
    check("ours-imitation-every-set", measured=both, predicted=3, atol=0.1)


@pytest.mark.parametrize(("N", "T", "B"), [(2, 4, 1), (4, 4, 2), (3, 3, 3)], ids=["epochs", "pairs", "descent"])
def test_the_ends_scatter_with_the_sum_of_all(N, T, B):
    """Cov θ_T = η² all C + O(η³), the price that the test loss pays."""
    found = exact.run(TOY, 1e-5, N=N, T=T, B=B).theta_cov[0, 0] / 1e-10
    check("ours-sum-loss", measured=found, predicted=T**2 / N * M["C"], rtol=1e-3)


def test_the_sums_are_those_of_the_diagrams():
    W = full(3, 3)
    end, test, gap = predicted(W)
    assert np.isclose(weights_series(TOY, N=3, T=3, B=3)[2, 0], end)
    assert np.isclose(test_loss_series(TOY, N=3, T=3, B=3, order=2)[2], test)
    assert np.isclose(gap_series(TOY, N=3, T=3, B=3, order=2)[2], gap)


# Descent and SGD


@cache
def drift(N, B):
    """Coefficient of η² of descent minus SGD in batches of B, N = T B, mean over training sets and orders."""
    T = N // B
    batches = np.kron(np.eye(T), np.full((1, B), 1 / B))
    orders = [batches[:, list(o)] for o in permutations(range(N))]
    sgd = over_sets(N, lambda data: np.mean([run(data, W).coef for W in orders], axis=0))
    return (over_sets(N, lambda data: run(data, full(N, T)).coef) - sgd)[2]


@pytest.mark.parametrize("N", [2, 3, 4])
def test_descent_minus_sgd(N):
    check("tenka-corollary-3", measured=drift(N, 1), predicted=(N - 1) / 4 * M["dC"], atol=1e-12)
    assert np.isclose(corollaries.gd_minus_sgd(TOY, N)[0], (N - 1) / 4 * M["dC"])


def test_smaller_batches_drift_more():
    found = [drift(4, B) / M["dC"] for B in (1, 2, 4)]
    check("tenka-heading-3-1", measured=found, predicted=[3 / 4, 1 / 8, 0], atol=1e-12)
    check("tenka-drift-direction", measured=found[0], predicted=3 / 4, atol=1e-12)


def test_fresh_examples_against_descent():
    fresh = over_sets(4, lambda data: run(data, single(4)).coef)[2]
    few = over_sets(2, lambda data: run(data, full(2, 4)).coef)[2]
    check("ours-fresh-against-descent", measured=few - fresh, predicted=12 / 8 * M["dC"], atol=1e-12)


def test_constant_noise_does_not_tell_them_apart():
    quiet = FiniteProblem([lambda t, s=s: t[0] ** 2 / 2 + s * t[0] for s in (1, -1)], [0.5, 0.5], [1.0])
    apart = exact.run(quiet, 0.1, N=3, T=3, B=3).theta - exact.run(quiet, 0.1, N=3, T=3).theta
    check("tenka-figure-3-center", measured=apart, predicted=[0], atol=1e-12)
    check("tenka-figure-3-center", measured=drift(3, 1), predicted=M["dC"] / 2, atol=1e-12)


# The plate


def plate(T, eta=0.1):
    return np.array(list(product((1 - eta, 1 + eta), repeat=T))).prod(axis=1)


def test_the_mean_grain_stays_and_most_grains_move_inwards():
    check("tenka-net-movement", measured=plate(10).mean(), predicted=1, atol=1e-12)
    check("tenka-jump-rates", measured=(plate(10) < 1).mean(), above=0.6)


# The penalty


def observed(t, sharp=1.3):
    """A cubic observable of θ."""
    return t * (t * (t - sharp) + 2.0)


def by_orders(data, epochs=1):
    weights = [np.vstack([single(len(data), o)] * epochs) for o in permutations(range(len(data)))]
    return [run(data, W) for W in weights]


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("data", [KINDS[:2], KINDS, (*KINDS, KINDS[0])], ids=["2", "3", "4"])
def test_imitation_on_every_training_set(data, epochs):
    sgd = np.mean([observed(t).coef for t in by_orders(data, epochs)], axis=0)
    gdc = observed(imitator(data, steps=epochs * len(data))).coef
    check("ours-imitation-every-set", measured=gdc, predicted=sgd, atol=1e-10)


def test_reshuffled_epochs_as_well():
    orders = [np.vstack([single(3, a), single(3, b)]) for a in permutations(range(3)) for b in permutations(range(3))]
    sgd = np.mean([observed(run(KINDS, W)).coef for W in orders], axis=0)
    check("ours-imitation-every-set", measured=observed(imitator(KINDS, steps=6)).coef, predicted=sgd, atol=1e-10)


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("B", [2, 4])
def test_imitation_of_batches(B, epochs):
    """The penalty η/4 (1/B − 1/N) S, S = Σ |g_n − mean|²/(N − 1), on four examples."""
    data, K = (*KINDS, (0.3, -1.0, 2.0)), 4 // B
    batches = np.kron(np.eye(K), np.full((1, B), 1 / B))
    shuffles = [batches[:, list(o)] for o in permutations(range(4))]
    mean = lambda orders: np.mean([observed(run(data, W)).coef for W in orders], axis=0)  # noqa: E731
    gdc = observed(imitator(data, factor=(1 / B - 1 / 4) * 4 / 3, steps=epochs * K)).coef
    repeated = [np.vstack([W] * epochs) for W in shuffles]
    anew = [np.vstack(W) for W in product(shuffles, repeat=epochs)]
    for orders in (repeated, anew):
        check("ours-imitation-every-set", measured=gdc, predicted=mean(orders), atol=1e-10)
    if B < 4:
        with pytest.raises(CheckFailed):
            check("ours-imitation-every-set", measured=observed(imitator(data, steps=epochs * K)).coef,
                  predicted=mean(repeated), atol=1e-10)  # fmt: skip


def losses_of(way, N):
    return over_sets(N, lambda data: np.mean([test_loss_of(t).coef for t in way(data)], axis=0))


@pytest.mark.parametrize("N", [2, 3])
def test_mean_test_loss_of_gdc(N):
    sgd = losses_of(by_orders, N)
    check("tenka-gdc", measured=losses_of(lambda d: [imitator(d)], N), predicted=sgd, atol=1e-12)
    check("tenka-emulate", measured=losses_of(lambda d: [imitator(d)], N), predicted=sgd, atol=1e-12)


def test_a_single_order_is_missed_at_the_second_order():
    ends = np.array([t.coef for t in by_orders(KINDS)])
    assert np.ptp(ends[:, 1]) < 1e-12 < np.ptp(ends[:, 2])


def test_fewer_examples_than_steps():
    """The penalty re-weighted so that the mean end is right: the test loss is too large by (T²/N − T)/2 tr CH."""
    tuned = lambda d: [imitator(d, factor=(4 - 1) / (2 - 1), steps=4)]  # noqa: E731
    few = over_sets(2, lambda data: tuned(data)[0].coef)
    fresh = over_sets(4, lambda data: run(data, single(4)).coef)
    assert np.allclose(few, fresh)
    excess = (losses_of(tuned, 2) - losses_of(lambda d: [run(d, single(4))], 4))[2]
    check("ours-whole-epochs", measured=excess, predicted=(16 / 2 - 4) / 2 * M["C"] * M["H"], atol=1e-12)


def halves(g, h):
    """Mean over the splits of N/2 a·(a − b) and N h_a (a − b)."""
    N, values, gradients = len(g), [], []
    for first in combinations(range(N), N // 2):
        i = list(first)
        a, b = g[i].mean(0), np.delete(g, i, 0).mean(0)
        values.append(N / 2 * a @ (a - b))
        gradients.append(N * h[i].mean(0) @ (a - b))
    return np.mean(values), np.mean(gradients, axis=0)


def quadratics(N=4):
    rng = np.random.default_rng(11)
    A = rng.normal(size=(N, 3, 3))
    return A + A.transpose(0, 2, 1), rng.normal(size=(N, 3)), rng.normal(size=3)


def spread(w, h, b):
    """S = Σ |g_n − mean|² / (N − 1) of losses with gradients h_n w + b_n."""
    g = torch.einsum("nij,j->ni", torch.tensor(h), w) + torch.tensor(b)
    return ((g - g.mean(0)) ** 2).sum() / (len(b) - 1)


def test_half_splits_are_unbiased():
    h, b, w = quadratics()
    value, gradient = halves(h @ w + b, h)
    weights = torch.tensor(w)
    check("ours-half-split", measured=value, predicted=spread(weights, h, b).item(), atol=1e-10)
    truth = torch.func.grad(spread)(weights, h, b).numpy()
    check("ours-half-split", measured=gradient, predicted=truth, atol=1e-10)


# Epochs


def epochs(N, rounds):
    """The mean end of so many epochs at η/rounds minus one epoch at η."""
    many, one = (
        over_sets(N, lambda d, k=k: np.mean([run(d, np.vstack([single(N, o)] * k), ETA / k).coef
                                             for o in permutations(range(N))], axis=0)) for k in (rounds, 1)
    )  # fmt: skip
    return many - one


SIZES = pytest.mark.parametrize(("N", "rounds"), [(2, 2), (3, 2), (2, 3)], ids=["2x2", "3x2", "2x3"])


@SIZES
def test_epochs_differ_by_the_whole_second_moment(N, rounds):
    found = epochs(N, rounds)
    check("tenka-scaled-rates", measured=found[:2], predicted=[0, 0], atol=1e-12)
    check("tenka-corollary-4", measured=found[2], predicted=N * (rounds - 1) / (4 * rounds) * M["d2"], atol=1e-12)
    check("tenka-sensitivity", measured=found[2], predicted=corollaries.epoch_shift(TOY, N, rounds)[0], atol=1e-12)


def on_a_set(data, rounds, reshuffled=False):
    """On one training set, in the mean over orders: so many epochs at η/rounds minus one epoch at η."""
    orders = list(permutations(range(len(data))))
    mean = lambda k, ways: np.mean([  # noqa: E731
        run(data, np.vstack([single(len(data), o) for o in way]), ETA / k).coef for way in ways], axis=0)  # fmt: skip
    many = product(orders, repeat=rounds) if reshuffled else [(o,) * rounds for o in orders]
    return mean(rounds, many) - mean(1, [(o,) for o in orders])


def second_moment_slope(data, center=0.0):
    """The derivative of the mean of |g_n|² over a training set."""
    return 2 * np.mean([bend(c, Series(START)).coef[0] * (slope(c, Series(START)).coef[0] - center) for c in data])


@pytest.mark.parametrize("reshuffled", [False, True], ids=["one order", "reshuffled"])
@pytest.mark.parametrize("rounds", [2, 3])
@pytest.mark.parametrize("data", [KINDS[:2], (*KINDS[:2], KINDS[0])], ids=["2", "3"])
def test_epochs_on_every_training_set(data, rounds, reshuffled):
    predicted = len(data) * (rounds - 1) / (4 * rounds) * second_moment_slope(data)
    check("ours-epochs-every-set", measured=on_a_set(data, rounds, reshuffled), predicted=[0, 0, predicted], atol=1e-12)


def test_epochs_on_the_plate():
    """No mean gradient: all that two epochs change is that examples meet again."""
    two = np.mean([((1 - 0.05 * a) * (1 - 0.05 * b)) ** 2 for a in (1, -1) for b in (1, -1)])
    check("tenka-epochs-averaging", measured=(two - 1) / 0.1**2, predicted=0.5, rtol=0.01)
    check("tenka-epochs-avoid", measured=(two - 1) / 0.1**2, above=0.4)


# Digits


def small(seed, start, eta, sets=120):
    return imitation.SETTINGS | {"starts": {"here": start}, "data_sets": sets, "data_seed": seed, "etas": [eta]}


def test_imitation_on_digits():
    r = imitation.measure("here", small(5, 0, 0.0005))
    check("ours-imitation-digits", measured=r["gd"], se=r["gd_se"], predicted=[r["predicted"]], sigmas=4,
          wrong=[r["predicted"] / 10])  # fmt: skip
    check("tenka-figure-3-gdc", measured=np.abs(r["gdc"]), below=np.abs(r["gd"]) / 2)


def test_the_sign_for_the_test_loss_depends_on_the_start():
    results = records.load("imitation")["results"]
    check("tenka-figure-3-tests", measured=-results["network 0"]["gd"][0], above=1)
    check("tenka-figure-3-tests", measured=results["logistic"]["gd"][0], above=1)


@cache
def epochs_on_digits(copies=300, eta=5e-4):
    """A network, ten digits: two epochs at η/2 minus one at η, both orders averaged; what |g|² and tr C alone give."""
    images = experiments.population({"data": "digits", "limit": 300}, torch.device("cpu"))
    x, y = images.inputs, images.targets
    model = imitation.start(0, (64, 8, 10))
    gradients = lambda v, a, b: ensembles.gradients(model, imitation._loss, v, a, b)  # noqa: E731
    w = ensembles.flatten(model).detach()
    drawn = torch.randint(300, (copies, 10), generator=torch.Generator().manual_seed(7))
    used, ends = torch.cat([drawn, drawn.flip(1)]), {}
    for k in (1, 2):
        v = w.expand(2 * copies, -1)
        for i in k * list(used.T):
            v = v - eta / k * gradients(v, x[i][:, None], y[i][:, None])
        ends[k] = imitation._test_loss(model, x, y, v).reshape(2, copies).mean(0)
    G = gradients(w[None], x[None], y[None])[0]
    HG = gradients(torch.stack([w + 1e-4 * G, w - 1e-4 * G]), x.expand(2, -1, -1), y.expand(2, -1))
    alone = imitation.tilt(model, x, y)
    whole = alone + 2 * (G @ (HG[0] - HG[1])).item() / 2e-4
    return ((ends[2] - ends[1]) / eta**2).numpy(), 10 / 8 * whole, 10 / 8 * alone


def test_epochs_on_digits():
    d, whole, alone = epochs_on_digits()
    check("tenka-4-1-epochs", measured=d.mean(), se=d.std() / len(d) ** 0.5, predicted=whole, sigmas=4,
          wrong=alone)  # fmt: skip


# The controls: the formula itself, broken


def control(claim):
    """Measured and predicted, with one thing in the formula broken."""
    W, flat = SCHEDULES["descent"], np.eye(3)
    h, b, w = quadratics()
    gd = losses_of(lambda d: [run(d, full(3, 3))], 3)
    sgd = losses_of(by_orders, 3)
    off, total = sums(W)
    r = records.load("imitation")["results"]
    wrong = {
        "ours-sum-end": lambda: (effects(W)[0, 2], predicted(W, end=total)[0]),
        "ours-sum-loss": lambda: (effects(W)[1, 2], predicted(W, cost=off)[1]),
        "ours-sum-gap": lambda: (effects(W)[2, 2], predicted(W, kappa=total)[2]),
        "tenka-gap-rate": lambda: (effects(UNEVEN)[2, 1], M["C"]),
        "tenka-corollary-3": lambda: (drift(3, 1), (3 - 1) / (4 * 3) * M["dC"]),
        "tenka-heading-3-1": lambda: (drift(4, 1), drift(4, 2)),
        "tenka-drift-direction": lambda: (drift(4, 1), -3 / 4 * M["dC"]),
        "tenka-figure-3-center": lambda: (drift(3, 1), 0.0),
        "ours-fresh-against-descent": lambda: (
            over_sets(2, lambda d: run(d, full(2, 4)).coef)[2] - over_sets(4, lambda d: run(d, single(4)).coef)[2],
            corollaries.gd_minus_sgd(TOY, 4)[0]),
        "tenka-net-movement": lambda: (plate(10).mean(), np.median(plate(10))),
        "tenka-jump-rates": lambda: ((plate(10) < 1).mean(), 0.5),
        "ours-imitation-every-set": lambda: (
            np.mean([observed(t).coef for t in by_orders(KINDS)], axis=0),
            observed(imitator(KINDS, factor=2 / 3)).coef),
        "tenka-gdc": lambda: (sgd, losses_of(lambda d: [imitator(d, factor=-1)], 3)),
        "tenka-emulate": lambda: (sgd, gd),
        "ours-whole-epochs": lambda: (
            losses_of(lambda d: [imitator(d, factor=3, steps=4)], 2), losses_of(lambda d: [run(d, single(4))], 4)),
        "ours-half-split": lambda: (
            halves(h @ w + b, h)[1], torch.func.grad(spread)(torch.tensor(w), h, b).numpy() / 2),
        "tenka-scaled-rates": lambda: (run(KINDS, np.vstack([flat] * 2)).coef[1], run(KINDS, flat).coef[1]),
        "tenka-corollary-4": lambda: (epochs(2, 2)[2], 2 / 8 * M["dC"]),
        "ours-epochs-every-set": lambda: (
            on_a_set(KINDS, 2)[2],
            3 / 8 * second_moment_slope(KINDS, np.mean([slope(c, Series(START)).coef[0] for c in KINDS]))),
        "tenka-sensitivity": lambda: (epochs(2, 2)[2], corollaries.epoch_shift(TOY, 2, 1)[0]),
        "tenka-epochs-averaging": lambda: (
            np.mean([(1 - 0.05 * a) ** 2 * (1 - 0.05 * b) ** 2 for a, b in product((1, -1), repeat=2)]), 1.0),
        "tenka-epochs-avoid": lambda: (epochs(2, 2)[2], -2 / 8 * M["d2"]),
        "ours-imitation-digits": lambda: (r["network 0"]["gd"][0], r["network 0"]["predicted"] / 10),
        "tenka-figure-3-gdc": lambda: (r["logistic"]["gd"][0], r["logistic"]["gdc"][0]),
        "tenka-figure-3-tests": lambda: (r["network 0"]["gd"][0], abs(r["network 0"]["predicted"])),
        "tenka-4-1-epochs": lambda: (epochs_on_digits()[0].mean(), epochs_on_digits()[2]),
    }  # fmt: skip
    return wrong[claim]()


@pytest.mark.parametrize("claim", [
    "ours-sum-end", "ours-sum-loss", "ours-sum-gap", "tenka-gap-rate", "tenka-corollary-3", "tenka-heading-3-1",
    "tenka-drift-direction", "tenka-figure-3-center", "ours-fresh-against-descent", "tenka-net-movement",
    "tenka-jump-rates", "ours-imitation-every-set", "tenka-gdc", "tenka-emulate", "ours-whole-epochs",
    "ours-half-split", "tenka-scaled-rates", "tenka-corollary-4", "tenka-sensitivity", "tenka-epochs-averaging",
    "tenka-epochs-avoid", "ours-epochs-every-set", "ours-imitation-digits", "tenka-figure-3-gdc",
    "tenka-figure-3-tests", "tenka-4-1-epochs",
])  # fmt: skip
def test_controls(claim):
    measured, broken = control(claim)
    with pytest.raises(CheckFailed):
        check(claim, measured=measured, predicted=broken, atol=1e-3)


# Try your own


@pytest.mark.parametrize(
    "changes", [{}, {"N, T, B": "3, 3, 3"}, {"N, T, B": "2, 4, 2"}], ids=["as it is", "GD", "long"]
)
def test_try_your_own_halves_the_error(changes, capsys):
    path = runbook.BOOK / "3-diagrams" / "05_imitating_sgd.ipynb"
    (cell,) = [c.source for c in nbformat.read(path, 4).cells if "own = ir.FiniteProblem" in c.source]
    for name, value in changes.items():
        cell, n = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", cell)
        assert n == 1, name
    import implicitreg as ir

    exec(cell, {"ir": ir, "torch": torch, "exact": exact})
    differences = [float(x) for x in re.findall(r"difference ([\d.]+)", capsys.readouterr().out)]
    ratios = np.array(differences[:-1]) / differences[1:]
    assert len(differences) == 3
    assert np.all((ratios > 1.6) & (ratios < 2.4)), differences
