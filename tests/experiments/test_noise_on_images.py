"""Convolutional networks with chosen noise: what is drawn, what is run, what is compared."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch
from implicitreg import experiments, nets
from implicitreg.experiments import _noise_on_images as shared
from implicitreg.experiments import _runner
from implicitreg.experiments.chosen_noise import METRICS
from implicitreg.noise import msgd

NAMES = ["noise_small_conv", "noise_vgg11", "noise_resnet18"]
CPU = torch.device("cpu")


def settings(name, **changes):
    return {**_runner._settings(import_module(f"implicitreg.experiments.{name}"), None, CPU, True), **changes}


@pytest.fixture
def colours(tmp_path):
    """120 images of 20 × 20 pixels with three channels and four classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 3, 20, 20), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=np.arange(120) % 4)
    return f"npz:{tmp_path / 'own.npz'}"


# What is drawn


def test_parts_are_disjoint_and_only_training_labels_are_wrong():
    chosen = settings("noise_small_conv")
    images, labels, _ = shared._images("digits", "all", 300)
    truth = {tuple(image.flatten().tolist()): int(c) for image, c in zip(images, labels, strict=True)}
    _, (x, y), (u, v) = shared._drawn(10, chosen)
    assert (x.shape, u.shape) == ((100, 1, 16, 16), (200, 1, 16, 16))
    scale = images.max() / (torch.cat([x, u]).max() - x.min()).item()
    keys = [tuple(((image - x.min()) * scale)[0, 4:-4, 4:-4].round().long().flatten().tolist()) for image in (*x, *u)]
    assert len(set(keys)) == 300
    wrong = [truth[key] != int(c) for key, c in zip(keys, (*y, *v), strict=True)]
    assert (sum(wrong[:100]), sum(wrong[100:])) == (20, 0)


def test_pixels_have_mean_zero_and_variance_one_over_the_training_set():
    _, (x, _), _ = shared._drawn(10, settings("noise_small_conv"))
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std().item() == pytest.approx(1, abs=1e-5)


def test_a_seed_draws_its_own_and_nothing_else_does():
    one, again, other = (shared._drawn(seed, settings("noise_small_conv")) for seed in (10, 10, 11))
    assert torch.equal(one[1][0], again[1][0])
    assert not torch.equal(one[1][0], other[1][0])
    first, same, third = (next(drawn[0].parameters()) for drawn in (one, again, other))
    assert torch.equal(first, same)
    assert not torch.equal(first, third)


@pytest.mark.parametrize(("network", "side"), [("small_conv", 20), ("vgg11", 32), ("resnet18", 20)])
def test_small_images_get_a_frame(colours, network, side):
    name = f"noise_{network}"
    model, (x, _), _ = shared._drawn(0, settings(name, data=colours, train=60, test=60, largest=32))
    assert x.shape == (60, 3, side, side)
    low = (side - 20) // 2
    assert x[0, :, low : low + 20, low : low + 20].std() > 0
    assert low == 0 or (x[0, :, :low] == x.min()).all()
    assert model(x[:2]).shape == (2, 4)


@pytest.mark.parametrize(("largest", "factor"), [(20, 1), (19, 2), (10, 2), (9, 3)])
def test_large_images_are_means_of_squares(colours, largest, factor):
    images, _, _ = shared._images(colours, "all", 120)
    small = shared._sized(images, settings("noise_resnet18", largest=largest))
    assert small.shape[-1] == max(20 // factor, 8)
    corner = images[3, 1, :factor, :factor].float().mean()
    low = (small.shape[-1] - 20 // factor) // 2
    torch.testing.assert_close(small[3, 1, low, low], corner)


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [((20, 20), {"train": 60}, "has 80 images: expected at least 100"), ((20, 30), {}, "expected squares")],
    ids=["few", "oblong"],
)
def test_images_that_do_not_fit_are_refused(tmp_path, shape, changes, message):
    np.savez(tmp_path / "own.npz", images=np.zeros((80, *shape), dtype=np.uint8), labels=np.arange(80) % 2)
    chosen = settings("noise_small_conv", data=f"npz:{tmp_path / 'own.npz'}", **{"train": 40, "test": 40, **changes})
    with pytest.raises(ValueError, match=message):
        shared._drawn(0, chosen)


# What is run


def test_networks_are_those_of_the_settings():
    for name, build in (
        ("noise_small_conv", lambda: nets.small_conv(10, size=16)),
        ("noise_vgg11", lambda: nets.vgg11(10, channels=1, width=16)),
        ("noise_resnet18", lambda: nets.resnet18(10, channels=1, width=8)),
    ):
        module = import_module(f"implicitreg.experiments.{name}")
        model = shared._drawn(10, module.SETTINGS)[0]
        assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in build().parameters())


