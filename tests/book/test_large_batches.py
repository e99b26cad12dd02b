"""The chapter on large batches: each claim by an independent method, and each check with its negative control."""

from functools import cache
from itertools import combinations, permutations, product

import implicitreg as ir
import nbformat
import numpy as np
import pytest
import torch
from implicitreg import nets, runbook
from implicitreg.checks import CheckFailed, check
from implicitreg.noise import msgd, replicas, sampling
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy

G = np.array([[1.0, -2, 3, 0.5], [0.25, 1.5, -1, 2]])
FOUR = np.array([[4.0, 0, 0, 0], [0, 1, -1, 0]])
BOTH = pytest.mark.parametrize("put_back", [True, False], ids=["put back", "all different"])


def every(n, B, put_back):
    return list(product(range(n), repeat=B) if put_back else permutations(range(n), B))


def noise_of(G, B, put_back, w, p):
    """Covariance of the step by going through all ordered draws and all weights (rows of w with the chances p)."""
    steps = np.concatenate([w @ G[:, draw].T for draw in map(list, every(G.shape[1], B, put_back))])
    chances = np.tile(p, len(steps) // len(p))
    chances = chances / chances.sum()
    mean = chances @ steps
    return (steps - mean).T @ (chances[:, None] * (steps - mean)), mean


def small(G, b, put_back):
    return noise_of(G, b, put_back, np.full((1, b), 1 / b), np.ones(1))[0]


def law(name, B):
    """Independent values of mean 0 and variance 1 in B places: coins, a skew law, the nodes of a bell."""
    atoms = {
        "coins": ([-1.0, 1.0], [0.5, 0.5]),
        "skew": ([2.0, -0.5], [0.2, 0.8]),
        "bell": ([-(3**0.5), 0.0, 3**0.5], [1 / 6, 2 / 3, 1 / 6]),
    }[name]
    values = np.array(list(product(atoms[0], repeat=B)))
    return values, np.array([np.prod(c) for c in product(atoms[1], repeat=B)])


def shaken(s2, e, centred=True):
    return 1 / e.shape[1] + s2**0.5 * (e - centred * e.mean(1, keepdims=True))


def scale(b, B):
    return (B - b) / (b * B * (B - 1))


# How much to add


@BOTH
@pytest.mark.parametrize("name", ["coins", "skew", "bell"])
@pytest.mark.parametrize(("b", "B"), [(1, 2), (1, 3), (2, 3), (3, 4), (1, 4)])
def test_a_shaken_batch_is_as_noisy_as_a_small_one(put_back, name, b, B):
    e, p = law(name, B)
    found, mean = noise_of(G, B, put_back, shaken(sampling.compensation("cov", b, B), e), p)
    check("ours-large-compensation", measured=found, predicted=small(G, b, put_back), atol=1e-12)
    np.testing.assert_allclose(mean, G.mean(1), atol=1e-12)
    check("ours-large-compensation", measured=sampling.compensation("cov", b, B), predicted=scale(b, B), rtol=1e-14)


def test_only_uncorrelated_values_are_asked_for():
    """Three places whose signs multiply to one: uncorrelated in pairs, and not independent."""
    e = np.array([s for s in product([-1.0, 1.0], repeat=3) if np.prod(s) > 0])
    found, _ = noise_of(G, 3, False, shaken(scale(2, 3), e), np.full(4, 0.25))
    check("ours-large-compensation", measured=found, predicted=small(G, 2, False), atol=1e-12)


@BOTH
def test_two_lotteries_are_one(put_back):
    """Choose 3 of 4, then 2 of the 3 places: the same law as choosing 2 of 4, batch by batch."""
    n, B, b = 4, 3, 2
    twice = [
        tuple(sorted(draw[k] for k in places)) for draw in every(n, B, put_back) for places in combinations(range(B), b)
    ]
    once = [tuple(sorted(draw)) for draw in every(n, b, put_back)]
    for batch in set(once):
        assert twice.count(batch) / len(twice) == pytest.approx(once.count(batch) / len(once))
    second = np.array([np.isin(range(B), places) / b for places in combinations(range(B), b)])
    K = np.cov(second.T, bias=True)
    np.testing.assert_allclose(K, scale(b, B) * (np.eye(B) - 1 / B), atol=1e-14)


def test_by_hand():
    assert small(FOUR, 1, False)[0, 0] == pytest.approx(3)
    assert small(FOUR, 2, False)[0, 0] == pytest.approx(1)
    e, p = law("bell", 2)
    for s2, centred, along, across in ((0.5, True, 3, 0.5), (0.5, False, 5, 2 / 3), (1 / 3, False, 11 / 3, 0.5)):
        found, _ = noise_of(FOUR, 2, False, shaken(s2, e, centred), p)
        np.testing.assert_allclose(found, np.diag([along, across]), atol=1e-12)


def share_drawn(n, b, B):
    return np.trace(sampling.covariance("sgd_without_replacement", n, B)) / np.trace(
        sampling.covariance("sgd_without_replacement", n, b)
    )


def test_the_share_that_drawing_leaves():
    for n, b, B in ((12, 1, 4), (300, 10, 100), (300, 10, 300)):
        assert share_drawn(n, b, B) == pytest.approx(b * (n - B) / (B * (n - b)), abs=1e-12)


# Two numbers


def odd(B, rng):
    """Weights with no symmetry, and the mean 1 of their sum."""
    w, p = rng.normal(size=(4, B)) + 0.5, rng.dirichlet(np.ones(4))
    return w / (p @ w.sum(1)), p


def two_numbers(w, p):
    return p @ (w**2).sum(1), p @ w.sum(1) ** 2


def by_two_numbers(G, q, r, put_back):
    n, g = G.shape[1], G.mean(1)
    C = G @ G.T / n - np.outer(g, g)
    return (q if put_back else (n * q - r) / (n - 1)) * C + (r - 1) * np.outer(g, g)


@BOTH
@pytest.mark.parametrize("B", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_two_numbers_decide(put_back, B, seed):
    w, p = odd(B, np.random.default_rng(seed))
    found, mean = noise_of(G, B, put_back, w, p)
    check(
        "ours-batch-two-numbers", measured=found, predicted=by_two_numbers(G, *two_numbers(w, p), put_back), atol=1e-12
    )
    np.testing.assert_allclose(mean, G.mean(1), atol=1e-12)


@BOTH
def test_only_these_two_numbers_give_the_small_batch(put_back):
    """The two matrices are independent here, so the covariance determines q and r: those of SGD-2 are ½ and 1."""
    n, g = G.shape[1], G.mean(1)
    gg = np.outer(g, g)
    axes = np.stack([(G @ G.T / n - gg).ravel(), gg.ravel()], 1)
    assert np.linalg.matrix_rank(axes) == 2
    w, p = odd(3, np.random.default_rng(0))
    for found, (q, r) in ((small(G, 2, put_back), (0.5, 1)), (noise_of(G, 3, put_back, w, p)[0], two_numbers(w, p))):
        factor, excess = np.linalg.lstsq(axes, found.ravel())[0]
        solved_r = excess + 1
        solved_q = factor if put_back else (factor * (n - 1) + solved_r) / n
        np.testing.assert_allclose([solved_q, solved_r], [q, r], atol=1e-12)


@BOTH
@pytest.mark.parametrize("centred", [True, False])
def test_the_covariance_is_not_hard_to_calculate(put_back, centred):
    e, p = law("bell", 3)
    for s2 in (0.0, 0.1, scale(1, 3)):
        K = sampling.minibatch_covariance(s2, 4, 3, centred=centred, replacement=put_back)
        found, _ = noise_of(G, 3, put_back, shaken(s2, e, centred), p)
        check("wu-claim-14", measured=G @ K @ G.T, predicted=found, atol=1e-12)


@BOTH
@pytest.mark.parametrize(("b", "B"), [(1, 2), (2, 3), (1, 4)])
def test_uncentred_noise_leaves_an_excess(put_back, b, B):
    n, g = 4, G.mean(1)
    s2 = (B - b) / (b * B**2) * (1 if put_back else n / (n - 1))
    check("ours-free-excess", measured=sampling.compensation("fisher", b, B, None if put_back else n), predicted=s2,
          rtol=1e-14)  # fmt: skip
    e, p = law("bell", B)
    found, _ = noise_of(G, B, put_back, shaken(s2, e, centred=False), p)
    check("ours-free-excess", measured=found - small(G, b, put_back), predicted=s2 * B * np.outer(g, g), atol=1e-12)
    q, r = two_numbers(shaken(s2, e, centred=False), p)
    assert r - 1 == pytest.approx(s2 * B)
    assert q == pytest.approx(1 / B + s2 * B)


def sum_varies(b, B, centred=False):
    e, p = law("bell", B)
    w = shaken(sampling.compensation("fisher", b, B), e, centred)
    return p @ w.sum(1) ** 2 - 1


def test_the_sum_of_uncentred_weights_varies():
    for b, B in ((1, 2), (2, 3), (1, 4)):
        check("wu-efficient", measured=sum_varies(b, B), predicted=1 / b - 1 / B, rtol=1e-12)


def parts(mean=0.0):
    """Noise from drawing three of four, by draw, and from shaking, by draw and by coins of this mean."""
    e, _ = law("coins", 3)
    draws = np.array(every(4, 3, False))
    first = G[:, draws].mean(-1) - G.mean(1)[:, None]
    return first, np.einsum("xdk,ek->xde", G[:, draws], e + mean) / 18**0.5


def crossed(first, second):
    return np.einsum("xd,yde->xy", first, second) / second[0].size


def dependence(first, second):
    a, b = first[0] ** 2, (second[0] ** 2).mean(1)
    return abs(np.mean(a * b) / (a.mean() * b.mean()) - 1)


def test_drawing_and_shaking_are_uncorrelated_and_not_independent():
    first, second = parts()
    check("wu-claim-13", measured=crossed(first, second), predicted=np.zeros((2, 2)), atol=1e-14)
    check("wu-claim-13", measured=dependence(first, second), above=0.1)
    s2, rng = sampling.compensation("fisher", 3, 6, 8), np.random.default_rng(0)
    i, w = sampling.draw_minibatch(s2, 8, 6, centred=False, replacement=False, rng=rng, size=20_000)
    added = (w - 1 / 6) / s2**0.5
    assert abs(stats.kurtosis(added.ravel())) < 0.05  # a bell on the batch
    assert all(len(set(row)) == 6 for row in i[:100])


def two_steps(law, power):
    """Mean and variance of theta after two steps of rate 0.3 from 1, all listed: fresh x in {0, 1}, two a batch.

    The model is theta^power x, the target 0.3 x, the loss half the square, the weights 1/2 + z and 1/2 - z.
    """
    z, chance = law
    ends, chances = np.ones(1), np.ones(1)
    for _ in range(2):
        slope = (ends**power - 0.3) * power * ends ** (power - 1)
        steps = [ends[:, None] - 0.3 * slope[:, None] * (x * (0.5 + z) + y * (0.5 - z)) for x in (0, 1) for y in (0, 1)]
        ends, chances = np.ravel(steps), np.tile(np.outer(chances, chance).ravel() / 4, 4)
    mean = chances @ ends
    return mean, chances @ (ends - mean) ** 2


def test_two_numbers_decide_linear_least_squares_and_not_any_squared_loss():
    x, p = np.polynomial.hermite_e.hermegauss(20)
    coin, bell = (np.array([-0.5, 0.5]), np.full(2, 0.5)), (x / 2, p / p.sum())
    np.testing.assert_allclose(two_steps(coin, 1), two_steps(bell, 1), atol=1e-12)
    (_, of_coin), (_, of_bell) = two_steps(coin, 2), two_steps(bell, 2)
    assert of_bell > 1.05 * of_coin


def test_weights_that_look_at_the_draw_are_not_covered():
    """Two of four, all weight to the one with the smaller number, as in a batch that is listed in order and has the
    weights (1, 0): a coin's mean square, and another step."""
    draws = every(4, 2, False)
    steps = np.array([FOUR[:, min(draw)] for draw in draws])
    np.testing.assert_allclose(steps.mean(0), [2, 1 / 6])
    assert np.mean((steps[:, 0] - 1) ** 2) == pytest.approx(5)


def test_gradients_with_noise_of_their_own_are_not_covered():
    """As with dropout: a fresh ±2 on each gradient. For all pairs of four and all signs, the mean of two."""
    means, signs = np.array([3.0, 1, -1, 1]), list(product([-2.0, 2.0], repeat=2))
    steps = np.array([np.mean(means[list(pair)] + own) for pair in combinations(range(4), 2) for own in signs])
    C, q, r = np.mean(means**2) + 4 - 1, 1 / 2, 1
    assert np.var(steps) == pytest.approx(8 / 3)
    assert (4 * q - r) / 3 * C == pytest.approx(2)


def looked_at(kind="bernoulli"):
    W = sampling.draw(kind, 300, 10, rng=np.random.default_rng(0), size=4000)
    used = (W != 0).sum(1)
    return {"measured": used.mean(), "se": max(used.std(), 1e-9) / 4000**0.5}


def test_a_bernoulli_step_looks_at_b_examples_on_average():
    check("wu-vanilla", predicted=10, sigmas=4, **looked_at())
    W = sampling.draw("sgd_without_replacement", 300, 10, rng=np.random.default_rng(0), size=50)
    assert ((W != 0).sum(1) == 10).all()


# Digits


METHODS = "gd", "gd, eta = 0.03", "sgd", "sgd_without_replacement", "large_batch", "minibatch_cov", "minibatch_fisher"


@cache
def record():
    stored = ir.records.load("chosen_noise")
    return {
        setting: {
            method: 100
            * np.concatenate(
                [
                    np.array(v[method]["test_accuracy"], dtype=float)
                    for k, v in stored["results"].items()
                    if k.startswith(setting)
                ]
            )
            for method in METHODS
            if setting == "noisy" or "eta" not in method
        }
        for setting in ("noisy", "clean")
    }


def interval(d):
    return d.mean(), stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5


def test_the_gap_in_the_record():
    noisy = {m: v[:, -1] for m, v in record()["noisy"].items()}
    for reference in ("sgd", "sgd_without_replacement"):
        m, h = interval(noisy["large_batch"] - noisy[reference])
        assert m + h < -1.5
        for method in ("minibatch_cov", "minibatch_fisher"):
            m, h = interval(noisy[method] - noisy[reference])
            assert abs(m) < h
            assert abs(m) + h < 1
    m, h = interval(noisy["minibatch_cov"] - noisy["large_batch"])
    assert m - h > 1.5


def test_the_large_batch_is_ahead_on_the_way():
    noisy = record()["noisy"]
    m, h = interval(noisy["large_batch"].max(1) - noisy["minibatch_cov"].max(1))
    assert m - h > 0
    for other in ("sgd_without_replacement", "minibatch_cov"):
        lead = noisy["large_batch"] - noisy[other]
        for k in range(1, 5):  # steps 30 to 300
            m, h = interval(lead[:, k])
            assert m - h > 0


def test_a_smaller_learning_rate_stops_earlier():
    """3000 steps of 0.03 make the way of 900 steps of 0.1, and end at the same accuracy, which is SGD-10's."""
    noisy = record()["noisy"]
    slow = noisy["gd, eta = 0.03"][:, -1]
    at_900 = ir.records.load("chosen_noise")["settings"]["noisy"]["at"].index(900)
    for other in (noisy["gd"][:, at_900], noisy["sgd_without_replacement"][:, -1]):
        m, h = interval(slow - other)
        assert abs(m) < h < 1


def test_the_gap_is_not_always_seen():
    """With right labels neither SGD-50 nor the shaken batch differs from SGD-5, to the width of the intervals."""
    clean = {m: v[:, -1] for m, v in record()["clean"].items()}
    for method in ("large_batch", "minibatch_cov"):
        m, h = interval(clean[method] - clean["sgd_without_replacement"])
        assert abs(m) < h < 1
    m, h = interval(clean["minibatch_cov"] - clean["large_batch"])
    assert 0 < m - h < m + h < 1.5


def test_with_right_labels_uncentred_noise_is_ahead_of_one_small_batch_and_not_of_the_other():
    clean = {m: v[:, -1] for m, v in record()["clean"].items()}
    m, h = interval(clean["minibatch_fisher"] - clean["sgd_without_replacement"])
    assert m - h > 0
    m, h = interval(clean["minibatch_fisher"] - clean["sgd"])
    assert abs(m) < h


def digits(seeds):
    data = ir.datasets.load("digits")
    x, y = torch.from_numpy(data.images.reshape(-1, 64)), torch.from_numpy(data.labels)
    orders = [torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[:900] for seed in seeds]
    given = y.clone()
    given[::5] = (y[::5] + 3) % 10
    train, test = [order[:300] for order in orders], [order[300:] for order in orders]
    return (torch.stack([x[i] for i in train]), torch.stack([given[i] for i in train]),
            (torch.stack([x[i] for i in test]), torch.stack([y[i] for i in test])))  # fmt: skip


def test_without_shaking_the_gap_does_not_close():
    """The claim's own check, with the noise of a batch of 100 in place of the computed one: it must fail."""
    seeds = range(4)
    x, y, test = digits(seeds)
    starts = [nets.mlp((64, 64, 64, 10), activation="relu", seed=seed, dtype=torch.float32) for seed in seeds]
    runs = [replicas.Replica("sgd_without_replacement", 100, 0.1, seed=seed + shift, data=k, start=k)
            for shift in (0, 50) for k, seed in enumerate(seeds)]  # fmt: skip
    ends = 100 * replicas.train(runs, starts, x, y, steps=1500, test=test).test_accuracy[:, -1].reshape(2, 4)
    m, h = interval(ends[1] - ends[0])
    for claim in ("ours-large-digits", "wu-large-gap", "wu-magnitude"):
        with pytest.raises(CheckFailed):
            check(claim, measured=m - h, above=0)
    noisy = record()["noisy"]
    gap = np.mean(noisy["large_batch"][:, -1] - noisy["sgd_without_replacement"][:, -1])
    for claim in ("ours-large-digits", "wu-closes", "wu-class-free", "wu-variant", "wu-abstract-variant"):
        with pytest.raises(CheckFailed):
            check(claim, measured=abs(gap), below=1.5)


def page(name):
    path = runbook.BOOK / "4-noise" / "04_large_batches.ipynb"
    (cell,) = [c.source for c in nbformat.read(path, 4).cells if c.id == name]
    return cell


class Draws:
    """The draws of the package, in the words of the loop on the page."""

    def __init__(self, n, b, B, seed):
        self.weights, self.s = msgd.Weights("minibatch_cov", n, b, B, seed), scale(b, B) ** 0.5
        self.step, self.B = 0, B

    def permutation(self, n):
        self.index, self.w = (part.numpy() for part in self.weights(self.step))
        self.step += 1
        return self.index

    def standard_normal(self, B):
        return (self.w - 1 / B) / self.s


def test_the_loop_of_the_page_takes_the_steps_of_the_package():
    n, b, B = 60, 4, 20
    x, y, _ = digits([0])
    x, y = x[0, :n], y[0, :n]

    class Numpy:
        random = type("random", (), {"default_rng": staticmethod(lambda seed: Draws(n, b, B, seed=7))})

    fresh = lambda seed: nets.mlp((64, 16, 10), activation="relu", seed=seed, dtype=torch.float32)  # noqa: E731
    space = {"torch": torch, "np": Numpy, "fresh": fresh, "cross_entropy": cross_entropy}
    exec(page("large-train"), space)
    own = space["train"](x, y, scale(b, B) ** 0.5, B=B, steps=25)
    package = fresh(seed=0)
    msgd.train(package, (x, y), kind="minibatch_cov", b=b, B=B, eta=0.1, steps=25, seed=7, progress=False)
    for p, q in zip(own.parameters(), package.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


# Batch norm


@cache
def eight():
    data = ir.datasets.load("digits")
    x = torch.from_numpy(data.images[:8].reshape(8, 64)).double()
    return x, torch.from_numpy(data.labels[:8])


def columns(net, x, y, batch):
    losses = cross_entropy(net(x[batch]), y[batch], reduction="none")
    rows = [torch.autograd.grad(loss, list(net.parameters()), retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows], 1)


def small_net(norm):
    first, relu, last = nets.mlp((64, 6, 10), activation="relu")
    return nn.Sequential(first, norm, relu, last)


def bias_and_ratio(net, x, y, b=4):
    n = len(y)
    batches = [list(batch) for batch in combinations(range(n), b)]
    G = columns(net, x, y, list(range(n)))
    steps = torch.stack([columns(net, x, y, batch).mean(1) for batch in batches], 1)
    promised = (n - b) / (b * (n - 1)) * G.var(1, correction=0).sum()
    bias = (steps.mean(1) - G.mean(1)).norm() / G.mean(1).norm()
    return [bias.item(), (steps.var(1, correction=0).sum() / promised).item()]


def test_batch_norm_breaks_the_formulas_and_group_norm_does_not():
    for norm in (nn.Identity(), nn.GroupNorm(2, 6).double(), nn.LayerNorm(6).double()):
        check("ours-large-batchnorm", measured=bias_and_ratio(small_net(norm), *eight()), predicted=[0, 1], atol=1e-12)
    norm = nn.BatchNorm1d(6, momentum=None).double()
    net = small_net(norm)
    check("ours-large-batchnorm", measured=bias_and_ratio(net, *eight())[0], above=0.1)
    frozen = small_net(norm.eval())
    check("ours-large-batchnorm", measured=bias_and_ratio(frozen, *eight()), predicted=[0, 1], atol=1e-12)


def test_batch_norm_in_a_residual_network():
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(4)
    bias = {norm: bias_and_ratio(nets.resnet18(4, width=8, norm=norm), x, y, b=2)[0] for norm in ("batch", "group")}
    check("ours-large-batchnorm", measured=bias["batch"], above=0.1)
    check("ours-large-batchnorm", measured=bias["group"], predicted=0, atol=1e-12)


# Negative controls


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def with_scale(s2, centred=True):
    e, p = law("bell", 3)
    return pair(noise_of(G, 3, False, shaken(s2, e, centred), p)[0], small(G, 2, False))


def ignoring_the_sum():
    w, p = odd(3, np.random.default_rng(0))
    q, _ = two_numbers(w, p)
    return pair(noise_of(G, 3, False, w, p)[0], by_two_numbers(G, q, 1, False))


def no_excess():
    e, p = law("bell", 3)
    s2 = sampling.compensation("fisher", 2, 3, 4)
    return pair(noise_of(G, 3, False, shaken(s2, e, centred=False), p)[0] - small(G, 2, False), np.zeros((2, 2)))


CONTROLS = {
    # B in place of B - 1
    "ours-large-compensation": ({"atol": 1e-6}, lambda: with_scale(1 / (2 * 3**2))),
    "ours-batch-two-numbers": ({"atol": 1e-6}, ignoring_the_sum),
    "ours-free-excess": ({"atol": 1e-6}, no_excess),
    # the noise of drawing forgotten
    "wu-claim-14": ({"atol": 1e-6}, lambda: with_scale(1 / (2 * 3))),
    # shaking whose mean is not zero
    "wu-claim-13": ({"atol": 1e-6}, lambda: pair(crossed(*parts(mean=0.5)), np.zeros((2, 2)))),
    # all weights differ from zero
    "wu-vanilla": ({"sigmas": 4}, lambda: {**looked_at("gaussian_cov"), "predicted": 10}),
    # centred
    "wu-efficient": ({"rtol": 1e-6}, lambda: pair(sum_varies(2, 3, centred=True), 1 / 2 - 1 / 3)),
    # batch norm taken for harmless
    "ours-large-batchnorm": ({"atol": 1e-6}, lambda: pair(
        bias_and_ratio(small_net(nn.BatchNorm1d(6).double()), *eight()), [0, 1]
    )),
}  # fmt: skip


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    tolerance, wrong = CONTROLS[claim]
    with pytest.raises(CheckFailed):
        check(claim, **tolerance, **wrong())


# Try your own


def own(capsys, *changes):
    cell = page("large-own-cell")
    for old, new in changes:
        assert cell.count(old) == 1, old
        cell = cell.replace(old, new)
    exec(cell, {"np": np, "sampling": sampling})
    lines = capsys.readouterr().out.strip().splitlines()
    return [np.array(eval(line[line.index("[[") :])) for line in lines]


BELL = ("rng_own.choice([-1.0, 1.0], size)", "rng_own.standard_normal(size)")
TAILS = ("rng_own.choice([-1.0, 1.0], size)", "rng_own.standard_t(8, size) / (8 / 6) ** 0.5")


@pytest.mark.parametrize(
    "changes",
    [[], [BELL], [TAILS], [("2, 5, True", "3, 6, True")], [("2, 5, True", "1, 2, True"), BELL]],
    ids=["as it stands", "bell", "tails", "3 and 6", "1 and 2"],
)
def test_try_your_own_agrees_within_three_per_cent(changes, capsys):
    measured, goal = own(capsys, *changes)
    assert abs(measured - goal).max() < 0.03 * abs(goal).max()


def test_try_your_own_adds_what_the_page_says_if_not_centred_and_refuses_small_batches(capsys):
    measured, goal = own(capsys, ("2, 5, True", "2, 5, False"))
    G = np.array([[3.0, -1, 0, 1, 2, -2], [0, 1, 2, -1, 1, 0]])
    g, s2 = G.mean(1), scale(2, 5)
    added = s2 * (6 - 5) / (6 - 1) * np.cov(G, bias=True) + s2 * 5 * np.outer(g, g)
    assert abs(measured - goal - added).max() < 0.02 < abs(added).min()
    with pytest.raises(ValueError, match="b = 6"):
        own(capsys, ("2, 5, True", "6, 5, True"))
