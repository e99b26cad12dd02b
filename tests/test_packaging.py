"""The source distribution makes a wheel, and the wheel works anywhere, without the repository and without torch.

What is installed is real; the environment is made of links to the packages of this one, all but torch and implicitreg
itself, and Python starts without its site-packages.
"""

import json
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import nbformat
import pytest
from implicitreg import ledger

ROOT = Path(__file__).parents[1]
SOURCES = (
    "pkg",
    "book/records",
    "book/claims.yml",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
PARTS = re.compile(r"torch|functorch|implicitreg|__editable__")


def run(*command, cwd, **env):
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, encoding="utf8", errors="replace"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(sdist, wheel): the wheel is made from the sdist alone."""
    folder = tmp_path_factory.mktemp("built")
    for name in SOURCES:
        source, copy = ROOT / name, folder / "tree" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, copy)
    run(sys.executable, "-c", BUILD, "sdist", str(folder), cwd=folder / "tree")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    run(sys.executable, "-c", BUILD, "wheel", str(folder), cwd=source)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def python(built, tmp_path_factory):
    """Runs code where the wheel is installed, and all it needs but torch, inside another project's repository."""
    home = tmp_path_factory.mktemp("home")
    if shutil.which("git"):
        run("git", "init", "-q", cwd=home)
        run(
            "git",
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "theirs",
            cwd=home,
        )
    with zipfile.ZipFile(built[1]) as wheel:
        wheel.extractall(home / "site")
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}:
        for entry in Path(folder).iterdir():
            if not PARTS.match(entry.name) and not (home / "site" / entry.name).exists():
                (home / "site" / entry.name).symlink_to(entry)
    (home / "desk").mkdir()

    def script(code, **env):
        return run(sys.executable, "-S", "-c", code, cwd=home / "desk",
                   **{"PYTHONPATH": str(home / "site"), "PYTHONDONTWRITEBYTECODE": "1", **env})  # fmt: skip

    script.home = home
    return script


