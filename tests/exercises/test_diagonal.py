"""Chapter 4: right answers are right, and the likely mistakes are not."""

import numpy as np
import pytest
from implicitreg.exercises import check


def tied(y, alpha):
    q = (np.sqrt(1 + 8 * y / alpha**2) - 1) / 4
    return alpha**2 * np.array([q, q * q])


def favour(x, i):
    c = 1 / x
    c[i] *= 2
    return c


RIGHT = {
    "diagonal-toy": tied,
    "diagonal-gradient": lambda w, alpha: np.arcsinh(w / (2 * alpha**2)),
    "diagonal-winner": favour,
}
WRONG = {
    "diagonal-toy": lambda y, alpha: tied(y, np.sqrt(alpha)),
    "diagonal-gradient": lambda w, alpha: np.arcsinh(w / alpha**2),
    "diagonal-winner": lambda x, i: 1 / favour(x, i),
}


@pytest.mark.parametrize("label", RIGHT)
def test_right_answer(label, capsys):
    assert check(label, RIGHT[label])
    assert capsys.readouterr().out == f"{label}: right\n"


@pytest.mark.parametrize("label", WRONG)
def test_likely_mistake_gets_a_hint(label, capsys):
    assert not check(label, WRONG[label])
    assert "not yet. Hint: " in capsys.readouterr().out


def test_a_shape_must_be_positive():
    assert not check("diagonal-winner", lambda x, i: np.zeros_like(x))
