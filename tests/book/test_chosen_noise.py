"""The chapter on training with chosen noise: each claim by an independent method, and each check with its control."""

import itertools
import re
from functools import cache

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from implicitreg import nets, records, runbook
from implicitreg.checks import CheckFailed, check, rate
from implicitreg.exercises.chosen import FOUR
from implicitreg.noise import msgd, sampling
from scipy.stats import kurtosis, ttest_rel

PATH = runbook.BOOK / "4-noise" / "03_chosen_noise.ipynb"


def covariance(G):
    """Of one example drawn at random: the mean over all n draws of the squared noise."""
    noise = (G - G.mean(1, keepdims=True)).T
    return sum(np.outer(v, v) for v in noise) / len(noise)


def felt(G, K):
    """Mean over the examples of the variance of g_i · v."""
    return np.mean([g @ K @ g for g in G.T])


def isotropic(G):
    C = covariance(G)
    return np.trace(C) / len(C) * np.eye(len(C))


MEAN_HEAVY = np.array([[5.0, 5], [1, -1]])


def ratio(G):
    return felt(G, covariance(G)) / felt(G, isotropic(G))


def bound(G, count=None, factor=True):
    """(1): d over the effective number of directions, times 1 − |g|²/tr F."""
    C, g = covariance(G), G.mean(1)
    count = count or np.trace(C) ** 2 / np.sum(C**2)
    return len(G) / count * (1 - g @ g / np.mean(np.sum(G**2, axis=0)) if factor else 1)


# One step


CUBIC = np.random.default_rng(1).normal(size=(3, 3, 3))


def cubic(theta):
    return theta @ np.diag([4.0, 0.5, 1.0]) @ theta / 2 + np.einsum("ijk,i,j,k", CUBIC, theta, theta, theta) / 6


THREE = np.vstack([FOUR, [[0.0, 0, 0, 0]]])
SGD = (THREE - THREE.mean(1, keepdims=True)).T
COINS = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T / 4
COINS = (COINS - COINS.mean(1, keepdims=True)) @ THREE.T * 4 / 2


def after(law, eta, f=cubic):
    """Mean of f after one step from (1, 1, 1), minus its value without noise, over η²."""
    start = np.ones(3) - eta * THREE.mean(1)
    return (np.mean([f(start - eta * v) for v in law]) - f(start)) / eta**2


def hessian():
    sym = sum(CUBIC.transpose(p) for p in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))) / 6
    return np.diag([4.0, 0.5, 1.0]) + sym @ np.ones(3)


def test_the_two_laws_have_one_covariance_and_differ():
    assert np.allclose(SGD.T @ SGD / 4, COINS.T @ COINS / 16)
    assert np.allclose(SGD.T @ SGD / 4, np.diag([3, 0.5, 0]))
    assert abs(np.mean(SGD[:, 0] ** 3) - np.mean(COINS[:, 0] ** 3)) > 1


def test_one_step_sees_the_covariance():
    predicted = np.trace(hessian() @ covariance(THREE)) / 2
    etas = 0.1 / 2.0 ** np.arange(6)
    for law in (SGD, COINS):
        misses = [abs(after(law, e) - predicted) for e in etas]
        check("ours-one-step", measured=rate(etas, misses), predicted=1, atol=0.15)
    apart = [abs(after(SGD, e) - after(COINS, e)) for e in etas]
    check("ours-one-step", measured=rate(etas, apart), predicted=1, atol=0.15)


def test_a_quadratic_sees_nothing_else():
    f = lambda t: t @ np.diag([4.0, 0.5, 1.0]) @ t / 2  # noqa: E731
    for law in (SGD, COINS):
        check("ours-one-step", measured=after(law, 0.7, f), predicted=12.25 / 2, atol=1e-12)


# What is felt


