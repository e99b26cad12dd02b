"""The chapters as stored: fresh, clean, quick, and built to the anatomy."""

import ast
import itertools
import json
import re
import subprocess
import sys
from urllib.parse import unquote

import nbformat
import pytest
from implicitreg import plain, plotting, runbook

CHAPTERS = runbook.chapters()
name = lambda path: path.stem  # noqa: E731


def cells(path, kind):
    return [c for c in nbformat.read(path, 4).cells if c.cell_type == kind]


def test_there_are_chapters():
    assert CHAPTERS


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_stored_outputs_are_fresh(path):
    assert runbook.stale(path) == [], "run `make run`"


def problems(nb):
    """What a reader must not find in stored outputs."""
    code = [c for c in nb.cells if c.cell_type == "code" and c.source.strip()]
    if [c.execution_count for c in code] != list(range(1, len(code) + 1)):
        yield "not run from top to bottom"
    for i, cell in enumerate(code, 1):
        if "execution" in cell.metadata:
            yield f"cell {i}: timestamps"
        for out in cell.outputs:
            text = out.get("text", "") + "".join(map(str, out.get("data", {}).values()))
            if out.output_type == "error":
                yield f"cell {i}: traceback"
            if out.get("name") == "stderr":
                yield f"cell {i}: stderr"
            if re.search(r"/(home|root|Users|tmp|work)/|[A-Z]:\\\\", text):
                yield f"cell {i}: a path of some machine"
            if re.search(r" at 0x[0-9a-f]{6,}", out.get("data", {}).get("text/plain", "")) and len(out.data) == 1:
                yield f"cell {i}: an address"
            if out.output_type == "execute_result" and re.match(r"[\[(]*(Text\(|<matplotlib)", text):
                yield f"cell {i}: what a call of the figure returned"


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_stored_outputs_are_clean(path):
    nb = nbformat.read(path, 4)
    nbformat.validate(nb)
    assert list(problems(nb)) == []
    assert path.stat().st_size < 1_500_000


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (nbformat.v4.new_output("stream", name="stderr", text="careful"), "stderr"),
        (nbformat.v4.new_output("error", ename="E", evalue="", traceback=[]), "traceback"),
        (nbformat.v4.new_output("stream", name="stdout", text="/home/someone/x.py"), "a path of some machine"),
        (nbformat.v4.new_output("execute_result", data={"text/plain": "<f at 0x7f0011223344>"}), "an address"),
        (
            nbformat.v4.new_output("execute_result", data={"text/plain": "Text(0, 0, 'a')"}),
            "what a call of the figure returned",
        ),
    ],
)
def test_dirty_outputs_are_noticed(output, complaint):
    cell = nbformat.v4.new_code_cell("1", execution_count=1, outputs=[output])
    assert list(problems(nbformat.v4.new_notebook(cells=[cell]))) == [f"cell 1: {complaint}"]


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_chapter_ran_within_a_minute(path):
    times = json.loads(runbook.RUNTIMES.read_text("utf8"))
    assert times[path.relative_to(runbook.BOOK).with_suffix("").as_posix()] <= 60


def test_book_ran_within_twelve_minutes():
    assert sum(json.loads(runbook.RUNTIMES.read_text("utf8")).values()) <= 12 * 60


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_stated_time_is_kept(path):
    text = "\n".join(c.source for c in cells(path, "markdown"))
    (stated,) = re.findall(r"\*Runs in\* less than (half a minute|a minute)", text)
    times = json.loads(runbook.RUNTIMES.read_text("utf8"))
    seconds = times[path.relative_to(runbook.BOOK).with_suffix("").as_posix()]
    assert seconds <= {"half a minute": 30, "a minute": 60}[stated]


def kind(cell):
    """What a cell of code is for: it checks, it draws, or neither."""
    if any('<details class="checks"' in o.get("data", {}).get("text/html", "") for o in cell.outputs):
        return "checks"
    return "draws" if re.search(r"\bsubplots\(|plotting\.(panels|frames)\(", cell.source) else "computes"


LONGEST = {"visible": 15, "folded": 40}


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_cells_are_short(path):
    for c in cells(path, "code"):
        lines = [line for line in c.source.splitlines() if line.strip()]
        folded = {"hide-cell", "hide-input"} & set(c.metadata.get("tags", []))
        assert len(lines) <= LONGEST["folded" if folded else "visible"], c.source.splitlines()[0]
        assert max(map(len, lines), default=0) <= 100, max(lines, key=len)


