"""Printing on every console."""

from __future__ import annotations

import sys
from typing import TextIO


def show(text: str, file: TextIO | None = None) -> None:
    """Print a line; a character that the code page of the console lacks is shown as a question mark."""
    file = sys.stdout if file is None else file
    print(printable(text, file), file=file, flush=True)


def printable(text: str, file: TextIO | None = None) -> str:
    """The text in the characters of a file, by default of the console."""
    encoding = getattr(sys.stdout if file is None else file, "encoding", None) or "utf8"
    return text.encode(encoding, "replace").decode(encoding)
