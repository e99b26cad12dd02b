"""A model, a loss and n examples, checked: what every statistic of per-example gradients starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from implicitreg import _validate
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

Loss = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Sample:
    """n examples, and the named parameters (those with ``requires_grad``) that make up theta."""

    model: nn.Module
    loss: Loss
    inputs: Tensor
    targets: Tensor
    parameters: dict[str, Tensor]

    @property
    def n(self) -> int:
        return len(self.inputs)

    @property
    def theta(self) -> list[Tensor]:
        return list(self.parameters.values())

    @property
    def p(self) -> int:
        return sum(theta.numel() for theta in self.theta)

    @property
    def dtype(self) -> torch.dtype:
        return self.theta[0].dtype

    @property
    def device(self) -> torch.device:
        return self.theta[0].device

    @property
    def first(self) -> Sample:
        """The first example alone."""
        return self.part(slice(0, 1))

    @property
    def last(self) -> Sample:
        """The last example alone."""
        return self.part(slice(self.n - 1, None))

    @property
    def ends(self) -> Sample:
        """The first and the last example, or the only one."""
        return self.part(slice(None, None, self.n - 1)) if self.n > 1 else self

    def part(self, rows: slice) -> Sample:
        """The same with these examples only."""
        return Sample(self.model, self.loss, self.inputs[rows], self.targets[rows], self.parameters)

    def losses(self) -> Tensor:
        """The loss of every example in one batch: (n,)."""
        return self.loss(self.model(self.inputs), self.targets)


@contextmanager
def autograd(device: torch.device) -> Iterator[None]:
    """Gradients on, whatever the caller does, and no TF32: its three digits would drown a difference of gradients."""
    backends = [torch.backends.cudnn, torch.backends.cuda.matmul] if device.type == "cuda" else []
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def checked(model: Any, loss: Any, inputs: Any, targets: Any, *, least: int = 2) -> Sample:
    """The sample, whose examples do not interact, or an error that says what is wrong with it."""
    sample = given(model, loss, inputs, targets, least=least)
    with autograd(sample.device):
        check_alone(tried(sample.ends), tried(sample.first), tried(sample.last))
    return sample


def given(model: Any, loss: Any, inputs: Any, targets: Any, *, least: int = 2) -> Sample:
    """The sample, before anything is computed with it, or an error."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: expected a torch.nn.Module")
    if not callable(loss):
        raise TypeError(f"loss = {loss!r}: expected a callable (outputs, targets) -> (n,) losses")
    sample = Sample(model, loss, _rows("inputs", inputs), _rows("targets", targets), _trainable(model))
    _check_data(sample, least)
    _check_modules(model)
    return sample


class Tried(NamedTuple):
    """The losses of one or two examples, and the outputs, empty where they are not one row an example."""

    losses: Tensor
    outputs: Tensor


def check_alone(ends: Tried, first: Tried, last: Tried) -> None:
    """Two examples have the same losses in one batch of two and alone, or there is no loss of one example."""
    losses, outputs = (torch.cat([one, other])[: len(both)] for one, other, both in zip(first, last, ends, strict=True))
    eps, size = torch.finfo(losses.dtype).eps, float(outputs.abs().max()) if outputs.numel() else 1.0
    rounding = 100 * eps * size  # which is all there is of a loss that is nearly zero
    if not (_near(ends.outputs, outputs, 0.0) and _near(ends.losses, losses, rounding)):
        raise ValueError(
            f"the losses of two examples are {losses.tolist()} alone and {ends.losses.tolist()} in one batch: "
            "expected equal numbers; something couples the examples (a statistic of the batch, a contrastive loss, a "
            "division by the batch size) or is random (dropout, noise)"
        )


def _near(a: Tensor, b: Tensor, extra: float) -> bool:
    """Half of the digits of the largest entry agree, up to ``extra``; what has not one shape is not compared."""
    return (
        a.shape != b.shape
        or a.numel() == 0
        or bool((a - b).abs().max() <= torch.finfo(b.dtype).eps ** 0.5 * b.abs().max() + extra)
    )


def tried(sample: Sample) -> Tried:
    """The losses of a few examples, with the right shape and dtype, finite, and with a graph."""
    try:
        outputs = sample.model(sample.inputs)
        losses = sample.loss(outputs, sample.targets)
    except RuntimeError as error:
        raise ValueError(f"model or loss fails for inputs of shape {tuple(sample.inputs.shape)} and dtype "
                         f"{sample.inputs.dtype}: {error}") from error  # fmt: skip
    _check_losses(sample, losses)
    by_row = isinstance(outputs, Tensor) and outputs.ndim > 0 and len(outputs) == sample.n
    return Tried(losses, outputs.detach() if by_row else losses.detach()[:0])


