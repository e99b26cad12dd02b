"""Submodules that load at first use, so that ``import implicitreg`` stays quick and brings no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def attach(
    package: str, submodules: Iterable[str], names: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package (PEP 562).

    ``submodules`` are imported at first access; ``names`` maps a public name to the submodule that defines it.
    """
    submodules, names = set(submodules), dict(names or {})

    def __getattr__(name: str) -> Any:
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        if name in names:
            return getattr(importlib.import_module(f"{package}.{names[name]}"), name)
        known = ", ".join(sorted(submodules | set(names)))
        raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {known}")

    return __getattr__, lambda: sorted(submodules | set(names))
