"""Scalars of networks against full derivative tensors; predictions against enumeration of all training sets."""

import copy
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from implicitreg import FiniteProblem, exact, nets
from implicitreg.diagrams import _directional, networks, predictions
from implicitreg.diagrams.networks import Scalars, estimated_scalars, exact_scalars
from torch import nn
from torch.func import functional_call, hessian, jacfwd, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

CROSS_ENTROPY = partial(F.cross_entropy, reduction="none")


@pytest.fixture(scope="module")
def small():
    """A tanh network with 24 parameters, and five examples of three classes."""
    generator = torch.Generator().manual_seed(1)
    model = nets.mlp((3, 3, 3), seed=2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model, CROSS_ENTROPY, torch.randn(5, 3, generator=generator).double(), torch.tensor([0, 1, 2, 0, 1])


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def loss_of(model, loss, x, y):
    """The loss of one example as a function of the flat parameters, written again."""

    def f(theta):
        values, start = {}, 0
        for name, p in model.named_parameters():
            values[name] = theta[start : start + p.numel()].reshape(p.shape)
            start += p.numel()
        return loss(functional_call(model, values, (x[None],)), y[None])[0]

    return f


def as_problem(model, loss, inputs, targets):
    losses = [loss_of(model, loss, x, y) for x, y in zip(inputs, targets, strict=True)]
    return FiniteProblem(losses, np.full(len(losses), 1 / len(losses)), flat(model).numpy())


def scalars_of(problem):
    """The thirteen from the full tensors of a finite problem."""
    p = problem.probabilities
    l, g, h, j = problem.derivatives(3)
    G, H, J = p @ g, np.tensordot(p, h, 1), np.tensordot(p, j, 1)

    def mean(formula, *others):
        return float(np.einsum(f"n,{formula}->", p, *others, optimize=True))

    def full(formula, *others):
        return float(np.einsum(f"{formula}->", *others, optimize=True))

    return Scalars(
        loss=float(p @ l), GG=full("i,i", G, G), GHG=full("i,ij,j", G, H, G), gHg=mean("ni,ij,nj", g, H, g),
        GHHG=full("i,ij,jk,k", G, H, H, G), JGGG=full("ijk,i,j,k", J, G, G, G),
        JggG=mean("ijk,ni,nj,k", J, g, g, G), gHHg=mean("ni,ij,jk,nk", g, H, H, g),
        GHxHg=mean("i,nij,jk,nk", G, h, H, g), Jggg=mean("ijk,ni,nj,nk", J, g, g, g), gg=mean("ni,ni", g, g),
        GHxg=mean("i,nij,nj", G, h, g), gHxg=mean("ni,nij,nj", g, h, g),
    )  # fmt: skip


@pytest.fixture(scope="module")
def truth(small):
    return scalars_of(as_problem(*small))


# --- exact scalars ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_exact_scalars_are_those_of_the_full_tensors(small, truth, chunk_size):
    ours = exact_scalars(*small, chunk_size=chunk_size)
    np.testing.assert_allclose(ours.values, truth.values, rtol=1e-10)
    assert ours.se is None


def test_scalars_differ_where_their_names_do(truth):
    """No two of the thirteen agree on this network, so that none can stand for another."""
    values = np.sort(truth.values)
    assert (np.diff(values) > 1e-4 * np.abs(values).max()).sum() >= 8
    assert (np.diff(values) > 1e-9).all()


class LayerNorm(nn.LayerNorm):
    """In elementary operations: torch's own has wrong third derivatives, in every mode."""

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return self.weight * centred / ((centred**2).mean(-1, keepdim=True) + self.eps).sqrt() + self.bias


def written_out(model):
    model = copy.deepcopy(model)
    for name, layer in model.named_children():
        if isinstance(layer, nn.LayerNorm):
            setattr(model, name, LayerNorm(layer.normalized_shape, dtype=torch.float64))
    return model


class Attention(nn.Module):
    """Self-attention of two tokens with two coordinates."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x):
        x = x.view(-1, 2, 2)
        return self.attention(x, x, x, need_weights=False)[0].flatten(1)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2), nn.Softplus(), nn.Flatten(), nn.Linear(2, 3)),
        nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.GELU(), nn.Linear(3, 3)),
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Dropout(0.5), nn.Linear(3, 3)).eval(),
        nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3).requires_grad_(False)),
        nn.Sequential(Attention(), nn.Linear(4, 3)),
    ],
    ids=["convolution", "layer-norm", "eval-mode", "frozen-layer", "attention"],
)
def test_other_networks_too(model):
    generator = torch.Generator().manual_seed(0)
    model = model.double()
    x, y = torch.randn(4, 4, generator=generator).double(), torch.tensor([0, 1, 2, 1])
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    theta = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def losses(vector):
        parts = vector.split([theta[name].numel() for name in names])
        values = {name: part.reshape(theta[name].shape) for name, part in zip(names, parts, strict=True)}
        with sdpa_kernel(SDPBackend.MATH):
            return CROSS_ENTROPY(functional_call(written_out(model), values, (x,)), y)

    at = torch.cat([theta[name].reshape(-1) for name in names])
    g, h = jacrev(losses)(at), jacrev(jacrev(losses))(at)
    G, H = g.mean(0), h.mean(0)
    J = jacrev(jacrev(jacrev(lambda t: losses(t).mean())))(at)
    ours = exact_scalars(model, CROSS_ENTROPY, x, y)
    assert ours.Jggg == pytest.approx(torch.einsum("ijk,ni,nj,nk->", J, g, g, g).item() / 4, rel=1e-10, abs=1e-14)
    assert ours.gHHg == pytest.approx((g @ H).square().sum(1).mean().item(), rel=1e-10)
    assert ours.gHxg == pytest.approx(torch.einsum("ni,nij,nj->", g, h, g).item() / 4, rel=1e-10)
    assert ours.GHxHg == pytest.approx(torch.einsum("i,nij,nj->", G, h, g @ H).item() / 4, rel=1e-10)


def test_the_model_is_left_as_it_was(small):
    model = nets.mlp((3, 3, 3), seed=2)
    before = [p.clone() for p in model.parameters()]
    with torch.no_grad():
        exact_scalars(model, *small[1:])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training


def test_float32_has_its_digits(small, truth):
    model, loss, x, y = small
    ours = exact_scalars(copy.deepcopy(model).float(), loss, x.float(), y)
    np.testing.assert_allclose(ours.values, truth.values, rtol=1e-3, atol=1e-5)


def test_exact_scalars_give_exact_coefficients(truth):
    coefficients = networks.test_loss_coefficients(truth, N=2, T=2, order=3)
    assert coefficients.se is None
    assert coefficients.at(0.0) == (truth.loss, None)


def test_third_contraction_is_that_of_the_full_tensor(small):
    model, loss, x, y = small
    directions = torch.randn(7, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mean = lambda theta: sum(loss_of(model, loss, a, b)(theta) for a, b in zip(x, y, strict=True)) / 5  # noqa: E731
    J = jacfwd(hessian(mean))(flat(model))
    expected = torch.einsum("ijk,ni,nj->k", J, directions, directions) / 7
    for chunk_size in (None, 2):
        ours = networks.third_contraction(model, loss, x, y, directions, chunk_size=chunk_size)
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-13)


def test_third_contraction_of_a_quadratic_loss_vanishes():
    model, one = nn.Linear(1, 1, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
    ours = networks.third_contraction(model, lambda w, _: w[:, 0] ** 2, one, one, torch.eye(2, dtype=torch.float64))
    assert ours.tolist() == [0.0, 0.0]


# --- estimates ----------------------------------------------------------------------------------------------


def tiny(m):
    """A network with 5 parameters and m examples."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(m, 1, generator=generator, dtype=torch.float64)
    return nets.mlp((1, 1, 2), seed=4), CROSS_ENTROPY, x, torch.arange(m) % 2


@pytest.mark.parametrize(("m", "batch"), [(3, 1), (2, 2)])
def test_estimates_are_unbiased_over_all_draws(m, batch):
    """All batches without order, each as often as it is drawn, in all four roles."""
    model, loss, x, y = tiny(m)
    batches = list(itertools.combinations_with_replacement(range(m), batch))
    ways = [len(set(itertools.permutations(b))) / m**batch for b in batches]
    draws = torch.tensor(list(itertools.product(batches, repeat=4))).reshape(-1)
    weights = np.array([math.prod(w) for w in itertools.product(ways, repeat=4)])
    ours = estimated_scalars(model, loss, x[draws], y[draws], batch=batch)
    assert ours.draws.shape == (3**4, 13)
    expected = exact_scalars(model, loss, x, y)
    np.testing.assert_allclose(weights @ ours.draws, expected.values, rtol=1e-10, atol=1e-13)


def test_one_batch_for_two_factors_is_biased_until_it_is_corrected():
    """The mean of g_A · H_B g_A over all draws, by the full tensors."""
    model, loss, x, y = tiny(3)
    _, g, h = as_problem(model, loss, x, y).derivatives(2)
    at, b = exact_scalars(model, loss, x, y), 2
    same, independent = [], []
    for A in itertools.product(range(3), repeat=b):
        for B in itertools.product(range(3), repeat=b):
            a, H = g[list(A)].mean(0), h[list(B)].mean(0)
            same.append(a @ H @ a)
            independent += [a @ H @ g[k] for k in range(3)]  # the mean over another batch
    same, independent = np.mean(same), np.mean(independent)
    assert b * same - (b - 1) * independent == pytest.approx(at.gHg, rel=1e-12)
    assert same == pytest.approx(at.gHg / b + (1 - 1 / b) * at.GHG, rel=1e-12)
    assert abs(same / at.gHg - 1) > 0.1


def test_standard_errors_cover_and_count_correlations(small, truth):
    model, loss, x, y = small
    rows = torch.randint(5, (960,), generator=torch.Generator().manual_seed(8))
    ours = estimated_scalars(model, loss, x[rows], y[rows], batch=4, chunk_size=3)
    assert ours.draws.shape == (60, 13)
    se = np.array([ours.se[name] for name in networks.NAMES])
    z = (ours.values - truth.values) / se
    assert (np.abs(z) < 4).all()
    right = networks.test_loss_coefficients(truth, N=4, T=4, order=3)
    estimate = networks.test_loss_coefficients(ours, N=4, T=4, order=3)
    assert (np.abs(estimate.values - right.values) < 4 * estimate.se).all()
    value, error = estimate.at(0.1)
    assert abs(value - right.at(0.1)[0]) < 4 * error
    # the mean over repetitions of the whole polynomial; with the scalars taken for independent it would be another
    repeated = estimate.draws @ 0.1 ** np.arange(4)
    assert error == pytest.approx(repeated.std(ddof=1) / math.sqrt(60), rel=1e-12)
    independent = np.sqrt(((estimate.se * 0.1 ** np.arange(4)) ** 2).sum())
    assert abs(error / independent - 1) > 0.05


def test_chunks_and_a_remainder_change_no_estimate(small):
    model, loss, x, y = small
    rows = torch.randint(5, (51,), generator=torch.Generator().manual_seed(8))
    whole = estimated_scalars(model, loss, x[rows[:48]], y[rows[:48]], batch=6)
    parts = estimated_scalars(model, loss, x[rows], y[rows], batch=6, chunk_size=4)
    np.testing.assert_allclose(parts.draws, whole.draws, rtol=1e-10, atol=1e-14)


# --- predictions against reference values and enumeration ---------------------------------------------------

#  (N, T, B), test loss, training loss (problem A, rational arithmetic)
BATCHES_A = {
    (2, 4, 1): ([0, -1, 51 / 4], [0, -8, 161 / 12]),
    (2, 2, 2): ([0, -1 / 2, 37 / 12], [0, -4, 11 / 4]),
    (3, 2, 3): ([0, -1 / 2, 163 / 72], [0, -17 / 6, 139 / 72]),
    (4, 2, 2): ([0, -1 / 2, 25 / 12], [0, -9 / 4, 7 / 4]),
    (3, 6, 1): ([0, -3 / 2, 173 / 8], [0, -17 / 2, 181 / 8]),
}
FRESH_A = {
    1: [0, -1 / 4, 25 / 16, -23 / 48],
    2: [0, -1 / 2, 85 / 24, -833 / 144],
    3: [0, -3 / 4, 95 / 16, -607 / 36],
    4: [0, -1, 35 / 4, -2495 / 72],
}
FRESH_B = {
    1: [0.309115655006859, -0.842937756143203, 1.09873944548951, -0.172655454458844],
    2: [0.309115655006859, -1.68587551228641, 4.20966566251053, -4.67830675525130],
    3: [0.309115655006859, -2.52881326842961, 9.33277865106307, -19.4990470018177],
    4: [0.309115655006859, -3.37175102457281, 16.4680784111471, -50.6169692935983],
}


@pytest.mark.parametrize("T", FRESH_A)
def test_fresh_examples_have_the_reference_values(problem_a, problem_b, T):
    for problem, table in ((problem_a, FRESH_A), (problem_b, FRESH_B)):
        ours = networks.test_loss_coefficients(scalars_of(problem), N=T, T=T, order=3)
        np.testing.assert_allclose(ours.values, table[T], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("schedule", "test", "train"), [(k, *v) for k, v in BATCHES_A.items()])
def test_batches_and_epochs_have_the_reference_values(problem_a, schedule, test, train):
    N, T, B = schedule
    at = scalars_of(problem_a)
    np.testing.assert_allclose(networks.test_loss_coefficients(at, N=N, T=T, B=B).values, test, atol=1e-12)
    gap = networks.gap_coefficients(at, N=N, T=T, B=B).values
    np.testing.assert_allclose(gap, np.subtract(test, train), atol=1e-12)


@pytest.mark.parametrize("T", [1, 2, 3, 5])
def test_the_cumulant_form_is_the_same(truth, T):
    s, c = truth, truth.cumulants
    third = -(
        T * (T - 1) * (2 * T - 1) / 3 * s.GHHG + T * (4 * T**2 - 3 * T + 1) / 12 * s.JGGG
        + T * (3 * T - 1) / 4 * c["JCG"] + T * (T - 1) / 2 * (c["CHH"] + c["GdCH"]) + T / 6 * c["SJ"]
    )  # fmt: skip
    expected = [s.loss, -T * s.GG, T * (T - 0.5) * s.GHG + T / 2 * c["CH"], third]
    np.testing.assert_allclose(networks.test_loss_coefficients(s, N=T, T=T, order=3).values, expected, rtol=1e-12)


class Weight(nn.Module):
    """One parameter, times the input."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w], dtype=torch.float64))

    def forward(self, x):
        return x * self.w


def polynomial(w, c):
    """c_1 w + c_2 w²/2 + c_3 w³/6 + c_4 w⁴/24 for every example."""
    powers = torch.cat([w, w**2 / 2, w**3 / 6, w**4 / 24], 1)
    return (powers * c).sum(1)


def series(rows, N, T, B):
    """Test and training loss through eta³, over all training sets, for derivatives at w = 0 by rows (m, 4)."""

    def cut(a, b):
        return np.convolve(a, b)[:4]

    def power_sums(c, w, shift):
        """The sum over k of c_k w^(k - shift)/(k - shift)!, a truncated series in eta."""
        total, term = np.zeros(4), np.array([1.0, 0, 0, 0])
        for k in range(5):
            if k >= shift:
                total += c[k] * term
                term = cut(term, w) / (k - shift + 1)
        return total

    rows = np.column_stack([np.zeros(len(rows)), rows])
    totals = np.zeros((2, 4))
    for data in itertools.product(rows, repeat=N):
        w = np.zeros(4)
        for t in range(T):
            start = t * B % N
            gradient = power_sums(np.mean(data[start : start + B], 0), w, 1)
            w = w - np.concatenate([[0], gradient[:3]])
        totals += [power_sums(rows.mean(0), w, 0), power_sums(np.mean(data, 0), w, 0)]
    return totals / len(rows) ** N


SCHEDULES = [(1, 1, 1), (2, 2, 1), (3, 3, 1), (2, 4, 1), (2, 3, 2), (4, 2, 2), (3, 2, 3), (1, 3, 1)]
COEFFICIENTS = st.lists(st.lists(st.floats(-2, 2), min_size=4, max_size=4), min_size=3, max_size=3)


@given(rows=COEFFICIENTS, schedule=st.sampled_from(SCHEDULES))
@settings(max_examples=20, deadline=None)
def test_coefficients_of_any_polynomial_are_those_of_enumeration(rows, schedule):
    N, T, B = schedule
    c = torch.tensor(rows, dtype=torch.float64)
    at = exact_scalars(Weight(0.0), polynomial, torch.ones(3, 1, dtype=torch.float64), c)
    test, train = series(np.array(rows), N, T, B)
    order = 3 if N == T and B == 1 else 2
    ours = networks.test_loss_coefficients(at, N=N, T=T, B=B, order=order).values
    np.testing.assert_allclose(ours, test[: order + 1], atol=1e-9)
    gap = networks.gap_coefficients(at, N=N, T=T, B=B).values
    np.testing.assert_allclose(gap, (test - train)[:3], atol=1e-9)


# --- residuals of truncated predictions ---------------------------------------------------------------------

ETAS = 0.01 / 2 ** np.arange(5)


@pytest.fixture(scope="module")
def runs(small):
    """Exact expectations for the network: T fresh examples, and batches and epochs."""
    problem = as_problem(*small)
    schedules = [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 1), (2, 4, 1), (2, 3, 2), (4, 2, 2)]
    return {(N, T, B): [exact.run(problem, eta, N=N, T=T, B=B) for eta in ETAS] for N, T, B in schedules}


def ratios(exactly, coefficients):
    """Of the residuals at eta and at eta/2, for the two smallest eta."""
    residuals = np.array([value - coefficients.at(eta)[0] for value, eta in zip(exactly, ETAS, strict=True)])
    return (residuals[:-1] / residuals[1:])[-2:]


@pytest.mark.parametrize("T", [1, 2, 3, 4])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_residuals_of_the_test_loss_have_the_next_order(small, runs, T, order):
    coefficients = networks.test_loss_coefficients(exact_scalars(*small), N=T, T=T, order=order)
    found = ratios([run.test_loss for run in runs[T, T, 1]], coefficients)
    np.testing.assert_allclose(found, 2 ** (order + 1), rtol=0.1)


@pytest.mark.parametrize("schedule", [(2, 4, 1), (2, 3, 2), (4, 2, 2)])
@pytest.mark.parametrize("order", [1, 2])
def test_residuals_with_batches_and_epochs_have_the_next_order(small, runs, schedule, order):
    N, T, B = schedule
    coefficients = networks.test_loss_coefficients(exact_scalars(*small), N=N, T=T, B=B, order=order)
    found = ratios([run.test_loss for run in runs[schedule]], coefficients)
    np.testing.assert_allclose(found, 2 ** (order + 1), rtol=0.1)


@pytest.mark.parametrize("schedule", [(1, 1, 1), (2, 2, 1), (4, 4, 1), (2, 4, 1), (2, 3, 2), (4, 2, 2)])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_residuals_of_the_gap_have_the_next_order(small, runs, schedule, order):
    N, T, B = schedule
    coefficients = networks.gap_coefficients(exact_scalars(*small), N=N, T=T, B=B, order=order)
    found = ratios([run.test_loss - run.train_loss for run in runs[schedule]], coefficients)
    np.testing.assert_allclose(found, 2 ** (order + 1), rtol=0.1)


@pytest.mark.parametrize("T", [2, 3, 4])
def test_half_of_the_second_coefficient_leaves_a_residual_of_second_order(small, runs, T):
    """The source's program has C(T,2) GHG instead of 2 C(T,2) GHG."""
    at = exact_scalars(*small)
    right = networks.test_loss_coefficients(at, N=T, T=T, order=3).values
    printed = right - np.array([0, 0, math.comb(T, 2) * at.GHG, 0])
    found = ratios([run.test_loss for run in runs[T, T, 1]], networks.Coefficients(printed))
    np.testing.assert_allclose(found, 4, rtol=0.1)


def test_the_gap_without_its_third_cumulant_leaves_a_residual_of_second_order(small, runs):
    at = exact_scalars(*small)
    wrong = networks.gap_coefficients(at, N=1, T=1).values + np.array([0, 0, at.cumulants["Q"] / 2])
    found = ratios([run.test_loss - run.train_loss for run in runs[1, 1, 1]], networks.Coefficients(wrong))
    np.testing.assert_allclose(found, 4, rtol=0.1)


# --- bad input ----------------------------------------------------------------------------------------------


def test_kinks_are_warned_of(small):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    with pytest.warns(UserWarning, match="ReluBackward0.*no iterate crosses"):
        exact_scalars(model, *small[1:])


def test_max_pooling_is_warned_of(small):
    model = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (1, 4)), nn.AdaptiveMaxPool1d(3), nn.Flatten()).double()
    with pytest.warns(UserWarning, match="AdaptiveMax"):
        exact_scalars(model, *small[1:])


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(3)], ids=["dropout", "batch-norm"])
def test_training_mode_is_refused(small, layer):
    model = nn.Sequential(nn.Linear(3, 3), layer, nn.Tanh(), nn.Linear(3, 3)).double()
    for call in (exact_scalars, partial(estimated_scalars, batch=1)):
        with pytest.raises(ValueError, match=r"expected eval\(\) mode"):
            call(model, *small[1:])


