"""Examples, resident on the device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from implicitreg import _validate
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Data:
    """Inputs and targets on the device; images of bytes stay bytes there, and the channels are last."""

    inputs: Tensor
    targets: Tensor
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Some of the examples, bytes as numbers from 0 to 1."""
        x = self.inputs[rows]
        x = x.to(self.dtype).div_(255) if x.dtype == torch.uint8 else x
        return x, self.targets[rows]

    @property
    def layout(self) -> torch.memory_format:
        """That of a model for these inputs."""
        return torch.channels_last if self.inputs.ndim == 4 else torch.preserve_format

    @property
    def classes(self) -> bool:
        """Whether the targets are classes."""
        return self.targets.ndim == 1 and not self.targets.is_floating_point()

    def fingerprint(self) -> str:
        """SHA-256 of the examples."""
        digest = hashlib.sha256()
        for tensor in (self.inputs, self.targets):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.cpu().contiguous().numpy()).cast("B"))
        return digest.hexdigest()


def resident(name: str, pair: Any, dtype: torch.dtype, device: torch.device) -> Data:
    """(inputs, targets) as tensors on the device, or an error that names them."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{name} is a {type(pair).__name__}: expected a pair (inputs, targets)")
    x, y = (_tensor(f"{part} of {name}", value) for part, value in zip(("inputs", "targets"), pair, strict=True))
    if len(x) != len(y):
        raise ValueError(f"{name} has {len(x)} inputs and {len(y)} targets: expected one target an input")
    if x.dtype != torch.uint8:
        if not x.is_floating_point():
            raise TypeError(f"inputs of {name} has dtype {x.dtype}: expected floats, or uint8 images")
        x = x.to(dtype)
    y = y.to(dtype) if y.is_floating_point() else y.long()
    layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
    return Data(x.to(device).contiguous(memory_format=layout), y.to(device).contiguous(), dtype)


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor | np.ndarray):
        raise TypeError(f"{name} is a {type(value).__name__}: expected an array or a tensor")
    if isinstance(value, np.ndarray):
        value = _validate.array(name, value)
    if isinstance(value, np.ndarray) and value.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {value.dtype}: expected floats or integers")
    tensor = torch.as_tensor(value).detach()
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {tensor.dtype}: expected floats or integers")
    if tensor.ndim == 0 or tensor.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected at least one row")
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ValueError(f"{name} has entries that are not finite: expected finite numbers")
    return tensor
