r"""Does the penalty help on new data? SGD, GD, and GD with the penalty under label noise, paired by seed.

Gradient descent on the training loss plus

.. math:: \frac{c\,\eta}{4}\Big(\frac1n - \frac1N\Big)\operatorname{tr} S(\theta)

(S the covariance of the N per-example gradients with 1/(N − 1), n the batch of the SGD that it imitates) takes as
many steps as SGD with batches drawn without replacement: epochs times N/n. For c = 1 one epoch of it agrees through
order η² with the mean of SGD's over the batch orders (the modified loss after eq. (13) of Roberts, SGD Implicitly
Regularizes Generalization Error, for N/n batches and a given training set); c = 4 asks what more of it does. Each seed
draws images, wrong labels, initial weights and batch orders; all arms of a seed share the first three, so that
differences are paired. A penalized run also fits the training set more slowly. Therefore arms are compared three
times: after the same number of steps, at the same training loss (where a run first comes down to it, between epochs),
and each run stopped at the epoch of its least validation loss.
Training and validation labels are noisy, test labels are not. Losses are mean cross-entropies in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from implicitreg import ensembles, nets
from implicitreg._brief import brief
from implicitreg._torch import torch
from implicitreg.experiments import population
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "ARMS",
    "FOR_DATA",
    "METRICS",
    "QUICK",
    "SETTINGS",
    "SHOWN",
    "Draw",
    "Part",
    "batches",
    "compared",
    "curve",
    "drawn",
    "gradient",
    "iterates",
    "measure",
    "measured",
    "path",
    "reached",
    "redrawn",
    "stopped",
    "trace",
    "units",
]

SETTINGS = {
    "data": "digits",
    "train": 200,
    "n": 10,
    "redrawn": 0.2,
    "validation": 400,
    "test": 1197,
    "hidden": 16,
    "seeds": list(range(12)),
    "epochs": {"0.5": [10, 30, 100], "0.2": [10], "0.05": [100]},
    "levels": [1.0, 0.75, 0.5, 0.25, 0.1],
}
QUICK = {"seeds": [0, 1, 2], "epochs": {"0.5": [1, 3]}, "levels": [2.0, 1.5], "test": 300}
FOR_DATA = {"mnist": {"split": "test"}}

ARMS = {"sgd": None, "gd": 0.0, "penalty": 1.0, "penalty x 4": 4.0}
"""The factor c of the penalty; None is SGD."""
METRICS = (
    "epoch", "train_loss", "correct_loss", "wrong_loss", "trace", "validation_loss", "test_loss", "test_accuracy",
)  # fmt: skip
"""correct_loss and wrong_loss: training loss over the examples whose label is right, and is wrong; trace: tr S."""
SHOWN = ("train_loss", "trace", "test_loss", "test_accuracy")
"""What the record keeps of every epoch."""
ORDERS = 1_000_003  # batch orders come from another stream of random numbers than the images
cross_entropy = partial(F.cross_entropy, reduction="none")


def units(settings: Mapping[str, Any]) -> list[str]:
    """One unit a learning rate: the longest run has the shorter ones inside."""
    return [f"eta={eta}" for eta in settings["epochs"]]


def measure(unit: str, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """All arms at one learning rate: each number is a pair, mean and standard error over seeds."""
    eta = unit.removeprefix("eta=")
    epochs = settings["epochs"][eta]
    draw = drawn(settings, device)
    paths = {arm: path(c, float(eta), max(epochs), draw, settings) for arm, c in ARMS.items()}
    return {
        "after": {str(T): compared({arm: p[T] for arm, p in paths.items()}) for T in epochs},
        "matched": {str(level): compared(reached(paths, level)) for level in settings["levels"]},
        "stopped": compared({arm: stopped(p) for arm, p in paths.items()}),
        "path": {arm: {name: curve(p, name) for name in SHOWN} for arm, p in paths.items()},
    }


# Data


@dataclass(frozen=True, eq=False)
class Part:
    """Images (R, n, d), labels as given and true labels (R, n), of R seeds."""

    inputs: Tensor
    targets: Tensor
    truth: Tensor
    __repr__ = brief


@dataclass(frozen=True, eq=False)
class Draw:
    """What all arms share: three disjoint parts, the initial weights (R, p), and a model that says the architecture."""

    train: Part
    validation: Part
    test: Part
    weights: Tensor
    model: nn.Sequential
    __repr__ = brief


def drawn(settings: Mapping[str, Any], device: torch.device) -> Draw:
    """For every seed its own parts and weights."""
    pool = population(settings, device)
    widths = (pool.inputs.shape[1], settings["hidden"], pool.classes)
    share = {"train": settings["redrawn"], "validation": settings["redrawn"], "test": 0.0}
    sizes = [settings[part] for part in share]
    if sum(sizes) > len(pool.targets):
        raise ValueError(f"data = {settings['data']!r} has {len(pool.targets)} images: expected at least {sum(sizes)}")
    rows = {part: [] for part in share}
    for seed in settings["seeds"]:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(pool.targets), generator=generator).to(device)
        for part, i in zip(share, order[: sum(sizes)].split(sizes), strict=True):
            truth = pool.targets[i]
            rows[part].append((pool.inputs[i], redrawn(truth, share[part], pool.classes, generator), truth))
    parts = {part: Part(*map(torch.stack, zip(*rows[part], strict=True))) for part in share}
    models = [nets.mlp(widths, seed=seed).to(device) for seed in settings["seeds"]]
    return Draw(**parts, weights=torch.stack([ensembles.flatten(model) for model in models]), model=models[0])


def redrawn(labels: Tensor, share: float, classes: int, generator: torch.Generator) -> Tensor:
    """The labels, a share of them drawn anew from the uniform law, so that some of these stay right."""
    chosen = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    noisy = labels.clone()
    noisy[chosen.to(labels.device)] = torch.randint(classes, (len(chosen),), generator=generator).to(labels.device)
    return noisy


# Training: R networks at once


def path(c: float | None, eta: float, epochs: int, draw: Draw, settings: Mapping[str, Any]) -> Tensor:
    """What `METRICS` say at the start and after every epoch of one arm, (epochs + 1, metrics, R)."""
    rows = enumerate(islice(iterates(c, eta, draw, settings), epochs + 1))
    return torch.stack([measured(epoch, weights, draw) for epoch, weights in rows])


def iterates(c: float | None, eta: float, draw: Draw, settings: Mapping[str, Any]) -> Iterator[Tensor]:
    """The weights (R, p) at the start and after every epoch of N/n steps: of SGD, or with c of the penalty."""
    N, n = settings["train"], settings["n"]
    penalty = (c or 0.0) * eta / 4 * (1 / n - 1 / N)
    generators = [torch.Generator().manual_seed(ORDERS + seed) for seed in settings["seeds"]]
    x, y, weights = draw.train.inputs, draw.train.targets, draw.weights
    while True:
        yield weights
        for batch in batches(generators, N, n).to(x.device):
            chosen = (x, y) if c is not None else (x.take_along_dim(batch[..., None], 1), y.gather(1, batch))
            weights = weights - eta * gradient(draw.model, weights, *chosen, penalty=penalty)


def batches(generators: list[torch.Generator], N: int, n: int) -> Tensor:
    """The batches of one epoch without replacement, (N/n, R, n)."""
    orders = torch.stack([torch.randperm(N, generator=generator) for generator in generators])
    return orders.view(len(generators), N // n, n).transpose(0, 1)


def gradient(model: nn.Sequential, weights: Tensor, x: Tensor, y: Tensor, *, penalty: float) -> Tensor:
    """The gradient of mean loss + penalty tr S in the weights, (R, p)."""
    g = ensembles.gradients(model, cross_entropy, weights, x, y)
    if penalty == 0:
        return g
    weights = weights.detach().requires_grad_()
    return g + penalty * torch.autograd.grad(trace(model, weights, x, y).sum(), weights)[0]


def trace(model: nn.Sequential, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """tr S of the cross-entropies of R networks, (R,): (Σ|g_i|² − n|ḡ|²)/(n − 1).

    In a linear layer with the input a, g_i is the outer product of delta_i = ∂l_i/∂z and (a_i, 1).
    """
    layers, n = _layers(model, weights), y.shape[1]
    activations, z = [], x
    for W, b in layers:
        activations.append(z if z is x else z.tanh())
        z = torch.baddbmm(b, activations[-1], W.mT)
    delta = z.softmax(2) - F.one_hot(y, z.shape[2])
    total = torch.zeros_like(weights[:, 0])
    for (W, _), a in zip(reversed(layers), reversed(activations), strict=True):
        squares = delta.square().sum(2) * (1 + a.square().sum(2))
        mean_W, mean_b = delta.mT @ a / n, delta.mean(1)
        total = total + squares.sum(1) - n * (mean_W.square().sum((1, 2)) + mean_b.square().sum(1))
        delta = delta @ W * (1 - a * a) if a is not x else delta
    return total / (n - 1)


def _layers(model: nn.Sequential, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """W (R, out, in) and b (R, 1, out) of every linear layer."""
    shapes = [p.shape if p.ndim == 2 else (1, *p.shape) for p in model.parameters()]
    pieces = weights.split([p.numel() for p in model.parameters()], dim=1)
    shaped = [piece.view(-1, *shape) for piece, shape in zip(pieces, shapes, strict=True)]
    return list(zip(shaped[::2], shaped[1::2], strict=True))


@torch.no_grad()
def measured(epoch: int, weights: Tensor, draw: Draw) -> Tensor:
    """`METRICS` of every run, (metrics, R)."""

    def values(part: Part, loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy) -> Tensor:
        return ensembles.losses(draw.model, loss, weights, part.inputs, part.targets)

    train, wrong = values(draw.train), draw.train.targets != draw.train.truth
    return torch.stack([
        torch.full_like(weights[:, 0], epoch),
        train.mean(1), (train * ~wrong).sum(1) / (~wrong).sum(1), (train * wrong).sum(1) / wrong.sum(1),
        trace(draw.model, weights, draw.train.inputs, draw.train.targets),
        values(draw.validation).mean(1), values(draw.test).mean(1), values(draw.test, _hits).mean(1),
    ])  # fmt: skip


def _hits(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).to(outputs)


# Comparison: an arm's row is (metrics, R)


def stopped(p: Tensor) -> Tensor:
    """Every run of a path at the epoch where its own validation loss is least."""
    best = p[:, METRICS.index("validation_loss")].argmin(0)
    return p.take_along_dim(best[None, None], 0)[0]


def reached(paths: Mapping[str, Tensor], level: float) -> dict[str, Tensor]:
    """The arms all of whose runs come down to a training loss, each run where it first does."""
    return {arm: row for arm, p in paths.items() if (row := _first_at(p, level)) is not None}


def _first_at(p: Tensor, level: float) -> Tensor | None:
    """Linear between the last epoch above the level and the first one that is not."""
    loss = p[:, METRICS.index("train_loss")]
    below = loss <= level
    if below[0].any() or not below.any(0).all():
        return None
    first = below.int().argmax(0)
    upper, lower = (p.take_along_dim(i[None, None], 0)[0] for i in (first - 1, first))
    high, low = (row[METRICS.index("train_loss")] for row in (upper, lower))
    return upper + (high - level) / (high - low) * (lower - upper)


def compared(rows: Mapping[str, Tensor]) -> dict[str, Any]:
    """Mean and standard error over seeds of each arm, and of its paired difference from GD."""
    others = [arm for arm in rows if arm != "gd" and "gd" in rows]
    return {
        "arms": {arm: _named(row) for arm, row in rows.items()},
        "minus_gd": {arm: _named(rows[arm] - rows["gd"]) for arm in others},
    }


def curve(p: Tensor, name: str) -> dict[str, list[float]]:
    """Mean and standard error over seeds at every epoch, to six digits."""
    e = ensembles.estimate(p[:, METRICS.index(name)].T)
    return {key: [float(f"{v:.6g}") for v in getattr(e, key).tolist()] for key in ("mean", "se")}


def _named(row: Tensor) -> dict[str, list[float]]:
    e = ensembles.estimate(row.T)
    return {name: [m, se] for name, m, se in zip(METRICS, e.mean.tolist(), e.se.tolist(), strict=True)}
