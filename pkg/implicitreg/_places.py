"""Where the book's files are: in the checkout, or in the copy that an installed package carries."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_ROOT = PACKAGE.parents[1]
CHECKOUT = _ROOT if PACKAGE.parent == _ROOT / "pkg" and (_ROOT / "book" / "claims.yml").exists() else None
"""The folder of the book, or None where the package is installed without it."""

BOOK = CHECKOUT / "book" if CHECKOUT else PACKAGE / "_book"
"""The ledger ``claims.yml`` and the folder ``records``."""


def written() -> Path:
    """Where new records go: ``book/records``; without a checkout, ``implicitreg_records`` in the working directory."""
    return BOOK / "records" if CHECKOUT else Path.cwd() / "implicitreg_records"


def unfinished() -> Path:
    """Where an experiment keeps its finished pieces until all are done."""
    return CHECKOUT / "_build" / "experiments" if CHECKOUT else written() / "unfinished"
