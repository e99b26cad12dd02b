"""Records are whole, finite, and named after what they hold."""

import json

import pytest
from implicitreg import records


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
