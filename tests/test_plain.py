"""What a chapter counts, refers to and quotes; and what is no chapter of the book."""

import nbformat
import pytest
from implicitreg import plain
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

BIB = """
@article{one2018, author = {One, Ann and Two, Bo}, title = {A {Title}}, journal = {J}, year = {2018}}
@article{many2019, author = {One, Ann and Two, Bo and Three, Cy}, title = {B}, journal = {J}, year = {2019}}
@article{oneb, author = {van der One, Ann}, title = {C, \\url{https://x.org/a_b}}, journal = {J}, year = {2020}}
@article{accent, author = {Cand{\\`e}s, E.}, title = {E}, journal = {J}, year = {2009}}
@article{onea, author = {van der One, Ann}, title = {D}, journal = {J}, year = {2020}}
"""


def title(name, words="X"):
    return f'<a id="ch:{name}"></a>\n\n# 0 · {words}'


def chapter(*sources, printed=""):
    stream = [new_output("stream", name="stdout", text=printed)] if printed else []
    code = new_code_cell("0", id="c", execution_count=1, outputs=stream)
    return new_notebook(cells=[*(new_markdown_cell(s, id=f"m{i}") for i, s in enumerate(sources)), code])


@pytest.fixture
def desk(tmp_path):
    """A book of two chapters and a page: in the contents the second file comes first."""
    book = tmp_path / "book"
    (book / "1-a").mkdir(parents=True)
    (book / "2-b").mkdir()
    (book / "appendix").mkdir()
    files = ["book/2-b/01_two", "book/page", "book/1-a/01_one"]
    (tmp_path / "_toc.yml").write_text(
        "root: r\nparts:\n  - chapters:\n" + "".join(f"      - file: {f}\n" for f in files)
    )
    (book / "references.bib").write_text(BIB)
    (book / "appendix" / "bibliography.md").write_text("# Bibliography\n\n## Works cited\n\nold\n")
    (book / "page.md").write_text("See [?](1-a/01_one.ipynb#thm:a), [0 · ?](2-b/01_two.ipynb#ch:two).\n")

    def write(one, two):
        nbformat.write(chapter(title("one", "First"), *one), book / "1-a" / "01_one.ipynb")
        nbformat.write(chapter(title("two", "Second"), *two), book / "2-b" / "01_two.ipynb")
        return {p.relative_to(book).as_posix(): text for p, text in plain.settle(tmp_path).items()}

    return write


def prose(text):
    return [c.source for c in nbformat.reads(text, 4).cells if c.cell_type == "markdown"]


THEOREM = '<blockquote id="thm:a">\n\n**Theorem 9.9** (A). Text.\n\n</blockquote>'


def test_numbers_follow_the_contents_and_the_order_of_the_text(desk):
    corollary = '<blockquote id="cor:c">\n\n**Corollary 0.0** (C).\n\n</blockquote>'
    equation = '<a id="eq:z"></a>\n\n$$\n\\sum_{s<t} a \\tag{0.0}\n$$'
    texts = desk([THEOREM + "\n\n" + corollary, equation, '<a id="ex:e"></a>**Exercise 0.0** (E). Do.'], [])
    one = prose(texts["1-a/01_one.ipynb"])
    assert one[0].endswith("# 2 · First")
    assert "**Theorem 2.1** (A)" in one[1]
    assert "**Corollary 2.2** (C)" in one[1]
    assert "\\tag{2.1}" in one[2]
    assert one[3] == '<a id="ex:e"></a>**Exercise 2.1** (E). Do.'
    assert prose(texts["2-b/01_two.ipynb"])[0].endswith("# 1 · Second")
    assert texts["page.md"] == "See [Theorem 2.1](1-a/01_one.ipynb#thm:a), [1 · Second](2-b/01_two.ipynb#ch:two).\n"


