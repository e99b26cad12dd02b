"""What the stock toolchain leaves undone: MathJax from disk, clean scripts, ids in plain Markdown, the ledger's page.

* MathJax comes out of the wheel ``sphinx-mathjax-offline``: the 1.7 MB that a page can ask for.
* Sphinx emits inline scripts of extensions twice; a second ``const`` of one name is an error in the console.
* Chapters are plain Markdown: their HTML ids become targets, captions and figures get their classes and alternative
  texts, tagged formulas are left to MathJax, and a fold inside a folded cell is opened.
* ``{ledger} FILE`` is a table of the claims of ``book/claims.yml`` that a chapter states.
* ``{benchmarks} RECORD`` is the tables of a record that a script of ``tests/benchmarks`` wrote.
* ``{frames} CHAPTER FIGURE`` is a row of frames out of a chapter.
* ``{chapter}`NAME` `` is a chapter's number and title, ``{runtime}`NAME` `` how long it took when it last ran,
  ``{counts}`printed` `` how many printed claims the ledger has.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections import Counter
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)
BOOK = Path(__file__).parents[1]
VERDICT_COLOUR = {
    "holds": "success", "holds with conditions": "info", "corrected": "warning", "refuted": "danger",
    "cited": "secondary", "textual": "secondary", "ours": "primary",
}  # fmt: skip


def _place(claim) -> str:
    """Where the sentence stands; words with a piece of a formula are shown as they are in the source."""
    if "equation" in claim.where:
        return claim.place()
    first, last = (f"`{w}`" if set(w) & set("$\\") else w for w in (claim.where["begins"], claim.where["ends"]))
    return f"{claim.where['heading']}: {first} … {last}"


class Ledger(SphinxDirective):
    """The claims of one chapter, or of the whole book when no file is named."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        from implicitreg import ledger

        self.env.note_dependency(str(Path(self.env.srcdir) / "book" / "claims.yml"))
        claims = ledger.of_chapter(self.arguments[0]) if self.arguments else ledger.claims()
        if not claims:
            raise self.error(f"the ledger has no claim of {self.arguments}")
        holder = nodes.container(classes=["ledger"])
        lines = [line for claim in claims for line in self.entry(claim)]
        self.state.nested_parse(StringList(lines, source=self.env.docname), self.content_offset, holder)
        return [holder]

    @staticmethod
    def entry(claim) -> list[str]:
        one = lambda text: " ".join(text.split())  # noqa: E731
        badge = f"{{bdg-{VERDICT_COLOUR[claim.verdict]}-line}}`{claim.verdict}`"
        rows = [f"**Printed.** {one(claim.printed)}"] if claim.printed else []
        rows += [f"**Where.** {_place(claim)}"] if claim.where else []
        rows += [f"**True.** {one(claim.correct)}"] if claim.correct else []
        rows += [f"**Note.** {one(claim.note)}"] if claim.note else []
        if claim.function:
            rows += [f"**Function.** {{py:obj}}`{claim.function}`"]
        if claim.tests:
            names = [f"`{t.split('::')[-1].split('[')[0]}`" for t in dict.fromkeys(claim.tests)]
            control = f"; negative control `{claim.control.split('::')[-1]}`" if claim.control else ""
            rows += ["**Tests.** " + ", ".join(names) + control]
        title = f"{claim.id} · {claim.number}" if claim.number else claim.id
        body = [line for row in rows for line in (row, "")]
        return [f"::::{{dropdown}} {title} {badge}", *body, "::::", ""]


