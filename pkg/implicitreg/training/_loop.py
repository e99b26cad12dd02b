"""The loop: steps, looks at the losses, checkpoints, and errors that say where."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from implicitreg import _validate
from implicitreg.training import _checkpoint, _processes
from implicitreg.training._data import Data, resident
from implicitreg.training._history import History, history
from implicitreg.training._task import Loss, Task, forked, held
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

Weights = Callable[[int], tuple[Any, Any]]
Direction = Callable[[nn.Module, Loss, Tensor, Tensor, int], Tensor]
Schedule = Callable[[int], float] | Mapping[int, float]

IMAGES, VECTORS, ON_CUDA = 100, 1000, 10_000  # examples in a chunk
EITHER = {torch.float32, torch.float64}
MAX_STEPS = 100_000_000  # a day at a millisecond a step
PRECISIONS = {None: EITHER, "float32": {torch.float32}, "float64": {torch.float64}, "bfloat16": {torch.float32}}


def run(
    model: nn.Module, train: Any, test: Any = None, *, weights: Weights | None = None,
    direction: Direction | None = None, eta: float, steps: int, loss: Loss | None = None, seed: int = 0,
    schedule: Schedule | None = None, chunk: int | None = None, device: str = "auto", precision: str | None = None,
    evaluate_every: int | None = None, checkpoint: str | Path | None = None, checkpoint_every: int | None = None,
    progress: bool = True, timeout: float = 60.0, settings: Mapping[str, Any] | None = None,
) -> History:  # fmt: skip
    r"""Train a model, in place, with weights that are given: :math:`\theta - \eta_t \sum_i W_i \nabla\ell_i(\theta)`.

    `implicitreg.noise.msgd.train` is this function with weights by their names, and says more of the arguments that
    both have.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters of one dtype, float32 or float64; moved to the device, and trained in place.
    train, test : (inputs, targets)
        Arrays or tensors, (n, ...) each; inputs are floats, or uint8 images, which stand for numbers from 0 to 1.
    weights : callable
        ``weights(step)``, for steps from 0, gives the indices (m,) of the examples whose weight is not zero, and their
        weights (m,). Every process calls it, and must get the same.
    direction : callable
        In place of weights: ``direction(model, loss, inputs, targets, step)`` gives the vector (p,) that takes the
        place of the gradient, in the order of the parameters with ``requires_grad``. One process only.
    eta, steps, loss, seed, schedule, chunk, device, precision
        As in `implicitreg.noise.msgd.train`.
    evaluate_every, checkpoint, checkpoint_every, progress, timeout
        As in `implicitreg.noise.msgd.train`.
    settings : mapping, optional
        What else the history shall name, and a checkpoint insist on; JSON values.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError, FloatingPointError, OSError, torch.OutOfMemoryError
        As `implicitreg.noise.msgd.train`.

    Examples
    --------
    Two examples with losses (θ − 1)²/2 and (θ − 3)²/2, and all the weight on the second:

    >>> model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = nn.init.zeros_(model.weight)
    >>> x, y = torch.ones(2, 1), torch.tensor([1.0, 3.0])
    >>> half_square = lambda outputs, y: (outputs[:, 0] - y) ** 2 / 2
    >>> h = run(model, (x, y), weights=lambda t: ([1], [1.0]), eta=1.0, steps=1, loss=half_square, progress=False)
    >>> model.weight.item(), h.train_loss.tolist()
    (3.0, [2.5, 1.0])
    """
    timeout, progress = _validate.number("timeout", timeout, above=0), _validate.flag("progress", progress)
    settings = {} if settings is None else _validate.mapping("settings", settings)
    steps, eta = _validate.integer("steps", steps, low=1, high=MAX_STEPS), _validate.number("eta", eta, above=0)
    seed = _validate.integer("seed", seed, low=0, high=2**64 - 1)
    every = _every("evaluate_every", evaluate_every, -(-steps // 10))
    saving = _Saving(Path(checkpoint), _every("checkpoint_every", checkpoint_every, every)) if checkpoint else None
    if (weights is None) == (direction is None):
        raise TypeError("expected either weights or direction, and not both")
    for name, function, count in (("weights", weights, 1), ("direction", direction, 5), ("loss", loss, 2)):
        if function is not None:
            _validate.function(name, function, count)
    where = _processes.device(device)
    dtype = _checked(model, precision)
    _warn_of_batch_norm(model)
    data = resident("train", train, dtype, where)
    model.to(device=where, memory_format=data.layout)
    tests = None if test is None else resident("test", test, dtype, where)
    processes = _processes.joined(where, timeout)
    with forked(where) as generators:
        task = Task(model, loss or partial(F.cross_entropy, reduction="none"), data, tests,
                     _chunk(chunk, data, where), precision == "bfloat16", processes, generators, seed)  # fmt: skip
        if direction and processes.size > 1:
            raise ValueError(f"{processes.size} processes with direction: expected one, or weights")
        task.try_one(loss is None)
        course = {**settings, "eta": eta, "seed": seed, "precision": precision or str(dtype)[6:],
                  "loss": _name(task.loss)}  # fmt: skip
        shown = {**course, "schedule": _plain(schedule), "n": len(data), "steps": steps, "chunk": task.chunk,
                 "device": _words(where), "processes": processes.size}  # fmt: skip
        loop = _Loop(task, weights, direction, eta, _factor(schedule), every, saving, course)
        return history(loop.run(steps, progress), shown)


@dataclass(frozen=True)
class _Saving:
    path: Path
    every: int


@dataclass(eq=False)
class _Loop:
    """The steps, and what happens between them."""

    task: Task
    weights: Weights | None
    direction: Direction | None
    eta: float
    factor: Callable[[int], float]
    every: int
    saving: _Saving | None
    course: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.read = 0  # the weighted losses of the steps from here on have not been read
        self.sums = torch.empty(0)

    def run(self, steps: int, progress: bool) -> list[dict[str, float]]:
        task, start = self.task, self.resume(steps)
        task.wrapped = task.processes.wrapped(task.model, task.device)
        self.sums = torch.zeros(min(self.every, steps), dtype=task.train.dtype, device=task.device)
        self.read = start
        everything = task.train.take(slice(None)) if self.direction else None
        shown = progress and task.processes.first
        try:
            for t in tqdm(range(start, steps), "train", steps, initial=start, disable=not shown, unit="step"):
                if t % self.every == 0:
                    self.look(t)
                self.step(t, everything)
                if self.saving and (t + 1) % self.saving.every == 0 and t + 1 < steps:
                    self.save(t + 1)
            self.look(steps)
            self.save(steps)
        finally:
            task.forget()
        return self.rows

    def step(self, t: int, everything: tuple[Tensor, Tensor] | None) -> None:
        task, eta = self.task, self.eta * self.factor(t)
        task.reseed(t)
        task.forget()
        with self.explained(f"in step {t}"):
            if everything is not None:
                task.direct(self.direction(task.model, task.loss, *everything, t))
            else:
                found = self.weights(t)
                if not isinstance(found, tuple | list) or len(found) != 2:
                    raise TypeError(f"weights({t}) is a {type(found).__name__}: expected a pair (indices, weights)")
                self.sums[t - self.read] = task.weighted(*found)
        task.update(eta)
        if t + 1 - self.read == len(self.sums):
            self.check(t + 1)

    def check(self, t: int) -> None:
        """Read the weighted losses of the steps before t: the first that is no number ends the run."""
        sums = self.task.processes.sum(self.sums[: t - self.read].clone())
        bad = torch.isfinite(sums).logical_not_().nonzero()
        if len(bad):
            self.fail("the loss", float(sums[bad[0, 0]]), self.read + int(bad[0, 0]))
        self.read = t

    def fail(self, what: str, value: float, t: int) -> None:
        kept = f"; {self.saving.path} holds an earlier state" if self.saving and self.saving.path.exists() else ""
        raise FloatingPointError(f"{what} is {value} at step {t}, with eta = {self.eta:g}: expected finite numbers; "
                                 f"a smaller eta may help{kept}")  # fmt: skip

    def look(self, t: int) -> None:
        if self.rows and self.rows[-1]["step"] == t:
            return
        self.check(t)
        with self.explained(f"in the evaluation after step {t}"):
            row = self.task.look()
        for name, value in row.items():
            if not math.isfinite(value):
                self.fail(name.replace("_", " "), value, t)
        self.rows.append({"step": t, **row})

    @contextmanager
    def explained(self, where: str) -> Iterator[None]:
        """Errors, with where they happened and what may help."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            size = self.task.chunk
            raise torch.OutOfMemoryError(f"chunk = {size} examples at a time do not fit into the memory of the device: "
                                         f"try chunk = {max(1, size // 2)} ({error})") from error  # fmt: skip
        except Exception as error:
            error.add_note(f"{where}, with eta = {self.eta:g}; a smaller eta may help where numbers are not finite")
            raise

    # --- checkpoints

    def save(self, t: int) -> None:
        if self.saving is None:
            return
        self.check(t)
        arrays = {f"model/{name}": tensor.detach().cpu().numpy() for name, tensor in held(self.task.model).items()}
        for name, array in arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                self.fail(name.removeprefix("model/"), float(array[~np.isfinite(array)][0]), t)
        curves = {key: np.array([row[key] for row in self.rows]) for key in self.rows[0]}
        arrays |= {f"history/{key}": values for key, values in curves.items()}
        self.write(arrays, {"step": t, "identity": self.identity(t)})

    def write(self, arrays: Mapping[str, np.ndarray], note: Mapping[str, Any]) -> None:
        """By the first process; the others wait for it, and fail with it."""
        processes, error = self.task.processes, None
        if processes.first:
            try:
                _checkpoint.save(self.saving.path, arrays, note)
            except OSError as failure:
                error = failure
        failed = processes.sum(torch.tensor(error is not None, dtype=torch.int64, device=self.task.device))
        if processes.size > 1 and failed:
            error = error or OSError(None, "checkpoint cannot be written by the first process", str(self.saving.path))
        if error:
            raise error

    def resume(self, steps: int) -> int:
        """The step at which to go on, the same in all processes."""
        t = self.read_file(steps) if self.saving and self.saving.path.exists() else 0
        processes = self.task.processes
        if processes.size > 1 and processes.sum(torch.tensor(t, device=self.task.device)) != processes.size * t:
            raise ValueError(f"checkpoint {self.saving and self.saving.path} is not the same for all processes: "
                             "expected a folder that all of them see")  # fmt: skip
        return t

    def read_file(self, steps: int) -> int:
        """The model, the history and the step of the file."""
        path = self.saving.path
        arrays, note = _checkpoint.load(path)
        t = int(note["step"])
        _checkpoint.compare(path, note["identity"], self.identity(t))
        if t > steps:
            raise ValueError(f"checkpoint {path} is at step {t}: expected steps >= {t}, got steps = {steps}")
        with torch.no_grad():
            for name, tensor in held(self.task.model).items():
                tensor.copy_(torch.from_numpy(arrays[f"model/{name}"]))
        curves = {key.removeprefix("history/"): a.tolist() for key, a in arrays.items() if key.startswith("history/")}
        rows = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
        self.rows = [row for row in rows if row["step"] % self.every == 0]  # as if it had not stopped
        return t

    def identity(self, t: int) -> dict[str, Any]:
        """What must be equal for a run to go on at step t."""
        shapes = {f"shape of {name}": [*tensor.shape] for name, tensor in held(self.task.model).items()}
        factors = np.array([self.factor(s) for s in range(t)])
        return {**self.course, **shapes, **self.prints, f"schedule to step {t}": _checkpoint.digest({"": factors})}

    @cached_property
    def prints(self) -> dict[str, str | None]:
        data = {"training examples": self.task.train, "test examples": self.task.test}
        return {name: part.fingerprint() if part else None for name, part in data.items()}


