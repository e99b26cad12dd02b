"""What is recorded of a forward pass: the calls of plain layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from implicitreg._failures import OUT_OF_MEMORY
from implicitreg.gradstats._layers import Layer
from implicitreg.gradstats._sample import Sample
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge


class Unfit(Exception):
    """A method cannot serve this model: the next one is tried."""


@dataclass(frozen=True, eq=False)
class Call:
    """A layer, its inputs and their version, the nodes of the graph before and behind it (in-place changes do not move
    them; the one behind only where it is asked for), and the shape of its outputs."""

    layer: Layer
    a: Any
    version: int
    source: Any
    output: GradientEdge | None
    shape: torch.Size

    @property
    def of_one(self) -> tuple[Layer, torch.Size, torch.Size]:
        """The layer and the shapes of one example's inputs and outputs."""
        return self.layer, self.a.shape[1:], self.shape[1:]

    def counts(self, n: int) -> bool:
        """Whether the first axis counts n examples."""
        return isinstance(self.a, Tensor) and self.a.ndim > 1 and self.a.shape[0] == self.shape[0] == n


@dataclass(eq=False)
class Pass:
    """A forward pass of some examples."""

    part: Sample
    outputs: Any
    losses: Tensor
    calls: list[Call]

    @cached_property
    def signature(self) -> list[tuple[Layer, torch.Size, torch.Size]] | None:
        """The layers in order, with the shapes of one example's inputs and outputs; None where a layer is called twice
        or the first axis of its inputs does not count the examples."""
        once = len({id(call.layer) for call in self.calls}) == len(self.calls)
        regular = once and all(call.counts(self.part.n) for call in self.calls)
        return [call.of_one for call in self.calls] if regular else None


def recorded(part: Sample, layers: list[Layer]) -> Pass:
    """The forward pass, with the calls of the layers on the way."""
    with recording(layers) as calls:
        return Pass(part, *part.forward(), calls)


@contextmanager
def recording(layers: list[Layer], edges: bool = True) -> Iterator[list[Call]]:
    """The calls of the layers, in order, with the ``edges`` of the graph behind them."""
    calls: list[Call] = []

    def record(layer: Layer, args: tuple, output: Tensor) -> None:
        if output.dtype != layer.weight.dtype:
            raise ValueError(f"a {type(layer).__name__} layer computes in {output.dtype}: expected "
                             f"{layer.weight.dtype}, without autocast in forward")  # fmt: skip
        if output.requires_grad:
            a = args[0] if args else None
            version, source = getattr(a, "_version", 0), getattr(a, "grad_fn", None)
            edge = get_gradient_edge(output) if edges else None
            calls.append(Call(layer, a, version, source, edge, output.shape))

    hooks = [layer.register_forward_hook(record, prepend=True) for layer in layers]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def plain_layers(model: nn.Module) -> list[Layer]:
    """The linear layers and convolutions with a trainable weight, computed by torch's own code from their own
    parameters."""
    return [
        module
        for module in model.modules()
        if type(module) in (nn.Linear, nn.Conv2d)
        and "forward" not in vars(module)
        and set(module._parameters) == {"weight", "bias"}
        and module.weight is not None
        and module.weight.requires_grad
    ]


def has_images(layers: list[Layer]) -> bool:
    return any(isinstance(layer, nn.Conv2d) for layer in layers)


def in_layout(part: Sample, layers: list[Layer]) -> Sample:
    """The same; on the CPU max-pooling is twice as fast with the channels last."""
    if not (has_images(layers) and part.inputs.ndim == 4 and part.inputs.is_cpu):
        return part
    return replace(part, inputs=part.inputs.contiguous(memory_format=torch.channels_last))


def trainable(layer: Layer) -> list[Tensor]:
    return [theta for theta in (layer.weight, layer.bias) if theta is not None and theta.requires_grad]


def backward(outputs: Any, inputs: Any, cotangents: Any = None, **how: bool) -> tuple[Tensor, ...]:
    """`torch.autograd.grad`, or `Unfit` where torch cannot."""
    try:
        return torch.autograd.grad(outputs, inputs, cotangents, **how)
    except OUT_OF_MEMORY:
        raise
    except RuntimeError as error:
        raise Unfit from error


def close(a: Tensor, b: Tensor) -> bool:
    """Two computations of one tensor, of which half the digits agree, at any scale."""
    if a.shape != b.shape or not b.numel():
        return a.shape == b.shape
    a, b = a.detach(), b.detach()
    limits, size = torch.finfo(b.dtype), float(b.norm())
    if not limits.tiny**0.4 < size < limits.max**0.4:  # squares may leave the range of numbers
        scale = torch.maximum(a.abs().amax(), b.abs().amax())
        if scale == 0:
            return True
        a, b = a / scale, b / scale
        size = float(b.norm())
    return float((a - b).norm()) <= limits.eps**0.5 * size
