r"""Does the inverse covariance as a preconditioner help? SGD and Sigma^-1 after equal steps and equal gradients.

A network with one hidden layer is trained for a fixed number of steps with batches of n, by SGD and by
`gap.precondition.InverseCovariance`: rank r, :math:`\lambda = \rho\,s_1`, power 1 (inverse) or 1/2 (whitening), P
estimated anew every 20 steps from 128 training examples drawn independently of the batches (Roberts, SGD Implicitly
Regularizes Generalization Error, section 4, proposes the inverse covariance as a preconditioner; the algorithm is
ours). A refresh costs 128 per-example gradients. Therefore SGD is also given as many gradients, once in more steps
and once in larger batches. Three arms do without a regularizer worth the name. With :math:`\rho = 10^{-6}` P is nearly
the projector off the r leading eigenvectors. The pure inverse is :math:`s_r\,\hat\Sigma^+`, the pseudo-inverse on all
eigenvectors that 128 gradients have: there are more parameters than gradients, so that no inverse exists. The factor,
the least eigenvalue, makes it at most the identity, like the others.

Every arm has its own learning rate, the one of a grid with the least mean validation loss over the tuning seeds. Then
fresh seeds report the loss on test images that neither tuning nor training saw. A seed sets the split into training
and validation images, the initial weights, the batches and the refresh batches; differences between arms are paired.
The test images are the same for all seeds: standard errors do not include their choice. Losses are mean
cross-entropies in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from implicitreg import ensembles, gradstats, nets
from implicitreg._brief import brief
from implicitreg._torch import torch
from implicitreg.experiments import population
from implicitreg.gap.precondition import InverseCovariance, low_rank
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "FOR_DATA",
    "METRICS",
    "QUICK",
    "SETTINGS",
    "Arm",
    "PureInverse",
    "Split",
    "against",
    "arms",
    "batches",
    "cost",
    "measure",
    "optimizer_of",
    "reported",
    "trained",
    "tuned",
    "units",
]

SETTINGS = {
    "data": "digits",
    "train": 1000,
    "validation": 400,
    "test": 397,
    "hidden": 16,
    "n": [5, 50],
    "steps": 200,
    "rank": 20,
    "rho": [0.1, 0.03],
    "power": [1.0, 0.5],
    "refresh_every": 20,
    "refresh_size": 128,
    "learning_rates": [2.0**k for k in range(-5, 5)],
    "tuning_seeds": [0, 1, 2],
    "fresh_seeds": list(range(20, 40)),
    "split_seed": 99,
}
QUICK = {"n": [5], "steps": 40, "rho": [0.1], "power": [1.0], "learning_rates": [0.25, 0.5], "fresh_seeds": [20, 21]}
FOR_DATA = {"mnist": {"split": "test"}}

TINY = 1e-6
SGD = ("sgd", "sgd, more steps", "sgd, larger batches")
METRICS = ("test_loss", "test_accuracy", "train_loss", "validation_loss")
cross_entropy = partial(F.cross_entropy, reduction="none")


def units(settings: Mapping[str, Any]) -> list[str]:
    """One unit a batch size."""
    return [f"n={n}" for n in settings["n"]]


def measure(unit: str, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """For every arm: the validation loss over the grid, the rate chosen, and what fresh seeds say at that rate."""
    every = arms(int(unit.removeprefix("n=")), settings)
    split = Split.of(settings, device)
    tuning = {name: tuned(arm, split, settings) for name, arm in every.items()}
    fresh = {}
    for name, arm in every.items():
        lr = tuning[name]["learning_rate"]
        fresh[name] = torch.stack([trained(arm, lr, seed, split, settings) for seed in settings["fresh_seeds"]])
    return {
        name: {"gradients": cost(arm, settings), **tuning[name], **reported(fresh[name]), **against(name, fresh)}
        for name, arm in every.items()
    }


# What is compared


@dataclass(frozen=True)
class Arm:
    """Batches of n, a number of steps, and the preconditioner; rank 0 is SGD, rho 0 the pseudo-inverse."""

    n: int
    steps: int
    rank: int = 0
    rho: float = 1.0
    power: float = 1.0
    __repr__ = brief


def arms(n: int, settings: Mapping[str, Any]) -> dict[str, Arm]:
    """SGD, SGD with as many gradients as the preconditioned arms, and these, the last three with hardly any lambda."""
    steps, rank, m = settings["steps"], settings["rank"], settings["refresh_size"]
    budget = cost(Arm(n, steps, rank), settings)
    sgd = {
        "sgd": Arm(n, steps),
        "sgd, more steps": Arm(n, round(budget / n)),
        "sgd, larger batches": Arm(round(budget / steps), steps),
    }
    grid = [(rho, power) for power in settings["power"] for rho in settings["rho"]]
    regularized = {f"rho={rho:g} power={power:g}": Arm(n, steps, rank, rho, power) for rho, power in grid}
    projectors = {f"rho={TINY:g} rank={r}": Arm(n, steps, r, TINY) for r in (rank, m - 1)}
    return sgd | regularized | projectors | {f"pure inverse rank={m - 1}": Arm(n, steps, m - 1, 0.0)}


def cost(arm: Arm, settings: Mapping[str, Any]) -> int:
    """Gradients of single examples that a run evaluates, those of the refreshes included."""
    refreshes = -(-arm.steps // settings["refresh_every"]) if arm.rank else 0
    return arm.steps * arm.n + refreshes * settings["refresh_size"]


# Training


@dataclass(frozen=True, eq=False)
class Split:
    """Test images, the same for all seeds, and a pool of which every seed takes training and validation images."""

    pool: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    widths: tuple[int, ...]
    __repr__ = brief

    @classmethod
    def of(cls, settings: Mapping[str, Any], device: torch.device) -> Split:
        everything = population(settings, device)
        sizes = [settings[part] for part in ("train", "validation", "test")]
        if sum(sizes) > len(everything.targets):
            have = f"data = {settings['data']!r} has {len(everything.targets)} images"
            raise ValueError(f"{have}: expected at least {sum(sizes)}")
        order = torch.randperm(len(everything.targets), generator=_generator(settings["split_seed"]))
        test, pool = order[: sizes[2]].to(device), order[sizes[2] :].to(device)
        x, y = everything.inputs, everything.targets
        widths = (x.shape[1], settings["hidden"], everything.classes)
        return cls((x[pool], y[pool]), (x[test], y[test]), widths)

    def draw(self, generator: torch.Generator, settings: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
        """Training and validation images."""
        sizes = [settings["train"], settings["validation"]]
        order = torch.randperm(len(self.pool[1]), generator=generator)[: sum(sizes)].to(self.pool[1].device)
        return [(self.pool[0][i], self.pool[1][i]) for i in order.split(sizes)]


def trained(arm: Arm, lr: float, seed: int, split: Split, settings: Mapping[str, Any]) -> Tensor:
    """What `METRICS` say after one run, (metrics,)."""
    train, validation = split.draw(_generator(seed), settings)
    model = nets.mlp(split.widths, seed=seed).to(train[0].device)
    optimizer = optimizer_of(arm, lr, model)
    orders, refreshes = batches(arm.n, len(train[1]), _generator(seed, 1)), _generator(seed, 2)
    for step in range(arm.steps):
        if arm.rank and step % settings["refresh_every"] == 0:
            i = torch.randperm(len(train[1]), generator=refreshes)[: settings["refresh_size"]].to(train[1].device)
            optimizer.refresh(model, cross_entropy, train[0][i], train[1][i])
        i = next(orders).to(train[1].device)
        optimizer.zero_grad()
        F.cross_entropy(model(train[0][i]), train[1][i]).backward()
        optimizer.step()
    return _measured(model, test=split.test, train=train, validation=validation)


def optimizer_of(arm: Arm, lr: float, model: nn.Module) -> torch.optim.Optimizer:
    if arm.rank and arm.rho == 0:
        return PureInverse(model.parameters(), lr, arm.rank)
    return InverseCovariance(model.parameters(), lr, rank=arm.rank, rho=arm.rho, power=arm.power)


class PureInverse(torch.optim.SGD):
    """Steps along s_r V' diag(1/s) V g, the pseudo-inverse of the covariance of rank r times its least eigenvalue."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, rank: int) -> None:
        super().__init__(parameters, lr)
        self.rank = rank

    def refresh(self, model: nn.Module, loss: Callable[..., Tensor], inputs: Tensor, targets: Tensor) -> None:
        self.P = low_rank(gradstats.per_example(model, loss, inputs, targets), rank=self.rank, rho=1.0)

    def step(self) -> None:
        parameters, s = self.param_groups[0]["params"], self.P.eigenvalues
        g = torch.cat([p.grad.flatten() for p in parameters])
        direction = (self.P.V @ g * (s[-1] / s)) @ self.P.V
        for p, piece in zip(parameters, direction.split([p.numel() for p in parameters]), strict=True):
            p.grad = piece.view_as(p)
        super().step()


