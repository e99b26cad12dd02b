"""Chapters in plain Markdown: what they count, what they refer to, what they quote from their own cells.

The words that depend on something else are written here, so that every renderer of notebooks shows them as text:

* ``<a id="ch:x"></a>`` and ``# 4 · Title``: a chapter's number is its place in ``_toc.yml``;
* ``<blockquote id="thm:x">`` and ``**Theorem 4.2**``, ``<a id="eq:x"></a>`` and ``\\tag{4.3}``,
  ``<a id="fig:x"></a>**Figure 4.1.**``, ``<a id="ex:x"></a>**Exercise 4.1**``: counted in the order of the text;
* ``[Theorem 4.2](#thm:x)``, ``[(4.3)](04_diagonal.ipynb#eq:x)``, ``[chapter 4](04_diagonal.ipynb#ch:x)``: the words of
  a link to one of them; ``[4.2](#thm:x)`` is its number alone, ``[4 · ?](…#ch:x)`` number and title;
* ``[Hegde (2022)](../appendix/bibliography.md#hegde2022)``, or ``[Hegde 2022](…)``: a citation, out of
  ``references.bib``, from which the list of works is written, too;
* ``26<!--=steps-->``: the value that a cell printed as ``steps = 26``.

Write ``0.0`` and ``[?]``: the book's run fills them in. A chapter's other bookkeeping is here as well: checks fold to
one line, and a caption without a picture above it is an error.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

try:
    import nbformat as nbformat
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "chapters need a checkout of the book and what it is made with: pip install -r requirements.txt",
        name="nbformat",
    ) from error

__all__ = [
    "CHECKS",
    "KINDS",
    "STATEMENTS",
    "Book",
    "chapters",
    "count",
    "entitle",
    "fold",
    "list_works",
    "pictures",
    "printed",
    "quote",
    "settle",
    "works",
]

KINDS = {"thm": "Theorem", "prop": "Proposition", "lem": "Lemma", "cor": "Corollary", "def": "Definition",
         "ex": "Exercise", "fig": "Figure", "eq": "Equation"}  # fmt: skip
STATEMENTS = ("thm", "prop", "lem", "cor", "def")
"""These share a counter; equations, figures and exercises have their own."""

CHECKS = "ok    ", "record  "

_N = r"\d+\.\d+"
_NAMED = re.compile(
    rf'<blockquote id="(?P<b>(?:{"|".join(STATEMENTS)}):[\w-]+)">\s*\*\*(?P<bw>[A-Z]\w+ {_N})\*\*'
    rf'|<a id="(?P<a>(?:fig|ex):[\w-]+)"></a>\*\*(?P<aw>[A-Z]\w+ {_N})\.?\*\*'
    rf'|<a id="(?P<e>eq:[\w-]+)"></a>\s*\$\$(?:(?!\$\$).)*?\\tag\{{(?P<ew>{_N})\}}',
    re.S,
)
_ID = re.compile(rf'<\w+ id="((?:{"|".join(KINDS)}|ch):[\w-]+)"')
_TITLE = re.compile(r'\A<a id="(ch:[\w-]+)"></a>\s*# (?:(?:\d+|\?) · )?([^\n]+)')
_LINK = re.compile(rf"\[([^\]\n]*)\]\(([\w./-]*\.ipynb)?#((?:{'|'.join(KINDS)}|ch):[\w-]+)\)")
_CITE = re.compile(r"\[([^\]\n]*)\]\(([\w./-]*bibliography\.md)#([\w-]+)\)")
_VALUE = r"(?:\$[^$\n]+\$|[^ \n*(>\[$|]+)"
_QUOTED = re.compile(rf"{_VALUE}(\*\*)?<!--=(\w+)-->")
_PRINTED = re.compile(r"^(\w+) = (.+)$", re.M)


class Book:
    """The numbers, titles and works that the pages of a book refer to.

    Parameters
    ----------
    root : Path
        The repository: ``_toc.yml``, and a folder ``book`` with ``references.bib``.

    Raises
    ------
    ValueError
        If a chapter lacks its title line, or a name stands twice.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.chapters = chapters(root)
        self.notebooks = {path: nbformat.read(path, 4) for path in self.chapters}
        self.words: dict[Path, dict[str, str]] = {}
        self.titles: dict[Path, tuple[int, str]] = {}
        for number, (path, nb) in enumerate(self.notebooks.items(), 1):
            self.titles[path] = number, entitle(nb, number)
            self.words[path] = count(nb, number)
        bib = root / "book" / "references.bib"
        self.works = works(bib) if bib.exists() else {}

    def link(self, text: str, page: Path) -> str:
        """Write the words of every link and citation of a page."""

        def write(m: re.Match) -> str:
            target = (page.parent / m[2]).resolve() if m[2] else page
            key = m[3]
            if key.startswith("ch:"):
                if target not in self.titles:
                    raise KeyError(f"{page.name}: {m[0]}: {m[2] or page.name} is no chapter of the book")
                return f"[{_chapter_words(m[1], *self.titles[target])}]({m[2] or ''}#{key})"
            if key not in self.words.get(target, {}):
                raise KeyError(f"{page.name}: {m[0]}: there is no {key} in {target.name}")
            return f"[{_reference_words(m[1], key, self.words[target][key])}]({m[2] or ''}#{key})"

        def cite(m: re.Match) -> str:
            if m[3] not in self.works:
                raise KeyError(f"{page.name}: {m[0]}: references.bib has no {m[3]}")
            who, year = self.works[m[3]]
            return f"[{who} {year}]({m[2]}#{m[3]})" if m[1].endswith(year) else f"[{who} ({year})]({m[2]}#{m[3]})"

        return _CITE.sub(cite, _LINK.sub(write, text))