class Benchmarks(SphinxDirective):
    """The tables of a benchmark's record, and which goals it reached."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from implicitreg import records

        name = self.arguments[0]
        self.env.note_dependency(str(Path(self.env.srcdir) / "book" / "records" / f"{name}.json"))
        record = records.load(name)
        rows, groups = record["results"]["rows"], {}
        for row in rows:
            groups.setdefault(row["group"], []).append(row)
        lines = [self.setting(record), "", *self.goals(rows), ""]
        lines += [line for title, group in groups.items() for line in self.table(title, group)]
        lines += [f"- {text}" for text in record["results"]["skipped"]]
        holder = nodes.container(classes=["benchmarks"])
        self.state.nested_parse(StringList(lines, source=self.env.docname), self.content_offset, holder)
        return [holder]

    @staticmethod
    def setting(record: dict) -> str:
        settings = record["settings"]
        libraries = ", ".join(f"{k} {v}" for k, v in (record["versions"] | settings["peers"]).items())
        return (f"Measured on {settings['machine']}, {settings['threads']} thread, {settings['clock']}, "
                f"{len(record['seeds'])} draws of the data; {libraries}.")  # fmt: skip

    @classmethod
    def goals(cls, rows: list[dict]) -> list[str]:
        judged = [row for row in rows if row["goal"]]
        missed = [row for row in judged if not row["reached"]]
        head = f"**{len(judged) - len(missed)} of {len(judged)} goals are reached.**"
        return [head + (" The tables mark those that are missed." if missed else ""), ""]

    @staticmethod
    def figures(x: float) -> str:
        return f"{float(f'{x:.2g}'):.6g}"

    @classmethod
    def table(cls, title: str, rows: list[dict]) -> list[str]:
        head = ["problem", "ratio (range)", "other method", "its ms", "ours, ms", "our error", "its error", "goal"]
        body = [
            [row["problem"],
             f"{cls.figures(row['ratio'])} ({cls.figures(min(row['ratios']))}–{cls.figures(max(row['ratios']))})",
             row["peer"], cls.figures(row["peer_ms"]), cls.figures(row["ours_ms"]),
             f"{row['ours_error']:.0e}", "" if row["peer_error"] is None else f"{row['peer_error']:.0e}",
             "" if row["goal"] is None else f"{row['goal']}: {'reached' if row['reached'] else '**missed**'}"]
            for row in rows
        ]  # fmt: skip
        cells = [head, ["---"] * len(head), *body]
        return [f":::{{table}} {title}", "", *("| " + " | ".join(row) + " |" for row in cells), ":::", ""]


class Frames(SphinxDirective):
    """``{frames} CHAPTER FIGURE``: a row of frames as the chapter's notebook has it, on another page."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        chapter, figure = self.arguments
        path = BOOK / f"{chapter}.ipynb"
        self.env.note_dependency(str(path))
        cells = json.loads(path.read_text("utf8"))["cells"]
        captions = [i for i, c in enumerate(cells) if "".join(c["source"]).startswith(f'<a id="{figure}">')]
        if not captions:
            raise self.error(f"{chapter} has no figure {figure!r}")
        outputs = [out.get("data", {}).get("text/html", "") for out in cells[captions[0] - 1].get("outputs", [])]
        rows = ["".join(html) for html in outputs if "<fieldset" in "".join(html)]
        if len(rows) != 1:
            raise self.error(f"{figure!r} of {chapter} is no row of frames")
        holder = nodes.container(classes=["cell_output"])
        holder += nodes.raw("", rows[0], format="html")
        return [holder]


def runtime(name, rawtext, text, lineno, inliner, options=None, content=None):
    """``{runtime}`CHAPTER` ``: how long the chapter took when it last ran, in words."""
    times = json.loads((BOOK / "records" / "runtimes.json").read_text("utf8"))
    seconds = times.get(text)
    if seconds is None:
        return [], [inliner.reporter.error(f"no run time is recorded for {text!r}", line=lineno)]
    return [nodes.Text(f"about {max(5, 5 * round(seconds / 5))} s")], []


def chapter(name, rawtext, text, lineno, inliner, options=None, content=None):
    """``{chapter}`CHAPTER` ``: its number and title, as they stand on its page."""
    notebook = json.loads((BOOK / f"{text}.ipynb").read_text("utf8"))
    title = re.search(r"^# (.*)$", "".join(notebook["cells"][0]["source"]), re.M)
    return [nodes.Text(title[1])], []


def counts(name, rawtext, text, lineno, inliner, options=None, content=None):
    """``{counts}`printed` `` or ``{counts}`ours` ``: how many claims of that kind there are, and their verdicts."""
    from implicitreg import ledger

    if text not in ("printed", "ours"):
        return [], [inliner.reporter.error(f"{text!r}: expected printed or ours", line=lineno)]
    inliner.document.settings.env.note_dependency(str(BOOK / "claims.yml"))
    verdicts = Counter(claim.verdict for claim in ledger.claims() if (claim.verdict == "ours") == (text == "ours"))
    if text == "ours":
        return [nodes.Text(str(verdicts["ours"]))], []
    parts = [f"{verdicts[v]} {v}" for v in ledger.VERDICTS if verdicts[v]]
    return [nodes.Text(f"{sum(verdicts.values())} ({', '.join(parts)})")], []


