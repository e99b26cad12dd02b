r"""Training with noise you can choose: weights on the examples, :math:`\theta - \eta \sum_i W_i \nabla\ell_i(\theta)`.

`train` runs the loop. `Weights` gives the weights alone, for a loop of one's own::

    weights = Weights("bernoulli", n, b)
    for t in range(steps):
        index, w = weights(t)
        optimizer.zero_grad()
        (w * loss(model(x[index]), y[index])).sum().backward()
        optimizer.step()

The kinds are those of `implicitreg.noise.sampling`, and these. Batch losses are means: weights sum to one on average.

=====================  =================================================================================================
kind                   what it is
=====================  =================================================================================================
``sgd_epochs``         batches of b without replacement until all n examples are used, then in a new order; b divides n.
                       One step has the law of ``sgd_without_replacement``, but the steps of an epoch are not
                       independent: their weights have covariance −(I − P)/(n(n − 1)), and sum to 1/b each.
``minibatch_cov``      B examples without replacement, weights 1/B + s(ε − mean of ε) on them, and s such that the
                       covariance is exactly that of ``sgd_without_replacement`` with batch size b.
``minibatch_fisher``   the same with s ε; its covariance exceeds that by n/(n − 1) (1/b − 1/B) gg', see
                       `implicitreg.noise.sampling.compensation`.
``gld_iso``            control: the full gradient plus Gaussian noise of covariance (tr C/p) I, with C that of SGD with
                       batch size b at the present parameters, of which there are p.
``gld_diag``           control: the full gradient plus Gaussian noise with the diagonal of C as its covariance.
=====================  =================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from implicitreg import _validate, gradstats
from implicitreg._torch import torch
from implicitreg.gradstats._copy import check_examples
from implicitreg.noise import sampling
from implicitreg.training import History, run
from implicitreg.training._loop import Loss, Schedule
from torch import Tensor, nn

__all__ = ["KINDS", "Weights", "train"]

LANGEVIN = ("gld_iso", "gld_diag")
MINIBATCH = ("minibatch_cov", "minibatch_fisher")
#: The kinds of noise.
KINDS = (*sampling.KINDS, "sgd_epochs", *MINIBATCH, *LANGEVIN)
ON_CUDA = 1000  # examples in a chunk of the statistics of gradients
ROWS = 2**22  # elements of per-example gradients in memory at a time


@dataclass(frozen=True)
class Weights:
    r"""The weights W of any step, by ``weights(step)``; :math:`\mathbb E\, W = \frac1n\mathbf 1`.

    Step t's weights are those of a counter-based generator with the key (seed, t), and depend on nothing before: a run
    goes on where it stopped, and processes agree, without a word about the generator's state.

    Parameters
    ----------
    kind : str
        One of `KINDS`, without ``gld_iso`` and ``gld_diag``, which are no weights.
    n, b : int
        Training examples, and the batch size whose noise is meant.
    B : int, optional
        For the sparse kinds, as in `implicitreg.noise.sampling.draw`; for the minibatch kinds the size of the batch,
        b ≤ B ≤ n. The other kinds do not use it.
    seed : int
        From 0 to 2⁶⁴ − 1.

    Raises
    ------
    ValueError
        If the kind is unknown or no kind of weights, a size is out of its range, or a B is missing.
    TypeError
        If a size or the seed is no integer.

    References
    ----------
    Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (2011), for the generator, Philox.
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Algorithms 1 and 2.

    Examples
    --------
    An epoch of six examples in batches of two uses each of them once, with weight 1/2:

    >>> weights = Weights("sgd_epochs", 6, 2)
    >>> sorted(i for step in range(3) for i in weights(step)[0].tolist()), weights(0)[1].tolist()
    ([0, 1, 2, 3, 4, 5], [0.5, 0.5])
    """

    kind: str
    n: int
    b: int
    B: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _validate.choice("kind", self.kind, [kind for kind in KINDS if kind not in LANGEVIN])
        object.__setattr__(self, "seed", _validate.integer("seed", self.seed, low=0, high=2**64 - 1))
        _check_sizes(self.kind, self.n, self.b, self.B)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The examples whose weight is not zero, and their weights.

        Parameters
        ----------
        step : int
            From 0.

        Returns
        -------
        index, w : Tensor (m,), Tensor (m,)
            int64 and float64, on the CPU; every example at most once. A Bernoulli batch can be empty.
        """
        index, w = self.draw(step)
        return torch.from_numpy(index), torch.from_numpy(w)

    def draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The same as NumPy arrays."""
        step = _validate.integer("step", step, low=0)
        if self.kind == "sgd_epochs":
            epoch, k = divmod(step, self.n // self.b)
            return _order(self.n, self.seed, epoch)[k * self.b :][: self.b].copy(), np.full(self.b, 1 / self.b)
        rng = _generator(self.seed, step)
        if self.kind in MINIBATCH:
            kind = self.kind.removeprefix("minibatch_")
            s2 = sampling.compensation(kind, self.b, self.B, self.n if self.b < self.B else None)
            return sampling.draw_minibatch(s2, self.n, self.B, centred=kind == "cov", replacement=False, rng=rng)
        W = sampling.draw(self.kind, self.n, self.b, B=self.B, rng=rng)
        index = np.flatnonzero(W)
        return index, W[index]


def train(
    model: nn.Module, train: Any, test: Any = None, *, kind: str, b: int, B: int | None = None, eta: float, steps: int,
    loss: Loss | None = None, seed: int = 0, schedule: Schedule | None = None, chunk: int | None = None,
    device: str = "auto", precision: str | None = None, evaluate_every: int | None = None,
    checkpoint: str | Path | None = None, checkpoint_every: int | None = None, progress: bool = True,
    timeout: float = 60.0,
) -> History:  # fmt: skip
    r"""Train a model, in place, with a kind of noise.

    .. math:: \theta_{t+1} = \theta_t - \eta_t \sum_i W_i \nabla\ell_i(\theta_t)

    One backward pass of a weighted loss a step, over the examples whose weight is not zero. Losses are means, so that
    eta is comparable between kinds and batch sizes: :math:`\mathbb E\, W = \frac1n\mathbf 1`.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters of one dtype, float32 or float64. It is moved to the device, with channels last if the inputs are
        images, and trained in place, in the modes (``train()`` or ``eval()``) in which its modules are.
    train, test : (inputs, targets)
        Arrays or tensors, (n, ...) each. Inputs are floats, converted to the model's dtype, or uint8 images, which stay
        bytes on the device and stand for numbers from 0 to 1. Targets are integers (classes) or floats.
    kind : str
        One of `KINDS`.
    b : int
        The batch size whose noise is meant; for ``"sgd_epochs"`` a divisor of n, for the minibatch kinds at most B.
    B : int, optional
        For the sparse and the minibatch kinds: how many examples carry noise, or are looked at. The others ignore it.
    eta : float
        Learning rate.
    steps : int
        How many steps in all, those before a checkpoint included.
    loss : callable, optional
        ``loss(outputs, targets)`` gives the losses (n,); cross-entropy by default.
    seed : int
        Of the weights, and of what the model itself draws (dropout): both depend on the seed and the step only. The
        state of torch's generators outside is left as it is.
    schedule : callable or mapping, optional
        The factor of eta: ``schedule(step)``, or the factors from certain steps on, ``{100: 0.1}``.
    chunk : int, optional
        How many examples are in memory at a time; the gradients of chunks are summed. By default 100 images or 1000
        other examples on a CPU, where this is fastest, and 10 000 on a GPU.
    device : str
        ``"auto"`` (a CUDA device where torch sees one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` …
    precision : str, optional
        ``"float32"`` or ``"float64"``, which must be that of the parameters; by default it is. ``"bfloat16"`` has the
        outputs computed in bfloat16 from float32 parameters; losses, weights and sums of gradients are float32.
    evaluate_every : int, optional
        Losses and accuracies are measured every so many steps, and at the end; by default ten times.
    checkpoint : str or Path, optional
        A ``.npz`` file. It is written while training and at the end, whole or not at all. If it is there, training goes
        on from it, on the same CPU to the same bits as without an interruption. Several processes need it in a folder
        that all of them see.
    checkpoint_every : int, optional
        By default ``evaluate_every``.
    progress : bool
        Whether to show it.
    timeout : float
        With several processes: seconds after which a process that hears nothing from another gives up.

    Returns
    -------
    History
        Its losses are unweighted means over *all* examples, in eval mode. ``print`` shows a table.

    Raises
    ------
    ValueError
        If an argument is out of its range; the loss is not one number an example; or the checkpoint is damaged, or of
        a run with another model, other data, or other settings than ``steps``, ``chunk``, ``device`` and what concerns
        evaluation and progress.
    TypeError
        If an argument is not of its type.
    FloatingPointError
        If the loss is no finite number. This is noticed at the next evaluation or checkpoint, and the message names the
        step; a checkpoint that was written before stays as it is.
    OSError
        If the checkpoint cannot be read or written. In the latter case the model holds the last step.
    torch.OutOfMemoryError
        If a chunk does not fit. The model holds the last complete step.

    Warns
    -----
    UserWarning
        If the model has batch normalisation in training mode: examples then interact, and the covariances in
        `implicitreg.noise.sampling` are not those of its gradients.

    Notes
    -----
    Under ``torchrun``, or in a process group that is there already, each process takes its part of the examples with
    weights, and `torch.nn.parallel.DistributedDataParallel` sums the gradients. All processes get the same history; the
    first one writes the checkpoint. The kinds ``gld_iso`` and ``gld_diag`` run in one process.

    These two kinds compute in the parameters' dtype, and need examples that do not interact (`implicitreg.gradstats`),
    which is looked at in step 0.

    References
    ----------
    Wu et al., On the Noisy Gradient Descent that Generalizes as SGD, Algorithms 1 and 2. The sign of the noise is that
    of the algorithms; equation (2) has the other one.

    Examples
    --------
    Full batches on (θ − 1)²/2 and (θ − 3)²/2: the step of length 1 leads from 0 to the mean, where the losses are 1/2.

    >>> model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = nn.init.zeros_(model.weight)
    >>> data = torch.ones(2, 1), torch.tensor([1.0, 3.0])
    >>> half_square = lambda outputs, y: (outputs[:, 0] - y) ** 2 / 2
    >>> h = train(model, data, kind="gd", b=1, eta=1.0, steps=1, loss=half_square, progress=False)
    >>> model.weight.item(), h.train_loss.tolist()
    (2.0, [2.5, 0.5])
    """
    _validate.choice("kind", kind, KINDS)
    seed = _validate.integer("seed", seed, low=0, high=2**64 - 1)
    n = _count(train)
    _check_sizes(kind, n, b, B)
    used = kind in (*MINIBATCH, "sparse_fisher", "sparse_cov")
    if kind in LANGEVIN:
        how: dict[str, Any] = {"direction": _Langevin(kind, b, seed, chunk)}
    else:
        how = {"weights": Weights(kind, n, b, B, seed).draw}
    return run(
        model, train, test, **how, eta=eta, steps=steps, loss=loss, seed=seed, schedule=schedule, chunk=chunk,
        device=device, precision=precision, evaluate_every=evaluate_every, checkpoint=checkpoint,
        checkpoint_every=checkpoint_every, progress=progress, timeout=timeout,
        settings={"kind": kind, "b": b, "B": B if used else None},
    )  # fmt: skip


@dataclass(frozen=True)
class _Langevin:
    """The full gradient plus Gaussian noise of SGD's trace, or of SGD's diagonal."""

    kind: str
    b: int
    seed: int
    chunk: int | None

    def __call__(self, model: nn.Module, loss: Loss, x: Tensor, y: Tensor, step: int) -> Tensor:
        n, verify = len(x), step == 0
        if self.kind == "gld_iso":
            chunk = self.chunk or (None if x.is_cpu else ON_CUDA)
            m = gradstats.moments(model, loss, x, y, chunk_size=chunk, verify=verify)
            mean, variance = m.mean, (n - 1) / n * m.trace / (self.b * len(m.mean))
        else:
            mean, second = _diagonal(model, loss, x, y, verify)
            variance = (second - mean.square()).clamp_(min=0).to(x.dtype) / self.b
            mean = mean.to(x.dtype)
        raw = _generator(self.seed, step, stream=2).integers(2**63)
        generator = torch.Generator(mean.device).manual_seed(int(raw))
        epsilon = torch.randn(len(mean), generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + variance.sqrt() * epsilon


def _diagonal(model: nn.Module, loss: Loss, x: Tensor, y: Tensor, verify: bool) -> tuple[Tensor, Tensor]:
    """Means of the per-example gradients and of their squares, in float64."""
    p = sum(theta.numel() for theta in model.parameters() if theta.requires_grad)
    first, second = (torch.zeros(p, dtype=torch.float64, device=x.device) for _ in range(2))
    size = max(1, ROWS // p)
    if verify:
        check_examples(model, loss, x, y)
    for inputs, targets in zip(x.split(size), y.split(size), strict=True):
        g = gradstats.per_example(model, loss, inputs, targets, verify=False).double()
        first += g.sum(0)
        second += g.square().sum(0)
    return first / len(x), second / len(x)


def _count(train: Any) -> int:
    if not isinstance(train, tuple | list) or len(train) != 2:
        raise TypeError(f"train is a {type(train).__name__}: expected a pair (inputs, targets)")
    if not isinstance(train[0], Tensor | np.ndarray) or train[0].ndim == 0:
        raise TypeError(f"inputs of train is a {type(train[0]).__name__}: expected an array or a tensor")
    return len(train[0])


def _check_sizes(kind: str, n: int, b: int, B: int | None) -> None:
    """An error that names the size that is wrong."""
    if kind in sampling.KINDS:
        sampling._checked_sizes(kind, n, b, B)
        return
    n = _validate.integer("n", n, low=2 if kind in LANGEVIN else 1)
    if kind in MINIBATCH:
        if B is None:
            raise ValueError(f"B = None: {kind} needs the size of its batches")
        B = _validate.integer("B", B, low=1, high=n)
    b = _validate.integer("b", b, low=1, high=B if kind in MINIBATCH else n if kind == "sgd_epochs" else None)
    if kind == "sgd_epochs" and n % b:
        raise ValueError(f"b = {b}: expected a divisor of n = {n}")


def _generator(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, step], dtype=np.uint64), counter=[0, 0, 0, stream]))


@lru_cache(maxsize=16)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch."""
    return _generator(seed, epoch, 1).permutation(n)
