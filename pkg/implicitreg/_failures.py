"""What fails inside a model or a loss is said in the package's words: which argument, and what it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from implicitreg._torch import torch

OUT_OF_MEMORY = MemoryError, torch.OutOfMemoryError


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Any exception as a ValueError or a TypeError that begins with ``what``; a lack of memory stays what it is."""
    try:
        yield
    except OUT_OF_MEMORY:
        raise
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{what}: {str(error) or type(error).__name__}") from error