def sections(path):
    """The cells between one heading and the next."""
    section = []
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown" and re.search(r"^#+ ", cell.source, re.M) and section:
            yield section
            section = []
        section.append(cell)
    yield section


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_checks_are_folded_to_one_line_a_section(path):
    for section in sections(path):
        folds = [c for c in section if c.cell_type == "code" and kind(c) == "checks" and "check" in fold_title(c)]
        assert len(folds) <= 1, section[0].source.splitlines()[0]


def fold_title(cell):
    return re.search(r"<summary>(.*?)</summary>", cell.outputs[0].data["text/html"])[1]


def calls(cell):
    """The calls of ir.check and ir.checks.record in a cell, with the names of their keywords."""
    for node in ast.walk(ast.parse(cell.source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ir.check", "ir.checks.record"):
            yield ast.unparse(node.func), {k.arg for k in node.keywords}


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_checks_say_their_claim_and_stand_in_a_fold(path):
    for cell in cells(path, "code"):
        for function, keywords in calls(cell):
            assert "says" in keywords, cell.source
            assert kind(cell) == "checks" or (function == "ir.check" and "CheckFailed" in cell.source), cell.source
        if "records.load(" in cell.source and "ir.check(" in cell.source:
            assert "ir.checks.record(" in cell.source, "prose against a stored record is no check"


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_chapter_has_the_anatomy(path):
    text = "\n".join(c.source for c in cells(path, "markdown"))
    code = [c.source for c in cells(path, "code")]
    exercises = len(re.findall(r'<a id="ex:[\w-]+"></a>\*\*Exercise \d', text))
    assert exercises >= 4
    assert exercises == text.count("<summary>Solution</summary>")
    assert sum("exercises.check(" in c for c in code) >= 2
    assert sum(len(list(calls(c))) for c in cells(path, "code")) >= 4
    assert any("CheckFailed" in c for c in code), "no cell breaks an assumption"
    statements = len(re.findall(r'<blockquote id="(?:thm|prop|cor|lem):', text))
    assert 3 <= statements == len(re.findall(r"<summary>Proof\b", text))
    for heading in ("What the source printed", "## Exercises", "## Try your own", "## Notes and references"):
        assert heading in text, heading
    claims = (runbook.BOOK / "appendix" / "claims.md").read_text("utf8")
    (anchor,) = set(re.findall(r"\]\(\.\./appendix/claims\.md#([\w-]+)\)", text))
    file = path.relative_to(runbook.ROOT).as_posix()
    assert re.search(rf'<a id="{anchor}"></a>\s+## \[.*\n\s+```\{{ledger\}} {file}\n', claims)


MARKUP = {
    "a directive": r"^\s*:::|^\s*```\{",
    "a role": r"\{[\w:]+\}`",
    "a target of MyST": r"^\([\w:-]+\)=",
    "a private macro": r"(?<!\\)\\(?:norm|argmin|row|E|R|tr|diag|rank)(?![A-Za-z])",
    "a macro of its own": r"\\(?:newcommand|def|DeclareMathOperator)(?![A-Za-z])",
    "display mathematics in a > quotation": r"^>.*\$\$",
    "a number still to be written": r"\*\*\w+ 0\.0|\\tag\{0\.0|\[\?\]\(|^# 0 ",
    "a chapter's number that is typed": r"(?<!\[)\b[Cc]hapters? \d",
    "text behind a fold": r"</details>\s*\S",
    "a control character": r"[\x00-\x09\x0b-\x1f\x7f]",
}


def markup(text):
    return {what: found for what, pattern in MARKUP.items() if (found := re.findall(pattern, text, re.M))}


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_prose_is_plain_markdown(path):
    for cell in cells(path, "markdown"):
        assert markup(cell.source) == {}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (":::{prf:theorem} T", "a directive"), ("```{ledger} x\n```", "a directive"), ("see {eq}`eq:x`", "a role"),
        ("(thm:x)=", "a target of MyST"), (r"$\norm{x}$", "a private macro"),
        (r"$\newcommand{\x}{y}$", "a macro of its own"),
        ("> so $$x$$", "display mathematics in a > quotation"), ("**Theorem 0.0**", "a number still to be written"),
        ("see chapter 4", "a chapter's number that is typed"), ("</details>\n\nMore.", "text behind a fold"),
        ("$\frac12$", "a control character"), ("$\rho$", "a control character"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_noticed(text, what):
    assert set(markup(text)) == {what}
    assert markup(r"[chapter 4](x.ipynb#ch:x), $\operatorname{tr}\Sigma$, $\eta$, `{a: 1}`, **Theorem 4.1**") == {}


def undefined(nb, folder):
    """Names that the cells a reader can see use, and none of them defines."""
    removed = {"remove-cell", "remove-input"}
    visible = [c for c in nb.cells if c.cell_type == "code" and not removed & set(c.metadata.get("tags", []))]
    file = folder / "visible.py"
    file.write_text("\n\n".join(c.source for c in visible), "utf8")
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "F821",
        "--output-format",
        "json",
        str(file),
    ]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return sorted({re.search("`(.*)`", f["message"])[1] for f in found})


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_visible_cells_run_on_their_own(path, tmp_path):
    nb = nbformat.read(path, 4)
    assert undefined(nb, tmp_path) == []
    for cell in cells(path, "code"):
        assert not re.search(r"myst_nb|\bglue\(", cell.source)
        assert not any(tag.startswith("remove-") for tag in cell.metadata.get("tags", []))


def test_a_name_that_only_a_removed_cell_defines_is_noticed(tmp_path):
    hidden = nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["remove-cell"]})
    folded = nbformat.v4.new_code_cell("z = 1", metadata={"tags": ["hide-cell"]})
    nb = nbformat.v4.new_notebook(cells=[hidden, folded, nbformat.v4.new_code_cell("y = x + z")])
    assert undefined(nb, tmp_path) == ["x"]


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_generators_are_seeded(path):
    code = "\n".join(c.source for c in cells(path, "code"))
    assert not re.search(
        r"default_rng\(\)|np\.random\.(?!default_rng|Generator)\w+\(|torch\.(?:rand|randn|randint)\(", code
    )


