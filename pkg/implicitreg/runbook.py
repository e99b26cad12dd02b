"""Run chapters and store clean outputs: ``python -m implicitreg.runbook [CHAPTER ...] [--force]``.

nbmake executes a chapter, so that what is tested is what is published. Afterwards everything that changes from run to
run is removed, and the notebook is signed with hashes of what its outputs depend on: its cells, the package modules
that were loaded when its last cell had run, the ledger entries and records it names, and the pinned requirements.
A chapter whose signature still fits is not run again. At the end the numbers, links and quoted values of all pages are
written (`implicitreg.plain`).
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tokenize
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from implicitreg import _console, ledger, plain, records
from implicitreg.plain import nbformat

__all__ = [
    "BOOK",
    "ROOT",
    "RUNTIMES",
    "bare",
    "chapters",
    "clean",
    "join_streams",
    "main",
    "run",
    "settle",
    "signature",
    "stale",
]

ROOT = Path(__file__).resolve().parents[2]
BOOK, RUNTIMES = ROOT / "book", ROOT / "book" / "records" / "runtimes.json"
CELL_TIMEOUT = 120
PROBE = "import json, sys\nprint(json.dumps(sorted(m for m in sys.modules if m.split('.')[0] == 'implicitreg')))"


def chapters() -> list[Path]:
    """All chapters of the book, in its order."""
    return plain.chapters(ROOT)


def stale(path: Path) -> list[str]:
    """Why the stored outputs of a chapter no longer stand for what a run would give; empty if they do."""
    nb = nbformat.read(path, 4)
    stored = nb.metadata.get("book", {})
    if not stored:
        return ["never run"]
    now = signature(nb, list(stored.get("modules", {})))
    reasons = [k for k in ("cells", "named", "requirements") if stored.get(k) != now[k]]
    return reasons + [m for m, digest in now["modules"].items() if stored["modules"][m] != digest]


def signature(nb: Any, modules: list[str]) -> dict[str, Any]:
    """The hashes of what a notebook's outputs depend on."""
    cells = [c.source for c in nb.cells if c.cell_type == "code"]
    return {
        "cells": _digest("\0".join(cells)),
        "modules": {m: _module_digest(m) for m in modules},
        "named": _digest("\0".join(_named("\n".join(cells)))),
        "requirements": _digest((ROOT / "requirements.txt").read_text("utf8")),
    }


def bare(source: str) -> str:
    """Python source without docstrings, comments and blank lines: what a run can depend on.

    Examples
    --------
    >>> print(bare('def f(x):  # twice\\n    "Double it."\\n\\n    return 2 * x'))
    def f(x):
        return 2 * x
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        for child in ast.iter_child_nodes(node):
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                lines[child.lineno - 1 : child.end_lineno] = [""] * (child.end_lineno - child.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def clean(nb: Any, modules: list[str]) -> None:
    """Drop what changes from run to run, and sign."""
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = join_streams(cell.outputs)
    nb.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nb.metadata["language_info"] = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"}
    nb.metadata.pop("widgets", None)
    nb.metadata["book"] = signature(nb, modules)


def join_streams(outputs: list[Any]) -> list[Any]:
    """What a cell prints arrives in pieces, cut where the kernel happened to send it: one output again."""
    joined: list[Any] = []
    for out in outputs:
        if joined and out.output_type == "stream" and joined[-1].get("name") == out.name:
            joined[-1].text += out.text
        else:
            joined.append(out)
    return joined


def run(path: Path) -> tuple[bool, float, str]:
    """Execute one chapter with nbmake; store its outputs if it passes. Success, seconds, and nbmake's words if not."""
    nb = nbformat.read(path, 4)
    nb.cells.append(nbformat.v4.new_code_cell(PROBE))
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        nbformat.write(nb, copy)
        done = _nbmake(copy)
        seconds = time.perf_counter() - begin
        if done.returncode != 0:
            return False, seconds, done.stdout + done.stderr
        nb = nbformat.read(copy, 4)
    modules = json.loads(nb.cells.pop().outputs[0].text)
    warnings = [o.text for c in nb.cells if c.cell_type == "code" for o in c.outputs if o.get("name") == "stderr"]
    if warnings:
        return False, seconds, "written to stderr, where a reader would see it:\n" + "\n".join(warnings)
    clean(nb, modules)
    try:
        plain.quote(nb)
        plain.fold(nb)
        plain.pictures(nb)
    except (KeyError, ValueError) as error:
        return False, seconds, str(error.args[0])
    nbformat.write(nb, path)
    return True, seconds, ""


def settle() -> list[Path]:
    """Write the numbers, links and quoted values of all pages; the files that changed."""
    changed = {path: text for path, text in plain.settle(ROOT).items() if path.read_text("utf8") != text}
    for path, text in changed.items():
        path.write_text(text, "utf8", newline="\n")
    return list(changed)


def main(arguments: list[str] | None = None) -> int:
    """Run the stale chapters among those named, or among all; print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m implicitreg.runbook", description="Run chapters, store outputs.")
    parser.add_argument("chapter", nargs="*", help="a notebook, or a part of its name; all if none is given")
    parser.add_argument("--force", action="store_true", help="run also what is not stale")
    options = parser.parse_args(arguments)
    if not (ROOT / "_toc.yml").exists():
        raise SystemExit(f"there is no book in {ROOT}: expected a checkout of it, not an installed package")
    todo = [p for p in _select(options.chapter) if options.force or stale(p)]
    failed = 0
    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        jobs = {pool.submit(run, p): p for p in todo}
        for k, job in enumerate(as_completed(jobs), 1):
            failed += _report(jobs[job], f"[{k}/{len(todo)}]", *job.result())
    if failed:
        return 1
    changed = settle()
    if changed:
        _console.show("numbers, links and values: " + ", ".join(p.stem for p in changed))
    if not (todo or changed):
        print("every chapter's stored outputs are up to date")
    return 0


def _report(path: Path, count: str, passed: bool, seconds: float, words: str) -> int:
    name = path.relative_to(BOOK).with_suffix("").as_posix()
    _console.show(f"{count} {name}  {seconds:5.1f} s  {'ok' if passed else 'FAILED'}")
    if not passed:
        _console.show(words)
        return 1
    times = json.loads(RUNTIMES.read_text("utf8")) if RUNTIMES.exists() else {}
    records.write_json(RUNTIMES, {**times, name: round(seconds, 1)})
    return 0


def _select(names: list[str]) -> list[Path]:
    every = chapters()
    for name in names:
        if not any(name in p.as_posix() for p in every):
            raise SystemExit(f"chapter {name!r}: expected one of {', '.join(p.stem for p in every)}")
    return [p for p in every if not names or any(n in p.as_posix() for n in names)]


def _nbmake(notebook: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbmake", "--overwrite",
               f"--nbmake-timeout={CELL_TIMEOUT}", notebook.name]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    return subprocess.run(command, cwd=notebook.parent, env=env, capture_output=True, text=True)


def _named(code: str) -> list[str]:
    """The ledger entries whose ids, and the records whose names, stand in the code as strings."""
    strings = set(re.findall(r"[\"']([\w.-]+)[\"']", code))
    entries = [str(c) for c in ledger.claims() if c.id in strings]
    files = sorted(p for p in records.FOLDER.glob("*.json") if p.stem in strings and p != RUNTIMES)
    return entries + [p.read_text("utf8") for p in files]


def _module_digest(module: str) -> str:
    stem = ROOT / "pkg" / Path(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.exists():
            return _digest(bare(path.read_text("utf8")))
    return "gone"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    raise SystemExit(main())
