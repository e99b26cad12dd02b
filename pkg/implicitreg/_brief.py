"""Short words for objects that hold arrays or functions."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

MOST = 6  # numbers, or functions, that are shown one by one
LETTERS = 500  # of the longest value that is shown whole


def brief(thing: Any) -> str:
    """``Name(field=value, …)`` of a dataclass: long arrays by shape and type, functions by name."""
    shown = ", ".join(f"{f.name}={_shown(getattr(thing, f.name))}" for f in fields(thing) if f.repr)
    return f"{type(thing).__name__}({shown})"


def _shown(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        size = 1
        for length in value.shape:
            size *= length
        return " ".join(repr(value).split()) if size <= MOST else f"<{tuple(value.shape)} {value.dtype}>"
    if isinstance(value, tuple) and any(map(callable, value)):
        return f"({', '.join(map(_shown, value))})" if len(value) <= MOST else f"<{len(value)} functions>"
    if callable(value):
        named = getattr(value, "func", value)  # of a partial one, what it is a part of
        return getattr(named, "__name__", type(value).__name__)
    text = repr(value)
    return (
        text if len(text) <= LETTERS else f"<{len(value)} items>" if hasattr(value, "__len__") else text[:LETTERS] + "…"
    )
