"""Checks that can fail: one line a claim, with the measurement, the prediction, and what a mistake would give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from implicitreg import _console, _validate

__all__ = ["MIN_SEPARATION", "CheckFailed", "NotFinite", "check", "rate", "record", "say"]

MIN_SEPARATION = 5.0
"""A Monte-Carlo check must place the mistaken formula at least this many standard errors from the measurement."""


class CheckFailed(AssertionError):
    """A measurement that disagrees with the claim, or that could not have told the claim from a mistake."""


class NotFinite(CheckFailed, ValueError):
    """A measurement that is infinite or no number: it agrees with nothing."""


def check(
    claim: str,
    *,
    measured: Any,
    says: str | None = None,
    predicted: Any = None,
    below: Any = None,
    above: Any = None,
    atol: float | None = None,
    rtol: float | None = None,
    sigmas: float | None = None,
    se: Any = None,
    wrong: Any = None,
) -> None:
    r"""Compare a measurement with a claim, print one line, and raise if they disagree.

    **Equality**, ``predicted``: with :math:`\Delta = \max_i |m_i - p_i|` the claim holds if

    * ``atol``: :math:`\Delta \le \mathrm{atol}`;
    * ``rtol``: :math:`\Delta \le \mathrm{rtol}\,\max_i |p_i|`;
    * ``sigmas``: :math:`\max_i |m_i - p_i| / \mathrm{se}_i \le \mathrm{sigmas}`.

    Give exactly one of the three.

    **Inequality**, ``below`` (or ``above``, with the signs turned; or both): :math:`m_i \le b_i` for all i, up to
    ``atol`` or ``rtol`` (by default to nothing); with ``sigmas`` it must hold with that many standard errors to spare,
    :math:`m_i + \mathrm{sigmas}\,\mathrm{se}_i \le b_i`.

    ``wrong``, a mistaken formula's prediction or bound, must be told apart by the *measurement*: it must miss the same
    tolerance, or, with ``sigmas``, lie at least five standard errors away.

    Parameters
    ----------
    claim : str
        The id of the claim in the ledger, ``book/claims.yml``.
    measured : array_like
        A number or an array, not empty.
    says : str, optional
        The claim in words, for the printed line; by default its id.
    predicted, below, above : array_like
        What the claim says of it: numbers, or arrays of the shape of ``measured``.
    atol, rtol, sigmas : float, optional
        The tolerance, positive.
    se : array_like, optional
        Standard errors of ``measured``, positive; needed by ``sigmas`` and only by it.
    wrong : array_like, optional
        What the printed, or an easily mistaken, formula gives in place of the prediction or of the bound.

    Raises
    ------
    CheckFailed
        If the claim is missed, the mistaken one is not, or a measurement is not finite (then also a ValueError).
    TypeError
        If an argument is not made of real numbers.
    ValueError
        If the arguments make no check: no prediction and no bound, no tolerance or two, shapes that differ, a
        prediction, bound or mistaken value that is not finite.

    Examples
    --------
    >>> check("pythagoras", says="the hypotenuse", measured=np.hypot(3, 4), predicted=5, rtol=1e-12, wrong=3 + 4)
    ok    the hypotenuse: measured 5, predicted 5, off by 0.0e+00 (allowed 5.0e-12); the mistaken 7 is off by 2
    >>> check("triangle", says="shorter than the detour", measured=np.hypot([3, 5], [4, 12]), below=[7, 17], wrong=5)
    ok    shorter than the detour: measured 5 at [0], at most 7; the mistaken 5 is exceeded by 8 at [1]
    """
    line = _compare(claim, says, measured, predicted, below, above, atol, rtol, sigmas, se, wrong)
    _console.show(f"ok    {line}")


def record(claim: str, **arguments: Any) -> None:
    """Compare a sentence of the text with a stored record: `check`, with the label ``record`` on its line.

    What a record says was known when the sentence was written: such a line keeps the sentence true to the record and
    tests no claim.

    Parameters
    ----------
    claim : str
        The id of the claim in the ledger.
    **arguments
        As for `check`, which also says what is raised: CheckFailed, where the sentence is wrong, or ValueError or
        TypeError.

    Examples
    --------
    >>> record("an-experiment", says="the error of the run in the record", measured=0.0931, below=0.1)
    record  the error of the run in the record: measured 0.0931, at most 0.1
    """
    defaults = dict.fromkeys(("says", "predicted", "below", "above", "atol", "rtol", "sigmas", "se", "wrong"))
    if strange := sorted(set(arguments) - set(defaults) - {"measured"}):
        raise TypeError(f"record has no argument {strange[0]!r}: expected measured, {', '.join(defaults)}")
    if "measured" not in arguments:
        raise TypeError("record needs the argument measured")
    _console.show(f"record  {_compare(claim, **{**defaults, **arguments})}")


def say(**values: Any) -> None:
    """Print the values that the text around a cell quotes, a line each: ``key = value``.

    A sentence quotes one as ``26<!--=steps-->``; the book's run writes the number, and a test compares it.

    Parameters
    ----------
    **values
        Text or numbers of one line each, formatted as the sentence should show them.

    Raises
    ------
    ValueError
        If a value is empty or has several lines.

    Examples
    --------
    >>> say(steps=26, gap=f"{0.04321:.1e}")
    steps = 26
    gap = 4.3e-02
    """
    for key, value in values.items():
        text = str(value)
        if not text.strip() or "\n" in text:
            raise ValueError(f"{key} = {text!r}: expected one line of text")
        _console.show(f"{key} = {text}")


def rate(x: Any, y: Any) -> float:
    r"""The exponent :math:`p` of :math:`y \propto x^p`: a least-squares slope of log y on log x.

    Parameters
    ----------
    x, y : array_like
        Positive, of one length; ``x`` spans at least four octaves (a factor 16), or the slope is no rate.

    Raises
    ------
    ValueError
        If the values are not positive, or ``x`` spans less.

    Examples
    --------
    >>> round(rate([1, 2, 4, 8, 16], [3, 12, 48, 192, 768]), 12)
    2.0
    """
    x = _validate.vector("x", x)
    y = _validate.vector("y", y, size=x.size)
    for name, value in (("x", x), ("y", y)):
        if value.min() <= 0:
            raise ValueError(f"{name} has the entry {value.min():g}: expected positive numbers")
    if x.max() / x.min() < 16 * (1 - 1e-9):
        raise ValueError(f"x spans a factor {x.max() / x.min():.3g}: expected four octaves, a factor 16")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


@dataclass(frozen=True)
class _Tolerance:
    """``unit`` is one tolerance, or one standard error, an entry; ``limit`` how many of them are allowed."""

    name: str | None
    unit: np.ndarray
    limit: float


def _compare(claim: str, says: Any, measured: Any, predicted: Any, below: Any, above: Any,
             atol: Any, rtol: Any, sigmas: Any, se: Any, wrong: Any) -> str:  # fmt: skip
    """The line of a check that holds; raises when it does not."""
    for name, value in (("claim", claim), ("says", says)):
        if not (isinstance(value, str) and value.strip()) and not (name == "says" and value is None):
            raise TypeError(f"{name} = {value!r}: expected words")
    bounds = {k: v for k, v in (("below", below), ("above", above)) if v is not None}
    if (predicted is None) == (not bounds):
        raise ValueError("expected either predicted, or below or above")
    if wrong is not None and len(bounds) == 2:
        raise ValueError("wrong with both below and above: expected one bound, which wrong replaces")
    claims = bounds or {"predicted": predicted}
    m = _measured(measured)
    claims = {name: _shaped(name, value, m) for name, value in claims.items()}
    tolerance = _tolerance(atol, rtol, sigmas, claims, _errors(se, m), bool(bounds))
    compare = _bounded if bounds else _equal
    holds, line = compare(m, claims, tolerance, None if wrong is None else _shaped("wrong", wrong, m))
    text = f"{says or claim}: {line}"
    if not holds:
        raise CheckFailed(f"FAILS {text}")
    return text


def _equal(m: np.ndarray, claims: dict[str, np.ndarray], t: _Tolerance, w: np.ndarray | None) -> tuple[bool, str]:
    p = claims["predicted"]
    with np.errstate(over="ignore"):
        miss = np.abs(m - p) / t.unit
    at = _largest(miss)
    line = f"measured {m[at]:.5g}, predicted {p[at]:.5g}{_entry(at)}, "
    if t.name == "sigmas":
        line += f"off by {miss[at]:.2f} standard errors (allowed {t.limit:g})"
    else:
        line += f"off by {np.abs(m - p)[at]:.1e} (allowed {t.unit[at]:.1e})"
    if w is None:
        return bool(miss[at] <= t.limit), line
    with np.errstate(over="ignore"):
        away = np.abs(m - w) / t.unit
    far = _largest(away)
    distance = _away(away[far], np.abs(m - w)[far], t)
    line += f"; the mistaken {w[far]:.5g}{_entry(far, at)} is off by {distance}"
    return bool(miss[at] <= t.limit and away[far] > _needed(t)), line


def _bounded(m: np.ndarray, claims: dict[str, np.ndarray], t: _Tolerance, w: np.ndarray | None) -> tuple[bool, str]:
    words, holds = [], True
    for name, bound in claims.items():
        sign, word = (1, "at most") if name == "below" else (-1, "at least")
        over = sign * (m - bound) / t.unit  # in standard errors, in tolerances, or as it is
        at = _largest(over)
        holds &= bool(over[at] <= (-t.limit if t.name == "sigmas" else t.limit))
        line = f"measured {m[at]:.5g}{_entry(at)}, {word} {bound[at]:.5g}"
        if t.name == "sigmas":
            line += f", {-over[at]:.1f} standard errors to spare (needed {t.limit:g})"
        elif t.name:
            line += f" (allowed {t.unit[at]:.1e} more)"
        if w is not None:
            beyond = sign * (m - w) / t.unit
            far = _largest(beyond)
            holds &= bool(beyond[far] > _needed(t))
            verb = "exceeded by" if sign > 0 else "undercut by"
            line += f"; the mistaken {w[far]:.5g} is {verb} {_away(beyond[far], sign * (m - w)[far], t)}{_entry(far)}"
        words.append(line)
    return holds, "; ".join(words)


def _needed(t: _Tolerance) -> float:
    return MIN_SEPARATION if t.name == "sigmas" else t.limit


def _away(units: float, distance: float, t: _Tolerance) -> str:
    return f"{units:.1f} standard errors" if t.name == "sigmas" else f"{distance:.2g}"


def _measured(value: Any) -> np.ndarray:
    try:
        m = _validate._floats("measured", value)
    except ValueError as error:
        raise (NotFinite(f"FAILS {error}") if "finite" in str(error) else error) from None
    if m.size == 0:
        raise ValueError(f"measured has shape {m.shape}: expected at least one number")
    return m


def _shaped(name: str, value: Any, like: np.ndarray) -> np.ndarray:
    """``value`` in the shape of the measurement; a number stands for all its entries."""
    v = _validate._floats(name, value)
    if v.shape not in ((), like.shape):
        raise ValueError(f"{name} has shape {v.shape}: expected {like.shape}, the shape of measured")
    return np.broadcast_to(v, like.shape)


def _errors(se: Any, like: np.ndarray) -> np.ndarray | None:
    if se is None:
        return None
    errors = _shaped("se", se, like)
    if (errors <= 0).any():
        raise ValueError(f"se has the entry {errors.min():g}: expected positive standard errors")
    return errors


def _tolerance(atol: Any, rtol: Any, sigmas: Any, claims: dict[str, np.ndarray], se: np.ndarray | None,
               inequality: bool) -> _Tolerance:  # fmt: skip
    given = {k: v for k, v in {"atol": atol, "rtol": rtol, "sigmas": sigmas}.items() if v is not None}
    if len(given) > 1 or not (given or inequality):
        raise ValueError(f"tolerance {sorted(given) or None}: expected exactly one of atol, rtol, sigmas")
    name, value = next(iter(given.items()), (None, None))
    if (name == "sigmas") != (se is not None):
        given_se = "None" if se is None else f"{se[_largest(se)]:g}"
        raise ValueError(f"se = {given_se} with {name}: expected standard errors with sigmas, and only then")
    reference = next(iter(claims.values()))
    ones = np.ones(reference.shape)
    if name is None:
        return _Tolerance(None, ones, 0.0)
    value = _validate.number(name, value, above=0)
    if name == "sigmas":
        return _Tolerance(name, se, value)
    scale = 1.0 if name == "atol" else float(np.abs(list(claims.values())).max())
    if scale == 0:
        raise ValueError(f"{' and '.join(claims)} is 0 with rtol: expected atol for a prediction of zero")
    return _Tolerance(name, value * scale * ones, 1.0)


def _largest(a: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(a)), a.shape))


def _entry(at: tuple[int, ...], other: tuple[int, ...] | None = None) -> str:
    """Which entry of an array a number is, unless it was just said."""
    return f" at [{', '.join(map(str, at))}]" if at and at != other else ""
