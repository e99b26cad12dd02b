r"""How far full batches with and without SGD's penalty end from SGD in test loss: ten steps on ten images.

A data set is N images drawn with replacement from the population, which is the whole image set. From the same start
and with the same learning rate, T = N steps each: SGD takes one image a step, once in an order and once in its reverse;
GD takes all of them in every step; GDC does so on the loss with the penalty
:math:`\frac\eta{4N}\sum_n|g_n - \bar g|^2`. The differences GD − SGD and GDC − SGD of the mean test loss, with SGD
averaged over the two orders, are

.. math:: \eta^2\,\frac{N-1}4\,G\cdot\partial\operatorname{tr}C + O(\eta^3) \qquad\text{and}\qquad 0 + O(\eta^3) ,

with G and C the mean and the covariance of one image's gradient at the start, which the population gives exactly.
A start is a network with random weights, or logistic regression from zero. Losses are means over a batch.

References
----------
Tenka, SGD at Small Learning Rates, Corollary 3 (corrected) and Figure 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from implicitreg import _validate, ensembles, gradstats, nets
from implicitreg._torch import torch
from implicitreg.experiments import _images
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["QUICK", "SETTINGS", "measure", "start", "tilt", "units"]

SETTINGS: dict[str, Any] = {
    "data": "digits", "limit": 300, "hidden": 8, "N": 10, "data_sets": 2000, "chunk": 200, "data_seed": 16,
    "etas": [0.001, 0.003, 0.01, 0.03, 0.1],
    "starts": {"network 0": 0, "network 1": 1, "network 2": 2, "network 3": 3, "logistic": None},
}  # fmt: skip
QUICK: dict[str, Any] = {"data_sets": 200, "etas": [0.003, 0.03], "starts": {"logistic": None, "network 0": 0}}

_loss = partial(F.cross_entropy, reduction="none")


def units(settings: Mapping[str, Any]) -> list[str]:
    """The starts, each measured at all learning rates on the same data sets."""
    return list(settings["starts"])


def measure(unit: str, settings: Mapping[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
    r"""The differences in test loss, divided by :math:`\eta^2`, and what is predicted of them.

    Parameters
    ----------
    unit : str
        One of `units`.
    settings : mapping
        `SETTINGS`, with changes; a start is the seed of a network, or None for logistic regression from zero.
    device : torch.device or str
        Where to compute.

    Returns
    -------
    dict
        ``predicted``, :math:`\frac{N-1}4\,G\cdot\partial\operatorname{tr}C`; lists along ``eta``: the means ``gd``,
        ``gdc`` over data sets of (GD − SGD)/η² and (GDC − SGD)/η² and their ``_se``; ``one_order_rms``, the root mean
        square of (GDC − SGD)/η² for a single data set and a single order; ``change``, the mean of SGD's test loss
        minus that of the start.

    Raises
    ------
    ValueError
        If the unit is unknown.
    """
    _validate.choice("unit", unit, units(settings))
    images = _images.population(settings, torch.device(device))
    model = start(settings["starts"][unit], (images.inputs.shape[1], settings["hidden"], images.classes)).to(device)
    data = images.inputs, images.targets
    sets = _data_sets(len(data[1]), settings)
    columns = [_column([_ends(model, *data, i, eta) for i in sets], eta) for eta in settings["etas"]]
    result = {"predicted": (settings["N"] - 1) / 4 * tilt(model, *data), "eta": settings["etas"]}
    return {**result, **{key: [column[key] for column in columns] for key in columns[0]}}


def start(seed: int | None, widths: tuple[int, int, int]) -> nn.Sequential:
    """A network with tanh units, or one linear layer of zeros."""
    if seed is not None:
        return nets.mlp(widths, seed=seed)
    layer = nn.Linear(widths[0], widths[2], dtype=torch.float64)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(layer)


def tilt(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    r""":math:`G\cdot\partial\operatorname{tr}C` of a population, which is its own law: 1/n, not 1/(n − 1)."""
    n = len(targets)
    theta = ensembles.flatten(model)
    G = ensembles.gradients(model, _loss, theta[None], inputs[None], targets[None])[0]
    return (G @ gradstats.grad_trace(model, _loss, inputs, targets)).item() * (n - 1) / n


def _data_sets(n: int, settings: Mapping[str, Any]) -> list[Tensor]:
    """Chunks (R, N) of independent data sets, as indices."""
    g = torch.Generator().manual_seed(settings["data_seed"])
    return list(torch.randint(n, (settings["data_sets"], settings["N"]), generator=g).split(settings["chunk"]))


def _ends(model: nn.Module, inputs: Tensor, targets: Tensor, index: Tensor, eta: float) -> Tensor:
    """Test losses (5, R): at the start, after SGD in an order and in its reverse, after GD, after GDC."""
    x, y = inputs[index.to(inputs.device)], targets[index.to(inputs.device)]
    (R, N), theta = index.shape, ensembles.flatten(model)
    forward = backward = gd = gdc = theta.expand(R, -1)
    for t in range(N):
        back = N - 1 - t
        forward = forward - eta * ensembles.gradients(model, _loss, forward, x[:, [t]], y[:, [t]])
        backward = backward - eta * ensembles.gradients(model, _loss, backward, x[:, [back]], y[:, [back]])
        gd = gd - eta * ensembles.gradients(model, _loss, gd, x, y)
        gdc = gdc - eta * _penalized(model, gdc, x, y, eta)
    ends = torch.stack([theta.expand(R, -1), forward, backward, gd, gdc])
    return torch.stack([_test_loss(model, inputs, targets, end) for end in ends])


def _penalized(model: nn.Module, thetas: Tensor, x: Tensor, y: Tensor, eta: float) -> Tensor:
    """Gradients (R, p) of the mean loss plus the penalty: the mean of g_n and of eta/2 · H_n (g_n − mean)."""
    R, N = y.shape
    rows = thetas.repeat_interleave(N, 0).requires_grad_()
    losses = ensembles.losses(model, _loss, rows, x.flatten(0, 1)[:, None], y.flatten(0, 1)[:, None])
    (g,) = torch.autograd.grad(losses.sum(), rows, create_graph=True)
    by_set = g.detach().unflatten(0, (R, N))
    away = (by_set - by_set.mean(1, keepdim=True)).flatten(0, 1)
    (turned,) = torch.autograd.grad(g, rows, away)
    return by_set.mean(1) + eta / 2 * turned.unflatten(0, (R, N)).mean(1)


def _test_loss(model: nn.Module, inputs: Tensor, targets: Tensor, thetas: Tensor) -> Tensor:
    everything = inputs.expand(len(thetas), *inputs.shape), targets.expand(len(thetas), -1)
    return ensembles.losses(model, _loss, thetas, *everything).mean(1).detach()


def _column(chunks: list[Tensor], eta: float) -> dict[str, float]:
    before, forward, backward, gd, gdc = torch.cat(chunks, dim=1)
    sgd = (forward + backward) / 2
    result = {"change": (sgd - before).mean().item(),
              "one_order_rms": ((gdc - forward) / eta**2).square().mean().sqrt().item()}  # fmt: skip
    for name, end in (("gd", gd), ("gdc", gdc)):
        difference = (end - sgd) / eta**2
        result[name] = difference.mean().item()
        result[f"{name}_se"] = (difference.std() / len(difference) ** 0.5).item()
    return result
