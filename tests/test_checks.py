"""A check must fail when the claim fails, and when it could not have told."""

import numpy as np
import pytest
from implicitreg.checks import CheckFailed, check, rate


def test_agreement_prints_one_line(capsys):
    check("c", measured=[1.0, 2.0], predicted=[1.0, 2.0 + 1e-12], atol=1e-9)
    out = capsys.readouterr().out
    assert out.startswith("ok    c: measured [1, 2], predicted [1, 2]")
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"measured": 1.0, "predicted": 1.1, "atol": 0.05},
        {"measured": 1.0, "predicted": -1.0, "rtol": 0.5},
        {"measured": 1.0, "predicted": 2.0, "sigmas": 4, "se": 0.2},
        {"measured": [1.0, 5.0], "predicted": [1.0, 2.0], "atol": 1.0},
        {"measured": np.nan, "predicted": 1.0, "atol": 1.0},
        {"measured": np.inf, "predicted": 1.0, "sigmas": 4, "se": 1.0},
        {"measured": 1.0, "predicted": 1.0, "atol": 0.5, "wrong": 1.2},
        {"measured": 1.0, "predicted": 1.0, "sigmas": 4, "se": 0.1, "wrong": 1.49},
    ],
    ids=["atol", "rtol", "sigmas", "one of many", "nan", "inf", "mistake within tolerance", "mistake within five se"],
)
def test_disagreement_raises(arguments):
    with pytest.raises(CheckFailed, match="FAILS c: measured"):
        check("c", **arguments)


def test_mistake_beyond_five_standard_errors_is_enough(capsys):
    check("c", measured=1.0, predicted=1.1, sigmas=4, se=0.1, wrong=1.51)
    assert "5.1 standard errors away" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "exactly one of atol, rtol, sigmas"),
        ({"atol": 1, "rtol": 1}, "exactly one of"),
        ({"atol": -1.0}, "atol = -1.0: expected a finite number > 0"),
        ({"atol": 1.0, "se": 1.0}, "se = 1.0 with atol"),
        ({"sigmas": 4}, "se = None with sigmas"),
        ({"sigmas": 4, "se": 0.0}, "se has the entry 0"),
        ({"rtol": 0.1, "predicted": 0.0}, "expected atol for a prediction of zero"),
        ({"atol": 1.0, "predicted": np.nan}, "predicted = nan: expected finite"),
        ({"atol": 1.0, "measured": [1.0, 2.0], "predicted": [1.0]}, r"measured has shape \(2,\): expected \(1,\)"),
        ({"atol": 1.0, "measured": [1.0], "predicted": [1.0], "wrong": [1.0, 2.0]}, "wrong has shape"),
    ],
)
def test_what_is_no_check_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        check("c", **{"measured": 1.0, "predicted": 1.0, **arguments})


def test_rate_recovers_an_exponent():
    x = 2.0 ** np.arange(6)
    assert rate(x, 5 * x**-1.5) == pytest.approx(-1.5, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1, 2, 4], [1, 2, 4], "four octaves"),
        ([1, 4, 17], [1, -2, 4], "y has the entry -2"),
        ([0, 17], [1, 1], "x has the"),
    ],
)
def test_rate_refuses_what_is_no_rate(x, y, words):
    with pytest.raises(ValueError, match=words):
        rate(x, y)
