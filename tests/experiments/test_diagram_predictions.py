"""Pictures against measured means: exact on populations so small that every sequence of examples can be run."""

from itertools import product

import numpy as np
import pytest
import torch
from implicitreg import ensembles, experiments
from implicitreg.experiments import diagram_predictions as experiment
from torch.nn import functional as F

T = 3
ETAS = [0.1 / 2**k for k in range(5)]
SETTINGS = {
    **experiment.SETTINGS, "limit": 3, "channels": 2, "net_seeds": [4],
    "loss": {"3": {"runs": 27, "etas": ETAS}}, "gap": {"steps": T, "runs": 27, "etas": ETAS},
    "twins": {"steps": T, "runs": 27, "etas": ETAS, "epochs": [2]},
}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    """With all 27 sequences of three examples in place of random ones: the means are exact, and so are the sums."""
    patch = pytest.MonkeyPatch()
    everything = torch.tensor(list(product(range(3), repeat=T)))
    patch.setattr(experiment, "_draws", lambda *_: everything)
    yield experiment.measure("conv 4", SETTINGS)
    patch.undo()


@pytest.fixture(scope="module")
def tiny():
    return experiment.landscape("conv 4", SETTINGS)


def powers(values):
    """Exponents between halved step sizes, the last three."""
    logs = np.log2(np.abs(values))
    return (logs[:-1] - logs[1:])[-3:]


def left(curve, coefficients):
    eta = np.array(curve["eta"])
    return np.array(curve["raw"]) - sum(c * eta ** (k + 1) for k, c in enumerate(coefficients))


@pytest.mark.parametrize("arrows", [1, 2, 3])
def test_test_loss_is_predicted_through_the_order_of_the_arrows(found, arrows):
    curve = found["loss"]["3"]
    power = powers(left(curve, curve["coefficients"]["right"][:arrows]))
    np.testing.assert_allclose(power[-1], arrows + 1, atol=0.15)


@pytest.mark.parametrize("wrong", ["halved", "no_tie"])
def test_half_of_a_picture_and_none_of_the_ties_leave_the_second_order(found, wrong):
    curve = found["loss"]["3"]
    np.testing.assert_allclose(powers(left(curve, curve["coefficients"][wrong]))[-1], 2, atol=0.15)


def test_gap_is_predicted_through_second_order(found):
    curve = found["gap"]
    np.testing.assert_allclose(powers(left(curve, curve["coefficients"]))[-1], 3, atol=0.15)
    np.testing.assert_allclose(powers(left(curve, curve["coefficients"][:1]))[-1], 2, atol=0.15)


@pytest.mark.parametrize("pair", ["gd", "gdc", "2 epochs"])
def test_pairs_differ_by_the_prediction_at_second_order(found, pair):
    curve = found["twins"][pair]
    off = np.array(curve["raw"]) - curve["predicted"]  # in units of eta²: what is left goes like eta
    np.testing.assert_allclose(powers(off)[-1], 1, atol=0.15)


@pytest.mark.parametrize("pair", ["gd", "2 epochs"])
def test_the_printed_predictions_of_pairs_are_off_at_second_order(found, pair):
    curve = found["twins"][pair]
    off = np.array(curve["raw"]) - curve["printed"]
    np.testing.assert_allclose(powers(off)[-1], 0, atol=0.15)


def test_over_all_sequences_the_intercept_is_the_mean(found):
    curve = found["loss"]["3"]
    np.testing.assert_allclose(curve["mean"], curve["raw"], rtol=1e-9)


def test_patches_are_a_convolution(tiny):
    layer = tiny.model[0]
    weight = layer.weight.view(2, 1, 3, 3) * (2 / (2 + 9)) ** 0.5
    expected = F.conv2d(tiny.inputs, weight, layer.bias * (2 / 3) ** 0.5, stride=2)
    torch.testing.assert_close(layer(tiny.inputs), expected, rtol=0, atol=1e-13)


def test_scalars_are_means_of_the_tables_and_of_dense_derivatives(tiny):
    H = torch.func.hessian(tiny.population)(tiny.start)
    G, s = tiny.g.mean(0), tiny.scalars
    torch.testing.assert_close(tiny.Hg, tiny.g @ H, rtol=0, atol=1e-12)
    expected = [G @ G, G @ H @ G, tiny.fork.diagonal().mean(), tiny.chain.diagonal().mean(), tiny.losses.mean()]
    np.testing.assert_allclose([s.GG, s.GHG, s.gHg, s.GHxg, s.loss], [float(e) for e in expected], rtol=1e-9)


