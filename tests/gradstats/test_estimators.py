"""Estimators are unbiased: their mean over every sample of size 4 from a finite law is the truth, to rounding."""

from itertools import product

import numpy as np
import pytest
import torch
from implicitreg import gradstats
from implicitreg.gradstats import naive
from torch import nn

N = 4
P = np.array([1 / 2, 1 / 3, 1 / 6])
g = np.array([[3.0, -2.0], [0.5, 3.0], [-4.0, 1.0]])  # three gradients
h = np.array([[[2.0, 1.0], [1.0, -1.0]], [[0.0, -3.0], [-3.0, 1.0]], [[1.0, 0.5], [0.5, 4.0]]])  # and Hessians
EXACT = 1e-12
R8 = np.array([[1.0, 2, 0], [0, 1, -1], [3, 1, 1], [-1, 0, 2]])


def truths():
    """Population values of everything that is estimated."""
    G, H = P @ g, np.einsum("i,iab->ab", P, h)
    Sigma = np.einsum("i,ia,ib->ab", P, g - G, g - G)
    grad_trace = 2 * np.einsum("i,iab,ib->a", P, h, g - G)
    return {
        "mean": G, "sq_norm": G @ G, "trace": np.trace(Sigma), "trace_Sigma2": np.trace(Sigma @ Sigma),
        "G_Sigma_G": G @ Sigma @ G, "G4": (G @ G) ** 2, "grad_trace": grad_trace, "G_grad_trace": G @ grad_trace,
        "trace_H_Sigma": np.trace(H @ Sigma), "kappa3": np.einsum("i,ia,iab,ib->", P, g - G, h - H, g - G),
    }  # fmt: skip


def expectation(estimate):
    """The mean of ``estimate(indices)`` over all ordered samples of size 4."""
    samples = list(product(range(3), repeat=N))
    weights = [np.prod(P[list(sample)]) for sample in samples]
    values = np.array([np.asarray(estimate(list(sample))) for sample in samples])
    return np.tensordot(weights, values, 1)


