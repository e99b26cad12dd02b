"""What public functions check before they compute: each error names the argument, its value, and what was expected."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np


def _floats(name: str, value: Any) -> np.ndarray:
    """``value`` as a finite float64 array, or an error that names it."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is ragged: expected rows of equal length") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {array.dtype}: expected real numbers")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}{list(where) if where else ''} = {array[where]}: expected finite numbers")
    return array


def matrix(name: str, value: Any, *, rows: int | None = None, columns: int | None = None) -> np.ndarray:
    """A finite, non-empty float64 matrix, with the given number of rows and columns where one is given."""
    array = _floats(name, value)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}: expected a non-empty matrix")
    if rows not in (None, array.shape[0]) or columns not in (None, array.shape[1]):
        want = (rows or array.shape[0], columns or array.shape[1])
        raise ValueError(f"{name} has shape {array.shape}: expected {want}")
    return array


def vector(name: str, value: Any, *, size: int | None = None) -> np.ndarray:
    """A finite, non-empty float64 vector, of the given length where one is given."""
    array = _floats(name, value)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: expected a non-empty one-dimensional array")
    if size is not None and array.size != size:
        raise ValueError(f"{name} has shape {array.shape}: expected ({size},)")
    return array


def data(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """A design matrix ``(n, d)`` and one target a row ``(n,)``."""
    X = matrix("X", X)
    return X, vector("y", y, size=X.shape[0])


def number(
    name: str, value: Any, *, above: float | None = None, low: float | None = None,
    below: float | None = None, high: float | None = None,
) -> float:  # fmt: skip
    """A finite float with ``above < value``, ``low <= value``, ``value < below``, ``value <= high`` where given."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.ndim != 0:
        raise TypeError(f"{name} = {value!r}: expected a real number")
    x = float(array)
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
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {array.dtype}: expected integers")
    wrong = (array < 0) | (array >= size)
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(f"{name}[{k}] = {array[k]}: expected an integer, 0 to {size - 1}")
    return array


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """One of ``options``."""
    options = list(options)
    if value not in options:
        raise ValueError(f"{name} = {value!r}: expected one of {', '.join(map(repr, options))}")
    return value


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
