"""What a checkout must keep on every system."""

import shutil
import subprocess
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
