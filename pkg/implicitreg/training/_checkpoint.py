"""Checkpoints: arrays and a JSON text in one ``.npz`` file, which appears whole or not at all. Nothing is pickled."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

NOTE, DIGEST = "note", "sha256"


def save(path: Path, arrays: Mapping[str, np.ndarray], note: Mapping[str, Any]) -> None:
    """Write, flush to the disk, and move into place; an OSError names the path, and leaves the file that was there."""
    text = json.dumps(note, sort_keys=True, allow_nan=False)
    content = {**arrays, NOTE: np.array(text), DIGEST: np.array(digest(arrays, text))}
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"checkpoint cannot be written ({error.strerror or error}); the model holds the "
                      "last step", str(path)) from error  # fmt: skip
    finally:
        if temporary is not None:
            with suppress(OSError):  # it has been moved, or there is nothing to be done
                os.unlink(temporary)


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the note of a file that `save` wrote, or a ValueError that names it."""
    raw = path.read_bytes()
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        text, stated = str(content.pop(NOTE)), str(content.pop(DIGEST))
    except Exception as error:  # what a damaged archive raises is not listed anywhere
        raise ValueError(f"checkpoint {path} is damaged or no checkpoint ({error!r}): expected a file that training "
                         "wrote; remove it to start anew") from error  # fmt: skip
    if stated != digest(content, text):
        raise ValueError(f"checkpoint {path} is damaged: its SHA-256 is not the one it names; remove it to start anew")
    return content, json.loads(text)


def compare(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """An error that names the first difference between the run of the file and this one."""
    here = json.loads(json.dumps(here))
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            raise ValueError(f"checkpoint {path} is of another run: {key} is {_short(there.get(key))} there and "
                             f"{_short(here.get(key))} here; expected the same, or another file")  # fmt: skip


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "…"


def digest(arrays: Mapping[str, np.ndarray], text: str = "") -> str:
    """SHA-256 of named arrays and a text."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"\n{name} {array.dtype.str} {arrays[name].shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