# --- the model and the device -------------------------------------------------------------------------------


def _checked(model: Any, precision: Any) -> torch.dtype:
    """The dtype of the parameters."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}: expected a torch.nn.Module")
    if not (precision is None or isinstance(precision, str)) or precision not in PRECISIONS:
        raise ValueError(f"precision = {precision!r}: expected 'float32', 'float64', 'bfloat16' or None")
    dtypes = {p.dtype for p in model.parameters()}
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("model has no parameters with requires_grad: expected at least one")
    expected = PRECISIONS[precision]
    if len(dtypes) != 1 or not dtypes <= expected:
        found, names = (", ".join(sorted(str(d)[6:] for d in some)) for some in (dtypes, expected))
        raise ValueError(f"model has parameters of {found}, precision = {precision!r}: expected one of {names}")
    return dtypes.pop()


def _warn_of_batch_norm(model: nn.Module) -> None:
    if any(isinstance(module, _BatchNorm) and module.training for module in model.modules()):
        warnings.warn(
            "the model normalises with statistics of the batch: examples interact, the gradient of a batch is no sum "
            "of the examples' gradients, and what is said of the noise's covariance does not hold",
            stacklevel=4,
        )


def _chunk(chunk: int | None, data: Data, device: torch.device) -> int:
    if chunk is not None:
        return _validate.integer("chunk", chunk, low=1)
    return ON_CUDA if device.type == "cuda" else IMAGES if data.inputs.ndim == 4 else VECTORS


def _words(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


# --- settings -----------------------------------------------------------------------------------------------


def _every(name: str, value: int | None, default: int) -> int:
    return default if value is None else _validate.integer(name, value, low=1)


def _factor(schedule: Schedule | None) -> Callable[[int], float]:
    """The factor of the learning rate at a step."""
    if schedule is None:
        return lambda step: 1.0
    if callable(schedule):
        _validate.function("schedule", schedule, 1)
        return lambda step: _validate.number(f"schedule({step})", schedule(step), low=0)
    if not isinstance(schedule, Mapping):
        raise TypeError(f"schedule = {schedule!r}: expected a callable or a mapping step -> factor")
    table = sorted((_validate.integer("a step of schedule", s, low=0),
                    _validate.number(f"schedule[{s}]", f, low=0)) for s, f in schedule.items())  # fmt: skip
    return lambda step: next((f for s, f in reversed(table) if s <= step), 1.0)


def _plain(schedule: Schedule | None) -> Any:
    if isinstance(schedule, Mapping):
        return {str(s): float(f) for s, f in sorted(schedule.items())}
    return None if schedule is None else _name(schedule)


def _name(function: Any) -> str:
    inner = function.func if isinstance(function, partial) else function
    return getattr(inner, "__qualname__", type(inner).__qualname__)
