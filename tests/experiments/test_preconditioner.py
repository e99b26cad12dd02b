"""SGD against Sigma^-1: tuned without the test images, at equal steps and at equal numbers of gradients."""

import json

import numpy as np
import pytest
import torch
from implicitreg import experiments, gradstats, nets
from implicitreg.experiments import preconditioner
from implicitreg.experiments.preconditioner import Arm, PureInverse, Split, cross_entropy

CPU = torch.device("cpu")
SMALL = preconditioner.SETTINGS | {
    "train": 40, "validation": 30, "test": 50, "hidden": 4, "steps": 6, "rank": 3, "refresh_every": 3,
    "refresh_size": 10, "learning_rates": [0.1, 1.0, 10.0], "tuning_seeds": [0, 1], "fresh_seeds": [5, 6],
}  # fmt: skip


@pytest.fixture(scope="module")
def split():
    return Split.of(SMALL, CPU)


# The arms


def test_sgd_gets_as_many_gradients_as_the_preconditioner():
    """A refresh of 128 every 20 steps is 6.4 gradients a step: 11.4 for batches of 5, in steps or in batches."""
    arms = preconditioner.arms(5, preconditioner.SETTINGS)
    costs = {name: preconditioner.cost(arm, preconditioner.SETTINGS) for name, arm in arms.items()}
    assert costs["sgd"] == 200 * 5
    assert costs["rho=0.1 power=1"] == costs["sgd, more steps"] == 200 * 5 + 10 * 128 == 456 * 5
    assert costs["sgd, larger batches"] == 200 * 11
    assert (arms["sgd, more steps"].n, arms["sgd, larger batches"].steps) == (5, 200)


@pytest.mark.parametrize(("steps", "refreshes"), [(1, 1), (20, 1), (21, 2), (200, 10)])
def test_cost_counts_the_refreshes_that_take_place(steps, refreshes, monkeypatch, split):
    settings = SMALL | {"refresh_every": 20}
    seen = []
    monkeypatch.setattr(preconditioner.InverseCovariance, "refresh", lambda *a: seen.append(len(a[-1])))
    preconditioner.trained(Arm(5, steps, rank=3, rho=0.1), 0.1, 0, split, settings)
    assert seen == [10] * refreshes
    assert preconditioner.cost(Arm(5, steps, rank=3), settings) == steps * 5 + sum(seen)


def test_rank_zero_is_sgd_of_torch(split):
    got = preconditioner.trained(Arm(5, 12), 0.3, 7, split, SMALL)
    (x, y), validation = split.draw(preconditioner._generator(7), SMALL)
    model = nets.mlp((64, 4, 10), seed=7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    batches = preconditioner.batches(5, 40, preconditioner._generator(7, 1))
    for _ in range(12):
        i = next(batches)
        optimizer.zero_grad()
        cross_entropy(model(x[i]), y[i]).mean().backward()
        optimizer.step()
    with torch.no_grad():
        expected = [float(cross_entropy(model(a), b).mean()) for a, b in (split.test, (x, y), validation)]
    np.testing.assert_allclose(got[[0, 2, 3]], expected, rtol=1e-12)


def test_a_huge_regularizer_is_sgd_and_a_small_one_is_not(split):
    sgd, huge, small = (
        preconditioner.trained(Arm(5, 30, rank, rho), 0.3, 0, split, SMALL)
        for rank, rho in ((0, 1), (3, 1e9), (3, 0.1))
    )
    torch.testing.assert_close(huge, sgd, rtol=1e-6, atol=0)
    assert abs(small[2] - sgd[2]) > 1e-2 * sgd[2]


def test_pure_inverse_steps_along_the_pseudo_inverse():
    """Against NumPy's pseudo-inverse of the dense sample covariance of 12 gradients, of rank 11."""
    model = nets.mlp((4, 3, 3))
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 4, generator=generator, dtype=torch.float64), torch.arange(12) % 3
    rows = gradstats.naive.per_example(model, cross_entropy, x, y)
    covariance = np.cov(rows.numpy(), rowvar=False)
    least = np.sort(np.linalg.eigvalsh(covariance))[-11]
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy().copy()
    optimizer = PureInverse(model.parameters(), 0.7, 11)
    optimizer.refresh(model, cross_entropy, x, y)
    cross_entropy(model(x[:2]), y[:2]).mean().backward()
    optimizer.step()
    after = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    g = rows[:2].mean(0).numpy()
    expected = before - 0.7 * least * np.linalg.pinv(covariance, rcond=1e-10, hermitian=True) @ g
    np.testing.assert_allclose(after, expected, rtol=1e-7, atol=1e-10)
    assert np.abs(after - (before - 0.7 * g)).max() > 1e-2


