"""Models on which per-example gradients go wrong in different ways, each with the method that should serve it."""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

N = 6
cross_entropy = partial(F.cross_entropy, reduction="none")


def squared_error(outputs, targets):
    return ((outputs - targets) ** 2).flatten(1).sum(1)


class Twice(nn.Module):
    """One layer called twice."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Borrowed(nn.Module):
    """A weight used by a call and, transposed, by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(5, 4), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.first(x)) @ self.first.weight)


class Whispered(Borrowed):
    """The same, a billion times weaker, and before the last layer."""

    def forward(self, x):
        return self.head(x + 1e-9 * torch.tanh(self.first(x)) @ self.first.weight)


class OwnParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.scale = nn.Linear(5, 3), nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))

    def forward(self, x):
        return self.scale * torch.tanh(self.linear(x))


class SequenceFirst(nn.Module):
    """Examples on the second axis inside, with as many positions as examples: the first axis looks like theirs."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(x.transpose(0, 1))).transpose(0, 1)).mean(1)


class Folded(nn.Module):
    """Positions folded into the axis of the examples."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(x.flatten(0, 1))).view(x.shape).mean(1))


class Pooled(nn.Module):
    """A sequence through ``layer``, averaged over its positions at the end."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x).mean(1)


class Last(nn.Module):
    """A recurrent network."""

    def __init__(self):
        super().__init__()
        self.recurrent, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


class Branching(nn.Module):
    """Control flow by the value of the inputs, one example at a time."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return torch.cat([(self.left if row.sum() > 0 else self.right)(row[None]) for row in x])


class Reversed(nn.Module):
    """The examples change places inside, and back."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(x.flip(0))).flip(0))


def images(*layers, channels=2, size=6):
    """Layers on images, then ReLU, pooling and a linear layer of the right size."""
    with torch.no_grad():
        features = nn.Sequential(*layers)(torch.zeros(1, channels, size, size)).numel()
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(features, 3)), (channels, size, size)


def frozen(model, *names):
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model


def mlp(bias=True):
    return nn.Sequential(nn.Linear(5, 4, bias=bias), nn.Tanh(), nn.Linear(4, 3, bias=bias))


def conv(*args, **kwargs):
    return lambda: images(nn.Conv2d(*args, **kwargs))


GHOST, VMAP, LOOP = "ghost", "vmap", "loop"
PLAIN = {
    "mlp": (lambda: (mlp(), (5,)), GHOST),
    "mlp without bias": (lambda: (mlp(bias=False), (5,)), GHOST),
    "one linear layer": (lambda: (nn.Linear(5, 3), (5,)), GHOST),
    "frozen first layer": (lambda: (frozen(mlp(), "0.weight", "0.bias"), (5,)), GHOST),
    "frozen last layer": (lambda: (frozen(mlp(), "2.weight", "2.bias"), (5,)), GHOST),
    "frozen bias": (lambda: (frozen(mlp(), "0.bias"), (5,)), GHOST),
    "frozen weight": (lambda: (frozen(mlp(), "0.weight"), (5,)), VMAP),
    "an unused layer": (lambda: (_with_unused(mlp()), (5,)), GHOST),
    "in-place relu": (lambda: (nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)), (5,)), GHOST),
    "dropout in eval mode": (
        lambda: (nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3)).eval(), (5,)), GHOST),
    "short sequences": (lambda: (Pooled(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (2, 4)), GHOST),
    "long sequences": (lambda: (Pooled(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (7, 4)), GHOST),
    "two axes of positions": (lambda: (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)),
                                       (2, 3, 4)), GHOST),
    "conv": (conv(2, 3, 3), GHOST),
    "conv, padding, pooling": (lambda: images(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                                              nn.Conv2d(3, 4, 2)), GHOST),
    "conv, stride": (conv(2, 3, 3, stride=2), GHOST),
    "conv, oblong everything": (conv(2, 3, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)), GHOST),
    "conv, dilation": (conv(2, 3, 2, dilation=3), GHOST),
    "conv, groups": (lambda: images(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 6, 3, groups=2)), GHOST),
    "conv, depthwise": (conv(2, 4, 3, groups=2, bias=False), GHOST),
    "conv, same padding": (conv(2, 3, 2, padding="same"), GHOST),
    "conv, reflection": (lambda: images(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3, padding=2, padding_mode="reflect")),
                         GHOST),
    "conv, replication": (lambda: images(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate")),
                          GHOST),
    "conv, circle": (lambda: images(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular",
                                                                  stride=2)), GHOST),
    "a layer twice": (lambda: (Twice(), (5,)), VMAP),
    "tied weights": (lambda: (Tied(), (5,)), VMAP),
    "a borrowed weight": (lambda: (Borrowed(), (5,)), VMAP),
    "a whispered weight": (lambda: (Whispered(), (5,)), VMAP),
    "own parameter": (lambda: (OwnParameter(), (5,)), VMAP),
    "sequence first": (lambda: (SequenceFirst(), (N, 4)), VMAP),
    "folded positions": (lambda: (Folded(), (3, 4)), VMAP),
    "reversed order": (lambda: (Reversed(), (5,)), VMAP),
    "layer norm": (lambda: (nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3)), (5,)), VMAP),
    "group norm": (lambda: images(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), VMAP),
    "instance norm": (lambda: images(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True)), VMAP),
    "batch norm in eval mode": (lambda: _evaluated(images(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))), VMAP),
    "weight norm": (lambda: (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), nn.Tanh(),
                                           nn.Linear(4, 3)), (5,)), VMAP),
    "recurrent": (lambda: (Last(), (3, 4)), None),
    "branching": (lambda: (Branching(), (5,)), LOOP),
}  # fmt: skip


def _with_unused(model):
    model.forward = lambda x: model[2](model[1](model[0](x)))
    model.append(nn.Linear(2, 2))
    return model


def _evaluated(pair):
    model, shape = pair
    return model.eval(), shape


@dataclass(frozen=True)
class Example:
    """What the statistics take, and the method that should be chosen."""

    model: nn.Module
    loss: object
    inputs: torch.Tensor
    targets: torch.Tensor
    method: str | None = None

    @property
    def arguments(self):
        return self.model, self.loss, self.inputs, self.targets


def build(name, dtype=torch.float64, device="cpu", n=N, seed=0):
    make, method = PLAIN[name]
    torch.manual_seed(seed)
    model, shape = make()
    inputs, targets = torch.randn(n, *shape, dtype=dtype), torch.arange(n) % 3
    return Example(model.to(device, dtype), cross_entropy, inputs.to(device), targets.to(device), method)
