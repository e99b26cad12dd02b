"""The ledger and what it points to."""

import ast
import importlib
import re
from functools import cache

import nbformat
import pytest
from implicitreg import ledger, runbook

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
    assert re.match(r"(hegde|roberts|tenka|wu|together)-", claim.id)
    assert claim.id.split("-")[0] in claim.source.lower()
