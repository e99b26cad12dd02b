r"""The drift GD − SGD of one epoch, projected on its prediction, for fresh data sets and falling learning rates.

A data set is :math:`N = Kn` images drawn with replacement from the population, which is the whole image set, so
that :math:`\partial\,\mathrm{tr}\,\Sigma` is known exactly. From the same start, GD takes :math:`K` steps on the data
set; SGD takes one epoch of :math:`K` disjoint batches of :math:`n`, once in an order and once in its reverse. Over the
data sets,

.. math:: \langle\theta^{GD}_K - \theta^{SGD}_K\rangle = v + O(\eta^3), \qquad
          v = \frac{\eta^2 K(K-1)}{4N}\,\partial\,\mathrm{tr}\,\Sigma .

The slope is :math:`\langle\theta^{GD}_K - \theta^{SGD}_K\rangle\cdot v / |v|^2`; it tends to 1 with :math:`\eta`.
The cosine is that of the mean difference and :math:`v`, with the squared standard error taken off the squared norm.

Control variate. For one data set, with the gradients :math:`g_k` and Hessians :math:`h_k` of its batches at the start
and :math:`g` the mean of the :math:`g_k`, the second-order term of GD − SGD averaged over the two orders is

.. math:: c = \frac{\eta^2}{2}\sum_k h_k\,(g_k - g),

whose mean over the data sets is :math:`v` exactly, because :math:`\langle h_kg_k\rangle - \langle h_kg\rangle =
\frac12(\frac1n - \frac1N)\,\partial\,\mathrm{tr}\,\Sigma`. Subtracting :math:`c - v` changes no mean and leaves
fluctuations of relative size :math:`O(\eta)`. So ``slope`` takes :math:`\langle c\rangle = v` from the theorem and
shows how soon the orders beyond the second take over; ``plain_slope``, without the control variate, tests :math:`v`.

Losses are means over a batch; :math:`\Sigma` is the covariance of one example's gradient.

References
----------
Roberts, SGD Implicitly Regularizes Generalization Error, eqs. (12) and (13).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from implicitreg import _validate, ensembles, gradstats, nets
from implicitreg._torch import torch
from implicitreg.experiments import _images
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FOR_DATA", "QUICK", "SETTINGS", "measure", "units"]

SETTINGS: dict[str, Any] = {
    "data": "digits", "hidden": 16, "net_seed": 0, "data_seed": 1, "chunk": 200,
    "pretraining_seed": 99, "pretraining_examples": 300, "pretraining_eta": 0.5,
    "cells": {
        "K=2 n=16": {"K": 2, "n": 16, "data_sets": 24000, "etas": [0.0005, 0.005, 0.02, 0.05, 0.2], "steps": 0},
        "K=8 n=4": {"K": 8, "n": 4, "data_sets": 4000, "etas": [0.0005, 0.005, 0.02, 0.1, 0.3], "steps": 0},
        "K=8 n=16": {"K": 8, "n": 16, "data_sets": 4000, "etas": [0.0005, 0.005, 0.02, 0.1, 0.3], "steps": 0},
        "K=8 n=16 trained": {"K": 8, "n": 16, "data_sets": 4000, "etas": [0.0005, 0.005, 0.02, 0.1, 0.3], "steps": 100},
    },
}  # fmt: skip
QUICK: dict[str, Any] = {
    "cells": {"K=2 n=4": {"K": 2, "n": 4, "data_sets": 1000, "etas": [0.005, 0.05], "steps": 0}}, "chunk": 50,
}  # fmt: skip
FOR_DATA: dict[str, Any] = {
    "mnist": {
        "split": "test", "limit": 2000, "chunk": 50,
        "cells": {
            "K=2 n=16": {"K": 2, "n": 16, "data_sets": 2000, "etas": [0.0005, 0.002, 0.005, 0.02], "steps": 0},
            "K=8 n=4": {"K": 8, "n": 4, "data_sets": 1000, "etas": [0.0005, 0.002, 0.005, 0.02], "steps": 0},
        },
    }
}  # fmt: skip

_loss = partial(F.cross_entropy, reduction="none")


@dataclass(frozen=True)
class _Problem:
    """A network at its start, and the population that the data sets are drawn from."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor

    def gradients(self, thetas: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return ensembles.gradients(self.model, _loss, thetas, x, y)


def units(settings: Mapping[str, Any]) -> list[str]:
    """The cells (K, n), each measured at all its learning rates on the same data sets."""
    return list(settings["cells"])


def measure(unit: str, settings: Mapping[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
    r"""Slope and cosine of the measured drift on the predicted one, for each learning rate of the cell.

    Parameters
    ----------
    unit : str
        One of `units`.
    settings : mapping
        `SETTINGS`, with changes. Data sets are drawn, and their statistics grouped, by ``chunk``.
    device : torch.device or str
        Where to compute.

    Returns
    -------
    dict
        Lists along ``eta``: ``slope``, ``cosine`` and their ``_se``, the same with ``plain_`` (no control variate),
        ``predicted_norm`` :math:`|v|`, and ``one_order_rms``: the root mean square of :math:`|\theta^{GD} -
        \theta^{SGD}|` for a single data set and a single order, in units of :math:`|v|`.

    Raises
    ------
    ValueError
        If the unit is unknown.
    """
    _validate.choice("unit", unit, units(settings))
    cell = settings["cells"][unit]
    problem = _problem(settings, cell["steps"], device)
    direction = (cell["K"] - 1) / (4 * cell["n"]) * _grad_trace(problem)
    chunks = [_chunk(problem, x, y, cell["etas"]) for x, y in _data_sets(problem, cell, settings)]
    columns = [_statistics([c[i] for c in chunks], eta**2 * direction) for i, eta in enumerate(cell["etas"])]
    return {"eta": cell["etas"], **{key: [column[key] for column in columns] for key in columns[0]}}


def _problem(settings: Mapping[str, Any], steps: int, device: torch.device | str) -> _Problem:
    images = _images.population(settings, torch.device(device))
    widths = (images.inputs.shape[1], settings["hidden"], images.classes)
    model = nets.mlp(widths, seed=settings["net_seed"]).to(device)
    problem = _Problem(model, images.inputs, images.targets)
    eta = settings["pretraining_eta"]
    theta = _descend(problem, ensembles.flatten(model)[None], [_sample(problem, settings)] * steps, eta)
    nn.utils.vector_to_parameters(theta[0], model.parameters())
    return problem


def _sample(problem: _Problem, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """What the start is trained on: independent of the data sets, which the theorem asks for."""
    g = torch.Generator().manual_seed(settings["pretraining_seed"])
    i = torch.randint(len(problem.targets), (1, settings["pretraining_examples"]), generator=g)
    return problem.inputs[i.to(problem.inputs.device)], problem.targets[i.to(problem.inputs.device)]


def _grad_trace(problem: _Problem) -> Tensor:
    """The population is its own law: 1/n in place of the sample covariance's 1/(n − 1)."""
    n = len(problem.targets)
    return gradstats.grad_trace(problem.model, _loss, problem.inputs, problem.targets) * (n - 1) / n


def _data_sets(problem: _Problem, cell: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[Tensor]:
    """Chunks (R, K, n, …) of independent data sets, inputs and targets, already cut into their batches."""
    g = torch.Generator().manual_seed(settings["data_seed"])
    for start in range(0, cell["data_sets"], settings["chunk"]):
        R = min(settings["chunk"], cell["data_sets"] - start)
        i = torch.randint(len(problem.targets), (R, cell["K"], cell["n"]), generator=g).to(problem.targets.device)
        yield problem.inputs[i], problem.targets[i]


def _chunk(problem: _Problem, x: Tensor, y: Tensor, etas: list[float]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each eta: the mean of GD − SGD, the mean of c, the mean square of GD − SGD in one order."""
    K, theta = y.shape[1], ensembles.flatten(problem.model)
    g, c = _second_order(problem, theta, x, y)
    out = []
    for eta in etas:
        whole = [(x.flatten(1, 2), y.flatten(1, 2))] * (K - 1)
        batches = [(x[:, k], y[:, k]) for k in range(K)]
        gd = _descend(problem, theta - eta * g.mean(1), whole, eta)
        forward = gd - _descend(problem, theta - eta * g[:, 0], batches[1:], eta)
        backward = gd - _descend(problem, theta - eta * g[:, -1], batches[-2::-1], eta)
        out.append((((forward + backward) / 2).mean(0), eta**2 * c, forward.square().sum(1).mean()))
    return out


def _second_order(problem: _Problem, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients g_k (R, K, p) of the batches at the start, and the mean over data sets of c / eta²."""
    R, K = y.shape[:2]
    thetas = theta.repeat(R * K, 1).requires_grad_()
    losses = ensembles.losses(problem.model, _loss, thetas, x.flatten(0, 1), y.flatten(0, 1))
    (g,) = torch.autograd.grad(losses.mean(1).sum(), thetas, create_graph=True)
    by_set = g.detach().unflatten(0, (R, K))
    (hg,) = torch.autograd.grad(g, thetas, (by_set - by_set.mean(1, keepdim=True)).flatten(0, 1))
    return by_set, hg.unflatten(0, (R, K)).sum(1).mean(0) / 2


def _descend(problem: _Problem, thetas: Tensor, batches: list[tuple[Tensor, Tensor]], eta: float) -> Tensor:
    for x, y in batches:
        thetas = thetas - eta * problem.gradients(thetas, x, y)
    return thetas


def _statistics(chunks: list[tuple[Tensor, Tensor, Tensor]], v: Tensor) -> dict[str, float]:
    plain, c = (torch.stack([chunk[i] for chunk in chunks]) for i in (0, 1))
    slope, slope_se, cosine, cosine_se = _projection(plain - c + v, v)
    plain_slope, plain_slope_se, plain_cosine, plain_cosine_se = _projection(plain, v)
    rms = (torch.stack([chunk[2] for chunk in chunks]).mean().sqrt() / v.norm()).item()
    return {
        "slope": slope, "slope_se": slope_se, "cosine": cosine, "cosine_se": cosine_se,
        "plain_slope": plain_slope, "plain_slope_se": plain_slope_se,
        "plain_cosine": plain_cosine, "plain_cosine_se": plain_cosine_se,
        "predicted_norm": v.norm().item(), "one_order_rms": rms,
    }  # fmt: skip


def _projection(means: Tensor, v: Tensor) -> tuple[float, float, float, float]:
    """Slope and debiased cosine of the mean of independent rows on v, with standard errors (first order)."""
    groups, mean = len(means), means.mean(0)
    square = mean.square().sum() - means.var(0).sum() / groups
    along = means @ v / v.square().sum()
    slope, cosine = along.mean(), mean @ v / (v.norm() * square.sqrt())
    influence = cosine * (along / slope - means @ mean / square)
    return tuple(float(q) for q in (slope, along.std() / groups**0.5, cosine, influence.std() / groups**0.5))
