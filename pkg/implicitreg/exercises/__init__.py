"""Self-checks for the book's exercises: right or wrong and a hint, never the answer.

Nothing here stores an answer. A value is compared with a reference that is computed on the spot, a function with a
reference function on random inputs drawn from a fixed seed.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from implicitreg import _console

__all__ = ["Exercise", "check", "labels"]

SEED, TRIALS = 20, 5


@dataclass(frozen=True)
class Exercise:
    """How one answer is judged.

    Attributes
    ----------
    reference : callable
        Computes the answer: of no arguments for a value, of the drawn inputs for a function.
    hint : str
        Said after a wrong answer.
    draw : callable, optional
        ``draw(rng)`` gives the inputs on which an answer that is a function is tried.
    judge : callable, optional
        ``judge(answer, reference, *inputs) -> bool`` where equality is not the question; by default the two
        agree to a relative 1e-8.
    """

    reference: Callable[..., Any]
    hint: str
    draw: Callable[[np.random.Generator], tuple[Any, ...]] | None = None
    judge: Callable[..., bool] | None = None


def check(label: str, answer: Any) -> bool:
    """Judge an answer: print right or wrong and a hint, and return whether it is right.

    An answer that is still ``...`` or ``None`` (or a function that returns them) is "not answered yet", which is no
    error: a chapter runs whole before its reader has done the exercises.

    Parameters
    ----------
    label : str
        The exercise's label, e.g. ``"minnorm-start"``.
    answer : number, array or callable
        What the exercise asks for.

    Raises
    ------
    ValueError
        If there is no exercise of that label.
    ModuleNotFoundError
        If the exercises of its chapter need PyTorch, and it is not installed.

    Examples
    --------
    >>> check("minnorm-penalty", ...)
    minnorm-penalty: not answered yet
    False
    >>> check("minnorm-penalty", lambda alpha, n: n * alpha)
    minnorm-penalty: right
    True
    """
    exercise = _find(label)
    try:
        verdict = _judge(exercise, answer)
    except Exception as error:  # a reader's function may raise anything: say so, and let the chapter go on
        verdict = f"your function raised {type(error).__name__}: {error}"
    if verdict == "wrong":
        verdict = f"not yet. Hint: {exercise.hint}"
    _console.show(f"{label}: {verdict}")
    return verdict == "right"


def labels() -> list[str]:
    """The labels of all exercises that can be checked; those that need PyTorch only where it is installed."""
    found: list[str] = []
    for module in pkgutil.iter_modules(__path__):
        try:
            found += _chapter(module.name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
    return sorted(found)


def _chapter(name: str) -> dict[str, Exercise]:
    return importlib.import_module(f"{__name__}.{name}").EXERCISES


def _find(label: str) -> Exercise:
    """A label begins with the name of its chapter's module, so that a chapter loads no other's."""
    name = str(label).partition("-")[0]
    known = _chapter(name) if name in {m.name for m in pkgutil.iter_modules(__path__)} else {}
    if label not in known:
        raise ValueError(f"label = {label!r}: expected one of {', '.join(sorted(known) or labels())}")
    return known[label]


def _judge(exercise: Exercise, answer: Any) -> str:
    if answer is None or answer is ...:
        return "not answered yet"
    if exercise.draw is None:
        return _compare(exercise, answer, ())
    if not callable(answer):
        return f"expected a function, got {type(answer).__name__}"
    rng = np.random.default_rng(SEED)
    for _ in range(TRIALS):
        inputs = exercise.draw(rng)
        verdict = _compare(exercise, answer(*(np.copy(i) if isinstance(i, np.ndarray) else i for i in inputs)), inputs)
        if verdict != "right":
            return verdict
    return "right"


def _compare(exercise: Exercise, answer: Any, inputs: tuple[Any, ...]) -> str:
    if answer is None or answer is ...:
        return "not answered yet"
    truth = np.asarray(exercise.reference(*inputs), dtype=float)
    given = np.asarray(answer)
    if given.dtype.kind not in "biuf":
        return f"expected numbers, got {type(answer).__name__}"
    if given.shape != truth.shape:
        return f"expected shape {truth.shape}, got {given.shape}"
    judge = exercise.judge or _close
    return "right" if judge(given.astype(float), truth, *inputs) else "wrong"


def _close(answer: np.ndarray, truth: np.ndarray, *_: Any) -> bool:
    return bool(np.isfinite(answer).all() and np.abs(answer - truth).max() <= 1e-8 * max(1.0, np.abs(truth).max()))