def batches(n: int, N: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of n without replacement, one epoch after another in a new order, incomplete ones left out."""
    while True:
        yield from torch.randperm(N, generator=generator)[: N // n * n].view(-1, n)


def _generator(*seeds: int) -> torch.Generator:
    return torch.Generator().manual_seed(sum(seed * 1_000_003**k for k, seed in enumerate(seeds)))


@torch.no_grad()
def _measured(model: nn.Sequential, **parts: tuple[Tensor, Tensor]) -> Tensor:
    losses = {part: F.cross_entropy(model(x), y) for part, (x, y) in parts.items()}
    x, y = parts["test"]
    accuracy = (model(x).argmax(1) == y).to(x).mean()
    return torch.stack([losses["test"], accuracy, losses["train"], losses["validation"]])


# Tuning and reporting


def tuned(arm: Arm, split: Split, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The mean validation loss of the tuning seeds at every rate, and the rate where it is least."""
    rates, seeds = settings["learning_rates"], settings["tuning_seeds"]
    v = METRICS.index("validation_loss")
    losses = torch.stack([torch.stack([trained(arm, lr, seed, split, settings)[v] for seed in seeds]) for lr in rates])
    best = int(losses.mean(1).argmin())
    grid = [[lr, *pair] for lr, pair in zip(rates, _pairs(losses.T), strict=True)]
    return {"learning_rate": rates[best], "at_edge": best in (0, len(rates) - 1), "validation": grid}


def reported(fresh: Tensor) -> dict[str, Any]:
    """Mean and standard error over the fresh seeds, (seeds, metrics)."""
    return dict(zip(METRICS, _pairs(fresh), strict=True))


def against(name: str, fresh: Mapping[str, Tensor]) -> dict[str, Any]:
    """Paired differences from the three SGDs."""
    return {f"minus {other}": reported(fresh[name] - fresh[other]) for other in SGD if other != name}


def _pairs(draws: Tensor) -> list[list[float]]:
    e = ensembles.estimate(draws)
    return [list(pair) for pair in zip(e.mean.tolist(), e.se.tolist(), strict=True)]
