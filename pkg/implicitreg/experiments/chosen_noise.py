r"""Training with noise of one's choice: which kinds end where SGD ends, and which where gradient descent does?

Small ReLU networks are trained for one number of steps at one learning rate by gradient descent, by SGD, and by
gradient descent whose examples have random weights with, or nearly with, the covariance of SGD's, of nine other kinds
(`implicitreg.noise.sampling`). Controls are SGD with a larger batch B, the same with compensating noise on top (nothing
is tuned: `compensation`), and Gaussian noise added to the full gradient, of the trace or of the diagonal of the
covariance of SGD's noise at the current weights. A seed draws images, wrong labels and initial weights, which all
methods share, so that differences are paired. Every method is watched along the way, and the best test accuracy along
its curve is stopping with hindsight, the same advantage for all. The learning rate of gradient descent is varied too:
what is claimed of the methods is claimed at matched learning rate and number of steps.

``noisy``: a part of the training labels is replaced by other ones. ``clean``: right labels, large initial weights.
Training loss and accuracy are those on the labels as given, unweighted; test labels are right. Accuracies are
fractions, losses mean cross-entropies in nats.

References
----------
Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, section 4. Langevin dynamics with the diagonal: Zhu et
al., The Anisotropic Noise in Stochastic Gradient Descent (2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from implicitreg import _validate, ensembles, nets
from implicitreg._torch import torch
from implicitreg.experiments import population
from implicitreg.noise import replicas
from torch import Tensor

__all__ = ["FOR_DATA", "METHODS", "METRICS", "QUICK", "SETTINGS", "measure", "mislabelled", "summary", "units"]

SETTINGS: dict[str, Any] = {
    "data": "digits", "test": 1400, "hidden": [64, 64], "block": 4,
    "noisy": {
        "train": 300, "wrong": 0.2, "gain": 1.0, "eta": 0.1, "b": 10, "B": 100, "steps": 3000,
        "at": [0, 30, 100, 200, 300, 450, 600, 900, 1200, 1600, 2000, 2500, 3000], "rates": [0.03, 0.3, 1.0, 2.0],
    },
    "clean": {
        "train": 200, "wrong": 0.0, "gain": 2.5, "eta": 0.03, "b": 5, "B": 50, "steps": 1500,
        "at": [0, 30, 100, 200, 300, 450, 600, 900, 1200, 1500], "rates": [],
    },
    "noisy_seeds": list(range(24)), "clean_seeds": list(range(8)),
}  # fmt: skip
QUICK: dict[str, Any] = {
    "noisy": {**SETTINGS["noisy"], "steps": 60, "at": [0, 30, 60], "rates": [1.0]},
    "clean": {**SETTINGS["clean"], "steps": 60, "at": [0, 30, 60]},
    "noisy_seeds": [0, 1], "clean_seeds": [0, 1],
}  # fmt: skip
FOR_DATA = {"mnist": {"split": "test"}}

METHODS = {
    "gd": "gd", "sgd": "sgd", "sgd_without_replacement": "sgd_without_replacement",
    "gaussian_cov": "gaussian_cov", "gaussian_fisher": "gaussian_fisher", "bernoulli": "bernoulli",
    "sparse_fisher": "sparse_fisher", "sparse_cov": "sparse_cov", "rademacher": "rademacher", "student_t": "student_t",
    "large_batch": "sgd", "minibatch_cov": "minibatch_cov", "minibatch_fisher": "minibatch_fisher",
    "gld_iso": "gld_iso", "gld_diag": "gld_diag",
}  # fmt: skip
"""The kind of each method; ``large_batch`` is SGD with the batch B."""
METRICS = "train_loss", "train_accuracy", "test_loss", "test_accuracy"


def units(settings: Mapping[str, Any]) -> list[str]:
    """Blocks of seeds of both settings, such as ``"noisy, seeds 0 to 3"``."""
    return list(_blocks(settings))


def measure(unit: str, settings: Mapping[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `METRICS` say of every run.

    Parameters
    ----------
    unit : str
        One of `units`.
    settings : mapping
        `SETTINGS`, with changes.
    device : torch.device or str
        Where to compute.

    Returns
    -------
    dict
        For every one of `METHODS`, and for ``"gd, eta = …"``, the metrics, a list a seed, along ``"at"``; null where a
        run has diverged.

    Raises
    ------
    ValueError
        If the unit is unknown or there are too few images.
    """
    _validate.choice("unit", unit, units(settings))
    name, seeds = _blocks(settings)[unit]
    chosen, arms = settings[name], _arms(settings[name])
    x, y, test, starts = _drawn(chosen, seeds, settings, torch.device(device))
    runs = [replicas.Replica(*arm, seed=seed, data=k, start=k) for arm in arms.values() for k, seed in enumerate(seeds)]
    curves = replicas.train(runs, starts, x, y, steps=chosen["steps"], test=test, at=chosen["at"])
    rows = {metric: _plain(getattr(curves, metric)) for metric in METRICS}
    return {
        arm: {metric: rows[metric][k * len(seeds) : (k + 1) * len(seeds)] for metric in METRICS}
        for k, arm in enumerate(arms)
    }


