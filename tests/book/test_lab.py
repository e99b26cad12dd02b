"""What a reader finds who opens a chapter in JupyterLab, as it is installed, without extensions."""

import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from implicitreg import runbook
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("lab")]
CHAPTERS = runbook.chapters()
NAMES = [p.relative_to(runbook.BOOK).as_posix() for p in CHAPTERS]
AMISS = {
    "foreign": "a request that leaves the machine",
    "mathErrors": "a formula or a macro that MathJax does not know",
    "rawMath": "a formula that was not rendered",
    "rawRoles": "a directive or a role",
    "comments": "a comment that shows",
    "onlyWords": "a figure of which there are only words",
    "hidden": "a picture that is not drawn",
    "errors": "an error",
}


@pytest.fixture(scope="module")
def lab(node):
    """``lab(folder, word, …)``: what was seen in each notebook, in a JupyterLab of its own."""
    jupyter = Path(sys.executable).with_name("jupyter")
    return lambda folder, *words: node("lab.mjs", jupyter, folder, *words)


def amiss(seen):
    return {AMISS[key]: seen[key] for key in AMISS if seen[key]}


def captions(path):
    return sum(bool(re.match(r'<a id="fig:', c.source)) for c in nbformat.read(path, 4).cells)


def with_frames():
    """A chapter with a row of frames, the shortest file of those."""
    moving = [p for p in CHAPTERS if 'class=\\"frames\\"' in p.read_text("utf8")]
    return min(moving, key=lambda p: p.stat().st_size).relative_to(runbook.BOOK).as_posix()


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A copy of the chapters, as a reader downloads them; JupyterLab writes beside what it opens."""
    folder = tmp_path_factory.mktemp("book")
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy2(runbook.BOOK / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def untrusted(lab, book):
    return {seen["notebook"]: seen for seen in lab(book, *NAMES)}


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_reads_well_in_jupyterlab(untrusted, name):
    seen = untrusted[name]
    assert amiss(seen) == {}
    assert seen["formulas"] > 100
    assert seen["captions"] == captions(runbook.BOOK / name)
    assert seen["figures"] + seen["frames"] >= seen["captions"]
    assert seen["folds"] >= 3
    if seen["frames"]:
        (shown,) = seen["moves"]  # without trust: no dead buttons
        assert len(shown) == 1


@pytest.mark.parametrize("words", [["--trust"], ["--trust", "--dark"]], ids=["trusted", "dark theme"])
def test_frames_move_with_the_arrow_keys_in_a_trusted_notebook(lab, book, words):
    (seen,) = lab(book, *words, with_frames())
    assert amiss(seen) == {}
    assert seen["moves"][1:] == [[1], [2]]
    assert seen["theme"] == ("false" if "--dark" in words else "true")


def test_what_only_the_site_understands_is_noticed(lab, tmp_path):
    """Negative control: a directive, a macro, a role, a comment's neighbour, and a figure without PNG."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
    figure = new_output("display_data", {"image/svg+xml": svg, "text/plain": "<Figure size 9x9 with 1 Axes>"})
    failed = new_output("error", ename="E", evalue="no", traceback=["E: no"])
    texts = [":::{prf:theorem} T\nText.\n:::", r"The length $\norm{x}$.", "See {prf:ref}`thm:x`."]
    code = [
        new_code_cell("1", execution_count=1, outputs=[figure]),
        new_code_cell("2", execution_count=2, outputs=[failed]),
    ]
    nbformat.write(new_notebook(cells=[*map(new_markdown_cell, texts), *code]), tmp_path / "x.ipynb")
    (seen,) = lab(tmp_path, "x.ipynb")
    assert {"mathErrors", "rawRoles", "onlyWords", "errors"} <= {key for key in AMISS if seen[key]}
    assert len(seen["rawRoles"]) >= 2