def test_sums_over_a_run_are_its_own_first_two_orders(tiny):
    i = torch.tensor([[0, 2, 2], [1, 1, 0]])
    slope, fork, chain = experiment.path_terms(tiny, i)
    at = lambda eta: tiny.quality(experiment._sgd(tiny, eta, i))[0]  # noqa: E731
    h = 1e-3
    first = (at(h) - at(-h)) / (2 * h)
    second = (at(h) - 2 * at(0.0) + at(-h)) / h**2 / 2
    torch.testing.assert_close(first, -slope, rtol=0, atol=1e-4)
    torch.testing.assert_close(second, fork + chain, rtol=0, atol=1e-4)


def test_gdc_is_gradient_descent_on_the_loss_with_the_penalty(tiny):
    eta, x, y = 0.1, tiny.inputs, tiny.targets

    def penalized(theta):
        g = torch.func.vmap(torch.func.grad(tiny.one), (None, 0, 0))(theta, x, y)
        return tiny.loss(theta, x, y) + eta / 4 * (g - g.mean(0)).square().sum(1).mean()

    theta = tiny.start
    for _ in range(3):
        theta = theta - eta * torch.func.grad(penalized)(theta)
    ends = experiment._gd(tiny, eta, torch.arange(3)[None], penalty=True)
    torch.testing.assert_close(ends[0], theta, rtol=0, atol=1e-12)


def test_a_single_run_by_plain_autograd(tiny):
    eta, i = 0.2, [2, 0, 1]
    theta = tiny.start.clone()
    for k in i:
        theta.requires_grad_()
        (g,) = torch.autograd.grad(tiny.one(theta, tiny.inputs[k], tiny.targets[k]), theta)
        theta = (theta - eta * g).detach()
    torch.testing.assert_close(experiment._sgd(tiny, eta, torch.tensor([i]))[0], theta, rtol=0, atol=1e-12)
    loss, accuracy = tiny.quality(theta[None])
    outputs = tiny.outputs(theta, tiny.inputs)
    torch.testing.assert_close(loss[0], F.cross_entropy(outputs, tiny.targets))
    assert accuracy[0] == (outputs.argmax(1) == tiny.targets).double().mean()


def test_intercept_is_unbiased_and_narrower():
    g = torch.Generator().manual_seed(0)
    column = torch.randn(400, 500, 1, generator=g, dtype=torch.float64)
    noise = torch.randn(400, 500, generator=g, dtype=torch.float64)
    rows = np.array([experiment.intercept(1 + 3 * c[:, 0] + 0.1 * e, c) for c, e in zip(column, noise, strict=True)])
    mean = rows.mean(0)
    np.testing.assert_allclose(mean[0], 1, atol=4 * 0.1 / np.sqrt(400 * 500))
    np.testing.assert_allclose(mean[1], 0.1 / np.sqrt(500), rtol=0.02)
    np.testing.assert_allclose(rows[:, 0].std() / mean[1], 1, atol=0.15)
    np.testing.assert_allclose(mean[3], np.sqrt(9.01 / 500), rtol=0.02)


def test_quick_run(capsys):
    results = experiments.run("diagram_predictions", device="cpu", quick=True)
    assert set(results) == {"conv 0", "logistic 0", "summary"}
    assert results["conv 0"]["loss"]["10"]["se"][0] < results["conv 0"]["loss"]["10"]["raw_se"][0] / 10
    with pytest.raises(ValueError, match="conv 9"):
        experiment.measure("conv 9", experiment.SETTINGS)


def test_networks_of_the_source():
    its = {"kernels": [5, 5], "strides": [2, 2], "channels": 10}
    sizes = [ensembles.flatten(experiment.network(kind, shape, 10, its, 0)).numel() for kind, shape in
             (("conv", (1, 28, 28)), ("conv", (3, 32, 32)), ("logistic", (1, 28, 28)))]  # fmt: skip
    assert sizes == [4490, 5890, 7850]