@pytest.mark.parametrize(
    ("written", "settled"),
    [
        ("[?](../1-a/01_one.ipynb#thm:a)", "[Theorem 2.1](../1-a/01_one.ipynb#thm:a)"),
        ("[9.9](../1-a/01_one.ipynb#thm:a)", "[2.1](../1-a/01_one.ipynb#thm:a)"),
        ("[Theorems 9.9](../1-a/01_one.ipynb#thm:a)", "[Theorems 2.1](../1-a/01_one.ipynb#thm:a)"),
        ("[?](#eq:z)", "[(1.1)](#eq:z)"),
        ("[?](../1-a/01_one.ipynb#ch:one)", "[chapter 2](../1-a/01_one.ipynb#ch:one)"),
        ("[Chapter 7](../1-a/01_one.ipynb#ch:one)", "[Chapter 2](../1-a/01_one.ipynb#ch:one)"),
        ("[chapters 7](#ch:two) and [8](../1-a/01_one.ipynb#ch:one)",
         "[chapters 1](#ch:two) and [2](../1-a/01_one.ipynb#ch:one)"),
        ("[? (?)](../appendix/bibliography.md#one2018)", "[One and Two (2018)](../appendix/bibliography.md#one2018)"),
        ("[? 2018](../appendix/bibliography.md#one2018)", "[One and Two 2018](../appendix/bibliography.md#one2018)"),
        ("[?](../appendix/bibliography.md#many2019)", "[One et al. (2019)](../appendix/bibliography.md#many2019)"),
        ("[?](../appendix/bibliography.md#accent)", "[Candès (2009)](../appendix/bibliography.md#accent)"),
        ("[?](../appendix/bibliography.md#oneb)", "[van der One (2020b)](../appendix/bibliography.md#oneb)"),
    ],
)  # fmt: skip
def test_words_of_links(desk, written, settled):
    equation = '<a id="eq:z"></a>\n\n$$ a \\tag{0.0} $$'
    assert prose(desk([THEOREM], [equation, written])["2-b/01_two.ipynb"])[2] == settled


@pytest.mark.parametrize(
    "text",
    [
        "[?](#thm:nowhere)",
        "[?](../1-a/01_none.ipynb#ch:one)",
        "[?](../page.md.ipynb#thm:a)",
        "[?](../appendix/bibliography.md#none)",
    ],
)
def test_a_link_to_nothing_is_an_error(desk, text):
    with pytest.raises(KeyError):
        desk([THEOREM], [text])


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([THEOREM, THEOREM], "thm:a is defined twice"),
        (['<blockquote id="thm:b">\n\n**Theorem** (B).\n\n</blockquote>'], "thm:b: expected its number"),
        (['<a id="eq:b"></a>\n\n$$ a $$\n\n$$ b \\tag{0.0} $$'], "eq:b: expected its number"),
        (['<a id="fig:b"></a>**Figure 0.0.** Nothing above.'], "Figure 2.1 has a caption and no picture"),
    ],
)
def test_what_cannot_be_numbered_is_an_error(desk, texts, words):
    with pytest.raises(ValueError, match=words):
        desk(texts, [])


def test_a_chapter_has_a_title():
    with pytest.raises(ValueError, match="# 0 · Title"):
        plain.entitle(chapter("# Title"), 1)


def test_the_list_of_works(desk):
    text = desk([THEOREM], [])["appendix/bibliography.md"]
    assert text.startswith('# Bibliography\n\n## Works cited\n\n<a id="accent"></a>**Candès (2009).**')
    assert "old" not in text
    assert text.index("2020a") < text.index("2020b")
    assert "A Title" in text
    assert '<a id="one2018"></a>**One and Two (2018).**' in text


def test_values_are_what_was_printed():
    nb = chapter(
        "It takes 3<!--=n-->, **4**<!--=n-->, (5<!--=n-->), $5$<!--=x-->, 0<!--=p-->, |cell|6<!--=n-->|.",
        printed="n = 26\nx = $10^{-3}$\np = 4.2 %\n",
    )
    plain.quote(nb)
    assert nb.cells[0].source == (
        "It takes 26<!--=n-->, **26**<!--=n-->, (26<!--=n-->), $10^{-3}$<!--=x-->, 4.2\u00a0%<!--=p-->, "
        "|cell|26<!--=n-->|."
    )


