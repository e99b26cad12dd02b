"""Many networks at once against one after the other, with torch's automatic derivatives."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitreg import ensembles, nets
from implicitreg.noise import msgd, replicas, sampling
from implicitreg.noise.replicas import Replica, train
from strategies import fractions
from torch import nn
from torch.nn import functional as F

N, M, SETS, WIDTHS = 12, 7, 2, (4, 6, 5, 3)
B = {"sparse_fisher": 5, "sparse_cov": 5, "minibatch_cov": 6, "minibatch_fisher": 6}


def rng():
    return torch.Generator().manual_seed(13)


X = torch.randn(SETS, N, WIDTHS[0], generator=rng(), dtype=torch.float64)
Y = torch.randint(WIDTHS[-1], (SETS, N), generator=rng())
TEST = (torch.randn(SETS, M, WIDTHS[0], generator=rng(), dtype=torch.float64), Y[:, :M])
STARTS = [nets.mlp(WIDTHS, activation="relu", seed=seed) for seed in (0, 1)]


def replica(kind, **changes):
    return Replica(**{"kind": kind, "b": 3, "eta": 0.2, "B": B.get(kind), **changes})


def mixed(kinds):
    """Two of each kind, which differ in everything."""
    first = [replica(kind) for kind in kinds]
    return first + [replica(kind, eta=0.05, seed=5, data=1, start=1) for kind in kinds]


# One after the other


def per_example(model, x, y):
    """Gradients (p, n), an example after the other."""
    rows = [torch.autograd.grad(F.cross_entropy(model(a[None]), c[None]), list(model.parameters()))
            for a, c in zip(x, y, strict=True)]  # fmt: skip
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows], 1)


def langevin(model, r, t):
    """Noise of the covariance tr C/p I, or diag C, from all per-example gradients."""
    C = sampling.gradient_covariance("sgd", per_example(model, X[r.data], Y[r.data]).numpy(), r.b)
    variance = np.diag(C) if r.kind == "gld_diag" else np.full(len(C), np.trace(C) / len(C))
    return torch.from_numpy(np.sqrt(variance)) * replicas._normal(r.seed, t, torch.zeros(len(C), dtype=torch.float64))


def alone(r, steps):
    """One network, torch's derivatives of the weighted loss, torch's optimizer."""
    model = copy.deepcopy(STARTS[r.start])
    optimizer = torch.optim.SGD(model.parameters(), lr=r.eta)
    weights = msgd.Weights("gd" if r.kind in msgd.LANGEVIN else r.kind, N, r.b, r.B, r.seed)
    for t in range(steps):
        index, w = weights(t)
        noise = langevin(model, r, t) if r.kind in msgd.LANGEVIN else None
        optimizer.zero_grad()
        losses = F.cross_entropy(model(X[r.data][index]), Y[r.data][index], reduction="none")
        (w * losses).sum().backward()
        if noise is not None:
            for p, v in zip(model.parameters(), noise.split([p.numel() for p in model.parameters()]), strict=True):
                p.grad += v.view(p.shape)
        optimizer.step()
    return model


@pytest.mark.parametrize("kind", msgd.KINDS)
def test_every_kind_follows_its_network_alone(kind):
    members = mixed([kind])
    theta = train(members, STARTS, X, Y, steps=6).theta
    for r, found in zip(members, theta, strict=True):
        torch.testing.assert_close(found, ensembles.flatten(alone(r, 6)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", msgd.KINDS)
def test_every_kind_is_that_of_msgd_train(kind):
    r = replica(kind, seed=5, data=1, start=1)
    model = copy.deepcopy(STARTS[1])
    msgd.train(model, (X[1], Y[1]), kind=kind, b=r.b, B=r.B, eta=r.eta, steps=6, seed=5, device="cpu", progress=False)
    found = train([r], STARTS, X, Y, steps=6).theta[0]
    torch.testing.assert_close(found, ensembles.flatten(model), rtol=0, atol=1e-10)


@pytest.mark.parametrize("together", [None, 1, 3])
def test_all_kinds_in_one_call_come_back_in_order(together):
    members = mixed(msgd.KINDS)
    theta = train(members, STARTS, X, Y, steps=3, together=together).theta
    one_by_one = torch.cat([train([r], STARTS, X, Y, steps=3).theta for r in members])
    torch.testing.assert_close(theta, one_by_one, rtol=0, atol=1e-12)


def test_curves_are_those_of_the_network_alone():
    r = replica("sgd", data=1, start=1)
    curves = train([replica("gd"), r], STARTS, X, Y, steps=4, test=TEST, at=[0, 1, 4])
    assert curves.step.tolist() == [0, 1, 4]
    for k, t in enumerate(curves.step):
        model = alone(r, t)
        for x, y, name in ((X, Y, "train"), (*TEST, "test")):
            z = model(x[1])
            assert getattr(curves, f"{name}_loss")[1, k] == pytest.approx(F.cross_entropy(z, y[1]).item(), rel=1e-12)
            hits = (z.argmax(1) == y[1]).double().mean().item()
            assert getattr(curves, f"{name}_accuracy")[1, k] == pytest.approx(hits, rel=1e-12)


def test_evaluation_takes_examples_in_pieces(monkeypatch):
    whole = train([replica("gd")], STARTS, X, Y, steps=1, test=TEST)
    monkeypatch.setattr(replicas, "_ROWS", 5)
    pieces = train([replica("gd")], STARTS, X, Y, steps=1, test=TEST)
    np.testing.assert_allclose(pieces.test_loss, whole.test_loss, rtol=1e-13)


@st.composite
def layers(draw):
    """Integer weights of two networks, three examples for each, and their weights; much is exactly zero."""
    widths = [2, *draw(st.lists(st.integers(1, 3), max_size=2)), 2]
    p = sum((i + 1) * o for i, o in pairwise(widths))
    numbers = st.integers(-2, 2)
    theta, x = ([draw(st.lists(numbers, min_size=k, max_size=k)) for _ in range(2)] for k in (p, 6))
    y = [draw(st.lists(st.integers(0, 1), min_size=3, max_size=3)) for _ in range(2)]
    w = [draw(st.lists(fractions(4), min_size=3, max_size=3)) for _ in range(2)]
    as_doubles = (torch.tensor(part, dtype=torch.float64) for part in (theta, x, w))
    return widths, *as_doubles, torch.tensor(y)


@given(layers())
def test_sums_squares_and_lengths_are_those_of_single_gradients(case):
    """Where a unit is exactly at its kink, both take the derivative zero."""
    widths, theta, x, w, y = case
    x = x.view(2, 3, 2)
    network = replicas._split(theta, widths)
    alone = replicas._backward(network, x, y, torch.ones(2, 3, dtype=torch.float64))
    model = nets.mlp(widths, activation="relu")
    for r in range(2):
        nn.utils.vector_to_parameters(theta[r], model.parameters())
        g = per_example(model, x[r], y[r])
        weighted = replicas._flat(replicas._sums(replicas._backward(network, x, y, w)))[r]
        torch.testing.assert_close(weighted, g @ w[r], rtol=0, atol=1e-12)
        torch.testing.assert_close(replicas._flat(replicas._squares(alone))[r], (g**2).sum(1), rtol=0, atol=1e-11)
        torch.testing.assert_close(replicas._lengths(alone)[r], (g**2).sum(0), rtol=0, atol=1e-11)


# Langevin dynamics


@pytest.mark.parametrize("kind", ["gld_iso", "gld_diag"])
def test_noise_has_the_trace_or_the_diagonal_of_sgds(kind, monkeypatch):
    """With one for every normal number the kick is the standard deviation itself."""
    monkeypatch.setattr(replicas, "_normal", lambda seed, t, like: torch.ones_like(like))
    quiet, loud = (train([replica(k)], STARTS, X, Y, steps=1).theta[0] for k in ("gd", kind))
    variance = ((loud - quiet) / 0.2).square()
    C = sampling.gradient_covariance("sgd", per_example(STARTS[0], X[0], Y[0]).numpy(), 3)
    np.testing.assert_allclose(variance.sum(), np.trace(C), rtol=1e-10)
    np.testing.assert_allclose(variance, np.diag(C) if kind == "gld_diag" else variance.mean(), atol=1e-14)
    raw = sampling.gradient_covariance("gaussian_fisher", per_example(STARTS[0], X[0], Y[0]).numpy(), 3)
    assert np.trace(raw) > 1.01 * np.trace(C)  # the second moment in place of the covariance would show


# What it leaves alone


def test_starts_are_not_changed():
    before = [ensembles.flatten(start) for start in STARTS]
    train(mixed(["sgd", "gld_iso"]), STARTS, X, Y, steps=3)
    assert all(torch.equal(old, ensembles.flatten(start)) for old, start in zip(before, STARTS, strict=True))


def test_a_replica_that_diverges_leaves_the_others_untouched():
    wild, tame = replica("gd", eta=1e200), replica("gd")
    both = train([wild, tame], STARTS, X, Y, steps=5, together=2)
    assert not np.isfinite(both.train_loss[0, -1])
    torch.testing.assert_close(both.theta[1], train([tame], STARTS, X, Y, steps=5).theta[0], rtol=0, atol=1e-14)


def test_without_test_data_there_are_no_test_curves():
    curves = train([replica("gd")], STARTS, X, Y, steps=0)
    assert curves.step.tolist() == [0]
    assert curves.test_loss is None
    assert curves.test_accuracy is None


def test_nothing_need_be_measured():
    curves = train([replica("gd")], STARTS, X, Y, steps=2, test=TEST, at=())
    assert curves.train_loss.shape == curves.test_accuracy.shape == (1, 0)
    assert torch.equal(curves.theta, train([replica("gd")], STARTS, X, Y, steps=2).theta)


def test_an_empty_batch_is_a_step_of_nothing():
    """With n = 12 and b = 1 a Bernoulli batch is empty with probability 0.35."""
    empty = [len(msgd.Weights("bernoulli", N, 1, None, seed)(0)[1]) == 0 for seed in range(8)]
    assert True in empty
    members = [replica("bernoulli", b=1, seed=seed) for seed in range(8)]
    moved = (train(members, STARTS, X, Y, steps=1).theta != ensembles.flatten(STARTS[0])).any(1)
    assert moved.tolist() == [not e for e in empty]


# Bad input

BAD = {
    "no replicas": ({"members": []}, ValueError, "replicas is empty"),
    "no starts": ({"starts": []}, ValueError, "starts is empty"),
    "no replica": ({"members": ["gd"]}, TypeError, r"replicas\[0\] is a str: expected a Replica"),
    "b above n": ({"members": [replica("bernoulli", b=13)]}, ValueError, "b = 13"),
    "data set": ({"members": [replica("gd", data=2)]}, ValueError, r"replicas\[0\].data = 2"),
    "start": ({"members": [replica("gd", start=2)]}, ValueError, r"replicas\[0\].start = 2"),
    "tanh": ({"starts": [nets.mlp((4, 6, 3))]}, ValueError, "expected linear layers with biases and nn.ReLU"),
    "no bias": ({"starts": [nn.Sequential(nn.Linear(4, 3, bias=False))]}, ValueError, "with biases"),
    "no layers": ({"starts": [nn.Sequential()]}, ValueError, "expected linear layers"),
    "ends with ReLU": ({"starts": [nn.Sequential(nn.Linear(4, 3), nn.ReLU())]}, ValueError, "expected linear"),
    "two widths": ({"starts": [*STARTS, nets.mlp((4, 3), activation="relu")]}, ValueError, r"starts\[2\] has widths"),
    "one data set only": ({"inputs": X[0]}, ValueError, r"inputs has shape \(12, 4\): expected \(D, n, 4\)"),
    "float32": ({"inputs": X.float()}, ValueError, "inputs is torch.float32 on cpu: expected torch.float64"),
    "array": ({"inputs": X.numpy()}, TypeError, "inputs is a ndarray: expected a tensor"),
    "targets": ({"targets": Y[:, :3]}, ValueError, r"targets has shape \(2, 3\) on cpu: expected \(2, 12\)"),
    "float targets": ({"targets": Y.double()}, TypeError, "targets has dtype torch.float64"),
    "label": ({"targets": Y + 1}, ValueError, r"targets lie in 1 … 3: expected labels from 0 to 2"),
    "test": ({"test": (TEST[0][:1], TEST[1][:1])}, ValueError, "test has 1 data sets: expected 2"),
    "steps": ({"steps": -1}, ValueError, "steps = -1"),
    "at": ({"at": [2, 1]}, ValueError, r"at = \[2, 1\]: expected increasing steps"),
    "late": ({"at": [3]}, ValueError, r"at\[0\] = 3"),
    "together": ({"together": 0}, ValueError, "together = 0"),
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"kind": "sdg"}, "kind = 'sdg'"), ({"start": -1}, "start = -1"), ({"eta": 0.0}, "eta = 0.0")],
)
def test_a_replica_of_wrong_numbers_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replica(**{"kind": "gd"} | wrong)


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    changes, error, message = BAD[case]
    a = {"members": [replica("gd")], "starts": STARTS, "inputs": X, "targets": Y, "steps": 2, **changes}
    with pytest.raises(error, match=message):
        train(a.pop("members"), a.pop("starts"), a.pop("inputs"), a.pop("targets"), **a)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_is_the_same():
    members, starts = mixed(msgd.KINDS), [copy.deepcopy(start).cuda() for start in STARTS]
    found = train(members, starts, X.cuda(), Y.cuda(), steps=4).theta.cpu()
    torch.testing.assert_close(found, train(members, STARTS, X, Y, steps=4).theta, rtol=0, atol=1e-10)
