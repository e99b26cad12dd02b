"""Self-checks for the book's exercises: right or wrong and a hint, never the answer.

Nothing here stores an answer. A value is compared with a reference that is computed on the spot, a function with a
reference function on random inputs drawn from a fixed seed.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from implicitreg import _console

__all__ = ["Exercise", "Verdict", "check", "grade", "labels"]

SEED, TRIALS = 20, 20
TOLERANCE, NEAR = 1e-8, 1e-4


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
    error : callable, optional
        ``error(answer, reference, *inputs) -> float``, how far a finite answer is from right; by default the largest
        relative error of an entry, as `check` says. Inf where it is no answer at all.
    tolerance : float, optional
        The largest error of a right answer.
    trials : int, optional
        How many inputs are drawn. An answer that is an index or a yes or no needs more of them than a number.
    """

    reference: Callable[..., Any]
    hint: str
    draw: Callable[[np.random.Generator], tuple[Any, ...]] | None = None
    error: Callable[..., float] | None = None
    tolerance: float = TOLERANCE
    trials: int = TRIALS


@dataclass(frozen=True)
class Verdict:
    """What `grade` says; true in a condition if and only if the answer is right.

    Attributes
    ----------
    label : str
        The exercise.
    right : bool
        Whether the answer is right.
    says : str
        What `check` prints behind the label: "right", "not answered yet", a hint, or what is amiss.
    """

    label: str
    right: bool
    says: str

    def __bool__(self) -> bool:
        return self.right


def check(label: str, answer: Any) -> bool:
    """Judge an answer: print right or wrong and a hint, and return whether it is right.

    Numbers are right if each entry agrees with the reference to 1e-8 of that entry, ``|a - t| <= 1e-8 |t|``; where
    ``t = 0``, to 1e-8 of the largest entry of ``t``, or of 1 if all are 0. An exercise that asks for fewer digits says
    so. An answer that is still ``...`` or ``None`` (or a function that returns them) is "not answered yet", which is no
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
        If there is no exercise of that label; the nearest are named.
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
    >>> check("minnorm-penalty", lambda alpha, n: n * alpha * 1.000001)
    minnorm-penalty: not yet: right to 1e-6, and 1e-8 is asked
    False
    """
    verdict = grade(label, answer)
    _console.show(f"{label}: {verdict.says}")
    return verdict.right


def grade(label: str, answer: Any) -> Verdict:
    """Judge an answer like `check`, and print nothing: for a program that grades.

    Parameters and errors are those of `check`. An answer that never ends is not stopped: give each student's answers a
    process with a time limit.

    Returns
    -------
    Verdict
        ``right``, and in ``says`` what `check` would print.

    Examples
    --------
    >>> verdict = grade("minnorm-penalty", lambda alpha, n: 2 * n * alpha)
    >>> verdict.right, verdict.says[:13]
    (False, 'not yet. Hint')
    """
    exercise = _find(label)
    try:
        says = _judge(exercise, answer)
    except _Unfit as unfit:
        says = str(unfit)
    return Verdict(label, says == "right", says)


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


def _relative_error(answer: np.ndarray, reference: np.ndarray, *_: Any) -> float:
    """The largest relative error of an entry; of an entry 0, in units of the largest entry, or of 1 if all are 0."""
    size = np.abs(reference)
    unit = np.where(size > 0, size, size.max(initial=0.0) or 1.0)
    return float((np.abs(answer - reference) / unit).max(initial=0.0))


class _Unfit(Exception):
    """The answer cannot be judged; the reason, in words for the reader."""


def _chapter(name: str) -> dict[str, Exercise]:
    return importlib.import_module(f"{__name__}.{name}").EXERCISES


def _find(label: str) -> Exercise:
    """A label begins with the name of its chapter's module, so that a chapter loads no other's."""
    name = str(label).partition("-")[0]
    known = _chapter(name) if name in {m.name for m in pkgutil.iter_modules(__path__)} else {}
    if str(label) not in known:
        near = difflib.get_close_matches(str(label), known or labels(), n=3, cutoff=0.0)
        raise ValueError(f"label = {label!r}: expected the label of an exercise, such as {', '.join(map(repr, near))}")
    return known[label]


