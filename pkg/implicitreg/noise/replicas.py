r"""Many small networks at once: kinds of noise, seeds and learning rates in one batched program.

P multilayer perceptrons with ReLU between their layers are trained side by side on the cross-entropy. Their weights
have a leading axis, ``(P, in, out)`` a layer, so that a step of all of them costs a few batched products; the gradients
are written by hand. With :math:`h_{l,i}` what goes into layer l for example i, and :math:`\delta_{l,i}` the gradient of
its loss :math:`\ell_i` by what comes out, before the activation,

.. math:: \nabla_{W_l} \sum_i w_i\,\ell_i = \sum_i w_i\, h_{l,i}\,\delta_{l,i}^\top, \qquad
          |\nabla\ell_i|^2 = \sum_l |\delta_{l,i}|^2\,\big(|h_{l,i}|^2 + 1\big),

where the 1 is the bias. The second formula is what isotropic noise needs, whose size depends on theta; for noise with
the covariance's diagonal, :math:`\sum_i (h_{l,i}\,\delta_{l,i}^\top)^{\circ2} = (H_l^{\circ2})^\top\Delta_l^{\circ2}`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from implicitreg import _validate, ensembles
from implicitreg._brief import brief
from implicitreg._torch import torch
from implicitreg.noise import msgd
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Curves", "Replica", "train"]

_CACHE = 2**18  # numbers in the inputs of one layer, of all networks that are trained together on a CPU
_SMALL = "sgd", "sgd_without_replacement", "sgd_epochs", "bernoulli", "binomial"  # b examples a step
MAX_STEPS = 100_000_000  # a day at a millisecond a step
_ROWS = 1000  # examples that are evaluated together


@dataclass(frozen=True)
class Replica:
    """One network to be trained.

    Attributes
    ----------
    kind : str
        One of `msgd.KINDS`, see :class:`implicitreg.noise.msgd.Weights`.
    b : int
        The batch size whose noise is meant.
    eta : float
        The learning rate.
    B : int, optional
        For the kinds that need it.
    seed : int
        Of the noise: step t depends on the seed and on t alone.
    data : int
        Which of the data sets.
    start : int
        Which of the initial networks.
    """

    kind: str
    b: int
    eta: float
    B: int | None = None
    seed: int = 0
    data: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        _validate.choice("kind", self.kind, msgd.KINDS)
        _validate.integer("b", self.b, low=1)
        _validate.number("eta", self.eta, above=0)
        if self.B is not None:
            _validate.integer("B", self.B, low=1)
        _validate.integer("seed", self.seed, low=0, high=2**64 - 1)
        for name in ("data", "start"):
            _validate.integer(name, getattr(self, name), low=0)


@dataclass(frozen=True, eq=False)
class Curves:
    """What `train` measured, a row a replica.

    Attributes
    ----------
    step : ndarray (S,)
        When.
    train_loss, train_accuracy : ndarray (P, S)
        Over all training examples, unweighted. Losses are mean cross-entropies in nats.
    test_loss, test_accuracy : ndarray (P, S) or None
        None without test data.
    theta : tensor (P, p)
        The final parameters, in the order of ``model.parameters()``.
    """

    step: np.ndarray
    train_loss: np.ndarray
    train_accuracy: np.ndarray
    test_loss: np.ndarray | None
    test_accuracy: np.ndarray | None
    theta: Tensor = field(repr=False)
    __repr__ = brief


def train(
    replicas: Sequence[Replica], starts: Sequence[nn.Sequential], inputs: Tensor, targets: Tensor, *, steps: int,
    test: tuple[Tensor, Tensor] | None = None, at: Sequence[int] | None = None, together: int | None = None,
) -> Curves:  # fmt: skip
    r"""Train many multilayer perceptrons, each with its own data, start, kind of noise, learning rate and seed.

    .. math:: \theta_{t+1} = \theta_t - \eta\,\nabla\sum_i w_{t,i}\,\ell_i(\theta_t), \qquad
              (w_{t,i})_i \text{ from } \mathtt{msgd.Weights(kind, n, b, B, seed)}

    with the cross-entropies :math:`\ell_i`. The kinds ``"gld_iso"`` and ``"gld_diag"`` add Gaussian noise to the full
    gradient instead, of covariance :math:`\frac{\operatorname{tr} C}{p} I` and :math:`\operatorname{diag} C`, with
    :math:`C = \frac1b(F - gg^\top)` that of SGD's noise at :math:`\theta_t`, exact in every step.

    Parameters
    ----------
    replicas : sequence of Replica
        What to train.
    starts : sequence of nn.Sequential
        Initial networks of the same widths, of `nn.Linear` with `nn.ReLU` between them, see `nets.mlp`. They are not
        changed.
    inputs, targets : tensor (D, n, d), tensor (D, n)
        D data sets of n examples each, with labels from 0. The inputs' dtype and device are those of the starts.
    steps : int
        How many steps T.
    test : pair of tensors (D, m, d), (D, m), optional
        Test data of each data set.
    at : sequence of int, optional
        Steps after which to measure, increasing, from 0 to T; by default ``(0, T)``. It can be empty.
    together : int, optional
        How many networks share a batched step: by default what fits into a CPU's cache, all of them on a GPU. The
        result does not depend on it but for rounding.

    Returns
    -------
    Curves
        In the order of the replicas. One that diverges has infinite or NaN losses, and leaves the others untouched.

    Raises
    ------
    ValueError
        If there are no replicas or starts, the starts are no such networks or differ in their widths, shapes, dtypes or
        devices do not fit, an index is out of range, or a kind or one of its sizes is not allowed.
    TypeError
        If an argument is not of its type.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Algorithms 1 and 2.
    The norms: Goodfellow, Efficient Per-Example Gradient Computations.

    Examples
    --------
    From zero weights, full batches move the biases by :math:`-\eta` (mean of softmax − label), here
    :math:`\mp\frac14`:

    >>> zero = nn.Sequential(nn.Linear(1, 2))
    >>> _ = [nn.init.zeros_(p) for p in zero.parameters()]
    >>> x, y = torch.zeros(1, 4, 1), torch.tensor([[0, 0, 0, 1]])
    >>> train([Replica("gd", 1, eta=1.0)], [zero], x, y, steps=1).theta
    tensor([[ 0.0000,  0.0000,  0.2500, -0.2500]])
    """
    replicas, starts = _validate.items("replicas", replicas), _validate.items("starts", starts)
    _check(replicas, starts, inputs, targets, test)
    steps = _validate.integer("steps", steps, low=0, high=MAX_STEPS)
    at = _steps(sorted({0, steps}) if at is None else at, steps)
    if together is not None or inputs.device.type == "cuda":
        together = len(replicas) if together is None else _validate.integer("together", together, low=1)
    rows, metrics = {}, 4 if test else 2
    with torch.no_grad():
        for block in _blocks(replicas, inputs.shape[1], max(_widths(starts[0])), together):
            group = _Group([replicas[i] for i in block], starts, inputs, targets)
            measured = np.array(list(_run(group, steps, at, test))).reshape(len(at), metrics, len(block))
            rows |= {
                i: (measured[..., k], theta)
                for k, (i, theta) in enumerate(zip(block, _flat(group.layers), strict=True))
            }
    values = np.stack([rows[i][0] for i in range(len(replicas))]).transpose(2, 0, 1)
    losses = [*values, None, None][:4]
    return Curves(np.array(at), *losses, theta=torch.stack([rows[i][1] for i in range(len(replicas))]))


def _run(
    group: _Group, steps: int, at: Sequence[int], test: tuple[Tensor, Tensor] | None
) -> Iterator[list[list[float]]]:
    """At every recorded step the losses and accuracies, training before test, each a list over replicas."""
    sets = [(group.inputs, group.targets), *([test] if test else [])]
    for t in range(steps + 1):
        if t in at:
            yield [row for x, y in sets for row in group.measure(x, y)]
        if t < steps:
            group.step(t)


class _Group:
    """Networks that take their steps together."""

    def __init__(self, replicas: list[Replica], starts: list[nn.Sequential], inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets, self.n = inputs, targets, inputs.shape[1]
        self.kind, self.seeds = replicas[0].kind, [r.seed for r in replicas]
        self.data = torch.tensor([r.data for r in replicas], device=inputs.device)
        self.b, self.eta = (inputs.new_tensor([getattr(r, k) for r in replicas])[:, None] for k in ("b", "eta"))
        self.weights = [_weights(r, self.n) for r in replicas]
        self.widths = _widths(starts[0])
        self.layers = _split(torch.stack([ensembles.flatten(starts[r.start]) for r in replicas]), self.widths)
        self.everything = (inputs[self.data], targets[self.data]) if _width(replicas[0], self.n) == self.n else None

    def step(self, t: int) -> None:
        """The step from theta_t."""
        x, y, w = self.batch(t)
        pairs = _backward(self.layers, x, y, -self.eta * w)
        kick = self.kick(t, pairs) if self.kind in msgd.LANGEVIN else []
        for (W, b), (h, delta) in zip(self.layers, pairs, strict=True):
            W.baddbmm_(h.mT, delta)
            b.add_(delta.sum(1, keepdim=True))
        for layer, noise in zip(self.layers, kick, strict=False):
            torch._foreach_add_(layer, noise)

    def batch(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (P, m, d), targets (P, m) and weights (P, m), zero where a batch has fewer than m examples."""
        drawn = [weights.draw(t) for weights in self.weights]
        if self.everything is not None:
            return *self.everything, self.filled(self.n, drawn)
        m = max(len(w) for _, w in drawn)
        at, sets = np.zeros((len(drawn), m), dtype=np.int64), self.data[:, None]
        for k, (i, _) in enumerate(drawn):
            at[k, : len(i)] = i
        at = torch.from_numpy(at).to(self.data.device)
        return self.inputs[sets, at], self.targets[sets, at], self.filled(m, [(slice(len(w)), w) for _, w in drawn])

    def filled(self, m: int, drawn: list[tuple[Any, np.ndarray]]) -> Tensor:
        """Weights at their places, (P, m), and zeros elsewhere."""
        w = np.zeros((len(drawn), m))
        for k, (places, values) in enumerate(drawn):
            w[k, places] = values
        return torch.from_numpy(w).to(self.inputs)

    def kick(self, t: int, pairs: list[tuple[Tensor, Tensor]]) -> list[list[Tensor]]:
        """Gaussian noise with the trace, or the diagonal, of eta² C = (n Σ u_i u_i' − Σu_i Σu_i')/b, u = −eta g/n."""
        n, move = self.n, _flat(_sums(pairs))
        if self.kind == "gld_diag":
            variance = (n * _flat(_squares(pairs)) - move**2) / self.b
        else:
            trace = n * _lengths(pairs).sum(1, keepdim=True) - move.square().sum(1, keepdim=True)
            variance = trace / (self.b * move.shape[1])
        epsilon = torch.stack([_normal(seed, t, move[0]) for seed in self.seeds])
        return _split(-variance.clamp_min(0).sqrt() * epsilon, self.widths)

    def measure(self, inputs: Tensor, targets: Tensor) -> list[list[float]]:
        """Loss and accuracy of every network on its data set, of inputs (D, m, d)."""
        x, y = (part.split(_ROWS, dim=1) for part in (inputs, targets))
        pieces = [_values(self.layers, u[self.data], v[self.data]) for u, v in zip(x, y, strict=True)]
        return torch.cat(pieces, dim=2).double().mean(2).tolist()


