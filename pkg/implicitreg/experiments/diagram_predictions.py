r"""Predictions from pictures against measured means, on small networks: test loss, gap, and pairs of methods.

The images that are loaded *are* the population, each with the same probability, so that every number of the prediction
is a full sum without sampling error, and the test loss of a run is exact. Training sets are independent draws of
N = T images, taken one a step. The same draws serve every step size and every method.

Networks, in the source's parametrization: parameters are standard normal, biases too, and a weight of shape
(o, i) is :math:`\sqrt{2/(o+i)}` times a parameter. ``conv`` is convolution, tanh, convolution, tanh, linear, tanh,
linear; ``logistic`` is one linear layer; ``relu`` is ``conv`` with rectifiers.

Control variates. For one run, with :math:`G, H` of the test loss and :math:`g_t, H_t` of the example of step t,

.. math:: L(\theta_T) - L = -\eta\sum_tG\cdot g_t + \eta^2\Big\{\sum_{s<t}H_tG\cdot g_s
          + \tfrac12\sum_{s,t}g_s\cdot Hg_t\Big\} + O(\eta^3),

where the sums are known for every run, and their means too. The means that are reported come from a regression of the
measured quantity on these sums minus their means (an intercept); what is left is noise of order :math:`\eta^3`.
Beside each stands the plain mean. For the gap the sums :math:`\sum_nl_n` and :math:`\sum_{n,t}g_n\cdot g_t` are added.

References
----------
Tenka, SGD at Small Learning Rates, section 4, Figure 3 and Corollaries 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
from implicitreg import _validate, ensembles
from implicitreg._brief import brief
from implicitreg._torch import torch
from implicitreg.diagrams import networks
from implicitreg.experiments import _images
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

__all__ = [
    "FOR_DATA",
    "QUICK",
    "SETTINGS",
    "Dense",
    "Landscape",
    "Patches",
    "intercept",
    "landscape",
    "measure",
    "network",
    "path_terms",
    "summary",
    "units",
]

SETTINGS: dict[str, Any] = {
    "data": "digits", "limit": 450, "pool": 1, "kernels": [3, 3], "strides": [2, 1], "channels": 10,
    "networks": ["conv", "logistic"], "net_seeds": [0, 1, 2], "run_seed": 1, "chunk": 250,
    "loss": {"10": {"runs": 1000, "etas": [0.025, 0.05, 0.1, 0.2, 0.4]},
             "100": {"runs": 200, "etas": [0.0025, 0.005, 0.01, 0.02, 0.04]}},
    "gap": {"steps": 10, "runs": 1000, "etas": [0.0125, 0.025, 0.05, 0.1, 0.2]},
    "twins": {"steps": 10, "runs": 300, "etas": [0.0125, 0.025, 0.05], "epochs": [2, 5]},
}  # fmt: skip
QUICK: dict[str, Any] = {
    "limit": 60, "net_seeds": [0],
    "loss": {"10": {"runs": 200, "etas": [0.025, 0.1]}}, "gap": {"steps": 10, "runs": 200, "etas": [0.025, 0.1]},
    "twins": {"steps": 4, "runs": 100, "etas": [0.05], "epochs": [2]},
}  # fmt: skip
_GREY: dict[str, Any] = {
    "limit": 200, "pool": 2, "kernels": [5, 5], "strides": [2, 2],
    "loss": {"10": {"runs": 500, "etas": [0.025, 0.05, 0.1, 0.2, 0.4]},
             "100": {"runs": 100, "etas": [0.0025, 0.005, 0.01, 0.02, 0.04]}},
    "gap": {"steps": 10, "runs": 500, "etas": [0.0125, 0.025, 0.05, 0.1, 0.2]},
    "twins": {"steps": 10, "runs": 200, "etas": [0.0125, 0.05], "epochs": [2, 5]},
}  # fmt: skip
_COLOUR: dict[str, Any] = {
    "limit": 150, "pool": 2, "kernels": [5, 5], "strides": [2, 2], "networks": ["conv"],
    "loss": {"10": {"runs": 500, "etas": [0.0125, 0.025, 0.05, 0.1, 0.2]},
             "100": {"runs": 100, "etas": [0.00125, 0.0025, 0.005, 0.01, 0.02]}},
    "gap": {"steps": 10, "runs": 500, "etas": [0.0125, 0.05, 0.1]},
    "twins": {"steps": 10, "runs": 100, "etas": [0.0125, 0.05], "epochs": [2, 5]},
}  # fmt: skip
FOR_DATA: dict[str, Any] = {
    "fashion_mnist_900": _GREY, "fashion_mnist": _GREY, "mnist": _GREY, "cifar10_jpeg": _COLOUR, "cifar10": _COLOUR,
}  # fmt: skip


class Patches(nn.Module):
    """A convolution, scaled, as a product with the image's patches: (n, channels, h, w) to (n, out, h', w')."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(after, before * kernel**2, dtype=torch.float64))
        self.bias = nn.Parameter(torch.empty(after, dtype=torch.float64))
        self.size = (size - kernel) // stride + 1
        pixels = torch.arange(before * size**2, dtype=torch.float64).view(1, before, size, size)
        self.register_buffer("index", F.unfold(pixels, kernel, stride=stride)[0].T.long())  # (positions, inputs)

    def forward(self, x: Tensor) -> Tensor:
        z = _scaled_linear(x.flatten(-3)[..., self.index], self.weight, self.bias)
        return z.movedim(-1, -2).unflatten(-1, (self.size, self.size))


