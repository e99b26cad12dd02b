"""What a forward pass may change in a model, and the generators it may draw from: compared, and put back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import getclosurevars
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Source = tuple[Callable[[], Any], Callable[[Any], Any]]  # get a generator's state, set it
DEPTH = 3  # of containers, objects and functions in each other that are looked into
LONG = 1000  # entries, of containers that are not
EVERY = frozenset(vars(nn.Module()))  # attributes that each module has


TRIALS = 3  # of a forward pass that seems to draw


Content = tuple[int, float]


@contextmanager
def untouched(*parts: Any, data: list[tuple[Tensor, Content]], passes: Iterable[Callable[[], Any]]) -> Iterator[None]:
    """Parameters, buffers, attributes and generators are left as they were, and an error says what had changed.

    ``parts`` are the model and the loss, ``data`` tensors and their content. ``passes`` compute what may draw. They are
    tried where a generator has moved: other threads may have drawn from it.
    """
    before = _State(list(parts), data[0][0].device)
    error = None
    try:
        yield
    except (ValueError, TypeError) as raised:
        error = raised
    finally:
        drawn, changed = before.restored()
    reason = ""
    if drawn and before.drawn_by(passes):
        reason = ("model or loss is random: it draws numbers (dropout, noise), and their variance would be counted "
                  "as the examples': expected eval() mode, or a fixed mask")  # fmt: skip
    elif changed:
        reason = (f"model or loss changes its state at every call ({', '.join(sorted(changed))}): expected eval() "
                  "mode, or one that stays as it is")  # fmt: skip
    if not reason and any(repr(content(tensor)) != repr(was) for tensor, was in data):  # NaN for NaN
        reason = "model or loss writes into its inputs or targets for some examples only: expected it to work on a copy"
    if reason:
        raise ValueError(reason) from error
    if error is not None:
        raise error


def content(data: Tensor) -> Content:
    """What a write changes: the count of torch's own writes, and a sum."""
    return data._version, data.sum().item()


class _State:
    """The state before a call."""

    def __init__(self, parts: list[Any], device: torch.device) -> None:
        held = _held(parts)
        modules = [value for value in held if isinstance(value, nn.Module)]
        own = [module for module in modules if not type(module).__module__.startswith("torch.")]
        self.attributes = [(vars(module), dict(vars(module))) for module in own]
        self.containers = [(value, value.copy()) for value in held if isinstance(value, list | dict)]
        self.flags = [(module, "training", module.training) for module in modules]
        registries = [registry for module in modules for registry in (module._parameters, module._buffers)]
        self.registered = [(registry, dict(registry.items())) for registry in registries]
        found = {id(tensor): (name, tensor) for _, held in self.registered for name, tensor in held.items()
                 if tensor is not None}  # fmt: skip
        found |= {id(value): (name, value) for module in own for name, value in vars(module).items()
                  if isinstance(value, Tensor)}  # fmt: skip
        leaves = [tensor for _, tensor in found.values() if tensor.is_leaf]
        self.flags += [(tensor, "requires_grad", tensor.requires_grad) for tensor in leaves]
        self.tensors = [(name, tensor, tensor.detach().clone()) for name, tensor in found.values() if _dense(tensor)]
        self.sources = [(get, put, get()) for get, put in _sources(held, device)]

    def restored(self) -> tuple[bool, set[str]]:
        """Put everything back: whether a generator had moved, and the names of the tensors that had changed."""
        drawn = [put(state) for get, put, state in self.sources if not _same(get(), state)]
        changed = self._tensors() | self._registered()
        for attributes, held in self.attributes:
            if attributes.keys() != held.keys() or any(attributes[name] is not held[name] for name in held):
                attributes.clear()
                attributes.update(held)
        for container, held in self.containers:
            if [*map(id, _entries(container))] != [*map(id, _entries(held))]:
                container.clear()
                (container.update if isinstance(container, dict) else container.extend)(held)
        for thing, name, value in self.flags:
            if getattr(thing, name) != value:
                setattr(thing, name, value)
        return bool(drawn), changed

    def drawn_by(self, passes: Iterable[Callable[[], Any]]) -> bool:
        """Whether a generator moves in every trial of one of the passes."""
        return any(all(self._draws(forward) for _ in range(TRIALS)) for forward in passes)

    def _draws(self, forward: Callable[[], Any]) -> bool:
        try:
            with torch.no_grad():
                forward()
        except (ValueError, TypeError):
            return True
        finally:
            drawn, _ = self.restored()
        return drawn

    def _tensors(self) -> set[str]:
        changed = [(name, tensor, value) for name, tensor, value in self.tensors if not _same(tensor.detach(), value)]
        with torch.no_grad():
            for _, tensor, value in changed:
                tensor.detach().copy_(value)
        return {name for name, _, _ in changed}

    def _registered(self) -> set[str]:
        """Names of parameters and buffers that are not the tensors that they were."""
        changed = set()
        for registry, held in self.registered:
            now = dict(registry.items())
            names = {name for name in {*now, *held} if now.get(name) is not held.get(name)}
            for name in names:
                if name in held:
                    registry[name] = held[name]
                else:
                    del registry[name]
            changed |= {name for name in names if not _same(now.get(name), held.get(name))}
        return changed


