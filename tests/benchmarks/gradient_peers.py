"""The other ways to statistics of per-example gradients, none of which uses our package.

A way takes a model, inputs and targets (cross-entropy), the number of examples in a chunk and whether images have the
channels last. Optional libraries are imported inside the functions.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap


class Moments(NamedTuple):
    mean: Tensor
    sq_norm: Tensor
    trace: Tensor


def keep_memory() -> None:
    """Ask the C library to give no memory back: large temporary arrays then cost no page faults, which doubles the
    speed of the ways that form all gradients."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def chunks(x: Tensor, y: Tensor, size: int, channels_last: bool) -> Iterator[tuple[Tensor, Tensor]]:
    for a, b in zip(x.split(size), y.split(size), strict=True):
        yield (a.contiguous(memory_format=torch.channels_last) if channels_last else a), b


def flat(parts: Any) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def from_squares(total: Tensor, squares: Tensor, n: int) -> Moments:
    """From sum g_i and sum |g_i|²."""
    mean = total / n
    trace = (squares - n * mean @ mean) / (n - 1)
    return Moments(mean, mean @ mean - trace / n, trace)


def plain(model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool) -> None:
    """What training does: the gradient of the mean loss, and nothing else."""
    theta, total = list(model.parameters()), None
    for a, b in chunks(x, y, size, channels_last):
        g = torch.autograd.grad(F.cross_entropy(model(a), b, reduction="sum"), theta)
        total = g if total is None else [s.add_(t) for s, t in zip(total, g, strict=True)]
    _ = flat(total) / len(x)


# --- torch.func ---------------------------------------------------------------------------------------------------


def _loss(model: nn.Module, theta: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    return F.cross_entropy(functional_call(model, theta, (a[None],)), b[None])


def _rows(model: nn.Module, theta: dict[str, Tensor], a: Tensor, b: Tensor) -> dict[str, Tensor]:
    return vmap(grad(lambda t, u, v: _loss(model, t, u, v)), (None, 0, 0))(theta, a, b)


def _theta(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def moments_by_vmap(model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool) -> Moments:
    total, squares = 0.0, 0.0
    for a, b in chunks(x, y, size, channels_last):
        rows = _rows(model, _theta(model), a, b).values()
        total = total + flat(r.sum(0) for r in rows)
        squares = squares + sum(torch.linalg.vector_norm(r) ** 2 for r in rows)
    return from_squares(total, squares, len(x))


def gram_by_vmap(model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool) -> Tensor:
    parts = [_rows(model, _theta(model), a, b) for a, b in chunks(x, y, size, channels_last)]
    K = x.new_zeros(len(x), len(x))
    for name in _theta(model):
        g = torch.cat([part.pop(name).flatten(1) for part in parts])
        K.addmm_(g, g.T)
    return K


def grad_trace_by_reverse_over_vmap(model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool) -> Tensor:
    """The gradient of sum |g_i|² - 2 g_i . gbar, chunk by chunk, where gbar comes from a plain pass."""
    theta, n = _theta(model), len(x)
    G = _mean_gradient(model, x, y, size, channels_last)

    def half(theta: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
        rows = _rows(model, theta, a, b)
        return sum((r * (r / 2 - G[name])).sum() for name, r in rows.items())

    parts = [flat(grad(half)(theta, a, b).values()) for a, b in chunks(x, y, size, channels_last)]
    return 2 / (n - 1) * sum(parts)


def grad_trace_by_forward_over_reverse(
    model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool
) -> Tensor:
    theta, n = _theta(model), len(x)
    G = _mean_gradient(model, x, y, size, channels_last)

    def product(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        g = grad(lambda t: _loss(model, t, a, b))
        c = {name: r - G[name] for name, r in g(theta).items()}
        return jvp(g, (theta,), (c,))[1]

    parts = [flat(r.sum(0) for r in vmap(product)(a, b).values()) for a, b in chunks(x, y, size, channels_last)]
    return 2 / (n - 1) * sum(parts)


def _mean_gradient(model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool) -> dict[str, Tensor]:
    names, theta = zip(*model.named_parameters(), strict=True)
    parts = [torch.autograd.grad(F.cross_entropy(model(a), b, reduction="sum"), theta)
             for a, b in chunks(x, y, size, channels_last)]  # fmt: skip
    return {name: sum(g) / len(x) for name, g in zip(names, zip(*parts, strict=True), strict=True)}


# --- libraries ----------------------------------------------------------------------------------------------------


_EXTENDED, _GHOST, _SAMPLED = WeakKeyDictionary(), WeakKeyDictionary(), WeakKeyDictionary()


def _copy(model: nn.Module, wrapped: WeakKeyDictionary, wrap: Callable[[nn.Module], Any]) -> Any:
    """The copy of the model that a library has hooked into, made once."""
    if model not in wrapped:
        wrapped[model] = wrap(copy.deepcopy(model))
    return wrapped[model]


def _by_backpack(
    model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool, extension: str, square: Callable
) -> Moments:
    from backpack import backpack, extend, extensions

    model, loss = _copy(model, _EXTENDED, lambda m: (extend(m), extend(nn.CrossEntropyLoss(reduction="sum"))))
    total, squares = 0.0, 0.0
    for a, b in chunks(x, y, size, channels_last):
        model.zero_grad()
        with backpack(getattr(extensions, extension)()):
            loss(model(a), b).backward()
        total = total + flat(p.grad for p in model.parameters())
        squares = squares + sum(square(p) for p in model.parameters())
    return from_squares(total, squares, len(x))


def moments_by_batch_l2(model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool) -> Moments:
    return _by_backpack(model, x, y, size, channels_last, "BatchL2Grad", lambda p: p.batch_l2.sum())


def moments_by_sum_grad_squared(model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool) -> Moments:
    return _by_backpack(model, x, y, size, channels_last, "SumGradSquared", lambda p: p.sum_grad_squared.sum())


def moments_by_opacus_ghost(model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool) -> Moments:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    hooked = _copy(model, _GHOST, lambda m: GradSampleModuleFastGradientClipping(
        m, loss_reduction="sum", use_ghost_clipping=True))  # fmt: skip
    total, squares = 0.0, 0.0
    for a, b in chunks(x, y, size, channels_last):
        hooked.zero_grad()
        F.cross_entropy(hooked(a), b, reduction="sum").backward()
        total = total + flat(p.grad for p in hooked.parameters())
        squares = squares + (hooked.get_norm_sample() ** 2).sum()
    return from_squares(total, squares, len(x))


def moments_by_opacus_rows(model: nn.Module, x: Tensor, y: Tensor, size: int, channels_last: bool) -> Moments:
    from opacus.grad_sample import GradSampleModule

    hooked = _copy(model, _SAMPLED, lambda m: GradSampleModule(m, loss_reduction="sum"))
    total, squares = 0.0, 0.0
    for a, b in chunks(x, y, size, channels_last):
        hooked.zero_grad()
        F.cross_entropy(hooked(a), b, reduction="sum").backward()
        total = total + flat(p.grad_sample.sum(0) for p in hooked.parameters())
        squares = squares + sum(torch.linalg.vector_norm(p.grad_sample) ** 2 for p in hooked.parameters())
    return from_squares(total, squares, len(x))
