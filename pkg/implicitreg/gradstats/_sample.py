"""A model, a loss and n examples: what every statistic of per-example gradients starts from, and its checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from typing import Any

import torch
from implicitreg import _validate
from implicitreg._failures import explained
from implicitreg.gradstats._known import known_loss, known_model
from implicitreg.gradstats._state import content, untouched
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import UninitializedParameter

FEW = 100  # examples at a time where model and loss are only tried

Loss = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Sample:
    """n examples, and the named parameters (those with ``requires_grad``) that make up theta.

    ``numbers`` are the examples' places in the whole sample. A model that writes into its inputs gets copies. ``apart``
    says whether the model is known to keep the examples apart, ``known`` whether the loss is known, too.
    """

    model: nn.Module
    loss: Loss
    inputs: Tensor
    targets: Tensor
    parameters: dict[str, Tensor]
    numbers: Sequence[int]
    apart: bool
    known: bool
    written: bool = False

    @property
    def n(self) -> int:
        return self.inputs.shape[0]

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

    def part(self, rows: slice | list[int]) -> Sample:
        """The same with these examples only; of a list, the inputs and targets are copies."""
        inputs, targets = self.inputs[rows], self.targets[rows]
        if self.written:
            inputs, targets = inputs.clone(), targets.clone()
        numbers = self.numbers[rows] if isinstance(rows, slice) else [self.numbers[i] for i in rows]
        known = self.apart, self.known
        return Sample(self.model, self.loss, inputs, targets, self.parameters, numbers, *known, self.written)

    def parts(self, size: int) -> Iterator[Sample]:
        """Chunks of at most so many examples, in order."""
        return (self.part(rows) for rows in slices(self.n, size))

    def forward(self) -> tuple[Any, Tensor]:
        """The outputs, and the loss of every example in one batch, (n,), which may still be no finite numbers."""
        with self._explained():
            outputs = self.model(self.inputs)
        return outputs, self.losses_of(outputs, self.targets)

    def losses_of(self, outputs: Any, targets: Tensor) -> Tensor:
        """The losses of some examples in one batch."""
        with self._explained():
            losses = self.loss(outputs, targets)
        _check_losses(losses, targets.shape[0], self.dtype)
        return losses

    def _explained(self) -> AbstractContextManager[None]:
        inputs = self.inputs
        return explained(f"model or loss fails for inputs of shape {tuple(inputs.shape)} and dtype {inputs.dtype}")

    def forward_only(self) -> None:
        """Model and loss are called, and nothing is looked at."""
        with explained("model or loss fails"):
            self.loss(self.model(self.inputs), self.targets)

    def losses(self) -> Tensor:
        """The loss of every example in one batch: (n,)."""
        losses = self.forward()[1]
        check_finite("the loss", losses.detach(), self.numbers)
        return losses


@contextmanager
def entered(
    model: Any, loss: Any, inputs: Any, targets: Any, *, least: int = 2, verify: Any = True
) -> Iterator[Sample]:
    """The checked sample, with gradients on; the model and the generators are left as they were."""
    if not isinstance(verify, bool) and not (isinstance(verify, str) and verify == "full"):
        raise ValueError(f"verify = {verify!r}: expected True, False or 'full'")
    sample = given(model, loss, inputs, targets, least=least)
    data = [(tensor, content(tensor)) for tensor in (sample.inputs, sample.targets)]
    for name, (tensor, (_, total)) in zip(("inputs", "targets"), data, strict=True):
        if not isfinite(total) and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has entries that are not finite: expected finite numbers")
    watch = nullcontext() if sample.known else untouched(model, loss, data=data, passes=_passes(sample))
    with watch, autograd(sample.device):
        yield sample


def _passes(sample: Sample) -> Iterator[Callable[[], Any]]:
    """The losses of one example, then those of all, a few at a time."""
    one = sample.part(slice(0, 1))
    return (part.forward_only for part in chain([one], sample.parts(FEW)))


@contextmanager
def autograd(device: torch.device) -> Iterator[None]:
    """Gradients on, whatever the caller does; attention in the form that can be differentiated twice; and no TF32,
    whose three digits would drown a difference of gradients."""
    backends = [torch.backends.cudnn, torch.backends.cuda.matmul] if device.type == "cuda" else []
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def given(model: Any, loss: Any, inputs: Any, targets: Any, *, least: int = 2) -> Sample:
    """The sample, before anything is computed with it, or an error."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: expected a torch.nn.Module")
    if not callable(loss):
        raise TypeError(f"loss = {loss!r}: expected a callable (outputs, targets) -> (n,) losses")
    inputs, targets = _rows("inputs", inputs), _rows("targets", targets)
    apart = known_model(model, inputs)
    known = apart and known_loss(loss)
    sample = Sample(model, loss, inputs, targets, _trainable(model), range(len(inputs)), apart, known)
    _check_data(sample, least)
    _check_modules(model)
    return sample