def summary(results: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """For both settings and every method means with standard errors over seeds.

    Returns
    -------
    dict
        Pairs (mean, standard error): `METRICS` at the end, ``minus_gd`` and ``minus_sgd``, the paired differences of
        the test accuracy, ``best``, the largest test accuracy along the curve; ``curves``, both along ``"at"``. Of a
        method of which a run has diverged only their number, ``diverged``.
    """
    return {name: _summary(_joined(results, name, settings)) for name in ("noisy", "clean")}


def _blocks(settings: Mapping[str, Any]) -> dict[str, tuple[str, list[int]]]:
    blocks = {}
    for name in ("noisy", "clean"):
        seeds, size = settings[f"{name}_seeds"], settings["block"]
        for part in (seeds[k : k + size] for k in range(0, len(seeds), size)):
            blocks[f"{name}, seeds {part[0]} to {part[-1]}"] = name, part
    return blocks


def _arms(chosen: Mapping[str, Any]) -> dict[str, tuple[str, int, float, int]]:
    """Kind, b, eta and B of every method."""
    b, B, eta = chosen["b"], chosen["B"], chosen["eta"]
    arms = {method: (kind, B if method == "large_batch" else b, eta, B) for method, kind in METHODS.items()}
    return arms | {f"gd, eta = {rate:g}": ("gd", b, rate, B) for rate in chosen["rates"]}


def _drawn(
    chosen: Mapping[str, Any], seeds: list[int], settings: Mapping[str, Any], device: torch.device
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], list[torch.nn.Sequential]]:
    """For every seed training and test images, with labels, and a network."""
    pool = population(settings, device)
    n, m = chosen["train"], settings["test"]
    if n + m > len(pool.targets):
        raise ValueError(f"data = {settings['data']!r} has {len(pool.targets)} images: expected at least {n + m}")
    index, given = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        index.append(torch.randperm(len(pool.targets), generator=generator)[: n + m].to(device))
        given.append(mislabelled(pool.targets[index[-1][:n]], chosen["wrong"], pool.classes, generator))
    x, y = pool.inputs.float()[torch.stack(index)], pool.targets[torch.stack(index)]
    widths = [x.shape[2], *settings["hidden"], pool.classes]
    like = {"activation": "relu", "gain": chosen["gain"], "dtype": torch.float32}
    starts = [nets.mlp(widths, seed=seed, **like).to(device) for seed in seeds]
    return x[:, :n], torch.stack(given), (x[:, n:], y[:, n:]), starts


def mislabelled(labels: Tensor, share: float, classes: int, generator: torch.Generator) -> Tensor:
    """The labels, a share of them replaced by one of the others, all equally likely.

    Examples
    --------
    >>> labels = torch.tensor([0, 1, 2, 2])
    >>> (mislabelled(labels, 0.75, 3, torch.Generator()) != labels).sum().item()
    3
    """
    wrong = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))].to(labels.device)
    shift = torch.randint(1, classes, (len(wrong),), generator=generator).to(labels.device)
    changed = labels.clone()
    changed[wrong] = (labels[wrong] + shift) % classes
    return changed


def _plain(values: np.ndarray) -> list[list[float | None]]:
    """Six digits; None where a number is not finite."""
    return [[float(f"{v:.6g}") if math.isfinite(v) else None for v in row] for row in values]


def _joined(results: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The metrics of every method, (metrics, seeds, steps), NaN where a run has diverged."""
    pieces = [results[unit] for unit, (setting, _) in _blocks(settings).items() if setting == name]
    return {
        arm: np.concatenate([np.array([piece[arm][m] for m in METRICS], dtype=np.float64) for piece in pieces], axis=1)
        for arm in pieces[0]
    }


def _summary(arms: Mapping[str, np.ndarray]) -> dict[str, Any]:
    ends = {arm: values[METRICS.index("test_accuracy"), :, -1] for arm, values in arms.items()}
    return {arm: _row(values, ends["gd"], ends["sgd"]) for arm, values in arms.items()}


def _row(values: np.ndarray, gd: np.ndarray, sgd: np.ndarray) -> dict[str, Any]:
    if lost := int((~np.isfinite(values)).any((0, 2)).sum()):
        return {"diverged": lost}
    accuracy = values[METRICS.index("test_accuracy")]
    return {
        **{metric: _pair(row[:, -1]) for metric, row in zip(METRICS, values, strict=True)},
        "minus_gd": _pair(accuracy[:, -1] - gd), "minus_sgd": _pair(accuracy[:, -1] - sgd),
        "best": _pair(accuracy.max(1)),
        "curves": {metric: _pair(row) for metric, row in zip(METRICS, values, strict=True)},
    }  # fmt: skip


def _pair(draws: np.ndarray) -> list[Any]:
    """Mean and standard error, to six digits."""
    e = ensembles.estimate(draws)
    return [np.vectorize(lambda v: float(f"{v:.6g}"))(part).tolist() for part in (e.mean, e.se)]