def test_four_gradients_in_a_hundred_dimensions():
    G = np.vstack([FOUR, np.zeros((98, 4))])
    check("ours-felt", measured=ratio(G), predicted=12.25 / (0.035 * 4.5), rtol=1e-12)
    assert covariance(G)[0, 0] / isotropic(G)[0, 0] == pytest.approx(3 / 0.035)
    assert round(ratio(G)) == 78
    assert round(bound(G)) == 59
    assert round(np.trace(covariance(G)) ** 2 / np.sum(covariance(G) ** 2), 1) == 1.3


def test_two_parameters_nobody_idle():
    check("ours-felt", measured=ratio(FOUR), predicted=12.25 / 7.875, rtol=1e-12)


MATRICES = st.tuples(st.integers(1, 7), st.integers(2, 6), st.integers(0, 10**6))


def drawn(d, n, seed):
    """Gradients with ties, zeros and dependent columns now and then."""
    rng = np.random.default_rng(seed)
    G = rng.normal(rng.choice([0, 2]), 1, size=(d, n)) * rng.choice([0, 1, 3], p=[0.1, 0.7, 0.2], size=(d, 1))
    return G[:, rng.integers(n, size=n)] if rng.random() < 0.3 else G


@given(MATRICES)
def test_the_bound_holds(sizes):
    G = drawn(*sizes)
    C = covariance(G)
    if np.trace(C) < 1e-12:
        return
    n, count = G.shape[1], np.trace(C) ** 2 / np.sum(C**2)
    check("ours-felt", measured=ratio(G), above=bound(G), rtol=1e-9)
    check("ours-felt", measured=[count, np.linalg.matrix_rank(C, tol=1e-9)], below=[n - 1 + 1e-9, n - 1])


def test_a_large_mean_attains_it():
    check("ours-felt", measured=[ratio(MEAN_HEAVY), bound(MEAN_HEAVY)], predicted=[1 / 13, 1 / 13], rtol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(2, 2), (4, 9), (6, 6)])
def test_unit_vectors_attain_it(n, d):
    G = np.eye(d, n)
    check("ours-felt", measured=[ratio(G), bound(G)], predicted=[d / n, d / n], rtol=1e-12)


@pytest.mark.parametrize("b", [1, 3])
def test_any_batch_size_and_sampler_has_the_same_ratio(b):
    G = drawn(6, 5, 3)
    for kind in ("sgd", "sgd_without_replacement", "gaussian_cov", "rademacher"):
        K = sampling.gradient_covariance(kind, G, b)
        found = felt(G, K) / felt(G, np.trace(K) / len(K) * np.eye(len(K)))
        check("ours-felt", measured=found, predicted=ratio(G), rtol=1e-10)


@cache
def digits(seed=7, steps=0):
    """Gradients of 60 digits by plain autograd, one after the other, after some steps of SGD."""
    from implicitreg import datasets

    drawn, rng = datasets.load("digits"), np.random.default_rng(seed)
    at = rng.permutation(len(drawn.labels))[:60]
    x, y = torch.from_numpy(drawn.images[at]).flatten(1).double(), torch.from_numpy(drawn.labels[at])
    net = nets.mlp([64, 16, 10], activation="relu", seed=seed)
    for _ in range(steps):
        i = torch.from_numpy(rng.integers(60, size=5))
        net.zero_grad()
        F.cross_entropy(net(x[i]), y[i]).backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.1 * p.grad
    rows = []
    for i in range(60):
        net.zero_grad()
        F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in net.parameters()]).numpy())
    return np.array(rows).T


@pytest.mark.parametrize("steps", [0, 200])
def test_digits_feel_sgd_more_than_diagonal_more_than_isotropic(steps):
    G = digits(steps=steps)
    C = covariance(G)
    diagonal = felt(G, np.diag(np.diag(C))) / felt(G, isotropic(G))
    check("wu-exp-same-magnitude", measured=ratio(G), above=len(G) / 59)
    check("wu-exp-gradient-matrix", measured=ratio(G) / diagonal, above=5)
    check("wu-exp-conjecture", measured=ratio(G), above=len(G) / 59)
    assert diagonal > 1


