"""Checks that can fail: one line a claim, with the measurement, the prediction, and what a mistake would give."""

from __future__ import annotations

from typing import Any

import numpy as np
from implicitreg import _validate

MIN_SEPARATION = 5.0
"""A Monte-Carlo check must place the mistaken formula at least this many standard errors from the measurement."""


class CheckFailed(AssertionError):
    """A measurement that disagrees with the claim, or that could not have told the claim from a mistake."""


def check(
    claim: str,
    *,
    measured: Any,
    predicted: Any,
    atol: float | None = None,
    rtol: float | None = None,
    sigmas: float | None = None,
    se: Any = None,
    wrong: Any = None,
) -> None:
    r"""Compare a measurement with a claim's prediction, print one line, and raise if they disagree.

    With :math:`\Delta = \max_i |m_i - p_i|` the claim holds if

    * ``atol``: :math:`\Delta \le \mathrm{atol}`;
    * ``rtol``: :math:`\Delta \le \mathrm{rtol}\,\max_i |p_i|`;
    * ``sigmas``: :math:`\max_i |m_i - p_i| / \mathrm{se}_i \le \mathrm{sigmas}`.

    Give exactly one of the three. A mistaken formula's value, passed as ``wrong``, must be told apart by the
    *measurement*: it must miss the same tolerance, or, with ``sigmas``, lie at least five standard errors away.

    Parameters
    ----------
    claim : str
        The id of the claim in the ledger, ``book/claims.yml``.
    measured, predicted : array_like
        Numbers or arrays of one shape.
    atol, rtol, sigmas : float, optional
        The tolerance, positive.
    se : array_like, optional
        Standard errors of ``measured``, positive; needed by ``sigmas`` and only by it.
    wrong : array_like, optional
        What the printed, or an easily mistaken, formula predicts.

    Raises
    ------
    CheckFailed
        If the claim's prediction is missed, or the mistaken one is not.
    ValueError
        If the arguments make no check: no tolerance or two, shapes that differ, a prediction that is not finite.

    Examples
    --------
    >>> check("pythagoras", measured=np.hypot(3, 4), predicted=5, rtol=1e-12, wrong=3 + 4)
    ok    pythagoras: measured 5, predicted 5, off by 0e+00 (allowed 5e-12); the mistaken 7 is off by 2
    """
    unit, name = _tolerance(atol, rtol, sigmas, predicted, se)
    m, p = _pair("measured", measured, "predicted", predicted)
    off = _distance(m, p, unit)
    if name == "sigmas":
        limit, needed = float(sigmas), MIN_SEPARATION  # type: ignore[arg-type]
        text = f"off by {off:.2f} standard errors (allowed {limit:g})"
    else:
        limit, needed = 1.0, 1.0
        scale = float(np.max(unit))
        text = f"off by {off * scale:.0e} (allowed {scale:.0e})"
    holds, line = off <= limit, f"measured {_show(m)}, predicted {_show(p)}, {text}"
    if wrong is not None:
        w = _pair("wrong", wrong, "predicted", predicted)[0]
        away = _distance(m, w, unit)
        holds = holds and away > needed
        distance = f"{away:.1f} standard errors away" if name == "sigmas" else f"off by {away * scale:.2g}"
        line += f"; the mistaken {_show(w)} is {distance}"
    if not holds:
        raise CheckFailed(f"FAILS {claim}: {line}")
    print(f"ok    {claim}: {line}")


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


def _tolerance(atol: Any, rtol: Any, sigmas: Any, predicted: Any, se: Any) -> tuple[np.ndarray, str]:
    given = {k: v for k, v in {"atol": atol, "rtol": rtol, "sigmas": sigmas}.items() if v is not None}
    if len(given) != 1:
        raise ValueError(f"tolerance {sorted(given) or None}: expected exactly one of atol, rtol, sigmas")
    name, value = next(iter(given.items()))
    value = _validate.number(name, value, above=0)
    if (name == "sigmas") != (se is not None):
        raise ValueError(f"se = {se!r} with {name}: expected standard errors with sigmas, and only then")
    if name == "sigmas":
        errors = _validate._floats("se", se)
        if (errors <= 0).any():
            raise ValueError(f"se has the entry {errors.min():g}: expected positive standard errors")
        return errors, name
    p = _validate._floats("predicted", predicted)
    scale = 1.0 if name == "atol" else float(np.abs(p).max())
    if scale == 0:
        raise ValueError("predicted is 0 with rtol: expected atol for a prediction of zero")
    return np.asarray(value * scale), name


def _pair(name: str, value: Any, other: str, reference: Any) -> tuple[np.ndarray, np.ndarray]:
    v, r = np.asarray(value, dtype=np.float64), _validate._floats(other, reference)
    if v.shape != r.shape and r.ndim > 0:
        raise ValueError(f"{name} has shape {v.shape}: expected {r.shape}, the shape of {other}")
    return v, r


def _distance(a: np.ndarray, b: np.ndarray, unit: np.ndarray) -> float:
    d = float(np.max(np.abs(a - b) / unit))
    return d if np.isfinite(d) else np.inf


def _show(a: np.ndarray) -> str:
    if a.ndim == 0:
        return f"{float(a):.5g}"
    flat = ", ".join(f"{v:.4g}" for v in a.ravel()[:2])
    return f"[{flat}{', …' if a.size > 2 else ''}]"
