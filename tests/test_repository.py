"""What a checkout must keep on every system."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no checkout of git")
def test_a_checkout_has_unix_line_endings_whatever_git_is_told():
    """Shell scripts with CRLF do not run; git's settings on Windows would write them."""
    command = ["git", "-c", "core.autocrlf=true", "ls-files", "--eol", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, encoding="utf8").stdout
    rows = [row.partition("\t")[0].split(None, 2) for row in listed.split("\0") if row]
    assert len(rows) > 200
    text = {(index, attribute.strip()) for index, _, attribute in rows if index != "i/-text"}
    assert text <= {("i/lf", "attr/text=auto eol=lf"), ("i/none", "attr/text=auto eol=lf")}


def test_the_lowest_versions_that_are_tested_are_those_that_are_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    allowed = [*project["dependencies"], *project["optional-dependencies"]["torch"]]
    tested = (ROOT / "tests" / "lowest.txt").read_text("utf8").splitlines()[1:]
    assert sorted(tested) == sorted(need.replace(">=", "==") for need in allowed)


def test_the_library_pins_nothing_and_the_book_pins_all():
    """A pin in the library would replace what its user has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["torch"]]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", need) for need in needs)
    pinned = (ROOT / "requirements.txt").read_text("utf8")
    for need in needs:
        name = need.partition(">=")[0]
        version = re.search(rf"^{name}==([\d.]+)", pinned + (ROOT / "constraints.txt").read_text("utf8"), re.M | re.I)
        assert version, name
        assert tuple(map(int, version[1].split("."))) >= tuple(map(int, need.partition(">=")[2].split(".")))
