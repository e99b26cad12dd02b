"""The ledger's reader; what the entries point to is checked in tests/book/test_claims.py."""

import pytest
from implicitreg import ledger

ENTRY = "- {id: a-1, source: S, printed: P, verdict: holds, chapter: 'f#l'}\n"
OURS = "- {id: ours-1, source: ours, verdict: ours, chapter: 'f#l'}\n"


def test_what_no_source_printed_is_ours():
    (claim,) = ledger.parse(OURS)
    assert (claim.printed, claim.where) == ("", {})


def test_an_entry_says_where_its_sentence_stands():
    (claim,) = ledger.parse(ENTRY.replace("printed: P", "printed: P, where: {heading: H, begins: a b, ends: c d}"))
    assert "H: a b … c d" in str(claim)


def test_parse_reads_an_entry():
    (claim,) = ledger.parse(ENTRY)
    assert (claim.id, claim.verdict, claim.tests) == ("a-1", "holds", ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ENTRY + ENTRY, "id 'a-1' stands 2 times"),
        (ENTRY.replace("holds", "perhaps"), "verdict = 'perhaps': expected one of holds"),
        (ENTRY.replace("source: S, ", ""), r"missing keys \['source'\]"),
        (ENTRY.replace("chapter", "chapters"), r"unknown keys \['chapters'\]"),
        (ENTRY.replace("printed: P, ", ""), "expected a printed sentence"),
        (ENTRY.replace("holds", "ours"), "an id ours-…"),
        (OURS.replace("source", "printed: P, source"), "and nothing printed"),
        (ENTRY.replace("source: S", "source: S, where: {heading: H}"), "expected heading, begins and ends"),
        (OURS.replace("verdict", "where: {equation: 1}, verdict"), "expected heading, begins and ends"),
    ],
    ids=[
        "twice",
        "verdict",
        "missing",
        "unknown",
        "not printed",
        "ours by name",
        "ours and printed",
        "where",
        "nowhere",
    ],
)
def test_parse_refuses(text, words):
    with pytest.raises(ValueError, match=words):
        ledger.parse(text)


def test_explain_names_what_was_printed_and_what_is_true():
    text = str(ledger.explain("hegde-erratum-2"))
    assert "printed:" in text
    assert "corrected" in text
    assert max(map(len, text.splitlines())) <= 130


def test_claims_of_a_chapter_and_of_none():
    claims = ledger.of_chapter("book/1-flow/01_min_norm.ipynb")
    assert claims == tuple(c for c in ledger.claims() if "/01_min_norm.ipynb" in c.chapter)
    with pytest.raises(ValueError, match=r"file = '01_min_norm': expected a chapter .*01_min_norm\.ipynb"):
        ledger.of_chapter("01_min_norm")


def test_a_claim_reads_the_same_at_the_prompt_and_printed():
    claim = ledger.explain("hegde-erratum-2")
    assert repr(claim) == str(claim)


def test_explain_unknown_names_neighbours():
    with pytest.raises(
        ValueError, match="id = 'hegde-eratum-2': expected a claim of the ledger, such as 'hegde-erratum-2'"
    ):
        ledger.explain("hegde-eratum-2")


def test_what_a_caller_writes_into_a_claim_changes_no_later_answer():
    claim = next(c for c in ledger.claims() if "heading" in c.where)
    before = dict(claim.where)
    claim.where["heading"] = "elsewhere"
    ledger.explain(claim.id).where.clear()
    assert ledger.explain(claim.id).where == before
    assert next(c for c in ledger.claims() if c.id == claim.id).where == before
