"""The chapter on diagrams: each claim by an independent method, and each check with its negative control."""

import re
import warnings
from functools import cache
from itertools import combinations, permutations, product
from math import comb, factorial, prod

import implicitreg as ir
import nbformat
import numpy as np
import pytest
import torch
from implicitreg import FiniteProblem, diagrams, exact, runbook
from implicitreg.checks import CheckFailed, check, rate
from numpy.polynomial import Polynomial

ETA = Polynomial([0.0, 1.0])
FLAT_STEEP = FiniteProblem([lambda t: t[0] ** 2 / 2, lambda t: 3 * t[0] ** 2 / 2], [0.5, 0.5], [1.0])
PLANE = FiniteProblem(
    [
        lambda t: t[0] - t[1] + t[0] ** 2 / 2 + t[0] * t[1] ** 2 / 3,
        lambda t: -t[0] + 2 * t[1] + t[1] ** 2 - t[0] * t[1] / 2 - t[0] ** 3 / 3,
    ],
    [0.4, 0.6],
    [0.5, -0.3],
)
LINEAR = FiniteProblem([lambda t: 2 * t[0] - t[1]], [1.0], [0.3, 0.4])
LOGISTIC = FiniteProblem(
    [lambda t: torch.nn.functional.softplus(-t[0]), lambda t: torch.nn.functional.softplus(-3 * t[0])],
    [0.5, 0.5],
    [0.0],
)
SLOPES = [Polynomial([1.0, 1.0, 1.5]), Polynomial([-2.0, 3.0, -3.0]), Polynomial([0.5, -2.0, 0.9])]
"""Slopes of three cubic losses of one weight, from 0.4."""
CUBICS = FiniteProblem(
    [lambda t, p=p: sum(float(a) * t[0] ** k for k, a in enumerate(p.integ().coef)) for p in SLOPES],
    [1 / 3] * 3,
    [0.4],
)
GRIDS = [(1, 2, 1), (2, 2, 1), (2, 4, 1), (2, 2, 2), (3, 3, 3), (3, 3, 1), (4, 2, 2)]


# One run, in two weights and with losses that are no polynomials: nested derivatives in η against dated pictures


def sine(t):
    return torch.sin(t[0]) * t[1] + t[0] ** 2


def wave(t):
    return torch.exp(0.5 * t[0] - t[1]) + t[0] * t[1] ** 2


def bump(t):
    return torch.tanh(t[0] + 2 * t[1]) ** 2 + t[0]


START = torch.tensor([0.3, -0.2], dtype=torch.float64)
RUN = [sine, wave, bump]


def taylor_of_the_run(order=3):
    def after(eta):
        theta = START
        for loss in RUN:
            theta = theta - eta * torch.func.grad(loss)(theta)
        return bump(theta)

    found, f = [], after
    for k in range(order + 1):
        found.append(float(f(torch.tensor(0.0, dtype=torch.float64))) / factorial(k))
        f = torch.func.grad(f)
    return found


def tensors_of(loss, order=4):
    found, f = [], loss
    for _ in range(order + 1):
        found.append(f(START).numpy())
        f = torch.func.jacfwd(f)
    return found


@cache
def derivative_tensors():
    return [tensors_of(loss) for loss in RUN], tensors_of(bump)


def numbered_pictures(arrows, chains=True):
    """The sum over numbered dated pictures: all dates, all parents that come later."""
    losses, test = derivative_tensors()
    total = 0.0
    for dates in product(range(len(RUN)), repeat=arrows):
        for parents in product(range(arrows + 1), repeat=arrows):
            if any(p < arrows and (dates[i] >= dates[p] or not chains) for i, p in enumerate(parents)):
                continue
            letters = "abcdef"
            words = ["".join(letters[j] for j in range(arrows) if parents[j] == i) for i in range(arrows + 1)]
            operands = [losses[dates[i]][len(words[i]) + 1] for i in range(arrows)] + [test[len(words[-1])]]
            indices = [words[i] + letters[i] for i in range(arrows)] + [words[-1]]
            total += float(np.einsum(",".join(indices) + "->", *operands))
    return (-1) ** arrows * total / factorial(arrows)


