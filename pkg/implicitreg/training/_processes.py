"""One process or several: which, how many, and how they share the work."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from implicitreg import _validate
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """This process, ``rank``, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, m: int) -> range:
        """This process's part of ``range(m)``: blocks of nearly equal size, in the order of the ranks."""
        return range(m * self.rank // self.size, m * (self.rank + 1) // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def wrapped(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model, with the gradients of all processes averaged at every backward pass."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def apart(model: nn.Module, yes: bool) -> AbstractContextManager:
    """While ``yes``, gradients are summed here only."""
    return model.no_sync() if yes and isinstance(model, DistributedDataParallel) else nullcontext()


def joined(device: torch.device, timeout: float) -> Processes:
    """The process group that is there, or else that of ``torchrun``, which then stays; or this process alone."""
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    if not dist.is_available() or not (launched or dist.is_initialized()):
        return Processes()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=timeout))
    return Processes(dist.get_rank(), dist.get_world_size())


def device(name: str) -> torch.device:
    """``"auto"``, ``"cpu"`` or a CUDA device; among several processes of one machine, each takes its own."""
    _validate.text("device", name)
    wanted = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else _device(name)
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device = {name!r}: expected 'cpu' or 'auto', since torch sees no CUDA device")
    if wanted.type == "cuda" and wanted.index is None:
        wanted = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    return wanted


def _device(name: str) -> torch.device:
    try:
        found = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device = {name!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:0' and so on") from error
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device = {name!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:0' and so on")
    return found