def test_coupling_that_the_ends_do_not_show_is_refused():
    """The first and the last example are equal, so that the mean of theirs is what they are."""

    def loss(w, c):
        return ((w - c.mean(0)) ** 2).sum(1)

    c = torch.tensor([[1.0], [2.0], [0.0], [1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="couples the examples"):
        exact_scalars(Weight(0.3), loss, torch.ones(4, 1, dtype=torch.float64), c)


def test_losses_that_are_not_numbers_are_refused(small):
    model = nets.mlp((3, 3, 3))
    with torch.no_grad():
        next(iter(model.parameters())).fill_(math.nan)
    with pytest.raises(ValueError, match=r"the loss of example \d is not finite"):
        exact_scalars(model, *small[1:])


@pytest.mark.parametrize(("power", "name"), [(0.5, "the gradient"), (1.5, "the Hessian"), (2.5, "the third")])
def test_derivatives_that_are_infinite_are_named(power, name):
    one = torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"{name}.* is not finite"):
        exact_scalars(Weight(0.0), lambda w, _: (w**power + w)[:, 0], one, one)


def test_an_infinite_hessian_in_the_middle_is_found():
    x = torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"the (Hessian|third derivative) of the loss is not finite"):
        exact_scalars(Weight(1.0), lambda w, x: (w[:, 0] - 1 + x[:, 0]) ** 1.5 + w[:, 0], torch.ones_like(x), x)


