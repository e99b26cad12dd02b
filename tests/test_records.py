"""Records are whole, finite, and named after what they hold."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from implicitreg import _places, records


def save(folder, **changes):
    arguments = {"settings": {"N": 2}, "seeds": [0, 1], "results": {"x": [0.5, 0.1]}, "wall_seconds": 1.234, **changes}
    return records.save("trial", folder=folder, **arguments)


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path)
    record = records.load("trial", folder=tmp_path)
    assert record["results"] == {"x": [0.5, 0.1]}
    assert record["wall_seconds"] == 1.23
    assert set(record) == records.KEYS
    assert record["versions"]["torch"].startswith("2.13")


def test_a_number_that_is_not_finite_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="trial: a number is not finite"):
        save(tmp_path, results={"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


CIRCLE = [1]
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"results": {"x": "\ud800"}}, ValueError, r"trial: a text in results has the lone surrogate \\ud800"),
        ({"device": "\udfff"}, ValueError, "trial: a text in device has the lone surrogate"),
        ({"settings": {"\ud800": 1}}, ValueError, "trial: a text in settings has the lone surrogate"),
        ({"results": {"x": CIRCLE}}, ValueError, "trial: a value in results holds itself"),
        ({"results": {"x": [float("inf")]}}, ValueError, "trial: a number is not finite in results"),
        ({"results": {"a": {1: 2, "b": 3}}}, TypeError, "trial: results: expected .* keys of one type"),
        ({"settings": {"a": {1, 2}}}, TypeError, "trial: settings: expected plain JSON values"),
        ({"seeds": [1.7]}, TypeError, r"seeds\[0\] = 1.7: expected an integer"),
        ({"seeds": [0, "1"]}, TypeError, r"seeds\[1\] = '1': expected an integer"),
        ({"seeds": 3}, TypeError, "seeds is a int"),
    ],
)
def test_what_is_no_json_is_named_and_leaves_nothing_behind(changes, error, words, tmp_path):
    with pytest.raises(error, match=words):
        save(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["replace", "chmod"])
def test_a_failed_write_leaves_what_was_there(broken, tmp_path, monkeypatch):
    before = save(tmp_path).read_text()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(records.os, broken, full)
    with pytest.raises(OSError, match="no space left"):
        save(tmp_path, results={"x": 1})
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("trial.json", before)]


@pytest.mark.parametrize("text", [b"{", b"", b'{"name": "\xff"}', b"[1]", b"[" * 10**5])
def test_a_damaged_record_is_named(text, tmp_path):
    (tmp_path / "half.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"half\.json (is damaged|holds a list): expected the JSON of a record"):
        records.load("half", folder=tmp_path)


@pytest.mark.parametrize("name", ["../x", "A", "", "x.json"])
def test_bad_names_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="name = "):
        records.load(name, folder=tmp_path)


def test_missing_record_names_those_there(tmp_path):
    save(tmp_path)
    with pytest.raises(ValueError, match="there: trial"):
        records.load("other", folder=tmp_path)


def test_incomplete_record_is_refused(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps({"name": "old"}))
    with pytest.raises(ValueError, match="record 'old' lacks"):
        records.load("old", folder=tmp_path)


@pytest.mark.parametrize(
    "path", sorted(p for p in records.FOLDER.glob("*.json") if p.stem != "runtimes"), ids=lambda p: p.stem
)
def test_every_record_of_the_book_loads(path):
    assert records.load(path.stem)["name"] == path.stem


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository that holds the package, and nothing else."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    root = (tmp_path / "ours").resolve()
    (root / "pkg" / "implicitreg").mkdir(parents=True)
    (root / "pkg" / "implicitreg" / "__init__.py").write_text("")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "ours")
    monkeypatch.setattr(_places, "CHECKOUT", root)
    return root


def test_the_revision_is_that_of_the_checkout(checkout):
    assert records._revision() == git(checkout, "rev-parse", "--short=12", "HEAD")
    (checkout / "notes").write_text("outside the package")
    assert not records._revision().endswith("+")
    (checkout / "pkg" / "implicitreg" / "__init__.py").write_text("x = 1\n")
    assert records._revision() == git(checkout, "rev-parse", "--short=12", "HEAD") + "+"


def test_a_repository_that_the_environment_names_is_not_asked(checkout, tmp_path, monkeypatch):
    """As inside a hook of another repository."""
    git(tmp_path, "init", "-q", "other")
    git(tmp_path / "other", "commit", "-q", "--allow-empty", "-m", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(checkout))
    revision = records._revision()
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert revision == git(checkout, "rev-parse", "--short=12", "HEAD")


@pytest.mark.parametrize("where", ["below", "ignored"])
def test_another_project_s_commit_is_no_revision(checkout, monkeypatch, where):
    """The package as a folder of another repository, or unpacked at its top and ignored there."""
    if where == "below":
        monkeypatch.setattr(_places, "CHECKOUT", checkout / "pkg")
    else:
        (checkout / ".gitignore").write_text("pkg\n")
        git(checkout, "rm", "-rq", "--cached", "pkg")
        git(checkout, "commit", "-q", "-m", "theirs")
    assert records._revision() == "unknown"


def test_an_installed_package_reads_its_copy_and_writes_beside_the_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(_places, "CHECKOUT", None)
    monkeypatch.chdir(tmp_path)
    assert records.load("tracking")["name"] == "tracking"
    file = records.save("tracking", settings={}, seeds=[], results={"x": 1}, wall_seconds=0)
    assert file == Path.cwd() / "implicitreg_records" / "tracking.json"
    assert records.load("tracking")["results"] == {"x": 1}
    assert records.load("tracking", folder=str(records.FOLDER))["results"] != {"x": 1}
    with pytest.raises(ValueError, match=r"implicitreg_records or .*records; there: .*tracking"):
        records.load("nothing")
