"""The chapter on sampling noise: each claim by an independent method, and each check with its negative control."""

import itertools
import math
import re
from functools import cache, partial

import implicitreg as ir
import nbformat
import numpy as np
import pytest
import torch
from implicitreg import runbook
from implicitreg.checks import CheckFailed, check
from implicitreg.noise import sampling
from scipy import stats
from scipy.integrate import quad
from torch.nn.functional import cross_entropy, softplus

FOUR = np.array([[4.0, 0, 0, 0], [0, 1, -1, 0]])
MIXED = np.array([[1, -2, 3, 0.5], [0.25, 1.5, -1, 2]])
WIDE = np.random.default_rng(3).standard_normal((3, 5)) + 0.5


# Lotteries as lists: atoms (m, n) and probabilities (m,), written down from their definitions


def drawn(n, b, replacement=True):
    batches = itertools.product(range(n), repeat=b) if replacement else itertools.permutations(range(n), b)
    W = np.array([[batch.count(i) / b for i in range(n)] for batch in batches])
    return W, np.full(len(W), 1 / len(W))


def coins(n, b):
    e = np.array(list(itertools.product([-1.0, 1.0], repeat=n)))
    return 1 / n + (e - e.mean(1, keepdims=True)) / math.sqrt(b * n), np.full(2**n, 2.0**-n)


def asked_alone(n, b, yes=None):
    W = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
    p = np.prod(np.where(W > 0, b / n, 1 - b / n), axis=1)
    return W / (yes or b), p


def bell(n, b, centred):
    """Three Gauss-Hermite nodes an example: mean and covariance are exact."""
    nodes = [(-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6)]
    e = np.array([[v for v, _ in row] for row in itertools.product(nodes, repeat=n)])
    p = np.array([math.prod(p for _, p in row) for row in itertools.product(nodes, repeat=n)])
    return 1 / n + (e - centred * e.mean(1, keepdims=True)) / math.sqrt(b * n), p


LOTTERIES = {
    "sgd": drawn,
    "sgd_without_replacement": partial(drawn, replacement=False),
    "rademacher": coins,
    "gaussian_cov": partial(bell, centred=True),
    "gaussian_fisher": partial(bell, centred=False),
    "bernoulli": asked_alone,
}


def moments(law):
    W, p = law
    mean = p @ W
    return mean, (W - mean).T @ ((W - mean) * p[:, None])


def noise(G, law):
    """Mean and covariance of the step, from the steps themselves."""
    W, p = law
    steps = W @ G.T
    mean = p @ steps
    return mean, (steps - mean).T @ ((steps - mean) * p[:, None])


def disagreement(G):
    """Var of one example's gradient, F - g g', without F."""
    return np.cov(G, bias=True)


def two_numbers(G, law):
    """The theorem, with the two numbers read off one pair of weights and off the sum."""
    W, p = law
    _, K = moments(law)
    n, g = G.shape[1], G.mean(1)
    total = p @ (W.sum(1) - 1) ** 2
    return (K[0, 0] - K[0, 1]) * n * disagreement(G) + total * np.outer(g, g)


# Two numbers


@pytest.mark.parametrize("kind", LOTTERIES)
@pytest.mark.parametrize(("G", "b"), [(FOUR, 1), (MIXED, 2), (WIDE, 3)], ids=["four", "mixed", "wide"])
def test_exchangeable_weights_leave_two_numbers(kind, G, b):
    law = LOTTERIES[kind](G.shape[1], b)
    _, measured = noise(G, law)
    check("ours-two-numbers", measured=measured, predicted=two_numbers(G, law), atol=1e-12)
    check("ours-two-numbers", measured=measured, predicted=sampling.gradient_covariance(kind, G, b), atol=1e-12)
    W, p = law
    check("ours-two-numbers", measured=p @ (W.sum(1) - 1) ** 2, predicted=moments(law)[1].sum(), atol=1e-12)


def special(p):
    """One example drawn with chances p, with the weight 1/(n p_i)."""
    return np.diag(1 / (len(p) * np.array(p))), np.array(p)


def test_a_special_example_needs_more_than_two_numbers():
    law = special([3 / 8, 2 / 8, 2 / 8, 1 / 8])
    mean, covariance = noise(FOUR, law)
    np.testing.assert_allclose(mean, [1, 0], atol=1e-14)
    np.testing.assert_allclose(covariance, np.diag([5 / 3, 1 / 2]), atol=1e-14)
    np.testing.assert_allclose(FOUR @ moments(law)[1] @ FOUR.T, covariance, atol=1e-14)
    with pytest.raises(CheckFailed):
        check("ours-two-numbers", measured=covariance, predicted=two_numbers(FOUR, law), atol=1e-9)
    # with the true variance of the sum, 1/6, αn would be 1/2 along the mean gradient and 1 across it
    total = law[1] @ (law[0].sum(1) - 1) ** 2
    np.testing.assert_allclose([total, (covariance[0, 0] - total) / 3, covariance[1, 1] / 0.5], [1 / 6, 1 / 2, 1])
    # whatever is taken for that variance: αn = 1 leaves it negative
    assert covariance[0, 0] - covariance[1, 1] / 0.5 * 3 < 0


