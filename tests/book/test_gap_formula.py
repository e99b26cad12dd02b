"""The chapter on the gap formula: each claim by an independent method, and each check with its negative control.

The second method is a loop over training sets with gradients and Hessians written by hand. A control runs the claim's
formula with one thing wrong in it, and the check must fail.
"""

import itertools
import math
from functools import partial

import implicitreg
import nbformat
import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, datasets, ensembles, exact, gradstats, nets, runbook
from implicitreg.checks import CheckFailed, check, rate
from implicitreg.gap import onestep

# --- regression on three examples, by hand ------------------------------------------------------------------

P = np.array([1 / 4, 1 / 4, 1 / 2])
A3 = np.array([[1.0, 0], [1, 2], [-1, 1]])
Y3 = np.array([1.0, 0, 2])
START = np.array([1 / 2, -1 / 3])
LOSSES = [lambda t, a=a, y=y: (a @ t - y) ** 2 / 2 for a, y in zip(torch.tensor(A3), Y3, strict=True)]
REGRESSION = FiniteProblem(LOSSES, P, START)
HESSIANS = A3[:, :, None] * A3[:, None, :]


def loss(i, theta):
    return (A3[i] @ theta - Y3[i]) ** 2 / 2


def gradient(i, theta=START):
    return (A3[i] @ theta - Y3[i]) * A3[i]


ROWS = np.array([gradient(i) for i in range(3)])
G = P @ ROWS
H = np.tensordot(P, HESSIANS, 1)
SIGMA = (ROWS - G).T @ np.diag(P) @ (ROWS - G)
TRACE = np.trace(SIGMA)
GRAD_TRACE = 2 * sum(p * (h - H) @ (g - G) for p, h, g in zip(P, HESSIANS, ROWS, strict=True))
KAPPA3 = sum(p * (g - G) @ (h - H) @ (g - G) for p, h, g in zip(P, HESSIANS, ROWS, strict=True))
DRAWS = {n: np.array(list(itertools.product(range(3), repeat=n))) for n in range(1, 5)}
CHANCE = {n: P[d].prod(1) for n, d in DRAWS.items()}


def batch_mean(n, batch):
    """The mean gradient on a batch of indices, for every way to draw n examples."""
    return ROWS[DRAWS[n][:, list(batch)]].mean(1)


def cov(n, A, B):
    return np.einsum("k,ki,kj->ij", CHANCE[n], batch_mean(n, A) - G, batch_mean(n, B) - G)


def changes(eta, N, test=P):
    """Change of training and test loss for every ordered training set of N, by plain loops."""
    train, tests = [], []
    for D in DRAWS[N]:
        theta = START - eta * ROWS[D].mean(0)
        moved = np.array([loss(i, theta) - loss(i, START) for i in range(3)])
        train.append(moved[D].mean())
        tests.append(test @ moved)
    return np.array(train), np.array(tests)


def slope(f, eta=0.1):
    """The first coefficient of a quadratic polynomial."""
    return (4 * f(eta / 2) - f(eta)) / eta


def mean_gap(eta, N=4):
    train, test = changes(eta, N)
    return CHANCE[N] @ (test - train)


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


REPEATED = ((0, 0, 1), (0, 1, 1, 2))


def set_overlap(A, B):
    return len(set(A) & set(B)) / (len(A) * len(B))


def test_covariance_of_batches():
    predicted = onestep.batch_covariance(*REPEATED) * SIGMA
    check("roberts-5", measured=cov(4, *REPEATED), predicted=predicted, atol=1e-12)


def test_different_indices_are_uncorrelated_even_with_equal_values():
    check("roberts-4", measured=cov(4, [0], [3]), predicted=onestep.batch_covariance([0], [3]) * SIGMA, atol=1e-12)


FIXED = ROWS[[0, 1, 2, 2]]


def over_orders(A, B):
    orders = [(FIXED - FIXED.mean(0))[list(o)] for o in itertools.permutations(range(4))]
    return np.mean([np.outer(r[A].mean(0), r[B].mean(0)) for r in orders], axis=0)


def test_disjoint_batches_of_a_fixed_set_are_anticorrelated():
    predicted = onestep.batch_covariance([0, 1], [2, 3], N=4) * np.cov(FIXED.T)
    check("ours-fixed-data-covariance", measured=over_orders([0, 1], [2, 3]), predicted=predicted, atol=1e-12)


