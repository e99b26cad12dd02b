r"""One step of gradient descent: the gap it opens, measured over fresh data sets and predicted.

A data set D holds N independent draws from a set of images, which is the whole population: its moments are exact, and
so is the test loss. Each data set takes one step :math:`-\eta g^D` from the same parameters, which know nothing of it.
The mean change of test − training loss is compared with Roberts, SGD Implicitly Regularizes Generalization Error,
eq. (9) and its next orders, and the spread over data sets with the exact variance at order :math:`\eta^2`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from implicitreg import ensembles, gradstats, nets
from implicitreg._torch import torch
from implicitreg.experiments._images import population
from torch import nn
from torch.nn import functional as F

__all__ = ["FOR_DATA", "QUICK", "SETTINGS", "measure", "units"]

SETTINGS = {
    "data": "digits",
    "hidden": [16],
    "channels": None,
    "init_seed": 0,
    "sample": 200,
    "sample_seed": 1,
    "sample_eta": 0.5,
    "datasets": 2000,
    "data_seed": 2,
    "cells": {
        "0": [[128, 0.01], [128, 0.1], [128, 0.5], [128, 2.0], [16, 0.1]],
        "100": [[128, 0.1], [16, 0.1], [16, 0.5]],
        "3000": [[128, 0.01], [128, 0.1], [128, 0.5], [16, 0.5]],
    },
}
"""``cells``: [N, eta] at the parameters after that many steps on an independent sample."""

QUICK = {"limit": 200, "datasets": 100, "cells": {"0": [[64, 0.1]], "20": [[16, 0.1]]}}
FOR_DATA = {
    "mnist": {
        "split": "test", "limit": 2000, "datasets": 500, "sample_eta": 0.1,
        "cells": {"0": [[128, 0.01], [128, 0.1], [16, 0.1]], "100": [[128, 0.01], [128, 0.1], [16, 0.1]]},
    },
    "cifar10_jpeg": {
        "split": "test", "limit": 500, "datasets": 100, "hidden": None, "channels": [4, 8], "sample_eta": 0.05,
        "cells": {"0": [[128, 0.01], [128, 0.1], [16, 0.1]], "100": [[128, 0.1], [16, 0.1]]},
    },
}  # fmt: skip
_LOSS = partial(F.cross_entropy, reduction="none")
_ELEMENTS = 2**23  # of the images that a chunk of networks sees


@dataclass(frozen=True, eq=False)
class _Point:
    """The population at one theta: losses (n,), per-example gradients (n, p) and what the predictions need of them."""

    theta: torch.Tensor
    losses: torch.Tensor
    gradients: torch.Tensor
    moments: dict[str, float]

    @property
    def G(self) -> torch.Tensor:
        return self.gradients.mean(0)


def units(settings: Mapping[str, Any]) -> list[str]:
    return [f"after {steps} steps" for steps in settings["cells"]]


def measure(unit: str, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    steps = unit.split()[1]
    images = population(settings, device, flat=settings["channels"] is None)
    task = (_network(settings, images).to(device), _LOSS, images.inputs, images.targets)
    point = _point(task, _trained(task, int(steps), settings), smooth=settings["channels"] is None)
    generator = torch.Generator().manual_seed(settings["data_seed"] + int(steps))
    cells = []
    for N, eta in settings["cells"][steps]:
        counts = _datasets(settings["datasets"], N, len(images.targets), generator).to(device)
        cells.append({"N": N, "eta": eta, **_measured(task, point, counts, eta), **_predicted(task, point, N, eta)})
    return {"source": images.source, "images": len(images.targets), "moments": point.moments, "cells": cells}


def _network(settings: Mapping[str, Any], images: Any) -> nn.Module:
    if settings["channels"] is None:
        widths = (images.inputs.shape[1], *settings["hidden"], images.classes)
        return nets.mlp(widths, seed=settings["init_seed"])
    channels = (images.inputs.shape[1], *settings["channels"])
    return nets.conv(channels, images.classes, size=images.inputs.shape[2], seed=settings["init_seed"])


def _trained(task: tuple, steps: int, settings: Mapping[str, Any]) -> torch.Tensor:
    """The parameters after gradient descent on a sample of the population that no later data set depends on."""
    model, loss, inputs, targets = task
    generator = torch.Generator().manual_seed(settings["sample_seed"])
    drawn = torch.randint(len(targets), (1, settings["sample"]), generator=generator).to(targets.device)
    theta = ensembles.flatten(model)[None]
    for _ in range(steps):
        theta = theta - settings["sample_eta"] * ensembles.gradients(model, loss, theta, inputs[drawn], targets[drawn])
    return theta[0]


def _point(task: tuple, theta: torch.Tensor, *, smooth: bool) -> _Point:
    model, loss, inputs, targets = task
    nn.utils.vector_to_parameters(theta, model.parameters())
    J = _per_example(task, theta)
    with torch.no_grad():
        values = loss(model(inputs), targets)
    moments = {"loss": values.mean().item(), **_of_gradients(J)}
    if smooth:  # the next order has no meaning across the kinks of ReLU and max-pooling
        moments |= _of_curvature(task)
    return _Point(theta, values, J, moments)


def _per_example(task: tuple, theta: torch.Tensor) -> torch.Tensor:
    model, loss, inputs, targets = task
    nn.utils.vector_to_parameters(theta, model.parameters())
    parts = zip(inputs.split(250), targets.split(250), strict=True)
    return torch.cat([gradstats.per_example(model, loss, x, y) for x, y in parts])


def _of_gradients(J: torch.Tensor) -> dict[str, float]:
    """Moments of the per-example gradients (n, p) under the uniform law on the rows: every average is over n."""
    G = J.mean(0)
    c = J - G
    squares = (c**2).sum(1)
    along = c @ G
    gram = c @ c.T if len(c) <= c.shape[1] else c.T @ c
    trace, trace_Sigma2 = squares.mean().item(), (gram**2).sum().item() / len(c) ** 2
    return {
        "G2": (G @ G).item(),
        "trace": trace,
        "trace_Sigma2": trace_Sigma2,
        "r_eff": trace**2 / trace_Sigma2,
        "G_Sigma_G": (along**2).mean().item(),
        "t3": (along * squares).mean().item(),
        "mu4": (squares**2).mean().item(),
    }


def _of_curvature(task: tuple) -> dict[str, float]:
    """The population's kappa3 and G . grad tr Sigma, from the estimators that are unbiased for a sample of n."""
    n = len(task[3])
    estimates = gradstats.curvature(*task)
    kappa3 = estimates.kappa3.item()
    return {
        "kappa3": (n - 1) * (n - 2) / n**2 * kappa3,
        "G_grad_trace": (n - 1) / n * (estimates.G_grad_trace.item() + 2 * kappa3 / n),
    }


