"""A chapter runs again exactly when something that its outputs depend on has changed."""

import json

import nbformat
import pytest
from implicitreg import runbook

TITLE = '<a id="ch:x"></a>\n\n# 0 · X'


def notebook(*sources, words=()):
    cells = [nbformat.v4.new_markdown_cell(TITLE, id="t")]
    cells += [nbformat.v4.new_code_cell(s, id=f"c{i}") for i, s in enumerate(sources)]
    cells += [nbformat.v4.new_markdown_cell(s, id=f"m{i}") for i, s in enumerate(words)]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A book and a package of one module on a desk of their own."""
    (tmp_path / "book" / "records").mkdir(parents=True)
    (tmp_path / "pkg" / "implicitreg").mkdir(parents=True)
    (tmp_path / "requirements.txt").write_text("numpy==2\n")
    toc = (
        "format: jb-book\nroot: book/index\nparts:\n  - chapters:\n      - file: book/01_x\n      - file: book/words\n"
    )
    (tmp_path / "_toc.yml").write_text(toc)
    (tmp_path / "pkg" / "implicitreg" / "m.py").write_text('"""Doc."""\nx = 1  # one\n')
    monkeypatch.setattr(runbook, "ROOT", tmp_path)
    monkeypatch.setattr(runbook, "BOOK", tmp_path / "book")
    monkeypatch.setattr(runbook, "RUNTIMES", tmp_path / "book" / "records" / "runtimes.json")
    return tmp_path


def store(desk, nb, modules=("implicitreg.m",)):
    path = desk / "book" / "01_x.ipynb"
    runbook.clean(nb, list(modules))
    nbformat.write(nb, path)
    return path


def test_fresh_after_cleaning(desk):
    assert runbook.stale(store(desk, notebook("1 + 1"))) == []


def test_never_run(desk):
    path = desk / "book" / "01_x.ipynb"
    nbformat.write(notebook("1"), path)
    assert runbook.stale(path) == ["never run"]


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ('"""Another doc."""\nx = 1  # uno\n\n', []),
        ('"""Doc."""\nx = 2  # one\n', ["implicitreg.m"]),
        ('"""Doc."""\nx = "#1"\n', ["implicitreg.m"]),
    ],
    ids=["words", "code", "a hash inside a string"],
)
def test_stale_when_the_code_of_a_module_changes_not_its_words(desk, text, reasons):
    path = store(desk, notebook("1"))
    (desk / "pkg" / "implicitreg" / "m.py").write_text(text)
    assert runbook.stale(path) == reasons


def test_stale_when_cells_or_requirements_change(desk):
    path = store(desk, notebook("1"))
    nb = nbformat.read(path, 4)
    nb.cells[1].source = "2"
    nbformat.write(nb, path)
    (desk / "requirements.txt").write_text("numpy==3\n")
    assert runbook.stale(path) == ["cells", "requirements"]


def test_stale_when_a_named_ledger_entry_changes(desk, monkeypatch):
    path = store(desk, notebook('ir.check("hegde-1.2")'))
    monkeypatch.setattr(runbook.ledger, "claims", tuple)
    assert runbook.stale(path) == ["named"]


def test_prose_does_not_make_a_chapter_stale(desk):
    path = store(desk, notebook("1"))
    nb = nbformat.read(path, 4)
    nb.cells.append(nbformat.v4.new_markdown_cell("More words.", id="m"))
    nbformat.write(nb, path)
    assert runbook.stale(path) == []


def test_run_stores_outputs_modules_and_time_and_twice_the_same(desk, capsys):
    path = desk / "book" / "01_x.ipynb"
    nbformat.write(notebook("import implicitreg.checks\nprint(6 * 7)", "{3, 1, 2}"), path)
    assert runbook.main([]) == 0
    first = path.read_bytes()
    nb = nbformat.read(path, 4)
    assert nb.cells[0].source.endswith("# 1 · X")
    assert nb.cells[1].outputs[0].text == "42\n"
    assert {"implicitreg", "implicitreg.checks", "implicitreg._validate"} <= set(nb.metadata["book"]["modules"])
    assert json.loads(runbook.RUNTIMES.read_text())["01_x"] > 0
    assert "[1/1] 01_x" in capsys.readouterr().out
    assert runbook.main(["--force"]) == 0
    assert path.read_bytes() == first


CAPTION = '<a id="fig:x"></a>**Figure 0.0.** A line.'
DRAW = "import implicitreg.plotting as p\nimport matplotlib.pyplot as plt\n"


@pytest.mark.parametrize(
    ("source", "text", "words"),
    [
        ("1 / 0", "", "ZeroDivisionError"),
        ("import sys\nprint('oh', file=sys.stderr)", "", "written to stderr"),
        ("1", CAPTION, "Figure 0.0 has a caption and no picture"),
        ("1", "It takes 3<!--=n--> steps.", "n is quoted, and no cell prints it"),
        ("print('n = (3)')", "It takes 3<!--=n--> steps.", "expected one phrase"),
    ],
    ids=["error", "stderr", "figure", "value", "odd value"],
)
def test_a_failing_chapter_keeps_its_old_outputs(desk, capsys, source, text, words):
    path = desk / "book" / "01_x.ipynb"
    nbformat.write(notebook(source, words=[text]), path)
    before = path.read_bytes()
    assert runbook.main([]) == 1
    assert path.read_bytes() == before
    assert words in capsys.readouterr().out


def test_the_environment_does_not_leak_into_what_is_stored(desk, monkeypatch):
    """A backend without pictures, and a style of the reader's own."""
    (desk / "matplotlibrc").write_text("lines.marker: o\naxes.labelcolor: white\ntext.usetex: True\n")
    path, stored = desk / "book" / "01_x.ipynb", []
    for settings in ({}, {"MPLBACKEND": "agg", "MATPLOTLIBRC": str(desk / "matplotlibrc")}):
        for key, value in settings.items():
            monkeypatch.setenv(key, value)
        draw = DRAW + "p.use()\nfig, ax = plt.subplots()\nax.plot([0, 1])\nax.set_xlabel('time');"
        nbformat.write(notebook(draw, words=[CAPTION]), path)
        assert runbook.main([]) == 0
        stored.append(path.read_bytes())
    assert b"image/svg+xml" in stored[0]
    assert b"image/png" in stored[0]
    assert stored[0] == stored[1]


