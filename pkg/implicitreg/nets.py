"""The networks of the experiments, seeded; examples do not interact, except where batch norm is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import sqrt

from implicitreg import _validate
from implicitreg._torch import torch
from torch import nn

__all__ = ["GhostBatchNorm", "conv", "mlp", "resnet18", "small_conv", "vgg11"]

_ACTIVATIONS = {"tanh": (nn.Tanh, 1), "relu": (nn.ReLU, 2)}  # and c, the variance of a weight times its fan-in

_UNTOUCHED = torch.random.fork_rng(devices=[])  # layers draw weights at first, from the generator of all

_GROUP = 8  # channels that are normalized together
MAX_WIDTH = 1_000_000  # units, channels or pixels
MAX_WEIGHTS = 10**9  # of one layer: 8 GB


@_UNTOUCHED
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
    widths = [_width(f"widths[{i}]", w) for i, w in enumerate(_validate.items("widths", widths))]
    if len(widths) < 2:
        raise ValueError(f"widths = {widths}: expected at least two, inputs and outputs")
    _validate.choice("activation", activation, _ACTIVATIONS)
    unit, c = _ACTIVATIONS[activation]
    scale = _validate.number("gain", gain, above=0) * sqrt(c)
    _enough(f"widths = {widths}", max(a * b for a, b in pairwise(widths)))
    generator = _generator(seed, dtype)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        W = torch.randn(fan_in, fan_out, generator=generator, dtype=torch.float64) / sqrt(fan_in) * scale
        layers += [_with_weight(nn.Linear(fan_in, fan_out, dtype=dtype), W.T), unit()]
    return nn.Sequential(*layers[:-1])


@_UNTOUCHED
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
    channels = [_width(f"channels[{i}]", c) for i, c in enumerate(_validate.items("channels", channels))]
    if len(channels) != 3:
        raise ValueError(f"channels = {channels}: expected three, of the images and after each convolution")
    size, classes = _width("size", size, 4), _width("classes", classes)
    _enough(f"channels = {channels}, size = {size}, classes = {classes}",
            max(9 * channels[0] * channels[1], 9 * channels[1] * channels[2],
                classes * channels[2] * (size // 4) ** 2))  # fmt: skip
    generator = _generator(seed, dtype)
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        W = torch.randn(after, before, 3, 3, generator=generator, dtype=torch.float64) * sqrt(2 / (9 * before))
        layers += [_with_weight(nn.Conv2d(before, after, 3, padding=1, dtype=dtype), W), nn.ReLU(), nn.MaxPool2d(2)]
    features = channels[-1] * (size // 4) ** 2
    W = torch.randn(classes, features, generator=generator, dtype=torch.float64) / sqrt(features)
    return nn.Sequential(*layers, nn.Flatten(), _with_weight(nn.Linear(features, classes, dtype=dtype), W))


@_UNTOUCHED
def small_conv(
    classes: int, *, channels: int = 1, size: int = 28, seed: int = 0, dtype: torch.dtype = torch.float64
) -> nn.Sequential:
    r"""The small convolutional network of Wu et al.: twice 5 × 5 convolution to 10 channels, 2 × 2 max-pooling, ReLU;
    then 50 hidden units, ReLU, and the outputs.

    .. math:: W \sim \mathcal N\big(0, 2/\mathrm{fan\_in}\big), \qquad
              W_{\mathrm{last}} \sim \mathcal N\big(0, 1/\mathrm{fan\_in}\big), \qquad b = 0.

    Parameters
    ----------
    classes : int
        Number of outputs.
    channels, size : int
        Of the images: channels, and height and width in pixels, at least 16.
    seed : int
        Seeds the weights. They are drawn in float64 on the CPU, layer by layer, and then rounded to `dtype`.
    dtype : torch.dtype
        ``torch.float64`` or ``torch.float32``.

    Returns
    -------
    nn.Sequential
        From inputs ``(n, channels, size, size)`` to outputs ``(n, classes)``.

    Raises
    ------
    ValueError
        If an integer is out of range or the dtype is another one.
    TypeError
        If an integer is none.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Figure 1 (a). Theirs starts from weights and
    biases of standard deviation 0.02, on inputs from 0 to 255.

    Examples
    --------
    >>> sum(p.numel() for p in small_conv(10).parameters())
    11330
    """
    classes, channels = _width("classes", classes), _width("channels", channels)
    side = ((_width("size", size, 16) - 4) // 2 - 4) // 2
    _dtype(dtype)
    _enough(f"size = {size}", 500 * side**2)
    layers = [
        nn.Conv2d(channels, 10, 5, dtype=dtype), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(10, 10, 5, dtype=dtype), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(10 * side**2, 50, dtype=dtype), nn.ReLU(), nn.Linear(50, classes, dtype=dtype),
    ]  # fmt: skip
    return _he(nn.Sequential(*layers), _generator(seed, dtype))


@_UNTOUCHED
def vgg11(
    classes: int, *, channels: int = 3, width: int = 64, seed: int = 0, dtype: torch.dtype = torch.float64
) -> nn.Sequential:
    r"""VGG-11 for images of 32 × 32 pixels, without batch norm and without dropout.

    Eight 3 × 3 convolutions to w, 2w, 4w, 4w, 8w, 8w, 8w, 8w channels, ReLU after each, 2 × 2 max-pooling after the
    first, second, fourth, sixth and eighth; two layers of 8w hidden units, ReLU; the outputs. Weights as in
    `small_conv`.

    Parameters
    ----------
    classes : int
        Number of outputs.
    channels : int
        Of the images.
    width : int
        w, the channels after the first convolution.
    seed, dtype
        As in `small_conv`.

    Returns
    -------
    nn.Sequential
        From inputs ``(n, channels, 32, 32)`` to outputs ``(n, classes)``.

    Raises
    ------
    ValueError, TypeError
        As in `small_conv`.

    References
    ----------
    Simonyan and Zisserman, Very Deep Convolutional Networks, Table 1 (A); with the head of Wu et al., On the Noisy
    Gradient Descent that Generalizes as SGD, Figures 1 (b) and 2 (a).

    Examples
    --------
    >>> sum(p.numel() for p in vgg11(10, dtype=torch.float32).parameters())
    9750922
    """
    classes, channels = _width("classes", classes), _width("channels", channels)
    w = _width("width", width)
    _enough(f"width = {w}, classes = {classes}, channels = {channels}", w * max(576 * w, 8 * classes, 9 * channels))
    generator = _generator(seed, dtype)
    layers: list[nn.Module] = []
    before = channels
    for stage in ((w,), (2 * w,), (4 * w, 4 * w), (8 * w, 8 * w), (8 * w, 8 * w)):
        for after in stage:
            layers += [nn.Conv2d(before, after, 3, padding=1, dtype=dtype), nn.ReLU()]
            before = after
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for _ in range(2):
        layers += [nn.Linear(8 * w, 8 * w, dtype=dtype), nn.ReLU()]
    return _he(nn.Sequential(*layers, nn.Linear(8 * w, classes, dtype=dtype)), generator)


@_UNTOUCHED
def resnet18(
    classes: int, *, channels: int = 3, width: int = 64, norm: str = "group", ghost: int | None = None, seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> nn.Sequential:  # fmt: skip
    r"""ResNet-18 for small images: a 3 × 3 convolution without pooling, then four stages of two residual blocks.

    A block is :math:`\mathrm{relu}(x' + N(C(\mathrm{relu}(N(C x)))))` with 3 × 3 convolutions C without biases and
    normalizations N; x' is x, or N of a 1 × 1 convolution where the shape changes. The stages have w, 2w, 4w, 8w
    channels, and all but the first halve height and width; then comes the mean over the image, and the outputs. Weights
    as in `small_conv`; normalizations start as such, with factors one and shifts zero.

    With batch norm in train mode the examples of a batch interact: its gradient is no weighted sum of gradients of
    single examples, :math:`G W`, and what is said of the covariance of the noise in `implicitreg.noise` *does not
    hold*; even the mean over all mini-batches is not the gradient of the full batch. With group norm all of it holds.

    Parameters
    ----------
    classes : int
        Number of outputs.
    channels : int
        Of the images.
    width : int
        w, a multiple of 8.
    norm : {"group", "batch"}
        ``"group"``: over groups of 8 channels of one example. ``"batch"``: over the examples of a batch in train mode;
        in eval mode with running averages.
    ghost : int, optional
        With batch norm: statistics are those of blocks of so many consecutive examples of the batch, the last of which
        may be smaller; by default of the whole batch.
    seed, dtype
        As in `small_conv`.

    Returns
    -------
    nn.Sequential
        From inputs ``(n, channels, H, W)`` to outputs ``(n, classes)``.

    Raises
    ------
    ValueError
        If the norm is unknown, ghost is given with group norm, an integer is out of range, or the dtype is another one.
    TypeError
        If an integer is none.

    References
    ----------
    He et al., Deep Residual Learning, with the stem for CIFAR-10 that Wu et al., On the Noisy Gradient Descent that
    Generalizes as SGD, use in Figures 1 (c), 2 (b) and 2 (c), with batch norm. Wu and He, Group Normalization. Hoffer
    et al., Train Longer, Generalize Better, for ghost batches.

    Examples
    --------
    >>> [sum(p.numel() for p in resnet18(10, norm=n, dtype=torch.float32).parameters()) for n in ("batch", "group")]
    [11173962, 11173962]
    """
    classes, channels = _width("classes", classes), _width("channels", channels)
    w = _width("width", width, _GROUP)
    _enough(f"width = {w}, classes = {classes}, channels = {channels}", w * max(576 * w, 8 * classes, 9 * channels))
    if w % _GROUP:
        raise ValueError(f"width = {w}: expected a multiple of {_GROUP}, the channels of a group")
    generator = _generator(seed, dtype)
    normal = _normalization(norm, ghost, dtype)
    blocks, before = [], w
    for stage, after in enumerate((w, 2 * w, 4 * w, 8 * w)):
        for first in (True, False):
            blocks.append(_Residual(before, after, 2 if first and stage > 0 else 1, normal, dtype))
            before = after
    stem = [nn.Conv2d(channels, w, 3, padding=1, bias=False, dtype=dtype), normal(w), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * w, classes, dtype=dtype)]
    return _he(nn.Sequential(*stem, *blocks, *head), generator)


class GhostBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics in train mode are those of blocks of ``ghost`` consecutive examples.

    Parameters
    ----------
    channels : int
        Of the inputs (n, channels, H, W).
    ghost : int
        Examples in a block; the last block of a batch may be smaller. The running averages, which eval mode uses, are
        updated once a block.
    dtype : torch.dtype
        Of the parameters.

    Raises
    ------
    ValueError, TypeError
        If ghost is no positive integer.

    References
    ----------
    Hoffer et al., Train Longer, Generalize Better, Algorithm 1.

    Examples
    --------
    Each of two blocks has mean zero by itself:

    >>> x = torch.tensor([1.0, 3.0, 10.0, 30.0]).view(4, 1, 1, 1)
    >>> GhostBatchNorm(1, 2)(x).flatten().round(decimals=4).tolist()
    [-1.0, 1.0, -1.0, 1.0]
    """

    def __init__(self, channels: int, ghost: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(_width("channels", channels), dtype=_dtype(dtype))
        self.ghost = _validate.integer("ghost", ghost, low=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The normalized inputs; an entry that is not finite makes its channel NaN, as in torch."""
        _validate.instance("x", x, torch.Tensor)
        if x.device != self.weight.device or x.layout != torch.strided or x.numel() == 0:
            raise ValueError(f"x has shape {tuple(x.shape)} on {x.device}: expected images on {self.weight.device}")
        if x.ndim != 4 or x.shape[1] != self.num_features or x.dtype not in (self.weight.dtype, torch.bfloat16):
            wanted = f"(n, {self.num_features}, H, W) of {self.weight.dtype}"
            raise ValueError(f"x has shape {tuple(x.shape)} and dtype {x.dtype}: expected {wanted}")
        if not self.training:
            return super().forward(x)
        return torch.cat([super(GhostBatchNorm, self).forward(block) for block in x.split(self.ghost)])


class _Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int, normal: Callable, dtype: torch.dtype) -> None:
        super().__init__()

        def convolution(channels: int, size: int, stride: int) -> nn.Conv2d:
            return nn.Conv2d(channels, after, size, stride, padding=size // 2, bias=False, dtype=dtype)

        self.branch = nn.Sequential(
            convolution(before, 3, stride), normal(after), nn.ReLU(), convolution(after, 3, 1), normal(after)
        )
        changes = stride > 1 or before != after
        self.shortcut = nn.Sequential(convolution(before, 1, stride), normal(after)) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.shortcut(x) + self.branch(x)).relu()


def _normalization(norm: str, ghost: int | None, dtype: torch.dtype) -> Callable[[int], nn.Module]:
    """Makes normalizations of so many channels."""
    _validate.choice("norm", norm, ("group", "batch"))
    if norm == "group":
        if ghost is not None:
            raise ValueError(f"ghost = {ghost} with norm = 'group': expected None; its examples do not interact")
        return lambda channels: nn.GroupNorm(channels // _GROUP, channels, dtype=dtype)
    if ghost is None:
        return partial(nn.BatchNorm2d, dtype=dtype)
    return partial(GhostBatchNorm, ghost=ghost, dtype=dtype)


def _he(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Weights of variance 2/fan-in, in the last layer 1/fan-in; biases zero."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for layer in layers:
            W = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
            layer.weight.copy_(W * sqrt((1 if layer is layers[-1] else 2) / W[0].numel()))
            if layer.bias is not None:
                layer.bias.zero_()
    return model


def _generator(seed: int, dtype: torch.dtype) -> torch.Generator:
    _dtype(dtype)
    return torch.Generator().manual_seed(_validate.integer("seed", seed, low=0, high=2**64 - 1))


def _dtype(dtype: torch.dtype) -> torch.dtype:
    if not isinstance(dtype, torch.dtype) or dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype = {dtype}: expected torch.float32 or torch.float64")
    return dtype


def _width(name: str, value: int, low: int = 1) -> int:
    return _validate.integer(name, value, low=low, high=MAX_WIDTH)


def _enough(what: str, weights: int) -> None:
    """Refuse a layer that no memory holds."""
    if weights > MAX_WEIGHTS:
        raise ValueError(f"{what}: {weights:,} weights in a layer; expected at most {MAX_WEIGHTS:,}")


def _with_weight(layer: nn.Linear | nn.Conv2d, W: torch.Tensor) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(W)
        layer.bias.zero_()
    return layer