@pytest.mark.parametrize(("change", "across"), [(np.add, 0.0), (np.multiply, 0.01 * 1 / 2)])
def test_the_same_amount_added_to_every_weight_is_noise_along_the_mean_gradient_alone(change, across):
    W, p = drawn(4, 1)
    up, down = (change(W, base) for base in ((0.1, -0.1) if change is np.add else (1.1, 0.9)))
    _, covariance = noise(FOUR, (np.concatenate([up, down]), np.tile(p, 2) / 2))
    extra = covariance - disagreement(FOUR)
    np.testing.assert_allclose(extra[1, 1], across, atol=1e-14)  # a factor makes noise across it too
    if change is np.add:
        np.testing.assert_allclose(extra, 0.1**2 * 4**2 * np.diag([1.0, 0.0]), atol=1e-14)


def no_negative_weights(n, sums, t):
    """One example gets s(t + (1 - t)/n), the others s(1 - t)/n, with s equally likely one of the sums."""
    W = np.array([s * (t * row + (1 - t) / n) for s in sums for row in np.eye(n)])
    return W, np.full(len(W), 1 / len(W))


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("sums", [[1.0], [0.0, 2.0], [0.5, 1.0, 1.5]])
@pytest.mark.parametrize("t", [0.0, 0.6, 1.0])
def test_weights_that_are_not_negative_reach_every_noise_up_to_that_of_one_example(n, sums, t):
    law = no_negative_weights(n, sums, t)
    mean, K = moments(law)
    assert law[0].min() >= 0
    np.testing.assert_allclose(mean, np.full(n, 1 / n))
    np.testing.assert_allclose(n * (K[0, 0] - K[0, 1]), t**2 * (1 + np.var(sums)), atol=1e-14)
    np.testing.assert_allclose(K.sum(), np.var(sums), atol=1e-14)


@pytest.mark.parametrize("kind", ["sgd", "sgd_without_replacement", "bernoulli"])
def test_no_lottery_without_negative_weights_is_louder(kind):
    for b in (1, 2, 3):
        W, p = LOTTERIES[kind](4, b)
        _, K = moments((W, p))
        assert 4 * (K[0, 0] - K[0, 1]) <= 1 + K.sum() + 1e-12
    _, loud = moments(coins(4, 0.5))  # half an example: needs negative weights
    assert coins(4, 0.5)[0].min() < 0
    assert 4 * (loud[0, 0] - loud[0, 1]) > 1 + loud.sum() + 0.5


@pytest.mark.parametrize("kind", LOTTERIES)
def test_the_mean_step_is_the_mean_gradient(kind):
    mean, _ = noise(WIDE, LOTTERIES[kind](5, 2))
    check("wu-unbiased", measured=mean, predicted=WIDE.mean(1), atol=1e-14)


def test_weights_that_look_at_the_gradients_go_elsewhere():
    lengths = np.linalg.norm(FOUR, axis=0)
    with pytest.raises(CheckFailed):
        check("wu-unbiased", measured=FOUR @ lengths / lengths.sum(), predicted=FOUR.mean(1), atol=1e-9)


@pytest.mark.parametrize(("n", "b"), [(4, 2), (5, 3), (3, 3)])
def test_subsets_have_b_equal_weights(n, b):
    W = sampling.draw("sgd_without_replacement", n, b, rng=np.random.default_rng(0), size=200)
    check("wu-sampling-vector", measured=[np.isclose(W, 1 / b).sum(1), (W == 0).sum(1)],
          predicted=np.tile([[b], [n - b]], 200), atol=1e-12)  # fmt: skip


def test_equal_sampling_covariance_is_equal_noise_covariance():
    for G in (FOUR, MIXED, WIDE):
        n = G.shape[1]
        check("wu-sufficient", measured=noise(G, coins(n, 2))[1], predicted=noise(G, drawn(n, 2))[1], atol=1e-13)
    # and it is not necessary: swap weights that G cannot tell apart
    same, tied = np.ones((1, 2)), (np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.5, 0.5]))
    sure = (np.array([[0.5, 0.5]]), np.array([1.0]))
    np.testing.assert_allclose(noise(same, tied)[1], noise(same, sure)[1], atol=1e-15)


def longest(G, law):
    return np.linalg.norm((law[0] - 1 / G.shape[1]) @ G.T, axis=1).max()


