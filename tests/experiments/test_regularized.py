"""SGD, GD and GD with the penalty: paired draws, the exact penalty, and comparisons that can say "no difference"."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from implicitreg import experiments, gradstats, nets
from implicitreg.experiments import regularized
from implicitreg.experiments.regularized import Draw, Part, cross_entropy

CPU = torch.device("cpu")
SMALL = {"data": "digits", "train": 30, "n": 5, "redrawn": 0.4, "validation": 20, "test": 40, "hidden": 4,
         "seeds": [3, 4], "epochs": {"0.5": [1, 2]}, "levels": [2.0]}  # fmt: skip
LOSS, STOP = regularized.METRICS.index("train_loss"), regularized.METRICS.index("validation_loss")


@pytest.fixture(scope="module")
def draw():
    return regularized.drawn(SMALL, CPU)


def networks(widths, R, n, seed=0):
    """A model, weights of R networks, and n examples for each."""
    generator = torch.Generator().manual_seed(seed)
    model = nets.mlp(widths, seed=seed)
    p = sum(q.numel() for q in model.parameters())
    weights = torch.randn(R, p, generator=generator, dtype=torch.float64)
    x = torch.randn(R, n, widths[0], generator=generator, dtype=torch.float64)
    return model, weights, x, torch.randint(widths[-1], (R, n), generator=generator)


def one_by_one(statistic, model, weights, x, y):
    rows = []
    for theta, inputs, targets in zip(weights, x, y, strict=True):
        torch.nn.utils.vector_to_parameters(theta, model.parameters())
        rows.append(statistic(model, cross_entropy, inputs, targets))
    return rows


# The penalty


@pytest.mark.parametrize("widths", [(5, 3), (5, 4, 3), (5, 4, 6, 3)], ids=["linear", "one hidden layer", "two"])
def test_trace_of_many_networks_is_the_trace_of_each(widths):
    model, weights, x, y = networks(widths, R=3, n=7)
    traces = regularized.trace(model, weights, x, y)
    naive = torch.stack([m.trace for m in one_by_one(gradstats.naive.moments, model, weights, x, y)])
    torch.testing.assert_close(traces, naive, rtol=1e-11, atol=0)
    assert not torch.allclose(traces * 6 / 7, naive, rtol=1e-3)  # 1/n in place of 1/(n - 1)


def test_penalized_gradient_adds_the_gradient_of_the_trace():
    model, weights, x, y = networks((5, 4, 3), R=3, n=7)
    plain = regularized.gradient(model, weights, x, y, penalty=0.0)
    penalized = regularized.gradient(model, weights, x, y, penalty=0.3)
    naive = torch.stack(one_by_one(gradstats.naive.grad_trace, model, weights, x, y))
    torch.testing.assert_close(penalized - plain, 0.3 * naive, rtol=1e-9, atol=1e-11)


def every_order_of_four():
    """24 copies of one network and of four examples, one for each order of the examples, in batches of two."""
    model, weights, x, y = networks((2, 3, 3), R=1, n=4, seed=1)
    part = Part(x.expand(24, 4, 2), y.expand(24, 4), y.expand(24, 4))
    orders = torch.tensor(list(itertools.permutations(range(4))))
    return Draw(part, part, part, weights.expand(24, -1), model), orders.view(24, 2, 2).transpose(0, 1)


def distance_from_mean_sgd(c, eta, draw):
    settings = {"train": 4, "n": 2, "seeds": []}
    sgd, gd = (next(itertools.islice(regularized.iterates(arm, eta, draw, settings), 1, None)) for arm in (None, c))
    return float((sgd.mean(0) - gd[0]).norm())


@pytest.mark.parametrize(
    ("c", "order"), [(1.0, 3), (0.0, 2), (2.0, 2), (-1.0, 2)], ids=["right", "no penalty", "twice", "wrong sign"]
)
def test_only_the_right_penalty_follows_mean_sgd_to_third_order(c, order, monkeypatch):
    """The mean is over all 24 orders of four examples; the other factors are the negative controls."""
    draw, batches = every_order_of_four()
    monkeypatch.setattr(regularized, "batches", lambda *_: batches)
    distances = [distance_from_mean_sgd(c, 0.02 / 2**k, draw) for k in range(5)]
    slopes = -np.diff(np.log2(distances))
    np.testing.assert_allclose(slopes, order, atol=0.15)


def test_penalty_zero_is_gradient_descent_of_torch(draw):
    gd = list(itertools.islice(regularized.iterates(0.0, 0.5, draw, SMALL), 3))[-1]
    for r, seed in enumerate(SMALL["seeds"]):
        model = nets.mlp((64, 4, 10), seed=seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(2 * 6):  # two epochs of 30/5 steps
            optimizer.zero_grad()
            cross_entropy(model(draw.train.inputs[r]), draw.train.targets[r]).mean().backward()
            optimizer.step()
        expected = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        torch.testing.assert_close(gd[r], expected, rtol=1e-10, atol=1e-12)


def test_one_batch_an_epoch_makes_all_arms_one(draw):
    """With n = N a batch is the training set and the penalty has the coefficient zero."""
    whole = {**SMALL, "n": 30}
    paths = [regularized.path(c, 0.5, 3, draw, whole) for c in regularized.ARMS.values()]
    for other in paths[1:]:
        torch.testing.assert_close(other, paths[0], rtol=1e-10, atol=1e-12)


def test_sgd_sees_every_example_once_an_epoch():
    generators = [torch.Generator().manual_seed(s) for s in (0, 1)]
    epoch = regularized.batches(generators, 30, 5)
    assert epoch.shape == (6, 2, 5)
    for r in range(2):
        assert sorted(epoch[:, r].flatten().tolist()) == list(range(30))


# Data


def test_parts_are_disjoint_and_labels_noisy_but_for_the_test(draw):
    images = torch.cat([draw.train.inputs, draw.validation.inputs, draw.test.inputs], 1)
    assert all(len(torch.unique(one, dim=0)) == 90 for one in images)  # no two digits are equal
    assert torch.equal(draw.test.targets, draw.test.truth)
    changed = (draw.train.targets != draw.train.truth).sum(1)
    assert ((changed > 0) & (changed <= 12)).all()  # 40 % of 30 are drawn anew, some of these stay right


def test_a_share_of_the_labels_is_drawn_anew_from_the_uniform_law():
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(20000, dtype=torch.int64)
    noisy = regularized.redrawn(labels, 0.2, 10, generator)
    counts = torch.bincount(noisy, minlength=10)[1:]  # 4000 draws, 400 a class: standard deviation 19
    assert abs(counts - 400).max() < 4 * 19 + 10


def test_a_seed_gives_the_same_run_whatever_the_others(draw):
    alone = regularized.drawn({**SMALL, "seeds": [4]}, CPU)
    torch.testing.assert_close(alone.train.inputs[0], draw.train.inputs[1], rtol=0, atol=0)
    assert torch.equal(alone.train.targets[0], draw.train.targets[1])
    torch.testing.assert_close(
        regularized.path(None, 0.5, 2, alone, {**SMALL, "seeds": [4]})[..., 0],
        regularized.path(None, 0.5, 2, draw, SMALL)[..., 1], rtol=1e-10, atol=1e-12,
    )  # fmt: skip


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="'digits' has 1797 images: expected at least 2050"):
        regularized.drawn({**SMALL, "test": 2000}, CPU)


# Comparison


def test_paired_difference_of_identical_arms_is_zero(draw, monkeypatch):
    monkeypatch.setattr(regularized, "ARMS", {"gd": 0.0, "twin": 0.0, "penalty": 1.0})
    compared = regularized.measure("eta=0.5", SMALL, CPU)["after"]["2"]["minus_gd"]
    assert all(pair == [0.0, 0.0] for pair in compared["twin"].values())
    assert compared["penalty"]["train_loss"][0] != 0


def test_differences_are_paired_by_seed():
    """A difference of one in every seed has no error, however far apart the seeds are."""
    row = torch.arange(8.0, dtype=torch.float64).expand(8, 8) ** 2
    compared = regularized.compared({"gd": row, "other": row + 1})
    assert compared["minus_gd"]["other"]["trace"] == [1.0, 0.0]
    assert compared["arms"]["other"]["trace"][1] > 1


def made_path(losses):
    """A path with the given training losses (epochs, R); the test accuracy is their square."""
    losses = torch.tensor(losses, dtype=torch.float64)
    p = torch.zeros(len(losses), len(regularized.METRICS), losses.shape[1], dtype=torch.float64)
    p[:, LOSS], p[:, STOP], p[:, -1] = losses, losses, losses**2
    return p


def test_arms_meet_at_a_training_loss_between_epochs():
    p = made_path([[4.0, 4.0], [2.0, 3.0], [1.0, 1.0]])
    row = regularized.reached({"gd": p}, 2.5)["gd"]
    assert row[LOSS].tolist() == [2.5, 2.5]
    assert row[-1].tolist() == [16 + 0.75 * (4 - 16), 9 + 0.25 * (1 - 9)]


def test_the_first_time_down_counts():
    p = made_path([[4.0], [1.0], [3.0], [0.5]])
    assert regularized.reached({"gd": p}, 1.0)["gd"][-1].tolist() == [1.0]


@pytest.mark.parametrize("level", [0.5, 5.0], ids=["one run never gets there", "all begin below"])
def test_an_arm_that_does_not_reach_a_level_is_left_out(level):
    assert regularized.reached({"gd": made_path([[4.0, 4.0], [0.4, 3.0]])}, level) == {}


def test_each_run_is_stopped_at_its_own_least_validation_loss():
    p = made_path([[4.0, 4.0], [2.0, 5.0], [3.0, 3.0]])
    assert regularized.stopped(p)[-1].tolist() == [4.0, 9.0]


def test_loss_of_right_and_wrong_labels_add_up_to_the_training_loss(draw):
    row = dict(zip(regularized.METRICS, regularized.measured(0, draw.weights, draw), strict=True))
    share = (draw.train.targets != draw.train.truth).double().mean(1)
    mixed = (1 - share) * row["correct_loss"] + share * row["wrong_loss"]
    torch.testing.assert_close(mixed, row["train_loss"], rtol=1e-12, atol=0)
    flipped = replace(draw, train=replace(draw.train, truth=draw.train.targets))
    assert regularized.measured(0, draw.weights, flipped)[2:4, 0].isnan().tolist() == [False, True]


# The whole


def test_quick_run_goes_through(capsys):
    results = experiments.run("regularized", device="cpu", quick=True)
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.index("{") :]) == results
    after = results["eta=0.5"]["after"]["3"]
    assert set(after["arms"]) == set(regularized.ARMS)
    assert after["minus_gd"]["penalty"]["trace"][0] < 0  # what is penalized is smaller


def test_other_images_work(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", images=rng.random((100, 6, 6)), labels=np.arange(100) % 3)
    results = regularized.measure("eta=0.5", {**SMALL, "data": f"npz:{tmp_path / 'own.npz'}"}, CPU)
    assert results["after"]["2"]["arms"]["sgd"]["epoch"] == [2.0, 0.0]