def third_moment_of_a_mean(n):
    x = ROWS[DRAWS[n]].mean(1)[:, 0]
    return CHANCE[n] @ (x - G[0]) ** 3


def test_batch_means_are_not_gaussian():
    predicted = P @ (ROWS[:, 0] - G[0]) ** 3 / 4**2
    check("roberts-5-gaussian", measured=third_moment_of_a_mean(4), predicted=predicted, atol=1e-12)


ETAS = 2.0 ** -np.arange(3, 8)


def per_set_remainder(eta, sign=-1.0):
    means = ROWS[DRAWS[3]].mean(1)
    train, test = changes(eta, 3)
    own, other = (means * means).sum(1), means @ G
    return max(np.abs(train - sign * eta * own).max(), np.abs(test - sign * eta * other).max())


def remainder_rate(sign):
    return rate(ETAS, [per_set_remainder(e, sign) for e in ETAS])


def test_remainder_on_every_training_set_is_second_order():
    check("roberts-6", measured=remainder_rate(-1.0), predicted=2, atol=0.15)


def product_of_gradients(A, B, n=4):
    return CHANCE[n] @ (batch_mean(n, A) * batch_mean(n, B)).sum(1)


def test_mean_product_of_batch_gradients():
    for A, B in [((0, 1), (1, 2, 3)), REPEATED, ((0,), (1,))]:
        predicted = G @ G + onestep.batch_covariance(A, B) * TRACE
        check("roberts-7", measured=product_of_gradients(A, B), predicted=predicted, atol=1e-12)
        assert predicted >= 0


def slopes():
    return [slope(lambda e, which=which: CHANCE[4] @ changes(e, 4)[which]) for which in (1, 0)]


def brackets(A, B):
    """The mean product of two batch gradients where G = 0, by a loop over all draws of four."""
    rest = START - np.linalg.solve(H, G)
    rows = np.array([gradient(i, rest) for i in range(3)])
    batches = ((rows[D[list(A)]].mean(0), rows[D[list(B)]].mean(0)) for D in DRAWS[4])
    return sum(w * a @ b for w, (a, b) in zip(CHANCE[4], batches, strict=True)), P @ (rows**2).sum(1)


def test_brackets_can_vanish():
    for A, B in [((0, 1), (2, 3)), ((0, 1), (1, 2, 3)), ((0, 1), (0, 1))]:
        measured, trace = brackets(A, B)
        check("roberts-7-positive", measured=measured, predicted=onestep.batch_covariance(A, B) * trace, atol=1e-12)


def test_mean_changes_of_test_and_training_loss():
    check("roberts-8", measured=slopes(), predicted=[-G @ G, -G @ G - TRACE / 4], atol=1e-12)


def test_mean_gap_of_one_step():
    predicted = onestep.one_step(REGRESSION, 1.0, 4).leading
    check("roberts-9", measured=slope(mean_gap), predicted=predicted, atol=1e-12)


STARTS = ([0.0, 0.0], [1.0, 2.0], [-1.5, 0.25])


def gaps_per_trace(starts=STARTS, power=1):
    """The first-order gap of one step on three examples over a power of tr Sigma, from several starts; by loops."""
    ratios = []
    for theta in map(np.array, starts):
        rows = np.array([gradient(i, theta) for i in range(3)])
        mean, means = P @ rows, rows[DRAWS[3]].mean(1)
        gap = CHANCE[3] @ (means * (means - mean)).sum(1)
        ratios.append(gap / (P @ ((rows - mean) ** 2).sum(1)) ** power)
    return np.array(ratios)


def test_gap_is_proportional_to_the_trace():
    check("roberts-2", measured=gaps_per_trace(), predicted=np.full(3, 1 / 3), atol=1e-12)
    for theta, ratio in zip(STARTS, gaps_per_trace(power=0), strict=True):
        at = onestep.one_step(FiniteProblem(LOSSES, P, theta), 1.0, 3)
        check("roberts-2", measured=ratio, predicted=at.leading, atol=1e-12)


def bias(eta):
    """Mean training minus test loss after a step on a training set of four; eta = 0 is the start."""
    total = 0.0
    for D, w in zip(DRAWS[4], CHANCE[4], strict=True):
        theta = START - eta * ROWS[D].mean(0)
        losses = np.array([loss(i, theta) for i in range(3)])
        total += w * (losses[D].mean() - P @ losses)
    return total