@pytest.mark.parametrize("b", [1, 2, 4])
def test_the_noise_of_sgd_is_bounded(b):
    bound = np.linalg.norm(WIDE - WIDE.mean(1, keepdims=True), axis=0).max()
    for replacement in (True, False):
        check("wu-claim-20", measured=longest(WIDE, drawn(5, b, replacement)), below=bound, rtol=1e-12)


# The loss is a network's: autograd against columns


def small_net():
    g = torch.Generator().manual_seed(5)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, 0, 0.7, generator=g)
    x = torch.randn(6, 3, generator=g, dtype=torch.float64)
    return net, x, torch.tensor([0, 1, 2, 0, 1, 2])


def slope(net, loss):
    return torch.cat([g.ravel() for g in torch.autograd.grad(loss, list(net.parameters()))]).numpy()


def columns(net, x, y):
    """One backward pass an example."""
    return np.stack([slope(net, cross_entropy(net(x[i : i + 1]), y[i : i + 1])) for i in range(len(x))], 1)


def weighted(net, x, y, W):
    losses = cross_entropy(net(x), y, reduction="none")
    return slope(net, (torch.as_tensor(W) * losses).sum())


def test_a_step_is_gradients_times_weights():
    net, x, y = small_net()
    G = columns(net, x, y)
    batch = [2, 2, 5]
    check("wu-product", measured=slope(net, cross_entropy(net(x[batch]), y[batch])),
          predicted=G @ np.bincount(batch, minlength=6) / 3, atol=1e-13)  # fmt: skip
    W = sampling.draw("gaussian_fisher", 6, 2, rng=np.random.default_rng(4))
    assert (W < 0).any()
    check("wu-algorithm-key", measured=weighted(net, x, y, W), predicted=G @ W, atol=1e-13)


P5 = np.array([[1, 0.5], [-1, 0.25], [0.5, -1], [2, 1]]), np.array([1.0, -1, 1, -1])
P5_WEIGHTS = [[0.5, 0.5, 0, 0], [0.25] * 4, [0.7, -0.2, 0.1, 0.4]]


def by_autograd():
    X, y = map(torch.tensor, P5)
    theta = torch.tensor([0.1, -0.2], dtype=torch.float64)
    for W in P5_WEIGHTS:
        theta = theta.detach().requires_grad_()
        (torch.tensor(W, dtype=torch.float64) * softplus(-y * (X @ theta))).sum().backward()
        theta = theta - 0.5 * theta.grad
    return theta.detach().numpy()


def recursion(sign):
    """θ - η g + sign η G V."""
    (X, y), theta = P5, np.array([0.1, -0.2])
    for W in P5_WEIGHTS:
        G = -y / (1 + np.exp(y * (X @ theta))) * X.T
        theta = theta - 0.5 * G.mean(1) + sign * 0.5 * G @ (np.array(W) - 1 / 4)
    return theta


def test_the_sign_of_the_noise():
    check("wu-claim-4", measured=by_autograd(), predicted=recursion(-1), atol=1e-12)
    np.testing.assert_allclose(by_autograd(), [0.20998751211235, -0.32898981697591], atol=1e-12)
    # with a plus SGD has the weights 2/n - w: the same covariance, mirrored
    W, p = drawn(4, 1)
    third = lambda W: p @ ((W - 1 / 4) @ FOUR.T)[:, 0] ** 3  # noqa: E731
    np.testing.assert_allclose(noise(FOUR, (1 / 2 - W, p))[1], noise(FOUR, (W, p))[1], atol=1e-14)
    assert third(1 / 2 - W) == -third(W) != 0


# Drawing a batch


def sgd_covariance(n, b, replacement, factor=True):
    correction = 1.0 if replacement or not factor else (n - b) / (n - 1)
    return correction / (b * n) * (np.eye(n) - 1 / n)


@pytest.mark.parametrize(("n", "b"), [(4, 1), (4, 3), (4, 4), (5, 2), (2, 2)])
@pytest.mark.parametrize("replacement", [True, False], ids=["put back", "different"])
def test_the_lottery_of_sgd_by_listing_every_batch(n, b, replacement):
    law = drawn(n, b, replacement)
    mean, K = moments(law)
    check("wu-claim-1", measured=mean, predicted=np.full(n, 1 / n), atol=1e-14)
    check("wu-claim-1", measured=K, predicted=sgd_covariance(n, b, replacement), atol=1e-14)
    if replacement:
        G = np.random.default_rng(n + b).standard_normal((3, n)) + 1
        check("wu-claim-2", measured=noise(G, law)[1], predicted=disagreement(G) / b, atol=1e-13)


def raw(G, law):
    W, p = law
    v = (W - 1 / G.shape[1]) @ G.T
    return v.T @ (v * p[:, None])


