"""What public functions check before they compute: each error names the argument, its value, and what was expected."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np


def array(name: str, value: Any) -> np.ndarray:
    """``value`` as NumPy reads it, or an error that names it; masked entries are no data, and never taken for it."""
    if any(np.ma.is_masked(part) for part in (value if isinstance(value, list | tuple) else [value])):
        raise ValueError(f"{name} has masked entries: expected numbers everywhere (drop or fill them first)")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is ragged: expected rows of equal length") from error
    except (TypeError, RuntimeError) as error:  # a tensor with a graph, or on another device
        raise TypeError(f"{name} is a {type(value).__name__}: expected an array of numbers ({error})") from error


def _floats(name: str, value: Any) -> np.ndarray:
    """``value`` as a finite float64 array, or an error that names it."""
    numbers = array(name, value)
    if numbers.dtype.kind not in "biuf":
        way = next((f" ({name}.{m} gives them)" for m in ("toarray()", "to_numpy(float)")
                    if hasattr(value, m.partition("(")[0])), "")  # fmt: skip
        raise TypeError(f"{name} has dtype {numbers.dtype}: expected real numbers{way}")
    numbers = numbers.astype(np.float64)
    if not np.isfinite(numbers).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(numbers))[0])
        raise ValueError(f"{name}{list(where) if where else ''} = {numbers[where]}: expected finite numbers")
    return numbers


def matrix(name: str, value: Any, *, rows: int | None = None, columns: int | None = None) -> np.ndarray:
    """A finite, non-empty float64 matrix, with the given number of rows and columns where one is given."""
    M = _floats(name, value)
    if M.ndim != 2 or 0 in M.shape:
        raise ValueError(f"{name} has shape {M.shape}: expected a non-empty matrix")
    if rows not in (None, M.shape[0]) or columns not in (None, M.shape[1]):
        raise ValueError(f"{name} has shape {M.shape}: expected {(rows or M.shape[0], columns or M.shape[1])}")
    return M


def vector(name: str, value: Any, *, size: int | None = None) -> np.ndarray:
    """A finite, non-empty float64 vector, of the given length where one is given."""
    v = _floats(name, value)
    if v.ndim != 1 or v.size == 0:
        raise ValueError(f"{name} has shape {v.shape}: expected a non-empty one-dimensional array")
    if size is not None and v.size != size:
        raise ValueError(f"{name} has shape {v.shape}: expected ({size},)")
    return v


def data(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """A design matrix ``(n, d)`` and one target a row ``(n,)``."""
    X = matrix("X", X)
    return X, vector("y", y, size=X.shape[0])


def number(
    name: str, value: Any, *, above: float | None = None, low: float | None = None,
    below: float | None = None, high: float | None = None,
) -> float:  # fmt: skip
    """A finite float with ``above < value``, ``low <= value``, ``value < below``, ``value <= high`` where given."""
    scalar = array(name, value)
    if scalar.dtype.kind not in "iuf" or scalar.ndim != 0:
        raise TypeError(f"{name} = {value!r}: expected a real number")
    x = float(scalar)
    bounds = [("> ", above, above is None or x > above), (">= ", low, low is None or x >= low),
              ("< ", below, below is None or x < below), ("<= ", high, high is None or x <= high)]  # fmt: skip
    if not (math.isfinite(x) and all(ok for _, _, ok in bounds)):
        wanted = " and ".join(f"{sign}{bound:g}" for sign, bound, _ in bounds if bound is not None)
        raise ValueError(f"{name} = {value!r}: expected a finite number {wanted}".rstrip())
    return x


def integer(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """An integer with ``low <= value <= high`` where given; ``3.0`` and ``True`` are refused."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} = {value!r}: expected an integer")
    if (low is not None and value < low) or (high is not None and value > high):
        wanted = " and ".join(
            s for s in (f">= {low}" if low is not None else "", f"<= {high}" if high is not None else "") if s
        )
        raise ValueError(f"{name} = {value!r}: expected an integer {wanted}")
    return int(value)


def indices(name: str, value: Any, *, size: int) -> np.ndarray:
    """A non-empty one-dimensional array of integers from 0 to ``size - 1``."""
    vector(name, value)
    found = np.array(value)
    if found.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {found.dtype}: expected integers")
    wrong = (found < 0) | (found >= size)
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(f"{name}[{k}] = {found[k]}: expected an integer, 0 to {size - 1}")
    return found


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """One of ``options``."""
    options = list(options)
    if not (isinstance(value, str) and value in options):
        raise ValueError(f"{name} = {value!r}: expected one of {', '.join(map(repr, options))}")
    return value


def instance(name: str, value: Any, kind: type) -> Any:
    """An object of the class ``kind``; the class itself is none."""
    if isinstance(value, type) or not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise TypeError(f"{name} is {got}: expected an object of the class {kind.__name__}")
    return value


def function(name: str, value: Any) -> Any:
    """Something that can be called."""
    if not callable(value):
        raise TypeError(f"{name} is a {type(value).__name__}: expected a function")
    return value


def items(name: str, value: Any, *, least: int = 1) -> list[Any]:
    """The items of a sequence or another iterable."""
    try:
        found = list(value)
    except TypeError as error:
        raise TypeError(f"{name} is a {type(value).__name__}: expected a sequence") from error
    if len(found) < least:
        raise ValueError(f"{name} is empty: expected at least one item")
    return found


def probabilities(name: str, value: Any, *, size: int | None = None) -> np.ndarray:
    """Positive weights that sum to one (to 1e-12)."""
    p = vector(name, value, size=size)
    if (p <= 0).any():
        raise ValueError(f"{name}[{int(np.argmin(p))}] = {p.min():g}: expected positive probabilities")
    if abs(p.sum() - 1) > 1e-12:
        raise ValueError(f"{name} sums to {p.sum():.16g}: expected 1")
    return p


def spd(name: str, value: Any, *, size: int) -> np.ndarray:
    """A symmetric positive definite ``(size, size)`` matrix."""
    M = matrix(name, value, rows=size, columns=size)
    asymmetry = float(np.abs(M - M.T).max())
    if asymmetry > 1e-12 * float(np.abs(M).max()):
        raise ValueError(f"{name} differs from its transpose by {asymmetry:.1e}: expected a symmetric matrix")
    smallest = float(np.linalg.eigvalsh(M)[0])
    if smallest <= 0:
        raise ValueError(f"{name} has the eigenvalue {smallest:g}: expected a positive definite matrix")
    return M