class Dense(nn.Module):
    """A linear layer, scaled."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(after, before, dtype=torch.float64))
        self.bias = nn.Parameter(torch.empty(after, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return _scaled_linear(x, self.weight, self.bias)


def _scaled_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x @ weight.T * (2 / sum(weight.shape)) ** 0.5 + bias * (2 / (len(bias) + 1)) ** 0.5


def network(kind: str, shape: tuple[int, int, int], classes: int, settings: Mapping[str, Any], seed: int) -> nn.Module:
    """The network for images of that shape, its parameters standard normal.

    Parameters
    ----------
    kind : str
        ``"conv"``, ``"logistic"`` or ``"relu"``.
    shape : (channels, size, size)
    classes : int
    settings : mapping
        ``kernels``, ``strides`` (two each) and ``channels``.
    seed : int

    Returns
    -------
    nn.Module

    Examples
    --------
    The source's network on its images has 4490 parameters:

    >>> its = {"kernels": [5, 5], "strides": [2, 2], "channels": 10}
    >>> sum(p.numel() for p in network("conv", (1, 28, 28), 10, its, 0).parameters())
    4490
    """
    _validate.choice("kind", kind, ("conv", "logistic", "relu"))
    before, size, _ = shape
    if kind == "logistic":
        model = nn.Sequential(nn.Flatten(), Dense(before * size**2, classes))
    else:
        layers: list[nn.Module] = []
        for kernel, stride in zip(settings["kernels"], settings["strides"], strict=True):
            layer = Patches(before, settings["channels"], kernel, stride, size)
            layers += [layer, nn.Tanh() if kind == "conv" else nn.ReLU()]
            before, size = settings["channels"], layer.size
        last = nn.Tanh() if kind == "conv" else nn.ReLU()
        layers += [nn.Flatten(), Dense(before * size**2, classes), last, Dense(classes, classes)]
        model = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


_loss = partial(F.cross_entropy, reduction="none")


@dataclass(frozen=True, eq=False)
class Landscape:
    """A network at its start and the images that are its population; all tables are full sums over them."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    chunk: int = 250
    __repr__ = brief

    @cached_property
    def start(self) -> Tensor:
        return ensembles.flatten(self.model)

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        names = [name for name, _ in self.model.named_parameters()]
        pieces = theta.split([p.numel() for p in self.model.parameters()])
        shaped = [piece.view(p.shape) for piece, p in zip(pieces, self.model.parameters(), strict=True)]
        return functional_call(self.model, dict(zip(names, shaped, strict=True)), (x,))

    def loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of some examples."""
        return F.cross_entropy(self.outputs(theta, x), y)

    def one(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The loss of one example."""
        return self.loss(theta, x[None], y[None])

    def population(self, theta: Tensor) -> Tensor:
        return self.loss(theta, self.inputs, self.targets)

    def quality(self, thetas: Tensor) -> tuple[Tensor, Tensor]:
        """Test losses and accuracies (R,) of many networks."""
        with torch.no_grad():
            rows = []
            for part in thetas.split(50):
                f = vmap(self.outputs, (0, None))(part, self.inputs)
                loss = _loss(f.flatten(0, 1), self.targets.repeat(len(part))).unflatten(0, f.shape[:2]).mean(1)
                rows.append(torch.stack([loss, (f.argmax(2) == self.targets).double().mean(1)]))
        return tuple(torch.cat(rows, 1))

    def gradients(self, thetas: Tensor, i: Tensor) -> Tensor:
        """Mean gradients (R, p) of R networks, each on its own examples i (R, n)."""
        return ensembles.gradients(self.model, _loss, thetas, self.inputs[i], self.targets[i])

    def mapped(self, function: Callable[..., Tensor], *rows: Tensor, size: int = 20) -> Tensor:
        """The function of every row, a few rows at a time."""
        parts = zip(*(r.split(size) for r in rows), strict=True)
        return torch.cat([vmap(function)(*part) for part in parts])

    @cached_property
    def g(self) -> Tensor:
        """Gradients (n, p)."""
        return self.mapped(lambda x, y: grad(self.one)(self.start, x, y), self.inputs, self.targets)

    @cached_property
    def Hg(self) -> Tensor:
        """The population's Hessian times every gradient (n, p)."""
        return self.mapped(lambda v: jvp(grad(self.population), (self.start,), (v,))[1], self.g)

    @cached_property
    def HxG(self) -> Tensor:
        """Every example's Hessian times the mean gradient (n, p)."""
        G = self.g.mean(0)
        along = lambda x, y: jvp(grad(lambda t: self.one(t, x, y)), (self.start,), (G,))[1]  # noqa: E731
        return self.mapped(along, self.inputs, self.targets)

    @cached_property
    def losses(self) -> Tensor:
        with torch.no_grad():
            return _loss(self.outputs(self.start, self.inputs), self.targets)

    @cached_property
    def slope(self) -> Tensor:
        """G · g_x: (n,)."""
        return self.g @ self.g.mean(0)

    @cached_property
    def fork(self) -> Tensor:
        """g_x · H g_x' : (n, n)."""
        return self.g @ self.Hg.T

    @cached_property
    def chain(self) -> Tensor:
        """H_x G · g_x' : (n, n)."""
        return self.HxG @ self.g.T

    @cached_property
    def scalars(self) -> networks.Scalars:
        return networks.exact_scalars(self.model, _loss, self.inputs, self.targets)