def test_raw_and_central_moments():
    for b in (1, 2, 3):
        check("wu-claim-3", measured=raw(MIXED, drawn(4, b)), predicted=disagreement(MIXED) / b, atol=1e-13)
    one, p = MIXED.T, np.full(4, 1 / 4)  # one example's gradient: here the two second moments differ
    np.testing.assert_allclose(one.T @ (one * p[:, None]), MIXED @ MIXED.T / 4)


def after_doubling(G, b):
    return np.trace(noise(np.tile(G, 2), drawn(2 * G.shape[1], b))[1]) / np.trace(noise(G, drawn(G.shape[1], b))[1])


def test_doubling_the_data_leaves_the_noise():
    check("wu-claim-5", measured=[after_doubling(FOUR, 2), after_doubling(MIXED, 1)], predicted=[1, 1], atol=1e-12)


def spread(eta, b, time=20, runs=4000, seed=0):
    """Mean square, at a training time, of a sum of steps on slopes that do not depend on θ."""
    values = MIXED[0] - MIXED[0].mean()
    steps = round(time / eta)
    drawn = np.random.default_rng(seed).choice(values, (runs, steps, b)).mean(2).sum(1)
    return np.mean((eta * drawn) ** 2)


def test_the_noise_of_training_time_goes_with_the_rate_over_the_batch():
    measured = [spread(0.1, 5), spread(0.2, 10, seed=1)]
    exact = 20 * 0.1 / 5 * MIXED[0].var()
    check("wu-ratio", measured=measured, predicted=[exact, exact], sigmas=4, se=[exact * (2 / 4000) ** 0.5] * 2)


def test_a_bell_for_different_examples_is_scaled_by_a_root():
    n, b = 5, 3
    W, p = bell(n, b, centred=True)
    scaled = 1 / n + math.sqrt((n - b) / (n - 1)) * (W - 1 / n)
    check("wu-both-samplers", measured=moments((scaled, p))[1], predicted=moments(drawn(n, b, False))[1], atol=1e-13)


# Centred or not


def both(n, b, seed, size=4000):
    e = np.random.default_rng(seed).standard_normal((size, n))
    return e, e / math.sqrt(b * n), (e - e.mean(1, keepdims=True)) / math.sqrt(b * n)


@pytest.mark.parametrize(("copies", "b"), [(1, 1), (1, 4), (500, 3)])
def test_uncentred_noise_is_centred_noise_and_a_random_step_length(copies, b):
    G = np.tile(MIXED, copies)
    n, g = G.shape[1], G.mean(1)
    e, free, kept = both(n, b, seed=1)
    xi = e.sum(1) / math.sqrt(n)
    check("ours-random-length", measured=(free - kept) @ G.T, predicted=np.outer(xi, g) / math.sqrt(b), atol=1e-10)
    assert abs(np.corrcoef(xi, kept @ G[0])[0, 1]) < 4 / math.sqrt(len(e))
    assert abs(np.mean(xi**2) - 1) < 4 * math.sqrt(2 / len(e))
    excess = noise(MIXED, bell(4, b, False))[1] - noise(MIXED, bell(4, b, True))[1]
    check("wu-equivalent", measured=excess, predicted=np.outer(MIXED.mean(1), MIXED.mean(1)) / b, atol=1e-12)


def excess(G):
    """|g|² / (tr F - |g|²)."""
    g = G.mean(1)
    return g @ g / np.trace(disagreement(G))


def measured_excess(copies, b):
    G = np.tile(FOUR, copies)
    _, free, kept = both(G.shape[1], b, seed=2)
    ratio = np.mean(((free - kept) @ G.T) ** 2, axis=0).sum() / (np.trace(disagreement(FOUR)) / b)
    return ratio, ratio * math.sqrt(2 / len(free))


@pytest.mark.parametrize(("copies", "b"), [(1, 1), (100, 1), (500, 1), (100, 9)])
def test_the_difference_does_not_shrink_with_the_examples(copies, b):
    ratio, se = measured_excess(copies, b)
    check("wu-claim-9", measured=ratio, predicted=excess(FOUR), sigmas=4, se=se)
    trace = lambda G, centred: np.trace(noise(G, bell(G.shape[1], b, centred))[1])  # noqa: E731
    found = [trace(G, False) / trace(G, True) - 1 for G in (FOUR, MIXED)]
    check("wu-everywhere", measured=found, predicted=[excess(FOUR), excess(MIXED)], rtol=1e-10)
    check("wu-equivalence", measured=np.array(found) + 1, predicted=[1 + excess(FOUR), 1 + excess(MIXED)], rtol=1e-10)


def equal_gradients(centred):
    return noise(np.full((1, 4), 2.0), bell(4, 1, centred))[1]