# Backpropagation: for each layer a list W (P, in, out), b (P, 1, out)


def _forward(layers: list[list[Tensor]], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What goes into each layer, (P, m, in), and what comes out of the last."""
    hidden, z = [], x
    for W, b in layers:
        hidden.append(z.relu_() if hidden else z)
        z = torch.baddbmm(b, z, W)
    return hidden, z


def _backward(layers: list[list[Tensor]], x: Tensor, y: Tensor, scale: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each layer what goes in, h (P, m, in), and scale_i times the gradient of loss i by what comes out."""
    hidden, z = _forward(layers, x)
    delta = z.softmax(2).scatter_add_(2, y[..., None], z.new_full((*y.shape, 1), -1.0)) * scale[..., None]
    pairs = [(hidden[-1], delta)]
    for (W, _), h, below in zip(layers[:0:-1], hidden[:0:-1], hidden[-2::-1], strict=True):
        delta = torch.bmm(delta, W.mT) * (h > 0)
        pairs.insert(0, (below, delta))
    return pairs


def _values(layers: list[list[Tensor]], x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropies and hits (2, P, m)."""
    _, z = _forward(layers, x)
    losses = F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)
    return torch.stack([losses, (z.argmax(2) == y).to(losses)])


def _sums(pairs: list[tuple[Tensor, Tensor]]) -> list[list[Tensor]]:
    """Σ g_i, as the layers are."""
    return [[h.mT @ delta, delta.sum(1, keepdim=True)] for h, delta in pairs]


def _squares(pairs: list[tuple[Tensor, Tensor]]) -> list[list[Tensor]]:
    """Σ g_i², entry by entry."""
    return _sums([(h.square(), delta.square()) for h, delta in pairs])


def _lengths(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """|g_i|² (P, m)."""
    return sum(delta.square().sum(2) * (h.square().sum(2) + 1) for h, delta in pairs)


def _split(theta: Tensor, widths: list[int]) -> list[list[Tensor]]:
    """Parameters (P, p) in torch's order, as layers."""
    shapes = list(pairwise(widths))
    pieces = theta.split([size for i, o in shapes for size in (i * o, o)], dim=1)
    return [
        [W.view(-1, o, i).mT.contiguous(), b[:, None].clone()]
        for (i, o), W, b in zip(shapes, pieces[::2], pieces[1::2], strict=True)
    ]


def _flat(layers: list[list[Tensor]]) -> Tensor:
    """The inverse of `_split`."""
    return torch.cat([part for W, b in layers for part in (W.mT.flatten(1), b.flatten(1))], dim=1)


# Randomness, a function of seed and step


def _weights(r: Replica, n: int) -> msgd.Weights:
    msgd._check_sizes(r.kind, n, r.b, r.B)
    return msgd.Weights("gd" if r.kind in msgd.LANGEVIN else r.kind, n, r.b, r.B, r.seed)


def _normal(seed: int, step: int, like: Tensor) -> Tensor:
    """The normal numbers of `msgd.train`."""
    raw = np.random.Philox(key=np.array([seed, step], dtype=np.uint64), counter=[0, 0, 0, 2]).random_raw()
    generator = torch.Generator(like.device).manual_seed(int(raw) >> 1)
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


# Which networks take their steps together


def _width(replica: Replica, n: int) -> int:
    """How many examples a step of this kind looks at, on average."""
    if replica.kind in _SMALL:
        return replica.b
    return replica.B if replica.kind in msgd.MINIBATCH else n


def _blocks(replicas: list[Replica], n: int, widest: int, together: int | None) -> list[list[int]]:
    """Indices of replicas with equally wide batches, and of Langevin dynamics of one kind, `together` at a time."""
    groups = defaultdict(list)
    for i, r in enumerate(replicas):
        groups[_width(r, n), r.kind if r.kind in msgd.LANGEVIN else None].append(i)
    blocks = []
    for (width, _), members in groups.items():
        size = together or max(_CACHE // (width * widest), 1)
        blocks += [members[k : k + size] for k in range(0, len(members), size)]
    return blocks


# What is refused


def _widths(model: nn.Sequential) -> list[int]:
    """Inputs, hidden widths, outputs of a network of linear layers with ReLU between them."""
    layers = list(model) if isinstance(model, nn.Sequential) else []
    kinds = [nn.Linear if k % 2 == 0 else nn.ReLU for k in range(max(len(layers) | 1, 1))]
    if [type(layer) for layer in layers] != kinds or any(layer.bias is None for layer in layers[::2]):
        raise ValueError(f"starts holds {model}: expected linear layers with biases and nn.ReLU between them")
    return [layers[0].in_features, *(layer.out_features for layer in layers[::2])]


def _check(
    replicas: list[Replica], starts: list[nn.Sequential], inputs: Tensor, targets: Tensor,
    test: tuple[Tensor, Tensor] | None,
) -> None:  # fmt: skip
    if not replicas or not starts:
        raise ValueError(f"{'starts' if replicas else 'replicas'} is empty: expected at least one")
    widths = [_widths(start) for start in starts]
    for k, other in enumerate(widths):
        if other != widths[0]:
            raise ValueError(f"starts[{k}] has widths {other}: expected {widths[0]}, those of starts[0]")
    like = next(starts[0].parameters())
    _data("", inputs, targets, widths[0], like)
    if test is not None:
        if not isinstance(test, tuple | list) or len(test) != 2:
            raise TypeError(f"test is a {type(test).__name__}: expected a pair (inputs, targets)")
        _data("test ", *test, widths[0], like)
        if len(test[0]) != len(inputs):
            raise ValueError(f"test has {len(test[0])} data sets: expected {len(inputs)}, one each")
    for k, r in enumerate(replicas):
        if not isinstance(r, Replica):
            raise TypeError(f"replicas[{k}] is a {type(r).__name__}: expected a Replica")
        _validate.integer(f"replicas[{k}].data", r.data, low=0, high=len(inputs) - 1)
        _validate.integer(f"replicas[{k}].start", r.start, low=0, high=len(starts) - 1)


def _data(name: str, inputs: Tensor, targets: Tensor, widths: list[int], like: Tensor) -> None:
    for what, tensor in ((f"{name}inputs", inputs), (f"{name}targets", targets)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{what} is a {type(tensor).__name__}: expected a tensor")
        _validate.tensor(what, tensor)
    if inputs.ndim != 3 or inputs.shape[2] != widths[0] or inputs.numel() == 0:
        raise ValueError(f"{name}inputs has shape {tuple(inputs.shape)}: expected (D, n, {widths[0]})")
    if inputs.dtype != like.dtype or inputs.device != like.device:
        raise ValueError(
            f"{name}inputs is {inputs.dtype} on {inputs.device}: expected {like.dtype} on {like.device}, as the starts"
        )
    if targets.shape != inputs.shape[:2] or targets.device != inputs.device:
        raise ValueError(
            f"{name}targets has shape {tuple(targets.shape)} on {targets.device}: expected {tuple(inputs.shape[:2])}"
            f" on {inputs.device}"
        )
    if targets.dtype != torch.int64:
        raise TypeError(f"{name}targets has dtype {targets.dtype}: expected torch.int64")
    low, high = targets.min().item(), targets.max().item()
    if low < 0 or high >= widths[-1]:
        raise ValueError(f"{name}targets lie in {low} … {high}: expected labels from 0 to {widths[-1] - 1}")


def _steps(at: Sequence[int], steps: int) -> list[int]:
    at = [_validate.integer(f"at[{k}]", t, low=0, high=steps) for k, t in enumerate(_validate.items("at", at, least=0))]
    if any(s >= t for s, t in pairwise(at)):
        raise ValueError(f"at = {at}: expected increasing steps")
    return at