def test_one_run_is_the_sum_of_its_dated_pictures():
    check("ours-one-run", measured=taylor_of_the_run(), predicted=[numbered_pictures(k) for k in range(4)], rtol=1e-10)


def test_polynomial_losses_need_finitely_many_pictures():
    found = diagrams.test_loss_series(FLAT_STEEP, N=2, T=2, order=4)
    for eta in (0.1, 1.0, 10.0):
        truth = np.mean([((1 - eta * a) * (1 - eta * b)) ** 2 for a, b in product((1, 3), repeat=2)])
        check("ours-one-run", measured=found @ eta ** np.arange(5), predicted=truth, rtol=1e-12)
        check("tenka-vacuous", measured=exact.run(FLAT_STEEP, eta, N=2, T=2).test_loss, predicted=truth, rtol=1e-12)


# The board


def board(arrows, h, chains=True):
    """Sets of steps, one or two of them, by their sizes; a set of one step only if there are no chains."""
    sets = [s for k in range(1, 3 if chains else 2) for s in combinations((0, 1), k)]
    size = lambda s: prod(h[i] for i in s)  # noqa: E731
    one = [2 * size(s) for s in sets if len(s) == arrows]
    two = [2 * size(s) * size(u) / (1 + (s == u)) for i, s in enumerate(sets) for u in sets[i:]
           if len(s) + len(u) == arrows]  # fmt: skip
    return (-1) ** arrows * (sum(one) + sum(two)) if arrows else 1.0, len(one) + len(two) + (arrows == 0)


@pytest.mark.parametrize("h", [(1, 3), (2, -1), (0.5, 0.7)])
def test_ten_pictures_are_the_loss_after_two_steps(h):
    loss = (Polynomial([1, -h[0]]) * Polynomial([1, -h[1]])) ** 2
    check("tenka-superposition", measured=loss.coef, predicted=[board(k, h)[0] for k in range(5)], rtol=1e-12)
    assert [board(k, h)[1] for k in range(5)] == [1, 2, 4, 2, 1]


# The mean: all training sets and all batch orders, with η a letter


