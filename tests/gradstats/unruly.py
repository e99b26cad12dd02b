"""Models that do with a batch what a simple method does not expect, with a second way to every statistic.

The blocks take and give (n, 6), so that they can be put together at will. `HONEST` ones treat every example as if it
were alone; with the others there is no loss of one example, or it depends on chance or on what was computed before.
"""

import random
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

D, CLASSES = 6, 3
cross_entropy = partial(F.cross_entropy, reduction="none")


class Block(nn.Module):
    """One or more linear layers ``a``, ``b``, and what ``forward`` makes of them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(D, D), nn.Linear(D, D)


class SortedInside(Block):
    """The examples are sorted by a key between two layers, and put back."""

    def forward(self, x):
        order = x[:, 0].argsort()
        return torch.tanh(self.b(torch.tanh(self.a(x))[order]))[order.argsort()]


class MicroBatches(Block):
    """Four examples at a time."""

    def forward(self, x):
        return torch.cat([torch.tanh(self.a(part)) for part in x.split(4)])


class EarlyExit(Block):
    """Some examples go through one more layer."""

    def forward(self, x):
        h, hard = torch.tanh(self.a(x)), x[:, 1] > 0.3
        if hard.any():
            h = h.clone()
            h[hard] = torch.tanh(self.b(h[hard]))
        return h


class Experts(Block):
    """Each example goes to one of two layers."""

    def forward(self, x):
        left, out = x[:, 0] > 0, torch.zeros_like(x)
        for rows, layer in ((left, self.a), (~left, self.b)):
            out[rows] = torch.tanh(layer(x[rows]))
        return out


class ByParity(Block):
    """An even number of examples goes through the layer in pairs."""

    def forward(self, x):
        if len(x) % 2:
            return torch.tanh(self.a(x))
        return torch.tanh(self.a(x.view(-1, 2, D))).view(-1, D)


class Padded(Block):
    """The batch is filled up to a multiple of four."""

    def forward(self, x):
        return torch.tanh(self.a(F.pad(x, (0, 0, 0, -len(x) % 4))))[: len(x)]


class Turned(Block):
    """The second layer sees the examples the other way round."""

    def forward(self, x):
        return torch.tanh(self.b(torch.tanh(self.a(x)).flip(0)).flip(0))


class Mixed(nn.Module):
    """A layer without bias sees sums and differences of neighbours, which are undone behind it."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(D, D, bias=False)

    def forward(self, x):
        return torch.tanh(self.a(x.cumsum(0)).diff(dim=0, prepend=torch.zeros_like(x[:1])))


class Style(Block):
    """All examples use the mean of what the layer makes of constant rows."""

    def forward(self, x):
        return torch.tanh(self.a(x)) * self.b(torch.ones_like(x)).mean(0)


class Gated(Block):
    """A few examples use what a layer makes of constant rows: its mean, or the row of another example."""

    def __init__(self, turned):
        super().__init__()
        self.turned = turned

    def forward(self, x):
        constant, few = torch.tanh(self.b(torch.ones_like(x))), (x[:, :1] > 1.8).to(x)
        return torch.tanh(self.a(x)) + few * (constant.flip(0) if self.turned else constant.mean(0))


class ByArray(Block):
    """Writes into its input in a way that torch does not count."""

    def forward(self, x):
        if x.requires_grad:
            return self.a(x * 0.5)
        x.numpy()[:] *= 0.5
        return self.a(x)


class Temperature(nn.Module):
    """A parameter that is a number."""

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(1.3))

    def forward(self, x):
        return x * self.t


class Twice(Block):
    def forward(self, x):
        return torch.tanh(self.a(torch.tanh(self.a(x))))


class Residual(Block):
    def forward(self, x):
        return x + torch.tanh(self.a(x))


class Borrowed(Block):
    """A weight that is used by a call and by hand."""

    def forward(self, x):
        return torch.tanh(self.a(x)) @ self.a.weight


class Checkpointed(Block):
    def __init__(self, use_reentrant=False):
        super().__init__()
        self.use_reentrant = use_reentrant

    def forward(self, x):
        return checkpoint(lambda x: torch.tanh(self.a(x)), x.requires_grad_(), use_reentrant=self.use_reentrant)