def landscape(unit: str, settings: Mapping[str, Any], device: torch.device | str = "cpu") -> Landscape:
    """The network and the images of a unit.

    Parameters
    ----------
    unit : str
        A network and a seed, ``"conv 0"``.
    settings : mapping
        `SETTINGS`, with changes.
    device : torch.device or str

    Returns
    -------
    Landscape
    """
    kind, seed = unit.split()
    images = _images.population(settings, torch.device(device), flat=False)
    inputs = F.avg_pool2d(images.inputs, settings["pool"])
    model = network(kind, tuple(inputs.shape[1:]), images.classes, settings, int(seed)).to(device)
    return Landscape(model, inputs, images.targets, settings["chunk"])


def units(settings: Mapping[str, Any]) -> list[str]:
    """A network at one initialization each."""
    return [f"{kind} {seed}" for kind in settings["networks"] for seed in settings["net_seeds"]]


def measure(unit: str, settings: Mapping[str, Any], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Predictions and measurements at one start.

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
        ``scalars`` and their number of parameters; ``loss``, for every T the coefficients of the change of the test
        loss (``no_tie``: without the ties; ``halved``: with half the coefficient of GHG), and along ``eta`` its mean,
        ``se``, the plain ``raw`` and ``raw_se``, and the change of the accuracy; ``gap``; ``twins``: gradient descent
        minus SGD, GDC minus SGD, and several epochs minus one, in units of eta².

    Raises
    ------
    ValueError
        If the unit is unknown.
    """
    _validate.choice("unit", unit, units(settings))
    here = landscape(unit, settings, device)
    return {
        "parameters": here.start.numel(), "images": len(here.targets),
        "start": {"loss": here.losses.mean().item(), "accuracy": here.quality(here.start[None])[1].item()},
        "scalars": dict(zip(networks.NAMES, here.scalars.values.tolist(), strict=True)),
        "loss": {T: _loss_curve(here, int(T), plan, settings) for T, plan in settings["loss"].items()},
        "gap": _gap_curve(here, settings["gap"], settings),
        "twins": _twins(here, settings["twins"], settings),
    }  # fmt: skip


def _draws(here: Landscape, runs: int, T: int, settings: Mapping[str, Any]) -> Tensor:
    """The examples (runs, T) of every run."""
    g = torch.Generator().manual_seed(settings["run_seed"])
    return torch.randint(len(here.targets), (runs, T), generator=g).to(here.targets.device)


def path_terms(here: Landscape, i: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sums over one run of slopes, of forks with their half, and of chains s < t: three times (R,)."""
    T = i.shape[1]
    chains = here.chain[i[:, :, None], i[:, None, :]]  # [r, t, s] = H_t G · g_s
    earlier = torch.ones(T, T, device=i.device).tril(-1).bool()
    forks = here.fork[i[:, :, None], i[:, None, :]].sum((1, 2)) / 2
    return here.slope[i].sum(1), forks, (chains * earlier).sum((1, 2))


def _sgd(here: Landscape, eta: float, i: Tensor) -> Tensor:
    """The ends (R, p) of runs that take one example a step."""
    ends = []
    for part in i.split(here.chunk):
        thetas = here.start.repeat(len(part), 1)
        for t in range(i.shape[1]):
            thetas = thetas - eta * here.gradients(thetas, part[:, t : t + 1])
        ends.append(thetas)
    return torch.cat(ends)


def intercept(values: Tensor, centred: Tensor) -> tuple[float, float, float, float]:
    """Mean and its standard error by regression on columns whose means are zero, and without it.

    Parameters
    ----------
    values : tensor (R,)
    centred : tensor (R, k)
        Columns with the mean zero under the law of the runs, not under the sample.

    Returns
    -------
    tuple of float
        The intercept, its standard error, the plain mean and its standard error.
    """
    y = values.cpu().numpy()
    plain = ensembles.estimate(values)
    A = centred.cpu().numpy()
    A = np.column_stack([np.ones(len(y)), A / A.std(0)])
    fit = np.linalg.lstsq(A, y, rcond=1e-10)[0]
    left = y - A @ fit
    se = float(np.sqrt(left @ left / (len(y) - A.shape[1]) / len(y)))
    return float(fit[0]), se, plain.mean.item(), plain.se.item()


def _coefficients(here: Landscape, T: int) -> dict[str, list[float]]:
    """Taylor coefficients of the change of the test loss, for T fresh examples: right, without ties, and with half."""
    s = here.scalars
    right = networks.test_loss_coefficients(s, N=T, T=T, order=3).values[1:]
    halved = right - [0, T * (T - 1) / 2 * s.GHG, 0]
    third = -T * (T - 1) * (2 * T - 1) / 3 * s.GHHG - T * (4 * T**2 - 3 * T + 1) / 12 * s.JGGG
    no_tie = [-T * s.GG, T * (T - 1 / 2) * s.GHG, third]
    return {"right": right.tolist(), "halved": halved.tolist(), "no_tie": no_tie}


def _centred(here: Landscape, i: Tensor) -> Tensor:
    T, s = i.shape[1], here.scalars
    slope, fork, chain = path_terms(here, i)
    pairs = T * (T - 1) / 2
    means = (T * s.GG, T / 2 * s.gHg + pairs * s.GHG, pairs * s.GHG)
    return torch.stack([a - m for a, m in zip((slope, fork, chain), means, strict=True)], 1)


def _rows(rows: list[tuple[float, ...]], names: tuple[str, ...]) -> dict[str, list[float]]:
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}


