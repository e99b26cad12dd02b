"""Records: what runs too long for a chapter leaves behind, as JSON files that nobody edits by hand."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import implicitreg
from implicitreg import _places, _validate

__all__ = ["FOLDER", "KEYS", "load", "save", "write_json"]

FOLDER = _places.BOOK / "records"
"""The records of the book: in the checkout, or in the copy that an installed package carries."""

KEYS = {"name", "settings", "seeds", "results", "device", "wall_seconds", "versions", "revision"}


def save(
    name: str,
    *,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    results: Mapping[str, Any],
    wall_seconds: float,
    device: str = "cpu",
    folder: str | Path | None = None,
) -> Path:
    """Write ``NAME.json``: settings, seeds, results, and with what and from which revision they were made.

    The file appears whole or not at all. Numbers must be finite, so that every reader of JSON can read them.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and underscores.
    settings, results : mapping
        Plain JSON values; results carry their spread beside them.
    seeds : sequence of int
        Every seed that entered.
    wall_seconds : float
        How long the run took, in seconds.
    device : str
        ``"cpu"``, or the GPU in words.
    folder : path, optional
        Where to write; by default ``book/records`` of the checkout or, with a package installed without it,
        ``implicitreg_records`` in the working directory.

    Returns
    -------
    Path
        The file written. Its ``revision`` is the commit of the checkout, with a plus sign where the package differs
        from it, and ``"unknown"`` outside the book's own repository.

    Raises
    ------
    ValueError
        If the name has other characters, a number is not finite, a text is no Unicode, or a value holds itself.
    TypeError
        If a seed is no integer, a value is not plain JSON, or the keys of one mapping are not of one type.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> file = save("half", settings={"x": 1}, seeds=[0], results={"x/2": 0.5}, wall_seconds=0.1, folder=folder)
    >>> load("half", folder=folder)["results"]["x/2"]
    0.5
    """
    record = {
        "name": _name(name), "settings": dict(_validate.mapping("settings", settings)),
        "seeds": [_validate.integer(f"seeds[{k}]", s) for k, s in enumerate(_validate.items("seeds", seeds, least=0))],
        "results": dict(_validate.mapping("results", results)), "device": _validate.text("device", device),
        "wall_seconds": round(_validate.number("wall_seconds", wall_seconds, low=0), 2),
        "versions": _versions(), "revision": _revision(),
    }  # fmt: skip
    return write_json((_places.written() if folder is None else _path("folder", folder)) / f"{name}.json", record)


def load(name: str, *, folder: str | Path | None = None) -> dict[str, Any]:
    """The record ``NAME.json`` as a dictionary with the keys `KEYS`.

    Parameters
    ----------
    name : str
        The record's name.
    folder : path, optional
        Where to look; by default first where `save` writes, then among the records of the book.

    Raises
    ------
    ValueError
        If there is no such record (those that exist are named), it is damaged, or it lacks a key.
    """
    folders = [_path("folder", folder)] if folder is not None else list(dict.fromkeys([_places.written(), FOLDER]))
    path = next((p for f in folders if (p := f / f"{_name(name)}.json").exists()), None)
    if path is None:
        have = ", ".join(sorted({p.stem for f in folders for p in f.glob("*.json")})) or "none"
        raise ValueError(f"name = {name!r}: expected a record in {' or '.join(map(str, folders))}; there: {have}")
    try:
        record = json.loads(path.read_text("utf8"))
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise ValueError(f"{path} is damaged: expected the JSON of a record ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds a {type(record).__name__}: expected the JSON of a record, with its keys")
    if missing := KEYS - set(record):
        raise ValueError(f"record {name!r} lacks {sorted(missing)}: run the experiment again")
    return record


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Sorted, indented JSON, written to a temporary file and moved into place; a failure leaves nothing behind.

    Raises
    ------
    ValueError
        If a number is not finite, a text is no Unicode, or a value holds itself; the key is named.
    TypeError
        If a value is not plain JSON, or the keys of one mapping are not of one type.
    """
    path, content = _path("path", path), _validate.mapping("content", content)
    try:
        data = _encoded(content)
    except _UNFIT as error:
        raise _explained(path.stem, content, error) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def _path(name: str, value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise TypeError(f"{name} is a {type(value).__name__}: expected a path")
    return Path(value)


_UNFIT = (ValueError, TypeError, RecursionError)  # what `json.dumps` and `str.encode` raise


def _encoded(content: Any) -> bytes:
    return f"{json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)}\n".encode()


def _explained(name: str, content: Mapping[str, Any], error: Exception) -> Exception:
    """The error in words, with the key whose value is at fault; where none is, the keys themselves are."""
    key = next((key for key, value in content.items() if not _fits(value)), "its keys")
    if isinstance(error, UnicodeEncodeError):
        letter = error.object[error.start].encode("unicode_escape").decode()
        return ValueError(f"{name}: a text in {key} has the lone surrogate {letter}: expected Unicode")
    if isinstance(error, RecursionError) or "Circular" in str(error):
        return ValueError(f"{name}: a value in {key} holds itself, or is too deep: expected a tree of values ({error})")
    if isinstance(error, ValueError):
        return ValueError(f"{name}: a number is not finite in {key}: expected finite numbers ({error})")
    return TypeError(f"{name}: {key}: expected plain JSON values, and keys of one type in each mapping ({error})")


def _fits(value: Any) -> bool:
    try:
        _encoded(value)
    except _UNFIT:
        return False
    return True


def _name(name: str) -> str:
    if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9_]+", name)):
        raise ValueError(f"name = {name!r}: expected lower-case letters, digits and underscores")
    return name


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "implicitreg": implicitreg.__version__}
    for package in ("numpy", "scipy", "scikit-learn", "torch"):
        with suppress(metadata.PackageNotFoundError):  # torch need not be there
            found[package] = metadata.version(package)
    return found


def _revision() -> str:
    """The commit, with a plus sign where the working tree differs from it; "unknown" in anyone else's repository."""
    try:
        ours = _places.CHECKOUT and Path(_git("rev-parse", "--show-toplevel")).resolve() == _places.CHECKOUT
        if not (ours and _git("ls-files", "pkg/implicitreg/__init__.py")):
            return "unknown"
        return _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain", "pkg") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    """What git says in the checkout, whatever repository the environment names."""
    named = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"}
    env = {key: value for key, value in os.environ.items() if key not in named}
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=_places.CHECKOUT, env=env, capture_output=True, encoding="utf8", check=True
    ).stdout.strip()