# Axes


def rotated(C, phi):
    Q = np.array([[np.cos(phi), np.sin(phi)], [-np.sin(phi), np.cos(phi)]])
    return Q @ C @ Q.T


def levelled(C):
    """Turns of two axes at a time, each by the angle that solves a quadratic equation, until the diagonal is level."""
    C, turns = C.copy(), 0
    m = np.trace(C) / len(C)
    while np.ptp(np.diag(C)) > 1e-9:
        j, k = np.argmax(np.diag(C)), np.argmin(np.diag(C))
        a, c, off = C[j, j] - m, C[k, k] - m, C[j, k]
        t = (-off + np.sqrt(off**2 - a * c)) / c  # c t² + 2 off t + a = 0 for the tangent t
        Q = np.eye(len(C))
        Q[j, j] = Q[k, k] = 1 / np.hypot(1, t)
        Q[j, k], Q[k, j] = t / np.hypot(1, t), -t / np.hypot(1, t)
        C, turns = Q @ C @ Q.T, turns + 1
    return C, turns


@given(st.integers(1, 7), st.integers(0, 10**6))
def test_axes_in_which_diagonal_noise_is_isotropic(d, seed):
    A = np.random.default_rng(seed).normal(size=(d, max(d - 1, 1)))
    C = A @ A.T
    level, turns = levelled(C)
    check("ours-axes", measured=np.diag(level), predicted=np.full(d, np.trace(C) / d), atol=1e-8)
    check("ours-axes", measured=np.linalg.eigvalsh(level), predicted=np.linalg.eigvalsh(C), atol=1e-8)
    assert turns <= d - 1


@given(st.integers(1, 7), st.integers(0, 10**6))
def test_axes_in_which_diagonal_noise_is_sgds(d, seed):
    C = covariance(np.random.default_rng(seed).normal(size=(d, 5)))
    vectors = np.linalg.eigh(C)[1]
    turned = vectors.T @ C @ vectors
    check("wu-claim-19", measured=np.diag(np.diag(turned)), predicted=turned, atol=1e-9)


def test_four_gradients_turned():
    C = covariance(FOUR)
    check("wu-claim-19", measured=C, predicted=np.diag([3, 0.5]), atol=1e-12)
    check("wu-exp-diagonal", measured=rotated(C, np.pi / 4), predicted=[[1.75, -1.25], [-1.25, 1.75]], atol=1e-12)


# Weights


def test_the_gradient_of_a_weighted_loss():
    G, net = digits(), nets.mlp([64, 16, 10], activation="relu", seed=7)
    from implicitreg import datasets

    drawn = datasets.load("digits")
    at = np.random.default_rng(7).permutation(len(drawn.labels))[:60]
    x, y = torch.from_numpy(drawn.images[at]).flatten(1).double(), torch.from_numpy(drawn.labels[at])
    W = np.random.default_rng(2).normal(size=60)
    (torch.from_numpy(W) @ F.cross_entropy(net(x), y, reduction="none")).backward()
    found = torch.cat([p.grad.flatten() for p in net.parameters()]).numpy()
    check("wu-algorithm-key", measured=found, predicted=G @ W, atol=1e-12)


@cache
def bell(centre=True, n=4, b=2, draws=200_000):
    e = np.random.default_rng(0).standard_normal((draws, n))
    return 1 / n + (e - e.mean(1, keepdims=True) if centre else e) / np.sqrt(b * n)


def test_the_bell_has_sgds_covariance():
    """One standard error of an entry is at most √2/8/√200 000."""
    target = (np.eye(4) - 1 / 4) / 8
    check("wu-exp-inject", measured=np.cov(bell().T), predicted=target, atol=4 * 2**0.5 / 8 / 200_000**0.5)


