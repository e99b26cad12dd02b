"""Convolutional networks trained with noise of one's choice: what the experiments of one name share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
from implicitreg import _validate, datasets, nets
from implicitreg._torch import torch
from implicitreg.experiments.chosen_noise import METRICS, _plain, _row, mislabelled
from implicitreg.noise import msgd
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

METHODS = {
    "gd": "gd", "sgd": "sgd", "bernoulli": "bernoulli", "gaussian_cov": "gaussian_cov",
    "sparse_fisher": "sparse_fisher", "large_batch": "sgd", "minibatch_cov": "minibatch_cov", "gld_iso": "gld_iso",
}  # fmt: skip
"""The kind of each method; ``large_batch`` is SGD with the batch B."""
SIZES = {"small_conv": 16, "vgg11": 32, "resnet18": 8}
"""Smaller images get a black frame to have this size in pixels."""


def units(settings: Mapping[str, Any]) -> list[str]:
    """Every method with every seed, such as ``"sgd, seed 10"``, and gradient descent at other learning rates."""
    return list(_pieces(settings))


def measure(unit: str, settings: Mapping[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
    """One training run.

    Parameters
    ----------
    unit : str
        One of `units`.
    settings : mapping
        ``SETTINGS`` of the experiment, with changes.
    device : torch.device or str
        Where to compute; in bfloat16 on a GPU if the settings say so.

    Returns
    -------
    dict
        ``step``, and along it the lists ``train_loss``, ``train_accuracy``, ``test_loss``, ``test_accuracy``; or
        ``{"diverged": True}``. On a GPU also ``seconds``, and for gradient descent ``throughput``: images a second, and
        the part of the measured rate of matrix products that this is.

    Raises
    ------
    ValueError
        If the unit is unknown, or the images are too few or not square.
    """
    _validate.choice("unit", unit, units(settings))
    arm, seed = _pieces(settings)[unit]
    kind, b, eta = _arms(settings)[arm]
    model, train, test = _drawn(seed, settings)
    cuda = torch.device(device).type == "cuda"
    start = time.perf_counter()
    try:
        history = msgd.train(
            model, train, test, kind=kind, b=b, B=settings["B"], eta=eta, steps=settings["steps"], seed=seed,
            device=str(device), precision=settings["precision"] if cuda else None, evaluate_every=settings["every"],
            progress=False,
        )  # fmt: skip
    except FloatingPointError:
        return {"diverged": True}
    result = {"step": history.step.tolist()}
    result |= dict(zip(METRICS, _plain(np.array([getattr(history, name) for name in METRICS])), strict=True))
    if cuda:
        result["seconds"] = time.perf_counter() - start
        if arm == "gd":
            result["throughput"] = _throughput(model, *(part.to(device) for part in train))
    return result


def summary(results: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """For every method pairs (mean, standard error) over seeds, as `chosen_noise.summary`."""
    runs = {arm: [results[_name(arm, seed)] for seed in settings["seeds"]] for arm in _arms(settings)}
    whole = {
        arm: np.array([[run[name] for run in rows] for name in METRICS])
        for arm, rows in runs.items()
        if not any("diverged" in run for run in rows)
    }
    gd, sgd = (whole[arm][METRICS.index("test_accuracy"), :, -1] for arm in ("gd", "sgd"))
    lost = {arm: {"diverged": sum("diverged" in run for run in rows)} for arm, rows in runs.items()}
    return {arm: _row(whole[arm], gd, sgd) if arm in whole else lost[arm] for arm in runs}


def _pieces(settings: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    return {_name(arm, seed): (arm, seed) for seed in settings["seeds"] for arm in _arms(settings)}


def _name(arm: str, seed: int) -> str:
    return f"{arm}, seed {seed}"


def _arms(settings: Mapping[str, Any]) -> dict[str, tuple[str, int, float]]:
    """Kind, b and eta of every method."""
    b, B, eta = settings["b"], settings["B"], settings["eta"]
    arms = {arm: (METHODS[arm], B if arm == "large_batch" else b, eta) for arm in settings["methods"]}
    return arms | {f"gd, eta = {rate:g}": ("gd", b, rate) for rate in settings["rates"]}


# What is drawn

_Pair = tuple[Tensor, Tensor]


def _drawn(seed: int, settings: Mapping[str, Any]) -> tuple[nn.Module, _Pair, _Pair]:
    """The network, training and test images of a seed; pixels with mean 0 and variance 1 over the training set."""
    n, m = settings["train"], settings["test"]
    images, labels, classes = _images(settings["data"], settings["split"], n + m)
    images = _sized(images, settings)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    x, y = images[order] / 255, labels[order]
    x = (x - x[:n].mean()) / x[:n].std()
    given = mislabelled(y[:n], settings["wrong"], classes, generator)
    return _network(settings, x.shape, classes, seed), (x[:n], given), (x[n:], y[n:])


@lru_cache(maxsize=1)
def _images(data: str, split: str, limit: int) -> tuple[Tensor, Tensor, int]:
    drawn = datasets.load(data, split=split, limit=limit, dtype="uint8")
    if len(drawn.labels) < limit:
        raise ValueError(f"data = {data!r} has {len(drawn.labels)} images: expected at least {limit}")
    if drawn.images.shape[2] != drawn.images.shape[3]:
        raise ValueError(f"data = {data!r} has images of {drawn.images.shape[2:]} pixels: expected squares")
    return torch.from_numpy(drawn.images), torch.from_numpy(drawn.labels), len(drawn.classes)


def _sized(images: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Means of squares of pixels of what is larger than ``largest``; a black frame around what is too small."""
    images = F.avg_pool2d(images.float(), -(-images.shape[-1] // settings["largest"]))
    missing = max(SIZES[settings["network"]] - images.shape[-1], 0)
    return F.pad(images, (missing // 2, missing - missing // 2) * 2)


def _network(settings: Mapping[str, Any], shape: torch.Size, classes: int, seed: int) -> nn.Module:
    more: dict[str, Any] = {"channels": shape[1], "seed": seed, "dtype": torch.float32}
    if settings["network"] == "small_conv":
        return nets.small_conv(classes, size=shape[-1], **more)
    build = {"vgg11": nets.vgg11, "resnet18": nets.resnet18}[settings["network"]]
    return build(classes, width=settings["width"], **more)


# How fast a GPU is


def _throughput(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Images a second of forward and backward passes in bfloat16, and the share of the rate of matrix products."""
    x, y = x[:1000].contiguous(memory_format=torch.channels_last), y[:1000]

    def passes() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            outputs = model(x)
        F.cross_entropy(outputs.float(), y).backward()

    with FlopCounterMode(display=False) as counter:
        passes()
    a = torch.randn(8192, 8192, device=x.device, dtype=torch.bfloat16)
    rate = 2 * 8192**3 / _seconds(partial(torch.mm, a, a))
    seconds = _seconds(passes)
    return {"images_per_second": len(y) / seconds, "matrix_rate": rate,
            "share": counter.get_total_flops() / seconds / rate}  # fmt: skip


def _seconds(call: Callable[[], Any], times: int = 20) -> float:
    """Of one call, after three others."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / times
