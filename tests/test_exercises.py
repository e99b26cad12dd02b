"""Right answers are right, wrong answers get a hint and no answer, and an empty cell stops nobody."""

import re
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
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
        (lambda X, y, w0: w0[:2], "expected shape (6,), got shape (2,)"),
        (lambda X, y, w0: 1.0, "expected shape (6,), got one number"),
        (lambda X, y, w0: "w0", "expected numbers, got str"),
        (lambda X, y, w0: list("abcde"), "expected numbers, got list"),
        (lambda X, y, w0: w0 + 0j, "expected real numbers, got complex ones; is .real meant?"),
        (lambda X, y, w0: [[1.0], [1.0, 2.0]], "expected rows of equal length, got a ragged list"),
        (lambda X, y, w0: [*w0[:4], "w4", {}], "expected numbers, got str"),
        (lambda X, y, w0: [*w0[:4], {}], "expected numbers, got dict"),
        (lambda X, y, w0: {"w": w0}, "expected numbers, got dict"),
        (lambda X, y, w0: lambda: w0, "expected numbers, got function"),
        (lambda X, y, w0: np.ma.masked_less(w0, 0), "expected numbers, got an array with masked entries"),
        (lambda X, y, w0: torch.ones(5, requires_grad=True), "expected numbers, got Tensor: Can't call numpy()"),
        (lambda X, y, w0: [10**400] * 5, "expected numbers that float64 can hold, got a larger one"),
        (lambda X, y, w0: [*w0[:4], ...], "not answered yet: a part of it is missing"),
        (lambda X, y, w0: [*w0[:4], None], "not answered yet: a part of it is missing"),
        (lambda X, y: 0, "your function raised TypeError: <lambda>() takes 2 positional arguments but 3 were given"),
        (lambda X, y, w0: sys.exit("bye"), "your function raised SystemExit: bye"),
        (lambda X, y, w0: np.full(len(w0), np.nan), "not yet. Hint: the part of w0 that no example sees"),
        (lambda X, y, w0: np.full(len(w0), 1e308), "not yet. Hint: the part of w0 that no example sees"),
    ],
)
def test_other_answers_are_explained(answer, words, capsys):
    with warnings.catch_warnings(action="error"):
        assert not exercises.check("minnorm-start", answer)
    assert capsys.readouterr().out.startswith(f"minnorm-start: {words}")


class Raises:
    """A number whose value cannot be had."""

    def __init__(self, error):
        self.error = error

    def __float__(self):
        raise self.error


@pytest.mark.parametrize("error", [KeyError("w"), RuntimeError("late"), ZeroDivisionError("by 0"), SystemExit("bye")])
def test_an_entry_that_raises_is_explained(error):
    says = exercises.grade("minnorm-start", lambda X, y, w0: [*w0[:-1], Raises(error)]).says
    assert says == f"expected numbers, got Raises: {type(error).__name__}: {error}"


def landing(X, y, w0):
    return w0 + np.linalg.pinv(X) @ (y - X @ w0)


@pytest.mark.parametrize(
    "answer",
    [
        lambda X, y, w0: tuple(landing(X, y, w0)),
        lambda X, y, w0: np.asarray(landing(X, y, w0), dtype=object),
        lambda X, y, w0: [Fraction(x) for x in landing(X, y, w0)],
        lambda X, y, w0: torch.from_numpy(landing(X, y, w0)),
        lambda X, y, w0: np.asarray(landing(X, y, w0), dtype=np.longdouble),
    ],
    ids=["tuple", "objects", "fractions", "tensor", "longdouble"],
)
def test_a_right_answer_is_right_in_other_types(answer):
    assert exercises.check("minnorm-start", answer)


def test_float32_is_told():
    def distance(X, y, w, far=np.min):
        X, y, w = (torch.tensor(a, dtype=torch.float32) for a in (X, y, w))
        return far((y * (X @ w)).numpy()) / w.norm()

    close = exercises.grade("margin-distance", distance)
    wrong = exercises.grade("margin-distance", lambda *inputs: distance(*inputs, far=np.max))
    assert re.fullmatch(r"not yet: right to \de-[67], and 1e-8 is asked \(Compute in float64\.\)", close.says)
    assert re.fullmatch(r"not yet\. Hint: .* \(Compute in float64\.\)", wrong.says)


def test_a_function_is_no_value():
    verdict = exercises.grade("chosen-weaker", lambda: 7)
    assert verdict == exercises.Verdict("chosen-weaker", False, "expected a value, got a function")