@pytest.mark.parametrize("b", [2, 3])
def test_tails_of_sgds_noise_are_those_of_one_draw_over_b(b):
    """All n^b batches, and coefficients of the weights that do not sum to zero: the mean of b independent draws."""
    a = np.array([4.0, 1, -1, 0.5])
    felt_by_one = np.array([a[list(batch)].mean() for batch in itertools.product(range(4), repeat=b)])
    noise = felt_by_one - a.mean()
    assert np.mean(noise**4) / np.mean(noise**2) ** 2 - 3 == pytest.approx(kurtosis(a) / b, rel=1e-12)


def free_minus_bell(G, draws=20_000):
    """Mean squares of the difference of the two noises and of the centred one, from the same normal numbers."""
    e = np.random.default_rng(1).standard_normal((draws, G.shape[1]))
    centred = e - e.mean(1, keepdims=True)
    return np.mean(np.sum(((e - centred) @ G.T) ** 2, 1)) / np.mean(np.sum((centred @ G.T) ** 2, 1))


@pytest.mark.parametrize("copies", [1, 20])
def test_free_and_centred_bell_differ_as_much_for_many_examples(copies):
    G = np.tile(FOUR, copies)
    check("wu-exp-equivalence", measured=free_minus_bell(G), predicted=1 / 3.5, rtol=0.06)


def test_negative_weights_of_the_bell():
    """Φ(−√(b/n)) of them: 43 % for b = 10 of 300."""
    W = np.concatenate([msgd.Weights("gaussian_cov", 300, 10)(t)[1] for t in range(200)])
    assert (W < 0).mean() == pytest.approx(0.4276, abs=0.01)


# The record, read by hand: paired t tests


RECORD = records.load("chosen_noise")
SAME = ["sgd_without_replacement", "gaussian_cov", "gaussian_fisher", "bernoulli", "sparse_fisher", "sparse_cov",
        "rademacher", "student_t", "minibatch_cov", "minibatch_fisher"]  # fmt: skip
SHAPELESS = ["gd", "gld_iso", "gld_diag", "large_batch"]


@cache
def curve(arm, metric="test_accuracy", setting="noisy"):
    first = lambda unit: int(re.findall(r"\d+", unit)[0])  # noqa: E731
    parts = sorted((u for u in RECORD["results"] if u.startswith(setting)), key=first)
    return np.array([row for u in parts for row in RECORD["results"][u][arm][metric]])


def paired(a, c, level=0.95):
    """Mean difference with its interval, in points."""
    found = ttest_rel(a, c)
    low, high = found.confidence_interval(level)
    return 100 * np.mean(a - c), 100 * low, 100 * high


def end(arm, **which):
    return curve(arm, **which)[:, -1]


@pytest.mark.parametrize("arm", SAME)
def test_ten_laws_at_once_contain_zero_and_stay_near_it(arm):
    _, low, high = paired(end(arm), end("sgd"), level=1 - 0.05 / 10)
    for claim in ("wu-class-verify", "wu-exp-all"):
        check(claim, measured=max(-low, high), below=1.5)
    check("wu-exp-support", measured=[low, -high], below=[0, 0])


@pytest.mark.parametrize("arm", SHAPELESS)
def test_without_the_shape_at_least_two_points_lower(arm):
    _, _, high = paired(end(arm), end("sgd"))
    check("ours-race", measured=high, below=-2)


PRINTED = {
    "wu-exp-cov": "gaussian_cov", "wu-exp-fisher-works": "gaussian_fisher", "wu-exp-capable": "gaussian_fisher",
    "wu-exp-independent": "bernoulli", "wu-exp-sparse": "sparse_fisher",
}  # fmt: skip


@pytest.mark.parametrize("claim", PRINTED)
def test_a_law_ends_near_sgd(claim):
    mean, low, high = paired(end(PRINTED[claim]), end("sgd"))
    check(claim, measured=mean, predicted=0, atol=1)
    assert low > -2
    assert high < 1