# Who sees which images


def test_test_images_are_never_seen_in_tuning_or_training(split):
    test = split.test[0]
    for seed in (0, 1, 5):
        (train, _), (validation, _) = split.draw(preconditioner._generator(seed), SMALL)
        images = torch.cat([test, train, validation])
        assert len(torch.unique(images, dim=0)) == len(images) == 120  # no two digits are equal


def test_tuning_does_not_look_at_the_test_images(split):
    """Spoiling the test labels changes what is reported and not what is chosen."""
    spoiled = Split(split.pool, (split.test[0], (split.test[1] + 1) % 10), split.widths)
    arm = Arm(5, 40)
    assert preconditioner.tuned(arm, spoiled, SMALL) == preconditioner.tuned(arm, split, SMALL)
    right, wrong = (preconditioner.trained(arm, 1.0, 5, s, SMALL) for s in (split, spoiled))
    assert wrong[0] > right[0] + 0.5
    assert torch.equal(wrong[2:], right[2:])


def test_tuning_takes_the_least_mean_validation_loss(split):
    tuned = preconditioner.tuned(Arm(5, 6), split, SMALL)
    v = preconditioner.METRICS.index("validation_loss")
    by_hand = [
        np.mean([float(preconditioner.trained(Arm(5, 6), lr, s, split, SMALL)[v]) for s in (0, 1)])
        for lr in SMALL["learning_rates"]
    ]
    assert tuned["learning_rate"] == SMALL["learning_rates"][int(np.argmin(by_hand))]
    np.testing.assert_allclose([mean for _, mean, _ in tuned["validation"]], by_hand, rtol=1e-12)
    assert tuned["at_edge"] == (tuned["learning_rate"] != 1.0)


def test_tuning_and_fresh_seeds_are_disjoint():
    settings = preconditioner.SETTINGS
    assert not set(settings["tuning_seeds"]) & {*settings["fresh_seeds"], settings["split_seed"]}


def test_batches_cover_an_epoch_and_leave_out_the_rest():
    batches = preconditioner.batches(6, 40, torch.Generator().manual_seed(0))
    epochs = [torch.cat([next(batches) for _ in range(6)]) for _ in range(2)]
    assert all(len(set(epoch.tolist())) == 36 for epoch in epochs)
    assert not torch.equal(*epochs)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="'digits' has 1797 images: expected at least 2070"):
        Split.of(SMALL | {"test": 2000}, CPU)


# The whole


def test_paired_difference_of_identical_arms_is_zero(monkeypatch):
    twins = {"sgd": Arm(5, 6), "sgd, more steps": Arm(5, 6), "sgd, larger batches": Arm(5, 6), "rho": Arm(5, 6, 3, 0.1)}
    monkeypatch.setattr(preconditioner, "arms", lambda *_: twins)
    results = preconditioner.measure("n=5", SMALL, CPU)
    assert set(map(tuple, results["sgd, more steps"]["minus sgd"].values())) == {(0.0, 0.0)}
    assert results["rho"]["minus sgd"]["test_loss"][0] != 0


def test_quick_run_goes_through(capsys):
    results = experiments.run("preconditioner", device="cpu", quick=True)
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.index("{") :]) == results
    assert results["n=5"]["rho=0.1 power=1"]["minus sgd, more steps"]["test_loss"][1] > 0


def test_other_images_work(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", images=rng.random((120, 6, 6)), labels=np.arange(120) % 3)
    settings = SMALL | {"data": f"npz:{tmp_path / 'own.npz'}", "rho": [0.1], "power": [1.0]}
    assert preconditioner.measure("n=5", settings, CPU)["sgd"]["gradients"] == 30