def test_equal_gradients_tell_the_two_apart():
    found = [equal_gradients(True).item(), equal_gradients(False).item()]
    check("wu-identical", measured=found, predicted=[0, 4], atol=1e-12)


def root(n, b):
    values, vectors = np.linalg.eigh(sgd_covariance(n, b, True))
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


def test_centring_is_the_root_of_the_covariance():
    n, b = 6, 3
    e = np.random.default_rng(0).standard_normal((7, n))
    check("wu-claim-8", measured=sampling.centre(e) / math.sqrt(b * n), predicted=e @ root(n, b), atol=1e-8)
    R = (np.eye(n) - 1 / n) / math.sqrt(b * n)
    check("wu-claim-7", measured=R @ R.T, predicted=moments(drawn(6, 3))[1], atol=1e-13)


def test_noise_without_a_matrix_has_the_covariance_of_the_dense_route():
    values, vectors = np.linalg.eigh(disagreement(WIDE) / 2)
    dense = vectors * np.sqrt(values.clip(0))
    check("wu-remark", measured=noise(WIDE, bell(5, 2, True))[1], predicted=dense @ dense.T, atol=1e-12)


def within(v):
    return np.mean(np.abs(v) < v.std())


def test_gaussian_weights_make_gaussian_noise_and_not_conversely():
    rng, size = np.random.default_rng(7), 100_000
    W = sampling.draw("gaussian_cov", 5, 2, rng=rng, size=size)
    normal = {"predicted": 2 * stats.norm.cdf(1) - 1, "sigmas": 4, "se": math.sqrt(0.683 * 0.317 / size)}
    for row in WIDE:
        check("wu-gaussian-msgd", measured=within((W - 1 / 5) @ row), **normal)
    v = np.array([0.0, 1, 1, -2])
    np.testing.assert_allclose(FOUR @ v, 0)
    hidden = sampling.draw("gaussian_cov", 4, 1, rng=rng, size=size) + rng.choice([-1, 1], (size, 1)) * v
    for row in FOUR:
        check("wu-claim-6", measured=within((hidden - 1 / 4) @ row), **normal)
    with pytest.raises(CheckFailed):
        check("wu-claim-6", measured=within((hidden - 1 / 4) @ v), **normal)


# A batch of random size


def given(k, n, b, G, divisor=None):
    """The mean square of the step, given that k examples say yes, and that of k/b times a batch of k."""
    W, p = asked_alone(n, b)
    those = np.isclose(W.sum(1) * b, k)
    measured = p[those] @ ((W[those] @ G.T) ** 2).sum(1) / p[those].sum()
    steps = drawn(n, k, False)[0] @ G.T * k / (divisor or b)
    return measured, np.mean((steps**2).sum(1))


def test_bernoulli_weights_are_sgd_with_a_random_batch_size():
    for k in (1, 2, 3, 4):
        measured, predicted = given(k, 4, 2, MIXED)
        check("wu-claim-11", measured=measured, predicted=predicted, rtol=1e-12)
    W, p = asked_alone(4, 2)
    sizes = [p[np.isclose(W.sum(1), k / 2)].sum() for k in range(5)]
    np.testing.assert_allclose(sizes, stats.binom.pmf(range(5), 4, 0.5))
    for n, b, G in ((4, 2, MIXED), (4, 1, FOUR), (5, 3, WIDE)):
        F = G @ G.T / n
        check("ours-bernoulli", measured=noise(G, asked_alone(n, b))[1], predicted=(n - b) / n / b * F, atol=1e-13)


def test_the_diagonal_is_that_of_different_examples():
    for n, b in ((4, 2), (5, 3)):
        found = np.diag(moments(asked_alone(n, b))[1])
        check("wu-claim-10", measured=found, predicted=np.diag(moments(drawn(n, b, False))[1]), atol=1e-14)
        W, p = drawn(n, b)
        assert abs(found[0] - (p @ W[:, 0] ** 2 - 1 / n**2)) > 0.01
        np.testing.assert_allclose(np.diag(sampling.covariance("binomial", n, b)), (n - 1) / (b * n**2))


def test_two_weights_of_sgd_are_correlated():
    found = [moments(bell(4, 2, False))[1][0, 1], moments(drawn(4, 2))[1][0, 1]]
    check("wu-independent", measured=found, predicted=[0, -1 / 32], atol=1e-13)


def entrywise(V, b, B):
    """The covariance of √(B/b) V ∘ ε for V uniform on the rows: ε has covariance I, so only squares remain."""
    return np.diag((V**2).mean(0)) * B / b