def test_free_bell_against_bell():
    _, low, high = paired(end("gaussian_fisher"), end("gaussian_cov"))
    check("wu-exp-fisher", measured=max(-low, high), below=1)


def test_diagonal_against_bernoulli():
    _, low, _ = paired(end("bernoulli"), end("gld_diag"))
    check("wu-exp-gld-diag", measured=low, above=2)


def test_stopped_descent_beats_every_end():
    stopped = curve("gd")[:, RECORD["settings"]["noisy"]["at"].index(300)]
    lows = [paired(stopped, end(arm))[1] for arm in [*SAME, *SHAPELESS, "sgd"]]
    check("ours-early", measured=min(lows), above=6)
    check("ours-early", measured=paired(curve("gd").max(1), curve("sgd").max(1))[1], above=0)


def test_other_rates_of_descent():
    highs = [paired(end(f"gd, eta = {rate}"), end("sgd"))[2] for rate in ("0.3", "1", "2")]
    check("ours-rates", measured=highs, below=[0, 0, 0])
    _, low, high = paired(end("gd, eta = 0.03"), end("sgd"))
    assert low < 0 < high
    check("ours-rates", measured=end("gd, eta = 0.03", metric="train_accuracy").mean(), below=0.98)
    _, low, high = paired(curve("gd")[:, RECORD["settings"]["noisy"]["at"].index(900)], end("gd, eta = 0.03"))
    check("ours-rates", measured=[-low, high], below=[0.3, 0.3])


def test_the_bell_is_not_seen_to_be_faster():
    early = RECORD["settings"]["noisy"]["at"].index(300)
    _, low, high = paired(curve("gaussian_cov")[:, early], curve("sgd")[:, early])
    check("wu-exp-cov-faster", measured=[low, -high], below=[0, 0])
    loss = lambda arm: end(arm, metric="train_loss").mean()  # noqa: E731
    check("wu-exp-gaussian-faster", measured=loss("gaussian_cov") / loss("sgd"), above=1)
    _, low, high = paired(*(end(arm, metric="train_loss") for arm in ("gaussian_cov", "sgd")))
    assert low < 0 < high


@pytest.mark.parametrize("setting", ["noisy", "clean"])
def test_three_comparisons_of_the_introduction(setting):
    for arm in ("gd", "large_batch", "gld_iso"):
        mean, _, high = paired(end(arm, setting=setting), end("sgd", setting=setting))
        check("wu-exp-intro", measured=mean, below=-0.5)
        check("wu-exp-critical", measured=high, below=0)


def test_what_the_sentence_needs():
    """Two points below SGD: not on clean labels, not at a smaller rate."""
    _, low, high = paired(end("gd", setting="clean"), end("sgd", setting="clean"))
    check("ours-conditions", measured=[low, high], above=[-2, -2])
    check("ours-conditions", measured=paired(end("gd, eta = 0.03"), end("sgd"))[1], above=-2)


def test_louder_isotropic_noise_does_not_come_nearer():
    """Four splits: ten times SGD's size ends below its size, with all labels fit; a hundred times diverges."""
    results = records.load("isotropic_size")["results"]
    sgd, once, ten = (np.array(results[arm]["test_accuracy"])[:, -1] for arm in ("sgd", "1 times", "10 times"))
    assert paired(once, sgd)[2] < 0
    assert paired(ten, once)[2] < -2
    assert all(results[arm]["train_accuracy"][k][-1] == 1 for arm in ("1 times", "10 times") for k in range(4))
    early = records.load("isotropic_size")["settings"]["noisy"]["at"].index(200)
    for arm in ("100 times", "1000 times"):
        assert all(set(row[early:]) == {None} for row in results[arm]["train_loss"])


def test_clean_laws_lie_near_sgd():
    means = [abs(paired(end(arm, setting="clean"), end("sgd", setting="clean"))[0]) for arm in SAME]
    check("ours-clean", measured=max(means), below=0.6)