@pytest.mark.parametrize("arm", ["large_batch", "minibatch_cov", "gd, eta = 0.1"])
def test_a_piece_is_a_run_of_msgd_train(arm):
    chosen = settings("noise_small_conv")
    kind, b, eta = {"large_batch": ("sgd", 50, 0.03), "minibatch_cov": ("minibatch_cov", 10, 0.03)}.get(
        arm, ("gd", 10, 0.1)
    )
    model, train, test = shared._drawn(11, chosen)
    history = msgd.train(model, train, test, kind=kind, b=b, B=50, eta=eta, steps=20, seed=11, evaluate_every=10,
                         device="cpu", progress=False)  # fmt: skip
    result = shared.measure(f"{arm}, seed 11", chosen, CPU)
    assert result["step"] == [0, 10, 20]
    for metric in METRICS:
        np.testing.assert_allclose(result[metric], getattr(history, metric), rtol=1e-5)


def test_a_run_that_diverges_says_so():
    chosen = settings("noise_small_conv", rates=[1e30])
    assert shared.measure("gd, eta = 1e+30, seed 10", chosen, CPU) == {"diverged": True}


@pytest.mark.parametrize("name", NAMES)
def test_quick_run_goes_through(name, capsys):
    results = experiments.run(name, device="cpu", quick=True)
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.index("{") :]) == results
    chosen = settings(name)
    assert set(results["summary"]) == {*chosen["methods"], f"gd, eta = {chosen['rates'][0]}"}


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_has_settings_of_its_own(name):
    module = import_module(f"implicitreg.experiments.{name}")
    gpu = _runner._settings(module, "mnist", torch.device("cuda"), False)
    assert gpu["steps"] == module.FOR_DEVICE["cuda"]["steps"]
    assert gpu["split"] == "test"
    assert gpu["train"] + gpu["test"] <= 10000  # MNIST's test images


# What is compared


def test_summary_pairs_seeds_and_counts_what_diverged():
    chosen = {"seeds": [10, 11], "methods": ["gd", "sgd", "bernoulli"], "rates": [2.0], "b": 1, "B": 2, "eta": 0.1}
    results = {}
    for seed in (10, 11):
        for arm, end in (("gd", 1.0), ("sgd", 3.0), ("bernoulli", 2.0)):
            results[f"{arm}, seed {seed}"] = {metric: [9.0, end + 5 * (seed - 10)] for metric in METRICS}
        results[f"gd, eta = 2, seed {seed}"] = {metric: [0.0, 0.0] for metric in METRICS}
    results["gd, eta = 2, seed 11"] = {"diverged": True}
    found = shared.summary(results, chosen)
    assert found["bernoulli"]["minus_gd"] == [1.0, 0.0]
    assert found["bernoulli"]["minus_sgd"] == [-1.0, 0.0]
    assert found["sgd"]["test_accuracy"] == [5.5, 2.5]
    assert found["gd, eta = 2"] == {"diverged": 1}


def test_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit = 'gd': expected one of 'gd, seed 10'"):
        shared.measure("gd", settings("noise_vgg11"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu_the_rate_is_measured(name):
    result = shared.measure("gd, seed 10", settings(name), torch.device("cuda"))
    assert result["throughput"]["images_per_second"] > 0
    assert 0 < result["throughput"]["share"] < 1