@pytest.mark.parametrize(("n", "b", "B"), [(4, 2, 3), (4, 1, 2), (5, 2, 4)])
def test_the_printed_sparse_form(n, b, B):
    put_back, different = (drawn(n, B, r)[0] - 1 / n for r in (True, False))
    check("wu-claim-12", measured=entrywise(put_back, b, B), predicted=(n - 1) / (b * n**2) * np.eye(n), atol=1e-14)
    check("wu-claim-12", measured=entrywise(different, b, B), predicted=(n - B) / (b * n**2) * np.eye(n), atol=1e-14)
    check("wu-eq-sparse", measured=(different != 0).sum(1), predicted=np.full(len(different), n), atol=1e-9)
    vectors = drawn(n, B, False)[0]
    np.testing.assert_allclose(entrywise(vectors, b, B), np.eye(n) / (b * n), atol=1e-14)
    check("wu-eq-sparse", measured=(vectors == 0).sum(1) + B, predicted=np.full(len(vectors), n), atol=1e-9)
    np.testing.assert_allclose(sampling.covariance("sparse_cov", n, b, B=B), moments(drawn(n, b))[1], atol=1e-14)


def kurtosis(kind, **options):
    W = sampling.draw(kind, 4, 1, rng=np.random.default_rng(9), size=100_000, **options)
    return stats.kurtosis((W - 1 / 4) @ MIXED.sum(0))


def test_a_sparse_bell_is_no_bell():
    check("wu-sparse-class", measured=kurtosis("sparse_fisher", B=2), above=0.5)


def differ(scale, n=300, b=10, size=40_000):
    """How often two weights with heavy tails differ by less than two of SGD's do in the mean square, and its error."""
    W = sampling.draw("student_t", n, b, rng=np.random.default_rng(12), size=size)[:, :2]
    measured = np.mean((W[:, 0] - W[:, 1]) ** 2 < scale**2 * 2 / (b * n))
    return measured, math.sqrt(measured * (1 - measured) / size)


def two_t_numbers():
    """P(|T - T'| < 2) for Student's t(4): T/√2 has variance 1, so two of them differ by √2 in the mean square."""
    t = stats.t(4)
    density = lambda x: t.pdf(x) * (t.cdf(x + 2) - t.cdf(x - 2))  # noqa: E731
    return quad(density, -np.inf, np.inf)[0]


def test_heavy_tails_differ_as_two_t_numbers_do():
    measured, se = differ(1.0)
    check("ours-digits-centring", measured=measured, predicted=two_t_numbers(), sigmas=4, se=se)
    with pytest.raises(CheckFailed):
        check("ours-digits-centring", measured=differ(1 / math.sqrt(2))[0], predicted=two_t_numbers(), sigmas=4, se=se)
    np.testing.assert_allclose(stats.t(4).var() / 2, 1)


# Digits, on fresh seeds: the prediction was fixed before they were looked at


def digits(seed):
    g = torch.Generator().manual_seed(seed)
    data = ir.datasets.load("digits")
    chosen = torch.randperm(len(data.labels), generator=g)[:300]
    x = torch.as_tensor(data.images.reshape(len(data.images), -1))[chosen]
    y = torch.as_tensor(data.labels)[chosen].clone()
    y[:60] = (y[:60] + torch.randint(1, 10, (60,), generator=g)) % 10
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
                              torch.nn.Linear(64, 10))  # fmt: skip
    for layer in net[::2]:
        torch.nn.init.normal_(layer.weight, 0, (2 / layer.in_features) ** 0.5, generator=g)
        torch.nn.init.zeros_(layer.bias)
    return x, y, net


@cache
def excesses(seed, eta=0.1):
    """What leaving out the centring adds, in all directions and along g, at the start and after 3000 steps.

    One backward pass an example.
    """
    x, y, net = digits(seed)
    rng, found = np.random.default_rng(seed), []
    for steps in (0, 3000):
        for _ in range(steps):
            batch = rng.integers(300, size=10)
            loss = cross_entropy(net(x[batch]), y[batch])
            net.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in net.parameters():
                    p -= eta * p.grad
        G = columns(net, x, y).astype(float)
        g = G.mean(1)
        along = g @ G / np.linalg.norm(g)
        found += [excess(G), np.mean(along**2) / along.var() - 1]
    return found


@pytest.mark.parametrize("seed", [100, 101])
def test_the_mean_gradient_is_short_on_fresh_digits(seed):
    at_start, along, at_end, along_end = excesses(seed)
    check("ours-digits-centring", measured=at_start, below=0.1, above=0.005)
    check("ours-digits-centring", measured=along, above=0.1)
    check("ours-digits-centring", measured=[at_end - at_start, along_end - along], below=0.0)
    check("wu-late", measured=at_end, below=0.02)


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def drawn_twice_counted_once():
    net, x, y = small_net()
    return slope(net, cross_entropy(net(x[[2, 2, 5]]), y[[2, 2, 5]])), columns(net, x, y)[:, [2, 5]].mean(1)