def on_images(name):
    """Mean and interval of every method minus SGD, in points, where no seed has diverged."""
    found = records.load(name)
    last = lambda arm: np.array(  # noqa: E731
        [found["results"][f"{arm}, seed {seed}"]["test_accuracy"][-1] for seed in found["settings"]["seeds"]]
    )
    rows = found["results"]["summary"]
    return {arm: paired(last(arm), last("sgd")) for arm in rows if arm != "sgd" and "diverged" not in rows[arm]}


def test_three_seeds_on_images_decide_little():
    """SGD leads nobody, and four of the intervals lie above zero."""
    above = []
    for name in ("noise_small_conv_mnist", "noise_vgg11_cifar10_jpeg", "noise_resnet18_cifar10_jpeg"):
        for arm, (_, low, high) in on_images(name).items():
            check("ours-images", measured=high, above=0)
            above += [(name, arm)] if low > 0 else []
    assert above == [
        ("noise_small_conv_mnist", "bernoulli"),
        ("noise_vgg11_cifar10_jpeg", "gld_iso"),
        ("noise_vgg11_cifar10_jpeg", "large_batch"),
        ("noise_resnet18_cifar10_jpeg", "bernoulli"),
    ]


# The controls: the formula broken, or the effect switched off


def control(claim):
    """Arguments of a check that must fail."""
    C, G = covariance(FOUR), digits()
    idle = np.vstack([FOUR, np.zeros((98, 4))])
    gd, sgd = end("gd"), end("sgd")
    far = {"measured": paired(gd, sgd)[0], "predicted": 0, "atol": 1}
    wrong = {
        "ours-one-step": lambda: {"measured": after(SGD, 1e-3), "atol": 0.1,
                                  "predicted": np.trace(hessian() @ isotropic(THREE)) / 2},
        "ours-felt": lambda: {"measured": ratio(MEAN_HEAVY), "above": bound(MEAN_HEAVY, factor=False)},
        "ours-axes": lambda: {"measured": np.diag(C), "predicted": [1.75, 1.75], "atol": 1e-8},
        "wu-exp-same-magnitude": lambda: {"measured": felt(G, isotropic(G)) / felt(G, isotropic(G)),
                                          "above": len(G) / 59},
        "wu-exp-gradient-matrix": lambda: {
            "measured": felt(FOUR, C) / felt(FOUR, np.diag(np.diag(C))), "above": 5},
        "wu-exp-conjecture": lambda: {"measured": ratio(FOUR), "above": ratio(idle)},
        "wu-claim-19": lambda: {"measured": np.diag(np.diag(rotated(C, 0.5))), "predicted": rotated(C, 0.5),
                                "atol": 1e-8},
        "wu-exp-diagonal": lambda: {"measured": np.diag(np.diag(rotated(C, np.pi / 4))), "atol": 1e-8,
                                    "predicted": rotated(C, np.pi / 4)},
        "wu-algorithm-key": lambda: {"measured": G @ np.abs(np.linspace(-1, 1, 60)), "atol": 1e-8,
                                     "predicted": G @ np.linspace(-1, 1, 60)},
        "wu-exp-inject": lambda: {"measured": np.cov(bell(centre=False).T), "atol": 0.01,
                                  "predicted": (np.eye(4) - 1 / 4) / 8},
        "wu-exp-equivalence": lambda: {"measured": free_minus_bell(np.tile(FOUR, 20)), "predicted": 1 / 3.5 / 20,
                                       "rtol": 0.06},
        "wu-class-verify": lambda: {"measured": -paired(gd, sgd)[1], "below": 1.5},
        "wu-exp-all": lambda: {"measured": -paired(end("gld_iso"), sgd)[1], "below": 1.5},
        "wu-exp-support": lambda: {"measured": -paired(end("gld_diag"), sgd)[2], "below": 0},
        "ours-race": lambda: {"measured": paired(end("bernoulli"), sgd)[2], "below": -2},
        **{claim: lambda: far for claim in PRINTED},
        "wu-exp-fisher": lambda: {"measured": -paired(end("gld_iso"), end("gaussian_cov"))[1], "below": 1},
        "wu-exp-gld-diag": lambda: {"measured": paired(gd, end("gld_diag"))[1], "above": 2},
        "ours-early": lambda: {"measured": paired(gd, sgd)[1], "above": 0},
        "ours-rates": lambda: {"measured": paired(end("gd, eta = 0.03"), sgd)[2], "below": 0},
        "wu-exp-cov-faster": lambda: {"measured": paired(curve("gd")[:, 1], curve("sgd")[:, 1])[1], "below": 0},
        "wu-exp-gaussian-faster": lambda: {
            "measured": end("gd", metric="train_loss").mean() / end("sgd", metric="train_loss").mean(), "above": 1},
        "wu-exp-intro": lambda: {"measured": paired(end("minibatch_cov"), sgd)[0], "below": -0.5},
        "wu-exp-critical": lambda: {"measured": paired(end("gd, eta = 0.03"), sgd)[2], "below": 0},
        "ours-conditions": lambda: {"measured": paired(gd, sgd)[2], "above": -2},
        "ours-images": lambda: {"measured": paired(gd, sgd)[2], "above": 0},
        "ours-clean": lambda: {
            "measured": abs(paired(end("gd", setting="clean"), end("sgd", setting="clean"))[0]), "below": 0.6},
    }  # fmt: skip
    return wrong[claim]()