def test_training_loss_is_biased_after_the_step_only():
    check("roberts-remark-biased", measured=[bias(0), bias(0.1)], predicted=[0, -second_order(0.1, 4)], atol=1e-12)
    check("roberts-remark-biased", measured=bias(0.1), predicted=-onestep.one_step(REGRESSION, 0.1, 4).next_order,
          atol=1e-12)  # fmt: skip


AGREEING = FiniteProblem([lambda t: t[0] ** 2 / 2 + t[0], lambda t: 1.5 * t[0] ** 2 + t[0]], [0.5, 0.5], [0.0])


def agreeing_gap(T, eta=0.1, N=500):
    """All binomial training sets of the two losses; theta_T in closed form."""
    k = np.arange(N + 1)
    log = [math.lgamma(N + 1) - math.lgamma(i + 1) - math.lgamma(N - i + 1) for i in k]
    h = 1 + 2 * k / N
    theta = -(1 - (1 - eta * h) ** T) / h
    return float(np.exp(np.array(log) - N * math.log(2)) @ ((2 - h) * theta**2 / 2))


def test_without_variance_one_step_opens_no_gap_and_two_do():
    predicted = [onestep.many_steps(AGREEING, 0.1, 500, T) for T in (1, 2)]
    check("roberts-remark-limits", measured=[agreeing_gap(1), agreeing_gap(2)], predicted=predicted, atol=1e-8)
    assert agreeing_gap(1) == pytest.approx(0, abs=1e-15)
    assert agreeing_gap(2, N=250) == pytest.approx(2 * agreeing_gap(2), rel=1e-2)


def second_order(eta, N, kappa=1.0, slope=1.0):
    return eta * TRACE / N - eta**2 / (2 * N) * (slope * G @ GRAD_TRACE + kappa * KAPPA3 / N)


def test_second_order_is_exact_for_squared_losses():
    predicted = onestep.one_step(REGRESSION, 0.1, 4).next_order
    assert predicted == pytest.approx(second_order(0.1, 4), abs=1e-14)
    check("roberts-remark-next-order", measured=mean_gap(0.1), predicted=predicted, atol=1e-12)


# --- two losses in one dimension: gradient descent on all binomial training sets -----------------------------

MIXTURE = FiniteProblem([lambda t: t[0] ** 4 / 4 - t[0], lambda t: t[0] ** 3 / 3 + t[0] ** 2], [1 / 3, 2 / 3], [1 / 2])


def mixture_gap(eta, N, T):
    k = np.arange(N + 1)
    log = [math.lgamma(N + 1) - math.lgamma(i + 1) - math.lgamma(N - i + 1) for i in k]
    weights = np.exp(np.array(log) + k * math.log(1 / 3) + (N - k) * math.log(2 / 3))
    q, theta = k / N, np.full(N + 1, 0.5)
    for _ in range(T):
        theta = theta - eta * (q * (theta**3 - 1) + (1 - q) * (theta**2 + 2 * theta))
    first, second = theta**4 / 4 - theta, theta**3 / 3 + theta**2
    return float(weights @ ((1 / 3 - q) * first + (q - 1 / 3) * second))


SIZES = 2 ** np.arange(4, 9)


def size_rate(eta, T, formula):
    return rate(SIZES, [abs(mixture_gap(eta, int(N), T) - formula(int(N))) for N in SIZES])


def mixture_path(eta, T):
    """Gradients (c1, c2) of the two losses and their mean curvature, along the population's path."""
    theta, path = 0.5, []
    for _ in range(T + 1):
        a, b = theta**3 - 1, theta**2 + 2 * theta
        path.append((a - b, theta**2 + 2 / 3 * (2 * theta + 2)))
        theta -= eta * (a / 3 + 2 * b / 3)
    return path


def by_hand(eta, T, forget=True):
    """N times the gap: Cov[g(T), prod (1 - eta H) g(t)], where Cov of two-valued variables is 2/9 of their jumps."""
    path = mixture_path(eta, T)
    factor = lambda t: math.prod(1 - eta * path[s][1] for s in range(t + 1, T)) if forget else 1.0  # noqa: E731
    return eta * 2 / 9 * sum(path[T][0] * factor(t) * path[t][0] for t in range(T))


def added_up(eta, T):
    return eta * 2 / 9 * sum(jump**2 for jump, _ in mixture_path(eta, T)[:-1])


