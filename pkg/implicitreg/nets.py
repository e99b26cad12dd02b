"""The networks of the experiments: small, seeded, without batch-norm or dropout, so that examples do not interact."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
from implicitreg import _validate
from torch import nn

_ACTIVATIONS = {"tanh": (nn.Tanh, 1), "relu": (nn.ReLU, 2)}  # and c, the variance of a weight times its fan-in


def mlp(
    widths: Sequence[int], *, activation: str = "tanh", gain: float = 1.0, seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> nn.Sequential:  # fmt: skip
    r"""A multilayer perceptron with an activation :math:`\sigma` between its layers,

    .. math:: f(x) = W_L\, \sigma(\cdots \sigma(W_1 x + b_1) \cdots) + b_L, \qquad
              (W_l)_{ij} \sim \mathcal N\big(0, \gamma^2 c/\mathrm{fan\_in}_l\big), \quad b_l = 0.

    Parameters
    ----------
    widths : sequence of at least two int
        Inputs, hidden widths, outputs.
    activation : {"tanh", "relu"}
        :math:`\sigma`; c = 1 for tanh and c = 2, after He, for ReLU.
    gain : float
        :math:`\gamma > 0`, a factor of all initial weights.
    seed : int
        Seeds the weights. They are drawn in float64 on the CPU, layer by layer, and then rounded to `dtype`.
    dtype : torch.dtype
        ``torch.float64`` or ``torch.float32``.

    Returns
    -------
    nn.Sequential
        Of `nn.Linear` and `nn.Tanh` or `nn.ReLU`, from inputs ``(n, widths[0])`` to outputs ``(n, widths[-1])``.

    Raises
    ------
    ValueError
        If there are fewer than two widths, the activation is unknown, a width, the gain or the seed is out of range,
        or the dtype is another one.
    TypeError
        If a width or the seed is no integer, or the gain no number.

    References
    ----------
    He et al., Delving Deep into Rectifiers, eq. (10), for c = 2.

    Examples
    --------
    >>> network = mlp((64, 16, 10))
    >>> sum(p.numel() for p in network.parameters()) == (64 + 1) * 16 + (16 + 1) * 10
    True
    """
    widths = [_validate.integer(f"widths[{i}]", w, low=1) for i, w in enumerate(widths)]
    if len(widths) < 2:
        raise ValueError(f"widths = {widths}: expected at least two, inputs and outputs")
    _validate.choice("activation", activation, _ACTIVATIONS)
    unit, c = _ACTIVATIONS[activation]
    scale = _validate.number("gain", gain, above=0) * sqrt(c)
    generator = _generator(seed, dtype)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        W = torch.randn(fan_in, fan_out, generator=generator, dtype=torch.float64) / sqrt(fan_in) * scale
        layers += [_with_weight(nn.Linear(fan_in, fan_out, dtype=dtype), W.T), unit()]
    return nn.Sequential(*layers[:-1])


def conv(
    channels: Sequence[int], classes: int, *, size: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> nn.Sequential:
    r"""A small convolutional network: 3 × 3 convolution, ReLU, 2 × 2 max-pooling, twice; then a linear layer.

    .. math:: W_{\mathrm{conv}} \sim \mathcal N\big(0, 2/\mathrm{fan\_in}\big), \qquad
              W_{\mathrm{linear}} \sim \mathcal N\big(0, 1/\mathrm{fan\_in}\big), \qquad b = 0.

    Parameters
    ----------
    channels : sequence of three int
        Of the images, after the first and after the second convolution.
    classes : int
        Number of outputs.
    size : int
        Height and width of the images in pixels, at least 4.
    seed, dtype
        As in `mlp`.

    Returns
    -------
    nn.Sequential
        From inputs ``(n, channels[0], size, size)`` to outputs ``(n, classes)``.

    Raises
    ------
    ValueError
        If there are not three channels, an integer is out of range, or the dtype is another one.
    TypeError
        If an integer is none.

    Examples
    --------
    >>> conv((3, 8, 16), 10, size=32)(torch.zeros(2, 3, 32, 32, dtype=torch.float64)).tolist() == [[0.0] * 10] * 2
    True
    """
    channels = [_validate.integer(f"channels[{i}]", c, low=1) for i, c in enumerate(channels)]
    if len(channels) != 3:
        raise ValueError(f"channels = {channels}: expected three, of the images and after each convolution")
    size, classes = _validate.integer("size", size, low=4), _validate.integer("classes", classes, low=1)
    generator = _generator(seed, dtype)
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        W = torch.randn(after, before, 3, 3, generator=generator, dtype=torch.float64) * sqrt(2 / (9 * before))
        layers += [_with_weight(nn.Conv2d(before, after, 3, padding=1, dtype=dtype), W), nn.ReLU(), nn.MaxPool2d(2)]
    features = channels[-1] * (size // 4) ** 2
    W = torch.randn(classes, features, generator=generator, dtype=torch.float64) / sqrt(features)
    return nn.Sequential(*layers, nn.Flatten(), _with_weight(nn.Linear(features, classes, dtype=dtype), W))


def _generator(seed: int, dtype: torch.dtype) -> torch.Generator:
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype = {dtype}: expected torch.float32 or torch.float64")
    return torch.Generator().manual_seed(_validate.integer("seed", seed, low=0))


def _with_weight(layer: nn.Linear | nn.Conv2d, W: torch.Tensor) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(W)
        layer.bias.zero_()
    return layer
