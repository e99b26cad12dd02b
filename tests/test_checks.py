"""A check must fail when the claim fails, and when it could not have told."""

import numpy as np
import pytest
from implicitreg.checks import CheckFailed, check, rate, record, say


def test_agreement_prints_one_line_with_the_words_and_the_entry_that_matters(capsys):
    check("c", says="the limit", measured=[1.0, 2.0], predicted=[1.0, 2.0 + 1e-12], atol=1.5e-9)
    assert capsys.readouterr().out == (
        "ok    the limit: measured 2, predicted 2 at [1], off by 1.0e-12 (allowed 1.5e-09)\n"
    )


def test_without_words_the_line_has_the_id(capsys):
    check("c", measured=[[1.0, 2.0], [3.0, 4.5]], predicted=[[1.0, 2.0], [3.0, 4.0]], atol=1, wrong=8)
    line = "ok    c: measured 4.5, predicted 4 at [1, 1], off by 5.0e-01 (allowed 1.0e+00); "
    assert capsys.readouterr().out == line + "the mistaken 8 at [0, 0] is off by 7\n"


def test_a_record_is_called_a_record_and_fails_alike(capsys):
    record("c", says="the stored error", measured=0.25, predicted=0.25, atol=1e-9)
    assert capsys.readouterr().out.startswith("record  the stored error: measured 0.25")
    with pytest.raises(CheckFailed, match="FAILS the stored error"):
        record("c", says="the stored error", measured=0.25, predicted=0.26, atol=1e-3)
    with pytest.raises(TypeError, match="no argument 'say'"):
        record("c", say="x", measured=1, predicted=1, atol=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"measured": 1.0, "predicted": 1.1, "atol": 0.05},
        {"measured": 1.0, "predicted": -1.0, "rtol": 0.5},
        {"measured": 1.0, "predicted": 2.0, "sigmas": 4, "se": 0.2},
        {"measured": [1.0, 5.0], "predicted": [1.0, 2.0], "atol": 1.0},
        {"measured": 1.0, "predicted": 1.0, "atol": 0.5, "wrong": 1.2},
        {"measured": 1.0, "predicted": 1.0, "sigmas": 4, "se": 0.1, "wrong": 1.49},
        {"measured": [1.0, 3.0], "below": 2.0},
        {"measured": [1.0, 3.0], "above": [0.5, 3.5]},
        {"measured": [1.0, 3.0], "above": 0.0, "below": 2.0},
        {"measured": 1.01, "below": 1.0, "atol": 1e-3},
        {"measured": 0.7, "below": 1.0, "sigmas": 4, "se": 0.1},
        {"measured": 0.7, "above": 0.4, "sigmas": 4, "se": 0.1},
        {"measured": 1.0, "below": 2.0, "wrong": 1.0},
        {"measured": 1.0, "below": 2.0, "sigmas": 4, "se": 0.1, "wrong": 0.6},
        {"measured": [-2.0, 0.0], "above": -3.0, "wrong": [-2.5, 0.0]},
    ],
    ids=["atol", "rtol", "sigmas", "one of many", "mistake within tolerance", "mistake within five se", "above a bound",
         "below a bound", "out of a band", "beyond the slack", "too near a bound", "too near from above",
         "a mistaken bound that holds", "a mistaken bound within five se", "a mistaken bound met"],
)  # fmt: skip
def test_disagreement_raises(arguments):
    with pytest.raises(CheckFailed, match="FAILS c: measured"):
        check("c", **arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf, [1.0, np.nan]])
