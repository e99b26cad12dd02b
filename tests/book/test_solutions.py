"""The solutions printed in the chapters pass the checks of their exercises."""

import ast
import re
import symtable
import textwrap

import nbformat
import pytest
from implicitreg import exercises, runbook


def printed(path):
    """(chapter's code, label, name of the answer, code of the solution) of each exercise that asks for a function."""
    cells = nbformat.read(path, 4).cells
    chapter = "\n".join(c.source for c in cells if c.cell_type == "code")
    for k, cell in enumerate(cells):
        asked = re.search(r'exercises\.check\("([\w-]+)", (\w+)\)', cell.source)
        if not asked or exercises._find(asked[1]).draw is None:
            continue
        solution = next(c.source for c in cells[k + 1 :] if "<summary>Solution</summary>" in c.source)
        code = "\n".join(re.findall(r"(?m)^ {4}.*$|^$", solution)).strip("\n")
        if code and "def " not in code:  # the body alone
            code = f"    {cell.source.splitlines()[0]}\n" + textwrap.indent(code, "    ")
        yield pytest.param(chapter, asked[1], asked[2], textwrap.dedent(code), id=asked[1])


def bound(node):
    """The names that a statement of a chapter defines."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {a.asname or a.name for a in node.names}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def loaded(table):
    """The names that a statement takes from outside."""
    outside = (lambda s: s.is_referenced()) if table.get_type() == "module" else (lambda s: s.is_global())
    return {s.get_name() for s in table.get_symbols() if outside(s)}.union(*map(loaded, table.get_children()))


def tools(chapter, solution):
    """What the solution uses of its chapter: the statements that define it, and those that these need."""
    names, kept = loaded(symtable.symtable(solution, "solution", "exec")), []
    for node in reversed(ast.parse(chapter).body):
        if bound(node) & names:
            kept.insert(0, ast.unparse(node))
            names |= loaded(symtable.symtable(kept[0], "chapter", "exec"))
    return "\n".join(kept)


SOLUTIONS = [p for path in runbook.chapters() for p in printed(path)]


def test_only_a_formula_in_the_text_stands_for_code():
    assert [p.id for p in SOLUTIONS if not p.values[3]] == ["sde-balance"]


@pytest.mark.parametrize(("chapter", "label", "name", "code"), [p for p in SOLUTIONS if p.values[3]])
def test_printed_solution_is_right(chapter, label, name, code):
    space = {}
    exec(tools(chapter, code), space)
    exec(code, space)
    assert exercises.grade(label, space[name]).says == "right"