@pytest.mark.parametrize("claim", [
    "ours-one-step", "ours-felt", "ours-axes", "wu-exp-same-magnitude", "wu-exp-gradient-matrix", "wu-exp-conjecture",
    "wu-claim-19", "wu-exp-diagonal", "wu-algorithm-key", "wu-exp-inject", "wu-exp-equivalence", "wu-class-verify",
    "wu-exp-all", "wu-exp-support", "ours-race", "wu-exp-cov", "wu-exp-fisher-works", "wu-exp-capable",
    "wu-exp-independent", "wu-exp-sparse", "wu-exp-fisher", "wu-exp-gld-diag", "ours-early", "ours-rates",
    "wu-exp-cov-faster", "wu-exp-gaussian-faster", "wu-exp-intro", "wu-exp-critical", "ours-conditions", "ours-clean",
    "ours-images",
])  # fmt: skip
def test_controls(claim):
    with pytest.raises(CheckFailed):
        check(claim, **control(claim))


# Try your own


LAWS = {
    "as it is": None,
    "coins": "return rng.choice([-1.0, 1.0], n)",
    "exponential, mean 1": "return rng.exponential(1, n)",
    "twice too large": "return 2**0.5 * rng.standard_normal(n)",
}


@pytest.mark.parametrize("law", LAWS)
def test_try_your_own_keeps_what_it_promises(law, capsys):
    (cell,) = [c.source for c in nbformat.read(PATH, 4).cells if "def mine(rng)" in c.source]
    if LAWS[law]:
        cell, count = re.subn(r"(?m)^    return .*$", f"    {LAWS[law]}", cell)
        assert count == 1
    n, b = 60, 10
    G = digits()
    A = (G - G.mean(1, keepdims=True)) / np.sqrt(b * n)
    U, s, _ = np.linalg.svd(A, full_matrices=False)
    exec(cell, {"np": np, "n": n, "b": b, "G300": G, "U": U, "lam": s**2, "spread": (A**2).sum(1)})
    ratios = np.array([float(r) for r in re.findall(r": ([\d.]+)", capsys.readouterr().out)])
    assert len(ratios) == 2
    assert np.all(np.abs(ratios / (2 if law == "twice too large" else 1) - 1) < 0.1)
