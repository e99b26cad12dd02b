"""The package loads fast, says what it has, and refuses what is wrong in the same words everywhere."""

import ast
import importlib
import inspect
import subprocess
import sys
import time
from pathlib import Path

import implicitreg as ir
import jedi
import numpy as np
import pytest
from implicitreg import _validate

PACKAGE = Path(ir.__file__).parent


def test_import_takes_under_a_second_and_loads_no_torch():
    code = "import sys, implicitreg; assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert time.perf_counter() - begin < 1


def test_everything_announced_is_there():
    for package in (ir, ir.flow, ir.gap, ir.diagrams, ir.diagrams.corollaries, ir.ensembles, ir.noise):
        for name in dir(package):
            assert getattr(package, name) is not None


LAZY = [p for p in sorted(PACKAGE.rglob("__init__.py")) if "attach(" in p.read_text("utf8")]


@pytest.mark.parametrize("path", LAZY, ids=lambda p: p.parent.name)
def test_type_checkers_see_what_is_announced_and_nothing_else(path):
    """Names for type checkers are imported; the function that finds them at run time would say yes to every name."""
    (split,) = (node for node in ast.parse(path.read_text("utf8")).body if isinstance(node, ast.If))
    assert ast.unparse(split.test) == "TYPE_CHECKING"
    imported = [a.asname or a.name for node in split.body for a in node.names]
    package = importlib.import_module(".".join(path.parent.relative_to(PACKAGE.parent).parts))
    assert sorted(imported) == sorted(set(package.__all__) - {"NAMES"}) == sorted(set(dir(package)) - {"NAMES"})
    assert "__getattr__" in ast.unparse(split.orelse[0])


@pytest.mark.parametrize(
    ("code", "found"),
    [("ir.flow.minnorm.limit", True), ("ir.flow.minnorm.limits", False), ("ir.nosuch", False), ("ir.explain", True)],
)
def test_an_editor_knows_the_names_without_running_them(code, found):
    assert bool(jedi.Script(f"import implicitreg as ir\n{code}").infer(2, len(code))) == found


MODULES = [
    p for p in sorted(PACKAGE.rglob("*.py"))
    if not any(part.startswith("_") for part in p.relative_to(PACKAGE).with_suffix("").parts)
]  # fmt: skip


SHARED = {"in_any_order", "increasing_times"}  # helpers of two modules


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_public_module_says_what_is_public(path):
    """All functions and classes without an underscore, and nothing that is not there."""
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    defined = {n.name for n in ast.parse(path.read_text("utf8")).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    assert {name for name in defined if not name.startswith("_")} - SHARED <= set(module.__all__)
    assert all(hasattr(module, name) and not inspect.ismodule(getattr(module, name)) for name in module.__all__)


def test_unknown_attribute_names_the_known():
    with pytest.raises(AttributeError, match=r"has no attribute 'flows'; it has .*flow"):
        _ = ir.flows


PARTS = {"flow", "gap", "diagrams", "noise"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    """The parts import the foundation and never each other; the foundation imports no part (exercises may)."""
    tree = ast.parse(path.read_text("utf8"))
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    used = {n.split(".")[1] for n in names if n.startswith("implicitreg.")} & PARTS
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = {room} if room in PARTS else PARTS if room in {"exercises", "experiments"} else set()
    assert used <= allowed


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _validate.matrix("X", [1.0, 2.0]), r"X has shape \(2,\): expected a non-empty matrix"),
        (lambda: _validate.matrix("X", [[]]), r"X has shape \(1, 0\): expected a non-empty matrix"),
        (lambda: _validate.matrix("X", [[1.0, np.nan]]), r"X\[0, 1\] = nan: expected finite numbers"),
        (lambda: _validate.matrix("X", [[1.0], [1.0, 2.0]]), "X is ragged"),
        (lambda: _validate.vector("y", [1.0], size=2), r"y has shape \(1,\): expected \(2,\)"),
        (lambda: _validate.vector("y", []), "expected a non-empty one-dimensional array"),
        (lambda: _validate.indices("indices", [0, 3], size=3), r"indices\[1\] = 3: expected an integer, 0 to 2"),
        (lambda: _validate.number("eta", -1.0, above=0), "eta = -1.0: expected a finite number > 0"),
        (lambda: _validate.number("eta", float("inf"), above=0), "eta = inf"),
        (lambda: _validate.integer("k", -1, low=0), "k = -1: expected an integer >= 0"),
        (lambda: _validate.choice("kind", "x", ["a", "b"]), "kind = 'x': expected one of 'a', 'b'"),
        (lambda: _validate.probabilities("p", [0.5, 0.4]), "p sums to 0.9: expected 1"),
        (lambda: _validate.probabilities("p", [1.5, -0.5]), r"p\[1\] = -0.5: expected positive"),
        (lambda: _validate.spd("D", [[1.0, 2.0], [0.0, 1.0]], size=2), "D differs from its transpose"),
        (lambda: _validate.spd("D", [[1.0, 2.0], [2.0, 1.0]], size=2), "D has the eigenvalue -1"),
    ],
)
def test_errors_name_argument_value_expectation(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _validate.matrix("X", [["a"]]), "X has dtype"),
        (lambda: _validate.number("eta", "0.1"), "eta = '0.1': expected a real number"),
        (lambda: _validate.integer("k", 1.0), "k = 1.0: expected an integer"),
        (lambda: _validate.integer("k", True), "k = True: expected an integer"),
        (lambda: _validate.vector("y", [1j]), "y has dtype complex128"),
    ],
)
def test_what_is_not_numeric_is_a_type_error(call, words):
    with pytest.raises(TypeError, match=words):
        call()