@cache
def letters(N, T, B, order=3):
    """Coefficients of the mean test loss of the cubics, by enumeration."""
    L = sum(SLOPES, Polynomial([0.0])).integ() / 3
    runs, total = 0, np.zeros(order + 1)
    K, orders = N // B, [tuple(range(N))] if B == N else list(permutations(range(N)))
    for points in product(range(3), repeat=N):
        for epochs in product(orders, repeat=-(-T // K)):
            theta = Polynomial([0.4])
            for t in range(T):
                batch = epochs[t // K][(t % K) * B : (t % K + 1) * B]
                slope = sum((SLOPES[points[n]](theta) for n in batch), Polynomial([0.0])) / B
                theta = Polynomial((theta - ETA * slope).coef[: order + 1])
            total[: order + 1] += np.r_[L(theta).coef, np.zeros(order)][: order + 1]
            runs += 1
    return total / runs


@pytest.mark.parametrize("grid", GRIDS[:-1])
def test_mean_is_the_sum_of_pictures_with_ties(grid):
    N, T, B = grid
    found = diagrams.test_loss_series(CUBICS, N=N, T=T, B=B)
    for claim in ("ours-mean-pictures", "tenka-any", "tenka-beyond", "tenka-arbitrary"):
        check(claim, measured=letters(N, T, B), predicted=found, rtol=1e-10)


def test_the_oracle_agrees_on_batches_in_the_plane():
    etas = 0.02 / 2.0 ** np.arange(5)
    for N, T, B in ((4, 4, 2), (4, 2, 2)):
        series = diagrams.test_loss_series(PLANE, N=N, T=T, B=B)
        error = [abs(exact.run(PLANE, e, N=N, T=T, B=B).test_loss - series @ e ** np.arange(4)) for e in etas]
        check("ours-mean-pictures", measured=rate(etas, error), predicted=4, atol=0.15)


def books(strict, moments, arrows=2, T=2):
    found = [float(D.coefficient(T, T, strict=strict)) * D.value(FLAT_STEEP, moments=moments)
             for D in diagrams.enumerate_diagrams(arrows)]  # fmt: skip
    return (-1) ** arrows * sum(found)


@pytest.mark.parametrize("arrows", [2, 3, 4])
def test_two_bookkeepings_agree_and_their_mixtures_do_not(arrows):
    truth = np.mean([(Polynomial([1, -a]) ** 2 * Polynomial([1, -b]) ** 2).coef[arrows]
                     for a, b in product((1, 3), repeat=2)])  # fmt: skip
    for both in (False, True):
        check("ours-two-bookkeepings", measured=books(both, both, arrows), predicted=truth, atol=1e-10)
        assert abs(books(both, not both, arrows) - truth) > 1
    assert [books(True, False), books(False, True)] == [18, 34]


def moments_at_start(problem):
    _, g, h = problem.derivatives(2)
    p = problem.probabilities
    G, H = p @ g, np.tensordot(p, h, 1)
    return G, H, (g - G).T @ np.diag(p) @ (g - G)


def two_arrows(problem, T, untied=None, C=None):
    G, H, covariance = moments_at_start(problem)
    return (T * (T - 0.5) if untied is None else untied) * G @ H @ G + T / 2 * np.trace(
        (covariance if C is None else C) @ H
    )


def curvature_of_the_oracle(problem, T):
    """The coefficient of η² of the oracle, by extrapolation of differences."""
    start = exact.run(problem, 1e-9, N=T, T=T).test_loss
    h = 1e-3
    f = [exact.run(problem, k * h, N=T, T=T).test_loss - problem.loss(problem.theta0) for k in (1, 2, 3, 4)]
    assert np.isfinite(start)
    return np.linalg.solve([[(k * h) ** j for j in (1, 2, 3, 4)] for k in (1, 2, 3, 4)], f)[1]


@pytest.mark.parametrize("T", [1, 2, 3, 5])
def test_two_arrows_with_fresh_examples(T):
    runs = [Polynomial([1, -1]) ** (T - k) * Polynomial([1, -3]) ** k for k in range(T + 1)]
    mean = sum(comb(T, k) / 2**T * (run**2).coef[2] for k, run in enumerate(runs))
    check("ours-two-arrows", measured=mean, predicted=two_arrows(FLAT_STEEP, T), rtol=1e-12)
    assert two_arrows(FLAT_STEEP, T) == T * (T - 0.5) * 8 + T
    check("ours-two-arrows", measured=curvature_of_the_oracle(PLANE, T), predicted=two_arrows(PLANE, T), rtol=1e-5)


def rooted(arrows, ties=True, duplicates=False, fresh=False):
    """Trees with ties, up to renumbering, from scratch."""
    found = set()
    for parents in product(range(arrows + 1), repeat=arrows):
        above = []
        for v in range(arrows):
            path, w = [], v
            while w != arrows and len(path) <= arrows:
                w = parents[w]
                path.append(w)
            above.append(path)
        if any(len(path) > arrows for path in above):
            continue  # a circle
        labellings = product(range(arrows), repeat=arrows) if ties else [tuple(range(arrows))]
        for labels in labellings:
            if fresh and any(w < arrows and labels[v] == labels[w] for v in range(arrows) for w in above[v]):
                continue
            forms = []
            for order in permutations(range(arrows)):
                place = [*order, arrows]
                tree = [0] * arrows
                names = [0] * arrows
                for v in range(arrows):
                    tree[order[v]] = place[parents[v]]
                    names[order[v]] = labels[v]
                seen = {}
                forms.append((tuple(tree), tuple(seen.setdefault(n, len(seen)) for n in names)))
            found.add(forms[0] if duplicates else min(forms))
    return len(found)


@pytest.mark.parametrize("arrows", [1, 2, 3])
def test_numbers_of_pictures(arrows):
    counts = [rooted(arrows, ties=False), rooted(arrows), rooted(arrows, fresh=True)]
    assert counts[0] == [1, 2, 4][arrows - 1]
    check("ours-picture-counts", measured=counts[1:], predicted=[[1, 4, 17][arrows - 1], [1, 3, 9][arrows - 1]],
          atol=0.5)  # fmt: skip
    package = [len(diagrams.enumerate_diagrams(arrows, path_condition=c)) for c in (False, True)]
    assert package == counts[1:]


def test_numbers_of_pictures_with_four_arrows():
    check("ours-picture-counts", measured=[rooted(4, ties=False), len(diagrams.enumerate_diagrams(4)),
          len(diagrams.enumerate_diagrams(4, path_condition=True))], predicted=[9, 101, 37], atol=0.5)  # fmt: skip


# A third derivative


def pulled(sign=1):
    losses = [lambda t, x=sign * x: t[0] ** 2 / 2 + t[0] ** 3 / 12 + x * t[0] for x in (-1, -1, 2)]
    return FiniteProblem(losses, [1 / 3] * 3, [0.0])


def cube_of(pulls, T):
    """The coefficient of η³ of the mean, over all fresh runs."""
    total = 0.0
    for run in product(pulls, repeat=T):
        theta = Polynomial([0.0])
        for x in run:
            theta = Polynomial((theta - ETA * (theta + theta**2 / 4 + x)).coef[:4])
        total += (theta**2 / 2 + theta**3 / 12).coef[3]
    return total / len(pulls) ** T


def by_hand(T, S):
    return -(T * (T - 1) / 2 * 2 + T / 6 * S / 2)


@pytest.mark.parametrize("T", [1, 2, 3])
def test_skewness_enters_with_three_arrows(T):
    for sign in (1, -1):
        found = cube_of([-sign, -sign, 2 * sign], T)
        check("ours-mean-pictures", measured=found, predicted=by_hand(T, 2 * sign), atol=1e-12)
        check("ours-mean-pictures", measured=diagrams.test_loss_series(pulled(sign), N=T, T=T)[3], predicted=found,
              atol=1e-10)  # fmt: skip


def test_one_skewed_example_in_both_steps():
    total = np.zeros(4)
    for x in (-1, -1, 2):
        theta = -ETA * x
        theta = theta - ETA * (theta + theta**2 / 4 + x)
        total += (theta**2 / 2 + theta**3 / 12).coef[:4] / 3
    check("tenka-arbitrary", measured=total, predicted=diagrams.test_loss_series(pulled(), N=1, T=2), atol=1e-12)


# Digits


@cache
def digits():
    data = ir.datasets.load("digits")
    images = data.images.reshape(len(data.images), -1).astype(float)
    values, vectors = np.linalg.eigh(np.cov(images.T, bias=True))
    F = (images - images.mean(0)) @ vectors[:, -10:] / np.sqrt(values[-10:].mean())
    return np.c_[F, np.ones(len(F))], np.where(data.labels % 2 == 1, 1.0, -1.0)


def change_on_digits(eta, T=10):
    """Mean and second moment of θ, separately; the fourth moments by a sum over the images."""
    F, y = digits()
    H, b = F.T @ F / len(F), F.T @ y / len(F)
    m, M = np.zeros(11), np.zeros((11, 11))
    for _ in range(T):
        square = np.einsum("ni,ij,nj->n", F, M, F) - 2 * y * (F @ m) + y**2
        cross = H @ M - np.outer(b, m)
        M = M - eta * (cross + cross.T) + eta**2 * (F * square[:, None]).T @ F / len(F)
        m = m - eta * (H @ m - b)
    return np.sum(H * M) / 2 - b @ m


def left_on_digits(tie):
    etas = 0.001 / 2.0 ** np.arange(5)
    F, y = digits()
    g = -F * y[:, None]
    G, H, C = g.mean(0), F.T @ F / len(F), np.cov(g.T, bias=True)
    return rate(etas, [abs(change_on_digits(e) + 10 * e * G @ G - 95 * e**2 * G @ H @ G
                           - tie * e**2 * np.trace(C @ H)) for e in etas])  # fmt: skip


def test_two_arrows_on_digits():
    check("ours-digits-pictures", measured=left_on_digits(5), predicted=3, atol=0.1)
    F, y = digits()
    g = -F * y[:, None]
    G, H, C = g.mean(0), F.T @ F / len(F), np.cov(g.T, bias=True)
    assert abs(np.trace(H) - 11) < 1e-10
    assert np.ptp(np.diag(H)) > 1.5  # no multiple of the identity
    assert abs(5 * np.trace(C @ H) / (5 * np.trace(C @ H) + 95 * G @ H @ G) - 0.31) < 0.006
    flat = -0.2 * G @ G + 0.038 * G @ H @ G
    off = np.array([flat + 0.002 * np.trace(C @ H), flat]) / change_on_digits(0.02) - 1
    np.testing.assert_allclose(off, [-0.174, 0.060], atol=0.002)
    rng, theta = np.random.default_rng(11), np.zeros((5000, 11))
    for _ in range(10):
        i = rng.integers(len(F), size=5000)
        theta -= 0.01 * ((F[i] * theta).sum(1) - y[i])[:, None] * F[i]
    change = ((theta @ H) * theta).sum(1) / 2 - theta @ (F.T @ y / len(F))
    check("ours-digits-pictures", measured=change.mean(), predicted=change_on_digits(0.01), sigmas=4,
          se=change.std() / 5000**0.5)  # fmt: skip


# What the source printed


def slope_of_the_oracle(problem, T):
    return (exact.run(problem, 1e-6, N=T, T=T).test_loss - problem.loss(problem.theta0)) / 1e-6


@pytest.mark.parametrize("T", [1, 2, 4])
def test_the_loss_falls_by_the_squared_gradient_a_step(T):
    G = moments_at_start(PLANE)[0]
    check("tenka-proposition", measured=slope_of_the_oracle(PLANE, T), predicted=-T * G @ G, rtol=1e-4)
    more = slope_of_the_oracle(PLANE, T + 1) - slope_of_the_oracle(PLANE, T)
    check("tenka-induction", measured=more, predicted=-G @ G, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.1, 0.7, 5.0])
def test_a_noiseless_linear_loss_has_one_arrow(eta):
    moved = exact.run(LINEAR, eta, N=3, T=3).test_loss - 0.2
    check("tenka-linear", measured=moved, predicted=-3 * eta * 5, rtol=1e-12)
    np.testing.assert_allclose(diagrams.test_loss_series(LINEAR, N=3, T=3), [0.2, -15, 0, 0], atol=1e-12)
    noisy = FiniteProblem([lambda t: 3 * t[0], lambda t: t[0] - 2 * t[1]], [0.5, 0.5], [0.3, 0.4])
    assert abs(exact.run(noisy, eta, N=3, T=3).test_loss - 0.2 - moved) < 1e-10  # the same mean


def uses(N, T, B, seed=0):
    rng, found = np.random.default_rng(seed), np.zeros(N)
    for t in range(T):
        if t % (N // B) == 0:
            order = rng.permutation(N)
        found[order[t % (N // B) * B :][:B]] += 1
    return found


@pytest.mark.parametrize(("N", "T", "B"), [(6, 6, 2), (6, 3, 2), (4, 5, 4), (5, 10, 1)])
def test_a_point_is_used_once_an_epoch(N, T, B):
    check("tenka-epochs", measured=uses(N, T, B), predicted=[T * B / N] * N, atol=1e-12)


def tanh_net(x, label, mask):
    def loss(t):
        out = mask * t[1] * torch.tanh(t[0] * x) + t[2] * x
        return torch.nn.functional.softplus(-label * out) + 0.05 * (t**2).sum()

    return loss


TANH = FiniteProblem(
    [tanh_net(1.0, 1, 2), tanh_net(-0.5, 1, 0), tanh_net(0.8, -1, 2)], [0.3, 0.4, 0.3], [0.7, -0.5, 0.2]
)


OCTAVES = 0.08 / 2.0 ** np.arange(5)


def left_over(problem, N, T, B, order, etas=OCTAVES, series=None):
    series = diagrams.test_loss_series(problem, N=N, T=T, B=B, order=order) if series is None else series
    powers = np.arange(len(series))
    return rate(etas, [abs(exact.run(problem, e, N=N, T=T, B=B).test_loss - series @ e**powers) for e in etas])


@pytest.mark.parametrize(
    ("N", "T", "B", "order"), [(2, 2, 1, 2), (2, 4, 1, 2), (2, 2, 2, 3), (4, 2, 2, 2), (3, 3, 1, 4)]
)
def test_a_tanh_network_follows_its_series(N, T, B, order):
    for claim in ("tenka-tanh", "tenka-beyond", "tenka-arbitrary"):
        check(claim, measured=left_over(TANH, N, T, B, order), predicted=order + 1, atol=0.2)


def crossing(eta):
    """What the pictures of |θ| from 0.2 miss after two steps."""
    corner = FiniteProblem([lambda t: torch.abs(t[0])], [1.0], [0.2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        series = diagrams.test_loss_series(corner, N=2, T=2, order=2)
    return exact.run(corner, eta, N=2, T=2).test_loss - series @ [1, eta, eta**2]


def test_kinks_matter_once_they_are_crossed():
    check("tenka-relu", measured=[crossing(0.05), crossing(0.15)], predicted=[0, 0.2], atol=1e-12)
    relu = FiniteProblem(
        [lambda t: (t[1] * torch.relu(t[0]) - 1) ** 2 / 2, lambda t: (t[1] * torch.relu(-2 * t[0] + 3) - 1) ** 2 / 2],
        [0.5, 0.5],
        [0.5, 0.6],
    )
    with pytest.warns(UserWarning, match="kinks"):
        power = left_over(relu, 2, 2, 1, 2, 0.02 / 2.0 ** np.arange(5))
    check("tenka-relu", measured=power, predicted=3, atol=0.15)


def errors_at(problem, eta, T=2):
    series, truth = diagrams.test_loss_series(problem, N=T, T=T, order=4), exact.run(problem, eta, N=T, T=T).test_loss
    return [abs(series[: k + 1] @ eta ** np.arange(k + 1) - truth) for k in range(5)]


def test_more_arrows_can_be_worse_at_a_large_step():
    small, large = errors_at(LOGISTIC, 0.05), errors_at(LOGISTIC, 1.6)
    assert np.all(np.diff(small) < 0)
    check("tenka-vacuous", measured=large[4] / large[1], above=1.0)


def pair(measured, predicted):
    return {"measured": measured, "predicted": predicted}


def without_chains():
    """Dots that only push the test: nobody decides where another one looks."""
    return pair(taylor_of_the_run(), [numbered_pictures(k, chains=False) for k in range(4)])


def strict_cumulants(N, T, B, order=3):
    return [sum((-1) ** k * float(D.coefficient(N, T, B, strict=True)) * D.value(CUBICS)
                for D in diagrams.enumerate_diagrams(k)) for k in range(order + 1)]  # fmt: skip


def untied(N, T, B, order):
    """The series of gradient descent on the population: no ties at all."""
    return [sum((-1) ** k * float(D.coefficient(N, T, B)) * D.value(TANH) for D in diagrams.enumerate_diagrams(k)
                if len(D.ties) == k + 1) for k in range(order + 1)]  # fmt: skip


CONTROLS = {  # each with the loosest tolerance that the chapter and the tests allow its claim
    "ours-one-run": ("rtol", 1e-10, without_chains),
    # covariances with different examples
    "ours-mean-pictures": ("rtol", 1e-3, lambda: pair(letters(2, 2, 1), strict_cumulants(2, 2, 1))),
    # raw moments with all ways
    "ours-two-bookkeepings": ("atol", 1e-10, lambda: pair(26, books(False, True))),
    # T² in place of T(T - 1/2)
    "ours-two-arrows": ("rtol", 1e-5, lambda: pair(curvature_of_the_oracle(PLANE, 3), two_arrows(PLANE, 3, untied=9))),
    # numbered pictures, duplicates not removed
    "ours-picture-counts": ("atol", 0.5, lambda: pair(len(diagrams.enumerate_diagrams(3)), rooted(3, duplicates=True))),
    # no ties
    "ours-digits-pictures": ("atol", 0.1, lambda: pair(left_on_digits(0), 3)),
    "tenka-superposition": ("rtol", 1e-12, lambda: pair(
        ((Polynomial([1, -1]) * Polynomial([1, -3])) ** 2).coef, [board(k, (1, 3), chains=False)[0] for k in range(5)]
    )),
    # a network without its ties
    "tenka-tanh": ("atol", 0.2, lambda: pair(left_over(TANH, 2, 2, 1, 2, series=untied(2, 2, 1, 2)), 3)),
    "tenka-arbitrary": ("atol", 0.2, lambda: pair(left_over(TANH, 3, 3, 1, 4, series=untied(3, 3, 1, 4)), 5)),
    # cut off behind η
    "tenka-beyond": ("atol", 0.2, lambda: pair(left_over(TANH, 3, 3, 1, 1), 5)),
    # the pictures beyond the kink
    "tenka-relu": ("atol", 1e-2, lambda: pair(crossing(0.15), 0.0)),
    # the counts of fresh examples for two epochs
    "tenka-any": ("rtol", 1e-3, lambda: pair(letters(2, 4, 1), diagrams.test_loss_series(CUBICS, N=4, T=4))),
    # as printed
    "tenka-epochs": ("atol", 1e-12, lambda: pair(uses(6, 6, 2), [6 / 6] * 6)),
    "tenka-proposition": ("rtol", 1e-4, lambda: pair(
        slope_of_the_oracle(PLANE, 3), 3 * moments_at_start(PLANE)[0] @ moments_at_start(PLANE)[0]
    )),
    # T² slopes
    "tenka-induction": ("rtol", 1e-4, lambda: pair(
        slope_of_the_oracle(PLANE, 3) - slope_of_the_oracle(PLANE, 2), 5 * slope_of_the_oracle(PLANE, 1)
    )),
    # a bent loss
    "tenka-linear": ("rtol", 1e-12, lambda: pair(
        exact.run(FLAT_STEEP, 0.7, N=3, T=3).test_loss - 1, -3 * 0.7 * 4
    )),
    # a loss that is no polynomial
    "tenka-vacuous": ("rtol", 1e-12, lambda: pair(
        exact.run(LOGISTIC, 1.0, N=2, T=2).test_loss, diagrams.test_loss_series(LOGISTIC, N=2, T=2, order=4).sum()
    )),
}  # fmt: skip


@pytest.mark.parametrize("claim", CONTROLS)
def test_controls(claim):
    kind, tolerance, wrong = CONTROLS[claim]
    with pytest.raises(CheckFailed):
        check(claim, **{kind: tolerance}, **wrong())


def test_noise_without_skewness_and_a_covariance_taken_for_the_hessian_are_found_out():
    with pytest.raises(CheckFailed):
        check("ours-mean-pictures", atol=0.03, measured=cube_of([-1, -1, 2], 2), predicted=by_hand(2, 0))
    with pytest.raises(CheckFailed):
        check("ours-two-arrows", rtol=1e-5, measured=curvature_of_the_oracle(PLANE, 3),
              predicted=two_arrows(PLANE, 3, C=moments_at_start(PLANE)[1]))  # fmt: skip


# Try your own


def own(**changes):
    path = runbook.BOOK / "3-diagrams" / "01_diagrams.ipynb"
    (cell,) = [c.source for c in nbformat.read(path, 4).cells if "N_own" in c.source and c.cell_type == "code"]
    for old, new in changes.values():
        assert cell.count(old) >= 1, old
        cell = cell.replace(old, new)
    return cell, {"np": np, "torch": torch, "FiniteProblem": FiniteProblem, "diagrams": diagrams, "exact": exact}


@pytest.mark.parametrize(
    "changes",
    [{}, {"a": ("4, 2, 2", "2, 4, 1")}, {"a": ("torch.cos(t[0])", "torch.exp(t[0] * t[1])")}],
    ids=["as it stands", "two epochs", "other losses"],
)
def test_try_your_own_has_the_ratio_eight(changes, capsys):
    cell, space = own(**changes)
    exec(cell, space)
    ratios = [float(r) for r in re.findall(r"ratio ([\d.]+)", capsys.readouterr().out)]
    assert len(ratios) == 4
    assert abs(ratios[-1] - 8) < 0.3


def test_try_your_own_warns_of_kinks_and_refuses_odd_batches():
    cell, space = own(a=("torch.cos(t[0])", "torch.relu(t[0])"))
    with pytest.warns(UserWarning, match="kinks"):
        exec(cell, space)
    cell, space = own(a=("4, 2, 2", "4, 2, 3"))
    with pytest.raises(ValueError, match="divisor of N"):
        exec(cell, space)
