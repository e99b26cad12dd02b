"""Printing on every console."""

from __future__ import annotations

import sys
from typing import TextIO


def show(text: str, file: TextIO | None = None) -> None:
    """Print a line; a character that the code page of the console lacks is shown as a question mark."""
    file = sys.stdout if file is None else file
    encoding = getattr(file, "encoding", None) or "utf8"
    print(text.encode(encoding, "replace").decode(encoding), file=file, flush=True)