def weights_that_depend_on_theta():
    """The losses themselves as weights: the product rule has another term."""
    net, x, y = small_net()
    losses = cross_entropy(net(x), y, reduction="none")
    return pair(slope(net, (losses * losses).sum() / 6), columns(net, x, y) @ losses.detach().numpy() / 6)


def lesser(measured, below):
    return {"measured": measured, "below": below}


CONTROLS = {  # each with the loosest tolerance that the chapter and the tests allow its claim
    # the disagreement alone, for a lottery whose sum varies
    "ours-two-numbers": ("atol", 1e-9, lambda: pair(
        noise(MIXED, asked_alone(4, 2))[1], 1 / 4 * disagreement(MIXED)
    )),
    # √n lost: the law of large numbers
    "ours-random-length": ("atol", 1e-2, lambda: pair(*(lambda e, free, kept: (
        (free - kept) @ FOUR.T, np.outer(e.mean(1), FOUR.mean(1))
    ))(*both(4, 1, seed=1)))),
    # the covariance in place of the second moment
    "ours-bernoulli": ("atol", 1e-2, lambda: pair(noise(MIXED, asked_alone(4, 2))[1], 1 / 4 * disagreement(MIXED))),
    # training without a step: the excess does not fall
    "ours-digits-centring": ("atol", 1e-3, lambda: lesser(excesses(100, eta=0.0)[2] / excesses(100)[2] - 1, 0.0)),
    # each example once, however often it was drawn
    "wu-product": ("atol", 1e-5, lambda: pair(*drawn_twice_counted_once())),
    # weights that depend on θ: the losses themselves
    "wu-algorithm-key": ("atol", 1e-5, lambda: weights_that_depend_on_theta()),
    # with replacement
    "wu-sampling-vector": ("atol", 1e-9, lambda: pair((drawn(4, 2)[0] == 0).sum(1), np.full(16, 2))),
    # weights 1/b for every example
    "wu-unbiased": ("atol", 1e-9, lambda: pair(noise(WIDE, drawn(5, 2))[0], WIDE.sum(1) / 2)),
    # without the factor (n - b)/(n - 1)
    "wu-claim-1": ("atol", 1e-14, lambda: pair(
        moments(drawn(4, 3, False))[1], sgd_covariance(4, 3, False, factor=False)
    )),
    # the second moment in place of the covariance
    "wu-claim-2": ("atol", 1e-13, lambda: pair(noise(MIXED, drawn(4, 2))[1], MIXED @ MIXED.T / 4 / 2)),
    # as printed: the raw second moment of the noise is F/b
    "wu-claim-3": ("atol", 1e-13, lambda: pair(raw(MIXED, drawn(4, 2)), MIXED @ MIXED.T / 4 / 2)),
    # as printed
    "wu-claim-4": ("atol", 1e-12, lambda: pair(by_autograd(), recursion(1))),
    # as printed: √(n/b)
    "wu-claim-5": ("atol", 1e-12, lambda: pair(after_doubling(MIXED, 2), math.sqrt(2))),
    # the rate over the root of the batch
    "wu-ratio": ("sigmas", 4, lambda: pair(
        spread(0.2, 10, seed=1), 20 * 0.2 / math.sqrt(10) * MIXED[0].var()
    ) | {"se": 20 * 0.2 / 10 * MIXED[0].var() * (2 / 4000) ** 0.5}),
    # the factor itself in place of its root
    "wu-both-samplers": ("atol", 1e-13, lambda: pair(
        moments((1 / 4 + 2 / 3 * (coins(4, 2)[0] - 1 / 4), coins(4, 2)[1]))[1], moments(drawn(4, 2, False))[1]
    )),
    # another covariance
    "wu-sufficient": ("atol", 1e-13, lambda: pair(noise(MIXED, bell(4, 1, False))[1], noise(MIXED, drawn(4, 1))[1])),
    # a lottery that is not SGD's
    "wu-claim-20": ("rtol", 1e-12, lambda: lesser(
        longest(WIDE, bell(5, 1, False)), np.linalg.norm(WIDE - WIDE.mean(1, keepdims=True), axis=0).max()
    )),
    # as printed: the hidden coin would be seen
    "wu-claim-6": ("sigmas", 4, lambda: pair(
        within(np.random.default_rng(0).standard_normal(50_000) + np.random.default_rng(1).choice([-1, 1], 50_000)),
        2 * stats.norm.cdf(1) - 1,
    ) | {"se": math.sqrt(0.683 * 0.317 / 50_000)}),
    # SGD's own weights
    "wu-gaussian-msgd": ("sigmas", 4, lambda: pair(
        within((sampling.draw("sgd", 4, 1, rng=np.random.default_rng(0), size=50_000) - 1 / 4) @ MIXED[0]),
        2 * stats.norm.cdf(1) - 1,
    ) | {"se": math.sqrt(0.683 * 0.317 / 50_000)}),
    # not centred
    "wu-claim-7": ("atol", 1e-13, lambda: pair(np.eye(6) / 18, moments(drawn(6, 3))[1])),
    "wu-claim-8": ("atol", 1e-8, lambda: pair(np.eye(6) / math.sqrt(18), root(6, 3))),
    "wu-remark": ("atol", 1e-12, lambda: pair(noise(WIDE, bell(5, 2, False))[1], disagreement(WIDE) / 2)),
    # as printed: nothing is left of it with many examples
    "wu-claim-9": ("sigmas", 4, lambda: pair(measured_excess(500, 1)[0], excess(FOUR) / 2000) | {
        "se": measured_excess(500, 1)[1]
    }),
    # as printed: the same everywhere
    "wu-everywhere": ("rtol", 1e-3, lambda: pair(
        np.trace(noise(MIXED, bell(4, 1, False))[1]) / np.trace(noise(MIXED, bell(4, 1, True))[1]) - 1, excess(FOUR)
    )),
    "wu-equivalence": ("rtol", 1e-10, lambda: pair(
        np.trace(noise(FOUR, bell(4, 1, False))[1]) / np.trace(noise(FOUR, bell(4, 1, True))[1]), 1.0
    )),
    "wu-equivalent": ("atol", 1e-12, lambda: pair(
        noise(FOUR, bell(4, 1, False))[1] - noise(FOUR, bell(4, 1, True))[1], np.zeros((2, 2))
    )),
    # as printed: identical
    "wu-identical": ("atol", 0.6, lambda: pair(equal_gradients(False).item(), equal_gradients(True).item())),
    # the late phase of a network that has not been trained
    "wu-late": ("atol", 1e-3, lambda: lesser(excesses(100)[0], 0.02)),
    # as printed, of the default sampler
    "wu-claim-10": ("atol", 1e-14, lambda: pair(moments(asked_alone(4, 2))[1][0, 0], moments(drawn(4, 2))[1][0, 0])),
    # divided by k
    "wu-claim-11": ("rtol", 1e-12, lambda: pair(*given(3, 4, 2, MIXED, divisor=3))),
    # SGD's weights taken for independent ones
    "wu-independent": ("atol", 0.015, lambda: pair(moments(drawn(4, 2))[1][0, 1], 0.0)),
    # as printed
    "wu-claim-12": ("atol", 1e-12, lambda: pair(entrywise(drawn(4, 3)[0] - 1 / 4, 2, 3), moments(drawn(4, 2))[1])),
    "wu-eq-sparse": ("atol", 1e-9, lambda: pair((drawn(4, 2, False)[0] - 1 / 4 != 0).sum(1), np.full(12, 2))),
    # a bell on all examples
    "wu-sparse-class": ("atol", 1e-9, lambda: {"measured": kurtosis("gaussian_fisher"), "above": 0.5}),
}  # fmt: skip


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    kind, tolerance, wrong = CONTROLS[claim]
    with pytest.raises(CheckFailed):
        check(claim, **{kind: tolerance}, **wrong())