class Attention(nn.Module):
    """Three tokens of two numbers."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x):
        tokens = x.view(-1, 3, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].reshape(-1, D)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(2, 2, batch_first=True)

    def forward(self, x):
        return self.gru(x.view(-1, 3, 2))[0].reshape(-1, D)


class Convolution(nn.Module):
    def __init__(self, **how):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, **how)

    def forward(self, x):
        return self.conv(x.view(-1, 1, 2, 3)).flatten(1)


class ByHand(Block):
    """Control flow by values, one example at a time."""

    def forward(self, x):
        return torch.stack([(self.a if float(row.detach().sum()) > 0 else self.b)(row) for row in x])


class Clamping(nn.Module):
    """Writes into its input, if that is the model's."""

    def forward(self, x):
        return x.clamp(-1.5, 1.5) if x.requires_grad else x.clamp_(-1.5, 1.5)


class Overwriting(Block):
    """A layer's input is changed behind its back, in a way that autograd notices."""

    def forward(self, x):
        h = torch.sigmoid(x) + 0
        out = self.a(h)
        h.mul_(2)
        return out + h


class Counting(Block):
    """Counts its calls in an attribute, which nothing depends on."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.tanh(self.a(x))


HONEST = {
    "linear": lambda: nn.Linear(D, D), "no bias": lambda: nn.Linear(D, D, bias=False), "tanh": nn.Tanh,
    "in-place relu": lambda: nn.Sequential(nn.Linear(D, D), nn.ReLU(inplace=True)),
    "layer norm": lambda: nn.LayerNorm(D),
    "group norm": lambda: nn.GroupNorm(2, D), "batch norm, eval": lambda: nn.BatchNorm1d(D).eval(),
    "spectral norm, eval": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(D, D)).eval(),
    "sorted": SortedInside, "micro-batches": MicroBatches, "early exit": EarlyExit, "experts": Experts,
    "parity": ByParity, "padded": Padded, "turned": Turned, "mixed": Mixed, "style": Style,
    "gated": lambda: Gated(turned=False), "gated, turned": lambda: Gated(turned=True), "temperature": Temperature,
    "twice": Twice, "residual": Residual, "borrowed": Borrowed, "checkpointed": Checkpointed, "attention": Attention,
    "recurrent": Recurrent, "conv": Convolution, "conv, circle": lambda: Convolution(padding_mode="circular"),
    "by hand": ByHand, "clamping": lambda: nn.Sequential(Clamping(), nn.Linear(D, D)), "counting": Counting,
}  # fmt: skip


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class GhostNorm(nn.Module):
    """Batch normalisation in groups of four."""

    def forward(self, x):
        return torch.cat([(part - part.mean(0)) / (part.var(0, correction=0) + 1) for part in x.split(4)])


class BySum(Block):
    """Which layer is taken depends on the whole batch."""

    def forward(self, x):
        return (self.a if x.sum() > 0 else self.b)(x)


class InCrowds(nn.Module):
    """Examples interact where there are more than two."""

    def forward(self, x):
        return x if len(x) <= 2 else x + 0.1 * x.mean(0)


class ByPlace(nn.Module):
    """Every third row of a batch is damped, whoever sits there."""

    def forward(self, x):
        return x * (1 - 0.3 * (torch.arange(len(x)) % 3 == 2).to(x)[:, None])


class Drawing(nn.Module):
    """Multiplies by what ``draw`` gives, as a rule by one."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return x * self.draw(x)


