r"""SGD against GD and GD on the modified loss over a whole training run: who follows the mean path of SGD, and how far.

On one data set of :math:`N` images, a part of whose labels is redrawn, with batches of :math:`n`, :math:`K = N/n` steps
an epoch, and everywhere the same start, learning rate and number of steps:

- ``gd``: full batches, on the training loss :math:`L`;
- ``modified``: full batches, on :math:`L + \frac\eta4\big(\frac1n - \frac1N\big)\,\mathrm{tr}\,S`;
- ``without``: SGD without replacement, reshuffled every epoch, the mean over many runs;
- ``with``: SGD with replacement, every example drawn anew, the mean over as many runs.

:math:`S` is the sample covariance of the gradients with :math:`1/(N-1)`; batch losses are means. For a fixed
data set the mean over the shuffles of one epoch is ``modified`` through :math:`\eta^2`; with replacement there is no
drift at :math:`\eta^2`, but over a fixed training time diffusion bends the mean path at the same order.

Control variate. From every mean of SGD runs its linear response around the GD path :math:`\theta_t` is subtracted,

.. math:: \delta_{t+1} = (I - \eta H_t)\,\delta_t - \eta\,\mathcal G_t\,(W_t - \tfrac1N\mathbf 1), \qquad \delta_0 = 0,

with the Hessian :math:`H_t`, the per-example gradients :math:`\mathcal G_t = (g_1, \dots, g_N)` and the weights
:math:`W_t` of the batch, :math:`1/n` for each of its examples. Since :math:`E\,W_t = \frac1N\mathbf 1` and GD's path is
fixed, :math:`E\,\delta_t = 0` exactly, so that no mean changes. As :math:`\delta` is linear in :math:`W`, one
:math:`\delta` serves a whole group of runs; the standard errors come from the groups.

A distance is :math:`\pm\sqrt{\big||\bar\theta - \theta'|^2 - \mathrm{se}^2\big|}` with
:math:`\mathrm{se}^2 = \mathrm{tr}\,\mathrm{Cov}(\bar\theta)`, negative where the difference is below the noise. A slope
is the projection of :math:`\bar\theta - \theta^{GD}` on :math:`\theta^{modified} - \theta^{GD}`.

References
----------
Roberts, SGD Implicitly Regularizes Generalization Error, section 3; Smith, Dherin, Barrett, De,
On the Origin of Implicit Regularization in Stochastic Gradient Descent, 2021.
"""

from __future__ import annotations

import copy
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
    "data": "digits", "examples": 256, "batch": 16, "redrawn": 0.1, "hidden": 16, "coefficient": 0.25,
    "net_seed": 0, "data_seed": 7, "without_seed": 1001, "with_seed": 1002, "runs": 64, "groups": 16,
    "epochs": {"eta=0.02": [5, 20, 50], "eta=0.1": [5, 20], "eta=0.5": [10]},
}  # fmt: skip
QUICK: dict[str, Any] = {"examples": 64, "runs": 16, "groups": 8, "epochs": {"eta=0.1": [1, 3]}}
FOR_DATA: dict[str, Any] = {
    "mnist": {"split": "test", "epochs": {"eta=0.005": [2, 5, 10], "eta=0.02": [2, 5]}, "runs": 32, "groups": 8}
}

_loss = partial(F.cross_entropy, reduction="none")


