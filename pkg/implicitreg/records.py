"""Records: what runs too long for a chapter leaves behind, as JSON files that nobody edits by hand."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from implicitreg import _validate

_REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = _REPOSITORY / "book" / "records"
KEYS = {"name", "settings", "seeds", "results", "device", "wall_seconds", "versions", "revision"}


def save(
    name: str,
    *,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    results: Mapping[str, Any],
    wall_seconds: float,
    device: str = "cpu",
    folder: Path | None = None,
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
    folder : Path, optional
        Where to write; by default ``book/records`` of the repository.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        If the name has other characters, or a number is not finite.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> file = save("half", settings={"x": 1}, seeds=[0], results={"x/2": 0.5}, wall_seconds=0.1, folder=folder)
    >>> load("half", folder=folder)["results"]["x/2"]
    0.5
    """
    record = {
        "name": _name(name), "settings": dict(settings), "seeds": [int(s) for s in seeds], "results": dict(results),
        "device": device, "wall_seconds": round(_validate.number("wall_seconds", wall_seconds, low=0), 2),
        "versions": _versions(), "revision": _revision(),
    }  # fmt: skip
    return write_json((folder or FOLDER) / f"{name}.json", record)


def load(name: str, *, folder: Path | None = None) -> dict[str, Any]:
    """The record ``NAME.json`` as a dictionary with the keys `KEYS`.

    Raises
    ------
    ValueError
        If there is no such record (those that exist are named) or it lacks a key.
    """
    folder = folder or FOLDER
    path = folder / f"{_name(name)}.json"
    if not path.exists():
        have = ", ".join(sorted(p.stem for p in folder.glob("*.json"))) or "none"
        raise ValueError(f"name = {name!r}: expected a record in book/records; there: {have}")
    record = json.loads(path.read_text("utf8"))
    if missing := KEYS - set(record):
        raise ValueError(f"record {name!r} lacks {sorted(missing)}: run the experiment again")
    return record


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Sorted, indented JSON, written to a temporary file and moved into place."""
    try:
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    except ValueError as error:
        raise ValueError(f"{path.stem}: a number is not finite: expected finite numbers ({error})") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf8") as file:
        file.write(text)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
    return path


def _name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]+", str(name)):
        raise ValueError(f"name = {name!r}: expected lower-case letters, digits and underscores")
    return name


def _versions() -> dict[str, str]:
    packages = {p: metadata.version(p) for p in ("numpy", "scipy", "scikit-learn", "torch")}
    return {"python": platform.python_version(), **packages}


def _revision() -> str:
    """The commit, with a plus sign where the working tree differs from it."""
    try:
        say = lambda *a: subprocess.run(  # noqa: E731
            ["git", *a], cwd=_REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.strip()
        return say("rev-parse", "--short=12", "HEAD") + ("+" if say("status", "--porcelain", "pkg") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