def _datasets(R: int, N: int, n: int, generator: torch.Generator) -> torch.Tensor:
    """How often each of n images occurs in each of R data sets of N independent draws, (R, n)."""
    drawn = torch.randint(n, (R, N), generator=generator)
    return torch.zeros(R, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(R, N, dtype=torch.float64))


def _measured(task: tuple, point: _Point, counts: torch.Tensor, eta: float) -> dict[str, Any]:
    N = counts[0].sum()
    columns = zip(*_steps(task, point, counts / N, eta), strict=True)
    test, train, along, squared = (torch.cat(column) for column in columns)
    control = eta * (along - point.G @ point.G)  # eta G . (g^D - G), mean zero
    return {
        "gap": _mean(test - train - control),
        "gap_plain": _mean(test - train),
        "beyond_leading": _mean(test - train - eta * (squared - along)),  # eta g^D . (g^D - G), mean eta tr Sigma / N
        "test": _mean(test + control),
        "train": _mean(train + 2 * control),
        "std": _std((test - train) / eta),
    }


def _steps(task: tuple, point: _Point, weights: torch.Tensor, eta: float) -> Iterator[tuple[torch.Tensor, ...]]:
    """Change of test and training loss in one step on each data set, G . g^D and |g^D|^2, a chunk of them at a time."""
    model, loss, inputs, targets = task
    for w in weights.split(max(1, _ELEMENTS // inputs.numel())):
        g = w @ point.gradients
        with torch.no_grad():
            everyone = (inputs.expand(len(w), *inputs.shape), targets.expand(len(w), *targets.shape))
            change = ensembles.losses(model, loss, point.theta - eta * g, *everyone) - point.losses
        yield change.mean(1), (w * change).sum(1), g @ point.G, (g**2).sum(1)


def _mean(draws: torch.Tensor) -> dict[str, float]:
    e = ensembles.estimate(draws)
    return {"mean": e.mean.item(), "se": e.se.item()}


def _std(draws: torch.Tensor) -> dict[str, float]:
    """The standard deviation of a draw; its own error by the delta method from the spread of the squares."""
    variance = ensembles.estimate((draws - draws.mean()) ** 2)
    std = draws.std().item()
    return {"mean": std, "se": variance.se.item() / (2 * std)}


def _predicted(task: tuple, point: _Point, N: int, eta: float) -> dict[str, float]:
    """Eq. (9), with its next order where the moments hold the curvature, and for all eta at leading order in 1/N."""
    m = point.moments
    beyond = _per_example(task, point.theta - eta * point.G)
    predictions = {
        "leading": eta * m["trace"] / N,
        "all_orders": eta / N * _cross_trace(beyond, point.gradients),
        "std_predicted": _variance(m, N) ** 0.5,
    }
    if "kappa3" in m:
        second = -(m["G_grad_trace"] + m["kappa3"] / N) / (2 * N)
        predictions["next_order"] = predictions["leading"] + eta**2 * second
    return predictions


def _cross_trace(A: torch.Tensor, B: torch.Tensor) -> float:
    """tr Cov of the rows of A and B under the uniform law."""
    return ((A - A.mean(0)) * B).sum().item() / len(A)


def _variance(m: Mapping[str, float], N: int) -> float:
    """Var(delta eps) / eta^2 at eta -> 0 over data sets of N draws, the test set being the population."""
    fourth = m["mu4"] - m["trace"] ** 2 - 2 * m["trace_Sigma2"]
    return m["G_Sigma_G"] / N + 2 * (m["t3"] + m["trace_Sigma2"]) / N**2 + fourth / N**3