@dataclass(frozen=True)
class _Problem:
    """The network at its start, and the data set."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor

    def at(self, theta: Tensor) -> tuple[nn.Module, Any, Tensor, Tensor]:
        """What `gradstats` asks for, with a copy of the network at theta."""
        model = copy.deepcopy(self.model)
        nn.utils.vector_to_parameters(theta, model.parameters())
        return model, _loss, self.inputs, self.targets

    def losses(self, thetas: Tensor) -> Tensor:
        """Per-example losses (R, N)."""
        x, y = (t.expand(len(thetas), *t.shape) for t in (self.inputs, self.targets))
        return ensembles.losses(self.model, _loss, thetas, x, y)

    def gradients(self, thetas: Tensor, i: Tensor) -> Tensor:
        """Of the mean losses of the batches i (R, n)."""
        return ensembles.gradients(self.model, _loss, thetas, self.inputs[i], self.targets[i])


@dataclass(frozen=True)
class _Runs:
    """Many runs at the end of an epoch: parameters (R, p), and the control variates (G, p) of consecutive runs."""

    thetas: Tensor
    deltas: Tensor

    @property
    def plain(self) -> Tensor:
        return self.thetas.unflatten(0, (len(self.deltas), -1)).mean(1)

    @property
    def controlled(self) -> Tensor:
        return self.plain - self.deltas


def units(settings: Mapping[str, Any]) -> list[str]:
    """The learning rates."""
    return list(settings["epochs"])


def measure(unit: str, settings: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """The four paths at one learning rate.

    Parameters
    ----------
    unit : str
        One of `units`, ``eta=`` and the learning rate.
    settings : mapping
        `SETTINGS`, with changes: ``redrawn`` is the part of the labels that is redrawn, ``coefficient`` that of the
        penalty, ``epochs`` where a run is looked at closely.
    device : torch.device or str
        Where to compute.

    Returns
    -------
    dict
        ``series``: after every epoch, the distances and slopes of both samplers, with (and as ``plain_`` without) the
        control variate, the trace of their covariance, the distance of ``modified`` from ``gd`` and the length of GD's
        path; ``at``: after the epochs of the settings, training loss and trace of S of the four.

    Raises
    ------
    ValueError
        If the unit is unknown, or the settings do not cut the examples into whole batches and the runs into groups.
    """
    _validate.choice("unit", unit, units(settings))
    _whole("examples", settings["examples"], "batch", settings["batch"])
    _whole("runs", settings["runs"], "groups", settings["groups"])
    eta, looks = float(unit.removeprefix("eta=")), settings["epochs"][unit]
    problem, K = _problem(settings, device), settings["examples"] // settings["batch"]
    penalty = settings["coefficient"] * eta * (1 / settings["batch"] - 1 / settings["examples"])
    theta = ensembles.flatten(problem.model)
    gd, modified = (_descend(problem, theta, eta, K * max(looks), c) for c in (0.0, penalty))
    runs = {law: list(_sgd(problem, gd, eta, law, settings)) for law in ("without", "with")}
    paths = {"gd": gd[K::K], "modified": modified[K::K]}
    length = (gd[1:] - gd[:-1]).norm(dim=1).cumsum(0)[K - 1 :: K]
    series = _series(paths, runs) | {"path_length": length.tolist()}
    return {"eta": eta, "series": series, "at": {str(e): _look(problem, paths, runs, e - 1) for e in looks}}


def _whole(name: str, value: int, part_name: str, part: int) -> None:
    if value % part:
        raise ValueError(f"{part_name} = {part}: expected a divisor of {name} = {value}")


def _problem(settings: Mapping[str, Any], device: torch.device | str) -> _Problem:
    images = _images.population(settings, torch.device(device))
    g = torch.Generator().manual_seed(settings["data_seed"])
    chosen = torch.randperm(len(images.targets), generator=g)[: settings["examples"]]
    inputs, targets = images.inputs[chosen.to(device)], images.targets[chosen.to(device)]
    redrawn = torch.rand(len(chosen), generator=g) < settings["redrawn"]
    labels = torch.randint(images.classes, (len(chosen),), generator=g)
    model = nets.mlp((inputs.shape[1], settings["hidden"], images.classes), seed=settings["net_seed"]).to(device)
    return _Problem(model, inputs, torch.where(redrawn.to(device), labels.to(device), targets))


def _descend(problem: _Problem, theta: Tensor, eta: float, steps: int, penalty: float) -> Tensor:
    """The path (steps + 1, p) of gradient descent on L + penalty · tr S."""
    path, everything = [theta], torch.arange(len(problem.targets), device=theta.device)[None]
    for _ in range(steps):
        g = problem.gradients(path[-1][None], everything)[0]
        if penalty:
            g = g + penalty * gradstats.grad_trace(*problem.at(path[-1]), verify=False)
        path.append(path[-1] - eta * g)
    return torch.stack(path)


def _sgd(problem: _Problem, gd: Tensor, eta: float, law: str, settings: Mapping[str, Any]) -> Iterator[_Runs]:
    """The runs at the end of every epoch; the response is taken around the path `gd`, which starts where they do."""
    N, n, R, G = (settings[key] for key in ("examples", "batch", "runs", "groups"))
    g = torch.Generator().manual_seed(settings[f"{law}_seed"])
    thetas, deltas = gd[0].repeat(R, 1), torch.zeros(G, gd.shape[1], dtype=gd.dtype, device=gd.device)
    for t, theta in enumerate(gd[:-1]):
        if t % (N // n) == 0:
            order = _order(law, R, N, g).to(gd.device)
        i = order[:, t % (N // n) * n :][:, :n]
        thetas = thetas - eta * problem.gradients(thetas, i)
        W = torch.zeros(G, N, dtype=gd.dtype, device=gd.device)
        W.scatter_add_(1, i.reshape(G, -1), torch.full((G, n * R // G), G / (n * R), dtype=gd.dtype, device=gd.device))
        deltas = _respond(problem, theta, deltas, W - 1 / N, eta)
        if (t + 1) % (N // n) == 0:
            yield _Runs(thetas, deltas)


def _order(law: str, R: int, N: int, g: torch.Generator) -> Tensor:
    """The examples (R, N) that an epoch of each run takes, in turn."""
    if law == "with":
        return torch.randint(N, (R, N), generator=g)
    return torch.rand(R, N, generator=g, dtype=torch.float64).argsort(1)


def _respond(problem: _Problem, theta: Tensor, deltas: Tensor, kicks: Tensor, eta: float) -> Tensor:
    """One step of the linear response, delta − eta (H delta + sum of kick_i g_i), for each group."""
    theta = theta.clone().requires_grad_()
    losses = problem.losses(theta[None])[0]
    (kicked,) = torch.autograd.grad(losses, theta, kicks, is_grads_batched=True, retain_graph=True)
    (g,) = torch.autograd.grad(losses.mean(), theta, create_graph=True)
    (pushed,) = torch.autograd.grad(g, theta, deltas, is_grads_batched=True)
    return deltas - eta * (pushed + kicked)


def _series(paths: Mapping[str, Tensor], runs: Mapping[str, list[_Runs]]) -> dict[str, Any]:
    gd, modified = paths["gd"], paths["modified"]
    columns = {
        law: [_compare(r, a, b) for r, a, b in zip(ends, gd, modified, strict=True)] for law, ends in runs.items()
    }
    between = [_distance(u.controlled, v.controlled) for u, v in zip(runs["with"], runs["without"], strict=True)]
    return {
        "epoch": list(range(1, len(gd) + 1)),
        "modified_to_gd": (modified - gd).norm(dim=1).tolist(),
        "with_to_without": between,
        **{law: {key: [row[key] for row in rows] for key in rows[0]} for law, rows in columns.items()},
    }


def _compare(runs: _Runs, gd: Tensor, modified: Tensor) -> dict[str, float]:
    out = {"trace_cov": runs.thetas.var(0).sum().item()}
    for prefix, groups in (("", runs.controlled), ("plain_", runs.plain)):
        slopes = ensembles.estimate((groups - gd) @ (modified - gd) / (modified - gd).square().sum())
        out |= {
            f"{prefix}to_gd": _distance(groups, gd[None]),
            f"{prefix}to_modified": _distance(groups, modified[None]),
            f"{prefix}se": _noise(groups).sqrt().item(),
            f"{prefix}slope": slopes.mean.item(),
            f"{prefix}slope_se": slopes.se.item(),
        }
    return out


def _noise(groups: Tensor) -> Tensor:
    """Trace of the covariance of the mean of independent rows; none for a single, certain row."""
    return groups.var(0).sum() / len(groups) if len(groups) > 1 else groups.new_zeros(())


def _distance(a: Tensor, b: Tensor) -> float:
    """Between two means of independent rows: the debiased square's root, with its sign."""
    square = (a.mean(0) - b.mean(0)).square().sum() - _noise(a) - _noise(b)
    return (square.sign() * square.abs().sqrt()).item()


def _look(
    problem: _Problem, paths: Mapping[str, Tensor], runs: Mapping[str, list[_Runs]], epoch: int
) -> dict[str, Any]:
    """Training loss and tr S after an epoch, of every run."""
    rows = {name: path[epoch][None] for name, path in paths.items()}
    rows |= {law: ends[epoch].thetas for law, ends in runs.items()}
    return {name: _quality(problem, thetas) for name, thetas in rows.items()}


def _quality(problem: _Problem, thetas: Tensor) -> dict[str, float]:
    loss = problem.losses(thetas).mean(1)
    trace = torch.stack([gradstats.moments(*problem.at(theta), verify=False).trace for theta in thetas])
    if len(thetas) == 1:
        return {"train_loss": loss.item(), "trace": trace.item()}
    out = {}
    for name, values in (("train_loss", loss), ("trace", trace)):
        e = ensembles.estimate(values)
        out |= {name: e.mean.item(), f"{name}_se": e.se.item()}
    return out
