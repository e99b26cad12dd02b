"""Sampling vectors against every atom of their laws, against sampling, and against the reference numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicitreg.noise import sampling
from implicitreg.noise.sampling import KINDS, compensation, covariance, draw, gradient_covariance, minibatch_covariance
from noise import laws
from scipy import stats

G = np.array([[1, -2, 3, 0.5], [0.25, 1.5, -1, 2]])  # P1
SUMS_TO_ONE = {"gd", "sgd", "sgd_without_replacement", "gaussian_cov", "sparse_cov", "rademacher", "student_t"}


def symmetric(a, b, d):
    return np.array([[a, b], [b, d]])


def close(actual, desired, atol=1e-12):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=atol)


def rng():
    return np.random.default_rng(13)


@st.composite
def sizes(draw, top=6):
    """(kind, n, b, B) with n at most 6, and a law small enough to list."""
    kind, n = draw(st.sampled_from(KINDS)), draw(st.integers(1, top))
    if kind == "sparse_cov":
        n = max(n, 2)
    most = {"sgd": 4, "binomial": 3}.get(kind, n)
    b = draw(st.integers(1, most))
    if kind == "binomial" and n == 6:
        b = min(b, 2)
    return kind, n, b, draw(st.integers(2 if kind == "sparse_cov" else 1, n))


class Stated(np.random.Generator):
    """A generator whose normal numbers and permutation are stated, for the reference cases."""

    def __init__(self, epsilon, order=()):
        super().__init__(np.random.PCG64(0))
        self.epsilon, self.order = np.array(epsilon, dtype=float), np.array(order, dtype=int)

    def standard_normal(self, size):
        return self.epsilon.reshape(size)

    def permuted(self, x, axis):
        assert sorted(self.order) == x[0].tolist()
        return self.order[None]


# Covariances


@given(sizes())
def test_mean_and_covariance_are_those_of_the_atoms(case):
    kind, n, b, B = case
    mean, K = laws.moments(*laws.law(kind, n, b, B))
    close(mean, 1 / n)
    close(covariance(kind, n, b, B=B), K)


@given(sizes(), st.integers(0, 2**32 - 1))
def test_gradient_covariance_is_that_of_the_vector(case, seed):
    kind, n, b, B = case
    G = np.random.default_rng(seed).standard_normal((3, n))
    close(gradient_covariance(kind, G, b, B=B), G @ covariance(kind, n, b, B=B) @ G.T)


@given(sizes(), st.integers(0, 2**32 - 1))
def test_draws_lie_in_the_support(case, seed):
    """Finite laws: every draw is an atom. The others: weights off the noisy subset are 1/n."""
    kind, n, b, B = case
    W = draw(kind, n, b, B=B, rng=np.random.default_rng(seed), size=20)
    assert W.shape == (20, n)
    if kind in SUMS_TO_ONE:
        close(W.sum(1), 1)
    if kind in ("gd", "sgd", "sgd_without_replacement", "bernoulli", "binomial", "rademacher"):
        atoms = laws.law(kind, n, b)[0]
        assert np.abs(W[:, None] - atoms).max(2).min(1).max() < 1e-12
    if kind.startswith("sparse"):
        assert ((1 / n != W).sum(1) == B).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "b", "B"), [(5, 2, 3), (6, 4, 2)])
def test_draws_have_the_mean_and_the_covariance(kind, n, b, B):
    assert worst_z(draw(kind, n, b, B=B, rng=rng(), size=100_000), covariance(kind, n, b, B=B)) < 4


def worst_z(W, K):
    """The largest deviation of means and products from 1/n and K, in standard errors."""
    n = W.shape[1]
    V = W - 1 / n
    i, j = np.triu_indices(n)
    samples, expected = np.hstack([V, V[:, i] * V[:, j]]), np.concatenate([np.zeros(n), K[i, j]])
    se = samples.std(0, ddof=1) / math.sqrt(len(V))
    return float((np.abs(samples.mean(0) - expected) / np.maximum(se, 1e-15)).max())


@pytest.mark.parametrize(
    ("kind", "cdf"),
    [
        ("gaussian_cov", stats.norm.cdf),
        ("gaussian_fisher", stats.norm.cdf),
        ("student_t", lambda x: stats.t.cdf(x * math.sqrt(2), 4)),
    ],
)
def test_the_noise_has_the_stated_law(kind, cdf):
    n, b = 20_000, 7
    noise = (draw(kind, n, b, rng=rng()) - 1 / n) * math.sqrt(b * n)
    assert stats.kstest(noise, cdf).pvalue > 0.01
    assert stats.kstest(noise, stats.laplace.cdf).pvalue < 1e-6


@pytest.mark.parametrize("kind", ["sparse_fisher", "sparse_cov"])
def test_the_sparse_subset_is_uniform(kind):
    n, B = 5, 3
    subsets = draw(kind, n, 2, B=B, rng=rng(), size=50_000) != 1 / n
    _, how_often = np.unique(subsets, axis=0, return_counts=True)
    assert len(how_often) == math.comb(n, B)
    assert stats.chisquare(how_often).pvalue > 0.01


def test_fisher_is_cov_with_a_random_step_on_the_mean_gradient():
    """Pathwise: v_F = v_C + ξ g / sqrt(b) with ξ = sqrt(n) times the mean of ε; it does not shrink with n."""
    for n in (4, 4000):
        b, g = 3, np.random.default_rng(0).standard_normal((2, n))
        fisher, cov = (draw(kind, n, b, rng=rng()) for kind in ("gaussian_fisher", "gaussian_cov"))
        xi = math.sqrt(n) * rng().standard_normal(n).mean()
        close(g @ (fisher - cov), xi / math.sqrt(b) * g.mean(1))
        difference = covariance("gaussian_fisher", n, b) - covariance("gaussian_cov", n, b)
        close(g @ difference @ g.T, np.outer(g.mean(1), g.mean(1)) / b)


def test_a_gaussian_kind_matches_sampling_without_replacement_after_scaling():
    n, b = 6, 4
    factor = (n - b) / (n - 1)
    close(factor * covariance("gaussian_cov", n, b), covariance("sgd_without_replacement", n, b))


def test_bernoulli_is_sgd_without_replacement_of_random_size():
    """Given K nonzero weights, they are 1/b on a uniform subset of size K ~ Bin(n, b/n)."""
    n, b = 5, 2
    atoms, p = laws.law("bernoulli", n, b)
    K = (atoms > 0).sum(1)
    for k in range(n + 1):
        assert p[k == K].sum() == pytest.approx(stats.binom.pmf(k, n, b / n), rel=1e-12)
        assert np.ptp(p[k == K]) < 1e-15


# the reference cases

P1 = {
    "sgd": symmetric(1.5859375, -0.80859375, 0.677734375),
    "gaussian_cov": symmetric(1.5859375, -0.80859375, 0.677734375),
    "sparse_cov": symmetric(1.5859375, -0.80859375, 0.677734375),
    "sgd_without_replacement": symmetric(1.05729166666667, -0.5390625, 0.45182291666667),
    "gaussian_fisher": symmetric(1.78125, -0.59375, 0.9140625),
    "bernoulli": symmetric(0.890625, -0.296875, 0.45703125),
    "binomial": symmetric(1.3359375, -0.4453125, 0.685546875),
    "sparse_fisher": symmetric(1.78125, -0.59375, 0.9140625),
}


@pytest.mark.parametrize("kind", P1)
def test_P1_gradient_covariances(kind):
    close(gradient_covariance(kind, G, 2, B=3), P1[kind], atol=1e-10)


def test_P1_the_printed_sparse_forms_have_other_covariances():
    """V with replacement, V without, and W with replacement: none is F/b, which the W-form without replacement has."""
    b, B, F_b = 2, 3, P1["sparse_fisher"]
    cases = {
        (True, True): symmetric(1.3359375, -0.4453125, 0.685546875),
        (False, True): symmetric(0.4453125, -0.1484375, 0.228515625),
        (True, False): symmetric(2.671875, -0.890625, 1.37109375),
    }
    for (replacement, centre), expected in cases.items():
        printed = G @ laws.moments(*laws.printed_sparse(4, b, B, replacement, centre))[1] @ G.T
        close(printed, expected, atol=1e-10)
        assert np.abs(printed - F_b).max() > 0.2
    close(G @ laws.moments(*laws.printed_sparse(4, b, B, False, False))[1] @ G.T, F_b)


def test_P2_standard_deviations_of_the_mask():
    n, b, B = 50_000, 100, 1000
    close(B * math.sqrt(compensation("cov", b, B)), 3.00150112593832, atol=1e-10)
    close(B * math.sqrt(compensation("fisher", b, B)), 3, atol=1e-10)
    close(B * math.sqrt(compensation("fisher", b, B, n)), 3.00003000045001, atol=1e-10)
    close(B * math.sqrt(compensation("cov", b, B, ghost=100)), 3.01511344577764, atol=1e-10)
    close(n * math.sqrt(covariance("gaussian_fisher", 4, b)[0, 0] * 4 / n), 22.36067977499790, atol=1e-10)
    for kind, std in {"sparse_fisher": 500, "sparse_cov": 502.51388241540354}.items():
        noise = np.zeros(100)
        noise[:2] = 1, -1  # of mean 0: the centring leaves it alone
        W = draw(kind, n, b, B=100, rng=Stated(noise, np.arange(n)))
        close(n * W[0] - 1, std, atol=1e-9)


def test_P6_weights_from_stated_noise():
    eps, n, b = [0.3, -1.1, 0.8, 2, -0.4], 5, 2
    cov = [0.19367544467966, -0.24904342774391, 0.35178932768808, 0.73126264690829, -0.02768399153212]
    fisher = [0.29486832980505, -0.14785054261852, 0.45298221281347, 0.83245553203368, 0.07350889359326]
    close(draw("gaussian_cov", n, b, rng=Stated(eps)), cov, atol=1e-10)
    close(draw("gaussian_fisher", n, b, rng=Stated(eps)), fisher, atol=1e-10)
    on_S = Stated([eps[1], eps[3], eps[4]], [1, 3, 4, 0, 2])
    expected = [0.2, -0.36647055429995, 0.2, 1.01989159174992, -0.05342103744998]
    close(draw("sparse_cov", n, b, B=3, rng=on_S), expected, atol=1e-10)
    indices, w = sampling.draw_minibatch(compensation("cov", b, 3), n, 3, centred=True, replacement=False, rng=on_S)
    W = np.zeros(n)
    W[indices] = w
    close(W, [0, -0.03232183715343, 0, 0.86257108009049, 0.16975075706294], atol=1e-10)


def test_P7_large_batches():
    n, b, B = 4, 2, 3

    def total(s2, centred):
        return G @ minibatch_covariance(s2, n, B, centred=centred, replacement=False) @ G.T

    close(total(compensation("cov", b, B), True), P1["sgd_without_replacement"], atol=1e-10)
    fisher = symmetric(1.14409722222222, -0.44357638888889, 0.55685763888889)
    close(total(compensation("fisher", b, B, n), False), fisher, atol=1e-10)
    close(total(1 / (b * B), False), symmetric(2.13368055555556, -0.7734375, 1.06467013888889), atol=1e-10)


# Algorithm 2

LARGE = [(4, 2, True), (4, 2, False), (3, 3, False), (5, 4, False), (2, 4, True)]


@pytest.mark.parametrize(("n", "B", "replacement"), LARGE)
@pytest.mark.parametrize(("centred", "ghost"), [(False, None), (True, None), (True, 2), (True, 1)])
def test_total_covariance_is_that_of_all_batches_and_noises(n, B, replacement, centred, ghost):
    if ghost and B % ghost:
        ghost = None
    mean, K = laws.moments(*laws.minibatch(n, B, 0.3, centred, replacement, ghost))
    close(mean, 1 / n)
    close(minibatch_covariance(0.09, n, B, centred=centred, replacement=replacement, ghost=ghost), K)


@given(st.data())
def test_compensated_centred_noise_gives_the_covariance_of_the_small_batch(data):
    """Exactly, for every n, b < B and ghost, with and without replacement."""
    m, ghosts = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 6))
    B = m * ghosts
    b, n = data.draw(st.integers(1, B)), B + data.draw(st.integers(0, 40))
    for replacement, small in ((True, "sgd"), (False, "sgd_without_replacement")):
        s2 = compensation("cov", b, B, n, ghost=m)
        total = minibatch_covariance(s2, n, B, centred=True, replacement=replacement, ghost=m)
        close(total, covariance(small, n, b), atol=1e-14)
        if b < B:  # the number for noise that is not centred is too small
            other = minibatch_covariance(
                compensation("fisher", b, B), n, B, centred=True, replacement=replacement, ghost=m
            )
            assert other[0, 0] < total[0, 0] * (1 - 1e-4)


@given(st.data())
def test_compensated_fisher_noise_leaves_only_an_excess_along_the_mean(data):
    B = data.draw(st.integers(2, 20))
    b, n = data.draw(st.integers(1, B - 1)), B + data.draw(st.integers(0, 40))
    extra = (1 / b - 1 / B) / n  # gg' is n P in the weights
    for replacement, small, share in ((True, "sgd", 1), (False, "sgd_without_replacement", n / (n - 1))):
        s2 = compensation("fisher", b, B, None if replacement else n)
        total = minibatch_covariance(s2, n, B, centred=False, replacement=replacement)
        close(total, covariance(small, n, b) + share * extra / n, atol=1e-14)


@given(st.integers(1, 9), st.integers(2, 9), st.integers(2, 30))
def test_uncompensated_noise_acts_like_a_smaller_batch(b, B, n):
    """Not compensated and centred, with replacement: the effective batch is bB/(B + b - 1), not b."""
    K = minibatch_covariance(1 / (b * B), n, B, centred=True, replacement=True)
    effective = b * B / (B + b - 1)
    close(K, covariance("sgd", n, 1) / effective, atol=1e-14)
    assert effective < b or b == 1
    naive = minibatch_covariance(1 / (b * B), n, B, centred=False, replacement=True)
    close(naive, covariance("sgd", n, B) + np.eye(n) / (b * n), atol=1e-14)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize(("centred", "ghost"), [(False, None), (True, None), (True, 2)])
def test_drawn_large_batches_have_the_total_covariance(replacement, centred, ghost):
    n, B, s2 = 5, 4, 0.03
    law = {"centred": centred, "replacement": replacement, "ghost": ghost}
    indices, w = sampling.draw_minibatch(s2, n, B, **law, rng=rng(), size=100_000)
    W = np.einsum("rk,rkj->rj", w, np.eye(n)[indices])
    assert worst_z(W, minibatch_covariance(s2, n, B, **law)) < 4
    assert worst_z(W, minibatch_covariance(1.2 * s2, n, B, **law)) > 4


# What the source prints, and is not so


def test_the_diagonal_of_sgd_is_binomial_not_bernoulli():
    """Claim 10: Diag Var W of SGD is (n - b)/(bn²) only without replacement."""
    n, b = 6, 3
    bernoulli, binomial = (covariance(kind, n, b) for kind in ("bernoulli", "binomial"))
    close(np.diag(np.diag(covariance("sgd_without_replacement", n, b))), bernoulli)
    close(np.diag(np.diag(covariance("sgd", n, b))), binomial)
    assert np.abs(bernoulli - binomial).max() > 1e-3


def test_the_printed_sparse_noise_vanishes_at_B_equal_n_and_is_not_sparse():
    """Claim 12: its covariance is diagonal, that of SGD is not; at B = n without replacement there is no noise."""
    n, b = 4, 2
    W, p = laws.printed_sparse(n, b, n, replacement=False)
    close(laws.moments(W, p)[1], 0)
    W, p = laws.printed_sparse(n, b, 2, replacement=False)
    assert (1 / n != W).all()
    K = laws.moments(W, p)[1]
    close(K, np.diag(np.diag(K)))
    assert np.abs(K - covariance("sgd", n, b)).max() > 0.02
    close(covariance("sparse_cov", n, b, B=2), covariance("sgd", n, b))


@pytest.mark.parametrize("replacement", [True, False])
def test_draws_of_the_printed_form_fail_the_test_of_the_covariance(replacement):
    n, b, B, r = 5, 2, 3, rng()
    V = draw("sgd" if replacement else "sgd_without_replacement", n, B, rng=r, size=100_000) - 1 / n
    W = 1 / n + math.sqrt(B / b) * V * r.standard_normal(V.shape)
    assert worst_z(W, covariance("sparse_fisher", n, b, B=B)) > 20


@pytest.mark.parametrize("kind", ["gaussian_fisher", "bernoulli", "binomial", "sparse_fisher"])
def test_weights_of_the_fisher_kinds_do_not_sum_to_one(kind):
    W = draw(kind, 20, 4, B=5, rng=rng(), size=2000)
    assert W.sum(1).std() > 0.1


# Shapes, seeds, bad input


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_seeds(kind):
    one, many = (draw(kind, 4, 2, B=3, rng=rng(), size=size) for size in (None, 1))
    assert one.shape == (4,)
    assert one.dtype == np.float64
    np.testing.assert_array_equal(one, many[0])
    assert np.isfinite(draw(kind, 2, 1, B=2, rng=rng())).all()


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"sparse_cov"}))
def test_one_example_is_allowed(kind):
    assert draw(kind, 1, 1, B=1, rng=rng()).shape == (1,)
    assert np.isfinite(covariance(kind, 1, 1, B=1)).all()


def test_centring_in_ghosts():
    close(sampling.centre([[1.0, 3.0, 0.0, 4.0]], ghost=2), [[-1, 1, -2, 2]])
    close(sampling.centre([1.0, 3.0, 0.0, 8.0]), [-2, 0, -3, 5])


two = {"centred": True, "replacement": False}
BAD = {
    "kind": (lambda: draw("sgdd", 4, 2, rng=rng()), r"kind = 'sgdd': expected one of 'gd'"),
    "b 0": (lambda: draw("sgd", 4, 0, rng=rng()), "b = 0: expected an integer >= 1"),
    "b > n": (lambda: covariance("sgd_without_replacement", 4, 5), "b = 5: expected an integer >= 1 and <= 4"),
    "bernoulli": (lambda: covariance("bernoulli", 4, 5), "b = 5"),
    "no B": (lambda: draw("sparse_cov", 4, 2, rng=rng()), "B = None: sparse_cov needs"),
    "B > n": (lambda: covariance("sparse_fisher", 4, 2, B=5), "B = 5: expected an integer >= 1 and <= 4"),
    "B 1": (lambda: covariance("sparse_cov", 4, 2, B=1), "B = 1: expected an integer >= 2"),
    "size": (lambda: draw("sgd", 4, 2, rng=rng(), size=0), "size = 0: expected an integer >= 1"),
    "G": (lambda: gradient_covariance("sgd", [1.0, 2.0], 1), r"G has shape \(2,\)"),
    "compensation": (lambda: compensation("sgd", 1, 2), "kind = 'sgd': expected one of 'cov', 'fisher'"),
    "b > B": (lambda: compensation("cov", 3, 2), "b = 3: expected an integer >= 1 and <= 2"),
    "n < B": (lambda: compensation("fisher", 1, 3, 2), "n = 2: expected an integer >= 3"),
    "ghost": (lambda: compensation("cov", 1, 4, ghost=3), "ghost = 3: expected a divisor of B = 4"),
    "ghost 1": (lambda: compensation("cov", 1, 4, ghost=1), "ghost = 1: expected at least 2"),
    "ghost fisher": (lambda: compensation("fisher", 1, 4, ghost=2), "ghost = 2 with kind = 'fisher'"),
    "s2": (lambda: minibatch_covariance(-1.0, 4, 2, **two), "s2 = -1.0: expected a finite number >= 0"),
    "outer": (lambda: minibatch_covariance(1.0, 4, 5, **two), "B = 5: expected an integer >= 1 and <= 4"),
    "not centred": (
        lambda: minibatch_covariance(1.0, 4, 2, centred=False, replacement=True, ghost=2),
        "ghost = 2 with centred = False",
    ),
    "empty": (lambda: sampling.centre([]), r"epsilon has shape \(0,\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        call()


def test_what_is_of_another_type_is_named():
    with pytest.raises(TypeError, match=r"rng = 0: expected a numpy.random.Generator"):
        draw("sgd", 4, 2, rng=0)
    with pytest.raises(TypeError, match=r"rng = None"):
        sampling.draw_minibatch(0.1, 4, 2, **two, rng=None)
    with pytest.raises(TypeError, match=r"n = 4.0: expected an integer"):
        covariance("sgd", 4.0, 2)
    with pytest.raises(TypeError, match=r"b = True: expected an integer"):
        covariance("sgd", 4, True)
