"""What is computed of a model, its loss and its data: weighted gradients in chunks, steps, losses and accuracies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from implicitreg import _validate
from implicitreg._failures import explained
from implicitreg.training._data import Data
from implicitreg.training._processes import Processes, apart
from torch import Tensor, nn

Loss = Callable[[Any, Tensor], Tensor]
MODEL, SEEDS = 3, 1024  # the stream of what the model draws (those below it are the weights'); seeds made at once


@dataclass(eq=False)
class Task:
    """A model, its loss and its data, on a device: what can be computed of them."""

    model: nn.Module
    loss: Loss
    train: Data
    test: Data | None
    chunk: int
    autocast: bool
    processes: Processes
    generators: list[torch.Generator]
    seed: int

    def __post_init__(self) -> None:
        self.theta = [p for p in self.model.parameters() if p.requires_grad]
        self.wrapped = self.model
        self.everything = np.arange(len(self.train))

    @property
    def device(self) -> torch.device:
        return self.train.inputs.device

    def outputs(self, model: nn.Module, x: Tensor) -> Any:
        """Those of the model, in the precision of its parameters."""
        if not self.autocast:
            return model(x)
        with torch.autocast(self.device.type, torch.bfloat16):
            outputs = model(x)
        return outputs.to(self.train.dtype) if isinstance(outputs, Tensor) else outputs

    def losses(self, outputs: Any, y: Tensor) -> Tensor:
        losses = self.loss(outputs, y)
        if not isinstance(losses, Tensor) or losses.shape != (len(y),):
            found = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(f"loss returns {found} for {len(y)} examples: expected ({len(y)},), one loss an example "
                             "(reduction='none')")  # fmt: skip
        return losses

    def weighted(self, index: Any, w: Any) -> Tensor | float:
        r"""The sum of w_i times loss i, whose gradient is added to ``grad`` of the parameters, chunk by chunk."""
        parts, total = list(self.parts(index, w)), 0.0
        for k, (rows, v) in enumerate(parts):
            with apart(self.wrapped, k < len(parts) - 1):
                x, y = self.train.take(rows)
                value = (v * self.losses(self.outputs(self.wrapped, x), y)).sum()
                value.backward()
            total = total + value.detach()
        return total

    def parts(self, index: Any, w: Any) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Rows and weights of this process's chunks; where every example has a weight, rows are not gathered."""
        index, w = _validate.array("index", index), _validate.array("w", w).astype(np.float64)
        if index.shape != w.shape or index.ndim != 1:
            raise ValueError(
                f"weights gives shapes {index.shape} and {w.shape}: expected (m,) each, indices and weights"
            )
        whole = len(index) == len(self.everything) and np.array_equal(index, self.everything)
        share, size = self.processes.share(len(index)), self.processes.size
        v = self.sent(torch.from_numpy(size * w[share.start : share.stop]).to(self.train.dtype))
        rows = None if whole else self.sent(torch.from_numpy(index[share.start : share.stop]))
        for start in range(0, len(share), self.chunk):
            stop = min(start + self.chunk, len(share))
            yield slice(share.start + start, share.start + stop) if whole else rows[start:stop], v[start:stop]
        if not share and size > 1:  # the others wait for this process's gradient, which is zero
            yield slice(0, 1), torch.zeros(1, dtype=self.train.dtype, device=self.device)

    def sent(self, tensor: Tensor) -> Tensor:
        """On the device, without waiting for it."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def reseed(self, step: int) -> None:
        """What the model itself draws depends on the seed, the step and the process only."""
        seed = _seeds(self.seed, self.processes.rank, step // SEEDS)[step % SEEDS]
        for generator in self.generators:
            generator.manual_seed(seed)

    def update(self, eta: float) -> None:
        moved = [p for p in self.theta if p.grad is not None]
        if moved:
            with torch.no_grad():
                torch._foreach_add_(moved, [p.grad for p in moved], alpha=-eta)

    def forget(self) -> None:
        for p in self.theta:
            p.grad = None

    def direct(self, flat: Tensor) -> None:
        """A flat vector as the gradient."""
        for p, part in zip(self.theta, flat.split([p.numel() for p in self.theta]), strict=True):
            p.grad = part.view(p.shape)

    def look(self) -> dict[str, float]:
        """Unweighted mean losses, and accuracies where the targets are classes."""
        with evaluating(self.model), torch.no_grad():
            train = self._means("train", self.train)
            return train if self.test is None else {**train, **self._means("test", self.test)}

    def _means(self, name: str, data: Data) -> dict[str, float]:
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        share, classes = self.processes.share(len(data)), data.classes
        for start in range(share.start, share.stop, self.chunk):
            x, y = data.take(slice(start, min(start + self.chunk, share.stop)))
            outputs = self.outputs(self.model, x)
            sums[0] += self.losses(outputs, y).sum(dtype=torch.float64)
            classes = classes and isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] > 1
            if classes:
                sums[1] += (outputs.argmax(1) == y).sum()
        loss, right = (self.processes.sum(sums) / len(data)).tolist()
        return {f"{name}_loss": loss, f"{name}_accuracy": right} if classes else {f"{name}_loss": loss}

    def try_one(self, cross_entropy: bool) -> None:
        """The loss of one example is a number that depends on the parameters; classes are those that the model has
        outputs for."""
        with evaluating(self.model), torch.enable_grad():
            x, y = self.train.take(slice(0, 1))
            with explained(f"model fails for inputs of shape {tuple(x.shape)} and dtype {x.dtype}"):
                outputs = self.outputs(self.model, x)
            for name, data in (("train", self.train), ("test", self.test)):
                if cross_entropy and data is not None:
                    _check_classes(name, data, outputs)
            with explained(f"loss fails for targets of shape {tuple(y.shape)} and dtype {y.dtype}"):
                losses = self.losses(outputs, y)
            if not losses.requires_grad:
                raise ValueError("loss does not depend on the parameters: expected differentiable torch operations")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In eval mode; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def forked(device: torch.device) -> Iterator[list[torch.Generator]]:
    """torch's own generators, left at the end as they are now."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng([device.index] if cuda else []):
        yield [torch.default_generator, *([torch.cuda.default_generators[device.index]] if cuda else [])]


@lru_cache(maxsize=8)
def _seeds(seed: int, rank: int, block: int) -> list[int]:
    philox = np.random.Philox(key=np.array([seed, block], dtype=np.uint64), counter=[0, 0, rank, MODEL])
    return (philox.random_raw(SEEDS) >> np.uint64(1)).tolist()


def _check_classes(name: str, data: Data, outputs: Any) -> None:
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        raise ValueError("cross-entropy needs outputs (n, classes): expected a model with these, or a loss")
    if not data.classes:
        if data.targets.shape[1:] != outputs.shape[1:]:
            raise ValueError(f"targets of {name} has dtype {data.targets.dtype} and shape {tuple(data.targets.shape)}: "
                             "expected integers, the classes, for cross-entropy; or a loss")  # fmt: skip
        return
    low, high = int(data.targets.min()), int(data.targets.max())
    if low < 0 or high >= outputs.shape[1]:
        raise ValueError(f"targets of {name} are classes from {low} to {high}: expected 0 to {outputs.shape[1] - 1}, "
                         f"as the model has {outputs.shape[1]} outputs")  # fmt: skip


def held(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())
