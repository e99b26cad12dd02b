"""The ledger's reader; what the entries point to is checked in tests/book/test_claims.py."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from implicitreg import ledger

ENTRY = "- {id: a-1, source: S, printed: P, verdict: holds, chapter: 'f#l'}\n"


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
    ],
    ids=["twice", "verdict", "missing", "unknown"],
)
def test_parse_refuses(text, words):
    with pytest.raises(ValueError, match=words):
        ledger.parse(text)


def test_explain_names_what_was_printed_and_what_is_true():
    text = str(ledger.explain("hegde-erratum-8"))
    assert "printed:" in text
    assert "corrected" in text
    assert max(map(len, text.splitlines())) <= 130


def test_explain_unknown_names_neighbours():
    with pytest.raises(
        ValueError, match="id = 'hegde-eratum-8': expected a claim of the ledger, such as 'hegde-erratum-8'"
    ):
        ledger.explain("hegde-eratum-8")


def test_wheel_carries_the_ledger(tmp_path):
    root = Path(__file__).parents[1]
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert wheel.read("implicitreg/claims.yml") == (root / "book" / "claims.yml").read_bytes()
        assert "implicitreg/py.typed" in wheel.namelist()