def power_of_N(T=3, change=mixture_gap):
    return rate(SIZES, [change(0.2, int(N), T) for N in SIZES])


def gap_of_one_set(eta, N, T):
    """Root mean square of the gap: what one training set may show."""
    k = np.arange(N + 1)
    log = [math.lgamma(N + 1) - math.lgamma(i + 1) - math.lgamma(N - i + 1) for i in k]
    weights = np.exp(np.array(log) + k * math.log(1 / 3) + (N - k) * math.log(2 / 3))
    q, theta = k / N, np.full(N + 1, 0.5)
    for _ in range(T):
        theta = theta - eta * (q * (theta**3 - 1) + (1 - q) * (theta**2 + 2 * theta))
    jump = (theta**4 / 4 - theta) - (theta**3 / 3 + theta**2)
    return math.sqrt(weights @ ((1 / 3 - q) * jump) ** 2)


def test_gap_of_many_steps_falls_like_one_over_N():
    check("roberts-remark-infinite-set", measured=power_of_N(), predicted=-1, atol=0.15)


def test_one_step_of_any_size():
    assert onestep.all_orders(MIXTURE, 0.5, 1) == pytest.approx(by_hand(0.5, 1), rel=1e-12)
    measured = size_rate(0.5, 1, lambda N: onestep.all_orders(MIXTURE, 0.5, N))
    check("ours-gap-all-orders", measured=measured, predicted=-2, atol=0.15)


def test_many_steps_are_not_the_sum():
    assert onestep.many_steps(MIXTURE, 0.2, 1, 4) == pytest.approx(by_hand(0.2, 4), rel=1e-12)
    measured = size_rate(0.2, 4, lambda N: onestep.many_steps(MIXTURE, 0.2, N, 4))
    check("ours-gap-many-steps", measured=measured, predicted=-2, atol=0.15)
    assert added_up(0.2, 4) > 2 * by_hand(0.2, 4)


# --- spread, estimators, two distributions --------------------------------------------------------------------


def spread(N, M):
    values, weights = [], []
    for D, w in zip(DRAWS[N], CHANCE[N], strict=True):
        for A, v in zip(DRAWS[M], CHANCE[M], strict=True):
            gD, gA = ROWS[D].mean(0), ROWS[A].mean(0)
            values.append(gD @ (gD - gA))
            weights.append(w * v)
    mean = np.dot(weights, values)
    return float(np.dot(weights, (np.array(values) - mean) ** 2))


def gaussian_part(N, M):
    trace2 = (SIGMA**2).sum()
    return G @ SIGMA @ G * (1 / N + 1 / M) + 2 * trace2 / N**2 + trace2 / (N * M)


def test_variance_is_that_of_all_training_and_test_sets():
    predicted = onestep.variance(REGRESSION, 3, 2)
    check("roberts-remark-self-average", measured=spread(3, 2), predicted=predicted, atol=1e-12)


def test_relative_spread_grows_without_bound_or_tends_to_a_constant():
    signal, trace2 = G @ SIGMA @ G, (SIGMA**2).sum()
    N = 10**8
    assert onestep.variance(REGRESSION, N, math.inf) ** 0.5 / (TRACE / N) == pytest.approx(
        math.sqrt(N * signal) / TRACE, rel=1e-6
    )
    at_minimum = FiniteProblem(REGRESSION.losses, P, START - np.linalg.solve(H, G))
    there = onestep.moments(at_minimum)
    ratio = onestep.variance(at_minimum, N, math.inf) ** 0.5 / (there.trace / N)
    assert ratio == pytest.approx(math.sqrt(2 * (there.Sigma**2).sum()) / there.trace, rel=1e-4)
    assert 1 <= TRACE**2 / trace2 <= 2


def truths():
    return np.array([G @ G, (SIGMA**2).sum(), G @ SIGMA @ G])


def by_tuples(rows):
    """|G|², tr Sigma², G Sigma G from averages over different indices, by plain loops."""
    K, n = rows @ rows.T, len(rows)
    average = lambda f, k: np.mean([f(*i) for i in itertools.permutations(range(n), k)])  # noqa: E731
    q1, q2 = average(lambda i, j: K[i, j], 2), average(lambda i, j: K[i, j] ** 2, 2)
    q3 = average(lambda i, j, k: K[i, j] * K[j, k], 3)
    q4 = average(lambda i, j, k, l: K[i, j] * K[k, l], 4)
    return np.array([q1, q2 - 2 * q3 + q4, q3 - q4])