class Wrong(torch.autograd.Function):
    """The square, with a false rule for forward derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, scale):
        return 2 * ctx.saved_tensors[0] * scale

    @staticmethod
    def jvp(ctx, tangent):
        return 3 * ctx.saved_tensors[0] * tangent


def test_a_false_forward_rule_is_noticed_and_left_alone():
    one = torch.ones(2, 1, dtype=torch.float64)
    s = exact_scalars(Weight(1.0), lambda w, _: Wrong.apply(w)[:, 0], one, one)
    assert (s.GHG, s.gHxg, s.Jggg) == (8.0, 8.0, 0.0)
    theta = torch.ones(1, dtype=torch.float64)
    assert _directional.along(lambda w: Wrong.apply(w).sum(), theta, theta)[0] != 2


@pytest.mark.filterwarnings("ignore:the losses have kinks")
@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU()], ids=["smooth", "kinks"])
def test_false_second_derivatives_are_refused(small, activation):
    first = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    model = nn.Sequential(first, activation, nn.Linear(4, 3)).double()
    with pytest.raises(ValueError, match="not those of differences of gradients"):
        exact_scalars(model, *small[1:])


def test_a_loss_without_second_derivative_in_torch_is_refused():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, scale):
            return scale

    one = torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="derivative"):
        exact_scalars(Weight(1.0), lambda w, _: (Once.apply(w) ** 2)[:, 0], one, one)


def test_control_flow_that_depends_on_values_goes_in_turn():
    def loss(w, c):
        return polynomial(w, c) if float(w.detach().sum()) > -1e9 else polynomial(w, -c)

    one = torch.ones(3, 1, dtype=torch.float64)
    c = torch.tensor([[1.0, 2, 3, 4], [-1, 1, 0, 2], [2, -1, 1, 1]], dtype=torch.float64)
    ours, plain = (exact_scalars(Weight(0.3), f, one, c) for f in (loss, polynomial))
    np.testing.assert_allclose(ours.values, plain.values, rtol=1e-12)


ONE = Scalars(*range(13))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: networks.test_loss_coefficients(ONE, N=2, T=4, order=3), ValueError, "order = 3 with N = 2, T = 4"),
        (lambda m: networks.test_loss_coefficients(ONE, N=2, T=2, B=2, order=3), ValueError, "B = 2: expected N = T"),
        (lambda m: networks.test_loss_coefficients(ONE, N=2, T=3), ValueError, "1.5 epochs of N = 2"),
        (lambda m: networks.test_loss_coefficients(ONE, N=3, T=3, B=2), ValueError, "B = 2: expected a divisor"),
        (lambda m: networks.test_loss_coefficients(ONE, N=2, T=2, order=4), ValueError, "order = 4"),
        (lambda m: networks.gap_coefficients(ONE, N=2, T=2, order=3), ValueError, "order = 3"),
        (lambda m: networks.gap_coefficients(np.ones(13), N=2, T=2), TypeError, "scalars is a ndarray"),
        (lambda m: networks.gap_coefficients(ONE, N=2, T=2).at(-1.0), ValueError, "eta = -1.0"),
        (lambda m: Scalars.from_draws(np.ones((2, 12))), ValueError, r"draws has shape \(2, 12\)"),
        (lambda m: estimated_scalars(*m, batch=1), ValueError, "batch = 1 with 5 examples makes 1 groups"),
        (lambda m: estimated_scalars(*m, batch=0), ValueError, "batch = 0"),
        (lambda m: exact_scalars(*m, chunk_size=0), ValueError, "chunk_size = 0"),
        (lambda m: exact_scalars(*m[:2], m[2].numpy(), m[3]), TypeError, "inputs is a ndarray"),
        (lambda m: exact_scalars(*m[:3], m[3][:4]), ValueError, "inputs has 5 rows and targets 4: expected equal"),
        (lambda m: exact_scalars("net", *m[1:]), TypeError, "model is a str"),
        (lambda m: exact_scalars(m[0], F.cross_entropy, *m[2:]), ValueError, "one loss an example"),
        (lambda m: networks.third_contraction(*m, torch.ones(3)), ValueError, r"expected \(k, 24\)"),
        (lambda m: networks.third_contraction(*m, torch.ones(3, 24)), ValueError, "torch.float32"),
        (lambda m: networks.third_contraction(*m, [1.0]), TypeError, "directions is a list"),
    ],
)
def test_bad_input_is_named(small, call, error, words):
    with pytest.raises(error, match=words):
        call(small)


def test_names_are_the_fields_in_order():
    assert len(predictions.NAMES) == 13
    np.testing.assert_array_equal(ONE.values, range(13))


def test_reverse_and_forward_agree_on_a_straight_line():
    theta = torch.ones(2, dtype=torch.float64)
    assert _directional.along(torch.sum, theta, theta).tolist() == [[0.0, 0.0]] * 2
    assert _directional.along(torch.sum, theta, theta, _directional.reverse).tolist() == [[0.0, 0.0]] * 2
