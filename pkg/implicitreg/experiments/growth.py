r"""How the gradient noise and its gradient grow while SGD trains, with clean and with redrawn labels.

The training set and the held-out images follow one law: an image with its label, which is replaced by one drawn
uniformly with probability ``noise``. At the recorded epochs, on each of the two sets: the loss, tr S, its gradient's
norm, the effective rank; on the training set also what Roberts, SGD Implicitly Regularizes Generalization Error, eqs.
(9) and (13) are about: the drift :math:`\frac\eta4(\frac1n - \frac1N)\,\partial\,\mathrm{tr}S` that SGD has and GD
lacks beside the gradient, and :math:`g^D \cdot (g^D - G)`, the rate per :math:`\eta` at which the gap opens, with the
held-out images in place of the law (footnote 4). Only where theta knows nothing of the data is that rate
:math:`\mathrm{tr}\Sigma / N` in the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from implicitreg import ensembles, gradstats, nets
from implicitreg._torch import torch
from implicitreg.experiments._images import Population, population
from torch import nn
from torch.nn import functional as F

__all__ = ["FOR_DATA", "QUICK", "SETTINGS", "measure", "units"]

SETTINGS = {
    "data": "digits",
    "hidden": [16],
    "N": 500,
    "n": 10,
    "eta": 0.1,
    "noise": [0.0, 0.2, 0.5],
    "epochs": [0, 1, 2, 5, 10, 20, 50, 100, 150, 200],
    "seeds": [0, 1, 2, 3],
}
"""Each of ``seeds`` draws the training set, the labels, the initial weights and the order of the batches."""

QUICK = {"limit": 400, "N": 60, "noise": [0.0, 0.5], "epochs": [0, 1, 3], "seeds": [0, 1]}
FOR_DATA = {"mnist": {"split": "test", "limit": 2000}}
_LOSS = partial(F.cross_entropy, reduction="none")


def units(settings: Mapping[str, Any]) -> list[str]:
    return [f"noise {noise:g}" for noise in settings["noise"]]


def measure(unit: str, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    images = population(settings, device)
    splits = [_split(images, float(unit.split()[1]), settings["N"], seed) for seed in settings["seeds"]]
    inputs, targets = (torch.stack([split[0][i] for split in splits]) for i in (0, 1))
    widths = (images.inputs.shape[1], *settings["hidden"], images.classes)
    model = nets.mlp(widths).to(device)
    thetas = torch.stack([ensembles.flatten(nets.mlp(widths, seed=seed)) for seed in settings["seeds"]]).to(device)
    orders = [torch.Generator().manual_seed(1000 + seed) for seed in settings["seeds"]]
    rows, done = [], 0
    for epoch in settings["epochs"]:
        for _ in range(epoch - done):
            thetas = _epoch(model, thetas, inputs, targets, orders, settings)
        done = epoch
        rows.append([_statistics(model, theta, *split, settings) for theta, split in zip(thetas, splits, strict=True)])
    return {"source": images.source, "epoch": settings["epochs"], **_means(rows)}


def _split(images: Population, noise: float, N: int, seed: int) -> tuple[tuple, tuple]:
    """N training examples and all other ones, as (inputs, targets), with labels redrawn in both."""
    generator = torch.Generator().manual_seed(seed)
    n = len(images.targets)
    order = torch.randperm(n, generator=generator)
    redrawn = torch.rand(n, generator=generator) < noise
    uniform = torch.randint(images.classes, (n,), generator=generator)
    targets = torch.where(redrawn, uniform, images.targets.cpu()).to(images.targets.device)
    return tuple((images.inputs[part], targets[part]) for part in (order[:N], order[N:]))


def _epoch(
    model: nn.Module, thetas: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor,
    orders: list[torch.Generator], settings: Mapping[str, Any],
) -> torch.Tensor:  # fmt: skip
    """One epoch of SGD without replacement for all seeds at once; a remainder of the training set is left out."""
    shuffles = torch.stack([torch.randperm(settings["N"], generator=order) for order in orders])
    seeds = torch.arange(len(orders))[:, None]
    for k in range(settings["N"] // settings["n"]):
        batch = shuffles[:, k * settings["n"] : (k + 1) * settings["n"]]
        g = ensembles.gradients(model, _LOSS, thetas, inputs[seeds, batch], targets[seeds, batch])
        thetas = thetas - settings["eta"] * g
    return thetas


def _statistics(
    model: nn.Module, theta: torch.Tensor, train: tuple, test: tuple, settings: Mapping[str, Any]
) -> dict[str, float]:
    nn.utils.vector_to_parameters(theta, model.parameters())
    (on_train, g, bend), (on_test, G, _) = _on(model, *train), _on(model, *test)
    drift = settings["eta"] / 4 * (1 / settings["n"] - 1 / settings["N"]) * bend
    return {
        **{f"train_{key}": value for key, value in on_train.items()},
        **{f"test_{key}": value for key, value in on_test.items()},
        "gradient": g.norm().item(),
        "drift_ratio": (drift.norm() / g.norm()).item(),
        "cosine": F.cosine_similarity(g, bend, dim=0).item(),
        "divergence": (g @ (g - G)).item(),
        "gap": on_test["loss"] - on_train["loss"],
    }


def _on(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[dict[str, float], Any, Any]:
    """Statistics of one set of examples, its mean gradient and the gradient of its tr S."""
    moments = gradstats.moments(model, _LOSS, inputs, targets)
    bend = gradstats.grad_trace(model, _LOSS, inputs, targets)
    with torch.no_grad():
        outputs = model(inputs)
    return {
        "loss": _LOSS(outputs, targets).mean().item(),
        "accuracy": (outputs.argmax(1) == targets).double().mean().item(),
        "trace": moments.trace.item(),
        "grad_trace": bend.norm().item(),
        "r_eff": gradstats.from_gram(gradstats.gram(model, _LOSS, inputs, targets)).r_eff.item(),
    }, moments.mean, bend  # fmt: skip


def _means(rows: list[list[dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Mean over seeds and its standard error, at every recorded epoch."""
    means = {}
    for key in rows[0][0]:
        draws = torch.tensor([[seed[key] for seed in row] for row in rows], dtype=torch.float64).T
        e = ensembles.estimate(draws)
        means[key] = {"mean": e.mean.tolist(), "se": e.se.tolist()}
    return means
