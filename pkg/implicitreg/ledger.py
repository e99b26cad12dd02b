"""The ledger: every claim of the sources with its verdict, its correct form, its function, its tests."""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

from implicitreg import _places, _validate
from implicitreg._console import printable

__all__ = ["PLACES", "VERDICTS", "Claim", "claims", "explain", "of_chapter", "parse"]

VERDICTS = ("holds", "holds with conditions", "corrected", "refuted", "cited", "textual", "ours")
"""``corrected``: something false is printed, and this is what is true; ``cited``: stated with a reference, not proved
again here; ``textual``: a definition, or typography, nothing to compute; ``ours``: printed by no source."""

PLACES = ({"heading", "begins", "ends"}, {"equation"})
"""How an entry says where its sentence stands: under which heading, with its first and its last two words; or the
number of the equation."""


@dataclass(frozen=True)
class Claim:
    """One entry of ``book/claims.yml``; ``str`` gives plain text, a notebook shows it with its mathematics.

    Attributes
    ----------
    id, source, number : str
        Its name in the ledger, the source, and the place in the source.
    printed, verdict, correct, note : str
        The printed sentence in our words, with its own conditions and hedges; our verdict (one of `VERDICTS`); the
        correct form; a remark. What no source printed has the verdict ``ours`` and nothing in ``printed``.
    where : dict
        The place of the sentence: ``heading``, ``begins``, ``ends``, or ``equation``.
    function : str
        The dotted name of the function that implements it.
    tests, control : tuple of str, str
        The pytest node ids of its tests and of its negative control.
    chapter : str
        ``file#label`` of its statement in the book.
    """

    id: str
    source: str
    verdict: str
    chapter: str
    printed: str = ""
    where: dict[str, Any] = field(default_factory=dict, hash=False)
    correct: str = ""
    number: str = ""
    note: str = ""
    function: str = ""
    tests: tuple[str, ...] = ()
    control: str = ""

    def _rows(self) -> list[tuple[str, str]]:
        place = f"{self.source}, {self.number}" if self.number else self.source
        rows = [("source", place), ("where", self.place()), ("printed", self.printed), ("verdict", self.verdict),
                ("true", self.correct),
                ("note", self.note), ("function", self.function), ("tests", ", ".join(self.tests)),
                ("negative control", self.control), ("chapter", self.chapter)]  # fmt: skip
        return [(k, " ".join(v.split())) for k, v in rows if v]

    def place(self) -> str:
        """Where the printed sentence stands in its source."""
        if "equation" in self.where:
            return f"equation ({self.where['equation']})"
        return f"{self.where['heading']}: {self.where['begins']} … {self.where['ends']}" if self.where else ""

    def __str__(self) -> str:
        wrap = textwrap.TextWrapper(
            width=80, subsequent_indent=" " * 20, break_long_words=False, break_on_hyphens=False
        )
        text = "\n".join([self.id, *(wrap.fill(f"  {k + ':':<18}{v}") for k, v in self._rows())])
        return printable(text)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return f"**{self.id}**\n\n" + "\n".join(f"- *{k}*: {v}" for k, v in self._rows())


def claims() -> tuple[Claim, ...]:
    """All entries, in the order of the file; they are the caller's own.

    Raises
    ------
    ValueError
        If an entry has an unknown or a missing key, an unknown verdict, or an id that stands twice.

    Examples
    --------
    >>> len({c.id for c in claims()}) == len(claims())
    True
    """
    return tuple(replace(claim, where=dict(claim.where)) for claim in _ledger())


@cache
def _ledger() -> tuple[Claim, ...]:
    return parse((_places.BOOK / "claims.yml").read_text("utf8"))


def parse(text: str) -> tuple[Claim, ...]:
    """The claims of a YAML text; raises what `claims` raises."""
    import yaml

    try:
        entries = yaml.safe_load(_validate.text("text", text)) or []
    except yaml.YAMLError as error:
        raise ValueError(f"text is no YAML: {error}") from error
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise ValueError("text holds no list of mappings: expected a claim an entry")
    found = tuple(_claim(entry) for entry in entries)
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
        The claim's id, e.g. ``"hegde-erratum-2"``; chapters name it in their check lines.

    Raises
    ------
    ValueError
        If there is no such entry; the nearest ids are named.

    Examples
    --------
    >>> explain("hegde-erratum-2").verdict
    'corrected'
    """
    _validate.text("id", id)
    by_id = {c.id: c for c in claims()}
    if id not in by_id:
        near = difflib.get_close_matches(str(id), by_id, n=3, cutoff=0.4) or sorted(by_id)[:3]
        raise ValueError(f"id = {id!r}: expected a claim of the ledger, such as {', '.join(map(repr, near))}")
    return by_id[id]


def of_chapter(file: str) -> tuple[Claim, ...]:
    """The claims stated in one chapter, e.g. ``"book/1-flow/01_min_norm.ipynb"``; a ValueError if there are none."""
    _validate.text("file", file)
    found = tuple(c for c in claims() if c.chapter.split("#")[0] == file)
    if not found:
        near = difflib.get_close_matches(str(file), {c.chapter.split("#")[0] for c in claims()}, n=3, cutoff=0.3)
        raise ValueError(f"file = {file!r}: expected a chapter with claims, such as {', '.join(map(repr, near))}")
    return found


def _claim(entry: dict[str, Any]) -> Claim:
    known = {f.name for f in fields(Claim)}
    missing = {"id", "source", "verdict", "chapter"} - set(entry)
    strange = set(entry) - known
    if missing or strange:
        raise ValueError(f"claim {entry.get('id')!r}: missing keys {sorted(missing)}, unknown keys {sorted(strange)}")
    if entry["verdict"] not in VERDICTS:
        raise ValueError(
            f"claim {entry['id']!r}: verdict = {entry['verdict']!r}: expected one of {', '.join(VERDICTS)}"
        )
    ours = entry["verdict"] == "ours"
    if ours != entry["id"].startswith("ours-") or ours != (entry["source"] == "ours") or ours == ("printed" in entry):
        raise ValueError(
            f"claim {entry['id']!r}: source {entry['source']!r}, verdict {entry['verdict']!r}: expected a printed "
            "sentence; or, for what no source printed, an id ours-…, source and verdict ours, and nothing printed"
        )
    where = entry.get("where", {})
    if where and (set(where) not in PLACES or ours):
        raise ValueError(f"claim {entry['id']!r}: where = {where}: expected heading, begins and ends, or an equation")
    return Claim(**{**entry, "tests": tuple(entry.get("tests") or ())})
