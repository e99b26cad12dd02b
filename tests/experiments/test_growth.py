"""Growth of the gradient noise: the statistics are what they are called, and SGD is SGD."""

import pytest
import torch
import torch.nn.functional as F
from implicitreg import ensembles, experiments, nets
from implicitreg.experiments import growth as experiment
from implicitreg.experiments import population
from torch.func import functional_call, grad, jacrev, vmap

SETTINGS = {**experiment.SETTINGS, "limit": 100}
CPU = torch.device("cpu")


def rows(model, theta, inputs, targets):
    names = dict(model.named_parameters())

    def loss(theta, x, y):
        pieces = theta.split([p.numel() for p in names.values()])
        named = {k: v.view(p.shape) for (k, p), v in zip(names.items(), pieces, strict=True)}
        return F.cross_entropy(functional_call(model, named, (x,)), y)

    return vmap(grad(loss), (None, 0, 0))(theta, inputs, targets)


def test_statistics_against_explicit_gradients():
    model = nets.mlp((64, 3, 10), seed=2)
    theta = ensembles.flatten(model)
    train, test = experiment._split(population(SETTINGS, CPU), 0.2, 20, seed=0)
    found = experiment._statistics(model, theta, train, test, {"eta": 0.1, "n": 5, "N": 20})

    def trace(theta, part):
        return rows(model, theta, *part).var(0).sum()  # torch's var divides by n - 1

    g, G = rows(model, theta, *train).mean(0), rows(model, theta, *test).mean(0)
    bend = jacrev(trace)(theta, train)
    expected = {
        "train_trace": trace(theta, train),
        "test_trace": trace(theta, test),
        "train_grad_trace": bend.norm(),
        "test_grad_trace": jacrev(trace)(theta, test).norm(),
        "gradient": g.norm(),
        "drift_ratio": 0.1 / 4 * (1 / 5 - 1 / 20) * bend.norm() / g.norm(),
        "cosine": g @ bend / (g.norm() * bend.norm()),
        "divergence": g @ (g - G),
        "gap": F.cross_entropy(model(test[0]), test[1]) - F.cross_entropy(model(train[0]), train[1]),
        "train_accuracy": (model(train[0]).argmax(1) == train[1]).sum() / 20,
    }
    assert {k: found[k] for k in expected} == pytest.approx({k: v.item() for k, v in expected.items()}, rel=1e-6)


def divergences(seeds=150, N=20):
    """The statistic at parameters that know nothing of the data, over training sets, and tr S / N of all images."""
    model = nets.mlp((64, 3, 10), seed=2)
    images = population(SETTINGS, CPU)
    J = rows(model, ensembles.flatten(model), images.inputs, images.targets)
    found = []
    for seed in range(seeds):
        order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
        g, G = J[order[:N]].mean(0), J[order[N:]].mean(0)
        found.append(g @ (g - G))
    return ensembles.estimate(torch.stack(found)), J.var(0).sum() / N


def test_before_training_the_divergence_is_trace_over_N_in_the_mean():
    """Exactly so for a random half of a fixed set: E g.(g - G) = tr S / N. Wrong: the sign as printed, or twice it."""
    e, predicted = divergences()
    assert abs(e.mean - predicted) < 4 * e.se
    for wrong in (-predicted, 2 * predicted, 0.0):
        assert abs(e.mean - wrong) > 5 * e.se


def test_split_covers_all_images_once_and_redraws_labels_in_both_parts():
    images = population({"data": "digits"}, CPU)
    clean, noisy = (experiment._split(images, q, 500, seed=1) for q in (0.0, 0.5))
    together = torch.cat([part[0] for part in clean])
    assert torch.equal(together.sort(0).values, images.inputs.sort(0).values)
    for (x, y), (x_noisy, y_noisy), size in zip(clean, noisy, (500, 1297), strict=True):
        assert len(x) == len(y) == size
        assert torch.equal(x, x_noisy)
        changed = (y != y_noisy).double().mean().item()  # half redrawn, nine in ten of those to another class
        assert changed == pytest.approx(0.45, abs=4 * (0.45 * 0.55 / size) ** 0.5)


def test_an_epoch_is_sgd_without_replacement_for_every_seed():
    settings = {"N": 12, "n": 4, "eta": 0.2}
    images = population(SETTINGS, CPU)
    inputs, targets = (torch.stack([whole[:12], whole[20:32]]) for whole in (images.inputs, images.targets))
    models = [nets.mlp((64, 3, 10), seed=seed) for seed in (0, 1)]
    thetas = torch.stack([ensembles.flatten(model) for model in models])
    orders = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    found = experiment._epoch(models[0], thetas, inputs, targets, orders, settings)
    for r, model in enumerate(models):
        shuffle = torch.randperm(12, generator=torch.Generator().manual_seed(5 + r))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        for batch in shuffle.split(4):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[r, batch]), targets[r, batch]).backward()
            optimizer.step()
        torch.testing.assert_close(found[r], ensembles.flatten(model), rtol=0, atol=1e-13)


def test_quick_run(capsys):
    results = experiments.run("growth", device="cpu", quick=True)
    assert list(results) == ["noise 0", "noise 0.5"]
    train = results["noise 0"]["train_loss"]["mean"]
    assert train[-1] < train[0]
    assert len(results["noise 0"]["divergence"]["se"]) == 3