# Try your own


def own(*changes):
    path = runbook.BOOK / "4-noise" / "01_sampling_noise.ipynb"
    (cell,) = [c.source for c in nbformat.read(path, 4).cells if "G_own" in c.source and c.cell_type == "code"]
    for old, new in changes:
        assert cell.count(old) == 1, old
        cell = cell.replace(old, new)
    return cell


EXPONENTIAL = "rng.exponential(1 / n, (draws, n))"


def off(cell, capsys):
    exec(cell, {"np": np})
    return float(re.search(r"off = ([\d.]+)", capsys.readouterr().out)[1])


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [("[0.25, 1.5, -1.0, 2.0, 0.0]", "[0.25, 1.5, 1.0, 2.0, 3.0]")],
        [(EXPONENTIAL, "rng.multinomial(3, np.ones(n) / n, draws) / 3")],
        [(EXPONENTIAL, "1 / n * rng.standard_normal((draws, 1)) ** 2 * np.ones(n)")],
    ],
    ids=["as it stands", "other gradients", "SGD", "the sum alone varies"],
)
def test_try_your_own_agrees_when_no_example_is_special(changes, capsys):
    assert off(own(*changes), capsys) < 0.05


def test_try_your_own_notices_a_special_example(capsys):
    frozen = own((f"return {EXPONENTIAL}", f"W = {EXPONENTIAL}\n    W[:, 0] = 1 / n\n    return W"))
    assert off(frozen, capsys) > 0.1


def test_try_your_own_needs_tails_that_are_not_very_heavy(capsys):
    heavy = own((EXPONENTIAL, "np.exp(2 * rng.standard_normal((draws, n)) - 2) / n"))
    assert off(heavy, capsys) > 0.05