@pytest.mark.parametrize("kind", [CheckFailed, ValueError])
def test_a_measurement_that_is_not_finite_fails_whatever_is_claimed(value, kind):
    with pytest.raises(kind, match=r"measured.* expected finite numbers"):
        check("c", measured=value, predicted=1.0, atol=np.finfo(float).max)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"measured": [1.0, 3.0], "below": 3.0}, "measured 3 at [1], at most 3"),
        ({"measured": 1.0, "above": 1.0 + 1e-12, "atol": 1e-9}, "measured 1, at least 1 (allowed 1.0e-09 more)"),
        ({"measured": 1.0, "above": 0.0, "below": 4.0}, "measured 1, at most 4; measured 1, at least 0"),
        (
            {"measured": 0.5, "below": 1.0, "sigmas": 4, "se": 0.1, "wrong": -0.1},
            "measured 0.5, at most 1, 5.0 standard errors to spare (needed 4); "
            "the mistaken -0.1 is exceeded by 6.0 standard errors",
        ),
        ({"measured": 2.0, "above": 1.0, "wrong": 3}, "measured 2, at least 1; the mistaken 3 is undercut by 1"),
    ],
)
def test_inequalities_say_which_entry_is_nearest_to_its_bound(capsys, arguments, line):
    check("c", **arguments)
    assert capsys.readouterr().out == f"ok    c: {line}\n"


def test_mistake_beyond_five_standard_errors_is_enough(capsys):
    check("c", measured=1.0, predicted=1.1, sigmas=4, se=0.1, wrong=1.51)
    assert "5.1 standard errors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "exactly one of atol, rtol, sigmas"),
        ({"atol": 1, "rtol": 1}, "exactly one of"),
        ({"below": 2.0, "predicted": None, "atol": 1, "rtol": 1}, "exactly one of"),
        ({"atol": -1.0}, "atol = -1.0: expected a finite number > 0"),
        ({"atol": 1.0, "se": 1.0}, "se = 1 with atol"),
        ({"sigmas": 4}, "se = None with sigmas"),
        ({"sigmas": 4, "se": 0.0}, "se has the entry 0"),
        ({"sigmas": 4, "se": [[0.1, 0.2]], "measured": [1.0, 2.0], "predicted": [1.0, 2.0]}, "se has shape"),
        ({"sigmas": 3, "se": [0.1, 0.2, 0.3, 0.4], "measured": [[1.0], [2.0]], "predicted": 1.0}, "se has shape"),
        ({"rtol": 0.1, "predicted": 0.0}, "expected atol for a prediction of zero"),
        ({"atol": 1.0, "predicted": np.nan}, "predicted = nan: expected finite"),
        ({"atol": 1.0, "measured": [1.0, 2.0], "predicted": [1.0]}, r"predicted has shape \(1,\): expected \(2,\)"),
        ({"atol": 1.0, "measured": [1.0], "predicted": [1.0], "wrong": [1.0, 2.0]}, "wrong has shape"),
        ({"atol": 1.0, "wrong": np.nan}, "wrong = nan: expected finite"),
        ({"atol": 1.0, "wrong": [np.nan, 2.0]}, r"wrong\[0\] = nan: expected finite"),
        ({"atol": 1.0, "measured": [], "predicted": []}, "expected at least one number"),
        ({"predicted": None}, "expected either predicted, or below or above"),
        ({"below": 2.0, "atol": 1.0}, "expected either predicted, or below or above"),
        ({"predicted": None, "below": np.inf}, "below = inf: expected finite"),
        ({"predicted": None, "below": 2.0, "above": 0.0, "wrong": 3.0}, "wrong with both below and above"),
    ],
)
def test_what_is_no_check_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        check("c", **{"measured": 1.0, "predicted": 1.0, **arguments})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"measured": np.array([1 + 5j, 2 + 7j]), "predicted": [1.0, 2.0]}, "measured has dtype complex128"),
        ({"measured": ["1", "2"], "predicted": [1, 2]}, "measured has dtype <U1"),
        ({"measured": 1.0, "predicted": 1 + 1j}, "predicted has dtype complex128"),
        ({"measured": 1.0, "predicted": 1.0, "wrong": "2"}, "wrong has dtype"),
        ({"measured": 1.0, "predicted": 1.0, "says": ""}, "says = '': expected words"),
        ({"measured": 1.0, "predicted": 1.0, "says": 3}, "says = 3: expected words"),
    ],
)
def test_what_is_not_real_is_refused(arguments, words):
    with pytest.raises(TypeError, match=words):
        check("c", atol=1e-9, **arguments)


@pytest.mark.parametrize("value", ["", "  ", "two\nlines"])
def test_say_wants_a_line(value):
    with pytest.raises(ValueError, match=r"n = .*: expected one line of text"):
        say(n=value)


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