def _held(parts: list[Any]) -> list[Any]:
    """The parts, and what they hold: modules in each other, and down to a depth what is in lists, tuples and dicts,
    attributes, and what a function is bound to or closes over."""
    found: dict[int, Any] = {}
    stack = [(part, DEPTH) for part in parts]
    while stack:
        thing, depth = stack.pop()
        if id(thing) in found:
            continue
        found[id(thing)] = thing
        if isinstance(thing, nn.Module):
            stack += [(module, depth) for module in thing._modules.values()]
        if depth:
            stack += [(value, depth - 1) for value in _inside(thing)]
    return list(found.values())


def _inside(thing: Any) -> Iterable[Any]:
    """What a thing holds, but for a module's modules and parameters."""
    if isinstance(thing, nn.Module):
        torchs = type(thing).__module__.startswith("torch.")
        return [] if torchs else [value for name, value in vars(thing).items() if name not in EVERY]
    if isinstance(thing, list | tuple | dict):
        return _entries(thing) if len(thing) <= LONG else []
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, MethodType | BuiltinMethodType):
        return [] if isinstance(thing.__self__, ModuleType) else [thing.__self__]
    if isinstance(thing, FunctionType):
        return getclosurevars(thing).nonlocals.values() if thing.__closure__ else []
    return [] if isinstance(thing, Tensor | type | ModuleType) else getattr(thing, "__dict__", {}).values()


def _entries(container: list | tuple | dict) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _sources(held: list[Any], device: torch.device) -> list[Source]:
    """The generators that a forward pass may draw from: torch's, NumPy's, Python's, and those that are held."""
    found: list[Source] = [(torch.get_rng_state, torch.set_rng_state), (np.random.get_state, np.random.set_state),
                           (random.getstate, random.setstate)]  # fmt: skip
    if device.type == "cuda":
        found.append((lambda: torch.cuda.get_rng_state(device), lambda state: torch.cuda.set_rng_state(state, device)))
    for value in held:
        if isinstance(value, torch.Generator):
            found.append((value.get_state, value.set_state))
        elif isinstance(value, random.Random):
            found.append((value.getstate, value.setstate))
        elif isinstance(value, np.random.RandomState):
            found.append((value.get_state, value.set_state))
        elif isinstance(value, np.random.Generator):
            bits = value.bit_generator
            found.append((lambda bits=bits: bits.state, lambda state, bits=bits: setattr(bits, "state", state)))
    return found


def _dense(tensor: Tensor) -> bool:
    """Whether it can be cloned, compared and written into."""
    return tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_nested)


def _bits(a: Tensor) -> Tensor:
    """The same memory as integers, which are compared faster, where it is a multiple of eight bytes."""
    whole = a.is_contiguous() and a.nbytes % 8 == 0 and a.data_ptr() % 8 == 0
    return a.view(-1).view(torch.int64) if whole else a


def _same(a: Any, b: Any) -> bool:
    """Equal states, NaN for NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and (
            torch.equal(*map(_bits, (a, b))) or bool(((a == b) | ((a != a) & (b != b))).all()))  # fmt: skip
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple) and any(isinstance(value, Tensor | np.ndarray) for value in a):
        return len(a) == len(b) and all(map(_same, a, b))
    return a is b or bool(a == b)