def chapters(root: Path) -> list[Path]:
    """The notebooks of ``_toc.yml``, in its order: a chapter's number is its place here."""
    import yaml

    toc = yaml.safe_load((root / "_toc.yml").read_text("utf8"))
    files = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return [path for f in files if (path := (root / f"{f}.ipynb").resolve()).exists()]


def settle(root: Path) -> dict[Path, str]:
    """All of it on all pages of the book: the text that each file should have.

    Raises
    ------
    KeyError
        If a link, a citation or a quoted value has nothing to refer to.
    ValueError
        If a numbered thing lacks its number's place, a name stands twice, a caption has no picture, or a value that is
        quoted is neither one phrase nor one formula.
    """
    book, texts = Book(root), {}
    for path, nb in book.notebooks.items():
        for cell in nb.cells:
            if cell.cell_type == "markdown":
                cell.source = book.link(cell.source, path)
        try:
            quote(nb)
            fold(nb)
            pictures(nb)
        except (KeyError, ValueError) as error:
            raise type(error)(f"{path.stem}: {error.args[0]}") from None
        texts[path] = nbformat.writes(nb) + "\n"
    for path in sorted((root / "book").rglob("*.md")):
        texts[path] = book.link(path.read_text("utf8"), path)
    bibliography = root / "book" / "appendix" / "bibliography.md"
    if bibliography in texts:
        texts[bibliography] = list_works(texts[bibliography], root / "book" / "references.bib")
    return texts


def entitle(nb: Any, number: int) -> str:
    """Write the chapter's number into its title; the title."""
    if not nb.cells or not (m := _TITLE.match(nb.cells[0].source)):
        raise ValueError('expected a first cell that begins with <a id="ch:…"></a> and a line "# 0 · Title"')
    cell = nb.cells[0]
    cell.source = f'<a id="{m[1]}"></a>\n\n# {number} · {m[2]}{cell.source[m.end() :]}'
    return m[2]


def count(nb: Any, chapter: int) -> dict[str, str]:
    """Count a chapter's named things in the order of the text, write the numbers, and return ``{id: words}``."""
    counts: dict[str, int] = {}
    words: dict[str, str] = {}

    def write(m: re.Match) -> str:
        name = next(k for k in ("b", "a", "e") if m[k])
        key, old = m[name], m[f"{name}w"]
        kind = key.split(":")[0]
        if key in words:
            raise ValueError(f"{key} is defined twice")
        counter = "statement" if kind in STATEMENTS else kind
        counts[counter] = counts.get(counter, 0) + 1
        digits = f"{chapter}.{counts[counter]}"
        words[key] = f"{KINDS[kind]} {digits}"
        begin, end = (i - m.start() for i in m.span(f"{name}w"))
        return m[0][:begin] + (digits if re.fullmatch(_N, old) else words[key]) + m[0][end:]

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = _NAMED.sub(write, cell.source)
            if lost := [i for i in _ID.findall(cell.source) if i not in words and not i.startswith("ch:")]:
                raise ValueError(
                    f"{lost[0]}: expected its number right behind the id, such as **Theorem 0.0** or \\tag{{0.0}}"
                )
    return words