def from_gram(rows):
    m = gradstats.from_gram(rows @ rows.T)
    return np.array([float(m.sq_norm), float(m.trace_Sigma2), float(m.G_Sigma_G)])


def plug_in(rows):
    mean, S = rows.mean(0), np.cov(rows.T)
    return np.array([mean @ mean, (S**2).sum(), mean @ S @ mean])


def average_over_samples(estimator, n=4):
    return CHANCE[n] @ np.array([estimator(ROWS[d]) for d in DRAWS[n]])


def test_estimators_are_unbiased():
    check("roberts-estimators", measured=average_over_samples(from_gram), predicted=truths(), atol=1e-12)
    check("roberts-estimators", measured=average_over_samples(by_tuples), predicted=truths(), atol=1e-12)


def curvature_estimates(d, third=None):
    """kappa3 and G . grad tr Sigma from the sample of indices d."""
    n, g, h = len(d), ROWS[d], HESSIANS[d]
    c, k = g - g.mean(0), h - h.mean(0)
    kappa3 = (third or n / ((n - 1) * (n - 2))) * np.einsum("ni,nij,nj->", c, k, c)
    grad_trace = 2 / (n - 1) * np.einsum("nij,nj->i", h, c)
    return np.array([kappa3, g.mean(0) @ grad_trace - 2 / n * kappa3])


def test_estimators_of_curvature_are_unbiased():
    measured = CHANCE[4] @ np.array([curvature_estimates(d) for d in DRAWS[4]])
    check("roberts-estimators", measured=measured, predicted=[KAPPA3, G @ GRAD_TRACE], atol=1e-12)
    naive = CHANCE[4] @ np.array([ROWS[d].mean(0) @ ROWS[d].mean(0) for d in DRAWS[4]])
    assert naive == pytest.approx(G @ G + TRACE / 4, rel=1e-12)


TEST = np.array([1 / 6, 2 / 3, 1 / 6])
G_TEST = TEST @ ROWS
SHIFTED = FiniteProblem(REGRESSION.losses, TEST, START)


def shifted_gaps(eta):
    train, test = changes(eta, 3, TEST)
    return test - train


def test_divergence_of_two_distributions():
    predicted = onestep.divergence(REGRESSION, SHIFTED, 1.0, 3)
    check("roberts-remark-divergence", measured=CHANCE[3] @ slope(shifted_gaps), predicted=predicted, atol=1e-12)


def measured_gradients(extra=0.0):
    means = ROWS[DRAWS[3]].mean(1)
    return (means * (means - G_TEST)).sum(1) + extra


def test_with_measured_gradients_there_is_nothing_to_add():
    check("ours-double-counting", measured=slope(shifted_gaps), predicted=measured_gradients(), atol=1e-12)


def apart(steps, eta=0.3, N=6):
    """Mean square of g^D - G over that of G after training on D, for all multisets of six; by plain loops."""
    difference = size = 0.0
    for D in itertools.combinations_with_replacement(range(3), N):
        counts = np.bincount(D, minlength=3)
        w = math.factorial(N) / math.prod(map(math.factorial, counts)) * math.prod(P**counts)
        theta = START
        for _ in range(steps):
            theta = theta - eta * counts / N @ np.array([gradient(i, theta) for i in range(3)])
        rows = np.array([gradient(i, theta) for i in range(3)])
        own, mean = counts / N @ rows, P @ rows
        difference, size = difference + w * (own - mean) @ (own - mean), size + w * mean @ mean
    return difference / size


def test_training_gradient_leaves_the_test_gradient():
    predicted = [onestep.moments(REGRESSION).trace / 6 / (G @ G), 1]
    check("roberts-remark-quickly", measured=[apart(0), apart(600)], predicted=predicted, atol=1e-6)


# --- digits ---------------------------------------------------------------------------------------------------


