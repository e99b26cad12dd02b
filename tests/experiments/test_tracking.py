"""SGD's mean path: exact on networks so small that every order of the examples can be run."""

import copy
from itertools import permutations, product

import numpy as np
import pytest
import torch
from implicitreg import ensembles, experiments, gradstats, nets
from implicitreg.experiments import tracking
from torch.nn import functional as F

CPU = torch.device("cpu")
ETAS = [0.04 / 2**k for k in range(5)]


def tiny():
    """A network with 2 inputs, 2 hidden units and 2 classes, and four examples."""
    g = torch.Generator().manual_seed(3)
    inputs = torch.randn(4, 2, generator=g, dtype=torch.float64)
    return tracking._Problem(nets.mlp((2, 2, 2), seed=1), inputs, torch.tensor([0, 1, 1, 0]))


@pytest.fixture
def every_order(monkeypatch):
    """In place of random epochs: all 24 permutations, or all 256 draws with replacement, one for each run."""
    orders = {
        "without": torch.tensor(list(permutations(range(4)))),
        "with": torch.tensor(list(product(range(4), repeat=4))),
    }
    monkeypatch.setattr(tracking, "_order", lambda law, R, N, g: orders[law])
    return {
        law: {"examples": 4, "batch": 2, "runs": len(o), "groups": len(o), "with_seed": 0, "without_seed": 0}
        for law, o in orders.items()
    }


def one_epoch(problem, eta, law, settings, coefficient=0.25):
    """After one epoch of two steps: the runs, GD, and GD on the modified loss."""
    start = ensembles.flatten(problem.model)
    gd, modified = (tracking._descend(problem, start, eta, 2, c) for c in (0.0, coefficient * eta * (1 / 2 - 1 / 4)))
    (runs,) = tracking._sgd(problem, gd, eta, law, settings)
    return runs, gd[-1], modified[-1]


def orders_of_decay(values):
    """Exponents between halved learning rates: four octaves."""
    logs = torch.tensor(values, dtype=torch.float64).log2()
    return logs[:-1] - logs[1:]


def assert_decays(values, order):
    torch.testing.assert_close(
        orders_of_decay(values), torch.full((4,), float(order), dtype=torch.float64), rtol=0, atol=0.15
    )


# The mean over every order


def test_mean_over_all_shuffles_is_gd_on_the_modified_loss_through_second_order(every_order):
    problem, distances = tiny(), {"gd": [], "modified": []}
    for eta in ETAS:
        runs, gd, modified = one_epoch(problem, eta, "without", every_order["without"])
        distances["gd"].append((runs.thetas.mean(0) - gd).norm())
        distances["modified"].append((runs.thetas.mean(0) - modified).norm())
    assert_decays(distances["gd"], 2)
    assert_decays(distances["modified"], 3)


@pytest.mark.parametrize("coefficient", [1 / 2, -1 / 4, 3 / 16], ids=["one half", "sign", "1/N in S"])
def test_another_coefficient_is_off_at_second_order(every_order, coefficient):
    problem, distances = tiny(), []
    for eta in ETAS:
        runs, _, modified = one_epoch(problem, eta, "without", every_order["without"], coefficient)
        distances.append((runs.thetas.mean(0) - modified).norm())
    assert_decays(distances, 2)


def test_with_replacement_there_is_no_drift_at_second_order(every_order):
    problem, distances = tiny(), []
    for eta in ETAS:
        runs, gd, _ = one_epoch(problem, eta, "with", every_order["with"])
        distances.append((runs.thetas.mean(0) - gd).norm())
    assert_decays(distances, 3)


# The control variate