def _judge(exercise: Exercise, answer: Any) -> str:
    if answer is None or answer is ...:
        return "not answered yet"
    if exercise.draw is None:
        if callable(answer):
            raise _Unfit("expected a value, got a function")
        return _verdict(exercise, _error(exercise, answer, ()), answer)
    if not callable(answer):
        raise _Unfit(f"expected a function, got {type(answer).__name__}")
    rng, worst, value = np.random.default_rng(SEED), 0.0, None
    for _ in range(exercise.trials):
        inputs = exercise.draw(rng)
        value = _called(answer, inputs)
        if value is None or value is ...:
            return "not answered yet"
        worst = max(worst, _error(exercise, value, inputs))
        if worst > max(NEAR, exercise.tolerance):
            break
    return _verdict(exercise, worst, value)


def _called(answer: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
    """Arrays are copied: the reference sees what was drawn."""
    try:
        return answer(*(np.copy(i) if isinstance(i, np.ndarray) else i for i in inputs))
    except (Exception, SystemExit) as error:  # a reader's function may raise anything, and the chapter goes on
        raise _Unfit(f"your function raised {type(error).__name__}: {error}") from error


def _error(exercise: Exercise, answer: Any, inputs: tuple[Any, ...]) -> float:
    given = _numbers(answer)
    with np.errstate(all="ignore"):  # whatever a reader has set, and however large the answer
        truth = np.asarray(exercise.reference(*inputs), dtype=float)
        if given.shape != truth.shape:
            raise _Unfit(f"expected {_form(truth)}, got {_form(given)}")
        if not np.isfinite(given).all():
            return np.inf
        error = float((exercise.error or _relative_error)(given, truth, *inputs))
    return np.inf if np.isnan(error) else error


def _form(array: np.ndarray) -> str:
    return f"shape {array.shape}" if array.ndim else "one number"


def _verdict(exercise: Exercise, error: float, answer: Any) -> str:
    if error <= exercise.tolerance:
        return "right"
    says = f"not yet: right to {_power(error)}, and {_power(exercise.tolerance)} is asked"
    if error > NEAR:
        says = f"not yet. Hint: {exercise.hint}"
    return says + (" (Compute in float64.)" if np.asarray(answer).dtype in (np.float32, np.float16) else "")


def _power(x: float) -> str:
    """One digit, as one writes it: 3e-7."""
    return f"{x:.0e}".replace("e-0", "e-")


def _numbers(answer: Any) -> np.ndarray:
    """An answer as float64, or what it is instead of real numbers."""
    try:
        masked, given = np.ma.is_masked(answer), np.asarray(answer)
    except ValueError:
        raise _Unfit("expected rows of equal length, got a ragged list") from None
    except (Exception, SystemExit) as error:  # a tensor that needs its gradient, an array on another device
        raise _Unfit(f"expected numbers, got {type(answer).__name__}: {error}") from error
    if masked:
        raise _Unfit("expected numbers, got an array with masked entries")
    if given.dtype.kind == "c":
        raise _Unfit("expected real numbers, got complex ones; is .real meant?")
    if given.dtype.kind == "O":
        return np.reshape([_number(x) for x in given.flat], given.shape)
    if given.dtype.kind not in "biuf":
        raise _Unfit(f"expected numbers, got {type(answer).__name__}")
    return given.astype(float)


def _number(exact: Any) -> float:
    """A fraction, a long integer or a closed expression as float64."""
    if exact is None or exact is ...:
        raise _Unfit("not answered yet: a part of it is missing")
    try:
        if isinstance(exact, str | bytes):
            raise TypeError
        return float(exact)
    except OverflowError:
        raise _Unfit("expected numbers that float64 can hold, got a larger one") from None
    except (TypeError, ValueError):
        raise _Unfit(f"expected numbers, got {type(exact).__name__}") from None
    except (Exception, SystemExit) as error:  # a number of the reader's own class may raise anything
        raise _Unfit(f"expected numbers, got {type(exact).__name__}: {type(error).__name__}: {error}") from error
