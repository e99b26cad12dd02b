"""The drift of one epoch against its prediction: the code does what the formula says, and a wrong factor shows."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from implicitreg import ensembles, experiments, gradstats, nets
from implicitreg.experiments import drift_slope
from torch.nn import functional as F

CPU = torch.device("cpu")


def tiny(examples=3):
    """A network with 2 inputs, 2 hidden units and 2 classes on a population of a few examples."""
    g = torch.Generator().manual_seed(3)
    inputs = torch.randn(examples, 2, generator=g, dtype=torch.float64)
    return drift_slope._Problem(nets.mlp((2, 2, 2), seed=1), inputs, torch.arange(examples) % 2)


def grad_trace(problem):
    """Gradient of tr Sigma = <|g|²> − |<g>|², by autodiff through all per-example gradients."""
    theta = ensembles.flatten(problem.model).requires_grad_()
    losses = ensembles.losses(
        problem.model, drift_slope._loss, theta[None], problem.inputs[None], problem.targets[None]
    )
    g = torch.stack([torch.autograd.grad(loss, theta, create_graph=True)[0] for loss in losses[0]])
    trace = g.square().sum(1).mean() - g.mean(0).square().sum()
    return torch.autograd.grad(trace, theta)[0]


def every_data_set(problem, K, n):
    """All data sets of N = K n examples, as batches."""
    i = torch.tensor(list(product(range(len(problem.targets)), repeat=K * n))).unflatten(1, (K, n))
    return problem.inputs[i], problem.targets[i]


def trained(problem, batches, eta):
    model = copy.deepcopy(problem.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return ensembles.flatten(model)


SIZES = pytest.mark.parametrize(("K", "n"), [(2, 1), (3, 1), (2, 2)], ids=["K=2 n=1", "K=3 n=1", "K=2 n=2"])


# The control variate


@SIZES
def test_control_variate_has_the_predicted_mean_over_all_data_sets(K, n):
    problem = tiny()
    x, y = every_data_set(problem, K, n)
    _, c = drift_slope._second_order(problem, ensembles.flatten(problem.model), x, y)
    torch.testing.assert_close(c, (K - 1) / (4 * n) * grad_trace(problem), rtol=0, atol=1e-14)


@SIZES
def test_population_covariance_has_one_over_n(K, n):
    problem = tiny(2 + K * n)
    torch.testing.assert_close(drift_slope._grad_trace(problem), grad_trace(problem), rtol=0, atol=1e-14)


WRONG = {
    "sample covariance": lambda problem, N: gradstats.grad_trace(
        problem.model, drift_slope._loss, problem.inputs, problem.targets
    ) / 4,
    "N for n": lambda problem, N: drift_slope._grad_trace(problem) / (4 * N),
    "one half": lambda problem, N: drift_slope._grad_trace(problem) / 2,
    "SGD minus GD": lambda problem, N: -drift_slope._grad_trace(problem) / 4,
}  # fmt: skip


@pytest.mark.parametrize("formula", WRONG.values(), ids=WRONG.keys())
def test_mistaken_predictions_are_not_the_mean(formula):
    problem = tiny()
    x, y = every_data_set(problem, 2, 1)
    _, c = drift_slope._second_order(problem, ensembles.flatten(problem.model), x, y)
    assert (c - formula(problem, 2)).norm() > 0.4 * c.norm()


def test_it_is_the_second_order_term_of_each_data_set():
    """What is left of GD − SGD falls by eight when eta halves, over four octaves."""
    problem = tiny()
    x, y = (t[[5, 17]] for t in every_data_set(problem, 3, 1))
    etas = [0.02 / 2**k for k in range(5)]
    left = torch.stack([d - c for d, c, _ in drift_slope._chunk(problem, x, y, etas)]).norm(dim=1).log2()
    torch.testing.assert_close(left[:-1] - left[1:], torch.full((4,), 3.0, dtype=torch.float64), rtol=0, atol=0.15)


# The measurement


def test_difference_is_that_of_torch_optim_averaged_over_both_orders():
    problem, eta, K = tiny(5), 0.3, 3
    x, y = (t[:2000:400] for t in every_data_set(problem, K, 2))
    by_hand, squares = [], []
    for xs, ys in zip(x, y, strict=True):
        batches = list(zip(xs, ys, strict=True))
        gd = trained(problem, [(xs.flatten(0, 1), ys.flatten())] * K, eta)
        forward, backward = (gd - trained(problem, b, eta) for b in (batches, batches[::-1]))
        by_hand.append((forward + backward) / 2)
        squares.append(forward.square().sum())
    difference, _, square = drift_slope._chunk(problem, x, y, [eta])[0]
    torch.testing.assert_close(difference, torch.stack(by_hand).mean(0), rtol=0, atol=1e-15)
    torch.testing.assert_close(square, torch.stack(squares).mean(), rtol=1e-12, atol=0)


def test_start_after_training_is_that_of_torch_optim():
    settings = {**drift_slope.SETTINGS, "pretraining_examples": 20}
    start, later = (drift_slope._problem(settings, steps, CPU) for steps in (0, 3))
    x, y = drift_slope._sample(start, settings)
    expected = trained(start, [(x[0], y[0])] * 3, settings["pretraining_eta"])
    torch.testing.assert_close(ensembles.flatten(later.model), expected, rtol=0, atol=1e-14)


def test_projection_of_noisy_rows_on_a_known_direction():
    """Rows of mean 2 v and noise larger than |v|: the slope is 2, the cosine 1 although that of the raw mean is 0.9."""
    g = torch.Generator().manual_seed(0)
    v = torch.randn(200, generator=g, dtype=torch.float64)
    rows = 2 * v + 9 * torch.randn(100, 200, generator=g, dtype=torch.float64)
    slope, slope_se, cosine, cosine_se = drift_slope._projection(rows, v)
    assert abs(slope - 2) < 4 * slope_se
    assert abs(cosine - 1) < 4 * cosine_se
    assert F.cosine_similarity(rows.mean(0), v, dim=0) < 1 - 5 * cosine_se


def test_standard_error_of_the_cosine_is_the_jackknife():
    g = torch.Generator().manual_seed(1)
    v = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    rows = torch.tensor([1.0, 1.0, 0.0]) + torch.randn(400, 3, generator=g, dtype=torch.float64)
    without = torch.tensor(
        [drift_slope._projection(torch.cat([rows[:i], rows[i + 1 :]]), v)[2] for i in range(400)], dtype=torch.float64
    )
    jackknife = (399 / 400 * (without - without.mean()).square().sum()).sqrt().item()
    assert drift_slope._projection(rows, v)[3] == pytest.approx(jackknife, rel=0.02)  # they differ by O(1/400)


@pytest.fixture(scope="module")
def cell():
    settings = {**drift_slope.SETTINGS, **drift_slope.QUICK}
    (unit,) = drift_slope.units(settings)
    return drift_slope.measure(unit, settings, CPU)


def test_two_batches_drift_by_the_prediction_and_half_of_it_is_excluded(cell):
    slope, se = cell["plain_slope"][0], cell["plain_slope_se"][0]  # eta = 0.005: the next order is 0.2 %
    assert abs(slope - 1) < 4 * se
    assert abs(slope - 0.5) > 5 * se  # twice the coefficient, predicted
    assert abs(slope + 1) > 5 * se  # SGD − GD


def test_control_variate_keeps_the_mean_and_removes_the_noise(cell):
    for i, factor in enumerate((50, 5)):  # what is left is O(eta): 0.005, 0.05
        assert abs(cell["slope"][i] - cell["plain_slope"][i]) < 4 * cell["plain_slope_se"][i]
        assert cell["slope_se"][i] < cell["plain_slope_se"][i] / factor
    assert cell["slope"][0] == pytest.approx(1, abs=0.01)
    assert cell["cosine"][0] == pytest.approx(1, abs=1e-3)


def test_a_single_order_fluctuates_by_more_than_the_effect(cell):
    assert min(cell["one_order_rms"]) > 3


# The interface


def test_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit = 'K=3'"):
        drift_slope.measure("K=3", drift_slope.SETTINGS, CPU)


def test_other_data_enter_by_name(tmp_path):
    g = np.random.default_rng(0)
    np.savez(tmp_path / "few.npz", images=g.random((30, 5, 5), dtype=np.float32), labels=np.arange(30) % 3)
    cells = {"K=2 n=2": {"K": 2, "n": 2, "data_sets": 100, "etas": [0.01], "steps": 2}}
    settings = {**drift_slope.SETTINGS, "data": f"npz:{tmp_path / 'few.npz'}", "cells": cells, "chunk": 10}
    assert drift_slope.measure("K=2 n=2", settings, CPU)["slope"][0] == pytest.approx(1, abs=0.1)


def test_quick_run_prints_finite_results(capsys):
    experiments.run("drift_slope", quick=True)
    assert '"plain_slope_se"' in capsys.readouterr().out
