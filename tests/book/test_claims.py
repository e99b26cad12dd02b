"""The ledger and what it points to."""

import ast
import importlib
import os
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
from implicitreg import ledger, plain, runbook

CLAIMS = ledger.claims()
name = lambda claim: claim.id  # noqa: E731
SILENT = ("cited", "textual")


@cache
def names_in(file):
    """The functions of a test module, and of each the ids given to its parameters as literal strings."""
    tree = ast.parse((runbook.ROOT / file).read_text("utf8"))
    return {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, {
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


@cache
def checks_in(path):
    code = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    return set(re.findall(r"\bir\.(?:check|checks\.record)\(\s*[\"']([\w.-]+)[\"']", "\n".join(code)))


def assert_is_a_test(node):
    file, _, test = node.partition("::")
    function, _, parameter = test.partition("[")
    functions, strings = names_in(file)
    assert function in functions, f"{node} does not exist"
    assert not parameter or parameter.rstrip("]") in strings, f"{node}: no such parameter"


@pytest.mark.parametrize("claim", CLAIMS, ids=name)
def test_function_exists(claim):
    if claim.function:
        module, _, function = claim.function.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.verdict not in SILENT], ids=name)
def test_claim_has_function_tests_control_and_check(claim):
    assert claim.function
    assert claim.correct
    assert claim.tests
    assert claim.control
    for node in (*claim.tests, claim.control):
        assert_is_a_test(node)
    assert any(claim.id in checks_in(p) for p in runbook.chapters()), "no chapter checks it"


@pytest.mark.parametrize("claim", CLAIMS, ids=name)
def test_chapter_and_label_exist(claim):
    file, _, label = claim.chapter.partition("#")
    text = "\n".join(c.source for c in nbformat.read(runbook.ROOT / file, 4).cells if c.cell_type == "markdown")
    assert f' id="{label}"' in text, label


@pytest.mark.parametrize("path", runbook.chapters(), ids=lambda p: p.stem)
def test_checks_name_entries(path):
    assert checks_in(path) - {c.id for c in CLAIMS} == set()


@pytest.mark.parametrize("claim", CLAIMS, ids=name)
def test_ids_name_their_source(claim):
    assert re.match(r"(hegde|roberts|tenka|wu|ours)-", claim.id)
    assert claim.id.split("-")[0] in claim.source.lower()


SOURCE = {
    "hegde": "Chapter 7 - Implicit regularization",
    "roberts": "# SGD Implicitly Regularizes Generalization Error",
    "tenka": "# **SGD** at Small Learning Rates",
    "wu": "On the Noisy Gradient Descent that Generalizes as SGD",
}
"""A line by which each source is known."""


@cache
def source(key):
    """The text of a source, with its paragraphs marked; skipped where the sources are not at hand."""
    folder = os.environ.get("IMPLICITREG_SOURCES")
    if not folder or not Path(folder).is_dir():
        pytest.skip("the sources are not here: IMPLICITREG_SOURCES names their folder")
    texts = [p.read_text("utf8") for p in sorted(Path(folder).glob("*.txt"))]
    (text,) = [t for t in texts if SOURCE[key] in t]
    return normal(text)


def normal(text):
    """One blank between words, ¶ between paragraphs, plain quotation marks and hyphens, no emphasis, no blank
    between a formula and its full stop."""
    text = text.translate(str.maketrans("“”‘’–—−\u00a0", "\"\"''--- "))
    text = re.sub(r"\*+|<sup>.*?</sup>|\[[\d, -]+\]", "", text)
    text = re.sub(r"\$ (?=[.,:;?!)])", "$", text)
    return re.sub(r"[ \t\n]+", " ", re.sub(r"\n\s*\n", " ¶ ", text)).strip()


def sentences(text, begins, ends):
    """How often a sentence of the text begins and ends with these words (a sentence may hold displays)."""
    begin, end = (re.escape(normal(words)) for words in (begins, ends))
    before = r"(?:^|[.?!:;)\"'¶•>-] |\]\s|\d\. |\$ ?)"
    after = r"[\"')\]$]* ?(?:[.?!:;]|,? ¶|$)"  # a source may set a blank before the stop
    return len(re.findall(rf"{before}{begin}(?!\w)(?:(?!{begin}).){{0,1500}}?(?<!\w){end}(?={after})", text))


def is_ours(claim):
    return claim.verdict == "ours"


@pytest.mark.parametrize("claim", [c for c in CLAIMS if not is_ours(c)], ids=name)
def test_a_printed_sentence_stands_once_in_its_source(claim):
    assert claim.where, "where does it stand?"
    text = source(claim.id.split("-")[0])
    if "equation" in claim.where:
        assert len(re.findall(rf"\({claim.where['equation']}\)\s*\$\$", text)) == 1
        return
    assert normal(claim.where["heading"]) in text
    for words in (claim.where["begins"], claim.where["ends"]):
        assert len(words.split()) == 2, f"{words!r}: two words"
    assert sentences(text, claim.where["begins"], claim.where["ends"]) == 1, claim.where


@pytest.mark.parametrize(
    ("begins", "ends", "times"),
    [
        ("We say", 'a "proof"', 1),
        ("We say", "is true", 0),
        ("say that", 'a "proof"', 0),
        ("Or not,", "of it", 1),
        ("Or not", "of it", 2),
    ],
    ids=["whole", "first half", "second half", "once", "twice"],
)
def test_a_locator_wants_a_whole_sentence(begins, ends, times):
    text = normal("Then we rest. We say that this is true, with\na “proof”.\n\nOr not, of it. Or not of it?")
    assert sentences(text, begins, ends) == times


@pytest.mark.parametrize("claim", CLAIMS, ids=name)
def test_one_sentence_has_one_entry(claim):
    if claim.where:
        twins = [c.id for c in CLAIMS if c.where == claim.where and c.source == claim.source]
        assert twins == [claim.id]


def test_works_named_in_notes_are_in_the_bibliography():
    works = {" ".join(w) for w in plain.works(runbook.BOOK / "references.bib").values()}
    for claim in CLAIMS:
        for who, year in re.findall(
            r"((?:[A-ZÀ-Ž][\w'’-]+(?:, | and | et al\.)?)+) \(?((?:19|20)\d\d[a-h]?)\)?", claim.note
        ):
            assert f"{who.strip()} {year}" in works, f"{claim.id}: {who} {year}"