class Quadratic(nn.Module):
    """theta -> g . theta + theta' h theta / 2 at theta = 0, where an input is (g, h)."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x):
        return x[:, :2] @ self.theta + torch.einsum("a,nab,b->n", self.theta, x[:, 2:].view(-1, 2, 2), self.theta) / 2


def arguments(sample):
    inputs = torch.from_numpy(np.concatenate([g[sample], h[sample].reshape(len(sample), 4)], 1))
    return Quadratic(), lambda outputs, _: outputs, inputs, inputs


def gram_of(rows):
    return rows @ rows.T


@pytest.mark.parametrize("name", ["sq_norm", "trace", "trace_Sigma2", "G_Sigma_G", "G4"])
def test_estimator_from_the_gram_matrix_is_unbiased(name):
    truth = truths()[name]
    assert abs(expectation(lambda s: getattr(gradstats.from_gram(gram_of(g[s])), name)) - truth) < EXACT * abs(truth)


@pytest.mark.parametrize("module", [gradstats, naive], ids=["fast", "naive"])
def test_moments_are_unbiased(module):
    def estimate(sample):
        moments = module.moments(*arguments(sample))
        return [*moments.mean.tolist(), float(moments.sq_norm), float(moments.trace)]

    truth = truths()
    assert expectation(estimate) == pytest.approx([*truth["mean"], truth["sq_norm"], truth["trace"]], rel=1e-11)


@pytest.mark.parametrize("module", [gradstats, naive], ids=["fast", "naive"])
def test_gradient_of_the_trace_is_unbiased(module):
    error = expectation(lambda s: module.grad_trace(*arguments(s))) - truths()["grad_trace"]
    assert np.abs(error).max() < EXACT * 100


@pytest.mark.parametrize("module", [gradstats, naive], ids=["fast", "naive"])
def test_curvature_is_unbiased(module):
    names = ["kappa3", "trace_H_Sigma", "G_grad_trace"]

    def estimate(sample):
        curvature = module.curvature(*arguments(sample))
        return [float(getattr(curvature, name)) for name in names]

    assert expectation(estimate) == pytest.approx([truths()[name] for name in names], rel=EXACT)


def test_plug_in_products_are_biased_by_the_third_cumulant():
    """Without the corrections: 2 kappa3 / n and kappa3 / n too much."""

    def plug_in(sample):
        S = np.cov(g[sample].T)
        grad_trace = naive.grad_trace(*arguments(sample)).numpy()
        return [g[sample].mean(0) @ grad_trace, np.trace(h[sample].mean(0) @ S)]

    bias = expectation(plug_in) - [truths()["G_grad_trace"], truths()["trace_H_Sigma"]]
    assert bias == pytest.approx([2 * truths()["kappa3"] / N, truths()["kappa3"] / N], rel=1e-11)
    assert abs(truths()["kappa3"]) > 1


def test_two_halves_are_unbiased():
    def estimate(sample):
        halves = torch.from_numpy(g[sample]).view(2, N // 2, 2).mean(1)
        return gradstats.two_halves(*halves, n=N)

    assert expectation(estimate) == pytest.approx(truths()["trace"], rel=EXACT)


def test_wrong_factors_would_be_seen():
    """The negative controls: 1/n in the trace, the plain squared norm, and the plug-in trace of S²."""
    truth = truths()
    assert abs(expectation(lambda s: np.trace(np.cov(g[s].T, bias=True))) - truth["trace"]) > 0.1 * truth["trace"]
    mean_square = expectation(lambda s: (g[s].mean(0) ** 2).sum())
    assert mean_square - truth["sq_norm"] == pytest.approx(truth["trace"] / N, rel=1e-12)
    plug_in = expectation(lambda s: (np.cov(g[s].T) ** 2).sum())
    assert plug_in > 1.1 * truth["trace_Sigma2"]


# --- four explicit gradients --------------------------------------------------------------------------------------


def linear_model(rows):
    """A model whose per-example gradients are the given rows: the outputs are linear in the weights."""
    x = torch.from_numpy(rows)
    return nn.Linear(x.shape[1], 1, bias=False, dtype=torch.float64), lambda outputs, _: outputs[:, 0], x, x


@pytest.mark.parametrize("module", [gradstats, naive], ids=["fast", "naive"])
def test_explicit_gradients(module):
    model = linear_model(R8)
    moments, gram = module.moments(*model), module.gram(*model)
    assert torch.equal(module.per_example(*model), torch.from_numpy(R8))
    assert moments.mean.tolist() == pytest.approx([3 / 4, 1, 1 / 2], rel=EXACT)
    assert float(moments.sq_norm) == pytest.approx(1 / 2, rel=EXACT)
    assert float(moments.trace) == pytest.approx(21 / 4, rel=EXACT)
    assert torch.equal(gram, torch.from_numpy(R8 @ R8.T))
    assert torch.equal(module.grad_trace(*model), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("as_tensor", [True, False], ids=["tensor", "array"])
def test_estimators_of_explicit_gradients(as_tensor):
    K = R8 @ R8.T
    m = gradstats.from_gram(torch.from_numpy(K) if as_tensor else K)
    values = [m.sq_norm, m.trace, m.trace_Sigma2, m.G_Sigma_G, m.G4, m.r_eff]
    assert [float(v) for v in values] == pytest.approx([1 / 2, 21 / 4, 2, 47 / 12, -4, (21 / 4) ** 2 / 2], rel=EXACT)
    halves = torch.from_numpy(R8).view(2, 2, 3).mean(1)
    assert float(gradstats.two_halves(*halves, n=4)) == pytest.approx(21 / 4, rel=EXACT)


def u_statistics(K):
    """The estimators as means over tuples of different examples."""
    n = len(K)
    four = [t for t in product(range(n), repeat=4) if len(set(t)) == 4]
    q2 = np.mean([K[i, j] ** 2 for i, j, _, _ in four])
    q3 = np.mean([K[i, j] * K[i, k] for i, j, k, _ in four])
    q4 = np.mean([K[i, j] * K[k, l] for i, j, k, l in four])
    return {"trace_Sigma2": q2 - 2 * q3 + q4, "G_Sigma_G": q3 - q4, "G4": q4}


@pytest.mark.parametrize("name", ["trace_Sigma2", "G_Sigma_G", "G4"])
def test_estimators_are_means_over_different_examples(name):
    rows = np.random.default_rng(0).standard_normal((7, 3)) + np.array([1, 2, 0])
    truth = u_statistics(gram_of(rows))[name]
    assert float(getattr(gradstats.from_gram(gram_of(rows)), name)) == pytest.approx(truth, rel=1e-11)


def test_a_large_mean_costs_the_spectrum_no_digits():
    """Of 16 digits, K keeps 16 - 12; the sums of squares of K would keep none."""
    rows = np.random.default_rng(0).integers(-4, 5, (30, 3)).astype(float)
    shifted = gradstats.from_gram(gram_of(rows + 2.0**10))  # integers: K is exact
    plain = gradstats.from_gram(gram_of(rows))
    assert float(shifted.trace_Sigma2) == pytest.approx(float(plain.trace_Sigma2), rel=1e-8)
    assert float(shifted.r_eff) == pytest.approx(float(plain.r_eff), rel=1e-8)


def test_effective_rank_is_nan_where_the_estimate_is_not_positive():
    m = gradstats.from_gram(np.eye(4))  # orthogonal gradients: K is that of any law with tr Sigma^2 = 0
    assert float(m.trace_Sigma2) <= 1e-15
    K = gram_of(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]))
    negative = gradstats.from_gram(K)
    assert float(negative.trace_Sigma2) < 0 or np.isfinite(float(negative.r_eff))
    assert np.isnan(float(negative.r_eff)) == (float(negative.trace_Sigma2) <= 0)


def test_float32_in_float32_out():
    m = gradstats.from_gram(torch.from_numpy(R8 @ R8.T).float())
    assert m.trace.dtype == torch.float32
    assert float(m.trace) == 21 / 4


@pytest.mark.parametrize("exponent", [-1070, -565, 500, 505])
def test_moments_have_units(exponent):
    """The squares vanish where they are below all numbers; the effective rank has no unit."""
    K = np.round(np.random.default_rng(3).normal(size=(6, 9)), 1)
    K = np.round(K @ K.T, 2)
    one, other = gradstats.from_gram(K), gradstats.from_gram(np.ldexp(K, exponent))
    if exponent > -1000:
        assert float(other.r_eff) == float(one.r_eff)
    assert float(other.r_eff) == pytest.approx(float(one.r_eff), rel=0.2)
    for name, degree in (("sq_norm", 1), ("trace", 1), ("trace_Sigma2", 2), ("G_Sigma_G", 2), ("G4", 2)):
        wanted = np.ldexp(np.ldexp(float(getattr(one, name)), exponent), (degree - 1) * exponent)
        assert float(getattr(other, name)) == pytest.approx(wanted, rel=1e-12 if exponent > -1000 else 0.2, abs=0)


def test_moments_beyond_the_numbers_are_refused():
    K = torch.from_numpy(R8 @ R8.T)
    for gram in (K * 1e160, (K * 1e25).float()):
        with pytest.raises(ValueError, match=r"K has entries of size .*in the range of torch\.float"):
            gradstats.from_gram(gram)
    assert float(gradstats.from_gram((K * 1e-30).float()).r_eff) == pytest.approx(
        float(gradstats.from_gram(K).r_eff), rel=1e-6
    )


@pytest.mark.parametrize(
    ("size", "dtype", "p"),
    [(1e-4, torch.float16, 4000), (150.0, torch.float16, 1), (1e-3, torch.bfloat16, 10**5), (1e17, torch.float32, 3)],
)
def test_halves_in_small_numbers(size, dtype, p):
    """The squares of single entries, or their sum in between, are out of range; the trace is not."""
    g = torch.full((p,), size).to(dtype)
    wanted = 2 / 4 * p * (2 * float(g[0])) ** 2
    assert float(gradstats.two_halves(g, -g, 2)) == pytest.approx(wanted, rel=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("size", "dtype"), [(6e4, torch.float16), (1e25, torch.float32), (1e160, torch.float64)])
def test_a_trace_beyond_the_numbers_is_refused(size, dtype):
    with pytest.raises(ValueError, match=f"g_B and g_C have entries of size .*range of {dtype}"):
        gradstats.two_halves(torch.full((3,), size, dtype=dtype), torch.full((3,), -size, dtype=dtype), 4)


def test_halves_have_a_derivative():
    g = torch.tensor([3.0, 1.0], dtype=torch.float64, requires_grad=True)
    gradstats.two_halves(g, torch.zeros(2, dtype=torch.float64), 4).backward()
    assert g.grad.tolist() == [6.0, 2.0]


K = R8 @ R8.T
BAD_GRAM = {
    "not square": (K[:3], ValueError, r"K has shape \(3, 4\): expected \(n, n\)"),
    "three examples": (K[:3, :3], ValueError, r"K has shape \(3, 3\).*n >= 4"),
    "nan": (torch.full((4, 4), float("nan")), ValueError, "K has entries that are not finite"),
    "nan array": (K * np.nan, ValueError, r"K\[0, 0\] = nan"),
    "not symmetric": (torch.from_numpy(np.triu(K)), ValueError, "K differs from its transpose by 5.0e"),
    "negative": (-torch.eye(4), ValueError, r"K has the eigenvalue -1: expected a Gram matrix"),
    "indefinite": (np.ones((4, 4)) - 0.001 * np.eye(4), ValueError, r"K has the eigenvalue -0.001: expected a Gram"),
    "products of different rows": (torch.ones(4, 4).fill_diagonal_(0.5), ValueError, "K has the eigenvalue -0.5"),
    "sparse": (torch.eye(4).to_sparse(), ValueError, "expected a dense matrix"),
    "meta": (torch.eye(4, device="meta"), ValueError, "expected a dense matrix"),
    "words": (np.array([["a"] * 4] * 4), TypeError, "K has dtype"),
    "integers": (torch.eye(4, dtype=torch.int64), TypeError, "K has dtype torch.int64"),
}


@pytest.mark.parametrize(("bad", "error", "message"), BAD_GRAM.values(), ids=BAD_GRAM)
def test_bad_gram_matrix_is_refused(bad, error, message):
    with pytest.raises(error, match=message):
        gradstats.from_gram(bad)


ONE = torch.ones(3)
BAD_HALVES = {
    "array": ((np.ones(3), ONE, 4), TypeError, "g_B is a ndarray"),
    "matrix": ((ONE[None], ONE[None], 4), ValueError, r"g_B has shape \(1, 3\)"),
    "lengths": ((ONE, ONE[:2], 4), ValueError, r"g_C has shape \(2,\)"),
    "nan": ((ONE, ONE * float("nan"), 4), ValueError, "g_C has shape.*finite"),
    "integers": ((ONE.long(), ONE.long(), 4), TypeError, "g_B has dtype torch.int64"),
    "complex": ((ONE + 0j, ONE + 0j, 4), TypeError, "g_B has dtype torch.complex64"),
    "precisions": ((ONE, ONE.double(), 4), ValueError, "g_C has dtype torch.float64.*the other's dtype"),
    "meta": ((ONE.to("meta"), ONE.to("meta"), 4), ValueError, "on meta: expected dense numbers"),
    "odd": ((ONE, ONE, 5), ValueError, "n = 5: expected an even number"),
    "zero": ((ONE, ONE, 0), ValueError, "n = 0"),
    "real": ((ONE, ONE, 4.0), TypeError, "n = 4.0: expected an integer"),
}


@pytest.mark.parametrize(("bad", "error", "message"), BAD_HALVES.values(), ids=BAD_HALVES)
def test_bad_halves_are_refused(bad, error, message):
    with pytest.raises(error, match=message):
        gradstats.two_halves(*bad)