_NAMES = ("mean", "se", "raw", "raw_se")


def _loss_curve(here: Landscape, T: int, plan: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    i = _draws(here, plan["runs"], T, settings)
    centred, (loss, accuracy) = _centred(here, i), here.quality(here.start[None])
    rows = []
    for eta in plan["etas"]:
        after, right = here.quality(_sgd(here, eta, i))
        rows.append(intercept(after - loss, centred) + intercept(right - accuracy, centred)[:2])
    names = (*_NAMES, "accuracy", "accuracy_se")
    return {"runs": plan["runs"], "eta": plan["etas"], "coefficients": _coefficients(here, T), **_rows(rows, names)}


def _gap_curve(here: Landscape, plan: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    T, s = plan["steps"], here.scalars
    i = _draws(here, plan["runs"], T, settings)
    overlap = (here.g @ here.g.T)[i[:, :, None], i[:, None, :]].sum((1, 2)) / T - (s.gg + (T - 1) * s.GG)
    lost = here.losses[i].mean(1) - s.loss
    centred = torch.column_stack([_centred(here, i), overlap, lost])
    coefficients = networks.gap_coefficients(s, N=T, T=T, order=2).values[1:].tolist()
    rows = []
    for eta in plan["etas"]:
        thetas = _sgd(here, eta, i)
        with torch.no_grad():
            parts = zip(thetas.split(here.chunk), i.split(here.chunk), strict=True)
            seen = [ensembles.losses(here.model, _loss, a, here.inputs[k], here.targets[k]).mean(1) for a, k in parts]
        rows.append(intercept(here.quality(thetas)[0] - torch.cat(seen), centred))
    return {"runs": plan["runs"], "eta": plan["etas"], "coefficients": coefficients, **_rows(rows, _NAMES)}


def _gd(here: Landscape, eta: float, i: Tensor, penalty: bool) -> Tensor:
    """The ends of gradient descent on all T examples, T steps; with the penalty η/(4T) Σ|g_n − ḡ|² it is GDC."""

    def push(theta: Tensor, v: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """H_n v_n."""
        return jvp(grad(lambda t: here.one(t, x, y)), (theta,), (v,))[1]

    def step(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        g = vmap(grad(here.one), (None, 0, 0))(theta, x, y)
        if not penalty:
            return theta - eta * g.mean(0)
        pushed = vmap(push, (None, 0, 0, 0))(theta, g - g.mean(0), x, y)
        return theta - eta * (g.mean(0) + eta / 2 * pushed.mean(0))

    ends = []
    for part in i.split(50):
        x, y, thetas = here.inputs[part], here.targets[part], here.start.repeat(len(part), 1)
        for _ in range(i.shape[1]):
            thetas = vmap(step)(thetas, x, y)
        ends.append(thetas.detach())
    return torch.cat(ends)


def _twins(here: Landscape, plan: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    r"""Pairs of methods on the same draws; in units of eta², so that the prediction is a number.

    At second order a pair differs by chains only, and every one of them is known for the run:
    gradient descent has :math:`\frac{T-1}{2T}\sum_{s,t}`, SGD :math:`\sum_{s<t}`, GDC in addition
    :math:`-\frac12\sum_t H_tG\cdot(g_t - \bar g)`, and M epochs of :math:`\eta/M` in the same order
    :math:`\frac{M-1}{2M}\sum_{s,t} + \frac1M\sum_{s<t}`.
    """
    T, s = plan["steps"], here.scalars
    i = _draws(here, plan["runs"], T, settings)
    chains = here.chain[i[:, :, None], i[:, None, :]]
    whole, own = chains.sum((1, 2)), chains.diagonal(dim1=1, dim2=2).sum(1)
    early = path_terms(here, i)[2]
    gd = (T - 1) / (2 * T) * whole - early
    second = {"gd": gd, "gdc": gd - (own - whole / T) / 2}
    second |= {f"{M} epochs": (M - 1) / (2 * M) * whole + early / M - early for M in plan["epochs"]}
    GdC = s.GHxg - s.GHG
    predicted = {"gd": (T - 1) / 2 * GdC, "gdc": 0.0}
    predicted |= {f"{M} epochs": T * (M - 1) / (2 * M) * s.GHxg for M in plan["epochs"]}
    printed = {"gd": (T - 1) / (2 * T) * GdC, "gdc": 0.0}
    printed |= {f"{M} epochs": T * (M - 1) / (2 * M) * GdC for M in plan["epochs"]}
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in second}
    for eta in plan["etas"]:
        base = here.quality(_sgd(here, eta, i))[0]
        ends = {"gd": _gd(here, eta, i, False), "gdc": _gd(here, eta, i, True)}
        ends |= {f"{M} epochs": _sgd(here, eta / M, i.repeat(1, M)) for M in plan["epochs"]}
        for name, theta in ends.items():
            centred = torch.stack([second[name] - predicted[name], *_centred(here, i).T], 1)
            rows[name].append(intercept((here.quality(theta)[0] - base) / eta**2, centred))
    return {
        name: {"runs": plan["runs"], "eta": plan["etas"], "predicted": predicted[name], "printed": printed[name],
               **_rows(found, _NAMES)}
        for name, found in rows.items()
    }  # fmt: skip


def summary(results: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Exponents of the step size in the residuals of the test loss after one, two, three arrows and with the half."""
    out: dict[str, Any] = {}
    for unit, found in results.items():
        for T, curve in found["loss"].items():
            eta, c = np.array(curve["eta"]), curve["coefficients"]
            series = {str(k): np.array(c["right"])[:k] for k in (1, 2, 3)} | {"halved": np.array(c["halved"])}
            left = {
                name: np.array(curve["mean"]) - sum(a * eta ** (k + 1) for k, a in enumerate(coefficients))
                for name, coefficients in series.items()
            }
            out[f"{unit} T={T}"] = {
                name: [
                    float(np.log(abs(b / a)) / np.log(v / u))
                    for (a, b), (u, v) in zip(pairwise(values), pairwise(eta), strict=True)
                ]
                for name, values in left.items()
            }
    return out