def test_a_wheel_made_from_the_sdist_carries_ledger_records_and_types(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        files = [ROOT / "book" / "claims.yml", *(ROOT / "book" / "records").glob("*.json")]
        for file in files:
            assert wheel.read(f"implicitreg/_book/{file.relative_to(ROOT / 'book').as_posix()}") == file.read_bytes()
        sources = {p.relative_to(ROOT / "pkg").as_posix() for p in (ROOT / "pkg").rglob("*.py")}
        assert sources | {"implicitreg/py.typed"} <= names
        (about,) = (n for n in names if n.endswith("METADATA"))
        needed = re.findall(r"^Requires-Dist: (.*)$", wheel.read(about).decode(), re.M)
    assert [n for n in needed if n.startswith("torch>")] == ['torch>=2.13; extra == "torch"']
    assert not [n for n in needed if "==" in n.partition(";")[0] and "extra" not in n]


WITHOUT_TORCH = """
import importlib, pydoc, rlcompleter
import implicitreg as ir
assert ir.__file__.startswith({site!r})
for package in ("", ".flow", ".gap", ".noise", ".ensembles", ".diagrams", ".diagrams.corollaries", ".experiments"):
    module = importlib.import_module("implicitreg" + package)
    assert [n for n in dir(module) if getattr(module, n) is None] == []
    assert pydoc.plain(pydoc.render_doc(module)).count(module.__name__)
words = rlcompleter.Completer({{"ir": ir}}).attr_matches("ir.")
assert {{"ir.flow", "ir.datasets", "ir.gap"}} <= set(words) and "ir.nets" not in words
print(ir.flow.minnorm.limit([[3.0, 4.0]], [25.0]), ir.gap.gaussian.GaussianLinear, ir.datasets.load("digits").source)
print(ir.explain("hegde-erratum-2"))
ir.plotting.use()
ir.check("hegde-3.1", measured=1.0, predicted=1.0, atol=1e-9)
"""


def test_import_help_and_completion_without_torch(python):
    out = python(WITHOUT_TORCH.format(site=str(python.home / "site")))
    assert "[3. 4.]" in out
    assert "bundled with scikit-learn" in out
    assert "corrected" in out


@pytest.mark.parametrize(
    "code",
    [
        "import implicitreg as ir; ir.FiniteProblem",
        "from implicitreg import FiniteProblem",
        "from implicitreg.problems import FiniteProblem",
        "import implicitreg as ir; ir.gap.one_step",
        "from implicitreg.exact import run",
        "from implicitreg import gradstats",
        "from implicitreg import nets",
        "from implicitreg.noise.msgd import train",
        "from implicitreg.training import run",
        "from implicitreg.diagrams import gap_series",
        "from implicitreg.ensembles.particles import gaussian",
        "from implicitreg.experiments import tracking",
        "import implicitreg as ir; ir.exercises.check('networks-steps', 1)",
    ],
)
def test_what_needs_torch_says_what_to_install(python, code):
    asked = f"try:\n    {code}\nexcept ModuleNotFoundError as error:\n    print(error.name, error)"
    assert re.match(r"torch .*needs PyTorch.*pip install torch", python(asked))


def reads_of_records():
    """Every call of `records.load` in the chapters, with the names that it loops over."""
    cells = [c.source for p in (ROOT / "book").rglob("*.ipynb") for c in nbformat.read(p, 4).cells]
    return {m for cell in cells if "records.load(" in cell for m in re.findall(r'records\.load\("(\w+)"\)', cell)}


def test_every_record_that_a_chapter_reads_is_there(python):
    names = sorted(reads_of_records())
    assert len(names) > 8
    code = f"import implicitreg as ir\nprint([ir.records.load(n)['name'] for n in {names}])"
    assert python(code) == f"{names}\n"


def test_a_new_record_lies_in_the_working_directory_and_is_found(python):
    """Its revision is not that of the repository around the environment."""
    code = (
        "import json\nfrom implicitreg import records\n"
        "print(records.save('tracking', settings={}, seeds=[], results={'x': 1}, wall_seconds=0))\n"
        "print(json.dumps(records.load('tracking')))"
    )
    file, text = python(code).splitlines()
    assert Path(file) == python.home / "desk" / "implicitreg_records" / "tracking.json"
    record = json.loads(text)
    assert record["results"] == {"x": 1}
    assert record["revision"] == "unknown"
    assert set(record["versions"]) == {"python", "implicitreg", "numpy", "scipy", "scikit-learn"}
    shutil.rmtree(python.home / "desk" / "implicitreg_records")


def test_exercises_without_torch(python):
    code = (
        "from implicitreg import exercises as e\n"
        "print(len(e.labels()))\nfor label in e.labels():\n    e.check(label, ...)\n"
        "print(e.check('minnorm-penalty', lambda alpha, n: n * alpha))"
    )
    count, *lines, last = python(code).splitlines()
    assert int(count) >= 60
    assert lines[: int(count)] == [line for line in lines if line.endswith("not answered yet")]
    assert last == "True"


def test_messages_survive_a_console_of_windows(python):
    """Code page 1252 has no Greek, no minus sign and no arrows."""
    code = (
        "import implicitreg as ir\nir.say(step='η → 0')\n"
        "ir.check('hegde-3.1', says='η − α', measured=1.0, predicted=1.0, atol=1e-9)\n"
        "ir.exercises.check('minnorm-penalty', lambda a, n: (_ for _ in ()).throw(ValueError('α')))\n"
        "for claim in ir.ledger.claims(): print(claim)\n"
        "print('of', len(set(ir.ledger.claims())))"
    )
    out = python(code, PYTHONIOENCODING="cp1252")
    assert "step = ? ? 0" in out
    assert "ok    ? ? ?: measured 1" in out
    assert "ValueError: ?" in out
    assert f"of {len(ledger.claims())}" in out