class PlainIds(SphinxTransform):
    """Let ``[…](#eq:x)`` and ``[…](page.ipynb#eq:x)`` find ``<a id="eq:x"></a>``; class what plain Markdown cannot."""

    default_priority = 300

    def apply(self) -> None:
        slugs = self.env.metadata[self.env.docname].setdefault("myst_slugs", {})
        for raw in list(self.document.findall(nodes.raw)):
            if raw.get("format") == "html" and "<fieldset" not in raw.astext():
                self.target(raw, slugs)
        for block in self.document.findall(nodes.math_block):
            if r"\tag{" in block.astext():  # Sphinx would wrap lines in {split}, which takes no tag
                text = rf"\[{block.astext()}\]"
                block.clear()
                block += nodes.Text(text)
                block["nowrap"] = True
        for paragraph in self.document.findall(nodes.paragraph):
            first = next((c for c in paragraph.children if isinstance(c, nodes.strong)), None)
            if first is not None and (kind := re.match(r"(Figure|Exercise) \d", first.astext())):
                paragraph["classes"].append("figure-caption" if kind[1] == "Figure" else "exercise")

    def target(self, raw: nodes.raw, slugs: dict) -> None:
        names = re.findall(r'<\w+[^>]*? id="([^"]+)"', raw.astext())
        for name in names:
            target = nodes.target("", "", ids=[name], names=[name])
            raw.parent.insert(raw.parent.index(raw), target)
            self.document.ids[name] = target
            self.document.nameids[name], self.document.nametypes[name] = name, True
            slugs[name] = (raw.line or 0, name, name)
        if names:
            rest = re.sub(r' id="[^"]+"', "", raw.astext()).replace("<a></a>", "")
            raw.clear()
            raw += nodes.Text(rest)


class PanelTexts(SphinxTransform):
    """The alternative text of a cell of panels, ``"first | second"``: one for each of its pictures.

    A picture is one image for each of its formats.
    """

    default_priority = 900

    def apply(self) -> None:
        for cell in self.document.findall(nodes.container):
            if "tag_panels" in cell.get("classes", ()):
                outputs = [part for part in cell.findall(nodes.container) if part.get("nb_element") == "mime_bundle"]
                found = [list(output.findall(nodes.image)) for output in outputs]
                self._share([images for images in found if images], cell)

    def _share(self, pictures: list[list[nodes.image]], cell: nodes.container) -> None:
        texts = next((image["alt"] for images in pictures for image in images), "").split("|")
        if len(texts) != len(pictures):
            logger.warning("%d alternative texts for %d panels", len(texts), len(pictures), location=cell)
        for images, text in zip(pictures, texts, strict=False):
            for image in images:
                image["alt"] = text.strip()


def _mathjax_home() -> Path:
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise RuntimeError("sphinx-mathjax-offline is not installed: pip install -r requirements.txt")
    return Path(spec.origin).parent / "static" / "mathjax"


def copy_mathjax(app, exception) -> None:
    if exception is not None or app.builder.format != "html":
        return
    source, target = _mathjax_home(), Path(app.outdir) / "_static" / "mathjax"
    fonts = Path("output/chtml/fonts/woff-v2")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source / "tex-chtml.js", target)
    shutil.copytree(source / fonts, target / fonts, dirs_exist_ok=True)


def drop_twins(app, pagename, templatename, context, doctree) -> None:
    seen, kept = set(), []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if body is None or body not in seen:
            kept.append(script)
        seen.add(body)
    context["script_files"][:] = kept


def mend_body(app, pagename, templatename, context, doctree) -> None:
    """A cell of checks is folded by its tag already: open the fold inside it."""
    fold = r'<details class="checks"><summary>[^<]*</summary>(.*?)</details>'
    context["body"] = re.sub(fold, r"\1", context.get("body") or "", flags=re.S)


def setup(app):
    app.add_directive("ledger", Ledger)
    app.add_directive("benchmarks", Benchmarks)
    app.add_directive("frames", Frames)
    app.add_role("runtime", runtime)
    app.add_role("chapter", chapter)
    app.add_role("counts", counts)
    app.add_transform(PlainIds)
    app.add_transform(PanelTexts)
    app.connect("build-finished", copy_mathjax)
    app.connect("html-page-context", drop_twins, priority=900)
    app.connect("html-page-context", mend_body, priority=900)
    return {"version": "3", "parallel_read_safe": True, "parallel_write_safe": True}