@pytest.mark.parametrize("law", ["without", "with"])
def test_control_variate_has_mean_zero_over_all_orders_at_a_large_step(every_order, law):
    runs, _, _ = one_epoch(tiny(), 0.7, law, every_order[law])
    assert runs.deltas.norm(dim=1).min() > 1e-3
    torch.testing.assert_close(runs.deltas.mean(0), torch.zeros(12, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("law", ["without", "with"])
def test_one_control_variate_for_a_group_is_the_mean_of_one_for_each_run(every_order, law):
    problem, settings = tiny(), every_order[law]
    single, _, _ = one_epoch(problem, 0.3, law, settings)
    grouped, _, _ = one_epoch(problem, 0.3, law, {**settings, "groups": settings["runs"] // 4})
    torch.testing.assert_close(grouped.deltas, single.deltas.unflatten(0, (-1, 4)).mean(1), rtol=0, atol=1e-15)
    torch.testing.assert_close(grouped.controlled.mean(0), single.controlled.mean(0), rtol=0, atol=1e-15)


def test_control_variate_is_the_derivative_in_the_weights():
    """Central difference of GD with weights 1/N + s W, on the same problem."""
    problem, eta, steps = tiny(), 0.3, 3
    kicks = torch.randn(steps, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weighted(s):
        theta = ensembles.flatten(problem.model)
        for kick in kicks:
            rows = gradstats.naive.per_example(*problem.at(theta))
            theta = theta - eta * (1 / 4 + s * kick) @ rows
        return theta

    path = tracking._descend(problem, ensembles.flatten(problem.model), eta, steps, 0.0)
    deltas = torch.zeros(1, 12, dtype=torch.float64)
    for theta, kick in zip(path[:-1], kicks, strict=True):
        deltas = tracking._respond(problem, theta, deltas, kick[None], eta)
    difference = (weighted(1e-5) - weighted(-1e-5)) / 2e-5
    torch.testing.assert_close(deltas[0], difference, rtol=0, atol=1e-9)  # 1e-16/1e-5 of round-off, 1e-10 of s²


# The paths


def test_descent_is_torch_optim_on_the_modified_loss():
    problem, penalty, eta = tiny(), 0.05, 0.4
    start, model = ensembles.flatten(problem.model), copy.deepcopy(problem.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)
    for _ in range(3):
        optimizer.zero_grad()
        losses = tracking._loss(model(problem.inputs), problem.targets)
        rows = [torch.autograd.grad(loss, model.parameters(), create_graph=True) for loss in losses]
        g = torch.stack([torch.cat([piece.flatten() for piece in row]) for row in rows])
        (losses.mean() + penalty * (g - g.mean(0)).square().sum() / 3).backward()
        optimizer.step()
    path = tracking._descend(problem, start, eta, 3, penalty)
    torch.testing.assert_close(path[-1], ensembles.flatten(model), rtol=0, atol=1e-13)


@pytest.mark.parametrize("law", ["without", "with"])
def test_each_run_is_torch_optim_on_its_batches(every_order, law):
    problem, eta = tiny(), 0.4
    runs, _, _ = one_epoch(problem, eta, law, every_order[law])
    model = copy.deepcopy(problem.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)
    for i in tracking._order(law, 0, 0, None)[11].view(2, 2):
        optimizer.zero_grad()
        F.cross_entropy(model(problem.inputs[i]), problem.targets[i]).backward()
        optimizer.step()
    torch.testing.assert_close(runs.thetas[11], ensembles.flatten(model), rtol=0, atol=1e-15)


def test_epochs_without_replacement_use_every_example_once():
    g = torch.Generator().manual_seed(0)
    assert (tracking._order("without", 5, 6, g).sort(1).values == torch.arange(6)).all()
    drawn = tracking._order("with", 2000, 6, g)
    shares = torch.bincount(drawn.flatten()) / drawn.numel()
    assert (shares - 1 / 6).abs().max() < 4 * (5 / 36 / drawn.numel()) ** 0.5
    assert (drawn.sort(1).values != torch.arange(6)).any()


def test_a_tenth_of_the_labels_is_redrawn():
    problem, clean = (tracking._problem({**tracking.SETTINGS, "redrawn": r}, CPU) for r in (0.1, 0.0))
    changed = (problem.targets != clean.targets).double().mean().item()
    assert abs(changed - 0.09) < 4 * (0.09 * 0.91 / 256) ** 0.5  # one redrawn label in ten comes out as it was
    torch.testing.assert_close(problem.inputs, clean.inputs)


def test_distance_is_debiased():
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(4000, 50, 30, generator=g, dtype=torch.float64)
    squares = torch.tensor([abs(d) * d for d in (tracking._distance(r, torch.full((1, 30), 0.1)) for r in rows)])
    e = ensembles.estimate(squares.double())
    assert abs(e.mean - 0.3) < 4 * e.se  # 30 · 0.1²; with the noise it would be 0.9
    assert (0.9 - e.mean) > 5 * e.se


# The measurement


@pytest.fixture(scope="module")
def arms():
    """A short run with the coefficient of the theorem, and one with twice it."""
    settings = {**tracking.SETTINGS, **tracking.QUICK, "epochs": {"eta=0.02": [4]}, "runs": 32}
    return {c: tracking.measure("eta=0.02", {**settings, "coefficient": c}, CPU) for c in (0.25, 0.5)}


def test_modified_loss_tracks_sgd_and_twice_the_penalty_does_not(arms):
    right, wrong = (arms[c]["series"]["without"] for c in (0.25, 0.5))
    assert abs(right["slope"][-1] - 1) < 4 * right["slope_se"][-1] + 0.02  # the next order in eta: 1 to 2 %
    assert abs(wrong["slope"][-1] - 0.5) < 4 * wrong["slope_se"][-1] + 0.02
    assert 1 - wrong["slope"][-1] > 5 * wrong["slope_se"][-1]
    assert right["to_modified"][-1] < right["to_gd"][-1] / 3
    assert wrong["to_modified"][-1] > wrong["to_gd"][-1] / 1.5


@pytest.mark.parametrize("law", ["without", "with"])
def test_control_variate_keeps_the_mean_and_cuts_the_noise(arms, law):
    series = arms[0.25]["series"][law]
    assert series["se"][-1] < series["plain_se"][-1] / 2
    assert abs(series["slope"][-1] - series["plain_slope"][-1]) < 4 * series["plain_slope_se"][-1]


def test_series_and_looks_are_complete(arms):
    result = arms[0.25]
    assert result["series"]["epoch"] == [1, 2, 3, 4]
    assert all(len(result["series"][law]["to_gd"]) == 4 for law in ("without", "with"))
    assert set(result["at"]) == {"4"}
    assert set(result["at"]["4"]) == {"gd", "modified", "without", "with"}
    assert np.isfinite(result["at"]["4"]["with"]["trace_se"])


BAD = {
    "unit": ("eta=7", {}, "unit = 'eta=7'"),
    "batches": ("eta=0.1", {"batch": 10}, "batch = 10"),
    "groups": ("eta=0.1", {"groups": 5}, "groups = 5"),
}


@pytest.mark.parametrize(("unit", "change", "message"), BAD.values(), ids=BAD.keys())
def test_bad_settings_are_refused(unit, change, message):
    with pytest.raises(ValueError, match=message):
        tracking.measure(unit, {**tracking.SETTINGS, **tracking.QUICK, **change}, CPU)


def test_quick_run_prints_finite_results(capsys):
    experiments.run("tracking", quick=True)
    assert '"slope_se"' in capsys.readouterr().out