def digits_gap(N=64, eta=0.05, sets=100):
    """Mean gap of one step over data sets, by a loop over them; its standard error; eta tr Sigma / N."""
    data = datasets.load("digits", limit=300)
    x, y = torch.tensor(data.images).flatten(1).double(), torch.tensor(data.labels)
    cross_entropy = partial(torch.nn.functional.cross_entropy, reduction="none")
    model = nets.mlp((64, 16, 10), seed=0)
    rows = gradstats.naive.per_example(model, cross_entropy, x, y)
    G, theta, before = rows.mean(0), ensembles.flatten(model), cross_entropy(model(x), y).detach()
    rng, gaps = np.random.default_rng(4), []
    for _ in range(sets):
        D = torch.tensor(rng.integers(len(x), size=N))
        torch.nn.utils.vector_to_parameters(theta - eta * rows[D].mean(0), model.parameters())
        change = cross_entropy(model(x), y).detach() - before
        gaps.append((change.mean() - change[D].mean() - eta * (rows[D].mean(0) - G) @ G).item())
    return {"measured": np.mean(gaps), "se": np.std(gaps, ddof=1) / math.sqrt(sets)}, eta * float(
        ((rows - G) ** 2).sum(1).mean() / N
    )


def test_one_step_on_digits():
    measured, leading = digits_gap()
    check("ours-gap-on-digits", **measured, predicted=leading, sigmas=4, wrong=2 * leading)


def digits_control():
    measured, leading = digits_gap()
    return {**measured, "predicted": 2 * leading, "sigmas": 4}


CONTROLS = {
    # shared indices counted once
    "roberts-5": lambda: pair(cov(4, *REPEATED), set_overlap(*REPEATED) * SIGMA),
    # equal values taken for one example
    "roberts-4": lambda: pair(cov(4, [0], [3]), CHANCE[4][DRAWS[4][:, 0] == DRAWS[4][:, 3]].sum() * SIGMA),
    # the covariance over draws in place of that over orders
    "ours-fixed-data-covariance": lambda: pair(
        over_orders([0, 1], [2, 3]), onestep.batch_covariance([0, 1], [2, 3]) * np.cov(FIXED.T)
    ),
    # the third moment falls like 1/n² and not like 1/n
    "roberts-5-gaussian": lambda: pair(third_moment_of_a_mean(4), P @ (ROWS[:, 0] - G[0]) ** 3 / 4),
    # the step with the wrong sign
    "roberts-6": lambda: {"measured": remainder_rate(1.0), "predicted": 2, "atol": 0.15},
    # one factor |A| forgotten
    "roberts-7": lambda: pair(
        product_of_gradients((0, 1), (1, 2, 3)), G @ G + 2 * onestep.batch_covariance((0, 1), (1, 2, 3)) * TRACE
    ),
    # a batch that shares an example with the other: the second term does not vanish
    "roberts-7-positive": lambda: pair(brackets((0, 1), (1, 2, 3))[0], 0.0),
    # proportional to the square of the trace
    "roberts-2": lambda: pair(gaps_per_trace(power=2), np.full(3, gaps_per_trace(power=2)[0])),
    # unbiased after the step as well
    "roberts-remark-biased": lambda: pair([bias(0), bias(0.1)], [0, 0]),
    # one training set in place of the mean
    "roberts-remark-infinite-set": lambda: {**pair(power_of_N(change=gap_of_one_set), -1), "atol": 0.15},
    # as far apart after training as before
    "roberts-remark-quickly": lambda: pair([apart(0), apart(600)], [apart(0)] * 2),
    # the enhancement with the wrong sign
    "roberts-8": lambda: pair(slopes(), [-G @ G, -G @ G + TRACE / 4]),
    # N - 1 in place of N
    "roberts-9": lambda: pair(slope(mean_gap), TRACE / (4 - 1)),
    # the one-step formula added up: its second term has the wrong product
    "roberts-remark-limits": lambda: {
        **pair(agreeing_gap(2), 0.1 * sum(onestep.moments(AGREEING, [t]).trace for t in (0.0, -0.1)) / 500),
        "atol": 1e-8,
    },
    # the factor ½ of the second order forgotten
    "roberts-remark-next-order": lambda: pair(mean_gap(0.1), second_order(0.1, 4, 2, 2)),
    # the gradient at the start twice
    "ours-gap-all-orders": lambda: {
        "measured": size_rate(0.5, 1, lambda N: 0.5 * 2 / 9 * mixture_path(0.5, 0)[0][0] ** 2 / N),
        "predicted": -2,
        "atol": 0.15,
    },
    # nothing forgotten
    "ours-gap-many-steps": lambda: {
        "measured": size_rate(0.2, 4, lambda N: by_hand(0.2, 4, forget=False) / N),
        "predicted": -2,
        "atol": 0.15,
    },
    # Gaussian gradients assumed
    "roberts-remark-self-average": lambda: pair(spread(3, 2), gaussian_part(3, 2)),
    # plug-in
    "roberts-estimators": lambda: pair(average_over_samples(plug_in), truths()),
    # the printed sign
    "roberts-remark-divergence": lambda: pair(CHANCE[3] @ slope(shifted_gaps), TRACE / 3 + G @ (G_TEST - G)),
    # the fluctuation counted twice
    "ours-double-counting": lambda: pair(slope(shifted_gaps), measured_gradients(TRACE / 3)),
    # twice the gap
    "ours-gap-on-digits": digits_control,
}


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    arguments = CONTROLS[claim]()
    tolerance = {} if {"sigmas", "atol"} & set(arguments) else {"atol": 1e-4}
    with pytest.raises(CheckFailed):
        check(claim, **tolerance, **arguments)


