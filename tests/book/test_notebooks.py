"""The chapters as stored: fresh, clean, quick, and built to the anatomy."""

import json
import re

import nbformat
import pytest
from implicitreg import runbook

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
def test_cells_are_short(path):
    for c in cells(path, "code"):
        lines = [line for line in c.source.splitlines() if line.strip()]
        draws = "subplots(" in c.source
        assert len(lines) <= (8 if draws else 15), c.source.splitlines()[0]
        assert max(map(len, lines), default=0) <= 100


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_chapter_has_the_anatomy(path):
    text = "\n".join(c.source for c in cells(path, "markdown"))
    code = "\n".join(c.source for c in cells(path, "code"))
    assert text.count(":::{exercise}") >= 4
    assert text.count(":::{exercise}") == text.count(":::{solution}")
    assert len(re.findall(r"exercises\.check\(", code)) >= 2
    assert len(re.findall(r"ir\.check\(", code)) >= 4
    assert "CheckFailed" in code, "no cell breaks an assumption"
    statements = len(re.findall(r":::\{prf:(?:theorem|proposition|corollary|lemma)\}", text))
    assert 3 <= statements == text.count(":::{prf:proof}")
    for heading in ("What the source printed", "## Exercises", "## Try your own", "## Notes and references"):
        assert heading in text, heading
    assert f"{{ledger}} {path.relative_to(runbook.ROOT).as_posix()}" in text
    assert "{runtime}" in text


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_generators_are_seeded(path):
    code = "\n".join(c.source for c in cells(path, "code"))
    assert not re.search(
        r"default_rng\(\)|np\.random\.(?!default_rng|Generator)\w+\(|torch\.(?:rand|randn|randint)\(", code
    )


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_figures_have_captions_and_alternative_texts(path):
    for c in cells(path, "code"):
        if "plt." in c.source and "subplots(" in c.source:
            meta = c.metadata.get("mystnb", {})
            assert len(meta["figure"]["caption"]) > 60, c.source
            assert len(meta["image"]["alt"]) > 30, c.source