def test_settling_values_twice_changes_nothing():
    nb = chapter("About 0<!--=p--> of them.", printed="p = 0.2 ± 0.7\n")
    plain.quote(nb)
    once = nb.cells[0].source
    plain.quote(nb)
    assert nb.cells[0].source == once == "About 0.2\u00a0±\u00a00.7<!--=p--> of them."


@pytest.mark.parametrize(
    ("text", "printed", "error", "words"),
    [
        ("It takes 3<!--=m-->.", "n = 26\n", KeyError, "m is quoted, and no cell prints it"),
        ("It takes <!--=n--> steps.", "n = 26\n", ValueError, "without a number before it"),
        ("It takes 3<!--=n-->.", "n = 26\nn = 27\n", ValueError, "'26' and as '27'"),
        ("It takes 3<!--=n-->.", "n = f(x)\n", ValueError, "expected one phrase"),
    ],
)
def test_a_value_that_cannot_be_quoted_is_an_error(text, printed, error, words):
    with pytest.raises(error, match=words):
        plain.quote(chapter(text, printed=printed))


def test_a_value_with_breaking_blanks_is_not_written_twice():
    with pytest.raises(ValueError, match=r"'2\.1 ± 0\.5' stands twice"):
        plain.quote(chapter("It is 2.1 ± 0.5<!--=gap--> points.", printed="gap = 2.1 ± 0.5\n"))
    for text in ("It is 2.1\u00a0±\u00a00.5<!--=gap--> points.", "From 1.2 ± 0.5 to 2.1\u00a0±\u00a00.5<!--=gap-->."):
        nb = chapter(text, printed="gap = 2.1 ± 0.5\n")
        plain.quote(nb)
        assert nb.cells[0].source == text


@pytest.mark.parametrize(
    ("printed", "tags", "summary"),
    [
        ("ok    a < b: 1\n", [], "1 check passes"),
        ("ok    a: 1\nok    b: 2\n", [], "2 checks pass"),
        ("ok    a: 1\nrecord  b: 2\n", [], "1 check passes, 1 record agrees"),
        ("n = 3\nm = 4\n", ["numbers"], "2 numbers of the text"),
        ("n = 3\n", [], None),
        ("ok    a: 1\nn = 3\n", [], None),
        ("ok    a: 1\nFAILS b\n", [], None),
        ("", [], None),
    ],
)
def test_checks_fold_to_one_line_and_twice_the_same(printed, tags, summary):
    nb = chapter(printed=printed)
    cell = nb.cells[0]
    cell.metadata["tags"] = tags
    plain.fold(nb)
    once = nbformat.writes(nb)
    plain.fold(nb)
    assert nbformat.writes(nb) == once
    if summary is None:
        assert "mystnb" not in cell.metadata
        assert "jupyter" not in cell.metadata
        return
    (out,) = cell.outputs
    assert out.data["text/plain"] == printed
    assert f"<summary>{summary}</summary><pre>{printed.replace('<', '&lt;')}</pre>" in out.data["text/html"]
    assert "hide-cell" in cell.metadata["tags"]
    assert cell.metadata["mystnb"]["code_prompt_show"] == summary
    assert cell.metadata["jupyter"] == {"source_hidden": True}


def test_a_cell_that_checks_no_more_is_unfolded():
    nb = chapter(printed="ok    a: 1\n")
    plain.fold(nb)
    nb.cells[0].outputs = [new_output("stream", name="stdout", text="3\n")]
    plain.fold(nb)
    assert nb.cells[0].metadata == {"tags": []}


def test_an_answer_that_its_author_folds_stays_folded():
    nb = chapter(printed="26\n")
    kept = {"tags": ["hide-output"], "mystnb": {"code_prompt_show": "Show the output"}}
    nb.cells[0].metadata.update(kept)
    plain.fold(nb)
    assert nb.cells[0].metadata == kept


def test_folded_checks_still_print_values():
    nb = chapter("It takes 0<!--=n-->.", printed="n = 3\n")
    nb.cells[1].metadata["tags"] = ["numbers"]
    plain.fold(nb)
    plain.quote(nb)
    assert nb.cells[0].source == "It takes 3<!--=n-->."