def test_grading_prints_nothing_and_says_what_check_prints(capsys):
    answers = {"right": landing, "not answered yet": ..., "not yet. Hint: ": lambda X, y, w0: 0 * w0}
    for words, answer in answers.items():
        verdict = exercises.grade("minnorm-start", answer)
        assert capsys.readouterr().out == ""
        assert verdict.says.startswith(words)
        assert bool(verdict) is verdict.right is exercises.check("minnorm-start", answer)
        assert capsys.readouterr().out == f"{verdict.label}: {verdict.says}\n"


def graded(truth, answer):
    return exercises._judge(exercises.Exercise(reference=lambda: truth, hint="think"), answer)


@pytest.mark.parametrize("size", [1e-300, 1e-11, 1.0, 1e200])
@pytest.mark.parametrize("truth", [1.0, [1.0, -2.0], [[1.0, 1e-9]]], ids=["number", "vector", "entries of any size"])
def test_a_tolerance_is_relative(truth, size):
    truth = size * np.array(truth)
    assert graded(truth, truth * (1 + 0.9e-8)) == "right"
    assert graded(truth, truth * (1 - 2e-8)) == "not yet: right to 2e-8, and 1e-8 is asked"
    assert graded(truth, truth * (1 + 2e-4)) == graded(truth, 0 * truth) == "not yet. Hint: think"
    assert graded(truth, truth + 1.1e-4 * np.abs(truth).min()) == "not yet. Hint: think"


def test_zero_is_measured_by_the_largest_entry_or_by_one():
    assert graded([0.0, 1e-6], [0.9e-14, 1e-6]) == graded(0.0, -0.9e-8) == "right"
    assert graded([0.0, 1e-6], [2e-14, 1e-6]) == graded(0.0, 2e-8) == "not yet: right to 2e-8, and 1e-8 is asked"
    assert graded([0.0, 1e-6], [2e-10, 1e-6]) == graded(0.0, 2e-4) == "not yet. Hint: think"


def test_an_error_that_is_no_number_is_no_right_answer():
    odd = exercises.Exercise(reference=lambda: 1.0, hint="think", error=lambda *_: np.nan)
    assert exercises._judge(odd, 1.0) == "not yet. Hint: think"


def test_a_mistake_on_the_last_input_is_a_mistake():
    """And a rounding error anywhere is told only where no input shows a mistake."""
    calls = []

    def answer(x, slips):
        calls.append(x)
        return x * (1 + slips.get(len(calls), 0.0))

    exercise = exercises.Exercise(reference=lambda x: x, draw=lambda rng: (rng.random(),), hint="think", trials=7)
    for slips, says in [
        ({}, "right"),
        ({7: 1.0}, "not yet. Hint: think"),
        ({2: 3e-7}, "not yet: right to 3e-7, and 1e-8 is asked"),
        ({2: 3e-7, 6: 1.0}, "not yet. Hint: think"),
    ]:
        calls.clear()
        assert exercises._judge(exercise, lambda x, slips=slips: answer(x, slips)) == says


def test_answers_cannot_change_the_inputs_of_the_reference():
    def spoil(X, y, w0):
        right = landing(X, y, w0)
        X *= 0
        return right

    assert exercises.check("minnorm-start", spoil)


@pytest.mark.parametrize(
    ("label", "nearest"),
    [("minnorm", "minnorm-"), ("minorm-start", "'minnorm-start'"), ("minnorm-begin", "'minnorm-"), (None, "'"),
     ("ex:factorization-entry", "'factorization-entry'"), (["minnorm-start"], "'minnorm-start'")],
)  # fmt: skip
def test_unknown_label_names_the_nearest(label, nearest):
    for judge in (exercises.check, exercises.grade):
        with pytest.raises(ValueError, match=rf"expected the label of an exercise, such as .*{nearest}") as error:
            judge(label, 1)
        assert str(error.value).startswith(f"label = {label!r}: ")


def test_an_exercise_is_checked_under_the_label_of_the_page():
    """The cell that checks follows the exercise that has the label."""
    for path in CHAPTERS:
        asked = []
        for cell in nbformat.read(path, 4).cells:
            asked += re.findall(r'<a id="ex:([\w-]+)"></a>\*\*Exercise', cell.source)
            checked = re.findall(r'exercises\.check\("([\w-]+)"', cell.source)
            assert checked in ([], asked[-1:]), path.name


def test_every_exercise_is_asked_for_in_a_chapter_and_conversely():
    code = "\n".join(c.source for p in CHAPTERS for c in nbformat.read(p, 4).cells if c.cell_type == "code")
    assert sorted(set(re.findall(r'exercises\.check\("([\w-]+)"', code))) == exercises.labels()