def quote(nb: Any) -> None:
    """Write the values that the cells printed into the sentences that quote them; blanks inside do not break."""
    values = printed(nb)
    for cell in nb.cells:
        if cell.cell_type != "markdown":
            continue
        cell.source, n = _QUOTED.subn(lambda m: f"{_value(m[2], values)}{m[1] or ''}<!--={m[2]}-->", cell.source)
        if n != cell.source.count("<!--="):
            raise ValueError(f"a quoted value without a number before it: {cell.source[:60]!r}")
        for match in _QUOTED.finditer(cell.source):
            _check_once(cell.source[: match.start()].split(), match[0].partition("<!--=")[0].split())


def _check_once(before: list[str], value: list[str]) -> None:
    """An error where a value follows its own beginning: it was written with blanks that break."""
    if any(before[-k:] == value[:k] for k in range(1, len(value) + 1)):
        raise ValueError(f"{' '.join(value)!r} stands twice, in part: expected it once, without breaking blanks")


def printed(nb: Any) -> dict[str, list[str]]:
    """The values that a chapter's cells print as ``key = value``: of each key the different ones."""
    values: dict[str, list[str]] = {}
    for cell in nb.cells:
        for key, value in _PRINTED.findall(_text(cell) if cell.cell_type == "code" else ""):
            if value not in values.setdefault(key, []):
                values[key].append(value)
    return values


def _value(key: str, values: dict[str, list[str]]) -> str:
    if key not in values:
        raise KeyError(f"{key} is quoted, and no cell prints it")
    if len(values[key]) > 1:
        raise ValueError(
            f"{key} is quoted and printed as {' and as '.join(map(repr, values[key]))}: expected one value"
        )
    value = values[key][0].replace(" ", "\u00a0")
    if not re.fullmatch(_VALUE, value):
        raise ValueError(
            f"{key} = {values[key][0]!r}: expected one phrase without *, (, [, | or >, or one formula in dollars"
        )
    return value


def fold(nb: Any) -> None:
    """Fold a cell that prints nothing but checks, and one with the tag ``numbers``, to one line everywhere.

    What the tags ``hide-input`` and ``hide-cell`` fold on the site is folded in Jupyter as well.
    """
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        _unfold(cell)
        title = _fold_title(cell)
        if title is not None:
            text = _text(cell)
            html = f'<details class="checks"><summary>{title}</summary><pre>{escape(text, quote=False)}</pre></details>'
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": html, "text/plain": text})]
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "hide-cell"})
            cell.metadata["mystnb"] = {"code_prompt_show": title, "code_prompt_hide": title}
        if {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", [])):
            cell.metadata["jupyter"] = {"source_hidden": True}


def _unfold(cell: Any) -> None:
    """Take back what an earlier fold wrote about a cell."""
    cell.metadata.pop("jupyter", None)
    if "hide-output" in cell.metadata.get("tags", []):
        return  # an answer, folded by its author
    if "code_prompt_show" in cell.metadata.get("mystnb", {}):
        cell.metadata.pop("mystnb")
        cell.metadata["tags"] = [tag for tag in cell.metadata["tags"] if tag != "hide-cell"]


def _fold_title(cell: Any) -> str | None:
    """``3 checks pass``, ``2 records agree``, ``5 numbers of the text``; None for a cell that is not folded."""
    if any(out.get("name") != "stdout" and not _is_fold(out) for out in cell.outputs):
        return None
    text = _text(cell)
    lines = text.splitlines()
    checks, records = (sum(line.startswith(label) for line in lines) for label in CHECKS)
    values = len(_PRINTED.findall(text)) if "numbers" in cell.metadata.get("tags", []) else 0
    if not lines or checks + records + values < len(lines):
        return None
    kinds = [(checks, "check passes", "checks pass"), (records, "record agrees", "records agree"),
             (values, "number of the text", "numbers of the text")]  # fmt: skip
    return ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in kinds if n)