def pictures(cell):
    return [o.data for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_figures_have_captions_and_alternative_texts(path):
    book = nbformat.read(path, 4).cells
    for cell, below in itertools.pairwise(book):
        if cell.cell_type == "code" and kind(cell) == "draws":
            caption = re.match(r'<a id="fig:[\w-]+"></a>\*\*Figure \d+\.\d+\.\*\* (.*)', below.source, re.S)
            assert caption, cell.source
            assert len(caption[1]) > 60, cell.source
        if shown := pictures(cell):
            texts = cell.metadata["mystnb"]["image"]["alt"].split("|")
            assert len(texts) == len(shown), cell.source
            assert min(len(t.strip()) for t in texts) > 20, cell.source


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_panels_are_figures_of_their_own(path):
    for cell in cells(path, "code"):
        assert not re.search(r"subplots\(\s*\d", cell.source), cell.source
        assert (len(pictures(cell)) > 1) == ("panels" in cell.metadata.get("tags", [])), cell.source


SMALLEST = 9
"""CSS pixels of text on a phone of 390 pixels, where a figure is at most 336 wide."""


def text_sizes(svg):
    """How high a picture's texts are on a phone, in CSS pixels: Matplotlib scales letters of 100 to their points."""
    width = float(re.search(r'viewBox=["\']0 0 ([\d.]+)', svg)[1])
    scales = re.findall(r"translate\([^)]*\)(?: rotate\([^)]*\))? scale\(([\d.]+) -", svg)
    return [100 * float(s) * min(336 / width, 4 / 3) for s in scales]


def drawings(path):
    for cell in cells(path, "code"):
        for out in cell.outputs:
            data = out.get("data", {})
            if "image/svg+xml" in data:
                yield data["image/svg+xml"]
            if '<fieldset class="frames"' in data.get("text/html", ""):
                yield from map(unquote, re.findall(r'src="data:image/svg\+xml,([^"]*)"', data["text/html"]))


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_text_in_figures_can_be_read_on_a_phone(path):
    sizes = [text_sizes(svg) for svg in drawings(path)]
    assert sizes
    assert any(sizes)
    assert min(min(s, default=SMALLEST) for s in sizes) >= SMALLEST - 0.05


def test_small_text_is_noticed():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6.0, 3.0))
    ax.set_xlabel("small", fontsize=9)
    assert min(text_sizes(plotting.svg(fig))) < SMALLEST
    plt.close(fig)


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_figures_are_stored_twice_and_frames_are_small(path):
    for cell in cells(path, "code"):
        for out in cell.outputs:
            data = out.get("data", {})
            assert ("image/svg+xml" in data) == ("image/png" in data)
            assert len(data.get("text/html", "")) < 400_000


def test_the_example_of_a_check_is_a_line_of_a_chapter():
    (line,) = re.findall(r"^ok    .*$", (runbook.BOOK / "using.md").read_text("utf8"), re.M)
    assert any(json.dumps(line, ensure_ascii=False)[1:-1] in p.read_text("utf8") for p in CHAPTERS), line


def test_numbers_links_and_values_are_settled():
    texts = plain.settle(runbook.ROOT)
    assert {p.name for p, text in texts.items() if p.read_text("utf8") != text} == set(), "run `make run`"
    assert set(CHAPTERS) <= set(texts)