def test_a_change_of_words_is_settled_without_a_run(desk, capsys):
    path = desk / "book" / "01_x.ipynb"
    nbformat.write(notebook("print('n = 26')", words=["It takes 3<!--=n--> steps."]), path)
    assert runbook.main([]) == 0
    nb = nbformat.read(path, 4)
    assert nb.cells[2].source == "It takes 26<!--=n--> steps."
    nb.cells[2].source = "After 0<!--=n--> steps."
    nbformat.write(nb, path)
    capsys.readouterr()
    assert runbook.main([]) == 0
    assert capsys.readouterr().out == "numbers, links and values: 01_x\n"
    assert nbformat.read(path, 4).cells[2].source == "After 26<!--=n--> steps."


def test_what_a_cell_prints_in_pieces_is_one_output():
    piece = lambda text, name="stdout": nbformat.v4.new_output("stream", name=name, text=text)  # noqa: E731
    picture = nbformat.v4.new_output("display_data", {"text/plain": "p"})
    nb = notebook("1")
    nb.cells[1].outputs = [piece("a"), piece("b\n"), picture, piece("c"), piece("d", "stderr"), piece("e", "stderr")]
    runbook.clean(nb, [])
    assert [o.get("text") for o in nb.cells[1].outputs] == ["ab\n", None, "c", "de"]


def test_unknown_chapter_names_the_known(desk):
    store(desk, notebook("1"))
    with pytest.raises(SystemExit, match="chapter '99': expected one of 01_x"):
        runbook.main(["99"])