# --- try your own ---------------------------------------------------------------------------------------------

CHAPTER = runbook.BOOK / "2-gap" / "01_gap_formula.ipynb"


def exact_gap(problem, eta, N, T=1):
    after = exact.run(problem, eta, N=N, T=T, B=N)
    return after.test_loss - after.train_loss


def try_your_own(capsys, **changed):
    """Run the cell under Try your own with some of its names changed, and return the numbers that it printed."""
    code = [c.source for c in nbformat.read(CHAPTER, 4).cells if c.cell_type == "code" and "p_own" in c.source][-1]
    lines = code.replace("p_own, theta_own, eta_own, N_own = ", "p_own, theta_own, eta_own, N_own = start = ")
    assert "= start = " in lines
    head, rest = lines.split("own = ir.FiniteProblem", 1)
    names = {"ir": implicitreg, "torch": torch, "np": np, "onestep": onestep, "exact_gap": exact_gap}
    exec(head, names)
    names.update(changed)
    exec("own = ir.FiniteProblem" + rest, names)
    printed = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    own, eta, N = names["own"], names["eta_own"], names["N_own"]
    assert [name.strip() for name, _ in printed] == [
        "exact", "first order", "second order", "all orders", "one set's standard deviation"]  # fmt: skip
    exactly = exact_gap(own, eta, N)
    assert float(printed[0][1]) == pytest.approx(exactly, abs=1e-6)
    return exactly - onestep.one_step(own, eta, N).next_order, exactly - onestep.all_orders(own, eta, N)


def test_try_your_own_orders(capsys):
    """Of the cell's problem and of another: by eight when a small eta is halved, by four when N is doubled."""
    quartic = [lambda t: (t[0] - 1) ** 4 / 4 + t[1] ** 2, lambda t: torch.cosh(t[0] + t[1])]
    for changed in ({}, {"losses": quartic, "p_own": [0.3, 0.7], "theta_own": [0.2, 0.1]}):
        coarse, fine = (try_your_own(capsys, eta_own=eta, **changed)[0] for eta in (0.5 / 2**6, 0.5 / 2**7))
        assert 6.5 < coarse / fine < 9.5
        few, many = (try_your_own(capsys, eta_own=0.1, N_own=N, **changed)[1] for N in (24, 48))
        assert 3.5 < few / many < 4.5


def test_try_your_own_refusals(capsys):
    cubic = {"losses": [lambda t: t[0] ** 4, lambda t: t[0] ** 3], "p_own": [0.5, 0.5], "theta_own": [0.5]}
    for changed, words in [
        ({"eta_own": 1e200, **cubic}, "overflow"),
        ({"p_own": [0.5, 0.4, 0.2]}, "sum"),
        ({"theta_own": [0.5]}, "1 parameters"),
        ({"losses": [lambda t: np.sin(t[0])] * 3}, "losses\\[0\\]"),
        ({"N_own": 10**5}, "N = 100000"),
    ]:
        with pytest.raises(ValueError, match=words):
            try_your_own(capsys, **changed)


def test_the_oracle_agrees_with_these_loops():
    run = exact.run(MIXTURE, 0.2, N=16, T=4, B=16)
    assert run.test_loss - run.train_loss == pytest.approx(mixture_gap(0.2, 16, 4), abs=1e-14)
    run = exact.run(REGRESSION, 0.1, N=4, T=1, B=4)
    assert run.test_loss - run.train_loss == pytest.approx(mean_gap(0.1), abs=1e-14)
