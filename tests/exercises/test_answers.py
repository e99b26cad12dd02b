"""The answers beside this file: every right one is right, every likely mistake is not, and gets a hint.

Each file named after a module of exercises holds RIGHT, a label's answer, and WRONG, its mistake or a list of them.
"""

import importlib.util
from pathlib import Path

import pytest
from implicitreg import exercises


def answers(path):
    spec = importlib.util.spec_from_file_location(f"answers_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__)
FILES = [answers(path) for path in sorted(HERE.parent.glob("test_*.py")) if path != HERE]
RIGHT = {label: answer for file in FILES for label, answer in file.RIGHT.items()}
WRONG = {
    f"{label}-{k}": (label, mistake)
    for file in FILES
    for label, some in file.WRONG.items()
    for k, mistake in enumerate(some if isinstance(some, list) else [some])
}


def test_every_exercise_has_a_right_answer_and_a_mistake():
    assert sorted(RIGHT) == sorted({label for label, _ in WRONG.values()}) == exercises.labels()


@pytest.mark.parametrize("label", RIGHT)
def test_right_answer(label, capsys):
    assert exercises.check(label, RIGHT[label])
    assert capsys.readouterr().out == f"{label}: right\n"


@pytest.mark.parametrize("mistake", WRONG)
def test_likely_mistake_gets_a_hint(mistake, capsys):
    assert not exercises.check(*WRONG[mistake])
    assert "not yet. Hint: " in capsys.readouterr().out