def _check_losses(losses: Any, n: int, dtype: torch.dtype) -> None:
    if not isinstance(losses, Tensor):
        raise TypeError(f"loss returns a {type(losses).__name__}: expected a torch.Tensor")
    if losses.shape != (n,):
        raise ValueError(f"loss returns shape {tuple(losses.shape)} for {n} examples: expected ({n},), one loss an "
                         "example (reduction='none')")  # fmt: skip
    if losses.dtype != dtype:
        raise ValueError(f"loss returns dtype {losses.dtype} and model has {dtype}: expected one dtype")
    if not losses.requires_grad:
        raise ValueError("loss does not depend on the parameters: expected differentiable torch operations")


def size_of_chunks(chunk_size: Any) -> int | None:
    """``chunk_size``, at least 1, or None."""
    return None if chunk_size is None else _validate.integer("chunk_size", chunk_size, low=1)


def slices(n: int, size: int) -> list[slice]:
    """Slices of ``range(n)`` with at most ``size`` elements each."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def check_finite(name: str, values: Tensor, numbers: Sequence[int] | None = None) -> None:
    """No NaN and no infinity in ``values``, whose first axis counts examples, by default all."""
    if torch.isfinite(values.sum()):  # which is finite unless an entry is not, or it overflows; the cheaper look
        return
    bad = ~torch.isfinite(values).reshape(len(values), -1).all(1)
    if bad.any():
        i = int(bad.nonzero()[0])
        number = i if numbers is None else numbers[i]
        raise ValueError(f"{name} of example {number} is not finite: expected finite numbers (inputs, parameters, "
                         "loss)")  # fmt: skip


def _rows(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}: expected a torch.Tensor with one row an example")
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested:
        raise ValueError(f"{name} has layout {value.layout} on {value.device}: expected a plain dense tensor")
    if value.ndim == 0 or value.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(value.shape)}: expected a non-empty tensor with one row an example")
    with torch.inference_mode(False):
        return value.clone() if value.is_inference() else value.detach()


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    for name, p in named.items():
        _check_parameter(name, p)
    parameters = {name: p for name, p in named.items() if p.requires_grad}
    if not parameters:
        raise ValueError("model has no parameters with requires_grad: expected at least one")
    kinds = {(p.dtype, p.device) for p in named.values()}
    if len(kinds) > 1:
        found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(f"model has parameters of {found}: expected one dtype and one device")
    dtype, device = kinds.pop()
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"model has dtype {dtype}: expected torch.float32 or torch.float64")
    if torch.is_autocast_enabled(device.type):
        raise ValueError("autocast is enabled: expected one precision, leave torch.autocast before the call")
    return parameters


def _check_parameter(name: str, p: Tensor) -> None:
    if isinstance(p, UninitializedParameter) or p.is_meta or p.layout != torch.strided:
        raise ValueError(f"model.{name} holds no dense numbers yet: expected an initialised model on a real device")
    if p.is_inference():
        raise ValueError(f"model.{name} was made in inference mode: expected a parameter that can be differentiated")
    if p._backward_hooks:
        raise ValueError(f"model.{name} has a hook on its gradient, so that what autograd returns is not the gradient "
                         "of the loss: expected none; to mask a parameter, multiply it in forward")  # fmt: skip


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
    """Refuse what is known to couple the examples, to draw random numbers, or to have no dense gradient."""
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
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            raise ValueError(f"{what} has sparse gradients: expected sparse=False, which gives the same numbers")