class OwnGenerator(nn.Module):
    """Drops a row in a hundred, by a generator of its own."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, x):
        if isinstance(self.generator, torch.Generator):
            kept = torch.rand(len(x), 1, generator=self.generator) > 0.01
        elif isinstance(self.generator, random.Random):
            kept = torch.tensor([[self.generator.random() > 0.01] for _ in x])
        else:
            kept = torch.from_numpy(self.generator.random((len(x), 1)) > 0.01)
        return x * kept.to(x)


class Held(nn.Module):
    """A generator in a list, a dictionary, another object, or what a function closes over."""

    def __init__(self, holder):
        super().__init__()
        generator = random.Random(0)
        self.holder = {"list": [generator], "dict": {"of": [generator]}, "object": partial(generator.random),
                       "closure": lambda: generator.random()}[holder]  # fmt: skip

    def forward(self, x):
        holder = self.holder
        holder = holder[0] if isinstance(holder, list) else holder["of"][0] if isinstance(holder, dict) else holder
        value = holder.random() if isinstance(holder, random.Random) else holder()
        return x + 1e-9 * value


class Averaging(nn.Module):
    """Follows the mean of its inputs in a buffer, or in an attribute."""

    def __init__(self, attribute=False):
        super().__init__()
        if attribute:
            self.mean = torch.zeros(D, dtype=torch.float64)
        else:
            self.register_buffer("mean", torch.zeros(D))

    def forward(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return x - self.mean


CHANCE = {
    "functional dropout": lambda: Drawing(lambda x: F.dropout(torch.ones_like(x), 0.01)),
    "stochastic depth": lambda: Drawing(lambda x: (torch.rand(len(x), 1) > 0.02).to(x)),
    "one flip a batch": lambda: Drawing(lambda x: -1.0 if torch.rand(()) < 0.01 else 1.0),
    "Python's generator": lambda: Drawing(lambda x: 0.5 if random.random() < 0.01 else 1.0),
    "NumPy's generator": lambda: Drawing(lambda x: 0.5 if np.random.random() < 0.01 else 1.0),  # noqa: NPY002
    "own torch generator": lambda: OwnGenerator(torch.Generator().manual_seed(0)),
    "own NumPy generator": lambda: OwnGenerator(np.random.default_rng(0)),
    "own RandomState": lambda: OwnGenerator(np.random.RandomState(0)),
    "own Python generator": lambda: OwnGenerator(random.Random(0)),
    "randomized relu": lambda: nn.RReLU(0.3, 0.300001),
    **{f"own generator, {holder}": partial(Held, holder) for holder in ("list", "dict", "object", "closure")},
}  # fmt: skip
STATE = {
    "averaging": Averaging,
    "averaging in an attribute": partial(Averaging, attribute=True),
    "spectral norm, training": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(D, D)),
    "old spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(D, D)),
}  # fmt: skip
COUPLED = {"centred": Centred, "ghost norm": GhostNorm, "by sum": BySum, "in crowds": InCrowds, "by place": ByPlace}


def class_balanced(outputs, targets):
    """Weights n / (k count of the class) of the batch."""
    counts = torch.bincount(targets, minlength=CLASSES)
    return cross_entropy(outputs, targets) * len(targets) / (CLASSES * counts[targets])


def hard_examples(outputs, targets):
    """The hardest 70 % of the batch count."""
    losses = cross_entropy(outputs, targets)
    return losses * (losses >= losses.detach().quantile(0.3))


def by_size(outputs, targets):
    return cross_entropy(outputs, targets) / len(outputs)


def of_neighbour(outputs, targets):
    return cross_entropy(outputs, targets) + 0.1 * outputs.roll(1, 0).sum(1)


COUPLED_LOSSES = {"class balanced": class_balanced, "hard examples": hard_examples, "by size": by_size,
                  "of the neighbour": of_neighbour}  # fmt: skip


def network(*blocks, seed=0):
    """The blocks of these names, and a linear layer."""
    torch.manual_seed(seed)
    everything = HONEST | CHANCE | STATE | COUPLED
    return nn.Sequential(*(everything[name]() for name in blocks), nn.Linear(D, CLASSES)).double()


def data(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=g, dtype=torch.float64), torch.randint(CLASSES, (n,), generator=g)


# --- a second way ---------------------------------------------------------------------------------------------------


def rows(model, loss, inputs, targets, create_graph=False):
    """Every gradient, from a backward pass of an example that is alone."""
    theta = [p for p in model.parameters() if p.requires_grad]
    found = []
    for x, y in zip(inputs.split(1), targets.split(1), strict=True):
        value = loss(model(x.clone()), y)[0]
        parts = torch.autograd.grad(value, theta, create_graph=create_graph, materialize_grads=True)
        found.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(found)


def truth(statistic, model, loss, inputs, targets):
    """The tensors of a statistic; the derivative of the trace is that of the sum over all rows, by autograd.

    Attention is computed in the form that has a second derivative.
    """
    with sdpa_kernel(SDPBackend.MATH):
        return _truth(statistic, model, loss, inputs, targets)


def _truth(statistic, model, loss, inputs, targets):
    theta = [p for p in model.parameters() if p.requires_grad]
    g = rows(model, loss, inputs, targets, create_graph=statistic == "grad_trace")
    if statistic == "per_example":
        return [g]
    if statistic == "gram":
        return [g @ g.T]
    trace = g.var(0).sum()
    if statistic == "moments":
        return [g.mean(0), g.mean(0) @ g.mean(0) - trace / len(g), trace]
    if not trace.requires_grad:
        return [torch.zeros_like(g[0])]
    return [torch.cat([part.reshape(-1) for part in torch.autograd.grad(trace, theta, materialize_grads=True)])]


def tensors(result):
    return [result] if isinstance(result, torch.Tensor) else [result.mean, result.sq_norm, result.trace]


def error(result, expected):
    """The largest difference, relative to the largest entry of all."""
    scale = max(float(b.abs().max()) for b in expected)
    return max(float((a - b).abs().max()) for a, b in zip(tensors(result), expected, strict=True)) / max(scale, 1e-3)
