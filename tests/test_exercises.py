"""Right answers are right, wrong answers get a hint and no answer, and an empty cell stops nobody."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from implicitreg import exercises

CHAPTERS = sorted((Path(__file__).parents[1] / "book").rglob("*.ipynb"))


@pytest.mark.parametrize(
    "empty", [..., None, lambda *_: ..., lambda *_: None], ids=["dots", "None", "f dots", "f None"]
)
@pytest.mark.parametrize("label", exercises.labels())
def test_unanswered_is_no_error(label, empty, capsys):
    if callable(empty) and exercises._find(label).draw is None:
        pytest.skip("a value, which no function stands for")
    assert not exercises.check(label, empty)
    assert "not answered yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (3.0, "expected a function, got float"),
        (lambda X, y, w0: w0[:2], r"expected shape (5,), got (2,)"),
        (lambda X, y, w0: "w0", "expected numbers, got str"),
        (lambda X, y: 0, "your function raised TypeError"),
        (lambda X, y, w0: np.full(5, np.nan), "not yet"),
    ],
    ids=["no function", "shape", "text", "raises", "nan"],
)
def test_other_answers_are_explained(answer, words, capsys):
    assert not exercises.check("minnorm-start", answer)
    assert words in capsys.readouterr().out


def test_answers_cannot_change_the_inputs_of_the_reference():
    def spoil(X, y, w0):
        right = w0 + np.linalg.pinv(X) @ (y - X @ w0)
        X *= 0
        return right

    assert exercises.check("minnorm-start", spoil)


def test_unknown_label_names_the_known():
    with pytest.raises(ValueError, match="label = 'minnorm': expected one of minnorm-fastest"):
        exercises.check("minnorm", 1)


def test_every_exercise_is_asked_for_in_a_chapter_and_conversely():
    code = "\n".join(c.source for p in CHAPTERS for c in nbformat.read(p, 4).cells if c.cell_type == "code")
    assert sorted(set(re.findall(r'exercises\.check\("([\w-]+)"', code))) == exercises.labels()