def pictures(nb: Any) -> None:
    """Raise unless every figure's caption stands right under a cell that shows a picture."""
    before = None
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (m := re.match(r'<a id="fig:[\w-]+"></a>\*\*(Figure [\d.]+)', cell.source)):
            shown = before is not None and before.cell_type == "code" and any(map(_is_picture, before.outputs))
            if not shown:
                raise ValueError(f"{m[1].rstrip('.')} has a caption and no picture: the cell above it shows none")
        before = cell


def _is_picture(output: Any) -> bool:
    data = output.get("data", {})
    return "image/png" in data or '<fieldset class="frames"' in data.get("text/html", "")


def _is_fold(output: Any) -> bool:
    return '<details class="checks"' in output.get("data", {}).get("text/html", "")


def _text(cell: Any) -> str:
    """What a cell printed, folded or not."""
    printed = (out.data["text/plain"] if _is_fold(out) else out.text for out in cell.outputs
               if _is_fold(out) or out.get("name") == "stdout")  # fmt: skip
    return "".join(printed)


def _chapter_words(old: str, number: int, title: str) -> str:
    if " · " in old:
        return f"{number} · {title}"
    if old.isdigit():
        return str(number)
    word = re.match(r"[Cc]hapters?", old)
    return f"{word[0] if word else 'chapter'} {number}"


def _reference_words(old: str, key: str, words: str) -> str:
    if key.startswith("eq:"):
        return f"({words.split()[1]})"
    if re.fullmatch(_N, old):
        return words.split()[1]
    plural = re.match(r"([A-Z]\w+s) ", old)
    return f"{plural[1]} {words.split()[1]}" if plural and plural[1].startswith(words.split()[0][:-1]) else words


def works(bib: Path) -> dict[str, tuple[str, str]]:
    """``{key: ("First and Second", "2018")}``; works of the same authors and year are 2018a, 2018b."""
    from pybtex.database import parse_file
    from pybtex.richtext import Text

    found: dict[str, tuple[str, str]] = {}
    for key, entry in parse_file(str(bib)).entries.items():
        names = [str(Text.from_latex(" ".join(p.prelast_names + p.last_names))) for p in entry.persons["author"]]
        who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
        found[key] = who, entry.fields["year"]
    same: dict[tuple[str, str], list[str]] = {}
    for key, work in found.items():
        same.setdefault(work, []).append(key)
    for (who, year), keys in same.items():
        for letter, key in zip("abcdefgh", sorted(keys) if len(keys) > 1 else [], strict=False):
            found[key] = who, year + letter
    return found


def list_works(text: str, bib: Path) -> str:
    """The page with the list of works behind its last heading: a paragraph and an anchor each, by author and year."""
    from pybtex.backends.plaintext import Backend
    from pybtex.database import parse_file
    from pybtex.plugin import find_plugin

    cited = works(bib)
    entries = find_plugin("pybtex.style.formatting", "unsrt")().format_entries(parse_file(str(bib)).entries.values())
    shown = {entry.key: _unbrace(str(entry.text.render(Backend("utf8")))) for entry in entries}
    head = text[: re.search(r"^## .*\n", text, re.M).end()]
    items = sorted(cited, key=lambda key: (cited[key][0].lower(), cited[key][1]))
    return head + "".join(
        f'\n<a id="{k}"></a>**{cited[k][0]} ({cited[k][1]}).** {_markdown(shown[k])}\n' for k in items
    )


def _markdown(text: str) -> str:
    text = re.sub(r"\s+", " ", text).replace("*", r"\*").replace("_", r"\_")
    return re.sub(r"https?://[^\s,]+[^\s,.]", lambda m: f"<{m[0]}>".replace(r"\_", "_"), text)


def _unbrace(text: str) -> str:
    return text.replace("{", "").replace("}", "")
