"""Full batches that imitate SGD: the code does what its formulas say, and a wrong factor shows."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from implicitreg import ensembles, nets
from implicitreg.experiments import imitation
from torch.nn import functional as F

INPUTS = torch.randn(3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 0])
SETS = torch.tensor(list(product(range(3), repeat=2)))


def model():
    return nets.mlp((2, 2, 2), seed=1)


def penalty(net, x, y, eta):
    """η/(4N) Σ |g_n − mean|², an example after the other."""
    g = [torch.autograd.grad(F.cross_entropy(net(a[None]), b[None]), list(net.parameters()), create_graph=True)
         for a, b in zip(x, y, strict=True)]  # fmt: skip
    g = torch.stack([torch.cat([p.flatten() for p in row]) for row in g])
    return eta / (4 * len(y)) * (g - g.mean(0)).square().sum()


def trained(batches, eta, weight=0.0):
    net = copy.deepcopy(model())
    optimizer = torch.optim.SGD(net.parameters(), lr=eta)
    for x, y in batches:
        optimizer.zero_grad()
        (F.cross_entropy(net(x), y) + (weight * penalty(net, x, y, eta) if weight else 0)).backward()
        optimizer.step()
    return F.cross_entropy(net(INPUTS), TARGETS).item()


def test_ends_are_those_of_torch_optimizers():
    index, eta = torch.tensor([[0, 1, 1], [2, 0, 1]]), 0.3
    found = imitation._ends(model(), INPUTS, TARGETS, index, eta)
    for k, i in enumerate(index):
        x, y = INPUTS[i], TARGETS[i]
        one = [(x[[t]], y[[t]]) for t in range(3)]
        expected = [trained([], eta), trained(one, eta), trained(one[::-1], eta), trained([(x, y)] * 3, eta),
                    trained([(x, y)] * 3, eta, weight=1.0)]  # fmt: skip
        assert np.allclose(found[:, k], expected, rtol=1e-12)


def test_tilt_is_that_of_autodiff():
    theta = ensembles.flatten(model()).requires_grad_()
    losses = ensembles.losses(model(), imitation._loss, theta[None], INPUTS[None], TARGETS[None])
    g = torch.stack([torch.autograd.grad(loss, theta, create_graph=True)[0] for loss in losses[0]])
    trace = g.square().sum(1).mean() - g.mean(0).square().sum()
    (slope,) = torch.autograd.grad(trace, theta)
    assert np.isclose(imitation.tilt(model(), INPUTS, TARGETS), (g.mean(0) @ slope).item())


def coefficient(which, eta):
    """(GD − SGD)/η² or (GDC − SGD)/η², the mean over all nine data sets of two."""
    _, forward, backward, gd, gdc = imitation._ends(model(), INPUTS, TARGETS, SETS, eta).mean(1)
    return ((gd, gdc)[which] - (forward + backward) / 2).item() / eta**2


@pytest.mark.parametrize("which", [0, 1], ids=["GD", "GDC"])
def test_over_all_data_sets_the_prediction_is_the_limit(which):
    predicted = [imitation.tilt(model(), INPUTS, TARGETS) / 4, 0.0][which]
    errors = [abs(coefficient(which, eta) - predicted) for eta in (0.02, 0.01, 0.005)]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.15)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.15)


def test_measure_reports_every_learning_rate():
    settings = imitation.SETTINGS | {"data_sets": 40, "chunk": 20, "etas": [0.001, 0.01], "starts": {"a": None}}
    result = imitation.measure("a", settings)
    assert result["eta"] == [0.001, 0.01]
    assert all(len(result[key]) == 2 for key in ("gd", "gd_se", "gdc", "gdc_se", "one_order_rms", "change"))
    assert result["predicted"] == pytest.approx(1.448, abs=1e-3)


def test_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit = 'network 9'"):
        imitation.measure("network 9", imitation.SETTINGS)
