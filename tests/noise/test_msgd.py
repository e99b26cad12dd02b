"""Weights against every atom of their laws and their covariances; training against loops over all examples."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitreg import nets, training
from implicitreg.noise import msgd
from implicitreg.noise.msgd import KINDS, LANGEVIN, Weights, train
from noise import laws
from scipy import stats
from torch.nn import functional as F

N, b, B = 6, 2, 3
STEPS = 10_000
WEIGHTS = [kind for kind in KINDS if kind not in LANGEVIN]
FINITE = ["sgd", "sgd_without_replacement", "bernoulli", "binomial", "rademacher", "sgd_epochs"]
DENSE = {"gd", "gaussian_cov", "gaussian_fisher", "sparse_fisher", "sparse_cov", "rademacher", "student_t"}


def dense(weights, step):
    index, w = weights.draw(step)
    return np.bincount(index, w, minlength=weights.n)


@cache
def draws(kind, seed=5):
    """W of independent steps; of an epoch, one step in turn."""
    weights, K = Weights(kind, N, b, B, seed), N // b
    steps = range(STEPS) if kind != "sgd_epochs" else (K * e + e % K for e in range(STEPS))
    return np.stack([dense(weights, t) for t in steps])


def law(kind):
    """Atoms and probabilities; for Algorithm 2 with two-point noise in place of Gaussian."""
    if kind == "sgd_epochs":
        kind = "sgd_without_replacement"
    if not kind.startswith("minibatch"):
        return laws.law(kind, N, b, B)
    s2 = (B - b) / (b * B * (B - 1)) if kind.endswith("cov") else N * (B - b) / (b * B**2 * (N - 1))
    return laws.minibatch(N, B, math.sqrt(s2), kind.endswith("cov"), replacement=False)


def worst_z(W, mean, K):
    V = W - mean
    i, j = np.triu_indices(N)
    samples, expected = np.hstack([V, V[:, i] * V[:, j]]), np.concatenate([np.zeros(N), K[i, j]])
    se = samples.std(0, ddof=1) / math.sqrt(len(V))
    return float((np.abs(samples.mean(0) - expected) / np.maximum(se, 1e-15)).max())


# The weights


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_have_the_law(kind):
    """Mean and covariance within 4 standard errors; where there are finitely many atoms, their frequencies, too."""
    W, (atoms, p) = draws(kind), law(kind)
    mean, K = laws.moments(atoms, p)
    assert worst_z(W, mean, K) < 4
    if kind in FINITE:
        known, which = np.unique(np.round(np.vstack([atoms, W]), 9), axis=0, return_inverse=True)
        which = which.ravel()  # NumPy 2.0 gives a column
        chance = np.bincount(which[: len(atoms)], p, minlength=len(known))
        seen = np.bincount(which[len(atoms) :], minlength=len(known))
        assert (seen[chance == 0] == 0).all()
        assert (chance > 0).sum() == 1 or stats.chisquare(seen, STEPS * chance).pvalue > 0.001


@pytest.mark.parametrize(("kind", "other"), [("sgd", "bernoulli"), ("minibatch_cov", "sgd"), ("binomial", "bernoulli"),
                                             ("minibatch_fisher", "minibatch_cov")])  # fmt: skip
def test_the_covariance_of_another_kind_is_told_apart(kind, other):
    assert worst_z(draws(kind), 1 / N, laws.moments(*law(other))[1]) > 5


def test_steps_of_an_epoch_are_correlated_and_those_of_two_epochs_are_not():
    weights, K = Weights("sgd_epochs", N, b, seed=3), N // b
    W = np.stack([[dense(weights, K * e + k) for k in range(K + 1)] for e in range(0, 2 * 5000, 2)]) - 1 / N
    expected = -(np.eye(N) - 1 / N) / (N * (N - 1))
    for j, k, C in ((0, 1, expected), (0, 2, expected), (2, 3, 0 * expected)):
        products = W[:, j, :, None] * W[:, k, None, :]
        z = (products.mean(0) - C) / (products.std(0, ddof=1) / math.sqrt(len(W)))
        assert np.abs(z).max() < 4
        assert np.abs((products.mean(0) - (expected - C)) / (products.std(0, ddof=1) / math.sqrt(len(W)))).max() > 5


@st.composite
def cases(draw):
    kind, b, K = draw(st.sampled_from(WEIGHTS)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    n = max(b * K, 2)
    B = draw(st.integers(max(b, 2) if b <= n else n, n)) if max(b, 2) <= n else n
    return Weights(kind, n, b if n % b == 0 else 1, B, draw(st.integers(0, 2**64 - 1)))


@given(cases(), st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_step_depends_on_seed_and_number_only(weights, step, other):
    first = weights(step)
    weights(other)
    again = Weights(weights.kind, weights.n, weights.b, weights.B, weights.seed)(step)
    for a, c in zip(first, again, strict=True):
        assert torch.equal(a, c)
    index, w = first
    assert len(set(index.tolist())) == len(index)
    assert ((index >= 0) & (index < weights.n)).all()
    if weights.kind not in ("gaussian_fisher", "sparse_fisher", "minibatch_fisher", "bernoulli", "binomial"):
        assert float(w.sum()) == pytest.approx(1)
    if weights.kind not in DENSE:
        limit = {"minibatch_cov": weights.B, "minibatch_fisher": weights.B, "bernoulli": weights.n}
        assert len(index) <= limit.get(weights.kind, weights.n * weights.b)


@given(cases(), st.integers(0, 2**20))
def test_an_epoch_uses_every_example_once(case, epoch):
    weights, K = Weights("sgd_epochs", case.n, case.b, seed=case.seed), case.n // case.b
    total = sum(dense(weights, K * epoch + k) for k in range(K))
    np.testing.assert_allclose(total, 1 / case.b, rtol=1e-15)


def test_seeds_steps_and_epochs_differ():
    drawn = [Weights("gaussian_cov", 4, 2, seed=seed)(step)[1] for seed, step in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({tuple(w.tolist()) for w in drawn}) == 4
    orders = {tuple(Weights("sgd_epochs", 8, 1, seed=s)(8 * e + k)[0].item() for k in range(8))
              for s in (0, 1) for e in (0, 1)}  # fmt: skip
    assert len(orders) == 4


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("gld_iso", 6, 2), ValueError, "kind = 'gld_iso': expected one of 'gd'"),
        (("sgd_epochs", 6, 4), ValueError, "b = 4: expected a divisor of n = 6"),
        (("minibatch_cov", 6, 2), ValueError, "B = None: minibatch_cov needs"),
        (("minibatch_cov", 6, 3, 2), ValueError, "b = 3: expected an integer >= 1 and <= 2"),
        (("minibatch_cov", 6, 3, 7), ValueError, "B = 7: expected an integer >= 1 and <= 6"),
        (("bernoulli", 6, 7), ValueError, "b = 7"),
        (("sgd", 6, 2, None, -1), ValueError, "seed = -1"),
        (("sgd", 6, 2, None, 0.5), TypeError, "seed = 0.5"),
        (("sgd", 6.0, 2), TypeError, "n = 6.0"),
    ],
)
def test_weights_refuse(arguments, error, words):
    with pytest.raises(error, match=words):
        Weights(*arguments)


# Training


def problem(n=12, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, 5)), generator.integers(3, size=n)


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def by_hand(W, eta, x, y):
    """Full sums, one weight vector a step."""
    model, x, y = nets.mlp((5, 4, 3), seed=1), torch.tensor(x), torch.tensor(y)
    for w in W:
        value = (torch.tensor(w) * F.cross_entropy(model(x), y, reduction="none")).sum()
        for p, g in zip(model.parameters(), torch.autograd.grad(value, list(model.parameters())), strict=True):
            p.data -= eta * g
    return flat(model)


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_training_is_the_weighted_step(kind, chunk):
    x, y = problem()
    model, weights = nets.mlp((5, 4, 3), seed=1), Weights(kind, 12, 4, 6, seed=9)
    train(model, (x, y), kind=kind, b=4, B=6, eta=0.3, steps=7, seed=9, chunk=chunk, progress=False)
    W = [dense(weights, t) for t in range(7)]
    torch.testing.assert_close(flat(model), by_hand(W, 0.3, x, y), rtol=0, atol=1e-12)
    wrong = flat(model) - by_hand([2 / 12 - w for w in W], 0.3, x, y)  # the sign of the source's equation (2)
    assert kind == "gd" or wrong.abs().max() > 1e-3


def test_the_three_lines_of_ones_own_loop_are_training():
    x, y = problem()
    model, other = nets.mlp((5, 4, 3), seed=1), nets.mlp((5, 4, 3), seed=1)
    train(model, (x, y), kind="bernoulli", b=3, eta=0.2, steps=9, seed=4, progress=False)
    weights, optimizer = Weights("bernoulli", 12, 3, seed=4), torch.optim.SGD(other.parameters(), lr=0.2)
    x, y = torch.tensor(x), torch.tensor(y)
    for t in range(9):
        index, w = weights(t)
        optimizer.zero_grad()
        (w * F.cross_entropy(other(x[index]), y[index], reduction="none")).sum().backward()
        optimizer.step()
    torch.testing.assert_close(flat(model), flat(other), rtol=0, atol=1e-13)


def p5(sign):
    """The logistic regression of the sheet, with W, or with 2/n − W."""
    X = [[1, 0.5], [-1, 0.25], [0.5, -1], [2, 1]]
    W = np.array([[0.5, 0.5, 0, 0], [0.25] * 4, [0.7, -0.2, 0.1, 0.4]])
    W = W if sign > 0 else 2 / 4 - W
    model = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    model.weight.data = torch.tensor([[0.1, -0.2]], dtype=torch.float64)

    def weights(t):
        index = np.flatnonzero(W[t])
        return index, W[t, index]

    training.run(
        model, (np.array(X), np.array([1.0, -1, 1, -1])), weights=weights, eta=0.5, steps=3, progress=False,
        loss=lambda outputs, y: F.softplus(-y * outputs[:, 0]),
    )  # fmt: skip
    return model.weight.detach().numpy()[0]


def test_reference_case_p5_and_not_its_other_sign():
    right = [0.20998751211235, -0.32898981697591]
    np.testing.assert_allclose(p5(+1), right, rtol=0, atol=1e-10)
    np.testing.assert_allclose(p5(-1), [0.0874716865033, -0.6718559138052], rtol=0, atol=1e-10)
    assert np.abs(p5(-1) - right).max() > 0.1


def test_an_empty_batch_is_a_step_without_motion():
    x, y = problem(4)
    weights = Weights("bernoulli", 4, 1)
    t = next(t for t in range(100) if len(weights(t)[0]) == 0)
    paths = []
    for steps in (t, t + 1) if t else (t + 1,):
        model = nets.mlp((5, 3), seed=1)
        train(model, (x, y), kind="bernoulli", b=1, eta=0.2, steps=steps, progress=False)
        paths.append(flat(model))
    assert torch.equal(paths[0], paths[-1])


# Langevin controls


def gradients(model, x, y):
    losses = F.cross_entropy(model(x), y, reduction="none")
    rows = [torch.autograd.grad(l, list(model.parameters()), retain_graph=True) for l in losses]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])


@pytest.mark.parametrize("divisor", ["b", pytest.param("1", marks=pytest.mark.xfail(strict=True, reason="control"))])
@pytest.mark.parametrize("kind", LANGEVIN)
def test_langevin_noise_has_the_trace_or_the_diagonal_of_C(kind, divisor):
    x, y = problem(20)
    model, (x, y) = nets.mlp((5, 4, 3), seed=1), map(torch.tensor, (x, y))
    G, loss = gradients(model, x, y), lambda outputs, y: F.cross_entropy(outputs, y, reduction="none")
    C = G.var(0, unbiased=False) / (4 if divisor == "b" else 1)  # the diagonal
    variance = C if kind == "gld_diag" else C.mean().expand_as(C)
    langevin = msgd._Langevin(kind, 4, seed=3, chunk=None)
    epsilon = torch.stack([(langevin(model, loss, x, y, t) - G.mean(0)) / variance.sqrt() for t in range(60)])
    epsilon = epsilon.reshape(-1)
    m = epsilon.numel()
    assert abs(epsilon.mean()) < 4 / math.sqrt(m)
    assert abs(epsilon.var() - 1) < 4 * math.sqrt(2 / m)
    assert stats.kstest(epsilon.numpy(), stats.norm.cdf).pvalue > 0.001


def test_both_langevin_kinds_scale_the_same_normal_numbers():
    """So their ratio is that of the closed forms, without sampling error."""
    x, y = problem(20)
    model, (x, y) = nets.mlp((5, 4, 3), seed=1), map(torch.tensor, (x, y))
    G, loss = gradients(model, x, y), lambda outputs, y: F.cross_entropy(outputs, y, reduction="none")
    C, g = G.var(0, unbiased=False) / 4, G.mean(0)
    iso, diag = (msgd._Langevin(kind, 4, seed=3, chunk=7)(model, loss, x, y, 5) - g for kind in LANGEVIN)
    torch.testing.assert_close(iso * C.sqrt(), diag * C.mean().sqrt(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("fault", ["random", "couples the examples"])
@pytest.mark.parametrize("kind", LANGEVIN)
def test_langevin_looks_at_chance_and_coupling_in_the_first_step(kind, fault):
    """Chance that changes the losses of few batches, and a loss that counts the classes of the batch."""

    def loss(outputs, y):
        losses = F.cross_entropy(outputs, y, reduction="none")
        if fault == "random":
            return losses * (1 + (torch.rand(len(y)) < 1e-3))
        return losses / torch.bincount(y, minlength=3)[y]

    model = nets.mlp((5, 4, 3))
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=fault):
        train(model, problem(), kind=kind, b=4, eta=0.3, steps=3, loss=loss, progress=False)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("kind", LANGEVIN)
def test_langevin_trains_and_refuses_examples_that_interact(kind):
    x, y = problem()
    h = train(nets.mlp((5, 4, 3)), (x, y), kind=kind, b=100, eta=0.3, steps=30, progress=False)
    assert h.train_loss[-1] < h.train_loss[0]
    random = torch.nn.Sequential(nets.mlp((5, 3)), torch.nn.Dropout(0.5))
    with pytest.raises(ValueError, match="draws a new mask"):
        train(random, (x, y), kind=kind, b=4, eta=0.3, steps=2, progress=False)


@pytest.mark.parametrize("kind", LANGEVIN)
def test_langevin_says_in_which_step_numbers_are_not_finite(kind):
    x, y = problem()
    with pytest.raises(ValueError, match="finite") as caught:
        train(nets.mlp((5, 3)), (x, y[:, None] * 1.0), kind=kind, b=4, eta=1e3, steps=200, progress=False,
              loss=lambda outputs, y: (outputs - y).square().sum(1))  # fmt: skip
    assert any(note.startswith("in step ") and "smaller eta" in note for note in caught.value.__notes__)


def test_kinds_of_other_names_are_refused():
    with pytest.raises(ValueError, match="kind = 'sdg': expected one of 'gd'"):
        train(nets.mlp((5, 3)), problem(), kind="sdg", b=1, eta=1.0, steps=1)


def test_settings_name_B_where_it_is_used():
    settings = [train(nets.mlp((5, 3)), problem(), kind=kind, b=2, B=4, eta=0.1, steps=1, progress=False).settings
                for kind in ("sgd", "minibatch_cov")]  # fmt: skip
    assert [s["B"] for s in settings] == [None, 4]