def _check_losses(sample: Sample, losses: Any) -> None:
    if not isinstance(losses, Tensor):
        raise TypeError(f"loss returns a {type(losses).__name__}: expected a torch.Tensor")
    if losses.shape != (sample.n,):
        raise ValueError(f"loss returns shape {tuple(losses.shape)} for {sample.n} examples: expected "
                         f"({sample.n},), one loss an example (reduction='none')")  # fmt: skip
    if losses.dtype != sample.dtype:
        raise ValueError(f"loss returns dtype {losses.dtype} and model has {sample.dtype}: expected one dtype")
    if not losses.requires_grad:
        raise ValueError("loss does not depend on the parameters: expected differentiable torch operations")
    for i, value in enumerate(losses.tolist()):
        if not math.isfinite(value):
            raise ValueError(f"the loss of example {i} of {sample.n} is {value}: expected finite numbers")


def size_of_chunks(chunk_size: Any) -> int | None:
    """``chunk_size``, at least 1, or None."""
    return None if chunk_size is None else _validate.integer("chunk_size", chunk_size, low=1)


def slices(n: int, size: int) -> list[slice]:
    """Slices of ``range(n)`` with at most ``size`` elements each."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def check_finite(name: str, values: Tensor) -> None:
    """No NaN and no infinity in ``values``, whose first axis counts examples."""
    if torch.isfinite(values.sum()):  # which is finite unless an entry is not, or it overflows; the cheaper look
        return
    bad = ~torch.isfinite(values).reshape(len(values), -1).all(1)
    if bad.any():
        i = int(bad.nonzero()[0])
        raise ValueError(f"{name} of example {i} is not finite: expected finite numbers (inputs, parameters, loss)")


def _rows(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}: expected a torch.Tensor with one row an example")
    if value.ndim == 0 or value.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(value.shape)}: expected a non-empty tensor with one row an example")
    if value.is_floating_point() and not torch.isfinite(value.sum()) and not torch.isfinite(value).all():
        raise ValueError(f"{name} has entries that are not finite: expected finite numbers")
    return value.detach()


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("model has no parameters with requires_grad: expected at least one")
    kinds = {(p.dtype, p.device) for p in model.parameters()}
    if len(kinds) > 1:
        found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(f"model has parameters of {found}: expected one dtype and one device")
    dtype, device = kinds.pop()
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"model has dtype {dtype}: expected torch.float32 or torch.float64")
    if torch.is_autocast_enabled(device.type):
        raise ValueError("autocast is enabled: expected one precision, leave torch.autocast before the call")
    return parameters


def _check_data(sample: Sample, least: int) -> None:
    theta, inputs, targets = sample.theta[0], sample.inputs, sample.targets
    if len(inputs) < least or len(targets) != len(inputs):
        raise ValueError(f"inputs has {len(inputs)} rows and targets {len(targets)}: "
                         f"expected equal numbers, at least {least}")  # fmt: skip
    for name, value in (("inputs", inputs), ("targets", targets)):
        if value.device != theta.device:
            raise ValueError(f"{name} is on {value.device} and model on {theta.device}: expected one device")
        if (value.is_floating_point() and value.dtype != theta.dtype) or value.is_complex():
            raise ValueError(f"{name} has dtype {value.dtype} and model {theta.dtype}: expected one real dtype")


def _check_modules(model: nn.Module) -> None:
    """Refuse what is known to couple the examples, or to draw random numbers."""
    for name, module in model.named_modules():
        what = f"model.{name}, {type(module).__name__}," if name else f"model, {type(module).__name__},"
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise ValueError(f"{what} normalises with the statistics of the batch, so that one example's loss depends "
                             "on the others and has no gradient of its own: expected eval() mode with running "
                             "statistics, or another normalisation")  # fmt: skip
        if isinstance(module, _NormBase) and module.training and module.track_running_stats:
            raise ValueError(f"{what} changes its running statistics at every call: expected eval() mode")
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            raise ValueError(f"{what} draws a new mask at every call (p = {module.p:g}), and the masks' variance "
                             "would be counted as the examples': expected eval() mode, or a fixed mask")  # fmt: skip
