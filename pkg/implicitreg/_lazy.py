"""Submodules that load at first use, so that ``import implicitreg`` stays quick and brings no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from typing import Any


def attach(
    package: str, public: Collection[str], homes: Mapping[str, str] | None = None, *, torch: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package (PEP 562).

    ``public`` are its names. ``homes`` maps a name to the submodule that defines it; any other is a submodule itself,
    imported at first access. What lives in the submodules ``torch`` is not listed by ``dir`` where torch is not
    installed, so that whatever visits all names, such as ``help``, goes through.
    """
    homes = dict(homes or {})

    def __getattr__(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(sorted(public))}")
        module = importlib.import_module(f"{package}.{homes.get(name, name)}")
        return getattr(module, name) if name in homes else module

    def __dir__() -> list[str]:
        here = find_spec("torch") is not None
        return sorted(name for name in public if here or homes.get(name, name) not in torch)

    return __getattr__, __dir__
