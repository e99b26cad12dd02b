"""What public functions check before they compute: each error names the argument, its value, and what was expected."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

LARGEST = 2**63 - 1  # of the integers that NumPy and torch hold
_BEYOND = (  # what a nested function, or SciPy, says of numbers that have over- or underflowed
    "float64 does not hold", "infs or NaNs", "solver cannot continue", "must have different signs", "must be finite",
    "must be monotonically",
)  # fmt: skip
_P, _R = ParamSpec("_P"), TypeVar("_R")


def array(name: str, value: Any) -> np.ndarray:
    """``value`` as NumPy reads it, or an error that names it; masked entries are no data, and never taken for it."""
    if any(np.ma.is_masked(part) for part in (value if isinstance(value, list | tuple) else [value])):
        raise ValueError(f"{name} has masked entries: expected numbers everywhere (drop or fill them first)")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is ragged: expected rows of equal length") from error
    except (TypeError, RuntimeError, OverflowError) as error:  # a tensor with a graph, or on another device
        raise TypeError(f"{name} is a {type(value).__name__}: expected an array of numbers ({error})") from error


def _floats(name: str, value: Any) -> np.ndarray:
    """``value`` as a finite float64 array, or an error that names it."""
    numbers = array(name, value)
    if numbers.dtype.kind not in "biuf":
        way = next((f" ({name}.{m} gives them)" for m in ("toarray()", "to_numpy(float)")
                    if hasattr(value, m.partition("(")[0])), "")  # fmt: skip
        raise TypeError(f"{name} has dtype {numbers.dtype}: expected real numbers{way}")
    with np.errstate(over="ignore"):  # a longdouble may be larger; then it is named below
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
        raise TypeError(f"{name} = {_short(value)}: expected a real number")
    x = float(scalar)
    bounds = [("> ", above, above is None or x > above), (">= ", low, low is None or x >= low),
              ("< ", below, below is None or x < below), ("<= ", high, high is None or x <= high)]  # fmt: skip
    if not (math.isfinite(x) and all(ok for _, _, ok in bounds)):
        wanted = " and ".join(f"{sign}{bound:g}" for sign, bound, _ in bounds if bound is not None)
        raise ValueError(f"{name} = {_short(value)}: expected a finite number {wanted}".rstrip())
    return x


def integer(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """An integer with ``low <= value <= high`` where given; ``3.0`` and ``True`` are refused.

    Without ``high`` it is one of 64 bits.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} = {_short(value)}: expected an integer")
    if (low is not None and value < low) or (high is not None and value > high):
        wanted = " and ".join(
            s for s in (f">= {low}" if low is not None else "", f"<= {high}" if high is not None else "") if s
        )
        raise ValueError(f"{name} = {_short(value)}: expected an integer {wanted}")
    if high is None and abs(int(value)) > LARGEST:
        raise ValueError(f"{name} = {_short(value)}: expected an integer of 64 bits")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """True or False; ``1`` and ``"yes"`` are refused."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} = {_short(value)}: expected True or False")
    return bool(value)


def text(name: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"{name} = {_short(value)}: expected text")
    return value


def mapping(name: str, value: Any) -> Mapping[Any, Any]:
    """A dictionary, or another mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a {type(value).__name__}: expected a mapping")
    return value


def indices(name: str, value: Any, *, size: int) -> np.ndarray:
    """A non-empty one-dimensional array of integers from 0 to ``size - 1``."""
    vector(name, value)
    found = array(name, value).copy()
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
        raise ValueError(f"{name} = {_short(value)}: expected one of {', '.join(map(repr, options))}")
    return value


def instance(name: str, value: Any, kind: type) -> Any:
    """An object of the class ``kind``; the class itself is none."""
    if isinstance(value, type) or not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise TypeError(f"{name} is {got}: expected an object of the class {kind.__name__}")
    return value


def function(name: str, value: Any, arguments: int | None = None) -> Any:
    """Something that can be called, with so many arguments where a number is given."""
    if not callable(value):
        raise TypeError(f"{name} is a {type(value).__name__}: expected a function")
    if arguments is not None and not _takes(value, arguments):
        raise TypeError(f"{name} takes {inspect.signature(value)}: expected a function of {arguments} arguments")
    return value


