"""The ledger: every claim of the sources with its verdict, its correct form, its function, its tests."""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

VERDICTS = ("holds", "holds with conditions", "corrected", "refuted", "cited", "textual")
"""``cited``: stated with a reference, not proved again here; ``textual``: typography, nothing to compute."""

_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Claim:
    """One entry of ``book/claims.yml``; ``str`` gives plain text, a notebook shows it with its mathematics.

    Attributes
    ----------
    id, source, number : str
        Its name in the ledger, the source, and the place in the source.
    printed, verdict, correct, note : str
        What the source prints, our verdict (one of `VERDICTS`), the correct form, a remark.
    function : str
        The dotted name of the function that implements it.
    tests, control : tuple of str, str
        The pytest node ids of its tests and of its negative control.
    chapter : str
        ``file#label`` of its statement in the book.
    """

    id: str
    source: str
    printed: str
    verdict: str
    chapter: str
    correct: str = ""
    number: str = ""
    note: str = ""
    function: str = ""
    tests: tuple[str, ...] = ()
    control: str = ""

    def _rows(self) -> list[tuple[str, str]]:
        place = f"{self.source}, {self.number}" if self.number else self.source
        rows = [("source", place), ("printed", self.printed), ("verdict", self.verdict), ("true", self.correct),
                ("note", self.note), ("function", self.function), ("tests", ", ".join(self.tests)),
                ("negative control", self.control), ("chapter", self.chapter)]  # fmt: skip
        return [(k, " ".join(v.split())) for k, v in rows if v]

    def __str__(self) -> str:
        wrap = textwrap.TextWrapper(
            width=80, subsequent_indent=" " * 20, break_long_words=False, break_on_hyphens=False
        )
        return "\n".join([self.id, *(wrap.fill(f"  {k + ':':<18}{v}") for k, v in self._rows())])

    def _repr_markdown_(self) -> str:
        return f"**{self.id}**\n\n" + "\n".join(f"- *{k}*: {v}" for k, v in self._rows())


@cache
def claims() -> tuple[Claim, ...]:
    """All entries, in the order of the file.

    Raises
    ------
    ValueError
        If an entry has an unknown or a missing key, an unknown verdict, or an id that stands twice.

    Examples
    --------
    >>> len({c.id for c in claims()}) == len(claims())
    True
    """
    return parse(_path().read_text("utf8"))


def parse(text: str) -> tuple[Claim, ...]:
    """The claims of a YAML text; raises what `claims` raises."""
    import yaml

    found = tuple(_claim(entry) for entry in yaml.safe_load(text) or [])
    ids = [c.id for c in found]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise ValueError(f"id {twice[0]!r} stands {ids.count(twice[0])} times: expected once")
    return found


def explain(id: str) -> Claim:
    """The ledger's entry for a claim: what was printed, the verdict, the correct form, and where it is tested.

    Parameters
    ----------
    id : str
        The claim's id, e.g. ``"hegde-erratum-8"``; chapters name it in their check lines.

    Raises
    ------
    ValueError
        If there is no such entry; the nearest ids are named.

    Examples
    --------
    >>> explain("hegde-erratum-8").verdict
    'corrected'
    """
    by_id = {c.id: c for c in claims()}
    if id not in by_id:
        near = difflib.get_close_matches(str(id), by_id, n=3, cutoff=0.4) or sorted(by_id)[:3]
        raise ValueError(f"id = {id!r}: expected a claim of the ledger, such as {', '.join(map(repr, near))}")
    return by_id[id]


def of_chapter(file: str) -> tuple[Claim, ...]:
    """The claims stated in one chapter, e.g. ``"book/1-flow/01_min_norm.ipynb"``."""
    return tuple(c for c in claims() if c.chapter.split("#")[0] == file)


def _path() -> Path:
    """The file in the repository, or the copy that an installed package carries."""
    here = _REPOSITORY / "book" / "claims.yml"
    return here if here.exists() else Path(__file__).with_name("claims.yml")


def _claim(entry: dict[str, Any]) -> Claim:
    known = {f.name for f in fields(Claim)}
    missing = {"id", "source", "printed", "verdict", "chapter"} - set(entry)
    strange = set(entry) - known
    if missing or strange:
        raise ValueError(f"claim {entry.get('id')!r}: missing keys {sorted(missing)}, unknown keys {sorted(strange)}")
    if entry["verdict"] not in VERDICTS:
        raise ValueError(
            f"claim {entry['id']!r}: verdict = {entry['verdict']!r}: expected one of {', '.join(VERDICTS)}"
        )
    return Claim(**{**entry, "tests": tuple(entry.get("tests") or ())})