def _takes(value: Callable[..., Any], arguments: int) -> bool:
    """Whether it can be called with so many arguments; of what is compiled nothing may be known."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(arguments))
    except TypeError:
        return False
    return True


def items(name: str, value: Any, *, least: int = 1) -> list[Any]:
    """The items of a sequence or another iterable; those of a text or of a mapping are not meant."""
    if isinstance(value, str | bytes | Mapping):
        raise TypeError(f"{name} is a {type(value).__name__}: expected a sequence")
    try:
        found = list(value)
    except TypeError as error:
        raise TypeError(f"{name} is a {type(value).__name__}: expected a sequence") from error
    if len(found) < least:
        raise ValueError(f"{name} is empty: expected at least one item")
    return found


def optional_flag(name: str, value: Any) -> bool | None:
    """True, False or None."""
    return None if value is None else flag(name, value)


def tensor(name: str, value: Any) -> Any:
    """A dense tensor of finite real numbers, not on the device without memory."""
    import torch

    instance(name, value, torch.Tensor)
    if value.layout != torch.strided or value.is_meta or value.is_complex():
        raise TypeError(f"{name} has layout {value.layout} and dtype {value.dtype} on {value.device}: "
                        "expected a dense tensor of real numbers")  # fmt: skip
    if value.is_floating_point() and not torch.isfinite(value).all():
        raise ValueError(f"{name} has an entry that is not finite: expected finite numbers")
    return value


def probabilities(name: str, value: Any, *, size: int | None = None) -> np.ndarray:
    """Positive weights that sum to one, to 1e-12, or to the rounding of a shorter dtype, which is then divided out."""
    p = vector(name, value, size=size)
    if (p <= 0).any():
        raise ValueError(f"{name}[{int(np.argmin(p))}] = {p.min():g}: expected positive probabilities")
    kind = array(name, value).dtype
    short = kind.kind == "f" and kind.itemsize < 8
    if abs(p.sum() - 1) > (p.size * float(np.finfo(kind).eps) if short else 1e-12):
        raise ValueError(f"{name} sums to {p.sum():.16g}: expected 1")
    return p / p.sum() if short else p


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


def in_range(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Of a function of numbers: where float64 over- or underflows, a ValueError names the arguments and their sizes."""
    return _in_range(function, lambda numbers: bool(np.isfinite(numbers).all()))


def in_range_or_infinite(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same of a function whose results may be infinite."""
    return _in_range(function, lambda numbers: not np.isnan(numbers).any())


def _in_range(function: Callable[_P, _R], held: Callable[[np.ndarray], bool]) -> Callable[_P, _R]:
    signature = inspect.signature(function)

    @wraps(function)
    def bounded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                result = function(*args, **kwargs)
        except (OverflowError, ZeroDivisionError, np.linalg.LinAlgError) as error:
            raise ValueError(_beyond(signature.bind(*args, **kwargs).arguments)) from error
        except ValueError as error:
            if not any(words in str(error) for words in _BEYOND):
                raise
            raise ValueError(_beyond(signature.bind(*args, **kwargs).arguments)) from error
        if not _every(held, result):
            raise ValueError(_beyond(signature.bind(*args, **kwargs).arguments))
        return result

    return bounded


def _every(held: Callable[[np.ndarray], bool], result: Any) -> bool:
    """Whether all numbers of a result are held: arrays, and tuples, lists and records of them."""
    if isinstance(result, np.ndarray | float):
        return np.asarray(result).dtype.kind not in "fc" or held(np.asarray(result))
    if is_dataclass(result):
        result = [getattr(result, f.name) for f in fields(result)]
    return all(_every(held, part) for part in result) if isinstance(result, list | tuple) else True


def _beyond(arguments: Mapping[str, Any]) -> str:
    """The numbers among the arguments, with their largest absolute values."""
    sizes = {}
    for name, value in arguments.items():
        with suppress(TypeError, ValueError):
            sizes[name] = float(np.abs(_floats(name, value)).max())
    shown = ", ".join(f"{name} up to {size:.3g}" for name, size in sizes.items()) or ", ".join(arguments)
    return f"{shown}: float64 does not hold the result; expected numbers of other sizes"


def _short(value: Any) -> str:
    """How a value prints, in a line."""
    if isinstance(value, int | np.integer) and abs(int(value)) > 10**40:
        return "an integer of more than 40 digits"
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 80 else shown[:77] + "..."
